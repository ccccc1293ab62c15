"""The fits of the layers of a model, one after the other or by many workers, and what each of them needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from structmat._arrays.numpy_bridge import to_numpy
from structmat._layer_fits.changes import Change, equal
from structmat._layer_fits.seeds import unit_rng
from structmat.fit import fit_cdd, truncated_svd_error, weighted_norm
from structmat.io import CheckpointError, Entry
from structmat.operators import CDDLayout

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LayerTask", "OtherWeights", "Outcome", "fit_layers", "in_turn", "several_faults"]


class Outcome(NamedTuple):
    """What a unit of work gives."""

    values: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    fault: str = ""
    """Why there is nothing, if the weights are to blame."""


class Task(Protocol):
    """A unit of work."""

    def run(self) -> Outcome:
        """Do it."""


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
    """Seed of the whole run."""
    time_limit: float | None = None
    alpha: float = 1.0
    """What the adapter multiplies the product by."""

    @property
    def size(self) -> int:
        """Entries of the matrix, to which the time is roughly proportional."""
        return math.prod(self.change.shape)

    def run(self) -> Outcome:
        """Read, fit and compare; nothing of it stays in memory."""
        matrix = self.change.matrix()
        if matrix.ndim != 2:
            raise CheckpointError(f"{self.change} must be a matrix, got shape {matrix.shape}")
        if not np.isfinite(matrix).all():
            raise CheckpointError(f"{self.change}: the change holds NaN or infinity")
        if self.transposed:
            matrix = np.ascontiguousarray(matrix.T)
        moment = None if self.input_second_moment is None else self.input_second_moment.read()
        rows, cols = matrix.shape
        values: dict[str, Any] = {
            "name": self.name,
            "rows": rows,
            "cols": cols,
            "dtype": self.change.dtype,
            "norm": weighted_norm(matrix) if matrix.size else 0.0,
        }
        if math.isinf(values["norm"]):
            raise CheckpointError(f"{self.change}: the norm of the change overflows")
        if not values["norm"]:
            return Outcome({**values, "error": 0.0, "n_parameters": 0}, {})
        try:
            if moment is not None:
                values["weighted_norm"] = weighted_norm(matrix, input_second_moment=moment)
            layout = CDDLayout((rows, cols), self.n_factors, self.block_size, owner="fit_cdd")
            values |= {"n_parameters": layout.n_parameters, "block_size": layout.block_size}
            values |= _by_svd(matrix, layout.n_parameters, moment)
            result = fit_cdd(
                matrix,
                self.n_factors,
                block_size=layout.block_size,
                input_second_moment=moment,
                rng=unit_rng(self.rng, self.name),
                time_limit=self.time_limit,
                overwrite_W=True,  # what was to be read of it has been
            )
        except ValueError as error:
            raise CheckpointError(f"{self.change}: {error}") from error
        vectors = {str(i): to_numpy(v) for i, v in enumerate(layout.vectors_of(result.operator))}
        if self.alpha != 1.0:
            vectors["0"] = vectors["0"] / np.asarray(self.alpha, vectors["0"].dtype)
        return Outcome({**values, "error": result.error}, vectors)


@dataclass(frozen=True)
class OtherWeights:
    """Which of the weights that are not fitted were tuned too."""

    pairs: tuple[tuple[Entry, Entry], ...]

    @property
    def size(self) -> int:
        """None of the work of fits."""
        return 0

    def run(self) -> Outcome:
        """Compare them, a few rows at a time."""
        return Outcome({"changed": [tuned.key for tuned, base in self.pairs if not equal(tuned, base)]}, {})


def run_task(task: Task) -> Outcome:
    """Do a unit of work; what is wrong with the weights is part of the outcome."""
    try:
        return task.run()
    except CheckpointError as error:
        return Outcome({}, {}, str(error))


def in_turn(function: Callable[[Any], Any], units: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Do units of work in this process, one after the other, and yield their results by key."""
    yield from ((key, function(unit)) for key, unit in units.items())


def fit_layers(
    tasks: Mapping[str, Task],
    take: Callable[[str, Outcome], object],
    *,
    run: Callable[[Callable[[Any], Any], Mapping[str, Any]], Any] = in_turn,
    skip_bad: bool = False,
) -> None:
    """Do the units of work of a model, and hand over what each of them gives as soon as it is done.

    Parameters
    ----------
    tasks : mapping of str to LayerTask or OtherWeights
        By name.
    take : callable
        Called with the name and the `Outcome` of each, one with a fault only where `skip_bad`.
    run : callable, default in_turn
        Does units of work, as `structmat.studies.run_units`; stopped at the end, however that comes.
    skip_bad : bool, default False
        Go on where weights are to blame, instead of raising `CheckpointError`.
    """
    with closing(run(run_task, tasks)) as outcomes:
        for name, outcome in outcomes:
            if outcome.fault and not skip_bad:
                raise CheckpointError(outcome.fault)
            take(name, outcome)


def several_faults(faults: Mapping[Any, str]) -> str:
    """Return the first fault, and how many more there are."""
    first, *more = dict.fromkeys(faults.values())
    return f"{first} (and {len(more)} more faults)" if more else first


def _by_svd(matrix: NDArray[Any], n_parameters: int, weights: NDArray[Any] | None) -> dict[str, Any]:
    """Return what a truncated SVD of no more parameters reaches."""
    rows, cols = matrix.shape
    rank = min(n_parameters // (rows + cols), rows, cols)
    error = truncated_svd_error(matrix, rank, input_second_moment=weights)
    return {"svd_rank": rank, "svd_parameters": rank * (rows + cols), "svd_error": error}
