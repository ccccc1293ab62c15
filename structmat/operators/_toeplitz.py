"""Toeplitz and Hankel matrices of any rectangular shape, by their constant diagonals and anti-diagonals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from structmat._arrays import (
    as_floating,
    concat_last,
    copied,
    is_complex,
    namespace_of,
    reversed_cyclically,
    windows,
)
from structmat._arrays.dispatch import submatrix
from structmat._arrays.errors import ArgumentValueError
from structmat._arrays.typing import Array, ArrayLike, Namespace
from structmat._engine import Convolution, Settings, convolution, kernel_of_diagonals
from structmat.operators._base import Context, LinearOperator
from structmat.operators._circulant import Circulant, SpectralCirculant
from structmat.operators._constant_diagonals import ConstantDiagonals, antidiagonal_means

__all__ = ["Hankel", "Toeplitz", "circulant_as_toeplitz"]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Toeplitz(ConstantDiagonals):
    """A Toeplitz matrix given by its first column and first row, ``T[i, j] = c[i - j]`` or ``r[j - i]``.

    Parameters
    ----------
    c : array, shape (..., m)
        The first column; leading axes make a stack of matrices. Integers are promoted to the library's floating dtype.
    r : array, shape (..., n), optional
        The first row. Its first entry is ignored, as in `scipy.linalg.toeplitz`: ``c[0]`` is the corner entry. Default:
        the complex conjugate of `c`, so that the matrix is Hermitian where ``c[0]`` is real.

    Raises
    ------
    ValueError
        If `c` or `r` has no axis or no entry, or their batch axes do not broadcast.
    TypeError
        If `c` or `r` does not hold numbers, or they belong to different array libraries.

    See Also
    --------
    Circulant : Toeplitz matrices whose diagonals wrap around; they have closed-form linear algebra.
    Hankel : Constant anti-diagonals.
    structmat.preconditioners : Circulants that are close to a Toeplitz matrix.

    Notes
    -----
    A product is a convolution of the m + n - 1 constants with the vector, of which m entries are kept: three transforms
    of a fast length not below m + n - 1, real ones for real data.

    The inverse of a square one is not Toeplitz, but two vectors determine it (`ToeplitzInverse`). `solve` eliminates
    the dense matrix up to 128 rows. Beyond it takes Levinson's recursion, from a thousand rows on first some steps of
    GMRES with Strang's circulant as preconditioner [1]_, and for many right-hand sides the inverse, each of which then
    costs O(n log n). A solution is accepted if its residual is at the level of rounding in every row, if need be after
    refinement; otherwise the dense matrix is eliminated, up to 4,096 rows. Determinants and inverses of larger matrices
    with nearly singular leading sections come from the generalised Schur algorithm with pivoting [2]_.

    All this is computed with NumPy in double precision, also for other libraries, with derivatives in torch and JAX.
    There is a `scipy.linalg.LinAlgWarning`, but in JAX, where elimination or a solution shows a condition number above
    the inverse of the machine epsilon, and where products with the inverse are far less accurate than solutions.

    References
    ----------
    .. [1] Chan, R. H., Ng, M. K., Conjugate gradient methods for Toeplitz systems, SIAM Rev. 38, 1996.
    .. [2] Gohberg, I., Kailath, T., Olshevsky, V., Fast Gaussian elimination with partial pivoting for matrices with
       displacement structure, Math. Comp. 64, 1995.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> T = sm.Toeplitz(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0]))
    >>> T.to_dense()
    array([[1., 4.],
           [2., 1.],
           [3., 2.]])
    >>> (T @ np.array([1.0, 1.0])).round(12)
    array([5., 3., 5.])

    >>> T = sm.Toeplitz(0.9 ** np.arange(1000))
    >>> bool(np.allclose(T @ T.solve(np.ones(1000)), 1))
    True
    >>> float(T.slogdet().logabsdet.round(3))
    -1659.07
    """

    c: Array
    """The first column, shape ``(..., m)``."""
    r: Any = None
    """The first row, shape ``(..., n)``; its first entry counts for nothing."""

    def __post_init__(self) -> None:
        c = as_floating(self.c, "Toeplitz", "c")
        r = self.r
        if r is None:
            xp = namespace_of("Toeplitz", c)
            r = xp.conj(c) if is_complex(c.dtype, xp) else c
        self._set_vectors(c, r)

    @classmethod
    def nearest(cls, A: ArrayLike) -> Toeplitz:
        """Return the Toeplitz matrix nearest to any rectangle in the Frobenius norm.

        Parameters
        ----------
        A : array, shape (..., m, n)
            The matrix.

        Returns
        -------
        Toeplitz
            With the means of the diagonals of `A`.

        Raises
        ------
        ValueError
            If `A` has fewer than two axes, or an empty one.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.Toeplitz.nearest(np.array([[1.0, 2.0, 5.0], [4.0, 3.0, 6.0]])).to_dense()
        array([[2., 4., 5.],
               [4., 2., 4.]])
        """
        A, xp = _matrix(A, "Toeplitz.nearest")
        means, (_, n) = antidiagonal_means(xp.flip(A, axis=-1), xp), A.shape[-2:]
        return _toeplitz(means, n, xp)

    def _constants(self, xp: Namespace) -> Array:
        return concat_last([xp.flip(self.r[..., 1:], axis=-1), self.c], xp)

    def _plan(self, settings: Settings, xp: Namespace) -> Convolution:
        return convolution(kernel_of_diagonals(self.c, self.r[..., 1:], xp), self.shape, settings, xp)

    def _transpose(self) -> Toeplitz:
        return Toeplitz(concat_last([self.c[..., :1], self.r[..., 1:]], self._own_namespace()), self.c)

    def _to_dense(self, like: Context) -> Array:
        xp = like.xp
        return copied(xp.flip(windows(xp.flip(self._constants(xp), axis=-1), self.shape[1], xp), axis=-2), xp)

    def _as_toeplitz(self, xp: Namespace) -> tuple[Array, Array]:
        return self.c, self.r

    @property
    def _flipped(self) -> bool:
        return False

    def _diagonal(self, method: str, xp: Namespace) -> Array:
        return xp.broadcast_to(self.c[..., :1], (*self.batch_shape, min(self.shape)))


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Hankel(ConstantDiagonals):
    """A Hankel matrix given by its first column and last row, ``H[i, j] = h[i + j]`` with h = `c`, then ``r[1:]``.

    Parameters
    ----------
    c : array, shape (..., m)
        The first column; leading axes make a stack of matrices. Integers are promoted to the library's floating dtype.
    r : array, shape (..., n), optional
        The last row. Its first entry is ignored, as in `scipy.linalg.hankel`: ``c[-1]`` is the corner entry. Default:
        zeros of the length of `c`.

    Raises
    ------
    ValueError
        If `c` or `r` has no axis or no entry, or their batch axes do not broadcast.
    TypeError
        If `c` or `r` does not hold numbers, or they belong to different array libraries.

    See Also
    --------
    Toeplitz : Constant diagonals: a Hankel matrix with its columns in reverse order.

    Notes
    -----
    A product costs as much as that of a `Toeplitz`: three transforms of a fast length not below m + n - 1. The
    transpose has the same anti-diagonals.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> H = sm.Hankel(np.array([1.0, 2.0, 3.0]), np.array([3.0, 4.0]))
    >>> H.to_dense()
    array([[1., 2.],
           [2., 3.],
           [3., 4.]])
    >>> (H @ np.array([1.0, 1.0])).round(12)
    array([3., 5., 7.])
    """

    c: Array
    """The first column, shape ``(..., m)``."""
    r: Any = None
    """The last row, shape ``(..., n)``; its first entry counts for nothing."""

    def __post_init__(self) -> None:
        c = as_floating(self.c, "Hankel", "c")
        self._set_vectors(c, namespace_of("Hankel", c).zeros_like(c) if self.r is None else self.r)

    @classmethod
    def nearest(cls, A: ArrayLike) -> Hankel:
        """Return the Hankel matrix nearest to any rectangle in the Frobenius norm.

        Parameters
        ----------
        A : array, shape (..., m, n)
            The matrix.

        Returns
        -------
        Hankel
            With the means of the anti-diagonals of `A`.

        Raises
        ------
        ValueError
            If `A` has fewer than two axes, or an empty one.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.Hankel.nearest(np.array([[1.0, 2.0, 5.0], [4.0, 3.0, 6.0]])).to_dense()
        array([[1., 3., 4.],
               [3., 4., 6.]])
        """
        A, xp = _matrix(A, "Hankel.nearest")
        return _hankel(antidiagonal_means(A, xp), A.shape[-2])

    def _constants(self, xp: Namespace) -> Array:
        return concat_last([self.c, self.r[..., 1:]], xp)

    def _plan(self, settings: Settings, xp: Namespace) -> Convolution:
        m, n = self.shape
        h = self._constants(xp)
        kernel = kernel_of_diagonals(h[..., n - 1 :], xp.flip(h[..., : n - 1], axis=-1), xp)
        return convolution(kernel, (m, n), settings, xp, flips=(False, True))

    def _transpose(self) -> Hankel:
        return _hankel(self._constants(self._own_namespace()), self.shape[1])

    def _to_dense(self, like: Context) -> Array:
        return copied(windows(self._constants(like.xp), self.shape[1], like.xp), like.xp)

    def _as_toeplitz(self, xp: Namespace) -> tuple[Array, Array]:
        h, n = self._constants(xp), self.shape[1]
        return h[..., n - 1 :], xp.flip(h[..., :n], axis=-1)

    @property
    def _flipped(self) -> bool:
        return True

    def _diagonal(self, method: str, xp: Namespace) -> Array:
        return self._constants(xp)[..., : 2 * min(self.shape) - 1 : 2]


def _toeplitz(constants: Array, cols: int, xp: Namespace) -> Toeplitz:
    """Return the Toeplitz matrix of that many columns with given diagonals, from the upper right corner on."""
    return Toeplitz(constants[..., cols - 1 :], xp.flip(constants[..., :cols], axis=-1))


def _hankel(constants: Array, rows: int) -> Hankel:
    """Return the Hankel matrix of that many rows with given anti-diagonals."""
    return Hankel(constants[..., :rows], constants[..., rows - 1 :])


def _matrix(A: ArrayLike, owner: str) -> tuple[Array, Namespace]:
    A = as_floating(A, owner, "A")
    if A.ndim < 2 or 0 in A.shape[-2:]:
        raise ArgumentValueError(owner, "A", f"must have shape (..., m, n), none of them 0, got {tuple(A.shape)}")
    return A, namespace_of(owner, A)


def circulant_as_toeplitz(operator: Any) -> Toeplitz:
    """Return a circulant as a Toeplitz matrix."""
    c = operator.to_circulant().c if isinstance(operator, SpectralCirculant) else operator.c
    return Toeplitz(c, reversed_cyclically(c, operator._own_namespace()))


@submatrix.rule(Toeplitz, object)
def _toeplitz_block(operator: Toeplitz, block: tuple[range, range]) -> Toeplitz:
    (rows, cols), n, xp = block, operator.shape[1], operator._own_namespace()
    return _toeplitz(
        operator._constants(xp)[..., rows.start - cols.stop + n : rows.stop - cols.start + n - 1], len(cols), xp
    )


@submatrix.rule(Circulant, object)
@submatrix.rule(SpectralCirculant, object)
def _circulant_block(operator: LinearOperator, block: tuple[range, range]) -> Toeplitz:
    return _toeplitz_block(circulant_as_toeplitz(operator), block)


@submatrix.rule(Hankel, object)
def _hankel_block(operator: Hankel, block: tuple[range, range]) -> Hankel:
    rows, cols = block
    constants = operator._constants(operator._own_namespace())
    return _hankel(constants[..., rows.start + cols.start : rows.stop + cols.stop - 1], len(rows))
