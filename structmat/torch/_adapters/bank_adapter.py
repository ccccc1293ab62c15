"""`BankAdapter`: the changes that all adapters of a bank make to one layer, in the place of the layer's own."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from structmat._errors import ArgumentValueError
from structmat.torch._adapters.adapter import CDDAdapter, Mixture, Vectors
from structmat.torch._adapters.current_batch import Block, CurrentBatch
from structmat.torch._adapters.growth import lengthen, longer
from structmat.torch._adapters.recomputation import checkpointing_node, is_computed_again, is_in_backward
from structmat.torch._changes.dense import wide_dtype
from structmat.torch._changes.rows import Samples

__all__ = ["BankAdapter"]


class BankAdapter(nn.Module):
    """The changes that all adapters of a bank make to one layer, in the place of the layer's own.

    Parameters
    ----------
    template : CDDAdapter
        The layer's own; its layout is that of all.
    capacity : int
        How many adapters there is room for.
    batch : CurrentBatch
        That of the bank.
    is_one_of_several : bool, default False
        Whether the layer stands in a list of modules, which may get a part of the rows each.
    """

    stack: CDDAdapter
    """The vectors of all adapters. The first matrix is zero, and stands for no change."""
    alphas: Tensor
    """What each adapter is multiplied by; no buffer, since casts of the model must not round it."""

    def __init__(
        self, template: CDDAdapter, capacity: int, batch: CurrentBatch, *, is_one_of_several: bool = False
    ) -> None:
        super().__init__()
        self._others = template, batch  # in a tuple, as the template is no part of the model now
        self.is_one_of_several = is_one_of_several
        # Initial values are not wanted: none are drawn on the device meta.
        options = template.options() | {"alpha": 1.0, "n_matrices": 1 + capacity}
        self.stack = CDDAdapter(**options, device="meta")
        like = template.vectors[0]
        # In inference mode nobody could write into them outside of it.
        with torch.inference_mode(mode=False):
            self.alphas = torch.zeros(1 + capacity, dtype=wide_dtype(like), device=like.device)
            vectors = [
                nn.Parameter(vector.new_zeros(1 + capacity, *vector.shape), requires_grad=vector.requires_grad)
                for vector in template.vectors
            ]
        self.stack.vectors = Vectors(vectors)
        # Forward passes that a backward pass may compute again: they live as long as the graph that holds them.
        self._due: weakref.WeakSet[_Forward] = weakref.WeakSet()
        self.train(template.training)

    @property
    def template(self) -> CDDAdapter:
        """The adapter that the layer had."""
        return self._others[0]

    @property
    def varies(self) -> bool:
        """Whether samples have different changes now."""
        return self._others[1].numbers is not None

    def grow(self, capacity: int) -> None:
        """Make room for more adapters; parameters stay the same objects.

        Parameters
        ----------
        capacity : int
            How many there is room for then.
        """
        with torch.inference_mode(mode=False):
            for vector in self.stack.vectors:
                lengthen(vector, 1 + capacity)
            self.alphas = longer(self.alphas, 1 + capacity)
        self.stack.n_matrices = 1 + capacity

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
            for stack, vector in zip(self.stack.vectors, vectors, strict=True):
                stack[number].copy_(vector)
            self.alphas[number] = alpha

    def get_extra_state(self) -> Tensor:
        """Return what `state_dict` holds beside the vectors: the alphas, which casts of the model must not round."""
        return self.alphas.double()

    def set_extra_state(self, state: Tensor) -> None:
        """Take over what `get_extra_state` has returned."""
        if state.shape != self.alphas.shape:
            text = (
                f"has room for {state.shape[0] - 1} adapters, the bank for {self.alphas.shape[0] - 1}: make it so large"
            )
            raise ArgumentValueError("AdapterBank", "capacity", text)
        self.alphas = state.to(self.alphas)

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """Add the changes of this batch; where none is announced, return `y` itself."""
        mixture = self._mixture(x)
        return y if mixture is None else self._noted(self.stack.add_to(y, x, mixture))

    def add_to_outputs_of(self, base: Any, x: Tensor) -> Tensor:
        """Add the changes of this batch; where none is announced, return the outputs of the base alone."""
        mixture = self._mixture(x)
        if mixture is None:
            outputs: Tensor = base(x)
            return outputs
        return self._noted(self.stack.add_to_outputs_of(base, x, mixture))

    def _mixture(self, x: Tensor) -> Mixture | None:
        """Return the changes of the rows of inputs; None where no batch is announced."""
        _, batch = self._others
        batch.require_own_thread()
        if not torch.compiler.is_compiling() and self._due and is_computed_again():
            self._require_names_of_forward(batch.block)
        if batch.numbers is None:
            return None
        numbers = batch.numbers_of(x, is_one_of_several=self.is_one_of_several).to(x.device)
        samples = Samples(numbers, self.alphas.to(x.device).index_select(0, numbers))
        return Mixture(self.stack.vectors.forward(), samples)

    # ---- gradient checkpointing, which computes a layer again in the backward pass

    def _noted(self, y: Tensor) -> Tensor:
        """Return outputs, in whose graph it is noted in which block they were computed."""
        block = self._others[1].block
        if torch.compiler.is_compiling() or block is None or is_in_backward():
            return y
        if y.grad_fn is not None:
            forward = y.grad_fn.metadata["structmat.AdapterBank"] = _Forward(block.names)
            self._due.add(forward)
        elif self.training and (node := checkpointing_node()) is not None:
            if not hasattr(node, "forwards_of_bank"):
                node.forwards_of_bank = []
            node.forwards_of_bank.append(_Forward(block.names))
            self._due.add(node.forwards_of_bank[-1])
        return y

    def _require_names_of_forward(self, block: Block | None) -> None:
        """Refuse to compute a layer again in another block than it was computed in, or outside of any."""
        if all(block is not None and each.names == block.names for each in self._due):
            return
        text = (
            "gradient checkpointing computes layers again: call backward() inside of the block of use() of the forward "
            "pass, before another block, and let go of outputs whose backward pass is not to come"
        )
        raise ArgumentValueError("AdapterBank.use", None, text)


class _Forward:
    """One forward pass of a layer; a node of its graph holds it, and nothing else."""

    def __init__(self, names: tuple[str | None, ...]) -> None:
        self.names = names
