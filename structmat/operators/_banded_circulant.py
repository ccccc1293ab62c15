"""Circulant matrices of few diagonals, which shift instead of transforming."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from structmat._arrays import as_floating, is_complex, scale_array
from structmat._arrays.checks import integer
from structmat._arrays.dispatch import add, compose, scale
from structmat._arrays.errors import ArgumentValueError
from structmat._arrays.typing import Array, DType, Namespace, Scalar
from structmat._engine import Convolution, Settings, ShiftAndAdd
from structmat.operators._base import Context, LinearOperator, Planned, SpectralFunction
from structmat.operators._circulant import Circulant, SpectralCirculant
from structmat.operators._combinations import Scaled, identity_factor
from structmat.operators._identity import Identity

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
        object.__setattr__(self, "start", integer(self.start, "BandedCirculant", "start", -sys.maxsize))

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


def _as_circulant(operator: Any) -> Any:
    return operator.to_circulant() if isinstance(operator, BandedCirculant) else operator


@compose.rule(BandedCirculant, BandedCirculant)
@compose.rule(BandedCirculant, Circulant)
@compose.rule(BandedCirculant, SpectralCirculant)
@compose.rule(Circulant, BandedCirculant)
@compose.rule(SpectralCirculant, BandedCirculant)
def _multiply(left: LinearOperator, right: LinearOperator) -> LinearOperator:
    return compose.merge(_as_circulant(left), _as_circulant(right))


@add.rule(BandedCirculant, BandedCirculant)
def _add(left: BandedCirculant, right: BandedCirculant) -> LinearOperator:
    if (left.start, left.entries.shape[-1]) == (right.start, right.entries.shape[-1]):
        return left._like(left.entries + right.entries)
    return add.merge(left.to_circulant(), right.to_circulant())


@add.rule(BandedCirculant, Circulant)
@add.rule(BandedCirculant, SpectralCirculant)
def _add_circulant(left: BandedCirculant, right: LinearOperator) -> LinearOperator:
    return add.merge(left.to_circulant(), right)


@add.rule(BandedCirculant, Identity)
@add.rule(BandedCirculant, Scaled)
def _add_identity(left: BandedCirculant, right: LinearOperator) -> LinearOperator:
    if (factor := identity_factor(right)) is None:
        return NotImplemented
    xp, m = left._own_namespace(), left.entries.shape[-1]
    start, stop = min(left.start, 0), max(left.start + m, 1)
    k = xp.arange(start, stop, device=left.device)
    inside = [xp.zeros_like(left.entries[..., :1])] * (stop - start)
    for j in range(m):
        inside[left.start - start + j] = left.entries[..., j : j + 1]
    entries = xp.concat(inside, axis=-1) + scale_array(xp.astype(k == 0, left.dtype), factor, 1, xp)
    return BandedCirculant(entries, left.n, start)


@scale.rule(BandedCirculant, object)
def _scale(operator: BandedCirculant, factor: Scalar) -> BandedCirculant:
    return operator._like(scale_array(operator.entries, factor, 1, operator._own_namespace()))
