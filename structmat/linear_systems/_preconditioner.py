"""The preconditioner that nobody has to give: the circulant or diagonal matrix nearest to an operator."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

from structmat._arrays.arithmetic import conjugate, euclidean_norm
from structmat._arrays.libraries import rules_of
from structmat._arrays.tracing import constant
from structmat._arrays.typing import Array, Namespace
from structmat.linear_systems._scaling import power_near_norm
from structmat.operators import (
    Circulant,
    Diagonal,
    Indices,
    LinearOperator,
    MultilevelCirculant,
    Submatrix,
    add,
)

_SMALLEST = 1e-6
"""Eigenvalues of a preconditioner are kept above this size, relative to the largest."""


def iterations_on_trial(max_iter: int, operator: LinearOperator) -> int:
    """Return how many iterations a preconditioner that nobody gave may take before it has to have helped.

    A submatrix of the inverse of a circulant may be singular although that of the circulant is not, unless the
    circulant is positive definite. So half of the iterations are left for the matrix alone, but at least one for each
    unknown is spent before.
    """
    return max(max_iter // 2, min(max_iter, operator.shape[0]))


def of_moderate_size(given: LinearOperator, like: Array, xp: Namespace) -> LinearOperator:
    """Return a preconditioner divided by a power of two near its norm; costs one product."""
    return given / power_near_norm(given, like, xp)


class Nearest(NamedTuple):
    """The circulant or diagonal matrix nearest to a square operator in the Frobenius norm."""

    eigenvalues: Array
    """As its kind of operator holds them: half of them where the other half is conjugate."""
    having: Callable[[Array], LinearOperator]
    """Returns the matrix of this kind that has other eigenvalues."""
    chosen: Indices | None
    """Where the operator is a principal submatrix, near that of a circulant: its rows and columns. All else is of the
    whole matrix then."""
    square: Array
    """The square of its norm, before rows and columns are chosen."""

    def positive(self, xp: Namespace) -> Array:
        """Return the moduli of the eigenvalues, bounded from below."""
        return 1 / _reciprocals(self.eigenvalues, xp, positive=True)

    def inverse(self, xp: Namespace, *, positive: bool) -> LinearOperator:
        """Return an inverse, of the submatrix one in place of it; its eigenvalues are bounded, or `positive` too."""
        inverse = self.having(_reciprocals(self.eigenvalues, xp, positive=positive))
        return inverse if self.chosen is None else Submatrix(inverse, self.chosen, self.chosen)


def inverse_of_nearest(
    operator: LinearOperator, like: Array, xp: Namespace, *, positive: bool
) -> LinearOperator | None:
    """Return the inverse of the nearest circulant or diagonal matrix, None where neither is to be had."""
    inverses = [where_used(near.inverse(xp, positive=positive), use, xp) for near, use in nearest(operator, like, xp)]
    return reduce(add, inverses) if inverses else None


def where_used(operator: LinearOperator, use: Array | None, xp: Namespace) -> LinearOperator:
    """Return a multiple of a matrix: itself, or zero where a traced boolean says that it is of no use."""
    if use is None:
        return operator
    return operator._map(lambda array, _: xp.where(use, array, xp.zeros_like(array)))


def nearest(operator: LinearOperator, like: Array, xp: Namespace) -> list[tuple[Nearest, Array | None]]:
    """Return the circulant or diagonal matrix nearest to a square operator, if it costs no dense matrix.

    `like` is a right-hand side, for dtype and device. Both are orthogonal projections, so the nearer of the two is the
    one of the larger norm, for all members of a stack together. JAX, where values may be traced, gets both, each with a
    boolean whether it is the nearer one; else there is none beside it.
    """
    operator, chosen = operator._whole()
    circulant, diagonal = _circulant(operator, chosen, like, xp), _diagonal(operator, chosen, xp)
    if circulant is None or diagonal is None:
        return [(near, None) for near in (circulant, diagonal) if near is not None]
    gain = circulant.square - diagonal.square
    is_circulant = xp.sum(constant(gain, xp)) >= 0.0
    if rules_of(xp).compiles:
        return [(circulant, is_circulant), (diagonal, ~is_circulant)]
    return [(circulant if bool(is_circulant) else diagonal, None)]


def _circulant(operator: LinearOperator, chosen: Indices | None, like: Array, xp: Namespace) -> Nearest | None:
    """Return the circulant near an operator, of as many levels as that has."""
    sizes, n = operator._circulant_levels(), operator.shape[0]
    column = operator._nearest_circulant(sizes, like, xp) if operator.shape == (n, n) else None
    if column is None:
        return None
    kind: Any = Circulant(column).to_spectral() if len(sizes) == 1 else MultilevelCirculant(column, sizes)
    found = kind._diagonalised(xp)
    return Nearest(
        eigenvalues=found.values,
        having=lambda values: kind._from_eigenvalues(found.with_values(values), xp),
        chosen=chosen,
        square=n * euclidean_norm(column, xp) ** 2,
    )


def _diagonal(operator: LinearOperator, chosen: Indices | None, xp: Namespace) -> Nearest | None:
    """Return the diagonal of an operator; of a submatrix its own, as no larger matrix is needed then."""
    try:
        diagonal = operator._diagonal(xp)
    except NotImplementedError:
        return None
    square = euclidean_norm(diagonal, xp) ** 2
    return Nearest(diagonal if chosen is None else chosen._gathered(diagonal, xp), Diagonal, None, square)


def _reciprocals(values: Array, xp: Namespace, *, positive: bool) -> Array:
    """Return reciprocals of values whose moduli are bounded from below, or of the moduli."""
    size = xp.abs(values)
    least = _SMALLEST * xp.max(size, axis=-1, keepdims=True)
    least = xp.where(least > 0.0, least, xp.ones_like(least))
    bounded = xp.where(size > least, size, least)
    inverse = 1 / bounded
    if positive:
        return inverse
    phase = xp.where(size > 0.0, values / xp.where(size > 0.0, size, xp.ones_like(size)), xp.ones_like(values))
    return conjugate(phase, xp) * inverse
