"""Claim: Toeplitz systems are as accurate as LAPACK's; large ones take less time than in SciPy, small ones more.

Accuracy, at n = 512: the right-hand side is T times a vector of normal numbers, rounded; the backward error is
``max|b - T x| / (norm(T, inf) max|x| + max|b|)``, the residual computed in extended precision. Speed: all solvers take
turns in one process on one core, times are the processor's; of an operator or arrays that are there already. Errors
beside them are those of the first solution, relative to one that is refined with residuals in extended precision; that
takes a dense matrix, as `numpy.linalg.solve` does, so that larger ones have none. 64 right-hand sides take SciPy 64
times as long as one, and are timed up to 1,024 rows. Stacks are solved by one call of `Toeplitz.inv_matvec`; in a loop
by SciPy; and by `numpy.linalg.solve`, which begins with the stack of dense matrices. Bands are compared with
`scipy.linalg.solve_banded`, which begins with the band.

Growth, the least time of three rounds against n, in float64; a call that takes more than a second is timed once. A
product with one vector: "prepared" keeps what can be kept, the others begin with first column and row, as SciPy's
`matmul_toeplitz` does, which keeps nothing. A system: all begin there. Matrices: 0.99^k and a random positive definite
one, both symmetric; "decaying" has random entries divided by 1 + k beside a diagonal of 2, whose time here is the
median of 12 draws, with the longest in a column of its own; "random" has normal entries, of which no iteration solves
systems. The dense matrix is ready before it is timed; symmetric ones are solved by Cholesky's method. NumPy arrays are
transformed as by the default install, in columns with "fast" by ducc0. --quick makes everything small; --out writes
two sections of ``toeplitz.md``, the systems with the slowest kinds first, and ``growth.csv``.
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
from _common import BOTH, Times, begin, ducc0_is_installed, engine, finish, in_turns, parser, ratio, shown, table

import structmat as sm

SIZES = (64, 256, 1013, 1024, 4096, 8192, 16384, 32768)
DENSE = 4096
"""The largest size of what takes O(n^2) memory."""
RANDOM = 16_384
"""The largest size of random matrices, whose systems take seconds beyond."""
GROWTH = ("task", "matrix", "n", "structmat", "longest", "prepared", "scipy", "dense", "fast", "prepared, fast")
DRAWS = 12
SPEED = (16, 64, 256, 1024, 4096, 16384)
"""The sizes of single systems."""
WITH_ERRORS = 1024
"""The largest size of those whose errors are known, and whose many right-hand sides SciPy solves."""
STACKS = ((1000, 8), (1000, 32), (100, 64), (100, 128))
"""How many matrices of how many rows stacks have."""
BANDED = (64, 256, 1024, 16384, 100_000)


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
    found["smooth symbol"] = decaying(rng, n, 2, 2.5)
    found["rough symbol"] = decaying(rng, n, 1, 2.0)
    return {name: (c, np.append(c[:1], r[1:])) for name, (c, r) in found.items()}


def decaying(rng: np.random.Generator, n: int, power: int, diagonal: float) -> tuple[np.ndarray, np.ndarray]:
    """Return first column and row of random entries that fall off by a power beside a diagonal."""
    k = np.arange(n)
    c, r = np.where(k == 0, diagonal, rng.standard_normal((2, n)) / (1 + k) ** power)
    return c, r


def positive_definite(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    c = np.fft.irfft(rng.exponential(size=n + 1), 2 * n)[:n]
    return c, c


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


def kernels(n: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return first column and first row of the matrices whose systems are timed."""
    k, rng = np.arange(n), np.random.default_rng(0)
    symmetric = {"0.99^k": 0.99**k}
    for nugget in (1e-2, 1e-3, 1e-4, 1e-6, 1e-8):
        symmetric[f"exp(-(k / 50)^2) + {nugget:.0e}"] = np.exp(-((k / 50) ** 2)) + nugget * (k == 0)
    symmetric["random, positive definite"], _ = positive_definite(rng, n)
    symmetric["random, symmetric"] = rng.standard_normal(n)
    found = {name: (c, c) for name, c in symmetric.items()}
    c, r = rng.standard_normal((2, n))
    found["random"] = c, np.append(c[:1], r[1:])
    found |= {name: families(n)[name] for name in ("smooth symbol", "rough symbol")}
    return found


def refined(c: np.ndarray, r: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the solution to double precision, by residuals in extended precision."""
    T = scipy.linalg.toeplitz(c, r)
    factors, wide = scipy.linalg.lu_factor(T), T.astype(np.longdouble)
    x = scipy.linalg.lu_solve(factors, b).astype(np.longdouble)
    for _ in range(5):
        x += scipy.linalg.lu_solve(factors, (b - wide @ x).astype(float))
    return x


def texts(times: Times, *names: str) -> list[str]:
    """Return times in milliseconds, a dash where there is none, and that of the second over that of the first."""
    shown = [f"{1e3 * median(times[name]):,.3g}" if name in times else "-" for name in names]
    return [*shown, f"{ratio(times, names[1], names[0]):.2f}" if names[1] in times else "-"]


def speed(n: int) -> list[list[str]]:
    """Return rows of times of structmat and SciPy and of their errors."""
    rows, B = [], np.random.default_rng(1).standard_normal((n, 64))
    for name, (c, r) in kernels(n).items():
        T, b, few = sm.Toeplitz(c, r), B[:, 0], n <= WITH_ERRORS
        one = {"one": partial(T.solve, b), "SciPy, one": partial(scipy.linalg.solve_toeplitz, (c, r), b)}
        many = {"many": partial(T.solve, B)}
        if few:
            many["SciPy, many"] = partial(scipy.linalg.solve_toeplitz, (c, r), B)
        times = in_turns(one, sample=0.01, limit=0.5) | in_turns(many, rounds=5, limit=0.5)
        errors = ["-", "-"]
        if few:
            exact = refined(c, r, b)
            found = one["one"](), one["SciPy, one"]()
            errors = [f"{float(np.linalg.norm(x - exact) / np.linalg.norm(exact)):.0e}" for x in found]
        rows.append([f"{n:,}", name, "1", *texts(times, "one", "SciPy, one"), *errors])
        rows.append([f"{n:,}", name, "64", *texts(times, "many", "SciPy, many"), "", ""])
    return rows


def stacks(count: int, n: int) -> list[list[str]]:
    """Return rows of times of stacks of systems."""
    rng, rows = np.random.default_rng(0), []
    definite = np.fft.irfft(rng.exponential(size=(count, n + 1)), 2 * n)[:, :n]
    c, r = rng.standard_normal((2, count, n))
    r[:, 0] = c[:, 0]
    b = rng.standard_normal((count, n))
    for name, vectors in {"random, positive definite": (definite, definite), "random": (c, r)}.items():
        T = sm.Toeplitz(*vectors)
        dense = T.to_dense()
        solvers = {
            "ours": partial(T.inv_matvec, b),
            "SciPy": lambda vectors=vectors: [
                scipy.linalg.solve_toeplitz((c, r), x) for c, r, x in zip(*vectors, b, strict=True)
            ],
            "NumPy": lambda dense=dense: np.linalg.solve(dense, b[..., None]),
        }
        times = in_turns(solvers, rounds=5)
        rows.append([f"{count:,}", str(n), name, *texts(times, "ours", "NumPy"), *texts(times, "ours", "SciPy")[1:]])
    return rows


def bands(n: int) -> list[list[str]]:
    """Return rows of times of bands."""
    rng, rows = np.random.default_rng(0), []
    wide = rng.standard_normal((2, 8)) / 4
    kinds = {
        "second difference": ([2.0, -1], [-1.0]),
        "fourth difference and 0.01": ([6.01, -4, 1], [-4.0, 1]),
        "general, 1 above": ([3.0], [1.0]),
        "general, 2 below, 1 above": ([4.0, 1, 0.5], [-1.0]),
        "random, 8 below, 8 above": ([4.0, *wide[0]], [*wide[1]]),
    }
    for name, (below, above) in kinds.items():
        c, r = (np.append(v, np.zeros(n - len(v))) for v in (below, below[:1] + above))
        band = np.repeat(np.append(above[::-1], below)[:, None], n, axis=1)
        b = rng.standard_normal(n)
        solvers = {
            "ours": partial(sm.Toeplitz(c, r).solve, b),
            "SciPy": partial(scipy.linalg.solve_banded, (len(below) - 1, len(above)), band, b),
        }
        rows.append([f"{n:,}", name, *texts(in_turns(solvers), "ours", "SciPy")])
    return rows


def slowest_and_fastest(rows: list[list[str]], n: str) -> list[list[str]]:
    """Return the rows of two kinds of matrices that are slowest beside SciPy, and that of the fastest kind."""
    by_ratio = sorted((row for row in rows if row[0] == n), key=lambda row: float(row[4]))
    return [*by_ratio[:2], by_ratio[-1]]


def write_systems(arguments: argparse.Namespace) -> None:
    quick = arguments.quick
    single = shown(row for n in (SPEED[:3] if quick else SPEED) for row in speed(n))
    batches = shown(row for size in (STACKS[:1] if quick else STACKS) for row in stacks(*size))
    banded = shown(row for n in (BANDED[:2] if quick else BANDED) for row in bands(n))
    tested = 64 if quick else 512
    one = [[*row[:2], *row[3:]] for row in single if row[2] == "1"]
    extremes = [row for n in dict.fromkeys(row[0] for row in one) for row in slowest_and_fastest(one, n)]
    against = "solve_toeplitz / structmat"
    head = ["n", "matrix", "right-hand sides", "structmat", "solve_toeplitz", against, "error", "its error"]
    parts = (
        f"Backward errors at n = {tested}; a dash means that the solver refuses:",
        accuracy(tested),
        "Times in milliseconds. The two slowest kinds of each size beside SciPy, and the fastest, one right-hand side:",
        "<!-- extremes -->",
        table([*head[:2], *head[3:]], extremes, left=2),
        "<!-- /extremes -->",
        "All kinds:",
        table(head, single, left=2),
        "Stacks of matrices, one right-hand side each, `numpy.linalg.solve` beginning with dense matrices:",
        table(
            [
                "matrices",
                "n",
                "matrix",
                "structmat",
                "linalg.solve",
                "its ratio",
                "loop of solve_toeplitz",
                "its ratio",
            ],
            batches,
            left=3,
        ),
        "Bands:",
        table(["n", "matrix", "structmat", "solve_banded", "solve_banded / structmat"], banded, left=2),
    )
    finish(arguments.out, "toeplitz", "Toeplitz systems", *parts)


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
    x, rows, column = np.random.default_rng(1).standard_normal(n), [], 0.99 ** np.arange(n)
    kinds = {
        "0.99^k": [(column, column)],
        "random, positive definite": [positive_definite(np.random.default_rng(n), n)],
        "decaying": [decaying(np.random.default_rng([n, draw]), n, 1, 2.0) for draw in range(DRAWS)],
    }
    if n <= RANDOM:
        kinds["random"] = [families(n)["random"]]
    for name, draws in kinds.items():
        first = draws[0]
        by_scipy = {"product": scipy.linalg.matmul_toeplitz, "solve": scipy.linalg.solve_toeplitz}
        peers = {task: {"scipy": partial(function, first, x)} for task, function in by_scipy.items()}
        if n <= DENSE:
            A, assume = scipy.linalg.toeplitz(*first), "pos" if first[0] is first[1] else "gen"
            peers["product"]["dense"] = partial(matmul, A, x)
            peers["solve"]["dense"] = partial(scipy.linalg.solve, A, x, assume_a=assume)
        for task, others in peers.items():
            timed = draws if task == "solve" else draws[:1]
            with engine("scipy"):
                times = of_draws(task, timed, x) | least(others)
            if ducc0_is_installed():
                with engine("ducc0"):
                    fast = of_draws(task, timed, x)
                times["fast"] = fast["structmat"]
                if "prepared" in fast:
                    times["prepared, fast"] = fast["prepared"]
            rows.append([task, name, n, *(f"{times[which]:.3g}" if which in times else "" for which in GROWTH[3:])])
    return rows


def of_draws(task: str, draws: list[tuple[np.ndarray, np.ndarray]], x: np.ndarray) -> dict[str, float]:
    """Return our least seconds for each way, the median over some matrices of one kind, and the longest of several."""
    found = [least(ours(task, *draw, x)) for draw in draws]
    times = {way: median(each[way] for each in found) for way in found[0]}
    if len(draws) > 1:
        times["longest"] = max(each["structmat"] for each in found)
    return times


def ours(task: str, c: np.ndarray, r: np.ndarray, x: np.ndarray) -> dict[str, Callable[[], object]]:
    if task == "solve":
        return {"structmat": partial(solve, c, r, x)}
    return {"structmat": lambda: sm.Toeplitz(c, r) @ x, "prepared": partial(matmul, sm.Toeplitz(c, r).prepare(), x)}


def write_growth(arguments: argparse.Namespace) -> None:
    rows = sorted(shown(row for n in (SIZES[:2] if arguments.quick else SIZES) for row in growth(n)))
    text, packages = f"In seconds:\n\n{table(GROWTH, rows, left=2)}", ("structmat", "numpy", "scipy", "ducc0")
    finish(
        arguments.out,
        "toeplitz",
        "Time against size",
        text,
        packages=packages,
        engines=BOTH,
        data="growth",
        header=GROWTH,
        rows=rows,
    )


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--only", choices=("growth", "systems"), help="one of the two sections")
    arguments = begin(made)
    if arguments.only != "systems":
        write_growth(arguments)
    if arguments.only == "growth":
        return
    write_systems(arguments)


if __name__ == "__main__":
    main()
