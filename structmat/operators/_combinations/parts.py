"""What operators made of operators share: the checks of their parts, and how prepared parts compute their products."""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from typing import Any

from structmat._arrays import (
    broadcast_shapes,
    common_dtype,
    complex_partner,
    in_precision,
    namespace_of,
    precision_of,
)
from structmat._arrays.dispatch import prepare
from structmat._arrays.errors import ArgumentTypeError, ArgumentValueError
from structmat._arrays.typing import Array, DType, Namespace
from structmat._engine import ByParts, Scaling, Settings
from structmat.operators._base import LinearOperator
from structmat.operators._combinations.prepared import Prepared

__all__ = ["common_dtype_of", "flat", "plan_by_parts", "require_operators", "values_of"]

_DEEPEST = 100
"""Levels of operators within operators: each takes a few frames of Python's stack in a product, a copy or a file."""
_MOST = 100_000
"""Operators within operators, as often as each occurs: a recurrence may double them in each step."""


def require_operators(owner: str, argument: str, operators: tuple[Any, ...]) -> None:
    if not operators:
        raise ArgumentValueError(owner, argument, "must be at least one operator, got none")
    for op in operators:
        if not isinstance(op, LinearOperator):
            raise ArgumentTypeError(owner, argument, f"must be structmat operators, got {type(op).__name__}")
    if limit := _exceeded_limit(operators):
        text = f"must not {limit}; multiply out with to_dense(), or apply them one by one"
        raise ArgumentValueError(owner, argument, text)
    if arrays := [array for op in operators for array in op._arrays()]:
        namespace_of(owner, *arrays)
    broadcast_shapes(owner, *(op.batch_shape for op in operators))


def _exceeded_limit(operators: tuple[LinearOperator, ...]) -> str | None:
    """Return what is too much in how operators are nested, without recursion; None where nothing is."""
    depth, count, level = 0, 0, list(operators)
    while level:
        depth, count = depth + 1, count + len(level)
        if depth > _DEEPEST:
            return f"be nested more than {_DEEPEST} deep"
        if count > _MOST:
            return f"hold more than {_MOST:,} operators, each counted as often as it occurs"
        level = [part for op in level for part in _parts(op)]
    return None


def _parts(operator: LinearOperator) -> tuple[LinearOperator, ...]:
    """Return the operators that one holds."""
    parts: list[LinearOperator] = []
    for name, axes in operator._core_axes.items():
        if axes is None and not isinstance(operator, Prepared):
            inner = getattr(operator, name)
            parts.extend(inner if isinstance(inner, tuple) else (inner,))
    return tuple(parts)


def flat(
    operators: tuple[LinearOperator, ...], kind: type[Any], inner: Callable[[Any], tuple[LinearOperator, ...]]
) -> tuple[LinearOperator, ...]:
    """Return operators with the parts of those of one kind in their place."""
    if not any(type(op) is kind for op in operators):
        return operators
    return tuple(part for op in operators for part in (inner(op) if type(op) is kind else (op,)))


def common_dtype_of(operators: tuple[LinearOperator, ...]) -> DType:
    """Return the dtype of a combination; None while every member fits any dtype."""
    dtypes = [op.dtype for op in operators]
    forced = any(op._forces_complex for op in operators)
    known = [dtype for dtype in dtypes if dtype is not None]
    if not known:
        return None
    if not forced and all(dtype == known[0] for dtype in known):
        return known[0]
    xp = next(op for op in operators if op.dtype is not None)._own_namespace()
    counted = [part for op, dtype in zip(operators, dtypes, strict=True) for part in op._counted_as(dtype)]
    dtype = common_dtype(xp, *counted)
    return complex_partner(dtype, xp) if forced else dtype


def values_of(part: LinearOperator, whole: LinearOperator, xp: Namespace, hook: str, *arguments: str) -> Any:
    """Return what a hook has for a part; one without arrays is asked in NumPy, as it knows no device and no dtype."""
    known = bool(part._arrays())
    values = getattr(part, hook)(*arguments, xp if known else part._own_namespace())
    if known or whole.dtype is None:
        return values

    def moved(array: Array) -> Array:
        return in_precision(xp.asarray(array, device=whole.device), precision_of(whole.dtype, xp), xp)

    return tuple(map(moved, values)) if isinstance(values, tuple) else moved(values)


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
