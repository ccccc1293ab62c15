"""Small checkpoints with planted changes, which need torch."""

from __future__ import annotations

import inspect
import json

import numpy as np
import torch
from safetensors.torch import save_file

import structmat as sm
from structmat.studies import changes, sweep

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


def fit_checkpoint(out, *, n_factors=3, block_size="min", rng=0, **options):
    """Fit the changes of a checkpoint by one number of factors, and write an adapter into `ADAPTER` of the folder."""
    find = {name: options.pop(name) for name in [*options] if name in inspect.signature(changes).parameters}
    sizes = {"n_factors": [n_factors], "block_sizes": [block_size], "methods": ["cdd", "truncated-svd"]}
    return sweep(changes(**find), out, **sizes, rng=rng, write_adapters=True, **options)


ADAPTER = "adapter-3"


def tuned_too(study):
    """Return the names of the weights that were tuned, but are in no adapter."""
    found = [text.partition(" was tuned too")[::2] for text in study.left_out]
    return {name for name, rest in found if rest}


def together(study, method="cdd"):
    """Return the error of all layers together."""
    means = study.means()
    return float(means[means["method"] == method]["together"].iloc[0])
