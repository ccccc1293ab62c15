"""
When is an operator faster than the dense matrix?
=================================================

Transforms need fewer operations than a dense matrix, but each call costs some microseconds before it begins. This page
shows from which size on a circulant is faster than a dense product, and what ``prepare`` gains. The times are those of
the machine that built this page; on other machines they differ, but the picture is similar.
"""

# %%
# Time of a product
# -----------------
# Each product is that with one vector in double precision. The best of a few repetitions is taken, to reduce the
# influence of other work on the machine.

import timeit

import matplotlib.pyplot as plt
import numpy as np

import structmat as sm


def microseconds(product):
    """The time of one call."""
    timer = timeit.Timer(product)
    count = max(1, int(0.002 / max(timer.timeit(3) / 3, 1e-7)))
    return 1e6 * min(timer.repeat(5, count)) / count


rng = np.random.default_rng(0)
sizes = 2 ** np.arange(4, 17)
times = {"dense": [], "operator": [], "prepared": []}
for n in sizes:
    C, x = sm.Circulant(rng.standard_normal(n)), rng.standard_normal(n)
    prepared = C.prepare()
    times["operator"].append(microseconds(lambda C=C, x=x: C.matvec(x)))
    times["prepared"].append(microseconds(lambda P=prepared, x=x: P.matvec(x)))
    if n <= 4096:
        dense = C.to_dense()
        times["dense"].append(microseconds(lambda A=dense, x=x: A @ x))
    else:
        times["dense"].append(np.nan)

# %%
# For small sizes a prepared operator uses the dense matrix, so it costs little more than the dense product; from a few
# hundred entries on transforms are faster. :doc:`/performance` has all measurements.

figure, ax = plt.subplots(figsize=(8, 4.2), layout="constrained")
styles = {"dense": ("0.4", "s"), "operator": ("#0072B2", "^"), "prepared": ("#D55E00", "o")}
for name, values in times.items():
    ax.loglog(sizes, values, color=styles[name][0], marker=styles[name][1], linewidth=2, label=name, base=2)
ax.set(xlabel="side n", ylabel="microseconds a product")
ax.set_yscale("log", base=10)
ax.grid(color="0.9")
ax.legend(frameon=False)
plt.show()
