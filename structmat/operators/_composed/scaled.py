"""Scalar multiples of operators whose family is not closed under scaling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from structmat._arguments import as_floating
from structmat._arrays.arithmetic import Reciprocal, conjugate, quotient, reciprocal_above, require_nonzero, scale_array
from structmat._arrays.dtypes import common_dtype, complex_partner, in_precision, is_complex_scalar, precision_of
from structmat._arrays.libraries import device_of, namespace_of
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.shapes import concat_last
from structmat._arrays.typing import Array, DType, Namespace, Scalar
from structmat.operators._base.arithmetic import add, compose, scale
from structmat.operators._base.closed_forms import NoClosedFormError
from structmat.operators._base.determinants import sign_and_log
from structmat.operators._base.hooks import Context, NormOrder
from structmat.operators._base.linear_operator import LinearOperator
from structmat.operators._base.near import Near, NearCirculant
from structmat.operators._base.parts import require_operators, values_of
from structmat.operators._base.spectral_functions import SpectralFunction, function_of_entries
from structmat.operators._base.wrapper import Wrapper
from structmat.operators._families.diagonal import Identity, times_identity


@dataclass(frozen=True, eq=False, repr=False)
class Scaled(Wrapper):
    """A scalar multiple ``factor * operator`` of an operator whose family is not closed under scaling.

    Parameters
    ----------
    operator : LinearOperator
        The operator.
    factor : scalar
        A Python number, or an array of scalars over the operator's batch axes.

    Raises
    ------
    TypeError
        If `operator` is not an operator, or `factor` no number of its array library.

    Examples
    --------
    >>> import structmat as sm
    >>> (3 * sm.Identity(2)).to_dense()
    array([[3., 0.],
           [0., 3.]])
    """

    _core_axes = {"operator": None, "factor": 0}
    _static_numbers = frozenset({"factor"})

    operator: LinearOperator
    """The operator."""
    factor: Scalar
    """The scalar."""

    def __post_init__(self) -> None:
        require_operators("Scaled", "operator", (self.operator,))
        if not isinstance(self.factor, (int, float, complex)):
            arrays = self.operator._arrays()
            like = (namespace_of("Scaled", *arrays), self.operator.dtype) if arrays else None
            object.__setattr__(self, "factor", as_floating(self.factor, "Scaled", "factor", like=like))

    @property
    def dtype(self) -> DType:
        """The common dtype of operator and factor."""
        inner = self.operator.dtype
        if not isinstance(self.factor, (int, float, complex)):
            counted = self.operator._counted_as(inner)
            inner = common_dtype(namespace_of("Scaled", self.factor), *counted, self.factor)
        return complex_partner(inner, self._own_namespace()) if self._forces_complex and inner is not None else inner

    @property
    def _forces_complex(self) -> bool:
        return isinstance(self.factor, complex) or self.operator._forces_complex

    def _described(self) -> str:
        return f"a multiple of {self.operator._described()}"

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        return scale_array(self.operator._matvec(x, xp), self.factor, 1, xp)

    def _transpose(self) -> LinearOperator:
        return Scaled(self.operator._transpose(), self.factor)

    def _conj(self) -> LinearOperator:
        s = self.factor
        is_number = isinstance(s, (int, float, complex))
        return Scaled(self.operator._conj(), s.conjugate() if is_number else self._apply_to_factor(conjugate))

    def _to_dense(self, like: Context) -> Array:
        return scale_array(self.operator._to_dense(like), self.factor, 2, like.xp)

    def _inv(self, xp: Namespace) -> LinearOperator:
        return scale(self.operator._inv(xp), self._divisor("inv"))

    def _solve(self, b: Array, xp: Namespace) -> Array:
        return scale_array(self.operator._solve(b, xp), self._divisor("solve"), 1, xp)

    def _pinv(self, rtol: float, xp: Namespace) -> LinearOperator:
        factor = self._apply_to_factor(lambda values, own: reciprocal_above(values, 0.0, own))
        return scale(self.operator._pinv(rtol, xp), factor)

    def _damped_pinv(self, damp: float, xp: Namespace) -> LinearOperator:
        s = self.factor
        if not isinstance(s, (int, float, complex)) or not s:  # arrays may hold several scalars, or be traced
            raise NoClosedFormError(self)
        return scale(self.operator._damped_pinv(damp / abs(s), xp), self._divisor("lstsq"))

    def _divisor(self, method: str) -> Reciprocal:
        """Return 1 / factor, after the check that the factor is not zero where values may be read."""

        def nonzero(values: Array, own: Namespace) -> Array:
            require_nonzero(values, 0.0, f"Scaled.{method}", own)
            return values

        return Reciprocal(self._apply_to_factor(nonzero))

    def _apply_to_factor(self, function: Callable[[Array, Namespace], Array]) -> Scalar:
        """Return the result of ``function(array, namespace)`` for the factor; for a Python number it is one as well."""
        if not isinstance(self.factor, (int, float, complex)):
            return _as_scalar(function(self.factor[..., None], namespace_of("Scaled", self.factor))[..., 0])
        values = np.asarray([self.factor])
        result: Any = function(values if values.dtype.kind == "c" else values.astype(float), numpy_namespace)
        return result[0].item()

    def _times_factor(self, values: Array, xp: Namespace, *, absolute: bool = False) -> Array:
        """Return values of the operator times the factor, in the precision of the result.

        An operator without parameters may have its values in NumPy, and on another device than the factor.
        """
        if self.dtype is not None:
            if not self.operator._arrays():
                values = xp.asarray(values, device=self.device)
            values = in_precision(values, precision_of(self.dtype, xp), xp)
        return scale_array(values, abs(self.factor) if absolute else self.factor, 1, xp)

    def _determinant_factors(self, xp: Namespace) -> Array:
        inner = values_of(self.operator, self, xp, lambda part, own: part._determinant_factors(own))
        ones = xp.ones(self.shape[0], dtype=inner.dtype, device=device_of(inner))
        return concat_last([inner, self._times_factor(ones, xp)], xp)

    def _slogdet(self, xp: Namespace) -> tuple[Array, Array]:
        sign, log = values_of(self.operator, self, xp, lambda part, own: part._slogdet(own))
        return self._times_power(sign, log, xp)

    def _slogdet_and_error(self, xp: Namespace) -> tuple[Array, Array, Array]:
        sign, log, error = values_of(self.operator, self, xp, lambda part, own: part._slogdet_and_error(own))
        sign, log = self._times_power(sign, log, xp)
        return sign, log, xp.broadcast_to(error, log.shape)  # the factor may have a batch that the operator has not

    def _times_power(self, sign: Array, log: Array, xp: Namespace) -> tuple[Array, Array]:
        """Return sign and logarithm of a determinant times the power of the factor by which the operator has it."""
        ones = xp.ones(self.shape[0], dtype=sign.dtype, device=device_of(sign))
        own_sign, own_log = sign_and_log(self._times_factor(ones, xp), xp)
        return sign * own_sign, log + own_log

    def _near(self, like: Array, xp: Namespace) -> Near:
        near = self.operator._near(like, xp)

        def circulant() -> NearCirculant | None:
            found = near.circulant()
            return None if found is None else found._replace(c=scale_array(found.c, self.factor, 1, xp))

        def noisy_toeplitz() -> tuple[Any, Array | None] | None:
            found = near.noisy_toeplitz()
            if found is None:
                return None
            T, d = found
            own = None if T is None else scale(T, self.factor)
            return own, None if d is None else scale_array(d, self.factor, 1, xp)

        whole = self if near.chosen is None else scale(near.whole, self.factor)
        return Near(whole, near.chosen, circulant, noisy_toeplitz=noisy_toeplitz)

    def _diagonal(self, xp: Namespace) -> Array:
        return self._times_factor(self.operator._diagonal(xp), xp)

    def _eigvals(self, xp: Namespace) -> Array:
        return self._times_factor(self.operator._eigvals(xp), xp)

    def _eig(self, xp: Namespace) -> tuple[Array, LinearOperator]:
        values, vectors = self.operator._eig(xp)
        return self._times_factor(values, xp), vectors

    def _orthonormal_eig(self, xp: Namespace) -> tuple[Array, LinearOperator, bool]:
        values, vectors, real = self.operator._orthonormal_eig(xp)
        return self._times_factor(values, xp), vectors, real and not is_complex_scalar(self.factor, xp)

    def _svdvals(self, xp: Namespace) -> Array:
        return self._times_factor(self.operator._svdvals(xp), xp, absolute=True)

    def _rounding(self, xp: Namespace) -> float:
        return self.operator._rounding(xp)

    def _norm(self, ord: NormOrder, xp: Namespace) -> Array:
        if self.operator._arrays():
            return scale_array(self.operator._norm(ord, xp), abs(self.factor), 0, xp)
        inner: Any = self.operator._norm(ord, self.operator._own_namespace())
        return xp.asarray(abs(self.factor) * float(inner))  # as a Python number it takes any precision

    def _spectral_function(self, function: SpectralFunction, xp: Namespace) -> LinearOperator:
        if not isinstance(self.operator, Identity):
            raise NoClosedFormError(self)
        evaluated = self._apply_to_factor(lambda values, own: function_of_entries(function, values, "Scaled", own))
        return Scaled(self.operator, evaluated)


def identity_factor(operator: LinearOperator) -> Scalar | None:
    """Return s where an operator is ``s * Identity``, else None.

    Parameters
    ----------
    operator : LinearOperator
        Any operator.

    Returns
    -------
    number, array or None
        The number, or an array of one for each member of a stack.

    Examples
    --------
    >>> import structmat as sm
    >>> from structmat.extend import identity_factor
    >>> identity_factor(3 * sm.Identity(2)), identity_factor(sm.Fourier(2))
    (3, None)
    """
    if isinstance(operator, Identity):
        return 1
    if isinstance(operator, Scaled) and isinstance(operator.operator, Identity):
        return operator.factor
    return None


def _as_scalar(factor: Scalar) -> Scalar:
    """Return a factor that was computed from others: a Python number or an array, which may have no axes.

    NumPy returns its own scalars in place of arrays without axes: of these arrays are made again.
    """
    return np.asarray(factor) if isinstance(factor, np.generic) else factor


@compose.rule(Scaled, object)
def _scaled_times(left: Scaled, right: LinearOperator) -> LinearOperator:
    return scale(compose(left.operator, right), left.factor)


@compose.rule(object, Scaled)
def _times_scaled(left: LinearOperator, right: Scaled) -> LinearOperator:
    return scale(compose(left, right.operator), right.factor)


compose.rule(Scaled, Identity)(times_identity)


@add.rule(Identity, Identity)
@add.rule(Identity, Scaled)
@add.rule(Scaled, Scaled)
def _add_identities(left: LinearOperator, right: LinearOperator) -> LinearOperator:
    a, b = identity_factor(left), identity_factor(right)
    return NotImplemented if a is None or b is None else scale(Identity(left.shape[0]), _as_scalar(a + b))


@scale.rule(object, object)
def _lazy_multiple(operator: LinearOperator, factor: Scalar | Reciprocal) -> LinearOperator:
    return Scaled(operator, _as_scalar(1 / factor.divisor) if isinstance(factor, Reciprocal) else factor)


@scale.rule(Scaled, object)
def _scale_again(operator: Scaled, factor: Scalar | Reciprocal) -> LinearOperator:
    own = operator.factor
    if not isinstance(own, (int, float, complex)):
        return Scaled(operator.operator, _as_scalar(scale_array(own, factor, 0, namespace_of("Scaled", own))))
    if isinstance(factor, Reciprocal):
        return Scaled(operator.operator, _as_scalar(_number_divided(own, factor.divisor)))
    return Scaled(operator.operator, _as_scalar(own * factor))


def _number_divided(number: Any, divisor: Any) -> Any:
    """Return a number divided by another or by an array, for which torch would multiply by the reciprocal."""
    if isinstance(divisor, (int, float, complex)):
        return number / divisor
    xp = namespace_of("Scaled", divisor)
    return quotient(number * xp.ones_like(divisor), divisor, xp)  # which leaves JAX's scalars without a dtype alone
