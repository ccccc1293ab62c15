"""Arrays copied, and moved to NumPy and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import is_cupy_array

from structmat._arrays.dtypes import is_half_precision
from structmat._arrays.libraries import device_of, is_torch, namespace, rules_of
from structmat._arrays.typing import Array, DType, Namespace
from structmat._errors import ArgumentTypeError, ArgumentValueError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def copied(array: Array, xp: Namespace) -> Array:
    """Return a copy of an array, with its gradient. In JAX, whose arrays cannot be changed, it is the array itself."""
    return rules_of(xp).copied(array)


def copied_into(out: Any, values: Array, owner: str) -> Array:
    """Return `out` with these values written to it, after the check that it is a NumPy array of their shape and dtype.

    Errors are those of the method `owner`.
    """
    if type(out) is not np.ndarray or type(values) is not np.ndarray:
        raise ArgumentTypeError(owner, "out", f"must be a NumPy array for results of NumPy, got {type(out).__name__}")
    if out.shape != values.shape or out.dtype != values.dtype:
        text = f"must have shape {values.shape} and dtype {values.dtype}, got {out.shape} and {out.dtype}"
        raise ArgumentValueError(owner, "out", text)
    if not out.flags.writeable:
        raise ArgumentValueError(owner, "out", "must be writeable, got a read-only array")
    out[...] = values
    return out


def to_numpy(array: Array) -> NDArray[Any]:
    """Return the values as a NumPy array on the CPU; half precision becomes float32.

    The result shares memory with the array where that is possible.
    """
    xp = namespace(array)
    if is_half_precision(array.dtype) and not xp.isdtype(array.dtype, ("bool", "integral")):
        array = xp.astype(array, xp.float32)
    if is_torch(array):
        if array.is_meta:
            raise ValueError("this needs the values of a tensor on the device meta, where tensors have none")
        array = array.resolve_conj().resolve_neg().cpu()
    elif is_cupy_array(array):
        array = array.get()
    values = np.asarray(array)
    return np.asarray(values, dtype=values.dtype.newbyteorder("="))


def on_host(
    function: Callable[..., Sequence[NDArray[Any]]],
    results: Sequence[tuple[tuple[int, ...], DType]],
    arrays: Sequence[Array],
    xp: Namespace,
) -> tuple[Array, ...]:
    """Return the results of a function of NumPy arrays for arrays of any library, without derivatives.

    `results` holds the shape and the dtype of each result. The arrays have equal numbers of axes, and the function
    broadcasts those before the last one.
    """
    return rules_of(xp).on_host(lambda *arrays: function(*map(to_numpy, arrays)), results, arrays, device_of(arrays[0]))


def without_axes_as_scalar(value: Array) -> Array:
    """Return a result as `numpy.linalg` does: an array of NumPy without axes as a scalar, all others as they are."""
    return value[()] if type(value) is np.ndarray and value.ndim == 0 else value


def from_numpy(values: NDArray[Any], array: Array) -> Array:
    """Return `values` with the library, dtype and device of `array`."""
    xp = namespace(array)
    return xp.astype(xp.asarray(values, device=device_of(array)), array.dtype)
