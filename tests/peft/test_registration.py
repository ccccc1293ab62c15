"""CDD is one of PEFT's methods."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

import peft
from peft import PeftType, get_peft_model

from structmat.peft import CDDConfig, CDDModel
from tests.peft import tiny
from tests.peft.tiny import adapted

pytestmark = tiny.QUIET

ROOT = Path(__file__).resolve().parents[2]


def test_is_a_method_like_others() -> None:
    assert PeftType("CDD") is PeftType.CDD
    assert PeftType.CDD in list(PeftType)
    assert PeftType.CDD.value == "CDD"
    for again in (copy.deepcopy(PeftType.CDD), pickle.loads(pickle.dumps(PeftType.CDD))):
        assert again is PeftType.CDD
    assert json.dumps(PeftType.CDD) == '"CDD"'
    assert isinstance(peft.get_peft_config({"peft_type": "CDD", "n_factors": 5}), CDDConfig)


def test_an_import_registers_refuses_loraplus_and_changes_nothing_else(tmp_path: Path) -> None:
    """In a process of its own, where `structmat.peft` is imported after all that it changes.

    LoRA+ would give diagonals a higher rate, by their number of axes; other methods are as before.
    """
    CDDConfig(target_modules=["0"]).save_pretrained(str(tmp_path))
    code = f"""
import peft
import peft.mapping as m
import torch
from peft import LoraConfig, PeftType, get_peft_model
from peft.optimizers import create_loraplus_optimizer
try:
    peft.PeftConfig.from_pretrained({str(tmp_path)!r})
except KeyError as error:
    assert str(error) == "'CDD'"  # what the card quotes
else:
    raise AssertionError
names = [n for n in vars(m) if n.startswith("PEFT_TYPE_TO_")]
before = {{n: dict(getattr(m, n)) for n in names}}
members = list(PeftType)
import structmat.peft as sp
from structmat.peft._registration import register
register(sp.CDDConfig, sp.CDDModel)
for n in names:
    after = dict(getattr(m, n))
    assert {{k: v for k, v in after.items() if k != "CDD"}} == before[n], n
assert [k for k in PeftType if k != "CDD"] == members and len(list(PeftType)) == len(members) + 1
try:
    register(object, sp.CDDModel)
except ImportError as error:
    assert "already has a method CDD" in str(error)
else:
    raise AssertionError

def optimizer(config):
    model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(4, 4)), config)
    return create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16)

assert {{group["lr"] for group in optimizer(LoraConfig(target_modules=["0"])).param_groups}} == {{1e-3, 1e-6, 16e-3}}
try:
    optimizer(sp.CDDConfig(target_modules=["0"]))
except TypeError as error:
    assert str(error).startswith("create_loraplus_optimizer: model has adapters of CDD, all vectors of which"), error
else:
    raise AssertionError
"""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


def test_a_saved_adapter_says_what_it_needs(tmp_path: Path) -> None:
    model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(4, 4)), CDDConfig(target_modules=["0"]))
    model.add_adapter("other", CDDConfig(target_modules=["0"], requires="nothing"))
    for _ in range(2):
        model.save_pretrained(tmp_path)
        card = (tmp_path / "README.md").read_text("utf-8")
        hint = 'PEFT loads this adapter after `pip install "structmat[peft]"` and `import structmat.peft`'
        assert f"## How to Get Started with the Model\n\n{hint}" in card
        assert card.count("import structmat.peft") == 1
    for folder in (tmp_path, tmp_path / "other"):
        settings = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        assert settings["requires"] == 'pip install "structmat[peft]"; import structmat.peft'
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert isinstance(peft.PeftConfig.from_pretrained(folder), CDDConfig)


@pytest.mark.parametrize("name", ["default", "other"])
def test_cards_of_ones_own(tmp_path: Path, name: str) -> None:
    card = tmp_path / "README.md"
    card.write_text("# Mine\n", "utf-8")
    CDDConfig(target_modules=["0"]).save_pretrained(str(tmp_path))
    CDDConfig(target_modules=["0"]).save_pretrained(str(tmp_path / "inner"))
    assert card.read_text("utf-8") == "# Mine\n"  # no card of PEFT
    model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(4, 4)), CDDConfig(target_modules=["0"]), name)
    model.save_pretrained(tmp_path)
    text = card.read_text("utf-8")
    CDDConfig(target_modules=["0"]).save_pretrained(str(tmp_path / "inner"))
    assert card.read_text("utf-8") == text
    for folder in (tmp_path / "run", tmp_path / "run" / "inner"):  # a model of another method, and settings within
        folder.mkdir()
    lora = get_peft_model(torch.nn.Sequential(torch.nn.Linear(4, 4)), peft.LoraConfig(target_modules=["0"]))
    lora.save_pretrained(tmp_path / "run")
    of_lora = (tmp_path / "run" / "README.md").read_bytes()
    for folder in (tmp_path / "run", tmp_path / "run" / "inner"):
        CDDConfig(target_modules=["0"]).save_pretrained(str(folder))
    assert (tmp_path / "run" / "README.md").read_bytes() == of_lora
    assert text.index("# Mine") < text.index("## How to Get Started with the Model\n\nPEFT loads this adapter after")


def test_older_versions_of_peft_are_refused_and_newer_ones_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from structmat.peft import _registration

    monkeypatch.setattr(_registration, "version", lambda _: "0.20.0")
    with pytest.raises(ImportError, match=r"structmat\.peft works with peft>=0.21, found 0\.20\.0"):
        _registration.require_supported()
    for newer in ("0.22.0.dev0", "0.22.0", "0.23.1"):
        monkeypatch.setattr(_registration, "version", lambda _, newer=newer: newer)
        _registration.require_supported()


def test_what_this_version_cannot_do_says_so() -> None:
    with pytest.raises(ValueError, match="not compatible with the `PeftMixedModel`"):
        get_peft_model(tiny.model("llama"), CDDConfig(target_modules=["q_proj"]), mixed=True)
    with pytest.raises(ValueError, match="version of PEFT you are using is not compatible"):
        tiny.model("llama").add_adapter(CDDConfig(target_modules=["q_proj"]))


def test_model_is_exported() -> None:
    model = adapted("llama")
    assert isinstance(model.base_model, CDDModel)
    assert repr(model.base_model.model.model.layers[0].self_attn.q_proj).startswith("cdd.CDDTunerLinear(")
