"""The tensors of a model by the keys that they have in files: those of the plain model, without wrappers."""

from __future__ import annotations

from torch import Tensor, nn

from structmat._files import unwrapped
from structmat.torch._adapters.adapter import CDDAdapter
from structmat.torch._layers import AdaptedModule
from structmat.torch._model.wrapping import adapted_layers, changes_of

__all__ = ["changes_by_path", "layers_by_path", "tensors_of"]


def layers_by_path(model: nn.Module) -> dict[str, AdaptedModule]:
    """Return the adapted layers and modules of a model by path, without the names that wrappers add to paths."""
    return {unwrapped(path): layer for path, layer in adapted_layers(model).items()}


def changes_by_path(model: nn.Module) -> dict[str, CDDAdapter]:
    """Return the changes of a model by the path of the layer or parameter, without the names that wrappers add."""
    return {unwrapped(path): adapter for path, adapter in changes_of(model).items()}


def tensors_of(model: nn.Module) -> tuple[dict[str, list[Tensor]], dict[str, Tensor]]:
    """Return the vectors of the adapter by layer, and all other parameters and persistent buffers by their keys.

    The keys are those of the plain model, without the names of wrappers and adapted layers.
    """
    items = model.state_dict(keep_vars=True).items()
    state = {unwrapped(key): value for key, value in items if isinstance(value, Tensor)}
    vectors = {}
    for name, layer in layers_by_path(model).items():
        for end, adapter in layer._changes().items():
            own = [state[f"{name}.{layer._prefix(end)}.vectors.{i}"] for i in range(adapter.n_factors)]
            # Where accelerate keeps vectors elsewhere, a call of this method brings them.
            vectors[f"{name}.{end}" if end else name] = adapter.vectors.forward() if own[0].is_meta else own
        for key in [key for key in state if key.startswith(f"{name}.")]:
            tensor = state.pop(key)
            end = key.removeprefix(f"{name}.")
            if end.startswith("base."):
                state[f"{name}.{end.removeprefix('base.')}"] = tensor
    return vectors, state
