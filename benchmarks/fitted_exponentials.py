"""Claim: sums of fitted exponentials let celerite2 take smooth covariances, to a few digits less in less time.

Series of 100,000 points of the rational quadratic and the squared exponential of length 50 and the spherical covariance
of range 60, as in ``likelihoods.py``: a tenth missing, noise of 0.1 to 0.2. None of these has an exact form for
celerite2. They are fitted by terms ``exp(-c t) (a cos(d t) + b sin(d t))`` with rates ``(c, d)`` along a ray, a
geometric sequence of which the ends and the angle are the best of a grid, and a, b by least squares on 1,600 lags.
Seconds of the processor are those of one value of the likelihood, without the fit, which has its own column;
"covariance" is the largest difference at these lags, "likelihood" the difference relative to `structmat.slogdet` and
`structmat.solve`, whose time is the first row of each. --out writes a section of ``likelihoods.md``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import _one_thread  # noqa: F401
import celerite2
import numpy as np
from _common import begin, finish, in_turns, parser, table
from likelihoods import Series, by_structmat, rational_quadratic, spherical, squared_exponential, timed

CASES: tuple[tuple[str, Callable[..., Any], float], ...] = (
    ("rational quadratic", rational_quadratic, 50.0),
    ("squared exponential", squared_exponential, 50.0),
    ("spherical", spherical, 60.0),
)


class Sum(NamedTuple):
    """Terms of celerite2 that come near a covariance, and how near."""

    terms: Any
    error: float


def fitted(covariance: Callable[..., Any], length: float, n: int, count: int) -> Sum:
    """Return the best sum of some number of terms."""
    near = min(n, 400)
    t = np.unique(np.concatenate([np.arange(near), np.geomspace(near, n - 1, 1200).astype(int)])).astype(float)
    values = covariance(np, t, length)
    found = []
    for low, high, angle in itertools.product((1e-3, 3e-3, 1e-2, 0.1), (4, 8, 12, 24), (0.25, 0.3, 0.4)):
        rates = np.geomspace(low, high, count) / length * np.exp(1j * np.pi * (0.5 - angle))
        waves = np.exp(-np.outer(t, rates.real)) * np.exp(1j * np.outer(t, rates.imag))
        columns = np.concatenate([waves.real, waves.imag], axis=1)
        weights = np.linalg.lstsq(columns, values, rcond=1e-15)[0]
        found.append((float(np.max(np.abs(columns @ weights - values))), rates, weights))
    error, rates, weights = min(found, key=lambda each: each[0])
    parts = zip(weights[:count], weights[count:], rates.real, rates.imag, strict=True)
    return Sum(
        celerite2.terms.TermSum(*(celerite2.terms.ComplexTerm(a=a, b=b, c=c, d=d) for a, b, c, d in parts)), error
    )


def by_celerite2(series: Series, terms: Any) -> float:
    process = celerite2.GaussianProcess(terms)
    process.compute(1.0 * series.kept, diag=series.noise)
    return float(process.log_likelihood(series.y))


def _or_nan(call: Callable[[], float]) -> float:
    """Return a value, NaN where the sum of terms and the noise are not positive definite."""
    try:
        return call()
    except celerite2.driver.LinAlgError:
        return float("nan")


def rows_of(case: tuple[str, Callable[..., Any], float], n: int, counts: tuple[int, ...]) -> list[list[object]]:
    """Return the rows of one covariance: structmat, and sums of more and more terms."""
    name, covariance, length = case
    series = Series.drawn(covariance, length, n)
    sums = {count: timed(partial(fitted, covariance, length, n, count)) for count in counts}
    calls: dict[str, Callable[[], float]] = {"structmat": partial(by_structmat, series)}
    calls |= {f"{count} terms": partial(by_celerite2, series, found.terms) for count, (found, _) in sums.items()}
    values = {way: call() if way == "structmat" else _or_nan(call) for way, call in calls.items()}
    lasting = {way: call for way, call in calls.items() if not np.isnan(values[way])}
    times = {way: median(seen) for way, seen in in_turns(lasting, rounds=5, limit=6.0).items()}
    rows: list[list[object]] = [[name, "structmat", f"{times['structmat']:.2g}", "", "", ""]]
    for count, (found, seconds) in sums.items():
        way = f"{count} terms"
        value, difference = "-", "not definite"
        if way in times:
            value, difference = f"{times[way]:.2g}", f"{abs(values[way] / values['structmat'] - 1):.0e}"
        rows.append([name, way, value, f"{seconds:.2g}", f"{found.error:.0e}", difference])
    for row in rows:
        print(*row, sep="  ", flush=True)
    return rows


def main() -> None:
    options = begin(parser(__doc__))
    n, counts = (300, (4,)) if options.quick else (100_000, (16, 24, 28, 32))
    rows = [row for case in CASES for row in rows_of(case, n, counts)]
    header = ["covariance", "way", "value, s", "fit, s", "covariance", "likelihood"]
    parts = ["<!-- fitted exponentials -->", table(header, rows, left=2), "<!-- /fitted exponentials -->"]
    finish(
        options.out, "likelihoods", "Sums of fitted exponentials", *parts, packages=("structmat", "celerite2", "scipy")
    )


if __name__ == "__main__":
    main()
