"""What operators made of operators share: the checks of their parts, and how prepared parts compute their products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any, Self

from structmat._arrays import (
    broadcast_shapes,
    common_dtype,
    complex_partner,
    in_precision,
    is_complex,
    namespace_of,
    precision_of,
)
from structmat._arrays.dispatch import prepare
from structmat._arrays.errors import ArgumentTypeError, ArgumentValueError
from structmat._arrays.typing import Array, DType, Namespace
from structmat._engine import ByParts, Scaling, Settings
from structmat.operators._base import LinearOperator
from structmat.operators._combinations.prepared import Prepared

__all__ = [
    "Combination",
    "combined",
    "extent",
    "flat",
    "plan_by_parts",
    "require_operators",
    "require_room",
    "values_of",
]

_DEEPEST = 64
"""Levels of operators within operators: each takes up to nine frames of Python's stack of a thousand, in a pickle."""
_MOST = 100_000
"""Operators within operators, as often as each occurs: a recurrence may double them in each step."""


@dataclass(frozen=True, slots=True)
class Held:
    """What an operator holds."""

    leaves: list[tuple[Array, int]]
    """As `_leaves` returns them."""
    depth: int
    """Levels of operators within operators, its own included."""
    count: int
    """Operators, itself included, each as often as it occurs."""
    forces_complex: bool


class Combination(LinearOperator):
    """An operator made of others, its one field, which finds what these hold once, as none can be exchanged."""

    __slots__ = ("_held",)

    def _hold(self, parts: tuple[LinearOperator, ...], made_of: Sequence[LinearOperator]) -> Self:
        """Set the parts, which are those of `made_of`, or of others of this kind in there."""
        (name,) = self._core_axes
        object.__setattr__(self, name, parts)
        object.__setattr__(self, "_held", _joined(type(self), made_of, name))
        return self

    def _leaves(self) -> list[tuple[Array, int]]:
        held: Held | None = getattr(self, "_held", None)  # not set where no constructor made the operator
        return super()._leaves() if held is None else held.leaves

    @property
    def _forces_complex(self) -> bool:
        held: Held | None = getattr(self, "_held", None)
        return any(part._forces_complex for part in _parts(self)) if held is None else held.forces_complex

    @property
    def dtype(self) -> DType:
        """The common dtype of the parts."""
        if leaves := self._leaves():
            dtype, xp = leaves[0][0].dtype, namespace_of(type(self).__name__, leaves[0][0])
            if not is_complex(dtype, xp) and all(array.dtype == dtype for array, _ in leaves):
                return complex_partner(dtype, xp) if self._forces_complex else dtype
        return _common_dtype(_parts(self))


def combined(kind: type[Any], parts: tuple[LinearOperator, ...], made_of: Sequence[LinearOperator]) -> Any:
    """Return a combination of parts that are known to fit; `made_of` as for `_hold`.

    Its cost is that of joining lists. All checks of the constructor in each step of a long sum would add up.
    """
    return object.__new__(kind)._hold(parts, made_of)


def flat(operators: tuple[LinearOperator, ...], kind: type[Any]) -> tuple[LinearOperator, ...]:
    """Return operators with the parts of those of one kind in their place."""
    if not any(type(op) is kind for op in operators):
        return operators
    return tuple(part for op in operators for part in (_parts(op) if type(op) is kind else (op,)))


def require_operators(owner: str, argument: str, operators: tuple[Any, ...]) -> None:
    """Check the parts of a combination, but how deep they are nested, and how many they are."""
    if not operators:
        raise ArgumentValueError(owner, argument, "must be at least one operator, got none")
    for op in operators:
        if not isinstance(op, LinearOperator):
            raise ArgumentTypeError(owner, argument, f"must be structmat operators, got {type(op).__name__}")
    if arrays := [array for op in operators for array in op._arrays()]:
        namespace_of(owner, *arrays)
    broadcast_shapes(owner, *(op.batch_shape for op in operators))


def require_room(owner: str, argument: str, depth: int, count: int) -> None:
    """Refuse operators that are nested too deep, or are too many."""
    if depth > _DEEPEST:
        limit = f"be nested more than {_DEEPEST} deep"
    elif count > _MOST:
        limit = f"hold more than {_MOST:,} operators, each counted as often as it occurs"
    else:
        return
    text = f"must not {limit}; multiply out with to_dense(), or apply them one by one"
    raise ArgumentValueError(owner, argument, text)


def _joined(kind: type[Any], made_of: Sequence[LinearOperator], argument: str) -> Held:
    """Return what a combination holds that is made of operators, and of the parts of those of its kind."""
    leaves: list[tuple[Array, int]] = []
    depth = count = 0
    for op in made_of:
        leaves += op._leaves()
        below, more = extent(op)
        replaced = type(op) is kind
        depth, count = max(depth, below - replaced), count + more - replaced
    require_room(kind.__name__, argument, depth, count)
    return Held(leaves, depth + 1, count + 1, any(op._forces_complex for op in made_of))


def extent(operator: LinearOperator) -> tuple[int, int]:
    """Return the depth and the number of operators that one is, as `Held` counts them."""
    held: Held | None = getattr(operator, "_held", None)
    if held is not None:
        return held.depth, held.count
    depth = count = 0
    for part in _parts(operator):
        below, more = extent(part)
        depth, count = max(depth, below), count + more
    return depth + 1, count + 1


def _parts(operator: LinearOperator) -> tuple[LinearOperator, ...]:
    """Return the operators that one holds."""
    parts: list[LinearOperator] = []
    for name, axes in operator._core_axes.items():
        if axes is None and not isinstance(operator, Prepared):
            inner = getattr(operator, name)
            parts.extend(inner if isinstance(inner, tuple) else (inner,))
    return tuple(parts)


def _common_dtype(operators: tuple[LinearOperator, ...]) -> DType:
    """Return the dtype of a combination; None while every part fits any dtype."""
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
