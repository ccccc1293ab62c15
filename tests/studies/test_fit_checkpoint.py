"""`fit_checkpoint` and its command: what comes out, of what files, and what is said of bad ones."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.numpy import load_file
from safetensors.torch import save_file

import structmat as sm
from structmat._layer_fits.changes import Difference
from structmat._layer_fits.layers import LayerTask
from structmat.cli import main
from structmat.fit import fit_cdd
from structmat.io import Checkpoint, CheckpointError, _entry
from structmat.studies import fit_checkpoint, unit_rng
from tests.studies import checkpoints

ROOT = Path(__file__).parents[2]
NAMES = list(checkpoints.names())
FILES = ["adapter_config.json", "adapter_model.safetensors", "layers.csv", "layers.json", "report.html"]
Q = "model.layers.0.attn.q"


def final(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def product(out, name):
    """The dense product of a layer, from the adapter's file."""
    tensors = load_file(out / "adapter_model.safetensors")
    vectors = [tensors[f"base_model.model.{name}.cdd_adapters.factors.{i}"].astype(float) for i in range(3)]
    return sm.CDDProduct.from_vectors(*vectors, block=True).to_dense()[slice(None)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return checkpoints.make(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def whole(sources, tmp_path_factory):
    """A run that nobody interrupts."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return fit_checkpoint(out, **sources, plot=True)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("bfloat16", 8e-3), ("float32", 1e-5)])
def test_planted_changes_are_recovered(tmp_path, dtype, tolerance):
    fit = fit_checkpoint(tmp_path / "out", **checkpoints.make(tmp_path, dtype))
    assert [layer.name for layer in fit.layers] == sorted(NAMES)
    *changed, unchanged = sorted(fit.layers, key=lambda layer: layer.norm == 0)
    for layer in changed:
        assert layer.dtype == dtype
        assert layer.error < tolerance
        shape = (layer.rows, layer.cols)
        want = checkpoints.planted(layer.name, shape)
        assert np.linalg.norm(product(tmp_path / "out", layer.name) - want) < tolerance * np.linalg.norm(want)
        assert layer.norm == pytest.approx(np.linalg.norm(want), rel=1e-2)
        assert layer.n_parameters == sum(shape) + max(shape)
    assert (unchanged.name, unchanged.n_parameters, unchanged.error) == (NAMES[-1], 0, 0.0)


def test_the_tables_say_what_the_adapter_is(whole, sources):
    assert [path.name for path in whole.files] == [*FILES, "layers.png"]
    rows = list(csv.DictReader((whole.folder / "layers.csv").read_text().splitlines()))
    content = json.loads((whole.folder / "layers.json").read_text())
    assert [row["name"] for row in rows] == [layer.name for layer in whole.layers]
    assert {key: content[key] for key in whole.to_dict()} == whole.to_dict()
    base, tuned = checkpoints.weights()
    residual = total = svd = 0.0
    for row, layer in zip(rows, whole.layers, strict=True):
        assert float(row["error"]) == layer.error
        if not layer.norm:
            continue
        change = (tuned[f"{layer.name}.weight"] - base[f"{layer.name}.weight"]).double().numpy()
        gap = np.linalg.norm(change - product(whole.folder, layer.name))
        assert layer.error == pytest.approx(gap / np.linalg.norm(change), rel=0.2, abs=1e-7)
        values = np.linalg.svd(change, compute_uv=False)
        assert layer.svd_rank == layer.n_parameters // (layer.rows + layer.cols)
        assert layer.svd_parameters <= layer.n_parameters
        assert layer.svd_error == pytest.approx(np.linalg.norm(values[layer.svd_rank :]) / np.linalg.norm(values))
        residual += (layer.error * layer.norm) ** 2
        svd += (layer.svd_error * layer.norm) ** 2
        total += layer.norm**2
    assert whole.error == pytest.approx((residual / total) ** 0.5)
    assert whole.svd_error == pytest.approx((svd / total) ** 0.5)
    assert whole.left_out == ("model.norm.weight",)
    page = (whole.folder / "report.html").read_text()
    assert "data:image/svg+xml" in page
    assert not any(text in page for text in ("http://", "https://", "<script"))
    assert all(name in page for name in (*NAMES, "model.norm.weight", "not in the adapter"))


def test_files_of_all_kinds_give_the_same_adapter(tmp_path, whole):
    base, tuned = checkpoints.weights()
    pairs = {"bin": checkpoints.make(tmp_path / "bin", kind="bin", shards=3)}
    for suffix, save in (("safetensors", save_file), ("pt", torch.save)):
        for name, tensors in (("base", base), ("tuned", tuned)):
            save(tensors, tmp_path / f"{name}.{suffix}")
        pairs[suffix] = {name: tmp_path / f"{name}.{suffix}" for name in ("base", "tuned")}
    want = final(whole.folder)
    for kind, pair in pairs.items():
        fit_checkpoint(tmp_path / kind / "out", **pair)
        got = final(tmp_path / kind / "out")
        for name in FILES[1:]:
            assert got[name] == want[name], (kind, name)


def test_layers_stand_in_the_order_of_their_numbers(tmp_path):
    names = ["layers.2.q", "layers.10.q", "layers.10.v", "layers.11.q"]
    save_file({name: torch.eye(4) for name in reversed(names)}, tmp_path / "delta.safetensors")
    fit = fit_checkpoint(tmp_path / "out", delta=tmp_path / "delta.safetensors")
    assert [layer.name for layer in fit.layers] == names
    rows = list(csv.DictReader((fit.folder / "layers.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == names


def test_a_file_of_changes(tmp_path, whole):
    base, tuned = checkpoints.weights()
    save_file({key.removesuffix(".weight"): tuned[key] - base[key] for key in base}, tmp_path / "delta.safetensors")
    fit = fit_checkpoint(tmp_path / "out", delta=tmp_path / "delta.safetensors", targets=r"layers\.0")
    assert [layer.name for layer in fit.layers] == [name for name in sorted(NAMES) if "layers.0" in name]
    for layer in fit.layers:
        np.testing.assert_array_equal(product(fit.folder, layer.name), product(whole.folder, layer.name))
    assert set(fit.left_out) == {key.removesuffix(".weight") for key in base if "layers.0" not in key}


def test_numbers_of_other_libraries_are_those_of_python(tmp_path, sources):
    """A run that was begun with NumPy's numbers goes on with Python's own."""
    numbers = {"n_factors": 3, "block_size": 4, "rng": 1, "workers": 1, "threads": 1}
    first = fit_checkpoint(
        tmp_path / "out", **sources, time_limit=np.float32(60), **{k: np.int64(v) for k, v in numbers.items()}
    )
    again = fit_checkpoint(tmp_path / "out", **sources, time_limit=60.0, **numbers)
    assert again.layers == first.layers


@pytest.mark.parametrize("option", ["plain", "rslora", "patterns", "defaults"])
def test_a_lora_adapter(tmp_path, option):
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((6, 2)).astype("float32"), rng.standard_normal((2, 5)).astype("float32")
    key = "base_model.model.layers.1.proj.lora_{}.weight"
    tensors = {key.format("A"): torch.from_numpy(right), key.format("B"): torch.from_numpy(left)}
    tensors["base_model.model.head.weight"] = torch.ones(3, 3)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "task_type": "CAUSAL_LM", "base_model_name_or_path": "x"}
    scale = 3.0
    if option == "rslora":
        settings["use_rslora"], scale = True, 6 / 2**0.5
    if option == "patterns":
        # A key is the end of a path, whole parts of it.
        settings |= {"r": 8, "rank_pattern": {"pro": 1, "layers": 1, "proj": 2}}
        settings |= {"alpha_pattern": {"pro": 99.0, "layers": 99.0, "layers.1.proj": 10.0, "x": 1.0}}
        scale = 5.0
    if option == "defaults":
        del settings["lora_alpha"]  # which is 8 in PEFT
        scale = 4.0
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    fit = fit_checkpoint(tmp_path / "out", lora=tmp_path)
    (layer,) = fit.layers
    change = scale * left @ right
    assert (layer.name, layer.rows, layer.cols) == ("layers.1.proj", 6, 5)
    assert layer.norm == pytest.approx(np.linalg.norm(change), rel=1e-6)
    gap = np.linalg.norm(product(fit.folder, layer.name) - change) / np.linalg.norm(change)
    assert layer.error == pytest.approx(gap, rel=1e-4)
    assert fit.left_out == ("base_model.model.head.weight",)
    config = json.loads((fit.folder / "adapter_config.json").read_text())
    assert (config["task_type"], config["base_model_name_or_path"]) == ("CAUSAL_LM", "x")
    for more, text in (
        ({"use_dora": True}, "the adapter is LORA with use_dora; only plain LoRA"),
        ({"alora_invocation_tokens": [8, 9]}, "the adapter is LORA with alora_invocation_tokens"),
        ({"layer_replication": [[0, 2], [0, 2]]}, "the adapter is LORA with layer_replication"),
        ({"init_lora_weights": "pissa_niter_4"}, "the start init_lora_weights='pissa_niter_4' changed the weights of"),
        (
            {"init_lora_weights": "OLoRA"},
            "the start init_lora_weights='OLoRA' changed the weights of the base too; merge",
        ),
    ):
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings | more))
        with pytest.raises(CheckpointError, match=rf"adapter_config.json: {re.escape(text)}"):
            fit_checkpoint(tmp_path / "out", lora=tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | {"init_lora_weights": "gaussian"}))
    assert fit_checkpoint(tmp_path / "gaussian", lora=tmp_path).error == fit.error


@pytest.mark.parametrize(("whole_moment", "key"), [(False, "a.b"), (True, "a.b.weight")])
def test_weights_of_the_inputs(tmp_path, whole_moment, key):
    rng = np.random.default_rng(0)
    change = rng.standard_normal((6, 5)).astype("float32")
    moment = np.cov(rng.standard_normal((5, 20))) if whole_moment else rng.uniform(0.1, 2.0, 5)
    save_file({"a.b.weight": torch.from_numpy(change)}, tmp_path / "delta.safetensors")
    save_file({key: torch.from_numpy(moment)}, tmp_path / "moments.safetensors")
    fit = fit_checkpoint(
        tmp_path / "out", delta=tmp_path / "delta.safetensors", input_second_moment=tmp_path / "moments.safetensors"
    )
    want = fit_cdd(change, input_second_moment=moment, rng=unit_rng(0, "a.b"))
    (layer,) = fit.layers
    assert layer.error == want.error
    values, vectors = np.linalg.eigh(moment if whole_moment else np.diag(moment))
    singular = np.linalg.svd(change @ vectors * np.sqrt(values), compute_uv=False)
    assert layer.svd_error == pytest.approx(np.linalg.norm(singular[layer.svd_rank :]) / np.linalg.norm(singular))
    save_file({"other": torch.from_numpy(moment)}, tmp_path / "moments.safetensors")
    with pytest.raises(CheckpointError, match=r"moments.safetensors has no weight a\.b"):
        fit_checkpoint(
            tmp_path / "new", delta=tmp_path / "delta.safetensors", input_second_moment=tmp_path / "moments.safetensors"
        )
    save_file({"a.b": torch.ones(4)}, tmp_path / "moments.safetensors")
    with pytest.raises(CheckpointError, match=r"a\.b\.weight: [a-z_]+: input_second_moment must have shape"):
        fit_checkpoint(
            tmp_path / "new", delta=tmp_path / "delta.safetensors", input_second_moment=tmp_path / "moments.safetensors"
        )


def test_errors_of_all_layers_together_are_weighted_by_their_inputs(tmp_path):
    """Each layer counts as much as what it does to its inputs."""
    rng = np.random.default_rng(0)
    changes = {"big": 1e4 * np.outer(np.arange(1.0, 9), np.ones(8)), "small": rng.standard_normal((8, 8))}
    moments = {"big": np.full(8, 1e-8), "small": np.full(8, 1e8)}
    for file, tensors in (("delta", changes), ("moments", moments)):
        save_file({key: torch.from_numpy(value) for key, value in tensors.items()}, tmp_path / f"{file}.safetensors")
    options = {"delta": tmp_path / "delta.safetensors", "input_second_moment": tmp_path / "moments.safetensors"}
    fit = fit_checkpoint(tmp_path / "out", **options)
    left = whole = 0.0
    for name, change in changes.items():
        gap = change - product(fit.folder, name)
        left += np.linalg.norm(gap * moments[name] ** 0.5) ** 2
        whole += np.linalg.norm(change * moments[name] ** 0.5) ** 2
    assert fit.error == pytest.approx((left / whole) ** 0.5, rel=1e-3)
    assert fit.error > 0.3
    assert fit.layers[0].norm == pytest.approx(np.linalg.norm(changes["big"]))
    plain = fit_checkpoint(tmp_path / "plain", delta=options["delta"])
    assert plain.error < 1e-3
    assert plain.layers[0].weighted_norm is None


def test_more_factors_blocks_and_a_seed_are_passed_on(tmp_path):
    change = np.random.default_rng(0).standard_normal((6, 4)).astype("float32")
    save_file({"p": torch.from_numpy(change)}, tmp_path / "d.safetensors")
    fit = fit_checkpoint(tmp_path / "out", delta=tmp_path / "d.safetensors", n_factors=5, block_size=2, rng=7)
    assert fit.layers[0].error == fit_cdd(change, 5, block_size=2, rng=unit_rng(7, "p")).error
    config = json.loads((fit.folder / "adapter_config.json").read_text())
    assert (config["n_factors"], config["block_size"], config["target_modules"]) == (5, 2, "p")


def test_a_layer_that_did_not_change_is_not_adapted_though_its_name_ends_alike(tmp_path):
    base = {"fc.weight": torch.ones(4, 4), "block.fc.weight": torch.ones(4, 4)}
    save_file(base, tmp_path / "base.safetensors")
    save_file(base | {"fc.weight": torch.full((4, 4), 2.0)}, tmp_path / "tuned.safetensors")
    fit = fit_checkpoint(tmp_path / "out", base=tmp_path / "base.safetensors", tuned=tmp_path / "tuned.safetensors")
    assert json.loads((fit.folder / "adapter_config.json").read_text())["target_modules"] == "fc"


# It loads in PEFT


def logits(kind, model):
    from tests.peft import tiny

    with torch.no_grad():
        return model.eval()(**tiny.inputs(kind)).logits


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_peft_loads_the_adapter_and_the_model_answers_as_the_tuned_one(tmp_path, kind):
    peft = pytest.importorskip("peft")
    pytest.importorskip("transformers")
    from structmat.peft import CDDConfig
    from tests.peft import tiny

    base, tuned = tiny.model(kind), tiny.model(kind)
    square = ("q_proj", "o_proj") if kind == "llama" else ("attn.c_proj",)
    with torch.no_grad():
        for name, module in tuned.named_modules():
            if name.endswith(square):
                change = checkpoints.planted(name, tuple(module.weight.shape))  # transposed, in gpt2
                module.weight += 0.1 * torch.from_numpy(change.T if kind == "gpt2" else change).float()
    base.save_pretrained(tmp_path / "base")
    tuned.save_pretrained(tmp_path / "tuned")
    fit = fit_checkpoint(tmp_path / "out", base=tmp_path / "base", tuned=tmp_path / "tuned")
    assert fit.error < 1e-5
    assert sum(layer.norm > 0 for layer in fit.layers) == 2 * len(square)
    config = CDDConfig.from_pretrained(str(fit.folder)).to_dict()
    want = CDDConfig(target_modules=config["target_modules"], base_model_name_or_path=str(tmp_path / "base")).to_dict()
    assert config == {**want, "inference_mode": True, "peft_version": config["peft_version"]}
    loaded = peft.PeftModel.from_pretrained(tiny.model(kind), fit.folder)
    torch.testing.assert_close(logits(kind, loaded), logits(kind, tuned), rtol=1e-4, atol=1e-4)
    assert (logits(kind, base) - logits(kind, tuned)).abs().max() > 1e-2


# Engines, interruptions


def test_workers_give_the_same_files(tmp_path, sources, whole):
    fit = fit_checkpoint(tmp_path / "out", **sources, workers=2, plot=True)
    assert final(fit.folder) == final(whole.folder)


def test_workers_find_files_by_relative_names(tmp_path, sources, whole, monkeypatch):
    fit_checkpoint(tmp_path / "one", **sources, workers=2, targets="attn")  # starts workers, which stay for the next
    monkeypatch.chdir(sources["base"].parent)
    fit = fit_checkpoint(tmp_path / "two", base="base", tuned="tuned", workers=2, targets="attn")
    assert fit.layers == tuple(layer for layer in whole.layers if "attn" in layer.name)
    assert json.loads((fit.folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "base"


def test_killed_at_random_moments_and_resumed(tmp_path, sources, whole):
    """As often as `STRUCTMAT_KILLS` says; a run that nobody killed ends with the same files."""
    command = [
        sys.executable,
        "-m",
        "tests.studies.checkpoints",
        str(sources["base"].parent),
        str(tmp_path / "out"),
        "1",
    ]
    rng, done = np.random.default_rng(0), 0
    for _ in range(int(os.environ.get("STRUCTMAT_KILLS", "1"))):
        process = subprocess.Popen(command, cwd=ROOT)
        done += int(rng.integers(1, 3))  # imports take longer than the work: what is kept tells how far it is
        while process.poll() is None and len(list((tmp_path / "out" / "work" / "units").glob("*"))) < done:
            time.sleep(0.001)
        process.kill()
        process.wait()
    assert any((tmp_path / "out" / "work" / "units").glob("*.safetensors"))
    subprocess.run(command, cwd=ROOT, check=True)
    assert final(tmp_path / "out") == final(whole.folder)
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.name.startswith(".")] == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == ["work"]


def test_a_finished_run_is_not_done_again(tmp_path, sources, whole, monkeypatch):
    out = whole.folder
    before, seen = final(out), []
    monkeypatch.setattr(LayerTask, "run", None)
    fit = fit_checkpoint(out, **sources, callback=seen.append)
    assert [(state.n_done, state.n_units, state.share) for state in seen] == [(len(NAMES), len(NAMES), 1.0)]
    assert final(out) == before
    assert fit.to_dict() == whole.to_dict()


def test_progress_comes_layer_by_layer(tmp_path, sources):
    seen = []
    fit = fit_checkpoint(tmp_path / "out", **sources, targets="attn", callback=seen.append)
    assert [state.n_done for state in seen] == [0, 1, 2, 3]
    assert [state.name for state in seen] == ["", *(layer.name for layer in fit.layers)]
    assert [state.share for state in seen] == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_other_settings_or_files_on_an_old_folder_are_refused(tmp_path):
    sources = checkpoints.make(tmp_path)
    fit = fit_checkpoint(tmp_path / "out", **sources, targets="attn")
    before = final(fit.folder)
    for name, there, now in (
        ("n_factors", 3, 5),
        ("block_size", '"min"', 2),
        ("rng", 0, 1),
        ("threads", 1, 2),
        ("cast", "false", "true"),
        ("time_limit", "null", 9.0),
    ):
        with pytest.raises(ValueError, match=rf"other settings: {name} {there} there, {now} now"):
            fit_checkpoint(tmp_path / "out", **sources, targets="attn", **{name: json.loads(str(now))})
    path = sources["tuned"] / "model-0.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"other settings: files\.tuned"):
        fit_checkpoint(tmp_path / "out", **sources, targets="attn")
    assert final(fit.folder) == before


def test_a_layer_takes_the_memory_of_little_more_than_two_matrices(tmp_path, monkeypatch):
    """The change and one copy of it: the rest is rows."""
    monkeypatch.setattr(_entry, "_CHUNK_BYTES", 1 << 14)
    n = 1024
    base = np.random.default_rng(0).standard_normal((n, n)).astype("float32")
    change = checkpoints.planted("x", (n, n)).astype("float32")
    for name, tensor in (("base", base), ("tuned", base + change)):
        save_file({"w": torch.from_numpy(tensor)}, tmp_path / f"{name}.safetensors")
    tuned, before = (Checkpoint(tmp_path / f"{name}.safetensors").entry("w") for name in ("tuned", "base"))
    task = LayerTask("w", Difference(tuned, before))
    task.run()  # what is imported on first use is not the layer's
    tracemalloc.start()
    try:
        outcome = task.run()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert outcome.values["error"] < 1e-5
    assert peak < 2.75 * base.nbytes


# Bad files


def lose(tensors, key):
    del tensors[key]


BAD = {
    "missing in tuned": (
        lambda b, t: lose(t, f"{Q}.weight"),
        rf"base/model-\d.safetensors: {Q}.weight: .*tuned has no",
    ),
    "missing in base": (lambda b, t: lose(b, f"{Q}.weight"), rf"tuned/model-\d.safetensors: {Q}.weight: .*base has no"),
    "shape": (
        lambda b, t: t.update({f"{Q}.weight": torch.ones(3, 4)}),
        rf"tuned/model-0.safetensors: {Q}.weight has shape \(3, 4\), but .*base/model-0.safetensors: {Q}.weight has",
    ),
    "dtype": (
        lambda b, t: t.update({f"{Q}.weight": t[f"{Q}.weight"].half()}),
        rf"tuned/model-0.safetensors: {Q}.weight has dtype float16, but .*base/model-0.safetensors: {Q}.weight has",
    ),
    "eight bits": (
        lambda b, t: t.update({f"{Q}.weight": t[f"{Q}.weight"].to(torch.float8_e4m3fn)}),
        rf"tuned/model-0.safetensors: {Q}.weight has dtype F8_E4M3",
    ),
    "nan": (
        lambda b, t: t[f"{Q}.weight"].fill_(torch.nan),
        rf"tuned/model-0.safetensors: {Q}.weight: the change holds NaN or infinity",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_weights_are_told_by_file_and_key_or_skipped(tmp_path, whole, bad):
    change, text = BAD[bad]
    base, tuned = checkpoints.weights()
    change(base, tuned)
    sources = {
        "base": checkpoints.write(tmp_path / "base", base),
        "tuned": checkpoints.write(tmp_path / "tuned", tuned),
    }
    with pytest.raises(CheckpointError, match=text):
        fit_checkpoint(tmp_path / "out", **sources)
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    seen = []
    fit = fit_checkpoint(tmp_path / "out", **sources, skip_bad=True, callback=seen.append)
    assert (seen[-1].n_done, seen[-1].share) == (seen[-1].n_units, 1.0)
    assert list(fit.skipped) == [Q]
    assert [layer for layer in fit.layers if layer.name == Q] == []
    assert [layer for layer in fit.layers] == [layer for layer in whole.layers if layer.name != Q]  # noqa: C416
    assert json.loads((fit.folder / "layers.json").read_text())["skipped"] == dict(fit.skipped)
    assert fit.skipped[Q] in (fit.folder / "report.html").read_text().replace("&#39;", "'")


def test_other_dtypes_on_demand(tmp_path):
    base, tuned = checkpoints.weights()
    tuned = {key: weight.half() for key, weight in tuned.items()}
    sources = {
        "base": checkpoints.write(tmp_path / "base", base),
        "tuned": checkpoints.write(tmp_path / "tuned", tuned),
    }
    fit = fit_checkpoint(tmp_path / "out", **sources, cast=True, targets="attn")
    assert fit.error < 1e-3
    assert not fit.skipped


@pytest.mark.parametrize("damage", ["missing", "cut", "garbage"])
def test_damaged_shards(tmp_path, whole, damage):
    sources = checkpoints.make(tmp_path)
    shard = sources["tuned"] / "model-1.safetensors"
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-4] if damage == "cut" else b"x" * 99)
    with pytest.raises(CheckpointError, match=r"tuned/model-1\.safetensors: model\."):
        fit_checkpoint(tmp_path / "out", **sources)
    fit = fit_checkpoint(tmp_path / "out", **sources, skip_bad=True)
    for layer in fit.layers:
        assert layer in whole.layers
    lost = {*NAMES[1::2], "model.embed_tokens"}
    assert set(fit.skipped) == lost if damage != "cut" else len(fit.skipped) == 1


def test_nothing_to_do(tmp_path, sources):
    with pytest.raises(
        ValueError, match=r"targets must match a layer, got 'nowhere'; could be fitted: model\.embed_tokens"
    ):
        fit_checkpoint(tmp_path / "out", **sources, targets="nowhere")
    with pytest.raises(CheckpointError, match="no weight that matches has changed"):
        fit_checkpoint(tmp_path / "out", base=sources["base"], tuned=sources["base"])
    for wrong, text in (
        ({"n_factors": 4}, "n_factors must be odd"),
        ({"block_size": 0}, "block_size"),
        ({"targets": "("}, "targets must be a regular expression"),
        ({"delta": "x"}, "base and tuned, or delta alone"),
    ):
        with pytest.raises(ValueError, match=text):
            fit_checkpoint(tmp_path / "new", **{**sources, **wrong})
    assert not (tmp_path / "new").exists()
    with pytest.raises(
        CheckpointError, match=rf"{NAMES[0]}.weight: fit_cdd: block_size must be at most rows \+ cols - 1"
    ):
        fit_checkpoint(tmp_path / "new", **sources, block_size=99)


# The command


@pytest.fixture
def cli(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments):
        capfd.readouterr()
        status = main(["fit-checkpoint", *map(str, arguments)])
        return status, *capfd.readouterr()

    return run


def pair(sources):
    return ["--base", sources["base"], "--tuned", sources["tuned"]]


def test_the_command_prints_a_table_or_json(cli, tmp_path, sources, whole):
    status, out, err = cli(*pair(sources), "--out", tmp_path / "out", "--plot")
    assert (status, err) == (0, "")
    assert final(tmp_path / "out") == final(whole.folder)
    for text in (*NAMES[:-1], "8 layers together", "1 layer without a change", "model.norm.weight", "report.html"):
        assert text in out
    assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line) <= 80
    status, out, err = cli(*pair(sources), "--out", tmp_path / "out", "--json")
    assert (status, err) == (0, "")
    got = json.loads(out)
    assert {key: got[key] for key in whole.to_dict()} == whole.to_dict()
    assert [Path(name).name for name in got["files"]] == [*FILES, "layers.png"]


def test_the_seed_of_the_command_is_that_of_the_fits(cli, tmp_path):
    change = np.random.default_rng(0).standard_normal((6, 4)).astype("float32")
    save_file({"p": torch.from_numpy(change)}, tmp_path / "d.safetensors")
    options = ("--n-factors", 5, "--block-size", 2, "--json")
    for seed in (0, 7):
        status, out, _ = cli(
            "--delta", tmp_path / "d.safetensors", "--out", tmp_path / str(seed), "--seed", seed, *options
        )
        assert status == 0
        want = fit_cdd(change, 5, block_size=2, rng=unit_rng(seed, "p")).error
        assert json.loads(out)["layers"][0]["error"] == want


def test_log_level(cli, tmp_path, sources):
    status, _, err = cli(*pair(sources), "--out", tmp_path / "out", "--targets", "attn", "--log-level", "info")
    assert status == 0
    assert "3 of 3 layers are to be done" in err
    assert f"{Q} is done, error " in err


def test_errors_of_the_command(cli, tmp_path, sources):
    out = ["--out", tmp_path / "out"]
    assert cli(*out)[0] == 2
    status, _, err = cli(*out, "--base", sources["base"])
    assert (status, err.count("\n")) == (2, 1)
    assert "--base and --tuned, or --delta alone, or --lora alone are needed, got --base" in err
    for arguments, status, text in (
        ((*pair(sources), "--targets", "nowhere"), 2, "--targets: must match a layer, got 'nowhere'"),
        ((*pair(sources), "--n-factors", "4"), 2, "--n-factors: must be odd"),
        ((*pair(sources), "--block-size", "big"), 2, "--block-size"),
        (("--delta", tmp_path / "none"), 1, f"--delta: {tmp_path / 'none'}: there is no such file or folder"),
        (("--base", sources["base"], "--tuned", tmp_path), 1, f"--tuned: {tmp_path} holds no safetensors"),
        ((*pair(sources), "--scheduler", "tcp://127.0.0.1:9", "--workers", "0"), 2, "--workers"),
    ):
        got, _, err = cli(*out, *arguments)
        assert (got, text in err) == (status, True), err
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "layers.csv").write_text("mine")
    status, _, err = cli(*pair(sources), "--out", tmp_path / "mine")
    assert status != 0
    assert "layers.csv" in err
    assert final(tmp_path / "mine") == {"layers.csv": b"mine"}


def test_skipped_layers_are_listed(cli, tmp_path):
    sources = checkpoints.make(tmp_path)
    (sources["tuned"] / "model-1.safetensors").unlink()
    status, _, err = cli(*pair(sources), "--out", tmp_path / "out")
    assert status == 1
    assert "structmat fit-checkpoint: error: --tuned: " in err
    assert "model-1.safetensors: model.embed_tokens.weight: the index names this file, which is missing" in err
    assert "(and 4 more faults)" in err
    status, out, err = cli(*pair(sources), "--out", tmp_path / "out", "--skip-bad")
    assert (status, err) == (0, "")
    assert out.count("skipped model.") == 5


CTRL_C = """
import signal, sys
from structmat.cli import main
from structmat.studies import WorkFolder

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell runs in the background
write = WorkFolder.write

def write_once(self, *arguments):
    write(self, *arguments)
    signal.raise_signal(signal.SIGINT)

WorkFolder.write = write_once
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_says_how_to_go_on(tmp_path, sources, whole):
    arguments = ["fit-checkpoint", *map(str, (*pair(sources), "--out", tmp_path / "out", "--plot"))]
    run = [sys.executable, "-c", CTRL_C, *arguments]  # Ctrl-C as soon as the first layer is done
    interrupted = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert interrupted.returncode == 130
    text = f"layers are done and kept in {tmp_path / 'out'}; the same command continues"
    assert text in interrupted.stderr
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    subprocess.run([sys.executable, "-m", "structmat", *arguments], cwd=ROOT, check=True, capture_output=True)
    assert final(tmp_path / "out") == final(whole.folder)
