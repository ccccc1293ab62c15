"""Claim: one-off, plain transforms are the fastest circulant products; prepared, structmat's or lineax' for one vector.

SciPy's `LinearOperator`, PyLops, lineax and CoLA have no circulant: theirs is a wrapper round the plain transforms.
`matmul_toeplitz` and linear_operator multiply by Toeplitz matrices, and stand beside our `Toeplitz` of the same matrix.

The floor is ``irfft(S * rfft(x), n)`` by `scipy.fft` with the spectrum S ready. Every contestant has the form that is
fastest for it, rows or columns, and inputs in its own library's arrays. "prepared": what depends on the matrix alone
(spectra, plans, operators) is made outside the clock, and so is compilation. "one-off": from the first column to the
product, all inside the clock but compilation. Results are compared with the product in double precision first: a wrong
one is reported and not timed, and so is one that cannot be imported. All take turns in one process on one core; times
are the processor's. A cell is the median over the rounds of the time relative to the floor of the same round.

First stands each library beside structmat on the same arrays: the median over the rounds of its time over ours, above
one where structmat is faster. Products of NumPy arrays are those of the default install, `scipy.fft`; rows with "fast"
are of the extra ``fast``, ducc0, and measured by themselves against the same floor. --quick runs tiny cases of all.
--out writes a section of ``products.md`` with one table for every batch and dtype.
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
from _common import (
    BOTH,
    circulant_data,
    ducc0_is_installed,
    engine,
    fault,
    finish,
    in_turns,
    parser,
    ratio,
    table,
    vectors,
)
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


def transforms(
    c: np.ndarray, x: np.ndarray, *, once: bool, fft: Any = scipy.fft, array: Convert = np.asarray
) -> Product:
    irfft, rfft, n, column, X = fft.irfft, fft.rfft, len(c), array(c), array(x)
    S = rfft(column)
    return Product((lambda: irfft(rfft(column) * rfft(X), n)) if once else (lambda: irfft(S * rfft(X), n)))


def structmat(c: np.ndarray, x: np.ndarray, *, once: bool, array: Convert = np.asarray) -> Product:
    column, X = array(c), array(x)
    op = sm.Circulant(column).prepare()
    return Product((lambda: sm.Circulant(column).matvec(X)) if once else (lambda: op.matvec(X)))


def structmat_toeplitz(c: np.ndarray, x: np.ndarray, *, once: bool, array: Convert = np.asarray) -> Product:
    column, row, X = array(c), array(np.roll(c[::-1], 1)), array(x)
    op = sm.Toeplitz(column, row).prepare()
    return Product((lambda: sm.Toeplitz(column, row).matvec(X)) if once else (lambda: op.matvec(X)))


def structmat_jax(c: np.ndarray, x: np.ndarray, *, once: bool) -> Product:
    column, X = jax.numpy.asarray(c), jax.numpy.asarray(x)
    if once:
        both = jax.jit(lambda column, X: sm.Circulant(column).matvec(X))
        return Product(lambda: both(column, X).block_until_ready())
    product = jax.jit(sm.Circulant(column).prepare().matvec)
    return Product(lambda: product(X).block_until_ready())


def scipy_linear_operator(c: np.ndarray, x: np.ndarray, *, once: bool) -> Product:
    rfft, irfft, n, X = scipy.fft.rfft, scipy.fft.irfft, len(c), np.ascontiguousarray(x.T)

    def operator() -> LinearOperator:
        S = rfft(c)
        return LinearOperator(
            (n, n),
            matvec=lambda v: irfft(S * rfft(v), n),
            matmat=lambda V: irfft(S[:, None] * rfft(V, axis=0), n, axis=0),
            dtype=c.dtype,
        )

    op = operator()
    return Product((lambda: operator() @ X) if once else (lambda: op @ X), from_columns)


def scipy_matmul_toeplitz(c: np.ndarray, x: np.ndarray, *, once: bool) -> Product:  # noqa: ARG001  # it has no other form
    row, X = np.roll(c[::-1], 1), np.ascontiguousarray(x.T)
    return Product(lambda: scipy.linalg.matmul_toeplitz((c, row), X), from_columns)


def pylops(c: np.ndarray, x: np.ndarray, *, once: bool) -> Product:
    from pylops import FunctionOperator  # noqa: PLC0415

    rfft, irfft, shape, flat = scipy.fft.rfft, scipy.fft.irfft, x.shape, x.ravel()

    def operator() -> Any:
        S = rfft(c)
        return FunctionOperator(lambda v: irfft(S * rfft(v.reshape(shape)), len(c)).ravel(), x.size, dtype=c.dtype)

    op = operator()
    return Product((lambda: operator() @ flat) if once else (lambda: op @ flat), lambda y: y.reshape(shape))


def lineax(c: np.ndarray, x: np.ndarray, *, once: bool) -> Product:
    import lineax as lx  # noqa: PLC0415

    jnp, n = jax.numpy, len(c)
    column, X = jnp.asarray(c), jnp.asarray(x)

    def multiply(S: Any, V: Any) -> Any:
        structure = jax.ShapeDtypeStruct((n,), c.dtype)
        op = lx.FunctionLinearOperator(lambda v: jnp.fft.irfft(S * jnp.fft.rfft(v), n), structure)
        return op.mv(V) if V.ndim == 1 else jax.vmap(op.mv)(V)

    if once:
        both = jax.jit(lambda column, V: multiply(jnp.fft.rfft(column), V))
        return Product(lambda: both(column, X).block_until_ready())
    product = jax.jit(partial(multiply, jnp.fft.rfft(column)))
    return Product(lambda: product(X).block_until_ready())


def torch_structured(c: np.ndarray, x: np.ndarray, *, once: bool) -> Product:  # noqa: ARG001  # it has no other form
    from torch_structured.structured.circulant import circulant_multiply  # noqa: PLC0415

    both = torch.from_numpy(c), torch.from_numpy(x)
    return Product(lambda: circulant_multiply(*both))


def linear_operator(c: np.ndarray, x: np.ndarray, *, once: bool) -> Product:  # noqa: ARG001  # it has no other form
    from linear_operator.utils.toeplitz import toeplitz_matmul  # noqa: PLC0415

    # its operator is for symmetric matrices; this is the function behind it, which wants columns
    given = [torch.from_numpy(np.ascontiguousarray(a)) for a in (c, np.roll(c[::-1], 1), np.atleast_2d(x).T)]
    return Product(lambda: toeplitz_matmul(*given), lambda y: from_columns(y).reshape(x.shape))


def cola(c: np.ndarray, x: np.ndarray, *, once: bool) -> Product:
    from cola.ops import LinearOperator as Operator  # noqa: PLC0415

    irfft, rfft, n = torch.fft.irfft, torch.fft.rfft, len(c)
    column, X = torch.from_numpy(c), torch.from_numpy(np.ascontiguousarray(x.T))

    def operator() -> Any:  # its own FFT is complex
        S = rfft(column)[:, None]
        return Operator(column.dtype, (n, n), matmat=lambda V: irfft(S * rfft(V, dim=0), n, dim=0))

    op = operator()
    return Product((lambda: operator() @ X) if once else (lambda: op @ X), from_columns)


def lazylinop(c: np.ndarray, x: np.ndarray, *, once: bool) -> Product:
    from lazylinop.signal import convolve  # noqa: PLC0415

    op, X = convolve(len(c), c, mode="circ"), np.ascontiguousarray(x.T)
    return Product((lambda: convolve(len(c), c, mode="circ") @ X) if once else (lambda: op @ X), from_columns)


Contestant = Callable[..., Product]
PREPARED, ONCE = "prepared", "one-off"
BOTH_WAYS = (PREPARED, ONCE)
in_torch = partial(structmat, array=torch.from_numpy)
toeplitz_in_torch = partial(structmat_toeplitz, array=torch.from_numpy)
CONTESTANTS: dict[str, tuple[str, Contestant, tuple[str, ...]]] = {
    "structmat": ("NumPy", structmat, BOTH_WAYS),
    "scipy.fft, plain": ("NumPy", transforms, BOTH_WAYS),
    "scipy LinearOperator": ("NumPy", scipy_linear_operator, BOTH_WAYS),
    "structmat, Toeplitz": ("NumPy", structmat_toeplitz, (ONCE,)),
    "scipy matmul_toeplitz": ("NumPy", scipy_matmul_toeplitz, (ONCE,)),
    "pylops": ("NumPy", pylops, BOTH_WAYS),
    "lazylinop": ("NumPy", lazylinop, BOTH_WAYS),
    "structmat, torch": ("torch", in_torch, BOTH_WAYS),
    "torch, plain": ("torch", partial(transforms, fft=torch.fft, array=torch.from_numpy), BOTH_WAYS),
    "torch_structured": ("torch", torch_structured, (ONCE,)),
    "structmat, torch, Toeplitz": ("torch", toeplitz_in_torch, (ONCE,)),
    "linear_operator": ("torch", linear_operator, (ONCE,)),
    "cola": ("torch", cola, BOTH_WAYS),
    "structmat, jax": ("JAX", structmat_jax, BOTH_WAYS),
    "lineax": ("JAX", lineax, BOTH_WAYS),
}
"""The arrays of each contestant, itself, and its forms."""
OURS = {"NumPy": "structmat", "torch": "structmat, torch", "JAX": "structmat, jax"}
TOEPLITZ = {
    "scipy matmul_toeplitz": "structmat, Toeplitz",
    "linear_operator": "structmat, torch, Toeplitz",
}
"""What is compared with a Toeplitz matrix of ours, and not with a circulant."""
FLOOR = f"scipy.fft, plain, {PREPARED}"
NAMES = [f"{name}, {form}" for name, (_, _, forms) in CONTESTANTS.items() for form in forms]
FAST = [f"structmat, fast, {form}" for form in BOTH_WAYS]


class Cell(NamedTuple):
    """What one contestant did in one case."""

    microseconds: float | None
    ratio: float | None
    """Over the floor."""
    over_ours: float | None
    """Over structmat on the same arrays, in the same form."""
    remark: str


Cells = dict[str, Cell]


def race(n: int, batch: int, dtype: str, rounds: int) -> Cells:
    """Return the cells of one case: of all with the default engine, then of structmat with ducc0 where it is there."""
    data = circulant_data(n, batch, dtype)
    made = {
        f"{name}, {form}": (contestant, form) for name, (_, contestant, forms) in CONTESTANTS.items() for form in forms
    }
    ours = {
        f"{name}, {form}": f"{TOEPLITZ.get(name, OURS[arrays])}, {form}"
        for name, (arrays, _, forms) in CONTESTANTS.items()
        for form in forms
    }
    with engine("scipy"):
        found = in_one_race(made, ours, data, dtype, rounds)
    if ducc0_is_installed():
        made = {name: (structmat, form) for name, form in zip(FAST, BOTH_WAYS, strict=True)}
        with engine("ducc0"):
            fast = in_one_race({FLOOR: (transforms, PREPARED), **made}, {}, data, dtype, rounds)
        found |= {name: fast[name] for name in FAST}
    return found


def in_one_race(
    made: dict[str, tuple[Contestant, str]], ours: dict[str, str], data: tuple[Any, Any], dtype: str, rounds: int
) -> Cells:
    c, x = data
    expected = np.fft.irfft(np.fft.rfft(c.astype(float)) * np.fft.rfft(x.astype(float)), len(c))
    calls, remarks = {}, {}
    for name, (contestant, form) in made.items():
        try:
            product = contestant(c, x, once=form == ONCE)
            remarks[name] = fault(product.rows(product.call()), expected, dtype)
        except Exception as error:  # noqa: BLE001  # whatever a peer raises is its result
            remarks[name] = f"fails: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if not remarks[name].startswith(("wrong", "fails")):
            calls[name] = product.call
    times = in_turns(calls, rounds, limit=0.5)
    cells = {}
    for name, remark in remarks.items():
        if name in times:
            over = ratio(times, name, ours[name]) if ours.get(name, name) != name and ours[name] in times else None
            cells[name] = Cell(1e6 * median(times[name]), ratio(times, name, FLOOR), over, remark)
        else:
            cells[name] = Cell(None, None, None, remark)
    return cells


def beside_ours(cases: dict[tuple[str, int, int], Cells]) -> str:
    """Return the table of each library's time over ours on the same arrays."""
    rows = []
    for name, (arrays, _, forms) in CONTESTANTS.items():
        for form in forms:
            over = {case: cells[f"{name}, {form}"].over_ours for case, cells in cases.items()}
            over = {case: value for case, value in over.items() if value is not None}
            if not over or name.startswith("structmat"):
                continue
            at = over.get(("float64", 1, 4096))
            one, many = ([v for (_, batch, _), v in over.items() if (batch == 1) == single] for single in (True, False))
            cells = [f"{median(v):.2f} ({min(v):.2f} to {max(v):.2f})" if v else "-" for v in (one, many)]
            beside = "Toeplitz" if name in TOEPLITZ else "circulant"
            rows.append([name, arrays, beside, form, "-" if at is None else f"{at:.2f}", *cells])
    head = ["library", "arrays", "matrix", "form", "n = 4,096, one vector, float64", "one vector", "many vectors"]
    return table(head, rows, left=4)


def tables(cases: dict[tuple[str, int, int], Cells]) -> str:
    parts = []
    for (dtype, batch), group in itertools.groupby(cases, key=lambda case: case[:2]):
        found = {n: cases[dtype, batch, n] for _, _, n in group}
        rows = [["floor, microseconds", *(f"{cells[FLOOR].microseconds:,.1f}" for cells in found.values())]]
        for name in [*FAST, *NAMES]:
            ratios = [cells[name].ratio if name in cells else None for cells in found.values()]
            if name != FLOOR and any(ratios):
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
    explained = (
        "The time of each library over that of structmat on the same arrays and in the same form, as median over "
    )
    explained += "the cases (lowest to highest):"
    parts = ("<!-- beside ours -->", explained, beside_ours(cases), "<!-- /beside ours -->", tables(cases))
    title = "A circulant product, and its peers"
    finish(options.out, "products", title, *parts, packages=PACKAGES, engines=BOTH)
    if any(name.startswith("structmat") and not c.ratio for cells in cases.values() for name, c in cells.items()):
        raise SystemExit("a product of structmat is wrong or fails: see the remarks")


if __name__ == "__main__":
    main()
