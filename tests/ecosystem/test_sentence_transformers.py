"""Trainer of sentence-transformers."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("sentence_transformers")

import torch

from tests.ecosystem.programs import LOGGED, check

TOOLS = ("sentence-transformers",)


def test_the_program_of_the_guide(encoder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    plain = torch.tensor(SentenceTransformer(str(encoder / "encoder"), device="cpu").encode(["a fox"]))
    outputs = "torch.tensor(model.encode(['a fox']))"
    check("sentence-transformers", encoder, outputs, LOGGED, plain)
