"""Claim: the methods that `structmat/_fourier/engines.py` chooses are those that measured fastest.

Each part prints what its numbers are, then the numbers, of one thread. Choose those of the table by them; near a
crossover both methods take the same time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import _one_thread  # noqa: F401
import numpy as np
from _common import changed, circulant_data, engine, in_turns, parser

import structmat as sm
from structmat._arrays.namespaces import numpy_namespace
from structmat._fourier import chunks as chunks_of_vectors
from structmat._fourier import convolutions, engines
from structmat._fourier.chunks import in_chunks, rows_in_chunk
from structmat._fourier.convolutions import circular_convolution, column_length, ducc_convolution
from structmat._fourier.embedding import kernel_of_diagonals
from structmat._fourier.plans import Convolution
from structmat._fourier.spectra import spectrum

DTYPES = ("float32", "float64", "complex64", "complex128")
SIZES = (64, 128, 256, 512, 1000, 1024, 2048, 4096, 16384, 65536, 2**18, 2**20)
BATCH = 64


def medians(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Return the median time of each call."""
    return {name: median(seen) for name, seen in in_turns(calls, rounds=40, sample=1e-4, limit=seconds).items()}


def convolution(method: str, c: Any, x: Any) -> Callable[[], Any]:
    """Return the product of the circulant with first column `c` by one method; of torch for one vector."""
    n, real = c.shape[-1], c.dtype.kind != "c"
    if method in {engines.TORCH, engines.TORCH_FOUR_STEP}:
        from array_api_compat import torch as xp  # noqa: PLC0415  # slow to import

        c, x = xp.from_numpy(c), xp.from_numpy(x)
        product = circular_convolution(method, spectrum(c, xp, real=real), n, xp, real=real)
    elif method == engines.DUCC_CONVOLUTION:
        product: Callable[[Any], Any] = partial(ducc_convolution, c)
    else:
        product = circular_convolution(method, spectrum(c, numpy_namespace, real=real), n, real=real)
    if x.ndim == 1 or method == engines.DUCC_CONVOLUTION:
        return lambda: product(x)
    return lambda: in_chunks(product, x, n, rows_in_chunk(n, x.itemsize))


def show(what: str, times: dict[str, float]) -> None:
    """Print each time over the first, and which is the shortest."""
    first, *others = times
    ratios = ", ".join(f"{name} {times[name] / times[first]:.2f}" for name in others)
    print(f"{what}: {ratios}; {min(times, key=times.__getitem__)}", flush=True)


def methods(sizes: Sequence[int], seconds: float) -> None:
    print("dtype vectors n: time over plain transforms, fastest")
    for dtype, n in itertools.product(DTYPES, sizes):
        many = [engines.SCIPY, engines.DUCC, engines.DUCC_CONVOLUTION]
        one, torch = many + [engines.SCIPY_CONVOLUTION] * (not dtype.startswith("c")), [engines.TORCH]
        if column_length(n):
            one += [engines.SCIPY_FOUR_STEP, engines.DUCC_FOUR_STEP]
            torch.append(engines.TORCH_FOUR_STEP)
        for count, names in ((1, one), (BATCH, many), (1, torch)):
            c, x = circulant_data(n, count, dtype)
            show(f"{dtype} {count} {n}", medians({name: convolution(name, c, x) for name in names}, seconds))


def columns(sizes: Sequence[int], seconds: float) -> None:
    print("dtype n: time of the four-step method by the length of a column, over that of the table's")
    for dtype, n, method in itertools.product(DTYPES[:2], sizes, (engines.SCIPY_FOUR_STEP, engines.DUCC_FOUR_STEP)):
        if not column_length(n):
            continue
        c, x = circulant_data(n, 1, dtype)
        calls = {"table": convolution(method, c, x)}
        for size in (2**k for k in range(5, 20) if 2**k * 16 <= n):
            with changed(convolutions, COLUMNS=((np.inf, size, 0),)):
                calls[f"{column_length(n)}"] = convolution(method, c, x)
        show(f"{method} {dtype} {n} ({column_length(n)})", medians(calls, seconds))


def crossovers(sizes: Sequence[int], seconds: float) -> None:
    print("engine dtype: the size up to which a dense product is faster, for 1, 8, 64 and 512 vectors")
    for library, dtype in itertools.product(("scipy", "ducc0", "torch"), DTYPES):
        found = []
        for count in (1, 8, 64, 512):
            low, high = 8, max(16, min(1024, max(sizes)))  # bisection on a logarithmic scale, in steps of an eighth
            while high > low * 1.125:
                n = round((low * high) ** 0.5 / 4) * 4
                got = medians(products(library, dtype, n, count), seconds)
                low, high = (n, high) if got["dense"] < got["plan"] else (low, n)
            found.append(low)
        print(f'    ("{"numpy" if library == "scipy" else library}", "{dtype}"): {tuple(found)},', flush=True)


def products(library: str, dtype: str, n: int, count: int) -> dict[str, Callable[[], Any]]:
    """Return the dense product, and that by transforms, with prepared operators."""
    c, x = circulant_data(n, count, dtype)
    if library == "torch":
        import torch  # noqa: PLC0415  # slow to import

        c, x = torch.from_numpy(c), torch.from_numpy(x)
    C = sm.Circulant(c)
    with engine(library):
        P = C.prepare()
        dense, plan = sm.Prepared(C, P.plan, C.to_dense(), 10**9), sm.Prepared(C, P.plan, None, 0)
        dense.matvec(x), plan.matvec(x)  # which prepares them
    return {"dense": lambda: dense.matvec(x), "plan": lambda: plan.matvec(x)}


def primes(sizes: Sequence[int], seconds: float) -> None:
    print("engine dtype vectors n (largest prime factor): time over that of the fast length around it")
    for factor, size in itertools.product((17, 29, 37, 47, 53, 61, 67, 71, 83, 97, 101, 127, 149, 211), (1000, 6000)):
        n = factor * 2 ** round(np.log2(min(size, max(sizes)) / factor))
        for dtype, count, library in itertools.product(DTYPES[:2], (1, BATCH), ("scipy", "ducc0")):
            (c, x), calls = circulant_data(n, count, dtype), {}
            for name, kernel in (("embedded", kernel_of_diagonals(c, c[:0:-1], numpy_namespace)), ("own", c)):
                with engine(library):
                    P = sm.Prepared(sm.Circulant(c), Convolution.of(kernel, (n, n), numpy_namespace), None, 0)
                    P.matvec(x)  # which prepares it
                calls[name] = lambda P=P, x=x: P.matvec(x)
            show(f"{library} {dtype} {count} {n} ({factor})", medians(calls, seconds))


def chunks(sizes: Sequence[int], seconds: float) -> None:
    print("dtype n: time in chunks over that in one piece, of 1,024 vectors or 64 MiB, by KiB in a chunk")
    for dtype, n in itertools.product(DTYPES[:2], [n for n in (256, 1024, 4096, 16384) if n <= max(sizes)]):
        c, x = circulant_data(n, min(1024, 2**26 // (n * np.dtype(dtype).itemsize)), dtype)
        calls = {}
        for size in (2**30, 128, 256, 512, 1024, 2048, 4096):
            with engine("scipy"), changed(chunks_of_vectors, CHUNK=size * 1024):
                calls["whole" if size == 2**30 else f"{size}"] = partial(sm.Circulant(c).prepare().matvec, x)
        show(f"{dtype} {n}", medians(calls, seconds))


PARTS = {part.__name__: part for part in (methods, columns, crossovers, primes, chunks)}


def main() -> None:
    made = parser(__doc__, "one small size, to see that it runs", out=False)
    made.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)}; all by default")
    arguments = made.parse_args()
    sizes, seconds = ((1024,), 1e-4) if arguments.quick else (SIZES, 0.1)
    sm.show_config()
    for part in arguments.parts or PARTS:
        PARTS[part](sizes, seconds)


if __name__ == "__main__":
    main()
