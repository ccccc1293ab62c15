"""Prepared operators on long vectors, by the methods that only those take, against references without a transform."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import structmat as sm
from structmat import _fourier
from tests.operators.test_accuracy import relative, sparse_product

ENGINES = ["scipy", *(["ducc0"] if _fourier.ducc() else [])]
TOLERANCE = {"float32": 1e-6, "complex64": 1e-6, "float64": 2e-15, "complex128": 2e-15}
SIZES = [4097, 10_000, 12_416, 2**15, 99_225, 2**17]  # odd and even, with and without a large prime factor


def drawn(n: int, dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng([n, seed])
    values = rng.standard_normal(n)
    return (values + 1j * rng.standard_normal(n) if dtype.startswith("c") else values).astype(dtype)


def sparse(n: int, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A vector with few nonzero entries, where they are, and what they are."""
    positions = np.r_[0, np.random.default_rng(n).choice(np.arange(1, n), 6, replace=False)]
    x = np.zeros(n, dtype)
    x[positions] = drawn(7, dtype)
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
        assert relative(y, product(column, positions, values)) <= TOLERANCE[dtype]
        assert relative(z, product(adjoint, positions, values)) <= TOLERANCE[dtype]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("n", [1, 2, 3, 700, 1000, *SIZES])
def test_every_engine_multiplies_circulants(engine: str, n: int, dtype: str) -> None:
    c = drawn(n, dtype)
    if n < 8:
        assert relative(sm.Circulant(c).prepare(engine=engine).matvec(c), sm.Circulant(c).to_dense() @ c) <= 1e-6
    else:
        assert_multiplies(sm.Circulant(c).prepare(engine=engine), c, np.asarray, np.asarray)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("n", SIZES)
def test_torch_multiplies_circulants(n: int, dtype: str) -> None:
    torch: Any = pytest.importorskip("torch")
    c = drawn(n, dtype)
    assert_multiplies(sm.Circulant(torch.from_numpy(c)).prepare(), c, torch.from_numpy, np.asarray)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", [sm.Toeplitz, sm.Hankel])
@pytest.mark.parametrize(("m", "n"), [(9000, 9000), (3, 20_000), (40_000, 7), (30_011, 4099)])
def test_embedded_matrices(engine: str, kind: Any, m: int, n: int) -> None:
    """Zeros are appended, and the rows wanted are kept: windows of the constants times the vector."""
    t = drawn(m + n - 1, "float64")
    x = drawn(n, "float64", 1)
    op = kind(t[:m], t[m - 1 :]) if kind is sm.Hankel else kind(t[n - 1 :], t[n - 1 :: -1].copy())
    some = np.r_[0, np.random.default_rng(0).choice(m, 20), m - 1]
    v = x if kind is sm.Hankel else x[::-1].copy()
    windows = np.lib.stride_tricks.sliding_window_view(t.astype(np.longdouble), n)[some]
    P = op.prepare(engine=engine)
    out = np.empty(m)
    for y in (P.matvec(v), P.matvec(v, out=out)):
        assert np.max(np.abs(y[some] - windows @ x)) <= 1e-15 * np.linalg.norm(t) * np.linalg.norm(x)
    w = drawn(m, "float64", 2)
    assert np.vdot(w, P.matvec(v)) == pytest.approx(np.vdot(P.rmatvec(w), v), rel=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_long_vectors_agree_with_batches(engine: str, dtype: str) -> None:
    for n in (5000, 2**15):
        a, c, b, x = (drawn(n, dtype, i) for i in range(4))
        for op in (sm.Circulant(c), sm.CDDProduct.from_vectors(a, c, b), sm.Circulant(c) + sm.Diagonal(a)):
            P, before = op.prepare(engine=engine), x.copy()
            whole = P.matvec(np.stack([x, 2 * x]))
            assert relative(P.matvec(x), whole[0]) <= TOLERANCE[dtype]
            assert relative(P.matvec(x[::-1]), op.matvec(x[::-1].copy())) <= TOLERANCE[dtype]
            np.testing.assert_array_equal(x, before)


def test_torch_computes_large_batches_in_chunks() -> None:
    torch: Any = pytest.importorskip("torch")
    n, count = 1000, _fourier.TORCH_LARGE // 4000
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
        c = torch.from_numpy(drawn(n, "float64")).requires_grad_()
        x, y = (torch.from_numpy(drawn(n, "float64", i)).requires_grad_() for i in (1, 2))
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
    x, cs = torch.randn(_fourier.TORCH_LARGE // (4 * n) + 3, n), torch.randn(2, n)
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
    columns = _fourier.column_length(n)
    assert (columns is None) == (rest > 1)
    assert columns is None or n % columns == 0


def test_twiddle_factors_live_as_long_as_an_operator() -> None:
    gc.collect()
    before = set(_fourier._TWIDDLES)
    first, second = (sm.Circulant(drawn(2**17, "float64", i)).prepare() for i in range(2))
    assert len(set(_fourier._TWIDDLES) - before) == 1
    del first, second
    gc.collect()
    assert set(_fourier._TWIDDLES) == before


@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("complex64", "complex128")])
def test_single_and_double_precision_of_one_size_live_side_by_side(dtypes: tuple[str, str]) -> None:
    """The later operator must not multiply by what is kept, with fewer digits, for the earlier one."""
    made = [(sm.Circulant(c).prepare(engine="scipy"), c) for c in (drawn(12_416, dtype) for dtype in dtypes)]
    for P, c in made:
        assert_multiplies(P, c, np.asarray, np.asarray)
