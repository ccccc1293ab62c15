"""Claim: for 4,096 rows what structmat has in place of SciPy's functions is faster than these, for 16 rows slower.

Each pair does the same from the same arrays, and the results are compared before they are timed. "prepared" is the
product or the solution alone, by an operator that `prepare` has made, where SciPy has to start anew. Where SciPy makes
a dense matrix its time is that of making it and of one product. All take turns in one process on one core, times are
the processor's. --quick does small sizes only. --out writes ``scipy_vocabulary.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

import _one_thread  # noqa: F401
import numpy as np
import scipy.linalg
from _common import begin, finish, in_turns, parser, ratio, table
from scipy.sparse.linalg import aslinearoperator

import structmat as sm

PAIRS = (
    ("toeplitz(c, r) @ x", "Toeplitz(c, r) @ x", "T @ x"),
    ("matmul_toeplitz((c, r), x)", "Toeplitz(c, r) @ x", "T @ x"),
    ("matmul_toeplitz((c, r), X)", "Toeplitz(c, r) @ X", "T @ X"),
    ("solve_toeplitz((c, r), b)", "Toeplitz(c, r).solve(b)", "inverse @ b"),
    ("solve_toeplitz((c, r), B)", "Toeplitz(c, r).solve(B)", "inverse @ B"),
    ("circulant(c) @ x", "Circulant(c) @ x", "C @ x"),
    ("solve_circulant(c, b)", "Circulant(c).solve(b)", "C.solve(b)"),
    ("hankel(c, s) @ x", "Hankel(c, s) @ x", "H @ x"),
    ("dft(n) @ x", "n**0.5 * Fourier(n) @ x", "F @ x"),
    ("convolution_matrix(a, n) @ x", "Toeplitz(d[n - 1 :], d[:n][::-1]) @ x", "A @ x"),
    ("fiedler(h * arange(n)) @ x", "Toeplitz(h * arange(n)) @ x", "D @ x"),
    ("aslinearoperator(dense) @ x", "as_linear_operator(T) @ x", "T @ x"),
)
"""What SciPy calls it, what to write here, and the same by an operator that is prepared."""


def names(n: int) -> dict[str, Any]:
    """Return what the expressions of `PAIRS` use; X and B have 64 columns, d is a with zeros on both sides."""
    k, rng = np.arange(n), np.random.default_rng(0)
    c, r = rng.standard_normal((2, n)) / (1 + k) ** 2
    c[0] = r[0] = 2.5
    x, X, a = rng.standard_normal(n), rng.standard_normal((n, 64)), rng.standard_normal(n // 4)
    d = np.pad(a, n - 1)
    prepared = {
        "T": sm.Toeplitz(c, r).prepare(),
        "inverse": sm.Toeplitz(c, r).inv().prepare(),
        "C": sm.Circulant(c).prepare(),
        "H": sm.Hankel(c, r[::-1]).prepare(),
        "F": (n**0.5 * sm.Fourier(n)).prepare(),
        "A": sm.Toeplitz(d[n - 1 :], d[:n][::-1]).prepare(),
        "D": sm.Toeplitz(0.5 * k).prepare(),
    }
    arrays = {"n": n, "c": c, "r": r, "s": r[::-1], "x": x, "b": x, "X": X, "B": X, "a": a, "d": d, "h": 0.5}
    ready = {"dense": scipy.linalg.toeplitz(c, r), "arange": np.arange, "aslinearoperator": aslinearoperator}
    ready["as_linear_operator"] = sm.scipy.as_linear_operator
    return {**vars(scipy.linalg), **{name: getattr(sm, name) for name in sm.__all__}, **arrays, **prepared, **ready}


def measured(n: int, rounds: int) -> Iterator[list[object]]:
    """Return one row for each pair."""
    known = names(n)
    for pair in PAIRS:
        theirs, ours, _ = pair
        functions = {
            name: eval(f"lambda: {text}", known)  # noqa: S307  # our own
            for name, text in zip(("scipy", "structmat", "prepared"), pair, strict=True)
        }
        want = np.asarray(functions["scipy"]())
        for name, function in functions.items():
            off = np.linalg.norm(function() - want) / np.linalg.norm(want)
            if not off < 1e-9:
                raise SystemExit(f"{theirs}, n = {n}: {name} is off by {off:.1g}")
        times = in_turns(functions, rounds=rounds, limit=0.5)
        microseconds = [f"{1e6 * median(times[name]):.1f}" for name in functions]
        shares = [f"{1 / ratio(times, name, 'scipy'):.3g}" for name in ("structmat", "prepared")]
        yield [theirs, ours, n, *microseconds, *shares]


def main() -> None:
    arguments = begin(parser(__doc__))
    sizes = (16, 256) if arguments.quick else (16, 256, 4096)
    rows = [row for n in sizes for row in measured(n, rounds=3 if arguments.quick else 11)]
    shares = {(row[0], row[2]): f"{row[6]}, {row[7]}" for row in rows}
    beside = [[f"`{pair[0]}`", f"`{pair[1]}`", *(shares[pair[0], n] for n in sizes)] for pair in PAIRS]
    head = ("SciPy", "structmat", "n", "SciPy", "structmat", "prepared", "times as fast", "prepared")
    parts = (
        "SciPy's time over ours, one-off and prepared:",
        "<!-- beside SciPy -->",
        table(["SciPy", "structmat", *(f"n = {n:,}" for n in sizes)], beside, left=2),
        "<!-- /beside SciPy -->",
        "Times in microseconds; the last two columns are SciPy's time over ours:",
        table(head, rows, left=2),
    )
    packages = ("structmat", "numpy", "scipy")
    finish(arguments.out, "scipy_vocabulary", "SciPy's functions and ours", *parts, packages=packages)


if __name__ == "__main__":
    main()
