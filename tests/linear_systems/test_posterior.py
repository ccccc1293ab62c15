"""Posterior variances of measured processes against dense algebra, by every way and on every library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import structmat as sm
from structmat.linear_systems import _posterior, _thresholds
from tests import backends
from tests.backends import Backend

SHAPES: dict[str, Any] = {
    "exponential": lambda k: np.exp(-np.abs(k) / 20),
    "squared exponential": lambda k: np.exp(-0.5 * (k / 9) ** 2),
    "rational quadratic": lambda k: 1 / (1 + 0.5 * (k / 15) ** 2),
    "damped cosine": lambda k: np.exp(-np.abs(k) / 40) * np.cos(k / 6),
    "triangle": lambda k: np.maximum(1 - np.abs(k) / 25, 0.0),
    "white": lambda k: np.where(k == 0, 1.0, 0.0),
}


def dense_variances(K: Any, noise: Any, seen: Any) -> Any:
    """Return the diagonal of the posterior by its definition."""
    chosen = np.flatnonzero(seen)
    A = K[np.ix_(chosen, chosen)] + np.diag(noise[chosen])
    return np.real(np.diagonal(K) - np.einsum("ij,ji->i", K[:, chosen], np.linalg.solve(A, K[chosen])))


@st.composite
def measured(draw: Any) -> tuple[sm.LinearOperator, Any, Any]:
    """Draw a covariance of one or two channels, its noise, and which rows were seen."""
    shape = SHAPES[draw(st.sampled_from(sorted(SHAPES)))]
    points = draw(st.integers(2, 210))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    lags = np.arange(points)
    K: sm.LinearOperator
    if draw(st.booleans()):
        K = sm.Toeplitz(shape(lags))
        turn = draw(st.sampled_from([0.0, 0.7]))
        if turn:
            c = shape(lags) * np.exp(1j * turn * lags)
            K = sm.Toeplitz(c, np.conj(c))
    else:
        delay = draw(st.integers(0, 4))
        K = sm.BlockToeplitz(shape(lags[:, None, None] + delay * np.array([[0, -1], [1, 0]])))
    n = K.shape[0]
    if draw(st.booleans()):
        K = K + sm.Diagonal(random.uniform(0, 1, n))
    seen = random.random(n) < draw(st.sampled_from([0.05, 0.5, 0.95, 1.0]))
    first, last = sorted(draw(st.tuples(st.integers(0, n), st.integers(0, n))))
    seen[first:last] = False
    seen[draw(st.integers(0, n - 1))] = True
    noise = 10.0 ** draw(st.integers(-3, 3)) * random.uniform(0.5, 2, n)
    if draw(st.booleans()) and n > 2:
        some = np.sort(random.permutation(n)[: n - n // 10])
        some = np.union1d(some, np.flatnonzero(seen)[:1])
        return K[some][:, some], noise[some], seen[some]
    return K, noise, seen


@given(measured())
def test_variances_of_series_are_those_of_dense_algebra(case: tuple[sm.LinearOperator, Any, Any]) -> None:
    K, noise, seen = case
    expected = dense_variances(K.to_dense(), noise, seen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_thresholds, "DENSE_POSTERIOR", 0)  # by the factor, however small the series is
        by_factor = sm.posterior_variances(K, noise, seen)
        patch.setattr(_thresholds, "DENSE_POSTERIOR", 10_000)
        dense = sm.posterior_variances(K, noise, seen)
    for found in (by_factor, dense):
        np.testing.assert_allclose(found.variances, expected, rtol=0, atol=2e-12)
        assert np.all(found.variances >= -1e-13)
        assert 0 < found.error < 1e-12


@pytest.mark.parametrize("name", ["rational quadratic", "triangle"])
def test_variances_keep_the_digits_of_small_noise(name: str) -> None:
    """Where noise is far below the process, a variance is near it, and a difference from the prior would lose it."""
    n = 700
    K, noise = sm.Toeplitz(SHAPES[name](np.arange(n))), np.full(n, 1e-9)
    found = sm.posterior_variances(K, noise)
    inverse = np.linalg.inv(K.to_dense() + np.diag(noise))
    np.testing.assert_allclose(found.variances, noise - noise**2 * np.diagonal(inverse), rtol=1e-5)
    assert np.max(found.variances) <= 1e-9


@pytest.mark.parametrize("name", ["rational quadratic", "triangle"])
def test_variances_keep_the_digits_of_large_noise(name: str) -> None:
    """Where noise is far above the process, a variance is near the prior, and a difference from the noise loses it."""
    n = 700
    K, seen = sm.Toeplitz(SHAPES[name](np.arange(n))), np.arange(n) % 7 > 0
    found = sm.posterior_variances(K, 1e9, seen)
    expected = dense_variances(K.to_dense(), np.full(n, 1e9), seen)
    np.testing.assert_allclose(found.variances, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["exponential", "triangle"])
@backends.on("numpy", "torch", "jax", "array_api_strict")
def test_variances_on_every_library(backend: Backend, name: str) -> None:
    random = np.random.default_rng(3)
    for n in (60, 520):
        seen, noise = random.random(n) < 0.8, random.uniform(0.1, 0.5, n)
        noise_with_gaps = np.where(seen, noise, np.nan)
        K = sm.Toeplitz(backend.asarray(SHAPES[name](np.arange(n))))
        expected = dense_variances(backend.to_numpy(K.to_dense()), noise, seen)
        for mask in (backend.asarray(seen), np.flatnonzero(seen)[::-1]):
            found = sm.posterior_variances(K, backend.asarray(noise_with_gaps), mask)
            assert type(found.variances) is type(K.c)
            np.testing.assert_allclose(backend.to_numpy(found.variances), expected, atol=1e-13)
            assert 0 < float(found.error) < 1e-13
        even = sm.posterior_variances(K, 0.3).variances
        expected = dense_variances(backend.to_numpy(K.to_dense()), np.full(n, 0.3), np.ones(n, bool))
        np.testing.assert_allclose(backend.to_numpy(even), expected, atol=1e-13)


def test_single_precision() -> None:
    for n in (60, 700):
        c, noise = SHAPES["exponential"](np.arange(n)), np.linspace(0.1, 0.4, n)
        seen = np.arange(n) % 5 > 0
        exact = sm.posterior_variances(sm.Toeplitz(c), noise, seen).variances
        found = sm.posterior_variances(sm.Toeplitz(c.astype(np.float32)), noise.astype(np.float32), seen)
        assert found.variances.dtype == np.float32
        np.testing.assert_allclose(found.variances, exact, atol=2e-6)


@backends.on("torch", "jax")
def test_small_problems_have_derivatives_and_long_series_say_why_not(backend: Backend) -> None:
    def total(scale: Any, n: int) -> Any:
        lags = backend.asarray(np.arange(float(n)))
        noise = scale * backend.asarray(np.linspace(0.1, 0.3, n))
        K = sm.Toeplitz(backend.xp.exp(-lags / (10 * scale)))
        variances = sm.posterior_variances(K, noise, np.arange(n) % 4 > 0).variances
        return backend.xp.sum(variances * lags)

    step = 1e-5
    expected = float(total(backend.asarray(np.array(1 + step)), 30) - total(backend.asarray(np.array(1 - step)), 30))
    if backend.name == "torch":
        import torch

        gradient = torch.func.grad(total)
    else:
        import jax

        gradient = jax.grad(total)
    one = backend.asarray(np.array(1.0))
    np.testing.assert_allclose(float(gradient(one, 30)), expected / 2 / step, rtol=1e-6)
    with pytest.raises(NotImplementedError, match="of more than 512 points has no derivatives, that of Dense"):
        gradient(one, 600)


@backends.on("jax")
def test_series_in_a_trace(backend: Backend) -> None:
    import jax

    n = 520
    seen = np.arange(n) % 3 > 0

    def variances(c: Any) -> Any:
        return sm.posterior_variances(sm.Toeplitz(c), 0.1, seen).variances

    c = backend.asarray(SHAPES["exponential"](np.arange(n)))
    np.testing.assert_allclose(jax.jit(variances)(c), variances(c), atol=1e-14)
    np.testing.assert_allclose(jax.vmap(variances)(backend.xp.stack([c, 2 * c]))[0], variances(c), atol=1e-14)
    assert np.all(np.isnan(jax.jit(variances)(-c)))  # which is not positive definite


def test_circulants_and_grids_have_closed_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    lags = np.minimum(np.arange(700), 700 - np.arange(700))
    line = sm.Toeplitz(np.exp(-np.arange(25) / 5))
    for K in (sm.Circulant(SHAPES["exponential"](lags)), sm.Kronecker(line, line)):
        n = K.shape[0]
        expected = dense_variances(K.to_dense(), np.full(n, 0.3), np.ones(n, bool))
        seen = np.arange(n) % 5 > 0
        with_gaps = sm.posterior_variances(K, 0.3, seen)
        np.testing.assert_allclose(
            with_gaps.variances, dense_variances(K.to_dense(), np.full(n, 0.3), seen), atol=1e-13
        )
        with monkeypatch.context() as patch:
            patch.setattr(_posterior, "_by_dense_factor", None)
            found = sm.posterior_variances(K, 0.3)
        np.testing.assert_allclose(found.variances, expected, atol=1e-13)
        assert 0 < found.error < 1e-13


def test_a_series_without_a_factor_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any) -> Any:
        raise _posterior.RankError

    monkeypatch.setattr(_posterior, "series_variances", refused)
    n = 600
    K, seen = sm.Toeplitz(SHAPES["exponential"](np.arange(n))), np.arange(n) % 5 > 0
    found = sm.posterior_variances(K, 0.3, seen).variances
    np.testing.assert_allclose(found, dense_variances(K.to_dense(), np.full(n, 0.3), seen), atol=1e-13)


def test_what_is_measured_of_the_error_is_near_the_error() -> None:
    """Noise of 1e-9 lets rounding errors through, in the middle of a gap and, less, beside it."""
    n = 600
    c = np.exp(-0.5 * (np.arange(n) / 40) ** 2)
    seen = np.ones(n, bool)
    seen[250:400] = False
    found = sm.posterior_variances(sm.Toeplitz(c), 1e-9, seen)
    exact = _in_long_double(c, 1e-9, seen)
    error = float(np.max(np.abs(found.variances - exact)))
    assert error > 1e-12
    assert error / 10 < found.error < 100 * error


def _in_long_double(c: Any, noise: float, seen: Any) -> Any:
    """Return the variances by elimination in long double."""
    n = len(c)
    K = c.astype(np.longdouble)[np.abs(np.subtract.outer(np.arange(n), np.arange(n)))]
    rows = np.concatenate([np.flatnonzero(seen), np.flatnonzero(~seen)])
    left = K[np.ix_(rows, rows)]
    diagonal = np.arange(n)
    count = int(np.sum(seen))
    left[diagonal[:count], diagonal[:count]] += np.longdouble(noise)
    for k in range(count):
        left[k + 1 :, k + 1 :] -= np.outer(left[k + 1 :, k] / left[k, k], left[k, k + 1 :])
    found = np.full(n, np.nan)
    found[rows[count:]] = np.diagonal(left)[count:]
    variances = found.copy()
    variances[seen] = sm.posterior_variances(sm.Toeplitz(c), noise, seen).variances[seen]
    return variances


def refused(*arguments: Any, **options: Any) -> str:
    with pytest.raises((ValueError, TypeError, IndexError)) as caught:
        sm.posterior_variances(*arguments, **options)
    return str(caught.value)


def test_errors_name_the_argument() -> None:
    K = sm.Toeplitz(np.array([1.0, 0.5, 0.2]))
    assert "K must be a structmat operator, got ndarray; Dense(K) makes one" in refused(np.eye(3), 1.0)
    assert "K must be square, got shape (2, 3)" in refused(sm.Toeplitz(np.ones((2, 3))[0], np.ones(2)).T[:2], 1.0)
    assert "K must be one matrix, got a stack of batch shape (2,)" in refused(sm.Toeplitz(np.ones((2, 3))), 1.0)
    for c in (np.arange(3.0) + 5, np.arange(600.0) + 5):
        assert "K must be Hermitian" in refused(sm.Toeplitz(c, 2 * c - 5), 1.0)
    assert "noise must be a number or have shape (3,), one for each row of K, got (2,)" in refused(K, [1.0, 2.0])
    assert "noise must be finite and not negative at points that were seen, got -1.0 at 0" in refused(K, -1.0)
    assert "got nan at 1" in refused(K, [1.0, np.nan, 1.0])
    assert "noise must be real, got dtype complex128" in refused(K, 1j)
    assert "noise must be a number or an array, got Identity" in refused(K, sm.Identity(3))
    assert "noise must hold numbers, got None" in refused(K, None)
    assert "structmat.io.load_matrix" in refused(K, "noise.npy")
    assert "seen must be a mask of length 3, got 2" in refused(K, 1.0, [True, False])
    assert "seen must choose one index at least" in refused(K, 1.0, [False] * 3)
    assert "seen must name each index at most once" in refused(K, 1.0, [1, 1])
    assert "seen has 5, which is none of the 3 indices" in refused(K, 1.0, [5])
    assert "seen must be a mask or integers" in refused(K, 1.0, [0.5])


def test_matrices_that_are_too_large_or_not_definite_are_errors() -> None:
    line = sm.Toeplitz(np.exp(-np.arange(100.0)))
    text = refused(sm.Kronecker(line, line), np.arange(10_000.0))
    assert "K has no direct factor, and its dense matrix of 0.75 GiB is above 0.5: choose fewer points" in text
    for n in (3, 600):
        for c in (np.full(n, np.nan), np.ones(n)):
            with pytest.raises(np.linalg.LinAlgError, match="posterior_variances: the matrix with its noise is not"):
                sm.posterior_variances(sm.Toeplitz(c), 0.0)
