"""
How many iterations does a Toeplitz system take?
================================================

A Toeplitz matrix multiplies a vector in O(n log n) operations, so conjugate gradients are a natural method for Toeplitz
systems. How many iterations the method takes depends on the eigenvalues, and it can be hundreds. With a circulant that
is close to the matrix as preconditioner, whose inverse costs two transforms, it is a few.

This example solves two symmetric positive definite systems with SciPy's ``cg``, without a preconditioner and with those
of Strang and T. Chan.
"""

# %%
# Two matrices
# ------------
# Both have a slowly decaying first column. The second is the covariance of a first-order autoregressive process, with a
# condition number near 10,000.

import matplotlib.pyplot as plt
import numpy as np
from scipy.sparse.linalg import cg

from structmat import Toeplitz, preconditioners
from structmat.scipy import as_linear_operator

n = 1024
k = np.arange(n)
columns = {
    r"polynomial decay, $t_k = (1 + k)^{-1.1}$": (1.0 + k) ** -1.1,
    r"exponential decay, $t_k = 0.98^k$": 0.98**k,
}

# %%
# Solving
# -------
# The matrix is a :class:`structmat.Toeplitz`, and ``preconditioners.strang(T)`` a :class:`structmat.Circulant`; its
# ``inv()`` is a circulant again. :func:`structmat.scipy.as_linear_operator` converts both for SciPy. The callback
# records the true relative residual.

choices = {
    "none": None,
    "Strang": preconditioners.strang,
    "T. Chan": preconditioners.chan,
}
b = np.random.default_rng(0).standard_normal(n)


def residuals(t, make_circulant):
    """Solve the system with first column t; return the relative residuals."""
    T = Toeplitz(t)
    M = make_circulant and as_linear_operator(make_circulant(T).inv())
    history = [1.0]

    def record(x):
        history.append(np.linalg.norm(b - T @ x) / np.linalg.norm(b))

    _, info = cg(as_linear_operator(T), b, rtol=1e-10, M=M, callback=record)
    if info:
        raise RuntimeError("not converged")
    return np.array(history)


histories = {title: {name: residuals(t, choice) for name, choice in choices.items()} for title, t in columns.items()}

# %%
# Iterations until the relative residual is below 1e-10
# -----------------------------------------------------

print(f"{'preconditioner':16}{'polynomial':>12}{'exponential':>12}")
for name in choices:
    counts = [len(runs[name]) - 1 for runs in histories.values()]
    print(f"{name:16}{counts[0]:12d}{counts[1]:12d}")

# %%
# With either circulant both systems need a small fraction of the iterations.

styles = {
    "none": {"color": "0.45"},
    "Strang": {"color": "#0072B2"},
    "T. Chan": {"color": "#D55E00", "linestyle": "--"},
}
figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
for ax, (title, runs) in zip(axes, histories.items(), strict=True):
    for name, history in runs.items():
        steps = np.arange(1, len(history) + 1)
        ax.loglog(steps, history, linewidth=2, label=name, **styles[name])
    ax.set(title=title, xlabel="iteration + 1", ylim=(3e-12, 30))
    ax.grid(color="0.9")
axes[0].set_ylabel("relative residual")
axes[1].legend(frameon=False, loc="lower right")
plt.show()
