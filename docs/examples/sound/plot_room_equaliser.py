"""
Can a loudspeaker play so that a room has no echo?
==================================================

A filter before one loudspeaker can hide some of the echoes of a room, but never all of them. With two loudspeakers
there is an exact answer for a listener in one place: short filters, found by a system of the two channels with all
delays, whose matrix is block Toeplitz.
"""

# %%
# Two paths through a room
# ------------------------
# A sound comes to the listener on the direct way, and later by echoes that decay.

import time

import matplotlib.pyplot as plt
import numpy as np
import scipy.linalg

import structmat as sm

rng = np.random.default_rng(3)
length = 1500
decay = np.exp(-np.arange(length) / 300)
paths = 0.2 * rng.standard_normal((2, length)) * decay
paths[:, 0] = 1.0
paths[1] = np.roll(paths[1], 3)
paths[1, :3] = 0.0

# %%
# The equations
# -------------
# The filters g shall make the sum of the two convolutions one pulse, after a delay d. The convolutions with both
# paths are a rectangular block Toeplitz matrix A, with blocks of one row and two columns. The normal equations
# :math:`(A^H A + \epsilon I) g = A^H b` have the correlations of the paths as blocks of 2 x 2, and
# :class:`~structmat.BlockToeplitz` solves them directly. Two paths have an exact answer if the filters have as many
# taps as a path, minus one [#miyoshi]_.


def convolutions(paths, taps):
    """The matrix from the taps of all filters to what the listener hears."""
    column = np.zeros((paths.shape[1] + taps - 1, 1, len(paths)))
    column[: paths.shape[1], 0] = paths.T
    row = np.zeros((taps, 1, len(paths)))
    return sm.BlockToeplitz(column, row)


def equaliser(paths, taps, delay, strength=1e-9):
    """The filters of least squares, shape (paths, taps), and what the listener hears of a pulse."""
    A = convolutions(paths, taps)
    pulse = np.zeros(A.shape[0])
    pulse[delay] = 1.0
    spectra = np.fft.rfft(paths, 2 * paths.shape[1])
    lags = np.fft.irfft(spectra[:, None].conj() * spectra)[..., : paths.shape[1]].transpose(2, 0, 1)
    blocks = np.zeros((taps, len(paths), len(paths)))
    blocks[: len(lags)] = lags[:taps]
    blocks[0] += strength * np.eye(len(paths))
    filters = sm.BlockToeplitz(blocks).solve(A.T @ pulse)
    return filters.reshape(taps, -1).T, A @ filters


delay = 500
cases = {
    "no filter": (None, np.roll(np.append(paths[0], np.zeros(length - 1)), delay)),
    "one loudspeaker": equaliser(paths[:1], length - 1, delay),
    "one, filter four times as long": equaliser(paths[:1], 4 * length, delay),
}
begun = time.process_time()
cases["two loudspeakers"] = filters, heard = equaliser(paths, length - 1, delay)
seconds = time.process_time() - begun
for name, (_, response) in cases.items():
    echoes = np.sum(np.delete(response, delay) ** 2) / response[delay] ** 2
    print(f"{name:>30}: echoes of {10 * np.log10(echoes):6.1f} dB")

# %%
# The dense matrix, which is square here and has 2,998 rows, takes about as long at this size. With twice the length
# it takes eight times as long, and the recursion here four times.

A = convolutions(paths, length - 1)
pulse = np.zeros(A.shape[0])
pulse[delay] = 1.0
begun = time.process_time()
dense = scipy.linalg.solve(A.to_dense(), pulse)
print(
    f"here {seconds:.2f} s, dense {time.process_time() - begun:.2f} s; residual {np.linalg.norm(A @ dense - pulse):.0e}"
)

# %%
# What is heard of a pulse
# ------------------------
# The term with the small number :math:`\epsilon` keeps the filters small where the paths have a common weakness.

figure, axes = plt.subplots(2, 2, figsize=(9, 5.8), layout="constrained", sharex=True, sharey=True)
for ax, (name, (_, response)) in zip(axes.flat, cases.items(), strict=True):
    level = 20 * np.log10(np.maximum(np.abs(response[:2200]), 1e-9))
    ax.vlines(np.arange(2200) - delay, -130, level, color="#0072B2", linewidth=0.6)
    ax.set(title=name, ylim=(-130, 5))
    ax.grid(color="0.9")
for ax in axes[1]:
    ax.set_xlabel("samples after the pulse")
for ax in axes[:, 0]:
    ax.set_ylabel("level in dB")
plt.show()

# %%
# The filter is right for this one place: with several places to listen at, the blocks have one row for each.
# :doc:`plot_wiener_filter` and :doc:`plot_bss_evaluation` solve systems of the same kind. Reference:
#
# .. [#miyoshi] Miyoshi, M., Kaneda, Y., Inverse filtering of room acoustics, IEEE Transactions on Acoustics,
#    Speech, and Signal Processing 36, 1988.
