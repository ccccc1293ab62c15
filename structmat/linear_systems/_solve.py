"""Linear systems and least-squares problems with any operator: by its closed form, else by preconditioned iteration."""

from __future__ import annotations

import sys
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from math import isnan
from typing import Any, Literal

import numpy as np
import scipy  # its `linalg` is imported on first use

from structmat._arguments import integer, non_negative, one_of
from structmat._arrays.dtypes import cast_back, complex_partner, is_complex, precision_of
from structmat._arrays.libraries import device_of, is_numpy, library_of, namespace_of
from structmat._arrays.shapes import broadcast_shapes, concat_last, is_vector
from structmat._arrays.tracing import is_differentiated
from structmat._arrays.typing import Array, ArrayLike, DType, Namespace
from structmat._errors import ArgumentTypeError, ArgumentValueError, warn_caller
from structmat.linear_systems._systems import (
    LEAST_SQUARES,
    ConvergenceError,
    Counter,
    IterationSettings,
    SolveResult,
    System,
    by_gradient,
    by_residual,
    is_as_small_as_rounding,
    iterate,
    iterations_on_trial,
    norm_of,
    relative_residual,
    size_of,
    written_out,
)
from structmat.operators import Identity, LinearOperator

_PASSES = 6
"""How often a solver is run at most, each time on what the runs before have left."""

_LONGEST = 10_000
"""The default number of iterations is ten times the number of unknowns, but at most this."""

_WRITTEN_OUT = 2000
"""Up to so many unknowns a matrix is written out where half as many iterations do not solve the system.

Elimination takes 0.2 s for 2,000 unknowns on one core, where 1,000 products with a Toeplitz matrix take 0.07 s.
"""


def iterations_before_elimination(n: int) -> int:
    """Return how many iterations are made before the matrix of n unknowns is written out."""
    return max(100, n // 2)


def solution(operator: LinearOperator, b: Array, settings: IterationSettings, xp: Namespace) -> SolveResult:
    """Return the solutions of square systems, or the least-squares solutions of least norm, with their derivatives.

    The operator is in the precision of computations, `b` of the dtype of the solutions and with all batch axes.
    """
    if library_of(xp) == "jax":
        from structmat.linear_systems import _jax_solvers  # noqa: PLC0415  # JAX is there already

        solver = _jax_solvers.least_squares if settings.assume == LEAST_SQUARES else _jax_solvers.solution
        found, done = solver(operator, b, settings)
        return _checked(found, done, b, settings, xp)

    if not is_differentiated([b, *operator._arrays()], xp):
        return _iterated(operator, b, settings, xp)
    if settings.assume == LEAST_SQUARES:
        text = "has no derivatives by iteration; use structmat.solve(A.H @ A, A.H @ b), with damp "
        text += "structmat.solve(A.H @ A + damp**2 * structmat.Identity(cols), A.H @ b)"
        raise NotImplementedError(f"{settings.owner}: {text}")
    given = [op for op in (operator, settings.preconditioner) if isinstance(op, LinearOperator)]
    problem = _Problem(given, settings)
    x, residual = _implicit(xp).apply(problem, b, *(array for op in given for array in arrays_of(op)))
    return SolveResult(x, residual, problem.iterations)


# Derivatives in torch, by the implicit rule, so that no iteration is recorded


@dataclass
class _Problem:
    """What the function of autograd is given beside arrays; torch.func would take a tuple of it apart."""

    given: list[LinearOperator]
    """The operator, and its preconditioner where that is one."""
    settings: IterationSettings
    iterations: int | None = None

    def parts(self, arrays: Any) -> tuple[LinearOperator, IterationSettings]:
        """Return operator and settings with other arrays."""
        operator, *others = with_arrays(self.given, arrays)
        return operator, self.settings._replace(preconditioner=others[0]) if others else self.settings


def arrays_of(operator: LinearOperator) -> list[Any]:
    """Return the arrays of an operator in the order of `_map`, those of its plans included."""
    found: list[Any] = []

    def note(array: Any, _: int) -> Any:
        found.append(array)
        return array

    operator._map(note)
    return found


def with_arrays(operators: list[LinearOperator], arrays: Any) -> list[LinearOperator]:
    """Return operators with other arrays."""
    rest = iter(arrays)
    return [op._map(lambda _, axes: next(rest)) for op in operators]  # noqa: ARG005


@cache
def _implicit(torch: Namespace) -> Any:
    """Return the function of autograd."""

    class Implicit(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(problem: Any, b: Any, *arrays: Any) -> Any:
            operator, settings = problem.parts(arrays)
            x, residual, problem.iterations = _iterated(operator, b, settings, torch)
            return x, residual

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.problem, *tensors = inputs
            x, residual = output
            ctx.mark_non_differentiable(residual)
            ctx.save_for_backward(x, *tensors)

        @staticmethod
        def backward(ctx: Any, gradient: Any, _: Any) -> Any:
            """``dx = A^-1 (db - dA x)``: the gradient for ``b - A x`` is ``A^-H g``."""
            x, b, *arrays = ctx.saved_tensors
            operator, settings = ctx.problem.parts(arrays)
            M = settings.preconditioner
            adjoint = settings._replace(preconditioner=M.H if isinstance(M, LinearOperator) else M)
            cotangent = solution(operator.H, gradient, adjoint, torch).x
            mine = arrays[: len(arrays_of(operator))]
            _, pull = torch.func.vjp(lambda b, *new: b - with_arrays([operator], new)[0]._matvec(x, torch), b, *mine)
            return (None, *pull(cotangent), *[None] * (len(arrays) - len(mine)))  # none for the preconditioner

    return Implicit


def _iterated(operator: LinearOperator, b: Array, settings: IterationSettings, xp: Namespace) -> SolveResult:
    """Return what a solver finds in several passes, of which torch records nothing."""
    torch: Any = xp
    with torch.no_grad() if library_of(xp) == "torch" else nullcontext():
        system = System.of(operator, b, xp)
        A: LinearOperator = system.operator.prepare()
        if settings.assume == LEAST_SQUARES:
            M, norm = None, norm_of(A, b, xp)
            measure = by_gradient(A, system.b, norm, settings, xp)
        else:
            M, norm = system.preconditioner(settings, xp), xp.zeros_like(xp.real(b[..., 0]))
            M = None if M is None else M.prepare()
            measure = by_residual(system.b, settings, xp)
        on_trial = settings.assume == "general" and settings.preconditioner == "nearest" and M is not None
        count = Counter()
        x = xp.zeros((*b.shape[:-1], A.shape[1]), dtype=b.dtype, device=device_of(b))
        rest = system.b
        size, done = measure(x, rest)
        product = A._matvec if A.shape[0] == A.shape[1] else A._rmatvec
        lost = ~xp.all(xp.isfinite(product(rest / size_of(rest, xp), xp)), axis=-1)
        done = done | lost  # as no iteration brings NaN to an end
        for k in range(_PASSES):  # a solver may measure by another norm
            left = settings.max_iter - count.before
            if bool(xp.all(done)) or left <= 0:
                break
            unsolved = xp.where(done[..., None], xp.zeros_like(rest), rest)
            scale = size_of(unsolved, xp)  # as solvers square their vectors
            limit = iterations_on_trial(left, A) if on_trial else left
            goal = settings._replace(preconditioner=M, rtol=settings.rtol / 2 * 0.1**k, max_iter=limit)
            change = iterate(A, unsolved / scale, norm, goal, count, xp)
            count.end_pass()
            before, trial = size, x + scale * change
            remaining = system.b - A._matvec(trial, xp)
            size, done = measure(trial, remaining)
            done = done | lost
            better = (size <= before)[..., None]  # not where it is NaN
            x, rest = xp.where(better, trial, x), xp.where(better, remaining, rest)
            helped = bool(xp.any(~done & (size < before / 2)))
            size = xp.where(better[..., 0], size, before)
            if not (helped or on_trial):
                break
            if not helped:
                M, on_trial = None, False
        done = measure(x, rest)[1] & ~lost
        if settings.writes_out and not bool(xp.all(done | lost)) and _gives_finite_vectors(M, system.b, xp):
            x = xp.where((done | lost)[..., None], x, written_out(system.operator, x, system.b, xp))
            rest = system.b - A._matvec(x, xp)
            done = (measure(x, rest)[1] | is_as_small_as_rounding(A, x, rest, system.b, xp)) & ~lost
        residual = xp.where(lost, xp.full_like(size, float("nan")), relative_residual(rest, system.b, xp))
        return _checked(SolveResult(system.solution(x), residual, count.before), done, system.b, settings, xp)


def _gives_finite_vectors(preconditioner: LinearOperator | None, b: Array, xp: Namespace) -> bool:
    """Tell whether a preconditioner is of some use; else that is an error, which elimination would hide."""
    return preconditioner is None or bool(xp.all(xp.isfinite(preconditioner._matvec(b, xp))))


def _checked(result: SolveResult, done: Array, b: Array, settings: IterationSettings, xp: Namespace) -> SolveResult:
    """Return a result, or raise where it is not good enough; in a trace of JAX it is known by now to be NaN there."""
    if library_of(xp) == "jax" and isinstance(done, sys.modules["jax"].core.Tracer):
        return result._replace(x=xp.where(done[..., None], result.x, xp.full_like(result.x, float("nan"))))
    if not bool(xp.all(done)):
        raise _failure(result, b, settings, xp)
    return result


@np.errstate(all="ignore")
def _failure(result: SolveResult, b: Array, settings: IterationSettings, xp: Namespace) -> ConvergenceError:
    count = "" if result.iterations is None else f" after {result.iterations} iterations"
    largest = float(xp.max(result.residual))
    M = settings.preconditioner
    if not bool(xp.all(xp.isfinite(b))):
        advice = "b holds NaN or infinity"
    elif isinstance(M, LinearOperator) and not bool(xp.all(xp.isfinite(M._matvec(b, xp)))):
        advice = "the preconditioner gives NaN or infinity"
    elif isnan(largest):
        advice = "the matrix holds NaN or infinity, or its products do"
    else:
        advice = "raise rtol or max_iter"
        if settings.owner == "solve":
            advice += ", give a better preconditioner, or use lstsq for a singular matrix"
        if settings.assume == "positive definite":
            advice += '; if the matrix may not be positive definite, assume="general"'
    text = (
        f"{settings.owner}: the relative residual is {largest:.2g}{count}, not "
        f"{settings.rtol:.2g}; {advice}. The error's attribute `result` holds what was reached"
    )
    return ConvergenceError(text, result)


def solve(
    A: LinearOperator,
    b: ArrayLike,
    *,
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
    assume : {"general", "positive definite"}, default "general"
        What is known of A, where it has no closed form. It is not checked.
    preconditioner : {"nearest"}, None or LinearOperator, default "nearest"
        An operator near the inverse of A, positive definite unless `assume` is "general". By default the inverse of
        the nearest circulant (of several levels on a grid) or diagonal matrix, whichever is nearer, if A is made of
        circulant, Toeplitz and diagonal parts, so that it costs little; where that does not help a system whose A is
        "general", iteration goes on without it. The batch axes of a stack broadcast too: there is one solution for
        each.
    rtol : float, optional
        Iteration ends where ``norm(b - A x) <= rtol * norm(b)``. Default: 1e-10, in single precision 1e-5.
    max_iter : int, optional
        The most iterations. Default: ten times n, at most 10,000. Up to 2,000 unknowns instead half of n, at least 100;
        what is not solved by then is solved by elimination of the dense matrix.

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
        If a closed form or elimination leaves more than `rtol` of a NumPy array, or gives NaN.

    See Also
    --------
    lstsq : For rectangular or singular matrices.
    LinearOperator.solve : The closed form alone.

    Notes
    -----
    NumPy arrays are solved by SciPy's conjugate gradients ("positive definite") or GMRES with 50 vectors, JAX arrays by
    JAX's conjugate gradients or GMRES with 20, those of torch and other libraries by conjugate gradients, or by CGLS
    where A is not positive definite, which squares its condition number [1]_. Each iteration costs one product with A,
    in CGLS two. In NumPy and torch the residual is computed anew from the solution, and the solver runs again on what
    it left.

    Derivatives in torch and JAX by A and b are those of the solution itself, and cost one more solution: in torch in
    reverse mode. There ``vmap`` does not reach an iteration: solve all systems of a stack at once.

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
    require_operator(A, "solve")
    if A.shape[0] != A.shape[1]:
        raise ArgumentValueError("solve", "A", f"must be square, got shape {A.shape}; use lstsq")
    one_of(assume, "solve", "assume", ("general", "positive definite"))
    _require_preconditioner(preconditioner, A)
    return _answer(A, b, IterationSettings("solve", assume, preconditioner, rtol, max_iter))


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
    NotImplementedError
        If iteration is to be differentiated in torch.

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

    Iteration has derivatives in JAX alone, for matrices of full rank or with `damp`; in torch differentiate ``solve(A.H
    @ A + damp**2 * Identity(cols), A.H @ b)``.

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
    require_operator(A, "lstsq")
    settings = IterationSettings("lstsq", LEAST_SQUARES, None, rtol, max_iter)
    return _answer(A, b, settings, non_negative(damp, "lstsq", "damp"))


def require_operator(A: object, owner: str) -> None:
    if not isinstance(A, LinearOperator):
        text = f"must be a structmat operator, got {type(A).__name__}; for arrays use numpy.linalg.{owner}"
        raise ArgumentTypeError(owner, "A", text)


def _require_preconditioner(value: Any, A: LinearOperator) -> None:
    if value is None or (isinstance(value, LinearOperator) and value.shape == A.shape):
        return
    if isinstance(value, LinearOperator):
        text = f"must have the shape of A, {A.shape}, got {value.shape}"
        raise ArgumentValueError("solve", "preconditioner", text)
    if not isinstance(value, str):
        text = f'must be "nearest", None or an operator, got {type(value).__name__}'
        raise ArgumentTypeError("solve", "preconditioner", text)
    one_of(value, "solve", "preconditioner", ("nearest",))


def _answer(A: LinearOperator, b: ArrayLike, asked: IterationSettings, damp: float = 0.0) -> SolveResult:
    """Return the solution in closed form where there is one, else by iteration, for vectors or columns as they came."""
    columns = not is_vector(b)
    op, vectors, xp, dtype = A._operand(b, asked.owner, "b", A.shape[0], axis=-2 if columns else -1)
    if columns:
        vectors, M = xp.matrix_transpose(vectors), asked.preconditioner
        op, M = (A._with_batch_axis(xp) if isinstance(A, LinearOperator) and A.batch_shape else A for A in (op, M))
        asked = asked._replace(preconditioner=M)
    dtype = vectors.dtype if dtype is None else dtype
    right, settings = _settled(op, vectors, dtype, asked, xp)

    def finished(result: SolveResult) -> SolveResult:
        if damp:  # that of the system itself
            residual = relative_residual(right - op._matvec(result.x, xp), right, xp)
            result = result._replace(residual=residual)
        x = cast_back(result.x, dtype, xp)
        return result._replace(x=xp.matrix_transpose(x) if columns else x)

    with suppress(NotImplementedError):
        if damp:
            x = op._damped_pinv(damp, xp).matvec(vectors)
        else:
            x = op.pinv().matvec(vectors) if asked.assume == LEAST_SQUARES else op.inv_matvec(vectors)
        wide = xp.astype(x, right.dtype) if x.dtype != right.dtype else x
        x = xp.broadcast_to(x, (*right.shape[:-1], x.shape[-1]))  # to the batch of a preconditioner as well
        found = SolveResult(x, relative_residual(right - op._matvec(wide, xp), right, xp), 0)
        return finished(_warned(found, settings, xp))
    system, sides = _damped(op, right, damp, xp) if damp else (op, right)
    try:
        return finished(_warned(solution(system, sides, settings, xp), settings, xp))
    except ConvergenceError as error:
        error.result = finished(error.result)
        raise


def _damped(op: LinearOperator, right: Array, damp: float, xp: Namespace) -> tuple[LinearOperator, Array]:
    """Return the system ``[A; damp I] x = [b; 0]``, whose least-squares solutions are those of A with `damp`."""
    rows, cols = op.shape
    identity = Identity(rows + cols)
    zeros = xp.zeros((*right.shape[:-1], cols), dtype=right.dtype, device=device_of(right))
    return identity[:, :rows] @ op + identity[:, rows:] * damp, concat_last([right, zeros], xp)


def _settled(
    op: LinearOperator, vectors: Array, dtype: DType, asked: IterationSettings, xp: Namespace
) -> tuple[Array, IterationSettings]:
    """Return right-hand sides with the dtype and all batch axes of the solutions, and how to iterate."""
    owner, M, rtol, max_iter = asked.owner, asked.preconditioner, asked.rtol, asked.max_iter
    precision, batches = precision_of(dtype, xp), [op.batch_shape, tuple(vectors.shape[:-1])]
    numbers = [vectors.dtype] if op.dtype is None else [vectors.dtype, op.dtype]
    if isinstance(M, LinearOperator):
        namespace_of(owner, vectors, *M._arrays())
        M = M._in_precision(precision, xp)
        numbers += [] if M.dtype is None else [M.dtype]
        batches.append(M.batch_shape)
    if op._forces_complex or any(is_complex(number, xp) for number in numbers):
        vectors = xp.astype(vectors, complex_partner(precision, xp))
    right = xp.broadcast_to(vectors, (*broadcast_shapes(owner, *batches), vectors.shape[-1]))
    if rtol is None:
        rtol = 1e-10 if float(xp.finfo(precision).eps) < 1e-10 else 1e-5
    elif not non_negative(rtol, owner, "rtol"):
        raise ArgumentValueError(owner, "rtol", "must be above zero, got 0")
    writes_out = max_iter is None and asked.assume != LEAST_SQUARES and op.shape[0] <= _WRITTEN_OUT
    if writes_out:
        max_iter = iterations_before_elimination(op.shape[0])
    elif max_iter is None:
        max_iter = min(max(100, 10 * min(op.shape)), _LONGEST)
    limit = integer(max_iter, owner, "max_iter")
    return right, asked._replace(preconditioner=M, rtol=float(rtol), max_iter=limit, writes_out=writes_out)


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
        left = f"a relative residual of {largest:.1g} is left, above rtol = {settings.rtol:g}"
        texts.append(f"{left}: A is ill-conditioned")
    for text in texts:
        warn_caller(f"{settings.owner}: {text}", scipy.linalg.LinAlgWarning)
    return result
