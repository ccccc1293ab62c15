"""How well the changes of layers were met: one row for each layer, and what all of them come to."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from structmat._files.text import counted, first_names

__all__ = ["FittedLayer", "FittedLayers"]

_SHOWN = 6
"""Of names of weights in a text, at most."""


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


class FittedLayers:
    """Layers that were fitted, for a class with `layers` and `left_out`; its text is a table."""

    layers: tuple[FittedLayer, ...]
    left_out: tuple[str, ...]

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
            shown = first_names(self.left_out, _SHOWN)
            lines.append(f"tuned too, but not in the adapter: {counted(len(self.left_out), 'parameter')} ({shown})")
        return "\n".join(lines)
