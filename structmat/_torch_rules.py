"""The rules of torch: what its autograd, ``torch.func`` and ``torch.compile`` make of a computation."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np
import torch
from array_api_compat import torch as torch_namespace

from structmat._rules import Elimination, LogDeterminant, Matrix, Rules, Solver


class TorchRules(Rules):
    """The rules of torch. Those of derivatives are for reverse mode, and can be differentiated again."""

    engine = "torch"
    keeps_products = True
    multiplies_exactly = True

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

    def is_eager_on_cpu(self, array: Any) -> bool:
        return bool(array.device.type == "cpu" and not torch.compiler.is_compiling())

    def result_type(self, arrays: Sequence[Any], dtypes: Sequence[Any]) -> Any:
        """Return the dtype of a result; a tensor without axes counts for its kind only, real or complex."""
        with_axes = [dtype for array, dtype in zip(arrays, dtypes, strict=True) if getattr(array, "ndim", 1)]
        common = torch_namespace.result_type(*(with_axes or dtypes))
        if any(dtype.is_complex for dtype in dtypes):
            return torch_namespace.result_type(common, torch.complex64)
        return common

    def copied(self, array: Any) -> Any:
        return array.clone()

    def complex_of(self, real: Any, imag: Any) -> Any:
        return torch.complex(real, imag)

    def without_derivative(self, value: Any, arrays: Sequence[Any], why: str) -> Any:
        return _untraced(_without_derivative)(value, arrays, why)

    def untraced(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return _untraced(function)

    def on_host(
        self,
        function: Callable[..., Sequence[Any]],
        results: Sequence[tuple[tuple[int, ...], Any]],
        arrays: Sequence[Any],
        device: Any,
    ) -> tuple[Any, ...]:
        return _untraced(_undifferentiated)(function, arrays, device)

    def has_double_precision(self, device: Any) -> bool:
        return device.type not in {"mps", "meta"}

    def computes_in_double_precision(self, device: Any) -> bool:
        return self.has_double_precision(device)

    def has_values(self, array: Any) -> bool:
        return not torch.compiler.is_compiling()

    def in_double_precision(
        self, function: Callable[..., Sequence[Any]], results: Sequence[tuple[tuple[int, ...], Any]], arrays: Any
    ) -> tuple[Any, ...]:
        def computed(*tensors: Any) -> tuple[Any, ...]:
            wide = [v.to(torch.complex128 if v.is_complex() else torch.float64) for v in tensors]
            return tuple(v.to(dtype) for v, (_, dtype) in zip(function(*wide), results, strict=True))

        if torch.compiler.is_compiling():
            return computed(*(tensor.detach() for tensor in arrays))
        return _undifferentiated(computed, arrays, None)

    def elimination(self, matrices: Any) -> Elimination:
        factors, pivots, _ = torch.linalg.lu_factor_ex(matrices)

        def slogdet() -> tuple[Any, Any]:
            diagonal = factors.diagonal(dim1=-2, dim2=-1)
            unmoved = torch.arange(1, pivots.shape[-1] + 1, device=pivots.device)
            odd = (pivots != unmoved).sum(-1) % 2
            return (1 - 2 * odd) * torch.sgn(diagonal).prod(-1), diagonal.abs().log().sum(-1)

        return Elimination(lambda b: torch.linalg.lu_solve(factors, pivots, b), slogdet)

    def inverses(self, matrices: Any) -> Any:
        """Return the inverses, of singular matrices infinities: to raise an error would take a look at values."""
        result, failures = torch.linalg.inv_ex(matrices)
        return _or_else(float("inf"), result, failures)

    def solutions(self, matrices: Any, right: Any) -> Any:
        """Return the solutions, infinities for singular matrices."""
        result, failures = torch.linalg.solve_ex(matrices, right)
        return _or_else(float("inf"), result, failures)

    def cholesky_factors(self, matrices: Any) -> Any:
        """Return the factors, NaN for a matrix that is not positive definite."""
        factors, failures = torch.linalg.cholesky_ex(matrices)
        return _or_else(float("nan"), factors, failures)

    def triangular_solutions(self, L: Any, b: Any) -> Any:
        return torch.linalg.solve_triangular(L, b, upper=False)

    def solution(self, solver: Solver, A: Matrix, M: Matrix | None, b: Any) -> tuple[Any, tuple[Any, ...]]:
        if solver.is_traceable and torch.compiler.is_compiling():
            distinct = A._map(lambda tensor, _: tensor.view_as(tensor))  # the compiler takes no tensor twice
            return _implicit_solve(solver, distinct, M, b)
        return _untraced(_implicit_solve)(solver, A, M, b)

    def log_determinant(self, rule: LogDeterminant, A: Matrix, given: Any, value: Any) -> Any:
        return _untraced(_log_determinant)(rule, A, given, value)


def _or_else(value: float, results: Any, failures: Any) -> Any:
    """Return matrices, and others filled with a value for those of which the computation failed."""
    return torch.where((failures > 0)[..., None, None], torch.full_like(results, value), results)


_WHY: dict[str, Any] = {}
"""The reason that torch gives with ``fullgraph=True``, where this version takes one."""
if "reason" in inspect.signature(torch.compiler.disable).parameters:
    _WHY["reason"] = "structmat looks at values here, which no graph holds: compile without fullgraph=True"

_UNTRACED: dict[Callable[..., Any], Callable[..., Any]] = {}
"""The functions that `_untraced` has returned, by the functions that it was given."""


def _untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same function with a mark that keeps the compiler of torch from tracing it.

    The compiler knows functions by their identity, and looks through caches of functools, so that the marked functions
    are stored in a dictionary. Torch imports its compiler when that is first used, which takes long: where it has not
    been imported, there is nothing to mark.
    """
    if "torch._dynamo" not in sys.modules:
        return function
    if function not in _UNTRACED:
        _UNTRACED[function] = torch.compiler.disable(function, **_WHY)
    return _UNTRACED[function]


def _undifferentiated(function: Callable[..., Sequence[Any]], tensors: Sequence[Any], device: Any) -> tuple[Any, ...]:
    if not rules.is_differentiated(tensors):
        return _of_values(function, tensors, device)
    return _Undifferentiated.apply(function, device, *tensors)


def _of_values(function: Callable[..., Sequence[Any]], tensors: Sequence[Any], device: Any) -> tuple[Any, ...]:
    results = function(*(tensor.detach() for tensor in tensors))
    return tuple(torch.asarray(result, device=device) for result in results)


def _implicit_solve(solver: Solver, A: Matrix, M: Matrix | None, b: Any) -> tuple[Any, tuple[Any, ...]]:
    structure, tensors = _taken_apart(A, M)
    if not rules.is_differentiated([b, *tensors]):
        return solver(A, M, b, torch_namespace)
    x, *information = _ImplicitSolve.apply(solver, structure, b, *tensors)
    return x, tuple(information)


def _log_determinant(rule: LogDeterminant, A: Matrix, given: Any, value: Any) -> Any:
    structure, tensors = _taken_apart(A, given)
    return _DifferentiableLogDeterminant.apply(rule, structure, value, *tensors)


def _without_derivative(value: Any, tensors: Sequence[Any], why: str) -> Any:
    return _WithoutDerivative.apply(value, why, *tensors)


@dataclass(frozen=True)
class _Place:
    """What stands in the place of a tensor in an object whose tensors were taken out."""

    core: int
    """The number of axes of the tensor after its batch axes."""


class _Structure:
    """A matrix A, and a second object or None, without their tensors, which are passed to autograd one by one."""

    def __init__(self, A: Any, other: Any, cores: list[int], count: int) -> None:
        self.A = A
        self.other = other
        self.cores = cores
        """The numbers of core axes of all tensors."""
        self.count = count
        """How many of the tensors belong to A; they are the first ones."""

    def with_tensors(self, tensors: Sequence[Any]) -> tuple[Any, Any]:
        """Return both objects with these tensors in the places of those that were taken out."""
        remaining = iter(tensors)
        A = _filled(self.A, remaining)
        return A, None if self.other is None else _filled(self.other, remaining)

    def aligned(self, dims: Sequence[int | None], tensors: Sequence[Any], rank: int) -> list[Any]:
        """Return the tensors under `vmap` with the mapped axis of each in front, where it broadcasts.

        `dims` holds the mapped axis of each tensor, or None. Axes of length one are inserted after it, so that all
        mapped tensors have equally many batch axes, at least `rank` with the mapped one.
        """
        in_front = [v if axis is None else v.movedim(axis, 0) for v, axis in zip(tensors, dims, strict=True)]
        mapped = [axis is not None for axis in dims]
        ranks = [v.ndim - core - is_mapped for v, core, is_mapped in zip(in_front, self.cores, mapped, strict=True)]
        most = max(rank - 1, *ranks)
        return [
            v[(slice(None), *[None] * (most - own_rank))] if is_mapped else v
            for v, own_rank, is_mapped in zip(in_front, ranks, mapped, strict=True)
        ]


def _taken_apart(A: Any, other: Any) -> tuple[_Structure, list[Any]]:
    """Return both objects without their tensors, and these tensors."""
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
    """Return an object with the next tensors in the places of those that were taken out."""
    return emptied._map(lambda _, core: next(tensors))  # noqa: ARG005


def in_batches(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Return the backward pass of a `torch.autograd.Function` that takes the gradients of ``vectorize=True`` as well.

    Those of ``autograd.functional.jacobian`` and ``autograd.grad(is_grads_batched=True)`` are mapped by an older `vmap`
    of torch, which knows neither the rule `vmap` of a Function nor many operations. They are taken out of it, mapped by
    that of ``torch.func``, and the results are put back.
    """
    is_mapped = torch._C._functorch.is_legacy_batchedtensor

    @wraps(backward)
    def computed(ctx: Any, *gradients: Any) -> Any:
        if torch.compiler.is_compiling():  # it maps nothing by the older one, and cannot trace the question
            return backward(ctx, *gradients)
        places = [k for k, gradient in enumerate(gradients) if torch.is_tensor(gradient) and is_mapped(gradient)]
        if not places:
            return backward(ctx, *gradients)
        level = torch._C._vmapmode_increment_nesting() - 1
        torch._C._vmapmode_decrement_nesting()
        found: list[Any] = []

        def of_one(*mapped: Any) -> tuple[Any, ...]:
            given = list(gradients)
            for place, gradient in zip(places, mapped, strict=True):
                given[place] = gradient
            found[:] = backward(ctx, *given)
            return tuple(gradient for gradient in found if gradient is not None)

        # The size of the batch is read from the gradient itself, which is mapped at this level.
        results = iter(torch.func.vmap(of_one)(*(torch._remove_batch_dim(gradients[k], level, 1, 0) for k in places)))
        return tuple(None if value is None else torch._add_batch_dim(next(results), 0, level) for value in found)

    return computed


class _Undifferentiated(torch.autograd.Function):
    """Calls a function of tensors that have values, and returns its results as tensors without derivatives."""

    @staticmethod
    def forward(function: Any, device: Any, *tensors: Any) -> tuple[Any, ...]:
        return _of_values(function, tensors, device)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
        ctx.mark_non_differentiable(*output)
        ctx.count = len(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:  # noqa: ARG004
        """Return nothing: no result is differentiated."""
        return (None,) * len(ctx.needs_input_grad)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:  # noqa: ARG004
        """Return nothing, in forward mode."""
        return (None,) * ctx.count

    @staticmethod
    def vmap(info: Any, in_dims: Any, function: Any, device: Any, *tensors: Any) -> Any:  # noqa: ARG004
        with_axis_in_front = [
            tensor[None] if axis is None else tensor.movedim(axis, 0)
            for tensor, axis in zip(tensors, in_dims[2:], strict=True)
        ]
        results = _Undifferentiated.apply(function, device, *with_axis_in_front)
        return results, (0,) * len(results)


class _WithoutDerivative(torch.autograd.Function):
    """Returns a value that depends on tensors, by which it has no derivatives."""

    @staticmethod
    def forward(value: Any, why: str, *tensors: Any) -> Any:  # noqa: ARG004
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
        _, ctx.why, *_ = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Raise the error."""
        raise NotImplementedError(ctx.why)

    @staticmethod
    def vmap(info: Any, in_dims: Any, value: Any, why: str, *tensors: Any) -> Any:
        axis, _, *dims = in_dims
        value = value.expand(info.batch_size, *value.shape) if axis is None else value.movedim(axis, 0)
        in_front = [v if own is None else v.movedim(own, 0) for v, own in zip(tensors, dims, strict=True)]
        return _WithoutDerivative.apply(value, why, *in_front), 0


class _ImplicitSolve(torch.autograd.Function):
    """The implicit rule: with the solution x of ``A x = b``, ``dx = A^-1 (db - dA x)``."""

    @staticmethod
    def forward(solver: Solver, structure: _Structure, b: Any, *tensors: Any) -> Any:
        x, information = solver(*structure.with_tensors(tensors), b, torch_namespace)
        return (x, *information)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.solver, ctx.structure, _, *tensors = inputs
        x, *information = output
        ctx.mark_non_differentiable(*(value for value in information if isinstance(value, torch.Tensor)))
        ctx.save_for_backward(x, *tensors)

    @staticmethod
    @in_batches
    def backward(ctx: Any, gradient: Any, *others: Any) -> Any:  # noqa: ARG004
        """Return the gradient of b, ``A^-H g``, and those of the tensors of A, by the product of A and x."""
        x, *tensors = ctx.saved_tensors
        structure: _Structure = ctx.structure
        A, M = structure.with_tensors(tensors)
        cotangent, _ = _implicit_solve(ctx.solver.for_changes, A.H, None if M is None else M.H, gradient)
        tensors_of_A = tensors[: structure.count]
        _, vjp = torch.func.vjp(lambda *new: _filled(structure.A, iter(new))._matvec(x, torch_namespace), *tensors_of_A)
        return (None, None, cotangent, *vjp(-cotangent), *[None] * (len(tensors) - len(tensors_of_A)))

    @staticmethod
    def vmap(info: Any, in_dims: Any, solver: Solver, structure: _Structure, b: Any, *tensors: Any) -> Any:
        _, _, axis, *dims = in_dims
        b = b.expand(info.batch_size, *b.shape) if axis is None else b.movedim(axis, 0)
        x, *information = _ImplicitSolve.apply(solver, structure, b, *structure.aligned(dims, tensors, b.ndim - 1))
        has_axes = [isinstance(value, torch.Tensor) and value.ndim > 0 for value in information]
        return (x, *information), (0, *(0 if has_axis else None for has_axis in has_axes))


class _DifferentiableLogDeterminant(torch.autograd.Function):
    """The rule for logarithms of determinants: ``d log det A = tr(A^-1 dA)``."""

    @staticmethod
    def forward(rule: LogDeterminant, structure: _Structure, value: Any, *tensors: Any) -> Any:  # noqa: ARG004
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
        ctx.rule, ctx.structure, _, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    @in_batches
    def backward(ctx: Any, gradient: Any) -> Any:
        tensors = ctx.saved_tensors
        structure: _Structure = ctx.structure
        A, given = structure.with_tensors(tensors)
        inverse = ctx.rule.inverse(A, given, torch_namespace)

        def trace(*new: Any) -> Any:
            return ctx.rule.trace(_filled(structure.A, iter(new)), inverse, given, torch_namespace)

        tensors_of_A = tensors[: structure.count]
        _, vjp = torch.func.vjp(trace, *tensors_of_A)
        return (None, None, None, *vjp(gradient), *[None] * (len(tensors) - len(tensors_of_A)))

    @staticmethod
    def vmap(info: Any, in_dims: Any, rule: LogDeterminant, structure: _Structure, value: Any, *tensors: Any) -> Any:
        _, _, axis, *dims = in_dims
        value = value.expand(info.batch_size, *value.shape) if axis is None else value.movedim(axis, 0)
        return _DifferentiableLogDeterminant.apply(
            rule, structure, value, *structure.aligned(dims, tensors, value.ndim)
        ), 0


rules = TorchRules(torch_namespace)
"""The rules of torch."""
