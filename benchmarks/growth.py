"""Claim: products and systems of a Toeplitz matrix take about O(n log n) here, O(n^2) or more in SciPy and densely.

Times of one core against n, in float64: a product with one vector, with what can be kept kept (`prepare` here; SciPy's
`matmul_toeplitz` keeps nothing), and a system from first column and row to the solution. "symmetric" has the first
column 0.99^k, "general" random entries divided by 1 + k beside a diagonal of 2. The dense matrix is ready before it is
timed; the symmetric one is solved by Cholesky's method. --out writes ``growth.csv`` and ``growth.md``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from timeit import Timer

import _one_thread  # noqa: F401
import numpy as np
import scipy.linalg
from _common import finish, parser, table

import structmat as sm

SIZES = (64, 256, 1024, 4096, 8192, 16384, 32768, 65536, 100_000, 262_144, 1_048_576)
SCIPY_SOLVES, DENSE = 100_000, 8192
"""The largest sizes of what takes O(n^2) time, and O(n^2) memory."""
HEAD = ("task", "matrix", "n", "structmat", "scipy", "dense")


def seconds(function: Callable[[], object]) -> float:
    """Return the processor's time of a call: the least of three measurements where one takes less than a second."""
    timer = Timer(function, timer=time.process_time)
    count, first = timer.autorange()
    return min([first] if first > 1 else [first, *timer.repeat(2, count)]) / count


def measured(n: int) -> list[list[object]]:
    """Return the rows of one size, in seconds."""
    k, rng = np.arange(n), np.random.default_rng(n)
    general = rng.standard_normal((2, n)) / (1 + k)
    general[:, 0] = 2
    x = rng.standard_normal(n)
    rows: list[list[object]] = []
    for name, (c, r) in {"symmetric": (0.99**k, 0.99**k), "general": general}.items():
        P, assume = sm.Toeplitz(c, r).prepare(), "pos" if name == "symmetric" else "gen"
        products = {"structmat": lambda P=P: P @ x, "scipy": lambda c=c, r=r: scipy.linalg.matmul_toeplitz((c, r), x)}
        solves = {"structmat": lambda c=c, r=r: sm.Toeplitz(c, r).solve(x)}
        if n <= SCIPY_SOLVES:
            solves["scipy"] = lambda c=c, r=r: scipy.linalg.solve_toeplitz((c, r), x)
        if n <= DENSE:
            A = scipy.linalg.toeplitz(c, r)
            products["dense"] = lambda A=A: A @ x
            solves["dense"] = lambda A=A, assume=assume: scipy.linalg.solve(A, x, assume_a=assume)
        for task, functions in (("product", products), ("solve", solves)):
            rows.append([task, name, n, *(f"{seconds(functions[w]):.3g}" if w in functions else "" for w in HEAD[3:])])
    return rows


def main() -> None:
    arguments = parser(__doc__).parse_args()
    rows = sorted(row for n in (SIZES[:2] if arguments.quick else SIZES) for row in measured(n))
    text = f"In seconds:\n\n{table(HEAD, rows, left=2)}"
    finish(arguments.out, "growth", "Time against size", text, header=HEAD, rows=rows)


if __name__ == "__main__":
    main()
