"""What operators are multiplied by: arrays of any library, read, checked and brought to a common precision.

The functions take the operator; `LinearOperator` has `operand` and `read` for its methods ``_operand`` and ``_read``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from structmat._arguments import as_floating
from structmat._arrays.dtypes import common_dtype, complex_partner, in_precision, is_half_precision, precision_of
from structmat._arrays.libraries import is_array, namespace, namespace_of, rules_of
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.shapes import broadcast_shapes
from structmat._arrays.typing import Array, ArrayLike, DType, Namespace
from structmat._errors import ArgumentValueError

_WITH_COLUMNS = {
    "matvec": ", or write A @ x; what SciPy gives columns takes structmat.scipy.as_linear_operator(A)",
    "rmatvec": ", or write A.H @ y; what SciPy gives columns takes structmat.scipy.as_linear_operator(A)",
    "inv_matvec": ", or use solve",
}
"""For methods that take vectors along the last axis, what an error suggests for columns."""


def is_array_like(value: Any) -> bool:
    """Tell whether a value is an array, a list, a series of pandas or a sparse matrix.

    In operations of Python these would treat an operator as an entry of an array.
    """
    return (
        is_array(value) or isinstance(value, (list, tuple)) or hasattr(value, "__array__") or hasattr(value, "toarray")
    )


def read(operator: Any, x: ArrayLike, owner: str, argument: str) -> tuple[Array, Namespace]:
    """Return an operand as a floating-point array of the operator's library, and the namespace of that."""
    return _read_beside(operator._arrays(), operator.dtype, x, owner, argument)


def _read_beside(arrays: list[Array], dtype: DType, x: ArrayLike, owner: str, argument: str) -> tuple[Array, Namespace]:
    """Return the same for the arrays of an operator, and its dtype."""
    if not arrays:
        x = as_floating(x, owner, argument)
        return x, namespace_of(owner, x)
    xp = namespace_of(owner, *arrays, *((x,) if is_array(x) else ()))
    return as_floating(x, owner, argument, like=(xp, dtype)), xp


def operand(
    operator: Any, x: ArrayLike, method: str, argument: str, length: int, axis: int = -1
) -> tuple[Any, Array, Namespace, DType]:
    """Return operator and operand in the dtype of the computation, their namespace, and their common dtype.

    `length` is what the operand must have along its `axis`, and `method` and `argument` are what errors name.
    """
    leaves = operator._leaves()
    kind = type(x)
    dtype: Any = getattr(x, "dtype", None)
    for array, axes in leaves:
        if not (type(array) is kind and array.dtype == dtype and array.ndim == axes):
            break
    else:
        # The usual case: arrays of one library in one precision, and no stack.
        if leaves and x.ndim >= -axis and x.shape[axis] == length:
            if kind is np.ndarray and dtype.char in "fdFD":
                return operator, x, numpy_namespace, dtype
            xp = namespace(x)
            if not is_half_precision(dtype) and rules_of(xp).objection(x) is None:
                return operator, x, xp, dtype
    owner = f"{type(operator).__name__}.{method}"
    arrays = [array for array, _ in leaves]
    own = operator.dtype
    x, xp = _read_beside(arrays, own, x, owner, argument)
    if x.ndim < -axis or x.shape[axis] != length:
        raise _wrong_length(operator, tuple(x.shape), method, argument, length, axis)
    if any([array.ndim > axes for array, axes in leaves]):  # noqa: C419  # faster
        broadcast_shapes(owner, operator.batch_shape, tuple(x.shape[: x.ndim + axis]))
    return _in_common_precision(operator, arrays, own, x, xp)


def _wrong_length(
    operator: Any, shape: tuple[int, ...], method: str, argument: str, length: int, axis: int
) -> ArgumentValueError:
    """Return the error for an operand of a wrong shape, with a remedy where the mistake is a usual one."""
    wanted = f"(..., {length})" if axis == -1 else f"(..., {length}, k)"
    text = f"must have shape {wanted}, got {shape}"
    if method in {"solve", "lstsq"} and len(shape) > 1 and shape[-1] == length:
        text += "; right-hand sides are columns: transpose vectors along the last axis"
    if axis == -1 and len(shape) > 1 and shape[-2] == length:
        text += "; vectors lie along the last axis: transpose columns"
        text += _WITH_COLUMNS.get(method, "")
    text += operator._hint_for_shape(method, argument, shape, length)
    return ArgumentValueError(f"{type(operator).__name__}.{method}", argument, text)


def _in_common_precision(
    operator: Any, arrays: list[Array], own: DType, x: Array, xp: Namespace
) -> tuple[Any, Array, Namespace, DType]:
    """Return operator and operand in the precision of their computation, their namespace, and their common dtype.

    `arrays` and `own` are the arrays of the operator and its dtype.
    """
    if own is None and not is_half_precision(x.dtype):  # without parameters it takes the precision of its operand
        return operator, x, xp, complex_partner(x.dtype, xp) if operator._forces_complex else x.dtype
    uniform = len(arrays) == 1 or [array.dtype for array in arrays].count(own) == len(arrays)
    if own is not None and x.dtype == own and uniform and not is_half_precision(own):
        return operator, x, xp, own
    dtype = common_dtype(xp, *operator._counted_as(own), x)
    if own is None and operator._forces_complex:
        dtype = complex_partner(dtype, xp)
    precision = precision_of(dtype, xp)
    return operator._in_precision(precision, xp), in_precision(x, precision, xp), xp, dtype
