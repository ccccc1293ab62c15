"""Claim: `factorize_cdd` holds any matrix up to 1e-10, by real factors up to 1e-7, in seconds up to a side of 512.

Every row is one factorisation on one thread. The error is relative, in the Frobenius norm, of the product that a user
gets: of ``operator @ eye`` and of ``to_dense``, the larger of both. Seconds are the processor's, short forms and the
error that `factorize_cdd` reports included. --quick makes everything tiny; --out writes a section of
``exact_products.md`` there.

With --search the same is asked of `fit_cdd`: complex normal matrices are fitted by n + 1 factors, the fewest that a
count of parameters allows, and by more until a fit is exact, each within a limit of processor time. --out writes
a section of its own and ``exact_by_search.csv``, which `docs/_static/exact_by_search.py` draws.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import _one_thread  # noqa: F401
import numpy as np
import scipy.linalg
from _common import begin, finish, normal, parser, shown, table

import structmat as sm


def unitary(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.linalg.qr(normal(rng, n, n))[0]


KINDS = {
    "complex": lambda rng, n: normal(rng, n, n),
    "real": lambda rng, n: rng.standard_normal((n, n)),
    "real, by real factors": lambda rng, n: rng.standard_normal((n, n)),
    "unitary": unitary,
    "permutation": lambda rng, n: np.eye(n)[rng.permutation(n)],
    "identity": lambda _, n: np.eye(n),
    "DFT": lambda _, n: scipy.linalg.dft(n, scale="sqrtn"),
    "Hadamard": lambda _, n: scipy.linalg.hadamard(n) / np.sqrt(n),
    "singular": lambda rng, n: unitary(rng, n) * np.append(np.ones(n - 1), 0.0) @ unitary(rng, n),
    "condition 1e8": lambda rng, n: unitary(rng, n) * np.logspace(0, -8, n) @ unitary(rng, n),
    "triangular": lambda rng, n: np.triu(normal(rng, n, n)),
    "tridiagonal": lambda rng, n: (
        np.diag(rng.standard_normal(n)) + sum(np.diag(rng.standard_normal(n - 1), k) for k in (-1, 1))
    ),
    "periodic tridiagonal": lambda rng, n: sum(
        d[:, None] * np.roll(np.eye(n), m - 1, axis=0) for m, d in enumerate(rng.uniform(1, 2, (3, n)))
    ),
    "nine diagonals": lambda rng, n: np.triu(np.tril(rng.standard_normal((n, n)), 4), -4),
    "nine cyclic diagonals": lambda rng, n: np.where(
        (np.arange(n)[:, None] - np.arange(n) + 4) % n < 9, rng.standard_normal((n, n)), 0.0
    ),
    "rank 8": lambda rng, n: normal(rng, n, 8) @ normal(rng, 8, n),
}


def measured(kind: str, n: int) -> list[str]:
    W = KINDS[kind](np.random.default_rng(1000 + n), n)
    begun = time.process_time()
    result = sm.factorize_cdd(W, rng=0, real="real factors" in kind)
    seconds = time.process_time() - begun
    products = (result.operator @ np.eye(n), np.asarray(result.operator.to_dense()))
    error = max(np.linalg.norm(P - W) for P in products) / np.linalg.norm(W)
    return [str(n), kind, result.start, str(result.operator.n_factors), f"{error:.1e}", f"{seconds:.2g}"]


SEARCHED = (4, 6, 8, 10, 12)
MORE = (1, 2, 3, 5, 9)
"""How many factors more than rows are tried, one after the other."""
EXACT = 1e-12


def searched(n: int, limit: float) -> Iterator[list[str]]:
    """Yield fits of one matrix by more and more factors, up to the first exact one."""
    W = normal(np.random.default_rng(2000 + n), n, n)
    for n_factors in (n + more for more in MORE if more <= n + 1):
        begun = time.process_time()
        fit = sm.fit_cdd(W, n_factors, rng=0, time_limit=limit)
        seconds = time.process_time() - begun
        yield [str(n), str(n_factors), str(2 * n - 1), str(2 * n + 1), f"{fit.error:.1e}", f"{seconds:.3g}"]
        if fit.error <= EXACT:
            return


def print_searched(options: argparse.Namespace) -> None:
    sizes, limit = (SEARCHED[:2], 5.0) if options.quick else (SEARCHED, options.seconds)
    rows = shown(row for n in sizes for row in searched(n, limit))
    header = ("n", "factors", "by the theorem", "by construction", "error", "seconds")
    how = f"Each fit had {limit:g} seconds."
    finish(
        options.out,
        "exact_products",
        "By search",
        how,
        table(header, rows),
        data="exact_by_search",
        header=header,
        rows=rows,
    )


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--search", action="store_true", help="fits by more and more factors instead")
    made.add_argument("--seconds", type=float, default=30.0, help="processor time of each of these fits")
    options = begin(made)
    if options.search:
        print_searched(options)
        return
    sizes = (32,) if options.quick else (64, 128, 256, 512)
    rows = shown(measured(kind, n) for n in sizes for kind in KINDS)
    text = table(["n", "matrix", "start", "factors", "error", "seconds"], rows, left=3)
    finish(options.out, "exact_products", "By construction", text)


if __name__ == "__main__":
    main()
