"""The error of a product of phase masks and fixed mixing layers by its phases, with gradient and Gram matrix.

The product is ``P = D_1 M_1 D_2 M_2 ... M_{L-1} D_L`` with ``D_l = diag(exp(i phases[l]))``. Of it the rows R and the
columns C count, so that the residual is ``R P C - T`` for a target T of unit norm, up to the global phase that makes it
smallest. With ``A_l = R D_1 M_1 ... D_l``, and ``B_l`` what follows in the product, mask l contributes ``A_l B_l`` with
the derivative ``i A_l[:, j] B_l[j, :]`` by its phase j. These are matrices of rank one, and the inner product of two of
them is the product of two numbers. So the Gram matrix of all derivatives is the entry-wise product of the Gram
matrices of the columns of all A_l and of the rows of all B_l: no derivative is ever formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MixingLayer", "PhaseObjective", "PhasePoint"]


class MixingLayer(Protocol):
    """A fixed matrix between two masks."""

    def before(self, columns: NDArray[Any]) -> NDArray[Any]:
        """Return the layer times some columns, (n, k)."""

    def after(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return some rows, (k, n), times the layer."""


@dataclass(frozen=True, eq=False)
class PhasePoint:
    """What is known of the product with some phases."""

    objective: PhaseObjective
    phases: NDArray[np.float64]
    """All of them, (n_masks, n)."""
    prefixes: list[NDArray[Any]]
    """``A_l`` for each mask."""
    product: NDArray[Any]
    """``R P C``."""
    factor: complex
    """The global phase that brings the product next to the target, over the norm of the target."""
    residual: NDArray[Any]
    error: float
    """The relative error."""

    def fidelity(self) -> float:
        """Return the squared cosine of the angle between product and target."""
        length = float(np.linalg.norm(self.product))
        return float(abs(np.vdot(self.product, self.objective.target)) / length) ** 2 if length else 0.0

    def gradient(self) -> NDArray[np.float64]:
        """Return half the gradient of the squared error."""
        return _overlaps(self._derived_prefixes(), self._suffixes(), self.residual)[self.objective.adjustable]

    def normal_equations(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the Gram matrix of the derivatives of the residual, and half the gradient of the squared error.

        The global phase follows the other phases, so that the derivatives have no component along it.
        """
        prefixes, suffixes = self._derived_prefixes(), self._suffixes()
        n_masks, n = self.phases.shape
        gradient = _overlaps(prefixes, suffixes, self.residual)
        turned = self.product * (1j * self.factor)
        turned /= np.linalg.norm(turned) or 1.0
        along = _overlaps(prefixes, suffixes, turned).ravel()

        columns, rows = np.concatenate(prefixes, axis=1), np.concatenate(suffixes, axis=0)
        gram = np.empty((n_masks * n, n_masks * n))
        for mask, (A, B) in enumerate(zip(prefixes, suffixes, strict=True)):
            here, so_far = slice(mask * n, (mask + 1) * n), slice((mask + 1) * n)
            inner = (A.conj().T @ columns[:, so_far]) * (B.conj() @ rows[so_far].T)
            gram[here, so_far] = inner.real - np.multiply.outer(along[here], along[so_far])
            gram[so_far, here] = gram[here, so_far].T
        if not self.objective.adjustable.all():
            kept = self.objective.adjustable.ravel()
            gram = gram[np.ix_(kept, kept)]
        return gram, gradient[self.objective.adjustable]

    def _derived_prefixes(self) -> list[NDArray[Any]]:
        """Return the columns of the derivatives by the phases of each mask."""
        return [A * (1j * self.factor) for A in self.prefixes]

    def _suffixes(self) -> list[NDArray[Any]]:
        """Return ``B_l C``, what follows each mask in the product."""
        suffixes = [self.objective.columns]
        shifts = np.exp(1j * self.phases[:0:-1])
        for shift, layer in zip(shifts, reversed(self.objective.layers), strict=True):
            suffixes.append(layer.before(shift[:, None] * suffixes[-1]))
        return suffixes[::-1]


class PhaseObjective:
    """The relative error of products of phase masks as a function of the phases that can be adjusted.

    Parameters
    ----------
    target : (p, q) ndarray
        Complex, not zero.
    layers : sequence of MixingLayer
        One between each two masks.
    rows : (p, n) ndarray
    columns : (n, q) ndarray
        The rows and columns that the product is multiplied by, before it is compared with the target.
    phases : (n_masks, n) ndarray
        Those that cannot be adjusted keep their values.
    adjustable : (n_masks, n) ndarray of bool
    """

    dtype = np.dtype(np.float64)

    def __init__(
        self,
        target: NDArray[Any],
        layers: Sequence[MixingLayer],
        rows: NDArray[Any],
        columns: NDArray[Any],
        phases: NDArray[np.float64],
        adjustable: NDArray[np.bool_],
    ) -> None:
        self.norm = float(np.linalg.norm(target))
        self.target = target / self.norm
        self.layers, self.rows, self.columns = layers, rows, columns
        self.fixed_phases, self.adjustable = phases, adjustable

    @property
    def n_parameters(self) -> int:
        """The number of phases that can be adjusted."""
        return int(np.count_nonzero(self.adjustable))

    def phases_of(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return all phases, (n_masks, n), for those that can be adjusted."""
        phases = self.fixed_phases.copy()
        phases[self.adjustable] = x
        return phases

    def parameters_of(self, phases: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the phases that can be adjusted, in one vector."""
        adjusted: NDArray[np.float64] = phases[self.adjustable]
        return adjusted

    def at(self, x: NDArray[np.float64]) -> PhasePoint:
        """Return what is known of the product with these phases."""
        phases = self.phases_of(x)
        prefixes, rows = [], self.rows
        for mask, shift in enumerate(np.exp(1j * phases)):
            rows = rows * shift
            prefixes.append(rows)
            if mask < len(self.layers):
                rows = self.layers[mask].after(rows)
        product = rows @ self.columns
        overlap = np.vdot(product, self.target)
        factor = complex((overlap / abs(overlap) if overlap else 1.0) / self.norm)
        residual = product * factor - self.target
        return PhasePoint(self, phases, prefixes, product, factor, residual, float(np.linalg.norm(residual)))

    def value_and_gradient(self, batch: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return squared relative errors, (k,), and their gradients, for the phases of several products."""
        points = [self.at(x) for x in batch]
        return np.array([point.error**2 for point in points]), np.array([2.0 * point.gradient() for point in points])


def _overlaps(
    prefixes: Sequence[NDArray[Any]], suffixes: Sequence[NDArray[Any]], matrix: NDArray[Any]
) -> NDArray[np.float64]:
    """Return the real inner products of a matrix with ``A[:, j] B[j, :]``, A and B those of each mask."""
    pairs = zip(prefixes, suffixes, strict=True)
    return np.stack([np.einsum("ij,ij->j", A.conj(), matrix @ B.conj().T).real for A, B in pairs])
