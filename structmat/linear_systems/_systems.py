"""Systems of moderate size with their preconditioners, what comes back, and when a solution is good enough."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from functools import reduce
from math import prod
from typing import Any, NamedTuple

import numpy as np

from structmat._array_tools import (
    Array,
    Namespace,
    binary_exponents,
    constant,
    device_of,
    euclidean_norm,
    is_complex,
    library_of,
    precision_of,
    scale_array,
)
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


class SolveResult(NamedTuple):
    """The solution of a linear system or of a least-squares problem.

    Examples
    --------
    >>> import structmat as sm
    >>> found = sm.solve(sm.Circulant([2.0, -1.0, 0.0]), [1.0, 0.0, 3.0])
    >>> found.x.round(6), bool(found.residual < 1e-15), found.iterations
    (array([1.428571, 0.714286, 1.857143]), True, 0)
    """

    x: Array
    """The solutions, shape ``(..., cols)``, or ``(..., cols, k)`` for right-hand sides in columns."""
    residual: Array
    """``norm(b - A x) / norm(b)``, computed from `x`; one number for each right-hand side."""
    iterations: int | None
    """How many iterations it took, the most of any right-hand side; 0 by a closed form, None where JAX iterates."""


class ConvergenceError(np.linalg.LinAlgError):
    """An iteration has not reached its tolerance.

    Parameters
    ----------
    text : str
        What was reached, and what to do.
    result : SolveResult
        The best solutions so far, which may be good enough.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> A = sm.Circulant(np.array([2.0, -1.0, 0.0, 0.0])) + sm.Diagonal(np.arange(4.0))
    >>> try:
    ...     sm.solve(A, np.ones(4), max_iter=1, preconditioner=None)
    ... except sm.ConvergenceError as error:
    ...     print(error.result.residual > 1e-10)
    True
    """

    __module__ = "structmat"  # where users find it, in tracebacks too

    def __init__(self, text: str, result: Any) -> None:
        super().__init__(text, result)
        self.text, self.result = text, result

    def __str__(self) -> str:
        return self.text


_POWERS = 3
"""Steps of the power method for a norm."""

_ROUNDING = 16.0
"""Residuals of this many units in the last place of what they are a difference of are rounding."""


class IterationSettings(NamedTuple):
    """How to iterate."""

    owner: str
    """The public function, for messages."""
    assume: str
    """What is known of the matrix."""
    preconditioner: Any
    """"nearest", None, or an operator."""
    rtol: float
    max_iter: int


LEAST_SQUARES = "least squares"
"""In the place of what is known of a square matrix."""

Measure = Callable[[Array, Array], "tuple[Array, Array]"]
"""From solution and residual to how good it is and whether that is enough, for each right-hand side."""


def relative_residual(rest: Array, b: Array, xp: Namespace) -> Array:
    """Return ``norm(rest) / norm(b)``, zero for zeros."""
    return euclidean_norm(rest, xp) / size_of(b, xp)[..., 0]


def by_residual(b: Array, settings: IterationSettings, xp: Namespace) -> Measure:
    """Return the test that the residual is small."""

    def measure(x: Array, rest: Array) -> tuple[Array, Array]:  # noqa: ARG001
        residual = relative_residual(rest, b, xp)
        return residual, residual <= settings.rtol

    return measure


def by_gradient(operator: LinearOperator, b: Array, norm: Array, settings: IterationSettings, xp: Namespace) -> Measure:
    """Return the test of Paige and Saunders: the residual is small, or orthogonal to the range up to the tolerance."""

    def measure(x: Array, rest: Array) -> tuple[Array, Array]:
        left, whole = euclidean_norm(rest, xp), euclidean_norm(b, xp)
        gradient = euclidean_norm(operator._rmatvec(rest, xp), xp)
        rounding = _ROUNDING * float(xp.finfo(left.dtype).eps) * (whole + norm * euclidean_norm(x, xp))
        small = left <= settings.rtol * whole
        return gradient, small | (gradient <= norm * (settings.rtol * left + rounding))

    return measure


def norm_of(operator: LinearOperator, b: Array, xp: Namespace) -> Array:
    """Return a lower bound of the largest singular value, near it, by some steps of the power method."""
    v = probe(operator, b, xp)
    for _ in range(_POWERS):
        v = operator._rmatvec(operator._matvec(v / size_of(v, xp), xp), xp)
    return euclidean_norm(operator._matvec(v / size_of(v, xp), xp), xp)


def probe(operator: LinearOperator, b: Array, xp: Namespace) -> Array:
    """Return a vector that a matrix can be multiplied by, with entries that have no order."""
    k = xp.astype(xp.arange(operator.shape[1], device=device_of(b)), precision_of(b.dtype, xp))
    return xp.astype(xp.cos(k * k) + 0.5, b.dtype)


def size_of(v: Array, xp: Namespace) -> Array:
    """Return norms as a column, one for zeros, by which vectors may be divided."""
    size = euclidean_norm(v, xp)[..., None]
    return xp.where(size > 0.0, size, xp.ones_like(size))


class System(NamedTuple):
    """A system ``A x = b`` of moderate size; the division is exact."""

    operator: LinearOperator
    b: Array
    size: Array
    """The power of two that the matrix was divided by, one for each member of a stack."""
    size_of_b: Array
    """Those of the right-hand sides, as a column."""

    @classmethod
    def of(cls, operator: LinearOperator, b: Array, xp: Namespace) -> System:
        """Return the system of an operator in the precision of computations; costs one product."""
        size, of_b = _size(operator, b, xp), _power_of_two(b, xp)[..., None]
        return cls(operator / size, b / of_b, size, of_b)

    def solution(self, x: Array) -> Array:
        """Return the solution of the system that was divided."""
        return x * (self.size_of_b / self.size[..., None])

    def preconditioner(self, settings: IterationSettings, xp: Namespace) -> LinearOperator | None:
        """Return what is asked for: "nearest", or an operator, of moderate size too, at the cost of one product."""
        if settings.preconditioner == "nearest":
            return _nearest(self.operator, self.b, xp, positive=settings.assume != "general")
        given: LinearOperator | None = settings.preconditioner
        return None if given is None else given / _size(given, self.b, xp)


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
    column, diagonal = _column(operator, sizes, like, xp), None
    with suppress(NotImplementedError):
        diagonal = operator._diagonal("diagonal", xp)
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
        inverse = _reciprocals(circulant._held_eigvals(xp), xp, positive=positive)
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


def _column(  # noqa: C901, PLR0912  # a case for each kind of operator
    operator: Any, sizes: tuple[int, ...], like: Array, xp: Namespace
) -> Any:
    """Return the first column of a circulant of these levels near an operator, of the nearest one but for products."""
    if operator.shape != (prod(sizes), prod(sizes)):
        return None
    first = xp.arange(operator.shape[0], device=device_of(like)) == 0
    match operator:
        case Prepared():
            return _column(operator.operator, sizes, like, xp)
        case Scaled():
            inner = _column(operator.operator, sizes, like, xp)
            return None if inner is None else scale_array(inner, operator.factor, 1, xp)
        case Sum() | Product():
            parts = operator.terms if isinstance(operator, Sum) else operator.factors
            columns = [_column(part, sizes, like, xp) for part in parts]
            if any(column is None for column in columns):
                return None
            if isinstance(operator, Sum):
                return reduce(lambda c, other: c + other, columns)
            return reduce(lambda c, other: MultilevelCirculant(c, sizes).matvec(other), columns)
        case Identity():
            return xp.astype(first, like.dtype)
        case Diagonal():
            return xp.mean(operator.d, axis=-1, keepdims=True) * xp.astype(first, like.dtype)
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
