"""What a fit returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from structmat.operators import CDDProduct

__all__ = ["FitResult"]

_NAMED = 10
"""Up to so many factors are named one by one."""


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
    status : str
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
    >>> result.error < 1e-12, result.converged, result.status
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
    status: str = "completed"
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
            "status",
            "message",
        )
        fields = {name: getattr(self, name) for name in names}
        return {"shape": shape, "n_factors": len(self.operator.factors), **fields, "history": self.history.tolist()}

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the error after each iteration; needs the extra ``files``.

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
        from structmat._drawing import draw_errors_after_iterations  # noqa: PLC0415  # It imports matplotlib.

        return draw_errors_after_iterations(self.history, self.start, ax)

    def __repr__(self) -> str:
        rows, cols = self.operator.shape
        end = "converged" if self.converged else "not converged"
        end = end if self.status == "completed" else f"stopped: {self.status}"
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
    """Return the kinds of the factors; of many factors only the first and the last few."""
    names = [type(factor).__name__ for factor in operator.factors]
    if len(names) > _NAMED:
        names = [*names[: _NAMED // 2], f"... ({len(names)} factors)", *names[-(_NAMED // 2) :]]
    return " @ ".join(names)
