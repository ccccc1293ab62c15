"""Linear systems and least-squares problems with any operator: by its closed form, else by preconditioned iteration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from math import isnan
from typing import Any, Literal

import numpy as np
import scipy  # its `linalg` is imported on first use

from structmat._arguments import integer, non_negative, one_of, optional_function
from structmat._array_tools import (
    ArgumentTypeError,
    ArgumentValueError,
    Array,
    ArrayLike,
    DType,
    Namespace,
    broadcast_shapes,
    complex_partner,
    device_of,
    is_complex,
    is_differentiated,
    is_numpy,
    is_vector,
    library_of,
    namespace_of,
    precision_of,
    restored,
    warn_caller,
)
from structmat.linear_systems import _conjugate_gradients
from structmat.linear_systems._gradients import Rules, differentiable, pulled_back, recording_nothing
from structmat.linear_systems._preconditioning import ScaledSystem, preconditioner
from structmat.linear_systems._result import (
    ConvergenceError,
    IterationSettings,
    Measure,
    SolveResult,
    by_gradient,
    by_residual,
    norm_of,
    relative_residual,
    size_of,
)
from structmat.operators import LinearOperator

__all__ = ["ignored", "least_squares", "lstsq", "solution", "solve"]

_PASSES = 6
"""How often a solver is run at most, each time on what the runs before have left."""

IterationCallback = Callable[[int], object]
"""Hears the number of iterations so far."""

Step = Callable[[Array, float, int, IterationCallback], "tuple[Array, int]"]
"""From right-hand side, tolerance and number of iterations to a solution and the number that it took."""


def ignored(_: int) -> None:
    """Do nothing, where nobody wants to hear the number of iterations."""


def solution(
    operator: LinearOperator,
    b: Array,
    settings: IterationSettings,
    xp: Namespace,
    callback: IterationCallback = ignored,
) -> SolveResult:
    """Return the solutions of square systems.

    Parameters
    ----------
    operator : LinearOperator
        In the precision of computations.
    b : array, shape (..., n)
        Right-hand sides, of the dtype of the solutions and with all batch axes.
    settings : IterationSettings
    xp : namespace
        That of `b`.
    callback : callable
        Hears the number of iterations, but where JAX iterates.
    """
    if library_of(xp) == "jax":
        from structmat.linear_systems import _jax_solvers  # noqa: PLC0415  # JAX is there already

        found, done = _jax_solvers.solution(operator, b, settings)
        return _checked(found, done, b, settings, xp)
    if not is_differentiated([b, *operator._arrays()], xp):
        return _solution(operator, b, settings, xp, callback)

    def solved(operator: LinearOperator, b: Array, settings: IterationSettings) -> SolveResult:
        return _solution(operator, b, settings, xp, callback)

    def pulled(g: Array, x: Array, b: Array, operator: LinearOperator, settings: IterationSettings) -> tuple[Any, ...]:  # noqa: ARG001
        """``db`` has the gradient ``A^-H g``, and ``dA x`` minus that."""
        M = settings.preconditioner
        M = M.H if isinstance(M, LinearOperator) else M
        adjoint = solution(operator.H, g, settings._replace(preconditioner=M), xp).x
        return adjoint, *pulled_back(lambda A: A._matvec(x, xp), operator, -adjoint, xp)

    def pushed(
        x: Array,
        b: Array,  # noqa: ARG001
        operator: LinearOperator,
        settings: IterationSettings,
        db: Array,
        change: Any,
    ) -> Array:
        """``dx = A^-1 (db - dA x)``."""
        return solution(operator, db - change(lambda A: A._matvec(x, xp)), settings, xp).x

    return differentiable(operator, b, settings, Rules(solved, pulled, pushed), xp)


def _solution(
    operator: LinearOperator, b: Array, settings: IterationSettings, xp: Namespace, callback: IterationCallback
) -> SolveResult:
    """Iterate."""
    with recording_nothing(xp):
        system = ScaledSystem.of(operator, b, xp)
        M = preconditioner(system, settings, xp)
        M = None if M is None else M.prepare()
        prepared = system.operator.prepare()
        system = system._replace(operator=prepared)

        def step(rest: Array, rtol: float, limit: int, report: IterationCallback) -> tuple[Array, int]:
            if is_numpy(xp):
                from structmat.linear_systems import _scipy_solvers  # noqa: PLC0415  # scipy.sparse takes its time

                return _scipy_solvers.solutions(prepared, rest, M, settings.assume, rtol, limit, report)
            if settings.assume == "positive definite":
                return _conjugate_gradients.conjugate_gradients(prepared, rest, M, rtol, limit, xp, report)
            norm = xp.zeros_like(xp.real(rest[..., 0]))
            return _conjugate_gradients.least_squares(prepared, rest, norm, rtol, limit, xp, report, M)

        return _refined(system, step, by_residual(system.b, settings, xp), settings, xp, callback)


def least_squares(operator: LinearOperator, b: Array, settings: IterationSettings, xp: Namespace) -> SolveResult:
    """Return the least-squares solutions of least norm; arguments as for `solution`."""
    if library_of(xp) == "jax":
        from structmat.linear_systems import _jax_solvers  # noqa: PLC0415  # JAX is there already

        found, done = _jax_solvers.least_squares(operator, b, settings)
        return _checked(found, done, b, settings, xp)
    if not is_differentiated([b, *operator._arrays()], xp):
        return _least_squares(operator, b, settings, xp)

    def solved(operator: LinearOperator, b: Array, settings: IterationSettings) -> SolveResult:
        return _least_squares(operator, b, settings, xp)

    def inverse(A: LinearOperator, v: Array) -> Array:
        return least_squares(A, v, settings, xp).x

    def pulled(g: Array, x: Array, b: Array, operator: LinearOperator, _: IterationSettings) -> tuple[Any, ...]:
        """The adjoint of `pushed`."""
        rest, beside = b - operator._matvec(x, xp), inverse(operator.H, x)
        first = inverse(operator.H, g)
        cotangents = (-first, inverse(operator, first), g - inverse(operator, operator._matvec(g, xp)))
        return first, *pulled_back(_products(x, rest, beside, xp), operator, cotangents, xp)

    def pushed(x: Array, b: Array, operator: LinearOperator, _: IterationSettings, db: Array, change: Any) -> Array:
        """That of a pseudo-inverse whose rank does not change [1]_.

        ``dx = A^+ (db - dA x) + A^+ (A^+)^H dA^H (b - A x) + (I - A^+ A) dA^H (A^+)^H x``

        References
        ----------
        .. [1] Golub, G. H., Pereyra, V., The differentiation of pseudo-inverses and nonlinear least squares problems
           whose variables separate, SIAM J. Numer. Anal. 10, 1973.
        """
        rest, beside = b - operator._matvec(x, xp), inverse(operator.H, x)
        of_x, of_rest, of_beside = change(_products(x, rest, beside, xp))
        along = db - of_x + inverse(operator.H, of_rest) - operator._matvec(of_beside, xp)
        return inverse(operator, along) + of_beside

    return differentiable(operator, b, settings, Rules(solved, pulled, pushed), xp)


def _products(x: Array, rest: Array, beside: Array, xp: Namespace) -> Callable[[LinearOperator], tuple[Array, ...]]:
    """Return the products with a matrix that the derivative of a least-squares solution is made of."""

    def products(A: LinearOperator) -> tuple[Array, Array, Array]:
        return A._matvec(x, xp), A._rmatvec(rest, xp), A._rmatvec(beside, xp)

    return products


def _least_squares(operator: LinearOperator, b: Array, settings: IterationSettings, xp: Namespace) -> SolveResult:
    """Iterate."""
    with recording_nothing(xp):
        system = ScaledSystem.of(operator, b, xp)
        prepared = system.operator.prepare()
        system = system._replace(operator=prepared)
        norm = norm_of(prepared, b, xp)

        def step(rest: Array, rtol: float, limit: int, report: IterationCallback) -> tuple[Array, int]:
            if is_numpy(xp):
                from structmat.linear_systems import _scipy_solvers  # noqa: PLC0415  # scipy.sparse takes its time

                return _scipy_solvers.least_squares(prepared, rest, rtol, limit)
            return _conjugate_gradients.least_squares(prepared, rest, norm, rtol, limit, xp, report)

        measure = by_gradient(prepared, system.b, norm, settings, xp)
        return _refined(system, step, measure, settings, xp)


def _refined(
    system: ScaledSystem,
    step: Step,
    measure: Measure,
    settings: IterationSettings,
    xp: Namespace,
    callback: IterationCallback = ignored,
) -> SolveResult:
    """Return what the steps add up to, or raise the error that says how far they came."""
    operator, b = system.operator, system.b
    x = xp.zeros((*b.shape[:-1], operator.shape[1]), dtype=b.dtype, device=device_of(b))
    rest, taken = b, 0
    size, done = measure(x, rest)
    lost = ~xp.all(xp.isfinite(operator._rmatvec(b / size_of(b, xp), xp)), axis=-1)
    done = done | lost  # as no iteration brings NaN to an end
    for tolerance in (settings.rtol / 2 * 0.1**k for k in range(_PASSES)):  # a solver may measure by another norm
        if bool(xp.all(done)) or taken >= settings.max_iter:
            break
        unsolved = xp.where(done[..., None], xp.zeros_like(rest), rest)
        scale = size_of(unsolved, xp)  # as solvers square their vectors
        report = partial(_added, callback, taken)
        change, count = step(unsolved / scale, tolerance, settings.max_iter - taken, report)
        taken += count
        before, trial = size, x + scale * change
        left = b - operator._matvec(trial, xp)
        size, done = measure(trial, left)
        done = done | lost
        better = size <= before  # not where it is NaN
        x, rest = (xp.where(better[..., None], new, old) for new, old in ((trial, x), (left, rest)))
        if bool(xp.all(done | ~(size < before / 2))):
            break
    residual = xp.where(lost, xp.full_like(size, float("nan")), relative_residual(rest, b, xp))
    done = measure(x, rest)[1] & ~lost
    return _checked(SolveResult(system.solution(x), residual, taken), done, b, settings, xp)


def _added(callback: IterationCallback, before: int, more: int) -> None:
    callback(before + more)


def _checked(result: SolveResult, done: Array, b: Array, settings: IterationSettings, xp: Namespace) -> SolveResult:
    """Return a result, or raise where it is not good enough; in a trace of JAX it is known by now to be NaN there."""
    if library_of(xp) == "jax":
        from structmat.linear_systems import _jax_solvers  # noqa: PLC0415  # JAX is there already

        if _jax_solvers.is_traced(done):
            return result._replace(x=xp.where(done[..., None], result.x, xp.full_like(result.x, float("nan"))))
    if not bool(xp.all(done)):
        raise _failure(result, b, settings, xp)
    return result


def _failure(result: SolveResult, b: Array, settings: IterationSettings, xp: Namespace) -> ConvergenceError:
    count = "" if result.iterations is None else f" after {result.iterations} iterations"
    largest = float(xp.max(result.residual))
    M = settings.preconditioner
    if not bool(xp.all(xp.isfinite(b))):
        advice = "b holds NaN or infinity"
    elif isinstance(M, LinearOperator) and not _is_finite_product(M, b, xp):
        advice = "the preconditioner gives NaN or infinity"
    elif isnan(largest):
        advice = "the matrix holds NaN or infinity, or its products do"
    else:
        advice = "raise rtol or max_iter"
        if settings.owner == "solve":
            advice += ", give a better preconditioner, or use lstsq for a singular matrix"
        if settings.assume != "general":
            advice += f'; if the matrix may not be {settings.assume}, assume="general"'
    text = (
        f"{settings.owner}: the relative residual is {largest:.2g}{count}, not "
        f"{settings.rtol:.2g}; {advice}. The error's attribute `result` holds what was reached"
    )
    return ConvergenceError(text, result)


def _is_finite_product(M: LinearOperator, b: Array, xp: Namespace) -> bool:
    with np.errstate(all="ignore"):
        return bool(xp.all(xp.isfinite(M._matvec(b, xp))))


_LONGEST = 10_000
"""The default number of iterations is ten times the number of unknowns, but at most this."""


def solve(
    A: LinearOperator,
    b: ArrayLike,
    *,
    assume: Literal["general", "hermitian", "positive definite"] = "general",
    preconditioner: LinearOperator | Literal["nearest"] | None = "nearest",
    rtol: float | None = None,
    max_iter: int | None = None,
    callback: Callable[[int], object] | None = None,
) -> SolveResult:
    """Solve ``A x = b`` for any square operator: by its closed form, else by preconditioned iteration.

    Parameters
    ----------
    A : LinearOperator
        The matrix or a stack of them, on any array library.
    b : array, shape (n,) or (..., n, k)
        One right-hand side, or right-hand sides in columns, as for `numpy.linalg.solve`; leading axes broadcast against
        the batch of `A`.
    assume : {"general", "hermitian", "positive definite"}, default "general"
        What is known of A, where it has no closed form. It is not checked.
    preconditioner : {"nearest"}, None or LinearOperator, default "nearest"
        An operator near the inverse of A, positive definite unless `assume` is "general". By default the inverse of
        the nearest circulant (of several levels on a grid) or diagonal matrix, whichever is nearer, if A is made of
        circulant, Toeplitz and diagonal parts, so that it costs little. The batch axes of a stack broadcast too: there
        is one solution for each.
    rtol : float, optional
        Iteration ends where ``norm(b - A x) <= rtol * norm(b)``. Default: 1e-10, in single precision 1e-5.
    max_iter : int, optional
        The most iterations. Default: ten times n, between 100 and 10,000.
    callback : callable, optional
        Called with the number of iterations after each of them, in NumPy of each right-hand side; not by closed forms,
        nor where JAX iterates.

    Returns
    -------
    SolveResult
        The solutions ``x``, their relative residuals, and the number of iterations.

    Raises
    ------
    ConvergenceError
        If iteration does not reach `rtol`, as where `b` holds NaN. Under ``jax.jit`` no value can be looked at: such
        solutions are NaN.
    numpy.linalg.LinAlgError
        If a closed form finds that A is singular.
    ValueError
        If A is not square, `b` has another length, or an option is none of these.
    TypeError
        If A is no operator, or `b` belongs to another array library.

    Warns
    -----
    scipy.linalg.LinAlgWarning
        If the closed form leaves more than `rtol` of a NumPy array, or gives NaN.

    See Also
    --------
    lstsq : For rectangular or singular matrices.
    LinearOperator.solve : The closed form alone.

    Notes
    -----
    NumPy arrays are solved by SciPy's conjugate gradients ("positive definite"), MINRES ("hermitian", if real) or GMRES
    with 50 vectors, JAX arrays by JAX's conjugate gradients or GMRES with 20, those of torch and other libraries by
    conjugate gradients, or by CGLS where A is not positive definite, which squares its condition number [1]_. Each
    iteration costs one product with A, in CGLS two. In NumPy and torch the residual is computed anew from the solution,
    and the solver runs again on what it left.

    Derivatives in torch and JAX by A and b are those of the solution itself, in reverse and forward mode, and cost one
    more solution. In torch ``vmap`` solves all systems along its axis together, until the slowest has converged.

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
    _require_operator(A, owner)
    if A.shape[0] != A.shape[1]:
        raise ArgumentValueError(owner, "A", f"must be square, got shape {A.shape}; use lstsq")
    one_of(assume, owner, "assume", ("general", "hermitian", "positive definite"))
    _require_preconditioner(preconditioner, A, owner)
    report = optional_function(callback, owner, "callback") or ignored
    A, b, preconditioner, in_columns = _along_last_axis(A, b, preconditioner, owner)
    op, right, xp, dtype, settings = _prepared(A, b, assume, preconditioner, rtol, max_iter, owner)
    with suppress(NotImplementedError):
        return in_columns(_warned(_closed(op, right, A.inv_matvec(b), xp), settings, xp))
    with suppress(NotImplementedError):
        return in_columns(_warned(_closed(op, right, A.inv().matvec(b), xp), settings, xp))
    with _failures(in_columns):
        return in_columns(_restored(solution(op, right, settings, xp, report), dtype, xp))


def lstsq(A: LinearOperator, b: ArrayLike, *, rtol: float | None = None, max_iter: int | None = None) -> SolveResult:
    """Return the x of least norm that minimises ``norm(b - A x)``: by a closed form, else by iteration.

    Parameters
    ----------
    A : LinearOperator
        The matrix of any shape and rank, or a stack of them, on any array library.
    b : array, shape (rows,) or (..., rows, k)
        One right-hand side, or right-hand sides in columns, as for `numpy.linalg.lstsq`; leading axes broadcast against
        the batch of `A`.
    rtol : float, optional
        Iteration ends where the residual r has ``norm(r) <= rtol * norm(b)`` or ``norm(A^H r) <= rtol * norm(A) *
        norm(r)``. Default: 1e-10, in single precision 1e-5.
    max_iter : int, optional
        The most iterations. Default: ten times the smaller side, between 100 and 10,000.

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

    Notes
    -----
    NumPy arrays are solved by SciPy's LSMR [1]_, those of torch and other libraries by CGLS, JAX arrays by conjugate
    gradients on the normal equations, which needs a condition number below some 1e5 in double precision. The number of
    iterations grows with the condition number; singular values that are zero do not count. Closed forms take singular
    values at the level of rounding for zeros; iteration leaves what has not been reached.

    Derivatives in torch and JAX are those of the solution itself. They are valid where the rank does not change nearby;
    in JAX the matrix must have full rank.

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
    _require_operator(A, owner)
    A, b, _, in_columns = _along_last_axis(A, b, None, owner)
    op, right, xp, dtype, settings = _prepared(A, b, "general", None, rtol, max_iter, owner)
    with suppress(NotImplementedError):
        return in_columns(_warned(_closed(op, right, A.pinv_matvec(b), xp), settings, xp))
    with _failures(in_columns):
        return in_columns(_restored(least_squares(op, right, settings, xp), dtype, xp))


def _require_operator(A: object, owner: str) -> None:
    if not isinstance(A, LinearOperator):
        text = f"must be a structmat operator, got {type(A).__name__}; for arrays use numpy.linalg.{owner}"
        raise ArgumentTypeError(owner, "A", text)


def _require_preconditioner(value: Any, A: LinearOperator, owner: str) -> None:
    if value is None or (isinstance(value, LinearOperator) and value.shape == A.shape):
        return
    if isinstance(value, LinearOperator):
        text = f"must have the shape of A, {A.shape}, got {value.shape}"
        raise ArgumentValueError(owner, "preconditioner", text)
    if not isinstance(value, str):
        text = f'must be "nearest", None or an operator, got {type(value).__name__}'
        raise ArgumentTypeError(owner, "preconditioner", text)
    one_of(value, owner, "preconditioner", ("nearest",))


def _along_last_axis(
    A: LinearOperator, b: ArrayLike, M: Any, owner: str
) -> tuple[LinearOperator, Any, Any, Callable[[SolveResult], SolveResult]]:
    """Return operator, right-hand sides along the last axis, preconditioner, and how to bring results into columns."""
    if is_vector(b):
        return A, b, M, lambda result: result
    _, _, xp, _ = A._operand(b, owner, "b", A.shape[0], axis=-2)  # which checks the shape
    right, _ = A._read(b, owner, "b")
    A, M = (op._with_batch_axis(xp) if isinstance(op, LinearOperator) and op.batch_shape else op for op in (A, M))
    return A, xp.matrix_transpose(right), M, lambda result: result._replace(x=xp.matrix_transpose(result.x))


@contextmanager
def _failures(in_columns: Callable[[SolveResult], SolveResult]) -> Iterator[None]:
    """Bring the solutions that come with an error into columns too."""
    try:
        yield
    except ConvergenceError as error:
        error.result = in_columns(error.result)
        raise


def _prepared(
    A: LinearOperator, b: ArrayLike, assume: str, M: Any, rtol: float | None, max_iter: int | None, owner: str
) -> tuple[LinearOperator, Array, Namespace, DType, IterationSettings]:
    """Return operator and right-hand sides in the dtype of the computation, their library, and how to iterate."""
    op, right, xp, dtype = A._operand(b, owner, "b", A.shape[0])
    dtype = right.dtype if dtype is None else dtype
    precision = precision_of(dtype, xp)
    numbers = [right.dtype] if op.dtype is None else [right.dtype, op.dtype]
    if isinstance(M, LinearOperator):
        namespace_of(owner, right, *M._arrays())
        M = M._in_precision(precision, xp)
        numbers += [] if M.dtype is None else [M.dtype]
    if op._forces_complex or any(is_complex(number, xp) for number in numbers):
        right = xp.astype(right, complex_partner(precision, xp))
    others = (M.batch_shape,) if isinstance(M, LinearOperator) else ()
    batch = broadcast_shapes(owner, op.batch_shape, tuple(right.shape[:-1]), *others)
    right = xp.broadcast_to(right, (*batch, right.shape[-1]))
    if rtol is None:
        rtol = 1e-10 if float(xp.finfo(precision).eps) < 1e-10 else 1e-5
    elif not non_negative(rtol, owner, "rtol"):
        raise ArgumentValueError(owner, "rtol", "must be above zero, got 0")
    if max_iter is None:
        max_iter = min(max(100, 10 * min(A.shape)), _LONGEST)
    return op, right, xp, dtype, IterationSettings(owner, assume, M, float(rtol), integer(max_iter, owner, "max_iter"))


def _closed(op: LinearOperator, b: Array, x: Array, xp: Namespace) -> SolveResult:
    """Return a solution in closed form with its residual."""
    wide = xp.astype(x, b.dtype) if x.dtype != b.dtype else x
    if x.shape[:-1] != b.shape[:-1]:  # which has the batch axes of a preconditioner as well
        x = xp.broadcast_to(x, (*b.shape[:-1], x.shape[-1]))
    return SolveResult(x, relative_residual(b - op._matvec(wide, xp), b, xp), 0)


def _warned(result: SolveResult, settings: IterationSettings, xp: Namespace) -> SolveResult:
    """Return a result, after a warning where it is not what was asked for; only NumPy's values are looked at."""
    if not is_numpy(xp):
        return result
    residuals: Any = result.residual
    largest = float(np.max(residuals, initial=0.0, where=~np.isnan(residuals)))
    texts = []
    if np.any(np.isnan(residuals)):
        texts.append("the solution is NaN: A or b hold NaN or infinity, or it overflows")
    if settings.owner == "solve" and largest > settings.rtol:
        left = f"a relative residual of {largest:.1g}, above rtol = {settings.rtol:g}"
        texts.append(f"the closed form leaves {left}: A is ill-conditioned")
    for text in texts:
        warn_caller(f"{settings.owner}: {text}", scipy.linalg.LinAlgWarning)
    return result


def _restored(result: SolveResult, dtype: DType, xp: Namespace) -> SolveResult:
    return result._replace(x=restored(result.x, dtype, xp))
