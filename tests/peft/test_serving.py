"""The folder that `to_lora` writes, as llama.cpp's converter of LoRA adapters and its loader read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("transformers")

from peft import get_peft_model
from safetensors.torch import load_file
from torch import Tensor

from structmat.peft import CDDConfig, CDDTunerLinear, to_lora
from tests.peft import tiny

pytestmark = tiny.QUIET


def exported(folder: Path) -> dict[str, Tensor]:
    """Write a folder; return the changes that it stands for, by the name of the weight in the base."""
    targets = ["q_proj", "v_proj", "down_proj", "up_proj"]
    model = get_peft_model(tiny.model("llama"), CDDConfig(target_modules=targets, init_weights=False))
    to_lora(model, error=0.0).save(folder)
    return {
        f"{name}.weight": module.get_delta_weight("default")
        for name, module in model.base_model.model.named_modules()
        if isinstance(module, CDDTunerLinear)
    }


def converter(folder: Path) -> tuple[float, dict[str, tuple[Tensor, Tensor]]]:
    """Read a folder by the rules of ``convert_lora_to_gguf.py``: `lora_alpha`, and pairs of matrices by name."""
    alpha = json.loads((folder / "adapter_config.json").read_text())["lora_alpha"]
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_file(folder / "adapter_model.safetensors").items():
        side = next((side for side in "AB" if f".lora_{side}.weight" in key), None)
        assert side is not None, f"it stops at {key}"
        name = key.replace("base_model.model.", "").replace(f".lora_{side}.weight", ".weight")
        halves.setdefault(name, {})[side] = tensor
    return alpha, {name: (pair["A"], pair["B"]) for name, pair in halves.items()}


def test_the_converter_reads_every_change(tmp_path: Path) -> None:
    changes = exported(tmp_path)
    alpha, pairs = converter(tmp_path)
    assert pairs.keys() == changes.keys()
    for name, (A, B) in pairs.items():
        assert A.dtype == B.dtype
        # The loader scales by alpha over the rank of the matrices.
        torch.testing.assert_close(alpha / B.shape[-1] * (B @ A), changes[name], atol=1e-5, rtol=1e-5)


def test_a_file_of_gguf_holds_every_change(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    changes = exported(tmp_path)
    alpha, pairs = converter(tmp_path)
    path, names = tmp_path / "lora.gguf", gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    renamed: dict[str, str] = {}
    for name, pair in pairs.items():
        renamed[name] = names.get_name(name, try_suffixes=(".weight",))
        for side, tensor in zip("ab", pair, strict=True):
            writer.add_tensor(f"{renamed[name]}.lora_{side}", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    reader: Any = gguf.GGUFReader(path)
    stored = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
    scale = float(reader.get_field(gguf.Keys.Adapter.LORA_ALPHA).contents())
    assert sorted(renamed.values())[:2] == ["blk.0.attn_q.weight", "blk.0.attn_v.weight"]
    for name, change in changes.items():
        A, B = (stored[f"{renamed[name]}.lora_{side}"] for side in "ab")
        torch.testing.assert_close(scale / B.shape[-1] * (B @ A), change, atol=1e-5, rtol=1e-5)
