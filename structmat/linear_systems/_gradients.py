"""Derivatives of solutions in torch by the implicit rule, in both modes, so that no iteration is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from structmat._array_tools import Array, Namespace, broadcast_shapes, library_of, require_one_forward_level
from structmat.linear_systems._result import IterationSettings, SolveResult
from structmat.operators import LinearOperator

__all__ = ["Rules", "differentiable", "pulled_back", "recording_nothing"]


class Rules(NamedTuple):
    """How to solve a kind of problem, and the derivatives of its solution, which may be differentiated themselves."""

    solved: Callable[[LinearOperator, Array, IterationSettings], SolveResult]
    """The solution, of which nothing is recorded."""
    pulled: Callable[[Array, Array, Array, LinearOperator, IterationSettings], tuple[Any, ...]]
    """From the gradient for x, x itself, b and the operator to the gradients for b and every array of the operator."""
    pushed: Callable[[Array, Array, LinearOperator, IterationSettings, Array, Callable[..., Any]], Array]
    """From x, b, the operator and the change of b to that of x. The last argument takes a function of the operator and
    returns by how much its value changes.
    """


def recording_nothing(xp: Namespace) -> Any:
    """Return a context in which torch records nothing."""
    torch: Any = xp
    return torch.no_grad() if library_of(xp) == "torch" else nullcontext()


def differentiable(
    operator: LinearOperator, b: Array, settings: IterationSettings, rules: Rules, xp: Namespace
) -> SolveResult:
    """Return a solution with its derivatives."""
    problem = _Problem(operator, settings, rules, xp)
    x, residual = _implicit(xp).apply(problem, b, *problem.arrays())
    return SolveResult(x, residual, problem.iterations[0])


def pulled_back(
    products: Callable[[LinearOperator], Any], operator: LinearOperator, cotangents: Any, xp: Namespace
) -> tuple[Any, ...]:
    """Return the gradients for the arrays of an operator from those for products with it."""
    _, pull = _with_pullback(products, operator, xp)
    return tuple(pull(cotangents))


def _change(products: Callable[[LinearOperator], Any], operator: LinearOperator, tangents: Any, xp: Namespace) -> Any:
    """Return by how much products with an operator change: forward mode by reverse mode, twice."""
    torch: Any = xp
    value, pull = _with_pullback(products, operator, xp)
    zeros = tuple(map(torch.zeros_like, value)) if isinstance(value, tuple) else torch.zeros_like(value)
    if not tangents:
        return zeros
    _, push = torch.func.vjp(pull, zeros)
    return push(tuple(tangents))[0]


def _with_pullback(products: Callable[[LinearOperator], Any], operator: LinearOperator, xp: Namespace) -> Any:
    """Return products with an operator, and the function from gradients for them to those for its arrays."""
    torch: Any = xp
    return torch.func.vjp(lambda *arrays: products(_with(operator, iter(arrays))), *_arrays(operator))


def _arrays(operator: LinearOperator) -> list[Any]:
    """Return the arrays of an operator in the order of `_with`, those of its plans included."""
    return [array for array, _ in _arrays_and_axes(operator)]


def _arrays_and_axes(operator: LinearOperator) -> list[tuple[Any, int]]:
    """Return the arrays of an operator, and of each how many axes are not of a stack."""
    found: list[tuple[Any, int]] = []

    def note(array: Any, axes: int) -> Any:
        found.append((array, axes))
        return array

    operator._map(note)
    return found


def _with(operator: LinearOperator, arrays: Iterator[Any]) -> LinearOperator:
    """Return the operator with other arrays."""
    return operator._map(lambda _, axes: next(arrays))  # noqa: ARG005


@dataclass
class _Problem:
    """What the function of autograd is given beside arrays: the structure of the operators, and what to do."""

    operator: LinearOperator
    settings: IterationSettings
    rules: Rules
    xp: Namespace
    iterations: list[int | None] = field(default_factory=list)

    def _operators(self) -> list[LinearOperator]:
        M = self.settings.preconditioner
        return [self.operator, M] if isinstance(M, LinearOperator) else [self.operator]

    def arrays(self) -> list[Any]:
        """Return the arrays of the operator and the preconditioner."""
        return [array for operator in self._operators() for array in _arrays(operator)]

    def core_axes(self) -> list[int]:
        """Return of every array how many axes are not of a stack."""
        return [axes for operator in self._operators() for _, axes in _arrays_and_axes(operator)]

    def parts(self, arrays: Any) -> tuple[LinearOperator, IterationSettings]:
        """Return the operator and the settings with these arrays."""
        rest = iter(arrays)
        operator, *given = (_with(each, rest) for each in self._operators())
        return operator, self.settings._replace(preconditioner=given[0]) if given else self.settings


@cache
def _implicit(torch: Namespace) -> Any:
    """Return the function of autograd. It also serves under ``torch.func``, whose batch axes are axes of the stack."""

    class Implicit(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(problem: _Problem, b: Any, *arrays: Any) -> Any:
            operator, settings = problem.parts(arrays)
            x, residual, iterations = problem.rules.solved(operator, b, settings)
            problem.iterations.append(iterations)
            return x, residual

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.problem, *tensors = inputs
            x, residual = output
            ctx.mark_non_differentiable(residual)
            ctx.save_for_backward(x, *tensors)
            ctx.save_for_forward(x, *tensors)

        @staticmethod
        def backward(ctx: Any, gradient: Any, _: Any) -> Any:
            x, b, *arrays = ctx.saved_tensors
            found = ctx.problem.rules.pulled(gradient, x, b, *ctx.problem.parts(arrays))
            return (None, *found, *[None] * (1 + len(arrays) - len(found)))  # none for the preconditioner

        @staticmethod
        def jvp(ctx: Any, _: Any, db: Any, *tangents: Any) -> Any:
            require_one_forward_level(ctx.problem.settings.owner)
            x, b, *arrays = ctx.saved_tensors
            operator, settings = ctx.problem.parts(arrays)
            known = zip(tangents, _arrays(operator), strict=False)  # without those of the preconditioner
            changes = [torch.zeros_like(array) if tangent is None else tangent for tangent, array in known]
            db = torch.zeros_like(b) if db is None else db

            def change(products: Any) -> Any:
                return _change(products, operator, changes, torch)

            return ctx.problem.rules.pushed(x, b, operator, settings, db, change), None

        @staticmethod
        def vmap(info: Any, in_dims: Any, problem: _Problem, *tensors: Any) -> Any:
            cores = [1, *problem.core_axes()]
            moved = [v if axis is None else v.movedim(axis, 0) for v, axis in zip(tensors, in_dims[1:], strict=True)]
            mapped = [axis is not None for axis in in_dims[1:]]
            rank = max(v.ndim - is_mapped - core for v, is_mapped, core in zip(moved, mapped, cores, strict=True))
            lead = [
                v[(slice(None), *[None] * (rank - v.ndim + 1 + core))] if is_mapped else v
                for v, is_mapped, core in zip(moved, mapped, cores, strict=True)
            ]
            b, *arrays = lead
            batch = problem.parts(arrays)[0].batch_shape
            shape = broadcast_shapes(problem.settings.owner, batch, tuple(b.shape[:-1]), (info.batch_size, *[1] * rank))
            return Implicit.apply(problem, b.expand(*shape, b.shape[-1]), *arrays), (0, 0)

    return Implicit
