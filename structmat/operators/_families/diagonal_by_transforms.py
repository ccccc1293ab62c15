"""The linear algebra of matrices that transforms of the axes of a grid make diagonal, by their eigenvalues."""

from __future__ import annotations

from abc import abstractmethod
from functools import reduce

from structmat._arrays.arithmetic import are_normal, divided
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.multipliers import FOURIER
from structmat._fourier.plans import Plan
from structmat._fourier.spectra import as_complex
from structmat._fourier.trigonometric import INVERSES
from structmat.operators._base.arithmetic import compose
from structmat.operators._base.linear_operator import LinearOperator, Planned
from structmat.operators._base.spectral_functions import SpectralFunction, is_real_at
from structmat.operators._families.grid_spectrum import GridSpectrum, without_negative
from structmat.operators._families.spectral import Spectral, SpectralForm
from structmat.operators._families.transforms import CosineTransform, Fourier, SineTransform


class DiagonalByTransforms(Spectral, Planned):
    """A matrix with known eigenvalues, whose eigenvectors are the columns of unitary transforms."""

    @property
    @abstractmethod
    def _sizes(self) -> tuple[int, ...]:
        """The sizes of the grid."""

    @property
    @abstractmethod
    def _kinds(self) -> tuple[str, ...]:
        """The kind of transform of each axis of the grid."""

    @abstractmethod
    def _grid_spectrum(self, xp: Namespace) -> GridSpectrum:
        """Return the eigenvalues."""

    @abstractmethod
    def _scaled_grid_spectrum(self, xp: Namespace) -> tuple[Array, GridSpectrum]:
        """Return a power of two near the largest entry or eigenvalue, and the eigenvalues of the matrix divided by it.

        Without this division sums of entries may overflow, and so may reciprocals of eigenvalues.
        """

    @abstractmethod
    def _from_eigenvalues(self, spectrum: GridSpectrum, xp: Namespace) -> LinearOperator:
        """Return the operator of the same type and grid that has these eigenvalues."""

    def _spectral_form(self, xp: Namespace) -> SpectralForm:
        held = self._grid_spectrum(xp)
        return SpectralForm(
            held.values,
            lambda: held.all_values(xp),
            lambda: _inverse_transform(self._sizes, self._kinds),
            lambda values: self._from_eigenvalues(held.with_values(values), xp),
            xp,
        )

    def _solve(self, b: Array, xp: Namespace) -> Array:
        power_of_two, spectrum = self._scaled_grid_spectrum(xp)
        self._require_regular(spectrum.values, "solve", xp)
        return spectrum.with_values(divided(1, spectrum.values, xp)).product(b / power_of_two, xp)

    def _solver(self, xp: Namespace) -> Plan | None:
        spectrum = self._grid_spectrum(xp)
        self._require_regular(spectrum.values, "solve", xp)
        values = spectrum.values
        return spectrum.with_values(1 / values).plan_for_many(xp) if are_normal(values, xp) else None

    def _determinant_factors(self, xp: Namespace) -> Array:
        return self._grid_spectrum(xp).factors(xp)

    def _spectral_function(self, function: SpectralFunction, xp: Namespace) -> LinearOperator:
        spectrum = self._grid_spectrum(xp)
        if function.needs_nonzero:
            self._require_regular(spectrum.values, function.name, xp)
        stays_real = spectrum.real
        if stays_real and (function.needs_nonnegative or not function.stays_real):
            is_unpaired = spectrum.unpaired(xp)
            if len(self._sizes) > 1:  # where several transforms may leave imaginary parts that are rounding errors
                spectrum = spectrum.with_real_values(is_unpaired, xp)
            if function.needs_nonnegative:
                values, stays_real = without_negative(spectrum.values, is_unpaired, self._rounding(xp), xp)
                spectrum = spectrum.with_values(values)
            elif not is_real_at(function, spectrum.values, is_unpaired, xp):
                spectrum = spectrum.as_complex(xp)
                stays_real = False
        values = spectrum.values
        # The values at two eigenvalues of a pair may be on different sides of a branch cut, and no longer conjugate.
        values = function.evaluate(values if stays_real else as_complex(values, xp))
        result = spectrum.with_values(values).with_conjugates(xp)
        return self._from_eigenvalues(result if stays_real else result.as_complex(xp), xp)


def _inverse_transform(sizes: tuple[int, ...], kinds: tuple[str, ...]) -> LinearOperator:
    """Return the operator whose columns are the eigenvectors: a transform for each kind, along its axes."""
    n = sizes if len(sizes) > 1 else sizes[0]
    transforms: list[LinearOperator] = []
    for kind in dict.fromkeys(kinds):
        axes = tuple(axis for axis, own in enumerate(kinds) if own == kind)
        if kind == FOURIER:
            transforms.append(Fourier(n, inverse=True, axes=axes))
        else:
            of = CosineTransform if kind[:3] == "dct" else SineTransform
            transforms.append(of(n, int(INVERSES[kind][3]), axes))
    return reduce(compose, transforms)
