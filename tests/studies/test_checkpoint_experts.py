"""Checkpoints of mixtures of experts, whose matrices are stored one by one or stacked, fitted expert by expert."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytest.importorskip("transformers")
from safetensors.torch import load_file, save_file

import structmat as sm
from structmat.peft import CDDTunerParameters
from structmat.studies._changes import Change
from structmat.studies._checkpoint_files import Checkpoint, CheckpointError, JoinedEntry
from tests.peft import tiny
from tests.peft.tiny import logits
from tests.studies.checkpoints import ADAPTER, fit_checkpoint, tuned_too

pytestmark = [*tiny.QUIET, pytest.mark.filterwarnings("ignore:.*does not match the ratio implicitly set")]

NAMES = ("gate_up_proj", "down_proj")
LAST = "model.layers.1.mlp.experts"


def write(folder: Any, kind: str, *, stacked: tuple[bool, bool] = (False, False)) -> Any:
    """Write a base and a model whose experts 0, 2 and 3 of the last block differ from it by rank one; return that."""
    base, tuned = tiny.model(kind), tiny.model(kind)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in NAMES:
            weight = getattr(tuned.model.layers[-1].mlp.experts, name)
            for expert in (0, 2, 3):
                left, right = (torch.rand(size, generator=generator) for size in weight.shape[1:])
                weight[expert] += torch.outer(left, right) / 5
    for model, path, whole in zip((base, tuned), ("base", "tuned"), stacked, strict=True):
        model.save_pretrained(folder / path, save_original_format=not whole)
    return tuned


def sources(folder: Any) -> dict[str, Any]:
    return {"base": folder / "base", "tuned": folder / "tuned"}


def adapter(folder: Any) -> tuple[bytes, bytes]:
    return tuple(
        (folder / ADAPTER / name).read_bytes() for name in ("adapter_config.json", "adapter_model.safetensors")
    )


@pytest.mark.parametrize(
    ("kind", "stacked"),
    [
        ("mixtral", (False, False)),
        ("deepseek_v3", (True, True)),
        ("mixtral", (False, True)),
        ("gpt_oss", (True, True)),
    ],
)
def test_the_adapter_makes_the_tuned_model_whatever_the_files_hold(tmp_path, kind, stacked):
    """As the Hub has them, one matrix for each projection of each expert; stacked; transposed."""
    tuned = write(tmp_path, kind, stacked=stacked)
    study = fit_checkpoint(tmp_path / "out", **sources(tmp_path))
    assert tuned_too(study) == set()
    rows = {row["layer"]: row for row in study.rows if row["method"] == "cdd" and row["norm"]}
    assert set(rows) == {f"{LAST}.{name}.{expert}" for name in NAMES for expert in (0, 2, 3)}
    assert max(row["error"] for row in rows.values()) < 1e-5
    settings = json.loads((tmp_path / "out" / ADAPTER / "adapter_config.json").read_text())
    assert settings["target_parameters"] == [f"{LAST}.{name}" for name in sorted(NAMES)]
    assert settings["target_modules"] == []
    model = peft.PeftModel.from_pretrained(tiny.model(kind), tmp_path / "out" / ADAPTER, is_trainable=True)
    assert [type(each) for each in model.modules() if hasattr(each, "cdd_adapters")] == [CDDTunerParameters]
    torch.testing.assert_close(logits(kind, model), logits(kind, tuned), rtol=1e-4, atol=1e-5)
    (layer,) = (each for each in model.modules() if isinstance(each, CDDTunerParameters))
    for change in layer.changes("default").values():
        assert not change.dense()[1].any()
        assert [bool(vector[1].any()) for vector in change.vectors] == [False, True, True]  # it can be trained


def test_a_run_that_ended_early_goes_on_with_the_next_expert(tmp_path):
    write(tmp_path, "mixtral")
    seen: list[int] = []

    def stop(progress: Any) -> None:
        seen.append(progress.n_done)
        if progress.n_done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_checkpoint(tmp_path / "out", **sources(tmp_path), targets=rf"{LAST}", callback=stop)
    seen.clear()
    fit_checkpoint(tmp_path / "out", **sources(tmp_path), targets=rf"{LAST}", callback=lambda p: seen.append(p.n_done))
    assert seen[0] >= 3
    assert seen[-1] == 13  # three experts, two parameters, two methods, and all that is not fitted
    fit_checkpoint(tmp_path / "whole", **sources(tmp_path), targets=rf"{LAST}")
    assert adapter(tmp_path / "whole") == adapter(tmp_path / "out")


def test_targets_choose_experts_and_others_are_told(tmp_path):
    write(tmp_path, "mixtral")
    study = fit_checkpoint(tmp_path / "out", **sources(tmp_path), targets=r"experts\.down_proj\.[02]$")
    chosen = {f"model.layers.1.mlp.experts.down_proj.{expert}" for expert in (0, 2)}
    assert {row["layer"] for row in study.rows} == chosen
    assert {text for text in study.left_out if text.endswith("change")} == {
        f"{name.replace('layers.1', 'layers.0')} does not change" for name in chosen
    }
    prefix = "model.layers.1.block_sparse_moe.experts"
    assert tuned_too(study) == {
        f"{prefix}.3.w2.weight",
        *(f"{prefix}.{e}.{w}.weight" for e in (0, 2, 3) for w in ("w1", "w3")),
    }


def test_bad_experts_are_told_by_file_and_key_or_skipped(tmp_path):
    write(tmp_path, "mixtral")
    file = tmp_path / "tuned" / "model.safetensors"
    tensors = load_file(file)
    prefix = "model.layers.1.block_sparse_moe.experts"
    del tensors[f"{prefix}.0.w3.weight"]
    tensors[f"{prefix}.2.w2.weight"] = torch.ones(3, 3)
    tensors[f"{prefix}.3.w1.weight"] = torch.ones(24, 7)
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(
        ValueError, match=r"tuned.* lacks weights that are one matrix with .*\.0\.w1\.weight.* more faults"
    ):
        fit_checkpoint(tmp_path / "out", **sources(tmp_path))
    study = fit_checkpoint(tmp_path / "out", **sources(tmp_path), skip_bad=True)
    assert set(study.failed) == {f"{LAST}.gate_up_proj.0", f"{LAST}.down_proj.2", f"{LAST}.gate_up_proj.3"}
    assert "has shape (3, 3), but" in study.failed[f"{LAST}.down_proj.2"]
    assert "are no parts of one matrix" in study.failed[f"{LAST}.gate_up_proj.3"]
    model = peft.PeftModel.from_pretrained(tiny.model("mixtral"), tmp_path / "out" / ADAPTER)
    (layer,) = (each for each in model.modules() if isinstance(each, CDDTunerParameters))
    changed = {name: change.dense().flatten(1).any(1).tolist() for name, change in layer.changes("default").items()}
    assert changed == {"down_proj": [True, False, False, True], "gate_up_proj": [False, False, True, False]}


def test_a_file_of_changes_of_stacks(tmp_path):
    rng = np.random.default_rng(0)
    parts = (rng.uniform(0.5, 1.5, (3, 8)), rng.standard_normal((3, 1, 1, 8)), rng.uniform(0.5, 1.5, (3, 8)))
    changes = np.stack([sm.CDDProduct.from_vectors(*own, block=True).to_dense() for own in zip(*parts, strict=True)])
    stacks = {"mlp.experts.up_proj": torch.from_numpy(changes), "conv.weight": torch.ones(2, 2, 2)}
    save_file(stacks, tmp_path / "delta.safetensors")
    study = fit_checkpoint(tmp_path / "out", delta=tmp_path / "delta.safetensors")
    assert tuned_too(study) == {"conv.weight"}
    assert [row["layer"] for row in study.rows[::2]] == [f"mlp.experts.up_proj.{i}" for i in range(3)]
    found = load_file(tmp_path / "out" / ADAPTER / "adapter_model.safetensors")
    shapes = {key: tuple(value.shape) for key, value in found.items()}
    key = "base_model.model.mlp.experts.cdd_adapters.up_proj.vectors"
    assert shapes == {f"{key}.0": (3, 8), f"{key}.1": (3, 1, 1, 8), f"{key}.2": (3, 8)}


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_matrices_of_stacks_and_joined_ones_are_read(tmp_path, suffix):
    stack, below = torch.randn(3, 5, 4), torch.randn(2, 4)
    path = tmp_path / f"w.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)({"s": stack, "b": below}, path)
    checkpoint = Checkpoint(path)
    matrices = checkpoint.entry("s").matrices()
    assert [tuple(each.shape) for each in matrices] == [(5, 4)] * 3
    assert all(np.array_equal(each.read(), values) for each, values in zip(matrices, stack.numpy(), strict=True))
    assert matrices[0].equals(matrices[0])
    assert not matrices[0].equals(matrices[1])
    assert str(matrices[1]).endswith("s[1]")
    for axis, parts in ((0, (matrices[1], checkpoint.entry("b"))), (1, (matrices[1], matrices[2]))):
        joined = JoinedEntry(parts, axis)
        joined.check_floats()
        expected = np.concatenate([part.read() for part in parts], axis)
        assert joined.shape == expected.shape
        assert np.array_equal(joined.read(), expected)
        assert np.array_equal(Change(joined, joined).matrix(), 0 * expected)
    with pytest.raises(CheckpointError, match="no parts of one matrix"):
        JoinedEntry((matrices[0], checkpoint.entry("b")), 1).check_floats()
