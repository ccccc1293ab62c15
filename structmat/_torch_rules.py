"""The rules of torch: what its autograd, ``torch.func`` and ``torch.compile`` make of a computation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from array_api_compat import torch as torch_namespace

from structmat._rules import LogDeterminant, Matrix, Rules, Solver


class TorchRules(Rules):
    """The rules of torch. Those of derivatives are for reverse mode, and can be differentiated again."""

    def objection(self, array: Any) -> str | None:
        if array.layout != torch.strided:
            return "must be dense, got a sparse tensor: use its to_dense()"
        if array.dtype == torch.complex32:  # which torch can neither transform nor divide on a CPU
            return "must be in complex64 or complex128, got torch.complex32"
        return None

    def constant(self, value: Any) -> Any:
        return value.detach()

    def concrete(self, array: Any) -> Any:
        if array.is_meta:
            return None
        if not torch._C._are_functorch_transforms_active():
            return array.detach()
        try:
            values = array.tolist()  # as tensors of ``torch.func`` have no memory to share
        except RuntimeError:  # one that is mapped
            return None
        return np.asarray(values, getattr(np, str(array.dtype).removeprefix("torch."), None))

    def unrecorded(self) -> AbstractContextManager[Any]:
        return torch.no_grad()

    def is_differentiated(self, arrays: Iterable[Any]) -> bool:
        if torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0:
            return True
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in arrays)

    def is_plain(self, arrays: Sequence[Any]) -> bool:
        if not all(type(tensor) is torch.Tensor and not tensor.requires_grad for tensor in arrays):
            return False
        special = torch.compiler.is_compiling() or torch.is_inference_mode_enabled()
        return not special and not self.is_differentiated(arrays)

    def on_host(
        self,
        function: Callable[..., Sequence[Any]],
        results: Sequence[tuple[tuple[int, ...], Any]],
        arrays: Sequence[Any],
        device: Any,
    ) -> tuple[Any, ...]:
        return _untraced(_on_host)(function, arrays, device)

    def solution(self, solver: Solver, A: Matrix, M: Matrix | None, b: Any) -> tuple[Any, tuple[Any, ...]]:
        return _untraced(_solution)(solver, A, M, b)

    def log_determinant(self, rule: LogDeterminant, A: Matrix, given: Any, value: Any) -> Any:
        return _untraced(_log_determinant)(rule, A, given, value)


_UNTRACED: dict[Callable[..., Any], Callable[..., Any]] = {}


def _untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that works on the values of tensors, so that no compiler of torch traces what it calls.

    Kept in a dictionary, since a compiler knows functions by their identity and looks through caches of functools.
    What compiles is imported by torch when it is first asked for, which takes longer than all else.
    """
    if "torch._dynamo" not in sys.modules:
        return function
    if function not in _UNTRACED:
        _UNTRACED[function] = torch.compiler.disable(function)
    return _UNTRACED[function]


def _on_host(function: Callable[..., Sequence[Any]], tensors: Sequence[Any], device: Any) -> tuple[Any, ...]:
    if not rules.is_differentiated(tensors):
        return _of_values(function, tensors, device)
    return _OnHost.apply(function, device, *tensors)


def _of_values(function: Callable[..., Sequence[Any]], tensors: Sequence[Any], device: Any) -> tuple[Any, ...]:
    found = function(*(tensor.detach() for tensor in tensors))
    return tuple(torch.asarray(value, device=device) for value in found)


def _solution(solver: Solver, A: Matrix, M: Matrix | None, b: Any) -> tuple[Any, tuple[Any, ...]]:
    structure, tensors = _taken_apart(A, M)
    if not rules.is_differentiated([b, *tensors]):
        return solver(A, M, b, torch_namespace)
    x, *found = _Solution.apply(solver, structure, b, *tensors)
    return x, tuple(found)


def _log_determinant(rule: LogDeterminant, A: Matrix, given: Any, value: Any) -> Any:
    structure, tensors = _taken_apart(A, given)
    return _LogDeterminant.apply(rule, structure, value, *tensors)


@dataclass(frozen=True)
class _Place:
    """What stands for a tensor in an object that was taken apart."""

    core: int
    """The number of its axes after the batch axes."""


class _Structure:
    """A matrix and what belongs to it, if anything, without their tensors, which autograd is given by themselves."""

    def __init__(self, A: Any, other: Any, cores: list[int], count: int) -> None:
        self.A, self.other = A, other
        self.cores = cores
        """The core axes of all tensors."""
        self.count = count
        """How many of them belong to A."""

    def with_tensors(self, tensors: Sequence[Any]) -> tuple[Any, Any]:
        """Return both objects with tensors in the places of theirs."""
        following = iter(tensors)
        A = _filled(self.A, following)
        return A, None if self.other is None else _filled(self.other, following)

    def aligned(self, dims: Sequence[int | None], tensors: Sequence[Any], rank: int) -> list[Any]:
        """Return tensors whose axis that is mapped, if any, is the first of `rank` batch axes or of more."""
        in_front = [v if axis is None else v.movedim(axis, 0) for v, axis in zip(tensors, dims, strict=True)]
        mapped = [axis is not None for axis in dims]
        ranks = [v.ndim - core - each for v, core, each in zip(in_front, self.cores, mapped, strict=True)]
        most = max(rank - 1, *ranks)
        return [
            v[(slice(None), *[None] * (most - own))] if each else v
            for v, own, each in zip(in_front, ranks, mapped, strict=True)
        ]


def _taken_apart(A: Any, other: Any) -> tuple[_Structure, list[Any]]:
    tensors: list[Any] = []
    cores: list[int] = []

    def take(tensor: Any, core: int) -> _Place:
        tensors.append(tensor)
        cores.append(core)
        return _Place(core)

    emptied = A._map(take)
    count = len(tensors)
    return _Structure(emptied, None if other is None else other._map(take), cores, count), tensors


def _filled(emptied: Any, tensors: Iterator[Any]) -> Any:
    return emptied._map(lambda _, core: next(tensors))  # noqa: ARG005


class _OnHost(torch.autograd.Function):
    """Calls a function of tensors that have values, and turns its results into tensors without derivatives."""

    @staticmethod
    def forward(function: Any, device: Any, *tensors: Any) -> tuple[Any, ...]:
        return _of_values(function, tensors, device)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:  # noqa: ARG004
        """Return nothing: no result is differentiated."""
        return (None,) * len(ctx.needs_input_grad)

    @staticmethod
    def vmap(info: Any, in_dims: Any, function: Any, device: Any, *tensors: Any) -> Any:  # noqa: ARG004
        lead = [
            tensor[None] if axis is None else tensor.movedim(axis, 0)
            for tensor, axis in zip(tensors, in_dims[2:], strict=True)
        ]
        found = _OnHost.apply(function, device, *lead)
        return found, (0,) * len(found)


class _Solution(torch.autograd.Function):
    """The implicit rule: with the solution x of ``A x = b``, ``dx = A^-1 (db - dA x)``."""

    @staticmethod
    def forward(solver: Solver, structure: _Structure, b: Any, *tensors: Any) -> Any:
        x, found = solver(*structure.with_tensors(tensors), b, torch_namespace)
        return (x, *found)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.solver, ctx.structure, _, *tensors = inputs
        x, *found = output
        ctx.mark_non_differentiable(*(value for value in found if isinstance(value, torch.Tensor)))
        ctx.save_for_backward(x, *tensors)

    @staticmethod
    def backward(ctx: Any, gradient: Any, *others: Any) -> Any:  # noqa: ARG004
        """Return the gradient of b, ``A^-H g``, and what the product with A makes of it for the tensors of A."""
        x, *tensors = ctx.saved_tensors
        structure: _Structure = ctx.structure
        A, M = structure.with_tensors(tensors)
        cotangent, _ = _solution(ctx.solver.for_changes, A.H, None if M is None else M.H, gradient)
        mine = tensors[: structure.count]
        _, pull = torch.func.vjp(lambda *new: _filled(structure.A, iter(new))._matvec(x, torch_namespace), *mine)
        return (None, None, cotangent, *pull(-cotangent), *[None] * (len(tensors) - len(mine)))

    @staticmethod
    def vmap(info: Any, in_dims: Any, solver: Solver, structure: _Structure, b: Any, *tensors: Any) -> Any:
        _, _, axis, *dims = in_dims
        b = b.expand(info.batch_size, *b.shape) if axis is None else b.movedim(axis, 0)
        x, *found = _Solution.apply(solver, structure, b, *structure.aligned(dims, tensors, b.ndim - 1))
        has_axes = [isinstance(value, torch.Tensor) and value.ndim > 0 for value in found]
        return (x, *found), (0, *(0 if each else None for each in has_axes))


class _LogDeterminant(torch.autograd.Function):
    """The rule for logarithms of determinants: ``d log det A = tr(A^-1 dA)``."""

    @staticmethod
    def forward(rule: LogDeterminant, structure: _Structure, value: Any, *tensors: Any) -> Any:  # noqa: ARG004
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
        ctx.rule, ctx.structure, _, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        tensors = ctx.saved_tensors
        structure: _Structure = ctx.structure
        A, given = structure.with_tensors(tensors)
        inverse = ctx.rule.inverse(A, given, torch_namespace)

        def trace(*new: Any) -> Any:
            return ctx.rule.trace(_filled(structure.A, iter(new)), inverse, given, torch_namespace)

        mine = tensors[: structure.count]
        _, pull = torch.func.vjp(trace, *mine)
        return (None, None, None, *pull(gradient), *[None] * (len(tensors) - len(mine)))

    @staticmethod
    def vmap(info: Any, in_dims: Any, rule: LogDeterminant, structure: _Structure, value: Any, *tensors: Any) -> Any:
        _, _, axis, *dims = in_dims
        value = value.expand(info.batch_size, *value.shape) if axis is None else value.movedim(axis, 0)
        return _LogDeterminant.apply(rule, structure, value, *structure.aligned(dims, tensors, value.ndim)), 0


rules = TorchRules(torch_namespace)
"""The rules of torch."""
