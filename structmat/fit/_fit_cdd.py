"""`fit_cdd`: checks its arguments, fits three factors in closed form and others by a search, makes the result."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from structmat._arguments import (
    as_floating,
    as_matrix,
    integer,
    names_arguments,
    non_negative,
    one_of,
    optional_function,
    random_generator,
)
from structmat._arrays.conversion import from_numpy, to_numpy
from structmat._arrays.dtypes import dtype_name
from structmat._errors import ArgumentError, ArgumentTypeError, ArgumentValueError
from structmat._progress import shown_progress
from structmat.fit._control import Control, FitProgress
from structmat.fit._matrices import (
    column_roots,
    largest_exponent,
    product_error,
    scale_by_power_of_two,
    second_moment,
    weighted_inputs,
)
from structmat.fit._problem import Found, Problem
from structmat.fit._result import FitResult
from structmat.fit._search import GAINS_LITTLE, OF_A_START, ROUNDINGS_AT_FIRST, Search
from structmat.fit._three_factor_search import ThreeFactorSearch
from structmat.operators import CDDLayout, CDDProduct, Diagonal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat._arrays.typing import ArrayLike

__all__ = ["ALL_MADE", "NOTHING_LEFT", "WARM_START", "fit_cdd"]

_OWNER = "fit_cdd"


@names_arguments
def fit_cdd(
    W: ArrayLike,
    n_factors: int = 3,
    *,
    block_size: int | Literal["min", "toeplitz"] = "min",
    input_second_moment: ArrayLike | None = None,
    entry_weights: ArrayLike | None = None,
    start: CDDProduct | FitResult | None = None,
    restarts: int | None = None,
    rng: np.random.Generator | int | None = None,
    max_iter: int = 5000,
    tol: float = 1e-7,
    time_limit: float | None = None,
    progress: bool | None = None,
    callback: Callable[[FitProgress], object] | None = None,
    on_interrupt: Literal["raise", "return"] = "raise",
) -> FitResult:
    """Fit a matrix by a product of diagonal and (block-)circulant factors.

    Minimises ``norm(W - P)`` (Frobenius) over the products `P` of `n_factors` alternating diagonal and circulant
    matrices, from several starting points, and keeps the best. The result is never worse than the nearest circulant,
    diagonal or rank-one matrix, if the products include these, and with five factors or more of a single block never
    worse than the nearest matrix of rank two.

    Parameters
    ----------
    W : array_like
        The matrix, of shape (rows, cols), real or complex: nested lists or an array of any library that follows the
        array API standard. It is only read; the fit runs in NumPy on the CPU.
    n_factors : int, default 3
        Number of factors, of which the first is a diagonal: any for a square `W` and a single block, otherwise any odd
        number from three on. Then one of the block circulants has the shape of `W`, and further ones are square with
        its smaller side, to the right of it if `W` has at least as many rows as columns, to the left if it has fewer.
    block_size : int, "min" or "toeplitz", default "min"
        Side of the circulant blocks; the last blocks are cropped where it does not divide the sides of `W`. "min" is
        the smaller side of `W`: a single circulant if `W` is square. "toeplitz" is ``rows + cols - 1``: the corner of
        one circulant of that side is any Toeplitz matrix, so that three factors are a Toeplitz matrix between
        diagonals.
    input_second_moment : array_like, optional
        Second moments `S` of the vectors that `W` is applied to, (cols, cols) and positive semi-definite, or the
        diagonal of `S`, (cols,). Then ``norm((W - P) S^(1/2))`` is minimised, and errors are relative to
        ``norm(W S^(1/2))``.
    entry_weights : array_like, optional
        Weights `M` of the entries of `W`, of its shape, booleans or real numbers that are not negative. Then
        ``sum(M * abs(W - P)**2)`` is minimised, and errors are relative to ``sqrt(sum(M * abs(W)**2))``. Entries of `W`
        where `M` is zero are missing: they are never looked at and may be NaN. Only for three factors, without
        `input_second_moment`; any sides and blocks.
    start : CDDProduct or FitResult, optional
        A product of no more than `n_factors` factors to start from besides the other starting points. The result is
        never worse.
    restarts : int, optional
        Number of random starting points; by default up to 16 for three factors, up to four for more, by size.
    rng : numpy.random.Generator or int, optional
        Source of all random numbers. The same seed gives the same fit on the same machine; under a limit of time the
        same steps, which may end a few earlier or later.
    max_iter : int, default 5000
        Largest number of iterations from one starting point.
    tol : float, default 1e-7
        A run has converged when an iteration lowers the error by no more than `tol` times itself.
    time_limit : float, optional
        Seconds of processor time after which the best fit so far is returned. What counts is the time of this process,
        as ``time.process_time`` has it: that of all of its threads together, those of BLAS and of other work in the
        process too, but not of other processes, nor time spent waiting. So other work on the machine delays a fit, but
        hardly changes it. The products in closed form come first and are completed whatever the limit: the result is
        never worse than these. With more than three factors the search goes on until the limit, in ever longer runs,
        and a longer limit runs the same steps further; without random starting points it ends when all runs have
        converged. By default a fixed amount of work: seconds to minutes, by side and `n_factors`.
    progress : bool, optional
        Whether to show on stderr how far the work is; needs `rich`. By default only in notebooks and in sessions of
        Python on a terminal, after two seconds, and not where there is a callback.
    callback : callable, optional
        Called with a `FitProgress` after every iteration. It may raise `StopIteration` to end the fit: the best so far
        is returned.
    on_interrupt : {"raise", "return"}, default "raise"
        What `KeyboardInterrupt`, by Ctrl-C or from the callback, does. "return" ends the fit as a time limit does, and
        returns the best so far, of which `FitResult.status` says "interrupted".

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
    Three factors are fitted by alternating least squares in closed form, others by Adam with large annealed steps from
    random products, and by L-BFGS from the best of these and from products that are read off the matrix. An iteration
    costs ``O(rows * cols)`` for three factors and ``O(F n^2 log n)`` for F of them, with the memory of a few matrices.
    It takes one thread, except for linear algebra of BLAS.

    Where the products have at least as many numbers as `W` has entries, and up to 2,400 of them, steps of Levenberg and
    Marquardt on all factors at once take the place of L-BFGS: with n + 1 to n + 4 factors they find products that are
    `W` up to rounding. A step costs ``O((F n)^3)``.

    Up to a side of 96 a fit by seven factors or more begins with one by fewer, and is never worse than that.

    One of the products that are read off is near a truncated SVD: of rank two by five factors in closed form, of a
    higher rank k by ``2k + 3`` factors of a single block, whose halves are fitted to the singular vectors.

    Planted products, also with noise as strong as the signal for three factors, are found where other starts end in
    local minima: the outermost factors are read off one after the other.

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
    begun, spent = time.monotonic(), time.process_time()
    matrix = as_matrix(W, _OWNER, "W")
    rows, cols = matrix.shape
    layout = CDDLayout((rows, cols), n_factors, block_size, owner=_OWNER)
    values, weights = _with_entry_weights(to_numpy(matrix), entry_weights, layout, moment=input_second_moment)
    if not np.isfinite(values).all():
        text = "must be finite, got NaN or infinity: give entries that are not known the weight zero (`entry_weights`)"
        raise ArgumentValueError(_OWNER, "W", text)
    control = Control(
        max_iter=integer(max_iter, _OWNER, "max_iter"),
        tol=non_negative(tol, _OWNER, "tol"),
        restarts=None if restarts is None else integer(restarts, _OWNER, "restarts", least=0),
        returns_best=one_of(on_interrupt, _OWNER, "on_interrupt", ("raise", "return")) == "return",
        endless=time_limit is not None,
        deadline=None if time_limit is None else spent + non_negative(time_limit, _OWNER, "time_limit"),
        callback=optional_function(callback, _OWNER, "callback"),
    )
    known = _known_start(start, layout, real=not np.iscomplexobj(values))
    inputs = None if input_second_moment is None else _inputs(input_second_moment, values)
    generator = random_generator(rng, _OWNER)

    # The entries are scaled to a largest one near one: then no square of them over- or underflows.
    exponent = largest_exponent(values)
    problem = Problem(scale_by_power_of_two(values, -exponent), layout, values.dtype, inputs, weights)
    with shown_progress(control.callback, progress) as control.callback:
        found = _fitted(problem, control, generator, [one.scaled(-exponent) for one in known])

    vectors = found.scaled(exponent).vectors
    operator = layout.product([from_numpy(v.astype(values.dtype), matrix) for v in vectors])
    error = product_error(operator, matrix, problem.target, exponent=exponent, inputs=inputs, entry_weights=weights)
    if error == math.inf:
        text = f"has a fit whose products overflow {dtype_name(matrix.dtype)}: use a wider dtype, or divide by a number"
        raise ArgumentValueError(_OWNER, "W", text)
    message = _message(problem, found, control, error)
    return FitResult(
        operator=operator,
        error=error,
        block_size=layout.block_size,
        n_parameters=operator.n_parameters,
        n_iter=max(len(found.history) - 1, 0),
        converged=found.converged or message in NOTHING_LEFT,
        history=_history(found.history, error),
        start=found.start,
        status=control.status,
        message=message,
        seconds=time.monotonic() - begun,
    )


_ZERO = "the matrix is zero"
_EXACT = "the product is the matrix to rounding"
_NEAREST = "the nearest matrix of one factor, in closed form"
NOTHING_LEFT = (_ZERO, _EXACT, _NEAREST)
"""What is said of a product that nothing can improve."""

WARM_START = "warm start"
"""The name of the argument `start` as a starting point."""

ALL_MADE = "all planned iterations made"
"""What is said of a fit that a number of iterations has ended before it converged."""


def _message(problem: Problem, found: Found, control: Control, error: float) -> str:
    """Return in words how a fit ended."""
    if not problem.matrix.any():
        return _ZERO
    if found.exact or error <= ROUNDINGS_AT_FIRST * np.finfo(problem.dtype).eps:
        return _EXACT
    if problem.layout.n_factors == 1 and problem.inputs is None:
        return _NEAREST
    if control.status != "completed":
        return f"{control.status}: the best so far"
    if found.converged:
        return "converged"
    if found.slow:
        return GAINS_LITTLE
    return ALL_MADE


def _history(errors: Sequence[float], last: float) -> NDArray[np.float64]:
    """Return the lowest errors so far, of which the last one is replaced by that of the operator that is returned."""
    finite = [error for error in errors if math.isfinite(error)]
    history: NDArray[np.float64] = np.minimum.accumulate([*finite[: len(errors) - 1], last])
    return np.maximum(history, last)


def _fitted(problem: Problem, control: Control, rng: np.random.Generator, known: Sequence[Found]) -> Found:
    """Return the best product that is found, which is no worse than those known beforehand."""
    if problem.inputs is not None:
        return _fitted_with_inputs(problem, problem.inputs, control, rng, known)
    if problem.layout.n_factors == 3:
        return ThreeFactorSearch(problem, control, rng, known).result()
    rows, cols = problem.layout.shape
    if rows < cols:  # The rows that are carried along the product are then as few as the smaller side has.
        return _searched(problem.transposed(), control, rng, [one.transposed() for one in known]).transposed()
    return _searched(problem, control, rng, known)


def _fitted_with_inputs(
    problem: Problem, inputs: NDArray[Any], control: Control, rng: np.random.Generator, known: Sequence[Found]
) -> Found:
    """Return the best product with inputs. It is no worse than the one without, which is a start."""
    without, of_start = replace(problem, inputs=None), replace(control)
    if control.endless:
        of_start.max_iter = min(control.max_iter, OF_A_START)
        of_start.endless = False
    unweighted = _fitted(without, of_start, copy.deepcopy(rng), known)
    control.status = of_start.status
    known = [*known, unweighted._replace(start="unweighted fit")]
    if inputs.ndim == 2:
        return _searched(problem, control, rng, known)
    if problem.layout.kinds[-1] != "diagonal":
        return _searched(replace(problem, inputs=np.diag(inputs)[:, inputs > 0]), control, rng, known)
    # The last diagonal takes up the weights of the columns.
    weighted = replace(without, matrix=problem.matrix * inputs.astype(problem.matrix.real.dtype))
    found = _fitted(weighted, control, rng, [one.with_columns_times(inputs) for one in known])
    return found.with_columns_times(np.divide(1.0, inputs, out=np.zeros_like(inputs), where=inputs > 0))


def _searched(problem: Problem, control: Control, rng: np.random.Generator, known: Sequence[Found]) -> Found:
    """Return the best product of any number of factors."""
    if not problem.target.any():
        return Found("zero", [np.zeros(shape) for shape in problem.layout.vector_shapes], [0.0], converged=True)
    return Search(problem, control, rng, known).result()


# The arguments


def _with_entry_weights(
    values: NDArray[Any], entry_weights: Any, layout: CDDLayout, *, moment: object
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return the matrix with zeros for entries without weight, and the weights, of which the largest is one."""
    if entry_weights is None:
        return values, None
    argument = "entry_weights"
    if moment is not None:
        raise ArgumentValueError(_OWNER, argument, "must be None with input_second_moment")
    if layout.n_factors != 3:
        raise ArgumentValueError(
            _OWNER, argument, f"must be None except for three factors, got n_factors={layout.n_factors}"
        )
    weights = to_numpy(as_floating(entry_weights, _OWNER, argument))
    if weights.shape != values.shape:
        raise ArgumentValueError(_OWNER, argument, f"must have the shape of W, {values.shape}, got {weights.shape}")
    if np.iscomplexobj(weights):
        raise ArgumentValueError(_OWNER, argument, "must be bool or real, got complex numbers")
    if not (np.isfinite(weights).all() and weights.min() >= 0.0):
        raise ArgumentValueError(_OWNER, argument, "must be finite and not negative")
    if not weights.any():
        raise ArgumentValueError(_OWNER, argument, "must not be all zero")
    return np.where(weights > 0.0, values, values.dtype.type(0)), weights / weights.max()


def _inputs(moment: Any, values: NDArray[Any]) -> NDArray[Any]:
    """Return the inputs of a `Problem` for second moments, which are a root of these; of a diagonal its roots."""
    checked = second_moment(moment, values.shape[1], _OWNER)
    if checked.ndim == 1:
        return column_roots(checked, _OWNER)
    return weighted_inputs(checked, _OWNER, real=not np.iscomplexobj(values))


def _known_start(start: Any, layout: CDDLayout, *, real: bool) -> list[Found]:
    """Return the product of the argument `start`, if there is one, in double precision.

    Of a matrix that is real the product must be real, too.
    """
    if start is None:
        return []

    def refused(text: str) -> ArgumentValueError:
        return ArgumentValueError(_OWNER, "start", text)

    product = start.operator if isinstance(start, FitResult) else start
    if not isinstance(product, CDDProduct):
        raise ArgumentTypeError(_OWNER, "start", f"must be a CDDProduct or a FitResult, got {start!r}")
    if layout.is_single_block and not isinstance(product.factors[0], Diagonal):
        ones = product._own_namespace().ones(product.shape[0], dtype=product.dtype, device=product.device)
        product = CDDProduct((Diagonal(ones), *product.factors))
    own = _layout_of_start(product, layout.shape)
    if own.block_size != layout.block_size and own.n_factors > 1:
        raise refused(f"must have blocks of {layout.block_size}, got blocks of {own.block_size}")
    fewest = 1 if layout.is_single_block else 3
    if not fewest <= own.n_factors <= layout.n_factors:
        text = f"must become a product of {layout.n_factors} factors, the first a diagonal, with identities added"
        raise refused(f"{text}, got {own.n_factors} factors")
    vectors = [to_numpy(vector) for vector in own.vectors_of(product)]
    entries = np.concatenate([vector.reshape(-1) for vector in vectors])
    if real and np.iscomplexobj(entries):
        raise refused("must be real where W is, got complex factors")
    if not np.isfinite(entries).all():
        raise refused("must be finite, got NaN or infinity")
    wide = [v.astype(np.result_type(v.dtype, np.float64)) for v in vectors]
    whole: Any = layout.balanced(layout.extended(wide))
    return [Found(WARM_START, whole)]


def _layout_of_start(product: CDDProduct, shape: tuple[int, int]) -> CDDLayout:
    """Return the layout of a product of that shape to start from."""
    if product.shape != shape:
        raise ArgumentValueError(_OWNER, "start", f"must have shape {shape}, got {tuple(product.shape)}")
    if product.batch_shape:
        raise ArgumentValueError(_OWNER, "start", f"must be one product, got a stack of shape {product.batch_shape}")
    try:
        return CDDLayout.of(product)
    except ArgumentError as error:
        text = f"must have the factors that such a fit has: its product {error.text}"
        raise ArgumentValueError(_OWNER, "start", text) from error
