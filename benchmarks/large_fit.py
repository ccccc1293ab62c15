"""Claim: a fit of a 4,096 x 4,096 matrix takes ten seconds, and the memory of about three such matrices.

The matrix is standard normal, in float32, or a planted D C D product with noise as strong as itself.
"""

from __future__ import annotations

import resource
import time

import numpy as np
from _common import finish, parser, table

import structmat as sm


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--planted", action="store_true")
    options = made.parse_args()
    n, rng = 64 if options.quick else 4096, np.random.default_rng(0)
    sm.fit_cdd(rng.standard_normal((64, 64)))  # imports and caches
    W = rng.standard_normal((n, n), dtype=np.float32)
    if options.planted:
        a, c, b = rng.standard_normal((3, n))
        for i in range(n):  # row by row, so that building the matrix needs no memory that the fit would not
            W[i] += a[i] * c[(i - np.arange(n)) % n] * b
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    result = sm.fit_cdd(W, rng=0)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    matrices = (peak - before) * 1024 / W.nbytes + 1
    head = ["matrix", "seconds", "error", "memory, the matrix included"]
    row = ["planted product, noise as strong" if options.planted else "standard normal", f"{seconds:.1f}"]
    text = table(head, [[*row, f"{result.error:.4f}", f"{matrices:.1f} matrices"]])
    finish(options.out, "large_fit", f"One large fit, {n} x {n}, float32", text)


if __name__ == "__main__":
    main()
