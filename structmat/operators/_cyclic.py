"""The linear algebra of circulant matrices of one level or of several, whatever parameters they are given by."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

from structmat._arrays.arithmetic import (
    are_normal,
    damped_reciprocal,
    euclidean_norm,
    power_of_two_near,
    reciprocal_above,
    require_nonzero,
)
from structmat._arrays.dtypes import is_complex
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.plans import Plan
from structmat.operators._diagonalisation import Diagonalisation, without_negative
from structmat.operators._linear_operator import LinearOperator, Planned
from structmat.operators._spectral_functions import SpectralFunction, is_real_at
from structmat.operators._transforms import Fourier


class Cyclic(Planned):
    """A circulant matrix on a grid, with the methods that follow from its eigenvalues or from its first column."""

    @property
    @abstractmethod
    def _sizes(self) -> tuple[int, ...]:
        """The sizes of the grid, one for each level."""

    @abstractmethod
    def _as_circulant(self) -> Any:
        """Return the same matrix, given by its first column `c`."""

    @abstractmethod
    def _from_eigenvalues(self, diagonalisation: Diagonalisation, xp: Namespace) -> LinearOperator:
        """Return the operator of the same type and grid that has these eigenvalues."""

    def _diagonalised(self, xp: Namespace) -> Diagonalisation:
        """Return the eigenvalues."""
        return Diagonalisation.of(self._as_circulant().c, self._sizes, xp)

    def _diagonalised_scaled(self, xp: Namespace) -> tuple[Array, Diagonalisation]:
        """Return a power of two near the largest entry, and the eigenvalues of the matrix divided by it.

        Without this division sums of entries may overflow, and so may reciprocals of eigenvalues.
        """
        c = self._as_circulant().c
        power_of_two = power_of_two_near(c, xp)
        return power_of_two, Diagonalisation.of(c / power_of_two, self._sizes, xp)

    def _circulant_levels(self) -> tuple[int, ...]:
        return self._sizes

    def _nearest_circulant(self, sizes: tuple[int, ...], like: Array, xp: Namespace) -> Array | None:
        return self._as_circulant().c if sizes == self._sizes else None

    def _require_regular(self, diagonalisation: Diagonalisation, method: str, xp: Namespace) -> None:
        """Raise an error on behalf of a method if an eigenvalue counts as zero."""
        require_nonzero(diagonalisation.values, self._rounding(xp), f"{type(self).__name__}.{method}", xp)

    def _inv(self, xp: Namespace) -> LinearOperator:
        diagonalisation = self._diagonalised(xp)
        self._require_regular(diagonalisation, "inv", xp)
        return self._from_eigenvalues(diagonalisation.with_values(1 / diagonalisation.values), xp)

    def _solve(self, b: Array, xp: Namespace) -> Array:
        power_of_two, diagonalisation = self._diagonalised_scaled(xp)
        self._require_regular(diagonalisation, "solve", xp)
        return diagonalisation.with_values(1 / diagonalisation.values).product(b / power_of_two, xp)

    def _solver(self, xp: Namespace) -> Plan | None:
        diagonalisation = self._diagonalised(xp)
        self._require_regular(diagonalisation, "solve", xp)
        values = diagonalisation.values
        return diagonalisation.with_values(1 / values).plan_for_many(xp) if are_normal(values, xp) else None

    def _pinv(self, rtol: float, xp: Namespace) -> LinearOperator:
        diagonalisation = self._diagonalised(xp)
        values = reciprocal_above(diagonalisation.values, rtol, xp)
        return self._from_eigenvalues(diagonalisation.with_values(values), xp)

    def _damped_pinv(self, damp: float, xp: Namespace) -> LinearOperator:
        diagonalisation = self._diagonalised(xp)
        values = damped_reciprocal(diagonalisation.values, damp, xp)
        return self._from_eigenvalues(diagonalisation.with_values(values), xp)

    def _eigvals(self, xp: Namespace) -> Array:
        return self._diagonalised(xp).all_values(xp)

    def _eig(self, xp: Namespace) -> tuple[Array, LinearOperator]:
        sizes = self._sizes
        return self._eigvals(xp), Fourier(sizes if len(sizes) > 1 else sizes[0], inverse=True)

    def _orthonormal_eig(self, xp: Namespace) -> tuple[Array, LinearOperator, bool]:
        return *self._eig(xp), not is_complex(self.dtype, xp)

    def _svdvals(self, xp: Namespace) -> Array:
        return xp.abs(self._eigvals(xp))

    def _determinant_factors(self, xp: Namespace) -> Array:
        return self._diagonalised(xp).factors(xp)

    def _spectral_function(self, function: SpectralFunction, xp: Namespace) -> LinearOperator:
        diagonalisation = self._diagonalised(xp)
        if function.needs_nonzero:
            self._require_regular(diagonalisation, function.name, xp)
        stays_real = diagonalisation.real
        if stays_real and (function.needs_nonnegative or not function.stays_real):
            is_unpaired = diagonalisation.unpaired(xp)
            if len(self._sizes) > 1:  # where several transforms may leave imaginary parts that are rounding errors
                diagonalisation = diagonalisation.with_real_values(is_unpaired, xp)
            if function.needs_nonnegative:
                values, stays_real = without_negative(diagonalisation.values, is_unpaired, self._rounding(xp), xp)
                diagonalisation = diagonalisation.with_values(values)
            elif not is_real_at(function, diagonalisation.values, is_unpaired, xp):
                diagonalisation = diagonalisation.as_complex(xp)
                stays_real = False
        # The values at two eigenvalues of a pair may be on different sides of a branch cut, and no longer conjugate.
        values = function.evaluate(diagonalisation.values)
        result = diagonalisation.with_values(values).with_conjugates(xp)
        return self._from_eigenvalues(result if stays_real else result.as_complex(xp), xp)

    def _modulus(self, xp: Namespace) -> LinearOperator:
        circulant = self._as_circulant()
        return circulant._replaced(c=xp.abs(circulant.c))

    def _diagonal(self, xp: Namespace) -> Array:
        c = self._as_circulant().c
        return xp.broadcast_to(c[..., :1], c.shape)

    def _frobenius(self, xp: Namespace) -> Array:
        return math.sqrt(self.shape[0]) * euclidean_norm(self._as_circulant().c, xp)

    def _row_sums(self, xp: Namespace) -> Array:
        c = self._as_circulant().c
        return xp.broadcast_to(xp.sum(c, axis=-1, keepdims=True), c.shape)
