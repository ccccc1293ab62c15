"""The matrices of a sweep: found by name and shape first, read one at a time where they are needed."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._arrays.errors import ArgumentValueError
from structmat._arrays.numpy_bridge import as_matrix, to_numpy
from structmat._files.text import encodable, natural_key
from structmat._layer_fits.changes import Difference
from structmat.io import Checkpoint, CheckpointError, describe, load_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.studies._sweep._config import MatrixSource, SweepConfig

__all__ = ["Layer", "find_layers"]


@dataclass(frozen=True)
class Layer:
    """One matrix, and how to read it."""

    name: str
    shape: tuple[int, int]
    read: Callable[[], NDArray[Any]]
    """Reads the matrix, in this process or in another."""
    read_moment: Callable[[], NDArray[Any]] | None = None
    is_change: bool = False
    """Whether it is the change of a weight, which many weights of a tuned model do not have."""

    def matrix(self) -> NDArray[Any]:
        """Return the matrix, in single precision at least.

        Raises ArgumentValueError if it holds NaN or infinity.
        """
        values = self.read()
        if not np.isfinite(values).all():
            raise ArgumentValueError("sweep", self.name, "must be finite, got NaN or infinity")
        return values.astype(np.result_type(values.dtype, np.float32), copy=False)

    def input_second_moment(self) -> NDArray[Any] | None:
        """Return the second moments of the inputs, None without any."""
        return None if self.read_moment is None else self.read_moment()

    def look(self) -> tuple[str, bool]:
        """Return a checksum of the entries, and whether all of them are zero."""
        total = hashlib.sha256()
        matrix = self.read()
        for values in (matrix, self.input_second_moment()):
            if values is not None:
                total.update(f"{values.dtype.str} {values.shape}".encode())
                total.update(np.ascontiguousarray(values).data)
        return total.hexdigest(), not matrix.any()


def find_layers(config: SweepConfig) -> list[Layer]:
    """Return all layers of a configuration, in its order.

    Raises
    ------
    ValueError
        If a source has no matrices, or two layers have one name.
    OSError
        If a file cannot be read.
    """
    layers: dict[str, Layer] = {}
    for layer in _every(config.sources):
        if layer.name in layers:
            text = f"two layers are called {layer.name}: give one of the sources a name"
            raise ArgumentValueError("sweep", None, text)
        layers[layer.name] = layer
    return list(layers.values())


def _every(sources: Sequence[MatrixSource] | Mapping[str, Any]) -> Iterator[Layer]:
    if isinstance(sources, Mapping):
        for name, array in sources.items():
            values = to_numpy(as_matrix(array, "sweep", str(name)))
            yield Layer(encodable(str(name)), (values.shape[0], values.shape[1]), partial(np.asarray, values))
        return
    # Workers may have another working directory.
    for source in (source._beside(Path.cwd()) for source in sources):
        found = list(_from_files(source) if source.files else _from_checkpoints(source))
        if not found:
            raise ArgumentValueError("sweep", None, _nothing(source))
        moment = source.input_second_moment
        read_moment = None if moment is None else partial(load_matrix, moment)
        prefix = f"{source.name}/" if source.name else ""
        for name, shape, read in found:
            yield Layer(prefix + name, shape, read, read_moment, is_change=source.base is not None)


def _from_files(source: MatrixSource) -> Iterator[tuple[str, tuple[int, int], Callable[[], NDArray[Any]]]]:
    for pattern in source.files:
        paths = _matching(Path(pattern))
        if not paths:
            raise FileNotFoundError(2, "there is no such file", pattern)
        for path in paths:
            description = describe(path)
            if description["format"] == "structmat":
                raise ValueError(f"{path} holds a structmat operator, no plain matrix")
            tensors = {name: tuple(spec["shape"]) for name, spec in description["tensors"].items()}
            single = description["format"] == "npy"
            for name, shape in tensors.items():
                if single and len(shape) != 2:
                    raise ValueError(f"{path} must hold a matrix, got shape {shape}")
                stem = encodable(path.stem)
                if len(shape) == 2 and min(shape) > 0 and _wanted(source, stem if single else name):
                    yield stem if single else f"{stem}/{name}", shape, partial(load_matrix, path, key=name)


def _matching(pattern: Path) -> list[Path]:
    """Return the files of a pattern; its leading folders that exist are taken as they are, brackets and all."""
    if pattern.exists():
        return [pattern]
    folder = next((parent for parent in pattern.parents if parent.is_dir()), Path())
    rest = str(pattern.relative_to(folder))
    return sorted(folder / path for path in glob.glob(rest, root_dir=folder, recursive=True))  # noqa: PTH207


def _from_checkpoints(source: MatrixSource) -> Iterator[tuple[str, tuple[int, int], Callable[[], NDArray[Any]]]]:
    base, tuned = (Checkpoint(path) for path in (source.base, source.tuned) if path is not None)
    for fault in (*base.broken.values(), *tuned.broken.values()):
        raise ValueError(fault)
    partners = base.partners(tuned)
    for name in sorted(filter(partial(_wanted, source), tuned), key=natural_key):
        after = tuned.entry(name)
        if len(after.shape) != 2 or min(after.shape) == 0:
            continue
        if name not in partners:
            raise CheckpointError(f"{after}: {base.path} has no such weight")
        change = Difference(after, base.entry(partners[name]))
        change.check(cast=True)
        yield name.removesuffix(".weight"), (after.shape[0], after.shape[1]), change.matrix


def _wanted(source: MatrixSource, name: str) -> bool:
    """Tell whether the expression is found in the name of a matrix, without its last part "weight"."""
    return source.targets is None or re.search(source.targets, name.removesuffix(".weight")) is not None


def _nothing(source: MatrixSource) -> str:
    where = ", ".join(source.files) or f"{source.base} and {source.tuned}"
    if source.targets is None:
        return f"{where}: there are no matrices"
    return f"{where}: no matrix has a name in which targets, {source.targets!r}, is found"
