"""Derivatives of solutions in torch by the implicit rule, so that no iteration is recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from structmat._array_tools import Array, Namespace
from structmat.linear_systems._systems import IterationSettings, SolveResult
from structmat.operators import LinearOperator


class Rule(NamedTuple):
    """How to solve a kind of problem, and the gradient of its solution, which may be differentiated itself."""

    solved: Callable[[LinearOperator, Array, IterationSettings], SolveResult]
    """The solution, of which nothing is recorded."""
    pulled: Callable[[Array, Array, Array, LinearOperator, IterationSettings], tuple[Any, Callable[..., Any]]]
    """From the gradient for x, x itself, b and the operator to a function of operator and b, and the gradients for its
    values from which those for operator and b follow.
    """


def differentiable(
    operator: LinearOperator, b: Array, settings: IterationSettings, rule: Rule, xp: Namespace
) -> SolveResult:
    """Return a solution with its derivatives."""
    given = [op for op in (operator, settings.preconditioner) if isinstance(op, LinearOperator)]
    problem = _Problem(given, settings, rule)
    x, residual = _implicit(xp).apply(problem, b, *(array for op in given for array in _arrays(op)))
    return SolveResult(x, residual, problem.iterations)


@dataclass
class _Problem:
    """What the function of autograd is given beside arrays; torch.func would take a tuple of it apart."""

    given: list[LinearOperator]
    """The operator, and its preconditioner where that is one."""
    settings: IterationSettings
    rule: Rule
    iterations: int | None = None

    def parts(self, arrays: Any) -> tuple[LinearOperator, IterationSettings]:
        """Return operator and settings with other arrays."""
        operator, *others = _with(self.given, arrays)
        return operator, self.settings._replace(preconditioner=others[0]) if others else self.settings


def _arrays(operator: LinearOperator) -> list[Any]:
    """Return the arrays of an operator in the order of `_map`, those of its plans included."""
    found: list[Any] = []

    def note(array: Any, _: int) -> Any:
        found.append(array)
        return array

    operator._map(note)
    return found


def _with(operators: list[LinearOperator], arrays: Any) -> list[LinearOperator]:
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
            x, residual, problem.iterations = problem.rule.solved(operator, b, settings)
            return x, residual

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.problem, *tensors = inputs
            x, residual = output
            ctx.mark_non_differentiable(residual)
            ctx.save_for_backward(x, *tensors)

        @staticmethod
        def backward(ctx: Any, gradient: Any, _: Any) -> Any:
            x, b, *arrays = ctx.saved_tensors
            operator, settings = ctx.problem.parts(arrays)
            mine = arrays[: len(_arrays(operator))]
            cotangents, function = ctx.problem.rule.pulled(gradient, x, b, operator, settings)
            _, pull = torch.func.vjp(lambda b, *new: function(_with([operator], new)[0], b), b, *mine)
            return (None, *pull(cotangents), *[None] * (len(arrays) - len(mine)))  # none for the preconditioner

    return Implicit
