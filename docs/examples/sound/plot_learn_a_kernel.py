"""
Which filter made these outputs? Learning in JAX
================================================

Inputs and noisy outputs of an unknown filter are given, and gradient descent finds the filter. For JAX an operator is a
pytree: it can be an argument of ``jit`` and ``grad``, and the gradient with respect to an operator is an operator of
the same kind.
"""

# %%
# Inputs and outputs
# ------------------
# The true kernel is an exponential that is higher on one side. It blurs forty random signals, and noise is added.

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import structmat as sm
import structmat.jax

n = 128
rng = np.random.default_rng(0)
lag = (np.arange(n) + n // 2) % n - n // 2
kernel = np.where(abs(lag) < 12, np.exp(-abs(lag) / 4.0) * (1 + 0.8 * np.sign(lag)), 0.0)
truth = sm.Circulant(jnp.asarray(kernel, dtype=jnp.float32))
signals = jnp.asarray(rng.standard_normal((40, n)), dtype=jnp.float32)
images = truth.matvec(signals) + 0.3 * jnp.asarray(rng.standard_normal((40, n)), dtype=jnp.float32)

# %%
# Gradient descent
# ----------------
# The loss takes an operator. ``jax.grad`` returns a circulant whose vector is the gradient, and ``jax.tree.map`` makes
# the step.


def loss(operator):
    return jnp.mean((operator.matvec(signals) - images) ** 2)


@jax.jit
def step(operator):
    value, gradient = jax.value_and_grad(loss)(operator)
    return jax.tree.map(lambda c, g: c - 0.1 * g, operator, gradient), value


operator, losses, snapshots = sm.Circulant(jnp.zeros(n, dtype=jnp.float32)), [], {}
for count in range(101):
    if count in {1, 5, 100}:
        snapshots[count] = np.asarray(operator.c)
    operator, value = step(operator)
    losses.append(float(value))
print(f"loss {losses[0]:.2f} at first, {losses[-1]:.3f} at the end; the variance of the noise is 0.09")

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", width_ratios=(1, 1.4))
left.semilogy(losses, color="#0072B2", linewidth=2)
left.axhline(0.09, color="0.5", linestyle=":")
left.text(100, 0.095, "variance of the noise", ha="right", va="bottom", color="0.4")
left.set(xlabel="step", ylabel="mean squared error")
order = np.argsort(lag)
right.plot(lag[order], kernel[order], color="black", linewidth=3, label="truth")
for (count, values), colour in zip(snapshots.items(), ("#fdbe85", "#fd8d3c", "#d94701"), strict=True):
    right.plot(lag[order], values[order], color=colour, linewidth=1.6, label=f"after {count} step{'s' * (count > 1)}")
right.set(xlabel="lag", ylabel="entry of the kernel", xlim=(-25, 25))
right.legend(frameon=False)
plt.show()
