"""Claim: with 2k + 3 real factors a fit is at most 1 % worse than the truncated SVD of rank k.

The matrices have 384 rows and columns: normal ones of rank four and eight with noise of a tenth of their norm, one
whose singular values fall to 0.8 of the one before, and two changes of trained weights. Every fit has the same limit of
processor time, and knows nothing of the others; so the table also shows whether an error rises with the number of
factors. "LoRA" is the rank that has at most as many parameters, and the error of the truncated SVD of that rank.

--out writes a section of ``fits.md``. Seconds are the processor's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import _one_thread  # noqa: F401
import numpy as np
from _common import begin, finish, parser, shown, table, with_noise

import structmat as sm

DATA = Path(__file__).resolve().parent.parent / "docs" / "examples" / "data"
FACTORS = (9, 11, 15, 17, 19)
FIELDS = ("matrix", "factors", "k", "SVD of rank k", "fit", "fit / SVD", "start", "LoRA rank", "LoRA error")


def low_rank(n: int, k: int) -> np.ndarray:
    rng = np.random.default_rng(k)
    return with_noise(rng, rng.standard_normal((n, k)) @ rng.standard_normal((k, n)), 0.1, real=True)


def decaying(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2))
    return (u * 0.8 ** np.arange(n)) @ v


def change(n: int, name: str) -> np.ndarray:
    return np.load(DATA / f"minilm_banking77_{name}.npy").astype(float)[:n, :n]


MATRICES: dict[str, Callable[[int], np.ndarray]] = {
    "rank 8 and noise": lambda n: low_rank(n, 8),
    "query, layer 5": lambda n: change(n, "l5_query"),
    "falling by 0.8": decaying,
    "rank 4 and noise": lambda n: low_rank(n, 4),
    "value, layer 3": lambda n: change(n, "l3_value"),
}


def measured(n: int, name: str, factors: tuple[int, ...], limit: float) -> Iterator[list[object]]:
    W = MATRICES[name](n)
    squares = np.linalg.svd(W, compute_uv=False) ** 2
    errors = np.sqrt(np.append(np.cumsum(squares[::-1])[::-1], 0.0) / squares.sum())
    for count in factors:
        k, lora = (count - 3) // 2, count // 2
        fit = sm.fit_cdd(W, count, rng=0, time_limit=limit)
        ratio = f"{fit.error / errors[k]:.4f}"
        yield [name, count, k, f"{errors[k]:.4f}", f"{fit.error:.4f}", ratio, fit.start, lora, f"{errors[lora]:.4f}"]


def main() -> None:
    made = parser(__doc__, "one small matrix, to see that it runs")
    made.add_argument("--seconds", type=float, default=30.0, help="the limit of each fit")
    made.add_argument("--matrices", nargs="+", choices=MATRICES, default=[*MATRICES])
    options = begin(made)
    n, factors, seconds, matrices = 384, FACTORS, options.seconds, options.matrices
    if options.quick:
        n, factors, seconds, matrices = 32, (9, 11), 1.0, ["rank 4 and noise"]
    sm.fit_cdd(np.eye(3), 5, rng=0)  # imports
    rows = shown(row for name in matrices for row in measured(n, name, factors, seconds))
    title, meaning = "Fits and the truncated SVD", f"Limit of each fit: {seconds:g} seconds of processor time."
    text = ("<!-- beside the SVD -->", table(FIELDS, rows, left=1), "<!-- /beside the SVD -->")
    finish(options.out, "fits", title, meaning, *text)


if __name__ == "__main__":
    main()
