"""Adapters fitted to weights that were tuned otherwise."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from peft import PeftModel, get_peft_model, get_peft_model_state_dict

from structmat.peft import CDDConfig, from_delta, from_weights
from tests.peft import tiny
from tests.peft.tiny import logits

pytestmark = tiny.QUIET


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize("stored", [True, False])
def test_tuned_checkpoint_becomes_an_adapter(kind: str, stored: bool, tmp_path: Path) -> None:
    base = tiny.model(kind)
    targets = tiny.TARGETS[kind][:1]
    tuned = get_peft_model(
        tiny.model(kind), CDDConfig(target_modules=targets, init_weights=False, alpha=0.2)
    ).merge_and_unload()
    with torch.no_grad():
        next(p for name, p in tuned.named_parameters() if "orm" in name or "ln" in name).add_(0.5)
    expected = logits(kind, tuned)
    sources: list[Any] = [base, tuned]
    if stored:
        for name, model in zip(("base", "tuned"), sources, strict=True):
            model.save_pretrained(tmp_path / name)
        sources = [tmp_path / "base", tmp_path / "tuned"]
    seen: list[str] = []
    adapter = from_weights(
        *sources, tmp_path / "adapter", target_modules=targets, callback=lambda layer: seen.append(layer.name)
    )
    assert len(seen) == 2
    assert [layer.name for layer in adapter.layers] == seen
    assert adapter.error < 1e-3
    assert len(adapter.left_out) == 1
    text = str(adapter)
    assert all(name in text for name in (*seen, "all layers", "not in the adapter: 1 parameter ("))

    loaded = PeftModel.from_pretrained(tiny.model(kind), tmp_path / "adapter")
    with torch.no_grad():  # what was left out, by hand
        name = adapter.left_out[0]
        parameters = {
            k.replace("base_model.model.", "").replace(".base_layer", ""): p for k, p in loaded.named_parameters()
        }
        found = next(p for k, p in parameters.items() if k.endswith(name) or name.endswith(k))
        found.add_(0.5)
    torch.testing.assert_close(logits(kind, loaded), expected, atol=2e-3, rtol=2e-3)


def test_heads_are_taken_as_they_are(tmp_path: Path) -> None:
    base, tuned = tiny.model("bert"), tiny.model("bert")
    with torch.no_grad():
        tuned.classifier.weight.add_(1)
    adapter = from_weights(base, tuned, tmp_path, target_modules=["query"], modules_to_save=["classifier"])
    assert adapter.left_out == ()
    assert adapter.error == 0
    loaded = PeftModel.from_pretrained(tiny.model("bert"), tmp_path)
    torch.testing.assert_close(logits("bert", loaded), logits("bert", tuned))


@pytest.mark.parametrize("bias", ["all", "cdd_only"])
def test_biases_are_taken_as_they_are(bias: str, tmp_path: Path) -> None:
    base, tuned = tiny.model("bert"), tiny.model("bert")
    with torch.no_grad():
        tuned.classifier.weight.add_(1)
        tuned.classifier.bias.add_(1)
        for layer in tuned.bert.encoder.layer:
            layer.attention.self.query.bias.add_(0.5)
    options = {"target_modules": ["query"], "bias": bias, "modules_to_save": ["classifier"]}
    adapter = from_weights(base, tuned, tmp_path, **options)
    assert adapter.left_out == ()
    loaded = PeftModel.from_pretrained(tiny.model("bert"), tmp_path)
    torch.testing.assert_close(logits("bert", loaded), logits("bert", tuned))
    plain = get_peft_model(tiny.model("bert"), CDDConfig(**options))
    assert adapter.state_dict.keys() == get_peft_model_state_dict(plain).keys()
    replaced = [value for key, value in adapter.state_dict.items() if key.endswith("original_module.bias")]
    assert len(replaced) == (bias == "all")
    assert all(torch.equal(value, base.classifier.bias) for value in replaced)
    with torch.no_grad():
        tuned.bert.encoder.layer[0].output.dense.bias.add_(0.5)
    left = {"all": (), "cdd_only": ("bert.encoder.layer.0.output.dense.bias",)}
    assert from_weights(base, tuned, **options).left_out == left[bias]


def test_bad_checkpoints(tmp_path: Path) -> None:
    base = tiny.model("llama")
    with pytest.raises(ValueError, match="from_weights: trainable_token_indices must be None here"):
        from_weights(base, base, target_modules=["q_proj"], trainable_token_indices=[3])
    with pytest.raises(ValueError, match="holds no safetensors or PyTorch files of a model"):
        from_weights(tmp_path, base, target_modules=["q_proj"])
    base.save_pretrained(tmp_path / "cut")
    path = tmp_path / "cut" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="is no complete safetensors file"):
        from_weights(base, tmp_path / "cut", target_modules=["q_proj"])
    with pytest.raises(ValueError, match=r"has no weight model.layers.0.self_attn.q_proj.weight"):
        from_weights(base, tiny.model("bert"), target_modules=["q_proj"])
    with pytest.raises(ValueError, match="not found in the base model"):
        from_weights(base, base, target_modules=["nowhere"])
    broken = tiny.model("llama")
    with torch.no_grad():
        broken.model.layers[0].self_attn.q_proj.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        from_weights(base, broken, target_modules=["q_proj"])


def test_from_delta(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="deltas is empty"):
        from_delta({})
    with pytest.raises(ValueError, match="must be a matrix"):
        from_delta({"0": torch.ones(3)})
    delta = torch.outer(torch.arange(1.0, 17), torch.ones(16))
    adapter = from_delta({"model.layers.1.self_attn.q_proj": delta}, alpha=2.0)
    frozen = delta.numpy()
    frozen.flags.writeable = False
    again = from_delta({"model.layers.1.self_attn.q_proj": frozen}, alpha=2.0)
    assert again.layers == adapter.layers
    adapter.save(tmp_path / "new" / "folder")
    model = PeftModel.from_pretrained(tiny.model("llama"), tmp_path / "new" / "folder")
    change = model.base_model.model.model.layers[1].self_attn.q_proj.get_delta_weight("default")
    torch.testing.assert_close(change, delta, atol=1e-3, rtol=1e-3)


def test_saving_replaces_no_file_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = from_delta({"0": torch.eye(8)})
    new = from_delta({"0": torch.outer(torch.arange(8.0), torch.ones(8))})
    old.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match="force is not given"):
        new.save(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(FileExistsError, match="force is not given"):
        new.save(tmp_path)  # one of the two is there: nothing is written
    assert [path.name for path in tmp_path.iterdir()] == ["adapter_config.json"]
    new.save(tmp_path, force=True)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.keys() == before.keys()
    assert after["adapter_model.safetensors"] != before["adapter_model.safetensors"]

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        old.save(tmp_path / "full")
    with pytest.raises(OSError, match="No space left"):
        old.save(tmp_path, force=True)
    monkeypatch.undo()
    assert not any((tmp_path / "full").iterdir())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == after
