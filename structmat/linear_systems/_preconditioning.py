"""Preconditioners and scalings that `solve` finds by itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from math import prod
from typing import Any, NamedTuple

from structmat._array_tools import (
    Array,
    Namespace,
    binary_exponents,
    constant,
    device_of,
    euclidean_norm,
    is_complex,
    library_of,
    scale_array,
)
from structmat.linear_systems._result import IterationSettings, probe, size_of
from structmat.operators import (
    BandedCirculant,
    Circulant,
    Diagonal,
    Identity,
    LinearOperator,
    MultilevelCirculant,
    MultilevelToeplitz,
    Prepared,
    Product,
    Scaled,
    SpectralCirculant,
    Sum,
    Toeplitz,
)
from structmat.preconditioners import chan

__all__ = ["ScaledSystem", "preconditioner"]


class ScaledSystem(NamedTuple):
    """A system ``A x = b`` of moderate size; the division is exact."""

    operator: LinearOperator
    b: Array
    size: Array
    """The power of two that the matrix was divided by, one for each member of a stack."""
    of_b: Array
    """Those of the right-hand sides, as a column."""

    @classmethod
    def of(cls, operator: LinearOperator, b: Array, xp: Namespace) -> ScaledSystem:
        """Return the scaled system of an operator in the precision of computations; costs one product."""
        size = _size(operator, b, xp)
        of_b = _power_of_two(b, xp)[..., None]
        return cls(operator / size, b / of_b, size, of_b)

    def scaled(self, M: LinearOperator, xp: Namespace) -> LinearOperator:
        """Return a preconditioner of moderate size, as solvers do not ask for its scale; costs one product."""
        scaled: LinearOperator = M / _size(M, self.b, xp)
        return scaled

    def solution(self, x: Array) -> Array:
        """Return the solution of the system itself."""
        return x * (self.of_b / self.size[..., None])


def _size(operator: LinearOperator, like: Array, xp: Namespace) -> Array:
    """Return a power of two near the norm of each member of a stack."""
    v = probe(operator, like, xp)
    return _power_of_two(operator._matvec(v / size_of(v, xp), xp), xp)


def _power_of_two(v: Array, xp: Namespace) -> Array:
    """Return powers of two near the largest entries of vectors, one for zeros and what is no number.

    Their reciprocals are normal numbers too. They have no derivatives, as solutions are multiplied by them again.
    """
    limit = 1 - math.frexp(float(xp.finfo(v.dtype).smallest_normal))[1]
    exponents = binary_exponents(xp.max(xp.abs(constant(v, xp)), axis=-1), xp)
    return 2.0 ** xp.clip(exponents, -limit, limit)


_SMALLEST = 1e-6
"""Eigenvalues of a preconditioner are kept above this size, relative to the largest."""


def preconditioner(system: ScaledSystem, settings: IterationSettings, xp: Namespace) -> LinearOperator | None:
    """Return the preconditioner that is asked for, the one near the inverse of the matrix where that is "nearest"."""
    if settings.preconditioner == "nearest":
        return _nearest(system.operator, system.b, xp, positive=settings.assume != "general")
    given: LinearOperator | None = settings.preconditioner
    return None if given is None else system.scaled(given, xp)


def _nearest(operator: LinearOperator, like: Array, xp: Namespace, *, positive: bool) -> LinearOperator | None:
    """Return the inverse of the circulant or diagonal matrix nearest to a square operator in the Frobenius norm.

    Parameters
    ----------
    operator : LinearOperator
        In the precision of computations.
    like : array
        A right-hand side, for dtype and device.
    xp : namespace
        Theirs.
    positive : bool
        Whether the eigenvalues are replaced by their moduli, so that the preconditioner is positive definite.

    Returns
    -------
    LinearOperator or None
        None where neither the cyclic nor the main diagonal of the operator can be had without its dense matrix.

    Notes
    -----
    Both are orthogonal projections, so the nearer of the two is the one of the larger norm. JAX gets the circulant
    wherever there is one, as values may be traced.
    """
    sizes = _levels(operator)
    column, diagonal = _column(operator, sizes, like, xp), _main_diagonal(operator, xp)
    if column is not None and diagonal is not None and library_of(xp) != "jax":
        gain = operator.shape[0] * euclidean_norm(column, xp) ** 2 - euclidean_norm(diagonal, xp) ** 2
        column = column if float(xp.sum(gain)) >= 0.0 else None
    if column is not None and len(sizes) > 1:
        grid = MultilevelCirculant(column, sizes)
        return grid._with_spectrum(
            _reciprocals(grid._eigvals(xp), xp, positive=positive), xp, real=not is_complex(column.dtype, xp)
        )
    if column is not None:
        circulant = Circulant(column).to_spectral()
        inverse = _reciprocals(circulant._eigenvalues(xp), xp, positive=positive)
        return SpectralCirculant(inverse, circulant.n, circulant.real)
    return None if diagonal is None else Diagonal(_reciprocals(diagonal, xp, positive=positive))


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
    return (xp.conj(phase) if is_complex(values.dtype, xp) else phase) * inverse


def _main_diagonal(operator: LinearOperator, xp: Namespace) -> Array | None:
    try:
        return operator._diagonal("diagonal", xp)
    except NotImplementedError:
        return None


def _levels(operator: Any) -> tuple[int, ...]:
    """Return the sizes of the levels of the circulants that an operator is made of."""
    match operator:
        case MultilevelCirculant():
            return operator.sizes
        case MultilevelToeplitz() if operator.row_sizes == operator.col_sizes:
            return operator.row_sizes
        case Prepared() | Scaled():
            return _levels(operator.operator)
        case Sum() | Product():
            parts = operator.terms if isinstance(operator, Sum) else operator.factors
            return max((_levels(part) for part in parts), key=len)
        case _:
            return (operator.shape[0],)


def _column(operator: Any, sizes: tuple[int, ...], like: Array, xp: Namespace) -> Array | None:
    """Return the first column of a circulant of these levels near an operator, of the nearest one but for products."""
    if operator.shape != (prod(sizes), prod(sizes)):
        return None
    match operator:
        case Prepared():
            return _column(operator.operator, sizes, like, xp)
        case Scaled():
            inner = _column(operator.operator, sizes, like, xp)
            return None if inner is None else scale_array(inner, operator.factor, 1, xp)
        case Sum():
            return _joined(operator.terms, lambda c, other: c + other, sizes, like, xp)
        case Product():
            multiply = lambda c, other: _circulant(c, sizes).matvec(other)  # noqa: E731  # as for sums
            return _joined(operator.factors, multiply, sizes, like, xp)
        case _:
            return _column_of_one(operator, sizes, like, xp)


def _column_of_one(operator: Any, sizes: tuple[int, ...], like: Array, xp: Namespace) -> Array | None:
    """Return the first column of the nearest circulant to an operator that is not made of others."""
    first = xp.arange(operator.shape[0], device=device_of(like)) == 0
    unit = xp.astype(first, like.dtype)
    match operator:
        case Identity():
            return unit
        case Diagonal():
            return xp.mean(operator.d, axis=-1, keepdims=True) * unit
        case MultilevelCirculant() if operator.sizes == sizes:
            return operator.c
        case Circulant() | SpectralCirculant() | BandedCirculant() if len(sizes) == 1:
            return operator._matvec(xp.astype(first, operator.dtype), xp)
        case Toeplitz() if len(sizes) == 1:
            return chan(operator).c
        case MultilevelToeplitz() if operator.row_sizes == operator.col_sizes == sizes:
            return chan(operator).c
        case _:
            return None


def _circulant(column: Array, sizes: tuple[int, ...]) -> LinearOperator:
    return Circulant(column) if len(sizes) == 1 else MultilevelCirculant(column, sizes)


def _joined(
    parts: tuple[LinearOperator, ...],
    join: Callable[[Array, Array], Array],
    sizes: tuple[int, ...],
    like: Array,
    xp: Namespace,
) -> Array | None:
    """Return what becomes of the first columns of all parts, None where one of them has none."""
    columns = [_column(part, sizes, like, xp) for part in parts]
    known = [column for column in columns if column is not None]
    return reduce(join, known) if len(known) == len(columns) else None
