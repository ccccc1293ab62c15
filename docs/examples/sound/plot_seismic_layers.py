"""
Where are the layers of the ground? Sparse deconvolution
========================================================

A seismic section shows each boundary between layers as a wavelet, not as a line, and close boundaries run together.
Since boundaries are few, a sparse series of spikes that explains a trace separates them, where least squares makes
ripples; it takes some hundred products with a Toeplitz matrix, for all traces at once.
"""

# %%
# A section
# ---------
# Layers with a dip, a fault, and a thin layer that wedges out. The wavelet is that of Ricker, and the data have
# noise.

import time

import matplotlib.pyplot as plt
import numpy as np

import structmat as sm

samples, traces = 256, 90
rng = np.random.default_rng(0)
place = np.arange(traces)
fault = 14 * (place > 55)
truth = np.zeros((traces, samples))
for depth, dip, height in ((40, 0.15, 0.8), (80, -0.2, -0.6), (150, 0.25, 1.0), (150, 0.1, -0.8), (215, 0.0, 0.5)):
    truth[place, np.round(depth + dip * place + fault).astype(int)] += height

lag = np.arange(-24, 25)
arch = (np.pi * lag / 20) ** 2
wavelet = (1 - 2 * arch) * np.exp(-arch)
column, row = np.zeros((2, samples))
column[:25], row[:25] = wavelet[24:], wavelet[24::-1]
W = sm.Toeplitz(column, row).prepare()
section = W.matvec(truth) + 0.1 * rng.standard_normal((traces, samples))

# %%
# Two ways back
# -------------
# Damped least squares minimises :math:`\|W x - d\|^2 + \epsilon^2 \|x\|^2`: the matrix :math:`W^T W + \epsilon^2 I`
# is positive definite. The sparse solution [#taylor]_ minimises :math:`\|W x - d\|^2 / 2 + \mu \sum |x|`, by
# FISTA [#fista]_: each of its steps takes a product with W and one with its transpose, and draws all values towards
# zero by the same amount.


def least_squares(damp):
    A = W.T @ W + damp**2 * sm.Identity(samples)
    return sm.solve(A, W.rmatvec(section).T, assume="positive definite").x.T


def sparse(strength, steps=300):
    step = 1 / np.abs(np.fft.fft(wavelet, 512)).max() ** 2
    found = ahead = np.zeros_like(section)
    momentum = 1.0
    for _ in range(steps):
        towards = ahead - step * W.rmatvec(W.matvec(ahead) - section)
        new = np.sign(towards) * np.maximum(np.abs(towards) - step * strength, 0)
        later = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = new + (momentum - 1) / later * (new - found)
        found, momentum = new, later
    return found


begun = time.process_time()
spikes = sparse(0.3)
print(f"300 steps for {traces} traces: {time.process_time() - begun:.2f} s")
smooth = least_squares(1.0)
pictures = {"layers": truth, "section": section, "least squares": smooth, "sparse": spikes}
for name in ("least squares", "sparse"):
    print(f"{name:>14}: relative error {np.linalg.norm(pictures[name] - truth) / np.linalg.norm(truth):.2f}")

figure, axes = plt.subplots(1, 4, figsize=(10, 5), layout="constrained", sharey=True)
for ax, (title, picture) in zip(axes, pictures.items(), strict=True):
    ax.imshow(picture.T, cmap="RdBu", vmin=-0.8, vmax=0.8, aspect="auto", interpolation="nearest")
    ax.set(title=title, xlabel="trace")
axes[0].set_ylabel("time in samples")
plt.show()

# %%
# One trace
# ---------
# Both weights were chosen with knowledge of the layers. The sparse spikes are too low, as all values are drawn
# towards zero, and some lie a sample beside their true place. But the thin layer, which the section shows as one
# event, has two boundaries again.

figure, ax = plt.subplots(figsize=(10, 4), layout="constrained")
trace = 30
ax.plot(section[trace] / 3, color="0.7", label="section, a third")
ax.plot(smooth[trace], color="#0072B2", linewidth=2, label="least squares")
ax.plot(spikes[trace], color="#D55E00", linewidth=2, label="sparse")
ax.plot(
    np.flatnonzero(truth[trace]),
    truth[trace][truth[trace] != 0],
    "o",
    color="black",
    markerfacecolor="none",
    label="layers",
)
ax.set(xlabel="time in samples", ylabel="reflection", xlim=(0, samples - 1), title=f"trace {trace}")
ax.grid(color="0.9")
figure.legend(frameon=False, ncols=4, loc="outside lower center")
plt.show()

# %%
# References:
#
# .. [#taylor] Taylor, H. L., Banks, S. C., McCoy, J. F., Deconvolution with the l1 norm, Geophysics 44, 1979.
# .. [#fista] Beck, A., Teboulle, M., A fast iterative shrinkage-thresholding algorithm for linear inverse problems,
#    SIAM Journal on Imaging Sciences 2, 2009.
