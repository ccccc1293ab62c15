"""Claim: a product of many factors is nearer to a random matrix than the truncated SVD with as many parameters.

Every row is one `fit_cdd` on one thread with default settings: a fixed amount of work, so that the error depends on the
seed and not on the load. Seconds are the processor's. --quick makes everything tiny; --out writes ``more_factors.md``.
"""

# ruff: noqa: E402  # threads are limited before libraries start them
from __future__ import annotations

from _common import finish, one_thread, parser, table

one_thread()

import time

import numpy as np

import structmat as sm
from structmat.fit import baseline_errors

FIELDS = ("side", "factors", "parameters", "error", "rank", "svd_error", "seconds")


def measured(n: int, factors: int) -> list[str]:
    W = np.random.default_rng(100).standard_normal((n, n))
    begun = time.process_time()
    result = sm.fit_cdd(W, factors, rng=0)
    seconds = time.process_time() - begun
    rank = result.n_parameters // (2 * n)
    svd_error = baseline_errors(W, [result.n_parameters])["truncated-svd"][1][0]
    counts = [str(n), str(factors), str(result.n_parameters)]
    return [*counts, f"{result.error:.4f}", str(rank), f"{svd_error:.4f}", f"{seconds:.3g}"]


def main() -> None:
    options = parser(__doc__).parse_args()
    rows = []
    for n, factors in ((8, 3),) if options.quick else ((64, 5), (64, 9), (64, 17), (128, 5), (128, 9)):
        rows.append(measured(n, factors))
        print(*rows[-1], sep="  ", flush=True)
    finish(options.out, "more_factors", "Fits with more factors", table(FIELDS, rows, left=0))


if __name__ == "__main__":
    main()
