"""Damped second-order steps to a minimum of a sum of squares: the method of Levenberg and Marquardt.

A step solves ``(G + damping * diag(G)) step = -g`` with the Gram matrix G of the derivatives of the residual and their
products g with the residual. Little damping makes it a step of Gauss and Newton, which is of second order where the
residual is small; much damping makes it a short step down the gradient. Directions along which the residual does not
change, as where a number moves from one factor of a product to another, need no treatment of their own.

What ends the steps, limits of time and interrupts included, is up to `after_iteration`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Linearisation", "levenberg_marquardt"]

_FIRST_DAMPING = 1e-2
"""The damping of the first step."""

_LEAST_DAMPING = 1e-15
"""The damping is never less: the Gram matrix is singular, and rounding is all that its factorisation then rests on."""

_EASED = 0.25
"""The damping is multiplied by this after a step that lowers the error."""

_RAISED = 5.0
"""The damping is multiplied by this after a step that does not."""

_TRIALS = 12
"""A descent ends where so many steps, each with more damping than the one before, do not lower the error."""

_FLOOR = 1e-12
"""Derivatives that vanish are damped as if they had this share of the largest squared norm."""


class Linearisation(Protocol):
    """A sum of squares at one point, and its residual to first order there."""

    @property
    def error(self) -> float:
        """The root of the sum of squares, or a constant times it."""

    def normal_equations(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the Gram matrix (N, N) of the derivatives and their products (N,) with the residual."""


def levenberg_marquardt(
    linearised: Callable[[NDArray[Any]], Linearisation],
    start: NDArray[Any],
    most: int,
    after_iteration: Callable[[NDArray[Any], float], None],
) -> bool:
    """Go down from a point in up to `most` steps; return whether the last one found no lower error.

    Parameters
    ----------
    linearised : callable
        Returns the `Linearisation` at parameters (N,), real ones or complex ones that the residual is analytic in.
    start : (N,) ndarray
    most : int
    after_iteration : callable
        Told the parameters and the error after every step. It ends the descent by `StopIteration`.
    """
    from scipy.linalg import cho_factor, cho_solve  # noqa: PLC0415  # It is slow to import.

    point, here, damping = start, linearised(start), _FIRST_DAMPING
    if not np.isfinite(here.error):
        return True
    for _ in range(most):
        gram, gradient = here.normal_equations()
        diagonal = gram.diagonal().real
        scales = diagonal + _FLOOR * diagonal.max()
        for _ in range(_TRIALS):
            damped = gram.copy()
            damped[np.diag_indices_from(damped)] += damping * scales
            try:
                factor = cho_factor(damped, lower=True, overwrite_a=True, check_finite=False)
            except np.linalg.LinAlgError:  # By rounding it is not positive definite.
                damping *= _RAISED
                continue
            candidate = point - cho_solve(factor, gradient, check_finite=False)
            there = linearised(candidate)
            if there.error < here.error:
                break
            damping *= _RAISED
        else:
            return True
        point, here, damping = candidate, there, max(damping * _EASED, _LEAST_DAMPING)
        try:
            after_iteration(point, here.error)
        except StopIteration:
            return False
    return False
