"""Claim: Toeplitz systems have backward errors of 4e-15 at most; smooth symbols take O(n log n), in SciPy O(n^2).

Accuracy, at n = 512: the right-hand side is T times a vector of normal numbers, rounded; the backward error is
``max|b - T x| / (norm(T, inf) max|x| + max|b|)``, the residual computed in extended precision. Speed: all solvers take
turns in one process on one core, times are the processor's, from first column and row to the solutions. Cholesky's
method and 64 right-hand sides in SciPy only at n = 4,096: at 16,384 they take a minute and half a minute.

Growth, the least time of three rounds against n, in float64; a call that takes more than a second is timed once. A
product with one vector: "prepared" keeps what can be kept, the others begin with first column and row, as SciPy's
`matmul_toeplitz` does, which keeps nothing. A system: all begin there. "symmetric" has the first column 0.99^k,
"general" random entries divided by 1 + k beside a diagonal of 2, "random" normal entries, of which no iteration solves
systems. The dense matrix is ready before it is timed; the symmetric one is solved by Cholesky's method. NumPy arrays
are transformed as by the default install, in columns with "fast" by ducc0. --quick makes everything small; --out writes
``toeplitz_solves.md``, and ``growth.csv`` and ``growth.md``.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from operator import matmul
from statistics import median

import _one_thread  # noqa: F401
import numpy as np
import scipy.linalg
from _common import BOTH, begin, ducc0_is_installed, engine, finish, in_turns, parser, ratio, shown, table

import structmat as sm

SIZES = (64, 256, 1024, 4096, 8192, 16384, 32768, 65536, 100_000)
DENSE = 4096
"""The largest size of what takes O(n^2) memory."""
RANDOM = 16_384
"""The largest size of random matrices, whose systems take seconds beyond."""
GROWTH = ("task", "matrix", "n", "structmat", "prepared", "scipy", "dense", "fast", "prepared, fast")
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
        if dense:
            solvers["SciPy, many"] = partial(scipy.linalg.solve_toeplitz, (c, r), B)
        for count, b in (("one", B[:, 0]), ("many", B)):
            solvers[count] = partial(solve, c, r, b)
            if dense and kind == "positive definite":
                solvers[f"dense, {count}"] = lambda c=c, b=b: scipy.linalg.solve(
                    scipy.linalg.toeplitz(c), b, assume_a="pos"
                )
        times = in_turns(solvers, rounds=rounds, limit=0.5)
        for count, ours in ((1, "one"), (64, "many")):
            names = ours, f"SciPy, {ours}", f"dense, {ours}"
            texts = [f"{1e3 * median(times[name]):,.1f}" if name in times else "-" for name in names]
            share = f"{ratio(times, names[1], ours):.1f}" if names[1] in times else "-"
            rows.append([f"{n:,}", kind, str(count), *texts, share])
    return rows


def least(functions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the least seconds of each function: of one call where it is a long one, else of three rounds."""
    found, short = {}, {}
    for name, function in functions.items():
        begun = time.process_time()
        function()
        found[name] = time.process_time() - begun
        if found[name] <= 1:
            short[name] = function
    if short:
        found |= {name: min(seen) for name, seen in in_turns(short, rounds=3, sample=0.02).items()}
    return found


def growth(n: int) -> list[list[object]]:
    """Return the rows of one size, in seconds."""
    found, x, rows = families(n), np.random.default_rng(1).standard_normal(n), []
    kinds = [("symmetric", "positive definite", "pos"), ("general", "rough symbol", "gen")]
    for name, kind, assume in [*kinds, ("random", "random", "gen")] if n <= RANDOM else kinds:
        c, r = found[kind]
        by_scipy = {"product": scipy.linalg.matmul_toeplitz, "solve": scipy.linalg.solve_toeplitz}
        peers = {task: {"scipy": partial(function, (c, r), x)} for task, function in by_scipy.items()}
        if n <= DENSE:
            A = scipy.linalg.toeplitz(c, r)
            peers["product"]["dense"] = partial(matmul, A, x)
            peers["solve"]["dense"] = partial(scipy.linalg.solve, A, x, assume_a=assume)
        for task, others in peers.items():
            with engine("scipy"):
                times = least(ours(task, c, r, x) | others)
            if ducc0_is_installed():
                with engine("ducc0"):
                    fast = least(ours(task, c, r, x))
                times |= {{"structmat": "fast"}.get(which, f"{which}, fast"): seen for which, seen in fast.items()}
            rows.append([task, name, n, *(f"{times[which]:.3g}" if which in times else "" for which in GROWTH[3:])])
    return rows


def ours(task: str, c: np.ndarray, r: np.ndarray, x: np.ndarray) -> dict[str, Callable[[], object]]:
    if task == "solve":
        return {"structmat": partial(solve, c, r, x)}
    return {"structmat": lambda: sm.Toeplitz(c, r) @ x, "prepared": partial(matmul, sm.Toeplitz(c, r).prepare(), x)}


def write_growth(arguments: argparse.Namespace) -> None:
    rows = sorted(shown(row for n in (SIZES[:2] if arguments.quick else SIZES) for row in growth(n)))
    text, packages = f"In seconds:\n\n{table(GROWTH, rows, left=2)}", ("structmat", "numpy", "scipy", "ducc0")
    finish(
        arguments.out, "growth", "Time against size", text, packages=packages, engines=BOTH, header=GROWTH, rows=rows
    )


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--only", choices=("growth", "systems"), help="one of the two pages")
    arguments = begin(made)
    if arguments.only != "systems":
        write_growth(arguments)
    if arguments.only == "growth":
        return
    sizes, tested = ((256,), 64) if arguments.quick else ((4096, 16384), 512)
    rows = [row for n in sizes for row in speed(n, dense=n <= 4096, rounds=3 if n <= 4096 else 1)]
    head = ["n", "matrix", "right-hand sides", "structmat", "solve_toeplitz", "dense", "solve_toeplitz / structmat"]
    accurate = f"Backward errors at n = {tested}; a dash means that the solver refuses:", accuracy(tested)
    fast = 'Times in milliseconds, from first column and row to the solutions; "dense" is Cholesky\'s method:'
    finish(arguments.out, "toeplitz_solves", "Toeplitz systems", *accurate, fast, table(head, rows, left=2))


if __name__ == "__main__":
    main()
