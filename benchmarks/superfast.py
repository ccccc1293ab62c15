"""Claim: likelihoods of series of 100,000 points with gaps and uneven noise take seconds, with gradients.

A tenth of the points is missing, the noise has variances of 0.01 to 0.1 beside covariances of one at zero. Kernels:
squared exponential, Matérn 3/2 and 5/2 and rational quadratic with a length of 10 steps, ``(1 + k / 10)^-0.5`` and a
damped cosine, all of which are exact; and fractional Gaussian noise (H = 0.8), a quasi-periodic kernel, and a periodic
one plus the squared exponential, whose factors are looser, with an error that was measured. `structmat.slogdet` and
`structmat.solve` of NumPy arrays each make their own factor; of a prepared operator, which keeps it, both are timed
together, the preparation included, and one solution more. Gradient: the same two calls of a prepared operator of torch
and the derivatives by the first column and the noise. Errors are relative to a dense Cholesky factor of LAPACK. Seconds
are the processor's, of one core; --out writes a section of ``likelihoods.md``.
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

KERNELS: dict[str, Callable[[Any], Any]] = {
    "squared exponential": lambda k: np.exp(-0.5 * (k / 10) ** 2),
    "Matérn 3/2": lambda k: (1 + k / 10) * np.exp(-k / 10),
    "Matérn 5/2": lambda k: (1 + k / 10 + (k / 10) ** 2 / 3) * np.exp(-k / 10),
    "rational quadratic": lambda k: 1 / (1 + 0.5 * (k / 10) ** 2),
    "long memory": lambda k: (1 + k / 10) ** -0.5,
    "fractional noise": lambda k: ((k + 1) ** 1.6 - 2 * k**1.6 + np.abs(k - 1) ** 1.6) / 2,
    "quasi-periodic": lambda k: np.exp(-0.5 * (k / 2000) ** 2 - 2 * np.sin(k / 7) ** 2),
    "periodic plus squared exponential": lambda k: np.exp(-2 * np.sin(k / 7) ** 2) + np.exp(-0.5 * (k / 10) ** 2),
    "damped cosine": lambda k: np.exp(-k / 1000) * np.cos(2 * np.pi * k / 20),
}
DENSE = 4000
"""The most points for which a dense factor is computed."""


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.process_time()
    return function(), time.process_time() - begun


def gradient(c: Any, noise: Any, seen: Any, b: Any) -> None:
    """Compute a likelihood and its derivatives by the first column and the noise."""
    column, variances = (torch.tensor(values, requires_grad=True) for values in (c, noise))
    P = (sm.Toeplitz(column) + sm.Diagonal(variances))[seen][:, seen].prepare()
    right = torch.tensor(b)
    (right @ sm.solve(P, right).x + sm.slogdet(P).logabsdet).backward()


def both(A: sm.LinearOperator, b: Any) -> sm.LinearOperator:
    """Compute a log-determinant and a solution, and return the prepared operator."""
    P = A.prepare()
    sm.slogdet(P)
    sm.solve(P, b)
    return P


def row(name: str, n: int) -> list[object]:
    rng = np.random.default_rng(0)
    c, noise, seen = KERNELS[name](np.arange(float(n))), rng.uniform(0.01, 0.1, n), rng.random(n) > 0.1
    b = rng.standard_normal(np.count_nonzero(seen))
    A = (sm.Toeplitz(c) + sm.Diagonal(noise))[seen][:, seen]
    (_, log, error), value = timed(lambda: sm.slogdet(A))
    solution, solved = timed(lambda: sm.solve(A, b))
    P, together = timed(lambda: both(A, b))
    _, again = timed(lambda: sm.solve(P, b))
    _, with_gradient = timed(lambda: gradient(c, noise, seen, b))
    texts = [f"{seconds:.3g}" for seconds in (value, solved, together, again, with_gradient)]
    cells = [name, f"{n:,}", f"{log:,.4f}", f"{error:.0e}" if error else "0", f"{solution.residual:.0e}", *texts]
    if n > DENSE:
        return [*cells, "", ""]
    dense = A.to_dense()
    L, seconds = timed(lambda: scipy.linalg.cho_factor(dense, lower=True))
    exact = 2 * np.sum(np.log(np.diag(L[0])))
    return [*cells, f"{abs(log / exact - 1):.0e}", f"{seconds:.3g}"]


def main() -> None:
    options = begin(parser(__doc__))
    sizes = (1500,) if options.quick else (4000, 100_000)
    row("damped cosine", 1500)  # so that what the libraries do once is not counted
    rows = [row(name, n) for n in sizes for name in KERNELS]
    if not options.quick:
        rows += [row(name, 1_000_000) for name in ("Matérn 3/2", "squared exponential")]
    head = ["kernel", "n", "log-determinant", "standard error", "residual", "`slogdet`", "`solve`", "prepared, both"]
    head += ["another `solve`", "prepared, both, gradient", "error", "dense factor"]
    finish(
        options.out,
        "likelihoods",
        "Direct factors of series with gaps",
        "Seconds by the call, and relative errors of log-determinants:",
        table(head, rows, left=1),
        packages=("structmat", "torch", "scipy"),
    )


if __name__ == "__main__":
    main()
