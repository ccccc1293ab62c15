"""The methods of `few_parameters.py`: those of PEFT with few parameters, at the size nearest to D C D's.

Everything but sizes and places is PEFT's default. Where a method has a size, its number of parameters is, as a ratio,
as near as the size allows to the 13,824 of D C D on the query and value layers of MiniLM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from _fair_plan import RATES as CDD_RATES
from peft import (
    BOFTConfig,
    IA3Config,
    LNTuningConfig,
    MissConfig,
    OFTConfig,
    PeftConfig,
    RandLoraConfig,
    RoadConfig,
    ShiraConfig,
    UniLoraConfig,
    VBLoRAConfig,
    VeraConfig,
    WaveFTConfig,
)
from torch import Tensor, nn

from finetune.methods import METHODS as EXAMPLE_METHODS
from finetune.methods import Method, Plan, Prepared, prepare_peft
from structmat._adapter_format import factor_key
from structmat.torch._files.low_bits import packed_state, rounded

MakeConfig = Callable[[int | None, list[str] | None], PeftConfig]
"""Takes a size and the ends of the names of the layers, which are None for a method's own."""


def _vera(rank: int | None, targets: list[str] | None) -> PeftConfig:
    return VeraConfig(r=rank, target_modules=targets, save_projection=False)


def _ia3(_: int | None, targets: list[str] | None) -> PeftConfig:
    if targets is None:  # keys, values and the inputs of the second layer of each feed-forward network
        return IA3Config()
    return IA3Config(target_modules=targets, feedforward_modules=[])


def _road(variant: int | None, targets: list[str] | None) -> PeftConfig:
    return RoadConfig(variant=f"road_{variant}", target_modules=targets)


def _waveft(count: int | None, targets: list[str] | None) -> PeftConfig:
    return WaveFTConfig(n_frequency=count, target_modules=targets)


def _shira(rank: int | None, targets: list[str] | None) -> PeftConfig:
    return ShiraConfig(r=rank, target_modules=targets)


def _randlora(rank: int | None, targets: list[str] | None) -> PeftConfig:
    # 20 for each rank, as in the default of 640 at rank 32.
    return RandLoraConfig(r=rank, randlora_alpha=20 * rank, target_modules=targets, save_projection=False)


def _oft(block: int | None, targets: list[str] | None) -> PeftConfig:
    return OFTConfig(oft_block_size=block, target_modules=targets)


def _boft(block: int | None, targets: list[str] | None) -> PeftConfig:
    return BOFTConfig(boft_block_size=block, target_modules=targets)


def _ln_tuning(_: int | None, __: list[str] | None) -> PeftConfig:
    return LNTuningConfig(target_modules=["LayerNorm"])  # PEFT has no default for BERT


def _unilora(count: int | None, targets: list[str] | None) -> PeftConfig:
    return UniLoraConfig(theta_d_length=count, target_modules=targets)


def _miss(rank: int | None, targets: list[str] | None) -> PeftConfig:
    return MissConfig(r=rank, target_modules=targets)


def _vblora(vectors: int | None, targets: list[str] | None) -> PeftConfig:
    # Vectors of 128 numbers, as those of 256 do not divide the 384 features.
    return VBLoRAConfig(num_vectors=vectors, vector_length=128, target_modules=targets, save_only_topk_weights=True)


def _prepare(encoder: nn.Module, plan: Plan, make: MakeConfig) -> Prepared:
    targets = None if plan.places == "own" else plan.targets
    return prepare_peft(encoder, make(plan.size, targets), plan.lr)


def _prepare_vblora(encoder: nn.Module, plan: Plan) -> Prepared:
    """Prepare VB-LoRA, whose bank of vectors learns at a tenth of the rate of the logits, as PEFT's guide has it."""
    prepared = _prepare(encoder, plan, _vblora)
    named = [(name, p) for name, p in prepared.encoder.named_parameters() if p.requires_grad]
    bank = [p for name, p in named if "vector_bank" in name]
    logits = [p for name, p in named if "vector_bank" not in name]
    groups = [{"params": logits, "lr": plan.lr}, {"params": bank, "lr": plan.lr / 10}]
    return Prepared(prepared.encoder, groups, prepared.saved)


def _prepare_four_bits(encoder: nn.Module, plan: Plan) -> Prepared:
    """Prepare D C D whose vectors are rounded after the last step, as `save_adapter` does it with four bits."""
    prepared = EXAMPLE_METHODS["cdd"].prepare(encoder, plan)
    vectors = [vector for group in prepared.groups for vector in group["params"]]

    @torch.no_grad()
    def round_at_the_end(steps: int) -> None:
        if steps == plan.steps:
            for vector in vectors:
                vector.copy_(rounded(vector, 4))

    def saved() -> dict[str, Tensor]:
        parts = (name.split(".adapter.vectors.") for name in prepared.saved())
        state = {factor_key(path, int(i)): vector for (path, i), vector in zip(parts, vectors, strict=True)}
        return packed_state(state, 4, "few_parameters")

    return replace(prepared, after_step=round_at_the_end, saved=saved)


LOW = (3e-4, 1e-3, 3e-3, 1e-2)
MIDDLE = (1e-3, 3e-3, 1e-2, 3e-2)
HIGH = (3e-3, 1e-2, 3e-2, 0.1)
RATES = {
    "cdd-4-bits": CDD_RATES["cdd"],
    "vera": HIGH,
    "ia3": MIDDLE,
    "road": MIDDLE,
    "waveft": LOW,
    "shira": HIGH,
    "randlora": LOW,
    "oft": MIDDLE,
    "boft": MIDDLE,
    "ln-tuning": MIDDLE,
    "unilora": MIDDLE,
    "miss": LOW,
    "vblora": (0.01, 0.03, 0.1, 0.3),
}
"""The four rates of each method.

They are higher than those of large models by the factor by which LoRA's are, and otherwise about those of the authors;
where these say little, such that steps at the middle rates change a weight as much as LoRA's at its best ones.
"""


def _method(name: str, prepare: Callable[[nn.Module, Plan], Prepared]) -> Method:
    return Method(prepare, RATES[name][1], RATES[name], name)


_CONFIGS = {
    "vera": _vera,
    "ia3": _ia3,
    "road": _road,
    "waveft": _waveft,
    "shira": _shira,
    "randlora": _randlora,
    "oft": _oft,
    "boft": _boft,
    "ln-tuning": _ln_tuning,
    "unilora": _unilora,
    "miss": _miss,
}

METHODS = {name: _method(name, partial(_prepare, make=make)) for name, make in _CONFIGS.items()}
METHODS["cdd-4-bits"] = _method("cdd-4-bits", _prepare_four_bits)
METHODS["vblora"] = _method("vblora", _prepare_vblora)
EXAMPLE_METHODS.update(METHODS)
