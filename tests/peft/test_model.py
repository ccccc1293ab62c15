"""What users of PEFT do, with CDD in the place of LoRA, on tiny models of several kinds."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

import peft
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from peft import PeftConfig, PeftModel, get_peft_model, inject_adapter_in_model
from torch import nn

from structmat._adapter_format import SETTINGS, config_bytes
from structmat.peft import CDDConfig, CDDTunerLayer
from structmat.torch import CDDAdapter, adapt, load_adapter, save_adapter
from structmat.torch._adapters.options import AdapterOptions
from tests.peft import tiny
from tests.peft.tiny import adapted, logits, train
from tests.torch.common import assert_same_state, compiler, state
from tests.torch.test_model import Reader

pytestmark = tiny.QUIET

KINDS = ["bert", "gpt2", "llama", "vit"]
ROOT = Path(__file__).resolve().parents[2]
LOAD = """
import sys, torch
import structmat.peft
from peft import PeftModel
from tests.peft import tiny
for kind in sys.argv[2:]:
    model = PeftModel.from_pretrained(tiny.model(kind), f"{sys.argv[1]}/{kind}")
    with torch.no_grad():
        torch.save(model(**tiny.inputs(kind)).logits, f"{sys.argv[1]}/{kind}.pt")
"""


class TestConfig:
    @pytest.mark.parametrize(
        ("settings", "error", "message"),
        [
            ({"r": 8}, TypeError, "CDDConfig: unexpected keyword argument 'r' of LoRA: leave it out, n_factors"),
            ({"alfa": 8}, TypeError, "unexpected keyword argument 'alfa', did you mean 'alpha'?"),
            ({"block_size": 0}, ValueError, "CDDConfig: block_size"),
            ({"alpha": float("nan")}, ValueError, "CDDConfig: alpha must be finite"),
            ({"dropout": 1}, ValueError, "CDDConfig: dropout must be at least 0 and less than 1"),
            ({"factor_scale": 0}, ValueError, "CDDConfig: factor_scale must be positive"),
            ({"n_factors": 4}, ValueError, "n_factors must be odd and at least 3, got 4"),
            ({"modules_to_save": 5}, TypeError, "modules_to_save must be a list of names, got 5"),
            ({"modules_to_save": "head"}, TypeError, "modules_to_save must be a list of names, got 'head'"),
            ({"modules_to_save": [5]}, TypeError, r"modules_to_save must be a list of names, got \[5\]"),
            ({"target_modules": 5}, TypeError, "target_modules must be a list of names or a string, got 5"),
            ({"exclude_modules": {"a": 1}}, TypeError, "exclude_modules must be a list of names or a string, got {'a'"),
            ({"init_weights": "pissa"}, TypeError, "init_weights must be True or False"),
            ({"bias": "lora_only"}, ValueError, r"bias must be one of none, all, cdd_only \(in LoRA lora_only\)"),
            ({"target_modules": "q", "layers_to_transform": 0}, ValueError, "`layers_to_transform` cannot be used"),
            ({"target_modules": ["q"], "layers_pattern": "h"}, ValueError, "`layers_to_transform` must also be"),
        ],
    )
    def test_bad_settings(self, settings: dict[str, Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            CDDConfig(**settings)

    def test_options_of_lora_have_counterparts(self) -> None:
        """One line for all of them says what to write; those that there is none of are unknown."""
        with pytest.raises(TypeError, match=r"'r' of .*'lora_alpha' of .*'lora_dropout' of LoRA: write dropout=0.05$"):
            CDDConfig(r=8, lora_alpha=16, lora_dropout=0.05)  # type: ignore[call-arg]
        own = {field.name for field in dataclasses.fields(CDDConfig)}
        for field in dataclasses.fields(peft.LoraConfig):
            if field.name not in own:
                with pytest.raises(TypeError, match=f"unexpected keyword argument '{field.name}'"):
                    CDDConfig(**{field.name: 1})

    def test_options_of_adapters_have_one_default(self) -> None:
        """In the record, as arguments of `CDDAdapter`, as settings, and in files that are written without torch."""
        arguments = inspect.signature(CDDAdapter).parameters
        settings = CDDConfig()
        written = json.loads(config_bytes(["0"], n_factors=3, block_size="min", base=None))
        for option in dataclasses.fields(AdapterOptions):
            assert arguments[option.name].default == option.default
            assert getattr(settings, option.name) == option.default
            assert written[option.name] == option.default

    def test_it_is_a_dataclass_like_others(self, tmp_path: Path) -> None:
        config = CDDConfig(n_factors=5, alpha=2.0, factor_scale=7.0, target_modules=["a"])
        assert dataclasses.replace(config, alpha=1.0).factor_scale == 7.0
        assert copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == config
        config.save_pretrained(str(tmp_path))
        assert PeftConfig.from_pretrained(str(tmp_path)) == config

    def test_all_settings_are_those_of_the_format(self) -> None:
        """It lists them for who reads a folder without PEFT."""
        assert {field.name for field in dataclasses.fields(CDDConfig)} | {"bits"} == SETTINGS

    @pytest.mark.quick
    @settings(max_examples=20, deadline=None)
    @given(
        name=st.sampled_from(["terms", "parts"]) | st.from_regex("[a-z_]{1,9}", fullmatch=True),
        value=st.recursive(
            st.none() | st.booleans() | st.integers() | st.text("ab", max_size=2),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("a"), inner),
        ),
    )
    def test_settings_of_another_revision_are_refused_unless_they_say_nothing(self, name: str, value: Any) -> None:
        assume(name not in {*SETTINGS, "self", "runtime_config"})
        plain = lambda: nn.Sequential(nn.Linear(2, 2))
        model = plain()
        adapt(model, init="normal")
        with tempfile.TemporaryDirectory() as place:
            folder = save_adapter(model, place, force=True)
            path = folder / "adapter_config.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
            for read in (
                lambda: load_adapter(plain(), folder),
                lambda: CDDConfig.from_pretrained(place),
                lambda: PeftConfig.from_pretrained(place),
                lambda: PeftModel.from_pretrained(plain(), place),
            ):
                if value in (None, "", [], {}):
                    read()
                    continue
                with pytest.raises((ValueError, TypeError), match=f"(it has |unexpected keyword argument '){name}"):
                    read()

    def test_errors_name_the_module(self) -> None:
        with pytest.raises(ValueError, match=r"block_size must be at most .*, in model\.layers\.0\.self_attn\.q_proj"):
            adapted("llama", target_modules=["q_proj"], block_size=1000)


@dataclasses.dataclass
class Dimensions:
    """A configuration as a dataclass."""

    layers: int = 2


class WithMethod:
    """A configuration that is made a dictionary by a method."""

    def to_dict(self) -> dict[str, int]:
        return {"layers": 2}


class TestTargets:
    def test_defaults_are_those_of_lora(self) -> None:
        ours = get_peft_model(tiny.model("gpt2"), CDDConfig())
        theirs = get_peft_model(tiny.model("gpt2"), peft.LoraConfig(fan_in_fan_out=True))
        assert set(ours.targeted_module_names) == set(theirs.targeted_module_names)

    @pytest.mark.parametrize(
        ("targets", "error", "message"),
        [
            (
                ["nowhere"],
                ValueError,
                r"not found in the base model.* Could be adapted: embed_tokens \(1\), q_proj \(2\), ",
            ),
            (["q_porj"], ValueError, "Target modules .* not found in the base model.*; did you mean 'q_proj'?"),
            (
                "q_proj",
                ValueError,
                r"not found .* a string is a regular expression for whole paths, write \['q_proj'\]",
            ),
            (["norm"], TypeError, "Target module LlamaRMSNorm.* is not supported"),
            (["complex"], TypeError, "complex weights"),
        ],
    )
    def test_bad_ones(self, targets: list[str] | str, error: type[Exception], message: str) -> None:
        model = tiny.model("llama")
        model.complex = nn.Linear(2, 2, dtype=torch.complex64)
        with pytest.raises(error, match=message):
            get_peft_model(model, CDDConfig(target_modules=targets))

    @pytest.mark.parametrize(
        "configuration", [{"layers": 2}, Dimensions(), WithMethod()], ids=["dict", "dataclass", "to_dict"]
    )
    def test_a_configuration_needs_no_type_of_model(self, configuration: Any, tmp_path: Path) -> None:
        """That of diffusers has none, and neither have those that users write."""

        def plain() -> nn.Module:
            torch.manual_seed(0)
            net: Any = nn.Sequential(nn.Linear(4, 4))
            net.config = configuration
            return net

        config = CDDConfig(target_modules=["0"], init_weights=False)
        model = get_peft_model(plain(), config)
        x = torch.ones(2, 4)
        assert not torch.allclose(model(x), plain()(x))
        model.save_pretrained(tmp_path)
        assert torch.equal(PeftModel.from_pretrained(plain(), tmp_path)(x), model(x))
        assert not torch.allclose(inject_adapter_in_model(config, plain())(x), plain()(x))
        with pytest.raises(ValueError, match="Please specify `target_modules`"):
            get_peft_model(plain(), CDDConfig())

    def test_all_linear_leaves_out_what_is_not_called(self, tmp_path: Path) -> None:
        def make() -> nn.ModuleDict:
            block = nn.TransformerEncoderLayer(12, 2, 8, dropout=0.0)
            return nn.ModuleDict({"block": block, "complex": nn.Linear(2, 2, dtype=torch.complex64)})

        model = get_peft_model(make(), CDDConfig(target_modules="all-linear", init_weights=False))
        assert set(model.targeted_module_names) == {"block.linear1", "block.linear2"}
        model.save_pretrained(str(tmp_path))
        assert PeftModel.from_pretrained(make(), str(tmp_path)).targeted_module_names == model.targeted_module_names
        with pytest.raises(TypeError, match="out_proj, whose weight MultiheadAttention reads without calling it"):
            get_peft_model(make(), CDDConfig(target_modules=["block.self_attn.out_proj"]))
        layers = nn.Sequential(nn.MultiheadAttention(4, 2), nn.Linear(4, 4, dtype=torch.complex64))
        with pytest.raises(ValueError, match=r"'all-linear' leaves nothing: 0\.out_proj, 1 are complex, or read"):
            get_peft_model(layers, CDDConfig(target_modules="all-linear"))

    def test_layers_that_are_never_called_are_named_and_not_merged(self) -> None:
        for model in (
            get_peft_model(Reader(), CDDConfig(target_modules="all-linear", init_weights=False)),
            peft.inject_adapter_in_model(CDDConfig(target_modules=["called", "read"]), Reader()),
        ):
            with pytest.warns(RuntimeWarning, match=r"did not call.*: (model\.)?read\. Modules that read"):
                model.train()(torch.ones(2, 4))
            if isinstance(model, PeftModel):
                with pytest.raises(ValueError, match=r"never called.*, in read"):
                    model.merge_adapter()
                assert not model.base_model.model.called.merged


class TestFlows:
    def test_train_save_load_in_a_new_process_merge(self, tmp_path: Path) -> None:
        models, trained = {kind: adapted(kind) for kind in KINDS}, {}
        for kind, model in models.items():
            before = logits(kind, model)
            assert torch.equal(before, logits(kind, tiny.model(kind)))
            train(kind, model)
            trained[kind] = logits(kind, model)
            assert not torch.allclose(trained[kind], before, atol=1e-4)
            model.save_pretrained(tmp_path / kind)
        command = [sys.executable, "-W", "ignore", "-c", LOAD, str(tmp_path), *KINDS]
        subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
        for kind, model in models.items():
            torch.testing.assert_close(torch.load(tmp_path / f"{kind}.pt"), trained[kind], atol=1e-6, rtol=1e-5)
            merged = model.merge_and_unload(safe_merge=True)
            assert not any(isinstance(module, CDDTunerLayer) for module in merged.modules())
            torch.testing.assert_close(logits(kind, merged), trained[kind], atol=1e-5, rtol=1e-4)

    def test_auto_classes_and_low_memory(self, tmp_path: Path) -> None:
        tiny.model("llama").save_pretrained(tmp_path / "base")
        fresh = lambda: transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        settings = CDDConfig(target_modules=["q_proj"], init_weights=False, task_type="CAUSAL_LM")
        model = get_peft_model(fresh(), settings)
        expected = logits("llama", model)
        model.save_pretrained(tmp_path / "adapter")
        direct = fresh()
        direct.load_adapter(str(tmp_path / "adapter"))
        for loaded in (
            PeftModel.from_pretrained(fresh(), tmp_path / "adapter", low_cpu_mem_usage=True),
            peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter"),
            transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "adapter"),
            direct,
        ):
            assert torch.equal(logits("llama", loaded), expected)

    def test_injection_and_state_dicts(self) -> None:
        config = CDDConfig(target_modules=["q_proj"], init_weights=False)
        model = peft.inject_adapter_in_model(config, tiny.model("llama"))
        keys = {f"model.layers.{i}.self_attn.q_proj.cdd_adapters.vectors.{k}" for i in (0, 1) for k in range(3)}
        found = peft.get_peft_model_state_dict(model)
        assert set(found) == keys
        other = peft.inject_adapter_in_model(config, tiny.model("llama"), state_dict=found)
        peft.set_peft_model_state_dict(other, found)
        assert torch.equal(logits("llama", other), logits("llama", model))

    @compiler
    def test_compile_without_graph_break(self) -> None:
        model = adapted("llama", init_weights=False).eval()
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(**tiny.inputs("llama")).logits, model(**tiny.inputs("llama")).logits)

    def test_trained_tokens(self, tmp_path: Path) -> None:
        model = adapted("llama", trainable_token_indices=[5, 7], init_weights=False)
        before = model.get_input_embeddings().original_module.weight.detach().clone()
        train("llama", model)
        after = model.get_input_embeddings().token_adapter.get_merged_weights(["default"])
        assert (after != before).any(1).nonzero().flatten().tolist() == [5, 7]
        model.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(tiny.model("llama"), tmp_path)
        torch.testing.assert_close(logits("llama", loaded), logits("llama", model))
        merged = loaded.merge_and_unload()
        torch.testing.assert_close(logits("llama", merged), logits("llama", model), atol=1e-5, rtol=1e-5)

    @pytest.mark.filterwarnings("ignore:Model .*`tie_word_embeddings=True`:UserWarning")
    def test_a_tied_head_with_trained_tokens_cannot_be_merged_into(self) -> None:
        config = tiny.config("llama")
        config.tie_word_embeddings = True
        base = transformers.LlamaForCausalLM(config).eval()
        settings = CDDConfig(target_modules=["q_proj", "lm_head"], trainable_token_indices=[5], init_weights=False)
        model = get_peft_model(base, settings)
        train("llama", model)
        before = state(model)
        with pytest.raises(TypeError, match=r"trainable_token_indices.*, in lm_head"):
            model.merge_adapter()
        assert_same_state(before, model)

    @pytest.mark.filterwarnings("ignore:target_modules. no module has the names:RuntimeWarning")
    @pytest.mark.filterwarnings("ignore:Model .*`tie_word_embeddings=True`:UserWarning")
    @pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied:UserWarning")
    @pytest.mark.parametrize("kind", ["llama", "gpt2"])
    @pytest.mark.parametrize("targets", [["lm_head"], ["lm_head", "o_proj", "c_proj"]], ids=str)
    def test_a_tied_head_is_merged_apart(self, kind: str, targets: list[str], tmp_path: Path) -> None:
        config = tiny.config(kind)
        config.tie_word_embeddings = True
        base = getattr(transformers, tiny.CLASSES[kind])(config).eval()
        embedding = base.get_input_embeddings()
        assert base.lm_head.weight is embedding.weight
        rows = embedding.weight.detach().clone()
        model = get_peft_model(base, CDDConfig(target_modules=targets, init_weights=False)).eval()
        model.add_adapter("other", CDDConfig(target_modules=["lm_head"], init_weights=False))
        expected, before = logits(kind, model), state(model)
        model.base_model.set_adapter(["default", "other"])
        both = logits(kind, model)
        for _ in range(2):
            model.merge_adapter()
            torch.testing.assert_close(logits(kind, model), both, atol=1e-5, rtol=1e-5)
            assert torch.equal(embedding.weight, rows)
            model.unmerge_adapter()
            assert base.lm_head.get_base_layer().weight is embedding.weight
            torch.testing.assert_close(logits(kind, model), both, atol=1e-6, rtol=1e-6)
        model.set_adapter("default")
        assert_same_state(before, model)
        merged = model.merge_and_unload()
        torch.testing.assert_close(logits(kind, merged), expected, atol=1e-5, rtol=1e-5)
        assert not merged.config.tie_word_embeddings
        merged.save_pretrained(tmp_path)
        loaded = getattr(transformers, tiny.CLASSES[kind]).from_pretrained(tmp_path)
        torch.testing.assert_close(logits(kind, loaded), expected, atol=1e-5, rtol=1e-5)

    @pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning")
    @pytest.mark.filterwarnings("ignore:Model .*`tie_word_embeddings=True`:UserWarning")
    @pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied:UserWarning")
    @pytest.mark.parametrize("tied", [False, True])
    @pytest.mark.parametrize("other", ["q_proj", "lm_head"])
    def test_an_embedding_is_trained_saved_loaded_and_merged(self, tied: bool, other: str, tmp_path: Path) -> None:
        config = tiny.config("llama")
        config.tie_word_embeddings = tied
        torch.manual_seed(0)
        base = transformers.LlamaForCausalLM(config).eval()
        for_peft, for_torch = copy.deepcopy(base), copy.deepcopy(base)
        model = get_peft_model(base, CDDConfig(target_modules=["embed_tokens", other], init_weights=False))
        train("llama", model)
        expected = logits("llama", model)
        model.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(for_peft, tmp_path)
        assert torch.equal(logits("llama", loaded), expected)
        load_adapter(for_torch, tmp_path)
        assert torch.equal(logits("llama", for_torch), expected)
        merged = loaded.merge_and_unload()
        torch.testing.assert_close(logits("llama", merged), expected, atol=1e-5, rtol=1e-5)

    def test_a_tied_head_that_cannot_be_merged_stays_tied(self) -> None:
        table, head = nn.Embedding(7, 5), nn.Linear(5, 7, bias=False)
        head.weight = table.weight
        model = nn.ModuleDict({"table": table, "head": head})
        model = get_peft_model(model, CDDConfig(target_modules=["head"], init_weights=False))
        with torch.no_grad():
            model.base_model.model["head"].cdd_adapters["default"].vectors[0].fill_(torch.nan)
        with pytest.raises(ValueError, match="NaNs detected"):
            model.merge_adapter(safe_merge=True)
        assert model.base_model.model["head"].get_base_layer().weight is table.weight


class TestMixedBatches:
    @pytest.mark.parametrize("kind", ["bert", "llama"])
    def test_samples_have_adapters_of_their_own(self, kind: str) -> None:
        model = adapted(kind, init_weights=False).eval()
        model.add_adapter("other", CDDConfig(target_modules=tiny.TARGETS[kind][:1], init_weights=False))
        hooks = [len(m._forward_pre_hooks) for m in model.modules()]
        names = ["other", "__base__", "default"]
        with torch.no_grad():
            mixed = model(**tiny.inputs(kind), adapter_names=names).logits
            with model.disable_adapter():
                torch.testing.assert_close(mixed[1], logits(kind, model)[1])
        for index in (0, 2):
            model.set_adapter(names[index])
            torch.testing.assert_close(mixed[index], logits(kind, model)[index])
        with pytest.raises(ValueError, match="non-existing adapter"):
            model(**tiny.inputs(kind), adapter_names=["other", "__base__", "nobody"])
        with pytest.raises(ValueError, match="Length of `adapter_names`"):
            model(**tiny.inputs(kind), adapter_names=["other"])
        assert [len(m._forward_pre_hooks) for m in model.modules()] <= hooks

    @pytest.mark.parametrize("kind", ["llama", "t5"])
    def test_beam_search(self, kind: str) -> None:
        model = adapted(kind, init_weights=False, alpha=3.0).eval()
        model.add_adapter("other", CDDConfig(target_modules=tiny.TARGETS[kind], init_weights=False, alpha=3.0))
        inputs = {"input_ids": tiny.inputs(kind)["input_ids"]}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        settings = dict(num_beams=3, max_new_tokens=6, min_new_tokens=6, do_sample=False)
        names = ["default", "__base__", "other"]
        mixed = model.generate(**inputs, **settings, adapter_names=names)
        outputs = []
        for index, name in enumerate(names):
            if name == "__base__":
                with model.disable_adapter():
                    outputs.append(model.generate(**inputs, **settings)[index])
            else:
                model.set_adapter(name)
                outputs.append(model.generate(**inputs, **settings)[index])
        assert torch.equal(mixed, torch.stack(outputs))
        assert not torch.equal(outputs[0], outputs[1])
