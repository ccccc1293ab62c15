"""Adapters that were computed, not trained: settings, weights, and how well each layer was met."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.config import PeftConfig
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file
from torch import Tensor

from structmat._arrays.errors import ArgumentValueError
from structmat.peft._config import CDDConfig
from structmat.torch import CDDAdapter

__all__ = ["FittedAdapter", "LayerFit", "fitted"]

PREFIX = "base_model.model."


@dataclass(frozen=True)
class LayerFit:
    """How well the change of one layer was met.

    Attributes
    ----------
    name : str
        Path of the module.
    shape : tuple of int
        Rows and columns of its weight.
    n_parameters : int
        That the adapter takes for it.
    norm : float
        Frobenius norm of the change.
    error : float
        Relative error, in that norm; 0 where nothing changed.
    """

    name: str
    shape: tuple[int, int]
    n_parameters: int
    norm: float
    error: float


@dataclass(frozen=True)
class FittedAdapter:
    """An adapter for PEFT that was computed, with a table of errors as its text.

    Attributes
    ----------
    config : PeftConfig
        The settings.
    state_dict : dict of Tensor
        The weights, with keys as in a file.
    layers : tuple of LayerFit
        What each layer lost.
    left_out : tuple of str
        Parameters that were tuned too, but are not in the adapter.

    See Also
    --------
    from_weights, from_delta, from_lora, to_lora : Return one.
    """

    config: PeftConfig
    state_dict: Mapping[str, Tensor]
    layers: tuple[LayerFit, ...]
    left_out: tuple[str, ...] = ()

    @property
    def error(self) -> float:
        """Relative error of the changes of all layers together."""
        total = sum(layer.norm**2 for layer in self.layers)
        return (sum((layer.error * layer.norm) ** 2 for layer in self.layers) / total) ** 0.5 if total else 0.0

    @property
    def n_parameters(self) -> int:
        """Parameters of all layers."""
        return sum(layer.n_parameters for layer in self.layers)

    def save(self, folder: str | Path) -> None:
        """Write the folder that `peft.PeftModel.from_pretrained` loads.

        Parameters
        ----------
        folder : str or Path
            Made if need be; gets ``adapter_config.json`` and ``adapter_model.safetensors``.
        """
        folder = Path(folder)
        self.config.save_pretrained(str(folder))
        tensors = {key: tensor.detach().contiguous() for key, tensor in self.state_dict.items()}
        save_file(tensors, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})

    def __str__(self) -> str:
        width = max([len("all layers"), *(len(layer.name) for layer in self.layers)])
        lines = [f"{'layer':<{width}}  {'shape':>13}  {'parameters':>10}  {'norm':>9}  {'error':>6}"]
        for layer in self.layers:
            shape = f"{layer.shape[0]} x {layer.shape[1]}"
            counted = f"{layer.n_parameters:>10,}  {layer.norm:>9.3g}  {layer.error:>6.4f}"
            lines.append(f"{layer.name:<{width}}  {shape:>13}  {counted}")
        norm = sum(layer.norm**2 for layer in self.layers) ** 0.5
        lines.append(f"{'all layers':<{width}}  {'':>13}  {self.n_parameters:>10,}  {norm:>9.3g}  {self.error:>6.4f}")
        if self.left_out:
            shown = ", ".join(self.left_out[:6]) + (", ..." if len(self.left_out) > 6 else "")
            lines.append(f"tuned too, but not in the adapter: {len(self.left_out)} parameters ({shown})")
        return "\n".join(lines)


def fitted(
    config: CDDConfig,
    changes: Iterable[tuple[str, Tensor]],
    callback: Callable[[LayerFit], None] | None = None,
) -> tuple[dict[str, Tensor], tuple[LayerFit, ...]]:
    """Fit the changes of layers, by path of the module, one by one; return weights with keys as in a file."""
    state: dict[str, Tensor] = {}
    layers: list[LayerFit] = []
    for path, change in changes:
        if change.ndim != 2:
            raise ArgumentValueError(
                "from_delta", "deltas", f"must be matrices, got shape {tuple(change.shape)} for {path}"
            )
        wide = change.detach().to("cpu", torch.promote_types(change.dtype, torch.float32))
        options: dict[str, Any] = config.layer_options(path)
        adapter = CDDAdapter(wide.shape[1], wide.shape[0], **options, dtype=wide.dtype)
        norm = float(torch.linalg.matrix_norm(wide))
        error = float(adapter.fit_(wide).error) if norm else 0.0
        state |= {
            f"{PREFIX}{path}.cdd_adapters.factors.{i}": factor.detach() for i, factor in enumerate(adapter.factors)
        }
        layers.append(LayerFit(path, (wide.shape[0], wide.shape[1]), adapter.n_parameters, norm, error))
        if callback is not None:
            callback(layers[-1])
    return state, tuple(layers)
