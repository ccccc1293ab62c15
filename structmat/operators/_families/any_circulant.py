"""Circulant matrices of one level or of several, whatever parameters they are given by."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

from structmat._arrays.arithmetic import euclidean_norm, power_of_two_near
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.multipliers import FOURIER
from structmat.operators._base.determinants import error_of_eigenvalues, sign_and_log
from structmat.operators._base.linear_operator import LinearOperator
from structmat.operators._base.near import Near, NearCirculant
from structmat.operators._families.diagonal_by_transforms import DiagonalByTransforms
from structmat.operators._families.grid_spectrum import GridSpectrum


class AnyCirculant(DiagonalByTransforms):
    """A circulant matrix on a grid, with what follows from its first column."""

    @abstractmethod
    def _as_circulant(self) -> Any:
        """Return the same matrix, given by its first column `c`."""

    @property
    def _kinds(self) -> tuple[str, ...]:
        return (FOURIER,) * len(self._sizes)

    def _grid_spectrum(self, xp: Namespace) -> GridSpectrum:
        return GridSpectrum.of(self._as_circulant().c, self._sizes, xp)

    def _scaled_grid_spectrum(self, xp: Namespace) -> tuple[Array, GridSpectrum]:
        c = self._as_circulant().c
        power_of_two = power_of_two_near(c, xp)
        return power_of_two, GridSpectrum.of(c / power_of_two, self._sizes, xp)

    def _slogdet_and_error(self, xp: Namespace) -> tuple[Array, Array, Array]:
        factors = self._determinant_factors(xp)
        return *sign_and_log(factors, xp), error_of_eigenvalues(factors, xp, by_transforms=True)

    def _near(self, like: Array, xp: Namespace) -> Near:
        return Near(self, circulant=lambda: NearCirculant(self._as_circulant().c, self._sizes))

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
