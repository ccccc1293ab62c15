"""Stacks of operators with one batch axis, of which some members are taken."""

from __future__ import annotations

from math import prod
from typing import Any

from structmat._arrays.typing import Array, Namespace
from structmat.operators import LinearOperator


def with_flat_batch(op: LinearOperator | None, lead: tuple[int, ...], xp: Namespace) -> Any:
    """Return an operator with one batch axis in place of the batch axes `lead`; one without any is unchanged."""
    if op is None or not op.batch_shape:
        return op

    def flat(array: Array, axes: int) -> Array:
        core = tuple(array.shape[array.ndim - axes :])
        return xp.reshape(xp.broadcast_to(array, (*lead, *core)), (prod(lead), *core))

    return op._map(flat)


def members(op: LinearOperator | None, index: int | slice) -> Any:
    """Return one operator or some of a stack with one batch axis; one that is no stack is unchanged."""
    return op if op is None or not op.batch_shape else op._map(lambda array, _: array[index, ...])
