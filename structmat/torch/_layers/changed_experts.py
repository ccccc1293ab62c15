"""A module whose stacked matrices of experts are changed while it runs: `call_changed`.

Mixtures of experts of transformers hold the matrices of a block as one parameter (experts, rows, columns), and let a
function take the place of their forward pass: `ExpertsInterface` of transformers, for which most classes of experts are
made. `_changed_experts` is such a function. It sorts rows by their experts and multiplies them by matrices and changes,
so that there is no second stack of large matrices.

All other modules run with the dense sums of their parameters and the changes in the place of these. That is right for
whatever they do with them, and costs memory for a second stack, the time to make it, and a dense gradient of it, of all
experts. In half precision the sum is rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._torch_modes import autocast_dtype, sees_operations
from structmat.torch._adapters.adapter import CDDAdapter
from structmat.torch._changes.dense import costs_less_dense, summed, wide_dtype
from structmat.torch._changes.experts import by_expert, loops_over_experts, rows_by_expert, stacked_change
from structmat.torch._changes.operation import apply_change, get_one_dtype
from structmat.torch._distributed import within_fsdp
from structmat.torch._layers.base_weight import has_own_forward
from structmat.torch._layers.changed_call import forward_replaced, replaced

__all__ = ["Stack", "as_matrices", "call_changed", "laid_out", "stack_of"]


class Stack(NamedTuple):
    """How a parameter holds the matrices of experts."""

    n_experts: int
    out_features: int
    in_features: int
    transposed: bool
    """Whether it is (experts, in_features, out_features)."""
    single: bool = False
    """Whether it is one matrix without an axis of experts, of which there is one then."""


def stack_of(module: nn.Module, name: str, owner: str) -> Stack:
    """Return how a parameter of a module holds matrices of experts.

    Raises
    ------
    ValueError
        If it has neither three axes nor two.
    TypeError
        If it is no floating parameter of the module, as a quantised one.
    """
    parameter = module._parameters.get(name)
    text = f"{type(module).__name__}.{name}"
    if parameter is None:
        raise ArgumentTypeError(owner, "parameters", f"name {text}, which is no parameter, or is computed from others")
    if not parameter.is_floating_point() or parameter.element_size() < 2:
        raise ArgumentTypeError(owner, "parameters", f"name {text}, which is quantised, of dtype {parameter.dtype}")
    shape = tuple(getattr(parameter, "ds_shape", parameter.shape))  # whole, of DeepSpeed ZeRO-3
    if len(shape) == 2:
        return Stack(1, *shape, transposed=False, single=True)
    if len(shape) != 3:
        wanted = "must have shape (experts, rows, columns)"
        raise ArgumentValueError(owner, "parameters", f"name {text} of shape {shape}, which {wanted}")
    transposed = bool(getattr(module, "is_transposed", False))
    n_experts, rows, columns = shape
    sizes = (columns, rows) if transposed else (rows, columns)
    return Stack(n_experts, *sizes, transposed=transposed)


def as_matrices(stack: Stack, parameter: Tensor) -> Tensor:
    """Return a parameter as matrices (experts, out_features, in_features)."""
    if stack.single:
        return parameter[None]
    return parameter.transpose(1, 2) if stack.transposed else parameter


def laid_out(stack: Stack, changes: Tensor) -> Tensor:
    """Return changes (experts, out_features, in_features) in the layout of the parameter."""
    if stack.single:
        return changes[0]
    return changes.transpose(1, 2) if stack.transposed else changes


Changes = Mapping[str, Sequence[CDDAdapter]]
"""The adapters of each parameter of a module, by its name in the module; their changes add up."""


def call_changed(module: nn.Module, changes: Changes, *args: Any, **kwargs: Any) -> Any:
    """Call a module while some of its parameters stand for themselves plus the changes of adapters.

    Parameters
    ----------
    module : Module
        Called with the other arguments. Its parameters stay as they are.
    changes : mapping
        The adapters of each parameter, by its name in the module; their changes add up.
    """
    active = {name: list(adapters) for name, adapters in changes.items() if adapters}
    if not active:
        return module(*args, **kwargs)
    if sees_operations():
        return torch.func.functional_call(module, _sums(module, active), args, kwargs)
    inner = within_fsdp(module)
    changed = partial(_changed_experts if _takes_functions(inner, active) else _with_sums, inner, active)
    with forward_replaced(inner, changed):
        return module(*args, **kwargs)


# ---- by dense sums


def _with_sums(module: nn.Module, changes: Changes, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return what a module's forward pass returns with dense sums in the place of its parameters."""
    with replaced(module, _sums(module, changes)):
        return inner(*args, **kwargs)


def _sums(module: nn.Module, changes: Changes) -> dict[str, Tensor]:
    """Return the sums of parameters and changes.

    Of the inputs of a change, which a sum does not know, dropout sets the same to zero for all rows of a call.
    """
    found = {}
    for name, adapters in changes.items():
        stack = stack_of(module, name, "CDDExperts")
        parameter: Any = module._parameters[name]
        total = as_matrices(stack, parameter)
        for adapter in adapters:
            *others, right = adapter.vectors.forward()
            total = summed(total, [*others, adapter.dropped(right)], adapter.gain)
        found[name] = laid_out(stack, total).contiguous()
    return found


# ---- by the interface of transformers


def _takes_functions(module: nn.Module, changes: Changes) -> bool:
    """Return whether a function may take the place of a module's forward pass, which has the changed parameters.

    Classes of transformers say so by a decorator, whose forward pass asks an interface for the function.
    """
    cells = getattr(type(module).forward, "__closure__", None) or ()
    asks = any(type(cell.cell_contents).__name__ == "ExpertsInterface" for cell in cells)
    return asks and not has_own_forward(module) and changes.keys() <= {"gate_up_proj", "up_proj", "down_proj"}


def _changed_experts(
    module: Any,
    changes: Changes,
    inner: Callable[..., Any],
    hidden_states: Tensor,
    top_k_index: Tensor,
    top_k_weights: Tensor,
) -> Tensor:
    """Return the outputs of experts with changed matrices; a function as transformers' ``grouped_mm_experts_forward``.

    Parameters
    ----------
    module : Module
        Experts, with the attributes that the decorator of transformers gives them.
    changes : mapping
        The adapters of each parameter.
    inner : callable
        The forward pass that this takes the place of.
    hidden_states : Tensor, shape (tokens, features)
        Inputs.
    top_k_index : Tensor of integers, shape (tokens, k)
        The experts of each token.
    top_k_weights : Tensor, shape (tokens, k)
        What their outputs are multiplied by.
    """
    if _sums_are_faster(module, changes, top_k_index.numel()):
        return _with_sums(module, changes, inner, hidden_states, top_k_index, top_k_weights)
    # The rows of each expert lie together from here on; at the end they go back to the places of their tokens.
    ids, order = torch.sort(top_k_index.reshape(-1), stable=True)
    experts = torch.arange(module.num_experts, device=ids.device)
    ends = torch.searchsorted(ids, experts, right=True)
    # Token t has the places from t k to t k + k - 1 among the flat indices.
    y = hidden_states[order // top_k_index.shape[1]]
    y = _product(module, changes, "gate_up_proj" if module.has_gate else "up_proj", y, ids, ends)
    y = module._apply_gate(y) if module.has_gate else module.act_fn(y)
    y = _product(module, changes, "down_proj", y, ids, ends)
    if module.has_post_expert_norm:
        y = module.post_expert_norm(y)
    y = y * top_k_weights.reshape(-1)[order].unsqueeze(1)
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return y[back].view(*top_k_index.shape, y.shape[1]).sum(1).to(hidden_states.dtype)


def _product(module: Any, changes: Changes, name: str, x: Tensor, ids: Tensor, ends: Tensor) -> Tensor:
    """Return the products of rows, which lie together by their experts `ids`, by changed matrices of a parameter."""
    stack, adapters = stack_of(module, name, "CDDExperts"), changes.get(name, ())
    weight = as_matrices(stack, module._parameters[name])
    if autocast_dtype(x) is None:
        x = x.to(weight.dtype)
    if loops_over_experts(x):
        y = _looped_product(x, weight, ends, adapters)
    else:
        if module.config._experts_implementation == "eager":
            y = _looped_product(x, weight, ends, ())
        else:
            from transformers.integrations.moe import _grouped_linear  # noqa: PLC0415  # it is there with such experts

            y = _grouped_linear(x, weight, ends.to(torch.int32))
        for adapter in adapters:
            y = stacked_change(y, adapter.dropped(x), ends, adapter.vectors.forward(), adapter.gain)
    return y + getattr(module, f"{name}_bias")[ids] if module.has_bias else y


def _looped_product(x: Tensor, weight: Tensor, ends: Tensor, adapters: Sequence[CDDAdapter]) -> Tensor:
    """Return the products by the matrices (experts, rows, columns) and by their changes, one expert after the other."""
    vectors = [by_expert(adapter.vectors.forward()) for adapter in adapters]
    pieces = []
    for expert, rows in rows_by_expert(x, ends):
        matrix = weight[expert]
        y: Tensor | None = None
        for adapter, own in zip(adapters, vectors, strict=True):
            # One operation where the frozen matrix and its first change have the same inputs.
            same = rows.dtype == matrix.dtype or get_one_dtype(rows, matrix, None)
            if y is None and same and not adapter.drops and not matrix.requires_grad:
                y = apply_change(None, rows, matrix, None, own[expert], adapter.gain)
            else:
                y = linear(rows, matrix) if y is None else y
                y = apply_change(y, adapter.dropped(rows), None, None, own[expert], adapter.gain)
        pieces.append(linear(rows, matrix) if y is None else y)
    return torch.cat(pieces)


def _sums_are_faster(module: nn.Module, changes: Changes, n_rows: int) -> bool:
    """Return whether dense sums, which lose no digits, cost less than the loop over the experts that have rows.

    With 8 experts and 1,024 tokens, those of 64 features and 96 inner ones take 27 ms in the loop and 12 with sums, of
    128 and 192 46 and 31, of 512 and 512 175 and 230; with 64 experts of 128 and 192, 16 tokens take 47 and 71 ms, 64
    take 103 and 68.
    """
    entries = products = row_entries = calls = 0
    for name, adapters in changes.items():
        weight: Any = module._parameters[name]
        n_experts, rows, cols = weight.shape
        wide = weight.dtype == wide_dtype(weight)
        if not wide or weight.device.type != "cpu" or any(each.drops or each.n_factors > 3 for each in adapters):
            return False
        entries += len(adapters) * n_experts * rows * cols
        products += n_rows * rows * cols
        row_entries += len(adapters) * n_rows * (rows + cols)
        calls += len(adapters) * min(n_experts, n_rows)
    return costs_less_dense(entries, products, row_entries, calls)
