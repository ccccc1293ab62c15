"""Every law on every operator of the registry on every array library, and the faults that the public checks find."""

from __future__ import annotations

import importlib
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import structmat as sm
from structmat._arrays.libraries import namespace
from structmat.testing._drawing import Sample, Vectors
from structmat.testing._matrix_laws import MATRIX_LAWS, Pair
from tests.backends import COMPILE, Backend
from tests.operator_registry import (
    CLOSED_FORMS,
    NEED_SQUARE,
    REGISTRY,
    Entry,
    arguments_of,
    every_entry,
    every_entry_of_few_compiled,
    every_entry_where_nothing_compiles,
    on_libraries,
)
from tests.operators.outsiders import ToeplitzPlusHankel

TOLERANCE = {"float32": 1e-5, "complex64": 1e-5, "float64": 1e-13, "complex128": 1e-13}

BLOCKS = {
    **dict.fromkeys((sm.Circulant, sm.SpectralCirculant, sm.BandedCirculant, sm.Toeplitz), sm.Toeplitz),
    sm.Hankel: sm.Hankel,
    ToeplitzPlusHankel: ToeplitzPlusHankel,
}
"""What a block is, of the families whose blocks have the structure of the whole."""


def check(backend: Backend, entry: Entry, law: Any, dtype: str | None = None) -> None:
    """Run ``law(operator, dense, sample, vectors)`` on drawn operators of one kind."""

    def run(sample: Sample, seed: int) -> None:
        law(sample.make(backend.asarray), sample.dense, sample, Vectors(seed, sample.dtype.name))

    if backend.compiles:  # on one sample of a few fixed shapes, so that laws share what is compiled
        seed = zlib.crc32(law.__qualname__.encode())
        run(entry.fixed_sample(seed, seed + REGISTRY.index(entry), dtype=dtype), seed)
    else:
        drawn = given(entry.samples(dtype=dtype), st.integers(0, 2**32 - 1))(run)
        settings(max_examples=backend.examples)(drawn)()


def assert_close(actual: np.ndarray, expected: np.ndarray, *magnitudes: np.ndarray, dtype: Any = None) -> None:
    """Compare up to rounding, relative to the product of the norms of what was multiplied."""
    assert actual.shape == expected.shape
    tolerance = TOLERANCE[np.dtype(dtype or actual.dtype).name]
    rows = [m.reshape(-1, m.shape[-1]) for m in magnitudes or (expected,)]
    scale = np.prod([np.max(np.linalg.norm(m, axis=-1), initial=0) for m in rows])
    bound = tolerance * np.sqrt(max(expected.shape[-2:], default=1)) * (scale + np.max(np.abs(expected), initial=0))
    assert np.max(np.abs(actual - expected), initial=0) <= bound


def single(sample: Sample) -> bool:
    return sample.dtype.name in {"float32", "complex64"}


def is_neutral(op: sm.LinearOperator) -> bool:
    return op.dtype is None


TRACED = {
    "products": ("description", "vectors", "batches", "no vectors", "complex vectors", "columns"),
    "arithmetic": ("transposes", "arithmetic", "identities"),
    "linear algebra": ("entries", "inverses", "functions"),
}
"""The laws that JAX traces together: it would compile each operation for each shape."""
EAGER = {"eigenvalues"}
"""The laws that look at values before they are done, so that JAX cannot trace them."""
NAMES = {"fro": "norm(fro)", "nuc": "norm(nuc)", 1: "norm(1)", 2: "norm(2)", np.inf: "norm(inf)"}


class Deferred(Pair):
    """Compares the results of all laws at the end, by NumPy, for libraries that compute them sooner together."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.results: list[tuple[str, Any, tuple[Any, ...], dict[str, Any]]] = []

    def near(self, name: str, actual: Any, *expected: Any, **options: Any) -> None:
        self.results.append((name, actual, expected, options))

    def of_laws(self, names: Iterable[str]) -> list[Any]:
        """Return what the laws compare."""
        for name in names:
            MATRIX_LAWS[name](self)
        return [actual for _, actual, _, _ in self.results]

    def compare(self, values: Sequence[Any]) -> None:
        for (name, _, expected, options), value in zip(self.results, values, strict=True):
            super().near(name, np.asarray(value), *expected, **options)


def without_closed_form(xp: Any, entry: Entry, skipped: set[str]) -> set[str]:
    """Return what the laws have skipped though the entry claims a closed form of it."""
    known = entry.closed_forms | {NAMES[ord] for ord in entry.norms if "norm" in entry.closed_forms}
    # array_api_strict follows a standard that has no general eigenvalues
    return skipped & (known if hasattr(xp.linalg, "eig") else known - {"eig", "eigvals"})


of_lost_digits = pytest.mark.filterwarnings("ignore::scipy.linalg.LinAlgWarning")  # as the public checks do


@of_lost_digits
@every_entry_where_nothing_compiles
def test_the_laws_of_the_public_checks_hold(backend: Backend, entry: Entry) -> None:
    xp = namespace(backend.asarray(np.ones(1)))

    def law(op: Any, dense: np.ndarray, sample: Sample, v: Vectors) -> None:
        pair = Pair(op, dense, v.rng, None, xp)
        for each in MATRIX_LAWS.values():
            each(pair)
        assert not without_closed_form(xp, entry, pair.skipped)

    check(backend, entry, law)


def test_every_law_is_traced_or_eager() -> None:
    assert sorted([*sum(TRACED.values(), ()), *EAGER]) == sorted(MATRIX_LAWS)


@of_lost_digits
@on_libraries(REGISTRY, libraries=COMPILE)
@pytest.mark.parametrize("group", TRACED)
def test_the_laws_of_the_public_checks_hold_in_a_trace(backend: Backend, entry: Entry, group: str) -> None:
    xp = namespace(backend.asarray(np.ones(1)))

    def law(op: Any, dense: np.ndarray, sample: Sample, v: Vectors) -> None:
        pair = Pair(op, dense, v.rng, None, xp)
        for name in EAGER if group == "linear algebra" else ():
            MATRIX_LAWS[name](pair)
        together = Deferred(op, dense, v.rng, None, xp)
        together.compare(importlib.import_module("jax").jit(lambda: together.of_laws(TRACED[group]))())
        assert not without_closed_form(xp, entry, pair.skipped | together.skipped)

    check(backend, entry, law)


@every_entry_of_few_compiled
def test_what_others_ask_of_parts_holds_for_stacks(backend: Backend, entry: Entry) -> None:
    """Such as products of squared moduli with columns, by which diagonals of functions are computed."""
    (others,) = [law for law in sm.testing.laws() if law.name == "other hooks"]

    def law(op: Any, dense: np.ndarray, sample: Sample, v: Vectors) -> None:
        others(op, dense, rng=v.rng)

    check(backend, entry, law)


@every_entry_of_few_compiled
def test_entries_and_blocks_are_those_of_the_dense_matrix(backend: Backend, entry: Entry) -> None:
    def law(op: Any, dense: np.ndarray, sample: Sample, v: Vectors) -> None:
        def same(index: Any, found: Any) -> None:
            found = np.asarray(found) if is_neutral(op) else backend.to_numpy(found)
            assert_close(found, dense[..., *index], dense, np.ones(1), dtype=sample.dtype)
            assert is_neutral(op) or found.dtype == sample.dtype

        rows, cols = op.shape
        i, j = (int(v.rng.integers(-size, size)) for size in (rows, cols))
        (a, b), (c, d) = (sorted(map(int, v.rng.choice(size + 1, 2, replace=False))) for size in (rows, cols))
        same((i, j), op[i, j])
        same((i, slice(None)), op[i])
        same((slice(None), j), op[:, j])
        same((i, slice(c, d)), op[i, c:d])
        same((slice(a - rows or None, b), j), op[a - rows or None : b, j])
        assert op[:, :] is op
        family = type(op.operator if isinstance(op, sm.Prepared) else op)
        if family in {sm.Diagonal, sm.Identity}:
            assert type(op[a:b, a:b]) is family
            same((slice(a, b), slice(a, b)), op[a:b, a:b].to_dense())
        elif family in BLOCKS and (b - a, d - c) != op.shape:
            assert type(op[a:b, c:d]) is BLOCKS[family]
        same((slice(a, b), slice(c, d)), op[a:b, c:d].to_dense())
        chosen, kept = (v.rng.permutation(size)[: (size + 1) // 2] for size in (rows, cols))
        part = op[chosen][:, kept - cols]
        same((chosen[:, None], kept), part.to_dense())
        same((chosen[::-2, None], kept[:1]), part[::-2, :1].to_dense())
        same((chosen, j), op[chosen, j])

    check(backend, entry, law)


@on_libraries([e for e in REGISTRY if {"Multilevel", "Multiplier", "Grid"} & {*re.findall("[A-Z][a-z]+", e.name)}])
def test_products_on_grids_are_those_of_vectors(backend: Backend, entry: Entry) -> None:
    def law(op: Any, dense: np.ndarray, sample: Sample, v: Vectors) -> None:
        rows, cols = (op.operator if isinstance(op, sm.Prepared) else op)._grids
        for lead in ((), (3, *dense.shape[:-2])):
            x = v(*lead, *cols)
            want = np.einsum("...ij,...j->...i", dense, x.reshape(*lead, -1))
            y = backend.to_numpy(op.convolve(backend.asarray(x)))
            assert y.dtype == sample.dtype
            assert y.shape == (*want.shape[:-1], *rows)
            assert_close(y.reshape(want.shape), want, dense, x.reshape(*lead, -1))

    check(backend, entry, law)


@every_entry
def test_the_identity_is_taken_in(entry: Entry) -> None:
    op = entry.draw(Vectors(5, "float64")).make(np.array)
    rows, cols = op.shape
    if entry.name != "Identity":
        assert sm.Identity(rows) @ op is op
        assert op @ sm.Identity(cols) is op
    if {"eig", "inv"} <= entry.closed_forms and entry.keeps_identity and not is_neutral(op):
        assert type(op + 2 * sm.Identity(rows)) is type(op)  # so that a regularised system keeps its closed forms


@every_entry_of_few_compiled
def test_mixed_precision_is_computed_in_the_wider_one(backend: Backend, entry: Entry) -> None:
    def law(op: Any, dense: np.ndarray, sample: Sample, v: Vectors) -> None:
        x = v(dense.shape[-1]).astype("float64")
        y = backend.to_numpy(op.matvec(backend.asarray(x)))
        if entry.name != "SpectralCirculant":  # its spectrum was rounded to single precision before
            assert_close(y, dense @ x, dense, x, dtype="float64")
        assert y.dtype.itemsize // (2 if y.dtype.kind == "c" else 1) == 8

    check(backend, entry, law, dtype="float32")


@every_entry_of_few_compiled
def test_half_precision_is_computed_in_single_and_cast_back(backend: Backend, half: Any, entry: Entry) -> None:
    def law(op: Any, dense: np.ndarray, sample: Sample, v: Vectors) -> None:
        if is_neutral(op) or any("complex" in str(array.dtype) for array in op._arrays()):
            return  # a spectrum: complex numbers have no half precision
        narrow = op.astype(half)
        x16 = backend.cast(backend.asarray(v(dense.shape[-1])), half)
        y = narrow.matvec(x16)
        assert y.dtype == half
        back = narrow.astype(backend.xp.float32).matvec(backend.cast(x16, backend.xp.float32))
        assert bool((backend.cast(back, half) == y).all())
        assert (narrow @ x16[:, None]).dtype == half
        assert (narrow + narrow).dtype == half
        if entry.closed_forms & {"trace"}:
            assert narrow.trace().dtype == half

    check(backend, entry, law, dtype="float32")


@every_entry_where_nothing_compiles
def test_inputs_are_never_written_to(backend: Backend, entry: Entry) -> None:
    def law(op: Any, dense: np.ndarray, sample: Sample, v: Vectors) -> None:
        kept: list[tuple[Any, np.ndarray]] = []

        def asarray(values: np.ndarray) -> Any:
            kept.append((backend.asarray(values), values.copy()))
            return kept[-1][0]

        fresh = sample.make(asarray)
        x, y = asarray(v(dense.shape[-1])), asarray(v(dense.shape[-2]))
        fresh.matvec(x), fresh.rmatvec(y), fresh @ x[:, None], fresh.to_dense(), fresh.T.to_dense(), fresh + 2 * fresh
        for array, copy in kept:
            np.testing.assert_array_equal(backend.to_numpy(array), copy)

    check(backend, entry, law)


@every_entry_of_few_compiled
def test_integers_are_promoted_not_truncated(backend: Backend, entry: Entry) -> None:
    def law(op: Any, dense: np.ndarray, sample: Sample, v: Vectors) -> None:
        x = v.rng.integers(-5, 6, dense.shape[-1])
        y = backend.to_numpy(op.matvec(backend.asarray(x)))
        # a spectrum was rounded before, so a wider product is no better than it
        precision = sample.dtype if entry.name == "SpectralCirculant" else y.dtype
        assert_close(y, dense @ x, dense, x.astype("float64"), dtype=precision)
        assert is_neutral(op) or y.dtype.kind == sample.dtype.kind

    check(backend, entry, law)


@every_entry_of_few_compiled
def test_complex_copies(backend: Backend, entry: Entry) -> None:
    def law(op: Any, dense: np.ndarray, sample: Sample, v: Vectors) -> None:
        if is_neutral(op):
            return
        name = "complex64" if single(sample) else "complex128"
        for other in (op.astype(name), op.astype(backend.dtype(name))):
            assert other.dtype == backend.dtype(name) == other.to_dense().dtype
            assert_close(backend.to_numpy(other.to_dense()), dense, dense, np.ones(1))
            x = v(dense.shape[-1])
            assert_close(backend.to_numpy(other.matvec(backend.asarray(x))), dense @ x, dense, x, dtype=name)

    check(backend, entry, law)


@every_entry_where_nothing_compiles
def test_stacks_of_no_matrices(backend: Backend, entry: Entry) -> None:
    sample = entry.draw(Vectors(3, "float64", (17,)))

    def stack(count: int) -> Any:
        return sample.make(lambda values: backend.asarray(values[:count] if values.shape[:1] == (17,) else values))

    one, none = stack(1), stack(0)
    if none.batch_shape != (0,):
        pytest.skip("no parameters")
    rows, cols = (backend.asarray(np.ones(side)) for side in none.shape)

    def results(op: Any) -> list[Any]:
        names = sorted(entry.closed_forms - {"norm"})
        found = [getattr(op, name)(*arguments_of(name, rows)) for name in names]
        found += [op.norm(ord) for ord in entry.norms if "norm" in entry.closed_forms]
        found += [op @ cols, op @ cols[:, None], op.rmatvec(rows), op.prepare().matvec(cols), op + op.T.T]
        return [part for value in found for part in (value if isinstance(value, tuple) else (value,))]

    for full, empty in zip(results(one), results(none), strict=True):
        a, b = (value.to_dense() if isinstance(value, sm.LinearOperator) else value for value in (full, empty))
        assert tuple(b.shape) in {(0, *a.shape[1:]), tuple(a.shape)}  # eigenvectors may belong to all


@every_entry
def test_methods_without_closed_form_name_the_alternative(entry: Entry) -> None:
    op = entry.draw(Vectors(0, "float64")).make(np.array)
    square = op.shape[0] == op.shape[1]
    for method in sorted(CLOSED_FORMS - entry.closed_forms):
        arguments = arguments_of(method, np.ones(op.shape[0]))
        if method in NEED_SQUARE and not square:
            with pytest.raises(ValueError, match=rf"{type(op).__name__}\.{method}: the operator must be square"):
                getattr(op, method)(*arguments)
        else:
            text = rf"^{type(op).__name__}\.{method}: no closed form for .*; use (structmat|scipy|numpy)"
            with pytest.raises(NotImplementedError, match=text):
                getattr(op, method)(*arguments)
    for ord in {"fro", "nuc", 1, 2, np.inf} - entry.norms if "norm" in entry.closed_forms else ():
        with pytest.raises(NotImplementedError, match="no closed form"):
            op.norm(ord)


def turned(z: Any) -> Any:
    """A function that makes real numbers complex."""
    return 1j * z


def cayley(z: Any) -> Any:
    """A function that maps conjugate numbers to conjugate ones."""
    return (2 + z) / (2 - z)


def of_normal_matrix(function: Any, dense: np.ndarray) -> np.ndarray:
    """The function of normal matrices, whose triangular forms are diagonal."""
    n = dense.shape[-1]
    found = [scipy.linalg.schur(A.astype(complex), "complex") for A in dense.reshape(-1, n, n)]
    return np.reshape([(Z * function(np.diag(T))) @ Z.conj().T for T, Z in found], dense.shape)


@on_libraries([entry for entry in REGISTRY if "sqrtm" in entry.closed_forms])
def test_matrix_functions(backend: Backend, entry: Entry) -> None:
    def law(op: Any, dense: np.ndarray, sample: Sample, v: Vectors) -> None:
        loose = 2e-3 if single(sample) else 1e-10

        def written(other: Any) -> np.ndarray:
            return np.asarray(other.to_dense() if is_neutral(other) else backend.to_numpy(other.to_dense()))

        def near(other: Any, expected: np.ndarray) -> None:
            assert np.max(np.abs(written(other) - expected)) <= loose * max(1, np.max(np.abs(expected)))

        near(op.fractional_matrix_power(3), dense @ dense @ dense)
        assert sample.dtype.kind == "c" or "complex" not in str(op.fractional_matrix_power(3).dtype)
        root = op.sqrtm()
        near(root @ root, dense)
        near(op.fractional_matrix_power(0.5), written(root))
        small = op / (1 + float(np.max(np.linalg.norm(dense, axis=(-2, -1)))))
        identity = np.broadcast_to(np.eye(dense.shape[-1]), dense.shape)
        near(small.expm() @ (-small).expm(), identity)
        xp = np if is_neutral(op) else backend.xp
        pairs = [(xp.exp, np.exp), (xp.cos, np.cos), *((function, function) for function in (turned, cayley))]
        for ours, theirs in pairs:
            near(small.funm(ours), of_normal_matrix(theirs, written(small)))
        if np.all(np.linalg.cond(dense) < 50):
            near(op.logm().expm(), dense)
            near(op.fractional_matrix_power(-2) @ op.fractional_matrix_power(2), identity)

    check(backend, entry, law)


C = np.array([1.0, 2.0, 5.0, 3.0])


class Faulty(sm.Circulant):
    """A circulant whose faults are given by name; T and conj keep them."""

    fault = ""

    def matvec(self, x: Any, /, *, out: Any = None) -> Any:
        y = super().matvec(x, out=out)
        return y.copy() if self.fault == "out" else y

    def _transpose(self) -> Any:
        if self.fault == "kind":
            return sm.Circulant(self.c)._transpose()
        return type(self)(self.c if self.fault == "transpose" else np.roll(self.c[::-1], 1))

    def _matvec(self, x: Any, xp: Any) -> Any:
        y = super()._matvec(x.real if self.fault == "real" else x, xp)
        return y[..., ::-1] if self.fault == "matvec" else y

    def _rmatvec(self, y: Any, xp: Any) -> Any:
        return self._matvec(y, xp) if self.fault == "rmatvec" else super()._rmatvec(y, xp)

    def _diagonal(self, xp: Any) -> Any:
        return super()._diagonal(xp) * (2 if self.fault == "diagonal" else 1)

    def _svdvals(self, xp: Any) -> Any:
        return super()._svdvals(xp) + (self.fault == "svdvals")

    def _frobenius(self, xp: Any) -> Any:
        return super()._frobenius(xp) * {"norm": 2, "nan": np.nan}.get(self.fault, 1)

    def _solve(self, b: Any, xp: Any) -> Any:
        return super()._solve(b, xp) * (2 if self.fault == "solve" else 1)

    def _to_dense(self, like: Any) -> Any:
        dense = super()._to_dense(like)
        return dense.astype("float32") if self.fault == "dtype" else dense

    def __mul__(self, factor: Any) -> Any:
        if self.fault == "imaginary":
            factor = factor.real
        return super().__mul__(2 * factor if self.fault == "multiple" else factor)

    __rmul__ = __mul__

    def __deepcopy__(self, memo: Any) -> Any:
        return type(self)(self.c + (self.fault == "copy"))


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("matvec", r"matvec of float64 \(4,\): off by"),
        ("rmatvec", r"rmatvec of float64 \(4,\): off by"),
        ("real", r"matvec makes float64 of complex128"),
        ("transpose", r"rmatvec of float64 \(4,\): off by"),
        ("diagonal", r"diagonal: off by"),
        ("svdvals", r"svdvals: off by"),
        ("norm", r"norm\(fro\): off by"),
        ("solve", r"solve: off by"),
        ("dtype", r"to_dense has dtype float32, the operator float64"),
        ("multiple", r"2 \* op: off by"),
        ("copy", r"a copy multiplies wrongly: off by"),
        ("kind", r"T is a Circulant"),
        ("nan", r"norm\(fro\): off by nan"),
        ("out", r"matvec does not return out"),
        ("imaginary", r"op \* \(1 \+ 2j\) is real where complex numbers are due"),
    ],
)
def test_a_fault_is_found_and_named(fault: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = scipy.linalg.circulant(C)
    sm.testing.check_operator(sm.Circulant(C), dense, rng=0)
    monkeypatch.setattr(Faulty, "fault", fault)
    with pytest.raises(AssertionError, match=f"Faulty: {text}"):
        sm.testing.check_operator(Faulty(C), dense, rng=0)


def test_a_wrong_matrix_or_shape_is_found() -> None:
    with pytest.raises(AssertionError, match="to_dense is not the dense matrix: off by"):
        sm.testing.check_operator(sm.Circulant(C), scipy.linalg.circulant(C).T)
    with pytest.raises(AssertionError, match=r"it has shape \(4, 4\)"):
        sm.testing.check_operator(sm.Circulant(C), np.eye(3))
    with pytest.raises(ValueError, match="check_operator: dense must be a matrix"):
        sm.testing.check_operator(sm.Circulant(C), C)
    with pytest.raises(
        TypeError, match=r"check_operator: operator must be an operator of structmat, SciPy.*, got ndarray"
    ):
        sm.testing.check_operator(C, C)


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e150, 1e300])
def test_operators_of_any_scale_obey_the_laws(scale: float) -> None:
    sm.testing.check_operator(sm.Circulant(scale * C), scale * scipy.linalg.circulant(C), rng=0)
    with pytest.raises(AssertionError, match="to_dense is not the dense matrix"):
        sm.testing.check_operator(sm.Circulant(scale * C), scale * scipy.linalg.circulant(C + 1e-3), rng=0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [10.0, 0.1])
def test_determinants_that_are_out_of_range_are_no_fault(
    dtype: str, size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    d = np.full(400, size, dtype)
    sm.testing.check_operator(sm.Diagonal(d), np.diag(d.astype(float)), rng=0)
    monkeypatch.setattr(sm.Diagonal, "_determinant_factors", lambda self, *_: 2 * self.d)
    with pytest.raises(AssertionError, match="slogdet: off by"):
        sm.testing.check_operator(sm.Diagonal(d), np.diag(d.astype(float)), rng=0)


def test_stacks_of_none_obey_the_laws() -> None:
    sm.testing.check_operator(sm.Circulant(np.zeros((0, 3))), np.zeros((0, 3, 3)), rng=0)


def test_a_tolerance_of_zero_is_one() -> None:
    c = np.array([1.0, 1 / 3, 0.7])
    with pytest.raises(AssertionError, match="off by"):
        sm.testing.check_operator(sm.Circulant(c), scipy.linalg.circulant(c), rng=0, rtol=0.0)
    with pytest.raises(ValueError, match="check_operator: rtol must be finite and not negative"):
        sm.testing.check_operator(sm.Circulant(c), scipy.linalg.circulant(c), rng=0, rtol=-1.0)
