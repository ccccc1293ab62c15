"""The work on one layer: its change is read or computed when it is needed, fitted, and compared with the best SVD."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._arrays.conversion import to_numpy
from structmat.fit import baseline_errors, fit_cdd
from structmat.operators import CDDLayout
from structmat.studies._checkpoint_files import CheckpointError, Entry, JoinedEntry

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Change", "LayerFit", "LayerTask", "unit_rng", "weighted_norm"]

_ROWS = 256
"""The norm of a matrix is summed over so many rows at a time, so that no second whole matrix is held."""


@dataclass(frozen=True)
class Change:
    """The change of one weight: the tuned one minus that of the base, read when it is needed."""

    tuned: Entry | JoinedEntry
    base: Entry | JoinedEntry | None = None
    """None if the file holds the change itself, which then stands in the place of the tuned weight."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tuned.shape

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
        """Return the change. No more than one whole matrix is held in memory, and a few rows of the other."""
        if self.base is None:
            return self.tuned.read()
        wide = "float64" if "float64" in {self.tuned.dtype, self.base.dtype} else "float32"
        change = np.empty(self.shape, wide)
        for rows, part in self.tuned.chunks():
            change[rows] = part
        for rows, part in self.base.chunks():
            change[rows] -= part
        return change

    def __str__(self) -> str:
        return str(self.tuned)


@dataclass(frozen=True)
class LayerTask:
    """The fit of the change of one layer."""

    name: str
    change: Change
    transposed: bool = False
    """Whether the change is stored as inputs by outputs."""
    n_factors: int = 3
    block_size: int | str = "min"
    input_second_moment: Entry | None = None
    rng: int = 0
    """The seed of the whole run; `unit_rng` makes that of the layer of it."""
    time_limit: float | None = None

    @property
    def cost(self) -> float:
        """The number of entries of the matrix, with which the time of a fit grows roughly in proportion."""
        return float(math.prod(self.change.shape))

    def run(self) -> LayerFit:
        """Read the change, fit it, and compare the fit with the best SVD of at most as many parameters."""
        matrix = self._matrix()
        rows, cols = matrix.shape
        moment = None if self.input_second_moment is None else self.input_second_moment.read()
        if not matrix.any():
            return LayerFit((rows, cols))
        options: dict[str, Any] = {"input_second_moment": moment}
        try:
            layout = CDDLayout((rows, cols), self.n_factors, self.block_size, owner="fit_cdd")
            most = [layout.n_parameters]
            ((used, errors),) = baseline_errors(matrix, most, names=["truncated-svd"], **options).values()
            norm = weighted_norm(matrix, moment)
            if math.isinf(norm):
                raise CheckpointError(f"{self.change}: the norm of the change overflows")
            options |= {"rng": unit_rng(self.rng, self.name), "time_limit": self.time_limit}
            result = fit_cdd(matrix, self.n_factors, block_size=layout.block_size, **options)
        except ValueError as error:
            raise CheckpointError(f"{self.change}: {error}") from error
        return LayerFit(
            (rows, cols),
            norm,
            layout.n_parameters,
            result.error,
            result.status,
            int(used[0]),
            float(errors[0]),
            {str(i): to_numpy(v) for i, v in enumerate(layout.vectors_of(result.operator))},
        )

    def _matrix(self) -> NDArray[Any]:
        """Read the change as a matrix of outputs by inputs."""
        matrix = self.change.matrix()
        if matrix.ndim != 2:
            raise CheckpointError(f"{self.change} must be a matrix, got shape {matrix.shape}")
        if not np.isfinite(matrix).all():
            raise CheckpointError(f"{self.change}: the change holds NaN or infinity")
        return np.ascontiguousarray(matrix.T) if self.transposed else matrix


@dataclass(frozen=True)
class LayerFit:
    """What the work on one layer gave; by default what it gives for a layer that did not change."""

    shape: tuple[int, int]
    norm: float = 0.0
    n_parameters: int = 0
    """How many the CDD product has."""
    error: float = 0.0
    """The error of the CDD product."""
    status: str = "completed"
    svd_n_parameters: int = 0
    svd_error: float = 0.0
    vectors: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """The vectors of the CDD product, by the place of the factor; none for a layer that did not change."""


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


def unit_rng(rng: int, key: str) -> np.random.Generator:
    """Return the random number generator of one unit of work, which is the same wherever and whenever it runs."""
    words = np.frombuffer(hashlib.sha256(key.encode()).digest(), "<u4")
    return np.random.default_rng([rng, *words.tolist()])
