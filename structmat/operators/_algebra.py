"""Operators made of operators (Product, Sum, Scaled) and the fall-back rules.

A pair for which no family has a rule becomes a lazy Product or Sum here; nothing is ever multiplied out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from structmat._arrays.arrays import (
    as_floating,
    broadcast_shapes,
    common_dtype,
    complex_partner,
    concat_last,
    device_of,
    is_complex,
    is_complex_scalar,
    namespace_of,
)
from structmat._arrays.arrays import (
    scale as scale_array,
)
from structmat._arrays.dispatch import add, compose, scale
from structmat._arrays.typing import Array, DType, Namespace, Scalar
from structmat._engine import Settings
from structmat.operators._base import Context, LinearOperator
from structmat.operators._functions import SpectralFunction
from structmat.operators._identity import Identity

__all__ = ["Chain", "Product", "Scaled", "Sum", "identity_factor"]


def _require_operators(owner: str, operators: tuple[Any, ...]) -> None:
    if not operators:
        raise ValueError(f"{owner} needs at least one operator")
    for op in operators:
        if not isinstance(op, LinearOperator):
            raise TypeError(f"{owner} takes structmat operators, got {type(op).__name__}")
    if arrays := [array for op in operators for array in op._arrays()]:
        namespace_of(owner, *arrays)
    broadcast_shapes(owner, *(op.batch_shape for op in operators))


def _common(operators: tuple[LinearOperator, ...]) -> DType:
    """Return the dtype of a combination; None while every member fits any dtype."""
    arrays = [array for op in operators for array in op._arrays()]
    if not arrays:
        return None
    xp = namespace_of("operators", arrays[0])
    dtype = common_dtype(xp, *(op.dtype for op in operators))
    return complex_partner(dtype, xp) if any(op._forces_complex for op in operators) else dtype


class Chain(LinearOperator):
    """What every product of operators shares; a subclass has the field `factors`."""

    __slots__ = ()
    _core_axes = {"factors": None}

    if TYPE_CHECKING:
        factors: tuple[LinearOperator, ...]

    def _checked_factors(self) -> tuple[LinearOperator, ...]:
        """Return the factors as a tuple after the checks that every product needs."""
        owner = type(self).__name__
        factors = tuple(self.factors)
        _require_operators(owner, factors)
        for left, right in pairwise(factors):
            if left.shape[1] != right.shape[0]:
                raise ValueError(f"{owner}: inner sizes differ, {left.shape} @ {right.shape}")
        return factors

    @property
    def shape(self) -> tuple[int, int]:
        """Rows of the first factor and columns of the last."""
        return (self.factors[0].shape[0], self.factors[-1].shape[1])

    @property
    def dtype(self) -> DType:
        """The common dtype of the factors."""
        return _common(self.factors)

    @property
    def _forces_complex(self) -> bool:
        return any(f._forces_complex for f in self.factors)

    def _described(self) -> str:
        return "the product " + " @ ".join(f"{type(f).__name__}{f.shape}" for f in self.factors)

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        for factor in reversed(self.factors):
            x = factor._matvec(x, xp)
        return x

    def _rmatvec(self, y: Array, xp: Namespace) -> Array:
        for factor in self.factors:
            y = factor._rmatvec(y, xp)
        return y

    def _plan(self, how: Settings, xp: Namespace) -> LinearOperator:
        return Product(tuple(f._plan(how, xp) for f in self.factors))

    def _transpose(self) -> LinearOperator:
        return type(self)(tuple(f._transpose() for f in reversed(self.factors)))  # type: ignore[call-arg]

    def _conj(self) -> LinearOperator:
        return type(self)(tuple(f._conj() for f in self.factors))  # type: ignore[call-arg]

    def _to_dense(self, like: Context) -> Array:
        last = self.factors[-1]._to_dense(like)
        return reduce(lambda M, factor: factor._matmat(M, like.xp), reversed(self.factors[:-1]), last)

    def _require_square_factors(self, method: str) -> None:
        if any(f.shape[0] != f.shape[1] for f in self.factors):
            raise self._no_closed_form(method)

    def _inv(self, xp: Namespace) -> LinearOperator:
        self._require_square_factors("inv")
        return reduce(compose, (f._inv(xp) for f in reversed(self.factors)))

    def _solve(self, b: Array, xp: Namespace) -> Array:
        self._require_square_factors("solve")
        return reduce(lambda x, factor: factor._solve(x, xp), self.factors, b)

    def _determinant_factors(self, method: str, xp: Namespace) -> Array:
        self._require_square_factors(method)
        return concat_last([f._determinant_factors(method, xp) for f in self.factors], xp)


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Product(Chain):
    """The product of operators, ``factors[0] @ factors[1] @ ...``, kept as its factors.

    Parameters
    ----------
    factors : sequence of LinearOperator
        In the order of the matrix product; inner sizes must agree.

    Raises
    ------
    TypeError
        If a factor is no operator, or the factors come from different array libraries.
    ValueError
        If there is no factor, inner sizes differ, or batch axes do not broadcast.

    Notes
    -----
    A product with a vector costs the sum of the factors' costs. `inv`, `solve`, `det` and `slogdet` go through the
    factors when these are square; other linear algebra has no closed form.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> A = sm.Product([sm.Diagonal(np.array([1.0, 2.0])), sm.Circulant(np.array([1.0, 1.0]))])
    >>> A.to_dense()
    array([[1., 1.],
           [2., 2.]])
    """

    factors: tuple[LinearOperator, ...]
    """The factors, left to right."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", self._checked_factors())

    def _details(self) -> str:
        return " @ ".join(type(f).__name__ for f in self.factors) + ", "


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Sum(LinearOperator):
    """The sum of operators, ``terms[0] + terms[1] + ...``, kept as its terms.

    Parameters
    ----------
    terms : sequence of LinearOperator
        Operators of equal shape.

    Raises
    ------
    TypeError
        If a term is no operator, or the terms come from different array libraries.
    ValueError
        If there is no term, shapes differ, or batch axes do not broadcast.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> (sm.Circulant(np.array([0.0, 1.0])) + sm.Diagonal(np.array([2.0, 3.0]))).to_dense()
    array([[2., 1.],
           [1., 3.]])
    """

    _core_axes = {"terms": None}

    terms: tuple[LinearOperator, ...]
    """The terms."""

    def __post_init__(self) -> None:
        terms = tuple(self.terms)
        _require_operators("Sum", terms)
        if len({t.shape for t in terms}) > 1:
            raise ValueError(f"Sum: shapes differ, {' + '.join(str(t.shape) for t in terms)}")
        object.__setattr__(self, "terms", terms)

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of every term."""
        return self.terms[0].shape

    @property
    def dtype(self) -> DType:
        """The common dtype of the terms."""
        return _common(self.terms)

    @property
    def _forces_complex(self) -> bool:
        return any(t._forces_complex for t in self.terms)

    def _details(self) -> str:
        return " + ".join(type(t).__name__ for t in self.terms) + ", "

    def _described(self) -> str:
        return "a sum of " + " + ".join(type(t).__name__ for t in self.terms)

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        return reduce(lambda y, term: y + term._matvec(x, xp), self.terms[1:], self.terms[0]._matvec(x, xp))

    def _rmatvec(self, y: Array, xp: Namespace) -> Array:
        return reduce(lambda x, term: x + term._rmatvec(y, xp), self.terms[1:], self.terms[0]._rmatvec(y, xp))

    def _plan(self, how: Settings, xp: Namespace) -> LinearOperator:
        return Sum(tuple(t._plan(how, xp) for t in self.terms))

    def _transpose(self) -> LinearOperator:
        return Sum(tuple(t._transpose() for t in self.terms))

    def _conj(self) -> LinearOperator:
        return Sum(tuple(t._conj() for t in self.terms))

    def _to_dense(self, like: Context) -> Array:
        return reduce(lambda M, term: M + term._to_dense(like), self.terms[1:], self.terms[0]._to_dense(like))

    def _diagonal(self, method: str, xp: Namespace) -> Array:
        first, *rest = (t._diagonal(method, xp) for t in self.terms)
        return reduce(lambda d, other: d + other, rest, first)


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
        _require_operators("Scaled", (self.operator,))
        if not isinstance(self.factor, (int, float, complex)):
            arrays = self.operator._arrays()
            like = (namespace_of("Scaled: factor", *arrays), self.operator.dtype) if arrays else None
            object.__setattr__(self, "factor", as_floating(self.factor, "Scaled: factor", like=like))

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

    def _plan(self, how: Settings, xp: Namespace) -> LinearOperator:
        return Scaled(self.operator._plan(how, xp), self.factor)

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


def _join(left: tuple[LinearOperator, ...], right: tuple[LinearOperator, ...]) -> LinearOperator:
    """Return the product of two chains, merged where they touch if a family has a rule for it."""
    merged = compose.merge(left[-1], right[0])
    if merged is NotImplemented:
        return Product(left + right)
    result = reduce(compose, right[1:], merged)
    return _join(left[:-1], (result,)) if len(left) > 1 else result


@compose.rule(object, object)
def _lazy_product(left: LinearOperator, right: LinearOperator) -> LinearOperator:
    return Product((left, right))


@compose.rule(Product, object)
def _append_factor(left: Product, right: LinearOperator) -> LinearOperator:
    return _join(left.factors, right.factors if isinstance(right, Product) else (right,))


@compose.rule(object, Product)
def _prepend_factor(left: LinearOperator, right: Product) -> LinearOperator:
    return _join((left,), right.factors)


@compose.rule(Product, Identity)
@compose.rule(Scaled, Identity)
def _combination_times_identity(left: LinearOperator, right: Identity) -> LinearOperator:  # noqa: ARG001
    return left


@compose.rule(Identity, Product)
@compose.rule(Identity, Scaled)
def _identity_times_combination(left: Identity, right: LinearOperator) -> LinearOperator:  # noqa: ARG001
    return right


@compose.rule(Scaled, object)
def _scaled_times(left: Scaled, right: LinearOperator) -> LinearOperator:
    return scale(compose(left.operator, right), left.factor)


@compose.rule(object, Scaled)
def _times_scaled(left: LinearOperator, right: Scaled) -> LinearOperator:
    return scale(compose(left, right.operator), right.factor)


@add.rule(object, object)
def _lazy_sum(left: LinearOperator, right: LinearOperator) -> LinearOperator:
    return Sum((left, right))


@add.rule(Sum, object)
def _extend_sum(left: Sum, right: LinearOperator) -> LinearOperator:
    if isinstance(right, Sum):
        return reduce(add, right.terms, left)
    for i, term in enumerate(left.terms):
        if (merged := add.merge(term, right)) is not NotImplemented:
            return Sum((*left.terms[:i], merged, *left.terms[i + 1 :]))
    return Sum((*left.terms, right))


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


@scale.rule(Sum, object)
def _scale_terms(operator: Sum, factor: Scalar) -> LinearOperator:
    return Sum(tuple(scale(term, factor) for term in operator.terms))


@scale.rule(Product, object)
def _scale_one_factor(operator: Product, factor: Scalar) -> LinearOperator:
    for i, f in enumerate(operator.factors):
        if (scaled := scale.merge(f, factor)) is not NotImplemented:
            return Product((*operator.factors[:i], scaled, *operator.factors[i + 1 :]))
    return Scaled(operator, factor)
