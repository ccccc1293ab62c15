"""A square product of diagonals and circulants, all held by their diagonal forms: what joint solvers differentiate.

With ``Q`` the identity for a diagonal and the unitary Fourier matrix for a circulant, every factor is ``Q^H diag(x)
Q``. Between neighbours stands a Fourier matrix, so products are carried along the chain by scalings and transforms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from structmat.operators import FactorKind

__all__ = ["DiagonalForms"]


@dataclass(frozen=True, eq=False)
class DiagonalForms:
    """The factors of a square product by their diagonal forms."""

    x: NDArray[np.complex128]
    """(F, n): entries of the diagonals, spectra of the circulants."""
    first: FactorKind
    real: bool
    """Whether all factors are real matrices."""

    @classmethod
    def from_vectors(cls, vectors: Sequence[NDArray[Any]], first: FactorKind, *, real: bool) -> DiagonalForms:
        """Return the chain of the given diagonals and first columns."""
        x = np.array(vectors, dtype=np.complex128)
        circulants = slice(int(first == "diagonal"), None, 2)
        x[circulants] = np.fft.fft(x[circulants])
        return cls(x, first, real)

    def to_vectors(self) -> list[NDArray[Any]]:
        """Return diagonals and first columns."""
        x = self.x.copy()
        x[self.circulants] = np.fft.ifft(x[self.circulants])
        return list(x.real if self.real else x)

    @property
    def circulants(self) -> slice:
        """The places of the circulants."""
        return slice(int(self.first == "diagonal"), None, 2)

    @property
    def diagonals(self) -> slice:
        """The places of the diagonals."""
        return slice(int(self.first == "circulant"), None, 2)

    @cached_property
    def lefts(self) -> NDArray[np.complex128]:
        """``A[k]``, the factors left of `k` times ``Q_k^H``: the product is ``A[k] @ diag(x[k]) @ B[k]``."""
        n_factors, n = self.x.shape
        A = np.empty((n_factors, n, n), dtype=np.complex128)
        A[0] = self._opening()
        for k in range(n_factors - 1):
            A[k + 1] = self.change(k, A[k] * self.x[k], axis=-1)
        return A

    @cached_property
    def rights(self) -> NDArray[np.complex128]:
        """``B[k]``: ``Q_k`` times the factors right of `k`."""
        n_factors, n = self.x.shape
        B = np.empty((n_factors, n, n), dtype=np.complex128)
        B[-1] = self._closing(np.eye(n, dtype=np.complex128))
        for k in range(n_factors - 2, -1, -1):
            B[k] = self.change(k, self.x[k + 1, :, None] * B[k + 1], axis=-2)
        return B

    def dense(self) -> NDArray[Any]:
        """Return the product."""
        return self.derivatives(np.zeros_like(self.x), 0)[0]

    def derivatives(self, direction: NDArray[np.complex128], order: int) -> NDArray[Any]:
        """Coefficients at ``t**0, ..., t**order`` of the product of the chain with ``x + t * direction``."""
        n_factors, n = self.x.shape
        terms = np.zeros((order + 1, n, n), dtype=np.complex128)
        terms[0] = self._opening()
        for k, (x, d) in enumerate(zip(self.x, direction, strict=True)):
            scaled = terms * x
            scaled[1:] += terms[:-1] * d
            terms = self.change(k, scaled, axis=-1) if k < n_factors - 1 else self._closing(scaled)
        return terms.real if self.real else terms

    def moved(self, step: NDArray[np.complex128]) -> Self:
        """Return the chain with `step` added to all diagonal forms."""
        return replace(self, x=self.x + step)

    def balanced(self) -> Self:
        """Return the same product with factors of equal norm, for the scale between factors is free."""
        norms = np.linalg.norm(self.x, axis=1)
        if not norms.all():
            return self
        shares = np.exp(np.log(norms).mean() - np.log(norms))
        return replace(self, x=self.x * shares[:, None])

    def is_circulant(self, k: int) -> bool:
        """Return whether factor `k` is a circulant."""
        return (k % 2 == 0) == (self.first == "circulant")

    def _opening(self) -> NDArray[np.complex128]:
        identity = np.eye(self.x.shape[1], dtype=np.complex128)
        return np.fft.ifft(identity, norm="ortho") if self.is_circulant(0) else identity

    def _closing(self, M: NDArray[np.complex128]) -> NDArray[np.complex128]:
        return np.fft.fft(M, norm="ortho") if self.is_circulant(len(self.x) - 1) else M

    def change(self, k: int, M: NDArray[np.complex128], axis: int) -> NDArray[np.complex128]:
        """Multiply by ``Q_k @ Q_(k+1)^H``, from the right on the last axis or from the left on the one before it."""
        transform = np.fft.fft if self.is_circulant(k) else np.fft.ifft
        return transform(M, axis=axis, norm="ortho")
