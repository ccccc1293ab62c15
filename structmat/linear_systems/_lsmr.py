"""Least squares with operators by LSMR."""

from __future__ import annotations

from dataclasses import dataclass

from structmat._arrays.typing import Array, Namespace
from structmat._krylov import Count, lsmr
from structmat.linear_systems._krylov_method import KrylovMethod
from structmat.operators import LinearOperator


@dataclass(frozen=True)
class LSMR(KrylovMethod):
    """The method LSMR for least-squares solutions of matrices of any shape and rank.

    See Also
    --------
    GMRES : For regular square matrices, of which an iteration costs one product.

    Notes
    -----
    Each iteration [1]_ costs one product with A and one with its adjoint. In exact arithmetic it is MINRES on the
    normal equations, without their loss of digits. The solution has the least norm; with a preconditioner M it is M
    times the y of least norm. The number of iterations grows with the condition number; zero singular values do not
    count.

    References
    ----------
    .. [1] Fong, D. C.-L., Saunders, M., LSMR: an iterative algorithm for sparse least-squares problems, SIAM J. Sci.
       Comput. 33, 2011.

    Examples
    --------
    A system near a cyclic shift, whose eigenvalues lie all around zero:

    >>> import numpy as np
    >>> import structmat as sm
    >>> shift = sm.Circulant(np.array([0.0, 1.0] + 98 * [0.0]))
    >>> A = shift + sm.Diagonal(np.linspace(0.0, 0.1, 100))
    >>> sm.solve(A, np.arange(100.0), method=sm.LSMR(), preconditioner=None).iterations < 30
    True
    """

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
        def product(v: Array) -> Array:
            return A._matvec(v if M is None else M._matvec(v, xp), xp)

        def adjoint(u: Array) -> Array:
            v = A._rmatvec(u, xp)
            return v if M is None else M._rmatvec(v, xp)

        x, count = lsmr(product, adjoint, b, rtol=rtol, max_iter=max_iter, norm=norm, xp=xp)
        return x if M is None else M._matvec(x, xp), count
