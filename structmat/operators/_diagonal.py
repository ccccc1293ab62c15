"""Diagonal matrices."""

from __future__ import annotations

from dataclasses import dataclass

from structmat._arrays import (
    are_normal,
    as_floating,
    complex_partner,
    copied,
    euclidean_norm,
    is_complex,
    namespace_of,
    quotient,
    reciprocal_above,
    require_nonzero,
)
from structmat._arrays.dispatch import submatrix
from structmat._arrays.errors import ArgumentValueError
from structmat._arrays.typing import Array, ArrayLike, DType, Namespace
from structmat._engine import Scaling, Settings
from structmat.operators._base import Context, LinearOperator, SpectralFunction, spectral_rounding
from structmat.operators._identity import Identity

__all__ = ["Diagonal"]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Diagonal(LinearOperator):
    """A diagonal matrix, ``A[i, i] = d[i]``.

    Parameters
    ----------
    d : array, shape (..., n)
        The diagonal; leading axes make a stack of matrices. Integers are promoted to the library's floating dtype.

    Raises
    ------
    ValueError
        If `d` has no axis or no entry.
    TypeError
        If `d` does not hold numbers.

    Notes
    -----
    Products, inverses and functions are computed entry by entry, O(n).

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> D = sm.Diagonal(np.array([1.0, 2.0, 4.0]))
    >>> D.matvec(np.array([1.0, 1.0, 1.0]))
    array([1., 2., 4.])
    >>> D.sqrtm().inv().to_dense().diagonal().round(3)
    array([1.   , 0.707, 0.5  ])
    """

    _core_axes = {"d": 1}

    d: Array
    """The diagonal, shape ``(..., n)``."""

    def __post_init__(self) -> None:
        d = as_floating(self.d, "Diagonal", "d")
        if d.ndim < 1 or d.shape[-1] < 1:
            raise ArgumentValueError("Diagonal", "d", f"must have shape (..., n) with n >= 1, got {tuple(d.shape)}")
        object.__setattr__(self, "d", d)

    @classmethod
    def nearest(cls, A: ArrayLike) -> Diagonal:
        """Return the diagonal matrix nearest to a square matrix in the Frobenius norm: its own diagonal.

        Parameters
        ----------
        A : array, shape (..., n, n)
            The matrix.

        Returns
        -------
        Diagonal
            With ``d[i] = A[i, i]``.

        Raises
        ------
        ValueError
            If `A` is not square.
        """
        A = as_floating(A, "Diagonal.nearest", "A")
        if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
            raise ArgumentValueError("Diagonal.nearest", "A", f"must have shape (..., n, n), got {tuple(A.shape)}")
        xp = namespace_of("Diagonal.nearest", A)
        return cls(copied(xp.linalg.diagonal(A), xp))

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.d.shape[-1], self.d.shape[-1])

    @property
    def dtype(self) -> DType:
        """The dtype of `d`."""
        return self.d.dtype

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        return self.d * x

    def _matmat(self, X: Array, xp: Namespace) -> Array:
        return self.d[..., None] * X

    def _transpose(self) -> LinearOperator:
        return self

    def _conj(self) -> LinearOperator:
        xp = self._own_namespace()
        return Diagonal(xp.conj(self.d)) if is_complex(self.d.dtype, xp) else self

    def _to_dense(self, like: Context) -> Array:
        on_diagonal = like.xp.eye(self.shape[0], dtype=like.xp.bool, device=like.device)
        # where, not a product: infinity times the zeros beside it would be NaN
        return like.xp.where(on_diagonal, self.d[..., None], like.xp.zeros_like(self.d[..., None]))

    def _inv(self, xp: Namespace) -> LinearOperator:
        require_nonzero(self.d, 0, "Diagonal.inv", xp)
        return Diagonal(1 / self.d)

    def _solve(self, b: Array, xp: Namespace) -> Array:
        require_nonzero(self.d, 0, "Diagonal.solve", xp)
        return quotient(b, self.d, xp)

    def _plan(self, settings: Settings, xp: Namespace) -> Scaling:
        return Scaling(self.d, not is_complex(self.d.dtype, xp))

    def _solver(self, settings: Settings, xp: Namespace) -> Scaling | None:
        require_nonzero(self.d, 0, "Diagonal.solve", xp)
        return Scaling(1 / self.d, not is_complex(self.d.dtype, xp)) if are_normal(self.d, xp) else None

    def _pinv(self, rtol: float, xp: Namespace) -> LinearOperator:
        return Diagonal(reciprocal_above(self.d, rtol, xp))

    def _eigvals(self, xp: Namespace) -> Array:
        return xp.astype(self.d, complex_partner(self.d.dtype, xp))

    def _eig(self, xp: Namespace) -> tuple[Array, LinearOperator]:
        return self._eigvals(xp), Identity(self.shape[0])

    def _svdvals(self, xp: Namespace) -> Array:
        return xp.abs(self.d)

    def _determinant_factors(self, method: str, xp: Namespace) -> Array:
        return self.d

    def _diagonal(self, method: str, xp: Namespace) -> Array:
        return self.d

    def _modulus(self, xp: Namespace) -> LinearOperator:
        return Diagonal(xp.abs(self.d))

    def _frobenius(self, xp: Namespace) -> Array:
        return euclidean_norm(self.d, xp)

    def _rounding(self, xp: Namespace) -> float:
        return spectral_rounding(self.dtype, xp)

    def _spectral_function(self, function: SpectralFunction, xp: Namespace) -> LinearOperator:
        d = self.d
        if function.needs_nonzero:
            require_nonzero(d, 0, f"Diagonal.{function.name}", xp)
        if function.needs_nonnegative and not is_complex(d.dtype, xp) and bool(xp.any(d < 0)):
            d = xp.astype(d, complex_partner(d.dtype, xp))
        return Diagonal(function.evaluate(d))


@submatrix.rule(Diagonal, object)
def _block(operator: Diagonal, block: tuple[range, range]) -> Diagonal | Array:
    (rows, cols), xp = block, operator._own_namespace()
    if rows == cols:
        return Diagonal(operator.d[..., rows.start : rows.stop])
    if min(len(rows), len(cols)) > 1:
        return NotImplemented
    i, j = (xp.arange(part.start, part.stop, device=operator.device) for part in block)
    entries = operator.d[..., rows.start : rows.stop, None]
    return xp.where(i[:, None] == j, entries, xp.zeros_like(entries))  # no product: zero times infinity would be NaN
