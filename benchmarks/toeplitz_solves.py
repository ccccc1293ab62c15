"""Claim: Toeplitz systems have backward errors of 4e-15 at most, and large ones are mostly solved faster than by SciPy.

Accuracy, at n = 512: the right-hand side is T times a vector of normal numbers, rounded; the backward error is
``max|b - T x| / (norm(T, inf) max|x| + max|b|)``, the residual computed in extended precision. Speed: all solvers take
turns in one process on one core, times are the processor's, from first column and row to the solutions. SciPy repeats
its recursion for each right-hand side, so its time for 64 is 64 times that for one. Cholesky's method only at
n = 4,096: at 16,384 it needs 2 GiB and a minute. There each solver is timed once. --quick makes everything small.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from statistics import median

import _one_thread  # noqa: F401
import numpy as np
import scipy.linalg
from _common import finish, in_turns, parser, ratio, table

import structmat as sm


def families(n: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return first column and first row of matrices of many kinds."""
    k, rng = np.arange(n), np.random.default_rng(0)
    symmetric = {
        "Kac-Murdock-Szegő, 0.9^k": 0.9**k,
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
    return {name: (c, np.append(c[:1], r[1:])) for name, (c, r) in found.items()}


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
            ours = attempt(partial(sm.Toeplitz(c, r).solve, b))
            warned = "yes" if any(issubclass(w.category, scipy.linalg.LinAlgWarning) for w in caught) else "no"
            by_scipy = attempt(partial(scipy.linalg.solve_toeplitz, (c, r), b))
            solutions = ours, by_scipy, attempt(partial(np.linalg.solve, T, b))
        condition = f"{np.linalg.cond(T):.0e}"
        rows.append([name, condition, *(backward_error(T, x, b) for x in solutions), warned])
    return table(["matrix", "condition", "structmat", "solve_toeplitz", "dense solve", "structmat warns"], rows)


def speed(n: int, *, dense: bool, rounds: int) -> list[list[str]]:
    """Return rows of times in milliseconds: of structmat, SciPy and a dense solver, and their ratio."""
    k, rng = np.arange(n), np.random.default_rng(n)
    smooth, rough, random = rng.standard_normal((3, 2, n))
    smooth /= (1 + k) ** 2
    rough /= 1 + k
    smooth[:, 0], rough[:, 0] = 2.5, 2
    kinds = {"positive definite": (0.99**k, 0.99**k), "smooth symbol": smooth, "rough symbol": rough}
    kinds["second difference"] = (np.where(k < 2, 2.0 - 3 * k, 0.0),) * 2
    if dense:
        kinds["random"] = random  # larger ones take some ten seconds for each solution
    rows = []
    for kind, (c, r) in kinds.items():
        r[0] = c[0]
        B = rng.standard_normal((n, 64))
        solvers = {
            "one": lambda c=c, r=r, b=B[:, 0]: sm.Toeplitz(c, r).solve(b),
            "many": lambda c=c, r=r, B=B: sm.Toeplitz(c, r).solve(B),
            "SciPy, one": lambda c=c, r=r, b=B[:, 0]: scipy.linalg.solve_toeplitz((c, r), b),
        }
        if dense and kind == "positive definite":
            for name, right in (("dense, one", B[:, 0]), ("dense, many", B)):
                solvers[name] = lambda c=c, b=right: scipy.linalg.solve(scipy.linalg.toeplitz(c), b, assume_a="pos")
        times = in_turns(solvers, rounds=rounds, limit=0.5)
        for count, ours in ((1, "one"), (64, "many")):
            cells = [median(times[ours]), count * median(times["SciPy, one"])]
            cells += [median(times[f"dense, {ours}"])] if f"dense, {ours}" in times else []
            texts = [f"{1e3 * cell:,.1f}" for cell in cells]
            share = count / ratio(times, ours, "SciPy, one")
            rows.append([f"{n:,}", kind, str(count), *texts, *["-"] * (3 - len(texts)), f"{share:.1f}"])
    return rows


def main() -> None:
    arguments = parser(__doc__).parse_args()
    sizes = (256,) if arguments.quick else (4096, 16384)
    rows = [row for n in sizes for row in speed(n, dense=n <= 4096, rounds=3 if n <= 4096 else 1)]
    head = ["n", "matrix", "right-hand sides", "structmat", "solve_toeplitz", "dense", "solve_toeplitz / structmat"]
    tested = 64 if arguments.quick else 512
    accurate = f"Backward errors at n = {tested}; a dash means that the solver refuses:", accuracy(tested)
    fast = 'Times in milliseconds, from first column and row to the solutions; "dense" is Cholesky\'s method:'
    finish(arguments.out, "toeplitz_solves", "Toeplitz systems", *accurate, fast, table(head, rows, left=2))


if __name__ == "__main__":
    main()
