"""Axes, lengths and the order of entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from structmat._arrays.dtypes import common_dtype, complex_partner, is_complex
from structmat._arrays.errors import ArgumentValueError
from structmat._arrays.namespaces import device_of, is_numpy
from structmat._arrays.norms import quotient
from structmat._arrays.typing import Array, Namespace, Scalar

__all__ = [
    "Reciprocal",
    "along_axes",
    "broadcast_shapes",
    "concat_last",
    "contiguous",
    "is_vector",
    "moved",
    "padded",
    "reversed_cyclically",
    "scale_array",
    "windows",
]


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


@dataclass(frozen=True, slots=True)
class Reciprocal:
    """The factor ``1 / divisor``, kept as its divisor: the number itself may overflow, or lose digits.

    Parameters
    ----------
    divisor : number or array
        What to divide by.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import Reciprocal, scale_array
    >>> scale_array(np.array([2e-310, 0.0]), Reciprocal(1e-310), 1, np)
    array([2., 0.])
    """

    divisor: Scalar
    """The number, or one for each member of a stack."""


def scale_array(array: Array, factor: Scalar | Reciprocal, core: int, xp: Namespace) -> Array:
    """Return `array` times a scalar, or times an array of scalars over the axes before its last `core` ones.

    Parameters
    ----------
    array : array, shape ``(..., *core)``
        What to multiply.
    factor : number, array or Reciprocal
        A Python number, or an array of scalars, one for each member of a stack. By what a `Reciprocal` holds the array
        is divided.
    core : int
        The number of axes of one member.
    xp : namespace
        That of `array`.

    Returns
    -------
    array
        The product, complex where the factor is.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import scale_array
    >>> scale_array(np.ones((2, 3)), np.array([1.0, 2.0]), 1, np)  # one factor for each vector of a stack of two
    array([[1., 1., 1.],
           [2., 2., 2.]])
    """
    number = factor.divisor if isinstance(factor, Reciprocal) else factor
    if isinstance(number, complex):
        if not is_complex(array.dtype, xp):
            array = xp.astype(array, complex_partner(array.dtype, xp))
    elif not isinstance(number, (int, float)) and number.ndim:
        # an array without axes keeps none: in torch it counts for less than one of axes of length one
        number = xp.reshape(number, (*number.shape, *(1,) * core))
    return quotient(array, number, xp) if isinstance(factor, Reciprocal) else array * number


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
    batch = np.broadcast_shapes(*(tuple(a.shape[:-1]) for a in arrays))
    dtype = common_dtype(xp, *arrays)
    same = [a if a.dtype == dtype else xp.astype(a, dtype) for a in arrays]  # in JAX `astype` ends a weak type
    full = [xp.broadcast_to(a, (*batch, a.shape[-1])) for a in same]
    return xp.concat(full, axis=-1)


def contiguous(array: Array, xp: Namespace) -> Array:
    """Return the array with its last axis densest in memory, by way of a flat one."""
    return xp.reshape(xp.reshape(array, (-1,)), tuple(array.shape))


def moved(array: Array, source: int, destination: int, xp: Namespace) -> Array:
    """Return the array with one axis moved; `permute_dims`, since torch's `vmap` has no `moveaxis`."""
    axes = list(range(array.ndim))
    axis = axes.pop(source)
    axes.insert(destination % array.ndim, axis)
    return xp.permute_dims(array, tuple(axes))


def along_axes(x: Array, axes: int, function: Callable[[Array, int], Array], xp: Namespace) -> Array:
    """Return x after ``function(x, k)`` along each of its last `axes` axes, the k-th of them moved to the end."""
    for k in range(axes):
        x = function(moved(x, -axes, -1, xp), k)
    return x


def padded(x: Array, length: int, xp: Namespace) -> Array:
    """Return x with zeros appended along the last axis."""
    if x.shape[-1] == length:
        return x
    zeros = xp.zeros((*x.shape[:-1], length - x.shape[-1]), dtype=x.dtype, device=device_of(x))
    return xp.concat([x, zeros], axis=-1)


def windows(h: Array, length: int, xp: Namespace) -> Array:
    """Return W with ``W[..., i, j] = h[..., i + j]`` and rows of that length: in NumPy a read-only view."""
    if is_numpy(xp):
        view: Array = np.lib.stride_tricks.sliding_window_view(h, length, axis=-1)  # type: ignore[call-overload]
        return view
    count = h.shape[-1] - length + 1
    i, j = xp.arange(count, device=device_of(h)), xp.arange(length, device=device_of(h))
    index = xp.reshape(i[:, None] + j[None, :], (count * length,))
    return xp.reshape(xp.take(h, index, axis=-1), (*h.shape[:-1], count, length))


def reversed_cyclically(c: Array, xp: Namespace) -> Array:
    """Return c at indices 0, -1, -2, ... along the last axis: the first column of the transpose of a circulant."""
    return xp.concat([c[..., :1], xp.flip(c[..., 1:], axis=-1)], axis=-1)


def is_vector(value: Any) -> bool:
    """Tell whether an array or nested lists have one axis; ragged lists count, so that the product refuses them."""
    try:
        return np.ndim(value) == 1
    except ValueError:
        return True
