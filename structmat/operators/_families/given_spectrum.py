"""Matrices that transforms of the axes of a grid make diagonal, and whose parameters are their eigenvalues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from structmat._arrays.arithmetic import conjugate, power_of_two_near, real_part
from structmat._arrays.dtypes import is_complex, precision_of
from structmat._arrays.typing import Array, DType, Namespace
from structmat._fourier.grids import as_grid, from_grid, with_negative_frequencies
from structmat._fourier.multipliers import FOURIER, fourier_axes
from structmat._fourier.spectra import as_complex
from structmat.operators._families.diagonal_by_transforms import DiagonalByTransforms
from structmat.operators._families.grid_spectrum import GridSpectrum


class GivenSpectrum(DiagonalByTransforms):
    """A matrix whose parameters are its eigenvalues, those of the grid of frequencies or half of them.

    It is a dataclass with the field `spectrum`, and `real`, which says whether a matrix with Fourier's transform along
    some axes is real. Without that transform it is real where `spectrum` is.
    """

    if TYPE_CHECKING:

        @property
        def spectrum(self) -> Any:
            """The eigenvalues that determine all."""

        @property
        def real(self) -> bool:
            """Whether the matrix is real, where some transform is Fourier's."""

    @property
    def dtype(self) -> DType:
        """The dtype of the entries: real where the matrix is."""
        if FOURIER in self._kinds and self.real:
            return precision_of(self.spectrum.dtype, self._own_namespace())
        return self.spectrum.dtype

    @property
    def _is_real(self) -> bool:
        if FOURIER in self._kinds:
            return self.real
        return not is_complex(self.spectrum.dtype, self._own_namespace())

    def _as_given(self) -> GridSpectrum:
        """Return the eigenvalues as they are in `spectrum`."""
        return GridSpectrum(self.spectrum, self._sizes, self._is_real, self._kinds)

    def _grid_spectrum(self, xp: Namespace) -> GridSpectrum:
        return self._as_given().hermitian(xp)

    def _scaled_grid_spectrum(self, xp: Namespace) -> tuple[Array, GridSpectrum]:
        power_of_two = power_of_two_near(self.spectrum, xp)
        return power_of_two, self._replaced(spectrum=self.spectrum / power_of_two)._grid_spectrum(xp)

    def _from_eigenvalues(self, spectrum: GridSpectrum, xp: Namespace) -> GivenSpectrum:
        values = spectrum.values
        if FOURIER in self._kinds:
            return self._replaced(spectrum=as_complex(values, xp), real=spectrum.real)
        return self._replaced(spectrum=real_part(values, xp) if spectrum.real else values)

    def _with_full_spectrum(self) -> GivenSpectrum:
        """Return the same matrix with all of its eigenvalues, as one that may be complex."""
        if FOURIER not in self._kinds or not self.real:
            return self
        return self._replaced(spectrum=self._eigvals(self._own_namespace()), real=False)

    def _complex(self, dtype: DType, xp: Namespace) -> GivenSpectrum:
        full = self._with_full_spectrum()
        return full._replaced(spectrum=xp.astype(full.spectrum, dtype))

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        return self._as_given().product(x, xp)

    def _rmatvec(self, y: Array, xp: Namespace) -> Array:
        return self._replaced(spectrum=conjugate(self.spectrum, xp))._matvec(y, xp)

    def _transpose(self) -> GivenSpectrum:
        xp = self._own_namespace()
        if FOURIER not in self._kinds:
            return self
        return self._replaced(spectrum=xp.conj(self.spectrum) if self.real else self._at_negative(self.spectrum, xp))

    def _conj(self) -> GivenSpectrum:
        xp = self._own_namespace()
        if self._is_real:
            return self
        return self._replaced(spectrum=self._at_negative(xp.conj(self.spectrum), xp))

    def _at_negative(self, values: Array, xp: Namespace) -> Array:
        """Return all eigenvalues at the negative frequencies."""
        axes = tuple(fourier_axes(self._kinds))
        return from_grid(with_negative_frequencies(as_grid(values, self._sizes, xp), axes, xp), self._sizes, xp)
