"""Parameters that no layer holds, such as stacked experts: what LoRA does by `target_parameters`, with CDD."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cases import in_one_test

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

import peft
import safetensors.torch
from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn

from structmat.peft import CDDConfig, CDDTunerLayer, CDDTunerParameters, hotswap_adapter
from structmat.peft._layers.tuner_module import CDDTunerModule
from structmat.torch import adapt, load_adapter, save_adapter
from tests.peft import tiny
from tests.peft.tiny import logits, train
from tests.torch.common import QuantisedTensor, assert_same_state, compiler, state

pytestmark = [*tiny.QUIET, pytest.mark.filterwarnings("ignore:.*does not match the ratio implicitly set")]

BOTH = ["experts.gate_up_proj", "experts.down_proj"]
RANDOM: dict[str, Any] = {"target_modules": [], "target_parameters": BOTH, "init_weights": False}
KINDS = ["mixtral", "gpt_oss"]
"""One whose experts are stored as outputs by inputs, and one that has them transposed."""


def adapted(kind: str = "mixtral", **settings: Any) -> PeftModel:
    return get_peft_model(tiny.model(kind), CDDConfig(**{**RANDOM, **settings})).eval()


def layers(model: nn.Module) -> list[CDDTunerParameters]:
    return [each for each in model.modules() if isinstance(each, CDDTunerParameters)]


def dense(kind: str, model: PeftModel, weights: dict[str, float]) -> Any:
    """A plain model whose parameters have a weighted sum of the changes of adapters, computed as dense matrices."""
    plain = tiny.model(kind)
    for path, layer in model.base_model.model.named_modules():
        if isinstance(layer, CDDTunerParameters):
            for adapter, weight in weights.items():
                for name in layer.changes(adapter):
                    parameter = plain.get_submodule(path)._parameters[name]
                    parameter.data += weight * layer.get_delta_weight(adapter, name)
    return plain


def adapted_names(model: PeftModel) -> tuple[set[str], set[str]]:
    """The modules and the parameters that are adapted, without the numbers of blocks."""
    short = lambda paths: {path.split(".", 3)[-1] for path in paths}
    return short(model.targeted_module_names), short(model.base_model.targeted_parameter_names)


class TestTargets:
    @pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match:RuntimeWarning")
    @pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "olmoe"])
    @in_one_test("targets", ["all-linear", "usual", r".*\.(q_proj|w1|w2|w3|gate_proj|up_proj|down_proj)", "gate"])
    def test_what_lora_adapts_is_adapted(self, kind: str, targets: str) -> None:
        """The names of layers before transformers 5 mean the stacks of today, and "all-linear" the router too."""
        usual = ["w1", "w2", "w3"] if kind == "mixtral" else ["gate_proj", "up_proj", "down_proj"]
        chosen: Any = {"usual": ["o_proj", *usual], "gate": ["gate"]}.get(targets, targets)
        ours = get_peft_model(tiny.model(kind), CDDConfig(target_modules=copy.copy(chosen)))
        theirs = get_peft_model(tiny.model(kind), peft.LoraConfig(target_modules=copy.copy(chosen)))
        assert adapted_names(ours) == adapted_names(theirs)
        assert adapted_names(ours)[1]

    def test_what_else_has_such_names_is_adapted_too(self) -> None:
        """Where dense blocks and shared experts have layers of these names, LoRA leaves them out."""
        with pytest.warns(RuntimeWarning, match="no module has the names k_proj, q_proj, v_proj"):
            ours = get_peft_model(tiny.model("deepseek_v3"), CDDConfig(target_modules=tiny.SEVEN))
        modules, parameters = adapted_names(ours)
        shared = {f"mlp.{of}{name}" for of in ("", "shared_experts.") for name in ("gate_proj", "up_proj", "down_proj")}
        assert modules == {"self_attn.o_proj", *shared}
        assert parameters == {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"}

    @pytest.mark.parametrize(("targets", "options", "meant"), [
        (["o_proj", "w1", "w3"], {}, ["gate_up_proj"]),
        (["o_proj", "experts.0.gate_proj", "experts.0.up_proj"], {}, ["gate_up_proj"]),
        (["o_proj", "gate_up_proj"], {}, ["gate_up_proj"]),
        (r".*\.(o_proj|down_proj)", {}, ["down_proj"]),
        (["o_proj", "down_proj"], {"layers_to_transform": [0]}, ["down_proj"]),
        (["o_proj", "down_proj"], {"exclude_modules": ["v_proj", "experts.down_proj"]}, []),
        (["o_proj"], {}, []),
        (["o_proj"], {"target_parameters": ["1.mlp.experts.down_proj"]}, ["1.down_proj"]),
        ([], {"target_parameters": BOTH}, ["gate_up_proj", "down_proj"]),
        ("all-linear", {}, ["gate_up_proj", "down_proj", "gate"]),
    ])  # fmt: skip
    def test_the_settings_mean_the_same_when_they_are_read_again(
        self, targets: Any, options: dict[str, Any], meant: list[str], tmp_path: Path
    ) -> None:
        model = get_peft_model(tiny.model("qwen3_moe"), CDDConfig(target_modules=targets, **options))
        found = model.base_model.targeted_parameter_names
        numbers = [0, *([] if options.get("layers_to_transform") else [1])]
        wanted = {f"{name if name[0].isdigit() else f'{i}.{name}'}" for i in numbers for name in meant}
        assert {f"{path.split('.')[2]}.{path.removesuffix('.weight').split('.')[-1]}" for path in found} == wanted
        model.save_pretrained(tmp_path)
        assert (
            PeftConfig.from_pretrained(str(tmp_path)).target_parameters
            == model.peft_config["default"].target_parameters
        )
        again = PeftModel.from_pretrained(tiny.model("qwen3_moe"), tmp_path)
        assert again.base_model.targeted_parameter_names == found
        assert set(again.targeted_module_names) == set(model.targeted_module_names)

    def test_ends_that_peft_shortens_mean_no_experts_afterwards(self, tmp_path: Path) -> None:
        """PEFT shortens long lists of paths to ends, here to one that experts have too."""
        config = tiny.config("deepseek_v3")
        config.num_hidden_layers = 21
        torch.manual_seed(0)
        base = transformers.DeepseekV3ForCausalLM(config)
        targets = [f"model.layers.{i}.mlp.{'shared_experts.' if i else ''}down_proj" for i in range(21)]
        model = get_peft_model(copy.deepcopy(base), CDDConfig(target_modules=targets))
        assert not model.base_model.targeted_parameter_names
        model.save_pretrained(tmp_path)
        again = PeftModel.from_pretrained(base, tmp_path)
        assert not again.base_model.targeted_parameter_names
        assert set(again.targeted_module_names) == set(targets)

    @in_one_test("settings, error, message", [
        ({"target_modules": ["o_proj", "w1"]}, ValueError, r"w1, fused with .*w3 in .*gate_up_proj: name all"),
        ({"target_modules": ["up_proj", "down_proj"]}, ValueError, r"up_proj, fused with .*gate_proj in"),
        ({"target_parameters": ["nothing"], "target_modules": []}, ValueError, "but also no `target_parameters` found"),
        ({"target_parameters": ["norm.bare"], "target_modules": []}, ValueError, r"of shape \(3,\)"),
        ({"target_parameters": ["bare"], "target_modules": []}, ValueError, "on the top-level module is not supported"),
        ({"target_parameters": ["low"], "target_modules": []}, TypeError, "quantised"),
        ({"target_parameters": ["computed"], "target_modules": []}, TypeError, "computed from others"),
        ({"target_parameters": ["o_proj.weight"], "target_modules": ["o_proj"]}, ValueError, "not a valid target"),
        ({**RANDOM, "block_size": 10**6}, ValueError, r"block_size must be at most .*mlp\.experts"),
    ])  # fmt: skip
    def test_bad_ones(self, settings: dict[str, Any], error: type[Exception], message: str) -> None:
        model = tiny.model("mixtral")
        model.bare = nn.Parameter(torch.ones(3, 3))
        model.model.norm.bare = nn.Parameter(torch.ones(3))
        model.model.stacks = nn.Identity()
        model.model.stacks.low = nn.Parameter(torch.ones(2, 4, 4).to(torch.float8_e4m3fn), requires_grad=False)
        model.model.stacks.computed = nn.Parameter(torch.ones(2, 4, 4))
        nn.utils.parametrize.register_parametrization(model.model.stacks, "computed", nn.Identity())
        before = str(model), [p.requires_grad for p in model.parameters()]
        with pytest.raises(error, match=message):
            get_peft_model(model, CDDConfig(**settings))
        assert (str(model), [p.requires_grad for p in model.parameters()]) == before

    def test_an_adapter_is_added_to_all_of_its_targets_or_to_none(self) -> None:
        settings = {"target_modules": ["q_proj"], "target_parameters": BOTH, "block_size": 40}
        model = tiny.model("mixtral")
        before, plain = str(model), state(model)
        with pytest.raises(ValueError, match="block_size must be"):
            get_peft_model(model, CDDConfig(**settings))
        assert str(model) == before
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert_same_state(plain, model)
        adapted = get_peft_model(model, CDDConfig(target_modules=["q_proj", "o_proj"], init_weights=False))
        before, expected = str(adapted), logits("mixtral", adapted)
        with pytest.raises(ValueError, match="block_size must be"):
            adapted.add_adapter("other", CDDConfig(**settings))
        assert str(adapted) == before
        assert torch.equal(logits("mixtral", adapted), expected)

    @pytest.mark.filterwarnings("ignore:.*were set but no parameter was matched")
    @pytest.mark.parametrize(
        "excluded", [["experts"], ["mlp"], ["mlp.experts"], r".*\.experts", r"model\.layers\.\d\.mlp"]
    )
    @pytest.mark.parametrize("settings", [
        {"target_modules": ["o_proj", "w1", "w2", "w3"]},
        {"target_modules": "all-linear"},
        {"target_modules": ["o_proj"], "target_parameters": BOTH},
    ])  # fmt: skip
    def test_experts_in_modules_that_are_excluded_stay_as_they_are(
        self, settings: dict[str, Any], excluded: Any, tmp_path: Path
    ) -> None:
        model = get_peft_model(tiny.model("mixtral"), CDDConfig(**settings, exclude_modules=excluded))
        modules, parameters = adapted_names(model)
        assert "self_attn.o_proj" in modules
        assert not {name for name in parameters if "experts" in name}
        model.save_pretrained(tmp_path)
        again = PeftModel.from_pretrained(tiny.model("mixtral"), tmp_path)
        assert adapted_names(again) == (modules, parameters)

    def test_names_that_no_parameter_has_are_told_of(self) -> None:
        names = ["experts.gate_up_proj", "experts.dwn_proj"]
        message = r"target_parameters: no parameter has the names experts\.dwn_proj; did you mean 'down_proj'\?"
        with pytest.warns(RuntimeWarning, match=message):
            get_peft_model(tiny.model("mixtral"), CDDConfig(target_modules=[], target_parameters=names))

    def test_wrong_kind_of_names(self) -> None:
        with pytest.raises(TypeError, match="target_parameters must be a list of names, got 'experts'"):
            CDDConfig(target_parameters="experts")  # type: ignore[arg-type]

    def test_quantised_experts_that_names_mean_are_told_of(self) -> None:
        model = tiny.model("mixtral")
        for block in model.model.layers:
            block.mlp.experts.down_proj.requires_grad_(requires_grad=False)
            block.mlp.experts.down_proj.data = block.mlp.experts.down_proj.data.to(torch.float8_e4m3fn)
        with pytest.warns(
            RuntimeWarning, match=r"not adapted: model\.layers\.0\.mlp\.experts\.down_proj, model\.layers\.1"
        ):
            adapted = get_peft_model(model, CDDConfig(target_modules=["w1", "w2", "w3"]))
        assert adapted_names(adapted)[1] == {"mlp.experts.gate_up_proj"}

    def test_parameters_of_what_is_never_called_stay_as_they_are(self) -> None:
        model = nn.ModuleDict({"q": nn.Linear(3, 3), "experts": nn.ParameterDict({"up": torch.ones(4, 2, 3)})})
        for targets in ("all-linear", ["q", "up"]):
            with pytest.warns(RuntimeWarning, match=r"not adapted: experts\.up\."):
                get_peft_model(copy.deepcopy(model), CDDConfig(target_modules=targets))
        with pytest.raises(TypeError, match="of a ParameterDict, which is never called"):
            get_peft_model(model, CDDConfig(target_modules=[], target_parameters=["experts.up"]))

    def test_layers_inside_of_a_module_with_parameters_are_refused(self) -> None:
        class Block(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.stack = nn.Parameter(torch.ones(2, 4, 4))
                self.out = nn.Linear(4, 4)

            def forward(self, x: Any) -> Any:
                return self.out(x @ self.stack[0])

        with pytest.raises(ValueError, match=r"target_parameters mean .* a module that holds block\.out: leave out"):
            get_peft_model(
                nn.ModuleDict({"block": Block()}), CDDConfig(target_modules=["out"], target_parameters=["stack"])
            )

    def test_the_weight_of_a_layer_is_adapted_as_the_layer(self) -> None:
        """As in PEFT's own test: by the module or by its parameter, one thing."""
        torch.manual_seed(1)
        by_module = get_peft_model(tiny.model("llama"), CDDConfig(target_modules=["gate_proj"], init_weights=False))
        torch.manual_seed(1)
        settings = CDDConfig(target_modules=[], target_parameters=["gate_proj.weight"], init_weights=False)
        by_name = get_peft_model(tiny.model("llama"), settings)
        assert sum(isinstance(each, CDDTunerLayer) for each in by_name.modules()) == 2
        assert torch.equal(logits("llama", by_module), logits("llama", by_name))
        assert_same_state(state(by_module), by_name)

    def test_adapters_may_change_other_parameters(self) -> None:
        """LoRA asks that all adapters change the same parameters."""
        model = adapted(target_parameters=BOTH[:1])
        model.add_adapter("other", CDDConfig(**{**RANDOM, "target_parameters": BOTH[1:]}))
        assert len(layers(model)) == 2
        model.base_model.set_adapter(["default", "other"])
        torch.testing.assert_close(
            logits("mixtral", model), logits("mixtral", dense("mixtral", model, {"default": 1.0, "other": 1.0}))
        )


class TestOutputs:
    @pytest.mark.parametrize("kind", [*tiny.MIXTURES, *tiny.TRANSPOSED])
    @in_one_test("implementation", ["eager", "grouped_mm"])
    def test_they_are_those_of_dense_changes(self, kind: str, implementation: str) -> None:
        """Also of several adapters, scaled, switched, and disabled; routers included."""
        router = "mlp.router.weight" if kind == "gpt_oss" else "mlp.gate.weight"
        model = adapted(kind, target_parameters=[*BOTH, router], alpha=0.5)
        model.set_experts_implementation(implementation)
        base = tiny.model(kind)
        base.set_experts_implementation(implementation)
        expected = logits(kind, dense(kind, model, {"default": 1.0}))
        assert not torch.allclose(logits(kind, base), expected, atol=1e-2)
        torch.testing.assert_close(logits(kind, model), expected, atol=1e-5, rtol=1e-4)
        model.add_adapter("other", CDDConfig(**RANDOM))
        model.base_model.set_adapter(["default", "other"])
        both = logits(kind, dense(kind, model, {"default": 1.0, "other": 1.0}))
        torch.testing.assert_close(logits(kind, model), both, atol=1e-5, rtol=1e-4)
        for layer in layers(model):
            layer.set_scale("other", 0.0)
        torch.testing.assert_close(logits(kind, model), expected, atol=1e-5, rtol=1e-4)
        with model.disable_adapter():
            assert torch.equal(logits(kind, model), logits(kind, base))

    def test_adapters_start_at_zero_and_train(self) -> None:
        """All vectors of experts that got tokens, with gradient checkpointing as without."""
        model = adapted(init_weights=True)
        assert torch.equal(logits("mixtral", model), logits("mixtral", tiny.model("mixtral")))
        checkpointed = copy.deepcopy(model)
        checkpointed.gradient_checkpointing_enable({"use_reentrant": False})
        before = copy.deepcopy(dict(model.named_parameters()))
        for each in (model, checkpointed):
            train("mixtral", each.train(), steps=3)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), checkpointed.parameters(), strict=True))
        for name, parameter in model.named_parameters():
            assert (".cdd_adapters." in name) == parameter.requires_grad
            assert torch.equal(parameter, before[name]) != parameter.requires_grad

    @compiler
    def test_compiled_experts_have_one_graph(self) -> None:
        model = adapted()
        model.set_experts_implementation("grouped_mm")
        layer = layers(model)[0]
        given = torch.randn(6, 16), torch.arange(12).reshape(6, 2) % 4, torch.rand(6, 2)
        compiled = torch.compile(layer, fullgraph=True, backend="eager")
        with torch.no_grad():
            torch.testing.assert_close(compiled(*given), layer(*given), atol=1e-5, rtol=1e-4)

    def test_dropout_changes_training_alone(self) -> None:
        """LoRA refuses it here."""
        model = adapted(dropout=0.5)
        ids = tiny.inputs("mixtral")
        expected = logits("mixtral", dense("mixtral", model, {"default": 1.0}))
        torch.testing.assert_close(logits("mixtral", model), expected, atol=1e-5, rtol=1e-4)
        first, second = (model.train()(**ids).logits for _ in range(2))
        assert not torch.allclose(first, second, atol=1e-4)

    def test_batches_of_several_adapters_are_refused(self) -> None:
        model = adapted()
        model.add_adapter("layers", CDDConfig(target_modules=["q_proj"], init_weights=False))
        ids = tiny.inputs("mixtral")
        with pytest.raises(
            ValueError, match=r"default change gate_up_proj, down_proj, which mixed batches do not support"
        ):
            model(**ids, adapter_names=["default", "layers", "__base__"])
        mixed = model(**ids, adapter_names=["layers", "__base__", "__base__"]).logits
        model.set_adapter("layers")
        torch.testing.assert_close(mixed[0], logits("mixtral", model)[0])
        torch.testing.assert_close(mixed[1:], logits("mixtral", tiny.model("mixtral"))[1:])

    def test_biases_and_modules_beside(self, tmp_path: Path) -> None:
        model = adapted(target_modules=["q_proj"], bias="cdd_only", modules_to_save=["lm_head"])
        train("mixtral", model)
        expected = logits("mixtral", model)
        model.save_pretrained(tmp_path)
        assert torch.equal(logits("mixtral", PeftModel.from_pretrained(tiny.model("mixtral"), tmp_path)), expected)

    @pytest.mark.parametrize("first", ["adapted", "offloaded"])
    def test_weights_that_accelerate_keeps_elsewhere(self, first: str) -> None:
        accelerate = pytest.importorskip("accelerate")
        base, in_place = tiny.model("mixtral"), adapted()
        if first == "offloaded":
            accelerate.cpu_offload(base, "cpu")
        torch.manual_seed(3)
        model = get_peft_model(base, CDDConfig(**RANDOM)).eval()
        for layer, other in zip(layers(model), layers(in_place), strict=True):
            other.load_state_dict(layer.cdd_adapters.state_dict(prefix="cdd_adapters."), strict=False)
        if first == "adapted":
            accelerate.cpu_offload(model, "cpu")
        expected = logits("mixtral", in_place)
        assert torch.equal(logits("mixtral", model), expected)
        assert layers(model)[0].base_layer.down_proj.is_meta
        if first == "offloaded":
            merged = model.merge_and_unload()
            torch.testing.assert_close(logits("mixtral", merged), expected, atol=1e-5, rtol=1e-4)

    def test_matrices_that_are_no_stack(self) -> None:
        """Attention of torch reads its projections of inputs without a call of a layer."""
        torch.manual_seed(0)
        base = nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2, batch_first=True)})
        model = get_peft_model(copy.deepcopy(base), CDDConfig(**{**RANDOM, "target_parameters": ["in_proj_weight"]}))
        layer = model.base_model.model["attention"]
        with torch.no_grad():
            base["attention"].in_proj_weight += layer.get_delta_weight("default", "in_proj_weight")
        x = torch.randn(2, 3, 4)
        torch.testing.assert_close(layer(x, x, x)[0], base["attention"](x, x, x)[0])
        assert layer.embed_dim == 4


class TestLifetime:
    def test_a_tensor_of_a_class_of_its_own_is_not_merged_into(self) -> None:
        """What is written into the data of a quantised tensor is lost."""
        model = adapted()
        experts = model.base_model.model.model.layers[1].mlp.experts.base_layer
        scale = experts.down_proj.detach().abs().max() / 127
        integers = (experts.down_proj.detach() / scale).round().to(torch.int8)
        experts.down_proj = nn.Parameter(QuantisedTensor(integers, scale), requires_grad=False)
        expected = logits("mixtral", model)
        with pytest.raises(TypeError, match=r"down_proj of MixtralExperts is QuantisedTensor .*, in .*1\.mlp\.experts"):
            model.merge_adapter()
        assert torch.equal(logits("mixtral", model), expected)
        assert not any(layer.merged for layer in layers(model))

    @pytest.mark.parametrize("kind", KINDS)
    def test_merged_outputs_are_the_same_and_the_base_comes_back_bit_for_bit(self, kind: str) -> None:
        model = adapted(kind)
        model.add_adapter("other", CDDConfig(**RANDOM))
        model.base_model.set_adapter(["default", "other"])
        before, expected = state(model), logits(kind, model)
        for _ in range(2):
            model.merge_adapter(safe_merge=True)
            torch.testing.assert_close(logits(kind, model), expected, atol=1e-5, rtol=1e-4)
            model.unmerge_adapter()
            assert_same_state(before, model)
        merged = model.merge_and_unload()
        assert not any(isinstance(each, CDDTunerModule) for each in merged.modules())
        torch.testing.assert_close(logits(kind, merged), expected, atol=1e-5, rtol=1e-4)

    def test_unloading_and_deleting(self) -> None:
        model = adapted()
        model.add_adapter("other", CDDConfig(**{**RANDOM, "target_parameters": BOTH[:1]}))
        expected = logits("mixtral", model)
        model.delete_adapter("other")
        assert torch.equal(logits("mixtral", model), expected)
        assert all(list(layer.cdd_adapters) == list(layer.cdd_alpha) == ["default"] for layer in layers(model))
        plain = model.unload()
        assert_same_state(state(tiny.model("mixtral").requires_grad_(requires_grad=False)), plain)

    def test_broken_changes_are_not_merged_in_part(self) -> None:
        model = adapted()
        layer = layers(model)[0]
        with torch.no_grad():
            layer.changes("default")["gate_up_proj"].vectors[0].fill_(torch.nan)
        before = state(layer.base_layer)
        with pytest.raises(ValueError, match="NaNs detected in the merged weights"):
            model.merge_adapter(safe_merge=True)
        assert_same_state(before, layer.base_layer)
        assert not layer.merged

    @pytest.mark.parametrize("kind", KINDS)
    def test_save_load_and_resume_bit_for_bit(self, kind: str, tmp_path: Path) -> None:
        """By PEFT, with little memory, and by transformers itself."""
        model = adapted(kind, target_modules=["o_proj"], init_weights=True)
        train(kind, model.train())
        expected = logits(kind, model)
        model.save_pretrained(tmp_path)
        for options in ({}, {"low_cpu_mem_usage": True}):
            loaded = PeftModel.from_pretrained(tiny.model(kind), tmp_path, is_trainable=True, **options)
            assert torch.equal(logits(kind, loaded), expected)
        direct = tiny.model(kind)
        direct.load_adapter(str(tmp_path))
        assert torch.equal(logits(kind, direct), expected)
        for each in (model, loaded):
            train(kind, each.train())
        assert torch.equal(logits(kind, model), logits(kind, loaded))
        loaded.load_adapter(str(tmp_path), "second")
        loaded.set_adapter("second")
        assert torch.equal(logits(kind, loaded), expected)

    def test_adapters_move_between_peft_and_torch(self, tmp_path: Path) -> None:
        """Written by one and read by the other, of experts, of routers and of layers, and replaced in place."""
        parameters = [*BOTH, "gate.weight"]
        by_peft = adapted(target_modules=["o_proj"], target_parameters=parameters, alpha=0.5)
        by_peft.save_pretrained(tmp_path / "peft")
        plain = tiny.model("mixtral")
        load_adapter(plain, tmp_path / "peft")
        torch.testing.assert_close(logits("mixtral", plain), logits("mixtral", by_peft), atol=1e-6, rtol=1e-5)
        by_torch = tiny.model("mixtral")
        adapt(by_torch, ["o_proj"], parameters=parameters, init="normal", alpha=0.5)
        save_adapter(by_torch, tmp_path / "torch")
        loaded = PeftModel.from_pretrained(tiny.model("mixtral"), tmp_path / "torch")
        assert len(layers(loaded)) == 4
        torch.testing.assert_close(logits("mixtral", loaded), logits("mixtral", by_torch), atol=1e-6, rtol=1e-5)
        hotswap_adapter(loaded, tmp_path / "peft")
        assert torch.equal(logits("mixtral", loaded), logits("mixtral", by_peft))
        keys = [
            safetensors.torch.load_file(tmp_path / name / "adapter_model.safetensors").keys()
            for name in ("peft", "torch")
        ]
        assert set(keys[0]) == set(keys[1])

    def test_half_precision(self) -> None:
        """Vectors in float32, as PEFT has it, and outputs in that of the model."""
        model = get_peft_model(tiny.model("mixtral", torch.bfloat16), CDDConfig(**RANDOM)).eval()
        assert {vector.dtype for layer in layers(model) for vector in layer.cdd_adapters.parameters()} == {
            torch.float32
        }
        out = logits("mixtral", model)
        assert out.dtype == torch.bfloat16
        wide = logits("mixtral", adapted())
        assert torch.isfinite(out).all()
        assert out.shape == wide.shape

    def test_files_of_before_experts_could_be_adapted(self, tmp_path: Path) -> None:
        """Their settings mean experts, and they have no vectors of these."""
        model = get_peft_model(tiny.model("mixtral"), CDDConfig(target_modules=["q_proj"], init_weights=False)).eval()
        model.save_pretrained(tmp_path)
        file = tmp_path / "adapter_config.json"
        settings = {**json.loads(file.read_text()), "target_modules": ["q_proj", "w1", "w2", "w3"]}
        del settings["target_parameters"]
        file.write_text(json.dumps(settings))
        with pytest.warns(RuntimeWarning, match=r"no vectors .*'model\.layers\.0\.mlp\.experts'"):
            loaded = PeftModel.from_pretrained(tiny.model("mixtral"), tmp_path)
        assert torch.equal(logits("mixtral", loaded), logits("mixtral", model))


class SquareExperts(nn.Module):
    """Stored as inputs by outputs, which are as many, so that a transposed change has the right shape, too."""

    is_transposed = True

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x @ expert for expert in self.weight])


def test_changes_of_square_experts_are_merged_as_they_are_laid_out() -> None:
    settings: dict[str, Any] = {"target_modules": [], "target_parameters": ["0.weight"], "init_weights": False}
    model = get_peft_model(nn.Sequential(SquareExperts()), CDDConfig(**settings))
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model(x)
        assert not torch.allclose(before, SquareExperts()(x))
        model.merge_adapter()
        torch.testing.assert_close(model(x), before)
