"""Measure which method multiplies a circulant fastest, for the table in `structmat/_fft/_table.py`.

``python benchmarks/engine_table.py`` prints, one thread each,

- for every dtype, one vector and a batch: the time of each method over that of `scipy.fft`, by size, and the fastest;
- for every engine, dtype and number of vectors: the size up to which the dense product is faster than transforms;
- for lengths by their largest prime factor: the time of the length itself over that of the fast length around it;
- for batches: the time in chunks of several sizes over that in one piece.

Choose the numbers of the table by what it prints; near a crossover both methods take the same time.
"""

# ruff: noqa: E402  # threads are limited before libraries start them
from __future__ import annotations

from _common import one_thread

one_thread()

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import structmat as sm
from structmat._fft import _table, convolve_axis, ducc, fast_length, in_chunks, rows_in_chunk, transforms

DTYPES = ("float32", "float64", "complex64", "complex128")
SIZES = (64, 128, 256, 512, 1000, 1024, 2048, 4096, 16384, 65536)
BATCH = 64


def medians(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Return the median time of each call, taken in turns, so that a busy machine slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    repeats = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, int(1e-4 / max(time.perf_counter() - start, 1e-7)))
    end = time.perf_counter() + seconds * len(calls)
    while time.perf_counter() < end or min(map(len, times.values())) < 5:
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            times[name].append((time.perf_counter() - start) / repeats[name])
    return {name: statistics.median(values) for name, values in times.items()}


def drawn(dtype: str, *shape: int) -> Any:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if dtype.startswith("c") else values).astype(dtype)


def convolution(method: str, c: Any, x: Any, *, chunked: bool = True) -> Callable[[], Any]:
    """Return the product of the circulant with first column `c` by one method."""
    n, real = c.shape[-1], c.dtype.kind != "c"
    forward, backward = transforms("scipy.fft" if method == _table.SCIPY else _table.DUCC, n, None, real=real)
    spectrum = forward(c).copy()

    def step(v: Any, out: Any) -> Any:
        if method == _table.DUCC_CONVOLUTION:
            y = convolve_axis(c, v, None, out)
        else:
            X = forward(v)
            X *= spectrum
            y = backward(X)
        if out is None or y is out:
            return y
        out[...] = y
        return out

    if x.ndim == 1 or not chunked:
        return lambda: step(x, None)
    size = len(x) if method == _table.DUCC_CONVOLUTION else rows_in_chunk(n, x.itemsize)
    return lambda: in_chunks(step, x, n, size)


def methods(sizes: Sequence[int], seconds: float) -> None:
    names = (_table.SCIPY, _table.DUCC, _table.DUCC_CONVOLUTION)
    print(f"dtype vectors n: time over scipy.fft of {names[1:]}, fastest")
    for dtype in DTYPES:
        for count in (1, BATCH):
            for n in sizes:
                c, x = drawn(dtype, n), drawn(dtype, *([n] if count == 1 else [count, n]))
                got = medians({name: convolution(name, c, x) for name in names}, seconds)
                ratios = ", ".join(f"{got[name] / got[_table.SCIPY]:.2f}" for name in names[1:])
                print(f"{dtype} {count} {n}: {ratios}, {min(got, key=got.__getitem__)}", flush=True)


def crossovers(seconds: float) -> None:
    print("engine dtype: the size up to which a dense product is faster, for 1, 8, 64 and 512 vectors")
    for engine in ("scipy", "ducc0", "torch"):
        for dtype in DTYPES:
            found = []
            for count in (1, 8, 64, 512):
                low, high = 8, 1024  # bisection on a logarithmic scale, in steps of an eighth
                while high > low * 1.125:
                    n = round((low * high) ** 0.5 / 4) * 4
                    dense, plan = products(engine, dtype, n, count)
                    got = medians({"dense": dense, "plan": plan}, seconds)
                    low, high = (n, high) if got["dense"] < got["plan"] else (low, n)
                found.append(low)
            print(f'    ("{"numpy" if engine == "scipy" else engine}", "{dtype}"): {tuple(found)},', flush=True)


def products(engine: str, dtype: str, n: int, count: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return the dense product, and that by transforms, with prepared operators."""
    c, x = drawn(dtype, n), drawn(dtype, *([n] if count == 1 else [count, n]))
    if engine == "torch":
        import torch  # noqa: PLC0415  # slow to import, and asked for once

        torch.set_num_threads(1)
        c, x = torch.from_numpy(c), torch.from_numpy(x)
    C = sm.Circulant(c)
    P = C.prepare() if engine == "torch" else C.prepare(engine=engine)
    variants = [
        sm.Prepared(C, P.plan, P.adjoint, C.to_dense() if direct else None, direct, P.how) for direct in (10**9, 0)
    ]
    return tuple(lambda V=V: V.matvec(x) for V in variants)  # type: ignore[return-value]


def primes(seconds: float) -> None:
    print("engine dtype vectors n (largest prime factor): time over that of the fast length around it")
    for factor in (11, 13, 17, 19, 23, 29, 31, 37, 47, 61, 101, 211, 1009):
        for dtype in ("float32", "float64"):
            for count in (1, BATCH):
                n = factor * 2 ** int(np.log2(2048 / factor))
                x = drawn(dtype, *([n] if count == 1 else [count, n]))
                c = drawn(dtype, n)
                length = fast_length(2 * n - 1)
                long = drawn(dtype, length)
                wide = np.zeros((*x.shape[:-1], length), dtype)
                for engine in (_table.SCIPY, _table.DUCC):
                    got = medians(
                        {"own": convolution(engine, c, x), "embedded": convolution(engine, long, wide)}, seconds
                    )
                    print(f"{engine} {dtype} {count} {n} ({factor}): {got['own'] / got['embedded']:.2f}", flush=True)


def chunks(seconds: float) -> None:
    print("dtype n: time in chunks over that in one piece, of 1,024 vectors or 64 MiB, by KiB in a chunk")
    for dtype in ("float32", "float64"):
        for n in (256, 1024, 4096, 16384):
            count = min(1024, 2**26 // (n * np.dtype(dtype).itemsize))
            c, x = drawn(dtype, n), drawn(dtype, count, n)
            forward, backward = transforms(_table.SCIPY, n, None, real=True)
            S = forward(c)

            def step(v: Any, out: Any, forward: Any = forward, backward: Any = backward, S: Any = S) -> Any:
                y = backward(forward(v) * S)
                if out is None:
                    return y
                out[...] = y
                return out

            calls = {
                f"{size}": lambda step=step, x=x, n=n, size=size: in_chunks(
                    step, x, n, max(1, size * 1024 // (n * x.itemsize))
                )
                for size in (128, 256, 512, 1024, 2048, 4096)
            }
            got = medians({"whole": lambda step=step, x=x: step(x, None), **calls}, seconds)
            print(f"{dtype} {n}:", {name: round(t / got["whole"], 2) for name, t in got.items()}, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="methods, crossovers, primes, chunks; all by default")
    parser.add_argument("--seconds", type=float, default=0.1, help="for each call")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--quick", action="store_true", help="one small size, to see that it runs")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.parts, arguments.sizes, arguments.seconds = ["methods"], (64,), 1e-3
    parts = arguments.parts or ["methods", "crossovers", "primes", "chunks"]
    if ducc() is None:
        raise SystemExit("install structmat[fast] to compare engines")
    sm.show_config()
    for part in parts:
        if part == "methods":
            methods(arguments.sizes, arguments.seconds)
        else:
            {"crossovers": crossovers, "primes": primes, "chunks": chunks}[part](arguments.seconds)


if __name__ == "__main__":
    main()
