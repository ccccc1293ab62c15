"""What is known exactly of a log-determinant: that of the circulant or diagonal matrix nearest to the operator."""

from __future__ import annotations

from functools import reduce

from structmat._arrays.arithmetic import real_part
from structmat._arrays.typing import Array, Namespace
from structmat.linear_systems._krylov import inner
from structmat.linear_systems._preconditioner import Nearest, nearest, where_used
from structmat.operators import Diagonal, LinearOperator, add


def known_logdet(near: Nearest, values: Array, xp: Namespace) -> Array:
    """Return the trace of ``log(M)`` for a matrix M near A, over the rows that A has of it.

    That is the mean of ``z^H log(M) z`` with zeros where rows were left out.
    """
    logarithms = near.having(xp.log(values))._diagonal(xp)
    kept = logarithms if near.chosen is None else near.chosen._gathered(logarithms, xp)
    return xp.sum(real_part(kept, xp), axis=-1)


def known_logs(near: Nearest, values: Array, z: Array, xp: Namespace) -> Array:
    """Return ``z^H log(M) z`` for a matrix M near A, zero put where rows were left out."""
    wide = z if near.chosen is None else near.chosen._scattered(z, xp)
    return inner(wide, near.having(xp.log(values))._matvec(wide, xp), xp)


def preconditioned(op: LinearOperator, z: Array, xp: Namespace) -> tuple[Array, LinearOperator | None]:
    """Return what is known of the estimates, and the root of the inverse of M by which to multiply on both sides."""
    shift = xp.zeros_like(inner(z, z, xp))
    roots: list[LinearOperator] = []
    is_root_known = False
    for near, use in nearest(op, z, xp):
        values = near.positive(xp)
        logdet = known_logdet(near, values, xp)
        if near.chosen is None:
            part, root = logdet, near.having(values**-0.5)
            is_root_known = True
        else:
            part, root = logdet - known_logs(near, values, z, xp), Diagonal(xp.ones_like(z[0, ...]))
        shift = shift + (part if use is None else xp.where(use, part, xp.zeros_like(part)))
        roots.append(where_used(root, use, xp))
    return shift, reduce(add, roots) if is_root_known else None
