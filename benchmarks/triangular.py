"""Claim: triangular Toeplitz systems, inverses and square roots of 16,384 rows take 6 to 7 ms, O(n log n).

First columns: the square root of the matrix of sums, ``binom(2 k, k) / 4^k``, by which private training correlates its
noise, and random entries divided by ``(1 + k)^1.5`` beside a diagonal of 2. One system by `Toeplitz.solve`, SciPy's
`solve_toeplitz` and `solve_triangular` of a dense matrix that is ready; the inverse by `Toeplitz.inv` and
`jax_privacy`'s ``inverse_coef``, compiled, in double precision; the root by `Toeplitz.sqrtm` and SciPy's `sqrtm`. All
take turns in one process on one core, times are the processor's. Errors are the largest residual of a row relative to
the sum of its moduli times the largest entry of the solution. --out writes a section of ``toeplitz.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median

import _one_thread  # noqa: F401
import jax
import numpy as np
import scipy.linalg
from _common import begin, finish, in_turns, parser, shown, table

import structmat as sm

try:
    from jax_privacy.matrix_factorization.toeplitz import inverse_coef
except ImportError:
    inverse_coef = None

DENSE = 4096
"""The largest size of what takes O(n^2) memory."""
QUADRATIC = 16_384
"""The largest size of what takes O(n^2) time."""
DENSE_ROOT = 1024
"""The largest size of which SciPy's root is taken, in O(n^3)."""


def columns(n: int) -> dict[str, np.ndarray]:
    k, rng = np.arange(1.0, n), np.random.default_rng(0)
    return {
        "root of sums": np.cumprod(np.append(1.0, (2 * k - 1) / (2 * k))),
        "random, decaying": np.append(2.0, rng.standard_normal(n - 1) / (1 + k) ** 1.5),
    }


def error(c: np.ndarray, x: np.ndarray, b: np.ndarray) -> str:
    residual = [b[i] - np.dot(c[i::-1].astype(np.longdouble), x[: i + 1]) for i in range(0, len(c), 1 + len(c) // 500)]
    sums = np.cumsum(np.abs(c))[:: 1 + len(c) // 500]
    return f"{float(np.max(np.abs(residual) / sums) / np.max(np.abs(x))):.0e}"


def times(calls: dict[str, Callable[[], object]]) -> list[str]:
    """Return milliseconds, and a dash for each call that is None."""
    seen = in_turns({name: call for name, call in calls.items() if call}, rounds=9, limit=1.0)
    return [f"{1e3 * median(seen[name]):.3g}" if name in seen else "-" for name in calls]


def rows(n: int) -> list[list[object]]:
    b, found = np.random.default_rng(1).standard_normal(n), []
    zeros, unit = np.zeros(n), np.eye(1, n)[0]
    for kind, c in columns(n).items():
        T = sm.Toeplitz(c, zeros)
        A = T.to_dense() if n <= DENSE else None
        solve = {
            "structmat": partial(T.solve, b),
            "SciPy": partial(scipy.linalg.solve_toeplitz, (c, zeros), b) if n <= QUADRATIC else None,
            "dense": None if A is None else partial(scipy.linalg.solve_triangular, A, b, lower=True),
        }
        coefficients = jax.numpy.asarray(c)
        by_privacy = None
        if inverse_coef is not None and n <= QUADRATIC:
            compiled = jax.jit(inverse_coef)
            by_privacy = lambda: compiled(coefficients).block_until_ready()  # noqa: B023, E731  # called at once
        inverse = {"structmat": T.inv, "jax_privacy": by_privacy}
        root = {"structmat": T.sqrtm, "dense": partial(scipy.linalg.sqrtm, A) if n <= DENSE_ROOT else None}
        r = T.sqrtm().c
        errors = [error(c, T.solve(b), b), error(c, T.inv().c, unit), error(r, r, c)]
        found.append([f"{n:,}", kind, *times(solve), *times(inverse), *times(root), *errors])
    return found


def main() -> None:
    options = begin(parser(__doc__))
    jax.config.update("jax_enable_x64", True)
    sizes = (256,) if options.quick else (1024, 4096, 16_384, 100_000)
    head = ["n", "first column", "solve", "`solve_toeplitz`", "`solve_triangular`", "inv", "`inverse_coef`", "sqrtm"]
    head += ["SciPy's `sqrtm`", "error of solve", "of inv", "of sqrtm"]
    text = table(head, shown(row for n in sizes for row in rows(n)), left=2)
    packages = ("structmat", "numpy", "scipy", "jax", "jax_privacy")
    finish(options.out, "toeplitz", "Triangular Toeplitz matrices", "In milliseconds:", text, packages=packages)


if __name__ == "__main__":
    main()
