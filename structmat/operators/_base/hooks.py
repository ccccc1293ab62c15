"""The hooks of linear algebra: unchecked mathematics in working precision, which operators override one by one."""

from __future__ import annotations

import math
from typing import Any

from structmat._arrays.checks import non_negative
from structmat._arrays.errors import ArgumentValueError
from structmat._arrays.typing import Array, Namespace
from structmat.operators._base.arithmetic import Arithmetic
from structmat.operators._base.operator import Op
from structmat.operators._base.spectral_functions import (
    ALTERNATIVES,
    NormOrder,
    SpectralFunction,
    product,
    sign_and_log,
    spectral_rounding,
)

__all__ = ["ClosedForms"]


class ClosedForms(Arithmetic[Op]):
    """Hooks that raise an error which names the alternative, until an operator has the closed form."""

    __slots__ = ()

    def _inv(self, xp: Namespace) -> Op:
        """Inverse."""
        raise self._no_closed_form("inv")

    def _solve(self, b: Array, xp: Namespace) -> Array:
        """Solution along the last axis."""
        raise self._no_closed_form("solve")

    def _pinv(self, rtol: float, xp: Namespace) -> Op:
        """Pseudo-inverse."""
        raise self._no_closed_form("pinv")

    def _has_pinv(self) -> bool:
        """Tell whether `_pinv` has a closed form."""
        return type(self)._pinv is not ClosedForms._pinv

    def _eigvals(self, xp: Namespace) -> Array:
        """Eigenvalues, complex."""
        raise self._no_closed_form("eigvals")

    def _eig(self, xp: Namespace) -> tuple[Array, Op]:
        """Eigenvalues and the operator of eigenvectors."""
        raise self._no_closed_form("eig")

    def _svdvals(self, xp: Namespace) -> Array:
        """Singular values in any order."""
        raise self._no_closed_form("svdvals")

    def _rounding(self, xp: Namespace) -> float:
        """Size, relative to the largest, up to which a singular value may be rounding: the default cut-off."""
        return spectral_rounding(self.dtype, xp, length=max(self.shape))

    def _singular_values(self, method: str, xp: Namespace) -> Array:
        """Singular values in any order, on behalf of another method."""
        try:
            return self._svdvals(xp)
        except NotImplementedError:
            raise self._no_closed_form(method) from None

    def _check_order(self, order: Any, method: str, argument: str) -> None:
        if order not in ("fro", "nuc", 1, 2, math.inf):  # a tuple: it may have no hash
            text = f'must be "fro", "nuc", 1, 2 or inf, got {order!r}'
            raise ArgumentValueError(f"{type(self).__name__}.{method}", argument, text)

    def _determinant_factors(self, method: str, xp: Namespace) -> Array:
        """Numbers along the last axis whose product is the determinant."""
        raise self._no_closed_form(method)

    def _det(self, xp: Namespace) -> Array:
        """Determinant."""
        return product(self._determinant_factors("det", xp), xp)

    def _slogdet(self, xp: Namespace) -> tuple[Array, Array]:
        """Sign and logarithm of the absolute value of the determinant."""
        return sign_and_log(self._determinant_factors("slogdet", xp), xp)

    def _diagonal(self, method: str, xp: Namespace) -> Array:
        """Main diagonal."""
        raise self._no_closed_form(method)

    def _modulus(self, xp: Namespace) -> Op:
        """Operator whose entries are ``|A[i, j]|``."""
        raise self._no_closed_form("norm")

    def _frobenius(self, xp: Namespace) -> Array:
        """Frobenius norm."""
        raise self._no_closed_form("norm")

    def _norm(self, ord: NormOrder, xp: Namespace) -> Array:
        """Norm, from entries, from singular values, or from row and column sums of the moduli."""
        if ord == "fro":
            return self._frobenius(xp)
        if ord in {2, "nuc"}:
            values = self._singular_values("norm", xp)
            return xp.max(values, axis=-1) if ord == 2 else xp.sum(values, axis=-1)
        moduli = self._modulus(xp)
        return xp.max((moduli._transpose() if ord == 1 else moduli)._row_sums(xp), axis=-1)

    def _spectral_function(self, function: SpectralFunction, xp: Namespace) -> Op:
        """Function of the matrix."""
        raise self._no_closed_form(function.name)

    # Shared steps of the public methods

    def _cutoff(self, rtol: float | None, method: str, xp: Namespace) -> float:
        """Return the relative cut-off of singular values after the check of a given one."""
        if rtol is None:
            return self._to_working_precision(method)[0]._rounding(xp)
        return non_negative(rtol, f"{type(self).__name__}.{method}", "rtol")

    def _no_closed_form(self, method: str) -> NotImplementedError:
        """Return the error that says so and names the alternative."""
        return NotImplementedError(
            f"{type(self).__name__}.{method}: no closed form for {self._described()}; use {ALTERNATIVES[method]}"
        )

    def _described(self) -> str:
        """Return what of this operator has no closed form, in words."""
        return "this kind of operator"
