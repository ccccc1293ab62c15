"""Circulant matrices of few diagonals, which shift instead of transforming."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from structmat._arrays import as_floating, is_complex
from structmat._arrays.checks import integer
from structmat._arrays.dispatch import submatrix
from structmat._arrays.errors import ArgumentValueError
from structmat._arrays.typing import Array, DType, Namespace
from structmat._engine import Convolution, Settings, ShiftAndAdd
from structmat.operators._base import Context, LinearOperator, Planned, SpectralFunction
from structmat.operators._circulant import Circulant

__all__ = ["BandedCirculant"]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class BandedCirculant(Planned):
    """A circulant matrix with few neighbouring nonzero cyclic diagonals.

    ``C[i, (i - start - k) % n] = entries[k]``: the diagonal of ``entries[0]`` is `start` rows below the main one.

    Parameters
    ----------
    entries : array, shape (..., m)
        The entries of the diagonals, from the uppermost down; leading axes make a stack of matrices.
    n : int
        The size. Entries of diagonals that are the same modulo n add up.
    start : int, default 0
        How far below the main diagonal the first one lies; negative above.

    Raises
    ------
    ValueError
        If `entries` has no entry, or `n` is not positive.
    TypeError
        If `entries` does not hold numbers, or `n` or `start` is not an integer.

    See Also
    --------
    Circulant : With any number of diagonals.
    structmat.factorize_cdd : Returns products with such factors.

    Notes
    -----
    With the cyclic shift P it is the sum of ``entries[k] * P^(start + k)``. A product is m shifts and additions,
    O(m n), with errors relative to each entry, while those of transforms are relative to the norm of the vector. Its
    linear algebra is that of the same matrix as a `Circulant`.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> C = sm.BandedCirculant(np.array([1.0, -1.0]), 4)
    >>> C
    BandedCirculant(shape=(4, 4), dtype=float64, device=cpu)
    >>> C.matvec(np.array([1.0, 4.0, 9.0, 16.0]))
    array([-15.,   3.,   5.,   7.])
    """

    _core_axes = {"entries": 1}

    entries: Array
    """The entries of the diagonals, shape ``(..., m)``."""
    n: int
    """The size."""
    start: int = 0
    """How far below the main diagonal the first one lies."""

    def __post_init__(self) -> None:
        n = integer(self.n, "BandedCirculant", "n")
        entries = as_floating(self.entries, "BandedCirculant", "entries")
        if entries.ndim < 1 or entries.shape[-1] < 1:
            raise ArgumentValueError(
                "BandedCirculant", "entries", f"must have shape (..., m) with m >= 1, got {tuple(entries.shape)}"
            )
        object.__setattr__(self, "entries", entries)
        object.__setattr__(self, "n", n)
        start = integer(self.start, "BandedCirculant", "start", -sys.maxsize)
        object.__setattr__(self, "start", (start + n // 2) % n - n // 2)  # a diagonal has many numbers

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.n, self.n)

    @property
    def dtype(self) -> DType:
        """The dtype of `entries`."""
        return self.entries.dtype

    def to_circulant(self) -> Circulant:
        """Return the same matrix, given by its first column.

        Returns
        -------
        Circulant
            Its first column has at most m nonzero entries.
        """
        xp = self._own_namespace()
        k, m = xp.arange(self.n, device=self.device), self.entries.shape[-1]
        c = xp.zeros_like(self.entries[..., :1])
        for j in range(m):
            entry = self.entries[..., j : j + 1]
            c = c + xp.where(k == (self.start + j) % self.n, entry, xp.zeros_like(entry))
        return Circulant(c)

    def _like(self, entries: Array) -> BandedCirculant:
        return BandedCirculant(entries, self.n, self.start)

    def _plan(self, settings: Settings, xp: Namespace) -> ShiftAndAdd:
        return ShiftAndAdd(self.entries, self.n, self.start, not is_complex(self.dtype, xp))

    def _transpose(self) -> BandedCirculant:
        entries = self._own_namespace().flip(self.entries, axis=-1)
        return BandedCirculant(entries, self.n, 1 - self.start - self.entries.shape[-1])

    def _conj(self) -> BandedCirculant:
        xp = self._own_namespace()
        return self._like(xp.conj(self.entries)) if is_complex(self.dtype, xp) else self

    def _to_dense(self, like: Context) -> Array:
        return self.to_circulant()._to_dense(like)

    def _inv(self, xp: Namespace) -> LinearOperator:
        return self.to_circulant()._inv(xp)

    def _solve(self, b: Array, xp: Namespace) -> Array:
        return self.to_circulant()._solve(b, xp)

    def _solver(self, settings: Settings, xp: Namespace) -> Convolution | None:
        return self.to_circulant()._solver(settings, xp)

    def _pinv(self, rtol: float, xp: Namespace) -> LinearOperator:
        return self.to_circulant()._pinv(rtol, xp)

    def _eigvals(self, xp: Namespace) -> Array:
        return self.to_circulant()._eigvals(xp)

    def _eig(self, xp: Namespace) -> tuple[Array, LinearOperator]:
        return self.to_circulant()._eig(xp)

    def _svdvals(self, xp: Namespace) -> Array:
        return self.to_circulant()._svdvals(xp)

    def _determinant_factors(self, method: str, xp: Namespace) -> Array:
        return self.to_circulant()._determinant_factors(method, xp)

    def _diagonal(self, method: str, xp: Namespace) -> Array:
        return self.to_circulant()._diagonal(method, xp)

    def _modulus(self, xp: Namespace) -> LinearOperator:
        return self.to_circulant()._modulus(xp)

    def _frobenius(self, xp: Namespace) -> Array:
        return self.to_circulant()._frobenius(xp)

    def _spectral_function(self, function: SpectralFunction, xp: Namespace) -> LinearOperator:
        return self.to_circulant()._spectral_function(function, xp)


@submatrix.rule(BandedCirculant, object)
def _block(operator: BandedCirculant, block: tuple[range, range]) -> LinearOperator:
    return submatrix.merge(operator.to_circulant(), block)
