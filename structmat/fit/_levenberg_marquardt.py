"""Damped second-order steps to a minimum of a sum of squares: the method of Levenberg and Marquardt.

A step solves ``(G + damping * diag(G)) step = -g`` with the Gram matrix G of the derivatives of the residual and their
products g with the residual. Little damping makes it a step of Gauss and Newton, which is of second order where the
residual is small; much damping makes it a short step down the gradient. Directions along which the residual does not
change, as where a number moves from one factor of a product to another, need no treatment of their own.

What ends the steps, limits of time and interrupts included, is up to `after_iteration`.
"""

from __future__ import annotations

import contextlib
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

_MOST_DAMPING = 1e8
"""A descent ends where steps with so much damping do not lower the error."""

_MOST_EASED = 0.1
"""After a step that lowers the error as the residual to first order says the damping is multiplied by this.

Between this and a doubling Nielsen's rule goes by the share of that gain, and steps that fail raise the damping by
factors of two, four, eight and so on. Random unitary matrices of 8 to 32 rows as products of phase masks need 0.6 times
the factorisations that a fixed quarter, and fivefold damping after each failure, need.
"""

_FLOOR = 1e-12
"""Derivatives that vanish are damped as if they had this share of the largest squared norm."""


class Linearisation(Protocol):
    """A sum of squares at one point, and its residual to first order there."""

    @property
    def error(self) -> float:
        """The root of the sum of squares."""

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

    References
    ----------
    .. [1] K. Madsen, H. B. Nielsen, O. Tingleff, Methods for non-linear least squares problems, 2nd edition, Technical
       University of Denmark, 2004, section 3.2.
    """
    from scipy.linalg import cho_factor, cho_solve  # noqa: PLC0415  # It is slow to import.

    point, here = start, linearised(start)
    damping, growth = _FIRST_DAMPING, 2.0
    if not np.isfinite(here.error):
        return True
    for _ in range(most):
        gram, gradient = here.normal_equations()
        diagonal = gram.diagonal().real
        scales = diagonal + _FLOOR * diagonal.max()
        while damping <= _MOST_DAMPING:
            damped = gram.copy()
            damped[np.diag_indices_from(damped)] += damping * scales
            with contextlib.suppress(np.linalg.LinAlgError):  # By rounding it is not positive definite.
                factor = cho_factor(damped, lower=True, overwrite_a=True, check_finite=False)
                step = -cho_solve(factor, gradient, check_finite=False)
                candidate = point + step
                there = linearised(candidate)
                if there.error < here.error:
                    break
            damping, growth = damping * growth, 2.0 * growth
        else:
            return True
        expected = float(np.vdot(step, damping * scales * step - gradient).real)
        gain = (here.error**2 - there.error**2) / expected if expected > 0.0 else 1.0
        damping = max(damping * max(_MOST_EASED, 1.0 - (2.0 * gain - 1.0) ** 3), _LEAST_DAMPING)
        growth = 2.0
        point, here = candidate, there
        try:
            after_iteration(point, here.error)
        except StopIteration:
            return False
    return False
