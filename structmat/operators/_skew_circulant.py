"""Skew-circulant matrices: circulants in which what wraps around changes its sign."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from structmat._arrays import (
    are_normal,
    as_floating,
    binary_unit,
    device_of,
    euclidean_norm,
    in_precision,
    is_complex,
    namespace_of,
    precision_of,
    reciprocal_above,
    require_nonzero,
    restored,
    scale_array,
)
from structmat._arrays.dispatch import add, compose, scale
from structmat._arrays.errors import ArgumentValueError
from structmat._arrays.typing import Array, ArrayLike, DType, Namespace, Scalar
from structmat._engine import (
    Settings,
    SkewConvolution,
    full_skew_spectrum,
    skew_fft,
    skew_ifft,
    skew_twist,
)
from structmat.operators._base import Context, LinearOperator, Planned, SpectralFunction
from structmat.operators._circulant import Circulant
from structmat.operators._combinations import Product, Scaled
from structmat.operators._combinations.scaled import plus_identity
from structmat.operators._diagonal import Diagonal
from structmat.operators._identity import Fourier, Identity
from structmat.operators._spectra import circulant_entries, cyclic_diagonals, factors_of_half, ready_for_roots

__all__ = ["SkewCirculant"]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class SkewCirculant(Planned):
    """A skew-circulant matrix given by its first column: a circulant with a minus sign above the diagonal.

    ``S[i, j] = c[i - j]``, or ``-c[n + i - j]`` for i below j.

    Parameters
    ----------
    c : array, shape (..., n)
        The first column; leading axes make a stack of matrices. Integers are promoted to the library's floating dtype.

    Raises
    ------
    ValueError
        If `c` has no axis or no entry.
    TypeError
        If `c` does not hold numbers.

    See Also
    --------
    Circulant : With a plus sign.
    Toeplitz.split : Every square Toeplitz matrix is a circulant plus a skew-circulant one.

    Notes
    -----
    Also called negacyclic. A product multiplies polynomials modulo ``x**n + 1``. With ``w[k] = exp(-i pi k / n)`` it is
    ``S x = conj(w) * ifft(fft(w * c) * fft(w * x))``, O(n log n) [1]_; of real data half of the transform is computed.
    The eigenvalues are ``fft(w * c)``, and ``diag(conj(w))`` times the inverse Fourier matrix holds eigenvectors, so
    that inverses and functions are exact up to rounding, and stay skew-circulant.

    References
    ----------
    .. [1] Davis, P. J., *Circulant Matrices*, Wiley, 1979, section 3.2.1.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> S = sm.SkewCirculant(np.array([1.0, 2.0, 3.0]))
    >>> S.to_dense()
    array([[ 1., -3., -2.],
           [ 2.,  1., -3.],
           [ 3.,  2.,  1.]])
    >>> (S @ np.array([0.0, 0.0, 1.0])).round(12)
    array([-2., -3.,  1.])
    >>> bool(np.allclose(S @ S.solve(np.ones(3)), 1))
    True
    """

    _core_axes = {"c": 1}

    c: Array
    """The first column, shape ``(..., n)``."""

    def __post_init__(self) -> None:
        c = as_floating(self.c, "SkewCirculant", "c")
        if c.ndim < 1 or c.shape[-1] < 1:
            raise ArgumentValueError(
                "SkewCirculant", "c", f"must have shape (..., n) with n >= 1, got {tuple(c.shape)}"
            )
        object.__setattr__(self, "c", c)

    @classmethod
    def nearest(cls, A: ArrayLike) -> SkewCirculant:
        """Return the skew-circulant matrix nearest to a square matrix in the Frobenius norm.

        Parameters
        ----------
        A : array, shape (..., n, n)
            The matrix.

        Returns
        -------
        SkewCirculant
            Whose first column holds the means of the cyclic diagonals of `A`, with a minus sign above the main one.

        Raises
        ------
        ValueError
            If `A` is not square.

        Notes
        -----
        O(n**2).

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.SkewCirculant.nearest(np.array([[1.0, 2.0], [4.0, 3.0]])).c
        array([2., 1.])
        """
        owner = "SkewCirculant.nearest"
        A = as_floating(A, owner, "A")
        if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
            raise ArgumentValueError(owner, "A", f"must have shape (..., n, n), got {tuple(A.shape)}")
        xp = namespace_of(owner, A)
        diagonals = cyclic_diagonals(in_precision(A, precision_of(A.dtype, xp), xp), xp)
        signed = _negative_above_the_diagonal(diagonals, xp)
        return cls(restored(xp.mean(signed, axis=-2), A.dtype, xp))

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.c.shape[-1], self.c.shape[-1])

    @property
    def dtype(self) -> DType:
        """The dtype of `c`."""
        return self.c.dtype

    def _is_real(self) -> bool:
        return not is_complex(self.c.dtype, self._own_namespace())

    def _spectrum(self, xp: Namespace) -> Array:
        """The eigenvalues, of a real matrix half of them."""
        return skew_fft(self.c, xp, real=self._is_real())

    def _with_spectrum(self, values: Array, xp: Namespace, *, real: bool) -> SkewCirculant:
        return SkewCirculant(skew_ifft(values, self.shape[0], xp, real=real))

    def _plan(self, settings: Settings, xp: Namespace) -> SkewConvolution:
        return SkewConvolution(self._spectrum(xp), self.shape[0], self._is_real())

    def _transpose(self) -> SkewCirculant:
        xp = self._own_namespace()
        return SkewCirculant(xp.concat([self.c[..., :1], -xp.flip(self.c[..., 1:], axis=-1)], axis=-1))

    def _conj(self) -> SkewCirculant:
        return self if self._is_real() else SkewCirculant(self._own_namespace().conj(self.c))

    def _to_dense(self, like: Context) -> Array:
        return _negative_above_the_diagonal(circulant_entries(self.c, like), like.xp)

    def _nonzero_spectrum(self, method: str, xp: Namespace) -> Array:
        values = self._spectrum(xp)
        require_nonzero(values, self._rounding(xp), f"SkewCirculant.{method}", xp)
        return values

    def _inv(self, xp: Namespace) -> SkewCirculant:
        return self._with_spectrum(1 / self._nonzero_spectrum("inv", xp), xp, real=self._is_real())

    def _solver(self, settings: Settings, xp: Namespace) -> SkewConvolution | None:
        values = self._nonzero_spectrum("solve", xp)
        return replace(self._plan(settings, xp), spectrum=1 / values) if are_normal(values, xp) else None

    def _solve(self, b: Array, xp: Namespace) -> Array:
        unit = binary_unit(self.c, xp)  # as sums may overflow, and reciprocals
        op = SkewCirculant(self.c / unit)
        return replace(op._plan(Settings(), xp), spectrum=1 / op._nonzero_spectrum("solve", xp)).apply(b / unit, xp)

    def _pinv(self, rtol: float, xp: Namespace) -> SkewCirculant:
        return self._with_spectrum(reciprocal_above(self._spectrum(xp), rtol, xp), xp, real=self._is_real())

    def _eigvals(self, xp: Namespace) -> Array:
        values = self._spectrum(xp)
        return full_skew_spectrum(values, self.shape[0], xp) if self._is_real() else values

    def _eig(self, xp: Namespace) -> tuple[Array, LinearOperator]:
        n = self.shape[0]
        turned = Diagonal(xp.conj(skew_twist(n, self.c, xp)))
        return self._eigvals(xp), Product((turned, Fourier(n, inverse=True)))

    def _svdvals(self, xp: Namespace) -> Array:
        return xp.abs(self._eigvals(xp))

    def _determinant_factors(self, method: str, xp: Namespace) -> Array:
        values, n = self._spectrum(xp), self.shape[0]
        if not self._is_real():
            return values
        if n % 2:
            return factors_of_half(values, n, xp)
        size = xp.abs(values)  # not the squares, which would underflow
        return xp.concat([size, size], axis=-1)

    def _diagonal(self, method: str, xp: Namespace) -> Array:
        return xp.broadcast_to(self.c[..., :1], self.c.shape)

    def _modulus(self, xp: Namespace) -> LinearOperator:
        return Circulant(xp.abs(self.c))

    def _frobenius(self, xp: Namespace) -> Array:
        return math.sqrt(self.shape[0]) * euclidean_norm(self.c, xp)

    def _spectral_function(self, function: SpectralFunction, xp: Namespace) -> SkewCirculant:
        values = self._nonzero_spectrum(function.name, xp) if function.needs_nonzero else self._spectrum(xp)
        real, n = self._is_real(), self.shape[0]
        if real and n % 2 and function.needs_nonnegative:  # the first of the half is real
            ready, real = ready_for_roots(values, n, self._rounding(xp), xp)
            values = ready if real else full_skew_spectrum(values, n, xp)
        return self._with_spectrum(function.evaluate(values), xp, real=real)


def _negative_above_the_diagonal(A: Array, xp: Namespace) -> Array:
    """Return square matrices with the entries above the diagonal times minus one."""
    k = xp.arange(A.shape[-1], device=device_of(A))
    return xp.where(k[:, None] < k[None, :], -A, A)


@compose.rule(SkewCirculant, SkewCirculant)
def _multiply(left: SkewCirculant, right: SkewCirculant) -> SkewCirculant:
    return SkewCirculant(left.matvec(right.c))


@add.rule(SkewCirculant, SkewCirculant)
def _add(left: SkewCirculant, right: SkewCirculant) -> SkewCirculant:
    return SkewCirculant(left.c + right.c)


@add.rule(SkewCirculant, Identity)
@add.rule(SkewCirculant, Scaled)
def _add_identity(left: SkewCirculant, right: LinearOperator) -> LinearOperator:
    c = plus_identity(left.c, right)
    return NotImplemented if c is None else SkewCirculant(c)


@scale.rule(SkewCirculant, object)
def _scale(operator: SkewCirculant, factor: Scalar) -> SkewCirculant:
    return SkewCirculant(scale_array(operator.c, factor, 1, operator._own_namespace()))
