"""Where the matrices of a sweep come from: files of arrays, two checkpoints, a checkpoint and an adapter, or memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from structmat._errors import ArgumentValueError, warn_caller
from structmat._files import first_names, natural_key
from structmat.io import describe, load_matrix
from structmat.studies._changes import AnyChange
from structmat.studies._checkpoint_files import CheckpointError
from structmat.studies._models import model_of
from structmat.studies._plans import Plan, is_adapter, is_found, plan_adapter, plan_delta, plan_pair

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Changes", "HeldMatrix", "Matrix", "changes", "matrices", "several_faults"]


@dataclass(frozen=True)
class MatrixInFile:
    """A matrix in a file, which is read where it is needed."""

    path: Path
    key: str
    shape: tuple[int, ...]

    def matrix(self) -> NDArray[Any]:
        return load_matrix(self.path, key=self.key)


@dataclass(frozen=True)
class HeldMatrix:
    """A matrix in memory, with the same methods as those in files."""

    array: NDArray[Any]
    shape = property(lambda self: self.array.shape)

    def matrix(self) -> NDArray[Any]:
        return self.array


Matrix: TypeAlias = AnyChange | MatrixInFile | HeldMatrix
"""A source of one matrix: its shape is known, and its entries are read in the process that needs them."""


def matrices(*files: str | os.PathLike[str], targets: str | None = None) -> dict[str, Matrix]:
    """Find the matrices in files, for `sweep`; each is read when it is needed.

    Parameters
    ----------
    *files : path-like
        Files ``.npy``, ``.npz``, ``.mat``, ``.csv`` or ``.safetensors``.
    targets : str, optional
        Regular expression that must be found in the name of an array or tensor. By default all matrices are taken.

    Returns
    -------
    dict
        By name: that of the file, without its suffix, and of the array in it.

    Raises
    ------
    ValueError
        If a file holds no matrices, or two have one name.
    OSError
        If a file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from structmat.studies import matrices
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/changes.npz", query=np.eye(4), key=np.eye(4))
    ...     sorted(matrices(f"{folder}/changes.npz"))
    ['changes/key', 'changes/query']
    """
    found: dict[str, Matrix] = {}
    for path in map(Path, files):
        description = describe(path)
        if description["format"] == "structmat":
            raise ValueError(f"{path} holds a structmat operator, no plain matrix")
        shapes = {name: tuple(spec["shape"]) for name, spec in description["tensors"].items()}
        for name, shape in shapes.items():
            single = description["format"] in {"npy", "csv"}
            full = path.stem if single else f"{path.stem}/{name}"
            wanted = targets is None or is_found(targets, (path.stem if single else name).removesuffix(".weight"))
            if len(shape) != 2 or min(shape) == 0 or not wanted:
                continue
            if full in found:
                raise ArgumentValueError("matrices", None, f"two matrices are called {full}: rename one of the files")
            found[full] = MatrixInFile(path.absolute(), name, shape)
    if not found:
        what = "there are no matrices" if targets is None else f"no matrix has a name in which {targets!r} is found"
        raise ArgumentValueError("matrices", None, f"{', '.join(map(str, files))}: {what}")
    return found


class Changes(Mapping[str, AnyChange]):
    """The changes of layers by name, as `changes` returns them, with what is known of the model that they are of.

    Parameters
    ----------
    plan : Plan
        What was found.
    folders : mapping of str to path-like
        Where it was found, by the names of the arguments.
    skip_bad : bool
        Whether layers that cannot be read are left out of a study, and are no error.
    """

    def __init__(self, plan: Plan, folders: Mapping[str, str | os.PathLike[str]], *, skip_bad: bool) -> None:
        self.plan, self.folders, self.skip_bad = plan, folders, skip_bad
        self._found = {name: plan.changes[name] for name in sorted(plan.changes, key=natural_key)}

    def __getitem__(self, name: str) -> AnyChange:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def changes(
    base: str | os.PathLike[str] | None = None,
    tuned: str | os.PathLike[str] | None = None,
    targets: str | None = None,
    *,
    delta: str | os.PathLike[str] | None = None,
    cast: bool = False,
    skip_bad: bool = False,
) -> Changes:
    """Find the changes of all linear layers and experts of a model, for `sweep`; each is read when it is needed.

    Parameters
    ----------
    base, tuned : path-like, optional
        Checkpoints: files or folders, of safetensors or PyTorch. In place of the tuned one a folder of PEFT with an
        adapter of LoRA or of this package.
    targets : str, optional
        Regular expression that must be found in the path of a module. By default all matrices but embeddings and what
        is tied to them.
    delta : path-like, optional
        In place of `base` and `tuned`, a file or folder with the changes themselves, by path of the module.
    cast : bool, default False
        Take base and tuned weights of different dtypes.
    skip_bad : bool, default False
        Leave out layers whose files are damaged or do not match, instead of ending with an error; `Study.failed` has
        them.

    Returns
    -------
    mapping of str to change
        By path of the module; in a mixture of experts of each expert, by the path of the parameter that stacks them and
        its number. Each is a matrix of outputs by inputs.

    Raises
    ------
    ValueError
        If a weight cannot be read, or has no partner in the base, none is a matrix, or arguments contradict each other.
    OSError
        If a file cannot be read.

    Warns
    -----
    RuntimeWarning
        If config.json names a model that the installed version of transformers, if any, cannot build. Names of weights
        are then taken for paths of modules, which they are for most models.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from safetensors.numpy import save_file
    >>> from structmat.studies import changes
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for number, name in enumerate(["base", "tuned"]):
    ...         save_file({"up.weight": number * np.eye(4)}, f"{folder}/{name}.safetensors")
    ...     found = changes(f"{folder}/base.safetensors", f"{folder}/tuned.safetensors")
    ...     float(found["up"].matrix().trace())
    4.0
    """
    given = {"base": base, "tuned": tuned, "delta": delta}
    folders = {name: path for name, path in given.items() if path is not None}
    if base is not None and tuned is not None and delta is None:
        plan = _plan(Path(base), Path(tuned), targets, cast=cast)
    elif delta is not None and [*folders] == ["delta"]:
        plan = plan_delta(Path(delta), targets)
    else:
        text = f"base and tuned, or delta alone, must be given, got {', '.join(folders) or 'none'}"
        raise ArgumentValueError("changes", None, text)
    if plan.faults and not skip_bad:
        raise CheckpointError(several_faults(plan.faults))
    if not plan.changes:
        if plan.faults or not plan.seen:
            what = several_faults(plan.faults) if plan.faults else "there is no weight of a linear layer"
            raise CheckpointError(f"{', '.join(map(str, folders.values()))}: {what}")
        text = f"must match a layer, got {targets!r}; could be fitted: {first_names(plan.seen)}"
        raise ArgumentValueError("changes", "targets", text)
    return Changes(plan, folders, skip_bad=skip_bad)


def _plan(base: Path, tuned: Path, targets: str | None, *, cast: bool) -> Plan:
    """Plan the fit of what was tuned, by what is known of the model."""
    model = model_of(tuned, base)
    if model.problem:
        text = "names of weights are taken for paths of modules: see that PEFT adapts every layer"
        warn_caller(f"changes: {model.problem}; {text}", RuntimeWarning)
    if is_adapter(tuned):
        return plan_adapter(base, tuned, targets, model)
    return plan_pair(base, tuned, targets, model, cast=cast)


def several_faults(faults: Mapping[Any, str]) -> str:
    """Return the text of the first fault, and how many others there are."""
    first, *more = dict.fromkeys(faults.values())
    return f"{first} (and {len(more)} more faults)" if more else first
