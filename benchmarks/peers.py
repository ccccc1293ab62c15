"""A circulant product through structmat, through the libraries that others use, and by plain transforms: the floor.

    python benchmarks/peers.py [--sizes 64 256 ...] [--batches 1 64] [--dtypes float32 float64] [--rounds 11]
                               [--only structmat pylops ...] [--quick] [--out FOLDER]

The floor is ``irfft(S * rfft(x), n)`` by `scipy.fft` with the spectrum S ready. Every contestant gets its own set-up
outside the clock (spectra, plans, compilation), in the form that is fastest for it, rows or columns, and inputs in its
own library's arrays. Its result is compared with the product in double precision first: a wrong one is reported and
not timed, and so is one that cannot be imported. All take turns in one process on one core; times are the processor's.
A cell is the median over the rounds of the time relative to the floor of the same round.

"structmat" is a prepared operator with the default engine, `scipy.fft`; "structmat, fast" the same with ducc0, the
extra ``fast``; those with torch or JAX in their names take the arrays of these. --quick runs tiny cases of all.
--out writes ``peers.csv``, ``peers.md`` with one table for every batch and dtype, and ``peers.png``, with lines through
the powers of two and crosses at other n.
"""

# ruff: noqa: E402  # threads are limited before libraries start them
from __future__ import annotations

from _common import in_turns, machine, one_thread, ratio, save_results, table

one_thread()

import argparse
import itertools
import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

SIZES = (64, 256, 1000, 1021, 1024, 4095, 4096, 16384, 65536)
LARGEST = 2**20  # entries of a batch
PACKAGES = (
    "structmat", "numpy", "scipy", "torch", "jax", "pylops", "lineax", "torch-structured", "linear-operator", "fastmat",
    "cola-ml", "lazylinop", "ducc0",
)  # fmt: skip
STYLES: dict[str, dict[str, Any]] = {
    "structmat": {"color": "black", "linewidth": 2.4},
    "structmat, fast": {"color": "black", "linewidth": 2.4, "linestyle": "--"},
    "structmat, unprepared": {"color": "black", "linewidth": 1.6, "linestyle": ":"},
    "structmat, torch": {"color": "grey", "linewidth": 2.4},
    "structmat, jax": {"color": "grey", "linewidth": 2.4, "linestyle": "--"},
}


class Product(NamedTuple):
    """A product that is ready to be timed."""

    call: Callable[[], Any]
    rows: Callable[[Any], np.ndarray] = np.asarray
    """Brings its result to NumPy, the vectors as rows."""


Maker = Callable[[np.ndarray, np.ndarray], Product]
"""Takes the first column of shape (n,) and the vectors, of shape (n,) or (batch, n)."""
CONTESTANTS: dict[str, Maker] = {}


def contestant(name: str) -> Callable[[Maker], Maker]:
    def enter(maker: Maker) -> Maker:
        CONTESTANTS[name] = maker
        return maker

    return enter


def as_columns(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.T)


def from_columns(y: Any) -> np.ndarray:
    return np.asarray(y).T


@contestant("floor")
def plain_transforms(c: np.ndarray, x: np.ndarray) -> Product:
    from scipy.fft import irfft, rfft  # noqa: PLC0415

    S, n = rfft(c), len(c)
    return Product(lambda: irfft(S * rfft(x), n))


@contestant("structmat")
def structmat(c: np.ndarray, x: np.ndarray) -> Product:
    import structmat as sm  # noqa: PLC0415

    op = sm.Circulant(c).prepare(engine="scipy")
    return Product(lambda: op.matvec(x))


@contestant("structmat, fast")
def structmat_fast(c: np.ndarray, x: np.ndarray) -> Product:
    import ducc0  # noqa: F401, PLC0415  # not installed: reported as such

    import structmat as sm  # noqa: PLC0415

    op = sm.Circulant(c).prepare()
    return Product(lambda: op.matvec(x))


@contestant("structmat, unprepared")
def structmat_unprepared(c: np.ndarray, x: np.ndarray) -> Product:
    import structmat as sm  # noqa: PLC0415

    op = sm.Circulant(c)
    return Product(lambda: op.matvec(x))


@contestant("structmat, torch")
def structmat_torch(c: np.ndarray, x: np.ndarray) -> Product:
    import torch  # noqa: PLC0415

    import structmat as sm  # noqa: PLC0415

    op, X = sm.Circulant(torch.from_numpy(c)).prepare(), torch.from_numpy(x)
    return Product(lambda: op.matvec(X))


@contestant("structmat, jax")
def structmat_jax(c: np.ndarray, x: np.ndarray) -> Product:
    import jax  # noqa: PLC0415
    import jax.numpy as jnp  # noqa: PLC0415

    import structmat as sm  # noqa: PLC0415
    import structmat.jax  # noqa: PLC0415

    op, X = sm.Circulant(jnp.asarray(c)).prepare(), jnp.asarray(x)
    product = jax.jit(op.matvec)
    return Product(lambda: product(X).block_until_ready())


@contestant("torch, plain")
def plain_torch(c: np.ndarray, x: np.ndarray) -> Product:
    import torch  # noqa: PLC0415

    irfft, rfft = torch.fft.irfft, torch.fft.rfft
    S, n, X = rfft(torch.from_numpy(c)), len(c), torch.from_numpy(x)
    return Product(lambda: irfft(S * rfft(X), n))


@contestant("scipy LinearOperator")
def scipy_linear_operator(c: np.ndarray, x: np.ndarray) -> Product:
    from scipy.fft import irfft, rfft  # noqa: PLC0415
    from scipy.sparse.linalg import LinearOperator  # noqa: PLC0415

    S, n = rfft(c), len(c)
    op = LinearOperator(
        (n, n),
        matvec=lambda v: irfft(S * rfft(v), n),
        matmat=lambda V: irfft(S[:, None] * rfft(V, axis=0), n, axis=0),
        dtype=c.dtype,
    )
    X = as_columns(x)
    return Product(lambda: op @ X, from_columns)


@contestant("scipy matmul_toeplitz")
def scipy_matmul_toeplitz(c: np.ndarray, x: np.ndarray) -> Product:
    from scipy.linalg import matmul_toeplitz  # noqa: PLC0415

    both, X = (c, np.roll(c[::-1], 1)), as_columns(x)
    return Product(lambda: matmul_toeplitz(both, X), from_columns)


@contestant("pylops")
def pylops(c: np.ndarray, x: np.ndarray) -> Product:
    from pylops import Diagonal  # noqa: PLC0415
    from pylops.signalprocessing import FFT  # noqa: PLC0415

    F = FFT(dims=x.shape, axis=-1, real=True, engine="scipy", dtype=c.dtype)
    S = np.fft.rfft(c).astype(np.result_type(c, np.complex64))
    op = F.H @ Diagonal(np.broadcast_to(S, (*x.shape[:-1], len(S))).ravel(), dtype=S.dtype) @ F
    flat = x.ravel()
    return Product(lambda: op @ flat, lambda y: y.reshape(x.shape))


@contestant("lineax")
def lineax(c: np.ndarray, x: np.ndarray) -> Product:
    import jax  # noqa: PLC0415
    import jax.numpy as jnp  # noqa: PLC0415
    import lineax as lx  # noqa: PLC0415

    n, S, X = len(c), jnp.fft.rfft(jnp.asarray(c)), jnp.asarray(x)
    op = lx.FunctionLinearOperator(lambda v: jnp.fft.irfft(S * jnp.fft.rfft(v), n), jax.ShapeDtypeStruct((n,), c.dtype))

    def one(v: Any) -> Any:  # the bound method itself cannot be compiled
        return op.mv(v)

    product = jax.jit(one if x.ndim == 1 else jax.vmap(one))
    return Product(lambda: product(X).block_until_ready())


@contestant("torch_structured")
def torch_structured(c: np.ndarray, x: np.ndarray) -> Product:
    import torch  # noqa: PLC0415
    from torch_structured.structured.circulant import circulant_multiply  # noqa: PLC0415

    both = torch.from_numpy(c), torch.from_numpy(x)
    return Product(lambda: circulant_multiply(*both))


@contestant("linear_operator")
def linear_operator(c: np.ndarray, x: np.ndarray) -> Product:
    import torch  # noqa: PLC0415
    from linear_operator.utils.toeplitz import toeplitz_matmul  # noqa: PLC0415

    # its operator is for symmetric matrices; this is the function behind it, which wants columns
    given = [torch.from_numpy(a) for a in (c, np.roll(c[::-1], 1), as_columns(np.atleast_2d(x)))]
    return Product(lambda: toeplitz_matmul(*given), lambda y: from_columns(y).reshape(x.shape))


@contestant("fastmat")
def fastmat(c: np.ndarray, x: np.ndarray) -> Product:
    from fastmat import Circulant  # noqa: PLC0415

    op, X = Circulant(c), np.asfortranarray(x.T)
    return Product(lambda: op * X, from_columns)


@contestant("cola")
def cola(c: np.ndarray, x: np.ndarray) -> Product:
    import torch  # noqa: PLC0415
    from cola.ops import LinearOperator  # noqa: PLC0415

    irfft, rfft = torch.fft.irfft, torch.fft.rfft
    n, column, X = len(c), torch.from_numpy(c), torch.from_numpy(as_columns(x))
    S = rfft(column)[:, None]
    # its own FFT, a complex one, would be slower
    op = LinearOperator(column.dtype, (n, n), matmat=lambda V: irfft(S * rfft(V, dim=0), n, dim=0))
    return Product(lambda: op @ X, from_columns)


@contestant("lazylinop")
def lazylinop(c: np.ndarray, x: np.ndarray) -> Product:
    from lazylinop.signal import convolve  # noqa: PLC0415

    op, X = convolve(len(c), c, mode="circ"), as_columns(x)
    return Product(lambda: op @ X, from_columns)


class Cell(NamedTuple):
    """What one contestant did in one case."""

    name: str
    n: int
    batch: int
    dtype: str
    microseconds: float | None
    ratio: float | None
    remark: str


def fault(product: Product, expected: np.ndarray, dtype: str) -> str:
    """Return what is wrong with a result, or that its precision is another than asked for."""
    y = product.rows(product.call())
    if y.shape != expected.shape:
        return f"wrong: shape {y.shape}"
    error = float(np.linalg.norm(y - expected) / np.linalg.norm(expected))
    if not error < 1e3 * np.finfo(dtype).eps:
        return f"wrong: relative error {error:.1e}"
    return "" if y.dtype == dtype else f"returns {y.dtype}"


def race(n: int, batch: int, dtype: str, names: Sequence[str], rounds: int) -> list[Cell]:
    rng = np.random.default_rng(n)
    c = rng.standard_normal(n).astype(dtype)
    x = rng.standard_normal((n,) if batch == 1 else (batch, n)).astype(dtype)
    expected = np.fft.irfft(np.fft.rfft(c.astype(float)) * np.fft.rfft(x.astype(float)), n)
    products, remarks = {}, {}
    for name in names:
        try:
            product = CONTESTANTS[name](c, x)
            remarks[name] = fault(product, expected, dtype)
        except Exception as error:  # noqa: BLE001  # whatever a peer raises is its result
            remarks[name] = f"fails: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if not remarks[name].startswith(("wrong", "fails")):
            products[name] = product
    times = in_turns({name: product.call for name, product in products.items()}, rounds, limit=0.5)
    cells = []
    for name in names:
        raced = name in products
        micro = 1e6 * median(times[name]) if raced else None
        cells.append(Cell(name, n, batch, dtype, micro, ratio(times, name, "floor") if raced else None, remarks[name]))
    return cells


def tables(cells: list[Cell]) -> str:
    parts = []
    for (dtype, batch), group in itertools.groupby(cells, key=lambda cell: (cell.dtype, cell.batch)):
        found = {(cell.name, cell.n): cell for cell in group}
        sizes, names = (list(dict.fromkeys(column)) for column in zip(*[(n, name) for name, n in found], strict=True))
        rows = [["floor, microseconds", *(f"{found['floor', n].microseconds:,.1f}" for n in sizes)]]
        for name in names[1:]:
            ratios = [found[name, n].ratio for n in sizes]
            if any(ratios):
                rows.append([name, *("-" if r is None else f"{r:.2f}" for r in ratios)])
        vectors = "one vector" if batch == 1 else f"{batch} vectors"
        parts.append(f"{dtype}, {vectors}, time relative to the floor:\n\n{table(['n', *sizes], rows)}")
    remarks: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.remark:
            remarks.setdefault(f"{cell.name}: {cell.remark}", []).append(cell)
    lines = [
        f"- {remark} ({len(where)} of {sum(cell.name == where[0].name for cell in cells)} cases)"
        for remark, where in remarks.items()
    ]
    return "\n\n".join([*parts, *(["Remarks:", "\n".join(lines)] if lines else [])])


def draw(cells: list[Cell], path: Path) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415

    cases = list(dict.fromkeys((cell.batch, cell.dtype) for cell in cells))
    batches, dtypes = (list(dict.fromkeys(values)) for values in zip(*cases, strict=True))
    figure = Figure(figsize=(4.6 * len(dtypes) + 2.2, 3.8 * len(batches)), layout="constrained")
    panels = figure.subplots(len(batches), len(dtypes), sharex=True, sharey=True, squeeze=False)
    names = [name for name in dict.fromkeys(cell.name for cell in cells) if name != "floor"]
    colours = {name: i for i, name in enumerate(n for n in names if n not in STYLES)}
    for batch, dtype in cases:
        axes = panels[batches.index(batch)][dtypes.index(dtype)]
        for name in names:
            points = sorted(
                (cell.n, cell.ratio) for cell in cells if cell[0] == name and cell[2:4] == (batch, dtype) and cell.ratio
            )
            if not points:
                continue
            style = STYLES.get(name, {"linewidth": 1.1, "color": f"C{colours.get(name, 0)}"})
            line = [point for point in points if point[0] & (point[0] - 1) == 0] or points
            axes.plot(*zip(*line, strict=True), label=name, marker=".", **style)
            if others := sorted(set(points) - set(line)):  # a line would jump up and down between neighbours
                axes.scatter(*zip(*others, strict=True), marker="x", s=18, linewidth=1, color=style["color"])
        axes.axhline(1, color="grey", linewidth=1)
        axes.set(xscale="log", yscale="log", title=f"{dtype}, {'one vector' if batch == 1 else f'{batch} vectors'}")
        axes.set_xscale("log", base=2)
        axes.grid(alpha=0.25)
    for axes in panels[-1]:
        axes.set_xlabel("n")
    for axes in panels[:, 0]:
        axes.set_ylabel("time / floor")
    lines = {line.get_label(): line for axes in panels.flat for line in axes.get_lines()[:-1]}  # the last is the floor
    shown = [name for name in names if name in lines]
    figure.legend([lines[name] for name in shown], shown, loc="outside right center", fontsize="small")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--batches", nargs="+", type=int, default=(1, 64))
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "float64"), default=("float32", "float64"))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--only", nargs="+", choices=[n for n in CONTESTANTS if n != "floor"], metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="tiny cases")
    parser.add_argument("--out", type=Path, help="folder for tables and plot")
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.batches, options.rounds = (64,), (1, 2), 3
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    set_up_libraries()
    names = ["floor", *(options.only or [name for name in CONTESTANTS if name != "floor"])]
    cells: list[Cell] = []
    for dtype, batch, n in itertools.product(options.dtypes, options.batches, sorted(options.sizes)):
        if batch == 1 or batch * n <= LARGEST:
            cells += race(n, batch, dtype, names, options.rounds)
            floor, best = cells[-len(names)], min(cells[1 - len(names) :], key=lambda cell: cell.ratio or np.inf)
            found = f"floor {floor.microseconds:.1f} µs, fastest {best.name} {best.ratio or np.nan:.2f}"
            print(f"{dtype}, {batch} x {n}: {found}", file=sys.stderr, flush=True)
    where = machine(*PACKAGES)
    text = f"{tables(cells)}\n\n{where}"
    print(text)
    if options.out:
        title = "# A circulant product, and its peers\n\n`python benchmarks/peers.py`\n\n<!-- tables -->"
        save_results(options.out, "peers", Cell._fields, cells, f"{title}\n\n{text}")
        draw(cells, options.out / "peers.png")
    if any(cell.name.startswith("structmat") and cell.ratio is None for cell in cells):
        raise SystemExit("a product of structmat is wrong or fails: see the remarks")


def set_up_libraries() -> None:
    """Give torch one thread and no gradients, and JAX double precision, where they are installed."""
    try:
        import torch  # noqa: PLC0415
    except ImportError:
        pass
    else:
        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
    try:
        import jax  # noqa: PLC0415
    except ImportError:
        pass
    else:
        jax.config.update("jax_enable_x64", True)


if __name__ == "__main__":
    main()
