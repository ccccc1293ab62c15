"""Claim: likelihoods of series of several channels, with gaps and uneven noise, take seconds, with gradients.

A tenth of the numbers is missing, each channel where it will, and the noise has variances of 0.01 to 0.1. Covariances
are block Toeplitz matrices: of a Matérn 3/2 covariance times a matrix of full rank; of two latent series, a squared
exponential and the Matérn 3/2, of which each channel is a sum; of two latent series, a quasi-periodic and a Matérn 3/2
one; and of two spherical ones of range 60. `structmat.slogdet` and `structmat.solve` of a prepared operator are timed
together, the preparation included, and one solution more; with the gradient, the same in torch and the derivatives by
all blocks and by the noise. Errors are relative to a dense Cholesky factor of LAPACK. Seconds are the processor's, of
one core; --out writes a section of ``block_toeplitz.md``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import _one_thread  # noqa: F401
import numpy as np
import scipy.linalg
import torch
from _common import begin, finish, parser, table

import structmat as sm

Latent = Callable[[Any], Any]


def matern(k: Any) -> Any:
    return (1 + k / 10) * np.exp(-k / 10)


def squared_exponential(k: Any) -> Any:
    return np.exp(-0.5 * (k / 10) ** 2)


def quasi_periodic(k: Any) -> Any:
    return np.exp(-0.5 * (k / 2000) ** 2 - 2 * np.sin(k / 7) ** 2)


def spherical(k: Any) -> Any:
    return np.where(k < 60, 1 - 1.5 * k / 60 + 0.5 * (k / 60) ** 3, 0.0)


KINDS: dict[str, list[Latent]] = {
    "Matérn 3/2": [matern],
    "squared exponential and Matérn 3/2": [squared_exponential, matern],
    "quasi-periodic and Matérn 3/2": [quasi_periodic, matern],
    "spherical, two": [spherical, spherical],
}
DENSE = 8000
"""The most rows for which a dense factor is computed."""


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.process_time()
    return function(), time.process_time() - begun


def covariances(latent: list[Latent], n: int, p: int, rng: np.random.Generator) -> np.ndarray:
    """Return the blocks at all lags: those of one latent series have full rank, those of several rank one each."""
    k = np.arange(float(n))
    blocks = np.zeros((n, p, p))
    for covariance in latent:
        factors = rng.standard_normal((p, p if len(latent) == 1 else 1)) / np.sqrt(p)
        blocks += covariance(k)[:, None, None] * (factors @ factors.T)
    return blocks


def likelihood(c: Any, noise: Any, seen: Any, b: Any) -> tuple[Any, Any, Any]:
    """Return the prepared operator, its log-determinant and a solution."""
    P = (sm.BlockToeplitz(c) + sm.Diagonal(noise))[seen][:, seen].prepare()
    return P, sm.slogdet(P), sm.solve(P, b)


def gradient(c: Any, noise: Any, seen: Any, b: Any) -> None:
    blocks, variances = (torch.tensor(values, requires_grad=True) for values in (c, noise))
    right = torch.tensor(b)
    _, found, solution = likelihood(blocks, variances, seen, right)
    (right @ solution.x + found.logabsdet).backward()


def row(name: str, n: int, p: int) -> list[object]:
    rng = np.random.default_rng(0)
    c = covariances(KINDS[name], n, p, rng)
    noise, seen = rng.uniform(0.01, 0.1, n * p), rng.random(n * p) > 0.1
    b = rng.standard_normal(np.count_nonzero(seen))
    (P, (_, log, error), solution), together = timed(lambda: likelihood(c, noise, seen, b))
    _, again = timed(lambda: sm.solve(P, b))
    _, with_gradient = timed(lambda: gradient(c, noise, seen, b))
    texts = [f"{seconds:.3g}" for seconds in (together, again, with_gradient)]
    cells = [name, f"{n:,} x {p}", f"{log:,.4f}", f"{error:.0e}" if error else "0", f"{solution.residual:.0e}", *texts]
    if n * p > DENSE:
        return [*cells, "", ""]
    dense = P.to_dense()
    L, seconds = timed(lambda: scipy.linalg.cho_factor(dense, lower=True))
    exact = 2 * np.sum(np.log(np.diag(L[0])))
    return [*cells, f"{abs(log / exact - 1):.0e}", f"{seconds:.3g}"]


def main() -> None:
    options = begin(parser(__doc__))
    sizes = [(600, 2)] if options.quick else [(4000, 2), (4000, 4), (25_000, 2), (25_000, 4)]
    row("Matérn 3/2", 600, 2)  # so that what the libraries do once is not counted
    rows = [row(name, n, p) for n, p in sizes for name in KINDS]
    head = ["covariance", "points x channels", "log-determinant", "standard error", "residual", "prepared, both"]
    head += ["another `solve`", "prepared, both, gradient", "error", "dense factor"]
    finish(
        options.out,
        "block_toeplitz",
        "Direct factors of series of several channels",
        "Seconds, and relative errors of log-determinants:",
        table(head, rows, left=2),
        packages=("structmat", "torch", "scipy"),
    )


if __name__ == "__main__":
    main()
