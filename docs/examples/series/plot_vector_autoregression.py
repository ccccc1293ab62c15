"""
Which series drives which?
==========================

Of several series measured together one often follows another some steps later, and a vector autoregression tells which,
and how many steps. Its coefficients solve the multichannel equations of Yule and Walker. Their matrix holds the
covariances at all pairs of lags, so it is block Toeplitz.
"""

# %%
# Three series
# ------------
# The second one follows the first four steps later, and the third one the second.

import matplotlib.pyplot as plt
import numpy as np

import structmat as sm

rng = np.random.default_rng(3)
n, p, order = 20_000, 3, 6
true = np.zeros((order, p, p))
true[0] = np.diag([0.6, 0.5, 0.4])
true[1] = np.diag([-0.5, 0.0, -0.3])
true[3, 1, 0] = 0.5
true[3, 2, 1] = 0.4
x = np.zeros((n, p))
shocks = rng.standard_normal((n, p))
for t in range(order, n):
    x[t] = shocks[t] + sum(true[k] @ x[t - 1 - k] for k in range(order))

# %%
# Covariances and coefficients
# ----------------------------
# Transforms give the covariances at all lags at once. The blocks of the matrix are their transposes. For eight series
# of 50,000 steps and the order 64 that took 0.17 s of the processor (2026-11-30, ``python
# benchmarks/block_toeplitz.py``). Least squares, by which statsmodels estimates, is another estimator.

longest = 40
X = np.fft.rfft(x, 2 * n, axis=0)
lags = np.fft.irfft(X[:, :, None] * X[:, None].conj(), axis=0)[: longest + 1] / n


def yule_walker(k):
    """The coefficients of order k, shape (k, p, p), and the covariance of what they leave."""
    T = sm.BlockToeplitz(lags[:k].swapaxes(1, 2))
    coefficients = T.solve(lags[1 : k + 1].swapaxes(1, 2).reshape(k * p, p)).reshape(k, p, p).swapaxes(1, 2)
    return coefficients, lags[0] - np.einsum("kij,klj->il", coefficients, lags[1 : k + 1])


# %%
# The order
# ---------
# Akaike's criterion weighs the determinant of what is left against the number of coefficients.

orders = np.arange(1, 16)
criteria = [n * np.linalg.slogdet(yule_walker(k)[1])[1] + 2 * k * p**2 for k in orders]
best = int(orders[np.argmin(criteria)])
found, left = yule_walker(best)
print(f"order {best}; largest error of a coefficient: {np.abs(found - true[:best]).max():.3f}")

figure, axes = plt.subplots(p, p, figsize=(9, 6.5), sharex=True, sharey=True, layout="constrained")
for to in range(p):
    for of in range(p):
        ax = axes[to, of]
        ax.stem(np.arange(1, best + 1), found[:, to, of], basefmt="0.8", label="found")
        ax.plot(np.arange(1, order + 1), true[:, to, of], "x", color="black", label="true")
        ax.set_title(f"series {of + 1} on {to + 1}")
axes[0, 0].legend(frameon=False)
figure.supxlabel("steps back")
plt.show()

# %%
# The likelihood
# --------------
# The exact likelihood of a whole series needs the determinant and one solution with the covariance of all its values,
# here 3,000 numbers by 3,000.

part = x[:1000] - x[:1000].mean(axis=0)
covariances = np.zeros((1000, p, p))
covariances[: longest + 1] = lags * np.linspace(1, 0, longest + 1)[:, None, None]  # tapered, to be definite
T = sm.BlockToeplitz(covariances)
value = part.ravel() @ T.solve(part.ravel()) + T.slogdet().logabsdet
print(f"log-likelihood: {-(value + part.size * np.log(2 * np.pi)) / 2:.1f}")

# %%
# New series with the same covariances are the Cholesky factor times white noise:

L = sm.BlockToeplitz(covariances[:200]).cholesky()
new = (L @ rng.standard_normal(200 * p)).reshape(200, p)

figure, ax = plt.subplots(figsize=(9, 4.4), layout="constrained")
for k in range(p):
    ax.plot(new[:, k] + 6 * k, label=f"series {k + 1}")
ax.set(xlabel="time", yticks=[])
figure.suptitle("A sample with these covariances")
figure.legend(frameon=False, ncols=3, loc="outside lower center")
plt.show()
