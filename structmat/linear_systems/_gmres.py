"""Generalised minimal residuals for operators, for some right-hand sides at a time."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from structmat._arguments import integer
from structmat._arrays.libraries import rules_of
from structmat._arrays.typing import Array, Namespace
from structmat._krylov import Count, gmres
from structmat.linear_systems import _thresholds
from structmat.linear_systems._krylov_method import KrylovMethod, product_with
from structmat.linear_systems._stack_members import members, with_flat_batch
from structmat.operators import LinearOperator


@dataclass(frozen=True)
class GMRES(KrylovMethod):
    """The method of generalised minimal residuals, restarted, for square matrices.

    Parameters
    ----------
    restart : int, default 50
        The number of vectors that are kept for each right-hand side before it begins anew. More vectors may need fewer
        iterations, of which each costs more.

    Raises
    ------
    ValueError
        If `restart` is not positive.
    TypeError
        If `restart` is not a whole number.

    See Also
    --------
    CG : For Hermitian positive definite matrices.
    LSMR : For matrices on which GMRES makes no progress, such as those near a cyclic shift.

    Notes
    -----
    It iterates [1]_ with ``A M`` in place of A, with the preconditioner M, so that the residual is that of the system
    itself. Each iteration costs one product with A and one with M. Vectors are made orthogonal by the classical
    Gram-Schmidt method, twice, which is as stable as Householder's and works on all vectors of a batch at once.

    References
    ----------
    .. [1] Saad, Y., Iterative Methods for Sparse Linear Systems, 2nd edition, section 6.5, SIAM, 2003.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> k = np.arange(100)
    >>> A = sm.Toeplitz(0.5**k, 0.2**k) + sm.Diagonal(np.linspace(1.0, 2.0, 100))
    >>> sm.solve(A, np.ones(100), method=sm.GMRES(restart=20)).iterations < 20
    True
    """

    restart: int = _thresholds.RESTART
    """The number of vectors that are kept for each right-hand side."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "restart", integer(self.restart, "GMRES", "restart"))

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
        size = min(self.restart, b.shape[-1])
        vectors = prod(b.shape[:-1])
        group = max(1, _thresholds.BASES_NUMBERS // max(1, (size + 1) * b.shape[-1]))
        if vectors <= group or rules_of(xp).compiles:
            return _run(A, b, M, rtol, max_iter, size, xp)
        return _in_groups(A, b, M, rtol, max_iter, size, group, xp)


def _in_groups(
    A: LinearOperator,
    b: Array,
    M: LinearOperator | None,
    rtol: float,
    max_iter: int,
    size: int,
    group: int,
    xp: Namespace,
) -> tuple[Array, int]:
    """Return solutions, computed for `group` right-hand sides at a time, with their matrices of stacks."""
    lead = tuple(b.shape[:-1])
    vectors = xp.reshape(b, (prod(lead), b.shape[-1]))
    flat = [with_flat_batch(op, lead, xp) for op in (A, M)]
    solutions = []
    most = 0
    for start in range(0, vectors.shape[0], group):
        part = slice(start, start + group)
        A_part, M_part = (members(op, part) for op in flat)
        x, count = _run(A_part, vectors[part, :], M_part, rtol, max_iter, size, xp)
        solutions.append(x)
        most = max(most, count)
    return xp.reshape(xp.concat(solutions, axis=0), b.shape), most


def _run(
    A: LinearOperator, b: Array, M: LinearOperator | None, rtol: float, max_iter: Count, size: int, xp: Namespace
) -> tuple[Array, Count]:
    preconditioned = None if M is None else product_with(M, xp)
    return gmres(product_with(A, xp), b, preconditioned, rtol=rtol, max_iter=max_iter, restart=size, xp=xp)
