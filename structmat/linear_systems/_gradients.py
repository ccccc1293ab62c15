"""Gradients of solutions in torch by the implicit rule, so that no iteration is recorded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import Any

from structmat._arrays import library_of
from structmat._arrays.typing import Array, Namespace
from structmat.operators import LinearOperator

__all__ = ["recording_nothing", "wants_gradients", "with_derivative"]


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


def with_derivative(x: Array, part: Array, adjoint: Callable[[Array], Array], xp: Namespace) -> Array:
    """Return x, with the derivative ``dx = G d(part)`` added to its own, where `adjoint` applies G^H."""
    return x + _zeros_of(xp).apply(part, x.detach(), adjoint)  # type: ignore[attr-defined]


@cache
def _zeros_of(torch: Namespace) -> Any:
    """Return the function of autograd: zeros of the shape of a solution, with a gradient."""

    class Zeros(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, part: Any, x: Any, adjoint: Any) -> Any:  # noqa: ARG004
            ctx.adjoint = adjoint
            return torch.zeros_like(x)

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            if torch.is_grad_enabled():  # to be differentiated again, which needs x as a function of its own
                raise NotImplementedError("solutions found by iteration have no second derivatives in torch")
            return ctx.adjoint(gradient), None, None

    return Zeros
