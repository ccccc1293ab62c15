"""`error_curve`: fits with more and more factors, each at least as good as the one before, by one search or several."""

from __future__ import annotations

import inspect
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from structmat._arguments import (
    as_matrix,
    independent_generators,
    integer,
    nearest_argument,
    non_negative,
    one_of,
    optional_function,
    random_generator,
)
from structmat._errors import ArgumentTypeError, ArgumentValueError, as_own, did_you_mean
from structmat._files import counted
from structmat._progress import shown_progress
from structmat.fit._baselines import BASELINES, baseline_errors
from structmat.fit._control import FitProgress
from structmat.fit._curve_result import COMPLETED, NOT_MADE, ErrorCurve
from structmat.fit._fit_cdd import ALL_MADE, NOTHING_LEFT, WARM_START, fit_cdd
from structmat.fit._result import FitResult
from structmat.operators import CDDLayout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat._arrays.typing import Array, ArrayLike

__all__ = ["CurveProgress", "error_curve"]

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
    """Seconds since the search began."""
    remaining: float | None
    """Estimated seconds to the end of the search, no more than are left of a time limit; None before a fit of more than
    three factors is done, and where fits take longer than those before had let expect, unless there is a limit."""
    search: int = 1
    """Which of several searches it is, the first is 1."""
    n_searches: int = 1
    """How many searches there will be."""

    def __str__(self) -> str:
        where = f"{counted(self.n_factors, 'factor')} ({self.point} of {self.n_points})"
        if self.n_searches > 1:
            where = f"search {self.search} of {self.n_searches}, {where}"
        return f"{where}, best error {self.fit.best:.6f}, {self.fit.phase} from {self.fit.start}"


def error_curve(
    W: ArrayLike,
    n_factors: int | Iterable[int] = 9,
    *,
    block_size: int | Literal["min", "toeplitz"] = "min",
    input_second_moment: ArrayLike | None = None,
    start: ErrorCurve | None = None,
    rng: np.random.Generator | int | None = None,
    time_limit: float | None = None,
    seeds: int = 1,
    workers: int | None = None,
    baselines: bool | Iterable[str] = True,
    progress: bool | None = None,
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
        points and searches; the searches continue until then. Points for which no time is left are not made. Without a
        limit each fit does a fixed amount of work and ends where it gains little: three, five and nine factors of a
        real weight change of 384 rows take about 20 seconds.
    seeds : int, default 1
        Number of independent searches: the first takes its random numbers from `rng`, and the others from generators
        that are spawned from it, so that more of them are never worse. The curve has the best product of each point,
        and says how far the errors of the others spread.
    workers : int, optional
        Processes on this machine for several searches; by default as `joblib.parallel_config` around the call says, as
        for `structmat.studies.sweep`; without one this process does everything.
    baselines : bool or list of str, default True
        Whether to compute the baselines, or the names of some: ``"truncated-svd"`` (the best case of LoRA),
        ``"cdd-in-blocks"`` (products of five factors in blocks that hold a truncated SVD), ``"block-circulant"`` (of
        C3A), ``"sparse-fourier"`` (of FourierFT) and ``"monarch"``.
    progress : bool, optional
        Whether to show on stderr how far the work is; needs `rich`. By default only in notebooks and in sessions of
        Python on a terminal, after two seconds, and not where there is a callback.
    callback : callable, optional
        Called with a `CurveProgress` whenever the running fit reports. It may raise `StopIteration` to end the curve.
        Searches in other processes do not report.
    on_interrupt : {"raise", "return"}, default "raise"
        What `KeyboardInterrupt`, by Ctrl-C or from the callback, does. "return" ends the curve as a time limit does, as
        soon as it has one point; of searches in other processes those that are done are kept. During the comparison
        with the baselines it leaves these out.
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
    n_searches = integer(seeds, _OWNER, "seeds")
    workers = None if workers is None else integer(workers, _OWNER, "workers")
    families = _families(baselines, weighted=input_second_moment is not None)
    options: dict[str, Any] = {"block_size": block_size, **fit_options, "input_second_moment": input_second_moment}
    options["progress"] = False  # that of the curve is shown
    options["on_interrupt"] = one_of(on_interrupt, _OWNER, "on_interrupt", ("raise", "return"))
    optional_function(callback, _OWNER, "callback")
    known = _known(start, matrix.shape)
    generator = random_generator(rng, _OWNER)
    generators = independent_generators(generator, n_searches)
    searches = [_Search(matrix, numbers, {**options, "rng": each}, known) for each in generators]

    others: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
    paths: list[_Path] = []
    ended = COMPLETED
    try:
        if n_searches > 1 and _workers(workers) > 1:
            _run_apart(searches, limit, workers, paths)
        else:
            with shown_progress(callback, progress) as heard:
                _run_here(searches, limit, heard, paths)
    except KeyboardInterrupt:
        if on_interrupt == "raise" or not any(path.fits for path in paths):
            raise
        ended = "interrupted"
    ended = next((path.ended for path in paths if path.ended != COMPLETED), ended)
    # Searches that were not begun are there too, with no point.
    paths += [_Path(search, limit) for search in searches[len(paths) :]]
    layout = CDDLayout.of(next(path.fits[0] for path in paths if path.fits).operator)
    budgets = [replace(layout, n_factors=number).n_parameters for number in numbers]
    try:
        if families:
            found = baseline_errors(matrix, budgets, names=families, input_second_moment=input_second_moment)
            others = {name: (used, np.where((used == 0) & (e > 0.0), np.nan, e)) for name, (used, e) in found.items()}
    except KeyboardInterrupt:
        if on_interrupt == "raise":
            raise
        ended = "interrupted"
    weighted = input_second_moment is not None
    return _merged(paths, matrix, numbers, baselines=others, weighted=weighted, ended=ended)


def _run_here(
    searches: Sequence[_Search],
    limit: float | None,
    callback: Callable[[CurveProgress], object] | None,
    paths: list[_Path],
) -> None:
    """Make the searches one after the other; each has an equal share of the time that is left."""
    deadline = None if limit is None else time.process_time() + limit
    for k, search in enumerate(searches):
        left = None if deadline is None else max(deadline - time.process_time(), 0.0) / (len(searches) - k)
        paths.append(_Path(search, left))
        paths[-1].fit(callback and partial(_hear, callback, k, len(searches)))
        if paths[-1].ended in {"interrupted", "callback"}:
            return


def _hear(callback: Callable[[CurveProgress], object], k: int, n_searches: int, state: CurveProgress) -> object:
    """Tell the callback the state of one search of several."""
    return callback(state._replace(search=k + 1, n_searches=n_searches))


def _run_apart(searches: Sequence[_Search], limit: float | None, workers: int | None, paths: list[_Path]) -> None:
    """Make the searches in other processes, each with an equal share of the time; paths come in their order."""
    from structmat._parallel import as_ready  # noqa: PLC0415  # joblib, of an extra

    share = None if limit is None else limit / len(searches)
    found: list[tuple[int, _Path]] = []
    try:
        found.extend(as_ready(_followed, [(k, search, share) for k, search in enumerate(searches)], workers))
    finally:
        paths += [path for _, path in sorted(found, key=lambda pair: pair[0])]


def _followed(unit: tuple[int, _Search, float | None]) -> tuple[int, _Path]:
    """Make one search, in the process that is to make it."""
    k, search, limit = unit
    path = _Path(search, limit)
    path.fit(None)
    return k, path


def _workers(workers: int | None) -> int:
    """Return how many processes there are; without the argument what joblib, where it is used, is set to."""
    if workers == 1 or (workers is None and "joblib" not in sys.modules):
        return 1
    try:
        from structmat._parallel import n_workers  # noqa: PLC0415  # joblib, of an extra
    except ModuleNotFoundError as error:
        text = f'workers need {error.name}, of the extra "studies": pip install "structmat[studies]"'
        raise ImportError(text) from error
    return n_workers() if workers is None else workers


def _families(baselines: Any, *, weighted: bool) -> tuple[str, ...]:
    """Return the names of the families to compare with."""
    known = BASELINES[:1] if weighted else BASELINES
    if isinstance(baselines, bool):
        return known if baselines else ()
    if isinstance(baselines, str) or not isinstance(baselines, Iterable):
        text = f"must be True, False or a list of names of {', '.join(known)}, got {baselines!r}"
        raise ArgumentTypeError(_OWNER, "baselines", text)
    return tuple(_family(name, known) for name in dict.fromkeys(baselines))


def _family(name: Any, known: tuple[str, ...]) -> str:
    """Return the name of a family, or say which is the nearest."""
    if name not in known:
        close = [each for each in known if isinstance(name, str) and name.lower() in each]
        meant = f", did you mean {close[0]!r}?" if close else did_you_mean(str(name), known)
        text = f"must be names of {', '.join(known)}, got {name!r}{meant}"
        raise ArgumentValueError(_OWNER, "baselines", text)
    return str(name)


def _require_known(fit_options: Mapping[str, Any]) -> None:
    """Refuse options that `fit_cdd` does not have, on behalf of the function that was called."""
    for name in fit_options:
        if name not in _FIT_OPTIONS:
            text = f"unexpected keyword argument {name!r}{nearest_argument(name, _FIT_OPTIONS, 'fit_cdd')}"
            raise ArgumentTypeError(_OWNER, None, text)


@dataclass(frozen=True)
class _Search:
    """What one search is asked for: to fit the points of a curve, one after the other."""

    matrix: Array
    numbers: Sequence[int]
    """Numbers of factors, rising."""
    options: Mapping[str, Any]
    """Arguments for every fit."""
    known: tuple[FitResult, ...] = ()
    """Fits to start from where they have no more factors."""

    @property
    def cost(self) -> float:
        """How the time of the search goes with its points."""
        return sum(float(number) ** _COST_POWER for number in self.numbers)


class _Path:
    """The points that one search has made.

    Parameters
    ----------
    search : _Search
        What is asked for.
    time_limit : float or None
        Seconds of processor time for all points together.
    """

    def __init__(self, search: _Search, time_limit: float | None) -> None:
        self.search = search
        self.limited = time_limit is not None
        self.begun = time.perf_counter()
        self.deadline = time.process_time() + (math.inf if time_limit is None else time_limit)
        self.fits: list[FitResult] = []
        """The best product of at most so many factors, of each point that was made."""
        self.said: list[str] = []
        """The status of each of these points."""
        self.processor_seconds: list[float] = []
        self.clock_seconds: list[float] = []
        self.ended = COMPLETED

    def fit(self, callback: Callable[[CurveProgress], object] | None) -> None:
        """Fit the points until the last one, or until something stops that."""
        for number in self.search.numbers:
            # Diagonal, circulant, diagonal: such products hold all closed forms, and a fit without any time returns
            # the best of them. So the curve has one point at least of three factors, and all that were known before.
            enough = self.fits and self.fits[-1].operator.n_factors >= 3 and not self._known_beyond(number)
            if enough and self._time_left() <= 0.0:
                self.ended = "time limit"
                return
            self._fit_next(number, callback)
            if self.ended in {"interrupted", "callback"}:
                return

    def _fit_next(self, number: int, callback: Callable[[CurveProgress], object] | None) -> None:
        began, spent = time.perf_counter(), time.process_time()
        options = dict(self.search.options)
        if self.limited:
            # What is left goes to this fit and the later ones by their cost.
            costs = [float(count) ** _COST_POWER for count in self.search.numbers[len(self.fits) :]]
            options["time_limit"] = max(self._time_left(), 0.0) * costs[0] / sum(costs)
        before = self.fits[-1] if self.fits else None
        known = [result for result in self.search.known if result.operator.n_factors <= number]
        start = min((*self.fits[-1:], *known), key=lambda result: result.error, default=None)
        with as_own(_OWNER, of="fit_cdd"):
            result = fit_cdd(self.search.matrix, number, start=start, callback=self._reporter(callback), **options)
        is_no_better = before is not None and (result.error > before.error or _is_its_start(result, before))
        self.fits.append(_padded(before, number) if before is not None and is_no_better else result)
        self.said.append(_status(result))
        self.processor_seconds.append(time.process_time() - spent)
        self.clock_seconds.append(time.perf_counter() - began)
        if result.status != COMPLETED:
            self.ended = result.status

    def _known_beyond(self, number: int) -> bool:
        """Whether there is a known product of up to this number of factors with more than the last point has."""
        last = self.fits[-1].operator.n_factors
        return any(last < result.operator.n_factors <= number for result in self.search.known)

    def _time_left(self) -> float:
        return self.deadline - time.process_time()

    def _reporter(self, callback: Callable[[CurveProgress], object] | None) -> Callable[[FitProgress], object] | None:
        """Return what tells the callback of the curve how far the next fit is."""
        if callback is None:
            return None
        numbers = self.search.numbers
        index, costs = len(self.fits), [number**_COST_POWER for number in numbers]
        began = time.perf_counter()
        # Three factors have an algorithm of their own, which says nothing of how long others take.
        alike = [k for k in range(index) if numbers[k] > 3]
        seconds = sum(self.clock_seconds[k] for k in alike)
        whole = sum(costs[index:]) * seconds / sum(costs[k] for k in alike) if alike else math.inf

        def report(state: FitProgress) -> None:
            now = time.perf_counter()
            # A fit that has taken longer than all were expected to says that the estimate was wrong.
            estimate = whole - (now - began) if whole > now - began else math.inf
            left = min(estimate, max(self._time_left(), 0.0))
            known = None if math.isinf(left) else left
            callback(CurveProgress(numbers[index], index + 1, len(numbers), state, now - self.begun, known))

        return report


def _merged(paths: Sequence[_Path], matrix: Array, numbers: Sequence[int], **fields: Any) -> ErrorCurve:
    """Return the curve of the best products of several searches."""
    layout = CDDLayout.of(next(path.fits[0] for path in paths if path.fits).operator)
    results: list[FitResult | None] = []
    factors: list[int] = []
    status: list[str] = []
    for k, number in enumerate(numbers):
        reached = [path for path in paths if len(path.fits) > k]
        found = min((path.fits[k] for path in reached), key=lambda fit: fit.error, default=None)
        before = results[-1] if results else None
        if found is not None and before is not None and before.error < found.error:
            # The search that had the best product of fewer factors has not come so far.
            found, of_fewer = _padded(before, number), factors[-1]
        else:
            of_fewer = 0
        results.append(found)
        is_padded = found is not None and found.start == _PADDED
        factors.append((of_fewer or factors[-1]) if is_padded else (number if found else 0))
        stopped = [path.said[k] for path in reached if path.said[k] != COMPLETED]
        status.append(NOT_MADE if found is None else (stopped or [COMPLETED])[0])
    errors = [[fit.error for fit in path.fits] + [math.nan] * (len(numbers) - len(path.fits)) for path in paths]
    return ErrorCurve(
        n_factors=np.array(numbers),
        n_parameters=np.array([replace(layout, n_factors=number).n_parameters for number in numbers]),
        error=np.array([math.nan if result is None else result.error for result in results]),
        status=tuple(status),
        product_factors=np.array(factors),
        errors=np.array(errors),
        processor_seconds=_total([path.processor_seconds for path in paths], len(numbers)),
        clock_seconds=_total([path.clock_seconds for path in paths], len(numbers)),
        exact=np.array([fit is not None and (fit.error == 0.0 or fit.message in NOTHING_LEFT) for fit in results]),
        shape=(int(matrix.shape[0]), int(matrix.shape[1])),
        block_size=layout.block_size,
        results=tuple(results),
        **fields,
    )


def _total(times: Sequence[Sequence[float]], n_points: int) -> NDArray[np.float64]:
    """Return the sums over searches of the times of each point; a search has them up to where it came."""
    return np.array([sum(each[k] for each in times if len(each) > k) for k in range(n_points)], dtype=float)


def _status(result: FitResult) -> str:
    """Return what a point is whose fit has ended so."""
    if result.status != COMPLETED:
        return f"stopped: {result.status}"
    return "stopped: iteration limit" if result.message == ALL_MADE else COMPLETED


def _is_its_start(result: FitResult, start: FitResult) -> bool:
    """Whether a fit is the product that it started from, but for rounding."""
    return result.start == WARM_START and result.error >= start.error * (1.0 - 1e-9)


def _known(start: Any, shape: tuple[int, ...]) -> tuple[FitResult, ...]:
    """Return the fits of the argument `start`, after the check that it is a curve of a matrix of this shape."""
    if start is None:
        return ()
    if not isinstance(start, ErrorCurve):
        raise ArgumentTypeError(_OWNER, "start", f"must be an ErrorCurve, got {start!r}")
    if start.shape != tuple(shape):
        text = f"must be a curve of a matrix of shape {tuple(shape)}, got one of shape {start.shape}"
        raise ArgumentValueError(_OWNER, "start", text)
    return tuple(result for result in start.results if result is not None)


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
