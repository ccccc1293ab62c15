"""`error_curve`: fits with more and more factors, each at least as good as the one before, beside other families."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from structmat._arguments import as_matrix, integer, non_negative, one_of, optional_function, random_generator
from structmat._errors import ArgumentTypeError, ArgumentValueError, as_own, did_you_mean
from structmat._files import counted, data_frame, shown_error
from structmat._progress import notebook_line
from structmat.fit._baselines import baseline_errors
from structmat.fit._control import FitProgress
from structmat.fit._fit_cdd import fit_cdd
from structmat.fit._result import FitResult
from structmat.fit._search import GAINS_LITTLE
from structmat.operators import CDDLayout

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from structmat._arrays.typing import Array, ArrayLike

__all__ = ["CurveProgress", "ErrorCurve", "error_curve"]

_OWNER = "error_curve"

_FIT_OPTIONS = tuple(inspect.signature(fit_cdd).parameters)[1:]
"""The options of a fit, which curves take, too."""

_COST_POWER = 1.3
"""The time of a fit without a limit is about proportional to this power of its number of factors."""

_PADDED = "fewer factors"
"""The `start` of a product of fewer factors with identity factors appended."""


class CurveProgress(NamedTuple):
    """State of a curve, as handed to the `callback` of `error_curve`; as a string one line for people.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> seen = []
    >>> W = np.arange(9.0).reshape(3, 3)
    >>> _ = sm.error_curve(W, n_factors=[1, 3], rng=0, restarts=1, callback=seen.append)
    >>> seen[-1].n_factors, seen[-1].point, seen[-1].n_points
    (3, 2, 2)
    """

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
    """Estimated seconds to its end, no more than are left of a time limit; None before a fit of more than three factors
    is done, and where fits take longer than those before had let expect, unless there is a limit."""

    def __str__(self) -> str:
        where = f"{counted(self.n_factors, 'factor')} ({self.point} of {self.n_points})"
        return f"{where}, best error {self.fit.best:.6f}, {self.fit.phase} from {self.fit.start}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ErrorCurve:
    """Error against number of factors, as returned by `error_curve`.

    Attributes
    ----------
    n_factors : ndarray of int
        Numbers of factors, increasing; one for each point of the curve.
    n_parameters : ndarray of int
        Number of entries of all vectors of the product.
    error : ndarray
        Relative error of the product; never rises. NaN for a point that was not made.
    seconds : ndarray
        Duration of the fit by the clock; NaN for a point that was not made.
    baselines : mapping of str to tuple
        For each family ``(n_parameters, error)``: for every point of the curve the number of parameters and the error
        of the best member of the family with at most as many parameters as the product.
    shape : tuple of int
        Rows and columns of the matrix.
    block_size : int
        Side of the circulant blocks.
    weighted : bool
        Whether the errors are weighted ones.
    status : str
        ``"completed"``, ``"time limit"`` if a fit was cut short, ``"callback"`` or ``"interrupted"``.
    results : tuple of FitResult
        The fits; of a curve that was ended early these are those of its first points.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.fit import error_curve
    >>> curve = error_curve(np.outer([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]), n_factors=[3], rng=0)
    >>> bool(curve.error[0] < 1e-12)
    True
    >>> sorted(curve.baselines)
    ['block-circulant', 'cdd-in-blocks', 'monarch', 'sparse-fourier', 'truncated-svd']
    """

    n_factors: NDArray[np.int64]
    n_parameters: NDArray[np.int64]
    error: NDArray[np.float64]
    seconds: NDArray[np.float64]
    baselines: Mapping[str, tuple[NDArray[np.int64], NDArray[np.float64]]]
    shape: tuple[int, int]
    block_size: int
    weighted: bool = False
    status: str = "completed"
    results: tuple[FitResult, ...] = field(default=())

    @property
    def point_status(self) -> tuple[str, ...]:
        """For each point how its fit ended, as `FitResult.status` says, or ``"not made"``."""
        made = [result.status for result in self.results]
        return (*made, *["not made"] * (len(self.n_factors) - len(made)))

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the fits, ready for JSON.

        Returns
        -------
        dict
            Strings, numbers and lists only; None for the error of a point that was not made.
        """
        return {
            "rows": self.shape[0],
            "cols": self.shape[1],
            "block_size": self.block_size,
            "weighted": self.weighted,
            "status": self.status,
            **{name: _without_nan(column) for name, column in self._points().items()},
            "point_status": list(self.point_status),
            "baselines": {
                name: {"n_parameters": used.tolist(), "error": error.tolist()}
                for name, (used, error) in self.baselines.items()
            },
        }

    def to_pandas(self) -> Any:
        """Return a table with one row for each point; needs pandas.

        Returns
        -------
        pandas.DataFrame
            The columns of the points, with how each fit ended, and two for each baseline, as in
            ``monarch_n_parameters`` and ``monarch_error``.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        columns = self._columns()
        return data_frame("ErrorCurve.to_pandas", list(columns), zip(*columns.values(), strict=True))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the error against the number of parameters, with the baselines; needs the extra ``files``.

        The points of the CDD products are marked with their numbers of factors. Fits that were stopped early have
        hollow markers, and points that were not made none.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default axes of a new figure, ``ax.figure``.

        Returns
        -------
        matplotlib.axes.Axes
            The axes, drawn on.
        """
        from structmat._drawing import draw_errors_of_methods  # noqa: PLC0415  # It imports matplotlib.

        rows, cols = self.shape
        lines = {"cdd": (self.n_parameters, self.error), **self.baselines}
        marks = [counted(int(self.n_factors[0]), "factor"), *map(str, self.n_factors[1:])]
        stopped = np.array([status not in {"completed", "not made"} for status in self.point_status])
        ax = draw_errors_of_methods(lines, rows * cols, marks, ax, stopped=stopped)
        ax.set_title(f"CDD products of a {rows:,} × {cols:,} matrix, blocks of {self.block_size}")
        if self.weighted:
            ax.set_ylabel("weighted relative error")
        return ax

    def _points(self) -> dict[str, NDArray[Any]]:
        return {name: getattr(self, name) for name in ("n_factors", "n_parameters", "error", "seconds")}

    def _columns(self) -> dict[str, NDArray[Any]]:
        columns = {**self._points(), "status": np.array(self.point_status)}
        for name, (used, error) in self.baselines.items():
            columns |= {f"{name}_n_parameters": used, f"{name}_error": error}
        return columns

    def __repr__(self) -> str:
        rows, cols = self.shape
        kind = "weighted error" if self.weighted else "error"
        head = f"ErrorCurve of a {rows} x {cols} matrix, blocks of {self.block_size}"
        if self.status != "completed":
            head += f", {self.status}"
        titles = ["factors", "parameters", "of dense", kind, "seconds", *self.baselines]
        widths = [max(len(title), 8) for title in titles]
        lines = [head, "  ".join(f"{title:>{width}}" for title, width in zip(titles, widths, strict=True))]
        for i, count in enumerate(self.n_parameters):
            cells = [
                f"{self.n_factors[i]}",
                f"{count:,}",
                f"{count / (rows * cols):.1%}",
                "-" if np.isnan(self.error[i]) else f"{self.error[i]:.4g}",
                "-" if np.isnan(self.seconds[i]) else f"{self.seconds[i]:.2f}",
                *(shown_error(used[i], error[i]) for used, error in self.baselines.values()),
            ]
            lines.append("  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))
        for status in dict.fromkeys(self.point_status):
            if status != "completed":
                of_it = [str(n) for n, own in zip(self.n_factors, self.point_status, strict=True) if own == status]
                lines.append(f"{', '.join(of_it)} factors: {status if status == 'not made' else f'stopped, {status}'}")
        slow = [f"{result.operator.n_factors}" for result in self.results if result.message == GAINS_LITTLE]
        if slow:
            lines.append(f"{', '.join(slow)} factors: {GAINS_LITTLE}")
        return "\n".join(lines)


def error_curve(
    W: ArrayLike,
    n_factors: int | Iterable[int] = 9,
    *,
    block_size: int | Literal["min", "toeplitz"] = "min",
    input_second_moment: ArrayLike | None = None,
    start: ErrorCurve | None = None,
    rng: np.random.Generator | int | None = None,
    time_limit: float | None = None,
    baselines: bool = True,
    callback: Callable[[CurveProgress], object] | None = None,
    on_interrupt: Literal["raise", "return"] = "raise",
    **fit_options: Any,
) -> ErrorCurve:
    """Fit a matrix by products of an increasing number of factors, and compare with other families of matrices.

    Parameters
    ----------
    W : array_like
        The matrix, of shape (rows, cols), real or complex.
    n_factors : int or iterable of int, default 9
        The largest number of factors: the curve has a point for each number from 1 on, or for a rectangle or several
        blocks for each odd number from 3 on, all that `fit_cdd` offers there. Or the numbers themselves, in any order;
        without some of them the other errors may change, see below.
    block_size : int, "min" or "toeplitz", default "min"
        Side of the circulant blocks, as for `fit_cdd`.
    input_second_moment : array_like, optional
        Second moments that the errors are weighted with, as for `fit_cdd`. Of the baselines only the truncated SVD has
        a closed form then.
    start : ErrorCurve, optional
        A curve of the same matrix and block size to go on from, for instance with another seed or a time limit: each
        fit also starts from its best product of no more factors, so that no error is above that of `start`, unless the
        callback or an interrupt ends the curve.
    rng : numpy.random.Generator or int, optional
        Source of random numbers; the same seed gives the same curve, unless a time limit cuts it.
    time_limit : float, optional
        Seconds of processor time for all fits of the curve together, counted as by `fit_cdd` and divided among its
        points; the searches continue until then. Points for which no time is left are not made, and have no
        error. Without a limit each fit does a fixed amount of work and ends where it gains little: three, five and
        nine factors of a real weight change of 384 rows take about 20 seconds.
    baselines : bool, default True
        Whether to compute the baselines: truncated SVD (the best case of LoRA), CDD products of five factors in blocks
        that hold a truncated SVD, block circulant (of C3A), sparse Fourier (of FourierFT) and Monarch matrices.
    callback : callable, optional
        Called with a `CurveProgress` whenever the running fit reports. It may raise `StopIteration` to end the curve.
    on_interrupt : {"raise", "return"}, default "raise"
        What `KeyboardInterrupt`, by Ctrl-C or from the callback, does. "return" ends the curve as a time limit does, as
        soon as it has one point; during the comparison with the baselines it leaves these out.
    **fit_options
        Further arguments of `fit_cdd`, such as ``restarts`` or ``max_iter``, for all the fits.

    Returns
    -------
    ErrorCurve
        Errors, numbers of parameters and times; the baselines; the fits.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If an argument is out of range.

    See Also
    --------
    fit_cdd : A single fit.
    structmat.plot.draw_curve : Draws the curve.

    Notes
    -----
    A product of fewer factors is one of more factors, with identities appended. The previous product is one of the
    starting points of each fit, and replaces it if its error is smaller. So the error never rises along the curve.

    The error for a number of factors therefore depends on which smaller numbers the curve has. So do the random
    starting points, as all fits draw from one generator.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.fit import error_curve
    >>> W = np.random.default_rng(0).standard_normal((8, 8))
    >>> curve = error_curve(W, n_factors=[3], rng=0)
    >>> curve.n_parameters
    array([24])
    >>> bool(curve.error[0] < curve.baselines["truncated-svd"][1][0])
    True
    """
    matrix = as_matrix(W, _OWNER, "W")
    numbers = _numbers(n_factors, matrix.shape, block_size)
    limit = None if time_limit is None else non_negative(time_limit, _OWNER, "time_limit")
    if fit_options.get("entry_weights") is not None:
        text = "must be None: only products of three factors have them; use fit_cdd"
        raise ArgumentValueError(_OWNER, "entry_weights", text)
    _require_known(fit_options)
    options: dict[str, Any] = {"block_size": block_size, **fit_options}
    options |= {"input_second_moment": input_second_moment, "rng": random_generator(rng, _OWNER)}
    options["on_interrupt"] = one_of(on_interrupt, _OWNER, "on_interrupt", ("raise", "return"))
    optional_function(callback, _OWNER, "callback")

    known = _known(start, matrix.shape)

    points = _Points(matrix, numbers, limit, options, known)
    others: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
    try:
        with notebook_line(callback) as heard:
            points.fit(heard)
        if baselines:
            others = baseline_errors(matrix, points.n_parameters(), input_second_moment=input_second_moment)
    except KeyboardInterrupt:
        if on_interrupt == "raise" or not points.results:
            raise
        points.status = "interrupted"
    not_made = [math.nan] * (len(numbers) - len(points.results))
    return ErrorCurve(
        n_factors=np.array(numbers),
        n_parameters=np.array(points.n_parameters()),
        error=np.array([*(result.error for result in points.results), *not_made]),
        seconds=np.array([*points.seconds, *not_made]),
        baselines=others,
        shape=(int(matrix.shape[0]), int(matrix.shape[1])),
        block_size=points.results[0].block_size,
        weighted=input_second_moment is not None,
        status=points.status,
        results=tuple(points.results),
    )


def _require_known(fit_options: Mapping[str, Any]) -> None:
    """Refuse options that `fit_cdd` does not have, on behalf of the function that was called."""
    for name in fit_options:
        if name not in _FIT_OPTIONS:
            meant = did_you_mean(name, _FIT_OPTIONS)
            text = f"got an unexpected keyword argument {name!r}{meant}; fit_cdd takes {', '.join(_FIT_OPTIONS)}"
            raise ArgumentTypeError(_OWNER, None, text)


class _Points:
    """The points of a curve, which are fitted one after the other.

    Parameters
    ----------
    matrix : array
    numbers : list of int
        Numbers of factors, rising.
    time_limit : float or None
        Seconds of processor time for all points together.
    options : dict
        Arguments for every fit.
    known : tuple of FitResult
        Fits to start from where they have no more factors.
    """

    def __init__(
        self,
        matrix: Array,
        numbers: list[int],
        time_limit: float | None,
        options: dict[str, Any],
        known: tuple[FitResult, ...] = (),
    ) -> None:
        self.matrix, self.numbers, self.options, self.known = matrix, numbers, options, known
        self.limited = time_limit is not None
        self.begun = time.perf_counter()
        self.deadline = time.process_time() + (math.inf if time_limit is None else time_limit)
        self.results: list[FitResult] = []
        self.seconds: list[float] = []
        """The durations of the fits by the clock."""
        self.status = "completed"

    def fit(self, callback: Callable[[CurveProgress], object] | None) -> None:
        """Fit the points until the last one, or until something stops that."""
        for number in self.numbers:
            # Diagonal, circulant, diagonal: such products hold all closed forms, and a fit without any time returns
            # the best of them. So the curve has one point at least of three factors, and all that were known before.
            enough = self.results and self.results[-1].operator.n_factors >= 3 and not self._known_beyond(number)
            if enough and self._time_left() <= 0.0:
                self.status = "time limit"
                return
            self._fit_next(number, callback)
            if self.status in {"interrupted", "callback"}:
                return

    def _fit_next(self, number: int, callback: Callable[[CurveProgress], object] | None) -> None:
        began = time.perf_counter()
        options = dict(self.options)
        if self.limited:
            # What is left goes to this fit and the later ones by their cost.
            costs = [float(count) ** _COST_POWER for count in self.numbers[len(self.results) :]]
            options["time_limit"] = max(self._time_left(), 0.0) * costs[0] / sum(costs)
        before = self.results[-1] if self.results else None
        known = [result for result in self.known if result.operator.n_factors <= number]
        start = min((*self.results[-1:], *known), key=lambda result: result.error, default=None)
        with as_own(_OWNER, of="fit_cdd"):
            result = fit_cdd(self.matrix, number, start=start, callback=self._reporter(callback), **options)
        self.results.append(_padded(before, number) if before and result.error > before.error else result)
        self.seconds.append(time.perf_counter() - began)
        if result.status != "completed":
            self.status = result.status

    def _known_beyond(self, number: int) -> bool:
        """Whether there is a known product of up to this number of factors with more than the last point has."""
        last = self.results[-1].operator.n_factors
        return any(last < result.operator.n_factors <= number for result in self.known)

    def n_parameters(self) -> list[int]:
        """Return the numbers of parameters of all points, also of those that are left."""
        layout = CDDLayout.of(self.results[0].operator)
        return [replace(layout, n_factors=number).n_parameters for number in self.numbers]

    def _time_left(self) -> float:
        return self.deadline - time.process_time()

    def _reporter(self, callback: Callable[[CurveProgress], object] | None) -> Callable[[FitProgress], object] | None:
        """Return what tells the callback of the curve how far the next fit is."""
        if callback is None:
            return None
        index, costs = len(self.results), [number**_COST_POWER for number in self.numbers]
        began = time.perf_counter()
        # Three factors have an algorithm of their own, which says nothing of how long others take.
        alike = [k for k in range(index) if self.numbers[k] > 3]
        seconds = sum(self.seconds[k] for k in alike)
        whole = sum(costs[index:]) * seconds / sum(costs[k] for k in alike) if alike else math.inf

        def report(state: FitProgress) -> None:
            now = time.perf_counter()
            # A fit that has taken longer than all were expected to says that the estimate was wrong.
            estimate = whole - (now - began) if whole > now - began else math.inf
            left = min(estimate, max(self._time_left(), 0.0))
            known = None if math.isinf(left) else left
            number, n_points = self.numbers[index], len(self.numbers)
            callback(CurveProgress(number, index + 1, n_points, state, now - self.begun, known))

        return report


def _without_nan(column: NDArray[Any]) -> list[Any]:
    """Return numbers as JSON has them, which has no NaN."""
    return [None if isinstance(value, float) and math.isnan(value) else value for value in column.tolist()]


def _known(start: Any, shape: tuple[int, ...]) -> tuple[FitResult, ...]:
    """Return the fits of the argument `start`, after the check that it is a curve of a matrix of this shape."""
    if start is None:
        return ()
    if not isinstance(start, ErrorCurve):
        raise ArgumentTypeError(_OWNER, "start", f"must be an ErrorCurve, got {start!r}")
    if start.shape != tuple(shape):
        text = f"must be a curve of a matrix of shape {tuple(shape)}, got one of shape {start.shape}"
        raise ArgumentValueError(_OWNER, "start", text)
    return start.results


def _padded(result: FitResult, n_factors: int) -> FitResult:
    """Return a fit as one of more factors: the same product, with identities."""
    layout = CDDLayout.of(result.operator)
    longer = replace(layout, n_factors=n_factors)
    product = longer.product(longer.extended(layout.vectors_of(result.operator)))
    return replace(result, operator=product, n_parameters=product.n_parameters, start=_PADDED)


def _numbers(n_factors: int | Iterable[int], shape: tuple[int, int], block_size: Any) -> list[int]:
    """Return the numbers of factors of the curve, rising, after the check that there are products of each."""
    most = CDDLayout.most_factors(shape)

    def number(value: Any, least: int = 1) -> int:
        count = integer(value, _OWNER, "n_factors", least)
        if count > most:
            raise ArgumentValueError(_OWNER, "n_factors", f"must be at most {most:,} for this matrix, got {count}")
        return count

    if isinstance(n_factors, Iterable) and not isinstance(n_factors, (str, bytes)):
        numbers = sorted({number(count) for count in n_factors})
        if not numbers:
            raise ArgumentValueError(_OWNER, "n_factors", "must not be empty")
    else:
        # The block size may be anything yet, also without a hash.
        single = shape[0] == shape[1] and block_size in ("min", shape[0])
        last = number(n_factors, 1 if single else 3)
        numbers = list(range(1, last + 1)) if single else list(range(3, last + 1, 2))
    for count in numbers:
        CDDLayout(shape, count, block_size, owner=_OWNER)
    return numbers
