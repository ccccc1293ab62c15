"""Products, sums, multiples and powers of operators: what `@`, `+`, `*` and `**` do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from numbers import Rational
from typing import Any, Self

import numpy as np

from structmat._arrays import (
    Reciprocal,
    broadcast_shapes,
    common_dtype,
    is_array,
    is_half_precision,
    is_numpy,
    is_vector,
    namespace_of,
    precision_of,
)
from structmat._arrays.checks import integer
from structmat._arrays.dispatch import PairRules, add, compose, power, scale
from structmat._arrays.errors import ArgumentTypeError, ArgumentValueError
from structmat.operators._base.operator import Op, Operator

__all__ = ["Arithmetic"]


class Arithmetic(Operator[Op]):
    """The operators of Python, by the tables of rules of `structmat.extend`."""

    __slots__ = ()

    def __matmul__(self, other: Any) -> Any:
        if type(other) is np.ndarray:
            return self.matvec(other) if other.ndim == 1 else self.matmat(other)
        if not isinstance(other, Operator):
            if not _is_array_like(other):
                return NotImplemented
            return self.matvec(other) if is_vector(other) else self.matmat(other)
        if self.shape[1] != other.shape[0]:
            owner = f"{type(self).__name__} @ {type(other).__name__}"
            raise ArgumentValueError(owner, None, f"inner sizes differ, {self.shape} @ {other.shape}")
        return self._combined(other, "@", compose)

    def __rmatmul__(self, other: Any) -> Any:
        if not _is_array_like(other):
            return NotImplemented
        if is_vector(other):
            return self._transpose().matvec(other)
        X, xp = self._read(other, f"X @ {type(self).__name__}", "X")
        if X.ndim < 2 or X.shape[-1] != self.shape[0]:
            raise ArgumentValueError(
                f"X @ {self!r}", "X", f"must have shape (..., {self.shape[0]}), got {tuple(X.shape)}"
            )
        return xp.matrix_transpose(self._transpose().matmat(xp.matrix_transpose(X)))

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, Operator):
            if type(other) is int and other == 0:  # the start of `sum`
                return self
            if _is_array_like(other):
                text = "add operators, or arrays to op.to_dense()"
                raise ArgumentTypeError(f"{type(self).__name__} + or - array", None, text)
            return NotImplemented
        if self.shape != other.shape:
            owner = f"{type(self).__name__} + {type(other).__name__}"
            raise ArgumentValueError(owner, None, f"shapes differ, {self.shape} + {other.shape}")
        return self._combined(other, "+", add)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self + (-other) if isinstance(other, Arithmetic) else self.__add__(other)

    def __rsub__(self, other: Any) -> Any:
        return self.__add__(other) if _is_array_like(other) else other + (-self)  # which refuses arrays

    def __pos__(self) -> Self:
        return self

    def __neg__(self) -> Op:
        negative: Op = scale(self, -1)
        return negative

    def __mul__(self, factor: Any) -> Any:
        if isinstance(factor, Operator):
            owner = f"{type(self).__name__} * {type(factor).__name__}"
            raise ArgumentTypeError(owner, None, "use @ for the matrix product; * is for scalars")
        return self._multiple(factor, f"{type(self).__name__} * array", lambda number: number)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Any:
        if isinstance(divisor, Operator):
            return NotImplemented
        return self._multiple(divisor, f"{type(self).__name__} / array", Reciprocal)

    def _multiple(self, number: Any, owner: str, factor: Callable[[Any], Any]) -> Any:
        """Return the multiple by what `factor` makes of a number, or of an array of one for each member of a stack."""
        if isinstance(number, np.generic):
            return self._by_numpy_scalar(number, factor)
        if isinstance(number, (int, float, complex)):
            return scale(self, factor(number))
        if not _is_array_like(number):
            return scale(self, factor(float(number))) if isinstance(number, Rational) else NotImplemented
        shape = tuple(np.shape(number))
        if len(shape) > len(self.batch_shape):
            text = f"a scalar, or one scalar per batch member of {self.batch_shape}, is expected, got an array of shape"
            text += f" {shape}; use @ for the product of matrices, op.to_dense() * array for that of their entries"
            raise ArgumentValueError(owner, None, text)
        return scale(self, factor(self._read(number, owner, "factor")[0]))

    def _by_numpy_scalar(self, number: Any, factor: Callable[[Any], Any]) -> Any:
        """Return the multiple by a scalar of NumPy, whose dtype counts for NumPy's arrays, as in ``array * number``."""
        if self.dtype is None or not is_numpy(self._own_namespace()):
            return scale(self, factor(number.item()))
        dtype = np.result_type(self.dtype, number)
        wide = self._in_precision(precision_of(dtype, self._own_namespace()), self._own_namespace())
        array = np.asarray(number, np.result_type(number, np.float16))
        return scale(self if is_half_precision(dtype) else wide, factor(array))

    def __pow__(self, k: Any) -> Any:
        """Return the k-th power for an integer k: in closed form, or as a product of k factors."""
        owner = f"{type(self).__name__} ** k"
        try:
            exponent = integer(k, owner, "k", least=-sys.maxsize)
        except ArgumentTypeError as error:
            text = f"must be an integer, got {k!r}; use op.fractional_matrix_power(k)"
            raise ArgumentTypeError(error.owner, error.argument, text) from None
        if self.shape[0] != self.shape[1]:
            raise ArgumentValueError(owner, None, f"the operator must be square, got shape {self.shape}")
        return power(self, exponent)

    def _combined(self, other: Operator[Any], sign: str, rules: PairRules) -> Op:
        """Apply a table of rules to both operators in their common precision (float32 for half)."""
        owner = f"{type(self).__name__} {sign} {type(other).__name__}"
        broadcast_shapes(owner, self.batch_shape, other.batch_shape)
        arrays = self._arrays() + other._arrays()
        if not arrays:
            return rules(self, other)
        xp = namespace_of(owner, *arrays)
        dtype = common_dtype(xp, *self._counted_as(self.dtype), *other._counted_as(other.dtype))
        precision = precision_of(dtype, xp)
        result = rules(self._in_precision(precision, xp), other._in_precision(precision, xp))
        return result._in_precision(dtype, xp) if is_half_precision(dtype) else result


def _is_array_like(value: Any) -> bool:
    """Tell arrays, lists, series of pandas and sparse matrices, which would take an operator for an array."""
    return (
        is_array(value) or isinstance(value, (list, tuple)) or hasattr(value, "__array__") or hasattr(value, "toarray")
    )
