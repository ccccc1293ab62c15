"""
A Gaussian process on a grid
============================

What do noisy measurements at four thousand grid points say about the true curve, and about the process that it is a
sample of? The covariance of a stationary process on a grid is a Toeplitz matrix, whose linear systems and determinant
take a fraction of a second.
"""

# %%
# The model
# ---------
# A Matérn covariance of order 3/2, plus the variance of the noise on the diagonal. The dense matrix would hold 16.8
# million entries; the operator holds 4,096.

import matplotlib.pyplot as plt
import numpy as np

import structmat as sm
from structmat.sampling import sample_stationary

n, length, noise = 4096, 160.0, 0.4  # the length scale in steps of the grid


def matern(steps, length=length):
    scaled = np.sqrt(3) * steps / length
    return (1 + scaled) * np.exp(-scaled)


def covariance_of_measurements(length, noise):
    return sm.Toeplitz(matern(np.arange(n), length)) + noise**2 * sm.Identity(n)


# %%
# A sample
# --------
# :func:`~structmat.sampling.sample_stationary` puts the covariance into a larger circulant matrix, whose square root
# times white noise is an exact sample.

rng = np.random.default_rng(4)
truth = sample_stationary(matern, n, rng=rng)[0]
measured = truth + noise * rng.standard_normal(n)

# %%
# The posterior mean
# ------------------
# The posterior mean is ``K (K + noise**2 I)^-1 y``: a linear system and a product.

K = sm.Toeplitz(matern(np.arange(n)))
mean = K @ covariance_of_measurements(length, noise).solve(measured)
print(f"root mean square error: measurements {noise}, posterior mean {np.sqrt(np.mean((mean - truth) ** 2)):.2f}")

figure, ax = plt.subplots(figsize=(9, 4), layout="constrained")
ax.plot(measured, ".", color="0.8", markersize=2, label="measurements")
ax.plot(truth, color="black", linewidth=1.4, label="truth")
ax.plot(mean, color="#D55E00", linewidth=2, linestyle="--", label="posterior mean")
ax.set(xlabel="position in steps of the grid", ylabel="value", xlim=(0, n))
ax.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.12), markerscale=4)
plt.show()

# %%
# The length scale
# ----------------
# Suppose that the length scale is not known. The log-likelihood of measurements y with covariance C is
# ``-(y^T C^-1 y + log det C + n log(2 pi)) / 2``; :meth:`~structmat.LinearOperator.solve` and
# :meth:`~structmat.LinearOperator.slogdet` compute it.


def log_likelihood(length, noise=noise):
    C = covariance_of_measurements(length, noise)
    return -0.5 * (measured @ C.solve(measured) + C.slogdet().logabsdet + n * np.log(2 * np.pi))


lengths = np.geomspace(40, 640, 13)
values = np.array([log_likelihood(each) for each in lengths])
print(f"largest at {lengths[np.argmax(values)]:.0f} steps, the sample was drawn with {length:.0f}")

figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
ax.semilogx(lengths, values - values.max(), "o-", color="#0072B2")
ax.set_xticks([50, 100, 200, 400], ["50", "100", "200", "400"])
ax.minorticks_off()
ax.axvline(length, color="0.6", linestyle="--")
ax.set(xlabel="length scale in steps of the grid", ylabel="log likelihood, below the largest", ylim=(-60, 3))
plt.show()
