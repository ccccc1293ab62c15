"""Batches of matrices: entries of T by their lags, adjoints, inverses, and how many numbers are held at once."""

from __future__ import annotations

from typing import Any

from structmat._arrays.arithmetic import conjugate
from structmat._arrays.libraries import device_of, is_numpy, rules_of
from structmat._arrays.typing import Array, Namespace
from structmat._toeplitz_systems import thresholds


def numbers_at_once(like: Array, xp: Namespace) -> int:
    """Return how many numbers one step holds at once where it may be parted, beside an array."""
    on_cpu = is_numpy(xp) or str(device_of(like)) == "cpu"
    return thresholds.CHUNK if on_cpu and not rules_of(xp).compiles else thresholds.COMPILED_CHUNK


def parts_of(count: int, width: int, like: Array, xp: Namespace) -> list[slice]:
    """Return slices of a batch of `count` nodes, of which each is computed at once; one takes `width` numbers."""
    most = max(1, numbers_at_once(like, xp) // width)
    return [slice(start, min(count, start + most)) for start in range(0, count, most)]


def joined_parts(parts: list[Any], xp: Namespace) -> Any:
    """Return the parts of a batch as one. The list is emptied, so that not all is held twice for longer than needed.

    A part is an array, a named tuple of parts, or None; all are of one kind.
    """
    first = parts[0]
    if len(parts) == 1 or first is None:
        joined = first
    elif isinstance(first, tuple):
        columns = [list(column) for column in zip(*parts, strict=True)]
        parts.clear()
        joined = type(first)(*(joined_parts(column, xp) for column in columns))
    else:
        joined = xp.concat(parts, axis=0)
    parts.clear()
    return joined


def entries(t: Array, i: Array, j: Array, channels: int, xp: Namespace) -> Array:
    """Return the entries of T in rows i and columns j, none of which is later than its row, by the first block column.

    In that the entries of blocks are one after the other, row by row, so that for one channel the place is the lag.
    """
    places = channels * (i - j) + (channels + 1) * (j % channels)
    return xp.reshape(xp.take(t, xp.reshape(places, (-1,)), axis=0), tuple(places.shape))


def adjoint(A: Array, xp: Namespace) -> Array:
    """Return the adjoints of a batch of matrices."""
    return xp.matrix_transpose(conjugate(A, xp))


def largest_modulus(c: Array, xp: Namespace) -> Array:
    """Return the largest modulus of a vector; one where all entries are zero."""
    size = xp.max(xp.abs(c))
    return xp.where(size > 0.0, size, xp.ones_like(size))


def inverse_of_lower(L: Array, xp: Namespace) -> Array:
    """Return inverses of lower triangular matrices by those of their halves, at once where each step is compiled."""
    n = L.shape[-1]
    if n <= thresholds.INVERTED_AT_ONCE or rules_of(xp).compiles:
        return xp.linalg.inv(L)
    h = n // 2
    first = inverse_of_lower(L[..., :h, :h], xp)
    last = inverse_of_lower(L[..., h:, h:], xp)
    below = -xp.matmul(last, xp.matmul(L[..., h:, :h], first))
    zeros = xp.zeros((*L.shape[:-2], h, n - h), dtype=L.dtype, device=device_of(L))
    return xp.concat([xp.concat([first, zeros], axis=-1), xp.concat([below, last], axis=-1)], axis=-2)
