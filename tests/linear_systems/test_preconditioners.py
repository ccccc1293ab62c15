"""Circulant preconditioners: what they minimise, and how they speed up iterations."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.linalg as spla

import structmat as sm
from structmat.testing._drawing import Vectors
from tests.backends import Backend
from tests.cases import in_one_test

rng = np.random.default_rng(7)


PRECONDITIONERS = ["chan", "strang"]


@in_one_test("kind", PRECONDITIONERS)
@in_one_test("n", [1, 2, 7, 8])
def test_preconditioners_of_a_circulant_are_the_circulant(kind: str, n: int) -> None:
    C = sm.Circulant(rng.standard_normal(n) + 1j * rng.standard_normal(n) + 5 * (np.arange(n) == 0))
    dense = C.to_dense()
    made = getattr(sm.preconditioners, kind)(sm.Toeplitz(dense[:, 0], dense[0]))
    np.testing.assert_allclose(made.c, C.c, atol=1e-12)


@in_one_test("kind", PRECONDITIONERS)
@in_one_test("dtype, scale", [("float32", 1e-30), ("float32", 1e30), ("complex128", 1e250)])
def test_preconditioners_of_extreme_multiples_are_multiples(kind: str, dtype: str, scale: float) -> None:
    column = rng.standard_normal(8) + 5.0 * (np.arange(8) == 0)
    make = getattr(sm.preconditioners, kind)
    scaled = make(sm.Toeplitz((scale * column).astype(dtype))).c / scale
    np.testing.assert_allclose(scaled, make(sm.Toeplitz(column)).c, rtol=0, atol=1e-5 if dtype == "float32" else 1e-13)


@in_one_test("dtype", ["float64", "complex128"])
@in_one_test("n", [1, 2, 5, 8, 31])
def test_chans_circulant_is_the_nearest(n: int, dtype: str) -> None:
    column, row = Vectors(n, dtype)(2, n)
    T = scipy.linalg.toeplitz(column, np.r_[column[:1], row[1:]])
    made = sm.preconditioners.chan(sm.Toeplitz(column, row)).c
    assert made.dtype == T.dtype
    np.testing.assert_allclose(made, sm.Circulant.nearest(T).c, atol=1e-12)


@in_one_test("dtype", ["float64", "complex128"])
@in_one_test("n", [1, 2, 3, 4, 7, 8])
def test_strangs_circulant_has_the_diagonals_near_the_main_one(n: int, dtype: str) -> None:
    """Of the two that lie n / 2 from it the mean, so that the circulant of a Hermitian matrix is Hermitian."""
    column, row = Vectors(n, dtype)(2, n)
    made = sm.preconditioners.strang(sm.Toeplitz(column, row)).c
    for k in range(n):
        near = column[k] if 2 * k < n else row[n - k] if 2 * k > n else (column[k] + row[k]) / 2
        np.testing.assert_allclose(made[k], near)
    column[0] = column[0].real
    hermitian = sm.preconditioners.strang(sm.Toeplitz(column)).to_dense()
    np.testing.assert_allclose(hermitian, hermitian.conj().T)


@pytest.mark.parametrize("kind", PRECONDITIONERS)
def test_preconditioned_cg_takes_a_fraction_of_the_iterations(kind: str) -> None:
    size = 512
    t = 1 / (1 + np.arange(size)) ** 1.1  # ill-conditioned, positive definite
    toeplitz = sm.Toeplitz(t)
    T = sm.scipy.as_linear_operator(toeplitz)
    b = np.ones(size)
    counts = []
    for M in (None, sm.scipy.as_linear_operator(getattr(sm.preconditioners, kind)(toeplitz).inv())):
        steps: list[int] = []
        x, info = spla.cg(T, b, rtol=1e-10, M=M, callback=lambda _, steps=steps: steps.append(1))
        assert info == 0
        assert np.linalg.norm(T @ x - b) <= 1e-9 * np.linalg.norm(b)
        counts.append(len(steps))
    assert counts[1] * 2 < counts[0]


@pytest.mark.parametrize("kind", PRECONDITIONERS)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_preconditioned_gmres_solves_toeplitz_systems_without_symmetry(kind: str, dtype: str) -> None:
    size = 500
    c, r = (0.7 ** np.arange(size)).astype(dtype), (0.2 ** np.arange(size)).astype(dtype)
    if dtype == "complex128":
        c, r = c * 1j ** np.arange(size), r * (1 - 0.5j)
    T = sm.Toeplitz(c, r)
    M = sm.scipy.as_linear_operator(getattr(sm.preconditioners, kind)(T).inv())
    b = rng.standard_normal(size).astype(dtype)
    x, info = spla.gmres(sm.scipy.as_linear_operator(T), b, rtol=1e-12, restart=20, maxiter=1, M=M)
    assert info == 0
    np.testing.assert_allclose(x, scipy.linalg.solve_toeplitz((c, r), b), atol=1e-10)


@pytest.mark.parametrize("kind", PRECONDITIONERS)
def test_preconditioners_take_the_operator(backend: Backend, kind: str) -> None:
    c, r = rng.standard_normal((2, 3, 7)), rng.standard_normal(7)
    make = getattr(sm.preconditioners, kind)
    T = sm.Toeplitz(backend.asarray(c), backend.asarray(r))
    made = make(T)
    assert made.batch_shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        np.testing.assert_allclose(backend.to_numpy(made.c)[i, j], make(sm.Toeplitz(c[i, j], r)).c, atol=1e-12)
    assert type(make(T + 2 * sm.Identity(7)).inv()) is sm.Circulant


@pytest.mark.parametrize("sizes", [(1, 4), (3, 4), (2, 3, 2)])
def test_preconditioners_of_several_levels(sizes: tuple[int, ...]) -> None:
    count = int(np.prod([2 * n - 1 for n in sizes]))
    T = sm.MultilevelToeplitz(rng.standard_normal((2, count)) + 1j * rng.standard_normal((2, count)), sizes)
    points = np.unravel_index(np.arange(T.shape[0]), sizes)
    step = [(at[:, None] - at) % n for at, n in zip(points, sizes, strict=True)]
    k, dense = np.ravel_multi_index(step, sizes), T.to_dense()
    nearest = np.stack([np.mean(dense[:, k == j], axis=-1) for j in range(T.shape[0])], axis=-1)
    np.testing.assert_allclose(sm.preconditioners.chan(T).c, nearest, atol=1e-14)
    column, row = rng.standard_normal((2, sizes[0]))  # of a separable matrix each level has its own
    rest = rng.standard_normal(np.prod([2 * n - 1 for n in sizes[1:]]))
    T = sm.MultilevelToeplitz(np.outer(np.append(row[:0:-1], column), rest).ravel(), sizes)
    wrapped = sm.preconditioners.strang(T).c.reshape(sizes[0], -1)
    of_rest = sm.preconditioners.strang(sm.MultilevelToeplitz(rest, sizes[1:])).c
    np.testing.assert_allclose(
        wrapped, np.outer(sm.preconditioners.strang(sm.Toeplitz(column, row)).c, of_rest), atol=1e-14
    )


@pytest.mark.parametrize("kind", ["chan", "strang"])
def test_preconditioned_cg_on_a_grid(kind: str) -> None:
    s, t = np.ogrid[:24, :20]
    T = sm.MultilevelToeplitz.from_covariance(np.exp(-(s + t) / 8) + 0.01 * ((s == 0) & (t == 0)))
    A, b, counts = sm.scipy.as_linear_operator(T), np.ones(480), []
    for M in (None, sm.scipy.as_linear_operator(getattr(sm.preconditioners, kind)(T).inv())):
        steps: list[int] = []
        x, info = spla.cg(A, b, rtol=1e-10, M=M, callback=lambda _, steps=steps: steps.append(1))
        assert info == 0
        counts.append(len(steps))
    np.testing.assert_allclose(x, np.linalg.solve(T.to_dense(), b), atol=1e-8)
    assert counts[1] * 2 < counts[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_means_of_diagonals_do_not_overflow_where_they_fit(dtype: str) -> None:
    largest = float(np.finfo(dtype).max)
    for n in (2, 3, 4, 5000):
        column = np.full(n, 0.9 * largest, dtype)
        for kind in ("chan", "strang"):
            made = getattr(sm.preconditioners, kind)(sm.Toeplitz(column))
            np.testing.assert_allclose(made.c, column, rtol=1e-6)


def test_preconditioner_input_errors() -> None:
    with pytest.raises(ValueError, match=r"chan: T must have one grid for rows and columns, got \(3,\) and \(4,\)"):
        sm.preconditioners.chan(sm.Toeplitz(np.ones(3), np.ones(4)))
    with pytest.raises(ValueError, match=r"chan: T must have one grid .*, got \(2,\) and \(3,\)"):
        sm.preconditioners.chan(sm.MultilevelToeplitz(np.ones(4), (2,), (3,)))
    for other in (sm.Hankel(np.ones(3)), np.ones(3)):
        with pytest.raises(TypeError, match=r"preconditioners\.strang: T must be a Toeplitz operator, got"):
            sm.preconditioners.strang(other)
