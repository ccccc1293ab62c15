"""Functions of matrices: square roots, exponentials, logarithms and powers."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

from structmat._arrays.errors import ArgumentTypeError
from structmat.operators._base.hooks import ClosedForms
from structmat.operators._base.operator import Op
from structmat.operators._base.spectral_functions import SpectralFunction, integer_power

__all__ = ["MatrixFunctions"]


class MatrixFunctions(ClosedForms[Op]):
    """Functions of the eigenvalues, where the hook `_spectral_function` has them."""

    __slots__ = ()

    def sqrtm(self) -> Op:
        """Return the principal square root, an operator R with ``R @ R = A``.

        Returns
        -------
        LinearOperator
            Real whenever a real square root in the family exists: a negative eigenvalue on which a real circulant's
            spectrum folds back on itself (frequency zero, and n/2 for even n) makes the root complex; other negative
            eigenvalues come in pairs and get conjugate roots. Eigenvalues negative only by rounding count as zero.

        Raises
        ------
        ValueError
            If the operator is not square.

        Notes
        -----
        Whether the root of a real operator is real depends on values, so under ``jit`` make the operator complex first.
        `logm` and `fractional_matrix_power` follow the same rule.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> C = sm.Circulant(np.array([2.0, -1.0, 0.0, -1.0]))  # periodic second difference, singular
        >>> R = C.sqrtm()
        >>> bool(np.allclose((R @ R).to_dense(), C.to_dense())), R.dtype
        (True, dtype('float64'))
        """
        op, xp = self._to_working_precision("sqrtm", square=True)
        function = SpectralFunction("sqrtm", xp.sqrt, needs_nonnegative=True)
        return self._from_working_precision(op._spectral_function(function, xp), xp)

    def expm(self) -> Op:
        """Return the matrix exponential.

        Returns
        -------
        LinearOperator
            Real for a real operator.

        Raises
        ------
        ValueError
            If the operator is not square.
        """
        op, xp = self._to_working_precision("expm", square=True)
        function = SpectralFunction("expm", xp.exp)
        return self._from_working_precision(op._spectral_function(function, xp), xp)

    def logm(self) -> Op:
        """Return the principal matrix logarithm, an operator L with ``L.expm() = A``.

        Returns
        -------
        LinearOperator
            Real by the rule of `sqrtm`.

        Raises
        ------
        ValueError
            If the operator is not square.
        numpy.linalg.LinAlgError
            If an eigenvalue is zero, of NumPy arrays; infinities or NaN for others.
        """
        op, xp = self._to_working_precision("logm", square=True)
        function = SpectralFunction("logm", xp.log, needs_nonnegative=True, needs_nonzero=True)
        return self._from_working_precision(op._spectral_function(function, xp), xp)

    def fractional_matrix_power(self, p: float) -> Op:
        """Return the matrix power ``A^p`` for any real exponent.

        Parameters
        ----------
        p : float
            The exponent, of any real type; an integer, however large, gives the repeated product, other exponents the
            principal power.

        Returns
        -------
        LinearOperator
            Real for an integer `p`, else by the rule of `sqrtm`.

        Raises
        ------
        TypeError
            If `p` is not a finite real number.
        ValueError
            If the operator is not square.
        numpy.linalg.LinAlgError
            If `p` is negative and an eigenvalue is zero, of NumPy arrays; infinities or NaN for others.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> shift = sm.Circulant(np.array([0.0, 1.0, 0.0, 0.0]))
        >>> shift.fractional_matrix_power(3).to_dense()[:, 0].round(12) + 0.0
        array([0., 0., 0., 1.])
        """
        number = _exponent(p)
        if number is None:
            raise ArgumentTypeError(
                f"{type(self).__name__}.fractional_matrix_power", "p", f"must be a finite real number, got {p!r}"
            )
        op, xp = self._to_working_precision("fractional_matrix_power", square=True)
        whole = isinstance(number, int) or number.is_integer()
        function = SpectralFunction(
            "fractional_matrix_power",
            lambda values: integer_power(values, int(number), xp) if whole else values**number,
            needs_nonnegative=not whole,
            needs_nonzero=number < 0,
        )
        return self._from_working_precision(op._spectral_function(function, xp), xp)


def _exponent(p: Any) -> int | float | None:
    """Return a real number of any type as one of Python; None where it is none, or not finite."""
    try:
        return int(p) if isinstance(p, Integral) else float(p) if math.isfinite(p) else None
    except (TypeError, OverflowError):
        return None
