"""Series of several channels, with gaps and uneven noise: by direct factors of block Toeplitz matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import structmat as sm
from structmat._toeplitz_systems import thresholds
from structmat._toeplitz_systems.superfast import SuperfastFactor
from structmat._toeplitz_systems.superfast.band import Band, BandFactor
from structmat._toeplitz_systems.superfast.factor import Factor
from structmat._toeplitz_systems.superfast.matrix import NoisyToeplitz
from tests import backends
from tests.linear_systems.test_series import COVARIANCES, NOISE, assert_is_measured, assert_is_solution

DECAYS: dict[str, list[Any]] = {
    "long": [lambda k: (1 + k / 10) * np.exp(-k / 10), lambda k: np.exp(-k / 200) * np.cos(k / 20)],
    "compact": [lambda k: np.maximum(1 - k / 20, 0.0), lambda k: np.maximum(1 - k / 9, 0.0)],
}
"""The covariances of two latent series, of which each channel is a sum with other factors."""

KINDS = {"long": Factor, "compact": BandFactor}
"""What factors such series by these methods."""

METHODS = {"long": sm.Superfast(rank=60), "compact": sm.Superfast()}


def channels(decay: str, times: int, p: int, *, turned: bool = False) -> tuple[Any, Any, Any]:
    """Return the first block column of covariances, uneven noise, and the mask of the rows that are there.

    The first latent series is one step ahead in the channels from the second on, so that blocks are not symmetric.
    """
    rng = np.random.default_rng(p)
    k = np.arange(-1.0, times + 1)
    lags = np.arange(times)
    blocks: Any = 0.0
    for g, shift in zip(DECAYS[decay], (1, 0), strict=True):
        a = rng.standard_normal(p) + 1j * turned * rng.standard_normal(p)
        ahead = shift * (np.arange(p) > 0)
        values = g(np.abs(k))[lags[:, None, None] + 1 + ahead[:, None] - ahead]
        turn = np.exp(0.3j * (lags[:, None, None] + ahead[:, None] - ahead)) if turned else 1.0
        blocks = blocks + values * turn * np.outer(a, a.conj())
    return blocks if turned else blocks.real, rng.uniform(0.01, 0.1, times * p), rng.random(times * p) > 0.1


def operator(c: Any, noise: Any, there: Any) -> sm.LinearOperator:
    return (sm.BlockToeplitz(c) + sm.Diagonal(noise))[there][:, there]


def factor(c: Any, noise: Any, there: Any, method: sm.Superfast) -> Any:
    return SuperfastFactor(np.reshape(c, -1), noise, there, np, rank=method.rank).factor


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("decay", DECAYS)
def test_values_and_solutions_are_those_of_lapack(decay: str, turned: bool) -> None:
    """With several nodes and a tail; without gaps, and where single channels and all channels at once are missing."""
    for p in (2, 3, 4):
        c, noise, there = channels(decay, 90, p, turned=turned)
        assert isinstance(factor(c, noise, there, METHODS[decay]), KINDS[decay])
        there[10 * p : 30 * p] = False
        there[40 * p :: p] = False
        b = np.random.default_rng(0).standard_normal(len(noise)) * (1 + 2j if turned else 1)
        for seen in (there, np.ones_like(there)):
            A = operator(c, noise, seen)
            K = A.to_dense()
            found = sm.slogdet(A, method=METHODS[decay])
            exact = 2 * np.sum(np.log(np.diag(np.linalg.cholesky(K)).real))
            assert abs(found.logabsdet - exact) <= 1e-13 * (len(K) + abs(exact))
            x = sm.solve(A, b[seen], method=METHODS[decay]).x
            assert np.linalg.norm(K @ x - b[seen]) <= 1e-12 * np.linalg.norm(b)


def test_a_real_band_is_inverted_on_both_parts_of_complex_vectors() -> None:
    found = factor(*channels("compact", 90, 2), METHODS["compact"])
    x = np.random.default_rng(0).standard_normal((2, 180))
    in_parts = found._matvec(x, np)
    np.testing.assert_allclose(found._matvec(x[0] + 1j * x[1], np), in_parts[0] + 1j * in_parts[1], rtol=1e-12)


def test_a_band_leaves_out_of_a_row_what_sums_to_the_tolerance_at_most() -> None:
    c = 0.9 ** np.arange(400.0)
    for tolerance in (1e-3, 1e-8):
        band = Band.of(NoisyToeplitz(c, np.ones(400), np.ones(400)), tolerance)
        assert np.sum(c[band.lag + 1 :]) <= tolerance < np.sum(c[band.lag :])
        assert band.tolerance == tolerance


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("decay", DECAYS)
def test_sums_along_the_block_diagonals_of_the_inverse(decay: str, turned: bool, monkeypatch: Any) -> None:
    """By products of matrices for small nodes, and by correlations for large ones."""
    monkeypatch.setattr(thresholds, "SUMS_BY_PRODUCTS", 80)
    for p, times in [(2, 21), (2, 137), (3, 130), (4, 60)]:
        c, noise, there = channels(decay, times, p, turned=turned)
        sums, diagonal = factor(c, noise, there, METHODS[decay]).inverse_sums(there.astype(float), np)
        Z = np.zeros((len(noise), len(noise)), c.dtype)
        Z[np.ix_(there, there)] = np.linalg.inv(operator(c, noise, there).to_dense())
        blocks = np.reshape(Z, (times, p, times, p))
        lags = [*range(5), times // 2, times - 1]
        exact = [np.sum(blocks[range(times - k), :, range(k, times), :], axis=0).T for k in lags]
        np.testing.assert_allclose(np.reshape(sums, c.shape)[lags], exact, rtol=0, atol=1e-12 * np.sum(np.abs(Z)))
        np.testing.assert_allclose(diagonal, np.diag(Z).real, rtol=0, atol=1e-12 * np.max(np.abs(Z)))


def test_noise_that_is_even_in_time_takes_one_node_a_level() -> None:
    """Each channel may have its own; where that of one is uneven nodes are not equal."""
    c, _, there = channels("long", 150, 3)
    noise = np.tile([0.1, 0.2, 0.3], 150)
    for is_even in (True, False):
        noise[-2] += 0.0 if is_even else 1.0
        found = factor(c, noise, None, METHODS["long"])
        assert isinstance(found, Factor)
        assert (found.leaves[0].N.strides[0] == 0) == is_even
        exact = np.linalg.slogdet(operator(c, noise, np.ones_like(there)).to_dense())[1]
        assert abs(found.logdet - exact) <= 1e-13 * (len(noise) + abs(exact))


def test_long_series_are_not_estimated() -> None:
    """Without a method, from 1,024 rows on; and the factor of a prepared operator serves both."""
    for decay in DECAYS:
        c, noise, there = channels(decay, 600, 2)
        A = operator(c, noise, there)
        P = A.prepare()
        found = sm.slogdet(P)
        exact = np.linalg.slogdet(A.to_dense())[1]
        assert 0 < found.standard_error <= 1e-12 * (len(noise) + abs(exact))  # of rounding alone
        assert abs(found.logabsdet - exact) <= 1e-12 * (len(noise) + abs(exact))
        b = np.ones(A.shape[0])
        solution = sm.solve(P, b)
        assert solution.iterations == 0
        assert np.linalg.norm(A @ solution.x - b) <= 1e-10 * np.linalg.norm(b)


@pytest.mark.filterwarnings("ignore:solve. a relative residual:scipy.linalg.LinAlgWarning")  # with noise of 1e-8
@pytest.mark.parametrize("name", COVARIANCES)
def test_channels_of_any_two_covariances(name: str) -> None:
    """Of two latent series, with channels and noise in turns."""
    names = list(COVARIANCES)
    place = names.index(name)
    p, size = 2 + place % 3, NOISE[place // 3 % 3]
    rng = np.random.default_rng(place)
    k = np.arange(800.0 // p)
    c = sum(
        COVARIANCES[each](k)[:, None, None] * np.outer(factors, factors)
        for each, factors in zip((name, names[place - 5]), rng.standard_normal((2, p)), strict=True)
    )
    there = rng.random(len(k) * p) > 0.1
    A = operator(c, rng.uniform(size, 10 * size, len(there)), there)
    K, b = A.to_dense(), rng.standard_normal(A.shape[0])
    assert_is_measured(sm.slogdet(A, method=sm.Superfast()), K, size)
    assert_is_solution(sm.solve(A, b, method=sm.Superfast()).x, K, b, size)


def test_what_is_no_series_is_refused() -> None:
    c, noise, there = channels("long", 12, 2)
    by_three = sm.BlockToeplitz(channels("long", 8, 3)[0])
    with pytest.raises(TypeError, match=r"must be a \(block\) Toeplitz matrix plus a diagonal"):
        sm.slogdet(sm.BlockToeplitz(c) + by_three + sm.Diagonal(noise), method=sm.Superfast())
    c[0, 0, 1] += 1.0
    with pytest.raises(ValueError, match="Hermitian"):
        sm.slogdet(operator(c, noise, there), method=sm.Superfast())
    with pytest.raises(np.linalg.LinAlgError, match="positive definite"):
        sm.slogdet(operator(-by_three.c, np.ones(24), np.ones(24, bool)), method=sm.Superfast())


def likelihood(xp: Any, c: Any, noise: Any, b: Any, there: Any, method: sm.Superfast | None) -> Any:
    """Return that of a series by the factor, or by the dense matrix."""
    A = operator(c, noise, there)
    if method is None:
        K = A.to_dense()
        return xp.linalg.slogdet(K)[1] + xp.real(xp.sum(b * xp.linalg.solve(K, b[:, None])[:, 0]))
    return sm.slogdet(A, method=method).logabsdet + xp.real(xp.sum(b * sm.solve(A, b, method=method).x))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("decay", DECAYS)
def test_gradients_in_torch(decay: str, turned: bool) -> None:
    """By each entry of the blocks and the noise; under a transform too, where values are hidden."""
    torch = pytest.importorskip("torch")
    c, noise, there = channels(decay, 50, 2, turned=turned)
    b = torch.ones(np.count_nonzero(there), dtype=torch.tensor(c).dtype)
    found = []
    for method in (METHODS[decay], None):
        given = [torch.tensor(v, requires_grad=True) for v in (c, noise)]
        value = likelihood(torch, *given, b, there, method)
        value.backward()
        found.append([value.detach(), *(v.grad for v in given)])
    for ours, dense in zip(*found, strict=True):
        torch.testing.assert_close(ours, dense, rtol=1e-9, atol=1e-11 * float(dense.abs().max()))

    def log(c: Any, noise: Any) -> Any:
        return sm.slogdet(operator(c, noise, there)).logabsdet

    transformed = torch.func.grad(log, argnums=(0, 1))(*(v.detach() for v in given))
    expected = torch.autograd.grad(operator(*given, there).to_dense().slogdet()[1], given)
    for ours, dense in zip(transformed, expected, strict=True):
        torch.testing.assert_close(ours, dense, rtol=1e-9, atol=1e-11 * float(dense.abs().max()))


@backends.on("jax")
def test_gradients_in_a_trace_of_jax(backend: backends.Backend) -> None:
    import jax

    c, noise, there = channels("long", 40, 2)
    given = [backend.asarray(v) for v in (c, noise, np.ones(np.count_nonzero(there)))]
    found = []
    for method in (METHODS["long"], None):
        value = jax.value_and_grad(lambda *v, m=method: likelihood(jax.numpy, *v, there, m), (0, 1, 2))
        found.append(jax.tree.leaves(jax.jit(value)(*given)))
    for ours, dense in zip(*found, strict=True):
        np.testing.assert_allclose(ours, dense, rtol=1e-9, atol=1e-11 * float(abs(dense).max()))
