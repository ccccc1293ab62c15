"""Claim: `factorize_cdd` holds any matrix up to 1e-10, by real factors up to 1e-7, in seconds up to a side of 512.

Every row is one factorisation on one thread. The error is relative, in the Frobenius norm, of the product that a user
gets: of ``operator @ eye`` and of ``to_dense``, the larger of both. Seconds are the processor's, short forms and the
error that `factorize_cdd` reports included. --quick makes everything tiny; --out writes ``exact_products.md`` there.
"""

from __future__ import annotations

import time

import _one_thread  # noqa: F401
import numpy as np
import scipy.linalg
from _common import finish, normal, parser, shown, table

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


def main() -> None:
    options = parser(__doc__).parse_args()
    sizes = (32,) if options.quick else (64, 128, 256, 512)
    rows = shown(measured(kind, n) for n in sizes for kind in KINDS)
    text = table(["n", "matrix", "start", "factors", "error", "seconds"], rows, left=3)
    finish(options.out, "exact_products", "Exact products by construction", text)


if __name__ == "__main__":
    main()
