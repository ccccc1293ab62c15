"""The change of one weight, computed when it is needed: between two checkpoints, in a file, or of an adapter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from structmat._adapter_format import factor_scales
from structmat.operators import CDDLayout
from structmat.studies._checkpoint_files import CheckpointError, Entry, JoinedEntry

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["AnyChange", "Change", "LowRankChange", "ProductChange", "weighted_norm"]

_ROWS = 256
"""The norm of a matrix is summed over so many rows at a time, so that no second whole matrix is held."""


@dataclass(frozen=True)
class Change:
    """The change of one weight: the tuned one minus that of the base."""

    tuned: Entry | JoinedEntry
    base: Entry | JoinedEntry | None = None
    """None if the file holds the change itself, which then stands in the place of the tuned weight."""
    transposed: bool = False
    """Whether it is stored as inputs by outputs."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tuned.shape[::-1] if self.transposed else self.tuned.shape

    def check(self, *, cast: bool = False) -> None:
        """Refuse weights that cannot be read, or have other shapes or dtypes than each other; `cast` allows dtypes."""
        base = self.base or self.tuned
        for entry in (base, self.tuned):
            entry.check_floats()
        if self.tuned.shape != base.shape:
            raise CheckpointError(f"{self.tuned} has shape {self.tuned.shape}, but {base} has {base.shape}")
        if self.tuned.dtype != base.dtype and not cast:
            text = f"{self.tuned} has dtype {self.tuned.dtype}, but {base} has {base.dtype}"
            raise CheckpointError(f"{text}; the option cast takes them so")

    @np.errstate(over="ignore", invalid="ignore")  # whoever asks for the change refuses infinity and NaN
    def matrix(self) -> NDArray[Any]:
        """Return the change, of outputs by inputs.

        No more than one whole matrix is held in memory, and a few rows of the other.
        """
        if self.base is None:
            change = self.tuned.read()
        else:
            wide = "float64" if "float64" in {self.tuned.dtype, self.base.dtype} else "float32"
            change = np.empty(self.tuned.shape, wide)
            for rows, part in self.tuned.chunks():
                change[rows] = part
            for rows, part in self.base.chunks():
                change[rows] -= part
        return np.ascontiguousarray(change.T) if self.transposed else change

    def __str__(self) -> str:
        return str(self.tuned)


@dataclass(frozen=True)
class LowRankChange:
    """The change that an adapter of LoRA makes: a multiple of the product of two thin matrices."""

    left: Entry
    """Outputs by rank."""
    right: Entry
    """Rank by inputs."""
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.left.shape[0], self.right.shape[-1])

    def check(self, *, cast: bool = False) -> None:
        """Refuse weights that cannot be read, or are no two matrices of one rank."""
        for entry in (self.left, self.right):
            entry.check_floats()
        if len(self.left.shape) != 2 or self.left.shape[1:] != self.right.shape[:-1]:
            text = f"have shapes {self.left.shape} and {self.right.shape}, which are no matrices of one rank"
            raise CheckpointError(f"{self.left} and {self.right} {text}")

    def matrix(self) -> NDArray[Any]:
        """Return the change, of outputs by inputs."""
        return self.scale * (self.left.read() @ self.right.read())

    def __str__(self) -> str:
        return str(self.left)


@dataclass(frozen=True)
class ProductChange:
    """The change that an adapter of this package makes: a multiple of a product of diagonals and circulants."""

    vectors: tuple[Entry, ...]
    """As they are stored, in the order of the factors."""
    alpha: float
    factor_scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.vectors[0].shape[-1], self.vectors[-1].shape[-1])

    def check(self, *, cast: bool = False) -> None:
        """Refuse vectors that cannot be read, or do not make a product."""
        for entry in self.vectors:
            entry.check_floats()
        try:
            shapes = self._layout().vector_shapes
        except ValueError as error:
            raise CheckpointError(f"{self}: {error}") from error
        stored = tuple(entry.shape for entry in self.vectors)
        if [math.prod(shape) for shape in shapes] != [math.prod(shape) for shape in stored]:
            raise CheckpointError(f"{self}: vectors of shapes {stored} make no product")

    def matrix(self) -> NDArray[Any]:
        """Return the change, of outputs by inputs."""
        layout = self._layout()
        parts = zip(self.vectors, layout.vector_shapes, factor_scales(layout, self.factor_scale), strict=True)
        vectors = [scale * entry.read().reshape(shape) for entry, shape, scale in parts]
        return self.alpha * np.asarray(layout.product(vectors).to_dense())

    def _layout(self) -> CDDLayout:
        rows, cols = self.shape
        return CDDLayout((rows, cols), len(self.vectors), self.vectors[1].shape[-1])

    def __str__(self) -> str:
        return str(self.vectors[0])


AnyChange: TypeAlias = Change | LowRankChange | ProductChange
"""What a plan may hold of a layer."""


def weighted_norm(matrix: NDArray[Any], moment: NDArray[Any] | None) -> float:
    """Return the norm that errors of a matrix are relative to: its own, or the one that a moment of inputs weights."""
    largest = float(np.abs(matrix).max(initial=0.0))
    if largest == 0.0:
        return 0.0
    total = 0.0
    for start in range(0, len(matrix), _ROWS):
        part = matrix[start : start + _ROWS]
        scaled = part.astype(np.result_type(part, np.float64)) / largest  # so that no square overflows or underflows
        weighted = scaled
        if moment is not None:
            weighted = scaled * moment if moment.ndim == 1 else scaled @ moment
        total += float(np.vdot(scaled, weighted).real)
    return largest * math.sqrt(max(total, 0.0))
