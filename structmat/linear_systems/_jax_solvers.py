"""Iteration with JAX arrays: the solvers of JAX, which have gradients and can be traced."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg, gmres

import structmat.jax  # noqa: F401  # registers the operators
from structmat._arrays.libraries import namespace_of
from structmat.linear_systems._systems import (
    IterationSettings,
    SolveResult,
    System,
    by_gradient,
    by_residual,
    is_as_small_as_rounding,
    iterations_on_trial,
    norm_of,
    relative_residual,
    written_out,
)
from structmat.operators import LinearOperator

_RESTART = 20
"""Vectors that GMRES keeps."""


def solution(operator: LinearOperator, b: Any, settings: IterationSettings) -> tuple[SolveResult, Any]:
    """Return solutions of square systems, and which of them are good enough."""
    M = settings.preconditioner
    if isinstance(M, LinearOperator):
        return _solution(operator, b, M, settings._replace(preconditioner="given"))
    return _solution(operator, b, None, settings)


@partial(jax.jit, static_argnums=3)
def _solution(operator: Any, b: Any, given: Any, settings: IterationSettings) -> tuple[SolveResult, Any]:
    """Iterate, compiled once for each shape."""
    xp = namespace_of("solve", b)
    system = System.of(operator, b, xp)
    asked = settings if given is None else settings._replace(preconditioner=given)
    M = jax.lax.stop_gradient(system.preconditioner(asked, xp))
    A, solve = system.operator, partial(_once, settings=settings)
    if settings.assume == "general" and settings.preconditioner == "nearest" and M is not None:
        first = iterations_on_trial(settings.max_iter, A)
        solve = partial(_in_two_passes, settings=settings, first=first) if first < settings.max_iter else solve
    if settings.writes_out:
        solve = partial(_or_written_out, solve, settings=settings)

    x = jax.lax.custom_linear_solve(  # whose derivatives are those of the solution, whatever led to it
        lambda v: A._matvec(v, xp),
        system.b,
        lambda _, v: solve(A, M, v),
        lambda _, v: solve(A._transpose(), None if M is None else M._transpose(), v),
    )
    rest = system.b - A._matvec(x, xp)
    residual, done = by_residual(system.b, settings, xp)(x, rest)
    if settings.writes_out:
        done = jax.lax.cond(
            jnp.all(done), lambda: done, lambda: done | is_as_small_as_rounding(A, x, rest, system.b, xp)
        )
    return SolveResult(system.solution(x), residual, None), done


def _or_written_out(solve: Callable[..., Any], A: Any, M: Any, b: Any, *, settings: IterationSettings) -> Any:
    """Return solutions for right-hand sides, by elimination of the dense matrix where iteration finds none."""
    x = solve(A, M, b)
    _, done = by_residual(b, settings, jnp)(x, b - A._matvec(x, jnp))
    eliminated = partial(written_out, A, b=b, xp=jnp)
    return jax.lax.cond(jnp.all(done), lambda x: x, lambda x: jnp.where(done[..., None], x, eliminated(x=x)), x)


def _once(A: Any, M: Any, b: Any, settings: IterationSettings) -> Any:
    """Return solutions for right-hand sides, by one run of a solver."""
    by_cg = settings.assume == "positive definite"
    return _each(partial(_by_cg if by_cg else _by_gmres, settings=settings), b, A, M)


def _in_two_passes(A: Any, M: Any, b: Any, settings: IterationSettings, first: int) -> Any:
    """Return solutions for right-hand sides, begun again without the preconditioner where that was of no use."""
    measure = by_residual(b, settings, jnp)
    x = _once(A, M, b, settings._replace(max_iter=first))
    size, done = measure(x, b - A._matvec(x, jnp))

    def without(x: Any) -> Any:
        unsolved = jnp.where(done[..., None], jnp.zeros_like(b), b)
        found = _once(A, None, unsolved, settings._replace(max_iter=settings.max_iter - first))
        found_size, _ = measure(found, b - A._matvec(found, jnp))
        return jnp.where((done | (size <= found_size))[..., None], x, found)

    return jax.lax.cond(jnp.all(done), lambda x: x, without, x)


def _by_cg(A: Any, M: Any, v: Any, *, settings: IterationSettings) -> Any:
    by_M = None if M is None else (lambda u: M._matvec(u, jnp))
    return cg(lambda u: A._matvec(u, jnp), v, tol=settings.rtol / 4, maxiter=settings.max_iter, M=by_M)[0]


def _by_gmres(A: Any, M: Any, v: Any, *, settings: IterationSettings) -> Any:
    """Iterate with ``A M`` in place of A, so that the residual is that of the system itself."""
    restart = min(_RESTART, settings.max_iter, v.shape[-1])
    cycles = settings.max_iter // restart

    def inner(u: Any) -> Any:
        return u if M is None else M._matvec(u, jnp)

    y, _ = gmres(lambda u: A._matvec(inner(u), jnp), v, tol=settings.rtol / 4, restart=restart, maxiter=cycles)
    return inner(y)


@partial(jax.jit, static_argnums=2)
def least_squares(operator: Any, b: Any, settings: IterationSettings) -> tuple[SolveResult, Any]:
    """Return least-squares solutions of least norm, and which of them are good enough."""
    xp = namespace_of("lstsq", b)
    system = System.of(operator, b, xp)
    A, v = system.operator, system.b
    x = _each(partial(_by_normal_equations, settings=settings), v, A)
    rest = v - A._matvec(x, xp)
    done = by_gradient(A, v, norm_of(A, v, xp), settings, xp)(x, rest)[1]
    return SolveResult(system.solution(x), relative_residual(rest, v, xp), None), done


def _by_normal_equations(A: Any, v: Any, *, settings: IterationSettings) -> Any:
    """Iterate on ``A^H A x = A^H b``, for a wide matrix on ``A A^H y = b`` with ``x = A^H y``."""
    product, adjoint = partial(A._matvec, xp=jnp), partial(A._rmatvec, xp=jnp)
    options = {"tol": settings.rtol / 4, "maxiter": settings.max_iter}
    if A.shape[0] >= A.shape[1]:
        return cg(lambda u: adjoint(product(u)), adjoint(v), **options)[0]
    return adjoint(cg(lambda u: product(adjoint(u)), v, **options)[0])


# Log-determinants, whose formulas are given as functions


@partial(jax.jit, static_argnums=(2, 3))
def quadrature(operator: Any, z: Any, steps: int, estimates: Callable[..., Any]) -> Any:
    """Return estimates of a log-determinant, whether they are settled, and the operator Hermitian."""
    return estimates(operator, z, steps, jax.lax.scan, namespace_of("slogdet", z))


@partial(jax.jit, static_argnums=(3, 4))
def with_derivatives(operator: Any, z: Any, value: Any, add_control: Callable[..., Any], functions: Any) -> Any:
    """Return an estimate with derivatives, compiled once."""
    return add_control(operator, z, value, partial(_trace, functions), namespace_of("slogdet", z))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _trace(functions: Any, operator: Any, z: Any, value: Any) -> Any:  # noqa: ARG001
    """Return the value, of which the derivative is the mean of ``z^H A^-1 dA z``."""
    return value


def _trace_pulled(functions: Any, kept: Any, gradient: Any) -> Any:
    (operator, z), (solved, bilinear) = kept, functions
    w = solved(operator, z, namespace_of("slogdet", z))
    _, pull = jax.vjp(lambda op: bilinear(op, w, z, jnp), operator)
    return (*pull(gradient), jnp.zeros_like(z), jnp.zeros_like(gradient))


_trace.defvjp(lambda functions, operator, z, value: (value, (operator, z)), _trace_pulled)  # noqa: ARG005


def _each(one: Callable[..., Any], b: Any, *operators: LinearOperator | None) -> Any:
    """Return what a solver finds for each right-hand side, with its member of stacks of operators."""
    lead = b.shape[:-1]
    if not lead:
        return one(*operators, b)

    def flat(array: Any, axes: int) -> Any:
        core = array.shape[array.ndim - axes :]
        return jnp.reshape(jnp.broadcast_to(array, (*lead, *core)), (prod(lead), *core))

    stacks = [op is not None and bool(op.batch_shape) for op in operators]
    members = [op._map(flat) if op is not None and stack else op for op, stack in zip(operators, stacks, strict=True)]
    axes = (*(0 if stack else None for stack in stacks), 0)
    found = jax.vmap(one, in_axes=axes)(*members, jnp.reshape(b, (prod(lead), b.shape[-1])))
    return jnp.reshape(found, (*lead, found.shape[-1]))
