"""Conjugate gradients for batches of vectors of any array library: for positive definite systems and least squares.

Vectors lie along the last axis, one boolean is read in each step. A right-hand side that has converged stays as it is.
`report` hears the number of each iteration.
"""

from __future__ import annotations

from collections.abc import Callable

from structmat._array_tools import Array, Namespace, device_of, is_complex
from structmat.operators import Identity, LinearOperator

__all__ = ["conjugate_gradients", "least_squares"]


def conjugate_gradients(
    operator: LinearOperator,
    b: Array,
    preconditioner: LinearOperator | None,
    rtol: float,
    limit: int,
    xp: Namespace,
    report: Callable[[int], object],
) -> tuple[Array, int]:
    """Return x near ``A x = b`` for a Hermitian positive definite A, and the number of iterations [1]_.

    References
    ----------
    .. [1] Golub, G. H., Van Loan, C. F., Matrix Computations, 4th edition, section 11.5, 2013.
    """
    target = rtol**2 * _squared(b, xp)
    x, r = xp.zeros_like(b), b
    z = r if preconditioner is None else preconditioner._matvec(r, xp)
    p, rho = z, _inner(r, z, xp)
    for step in range(limit):
        active = _squared(r, xp) > target
        q = operator._matvec(p, xp)
        curvature = _inner(p, q, xp)
        if not bool(xp.any(active & (curvature > 0.0))):  # nor where A is not positive definite
            return x, step
        alpha = _ratio(rho, curvature, active, xp)
        x, r = x + alpha * p, r - alpha * q
        z = r if preconditioner is None else preconditioner._matvec(r, xp)
        rho, before = _inner(r, z, xp), rho
        p = z + _ratio(rho, before, active, xp) * p
        report(step + 1)
    return x, limit


def least_squares(
    operator: LinearOperator,
    b: Array,
    norm: Array,
    rtol: float,
    limit: int,
    xp: Namespace,
    report: Callable[[int], object],
    preconditioner: LinearOperator | None = None,
) -> tuple[Array, int]:
    """Return the x of least norm that minimises ``norm(A x - b)``, and the number of iterations, by CGLS [1]_.

    It ends where the residual r has ``norm(r) <= rtol * norm(b)`` or ``norm(A^H r) <= rtol * norm(A) * norm(r)``, with
    `norm` for that of A. With a preconditioner M it iterates with ``A M`` in place of A, and returns M times the x of
    least norm.

    References
    ----------
    .. [1] Björck, Å., Numerical Methods for Least Squares Problems, section 7.4, 1996.
    """
    M = Identity(operator.shape[1]) if preconditioner is None else preconditioner
    y, r = xp.zeros((*b.shape[:-1], operator.shape[1]), dtype=b.dtype, device=device_of(b)), b
    s = M._rmatvec(operator._rmatvec(r, xp), xp)
    p, gamma, target = s, _squared(s, xp), rtol**2 * _squared(b, xp)
    for step in range(limit):
        left = _squared(r, xp)
        active = (left > target) & (gamma > (rtol * norm) ** 2 * left)
        if not bool(xp.any(active)):
            return M._matvec(y, xp), step
        q = operator._matvec(M._matvec(p, xp), xp)
        alpha = _ratio(gamma, _squared(q, xp), active, xp)
        y, r = y + alpha * p, r - alpha * q
        s = M._rmatvec(operator._rmatvec(r, xp), xp)
        gamma, before = _squared(s, xp), gamma
        p = s + _ratio(gamma, before, active, xp) * p
        report(step + 1)
    return M._matvec(y, xp), limit


def _inner(u: Array, v: Array, xp: Namespace) -> Array:
    """Return the real part of inner products, which have no other for a Hermitian matrix."""
    if not is_complex(u.dtype, xp):
        return xp.sum(u * v, axis=-1)
    return xp.sum(xp.real(u) * xp.real(v) + xp.imag(u) * xp.imag(v), axis=-1)


def _squared(u: Array, xp: Namespace) -> Array:
    return _inner(u, u, xp)


def _ratio(top: Array, bottom: Array, active: Array, xp: Namespace) -> Array:
    """Return quotients as a column, zero for what has converged."""
    use = active & (bottom > 0.0)
    return xp.where(use, top / xp.where(use, bottom, xp.ones_like(bottom)), xp.zeros_like(top))[..., None]
