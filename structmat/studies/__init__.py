"""Studies of many matrices: work that survives being killed, on one process, many, or a cluster.

- `_engine`: any units of work in parallel, their results in one file
- `_study`: `Study`, the table that a study ends with
- `_fit_checkpoint`: `fit_checkpoint`, from a tuned model to an adapter
- `_layer_fit`: the work on one of its layers
- `_plans`: which layers of files it fits
- `_models`: which modules these are the weights of
- `_checkpoint_files`: the weights in the files, by name and piece by piece
- `_sweep`: `sweep`, many matrices by many methods with many settings
"""

from __future__ import annotations

from importlib.util import find_spec

try:
    # These libraries write what a study ends with. That they are missing must not be noticed only after the work.
    for library in ("pandas", "safetensors"):
        if find_spec(library) is None:
            raise ModuleNotFoundError(name=library)  # noqa: TRY301
    from structmat.studies._engine import Progress
    from structmat.studies._fit_checkpoint import fit_checkpoint
    from structmat.studies._study import Study, load_study
    from structmat.studies._sweep import changes, matrices, sweep
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] == "structmat":
        raise
    text = f'structmat.studies needs {error.name}, of the extra "studies": pip install "structmat[studies]"'
    raise ImportError(text) from error

__all__ = ["Progress", "Study", "changes", "fit_checkpoint", "load_study", "matrices", "sweep"]
