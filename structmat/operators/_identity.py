"""Operators without parameters, which fit any array library and dtype: Identity and Fourier."""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import prod

from structmat._arrays import complex_partner, copied
from structmat._arrays.checks import grid, integer
from structmat._arrays.dispatch import compose, scale, submatrix
from structmat._arrays.typing import Array, Namespace
from structmat._engine import multilevel_fft, multilevel_ifft
from structmat.operators._base import LinearOperator, SpectralFunction

__all__ = ["Fourier", "Identity"]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Identity(LinearOperator):
    """The identity matrix, without dtype and device, for operators and arrays of any library.

    Parameters
    ----------
    n : int
        The size.

    Raises
    ------
    ValueError
        If `n` is below one.
    TypeError
        If `n` is no integer.

    Notes
    -----
    ``A + s * Identity(n)`` has the type of A for circulant, diagonal and block-circulant A, so that regularised systems
    can be solved in closed form.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> sm.Circulant(np.array([1.0, 2.0])) + 10 * sm.Identity(2)
    Circulant(shape=(2, 2), dtype=float64, device=cpu)
    """

    n: int
    """The size."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", integer(self.n, "Identity", "n"))

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.n, self.n)

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        return copied(x, xp)

    def _transpose(self) -> LinearOperator:
        return self

    def _conj(self) -> LinearOperator:
        return self

    def _inv(self, xp: Namespace) -> LinearOperator:
        return self

    def _pinv(self, rtol: float, xp: Namespace) -> LinearOperator:
        return self

    def _solve(self, b: Array, xp: Namespace) -> Array:
        return self._matvec(b, xp)

    def _eigvals(self, xp: Namespace) -> Array:
        ones = xp.ones(self.n)
        return xp.astype(ones, complex_partner(ones.dtype, xp))

    def _eig(self, xp: Namespace) -> tuple[Array, LinearOperator]:
        return self._eigvals(xp), self

    def _svdvals(self, xp: Namespace) -> Array:
        return xp.ones(self.n)

    def _determinant_factors(self, method: str, xp: Namespace) -> Array:
        return xp.ones(1)

    def _diagonal(self, method: str, xp: Namespace) -> Array:
        return xp.ones(self.n)

    def _modulus(self, xp: Namespace) -> LinearOperator:
        return self

    def _frobenius(self, xp: Namespace) -> Array:
        return xp.asarray(math.sqrt(self.n))

    def _row_sums(self, xp: Namespace) -> Array:
        return xp.ones(self.n)

    def _spectral_function(self, function: SpectralFunction, xp: Namespace) -> LinearOperator:
        return scale(self, float(function.evaluate(xp.ones(1))[0]))


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Fourier(LinearOperator):
    """The unitary discrete Fourier transform of each of `blocks` consecutive pieces of length `n`.

    Parameters
    ----------
    n : int or tuple of int
        Length of one transform; several for the transform along every axis of a grid of these sizes, in row-major
        order, which is the Kronecker product of theirs.
    blocks : int, default 1
        Number of pieces; the matrix is ``kron(eye(blocks), F)``.
    inverse : bool, default False
        Whether it is the inverse transform, the complex conjugate.

    Raises
    ------
    ValueError
        If `n` or `blocks` is below one.
    TypeError
        If `n` or `blocks` is no integer, nor `n` a tuple of integers.

    Notes
    -----
    ``F[j, k] = exp(-2 pi i j k / n) / sqrt(n)``. The columns of the inverse are the eigenvectors of every circulant,
    for a grid those of every multilevel circulant.

    Examples
    --------
    >>> import structmat as sm
    >>> (sm.Fourier(2).to_dense() * 2**0.5).real.round(12)
    array([[ 1.,  1.],
           [ 1., -1.]])
    >>> F = sm.Fourier((2, 3))
    >>> import numpy as np
    >>> bool(np.allclose(F.to_dense(), np.kron(sm.Fourier(2).to_dense(), sm.Fourier(3).to_dense())))
    True
    """

    n: int | tuple[int, ...]
    """Length of one transform, or the sizes of its grid."""
    blocks: int = 1
    """Number of pieces."""
    inverse: bool = False
    """Whether it is the inverse transform."""

    def __post_init__(self) -> None:
        n = grid(self.n, "Fourier", "n") if isinstance(self.n, (tuple, list)) else integer(self.n, "Fourier", "n")
        object.__setattr__(self, "n", n)
        object.__setattr__(self, "blocks", integer(self.blocks, "Fourier", "blocks"))

    @property
    def shape(self) -> tuple[int, int]:
        """``(blocks * n, blocks * n)``, with the product of several n."""
        side = self.blocks * prod(self._sizes)
        return (side, side)

    @property
    def _sizes(self) -> tuple[int, ...]:
        return self.n if isinstance(self.n, tuple) else (self.n,)

    @property
    def _forces_complex(self) -> bool:
        return True

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        sizes = self._sizes
        pieces = xp.reshape(x, (*x.shape[:-1], self.blocks, prod(sizes)))
        transform = multilevel_ifft if self.inverse else multilevel_fft
        return xp.reshape(transform(pieces, sizes, xp, real=False, norm="ortho"), x.shape)

    def _transpose(self) -> LinearOperator:
        return self

    def _conj(self) -> LinearOperator:
        return Fourier(self.n, self.blocks, not self.inverse)

    def _inv(self, xp: Namespace) -> LinearOperator:
        return self._conj()

    def _pinv(self, rtol: float, xp: Namespace) -> LinearOperator:
        return self._conj()

    def _solve(self, b: Array, xp: Namespace) -> Array:
        return self._conj()._matvec(b, xp)

    def _svdvals(self, xp: Namespace) -> Array:
        return xp.ones(self.shape[0])


@compose.rule(Identity, object)
def _identity_times(left: Identity, right: LinearOperator) -> LinearOperator:  # noqa: ARG001
    return right


@compose.rule(object, Identity)
def _times_identity(left: LinearOperator, right: Identity) -> LinearOperator:  # noqa: ARG001
    return left


@submatrix.rule(Identity, object)
def _block(operator: Identity, block: tuple[range, range]) -> LinearOperator:  # noqa: ARG001
    rows, cols = block
    return Identity(len(rows)) if rows == cols else NotImplemented
