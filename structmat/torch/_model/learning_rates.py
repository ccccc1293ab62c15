"""Parameter groups: learning rates that suit layers of every size."""

from __future__ import annotations

from typing import Any

from torch import nn

from structmat._arguments import non_negative
from structmat._array_tools import ArgumentValueError
from structmat.torch._adapter.cdd_adapter import CDDAdapter

__all__ = ["param_groups"]


def param_groups(
    model: nn.Module, lr: float, *, other_lr: float | None = None, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Return the trainable parameters of a model in groups, for Adam-like optimisers.

    A step of such an optimiser changes every entry by about the learning rate. Entries of diagonals are of size 1,
    those of circulants with n columns of size ``n ** -0.5``: with the rate divided by ``n ** 0.5`` all change by the
    same share, and so do the singular values of the change, in layers of every size.

    Parameters
    ----------
    model : Module
        With `CDDAdapter` modules in it.
    lr : float
        For diagonals. The guide has values for the different starts.
    other_lr : float, optional
        For trainable parameters outside adapters, such as a new head. Default: `lr`.
    weight_decay : float, default 0.0
        For parameters outside adapters; a decayed diagonal would shrink products, not weights.

    Returns
    -------
    list of dict
        Groups with ``params``, ``lr``, ``weight_decay`` and ``name``.

    Raises
    ------
    ValueError
        If there is no trainable adapter, or a rate or `weight_decay` is negative or not finite.
    TypeError
        If one is not a number.

    Notes
    -----
    By Parseval's theorem a step s of every entry of a circulant of n columns changes its singular values by ``s * n **
    0.5`` (root mean square). For block circulants, [1]_ divides the rate by the side of the blocks instead.

    References
    ----------
    .. [1] X. Ding, M. Wang, S. Liao, Z. Wang, Block circulant adapter for large language models, IJCAI 2025,
       pp. 5030-5038, arXiv:2505.00582.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import adapt, param_groups
    >>> model = torch.nn.Sequential(torch.nn.Linear(16, 16))
    >>> _ = adapt(model)
    >>> groups = param_groups(model, lr=0.02)
    >>> [(group["name"], group["lr"]) for group in groups]
    [('diagonals', 0.02), ('circulants of 16 columns', 0.005)]
    >>> optimizer = torch.optim.AdamW(groups)
    """
    lr = non_negative(lr, "param_groups", "lr")
    other_lr = lr if other_lr is None else non_negative(other_lr, "param_groups", "other_lr")
    weight_decay = non_negative(weight_decay, "param_groups", "weight_decay")
    diagonals: list[nn.Parameter] = []
    circulants: dict[int, list[nn.Parameter]] = {}
    for module in model.modules():
        if isinstance(module, CDDAdapter):
            layout = module.layout  # and not the shapes of parameters, which sharding may have flattened
            for factor, kind, (_, cols) in zip(module.factors, layout.kinds, layout.factor_shapes, strict=True):
                if factor.requires_grad:
                    (diagonals if kind == "diagonal" else circulants.setdefault(cols, [])).append(factor)
    if not diagonals and not circulants:
        raise ArgumentValueError("param_groups", "model", "has no trainable CDD adapter")
    groups: list[dict[str, Any]] = [{"name": "diagonals", "params": _once(diagonals), "lr": lr, "weight_decay": 0.0}]
    groups += [
        {"name": f"circulants of {cols} columns", "params": _once(params), "lr": lr * cols**-0.5, "weight_decay": 0.0}
        for cols, params in sorted(circulants.items())
    ]
    inside = {id(p) for group in groups for p in group["params"]}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in inside]
    if others:
        groups.append({"name": "others", "params": others, "lr": other_lr, "weight_decay": weight_decay})
    return groups


def _once(parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    """Return parameters without repetitions: layers may share some."""
    return list(dict.fromkeys(parameters))
