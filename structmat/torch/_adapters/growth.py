"""Stacks of which the first axis grows: tensors and parameters with room for more entries."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["lengthen", "longer"]


def longer(stack: Tensor, length: int) -> Tensor:
    """Return a stack with zeros behind its entries."""
    longer = stack.new_zeros(length, *stack.shape[1:])
    longer[: stack.shape[0]] = stack
    return longer


def lengthen(stack: nn.Parameter, length: int) -> None:
    """Put zeros behind the entries of a parameter, which stays the same object and has no gradient then.

    A graph that someone still holds, as the last loss of a loop, keeps the node that takes the gradient of the former
    shape, and later graphs would share it. Torch lets go of it where the dtype of a parameter changes.
    """
    entries = longer(stack.data, length)
    stack.grad = None
    stack.data = entries.new_empty(0, dtype=torch.float32 if stack.dtype == torch.float16 else torch.float16)
    stack.data = entries
