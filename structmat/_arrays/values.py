"""Arguments read as arrays and numbers, and the checks that look at values."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from array_api_compat import is_array_api_strict_namespace

from structmat._arrays.dtypes import is_complex
from structmat._arrays.errors import ArgumentTypeError, ArgumentValueError
from structmat._arrays.namespaces import is_array, is_numpy, is_torch, library_of, namespace
from structmat._arrays.typing import Array, ArrayLike, DType, Namespace

__all__ = [
    "are_normal",
    "as_floating",
    "can_raise_for_values",
    "copied",
    "filled",
    "negligible",
    "reciprocal_above",
    "require_nonzero",
]


def as_floating(value: ArrayLike, owner: str, argument: str, *, like: tuple[Namespace, DType] | None = None) -> Array:
    """Return `value` as a floating-point array; such arrays are returned as they are.

    Parameters
    ----------
    value : array or nested lists of numbers
        Lists are read by NumPy, or by the namespace of `like`. Integers and booleans are promoted to the default
        floating dtype of their library (the rule of its own FFT), never below the dtype of `like`.
    owner : str
        The function or class that was called, for error messages.
    argument : str
        The name of the argument.
    like : (namespace, dtype), optional
        Namespace and dtype of an operator with which the array is combined.

    Returns
    -------
    array
        Real or complex floating-point numbers.

    Raises
    ------
    ArgumentValueError
        If lists are not rectangular, or entries are masked.
    ArgumentTypeError
        If these are not numbers of a standard dtype, or a tensor or matrix is sparse.

    Examples
    --------
    >>> from structmat.extend import as_floating
    >>> as_floating([1, 2], "Mine", "c")
    array([1., 2.])
    """
    if type(value) is np.ndarray and value.dtype.char in "efdFD" and value.dtype.isnative:
        return value
    if is_torch(value):
        _check_tensor(value, owner, argument)
        if value.dtype.is_floating_point or value.dtype.is_complex:
            return value
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        text = "has masked entries: fill them first, or give `fit_cdd` the weight zero for them (`entry_weights`)"
        raise ArgumentValueError(owner, argument, text)
    if not is_array(value):
        value = _read(value, owner, argument, like)
    xp = namespace(value)
    if isinstance(value, (np.ndarray, np.generic)):
        value = np.asarray(value)
        if value.dtype.kind not in "biufc" or value.dtype.itemsize // (2 if value.dtype.kind == "c" else 1) > 8:
            raise ArgumentTypeError(owner, argument, f"must hold numbers of a standard dtype, got dtype {value.dtype}")
        value = value.astype(value.dtype.newbyteorder("="), copy=False)
    if xp.isdtype(value.dtype, ("real floating", "complex floating")):
        array: Array = value
        return array
    default = xp.__array_namespace_info__().default_dtypes()["real floating"]
    target = default if like is None or like[1] is None else xp.result_type(default, like[1])
    return xp.astype(value, target)


def _check_tensor(value: Any, owner: str, argument: str) -> None:
    torch = sys.modules["torch"]
    if value.layout != torch.strided:
        raise ArgumentTypeError(owner, argument, "must be dense, got a sparse tensor: use its to_dense()")
    if value.dtype == torch.complex32:  # which torch can neither transform nor divide on a CPU
        raise ArgumentTypeError(owner, argument, "must be in complex64 or complex128, got torch.complex32")


def _read(value: Any, owner: str, argument: str, like: tuple[Namespace, DType] | None) -> Array:
    """Return nested lists as an array."""
    sparse = sys.modules.get("scipy.sparse")  # which is loaded where there is a sparse matrix
    if sparse is not None and sparse.issparse(value):
        raise ArgumentTypeError(owner, argument, "must be dense, got a sparse matrix of SciPy: use its toarray()")
    try:
        with np.errstate(all="ignore"):
            read: Any = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise ArgumentValueError(owner, argument, f"must be a rectangular array of numbers: {error}") from error
    if like is not None and read.dtype.kind in "biufc":
        target = like[1] if read.dtype.kind != "c" or is_complex(like[1], like[0]) else None
        read = like[0].asarray(read.tolist(), dtype=target)
    array: Array = read
    return array


def copied(array: Array, xp: Namespace) -> Array:
    """Return a copy of an array, with its gradient; itself in JAX, whose arrays cannot be changed."""
    if library_of(xp) == "jax":
        return array
    copy: Any = array.clone() if is_torch(array) else xp.asarray(array, copy=True)  # type: ignore[attr-defined]
    return copy


def filled(out: Any, values: Array, owner: str) -> Array:
    """Return `out` with these values, after the check that it is a NumPy array that fits."""
    if type(out) is not np.ndarray or type(values) is not np.ndarray:
        raise ArgumentTypeError(owner, "out", f"must be a NumPy array for results of NumPy, got {type(out).__name__}")
    if out.shape != values.shape or out.dtype != values.dtype:
        raise ArgumentValueError(
            owner,
            "out",
            f"must have shape {values.shape} and dtype {values.dtype}, got {out.shape} and {out.dtype}",
        )
    if not out.flags.writeable:
        raise ArgumentValueError(owner, "out", "must be writeable, got a read-only array")
    out[...] = values
    return out


def negligible(values: Array, relative: float, xp: Namespace) -> Array:
    """Tell which of `values` vanish: those up to `relative` times the largest finite modulus of their row.

    NaN and infinities never do, and do not count as the largest.
    """
    size = xp.abs(values)
    finite = xp.where(xp.isfinite(size), size, xp.zeros_like(size))
    return size <= relative * xp.max(finite, axis=-1, keepdims=True)


def can_raise_for_values(xp: Namespace) -> bool:
    """Tell whether reading a value is free, so that values can be checked: with NumPy, as its own ``linalg`` does.

    Elsewhere it would wait for the device and fail under a tracer, so there infinities and NaN flow as in
    ``jax.numpy.linalg``.
    """
    return is_numpy(xp) or bool(is_array_api_strict_namespace(xp))


def require_nonzero(values: Array, relative: float, owner: str, xp: Namespace) -> None:
    """Raise `numpy.linalg.LinAlgError` where some of `values` vanish and the library allows to look at them."""
    if can_raise_for_values(xp) and bool(xp.any(negligible(values, relative, xp))):
        raise np.linalg.LinAlgError(f"{owner}: the matrix is singular to working precision; use pinv() or lstsq()")


def are_normal(values: Array, xp: Namespace) -> bool:
    """Tell whether all values of NumPy and their reciprocals are normal numbers, which have every digit."""
    size, least = xp.abs(values), float(xp.finfo(values.dtype).smallest_normal)
    return bool(xp.all((size >= least) & (size <= 1 / least)))


def reciprocal_above(values: Array, rtol: float, xp: Namespace) -> Array:
    """Return 1 / values, and zero where a value is negligible."""
    zero = negligible(values, rtol, xp)
    return xp.where(zero, xp.zeros_like(values), 1 / xp.where(zero, xp.ones_like(values), values))
