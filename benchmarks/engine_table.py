"""Claim: the methods that `structmat/_fourier.py` chooses are those that measured fastest.

``python benchmarks/engine_table.py`` prints, one thread each,

- for every dtype, one vector and a batch, NumPy and torch: the time of each method over that of plain transforms, by
  size, and the fastest;
- for the four-step method: its time by the length of the columns;
- for every engine, dtype and number of vectors: the size up to which the dense product is faster than transforms;
- for lengths by their largest prime factor: the time of the length itself over that of the fast length around it;
- for batches: the time in chunks of several sizes over that in one piece.

Choose the numbers of the table by what it prints; near a crossover both methods take the same time.
"""

# ruff: noqa: E402  # threads are limited before libraries start them
from __future__ import annotations

from _common import in_turns, one_thread, parser

one_thread()

import itertools
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np

import structmat as sm
from structmat import _fourier as measured_choices
from structmat._array_tools import numpy_namespace
from structmat._fourier import (
    Settings,
    column_length,
    convolver,
    ducc,
    in_chunks,
    kernel_of_diagonals,
    rows_in_chunk,
    spectrum,
    transforms,
)
from structmat._fourier import convolution as planned

DTYPES = ("float32", "float64", "complex64", "complex128")
SIZES = (64, 128, 256, 512, 1000, 1024, 2048, 4096, 16384, 65536, 2**18, 2**20)
BATCH = 64
PARTS = ("methods", "columns", "crossovers", "primes", "chunks")


def medians(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Return the median time of each call."""
    return {name: median(seen) for name, seen in in_turns(calls, rounds=40, sample=1e-4, limit=seconds).items()}


def drawn(dtype: str, *shape: int) -> Any:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if dtype.startswith("c") else values).astype(dtype)


def convolution(method: str, c: Any, x: Any, *, chunked: bool = True) -> Callable[[], Any]:
    """Return the product of the circulant with first column `c` by one method."""
    n, real = c.shape[-1], c.dtype.kind != "c"
    step = convolver(method, c, lambda: spectrum(c, np, real=real), n, real=real)
    if x.ndim == 1:
        return lambda: step(x, None)
    if not chunked or method == measured_choices.DUCC_CONVOLUTION:
        return lambda: step(x, np.empty_like(x))

    def stored(v: Any, out: Any) -> Any:
        y = step(v, out)
        if out is None or y is out:
            return y
        out[...] = y
        return out

    return lambda: in_chunks(stored, x, n, rows_in_chunk(n, x.itemsize))


def torch_convolution(method: str, c: Any, x: Any) -> Callable[[], Any]:
    """Return the same for one vector of torch."""
    import torch  # noqa: PLC0415  # slow to import, and asked for once

    torch.set_num_threads(1)
    c, x = torch.from_numpy(c), torch.from_numpy(x)
    real, n, xp = not c.is_complex(), c.shape[-1], torch_namespace()
    step = convolver(method, None, lambda: spectrum(c, xp, real=real), n, xp, real=real)
    return lambda: step(x, None)


def torch_namespace() -> Any:
    from array_api_compat import torch  # noqa: PLC0415

    return torch


def compare(dtype: str, count: int, n: int, names: Sequence[str], seconds: float) -> None:
    """Print the time of each method over that of the first, and the fastest."""
    c, x = drawn(dtype, n), drawn(dtype, *([n] if count == 1 else [count, n]))
    make = torch_convolution if names[0] == measured_choices.TORCH else convolution
    got = medians({name: make(name, c, x) for name in names}, seconds)
    ratios = ", ".join(f"{name} {got[name] / got[names[0]]:.2f}" for name in names[1:])
    print(f"{dtype} {count} {n}: {ratios}; {min(got, key=got.__getitem__)}", flush=True)


def methods(sizes: Sequence[int], seconds: float) -> None:
    print("dtype vectors n: time over plain transforms, fastest")
    for dtype, n in itertools.product(DTYPES, sizes):
        one = [measured_choices.SCIPY, measured_choices.DUCC, measured_choices.DUCC_CONVOLUTION]
        if not dtype.startswith("c"):
            one.append(measured_choices.SCIPY_CONVOLUTION)
        torch = [measured_choices.TORCH]
        if column_length(n):
            one += [measured_choices.SCIPY_STEPS, measured_choices.DUCC_STEPS]
            torch.append(measured_choices.TORCH_STEPS)
        compare(dtype, 1, n, one, seconds)
        compare(
            dtype, BATCH, n, (measured_choices.SCIPY, measured_choices.DUCC, measured_choices.DUCC_CONVOLUTION), seconds
        )
        compare(dtype, 1, n, torch, seconds)


def columns(sizes: Sequence[int], seconds: float) -> None:
    print("dtype n: time of the four-step method by the length of a column, over that of the table's")
    for (dtype, n), method in itertools.product(
        itertools.product(("float32", "float64"), sizes), (measured_choices.SCIPY_STEPS, measured_choices.DUCC_STEPS)
    ):
        c, x, kept = drawn(dtype, n), drawn(dtype, n), measured_choices.COLUMNS
        calls, size = {}, 32
        chosen = column_length(n)
        try:
            while size * 16 <= n and chosen:
                measured_choices.COLUMNS = ((np.inf, size, 0),)
                calls[f"{column_length(n)}"] = convolution(method, c, x)
                size *= 2
        finally:
            measured_choices.COLUMNS = kept
        if calls:
            calls["table"] = convolution(method, c, x)
            got = medians(calls, seconds)
            ratios = {name: round(t / got["table"], 2) for name, t in got.items()}
            print(f"{method} {dtype} {n} ({chosen}):", ratios, flush=True)


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
    variants = [sm.Prepared(C, P.plan, C.to_dense() if direct else None, direct, P.settings) for direct in (10**9, 0)]
    return tuple(lambda V=V: V.matvec(x) for V in variants)  # type: ignore[return-value]


def primes(seconds: float) -> None:
    print("engine dtype vectors n (largest prime factor): time over that of the fast length around it")
    how = {engine: Settings(engine, ready=True) for engine in ("scipy", "ducc0")}
    for factor, size in itertools.product((17, 29, 37, 47, 53, 61, 67, 71, 83, 97, 101, 127, 149, 211), (1000, 6000)):
        n = factor * 2 ** round(np.log2(size / factor))
        for dtype, count in itertools.product(("float32", "float64"), (1, BATCH)):
            c, x = drawn(dtype, n), drawn(dtype, *([n] if count == 1 else [count, n]))
            for engine, settings in how.items():
                calls = {}
                for name, kernel in (("own", c), ("embedded", kernel_of_diagonals(c, c[:0:-1], numpy_namespace))):
                    plan = planned(kernel, (n, n), settings, numpy_namespace)
                    P = sm.Prepared(sm.Circulant(c), plan, None, 0, settings)
                    calls[name] = lambda P=P, x=x: P.matvec(x)
                got = medians(calls, seconds)
                print(f"{engine} {dtype} {count} {n} ({factor}): {got['own'] / got['embedded']:.2f}", flush=True)


def chunks(seconds: float) -> None:
    print("dtype n: time in chunks over that in one piece, of 1,024 vectors or 64 MiB, by KiB in a chunk")
    for dtype in ("float32", "float64"):
        for n in (256, 1024, 4096, 16384):
            count = min(1024, 2**26 // (n * np.dtype(dtype).itemsize))
            c, x = drawn(dtype, n), drawn(dtype, count, n)
            forward, backward = transforms(measured_choices.SCIPY, n, real=True)
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
    made = parser(__doc__)
    made.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)}; all by default")
    made.add_argument("--seconds", type=float, default=0.1, help="for each call")
    made.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    arguments = made.parse_args()
    if arguments.quick:
        arguments.parts, arguments.sizes, arguments.seconds = ["methods", "columns"], (1024,), 1e-3
    parts = arguments.parts or PARTS
    if ducc() is None:
        raise SystemExit("install structmat[fast] to compare engines")
    sm.show_config()
    runs = {"methods": methods, "columns": columns}
    for part in parts:
        if part in runs:
            runs[part](arguments.sizes, arguments.seconds)
        else:
            {"crossovers": crossovers, "primes": primes, "chunks": chunks}[part](arguments.seconds)


if __name__ == "__main__":
    main()
