"""The generic checks of PEFT's tests/testing_common.py, on tiny models of transformers that are made here.

PEFT runs them on models of the Hub. Checks that skip themselves for methods that a list in their source does not name
are named below; tests/peft has their like.
"""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("transformers")

from peft.utils import infer_device

from structmat.peft import CDDConfig
from tests.peft import tiny
from tests.peft_suite import upstream

common = upstream.load("testing_common")

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.skipif(infer_device() != "cpu", reason="CPU suite")]

CHECKS = [
    "_test_model_attr",
    "_test_adapter_name",
    "_test_prepare_for_training",
    "_test_load_model_low_cpu_mem_usage",
    "_test_save_pretrained",
    "_test_save_pretrained_selected_adapters",
    "_test_save_pretrained_adapter_name_substring",
    "_test_from_pretrained_config_construction",
    "_test_load_multiple_adapters",
    "_test_merge_layers_fp16",
    "_test_merge_layers_nan",
    "_test_merge_layers",
    "_test_merge_layers_multi",
    "_test_merge_layers_is_idempotent",
    "_test_safe_merge",
    "_test_training",
    "_test_inference_safetensors",
    "_test_training_layer_indexing",
    "_test_training_gradient_checkpointing",
    "_test_peft_model_device_map",
    "_test_delete_adapter",
    "_test_delete_inactive_adapter",
    "_test_delete_unknown_adapter_raises",
    "_test_unload_adapter",
    "_test_disable_adapter",
    "_test_adding_multiple_adapters_with_bias_raises",
    "_test_lora_conversion",
    "_test_get_base_model_state_dict",
    "_test_generate",
    "_test_generate_half_prec",
]
# Those that ask for outputs which are not the base's; for other methods PEFT's callers set the like.
CHANGED = {
    "_test_merge_layers",
    "_test_merge_layers_multi",
    "_test_safe_merge",
    "_test_unload_adapter",
    "_test_disable_adapter",
    "_test_lora_conversion",
}
IMPOSSIBLE = {
    "_test_mixed_adapter_batches": "skips itself for methods but LoRA, RoAd and GLoRA, by a list in its source",
    "_test_generate_with_mixed_adapter_batches_and_beam_search": "skips itself for all methods but LoRA",
    "_test_weighted_combination_of_adapters": "skips itself for all methods but LoRA and IA3",
    "_test_training_prompt_learning_tasks": "is for prompt learning",
}
MODELS = {"tiny-llama": ["q_proj", "v_proj"], "tiny-conv1d": ["c_attn"]}


class TestCommon(common.PeftCommonTester):
    transformers_class = tiny.Causal

    def prepare_inputs_for_testing(self) -> dict[str, Any]:
        return {
            "input_ids": torch.tensor([[1, 1, 1], [1, 2, 1]]),
            "attention_mask": torch.tensor([[1, 1, 1], [1, 0, 1]]),
        }

    @pytest.mark.parametrize("model_id", MODELS)
    @pytest.mark.parametrize("check", CHECKS)
    def test_check(self, check: str, model_id: str) -> None:
        torch.manual_seed(0)
        settings = {"target_modules": MODELS[model_id], "task_type": "CAUSAL_LM"}
        if check in CHANGED:
            settings["init_weights"] = False
        if model_id == "tiny-llama":
            settings["block_size"] = 5
        if check == "_test_lora_conversion":  # its bound on the error is absolute
            settings["alpha"] = 0.3
        getattr(self, check)(model_id, CDDConfig, settings)

    @pytest.mark.parametrize("check", IMPOSSIBLE)
    def test_impossible(self, check: str) -> None:
        pytest.skip(f"{check} {IMPOSSIBLE[check]}")
