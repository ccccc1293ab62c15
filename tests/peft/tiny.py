"""Tiny models of transformers, made here; the same values for the same name."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from peft import PeftModel, get_peft_model

from structmat.peft import CDDConfig

# PEFT asks the Hub about a name that is no folder, and calls what transformers will drop; neither is ours.
QUIET = [
    pytest.mark.filterwarnings("ignore:.*(Could not find a config file|Unable to fetch remote file):UserWarning"),
    pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing(_enable)?` is deprecated:FutureWarning"),
]

SIZES = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
VOCABULARY = 40

_IDS = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2)
_TEXT = dict(vocab_size=VOCABULARY, max_position_embeddings=32)


MIXTURES = {"mixtral": "Mixtral", "qwen3_moe": "Qwen3Moe", "olmoe": "Olmoe", "deepseek_v3": "DeepseekV3"}
TRANSPOSED = {"gpt_oss": "GptOss"}
"""A mixture whose experts are stored as inputs by outputs, without names of before."""
_EXPERTS: dict[str, dict[str, int]] = {
    "mixtral": dict(num_local_experts=4),
    "qwen3_moe": dict(num_experts=4, moe_intermediate_size=8, head_dim=8),
    "olmoe": dict(num_experts=4),
    "gpt_oss": dict(num_local_experts=4, head_dim=8),
    "deepseek_v3": dict(
        n_routed_experts=4, n_shared_experts=1, n_group=1, topk_group=1, first_k_dense_replace=1,
        moe_intermediate_size=8, kv_lora_rank=8, q_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=8,
    ),
}  # fmt: skip


def config(name: str) -> Any:
    if name == "bert":
        return transformers.BertConfig(**SIZES, **_TEXT, num_labels=3)
    if name == "vit":
        return transformers.ViTConfig(**SIZES, image_size=8, patch_size=4, num_labels=3)
    if name == "llama":
        return transformers.LlamaConfig(**SIZES, **_TEXT, **_IDS, num_key_value_heads=1)
    if name == "gpt2":
        sizes = dict(n_positions=32, n_embd=16, n_layer=2, n_head=2)
        return transformers.GPT2Config(vocab_size=VOCABULARY, **sizes, **_IDS, tie_word_embeddings=False)
    if name == "qwen2_moe":
        sizes = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8, shared_expert_intermediate_size=8)
        return transformers.Qwen2MoeConfig(**SIZES, **_TEXT, **sizes, num_key_value_heads=2)
    if name in MIXTURES | TRANSPOSED:
        sizes = dict(num_experts_per_tok=2, num_key_value_heads=2)
        return getattr(transformers, f"{(MIXTURES | TRANSPOSED)[name]}Config")(
            **SIZES, **_TEXT, **sizes, **_EXPERTS.get(name, {})
        )
    if name == "mamba":
        return transformers.MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, state_size=4)
    assert name == "t5"
    sizes = dict(d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
    return transformers.T5Config(vocab_size=VOCABULARY, **sizes, pad_token_id=0, decoder_start_token_id=0)


CLASSES = {
    "bert": "BertForSequenceClassification",
    "vit": "ViTForImageClassification",
    "llama": "LlamaForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "t5": "T5ForConditionalGeneration",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "mamba": "MambaForCausalLM",
    **{name: f"{prefix}ForCausalLM" for name, prefix in (MIXTURES | TRANSPOSED).items()},
}
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""The usual names of the linear layers of a block."""
TARGETS = {
    "bert": ["query", "value", "intermediate.dense"],
    "vit": ["q_proj", "v_proj", "fc1"],
    "llama": ["q_proj", "v_proj", "down_proj"],
    "gpt2": ["c_attn", "mlp.c_fc"],
    "t5": ["q", "v"],
}


def model(name: str, dtype: Any = None) -> Any:
    """Return a model in evaluation mode."""
    torch.manual_seed(0)
    made = getattr(transformers, CLASSES[name])(config(name)).eval()
    return made if dtype is None else made.to(dtype)


def inputs(name: str, samples: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    if name == "vit":
        return {"pixel_values": torch.randn(samples, 3, 8, 8, generator=generator)}
    ids = {"input_ids": torch.randint(3, VOCABULARY, (samples, 6), generator=generator)}
    return {**ids, "decoder_input_ids": ids["input_ids"][:, :3]} if name == "t5" else ids


class Causal:
    """Stands in for transformers.AutoModelForCausalLM."""

    @classmethod
    def from_pretrained(cls, model_id: str, dtype: Any = None, **_: Any) -> Any:
        name = {"tiny-llama": "llama", "tiny-conv1d": "gpt2", "tiny-mixtral": "mixtral"}.get(
            model_id
        )  # PEFT skips what is called gpt2
        if name is None:
            return transformers.AutoModelForCausalLM.from_pretrained(model_id)
        made = model(name, dtype)
        made.name_or_path = made.config._name_or_path = model_id
        return made


def adapted(kind: str, **settings: Any) -> PeftModel:
    return get_peft_model(model(kind), CDDConfig(**{"target_modules": TARGETS[kind], **settings}))


def loss(kind: str, model: Any) -> torch.Tensor:
    logits = model(**inputs(kind)).logits
    return logits.float().square().mean() + logits[..., 0].float().sum()


def train(kind: str, model: Any, steps: int = 2) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(kind, model).backward()
        optimizer.step()


def logits(kind: str, model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**inputs(kind)).logits
