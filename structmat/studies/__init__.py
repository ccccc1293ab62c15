"""Studies of many matrices: work that survives being killed and runs on one process, many, or a cluster.

- `_checkpoint`: `fit_checkpoint`, from a tuned model to an adapter
- `_sweep`: `sweep`, many matrices by many methods with many settings, and `report`
- `_html`: self-contained pages
- `_reading`: what is in a work folder, without its lock
- `_records`: settings and finished units of work as files
- `_folder`: `WorkFolder`, an output folder whose finished units of work stay
- `_run_units`: `run_units`, the same units in this process, by joblib or by Dask
"""

from __future__ import annotations

try:
    from structmat._layer_fits.seeds import unit_rng
    from structmat.studies._checkpoint import CheckpointFit, CheckpointProgress, FittedLayer, fit_checkpoint
    from structmat.studies._folder import UnwrittenError, WorkFolder
    from structmat.studies._records import Record
    from structmat.studies._run_units import run_units
    from structmat.studies._sweep import (
        MatrixSource,
        Study,
        StudyMean,
        StudyRow,
        SweepConfig,
        SweepProgress,
        example_config,
        load_study,
        read_config,
        report,
        study_figure,
        sweep,
    )
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] == "structmat":
        raise
    text = f'structmat.studies needs {error.name}, of the extra "studies": pip install "structmat[studies]"'
    raise ImportError(text) from error

__all__ = [
    "CheckpointFit",
    "CheckpointProgress",
    "FittedLayer",
    "MatrixSource",
    "Record",
    "Study",
    "StudyMean",
    "StudyRow",
    "SweepConfig",
    "SweepProgress",
    "UnwrittenError",
    "WorkFolder",
    "example_config",
    "fit_checkpoint",
    "load_study",
    "read_config",
    "report",
    "run_units",
    "study_figure",
    "sweep",
    "unit_rng",
]
