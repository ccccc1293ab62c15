"""README's likelihood of a series with gaps under the transforms of torch and JAX: exact, or one clear error."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

import structmat as sm
from tests import backends

N = 1300
"""More points than those up to which the matrix is written out before a direct factor is tried."""

LAGS = np.arange(float(N))
RNG = np.random.default_rng(0)
NOISE = RNG.uniform(0.1, 0.2, N)
SEEN = RNG.random(N) < 0.9
Y = RNG.standard_normal(int(SEEN.sum()))
LENGTHS = np.array([10.0, 20.0])


def log_determinant(length: Any, backend: backends.Backend) -> Any:
    lags, noise = map(backend.asarray, (LAGS, NOISE))
    k = backend.xp.exp(-0.5 * (lags / length) ** 2)
    return sm.slogdet((sm.Toeplitz(k) + sm.Diagonal(noise))[SEEN][:, SEEN]).logabsdet


def likelihood(length: Any, backend: backends.Backend) -> Any:
    """Return the logarithm of the likelihood."""
    lags, noise, y = map(backend.asarray, (LAGS, NOISE, Y))
    k = backend.xp.exp(-0.5 * (lags / length) ** 2)
    K = (sm.Toeplitz(k) + sm.Diagonal(noise))[SEEN][:, SEEN].prepare()
    return -0.5 * (y @ sm.solve(K, y).x + sm.slogdet(K).logabsdet)


@cache
def by_dense_algebra() -> tuple[Any, Any]:
    """Return the values and the derivatives of the likelihood for both lengths."""
    values, derivatives = [], []
    lags = np.abs(np.subtract.outer(LAGS, LAGS))[np.ix_(SEEN, SEEN)]
    for length in LENGTHS:
        k = np.exp(-0.5 * (lags / length) ** 2)
        K = k + np.diag(NOISE[SEEN])
        inverse = np.linalg.inv(K)
        x = inverse @ Y
        change = k * lags**2 / length**3
        values.append(-0.5 * (Y @ x + np.linalg.slogdet(K).logabsdet))
        derivatives.append(-0.5 * (np.sum(inverse * change) - x @ change @ x))
    return np.array(values), np.array(derivatives)


def assert_are(found: Any, expected: Any, backend: backends.Backend) -> None:
    np.testing.assert_allclose(backend.to_numpy(found), expected, rtol=1e-8)


@backends.on("torch")
def test_torch_func_has_the_exact_value_and_gradient(backend: backends.Backend) -> None:
    import torch

    lengths = backend.asarray(LENGTHS)
    gradient, value = torch.func.grad_and_value(likelihood)(lengths[0], backend)
    assert_are(value, by_dense_algebra()[0][0], backend)
    assert_are(gradient, by_dense_algebra()[1][0], backend)
    assert_are(torch.func.grad(likelihood)(lengths[0], backend), by_dense_algebra()[1][0], backend)
    assert_are(torch.func.jacrev(likelihood)(lengths[1], backend), by_dense_algebra()[1][1], backend)


@backends.on("torch")
def test_torch_maps_value_and_gradient(backend: backends.Backend) -> None:
    import torch

    lengths = backend.asarray(LENGTHS)
    in_turn = {"in_dims": (0, None)}
    assert_are(torch.vmap(likelihood, **in_turn)(lengths, backend), by_dense_algebra()[0], backend)
    gradients, values = torch.vmap(torch.func.grad_and_value(likelihood), **in_turn)(lengths, backend)
    assert_are(values, by_dense_algebra()[0], backend)
    assert_are(gradients, by_dense_algebra()[1], backend)


SERIES = {
    "written out": (40, np.array([0])),
    "factor": (1100, np.array([0])),
    "factor, gaps": (1300, np.arange(0, 1300, 9)),
}


@backends.on("torch")
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of torch, which maps no conjugate
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("kind", SERIES)
def test_torch_maps_each_part_of_a_series(backend: backends.Backend, kind: str, turned: bool) -> None:
    """By the first column, the noise, or both, with derivatives, also along two axes; as one by one without it."""
    import torch

    n, missing = SERIES[kind]
    kept = np.setdiff1d(np.arange(n), missing)
    c = backend.asarray(np.exp(-LAGS[:n] / 10 + 0.3j * turned * LAGS[:n]) if turned else np.exp(-LAGS[:n] / 10))
    noise = backend.asarray(NOISE[:n])

    def log(c: Any, noise: Any) -> Any:
        return sm.slogdet((sm.Toeplitz(c) + sm.Diagonal(noise))[kept][:, kept]).logabsdet

    cs, noises = torch.stack([c, 2 * c]), torch.stack([noise, 3 * noise])
    for dims in ((0, 0), (0, None), (None, 0)):
        mapped = torch.vmap(log, dims)(*(v if d == 0 else v[0] for v, d in zip((cs, noises), dims, strict=True)))
        each = [log(*(v[k if d == 0 else 0] for v, d in zip((cs, noises), dims, strict=True))) for k in range(2)]
        torch.testing.assert_close(mapped, torch.stack(each), rtol=1e-11, atol=0)
    both = torch.vmap(torch.vmap(log, (None, 0)), (0, None))(cs, noises)
    torch.testing.assert_close(both[1, 0], log(cs[1], noises[0]), rtol=1e-11, atol=0)
    given = [v.clone().requires_grad_() for v in (cs[1], noises[1])]
    expected = torch.autograd.grad(log(*given), given)
    found = torch.vmap(torch.func.grad(log, (0, 1)))(cs, noises)
    for ours, other in zip(found, expected, strict=True):
        torch.testing.assert_close(ours[1], other, rtol=1e-8, atol=1e-9 * float(other.abs().max()))


@backends.on("torch")
def test_torch_says_what_has_no_exact_value_under_a_transform(backend: backends.Backend) -> None:
    import torch

    many = backend.asarray(np.full(2100, 0.1))  # points, too many to be written out
    grid = sm.MultilevelToeplitz.from_covariance(
        backend.asarray(np.exp(-np.hypot(*np.meshgrid(np.arange(50.0), np.arange(42.0)))))
    )
    with pytest.raises(ValueError, match=r"is estimated, for which torch.vmap hides the values: give a stack"):
        torch.vmap(lambda d: sm.slogdet(grid + sm.Diagonal(d)).logabsdet)(many[None])
    rough = np.random.default_rng(0).standard_normal(4200)
    rough[0] = 1e3  # no block has low rank, and a band would take as long as a dense matrix
    noise = backend.asarray(np.full(4200, 0.1))
    with pytest.raises(ValueError, match=r"has no direct factor, .* give n_probes for an estimate"):
        torch.func.grad(lambda d: sm.slogdet(sm.Toeplitz(backend.asarray(rough)) + sm.Diagonal(d)).logabsdet)(noise)
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        torch.vmap(lambda d: sm.slogdet(sm.Toeplitz(0.9 ** backend.asarray(LAGS)) - sm.Diagonal(d)).logabsdet)(
            backend.asarray(NOISE)[None] + 1
        )


@pytest.mark.filterwarnings("ignore:The .grad attribute", "ignore:.*lru_cache")  # of the compiler itself, on each break
@backends.on("torch")
def test_torch_compiles_around_it(backend: backends.Backend) -> None:
    import torch

    from structmat._torch_rules import _WHY

    length = backend.asarray(LENGTHS)[0].requires_grad_()
    value = torch.compile(likelihood, backend="aot_eager")(length, backend)
    assert_are(value.detach(), by_dense_algebra()[0][0], backend)
    assert_are(torch.autograd.grad(value, length)[0], by_dense_algebra()[1][0], backend)
    if _WHY:  # older versions say no reason
        with pytest.raises(torch._dynamo.exc.Unsupported, match="compile without fullgraph=True"):
            torch.compile(lambda k: sm.slogdet(sm.Toeplitz(k)), backend="aot_eager", fullgraph=True)(length[None])


@backends.on("jax")
def test_jax_has_the_exact_value_and_gradient(backend: backends.Backend) -> None:
    import jax

    lengths = backend.asarray(LENGTHS)
    mapped = jax.jit(jax.vmap(jax.value_and_grad(likelihood), (0, None)), static_argnums=1)
    values, gradients = mapped(lengths, backend)
    assert_are(values, by_dense_algebra()[0], backend)
    assert_are(gradients, by_dense_algebra()[1], backend)
    values, gradients = jax.vmap(jax.value_and_grad(log_determinant), (0, None))(lengths, backend)  # without the others
    value, gradient = jax.jit(jax.value_and_grad(log_determinant), static_argnums=1)(lengths[1], backend)
    for found in (value, jax.jit(log_determinant, static_argnums=1)(lengths[1], backend)):
        assert_are(found, values[1], backend)
    for found in (gradient, jax.grad(log_determinant)(lengths[1], backend)):
        assert_are(found, gradients[1], backend)
