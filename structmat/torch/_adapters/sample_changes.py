"""The changes of a layer where each sample has its own: `SampleChanges`, and `AdapterStack`, which holds many."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from structmat._errors import ArgumentValueError
from structmat.torch._adapters.adapter import CDDAdapter, RowChange, Vectors, require_floating
from structmat.torch._calls import no_fast_path
from structmat.torch._changes.dense import wide_dtype
from structmat.torch._changes.rows import Samples

__all__ = ["AdapterStack", "Block", "CurrentBatch", "SampleChanges", "is_computed_again", "longer"]


class SampleChanges(RowChange):
    """What stands in the place of a `CDDAdapter` where samples have different ones.

    Parameters
    ----------
    vectors : object with a method forward
        Which returns those of K adapters of one layout, stacked, of shapes (K, ...).
    samples : Samples
        Which of them each sample has, in the order of the rows of the layer.
    like : CDDAdapter
        Has the scales and the dropout of all.
    training : bool
        Whether this is training.
    """

    alpha = 1.0  # the samples have their own

    def __init__(self, vectors: Any, samples: Samples, like: CDDAdapter, *, training: bool) -> None:
        self.vectors = vectors
        self.samples = samples
        self.product_of_scales = like.product_of_scales
        self.dropout = like.dropout
        self.training = training

    def _require_rows(self, y: Tensor, x: Tensor) -> None:
        require_floating("AdapterBank", x)


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


class AdapterStack(nn.Module):
    """The vectors of many adapters of one layer: it stands in the place of the layer's `CDDAdapter`.

    Parameters
    ----------
    template : CDDAdapter
        Which the stack takes the place of; its layout is that of all.
    capacity : int
        How many adapters there is room for.
    batch : CurrentBatch
        That of the bank.
    is_one_of_several : bool, default False
        Whether the layer stands in a list of modules, which may get a part of the rows each.
    """

    alphas: Tensor
    """What each adapter is multiplied by; no buffer, since casts of the model must not round it."""
    vectors: Vectors
    """Stacks of the stored vectors. The first entry of each is zero, and stands for no change."""

    def __init__(
        self, template: CDDAdapter, capacity: int, batch: CurrentBatch, *, is_one_of_several: bool = False
    ) -> None:
        super().__init__()
        like = template.vectors[0]
        # In inference mode nobody could write into them outside of it.
        with torch.inference_mode(mode=False):
            self.alphas = torch.zeros(1 + capacity, dtype=wide_dtype(like), device=like.device)
            stacks = [
                nn.Parameter(vector.new_zeros(1 + capacity, *vector.shape), requires_grad=vector.requires_grad)
                for vector in template.vectors
            ]
        self.vectors = Vectors(stacks)
        self._others = template, batch  # in a tuple, as the template is no part of the model now
        self.is_one_of_several = is_one_of_several
        # Forward passes that a backward pass may compute again: they live as long as the graph that holds them.
        self._due: weakref.WeakSet[_Forward] = weakref.WeakSet()
        self.train(template.training)
        self.register_forward_pre_hook(no_fast_path)

    @property
    def varies(self) -> bool:
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
                vector.data = longer(vector.data, 1 + capacity)
            self.alphas = longer(self.alphas, 1 + capacity)

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
        changes = self._changes(x)
        return y if changes is None else self._noted(changes.add_to(y, x))

    def add_to_outputs_of(self, base: Any, x: Tensor) -> Tensor:
        """Add the changes of this batch; where none is announced, return the outputs of the base alone."""
        changes = self._changes(x)
        if changes is None:
            outputs: Tensor = base(x)
            return outputs
        return self._noted(changes.add_to_outputs_of(base, x))

    def _changes(self, x: Tensor) -> SampleChanges | None:
        """Return the changes of the rows of inputs; None where no batch is announced."""
        template, batch = self._others
        batch.require_own_thread()
        if not torch.compiler.is_compiling() and self._due and is_computed_again():
            self._require_names_of_forward(batch.block)
        if batch.numbers is None:
            return None
        numbers = batch.numbers_of(x, is_one_of_several=self.is_one_of_several).to(x.device)
        samples = Samples(numbers, self.alphas.to(x.device).index_select(0, numbers))
        return SampleChanges(self.vectors, samples, template, training=self.training)

    # ---- gradient checkpointing, which computes a layer again in the backward pass

    def _noted(self, y: Tensor) -> Tensor:
        """Return outputs, in whose graph it is noted in which block they were computed."""
        block = self._others[1].block
        if torch.compiler.is_compiling() or block is None or is_in_backward():
            return y
        if y.grad_fn is not None:
            forward = y.grad_fn.metadata["structmat.AdapterBank"] = _Forward(block.names)
            self._due.add(forward)
        elif self.training and (node := _checkpointing_node()) is not None:
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


def is_in_backward() -> bool:
    """Return whether a backward pass is running in this thread."""
    return torch._C._current_graph_task_id() != -1


def is_computed_again() -> bool:
    """Return whether gradient checkpointing computes a forward pass again, in a backward pass.

    A plain call in a hook of the backward pass is none: that has no function of checkpointing around it.
    """
    return not torch.compiler.is_compiling() and is_in_backward() and _checkpointing_frame() is not None


def _checkpointing_frame() -> FrameType | None:
    """Return the innermost frame of a module of checkpointing that this is called from: torch's, or another one's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and "checkpoint" not in frame.f_code.co_filename.rpartition("/")[2]:
        frame = frame.f_back
    return frame


def _checkpointing_node() -> Any:
    """Return the node of a reentrant checkpoint that is computed without a graph now; None outside of one."""
    frame = _checkpointing_frame()
    return None if frame is None else frame.f_locals.get("ctx")


def longer(stack: Tensor, length: int) -> Tensor:
    """Return a stack with zeros behind its entries."""
    longer = stack.new_zeros(length, *stack.shape[1:])
    longer[: stack.shape[0]] = stack
    return longer
