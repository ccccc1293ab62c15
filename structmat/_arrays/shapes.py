"""Shapes: batch axes that broadcast, arrays that are joined, padded, reversed and cut into windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from structmat._arrays.dtypes import common_dtype
from structmat._arrays.libraries import device_of, is_numpy
from structmat._arrays.typing import Array, Namespace
from structmat._errors import ArgumentValueError


def broadcast_shapes(owner: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the broadcast of batch shapes; `owner` names the caller in the error."""
    result: tuple[int, ...] = ()
    for shape in shapes:  # plain Python, which torch.compile can trace in every version
        longer, shorter = (result, shape) if len(result) >= len(shape) else (shape, result)
        lead = len(longer) - len(shorter)
        if any(a != b and 1 not in {a, b} for a, b in zip(longer[lead:], shorter, strict=True)):
            text = " and ".join(str(shape) for shape in shapes)
            raise ArgumentValueError(owner, None, f"the batch axes {text} do not broadcast")
        result = longer[:lead] + tuple(b if a == 1 else a for a, b in zip(longer[lead:], shorter, strict=True))
    return result


def concat_last(arrays: Sequence[Array], xp: Namespace) -> Array:
    """Join arrays along the last axis after broadcasting the axes before it.

    Parameters
    ----------
    arrays : sequence of arrays, shape (..., n)
        The arrays to join; their leading axes must broadcast.
    xp : namespace
        Theirs.

    Returns
    -------
    array
        Of their common dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import concat_last
    >>> concat_last([np.zeros(2), np.ones((3, 1))], np).shape
    (3, 3)
    """
    if len(arrays) == 1:
        return arrays[0]
    if all([array.ndim == 1 and array.dtype == arrays[0].dtype for array in arrays]):  # noqa: C419  # faster
        return xp.concat(arrays, axis=-1)
    batch = np.broadcast_shapes(*(tuple(a.shape[:-1]) for a in arrays))
    dtype = common_dtype(xp, *arrays)
    converted = [a if a.dtype == dtype else xp.astype(a, dtype) for a in arrays]  # in JAX `astype` ends a weak type
    return xp.concat([xp.broadcast_to(a, (*batch, a.shape[-1])) for a in converted], axis=-1)


def contiguous(array: Array, xp: Namespace) -> Array:
    """Return the array with entries that are neighbours along its last axis next to each other in memory."""
    return xp.reshape(xp.reshape(array, (-1,)), tuple(array.shape))


def move_axis(array: Array, source: int, destination: int, xp: Namespace) -> Array:
    """Return the array with one axis moved. It calls `permute_dims`, since torch's `vmap` has no `moveaxis`."""
    axes = list(range(array.ndim))
    axis = axes.pop(source)
    axes.insert(destination % array.ndim, axis)
    return xp.permute_dims(array, tuple(axes))


def along_axes(x: Array, axes: int, function: Callable[[Array, int], Array], xp: Namespace) -> Array:
    """Apply ``function(x, k)`` along each of the last `axes` axes of `x`, one after the other, and return the result.

    For the function the k-th of these axes is the last axis of x.
    """
    for k in range(axes):
        x = function(move_axis(x, -axes, -1, xp), k)
    return x


def padded(x: Array, length: int, xp: Namespace) -> Array:
    """Return x with zeros appended along the last axis."""
    if x.shape[-1] == length:
        return x
    zeros = xp.zeros((*x.shape[:-1], length - x.shape[-1]), dtype=x.dtype, device=device_of(x))
    return xp.concat([x, zeros], axis=-1)


def windows(h: Array, length: int, xp: Namespace) -> Array:
    """Return W with ``W[..., i, j] = h[..., i + j]``, whose rows have that length. In NumPy it is a read-only view."""
    count = h.shape[-1] - length + 1
    if is_numpy(xp):
        strides = (*h.strides, h.strides[-1])
        return np.lib.stride_tricks.as_strided(h, (*h.shape[:-1], count, length), strides, writeable=False)
    i = xp.arange(count, device=device_of(h))
    j = xp.arange(length, device=device_of(h))
    index = xp.reshape(i[:, None] + j[None, :], (count * length,))
    return xp.reshape(xp.take(h, index, axis=-1), (*h.shape[:-1], count, length))


def reversed_cyclically(c: Array, xp: Namespace) -> Array:
    """Return the entries of `c` at 0, -1, -2, ... along the last axis: the first column of a circulant's transpose."""
    return xp.concat([c[..., :1], xp.flip(c[..., 1:], axis=-1)], axis=-1)


def is_vector(value: Any) -> bool:
    """Tell whether an array or nested lists have one axis.

    Lists that are not rectangular count as a vector, so that the product refuses them with an error that says why.
    """
    axes = getattr(value, "ndim", None)  # of an array, also where a compiler traces it
    if isinstance(axes, int):
        return axes == 1
    try:
        return np.ndim(value) == 1
    except ValueError:
        return True
