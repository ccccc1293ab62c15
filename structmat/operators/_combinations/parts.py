"""What operators made of operators share: the checks of their parts, and how prepared parts compute their products."""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from typing import Any

from structmat._arrays import broadcast_shapes, common_dtype, complex_partner, namespace_of
from structmat._arrays.dispatch import prepare
from structmat._arrays.errors import ArgumentTypeError, ArgumentValueError
from structmat._arrays.typing import DType
from structmat._engine import ByParts, Scaling, Settings
from structmat.operators._base import LinearOperator
from structmat.operators._combinations.prepared import Prepared

__all__ = ["common_dtype_of", "plan_by_parts", "require_operators"]


def require_operators(owner: str, argument: str, operators: tuple[Any, ...]) -> None:
    if not operators:
        raise ArgumentValueError(owner, argument, "must be at least one operator, got none")
    for op in operators:
        if not isinstance(op, LinearOperator):
            raise ArgumentTypeError(owner, argument, f"must be structmat operators, got {type(op).__name__}")
    if arrays := [array for op in operators for array in op._arrays()]:
        namespace_of(owner, *arrays)
    broadcast_shapes(owner, *(op.batch_shape for op in operators))


def common_dtype_of(operators: tuple[LinearOperator, ...]) -> DType:
    """Return the dtype of a combination; None while every member fits any dtype."""
    arrays = [array for op in operators for array in op._arrays()]
    if not arrays:
        return None
    xp = namespace_of("operators", arrays[0])
    dtype = common_dtype(xp, *(op.dtype for op in operators))
    return complex_partner(dtype, xp) if any(op._forces_complex for op in operators) else dtype


def plan_by_parts(
    parts: tuple[LinearOperator, ...], make: Callable[[tuple[LinearOperator, ...]], LinearOperator], settings: Settings
) -> ByParts | None:
    """Return the plan of what `make` makes of the parts when they are prepared; None where nothing of them can be."""
    prepared = tuple(_part(part, settings) for part in parts)
    return None if all(map(is_, prepared, parts)) else ByParts(make(prepared))


def _part(operator: LinearOperator, settings: Settings) -> LinearOperator:
    """Return a part prepared, itself where that would only add a step."""
    prepared: LinearOperator = prepare(operator, settings)
    return operator if isinstance(prepared, Prepared) and isinstance(prepared.plan, Scaling) else prepared
