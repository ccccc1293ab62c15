"""The outputs of a base layer with the changes of adapters: of the same ones for all samples, or of one for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from structmat.torch._adapter.autocast import product_dtype
from structmat.torch._adapter.autograd import linear_with_change
from structmat.torch._adapter.cdd_adapter import CDDAdapter

__all__ = ["add_per_sample", "forward_with_adapters"]


def forward_with_adapters(base: Any, x: Tensor, adapters: Sequence[CDDAdapter]) -> Tensor:
    """Return the outputs of a base layer plus the changes of adapters; for layers of your own.

    Parameters
    ----------
    base : Module or callable
        Maps ``(..., in_features)`` to ``(..., out_features)``. With a plain frozen `torch.nn.Linear` the first change
        is computed in one operation with the base, which keeps nothing but the input for the backward pass.
    x : Tensor, shape (..., in_features)
        Inputs; nested tensors too, of either layout.
    adapters : sequence of CDDAdapter
        Their changes add up; with none, the outputs are those of the base. In training each adapter has its own
        dropout.

    Returns
    -------
    Tensor, shape (..., out_features)
        In the dtype of the base's outputs.

    See Also
    --------
    CDDLinear : The layer that uses this.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import CDDAdapter, forward_with_adapters
    >>> base = torch.nn.Linear(6, 4).requires_grad_(requires_grad=False)
    >>> forward_with_adapters(base, torch.ones(2, 6), [CDDAdapter(6, 4)]).shape
    torch.Size([2, 4])
    """
    if x.is_nested:
        return _of_nested(x, lambda rows: forward_with_adapters(base, rows, adapters))
    if adapters and not adapters[0].is_dropping and _fuses(base, x):
        first, *adapters = adapters
        y = linear_with_change(x, base.weight, base.bias, first.factors.forward(), first.alpha, first.mode)
    else:
        y = base(x)
    for adapter in adapters:
        y = adapter.add_to(y, x)
    return y


def _of_nested(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the outputs of a function of rows for a nested tensor: the samples of a padded batch, say."""
    if x.layout == torch.strided:
        return torch.nested.as_nested_tensor([function(sample) for sample in x.unbind()])
    jagged: Any = x
    return torch.nested.nested_tensor_from_jagged(
        function(jagged.values()), jagged.offsets(), jagged.lengths(), jagged._ragged_idx
    )


def _fuses(base: Any, x: Tensor) -> bool:
    """Whether a base is a plain frozen linear layer that nobody watches, so that one operation can do it all."""
    if type(base) is not nn.Linear or "forward" in vars(base):  # some replace its method
        return False
    watched = base._forward_hooks or base._forward_pre_hooks or base._backward_hooks or base._backward_pre_hooks
    watched = watched or nn.modules.module._has_any_global_hook()  # of profilers, say, which see calls only
    weight, bias = base.weight, base.bias
    trained = weight.requires_grad or (bias is not None and bias.requires_grad)
    dtype = product_dtype(x)
    same = all(product_dtype(t) == dtype for t in (weight, bias) if t is not None)
    return not watched and not trained and type(weight) is nn.Parameter and same


def add_per_sample(
    y: Tensor,
    x: Tensor,
    adapters: Sequence[CDDAdapter | None],
    add: Callable[[CDDAdapter, Tensor, Tensor], Tensor] = CDDAdapter.add_to,
) -> Tensor:
    """Add to each sample of the outputs the change of a different adapter; for layers of your own.

    Parameters
    ----------
    y : Tensor, shape (N, ..., out_features)
        Outputs of the base; not changed.
    x : Tensor, shape (N, ..., in_features)
        Its inputs.
    adapters : sequence of CDDAdapter or None
        One for each sample, along the first axis; None adds nothing.
    add : callable, default `CDDAdapter.add_to`
        Called as ``add(adapter, y, x)`` with the samples of one adapter.

    Returns
    -------
    Tensor, shape (N, ..., out_features)
        The sums.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import CDDAdapter, add_per_sample
    >>> adapter = CDDAdapter(4, 4, init="normal")
    >>> x = torch.ones(2, 4)
    >>> y = add_per_sample(torch.zeros(2, 4), x, [None, adapter])
    >>> bool((y[0] == 0).all()), torch.allclose(y[1], adapter(x[1]))
    (True, True)
    """
    out = y.clone()
    for adapter in dict.fromkeys(each for each in adapters if each is not None):
        index = torch.tensor([i for i, each in enumerate(adapters) if each is adapter], device=x.device)
        out = out.index_copy(0, index, add(adapter, y[index], x[index]))
    return out
