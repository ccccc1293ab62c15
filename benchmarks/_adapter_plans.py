"""How each variant that `adapter_variants.py` compares prepares the encoder, and what it changes in the training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import mean
from typing import Any

import torch
from _adapter_changes import Folded, LowRank, Products, wrap
from torch import nn
from torch.nn.functional import cross_entropy

from finetune.data import Rows, batches
from finetune.encoder import Classifier
from structmat.torch import CDDAdapter

__all__ = ["BASELINE", "OPTIMISERS", "VARIANTS"]

BASELINE = "D C D"

Prepare = Callable[[Classifier, Rows], list[Folded]]


def products(letters: str = "qv", blocks: Iterable[int] = range(100), **options) -> Prepare:
    """Adapt by products, in layers of these letters in these blocks."""
    return lambda model, _: wrap(
        model.encoder, letters, lambda base, _: Products(base.out_features, base.in_features, **options), blocks
    )


def multiplied(letters: str, **options) -> Prepare:
    """Change weights by W (I + D C D), or (I + D C D) W where that is smaller."""

    def make(base: nn.Linear, _: str) -> Products:
        m, n = base.out_features, base.in_features
        return Products(min(m, n), min(m, n), side="right" if n <= m else "left", **options)

    return lambda model, _: wrap(model.encoder, letters, make)


def low_rank(letters: str, rank: int) -> Prepare:
    return lambda model, _: wrap(
        model.encoder, letters, lambda base, _: LowRank(base.out_features, base.in_features, rank)
    )


def each(prepare: Prepare, change: Callable[[Folded], None]) -> Prepare:
    """Change every layer that was adapted."""

    def prepared(model: Classifier, rows: Rows) -> list[Folded]:
        layers = prepare(model, rows)
        for layer in layers:
            change(layer)
        return layers

    return prepared


def with_biases(prepare: Prepare) -> Prepare:
    """Train the biases of the adapted layers too, at a tenth of the rate."""

    def add(layer: Folded) -> None:
        layer.bias = nn.Parameter(torch.zeros_like(layer.base.bias))

    return each(prepare, add)


def with_dropout(prepare: Prepare, share: float) -> Prepare:
    """Set a share of the inputs of each change to zero in training."""

    def drop(layer: Folded) -> None:
        layer.dropout = share

    return each(prepare, drop)


def by_block(prepare: Prepare, ratio: float) -> Prepare:
    """Multiply the rates by a ratio from each block to the next, and keep their geometric mean."""

    def prepared(model: Classifier, rows: Rows) -> list[Folded]:
        layers = prepare(model, rows)
        blocks = [int(block(name)) for name in _names(model)]
        for layer, number in zip(layers, blocks, strict=True):
            factor = ratio ** (number - mean(blocks))
            layer.change.rates = [factor * rate for rate in layer.change.rates]
        return layers

    return prepared


def by_columns(prepare: Prepare, power: float) -> Prepare:
    """Multiply the rates of layers with more columns than rows by a power of their ratio."""

    def change(layer: Folded) -> None:
        ratio = max(1, layer.base.in_features / layer.base.out_features)
        layer.change.rates = [ratio**power * rate for rate in layer.change.rates]

    return each(prepare, change)


def block(name: str) -> str:
    """Return the number of a layer's block."""
    return name.split(".")[2]


def kind(name: str) -> str:
    """Return what is left of a layer's name without that of its block."""
    return name.split(".", 3)[3]


def by_input(name: str) -> str:
    """Return which input a layer has: query, key and value of a block have the same."""
    return f"{block(name)} {'attention' if '.self.' in name else kind(name)}"


def shared(prepare: Prepare, *factors: int, by: Callable[[str], str] = kind) -> Prepare:
    """Let all layers of a kind, or of a block, share these factors."""

    def prepared(model: Classifier, rows: Rows) -> list[Folded]:
        owners: dict[str, Folded] = {}
        layers = prepare(model, rows)
        for name, layer in zip(_names(model), layers, strict=True):
            owner = owners.setdefault(by(name), layer)
            for factor in factors:
                layer.change.factors[factor] = owner.change.factors[factor]
        return layers

    return prepared


def _names(model: Classifier) -> list[str]:
    """Return the names of the adapted layers."""
    return [name for name, module in model.encoder.named_modules() if isinstance(module, Folded)]


def from_gradient(letters: str = "qv", n_batches: int = 4) -> Prepare:
    """Start with the factors nearest to the gradient of four batches."""

    def prepared(model: Classifier, rows: Rows) -> list[Folded]:
        weights = [p for name, p in model.encoder.named_parameters() if name.endswith(".weight") and p.ndim == 2]
        for weight in weights:
            weight.requires_grad_(requires_grad=True)
        model.eval()
        drawn = batches(rows, 32, torch.Generator().manual_seed(5))
        for (tokens, index), _ in zip(drawn, range(n_batches), strict=False):
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(tokens)
            cross_entropy(logits.float(), rows.labels[index]).backward()

        def make(base: nn.Linear, _: str) -> Products:
            options = {"init": "gradient", "gradient": base.weight.grad}
            vectors = CDDAdapter(base.in_features, base.out_features, **options).factors
            return Products(base.out_features, base.in_features, start=[v.detach().clone() for v in vectors])

        layers = wrap(model.encoder, letters, make)
        model.zero_grad()
        model.encoder.requires_grad_(requires_grad=False)
        for layer in layers:
            layer.change.requires_grad_(requires_grad=True)
        return layers

    return prepared


def with_trained_head(prepare: Prepare, steps: int = 15) -> Prepare:
    """Train the head on the encoder's own embeddings first; with many steps it learns the rows by heart."""

    def prepared(model: Classifier, rows: Rows) -> list[Folded]:
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = model.embed_all(rows, torch.device("cpu"), lambda _: None).float()
        optimizer = torch.optim.AdamW(model.head.parameters(), lr=0.01)
        generator = torch.Generator().manual_seed(6)
        for _ in range(steps):
            index = torch.randint(0, len(rows), (64,), generator=generator)
            loss = cross_entropy(model.head(embeddings[index]), rows.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        optimizer.zero_grad()
        return prepare(model, rows)

    return prepared


VARIANTS: dict[str, Prepare] = {
    BASELINE: products(),
    "LoRA r = 8": low_rank("qv", 8),
    "LoRA r = 1, intermediate": low_rank("i", 1),
    "LoRA r = 2, intermediate": low_rank("i", 2),
    "LoRA r = 8, intermediate": low_rank("i", 8),
    "LoRA r = 8, all linear layers": low_rank("qkvoif", 8),
    "rate of the first diagonal x 3": products(rates=(3, 1, 1)),
    "rate of the circulant x 3": products(rates=(1, 3, 1)),
    "rates of circulant and last diagonal x 0.3": products(rates=(1, 0.3, 0.3)),
    "rate of the last diagonal x 0.3": products(rates=(1, 1, 0.3)),
    "start from the gradient": from_gradient(),
    "start from the gradient, head trained before": with_trained_head(from_gradient()),
    "head trained before": with_trained_head(products()),
    "start with a zero circulant": products(zero=1),
    "start with ones as diagonals": products(ones=(0, 2)),
    "spectra trained": products(spectral=True),
    "five factors": products(factors=5),
    "sum of two products": products(terms=2),
    "blocks of 128": products(block=128),
    "W (I + D C D)": products(side="right"),
    "random permutations": products(permuted=True),
    "alpha = 0.3": products(alpha=0.3),
    "alpha = 0.5": products(alpha=0.5),
    "alpha = 2": products(alpha=2),
    "alpha = 4": products(alpha=4),
    "normalised factors": products(normalised=True),
    "five factors, alpha = 0.7": products(factors=5, alpha=0.7),
    "five factors, zero circulant": products(factors=5, zero=1),
    "five factors, zero middle": products(factors=5, zero=2),
    "five factors, rank two at first": products(factors=5, zero=1, begin="rank two"),
    "five factors, D C D at first": products(factors=5, begin="one product"),
    "dropout 0.05": with_dropout(products(), 0.05),
    "dropout 0.1": with_dropout(products(), 0.1),
    "rates x 0.8 from block to block": by_block(products(), 0.8),
    "rates x 1.25 from block to block": by_block(products(), 1.25),
    "circulant shared by query and value": shared(products(), 1, by=block),
    "circulant shared by all blocks": shared(products(), 1),
    "biases too": with_biases(products()),
    "value": products("v"),
    "value and attention output": products("vo"),
    "intermediate": products("i"),
    "intermediate, alpha = 0.3": products("i", alpha=0.3),
    "intermediate, first four blocks": products("i", range(4)),
    "intermediate, last four blocks": products("i", range(2, 6)),
    "intermediate, shared circulant": shared(products("i"), 1),
    "intermediate, shared last diagonal": shared(products("i"), 2),
    "intermediate, shared first diagonal": shared(products("i"), 0),
    "intermediate, both diagonals shared": shared(products("i"), 0, 2),
    "intermediate, circulant and last diagonal shared": shared(products("i"), 1, 2),
    "intermediate, everything shared": shared(products("i"), 0, 1, 2),
    "intermediate, W (I + D C D)": multiplied("i"),
    "intermediate, W (I + sum of two products)": multiplied("i", terms=2),
    "value and intermediate, W (I + D C D)": multiplied("vi"),
    "query, key, value and intermediate, W (I + D C D)": multiplied("qkvi"),
    "inputs of attention, W (I + D C D)": shared(multiplied("qkv"), 0, 1, 2, by=by_input),
    "inputs of attention and intermediate, W (I + D C D)": shared(multiplied("qkvi"), 0, 1, 2, by=by_input),
    "inputs of attention and intermediate, W (I + D C D C D)": shared(
        multiplied("qkvi", factors=5), 0, 1, 2, 3, 4, by=by_input
    ),
    "output": products("f"),
    "output, last four blocks": products("f", range(2, 6)),
    "intermediate and output": products("if"),
    "intermediate and output, W (I + D C D) or (I + D C D) W": multiplied("if"),
    "all linear layers": products("qkvoif"),
    "all linear layers but output": products("qkvoi"),
    "all linear layers, zero circulants": products("qkvoif", zero=1),
    "all linear layers, half the rates in output": by_columns(products("qkvoif"), -0.5),
    "all linear layers, last block": products("qkvoif", [5]),
    "all linear layers, shared circulants": shared(products("qkvoif"), 1),
    "all linear layers, W (I + D C D) or (I + D C D) W": multiplied("qkvoif"),
}
"""Of query and value unless other layers are named."""

OPTIMISERS: dict[str, dict[str, Any]] = {
    "warm-up over 20 % of the steps": {"warmup": 0.2},
    "second moments over 50 steps": {"betas": (0.9, 0.98)},
    "weight decay 0.01": {"weight_decay": 0.01},
    "weight decay 0.3": {"weight_decay": 0.3},
    "no clipping": {"clipped": "none"},
    "clipping of the adapter alone": {"clipped": "adapter"},
}
"""What differs from `train`, with the baseline's products."""
VARIANTS |= dict.fromkeys(OPTIMISERS, products())
