"""`AdaptedLayer`: a frozen base layer and the change that is added to it; what all kinds of layers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat.operators import LinearOperator
from structmat.torch._adapter import CDDAdapter
from structmat.torch._base_weight import dtype_and_device, merged_weight, multiplies_by_weight, own_weight
from structmat.torch._layers.adapted_module import AdaptedModule
from structmat.torch._other_tools import is_never_called

__all__ = ["AdaptedLayer"]


class AdaptedLayer(AdaptedModule):
    """A frozen base layer and the change that is added to it; what all kinds of layers share."""

    adapter: CDDAdapter
    """The change."""

    _plural: ClassVar[str]
    """What the bases of this kind are called in errors."""
    _is_linear: ClassVar[bool] = False
    """Whether the targets "all-linear" mean the bases of this kind."""

    def __init__(self, base: nn.Module | None, in_features: int, out_features: int, **options: Any) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        for key, value in ({} if base is None else dtype_and_device(base)).items():
            if options.get(key) is None:
                options[key] = value
        adapter = CDDAdapter(in_features, out_features, **options)
        if base is not None:
            self._prepare(base, adapter)
        self.base = base
        self.adapter = adapter
        if base is not None:
            self.train(base.training)
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
        return {"": self.adapter}

    def _prefix(self, end: str) -> str:
        return "adapter"

    def _merged(self) -> dict[str, nn.Parameter]:
        return {"weight": self._merged_weight()}

    def _merged_weight(self) -> nn.Parameter:
        """Return a new weight for the base, with the change added; the base has not changed yet."""
        owner = type(self).__name__
        if self.base is None:
            raise ArgumentTypeError(owner, None, "the layer has no base, whose weight could be changed")
        if self.adapter.vectors[0].is_meta:
            raise ArgumentValueError(owner, None, "the vectors are on the device meta: merge before offloading")
        weight = own_weight(self.base, owner)
        if not self._multiplies_by_weight(self.base, (self.in_features, self.out_features)):
            text = f"the weight of {type(self.base).__name__} is not what it multiplies by"
            raise ArgumentTypeError(owner, None, text)
        change = self.adapter.dense()
        if is_never_called(self) and change.any():
            raise ArgumentValueError(owner, None, "the layer was never called: its weight alone is read, unchanged")
        return merged_weight(weight, self._laid_out(self.base, change), owner)
