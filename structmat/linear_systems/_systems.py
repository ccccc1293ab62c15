"""Iteration: systems of moderate size, preconditioners, when a solution is good enough, and Krylov methods."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from functools import reduce
from math import prod
from typing import Any, NamedTuple

import numpy as np
import scipy  # its `sparse` is imported on first use

from structmat._arrays.arithmetic import binary_exponents, conjugate, euclidean_norm, scale_array
from structmat._arrays.dtypes import is_complex, precision_of
from structmat._arrays.libraries import device_of, is_numpy, library_of
from structmat._arrays.linear_algebra import dense_solutions
from structmat._arrays.tracing import constant
from structmat._arrays.typing import Array, Namespace
from structmat.operators import (
    BandedCirculant,
    Circulant,
    Diagonal,
    Identity,
    Indices,
    LinearOperator,
    MultilevelCirculant,
    MultilevelToeplitz,
    Prepared,
    Product,
    Scaled,
    SpectralCirculant,
    Submatrix,
    Sum,
    Toeplitz,
)
from structmat.preconditioners import chan
from structmat.scipy import as_linear_operator


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
    rtol: Any
    """A number; as a user gives it to `solve`, None for the default, as for `max_iter`."""
    max_iter: Any
    writes_out: bool = False
    """Whether the matrix is written out where iteration does not reach `rtol`."""


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


def is_as_small_as_rounding(A: LinearOperator, x: Array, rest: Array, b: Array, xp: Namespace) -> Array:
    """Tell which residuals no solution in this precision has much smaller, though they are small beside `b` as well."""
    eps = float(xp.finfo(rest.dtype).eps)
    rounding = _ROUNDING * eps * norm_of(A, b, xp) * euclidean_norm(x, xp)
    left, allowed = euclidean_norm(rest, xp), math.sqrt(eps) * euclidean_norm(b, xp)
    return (left <= rounding) & (left <= allowed)


def written_out(A: LinearOperator, x: Array, b: Array, xp: Namespace) -> Array:
    """Return the solutions of the dense matrix where their residuals are smaller than those of `x`."""
    try:
        if A.batch_shape:
            found = dense_solutions(A.to_dense(), b[..., None], xp)[..., 0]
        else:  # all right-hand sides by one elimination
            columns = xp.matrix_transpose(xp.reshape(b, (-1, b.shape[-1])))
            found = xp.reshape(xp.matrix_transpose(dense_solutions(A.to_dense(), columns, xp)), x.shape)
    except np.linalg.LinAlgError:  # a singular matrix
        return x
    left, before = (euclidean_norm(b - A._matvec(each, xp), xp) for each in (found, x))
    return xp.where((left < before)[..., None], found, x)  # not where it is NaN


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
            found = nearest(self.operator, self.b, xp)
            return None if found is None else found.inverse(xp, positive=settings.assume != "general")
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


class Nearest(NamedTuple):
    """The circulant or diagonal matrix nearest to a square operator in the Frobenius norm."""

    eigenvalues: Array
    """As its kind of operator holds them: half of them where the other half is conjugate."""
    having: Callable[[Array], LinearOperator]
    """Returns the matrix of this kind that has other eigenvalues."""
    chosen: Indices | None
    """Where the operator is a principal submatrix, near that of a circulant: its rows and columns. All else is of the
    whole matrix then."""

    def positive(self, xp: Namespace) -> Array:
        """Return the moduli of the eigenvalues, bounded from below."""
        return 1 / _reciprocals(self.eigenvalues, xp, positive=True)

    def inverse(self, xp: Namespace, *, positive: bool = True) -> LinearOperator:
        """Return an inverse, of the submatrix one in place of it; its eigenvalues are bounded, or `positive` too."""
        inverse = self.having(_reciprocals(self.eigenvalues, xp, positive=positive))
        return inverse if self.chosen is None else Submatrix(inverse, self.chosen, self.chosen)


def nearest(operator: LinearOperator, like: Array, xp: Namespace) -> Nearest | None:
    """Return the circulant or diagonal matrix nearest to a square operator.

    `like` is a right-hand side, for dtype and device. None where neither the cyclic nor the main diagonal of the
    operator can be had without its dense matrix. Both are orthogonal projections, so the nearer of the two is the one
    of the larger norm. JAX gets the circulant wherever there is one, as values may be traced.
    """
    operator, chosen = operator._whole()
    sizes = _levels(operator)
    column, diagonal = _column(operator, sizes, like, xp), None
    with suppress(NotImplementedError):
        diagonal = operator._diagonal(xp)
    if column is not None and diagonal is not None and library_of(xp) != "jax":
        gain = operator.shape[0] * euclidean_norm(column, xp) ** 2 - euclidean_norm(diagonal, xp) ** 2
        column = column if float(xp.sum(constant(gain, xp))) >= 0.0 else None
    if column is not None:
        kind: Any = Circulant(column).to_spectral() if len(sizes) == 1 else MultilevelCirculant(column, sizes)
        found = kind._diagonalised(xp)
        return Nearest(found.values, lambda values: kind._from_eigenvalues(found.with_values(values), xp), chosen)
    if diagonal is None:
        return None
    # The chosen rows and columns of a diagonal matrix are one themselves: no larger matrix is needed.
    return Nearest(diagonal if chosen is None else chosen._gathered(diagonal, xp), Diagonal, None)


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
    """Return the first column of a circulant of these levels near an operator; not the nearest one for products."""
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


# Krylov methods for NumPy arrays, by SciPy, and for batches of vectors of any other library

_RESTART = 50
"""Vectors that GMRES keeps."""


class Counter:
    """Counts the iterations for each right-hand side."""

    def __init__(self) -> None:
        self.before = 0
        """Those of all passes that have ended: in each the most of any right-hand side."""
        self._count = self._most = 0

    def __call__(self, _: Any = None) -> None:
        self._count += 1

    def end(self, count: int | None = None) -> None:
        """Say that all iterations for a right-hand side are done, `count` of them if nobody has counted."""
        self._most, self._count = max(self._most, self._count if count is None else count), 0

    def end_pass(self) -> None:
        """Say that all right-hand sides are done."""
        self.end()
        self.before, self._most = self.before + self._most, 0


def iterations_on_trial(max_iter: int, operator: LinearOperator) -> int:
    """Return how many iterations a preconditioner that nobody gave may take before it has to have helped.

    A submatrix of the inverse of a circulant may be singular although that of the circulant is not, unless the
    circulant is positive definite. So half of the iterations are left for the matrix alone, but at least one for each
    unknown is spent before.
    """
    return max(max_iter // 2, min(max_iter, operator.shape[0]))


def iterate(
    A: LinearOperator, b: Array, norm: Array, settings: IterationSettings, count: Counter, xp: Namespace
) -> Array:
    """Return solutions for right-hand sides, `norm` being that of A where it is needed."""
    if is_numpy(xp):
        return (least_squares_by_scipy if settings.assume == LEAST_SQUARES else by_scipy)(A, b, settings, count)
    if settings.assume == "positive definite":
        return conjugate_gradients(A, b, settings, count, xp)
    return least_squares(A, b, norm, settings, count, xp)


def by_scipy(operator: LinearOperator, b: Any, settings: IterationSettings, count: Counter) -> Any:
    """Return solutions of square systems."""
    assume, preconditioner = settings.assume, settings.preconditioner
    rtol, limit = settings.rtol, settings.max_iter
    solvers = scipy.sparse.linalg

    def one(A: Any, M: Any, v: Any) -> Any:
        matrix: Any = as_linear_operator(A)
        inner: Any = None if M is None else as_linear_operator(M)
        if assume == "positive definite":
            return solvers.cg(matrix, v, rtol=rtol, atol=0.0, maxiter=limit, M=inner, callback=count)[0]
        # with ``A M`` in place of A, so that the residual is that of the system itself
        product, restart = matrix if inner is None else matrix @ inner, min(_RESTART, limit, len(v))
        options: dict[str, Any] = {"rtol": rtol, "atol": 0.0, "callback": count, "callback_type": "pr_norm"}
        y = solvers.gmres(product, v, restart=restart, maxiter=limit // restart, **options)[0]
        return y if inner is None else inner.matvec(y)

    return _each(one, b, count, operator, preconditioner)


def least_squares_by_scipy(operator: LinearOperator, b: Any, settings: IterationSettings, count: Counter) -> Any:
    """Return least-squares solutions by LSMR.

    Its tolerance is relative to the Frobenius norm of the matrix, ours to the largest singular value.
    """
    rtol = max(settings.rtol / min(operator.shape) ** 0.5, float(np.finfo(float).eps))

    def one(A: LinearOperator, v: Any) -> Any:
        x, _, steps, *_ = scipy.sparse.linalg.lsmr(
            as_linear_operator(A), v, atol=rtol, btol=rtol, conlim=0, maxiter=settings.max_iter
        )
        count.end(int(steps))
        return x

    return _each(one, b, count, operator)


def _each(one: Any, b: Any, count: Counter, operator: LinearOperator, *others: LinearOperator | None) -> Any:
    """Return what a solver finds for each right-hand side, with its member of stacks of operators."""
    lead, operators = b.shape[:-1], (operator, *others)
    x = np.zeros((*lead, operator.shape[1]), b.dtype)
    for index in np.ndindex(lead):
        if np.any(b[index]):
            with np.errstate(all="ignore"):  # whatever comes out is checked
                x[index] = one(*(_member(op, lead, index) for op in operators), b[index])
            count.end()
    return x


def _member(operator: LinearOperator | None, lead: tuple[int, ...], index: tuple[int, ...]) -> LinearOperator | None:
    """Return one operator of a stack, whose batch axes broadcast to `lead`."""
    if operator is None or not operator.batch_shape:
        return operator

    def pick(array: Any, axes: int) -> Any:
        return np.broadcast_to(array, (*lead, *array.shape[array.ndim - axes :]))[index]

    return operator._map(pick)


def conjugate_gradients(
    operator: LinearOperator, b: Array, settings: IterationSettings, count: Counter, xp: Namespace
) -> Array:
    """Return x near ``A x = b`` for a Hermitian positive definite A [1]_.

    One boolean is read in each step. A right-hand side that has converged stays as it is.

    References
    ----------
    .. [1] Golub, G. H., Van Loan, C. F., Matrix Computations, 4th edition, section 11.5, 2013.
    """
    M, target = settings.preconditioner, settings.rtol**2 * inner(b, b, xp)
    x, r = xp.zeros_like(b), b
    z = r if M is None else M._matvec(r, xp)
    p, rho = z, inner(r, z, xp)
    for _ in range(settings.max_iter):
        active = inner(r, r, xp) > target
        q = operator._matvec(p, xp)
        curvature = inner(p, q, xp)
        if not bool(xp.any(active & (curvature > 0.0))):  # nor where A is not positive definite
            break
        alpha = _ratio(rho, curvature, active, xp)
        x, r = x + alpha * p, r - alpha * q
        z = r if M is None else M._matvec(r, xp)
        rho, before = inner(r, z, xp), rho
        p = z + _ratio(rho, before, active, xp) * p
        count()
    return x


def least_squares(
    operator: LinearOperator, b: Array, norm: Array, settings: IterationSettings, count: Counter, xp: Namespace
) -> Array:
    """Return the x of least norm that minimises ``norm(A x - b)``, by CGLS [1]_.

    It ends where the residual r has ``norm(r) <= rtol * norm(b)`` or ``norm(A^H r) <= rtol * norm(A) * norm(r)``, with
    `norm` for that of A. With a preconditioner M it iterates with ``A M`` in place of A, and returns M times the x of
    least norm.

    References
    ----------
    .. [1] Björck, Å., Numerical Methods for Least Squares Problems, section 7.4, 1996.
    """
    preconditioner, rtol, limit = settings.preconditioner, settings.rtol, settings.max_iter
    M = Identity(operator.shape[1]) if preconditioner is None else preconditioner
    y, r = xp.zeros((*b.shape[:-1], operator.shape[1]), dtype=b.dtype, device=device_of(b)), b
    s = M._rmatvec(operator._rmatvec(r, xp), xp)
    p, gamma, target = s, inner(s, s, xp), rtol**2 * inner(b, b, xp)
    for _ in range(limit):
        left = inner(r, r, xp)
        active = (left > target) & (gamma > (rtol * norm) ** 2 * left)
        if not bool(xp.any(active)):
            break
        q = operator._matvec(M._matvec(p, xp), xp)
        alpha = _ratio(gamma, inner(q, q, xp), active, xp)
        y, r = y + alpha * p, r - alpha * q
        s = M._rmatvec(operator._rmatvec(r, xp), xp)
        gamma, before = inner(s, s, xp), gamma
        p = s + _ratio(gamma, before, active, xp) * p
        count()
    return M._matvec(y, xp)


def inner(u: Array, v: Array, xp: Namespace) -> Array:
    """Return the real part of inner products, which have no other for a Hermitian matrix."""
    if not is_complex(u.dtype, xp):
        return xp.sum(u * v, axis=-1)
    return xp.sum(xp.real(u) * xp.real(v) + xp.imag(u) * xp.imag(v), axis=-1)


def _ratio(top: Array, bottom: Array, active: Array, xp: Namespace) -> Array:
    """Return quotients as a column, zero for what has converged."""
    use = active & (bottom > 0.0)
    return xp.where(use, top / xp.where(use, bottom, xp.ones_like(bottom)), xp.zeros_like(top))[..., None]
