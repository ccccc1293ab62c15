"""SciPy's iterative solvers on structmat operators, and stacks of them, by the bridge."""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg as spla

import structmat as sm

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


@pytest.mark.parametrize(
    "solver", ["cg", "cgs", "bicg", "bicgstab", "gmres", "lgmres", "gcrotmk", "minres", "qmr", "tfqmr", "lsqr", "lsmr"]
)
def test_solvers_take_operators_as_they_are(solver: str) -> None:
    A = sm.Toeplitz(0.5 ** np.arange(40.0))
    accuracy = {"lsqr": {"atol": 1e-13, "btol": 1e-13}, "lsmr": {"atol": 1e-13, "btol": 1e-13}}
    b = rng.standard_normal(40)
    for op in (A, A.prepare(), A + positive(40)):
        x, info = getattr(spla, solver)(op, b, **accuracy.get(solver, {"rtol": 1e-12}))[:2]
        assert solver in accuracy or info == 0
        np.testing.assert_allclose(op @ x, b, atol=1e-8)


def test_preconditioners_and_eigenvalues_of_operators_as_they_are() -> None:
    A, b = sm.Toeplitz(0.9 ** np.arange(60.0)), rng.standard_normal(60)
    x, info = spla.cg(A, b, rtol=1e-12, M=sm.preconditioners.chan(A).inv())
    assert info == 0
    np.testing.assert_allclose(A @ x, b, atol=1e-9)
    values = np.linalg.eigvalsh(A.to_dense())
    np.testing.assert_allclose(spla.eigsh(A, k=2, return_eigenvectors=False), values[-2:])
    np.testing.assert_allclose(np.sort(spla.eigs(A, k=2, return_eigenvectors=False).real), values[-2:])
    op, y = spla.aslinearoperator(A), A @ b
    for found, want in ((op @ b, y), (op.H @ b, y), (op.rmatvec(b), y), ((op @ op + 2 * op) @ b, A @ y + 2 * y)):
        np.testing.assert_allclose(found, want, atol=1e-10)


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


def test_columns_are_vectors_and_not_a_batch() -> None:
    A = sm.Circulant([1.0, 2.0, 3.0])
    bridge = sm.scipy.as_linear_operator(A)
    column = np.array([[1.0], [2.0], [4.0]])
    np.testing.assert_allclose(bridge._matvec(column), A @ column[:, 0])
    np.testing.assert_allclose(bridge._rmatvec(column), A.H @ column[:, 0])


def test_refusals() -> None:
    with pytest.raises(TypeError, match="must be a structmat operator, got ndarray"):
        sm.scipy.as_linear_operator(np.eye(3))
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"must hold NumPy arrays (before SciPy 1.18|unless SCIPY_ARRAY_API=1 is set)"):
        sm.scipy.as_linear_operator(sm.Diagonal(torch.ones(3)))


BATCHES = importlib.import_module("structmat.scipy")._BATCHES


@pytest.mark.skipif(BATCHES, reason="SciPy has batches")
def test_columns_without_the_bridge_are_refused_by_its_name() -> None:
    A = sm.Toeplitz(np.arange(1.0, 6.0))
    for call in (lambda: spla.aslinearoperator(A) @ np.ones((5, 2)), lambda: spla.svds(A, k=1)):
        with pytest.raises(ValueError, match=r"what SciPy gives columns takes structmat\.scipy\.as_linear_operator"):
            call()


@pytest.mark.skipif(BATCHES, reason="SciPy has batches")
def test_stacks_are_refused_before_scipy_has_batches() -> None:
    with pytest.raises(ValueError, match=r"must be one matrix before SciPy 1.18, got a stack of shape \(2,\)"):
        sm.scipy.as_linear_operator(sm.Diagonal(np.ones((2, 3))))


@pytest.mark.skipif(not BATCHES, reason="before SciPy 1.18")
def test_stacks() -> None:
    A = sm.Toeplitz(rng.standard_normal((2, 1, 4)), rng.standard_normal((3, 5)))
    op, dense = sm.scipy.as_linear_operator(A), A.to_dense()
    assert op.shape == (2, 3, 4, 5)
    x, y = rng.standard_normal((2, 3, 5)), rng.standard_normal((3, 4))
    np.testing.assert_allclose(op.matvec(x), np.matvec(dense, x))
    np.testing.assert_allclose(op.rmatvec(y), np.matvec(dense.mT, y))
    np.testing.assert_allclose(op.matvec(x[0, 0]), np.matvec(dense, x[0, 0]))
    np.testing.assert_allclose(op @ x[0].mT, dense @ x[0].mT)
    np.testing.assert_allclose(op.rmatmat(y.mT), dense.mT @ y.mT)
    np.testing.assert_allclose((op.H @ op + op.T @ op).matvec(x), np.matvec(2 * dense.mT @ dense, x))
    np.testing.assert_allclose(pickle.loads(pickle.dumps(op)).matvec(x), np.matvec(dense, x))


@pytest.mark.skipif(not BATCHES, reason="before SciPy 1.18")
def test_arrays_of_other_libraries() -> None:
    """In a process of its own: SciPy reads its environment when it is imported."""
    pytest.importorskip("array_api_strict")
    code = (
        "import array_api_strict as xp, structmat as sm\n"
        "A = sm.Circulant(xp.asarray([[4.0, 1.0, 0.0], [1.0, 2.0, 3.0]]))\n"
        "x = xp.asarray([1.0, 2.0, 4.0])\n"
        "op = sm.scipy.as_linear_operator(A)\n"
        "assert (op @ x).shape == (2, 3)\n"
        "assert xp.max(xp.abs(op @ x - A.matvec(x))) < 1e-12\n"
        "assert xp.max(xp.abs((op.H @ op).matvec(x) - A.rmatvec(A.matvec(x)))) < 1e-12\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "SCIPY_ARRAY_API": "1"})


def test_importing_the_bridge_is_lazy() -> None:
    assert importlib.import_module("structmat.scipy") is sm.scipy
