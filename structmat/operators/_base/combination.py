"""An operator made of several others, whose arrays are collected once: what products and sums share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

from structmat._arrays.dtypes import common_dtype, complex_partner, is_complex, shared_dtype
from structmat._arrays.libraries import namespace_of
from structmat._arrays.typing import Array, DType
from structmat._errors import ArgumentValueError
from structmat.operators._base.linear_operator import LinearOperator

_MOST_ARRAYS = 100_000
"""The largest number of arrays in a combination, each counted as often as it occurs.

A recurrence such as ``A = A @ A`` doubles that number in each step.
"""


class Combination(LinearOperator):
    """An operator made of others, the parts, in its only field.

    The arrays of the parts are collected once, by the constructor, since parts are never replaced.
    """

    def _set_parts(self, parts: tuple[LinearOperator, ...], operands: Sequence[LinearOperator]) -> Self:
        """Set the parts, and collect their arrays from the operands, which together have the same parts.

        An operand is a part itself, or a combination of this kind whose parts are among the parts.
        """
        (name,) = self._core_axes
        leaves: list[tuple[Array, int]] = []
        is_complex = False
        for op in operands:
            leaves += op._leaves()
            is_complex = is_complex or op._forces_complex
        if len(leaves) > _MOST_ARRAYS:
            text = f"must not hold more than {_MOST_ARRAYS:,} arrays, each counted as often as it occurs"
            text += "; multiply out with to_dense(), or apply them one by one"
            raise ArgumentValueError(type(self).__name__, name, text)
        object.__setattr__(self, name, parts)
        object.__setattr__(self, "_collected", (leaves, is_complex))
        return self

    def _rebuilt(self, array: Callable[[Array, int], Array], inner: Callable[[Any], Any]) -> Self:
        parts = tuple(map(inner, _parts(self)))
        return object.__new__(type(self))._set_parts(parts, parts)

    def _leaves(self) -> list[tuple[Array, int]]:
        collected = getattr(self, "_collected", None)  # not set in operators that were made without a constructor
        return super()._leaves() if collected is None else collected[0]

    @property
    def _forces_complex(self) -> bool:
        collected = getattr(self, "_collected", None)
        return any(part._forces_complex for part in _parts(self)) if collected is None else collected[1]

    @property
    def dtype(self) -> DType:
        """The common dtype of the parts."""
        leaves = self._leaves()
        if not leaves:
            return None
        xp = namespace_of(type(self).__name__, leaves[0][0])
        dtype = shared_dtype(leaves)
        if dtype is None or is_complex(dtype, xp):  # a part with complex arrays may be real
            operands: list[Array | DType] = []
            for part in _parts(self):
                dtype_of_part = part.dtype
                if dtype_of_part is not None:
                    operands += part._counted_as(dtype_of_part)
            dtype = common_dtype(xp, *operands)
        return complex_partner(dtype, xp) if self._forces_complex else dtype


def combined(kind: type[Any], parts: tuple[LinearOperator, ...], operands: Sequence[LinearOperator]) -> Any:
    """Return a product or a sum of parts that need no checks, without those of its constructor.

    Parameters
    ----------
    kind : type
        A class with one field, of operators, such as `structmat.Product`.
    parts : tuple of LinearOperator
        The operators that it holds.
    operands : sequence of LinearOperator
        The operators that it is made of: the parts, or combinations of them.

    Returns
    -------
    LinearOperator
        The combination. It takes the time of joining lists: in a long sum all checks in each step would take longer.

    Examples
    --------
    >>> import structmat as sm
    >>> from structmat.extend import combined
    >>> parts = (sm.Fourier(4), sm.Identity(4))
    >>> combined(sm.Product, parts, parts)
    Product(Fourier @ Identity, shape=(4, 4), dtype=any, device=any)
    """
    return object.__new__(kind)._set_parts(parts, operands)


def flat(operators: tuple[LinearOperator, ...], kind: type[Any]) -> tuple[LinearOperator, ...]:
    """Return operators, where those of one kind are replaced by their parts."""
    if not any(type(op) is kind for op in operators):
        return operators
    return tuple(part for op in operators for part in (_parts(op) if type(op) is kind else (op,)))


def _parts(operator: Any) -> tuple[LinearOperator, ...]:
    """Return the parts of a combination."""
    (name,) = operator._core_axes
    return getattr(operator, name)
