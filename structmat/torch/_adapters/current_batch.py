"""The batch that a bank computes now, and which change each row has that a layer gets: `CurrentBatch`."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from structmat._errors import ArgumentValueError
from structmat.torch._adapters.recomputation import is_in_backward

__all__ = ["Block", "CurrentBatch"]


@dataclass(frozen=True, eq=False)
class Block:
    """One ``with bank.use(...)``: the names of a batch, and what its forward passes told of their inputs."""

    names: tuple[str | None, ...]
    """One for each sample, or for each token."""
    numbers: Tensor
    """The places in the stacks that the names have."""
    beams: int = 1
    """How often beam search repeats each sample in the inputs of the model, one after the other."""
    thread: int = field(default_factory=threading.get_ident)
    """The thread that the block was entered in."""
    tokens: set[int] = field(default_factory=set)
    """How many tokens of all samples together inputs of the model had, in this block."""
    latest: set[int] = field(default_factory=set)
    """The same of the latest forward pass."""
    known: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)
    """What `numbers_of` has found for inputs of some shapes, in the latest forward pass."""

    def note(self, tokens: set[int]) -> None:
        """Note the tokens that inputs of the model have, in the forward pass that begins."""
        self.tokens.update(tokens)
        self.latest.clear()
        self.latest.update(tokens)
        self.known.clear()


class CurrentBatch:
    """What all stacks of a bank know of the batch that is computed now.

    A copy begins without a batch: nobody would leave the block in it.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.enter(None)

    block: Block | None
    numbers: Tensor | None
    """The place in the stacks for each sample; None for the base alone. As those of the block, for compilers."""
    beams: int

    def enter(self, block: Block | None) -> Block | None:
        """Make a block the current one; return the one before."""
        before = getattr(self, "block", None)
        self.block = block
        self.numbers, self.beams = (None, 1) if block is None else (block.numbers, block.beams)
        return before

    def __deepcopy__(self, memo: dict[int, Any]) -> CurrentBatch:
        memo[id(self)] = made = CurrentBatch()
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]  # locks are no state

    def require_own_thread(self) -> None:
        """Refuse to compute anything in another thread than that of the block."""
        if torch.compiler.is_compiling() or self.block is None or is_in_backward():
            return
        if self.block.thread != threading.get_ident():
            text = "the bank computes a batch of another thread: let threads wait for each other, or give each a bank"
            raise ArgumentValueError("AdapterBank.use", None, text)

    def numbers_of(self, x: Tensor, *, is_one_of_several: bool) -> Tensor:
        """Return which change each sample on the first axis of a layer's inputs has, or each row of packed sequences.

        The inputs of a layer are known to be those of the samples by their shape: the first axis is that of the
        samples, or all tokens of the model's own inputs are the rows, those of a sample one after the other. Anything
        else is refused. A layer that is one of several in a list may have got some of the tokens alone, as experts do:
        there as many rows as samples are no samples, unless the samples have one token each.
        """
        block = None if torch.compiler.is_compiling() else self.block
        if block is None:
            return self._found(x, is_one_of_several=is_one_of_several)
        key = x.shape, is_one_of_several
        found = block.known.get(key)
        if found is None:
            found = block.known[key] = self._found(x, is_one_of_several=is_one_of_several)
        return found

    def _found(self, x: Tensor, *, is_one_of_several: bool) -> Tensor:
        """Return what `numbers_of` does, whatever was asked before."""
        numbers, beams = self.numbers, self.beams
        assert numbers is not None  # noqa: S101  # the caller looks
        count = numbers.shape[0]
        n_samples, n_rows = count * beams, x.shape[:-1].numel()
        is_compiling = torch.compiler.is_compiling()
        tokens: set[int] = set()
        is_doubtful = is_one_of_several and x.ndim == 2 and not is_compiling
        if not is_compiling and self.block is not None:
            tokens = self.block.tokens
            is_doubtful = is_doubtful and n_rows not in self.block.latest
        if n_rows == count and beams == 1:
            repeats = 0 if is_doubtful else 1
        elif x.shape[0] == n_samples and not is_doubtful:
            repeats = beams
        elif x.shape[0] == count and x.ndim > 2:  # an encoder, whose outputs beam search repeats
            repeats = 1
        elif x.ndim == 2 and n_rows in tokens and n_rows % count == 0:
            repeats = n_rows // count
        else:
            repeats = 0
        if not repeats:
            of_tokens = f", and {sorted(tokens)} tokens in all" if tokens else ""
            text = (
                f"must be one for each sample, or for each token, got {count}{of_tokens}, and a layer has inputs of "
                f"shape {tuple(x.shape)}: that these are the rows of the samples in their order is not known. Layers "
                "with the tokens on the first axis, and those that get some of the rows, are served by using_adapter"
            )
            raise ArgumentValueError("AdapterBank.use", "names", text)
        return numbers if repeats == 1 else numbers.repeat_interleave(repeats)
