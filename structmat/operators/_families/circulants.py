"""Circulant matrices, given by their first column, their spectrum or a few diagonals."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from structmat._arguments import as_floating, as_matrices, as_vectors, integer, wrong_shape
from structmat._arrays.arithmetic import (
    euclidean_norm,
)
from structmat._arrays.conversion import copied
from structmat._arrays.dtypes import cast_back, complex_partner, in_precision, is_complex, precision_of
from structmat._arrays.libraries import device_of, is_numpy, namespace_of
from structmat._arrays.shapes import reversed_cyclically, windows
from structmat._arrays.typing import Array, ArrayLike, Namespace
from structmat._fourier.embedding import cyclic_kernel
from structmat._fourier.plans import Convolution, Plan
from structmat._fourier.small_products import cyclic_product_without_plan, product_by_sums
from structmat._fourier.spectra import from_spectrum, spectrum
from structmat.operators._base.hooks import Context
from structmat.operators._base.linear_operator import LinearOperator
from structmat.operators._families.any_circulant import AnyCirculant
from structmat.operators._families.given_spectrum import GivenSpectrum
from structmat.operators._families.grid_spectrum import GridSpectrum
from structmat.operators._families.toeplitz import Toeplitz


def circulant_entries(c: Array, like: Context) -> Array:
    """Return dense circulants with first columns `c`. In NumPy they are a read-only view of two periods of `c`."""
    xp = like.xp
    n = c.shape[-1]
    if not is_numpy(xp):  # arrays of other libraries may have no negative strides: their entries are gathered
        i = xp.arange(n, device=like.device)
        index = xp.reshape((i[:, None] - i[None, :]) % n, (n * n,))
        return xp.reshape(xp.take(c, index, axis=-1), (*c.shape, n))
    return windows(xp.concat([c[..., 1:], c], axis=-1)[..., ::-1], n, xp)[..., ::-1, :]


def cyclic_diagonals(A: Array, xp: Namespace) -> Array:
    """Return V with ``V[..., i, k] = A[..., i, (i - k) % n]``: its columns are the cyclic diagonals of a matrix."""
    n = A.shape[-1]
    i = xp.arange(n, device=device_of(A))
    index = xp.reshape(n * i[:, None] + (i[:, None] - i[None, :]) % n, (n * n,))
    return xp.reshape(xp.take(xp.reshape(A, (*A.shape[:-2], n * n)), index, axis=-1), A.shape)


class CirculantLike(AnyCirculant):
    """A circulant matrix of one level, whatever parameters it is given by."""

    def to_circulant(self) -> Circulant:
        """Return the same matrix, given by its first column.

        Returns
        -------
        Circulant
            Real for a real matrix; itself where it is one.
        """
        return self._as_circulant()

    def to_spectral(self) -> SpectralCirculant:
        """Return the same matrix, given by its spectrum.

        Returns
        -------
        SpectralCirculant
            Itself where it is one, else a snapshot: it does not follow later changes of the parameters. Half precision
            becomes float32.
        """
        return self._as_spectral()

    def _as_spectral(self) -> SpectralCirculant:
        op, xp = self._to_working_precision("to_spectral")
        c = op.to_circulant().c
        real = not is_complex(c.dtype, xp)
        return SpectralCirculant(spectrum(c, xp, real=real), self.shape[0], real=real)

    @property
    def _sizes(self) -> tuple[int, ...]:
        return (self.shape[0],)

    def _from_eigenvalues(self, spectrum: GridSpectrum, xp: Namespace) -> LinearOperator:
        return Circulant(spectrum.first_column(xp))

    def _as_toeplitz(self, xp: Namespace) -> Toeplitz:
        """Return the same matrix, given by its first column and first row."""
        c = self.to_circulant().c
        return Toeplitz(c, reversed_cyclically(c, xp))

    def _block(self, rows: range, cols: range, xp: Namespace) -> Toeplitz:
        return self._as_toeplitz(xp)._block(rows, cols, xp)

    def _to_dense(self, like: Context) -> Array:
        return copied(circulant_entries(self.to_circulant().c, like), like.xp)


@dataclass(frozen=True, eq=False, repr=False)
class Circulant(CirculantLike):
    """A circulant matrix given by its first column, ``C[i, j] = c[(i - j) % n]``.

    Parameters
    ----------
    c : array, shape (..., n)
        The first column; leading axes make a stack of matrices, so that an n x n array gives n
        matrices and not one. Integers are promoted to the library's floating dtype.

    Raises
    ------
    ValueError
        If `c` has no axis or no entry.
    TypeError
        If `c` does not hold numbers.

    See Also
    --------
    SpectralCirculant : The same matrix by its eigenvalues.
    LinearOperator.prepare : For many products by one matrix.
    BlockCirculant : A grid of circulants, of any rectangular shape.

    Notes
    -----
    ``C x = ifft(fft(c) * fft(x))``: three transforms, O(n log n), real ones for real data. The eigenvalues are
    ``fft(c)``, so inverses, powers and other functions are exact up to rounding, and stay circulant [1]_.

    References
    ----------
    .. [1] Davis, P. J., *Circulant Matrices*, Wiley, 1979.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> C = sm.Circulant(np.array([1.0, 2.0, 3.0]))
    >>> C
    Circulant(shape=(3, 3), dtype=float64, device=cpu)
    >>> C @ np.array([1.0, 0.0, 0.0])
    array([1., 2., 3.])
    """

    _core_axes = {"c": 1}

    c: Array
    """The first column, shape ``(..., n)``."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "c", as_vectors(self.c, "Circulant", "c"))

    @classmethod
    def nearest(cls, A: ArrayLike) -> Circulant:
        """Return the circulant nearest to a square matrix in the Frobenius norm.

        Parameters
        ----------
        A : array, shape (..., n, n)
            The matrix.

        Returns
        -------
        Circulant
            Whose first column holds the means of the cyclic diagonals of `A`, T. Chan's optimal circulant [1]_.

        Raises
        ------
        ValueError
            If `A` is not square. For a rectangle see `BlockCirculant.nearest`.

        References
        ----------
        .. [1] Chan, T. F., An optimal circulant preconditioner for Toeplitz systems, SIAM J. Sci. Stat. Comput. 9,
           1988.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.Circulant.nearest(np.array([[1.0, 2.0], [4.0, 3.0]])).c
        array([2., 3.])
        """
        hint = "; for a rectangle use BlockCirculant.nearest"
        A, xp = as_matrices(A, "Circulant.nearest", square=True, hint=hint)
        means = xp.mean(cyclic_diagonals(in_precision(A, precision_of(A.dtype, xp), xp), xp), axis=-2)
        return cls(cast_back(means, A.dtype, xp))

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.c.shape[-1], self.c.shape[-1])

    @property
    def _sizes(self) -> tuple[int, ...]:
        return (self.c.shape[-1],)

    def _as_circulant(self) -> Circulant:
        return self

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        if x.ndim == self.c.ndim == 1 and is_numpy(xp):
            y = cyclic_product_without_plan(self.c, x)
            if y is not None:
                return y
        return super()._matvec(x, xp)

    def _plan(self, xp: Namespace) -> Convolution:
        n = self.c.shape[-1]
        return Convolution.of(cyclic_kernel(self.c, xp), (n, n), xp)

    def _transpose(self) -> Circulant:
        return self._replaced(c=reversed_cyclically(self.c, self._own_namespace()))


@dataclass(frozen=True, eq=False, repr=False)
class SpectralCirculant(GivenSpectrum, CirculantLike):
    """A circulant matrix given by its spectrum, the discrete Fourier transform of its first column.

    Parameters
    ----------
    spectrum : array, shape (..., n // 2 + 1) or (..., n)
        The eigenvalues: the half spectrum ``rfft(c)`` of a real matrix, or the full ``fft(c)`` of a complex one.
    n : int
        The size; a half spectrum does not determine whether it is even or odd.
    real : bool, default True
        Whether `spectrum` is the half spectrum of a real matrix. Imaginary parts at frequency zero, and at n / 2 for
        even n, then count as zero.

    Raises
    ------
    ValueError
        If the length of `spectrum` does not fit `n` and `real`.
    TypeError
        If `spectrum` does not hold numbers.

    See Also
    --------
    Circulant.to_spectral : Makes one from a first column.
    LinearOperator.prepare : For many products by one matrix, this one or any other.

    Notes
    -----
    Its parameters are the eigenvalues, for filters that are known or learned in the frequency domain. A product takes
    two transforms, where a `Circulant` needs three.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> S = sm.Circulant(np.array([1.0, 2.0, 3.0])).to_spectral()
    >>> S
    SpectralCirculant(shape=(3, 3), dtype=float64, device=cpu)
    >>> S.matvec(np.array([1.0, 0.0, 0.0])).round(12)
    array([1., 2., 3.])
    """

    _core_axes = {"spectrum": 1}

    spectrum: Array
    """Half or full spectrum."""
    n: int
    """The size."""
    real: bool = True
    """Whether the matrix is real and `spectrum` its half spectrum."""

    def __post_init__(self) -> None:
        n = integer(self.n, "SpectralCirculant", "n")
        s = as_floating(self.spectrum, "SpectralCirculant", "spectrum")
        xp = namespace_of("SpectralCirculant", s)
        if not is_complex(s.dtype, xp):
            s = xp.astype(s, complex_partner(s.dtype, xp))
        length = n // 2 + 1 if self.real else n
        if s.ndim < 1 or s.shape[-1] != length:
            wanted = f"(..., {length}) for n={n} and real={self.real}"
            raise wrong_shape("SpectralCirculant", "spectrum", wanted, s)
        object.__setattr__(self, "spectrum", s)
        object.__setattr__(self, "n", n)

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.n, self.n)

    def _as_circulant(self) -> Circulant:
        return Circulant(from_spectrum(self.spectrum, self.n, self._own_namespace(), real=self.real))

    def _as_spectral(self) -> SpectralCirculant:
        return self

    def _plan(self, xp: Namespace) -> Convolution:
        return self.to_circulant()._plan(xp)

    def _determinant_factors(self, xp: Namespace) -> Array:
        return self._as_given().factors(xp)

    def _slogdet_and_error(self, xp: Namespace) -> tuple[Array, Array, Array]:
        return LinearOperator._slogdet_and_error(self, xp)  # as eigenvalues are given, and no transform rounds them

    def _frobenius(self, xp: Namespace) -> Array:
        return euclidean_norm(self._eigvals(xp), xp)


SHORT_REAL = 4000
SHORT_COMPLEX = 256
"""The sizes n up to which one product with a few cyclic diagonals is one convolution, in NumPy.

With 2, 5 and 11 diagonals it takes 3, 2 and 3 microseconds for 64 real numbers, and the shifts take 8, 21 and 33; for
4,000 real numbers 4, 5 and 9, and 6, 14 and 70; for 256 complex ones 14 each, and 6, 20 and 49. For 20,000 real numbers
and two diagonals both take 11, and for 4,000 complex ones the convolution takes 143 and the shifts 10.
"""


def is_short(entries: Any, n: int, is_real: bool) -> bool:
    """Tell whether one product of NumPy arrays is a convolution of the wrapped vector."""
    return len(entries) <= n <= (SHORT_REAL if is_real else SHORT_COMPLEX)


def wrapped_convolution(entries: Any, start: int, x: Any) -> Any:
    """Return the sum of ``entries[k] * x`` shifted down by ``start + k`` cyclically, both NumPy arrays of one axis.

    There must be at most as many entries as numbers in `x`.
    """
    n = len(x)
    before = (start + len(entries) - 1) % n
    after = max(0, len(entries) - 1 - before)
    wrapped = np.concatenate((x[n - before :], x, x[:after]))
    return product_by_sums(wrapped[: n + len(entries) - 1], entries)


@dataclass(frozen=True, eq=False, repr=False)
class ShiftAndAdd(Plan):
    """The product with a circulant of few diagonals: the sum of ``entries[k] * x`` shifted down by ``start + k``."""

    _core_axes = {"entries": 1}

    entries: Any
    n: int
    start: int
    is_real: bool

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.n, self.n)

    def step(self, xp: Namespace, dtype: str, *, batched: bool) -> Callable[[Any], Any]:
        n = self.n
        entries = self.entries
        count = self.entries.shape[-1]
        shifts = [(self.start + k) % n for k in range(count)]
        if not is_numpy(xp) or self.is_stack:

            def term(x: Any, k: int) -> Any:
                return entries[..., k : k + 1] * xp.roll(x, self.start + k, axis=-1)

            return lambda x: sum((term(x, k) for k in range(1, count)), start=term(x, 0))
        if not batched and is_short(entries, n, self.is_real):
            return lambda x: wrapped_convolution(entries, self.start, x)

        def product(x: Any) -> Any:
            y = np.empty_like(x, order="C")
            first = shifts[0]
            np.multiply(x[..., n - first :], entries[0], out=y[..., :first])
            np.multiply(x[..., : n - first], entries[0], out=y[..., first:])
            for entry, shift in zip(entries[1:], shifts[1:], strict=True):
                multiple = x * entry
                y[..., shift:] += multiple[..., : n - shift]
                y[..., :shift] += multiple[..., n - shift :]
            return y

        return product


@dataclass(frozen=True, eq=False, repr=False)
class BandedCirculant(CirculantLike):
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
        object.__setattr__(self, "entries", as_vectors(self.entries, "BandedCirculant", "entries", "m"))
        object.__setattr__(self, "n", n)
        start = integer(self.start, "BandedCirculant", "start", -sys.maxsize)
        object.__setattr__(self, "start", (start + n // 2) % n - n // 2)  # the number nearest to zero, modulo n

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.n, self.n)

    def _as_circulant(self) -> Circulant:
        xp = self._own_namespace()
        k = xp.arange(self.n, device=self.device)
        m = self.entries.shape[-1]
        c = xp.zeros_like(self.entries[..., :1])
        for j in range(m):
            entry = self.entries[..., j : j + 1]
            c = c + xp.where(k == (self.start + j) % self.n, entry, xp.zeros_like(entry))
        return Circulant(c)

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        if x.ndim == self.entries.ndim == 1 and is_numpy(xp):
            is_real = not is_complex(x.dtype, xp) and not is_complex(self.entries.dtype, xp)
            if is_short(self.entries, self.n, is_real):  # without a plan, which takes longer than the product
                return wrapped_convolution(self.entries, self.start, x)
        return super()._matvec(x, xp)

    def _plan(self, xp: Namespace) -> ShiftAndAdd:
        return ShiftAndAdd(self.entries, self.n, self.start, not is_complex(self.dtype, xp))

    def _transpose(self) -> BandedCirculant:
        entries = self._own_namespace().flip(self.entries, axis=-1)
        return BandedCirculant(entries, self.n, 1 - self.start - self.entries.shape[-1])
