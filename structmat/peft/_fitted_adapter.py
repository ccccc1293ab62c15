"""Adapters that were computed, not trained: settings, weights, and how well each layer was met."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft.config import PeftConfig
from safetensors.torch import save
from torch import Tensor

from structmat._arrays.errors import ArgumentValueError
from structmat._files.atomic import atomic_write, check_output
from structmat._layer_fits.adapter_files import CONFIG, WEIGHTS, factor_key
from structmat._layer_fits.changes import Change
from structmat._layer_fits.layers import LayerTask, Outcome, fit_layers
from structmat._layer_fits.table import FittedLayer, FittedLayers
from structmat.peft._config import CDDConfig
from structmat.torch import CDDAdapter

__all__ = ["FittedAdapter", "fit_changes"]


@dataclass(frozen=True)
class FittedAdapter(FittedLayers):
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
    tasks = {
        path: LayerTask(path, change, path in transposed, **config.layer_options(path))
        for path, change in changes.items()
    }
    state: dict[str, Tensor] = {}
    layers: list[FittedLayer] = []

    def take(path: str, outcome: Outcome) -> None:
        values = outcome.values
        vectors = [torch.from_numpy(vector) for vector in outcome.arrays.values()]
        if not vectors:  # nothing changed, but the layer has an adapter all the same
            zero = CDDAdapter(values["cols"], values["rows"], **config.layer_options(path))
            vectors = [factor.detach() for factor in zero.factors]
            values = {**values, "n_parameters": zero.n_parameters, "block_size": zero.block_size}
        state.update({factor_key(path, i): vector for i, vector in enumerate(vectors)})
        layers.append(FittedLayer.of(values))
        if callback is not None:
            callback(layers[-1])

    fit_layers(tasks, take)
    return state, tuple(layers)
