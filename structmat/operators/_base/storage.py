"""What an operator holds, arrays and other operators, and what follows from that: its batch, dtype and device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

from structmat._arrays.conversion import copied, without_axes_as_scalar
from structmat._arrays.dtypes import (
    cast_back,
    common_dtype,
    complex_partner,
    in_precision,
    is_half_precision,
    precision_of,
    shared_dtype,
)
from structmat._arrays.libraries import device_of, is_numpy, namespace_of
from structmat._arrays.shapes import broadcast_shapes
from structmat._arrays.typing import Array, Device, DType, Namespace
from structmat._errors import ArgumentValueError
from structmat._parametrised import Parametrised


class Stored(Parametrised, ABC):
    """A matrix, or a stack of them, as the arrays and the operators that it is made of."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Rows and columns of one matrix, without the batch axes."""

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the parameters: the shape of a stack of matrices, ``()`` for a single one."""
        shapes = [tuple(array.shape[: array.ndim - axes]) for array, axes in self._leaves() if array.ndim > axes]
        return broadcast_shapes(type(self).__name__, *shapes) if shapes else ()

    @property
    def dtype(self) -> DType:
        """The dtype of the entries, in the library of the parameters; None for an operator without parameters."""
        arrays = self._arrays()
        if not arrays:
            return None
        if None in self._core_axes.values():
            parts = self._made_of()
            if parts:
                return self._dtype_with(parts)
        dtypes = [array.dtype for array in arrays]
        if dtypes.count(dtypes[0]) == len(dtypes):
            return dtypes[0]
        return common_dtype(namespace_of(type(self).__name__, *arrays), *arrays)

    @property
    def device(self) -> Device:
        """The device of the parameters; None for an operator that has none."""
        arrays = self._arrays()
        return device_of(arrays[0]) if arrays else None

    @property
    def _forces_complex(self) -> bool:
        """Whether products are complex although no parameter says so, by default where those of a part are."""
        return any(part._forces_complex for part in self._made_of())

    # Parts

    def _made_of(self) -> list[Stored]:
        """Return the operators in the fields of this one, from which its entries and products are computed."""
        parts: list[Stored] = []
        for name, axes in self._core_axes.items():
            if axes is None:
                value = getattr(self, name)
                inner = value if isinstance(value, tuple) else (value,)
                parts += [part for part in inner if isinstance(part, Stored)]
        return parts

    def _dtype_with(self, parts: list[Stored]) -> DType:
        """Return the common dtype of the own arrays and of the parts, which may be real with complex arrays."""
        xp = self._own_namespace()
        fields = [getattr(self, name) for name, axes in self._core_axes.items() if axes is not None]
        operands = [value for value in fields if value is not None and not isinstance(value, (int, float, complex))]
        for part in parts:
            dtype = part.dtype
            if dtype is not None:
                operands += part._counted_as(dtype)
        dtype = common_dtype(xp, *operands)
        return complex_partner(dtype, xp) if self._forces_complex else dtype

    def _counted_as(self, dtype: DType) -> list[Array | DType]:
        """Return the operands of `common_dtype` for an operator of that dtype: the arrays, or the dtype.

        Arrays tell more than a dtype, since those without axes count for less in torch and JAX.
        """
        arrays = self._arrays()
        if [array.dtype for array in arrays].count(dtype) == len(arrays):
            return arrays
        return arrays if dtype == common_dtype(namespace_of(type(self).__name__, *arrays), *arrays) else [dtype]

    # Precision

    def _to_working_precision(self, method: str, *, square: bool = False) -> tuple[Self, Namespace]:
        """Return the operator in the precision of computations, and its namespace, after the check of its shape."""
        if square and self.shape[0] != self.shape[1]:
            owner = f"{type(self).__name__}.{method}"
            raise ArgumentValueError(owner, None, f"the operator must be square, got shape {self.shape}")
        xp = self._own_namespace()
        if shared_dtype(self._leaves()) is not None:
            return self, xp
        dtype = self.dtype
        if dtype is None:
            return self, xp
        # Parts may be of several precisions: computations are in the highest one.
        return self._in_precision(precision_of(dtype, xp), xp), xp

    def _from_working_precision(self, value: Any, xp: Namespace) -> Any:
        """Return a result of a computation; for an operator of half precision it is brought back to that."""
        if isinstance(value, Stored):
            return value._in_precision(self.dtype, xp) if is_half_precision(self.dtype) else value
        return without_axes_as_scalar(cast_back(value, self.dtype, xp))

    def _in_precision(self, precision: DType, xp: Namespace) -> Self:
        """Return the operator with parameters of that real dtype or its complex partner; itself if they have it."""
        one_of_each = {array.dtype: array for array in self._arrays()}  # one for each dtype, as a sum may have many
        if all(in_precision(array, precision, xp) is array for array in one_of_each.values()):
            return self
        return self._rebuilt(
            lambda array, _: in_precision(array, precision, xp), lambda inner: inner._in_precision(precision, xp)
        )

    def _complex(self, dtype: DType, xp: Namespace) -> Any:
        """Return the operator with parameters of a complex dtype."""
        return self._rebuilt(
            lambda array, _: array if array.dtype == dtype else xp.astype(array, dtype),
            lambda inner: inner._complex(dtype, xp),
        )

    # Copies, and vectors with one more axis

    def _snapshot(self) -> Self:
        """Return the operator with copies of its parameters, which are read-only in NumPy."""
        xp = self._own_namespace()

        def own(array: Array, _: int) -> Array:
            copy: Any = copied(array, xp)
            if is_numpy(xp):
                copy.flags.writeable = False
            return copy

        return self._map(own)

    def _in_columns(self, function: Callable[[Self, Array], Array], X: Array, xp: Namespace) -> Array:
        """Return the result for columns of a function of the operator and vectors along the last axis."""
        op = self._with_batch_axis(xp) if self.batch_shape else self
        return xp.matrix_transpose(function(op, xp.matrix_transpose(X)))

    def _with_batch_axis(self, xp: Namespace) -> Self:
        """Return the operator with a batch axis of length one before the core axes, to act on rows of matrices."""

        def widen(array: Array, axes: int) -> Array:
            if array.ndim == axes:
                return array
            cut = array.ndim - axes
            return xp.reshape(array, (*array.shape[:cut], 1, *array.shape[cut:]))

        return self._map(widen)
