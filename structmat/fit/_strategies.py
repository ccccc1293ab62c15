"""The strategies: steps in closed form for three factors, a search for products of any number."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from structmat._arguments import moved_like
from structmat.fit._control import rounding_error
from structmat.fit._many_factors.problem import Problem
from structmat.fit._product_error import product_error
from structmat.fit._start_product import KnownProduct
from structmat.fit._three_factors.blocks import BlockGrid
from structmat.fit._three_factors.masked import MaskedGrid
from structmat.fit._three_factors.search import best_from_all_starts
from structmat.fit._three_factors.spread import spread2
from structmat.fit._three_factors.vectors import Factors, largest_exponent, scale_by_power_of_two
from structmat.fit._warm_start import known_product
from structmat.operators import CDDLayout, CDDProduct, Diagonal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from structmat._array_tools import Array
    from structmat.fit._control import Control
    from structmat.fit._many_factors.search import SearchOptions

__all__ = ["FitTask", "Fitted", "by_als", "by_search", "by_weighted_als"]


class FitTask(NamedTuple):
    """What both ways need."""

    matrix: Array
    """The matrix as it was given: of any library."""
    values: NDArray[Any]
    """Its values."""
    layout: CDDLayout
    control: Control
    rng: np.random.Generator
    restarts: int | None
    warm_start: KnownProduct | None
    entry_weights: NDArray[Any] | None = None
    """The values are zero where these are. For three factors only."""
    overwrite: bool = False
    """Whether the values may be overwritten."""


class Fitted(NamedTuple):
    """What both ways give."""

    operator: CDDProduct
    error: float
    history: NDArray[np.float64]
    converged: bool
    start: str
    solver: str
    why: str
    """Why "auto" takes this solver."""
    end: str = ""
    """What to say in place of that and of how iteration ended, where it is not iteration that ended it."""
    spread: float = 0.0
    """What rounding errors of products grow with, over the norm of the matrix."""


def by_als(task: FitTask, roots: NDArray[Any] | None = None) -> Fitted:
    """Fit three factors, the first a diagonal, by alternating least squares in closed form.

    The values are those of the matrix with its columns multiplied by `roots`, if there are any.
    """
    layout, size = task.layout, task.layout.block_size
    if task.entry_weights is None:
        grid = BlockGrid(task.values, size, overwrite=task.overwrite)
    else:
        grid = MaskedGrid(task.values, task.entry_weights, size)
    known = []
    if task.warm_start is not None:
        name, first, vectors = task.warm_start
        whole: Any = layout.balanced(layout.extended(vectors, first))
        a, c, b = (vector.astype(grid.double) for vector in whole)  # real ones may start a complex fit
        start = Factors(_padded(a, grid.p, size), c, _padded(b, grid.q, size))
        known.append((name, start.scaled(-grid.exponent)))
    best = best_from_all_starts(grid, task.rng, task.control, n_random=task.restarts, known=known)
    fitted = _operator(best.run.factors, grid, task)
    if roots is not None:
        fitted = _with_scaled_columns(fitted, np.divide(1.0, roots, out=np.zeros_like(roots), where=roots > 0))
    values = _cropped(grid.blocks, layout.shape)
    weights = _cropped(grid.mask, layout.shape) if isinstance(grid, MaskedGrid) else None
    error = product_error(fitted, task.matrix, values, exponent=grid.exponent, inputs=roots, entry_weights=weights)
    history = _ending_in(best.run.history[:-1], error)
    spread = float(np.sqrt(spread2(best.run.factors) / grid.mean_norm2)) if grid.mean_norm2 else 0.0
    why = "steps in closed form are fastest for three factors"
    return Fitted(fitted, error, history, best.run.converged, best.start, "als", why, spread=spread)


def by_weighted_als(task: FitTask, roots: NDArray[Any]) -> Fitted:
    """Fit three factors with weights of the columns: the last diagonal takes up their roots.

    One start is the fit without weights, which the weighted one so is never worse than.
    """
    real = roots.astype(task.values.real.dtype)
    plain = by_als(
        task._replace(control=task.control.for_start(apart=True), rng=copy.deepcopy(task.rng), overwrite=False)
    )
    start = known_product("unweighted fit", _with_scaled_columns(plain.operator, real))
    return by_als(task._replace(values=task.values * real, warm_start=start, overwrite=True), real)


def _with_scaled_columns(product: CDDProduct, factors: NDArray[Any]) -> CDDProduct:
    *rest, last = product.factors
    (d,) = last._arrays()
    return CDDProduct((*rest, Diagonal(d * moved_like(factors, d))))


def by_search(
    task: FitTask,
    options: SearchOptions,
    inputs: NDArray[Any] | None,
    roots: NDArray[Any] | None,
    *,
    begin_with_als: bool,
) -> Fitted:
    """Fit any product, with weights where there are `inputs`; `roots` are those of weights of the columns."""
    matrix, values, layout, control, rng = task.matrix, task.values, task.layout, task.control, task.rng
    exponent = largest_exponent(values)
    if not values.any() or (inputs is not None and not (scale_by_power_of_two(values, -exponent) @ inputs).any()):
        product = layout.product([moved_like(np.zeros(shape), matrix) for shape in layout.vector_shapes])
        return Fitted(product, 0.0, np.zeros(1), True, "zero", options.solver, "the matrix is zero")
    problem = Problem(values, layout.block_size, inputs, matrix)
    known: Sequence[KnownProduct] = [] if task.warm_start is None else [task.warm_start]
    more_than_three = layout.n_factors + (layout.first == "diagonal") > 4
    if roots is not None and begin_with_als and not known and more_than_three:
        # The fit of three factors is a start of more.
        part = control.for_start()
        short = CDDLayout(layout.shape, 3, layout.block_size)
        three = by_weighted_als(task._replace(layout=short, control=part, rng=copy.deepcopy(rng)), roots)
        known = [known_product("three factors", three.operator)]
    beside: Iterable[KnownProduct] = ()
    if inputs is not None:
        # What is best without weights is a start of the fit with weights, which so is never worse than it.
        plain = Problem(values, layout.block_size, None, matrix)
        part = control.until(control.deadline, apart=True)
        unweighted = plain.rounds(
            layout, copy.deepcopy(rng), part, options=options, begin_with_als=begin_with_als, known=known
        )
        beside = (KnownProduct("unweighted fit", layout.first, plain.vectors(best)) for best in unweighted)
    rounds = problem.rounds(
        layout, rng, control, options=options, begin_with_als=begin_with_als, known=known, beside=beside
    )
    best = next(rounds)
    with control.interruptible():
        for best in rounds:  # noqa: B007  # the last one counts
            pass
    arrays = [moved_like(vector.astype(values.dtype), matrix) for vector in problem.vectors(best)]
    fitted = layout.product(arrays)
    target = scale_by_power_of_two(values, -exponent)
    target = target if inputs is None else target @ inputs
    error = product_error(fitted, matrix, target, exponent=exponent, inputs=inputs)
    history = _ending_in(best.history, error)
    spread = problem.fine.of(best.layout).spread(best.parameters)
    why, end = "local minima are to be explored", ""
    if best.exact or error <= rounding_error(values.dtype):  # that of the search may be less
        end = "the product is the matrix to rounding"
    elif layout.n_factors == 1 and inputs is None:
        end = "the nearest matrix of one factor, in closed form"
    converged = best.converged or bool(end)
    return Fitted(fitted, error, history, converged, best.start, options.solver, why, end, spread)


def _padded(diagonal: NDArray[Any], blocks: int, size: int) -> NDArray[Any]:
    whole = np.zeros(blocks * size, dtype=diagonal.dtype)
    whole[: len(diagonal)] = diagonal
    return whole.reshape(blocks, size)


def _cropped(blocks: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Return what is laid out as blocks as a matrix without the padding."""
    p, m, q, _ = blocks.shape
    return blocks.reshape(p * m, q * m)[: shape[0], : shape[1]]


def _ending_in(history: Sequence[float], error: float) -> NDArray[np.float64]:
    """Return a history that never rises and ends in the error of the operator as it is returned."""
    known = [*filter(np.isfinite, history), error]
    return np.maximum(np.minimum.accumulate(known), error)


def _operator(factors: Factors, grid: BlockGrid, task: FitTask) -> CDDProduct:
    """Return the operator in the library and dtype of the matrix."""
    rows, cols = task.layout.shape
    a, c, b = (moved_like(x.astype(grid.dtype), task.matrix) for x in factors.scaled(grid.exponent))
    xp = array_namespace(task.matrix)
    return task.layout.product([xp.reshape(a, (-1,))[:rows], c, xp.reshape(b, (-1,))[:cols]])
