"""
At which frequencies does a bladed disc ring?
=============================================

A turbine disc repeats itself from blade to blade, so that its stiffness matrix consists of circulant blocks, and
its vibrations are waves around the disc. The frequencies follow from one small matrix for each wave, in place of
one large matrix.
"""

# %%
# The model
# ---------
# A disc with 72 blades. Each sector is a row of 24 masses from the axis to the tip of the blade, with springs
# between neighbours, which get weaker towards the tip; the inner eight masses belong to the disc, and have springs
# to those of the next sectors. :class:`~structmat.BlockCirculant` holds a grid of 24 x 24 circulants, each by its
# first column.

import time

import matplotlib.pyplot as plt
import numpy as np

import structmat as sm

blades, masses, disc = 72, 24, 8
springs = np.linspace(6.0, 1.0, masses)  # towards the axis
around = np.where(np.arange(masses) < disc, 8.0, 0.0)  # to the next sectors
columns = np.zeros((masses, masses, blades))
for k in range(masses):
    columns[k, k, 0] = springs[k] + (springs[k + 1] if k + 1 < masses else 0) + 2 * around[k]
    columns[k, k, 1] = columns[k, k, -1] = -around[k]
    if k:
        columns[k, k - 1, 0] = columns[k - 1, k, 0] = -springs[k]
stiffness = sm.BlockCirculant(columns)
print(stiffness)

# %%
# Frequencies
# -----------
# The squares of the frequencies are the eigenvalues of this matrix, here of unit masses. For comparison, those of
# the dense matrix with its 1,728 rows:

begun = time.process_time()
squares = stiffness.eigvals().real
seconds = time.process_time() - begun
begun = time.process_time()
dense = np.linalg.eigvalsh(stiffness.to_dense())
difference = np.abs(np.sort(squares) - dense).max()
print(f"{seconds:.3f} s, dense {time.process_time() - begun:.2f} s; the largest difference is {difference:.0e}")

# %%
# Nodal diameters
# ---------------
# A wave with d periods around the disc has d diameters on which nothing moves. The transform of the columns along
# the sectors is the small matrix of each wave, with its frequencies and its shapes along a blade. Where the disc is
# stiff, with many diameters, the blades ring alone, and all waves have nearly the same frequency.

waves = np.arange(blades // 2 + 1)
small = np.fft.rfft(columns).real.transpose(2, 0, 1)
values, shapes = np.linalg.eigh(small)
print("the same lowest and highest values:", np.allclose([squares.min(), squares.max()], [values.min(), values.max()]))

figure = plt.figure(figsize=(9, 4.6), layout="constrained")
grid = figure.add_gridspec(1, 3, width_ratios=(1.3, 1, 1))
ax = figure.add_subplot(grid[0])
for family in range(4):
    ax.plot(waves, np.sqrt(values[:, family]), "o-", markersize=4, label=f"family {family + 1}")
ax.set(xlabel="nodal diameters", ylabel="frequency", ylim=(0, 1.3))
ax.grid(color="0.9")
ax.legend(frameon=False, ncols=2, loc="upper center")
angles = 2 * np.pi * np.arange(blades + 1) / blades
for place, (wave, family) in enumerate(((3, 0), (5, 1))):
    ax = figure.add_subplot(grid[place + 1], projection="polar")
    motion = np.outer(shapes[wave, :, family], np.cos(wave * angles[:-1]))
    ax.pcolormesh(angles, np.arange(masses + 1) + 6, motion, cmap="RdBu_r", shading="flat")
    ax.set(title=f"{wave} diameters, family {family + 1}", xticks=[], yticks=[], ylim=(0, masses + 6))
    ax.grid(visible=False)
plt.show()

# %%
# A shape of the picture is an eigenvector of the whole matrix:

vector = motion.ravel()
residual = np.linalg.norm(stiffness @ vector - values[5, 1] * vector) / np.linalg.norm(vector)
print(f"residual of an eigenvector: {residual:.0e}")

# %%
# Reference: Thomas, D. L., Dynamics of rotationally periodic structures, International Journal for Numerical
# Methods in Engineering 14, 1979.
