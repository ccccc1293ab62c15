"""Claim: with the extra `fast` no other library multiplies by a circulant faster than structmat, within the noise.

The floor is ``irfft(S * rfft(x), n)`` by `scipy.fft` with the spectrum S ready. Every contestant gets its own set-up
outside the clock (spectra, plans, compilation), in the form that is fastest for it, rows or columns, and inputs in its
own library's arrays. Its result is compared with the product in double precision first: a wrong one is reported and
not timed, and so is one that cannot be imported. All take turns in one process on one core; times are the processor's.
A cell is the median over the rounds of the time relative to the floor of the same round.

"structmat" is a prepared operator with the default engine, `scipy.fft`; "structmat, fast" the same with ducc0, the
extra ``fast``; those with torch or JAX in their names take the arrays of these. --quick runs tiny cases of all.
--out writes ``peers.md`` with one table for every batch and dtype.
"""

from __future__ import annotations

import itertools
import logging
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import _one_thread  # noqa: F401
import jax
import numpy as np
import scipy.fft
import scipy.linalg
import torch
from _common import circulant_data, engine, fault, finish, in_turns, parser, ratio, table, vectors
from scipy.sparse.linalg import LinearOperator

import structmat as sm

SIZES = (64, 256, 1000, 1021, 1024, 4095, 4096, 16384, 65536)
LARGEST = 2**20  # entries of a batch
Convert = Callable[[np.ndarray], Any]
PACKAGES = (
    "structmat", "numpy", "scipy", "torch", "jax", "pylops", "lineax", "torch-structured", "linear-operator", "cola-ml",
    "lazylinop", "ducc0",
)  # fmt: skip


class Product(NamedTuple):
    """A product that is ready to be timed."""

    call: Callable[[], Any]
    rows: Callable[[Any], np.ndarray] = np.asarray
    """Brings its result to NumPy, the vectors as rows."""


def from_columns(y: Any) -> np.ndarray:
    return np.asarray(y).T


# Each contestant takes the first column of shape (n,) and the vectors, of shape (n,) or (batch, n).


def transforms(c: np.ndarray, x: np.ndarray, *, fft: Any = scipy.fft, array: Convert = np.asarray) -> Product:
    irfft, rfft, n, X = fft.irfft, fft.rfft, len(c), array(x)
    S = rfft(array(c))
    return Product(lambda: irfft(S * rfft(X), n))


def structmat(c: np.ndarray, x: np.ndarray, *, library: str = "scipy", array: Convert = np.asarray) -> Product:
    with engine(library):
        op, X = sm.Circulant(array(c)).prepare(), array(x)
    return Product(lambda: op.matvec(X))


def structmat_unprepared(c: np.ndarray, x: np.ndarray) -> Product:
    op = sm.Circulant(c)
    return Product(lambda: op.matvec(x))


def structmat_jax(c: np.ndarray, x: np.ndarray) -> Product:
    product, X = jax.jit(sm.Circulant(jax.numpy.asarray(c)).prepare().matvec), jax.numpy.asarray(x)
    return Product(lambda: product(X).block_until_ready())


def scipy_linear_operator(c: np.ndarray, x: np.ndarray) -> Product:
    rfft, irfft, n = scipy.fft.rfft, scipy.fft.irfft, len(c)
    S = rfft(c)
    op = LinearOperator(
        (n, n),
        matvec=lambda v: irfft(S * rfft(v), n),
        matmat=lambda V: irfft(S[:, None] * rfft(V, axis=0), n, axis=0),
        dtype=c.dtype,
    )
    X = np.ascontiguousarray(x.T)
    return Product(lambda: op @ X, from_columns)


def scipy_matmul_toeplitz(c: np.ndarray, x: np.ndarray) -> Product:
    both, X = (c, np.roll(c[::-1], 1)), np.ascontiguousarray(x.T)
    return Product(lambda: scipy.linalg.matmul_toeplitz(both, X), from_columns)


def pylops(c: np.ndarray, x: np.ndarray) -> Product:
    from pylops import Diagonal  # noqa: PLC0415
    from pylops.signalprocessing import FFT  # noqa: PLC0415

    F = FFT(dims=x.shape, axis=-1, real=True, engine="scipy", dtype=c.dtype)
    S = np.fft.rfft(c).astype(np.result_type(c, np.complex64))
    op = F.H @ Diagonal(np.broadcast_to(S, (*x.shape[:-1], len(S))).ravel(), dtype=S.dtype) @ F
    flat = x.ravel()
    return Product(lambda: op @ flat, lambda y: y.reshape(x.shape))


def lineax(c: np.ndarray, x: np.ndarray) -> Product:
    import lineax as lx  # noqa: PLC0415

    jnp, n = jax.numpy, len(c)
    S, X = jnp.fft.rfft(jnp.asarray(c)), jnp.asarray(x)
    op = lx.FunctionLinearOperator(lambda v: jnp.fft.irfft(S * jnp.fft.rfft(v), n), jax.ShapeDtypeStruct((n,), c.dtype))

    def one(v: Any) -> Any:  # the bound method itself cannot be compiled
        return op.mv(v)

    product = jax.jit(one if x.ndim == 1 else jax.vmap(one))
    return Product(lambda: product(X).block_until_ready())


def torch_structured(c: np.ndarray, x: np.ndarray) -> Product:
    from torch_structured.structured.circulant import circulant_multiply  # noqa: PLC0415

    both = torch.from_numpy(c), torch.from_numpy(x)
    return Product(lambda: circulant_multiply(*both))


def linear_operator(c: np.ndarray, x: np.ndarray) -> Product:
    from linear_operator.utils.toeplitz import toeplitz_matmul  # noqa: PLC0415

    # its operator is for symmetric matrices; this is the function behind it, which wants columns
    given = [torch.from_numpy(np.ascontiguousarray(a)) for a in (c, np.roll(c[::-1], 1), np.atleast_2d(x).T)]
    return Product(lambda: toeplitz_matmul(*given), lambda y: from_columns(y).reshape(x.shape))


def cola(c: np.ndarray, x: np.ndarray) -> Product:
    from cola.ops import LinearOperator as Operator  # noqa: PLC0415

    irfft, rfft, n = torch.fft.irfft, torch.fft.rfft, len(c)
    column, X = torch.from_numpy(c), torch.from_numpy(np.ascontiguousarray(x.T))
    S = rfft(column)[:, None]
    op = Operator(column.dtype, (n, n), matmat=lambda V: irfft(S * rfft(V, dim=0), n, dim=0))  # its FFT is complex
    return Product(lambda: op @ X, from_columns)


def lazylinop(c: np.ndarray, x: np.ndarray) -> Product:
    from lazylinop.signal import convolve  # noqa: PLC0415

    op, X = convolve(len(c), c, mode="circ"), np.ascontiguousarray(x.T)
    return Product(lambda: op @ X, from_columns)


CONTESTANTS: dict[str, Callable[[np.ndarray, np.ndarray], Product]] = {
    "floor": transforms,
    "structmat": structmat,
    "structmat, fast": partial(structmat, library="ducc0"),
    "structmat, unprepared": structmat_unprepared,
    "structmat, torch": partial(structmat, array=torch.from_numpy),
    "structmat, jax": structmat_jax,
    "torch, plain": partial(transforms, fft=torch.fft, array=torch.from_numpy),
    "scipy LinearOperator": scipy_linear_operator,
    "scipy matmul_toeplitz": scipy_matmul_toeplitz,
    "pylops": pylops,
    "lineax": lineax,
    "torch_structured": torch_structured,
    "linear_operator": linear_operator,
    "cola": cola,
    "lazylinop": lazylinop,
}


class Cell(NamedTuple):
    """What one contestant did in one case."""

    microseconds: float | None
    ratio: float | None
    remark: str


Cells = dict[str, Cell]


def race(n: int, batch: int, dtype: str, rounds: int) -> Cells:
    c, x = circulant_data(n, batch, dtype)
    expected = np.fft.irfft(np.fft.rfft(c.astype(float)) * np.fft.rfft(x.astype(float)), n)
    products, remarks = {}, {}
    for name, contestant in CONTESTANTS.items():
        try:
            product = contestant(c, x)
            remarks[name] = fault(product.rows(product.call()), expected, dtype)
        except Exception as error:  # noqa: BLE001  # whatever a peer raises is its result
            remarks[name] = f"fails: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if not remarks[name].startswith(("wrong", "fails")):
            products[name] = product
    times = in_turns({name: product.call for name, product in products.items()}, rounds, limit=0.5)
    found = {name: (1e6 * median(seen), ratio(times, name, "floor")) for name, seen in times.items()}
    return {name: Cell(*found.get(name, (None, None)), remark) for name, remark in remarks.items()}


def tables(cases: dict[tuple[str, int, int], Cells]) -> str:
    parts = []
    for (dtype, batch), group in itertools.groupby(cases, key=lambda case: case[:2]):
        found = {n: cases[dtype, batch, n] for _, _, n in group}
        rows = [["floor, microseconds", *(f"{cells['floor'].microseconds:,.1f}" for cells in found.values())]]
        for name in list(CONTESTANTS)[1:]:
            ratios = [cells[name].ratio for cells in found.values()]
            if any(ratios):
                rows.append([name, *("-" if r is None else f"{r:.2f}" for r in ratios)])
        parts.append(f"{dtype}, {vectors(batch)}, time relative to the floor:\n\n{table(['n', *found], rows)}")
    remarks = Counter(f"{name}: {c.remark}" for cells in cases.values() for name, c in cells.items() if c.remark)
    lines = [f"- {remark} ({n} of {len(cases)} cases)" for remark, n in remarks.items()]
    return "\n\n".join([*parts, *(["Remarks:", "\n".join(lines)] if lines else [])])


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    options = made.parse_args()
    sizes, batches, rounds = ((64,), (1, 2), 3) if options.quick else (sorted(options.sizes), (1, 64), 11)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    jax.config.update("jax_enable_x64", True)
    cases = {}
    for dtype, batch, n in itertools.product(("float32", "float64"), batches, sizes):
        if batch == 1 or batch * n <= LARGEST:
            cases[dtype, batch, n] = race(n, batch, dtype, rounds)
            print(f"{dtype}, {batch} x {n}", file=sys.stderr, flush=True)
    parts = ("<!-- tables -->", tables(cases))
    finish(options.out, "peers", "A circulant product, and its peers", *parts, packages=PACKAGES)
    if any(name.startswith("structmat") and not c.ratio for cells in cases.values() for name, c in cells.items()):
        raise SystemExit("a product of structmat is wrong or fails: see the remarks")


if __name__ == "__main__":
    main()
