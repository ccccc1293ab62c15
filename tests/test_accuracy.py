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


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("n", SIZES)
def test_products_and_solutions(backend: Backend, n: int, dtype: str) -> None:
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
    rng = np.random.default_rng(b)
    c = rng.standard_normal((-(-rows // b), -(-cols // b), b)).astype(dtype)
    x, y = rng.standard_normal((3, cols)).astype(dtype), rng.standard_normal((3, rows)).astype(dtype)
    dense = np.block([[scipy.linalg.circulant(v.astype("float64")) for v in row] for row in c])[:rows, :cols]
    op = sm.BlockCirculant(backend.asarray(c), (rows, cols))
    assert relative(backend.to_numpy(op.matvec(backend.asarray(x))), x @ dense.T) <= TOLERANCE[dtype]
    assert relative(backend.to_numpy(op.rmatvec(backend.asarray(y))), y @ dense) <= TOLERANCE[dtype]


def test_block_circulant_solve_and_inverse_are_exact_per_frequency() -> None:
    rng = np.random.default_rng(3)
    c = rng.standard_normal((3, 3, 50))
    c[range(3), range(3), 0] += 40
    op = sm.BlockCirculant(c)
    b = rng.standard_normal((2, 150))
    assert relative(op.solve(b), np.linalg.solve(op.to_dense(), b.T).T) <= 1e-13
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


def test_nearest_members_of_stacks(backend: Backend) -> None:
    A = np.random.default_rng(0).standard_normal((4, 6, 6))
    stacked = sm.Circulant.nearest(backend.asarray(A))
    for i in range(4):
        np.testing.assert_allclose(backend.to_numpy(stacked.c)[i], sm.Circulant.nearest(A[i]).c, atol=1e-14)
    blocks = sm.BlockCirculant.nearest(backend.asarray(A[:, :5]), 2)
    assert blocks.batch_shape == (4,)
    np.testing.assert_allclose(backend.to_numpy(blocks.c)[2], sm.BlockCirculant.nearest(A[2, :5], 2).c, atol=1e-14)
