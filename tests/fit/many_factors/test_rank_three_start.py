"""Matrices of rank three are products of seven factors, and no fit of seven or more is worse than the best such one."""

import numpy as np
import pytest

from structmat.fit import fit_cdd
from structmat.fit._many_factors.rank_three_start import rank_three_product
from structmat.operators._cdd import CDDProduct


def columns(rng, n, *, real):
    A, B = rng.standard_normal((2, n, 3))
    return (A, B) if real else (A + 1j * rng.standard_normal((n, 3)), B + 1j * rng.standard_normal((n, 3)))


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("n", [9, 16, 33])
def test_matrices_of_rank_three_are_found(n, real):
    A, B = columns(np.random.default_rng(n), n, real=real)
    A[3] *= 1e-3
    B[5] = 0.0
    vectors = rank_three_product(A, B, np.random.default_rng(0), lambda: False)
    assert [v.shape for v in vectors] == [(n,)] * 7
    assert all(np.isrealobj(v) == real for v in vectors)
    W = A @ B.T
    P = np.asarray(CDDProduct.from_vectors(*vectors).to_dense())
    assert np.linalg.norm(P - W) <= 1e-6 * np.linalg.norm(W)


@pytest.mark.parametrize("n_factors", [7, 9])
def test_seven_factors_are_no_worse_than_rank_three(n_factors):
    W = np.random.default_rng(2).standard_normal((24, 24))
    s = np.linalg.svd(W, compute_uv=False)
    bound = np.linalg.norm(s[3:]) / np.linalg.norm(s)
    fit = fit_cdd(W, n_factors, rng=0, max_iter=20, restarts=1)
    assert fit.error <= bound * (1 + 1e-9)


def test_time_that_is_up_ends_the_search():
    A, B = columns(np.random.default_rng(0), 20, real=True)
    assert rank_three_product(A, B, np.random.default_rng(0), lambda: True) is None


def test_equations_without_a_solution_end_the_search(monkeypatch):
    def singular(*_):
        raise np.linalg.LinAlgError("Singular matrix")

    monkeypatch.setattr("structmat.fit._many_factors.rank_three_start._step", singular)
    A, B = columns(np.random.default_rng(0), 9, real=True)
    assert rank_three_product(A, B, np.random.default_rng(0), lambda: False) is None


def test_a_step_to_a_singular_basis_ends_the_search(monkeypatch):
    steps = np.zeros((2, 9))  # of w; the basis is taken to zero

    def to_zero(M):
        return lambda *_: (steps, -M)

    module = "structmat.fit._many_factors.rank_three_start"
    monkeypatch.setattr(f"{module}._STARTS", 1)
    M = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    monkeypatch.setattr(f"{module}.np.linalg.qr", lambda _: (M, None))
    monkeypatch.setattr(f"{module}._step", to_zero(M))
    A, B = columns(np.random.default_rng(0), 9, real=True)
    assert rank_three_product(A, B, np.random.default_rng(0), lambda: False) is None
