"""What a fit by phase masks returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from structmat._arrays.typing import Array
    from structmat.operators import LinearOperator

__all__ = ["PhaseMaskFit"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PhaseMaskFit:
    """Phase masks and how well their product fits.

    Attributes
    ----------
    operator : LinearOperator
        The product of masks and mixing layers over all ports: a `CDDProduct` where no other mixing is given.
    phases : array, shape (n_masks, n)
        The phases of the masks in radians, in the order of the product, in [0, 2 pi).
    error : float
        Relative Frobenius error of the product with these phases, up to a global phase: the least ``norm(exp(i a) P -
        T) / norm(T)`` over the angles a, where P are the rows and columns that count.
    fidelity : float
        ``abs(trace(T^H P))**2 / (norm(T)**2 norm(P)**2)``, one where P is T up to a complex number.
    n_iter : int
        Iterations from the best starting point.
    converged : bool
        Whether the error is at most the one that was asked for, or no step lowered it any more.
    history : ndarray
        Relative errors of the best run, at its starting point and after every iteration.
    start : str
        The starting point of the best run.
    status : str
        Why the fit ended: ``"completed"`` if all planned work was done, ``"time limit"``, ``"callback"`` or
        ``"interrupted"``.
    message : str
        The same in more words.
    seconds : float
        Duration of the fit by the clock.

    See Also
    --------
    fit_phase_masks : Returns one.
    structmat.io.save : Write one to a file.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> fit = sm.fit_phase_masks(np.array([[1.0, 1.0], [1.0, -1.0]]) / np.sqrt(2), rng=0)
    >>> fit.phases.shape, fit.error < 1e-10, fit.status
    ((4, 2), True, 'completed')
    """

    operator: LinearOperator
    phases: Array
    error: float
    fidelity: float
    n_iter: int
    converged: bool
    history: NDArray[np.float64]
    start: str
    status: str = "completed"
    message: str = ""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the operator and the time, ready for JSON: the same for the same seed.

        Returns
        -------
        dict
            Strings, numbers and lists only.
        """
        names = ("error", "fidelity", "n_iter", "converged", "start", "status", "message")
        fields = {name: getattr(self, name) for name in names}
        shape = {"n_masks": int(self.phases.shape[0]), "n_ports": int(self.phases.shape[1])}
        phases = [[float(phase) for phase in mask] for mask in self.phases]
        return {**shape, **fields, "phases": phases, "history": self.history.tolist()}

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
        """
        from structmat._drawing import draw_errors_after_iterations  # noqa: PLC0415  # It imports matplotlib.

        return draw_errors_after_iterations(self.history, self.start, ax)

    def plot_phases(self, ax: Axes | None = None) -> Axes:
        """Draw the phases as an image, a row for each mask; needs the extra ``files``.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default axes of a new figure, ``ax.figure``.

        Returns
        -------
        matplotlib.axes.Axes
            The axes, drawn on.
        """
        from structmat._arrays.conversion import to_numpy  # noqa: PLC0415  # beside the drawing, which needs it
        from structmat._drawing import draw_phases  # noqa: PLC0415  # It imports matplotlib.

        return draw_phases(to_numpy(self.phases), ax)

    def __repr__(self) -> str:
        n_masks, n_ports = self.phases.shape
        end = "converged" if self.converged else "not converged"
        end = end if self.status == "completed" else f"stopped: {self.status}"
        lines = {
            "masks": f"{n_masks} of {n_ports} phases",
            "operator": type(self.operator).__name__,
            "relative error": f"{self.error:.6g}",
            "infidelity": f"{1.0 - self.fidelity:.3g}",
            "iterations": f"{self.n_iter} ({end})",
            "start": self.start,
            "message": self.message,
            "seconds": f"{self.seconds:.3g}",
        }
        return "\n".join(["PhaseMaskFit", *(f"  {name:<15} {text}" for name, text in lines.items())])
