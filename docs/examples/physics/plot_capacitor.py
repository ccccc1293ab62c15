"""
What is the capacitance of two round plates?
============================================

The formula of textbooks, area over distance, ignores the field beside the plates, and is far off unless they are
very close. The exact answer solves Love's integral equation, whose kernel depends on the difference of two places
alone: on a grid it is a Toeplitz matrix, of which even 20,000 unknowns take a moment.
"""

# %%
# Love's equation
# ---------------
# Two discs of radius 1 at the distance d have the capacitance of the textbook times :math:`2 d / \pi` times the
# integral of f from -1 to 1 [#love]_, where f solves :math:`f(x) - \frac{d}{\pi} \int_{-1}^{1} \frac{f(y)}{d^2 + (x
# - y)^2} dy = 1`. The midpoint rule on n points gives each unknown the same weight, so the matrix is Toeplitz: the
# identity minus the kernel. When the plates are close the kernel is a narrow peak, which needs many points.

import time
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import scipy.linalg

import structmat as sm


def matrix(distance, n):
    kernel = (2 / n) * distance / np.pi / (distance**2 + (2 * np.arange(n) / n) ** 2)
    return sm.Identity(n) - sm.Toeplitz(kernel)


def ratio(distance, n):
    """The capacitance over that of the textbook."""
    return 4 * distance / np.pi * matrix(distance, n).solve(np.ones(n)).mean()


print(matrix(0.01, 20_000))

# %%
# Error of the midpoint rule
# --------------------------
# The error falls with the square of the number of points, so that two solutions give a better one: with n and 2 n
# points, four thirds of the second minus one third of the first. For plates at a hundredth of their radius:

sizes = 2 ** np.arange(8, 15)
values, seconds = [], []
for n in sizes:
    begun = time.process_time()
    values.append(ratio(0.01, n))
    seconds.append(time.process_time() - begun)
better = [(4 * fine - coarse) / 3 for coarse, fine in pairwise(values)]
print(
    f"{better[-1]:.9f} times the capacitance of the textbook; the last step changed it by {better[-1] - better[-2]:.0e}"
)

# %%
# Elimination of the dense matrix gives the same, and takes longer. Of 16,384 points this matrix would hold 2 GB.

begun = time.process_time()
dense = 0.04 / np.pi * scipy.linalg.solve(matrix(0.01, 2048).to_dense(), np.ones(2048), assume_a="pos").mean()
print(f"2,048 points, dense: {time.process_time() - begun:.2f} s, the same to {abs(dense / values[3] - 1):.0e}")
print(f"2,048 points: {seconds[3]:.3f} s; 16,384 points: {seconds[6]:.3f} s")

# %%
# All distances
# -------------
# Kirchhoff's formula adds a logarithm for the edge to the formula of the textbook [#kirchhoff]_, and is good for
# close plates. Far apart, the capacitance is that of two single discs in a row.

distances = np.geomspace(0.01, 10, 25)
exact = np.array([ratio(distance, 4000) for distance in distances])
kirchhoff = 1 + distances / np.pi * (np.log(16 * np.pi / distances) - 1)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
left.loglog(distances, exact, color="#0072B2", linewidth=3, label="Love's equation")
left.loglog(distances, kirchhoff, color="#D55E00", linestyle="--", linewidth=2, label="Kirchhoff")
left.loglog(distances, 4 * distances / np.pi, color="0.5", linestyle=":", linewidth=2, label="two discs far apart")
left.set(xlabel="distance over radius", ylabel="capacitance / textbook", ylim=(0.7, 20))
left.legend(frameon=False)
right.loglog(sizes, np.abs(np.array(values) - better[-1]), "o-", color="#0072B2", label="midpoint rule")
right.loglog(
    sizes[1:-1], np.abs(np.array(better[:-1]) - better[-1]), "s--", color="#009E73", label="from two solutions"
)
right.set(xlabel="points", ylabel="error", title="distance 0.01")
for ax in (left, right):
    ax.grid(color="0.9")
right.legend(frameon=False)
plt.show()

# %%
# References:
#
# .. [#love] Love, E. R., The electrostatic field of two equal circular co-axial conducting disks, Quarterly Journal
#    of Mechanics and Applied Mathematics 2, 1949.
# .. [#kirchhoff] Kirchhoff, G., Zur Theorie des Condensators, Monatsberichte der Akademie der Wissenschaften zu
#    Berlin, 1877.
