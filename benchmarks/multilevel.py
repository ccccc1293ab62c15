"""Claim: a product on a grid takes about the time of the plain d-dimensional transforms that compute it, or less.

    python benchmarks/multilevel.py [--quick] [--out FOLDER]

Prepared `MultilevelCirculant` and `MultilevelToeplitz` matrices of real data in double precision, of NumPy and torch.
"Plain" is ``irfftn(S * rfftn(x, s=L), s=L)`` of SciPy or torch with the transform S ready, for a Toeplitz matrix on
the same embedded grid L and cut to the grid of the rows. All take turns in one process on one core; the ratio is the
median over the rounds, below 1 where structmat takes less time. --quick makes everything small. --out writes
``multilevel.md`` and ``multilevel.csv``.
"""

# ruff: noqa: E402  # threads are limited before libraries start them
from __future__ import annotations

from _common import finish, in_turns, machine, one_thread, parser, ratio, table

one_thread()

from collections.abc import Callable, Iterator
from math import prod
from statistics import median
from typing import Any

import numpy as np
import scipy.fft
import torch

import structmat as sm

SIZES = ((32, 32), (64, 64), (256, 256), (1024, 1024), (16, 16, 16), (32, 32, 32), (64, 64, 64))
QUICK = ((16, 16), (8, 8, 8))


def plain(
    fft: Any, S: Any, grid: tuple[int, ...], length: tuple[int, ...], copy: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    """Return the product by plain transforms, of vectors on a grid."""
    axes = tuple(range(-len(grid), 0))

    def product(x: Any) -> Any:
        y = fft.irfftn(S * fft.rfftn(x.reshape(*x.shape[:-1], *grid), s=length, dim=axes), s=length, dim=axes)
        return copy(y[(..., *(slice(n) for n in grid))]).reshape(x.shape)

    return product


class SciPy:
    """SciPy's transforms, with the keyword of torch."""

    @staticmethod
    def rfftn(x: Any, s: Any, dim: Any) -> Any:
        return scipy.fft.rfftn(x, s, dim)

    @staticmethod
    def irfftn(x: Any, s: Any, dim: Any) -> Any:
        return scipy.fft.irfftn(x, s, dim)


def cases(sizes: tuple[tuple[int, ...], ...], most: int) -> Iterator[tuple[str, str, tuple[int, ...], int]]:
    """Return library, matrix, grid and number of vectors; at most that many numbers in one embedded batch."""
    for library in ("numpy", "torch"):
        for kind in ("circulant", "Toeplitz"):
            for grid in sizes:
                for count in (1, 16):
                    if count * prod(grid) * (1 if kind == "circulant" else 2 ** len(grid)) <= most:
                        yield library, kind, grid, count


def measured(library: str, kind: str, grid: tuple[int, ...], count: int, rounds: int) -> tuple[float, float, float]:
    """Return the seconds of structmat and of plain transforms, and the ratio; the products are compared first."""
    rng = np.random.default_rng(0)
    asarray: Any = torch.as_tensor if library == "torch" else np.asarray
    fft: Any = torch.fft if library == "torch" else SciPy
    x = asarray(rng.standard_normal((count, prod(grid)) if count > 1 else prod(grid)))
    if kind == "circulant":
        op: Any = sm.MultilevelCirculant(asarray(rng.standard_normal(prod(grid))), grid)
        length, kernel = grid, op.c.reshape(grid)
    else:
        op = sm.MultilevelToeplitz.from_offsets(asarray(rng.standard_normal([2 * n - 1 for n in grid])))
        length = tuple(2 * n for n in grid)
        kernel = np.zeros(length)
        kernel[tuple(slice(2 * n - 1) for n in grid)] = np.asarray(op.t).reshape([2 * n - 1 for n in grid])
        kernel = asarray(np.roll(kernel, [1 - n for n in grid], range(len(grid))))
    S = fft.rfftn(kernel, s=length, dim=tuple(range(len(grid))))
    copy: Any = torch.Tensor.contiguous if library == "torch" else np.ascontiguousarray
    prepared, simple = op.prepare(), plain(fft, S, grid, length, copy)
    found, expected = np.asarray(prepared.matvec(x)), np.asarray(simple(x))
    if not np.allclose(found, expected, atol=1e-9 * np.abs(expected).max()):
        raise SystemExit(f"{library}, {kind}, {grid}: the products differ")
    times = in_turns({"ours": lambda: prepared.matvec(x), "plain": lambda: simple(x)}, rounds=rounds)
    return median(times["ours"]), median(times["plain"]), ratio(times, "ours", "plain")


def main() -> None:
    made = parser(__doc__)
    arguments = made.parse_args()
    rows, rounds = [], 3 if arguments.quick else 15
    for library, kind, grid, count in cases(QUICK if arguments.quick else SIZES, 2**22):
        ours, simple, share = measured(library, kind, grid, count, rounds)
        name = " x ".join(map(str, grid))
        rows.append([library, kind, name, count, f"{1e6 * ours:.1f}", f"{1e6 * simple:.1f}", f"{share:.2f}"])
        print(*rows[-1], sep="\t", flush=True)
    worst = {name: max(float(row[-1]) for row in rows if row[0] == name) for name in ("numpy", "torch")}
    middle = {name: median(float(row[-1]) for row in rows if row[0] == name) for name in ("numpy", "torch")}
    shares = "; ".join(f"with {n} the ratio is {middle[n]:.2f} in the median and {worst[n]:.2f} at most" for n in worst)
    text = "\n\n".join(
        (
            "# Products on grids",
            machine("structmat", "numpy", "scipy", "torch"),
            f"Microseconds for all vectors, by prepared matrices and by plain d-dimensional transforms; {shares}.",
            table(["library", "matrix", "grid", "vectors", "structmat", "plain", "structmat / plain"], rows, left=3),
        )
    )
    head = ["library", "matrix", "grid", "vectors", "us", "plain_us", "ratio"]
    finish(arguments.out, "multilevel", text, head, rows)


if __name__ == "__main__":
    main()
