"""
Can a blurred image be sharpened?
=================================

Whoever takes a picture out of focus asks this, and the answer depends on the noise. Blur that is the same everywhere is
a circulant of two levels (also called BCCB), and so is every filter that removes it: both are given by an array of the
size of the image.
"""

# %%
# An image and its blur
# ---------------------
# A :class:`~structmat.MultilevelCirculant` is made from the kernel on the grid, and convolves the image on the grid.

import matplotlib.pyplot as plt
import numpy as np

import structmat as sm

n = 192
y, x = np.mgrid[:n, :n] / n
image = 0.15 + 0.1 * y
image += 0.75 * (np.hypot(x - 0.32, y - 0.35) < 0.17) - 0.55 * (np.hypot(x - 0.32, y - 0.35) < 0.09)
image += 0.6 * ((abs(x - 0.68) < 0.22) & (abs(y - 0.72) < 0.14) & ((12 * (x + y)) % 2 < 1))
image += 0.5 * ((x > 0.62) & (y < 0.45) & ((24 * x**2) % 2 < 1))

distance = np.minimum(np.arange(n), n - np.arange(n))  # on a circle: what leaves on the left comes in on the right
kernel = np.exp(-0.5 * (np.hypot(distance[:, None], distance) / 3.0) ** 2)
C = sm.MultilevelCirculant.from_kernel(kernel / kernel.sum())
blurred = C.convolve(image) + 0.002 * np.random.default_rng(0).standard_normal((n, n))

# %%
# Remove the blur
# ---------------
# The inverse of the blur is a circulant, but useless: it divides by eigenvalues near zero and so amplifies noise.
# Tikhonov's filter :math:`(C^H C + \lambda I)^{-1} C^H` is a product of circulants and therefore one too. The dense
# matrix would have a billion entries, the filter has as many as the image.

filters = {strength: (C.H @ C + strength * sm.Identity(n * n)).inv() @ C.H for strength in (3e-4, 5e-3, 1e-1)}
for strength, operator in filters.items():
    error = np.linalg.norm(operator.convolve(blurred) - image) / np.linalg.norm(image)
    print(f"lambda = {strength:.0e}: {type(operator).__name__}, relative error {error:.3f}")

# %%
# With too little regularisation noise remains, with too much blur. This scene ends where it begins, on a torus. For a
# photograph, whose scene goes on outside, see :doc:`/tutorials/edges`.

figure, axes = plt.subplots(1, 5, figsize=(13, 3), layout="constrained")
shown = {"image": image, "blurred, with noise": blurred}
shown |= {rf"$\lambda$ = {strength:.0e}": operator.convolve(blurred) for strength, operator in filters.items()}
for ax, (title, values) in zip(axes, shown.items(), strict=True):
    ax.imshow(values, cmap="gray", vmin=0, vmax=1)
    ax.set(title=title, xticks=[], yticks=[])
plt.show()
