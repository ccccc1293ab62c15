"""
Which noise harms private training least?
=========================================

Training with differential privacy adds noise to each gradient, and what harms the model is the noise in the sums of all
gradients so far. Noise that is correlated in time harms these sums far less: ``C^-1`` times white noise, with a banded
triangular Toeplitz matrix C. Which one is best?
"""

# %%
# The error of a mechanism
# ------------------------
# With A the lower triangular matrix of ones and ``A = B C``, the sums are published as ``B (C x + z)``. A gradient x_i
# changes ``C x`` by a column of C, so the noise z must be as large as the largest norm of a column; the error of a sum
# is this times the norm of its row of B. If the same person's data come back after ``separation`` steps at the
# earliest, and C has no more bands than that, the columns of their gradients do not overlap, and their norms add up in
# squares: this is the mechanism BandToeplitz [#mckenna]_.

import matplotlib.pyplot as plt
import numpy as np
import torch

import structmat as sm

n, separation = 2048, 64


def squared_errors(C, participations=1):
    first_column = torch.cumsum(C.inv().c, 0)  # of B = A C^-1, which is a triangular Toeplitz matrix too
    return participations * torch.sum(C.c**2) * torch.cumsum(first_column**2, 0)


# %%
# The square root
# ---------------
# If C is the square root of A, the largest error is nearly the smallest that any factorisation has [#fhu]_. For large n
# it is ``(log n + 0.5772 + 4 log 2) / pi``. Independent noise, where C is the identity, has ``sqrt(n)``.

zeros = torch.zeros(n, dtype=torch.float64)
root = sm.Toeplitz(torch.ones_like(zeros), zeros).sqrtm()
print(root, "begins with", root.c[:5].numpy())
formula = (np.log(n) + 0.5772 + 4 * np.log(2)) / np.pi
print(f"largest error of n = 2,048 sums: {squared_errors(root)[-1] ** 0.5:.4f}, by the formula {formula:.4f}")

# %%
# Bands
# -----
# The first coefficients of the square root make a banded C [#kalinin]_. The best coefficients of a band are found by
# descent, as inverses have gradients. Here the mean squared error over all steps is minimised. For 2,048 steps and 64
# bands ``optimize_banded_toeplitz`` of jax_privacy 2.0.0 finds 26.729.


def banded(coefficients):
    return sm.Toeplitz(torch.cat([coefficients, zeros[len(coefficients) :]]), zeros)


def optimised(coefficients):
    coefficients = coefficients.clone().requires_grad_()
    descent = torch.optim.LBFGS([coefficients], max_iter=100, line_search_fn="strong_wolfe")

    def loss():
        descent.zero_grad()
        value = squared_errors(banded(coefficients)).mean().log()
        value.backward()
        return value

    descent.step(loss)
    return coefficients.detach()


bands = [1, 2, 4, 8, 16, 32, 64]
mechanisms = {"square root": [root.c[:k] for k in bands], "optimised": [optimised(root.c[:k]) for k in bands]}
times = n // separation
errors = {name: [squared_errors(banded(c), times).mean() ** 0.5 for c in each] for name, each in mechanisms.items()}
print(f"mean squared error, optimised: {squared_errors(banded(mechanisms['optimised'][-1])).mean():.3f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for (name, values), colour in zip(errors.items(), ("#0072B2", "#D55E00"), strict=True):
    left.loglog(bands, values, "o-", color=colour, label=f"{name}, banded")
    last = banded(mechanisms[name][-1])
    right.plot(squared_errors(last, times) ** 0.5, color=colour, label=f"{name}, 64 bands")
left.set(xlabel="bands", ylabel="root mean square error", title=f"{times} participations")
right.plot(np.sqrt(times * np.arange(1, n + 1)), color="0.6", label="independent noise")
right.set(xlabel="step", ylabel="error of the sum", ylim=(0, 60))
left.set_xticks(bands, list(map(str, bands)))
for ax in (left, right):
    ax.legend(frameon=False)
plt.show()

# %%
# Independent noise, with one band, leaves the largest error. References:
#
# .. [#fhu] Fichtenberger, H., Henzinger, M., Upadhyay, J., Constant matters: fine-grained error bound on differentially
#    private continual observation, ICML 2023, arXiv:2202.11205.
# .. [#kalinin] Kalinin, N., Lampert, C., Banded square root matrix factorization for differentially private model
#    training, NeurIPS 2024, arXiv:2405.13763.
# .. [#mckenna] McKenna, R., Scaling up the banded matrix factorization mechanism for differentially private ML, ICLR
#    2025, arXiv:2405.15913.
