"""Prepared operators: the same answer whatever engine, chunk, thread or dense matrix computes it."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import structmat as sm
from structmat import _fourier
from tests import backends
from tests.operator_registry import REGISTRY, Entry, Vectors

ENGINES = ["scipy", *(["ducc0"] if _fourier.ducc() else [])]


TOLERANCE = {"float32": 1e-5, "complex64": 1e-5, "float64": 1e-13, "complex128": 1e-13}


engines = pytest.mark.parametrize("engine", ENGINES)


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
    return replace(P, direct=0)


def assert_same(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal up to rounding, which may depend on where in memory an array lies."""
    assert actual.dtype == expected.dtype
    assert np.linalg.norm(actual - expected) <= TOLERANCE[expected.dtype.name] * np.linalg.norm(expected)


@engines
@settings(max_examples=25)
@given(
    n=st.one_of(st.integers(1, 130), st.sampled_from([257, 509, 512, 1009, 1024, 1030])),
    dtype=st.sampled_from(list(TOLERANCE)),
    batch=st.sampled_from([(), (3,), (2, 9)]),
    seed=st.integers(0, 2**32 - 1),
)
def test_engines_agree_with_the_dense_matrix(
    engine: str, n: int, dtype: str, batch: tuple[int, ...], seed: int
) -> None:
    v = Vectors(seed, dtype)
    for op in operators(v, n):
        dense = op.to_dense().astype("complex128" if dtype.startswith("c") else "float64")
        P = op.prepare(engine=engine)
        x, y = v(*batch, op.shape[1]), v(*batch, op.shape[0])
        bound = TOLERANCE[dtype] * np.linalg.norm(dense) * np.sqrt(n)
        for prepared in (op, P, by_plan(P), P.T.T, by_plan(P.H).H):
            product, adjoint = prepared.matvec(x), prepared.rmatvec(y)
            assert product.dtype == adjoint.dtype == np.dtype(dtype)
            assert np.max(np.abs(product - x @ dense.T), initial=0) <= bound * np.max(np.abs(x), initial=1)
            assert np.max(np.abs(adjoint - y @ dense.conj()), initial=0) <= bound * np.max(np.abs(y), initial=1)


@engines
@pytest.mark.parametrize("n", [1000, 1024, 4099])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_chunks_and_single_vectors_agree(engine: str, n: int, dtype: str) -> None:
    v = Vectors(n, dtype)
    x = v(300, n)
    for op in operators(v, n)[:4]:
        P = op.prepare(engine=engine)
        rows = P.matvec(x[:, : P.shape[1]])
        for i in (0, 7, 8, 131, 299):
            one = P.matvec(x[i, : P.shape[1]])
            assert np.linalg.norm(rows[i] - one) <= TOLERANCE[dtype] * np.linalg.norm(one)
        for out in (None, np.empty_like(rows)):
            with scipy.fft.set_workers(3):
                shared = P.matvec(x[:, : P.shape[1]], out=out)
            assert np.linalg.norm(shared - rows) <= TOLERANCE[dtype] * np.linalg.norm(rows)
        columns = P.matmat(x[:, : P.shape[1]].T)
        assert np.linalg.norm(columns.T - rows) <= TOLERANCE[dtype] * np.linalg.norm(rows)


@engines
def test_out_is_filled_and_returned(engine: str) -> None:
    v = Vectors(1, "float64")
    for n in (5, 64, 509, 1024):
        for op in [*operators(v, n), sm.Circulant(v(n)) + sm.Diagonal(v(n))]:
            for P in (op.prepare(engine=engine), by_plan(op.prepare(engine=engine))):
                for batch in ((), (3,), (2, 100)):
                    x = v(*batch, P.shape[1])
                    out = np.full((*batch, P.shape[0]), np.nan)
                    assert P.matvec(x, out=out) is out
                    assert_same(out, P.matvec(x))


@engines
def test_out_of_every_method_is_filled_whatever_its_layout(engine: str) -> None:
    v = Vectors(2, "float64")
    C, D = sm.Circulant(v(6)), sm.Diagonal(v(6))
    for op in (C, D, D @ C @ D, C.prepare(engine=engine), by_plan((D @ C).prepare(engine=engine))):
        x, X = v(3, 6), v(6, 5)
        for method, operand in ((op.matvec, x), (op.rmatvec, x), (op.inv_matvec, x), (op.matmat, X), (op.matvec, x[0])):
            expected = method(operand.copy())
            strided = np.full((*expected.shape, 2), np.nan)[..., 0]
            unaligned = np.zeros(expected.size * 8 + 1, "u1")[1:].view("float64").reshape(expected.shape)
            for out in (np.empty_like(expected), strided, unaligned):
                assert method(operand, out=out) is out
                assert_same(out, expected)
            if expected.shape == operand.shape:
                assert method(operand, out=operand) is operand
                assert_same(operand, expected)


@pytest.mark.parametrize("entry", REGISTRY, ids=lambda e: e.name)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_operand_itself_may_be_out(entry: Entry, dtype: str) -> None:
    """An engine that writes into `out` as it goes must not find there what it has still to read."""
    op = entry.draw(Vectors(6, dtype)).make(np.asarray)
    for P in (op, op.prepare(), by_plan(op.prepare()) if isinstance(op.prepare(), sm.Prepared) else op):
        for shape in ((), (3,), (2, 9)):
            x = Vectors(7, dtype)(*shape, P.shape[1])
            for method in (P.matvec, P.rmatvec):
                expected = method(x.copy()) if P.shape[0] == P.shape[1] else None
                if expected is not None and expected.dtype == x.dtype:
                    out = x.copy()
                    assert method(out, out=out) is out
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


@engines
@pytest.mark.parametrize("n", [64, 509, 2048])
def test_eight_threads_use_one_operator_at_once(engine: str, n: int) -> None:
    v = Vectors(n, "float64")
    for op in operators(v, n):
        P = by_plan(op.prepare(engine=engine))
        xs = [v(*shape, P.shape[1]) for shape in ((), (40,), (2, 3)) for _ in range(8)]
        expected = [P.matvec(x) for x in xs]
        with ThreadPoolExecutor(8) as pool:
            for _ in range(5):
                for got, right in zip(pool.map(P.matvec, xs), expected, strict=True):
                    assert_same(got, right)


@engines
def test_pickles_multiply_alike(engine: str) -> None:
    v = Vectors(3, "float32")
    for n in (7, 300, 1009):
        for op in operators(v, n):
            P = op.prepare(engine=engine)
            again = pickle.loads(pickle.dumps(P))
            x = v(20, P.shape[1])
            assert_same(again.matvec(x), P.matvec(x))
            assert again.settings == P.settings


@engines
@pytest.mark.parametrize("n", [1, 3, 64, 5000])
def test_prepared_diagonals_write_into_out(engine: str, n: int) -> None:
    v = Vectors(4, "float64")
    D = sm.Diagonal(1.0 + v(n) ** 2)
    P = D.prepare(engine=engine)
    assert P.direct == 0  # a dense matrix would make NaN of infinities
    for batch in ((), (7,), (2, 300)):
        x = v(*batch, n)
        for prepared, plain in ((P.matvec, D.matvec), (P.rmatvec, D.rmatvec), (P.inv_matvec, D.inv_matvec)):
            out = np.full(x.shape, np.nan)
            assert prepared(x, out=out) is out
            assert_same(out, plain(x))


@engines
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("n", [1, 2, 5, 64, 101, 1009, 1024, 5000])
def test_prepared_solutions_are_those_of_the_operator(engine: str, n: int, dtype: str) -> None:
    v = Vectors(n, dtype)
    scales = np.logspace(0, -3, n // 2 + 1 if np.dtype(dtype).kind == "f" else n)  # of the spectrum, small values too
    spectrum = (scales * np.exp(1j * np.arange(len(scales)))).astype(np.result_type(dtype, "complex64"))
    spectrum[[0, -1]] = 1
    C = sm.SpectralCirculant(spectrum, n, real=np.dtype(dtype).kind == "f").to_circulant()
    D = sm.Diagonal(np.exp(0.1 * v(n)))
    for op in (C, C.to_spectral(), D @ C @ D, C @ D @ C @ D, sm.BlockCirculant(C.c[None, None])):
        P = op.prepare(engine=engine)
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
        P = op.prepare(engine="scipy")
        y, x = P.matvec(c), P.solve(c)
        Q = jax.tree.map(lambda a: 2 * a, P)
        factor = 2 if isinstance(op, sm.Circulant) else 8
        np.testing.assert_allclose(Q.matvec(c), factor * y)
        np.testing.assert_allclose(Q.rmatvec(c), factor * P.rmatvec(c))
        np.testing.assert_allclose(Q.solve(c), x / factor)


@engines
def test_half_precision_is_prepared_in_single(engine: str) -> None:
    v = Vectors(0, "float32")
    for n in (9, 300, 1009, 5000):
        c, x = v(n).astype("float16"), v(3, n).astype("float16")
        op = sm.Circulant(c)
        P = op.prepare(engine=engine)
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


def test_what_comes_of_a_prepared_operator_is_prepared() -> None:
    rng = np.random.default_rng(0)
    c, d = rng.standard_normal((2, 6))
    P, D = sm.Circulant(c).prepare(engine="scipy"), sm.Diagonal(d)
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
        (P.astype("float32"), A),
    ):
        assert isinstance(op, sm.Prepared)
        assert not isinstance(op.operator, sm.Prepared)
        np.testing.assert_allclose(op.matvec(d), dense @ d, rtol=1e-5)
    assert (P @ D).settings.engine == "scipy"
    assert isinstance(P.inv(), sm.Circulant)
    assert isinstance(D.prepare(), sm.Prepared)
    assert isinstance(sm.Identity(3).prepare(), sm.Identity)
    lazy = sm.Product((sm.Fourier(6), sm.Diagonal(c))).prepare()  # of which nothing is computed before
    assert isinstance(lazy, sm.Product)
    assert not np.shares_memory(lazy.factors[1].d, c)


@pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
def test_the_adjoint_is_prepared_once_and_never_kept_from_a_trace(library: str) -> None:
    backend = backends.get(library)
    c, y = (backend.asarray(v) for v in np.random.default_rng(0).standard_normal((2, 300)))
    P = sm.Toeplitz(c).prepare()
    expected = P.operator.rmatvec(y)
    if library == "jax":
        found = __import__("jax").jit(P.rmatvec)(y)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        assert not hasattr(P, "adjoint")
    np.testing.assert_allclose(backend.to_numpy(P.rmatvec(y)), backend.to_numpy(expected), atol=1e-12)
    assert P._adjoint() is P._adjoint()
    if library == "torch":
        learned = sm.Toeplitz(c.clone().requires_grad_()).prepare()
        with backend.xp.no_grad():
            learned.rmatvec(y)
        assert learned.rmatvec(y).requires_grad
