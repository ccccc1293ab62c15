"""Claim: the time of a product grows as n log n within a third, and its memory is the result and one spectrum.

    python benchmarks/scaling.py [--largest 24] [--dtype float64] [--batch 1] [--rounds 9] [--engine scipy] [--quick]
                                 [--out FOLDER]

Sizes are the powers of two from 2^6, for one vector or a batch. Each size gets the time of a prepared circulant and
that of the floor, ``irfft(S * rfft(x), n)``, in turns on one core by the processor's clock, and the memory of one
product above operator and input: what NumPy has allocated at most (tracemalloc), and how far the process has grown
(the peak of its resident memory, on Linux, which holds the temporaries of libraries too). The result is part of both.

"n log n" is the time over n log2 n, relative to the middle of its range from 2^10 to 2^22: the line that no size misses
by more. --out writes a table as ``.md`` and ``.csv`` and a plot, ``scaling_ENGINE_DTYPE_BATCH`` by name.
"""

# ruff: noqa: E402  # threads are limited before libraries start them
from __future__ import annotations

from _common import engine, finish, in_turns, machine, one_thread, parser, table

one_thread()

import argparse
import re
import sys
import tracemalloc
from collections.abc import Callable
from math import log2
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from scipy.fft import irfft, rfft

import structmat as sm

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
STEADY = range(10, 23)  # powers of two over which n log n is judged


class Row(NamedTuple):
    """What one size costs."""

    n: int
    batch: int
    dtype: str
    seconds: float
    floor_seconds: float
    input_bytes: int
    allocated_bytes: int
    resident_bytes: int | None


def resident(field: str) -> int:
    """Return the bytes of resident memory now (VmRSS) or at their peak (VmHWM)."""
    return 1024 * int(re.search(rf"{field}:\s*(\d+)", STATUS.read_text())[1])


def memory(product: Callable[[], Any]) -> tuple[int, int | None]:
    """Return the bytes that a product needs at most: as NumPy allocates them, and as the process grows."""
    grown = None
    if RESET.exists():
        RESET.write_text("5")  # the peak begins anew
        before = resident("VmRSS")
        product()
        grown = max(0, resident("VmHWM") - before)
    tracemalloc.start()
    product()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak, grown


def measured(n: int, options: argparse.Namespace) -> Row:
    rng = np.random.default_rng(0)
    c = rng.standard_normal(n, dtype=np.dtype(options.dtype))
    x = rng.standard_normal((n,) if options.batch == 1 else (options.batch, n), dtype=c.dtype)
    with engine(options.engine):
        op, S = sm.Circulant(c).prepare(), rfft(c)
    both = {"ours": lambda: op.matvec(x), "floor": lambda: irfft(S * rfft(x), n)}
    times = in_turns(both, options.rounds, limit=3.0)
    return Row(n, options.batch, options.dtype, *map(median, times.values()), x.nbytes, *memory(both["ours"]))


def growth(rows: list[Row]) -> list[float]:
    """Return the times over n log2 n, relative to the middle of their range over the steady sizes."""
    rates = [row.seconds / (row.n * log2(row.n)) for row in rows]
    steady = [rate for rate, row in zip(rates, rows, strict=True) if log2(row.n) in STEADY]
    middle = (min(steady or rates) + max(steady or rates)) / 2
    return [rate / middle for rate in rates]


def report(rows: list[Row]) -> str:
    relative = growth(rows)
    lines = []
    for row, rate in zip(rows, relative, strict=True):
        grown = "-" if row.resident_bytes is None else f"{row.resident_bytes / row.input_bytes:.2f}"
        power, micro, over = log2(row.n), 1e6 * row.seconds, row.seconds / row.floor_seconds
        size, allocated = row.input_bytes / 1024, row.allocated_bytes / row.input_bytes
        lines.append(
            (f"2^{power:.0f}", f"{micro:,.1f}", f"{over:.2f}", f"{rate:.2f}", f"{size:,.1f}", f"{allocated:.2f}", grown)
        )
    header = ("n", "µs", "time / floor", "n log n", "input, KiB", "allocated / input", "resident / input")
    inside = [rate for rate, row in zip(relative, rows, strict=True) if log2(row.n) in STEADY]
    verdict = f"From 2^10 to 2^22: {min(inside):.2f} to {max(inside):.2f} times n log n." if inside else ""
    return f"{table(header, lines, left=0)}\n\n{verdict}".strip()


def draw(rows: list[Row], path: Path) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(10, 4), layout="constrained")
    time, space = figure.subplots(1, 2)
    sizes = [row.n for row in rows]
    time.plot(sizes, [row.seconds for row in rows], marker=".", color="black", linewidth=2, label="structmat")
    time.plot(sizes, [row.floor_seconds for row in rows], marker=".", color="C1", label="floor: scipy.fft")
    scale = median(row.seconds / (row.n * log2(row.n)) / rate for row, rate in zip(rows, growth(rows), strict=True))
    line = [scale * n * log2(n) for n in sizes]
    time.plot(sizes, line, color="grey", linestyle="--", label="n log n")
    time.fill_between(sizes, [t * 2 / 3 for t in line], [t * 4 / 3 for t in line], color="grey", alpha=0.2, linewidth=0)
    time.set(ylabel="seconds", title="time of a product; band: a third each way", yscale="log")
    space.axhline(1, color="grey", linestyle="--", label="the result alone")
    ratios = [row.allocated_bytes / row.input_bytes for row in rows]
    space.plot(sizes, ratios, marker=".", color="black", label="allocated by NumPy")
    if rows[0].resident_bytes is not None:
        ratios = [row.resident_bytes / row.input_bytes for row in rows]
        space.plot(sizes, ratios, marker=".", color="C0", label="growth of the process")
    space.set(ylabel="memory / input", title="memory of a product, its result included", ylim=(0, None))
    for axes in (time, space):
        axes.set_xscale("log", base=2)
        axes.set_xlabel("n")
        axes.grid(alpha=0.25)
        axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--largest", type=int, default=24, help="power of two")
    made.add_argument("--dtype", choices=("float32", "float64"), default="float64")
    made.add_argument("--batch", type=int, default=1)
    made.add_argument("--rounds", type=int, default=9)
    made.add_argument("--engine", choices=("scipy", "auto"), default="scipy", help='"auto" is for the extra `fast`')
    options = made.parse_args()
    if options.quick:
        options.largest, options.rounds = 8, 3
    rows = []
    for power in range(6, options.largest + 1):
        rows.append(measured(2**power, options))
        print(f"2^{power}: {1e6 * rows[-1].seconds:,.1f} µs", file=sys.stderr, flush=True)
    chosen = f"--engine {options.engine} --dtype {options.dtype} --batch {options.batch}"
    title = f"# Time and memory against n\n\n`python benchmarks/scaling.py {chosen}`"
    stem, where = (
        f"scaling_{options.engine}_{options.dtype}_{options.batch}",
        machine("structmat", "numpy", "scipy", "ducc0"),
    )
    finish(options.out, stem, f"{title}\n\n{report(rows)}\n\n{where}", Row._fields, rows)
    if options.out:
        draw(rows, options.out / f"{stem}.png")


if __name__ == "__main__":
    main()
