"""What `fit_checkpoint` returns and reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from structmat._layer_fits.adapter_files import CONFIG, WEIGHTS
from structmat._layer_fits.table import FittedLayer, FittedLayers

__all__ = ["CSV", "FIGURE", "HTML", "JSON", "OUTPUTS", "CheckpointFit", "CheckpointProgress"]

CSV, JSON, HTML, FIGURE = "layers.csv", "layers.json", "report.html", "layers.png"
OUTPUTS = (CONFIG, WEIGHTS, CSV, JSON, HTML, FIGURE)
"""The final files."""


@dataclass(frozen=True)
class CheckpointFit(FittedLayers):
    """An adapter that was fitted to a checkpoint, with its errors; printed, it is a table of errors.

    Attributes
    ----------
    folder : Path
        With the files of the adapter and the tables.
    layers : tuple of FittedLayer
        In the order of the model.
    left_out : tuple of str
        Weights that were tuned too, but are not in the adapter.
    skipped : dict of str
        Why layers could not be read or fitted, by name.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from safetensors.numpy import save_file
    >>> from structmat.studies import fit_checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_file({"up.weight": np.outer(np.arange(4.0), np.ones(4))}, Path(folder, "change.safetensors"))
    ...     fit = fit_checkpoint(Path(folder, "out"), delta=Path(folder, "change.safetensors"))
    >>> round(fit.error, 6), fit.n_parameters, fit.skipped
    (0.0, 12, {})
    """

    folder: Path
    layers: tuple[FittedLayer, ...]
    left_out: tuple[str, ...]
    skipped: Mapping[str, str]

    @property
    def files(self) -> tuple[Path, ...]:
        """The final files."""
        return tuple(path for name in OUTPUTS if (path := self.folder / name).exists())

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the folder, ready for JSON: the same for the same seed.

        Returns
        -------
        dict
            Strings, numbers and lists only.
        """
        return {
            "error": self.error,
            "svd_error": self.svd_error,
            "n_parameters": self.n_parameters,
            "dense_parameters": sum(layer.rows * layer.cols for layer in self.layers),
            "layers": [asdict(layer) for layer in self.layers],
            "left_out": list(self.left_out),
            "skipped": dict(self.skipped),
        }


class CheckpointProgress(NamedTuple):
    """State of a fit of a checkpoint, as handed to the `callback` of `fit_checkpoint`.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from safetensors.numpy import save_file
    >>> from structmat.studies import fit_checkpoint
    >>> seen = []
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_file({"up.weight": np.eye(6, dtype="float32")}, Path(folder, "change.safetensors"))
    ...     fit = fit_checkpoint(Path(folder, "out"), delta=Path(folder, "change.safetensors"), callback=seen.append)
    >>> [(state.name, state.n_done, state.n_units) for state in seen]
    [('', 0, 1), ('up', 1, 1)]
    """

    name: str
    """The layer just done; empty at the start."""
    n_done: int
    """Layers that are done, those of earlier runs included."""
    n_units: int
    """Layers in all."""
    share: float
    """Of the entries of all layers that are done, between 0 and 1; the time goes roughly with it."""
    error: float | None
    """Relative error of the layer just done."""
