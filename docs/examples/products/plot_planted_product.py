"""
How much noise can hide a product?
==================================

Noise is added to a product of a diagonal, a circulant and a diagonal matrix, more and more, until a fit no longer finds
the product. With noise as large as the product itself it is still found, and most of the noise is removed.
"""

# %%
# The matrix, and noise
# ---------------------
# The product is a filter whose gain varies with row and column. It is given by three vectors of 64 entries.

import matplotlib.pyplot as plt
import numpy as np

import structmat as sm

n = 64
rng = np.random.default_rng(1)
lag = np.minimum(np.arange(n), n - np.arange(n))
kernel = np.exp(-((lag / 6.0) ** 2)) * np.cos(lag / 2.0)
truth = sm.CDDProduct.from_vectors(1.2 + np.sin(np.arange(n) / 5), kernel, rng.choice([-1.0, 1.0], n)).to_dense()
truth /= np.linalg.norm(truth)
noise = rng.standard_normal((n, n))
noise /= np.linalg.norm(noise)

# %%
# Fits
# ----
# Three distances to the true product are compared: that of the noisy matrix itself, that of the fit, and that of the
# best truncated SVD, whose rank is chosen with knowledge of the true product.

levels = np.geomspace(0.06, 4, 9)
distances = {"noisy matrix": [], "best truncated SVD": [], "fit D C D": []}
fitted = {}
for level in levels:
    W = truth + level * noise
    U, s, V = np.linalg.svd(W)
    ranks = [np.linalg.norm((U[:, :r] * s[:r]) @ V[:r] - truth) for r in range(n + 1)]
    fitted[level] = sm.fit_cdd(W, rng=0, restarts=2).operator.to_dense()
    distances["noisy matrix"].append(level)
    distances["best truncated SVD"].append(min(ranks))
    distances["fit D C D"].append(np.linalg.norm(fitted[level] - truth))

# %%
# 192 parameters are fitted to 4,096 entries, so about a fifth of the norm of the noise is left (dotted line), up to the
# noise level at which the product is no longer found.

figure = plt.figure(figsize=(11, 4.2), layout="constrained")
grid = figure.add_gridspec(2, 4, width_ratios=(1, 1, 0.1, 2.4))
level = levels[np.argmin(abs(levels - 1))]
shown = {
    "truth": truth,
    f"noise {level:.1f}": truth + level * noise,
    "fit": fitted[level],
    "fit - truth": fitted[level] - truth,
}
for index, (title, values) in enumerate(shown.items()):
    ax = figure.add_subplot(grid[divmod(index, 2)])
    ax.imshow(values, cmap="RdBu", vmin=-0.05, vmax=0.05)
    ax.set(title=title, xticks=[], yticks=[])
ax = figure.add_subplot(grid[:, 3])
for (name, values), colour, marker in zip(distances.items(), ("0.5", "#0072B2", "#D55E00"), "s^o", strict=True):
    ax.loglog(levels, values, color=colour, marker=marker, label=name)
ax.loglog(levels, levels * np.sqrt(3 * n) / n, color="black", linestyle=":", label="noise in 192 of 4,096 directions")
ax.set(xlabel="norm of the noise over that of the product", ylabel="distance to the truth")
ax.grid(color="0.9")
ax.legend(frameon=False)
plt.show()
