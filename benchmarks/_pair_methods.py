"""What `adapter_pairs.py` trains beside the methods of the examples: ways to clip, and other products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from math import prod, sqrt

import torch
from torch import Tensor, nn

from finetune.methods import METHODS as EXAMPLE_METHODS
from finetune.methods import PLACES, Method, Plan, Prepared, clip_apart
from structmat._adapter_format import FACTOR_SCALE
from structmat.torch import adapt

PLACES["upper-intermediate"] = tuple(f"layer.{i}.intermediate.dense" for i in range(2, 6))
"""The first feed-forward layers of the upper four of six blocks, where D C D has as many numbers as on query and value
layers of all blocks."""


def clip_not(adapter: Sequence[Tensor], head: Sequence[Tensor]) -> None:
    """Leave gradients as they are."""


def clip_by_factors(scales: Sequence[float], adapter: Sequence[Tensor], head: Sequence[Tensor]) -> None:
    """Clip all gradients together, with the norm that those of the factors have.

    For an optimiser of Adam's kind, this is the same as to store the factors as they are and to multiply their rates
    by the scales.
    """
    gradients = [vector.grad / scale for vector, scale in zip(adapter, scales, strict=True)]
    norm = nn.utils.get_total_norm([*gradients, *(p.grad for p in head)])
    nn.utils.clip_grads_with_norm_([*adapter, *head], 1.0, norm)


def _clipped(encoder: nn.Module, plan: Plan, method: str, clip: Callable[..., object]) -> Prepared:
    return replace(EXAMPLE_METHODS[method].prepare(encoder, plan), clip=clip)


def _clipped_by_factors(encoder: nn.Module, plan: Plan) -> Prepared:
    prepared = EXAMPLE_METHODS["cdd"].prepare(encoder, plan)
    adapters = [module for module in encoder.modules() if hasattr(module, "vectors")]
    scales = [*chain.from_iterable(adapter.scales for adapter in adapters)]
    return replace(prepared, clip=partial(clip_by_factors, scales))


class Product(nn.Module):
    """``y = W x + b + F1 F2 ... x`` with factors that are diagonals, "D", or matrices of circulant blocks, "C".

    The first factor starts at zero, and all are stored in the scale of `CDDAdapter`. The layer is square.
    """

    def __init__(self, base: nn.Linear, kinds: str, block: int) -> None:
        super().__init__()
        self.base, self.kinds, self.block = base, kinds, block
        n = base.in_features
        shapes = {"D": (n,), "C": (n // block, n // block, block)}
        self.scales = [FACTOR_SCALE if kind == "D" else FACTOR_SCALE / sqrt(n) for kind in kinds]
        starts = {"D": torch.randn(n).sign, "C": (torch.randn(shapes["C"]) / sqrt(n)).clone}
        self.vectors = nn.ParameterList()
        for kind, scale in zip(kinds, self.scales, strict=True):
            self.vectors.append(starts[kind]() / scale if self.vectors else torch.zeros(shapes[kind]))

    def forward(self, x: Tensor) -> Tensor:
        y, change = self.base(x), x.float()
        for kind, vector in reversed([*zip(self.kinds, self.vectors, strict=True)]):
            change = change * vector if kind == "D" else self._multiplied(vector, change)
        return y + (prod(self.scales) * change).to(y.dtype)

    def _multiplied(self, columns: Tensor, x: Tensor) -> Tensor:
        """Return the products by a matrix whose block i, j is the circulant with the first column `columns[i, j]`."""
        spectra = torch.fft.rfft(x.unflatten(-1, (-1, self.block)))
        of_product = torch.einsum("ijf,...jf->...if", torch.fft.rfft(columns), spectra)
        return torch.fft.irfft(of_product, self.block).flatten(-2)


def _of_products(encoder: nn.Module, plan: Plan, kinds: str) -> Prepared:
    for path in adapt(encoder, targets=plan.targets).layers:
        base = encoder.get_submodule(path).base
        encoder.set_submodule(path, Product(base, kinds, plan.size or base.in_features))
    trained = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    return Prepared(encoder, [{"params": list(trained.values()), "lr": plan.lr}], lambda: trained)


_RATE, _RATES = 0.003, EXAMPLE_METHODS["cdd"].grid
_PREPARE = {
    "cdd-apart": partial(_clipped, method="cdd", clip=clip_apart),
    "cdd-unclipped": partial(_clipped, method="cdd", clip=clip_not),
    "cdd-factors": _clipped_by_factors,
    "lora-apart": partial(_clipped, method="lora", clip=clip_apart),
    "product-cdc": partial(_of_products, kinds="CDC"),
    "product-dc": partial(_of_products, kinds="DC"),
}
METHODS = {name: Method(prepare, _RATE, _RATES, name) for name, prepare in _PREPARE.items()}
