"""README's likelihood of a series with gaps under the transforms of torch and JAX: exact, or one clear error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import structmat as sm
from tests import backends

N = 1300
"""More points than those up to which the matrix is written out."""

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


VALUES, DERIVATIVES = by_dense_algebra()


def assert_are(found: Any, expected: Any, backend: backends.Backend) -> None:
    np.testing.assert_allclose(backend.to_numpy(found), expected, rtol=1e-8)


@backends.on("torch")
def test_torch_func_has_the_exact_value_and_gradient(backend: backends.Backend) -> None:
    import torch

    lengths = backend.asarray(LENGTHS)
    gradient, value = torch.func.grad_and_value(likelihood)(lengths[0], backend)
    assert_are(value, VALUES[0], backend)
    assert_are(gradient, DERIVATIVES[0], backend)
    assert_are(torch.func.grad(likelihood)(lengths[0], backend), DERIVATIVES[0], backend)
    assert_are(torch.func.jacrev(likelihood)(lengths[1], backend), DERIVATIVES[1], backend)


@backends.on("torch")
def test_torch_maps_value_and_gradient(backend: backends.Backend) -> None:
    import torch

    lengths = backend.asarray(LENGTHS)
    in_turn = {"in_dims": (0, None)}
    assert_are(torch.vmap(likelihood, **in_turn)(lengths, backend), VALUES, backend)
    gradients, values = torch.vmap(torch.func.grad_and_value(likelihood), **in_turn)(lengths, backend)
    assert_are(values, VALUES, backend)
    assert_are(gradients, DERIVATIVES, backend)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute", "ignore:.*lru_cache")  # of the compiler itself, on each break
@backends.on("torch")
def test_torch_compiles_around_it(backend: backends.Backend) -> None:
    import torch

    from structmat._torch_rules import _WHY

    length = backend.asarray(LENGTHS)[0].requires_grad_()
    value = torch.compile(likelihood, backend="aot_eager")(length, backend)
    assert_are(value.detach(), VALUES[0], backend)
    assert_are(torch.autograd.grad(value, length)[0], DERIVATIVES[0], backend)
    if _WHY:  # older versions say no reason
        with pytest.raises(torch._dynamo.exc.Unsupported, match="compile without fullgraph=True"):
            torch.compile(lambda k: sm.slogdet(sm.Toeplitz(k)), backend="aot_eager", fullgraph=True)(length[None])


@pytest.mark.slow
@backends.on("jax")
def test_jax_has_the_exact_value_and_gradient(backend: backends.Backend) -> None:
    import jax

    lengths = backend.asarray(LENGTHS)
    mapped = jax.jit(jax.vmap(jax.value_and_grad(likelihood), (0, None)), static_argnums=1)
    values, gradients = mapped(lengths, backend)
    assert_are(values, VALUES, backend)
    assert_are(gradients, DERIVATIVES, backend)
    values, gradients = jax.vmap(jax.value_and_grad(log_determinant), (0, None))(lengths, backend)  # without the others
    value, gradient = jax.jit(jax.value_and_grad(log_determinant), static_argnums=1)(lengths[1], backend)
    for found in (value, jax.jit(log_determinant, static_argnums=1)(lengths[1], backend)):
        assert_are(found, values[1], backend)
    for found in (gradient, jax.grad(log_determinant)(lengths[1], backend)):
        assert_are(found, gradients[1], backend)
