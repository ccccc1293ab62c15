"""`Replacement`: values that tensors of a model are to get in place, all checked before one of them is written."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from structmat._errors import ArgumentValueError
from structmat.torch._adapters.adapter import CDDAdapter
from structmat.torch._distributed import rewritten_by, unwrapped_model
from structmat.torch._model.model_state import ModelState

__all__ = ["Replacement", "taking_values"]


def taking_values(model: nn.Module, owner: str) -> nn.Module:
    """Return the model inside of wrappers; refuse one in which an engine would write over what is put there."""
    engine = rewritten_by(model, model.parameters())
    if engine:
        text = f"has parameters that are written anew from copies: load the adapter before {engine}"
        raise ArgumentValueError(owner, "model", text)
    return unwrapped_model(model)


class Replacement:
    """Values for tensors and adapters of a model.

    They are planned one after the other, and refused where they do not fit; nothing changes until all are written.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._tensors: list[tuple[Tensor, Tensor]] = []
        self._alphas: list[tuple[CDDAdapter, float]] = []

    def plan(self, places: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
        """Plan values for some of several tensors, which are known by their keys in the file of an adapter.

        Raises
        ------
        ValueError
            If there is no tensor for a value, or one of another shape or kind of dtype, or one without memory or of
            inference mode, which nobody may write into.
        """
        for key, value in values.items():
            place = places.get(key)
            if place is None or place.shape != value.shape:
                own = "none" if place is None else f"one of shape {tuple(place.shape)}"
                text = f"holds {key} of shape {tuple(value.shape)}, the model has {own}"
                raise ArgumentValueError(self._owner, "folder", text)
            if place.is_meta:
                text = f"has {key} on the device meta: load before offloading"
                raise ArgumentValueError(self._owner, "model", text)
            if place.is_inference():
                text = f"has {key}, which was made in torch.inference_mode(): make and load the model outside of it"
                raise ArgumentValueError(self._owner, "model", text)
            # A floating dtype may become another one; anything else would be truncated.
            alike = place.dtype == value.dtype or (place.is_floating_point() and value.is_floating_point())
            if not alike:
                text = f"holds {key} of dtype {value.dtype}, the model has {place.dtype}"
                raise ArgumentValueError(self._owner, "folder", text)
            self._tensors.append((place, value))

    def plan_alpha(self, adapter: CDDAdapter, alpha: float) -> None:
        """Plan the factor of a change."""
        self._alphas.append((adapter, alpha))

    def write(self, before: ModelState) -> None:
        """Write all values in place, so that compiled code and optimisers keep the tensors that they know.

        The state of the model keeps what was there: it is to be put back if an error comes.
        """
        # In inference mode autograd would refuse the tensors afterwards.
        with torch.inference_mode(mode=False), torch.no_grad():
            for place, value in self._tensors:
                before.keep(place)
                place.copy_(_sharded(value, place))
        for adapter, alpha in self._alphas:
            adapter.alpha = alpha


def _sharded(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor, split among processes as another one is if only that is split."""
    if not hasattr(like, "full_tensor") or hasattr(tensor, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor  # noqa: PLC0415  # not every build of torch has it

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
