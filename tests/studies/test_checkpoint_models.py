"""`fit_checkpoint`: which modules of a model the weights of files belong to, and how they are stored there."""

from __future__ import annotations

import json
import re

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file

from structmat.io import CheckpointError
from structmat.studies import MatrixSource, SweepConfig, fit_checkpoint, sweep

N = 8
FAST = {"methods": ["truncated-svd"]}


def pair(folder, base, tuned, *, kind="safetensors"):
    """Write base and tuned weights; return the arguments that name them."""
    save = save_file if kind == "safetensors" else torch.save
    for name, tensors in (("base", base), ("tuned", tuned)):
        save({key: value.clone() for key, value in tensors.items()}, folder / f"{name}.{kind}")
    return {"base": folder / f"base.{kind}", "tuned": folder / f"tuned.{kind}"}


def changed(base, *keys):
    """Return weights of which some have a change of rank one, of many a product D C D."""
    return base | {key: base[key] + torch.outer(torch.arange(1.0, 1 + len(base[key])), base[key][0]) for key in keys}


def targets(fit):
    return json.loads((fit.folder / "adapter_config.json").read_text())["target_modules"]


def stack(prefix, *, transposed, bias=True):
    """Weights of one layer of a model with the names of GPT-2."""
    shapes = {"attn.c_attn": (3 * N, N), "attn.c_proj": (N, N), "mlp.c_fc": (4 * N, N)}
    generator = torch.Generator().manual_seed(1)
    weights = {}
    for name, (rows, cols) in shapes.items():
        shape = (cols, rows) if transposed else (rows, cols)
        weights[f"{prefix}.{name}.weight"] = torch.randn(shape, generator=generator)
        if bias:
            weights[f"{prefix}.{name}.bias"] = torch.zeros(rows)
    return weights


@pytest.mark.parametrize("transposed", [True, False])
def test_biases_tell_how_weights_are_stored(tmp_path, transposed):
    """Without any config.json, and wherever in a model the layers are; squares are stored as their neighbours."""
    base = stack("decoder.transformer.h.0", transposed=transposed) | stack("encoder.h.0", transposed=not transposed)
    keys = [key for key in base if key.endswith("weight")]
    fit = fit_checkpoint(tmp_path / "out", **pair(tmp_path, base, changed(base, *keys)))
    shapes = {layer.name: (layer.rows, layer.cols) for layer in fit.layers}
    for prefix in ("decoder.transformer.h.0", "encoder.h.0"):
        assert shapes[f"{prefix}.attn.c_attn"] == (3 * N, N)
        assert shapes[f"{prefix}.mlp.c_fc"] == (4 * N, N)
    stored = json.loads((fit.folder / "work" / "settings.json").read_text())["stored_by_inputs"]
    assert {name.split(".")[0] for name in stored} == {"decoder" if transposed else "encoder"}
    assert len(stored) == 3


@pytest.mark.parametrize("where", ["base", "tuned", "part", "none"])
def test_without_a_bias_the_kind_of_the_model_decides(tmp_path, where):
    base = stack("h.0", transposed=where != "none", bias=False)
    sources = {name: tmp_path / name for name in ("base", "tuned")}
    for name, tensors in (("base", base), ("tuned", changed(base, "h.0.attn.c_attn.weight"))):
        sources[name].mkdir()
        save_file(tensors, sources[name] / "model.safetensors")
        kind = {"model_type": "gpt2"} if where == name else {"model_type": "llama"}
        if where == "part":
            kind = {"model_type": "vision-encoder-decoder", "decoder": {"model_type": "gpt2"}, "encoder": {}}
        (sources[name] / "config.json").write_text(json.dumps(kind))
    fit = fit_checkpoint(tmp_path / "out", **sources, targets="c_attn")
    assert [(layer.rows, layer.cols) for layer in fit.layers] == [(3 * N, N)]


def test_modules_whose_names_end_alike_are_not_adapted_whatever_they_are(tmp_path):
    base = {"proj.weight": torch.eye(N)}
    for kind, more in {
        "convolution": {"block.proj.weight": torch.ones(N, N, 1)},
        "box": {"block.proj.0.weight": torch.ones(N, N)},
        "norm": {"block.proj.weight": torch.ones(N)},
    }.items():
        folder = tmp_path / kind
        folder.mkdir()
        fit = fit_checkpoint(folder / "out", **pair(folder, base | more, changed(base, "proj.weight") | more))
        assert targets(fit) == "proj"
    save_file({"proj.weight": torch.ones(N, N)}, tmp_path / "delta.safetensors")
    assert targets(fit_checkpoint(tmp_path / "out", delta=tmp_path / "delta.safetensors")) == "proj"


@pytest.mark.parametrize("wrapped", ["base", "tuned", "both"])
@pytest.mark.parametrize("wrapper", ["_orig_mod.", "0._orig_mod.", "_fsdp_wrapped_module."])
def test_names_of_wrappers_are_no_part_of_paths(tmp_path, wrapper, wrapped):
    base = {"0.up.weight": torch.eye(N), "0.down.weight": torch.eye(N)}
    tuned = changed(base, "0.up.weight")
    wrap = lambda tensors: {
        re.sub("^0[.]" if wrapper[0] == "0" else "^", wrapper, key): w for key, w in tensors.items()
    }
    base, tuned = (wrap(t) if wrapped in {name, "both"} else t for name, t in (("base", base), ("tuned", tuned)))
    fit = fit_checkpoint(tmp_path / "out", **pair(tmp_path, base, tuned, kind="bin"))
    assert targets(fit) == ["0.up"]
    assert fit.error < 1e-6


@pytest.mark.parametrize("tied", [("base", "tuned"), ("base",), ("tuned",), ()])
def test_a_layer_tied_to_an_embedding_is_left_out_in_all_kinds_of_files(tmp_path, tied):
    """PyTorch's files hold it twice, those of safetensors once; an adapter of it would not change the embedding."""
    base = {"model.embed_tokens.weight": torch.randn(20, N), "model.up.weight": torch.eye(N)}
    tuned = changed(base, "model.embed_tokens.weight", "model.up.weight")
    both = {
        name: tensors | ({"lm_head.weight": tensors["model.embed_tokens.weight"]} if name in tied else {})
        for name, tensors in (("base", base), ("tuned", tuned))
    }
    sources = pair(tmp_path, *both.values(), kind="bin")
    fit = fit_checkpoint(tmp_path / "out", **sources)
    assert [layer.name for layer in fit.layers] == ["model.up"]
    assert "model.embed_tokens.weight" in fit.left_out
    same = {name: {**tensors, "model.up.weight": base["model.up.weight"]} for name, tensors in both.items()}
    sources = pair(tmp_path, *same.values(), kind="bin")
    with pytest.raises(CheckpointError, match=r"no weight that matches has changed; .*model\.embed_tokens\.weight"):
        fit_checkpoint(tmp_path / "none", **sources)


def test_zeros_are_not_tied_and_who_names_a_tied_layer_gets_it(tmp_path):
    base = {"wpe.weight": torch.zeros(N, N), "up.weight": torch.randn(N, N)}
    fit = fit_checkpoint(tmp_path / "zeros", **pair(tmp_path, base, base | {"up.weight": torch.zeros(N, N)}))
    assert [layer.name for layer in fit.layers] == ["up"]
    table = torch.randn(20, N)
    base = {"embed.weight": table, "lm_head.weight": table}
    sources = pair(tmp_path, base, changed(base, *base), kind="bin")
    fit = fit_checkpoint(tmp_path / "named", **sources, targets="lm_head")
    assert [layer.name for layer in fit.layers] == ["lm_head"]


def test_the_damaged_base_of_a_tied_head_is_named(tmp_path):
    """Whether the head has changed cannot be told then."""
    base = {"embed_tokens.weight": torch.randn(20, N), "up.weight": torch.eye(N)}
    tuned = changed(base, "up.weight")
    sources = pair(tmp_path, base, tuned | {"lm_head.weight": tuned["embed_tokens.weight"]}, kind="bin")
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(base, folder / "model-00001-of-00002.safetensors")
    files = dict.fromkeys(base, "model-00001-of-00002.safetensors")
    files["lm_head.weight"] = "model-00002-of-00002.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    sources["base"] = folder
    with pytest.raises(CheckpointError, match=r"lm_head\.weight: the index names this file"):
        fit_checkpoint(tmp_path / "out", **sources)
    fit = fit_checkpoint(tmp_path / "out", **sources, skip_bad=True)
    assert [layer.name for layer in fit.layers] == ["up"]
    assert "lm_head" in fit.skipped


def test_a_head_that_is_not_tied_is_fitted(tmp_path):
    base = {"embed_tokens.weight": torch.randn(20, N), "lm_head.weight": torch.randn(20, N)}
    fit = fit_checkpoint(tmp_path / "out", **pair(tmp_path, base, changed(base, "lm_head.weight")))
    assert [layer.name for layer in fit.layers] == ["lm_head"]


def test_attention_with_one_weight_for_all_is_no_linear_layer(tmp_path):
    tensors = {}
    for name in ("attn", "attn.base_layer.out_proj", "mlp"):
        tensors |= {f"base_model.model.{name}.lora_{side}.weight": torch.ones(4, 4) for side in "AB"}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    with pytest.raises(CheckpointError, match=r"attn\S* is of a layer of attention with one weight for all"):
        fit_checkpoint(tmp_path / "out", lora=tmp_path)
    fit = fit_checkpoint(tmp_path / "out", lora=tmp_path, skip_bad=True)
    assert [layer.name for layer in fit.layers] == ["mlp"]


def test_targets_are_found_in_paths_without_their_ending(tmp_path):
    base = {"l.0.query.weight": torch.eye(N), "l.0.key.weight": torch.eye(N)}
    sources = pair(tmp_path, base, changed(base, *base))
    for i, (expression, names) in enumerate(
        {r"query$": ["l.0.query"], r"[^y]$": [], r"(?<!query)$": ["l.0.key"]}.items()
    ):
        if names:
            fit = fit_checkpoint(tmp_path / str(i), **sources, targets=expression)
            assert [layer.name for layer in fit.layers] == names
            config = SweepConfig([MatrixSource(**{k: str(v) for k, v in sources.items()}, targets=expression)], **FAST)
            assert {row.layer for row in sweep(config, tmp_path / f"sweep{i}").rows} == set(names)
        else:
            with pytest.raises(ValueError, match="must match a layer"):
                fit_checkpoint(tmp_path / str(i), **sources, targets=expression)


def test_wrappers_of_changes_and_of_lora(tmp_path):
    save_file({"base_model.model._orig_mod.0.up.weight": torch.ones(N, N)}, tmp_path / "delta.safetensors")
    assert targets(fit_checkpoint(tmp_path / "out", delta=tmp_path / "delta.safetensors")) == r"0\.up"
    sides = {f"base_model.model._orig_mod.up.lora_{side}.weight": torch.ones(N, N) for side in "AB"}
    save_file(sides, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": N}))
    assert targets(fit_checkpoint(tmp_path / "lora", lora=tmp_path)) == "up"


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_squares_say_nothing_and_the_kind_of_the_model_decides(tmp_path, kind):
    """The bias of a square is as long as both of its sides."""
    base = {"h.0.attn.c_proj.weight": torch.randn(N, N), "h.0.attn.c_proj.bias": torch.zeros(N)}
    sources = {name: tmp_path / name for name in ("base", "tuned")}
    for name, tensors in (("base", base), ("tuned", changed(base, "h.0.attn.c_proj.weight"))):
        sources[name].mkdir()
        save_file(tensors, sources[name] / "model.safetensors")
        (sources[name] / "config.json").write_text(json.dumps({"model_type": kind}))
    fit = fit_checkpoint(tmp_path / "out", **sources)
    stored = json.loads((fit.folder / "work" / "settings.json").read_text())["stored_by_inputs"]
    assert stored == (["h.0.attn.c_proj"] if kind == "gpt2" else [])
