"""Operators made of operators: products, sums, multiples, and rows and columns by their indices."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise
from operator import is_, mul
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._arguments import as_floating
from structmat._arrays.arithmetic import Reciprocal, conjugate, reciprocal_above, require_nonzero, scale_array
from structmat._arrays.conversion import to_numpy
from structmat._arrays.dtypes import common_dtype, complex_partner, dtype_name, in_precision, precision_of
from structmat._arrays.libraries import device_of, is_array, is_torch, namespace_of
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.shapes import concat_last
from structmat._arrays.typing import Array, DType, Namespace, Scalar
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._fourier.plans import Plan
from structmat._fourier.steps import Step
from structmat.operators._diagonal import Diagonal, Identity, times_identity
from structmat.operators._linear_operator import (
    LinearOperator,
    NormOrder,
    SpectralFunction,
    function_of_entries,
    sign_and_log,
)
from structmat.operators._prepared import (
    ByHooks,
    Combination,
    CombinedPlan,
    Prepared,
    Wrapper,
    combined,
    flat,
    plan_of_parts,
    prepared_by,
    require_operators,
    values_of,
)
from structmat.operators._products import LATER, Context, add, compose, is_choice, nothing_chosen, range_of, scale


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
        return Scaled(self.operator._conj(), s.conjugate() if is_number else self._of_factor(conjugate))

    def _to_dense(self, like: Context) -> Array:
        return scale_array(self.operator._to_dense(like), self.factor, 2, like.xp)

    def _inv(self, xp: Namespace) -> LinearOperator:
        return scale(self.operator._inv(xp), self._divisor("inv"))

    def _solve(self, b: Array, xp: Namespace) -> Array:
        return scale_array(self.operator._solve(b, xp), self._divisor("solve"), 1, xp)

    def _pinv(self, rtol: float, xp: Namespace) -> LinearOperator:
        factor = self._of_factor(lambda values, own: reciprocal_above(values, 0.0, own))
        return scale(self.operator._pinv(rtol, xp), factor)

    def _damped_pinv(self, damp: float, xp: Namespace) -> LinearOperator:
        s = self.factor
        if not isinstance(s, (int, float, complex)) or not s:  # others may be of many members, or traced
            raise self._no_closed_form("lstsq")
        return scale(self.operator._damped_pinv(damp / abs(s), xp), self._divisor("lstsq"))

    def _has_pinv(self) -> bool:
        return self.operator._has_pinv()

    def _divisor(self, method: str) -> Reciprocal:
        """Return 1 / factor, after the check that it is not zero where values may be looked at."""

        def nonzero(values: Array, own: Namespace) -> Array:
            require_nonzero(values, 0.0, f"Scaled.{method}", own)
            return values

        return Reciprocal(self._of_factor(nonzero))

    def _of_factor(self, function: Callable[[Array, Namespace], Array]) -> Scalar:
        """Return a function of arrays and their namespace at the factor: for a number that of NumPy, and a number."""
        if not isinstance(self.factor, (int, float, complex)):
            return _kept(function(self.factor[..., None], namespace_of("Scaled", self.factor))[..., 0])
        values = np.asarray([self.factor])
        result: Any = function(values if values.dtype.kind == "c" else values.astype(float), numpy_namespace)
        return result[0].item()

    def _times_factor(self, values: Array, xp: Namespace, *, absolute: bool = False) -> Array:
        """Return values of the operator times the factor; what fits any dtype first takes the precision of it."""
        if self.dtype is not None:
            values = in_precision(values, precision_of(self.dtype, xp), xp)
        return scale_array(values, abs(self.factor) if absolute else self.factor, 1, xp)

    def _determinant_factors(self, method: str, xp: Namespace) -> Array:
        inner = self.operator._determinant_factors(method, xp)
        ones = xp.ones(self.shape[0], dtype=inner.dtype, device=device_of(inner))
        return concat_last([inner, self._times_factor(ones, xp)], xp)

    def _slogdet(self, xp: Namespace) -> tuple[Array, Array]:
        sign, log = self.operator._slogdet(xp)
        ones = xp.ones(self.shape[0], dtype=sign.dtype, device=device_of(sign))
        own_sign, own_log = sign_and_log(self._times_factor(ones, xp), xp)
        return sign * own_sign, log + own_log

    def _diagonal(self, method: str, xp: Namespace) -> Array:
        return self._times_factor(self.operator._diagonal(method, xp), xp)

    def _eigvals(self, xp: Namespace) -> Array:
        return self._times_factor(self.operator._eigvals(xp), xp)

    def _eig(self, xp: Namespace) -> tuple[Array, LinearOperator]:
        values, vectors = self.operator._eig(xp)
        return self._times_factor(values, xp), vectors

    def _svdvals(self, xp: Namespace) -> Array:
        return self._times_factor(self.operator._svdvals(xp), xp, absolute=True)

    def _rounding(self, xp: Namespace) -> float:
        return self.operator._rounding(xp)

    def _norm(self, ord: NormOrder, xp: Namespace) -> Array:
        if self.operator._arrays():
            return scale_array(self.operator._norm(ord, xp), abs(self.factor), 0, xp)
        inner: Any = self.operator._norm(ord, self.operator._own_namespace())
        return xp.asarray(abs(self.factor) * float(inner))  # a number takes any precision

    def _spectral_function(self, function: SpectralFunction, xp: Namespace) -> LinearOperator:
        if not isinstance(self.operator, Identity):
            raise self._no_closed_form(function.name)
        evaluated = self._of_factor(lambda values, own: function_of_entries(function, values, "Scaled", own))
        return Scaled(self.operator, evaluated)


def identity_factor(operator: LinearOperator) -> Scalar | None:
    """Return s where `operator` is ``s * Identity``, else None."""
    if isinstance(operator, Identity):
        return 1
    if isinstance(operator, Scaled) and isinstance(operator.operator, Identity):
        return operator.factor
    return None


def _kept(factor: Scalar) -> Scalar:
    """Return a factor that was computed of others; an array again where NumPy made a scalar of one without axes."""
    return np.asarray(factor) if isinstance(factor, np.generic) else factor


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
    return NotImplemented if a is None or b is None else scale(Identity(left.shape[0]), _kept(a + b))


@scale.rule(object, object)
def _lazy_multiple(operator: LinearOperator, factor: Scalar | Reciprocal) -> LinearOperator:
    return Scaled(operator, _kept(1 / factor.divisor) if isinstance(factor, Reciprocal) else factor)


@scale.rule(Scaled, object)
def _scale_again(operator: Scaled, factor: Scalar | Reciprocal) -> LinearOperator:
    own = operator.factor
    if not isinstance(own, (int, float, complex)):
        return Scaled(operator.operator, _kept(scale_array(own, factor, 0, namespace_of("Scaled", own))))
    return Scaled(operator.operator, _kept(own / factor.divisor if isinstance(factor, Reciprocal) else own * factor))


class Chain(Combination):
    """What every product of operators shares; a subclass has the field `factors`."""

    _core_axes = {"factors": None}

    if TYPE_CHECKING:
        factors: tuple[LinearOperator, ...]

    def _checked_factors(self) -> tuple[LinearOperator, ...]:
        """Return the factors as a tuple after the checks that every product needs."""
        owner = type(self).__name__
        factors = tuple(self.factors)
        require_operators(owner, "factors", factors)
        for left, right in pairwise(factors):
            if left.shape[1] != right.shape[0]:
                text = f"must have inner sizes that agree, got {left.shape} @ {right.shape}"
                raise ArgumentValueError(owner, "factors", text)
        return factors

    @property
    def shape(self) -> tuple[int, int]:
        """Rows of the first factor and columns of the last."""
        first, *rest = self.factors
        return (first.shape[0], rest[-1].shape[1]) if rest else first.shape  # asked once: factors may nest

    def _described(self) -> str:
        return "the product " + " @ ".join(f"{type(f).__name__}{f.shape}" for f in self.factors)

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        return reduce(lambda y, factor: factor._matvec(y, xp), reversed(self.factors), x)

    def _rmatvec(self, y: Array, xp: Namespace) -> Array:
        return reduce(lambda x, factor: factor._rmatvec(x, xp), self.factors, y)

    def _plan(self, xp: Namespace) -> Plan | None:
        return plan_of_parts(self.factors, xp)

    def _transpose(self) -> LinearOperator:
        return type(self)(tuple(f._transpose() for f in reversed(self.factors)))  # type: ignore[call-arg]

    def _conj(self) -> LinearOperator:
        factors = tuple(f._conj() for f in self.factors)
        return self if all(map(is_, factors, self.factors)) else type(self)(factors)  # type: ignore[call-arg]

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
        return concat_last([values_of(f, self, xp, "_determinant_factors", method) for f in self.factors], xp)

    def _slogdet(self, xp: Namespace) -> tuple[Array, Array]:
        self._require_square_factors("slogdet")
        signs, logs = zip(*(values_of(f, self, xp, "_slogdet") for f in self.factors), strict=True)
        return reduce(mul, signs), sum(logs[1:], start=logs[0])


@dataclass(frozen=True, eq=False, repr=False)
class Product(Chain):
    """The product of operators, ``factors[0] @ factors[1] @ ...``, kept as its factors.

    Parameters
    ----------
    factors : sequence of LinearOperator
        In the order of the matrix product; inner sizes must agree. Factors that are products are replaced by their
        factors.

    Raises
    ------
    TypeError
        If a factor is not an operator, or the factors come from different array libraries.
    ValueError
        If there is no factor, inner sizes differ, batch axes do not broadcast, or they hold too many arrays.

    Notes
    -----
    A product with a vector costs the sum of the factors' costs. `inv`, `solve`, `det` and `slogdet` use those of the
    factors if these are square; other linear algebra has no closed form.

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
        factors = self._checked_factors()
        self._hold(flat(factors, Product), factors)

    def _details(self) -> str:
        return " @ ".join(type(f).__name__ for f in self.factors) + ", "


@compose.rule(Product, object)
@compose.rule(object, Product)
def _join(left: LinearOperator, right: LinearOperator) -> LinearOperator:
    """Return the product of two chains, merged where they touch if a family has a rule for it."""
    lefts, rights = (op.factors if isinstance(op, Product) else (op,) for op in (left, right))
    merged = compose.merge(lefts[-1], rights[0])
    if merged is NotImplemented:
        return combined(Product, lefts + rights, (left, right))
    result = reduce(compose, rights[1:], merged)
    return compose(combined(Product, lefts[:-1], lefts[:-1]), result) if len(lefts) > 1 else result


@compose.rule(object, object)
def _lazy_product(left: LinearOperator, right: LinearOperator) -> LinearOperator:
    return Product((left, right))


for _combination in (Product, Scaled):
    compose.rule(_combination, Identity)(times_identity)
compose.rule(Product, Prepared)(prepared_by(compose))


def power(operator: Any, k: int) -> Any:
    """Return the power by eigenvalues where the family has them, else by repeated squaring."""
    if k == 0:
        return _ones(operator)
    with suppress(NotImplementedError):  # where there is no closed form, by products
        return operator.fractional_matrix_power(k)
    result: LinearOperator = Identity(operator.shape[0])
    base = operator.inv() if k < 0 else operator
    for bit in f"{abs(k):b}":
        result = result @ result
        if bit == "1":
            result = result @ base
    return result


LATER["power"] = power


def _ones(operator: LinearOperator) -> LinearOperator:
    """Return the identity with library, batch, dtype and device of an operator."""
    arrays = operator._arrays()
    if not arrays:
        return Identity(operator.shape[0])
    xp = namespace_of(type(operator).__name__, *arrays)
    return Scaled(
        Identity(operator.shape[0]), xp.ones(operator.batch_shape, dtype=operator.dtype, device=operator.device)
    )


@scale.rule(Product, object)
def _scale_one_factor(operator: Product, factor: Scalar) -> LinearOperator:
    for i, f in enumerate(operator.factors):
        if (scaled := scale.merge(f, factor)) is not NotImplemented:
            return Product((*operator.factors[:i], scaled, *operator.factors[i + 1 :]))
    return NotImplemented


@dataclass(frozen=True, eq=False, repr=False)
class Sum(Combination):
    """The sum of operators, ``terms[0] + terms[1] + ...``, kept as its terms.

    Parameters
    ----------
    terms : sequence of LinearOperator
        Operators of equal shape. Terms that are sums are replaced by their terms.

    Raises
    ------
    TypeError
        If a term is not an operator, or the terms come from different array libraries.
    ValueError
        If there is no term, shapes differ, batch axes do not broadcast, or they hold too many arrays.

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
        require_operators("Sum", "terms", terms)
        if len({t.shape for t in terms}) > 1:
            text = " + ".join(str(t.shape) for t in terms)
            raise ArgumentValueError("Sum", "terms", f"must have one shape, got {text}")
        self._hold(flat(terms, Sum), terms)

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of every term."""
        return self.terms[0].shape

    def _details(self) -> str:
        return " + ".join(type(t).__name__ for t in self.terms) + ", "

    def _described(self) -> str:
        return "a sum of " + " + ".join(type(t).__name__ for t in self.terms)

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        return reduce(lambda y, term: y + term._matvec(x, xp), self.terms[1:], self.terms[0]._matvec(x, xp))

    def _rmatvec(self, y: Array, xp: Namespace) -> Array:
        return reduce(lambda x, term: x + term._rmatvec(y, xp), self.terms[1:], self.terms[0]._rmatvec(y, xp))

    def _plan(self, xp: Namespace) -> Plan | None:
        return plan_of_parts(self.terms, xp, is_sum=True)

    def _transpose(self) -> LinearOperator:
        return Sum(tuple(t._transpose() for t in self.terms))

    def _conj(self) -> LinearOperator:
        terms = tuple(t._conj() for t in self.terms)
        return self if all(map(is_, terms, self.terms)) else Sum(terms)

    def _to_dense(self, like: Context) -> Array:
        return reduce(lambda M, term: M + term._to_dense(like), self.terms[1:], self.terms[0]._to_dense(like))

    def _diagonal(self, method: str, xp: Namespace) -> Array:
        first, *rest = (values_of(t, self, xp, "_diagonal", method) for t in self.terms)
        return reduce(lambda d, other: d + other, rest, first)

    def _whole(self) -> tuple[LinearOperator, Any]:
        found = [term._whole() for term in self.terms]
        chosen = next((rows for _, rows in found if rows is not None), None)
        wider: list[Any] = [op if rows is not None else _with_more_rows(op, chosen) for op, rows in found]
        if chosen is None or None in wider or any(rows not in {chosen, None} for _, rows in found):
            return self, None
        return reduce(add, wider), chosen


def _with_more_rows(operator: LinearOperator, chosen: Any) -> LinearOperator | None:
    """Return a diagonal matrix whose chosen rows are given, the mean of them in all others; None for other kinds."""
    if (factor := identity_factor(operator)) is not None and chosen is not None:
        return scale(Identity(chosen.size), factor)
    if not isinstance(operator, Diagonal) or chosen is None:
        return None
    xp = operator._own_namespace()
    return Diagonal(chosen._scattered(operator.d, xp, fill=xp.mean(operator.d, axis=-1, keepdims=True)))


@add.rule(object, object)
def _lazy_sum(left: LinearOperator, right: LinearOperator) -> LinearOperator:
    return Sum((left, right))


@add.rule(Sum, object)
def _extend_sum(left: Sum, right: LinearOperator) -> LinearOperator:
    terms, added = list(left.terms), right.terms if isinstance(right, Sum) else (right,)
    for new in added:
        for i, term in enumerate(terms):
            if (merged := add.merge(term, new)) is not NotImplemented:
                terms[i] = merged
                break
        else:
            terms.append(new)
    if len(terms) < len(left.terms) + len(added):
        return Sum(tuple(terms))
    return combined(Sum, tuple(terms), (left, right))


add.rule(Sum, Prepared)(prepared_by(add))


@scale.rule(Sum, object)
def _scale_terms(operator: Sum, factor: Scalar) -> LinearOperator:
    return Sum(tuple(scale(term, factor) for term in operator.terms))


@dataclass(frozen=True, eq=False)
class Indices:
    """Some of the rows or columns of a matrix, each at most once, in any order; they can be compared and hashed.

    Parameters
    ----------
    array : numpy.ndarray of int
        The indices, not negative.
    size : int
        The number of all rows or columns.

    Examples
    --------
    >>> import structmat as sm
    >>> A = sm.Fourier(4)[[3, 1]]
    >>> A.rows.array, A.rows.size, A.cols
    (array([3, 1]), 4, None)
    """

    array: Any
    """The indices, integers of NumPy."""
    size: int
    """The number of all rows or columns."""
    _places: Any = field(init=False, repr=False)
    """For each of these its place among the indices; for all others the number of indices."""
    _hash: int = field(init=False, repr=False)

    @classmethod
    def _of(cls, value: Any, size: int, owner: str, argument: str) -> Indices | None:
        """Return the indices that an array or a mask means; None for None, which stands for all."""
        if value is None or isinstance(value, cls):
            return value
        array = _index_values(value, owner, argument)
        if array.ndim == 1 and not array.size:
            raise nothing_chosen(owner, argument)
        if array.ndim != 1 or array.dtype.kind not in "biu":
            got = f"{array.dtype} of shape {array.shape}"
            raise ArgumentTypeError(owner, argument, f"must be a mask or integers along one axis, got {got}")
        if array.dtype.kind == "b":
            if len(array) != size:
                raise ArgumentValueError(owner, argument, f"must be a mask of length {size}, got {len(array)}")
            array = np.flatnonzero(array)
            if not array.size:
                raise nothing_chosen(owner, argument)
        if array.min() < -size or array.max() >= size:
            wrong = array[(array < -size) | (array >= size)][0]
            raise IndexError(f"{owner}: {argument} has {wrong}, which is none of the {size} indices")
        array = array.astype(np.int64)  # in which no sum of an index and the size overflows
        array = np.where(array < 0, array + size, array)
        if np.bincount(array, minlength=size).max() > 1:
            text = "must name each index at most once: average what was measured again"
            raise ArgumentValueError(owner, argument, text)
        return cls(array, size)

    def __len__(self) -> int:
        return len(self.array)

    def __post_init__(self) -> None:
        # now, as no compiler traces a property that is kept when it is first asked for
        places = np.full(self.size, len(self.array))
        places[self.array] = np.arange(len(self.array))
        object.__setattr__(self, "_places", places)
        object.__setattr__(self, "_hash", hash((self.size, self.array.tobytes())))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Indices) and self.size == other.size and np.array_equal(self.array, other.array)

    def _gathered(self, y: Array, xp: Namespace) -> Array:
        """Return the entries along the last axis at these indices."""
        return xp.take(y, xp.asarray(self.array, device=device_of(y)), axis=-1)

    def _scattered(self, x: Array, xp: Namespace, fill: Array | None = None) -> Array:
        """Return vectors with the given entries at these indices, and zero elsewhere, or `fill`, one for a vector."""
        last = xp.zeros_like(x[..., :1]) if fill is None else fill
        return xp.take(concat_last([x, last], xp), xp.asarray(self._places, device=device_of(x)), axis=-1)

    def _others(self) -> Indices | None:
        """Return all other rows or columns, in order; None where there are none."""
        others = np.flatnonzero(self._places == len(self.array))
        return Indices(others, self.size) if len(others) else None

    def _within(self, inner: Indices | None) -> Indices:
        """Return what these mean among others that were chosen before."""
        return self if inner is None else Indices(inner.array[self.array], inner.size)


def _index_values(value: Any, owner: str, argument: str) -> Any:
    """Return a mask or indices as an array of NumPy, of whatever dtype and shape they are."""
    if not is_array(value):
        try:
            return np.asarray(value)
        except (TypeError, ValueError) as error:
            text = f"must be a mask or integers along one axis: {error}"
            raise ArgumentTypeError(owner, argument, text) from error
    jax: Any = sys.modules.get("jax")
    known = not (is_torch(value) and value.is_meta) and not (jax is not None and isinstance(value, jax.core.Tracer))
    if known and not is_torch(value):
        return to_numpy(value)
    if known:
        with suppress(RuntimeError):  # of a tensor that vmap maps
            return _tensor_values(value)
    text = "must be known when the operator is made, got values of a trace, of vmap or on the device meta"
    raise ArgumentTypeError(owner, argument, text)


def _tensor_values(tensor: Any) -> Any:
    """Return the values of a tensor of torch, those of torch.func too, whose tensors have no memory to share."""
    if not sys.modules["torch"]._C._are_functorch_transforms_active():
        return to_numpy(tensor.detach())
    name = dtype_name(tensor.dtype)
    return np.asarray(tensor.detach().tolist(), name if name == "bool" or "int" in name else None)


def _take(y: Array, indices: Indices | None, xp: Namespace) -> Array:
    return y if indices is None else indices._gathered(y, xp)


def _put(x: Array, indices: Indices | None, xp: Namespace) -> Array:
    return x if indices is None else indices._scattered(x, xp)


@dataclass(frozen=True, eq=False, repr=False)
class SubmatrixPlan(CombinedPlan):
    """The plan of the whole matrix, its one part, between zeros put in and entries left out."""

    rows: Indices | None
    cols: Indices | None

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows and columns were chosen."""
        return _shape(self.parts[0].shape, self.rows, self.cols)

    def step(self, xp: Namespace, dtype: str, *, batched: bool) -> Step:
        product = self.parts[0].step(xp, dtype, batched=batched).product
        return Step(lambda x: _take(product(_put(x, self.cols, xp)), self.rows, xp))

    def apply(self, x: Array, xp: Namespace) -> Array:
        return _take(self.parts[0].apply(_put(x, self.cols, xp), xp), self.rows, xp)


@dataclass(frozen=True, eq=False, repr=False)
class Submatrix(Wrapper):
    """Some rows and columns of an operator, ``A[rows[:, None], cols]``, as returned by ``op[rows][:, cols]``.

    Parameters
    ----------
    operator : LinearOperator
        The whole matrix, or a stack of them.
    rows, cols : array of bool or int, optional
        A mask, or indices in any order, each at most once. Values, not traced ones, of any library. Default: all.

    Raises
    ------
    TypeError
        If `operator` is not an operator, or an index array has another dtype or several axes, or no known values.
    ValueError
        If a mask has another length, or nothing is chosen, or an index twice.
    IndexError
        If an index is out of range.

    See Also
    --------
    structmat.solve, structmat.slogdet : For the same rows and columns they use the structure of the whole matrix.

    Notes
    -----
    A product puts zeros in the place of the columns that were left out, multiplies by the whole matrix, and leaves out
    rows. So it costs as much as a product with the whole matrix.

    Examples
    --------
    The covariance matrix of a series with two gaps:

    >>> import numpy as np
    >>> import structmat as sm
    >>> T = sm.Toeplitz(0.5 ** np.arange(6))
    >>> observed = np.array([True, False, True, True, False, True])
    >>> A = T[observed][:, observed]
    >>> A
    Submatrix(Toeplitz(6, 6), shape=(4, 4), dtype=float64, device=cpu)
    >>> A.to_dense().round(5)
    array([[1.     , 0.25   , 0.125  , 0.03125],
           [0.25   , 1.     , 0.5    , 0.125  ],
           [0.125  , 0.5    , 1.     , 0.25   ],
           [0.03125, 0.125  , 0.25   , 1.     ]])
    """

    _core_axes = {"operator": None}

    operator: LinearOperator
    """The whole matrix."""
    rows: Any = None
    """The chosen rows, as `Indices`; None for all."""
    cols: Any = None
    """The chosen columns."""

    def __post_init__(self) -> None:
        require_operators("Submatrix", "operator", (self.operator,))
        for name, size in zip(("rows", "cols"), self.operator.shape, strict=True):
            object.__setattr__(self, name, Indices._of(getattr(self, name), size, "Submatrix", name))

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows and columns were chosen."""
        return _shape(self.operator.shape, self.rows, self.cols)

    def _details(self) -> str:
        return f"{type(self.operator).__name__}{self.operator.shape}, "

    def _described(self) -> str:
        return "rows and columns chosen by indices"

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        return _take(self.operator._matvec(_put(x, self.cols, xp), xp), self.rows, xp)

    def _rmatvec(self, y: Array, xp: Namespace) -> Array:
        return _take(self.operator._rmatvec(_put(y, self.rows, xp), xp), self.cols, xp)

    def _plan(self, xp: Namespace) -> SubmatrixPlan:
        return SubmatrixPlan((self.operator._plan(xp) or ByHooks(self.operator),), False, self.rows, self.cols)

    def _transpose(self) -> Submatrix:
        return Submatrix(self.operator._transpose(), self.cols, self.rows)

    def _whole(self) -> tuple[LinearOperator, Any]:
        return (self, None) if self.rows is None or self.rows != self.cols else (self.operator, self.rows)

    def _diagonal(self, method: str, xp: Namespace) -> Array:
        if self.rows != self.cols:
            raise self._no_closed_form(method)
        return _take(self.operator._diagonal(method, xp), self.rows, xp)


def _shape(whole: tuple[int, int], rows: Indices | None, cols: Indices | None) -> tuple[int, int]:
    return (whole[0] if rows is None else len(rows), whole[1] if cols is None else len(cols))


@scale.rule(Submatrix, object)
def _scale(operator: Submatrix, factor: Scalar | Reciprocal) -> Submatrix:
    return Submatrix(scale(operator.operator, factor), operator.rows, operator.cols)


def submatrix(operator: Any, *index: Any) -> Any:
    """Return ``operator[index]``, rows and columns, where one of the two is an array or a slice with a step."""
    owner = f"{type(operator).__name__}[i, j]"
    if all(is_choice(part) and not isinstance(part, slice) for part in index):
        text = "takes one array of indices at a time: op[rows][:, cols], as NumPy would pair them"
        raise ArgumentTypeError(owner, None, text)
    found: list[Indices | None] = []
    for part, size, name in zip(index, operator.shape, ("rows", "cols"), strict=True):
        chosen: Any = part if is_choice(part) else None
        if isinstance(part, slice) and part != slice(None):
            chosen = np.asarray(range_of(part, size, owner, name))
        found.append(Indices._of(chosen, size, owner, name))
    for k, part in enumerate(index):
        if not (is_choice(part) or isinstance(part, slice)):  # an integer: one row or column
            line = operator[:, part] if k else operator[part]
            return _take(line, found[1 - k], namespace_of(owner, line))
    if type(operator) is not Submatrix:
        return Submatrix(operator, *found)
    before = (operator.rows, operator.cols)
    return Submatrix(operator.operator, *(b if f is None else f._within(b) for f, b in zip(found, before, strict=True)))


LATER["submatrix"] = submatrix
