"""Claim: `factorize_cdd` holds any matrix up to 1e-10, by real factors up to 1e-7, in seconds up to a side of 512.

Every row is one factorisation on one thread. The error is relative, in the Frobenius norm, of the product that a user
gets: of ``operator @ eye`` and of ``to_dense``, the larger of both. Seconds are the processor's, short forms and the
error that `factorize_cdd` reports included. --quick makes everything tiny; --out writes a section of
``exact_products.md`` there.

With --search the same is asked of `fit_cdd`: independent normal matrices, complex and real, are fitted by several
numbers of factors around n + 1, the fewest that a count of numbers allows, each by a search from one random start. A
run that was stopped, or has used its --seconds, goes on where it was. --out writes a section of its own and
``exact_by_search.csv``, which `docs/_static/exact_by_search.py` draws.
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from pathlib import Path

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


SEARCHED = {4: 10, 6: 10, 8: 10, 12: 10, 16: 10, 24: 10, 32: 1}
"""How many matrices of each side are fitted: fewer large ones, since a fit of 32 rows takes a minute."""
LARGE = 24
"""From this side on only as many factors as may be exact are tried."""
EXACT = 1e-12
HEADER = ("n", "field", "factors", "F / n", "matrices", "exact", "best", "median", "seconds")


def counts(n: int) -> list[int]:
    """Return the numbers of factors that are tried: around n + 1, which a count of numbers allows, up to 2 n + 1."""
    short = [] if n >= LARGE else [n // 2, n]
    close = [n + 4, n + 8] if n > LARGE else [n + 1, n + 2, n + 4]
    return sorted({count for count in (*short, *close, 3 * n // 2, 2 * n - 1) if 3 < count <= 2 * n + 1})


def searched(n: int, field: str, n_factors: int, matrices: int) -> list[str]:
    """Fit independent matrices, each by a search from one random start, and return a row of the table."""
    errors, begun = [], time.process_time()
    for k in range(matrices):
        W = normal(np.random.default_rng([2000 + n, k]), n, n, real=field == "real")
        errors.append(sm.fit_cdd(W, n_factors, rng=k, restarts=1).error)
    seconds = (time.process_time() - begun) / matrices
    exact = sum(error <= EXACT for error in errors)
    best, middle = f"{min(errors):.1e}", f"{np.median(errors):.1e}"
    share = f"{n_factors / n:.2f}"
    return [str(n), field, str(n_factors), share, str(matrices), str(exact), best, middle, f"{seconds:.2g}"]


def print_searched(options: argparse.Namespace) -> None:
    """Make the rows that are missing: each is kept in ``build/exact_by_search.csv`` as soon as it is there."""
    kept = Path("build/exact_by_search.csv")
    kept.parent.mkdir(exist_ok=True)
    rows = [line.split(",") for line in kept.read_text().splitlines()] if kept.exists() and not options.quick else []
    done = {tuple(row[:3]) for row in rows}
    sizes = {4: 2, 6: 2} if options.quick else SEARCHED
    begun = time.process_time()
    for n, matrices in sizes.items():
        for n_factors, field in product(counts(n), ("complex", "real")):
            if (str(n), field, str(n_factors)) in done:
                continue
            if time.process_time() - begun > options.seconds:
                break
            rows.append(searched(n, field, n_factors, matrices))
            print(*rows[-1], flush=True)
            if not options.quick:
                with kept.open("a", encoding="utf-8") as file:
                    file.write(",".join(rows[-1]) + "\n")
    rows.sort(key=lambda row: (row[1], int(row[0]), int(row[2])))
    how = "Each matrix had one search, `fit_cdd(W, n_factors, rng=k, restarts=1)`; seconds are those of one search."
    text = table(HEADER, rows, left=2)
    finish(options.out, "exact_products", "By search", how, text, data="exact_by_search", header=HEADER, rows=rows)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--search", action="store_true", help="fits by several numbers of factors instead")
    made.add_argument("--seconds", type=float, default=1500.0, help="processor time of these fits together")
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
