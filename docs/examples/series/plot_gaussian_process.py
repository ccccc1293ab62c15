"""
What do noisy measurements say about a curve?
=============================================

Four thousand noisy measurements at the points of a grid tell much about the true curve, and about the process that it
is a sample of. The covariance matrix of a stationary process on a grid is a Toeplitz matrix, whose linear systems and
determinant take a fraction of a second.
"""

# %%
# The model
# ---------
# The curve has a Matérn covariance of order 3/2, and the variance of the noise is added on the diagonal. The dense
# matrix would hold 16.8 million entries, while the operator holds 4,096.

import matplotlib.pyplot as plt
import numpy as np
import torch

import structmat as sm
from structmat.sampling import sample_stationary

n, length, noise = 4096, 160.0, 0.4  # the length scale in steps of the grid


def matern(steps, length=length, exp=np.exp):
    scaled = 3**0.5 * steps / length
    return (1 + scaled) * exp(-scaled)


# %%
# A sample
# --------
# :func:`~structmat.sampling.sample_stationary` puts the covariance into a larger circulant matrix, whose square root
# times white noise is an exact sample.

rng = np.random.default_rng(4)
truth = sample_stationary(matern, n, rng=rng)[0]
measured = truth + noise * rng.standard_normal(n)

# %%
# The posterior mean
# ------------------
# The posterior mean is ``K (K + noise**2 I)^-1 y``: a linear system and a product.

K = sm.Toeplitz(matern(np.arange(n)))
mean = K @ (K + noise**2 * sm.Identity(n)).solve(measured)
print(f"root mean square error: measurements {noise}, posterior mean {np.sqrt(np.mean((mean - truth) ** 2)):.2f}")

# %%
# The band
# --------
# :func:`~structmat.posterior_variances` says how uncertain the mean is at all points: within two standard deviations
# lie about 95 % of the truth.

deviation = np.sqrt(sm.posterior_variances(K, noise**2).variances)
print(f"within the band: {np.mean(np.abs(truth - mean) < 2 * deviation):.0%}")

figure, ax = plt.subplots(figsize=(9, 4), layout="constrained")
ax.fill_between(np.arange(n), mean - 2 * deviation, mean + 2 * deviation, color="#D55E00", alpha=0.25, linewidth=0)
ax.plot(measured, ".", color="0.8", markersize=2, label="measurements")
ax.plot(truth, color="black", linewidth=1.4, label="truth")
ax.plot(mean, color="#D55E00", linewidth=2, linestyle="--", label="posterior mean")
ax.set(xlabel="position in steps of the grid", ylabel="value", xlim=(0, n))
ax.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.12), markerscale=4)
plt.show()

# %%
# Length scale and noise
# ----------------------
# Suppose that neither is known. The log-likelihood of measurements y with covariance C is ``-(y^T C^-1 y + log det C +
# n log(2 pi)) / 2``; :meth:`~structmat.LinearOperator.solve` and :meth:`~structmat.LinearOperator.slogdet` compute it
# exactly, and in torch its gradient, so that L-BFGS finds where it is largest. The standard deviations come from the
# second derivatives there.

steps, y = torch.arange(n, dtype=torch.float64), torch.from_numpy(measured)


def log_likelihood(logarithms):
    length, noise = torch.exp(logarithms)
    C = sm.Toeplitz(matern(steps, length, torch.exp)) + noise**2 * sm.Identity(n)
    return -0.5 * (y @ C.solve(y) + C.slogdet().logabsdet + n * np.log(2 * np.pi))


logarithms = torch.log(torch.tensor([30.0, 1.0], dtype=torch.float64)).requires_grad_()
ascent = torch.optim.LBFGS([logarithms], max_iter=30, line_search_fn="strong_wolfe")


def loss():
    ascent.zero_grad()
    value = -log_likelihood(logarithms) / n
    value.backward()
    return value


ascent.step(loss)
best = logarithms.detach()
information = torch.stack(  # differences of gradients
    [
        torch.autograd.functional.jacobian(log_likelihood, best - step)
        - torch.autograd.functional.jacobian(log_likelihood, best + step)
        for step in 1e-3 * torch.eye(2, dtype=torch.float64)
    ]
)
deviations = torch.sqrt(torch.diagonal(torch.linalg.inv(information / 2e-3)))
for name, value, deviation, given in zip(("length", "noise"), best.exp(), deviations, (length, noise), strict=True):
    print(f"{name}: {value:.3g} +- {value * deviation:.1g}, the sample was drawn with {given:.3g}")

lengths = np.geomspace(60, 400, 13)
logs = torch.log(torch.tensor([[each, best[1].exp()] for each in lengths], dtype=torch.float64))
values = np.array([float(log_likelihood(each)) for each in logs])
figure, ax = plt.subplots(figsize=(8, 5), layout="constrained")
ax.semilogx(lengths, values - float(log_likelihood(best)), "o-", color="#0072B2")
ax.set_xticks([50, 100, 200, 400], ["50", "100", "200", "400"])
ax.minorticks_off()
ax.axvline(length, color="0.6", linestyle="--")
ax.axvline(float(best[0].exp()), color="#D55E00")
ax.set(xlabel="length scale in steps of the grid", ylabel="log likelihood, below the largest", ylim=(-60, 3))
plt.show()
