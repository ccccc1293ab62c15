"""`AdaptedLayer`: a frozen base layer and the change that is added to it; what all kinds of layers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat.operators import LinearOperator
from structmat.torch._adapters.adapter import CDDAdapter
from structmat.torch._calls import is_never_called
from structmat.torch._changes.dense import weight_plus_change
from structmat.torch._layers.adapted_module import AdaptedModule
from structmat.torch._layers.base_weight import dtype_and_device, merged_parameter, multiplies_by_weight, own_weight
from structmat.torch._layers.nested_tensors import rows_of_nested

__all__ = ["AdaptedLayer", "Change", "bound"]

Change: TypeAlias = tuple[CDDAdapter, Tensor | None]
"""A change, and the samples of a batch that it is for, by their numbers; None for all of them."""


class AdaptedLayer(AdaptedModule):
    """A frozen base layer and the change that is added to it; what all kinds of layers share."""

    adapter: CDDAdapter
    """The change."""

    _plural: ClassVar[str]
    """What the bases of this kind are called in errors."""
    _is_linear: ClassVar[bool] = False
    """Whether the targets "all-linear" mean the bases of this kind."""
    _calls_base: ClassVar[bool] = True
    """Whether the base computes its outputs itself, so that it may be another library's layer around the module."""
    _row_axes: ClassVar[int | None] = None
    """How many of the last axes of inputs one row of outputs is made of, where each row is made by itself."""
    _shown: ClassVar[frozenset[str]] = frozenset()
    """The names of attributes of a base that modules around read from the layer in its place."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # A method __getattr__ would be called for each module and parameter that a forward pass reads.
        for name in cls._shown:
            setattr(cls, name, property(attrgetter(f"base.{name}"), doc="That of the base."))

    def __init__(self, base: nn.Module | None, in_features: int, out_features: int, **options: Any) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        for key, value in ({} if base is None else dtype_and_device(base)).items():
            # What the caller gave comes first.
            if options.get(key) is None:
                options[key] = value
        adapter = self._new_adapter(in_features, out_features, None, options)
        if base is not None:
            self._prepare(base, adapter)
        self.base = base
        self.adapter = adapter
        if base is not None:
            self.train(base.training)
            # The base is frozen last: an option that is refused leaves it as it was.
            base.requires_grad_(requires_grad=False)

    # ---- the hooks of a kind
    #
    # They are methods of the class, as `structmat.peft` calls them for layers that have several adapters.

    @classmethod
    def _recognises(cls, module: nn.Module) -> bool:
        """Return whether a module can be a base, as far as its class, name and sizes tell."""
        raise NotImplementedError

    @classmethod
    def _features(cls, base: Any) -> tuple[int, int]:
        """Return the columns and the rows of the change of a base; refuse a module that is no base of this kind."""
        raise NotImplementedError

    @classmethod
    def _wrapped(cls, base: Any, **options: Any) -> AdaptedLayer:
        """Return a layer around a base, with the options of its adapter."""
        return cls(base, **options)

    @classmethod
    def _prepare(cls, base: Any, adapter: CDDAdapter) -> None:
        """Refuse an adapter that this kind cannot use, and set the entries to zero that must stay zero."""

    @classmethod
    def _add(cls, base: Any, adapter: CDDAdapter, y: Tensor, x: Tensor) -> Tensor:
        """Return the outputs `y` of the base plus the change for its inputs `x`."""
        raise NotImplementedError

    @classmethod
    def _outputs(cls, base: Any, adapter: CDDAdapter, x: Tensor, call: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the outputs of the base for inputs `x`, which `call` computes, plus the change."""
        return cls._add(base, adapter, call(x), x)

    @classmethod
    def _with_changes(
        cls, base: Any, changes: Sequence[Change], call: Callable[..., Any], x: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        """Return what `call`, which is the base or calls it, returns for some arguments, with changes added up."""
        outputs = bound(call, args, kwargs)
        if x.is_nested and cls._row_axes is not None:
            return cls._of_nested(base, changes, outputs, x, cls._row_axes)
        y: Tensor | None = None
        for adapter, samples in changes:
            if samples is not None:
                y = outputs(x) if y is None else y
                # Not in place: the backward pass of the base may need its outputs.
                y = y.index_copy(0, samples, cls._add(base, adapter, y[samples], x[samples]))
            else:
                y = cls._outputs(base, adapter, x, outputs) if y is None else cls._add(base, adapter, y, x)
        return outputs(x) if y is None else y

    @classmethod
    def _of_nested(
        cls, base: Any, changes: Sequence[Change], call: Callable[..., Any], x: Tensor, row_axes: int
    ) -> Any:
        """Return what `_with_changes` returns for a nested tensor: all rows of its samples are computed at once."""
        if any(samples is not None or adapter.varies for adapter, samples in changes):
            text = "must not be a nested tensor where samples have changes of their own: pad it"
            raise ArgumentValueError(cls.__name__, "x", text)
        rows, nested = rows_of_nested(x, row_axes)
        return nested(cls._with_changes(base, changes, call, rows))

    @classmethod
    def _batch_axis(cls, base: Any) -> int:
        """Return the axis of the inputs along which samples lie."""
        return 0

    @classmethod
    def _weight_names(cls, base: Any) -> tuple[str, ...]:
        """Return the names of the parameters of a base that the change is a change of."""
        return ("weight",)

    @classmethod
    def _summed(cls, base: Any, weights: Mapping[str, Tensor], plus: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Return the weights of a base with a change, which `plus` adds to a matrix (out_features, in_features)."""
        return {name: plus(weight) for name, weight in weights.items()}

    @classmethod
    def _laid_out(cls, base: Any, change: Tensor) -> Tensor:
        """Return a change (out_features, in_features) in the layout of the base's weight."""
        return change

    @classmethod
    def _multiplies_by_weight(cls, base: Any, features: tuple[int, int]) -> bool:
        """Return whether the base multiplies by its weight as it is, so that a change may be merged into it."""
        columns, rows = features
        return multiplies_by_weight(base, (rows, columns))

    # ---- the weight

    @property
    def weight(self) -> Any:
        """The base's weight, without the change."""
        return getattr(self.base, "weight", None)

    def delta(self) -> LinearOperator:
        """Return the change as an operator.

        Returns
        -------
        LinearOperator
            Of shape (out_features, in_features), `alpha` included; gradients flow to the vectors.
        """
        return self.adapter.operator()

    def _changes(self) -> dict[str, CDDAdapter]:
        adapter: Any = self.adapter
        if not isinstance(adapter, CDDAdapter):
            text = "has the adapters of an AdapterBank: use its methods, or take it out by bank.remove()"
            raise ArgumentValueError(type(self).__name__, None, text)
        return {"": adapter}

    def _prefix(self, end: str) -> str:
        return "adapter"

    def _merged(self) -> dict[str, nn.Parameter]:
        owner = type(self).__name__
        self._changes()  # refuses those of a bank
        if self.base is None:
            raise ArgumentTypeError(owner, None, "the layer has no base, whose weight could be changed")
        if self.adapter.vectors[0].is_meta:
            raise ArgumentValueError(owner, None, "the vectors are on the device meta: merge before offloading")
        weights = {name: own_weight(self.base, owner, name) for name in self._weight_names(self.base)}
        if not self._multiplies_by_weight(self.base, (self.in_features, self.out_features)):
            text = f"the weight of {type(self.base).__name__} is not what it multiplies by"
            raise ArgumentTypeError(owner, None, text)
        if is_never_called(self) and self.adapter.dense().any():
            raise ArgumentValueError(owner, None, "the layer was never called: its weight alone is read, unchanged")
        plus = partial(weight_plus_change, vectors=self.adapter.vectors.forward(), gain=self.adapter.gain)
        # In inference mode the new weights would become tensors that autograd refuses for good.
        with torch.inference_mode(mode=False), torch.no_grad():
            sums = self._summed(self.base, weights, plus)
            return {name: merged_parameter(weight, sums[name], owner) for name, weight in weights.items()}


def bound(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[Tensor], Any]:
    """Return a call with further arguments as a function of the inputs alone; without these it is the call itself."""
    return (lambda x: call(x, *args, **kwargs)) if args or kwargs else call
