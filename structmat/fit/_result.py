"""What a fit reports on the way, what ends it early, and what it returns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from structmat.operators import CDDProduct

__all__ = ["Control", "FitProgress", "FitResult", "Stopped"]

# Factors that are named one by one.
_NAMED = 10


class FitProgress(NamedTuple):
    """State of a fit after one iteration, as handed to the `callback` of `fit_cdd`.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> seen = []
    >>> _ = sm.fit_cdd(np.arange(9.0).reshape(3, 3), rng=0, restarts=1, callback=seen.append)
    >>> seen[0].start, seen[0].phase, seen[0].iteration
    ('circulant', 'screening', 1)
    """

    start: str
    """Name of the starting point of this run."""
    iteration: int
    """Iterations made from this starting point, the first is 1."""
    max_iter: int
    """The most iterations that there will be from it at the end of this phase."""
    error: float
    """Relative Frobenius error reached from it."""
    phase: str
    """What goes on: ``"screening"`` gives every start a few steps in closed form, ``"alternation"`` goes on with the
    best, ``"exploration"`` takes large steps from several starts at once, ``"polish"`` small ones to a minimum."""
    n_factors: int
    """Factors of the product that is fitted now: three where their fit is a start of the search for more."""
    best: float
    """Least error of all reports so far; a fit with weights counts anew after its start, the fit without."""
    remaining: float | None
    """Seconds left of the time limit, of the processor's time that it counts; None without one."""


class Stopped(Exception):  # noqa: N818  # no error: the best so far is returned
    """The time limit, the callback or the user ends a fit."""


@dataclass
class Control:
    """Limits of a fit and its callback."""

    max_iter: int
    """Largest number of iterations from one starting point."""
    tol: float
    """A run has converged when an iteration lowers the error by no more than this times itself."""
    endless: bool = False
    """Whether a search goes on until it is stopped, and not for a fixed amount of work."""
    deadline: float | None = None
    """Value of ``time.process_time()`` after which no iteration begins.

    It does not go on while other processes have the processor, so that a fit makes the same steps on a busy machine.
    """
    callback: Callable[[FitProgress], object] | None = None
    best: float = math.inf
    """The least error reported."""
    reason: str = "completed"
    """Why the fit ended."""

    def check(self) -> None:
        """Raise `Stopped` if the time is over, or the fit was ended in another part of it."""
        if self.reason != "completed":
            raise Stopped
        if self.deadline is not None and time.process_time() >= self.deadline:
            self.stop("time limit")

    def stop(self, reason: str) -> None:
        """Raise `Stopped`."""
        self.reason = reason
        raise Stopped

    def report(self, start: str, iteration: int, error: float, *, phase: str, n_factors: int, most: int) -> None:
        """Tell the callback, and raise `Stopped` if that or the time ends the fit; it hears nothing after its end."""
        if self.reason != "completed":
            raise Stopped
        self.best = min(self.best, error)
        if self.callback is not None:
            left = None if self.deadline is None else max(self.deadline - time.process_time(), 0.0)
            try:
                self.callback(FitProgress(start, iteration, most, error, phase, n_factors, self.best, left))
            except StopIteration:
                self.stop("callback")
        self.check()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FitResult:
    """A fitted product and how good it is.

    Attributes
    ----------
    operator : CDDProduct
        The fitted operator.
    error : float
        Relative Frobenius error ``norm(W - operator @ eye) / norm(W)`` of this operator, computed by its products in
        its own precision; 0.0 for a zero matrix.
    block_size : int
        Side of the circulant blocks.
    n_parameters : int
        Number of entries of all vectors of the operator.
    n_iter : int
        Iterations from the best starting point.
    converged : bool
        Whether the last iteration lowered the error by no more than the tolerance, or nothing was left to lower: the
        product is `W` to rounding, or a minimum in closed form.
    history : ndarray
        Relative errors of the best run, at its starting point and after every iteration: the lowest so far, so that
        they never rise.
    start : str
        The starting point of the best run.
    stopped : str
        Why the fit ended: ``"completed"`` if all planned work was done, ``"time limit"``, ``"callback"`` or
        ``"interrupted"``.
    message : str
        The same in more words; of `factorize_cdd` also how the product was found.
    seconds : float
        Duration of the fit by the clock.

    See Also
    --------
    fit_cdd, factorize_cdd : Return one.
    structmat.io.save : Write one to a file.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> W = np.outer([1.0, 2.0, 3.0], [1.0, 0.5, 2.0])
    >>> result = sm.fit_cdd(W, rng=0)
    >>> result.operator
    CDDProduct(n_factors=3, n_parameters=9, shape=(3, 3), dtype=float64, device=cpu)
    >>> result.error < 1e-12, result.converged, result.stopped
    (True, True, 'completed')
    """

    operator: CDDProduct
    error: float
    block_size: int
    n_parameters: int
    n_iter: int
    converged: bool
    history: NDArray[np.float64]
    start: str
    stopped: str = "completed"
    message: str = ""
    seconds: float = 0.0

    @property
    def explained(self) -> float:
        """Share of the squared norm of the matrix that the operator explains, ``1 - error**2``."""
        return 1.0 - self.error * self.error

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the operator's vectors and the time, ready for JSON: the same for the same seed.

        Returns
        -------
        dict
            Strings, numbers and lists only.
        """
        shape = [int(side) for side in self.operator.shape]
        names = (
            "block_size",
            "error",
            "explained",
            "n_parameters",
            "n_iter",
            "converged",
            "start",
            "stopped",
            "message",
        )
        fields = {name: getattr(self, name) for name in names}
        return {"shape": shape, "n_factors": len(self.operator.factors), **fields, "history": self.history.tolist()}

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the error after each iteration; needs the extra ``plot``.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default axes of a new figure, ``ax.figure``.

        Returns
        -------
        matplotlib.axes.Axes
            The axes, drawn on.

        See Also
        --------
        structmat.plot.fit_figure : Matrix, fit and residual.
        """
        from structmat.plot import draw_history  # noqa: PLC0415  # matplotlib is slow to import

        return draw_history(self, ax)

    def __repr__(self) -> str:
        rows, cols = self.operator.shape
        end = "converged" if self.converged else "not converged"
        end = end if self.stopped == "completed" else f"stopped: {self.stopped}"
        grid = f"{-(-rows // self.block_size)} x {-(-cols // self.block_size)} blocks"
        lines = {
            "matrix": f"{rows} x {cols}",
            "factors": _named(self.operator),
            "block size": f"{self.block_size} ({grid})",
            "relative error": f"{self.error:.6g} ({self.explained:.2%} of the energy explained)",
            "parameters": f"{self.n_parameters:,} ({self.n_parameters / (rows * cols):.3%} of dense)",
            "iterations": f"{self.n_iter} ({end})",
            "start": self.start,
            "seconds": f"{self.seconds:.3g}",
        }
        return "\n".join(["FitResult", *(f"  {name:<15} {text}" for name, text in lines.items())])


def _named(operator: CDDProduct) -> str:
    """The kinds of the factors, the first and last few of many."""
    names = [type(factor).__name__ for factor in operator.factors]
    if len(names) > _NAMED:
        names = [*names[: _NAMED // 2], f"... ({len(names)} factors)", *names[-(_NAMED // 2) :]]
    return " @ ".join(names)
