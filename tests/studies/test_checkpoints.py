"""Sweeps over the changes of a checkpoint, and adapters: what comes out of what files, and what bad ones are told."""

from __future__ import annotations

import json
import os
import re
import tracemalloc

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.numpy import load_file
from safetensors.torch import save_file

import structmat as sm
from structmat.fit import fit_cdd
from structmat.studies import _checkpoint_files, changes, load_study, sweep
from structmat.studies._changes import Change
from structmat.studies._checkpoint_files import Checkpoint, CheckpointError
from structmat.studies._study import COLUMNS
from structmat.studies._units import Search
from tests.studies import checkpoints
from tests.studies.checkpoints import ADAPTER, fit_checkpoint, together, tuned_too
from tests.studies.outcomes import adapter, layers, rows

NAMES = [*checkpoints.names()]
Q = "model.layers.1.attn.q"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return checkpoints.make(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("whole") / "out"


@pytest.fixture(scope="module")
def whole(out, sources):
    return fit_checkpoint(out, **sources)


def product(out, name):
    tensors = load_file(out / ADAPTER / "adapter_model.safetensors")
    a, c, b = (tensors[f"base_model.model.{name}.cdd_adapters.vectors.{i}"] for i in range(3))
    a, c, b = (scale * v for scale, v in zip((30, 30 / b.size**0.5, 30), (a, c, b), strict=True))  # as they are trained
    return sm.CDDProduct.from_vectors(a.ravel(), c, b.ravel(), block=True).to_dense()[: a.size, : b.size]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-3), ("bfloat16", 2e-2), ("float64", 1e-7)])
def test_planted_changes_are_recovered(tmp_path, dtype, tolerance):
    study = fit_checkpoint(tmp_path / "out", **checkpoints.make(tmp_path, dtype))
    changed = layers(study)
    assert f"{NAMES[-1]} does not change" in study.left_out
    assert {layer.layer for layer in changed} == {*NAMES[:-1]}
    for layer in changed:
        want = checkpoints.planted(layer.layer, (layer.rows, layer.cols))
        assert layer.error < tolerance
        assert np.linalg.norm(product(tmp_path / "out", layer.layer) - want) < tolerance * np.linalg.norm(want)
        assert layer.norm == pytest.approx(np.linalg.norm(want), rel=1e-2)
        assert layer.n_parameters == layer.rows + layer.cols + max(layer.rows, layer.cols)


def test_the_table_says_what_the_adapter_is(whole, out):
    assert rows(load_study(out)) == rows(whole)
    assert {frozenset(row) for row in whole.rows} == {frozenset(COLUMNS)}
    base, tuned = checkpoints.weights()
    residual = total = svd = 0.0
    for layer in (layer for layer in layers(whole) if layer.norm):
        change = (tuned[f"{layer.layer}.weight"] - base[f"{layer.layer}.weight"]).double().numpy()
        gap = np.linalg.norm(change - product(out, layer.layer))
        assert layer.error == pytest.approx(gap / np.linalg.norm(change), rel=0.2, abs=1e-7)
        values = np.linalg.svd(change, compute_uv=False)
        rank = layer.svd_parameters // (layer.rows + layer.cols)
        assert layer.svd_parameters <= layer.n_parameters
        assert layer.svd_error == pytest.approx(np.linalg.norm(values[rank:]) / np.linalg.norm(values))
        residual += (layer.error * layer.norm) ** 2
        svd += (layer.svd_error * layer.norm) ** 2
        total += layer.norm**2
    assert together(whole) == pytest.approx((residual / total) ** 0.5)
    assert together(whole, "truncated-svd") == pytest.approx((svd / total) ** 0.5)
    assert tuned_too(whole) == {"model.norm.weight"}
    assert whole.adapters == (str(out / ADAPTER),)


def test_files_of_all_kinds_and_workers_give_the_same_adapter(tmp_path, whole, out, sources):
    base, tuned = checkpoints.weights()
    pairs = {"bin": checkpoints.make(tmp_path / "bin", kind="bin", shards=3), "workers": {**sources, "workers": 2}}
    for name, tensors in (("base", base), ("tuned", tuned)):
        torch.save(tensors, tmp_path / f"{name}.pt")
    pairs["pt"] = {name: tmp_path / f"{name}.pt" for name in ("base", "tuned")}
    for kind, options in pairs.items():
        assert rows(fit_checkpoint(tmp_path / kind / "out", **options)) == rows(whole)
        assert adapter(tmp_path / kind / "out")[0] == adapter(out)[0]


def test_workers_find_files_by_relative_names_and_files_may_move(tmp_path, whole, monkeypatch):
    checkpoints.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    study = fit_checkpoint("out", base="base", tuned="tuned", workers=2, targets="attn")
    assert rows(study) == [row for row in rows(whole) if "attn" in row["layer"]]
    for path in (tmp_path / "tuned").iterdir():
        os.utime(path, (1, 1))
    (tmp_path / "base").rename("moved")
    again = fit_checkpoint("out", base="moved", tuned="tuned", targets="attn")
    assert again.rows == study.rows  # with their times


def test_layers_stand_in_the_order_of_their_numbers(tmp_path):
    names = ["layers.2.q", "layers.10.q", "layers.10.v", "layers.11.q"]
    save_file({name: torch.eye(4) for name in reversed(names)}, tmp_path / "delta.safetensors")
    study = fit_checkpoint(tmp_path / "out", delta=tmp_path / "delta.safetensors")
    assert [layer.layer for layer in layers(study)] == names


def test_a_file_of_changes(tmp_path, whole, out):
    base, tuned = checkpoints.weights()
    save_file({key.removesuffix(".weight"): tuned[key] - base[key] for key in base}, tmp_path / "delta.safetensors")
    study = fit_checkpoint(tmp_path / "out", delta=tmp_path / "delta.safetensors", targets=r"layers\.0")
    assert {layer.layer for layer in layers(study)} == {name for name in NAMES if "layers.0" in name}
    for layer in layers(study):
        np.testing.assert_array_equal(product(tmp_path / "out", layer.layer), product(out, layer.layer))
    assert tuned_too(study) == {key.removesuffix(".weight") for key in base if "layers.0" not in key}


@pytest.mark.parametrize("whole_moment", [False, True])
@pytest.mark.parametrize("key", ["a.b", "a.b.weight"])
def test_weights_of_the_inputs(tmp_path, whole_moment, key):
    rng = np.random.default_rng(0)
    change = rng.standard_normal((6, 5)).astype("float32")
    moment = np.cov(rng.standard_normal((5, 20))) if whole_moment else rng.uniform(0.1, 2.0, 5)
    save_file({"a.b.weight": torch.from_numpy(change)}, tmp_path / "delta.safetensors")
    moments = {"delta": tmp_path / "delta.safetensors", "input_second_moment": tmp_path / "moments.safetensors"}
    save_file({key: torch.from_numpy(moment)}, tmp_path / "moments.safetensors")
    (layer,) = layers(fit_checkpoint(tmp_path / "out", **moments))
    assert layer.error == fit_cdd(change, input_second_moment=moment, rng=0).error
    values, vectors = np.linalg.eigh(moment if whole_moment else np.diag(moment))
    singular = np.linalg.svd(change @ vectors * np.sqrt(values), compute_uv=False)
    assert layer.norm == pytest.approx(np.linalg.norm(singular))
    assert layer.svd_error == pytest.approx(np.linalg.norm(singular[1:]) / np.linalg.norm(singular))
    save_file({"other": torch.from_numpy(moment)}, tmp_path / "moments.safetensors")
    with pytest.raises(CheckpointError, match=r"moments.safetensors has no weight a\.b"):
        fit_checkpoint(tmp_path / "new", **moments)
    save_file({"a.b": torch.ones(4)}, tmp_path / "moments.safetensors")
    with pytest.raises(CheckpointError, match=r"a\.b\.weight: [a-z_]+: input_second_moment must have shape"):
        fit_checkpoint(tmp_path / "new", **moments)


def test_more_factors_blocks_and_a_seed_are_passed_on(tmp_path):
    change = np.random.default_rng(0).standard_normal((6, 4)).astype("float32")
    save_file({"p": torch.from_numpy(change)}, tmp_path / "d.safetensors")
    options = {"delta": tmp_path / "d.safetensors", "n_factors": np.int64(5), "block_size": 2, "rng": 7}
    (layer,) = layers(fit_checkpoint(tmp_path / "out", **options))
    assert layer.error == fit_cdd(change, 5, block_size=2, rng=7).error
    config = json.loads((tmp_path / "out" / "adapter-5" / "adapter_config.json").read_text())
    assert (config["n_factors"], config["block_size"], config["target_modules"]) == (5, 2, "p")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("power", [-35, -24, 30, 36])
def test_layers_of_any_magnitude_are_fitted(tmp_path, dtype, power):
    change = np.random.default_rng(0).standard_normal((4, 6)).astype(dtype)
    scale = change.dtype.type(10.0**power) if dtype == "float32" else 10.0 ** (8 * power)
    changes = {"x": torch.from_numpy(change), "y": torch.from_numpy(change * scale)}
    save_file(changes, tmp_path / "d.safetensors")
    one, other = layers(study := fit_checkpoint(tmp_path / "out", delta=tmp_path / "d.safetensors"))
    assert other.norm == pytest.approx(one.norm * float(scale), rel=1e-5)
    assert other.error == pytest.approx(one.error, rel=1e-3)
    assert together(study) == pytest.approx(one.error, rel=1e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["llama", "gpt2", "vit", "t5", "qwen2_moe", "mamba"])
def test_peft_loads_the_adapter_and_the_model_answers_as_the_tuned_one(tmp_path, kind):
    """Of kinds whose files have other names than their modules, and matrices of modules that cannot be adapted."""
    peft = pytest.importorskip("peft")
    pytest.importorskip("transformers")
    from tests.peft import tiny

    def logits(model):
        with torch.no_grad():
            return model.eval()(**tiny.inputs(kind)).logits

    base, tuned = tiny.model(kind), tiny.model(kind)
    changed = [name for name, weight in tuned.named_parameters() if weight.ndim == 2 and name.endswith("weight")]
    for weight in map(tuned.get_parameter, changed):
        weight.data += torch.outer(torch.randn(len(weight)), torch.randn(weight.shape[1])) / 20
    base.save_pretrained(tmp_path / "base")
    tuned.save_pretrained(tmp_path / "tuned")
    study = fit_checkpoint(tmp_path / "out", base=tmp_path / "base", tuned=tmp_path / "tuned")
    assert together(study) < 1e-5
    for name in tuned_too(study):
        tuned.get_parameter(name).data = base.get_parameter(name).data
    loaded = peft.PeftModel.from_pretrained(tiny.model(kind), tmp_path / "out" / ADAPTER)
    assert sum(hasattr(module, "cdd_adapters") for module in loaded.modules()) == len(changed) - len(tuned_too(study))
    torch.testing.assert_close(logits(loaded), logits(tuned), rtol=1e-4, atol=1e-4)
    assert (logits(base) - logits(tuned)).abs().max() > 1e-2


def test_a_model_that_is_not_known_is_told(tmp_path):
    sources = checkpoints.make(tmp_path)
    (sources["base"] / "config.json").write_text('{"model_type": "mine"}')
    with pytest.warns(RuntimeWarning, match="the modules of mine are not known .*see that PEFT adapts every layer"):
        fit_checkpoint(tmp_path / "out", **sources, targets="attn")


def test_other_settings_on_an_old_folder_are_refused_and_other_files_are_fitted(tmp_path):
    sources, out = checkpoints.make(tmp_path), tmp_path / "out"
    first = fit_checkpoint(out, **sources, targets="attn")
    before = adapter(out)
    for name, there, now in (("rng", 0, 1), ("time_limit", "null", 9.0)):
        with pytest.raises(ValueError, match=rf"other settings: .*{name} {there} there, .*{now}.* now"):
            fit_checkpoint(out, **{**sources, "targets": "attn", name: now})
    with pytest.raises(ValueError, match="out must be another folder than base"):
        fit_checkpoint(sources["base"], **sources)
    assert adapter(out) == before
    _, tuned = checkpoints.weights()
    checkpoints.write(sources["tuned"], {key: 2 * weight for key, weight in tuned.items()})
    assert [row["norm"] for row in fit_checkpoint(out, **sources, targets="attn").rows] != [
        row["norm"] for row in first.rows
    ]
    assert adapter(out) != before


def test_several_sizes_are_several_adapters_of_the_best_searches(tmp_path, sources):
    options = {"n_factors": [1, 3, 5], "methods": ["cdd"], "seeds": 2, "write_adapters": True}
    found = changes(**sources, targets="layers.0.attn")
    study = sweep(found, tmp_path / "out", **options)
    assert study.adapters == tuple(str(tmp_path / "out" / f"adapter-{count}") for count in (3, 5))
    assert "no adapter of 1 factor: adapters have an odd number, three at least" in study.left_out
    ((name, change),) = found.items()
    best = study.curve(name).error[1]
    W = change.matrix()
    assert np.linalg.norm(W - product(tmp_path / "out", name)) / np.linalg.norm(W) == pytest.approx(best, abs=1e-6)
    with pytest.raises(TypeError, match="layers must be changes of a checkpoint"):
        sweep(dict(found), tmp_path / "other", **options)


@pytest.mark.parametrize("kind", ["LORA", "CDD"])
def test_the_changes_of_an_adapter_are_those_that_peft_makes(tmp_path, kind):
    peft = pytest.importorskip("peft")
    import structmat.peft

    def model():
        torch.manual_seed(0)
        return torch.nn.ModuleDict({"up": torch.nn.Linear(6, 8), "down": torch.nn.Linear(8, 6)})

    base = {key: value.clone() for key, value in model().state_dict().items()}
    save_file(base, tmp_path / "base.safetensors")
    if kind == "LORA":
        patterns = {"rank_pattern": {"down": 3}, "alpha_pattern": {"down": 5}, "use_rslora": True}
        config = peft.LoraConfig(target_modules=["up", "down"], r=2, lora_alpha=3, **patterns)
    else:
        config = structmat.peft.CDDConfig(target_modules=["up", "down"], alpha=2.0, n_factors=5, block_size=2)
    adapted = peft.PeftModel(model(), config)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter) / 20)
    adapted.save_pretrained(tmp_path / "adapter")
    found = changes(tmp_path / "base.safetensors", tmp_path / "adapter")
    merged = adapted.merge_and_unload().state_dict()
    assert set(found) == {"up", "down"}
    for name, change in found.items():
        expected = (merged[f"{name}.weight"] - base[f"{name}.weight"]).numpy()
        assert change.shape == expected.shape
        np.testing.assert_allclose(change.matrix(), expected, rtol=1e-4, atol=1e-5)
    if kind == "LORA":
        study = sweep({"up": found["up"]}, tmp_path / "out", methods=["truncated-svd"], n_factors=[5])
        assert study.rows[0]["error"] < 1e-5  # of rank two
    assert [*changes(tmp_path / "base.safetensors", tmp_path / "adapter", "up")] == ["up"]
    save_file({"other.weight": torch.ones(3, 3)}, tmp_path / "base.safetensors")
    with pytest.raises(CheckpointError, match=r"base\.safetensors has no layer of this name"):
        changes(tmp_path / "base.safetensors", tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    if kind == "CDD":
        path.write_text(json.dumps({**json.loads(path.read_text()), "terms": [{"alpha": 1.0}]}))
        with pytest.raises(CheckpointError, match="it has terms, unknown here"):
            changes(tmp_path / "base.safetensors", tmp_path / "adapter")
    path.write_text(path.read_text().replace(f'"{kind}"', '"OFT"'))
    with pytest.raises(CheckpointError, match="holds no adapter of LORA or CDD that can be read"):
        changes(tmp_path / "base.safetensors", tmp_path / "adapter")


def test_a_layer_takes_the_memory_of_a_few_matrices(tmp_path, monkeypatch):
    monkeypatch.setattr(_checkpoint_files, "_CHUNK_BYTES", 1 << 14)
    n = 1024
    base = np.random.default_rng(0).standard_normal((n, n)).astype("float32")
    change = checkpoints.planted("x", (n, n)).astype("float32")
    for name, tensor in (("base", base), ("tuned", base + change)):
        save_file({"w": torch.from_numpy(tensor)}, tmp_path / f"{name}.safetensors")
    tuned, before = (Checkpoint(tmp_path / f"{name}.safetensors").entry("w") for name in ("tuned", "base"))
    task = Search("w", Change(tuned, before), None, (3,), "min", 1, 0, None, keeps_vectors=True)
    task.run()  # what is imported on first use is not the layer's
    tracemalloc.start()
    try:
        fit = task.run()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert fit["rows"][0]["error"] < 1e-5
    assert peak < 3.75 * base.nbytes


# Bad files

BAD = {
    "missing in tuned": (lambda b, t: t.pop(f"{Q}.weight"), rf"base/model-\d.safetensors: {Q}.weight: .*tuned has no"),
    "missing in base": (lambda b, t: b.pop(f"{Q}.weight"), rf"tuned/model-\d.safetensors: {Q}.weight: .*base has no"),
    "shape": (lambda b, t: t.update({f"{Q}.weight": torch.ones(3, 4)}), rf"{Q}.weight has shape \(3, 4\), but .*base/"),
    "dtype": (
        lambda b, t: t.update({f"{Q}.weight": t[f"{Q}.weight"].half()}),
        rf"tuned/model-\d.safetensors: {Q}.weight has dtype float16, but .*base/model-\d.safetensors: {Q}.weight has",
    ),
    "eight bits": (
        lambda b, t: t.update({f"{Q}.weight": t[f"{Q}.weight"].to(torch.float8_e4m3fn)}),
        rf"tuned/model-\d.safetensors: {Q}.weight has dtype F8_E4M3",
    ),
    "nan": (lambda b, t: t[f"{Q}.weight"].fill_(torch.nan), rf"{Q}.weight: .*must be finite, got NaN or infinity"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_weights_are_told_by_file_and_key_or_skipped(tmp_path, whole, bad):
    change, text = BAD[bad]
    base, tuned = checkpoints.weights()
    change(base, tuned)
    sources = {name: checkpoints.write(tmp_path / name, w) for name, w in (("base", base), ("tuned", tuned))}
    with pytest.raises(CheckpointError, match=text):
        fit_checkpoint(tmp_path / "out", **sources)
    assert not (tmp_path / "out" / ADAPTER).exists()
    study = fit_checkpoint(tmp_path / "out", **sources, skip_bad=True)
    assert {name.partition(" ")[0] for name in study.failed} == {Q}
    assert (tmp_path / "out" / ADAPTER).exists()
    assert rows(study) == [row for row in rows(whole) if row["layer"] != Q]


def test_other_dtypes_on_demand(tmp_path):
    sources = checkpoints.make(tmp_path)
    checkpoints.write(sources["tuned"], {key: weight.half() for key, weight in checkpoints.weights()[1].items()})
    study = fit_checkpoint(tmp_path / "out", **sources, cast=True, targets="attn")
    assert together(study) < 1e-3
    assert not study.failed


def test_damaged_shards(tmp_path, whole):
    sources = checkpoints.make(tmp_path)
    shard = sources["tuned"] / "model-1.safetensors"
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match=r"tuned/model-1\.safetensors: model\."):
        fit_checkpoint(tmp_path / "out", **sources)
    study = fit_checkpoint(tmp_path / "out", **sources, skip_bad=True)
    assert set(study.failed) == {*NAMES[1::2], "model.embed_tokens"}
    assert rows(study) == [row for row in rows(whole) if row["layer"] not in study.failed]


def test_nothing_to_do_and_wrong_arguments(tmp_path, sources):
    with pytest.raises(ValueError, match=r"targets must match a layer, got 'nowhere'; could be fitted: model\.embed"):
        fit_checkpoint(tmp_path / "out", **sources, targets="nowhere")
    with pytest.raises(ValueError, match=r"there is nothing to do: .*attn\.q does not change"):
        fit_checkpoint(tmp_path / "out", base=sources["base"], tuned=sources["base"])
    for wrong, text in (
        ({"n_factors": 0}, "n_factors must be at least 1"),
        ({"block_size": 0}, "block_size"),
        ({"targets": "("}, "targets must be a regular expression"),
        ({"delta": "x"}, "base and tuned, or delta alone"),
    ):
        with pytest.raises(ValueError, match=text):
            fit_checkpoint(tmp_path / "new", **{**sources, **wrong})
    assert not (tmp_path / "new").exists()


# Which weights belong together, and how they are stored

N = 8


def pair(folder, base, tuned, *, kind="safetensors"):
    """Write base and tuned weights beside a config.json that names no model; return the arguments that name them."""
    for name, tensors in (("base", base), ("tuned", tuned)):
        (folder / name).mkdir(parents=True)
        copies = {key: value.clone() for key, value in tensors.items()}
        (save_file if kind == "safetensors" else torch.save)(copies, folder / name / f"model.{kind}")
        (folder / name / "config.json").write_text("{}")
    return {"base": folder / "base", "tuned": folder / "tuned"}


def changed(base, *keys):
    """Return weights of which some have a change of rank one, of many a product D C D."""
    return base | {key: base[key] + torch.outer(torch.arange(1.0, 1 + len(base[key])), base[key][0]) for key in keys}


def targets(out):
    return json.loads((out / ADAPTER / "adapter_config.json").read_text())["target_modules"]


def stack(prefix, *, transposed):
    """Weights of one layer of a model with the names of GPT-2."""
    shapes = {"attn.c_attn": (3 * N, N), "attn.c_proj": (N, N), "mlp.c_fc": (4 * N, N)}
    weights = {}
    for name, (n_out, n_in) in shapes.items():
        weights[f"{prefix}.{name}.weight"] = torch.randn((n_in, n_out) if transposed else (n_out, n_in))
        weights[f"{prefix}.{name}.bias"] = torch.zeros(n_out)
    return weights


@pytest.mark.parametrize("transposed", [True, False])
def test_biases_tell_how_weights_are_stored(tmp_path, transposed):
    """Without any config.json, and wherever in a model the layers are; squares are stored as their neighbours."""
    base = stack("decoder.transformer.h.0", transposed=transposed) | stack("encoder.h.0", transposed=not transposed)
    sources = pair(tmp_path, base, changed(base, *(key for key in base if key.endswith("weight"))))
    found = changes(**sources)
    shapes = {row.layer: (row.rows, row.cols) for row in layers(fit_checkpoint(tmp_path / "out", **sources))}
    for prefix in ("decoder.transformer.h.0", "encoder.h.0"):
        assert shapes[f"{prefix}.attn.c_attn"] == (3 * N, N)
        assert shapes[f"{prefix}.mlp.c_fc"] == (4 * N, N)
    stored = [name for name, change in found.items() if change.transposed]
    assert [name.split(".")[0] for name in stored] == ["decoder" if transposed else "encoder"] * 3


def test_modules_whose_names_end_alike_are_not_adapted_whatever_they_are(tmp_path):
    base = {"proj.weight": torch.eye(N)}
    for kind, more in {
        "convolution": {"block.proj.weight": torch.ones(N, N, 1)},
        "box": {"block.proj.0.weight": torch.ones(N, N)},
        "norm": {"block.proj.weight": torch.ones(N)},
        "unchanged": {"block.proj.weight": torch.ones(N, N)},
    }.items():
        sources = pair(tmp_path / kind, base | more, changed(base, "proj.weight") | more)
        fit_checkpoint(tmp_path / kind / "out", **sources)
        assert targets(tmp_path / kind / "out") == "proj"


@pytest.mark.parametrize("wrapped", ["base", "tuned", "both"])
@pytest.mark.parametrize("wrapper", ["_orig_mod.", "0._orig_mod.", "_fsdp_wrapped_module."])
def test_names_of_wrappers_are_no_part_of_paths(tmp_path, wrapper, wrapped):
    base = {"0.up.weight": torch.eye(N), "0.down.weight": torch.eye(N)}
    tuned = changed(base, "0.up.weight")
    wrap = lambda tensors: {
        re.sub("^0[.]" if wrapper[0] == "0" else "^", wrapper, key): w for key, w in tensors.items()
    }
    base, tuned = (wrap(t) if wrapped in {name, "both"} else t for name, t in (("base", base), ("tuned", tuned)))
    study = fit_checkpoint(tmp_path / "out", **pair(tmp_path, base, tuned, kind="bin"))
    assert targets(tmp_path / "out") == ["0.up"]
    assert together(study) < 1e-6


@pytest.mark.parametrize("tied", [("base", "tuned"), ("base",), ("tuned",), ()])
def test_a_layer_tied_to_an_embedding_is_left_out_in_all_kinds_of_files(tmp_path, tied):
    """PyTorch's files hold it twice, those of safetensors once; an adapter of it would not change the embedding."""
    base = {"model.embed_tokens.weight": torch.randn(20, N), "model.up.weight": torch.eye(N)}
    tuned = changed(base, "model.embed_tokens.weight", "model.up.weight")
    base, tuned = (
        tensors | ({"lm_head.weight": tensors["model.embed_tokens.weight"]} if name in tied else {})
        for name, tensors in (("base", base), ("tuned", tuned))
    )
    study = fit_checkpoint(tmp_path / "out", **pair(tmp_path, base, tuned, kind="bin"))
    assert [layer.layer for layer in layers(study)] == ["model.up"]
    assert "model.embed_tokens.weight" in tuned_too(study)


def test_who_names_a_tied_layer_gets_it_and_a_head_that_is_not_tied_is_fitted(tmp_path):
    table = torch.randn(20, N)
    base = {"embed.weight": table, "lm_head.weight": table}
    sources = pair(tmp_path / "tied", base, changed(base, *base), kind="bin")
    assert [row.layer for row in layers(fit_checkpoint(tmp_path / "a", **sources, targets="lm_head"))] == ["lm_head"]
    base = {"embed.weight": table, "lm_head.weight": torch.randn(20, N)}
    sources = pair(tmp_path / "free", base, changed(base, "lm_head.weight"))
    assert [row.layer for row in layers(fit_checkpoint(tmp_path / "b", **sources))] == ["lm_head"]


def test_a_new_layer_is_not_paired_with_the_base_of_another(tmp_path):
    base, tuned = checkpoints.weights()
    tuned[f"aux.{NAMES[0]}.weight"] = torch.ones(checkpoints.N, checkpoints.N)
    sources = {name: checkpoints.write(tmp_path / name, w) for name, w in (("base", base), ("tuned", tuned))}
    with pytest.raises(CheckpointError, match=rf"aux\.{NAMES[0]}\.weight: .*base has no such weight"):
        fit_checkpoint(tmp_path / "out", **sources, targets=NAMES[0])
    study = fit_checkpoint(tmp_path / "out", **sources, targets=NAMES[0], skip_bad=True)
    assert [layer.layer for layer in layers(study)] == [NAMES[0]]


def test_two_changes_of_one_layer_are_told(tmp_path):
    changes = {"x": torch.ones(4, 4), "x.weight": torch.eye(4), "y": torch.eye(4)}
    save_file(changes, tmp_path / "d.safetensors")
    with pytest.raises(CheckpointError, match=r"x\.weight and .*x are both the change of x"):
        fit_checkpoint(tmp_path / "out", delta=tmp_path / "d.safetensors")
    study = fit_checkpoint(tmp_path / "out", delta=tmp_path / "d.safetensors", skip_bad=True)
    assert ([layer.layer for layer in layers(study)], [*study.failed]) == (["y"], ["x"])
