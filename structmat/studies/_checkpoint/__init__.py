"""From a tuned checkpoint to an adapter, layer by layer, in a folder where what is done stays.

- `_fit`: `fit_checkpoint` itself
- `_tables`, `_figure`: the tables and the figure of its report
- `_result`: what it returns and reports
"""

from __future__ import annotations

from structmat._layer_fits.table import FittedLayer
from structmat.studies._checkpoint._fit import fit_checkpoint
from structmat.studies._checkpoint._result import CheckpointFit, CheckpointProgress

__all__ = ["CheckpointFit", "CheckpointProgress", "FittedLayer", "fit_checkpoint"]
