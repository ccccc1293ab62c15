"""The two ways to fit: sweeps for three factors, a search for chains of any number."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from structmat.fit._many_factors.block_objective import BlockLayout, block_layout
from structmat.fit._many_factors.objective import Layout
from structmat.fit._many_factors.rectangle import BlockProblem
from structmat.fit._many_factors.square import SquareProblem
from structmat.fit._many_factors.starts import extended
from structmat.fit._numpy_bridge import like, to_numpy
from structmat.fit._three_factors.alternate import relative_error
from structmat.fit._three_factors.blocks import BlockGrid
from structmat.fit._three_factors.choice import sweep_from_all_starts
from structmat.fit._three_factors.masked import MaskedGrid
from structmat.fit._three_factors.steps import residual_norm2
from structmat.fit._three_factors.vectors import Factors
from structmat.fit._warm_start import Given, given_chain
from structmat.operators import BlockCirculant, CDDProduct, Circulant, Diagonal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat._arrays.typing import Array
    from structmat.fit._control import Control
    from structmat.fit._many_factors.search import Plan

__all__ = ["Found", "Task", "by_search", "by_sweeps", "by_weighted_sweeps"]

# A weighted fit spends this share of its time on the fit without weights, from which it starts.
_UNWEIGHTED_SHARE = 0.4
# And this share on the sweeps for three factors.
_SWEEPS_SHARE = 0.2


class Task(NamedTuple):
    """What both ways need."""

    matrix: Array
    """The matrix as it was given: of any library."""
    values: NDArray[Any]
    """Its values."""
    block_size: int
    control: Control
    rng: np.random.Generator
    restarts: int | None
    given: Given | None
    mask: NDArray[Any] | None = None
    """Weights of the entries; the values are zero where they are. For sweeps only."""
    overwrite: bool = False
    """Whether the values may be overwritten."""


class Found(NamedTuple):
    operator: CDDProduct
    error: float
    history: NDArray[np.float64]
    converged: bool
    start: str
    solver: str
    why: str
    """Why "auto" takes this solver."""


def by_sweeps(task: Task) -> Found:
    """Fit three factors, the first a diagonal."""
    size, given = task.block_size, task.given
    if task.mask is None:
        grid = BlockGrid(task.values, size, overwrite=task.overwrite)
    else:
        grid = MaskedGrid(task.values, task.mask, size)
    extra = []
    if given is not None:
        layout = block_layout(task.values.shape, size, 3) if given.block else Layout(size, 3)
        a, c, b = layout.to_vectors(extended(layout, given.vectors, given.first))
        start = Factors(_padded(a, grid.p, size), c.reshape(grid.p, grid.q, size), _padded(b, grid.q, size))
        extra.append(("given", start.scaled(-grid.exponent)))
    best = sweep_from_all_starts(grid, task.rng, task.control, n_random=task.restarts, given=extra)
    fitted, error = _operator(best.run.factors, grid, task.matrix, single=task.matrix.shape == (size, size))
    why = "closed-form sweeps are fastest for three factors"
    return Found(fitted, error, np.array(best.run.history), best.run.converged, best.start, "sweep", why)


def by_weighted_sweeps(task: Task, layout: Layout, roots: NDArray[Any]) -> Found:
    """Fit three factors, the first a diagonal, with weights of the columns: the last diagonal takes up their roots.

    One start is the fit without weights, which the weighted one so is never worse than.
    """
    real = roots.astype(task.values.real.dtype)
    part = task.control.until(task.control.share(_UNWEIGHTED_SHARE))
    plain = by_sweeps(task._replace(control=part, rng=copy.deepcopy(task.rng), overwrite=False))
    start = _with_scaled_columns(plain.operator, real)
    given = given_chain(start, layout, real=not np.iscomplexobj(task.values))
    found = by_sweeps(task._replace(values=task.values * real, given=given, overwrite=True))
    inverse = np.divide(1.0, real, out=np.zeros_like(real), where=real > 0)
    return found._replace(operator=_with_scaled_columns(found.operator, inverse))


def _with_scaled_columns(product: CDDProduct, factors: NDArray[Any]) -> CDDProduct:
    *rest, last = product.factors
    (d,) = last._arrays()
    return CDDProduct((*rest, Diagonal(d * like(factors, d))))


def by_search(
    task: Task, layout: Layout, plan: Plan, inputs: NDArray[Any] | None, roots: NDArray[Any] | None, *, swept: bool
) -> Found:
    """Fit a chain, with weights where there are `inputs`; `roots` are those of weights of the columns."""
    matrix, values, control, rng = task.matrix, task.values, task.control, task.rng
    block = isinstance(layout, BlockLayout)
    if not values.any() or (inputs is not None and not (values @ inputs).any()):
        zeros = [like(np.zeros(shape), matrix) for shape in layout.vector_shapes]
        product = CDDProduct.from_vectors(*zeros, first=layout.first, block=block)
        return Found(product, 0.0, np.zeros(1), True, "zero", plan.solver, "the matrix is zero")
    problem = _problem(task, inputs, block=block)
    starts = [] if task.given is None else [task.given]
    if roots is not None and swept and task.given is None and layout.n_factors + (layout.first == "diagonal") > 4:
        # The sweeps for three factors are a start of more.
        part = control.until(control.share(_SWEEPS_SHARE))
        three = by_weighted_sweeps(task._replace(control=part, rng=copy.deepcopy(rng)), layout, roots)
        starts += filter(None, [given_chain(three.operator, layout, real=not np.iscomplexobj(values))])
    if inputs is not None:
        # What is best without weights is a start of the fit with weights, which so is never worse than it.
        plain = _problem(task, None, block=block)
        part = control.until(control.share(_UNWEIGHTED_SHARE))
        unweighted = plain.search(layout, copy.deepcopy(rng), part, plan=plan, swept=swept, given=starts)
        starts = [*starts, Given(layout.first, plain.vectors(unweighted), block=block)]
    best = problem.search(layout, rng, control, plan=plan, swept=swept, given=starts)
    arrays = [like(vector.astype(values.dtype), matrix) for vector in problem.vectors(best)]
    error = problem.error(layout, [to_numpy(array) for array in arrays])
    product = CDDProduct.from_vectors(*arrays, first=layout.first, block=block)
    known = [*filter(np.isfinite, best.history), error]
    history = np.maximum(np.minimum.accumulate(known), error)
    return Found(product, error, history, best.converged, best.start, plan.solver, "local minima are to be explored")


def _problem(task: Task, inputs: NDArray[Any] | None, *, block: bool) -> Any:
    """Return the problem of a square chain, or of one on blocks."""
    return BlockProblem(task.values, task.block_size, inputs) if block else SquareProblem(task.values, inputs)


def _padded(diagonal: NDArray[Any], blocks: int, size: int) -> NDArray[Any]:
    whole = np.zeros(blocks * size, dtype=diagonal.dtype)
    whole[: len(diagonal)] = diagonal
    return whole.reshape(blocks, size)


def _operator(factors: Factors, grid: BlockGrid, matrix: Array, *, single: bool) -> tuple[CDDProduct, float]:
    """Return the operator in the library and dtype of `matrix`, and its error after rounding to them."""
    rows, cols = matrix.shape
    scaled = factors.scaled(grid.exponent)
    a, c, b = (like(x.astype(grid.dtype), matrix) for x in scaled)
    rounded = Factors(*(to_numpy(x).astype(grid.double) for x in (a, c, b)))
    error = relative_error(grid, residual_norm2(grid, rounded.scaled(-grid.exponent)))
    middle = Circulant(c[0, 0, :]) if single else BlockCirculant(c, shape=(rows, cols))
    xp = array_namespace(matrix)
    left, right = Diagonal(xp.reshape(a, (-1,))[:rows]), Diagonal(xp.reshape(b, (-1,))[:cols])
    return CDDProduct((left, middle, right)), error
