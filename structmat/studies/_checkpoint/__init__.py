"""From a tuned checkpoint to an adapter, layer by layer.

- `_fit`: `fit_checkpoint` itself
- `_plan`, `_changes`: which layers, and where their changes are
- `_layers`: the units of work
- `_adapter`, `_tables`, `_figure`: the final files
"""

from __future__ import annotations

from structmat.studies._checkpoint._fit import CheckpointFit, CheckpointProgress, FittedLayer, fit_checkpoint

__all__ = ["CheckpointFit", "CheckpointProgress", "FittedLayer", "fit_checkpoint"]
