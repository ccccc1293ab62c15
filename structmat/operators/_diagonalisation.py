"""The eigenvalues of circulant matrices of one level or of several, and which of them are conjugate pairs.

The eigenvectors of all these matrices are those of the discrete Fourier transform along the axes of a grid. Of a real
matrix the eigenvalue at the frequency -k, modulo the sizes of the grid, is the conjugate of that at k. So half of them
are held: those whose last frequency is at most half of the last size. Where the last frequency is zero, or exactly half
of that size, both eigenvalues of a pair are held. An eigenvalue whose frequency is its own negative is real, and called
unpaired.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from structmat._arrays.arithmetic import negligible
from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import device_of, is_numpy
from structmat._arrays.typing import Array, Device, Namespace
from structmat._fourier.embedding import cyclic_kernel, is_fast
from structmat._fourier.grids import (
    as_grid,
    from_grid,
    half_of_grid,
    last_axes,
    mirrored_levels,
    multilevel_fft,
    multilevel_ifft,
    with_negative_frequencies,
)
from structmat._fourier.multilevel import MultilevelConvolution
from structmat._fourier.plans import Convolution, Plan

_MANY_VECTORS = 8
"""The number of vectors from which a product by the first column is faster, although it has to be transformed first."""


class Diagonalisation(NamedTuple):
    """The eigenvalues of a circulant matrix of one level or of several: all, or for a real matrix half of them."""

    values: Array
    """The eigenvalues that are held, shape ``(..., count)``, in the order of the frequencies."""
    sizes: tuple[int, ...]
    """The sizes of the grid."""
    real: bool
    """Whether the matrix is real."""

    @classmethod
    def of(cls, c: Array, sizes: tuple[int, ...], xp: Namespace) -> Diagonalisation:
        """Return the eigenvalues of the matrix with first column `c`."""
        real = not is_complex(c.dtype, xp)
        return cls(multilevel_fft(c, sizes, xp, real=real), sizes, real)

    def first_column(self, xp: Namespace) -> Array:
        """Return the first column of the matrix."""
        return multilevel_ifft(self.values, self.sizes, xp, real=self.real)

    def with_values(self, values: Array) -> Diagonalisation:
        """Return the matrix that has other eigenvalues, in the same order."""
        return Diagonalisation(values, self.sizes, self.real)  # `_replace` takes five times as long

    # Conjugate pairs

    def unpaired(self, xp: Namespace) -> Array:
        """Tell which of the values of a real matrix are unpaired."""
        return unpaired(self.sizes, device_of(self.values), xp)

    def with_real_values(self, is_unpaired: Array, xp: Namespace) -> Diagonalisation:
        """Return it without the imaginary parts of values that are unpaired, which are rounding errors."""
        values = self.values
        return self.with_values(xp.where(is_unpaired, xp.astype(xp.real(values), values.dtype), values))

    def with_conjugates(self, xp: Namespace) -> Diagonalisation:
        """Return it with exact conjugates: of two values of a pair that are both held the second one is replaced."""
        if not self.real or len(self.sizes) == 1:
            return self
        *leading, last = half_of_grid(self.sizes)
        device = device_of(self.values)
        axes = last_axes(self.sizes)[:-1]
        S = as_grid(self.values, (*leading, last), xp)
        k = xp.reshape(xp.arange(prod(leading), device=device), (*leading, 1))
        is_second = (k > with_negative_frequencies(k, axes, xp)) & _own_negatives(last, self.sizes[-1], device, xp)
        partners = xp.conj(with_negative_frequencies(S, axes, xp))
        return self.with_values(from_grid(xp.where(is_second, partners, S), self.sizes, xp))

    def all_values(self, xp: Namespace) -> Array:
        """Return all eigenvalues."""
        return mirrored_levels(self.values, self.sizes, xp) if self.real else self.values

    def as_complex(self, xp: Namespace) -> Diagonalisation:
        """Return the same matrix as a complex one, of which all eigenvalues are held."""
        return Diagonalisation(self.all_values(xp), self.sizes, real=False)

    def factors(self, xp: Namespace) -> Array:
        """Return numbers whose product is the determinant; they are real for a real matrix."""
        if not self.real:
            return self.values
        *leading, n = self.sizes
        S = as_grid(self.values, (prod(leading), n // 2 + 1), xp) if leading else self.values
        ends = S[..., :: n // 2] if n > 1 and n % 2 == 0 else S[..., :1]  # where the last frequency is zero or half
        numbers = xp.real(ends)
        moduli = xp.abs(S[..., 1 : (n + 1) // 2])
        if leading:
            is_unpaired = _own_negatives_on_grid(tuple(leading), device_of(S), xp)[:, None]
            numbers = from_grid(xp.where(is_unpaired, numbers, xp.abs(ends)), (1, 1), xp)
            moduli = from_grid(moduli, (1, 1), xp)
        return xp.concat([numbers, moduli, moduli], axis=-1)  # not their squares, which would underflow

    # Products

    def plan(self) -> Plan:
        """Return the plan of products with the matrix by these values, which keeps every digit of small ones."""
        if len(self.sizes) == 1:
            n = self.sizes[0]
            return Convolution(None, self.values, n, self.real, (n, n))
        return MultilevelConvolution(self.values, self.sizes, self.real, self.sizes, self.sizes)

    def plan_for_many(self, xp: Namespace) -> Plan:
        """Return the plan for many products: by the first column where transforms of the size itself are slow."""
        if len(self.sizes) > 1 or is_fast(self.sizes[0]):
            return self.plan()
        return self._plan_by_first_column(xp)

    def product(self, x: Array, xp: Namespace) -> Array:
        """Return the products of the matrix and vectors along the last axis."""
        many = len(self.sizes) == 1 and prod(x.shape[:-1]) >= _MANY_VECTORS
        if many and (is_numpy(xp) or not is_fast(self.sizes[0])):
            return self._plan_by_first_column(xp).apply(x, xp)
        return self.plan().apply(x, xp)

    def _plan_by_first_column(self, xp: Namespace) -> Plan:
        n = self.sizes[0]
        return Convolution.of(cyclic_kernel(self.first_column(xp), xp), (n, n), xp)


def unpaired(sizes: tuple[int, ...], device: Device, xp: Namespace) -> Array:
    """Tell which values of the half spectrum on a grid are unpaired: those whose frequency is its own negative."""
    last = _own_negatives(sizes[-1] // 2 + 1, sizes[-1], device, xp)
    if len(sizes) == 1:
        return last
    return xp.reshape(_own_negatives_on_grid(sizes[:-1], device, xp)[:, None] & last[None, :], (-1,))


def _own_negatives_on_grid(sizes: tuple[int, ...], device: Device, xp: Namespace) -> Array:
    """Tell which points of a grid are their own negatives, modulo its sizes."""
    result, *others = (_own_negatives(n, n, device, xp) for n in sizes)
    for other in others:
        result = xp.reshape(result[:, None] & other[None, :], (-1,))
    return result


def _own_negatives(count: int, n: int, device: Device, xp: Namespace) -> Array:
    """Tell which of the integers from 0 to ``count - 1`` are their own negatives modulo n."""
    k = xp.arange(count, device=device)
    return (k == 0) | (2 * k == n)


def without_negative(values: Array, is_unpaired: Array, rounding: float, xp: Namespace) -> tuple[Array, bool]:
    """Return the eigenvalues of a real matrix for a function of numbers that are not negative, such as the square root.

    An unpaired eigenvalue that is negative by at most `rounding` times the largest modulus counts as zero. The second
    result says whether no other one is negative, so that the function of the matrix is real.
    """
    negative = is_unpaired & (xp.real(values) < 0)
    small = negligible(values, rounding, xp)
    real = not bool(xp.any(negative & ~small))
    return xp.where(negative & small, xp.zeros_like(values), values), real
