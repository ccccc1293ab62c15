"""
Which errors of a layer matter?
===============================

For a layer the error of the output matters, not that of the weight matrix. The inputs of a real layer are not spread
evenly over all directions, and a fit weighted by their second moments has its errors in directions in which there are
no inputs.
"""

# %%
# A layer and its inputs
# ----------------------
# The matrix is the change of the attention value weights in layer 3 (counted from 0) of all-MiniLM-L6-v2, fine-tuned on
# BANKING77. With it come the second moments ``S = E[x x^T]`` of the inputs `x` of that layer on the test questions. The
# squared error of the output is on average ``norm((W - P) S^(1/2))**2``. The fits here are of a corner, inputs and
# outputs 0 to 63.

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import structmat as sm
from structmat.plot import draw_curve

# beside the folder of this script, or the working directory where there is no script
folder = Path(globals().get("__file__", "here")).parent / "../data"
n = 64
W = np.load(folder / "minilm_banking77_l3_value.npy").astype(float)[:n, :n]
S = np.load(folder / "minilm_banking77_l3_value_S.npy").astype(float)[:n, :n]
values = np.linalg.eigvalsh(S)[::-1]
print(f"one direction in {n} holds {values[0] / values.sum():.0%} of the energy of the inputs")

# %%
# With and without weights
# ------------------------
# With ``input_second_moment=S`` the error of the result is that of the output. To save time there is one random start
# here.

root = np.linalg.cholesky(S + 1e-6 * np.trace(S) / n * np.eye(n))


def errors(fit):
    """Return the relative errors of the matrix and of the output."""
    left = W - fit.operator.to_dense()
    return np.linalg.norm(left) / np.linalg.norm(W), np.linalg.norm(left @ root) / np.linalg.norm(W @ root)


numbers = (1, 3, 5)
plain = sm.error_curve(W, n_factors=numbers, rng=0, restarts=1)
weighted = sm.error_curve(W, n_factors=numbers, input_second_moment=S, rng=0, restarts=1)

print("factors   without weights      with weights       error of (matrix, output)")
for number, *fits in zip(numbers, plain.results, weighted.results, strict=True):
    print(f"{number:7}  ", "     ".join("{:.3f}, {:.3f}".format(*errors(fit)) for fit in fits))

# %%
# With weights the error of the output is smaller and that of the matrix larger, in places larger than that of a zero
# matrix: directions without inputs do not count. On the right is the truncated SVD with at most as many parameters,
# weighted in the same way.

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), sharey=True, width_ratios=(1, 1.3), layout="constrained")
for curve, colour, name in ((plain, "#D55E00", "without weights"), (weighted, "#0072B2", "with weights")):
    matrix_errors, output_errors = np.transpose([errors(fit) for fit in curve.results])
    left.plot(numbers, output_errors, "o-", color=colour, label=f"output, {name}")
    left.plot(numbers, matrix_errors, "s:", color=colour, label=f"matrix, {name}", alpha=0.7)
left.set(xlabel="number of factors", ylabel="relative error", xticks=numbers)
left.grid(color="0.9")
left.legend(frameon=False)
draw_curve(weighted, right)
right.set_ylim(0.0, 1.15)
plt.show()
