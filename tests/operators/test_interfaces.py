"""How operators meet Python, NumPy, pandas and SciPy: numbers, scalars, pickles, attributes, names in errors."""

from __future__ import annotations

import copy
import pickle
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg

import structmat as sm
from tests.operator_registry import REGISTRY, Entry, Vectors

entries = pytest.mark.parametrize("entry", REGISTRY, ids=lambda e: e.name)
PLAIN = [entry for entry in REGISTRY if not entry.name.startswith("Prepared")]
rng = np.random.default_rng(3)


def drawn(entry: Entry, dtype: str = "float64", seed: int = 5) -> tuple[Any, np.ndarray]:
    sample = entry.draw(Vectors(seed, dtype))
    return sample.make(np.array), sample.dense


@entries
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


@entries
def test_integer_powers_and_sums(entry: Entry) -> None:
    op, dense = drawn(entry)
    rows, cols = op.shape
    assert (op + 0) is op
    assert (0 + op) is op
    np.testing.assert_allclose(sum([op, op, op]).to_dense(), 3 * dense, atol=1e-12)
    with pytest.raises(TypeError, match="unsupported operand"):
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


@entries
def test_operators_cannot_be_changed(entry: Entry) -> None:
    op, _ = drawn(entry)
    for name in ("foo", "shape", *type(op)._core_axes):
        with pytest.raises(AttributeError, match=rf"{type(op).__name__} cannot be changed: .*'{name}'"):
            setattr(op, name, 1)
        with pytest.raises(AttributeError, match=rf"{type(op).__name__} cannot be changed"):
            delattr(op, name)
    for other in (pickle.loads(pickle.dumps(op)), copy.copy(op), copy.deepcopy(op)):
        assert repr(other) == repr(op)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
def test_scalars_of_numpy_promote_as_in_numpy(dtype: str) -> None:
    values = np.ones(4, dtype)
    operators = [
        sm.Circulant(values),
        sm.Diagonal(values),
        sm.Toeplitz(values),
        sm.CDDProduct.from_vectors(*[values] * 3),
    ]
    for op in [*operators, sm.Circulant(values) @ sm.Toeplitz(values)]:
        for kind in ("float32", "float64", "complex64", "complex128", "int8", "int64", "bool"):
            factor = np.dtype(kind).type(1)
            expected = np.result_type(values * factor)
            if dtype == "float16" and expected == "complex64" and isinstance(op, sm.Product):
                continue
            for scaled in (op * factor, factor * op, (op.prepare() * factor)):
                assert scaled.dtype == expected, (op, kind)
                x = np.ones(4, expected if expected.kind != "c" else np.empty(0, expected).real.dtype)
                np.testing.assert_allclose(scaled.matvec(x), op.matvec(values).astype(expected), rtol=1e-3)
    assert (sm.Identity(3) * np.float64(2)).dtype is None
    assert (2.0 * sm.Circulant(np.ones(3, "float32"))).dtype == "float32"


@entries
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


@pytest.mark.parametrize("entry", PLAIN, ids=lambda e: e.name)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
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
            np.testing.assert_array_equal(again.product_cond(), op.product_cond())
            x = rng.standard_normal(op.shape[1])
            np.testing.assert_array_equal(again.direct_matvec(x), op.direct_matvec(x))


def test_an_error_names_the_method_that_was_called() -> None:
    T = sm.Circulant([3.0, 1.0, 0.5]) + sm.Diagonal([1.0, 2.0, 3.0])
    for name, call in (
        ("cond", T.cond),
        ("cond", lambda: T.cond(1)),
        ("rank", T.rank),
        ("norm", lambda: T.norm(2)),
        ("norm", lambda: T.norm("nuc")),
        ("svdvals", T.svdvals),
        ("cond", T.prepare().cond),
        ("rank", sm.Product((T, T)).rank),
    ):
        with pytest.raises(NotImplementedError, match=rf"^\w+\.{name}: no closed form .*{name}|numpy\.linalg"):
            call()
    with pytest.raises(ValueError, match=r"^BlockCirculant\.cond: the operator must be square"):
        sm.BlockCirculant(np.ones((1, 2, 3))).cond(1)
    for p in (3, "abc", [2]):
        with pytest.raises(ValueError, match=r'^Circulant\.cond: p must be "fro"'):
            sm.Circulant([1.0, 2.0]).cond(p)


def test_a_prepared_toeplitz_estimates_its_condition_number() -> None:
    T = sm.Toeplitz([3.0, 1.0, 0.5])
    assert T.prepare().cond() == T.cond()


def test_the_adjoint_is_tested_with_complex_vectors() -> None:
    class Wrong(sm.Circulant):
        """Forgets a conjugate that only complex vectors show."""

        __slots__ = ()

        def _rmatvec(self, y: Any, xp: Any) -> Any:
            return super()._rmatvec(xp.real(y), xp)

    c = rng.standard_normal(6)
    assert sm.testing.adjoint_error(Wrong(c), rng=0) > 0.01
    assert sm.testing.adjoint_error(Wrong(c + 1j * c[::-1]), rng=0) > 0.01
    assert sm.testing.adjoint_error(sm.Circulant(c.astype("float32")), rng=0) < 1e-6


def test_the_package_lists_what_it_offers() -> None:
    names = {name for name in dir(sm) if not name.startswith("__")}
    assert names == {*sm.__all__, "cli", "fit", "io", "jax", "operators", "peft", "plot", "scipy", "studies", "torch"}


@entries
def test_operators_are_equal_to_themselves_alone(entry: Entry) -> None:
    """Arrays have no single answer to ==, so that operators are compared and hashed by identity."""
    sample = entry.draw(Vectors(2, "float64"))
    op, other = sample.make(np.array), sample.make(np.array)
    assert op == op  # noqa: PLR0124
    assert op != other
    assert len({op, other, op}) == 2
