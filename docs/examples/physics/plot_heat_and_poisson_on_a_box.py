"""
How does heat spread in a room?
===============================

Some walls of the room are insulated, others are cold, and the temperature is wanted at any time and in the end. The
second differences on a box have cosines and sines for eigenvectors, whichever kind of wall there is on each side. So a
solution at any time, or a steady one, takes two transforms, without time steps and without iterations.
"""

# %%
# Walls
# -----
# :func:`~structmat.laplacian` takes a kind of edge for each axis: ``"reflect"`` for insulated walls (Neumann),
# ``"zero"`` for walls that are held at zero (Dirichlet), ``"wrap"`` for a ring. Here the upper and the lower wall are
# insulated, those on the left and on the right are cold.

import matplotlib.pyplot as plt
import numpy as np

import structmat as sm

rows, cols = 120, 180
step = 1 / rows
L = sm.laplacian((rows, cols), ("reflect", "zero"), spacing=step)
print(L)

# %%
# Heat after any time
# -------------------
# :math:`u' = L u` has the solution :math:`u(t) = e^{t L} u(0)`. The exponential is an operator of the same kind.

y, x = np.mgrid[:rows, :cols] * step
start = 1.0 * (np.hypot(x - 0.5, y - 0.3) < 0.15) + 1.0 * ((abs(x - 1.1) < 0.1) & (abs(y - 0.7) < 0.2))
times = (0.0, 0.003, 0.03, 0.3)
history = [(t * L).expm().convolve(start) if t else start for t in times]
print("heat that is left:", [f"{u.sum() / start.sum():.3f}" for u in history])

# %%
# A Poisson problem
# -----------------
# A heater that stays on leads to the steady state :math:`-L u = f`. The same two transforms solve it, and the residual
# is that of rounding.

heater = 20.0 * (np.hypot(x - 0.5, y - 0.3) < 0.15)
steady = (-L).solve(heater.ravel()).reshape(rows, cols)
print(f"residual: {np.abs(-L.convolve(steady) - heater).max() / heater.max():.0e}")

# %%
# A room that is insulated all around has no steady state unless heating and cooling balance: its Laplacian is singular.
# The pseudo-inverse returns the solution whose mean is zero.

closed = sm.laplacian((rows, cols), spacing=step)
print("eigenvalues that are zero:", closed.shape[0] - int(closed.rank()))
balanced = heater - heater.mean()
level = (-closed).pinv().convolve(balanced)
print(f"residual: {np.abs(-closed.convolve(level) - balanced).max() / heater.max():.0e}, mean {level.mean():.0e}")

# %%
# A random field
# --------------
# The matrix :math:`Q = k I - L` is the precision matrix of a Gaussian Markov random field. Its log-determinant is a sum
# over eigenvalues, a sample is a product with :math:`Q^{-1/2}`, and the diagonal of the inverse holds the variances,
# which are larger near an insulated wall than inside, and smaller near a cold one.

Q = 100.0 * sm.Identity(rows * cols) - L
print(f"log-determinant: {Q.slogdet().logabsdet:.3f}")
sample = Q.fractional_matrix_power(-0.5).convolve(np.random.default_rng(0).standard_normal((rows, cols)))
variances = Q.inv().diagonal().reshape(rows, cols)
print(
    "variance at the upper wall over that inside:", (variances[0, cols // 2] / variances[rows // 2, cols // 2]).round(2)
)

figure, axes = plt.subplots(2, 3, figsize=(11, 5.4), layout="constrained")
shown = {f"t = {t:g}": u for t, u in zip(times, history, strict=True) if t in {0.0, 0.003, 0.03}}
shown |= {"steady, with a heater": steady, "insulated, balanced": level, "random field": sample}
for ax, (title, values) in zip(axes.flat, shown.items(), strict=True):
    ax.imshow(values, cmap="inferno")
    ax.set(title=title, xticks=[], yticks=[])
plt.show()
