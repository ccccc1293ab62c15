"""
Can points of 4,096 coordinates be compared by 256?
===================================================

Whoever searches among many vectors would like them to be short. A random projection keeps all distances within some
per cent whatever the vectors are, and random signs followed by a random circulant, a product C D, do it as well as
a full random matrix, in O(n log n) and with two vectors to keep.
"""

# %%
# Three projections
# -----------------
# Each vector is multiplied by random signs D, then by a circulant C whose first column is random, and some entries
# of the product are kept [#hinrichs]_. Without the signs the circulant alone is no good for smooth vectors. The
# signs are cheap, and the product is a :class:`~structmat.CDDProduct`, of which some rows are chosen.

import time

import matplotlib.pyplot as plt
import numpy as np

import structmat as sm

n, kept, points = 4096, 256, 200
rng = np.random.default_rng(0)
C = sm.Circulant(rng.standard_normal(n) / kept**0.5)
D = sm.Diagonal(rng.choice((-1.0, 1.0), n))
rows = np.sort(rng.permutation(n)[:kept])
projections = {
    "signs and circulant": (C @ D)[rows],
    "circulant without signs": C[rows],
    "dense random matrix": sm.Dense(rng.standard_normal((kept, n)) / kept**0.5),
}
print(C @ D)

# %%
# Smooth vectors
# --------------
# Two hundred bumps of different places and widths, as spectra or images have.

t = np.linspace(0, 1, n)
centres, widths = rng.uniform(0, 1, points), rng.uniform(0.01, 0.2, points)
vectors = np.exp(-(((t - centres[:, None]) / widths[:, None]) ** 2)) * rng.uniform(0.5, 2, points)[:, None]


def distances(vectors):
    products = vectors @ vectors.T
    squares = np.diag(products)
    pairs = np.triu_indices(points, 1)
    return np.sqrt((squares[:, None] + squares - 2 * products)[pairs])


true = distances(vectors)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained", width_ratios=(1, 1.3))
left.plot(t, vectors[:6].T, linewidth=1.5)
left.set(xlabel="coordinate", yticks=[], title=f"six of {points} vectors", xticks=(0, 1), xticklabels=("0", f"{n:,}"))
for (name, P), colour in zip(projections.items(), ("#0072B2", "#E69F00", "#D55E00"), strict=True):
    ratios = distances(P.matvec(vectors)) / true
    print(f"{name:>25}: ratios of distances have the standard deviation {ratios.std():.3f}")
    right.hist(ratios, np.linspace(0.6, 1.4, 81), histtype="step", linewidth=2, color=colour, label=name)
right.set(xlabel="distance after over distance before", ylabel="pairs")
right.legend(frameon=False, fontsize="x-small")
plt.show()

# %%
# How fast and how large
# ----------------------
# What a dense matrix of Gaussian numbers would take grows with the product of both lengths. The circulant is a few
# transforms, and not slower for more rows.

for n in (4096, 65_536):
    dense = rng.standard_normal((256, n), dtype=np.float32)
    x = rng.standard_normal((8, n), dtype=np.float32)
    signs = sm.Diagonal(rng.choice(np.array([-1, 1], dtype=np.float32), n))
    product = (sm.Circulant(rng.standard_normal(n, dtype=np.float32)) @ signs).prepare()
    seconds = []
    for multiply in (product.matvec, lambda x, A=dense: x @ A.T):
        multiply(x)
        begun = time.process_time()
        multiply(x)
        seconds.append(1e3 * (time.process_time() - begun))
    print(f"n = {n:6,}: circulant {seconds[0]:5.2f} ms, {8 * n / 1e6:.2f} MB of numbers", end="; ")
    print(f"dense {seconds[1]:5.2f} ms, {dense.nbytes / 1e6:.0f} MB")

# %%
# Reference:
#
# .. [#hinrichs] Hinrichs, A., Vybíral, J., Johnson-Lindenstrauss lemma for circulant matrices, Random Structures
#    and Algorithms 39, 2011.
