"""Prepared operators: the same answer whatever engine, chunk, thread or method, of snapshots of the parameters."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
from hypothesis import example, given, settings
from hypothesis import strategies as st

import structmat as sm
from structmat._fourier import chunks, convolutions
from structmat.testing._drawing import Vectors
from tests import backends
from tests.backends import Backend
from tests.cases import in_one_test
from tests.fourier.test_fourier import relative, sparse_product
from tests.operator_registry import PLAIN, REGISTRY, Entry, each
from tests.operators.outsiders import DirectSum

TOLERANCE = {"float32": 1e-5, "complex64": 1e-5, "float64": 1e-13, "complex128": 1e-13}


def operators(v: Vectors, n: int) -> list[sm.LinearOperator]:
    m, b = max(1, n // 2), max(1, n // 3)
    return [
        sm.Circulant(v(n)),
        sm.Toeplitz(v(m), v(n)),
        sm.Hankel(v(n), v(m)),
        sm.CDDProduct.from_vectors(v(n), v(n), v(n)),
        sm.CDDProduct.from_vectors(v(n), v(n), v(n), v(n), first="circulant"),
        sm.BlockCirculant(v(2, -(-n // b), b), (2 * b - b // 2, n)),
    ]


def by_plan(P: Any) -> Any:
    """The same prepared operator without its dense matrix."""
    return replace(P, most_dense=0)


def assert_same(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal up to rounding, which may depend on where in memory an array lies."""
    assert actual.dtype == expected.dtype
    assert np.linalg.norm(actual - expected) <= TOLERANCE[expected.dtype.name] * np.linalg.norm(expected)


@pytest.mark.usefixtures("engine")
@settings(max_examples=25)
@given(
    n=st.one_of(st.integers(1, 130), st.sampled_from([257, 509, 512, 1009, 1024, 1030])),
    dtype=st.sampled_from(list(TOLERANCE)),
    batch=st.sampled_from([(), (3,), (2, 9)]),
    seed=st.integers(0, 2**32 - 1),
)
def test_engines_agree_with_the_dense_matrix(n: int, dtype: str, batch: tuple[int, ...], seed: int) -> None:
    v = Vectors(seed, dtype)
    for op in operators(v, n):
        dense = op.to_dense().astype("complex128" if dtype.startswith("c") else "float64")
        P = op.prepare()
        x, y = v(*batch, op.shape[1]), v(*batch, op.shape[0])
        bound = TOLERANCE[dtype] * np.linalg.norm(dense) * np.sqrt(n)
        for prepared in (op, P, by_plan(P), P.T.T, by_plan(P.H).H):
            product, adjoint = prepared.matvec(x), prepared.rmatvec(y)
            assert product.dtype == adjoint.dtype == np.dtype(dtype)
            assert np.max(np.abs(product - x @ dense.T), initial=0) <= bound * np.max(np.abs(x), initial=1)
            assert np.max(np.abs(adjoint - y @ dense.conj()), initial=0) <= bound * np.max(np.abs(y), initial=1)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("n", [1000, 1024, 4099, 5000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_chunks_and_single_vectors_agree(n: int, dtype: str) -> None:
    v = Vectors(n, dtype)
    x = v(300, n)
    for op in operators(v, n)[:4]:
        P = op.prepare()
        rows = P.matvec(x[:, : P.shape[1]])
        for i in (0, 7, 8, 131, 299):
            for one in (P.matvec(x[i, : P.shape[1]]), P.matvec(x[i, P.shape[1] - 1 :: -1].copy()[::-1])):
                assert np.linalg.norm(rows[i] - one) <= TOLERANCE[dtype] * np.linalg.norm(one)
        for out in (None, np.empty_like(rows)):
            with scipy.fft.set_workers(3):
                shared = P.matvec(x[:, : P.shape[1]], out=out)
            assert np.linalg.norm(shared - rows) <= TOLERANCE[dtype] * np.linalg.norm(rows)
        columns = P.matmat(x[:, : P.shape[1]].T)
        assert np.linalg.norm(columns.T - rows) <= TOLERANCE[dtype] * np.linalg.norm(rows)


@pytest.mark.usefixtures("engine")
@each(REGISTRY)
@in_one_test("dtype", ["float64", "complex128"])
def test_out_is_filled_whatever_its_layout_and_may_be_the_operand(entry: Entry, dtype: str) -> None:
    """An engine that writes into `out` as it goes must not find there what it has still to read."""
    sample = entry.draw(Vectors(6, dtype))
    op, v = sample.make(np.asarray), Vectors(7, dtype)
    for P in (op, op.prepare(), by_plan(op.prepare()) if isinstance(op.prepare(), sm.Prepared) else op):
        cols = P.shape[1]
        for shape in ((), (3,), (2, 9)):
            operand = v(*shape, cols)
            expected = P.matvec(operand.copy())
            strided = np.empty((*expected.shape, 2), expected.dtype)[..., 0]
            unaligned = np.zeros(expected.nbytes + 1, "u1")[1:].view(expected.dtype).reshape(expected.shape)
            fits = (expected.shape, expected.dtype) == (operand.shape, operand.dtype)
            for out in (np.empty_like(expected), strided, unaligned, *([operand] * fits)):
                assert P.matvec(operand, out=out) is out
                assert_same(out, expected)


def test_out_that_does_not_fit_is_refused() -> None:
    torch: Any = pytest.importorskip("torch")
    C = sm.Circulant(np.arange(4.0))
    x = np.ones((3, 4))
    for op in (C, C.prepare()):
        for out, message in (
            (np.broadcast_to(np.empty(4), (3, 4)), r"out must be writeable, got a read-only array"),
            (np.empty((3, 5)), r"out must have shape \(3, 4\) and dtype float64, got \(3, 5\)"),
            (np.empty((3, 4), "float32"), "and dtype float64, got .* float32"),
        ):
            with pytest.raises(ValueError, match=message):
                op.matvec(x, out=out)
        with pytest.raises(ValueError, match="dtype complex128"):
            op.matvec(np.ones(4, "complex128"), out=np.empty(4))
        with pytest.raises(TypeError, match="out must be a NumPy array"):
            op.matvec(x, out=[1.0])
    T = sm.Circulant(torch.ones(4))
    for op in (T, T.prepare()):
        with pytest.raises(TypeError, match="out must be a NumPy array for results of NumPy, got Tensor"):
            op.matvec(torch.ones(4), out=torch.empty(4))


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("n", [64, 509, 2048])
def test_eight_threads_use_one_operator_at_once(n: int) -> None:
    v = Vectors(n, "float64")
    for op in operators(v, n):
        P = by_plan(op.prepare())
        xs = [v(*shape, P.shape[1]) for shape in ((), (40,), (2, 3)) for _ in range(8)]
        expected = [P.matvec(x) for x in xs]
        with ThreadPoolExecutor(8) as pool:
            for _ in range(5):
                for got, right in zip(pool.map(P.matvec, xs), expected, strict=True):
                    assert_same(got, right)


@pytest.mark.usefixtures("engine")
@in_one_test("dtype", list(TOLERANCE))
@pytest.mark.parametrize("n", [1, 2, 5, 64, 101, 1009, 1024, 5000])
def test_prepared_solutions_are_those_of_the_operator(n: int, dtype: str) -> None:
    v = Vectors(n, dtype)
    scales = np.logspace(0, -3, n // 2 + 1 if np.dtype(dtype).kind == "f" else n)  # of the spectrum, small values too
    spectrum = (scales * np.exp(1j * np.arange(len(scales)))).astype(np.result_type(dtype, "complex64"))
    spectrum[[0, -1]] = 1
    C = sm.SpectralCirculant(spectrum, n, real=np.dtype(dtype).kind == "f").to_circulant()
    D = sm.Diagonal(np.exp(0.1 * v(n)))
    for op in (C, C.to_spectral(), D @ C @ D, C @ D @ C @ D, sm.BlockCirculant(C.c[None, None])):
        P = op.prepare()
        for b in (v(n), v(9, n), v(2, 3, n), v(0, n)):
            for x, right in ((P.inv_matvec(b), op.inv_matvec(b)), (P.T.inv_matvec(b), op.T.inv_matvec(b))):
                assert x.dtype == right.dtype
                assert x.shape == right.shape
                assert np.linalg.norm(x - right) <= 1e3 * TOLERANCE[dtype] * np.linalg.norm(right)
    assert P.solve(np.ones(n, "complex128")).dtype == "complex128"


def test_prepared_systems_without_solutions() -> None:
    c = np.ones(6)
    for op in (sm.Circulant(c), sm.CDDProduct.from_vectors(c, c, c), sm.Diagonal(c - c) @ sm.Circulant(c)):
        P = op.prepare()
        for _ in range(2):
            with pytest.raises(np.linalg.LinAlgError, match=r"(Circulant|Diagonal)\.solve: the matrix is singular"):
                P.solve(c)
    with pytest.raises(ValueError, match=r"Prepared\.solve: b must have shape"):
        sm.Circulant(c).prepare().solve(np.ones(5))
    with pytest.raises(NotImplementedError):
        sm.ToeplitzInverse(c, c).prepare().solve(c)


def test_what_was_computed_follows_the_parameters() -> None:
    jax: Any = pytest.importorskip("jax")
    pytest.importorskip("structmat.jax")
    c = np.random.default_rng(0).standard_normal(300)
    for op in (sm.Circulant(c), sm.CDDProduct.from_vectors(c, c, c)):
        P = op.prepare()
        y, x = P.matvec(c), P.solve(c)
        Q = jax.tree.map(lambda a: 2 * a, P)
        factor = 2 if isinstance(op, sm.Circulant) else 8
        np.testing.assert_allclose(Q.matvec(c), factor * y)
        np.testing.assert_allclose(Q.rmatvec(c), factor * P.rmatvec(c))
        np.testing.assert_allclose(Q.solve(c), x / factor)


@pytest.mark.usefixtures("engine")
def test_half_precision_is_prepared_in_single() -> None:
    v = Vectors(0, "float32")
    for n in (9, 300, 1009, 5000):
        c, x = v(n).astype("float16"), v(3, n).astype("float16")
        op = sm.Circulant(c)
        P = op.prepare()
        single = sm.Circulant(c.astype("float32"))
        for a, b in ((P, single), (P.T, single.T), (P.H, single.H)):
            for y, right in (
                (a.matvec(x), b.matvec(x)),
                (a.rmatvec(x[0]), b.rmatvec(x[0])),
                (a.inv_matvec(x), b.inv_matvec(x)),
            ):
                assert y.dtype == "float16"
                np.testing.assert_allclose(y.astype("float32"), right, rtol=2e-3, atol=2e-3 * np.max(np.abs(right)))
        assert P.matvec(x.astype("float32")).dtype == "float32"
        assert P._in_precision(np.dtype("float32"), np) is P._in_precision(np.dtype("float32"), np)


def test_errors_within_properties_are_not_taken_for_missing_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    P = sm.Circulant(np.ones(3)).prepare()
    monkeypatch.setattr(sm.Prepared, "ndim", property(lambda self: self.operator.c.nothing))
    with pytest.raises(AttributeError, match=r"'numpy.ndarray' object has no attribute 'nothing'"):
        _ = P.ndim
    with pytest.raises(AttributeError, match="'Circulant' object has no attribute 'nothing'"):
        _ = P.nothing


def test_what_comes_of_a_prepared_operator_is_prepared() -> None:
    rng = np.random.default_rng(0)
    c, d = rng.standard_normal((2, 6))
    P, D = sm.Circulant(c).prepare(), sm.Diagonal(d)
    A = scipy.linalg.circulant(c)
    for op, dense in (
        (P.prepare(), A),
        (P.T, A.T),
        (2 * P, 2 * A),
        (P @ P, A @ A),
        (P @ D, A * d),
        (D @ P, d[:, None] * A),
        (P + P, 2 * A),
        (P + D, A + np.diag(d)),
        (D + P, A + np.diag(d)),
        (P - sm.Identity(6), A - np.eye(6)),
    ):
        assert isinstance(op, sm.Prepared)
        assert not isinstance(op.operator, sm.Prepared)
        np.testing.assert_allclose(op.matvec(d), dense @ d, rtol=1e-5)
    with pytest.raises(ValueError, match="read-only"):
        P.operator.c[0] = 1.0
    assert isinstance(P.inv(), sm.Circulant)
    assert isinstance(D.prepare(), sm.Prepared)
    assert D.prepare().most_dense == 0  # a dense matrix would make NaN of infinities
    assert isinstance(sm.Identity(3).prepare(), sm.Identity)
    assert isinstance((sm.Fourier(6) @ sm.Fourier(6)).prepare(), sm.Product)  # of which nothing is computed before
    for factor in (sm.Circulant(c), sm.Diagonal(c)):
        mixed = sm.Product((sm.Fourier(6), factor)).prepare()
        assert isinstance(mixed, sm.Prepared)
        assert not any(np.shares_memory(array, c) for array in mixed._arrays())


@pytest.mark.parametrize(
    "kind", ["sum", "product", "Kronecker", "Kronecker sum", "submatrix", "multiple", "direct sum"]
)
def test_operators_made_of_others_multiply_and_solve_by_prepared_parts(kind: str) -> None:
    """Also one of somebody else's kind, which has no plan."""
    T, D = sm.Toeplitz(0.5 ** np.arange(6.0)), sm.Diagonal(np.arange(1.0, 7.0))
    op: sm.LinearOperator = {
        "sum": T + D,
        "product": T @ D,
        "Kronecker": sm.Kronecker(T, T),
        "Kronecker sum": sm.KroneckerSum(T, T),
        "submatrix": sm.Submatrix(T, [0, 2, 3], [1, 2, 5]),
        "multiple": sm.Scaled(sm.Kronecker(T, T), 2.0),
        "direct sum": DirectSum(T, T),
    }[kind]
    P: Any = op.prepare()
    by_parts = P.plan.operator
    assert type(by_parts) is type(op)
    assert any(isinstance(part, sm.Prepared) for part in by_parts._made_of())
    x = np.cos(np.arange(op.shape[1]))
    np.testing.assert_allclose(by_plan(P).matvec(x), op.to_dense() @ x)
    if kind in {"product", "Kronecker", "direct sum"}:
        np.testing.assert_allclose(P.solve(x), np.linalg.solve(op.to_dense(), x))
        assert all(part.prepared_solver for part in by_parts._made_of() if isinstance(part, sm.Prepared))


@pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
def test_the_adjoint_is_prepared_once_and_never_kept_from_a_trace(library: str) -> None:
    backend = backends.get(library)
    c, y = (backend.asarray(v) for v in np.random.default_rng(0).standard_normal((2, 300)))
    P = sm.Toeplitz(c).prepare()
    expected = P.operator.rmatvec(y)
    if library == "jax":
        found = __import__("jax").jit(P.rmatvec)(y)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        assert P.adjoint is None
    np.testing.assert_allclose(backend.to_numpy(P.rmatvec(y)), backend.to_numpy(expected), atol=1e-12)
    assert P._adjoint() is P._adjoint()
    if library == "torch":
        learned = sm.Toeplitz(c.clone().requires_grad_()).prepare()
        with backend.xp.no_grad():
            learned.rmatvec(y)
        assert learned.rmatvec(y).requires_grad


where_arrays_can_be_changed = backends.on(*(name for name in backends.TESTED if name not in backends.COMPILE))


def drawn(backend: Backend, entry: Entry, dtype: str, seed: int = 5) -> Any:
    return entry.draw(Vectors(seed, dtype)).make(backend.asarray)


def dense(backend: Backend, op: Any) -> np.ndarray:
    return np.array(op.to_dense() if op.dtype is None else backend.to_numpy(op.to_dense()))


@where_arrays_can_be_changed
@each(PLAIN)
@in_one_test("dtype", ["float64", "complex128"])
def test_a_prepared_operator_does_not_follow_its_parameters(backend: Backend, entry: Entry, dtype: str) -> None:
    op = drawn(backend, entry, dtype)
    v = Vectors(0, dtype)
    a, x, y = backend.asarray, v(3, op.shape[1]), v(3, op.shape[0])
    for P in (op.prepare(), op.prepare().T.T, 2 * op.prepare() / 2):

        def answers(P: Any = P) -> list[np.ndarray]:
            found = [P.matvec(a(x)), P.rmatvec(a(y)), P.matvec(a(x[0])), P @ a(x.T), P.T.matvec(a(y))]
            if "solve" in entry.closed_forms:
                found.append(P.inv_matvec(a(y)))
            return [*(np.array(backend.to_numpy(f)) for f in found), dense(backend, P)]

        before = answers()
        kept = [(array, np.array(backend.to_numpy(array))) for array in op._arrays()]
        for array, _ in kept:
            array[...] = 0
        for now, then in zip(answers(), before, strict=True):
            np.testing.assert_array_equal(now, then)
        for array, values in kept:
            array[...] = a(values)


@where_arrays_can_be_changed
@each(PLAIN)
@in_one_test("seed", [5, 6, 7])
@in_one_test("dtype", ["float64", "complex128"])
def test_results_are_no_views_of_the_operator(backend: Backend, entry: Entry, dtype: str, seed: int) -> None:
    op = drawn(backend, entry, dtype, seed)
    before = dense(backend, op)
    x = backend.asarray(Vectors(0, dtype)(op.shape[1]))
    calls = {
        "diagonal": op.diagonal,
        "eigvals": op.eigvals,
        "eig": lambda: op.eig().eigenvalues,
        "svdvals": op.svdvals,
        "solve": lambda: op.solve(x),
    }
    forms = [calls[name] for name in calls if name in entry.closed_forms]
    for call in (*forms, op.to_dense, lambda: op.matvec(x)):
        found = call()
        found[...] = 0
        np.testing.assert_array_equal(dense(backend, op), before)
    assert np.any(backend.to_numpy(x) != 0)


@where_arrays_can_be_changed
@in_one_test("kind", [sm.Circulant, sm.BlockCirculant])
@in_one_test("shape", [(3, 3), (1, 1)])
def test_the_nearest_matrix_is_no_view(backend: Backend, kind: Any, shape: tuple[int, int]) -> None:
    A = backend.asarray(np.random.default_rng(0).standard_normal(shape))
    op = kind.nearest(A, 1) if kind is sm.BlockCirculant else kind.nearest(A)
    before = dense(backend, op)
    A[...] = 0
    np.testing.assert_array_equal(dense(backend, op), before)
    op._arrays()[0][...] = 0  # which is writeable


@where_arrays_can_be_changed
def test_combinations_with_a_prepared_operator_do_not_follow_the_other(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    P = sm.Circulant(backend.asarray(rng.standard_normal(4))).prepare()
    for kind in (sm.Circulant, sm.Diagonal, sm.Toeplitz):
        vector = backend.asarray(rng.standard_normal(4))
        other = kind(vector)
        combined = [P + other, other + P, P - other, P @ other, other @ P]
        befores = [dense(backend, op) for op in combined]
        vector[...] = 7
        for op, before in zip(combined, befores, strict=True):
            np.testing.assert_array_equal(dense(backend, op), before)


def test_a_prepared_operator_of_torch_keeps_its_gradient() -> None:
    torch: Any = pytest.importorskip("torch")
    for n in (5, 600):
        c = torch.randn(n, dtype=torch.float64, requires_grad=True)
        P = sm.Circulant(c).prepare()
        with torch.no_grad():
            c.add_(1.0)  # as an optimiser does: autograd would refuse a product that had saved the vector itself
        ones = torch.ones(n, dtype=torch.float64)
        (P.matvec(ones) @ ones).backward()  # no sum: the transforms of torch 2.6 fail on its expanded gradient
        torch.testing.assert_close(c.grad, torch.full((n,), float(n), dtype=torch.float64))


OF_LONG = {"float32": 1e-6, "complex64": 1e-6, "float64": 2e-15, "complex128": 2e-15}
SIZES = [4097, 10_000, 12_416, 2**15, 99_225, 2**17]  # odd and even, with and without a large prime factor


def long_vector(n: int, dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng([n, seed])
    values = rng.standard_normal(n)
    return (values + 1j * rng.standard_normal(n) if dtype.startswith("c") else values).astype(dtype)


def sparse(n: int, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A vector with few nonzero entries, where they are, and what they are."""
    positions = np.r_[0, np.random.default_rng(n).choice(np.arange(1, n), 6, replace=False)]
    x = np.zeros(n, dtype)
    x[positions] = long_vector(7, dtype)
    return x, positions, x[positions]


def product(c: np.ndarray, positions: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The product of a circulant, by real and imaginary parts in extended precision."""
    if not np.iscomplexobj(c):
        return sparse_product(c, positions, values)
    a, b, u, v = c.real, c.imag, values.real, values.imag
    parts = [sparse_product(s, positions, t) for s, t in ((a, u), (b, v), (a, v), (b, u))]
    return parts[0] - parts[1] + 1j * (parts[2] + parts[3])


def assert_multiplies(P: Any, c: np.ndarray, a: Any, numpy: Any) -> None:
    """Check the prepared circulant, its adjoint, transpose and conjugate against shifted copies of its column."""
    n, dtype = len(c), c.dtype.name
    x, positions, values = sparse(n, dtype)
    back = np.roll(c[::-1], 1)
    for op, column in ((P, c), (P.T, back), (P.conj(), c.conj()), (P.H, back.conj())):
        y, z = numpy(op.matvec(a(x))), numpy(op.rmatvec(a(x)))
        assert y.dtype == z.dtype == c.dtype
        adjoint = np.roll(column[::-1], 1).conj()
        assert relative(y, product(column, positions, values)) <= OF_LONG[dtype]
        assert relative(z, product(adjoint, positions, values)) <= OF_LONG[dtype]


@pytest.mark.parametrize("engine", [*backends.ENGINES, "torch"])
@pytest.mark.parametrize("n", [700, 1000, *SIZES])
@in_one_test("dtype", list(OF_LONG))
def test_every_engine_multiplies_circulants(n: int, dtype: str, engine: str) -> None:
    c, asarray = long_vector(n, dtype), backends.get("torch" if engine == "torch" else "numpy").asarray
    with backends.by_engine(engine):
        assert_multiplies(sm.Circulant(asarray(c)).prepare(), c, asarray, np.asarray)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("kind", [sm.Toeplitz, sm.Hankel])
@pytest.mark.parametrize(("m", "n"), [(9000, 9000), (3, 20_000), (40_000, 7), (30_011, 4099)])
def test_embedded_matrices(kind: Any, m: int, n: int) -> None:
    """Zeros are appended, and the rows wanted are kept: windows of the constants times the vector."""
    t = long_vector(m + n - 1, "float64")
    x = long_vector(n, "float64", 1)
    op = kind(t[:m], t[m - 1 :]) if kind is sm.Hankel else kind(t[n - 1 :], t[n - 1 :: -1].copy())
    some = np.r_[0, np.random.default_rng(0).choice(m, 20), m - 1]
    v = x if kind is sm.Hankel else x[::-1].copy()
    windows = np.lib.stride_tricks.sliding_window_view(t.astype(np.longdouble), n)[some]
    P = op.prepare()
    out = np.empty(m)
    for y in (P.matvec(v), P.matvec(v, out=out)):
        assert np.max(np.abs(y[some] - windows @ x)) <= 1e-15 * np.linalg.norm(t) * np.linalg.norm(x)
    w = long_vector(m, "float64", 2)
    assert np.vdot(w, P.matvec(v)) == pytest.approx(np.vdot(P.rmatvec(w), v), rel=1e-9)


def test_torch_computes_large_batches_in_chunks() -> None:
    torch: Any = pytest.importorskip("torch")
    n, count = 1000, chunks.TORCH_LARGE // 4000
    c, x = torch.randn(n, dtype=torch.float64), torch.randn(2, count, n, dtype=torch.float64)
    for op in (sm.Circulant(c), sm.Toeplitz(c), sm.BlockCirculant(c.reshape(2, 10, 50), (70, 480))):
        P = op.prepare()
        x = x[..., : op.shape[1]]
        y, part = P.matvec(x), P.matvec(x[1, :40])
        assert y.shape == (2, count, op.shape[0])
        torch.testing.assert_close(y[1, :40], part)
        torch.testing.assert_close(y[0, -1], P.matvec(x[0, -1]))
        learned = x.clone().requires_grad_()
        z = P.matvec(learned)
        torch.testing.assert_close(z, y)
        (gradient,) = torch.autograd.grad(z, learned, y)
        torch.testing.assert_close(gradient, P.rmatvec(y))


def test_torch_differentiates_long_products() -> None:
    torch: Any = pytest.importorskip("torch")
    for n in (2**14, 10_001):
        c = torch.from_numpy(long_vector(n, "float64")).requires_grad_()
        x, y = (torch.from_numpy(long_vector(n, "float64", i)).requires_grad_() for i in (1, 2))
        P = sm.Circulant(c).prepare()
        got = torch.autograd.grad(P.matvec(x) @ y, (x, y, c), create_graph=True)
        with torch.no_grad():
            want = (P.rmatvec(y), P.matvec(x), sm.Circulant(x).rmatvec(y))
        for ours, theirs in zip(got, want, strict=True):
            torch.testing.assert_close(ours, theirs)
        (second,) = torch.autograd.grad(got[0] @ x, y)
        torch.testing.assert_close(second, want[1])


def test_torch_modes_do_not_leak_into_operators_of_the_same_size() -> None:
    torch: Any = pytest.importorskip("torch")
    n = 2**13
    with torch.inference_mode():
        served = sm.Circulant(torch.randn(n)).prepare()
        served.matvec(torch.randn(n))
    c = torch.randn(n, requires_grad=True)
    sm.Circulant(c).prepare().matvec(torch.randn(n)).square().sum().backward()
    torch.testing.assert_close(c.grad.shape, (n,))
    x = torch.randn(n)
    multiply = torch.compile(lambda c, x: sm.Circulant(c).prepare().matvec(x), fullgraph=True, backend="eager")
    torch.testing.assert_close(multiply(c, x), sm.Circulant(c).matvec(x), rtol=1e-4, atol=1e-2)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # of conj, which `prepare` takes
def test_torch_maps_over_parameters_of_large_batches() -> None:
    torch: Any = pytest.importorskip("torch")
    n = 4096
    x, cs = torch.randn(chunks.TORCH_LARGE // (4 * n) + 3, n), torch.randn(2, n)
    with torch.no_grad():
        y = torch.vmap(lambda c: sm.Circulant(c).prepare().matvec(x))(cs)
        for i in range(2):
            torch.testing.assert_close(y[i], sm.Circulant(cs[i]).matvec(x), rtol=1e-4, atol=1e-2)
        p = torch.nn.Parameter(x[0])
        torch.testing.assert_close(sm.Circulant(cs[0]).prepare().matvec(p), y[0, 0], rtol=1e-4, atol=1e-2)


@given(st.integers(1, 10**7))
@example(13 * 2**16)  # each allowed factor, and the first that is not
@example(2 * 3 * 5 * 7 * 11 * 13)
@example(17 * 2**16)
def test_columns_divide_the_length(n: int) -> None:
    rest = n
    for prime in (2, 3, 5, 7, 11, 13):
        while rest % prime == 0:
            rest //= prime
    columns = convolutions.column_length(n)
    assert (columns is None) == (rest > 1)
    assert columns is None or n % columns == 0


@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("complex64", "complex128")])
def test_single_and_double_precision_of_one_size_live_side_by_side(dtypes: tuple[str, str]) -> None:
    """The later operator must not multiply by what is kept, with fewer digits, for the earlier one."""
    made = [(sm.Circulant(c).prepare(), c) for c in (long_vector(12_416, dtype) for dtype in dtypes)]
    for P, c in made:
        assert_multiplies(P, c, np.asarray, np.asarray)
