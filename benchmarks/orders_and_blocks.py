"""Claim: on weight changes the order C D C is level with D C D, and smaller blocks lose to more factors of equal size.

Weight changes of a sentence encoder are fitted with several seeds: by real products of three factors in both orders, by
complex ones of five in both orders, and by products with as many numbers, up to one per cent, of fewer factors in
smaller blocks. Products that begin with a circulant are those that begin with a diagonal for the Fourier transform of
the matrix; real ones of three factors are fitted by alternating least squares in closed form, from the nearest
circulant, a rank-one matrix, the diagonal and three random products. The truncated SVD of as many numbers stands beside
them.

Every fit is kept in ``build/orders_and_blocks.csv`` as soon as it is there, and a run that was stopped goes on.
--folder names a folder with more changes, ``minilm_*.npy``, of which those ending in ``_S`` are second moments.
--quick makes everything tiny; --out writes a section of ``fits.md`` and ``orders_and_blocks.csv``.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import _one_thread  # noqa: F401
import numpy as np
import scipy.linalg
from _common import begin, finish, parser, table

import structmat as sm
from structmat.fit import baseline_errors

DATA = Path(__file__).resolve().parent.parent / "docs" / "examples" / "data"
KEPT = Path("build/orders_and_blocks.csv")
FIELDS = ("matrix", "form", "factors", "block_size", "numbers", "seed", "error", "seconds")
TOGETHER = ("matrix", "numbers", "form", "factors", "blocks of", "best", "median", "largest", "seconds")
SWEEPS, GAIN = 150, 1e-4
"""Alternating least squares end after so many sweeps, or where ten of them gain less than this share."""
Fit = Callable[[np.ndarray, int], float]


def through_fourier(W: np.ndarray) -> np.ndarray:
    """Return F W F^H with the unitary DFT F: it makes diagonals of circulants, and circulants of diagonals."""
    F = scipy.linalg.dft(len(W), scale="sqrtn")
    return F @ W @ F.conj().T


def begins_with_circulant(W: np.ndarray, seed: int) -> float:
    """Return the error of the best real product of a circulant, a diagonal and a circulant."""
    n, rng = len(W), np.random.default_rng(seed)
    u, _, v = np.linalg.svd(W)
    delta = np.eye(1, n)[0]
    starts = [(sm.Circulant.nearest(W).c, delta), (u[:, 0], np.roll(v[0][::-1], 1)), (delta, delta)]
    starts += [tuple(np.fft.ifft(np.exp(2j * np.pi * rng.random((2, n)))).real) for _ in range(3)]
    return min(_alternated(W, *start) for start in starts)


def _alternated(W: np.ndarray, left: np.ndarray, right: np.ndarray) -> float:
    """Return the error that alternating least squares reach from two circulants, given by their first columns."""
    spectra = np.fft.fft(W, axis=0), np.fft.fft(W.T, axis=0)
    errors: list[float] = []
    for _ in range(SWEEPS):
        A, B = scipy.linalg.circulant(left), scipy.linalg.circulant(right)
        gram, side = (A.T @ A) * (B @ B.T), np.einsum("ij,ij->j", A, W @ B.T)
        gram.flat[:: len(gram) + 1] += 1e-12 * np.trace(gram)
        d = scipy.linalg.solve(gram, side, assume_a="pos")
        left = _best_circulant(spectra[0], d[:, None] * B)
        A = scipy.linalg.circulant(left)
        right = np.roll(_best_circulant(spectra[1], d[:, None] * A.T)[::-1], 1)
        P = A @ (d[:, None] * scipy.linalg.circulant(right))
        errors.append(float(np.linalg.norm(W - P) / np.linalg.norm(W)))
        if len(errors) > 10 and errors[-11] - errors[-1] < GAIN * errors[-1]:
            break
    return min(errors)


def _best_circulant(spectrum: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Return the first column of the circulant C with the least ``norm(W - C B)``, by the DFT of the columns of W."""
    other = np.fft.fft(B, axis=0)
    weights = np.maximum(np.sum(np.abs(other) ** 2, axis=1), 1e-300)
    return np.fft.ifft(np.sum(spectrum * other.conj(), axis=1) / weights).real


def cases(W: np.ndarray, limit: float) -> Iterator[tuple[str, int, int, int, Fit]]:
    """Yield form, factors, side of the blocks, numbers, and the fit."""
    rows, cols = W.shape
    n = min(rows, cols)
    if rows == cols:
        yield "D C D", 3, n, 3 * n, lambda W, seed: sm.fit_cdd(W, rng=seed).error
        yield "C D C", 3, n, 3 * n, begins_with_circulant
        for form, of in (("D C D C D, complex", lambda W: W.astype(complex)), ("C D C D C, complex", through_fourier)):
            yield form, 5, n, 10 * n, lambda W, seed, of=of: sm.fit_cdd(of(W), 5, rng=seed, time_limit=limit).error
    for factors in (5, 7, 9):
        whole = sm.CDDLayout((rows, cols), factors).n_parameters
        yield (
            "one block",
            factors,
            n,
            whole,
            lambda W, seed, k=factors: sm.fit_cdd(W, k, rng=seed, time_limit=limit).error,
        )
        for fewer in range(3, factors, 2):
            sizes = {b: sm.CDDLayout((rows, cols), fewer, b).n_parameters for b in range(2, n)}
            side = min(sizes, key=lambda b: abs(sizes[b] - whole))
            if abs(sizes[side] - whole) <= 0.01 * whole:
                options = {"block_size": side, "time_limit": limit}
                fit = lambda W, seed, k=fewer, o=options: sm.fit_cdd(W, k, rng=seed, **o).error  # noqa: E731
                yield "blocks", fewer, side, sizes[side], fit


def measured(name: str, W: np.ndarray, seeds: int, limit: float, done: set[tuple[str, ...]]) -> Iterator[list[str]]:
    """Yield the rows that are missing."""
    for form, factors, side, numbers, fit in cases(W, limit):
        for seed in range(seeds):
            key = (name, form, str(factors), str(side), str(numbers), str(seed))
            if key not in done:
                begun = time.process_time()
                error = fit(W, seed)
                yield [*key, f"{error:.6f}", f"{time.process_time() - begun:.2f}"]


def together(rows: list[list[str]], matrices: dict[str, np.ndarray]) -> list[list[Any]]:
    """Return one line for each form of each matrix, and one for the truncated SVD of as many numbers."""
    groups: dict[tuple[str, ...], list[list[str]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[:5]), []).append(row)
    lines: list[list[Any]] = []
    for (name, form, factors, side, numbers), own in groups.items():
        errors = [float(row[6]) for row in own]
        spread = [f"{value:.4f}" for value in (min(errors), median(errors), max(errors))]
        lines.append([name, numbers, form, factors, side, *spread, f"{median(float(row[7]) for row in own):.1f}"])
    for name, numbers in dict.fromkeys((line[0], line[1]) for line in lines if "complex" not in line[2]):
        ((_, error),) = baseline_errors(matrices[name], [int(numbers)], names=["truncated-svd"]).values()
        lines.append([name, numbers, "truncated SVD", "", "", f"{error[0]:.4f}", "", "", ""])
    return sorted(lines, key=lambda line: (line[0], int(line[1])))


def main() -> None:
    made = parser(__doc__, "one small matrix, to see that it runs")
    made.add_argument("--seeds", type=int, default=3, help="fits of each form")
    made.add_argument("--limit", type=float, default=6.0, help="seconds of processor time of a fit by many factors")
    made.add_argument("--folder", type=Path, help="a folder with more changes")
    options = begin(made)
    files = [*DATA.glob("minilm_*.npy"), *(options.folder.glob("minilm_*.npy") if options.folder else ())]
    found = {
        file.stem.removeprefix("minilm_banking77_"): file for file in sorted(files) if not file.stem.endswith("_S")
    }
    matrices = {name: np.load(file).astype(float) for name, file in found.items()}
    seeds, limit = options.seeds, options.limit
    if options.quick:
        matrices, seeds, limit = {name: W[:12, :12] for name, W in list(matrices.items())[:1]}, 1, 0.1
    rows: list[list[str]] = []
    if KEPT.exists() and not options.quick:
        rows = list(csv.reader(KEPT.read_text().splitlines()))
    KEPT.parent.mkdir(exist_ok=True)
    for name, W in matrices.items():
        for row in measured(name, W, seeds, limit, {tuple(row[:6]) for row in rows}):
            print(*row, sep="  ", flush=True)
            rows.append(row)
            if not options.quick:
                with KEPT.open("a", encoding="utf-8", newline="") as file:
                    csv.writer(file).writerow(row)
    text = table(TOGETHER, together(rows, matrices), left=3)
    how = f"{seeds} seeds; numbers are real ones, and fits by more than three factors had {limit:g} s of the processor."
    finish(options.out, "fits", "Orders and blocks", how, text, data="orders_and_blocks", header=FIELDS, rows=rows)


if __name__ == "__main__":
    main()
