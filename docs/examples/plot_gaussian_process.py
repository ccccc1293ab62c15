"""
A Gaussian process on a grid
============================

What do noisy measurements at four thousand grid points say about the true curve? The covariance of a stationary process
on a grid is a Toeplitz matrix, and its linear systems are solved in a few iterations.
"""

# %%
# The model
# ---------
# A Matérn covariance of order 3/2, plus the variance of the noise on the diagonal. The dense matrix would hold 16.8
# million entries; the operator holds 4,096.

import matplotlib.pyplot as plt
import numpy as np
from scipy.sparse.linalg import cg

import structmat as sm
from structmat.preconditioners import strang
from structmat.scipy import as_linear_operator

n, length, noise = 4096, 0.04, 0.4
grid = np.linspace(0, 1, n)
scaled = np.sqrt(3) * grid / length
covariance = (1 + scaled) * np.exp(-scaled)
K = sm.Toeplitz(covariance)
with_noise = sm.Toeplitz(covariance + noise**2 * (np.arange(n) == 0))

# %%
# A sample
# --------
# The covariance is a corner of a larger circulant, whose square root is again a circulant: a sample is one product with
# white noise.

rng = np.random.default_rng(4)
ring = sm.Circulant(np.concatenate([covariance, covariance[-2:0:-1]]))
print(f"smallest eigenvalue of the circulant: {ring.eigvals().real.min():.1e}")
truth = (ring.sqrtm() @ rng.standard_normal(ring.shape[0])).real[:n]
measured = truth + noise * rng.standard_normal(n)

# %%
# The posterior mean
# ------------------
# The posterior mean is ``K (K + noise**2 I)^-1 y``: a linear system and a product.

steps = {}
for name, M in {"none": None, "Strang": as_linear_operator(strang(with_noise).inv())}.items():
    residuals = []
    weights, info = cg(
        as_linear_operator(with_noise), measured, rtol=1e-8, M=M, callback=lambda _, seen=residuals: seen.append(0)
    )
    steps[name] = len(residuals)
print(f"iterations without a preconditioner: {steps['none']}, with Strang's circulant: {steps['Strang']}")
mean = K @ weights

figure, ax = plt.subplots(figsize=(9, 4), layout="constrained")
ax.plot(grid, measured, ".", color="0.8", markersize=2, label="measurements")
ax.plot(grid, truth, color="black", linewidth=1.4, label="truth")
ax.plot(grid, mean, color="#D55E00", linewidth=2, linestyle="--", label="posterior mean")
ax.set(xlabel="position", ylabel="value", xlim=(0, 1))
ax.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.12), markerscale=4)
plt.show()
