"""Claim: the posterior variances of 100,000 points, gaps and a forecast included, take about a second.

Series of Matérn 3/2 covariance with a length of 10 steps, the rational quadratic and the spherical covariance with
lengths of 50 and 60, as in ``likelihoods.py``. A tenth of the points is missing, and so are the last hundredth, which
are foreseen; the noise has variances of 0.1 to 0.2. Variances of all points: `structmat.posterior_variances`, from the
covariance on; by one right-hand side for each point, of the prepared operator, as many at once as memory allows, timed
for 64 points and multiplied; celerite2's `predict`, of the Matérn covariance with ``eps=1e-5``, and GPyTorch's
posterior, both of which write out the covariances between all points and those that were seen; LAPACK's factor of a
dense matrix. In brackets stands the largest difference from LAPACK up to 4,000 points, and beyond from the right-hand
sides of the 64 points, relative to the variance of the process. Seconds are the processor's, of one core; MiB are what
the process takes at most, beyond what it had before; --out writes a section of ``likelihoods.md``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import _one_thread  # noqa: F401
import celerite2
import gpytorch
import numpy as np
import scipy.linalg
import torch
from _common import begin, finish, parser, table
from likelihoods import OF_GPYTORCH, Exact, matern, rational_quadratic, spherical

import structmat as sm

DENSE = 4000
"""The most points for which dense matrices are computed."""

SOME = 64
"""The points of which right-hand sides are solved."""

CASES: tuple[tuple[str, Callable[..., Any], float], ...] = (
    ("Matérn 3/2", matern, 10.0),
    ("rational quadratic", rational_quadratic, 50.0),
    ("spherical", spherical, 60.0),
)
WAYS = ("structmat", "one system a point", "celerite2", "GPyTorch", "LAPACK")


class Series(NamedTuple):
    """Which points of a series were seen, with which noise, and the covariance at all lags."""

    covariance: Callable[..., Any]
    length: float
    c: Any
    seen: Any
    noise: Any

    @classmethod
    def drawn(cls, covariance: Callable[..., Any], length: float, n: int) -> Series:
        rng = np.random.default_rng(0)
        seen = rng.random(n) > 0.1
        seen[-max(1, n // 100) :] = False
        return cls(covariance, length, covariance(np, np.arange(1.0 * n), length), seen, rng.uniform(0.1, 0.2, n))


def peak() -> float:
    """Return the most MiB that the process has taken since `forget_peak`."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def forget_peak() -> None:
    """Let the peak be what the process takes now."""
    with Path("/proc/self/clear_refs").open("w", encoding="utf-8") as file:
        file.write("5")


def by_structmat(series: Series) -> Any:
    return sm.posterior_variances(sm.Toeplitz(series.c), series.noise, series.seen).variances


def by_systems(series: Series, points: Any) -> Any:
    K = sm.Toeplitz(series.c)
    A = (K[series.seen][:, series.seen] + sm.Diagonal(series.noise[series.seen])).prepare()
    columns = K[:, points].to_dense()[series.seen]
    return series.c[0] - np.sum(columns * sm.solve(A, columns).x, axis=0)


def by_celerite2(series: Series) -> Any:
    kernel = celerite2.terms.Matern32Term(sigma=1.0, rho=series.length * 3**0.5, eps=1e-5)
    process = celerite2.GaussianProcess(kernel)
    times = np.arange(1.0 * len(series.c))
    process.compute(times[series.seen], diag=series.noise[series.seen])
    return process.predict(np.zeros(int(series.seen.sum())), t=times, return_var=True)[1]


def by_gpytorch(series: Series) -> Any:
    times = torch.arange(1.0 * len(series.c), dtype=torch.float64)
    seen, noise = torch.from_numpy(series.seen), torch.from_numpy(series.noise)
    model = Exact(times[seen], torch.zeros(int(seen.sum()), dtype=torch.float64), noise[seen], _kernel(series))
    model = model.double().eval()
    with torch.no_grad(), gpytorch.settings.max_cholesky_size(DENSE), gpytorch.settings.fast_pred_var(state=False):
        return model(times).variance.numpy()


def _kernel(series: Series) -> Any:
    kernel = OF_GPYTORCH[series.covariance]().double()
    kernel.lengthscale = series.length * (3**0.5 if series.covariance is matern else 1)
    if series.covariance is rational_quadratic:
        kernel.alpha = 1.0
    return kernel


def by_lapack(series: Series) -> Any:
    rows = scipy.linalg.toeplitz(series.c)[series.seen]
    A = rows[:, series.seen] + np.diag(series.noise[series.seen])
    factor = scipy.linalg.cholesky(A, lower=True, overwrite_a=True)
    root = scipy.linalg.solve_triangular(factor, rows, lower=True, overwrite_b=True)
    return series.c[0] - np.einsum("ij,ij->j", root, root)


def cells(case: tuple[str, Callable[..., Any], float], n: int) -> list[object]:
    """Return a row: seconds, MiB and differences of each way."""
    name, covariance, length = case
    series = Series.drawn(covariance, length, n)
    some = np.sort(np.random.default_rng(1).permutation(n)[:SOME])
    ways: dict[str, Callable[[], Any] | None] = dict.fromkeys(WAYS)
    ways["structmat"] = partial(by_structmat, series)
    ways["one system a point"] = partial(by_systems, series, some)
    if n <= DENSE:
        ways["LAPACK"] = partial(by_lapack, series)
        if covariance is matern:
            ways["celerite2"] = partial(by_celerite2, series)
        if covariance in OF_GPYTORCH:
            ways["GPyTorch"] = partial(by_gpytorch, series)
    reference = by_lapack(series)[some] if n <= DENSE else by_systems(series, some)
    row: list[object] = [f"{n:,}", name]
    for way, call in ways.items():
        if call is None:
            row.append("-")
            continue
        call()  # what is compiled or imported once
        before = peak_after_forgetting()
        begun = time.process_time()
        found = call()
        seconds = time.process_time() - begun
        taken = peak() - before
        if way == "one system a point":
            seconds *= n / SOME
        difference = np.max(np.abs((found if len(found) == SOME else found[some]) - reference))
        is_reference = way == "LAPACK" or (n > DENSE and way == "one system a point")
        row.append(f"{seconds:.2g} s, {taken:.0f} MiB" + ("" if is_reference else f" ({difference:.0e})"))
    print(*row, sep="  ", flush=True)
    return row


def peak_after_forgetting() -> float:
    forget_peak()
    return peak()


def main() -> None:
    options = begin(parser(__doc__))
    numbers = (200,) if options.quick else (1000, 4000, 20_000, 100_000)
    rows = [cells(case, n) for n in numbers for case in CASES]
    parts = ["<!-- variances -->", table(["points", "covariance", *WAYS], rows, left=2), "<!-- /variances -->"]
    packages = ("structmat", "celerite2", "gpytorch", "torch", "scipy")
    finish(options.out, "likelihoods", "Posterior variances", *parts, packages=packages)


if __name__ == "__main__":
    main()
