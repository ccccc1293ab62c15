"""Products of operators."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import mul
from typing import TYPE_CHECKING

from structmat._arrays import concat_last, namespace_of
from structmat._arrays.dispatch import compose, power, scale
from structmat._arrays.errors import ArgumentValueError
from structmat._arrays.typing import Array, Namespace, Scalar
from structmat._engine import Plan, Settings
from structmat.operators._base import Context, LinearOperator
from structmat.operators._combinations.parts import (
    Combination,
    combined,
    flat,
    plan_by_parts,
    require_operators,
    values_of,
)
from structmat.operators._combinations.scaled import Scaled
from structmat.operators._identity import Identity

__all__ = ["Chain", "Product"]


class Chain(Combination):
    """What every product of operators shares; a subclass has the field `factors`."""

    __slots__ = ()
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
                raise ArgumentValueError(
                    owner, "factors", f"must have inner sizes that agree, got {left.shape} @ {right.shape}"
                )
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

    def _plan(self, settings: Settings, xp: Namespace) -> Plan | None:
        return plan_by_parts(self.factors, Product, settings)

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
        return concat_last([values_of(f, self, xp, "_determinant_factors", method) for f in self.factors], xp)

    def _slogdet(self, xp: Namespace) -> tuple[Array, Array]:
        self._require_square_factors("slogdet")
        signs, logs = zip(*(values_of(f, self, xp, "_slogdet") for f in self.factors), strict=True)
        return reduce(mul, signs), sum(logs[1:], start=logs[0])


@dataclass(frozen=True, eq=False, repr=False, slots=True)
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
        If there is no factor, inner sizes differ, batch axes do not broadcast, or operators are nested too deep or
        are too many.

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


@compose.rule(Product, Identity)
@compose.rule(Scaled, Identity)
def _combination_times_identity(left: LinearOperator, right: Identity) -> LinearOperator:  # noqa: ARG001
    return left


@compose.rule(Identity, Product)
@compose.rule(Identity, Scaled)
def _identity_times_combination(left: Identity, right: LinearOperator) -> LinearOperator:  # noqa: ARG001
    return right


@power.rule(object, object)
def _power(operator: LinearOperator, k: int) -> LinearOperator:
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
