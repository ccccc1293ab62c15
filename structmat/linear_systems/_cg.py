"""Conjugate gradients for operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from structmat._arrays.typing import Array, Namespace
from structmat._krylov import Count, conjugate_gradients
from structmat.linear_systems._krylov_method import KrylovMethod, product_with
from structmat.operators import LinearOperator


@dataclass(frozen=True)
class CG(KrylovMethod):
    """The method of conjugate gradients, for Hermitian positive definite matrices.

    See Also
    --------
    GMRES : For other square matrices.

    Notes
    -----
    Each iteration [1]_ costs one product with A and one with the preconditioner, and keeps four vectors for each
    right-hand side. It ends where it finds that a matrix is not positive definite.

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
        preconditioned = None if M is None else product_with(M, xp)
        found = conjugate_gradients(product_with(A, xp), b, preconditioned, rtol=rtol, max_iter=max_iter, xp=xp)
        return found.x, found.iterations
