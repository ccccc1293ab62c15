"""Products of operators that are of no one family, lists of their factors, and powers of operators."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from typing import Any

from structmat._arrays.libraries import namespace_of
from structmat._arrays.typing import Scalar
from structmat.operators._base.arithmetic import compose, power, scale
from structmat.operators._base.combination import combined, flat
from structmat.operators._base.linear_operator import LinearOperator
from structmat.operators._composed.chain import Chain
from structmat.operators._composed.prepared import Prepared, prepared_by
from structmat.operators._composed.scaled import Scaled
from structmat.operators._families.diagonal import Identity, times_identity


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
        self._set_parts(flat(factors, Product), factors)

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


compose.rule(Product, Identity)(times_identity)
compose.rule(Product, Prepared)(prepared_by(compose))


@scale.rule(Product, object)
def _scale_one_factor(operator: Product, factor: Scalar) -> LinearOperator:
    for i, f in enumerate(operator.factors):
        scaled = scale.merge(f, factor)
        if scaled is not NotImplemented:
            return Product((*operator.factors[:i], scaled, *operator.factors[i + 1 :]))
    return NotImplemented


@power.rule(object, object)
def _power(operator: Any, k: int) -> Any:
    """Return the power by eigenvalues where the family has them, else by repeated squaring."""
    if k == 0:
        return _ones(operator)
    with suppress(NotImplementedError):  # raised where there is no closed form
        return operator.fractional_matrix_power(k)
    result: LinearOperator = Identity(operator.shape[0])
    base = operator.inv() if k < 0 else operator
    for bit in f"{abs(k):b}":
        result = result @ result
        if bit == "1":
            result = result @ base
    return result


def _ones(operator: LinearOperator) -> LinearOperator:
    """Return the identity with the size, batch axes, library, dtype and device of an operator."""
    arrays = operator._arrays()
    if not arrays:
        return Identity(operator.shape[0])
    xp = namespace_of(type(operator).__name__, *arrays)
    return Scaled(
        Identity(operator.shape[0]), xp.ones(operator.batch_shape, dtype=operator.dtype, device=operator.device)
    )
