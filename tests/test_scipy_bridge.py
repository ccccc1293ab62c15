"""SciPy's iterative solvers on structmat operators, and SciPy's own tests of circulants run on ours."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.linalg as spla

import structmat as sm
from tests.backends import Backend

rng = np.random.default_rng(7)


def positive(n: int) -> Any:
    c = np.exp(-np.arange(n, dtype=float))
    return sm.Circulant((c + np.roll(c[::-1], 1)) / 2) + sm.Diagonal(1 + rng.random(n))


def test_cg_and_gmres() -> None:
    A = positive(50)
    b = rng.standard_normal(50)
    for solver in (spla.cg, spla.gmres):
        x, info = solver(sm.scipy.as_linear_operator(A), b, rtol=1e-12)
        assert info == 0
        np.testing.assert_allclose(A @ x, b, atol=1e-9)


def test_svds_and_eigs_and_lsqr() -> None:
    A = sm.BlockCirculant(rng.standard_normal((2, 3, 10)), (18, 27)) @ sm.Diagonal(rng.standard_normal(27))
    op = sm.scipy.as_linear_operator(A)
    dense = A.to_dense()
    np.testing.assert_allclose(
        np.sort(spla.svds(op, k=3, return_singular_vectors=False))[::-1], np.linalg.svdvals(dense)[:3]
    )
    b = rng.standard_normal(18)
    np.testing.assert_allclose(spla.lsqr(op, b, atol=1e-14, btol=1e-14)[0], np.linalg.lstsq(dense, b)[0], atol=1e-8)
    square = positive(30) @ sm.Circulant(rng.standard_normal(30))
    top = spla.eigs(sm.scipy.as_linear_operator(square), k=1, return_eigenvectors=False)
    assert np.min(np.abs(np.linalg.eigvals(square.to_dense()) - top)) < 1e-8


def test_every_product_of_the_bridge() -> None:
    A = sm.CDDProduct.from_vectors(
        rng.standard_normal(5), rng.standard_normal((3, 2, 2)) + 1j, rng.standard_normal(4), block=True
    )
    op, dense = sm.scipy.as_linear_operator(A), A.to_dense()
    x, y, X, Y = (
        rng.standard_normal(4),
        rng.standard_normal(5),
        rng.standard_normal((4, 3)),
        rng.standard_normal((5, 3)),
    )
    np.testing.assert_allclose(op.matvec(x), dense @ x)
    np.testing.assert_allclose(op @ x[:, None], dense @ x[:, None])
    np.testing.assert_allclose(op.rmatvec(y), dense.conj().T @ y)
    np.testing.assert_allclose(op.matmat(X), dense @ X)
    np.testing.assert_allclose(op.rmatmat(Y), dense.conj().T @ Y)
    np.testing.assert_allclose(op.H @ y, dense.conj().T @ y)
    assert op.dtype == np.complex128


def test_refusals() -> None:
    with pytest.raises(TypeError, match="must be a structmat operator, got ndarray"):
        sm.scipy.as_linear_operator(np.eye(3))
    with pytest.raises(ValueError, match=r"must be one matrix, got a stack of shape \(2,\)"):
        sm.scipy.as_linear_operator(sm.Diagonal(np.ones((2, 3))))
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="must hold NumPy arrays"):
        sm.scipy.as_linear_operator(sm.Diagonal(torch.ones(3)))


def solve_circulant(
    c: Any, b: Any, singular: str = "raise", tol: float | None = None, caxis: int = -1, baxis: int = 0, outaxis: int = 0
) -> np.ndarray:
    """`scipy.linalg.solve_circulant`, signature and axes, on a `Circulant`."""
    C = sm.Circulant(np.moveaxis(np.atleast_1d(c), caxis, -1))
    b = np.moveaxis(np.atleast_1d(b), baxis, -1)
    x = C.solve(b) if singular == "raise" else C.lstsq(b, rtol=tol)
    return np.moveaxis(x, -1, outaxis)


@pytest.mark.parametrize(
    "name",
    [
        "test_basic1",
        "test_basic2",
        "test_basic3",
        "test_complex",
        "test_random_b_and_c",
        "test_singular",
        "test_axis_args",
    ],
)
def test_scipys_tests_of_solve_circulant(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = pytest.importorskip("scipy.linalg.tests.test_basic")
    monkeypatch.setattr(module, "solve_circulant", solve_circulant)
    getattr(module.TestSolveCirculant(), name)()


def test_scipys_tests_of_circulant(monkeypatch: pytest.MonkeyPatch) -> None:
    module = pytest.importorskip("scipy.linalg.tests.test_special_matrices")
    monkeypatch.setattr(module, "circulant", lambda c: sm.Circulant(c).to_dense())
    module.TestCirculant().test_basic()


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


def test_importing_the_bridge_is_lazy() -> None:
    assert importlib.import_module("structmat.scipy") is sm.scipy
