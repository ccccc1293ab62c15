"""`AdapterBank`: many adapters of one model, of which each sample of a batch has its own."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from structmat._adapter_format import PREFIX, factor_key
from structmat._arguments import integer
from structmat._errors import ArgumentTypeError, ArgumentValueError, as_own, warn_caller
from structmat._files import first_names, unwrapped
from structmat.torch._adapters.adapter import CDDAdapter
from structmat.torch._adapters.bank_adapter import BankAdapter
from structmat.torch._adapters.current_batch import Block, CurrentBatch
from structmat.torch._adapters.head_stack import HeadStack
from structmat.torch._files.folder import Stored, read_folder, require_finite, write_folder
from structmat.torch._files.load import require_alike
from structmat.torch._files.low_bits import require_known_bits
from structmat.torch._files.save import settings_of
from structmat.torch._layers import CDDLinear
from structmat.torch._model.wrapping import adapted_layers

__all__ = ["AdapterBank"]

_SEVERAL = (nn.ModuleList, nn.ModuleDict)
"""Containers of modules of which some may get a part of the rows of a batch each."""


class AdapterBank:
    """Many adapters of one model, of which each sample of a batch has its own, in serving and in training.

    Parameters
    ----------
    model : Module
        An adapted model, by `adapt` or `load_adapter`, of which linear layers alone are adapted. Its adapter says which
        layers and shapes all others have, and what new ones begin with; from now on the model computes what its base
        does, outside of `use`.
    capacity : int, default 8
        For how many adapters there is room at first. It is doubled where more are added; a compiled model is compiled
        again then, and an optimiser has to be made again.

    Raises
    ------
    ValueError
        If the model is not adapted, another layer than a linear one is, or the vectors are on the device meta.
    TypeError
        If an argument is of another kind.

    See Also
    --------
    adapt, load_adapter : Say what the adapters of the bank look like.
    using_adapter : One adapter after the other, with a head of its own.
    structmat.peft : Mixed batches by ``adapter_names``, as for other methods of PEFT.

    Notes
    -----
    The vectors of all adapters are stacked, with the adapters on the first axis, so that `parameters` are as many as
    those of one adapter, and a batch needs no loop: a token costs what it costs with one adapter for all, but for the
    gather. Adapters must have one `n_factors`, `block_size` and `factor_scale`; each has an `alpha` of its own.

    Linear layers that are trained beside the adapter, as a head is by ``adapt(..., train=["classifier"])``, are stacked
    too, so that each adapter has its own; None has that of the model. Other modules that are trained are shared by all.

    In training the gradient of each adapter is that of a run of its own with its samples, if the loss adds the samples
    up. Optimisers with momentum move adapters, too, of which a batch has no sample.

    A bank computes one batch at a time: a second thread that enters a block, or calls the model meanwhile, gets an
    error.

    The rows that a layer gets must be those of the samples in their order, which their shape tells: the samples on the
    first axis, or all tokens of the model's inputs on one axis, those of a sample one after the other. Other layers are
    refused, as experts are when the bank is made: their rows may be those of any sample.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import AdapterBank, adapt
    >>> _ = torch.manual_seed(2)
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    >>> _ = adapt(model, init="normal")
    >>> bank = AdapterBank(model)
    >>> bank.add("anna")
    >>> bank.add("ben")
    >>> x = torch.ones(3, 8)
    >>> with bank.use(["anna", None, "anna"]):
    ...     y = model(x)
    >>> torch.equal(y[0], y[2]), torch.allclose(y[1], model(x)[1]), torch.allclose(y[0], y[1])
    (True, True, False)
    >>> bank.evict("ben")
    >>> list(bank)
    ['anna']
    """

    model: nn.Module
    """The adapted model."""

    def __init__(self, model: nn.Module, *, capacity: int = 8) -> None:
        if not isinstance(model, nn.Module):
            raise ArgumentTypeError("AdapterBank", "model", f"must be a torch.nn.Module, got {type(model).__name__}")
        self._capacity = integer(capacity, "AdapterBank", "capacity", 1)
        layers = {unwrapped(path): layer for path, layer in adapted_layers(model).items()}
        if not layers:
            text = "has no adapted layer: call adapt, or load_adapter with the folder of one of the adapters"
            if hasattr(model, "peft_config"):
                text = "is a model of PEFT: it takes a name for each sample itself, by model(..., adapter_names=[...])"
            raise ArgumentValueError("AdapterBank", "model", text)
        for path, layer in layers.items():
            _require_stackable(path, layer)
        self.model = model
        self._layers: dict[str, Any] = layers
        self._settings = json.loads(settings_of(model))
        self._batch = CurrentBatch()
        self._numbers: dict[str, int] = {}
        self._alphas: dict[str, float] = {}  # as they were given: those of the stacks may be rounded
        modules = dict(model.named_modules())
        for path, layer in adapted_layers(model).items():
            several = any(isinstance(modules[parent], _SEVERAL) for parent in _parents(path))
            layer.adapter = BankAdapter(layer.adapter, self._capacity, self._batch, is_one_of_several=several)
        self._heads: dict[str, HeadStack] = {}
        for path, head in _heads(model).items():
            self._heads[unwrapped(path)] = HeadStack(head, self._capacity, self._batch)
            _exchange(model, path, self._heads[unwrapped(path)])
        self._is_removed = False
        self._check = model.register_forward_pre_hook(partial(_require_samples, self._batch), with_kwargs=True)

    @property
    def capacity(self) -> int:
        """For how many adapters there is room."""
        return self._capacity

    @property
    def n_bytes(self) -> int:
        """The bytes of all stacks, those of the free places included."""
        return sum(parameter.nbytes for parameter in self.parameters())

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __contains__(self, name: object) -> bool:
        return name in self._numbers

    def __repr__(self) -> str:
        return f"AdapterBank({len(self)} adapters of {len(self._layers)} layers, room for {self.capacity})"

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the stacks of vectors, for an optimiser.

        Yields
        ------
        Parameter
            Of shape (1 + capacity, ...): the first entry stands for no change, and stays zero.
        """
        for adapters in self._adapters():
            yield from adapters.stack.vectors
        for head in self._heads.values():
            yield from head.stacks.values()

    def number(self, name: str) -> int:
        """Return the place of an adapter on the first axis of the stacks.

        Parameters
        ----------
        name : str
            Of the adapter.

        Returns
        -------
        int
            At least 1. It stays the same until the adapter is evicted.

        Raises
        ------
        ValueError
            If there is no such adapter.
        """
        return self._place(name, "number")

    # ---- which adapters there are

    def add(self, name: str, folder: str | os.PathLike[str] | None = None) -> None:
        """Add an adapter.

        Parameters
        ----------
        name : str
            A new name.
        folder : path-like, optional
            What `save_adapter`, `save` or PEFT wrote, for the same layers. Default: a copy of the adapter that the
            model had when the bank was made.

        Raises
        ------
        ValueError
            If the name is taken, or the folder holds no adapter of these layers and shapes, or another head than the
            model has; nothing has changed then.
        TypeError
            If the name is no text.
        FileNotFoundError
            If there is no such file.
        """
        self._require_in_place("add")
        if not isinstance(name, str):
            raise ArgumentTypeError("AdapterBank.add", "name", f"must be a str, got {type(name).__name__}")
        if not name:
            raise ArgumentValueError("AdapterBank.add", "name", "must not be empty")
        if name in self._numbers:
            text = f"{name!r} is there already; replace it, or evict it first"
            raise ArgumentValueError("AdapterBank.add", "name", text)
        stored = None if folder is None else self._read(folder)
        if len(self) == self.capacity:
            self._grow()
        taken = set(self._numbers.values())
        number = next(place for place in range(1, 1 + self.capacity) if place not in taken)
        self._put(name, number, stored)

    def replace(self, name: str, folder: str | os.PathLike[str]) -> None:
        """Put the adapter of a folder in the place of one that is there.

        Parameters
        ----------
        name : str
            Of the adapter.
        folder : path-like
            As for `add`.

        Raises
        ------
        ValueError
            If there is no such adapter, or as from `add`; nothing has changed then.
        FileNotFoundError
            If there is no such file.
        """
        number = self._place(name, "replace")
        self._put(name, number, self._read(folder))

    def evict(self, name: str) -> None:
        """Take out an adapter; its place is free for another one.

        Parameters
        ----------
        name : str
            Of the adapter.

        Raises
        ------
        ValueError
            If there is no such adapter, or a batch with its name is computed now.
        """
        number = self._place(name, "evict")
        if self._batch.block is not None and name in self._batch.block.names:
            text = (
                f"{name!r} is used by a batch: leave the block of use() first, since another adapter may take its place"
            )
            raise ArgumentValueError("AdapterBank.evict", "name", text)
        for adapters in self._adapters():
            adapters.put(number, [torch.zeros_like(vector[0]) for vector in adapters.stack.vectors], 0.0)
        for head in self._heads.values():
            head.put(number, {key: torch.zeros_like(own[0]) for key, own in head.stacks.items()})
        del self._numbers[name], self._alphas[name]

    def save(self, name: str, folder: str | os.PathLike[str], *, bits: int | None = None, force: bool = False) -> Path:
        """Write one adapter to a folder, as `save_adapter` does.

        Parameters
        ----------
        name : str
            Of the adapter.
        folder : path-like
            Created if necessary.
        bits : int, optional
            4 or 8 for a small file, as in `save_adapter`.
        force : bool, default False
            Whether to replace existing files.

        Returns
        -------
        Path
            The folder: `load_adapter` and PEFT read it too.

        Raises
        ------
        ValueError
            If there is no such adapter, it holds NaN or infinity, or `bits` is another number.
        TypeError
            If `bits` is no integer.
        FileExistsError
            If a file exists and not `force`.
        """
        require_known_bits(bits, "AdapterBank.save")
        number = self._place(name, "save")
        state = {
            factor_key(path, i): stack[number].detach().clone()
            for path, layer in self._layers.items()
            for i, stack in enumerate(layer.adapter.stack.vectors)
        }
        for path, head in self._heads.items():
            for key, stack in head.stacks.items():
                state[f"{PREFIX}{path}.{key}"] = stack[number].detach().clone()
        require_finite(state, "AdapterBank.save", name)
        settings = {**self._settings, "alpha": self._alpha(name), "modules_to_save": list(self._heads) or None}
        content = json.dumps(settings, indent=2).encode() + b"\n"
        write_folder(Path(folder), state, content, "AdapterBank.save", bits=bits, force=force)
        return Path(folder)

    def remove(self) -> None:
        """Give the layers of the model back the adapter, and the head, that they had when the bank was made.

        It has the dtype and the device that the model has by now. The bank is of no use any more.
        """
        for layer in self._layers.values():
            if isinstance(layer.adapter, BankAdapter):
                template, stack = layer.adapter.template, layer.adapter.stack
                layer.adapter = template.to(stack.vectors[0]).train(layer.training)
        modules = {module: path for path, module in self.model.named_modules()}
        for head in self._heads.values():
            if head in modules:
                _exchange(self.model, modules[head], head.base.requires_grad_())
        self._check.remove()
        self._is_removed = True

    # ---- a batch

    def use(
        self, names: Sequence[str | None], *, lengths: Sequence[int] | Tensor | None = None, beams: int = 1
    ) -> AbstractContextManager[None]:
        """Let each sample of a batch have its own adapter, inside a ``with`` block.

        Parameters
        ----------
        names : sequence of str or None
            Of adapters, one for each sample, along the first axis of the layers' inputs; None for the base alone. Or
            one for each token, for sequences that are packed into one.
        lengths : sequence of int, optional
            The numbers of tokens of packed sequences: then there is one name for each sequence.
        beams : int, default 1
            How often beam search repeats each sample, one after the other.

        Returns
        -------
        context manager
            The model itself is called inside.

        Raises
        ------
        ValueError
            If there is no such adapter, or no name, or the bank was removed; or, from the model inside, if its inputs
            are not of as many samples or tokens, or a layer gets rows of which it is not known whose they are.
        TypeError
            If `names` is no sequence of texts, or `lengths` holds other numbers than integers.

        Warns
        -----
        RuntimeWarning
            If it is called without ``with``, so that the model computes what its base does.

        Notes
        -----
        The backward pass may follow behind the block, unless gradient checkpointing computes layers again in it.

        Examples
        --------
        >>> import torch
        >>> from structmat.torch import AdapterBank, adapt
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4))
        >>> _ = adapt(model, init="normal")
        >>> bank = AdapterBank(model)
        >>> bank.add("anna")
        >>> packed = torch.ones(1, 5, 4)
        >>> with bank.use(["anna", None], lengths=[3, 2]):
        ...     y = model(packed)
        >>> (y[0] == y[0, 4]).all(1).tolist()
        [False, False, False, True, True]
        """
        self._require_in_place("use")
        if isinstance(names, Tensor) or not isinstance(names, Sequence):
            text = f"must be a sequence of names, one for each sample, got {names!r:.80}"
            raise ArgumentTypeError("AdapterBank.use", "names", text)
        if isinstance(names, str) or not names:
            raise ArgumentValueError("AdapterBank.use", "names", f"must be one for each sample, got {names!r}")
        given: Sequence[Any] = names  # whatever the annotation says
        if wrong := [each for each in given if not (each is None or isinstance(each, str))]:
            text = f"must be texts or None, one for each sample, got {wrong[0]!r:.80}"
            raise ArgumentTypeError("AdapterBank.use", "names", text)
        device = next(self.parameters()).device
        places = {name: 0 if name is None else self._place(name, "use") for name in set(names)}
        numbers = torch.tensor([places[name] for name in names], device=device)
        if lengths is not None:
            numbers = numbers.repeat_interleave(_checked_lengths(lengths, len(names)).to(device))
        return _Use(self._entered(tuple(names), numbers, integer(beams, "AdapterBank.use", "beams", 1)))

    @contextmanager
    def _entered(self, names: tuple[str | None, ...], numbers: Tensor, beams: int) -> Iterator[None]:
        """Make a block the current one, in this thread alone."""
        batch, block = self._batch, Block(names, numbers, beams)
        with batch.lock:
            if batch.block is not None and batch.block.thread != block.thread:
                text = "computes a batch of another thread: let threads wait for each other, or give each a bank"
                raise ArgumentValueError("AdapterBank.use", None, text)
            before = batch.enter(block)
        try:
            yield
        finally:
            with batch.lock:
                batch.enter(before)

    # ---- what the methods share

    def _adapters(self) -> Iterator[BankAdapter]:
        for layer in self._layers.values():
            if isinstance(layer.adapter, BankAdapter):
                yield layer.adapter

    def _require_in_place(self, caller: str) -> None:
        """Refuse a bank that was taken out of its model."""
        if self._is_removed:
            text = "the bank was taken out of its model by remove(): make a new one"
            raise ArgumentValueError(f"AdapterBank.{caller}", None, text)

    def _place(self, name: str, caller: str) -> int:
        """Return the place of an adapter in the stacks; refuse a name that the bank does not have."""
        self._require_in_place(caller)
        if name not in self._numbers:
            text = f"{name!r} is no adapter of the bank, which has {first_names(list(self)) or 'none'}"
            raise ArgumentValueError(f"AdapterBank.{caller}", "name", text)
        return self._numbers[name]

    def _alpha(self, name: str) -> float:
        """Return what an adapter is multiplied by: as it was given, unless a loaded state has put in another one."""
        alphas = next(self._adapters()).alphas
        held, given = alphas[self._numbers[name]], self._alphas[name]
        return given if held == held.new_tensor(given) else float(held)

    def _put(self, name: str, number: int, stored: Stored | None) -> None:
        """Put what a folder holds into a place of the stacks, or what the model had when the bank was made."""
        alpha = self._settings["alpha"] if stored is None else stored.options.alpha
        for path, layer in self._layers.items():
            adapters: BankAdapter = layer.adapter
            adapters.put(number, adapters.template.vectors if stored is None else stored.vectors[path], alpha)
        for path, head in self._heads.items():
            own = dict(head.base.named_parameters())
            head.put(number, own if stored is None else {key: stored.beside[f"{path}.{key}"] for key in own})
        self._numbers[name], self._alphas[name] = number, alpha

    def _grow(self) -> None:
        self._capacity *= 2
        for adapters in self._adapters():
            adapters.grow(self._capacity)
        for head in self._heads.values():
            head.grow(self._capacity)

    def _read(self, folder: str | os.PathLike[str]) -> Stored:
        """Read a folder, and refuse one of other layers or shapes, or with tensors that samples cannot have alone."""
        with as_own("AdapterBank", "load_adapter"):
            stored = read_folder(folder)
            require_alike({path: layer.adapter.template for path, layer in self._layers.items()}, stored)
        heads = {
            f"{path}.{key}": own for path, head in self._heads.items() for key, own in head.base.named_parameters()
        }
        if differing := sorted(heads.keys() - stored.beside.keys()):
            raise ArgumentValueError(
                "AdapterBank", "folder", f"lacks {differing[0]}, of which each adapter has its own"
            )
        if differing := sorted(stored.beside.keys() - heads.keys()):
            text = (
                f"holds {differing[0]} beside the adapter, which is no linear layer that the model of the bank trains: "
                "make the bank of a model from such a folder, or serve it by using_adapter"
            )
            raise ArgumentValueError("AdapterBank", "folder", text)
        for key, own in heads.items():
            if stored.beside[key].shape != own.shape:
                text = f"holds {key} of shape {tuple(stored.beside[key].shape)}, the model has {tuple(own.shape)}"
                raise ArgumentValueError("AdapterBank", "folder", text)
        return stored


class _Use(AbstractContextManager[None]):
    """What `AdapterBank.use` returns: it warns if nobody enters it, where the model computes what its base does."""

    def __init__(self, block: AbstractContextManager[None]) -> None:
        self._block = block
        self._is_entered = False

    def __enter__(self) -> None:
        self._is_entered = True
        self._block.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return self._block.__exit__(kind, error, traceback)

    def __del__(self) -> None:
        if not self._is_entered:
            text = "has no effect by itself: call the model inside of `with bank.use(...):`"
            warn_caller(f"AdapterBank.use: {text}", RuntimeWarning)


def _require_samples(batch: CurrentBatch, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse inputs of a model that are not of as many samples, or tokens, as names were given.

    Layers cannot tell: the rows of a sample may stand on their first axis, too.
    """
    block = batch.block
    if torch.compiler.is_compiling() or block is None:
        return
    tensors = [each for each in (*args, *kwargs.values()) if isinstance(each, Tensor) and each.ndim]
    if not tensors or tensors[0].is_nested:  # which layers refuse
        return
    given, count = tensors[0], len(block.numbers)
    if not (given.shape[0] == count * block.beams or count in {given.numel(), given.shape[:-1].numel()}):
        text = (
            f"must be one for each sample, or for each token, got {count} for inputs of shape {tuple(given.shape)}; "
            "where beam search repeats each sample, say how often by beams"
        )
        raise ArgumentValueError("AdapterBank.use", "names", text)
    # The last axis of floating-point inputs holds features; the second of several others is that of the tokens.
    axes = (each.shape[:-1] if each.is_floating_point() else each.shape for each in tensors)
    block.note({own[:2].numel() for own in axes})


def _checked_lengths(lengths: Sequence[int] | Tensor, count: int) -> Tensor:
    """Return the numbers of tokens of packed sequences; refuse what is no number of tokens."""
    if not isinstance(lengths, (Tensor, Sequence)) or isinstance(lengths, str):
        text = f"must be a sequence of numbers of tokens, got {lengths!r:.80}"
        raise ArgumentTypeError("AdapterBank.use", "lengths", text)
    try:
        counts = torch.as_tensor(lengths)
    except (TypeError, ValueError, RuntimeError) as error:
        text = f"must be integers, numbers of tokens, got {lengths!r:.80}"
        raise ArgumentTypeError("AdapterBank.use", "lengths", text) from error
    if counts.is_floating_point() or counts.is_complex() or counts.dtype == torch.bool:
        text = f"must be integers, numbers of tokens, got {counts.dtype}"
        raise ArgumentTypeError("AdapterBank.use", "lengths", text)
    if counts.shape != (count,):
        text = f"must be one for each of {count} names, got shape {tuple(counts.shape)}"
        raise ArgumentValueError("AdapterBank.use", "lengths", text)
    if counts.numel() and int(counts.min()) < 0:
        raise ArgumentValueError("AdapterBank.use", "lengths", f"must not be negative, got {int(counts.min())}")
    return counts


def _heads(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers that are trained beside the adapter, by path, but for those that share a weight."""
    adapted = tuple(f"{path}." for path in adapted_layers(model))
    uses = Counter(id(own) for _, own in model.named_parameters(remove_duplicate=False))
    found = {}
    for path, module in model.named_modules():
        if path and type(module) is nn.Linear and not path.startswith(adapted):
            parameters = list(module.parameters())
            if all(own.requires_grad and uses[id(own)] == 1 for own in parameters):
                found[path] = module
    return found


def _exchange(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module in the place of another one."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def _parents(path: str) -> Iterator[str]:
    """Yield the paths of the modules that a module is within, from the outermost on."""
    names = path.split(".")
    for depth in range(len(names)):
        yield ".".join(names[:depth])


def _require_stackable(path: str, layer: Any) -> None:
    """Refuse a layer whose adapters cannot be stacked."""
    adapter = getattr(layer, "adapter", None)
    if isinstance(adapter, BankAdapter):
        raise ArgumentValueError("AdapterBank", "model", f"has a bank already, in {path}: add adapters to that one")
    if not isinstance(layer, CDDLinear) or type(adapter) is not CDDAdapter:
        text = (
            f"has {path}, a {type(layer).__name__} with a {type(adapter).__name__}: adapters of whole linear layers "
            "can be in one batch; serve others by using_adapter, or by adapter_names of structmat.peft"
        )
        raise ArgumentValueError("AdapterBank", "model", text)
    if any("expert" in part and not part.startswith("shared") for part in path.split(".")):
        text = (
            f"has {path}, which is of an expert: it gets the tokens that a router chooses, and nothing tells of which "
            "samples these are; serve such adapters by using_adapter"
        )
        raise ArgumentValueError("AdapterBank", "model", text)
    if adapter.vectors[0].is_inference():
        text = f"has {path}, which was made in torch.inference_mode(): make and load the model outside of it"
        raise ArgumentValueError("AdapterBank", "model", text)
    if not path or layer.base is None:
        text = "is or has a layer without a model or a base around, which no folder describes"
        raise ArgumentValueError("AdapterBank", "model", text)
    if adapter.vectors[0].is_meta:
        raise ArgumentValueError("AdapterBank", "model", f"has {path} on the device meta: load its weights first")
