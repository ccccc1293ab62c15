"""`fit_cdd`: checks its arguments, runs the solver from every starting point, keeps the best."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from structmat.block_circulant import BlockCirculant
from structmat.cdd import CDDProduct
from structmat.circulant import Circulant
from structmat.diagonal import Diagonal
from structmat.fit._blocks import BlockGrid
from structmat.fit._factors import Factors
from structmat.fit._interchange import as_matrix, like, to_numpy
from structmat.fit._result import FitProgress, FitResult
from structmat.fit._shift_synchronisation import shift_synchronisation_start
from structmat.fit._solvers import Run, Solver, alternate, relative_error
from structmat.fit._starts import Start, circulant_start, diagonal_start, random_start, rank_one_start
from structmat.fit._sweep import residual_norm2

if TYPE_CHECKING:
    from structmat._typing import Array, ArrayLike

__all__ = ["fit_cdd"]

_SOLVER: Solver = alternate

# All of these run on every matrix: they are what the fit must never be worse than.
_CLOSED_FORMS: tuple[tuple[str, Start], ...] = (
    ("circulant", circulant_start),
    ("diagonal", diagonal_start),
    ("rank-one", rank_one_start),
)

# Random starts pay off where many local minima lie close together, on small matrices without much structure: as many as
# this number of entries holds copies of the matrix, up to a limit.
_RANDOM_ENTRIES, _MOST_RANDOM = 1 << 20, 16

# Every start gets this many sweeps. Then the best go on: those within this factor of the very best, up to this number.
_SCREENING_SWEEPS, _RIVAL, _FINALISTS = 15, 1.02, 4


def fit_cdd(
    W: ArrayLike,
    n_factors: int = 3,
    *,
    block_size: int | None = None,
    rng: np.random.Generator | int | None = None,
    max_iter: int = 500,
    tol: float = 1e-7,
    callback: Callable[[FitProgress], object] | None = None,
) -> FitResult:
    """Fit a matrix by a product of diagonal and (block-)circulant factors.

    Minimises ``norm(W - P)`` (Frobenius) over the products ``P = Diagonal @ Circulant @ Diagonal`` by alternating least
    squares from several starting points, and keeps the best. The result is never worse than the nearest (block)
    circulant, the nearest diagonal or the nearest rank-one matrix, all of which are such products.

    Parameters
    ----------
    W : array_like
        The matrix, of shape (rows, cols), real or complex: nested lists or an array of any library that follows the
        array API standard. It is only read. The fit itself runs in NumPy on the CPU.
    n_factors : int, default: 3
        Number of factors. Only three are available.
    block_size : int, optional
        Side of the circulant blocks; the last blocks are cropped where it does not divide the sides of `W`. By default
        the smaller side of `W`: a single circulant if `W` is square.
    rng : numpy.random.Generator or int, optional
        Source of the random vectors that iterative parts of the starting points begin with. The same seed gives the
        same fit.
    max_iter : int, default: 500
        The most sweeps from one starting point.
    tol : float, default: 1e-7
        A run has converged when a sweep lowers the error by no more than `tol` times itself.
    callback : callable, optional
        Called with a `FitProgress` after every sweep.

    Returns
    -------
    FitResult
        The operator, with vectors of the library, dtype and device of `W`, and how well it fits.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If an argument is out of range, or `W` is empty, not two-dimensional or not finite.

    Notes
    -----
    A sweep costs ``O(rows * cols)``. On planted products, also with noise as strong as the signal, the start by shift
    synchronisation finds the global optimum where alternating from other starts gets stuck.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.fit import fit_cdd
    >>> W = np.diag([1.0, 2.0, 3.0]) @ np.array([[4.0, 6.0, 5.0], [5.0, 4.0, 6.0], [6.0, 5.0, 4.0]])
    >>> result = fit_cdd(W, rng=0)
    >>> result.error < 1e-12
    True
    >>> result.n_parameters
    9
    """
    matrix = as_matrix(W, "fit_cdd: W")
    rows, cols = matrix.shape
    if n_factors != 3:
        raise ValueError(f"fit_cdd: n_factors must be 3, the only number of factors available, got {n_factors!r}")
    size = min(rows, cols) if block_size is None else _integer(block_size, "block_size")
    if size > max(rows, cols):
        raise ValueError(f"fit_cdd: block_size must be at most the larger side of W, {max(rows, cols)}, got {size}")
    max_iter = _integer(max_iter, "max_iter")
    tol = _tolerance(tol)
    if callback is not None and not callable(callback):
        raise TypeError(f"fit_cdd: callback must be callable, got {callback!r}")
    generator = _generator(rng)
    values = to_numpy(matrix)
    if not np.isfinite(values).all():
        raise ValueError("fit_cdd: W must be finite, got NaN or infinity")

    grid = BlockGrid(values, size)
    best = _best_run(grid, generator, max_iter, tol, callback)
    fitted, error = _operator(best.run.factors, grid, matrix, single=rows == cols == size)
    return FitResult(
        operator=fitted,
        error=error,
        block_size=size,
        n_parameters=rows + cols + grid.p * grid.q * size,
        n_iter=best.run.n_iter,
        converged=best.run.converged,
        history=np.array(best.run.history),
        start=best.start,
    )


class _Candidate(NamedTuple):
    start: str
    run: Run


def _best_run(
    grid: BlockGrid,
    rng: np.random.Generator,
    max_iter: int,
    tol: float,
    callback: Callable[[FitProgress], object] | None,
) -> _Candidate:
    def go_on(candidate: _Candidate, sweeps: int) -> _Candidate:
        def report(iteration: int, error: float) -> None:
            if callback is not None:
                callback(FitProgress(candidate.start, iteration, max_iter, error))

        return candidate._replace(run=_SOLVER(grid, candidate.run, sweeps, tol, report))

    n_random = min(_RANDOM_ENTRIES // grid.blocks.size, _MOST_RANDOM)
    searches = (("shift-synchronisation", shift_synchronisation_start), *[("random", random_start)] * n_random)
    exact = 4.0 * float(np.finfo(grid.dtype).eps)
    candidates: list[_Candidate] = []
    for name, start in (*_CLOSED_FORMS, *searches):
        if len(candidates) >= len(_CLOSED_FORMS) and min(map(_error, candidates)) <= exact:
            break
        begun = _Candidate(name, Run.begin(grid, start(grid, rng)))
        candidates.append(go_on(begun, min(_SCREENING_SWEEPS, max_iter)))
    candidates.sort(key=_error)
    finalists = [c for c in candidates[:_FINALISTS] if _error(c) <= _RIVAL * _error(candidates[0])]
    return min((go_on(finalist, max_iter) for finalist in finalists), key=_error)


def _error(candidate: _Candidate) -> float:
    return candidate.run.error


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


def _integer(value: Any, name: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"fit_cdd: {name} must be an integer, got {value!r}") from None
    if number < 1:
        raise ValueError(f"fit_cdd: {name} must be at least 1, got {number}")
    return number


def _tolerance(value: Any) -> float:
    try:
        tol = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"fit_cdd: tol must be a number, got {value!r}") from None
    if not (tol >= 0.0 and math.isfinite(tol)):
        raise ValueError(f"fit_cdd: tol must be finite and not negative, got {value!r}")
    return tol


def _generator(rng: Any) -> np.random.Generator:
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise type(error)(f"fit_cdd: rng must be a numpy.random.Generator, a seed or None, got {rng!r}") from error
