"""Studies of many matrices: work that survives being killed, on one process, many, or a cluster.

- `_engine`: any units of work in parallel, their results in one file
- `_study`: `Study`, the table that a study ends with
- `_sweep`: `sweep`, many matrices by many methods with many settings
- `_units`: the work on one matrix
- `_adapters`: products of the changes of a checkpoint as adapters
- `_sources`: `matrices` and `changes`, which find matrices in files
- `_plans`: which layers of checkpoints are fitted
- `_changes`: the change of one layer
- `_models`: which modules stored weights belong to
- `_checkpoint_files`: the weights in the files, by name and piece by piece
"""

from __future__ import annotations

from importlib.util import find_spec

try:
    # These libraries write what a study ends with. That they are missing must not be noticed only after the work.
    for library in ("pandas", "safetensors"):
        if find_spec(library) is None:
            raise ModuleNotFoundError(name=library)  # noqa: TRY301
    from structmat.studies._engine import Progress
    from structmat.studies._sources import changes, matrices
    from structmat.studies._study import Study, load_study
    from structmat.studies._sweep import sweep
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] == "structmat":
        raise
    text = f'structmat.studies needs {error.name}, of the extra "studies": pip install "structmat[studies]"'
    raise ImportError(text) from error

__all__ = ["Progress", "Study", "changes", "load_study", "matrices", "sweep"]
