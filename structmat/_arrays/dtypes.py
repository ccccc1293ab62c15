"""Dtypes: real and complex ones, the precision of computations, the common dtype of operands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from structmat._arrays.libraries import rules_of
from structmat._arrays.typing import Array, DType, Namespace, Scalar


def is_complex(dtype: DType, xp: Namespace) -> bool:
    """Tell whether a dtype is complex.

    Parameters
    ----------
    dtype : dtype
        Of any library.
    xp : namespace
        That of the library.

    Returns
    -------
    bool
        True for complex numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import is_complex
    >>> is_complex(np.dtype("complex64"), np), is_complex(np.dtype("float64"), np)
    (True, False)
    """
    if isinstance(dtype, np.dtype):
        return dtype.kind == "c"
    answer_of_torch = getattr(dtype, "is_complex", None)
    if isinstance(answer_of_torch, bool):
        return answer_of_torch
    return bool(xp.isdtype(dtype, "complex floating"))


def is_half_precision(dtype: DType) -> bool:
    """Tell whether `dtype` is below single precision (float16, bfloat16, ...), so that no library transforms it."""
    size = getattr(dtype, "itemsize", None)  # a class such as numpy.float64 has a descriptor, array_api_strict nothing
    return isinstance(size, int) and size < 4


def precision_of(dtype: DType, xp: Namespace) -> DType:
    """Return the real dtype in which numbers of `dtype` are computed: float32 for half precision, else its own."""
    if is_half_precision(dtype) or dtype == xp.complex64:
        return xp.result_type(xp.float32, xp.float32)  # NumPy's own float32 is a class, not a dtype
    return xp.result_type(xp.float64, xp.float64) if is_complex(dtype, xp) else dtype


def complex_partner(dtype: DType, xp: Namespace) -> DType:
    """Return the complex dtype of the precision in which numbers of a dtype are computed.

    Parameters
    ----------
    dtype : dtype
        Real or complex; half precisions are computed in single precision.
    xp : namespace
        Of the library.

    Returns
    -------
    dtype
        The complex one.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import complex_partner
    >>> complex_partner(np.dtype("float32"), np)
    dtype('complex64')
    """
    return xp.result_type(precision_of(dtype, xp), xp.complex64)


def common_dtype(xp: Namespace, *operands: Array | DType) -> DType:
    """Return the dtype of a result of arrays, or of operands of known dtypes.

    Parameters
    ----------
    xp : namespace
        Of the arrays.
    *operands : array, dtype or None
        None stands for one that fits any dtype. Arrays tell more than their dtypes: in torch one without axes, and in
        JAX one of a weak type, counts for its kind only, real or complex.

    Returns
    -------
    dtype or None
        None where all fit any dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import common_dtype
    >>> common_dtype(np, np.ones(2, np.float32), np.dtype("complex128"), None)
    dtype('complex128')
    """
    counted = [operand for operand in operands if operand is not None]
    dtypes = [getattr(operand, "dtype", operand) for operand in counted]
    if not counted:
        return None
    if dtypes.count(dtypes[0]) == len(dtypes):
        return dtypes[0]
    return rules_of(xp).result_type(counted, dtypes)


def in_precision(array: Array, precision: DType, xp: Namespace) -> Array:
    """Return `array` in the real dtype `precision`, or in its complex partner where the array is complex."""
    if array.dtype == precision:
        return array
    target = complex_partner(precision, xp) if is_complex(array.dtype, xp) else precision
    return array if array.dtype == target else xp.astype(array, target)


def cast_back(value: Array, dtype: DType, xp: Namespace) -> Array:
    """Return a real result in the half precision `dtype` of its operands; any other result is returned as it is."""
    if is_half_precision(dtype) and value.dtype != dtype and xp.isdtype(value.dtype, "real floating"):
        return xp.astype(value, dtype)
    return value


def rounding_of_cast(value: Array, dtype: DType, xp: Namespace) -> Array:
    """Return the largest rounding error that `cast_back` makes of a real result."""
    if not is_half_precision(dtype) or value.dtype == dtype:
        return xp.zeros_like(value)
    return float(xp.finfo(dtype).eps) / 2 * xp.abs(value)


def dtype_name(dtype: DType) -> str:
    """Return the bare name of a dtype: ``float32`` for ``torch.float32`` and ``dtype('float32')`` alike."""
    return "any" if dtype is None else str(getattr(dtype, "name", dtype)).rsplit(".", 1)[-1]


def shared_dtype(leaves: Sequence[tuple[Array, int]]) -> DType:
    """Return the dtype that all arrays of an operator share; None where they have several, or a half precision.

    `leaves` holds each array with the number of its core axes.
    """
    dtype: Any = None
    for array, _ in leaves:
        if dtype is None:
            dtype = array.dtype
        elif array.dtype != dtype:
            return None
    return None if is_half_precision(dtype) else dtype


def is_complex_scalar(factor: Scalar, xp: Namespace) -> bool:
    """Tell whether a Python number or an array of scalars is complex."""
    if isinstance(factor, (int, float)):
        return False
    return True if isinstance(factor, complex) else is_complex(factor.dtype, xp)
