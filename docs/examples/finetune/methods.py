"""What is trained: the head alone, an adapter, or everything.

Each method is a function that takes the encoder and a `Plan`, prepares the encoder in place and returns a `Prepared`.
`METHODS` lists them with their learning rates; a new one is one more entry.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from peft import (
    AdaLoraConfig,
    C3AConfig,
    FourierFTConfig,
    LoraConfig,
    PeftConfig,
    get_peft_model,
    get_peft_model_state_dict,
)
from peft.tuners.c3a.layer import BlockCircularConvolution, C3ALayer
from torch import Tensor, nn

__all__ = [
    "METHODS",
    "PLACES",
    "Method",
    "Plan",
    "Prepared",
    "clip_apart",
    "clip_together",
    "nearest_rank",
    "prepare_peft",
]

PLACES = {
    "query-value": ("query", "value"),
    "intermediate": ("intermediate.dense",),
    "all-linear": ("query", "key", "value", "dense"),
}
"""Which linear layers of every block are adapted, by the ends of their names in BERT."""


def nearest_rank(encoder: nn.Module, places: str) -> int:
    """Return the rank at which LoRA's number of parameters is nearest, as a ratio, to that of CDD in the same layers.

    The encoder is adapted in place, so pass one that is not used otherwise.
    """
    from structmat.torch import adapt  # noqa: PLC0415

    summary = adapt(encoder, list(PLACES[places]))
    layers = [encoder.get_submodule(path) for path in summary.layers]
    share = summary.n_parameters / sum(layer.in_features + layer.out_features for layer in layers)
    below = max(1, int(share))
    return below if share / below <= (below + 1) / share else below + 1


@dataclass(frozen=True)
class Plan:
    """What a method is to prepare for."""

    lr: float
    steps: int
    size: int | None = None
    """Of the adapters: rank, side of the blocks, number of coefficients or of factors. None is the method's choice."""
    places: str = "query-value"

    @property
    def targets(self) -> list[str]:
        """Return the ends of the names of the layers to adapt."""
        return list(PLACES[self.places])


def clip_apart(adapter: Sequence[Tensor], head: Sequence[Tensor]) -> None:
    """Clip the gradients of the adapter at a norm of 1, and those of the head at a norm of 1."""
    for parameters in (adapter, head):
        nn.utils.clip_grad_norm_(parameters, 1.0)


def clip_together(adapter: Sequence[Tensor], head: Sequence[Tensor]) -> None:
    """Clip all gradients together at a norm of 1, as the Trainer of transformers does by default."""
    nn.utils.clip_grad_norm_([*adapter, *head], 1.0)


@dataclass(frozen=True)
class Prepared:
    """An encoder ready for training."""

    encoder: nn.Module
    groups: list[dict[str, Any]]
    """Parameter groups for AdamW, the head's not among them."""
    saved: Callable[[], dict[str, Tensor]]
    """What a file of the trained adapter holds."""
    penalty: Callable[[], Tensor | float] = float
    """What is added to the loss: nothing, for most."""
    after_step: Callable[[int], Any] = lambda _: None
    """Called with the number of steps done, while the gradients are still there."""
    clip: Callable[[Sequence[Tensor], Sequence[Tensor]], Any] | None = None
    """Clips the gradients of the parameters of the groups and of the head, where not the way of the settings does."""


@dataclass(frozen=True)
class Method:
    """How to prepare an encoder, and the learning rates to try; `lr` is the one used if none is named."""

    prepare: Callable[[nn.Module, Plan], Prepared]
    lr: float
    grid: tuple[float, ...]
    label: str
    """In tables; braces stand for the size."""


def _head(encoder: nn.Module, _: Plan) -> Prepared:
    encoder.requires_grad_(requires_grad=False)
    return Prepared(encoder, [], dict)


def _full(encoder: nn.Module, plan: Plan) -> Prepared:
    return Prepared(encoder, [{"params": list(encoder.parameters()), "lr": plan.lr}], encoder.state_dict)


def _cdd(encoder: nn.Module, plan: Plan, **options: Any) -> Prepared:
    """Adapt by products of diagonal and circulant matrices, the usual three factors or `size` of them."""
    import structmat.torch as smt  # noqa: PLC0415

    smt.adapt(encoder, targets=plan.targets, **(options or {"n_factors": plan.size or 3}))
    trained = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    return Prepared(encoder, [{"params": list(trained.values()), "lr": plan.lr}], lambda: trained)


def _cdd_shared(encoder: nn.Module, plan: Plan) -> Prepared:
    """Adapt by the usual products, whose circulants the same layers of all blocks share."""
    prepared, first = _cdd(encoder, plan), {}
    for path, module in encoder.named_modules():
        if hasattr(module, "vectors"):
            kind = re.sub(r"\.\d+\.", ".", path)
            owner = first.setdefault(kind, module.vectors)
            for i in range(1, len(owner), 2):
                module.vectors[i] = owner[i]
    trained = {name: p for name, p in encoder.named_parameters() if p.requires_grad}  # each once
    return replace(prepared, groups=[{"params": list(trained.values()), "lr": plan.lr}], saved=lambda: trained)


def _cdd_blocks(encoder: nn.Module, plan: Plan) -> Prepared:
    """Adapt by products of three factors with blocks of side `size`, by default a third of the layer's."""
    return _cdd(encoder, plan, block_size=plan.size or encoder.config.hidden_size // 3)


def prepare_peft(encoder: nn.Module, config: PeftConfig, lr: float) -> Prepared:
    """Adapt by a method of PEFT, all of whose parameters learn at one rate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT 0.21 asks transformers by an attribute's old name
        model = get_peft_model(encoder, config)
    trained = [p for p in model.parameters() if p.requires_grad]
    return Prepared(model, [{"params": trained, "lr": lr}], lambda: get_peft_model_state_dict(model))


def _cdd_by_peft(encoder: nn.Module, plan: Plan) -> Prepared:
    """Adapt by the same products, as a method of PEFT."""
    from structmat.peft import CDDConfig  # noqa: PLC0415

    return prepare_peft(encoder, CDDConfig(n_factors=plan.size or 3, target_modules=plan.targets), plan.lr)


def _lora(encoder: nn.Module, plan: Plan) -> Prepared:
    """Adapt by low rank, scaled by 2 for every rank."""
    rank = plan.size or 8
    return prepare_peft(encoder, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=plan.targets), plan.lr)


def _adalora(encoder: nn.Module, plan: Plan) -> Prepared:
    """Adapt by LoRA that begins with half as much rank again and is pruned to `size` on average while it learns."""
    # The first tenth of the steps is at full rank, the last fifth at the final ranks.
    steps, rank = plan.steps, plan.size or 8
    schedule = {"tinit": steps // 10, "tfinal": max(1, steps // 5), "deltaT": max(1, steps // 100), "total_step": steps}
    ranks = {"init_r": 3 * rank // 2, "target_r": rank, "lora_alpha": 2 * rank}
    config = AdaLoraConfig(**ranks, **schedule, target_modules=plan.targets)
    prepared = prepare_peft(encoder, config, plan.lr)
    factors = [p for name, p in prepared.encoder.named_parameters() if "lora_A" in name or "lora_B" in name]

    def penalty() -> Tensor:
        # PEFT adds this only to models that return a loss of their own
        grams = [p @ p.T if p.shape[0] < p.shape[1] else p.T @ p for p in factors]
        off = [torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device)) for gram in grams]
        return config.orth_reg_weight * torch.stack(off).mean()

    return replace(prepared, penalty=penalty, after_step=prepared.encoder.base_model.update_and_allocate)


def _fourierft(encoder: nn.Module, plan: Plan) -> Prepared:
    """Adapt by sparse spectra, by default with as many parameters as CDD has in a square layer."""
    count = plan.size or 3 * encoder.config.hidden_size
    options = {"n_frequency": count, "init_weights": True}  # True is a start at zero
    return prepare_peft(encoder, FourierFTConfig(**options, target_modules=plan.targets), plan.lr)


def _c3a(encoder: nn.Module, plan: Plan) -> Prepared:
    """Adapt by block circulants, by default with as many parameters as CDD has if 3 divides the size, else a third."""
    side = encoder.config.hidden_size
    block = plan.size or (side if side % 3 else side // 3)
    return prepare_peft(encoder, C3AConfig(block_size=block, target_modules=plan.targets), plan.lr)


class _CorrectedConvolution(BlockCircularConvolution):
    """PEFT's convolution with the right gradient for its input, which that of PEFT 0.21.2 isn't."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        _, weight_gradient = BlockCircularConvolution.backward(ctx, *gradients)
        _, w = ctx.saved_tensors
        y = torch.fft.fft(gradients[0].unflatten(-1, (w.shape[0], w.shape[2])))
        x = torch.fft.ifft(torch.einsum("...mb,mnb->...nb", y, torch.fft.fft(w))).real
        return x.flatten(-2), weight_gradient


def _c3a_corrected(encoder: nn.Module, plan: Plan) -> Prepared:
    """Adapt by C3A with `_CorrectedConvolution`, which matters to every layer below another adapted one."""
    prepared = _c3a(encoder, plan)

    def forward(layer: C3ALayer, x: Tensor) -> Tensor:
        y = layer.base_layer(x)
        change = _CorrectedConvolution.apply(x.float(), layer.c3a_kernel["default"]) / x.shape[-1]
        return y + change.to(y.dtype)

    for module in prepared.encoder.modules():
        if isinstance(module, C3ALayer):
            module.forward = partial(forward, module)
    return prepared


METHODS = {
    "head": Method(_head, 0.03, (0.01, 0.03, 0.1), "head only"),
    "lora": Method(_lora, 0.003, (0.001, 0.003, 0.01), "LoRA r = {}"),
    "cdd": Method(_cdd, 0.001, (0.0003, 0.001, 0.003), "CDD"),
    "cdd-blocks": Method(_cdd_blocks, 0.001, (0.0003, 0.001, 0.003), "CDD in blocks"),
    "cdd-shared": Method(_cdd_shared, 0.001, (0.0003, 0.001, 0.003), "CDD, shared circulants"),
    "cdd-peft": Method(_cdd_by_peft, 0.001, (0.0003, 0.001, 0.003), "CDD, by PEFT"),
    "full": Method(_full, 1e-4, (5e-5, 1e-4, 2e-4), "full"),
    "adalora": Method(_adalora, 0.01, (0.003, 0.01, 0.03), "AdaLoRA"),
    "fourierft": Method(_fourierft, 0.1, (0.03, 0.1, 0.3), "FourierFT"),
    "c3a": Method(_c3a, 0.3, (0.1, 0.3, 1.0), "C3A"),
    "c3a-corrected": Method(_c3a_corrected, 0.3, (0.1, 0.3, 1.0), "C3A, corrected"),
}
