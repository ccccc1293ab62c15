"""Samples have the covariance that was asked for, exactly, and embeddings that cannot have it are refused."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structmat._array_tools import ArgumentTypeError, ArgumentValueError
from structmat.sampling import sample_stationary


class UnitNoise(np.random.Generator):
    """Every unit vector once in place of random numbers, so that samples are the columns of a square root."""

    def __init__(self):
        super().__init__(np.random.PCG64(0))

    def standard_normal(self, size):
        _, pairs, count = size
        assert pairs == 2 * count, "wants as many samples as it has columns"
        noise = np.zeros(size)
        noise[0, :count], noise[1, count:] = np.eye(count), np.eye(count)
        return noise


def covariance_of_samples(covariance, embedding):
    """From the real parts, which are half of the samples; the others are as many and independent."""
    roots = sample_stationary(covariance, None, 4 * embedding, rng=UnitNoise())
    real, imaginary = (
        np.reshape(part, (2 * embedding, -1)) for part in (roots[: 2 * embedding], roots[2 * embedding :])
    )
    assert np.abs(real.T @ imaginary).max() <= 1e-12
    assert np.allclose(imaginary.T @ imaginary, real.T @ real, atol=1e-12)
    return real.T @ real


def matrix_of(covariance, shape):
    points = np.array(list(np.ndindex(*shape)))
    distances = np.abs(points[:, None] - points[None, :]).astype(float)
    return covariance(*np.moveaxis(distances, -1, 0))


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 24), length=st.floats(0.2, 20.0))
def test_exponential_covariance_on_a_line(n, length):
    def covariance(t):
        return np.exp(-t / length)

    values = covariance(np.arange(float(n)))
    got = covariance_of_samples(values, max(2, 2 * (n - 1)))
    np.testing.assert_allclose(got, matrix_of(covariance, (n,)), atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 4), (3, 1), (4, 5), (2, 3, 4)])
def test_separable_covariance_on_a_grid(shape):
    def covariance(*t):
        return np.exp(-sum(t) / 3)

    values = covariance(*np.meshgrid(*(np.arange(float(n)) for n in shape), indexing="ij"))
    embedding = int(np.prod([max(1, 2 * (n - 1)) for n in shape]))
    got = covariance_of_samples(values, embedding)
    np.testing.assert_allclose(got, matrix_of(covariance, shape), atol=1e-12)


def test_a_function_is_padded_as_far_as_it_needs(monkeypatch):
    """The smallest embedding of a wide Gaussian has negative eigenvalues."""

    def covariance(t):
        return np.exp(-((t / 40) ** 2))

    with pytest.raises(ArgumentValueError, match="give a function instead of an array"):
        sample_stationary(covariance(np.arange(1100.0) / 30))
    used = []

    def counted(t):
        used.append(t.size)
        return covariance(t)

    samples = sample_stationary(counted, 32, 20_000, rng=0)
    assert used == sorted(used)
    assert 62 < used[-1] < 62 * 16
    np.testing.assert_allclose(samples.T @ samples / 20_000, matrix_of(covariance, (32,)), atol=0.05)


@settings(max_examples=25, deadline=None)
@given(shape=st.sampled_from([(2,), (3,), (4,), (7,), (2, 3), (3, 3), (2, 2, 3)]), length=st.floats(0.3, 300.0))
def test_every_covariance_on_a_small_grid_has_samples(shape, length):
    """Also where no embedding up to sixteen times the grid is without negative eigenvalues."""
    points = np.meshgrid(*(np.arange(float(n)) for n in shape), indexing="ij")
    for covariance in (
        lambda *t: np.exp(-sum((s / length) ** 2 for s in t)),
        lambda *t: np.prod([np.cos(s / length) for s in np.broadcast_arrays(*t)], axis=0),
    ):
        for argument in (covariance, covariance(*points)):
            samples = sample_stationary(argument, shape, 4_000, rng=0)
            flat = samples.reshape(4_000, -1)
            np.testing.assert_allclose(flat.T @ flat / 4_000, matrix_of(covariance, shape), atol=0.15)


def test_eigenvectors_serve_every_library_and_scale(backend):
    values = np.exp(-((np.arange(3.0) / 50) ** 2))
    want = sample_stationary(values, n_samples=5, rng=1)
    for scale in (1.0, 2.0**1020, 2.0**-1000):
        got = sample_stationary(backend.asarray(values * scale), n_samples=5, rng=1)
        assert type(got) is type(backend.asarray(values))
        np.testing.assert_allclose(backend.to_numpy(got) / scale**0.5, want, atol=1e-6)


def test_no_covariance_is_refused():
    with pytest.raises(ArgumentValueError, match=r"covariance must have no negative eigenvalue, got -0\.\d+ for"):
        sample_stationary(lambda t: np.where(t < 3, 1.0, 0.0), 8)
    with pytest.raises(ArgumentValueError, match="it is no covariance, or its range is far beyond"):
        sample_stationary(lambda t: np.where(t < 3, 1.0, 0.0), 1025)


def test_seeds_libraries_and_dtypes(backend):
    values = np.exp(-np.arange(9.0))
    want = sample_stationary(values, n_samples=3, rng=5)
    assert want.shape == (3, 9)
    assert (want == sample_stationary(values, n_samples=3, rng=5)).all()
    got = sample_stationary(backend.asarray(values), n_samples=3, rng=5)
    assert type(got) is type(backend.asarray(values))
    np.testing.assert_allclose(backend.to_numpy(got), want, atol=1e-12)
    narrow = sample_stationary(backend.asarray(values.astype(np.float32)), rng=5)
    assert backend.to_numpy(narrow).dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.exp,), ArgumentValueError, "shape must be given for a covariance that is a function"),
        ((np.ones(3), 4), ArgumentValueError, r"covariance must have the shape of the grid, \(4,\), got \(3,\)"),
        ((np.ones(3) * 1j,), ArgumentTypeError, "covariance must be real"),
        ((np.array([1.0, np.nan]),), ArgumentValueError, "covariance must be finite"),
        ((lambda t: 1.0, 4), ArgumentValueError, r"covariance must return an array of shape \(4,\)"),
        ((np.ones(3), 3, 0), ArgumentValueError, "n_samples must be at least 1, got 0"),
        ((np.ones(3), 2.5), ArgumentTypeError, "shape must be an integer"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match="sample_stationary: " + message):
        sample_stationary(*arguments)


def test_many_samples_take_little_more_memory_than_the_result():
    tracemalloc.start()
    samples = sample_stationary(lambda s, t: np.exp(-np.hypot(s, t) / 8), (48, 48), 601, rng=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert samples.shape == (601, 48, 48)
    assert peak < 2 * samples.nbytes + 2**25
    assert np.abs(samples.mean(axis=0)).max() < 6 / 601**0.5
    assert len(np.unique(samples[:, 0, 0])) == 601


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("end", ["largest", "smallest"])
def test_multiples_of_a_covariance_give_multiples_of_samples(dtype, end):
    """Sums of values that are near the end of the range are beyond it; the samples are not."""
    plain = np.exp(-np.arange(500.0) / 300).astype(dtype)
    limits = np.finfo(dtype)
    half = (limits.maxexp - 1) // 2 if end == "largest" else limits.minexp // 2 + 4
    want = sample_stationary(plain, n_samples=3, rng=0)
    found = sample_stationary(np.ldexp(plain, 2 * half), n_samples=3, rng=0)
    assert found.dtype == want.dtype
    np.testing.assert_array_equal(np.ldexp(found, -half), want)
    function = sample_stationary(lambda t: np.ldexp(np.exp(-t / 3.0).astype(dtype), 2 * half), 20, rng=0)
    assert np.isfinite(function).all()
    assert np.ldexp(function, -half).std() > 0.1
