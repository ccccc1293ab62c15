"""
Is there a signal in noise with gaps?
=====================================

Whoever looks for a weak signal of known shape in coloured noise, as of gravitational waves, whitens the data by
transforms. A gap breaks that, as the edges of the gap leak into all frequencies; the exact inverse of the
covariance matrix of what was observed does not mind gaps, and :func:`structmat.solve` multiplies by it without ever
writing it out.
"""

# %%
# Noise and a chirp
# -----------------
# The covariance of the noise is the sum of a strong slow drift, a hum of 60 Hz and its harmonic, and white noise.
# The signal is a chirp whose frequency rises until it ends. For a tenth of a second, in the middle of the chirp,
# nothing was recorded.

import time

import matplotlib.pyplot as plt
import numpy as np
import scipy.linalg
import scipy.signal

import structmat as sm
from structmat.sampling import sample_stationary

rate, n = 1024, 4096
clock = np.arange(n) / rate


def covariance(steps):
    t = steps / rate
    drift = 400.0 * (1 + t / 0.05 + (t / 0.05) ** 2 / 3) * np.exp(-t / 0.05)
    hum = 4.0 * np.exp(-t / 2) * np.cos(2 * np.pi * 60 * t) + np.exp(-t / 2) * np.cos(2 * np.pi * 120 * t)
    return drift + hum + 1.0 * (steps == 0)


observed = np.ones(n, dtype=bool)
observed[2350:2450] = False
before = np.clip(2.5 - clock, 0, None)  # seconds to the end of the chirp
chirp = np.where(
    (before > 0) & (before < 0.5), (before + 0.02) ** -0.25 * np.cos(2 * np.pi * 120 * (before + 0.01) ** 0.625), 0
)
chirp *= 0.6
data = sample_stationary(covariance, n, rng=0)[0] + chirp

# %%
# Two statistics
# --------------
# The best linear statistic for the signal h in data d with the covariance A is :math:`h^T A^{-1} d`, and its
# signal-to-noise ratio :math:`\sqrt{h^T A^{-1} h}`. With gaps A is a part of a Toeplitz matrix. The usual way sets
# the gap to zero and divides transforms by the power spectrum, which is to multiply by the inverse of a circulant.

T = sm.Toeplitz(covariance(np.arange(n)))
A = T[observed][:, observed].prepare()
h = chirp[observed]
weights = sm.solve(A, h, assume="positive definite").x
print(f"exact: expected ratio {np.sqrt(h @ weights):.1f}; without the gap {np.sqrt(chirp @ T.solve(chirp)):.1f}")

C = sm.preconditioners.strang(T)
usual = C.solve(chirp)[observed]
believed, actual = np.sqrt(chirp @ C.solve(chirp)), h @ usual / np.sqrt(usual @ (A @ usual))
print(f"by transforms, zeros in the gap: expected ratio {actual:.1f}, where {believed:.1f} is believed")

# %%
# All times of arrival
# --------------------
# One solution with the data serves all times at which the chirp may come: the rest is a correlation. The scale of
# the statistic changes where the chirp would overlap the gap, and takes a solution for each such time, all in one
# call.


def correlate(values):
    """The products with the chirp at all shifts, from ending at the time zero on."""
    return scipy.signal.correlate(values, chirp[2048:2560], mode="full", method="fft")[511:]


begun = time.process_time()
filled = np.zeros(n)
filled[observed] = sm.solve(A, data[observed], assume="positive definite").x
shifts = np.arange(1800, 2500, 4)
templates = np.stack([np.roll(chirp, shift - 2048) for shift in shifts], axis=1)[observed]
scales = np.sqrt(np.sum(templates * sm.solve(A, templates, assume="positive definite").x, axis=0))
scale = np.interp(np.arange(n), shifts, scales)
exact = correlate(filled) / scale
print(f"{time.process_time() - begun:.2f} s for {templates.shape[1] + 1} solutions with {A.shape[0]:,} points")
begun = time.process_time()
factor = scipy.linalg.cho_factor(A.to_dense())
print(f"{time.process_time() - begun:.2f} s for a dense Cholesky factor alone")

# %%
# False alarms
# ------------
# In noise alone both statistics should have the standard deviation one at all times. With zeros in the gap it is
# larger wherever the chirp would meet the gap. Here it is estimated from a hundred series of noise.

noise = sample_stationary(covariance, n, n_samples=100, rng=1)
solutions = np.zeros((100, n))
solutions[:, observed] = sm.solve(A, noise[:, observed].T, assume="positive definite").x.T
deviation = np.std([correlate(each) / scale for each in solutions], axis=0)
usual_deviation = np.std([correlate(each) / believed for each in C.solve(np.where(observed, noise, 0).T).T], axis=0)
by_transforms = correlate(C.solve(np.where(observed, data, 0))) / believed

figure, axes = plt.subplots(3, 1, figsize=(8.5, 8), layout="constrained", sharex=True)
axes[0].plot(clock, np.where(observed, data, np.nan), color="0.4", linewidth=0.8, label="data")
axes[0].plot(clock, 10 * chirp, color="#D55E00", linewidth=1, label="chirp, ten times")
axes[0].set(ylabel="data", xlim=(1.6, 2.6))
for values, spread, colour, name in (
    (by_transforms, usual_deviation, "#E69F00", "transforms, zeros in the gap"),
    (exact, deviation, "#0072B2", "exact"),
):
    axes[1].plot(clock[: values.size], np.abs(values), color=colour, linewidth=1.2, label=name)
    axes[2].plot(clock[: values.size], spread, color=colour, linewidth=1.5)
axes[1].set(ylabel="statistic")
axes[2].set(ylabel="deviation\nin noise", xlabel="seconds (in the lower two: start of the chirp)", ylim=(0, None))
for ax in axes[:2]:
    ax.legend(frameon=False, loc="upper left", ncols=2)
for ax in axes:
    ax.axvspan(2350 / rate, 2450 / rate, color="0.9", zorder=0)
plt.show()

# %%
# Where the covariance is not known, its parameters follow from the likelihood of the same matrix:
# :doc:`plot_grids_with_gaps`. The reference for the usual search:
#
# Allen, B., Anderson, W. G., Brady, P. R., Brown, D. A., Creighton, J. D. E., FINDCHIRP: An algorithm for detection
# of gravitational waves from inspiraling compact binaries, Physical Review D 85, 2012.
