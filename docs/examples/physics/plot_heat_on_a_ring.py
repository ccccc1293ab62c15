"""
How does heat spread on a ring?
===============================

Whoever solves a linear differential equation usually takes many small steps of time. The second difference on a ring is
a circulant, and functions of a circulant, such as its exponential, are computed from its eigenvalues: the solution at
any time is one product.
"""

# %%
# The equation
# ------------
# :math:`u' = L u` has the solution :math:`u(t) = e^{t L} u(0)`. ``expm`` returns a circulant.

import matplotlib.pyplot as plt
import numpy as np

import structmat as sm

n = 256
column = np.zeros(n)
column[[0, 1, -1]] = -2.0, 1.0, 1.0
L = sm.Circulant(column * (n / (2 * np.pi)) ** 2)
print((0.01 * L).expm())

angle = 2 * np.pi * np.arange(n) / n
start = 1.0 * (abs(angle - np.pi / 2) < 0.3) + 0.6 * (abs(angle - 4.2) < 0.15)

# %%
# Each time takes one product, and the total heat is conserved.

times = np.geomspace(1e-3, 3, 160)
history = np.array([(t * L).expm() @ start for t in times]).real
print(f"largest change of the total: {abs(history.sum(axis=1) - start.sum()).max():.1e}")

# %%
# Square roots and logarithms
# ---------------------------
# Other functions are as simple. The square root of ``expm`` corresponds to half of the time, and the logarithm is the
# inverse of ``expm``:

whole = (0.2 * L).expm()
half = whole.fractional_matrix_power(0.5)
print("half the time:", np.allclose((half @ start).real, (0.1 * L).expm() @ start, atol=1e-6))

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", width_ratios=(1.1, 1))
for t, colour in zip((0.0, 0.01, 0.1, 0.5, 3.0), plt.colormaps["inferno"](np.linspace(0.1, 0.8, 5)), strict=True):
    values = start if t == 0 else ((t * L).expm() @ start).real
    left.plot(angle, values, color=colour, linewidth=2, label=f"t = {t:g}")
left.set(xlabel="angle", ylabel="temperature", xlim=(0, 2 * np.pi))
left.legend(frameon=False)
mesh = right.pcolormesh(angle, times, history, cmap="inferno", shading="nearest")
right.set(yscale="log", xlabel="angle", ylabel="time")
figure.colorbar(mesh, ax=right, label="temperature")
plt.show()
