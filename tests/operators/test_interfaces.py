"""What operators look like to others: conventions of SciPy and NumPy, indices, copies, combinations of many parts."""

from __future__ import annotations

import copy
import pickle
import re
import tracemalloc
from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import reduce
from operator import matmul
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import scipy.sparse.linalg

import structmat as sm
from structmat.extend import closed_forms
from structmat.operators._base import combination
from structmat.testing._drawing import Vectors
from tests.cases import in_one_test
from tests.operator_registry import PLAIN, Entry, each, every_entry

rng = np.random.default_rng(3)


def drawn(entry: Entry, dtype: str = "float64", seed: int = 5) -> tuple[Any, np.ndarray]:
    sample = entry.draw(Vectors(seed, dtype))
    return sample.make(np.array), sample.dense


@every_entry
def test_an_operator_is_no_array(entry: Entry) -> None:
    op, _ = drawn(entry)
    for call in (
        lambda: np.asarray(op),
        lambda: np.array([op, op]),
        lambda: np.dot(op, np.ones(op.shape[1])),
        lambda: np.linalg.norm(op),
        lambda: np.asarray(op, dtype="float64"),
    ):
        with pytest.raises(TypeError, match=rf"{type(op).__name__}: is no array: use op\.to_dense\(\)"):
            call()


@every_entry
def test_integer_powers_and_sums(entry: Entry) -> None:
    op, dense = drawn(entry)
    rows, cols = op.shape
    assert (op + 0) is op
    assert (0 + op) is op
    np.testing.assert_allclose(sum([op, op, op]).to_dense(), 3 * dense, atol=1e-12)
    with pytest.raises(TypeError, match="add a number times the identity"):
        op + 1
    for k in (0.5, "2", None):
        with pytest.raises(TypeError, match=r"k must be an integer, got .* use op\.fractional_matrix_power\(k\)"):
            op**k
    if rows != cols:
        for k in (-1, 0, 1, 2):
            with pytest.raises(ValueError, match=rf"{type(op).__name__} \*\* k: the operator must be square"):
                op**k
        return
    for k in (0, 1, 2, 3, np.int64(5)):
        power = np.linalg.matrix_power(dense, k)
        x = rng.standard_normal(cols)
        scale = max(1.0, float(np.max(np.linalg.norm(dense, axis=(-2, -1)))) ** int(k))
        np.testing.assert_allclose((op**k).matvec(x), power @ x, atol=1e-12 * scale * np.linalg.norm(x))
    if "inv" in entry.closed_forms and np.all(np.linalg.cond(dense) < 1e3):
        np.testing.assert_allclose((op**-2).to_dense(), np.linalg.matrix_power(dense, -2), rtol=1e-6, atol=1e-8)


def test_powers_stay_in_the_family() -> None:
    C, B, D = sm.Circulant([3.0, 1.0, 0.5]), sm.BlockCirculant(rng.standard_normal((2, 2, 3))), sm.Diagonal([1.0, 2, 3])
    T = sm.Toeplitz([3.0, 1.0, 0.5])
    assert [type(op**3) for op in (C, B, D, C.prepare())] == [
        sm.Circulant,
        sm.BlockCirculant,
        sm.Diagonal,
        sm.Circulant,
    ]
    assert [type(f) for f in (T**3).factors] == [sm.Toeplitz] * 3
    assert (D @ C @ D) ** 1 is not None
    assert ((D @ C @ D) ** 2).n_factors == 5
    S = C + D  # without an inverse in closed form
    with pytest.raises(NotImplementedError, match=r"Sum\.inv"):
        S**-1


def test_any_real_number_is_an_exponent() -> None:
    C = sm.Circulant([3.0, 1.0, 0.5])
    for p in (Fraction(1, 2), Decimal("0.5"), np.float32(0.5), np.array(0.5)):
        np.testing.assert_array_equal(C.fractional_matrix_power(p).c, C.fractional_matrix_power(0.5).c)
    for p in (Fraction(2), np.int8(2), True + 1):
        np.testing.assert_array_equal(C.fractional_matrix_power(p).c, C.fractional_matrix_power(2).c)
    for p in (10**400, -float("inf"), 1j, [2]):
        with pytest.raises(TypeError, match="p must be a finite real number"):
            C.fractional_matrix_power(p if p != 10**400 else Fraction(10**400, 3))


def test_series_and_frames_of_pandas_are_arrays() -> None:
    pd = pytest.importorskip("pandas")
    C = sm.Circulant(rng.standard_normal(4))
    series, frame = pd.Series([1.0, 2.0, 3.0, 4.0]), pd.DataFrame(rng.standard_normal((4, 2)))
    np.testing.assert_array_equal(C @ series, C @ series.to_numpy())
    np.testing.assert_array_equal(C @ frame, C @ frame.to_numpy())
    np.testing.assert_array_equal(C.prepare() @ series, C.prepare() @ series.to_numpy())
    for call in (lambda: series @ C, lambda: frame.T @ C):
        with pytest.raises(TypeError, match=r"Circulant: is no array: use op\.to_dense\(\)"):
            call()
    with pytest.raises(TypeError, match=r"add operators, or arrays"):
        C + series
    mask, places = np.array([True, False, True, True]), np.array([3, 0])
    for chosen in (mask, places):
        for index in (pd.Series(chosen), pd.Index(chosen)):
            np.testing.assert_array_equal(C[index].to_dense(), C[chosen].to_dense())
            np.testing.assert_array_equal(C[:, index][1], C[:, chosen][1])
    with pytest.raises(TypeError, match="must be a mask or integers along one axis"):
        C[frame]


@every_entry
def test_operators_cannot_be_changed(entry: Entry) -> None:
    op, _ = drawn(entry)
    for name in ("foo", "shape", *type(op)._core_axes):
        with pytest.raises(AttributeError, match=f"'{name}'"):
            setattr(op, name, 1)
        with pytest.raises(AttributeError, match=f"'{name}'"):
            delattr(op, name)
    for other in (pickle.loads(pickle.dumps(op)), copy.copy(op), copy.deepcopy(op)):
        assert repr(other) == repr(op)


@every_entry
def test_bridges_to_scipy_can_be_pickled(entry: Entry) -> None:
    op, dense = drawn(entry)
    if op.batch_shape:
        op, dense = drawn(entry, seed=next(s for s in range(99) if not drawn(entry, seed=s)[0].batch_shape))
    bridge = sm.scipy.as_linear_operator(op)
    again = pickle.loads(pickle.dumps(bridge))
    x, y = rng.standard_normal((op.shape[1], 2)), rng.standard_normal((op.shape[0], 2))
    for made in (bridge, again, copy.deepcopy(bridge)):
        assert isinstance(made, scipy.sparse.linalg.LinearOperator)
        assert made.dtype == dense.dtype
        np.testing.assert_allclose(made @ x, dense @ x, atol=1e-12)
        np.testing.assert_allclose(made @ x[:, 0], dense @ x[:, 0], atol=1e-12)
        np.testing.assert_allclose(made @ x[:, :1], dense @ x[:, :1], atol=1e-12)
        np.testing.assert_allclose(made.H @ y, dense.conj().T @ y, atol=1e-12)
        np.testing.assert_allclose(made.rmatvec(y[:, 0]), dense.conj().T @ y[:, 0], atol=1e-12)
        np.testing.assert_allclose(made._matvec(x[:, :1]), dense @ x[:, 0], atol=1e-12)  # as older solvers call them
        np.testing.assert_allclose(made._rmatvec(y[:, :1]), dense.conj().T @ y[:, 0], atol=1e-12)


@each(PLAIN)
@in_one_test("dtype", ["float64", "complex128"])
def test_a_prepared_operator_has_all_that_its_operator_has(entry: Entry, dtype: str) -> None:
    op, _ = drawn(entry, dtype)
    P = op.prepare()
    public = [name for name in dir(op) if not name.startswith("_")]
    assert set(public) <= set(dir(P))
    for name in public:
        value = getattr(P, name)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(op, name))
    for again in (P, pickle.loads(pickle.dumps(P)), copy.deepcopy(P)):
        assert not hasattr(again, "nothing")
        if isinstance(op, sm.CDDProduct):
            assert [type(f) for f in again.factors] == [type(f) for f in op.factors]
            assert again.n_parameters == op.n_parameters


def test_an_error_names_the_method_that_was_called() -> None:
    T = sm.Circulant([3.0, 1.0, 0.5]) + sm.Diagonal([1.0, 2.0, 3.0])
    for name, call in (
        ("cond", T.cond),
        ("rank", T.rank),
        ("norm", lambda: T.norm(2)),
        ("norm", lambda: T.norm("nuc")),
        ("svdvals", T.svdvals),
        ("cond", T.prepare().cond),
        ("rank", sm.Product((T, T)).rank),
    ):
        with pytest.raises(NotImplementedError, match=rf"^\w+\.{name}: no closed form .*{name}|numpy\.linalg"):
            call()


def test_the_documentation_of_hooks_names_those_of_closed_forms() -> None:
    for method, form in closed_forms().items():
        assert getattr(sm.LinearOperator, method).__doc__
        for hook in form.hooks:
            assert re.search(rf"``{hook}\(", sm.extend.__doc__), f"{hook}, which {method} asks"


def test_the_package_lists_what_it_offers() -> None:
    names = {name for name in dir(sm) if not name.startswith("__")}
    assert names == {*sm.__all__, "cli", "fit", "io", "jax", "operators", "peft", "plot", "scipy", "studies", "torch"}


@every_entry
def test_operators_are_equal_to_themselves_alone(entry: Entry) -> None:
    """Arrays have no single answer to ==, so that operators are compared and hashed by identity."""
    sample = entry.draw(Vectors(2, "float64"))
    op, other = sample.make(np.array), sample.make(np.array)
    assert op == op  # noqa: PLR0124
    assert op != other
    assert len({op, other, op}) == 2


def test_the_first_entry_of_rows_is_ignored() -> None:
    c, r = rng.standard_normal((2, 5))
    for kind, dense in ((sm.Toeplitz, scipy.linalg.toeplitz), (sm.Hankel, scipy.linalg.hankel)):
        ignored = np.append(np.nan, r[1:])
        np.testing.assert_array_equal(2 * (kind(c, ignored) + kind(c, ignored)).H.to_dense(), 4 * dense(c, r).T)


def test_a_spectrum_is_never_stale() -> None:
    c = rng.standard_normal(5)
    C = sm.Circulant(c)
    C.matvec(c)
    c[0] += 1
    np.testing.assert_allclose(C.matvec(np.eye(5)[0]), c, atol=1e-14)


@in_one_test("kind", [sm.Circulant, sm.Toeplitz, sm.Hankel, lambda c: sm.BlockCirculant(c[None, None])])
@in_one_test("dtype", ["float32", "complex128"])
def test_a_dense_matrix_takes_the_memory_of_one(kind: Any, dtype: str) -> None:
    op = kind(np.ones(700, dtype))
    op.to_dense()
    tracemalloc.start()
    dense = op.to_dense()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 1.1 * dense.nbytes
    assert dense.flags.writeable
    assert dense.flags.c_contiguous


T = sm.Toeplitz(rng.standard_normal(4), rng.standard_normal(3))


@in_one_test(
    "index, error, message",
    [
        (4, IndexError, r"^Toeplitz\[i, j\]: 4 is none of the 4 rows or columns"),
        ((0, 3), IndexError, "3 is none of the 3"),
        (slice(2, 2), ValueError, "rows must choose one index at least, got none"),
        (slice(5, None, 2), ValueError, "rows must choose one index at least, got none"),
        (..., TypeError, r"integers, slices and arrays of them, got ellipsis; op\.to_dense\(\)\[\.\.\.\] takes any"),
        (([0, 1], np.array([1])), TypeError, r"one array of indices at a time: write op\[rows\]\[:, cols\]"),
        ([0, 4], IndexError, "rows has 4, which is none of the 4 indices"),
        ([0, -4], ValueError, "rows must name each index at most once"),
        ((slice(None), np.ones(4, bool)), ValueError, "cols must be a mask of length 3, got 4"),
        (np.zeros(4, bool), ValueError, "rows must choose one index at least, got none"),
        ([0.5], TypeError, r"mask or integers along one axis, got float64 of shape \(1,\)"),
        (np.ones((4, 3), bool), TypeError, r"along one axis, got bool of shape \(4, 3\)"),
        (True, TypeError, "got bool"),
        (1.0, TypeError, "got float"),
        (slice(1.0, 2), TypeError, r"got slice\(1\.0, 2, None\)"),
        ((), TypeError, "takes rows and columns, got 0 indices"),
    ],
)
def test_other_indices_are_refused(index: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        T[index]


def test_integers_of_numpy_are_integers() -> None:
    dense = T.to_dense()
    assert T[np.int64(1), np.array(2)] == dense[1, 2]
    assert isinstance(T[0, 0], np.float64)
    np.testing.assert_array_equal(T[np.uint8(3)], dense[3])


def test_an_operator_is_no_sequence() -> None:
    assert not isinstance(T, Iterable | Sequence)
    for call in (lambda: iter(T), lambda: list(T), lambda: len(T), lambda: 1.0 in T, lambda: [*T], lambda: reversed(T)):  # type: ignore[arg-type,call-overload]
        with pytest.raises(TypeError):
            call()
    assert T in [sm.Identity(3), T]
    assert T not in [sm.Identity(3), sm.Identity(4)]
    assert T.ndim == len(T.shape) == np.ndim(T) == sm.Circulant(np.ones((5, 2, 3))).ndim == 2


def test_entries_beside_infinite_ones_are_numbers() -> None:
    D = sm.Diagonal([1.0, np.inf, np.nan])
    np.testing.assert_array_equal([D[i, j] for i in range(3) for j in range(3)], np.diag([1.0, np.inf, np.nan]).ravel())
    np.testing.assert_array_equal(D[0], [1.0, 0.0, 0.0])
    np.testing.assert_array_equal(D[:, 2], [0.0, 0.0, np.nan])


def test_blocks_cost_no_dense_matrix() -> None:
    n = 300_000
    for op in (sm.Toeplitz(np.ones(n)), sm.Hankel(np.ones(n)), sm.Circulant(np.ones(n)), sm.Diagonal(np.ones(n))):
        assert op[1 : n - 2, 1 : n - 2].shape == (n - 3, n - 3)
        assert op[n - 1, n - 1] == (0.0 if isinstance(op, sm.Hankel) else 1.0)
    S = sm.Circulant(np.ones(n)) + sm.Diagonal(np.ones(n))
    np.testing.assert_allclose([S[0, 0], S[0, 1], S[5][5]], [2.0, 1.0, 2.0], atol=1e-12)


INDEXED = {
    "Toeplitz": sm.Toeplitz,
    "Hankel": sm.Hankel,
    "Circulant": lambda c, _: sm.Circulant(c),
    "Diagonal": lambda c, _: sm.Diagonal(c),
    "Sum": lambda c, r: sm.Circulant(c) + sm.Diagonal(r),
}
operators = pytest.mark.parametrize("make", INDEXED.values(), ids=INDEXED)


def number(op: Any, *, dense: bool = False) -> Any:
    """One number from an entry, a row, a column and a block, of an operator or its matrix."""
    A = op.to_dense() if dense else op
    return A[2, 1] ** 2 + A[1].sum() + (A[:, 0] ** 3).sum() + (A[1:3, 1:3] @ A[1, 1:]).sum()


@operators
def test_jax_traces_indices(make: Any) -> None:
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    pytest.importorskip("structmat.jax")
    c, r = jax.numpy.asarray(rng.standard_normal((2, 3)))

    def f(c: Any, r: Any) -> Any:
        return number(make(c, r))

    def of_dense(c: Any, r: Any) -> Any:
        return number(make(c, r), dense=True)

    np.testing.assert_allclose(jax.jit(f)(c, r), of_dense(c, r), atol=1e-12)
    np.testing.assert_allclose(jax.jit(jax.grad(f))(c, r), jax.jit(jax.grad(of_dense))(c, r), atol=1e-12)
    stack = jax.numpy.stack([c, 2 * c])
    mapped = jax.jit(jax.vmap(f, (0, None)))(stack, r)
    np.testing.assert_allclose(mapped, [of_dense(v, r) for v in stack], atol=1e-12)
    with pytest.raises(TypeError, match="takes integers, slices"):
        jax.jit(lambda i: make(c, r)[i, 0])(1)


@operators
def test_torch_differentiates_through_indices(make: Any) -> None:
    torch = pytest.importorskip("torch")
    c, r = (torch.tensor(v, requires_grad=True) for v in rng.standard_normal((2, 3)))
    assert torch.autograd.gradcheck(lambda c, r: number(make(c, r)), (c, r))
    torch.testing.assert_close(number(make(c, r)), number(make(c, r), dense=True))


def horner(steps: int) -> sm.LinearOperator:
    T, D = sm.Toeplitz(0.1 * rng.standard_normal(4)), sm.Diagonal(rng.standard_normal(4) + 1j)
    p: sm.LinearOperator = D
    for _ in range(steps):
        p = p @ T + D
    return p


def test_nested_products_and_sums_are_flat() -> None:
    C, T = sm.Circulant(rng.standard_normal(3)), sm.Toeplitz(rng.standard_normal(3))
    product, total = sm.Product((sm.Product((T, C)), sm.Product((T,)))), sm.Sum((sm.Sum((T, C)), sm.Sum((C,))))
    assert [type(f) for f in product.factors] == [sm.Toeplitz, sm.Circulant, sm.Toeplitz]
    assert [type(t) for t in total.terms] == [sm.Toeplitz, sm.Circulant, sm.Circulant]
    np.testing.assert_allclose(product.to_dense(), T.to_dense() @ C.to_dense() @ T.to_dense())
    p: sm.LinearOperator = T
    for _ in range(500):
        p = sm.Product((p,))
    assert p.shape == (3, 3)
    assert len(p.factors) == 1


def test_a_loop_makes_an_operator(tmp_path: Path) -> None:
    """Each plan is made once, also where real and complex parts meet: as often as it occurs would not end."""
    p = horner(24)
    sm.io.save(p, tmp_path / "p.safetensors")
    others = (p, p.T.T, p.prepare(), 2 * p / 2, copy.deepcopy(p), pickle.loads(pickle.dumps(p)))
    x, dense = rng.standard_normal(4), p.to_dense()
    for other in (*others, sm.io.load(tmp_path / "p.safetensors")):
        np.testing.assert_allclose(other.matvec(x), dense @ x)
    np.testing.assert_allclose(others[2].rmatvec(x), dense.conj().T @ x)


def test_long_sums_and_products_are_those_of_all_their_parts() -> None:
    toeplitz = [sm.Toeplitz(rng.standard_normal(4)) for _ in range(400)]
    products = [T @ sm.Diagonal(rng.standard_normal(4)) for T in toeplitz]
    total, rows, cols = sum(products), reduce(matmul, products), reduce(lambda p, f: f @ p, reversed(products))
    assert len(total.terms) == 400
    assert len(rows.factors) == len(cols.factors) == 800
    x = rng.standard_normal(4)
    np.testing.assert_allclose(total @ x, sm.Sum(products) @ x)
    np.testing.assert_allclose(rows @ x, sm.Product(products) @ x)
    for whole, checked in ((total, sm.Sum(products)), (rows, sm.Product(products)), (cols, sm.Product(products))):
        assert repr(whole) == repr(checked)
        assert [id(array) for array in whole._arrays()] == [id(array) for array in checked._arrays()]


def test_operators_that_hold_each_other_too_often_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step of the recurrence of Chebyshev takes two terms, so that the operators within grow as powers do."""
    monkeypatch.setattr(combination, "_MOST_ARRAYS", 500)
    T = sm.Toeplitz(0.1 * rng.standard_normal(4))

    def chebyshev(steps: int) -> None:
        old, p = sm.Diagonal(rng.standard_normal(4)), T @ sm.Diagonal(rng.standard_normal(4))
        for _ in range(steps):
            old, p = p, 2 * (p @ T) - old

    chebyshev(7)
    with pytest.raises(ValueError, match="must not hold more than 500 arrays, each counted as often as it occurs"):
        chebyshev(20)
