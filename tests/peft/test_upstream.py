"""PEFT's own tests, of the version that is installed, for our method.

They stand in PEFT's source distribution, which test_upstream_source.py fetches. Those of tests/testing_common.py run on
tiny models of transformers that are made here, where PEFT takes models of the Hub. Those of tests/test_custom_models.py
get cases of CDD in place of their own; tests of another method by construction are left out, and each that no outside
method can pass is named below with its reason.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import sys
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("transformers")

import peft
from peft.utils import infer_device

from structmat.peft import CDDConfig
from tests.peft import tiny
from tests.peft.upstream_source import SOURCE

if not SOURCE.is_dir():
    pytest.skip("test_upstream_source.py fetches PEFT's tests and runs these then", allow_module_level=True)

PACKAGE = "peft_own_tests"
STUBS = {"datasets": ("load_dataset",), "diffusers": ("StableDiffusionPipeline",)}  # imported there, not needed here


def load(name: str) -> ModuleType:
    """Import one of PEFT's test modules, with stand-ins for packages that it imports and no test here uses."""
    if PACKAGE not in sys.modules:
        spec = spec_from_file_location(PACKAGE, SOURCE / "__init__.py", submodule_search_locations=[str(SOURCE)])
        assert spec is not None
        sys.modules[PACKAGE] = module_from_spec(spec)
    added = []
    for stub, names in STUBS.items():
        if stub not in sys.modules:
            module: Any = ModuleType(stub)
            for each in names:
                setattr(module, each, type(each, (), {}))
            sys.modules[stub] = module
            added.append(stub)
    try:
        return importlib.import_module(f"{PACKAGE}.{name}")
    finally:
        for stub in added:
            del sys.modules[stub]


# Generic checks


common = load("testing_common")

# PEFT's code and tests warn in many places, on purpose in some.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(infer_device() != "cpu", reason="CPU suite"),
]

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
MODELS: dict[str, dict[str, Any]] = {
    "tiny-llama": {"target_modules": ["q_proj", "v_proj"], "block_size": 5},
    "tiny-conv1d": {"target_modules": ["c_attn"]},
    # That of PEFT's own tests of target parameters is on the Hub.
    "tiny-mixtral": {"target_modules": [], "target_parameters": ["experts.down_proj", "experts.gate_up_proj"]},
}


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
        settings = {**MODELS[model_id], "task_type": "CAUSAL_LM"}
        if check == "_test_training_layer_indexing" and "target_parameters" in settings:
            pytest.skip("layers_to_transform concerns modules alone, as for LoRA")
        if check in CHANGED:
            settings["init_weights"] = False
        if check == "_test_lora_conversion":  # its bound on the error is absolute
            settings["alpha"] = 0.3
        getattr(self, check)(model_id, CDDConfig, settings)


# Custom models


custom = load("test_custom_models")

# These tests train by SGD at a rate of 0.5, whose steps grow with the square of the scale.
SGD = {"factor_scale": 1.0}
CASES = [
    ("modules_to_save", "MLP", CDDConfig, {"target_modules": ["lin0"], "modules_to_save": ["lin1"]}),
    ("square, five factors", "Square", CDDConfig, {"target_modules": ["lin0"], "n_factors": 5, **SGD}),
    ("blocks that do not divide", "MLP", CDDConfig, {"target_modules": ["lin0"], "block_size": 7}),
    ("Toeplitz", "MLP", CDDConfig, {"target_modules": ["lin0", "lin1"], "block_size": "toeplitz", **SGD}),
    ("Conv1D", "EmbConv1D", CDDConfig, {"target_modules": ["conv1d"]}),
    ("embedding", "EmbConv1D", CDDConfig, {"target_modules": ["emb"]}),
    ("convolution", "Conv2d1x1", CDDConfig, {"target_modules": ["conv2d"]}),
    ("convolution of groups", "Conv2dGroups", CDDConfig, {"target_modules": ["conv2d"]}),
    ("attention", "MHA", CDDConfig, {"target_modules": ["mha"], **SGD}),
    ("parameter", "MlpUsingParameters", CDDConfig, {"target_parameters": ["lin0.weight"], **SGD}),
    ("two", "MLP", CDDConfig, {"target_modules": ["lin0"], "target_parameters": ["lin1.weight"], **SGD}),
]
RANDOM = {"target_modules": ["lin0"], "init_weights": False}
TWO_ADAPTERS = [
    ("same", "cdd", CDDConfig, RANDOM, RANDOM),
    ("other blocks", "cdd", CDDConfig, RANDOM, {**RANDOM, "block_size": 3}),
    ("different", "cdd", CDDConfig, RANDOM, {**RANDOM, "target_modules": ["lin1"]}),
    ("parameter", "cdd", CDDConfig, RANDOM, {**RANDOM, "target_modules": [], "target_parameters": ["lin1.weight"]}),
]

# Tests that would get cases here but cannot pass, with the reason.
IMPOSSIBLE: dict[str, str] = {
    "test_mixed_adapter_batches_mha_raises": "wants an error where mixed batches work, and for LoRA do not",
    "test_mixed_adapter_batches_training_mode_raises": "wants an error where mixed batches train, and for LoRA do not",
    "test_disable_adapter_with_bias_warns": "skips itself for all methods but LoRA and BOFT, by a list in its source",
}


def translated(value: Any) -> Any:
    """Return a LoRA configuration as one of CDD; None where it has options that only LoRA has."""
    if isinstance(value, peft.LoraConfig):
        if type(value) is not peft.LoraConfig:
            return None
        own = {"target_modules", "modules_to_save", "r", "init_lora_weights", "lora_alpha", "peft_type", "peft_version"}
        plain = peft.LoraConfig()
        special = {k for k, v in vars(value).items() if k not in own and v != getattr(plain, k)}
        if special:
            return None
        return CDDConfig(
            target_modules=copy.copy(value.target_modules)
            if isinstance(value.target_modules, str)
            else sorted(value.target_modules),
            modules_to_save=value.modules_to_save,
            init_weights=value.init_lora_weights,
            block_size=3 if value.r != plain.r else "min",
        )
    return value


def pointed(mark: pytest.Mark) -> pytest.Mark | None:
    """Return a parametrisation with cases of CDD in place of its own, None if it has nothing to do with methods."""
    names, values = mark.args[:2]
    if values is custom.TEST_CASES:
        return pytest.mark.parametrize(names, CASES, ids=[case[0] for case in CASES]).mark
    if values is custom.MULTIPLE_ACTIVE_ADAPTERS_TEST_CASES:
        return pytest.mark.parametrize(names, TWO_ADAPTERS, ids=[case[0] for case in TWO_ADAPTERS]).mark
    if names == "config_cls":
        return pytest.mark.parametrize(names, [CDDConfig]).mark
    rows = [row if isinstance(row, tuple) else (row,) for row in values]
    if any(isinstance(cell, peft.LoraConfig) for row in rows for cell in row):
        new = [
            tuple(translated(cell) for cell in row) for row in rows if any(isinstance(c, peft.LoraConfig) for c in row)
        ]
        new = [row for row in new if None not in row]
        return pytest.mark.parametrize(names, [row if len(row) > 1 else row[0] for row in new]).mark
    return None


def adapted(cls: type) -> type:
    """Return a subclass with the tests that concern CDD."""
    members: dict[str, Any] = {"__module__": __name__}
    for name, function in inspect.getmembers(cls, inspect.isfunction):
        if not name.startswith("test_"):
            continue
        marks = [mark for mark in getattr(function, "pytestmark", []) if mark.name == "parametrize"]
        new = [pointed(mark) for mark in marks]
        if not any(mark is not None for mark in new):
            members[name] = None  # of another method, or of none
            continue
        clone = _copied(function)
        clone.pytestmark = [own or mark for own, mark in zip(new, marks, strict=True)]
        clone.pytestmark += [mark for mark in function.pytestmark if mark.name != "parametrize"]
        if name in IMPOSSIBLE:
            clone.pytestmark.append(pytest.mark.skip(reason=IMPOSSIBLE[name]).mark)
        members[name] = clone
    return type(cls.__name__, (cls,), members)


def _copied(function: Any) -> Any:
    clone = type(function)(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    clone.__kwdefaults__ = function.__kwdefaults__
    clone.__dict__.update({k: v for k, v in function.__dict__.items() if k != "pytestmark"})
    return clone


class Models(custom.MockTransformerWrapper):
    """PEFT's models, and one of square layers."""

    @classmethod
    def from_pretrained(cls, model_id: str, dtype: Any = None) -> Any:
        if model_id == "Square":
            torch.manual_seed(0)
            model = custom.MLP()
            model.lin0, model.lin1 = torch.nn.Linear(10, 10), torch.nn.Linear(10, 10)
            return model.to(dtype or torch.float32)
        return super().from_pretrained(model_id, dtype)


for _name, _cls in inspect.getmembers(custom, inspect.isclass):
    if _name.startswith("Test") and _cls.__module__ == custom.__name__:
        globals()[_name] = adapted(_cls)
        if hasattr(_cls, "transformers_class"):
            globals()[_name].transformers_class = Models
