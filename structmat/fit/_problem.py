"""What is asked of a fit, a matrix and the products that may approximate it, and what a search has found for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmat.fit._matrices import scale_by_power_of_two, transposed_vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.operators import CDDLayout

__all__ = ["Found", "Problem"]


@dataclass(frozen=True, eq=False)
class Problem:
    """Find the product `P` of a layout that minimises ``norm(matrix - P)``, or this norm with weights."""

    matrix: NDArray[Any]
    """The matrix, (rows, cols)."""
    layout: CDDLayout
    """The layout of the products."""
    dtype: np.dtype[Any]
    """The dtype in which the product that is found will be used. That of `matrix` may be more precise."""
    inputs: NDArray[Any] | None = None
    """With inputs `M` of shape (cols, k) the norm is that of ``(matrix - P) @ M``. A vector stands for the matrix with
    this diagonal, None for the identity."""
    entry_weights: NDArray[Any] | None = None
    """Weights of the squared entries in the norm, of the shape of `matrix`; None if all are one."""

    @property
    def target(self) -> NDArray[Any]:
        """The matrix times the inputs, which the product times the inputs is to come near to."""
        if self.inputs is None:
            return self.matrix
        target: NDArray[Any] = self.matrix * self.inputs if self.inputs.ndim == 1 else self.matrix @ self.inputs
        return target

    def transposed(self) -> Problem:
        """Return the problem of the transposed matrix; only without weights."""
        layout = replace(self.layout, shape=self.layout.shape[::-1])
        return replace(self, matrix=np.ascontiguousarray(self.matrix.T), layout=layout)


class Found(NamedTuple):
    """A product that was found, or is known beforehand, and how it was found."""

    start: str
    """The name of the starting point that it was found from."""
    vectors: Sequence[NDArray[Any]]
    """Its vectors, in the shapes of the `CDDLayout` with as many factors."""
    history: Sequence[float] = ()
    """Relative errors at the starting point and after every iteration."""
    converged: bool = False
    """Whether the last iterations lowered the error by no more than the tolerance, or the product is exact."""
    exact: bool = False
    """Whether a search has found it to be the matrix up to rounding."""
    slow: bool = False
    """Whether a descent to it has ended where its steps gained little."""

    def transposed(self) -> Found:
        """Return the transposed product."""
        return self._replace(vectors=transposed_vectors(self.vectors))

    def scaled(self, log2_scale: float) -> Found:
        """Return the product times two to the power `log2_scale`, of which every factor takes its share."""
        exponent, rest = divmod(log2_scale / len(self.vectors), 1.0)
        with np.errstate(over="ignore"):  # The error of the products tells.
            shares = [v * v.real.dtype.type(2.0**rest) for v in self.vectors]
            return self._replace(vectors=[scale_by_power_of_two(v, int(exponent)) for v in shares])

    def with_columns_times(self, factors: NDArray[Any]) -> Found:
        """Return the product, whose last factor is a diagonal, with its columns multiplied by numbers."""
        return self._replace(vectors=[*self.vectors[:-1], self.vectors[-1] * factors])
