"""Small checkpoints with planted changes, and what a fit of them gives."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import torch
from safetensors.torch import save_file

import structmat as sm

N, LAYERS = 16, 3
KINDS = {"attn.q": (N, N), "mlp.up": (2 * N, N), "mlp.down": (N, 2 * N)}


def planted(name: str, shape: tuple[int, int]) -> np.ndarray:
    """A product D C D, by the name of the layer."""
    rng = np.random.default_rng([len(name), *name.encode()])
    rows, cols = shape
    b = min(shape)
    vectors = (rng.uniform(0.5, 1.5, rows), rng.standard_normal((rows // b, cols // b, b)), rng.uniform(0.5, 1.5, cols))
    return sm.CDDProduct.from_vectors(*vectors, block=True).to_dense()


def names() -> dict[str, tuple[int, int]]:
    return {f"model.layers.{k}.{kind}": shape for k in range(LAYERS) for kind, shape in KINDS.items()}


def weights(dtype: str = "float32") -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Base and tuned weights: planted changes in all layers but one, which does not change, and in a norm."""
    generator = torch.Generator().manual_seed(0)
    base = {f"{name}.weight": torch.randn(shape, generator=generator) for name, shape in names().items()}
    base["model.embed_tokens.weight"] = torch.randn(20, N, generator=generator)
    base["model.norm.weight"] = torch.ones(N)
    base = {name: weight.to(getattr(torch, dtype)) for name, weight in base.items()}
    tuned = {name: weight.clone() for name, weight in base.items()}
    for name, shape in list(names().items())[:-1]:
        key = f"{name}.weight"
        tuned[key] = (base[key].double() + torch.from_numpy(planted(name, shape))).to(base[key].dtype)
    tuned["model.norm.weight"] = tuned["model.norm.weight"] * 2
    return base, tuned


def write(folder, tensors, *, shards=2, kind="safetensors"):
    """Write a sharded checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    save = save_file if kind == "safetensors" else torch.save
    index = {}
    for k in range(shards):
        part = dict(list(tensors.items())[k::shards])
        save(part, folder / f"model-{k}.{kind}")
        index |= dict.fromkeys(part, f"model-{k}.{kind}")
    (folder / f"model.{kind}.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def make(folder, dtype="float32", **options):
    """Write base and tuned; return the arguments that name them."""
    base, tuned = weights(dtype)
    return {"base": write(folder / "base", base, **options), "tuned": write(folder / "tuned", tuned, **options)}


def layers(study):
    """Return the rows of the layers, each with the error of the truncated SVD beside it."""
    fits = [row for row in study.rows if row["method"] == "cdd"]
    svds = {row["layer"]: row for row in study.rows if row["method"] == "truncated-svd"}
    assert [fit["layer"] for fit in fits] == [*svds]
    return [
        SimpleNamespace(**fit, svd_error=svds[fit["layer"]]["error"], svd_parameters=svds[fit["layer"]]["n_parameters"])
        for fit in fits
    ]


def rows(study):
    """Return the rows without the times, which differ between equal studies."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in study.rows]


def adapter(out):
    """Return the files of an adapter."""
    return [(out / name).read_bytes() for name in ("adapter_model.safetensors", "adapter_config.json")]


def settings(out):
    """Return the first line of the table of a run."""
    return json.loads((out / "results.jsonl").read_text().splitlines()[0])["settings"]
