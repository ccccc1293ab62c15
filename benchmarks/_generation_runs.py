"""The runs of `generation.py`: the base, what is adapted in it, and the score of the answers that it generates."""

from __future__ import annotations

import hashlib
import math
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from _common import processor
from _fair_plan import RUN, Case, Protocol
from _fair_runs import Bench, Table
from _generation_plan import RATES
from _generation_texts import CHARACTERS, END, Text, dates, in_german, mixture
from peft import IA3Config
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from finetune.methods import METHODS, PLACES, Method, Plan, Prepared, prepare_peft
from finetune.train import rising_then_falling
from structmat._adapter_format import FACTOR_SCALE

COLUMNS = (
    *RUN, "rows", "epochs", "tested", "parameters", "exact", "character_error", "seconds", "file_bytes", "base",
    "machine",
)  # fmt: skip
"""`seconds` are the processor's, of training and answers; `base` begins the checksum of the frozen weights."""

PLACES |= {
    "decoder": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "decoder-ia3": ("k_proj", "v_proj", "down_proj"),
}

IGNORED = -100
"""The label of characters that a model need not predict: those of prompts, and what fills short rows."""


def ia3(decoder: nn.Module, plan: Plan) -> Prepared:
    """Adapt by scales of keys, values and the inputs of the last layers of the feed-forward networks."""
    config = IA3Config(target_modules=plan.targets, feedforward_modules=["down_proj"])
    return prepare_peft(decoder, config, plan.lr)


METHODS |= {"ia3": Method(ia3, 0.03, (0.01, 0.03, 0.1), "IA3")}


@dataclass(frozen=True)
class Base:
    """A decoder, and how it is trained before it is adapted."""

    width: int = 144
    inner: int = 288
    layers: int = 4
    heads: int = 4
    length: int = 128
    """Characters in a row, which holds several texts."""
    batch: int = 16
    steps: int = 600
    lr: float = 2e-3
    seed: int = 0

    def built(self) -> LlamaForCausalLM:
        """Return the decoder before its training."""
        torch.manual_seed(self.seed)
        config = LlamaConfig(
            vocab_size=len(CHARACTERS),
            hidden_size=self.width,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=CHARACTERS.index(END),
            pad_token_id=CHARACTERS.index(END),
        )
        return LlamaForCausalLM(config)

    def rows(self) -> tuple[Tensor, Tensor]:
        """Return characters and labels of all rows, one text after another."""
        needed = self.steps * self.batch * self.length
        tokens: list[int] = []
        labels: list[int] = []
        for text in mixture(needed // 16, self.seed):  # every text would have to be shorter for these not to suffice
            more = encoded(text)
            tokens += more[0][1:]  # it begins with the end of the text before it
            labels += more[1][1:]
            if len(tokens) >= needed:
                break
        shape = self.steps * self.batch, self.length
        return torch.tensor(tokens[:needed]).reshape(shape), torch.tensor(labels[:needed]).reshape(shape)

    def trained(self, folder: Path) -> Path:
        """Return the file of the trained weights, which is made if the folder has none of these texts and settings."""
        tokens, labels = self.rows()
        digest = hashlib.sha256(repr(self).encode() + tokens.numpy().tobytes() + labels.numpy().tobytes())
        path = folder / f"base-{digest.hexdigest()[:12]}.safetensors"
        if not path.exists():
            model = self.built()
            batches = list(zip(tokens.split(self.batch), labels.split(self.batch), strict=True))
            fit(model, [{"params": list(model.parameters()), "lr": self.lr}], batches, every=100)
            folder.mkdir(parents=True, exist_ok=True)
            begun = path.with_suffix(f".{os.getpid()}")
            save_file({name: p.detach() for name, p in model.named_parameters()}, begun)
            begun.replace(path)
        return path


def encoded(text: Text) -> tuple[list[int], list[int]]:
    """Return the characters of a text between two ends, and the labels: of the answer and the end after it."""
    tokens = [CHARACTERS.index(c) for c in f"{END}{text.prompt}{text.answer}{END}"]
    given = 1 + len(text.prompt)
    return tokens, [IGNORED] * given + tokens[given:]


def padded(texts: list[Text]) -> tuple[Tensor, Tensor]:
    """Return the characters and labels of texts that each begin a row."""
    pairs = [encoded(text) for text in texts]
    length = max(len(tokens) for tokens, _ in pairs)
    end = CHARACTERS.index(END)
    tokens = torch.tensor([tokens + [end] * (length - len(tokens)) for tokens, _ in pairs])
    return tokens, torch.tensor([labels + [IGNORED] * (length - len(labels)) for _, labels in pairs])


def fit(model: nn.Module, groups: list[dict], batches: list[tuple[Tensor, Tensor]], every: int = 0) -> bool:
    """Train by AdamW with rates that rise and fall; stop where the loss is not finite, and return whether it was."""
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    schedule = rising_then_falling(optimizer, len(batches))
    model.train()
    for step, (tokens, labels) in enumerate(batches, 1):
        loss = model(input_ids=tokens, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        if every and step % every == 0:
            print(f"step {step} of {len(batches)}: loss {loss.item():.3f}", flush=True)
        if not math.isfinite(loss.item()):
            print(f"the loss became {loss.item()} in step {step}", file=sys.stderr)
            return False
    return True


@torch.no_grad()
def answers(model: LlamaForCausalLM, prompts: list[str], longest: int, batch: int = 256) -> list[str]:
    """Return what the model answers, its most likely character at each place; the prompts have one length."""
    model.eval()
    end = CHARACTERS.index(END)
    greedy = GenerationConfig(use_cache=True, max_new_tokens=longest, eos_token_id=end, pad_token_id=end)
    given = torch.tensor([[CHARACTERS.index(c) for c in END + prompt] for prompt in prompts])
    found = []
    for part in given.split(batch):
        made = model.generate(part, attention_mask=torch.ones_like(part), generation_config=greedy)
        texts = ("".join(CHARACTERS[i] for i in row) for row in made[:, part.shape[1] :].tolist())
        found += [text.partition(END)[0] for text in texts]
    return found


def edits(a: str, b: str) -> int:
    """Return Levenshtein's distance: how many characters must be put in, left out or changed."""
    last = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            row.append(min(row[-1] + 1, last[j] + 1, last[j - 1] + (x != y)))
        last = row
    return last[-1]


def scores(found: list[str], expected: list[str]) -> dict[str, str]:
    """Return the share of answers that are right as a whole, and the edits for each character that was expected."""
    pairs = list(zip(found, expected, strict=True))
    wrong = sum(edits(a, b) for a, b in pairs if a != b)
    return {
        "exact": f"{sum(a == b for a, b in pairs) / len(pairs):.6f}",
        "character_error": f"{wrong / sum(map(len, expected)):.6f}",
    }


class Generations(Bench):
    """Does what is missing in the table."""

    def __init__(self, table: Table, base: Base, weights: Path) -> None:
        super().__init__(table, weights, RATES)
        self.base, self.weights = base, weights
        self.machine = f"{processor()}; {', '.join(f'{n} {version(n)}' for n in ('torch', 'peft', 'transformers'))}"
        self.checksum = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
        if others := {row["base"] for row in table.rows.values()} - {self.checksum}:
            sys.exit(f"the table has runs of other bases: {', '.join(sorted(others))}, this one is {self.checksum}")

    def decoder(self) -> LlamaForCausalLM:
        """Return the base, with its weights frozen."""
        model = self.base.built()
        model.load_state_dict(load_file(self.weights), strict=False)  # the weight of the last layer is the first's
        model.tie_weights()
        return model.requires_grad_(requires_grad=False)

    def _score(self, row: Mapping[str, str], protocol: Protocol) -> float:
        """Return the share of right answers, less so little for wrong characters that it decides equal shares alone."""
        return super()._score(row, protocol) - 1e-6 * float(row["character_error"] or 0)

    def _train(self, case: Case, protocol: Protocol, lr: float, seed: int, *, test: bool) -> dict[str, object]:
        begun = time.process_time()
        days = dates()
        order = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(days.training), generator=order)[: protocol.rows].tolist()
        learned = [in_german(days.training[i]) for i in chosen]
        tested = days.test[: protocol.test_rows] if test else days.held_back[: protocol.held_back]
        batches = []
        for _ in range(protocol.epochs):
            shuffled = torch.randperm(len(learned), generator=order)
            batches += [padded([learned[i] for i in part]) for part in shuffled.split(protocol.batch)]
        if case.method == "cdd":  # rates are those of factors, not of trained vectors
            lr /= FACTOR_SCALE
        model = self.decoder()
        torch.manual_seed(seed)
        prepared = METHODS[case.method].prepare(model, Plan(lr, len(batches), case.size, case.places))
        result: dict[str, object] = {"rows": protocol.rows, "epochs": protocol.epochs, "tested": len(tested)}
        result["parameters"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
        result |= {"base": self.checksum, "machine": self.machine}
        if fit(model, prepared.groups, batches):
            expected = [in_german(date) for date in tested]
            longest = 1 + max(len(text.answer) for text in expected)
            found = answers(model, [text.prompt for text in expected], longest)
            result |= scores(found, [text.answer for text in expected])
            result["file_bytes"] = len(save({name: v.contiguous() for name, v in prepared.saved().items()}))
        return result | {"seconds": f"{time.process_time() - begun:.1f}"}
