"""
Weighting the fit by what the layer sees
========================================

What matters to a layer is not its weight matrix but its output. The inputs of a real layer fill the space unevenly, and
a fit that knows their second moments puts the error where no input goes.
"""

# %%
# A layer and its inputs
# ----------------------
# The change of the attention value weights in the third layer of all-MiniLM-L6-v2, fine-tuned on BANKING77, and the
# second moments ``S = E[x x^T]`` of the inputs `x` of that layer on its test questions. The squared error of the output
# is on average ``norm((W - P) S^(1/2))**2``. The fits here are of a quarter of the layer, inputs and outputs 0 to 63.

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import structmat as sm

# beside this script, or in the working directory where there is no script
folder = Path(globals().get("__file__", "here")).parent / "data"
n = 64
W = np.load(folder / "minilm_banking77_l3_value.npy").astype(float)[:n, :n]
S = np.load(folder / "minilm_banking77_l3_value_S.npy").astype(float)[:n, :n]
values = np.linalg.eigvalsh(S)[::-1]
print(f"one direction in {n} holds {values[0] / values.sum():.0%} of the energy of the inputs")

# %%
# With and without weights
# ------------------------
# ``input_second_moment=S`` is all it takes. The error of the result is then that of the output.

root = np.linalg.cholesky(S + 1e-6 * np.trace(S) / n * np.eye(n))


def errors(fit):
    """Return the relative errors of the matrix and of the output."""
    left = W - fit.operator.to_dense()
    return np.linalg.norm(left) / np.linalg.norm(W), np.linalg.norm(left @ root) / np.linalg.norm(W @ root)


numbers = (1, 3, 5)
plain = sm.error_curve(W, n_factors=numbers, rng=0)
weighted = sm.error_curve(W, n_factors=numbers, input_second_moment=S, rng=0)

print("factors   without weights      with weights       error of (matrix, output)")
for number, *fits in zip(numbers, plain.results, weighted.results, strict=True):
    print(f"{number:7}  ", "     ".join("{:.3f}, {:.3f}".format(*errors(fit)) for fit in fits))

# %%
# With weights the output is closer and the matrix further away, in places further than zero is: where no input goes,
# the fit may do anything. On the right the truncated SVD with as many parameters, weighted in the same way.

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), sharey=True, width_ratios=(1, 1.3), layout="constrained")
for curve, colour, name in ((plain, "#D55E00", "without weights"), (weighted, "#0072B2", "with weights")):
    matrix_errors, output_errors = np.transpose([errors(fit) for fit in curve.results])
    left.plot(numbers, output_errors, "o-", color=colour, label=f"output, {name}")
    left.plot(numbers, matrix_errors, "s:", color=colour, label=f"matrix, {name}", alpha=0.7)
left.set(xlabel="number of factors", ylabel="relative error", xticks=numbers)
left.grid(color="0.9")
left.legend(frameon=False)
weighted.plot(right)
right.set_ylim(0.0, 1.15)
plt.show()
