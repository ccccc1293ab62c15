"""What a method of `few_parameters.py` costs: operations, time of a step, memory and size of the file."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import _few_methods  # noqa: F401  # adds its methods to those of the example
import torch
from _fair_plan import PROTOCOLS, Case
from _few_plan import Sized
from safetensors.torch import save
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from finetune.data import TASKS, Rows, load_task
from finetune.encoder import load_tokenizer
from finetune.train import Run, Settings, batch_loss, bytes_for_backward, prepare

ROWS = 32
"""In the batch, which is the same for all methods."""
HEAD = Sized("head")


COPIES = {"clone", "copy_", "_to_copy"}
"""Elementwise to torch, and no operations."""


class Operations(TorchDispatchMode):
    """Counts the floating-point operations of what runs inside: of products, Fourier transforms and elementwise."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in COPIES:
            return result
        if func.overloadpacket in flop_registry:
            self.count += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=result)
        elif name.startswith("_fft_"):
            # The usual convention: 5 n log2 n for a complex transform of n numbers, half of it for a real one.
            real = args[0] if name == "_fft_r2c" else result
            points = math.prod(real.shape[axis] for axis in args[1])
            factor = 5.0 if name == "_fft_c2c" else 2.5
            self.count += factor * real.numel() * math.log2(max(points, 2))
        elif torch.Tag.pointwise in func.tags and isinstance(result, Tensor) and result.dtype.is_floating_point:
            self.count += result.numel()
        elif torch.Tag.pointwise in func.tags and isinstance(result, Tensor) and result.is_complex():
            self.count += (6 if name.startswith("mul") else 2) * result.numel()
        return result


@dataclass(frozen=True)
class Costs:
    """Of one method, beside those of the frozen encoder with its head."""

    operations: float
    """In one forward pass, for each token of the batch, beyond those of the frozen encoder."""
    milliseconds: float
    """Of the processor, for a step of training, that of the frozen encoder included."""
    kept: int
    """Bytes from forward to backward."""
    file: int
    """Bytes of what is saved of the trained adapter."""


def costs(cases: list[Case], data: Path, rounds: int) -> dict[Case, Costs]:
    """Return the costs of each method, on one batch of the task that comes first.

    Steps are timed in turns, and their median is taken, which leaves the first step of each out.
    """
    task = cases[0].task
    protocol = PROTOCOLS[task]
    settings = Settings(None, 1, ROWS, protocol.head_lr, protocol.max_tokens, None, "cpu", autocast=True)
    rows, _ = load_task(task, data, load_tokenizer(None), protocol.max_tokens)
    batch = rows[:ROWS]
    measured = [Measured(case, batch, settings) for case in [HEAD.on(task), *cases] if case.task == task]
    for _ in range(rounds + 1):
        for each in measured:
            each.step()
    frozen, *others = measured
    return {each.case: each.costs(frozen) for each in others}


class Measured:
    """One method, ready to train on one batch."""

    def __init__(self, case: Case, batch: Rows, settings: Settings) -> None:
        self.case, self.batch, self.settings = case, batch, settings
        self.run = Run(case.task, case.method, 1e-3, 0, len(batch), size=case.size, places=case.places)
        self.model, self.prepared = prepare(self.run, settings, len(batch), TASKS[case.task].classes)
        self.model.train()
        groups = [*self.prepared.groups, {"params": list(self.model.head.parameters()), "lr": 1e-3}]
        self.optimizer = torch.optim.AdamW(groups)
        self.tokens = batch.padded(torch.arange(len(batch)))
        self.seconds: list[float] = []

    def step(self) -> None:
        begun = time.process_time()
        loss = batch_loss(self.model, self.tokens, self.batch.labels, None, self.settings)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.seconds.append(time.process_time() - begun)

    def operations(self) -> float:
        """Return the operations of a forward pass of the encoder and its head."""
        with Operations() as counted, self.settings.precision():
            self.model.embed(self.tokens)
        return counted.count

    def costs(self, frozen: Measured) -> Costs:
        saved = {name: value.contiguous() for name, value in self.prepared.saved().items()}
        return Costs(
            (self.operations() - frozen.operations()) / self.tokens.numel(),
            1e3 * median(self.seconds[1:]),
            bytes_for_backward(self.model, self.prepared, self.batch, None, self.settings),
            len(save(saved)),
        )
