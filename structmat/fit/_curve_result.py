"""`ErrorCurve`: what `error_curve` returns, with what each point is, as a table, as text and as a figure."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from structmat._arguments import one_of
from structmat._files import atomic_write, counted, data_frame, latex_table, versions
from structmat.fit._curve_bounds import factors_by_construction, factors_by_counting
from structmat.fit._result import FitResult
from structmat.fit._search import GAINS_LITTLE
from structmat.operators import CDDLayout

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

__all__ = ["COMPLETED", "NOT_MADE", "ErrorCurve"]

COMPLETED = "completed"
"""The status of a point all of whose searches came to their end."""

NOT_MADE = "not made"
"""The status of a point that no search has reached."""

_SEARCHED = ("stopped: time limit", "stopped: iteration limit")
"""The status of points whose search has had all that it was given."""

_STUCK = 1e-3
"""A point is stuck if it lowers the error of the point before by no more than this share of it."""


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
        Relative error of the best product of at most so many factors; never rises. NaN where the point was not made.
    status : tuple of str
        What each point is: ``"completed"``; ``"stopped: "`` and by what, ``"time limit"``, ``"iteration limit"``
        (`max_iter` of `fit_cdd` before convergence), ``"interrupted"`` (Ctrl-C) or ``"callback"``; or ``"not made"``.
        Of several searches, what stopped the first that was stopped.
    product_factors : ndarray of int
        Number of factors of the fit whose product it is. Where it is less than `n_factors` the fits with more were no
        better, and the product has identity factors appended. 0 where the point was not made.
    errors : ndarray, shape (n_searches, n_points)
        Relative error of each independent search at each point; NaN where it has not reached the point.
    processor_seconds, clock_seconds : ndarray
        Time of the fits of all searches, of the processor and by the clock.
    baselines : mapping of str to tuple
        For each family ``(n_parameters, error)``: for every point of the curve the number of parameters and the error
        of the best member of the family with at most as many parameters as the product; NaN where it has none.
    exact : ndarray of bool
        Whether the error of each point is one of rounding, which nothing can lower.
    shape : tuple of int
        Rows and columns of the matrix.
    block_size : int
        Side of the circulant blocks.
    weighted : bool
        Whether the errors are weighted ones.
    ended : str
        ``"completed"``, or what ended the curve early: ``"time limit"``, ``"callback"`` or ``"interrupted"``.
    results : tuple of FitResult or None
        The best fit of each point; None where the point was not made.

    See Also
    --------
    error_curve : Returns one.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.fit import error_curve
    >>> curve = error_curve(np.outer([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]), n_factors=[3], rng=0)
    >>> bool(curve.error[0] < 1e-12), curve.status
    (True, ('completed',))
    >>> sorted(curve.baselines)
    ['block-circulant', 'cdd-in-blocks', 'monarch', 'sparse-fourier', 'truncated-svd']
    """

    n_factors: NDArray[np.int64]
    n_parameters: NDArray[np.int64]
    error: NDArray[np.float64]
    status: tuple[str, ...]
    product_factors: NDArray[np.int64]
    errors: NDArray[np.float64]
    processor_seconds: NDArray[np.float64]
    clock_seconds: NDArray[np.float64]
    baselines: Mapping[str, tuple[NDArray[np.int64], NDArray[np.float64]]]
    exact: NDArray[np.bool_]
    shape: tuple[int, int]
    block_size: int
    weighted: bool = False
    ended: str = COMPLETED
    results: tuple[FitResult | None, ...] = field(default=())

    @property
    def n_searches(self) -> NDArray[np.int64]:
        """How many independent searches have reached each point."""
        return np.isfinite(self.errors).sum(axis=0)

    @property
    def median_error(self) -> NDArray[np.float64]:
        """Median of the errors of the searches at each point; NaN where it was not made."""
        return self._over_searches(np.median)

    @property
    def largest_error(self) -> NDArray[np.float64]:
        """Largest error of the searches at each point; NaN where it was not made."""
        return self._over_searches(np.max)

    def _over_searches(self, of: Any) -> NDArray[np.float64]:
        made = [column[np.isfinite(column)] for column in self.errors.T]
        return np.array([of(column) if column.size else np.nan for column in made])

    @property
    def counting_bound(self) -> int | None:
        """Fewest factors with which products can have as many degrees of freedom as the matrix has entries.

        With fewer factors almost no matrix is such a product. It is ``n + 1`` for a square matrix and a single block,
        for real and complex matrices alike; None if no number of factors is enough.
        """
        return factors_by_counting(self._layout())

    @property
    def exact_factors(self) -> int | None:
        """Complex factors with which `factorize_cdd` makes an exact product of any square matrix, ``2 n + 1``.

        None for rectangles and several blocks.
        """
        return factors_by_construction(self._layout())

    def _layout(self) -> CDDLayout:
        return CDDLayout(self.shape, int(self.n_factors[-1]), self.block_size)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of single points, in words: which are stuck, and what would be better."""
        texts = []
        stuck = self._stuck()
        for fewer in dict.fromkeys(self.product_factors[self._is_padded()].tolist()):
            same = self.n_factors[self._is_padded() & (self.product_factors == fewer)]
            texts.append(f"{_listed(same)}: no better than {counted(fewer, 'factor')}, whose product it is")
        if stuck.any():
            texts.append(f"{_listed(self.n_factors[stuck])}: stuck, less than {_STUCK:.1%} below the point before")
        above = self._above_svd()
        if above.any():
            texts.append(f"{_listed(self.n_factors[above])}: above the truncated SVD of no more parameters")
        searched = np.array([each in {COMPLETED, *_SEARCHED} for each in self.status])
        hopeless = stuck | above | self._is_padded()
        if (hopeless & searched & ~self.exact).any() and self.exact_factors is not None:
            texts.append(f"a product of {self.exact_factors} complex factors is exact: factorize_cdd")
        slow = [fit.operator.n_factors for fit in self.results if fit is not None and fit.message == GAINS_LITTLE]
        if slow:
            texts.append(f"{_listed(sorted(set(slow)))}: {GAINS_LITTLE}")
        return tuple(texts)

    def _is_padded(self) -> NDArray[np.bool_]:
        """Whether the product of each point is one of fewer factors."""
        return (self.product_factors > 0) & (self.product_factors < self.n_factors)

    def _stuck(self) -> NDArray[np.bool_]:
        """Whether each point has a product of its own, but gains next to nothing over the one before."""
        gains = np.append(np.inf, 1.0 - self.error[1:] / np.where(self.error[:-1] > 0.0, self.error[:-1], 1.0))
        return (gains < _STUCK) & ~self._is_padded() & ~self.exact

    def _above_svd(self) -> NDArray[np.bool_]:
        if "truncated-svd" not in self.baselines:
            return np.zeros(len(self.error), dtype=bool)
        return (self.error > self.baselines["truncated-svd"][1]) & ~self.exact

    # Tables

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the fits, ready for JSON.

        Returns
        -------
        dict
            Strings, numbers and lists only, and None for what there is not, such as the error of a point that was not
            made; with the versions of the software.
        """
        return {
            "rows": self.shape[0],
            "cols": self.shape[1],
            "block_size": self.block_size,
            "weighted": self.weighted,
            "ended": self.ended,
            **{name: _plain(column) for name, column in self._points().items()},
            "errors": [_plain(search) for search in self.errors],
            "counting_bound": self.counting_bound,
            "exact_factors": self.exact_factors,
            "notes": list(self.notes),
            "baselines": {
                name: {"n_parameters": _plain(used), "error": _plain(error)}
                for name, (used, error) in self.baselines.items()
            },
            "versions": versions(),
        }

    def to_pandas(self) -> Any:
        """Return a table with one row for each point; needs pandas.

        Returns
        -------
        pandas.DataFrame
            The columns ``n_factors``, ``n_parameters``, ``share`` (of the numbers of the dense matrix), ``error``,
            ``status``, ``product_factors``, ``n_searches``, ``median_error``, ``largest_error``, ``processor_seconds``
            and ``clock_seconds``, and two for each baseline, as in ``monarch_n_parameters`` and ``monarch_error``. NaN
            stands for the error of a point that was not made, and of a family without a member of that size.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        columns = self._points()
        for name, (used, error) in self.baselines.items():
            columns |= {f"{name}_n_parameters": used, f"{name}_error": error}
        return data_frame("ErrorCurve.to_pandas", list(columns), zip(*columns.values(), strict=True))

    def to_csv(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the table of `to_pandas` to a CSV file; needs pandas.

        Parameters
        ----------
        path : path-like
            The file; it appears complete or not at all.
        force : bool, default False
            Whether to replace an existing file.

        Raises
        ------
        FileExistsError
            If the file exists and not `force`.
        OSError
            If the file cannot be written.
        """
        with atomic_write(path, force=force) as file:
            self.to_pandas().to_csv(file, mode="wb", index=False)

    def to_latex(self, *, command: str | None = None) -> str:
        """Return the table for a paper, with the rules of the package booktabs.

        Parameters
        ----------
        command : str, optional
            What made the curve, for the comment at the head; versions stand there too.

        Returns
        -------
        str
            A ``tabular``. Points that were not made, and families without a member of that size, have a dash.
        """
        titles, lines = self._cells()
        return latex_table(titles, lines, [*([command] if command else []), *self.notes])

    def plot(
        self,
        ax: Axes | None = None,
        *,
        x: Literal["share", "parameters", "factors"] = "share",
        width: Literal["column", "page"] | None = None,
    ) -> Axes:
        """Draw the error against the size of the product, with the baselines; needs the extra ``files``.

        The numbers of factors of the CDD products stand above the axes. Points that were stopped are hollow, with a
        word, and points that were not made are missing. A band goes from the best of several searches to the
        worst, and a thin line through their median. Vertical lines are at `counting_bound` and `exact_factors`, where
        the axis reaches them or comes near.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default axes of a new figure, ``ax.figure``.
        x : {"share", "parameters", "factors"}, default "share"
            The horizontal axis: parameters as a share of those of the dense matrix, parameters, or factors; a baseline
            stands at the number of factors whose parameters it may have.
        width : {"column", "page"}, optional
            Make the new figure as wide as a column (3.4 inches) or a page (7 inches) of a paper, with letters of 8
            points. By default a figure for the screen.

        Returns
        -------
        matplotlib.axes.Axes
            The axes, drawn on.

        Raises
        ------
        ValueError
            If `x` or `width` is none of these.
        """
        from structmat._drawing import AXES, WIDTHS, CurveLine, draw_error_curves  # noqa: PLC0415  # matplotlib

        one_of(x, "ErrorCurve.plot", "x", tuple(AXES))
        if width is not None:
            one_of(width, "ErrorCurve.plot", "width", tuple(WIDTHS))
        rows, cols = self.shape
        unit = {"share": 100.0 / (rows * cols), "parameters": 1.0, "factors": 0.0}[x]
        line = CurveLine(
            where=self.n_parameters * unit if unit else self.n_factors * 1.0,
            n_factors=self.n_factors,
            error=self.error,
            median=self.median_error,
            largest=self.largest_error,
            n_searches=len(self.errors),
            status=self.status,
        )
        bounds = {"counting": self.counting_bound, "construction": self.exact_factors}
        known = {
            name: (number, CDDLayout(self.shape, number, self.block_size).n_parameters * unit or float(number))
            for name, number in bounds.items()
            if number is not None
        }
        rivals = {}
        for name, (used, error) in self.baselines.items():
            # In parameters a member stands once, at its own size; in factors at each point that may have it.
            once = np.append(True, np.diff(used) != 0) if unit else np.full(len(used), fill_value=True)
            rivals[name] = (used * unit if unit else line.where)[once], np.where(used > 0, error, np.nan)[once]
        ax = draw_error_curves([line], rivals, x=x, width=width, ax=ax, bounds=known)
        if width is None:
            ax.set_title(f"CDD products of a {rows:,} × {cols:,} matrix, blocks of {self.block_size}")
        if self.weighted:
            ax.set_ylabel("weighted relative error")
        return ax

    def _points(self) -> dict[str, Any]:
        return {
            "n_factors": self.n_factors,
            "n_parameters": self.n_parameters,
            "share": self.n_parameters / (self.shape[0] * self.shape[1]),
            "error": self.error,
            "status": self.status,
            "product_factors": self.product_factors,
            "n_searches": self.n_searches,
            "median_error": self.median_error,
            "largest_error": self.largest_error,
            "processor_seconds": self.processor_seconds,
            "clock_seconds": self.clock_seconds,
        }

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        """Return the titles and the cells of the table that people read."""
        several = len(self.errors) > 1
        titles = ["factors", "parameters", "of dense", "weighted error" if self.weighted else "error"]
        titles += ["median", "largest", "searches"] if several else []
        titles += ["status", "processor s", "clock s", *self.baselines]
        lines = []
        for i, status in enumerate(self.status):
            made = status != NOT_MADE
            spread = [_shown(self.median_error[i]), _shown(self.largest_error[i]), f"{self.n_searches[i]}"]
            times = [f"{each[i]:.2f}" if made else "-" for each in (self.processor_seconds, self.clock_seconds)]
            lines.append(
                [
                    f"{self.n_factors[i]}",
                    f"{self.n_parameters[i]:,}",
                    f"{self.n_parameters[i] / (self.shape[0] * self.shape[1]):.1%}",
                    _shown(self.error[i]),
                    *(spread if several else []),
                    status,
                    *times,
                    *(_shown(error[i]) for _, error in self.baselines.values()),
                ]
            )
        return titles, lines

    def __repr__(self) -> str:
        rows, cols = self.shape
        head = f"ErrorCurve of a {rows} x {cols} matrix, blocks of {self.block_size}"
        if self.ended != COMPLETED:
            head += f", ended early: {self.ended}"
        titles, lines = self._cells()
        table = [titles, *lines]
        widths = [max(8, *(len(line[k]) for line in table)) for k in range(len(titles))]
        text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in table]
        return "\n".join([head, *text, *self.notes])


def _listed(numbers: Sequence[int] | NDArray[np.int64]) -> str:
    """Return numbers of factors as the subject of a note."""
    names = ", ".join(f"{number}" for number in numbers)
    return f"{names} factor" if names == "1" else f"{names} factors"


def _shown(error: float) -> str:
    """Return an error as a text, a dash where there is none."""
    return "-" if np.isnan(error) else f"{error:.4g}"


def _plain(column: Any) -> list[Any]:
    """Return a column as a list for JSON, which has no NaN."""
    values = column.tolist() if isinstance(column, np.ndarray) else list(column)
    return [None if isinstance(value, float) and np.isnan(value) else value for value in values]
