"""Circulant preconditioners: what they minimise, and how they speed up iterations."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.linalg as spla

import structmat as sm
from tests.backends import Backend

rng = np.random.default_rng(7)


PRECONDITIONERS = ["chan", "strang", "tyrtyshnikov"]


@pytest.mark.parametrize("kind", PRECONDITIONERS)
@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_preconditioners_of_a_circulant_are_the_circulant(kind: str, n: int) -> None:
    C = sm.Circulant(rng.standard_normal(n) + 1j * rng.standard_normal(n) + 5 * (np.arange(n) == 0))
    dense = C.to_dense()
    made = getattr(sm.preconditioners, kind)(dense[:, 0], dense[0])
    if kind != "strang" or n % 2 or n == 2:
        np.testing.assert_allclose(made.c, C.c, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("n", [1, 2, 5, 8, 31])
def test_preconditioners_minimise_what_they_claim(n: int, dtype: str) -> None:
    column, row = (
        (rng.standard_normal((2, n)) + 1j * rng.standard_normal((2, n))).astype(dtype)
        if dtype != "float64"
        else rng.standard_normal((2, n))
    )
    column[0] += 4
    T = scipy.linalg.toeplitz(column, np.r_[column[:1], row[1:]])
    np.testing.assert_allclose(sm.preconditioners.chan(column, row).c, sm.Circulant.nearest(T).c, atol=1e-12)
    best = sm.preconditioners.tyrtyshnikov(column, row)
    assert best.dtype == T.dtype

    def distance(c: np.ndarray) -> float:
        return float(np.linalg.norm(np.eye(n) - scipy.linalg.circulant(c) @ T))

    inverse = best.inv().c
    for _ in range(5):
        step = rng.standard_normal(n) + (1j * rng.standard_normal(n) if dtype != "float64" else 0)
        assert distance(inverse) <= distance(inverse + 1e-4 * step) + 1e-12
    if n > 2:
        strang = sm.preconditioners.strang(column, row).c
        np.testing.assert_allclose(strang[: (n + 1) // 2], column[: (n + 1) // 2])


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
        np.testing.assert_allclose(backend.to_numpy(made.c)[i, j], make(c[i, j], r).c, atol=1e-12)
    assert type(make(T + 2 * sm.Identity(7)).inv()) is sm.Circulant


def test_preconditioner_input_errors() -> None:
    with pytest.raises(ValueError, match=r"chan: column and row must have one length n >= 1, got \(3,\) and \(4,\)"):
        sm.preconditioners.chan(sm.Toeplitz(np.ones(3), np.ones(4)))
    with pytest.raises(TypeError, match=r"chan: row is for a first column, a Toeplitz operator has its own"):
        sm.preconditioners.chan(sm.Toeplitz(np.ones(3)), np.ones(3))
    with pytest.raises(TypeError, match=r"strang: column must be a Toeplitz operator or its first column, got Hankel"):
        sm.preconditioners.strang(sm.Hankel(np.ones(3)))
    with pytest.raises(ValueError, match=r"preconditioners\.chan: column and row must have one length"):
        sm.preconditioners.chan(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match=r"strang: column and row must have one length"):
        sm.preconditioners.strang(np.ones(0))
