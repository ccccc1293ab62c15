"""
What may have happened in the gaps of a series?
===============================================

A series of 8,000 points and a field of 2,304 were measured with noise, and some points were not measured at all. The
page finds how long the correlation is and how strong the noise, and draws what may have happened in the gaps. Without
gaps the covariance matrix would be Toeplitz. With them it is a part of such a matrix, and its products, systems and
determinants still cost little.
"""

# %%
# Measurements with gaps
# ----------------------
# A tenth of the points is missing at random, and three gaps have 400 points each. ``K[observed][:, observed]`` is the
# covariance matrix of what is there, as an operator.

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.optimize import minimize

import structmat as sm
from structmat.sampling import conditional_mean, sample_conditional, sample_stationary


def matern(distance, length, exp=np.exp):
    return (1 + distance / length) * exp(-distance / length)


n, length, noise = 8_000, 60.0, 0.3
rng = np.random.default_rng(0)
observed = rng.random(n) > 0.1
for start in (1_500, 4_000, 6_500):
    observed[start : start + 400] = False
truth = sample_stationary(lambda t: matern(t, length), n, rng=1)[0]
measured = truth[observed] + noise * rng.standard_normal(observed.sum())

# %%
# Length and noise
# ----------------
# The negative log-likelihood of measurements y with the covariance matrix A is ``(y^T A^-1 y + log det A) / 2``, apart
# from a constant. :func:`structmat.solve` and :func:`structmat.slogdet` find both terms, and their gradients. Of a
# series these are exact up to rounding, by a direct factor of the matrix with its gaps: SciPy minimises until the
# gradient vanishes.


def likeliest(covariance_matrix, observed, measured, n_probes=None, **options):
    """Return length and noise near the largest likelihood."""
    y = torch.from_numpy(measured)

    def negative_log_likelihood(values):
        logs = torch.tensor(values, requires_grad=True)
        length, noise = logs.exp()
        A = (covariance_matrix(length) + noise**2 * sm.Identity(observed.size))[observed][:, observed]
        x = sm.solve(A, y, assume="positive definite", rtol=1e-6).x
        _, logdet, error = sm.slogdet(A, rng=0, n_probes=n_probes)  # vectors, if any, are the same each time
        result = (y @ x + logdet) / 2 / y.numel()
        result.backward()
        slope = float(logs.grad.norm())
        text = f"length {length:5.1f}, noise {noise:.3f}: log det A = {logdet:,.1f}, standard error {error:.1f}"
        print(f"{text}, gradient {slope:.0e}")
        return result.item(), logs.grad.numpy()

    return np.exp(minimize(negative_log_likelihood, np.log([3.0, 0.5]), jac=True, method="L-BFGS-B", options=options).x)


distances = torch.arange(n, dtype=torch.float64)
found, found_noise = likeliest(lambda length: sm.Toeplitz(matern(distances, length, torch.exp)), observed, measured)

# %%
# What may have happened in a gap
# -------------------------------
# :func:`~structmat.sampling.sample_conditional` draws whole series that agree with the measurements, up to noise;
# :func:`~structmat.sampling.conditional_mean` is their mean.

given = (lambda t: matern(t, found), n, observed, measured)
mean = conditional_mean(*given, noise=found_noise**2)
samples = sample_conditional(*given, noise=found_noise**2, n_samples=16, rng=2)

figure, ax = plt.subplots(figsize=(9, 4), layout="constrained")
near = slice(3_700, 4_700)
places = np.arange(n)[near]
band = 2 * np.sqrt(np.mean((samples - mean) ** 2, axis=0))[near]
ax.fill_between(
    places, mean[near] - band, mean[near] + band, color="#0072B2", alpha=0.15, linewidth=0, label="two sigma"
)
ax.plot(places, samples[:3, near].T, color="#0072B2", linewidth=0.7)
ax.plot(places, mean[near], color="#D55E00", linewidth=2, label="mean")
ax.plot(places, truth[near], color="black", linewidth=1.2, label="truth")
inside = np.flatnonzero(observed)
shown = (inside >= near.start) & (inside < near.stop)
ax.plot(inside[shown], measured[shown], ".", color="0.7", markersize=3, label="measurements", zorder=0)
ax.set(xlabel="position", ylabel="value", xlim=(near.start, near.stop))
ax.legend(frameon=False, ncols=5, loc="upper center", bbox_to_anchor=(0.5, 1.12), markerscale=3)
plt.show()

# %%
# A field
# -------
# The second example is a field on a grid of 48 x 48 points with a hole, where the matrix is Toeplitz of two levels. For
# two axes there is no direct factor: :func:`structmat.solve` iterates, with a preconditioner made of the whole grid,
# and :func:`structmat.slogdet` estimates the logarithm by a few random vectors, and says how exactly. The gradient is
# an estimate too, so that steps far below the standard error mean nothing.

side = 48
row, col = np.indices((side, side))
seen = (np.hypot(row - 20, col - 28) > 8) & (rng.random((side, side)) > 0.1)
field = sample_stationary(lambda s, t: matern(np.hypot(s, t), 6.0), (side, side), rng=5)[0]
values = field[seen] + 0.2 * rng.standard_normal(seen.sum())

radius = torch.from_numpy(np.hypot(row, col))
covariance = sm.MultilevelToeplitz.from_covariance
found, found_noise = likeliest(
    lambda length: covariance(matern(radius, length, torch.exp)), seen.ravel(), values, 4, maxfun=5, maxls=5, ftol=1e-4
)

given = (lambda s, t: matern(np.hypot(s, t), found), (side, side), seen, values)
fields = sample_conditional(*given, noise=found_noise**2, rng=6)
pictures = {
    "measurements": np.full((side, side), np.nan),
    "mean given these": conditional_mean(*given, noise=found_noise**2),
    "one sample": fields[0],
    "truth": field,
}
pictures["measurements"][seen] = values
figure, axes = plt.subplots(1, 4, figsize=(11, 3.2), layout="constrained")
for ax, (title, picture) in zip(axes, pictures.items(), strict=True):
    image = ax.imshow(picture, vmin=-3, vmax=3, cmap="RdBu_r")
    ax.set(title=title, xticks=[], yticks=[])
figure.colorbar(image, ax=axes, shrink=0.8)
plt.show()

# %%
# Beside other libraries
# ----------------------
# :doc:`/performance` has the times of the exact likelihood of a series of 100,000 points in structmat, tinygp,
# celerite2, george, GPyTorch and SciPy. For a Matérn covariance of order 3/2 as above tinygp and celerite2 take a
# hundredth of the time of structmat, as their recursions take O(n).
#
# A grid without gaps is a `Toeplitz` matrix, whose determinant is exact: :doc:`plot_gaussian_process`. In GPyTorch it
# is used by :func:`structmat.torch.as_linear_operator` (``benchmarks/gaussian_processes.py`` has times).
