"""The eigenvalues of matrices that transforms of the axes of a grid make diagonal, and which are conjugate pairs.

Each axis has a kind of transform. With Fourier's along all axes the matrix is a circulant of one level or of several;
with cosine and sine transforms, which are real, a real matrix has real eigenvalues, all unpaired. Where some axes have
Fourier's, the eigenvalue of a real matrix at the frequency -k of these axes, modulo their sizes, is the conjugate of
that at k. So half of them are held: those whose frequency along the last of these axes is at most half of its size.
Where that frequency is zero, or exactly half of the size, both eigenvalues of a pair are held. An eigenvalue whose
frequency is its own negative is real, and called unpaired.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from structmat._arrays.arithmetic import negligible, real_part
from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import device_of, is_numpy
from structmat._arrays.shapes import move_axis
from structmat._arrays.typing import Array, Device, Namespace
from structmat._fourier.embedding import cyclic_kernel, is_fast
from structmat._fourier.grids import (
    as_grid,
    from_grid,
    mirrored_levels,
    multilevel_fft,
    multilevel_ifft,
    with_negative_frequencies,
)
from structmat._fourier.multilevel import MultilevelConvolution
from structmat._fourier.multipliers import FOURIER, Multiplication, fourier_axes, held_sizes
from structmat._fourier.plans import Convolution, Plan
from structmat._fourier.small_products import are_few
from structmat._fourier.spectra import as_complex, from_spectrum, spectrum

_MANY_VECTORS = 8
"""The number of vectors from which a product by the first column is faster, although it has to be transformed first."""


class GridSpectrum(NamedTuple):
    """The eigenvalues of a matrix that transforms make diagonal: all, or for a real matrix half of them."""

    values: Array
    """The eigenvalues that are held, shape ``(..., count)``, in the order of the frequencies."""
    sizes: tuple[int, ...]
    """The sizes of the grid."""
    real: bool
    """Whether the matrix is real."""
    kinds: tuple[str, ...]
    """The kind of transform of each axis."""

    @classmethod
    def of(cls, c: Array, sizes: tuple[int, ...], xp: Namespace) -> GridSpectrum:
        """Return the eigenvalues of the circulant matrix with first column `c`."""
        real = not is_complex(c.dtype, xp)
        return cls(multilevel_fft(c, sizes, xp, real=real), sizes, real, (FOURIER,) * len(sizes))

    @property
    def is_circulant(self) -> bool:
        """Whether all transforms are Fourier's."""
        return self.kinds.count(FOURIER) == len(self.kinds)

    @property
    def fourier_axes(self) -> list[int]:
        """The axes along which the transform is Fourier's, as negative numbers, the last one first."""
        return fourier_axes(self.kinds)

    def first_column(self, xp: Namespace) -> Array:
        """Return the first column of a circulant matrix."""
        return multilevel_ifft(self.values, self.sizes, xp, real=self.real)

    def with_values(self, values: Array) -> GridSpectrum:
        """Return the matrix that has other eigenvalues, in the same order."""
        return GridSpectrum(values, self.sizes, self.real, self.kinds)  # `_replace` takes five times as long

    def _on_grid(self, values: Array, xp: Namespace) -> tuple[Array, tuple[int, ...]]:
        """Return values that are held on their grid, and its sizes, the last axis of Fourier's transform at the end."""
        sizes = held_sizes(self.sizes, self.kinds, real=self.real)
        axis = self.fourier_axes[0]
        order = [k for k in range(-len(sizes), 0) if k != axis]
        return move_axis(as_grid(values, sizes, xp), axis, -1, xp), tuple(sizes[k] for k in [*order, axis])

    def _from_grid(self, S: Array, xp: Namespace) -> Array:
        """Undo `_on_grid`."""
        return from_grid(move_axis(S, -1, self.fourier_axes[0], xp), self.sizes, xp)

    def _other_fourier_axes(self) -> tuple[int, ...]:
        """Return the further axes of Fourier's transform where the last one is at the end."""
        last, *others = self.fourier_axes
        return tuple(axis - (axis > last) for axis in others)

    # Conjugate pairs

    def unpaired(self, xp: Namespace) -> Array:
        """Tell which of the values of a real matrix are unpaired."""
        device = device_of(self.values)
        if not self.fourier_axes:
            return xp.ones(self.values.shape[-1], dtype=xp.bool, device=device)
        sizes = held_sizes(self.sizes, self.kinds, real=True)
        flags = None
        for count, n, kind in zip(sizes, self.sizes, self.kinds, strict=True):
            own = _own_negatives(count, n, device, xp)
            if kind != FOURIER:
                own = xp.ones_like(own)
            flags = own if flags is None else xp.reshape(flags[:, None] & own[None, :], (-1,))
        return flags

    def with_real_values(self, is_unpaired: Array, xp: Namespace) -> GridSpectrum:
        """Return it without the imaginary parts of values that are unpaired, which are rounding errors."""
        values = self.values
        if not is_complex(values.dtype, xp):
            return self
        return self.with_values(xp.where(is_unpaired, xp.astype(xp.real(values), values.dtype), values))

    def with_conjugates(self, xp: Namespace) -> GridSpectrum:
        """Return it with exact conjugates: of two values of a pair that are both held the second one is replaced."""
        if not self.real or len(self.fourier_axes) < 2:
            return self
        axes = self._other_fourier_axes()
        S, sizes = self._on_grid(self.values, xp)
        device = device_of(S)
        k = xp.reshape(xp.arange(prod(sizes), device=device), sizes)
        n = self.sizes[self.fourier_axes[0]]
        is_second = (k > with_negative_frequencies(k, axes, xp)) & _own_negatives(sizes[-1], n, device, xp)
        partners = xp.conj(with_negative_frequencies(S, axes, xp))
        return self.with_values(self._from_grid(xp.where(is_second, partners, S), xp))

    def hermitian(self, xp: Namespace) -> GridSpectrum:
        """Return it with the mean of each value of a pair that is held twice and the conjugate of its partner.

        Of values of which some are not conjugate these are the eigenvalues of the matrix whose products are computed.
        """
        if not (self.real and self.fourier_axes):
            return self
        if len(self.sizes) == 1:  # where a pair of which both values are held is one value
            return self.with_real_values(self.unpaired(xp), xp)
        S, sizes = self._on_grid(self.values, xp)
        is_held_twice = _own_negatives(sizes[-1], self.sizes[self.fourier_axes[0]], device_of(S), xp)
        partners = xp.conj(with_negative_frequencies(S, self._other_fourier_axes(), xp))
        return self.with_values(self._from_grid(xp.where(is_held_twice, (S + partners) / 2, S), xp))

    def all_values(self, xp: Namespace) -> Array:
        """Return all eigenvalues."""
        if not self.real or not self.fourier_axes:
            return self.values
        if self.is_circulant:
            return mirrored_levels(self.values, self.sizes, xp)
        S, _ = self._on_grid(self.values, xp)
        n = self.sizes[self.fourier_axes[0]]
        others = xp.conj(xp.flip(S[..., 1 : (n + 1) // 2], axis=-1))
        others = with_negative_frequencies(others, self._other_fourier_axes(), xp)
        return self._from_grid(xp.concat([S, others], axis=-1), xp)

    def as_complex(self, xp: Namespace) -> GridSpectrum:
        """Return the same matrix as a complex one, of which all eigenvalues are held."""
        return GridSpectrum(as_complex(self.all_values(xp), xp), self.sizes, real=False, kinds=self.kinds)

    def factors(self, xp: Namespace) -> Array:
        """Return numbers whose product is the determinant; they are real for a real matrix."""
        if not self.real or not self.fourier_axes:
            return self.values
        n = self.sizes[self.fourier_axes[0]]
        leading = len(self.sizes) > 1
        S, sizes = self._on_grid(self.values, xp) if leading else (self.values, (n // 2 + 1,))
        ends = S[..., :: n // 2] if n > 1 and n % 2 == 0 else S[..., :1]  # where the last frequency is zero or half
        numbers = xp.real(ends)
        moduli = xp.abs(S[..., 1 : (n + 1) // 2])
        if leading:
            k = xp.reshape(xp.arange(prod(sizes[:-1]), device=device_of(S)), (*sizes[:-1], 1))
            is_unpaired = k == with_negative_frequencies(k, self._other_fourier_axes(), xp)
            numbers = from_grid(xp.where(is_unpaired, numbers, xp.abs(ends)), self.sizes, xp)
            moduli = from_grid(moduli, self.sizes, xp)
        return xp.concat([numbers, moduli, moduli], axis=-1)  # not their squares, which would underflow

    # Products

    def plan(self) -> Plan:
        """Return the plan of products with the matrix by these values, which keeps every digit of small ones."""
        if not self.is_circulant:
            return Multiplication(self.values, self.sizes, self.kinds, self.real)
        if len(self.sizes) == 1:
            return self._plan_of_spectrum()
        return MultilevelConvolution(self.values, self.sizes, self.real, self.sizes, self.sizes)

    def plan_for_many(self, xp: Namespace) -> Plan:
        """Return the plan for many products: by the first column where transforms of the size itself are slow."""
        if len(self.sizes) > 1 or not self.is_circulant or is_fast(self.sizes[0]):
            return self.plan()
        return self._plan_by_first_column(xp)

    def product(self, x: Array, xp: Namespace) -> Array:
        """Return the products of the matrix and vectors along the last axis."""
        if len(self.sizes) > 1 or not self.is_circulant:
            return self.plan().apply(x, xp)
        n = self.sizes[0]
        if x.ndim == self.values.ndim == 1 and are_few(n, n) and is_complex(x.dtype, xp) != self.real:
            return from_spectrum(self.values * spectrum(x, xp, real=self.real), n, xp, real=self.real)
        if prod(x.shape[:-1]) >= _MANY_VECTORS and (is_numpy(xp) or not is_fast(n)):
            return self._plan_by_first_column(xp).apply(x, xp)
        return self._plan_of_spectrum().apply(x, xp)

    def _plan_of_spectrum(self) -> Plan:
        """Return the plan of a circulant matrix of one level."""
        n = self.sizes[0]
        return Convolution(None, self.values, n, self.real, (n, n))

    def _plan_by_first_column(self, xp: Namespace) -> Plan:
        n = self.sizes[0]
        return Convolution.of(cyclic_kernel(self.first_column(xp), xp), (n, n), xp)


def unpaired(sizes: tuple[int, ...], device: Device, xp: Namespace) -> Array:
    """Tell which values of the half spectrum of a vector are unpaired: those whose frequency is its own negative."""
    (n,) = sizes
    return _own_negatives(n // 2 + 1, n, device, xp)


def _own_negatives(count: int, n: int, device: Device, xp: Namespace) -> Array:
    """Tell which of the integers from 0 to ``count - 1`` are their own negatives modulo n."""
    k = xp.arange(count, device=device)
    return (k == 0) | (2 * k == n)


def without_negative(values: Array, is_unpaired: Array, rounding: float, xp: Namespace) -> tuple[Array, bool]:
    """Return the eigenvalues of a real matrix for a function of numbers that are not negative, such as the square root.

    An unpaired eigenvalue that is negative by at most `rounding` times the largest modulus counts as zero. The second
    result says whether no other one is negative, so that the function of the matrix is real.
    """
    negative = is_unpaired & (real_part(values, xp) < 0)
    small = negligible(values, rounding, xp)
    real = not bool(xp.any(negative & ~small))
    return xp.where(negative & small, xp.zeros_like(values), values), real
