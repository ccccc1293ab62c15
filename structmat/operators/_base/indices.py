"""Rows and columns by their indices: integers, slices, masks and arrays of integers."""

from __future__ import annotations

import operator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from structmat._arrays.conversion import to_numpy
from structmat._arrays.dtypes import dtype_name
from structmat._arrays.libraries import device_of, is_array, namespace, rules_of
from structmat._arrays.shapes import concat_last
from structmat._arrays.typing import Array, Namespace
from structmat._errors import ArgumentTypeError, ArgumentValueError

ANY_INDEX = "; op.to_dense()[...] takes any index"
"""What the errors for an index that no operator takes say at their end."""


@dataclass(frozen=True, eq=False)
class Indices:
    """Some of the rows or columns of a matrix, each at most once, in any order; they can be compared and hashed.

    Parameters
    ----------
    array : numpy.ndarray of int
        The indices, not negative.
    size : int
        The number of all rows or columns.

    Examples
    --------
    >>> import structmat as sm
    >>> A = sm.Fourier(4)[[3, 1]]
    >>> A.rows.array, A.rows.size, A.cols
    (array([3, 1]), 4, None)
    """

    array: Any
    """The indices, integers of NumPy."""
    size: int
    """The number of all rows or columns."""
    _places: Any = field(init=False, repr=False)
    """For each of these its place among the indices; for all others the number of indices."""
    _hash: int = field(init=False, repr=False)

    @classmethod
    def _of(cls, value: Any, size: int, owner: str, argument: str) -> Indices | None:
        """Return the indices that an array or a mask means; None for None, which stands for all."""
        if value is None or isinstance(value, cls):
            return value
        array = _index_values(value, owner, argument)
        if array.ndim == 1 and not array.size:
            raise nothing_chosen(owner, argument)
        if array.ndim != 1 or array.dtype.kind not in "biu":
            got = f"{array.dtype} of shape {array.shape}"
            raise ArgumentTypeError(owner, argument, f"must be a mask or integers along one axis, got {got}")
        if array.dtype.kind == "b":
            if len(array) != size:
                raise ArgumentValueError(owner, argument, f"must be a mask of length {size}, got {len(array)}")
            array = np.flatnonzero(array)
            if not array.size:
                raise nothing_chosen(owner, argument)
        if array.min() < -size or array.max() >= size:
            wrong = array[(array < -size) | (array >= size)][0]
            raise IndexError(f"{owner}: {argument} has {wrong}, which is none of the {size} indices")
        array = array.astype(np.int64)  # in which no sum of an index and the size overflows
        array = np.where(array < 0, array + size, array)
        if np.bincount(array, minlength=size).max() > 1:
            text = "must name each index at most once: average what was measured again"
            raise ArgumentValueError(owner, argument, text)
        return cls(array, size)

    def __len__(self) -> int:
        return len(self.array)

    def __post_init__(self) -> None:
        # These are computed here, since no compiler can trace a property that is computed when it is first used.
        places = np.full(self.size, len(self.array))
        places[self.array] = np.arange(len(self.array))
        object.__setattr__(self, "_places", places)
        object.__setattr__(self, "_hash", hash((self.size, self.array.tobytes())))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Indices) and self.size == other.size and np.array_equal(self.array, other.array)

    def _gathered(self, y: Array, xp: Namespace, axis: int = -1) -> Array:
        """Return the entries along an axis at these indices."""
        return xp.take(y, xp.asarray(self.array, device=device_of(y)), axis=axis)

    def _scattered(self, x: Array, xp: Namespace, fill: Array | None = None) -> Array:
        """Return vectors with the given entries at these indices, and zero elsewhere, or `fill`, one for a vector."""
        last = xp.zeros_like(x[..., :1]) if fill is None else fill
        return xp.take(concat_last([x, last], xp), xp.asarray(self._places, device=device_of(x)), axis=-1)

    def _from(self, around: range) -> Indices:
        """Return the same rows or columns, counted from the first of a range that holds them all."""
        return Indices(self.array - around.start, len(around))

    def _others(self) -> Indices | None:
        """Return all other rows or columns, in order; None where there are none."""
        others = np.flatnonzero(self._places == len(self.array))
        return Indices(others, self.size) if len(others) else None

    def _within(self, inner: Indices | None) -> Indices:
        """Return the same rows or columns of the whole matrix, where these are indices among the `inner` ones."""
        return self if inner is None else Indices(inner.array[self.array], inner.size)


def _index_values(value: Any, owner: str, argument: str) -> Any:
    """Return a mask or indices as an array of NumPy, of whatever dtype and shape they are."""
    if not is_array(value):
        try:
            return np.asarray(value)
        except (TypeError, ValueError) as error:
            text = f"must be a mask or integers along one axis: {error}"
            raise ArgumentTypeError(owner, argument, text) from error
    concrete = rules_of(namespace(value)).concrete(value)
    if concrete is not None:
        return to_numpy(concrete)
    text = "must be known when the operator is made, got values of a trace, of vmap or on the device meta"
    raise ArgumentTypeError(owner, argument, text)


def range_of(index: Any, size: int, owner: str, argument: str) -> range:
    """Return the range of rows or columns that an integer or a slice means; `size` is the number of all of them."""
    chosen: range | None = None
    is_bool = isinstance(index, bool) or dtype_name(getattr(index, "dtype", None)) == "bool"
    with suppress(TypeError):  # raised by `operator.index` for what is no integer
        if isinstance(index, slice) and index.step is not None and operator.index(index.step) == 0:
            raise ArgumentValueError(owner, argument, f"must have a step other than zero, got {index}")
        if not is_bool:
            chosen = range(size)[index if isinstance(index, slice) else slice(index, operator.index(index) + 1 or None)]
    if chosen is None:
        got = index if isinstance(index, slice) else type(index).__name__
        raise ArgumentTypeError(owner, None, f"takes integers, slices and arrays of them, got {got}{ANY_INDEX}")
    if not chosen and isinstance(index, slice):
        raise nothing_chosen(owner, argument)
    if not chosen:
        raise IndexError(f"{owner}: {index!r} is none of the {size} rows or columns")
    return chosen


def is_choice(index: Any) -> bool:
    """Tell whether an index chooses rows or columns that are no neighbours: an array, a list, a slice with a step.

    What NumPy can make an array of, such as a series of pandas, is an array here.
    """
    if isinstance(index, slice):
        return index.step not in {None, 1}
    if isinstance(index, list):
        return True
    return (is_array(index) or hasattr(index, "__array__")) and getattr(index, "ndim", 0) > 0


def nothing_chosen(owner: str, argument: str) -> ArgumentValueError:
    """Return the error for a slice, a mask or an array that chooses no row or column."""
    return ArgumentValueError(owner, argument, "must choose one index at least, got none")
