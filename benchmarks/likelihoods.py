"""Claim: exact likelihoods of series of 100,000 points with gaps take seconds for any covariance, gradients included.

Covariances with a length of 10 steps and a variance of one: Matérn of order 3/2, for which tinygp and celerite2 have
recursions in O(n), and the squared exponential, for which they have none. A tenth of the points of a series is missing,
the noise has variances of 0.01 to 0.1. Ours are `structmat.solve` and `structmat.slogdet`, in torch for gradients, by
the length and a factor of the noise; tinygp, compiled, in JAX; celerite2, whose Matérn covariance is a limit, with
``eps=1e-5``; george, by its HODLR solver with ``tol=1e-11``, which takes more than 40 seconds for 4,000 points of the
Matérn covariance and is left out there; GPyTorch with Cholesky factors; LAPACK's factor of a dense matrix. In brackets
stand errors relative to LAPACK up to 4,000 points, and beyond to tinygp or george. All are in double precision. Seconds
are the processor's, of one core; --out writes ``likelihoods.md``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import _one_thread  # noqa: F401
import celerite2
import george
import gpytorch
import jax
import numpy as np
import scipy.linalg
import tinygp
import torch
from _common import begin, finish, parser, table

import structmat as sm

LENGTH, NOISE = 10.0, 0.01
DENSE = 4000
"""The most points for which dense factors are computed."""
Row = list[object]


def matern(xp: Any, distance: Any, length: Any = LENGTH) -> Any:
    return (1 + distance / length) * xp.exp(-distance / length)


def squared_exponential(xp: Any, distance: Any, length: Any = LENGTH) -> Any:
    return xp.exp(-0.5 * (distance / length) ** 2)


COVARIANCES: dict[str, Callable[..., Any]] = {"Matérn 3/2": matern, "squared exponential": squared_exponential}


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.process_time()
    return function(), time.process_time() - begun


VALUES = ("structmat", "tinygp", "celerite2", "george", "LAPACK")
GRADIENTS = ("structmat", "tinygp", "GPyTorch")


class Series(NamedTuple):
    """Measurements y at some of n points, with uneven noise, and the covariance of the process."""

    covariance: Callable[..., Any]
    n: int
    kept: Any
    noise: Any
    y: Any

    @classmethod
    def drawn(cls, covariance: Callable[..., Any], n: int) -> Series:
        rng = np.random.default_rng(0)
        kept = np.flatnonzero(rng.random(n) > 0.1)
        noise = rng.uniform(NOISE, 10 * NOISE, len(kept))
        process = sm.sampling.sample_stationary(lambda t: covariance(np, t), n, rng=1)[0, kept]
        return cls(covariance, n, kept, noise, process + np.sqrt(noise) * rng.standard_normal(len(kept)))

    def log_likelihood(self, square: Any, logdet: Any) -> Any:
        return -0.5 * (square + logdet + len(self.y) * np.log(2 * np.pi))


def by_structmat(series: Series) -> float:
    T = sm.Toeplitz(series.covariance(np, np.arange(series.n)))
    A = T[series.kept][:, series.kept] + sm.Diagonal(series.noise)
    x = sm.solve(A, series.y, assume="positive definite").x
    return series.log_likelihood(series.y @ x, sm.slogdet(A).logabsdet)


def gradient_by_structmat(series: Series) -> float:
    length, factor = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (LENGTH, 1.0))
    T = sm.Toeplitz(series.covariance(torch, torch.arange(series.n, dtype=torch.float64), length))
    A = T[series.kept][:, series.kept] + sm.Diagonal(factor * torch.from_numpy(series.noise))
    y = torch.from_numpy(series.y)
    value = series.log_likelihood(y @ sm.solve(A, y, assume="positive definite").x, sm.slogdet(A).logabsdet)
    value.backward()
    return float(value)


def by_lapack(series: Series) -> float:
    A = series.covariance(np, np.abs(series.kept[:, None] - series.kept)) + np.diag(series.noise)
    factor = scipy.linalg.cho_factor(A, overwrite_a=True)
    square = series.y @ scipy.linalg.cho_solve(factor, series.y)
    return series.log_likelihood(square, 2 * np.sum(np.log(np.diag(factor[0]))))


def by_tinygp(series: Series) -> tuple[Callable[[], float], Callable[[], float]]:
    def value(length: Any, factor: Any) -> Any:
        kernel = tinygp.kernels.quasisep.Matern32(scale=length * 3**0.5)
        return tinygp.GaussianProcess(kernel, 1.0 * series.kept, diag=factor * series.noise).log_probability(series.y)

    compiled, with_gradient = jax.jit(value), jax.jit(jax.value_and_grad(value, (0, 1)))
    return (
        lambda: float(compiled(LENGTH, 1.0)),
        lambda: float(jax.block_until_ready(with_gradient(LENGTH, 1.0))[0]),
    )


def by_celerite2(series: Series) -> float:
    kernel = celerite2.terms.Matern32Term(sigma=1.0, rho=LENGTH * 3**0.5, eps=1e-5)
    process = celerite2.GaussianProcess(kernel)
    process.compute(1.0 * series.kept, diag=series.noise)
    return float(process.log_likelihood(series.y))


def by_george(series: Series) -> float:
    kernel = george.kernels.ExpSquaredKernel(LENGTH**2)
    process = george.GP(kernel, solver=george.HODLRSolver, tol=1e-11, min_size=100, seed=1)
    process.compute(1.0 * series.kept, np.sqrt(series.noise))
    return float(process.log_likelihood(series.y))


class Exact(gpytorch.models.ExactGP):
    """An exact process of GPyTorch, with noise that is given."""

    def __init__(self, at: Any, values: Any, noise: Any, kernel: Any) -> None:
        super().__init__(at, values, gpytorch.likelihoods.FixedNoiseGaussianLikelihood(noise))
        self.mean, self.kernel = gpytorch.means.ZeroMean(), kernel

    def forward(self, x: Any) -> Any:
        return gpytorch.distributions.MultivariateNormal(self.mean(x), self.kernel(x))


def gradient_by_gpytorch(series: Series) -> Callable[[], float]:
    noise, is_matern = torch.from_numpy(series.noise), series.covariance is matern
    at, values = torch.from_numpy(1.0 * series.kept), torch.from_numpy(series.y)
    kernel = gpytorch.kernels.MaternKernel(nu=1.5) if is_matern else gpytorch.kernels.RBFKernel()
    model = Exact(at, values, noise, kernel).double()
    model.kernel.lengthscale = LENGTH * 3**0.5 if is_matern else LENGTH
    likelihood = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)

    def gradient() -> float:
        with gpytorch.settings.max_cholesky_size(DENSE):
            value = likelihood(model(at), values) * len(values)
            value.backward()
        return float(value)

    return gradient


def likelihoods(name: str, n: int) -> tuple[Row, Row]:
    """Return the rows of values, and of values with gradients, of one series."""
    series = Series.drawn(COVARIANCES[name], n)
    values: dict[str, Callable[[], float] | None] = dict.fromkeys(VALUES)
    gradients: dict[str, Callable[[], float] | None] = dict.fromkeys(GRADIENTS)
    values["structmat"] = partial(by_structmat, series)
    gradients["structmat"] = partial(gradient_by_structmat, series)
    if name == "Matérn 3/2":
        values["tinygp"], gradients["tinygp"] = by_tinygp(series)
        values["celerite2"] = partial(by_celerite2, series)
    else:
        values["george"] = partial(by_george, series)
    if n <= DENSE:
        values["LAPACK"] = partial(by_lapack, series)
        gradients["GPyTorch"] = gradient_by_gpytorch(series)
    reference = values["LAPACK"] or values["tinygp"] or values["george"]
    exact = reference()

    def cell(call: Callable[[], float] | None) -> str:
        if call is None:
            return "-"
        call()  # what is compiled or imported once
        found, seconds = timed(call)
        return f"{seconds:.2g}" if call is reference else f"{seconds:.2g} ({abs(found / exact - 1):.0e})"

    print(n, name, flush=True)
    found = [[f"{n:,}", name, *map(cell, calls.values())] for calls in (values, gradients)]
    return found[0], found[1]


def main() -> None:
    options = begin(parser(__doc__))
    jax.config.update("jax_enable_x64", True)
    lengths = (200,) if options.quick else (4000, 20_000, 100_000)
    values, gradients = zip(*(likelihoods(name, n) for n in lengths for name in COVARIANCES), strict=True)
    parts = [
        "Likelihoods, in seconds:",
        table(["points", "covariance", *VALUES], values, left=2),
        "Likelihoods with gradients, in seconds:",
        table(["points", "covariance", *GRADIENTS], gradients, left=2),
    ]
    packages = ("structmat", "tinygp", "celerite2", "george", "gpytorch", "jax", "torch", "scipy")
    finish(options.out, "likelihoods", "Likelihoods of Gaussian processes", *parts, packages=packages)


if __name__ == "__main__":
    main()
