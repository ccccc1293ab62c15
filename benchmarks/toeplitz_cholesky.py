"""Claim: the Cholesky factor of a Toeplitz matrix takes O(n^2) here: less time than by LAPACK beyond n = 1,000.

    python benchmarks/toeplitz_cholesky.py [--quick] [--out FOLDER]

Times of one core, medians of calls that take turns, from the first column to the factor: of `Toeplitz.cholesky`, of
`scipy.linalg.cholesky` with a dense matrix that is ready, and with `scipy.linalg.toeplitz` before it. "error" is the
largest entry of ``L L^H - T`` over that of T: ours, then LAPACK's. --out writes ``toeplitz_cholesky.md``.
"""

# ruff: noqa: E402  # threads are limited before libraries start them
from __future__ import annotations

from _common import finish, in_turns, machine, one_thread, parser, ratio, table

one_thread()

from datetime import UTC, datetime
from statistics import median

import numpy as np
import scipy.linalg

import structmat as sm

HEAD = ["n", "matrix", "structmat", "coefficients", "LAPACK", "with `toeplitz`", "LAPACK / structmat", "errors"]


def rows(n: int) -> list[list[object]]:
    """Return the rows of one size, in milliseconds."""
    k = np.arange(n)
    columns = {"0.99^k": 0.99**k, "0.99^k exp(0.3 i k)": 0.99**k * np.exp(0.3j * k)}
    found: list[list[object]] = []
    for name, c in columns.items():
        T, A = sm.Toeplitz(c), scipy.linalg.toeplitz(c)
        functions = {
            "structmat": T.cholesky,
            "coefficients": T.reflection_coefficients,
            "LAPACK": lambda A=A: scipy.linalg.cholesky(A, lower=True),
            "built": lambda c=c: scipy.linalg.cholesky(scipy.linalg.toeplitz(c), lower=True),
        }
        times = in_turns(functions, rounds=9, limit=8.0)
        milliseconds = [f"{1e3 * median(times[each]):,.2f}" for each in functions]
        factors = (functions[each]() for each in ("structmat", "LAPACK"))
        errors = ", ".join(f"{np.max(np.abs(L @ L.conj().T - A)) / np.max(np.abs(A)):.0e}" for L in factors)
        found.append([f"{n:,}", name, *milliseconds, f"{ratio(times, 'LAPACK', 'structmat'):.2f}", errors])
    return found


def main() -> None:
    arguments = parser(__doc__).parse_args()
    sizes = (64,) if arguments.quick else (256, 1000, 4096)
    where = f"{datetime.now(UTC):%Y-%m-%d}; {machine('structmat', 'numpy', 'scipy')}"
    lines = [line for n in sizes for line in rows(n)]
    title = "`python benchmarks/toeplitz_cholesky.py`, in milliseconds"
    text = "\n\n".join(("# Cholesky factors of Toeplitz matrices", title, where, table(HEAD, lines, left=2)))
    finish(arguments.out, "toeplitz_cholesky", text)


if __name__ == "__main__":
    main()
