"""Gradients of solutions in torch by the implicit rule, so that no iteration is recorded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import Any, TypeAlias

from structmat._arrays import library_of
from structmat._arrays.typing import Array, Namespace
from structmat.operators import LinearOperator

__all__ = ["differentiable", "pulled_back", "recording_nothing", "wants_gradients"]

Rule: TypeAlias = Callable[[Array, Array, Array, LinearOperator], "tuple[Any, ...]"]
"""From the gradient for x, x itself, b and the operator to the gradients for b and for every array of the operator."""


def recording_nothing(xp: Namespace) -> Any:
    """Return a context in which torch records nothing."""
    torch: Any = xp
    return torch.no_grad() if library_of(xp) == "torch" else nullcontext()


def wants_gradients(operator: LinearOperator, b: Array, xp: Namespace) -> bool:
    """Tell whether torch is to differentiate the solution."""
    if library_of(xp) != "torch":
        return False
    torch: Any = xp
    tensors: list[Any] = [b, *operator._arrays()]
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def differentiable(x: Array, b: Array, operator: LinearOperator, rule: Rule, xp: Namespace) -> Array:
    """Return a solution x with its gradients by a rule, which may be differentiated itself."""
    function = _implicit(xp)
    solution: Array = function.apply(x, operator, rule, b, *operator._arrays())
    return solution


def pulled_back(
    products: Callable[[LinearOperator], Any], operator: LinearOperator, cotangents: Any, xp: Namespace
) -> tuple[Any, ...]:
    """Return the gradients for the arrays of an operator from those for products with it."""
    torch: Any = xp
    _, pull = torch.func.vjp(lambda *arrays: products(_with(operator, arrays)), *operator._arrays())
    return tuple(pull(cotangents))


def _with(operator: LinearOperator, arrays: Any) -> LinearOperator:
    """Return the operator with other arrays."""
    rest = iter(arrays)
    return operator._map(lambda _, axes: next(rest))  # noqa: ARG005


@cache
def _implicit(torch: Namespace) -> Any:
    """Return the function of autograd."""

    class Implicit(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any, operator: Any, rule: Any, b: Any, *arrays: Any) -> Any:
            ctx.operator, ctx.rule = operator, rule
            solution = x.clone()
            ctx.save_for_backward(solution, b, *arrays)
            return solution

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            x, b, *arrays = ctx.saved_tensors
            return (None, None, None, *ctx.rule(gradient, x, b, _with(ctx.operator, arrays)))

    return Implicit
