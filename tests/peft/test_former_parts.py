"""Folders of earlier revisions, which hold changes of some parts of the rows of fused layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
safetensors = pytest.importorskip("safetensors.torch")

from peft import PeftModel

from structmat.peft import hotswap_adapter
from structmat.torch import load_adapter, save_adapter
from tests.peft import tiny
from tests.torch.common import fill

pytestmark = tiny.QUIET

TARGETS, CHOSEN = ["c_attn", "mlp.c_fc"], [True, False, True]


def as_before(folder: Path, n_terms: int = 0) -> None:
    """Leave the vectors of the keys out of a folder, and write into its settings which parts it has."""
    weights, settings = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    tensors = safetensors.load_file(weights)
    for key, tensor in tensors.items():
        if "c_attn" in key and key.endswith(("vectors.0", "vectors.1")):
            tensors[key] = torch.cat([tensor.chunk(3)[i] for i in (0, 2)])
    safetensors.save_file(tensors, weights)
    config = json.loads(settings.read_text())
    parts = {"c_attn": CHOSEN}
    if n_terms:
        config["terms"] = [term | {"parts": parts} for term in config["terms"]]
        assert len(config["terms"]) == n_terms
    settings.write_text(json.dumps(config | {"parts": None if n_terms else parts}))


def changes(model: Any, name: str = "default") -> list[Any]:
    """The changes of all layers."""
    layers = (each for each in model.modules() if hasattr(each, "get_delta_weight"))
    return [layer.get_delta_weight(name) for layer in layers]


@pytest.mark.parametrize("n_terms", [0, 2])
def test_changes_of_parts_are_loaded_as_changes_of_all_rows(n_terms: int, tmp_path: Path) -> None:
    model = fill(tiny.adapted("gpt2", target_modules=TARGETS))
    name, folder = "default", tmp_path
    if n_terms:
        name, folder = "sum", tmp_path / "sum"
        model.add_weighted_adapter(["default", "default"], [1.0, -3.0], name, combination_type="cat")
    model.save_pretrained(tmp_path, selected_adapters=[name])
    as_before(folder, n_terms)
    wanted = [change.clone() for change in changes(model, name)]
    for change in wanted:
        if change.shape == (16, 48):  # of Conv1D
            change[:, 16:32] = 0
    loaded = PeftModel.from_pretrained(tiny.model("gpt2"), folder, is_trainable=True)
    torch.testing.assert_close(changes(loaded), wanted)
    tiny.train("gpt2", loaded)
    trained = changes(loaded)
    assert not any(change[:, 16:32].any() for change in trained if change.shape == (16, 48))
    assert not any(torch.equal(*pair) for pair in zip(trained, wanted, strict=True))
    hotswap_adapter(loaded, folder)
    torch.testing.assert_close(changes(loaded), wanted)
    loaded.save_pretrained(tmp_path / "again")
    assert "parts" not in json.loads((tmp_path / "again" / "adapter_config.json").read_text())
    again = PeftModel.from_pretrained(tiny.model("gpt2"), tmp_path / "again")
    torch.testing.assert_close(changes(again), wanted)
    loaded.load_adapter(tmp_path / "again", "default")
    torch.testing.assert_close(changes(loaded), wanted)
    if not n_terms:
        ours = tiny.model("gpt2")
        load_adapter(ours, folder)
        torch.testing.assert_close(tiny.logits("gpt2", ours), tiny.logits("gpt2", loaded))
        load_adapter(ours, save_adapter(ours, tmp_path / "ours"))


def test_parts_that_share_circulants_are_refused(tmp_path: Path) -> None:
    fill(tiny.adapted("gpt2", target_modules=TARGETS, block_size=5)).save_pretrained(tmp_path)
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"parts": {"c_attn": CHOSEN}}))
    for load in (load_adapter, PeftModel.from_pretrained):
        with pytest.raises(
            ValueError, match=r"some parts of a layer's rows, \[True, False, True\], with circulants that"
        ):
            load(tiny.model("gpt2"), tmp_path)
