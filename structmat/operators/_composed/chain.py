"""A product of operators: what follows for it from its factors."""

from __future__ import annotations

from functools import reduce
from itertools import pairwise
from operator import add, is_, mul
from typing import TYPE_CHECKING

from structmat._arrays.shapes import concat_last
from structmat._arrays.typing import Array, Namespace
from structmat._errors import ArgumentValueError
from structmat._nearest_circulants import product_of_circulants
from structmat.operators._base.arithmetic import compose
from structmat.operators._base.closed_forms import NoClosedFormError
from structmat.operators._base.combination import Combination
from structmat.operators._base.hooks import Context
from structmat.operators._base.linear_operator import LinearOperator
from structmat.operators._base.near import Near, NearCirculant, on_one_grid
from structmat.operators._base.parts import require_operators, sequence_of_parts, values_of


class Chain(Combination):
    """A product of operators, its field `factors`: products with vectors, inverses, solutions and determinants.

    A subclass is a frozen dataclass with this field. It checks it in its constructor and gives the factors that it
    keeps to ``_set_parts``.
    """

    _core_axes = {"factors": None}

    if TYPE_CHECKING:
        factors: tuple[LinearOperator, ...]

    def _checked_factors(self) -> tuple[LinearOperator, ...]:
        """Return the factors as a tuple after the checks that every product needs."""
        owner = type(self).__name__
        factors = sequence_of_parts(owner, "factors", self.factors)
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
        return (first.shape[0], rest[-1].shape[1]) if rest else first.shape  # once for each: factors may be nested

    def _described(self) -> str:
        return "the product " + " @ ".join(f"{type(f).__name__}{f.shape}" for f in self.factors)

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        for factor in reversed(self.factors):
            x = factor._matvec(x, xp)
        return x

    def _rmatvec(self, y: Array, xp: Namespace) -> Array:
        return reduce(lambda x, factor: factor._rmatvec(x, xp), self.factors, y)

    def _transpose(self) -> LinearOperator:
        return type(self)(tuple(f._transpose() for f in reversed(self.factors)))  # type: ignore[call-arg]

    def _conj(self) -> LinearOperator:
        factors = tuple(f._conj() for f in self.factors)
        return self if all(map(is_, factors, self.factors)) else type(self)(factors)  # type: ignore[call-arg]

    def _to_dense(self, like: Context) -> Array:
        last = self.factors[-1]._to_dense(like)
        return reduce(lambda M, factor: factor._matmat(M, like.xp), reversed(self.factors[:-1]), last)

    def _require_square_factors(self) -> None:
        if any(f.shape[0] != f.shape[1] for f in self.factors):
            raise NoClosedFormError(self)

    def _inv(self, xp: Namespace) -> LinearOperator:
        self._require_square_factors()
        return reduce(compose, (f._inv(xp) for f in reversed(self.factors)))

    def _solve(self, b: Array, xp: Namespace) -> Array:
        self._require_square_factors()
        return reduce(lambda x, factor: factor._solve(x, xp), self.factors, b)

    def _determinant_factors(self, xp: Namespace) -> Array:
        self._require_square_factors()
        factors = [values_of(f, self, xp, lambda part, own_xp: part._determinant_factors(own_xp)) for f in self.factors]
        return concat_last(factors, xp)

    def _near(self, like: Array, xp: Namespace) -> Near:
        """Return the product of the circulants near the factors, which need not be the nearest to the product."""
        if any(factor.shape != self.shape for factor in self.factors):
            return Near(self)
        parts = [factor._near(like, xp) for factor in self.factors]

        def circulant() -> NearCirculant | None:
            found = on_one_grid(parts)
            if found is None:
                return None
            columns, sizes = found
            return NearCirculant(product_of_circulants(columns, sizes or self.shape[:1], xp), sizes)

        return Near(self, circulant=circulant)

    def _slogdet(self, xp: Namespace) -> tuple[Array, Array]:
        self._require_square_factors()
        pairs = (values_of(f, self, xp, lambda part, own_xp: part._slogdet(own_xp)) for f in self.factors)
        signs, logs = zip(*pairs, strict=True)
        return reduce(mul, signs), reduce(add, logs)

    def _slogdet_and_error(self, xp: Namespace) -> tuple[Array, Array, Array]:
        self._require_square_factors()
        found = (values_of(f, self, xp, lambda part, own_xp: part._slogdet_and_error(own_xp)) for f in self.factors)
        signs, logs, errors = zip(*found, strict=True)
        return reduce(mul, signs), reduce(add, logs), reduce(add, errors)
