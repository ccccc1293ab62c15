"""Samples have the covariance that was asked for, exactly, and embeddings that cannot have it are refused."""

import tracemalloc
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate

import structmat as sm
from structmat import ArgumentTypeError, ArgumentValueError
from structmat._fourier.embedding import fast_length
from structmat.sampling import conditional_mean, sample_conditional, sample_stationary
from tests.cases import in_one_test


class UnitNoise(np.random.Generator):
    """Every unit vector once in place of random numbers, so that samples are the columns of a square root."""

    def __init__(self):
        super().__init__(np.random.PCG64(0))

    def standard_normal(self, size):
        noise = np.zeros(size)
        if len(size) == 2:  # that of observations, after what a sample takes
            noise[self.used : self.used + size[1]] = np.eye(size[1])
            return noise
        _, pairs, count = size
        self.used = 2 * count
        assert pairs >= self.used, "wants as many samples as it has columns"
        noise[0, :count], noise[1, count : self.used] = np.eye(count), np.eye(count)
        return noise


def covariance_of_samples(covariance, embedding, shape=None, n_variables=None):
    """From the real parts, which are half of the samples; the others are as many and independent."""
    embedding *= n_variables or 1
    roots = sample_stationary(covariance, shape, 4 * embedding, n_variables=n_variables, rng=UnitNoise())
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
    got = covariance_of_samples(lambda h: covariance(np.abs(h))[:, None, None], 2 * fast_length(n), n, 1)
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


@pytest.mark.parametrize("n_variables", [None, 2])
def test_cholesky_factors_serve_longer_lines(n_variables):
    """A damped cosine whose embeddings have negative eigenvalues, beyond the size of eigenvectors."""
    n, count = (1100 if n_variables is None else 550), 300

    def covariance(t):
        values = np.exp(-np.abs(t) / 2000) * np.cos(t / 50)
        return values if n_variables is None else values[:, None, None] * np.array([[1.0, 0.5], [0.5, 1.0]])

    if n_variables is None:
        samples = sample_stationary(covariance(np.arange(float(n))), n_samples=count, rng=0)[..., None]
    else:
        with patch.object(sm.sampling, "_LARGEST_PADDING", 1):
            samples = sample_stationary(covariance, n, count, n_variables=2, rng=0)
    assert samples.shape == (count, n, n_variables or 1)
    for lag in (0, 40, 150):
        got = np.einsum("sta,stb->ab", samples[:, lag:], samples[:, : n - lag]) / count / (n - lag)
        np.testing.assert_allclose(got, np.reshape(covariance(np.array([float(lag)])), got.shape), atol=0.1)


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


@in_one_test(
    "arguments, error, message",
    [
        ((np.exp,), ArgumentValueError, "shape must be given for a covariance that is a function"),
        ((np.ones(3), 4), ArgumentValueError, r"covariance must have the shape of the grid, \(4,\), got \(3,\)"),
        ((np.ones(3) * 1j,), ArgumentTypeError, "covariance must be real"),
        ((np.array([1.0, np.nan]),), ArgumentValueError, "covariance must be finite"),
        ((lambda t: 1.0, 4), ArgumentValueError, r"covariance must return an array of shape \(4,\)"),
        ((np.ones((4, 2, 2)), 4, 1, 2), ArgumentTypeError, "covariance must be a function of signed lags"),
        ((lambda h: h, 4, 1, 2), ArgumentValueError, r"covariance must return an array of shape \(7, 2, 2\)"),
        ((lambda h: h[:, None, None] + np.eye(2), 4, 1, 2), ArgumentValueError, r"covariance .*, but differs by 6"),
        ((lambda h: np.ones((h.size, 2, 2)) - np.eye(2), 4, 1, 2), ArgumentValueError, r"covariance .* got -\d"),
        ((np.ones(3), 3, 0), ArgumentValueError, "n_samples must be at least 1, got 0"),
        ((np.ones(3), 2.5), ArgumentTypeError, "shape must be an integer"),
    ],
)
def test_bad_arguments(arguments, error, message):
    *arguments, n_variables = arguments if len(arguments) == 4 else (*arguments, None)
    with pytest.raises(error, match="sample_stationary: " + message):
        sample_stationary(*arguments, n_variables=n_variables)


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


def moving_averages(weights, shape):
    """What averages of white noise are made of, and their covariance; weights (variables, sources, *window)."""
    p, sources, *window = weights.shape
    rows = np.zeros((*shape, p, sources, *np.add(shape, window)))
    for t in np.ndindex(*shape):
        within = (slice(i, i + k) for i, k in zip(t, window, strict=True))
        rows[(*t, ..., *within)] = np.flip(weights, axis=tuple(range(2, weights.ndim)))
    blocks = np.array([[sum(map(correlate, a, b)) for b in weights] for a in weights])

    def covariance(*lags):
        inside = np.all([abs(h) < k for h, k in zip(np.broadcast_arrays(*lags), window, strict=True)], axis=0)
        at = (np.where(inside, h + k - 1, 0).astype(int) for h, k in zip(lags, window, strict=True))
        return np.moveaxis(np.where(inside, blocks[(..., *at)], 0.0), (0, 1), (-2, -1))

    return rows.reshape(int(np.prod(shape)) * p, -1), covariance


@pytest.mark.parametrize(
    ("weights", "shape"), [((2, 2, 3), (6,)), ((3, 3, 5), (5,)), ((2, 1, 2, 3), (3, 4)), ((1, 1, 2, 2), (1, 3))]
)
def test_several_variables_have_their_covariance_exactly(weights, shape):
    """Also where they are made of one source of noise, and one variable whose covariance is not even on each axis."""
    p, sources, *window = weights
    weights = np.random.default_rng(0).standard_normal(weights)
    weights[(range(sources), range(sources), *(0 for _ in window))] += 9.0  # so that the smallest embedding serves
    rows, covariance = moving_averages(weights, shape)
    embedding = int(np.prod([2 * fast_length(n) if n > 1 else 1 for n in shape]))
    got = covariance_of_samples(covariance, embedding, shape, p)
    np.testing.assert_allclose(got, rows @ rows.T, atol=1e-11)


def test_a_variable_follows_another():
    weights = np.zeros((2, 1, 6))
    weights[0, 0, :3] = weights[1, 0, 3:] = [3.0, 2.0, 1.0]
    samples = sample_stationary(moving_averages(weights, (20,))[1], 20, 5, n_variables=2, rng=0)
    assert samples.shape == (5, 20, 2)
    np.testing.assert_allclose(samples[:, 3:, 1], samples[:, :-3, 0], atol=1e-6)
    assert np.abs(samples[:, 3:, 0] - samples[:, :-3, 1]).max() > 1.0


@pytest.mark.parametrize("wave", [True, False])
def test_samples_of_two_variables(backend, wave, monkeypatch):
    """White singular values are within sqrt(n) -+ (sqrt(d) + t), but for a chance of 2 exp(-t^2 / 2) < 1e-6.

    A wave has no embedding of any size.
    """
    monkeypatch.setattr(sm.sampling, "_LARGEST_PADDING", 1 if wave else 16)
    n_samples, n = 6_000, 8
    c = (lambda h: np.cos(0.7 * h)) if wave else (lambda h: np.exp(-np.abs(h) / 5))

    def covariance(h):
        blocks = np.array([[c(h), 0.8 * c(h + 2)], [0.8 * c(h - 2), c(h)]]) + 0.3 * np.eye(2)[..., None] * (h == 0.0)
        return np.moveaxis(blocks, -1, 0)

    samples = sample_stationary(lambda h: backend.asarray(covariance(h)), n, n_samples, n_variables=2, rng=0)
    blocks = [[covariance(np.array([float(s - t)]))[0] for t in range(n)] for s in range(n)]
    white = np.linalg.solve(np.linalg.cholesky(np.block(blocks)), backend.to_numpy(samples).reshape(n_samples, -1).T)
    assert np.abs(np.linalg.svd(white, compute_uv=False) - n_samples**0.5).max() <= (2 * n) ** 0.5 + 5.4


@pytest.mark.parametrize(("shape", "noisy"), [((40,), True), ((5, 8), False)])
def test_conditional_samples(backend, shape, noisy):
    """Their mean and covariance are those of the normal distribution given some of its variables."""
    covariance = lambda *t: np.exp(-sum(t) / 6)
    rng = np.random.default_rng(1)
    values = covariance(*np.meshgrid(*(np.arange(float(n)) for n in shape), indexing="ij"))
    points = rng.permutation(40)[:15]
    y, noise = rng.standard_normal(15), rng.uniform(0.1, 1.0, 15) if noisy else np.zeros(15)
    K = matrix_of(covariance, shape)
    gain = np.linalg.solve(K[np.ix_(points, points)] + np.diag(noise), K[points]).T
    pairs = 2 * int(np.prod([2 * (n - 1) for n in shape])) + 15
    args = (backend.asarray(values), shape, points, backend.asarray(y))
    noise = backend.asarray(noise) if noisy else 0.0
    samples = sample_conditional(*args, noise=noise, n_samples=2 * pairs, rng=UnitNoise())
    rows = backend.to_numpy(samples).reshape(2 * pairs, -1)[:pairs] - gain @ y
    np.testing.assert_allclose(rows.T @ rows, K - gain @ K[points], atol=1e-8)
    np.testing.assert_allclose(backend.to_numpy(conditional_mean(*args, noise=noise)).ravel(), gain @ y, atol=1e-8)
    if not noisy:
        mask = np.zeros(shape, bool)
        mask.flat[points] = True
        args = (lambda *t: backend.asarray(covariance(*t)), shape, mask, backend.asarray(y[np.argsort(points)]))
        (through,) = backend.to_numpy(sample_conditional(*args, rng=0))
        np.testing.assert_allclose(through.flat[points], y, atol=1e-8)
        assert np.abs(through.ravel() - gain @ y).max() > 0.5


def test_a_nearly_singular_covariance_needs_noise():
    args = (lambda t: np.exp(-((t / 30) ** 2)), 60, np.arange(60), np.random.default_rng(0).standard_normal(60))
    with pytest.raises(sm.ConvergenceError):
        sample_conditional(*args)
    assert np.isfinite(sample_conditional(*args, noise=1e-2)).all()


def test_a_smooth_field_with_the_noise_that_is_advised_is_sampled():
    """Its mean is that of a dense system, and samples differ from observations by no more than noise does."""
    rng = np.random.default_rng(0)
    points = np.sort(rng.choice(1600, 150, replace=False))
    s, t = np.unravel_index(np.arange(1600), (40, 40))
    K = np.exp(-((s[:, None] - s) ** 2 + (t[:, None] - t) ** 2) / 32.0)
    observed = K[np.ix_(points, points)] + 1e-6 * np.eye(150)
    y = np.linalg.cholesky(observed) @ rng.standard_normal(150)
    args = (lambda s, t: np.exp(-(s**2 + t**2) / 32.0), (40, 40), points, y)
    found = conditional_mean(*args, noise=1e-6)
    np.testing.assert_allclose(found.ravel(), K[:, points] @ np.linalg.solve(observed, y), atol=1e-6)
    (sample,) = sample_conditional(*args, noise=1e-6, rng=0)
    assert np.max(np.abs(sample.ravel()[points] - y)) < 1e-2


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"observed": [True, False]}, ArgumentTypeError, r"observed must be a mask of shape \(4,\) or flat indices"),
        (
            {"observed": [0, 4]},
            ArgumentValueError,
            "observed must name each point at most once, by indices from 0 to 3",
        ),
        ({"observed": [1, 1]}, ArgumentValueError, "observed must name each point at most once"),
        ({"values": [1.0]}, ArgumentValueError, r"values must have shape \(2,\), one for each observed point"),
        ({"noise": [1.0, -1.0]}, ArgumentValueError, r"noise must .* one for each observed point, of shape \(2,\)"),
        ({"covariance": lambda t: np.ones((4, 2, 2))}, ArgumentValueError, r"must return an array of shape \(4,\)"),
    ],
)
def test_bad_observations(changes, error, message):
    arguments = {"covariance": 0.5 ** np.arange(4.0), "shape": 4, "observed": [0, 2], "values": [1.0, 2.0]}
    for function in (sample_conditional, conditional_mean):
        with pytest.raises(error, match=f"{function.__name__}: .*{message}"):
            function(**arguments | changes)
