"""The control variate of log-determinants: that of the circulant or diagonal matrix nearest to the operator."""

from __future__ import annotations

from functools import reduce

from structmat._arrays.arithmetic import real_part
from structmat._arrays.typing import Array, Namespace
from structmat._krylov import inner
from structmat.linear_systems._preconditioner import Nearest, nearest, where_used
from structmat.operators import Diagonal, LinearOperator, add


def exact_logdet(near: Nearest, values: Array, xp: Namespace) -> Array:
    """Return the trace of ``log(M)`` for a matrix M near A, over the rows that A has of it.

    That is the expected value of ``z^H log(M) z``, where z is zero in the rows that A has not.
    """
    diagonal = near.having(xp.log(values))._diagonal(xp)
    if near.chosen is not None:
        diagonal = near.chosen._gathered(diagonal, xp)
    return xp.sum(real_part(diagonal, xp), axis=-1)


def exact_quadratic_forms(near: Nearest, values: Array, z: Array, xp: Namespace) -> Array:
    """Return ``z^H log(M) z`` for a matrix M near A, with zeros for z in the rows of M that A has not."""
    extended_z = z if near.chosen is None else near.chosen._scattered(z, xp)
    return inner(extended_z, near.having(xp.log(values))._matvec(extended_z, xp), xp)


def preconditioned(op: LinearOperator, z: Array, xp: Namespace) -> tuple[Array, LinearOperator | None]:
    """Return the exact part of the estimates, and the square root of the inverse of M, a preconditioner for both sides.

    The root is None where none of the matrices near A has one that is known.
    """
    shift = xp.zeros_like(inner(z, z, xp))
    roots: list[LinearOperator] = []
    is_root_known = False
    for near, use in nearest(op, z, xp):
        values = near.positive(xp)
        logdet = exact_logdet(near, values, xp)
        if near.chosen is None:
            part, root = logdet, near.having(values**-0.5)
            is_root_known = True
        else:
            part, root = logdet - exact_quadratic_forms(near, values, z, xp), Diagonal(xp.ones_like(z[0, ...]))
        shift = shift + (part if use is None else xp.where(use, part, xp.zeros_like(part)))
        roots.append(where_used(root, use, xp))
    return shift, reduce(add, roots) if is_root_known else None
