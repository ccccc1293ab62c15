"""Claim: exact likelihoods of series of 100,000 points with gaps take seconds, gradients included.

Covariances with a variance of one: Matérn of order 3/2 and a damped cosine of period 20, for which tinygp and celerite2
have recursions in O(n); the quasi-periodic ``exp(-t^2 / (2 length^2) - 2 sin(t / 7)^2)``; the rational quadratic ``1 /
(1 + t^2 / (2 length^2))``, whose tail is long; and the spherical one and the squared exponential, which are zero, or
zero to rounding beyond nine lengths, so that their matrices are bands. A tenth of the points of a series is missing,
the noise has variances of 0.1 to 0.2. Ours are `structmat.solve` and `structmat.slogdet` of one prepared operator, in
torch for gradients, by the length and a factor of the noise. Others: tinygp, compiled, in JAX; celerite2, whose Matérn
covariance is a limit, with ``eps=1e-5``; george, by its HODLR solver with ``tol=1e-8``, but for the Matérn covariance,
which takes it very long, and for 100,000 points of the quasi-periodic one, which it did not end in four minutes of a
busy machine; the band by `scipy.linalg.cholesky_banded`; GPyTorch with Cholesky factors; LAPACK's factor of a dense
matrix. In brackets stand differences relative to LAPACK up to 4,000 points, and beyond to tinygp, to the band, or,
where there is none, to structmat. All are in double precision. Seconds are the processor's, of one core; --out writes a
section of ``likelihoods.md``.
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

DENSE = 4000
"""The most points for which dense factors are computed."""
Row = list[object]


def matern(xp: Any, distance: Any, length: Any) -> Any:
    return (1 + distance / length) * xp.exp(-distance / length)


def squared_exponential(xp: Any, distance: Any, length: Any) -> Any:
    return xp.exp(-0.5 * (distance / length) ** 2)


def rational_quadratic(xp: Any, distance: Any, length: Any) -> Any:  # noqa: ARG001  # the others need the namespace
    return 1 / (1 + 0.5 * (distance / length) ** 2)


def spherical(xp: Any, distance: Any, length: Any) -> Any:
    ratio = distance / length
    return xp.where(ratio < 1, 1 - 1.5 * ratio + 0.5 * ratio**3, xp.zeros_like(ratio))


def damped_cosine(xp: Any, distance: Any, length: Any) -> Any:
    return xp.exp(-distance / length) * xp.cos(2 * np.pi / 20 * distance)


def quasi_periodic(xp: Any, distance: Any, length: Any) -> Any:
    return xp.exp(-0.5 * (distance / length) ** 2 - 2 * xp.sin(distance / 7) ** 2)


CASES: tuple[tuple[str, Callable[..., Any], float], ...] = (
    ("Matérn 3/2", matern, 10.0),
    ("damped cosine", damped_cosine, 1000.0),
    ("quasi-periodic", quasi_periodic, 2000.0),
    ("spherical", spherical, 60.0),
    ("spherical", spherical, 300.0),
    ("rational quadratic", rational_quadratic, 50.0),
    ("squared exponential", squared_exponential, 10.0),
    ("squared exponential", squared_exponential, 50.0),
)
"""Names, covariances and their lengths in steps."""


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.process_time()
    return function(), time.process_time() - begun


VALUES = ("structmat", "tinygp", "celerite2", "george", "band", "LAPACK")
GRADIENTS = ("structmat", "tinygp", "GPyTorch")


class Series(NamedTuple):
    """Numbers y at some of n points, the variances of their noise, and the covariance of the process."""

    covariance: Callable[..., Any]
    length: float
    n: int
    kept: Any
    noise: Any
    y: Any

    @classmethod
    def drawn(cls, covariance: Callable[..., Any], length: float, n: int) -> Series:
        rng = np.random.default_rng(0)
        kept = np.flatnonzero(rng.random(n) > 0.1)
        noise = rng.uniform(0.1, 0.2, len(kept))
        return cls(covariance, length, n, kept, noise, rng.standard_normal(len(kept)))

    def log_likelihood(self, square: Any, logdet: Any) -> Any:
        return -0.5 * (square + logdet + len(self.y) * np.log(2 * np.pi))


def by_structmat(series: Series) -> float:
    T = sm.Toeplitz(series.covariance(np, np.arange(series.n), series.length))
    A = (T[series.kept][:, series.kept] + sm.Diagonal(series.noise)).prepare()
    x = sm.solve(A, series.y).x
    return series.log_likelihood(series.y @ x, sm.slogdet(A).logabsdet)


def gradient_by_structmat(series: Series) -> float:
    length, factor = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (series.length, 1.0))
    T = sm.Toeplitz(series.covariance(torch, torch.arange(series.n, dtype=torch.float64), length))
    A = (T[series.kept][:, series.kept] + sm.Diagonal(factor * torch.from_numpy(series.noise))).prepare()
    y = torch.from_numpy(series.y)
    value = series.log_likelihood(y @ sm.solve(A, y).x, sm.slogdet(A).logabsdet)
    value.backward()
    return float(value)


def by_lapack(series: Series) -> float:
    A = series.covariance(np, np.abs(series.kept[:, None] - series.kept), series.length) + np.diag(series.noise)
    factor = scipy.linalg.cho_factor(A, overwrite_a=True)
    square = series.y @ scipy.linalg.cho_solve(factor, series.y)
    return series.log_likelihood(square, 2 * np.sum(np.log(np.diag(factor[0]))))


def by_band(series: Series) -> float:
    """Return the likelihood by the diagonals of the matrix that are not zero beside rounding."""
    covariances = series.covariance(np, np.arange(series.n), series.length)
    width, rows = int(np.sum(covariances >= 2**-53)), len(series.kept)
    band = np.zeros((min(width, rows), rows))
    for k, diagonal in enumerate(band):
        diagonal[: rows - k] = covariances[series.kept[k:] - series.kept[: rows - k]]
    band[0] += series.noise
    factor = scipy.linalg.cholesky_banded(band, lower=True, overwrite_ab=True, check_finite=False)
    square = series.y @ scipy.linalg.cho_solve_banded((factor, True), series.y)
    return series.log_likelihood(square, 2 * np.sum(np.log(factor[0])))


def by_tinygp(series: Series) -> tuple[Callable[[], float], Callable[[], float]]:
    def value(length: Any, factor: Any) -> Any:
        if series.covariance is matern:
            kernel = tinygp.kernels.quasisep.Matern32(scale=length * 3**0.5)
        else:
            kernel = tinygp.kernels.quasisep.Celerite(a=1.0, b=0.0, c=1 / length, d=2 * np.pi / 20)
        return tinygp.GaussianProcess(kernel, 1.0 * series.kept, diag=factor * series.noise).log_probability(series.y)

    compiled, with_gradient = jax.jit(value), jax.jit(jax.value_and_grad(value, (0, 1)))
    return (
        lambda: float(compiled(series.length, 1.0)),
        lambda: float(jax.block_until_ready(with_gradient(series.length, 1.0))[0]),
    )


def by_celerite2(series: Series) -> float:
    if series.covariance is matern:
        kernel = celerite2.terms.Matern32Term(sigma=1.0, rho=series.length * 3**0.5, eps=1e-5)
    else:
        kernel = celerite2.terms.ComplexTerm(a=1.0, b=0.0, c=1 / series.length, d=2 * np.pi / 20)
    process = celerite2.GaussianProcess(kernel)
    process.compute(1.0 * series.kept, diag=series.noise)
    return float(process.log_likelihood(series.y))


def by_george(series: Series) -> float:
    if series.covariance is rational_quadratic:
        kernel = george.kernels.RationalQuadraticKernel(log_alpha=0.0, metric=series.length**2)
    else:
        kernel = george.kernels.ExpSquaredKernel(series.length**2)
    if series.covariance is quasi_periodic:
        kernel = kernel * george.kernels.ExpSine2Kernel(gamma=2.0, log_period=np.log(7 * np.pi))
    process = george.GP(kernel, solver=george.HODLRSolver, tol=1e-8, min_size=100, seed=1)
    process.compute(1.0 * series.kept, np.sqrt(series.noise))
    return float(process.log_likelihood(series.y))


OF_GPYTORCH: dict[Callable[..., Any], Callable[[], Any]] = {
    matern: lambda: gpytorch.kernels.MaternKernel(nu=1.5),
    rational_quadratic: gpytorch.kernels.RQKernel,
    squared_exponential: gpytorch.kernels.RBFKernel,
}


class Exact(gpytorch.models.ExactGP):
    """An exact process of GPyTorch, with noise that is given."""

    def __init__(self, at: Any, values: Any, noise: Any, kernel: Any) -> None:
        super().__init__(at, values, gpytorch.likelihoods.FixedNoiseGaussianLikelihood(noise))
        self.mean, self.kernel = gpytorch.means.ZeroMean(), kernel

    def forward(self, x: Any) -> Any:
        return gpytorch.distributions.MultivariateNormal(self.mean(x), self.kernel(x))


def gradient_by_gpytorch(series: Series) -> Callable[[], float]:
    noise, at, values = (torch.from_numpy(1.0 * v) for v in (series.noise, series.kept, series.y))
    model = Exact(at, values, noise, OF_GPYTORCH[series.covariance]()).double()
    model.kernel.lengthscale = series.length * (3**0.5 if series.covariance is matern else 1)
    if series.covariance is rational_quadratic:
        model.kernel.alpha = 1.0
    likelihood = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)

    def gradient() -> float:
        with gpytorch.settings.max_cholesky_size(DENSE):
            value = likelihood(model(at), values) * len(values)
            value.backward()
        return float(value)

    return gradient


def likelihoods(case: tuple[str, Callable[..., Any], float], n: int) -> tuple[Row, Row]:
    """Return the rows of values, and of values with gradients, of one series."""
    name, covariance, length = case
    series = Series.drawn(covariance, length, n)
    values: dict[str, Callable[[], float] | None] = dict.fromkeys(VALUES)
    gradients: dict[str, Callable[[], float] | None] = dict.fromkeys(GRADIENTS)
    values["structmat"] = partial(by_structmat, series)
    gradients["structmat"] = partial(gradient_by_structmat, series)
    if covariance in {matern, damped_cosine}:
        values["tinygp"], gradients["tinygp"] = by_tinygp(series)
        values["celerite2"] = partial(by_celerite2, series)
    if covariance in {rational_quadratic, squared_exponential} or (covariance is quasi_periodic and n <= DENSE):
        values["george"] = partial(by_george, series)
    if covariance in {squared_exponential, spherical}:
        values["band"] = partial(by_band, series)
    if n <= DENSE:
        values["LAPACK"] = partial(by_lapack, series)
    if n <= DENSE and covariance in OF_GPYTORCH:
        gradients["GPyTorch"] = gradient_by_gpytorch(series)
    reference = values["LAPACK"] or values["tinygp"] or values["band"] or values["structmat"]
    exact = reference()

    def cell(library: str, call: Callable[[], float] | None) -> str:
        if call is None:
            return "-"
        if library in {"structmat", "tinygp"}:
            call()  # what is compiled or imported once
        found, seconds = timed(call)
        return f"{seconds:.2g}" if call is reference else f"{seconds:.2g} ({abs(found / exact - 1):.0e})"

    print(n, name, length, flush=True)
    first = [f"{n:,}", name, f"{length:.0f}"]
    of_values, of_gradients = ([*first, *(cell(*item) for item in calls.items())] for calls in (values, gradients))
    return of_values, of_gradients


def main() -> None:
    options = begin(parser(__doc__))
    jax.config.update("jax_enable_x64", True)
    numbers = (200,) if options.quick else (4000, 100_000)
    values, gradients = zip(*(likelihoods(case, n) for n in numbers for case in CASES), strict=True)
    parts = [
        "Likelihoods, in seconds:",
        "<!-- beside others -->",
        table(["points", "covariance", "length", *VALUES], values, left=3),
        "Likelihoods with gradients, in seconds:",
        table(["points", "covariance", "length", *GRADIENTS], gradients, left=3),
        "<!-- /beside others -->",
    ]
    packages = ("structmat", "tinygp", "celerite2", "george", "gpytorch", "jax", "torch", "scipy")
    finish(options.out, "likelihoods", "Likelihoods of Gaussian processes", *parts, packages=packages)


if __name__ == "__main__":
    main()
