"""Series of any covariance, with gaps and uneven noise: log-determinants and solutions against dense ones."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import numpy as np
import pytest
import scipy.linalg

import structmat as sm
from structmat._arrays.libraries import namespace
from structmat._toeplitz_systems.superfast import SuperfastFactor
from structmat._toeplitz_systems.superfast.band import BandFactor
from structmat.linear_systems import _thresholds
from tests import backends


def fractional(hurst: float) -> Any:
    """Return the covariance of fractional Gaussian noise by the usual formula, whose differences lose digits."""

    def covariance(k: Any) -> Any:
        return (np.abs(k + 1) ** (2 * hurst) - 2 * np.abs(k) ** (2 * hurst) + np.abs(k - 1) ** (2 * hurst)) / 2

    return covariance


def spherical(k: Any) -> Any:
    return np.where(k < 60, 1 - 1.5 * k / 60 + 0.5 * (k / 60) ** 3, 0.0)


def wendland(k: Any) -> Any:
    r = np.minimum(k / 80, 1)
    return (1 - r) ** 4 * (4 * r + 1)


def matern_32(k: Any) -> Any:
    return (1 + k / 300) * np.exp(-k / 300)


def squared_exponential(k: Any) -> Any:
    return np.exp(-0.5 * (k / 10) ** 2)


def periodic(k: Any) -> Any:
    return np.exp(-2 * np.sin(k / 7) ** 2)


COVARIANCES = {
    "spherical": spherical,
    "triangle": lambda k: np.maximum(1 - k / 100, 0.0),
    "Wendland C2": wendland,
    "squared exponential": squared_exponential,
    "Matern 1/2": lambda k: np.exp(-k / 20),
    "Matern 3/2": matern_32,
    "Matern 5/2": lambda k: (1 + k / 10 + (k / 10) ** 2 / 3) * np.exp(-k / 10),
    "rational quadratic": lambda k: 1 / (1 + 0.5 * (k / 10) ** 2),
    "fractional noise, H = 0.1": fractional(0.1),
    "fractional noise, H = 0.8": fractional(0.8),
    "fractional noise, H = 0.95": fractional(0.95),
    "periodic": periodic,
    "periodic with sharp peaks": lambda k: np.exp(-0.5 * (k / 500) ** 2 - 8 * np.sin(k / 30) ** 2),
    "quasi-periodic, squared exponential decay": lambda k: np.exp(-0.5 * (k / 2000) ** 2) * periodic(k),
    "quasi-periodic, exponential decay": lambda k: np.exp(-k / 2000) * periodic(k),
    "damped cosine": lambda k: np.exp(-k / 1000) * np.cos(2 * np.pi * k / 20),
    "periodic plus squared exponential": lambda k: periodic(k) + squared_exponential(k),
    "Matern times periodic plus squared exponential": lambda k: matern_32(k) * periodic(k) + squared_exponential(k) / 2,
    "spherical plus Matern": lambda k: spherical(k) + matern_32(k),
}


def gaps_of(kind: str, n: int, rng: np.random.Generator) -> Any:
    """Return the mask of the points that are there."""
    there = np.ones(n, bool)
    if kind == "a tenth":
        there = rng.random(n) > 0.1
    elif kind == "a block":
        there[n // 3 : n // 2] = False
    elif kind == "every third":
        there[::3] = False
    elif kind == "nine tenths":
        there = rng.random(n) > 0.9
    return there


GAPS = ["none", "a tenth", "a block", "every third", "nine tenths"]
NOISE = [1e-8, 1e-2, 1e2]


def series(covariance: Any, n: int, gaps: str, noise: float) -> tuple[Any, Any, Any]:
    """Return the operator of a series, its dense matrix and a right-hand side."""
    rng = np.random.default_rng(0)
    there = gaps_of(gaps, n, rng)
    d = rng.uniform(noise, 10 * noise, n)
    c = covariance(np.arange(float(n)))
    A = sm.Toeplitz(c) + sm.Diagonal(d)
    K = scipy.linalg.toeplitz(c) + np.diag(d)
    return A[there][:, there], K[np.ix_(there, there)], rng.standard_normal(np.count_nonzero(there))


def condition_of(K: Any, noise: float) -> float:
    """Return a bound of the condition number: the least eigenvalue is at least the noise."""
    return float(np.linalg.norm(K, 1)) / noise


def assert_is_measured(found: sm.SlogdetEstimate, K: Any, noise: float) -> None:
    """Compare with LAPACK: the error is at most four times what is returned, and that is small."""
    is_ill_conditioned = condition_of(K, noise) > 1e10
    exact = 2 * np.sum(np.log(np.diag(np.linalg.cholesky(K))))
    size = len(K) + abs(exact)
    rounding = (1e-9 if is_ill_conditioned else 1e-12) * size  # that of LAPACK as well
    assert abs(found.logabsdet - exact) <= 4 * found.standard_error + rounding
    assert found.standard_error <= (1e-6 * size if is_ill_conditioned else 0.01)


def assert_is_solution(x: Any, K: Any, b: Any, noise: float) -> None:
    allowed = max(1.01e-10, 1e-15 * condition_of(K, noise))
    assert np.linalg.norm(K @ x - b) <= allowed * np.linalg.norm(b)


@pytest.mark.parametrize("name", COVARIANCES)
def test_a_factor_serves_each_covariance(name: str) -> None:
    """None takes the last resort of a random estimate, or of a dense matrix."""
    for gaps in ("a tenth", "every third"):
        A, K, b = series(COVARIANCES[name], 401, gaps, 1e-2)
        assert_is_measured(sm.slogdet(A, method=sm.Superfast()), K, 1e-2)
        assert_is_solution(sm.solve(A, b, method=sm.Superfast()).x, K, b, 1e-2)


@pytest.mark.filterwarnings("ignore:solve. a relative residual:scipy.linalg.LinAlgWarning")  # with noise of 1e-8
@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("name", COVARIANCES)
def test_long_series_are_not_estimated(name: str, noise: float) -> None:
    """With the gaps in turns: three of fifteen cases of each covariance, which all together have each case."""
    gaps = GAPS[(list(COVARIANCES).index(name) + 2 * NOISE.index(noise)) % len(GAPS)]
    A, K, b = series(COVARIANCES[name], 2401, gaps, noise)
    assert_is_measured(sm.slogdet(A), K, noise)
    assert_is_solution(sm.solve(A, b, assume="positive definite").x, K, b, noise)


def direction(n: int) -> Any:
    """Return a smooth change of a covariance, small beside the noise, and not zero where one of compact support is."""
    return 2e-3 * np.exp(-((np.arange(float(n)) / 100) ** 2))


def uneven_series(name: str, n: int) -> tuple[Any, Any, Any]:
    """Return the first column, uneven noise, and the mask of a series that has nine tenths of its points."""
    rng = np.random.default_rng(0)
    return COVARIANCES[name](np.arange(float(n))), rng.uniform(0.01, 0.1, n), rng.random(n) > 0.1


@cache
def derivatives_by_the_inverse(name: str, n: int) -> Any:
    """Return those of the dense log-determinant by a change of the covariance and by a factor of the noise."""
    c, d, there = uneven_series(name, n)
    T, change = (scipy.linalg.toeplitz(v)[np.ix_(there, there)] for v in (c, direction(n)))
    inverse = np.linalg.inv(T + np.diag(d[there]))
    return np.array([np.vdot(inverse, change), np.diag(inverse) @ d[there]])


def gradient_of_slogdet(backend: backends.Backend, c: Any, d: Any, there: Any, method: Any) -> Any:
    """Return the same derivatives by those of `slogdet` by the first column and the noise."""

    def value(column: Any, noise: Any) -> Any:
        A = (sm.Toeplitz(column) + sm.Diagonal(noise))[there][:, there]
        return sm.slogdet(A, method=method).logabsdet

    given = [backend.asarray(c), backend.asarray(d)]
    if backend.name == "torch":
        found = backend.xp.autograd.grad(value(*(array.requires_grad_() for array in given)), given)
    else:
        found = importlib.import_module("jax").grad(value, (0, 1))(*given)
    by_c, by_d = map(backend.to_numpy, found)
    return np.array([by_c @ direction(len(c)), by_d @ d])


def assert_gradient_is_that_of_the_inverse(backend: backends.Backend, name: str, n: int, method: Any) -> None:
    want = derivatives_by_the_inverse(name, n)
    found = gradient_of_slogdet(backend, *uneven_series(name, n), method)
    assert np.linalg.norm(found - want) <= 1e-6 * np.linalg.norm(want)


@backends.on("torch")
@pytest.mark.parametrize("name", COVARIANCES)
def test_gradients(backend: backends.Backend, name: str) -> None:
    assert_gradient_is_that_of_the_inverse(backend, name, 301, sm.Superfast())


LOOSE = [
    "Wendland C2",
    "triangle",
    "fractional noise, H = 0.8",
    "periodic with sharp peaks",
    "quasi-periodic, squared exponential decay",
]
"""Covariances of which the factor of 2,401 points is looser than 1e-13, or took a second look at columns."""


@backends.on("torch", "jax")
@pytest.mark.parametrize("name", LOOSE)
def test_gradients_of_long_series(backend: backends.Backend, name: str) -> None:
    assert_gradient_is_that_of_the_inverse(backend, name, 2401, None)


@backends.on("jax")
def test_a_rank_in_a_trace_need_not_suffice_for_the_tightest_tolerance(backend: backends.Backend) -> None:
    jax = importlib.import_module("jax")
    n = 150
    rng = np.random.default_rng(0)
    d, there = rng.uniform(0.01, 0.1, n), rng.random(n) > 0.1
    b = rng.standard_normal(np.count_nonzero(there))

    @jax.jit
    def solution(c: Any) -> Any:
        A = (sm.Toeplitz(c) + sm.Diagonal(backend.asarray(d)))[there][:, there]
        return sm.solve(A, backend.asarray(b), method=sm.Superfast(rank=20)).x

    for name in ("squared exponential", "fractional noise, H = 0.8"):
        c = COVARIANCES[name](np.arange(float(n)))
        K = (scipy.linalg.toeplitz(c) + np.diag(d))[np.ix_(there, there)]
        assert np.linalg.norm(K @ backend.to_numpy(solution(backend.asarray(c))) - b) <= 1e-10 * np.linalg.norm(b)


# Bands


def banded(n: int, lag: int, missing: float, noise: float, *, turned: bool) -> Any:
    """Return first column, noise and mask of a triangle of so many lags, and the inverse of the matrix."""
    rng = np.random.default_rng(lag)
    c = np.maximum(1 - np.arange(float(n)) / lag, 0.0)
    c = c * np.exp(0.3j * np.arange(n)) if turned else c
    d, there = rng.uniform(noise, 10 * noise, n), rng.random(n) >= missing
    K = scipy.linalg.toeplitz(c) * np.outer(there, there) + np.diag(np.where(there, d, 1.0))
    return c, d, there, K


@backends.on("numpy", "torch", "jax")
def test_bands(backend: backends.Backend) -> None:
    """Values, solutions, and all derivatives by the covariance, also beyond the band, are those of the dense matrix.

    The inverse decays within a few blocks where the noise is large, and not at all where it is small.
    """
    cases = [(700, 20, 0.1, 0.5, False), (300, 70, 0.5, 1e-3, False), (500, 33, 0.0, 1e-4, True)]
    for n, lag, missing, noise, turned in cases[1:2] if backend.compiles else cases:
        c, d, there, K = banded(n, lag, missing, noise, turned=turned)
        given = [backend.asarray(v) for v in (c, d)]
        right = np.random.default_rng(0).standard_normal((2, n))
        found = SuperfastFactor(*given, backend.asarray(there), namespace(given[0]), with_derivatives=True)
        assert isinstance(found.factor, BandFactor)
        assert np.isclose(float(found.logdet), np.linalg.slogdet(K)[1], rtol=1e-12)
        x = backend.to_numpy(found.solve(backend.asarray(right)))
        assert np.linalg.norm(x @ K.T - right) <= 1e-12 * np.linalg.norm(right)
        Z = np.linalg.inv(K) * np.outer(there, there)
        sums, diagonal = np.array([np.trace(Z, k) for k in range(n)]), np.real(np.diag(Z))
        want = [np.where(np.arange(n) > 0, 2, 1) * sums, diagonal]

        def value(c: Any, d: Any, there: Any = there) -> Any:
            A = (sm.Toeplitz(c) + sm.Diagonal(d))[there][:, there]
            return sm.slogdet(A, method=sm.Superfast()).logabsdet

        if backend.name == "torch":  # whose gradients by complex numbers are conjugate
            want[0] = np.conj(want[0])
            by = backend.xp.autograd.grad(value(*(v.requires_grad_() for v in given)), given)
        elif backend.name == "jax":
            jax = importlib.import_module("jax")
            by = jax.grad(value, (0, 1))(*given)
            y = jax.jit(jax.vmap(found.solve))(backend.asarray(right))
            np.testing.assert_allclose(y, x, atol=1e-12 * np.max(np.abs(x)))
        else:
            by = found.factor.inverse_sums(found.matrix.there, np)
            want[0] = sums
        for ours, dense in zip(map(backend.to_numpy, by), want, strict=True):
            np.testing.assert_allclose(ours, dense, atol=1e-11 * np.max(np.abs(dense)))


def test_covariances_of_long_compact_support_are_not_estimated() -> None:
    """Their blocks beside the diagonal have a rank of twice the support, so that a tree takes too long."""
    n, lag = 4000, 300
    rng = np.random.default_rng(0)
    there, d = rng.random(n) > 0.1, rng.uniform(0.01, 0.1, n)
    c = np.maximum(1 - np.arange(float(n)) / lag, 0.0)
    A = (sm.Toeplitz(c) + sm.Diagonal(d))[there][:, there]
    found = sm.slogdet(A)
    places = np.flatnonzero(there)
    band = np.zeros((lag, len(places)))
    for k in range(lag):
        behind = places[k:] - places[: len(places) - k]
        band[k, : len(behind)] = c[behind]
    band[0] += d[places]
    exact = 2 * np.sum(np.log(scipy.linalg.cholesky_banded(band, lower=True)[0]))
    assert 0 < found.standard_error <= 1e-12 * (len(places) + abs(exact))  # of rounding alone
    assert np.isclose(found.logabsdet, exact, rtol=1e-13)


@pytest.mark.parametrize("assume", ["general", "positive definite"])
def test_whole_series_with_little_noise_is_solved_by_its_factor(assume):
    """Iteration does not end there: it is left when the factor takes no longer, with as small a residual."""
    n, rng = 2100, np.random.default_rng(0)
    T = sm.Toeplitz(np.exp(-0.5 * (np.arange(n) / 10) ** 2))
    A, b = T + sm.Diagonal(rng.uniform(0.5e-6, 1.5e-6, n)), rng.standard_normal(n)
    with pytest.warns(scipy.linalg.LinAlgWarning, match="ill-conditioned"):
        found = sm.solve(A, b, assume=assume)
    with pytest.warns(scipy.linalg.LinAlgWarning, match="ill-conditioned"):
        by_factor = sm.solve(A, b, method=sm.Superfast())
    assert found.iterations == 0
    assert found.residual <= 2 * by_factor.residual


def echo(n, noise):
    """Return a short covariance with an echo at a distance, for which there is no factor of low rank."""
    t = np.arange(n)
    c = sum(weight * np.exp(-(((t - lag) / 3) ** 2) / 2) for weight, lag in ((1, 0), (0.3, 0.8 * n), (0.3, -0.8 * n)))
    return sm.Toeplitz(c) + sm.Diagonal(np.broadcast_to(noise, n).copy())


ILL_CONDITIONED = pytest.mark.filterwarnings("ignore::scipy.linalg.LinAlgWarning")


@ILL_CONDITIONED
@pytest.mark.parametrize("noise", [1e-7, 1e-11])
def test_even_noise_makes_a_toeplitz_matrix_with_its_closed_forms(noise):
    A = echo(1300, noise)
    T = sm.Toeplitz(A.terms[0].c + noise * np.eye(1, 1300)[0])
    found, b = sm.slogdet(A), np.cos(np.arange(1300) ** 2.0)
    assert abs(found.logabsdet - T.slogdet().logabsdet) <= found.standard_error
    assert found.standard_error < 0.1
    solved = sm.solve(A, b)
    assert solved.iterations == 0
    assert np.array_equal(solved.x, T.solve(b))


@ILL_CONDITIONED
@pytest.mark.parametrize("n", [300, 2100])
@pytest.mark.parametrize("assume", ["general", "positive definite"])
def test_the_last_resort_is_the_dense_matrix(n, assume, monkeypatch):
    monkeypatch.setattr(_thresholds, "WRITTEN_OUT", min(n - 1, 2000))
    noise = 1e-11 * np.linspace(1, 2, n)
    A, b = echo(n, noise), np.cos(np.arange(n) ** 2.0)
    x = sm.solve(A, b, assume=assume).x
    assert np.linalg.norm(b - A @ x) < 1e-12 * np.linalg.norm(x)


@pytest.mark.parametrize("n", [300, 2100])
def test_determinants_of_series_without_a_factor_are_those_of_the_dense_matrix(n, monkeypatch):
    monkeypatch.setattr(_thresholds, "WRITTEN_OUT", min(n - 1, 2000))
    A = echo(n, 1e-7 * np.linspace(1, 2, n))
    found = sm.slogdet(A)
    assert abs(found.logabsdet - np.linalg.slogdet(A.to_dense())[1]) < 1e-4
    assert found.standard_error < 1e-3


def test_the_error_of_a_system_that_does_not_fit_names_the_dense_matrix():
    n = 13_000
    A = sm.Toeplitz(np.cos(np.arange(n) ** 2.0), np.sin(np.arange(n) ** 2.0)) + sm.Diagonal(np.linspace(1, 2, n))
    text = r"last resort, numpy\.linalg\.solve\(A\.to_dense\(\), b\), takes 1\.4 GB"
    with pytest.raises(sm.ConvergenceError, match=text):
        sm.solve(A, np.ones(n), max_iter=2)
