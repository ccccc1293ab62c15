"""
Does the starting point of a fit matter?
========================================

The error of a product of three factors has many local minima. For a matrix that *is* such a product, with or without
noise, alternating least squares does not find it from the obvious starting points, but finds it from shift
synchronisation.
"""

# %%
# Alternating least squares
# -------------------------
# The entries of a product D C D are ``a[i] * c[i - j] * b[j]``. With two of the vectors fixed, the best third one has a
# closed form. An iteration solves for each vector in turn, and the error never rises.

import matplotlib.pyplot as plt
import numpy as np

import structmat as sm

n = 64
shift = (np.arange(n)[:, None] - np.arange(n)) % n


def diagonal_sums(matrix):
    """Return the sum of every cyclic diagonal."""
    return np.bincount(shift.ravel(), matrix.ravel(), minlength=n)


def relative_error(W, P):
    return np.linalg.norm(W - P) / np.linalg.norm(W)


def alternate(W, c, b, sweeps=300):
    """Return the relative error after a number of sweeps from a start."""
    for _ in range(sweeps):
        rest = c[shift] * b
        a = (W * rest).sum(axis=1) / (rest**2).sum(axis=1)
        rest = a[:, None] * b
        c = diagonal_sums(W * rest) / diagonal_sums(rest**2)
        rest = a[:, None] * c[shift]
        b = (W * rest).sum(axis=0) / (rest**2).sum(axis=0)
    return relative_error(W, rest * b)


# %%
# Planted products
# ----------------
# The twenty matrices are random products with noise of 0 to 2 times their norm. The obvious starts are the nearest
# circulant, the nearest matrix of rank one, and the best of ten random choices of signs. ``fit_cdd`` starts from these
# too, and from shift synchronisation.

levels, seeds = (0.0, 0.25, 0.5, 1.0, 2.0), range(4)
errors = {name: [] for name in ("nearest circulant", "rank one", "random signs, best of 10", "fit_cdd", "truth")}
for level in levels:
    for seed in seeds:
        rng = np.random.default_rng(seed)
        planted = sm.CDDProduct.from_vectors(*rng.standard_normal((3, n))).to_dense()
        noise = rng.standard_normal((n, n))
        W = planted + level * np.linalg.norm(planted) / np.linalg.norm(noise) * noise
        ones = np.ones(n)
        singular = np.linalg.svd(W)[2][0]
        signs = rng.choice((-1.0, 1.0), (10, n))
        errors["nearest circulant"].append(alternate(W, diagonal_sums(W) / n, ones))
        errors["rank one"].append(alternate(W, ones, singular))
        errors["random signs, best of 10"].append(min(alternate(W, diagonal_sums(W * s), s) for s in signs))
        errors["fit_cdd"].append(sm.fit_cdd(W, rng=0).error)
        errors["truth"].append(relative_error(W, planted))

styles = {
    "nearest circulant": ("#E69F00", "^"),
    "rank one": ("#CC79A7", "s"),
    "random signs, best of 10": ("#009E73", "D"),
    "fit_cdd": ("#0072B2", "o"),
}
figure, ax = plt.subplots(figsize=(8, 4.6), layout="constrained")
for k, (name, (colour, marker)) in enumerate(styles.items()):
    found = np.array(errors[name]).reshape(len(levels), len(seeds))
    places = np.arange(len(levels)) + 0.1 * (k - 1.5)
    ax.plot(places, found, linestyle="", marker=marker, markersize=5, color=colour, alpha=0.8)
    ax.plot(places, np.median(found, axis=1), color=colour, marker=marker, linewidth=1, label=name)
truth = np.reshape(errors["truth"], (len(levels), len(seeds))).mean(axis=1)
ax.plot(truth, color="0.3", linestyle="--", label="the planted product itself")
ax.set(xlabel="norm of the noise / norm of the product", ylabel="relative error", xticks=range(len(levels)))
ax.set_xticklabels([f"{level:g}" for level in levels])
ax.grid(color="0.9", axis="y")
ax.legend(frameon=False, loc="lower right")
plt.show()

# %%
# The error of a good fit is slightly lower than that of the planted product, since it fits a part of the noise as well.

for name, found in errors.items():
    print(f"{name:25}", *(f"{median:7.3f}" for median in np.median(np.reshape(found, (len(levels), -1)), axis=1)))

# %%
# Why it works
# ------------
# Shift synchronisation multiplies every entry by the conjugate of its neighbour along the diagonal. The unknown phases
# of the circulant cancel in these products. The result has rank one up to positive weights, and its leading singular
# vectors give the differences of the phases of the two diagonals from entry to entry.
