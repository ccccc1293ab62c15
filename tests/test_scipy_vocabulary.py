"""What SciPy calls otherwise: its own test cases on our operators, written as the page of its vocabulary says."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import scipy.linalg

import structmat as sm


def module(name: str) -> Any:
    """A module of SciPy's tests, which not every package of it brings."""
    return pytest.importorskip(f"scipy.linalg.tests.{name}")


def operator(c_or_cr: Any) -> sm.Toeplitz:
    return sm.Toeplitz(*c_or_cr) if isinstance(c_or_cr, tuple) else sm.Toeplitz(c_or_cr)


def solve_toeplitz(c_or_cr: Any, b: Any) -> Any:
    return operator(c_or_cr).solve(np.asarray(b))


def matmul_toeplitz(c_or_cr: Any, x: Any, check_finite: bool = False, workers: int | None = None) -> Any:
    return operator(c_or_cr) @ x


def solve_circulant(
    c: Any, b: Any, singular: str = "raise", tol: float | None = None, caxis: int = -1, baxis: int = 0, outaxis: int = 0
) -> Any:
    """As `scipy.linalg.solve_circulant`, axes included."""
    C = sm.Circulant(np.moveaxis(np.atleast_1d(c), caxis, -1))
    b = np.moveaxis(np.atleast_1d(b), baxis, -1)
    x = C.inv_matvec(b) if singular == "raise" else C.pinv_matvec(b, rtol=tol)
    return np.moveaxis(x, -1, outaxis)


@pytest.mark.parametrize(
    "name", ["test_solve_equivalence", "test_multiple_rhs", "test_native_list_arguments", "test_reflection_coeffs"]
)
def test_cases_of_solve_toeplitz(name, monkeypatch):
    tests = module("test_solve_toeplitz")
    monkeypatch.setattr(tests, "solve_toeplitz", solve_toeplitz)
    getattr(tests, name)()


@pytest.mark.parametrize("vectors", [([0.0, 2.0, -1.0, 0.5], [0.0, 1.0, 3.0, -2.0]), ([2.0, 2.0, 1.0],)])
def test_what_stops_the_recursion_of_solve_toeplitz_is_solved(vectors):
    """A zero diagonal, and a regular matrix with a singular leading section."""
    b = np.array([1.0, -2.0, 3.0, 0.5])[: len(vectors[0])]
    with pytest.raises(np.linalg.LinAlgError):
        scipy.linalg.solve_toeplitz(vectors if len(vectors) > 1 else vectors[0], b)
    np.testing.assert_allclose(scipy.linalg.toeplitz(*vectors) @ sm.Toeplitz(*vectors).solve(b), b, atol=1e-14)


def test_what_makes_the_recursion_of_solve_toeplitz_unstable_is_solved():
    """A Gaussian kernel, which SciPy's tests expect to fail; the error of a solution is that of a stable one."""
    c = 0.9 ** (np.arange(100) ** 2)
    b = np.random.default_rng(0).standard_normal(100)
    T = scipy.linalg.toeplitz(c)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)
        x = sm.Toeplitz(c).solve(b)
    assert np.linalg.norm(T @ x - b) <= 1e-14 * np.linalg.norm(T, 2) * np.linalg.norm(x)


@pytest.mark.parametrize("name", ["test_real", "test_complex", "test_exceptions"])
def test_cases_of_matmul_toeplitz(name, monkeypatch):
    tests = module("test_matmul_toeplitz")
    monkeypatch.setattr(tests, "matmul_toeplitz", matmul_toeplitz)
    case = tests.TestMatmulToeplitz()
    case.setup_method()
    getattr(case, name)()


@pytest.mark.parametrize(
    "name",
    ["basic1", "basic2", "basic3", "complex", "random_b_and_c", "singular", "axis_args"],
)
def test_cases_of_solve_circulant(name, monkeypatch):
    tests = module("test_basic")
    monkeypatch.setattr(tests, "solve_circulant", solve_circulant)
    getattr(tests.TestSolveCirculant(), f"test_{name}")()


def test_cases_of_circulant(monkeypatch):
    tests = module("test_special_matrices")
    monkeypatch.setattr(tests, "circulant", lambda c: sm.Circulant(c).to_dense())
    tests.TestCirculant().test_basic()


@pytest.mark.parametrize("n", [1, 3, 4, 7])
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
def test_convolution_matrix(n, mode):
    """The recipe of the page: constants of the diagonals, and the rows that are kept."""
    a = np.array([1.0, 2.0, -1.0, 0.5])
    first = {"full": 0, "same": (min(n, a.size) - 1) // 2, "valid": min(n, a.size) - 1}[mode]
    want = scipy.linalg.convolution_matrix(a, n, mode)
    d = np.pad(a, n - 1)
    T = sm.Toeplitz(d[n - 1 + first :][: want.shape[0]], d[first : first + n][::-1])
    np.testing.assert_array_equal(T.to_dense(), want)


def test_dft_and_fiedler_and_hankel():
    np.testing.assert_allclose(sm.Fourier(5).to_dense(), scipy.linalg.dft(5, scale="sqrtn"), atol=1e-15)
    np.testing.assert_allclose((5**0.5 * sm.Fourier(5)).to_dense(), scipy.linalg.dft(5), atol=1e-14)
    np.testing.assert_allclose((5**-0.5 * sm.Fourier(5)).to_dense(), scipy.linalg.dft(5, scale="n"), atol=1e-15)
    np.testing.assert_array_equal(sm.Toeplitz(3.0 * np.arange(4)).to_dense(), scipy.linalg.fiedler(3.0 * np.arange(4)))
    np.testing.assert_array_equal(sm.Hankel([1.0, 2.0, 3.0]).to_dense(), scipy.linalg.hankel([1.0, 2.0, 3.0]))
