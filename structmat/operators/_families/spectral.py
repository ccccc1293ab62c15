"""Matrices that are given by their eigenvalues in a known orthonormal basis, and the closed forms that follow."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from structmat._arrays.arithmetic import damped_reciprocal, divided, euclidean_norm, reciprocal_above, require_nonzero
from structmat._arrays.dtypes import is_complex
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.spectra import as_complex
from structmat.operators._base.linear_operator import LinearOperator

_FAR_FROM_ZERO = 0.01
"""A modulus relative to the largest that counts as zero by no rounding, which needs no further look at it."""


class SpectralForm(NamedTuple):
    """A matrix by its eigenvalues. Functions compute what not everyone needs."""

    values: Array
    """The eigenvalues that are held: for a real circulant half of them, as the others are conjugate."""
    all_values: Callable[[], Array]
    """Returns all eigenvalues, in the order of the eigenvectors."""
    vectors: Callable[[], LinearOperator]
    """Returns the unitary operator of eigenvectors."""
    having: Callable[[Array], LinearOperator]
    """Returns the matrix with the same eigenvectors that has other eigenvalues, in the order of `values`."""
    xp: Namespace
    """The namespace of the eigenvalues: NumPy for operators without parameters."""


class Spectral(LinearOperator):
    """A matrix with known eigenvalues and orthonormal eigenvectors."""

    @abstractmethod
    def _spectral_form(self, xp: Namespace) -> SpectralForm:
        """Return the matrix by its eigenvalues."""

    def _require_regular(self, values: Array, method: str, xp: Namespace) -> None:
        """Raise an error on behalf of a method if an eigenvalue counts as zero."""
        if xp is numpy_namespace:
            moduli = np.abs(values)
            if moduli.size and moduli.min() > _FAR_FROM_ZERO * moduli.max():
                return
        require_nonzero(values, self._rounding(xp), f"{type(self).__name__}.{method}", xp)

    def _inv(self, xp: Namespace) -> LinearOperator:
        form = self._spectral_form(xp)
        self._require_regular(form.values, "inv", form.xp)
        return form.having(divided(1, form.values, form.xp))

    def _pinv(self, rtol: float, xp: Namespace) -> LinearOperator:
        form = self._spectral_form(xp)
        return form.having(reciprocal_above(form.values, rtol, form.xp))

    def _damped_pinv(self, damp: float, xp: Namespace) -> LinearOperator:
        form = self._spectral_form(xp)
        return form.having(damped_reciprocal(form.values, damp, form.xp))

    def _eigvals(self, xp: Namespace) -> Array:
        form = self._spectral_form(xp)
        return as_complex(form.all_values(), form.xp)

    def _eig(self, xp: Namespace) -> tuple[Array, LinearOperator]:
        form = self._spectral_form(xp)
        return as_complex(form.all_values(), form.xp), form.vectors()

    def _orthonormal_eig(self, xp: Namespace) -> tuple[Array, LinearOperator, bool]:
        form = self._spectral_form(xp)
        return form.all_values(), form.vectors(), not is_complex(self.dtype, form.xp)

    def _determinant_factors(self, xp: Namespace) -> Array:
        return self._spectral_form(xp).all_values()

    def _svdvals(self, xp: Namespace) -> Array:
        form = self._spectral_form(xp)
        return form.xp.abs(form.all_values())

    def _frobenius(self, xp: Namespace) -> Array:
        form = self._spectral_form(xp)
        return euclidean_norm(form.all_values(), form.xp)
