"""`error_curve`: fits with more and more factors, each at least as good as the one before."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from structmat._arrays.arrays import as_floating
from structmat.fit._arguments import generator, integer
from structmat.fit._baselines.families import RIVALS, truncated_svd
from structmat.fit._curve_result import ErrorCurve
from structmat.fit._fit_cdd import fit_cdd
from structmat.fit._numpy_bridge import as_matrix, like, to_numpy
from structmat.fit._result import FitProgress, FitResult
from structmat.fit._second_moment import weighted_inputs
from structmat.operators import BlockCirculant, CDDProduct, Circulant, Diagonal

if TYPE_CHECKING:
    from structmat._arrays.typing import Array, ArrayLike

__all__ = ["CurveProgress", "error_curve"]

PADDED = "fewer factors"
"""The `start` of a product of fewer factors with identity factors appended."""

_COST_POWER = 1.3
"""Fits without a time limit take about this power of their number of factors."""


class CurveProgress(NamedTuple):
    """State of a curve, as handed to the `callback` of `error_curve`."""

    n_factors: int
    """Number of factors of the fit that runs now."""
    point: int
    """Which point of the curve that is, the first is 1."""
    n_points: int
    """How many points the curve will have."""
    fit: FitProgress
    """State of the fit."""
    elapsed: float
    """Seconds since the curve began."""
    remaining: float | None
    """Estimated seconds to its end; None before the first fit is done, unless there is a time limit."""


def error_curve(
    W: ArrayLike,
    max_factors: int | None = None,
    *,
    n_factors: Iterable[int] | None = None,
    block_size: int | None = None,
    first: Literal["diagonal", "circulant"] = "diagonal",
    weights: ArrayLike | None = None,
    rng: np.random.Generator | int | None = None,
    time_limit: float | None = None,
    rivals: bool = True,
    callback: Callable[[CurveProgress], object] | None = None,
    **fit_options: Any,
) -> ErrorCurve:
    """Fit a matrix by products of more and more factors, and compare with other families of the same size.

    Parameters
    ----------
    W : array_like
        The matrix, of shape (rows, cols), real or complex.
    max_factors : int, optional
        The largest number of factors. The curve has a point for each number from 1 on; for a rectangle or several
        blocks for each odd number from 3 on, all that `fit_cdd` offers there.
    n_factors : iterable of int, optional
        The numbers of factors themselves, instead of `max_factors`; in any order.
    block_size : int, optional
        Side of the circulant blocks, as for `fit_cdd`.
    first : {"diagonal", "circulant"}, default: "diagonal"
        Kind of the first factor.
    weights : array_like, optional
        Second moments of the inputs that the errors are weighted with, as for `fit_cdd`. Of the rivals only the
        truncated SVD has a closed form then.
    rng : numpy.random.Generator or int, optional
        Source of random numbers; the same seed gives the same curve, unless a time limit cuts it.
    time_limit : float, optional
        Seconds for the whole curve, shared out among its points; the searches go on until then. Points that no time is
        left for hold the best product of fewer factors.
    rivals : bool, default: True
        Whether to compute the rivals: truncated SVD (the best case of LoRA), block circulant (of C3A), sparse Fourier
        (of FourierFT) and Monarch matrices.
    callback : callable, optional
        Called with a `CurveProgress` whenever the running fit reports.
    **fit_options
        Further arguments of `fit_cdd`, such as ``solver``, ``restarts`` or ``max_iter``, for all the fits.

    Returns
    -------
    ErrorCurve
        Errors, numbers of parameters and times; the rivals; the fits.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If an argument is out of range, or not both or neither of `max_factors` and `n_factors` are given.

    See Also
    --------
    fit_cdd : A single fit.
    structmat.plot.curve_figure : Draws the curve.

    Notes
    -----
    A product of fewer factors is one of more factors, with identities appended. Each fit starts from the one before,
    among other starting points, and is replaced by it should it end above it: the error never rises along the curve.

    Ctrl-C ends the curve early, as a time limit does.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.fit import error_curve
    >>> W = np.random.default_rng(0).standard_normal((8, 8))
    >>> curve = error_curve(W, n_factors=[3], rng=0)
    >>> curve.n_parameters
    array([24])
    >>> bool(curve.error[0] < curve.rivals["truncated-svd"][1][0])
    True
    """
    matrix = as_matrix(W, "error_curve: W")
    single = matrix.shape[0] == matrix.shape[1] and block_size in (None, matrix.shape[0])
    numbers = _numbers(max_factors, n_factors, single=single)
    clock = _Clock(numbers, _limit(time_limit))
    options = {"block_size": block_size, "first": first, "weights": weights, **fit_options}
    options["rng"] = generator(rng)
    if callback is not None and not callable(callback):
        raise TypeError(f"error_curve: callback must be callable, got {callback!r}")
    results: list[FitResult] = []
    seconds: list[float] = []
    stopped = "completed"
    # Diagonal, circulant, diagonal: such products hold all closed forms, and a fit without any time returns the best.
    enough = 3 if first == "diagonal" else 4
    for index, number in enumerate(numbers):
        began = time.perf_counter()
        if index > 0 and numbers[index - 1] >= enough and clock.over():
            stopped = "time limit"
        if stopped != "completed":
            results.append(_padded(results[-1], number))
            seconds.append(0.0)
            continue
        if results:
            options["start"] = results[-1]
        report = _reporter(callback, clock, index)
        result = fit_cdd(matrix, number, time_limit=clock.share(index), callback=report, **options)
        if result.stopped == "interrupted":
            stopped = "interrupted"
        if results and not result.error <= results[-1].error:
            result = _padded(results[-1], number)
        results.append(result)
        seconds.append(time.perf_counter() - began)
        clock.done(index, seconds[-1])
    n_parameters = [result.n_parameters for result in results]
    return ErrorCurve(
        n_factors=np.array(numbers),
        n_parameters=np.array(n_parameters),
        error=np.array([result.error for result in results]),
        seconds=np.array(seconds),
        rivals=_rivals(matrix, n_parameters, weights) if rivals else {},
        shape=(int(matrix.shape[0]), int(matrix.shape[1])),
        block_size=results[0].block_size,
        first=first,
        weighted=weights is not None,
        stopped=stopped,
        results=tuple(results),
    )


class _Clock:
    """The time that is left, and the share of it for each fit."""

    def __init__(self, numbers: list[int], limit: float) -> None:
        self.numbers, self.limit, self.start = numbers, limit, time.perf_counter()
        self.costs = [float(number) ** _COST_POWER for number in numbers]
        self.paid = self.spent = 0.0
        self.index_start = self.start

    def elapsed(self) -> float:
        return time.perf_counter() - self.start

    def over(self) -> bool:
        return self.elapsed() >= self.limit

    def share(self, index: int) -> float | None:
        """Return the time limit of a fit: what is left goes to it and the later ones by cost."""
        self.index_start = time.perf_counter()
        if math.isinf(self.limit):
            return None
        left = max(self.limit - self.elapsed(), 0.0)
        return left * self.costs[index] / sum(self.costs[index:])

    def done(self, index: int, seconds: float) -> None:
        self.paid += self.costs[index]
        self.spent += seconds

    def remaining(self, index: int) -> float | None:
        left = self.limit - self.elapsed()
        if self.paid == 0.0:
            return None if math.isinf(left) else left
        rate = self.spent / self.paid
        this = max(rate * self.costs[index] - (time.perf_counter() - self.index_start), 0.0)
        return max(min(this + rate * sum(self.costs[index + 1 :]), left), 0.0)


def _reporter(
    callback: Callable[[CurveProgress], object] | None, clock: _Clock, index: int
) -> Callable[[FitProgress], object] | None:
    if callback is None:
        return None

    def report(state: FitProgress) -> None:
        number, count = clock.numbers[index], len(clock.numbers)
        callback(CurveProgress(number, index + 1, count, state, clock.elapsed(), clock.remaining(index)))

    return report


def _padded(result: FitResult, n_factors: int) -> FitResult:
    """Return a fit as one of more factors: the same product, identities appended, of a wide one on the left."""
    factors = list(result.operator.factors)
    size, (rows, cols) = result.block_size, result.operator.shape
    while len(factors) < n_factors:
        at = 0 if rows < cols else len(factors)
        diagonal = not isinstance(factors[0 if rows < cols else -1], Diagonal)
        factors.insert(at, _identity(min(rows, cols), size, result, diagonal=diagonal))
    product = CDDProduct(tuple(factors))
    return replace(result, operator=product, n_parameters=product.n_parameters, start=PADDED)


def _identity(n: int, block_size: int, result: FitResult, *, diagonal: bool) -> Any:
    vector = result.operator._arrays()[0]
    if diagonal:
        return Diagonal(like(np.ones(n), vector))
    blocks = -(-n // block_size)
    c = np.zeros((blocks, blocks, block_size))
    c[np.arange(blocks), np.arange(blocks), 0] = 1.0
    if n == block_size:
        return Circulant(like(c[0, 0], vector))
    return BlockCirculant(like(c, vector), (n, n))


def _rivals(matrix: Array, budgets: list[int], weights: ArrayLike | None) -> dict[str, tuple[Any, Any]]:
    values = to_numpy(matrix)
    # Divided by its largest entry, so that no square over- or underflows.
    values = values / (float(np.max(np.abs(values))) or 1.0)
    if weights is None:
        members = {name: rival(values, budgets) for name, rival in RIVALS.items()}
    else:
        moments = to_numpy(as_floating(weights, "error_curve: weights"))
        inputs = weighted_inputs(moments, values.shape[1], real=not np.iscomplexobj(values))
        members = {"truncated-svd": truncated_svd(values, budgets, inputs)}
    return {
        name: (np.array([m.n_parameters for m in best]), np.array([m.error for m in best]))
        for name, best in members.items()
    }


def _numbers(max_factors: int | None, n_factors: Iterable[int] | None, *, single: bool) -> list[int]:
    """Return the numbers of factors of the curve, rising."""
    if (max_factors is None) == (n_factors is None):
        raise ValueError("error_curve: give either max_factors or n_factors")
    if n_factors is None:
        most = integer(max_factors, "max_factors", 1 if single else 3, owner="error_curve")
        return list(range(1, most + 1)) if single else list(range(3, most + 1, 2))
    try:
        listed = list(n_factors)
    except TypeError:
        raise TypeError(f"error_curve: n_factors must be a sequence of integers, got {n_factors!r}") from None
    numbers = sorted({integer(number, "n_factors", 1, owner="error_curve") for number in listed})
    if not numbers:
        raise ValueError("error_curve: n_factors must not be empty")
    return numbers


def _limit(value: float | None) -> float:
    if value is None:
        return math.inf
    try:
        limit = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"error_curve: time_limit must be a number of seconds or None, got {value!r}") from None
    if not limit >= 0.0:
        raise ValueError(f"error_curve: time_limit must not be negative, got {value!r}")
    return limit
