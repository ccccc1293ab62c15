"""Helpers on arrays of any library: namespaces, dtypes, precision, the checks that read values.

Owns every decision about dtypes. Knows no operator.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import array_api_compat
import numpy as np
from array_api_compat import array_namespace, is_array_api_obj, is_array_api_strict_namespace
from array_api_compat import device as compat_device
from array_api_compat import numpy as numpy_namespace

from structmat._arrays.typing import Array, ArrayLike, Device, DType, Namespace, Scalar

__all__ = [
    "as_floating",
    "broadcast_shapes",
    "common_dtype",
    "complex_partner",
    "concat_last",
    "contiguous",
    "device_of",
    "dtype_name",
    "in_precision",
    "is_array",
    "is_complex",
    "is_complex_scalar",
    "is_eager_on_cpu",
    "is_narrow",
    "is_numpy",
    "library_of",
    "moved",
    "namespace_of",
    "padded",
    "positive_index",
    "precision_of",
    "reciprocal_above",
    "require_nonzero",
    "restored",
    "reversed_cyclically",
    "scale",
    "with_axes",
]


def _is_torch(value: Any) -> bool:
    module = type(value).__module__
    return (module == "torch" or module.startswith("torch.")) and hasattr(value, "requires_grad")


def _namespace(*arrays: Array) -> Namespace:
    # Known without array_api_compat for NumPy, which is faster, and for torch: torch.compile cannot trace its look-up
    # in older versions, and remarks on its caches in newer ones.
    for array in arrays:
        if type(array) is not np.ndarray:
            break
    else:
        return numpy_namespace
    for array in arrays:
        if not _is_torch(array):
            return array_namespace(*arrays)
    known: Namespace | None = getattr(array_api_compat, "torch", None)
    if known is not None:  # which costs a sixth of an import
        return known
    from array_api_compat import torch as torch_namespace  # noqa: PLC0415  # torch is there already

    return torch_namespace


def is_array(value: Any) -> bool:
    """Tell whether `value` is an array of a library that follows the array API standard."""
    return type(value) is np.ndarray or _is_torch(value) or is_array_api_obj(value)


def is_numpy(xp: Namespace) -> bool:
    """Tell whether `xp` is the namespace of NumPy arrays."""
    return xp is numpy_namespace


def library_of(xp: Namespace) -> str:
    """Return the name of the library of a namespace: ``numpy``, ``torch``, ``jax``, ..."""
    name: str = xp.__name__.removeprefix("array_api_compat.")
    return name.partition(".")[0]


def is_eager_on_cpu(tensor: Array, xp: Namespace) -> bool:
    """Tell whether a tensor of torch lies in the memory of the CPU, and no compiler traces what is done with it."""
    torch: Any = xp
    return str(device_of(tensor)) == "cpu" and not torch.compiler.is_compiling()


def device_of(array: Array) -> Device:
    """Return the device of an array."""
    return array.device if _is_torch(array) else compat_device(array)  # type: ignore[attr-defined]


def namespace_of(owner: str, *arrays: Array) -> Namespace:
    """Return the one array namespace of all `arrays`; `owner` names the caller in the error."""
    try:
        return _namespace(*arrays)
    except TypeError as error:
        kinds = ", ".join(sorted({f"{type(a).__module__}.{type(a).__qualname__}" for a in arrays}))
        raise TypeError(f"{owner}: all arrays must come from one array library, got {kinds}") from error


def as_floating(value: ArrayLike, owner: str, *, like: tuple[Namespace, DType] | None = None) -> Array:
    """Return `value` as a floating-point array, itself where it is one already.

    Nested lists are read by NumPy, or by the namespace of `like`. Integers and booleans are promoted to the default
    floating dtype of their library (the rule of its own FFT), never below the dtype of `like`.
    """
    if type(value) is np.ndarray and value.dtype.char in "efdFD" and value.dtype.isnative:
        return value
    if _is_torch(value) and (value.dtype.is_floating_point or value.dtype.is_complex):
        return value
    if not is_array(value):
        try:
            with np.errstate(all="ignore"):
                read: Any = np.asarray(value)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{owner} must be a rectangular array of numbers: {error}") from error
        if like is not None and read.dtype.kind in "biufc":
            target = like[1] if read.dtype.kind != "c" or is_complex(like[1], like[0]) else None
            value = like[0].asarray(read.tolist(), dtype=target)
        else:
            value = read
    xp = _namespace(value)
    if isinstance(value, (np.ndarray, np.generic)):
        value = np.asarray(value)
        if value.dtype.kind not in "biufc" or value.dtype.itemsize // (2 if value.dtype.kind == "c" else 1) > 8:
            raise TypeError(f"{owner} must hold numbers of a standard dtype, got dtype {value.dtype}")
        value = value.astype(value.dtype.newbyteorder("="), copy=False)
    if xp.isdtype(value.dtype, ("real floating", "complex floating")):
        array: Array = value
        return array
    default = xp.__array_namespace_info__().default_dtypes()["real floating"]
    target = default if like is None or like[1] is None else xp.result_type(default, like[1])
    return xp.astype(value, target)


def is_complex(dtype: DType, xp: Namespace) -> bool:
    """Tell whether `dtype` is complex."""
    if isinstance(dtype, np.dtype):
        return dtype.kind == "c"
    if isinstance(known := getattr(dtype, "is_complex", None), bool):  # torch
        return known
    return bool(xp.isdtype(dtype, "complex floating"))


def is_narrow(dtype: DType) -> bool:
    """Tell whether `dtype` is below single precision (float16, bfloat16, ...), so that no library transforms it."""
    size = getattr(dtype, "itemsize", None)  # a class such as numpy.float64 has a descriptor, array_api_strict nothing
    return isinstance(size, int) and size < 4


def precision_of(dtype: DType, xp: Namespace) -> DType:
    """Return the real dtype in which numbers of `dtype` are computed: float32 for half precision, else its own."""
    if is_narrow(dtype) or dtype == xp.complex64:
        return xp.result_type(xp.float32, xp.float32)  # NumPy's own float32 is a class, not a dtype
    return xp.result_type(xp.float64, xp.float64) if is_complex(dtype, xp) else dtype


def common_dtype(xp: Namespace, *dtypes: DType) -> DType:
    """Return the dtype of a result of several operands; None stands for an operand that fits any dtype."""
    known = [dtype for dtype in dtypes if dtype is not None]
    if not known:
        return None
    return known[0] if all(dtype == known[0] for dtype in known) else xp.result_type(*known)


def in_precision(array: Array, precision: DType, xp: Namespace) -> Array:
    """Return `array` in the given real dtype or its complex partner, whichever it needs; itself if it is so already."""
    if array.dtype == precision:
        return array
    target = complex_partner(precision, xp) if is_complex(array.dtype, xp) else precision
    return array if array.dtype == target else xp.astype(array, target)


def with_axes(array: Array, core: int, xp: Namespace) -> Array:
    """Append `core` axes of length one, so that a scalar per batch member broadcasts against its vectors."""
    return xp.reshape(array, (*array.shape, *(1,) * core)) if core else array


def scale(array: Array, factor: Scalar, core: int, xp: Namespace) -> Array:
    """Return `array` times a scalar, or times an array of scalars over the axes before its last `core` ones."""
    if isinstance(factor, (int, float)):
        return array * factor
    if isinstance(factor, complex):
        if not is_complex(array.dtype, xp):
            array = xp.astype(array, complex_partner(array.dtype, xp))
        return array * factor
    return array * with_axes(factor, core, xp)


def is_complex_scalar(factor: Scalar, xp: Namespace) -> bool:
    """Tell whether a Python number or an array of scalars is complex."""
    if isinstance(factor, (int, float)):
        return False
    return True if isinstance(factor, complex) else is_complex(factor.dtype, xp)


def contiguous(array: Array, xp: Namespace) -> Array:
    """Return the array with its last axis densest in memory, by way of a flat one."""
    return xp.reshape(xp.reshape(array, (-1,)), tuple(array.shape))


def broadcast_shapes(owner: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the broadcast of batch shapes; `owner` names the caller in the error."""
    result: tuple[int, ...] = ()
    for shape in shapes:  # plain Python, which torch.compile can trace in every version
        longer, shorter = (result, shape) if len(result) >= len(shape) else (shape, result)
        lead = len(longer) - len(shorter)
        if any(a != b and 1 not in {a, b} for a, b in zip(longer[lead:], shorter, strict=True)):
            text = " and ".join(str(shape) for shape in shapes)
            raise ValueError(f"{owner}: the batch axes {text} do not broadcast")
        result = longer[:lead] + tuple(b if a == 1 else a for a, b in zip(longer[lead:], shorter, strict=True))
    return result


def require_nonzero(values: Array, relative: float, owner: str, xp: Namespace) -> None:
    """Raise `numpy.linalg.LinAlgError` where some of `values` vanish, up to `relative` times the largest of their row.

    Only where reading a value is free: NumPy, as its own ``linalg`` does. Elsewhere it would wait for the device and
    fail under a tracer, so there infinities and NaN flow as in ``jax.numpy.linalg``.
    """
    if not (is_numpy(xp) or is_array_api_strict_namespace(xp)):
        return
    size = xp.abs(values)
    if bool(xp.any(size <= relative * xp.max(size, axis=-1, keepdims=True))):
        raise np.linalg.LinAlgError(f"{owner}: the matrix is singular to working precision; use pinv() or lstsq()")


def positive_index(value: Any, owner: str) -> int:
    """Return `value` as an int of at least one."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{owner} must be an integer, got {value!r}") from None
    if number < 1:
        raise ValueError(f"{owner} must be at least 1, got {number}")
    return number


def complex_partner(dtype: DType, xp: Namespace) -> DType:
    """Return the complex dtype of the precision in which numbers of `dtype` are computed."""
    return xp.result_type(precision_of(dtype, xp), xp.complex64)


def restored(value: Array, dtype: DType, xp: Namespace) -> Array:
    """Return a real result in the half precision `dtype` of its operands; any other result as it is."""
    if is_narrow(dtype) and value.dtype != dtype and xp.isdtype(value.dtype, "real floating"):
        return xp.astype(value, dtype)
    return value


def reciprocal_above(values: Array, rtol: float, xp: Namespace) -> Array:
    """Return 1 / values, and zero where a value is at most `rtol` times the largest of its row."""
    size = xp.abs(values)
    kept = size > rtol * xp.max(size, axis=-1, keepdims=True)
    return xp.where(kept, 1 / xp.where(kept, values, xp.ones_like(values)), xp.zeros_like(values))


def reversed_cyclically(c: Array, xp: Namespace) -> Array:
    """Return c at indices 0, -1, -2, ... along the last axis: the first column of the transpose of a circulant."""
    return xp.concat([c[..., :1], xp.flip(c[..., 1:], axis=-1)], axis=-1)


def moved(array: Array, source: int, destination: int, xp: Namespace) -> Array:
    """Return the array with one axis moved; `permute_dims`, since torch's `vmap` has no `moveaxis`."""
    axes = list(range(array.ndim))
    axis = axes.pop(source)
    axes.insert(destination % array.ndim, axis)
    return xp.permute_dims(array, tuple(axes))


def padded(x: Array, length: int, xp: Namespace) -> Array:
    """Return x with zeros appended along the last axis."""
    if x.shape[-1] == length:
        return x
    zeros = xp.zeros((*x.shape[:-1], length - x.shape[-1]), dtype=x.dtype, device=device_of(x))
    return xp.concat([x, zeros], axis=-1)


def dtype_name(dtype: DType) -> str:
    """Return the bare name of a dtype: ``float32`` for ``torch.float32`` and ``dtype('float32')`` alike."""
    return "any" if dtype is None else str(getattr(dtype, "name", dtype)).rsplit(".", 1)[-1]


def concat_last(arrays: Sequence[Array], xp: Namespace) -> Array:
    """Join arrays along the last axis after broadcasting the axes before it."""
    if len(arrays) == 1:
        return arrays[0]
    batch = np.broadcast_shapes(*(tuple(a.shape[:-1]) for a in arrays))
    dtype = common_dtype(xp, *(a.dtype for a in arrays))
    full = [xp.broadcast_to(xp.astype(a, dtype), (*batch, a.shape[-1])) for a in arrays]
    return xp.concat(full, axis=-1)
