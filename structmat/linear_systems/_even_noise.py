"""Toeplitz matrices written as a Toeplitz matrix plus a diagonal of equal entries, whose closed forms serve then."""

from __future__ import annotations

from structmat._arrays.libraries import rules_of
from structmat._arrays.shapes import concat_last
from structmat._arrays.typing import Namespace
from structmat.operators import LinearOperator, Prepared, Toeplitz


def as_toeplitz(op: LinearOperator, xp: Namespace) -> LinearOperator:
    """Return the Toeplitz matrix that an operator is, as far as it is known; else the operator itself.

    The entries of a diagonal that is differentiated, or has no values yet, may become different. A prepared operator
    keeps its own factor.
    """
    arrays = op._arrays()
    rules = rules_of(xp)
    if isinstance(op, (Toeplitz, Prepared)) or not arrays or rules.is_differentiated(arrays):
        return op
    if any(map(rules.is_traced, arrays)):
        return op
    near = op._near(arrays[0], xp)
    parts = near.noisy_toeplitz()
    if near.chosen is not None or parts is None or not isinstance(parts[0], Toeplitz):
        return op
    T, d = parts
    if d is None or not bool(xp.all(d == d[..., :1])):  # nor where it holds NaN
        return op
    first = T.c[..., :1] + d[..., :1]
    others = T.c[..., 1:]
    c = concat_last([first, xp.broadcast_to(others, (*first.shape[:-1], others.shape[-1]))], xp)
    return Toeplitz(c, T.r)
