"""Scalar multiples of operators whose family is not closed under scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from structmat._arrays import (
    as_floating,
    common_dtype,
    complex_partner,
    concat_last,
    device_of,
    is_complex,
    is_complex_scalar,
    namespace_of,
    scale_array,
)
from structmat._arrays.dispatch import add, compose, scale
from structmat._arrays.typing import Array, DType, Namespace, Scalar
from structmat._engine import Plan, Settings
from structmat.operators._base import Context, LinearOperator, SpectralFunction
from structmat.operators._combinations.parts import plan_by_parts, require_operators
from structmat.operators._identity import Identity

__all__ = ["Scaled", "identity_factor"]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Scaled(LinearOperator):
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
        If `operator` is no operator, or `factor` no number of its array library.

    Examples
    --------
    >>> import structmat as sm
    >>> (3 * sm.Identity(2)).to_dense()
    array([[3., 0.],
           [0., 3.]])
    """

    _core_axes = {"operator": None, "factor": 0}

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
    def shape(self) -> tuple[int, int]:
        """The shape of the operator."""
        return self.operator.shape

    @property
    def dtype(self) -> DType:
        """The common dtype of operator and factor."""
        inner = self.operator.dtype
        if not isinstance(self.factor, (int, float, complex)):
            inner = common_dtype(namespace_of("Scaled", self.factor), inner, self.factor.dtype)
        return complex_partner(inner, self._own_namespace()) if self._forces_complex and inner is not None else inner

    @property
    def _forces_complex(self) -> bool:
        return type(self.factor) is complex or self.operator._forces_complex

    def _details(self) -> str:
        return f"{type(self.operator).__name__}, "

    def _described(self) -> str:
        return f"a multiple of {self.operator._described()}"

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        return scale_array(self.operator._matvec(x, xp), self.factor, 1, xp)

    def _plan(self, settings: Settings, xp: Namespace) -> Plan | None:
        return plan_by_parts((self.operator,), lambda parts: Scaled(parts[0], self.factor), settings)

    def _transpose(self) -> LinearOperator:
        return Scaled(self.operator._transpose(), self.factor)

    def _conj(self) -> LinearOperator:
        return Scaled(self.operator._conj(), _conjugate(self.factor))

    def _to_dense(self, like: Context) -> Array:
        return scale_array(self.operator._to_dense(like), self.factor, 2, like.xp)

    def _inv(self, xp: Namespace) -> LinearOperator:
        return scale(self.operator._inv(xp), 1 / self.factor)

    def _solve(self, b: Array, xp: Namespace) -> Array:
        return scale_array(self.operator._solve(b, xp), 1 / self.factor, 1, xp)

    def _determinant_factors(self, method: str, xp: Namespace) -> Array:
        inner = self.operator._determinant_factors(method, xp)
        ones = xp.ones(self.shape[0], dtype=inner.dtype, device=device_of(inner))
        return concat_last([inner, scale_array(ones, self.factor, 1, xp)], xp)

    def _diagonal(self, method: str, xp: Namespace) -> Array:
        return scale_array(self.operator._diagonal(method, xp), self.factor, 1, xp)

    def _eigvals(self, xp: Namespace) -> Array:
        return scale_array(self.operator._eigvals(xp), self.factor, 1, xp)

    def _eig(self, xp: Namespace) -> tuple[Array, LinearOperator]:
        values, vectors = self.operator._eig(xp)
        return scale_array(values, self.factor, 1, xp), vectors

    def _svdvals(self, xp: Namespace) -> Array:
        return scale_array(self.operator._svdvals(xp), abs(self.factor), 1, xp)

    def _modulus(self, power: int, xp: Namespace) -> LinearOperator:
        return scale(self.operator._modulus(power, xp), abs(self.factor) ** power)

    def _spectral_function(self, function: SpectralFunction, xp: Namespace) -> LinearOperator:
        if not isinstance(self.operator, Identity):
            raise self._no_closed_form(function.name)
        number = isinstance(self.factor, (int, float, complex))
        value = xp.asarray(self.factor)
        if function.needs_nonnegative and not is_complex_scalar(self.factor, xp) and bool(xp.any(value < 0)):
            value = xp.astype(value, xp.complex128)
        result: Any = function.evaluate(value)
        return Scaled(self.operator, result.item() if number else result)


def identity_factor(operator: LinearOperator) -> Scalar | None:
    """Return s where `operator` is ``s * Identity``, else None."""
    if isinstance(operator, Identity):
        return 1
    if isinstance(operator, Scaled) and isinstance(operator.operator, Identity):
        return operator.factor
    return None


def _conjugate(factor: Scalar) -> Scalar:
    if isinstance(factor, (int, float, complex)):
        return factor.conjugate()
    xp = namespace_of("Scaled", factor)
    return xp.conj(factor) if is_complex(factor.dtype, xp) else factor


@compose.rule(Scaled, object)
def _scaled_times(left: Scaled, right: LinearOperator) -> LinearOperator:
    return scale(compose(left.operator, right), left.factor)


@compose.rule(object, Scaled)
def _times_scaled(left: LinearOperator, right: Scaled) -> LinearOperator:
    return scale(compose(left, right.operator), right.factor)


@add.rule(Identity, Identity)
@add.rule(Identity, Scaled)
@add.rule(Scaled, Scaled)
def _add_identities(left: LinearOperator, right: LinearOperator) -> LinearOperator:
    a, b = identity_factor(left), identity_factor(right)
    return NotImplemented if a is None or b is None else scale(Identity(left.shape[0]), a + b)


@scale.rule(object, object)
def _lazy_multiple(operator: LinearOperator, factor: Scalar) -> LinearOperator:
    return Scaled(operator, factor)


@scale.rule(Scaled, object)
def _scale_again(operator: Scaled, factor: Scalar) -> LinearOperator:
    return Scaled(operator.operator, operator.factor * factor)
