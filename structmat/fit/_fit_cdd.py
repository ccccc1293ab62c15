"""`fit_cdd`: checks its arguments, chooses how to fit, makes the result."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from structmat._arrays.arrays import as_floating
from structmat.fit._arguments import (
    check_for_blocks,
    choice,
    generator,
    integer,
    masked,
    non_negative,
    refuse_by_solver,
    refuse_with_mask,
)
from structmat.fit._control import Control
from structmat.fit._many_factors.block_objective import block_layout
from structmat.fit._many_factors.objective import First, Layout
from structmat.fit._many_factors.search import Plan, Solver
from structmat.fit._numpy_bridge import as_matrix, to_numpy
from structmat.fit._result import FitProgress, FitResult
from structmat.fit._second_moment import column_roots, weighted_inputs
from structmat.fit._strategies import Task, by_search, by_sweeps, by_weighted_sweeps
from structmat.fit._warm_start import given_chain
from structmat.operators import CDDProduct

if TYPE_CHECKING:
    from structmat._arrays.typing import ArrayLike

__all__ = ["fit_cdd"]


def fit_cdd(
    W: ArrayLike,
    n_factors: int = 3,
    *,
    block_size: int | None = None,
    first: First = "diagonal",
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    solver: Literal["auto", "sweep", "adam", "lbfgs", "lm", "als"] = "auto",
    start: Literal["auto"] | CDDProduct | FitResult = "auto",
    restarts: int | None = None,
    growth: bool = True,
    rng: np.random.Generator | int | None = None,
    max_iter: int = 5000,
    tol: float = 1e-7,
    time_limit: float | None = None,
    callback: Callable[[FitProgress], object] | None = None,
    overwrite_W: bool = False,
) -> FitResult:
    """Fit a matrix by a product of diagonal and (block-)circulant factors.

    Minimises ``norm(W - P)`` (Frobenius) over the products `P` of `n_factors` alternately diagonal and circulant
    matrices, from several starting points, and keeps the best. The result is never worse than the nearest circulant,
    diagonal or rank-one matrix where such a product can be one.

    Parameters
    ----------
    W : array_like
        The matrix, of shape (rows, cols), real or complex: nested lists or an array of any library that follows the
        array API standard. It is only read. The fit itself runs in NumPy on the CPU.
    n_factors : int, default: 3
        Number of factors: any for a square `W` and a single block, otherwise any odd number from three on. Then one of
        the block circulants has the shape of `W`, and further ones are square with its smaller side, to the right of it
        if `W` has at least as many rows as columns, to the left if it has fewer.
    block_size : int, optional
        Side of the circulant blocks; the last blocks are cropped where it does not divide the sides of `W`. By default
        the smaller side of `W`: a single circulant if `W` is square.
    first : {"diagonal", "circulant"}, default: "diagonal"
        Kind of the leftmost factor; always a diagonal for a `W` that is not square, or several blocks.
    weights : array_like, optional
        Second moments `S` of the vectors that `W` is applied to, (cols, cols) and positive semi-definite, or the
        diagonal of `S`, (cols,). Then ``norm((W - P) S^(1/2))`` is minimised, and errors are relative to
        ``norm(W S^(1/2))``.
    mask : array_like, optional
        Weights `M` of the entries of `W`, of its shape, booleans or real numbers that are not negative. Then
        ``sum(M * abs(W - P)**2)`` is minimised, and errors are relative to ``sqrt(sum(M * abs(W)**2))``. Entries of `W`
        where `M` is zero are missing: they are never looked at and may be NaN. Only for three factors, the first a
        diagonal, without `weights`; any sides and blocks.
    solver : {"auto", "sweep", "adam", "lbfgs", "lm", "als"}, default: "auto"
        ``"sweep"`` solves for one of three factors at a time in closed form. ``"adam"`` explores with large steps and
        polishes; ``"lbfgs"`` and ``"lm"`` go straight from the starts to minima, with limited memory or by
        Levenberg-Marquardt; ``"als"`` solves for one factor after the other (sides up to 512). The last two are for
        square matrices of a single block, without weights. ``"auto"`` sweeps for three unweighted factors that begin
        with a diagonal, and otherwise takes ``"adam"``, with its polish chosen by size.
    start : "auto", CDDProduct or FitResult, default: "auto"
        A product of no more than `n_factors` factors to start from besides the other starting points, in place of the
        products of fewer factors that are otherwise fitted first. The result is never worse.
    restarts : int, optional
        Number of random starting points; by default up to 16 for sweeps, up to four for other solvers, by size.
    growth : bool, default: True
        Whether to fit products of ``n_factors - 2``, ``n_factors - 4``, ... factors first and to grow them; if
        `n_factors` is even, those of all odd numbers below it too. With the same seed and no time limit the error is
        then never larger than that of any of these.
    rng : numpy.random.Generator or int, optional
        Source of all random numbers. The same seed gives the same fit on the same machine, unless time is limited.
    max_iter : int, default: 5000
        The most iterations from one starting point.
    tol : float, default: 1e-7
        A run has converged when an iteration lowers the error by no more than `tol` times itself.
    time_limit : float, optional
        Seconds after which the best fit so far is returned; until then the search goes on, from ever more starting
        points. By default a fixed amount of work: seconds up to a side of 128, minutes up to 1024.
    callback : callable, optional
        Called with a `FitProgress` after every iteration.
    overwrite_W : bool, default: False
        Whether the entries of `W` may be overwritten. Sweeps then take the memory of one matrix less where `W` is a
        real, C-ordered array of NumPy and `block_size` divides its sides.

    Returns
    -------
    FitResult
        The operator, with vectors of the library, dtype and device of `W`, and how well it fits.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If an argument is out of range, `W` is empty, not two-dimensional or not finite (where it is not masked), or a
        combination of arguments is not available.

    Notes
    -----
    An iteration costs ``O(rows * cols)`` for three factors and ``O(F n^2 log n)`` for F of them, with the
    memory of a few matrices. On planted products of three factors, also with noise as strong as the signal, the start
    by shift synchronisation finds the global optimum where alternating from other starts gets stuck. Ctrl-C returns the
    best so far, as a time limit does; `FitResult.stopped` tells.

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
    matrix = as_matrix(W, "fit_cdd: W")
    rows, cols = matrix.shape
    n_factors = integer(n_factors, "n_factors")
    size = min(rows, cols) if block_size is None else integer(block_size, "block_size")
    if size > max(rows, cols):
        raise ValueError(f"fit_cdd: block_size must be at most the larger side of W, {max(rows, cols)}, got {size}")
    choice(first, "first", ("diagonal", "circulant"))
    choice(solver, "solver", ("auto", "sweep", "adam", "lbfgs", "lm", "als"))
    refuse_with_mask(mask, n_factors, first, solver, weighted=weights is not None)
    single = rows == cols == size
    sweepable = n_factors == 3 and first == "diagonal" and solver in {"auto", "sweep"}
    sweeps = sweepable and weights is None
    if not single:
        check_for_blocks(n_factors, first, solver)
    if not sweeps and solver == "sweep":
        raise ValueError(
            'fit_cdd: solver must not be "sweep" but for three factors, the first diagonal, and no weights, '
            f"got n_factors={n_factors}, first={first!r}"
        )
    refuse_by_solver(solver, rows, weighted=weights is not None)
    if callback is not None and not callable(callback):
        raise TypeError(f"fit_cdd: callback must be callable, got {callback!r}")
    control = Control(
        max_iter=integer(max_iter, "max_iter"),
        tol=non_negative(tol, "tol"),
        deadline=None if time_limit is None else begun + non_negative(time_limit, "time_limit"),
        callback=callback,
    )
    restarts = None if restarts is None else integer(restarts, "restarts", least=0)
    random = generator(rng)
    values, entries = masked(to_numpy(matrix), mask)
    if not np.isfinite(values).all():
        raise ValueError("fit_cdd: W must be finite, got NaN or infinity")
    layout = Layout(size, n_factors, first) if single else block_layout((rows, cols), size, n_factors)
    given = given_chain(start, layout, real=not np.iscomplexobj(values))
    task = Task(matrix, values, size, control, random, restarts, given, entries, overwrite=overwrite_W)
    moments = None if weights is None else to_numpy(as_floating(weights, "fit_cdd: weights"))
    if sweeps:
        found = by_sweeps(task)
    elif moments is not None and moments.ndim == 1 and sweepable and given is None:
        found = by_weighted_sweeps(task, layout, column_roots(moments, cols))
    else:
        inputs = roots = None
        if moments is not None:
            inputs = weighted_inputs(moments, cols, real=not np.iscomplexobj(values))
            roots = column_roots(moments, cols) if moments.ndim == 1 else None
        chosen = cast("Solver", "adam" if solver in {"auto", "sweep"} else solver)
        plan = Plan(chosen, restarts, growth and given is None)
        found = by_search(task, layout, plan, inputs, roots, swept=solver == "auto")
    end = "converged" if found.converged else "all planned iterations made"
    stopped = control.reason() or "completed"
    if stopped != "completed":
        end = f"{stopped}: the best so far"
    return FitResult(
        operator=found.operator,
        error=found.error,
        block_size=size,
        n_parameters=found.operator.n_parameters,
        n_iter=len(found.history) - 1,
        converged=found.converged,
        history=found.history,
        start=found.start,
        solver=found.solver,
        stopped=stopped,
        message=f"auto chose {found.solver}: {found.why}; {end}" if solver == "auto" else end,
        seconds=time.monotonic() - begun,
    )
