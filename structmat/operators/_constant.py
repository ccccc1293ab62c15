"""Operators whose arrays were computed from operators without parameters, and that work with every library as these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from structmat._arrays.dtypes import in_precision, is_complex, precision_of
from structmat._arrays.libraries import device_of
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.typing import Array, Namespace
from structmat.operators._hooks import Context
from structmat.operators._linear_operator import LinearOperator
from structmat.operators._spectral_functions import SpectralFunction


@dataclass(frozen=True, eq=False, repr=False)
class Constant(LinearOperator):
    """An operator of NumPy arrays that has no parameters itself, as those that it was computed from have none.

    What takes vectors is computed in their library, on their device and in their precision. All else is computed in
    NumPy, as everything is that operators without parameters return.

    Parameters
    ----------
    operator : LinearOperator
        The operator of NumPy arrays.
    is_complex : bool, default False
        Not to be given: it is read off the operator.
    """

    operator: LinearOperator
    """The operator of NumPy arrays, which count as static."""
    is_complex: bool = False
    """Whether that is complex. It is found once: the compiler of torch traces no questions about dtypes of NumPy."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_complex", is_complex(self.operator.dtype, numpy_namespace))

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the operator."""
        return self.operator.shape

    @property
    def _forces_complex(self) -> bool:
        return self.is_complex

    def _details(self) -> str:
        return f"{type(self.operator).__name__}, "

    def _described(self) -> str:
        return self.operator._described()

    def _in(self, like: Context) -> Any:
        """Return the operator with arrays of a library, on a device and in the precision of a dtype."""
        precision = precision_of(like.dtype, like.xp)
        return self.operator._map(
            lambda array, _: in_precision(like.xp.asarray(array, device=like.device), precision, like.xp)
        )

    def _beside(self, vectors: Array, xp: Namespace) -> Any:
        """Return the operator with arrays of the library, the device and the precision of vectors."""
        return self._in(Context(xp, vectors.dtype, device_of(vectors)))

    # What takes vectors

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        return self._beside(x, xp)._matvec(x, xp)

    def _matmat(self, X: Array, xp: Namespace) -> Array:
        return self._beside(X, xp)._matmat(X, xp)

    def _rmatvec(self, y: Array, xp: Namespace) -> Array:
        return self._beside(y, xp)._rmatvec(y, xp)

    def _solve(self, b: Array, xp: Namespace) -> Array:
        return self._beside(b, xp)._solve(b, xp)

    def _squared_moduli_times(self, X: Array, xp: Namespace) -> Array:
        return self._beside(X, xp)._squared_moduli_times(X, xp)

    def _to_dense(self, like: Context) -> Array:
        return self._in(like)._to_dense(like)

    # Other operators

    def _transpose(self) -> Constant:
        return Constant(self.operator._transpose())

    def _conj(self) -> Constant:
        return Constant(self.operator._conj())

    def _inv(self, xp: Namespace) -> Constant:
        return Constant(self.operator._inv(numpy_namespace))

    def _pinv(self, rtol: float, xp: Namespace) -> Constant:
        return Constant(self.operator._pinv(rtol, numpy_namespace))

    def _damped_pinv(self, damp: float, xp: Namespace) -> Constant:
        return Constant(self.operator._damped_pinv(damp, numpy_namespace))

    def _spectral_function(self, function: SpectralFunction, xp: Namespace) -> Constant:
        return Constant(self.operator._spectral_function(function, numpy_namespace))

    # Numbers

    def _rounding(self, xp: Namespace) -> float:
        return self.operator._rounding(numpy_namespace)

    def _eig(self, xp: Namespace) -> tuple[Array, LinearOperator]:
        return self.operator._eig(numpy_namespace)

    def _orthonormal_eig(self, xp: Namespace) -> tuple[Array, LinearOperator, bool]:
        return self.operator._orthonormal_eig(numpy_namespace)

    def _determinant_factors(self, xp: Namespace) -> Array:
        return self.operator._determinant_factors(numpy_namespace)

    def _slogdet(self, xp: Namespace) -> tuple[Array, Array]:
        return self.operator._slogdet(numpy_namespace)

    def _svdvals(self, xp: Namespace) -> Array:
        return self.operator._svdvals(numpy_namespace)

    def _diagonal(self, xp: Namespace) -> Array:
        return self.operator._diagonal(numpy_namespace)

    def _frobenius(self, xp: Namespace) -> Array:
        return self.operator._frobenius(numpy_namespace)
