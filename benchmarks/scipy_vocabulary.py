"""What SciPy calls otherwise: its functions beside what to write here.

    python benchmarks/scipy_vocabulary.py [--quick] [--out FOLDER]

Each pair does the same from the same arrays, and the results are compared before they are timed. "prepared" is the
product or the solution alone, by an operator that `prepare` has made, where SciPy has to start anew. Where SciPy makes
a dense matrix its time is that of making it and of one product. All take turns in one process on one core, times are
the processor's. --quick does small sizes only. --out writes ``scipy_vocabulary.csv`` and ``.md``.
"""

# ruff: noqa: E402  # threads are limited before libraries start them
from __future__ import annotations

from _common import in_turns, machine, one_thread, parser, ratio, save_results, table

one_thread()

from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import scipy.linalg
from scipy.sparse.linalg import aslinearoperator

import structmat as sm

HEADER = ("scipy", "structmat", "n", "scipy_us", "structmat_us", "prepared_us", "times_as_fast", "prepared_times")
Call = Callable[[], object]


def pairs(n: int) -> list[tuple[str, str, Call, Call, Call | None]]:
    """Return the calls: SciPy's, ours, and ours prepared."""
    k, rng = np.arange(n), np.random.default_rng(0)
    c, r = rng.standard_normal((2, n)) / (1 + k) ** 2
    c[0] = r[0] = 2.5
    x, X, a = rng.standard_normal(n), rng.standard_normal((n, 64)), rng.standard_normal(n // 4)
    T, C, H = sm.Toeplitz(c, r).prepare(), sm.Circulant(c).prepare(), sm.Hankel(c, r[::-1]).prepare()
    inverse = sm.Toeplitz(c, r).inv().prepare()
    dense = scipy.linalg.toeplitz(c, r)

    def convolution() -> sm.Toeplitz:
        d = np.pad(a, n - 1)
        return sm.Toeplitz(d[n - 1 :], d[:n][::-1])

    A, F, D = convolution().prepare(), (n**0.5 * sm.Fourier(n)).prepare(), sm.Toeplitz(1.0 * k).prepare()
    scipy_bridge, ours_bridge = aslinearoperator(dense), sm.scipy.as_linear_operator(T)
    return [
        (
            "toeplitz(c, r) @ x",
            "Toeplitz(c, r) @ x",
            lambda: scipy.linalg.toeplitz(c, r) @ x,
            lambda: sm.Toeplitz(c, r) @ x,
            lambda: T @ x,
        ),
        (
            "matmul_toeplitz((c, r), x)",
            "Toeplitz(c, r) @ x",
            lambda: scipy.linalg.matmul_toeplitz((c, r), x),
            lambda: sm.Toeplitz(c, r) @ x,
            lambda: T @ x,
        ),
        (
            "matmul_toeplitz((c, r), X), 64 columns",
            "Toeplitz(c, r) @ X",
            lambda: scipy.linalg.matmul_toeplitz((c, r), X),
            lambda: sm.Toeplitz(c, r) @ X,
            lambda: T @ X,
        ),
        (
            "solve_toeplitz((c, r), b)",
            "Toeplitz(c, r).solve(b)",
            lambda: scipy.linalg.solve_toeplitz((c, r), x),
            lambda: sm.Toeplitz(c, r).solve(x),
            lambda: inverse @ x,
        ),
        (
            "solve_toeplitz((c, r), B), 64 columns",
            "Toeplitz(c, r).solve(B)",
            lambda: scipy.linalg.solve_toeplitz((c, r), X),
            lambda: sm.Toeplitz(c, r).solve(X),
            lambda: inverse @ X,
        ),
        (
            "circulant(c) @ x",
            "Circulant(c) @ x",
            lambda: scipy.linalg.circulant(c) @ x,
            lambda: sm.Circulant(c) @ x,
            lambda: C @ x,
        ),
        (
            "solve_circulant(c, b)",
            "Circulant(c).solve(b)",
            lambda: scipy.linalg.solve_circulant(c, x),
            lambda: sm.Circulant(c).solve(x),
            lambda: C.solve(x),
        ),
        (
            "hankel(c, r) @ x",
            "Hankel(c, r) @ x",
            lambda: scipy.linalg.hankel(c, r[::-1]) @ x,
            lambda: sm.Hankel(c, r[::-1]) @ x,
            lambda: H @ x,
        ),
        (
            "dft(n) @ x",
            "n**0.5 * Fourier(n) @ x",
            lambda: scipy.linalg.dft(n) @ x,
            lambda: n**0.5 * (sm.Fourier(n) @ x),
            lambda: F @ x,
        ),
        (
            "convolution_matrix(a, n) @ x",
            "Toeplitz(...) @ x",
            lambda: scipy.linalg.convolution_matrix(a, n) @ x,
            lambda: convolution() @ x,
            lambda: A @ x,
        ),
        (
            "fiedler(h * arange(n)) @ x",
            "Toeplitz(h * arange(n)) @ x",
            lambda: scipy.linalg.fiedler(1.0 * k) @ x,
            lambda: sm.Toeplitz(1.0 * k) @ x,
            lambda: D @ x,
        ),
        (
            "aslinearoperator(T) @ x, T dense and ready",
            "as_linear_operator(P) @ x, P prepared",
            lambda: scipy_bridge @ x,
            lambda: ours_bridge @ x,
            None,
        ),
    ]


def measured(n: int, rounds: int) -> list[list[object]]:
    """Return one row for each pair."""
    rows: list[list[object]] = []
    for theirs, ours, by_scipy, by_us, prepared in pairs(n):
        functions = {"scipy": by_scipy, "structmat": by_us} | ({} if prepared is None else {"prepared": prepared})
        want = np.asarray(by_scipy())
        for name, function in functions.items():
            off = np.linalg.norm(function() - want) / np.linalg.norm(want)
            if not off < 1e-9:
                raise SystemExit(f"{theirs}, n = {n}: {name} is off by {off:.1g}")
        times = in_turns(functions, rounds=rounds, limit=0.5)
        row: list[object] = [theirs, ours, n]
        row += [
            f"{1e6 * median(times[name]):.1f}" if name in times else "" for name in ("scipy", "structmat", "prepared")
        ]
        row += [f"{1 / ratio(times, name, 'scipy'):.3g}" if name in times else "" for name in ("structmat", "prepared")]
        rows.append(row)
    return rows


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--out", type=Path, metavar="FOLDER", help="where to write scipy_vocabulary.csv and .md")
    arguments = made.parse_args()
    sizes = (16, 256) if arguments.quick else (16, 256, 4096)
    rows = [row for n in sizes for row in measured(n, rounds=3 if arguments.quick else 11)]
    head = ("SciPy", "structmat", "n", "SciPy", "structmat", "prepared", "times as fast", "prepared")
    text = "\n\n".join(
        (
            "# SciPy's functions and ours",
            machine("structmat", "numpy", "scipy", "ducc0"),
            "Times in microseconds; the last two columns are SciPy's time over ours:",
            table(head, [[cell or "-" for cell in row] for row in rows], left=2),
        )
    )
    print(text)
    if arguments.out:
        save_results(arguments.out, "scipy_vocabulary", HEADER, rows, text)


if __name__ == "__main__":
    main()
