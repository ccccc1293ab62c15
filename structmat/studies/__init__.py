"""Studies of many matrices: work that survives being killed and runs on one process, many, or a cluster.

- `_checkpoint`: `fit_checkpoint`, from a tuned model to an adapter
- `_html`: self-contained pages
- `_folder`: `WorkFolder`, an output folder whose finished units of work stay
- `_engine`: `run_units`, the same units in this process, by joblib or by Dask
"""

from __future__ import annotations

try:
    from structmat.studies._checkpoint import CheckpointFit, CheckpointProgress, FittedLayer, fit_checkpoint
    from structmat.studies._engine import run_units, unit_rng
    from structmat.studies._folder import Record, WorkFolder
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] == "structmat":
        raise
    text = f'structmat.studies needs {error.name}, of the extra "studies": pip install "structmat[studies]"'
    raise ImportError(text) from error

__all__ = [
    "CheckpointFit",
    "CheckpointProgress",
    "FittedLayer",
    "Record",
    "WorkFolder",
    "fit_checkpoint",
    "run_units",
    "unit_rng",
]
