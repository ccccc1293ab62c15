"""
How many factors does a matrix need?
====================================

Whoever wants to write a matrix as a product of diagonals and circulants asks how long the product must be, and it
depends on the matrix. Some matrices have a short exact form. Most have none with fewer than n + 1 factors, as shorter
products have fewer parameters than the matrix has entries. For a matrix without structure every factor lowers the error
by about the same amount.
"""

# %%
# Seven matrices
# --------------
# All of them have 32 rows. One is a part of the change of a weight matrix in fine-tuning, and six have a known
# structure.

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import scipy

import structmat as sm

n = 32
rng = np.random.default_rng(0)
# beside the folder of this script, or the working directory where there is no script
folder = Path(globals().get("__file__", "here")).parent / "../data"
change = np.load(folder / "minilm_banking77_l3_value.npy").astype(float)[:n, :n]
matrices = {
    "weight change": change,
    "Gaussian": rng.standard_normal((n, n)),
    "low rank (2)": rng.standard_normal((n, 2)) @ rng.standard_normal((2, n)),
    "Toeplitz": scipy.linalg.toeplitz(rng.standard_normal(n), rng.standard_normal(n)),
    "DCT": scipy.fft.dct(np.eye(n), norm="ortho", axis=0),
    "permutation": np.eye(n)[rng.permutation(n)],
    "planted (3)": sm.CDDProduct.from_vectors(*rng.standard_normal((3, n))).to_dense(),
}

# %%
# One call per matrix
# -------------------
# The fit with fewer factors is one of the starting points of each fit, so the error never rises. To save time there is
# one random start here; by default there are more, and the errors are slightly lower.

curves = {
    name: sm.error_curve(
        W, n_factors=(1, 3, 5, 7, 9), rng=0, restarts=1, max_iter=600, baselines=name == "weight change"
    )
    for name, W in matrices.items()
}

figure, ax = plt.subplots(figsize=(8, 4.8), layout="constrained")
colours = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
for (name, curve), colour, marker in zip(curves.items(), colours, "os^vD<P", strict=True):
    ax.plot(curve.n_factors, curve.error, marker=marker, color=colour, label=name)
ax.set(xlabel="number of factors", ylabel="relative error", xticks=(1, 3, 5, 7, 9), ylim=(-0.02, 1.02))
ax.grid(color="0.9")
ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
plt.show()

# %%
# Observations:
#
# - The planted product is found with three factors, the matrix of rank two with fewer factors than nine, the
#   known bound of 4 k + 1 for the rank k.
# - For the Toeplitz matrix, whose structure is close to that of a circulant, every factor lowers the error much.
# - For the Gaussian matrix, which has no structure, every factor lowers the error by about the same amount.
# - The curve of the weight change is similar, except for the effect of a few larger singular values.
# - The random permutation has smaller errors than the Gaussian matrix at first, and the largest from five factors on.

# %%
# Compared with other families
# ----------------------------
# The table has the least error of each family of matrices with at most as many parameters as the product has.

curves["weight change"]

# %%
# The same as a figure. Sparse Fourier matrices look best because the positions of their coefficients are not counted as
# parameters; :doc:`/theory` says more.

curves["weight change"].plot().figure
