"""Results of solving, and the measures and settings of iterations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from structmat._array_tools import Array, Namespace, device_of, euclidean_norm, precision_of
from structmat.operators import LinearOperator

__all__ = [
    "ConvergenceError",
    "IterationSettings",
    "Measure",
    "SolveResult",
    "by_gradient",
    "by_residual",
    "norm_of",
    "probe",
    "relative_residual",
    "size_of",
]


class SolveResult(NamedTuple):
    """The solution of a linear system or of a least-squares problem.

    Examples
    --------
    >>> import structmat as sm
    >>> found = sm.solve(sm.Circulant([2.0, -1.0, 0.0]), [1.0, 0.0, 3.0])
    >>> found.x.round(6), bool(found.residual < 1e-15), found.iterations
    (array([1.428571, 0.714286, 1.857143]), True, 0)
    """

    x: Array
    """The solutions, shape ``(..., cols)``, or ``(..., cols, k)`` for right-hand sides in columns."""
    residual: Array
    """``norm(b - A x) / norm(b)``, computed from `x`; one number for each right-hand side."""
    iterations: int | None
    """How many iterations it took, the most of any right-hand side; 0 by a closed form, None where JAX iterates."""


class ConvergenceError(np.linalg.LinAlgError):
    """An iteration has not reached its tolerance.

    Parameters
    ----------
    text : str
        What was reached, and what to do.
    result : SolveResult
        The best solutions so far, which may be good enough.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> A = sm.Circulant(np.array([2.0, -1.0, 0.0, 0.0])) + sm.Diagonal(np.arange(4.0))
    >>> try:
    ...     sm.solve(A, np.ones(4), max_iter=1, preconditioner=None)
    ... except sm.ConvergenceError as error:
    ...     print(error.result.residual > 1e-10)
    True
    """

    __module__ = "structmat"  # where users find it, in tracebacks too

    def __init__(self, text: str, result: Any) -> None:
        super().__init__(text, result)
        self.text, self.result = text, result

    def __str__(self) -> str:
        return self.text


_POWERS = 3
"""Steps of the power method for a norm."""

_ROUNDING = 16.0
"""Residuals of this many units in the last place of what they are a difference of are rounding."""


class IterationSettings(NamedTuple):
    """How to iterate."""

    owner: str
    """The public function, for messages."""
    assume: str
    """What is known of the matrix."""
    preconditioner: Any
    """"nearest", None, or an operator."""
    rtol: float
    max_iter: int


Measure = Callable[[Array, Array], "tuple[Array, Array]"]
"""From solution and residual to how good it is and whether that is enough, for each right-hand side."""


def relative_residual(rest: Array, b: Array, xp: Namespace) -> Array:
    """Return ``norm(rest) / norm(b)``, zero for zeros."""
    return euclidean_norm(rest, xp) / size_of(b, xp)[..., 0]


def by_residual(b: Array, settings: IterationSettings, xp: Namespace) -> Measure:
    """Return the test that the residual is small."""

    def measure(x: Array, rest: Array) -> tuple[Array, Array]:  # noqa: ARG001
        residual = relative_residual(rest, b, xp)
        return residual, residual <= settings.rtol

    return measure


def by_gradient(operator: LinearOperator, b: Array, norm: Array, settings: IterationSettings, xp: Namespace) -> Measure:
    """Return the test of Paige and Saunders: the residual is small, or orthogonal to the range up to the tolerance."""

    def measure(x: Array, rest: Array) -> tuple[Array, Array]:
        left, whole = euclidean_norm(rest, xp), euclidean_norm(b, xp)
        gradient = euclidean_norm(operator._rmatvec(rest, xp), xp)
        rounding = _ROUNDING * float(xp.finfo(left.dtype).eps) * (whole + norm * euclidean_norm(x, xp))
        small = left <= settings.rtol * whole
        return gradient, small | (gradient <= norm * (settings.rtol * left + rounding))

    return measure


def norm_of(operator: LinearOperator, b: Array, xp: Namespace) -> Array:
    """Return a lower bound of the largest singular value, near it, by some steps of the power method."""
    v = probe(operator, b, xp)
    for _ in range(_POWERS):
        v = operator._rmatvec(operator._matvec(v / size_of(v, xp), xp), xp)
    return euclidean_norm(operator._matvec(v / size_of(v, xp), xp), xp)


def probe(operator: LinearOperator, b: Array, xp: Namespace) -> Array:
    """Return a vector that a matrix can be multiplied by, with entries that have no order."""
    k = xp.astype(xp.arange(operator.shape[1], device=device_of(b)), precision_of(b.dtype, xp))
    return xp.astype(xp.cos(k * k) + 0.5, b.dtype)


def size_of(v: Array, xp: Namespace) -> Array:
    """Return norms as a column, one for zeros, by which vectors may be divided."""
    size = euclidean_norm(v, xp)[..., None]
    return xp.where(size > 0.0, size, xp.ones_like(size))
