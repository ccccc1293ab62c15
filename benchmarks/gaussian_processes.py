"""Claim: log-determinants of grids of two axes are estimated to a thousandth; Cholesky factors take O(n^2).

Cholesky factors: from the first column of ``0.99^k``, by `Toeplitz.cholesky`, and LAPACK's of a dense matrix that is
ready. Log-determinants: `structmat.slogdet` of Matérn covariances of order 3/2 on grids of two axes, with a length of
10 steps and a variance of one, beside noise of variance 0.01 or, where it is "uneven", of 0.01 to 0.1, and a dense
Cholesky factor. Of a grid with gaps a tenth of the points is missing. GPyTorch and lineax, as they come, beside the
same with our matrices. Series are in ``likelihoods.py`` and ``superfast.py``. Seconds are the processor's, of one core;
--out writes a section of ``likelihoods.md``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import _one_thread  # noqa: F401
import equinox as eqx
import gpytorch
import jax
import jax.numpy as jnp
import lineax
import numpy as np
import scipy.linalg
import torch
from _common import begin, finish, in_turns, parser, table

import structmat as sm
from structmat.jax import as_lineax
from structmat.torch import as_linear_operator

LENGTH, NOISE = 10.0, 0.01
Row = list[object]


def matern(xp: Any, distance: Any, length: Any = LENGTH) -> Any:
    return (1 + distance / length) * xp.exp(-distance / length)


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.process_time()
    return function(), time.process_time() - begun


def grid(sizes: tuple[int, int], noise: str, *, gaps: bool) -> sm.LinearOperator:
    """Return the covariance matrix of what is observed on a grid."""
    rng, steps = np.random.default_rng(0), np.meshgrid(*(np.arange(float(n)) for n in sizes), indexing="ij")
    covariance = matern(np, np.hypot(*steps))
    n = covariance.size
    D = NOISE * sm.Identity(n) if noise == "even" else sm.Diagonal(rng.uniform(NOISE, 10 * NOISE, n))
    A = sm.MultilevelToeplitz.from_covariance(covariance) + D
    kept = np.flatnonzero(rng.random(n) > 0.1)
    return A[kept][:, kept] if gaps else A


def cholesky(n: int) -> Row:
    c = 0.99 ** np.arange(n)
    T, A = sm.Toeplitz(c), scipy.linalg.toeplitz(c)
    calls = {"ours": T.cholesky, "LAPACK": lambda: scipy.linalg.cholesky(A, lower=True)}
    times = in_turns(calls, rounds=9, limit=8.0)
    errors = [f"{np.max(np.abs((L := call()) @ L.T - A)):.0e}" for call in calls.values()]
    return [f"{n:,}", *(f"{1e3 * median(times[name]):.3g}" for name in calls), *errors]


def logdet(sizes: tuple[int, int], noise: str, *, gaps: bool, dense: bool) -> Row:
    A = grid(sizes, noise, gaps=gaps)
    (_, log, error), seconds = timed(lambda: sm.slogdet(A, rng=0))
    name = " x ".join(f"{n:,}" for n in sizes) + (", gaps" if gaps else "")
    row = [name, noise, f"{log:,.1f}", f"{error:.1f}", f"{abs(error / log):.3%}", f"{seconds:.2f}"]
    if not dense:
        return [*row, "", ""]
    exact, by_lapack = timed(lambda: 2 * np.sum(np.log(np.diag(np.linalg.cholesky(A.to_dense())))))
    return [*row, f"{exact:,.1f}", f"{by_lapack:.2f}"]


class Exact(gpytorch.models.ExactGP):
    """An exact process of GPyTorch, of its own kernel or, on a whole grid, of our Toeplitz matrix."""

    def __init__(self, at: Any, values: Any, *, structured: bool) -> None:
        super().__init__(at, values, gpytorch.likelihoods.GaussianLikelihood())
        self.mean, self.kernel = gpytorch.means.ZeroMean(), gpytorch.kernels.MaternKernel(nu=1.5)
        self.structured = structured

    def forward(self, x: Any) -> Any:
        T = sm.Toeplitz(matern(torch, x[:, 0] if x.ndim > 1 else x, self.kernel.lengthscale[0, 0] / 3**0.5))
        K = as_linear_operator(T) if self.structured else self.kernel(x)
        return gpytorch.distributions.MultivariateNormal(self.mean(x), K)

    @classmethod
    def gradient(cls, at: Any, values: Any, *, structured: bool = False) -> Callable[[], None]:
        """Return a function that computes a likelihood and its gradient."""
        model = cls(at, values, structured=structured).double()
        model.kernel.lengthscale, model.likelihood.noise = LENGTH * 3**0.5, NOISE
        likelihood = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
        return lambda: torch.autograd.backward(-likelihood(model(at), values))


def bridges(n: int) -> list[object]:
    """Return the seconds of other libraries with their own matrices and with ours, after a first call."""
    y, T = np.random.default_rng(0).standard_normal(n), sm.Toeplitz(jnp.asarray(matern(np, np.arange(n))))
    points, values, A = torch.arange(n, dtype=torch.float64), torch.from_numpy(y), T + NOISE * sm.Identity(n)
    solver, tag = lineax.CG(1e-8, 1e-8, max_steps=10_000), lineax.positive_semidefinite_tag
    matrices = (lineax.MatrixLinearOperator(A.to_dense(), tag), as_lineax(A, tag))
    calls = [Exact.gradient(points, values, structured=structured) for structured in (False, True)]
    solved = eqx.filter_jit(lambda M: lineax.linear_solve(M, jnp.asarray(y), solver).value)
    calls += [lambda M=M: jax.block_until_ready(solved(M)) for M in matrices]
    return [f"{n:,}", *(f"{timed(call)[1]:.2f}" for call in calls if timed(call))]


def main() -> None:
    options = begin(parser(__doc__))
    jax.config.update("jax_enable_x64", True)
    sides = (64, 256) if options.quick else (256, 1000, 4096)
    grids = [(16, 16, True, True)] if options.quick else [(64, 64, False, True), (64, 64, True, True)]
    if not options.quick:
        grids.append((256, 256, False, False))  # with gaps it takes a minute
    logdets = [
        logdet((rows, cols), noise, gaps=gaps, dense=dense)
        for rows, cols, gaps, dense in grids
        for noise in ("even", "uneven")
    ]
    head = ["grid", "noise", "estimate", "error", "relative", "seconds", "exact", "seconds of LAPACK"]
    points = (200,) if options.quick else (2000, 4000)
    parts = [
        "Cholesky factors, milliseconds and largest errors:",
        "<!-- Cholesky factors -->",
        table(["n", "structmat", "LAPACK", "error", "of LAPACK"], map(cholesky, sides)),
        "<!-- /Cholesky factors -->",
        "Log-determinants:",
        "<!-- log-determinants -->",
        table(head, logdets, left=2),
        "<!-- /log-determinants -->",
        "A likelihood with its gradient in GPyTorch and a system in lineax, without gaps, in seconds:",
        table(["n", "GPyTorch", "with ours", "lineax, CG", "with ours"], map(bridges, points)),
    ]
    packages = ("structmat", "gpytorch", "jax", "scipy")
    finish(options.out, "likelihoods", "Gaussian processes on grids", *parts, packages=packages)


if __name__ == "__main__":
    main()
