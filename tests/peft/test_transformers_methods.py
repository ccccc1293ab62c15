"""The methods that transformers gives its models for adapters, which ask for a peft that is not released yet."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from structmat.peft import CDDConfig
from tests.peft import tiny
from tests.peft.tiny import logits

pytestmark = [*tiny.QUIET, pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")]


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
