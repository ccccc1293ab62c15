"""Claim: each start and phase of `fit_cdd` lowers the error or the time of some kind of matrix.

A part is taken out by its constant or its line in a list of starts. For every matrix and number of factors the table
has the mean error and the mean of the processor's seconds of whole fits, and for each part how much larger the error is
without it, in per cent, and the time without it, in per cent of the whole. A part stays if it wins half a per cent of
error, or five per cent of time, on a matrix that users have. Matrices: parts of real weight changes, independent normal
entries, planted products with and without noise, a permutation, a sparse matrix, rank three with noise, a rectangle.
--quick makes everything tiny; --out writes a section of ``fits.md``.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import _one_thread  # noqa: F401
import numpy as np
from _common import begin, changed, finish, normal, parser, shown, table, with_noise

import structmat as sm
from structmat.fit import _alternation as alternation
from structmat.fit import _search as search
from structmat.fit import _three_factor_search as three

FIELDS = ("matrix", "factors", "without", "error", "error_change", "seconds", "seconds_share")
DATA = Path(__file__).resolve().parent.parent / "docs" / "examples" / "data"
Parts = dict[str, tuple[dict[str, Any], Any, dict[str, Any]]]

MANY: Parts = {
    "low-rank start": ({}, search, {"STARTS": {"peeling": search.STARTS["peeling"]}}),
    "peeling start": ({}, search, {"STARTS": {"low-rank": search.STARTS["low-rank"]}}),
    "exploration": ({"restarts": 0}, search, {}),
    "all chains but four": ({"restarts": 4}, search, {}),
    "polish": ({}, search, {"_POLISH": 20}),
}
"""For more than three factors: options of `fit_cdd`, a module, and names in it, that leave a part out."""

THREE: Parts = {
    "shift synchronisation": ({}, three, {"STARTS": {}}),
    "random starts": ({"restarts": 0}, three, {}),
    "momentum": ({}, alternation, {"_MOMENTUM": 0.0}),
}
"""The same for three factors."""


def planted(rng: np.random.Generator, n: int, factors: int, noise: float) -> np.ndarray:
    return with_noise(rng, sm.CDDProduct.from_vectors(*normal(rng, factors, n)).to_dense(), noise)


def change(name: str, n: int) -> np.ndarray:
    return np.load(DATA / f"minilm_banking77_{name}.npy")[:n, :n]


MATRICES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    **{
        f"{kind}, layer {layer}, 64 x 64": lambda *_, name=f"l{layer}_{kind}": change(name, 64)
        for kind, layer in (("query", 0), ("value", 3), ("query", 5))
    },
    "gaussian, 24 x 24": lambda rng, _: rng.standard_normal((24, 24)),
    "gaussian, 64 x 64": lambda rng, _: rng.standard_normal((64, 64)),
    "permutation, 32 x 32": lambda rng, _: np.eye(32)[rng.permutation(32)],
    "sparse, 64 x 64": lambda rng, _: rng.standard_normal((64, 64)) * (rng.random((64, 64)) < 0.05),
    "rank three and noise, 64 x 64": lambda rng, _: (
        rng.standard_normal((64, 3)) @ rng.standard_normal((3, 64)) + 0.17 * rng.standard_normal((64, 64))
    ),
    "gaussian, 96 x 32": lambda rng, _: rng.standard_normal((96, 32)),
    "planted, 32 x 32": lambda rng, factors: planted(rng, 32, factors, 0.0),
    "planted with noise, 32 x 32": lambda rng, factors: planted(rng, 32, factors, 0.3),
}
"""From a generator and the number of factors of the fit, which planted products have too."""


def fitted(
    matrix: str, factors: int, seeds: list[int], options: dict[str, Any], module: Any, names: dict[str, Any]
) -> list[float]:
    """Return the mean error, and the mean of the processor's seconds, over seeds of matrices and fits."""
    errors, seconds = [], []
    with changed(module, **names):
        for seed in seeds:
            W = MATRICES[matrix](np.random.default_rng(100 + seed), factors)
            begun = time.process_time()
            errors.append(sm.fit_cdd(W, factors, rng=seed, **options).error)
            seconds.append(time.process_time() - begun)
    return [fmean(errors), fmean(seconds)]


def measured(matrix: str, factors: int, seeds: list[int]) -> Iterator[list[object]]:
    error, seconds = fitted(matrix, factors, seeds, {}, search, {})
    yield [matrix, factors, "", f"{error:.5f}", "", f"{seconds:.2f}", ""]
    for part, (options, module, names) in (THREE if factors == 3 else MANY).items():
        own_error, own_seconds = fitted(matrix, factors, seeds, options, module, names)
        more = f"{100 * (own_error / error - 1):+.2f}" if error > 1e-9 else f"to {own_error:.2g}"
        share = f"{100 * own_seconds / seconds:.0f}"
        yield [matrix, factors, part, f"{own_error:.5f}", more, f"{own_seconds:.2f}", share]


def main() -> None:
    made = parser(__doc__, "one small matrix, to see that it runs")
    made.add_argument("--matrices", nargs="+", choices=MATRICES, default=[*MATRICES])
    made.add_argument("--seeds", type=int, default=1, metavar="COUNT", help="how many matrices and fits of each kind")
    options = begin(made)
    factors, seeds, matrices = (3, 5, 7, 9), list(range(options.seeds)), options.matrices
    if options.quick:
        factors, seeds, matrices = (3, 5), [0], ["gaussian, 24 x 24"]
    sm.fit_cdd(np.eye(3), 5, rng=0)  # imports
    rows = shown(row for case in itertools.product(matrices, factors) for row in measured(*case, seeds))
    title, text = "What each part of a fit is worth", table(FIELDS, rows, left=3)
    finish(options.out, "fits", title, text)


if __name__ == "__main__":
    main()
