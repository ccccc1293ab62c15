"""`AdaptedLayer`: a frozen base layer and the changes that are added to it; what all kinds of layers share."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from structmat._arguments import check_option_names
from structmat._array_tools import ArgumentTypeError, ArgumentValueError, warn_caller
from structmat.operators import LinearOperator
from structmat.torch._adapter.cdd_adapter import CDDAdapter
from structmat.torch._layers.forward import add_per_sample
from structmat.torch._layers.frozen_base import dtype_and_device, has_computed_weight

__all__ = ["AdaptedLayer", "adapter_names"]

_OPTIONS = tuple(signature(CDDAdapter).parameters)[2:]
"""Of an adapter, its sizes left out."""


def adapter_names(names: Any, caller: str, *, none: bool = False) -> tuple[Any, ...]:
    """Return names of adapters, given as one or several; with `none`, None may be among several.

    Raises
    ------
    TypeError
        If they are something else.
    ValueError
        If one of several is given twice, without `none`.
    """
    if isinstance(names, str) and not none:
        return (names,)
    several = isinstance(names, (list, tuple))
    if not several or not all(isinstance(name, str) or (none and name is None) for name in names):
        kind = "a list of names or None" if none else "a name or a list of names"
        raise ArgumentTypeError(caller, "names", f"must be {kind}, got {names!r}")
    if not none and len(set(names)) < len(names):
        raise ArgumentValueError(caller, "names", f"must name each adapter once, got {names!r}")
    return tuple(names)


class AdaptedLayer(nn.Module):
    """A frozen base layer with adapters, whose changes add up.

    Parameters
    ----------
    base : Module, optional
        The layer to adapt; it is frozen and shared, not copied.
    in_features, out_features : int
        Columns and rows of every change.
    name : str, default "default"
        Of the first adapter.
    **options
        Arguments of `CDDAdapter`.

    Raises
    ------
    ValueError
        If an option is wrong; the base has not changed then.

    See Also
    --------
    CDDLinear, CDDConv, CDDEmbedding : The kinds of layers.
    adapt : Wraps the layers of a whole model.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import CDDLinear
    >>> layer = CDDLinear.from_linear(torch.nn.Linear(4, 4))
    >>> _ = layer.add_adapter("second", init="normal")
    >>> layer.active_adapters
    ('default', 'second')
    >>> layer.active_adapters = "second"
    >>> layer.active_adapters
    ('second',)
    """

    base: Any
    """The frozen layer, or None."""
    adapters: nn.ModuleDict
    """The changes by name."""

    def __init__(
        self, base: nn.Module | None, in_features: int, out_features: int, *, name: str = "default", **options: Any
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.base = base
        self.adapters = nn.ModuleDict()
        self._active: tuple[str, ...] = ()
        self._enabled = True
        self._selection: tuple[str | None, ...] | None = None
        self._selecting_thread: int | None = None
        self._unmerged: tuple[nn.Parameter] | None = None  # in a tuple, so as not to be registered
        self._merge_after_load = False
        self.add_adapter(name, **options)
        self.register_state_dict_post_hook(_save_unmerged)
        self.register_load_state_dict_post_hook(_merge_again)
        if base is not None:
            self.train(base.training)
            base.requires_grad_(requires_grad=False)

    # ---- adapters

    def add_adapter(self, name: str = "default", **options: Any) -> CDDAdapter:
        """Add an adapter, which is active from then on.

        Parameters
        ----------
        name : str, default "default"
            Without a dot; not yet in use here, and no attribute of `torch.nn.ModuleDict`, such as "keys".
        **options
            Arguments of `CDDAdapter`. Dtype and device are by default those of the base layer.

        Returns
        -------
        CDDAdapter
            The new one.

        Raises
        ------
        ValueError
            If the name is taken, contains a dot or is an attribute, or an option is wrong; nothing has changed then.
        TypeError
            If there is no such option; the text says what may have been meant.
        RuntimeError
            If adapters are merged.
        """
        if not isinstance(name, str):
            raise ArgumentTypeError("add_adapter", "name", f"must be a str, got {name!r}")
        if not name or "." in name or name in self.adapters:
            raise ArgumentValueError(
                "add_adapter", "name", f"{name!r} is empty, contains a dot or is taken: {list(self.adapters)}"
            )
        if hasattr(self.adapters, name):
            raise ArgumentValueError("add_adapter", "name", f"{name!r} is an attribute of torch.nn.ModuleDict")
        self._require_unmerged("add_adapter")
        check_option_names(options, _OPTIONS, type(self).__name__)
        for key, value in self._like_base().items():
            if options.get(key) is None:
                options[key] = value
        adapter = CDDAdapter(self.in_features, self.out_features, **options)
        self.adapters[name] = adapter.train(self.training)
        self._active = (*self._active, name)
        return adapter

    def remove_adapter(self, name: str) -> None:
        """Remove an adapter.

        Parameters
        ----------
        name : str
            Of the adapter.

        Raises
        ------
        ValueError
            If there is none of that name.
        RuntimeError
            If adapters are merged, or disabled or chosen in a ``with`` block now.
        """
        self._require_known(name, "remove_adapter")
        self._require_unmerged("remove_adapter")
        self._require_no_block("remove_adapter")
        del self.adapters[name]
        self._active = tuple(active for active in self._active if active != name)

    @property
    def active_adapters(self) -> tuple[str, ...]:
        """Names of the active adapters, whose changes are added; assign to choose them."""
        return self._active

    @active_adapters.setter
    def active_adapters(self, names: Sequence[str]) -> None:
        names = adapter_names(names, "active_adapters")
        for name in names:
            self._require_known(name, "active_adapters")
        self._require_unmerged("active_adapters")
        self._active = names

    def delta(self, name: str | None = None) -> LinearOperator:
        """Return a change as an operator.

        Parameters
        ----------
        name : str, optional
            Of one adapter. Default: the sum of the active ones.

        Returns
        -------
        LinearOperator
            Of shape (out_features, in_features), `alpha` included; it shares the vectors.

        Raises
        ------
        ValueError
            If there is no such adapter.
        RuntimeError
            If none is active.
        """
        names = self._active if name is None else (name,)
        if not names:
            raise RuntimeError("delta: no adapter is active")
        total: LinearOperator | None = None
        for each in names:
            self._require_known(each, "delta")
            operator = self.adapters[each].operator()
            total = operator if total is None else total + operator
        return total  # type: ignore[return-value]

    def _require_known(self, name: str, caller: str) -> None:
        if name not in self.adapters:
            raise ArgumentValueError(caller, "name", f"{name!r} is no adapter here; there are {list(self.adapters)}")

    def _like_base(self) -> dict[str, Any]:
        return {} if self.base is None else dtype_and_device(self.base)

    # ---- what is added in a forward pass

    def _added(self) -> list[CDDAdapter]:
        """Return the adapters to apply: none where they are disabled or merged."""
        if not self._enabled or self._unmerged is not None:
            return []
        return [self.adapters[name] for name in self._active]

    @property
    def _selects(self) -> bool:
        """Whether each sample has an adapter of its own now."""
        return self._selection is not None and self._enabled and self._unmerged is None

    def _selected(self, y: Tensor, x: Tensor) -> Tensor:
        """Add to each sample, along the first axis, the change of the adapter chosen for it."""
        if self._is_foreign_thread():
            raise RuntimeError("adapters_per_sample: chosen in another thread, for its batch; use copies of the model")
        selection = self._selection or ()
        if len(selection) != len(x):
            raise ArgumentValueError(
                "adapters_per_sample", "names", f"has {len(selection)} entries for a batch of {len(x)} samples"
            )
        chosen = [None if name is None else self.adapters[name] for name in selection]
        return add_per_sample(y, x, chosen, self._add)

    def _is_foreign_thread(self) -> bool:
        """Whether adapters were chosen in another thread, and not for a pass that autograd computes again there."""
        if torch.compiler.is_compiling():
            return False
        again = torch._C._current_graph_task_id() != -1
        return not again and self._selecting_thread not in {None, threading.get_ident()}

    def _add(self, adapter: CDDAdapter, y: Tensor, x: Tensor) -> Tensor:
        """Return the base's outputs `y` plus a change of the inputs `x`."""
        return adapter.add_to(y, x)

    # ---- merging

    @property
    def is_merged(self) -> bool:
        """Whether the active changes are merged into the base's weight."""
        return self._unmerged is not None

    def merge(self) -> None:
        """Replace the base's weight by one with the active changes; the forward pass is then that of the base alone.

        The old weight is kept, so that `unmerge` is exact and other layers that share it are not affected. Nothing
        happens if changes are merged already.

        Raises
        ------
        TypeError
            If the weight is quantised or of another special kind: `CDDLinear.to_linear` works for those.
        ValueError
            If the merged weight held NaN or infinity; nothing has changed then.
        RuntimeError
            If adapters are disabled or chosen for each sample in a ``with`` block now.
        """
        if self._unmerged is not None or not self._active:
            return
        self._require_no_block("merge")
        weight = self._own_weight("merge")
        with torch.inference_mode(mode=False):  # a weight made in that mode could never be trained with again
            merged = nn.Parameter(self._merged_weight(weight), requires_grad=False)
        self._unmerged = (weight,)
        self.base.weight = merged

    def unmerge(self) -> None:
        """Restore the base's weight, bit for bit. Nothing happens if nothing is merged."""
        if self._unmerged is not None:
            (self.base.weight,) = self._unmerged
            self._unmerged = None

    def _load_from_state_dict(self, *args: Any) -> None:
        """Unmerge before the base gets its weight; `_merge_again` follows."""
        self._merge_after_load = self.is_merged
        self.unmerge()
        super()._load_from_state_dict(*args)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Move the kept weight along, in `to`, `half`, ..."""
        super()._apply(fn, recurse)
        if self._unmerged is not None:
            (weight,) = self._unmerged
            moved = fn(weight.data)
            if torch._has_compatible_shallow_copy_type(weight.data, moved):
                weight.data = moved  # of other layers too, which may share it
            else:  # as torch does: to the device meta, say
                self._unmerged = (nn.Parameter(moved, weight.requires_grad),)
        return self

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Merge within a ``with`` block, for fast inference.

        Yields
        ------
        None
            The weight is as before when the block ends.
        """
        already = self.is_merged
        self.merge()
        try:
            yield
        finally:
            if not already:
                self.unmerge()

    def _merged_weight(self, weight: Tensor) -> Tensor:
        """Return the weight plus the active changes, rounded once, in the layout and dtype of the weight."""
        if weight.is_meta or any(self.adapters[name].factors[0].is_meta for name in self._active):
            raise ValueError("merge: the weight or a vector is on the device meta: load it; merge before offloading")
        wide = weight.detach().to(torch.promote_types(weight.dtype, torch.float32), copy=True)
        for name in self._active:
            wide += self._in_layout(self.adapters[name].dense(), weight).to(wide)
        merged = wide.to(weight.dtype)
        if not torch.isfinite(merged).all():
            raise ValueError(f"merge: NaN or infinity in the weight with {list(self._active)}; an adapter is broken")
        return merged

    def _in_layout(self, change: Tensor, weight: Tensor) -> Tensor:
        return change.reshape(weight.shape)

    def _own_weight(self, method: str) -> Tensor:
        if self.base is None:
            raise ArgumentTypeError(method, None, "the layer has no base, whose weight could be changed")
        if has_computed_weight(self.base):
            text = f"the weight of {type(self.base).__name__} is no parameter, as after weight_norm or pruning"
            raise ArgumentTypeError(method, None, f"{text}; remove these from the layer before merging")
        weight: Any = getattr(self.base, "weight", None)
        plain = isinstance(weight, nn.Parameter) and type(weight.data) is Tensor and weight.is_floating_point()
        if not plain or weight.numel() != self.in_features * self.out_features:
            kind = type(weight).__name__ if weight is not None else "missing"
            kind = "a buffer, to be made a torch.nn.Parameter first" if "weight" in self.base._buffers else kind
            raise ArgumentTypeError(
                method, None, f"the weight of {type(self.base).__name__} is {kind}, not a plain floating tensor"
            )
        return weight

    def _require_unmerged(self, method: str) -> None:
        if self._unmerged is not None:
            raise RuntimeError(f"{method}: adapters are merged here; call unmerge() first")

    def _require_no_block(self, method: str) -> None:
        if self._selection is not None or not self._enabled:
            block = "disable_adapters" if self._selection is None else "adapters_per_sample"
            raise RuntimeError(f"{method}: not within a block of {block}, which says what is added there")

    @property
    def weight(self) -> Any:
        """The base's weight without the changes, of which other layers may have a share."""
        if self._unmerged is not None:
            return self._unmerged[0]
        return None if self.base is None else self.base.weight

    def extra_repr(self) -> str:
        """Return additional information for torch's `repr`.

        Returns
        -------
        str
            Such as ``active=['default'], merged``.
        """
        state = "" if self._enabled else ", disabled"
        return f"active={list(self._active)}{', merged' if self.is_merged else ''}{state}"


def _save_unmerged(layer: AdaptedLayer, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Put the weight without changes into a state dict, which holds the changes by themselves."""
    key = f"{prefix}base.weight"
    if layer._unmerged is not None and key in state:
        (weight,) = layer._unmerged
        state[key] = weight if isinstance(state[key], nn.Parameter) else weight.detach()


def _merge_again(layer: AdaptedLayer, _: Any) -> None:
    """Merge what a state dict brought, if changes were merged before."""
    if layer._merge_after_load:
        layer._merge_after_load = False
        try:
            layer.merge()
        except ValueError as error:  # in the midst of a load, which would leave the layers that follow as they were
            warn_caller(f"load_state_dict: a layer stays unmerged: {error}", RuntimeWarning)
