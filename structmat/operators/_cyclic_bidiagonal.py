"""Circulant matrices of two diagonals, which shift instead of transforming."""

from __future__ import annotations

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

__all__ = ["CyclicBidiagonal"]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class CyclicBidiagonal(Planned):
    """A circulant matrix with two nonzero diagonals, the main one and the cyclic one below or above it.

    ``C[i, i] = entries[0]`` and ``C[i, i - 1] = entries[1]``, or ``C[i, i + 1]`` if `upper`, indices modulo n.

    Parameters
    ----------
    entries : array, shape (..., 2)
        The entry of the main diagonal and that of the other one; leading axes make a stack of matrices.
    n : int
        The size. For n = 1 both diagonals are the same, and their entries add up.
    upper : bool, default False
        Whether the other diagonal lies above the main one.

    Raises
    ------
    ValueError
        If `entries` has another last axis than 2, or `n` is not positive.
    TypeError
        If `entries` does not hold numbers, or `n` is not an integer.

    See Also
    --------
    Circulant : With any number of diagonals.
    structmat.factorize_cdd : Returns products with such factors.

    Notes
    -----
    With the cyclic shift P it is ``entries[0] * I + entries[1] * P``. A product is a shift and an addition, O(n), with
    errors relative to each entry, while those of transforms are relative to the norm of the vector. Its linear algebra
    is that of the same matrix as a `Circulant`.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> C = sm.CyclicBidiagonal(np.array([1.0, -1.0]), 4)
    >>> C
    CyclicBidiagonal(shape=(4, 4), dtype=float64, device=cpu)
    >>> C.matvec(np.array([1.0, 4.0, 9.0, 16.0]))
    array([-15.,   3.,   5.,   7.])
    """

    _core_axes = {"entries": 1}

    entries: Array
    """The entries of the two diagonals, shape ``(..., 2)``."""
    n: int
    """The size."""
    upper: bool = False
    """Whether the other diagonal lies above the main one."""

    def __post_init__(self) -> None:
        n = integer(self.n, "CyclicBidiagonal", "n")
        entries = as_floating(self.entries, "CyclicBidiagonal", "entries")
        if entries.ndim < 1 or entries.shape[-1] != 2:
            raise ArgumentValueError(
                "CyclicBidiagonal", "entries", f"must have shape (..., 2), got {tuple(entries.shape)}"
            )
        object.__setattr__(self, "entries", entries)
        object.__setattr__(self, "n", n)
        object.__setattr__(self, "upper", bool(self.upper))

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
            Its first column has at most two nonzero entries.
        """
        xp = self._own_namespace()
        k = xp.arange(self.n, device=self.device)
        zero = xp.zeros_like(self.entries[..., :1])
        main, off = self.entries[..., :1], self.entries[..., 1:]
        place = (self.n - 1 if self.upper else 1) % self.n
        return Circulant(xp.where(k == 0, main, zero) + xp.where(k == place, off, zero))

    def _like(self, entries: Array) -> CyclicBidiagonal:
        return CyclicBidiagonal(entries, self.n, self.upper)

    def _plan(self, settings: Settings, xp: Namespace) -> ShiftAndAdd:
        return ShiftAndAdd(self.entries, self.n, self.upper, not is_complex(self.dtype, xp))

    def _transpose(self) -> CyclicBidiagonal:
        return CyclicBidiagonal(self.entries, self.n, not self.upper)

    def _conj(self) -> CyclicBidiagonal:
        xp = self._own_namespace()
        return self._like(xp.conj(self.entries)) if is_complex(self.dtype, xp) else self

    def _to_dense(self, like: Context) -> Array:
        return self.to_circulant()._to_dense(like)

    def _inv(self, xp: Namespace) -> LinearOperator:
        return self.to_circulant()._inv(xp)

    def _solve(self, b: Array, xp: Namespace) -> Array:
        return self.to_circulant()._solve(b, xp)

    def _solver(self, settings: Settings, xp: Namespace) -> Convolution:
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
    return operator.to_circulant() if isinstance(operator, CyclicBidiagonal) else operator


@compose.rule(CyclicBidiagonal, CyclicBidiagonal)
@compose.rule(CyclicBidiagonal, Circulant)
@compose.rule(CyclicBidiagonal, SpectralCirculant)
@compose.rule(Circulant, CyclicBidiagonal)
@compose.rule(SpectralCirculant, CyclicBidiagonal)
def _multiply(left: LinearOperator, right: LinearOperator) -> LinearOperator:
    return compose.merge(_as_circulant(left), _as_circulant(right))


@add.rule(CyclicBidiagonal, CyclicBidiagonal)
def _add(left: CyclicBidiagonal, right: CyclicBidiagonal) -> LinearOperator:
    if left.upper == right.upper:
        return left._like(left.entries + right.entries)
    return add.merge(left.to_circulant(), right.to_circulant())


@add.rule(CyclicBidiagonal, Circulant)
@add.rule(CyclicBidiagonal, SpectralCirculant)
def _add_circulant(left: CyclicBidiagonal, right: LinearOperator) -> LinearOperator:
    return add.merge(left.to_circulant(), right)


@add.rule(CyclicBidiagonal, Identity)
@add.rule(CyclicBidiagonal, Scaled)
def _add_identity(left: CyclicBidiagonal, right: LinearOperator) -> LinearOperator:
    if (factor := identity_factor(right)) is None:
        return NotImplemented
    xp = left._own_namespace()
    main = xp.astype(xp.arange(2, device=left.device) == 0, left.dtype)
    return left._like(left.entries + scale_array(main, factor, 1, xp))


@scale.rule(CyclicBidiagonal, object)
def _scale(operator: CyclicBidiagonal, factor: Scalar) -> CyclicBidiagonal:
    return operator._like(scale_array(operator.entries, factor, 1, operator._own_namespace()))
