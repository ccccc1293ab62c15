"""Linear systems and least-squares problems with any operator: by its closed form, else by preconditioned iteration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
import scipy  # its `linalg` is imported on first use

from structmat._arguments import integer, non_negative, one_of
from structmat._arrays.conversion import without_axes_as_scalar
from structmat._arrays.dtypes import cast_back, complex_partner, is_complex, precision_of
from structmat._arrays.libraries import device_of, is_numpy, namespace_of, rules_of
from structmat._arrays.shapes import broadcast_shapes, concat_last, is_vector
from structmat._arrays.typing import Array, ArrayLike, DType, Namespace
from structmat._errors import ArgumentTypeError, ArgumentValueError, warn_caller, warn_of_nan
from structmat._krylov import Count
from structmat._ways import settle
from structmat.linear_systems import _thresholds
from structmat.linear_systems._bands import ByBand
from structmat.linear_systems._cg import CG
from structmat.linear_systems._differentiable import Ways, lstsq_with_derivatives, solve_with_derivatives
from structmat.linear_systems._direct_factor import ByAskedFactor, ByFactor, readable_series
from structmat.linear_systems._elimination import ByElimination, BySingularVectors
from structmat.linear_systems._even_noise import as_toeplitz
from structmat.linear_systems._gmres import GMRES
from structmat.linear_systems._iteration import ByIteration
from structmat.linear_systems._krylov_method import KrylovMethod
from structmat.linear_systems._lsmr import LSMR
from structmat.linear_systems._problem import Candidate, LinearSystem, Options
from structmat.linear_systems._results import Attempt, Solutions, SolveResult, with_ways
from structmat.linear_systems._stopping import relative_residual
from structmat.linear_systems._superfast import Superfast
from structmat.linear_systems._written_out import is_written_out
from structmat.operators import Identity, LinearOperator

_OF_POSITIVE, _OF_GENERAL = CG(), GMRES()
"""The methods where none is asked for."""


def solve(
    A: LinearOperator,
    b: ArrayLike,
    *,
    method: CG | GMRES | LSMR | Superfast | None = None,
    assume: Literal["general", "positive definite"] = "general",
    preconditioner: LinearOperator | Literal["nearest"] | None = "nearest",
    rtol: float | None = None,
    max_iter: int | None = None,
) -> SolveResult:
    """Solve ``A x = b`` for any square operator: by its closed form, else by preconditioned iteration.

    Parameters
    ----------
    A : LinearOperator
        The matrix or a stack of them, on any array library.
    b : array, shape (n,) or (..., n, k)
        One right-hand side, or right-hand sides in columns, as for `numpy.linalg.solve`; leading axes broadcast against
        the batch of `A`.
    method : CG, GMRES, LSMR or Superfast, optional
        How to iterate where A has no closed form, on every array library; or `Superfast`, a direct factor, which is
        taken whether there is a closed form or not. Default: `GMRES`, or `CG` for a matrix that is positive definite.
    assume : {"general", "positive definite"}, default "general"
        What is known of A, where it has no closed form. It is not checked.
    preconditioner : {"nearest"}, None or LinearOperator, default "nearest"
        An operator near the inverse of A, positive definite where A is, as for `CG`. By default the inverse of
        the nearest circulant (of several levels on a grid) or diagonal matrix, whichever is nearer, if A is made of
        circulant, Toeplitz and diagonal parts, so that it costs little; of a Kronecker product or sum with noise of
        uneven size the inverse of that with even noise, by eigenvectors, as of a `SpectralMultiplier`; of a
        `GridConvolution` the inverse of that with the symmetric part of the kernel. Where that does not help a system
        whose A is "general", iteration goes on without it. The batch axes of a stack broadcast too: there is one
        solution for each.
    rtol : float, optional
        Iteration ends where ``norm(b - A x) <= rtol * norm(b)``. Default: 1e-10, in single precision 1e-5.
    max_iter : int, optional
        The most iterations. Default: half of n up to 2,000 unknowns, at least 100; then ``n^2 / 5000``, at most 10,000;
        or 50 where these show too little progress (not in JAX). What is not solved by then is solved by elimination of
        the dense matrix, as long as that takes no more than 1.2 GB in double precision (12,247 unknowns), of which two
        are held. Above that ten times n, at most 10,000. Up to 512 unknowns, where elimination is the fastest way,
        there are none, unless a method or a preconditioner is asked for.

    Returns
    -------
    SolveResult
        The solutions ``x``, their relative residuals, and the number of iterations.

    Raises
    ------
    ConvergenceError
        If no solution reaches `rtol` or a backward error at the level of rounding, as where `b` holds NaN or A is
        singular. Under ``jax.jit`` no value can be looked at: such solutions are NaN.
    numpy.linalg.LinAlgError
        If a closed form finds that A is singular, or a direct factor that A is not positive definite.
    ValueError
        If A is not square, `b` has another length, an option is none of these, or `Superfast` does not suffice.
    TypeError
        If A is no operator, or not one of those with the direct factor that is asked for, `method` no method, or `b`
        belongs to another array library.

    Warns
    -----
    scipy.linalg.LinAlgWarning
        If the solution leaves more than `rtol` of a NumPy array, as where A is ill-conditioned, or a closed form gives
        NaN.

    See Also
    --------
    lstsq : For rectangular or singular matrices.
    CG, GMRES, LSMR, Superfast : The methods, and what each costs.
    LinearOperator.solve : The closed form alone.

    Notes
    -----
    **Bands.** A Toeplitz matrix that is zero beyond 64 lags plus a diagonal, or rows and columns of it, is solved by
    LAPACK as a band, in O(n) memory: on the CPU, in NumPy and torch, if no method, preconditioner or `max_iter` is
    asked for. So is each matrix of a stack of 100 rows or more.

    **Even noise.** A Toeplitz matrix of more than 1,024 rows plus a diagonal of equal entries is solved as the Toeplitz
    matrix that it is.

    **Direct factor.** The matrix of a series is a positive definite Toeplitz matrix plus a diagonal, of which rows and
    columns may be left out (a `Submatrix`); that of several channels has a `BlockToeplitz` one. For such matrices with
    more than 1,024 rows there is a direct factor, that of `slogdet`. For 100,000 points and a condition number of 2,500
    it takes 0.7 s, and iteration takes 1.8 s. It is taken for many right-hand sides; for a single one if rows are left
    out and the noise is small; and where iteration has taken as long as the factor would.

    It is not taken if a method, a preconditioner or `max_iter` is asked for, if the matrix turns out not to be positive
    definite, or if the residual is too large. For right-hand sides that JAX traces it is taken only as
    ``method=Superfast()``.

    A prepared operator (`LinearOperator.prepare`) keeps the factor, so that further solutions take a tenth of the time.
    It has one for any noise and any number of right-hand sides, and uses it for `slogdet` too.

    **Iteration.** The methods are the same for all array libraries, and solve all right-hand sides of a batch at once
    [1]_. The residual is computed anew from the solution, and the solver runs again on what it left, as in iterative
    refinement.

    **Accuracy.** A solution is accepted if its residual is at most `rtol`. Where A is so ill-conditioned that rounding
    keeps all solutions above that, it is accepted if it is the exact solution for a matrix that differs from A by
    rounding errors, as those of LAPACK are; the residual in the result says what is left.

    **Derivatives.** Derivatives by A and b in torch (reverse mode) and JAX are those of the exact solution, and cost
    one more solution. In torch ``vmap`` does not reach an iteration: solve all systems of a stack at once.

    References
    ----------
    .. [1] Saad, Y., Iterative Methods for Sparse Linear Systems, 2nd edition, SIAM, 2003.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> n = 1000
    >>> A = sm.Toeplitz(0.9 ** np.arange(n)) + sm.Diagonal(np.linspace(0.1, 0.2, n))  # has no closed form
    >>> x, residual, iterations = sm.solve(A, np.ones(n), assume="positive definite")
    >>> bool(np.allclose(A @ x, 1)), bool(residual < 1e-10), iterations < 20
    (True, True, True)
    """
    owner = "solve"
    require_operator(A, owner)
    rows, cols = A.shape
    if rows != cols:
        raise ArgumentValueError(owner, "A", f"must be square, got shape {A.shape}; use lstsq")
    one_of(assume, owner, "assume", ("general", "positive definite"))
    most = _most_iterations(max_iter, A, owner)
    given = _given_preconditioner(preconditioner, A)
    asked_factor = method if isinstance(method, Superfast) else None
    if asked_factor is not None and (given is not None or max_iter is not None):
        text = "a direct factor, Superfast, takes neither a preconditioner nor max_iter"
        raise ArgumentValueError(owner, "method", text)
    krylov = None if method is None or asked_factor is not None else _method(method)
    read = _read(A, b, owner, given)
    options = Options(
        owner,
        krylov or (_OF_POSITIVE if assume == "positive definite" else _OF_GENERAL),
        _relative(rtol, read, owner),
        most,
        is_limited=max_iter is not None,
        by_default=method is None and max_iter is None and isinstance(preconditioner, str),
        positive=assume == "positive definite" or (krylov is not None and krylov._needs_positive_definite),
        remedy="" if asked_factor is None else "raise rtol, or lower that of the method",
        other_method="method=GMRES()" if assume == "general" else 'assume="general"',
        nearest=isinstance(preconditioner, str),
    )
    if options.by_default and A.shape[0] > _thresholds.WITHOUT_FACTOR:
        read = read._replace(op=rules_of(read.xp).untraced(as_toeplitz)(read.op, read.xp))
    question = _Question(read, options)
    ways = _WAYS if A.shape[0] <= _thresholds.WITHOUT_FACTOR else _WAYS_OF_LARGE
    settle(question, ways if asked_factor is None else (ByAskedFactor(asked_factor),))
    return read.finished(_warned(question.result(), owner, options.rtol, read.xp), question.ways)


def lstsq(
    A: LinearOperator,
    b: ArrayLike,
    *,
    damp: float = 0.0,
    rtol: float | None = None,
    max_iter: int | None = None,
) -> SolveResult:
    """Return the x of least norm that minimises ``norm(b - A x)``: by a closed form, else by iteration.

    With `damp` it minimises ``norm(b - A x)^2 + damp^2 norm(x)^2``, as Tikhonov regularisation and SciPy's `lsqr` do.

    Parameters
    ----------
    A : LinearOperator
        The matrix of any shape and rank, or a stack of them, on any array library.
    b : array, shape (rows,) or (..., rows, k)
        One right-hand side, or right-hand sides in columns, as for `numpy.linalg.lstsq`; leading axes broadcast against
        the batch of `A`.
    damp : float, default 0.0
        Weight of the norm of the solution, in units of the singular values of A.
    rtol : float, optional
        Iteration ends where the residual r has ``norm(r) <= rtol * norm(b)`` or ``norm(A^H r) <= rtol * norm(A) *
        norm(r)``; with `damp` A and r are those of the system ``[A; damp I] x = [b; 0]``. Default: 1e-10, in single
        precision 1e-5.
    max_iter : int, optional
        The most iterations. Default: ten times the smaller side, between 100 and 10,000. Up to 2,000 rows and columns
        instead half of that side, at least 100; what is not solved by then is solved by singular vectors of the dense
        matrix. Up to 128 rows and columns, where that is the fastest way, there are none.

    Returns
    -------
    SolveResult
        The solutions ``x``, shape ``(cols,)`` or ``(..., cols, k)``, their relative residuals, and the number of
        iterations.

    Raises
    ------
    ConvergenceError
        If iteration does not reach `rtol`, as where `b` holds NaN. Under ``jax.jit`` no value can be looked at: such
        solutions are NaN.
    ValueError
        If `b` has another length, or an option is out of range.
    TypeError
        If A is no operator, or `b` belongs to another array library.

    Warns
    -----
    scipy.linalg.LinAlgWarning
        If the closed form gives NaN in NumPy.

    See Also
    --------
    solve : For regular square matrices.
    LinearOperator.lstsq : The closed form alone.
    LSMR : The method.

    Notes
    -----
    Iteration is that of `LSMR` on every array library [1]_. The number of iterations grows with the condition number;
    singular values that are zero do not count. Closed forms and dense matrices take singular values at the level of
    rounding for zeros; iteration leaves what has not been reached.

    Derivatives in torch and JAX are those of the solution itself: for matrices of full rank, or with `damp`.

    References
    ----------
    .. [1] Fong, D. C.-L., Saunders, M., LSMR: an iterative algorithm for sparse least-squares problems, SIAM J. Sci.
       Comput. 33, 2011.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> A = sm.Toeplitz(np.array([2.0, 1.0, 0.0, 0.0]), np.array([2.0, 1.0, 0.0]))  # 4 x 3
    >>> b = np.array([1.0, 2.0, 3.0, 5.0])
    >>> x = sm.lstsq(A, b).x
    >>> bool(np.allclose(x, np.linalg.lstsq(A.to_dense(), b)[0]))
    True
    """
    owner = "lstsq"
    require_operator(A, owner)
    damp = non_negative(damp, owner, "damp")
    most = _most_iterations(max_iter, A, owner)
    read = _read(A, b, owner)
    options = Options(
        owner, LSMR(), _relative(rtol, read, owner), most, is_limited=max_iter is not None, least_squares=True
    )
    question = _Question(read, options)
    settle(question, (ByPseudoinverse(damp),) if damp else _WAYS_OF_LEAST_SQUARES)
    found = question.result() if question.is_settled or not damp else _damped_result(question, damp)
    return read.finished(_warned(found, owner, None, read.xp), question.ways)


def _damped_result(question: _Question, damp: float) -> SolveResult:
    """Return what `_Question.result` does, by iteration for the system with `damp`, with the residuals of the other."""
    read = question.read
    system, sides = _damped(read.op, read.right, damp, read.xp)
    damped = _Question(read._replace(op=system, right=sides), question.options)
    damped.ways = question.ways
    settle(damped, _WAYS_OF_LEAST_SQUARES[1:])
    best = cast("Solutions", damped.best)  # one way always serves
    found = read.result(best.x, best.iterations)
    if not damped.is_solved:
        error = damped.failure()
        error.result = read.finished(found, damped.ways)
        raise error
    return found


@dataclass(frozen=True)
class ByClosedForm:
    """The way to solutions by the closed form of an operator."""

    has_derivatives: ClassVar[bool] = True
    name: ClassVar[str] = "closed form"

    def cost(self, question: _Question) -> float | None:
        """Return 0: nothing takes less, and to ask whether there is one is to ask for it."""
        return 0.0

    def run(self, question: _Question) -> Candidate:
        """Return solutions, whatever they leave: nothing is more accurate."""
        read = question.read
        try:
            x = read.op._solve(read.vectors, read.xp)
        except NotImplementedError:
            return Candidate(None, "there is none")
        return read.candidate(x)


@dataclass(frozen=True)
class ByPseudoinverse:
    """The way to least-squares solutions by the closed form of the pseudoinverse."""

    has_derivatives: ClassVar[bool] = True
    name: ClassVar[str] = "closed form"

    damp: float = 0.0

    def cost(self, question: _Question) -> float | None:
        """Return 0: nothing takes less, and to ask whether there is one is to ask for it."""
        return 0.0

    def run(self, question: _Question) -> Candidate:
        """Return solutions, whatever they leave: nothing is more accurate."""
        read = question.read
        try:
            inverse = read.op._damped_pinv(self.damp, read.xp) if self.damp else read.op.pinv()
            x = inverse.matvec(read.vectors)
        except NotImplementedError:
            return Candidate(None, "there is none")
        return read.candidate(x)


_WAYS: tuple[Any, ...] = (ByClosedForm(), ByBand(), ByIteration(), ByElimination())
"""The ways of `solve`: a way after another of the same cost is taken where that has not sufficed."""

_WAYS_OF_LARGE: tuple[Any, ...] = (
    ByClosedForm(),
    ByBand(),
    ByFactor(),
    ByIteration(_thresholds.TURNS[0]),
    ByFactor(_thresholds.TURNS[0]),
    ByIteration(_thresholds.TURNS[1]),
    ByFactor(_thresholds.TURNS[1]),
    ByIteration(_thresholds.TURNS[2]),
    ByFactor(_thresholds.TURNS[2], most=math.inf),
    ByIteration(),
    ByFactor(math.inf),
    ByElimination(),
)
"""The same where a matrix has so many rows that a direct factor may take less time."""

_WAYS_OF_CHANGES = (ByBand(), ByIteration(), ByElimination())
"""The ways for the systems of derivatives, which have no derivatives themselves."""

_WAYS_OF_LEAST_SQUARES: tuple[Any, ...] = (ByPseudoinverse(), ByIteration(), BySingularVectors())
"""The ways of `lstsq`."""


class _Question(LinearSystem):
    """The system that a user has asked for, whose solutions have derivatives, and what was tried for it."""

    def __init__(self, read: _Read, options: Options) -> None:
        super().__init__(read.op, read.preconditioner, read.right, options, read.xp)
        self.read = read
        self.ways: list[Attempt] = []
        """What was tried."""
        self.iterations_made: float | None = None
        """The most iterations of the last try, infinitely many for all that there may be."""
        self._has_factor: bool | None = None
        is_small = read.op.shape[0] <= _thresholds.WITHOUT_FACTOR
        if not options.by_default or is_small or rules_of(read.xp).is_traced(read.right):
            self._has_factor = False

    is_settled = False
    """Whether there is nothing to gain by a further way."""

    def _judge(self, best: Solutions) -> None:
        """Judge new solutions that have values; those of a trace or a transform are judged within.

        Those at the level of rounding that leave more than `rtol` are compared with those of a direct factor, if
        iteration takes turns with it.
        """
        xp = self.xp
        self.best = best
        is_solved = rules_of(xp).concrete(xp.all(best.done))
        self.is_solved = is_solved is None or bool(is_solved)
        if is_solved is None:
            self.is_settled = True
        elif is_solved:
            takes_turns = self.iterations_made in _thresholds.TURNS
            self.is_settled = not takes_turns or bool(xp.all(best.residual <= self.options.rtol))
        else:
            self.is_settled = bool(xp.all(best.done | xp.isnan(best.residual)))

    @property
    def may_have_factor(self) -> bool:
        """Whether the matrix may have a direct factor, as far as is known."""
        if self._has_factor is None:
            with rules_of(self.xp).evaluated([*self.operator._arrays(), self.b]):
                self._has_factor = self.once(readable_series) is not None
        return self._has_factor

    def has_no_factor(self) -> None:
        """Note that there is no direct factor, or none that is of use."""
        self._has_factor = False

    @property
    def takes_turns(self) -> bool:
        """Whether iteration takes turns with a direct factor; not where no value can be looked at in between."""
        is_hidden = any(map(rules_of(self.xp).is_traced, [self.b, *self.operator._arrays()]))
        return not is_hidden and self.may_have_factor

    def take(self, way: Any, others: list[Any]) -> None:
        """Run a way, with derivatives, and keep its solutions, with a note of what it said."""
        candidate: Candidate = way.run(self) if way.has_derivatives else self._by_rule(way, others)
        found = candidate.found
        if isinstance(way, ByIteration):
            self.iterations_made = way.turn or math.inf
        if candidate.is_final:
            self.best = found
            self.is_settled = self.is_solved = True
        elif found is not None:
            self._judge(found)
        residual = candidate.residual if found is None else found.residual
        self.ways.append(Attempt(way.name, residual, candidate.said))

    def _by_rule(self, way: Any, others: list[Any]) -> Candidate:
        """Return what a way without derivatives finds, with those of the implicit rule where there may be any.

        The rule takes dense matrices together with iteration, unless a direct factor comes between them.
        """
        rules = rules_of(self.xp)
        if not rules.compiles and not rules.is_differentiated([self.b, *self.operator._arrays()]):
            candidate: Candidate = rules.untraced(_run)(way, self)
            return candidate
        together = [way]
        if way == ByIteration() and (is_written_out(self.operator) or not self.may_have_factor):
            together += [other for other in others if not other.has_derivatives]
        for other in together[1:]:
            others.remove(other)
        if self.options.least_squares:
            ways = Ways(
                tuple(together), self.options, () if rules.is_differentiated([]) else _WAYS_OF_LEAST_SQUARES[1:]
            )
            return Candidate(lstsq_with_derivatives(self.operator, self.b, ways, self.xp))
        ways = Ways(tuple(together), self.options, () if rules.is_differentiated([]) else _WAYS_OF_CHANGES)
        return Candidate(solve_with_derivatives(self.operator, self.preconditioner, self.b, ways, self.xp))

    def result(self) -> SolveResult:
        """Return the result in the precision of computations, or raise an error where it is not good enough."""
        best = cast("Solutions", self.best)  # one way always serves
        if not self.is_solved:
            error = self.failure()
            error.result = self.read.finished(error.result, self.ways)
            raise error
        return SolveResult(best.x, best.residual, best.iterations)


def _run(way: Any, question: _Question) -> Candidate:
    candidate: Candidate = way.run(question)
    return candidate


def require_operator(A: object, owner: str) -> None:
    if not isinstance(A, LinearOperator):
        text = f"must be a structmat operator, got {type(A).__name__}; for arrays use numpy.linalg.{owner}"
        raise ArgumentTypeError(owner, "A", text)


def _given_preconditioner(value: Any, A: LinearOperator) -> LinearOperator | None:
    """Return the operator that was given as preconditioner, or None, after the check of the argument."""
    if value is None:
        return None
    if isinstance(value, str):
        one_of(value, "solve", "preconditioner", ("nearest",))
        return None
    if not isinstance(value, LinearOperator):
        text = f'must be "nearest", None or an operator, got {type(value).__name__}'
        raise ArgumentTypeError("solve", "preconditioner", text)
    if value.shape != A.shape:
        raise ArgumentValueError("solve", "preconditioner", f"must have the shape of A, {A.shape}, got {value.shape}")
    return value


def _method(value: Any) -> KrylovMethod:
    """Return the method that was asked for, after the check that it is one."""
    if isinstance(value, KrylovMethod):
        return value
    if isinstance(value, type) and issubclass(value, (KrylovMethod, Superfast)):
        got = f"the class itself; call it: {value.__name__}()"
    else:
        got = repr(value) if isinstance(value, str) else type(value).__name__
    text = f"must be CG(), GMRES(), LSMR(), Superfast() or None, got {got}"
    raise ArgumentTypeError("solve", "method", text)


def _relative(rtol: float | None, read: _Read, owner: str) -> float:
    """Return the relative residual at which to end: the default of the precision where none is given."""
    if rtol is None:
        is_double = float(read.xp.finfo(read.right.dtype).eps) < _thresholds.RTOL
        return _thresholds.RTOL if is_double else _thresholds.RTOL_OF_SINGLE
    checked = non_negative(rtol, owner, "rtol")
    if not checked:
        raise ArgumentValueError(owner, "rtol", "must be above zero, got 0")
    return float(checked)


def _most_iterations(max_iter: int | None, A: LinearOperator, owner: str) -> int:
    """Return the most iterations: by default ten for each unknown, within bounds."""
    default = min(max(_thresholds.LEAST_ITERATIONS, 10 * min(A.shape)), _thresholds.MOST_ITERATIONS)
    return default if max_iter is None else integer(max_iter, owner, "max_iter")


class _Read(NamedTuple):
    """What a user has given, read: all vectors lie along the last axis."""

    op: LinearOperator
    """In the precision of computations, as is the preconditioner."""
    preconditioner: LinearOperator | None
    vectors: Array
    """The right-hand sides, as they came."""
    right: Array
    """They with the dtype and all batch axes of the solutions."""
    columns: bool
    """Whether right-hand sides were columns, as solutions are then."""
    dtype: DType
    xp: Namespace

    def result(self, x: Array, iterations: Count = 0) -> SolveResult:
        """Return the result of solutions, with their residuals."""
        xp, right = self.xp, self.right
        wide = xp.astype(x, right.dtype) if x.dtype != right.dtype else x
        x = xp.broadcast_to(x, (*right.shape[:-1], x.shape[-1]))  # to the batch of a preconditioner as well
        return SolveResult(x, relative_residual(right - self.op._matvec(wide, xp), right, xp), iterations)

    def candidate(self, x: Array) -> Candidate:
        """Return solutions that are taken as they are, as those of a closed form."""
        found = self.result(x)
        return Candidate(Solutions(found.x, found.residual, None, 0), is_final=True)

    def finished(self, result: SolveResult, ways: list[Attempt]) -> SolveResult:
        """Return a result with solutions of the dtype and in the place that were asked for, and what these leave."""
        x, residual = cast_back(result.x, self.dtype, self.xp), result.residual
        if x.dtype != result.x.dtype:
            residual = self.result(x).residual
        x = self.xp.matrix_transpose(x) if self.columns else x
        found: SolveResult = with_ways(SolveResult(x, without_axes_as_scalar(residual), result.iterations), ways)
        return found


def _read(A: LinearOperator, b: ArrayLike, owner: str, M: LinearOperator | None = None) -> _Read:
    """Return matrix, preconditioner and right-hand sides as iteration takes them."""
    columns = not is_vector(b)
    op, vectors, xp, dtype = A._operand(b, owner, "b", A.shape[0], axis=-2 if columns else -1)
    if columns:
        vectors = xp.matrix_transpose(vectors)
        op = op._with_batch_axis(xp) if op.batch_shape else op
        M = M._with_batch_axis(xp) if M is not None and M.batch_shape else M
    batch = op.batch_shape
    if not batch and M is None and vectors.dtype == dtype and not op._forces_complex:  # the usual case
        return _Read(op, M, vectors, vectors, columns, dtype, xp)
    precision = precision_of(dtype, xp)
    batches = [batch, tuple(vectors.shape[:-1])]
    numbers = [dtype]
    if M is not None:
        namespace_of(owner, vectors, *M._arrays())
        M = M._in_precision(precision, xp)
        numbers += [] if M.dtype is None else [M.dtype]
        batches.append(M.batch_shape)
    right = vectors
    if op._forces_complex or any(is_complex(number, xp) for number in numbers):
        right = xp.astype(right, complex_partner(precision, xp))
    right = xp.broadcast_to(right, (*broadcast_shapes(owner, *batches), right.shape[-1]))
    return _Read(op, M, vectors, right, columns, dtype, xp)


def _damped(op: LinearOperator, right: Array, damp: float, xp: Namespace) -> tuple[LinearOperator, Array]:
    """Return the system ``[A; damp I] x = [b; 0]``, whose least-squares solutions are those of A with `damp`."""
    rows, cols = op.shape
    identity = Identity(rows + cols)
    zeros = xp.zeros((*right.shape[:-1], cols), dtype=right.dtype, device=device_of(right))
    return identity[:, :rows] @ op + identity[:, rows:] * damp, concat_last([right, zeros], xp)


def _warned(result: SolveResult, owner: str, rtol: float | None, xp: Namespace) -> SolveResult:
    """Return a result, after a warning where it is NaN or leaves more than `rtol`; of NumPy alone."""
    if not is_numpy(xp):
        return result
    residuals: Any = result.residual
    if rtol is not None and (residuals <= rtol).all():
        return result
    largest = float(np.max(residuals, initial=0.0, where=~np.isnan(residuals)))
    if np.any(np.isnan(residuals)):
        warn_of_nan(owner)
    if rtol is not None and largest > rtol:
        left = f"a relative residual of {largest:.1g} is left, above rtol = {rtol:g}"
        warn_caller(f"{owner}: {left}: A is ill-conditioned", scipy.linalg.LinAlgWarning)
    return result
