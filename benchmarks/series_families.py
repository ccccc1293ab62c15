"""Claim: the log-determinant of a series of any usual covariance comes with an error that is known, and is small.

Nineteen covariances, as libraries of Gaussian processes build them, with gaps (none, a tenth, a block, every third,
nine tenths) and noise from 1e-8, 1e-2 or 1e2 to ten times that, or even noise of 1e-2. Up to 2,401 points all twenty
combinations are computed, beyond that each covariance has one, in turns, and of 12,001 points every fifth. Up to these
the error is that to a dense Cholesky factor of LAPACK. A result holds if its error is at most four times the standard
error that is returned, or 1e-12 of the number of points plus the modulus of the logarithm, and if the standard error is
at most 0.01; where the condition is above 1e10, 1e-9 and 1e-6 of that sum; and if the residual of the solution is at
most 1e-10, or the rounding of LAPACK. For 200 points the factor is asked for, which by default is not made of so few.
Seconds are the processor's, of one core, the largest of a row: `slogdet`; that and `solve` of one prepared operator;
the same in torch with derivatives by the first column and the noise. --out writes ``series_families.md``.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import _one_thread  # noqa: F401
import numpy as np
import scipy.linalg
import torch
from _common import begin, finish, parser, shown, table

import structmat as sm


def fractional(hurst: float) -> Callable[[Any], Any]:
    """Return the covariance of fractional Gaussian noise by the usual formula, whose differences lose digits."""
    return lambda k: ((k + 1) ** (2 * hurst) - 2 * k ** (2 * hurst) + np.abs(k - 1) ** (2 * hurst)) / 2


def spherical(k: Any) -> Any:
    return np.where(k < 60, 1 - 1.5 * k / 60 + 0.5 * (k / 60) ** 3, 0.0)


def wendland(k: Any) -> Any:
    r = np.minimum(k / 80, 1)
    return (1 - r) ** 4 * (4 * r + 1)


def matern(k: Any) -> Any:
    return (1 + k / 300) * np.exp(-k / 300)


def squared_exponential(k: Any) -> Any:
    return np.exp(-0.5 * (k / 10) ** 2)


def periodic(k: Any) -> Any:
    return np.exp(-2 * np.sin(k / 7) ** 2)


COVARIANCES: dict[str, Callable[[Any], Any]] = {
    "spherical": spherical,
    "triangle": lambda k: np.maximum(1 - k / 100, 0.0),
    "Wendland C2": wendland,
    "squared exponential": squared_exponential,
    "Matérn 1/2": lambda k: np.exp(-k / 20),
    "Matérn 3/2": matern,
    "Matérn 5/2": lambda k: (1 + k / 10 + (k / 10) ** 2 / 3) * np.exp(-k / 10),
    "rational quadratic": lambda k: 1 / (1 + 0.5 * (k / 10) ** 2),
    "fractional noise, H = 0.1": fractional(0.1),
    "fractional noise, H = 0.8": fractional(0.8),
    "fractional noise, H = 0.95": fractional(0.95),
    "periodic": periodic,
    "periodic with sharp peaks": lambda k: np.exp(-0.5 * (k / 500) ** 2 - 8 * np.sin(k / 30) ** 2),
    "quasi-periodic, squared exponential decay": lambda k: np.exp(-0.5 * (k / 2000) ** 2) * periodic(k),
    "quasi-periodic, exponential decay": lambda k: np.exp(-k / 2000) * periodic(k),
    "damped cosine": lambda k: np.exp(-k / 1000) * np.cos(2 * np.pi * k / 20),
    "periodic plus squared exponential": lambda k: periodic(k) + squared_exponential(k),
    "Matérn times periodic plus squared exponential": lambda k: matern(k) * periodic(k) + squared_exponential(k) / 2,
    "spherical plus Matérn": lambda k: spherical(k) + matern(k),
}
GAPS = ("none", "a tenth", "a block", "every third", "nine tenths")
NOISE = ((1e-8, 10), (1e-2, 10), (1e2, 10), (1e-2, 1))
"""The least noise, and the largest in units of that."""
ALL = 2401
"""The most points of which all combinations are computed."""
DENSE = 12_001
"""The most points for which a dense factor is computed."""


class Case(NamedTuple):
    """One series and what was found for it."""

    error: float
    returned: float
    holds: bool
    seconds: tuple[float, ...]


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.process_time()
    return function(), time.process_time() - begun


def there_of(gaps: str, n: int, rng: np.random.Generator) -> Any:
    """Return the mask of the points that are there."""
    there = np.ones(n, bool)
    if gaps == "a tenth":
        there = rng.random(n) > 0.1
    elif gaps == "a block":
        there[n // 3 : n // 2] = False
    elif gaps == "every third":
        there[::3] = False
    elif gaps == "nine tenths":
        there = rng.random(n) > 0.9
    return there


def both(A: sm.LinearOperator, b: Any, method: Any) -> tuple[Any, Any]:
    P = A.prepare()
    return sm.slogdet(P, method=method), sm.solve(P, b, method=method, assume="positive definite")


def with_gradient(c: Any, noise: Any, there: Any, b: Any) -> None:
    column, variances = (torch.tensor(values, requires_grad=True) for values in (c, noise))
    P = (sm.Toeplitz(column) + sm.Diagonal(variances))[there][:, there].prepare()
    right = torch.tensor(b)
    (right @ sm.solve(P, right, assume="positive definite").x + sm.slogdet(P).logabsdet).backward()


def computed(name: str, n: int, gaps: str, noise: tuple[float, int]) -> Case:
    """Return what is found for one series."""
    rng = np.random.default_rng(0)
    there = there_of(gaps, n, rng)
    least, most = noise
    variances = rng.uniform(least, most * least, n)
    c = COVARIANCES[name](np.arange(float(n)))
    A = (sm.Toeplitz(c) + sm.Diagonal(variances))[there][:, there]
    b = rng.standard_normal(A.shape[0])
    method = sm.Superfast() if n <= 1024 else None
    seconds = []
    if n > ALL:
        seconds.append(timed(lambda: sm.slogdet(A, method=method))[1])
    (determinant, solution), together = timed(lambda: both(A, b, method))
    seconds.append(together)
    if n > DENSE:
        seconds.append(timed(lambda: with_gradient(c, variances, there, b))[1])
    log, returned = float(determinant.logabsdet), float(determinant.standard_error)
    size = A.shape[0] + abs(log)
    condition = (c[0] + 2 * np.sum(np.abs(c[1:]))) / least
    is_ill = condition > 1e10
    holds = returned <= (1e-6 * size if is_ill else 0.01) and solution.residual <= max(1.01e-10, 1e-15 * condition)
    error = np.nan
    if n <= DENSE:
        places = np.flatnonzero(there)
        K = scipy.linalg.toeplitz(c)[np.ix_(places, places)]
        K[np.diag_indices_from(K)] += variances[places]
        L = scipy.linalg.cholesky(K, lower=True, overwrite_a=True, check_finite=False)
        error = abs(log - 2 * np.sum(np.log(np.diag(L))))
        holds &= error <= 4 * returned + (1e-9 if is_ill else 1e-12) * size
    return Case(error, returned, bool(holds), tuple(seconds))


def row(name: str, n: int) -> list[object]:
    """Return the row of one covariance: the largest numbers of its cases."""
    combinations = [(gaps, noise) for noise in NOISE for gaps in GAPS]
    if n > ALL:
        place = list(COVARIANCES).index(name)
        combinations = [(GAPS[(place + 1) % len(GAPS)], NOISE[(place + 1) % len(NOISE)])]
    cases = [computed(name, n, *each) for each in combinations]
    held = sum(case.holds for case in cases)
    of_one = f"{combinations[0][0]}, {combinations[0][1][0]:g}" if n > ALL else "all"
    error = f"{max(case.error for case in cases):.0e}" if n <= DENSE else ""
    returned = f"{max(case.returned for case in cases):.0e}"
    seconds = [f"{max(each):.2g}" for each in zip(*(case.seconds for case in cases), strict=True)]
    if n <= ALL:
        seconds.insert(0, "")
    cells = [f"{n:,}", name, of_one, f"{held} of {len(cases)}", error, returned, *seconds]
    return [*cells, *[""] * (9 - len(cells))]


def main() -> None:
    options = begin(parser(__doc__))
    warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)  # of residuals above rtol, which the table compares
    sizes = (100,) if options.quick else (200, ALL, DENSE, 100_352)
    rows = shown(row(name, n) for n in sizes for name in list(COVARIANCES)[:: 5 if n == DENSE else 1])
    head = ["points", "covariance", "gaps and noise", "held", "largest error", "largest standard error", "`slogdet`"]
    finish(
        options.out,
        "likelihoods",
        "Log-determinants of series by family of covariances",
        "How many results hold, largest errors, and seconds:",
        table([*head, "both", "both, gradient"], rows, left=3),
        packages=("structmat", "torch", "scipy"),
    )


if __name__ == "__main__":
    main()
