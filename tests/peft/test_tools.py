"""Quantised and sharded bases, transformers' own methods for adapters, and its Trainer."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn

from structmat.peft import CDDConfig, hotswap_adapter
from structmat.torch import adapt
from tests.peft import tiny
from tests.peft.tiny import logits, train
from tests.torch.common import VERSION, assert_same_state, state

pytestmark = tiny.QUIET

# Quantised bases


def quantised(kind: str) -> Any:
    base = tiny.model("llama")
    if kind == "torchao":
        torchao = pytest.importorskip("torchao", reason="torchao is not installed: its int8 layers are not tested")
        torchao.quantize_(base, torchao.quantization.Int8WeightOnlyConfig())
        return base
    bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: its layers are not tested")
    for layer in base.model.layers:
        old = layer.self_attn.q_proj
        if kind == "bnb8":
            new = bnb.nn.Linear8bitLt(16, 16, bias=False, has_fp16_weights=False)
        else:
            new = bnb.nn.Linear4bit(16, 16, bias=False, compute_dtype=torch.float32)
        new.load_state_dict(old.state_dict())
        layer.self_attn.q_proj = new.to("cpu")
    return base


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["torchao", "bnb8", "bnb4"])
def test_quantised_bases(kind: str) -> None:
    def answer(model: Any) -> torch.Tensor:  # in training mode: 4-bit layers of other sizes than these pack themselves
        with torch.no_grad():
            return model.train()(**tiny.inputs("llama")).logits

    base = quantised(kind)
    expected = answer(base)
    model = get_peft_model(base, CDDConfig(target_modules=["q_proj"]))
    torch.testing.assert_close(answer(model), expected)
    train("llama", model, steps=3)
    parameters = [p for p in model.parameters() if p.requires_grad]
    assert len(parameters) == 6
    assert all(p.grad.abs().sum() > 0 for p in parameters)
    trained = answer(model)
    assert not torch.allclose(trained, expected, atol=1e-4)
    if kind == "bnb8":
        model.merge_adapter()
        torch.testing.assert_close(answer(model), trained, atol=0.02, rtol=0.02)
        model.base_model.model.model.layers[0].self_attn.q_proj.set_scale("default", 100.0)  # not as it was merged
        model.unmerge_adapter()
        with model.disable_adapter():
            torch.testing.assert_close(answer(model), expected, atol=0.02, rtol=0.02)
    elif kind == "torchao":
        with pytest.raises(TypeError, match="cannot merge into weights that torchao quantised"):
            model.merge_adapter()


@pytest.mark.filterwarnings("default")
def test_quantised_by_transformers_merges(tmp_path: Path) -> None:
    torchao = pytest.importorskip("torchao", reason="torchao is not installed: its int8 layers are not tested")
    tiny.model("llama").save_pretrained(tmp_path)
    settings = transformers.TorchAoConfig(torchao.quantization.Int8WeightOnlyConfig())
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=settings)
    model = get_peft_model(base, CDDConfig(target_modules=["q_proj"], init_weights=False))
    expected = logits("llama", model)
    model.merge_adapter()
    torch.testing.assert_close(logits("llama", model), expected, atol=0.02, rtol=0.02)


# Bases whose weights are split among processes: by FSDP2, which gathers them, and by tensor parallelism


@pytest.fixture
def _one_process() -> Iterator[None]:
    if not torch.distributed.is_available():
        pytest.skip("torch has no torch.distributed here")
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def two_layers() -> Any:
    return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))


def mesh(name: str | None) -> Any:
    return torch.distributed.init_device_mesh("cpu", (1,), mesh_dim_names=name and (name,))


@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize("name", [None, "tp", "fsdp"])
@pytest.mark.parametrize("style", ["ColwiseParallel", "RowwiseParallel"])
def test_tensor_parallelism_is_refused(style: str, name: str | None) -> None:
    from torch.distributed.tensor import parallel

    base = parallel.parallelize_module(two_layers(), mesh(name), {"1": getattr(parallel, style)()})
    before = state(base)
    with pytest.raises(TypeError, match="tensor parallelism"):
        adapt(base, ["0", "1"])
    assert_same_state(before, base)
    adapt(copy.deepcopy(base), ["0"])
    with pytest.raises(TypeError, match="tensor parallelism"):
        get_peft_model(copy.deepcopy(base), CDDConfig(target_modules=["1"]))
    get_peft_model(base, CDDConfig(target_modules=["0"]))


def test_older_tensor_parallelism_of_transformers_is_refused() -> None:
    """Its weights are plain tensors, the pieces of this process."""
    base = two_layers()
    base[1]._hf_tp_plan = "colwise"
    with pytest.raises(TypeError, match="tensor parallelism"):
        get_peft_model(base, CDDConfig(target_modules=["1"]))


@pytest.mark.usefixtures("_one_process")
@pytest.mark.skipif(VERSION < (2, 7), reason="FSDP of 2.6 needs streams, which a CPU has not")
@pytest.mark.parametrize("name", [None, "fsdp"])
@pytest.mark.parametrize("first", ["adapter", "shards"])
def test_fsdp_works_before_and_after(first: str, name: str | None, tmp_path: Path) -> None:
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    base = two_layers()
    config = CDDConfig(target_modules=["0", "1"])
    if first == "adapter":
        adapted = get_peft_model(base, config)
        fully_shard(base, mesh=mesh(name))
    else:
        fully_shard(base, mesh=mesh(name))
        adapted = get_peft_model(base, config)
    adapted(torch.ones(2, 8)).square().sum().backward()
    gradients = [p.grad for p in adapted.parameters() if p.requires_grad]
    assert len(gradients) == 6
    assert all(gradient is not None for gradient in gradients)
    # Vectors that are split among processes get those of a folder, too, each process its piece.
    other = get_peft_model(two_layers(), CDDConfig(target_modules=["0", "1"], init_weights=False))
    other.save_pretrained(tmp_path)
    hotswap_adapter(adapted, tmp_path)
    given, own = get_peft_model_state_dict(other), get_peft_model_state_dict(adapted)
    assert all(torch.equal(getattr(own[key], "full_tensor", own[key].clone)(), value) for key, value in given.items())


# The methods that transformers gives its models for adapters, which ask for a peft that is not released yet


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")
def test_an_adapter_is_added_trained_saved_loaded_and_switched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.integrations import peft as integration

    monkeypatch.setattr(integration, "MIN_PEFT_VERSION", "0.21.0")
    tiny.model("bert").save_pretrained(tmp_path / "base")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    base = logits("bert", model)
    model.add_adapter(CDDConfig(target_modules=["query", "value"]), adapter_name="first")
    assert torch.equal(logits("bert", model), base)
    tiny.train("bert", model.train(), steps=4)
    trained = logits("bert", model)
    assert not torch.allclose(trained, base, atol=1e-4)
    assert model.active_adapters() == ["first"]
    model.disable_adapters()
    torch.testing.assert_close(logits("bert", model), base)
    model.enable_adapters()
    model.add_adapter(CDDConfig(target_modules=["query"], init_weights=False), adapter_name="second")
    model.set_adapter("first")
    torch.testing.assert_close(logits("bert", model), trained)
    model.delete_adapter("second")
    model.save_pretrained(tmp_path / "adapter")
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir())[:2] == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    fresh = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    fresh.load_adapter(str(tmp_path / "adapter"))
    torch.testing.assert_close(logits("bert", fresh), trained)


# transformers' Trainer


class Rows(torch.utils.data.Dataset):
    def __init__(self) -> None:
        self.inputs = tiny.inputs("bert", samples=32)["input_ids"]

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.inputs[index], "labels": int(self.inputs[index, 0] % 3)}


class Interrupted(transformers.TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 5:
            raise KeyboardInterrupt


def train_by_trainer(folder: Path, *callbacks: Any) -> dict[str, torch.Tensor]:
    """Train to the end, from a checkpoint if there is one; return what is saved."""
    config = CDDConfig(target_modules=["query", "value"], modules_to_save=["classifier"], task_type="SEQ_CLS")
    model = get_peft_model(tiny.model("bert"), config)
    settings = transformers.TrainingArguments(
        output_dir=str(folder / "run"),
        max_steps=9,
        save_steps=2,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        seed=3,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(model, settings, train_dataset=Rows(), callbacks=[*callbacks])
    trainer.train(resume_from_checkpoint=any((folder / "run").glob("checkpoint-*")))
    model.save_pretrained(folder / "adapter")
    return load_file(folder / "adapter" / "adapter_model.safetensors")


@pytest.mark.filterwarnings("default")
def test_interrupted_and_resumed_training_gives_the_same_weights(tmp_path: Path) -> None:
    whole = train_by_trainer(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_by_trainer(tmp_path / "resumed", Interrupted())
    assert not (tmp_path / "resumed" / "adapter").exists()
    resumed = train_by_trainer(tmp_path / "resumed")
    assert set(whole) == set(resumed)
    for key, tensor in whole.items():
        assert torch.equal(tensor, resumed[key]), key


# diffusers


@pytest.mark.filterwarnings("default")
def test_diffusers(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    base = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()

    def answer(model: Any) -> torch.Tensor:
        with torch.no_grad():
            return model(torch.ones(1, 4, 8, 8), 3, torch.ones(1, 3, 8)).sample

    plain = answer(base)
    config = CDDConfig(target_modules=["to_q", "conv1"], init_weights=False)
    model = get_peft_model(copy.deepcopy(base), config)
    changed = answer(model)
    assert not torch.allclose(changed, plain, atol=1e-2)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    torch.testing.assert_close(answer(loaded), changed)
    torch.testing.assert_close(answer(loaded.merge_and_unload()), changed, atol=1e-4, rtol=1e-4)
    base.add_adapter(config, "drawn")
    own = answer(base)
    assert not torch.allclose(own, plain, atol=1e-2)
    base.set_adapters(["drawn"], [0.0])
    torch.testing.assert_close(answer(base), plain)
    base.set_adapters(["drawn"], [1.0])
    base.fuse_lora()
    torch.testing.assert_close(answer(base), own, atol=1e-4, rtol=1e-4)
    base.unfuse_lora()
    base.delete_adapters("drawn")
    assert torch.equal(answer(base), plain)
