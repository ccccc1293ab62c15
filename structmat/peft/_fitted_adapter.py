"""Adapters that were computed, not trained: settings, weights, and how well each layer was met."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from peft.config import PeftConfig
from safetensors.torch import save
from torch import Tensor

from structmat._array_tools import ArgumentValueError
from structmat._files import atomic_write, check_output, counted, first_names
from structmat._layer_fits import CONFIG, WEIGHTS, Change, LayerTask, factor_key
from structmat.peft._config import CDDConfig
from structmat.torch import CDDAdapter

__all__ = ["FittedAdapter", "FittedLayer", "fit_changes"]


@dataclass(frozen=True)
class FittedLayer:
    """How well the change of one layer was fitted.

    Attributes
    ----------
    name : str
        Path of the module.
    rows, cols : int
        Of its weight.
    dtype : str
        Of its weight in the file.
    norm : float
        Frobenius norm of the change.
    error : float
        Relative error, in that norm or the weighted one; 0 where nothing changed.
    n_parameters : int
        That the adapter takes for it; 0 where nothing changed.
    block_size : int, optional
        Side of the circulants; None where nothing changed, or the adapter is of another method.
    svd_rank, svd_parameters : int
        Of the best truncated SVD with at most as many parameters.
    svd_error : float
        Its relative error.
    weighted_norm : float, optional
        Norm that is weighted by the second moments of the inputs, which errors are relative to; None without them.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.peft import from_delta
    >>> fitted = from_delta({"layers.0.up": np.outer(np.arange(1.0, 5.0), np.ones(4))})
    >>> [(layer.name, layer.rows, layer.n_parameters, round(layer.error, 6)) for layer in fitted.layers]
    [('layers.0.up', 4, 12, 0.0)]
    """

    name: str
    rows: int
    cols: int
    dtype: str
    norm: float
    error: float
    n_parameters: int
    block_size: int | None = None
    svd_rank: int = 0
    svd_parameters: int = 0
    svd_error: float = 0.0
    weighted_norm: float | None = None

    @classmethod
    def of(cls, values: dict[str, Any]) -> FittedLayer:
        """Return the row of what a fit of a layer found."""
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})


@dataclass(frozen=True)
class FittedAdapter:
    """An adapter for PEFT that was fitted, not trained; printed, it is a table of errors.

    Attributes
    ----------
    config : PeftConfig
        The settings.
    state_dict : dict of Tensor
        The weights, with keys as in a file.
    layers : tuple of FittedLayer
        The errors, layer by layer.
    left_out : tuple of str
        Parameters that were tuned too, but are not in the adapter.

    See Also
    --------
    from_weights, from_delta, from_lora, to_lora : Return one.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import peft, torch
    >>> from structmat.peft import from_lora
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
    >>> lora = peft.LoraConfig(r=1, target_modules=["0"], init_lora_weights=False)
    >>> adapter = from_lora(peft.get_peft_model(model, lora))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     adapter.save(folder)
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['adapter_config.json', 'adapter_model.safetensors']
    """

    config: PeftConfig
    state_dict: Mapping[str, Tensor]
    layers: tuple[FittedLayer, ...]
    left_out: tuple[str, ...] = ()

    def save(self, folder: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the folder that `peft.PeftModel.from_pretrained` loads.

        Parameters
        ----------
        folder : path-like
            The folder, created if necessary; gets ``adapter_config.json`` and ``adapter_model.safetensors``.
        force : bool, default False
            Whether existing files may be replaced.

        Raises
        ------
        FileExistsError
            If one of the files exists and not `force`; nothing is written then.
        OSError
            If the folder or a file cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in (WEIGHTS, CONFIG):
            check_output(folder / name, force=force)
        with tempfile.TemporaryDirectory() as temporary:
            self.config.save_pretrained(temporary)
            config = Path(temporary, CONFIG).read_bytes()
        tensors = {key: tensor.detach().contiguous() for key, tensor in self.state_dict.items()}
        # The settings come last: a folder without them is no adapter, so that one half-written is not taken for one.
        for name, content in ((WEIGHTS, save(tensors, metadata={"format": "pt"})), (CONFIG, config)):
            with atomic_write(folder / name, force=force) as file:
                file.write(content)

    @property
    def error(self) -> float:
        """Relative error of the changes of all layers together."""
        return self._of_all("error")

    @property
    def svd_error(self) -> float:
        """The same of the truncated SVDs."""
        return self._of_all("svd_error")

    @property
    def n_parameters(self) -> int:
        """Parameters of all layers."""
        return sum(layer.n_parameters for layer in self.layers)

    def _of_all(self, name: str) -> float:
        norms = [layer.norm if layer.weighted_norm is None else layer.weighted_norm for layer in self.layers]
        whole = math.hypot(*norms)
        left = math.hypot(*(getattr(layer, name) * norm for layer, norm in zip(self.layers, norms, strict=True)))
        return left / whole if whole else 0.0

    def __str__(self) -> str:
        width = max([len("all layers"), *(len(layer.name) for layer in self.layers)])
        lines = [f"{'layer':<{width}}  {'shape':>13}  {'parameters':>10}  {'norm':>9}  {'error':>6}  {'SVD':>6}"]
        for layer in self.layers:
            shape = f"{layer.rows} x {layer.cols}"
            numbers = f"{layer.n_parameters:>10,}  {layer.norm:>9.3g}  {layer.error:>6.4f}  {layer.svd_error:>6.4f}"
            lines.append(f"{layer.name:<{width}}  {shape:>13}  {numbers}")
        norm = math.hypot(*(layer.norm for layer in self.layers))
        summed = f"{self.n_parameters:>10,}  {norm:>9.3g}  {self.error:>6.4f}  {self.svd_error:>6.4f}"
        lines.append(f"{'all layers':<{width}}  {'':>13}  {summed}")
        if self.left_out:
            shown = first_names(self.left_out, 6)
            lines.append(f"tuned too, but not in the adapter: {counted(len(self.left_out), 'parameter')} ({shown})")
        return "\n".join(lines)


def fit_changes(
    config: CDDConfig,
    changes: Mapping[str, Change],
    *,
    transposed: Collection[str] = (),
    callback: Callable[[FittedLayer], object] | None = None,
) -> tuple[dict[str, Tensor], tuple[FittedLayer, ...]]:
    """Fit the changes of layers, by path of the module, one by one; return weights with keys as in a file."""
    if config.share_circulants:
        text = "must be False here: each layer is fitted by itself, and gets a circulant of its own"
        raise ArgumentValueError("CDDConfig", "share_circulants", text)
    state: dict[str, Tensor] = {}
    layers: list[FittedLayer] = []
    for path, change in changes.items():
        values, arrays = LayerTask(path, change, path in transposed, **config.layer_options(path)).run()
        vectors = [torch.from_numpy(vector) for vector in arrays.values()]
        if not vectors:  # nothing changed, but the layer has an adapter all the same
            zero = CDDAdapter(values["cols"], values["rows"], **config.layer_options(path))
            vectors = [factor.detach() for factor in zero.factors]
            values = {**values, "n_parameters": zero.n_parameters, "block_size": zero.block_size}
        state.update({factor_key(path, i): vector for i, vector in enumerate(vectors)})
        layers.append(FittedLayer.of(values))
        if callback is not None:
            callback(layers[-1])
    return state, tuple(layers)
