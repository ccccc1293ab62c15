"""Small and large sizes, prime and composite, against references that do not use an FFT."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

import structmat as sm
from tests.backends import Backend

SIZES = [1, 2, 3, 7, 16, 64, 97, 100, 1000, 4096, 65537]
TOLERANCE = {"float64": 1e-13, "float32": 1e-5}


def sparse_product(c: np.ndarray, positions: np.ndarray, values: np.ndarray) -> np.ndarray:
    """C x for an x with few nonzero entries: shifted copies of the column, in extended precision."""
    c = c.astype(np.longdouble)
    return sum(value * np.roll(c, int(k)) for k, value in zip(positions, values.astype(np.longdouble), strict=True))


def skip_where_each_shape_compiles(backend: Backend, one_of_few: bool) -> None:
    if backend.compiles and not one_of_few:
        pytest.skip("each operation would be compiled for each shape")


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("n", SIZES)
def test_products_and_solutions(backend: Backend, n: int, dtype: str) -> None:
    skip_where_each_shape_compiles(backend, n in {1, 7, 100, 4096})
    rng = np.random.default_rng(n)
    c = rng.standard_normal(n).astype(dtype)
    c[0] += 2 * np.sum(np.abs(c))  # diagonally dominant, so well conditioned
    positions = rng.choice(n, size=min(n, 9), replace=False)
    values = rng.standard_normal(len(positions)).astype(dtype)
    x = np.zeros(n, dtype)
    x[positions] = values
    expected = sparse_product(c, positions, values)
    reversed_c = np.roll(c[::-1], 1)
    adjoint = sparse_product(reversed_c, positions, values)
    a = backend.asarray
    for op in (sm.Circulant(a(c)), sm.Circulant(a(c)).to_spectral()):
        assert relative(backend.to_numpy(op.matvec(a(x))), expected) <= TOLERANCE[dtype]
        assert relative(backend.to_numpy(op.rmatvec(a(x))), adjoint) <= TOLERANCE[dtype]
        assert relative(backend.to_numpy(op.solve(a(expected.astype(dtype)))), x) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(("rows", "cols", "b"), [(1000, 700, 97), (700, 1000, 256), (130, 257, 64), (7, 5, 3)])
def test_block_circulant_rectangles(backend: Backend, rows: int, cols: int, b: int, dtype: str) -> None:
    skip_where_each_shape_compiles(backend, b == 64)
    rng = np.random.default_rng(b)
    c = rng.standard_normal((-(-rows // b), -(-cols // b), b)).astype(dtype)
    x, y = rng.standard_normal((3, cols)).astype(dtype), rng.standard_normal((3, rows)).astype(dtype)
    dense = np.block([[scipy.linalg.circulant(v.astype("float64")) for v in row] for row in c])[:rows, :cols]
    op = sm.BlockCirculant(backend.asarray(c), (rows, cols))
    assert relative(backend.to_numpy(op.matvec(backend.asarray(x))), x @ dense.T) <= TOLERANCE[dtype]
    assert relative(backend.to_numpy(op.rmatvec(backend.asarray(y))), y @ dense) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 3), (97, 101), (1000, 1), (1, 1000), (4096, 4096), (700, 65537)])
def test_toeplitz_and_hankel_rectangles(backend: Backend, m: int, n: int, dtype: str) -> None:
    skip_where_each_shape_compiles(backend, (m, n) in {(2, 3), (97, 101)})
    rng = np.random.default_rng(n)
    t = rng.standard_normal(m + n - 1).astype(dtype)  # the constants, from one corner to the other
    x, y = rng.standard_normal(n).astype(dtype), rng.standard_normal(m).astype(dtype)
    wide, a = t.astype(np.longdouble), backend.asarray
    windows = np.lib.stride_tricks.sliding_window_view(wide, n)  # the Hankel matrix, m x n
    some = np.r_[0, rng.choice(m, 40), m - 1]
    others = np.r_[0, rng.choice(n, 40), n - 1]
    columns = np.lib.stride_tricks.sliding_window_view(wide, m)
    cases = (
        (sm.Hankel(a(t[:m]), a(t[m - 1 :])), x, y, columns[others] @ y),
        (sm.Toeplitz(a(t[n - 1 :]), a(t[n - 1 :: -1].copy())), x[::-1].copy(), y, columns[n - 1 - others] @ y),
    )
    for op, v, w, adjoint in cases:
        product = backend.to_numpy(op.matvec(a(v)))
        assert product.dtype == dtype
        assert relative(product[some], windows[some] @ x) <= TOLERANCE[dtype]
        assert relative(backend.to_numpy(op.rmatvec(a(w)))[others], adjoint) <= TOLERANCE[dtype]


def test_block_circulant_solve_and_inverse_are_exact_per_frequency() -> None:
    rng = np.random.default_rng(3)
    c = rng.standard_normal((3, 3, 50))
    c[range(3), range(3), 0] += 40
    op = sm.BlockCirculant(c)
    B = rng.standard_normal((150, 2))
    assert relative(op.solve(B), np.linalg.solve(op.to_dense(), B)) <= 1e-13
    assert relative(op.inv().to_dense(), np.linalg.inv(op.to_dense())) <= 1e-13


@pytest.mark.parametrize("n", [1, 2, 5, 8, 33])
def test_nearest_members_are_projections(n: int) -> None:
    """The residual of a nearest member is orthogonal to the family, and a member is its own nearest."""
    rng = np.random.default_rng(n)
    A = rng.standard_normal((n, n)) + 1j * rng.standard_normal((n, n))
    near = sm.Circulant.nearest(A)
    residual = A - near.to_dense()
    direction = sm.Circulant(rng.standard_normal(n)).to_dense()
    assert abs(np.vdot(direction, residual)) <= 1e-12 * n * n
    np.testing.assert_allclose(sm.Circulant.nearest(near.to_dense()).c, near.c, atol=1e-14)
    np.testing.assert_array_equal(sm.Diagonal.nearest(A).d, np.diagonal(A))
    for b in {1, 2, n}:
        B = sm.BlockCirculant.nearest(A[:, : n - n // 3], b)
        zero = sm.BlockCirculant(rng.standard_normal(B.c.shape), B.shape).to_dense()
        assert abs(np.vdot(zero, A[:, : n - n // 3] - B.to_dense())) <= 1e-12 * n * n
        again = sm.BlockCirculant.nearest(B.to_dense(), b)
        np.testing.assert_allclose(again.to_dense(), B.to_dense(), atol=1e-13)


@pytest.mark.parametrize("kind", [sm.Toeplitz, sm.Hankel])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 4), (5, 1), (2, 7), (9, 4), (6, 6)])
def test_nearest_toeplitz_and_hankel_are_projections(backend: Backend, kind: type, m: int, n: int) -> None:
    skip_where_each_shape_compiles(backend, (m, n) == (2, 7))
    rng = np.random.default_rng(m)
    A = rng.standard_normal((2, m, n)) + 1j * rng.standard_normal((2, m, n))
    near = kind.nearest(backend.asarray(A))
    assert near.shape == (m, n)
    assert near.batch_shape == (2,)
    dense = backend.to_numpy(near.to_dense())
    for _ in range(3):
        direction = kind(*(rng.standard_normal(k) + 1j * rng.standard_normal(k) for k in (m, n))).to_dense()
        assert np.max(np.abs(np.sum(direction.conj() * (A - dense), axis=(-2, -1)))) <= 1e-13 * m * n
    again = backend.to_numpy(kind.nearest(near.to_dense()).to_dense())
    np.testing.assert_allclose(again, dense, atol=1e-14)
    real = kind.nearest(backend.asarray(A.real))
    np.testing.assert_allclose(backend.to_numpy(real.to_dense()), dense.real, atol=1e-14)
    if backend.half:
        narrow = kind.nearest(real.astype(backend.half).to_dense())
        assert narrow.dtype == getattr(backend.xp, backend.half)


def test_nearest_members_of_stacks(backend: Backend) -> None:
    A = np.random.default_rng(0).standard_normal((4, 6, 6))
    stacked = sm.Circulant.nearest(backend.asarray(A))
    for i in range(4):
        np.testing.assert_allclose(backend.to_numpy(stacked.c)[i], sm.Circulant.nearest(A[i]).c, atol=1e-14)
    blocks = sm.BlockCirculant.nearest(backend.asarray(A[:, :5]), 2)
    assert blocks.batch_shape == (4,)
    np.testing.assert_allclose(backend.to_numpy(blocks.c)[2], sm.BlockCirculant.nearest(A[2, :5], 2).c, atol=1e-14)
