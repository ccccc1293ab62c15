"""`HeadStack`: a linear layer that is trained beside the adapters, of which each sample of a batch has its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from structmat.torch._adapters.current_batch import CurrentBatch
from structmat.torch._adapters.growth import lengthen

__all__ = ["HeadStack"]


class HeadStack(nn.Module):
    """The weights of many small linear layers, such as heads of classifiers: it stands in the place of one.

    Parameters
    ----------
    base : Linear
        Which the stack takes the place of; samples without a name have it. It is frozen.
    capacity : int
        How many layers there is room for.
    batch : CurrentBatch
        That of the bank.
    """

    def __init__(self, base: nn.Linear, capacity: int, batch: CurrentBatch) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self._others = (batch,)
        with torch.inference_mode(mode=False):
            self.stacks = nn.ParameterDict(
                {name: nn.Parameter(own.new_zeros(1 + capacity, *own.shape)) for name, own in base.named_parameters()}
            )
        self.train(base.training)

    def grow(self, capacity: int) -> None:
        """Make room for more layers; parameters stay the same objects."""
        with torch.inference_mode(mode=False):
            for stack in self.stacks.values():
                lengthen(stack, 1 + capacity)

    def put(self, number: int, values: dict[str, Tensor]) -> None:
        """Set the weight and the bias of one of the layers."""
        with torch.no_grad():
            for name, stack in self.stacks.items():
                stack[number].copy_(values[name])

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer of each sample makes of its rows."""
        (batch,) = self._others
        batch.require_own_thread()
        if batch.numbers is None:
            outputs: Tensor = self.base(x)
            return outputs
        numbers = batch.numbers_of(x, is_one_of_several=False).to(x.device)
        weight = self._gathered("weight", numbers)
        rows = x.reshape(numbers.shape[0], -1, x.shape[-1])
        if "bias" in self.stacks:
            bias = self._gathered("bias", numbers).unsqueeze(1)
            y = torch.baddbmm(bias, rows, weight.mT)
        else:
            y = rows @ weight.mT
        return y.reshape(*x.shape[:-1], weight.shape[1])

    def _gathered(self, name: str, numbers: Tensor) -> Tensor:
        """Return the weights or biases of the samples; the first entry stands for those of the base."""
        stack = self.stacks[name]
        is_base = (numbers == 0).view(-1, *[1] * (stack.ndim - 1))
        return torch.where(is_base, getattr(self.base, name), stack.index_select(0, numbers))
