"""Batches of matrices: entries of T by their lags, adjoints, and how many numbers a batch may hold at once."""

from __future__ import annotations

from structmat._arrays.arithmetic import conjugate
from structmat._arrays.libraries import is_numpy
from structmat._arrays.typing import Array, Namespace

CHUNK = 1 << 20
"""Numbers that one step holds at once where it may be parted: so it stays in the caches, and needs little memory."""

COMPILED_CHUNK = 1 << 24
"""The same where each part is compiled anew, or a GPU wants them together."""


def numbers_at_once(xp: Namespace) -> int:
    """Return how many numbers one step holds at once where it may be parted."""
    return CHUNK if is_numpy(xp) else COMPILED_CHUNK


def entries(t: Array, lags: Array, xp: Namespace) -> Array:
    """Return the entries of a vector at indices of any shape."""
    return xp.reshape(xp.take(t, xp.reshape(lags, (-1,)), axis=0), tuple(lags.shape))


def adjoint(A: Array, xp: Namespace) -> Array:
    """Return the adjoints of a batch of matrices."""
    return xp.matrix_transpose(conjugate(A, xp))


def largest_modulus(c: Array, xp: Namespace) -> Array:
    """Return the largest modulus of a vector; one where all entries are zero."""
    size = xp.max(xp.abs(c))
    return xp.where(size > 0.0, size, xp.ones_like(size))
