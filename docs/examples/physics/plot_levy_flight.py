"""
How long does a Lévy flight stay in an interval?
================================================

A random walk with rare long jumps, as animals are thought to make in search of food, leaves a region in another way
than diffusion does. The mean time until it leaves solves an equation with the *fractional Laplacian*, whose matrix
is Toeplitz and full: :class:`~structmat.Toeplitz` solves it directly, and agrees with a formula.
"""

# %%
# The matrix
# ----------
# The mean time u(x) from x until a flight leaves the interval from -1 to 1 solves :math:`(-\Delta)^{\alpha/2} u =
# 1` inside, with u = 0 everywhere outside, not only at the ends, as a jump may land anywhere. The exponent
# :math:`\alpha` is 2 for diffusion, and smaller with longer jumps. On a grid with step h the fractional Laplacian
# is a convolution, whose coefficients have a closed form and fall off slowly [#ortigueira]_: :math:`g_k = (-1)^k
# \Gamma(\alpha + 1) / (\Gamma(\alpha/2 - k + 1) \Gamma(\alpha/2 + k + 1))`.

import time

import matplotlib.pyplot as plt
import numpy as np
import scipy.linalg
from scipy.special import gamma

import structmat as sm


def fractional_laplacian(alpha, n):
    """The matrix on n points inside of the interval from -1 to 1."""
    k = np.arange(1, n)
    ratios = np.append(gamma(alpha + 1) / gamma(alpha / 2 + 1) ** 2, (k - 1 - alpha / 2) / (k + alpha / 2))
    return sm.Toeplitz(np.cumprod(ratios) * ((n + 1) / 2) ** alpha)


# %%
# The answer
# ----------
# Getoor found the solution, :math:`(1 - x^2)^{\alpha/2} / \Gamma(\alpha + 1)` [#getoor]_. With diffusion the time
# depends on the start everywhere; with long jumps it hardly does, except very near the ends. There the solution is
# steep for small exponents, and the error of the grid largest.

n = 4000
x = np.linspace(-1, 1, n + 2)[1:-1]
exponents = dict(zip((0.5, 1.0, 1.5, 2.0), plt.colormaps["viridis"]([0.85, 0.6, 0.3, 0.0]), strict=True))
times = {}
for alpha in exponents:
    times[alpha] = fractional_laplacian(alpha, n).solve(np.ones(n))
    errors = np.abs(times[alpha] - (1 - x**2) ** (alpha / 2) / gamma(alpha + 1))
    print(
        f"alpha = {alpha}: error {errors.max():.0e}, for starts between -0.9 and 0.9 {errors[abs(x) < 0.9].max():.0e}"
    )

# %%
# The other ways are Levinson's recursion in SciPy, which takes about as long here, and elimination of the dense
# matrix, which takes far longer and 128 MB for 4,000 points.

T = fractional_laplacian(1.5, 2000)
for name, solve in (
    ("Toeplitz.solve", lambda: T.solve(np.ones(2000))),
    ("scipy.linalg.solve_toeplitz", lambda: scipy.linalg.solve_toeplitz(T.c, np.ones(2000))),
    ("scipy.linalg.solve", lambda: scipy.linalg.solve(T.to_dense(), np.ones(2000), assume_a="pos")),
):
    begun = time.process_time()
    solve()
    print(f"{name:>28}: {1e3 * (time.process_time() - begun):4.0f} ms for 2,000 points")

# %%
# How many are left
# -----------------
# The share of flights that are still inside at the time t is :math:`e^{-t A} 1`, with the matrix A of above. It is
# found by the eigenvectors of a coarser grid, and falls exponentially, with the smallest eigenvalue as rate.


def share_inside(alpha, clock):
    """The probability that a flight from the middle is still inside."""
    values, vectors = np.linalg.eigh(fractional_laplacian(alpha, 255).to_dense())
    return np.exp(-np.outer(clock, values)) @ (vectors[127] * vectors.sum(axis=0))


figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
clock = np.linspace(0, 2.5, 60)
for alpha, colour in exponents.items():
    left.plot(x, times[alpha], color=colour, linewidth=2, label=rf"$\alpha$ = {alpha}")
    right.semilogy(clock, share_inside(alpha, clock), color=colour, linewidth=2)
left.set(xlabel="start", ylabel="mean time until it leaves", ylim=(0, None))
left.legend(frameon=False)
right.set(xlabel="time", ylabel="share that is still inside", ylim=(1e-3, 1.1))
right.grid(color="0.9")
plt.show()

# %%
# For diffusion on boxes of several axes see :doc:`plot_heat_and_poisson_on_a_box`. References:
#
# .. [#ortigueira] Ortigueira, M. D., Riesz potential operators and inverses via fractional centred derivatives,
#    International Journal of Mathematics and Mathematical Sciences, 2006.
# .. [#getoor] Getoor, R. K., First passage times for symmetric stable processes in space, Transactions of the
#    American Mathematical Society 101, 1961.
