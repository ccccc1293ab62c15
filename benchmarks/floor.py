"""Claim: a product by a prepared operator takes about the time of the plain transforms that it needs, or less.

The floor is ``irfft(S * rfft(x), n)`` with the spectrum S ready: by `scipy.fft` for NumPy, by the library's own
transforms for torch and JAX (compiled). On grids it is the same by d-dimensional transforms, for a Toeplitz matrix on
the embedded grid and cut to the rows. Each case has something to compare with and a ratio aimed at; beside dense
products of small n, three microseconds more are allowed for the call. What ours returns is checked first. Both sides
take turns in one process on one core, and times are the processor's. A ratio is the median over the rounds, the spread
half the range of their middle half.

Groups that say "fast" are for the extra ``fast``, the others for the default engine. --quick takes the smallest sizes.
--out writes a section of ``products.md``, with --only one that is named after these groups.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from math import prod
from statistics import median, quantiles
from typing import Any, NamedTuple

import _one_thread  # noqa: F401
import jax
import numpy as np
import torch
from _common import BOTH, circulant_data, engine, fault, finish, in_turns, parser, ratio, table, vectors
from scipy.fft import fft, ifft, irfft, irfftn, rfft, rfftn

import structmat as sm

SIZES = (64, 100, 256, 500, 1000, 1023, 1024, 2048, 4095, 4096, 4097, 10000, 16384, 65536, 2**18, 2**20)
PRIMES = (251, 509, 1021, 2039, 4093, 8191, 16381)
DENSE = (8, 16, 32, 64, 100, 128, 200, 256, 320, 400, 512)
GRIDS = ((32, 32), (64, 64), (256, 256), (1024, 1024), (16, 16, 16), (32, 32, 32), (64, 64, 64))
DTYPES = ("float32", "float64")


class Case(NamedTuple):
    """Our product and what it is compared with."""

    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    aim: float | None = None
    """The ratio aimed at."""
    allowance: float = 0.0
    """Seconds on top of it."""
    expected: Callable[[], Any] | None = None
    """What ours must return; by default what theirs does."""
    what: str = ""


HEADER = ("group", "case", "microseconds", "compared_with", "ratio", "spread", "aim", "met")


# One case each


def circulant(n: int, batch: int, dtype: str, *, fast: bool) -> Case:
    c, x = circulant_data(n, batch, dtype)
    forth, back = (fft, ifft) if dtype.startswith("complex") else (rfft, irfft)
    op, S = sm.Circulant(c).prepare(), forth(c)
    aim = 1.5 if n < 1024 and batch == 1 else 1.15
    if fast and dtype == "float64" and (batch > 1 or n >= 4096):
        aim = 0.7
    return Case(lambda: op.matvec(x), lambda: back(S * forth(x), n), aim)


def prime(n: int, batch: int, dtype: str, *, fast: bool) -> Case:
    return circulant(n, batch, dtype, fast=fast)._replace(aim=0.7 if batch > 1 else None)


def related(what: str, n: int, batch: int, dtype: str) -> Case:
    c, x = circulant_data(n, batch, dtype)
    P, s = sm.Circulant(c).prepare(), rfft(c)
    ours, S = (P.rmatvec, np.conj(s)) if what == "rmatvec" else (P.inv_matvec, 1 / s)
    return Case(lambda: ours(x), lambda: irfft(S * rfft(x), n), 1.15, what=f"{what}, ")


def toeplitz(n: int, batch: int, dtype: str) -> Case:
    c, x = circulant_data(n, batch, dtype)
    op, S = sm.Toeplitz(c).prepare(), rfft(np.concatenate([c, c[:1], c[:0:-1]]))
    what = "Toeplitz / transforms of 2 n, "
    return Case(lambda: op.matvec(x), lambda: irfft(S * rfft(x, 2 * n), 2 * n)[..., :n], what=what)


def diagonal_circulant_diagonal(n: int, batch: int, dtype: str) -> Case:
    c, x = circulant_data(n, batch, dtype)
    a, b = np.random.default_rng(1).standard_normal((2, n)).astype(dtype)
    op, S = sm.CDDProduct.from_vectors(a, c, b).prepare(), rfft(c)
    return Case(
        lambda: op.matvec(x),
        lambda: irfft(S * rfft(x), n),
        1.25,
        expected=lambda: a * irfft(S * rfft(b * x), n),
    )


def block(library: str, grid: tuple[int, int, int], batch: int, dtype: str) -> Case:
    p, q, b = grid
    rng = np.random.default_rng(0)
    c: Any = rng.standard_normal(grid).astype(dtype)
    x: Any = rng.standard_normal((batch, q * b)).astype(dtype)
    if library == "torch":
        c, x = (torch.from_numpy(array) for array in (c, x))
    op = sm.BlockCirculant(c)
    what = f"{library}, {p * b:,} x {q * b:,}, b = {b}, {batch:,} vectors, {dtype}"
    W, op = op.to_dense(), op.prepare()
    return Case(lambda: op.matvec(x), lambda: x @ W.T, 1 / 8 if dtype == "float32" else None, what=what)


def on_grid(library: str, kind: str, grid: tuple[int, ...], batch: int) -> Case:
    rng, axes = np.random.default_rng(0), tuple(range(-len(grid), 0))
    x: Any = rng.standard_normal((batch, prod(grid)) if batch > 1 else prod(grid))
    lengths = grid if kind == "circulant" else tuple(2 * n for n in grid)
    kernel: Any = rng.standard_normal(grid if kind == "circulant" else [2 * n - 1 for n in grid])
    forth, back = partial(rfftn, s=lengths, axes=axes), partial(irfftn, s=lengths, axes=axes)
    contiguous: Callable[[Any], Any] = np.ascontiguousarray
    if library == "torch":
        x, kernel, contiguous = torch.from_numpy(x), torch.from_numpy(kernel), torch.Tensor.contiguous
        forth, back = (partial(function, s=lengths, dim=axes) for function in (torch.fft.rfftn, torch.fft.irfftn))
    if kind == "circulant":
        op, rows = sm.MultilevelCirculant(kernel.reshape(-1), grid).prepare(), [slice(n) for n in grid]
    else:  # the kernel begins with the offset 1 - n
        op, rows = sm.MultilevelToeplitz.from_offsets(kernel).prepare(), [slice(n - 1, 2 * n - 1) for n in grid]
    S = forth(kernel)

    def theirs() -> Any:
        return contiguous(back(S * forth(x.reshape(*x.shape[:-1], *grid)))[(..., *rows)]).reshape(x.shape)

    what = f"{kind}, {' x '.join(map(str, grid))}, {vectors(batch)}, float64"
    return Case(lambda: op.matvec(x), theirs, what=what)


def dense(n: int, batch: int, dtype: str) -> Case:
    c, x = circulant_data(n, batch, dtype)
    op = sm.Circulant(c)
    W, op = op.to_dense(), op.prepare()
    theirs = (lambda: W @ x) if batch == 1 else (lambda: x @ W.T)
    return Case(lambda: op.matvec(x), theirs, 1.2, 3e-6)


def torch_circulant(n: int, batch: int, dtype: str) -> Case:
    c, x = (torch.from_numpy(array) for array in circulant_data(n, batch, dtype))
    op, S, forth, back = sm.Circulant(c).prepare(), torch.fft.rfft(c), torch.fft.rfft, torch.fft.irfft
    return Case(lambda: op.matvec(x), lambda: back(S * forth(x), n), 1.1)


def torch_gradients(n: int, batch: int, dtype: str) -> Case:
    c, x = (torch.from_numpy(array).requires_grad_() for array in circulant_data(n, batch, dtype))
    dy, grad, forth, back = x.detach().clone(), torch.autograd.grad, torch.fft.rfft, torch.fft.irfft
    return Case(
        lambda: grad(sm.Circulant(c).matvec(x), (c, x), dy)[1],
        lambda: grad(back(forth(c) * forth(x), n), (c, x), dy)[1],
        1.1,
    )


def jax_circulant(n: int, batch: int, dtype: str) -> Case:
    c, x = (jax.numpy.asarray(array) for array in circulant_data(n, batch, dtype))
    S, forth, back = jax.numpy.fft.rfft(c), jax.numpy.fft.rfft, jax.numpy.fft.irfft
    ours, theirs = jax.jit(sm.Circulant(c).prepare().matvec), jax.jit(lambda v: back(S * forth(v), n))
    return Case(lambda: ours(x).block_until_ready(), lambda: theirs(x).block_until_ready(), 1.1)


# Groups of cases


Cases = Callable[[bool], Iterator[Case]]


def each(
    make: Callable[[int, int, str], Case],
    sizes: Sequence[int],
    batches: Iterable[int] = (1, 64),
    dtypes: Iterable[str] = DTYPES,
) -> Cases:
    """Return the cases of all sizes, batches and dtypes, of batches that are not too large."""

    def cases(quick: bool) -> Iterator[Case]:
        for n, batch, dtype in itertools.product(sizes[:1] if quick else sizes, batches, dtypes):
            if n * batch <= 2**23:
                case = make(n, batch, dtype)
                yield case._replace(what=f"{case.what}n = {n:,}, {vectors(batch)}, {dtype}")

    return cases


def others(quick: bool) -> Iterator[Case]:
    for make in (partial(related, "rmatvec"), partial(related, "solve"), toeplitz):
        yield from each(make, (1024, 16384), dtypes=("float64",))(quick)
    yield from each(partial(circulant, fast=False), (1024, 4096, 16384), dtypes=("complex64", "complex128"))(quick)


def blocks(quick: bool) -> Iterator[Case]:
    grid, batch = ((2, 3, 4), 5) if quick else ((16, 43, 256), 2048)
    for library, dtype in itertools.product(("NumPy", "torch"), DTYPES):
        yield block(library, grid, batch, dtype)


def grids(library: str) -> Cases:
    """Return products of circulant and Toeplitz matrices on grids, of batches that are not too large."""

    def cases(quick: bool) -> Iterator[Case]:
        sizes = ((16, 16), (8, 8, 8)) if quick else GRIDS
        for kind, grid, batch in itertools.product(("circulant", "Toeplitz"), sizes, (1, 16)):
            if batch * prod(grid) * (1 if kind == "circulant" else 2 ** len(grid)) <= 2**22:
                yield on_grid(library, kind, grid, batch)

    return cases


def circulants(prefix: str = "", said: str = "") -> dict[str, tuple[str, Cases]]:
    """Return the groups of one engine."""
    ours, primes = (partial(case, fast=bool(prefix)) for case in (circulant, prime))
    products = diagonal_circulant_diagonal
    groups = {
        "vectors": ("One vector / floor", each(ours, SIZES, (1,))),
        "batches": ("64 vectors / floor", each(ours, SIZES, (64,))),
        "primes": ("Prime n / floor of that n", each(primes, PRIMES)),
        "diagonals": ("D C D / floor of the circulant alone", each(products, (256, 1024, 4096, 16384, 65536))),
        "small": ("Small n / dense product", each(dense, DENSE, (1, 8, 64, 512))),
    }
    return {f"{prefix}{name}": (said + title, cases) for name, (title, cases) in groups.items()}


GROUPS = {
    **circulants(),
    "others": ("Adjoint, solve, Toeplitz, complex / floor", others),
    "blocks": ("Block circulant / dense product", blocks),
    "grids": ("Matrices on grids / plain d-dimensional transforms", grids("NumPy")),
    **circulants("fast-", "With `fast`: "),
    "torch": (
        "torch / its own transforms",
        each(torch_circulant, (256, 1000, 1021, 1024, 4096, 10000, 16384, 65536), (1, 64, 512)),
    ),
    "gradients": ("torch, forward and backward / its own transforms", each(torch_gradients, (256, 1024, 4096, 16384))),
    "torch-grids": ("torch, on grids / its own transforms", grids("torch")),
    "jax": ("JAX, compiled / its own transforms", each(jax_circulant, (1024, 4096, 16384))),
}


def measured(group: str, *, quick: bool) -> Iterator[tuple[Any, ...]]:
    """Return the rows of a group."""
    with engine("ducc0" if group.startswith("fast-") else "scipy"):
        for case in GROUPS[group][1](quick):
            y, expected = (np.asarray(call()) for call in (case.ours, case.expected or case.theirs))
            if found := fault(y, expected, expected.dtype.name):
                raise SystemExit(f"{case.what} {found}")
            calls = {"ours": case.ours, "theirs": case.theirs}
            times = in_turns(calls, 3 if quick else 11, sample=1e-3, limit=0.3)
            low, _, high = quantiles((a / b for a, b in zip(times["ours"], times["theirs"], strict=False)), n=4)
            ours, theirs, over_floor = median(times["ours"]), median(times["theirs"]), ratio(times, "ours", "theirs")
            aim = met = ""
            if case.aim is not None:
                aim = f"{case.aim:.3g}{' + 3 µs' if case.allowance else ''}"
                met = "yes" if over_floor <= case.aim + case.allowance / theirs else "no"
            print(f"{group}: {case.what}: {over_floor:.2f} {met}", file=sys.stderr, flush=True)
            yield group, case.what, 1e6 * ours, 1e6 * theirs, over_floor, (high - low) / 2, aim, met


def report(rows: list[tuple[Any, ...]]) -> str:
    """Return a summary and a table for each group."""
    summary, parts = [], []
    for group, members in itertools.groupby(rows, key=lambda row: row[0]):
        lines, ratios, verdicts = [], [], []
        for _, case, ours, theirs, over_floor, spread, aim, met in members:
            lines.append((case, f"{ours:,.1f}", f"{theirs:,.1f}", f"{over_floor:.2f} ± {spread:.2f}", aim, met))
            ratios.append(round(over_floor, 2))
            verdicts += [met] if met else []
        reached = f"{verdicts.count('yes')} of {len(verdicts)}" if verdicts else ""
        summary.append((GROUPS[group][0], len(lines), min(ratios), f"{median(ratios):.2f}", max(ratios), reached))
        header = ("case", "structmat, µs", "compared with, µs", "ratio", "aim", "met")
        parts.append(f"## {GROUPS[group][0]}\n\n{table(header, lines)}")
    header = ("group", "cases", "lowest ratio", "median", "highest", "aim met")
    return "\n\n".join(["<!-- summary -->", table(header, summary), "<!-- /summary -->", *parts])


def main() -> None:
    made = parser(__doc__)
    groups = ", ".join(GROUPS)
    made.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), metavar="GROUP", help=groups)
    options = made.parse_args()
    torch.set_num_threads(1)
    jax.config.update("jax_enable_x64", True)
    rows = [row for group in options.only for row in measured(group, quick=options.quick)]
    packages = ("structmat", "numpy", "scipy", "torch", "jax", "ducc0")
    title = "structmat and the floor" + (f": {', '.join(options.only)}" if options.only != list(GROUPS) else "")
    finish(options.out, "products", title, report(rows), packages=packages, engines=BOTH)


if __name__ == "__main__":
    main()
