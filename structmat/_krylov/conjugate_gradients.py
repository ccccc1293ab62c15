"""Conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from structmat._arrays.libraries import rules_of
from structmat._arrays.typing import Array, Namespace
from structmat._krylov.vectors import Count, Product, inner_of, smallest_normal


class ByConjugateGradients(NamedTuple):
    """What the method has found."""

    x: Array
    """The solutions."""
    is_definite: Array
    """Which right-hand sides have not shown that the matrix is not positive definite."""
    iterations: Count
    """How many iterations were made, the most for any right-hand side."""


def conjugate_gradients(
    product: Product,
    b: Array,
    preconditioned: Product | None = None,
    *,
    rtol: float,
    max_iter: Count,
    xp: Namespace,
    stagnates: Callable[[Array], bool] | None = None,
) -> ByConjugateGradients:
    """Return solutions for all vectors of b with one Hermitian positive definite matrix, or with a stack of them.

    A right-hand side that is solved to `rtol`, or has shown that the matrix is not positive definite, stays as it is.
    For libraries whose values can be read, `stagnates` is called before each step with the squares of the norms of all
    residuals, and iteration ends where it returns True.
    """
    dot = inner_of(b.dtype, xp)
    square = dot(b, b)
    target = rtol**2 * square
    nothing, smallest = xp.zeros_like(square), smallest_normal(b.dtype, xp)
    rules = rules_of(xp)
    add = rules.add

    def goes_on(state: tuple[Any, ...]) -> Any:
        *_, square, active, count = state
        may_go_on = xp.any(active) & (count < max_iter)
        return may_go_on if stagnates is None else bool(may_go_on) and not stagnates(square)

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        x, r, p, rho, _, active, count = state
        q = product(p)
        curvature = dot(p, q)
        active = active & (curvature > 0.0)  # else the matrix is not positive definite
        alpha = xp.where(active, rho / curvature, nothing)[..., None]
        x = add(x, alpha * p)
        r = add(r, -alpha * q)
        z = r if preconditioned is None else preconditioned(r)
        following = dot(r, z)
        beta = following / (rho + smallest)  # one for what has converged, whose x and r stay
        square = dot(r, r)
        return x, r, add(beta[..., None] * p, z), following, square, active & (square > target), count + 1

    r = xp.asarray(b, copy=True)
    p = xp.asarray(b if preconditioned is None else preconditioned(b), copy=True)
    state = (xp.zeros_like(b), r, p, dot(b, p), square, square > target, 0)
    x, *_, square, active, count = rules.loop(goes_on, step, state)
    return ByConjugateGradients(x, active | (square <= target), count)
