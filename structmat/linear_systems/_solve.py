"""Linear systems and least-squares problems with any operator: by its closed form, else by preconditioned iteration."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal, NamedTuple, cast

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
from structmat.linear_systems._bands import ByBand, parts_of_all
from structmat.linear_systems._cg import CG
from structmat.linear_systems._differentiable import Ways, lstsq_with_derivatives, solve_with_derivatives
from structmat.linear_systems._elimination import (
    ByElimination,
    BySingularVectors,
    fits_as_last_resort,
    is_written_out,
    iterations_before_elimination,
)
from structmat.linear_systems._even_noise import as_toeplitz
from structmat.linear_systems._gmres import GMRES
from structmat.linear_systems._iteration import ByIteration
from structmat.linear_systems._krylov_method import KrylovMethod
from structmat.linear_systems._lsmr import LSMR
from structmat.linear_systems._results import ConvergenceError, Report, Solutions, SolveResult
from structmat.linear_systems._stopping import is_as_small_as_rounding, relative_residual
from structmat.linear_systems._superfast import (
    ITERATIONS_BEFORE_FACTOR,
    MOST_WITHOUT_FACTOR,
    Superfast,
    direct_factor,
    factor_by,
    may_have_factor,
)
from structmat.operators import Identity, LinearOperator

_LONGEST = 10_000
"""The default number of iterations is ten times the number of unknowns, but at most this."""


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
    if isinstance(method, Superfast):
        if given is not None or max_iter is not None:
            text = "a direct factor, Superfast, takes neither a preconditioner nor max_iter"
            raise ArgumentValueError(owner, "method", text)
        question = _read(A, b, owner)
        rtol = _relative(rtol, question, owner)
        found = _by_asked_factor(question, method, rtol, owner)
        return question.finished(_warned(found, owner, rtol, question.xp))
    krylov = None if method is None else _method(method)
    by_default = method is None and max_iter is None and isinstance(preconditioner, str)
    question = _read(A, b, owner, given)
    rtol = _relative(rtol, question, owner)
    if by_default and rows > MOST_WITHOUT_FACTOR:
        question = question._replace(op=rules_of(question.xp).untraced(as_toeplitz)(question.op, question.xp))
    with suppress(NotImplementedError):
        x = cast_back(question.op._solve(question.vectors, question.xp), question.dtype, question.xp)
        return question.finished(_warned(question.result(x), owner, rtol, question.xp))
    before = None if max_iter is not None else iterations_before_elimination(question.op, asked=not by_default)
    try:
        if before == 0:
            remedy = "A is singular to working precision, use lstsq"
            ways = Ways((ByBand(rtol), ByElimination(rtol)), rtol, Report(owner, remedy=remedy))
            result = _solved(question, ways)
        else:
            iteration = ByIteration(
                method=krylov or (CG() if assume == "positive definite" else GMRES()),
                rtol=rtol,
                max_iter=most,
                positive=assume == "positive definite" or (krylov is not None and krylov._needs_positive_definite),
                nearest=isinstance(preconditioner, str),
            )
            taken = iteration.followed_by(ByElimination(rtol), before, is_quick=is_written_out(question.op))
            ways = Ways(taken, rtol, _report(iteration, assume, owner, question.op))
            result = _by_iteration_or_factor(question, ways, by_default=by_default)
    except ConvergenceError as error:
        error.result = question.finished(error.result)
        raise
    return question.finished(_warned(result, owner, rtol, question.xp))


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
    question = _read(A, b, owner)
    op, right, xp = question.op, question.right, question.xp
    rtol = _relative(rtol, question, owner)

    with suppress(NotImplementedError):
        inverse = op._damped_pinv(damp, xp) if damp else op.pinv()
        found = question.result(inverse.matvec(question.vectors))
        return question.finished(_warned(found, owner, None, xp))
    system, sides = _damped(op, right, damp, xp) if damp else (op, right)
    iteration = ByIteration(LSMR(), rtol, most, least_squares=True)
    before = iterations_before_elimination(system, least_squares=True) if max_iter is None else None
    ways = Ways(iteration.followed_by(BySingularVectors(rtol), before), rtol, Report(owner))
    try:
        found = lstsq_with_derivatives(system, sides, ways, xp)
    except ConvergenceError as error:
        error.result = _of_least_squares(error.result, question, damp)
        raise
    return _of_least_squares(_warned(found, owner, None, xp), question, damp)


def _of_least_squares(found: SolveResult, question: _Question, damp: float) -> SolveResult:
    """Return the result that was asked for; with `damp` iteration has found residuals of another system, `_damped`."""
    return question.finished(question.result(found.x, found.iterations) if damp else found)


def _solved(question: _Question, ways: Ways) -> SolveResult:
    return solve_with_derivatives(question.op, question.preconditioner, question.right, ways, question.xp)


def _by_iteration_or_factor(question: _Question, ways: Ways, *, by_default: bool) -> SolveResult:
    """Return solutions by iteration, or by a band or a direct factor where no way was asked for.

    The last factor may cost whatever it does. It comes before the dense matrix where that takes long.
    """
    xp = question.xp
    if by_default and rules_of(xp).untraced(parts_of_all)(question.op, xp) is not None:
        return _solved(question, replace(ways, ways=(ByBand(ways.rtol), *ways.ways)))
    iteration = cast("ByIteration", ways.ways[0])
    result, may_serve = _by_factor(question, iteration) if by_default else (None, False)
    if result is None and may_serve and not rules_of(xp).compiles:
        result, may_serve = _by_turns(question, iteration, ways)
    if result is not None:
        return result
    quick = ways.ways if is_written_out(question.op) else ways.ways[:1]
    try:
        return _solved(question, replace(ways, ways=quick) if may_serve else ways)
    except ConvergenceError:
        result = _by_factor(question, iteration, after=math.inf)[0] if may_serve else None
        if result is not None:
            return result
        others = ways.ways[len(quick) :] if may_serve else ()
        if not others:
            raise
        return _solved(question, replace(ways, ways=others))


def _by_turns(question: _Question, iteration: ByIteration, ways: Ways) -> tuple[SolveResult | None, bool]:
    """Return solutions by some iterations or a direct factor, and whether a slower factor may serve; None for neither.

    Each time that some iterations have not sufficed the factor may take as long as they, and the next try takes four
    times as many, so that neither is waited for much longer than the faster one takes. Where a library compiles
    iteration for each number of iterations, it is made once. A solution above `rtol`, at the level of rounding, is kept
    only where there is no factor, whose solutions have smaller residuals. The last factor may cost whatever it does.
    """
    xp = question.xp
    for most in ITERATIONS_BEFORE_FACTOR:
        if most >= iteration.max_iter:
            break
        found = None
        with suppress(ConvergenceError):
            found = _solved(question, replace(ways, ways=(iteration._replace(max_iter=most),)))
            if bool(xp.all(found.residual <= ways.rtol)):
                return found, False
        is_last = most == ITERATIONS_BEFORE_FACTOR[-1]
        result, may_serve = _by_factor(question, iteration, after=math.inf if is_last else most)
        if result is None:
            result = found
        if result is not None or not may_serve:
            return result, False
    return None, True


def _by_factor(question: _Question, settings: ByIteration, *, after: float = 0) -> tuple[SolveResult | None, bool]:
    """Return solutions by a direct factor, and whether a slower one may serve where iteration has not sufficed.

    There are none, None, where there is no factor, or none that is as fast and as accurate as iteration. `after` some
    iterations that have not sufficed it may be as slow as these were, and after infinitely many as slow as it is.
    """
    op, right, xp = question.op, question.right, question.xp
    rules = rules_of(xp)
    if op.shape[0] <= MOST_WITHOUT_FACTOR or rules.is_traced(right):
        return None, False
    with rules.evaluated([*op._arrays(), right]):
        systems = math.prod(right.shape[:-1]) if not after else None
        iterations = int(after) if 0 < after < math.inf else None
        try:
            factor = rules.untraced(direct_factor)(
                op, xp, systems=systems, positive=settings.positive, iterations=iterations
            )
        except np.linalg.LinAlgError:
            return None, False
        if factor is None:
            return None, bool(after) or may_have_factor(op, xp)
        found = question.result(factor.solve(right, settings.rtol, xp))
        return (found if bool(xp.all(_is_accurate(found, question, settings.rtol))) else None), False


def _by_asked_factor(question: _Question, method: Superfast, rtol: float, owner: str) -> SolveResult:
    """Return solutions by the direct factor that was asked for; NaN in a trace where they are not accurate."""
    op, right, xp = question.op, question.right, question.xp
    rules = rules_of(xp)
    with rules.evaluated(op._arrays()):
        factor = rules.untraced(factor_by)(method, op, owner, xp)
    found = question.result(factor.solve(right, rtol, xp))
    done = _is_accurate(found, question, rtol)
    if rules.is_traced(done):
        return found._replace(x=xp.where(done[..., None], found.x, xp.full_like(found.x, float("nan"))))
    report = Report(owner, remedy="raise rtol, or lower that of the method")
    report.require_converged(Solutions(found.x, found.residual, done, 0), None, right, rtol, xp)
    return found


def _is_accurate(found: SolveResult, question: _Question, rtol: float) -> Array:
    """Tell which solutions leave no more than `rtol`, or nothing but the rounding errors of their precision."""
    op, right, xp = question.op, question.right, question.xp
    done = found.residual <= rtol
    if not rules_of(xp).is_traced(done) and bool(xp.all(done)):
        return done
    x = xp.astype(found.x, right.dtype)
    return done | is_as_small_as_rounding(op, x, right - op._matvec(x, xp), right, xp)


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


def _report(settings: ByIteration, assume: str, owner: str, op: LinearOperator) -> Report:
    """Return what an error says where iteration does not solve a system."""
    advice = "give a better preconditioner, or use lstsq for a singular matrix"
    if not fits_as_last_resort(op):
        gigabytes = math.prod(op.batch_shape) * math.prod(op.shape) * 8e-9
        advice += f"; the last resort, numpy.linalg.solve(A.to_dense(), b), takes {gigabytes:.1f} GB"
    if settings.positive:
        other = 'assume="general"' if assume != "general" else "method=GMRES()"
        advice += f"; if the matrix may not be positive definite, {other}"
    return Report(owner, advice)


def _relative(rtol: float | None, question: _Question, owner: str) -> float:
    """Return the relative residual at which to end: the default of the precision where none is given."""
    if rtol is None:
        return 1e-10 if float(question.xp.finfo(question.right.dtype).eps) < 1e-10 else 1e-5
    checked = non_negative(rtol, owner, "rtol")
    if not checked:
        raise ArgumentValueError(owner, "rtol", "must be above zero, got 0")
    return float(checked)


def _most_iterations(max_iter: int | None, A: LinearOperator, owner: str) -> int:
    """Return the most iterations: by default ten for each unknown, within bounds."""
    default = min(max(100, 10 * min(A.shape)), _LONGEST)
    return default if max_iter is None else integer(max_iter, owner, "max_iter")


class _Question(NamedTuple):
    """What a user has asked, read: all vectors lie along the last axis."""

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

    def finished(self, result: SolveResult) -> SolveResult:
        """Return a result with solutions of the dtype and in the place that were asked for."""
        x = cast_back(result.x, self.dtype, self.xp)
        residual = without_axes_as_scalar(result.residual)
        return result._replace(x=self.xp.matrix_transpose(x) if self.columns else x, residual=residual)


def _read(A: LinearOperator, b: ArrayLike, owner: str, M: LinearOperator | None = None) -> _Question:
    """Return matrix, preconditioner and right-hand sides as iteration takes them."""
    columns = not is_vector(b)
    op, vectors, xp, dtype = A._operand(b, owner, "b", A.shape[0], axis=-2 if columns else -1)
    if columns:
        vectors = xp.matrix_transpose(vectors)
        op = op._with_batch_axis(xp) if op.batch_shape else op
        M = M._with_batch_axis(xp) if M is not None and M.batch_shape else M
    batch = op.batch_shape
    if not batch and M is None and vectors.dtype == dtype and not op._forces_complex:  # the usual case
        return _Question(op, M, vectors, vectors, columns, dtype, xp)
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
    return _Question(op, M, vectors, right, columns, dtype, xp)


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
