"""The changes of a layer where each sample has its own: `SampleChanges`, and `AdapterStack`, which holds many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from structmat._errors import ArgumentValueError
from structmat.torch._adapters.adapter import CDDAdapter, RowChange, Vectors, require_floating
from structmat.torch._changes.dense import wide_dtype
from structmat.torch._changes.operation import apply_change
from structmat.torch._changes.rows import Samples
from structmat.torch._other_tools.calls import no_fast_path

__all__ = ["AdapterStack", "CurrentBatch", "SampleChanges", "is_computed_again"]


class SampleChanges(RowChange):
    """What stands in the place of a `CDDAdapter` where samples have different ones.

    Parameters
    ----------
    vectors : sequence of Tensor, shapes (K, ...)
        Those of K adapters of one layout, stacked.
    gain : float
        What products of the vectors are multiplied by.
    alphas : Tensor, shape (K,)
        What each of them is multiplied by too.
    numbers : Tensor of integers, shape (S,)
        The place in the stacks for each sample, or for each row.
    dropout : float, default 0.0
        The share of the inputs that is set to zero now.
    """

    varies = True

    def __init__(
        self, vectors: Sequence[Tensor], gain: float, alphas: Tensor, numbers: Tensor, dropout: float = 0.0
    ) -> None:
        self._vectors = vectors
        self._gain = gain
        self._alphas = alphas
        self._numbers = numbers
        self._dropout = dropout
        # By how many samples stand for one; decoding uses again what was prepared for them.
        self._samples: dict[int, Samples] = {}

    @property
    def _share_dropped(self) -> float:
        return self._dropout

    def _require_rows(self, y: Tensor, x: Tensor) -> None:
        require_floating("AdapterBank", x)

    def _applied(self, y: Tensor | None, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        return apply_change(y, x, weight, bias, self._vectors, self._gain, self._samples_of(x))

    def _samples_of(self, x: Tensor) -> Samples:
        """Return which change each of the first axis of inputs has, or each row of packed sequences.

        Beam search repeats each sample, and modules that flatten batches give the rows of a sample one after the other:
        then the first axis is a multiple of the number of samples.
        """
        count = self._numbers.shape[0]
        repeats = 1
        if x.shape[:-1].numel() != count:
            repeats, left = divmod(x.shape[0], count)
            if left or not repeats:
                text = (
                    f"must be one for each sample, or for each token, got {count}, and a layer has inputs of shape "
                    f"{tuple(x.shape)}"
                )
                raise ArgumentValueError("AdapterBank.use", "names", text)
        if torch.compiler.is_compiling():
            return self._repeated(repeats)
        if repeats not in self._samples:
            self._samples[repeats] = self._repeated(repeats)
        return self._samples[repeats]

    def _repeated(self, repeats: int) -> Samples:
        numbers = self._numbers if repeats == 1 else self._numbers.repeat_interleave(repeats)
        return Samples(numbers, self._alphas)


class CurrentBatch:
    """What all stacks of a bank know of the batch that is computed now."""

    numbers: Tensor | None = None
    """The place in the stacks for each sample; None for the base alone."""
    beams: int = 1
    """How often beam search repeats each sample in the inputs of the model."""


class AdapterStack(RowChange, nn.Module):
    """The vectors of many adapters of one layer: it stands in the place of the layer's `CDDAdapter`.

    Parameters
    ----------
    template : CDDAdapter
        Which the stack takes the place of; its layout is that of all.
    capacity : int
        How many adapters there is room for.
    batch : CurrentBatch
        That of the bank.
    """

    alphas: Tensor
    """What each adapter is multiplied by; no buffer, since casts of the model must not round it."""
    vectors: Vectors
    """Stacks of the stored vectors. The first entry of each is zero, and stands for no change."""

    def __init__(self, template: CDDAdapter, capacity: int, batch: CurrentBatch) -> None:
        super().__init__()
        like = template.vectors[0]
        self.alphas = torch.zeros(1 + capacity, dtype=wide_dtype(like), device=like.device)
        stacks = [
            nn.Parameter(vector.new_zeros(1 + capacity, *vector.shape), requires_grad=vector.requires_grad)
            for vector in template.vectors
        ]
        self.vectors = Vectors(stacks)
        self._others = template, batch  # in a tuple, as the template is no part of the model now
        self._current: tuple[Tensor, SampleChanges] | None = None
        self.train(template.training)
        self.register_forward_pre_hook(no_fast_path)

    @property
    def varies(self) -> bool:  # type: ignore[override]  # it is a constant of the other classes
        """Whether samples have different changes now."""
        return self._others[1].numbers is not None

    @property
    def template(self) -> CDDAdapter:
        """The adapter that the stack takes the place of."""
        return self._others[0]

    def grow(self, capacity: int) -> None:
        """Make room for more adapters; parameters stay the same objects.

        Parameters
        ----------
        capacity : int
            How many there is room for then.
        """
        with torch.inference_mode(mode=False):
            for vector in self.vectors:
                vector.grad = None
                vector.data = _longer(vector.data, 1 + capacity)
            self.alphas = _longer(self.alphas, 1 + capacity)
        self.forget()

    def put(self, number: int, vectors: Iterable[Tensor], alpha: float) -> None:
        """Set one of the adapters.

        Parameters
        ----------
        number : int
            Its place.
        vectors : iterable of Tensor
            As they are stored.
        alpha : float
            What it is multiplied by.
        """
        with torch.no_grad():
            for stack, vector in zip(self.vectors, vectors, strict=True):
                stack[number].copy_(vector)
            self.alphas[number] = alpha

    def forget(self) -> None:
        """Forget what was prepared for a batch."""
        self._current = None

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """Add the changes of this batch; where none is announced, return `y` itself."""
        changes = self._changes()
        return y if changes is None else changes.add_to(y, x)

    def add_to_outputs_of(self, base: Any, x: Tensor) -> Tensor:
        """Add the changes of this batch; where none is announced, return the outputs of the base alone."""
        changes = self._changes()
        if changes is None:
            outputs: Tensor = base(x)
            return outputs
        return changes.add_to_outputs_of(base, x)

    def _changes(self) -> SampleChanges | None:
        """Return the changes of the samples of this batch; None where no batch is announced."""
        template, batch = self._others
        numbers = batch.numbers
        if numbers is None and is_computed_again():
            text = "gradient checkpointing computes layers again: call backward() inside of the block of use()"
            raise ArgumentValueError("AdapterBank.use", None, text)
        if numbers is None:
            return None
        if torch.compiler.is_compiling():
            return self._made(numbers)
        if self._current is None or self._current[0] is not numbers or template.dropout:
            self._current = numbers, self._made(numbers)
        return self._current[1]

    def _made(self, numbers: Tensor) -> SampleChanges:
        template = self.template
        dropout = template.dropout if self.training else 0.0
        stacks = self.vectors.forward()
        place = stacks[0].device
        return SampleChanges(stacks, template.product_of_scales, self.alphas.to(place), numbers.to(place), dropout)


def is_computed_again() -> bool:
    """Return whether a backward pass is running, in which gradient checkpointing computes a forward pass again."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _longer(stack: Tensor, length: int) -> Tensor:
    """Return a stack with zeros behind its entries."""
    longer = stack.new_zeros(length, *stack.shape[1:])
    longer[: stack.shape[0]] = stack
    return longer
