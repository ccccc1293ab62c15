"""
How much should noisy data be smoothed?
=======================================

Too little smoothing leaves noise, too much of it takes away what matters. *Generalised cross-validation* chooses
the amount from the data alone, if the trace of the smoother's matrix is known: on a grid with reflected edges this
matrix is diagonal in cosines, so that its trace is a sum and a choice among many takes milliseconds, for signals
and for images.
"""

# %%
# The smoother
# ------------
# The smooth x minimises :math:`\|x - y\|^2 + \lambda \|L x\|^2` with the second differences L. It is S y with
# :math:`S = (I + \lambda L^2)^{-1}`, known as the filter of Whittaker [#garcia]_, in economics of Hodrick and
# Prescott. The score to minimise is :math:`n \|y - S y\|^2 / (n - \mathrm{tr} \, S)^2` [#craven]_.

import time

import matplotlib.pyplot as plt
import numpy as np
from scipy.interpolate import make_smoothing_spline
from scipy.optimize import minimize_scalar

import structmat as sm


def smoother(shape, weight):
    L = sm.laplacian(shape)
    return (sm.Identity(L.shape[0]) + weight * L @ L).inv()


def score(weight, y):
    S = smoother(y.shape, weight)
    return y.size * np.sum((y - S.convolve(y)) ** 2) / (y.size - S.trace()) ** 2


def smoothed(y):
    """The smooth values and the weight with the least score."""
    search = minimize_scalar(
        lambda log: score(np.exp(log), y), bounds=(-5, 30), method="bounded", options={"xatol": 0.01}
    )
    return smoother(y.shape, np.exp(search.x)).convolve(y), np.exp(search.x)


# %%
# A signal
# --------
# The spline that SciPy fits with the same criterion is nearly the same curve.

n = 2000
rng = np.random.default_rng(0)
t = np.linspace(0, 1, n)
truth = np.sin(8 * t) + 0.8 * np.exp(-(((t - 0.6) / 0.03) ** 2)) - 0.6 / (1 + np.exp(-(t - 0.3) / 0.01))
y = truth + 0.4 * rng.standard_normal(n)


def timed(function, *arguments):
    begun = time.process_time()
    result = function(*arguments)
    return result, time.process_time() - begun


(smooth, weight), seconds = timed(smoothed, y)
spline, spline_seconds = timed(lambda: make_smoothing_spline(t, y)(t))
for name, values, spent in (("here", smooth, seconds), ("scipy, make_smoothing_spline", spline, spline_seconds)):
    print(f"{name:>28}: error {np.sqrt(np.mean((values - truth) ** 2)):.4f}, {spent:.3f} s")

weights = np.geomspace(1e1, 1e9, 25)
scores = [score(each, y) for each in weights]
errors = [np.mean((smoother(n, each).convolve(y) - truth) ** 2) for each in weights]

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained", width_ratios=(1.5, 1))
left.plot(t, y, ".", color="0.8", markersize=2, label="data")
left.plot(t, truth, color="black", linewidth=1.2, label="truth")
left.plot(t, smooth, color="#D55E00", linewidth=2, label="smooth")
left.set(xlabel="time", ylabel="value", xlim=(0, 1))
left.legend(frameon=False, markerscale=4, loc="lower left")
right.loglog(weights, np.array(scores) - min(scores) + 1e-4, color="#0072B2", linewidth=2, label="score - least score")
right.loglog(weights, errors, color="black", linestyle="--", label="true mean squared error")
right.axvline(weight, color="#D55E00", linewidth=2)
right.set(xlabel="weight", ylim=(5e-5, 2))
right.legend(frameon=False)
plt.show()

# %%
# An image
# --------
# Nothing changes for two axes but the shape. :func:`~structmat.laplacian` takes other edges as well, by axis.

side = 160
row, col = np.mgrid[:side, :side] / side
picture = np.sin(7 * row) * np.cos(5 * col) + 1.5 * np.exp(-40 * ((row - 0.3) ** 2 + (col - 0.6) ** 2))
measured = picture + 0.7 * rng.standard_normal((side, side))
(found, weight), seconds = timed(smoothed, measured)
print(f"{side} x {side} points: weight {weight:.0f}, {seconds:.3f} s")

figure, axes = plt.subplots(1, 3, figsize=(9, 3.6), layout="constrained")
for ax, (title, values) in zip(axes, {"data": measured, "smooth": found, "truth": picture}.items(), strict=True):
    ax.imshow(values, cmap="RdBu_r", vmin=-2, vmax=2)
    ax.set(title=title, xticks=[], yticks=[])
plt.show()

# %%
# References:
#
# .. [#garcia] Garcia, D., Robust smoothing of gridded data in one and higher dimensions with missing values,
#    Computational Statistics and Data Analysis 54, 2010.
# .. [#craven] Craven, P., Wahba, G., Smoothing noisy data with spline functions, Numerische Mathematik 31, 1979.
