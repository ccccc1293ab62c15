"""Runs the programs of the guide, each in a process of its own, on tiny models."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "guide" / "tools.md"
LOGGED = "[row['loss'] for row in trainer.state.log_history if 'loss' in row]"
"""Losses of a trainer of transformers."""
TOKENS = ["[PAD]", "[UNK]", "[BOS]", "[EOS]", *"abcdefghijklmnopqrstuvwxyz "]


def programs(heading: str) -> list[str]:
    """Return the programs below a heading."""
    (section,) = re.findall(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    return re.findall(r"^```py\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def run(program: str, folder: Path, wanted: str) -> Any:
    """Run a program in a folder by a new process; return the value of an expression at its end."""
    code = f"{program}\nimport torch\ntorch.save({wanted}, 'wanted.pt')\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return torch.load(folder / "wanted.pt")


def check(heading: str, folder: Path, outputs: str, losses: str, base: Any) -> None:
    """Check both programs of a section."""
    check_programs(*programs(heading), folder, outputs, losses, base)


def check_programs(
    first: str, second: str, folder: Path, outputs: str, losses: str, base: Any, atol: float = 1e-4
) -> None:
    """Run two programs: the first one learns, and the second one's model does the same."""
    found, expected = run(first, folder, f"({losses}, (model.eval(), {outputs})[1])")
    assert sum(found[-3:]) < sum(found[:3]), f"nothing learnt: {found}"
    loaded = run(second, folder, f"(model.eval(), {outputs})[1]")
    torch.testing.assert_close(loaded, expected, atol=atol, rtol=1e-4)
    assert not torch.allclose(loaded, base, atol=10 * atol)


def _tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {token: i for i, token in enumerate(TOKENS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=TOKENS[1]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    ends = [("[BOS]", vocabulary["[BOS]"]), ("[EOS]", vocabulary["[EOS]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[BOS] $A [EOS]", special_tokens=ends)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)


SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def write_base(folder: Path, **settings: Any) -> None:
    """Write a causal language model."""
    torch.manual_seed(0)
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    usual = {**SIZES, **ids, "vocab_size": len(TOKENS), "num_key_value_heads": 1}
    config = transformers.LlamaConfig(**{**usual, **settings})
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "base")
    _tokenizer(folder / "base")


def write_encoder(folder: Path) -> None:
    """Write a sentence encoder."""
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(**SIZES, vocab_size=len(TOKENS))).save_pretrained(folder / "encoder")
    _tokenizer(folder / "encoder")


def causal_outputs(folder: Path) -> dict[str, Any]:
    """Return how to get the outputs of a causal language model, and those of the base."""
    outputs = "model(input_ids=torch.arange(4, 12)[None]).logits.detach()"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "base").eval()
    return {"outputs": outputs, "base": eval(outputs, {"model": model, "torch": torch})}  # noqa: S307 - our own
