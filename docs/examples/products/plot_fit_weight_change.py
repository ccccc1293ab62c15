"""
Is the change of a trained matrix close to a short product?
===========================================================

The change of one weight matrix of a language model in fine-tuning is fitted by a product of a diagonal, a circulant and
a diagonal matrix, and compared with the truncated singular value decomposition (SVD) with at most as many parameters.

The result: such matrices are not close to any short CDD product. This says little about an adapter of this form that is
*trained*, since it need not imitate the change.
"""

# %%
# One fit
# -------
# The matrix is the change of the attention query weights in the last layer of the sentence encoder all-MiniLM-L6-v2,
# fine-tuned to classify questions of a bank's customers (BANKING77). The file ``README.md`` beside the matrices says
# how they were made.

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from structmat import fit_cdd

# beside the folder of this script, or the working directory where there is no script
folder = Path(globals().get("__file__", "here")).parent / "../data"
W = np.load(folder / "minilm_banking77_l5_query.npy")
result = fit_cdd(W, rng=0)
result

# %%
# The matrix, the fit, and what is left
# -------------------------------------
# The fit is close to a matrix of rank one: its second singular value is small, and the residual keeps most of the
# structure.

from structmat.plot import fit_figure

fit_figure(W, result)

# %%
# More parameters
# ---------------
# With smaller blocks the circulant factor has more parameters. The SVD makes better use of them: the more parameters,
# the smaller its error compared with that of the fit.


def truncated_svd_error(singular_values, rank):
    """Return the relative error of the best approximation of a given rank."""
    squares = singular_values**2
    return float(np.sqrt(squares[rank:].sum() / squares.sum()))


figure, axes = plt.subplots(1, 3, figsize=(11, 4), sharey=True, layout="constrained")
for ax, name in zip(axes, ("l5_query", "l3_value", "l0_query"), strict=True):
    A = np.load(folder / f"minilm_banking77_{name}.npy").astype(float)
    s = np.linalg.svd(A, compute_uv=False)
    fits = [fit_cdd(A, block_size=b, rng=0) for b in (384, 192, 96, 48, 24)]
    print(name)
    for fit in fits:
        rank = fit.n_parameters // sum(A.shape)
        print(
            f"  blocks of {fit.block_size:3d}: {fit.n_parameters:5,d} parameters, "
            f"error {fit.error:.4f}; SVD of rank {rank} {truncated_svd_error(s, rank):.4f}"
        )
    parameters, errors = [fit.n_parameters for fit in fits], [fit.error for fit in fits]
    ax.plot(parameters, errors, "o-", color="#0072B2", label="D · block circulant · D")
    ranks = np.arange(1, 10)
    svd_errors = [truncated_svd_error(s, rank) for rank in ranks]
    ax.plot(ranks * sum(A.shape), svd_errors, "s--", color="#D55E00", label="truncated SVD")
    ax.set(title=name, xlabel="parameters", ylim=(0, 1.02), xlim=(0, 7200))
    ax.grid(color="0.9")
axes[0].set_ylabel("relative Frobenius error")
axes[0].legend(frameon=False, loc="lower left")
plt.show()
