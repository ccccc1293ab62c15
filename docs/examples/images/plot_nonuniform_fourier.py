"""
An image from samples of its Fourier transform: how to iterate fast?
====================================================================

A scanner for magnetic resonance measures the Fourier transform of an image along spokes, not on a grid. Least
squares takes many products with the transform A and its adjoint; but the matrix :math:`A^H A` depends on
differences of pixels alone, so that :class:`~structmat.MultilevelToeplitz` multiplies by it without any transform
off the grid.
"""

# %%
# A scan
# ------
# Spokes through the centre, fewer than there are pixels along a side, and noise. The transform of so small an image
# can be written with two small matrices, one for each axis.

import time

import matplotlib.pyplot as plt
import numpy as np

import structmat as sm

n, spokes, readout = 96, 48, 192
rng = np.random.default_rng(0)
y, x = (np.mgrid[:n, :n] + 0.5) / n * 2 - 1
ellipses = [  # height, half axes, centre, angle
    (1.0, 0.85, 0.65, 0.0, 0.0, 0.0),
    (-0.7, 0.80, 0.60, 0.0, 0.0, 0.0),
    (0.5, 0.30, 0.14, -0.05, 0.24, 0.3),
    (0.4, 0.36, 0.18, 0.05, -0.24, -0.3),
    (0.4, 0.08, 0.08, 0.45, 0.0, 0.0),
    (0.5, 0.05, 0.03, 0.62, 0.1, 0.0),
    (0.5, 0.05, 0.03, 0.62, -0.1, 0.0),
    (0.3, 0.16, 0.20, -0.52, 0.0, 0.0),
]
image = np.zeros((n, n))
for height, a, b, row, col, angle in ellipses:
    u = (y - row) * np.cos(angle) + (x - col) * np.sin(angle)
    v = (x - col) * np.cos(angle) - (y - row) * np.sin(angle)
    image += height * ((u / a) ** 2 + (v / b) ** 2 < 1)

angles = np.pi * np.arange(spokes) / spokes
radii = (np.arange(readout) + 0.5) / readout - 0.5
k = np.stack([np.outer(np.sin(angles), radii).ravel(), np.outer(np.cos(angles), radii).ravel()])
rows, cols = np.exp(-2j * np.pi * k[:, :, None] * np.arange(n))  # of each sample and row, each sample and column


def transform(image):
    return np.sum((rows @ image) * cols, axis=1)


def adjoint(samples):
    return rows.conj().T @ (samples[:, None] * cols.conj())


samples = transform(image)
samples += 0.3 * (rng.standard_normal(samples.shape) + 1j * rng.standard_normal(samples.shape))

# %%
# The Gram matrix
# ---------------
# Entry (p, q) of :math:`A^H A` is the sum over the samples of :math:`e^{2 \pi i k (p - q)}`. One adjoint transform
# of ones, on a grid of all differences, gives the matrix.

differences = np.arange(1 - n, n)
row_phases, col_phases = np.exp(2j * np.pi * k[:, :, None] * differences)
gram = sm.MultilevelToeplitz.from_offsets(row_phases.T @ col_phases)
print(gram)


def milliseconds(product):
    """The time of a second call, and its result."""
    product()
    begun = time.process_time()
    value = product()
    return 1e3 * (time.process_time() - begun), value


prepared = gram.prepare()
plain, expected = milliseconds(lambda: adjoint(transform(image)))
fast, found = milliseconds(lambda: prepared @ image.ravel())
difference = np.abs(found - expected.ravel()).max() / np.abs(expected).max()
print(f"A and its adjoint {plain:.1f} ms, the Gram matrix {fast:.1f} ms; they differ by {difference:.0e}")

# %%
# Libraries of such transforms, which interpolate on a finer grid, need far less time than the two small matrices
# here. The Gram matrix needs no interpolation at all, and is exact.
#
# Least squares
# -------------
# There are fewer spokes than the image needs, so a small multiple of the second differences is added, which are a
# matrix of the same kind. :func:`structmat.solve` iterates. Its usual preconditioner, a circulant of two levels,
# does not help this matrix, whose samples leave parts of the plane of frequencies empty, so none is used. For
# comparison stands the direct formula: each sample weighted by its distance from the centre, and one adjoint.

values = np.zeros((n, n))
values[0, 0], values[1, 0], values[0, 1] = 4.0, -1.0, -1.0
differences = sm.MultilevelToeplitz.from_covariance(values)
right = adjoint(samples).ravel()
pictures = {"image": image}
direct = adjoint(samples * np.tile(np.abs(radii), spokes)).real
pictures["direct formula"] = direct * np.vdot(direct, image) / np.vdot(direct, direct)
for weight in (1.0, 30.0):
    A = gram + weight * differences
    begun = time.process_time()
    x, residual, steps = sm.solve(A, right, assume="positive definite", rtol=1e-6, preconditioner=None)
    pictures[f"least squares, {weight:g}"] = x.real.reshape(n, n)
    print(f"weight {weight:4g}: {steps} steps in {time.process_time() - begun:.2f} s, residual {residual:.0e}")

figure, axes = plt.subplots(1, 4, figsize=(10, 3.5), layout="constrained")
for ax, (title, picture) in zip(axes, pictures.items(), strict=True):
    error = np.linalg.norm(picture - image) / np.linalg.norm(image)
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1.1)
    ax.set(title=title, xlabel=f"error {error:.2f}", xticks=[], yticks=[])
plt.show()

# %%
# :doc:`/guide/questions` has the Gram matrix in three lines. Reference:
#
# Fessler, J. A., Lee, S., Olafsson, V. T., Shi, H. R., Noll, D. C., Toeplitz-based iterative image reconstruction
# for MRI with correction for magnetic field inhomogeneity, IEEE Transactions on Signal Processing 53, 2005.
