"""Conjugate gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from structmat._arrays.libraries import rules_of
from structmat._arrays.typing import Array, Namespace
from structmat.linear_systems._krylov import Count, KrylovMethod, inner_of, smallest_normal
from structmat.operators import LinearOperator


@dataclass(frozen=True)
class CG(KrylovMethod):
    """The method of conjugate gradients, for Hermitian positive definite matrices [1]_.

    See Also
    --------
    GMRES : For other square matrices.

    Notes
    -----
    Each iteration costs one product with A and one with the preconditioner, and keeps four vectors for each right-hand
    side. It ends where it finds that a matrix is not positive definite.

    References
    ----------
    .. [1] Golub, G. H., Van Loan, C. F., Matrix Computations, 4th edition, section 11.5, 2013.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> A = sm.Toeplitz(0.5 ** np.arange(100)) + sm.Diagonal(np.linspace(1.0, 2.0, 100))
    >>> sm.solve(A, np.ones(100), method=sm.CG()).iterations < 20
    True
    """

    _needs_positive_definite: ClassVar[bool] = True

    def _run(
        self,
        A: LinearOperator,
        b: Array,
        M: LinearOperator | None,
        rtol: float,
        max_iter: Count,
        norm: Array | None,
        xp: Namespace,
    ) -> tuple[Array, Count]:
        dot = inner_of(b.dtype, xp)
        square = dot(b, b)
        target = rtol**2 * square
        nothing, smallest = xp.zeros_like(square), smallest_normal(b.dtype, xp)
        rules = rules_of(xp)
        add = rules.add

        def preconditioned(r: Array) -> Array:
            return r if M is None else M._matvec(r, xp)

        def goes_on(state: tuple[Any, ...]) -> Any:
            *_, active, count = state
            return xp.any(active) & (count < max_iter)

        def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
            x, r, p, rho, active, count = state
            q = A._matvec(p, xp)
            curvature = dot(p, q)
            active = active & (curvature > 0.0)  # else the matrix is not positive definite
            alpha = xp.where(active, rho / curvature, nothing)[..., None]
            x = add(x, alpha * p)
            r = add(r, -alpha * q)
            z = preconditioned(r)
            following = dot(r, z)
            beta = following / (rho + smallest)  # one for what has converged, whose x and r stay
            return x, r, add(beta[..., None] * p, z), following, active & (dot(r, r) > target), count + 1

        r = xp.asarray(b, copy=True)
        p = xp.asarray(preconditioned(b), copy=True)
        state = (xp.zeros_like(b), r, p, dot(b, p), square > target, 0)
        x, *_, count = rules.loop(goes_on, step, state)
        return x, count
