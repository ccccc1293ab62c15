"""From an array of any library to NumPy and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace, device, is_array_api_obj, is_cupy_array, is_torch_array

from structmat._arrays.dtypes import is_half_precision
from structmat._arrays.errors import ArgumentValueError
from structmat._arrays.values import as_floating

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat._arrays.typing import Array, ArrayLike

__all__ = ["as_matrix", "moved_like", "to_numpy"]


def as_matrix(value: ArrayLike, owner: str, argument: str) -> Array:
    """Return an argument as a non-empty 2-D array of floating-point numbers of its own library, without gradients.

    Integers and booleans become float64 where the library has it.
    """
    if is_torch_array(value):
        value = value.detach()
        if value.is_meta:
            raise ArgumentValueError(owner, argument, "is on the device meta, where tensors have no values")
    xp = array_namespace(value) if is_array_api_obj(value) else np
    default = (xp, xp.float64) if is_array_api_obj(value) else None
    matrix = as_floating(value, owner, argument, like=default)
    if matrix.ndim != 2 or 0 in matrix.shape:
        text = f"must be a non-empty matrix (2-D array), got shape {tuple(matrix.shape)}"
        raise ArgumentValueError(owner, argument, text)
    return matrix


def to_numpy(array: Array) -> NDArray[Any]:
    """Return the values as a NumPy array on the CPU, half precision as float32; shares memory where it can."""
    xp = array_namespace(array)
    if is_half_precision(array.dtype):
        array = xp.astype(array, xp.float32)
    if is_torch_array(array):
        if array.is_meta:  # type: ignore[attr-defined]
            raise ValueError("this needs the values of a tensor on the device meta, where tensors have none")
        array = array.resolve_conj().resolve_neg().cpu()  # type: ignore[attr-defined]
    elif is_cupy_array(array):
        array = array.get()  # type: ignore[attr-defined]
    values = np.asarray(array)
    return np.asarray(values, dtype=values.dtype.newbyteorder("="))


def moved_like(values: NDArray[Any], array: Array) -> Array:
    """Return `values` with the library, dtype and device of `array`."""
    xp = array_namespace(array)
    moved = xp.asarray(values, device=device(array))
    return xp.astype(moved, array.dtype)
