"""Claim: `fit_cdd` finds planted products, and with noise the error that is reached from their true factors.

Without noise the planted product must come back (error below 1e-7). With Gaussian noise of 0.5 and 1.0 times the norm
of the signal, the error is compared with the one that the same solver reaches from the true factors: the best that can
be known.

With `--many` the products have four to nine factors, of complex or real Gaussian vectors, and the fit a time limit.
Without noise they must come back too; with noise of 0.3 times the norm of the signal the distance of the fit from the
planted product must be below 1.1 times the noise times sqrt(factors / side), what a least-squares fit from the truth
leaves to first order.

With `--large` the matrix has 4,096 rows and columns in float32, of independent normal entries or a planted product with
noise as strong as itself; the page has the seconds and the memory.

--out writes a section of ``fits.md``. Seconds are the processor's.
"""

from __future__ import annotations

import itertools
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import _one_thread  # noqa: F401
import numpy as np
from _common import begin, finish, normal, parser, shown, table, with_noise

import structmat as sm
from structmat.fit._alternation import Run, alternate
from structmat.fit._block_grid import BlockGrid, Factors

SIZES = (7, 16, 64, 65, 256, 384)
NOISY = (64, 65, 128, 256)
BLOCKS = (7, 16, 64)
VECTORS = ("gaussian", "signs", "uniform")
FIELDS = {True: "real", False: "complex"}
# Side, factors, whether real, noise, seconds for each fit, and the most seeds.
MANY = (
    *((n, 5, False, 0.0, 60.0, 20) for n in (16, 24, 32, 64, 96)),
    *((n, 5, True, 0.0, 60.0, 20) for n in (32, 64, 96, 128)),
    (64, 6, True, 0.0, 60.0, 10),
    (65, 5, False, 0.0, 60.0, 10),
    (128, 7, False, 0.0, 240.0, 10),
    (128, 7, True, 0.0, 240.0, 10),
    (128, 9, False, 0.0, 240.0, 10),
    (64, 5, False, 0.3, 60.0, 20),
)

THREE = """Without noise "recovered" counts errors of at most 1e-7, and "worst" is the largest error. With noise it
counts errors of at most 1.001 times the one that the solver reaches from the true factors, and "worst" is the largest
ratio."""
MORE = """Without noise "recovered" counts errors of at most 1e-7, and "worst" is the largest error. With noise it
counts distances to the planted product of at most 1.1 times the noise times sqrt(factors / side), and "worst" is the
largest distance over that."""


def planted(rng: np.random.Generator, kind: str, shape: tuple[int, int], b: int, *, real: bool) -> list[np.ndarray]:
    """Vectors a, c, b of a product, of one of three distributions."""
    grid = (-(-shape[0] // b), -(-shape[1] // b), b)
    vectors = []
    for size in ((shape[0],), grid, (shape[1],)):
        values = normal(rng, *size, real=real)
        if kind == "signs":
            values = values / np.abs(values)
        elif kind == "uniform":
            values = values / np.abs(values) * rng.uniform(0.5, 2, size)
        vectors.append(values)
    return vectors


def error_from_truth(W: np.ndarray, a: np.ndarray, c: np.ndarray, b: np.ndarray) -> float:
    """The error of the solver started at the true factors."""
    p, q, m = c.shape
    grid = BlockGrid(W, m)
    pad = [np.pad(v, (0, k * m - v.size)).reshape(k, m) for v, k in ((a, p), (b, q))]
    start = Factors(pad[0].astype(grid.double), c.astype(grid.double), pad[1].astype(grid.double)).scaled(
        -grid.exponent
    )
    return alternate(grid, Run.begin(grid, start), 2000, 1e-9).error


def recover(shape: tuple[int, int], m: int, seed: int, *, real: bool, kind: str, noise: float) -> float:
    """The error without noise; with it the error over the one that is reached from the true factors."""
    rng = np.random.default_rng(1000 + seed if noise else seed)
    vectors = planted(rng, kind, shape, m, real=real)
    W = sm.CDDProduct.from_vectors(*vectors, block=True).to_dense()
    if not noise:
        return sm.fit_cdd(W, block_size=m, rng=seed).error
    W = with_noise(rng, W, noise, real=real)
    return sm.fit_cdd(W, rng=seed).error / error_from_truth(W, *vectors)


def recover_many(n: int, n_factors: int, seed: int, *, real: bool, noise: float, limit: float) -> float:
    """The error without noise; with it the distance to the truth over noise * sqrt(n_factors / n)."""
    rng = np.random.default_rng(seed)
    signal = sm.CDDProduct.from_vectors(*normal(rng, n_factors, n, real=real)).to_dense()
    fit = sm.fit_cdd(with_noise(rng, signal, noise, real=real), n_factors, rng=0, time_limit=limit)
    if not noise:
        return fit.error
    off = np.linalg.norm(fit.operator.to_dense() - signal) / np.linalg.norm(signal)
    return float(off / (noise * np.sqrt(n_factors / n)))


def outcome(value: Callable[[int], float], seeds: range, highest: float) -> list[str]:
    """Return how many seeds have values up to the highest that is right, the worst value, and the median seconds."""
    values, seconds = [], []
    for seed in seeds:
        begun = time.process_time()
        values.append(value(seed))
        seconds.append(time.process_time() - begun)
    good, worst = sum(v <= highest for v in values), f"{max(values):{'.4f' if highest > 1 else '.1e'}}"
    return [f"{good}/{len(values)}", worst, f"{np.median(seconds):.1f}"]


def three_factors(seeds: range, *, quick: bool) -> Iterator[list[object]]:
    sizes, blocks, noisy = (SIZES[:1], BLOCKS[:1], (16,)) if quick else (SIZES, BLOCKS, NOISY)
    shapes = [((n, n), n) for n in sizes] + [((2 * m, 3 * m), m) for m in blocks]
    shapes += [((2 * m - m // 3, 3 * m - m // 2), m) for m in blocks]
    plan = [(*shape, *kind, 0.0) for shape in shapes for kind in itertools.product((True, False), VECTORS)]
    plan += [((n, n), n, real, "gaussian", level) for n in noisy for real in (True, False) for level in (0.5, 1.0)]
    for shape, m, real, kind, noise in plan:
        value = partial(recover, shape, m, real=real, kind=kind, noise=noise)
        yield [shape, m, FIELDS[real], kind, f"{noise:g}", *outcome(value, seeds, 1.001 if noise else 1e-7)]


def many_factors(cases: Iterable[int], seeds: range, *, quick: bool) -> Iterator[list[object]]:
    for n, factors, real, noise, limit, most in (MANY[case] for case in cases):
        side, seconds = (min(n, 24), 2.0) if quick else (n, limit)
        value = partial(recover_many, side, factors, real=real, noise=noise, limit=seconds)
        yield [side, factors, FIELDS[real], f"{noise:g}", *outcome(value, seeds[:most], 1.1 if noise else 1e-7)]


def large(n: int, kind: str) -> str:
    rng = np.random.default_rng(0)
    sm.fit_cdd(rng.standard_normal((64, 64)))  # imports and caches
    W = rng.standard_normal((n, n), dtype=np.float32)
    if kind == "planted":
        a, c, b = rng.standard_normal((3, n))
        for i in range(n):  # row by row, so that building the matrix needs no memory that the fit would not
            W[i] += a[i] * c[(i - np.arange(n)) % n] * b
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    error = sm.fit_cdd(W, rng=0).error
    seconds, peak = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = f"{(peak - before) * 1024 / W.nbytes + 1:.1f} matrices"
    head = ["matrix", "seconds", "error", "memory, the matrix included"]
    return table(head, [[f"{kind}, {n} x {n}", f"{seconds:.1f}", f"{error:.4f}", memory]])


def main() -> None:
    made = parser(__doc__, "tiny matrices and one seed, to see that it runs")
    made.add_argument("--seeds", type=int, default=20)
    made.add_argument("--first-seed", type=int, default=0)
    made.add_argument("--many", type=int, nargs="*", metavar="CASE", help="more factors: all cases, or some of them")
    made.add_argument("--large", nargs="?", const="normal", choices=("normal", "planted"), help="one large matrix")
    options = begin(made)
    if options.large:
        text = large(64 if options.quick else 4096, options.large)
        finish(options.out, "fits", f"One large fit of three factors, float32, {options.large}", text)
        return
    seeds = range(options.first_seed, options.first_seed + (1 if options.quick else options.seeds))
    if options.many is None:
        head, rows = ("shape", "block", "field", "vectors", "noise"), three_factors(seeds, quick=options.quick)
        title, meaning = "Recovery of planted D C D products", THREE
    else:
        rows = many_factors(options.many or range(len(MANY)), seeds, quick=options.quick)
        head = ("side", "factors", "field", "noise")
        title, meaning = "Recovery of planted products of many factors", MORE
    finish(options.out, "fits", title, meaning, table([*head, "recovered", "worst", "median seconds"], shown(rows)))


if __name__ == "__main__":
    main()
