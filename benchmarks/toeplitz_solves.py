"""Claim: Toeplitz systems have backward errors of 4e-15 at most, and mostly take O(n log n), in SciPy O(n^2) or more.

Accuracy, at n = 512: the right-hand side is T times a vector of normal numbers, rounded; the backward error is
``max|b - T x| / (norm(T, inf) max|x| + max|b|)``, the residual computed in extended precision. Speed: all solvers take
turns in one process on one core, times are the processor's, from first column and row to the solutions. SciPy repeats
its recursion for each right-hand side, so its time for 64 is 64 times that for one. Cholesky's method only at
n = 4,096: at 16,384 it needs 2 GiB and a minute. There each solver is timed once.

Growth, the least time of three rounds against n, in float64: a product with one vector, with what can be kept kept
(`prepare` here; SciPy's `matmul_toeplitz` keeps nothing), and a system. "symmetric" has the first column 0.99^k,
"general" random entries divided by 1 + k beside a diagonal of 2. The dense matrix is ready before it is timed; the
symmetric one is solved by Cholesky's method. --quick makes everything small; --out writes ``toeplitz_solves.md``, and
``growth.csv`` and ``growth.md``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from operator import matmul
from statistics import median

import _one_thread  # noqa: F401
import numpy as np
import scipy.linalg
from _common import finish, in_turns, parser, ratio, table

import structmat as sm

SIZES = (64, 256, 1024, 4096, 8192, 16384, 32768, 65536, 100_000, 262_144, 1_048_576)
SCIPY_SOLVES, DENSE = 100_000, 8192
"""The largest sizes of what takes O(n^2) time, and O(n^2) memory."""
GROWTH = ("task", "matrix", "n", "structmat", "scipy", "dense")
TIMED = ("positive definite", "smooth symbol", "rough symbol", "second difference", "random")


def families(n: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return first column and first row of matrices of many kinds."""
    k, rng = np.arange(n), np.random.default_rng(0)
    symmetric = {
        "Kac-Murdock-Szegő, 0.9^k": 0.9**k,
        "positive definite": 0.99**k,
        "second difference": np.where(k == 0, 2.0, np.where(k == 1, -1.0, 0.0)),
        "Gaussian kernel, exp(-k^2 / 2)": np.exp(-(k**2) / 2),
        "Gaussian kernel, exp(-k^2 / 8)": np.exp(-(k**2) / 8),
        "Gaussian kernel, exp(-k^2 / 32)": np.exp(-(k**2) / 32),
        "prolate, w = 0.45": 0.9 * np.sinc(0.9 * k),
        "prolate, w = 0.25": 0.5 * np.sinc(0.5 * k),
        "random, symmetric": rng.standard_normal(n),
    }
    found = {name: (c, c) for name, c in symmetric.items()}
    # The symbol (-exp(it))^beta of one jump [Fisher-Hartwig]: its sections are ill-conditioned for large beta.
    for beta in (0.3, 0.49):
        found[f"Fisher-Hartwig, jump {beta}"] = tuple(np.sin(np.pi * beta) / (np.pi * (s * k + beta)) for s in (-1, 1))
    c, r = rng.standard_normal((2, n))
    found["random"] = (c, r)
    found["random, zero diagonal"] = (np.where(k == 0, 0, c), np.where(k == 0, 0, r))
    found["three singular leading sections"] = (np.where(k < 3, 0, c), np.where(k < 3, 0, r))
    c, r = (rng.standard_normal((2, n)) + 1j * rng.standard_normal((2, n))) / (1 + k)
    found["random, complex, decaying"] = (c, r)
    rng = np.random.default_rng(n)
    for name, power, diagonal in (("smooth symbol", 2, 2.5), ("rough symbol", 1, 2.0)):
        found[name] = tuple(np.where(k == 0, diagonal, rng.standard_normal((2, n)) / (1 + k) ** power))
    return {name: (c, np.append(c[:1], r[1:])) for name, (c, r) in found.items()}


def solve(c: np.ndarray, r: np.ndarray, b: np.ndarray) -> np.ndarray:
    return sm.Toeplitz(c, r).solve(b)


def backward_error(T: np.ndarray, x: np.ndarray | None, b: np.ndarray) -> str:
    """Return how small a change of T and b makes a solution exact, as text; a dash where there is none."""
    if x is None or not np.all(np.isfinite(x)):
        return "-"
    wide = np.clongdouble if np.iscomplexobj(T) else np.longdouble
    residual = np.array([np.sum(row.astype(wide) * x) for row in T]) - b
    size = np.linalg.norm(T, np.inf) * np.max(np.abs(x)) + np.max(np.abs(b))
    return f"{float(np.max(np.abs(residual)) / size):.0e}"


def attempt(solve: Callable[[], np.ndarray]) -> np.ndarray | None:
    """Return a solution, or None where the solver refuses."""
    try:
        return solve()
    except np.linalg.LinAlgError:
        return None


def accuracy(n: int) -> str:
    """Return a table of backward errors."""
    rows = []
    for name, (c, r) in families(n).items():
        T = scipy.linalg.toeplitz(c, r)
        b = T @ np.random.default_rng(1).standard_normal(n)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ours = attempt(partial(solve, c, r, b))
            warned = "yes" if any(issubclass(w.category, scipy.linalg.LinAlgWarning) for w in caught) else "no"
            by_scipy = attempt(partial(scipy.linalg.solve_toeplitz, (c, r), b))
            solutions = ours, by_scipy, attempt(partial(np.linalg.solve, T, b))
        condition = f"{np.linalg.cond(T):.0e}"
        rows.append([name, condition, *(backward_error(T, x, b) for x in solutions), warned])
    return table(["matrix", "condition", "structmat", "solve_toeplitz", "dense solve", "structmat warns"], rows)


def speed(n: int, *, dense: bool, rounds: int) -> list[list[str]]:
    """Return rows of times in milliseconds: of structmat, SciPy and a dense solver, and their ratio."""
    found, B, rows = families(n), np.random.default_rng(1).standard_normal((n, 64)), []
    for kind in TIMED if dense else TIMED[:-1]:  # larger random ones take some ten seconds for each solution
        c, r = found[kind]
        solvers = {"SciPy, one": partial(scipy.linalg.solve_toeplitz, (c, r), B[:, 0])}
        for count, b in (("one", B[:, 0]), ("many", B)):
            solvers[count] = partial(solve, c, r, b)
            if dense and kind == "positive definite":
                solvers[f"dense, {count}"] = lambda c=c, b=b: scipy.linalg.solve(
                    scipy.linalg.toeplitz(c), b, assume_a="pos"
                )
        times = in_turns(solvers, rounds=rounds, limit=0.5)
        for count, ours in ((1, "one"), (64, "many")):
            cells = [median(times[ours]), count * median(times["SciPy, one"])]
            cells += [median(times[f"dense, {ours}"])] if f"dense, {ours}" in times else []
            texts = [f"{1e3 * cell:,.1f}" for cell in cells]
            share = count / ratio(times, ours, "SciPy, one")
            rows.append([f"{n:,}", kind, str(count), *texts, *["-"] * (3 - len(texts)), f"{share:.1f}"])
    return rows


def growth(n: int) -> list[list[object]]:
    """Return the rows of one size, in seconds."""
    found, x, rows = families(n), np.random.default_rng(1).standard_normal(n), []
    for name, kind, assume in (("symmetric", "positive definite", "pos"), ("general", "rough symbol", "gen")):
        c, r = found[kind]
        products = {
            "structmat": partial(matmul, sm.Toeplitz(c, r).prepare(), x),
            "scipy": partial(scipy.linalg.matmul_toeplitz, (c, r), x),
        }
        solves = {"structmat": partial(solve, c, r, x)}
        if n <= SCIPY_SOLVES:
            solves["scipy"] = partial(scipy.linalg.solve_toeplitz, (c, r), x)
        if n <= DENSE:
            A = scipy.linalg.toeplitz(c, r)
            products["dense"] = partial(matmul, A, x)
            solves["dense"] = partial(scipy.linalg.solve, A, x, assume_a=assume)
        for task, functions in (("product", products), ("solve", solves)):
            times = in_turns(functions, rounds=3, sample=0.1)
            rows.append([task, name, n, *(f"{min(times[w]):.3g}" if w in times else "" for w in GROWTH[3:])])
    return rows


def main() -> None:
    arguments = parser(__doc__).parse_args()
    rows = sorted(row for n in (SIZES[:2] if arguments.quick else SIZES) for row in growth(n))
    text = f"In seconds:\n\n{table(GROWTH, rows, left=2)}"
    finish(arguments.out, "growth", "Time against size", text, header=GROWTH, rows=rows)
    sizes, tested = ((256,), 64) if arguments.quick else ((4096, 16384), 512)
    rows = [row for n in sizes for row in speed(n, dense=n <= 4096, rounds=3 if n <= 4096 else 1)]
    head = ["n", "matrix", "right-hand sides", "structmat", "solve_toeplitz", "dense", "solve_toeplitz / structmat"]
    accurate = f"Backward errors at n = {tested}; a dash means that the solver refuses:", accuracy(tested)
    fast = 'Times in milliseconds, from first column and row to the solutions; "dense" is Cholesky\'s method:'
    finish(arguments.out, "toeplitz_solves", "Toeplitz systems", *accurate, fast, table(head, rows, left=2))


if __name__ == "__main__":
    main()
