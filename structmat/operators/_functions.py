"""Functions of a matrix (square root, exponential, logarithm, power) and the steps that all closed forms share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from structmat._arrays.arrays import is_narrow, precision_of, restored

if TYPE_CHECKING:
    from structmat._arrays.typing import Array, ArrayLike, DType, Namespace
    from structmat.operators._base import LinearOperator

__all__ = ["MatrixFunctions", "SpectralFunction"]

_ITERATIVE = "scipy.sparse.linalg.{} on structmat.scipy.as_linear_operator(op), or {}(op.to_dense())"
ALTERNATIVES = {
    "inv": _ITERATIVE.format("gmres", "numpy.linalg.inv"),
    "solve": _ITERATIVE.format("gmres", "numpy.linalg.inv"),
    "pinv": _ITERATIVE.format("lsqr", "numpy.linalg.pinv"),
    "lstsq": _ITERATIVE.format("lsqr", "numpy.linalg.pinv"),
    "eigvals": _ITERATIVE.format("eigs", "numpy.linalg.eigvals"),
    "eig": _ITERATIVE.format("eigs", "numpy.linalg.eig"),
    "svdvals": _ITERATIVE.format("svds", "numpy.linalg.svdvals"),
    "det": "numpy.linalg.det(op.to_dense())",
    "slogdet": "numpy.linalg.slogdet(op.to_dense())",
    "trace": "numpy.trace(op.to_dense())",
    "diagonal": "numpy.diagonal(op.to_dense())",
    "norm": "numpy.linalg.norm(op.to_dense())",
    "sqrt": "scipy.linalg.sqrtm(op.to_dense())",
    "exp": "scipy.linalg.expm(op.to_dense())",
    "log": "scipy.linalg.logm(op.to_dense())",
    "power": "scipy.linalg.fractional_matrix_power(op.to_dense(), p)",
}
"""What to call instead of a method that has no closed form."""


class SpectralFunction(NamedTuple):
    """A scalar function to be applied to eigenvalues."""

    name: str
    """The public method that asks for it."""
    evaluate: Callable[[Array], Array]
    """The function, on an array of eigenvalues."""
    needs_nonnegative: bool
    """Whether a real eigenvalue must not be negative for the value to be real."""
    needs_nonzero: bool
    """Whether the function has a pole or a logarithmic singularity at zero."""


class MatrixFunctions:
    """The functions of a matrix of `structmat.LinearOperator`; see there."""

    __slots__ = ()

    # What a LinearOperator supplies.

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Rows and columns of one matrix."""

    @property
    @abstractmethod
    def dtype(self) -> DType:
        """The dtype of the entries."""

    if TYPE_CHECKING:

        def _in_precision(self, precision: DType, xp: Namespace) -> Any: ...
        def _operand(
            self, x: ArrayLike, name: str, length: int, axis: int = -1
        ) -> tuple[Any, Array, Namespace, DType]: ...
        def _own_namespace(self) -> Namespace: ...

    def sqrt(self) -> LinearOperator:
        """Return the principal square root, an operator R with ``R @ R = A``.

        Returns
        -------
        LinearOperator
            Real whenever a real square root in the family exists: a negative eigenvalue on which a real circulant's
            spectrum folds back on itself (frequency zero, and n/2 for even n) makes the root complex; other negative
            eigenvalues come in pairs and get conjugate roots. Eigenvalues negative only by rounding count as zero.

        Raises
        ------
        NotImplementedError
            If there is no closed form; the message names the alternative.

        Notes
        -----
        Whether the root of a real operator is real depends on values, so under ``jit`` make the operator complex first.
        `log` and a fractional `power` follow the same rule.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> C = sm.Circulant(np.array([2.0, -1.0, 0.0, -1.0]))  # periodic second difference, singular
        >>> R = C.sqrt()
        >>> bool(np.allclose((R @ R).to_dense(), C.to_dense())), R.dtype
        (True, dtype('float64'))
        """
        op, xp = self._opened("sqrt", square=True)
        function = SpectralFunction("sqrt", xp.sqrt, needs_nonnegative=True, needs_nonzero=False)
        return self._closed(op._spectral_function(function, xp), xp)

    def exp(self) -> LinearOperator:
        """Return the matrix exponential.

        Returns
        -------
        LinearOperator
            Real for a real operator.

        Raises
        ------
        NotImplementedError
            If there is no closed form; the message names the alternative.
        """
        op, xp = self._opened("exp", square=True)
        function = SpectralFunction("exp", xp.exp, needs_nonnegative=False, needs_nonzero=False)
        return self._closed(op._spectral_function(function, xp), xp)

    def log(self) -> LinearOperator:
        """Return the principal matrix logarithm, an operator L with ``L.exp() = A``.

        Returns
        -------
        LinearOperator
            Real by the rule of `sqrt`.

        Raises
        ------
        numpy.linalg.LinAlgError
            If a NumPy operator is singular to working precision.
        NotImplementedError
            If there is no closed form; the message names the alternative.
        """
        op, xp = self._opened("log", square=True)
        function = SpectralFunction("log", xp.log, needs_nonnegative=True, needs_nonzero=True)
        return self._closed(op._spectral_function(function, xp), xp)

    def power(self, p: float) -> LinearOperator:
        """Return the matrix power ``A^p`` for any real exponent.

        Parameters
        ----------
        p : float
            The exponent; an integer gives the exact repeated product, a fraction the principal power.

        Returns
        -------
        LinearOperator
            Real for an integer `p`, else by the rule of `sqrt`.

        Raises
        ------
        TypeError
            If `p` is not a real number.
        numpy.linalg.LinAlgError
            If `p` is negative and a NumPy operator is singular to working precision.
        NotImplementedError
            If there is no closed form; the message names the alternative.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> shift = sm.Circulant(np.array([0.0, 1.0, 0.0, 0.0]))
        >>> shift.power(3).to_dense()[:, 0].round(12) + 0.0
        array([0., 0., 0., 1.])
        """
        try:
            finite = math.isfinite(p)
        except TypeError:
            finite = False
        if not finite:
            raise TypeError(f"{type(self).__name__}.power: p must be a finite real number, got {p!r}")
        op, xp = self._opened("power", square=True)
        whole = float(p).is_integer()
        function = SpectralFunction(
            "power", lambda values: values ** (int(p) if whole else p), needs_nonnegative=not whole, needs_nonzero=p < 0
        )
        return self._closed(op._spectral_function(function, xp), xp)

    def _spectral_function(self, function: SpectralFunction, xp: Namespace) -> LinearOperator:
        """Function of the matrix."""
        raise self._no_closed_form(function.name)

    # Shared steps of the public methods.

    def _opened(self, method: str, *, square: bool = False) -> tuple[Any, Namespace]:
        """Return the operator in working precision and its namespace, after the shape check."""
        if square and self.shape[0] != self.shape[1]:
            raise ValueError(f"{type(self).__name__}.{method}: the operator must be square, got shape {self.shape}")
        xp = self._own_namespace()
        return (self._in_precision(precision_of(self.dtype, xp), xp) if is_narrow(self.dtype) else self), xp

    def _closed(self, value: Any, xp: Namespace) -> Any:
        """Return a result of working precision in the operator's own, where that is a half precision."""
        if isinstance(value, MatrixFunctions):
            return value._in_precision(self.dtype, xp) if is_narrow(self.dtype) else value
        return restored(value, self.dtype, xp)

    def _no_closed_form(self, method: str) -> NotImplementedError:
        """Return the error that says so and names the alternative."""
        return NotImplementedError(
            f"{type(self).__name__}.{method}: no closed form for {self._described()}; use {ALTERNATIVES[method]}"
        )

    def _described(self) -> str:
        """Return what of this operator has no closed form, in words."""
        return "this kind of operator"
