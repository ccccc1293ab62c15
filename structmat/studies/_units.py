"""The units of work of a sweep: one search for CDD products, one other family, or the weights that are not fitted."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._arguments import independent_generators
from structmat._arrays.conversion import to_numpy
from structmat._errors import ArgumentValueError
from structmat._files import one_line
from structmat.fit import baseline_errors, error_curve
from structmat.operators import CDDLayout, CDDProduct
from structmat.studies._changes import AnyChange, weighted_norm
from structmat.studies._checkpoint_files import CheckpointError, Entry
from structmat.studies._sources import Matrix
from structmat.studies._study import COLUMNS, COMPLETED, Row

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Family", "OtherWeights", "Search", "Task", "done", "not_in_adapters"]


@dataclass(frozen=True)
class Task:
    """What the approximations of one matrix have in common: each kind of them is one unit of work."""

    layer: str
    source: Matrix
    moment: NDArray[Any] | Entry | None
    n_factors: tuple[int, ...]
    """Rising numbers of factors: one row for each."""
    block_size: Any
    """An integer or "min"."""

    @property
    def cost(self) -> float:
        """An estimate of the time that the unit takes, relative to others."""
        return float(math.prod(self.source.shape))

    def run(self) -> dict[str, Any]:
        """Return the record of the unit; errors of weights in files name these."""
        try:
            matrix = self.source.matrix()
            if not np.isfinite(matrix).all():
                raise ArgumentValueError("sweep", self.layer, "must be finite, got NaN or infinity")
            matrix = matrix.astype(np.result_type(matrix.dtype, np.float32), copy=False)
            moment = self.moment.read() if isinstance(self.moment, Entry) else self.moment
            return self.approximate(matrix, moment)
        except ValueError as error:
            if isinstance(self.source, AnyChange):
                raise CheckpointError(f"{self.source}: {one_line(error)}") from error
            raise

    def approximate(self, matrix: NDArray[Any], moment: NDArray[Any] | None) -> dict[str, Any]:
        """Return the record for the matrix."""
        raise NotImplementedError

    def columns(self, matrix: NDArray[Any], moment: NDArray[Any] | None) -> dict[str, Any]:
        """Return the columns that all rows of the matrix have in common."""
        norm = weighted_norm(matrix, moment)
        if math.isinf(norm):
            raise ArgumentValueError("sweep", self.layer, "has a norm that overflows")
        rows, cols = matrix.shape
        own = {"layer": self.layer, "rows": rows, "cols": cols, "norm": norm}
        return {**own, "weighted": moment is not None, "block_size": self.block_size}


@dataclass(frozen=True)
class Search(Task):
    """One search for CDD products of more and more factors, each of which starts from the one before."""

    number: int
    """Which of several independent searches it is, the first is 1."""
    rng: int
    time_limit: float | None
    """Seconds of processor time for all numbers of factors together."""
    keeps_vectors: bool
    """Whether the record has the vectors of the products, for adapters."""

    @property
    def cost(self) -> float:
        """An estimate of the time that the unit takes, relative to others.

        It is a model of matrices of 384 x 384 entries: a fit with k > 3 factors takes about k**3 / 3 times as long as
        one with three, and a search with a time limit uses that up.
        """
        if self.time_limit is not None and max(self.n_factors) > 3:
            return 1e6 * self.time_limit
        return super().cost * sum(max(1.0, count**3 / 3.0) if count > 3 else 1.0 for count in self.n_factors)

    def approximate(self, matrix: NDArray[Any], moment: NDArray[Any] | None) -> dict[str, Any]:
        """Return the record of the search."""
        curve = error_curve(
            matrix,
            self.n_factors,
            block_size=self.block_size,
            input_second_moment=moment,
            rng=independent_generators(np.random.default_rng(self.rng), self.number)[-1],
            time_limit=self.time_limit,
            baselines=False,
            progress=False,
        )
        table, common = curve.to_dict(), self.columns(matrix, moment)
        rows: list[Row] = []
        columns = ("n_parameters", "error", "product_factors", "status", "processor_seconds", "clock_seconds")
        for k, count in enumerate(self.n_factors):
            if table["error"][k] is not None:
                own = {name: table[name][k] for name in columns}
                own |= {"method": "cdd", "search": self.number, "exact": bool(curve.exact[k])}
                rows.append(_row({**common, **own, "n_factors": count}))
        left = [f"{count} factors of {self.layer} were not made" for count in self.n_factors[len(rows) :]]
        record: dict[str, Any] = {"rows": rows, "left_out": left}
        if self.keeps_vectors:
            made = [fit for fit in curve.results if fit is not None]
            record["vectors"] = {f"{fit.operator.n_factors}": _vectors(fit.operator) for fit in made}
        return record


@dataclass(frozen=True)
class Family(Task):
    """The best members of another family, with at most as many parameters as CDD products have."""

    method: str

    def approximate(self, matrix: NDArray[Any], moment: NDArray[Any] | None) -> dict[str, Any]:
        """Return the record of the members."""
        began, spent = time.perf_counter(), time.process_time()
        layouts = [CDDLayout(matrix.shape, count, self.block_size) for count in self.n_factors]
        most = [layout.n_parameters for layout in layouts]
        found = baseline_errors(matrix, most, names=[self.method], input_second_moment=moment)
        ((used, errors),) = found.values()
        share = len(self.n_factors)
        common = {
            **self.columns(matrix, moment),
            "method": self.method,
            "search": None,
            "product_factors": None,
            "exact": False,
            "status": COMPLETED,
            "processor_seconds": (time.process_time() - spent) / share,
            "clock_seconds": (time.perf_counter() - began) / share,
        }
        rows, left = [], []
        for count, parameters, error in zip(self.n_factors, used.tolist(), errors.tolist(), strict=True):
            if parameters or error == 0.0:
                rows.append(_row({**common, "n_factors": count, "n_parameters": parameters, "error": error}))
            else:
                left.append(f"{self.method} has no member with so few parameters")
        return {"rows": rows, "left_out": left}


@dataclass(frozen=True)
class OtherWeights:
    """The weights that are not fitted: the unit of work that finds out which of them were tuned too."""

    pairs: tuple[tuple[Entry, Entry], ...]
    """Each weight as it was tuned, and in the base."""
    cost: float = 1.0
    """Next to nothing in comparison with a search, whose cost is at least the number of entries of its matrix."""

    def run(self) -> dict[str, Any]:
        """Return the record, which has no rows."""
        changed = [tuned.key for tuned, base in self.pairs if not tuned.equals(base)]
        return {"rows": [], "left_out": list(map(not_in_adapters, changed))}


def not_in_adapters(name: str) -> str:
    """Return what is said of a weight that was tuned, and that no adapter of linear layers can change."""
    return f"{name} was tuned too, but is in no adapter"


def done(unit: Task | OtherWeights) -> dict[str, Any]:
    """Do one unit of work."""
    return unit.run()


def _row(columns: Mapping[str, Any]) -> Row:
    """Return a row with its columns in their order."""
    row: Any = {name: columns[name] for name in COLUMNS}
    return row


def _vectors(product: CDDProduct) -> dict[str, NDArray[Any]]:
    """Return the vectors of a product, by the place of the factor."""
    return {str(i): to_numpy(v) for i, v in enumerate(CDDLayout.of(product).vectors_of(product))}
