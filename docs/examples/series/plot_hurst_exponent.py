"""
Does a series have a long memory? The Hurst exponent with gaps
==============================================================

Levels of rivers, traffic in networks and prices may depend on their past over years. The *Hurst exponent* says how
strongly, and two graphical estimates of it see a memory where there is none, or scatter widely. Its exact
likelihood does not, even with gaps, and takes tens of milliseconds, as the covariance matrix is a part of a
Toeplitz matrix.
"""

# %%
# Fractional noise
# ----------------
# Fractional Gaussian noise has the covariances :math:`(|k+1|^{2H} - 2 |k|^{2H} + |k-1|^{2H}) / 2`. With the
# exponent H = 1/2 it is white; above, values far apart are still correlated, so that the mean of n values has the
# variance :math:`n^{2H-2}` in place of :math:`1/n` [#beran]_.

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize_scalar

import structmat as sm
from structmat.sampling import sample_stationary


def covariances(lags, H):
    return (np.abs(lags + 1) ** (2 * H) - 2 * np.abs(lags) ** (2 * H) + np.abs(lags - 1) ** (2 * H)) / 2


n, exponents = 500, (0.5, 0.8)
rng = np.random.default_rng(0)
observed = rng.random(n) > 0.15
observed[200:260] = False
series = {H: 5.0 + 2.0 * sample_stationary(lambda t, H=H: covariances(t, H), n, n_samples=6, rng=1) for H in exponents}

# %%
# The exact likelihood
# --------------------
# For each exponent the best mean and the best scale have formulas, which take two solutions with the matrix of the
# observed points and its log-determinant. :func:`structmat.solve` and :func:`structmat.slogdet` compute both,
# whatever the gaps.


def profile(H, values, observed):
    """The negative log-likelihood at the best mean and scale, and the mean with its standard deviation."""
    A = sm.Toeplitz(covariances(np.arange(observed.size), H))[observed][:, observed].prepare()
    right = np.stack([values, np.ones_like(values)], axis=1)
    products = right.T @ sm.solve(A, right, assume="positive definite").x
    mean = products[0, 1] / products[1, 1]
    variance = (products[0, 0] - mean * products[0, 1]) / values.size
    return (values.size * np.log(variance) + sm.slogdet(A).logabsdet) / 2, mean, (variance / products[1, 1]) ** 0.5


def likeliest(values, observed):
    search = {"bounds": (0.05, 0.98), "method": "bounded", "options": {"xatol": 0.005}}
    return minimize_scalar(lambda H: profile(H, values, observed)[0], **search).x


# %%
# Two usual estimates
# -------------------
# Of both the slope in a logarithmic plot tells the exponent: the variance of means of blocks, and the range of the
# sums in a block over its standard deviation, of Hurst himself. The gaps are bridged by straight lines first.

sizes = np.array([5, 10, 20, 50, 100])


def filled(values, observed):
    return np.interp(np.arange(n), np.flatnonzero(observed), values)


def by_block_means(values, observed):
    variances = [np.var(filled(values, observed).reshape(-1, size).mean(axis=1)) for size in sizes[:4]]
    return 1 + np.polyfit(np.log(sizes[:4]), np.log(variances), 1)[0] / 2


def by_ranges(values, observed):
    ratios = []
    for size in sizes:
        blocks = filled(values, observed).reshape(-1, size)
        sums = np.cumsum(blocks - blocks.mean(axis=1, keepdims=True), axis=1)
        ratios.append(np.mean(np.ptp(sums, axis=1) / blocks.std(axis=1)))
    return np.polyfit(np.log(sizes), np.log(ratios), 1)[0]


methods = {"exact likelihood": likeliest, "ranges (R/S)": by_ranges, "block means": by_block_means}
estimates = {
    (H, name): [method(each[observed], observed) for each in series[H]]
    for H in exponents
    for name, method in methods.items()
}
for (H, name), values in estimates.items():
    print(f"true exponent {H}, {name:>16}: mean {np.mean(values):.2f}, standard deviation {np.std(values):.2f}")

# %%
# The uncertainty of a mean
# -------------------------
# With long memory the mean of a series is known far less well than its scatter suggests.

values = series[0.8][0][observed]
_, mean, deviation = profile(likeliest(values, observed), values, observed)
naive = values.std() / values.size**0.5
print(f"mean {mean:.2f} +- {deviation:.2f}; as if values were independent: {values.mean():.2f} +- {naive:.2f}; true 5")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.8), layout="constrained", width_ratios=(1.5, 1))
left.plot(np.where(observed, series[0.8][0], np.nan), color="#0072B2", linewidth=1)
left.axhspan(mean - deviation, mean + deviation, color="#D55E00", alpha=0.25, linewidth=0)
left.axhline(mean, color="#D55E00", label="mean, with its deviation")
left.axhline(5, color="black", linestyle=":", label="true mean")
left.set(xlabel="time", ylabel="value", xlim=(0, n), title="a series with gaps")
for H, colour in zip(exponents, ("#009E73", "#0072B2"), strict=True):
    right.axvline(H, color=colour, linestyle=":", label=f"true exponent {H}")
    for place, name in enumerate(methods):
        right.plot(estimates[H, name], np.full(6, place + 0.12 * (H > 0.6)), "o", color=colour, markersize=8, alpha=0.6)
figure.legend(frameon=False, ncols=2, loc="outside lower center")
right.set_yticks(range(3), ["exact\nlikelihood", "ranges\n(R/S)", "block\nmeans"])
right.set(xlabel="Hurst exponent", ylim=(-0.6, 2.6))
right.grid(color="0.9", axis="x")
plt.show()

# %%
# The likelihood of a long series takes a second or so with this covariance, whose matrix has no short recursion.
# For covariances that decay, and for gradients, see :doc:`plot_grids_with_gaps`. Reference:
#
# .. [#beran] Beran, J., Statistics for Long-Memory Processes, Chapman and Hall, 1994.
