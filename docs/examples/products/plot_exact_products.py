"""
Which product of circulants and diagonals equals a matrix?
==========================================================

Every matrix is a product of circulants and diagonals, and the question is how many factors it takes. The Fourier matrix
has three factors, a random permutation has about twice as many factors as rows, and a matrix of low rank or with few
diagonals has only a few.
"""

# %%
# Four matrices
# -------------
# :func:`structmat.factorize_cdd` looks for few factors first, and has constructions for all other matrices.

import matplotlib.pyplot as plt
import numpy as np
import scipy.linalg

import structmat as sm

n = 64
rng = np.random.default_rng(0)
matrices = {
    "tridiagonal": 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1),
    "rank 2": rng.standard_normal((n, 2)) @ rng.standard_normal((2, n)),
    "random permutation": np.eye(n)[rng.permutation(n)],
    "Fourier": scipy.linalg.dft(n, scale="sqrtn"),
}
products = {name: sm.factorize_cdd(W, rng=0) for name, W in matrices.items()}
for name, result in products.items():
    print(f"{name:20} {result.operator.n_factors:4d} factors, error {result.error:.0e}, {result.start}")

# %%
# The Fourier matrix as three vectors
# -----------------------------------
# By Bluestein's identity :math:`j k = (j^2 + k^2 - (j - k)^2) / 2` the Fourier matrix is a multiplication by a chirp, a
# convolution with a chirp, and a multiplication by a chirp. The fit finds such factors. Colours are phases.

figure, axes = plt.subplots(1, 5, figsize=(13, 3), layout="constrained", width_ratios=(3, 0.5, 3, 3, 3))
factors = products["Fourier"].operator.factors
titles = ("Fourier matrix", "=", *(type(factor).__name__ for factor in factors))
drawn = (matrices["Fourier"], None, *(np.asarray(factor.to_dense()) for factor in factors))
for ax, title, values in zip(axes, titles, drawn, strict=True):
    if values is None:
        ax.axis("off")
        ax.text(0.5, 0.5, title, fontsize=24, ha="center", va="center")
        continue
    phase = np.ma.masked_where(abs(values) < 1e-9, np.angle(values))
    ax.imshow(phase, cmap="twilight", vmin=-np.pi, vmax=np.pi)
    ax.set(title=title, xticks=[], yticks=[])
plt.show()

# %%
# Errors of partial products
# --------------------------
# Partial products of the factors of the permutation are not close to it; only the product of all factors is.

figure, ax = plt.subplots(figsize=(9, 4.8), layout="constrained")
result, W = products["random permutation"], matrices["random permutation"]
partial, overlap = np.eye(n, dtype=complex), []
for factor in result.operator.factors:
    partial = partial @ np.asarray(factor.to_dense())
    overlap.append(abs(np.vdot(partial, W)) / np.linalg.norm(partial) / np.linalg.norm(W))
ax.plot(np.arange(1, len(overlap) + 1), overlap, color="#0072B2")
ax.plot(len(overlap), overlap[-1], "o", color="#D55E00", label="all factors")
ax.set(xlabel="factors multiplied", ylabel="cosine of the angle to the matrix", ylim=(0, 1.05))
ax.grid(color="0.9")
ax.legend(frameon=False, loc="upper left")
plt.show()
