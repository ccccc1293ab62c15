"""`fit_cdd`: checks its arguments, chooses how to fit, makes the result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from structmat._arguments import as_matrix, integer, non_negative, one_of, optional_function, random_generator, to_numpy
from structmat._array_tools import ArgumentValueError, dtype_name
from structmat.fit._arguments import (
    check_for_entry_weights,
    check_matrix_solver,
    check_restarts,
    is_three_factors,
    with_entry_weights,
)
from structmat.fit._control import Control
from structmat.fit._many_factors.search import SearchOptions
from structmat.fit._many_factors.solver_list import MATRIX_SOLVERS
from structmat.fit._product_error import warn_of_rounding
from structmat.fit._result import FitProgress, FitResult
from structmat.fit._second_moment import column_roots, second_moment, weighted_inputs
from structmat.fit._strategies import FitTask, Fitted, by_als, by_search, by_weighted_als
from structmat.fit._warm_start import warm_start
from structmat.operators import CDDLayout, CDDProduct

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat._array_tools import ArrayLike

__all__ = ["fit_cdd"]

_OWNER = "fit_cdd"
_SOLVERS = ("auto", *MATRIX_SOLVERS, "adam", "lbfgs")


def fit_cdd(
    W: ArrayLike,
    n_factors: int = 3,
    *,
    block_size: int | Literal["min", "toeplitz"] = "min",
    first: Literal["diagonal", "circulant"] = "diagonal",
    input_second_moment: ArrayLike | None = None,
    entry_weights: ArrayLike | None = None,
    solver: Literal["auto", "als", "adam", "lbfgs", "lm"] = "auto",
    start: Literal["auto"] | CDDProduct | FitResult = "auto",
    restarts: int | None = None,
    growth: bool = True,
    rng: np.random.Generator | int | None = None,
    max_iter: int = 5000,
    tol: float = 1e-7,
    time_limit: float | None = None,
    callback: Callable[[FitProgress], object] | None = None,
    on_interrupt: Literal["raise", "return"] = "raise",
    overwrite_W: bool = False,
) -> FitResult:
    """Fit a matrix by a product of diagonal and (block-)circulant factors.

    Minimises ``norm(W - P)`` (Frobenius) over the products `P` of `n_factors` alternating diagonal and circulant
    matrices, from several starting points, and keeps the best. The result is never worse than the nearest circulant,
    diagonal or rank-one matrix, if the products include these.

    Parameters
    ----------
    W : array_like
        The matrix, of shape (rows, cols), real or complex: nested lists or an array of any library that follows the
        array API standard. It is only read. The fit runs in NumPy on the CPU, but for the search of a tensor of torch
        for more than three factors: it explores and refines on the tensor's device, see Notes.
    n_factors : int, default 3
        Number of factors: any for a square `W` and a single block, otherwise any odd number from three on. Then one of
        the block circulants has the shape of `W`, and further ones are square with its smaller side, to the right of it
        if `W` has at least as many rows as columns, to the left if it has fewer.
    block_size : int, "min" or "toeplitz", default "min"
        Side of the circulant blocks; the last blocks are cropped where it does not divide the sides of `W`. "min" is
        the smaller side of `W`: a single circulant if `W` is square. "toeplitz" is ``rows + cols - 1``: the corner of
        one circulant of that side is any Toeplitz matrix, so that three factors are a Toeplitz matrix between
        diagonals.
    first : {"diagonal", "circulant"}, default "diagonal"
        Kind of the leftmost factor; always a diagonal for a `W` that is not square, or several blocks.
    input_second_moment : array_like, optional
        Second moments `S` of the vectors that `W` is applied to, (cols, cols) and positive semi-definite, or the
        diagonal of `S`, (cols,). Then ``norm((W - P) S^(1/2))`` is minimised, and errors are relative to
        ``norm(W S^(1/2))``.
    entry_weights : array_like, optional
        Weights `M` of the entries of `W`, of its shape, booleans or real numbers that are not negative. Then
        ``sum(M * abs(W - P)**2)`` is minimised, and errors are relative to ``sqrt(sum(M * abs(W)**2))``. Entries of `W`
        where `M` is zero are missing: they are never looked at and may be NaN. Only for three factors, the first a
        diagonal, without `input_second_moment`; any sides and blocks.
    solver : {"auto", "als", "adam", "lbfgs", "lm"}, default "auto"
        ``"als"``, alternating least squares, solves for one factor after the other: in closed form for three factors
        that begin with a diagonal, otherwise by dense linear algebra, with sides up to 512. ``"adam"`` explores with
        large steps and then refines; ``"lbfgs"`` and ``"lm"`` descend directly from the starts, by limited-memory BFGS
        or Levenberg-Marquardt. Neither ``"als"`` nor ``"lm"`` supports weighted errors, and except for three factors
        both need square matrices and a single block. ``"auto"`` is ``"als"`` for three unweighted factors that begin
        with a diagonal, and otherwise ``"adam"``, followed by a refinement chosen by size.
    start : "auto", CDDProduct or FitResult, default "auto"
        A product of no more than `n_factors` factors to start from besides the other starting points, in place of the
        products of fewer factors that are otherwise fitted first. The result is never worse.
    restarts : int, optional
        Number of random starting points; by default up to 16 for three factors, up to four for more, by size.
    growth : bool, default True
        Whether to fit products of ``n_factors - 2``, ``n_factors - 4``, ... factors first and to grow them; if
        `n_factors` is even, those of all odd numbers below it too. With the same seed and no time limit the error is
        then never larger than that of any of these.
    rng : numpy.random.Generator or int, optional
        Source of all random numbers. The same seed gives the same fit on the same machine, unless time is limited.
    max_iter : int, default 5000
        Largest number of iterations from one starting point.
    tol : float, default 1e-7
        A run has converged when an iteration lowers the error by no more than `tol` times itself.
    time_limit : float, optional
        Seconds after which the best fit so far is returned; until then the search goes on, from ever more starting
        points. With more than three factors a longer limit runs the same steps further. By default a fixed amount of
        work: seconds to minutes, by side and `n_factors`.
    callback : callable, optional
        Called with a `FitProgress` after every iteration.
    on_interrupt : {"raise", "return"}, default "raise"
        What `KeyboardInterrupt`, by Ctrl-C or from the callback, does to a search. "return" ends it as a time limit
        does, and returns the best so far, of which `FitResult.stopped` says "interrupted".
    overwrite_W : bool, default False
        Whether the entries of `W` may be overwritten. A fit of three factors then takes the memory of one matrix less
        where `W` is a real, C-ordered array of NumPy and `block_size` divides its sides.

    Returns
    -------
    FitResult
        The operator, with vectors of the library, dtype and device of `W`, and how well it fits.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If an argument is out of range, `W` is empty, not two-dimensional or not finite where it has a weight, a
        combination of arguments is not available, or products with the fit overflow the dtype of `W`.

    See Also
    --------
    factorize_cdd : For a product that reproduces `W` to rounding, whatever number of factors that takes.
    error_curve : Fits with more and more factors, compared with other families.

    Notes
    -----
    An iteration costs ``O(rows * cols)`` for three factors and ``O(F n^2 log n)`` for F of them, with the memory of a
    few matrices. It takes one thread, but for linear algebra of BLAS, and transforms inside `scipy.fft.set_workers`.
    Where `W` is a tensor of torch, errors and gradients of the search are computed on its device, on the CPU by the
    faster of torch and NumPy; starts that are read off the matrix, and steps by ``"als"`` and ``"lm"``, are made by
    NumPy. Exploration waits for a device other than the CPU once in 16 steps, and looks at the time limit and calls the
    callback as often; refinement copies the parameters there and the gradient back for every evaluation. This was
    tested on the CPU and by tensors without values, not yet on a GPU.

    On planted products of three factors, also with noise as strong as the signal, the start by shift synchronisation
    finds the global optimum where other starts end in local minima.

    References
    ----------
    .. [1] T. F. Chan, An optimal circulant preconditioner for Toeplitz systems, SIAM J. Sci. Stat. Comput. 9, 1988,
       766-771: the nearest circulant, one of the starting points.
    .. [2] M. Huhtanen, A. Perämäki, Factoring matrices into the product of circulant and diagonal matrices, J. Fourier
       Anal. Appl. 21, 2015, 1018-1033: how many factors a matrix needs.
    .. [3] X. Ding, L. Chen, S. Liao, Z. Wang, Parameter-efficient fine-tuning with circulant and diagonal vectors,
       IJCAI 2025, pp. 9185-9193, arXiv:2505.00580: products of three factors as changes of weights.

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
    begun = time.monotonic()
    matrix = as_matrix(W, _OWNER, "W")
    rows, cols = matrix.shape
    layout = CDDLayout((rows, cols), n_factors, block_size, first, _OWNER)
    one_of(solver, _OWNER, "solver", _SOLVERS)
    weighted = input_second_moment is not None
    if entry_weights is not None:
        check_for_entry_weights(layout, solver, weighted=weighted)
    if solver in MATRIX_SOLVERS:
        check_matrix_solver(solver, layout, weighted=weighted)
    control = Control(
        max_iter=integer(max_iter, _OWNER, "max_iter"),
        tol=non_negative(tol, _OWNER, "tol"),
        deadline=None if time_limit is None else begun + non_negative(time_limit, _OWNER, "time_limit"),
        callback=optional_function(callback, _OWNER, "callback"),
        returns_best=one_of(on_interrupt, _OWNER, "on_interrupt", ("raise", "return")) == "return",
    )
    values, of_entries = with_entry_weights(to_numpy(matrix), entry_weights)
    if not np.isfinite(values).all():
        raise ArgumentValueError(_OWNER, "W", "must be finite, got NaN or infinity")
    task = FitTask(
        matrix=matrix,
        values=values,
        layout=layout,
        control=control,
        rng=random_generator(rng, _OWNER),
        restarts=check_restarts(restarts, layout),
        warm_start=warm_start(start, layout, real=not np.iscomplexobj(values)),
        entry_weights=of_entries,
        overwrite=overwrite_W,
    )
    moment = None if input_second_moment is None else second_moment(input_second_moment, cols, _OWNER)
    found = _fitted(task, solver, moment, growth=growth)
    if found.error == math.inf:
        text = f"has a fit whose products overflow {dtype_name(matrix.dtype)}: use a wider dtype, or divide by a number"
        raise ArgumentValueError(_OWNER, "W", text)
    warn_of_rounding(found.spread, values.dtype)
    end = "converged" if found.converged else "all planned iterations made"
    stopped = control.reason() or "completed"
    if stopped != "completed":
        end = f"{stopped}: the best so far"
    message = f"auto chose {found.solver}: {found.why}; {end}" if solver == "auto" else end
    return FitResult(
        operator=found.operator,
        error=found.error,
        block_size=layout.block_size,
        n_parameters=found.operator.n_parameters,
        n_iter=len(found.history) - 1,
        converged=found.converged,
        history=found.history,
        start=found.start,
        solver=found.solver,
        stopped=stopped,
        message=found.end or message,
        seconds=time.monotonic() - begun,
    )


def _fitted(task: FitTask, solver: str, moment: NDArray[Any] | None, *, growth: bool) -> Fitted:
    """Fit by the strategy that suits the task."""
    in_closed_form = is_three_factors(task.layout) and solver in {"auto", "als"}
    if in_closed_form and moment is None:
        return by_als(task)
    inputs = roots = None
    if moment is not None:
        roots = column_roots(moment, _OWNER) if moment.ndim == 1 else None
        if in_closed_form and roots is not None and task.warm_start is None:
            return by_weighted_als(task, roots)
        inputs = weighted_inputs(moment, _OWNER, real=not np.iscomplexobj(task.values))
    options = SearchOptions("adam" if solver == "auto" else solver, task.restarts, growth and task.warm_start is None)
    return by_search(task, options, inputs, roots, begin_with_als=solver == "auto")
