"""One run, and what it costs."""

from __future__ import annotations

import ctypes
import gc
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import cross_entropy

from finetune.data import ExampleError, Rows, batches
from finetune.encoder import Classifier, load_encoder
from finetune.methods import METHODS, Plan, Prepared, clip_apart, clip_together

__all__ = [
    "DivergedError",
    "Run",
    "Settings",
    "batch_loss",
    "bytes_for_backward",
    "fit",
    "predict",
    "prepare",
    "rising_then_falling",
    "train",
]

Advance = Callable[[str, float], None]
"""Hears what goes on, and which share of the run was done since the last call."""


class DivergedError(ExampleError):
    """The loss is not finite any more."""


@dataclass(frozen=True)
class Settings:
    """What all runs of a table share."""

    model: str | None
    epochs: int
    batch: int
    head_lr: float
    max_tokens: int
    test_rows: int | None
    device: str
    autocast: bool = False
    """Whether the encoder multiplies matrices in bfloat16; all weights, the head and the optimiser stay in float32."""
    clipped_apart: bool = True
    """Whether the gradients of the adapter and of the head are clipped each by its own norm, or all together."""

    def precision(self) -> torch.autocast:
        """Return the context that the encoder runs in."""
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.autocast)


@dataclass(frozen=True)
class Run:
    """One training: everything else is in `Settings`."""

    task: str
    method: str
    lr: float
    seed: int
    rows: int
    sweep: bool = False
    """Whether the accuracy is that of held-back training rows, to choose a learning rate by."""
    size: int | None = None
    """Of the adapters, None for the method's own choice."""
    places: str = "query-value"
    """Which layers are adapted."""

    @property
    def name(self) -> str:
        """Return the name of the file of its result."""
        kind = "sweep" if self.sweep else f"seed{self.seed}"
        size = "" if self.size is None else f"-{self.size}"
        place = "" if self.places == "query-value" else f"-{self.places}"
        return f"{self.task}-{self.method}{size}{place}-{self.rows}rows-lr{self.lr:g}-{kind}"


def prepare(run: Run, settings: Settings, rows: int, classes: int) -> tuple[Classifier, Prepared]:
    """Load the encoder and make it ready to be trained on so many rows; the head's start depends on the seed alone."""
    steps = settings.epochs * math.ceil(rows / settings.batch)
    encoder = load_encoder(settings.model)
    torch.manual_seed(run.seed)
    model = Classifier(encoder, classes)
    prepared = METHODS[run.method].prepare(encoder, Plan(run.lr, steps, run.size, run.places))
    model.encoder = prepared.encoder
    return model.to(settings.device), prepared


def train(
    run: Run, settings: Settings, train_rows: Rows, test_rows: Rows, *, classes: int, advance: Advance
) -> dict[str, Any]:
    """Train, test and measure.

    The head's start, the batches and the dropout masks depend on the seed alone, so they are the same for all methods.
    """
    device = torch.device(settings.device)
    model, prepared = prepare(run, settings, len(train_rows), classes)
    adapter = sum(p.numel() for p in model.encoder.parameters() if p.requires_grad)

    started = time.perf_counter()
    embeddings = None
    if adapter == 0:  # the encoder never changes: every sentence passes through it once
        with settings.precision():
            embeddings = model.embed_all(train_rows, device, lambda n: advance("embedding", 0.9 * n / len(train_rows)))
    saved_bytes = bytes_for_backward(model, prepared, train_rows, embeddings, settings)
    memory = _PeakMemory(device)
    seconds, losses = fit(model, prepared, run, settings, rows=train_rows, embeddings=embeddings, advance=advance)
    peak = memory.peak()
    predicted = predict(model, test_rows, settings, lambda n: advance("testing", 0.1 * n / len(test_rows)))
    return {
        "tested": len(test_rows),
        "accuracy": (predicted == test_rows.labels).double().mean().item(),
        "adapter_parameters": adapter,
        "head_parameters": sum(p.numel() for p in model.head.parameters()),
        "steps": len(seconds),
        "losses": losses,
        "seconds_per_step": median(seconds),
        "bytes_for_backward": saved_bytes,
        "peak_bytes": peak,
        "adapter_file_bytes": len(save({k: v.contiguous() for k, v in prepared.saved().items()})) if adapter else 0,
        "seconds": time.perf_counter() - started,
    }


def fit(
    model: Classifier,
    prepared: Prepared,
    run: Run,
    settings: Settings,
    *,
    rows: Rows,
    embeddings: Tensor | None,
    advance: Advance,
) -> tuple[list[float], list[float]]:
    """Train by AdamW, the rate rising over the first 6 % of the steps and falling to zero over the rest.

    The gradients of the adapter and of the head are clipped at 1, each by its own norm: those of circulants and
    diagonals are so long that a common norm would shrink the head's, which costs a third of a point of accuracy.

    With `embeddings`, those of all rows, the head alone. Returns the seconds and the loss of every step.
    """
    head_lr = settings.head_lr if prepared.groups else run.lr
    head = list(model.head.parameters())
    groups = [*prepared.groups, {"params": head, "lr": head_lr}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    adapter = [p for group in prepared.groups for p in group["params"]]
    clip = prepared.clip or (clip_apart if settings.clipped_apart else clip_together)
    steps = settings.epochs * math.ceil(len(rows) / settings.batch)
    schedule = rising_then_falling(optimizer, steps)
    order = torch.Generator().manual_seed(run.seed)
    torch.manual_seed(run.seed)
    model.train()
    seconds: list[float] = []
    losses: list[float] = []
    share = (0.9 if embeddings is None else 0.0) / steps
    for _ in range(settings.epochs):
        for tokens, index in batches(rows, settings.batch, order):
            started = time.perf_counter()
            embedded = None if embeddings is None else embeddings[index]
            loss = batch_loss(model, tokens, rows.labels[index], embedded, settings)
            optimizer.zero_grad()
            (loss + prepared.penalty()).backward()
            clip(adapter, head)
            optimizer.step()
            schedule.step()
            prepared.after_step(len(seconds) + 1)
            value = loss.item()  # waits for the device
            seconds.append(time.perf_counter() - started)
            losses.append(value)
            if not math.isfinite(value):
                raise DivergedError(f"{run.name}: the loss became {value} in step {len(seconds)}; try a smaller --lr")
            advance(f"loss {value:.3f}", share)
    return seconds, losses


def rising_then_falling(
    optimizer: torch.optim.Optimizer, steps: int, share: float = 0.06
) -> torch.optim.lr_scheduler.LRScheduler:
    """Let rates rise over a share of the steps, and fall to zero over all."""
    warmup = max(1, round(share * steps))
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, max(0.0, (steps - step) / steps))
    )


def batch_loss(
    model: Classifier, tokens: Tensor, labels: Tensor, embedded: Tensor | None, settings: Settings
) -> Tensor:
    """Return the mean loss of a batch, of the given embeddings if the encoder is not to run."""
    if embedded is None:
        with settings.precision():
            embedded = model.embed(tokens.to(settings.device))
    return cross_entropy(model.head(embedded.float()), labels.to(settings.device))


@torch.no_grad()
def predict(model: Classifier, rows: Rows, settings: Settings, advance: Callable[[int], object]) -> Tensor:
    """Return the most likely class of every row, on the processor."""
    with settings.precision():
        embeddings = model.embed_all(rows, torch.device(settings.device), advance)
    return model.head(embeddings).argmax(1).cpu()


def bytes_for_backward(
    model: Classifier, prepared: Prepared, rows: Rows, embeddings: Tensor | None, settings: Settings
) -> int:
    """Return the bytes that autograd keeps from forward to backward, parameters and buffers left out.

    They are those of the batch of the longest sentences, which needs most.
    """
    lengths = torch.tensor([len(row) for row in rows.tokens])
    index = lengths.argsort(descending=True)[: settings.batch]
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        for part in (tensor._indices(), tensor._values()) if tensor.is_sparse else (tensor,):
            address = part.untyped_storage().data_ptr()
            if address not in own:
                kept[address] = part  # holding it keeps its address from being used again
        return tensor

    model.train()
    embedded = None if embeddings is None else embeddings[index]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = batch_loss(model, rows.padded(index), rows.labels[index], embedded, settings)
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    (loss + prepared.penalty()).backward()
    model.zero_grad()
    return total


class _PeakMemory:
    """The most memory in use above that at the start; on a processor by Linux's own count, elsewhere unknown."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.start = torch.cuda.memory_allocated(device)
        else:
            self.start = self._linux("VmRSS") if self._reset() else None

    def peak(self) -> int | None:
        """Return the bytes, or None where they cannot be measured."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - self.start
        return None if self.start is None else max(0, self._linux("VmHWM") - self.start)

    @staticmethod
    def _reset() -> bool:
        if sys.platform != "linux":
            return False
        gc.collect()
        if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
            trim(0)  # or what earlier runs have freed would count as in use from the start
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
        except OSError:
            return False
        return True

    @staticmethod
    def _linux(field: str) -> int:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition(f"{field}:")[2].split()[0]) * 1024
