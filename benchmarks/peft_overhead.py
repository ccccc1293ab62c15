"""What PEFT's wrapper costs on top of structmat.torch: the same layer, forward and backward, with the same vectors.

CPU time of one thread, both taking turns, so that other work on the machine counts little:
``OMP_NUM_THREADS=1 python benchmarks/peft_overhead.py``. Prints the median milliseconds of a step and the median of the
ratios of neighbouring steps, also for a batch of one row, where the Python code counts most.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from peft import get_peft_model
from torch import nn

from structmat.peft import CDDConfig
from structmat.torch import CDDLinear

SHAPES = ((768, 768), (768, 3072), (1024, 1024))  # inputs, outputs


def pair(cols: int, rows: int) -> tuple[nn.Module, nn.Module]:
    """Return a layer of structmat.torch and one of PEFT that share base and vectors."""
    torch.manual_seed(0)
    linear = nn.Linear(cols, rows)
    wrapped = get_peft_model(nn.Sequential(linear), CDDConfig(target_modules=["0"], init_weights=False))
    tuner = wrapped.base_model.model[0]
    plain = CDDLinear.from_linear(linear)
    plain.adapters["default"] = tuner.cdd_adapters["default"]
    return plain, tuner


def step(layer: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """Return a function that runs forward and backward once."""

    def run() -> None:
        layer(x).sum().backward()

    return run


def measured(functions: list[Callable[[], None]], repeats: int, inner: int) -> list[list[float]]:
    """Return the CPU milliseconds of each run of each function, all in turn."""
    times: list[list[float]] = [[] for _ in functions]
    for function in functions:
        function()
    for i in range(repeats):
        for k in range(len(functions)) if i % 2 else reversed(range(len(functions))):
            start = time.process_time()
            for _ in range(inner):
                functions[k]()
            times[k].append(1e3 * (time.process_time() - start) / inner)
    return times


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=41)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print(f"{'layer':>12}  {'rows':>5}  {'structmat.torch':>15}  {'structmat.peft':>14}  {'overhead':>8}")
    for cols, rows in SHAPES:
        for batch, inner in ((1024, 1), (1, 50)):
            x = torch.randn(batch, cols, requires_grad=True)
            plain, tuner = measured([step(layer, x) for layer in pair(cols, rows)], repeats, inner)
            ratio = statistics.median(b / a for a, b in zip(plain, tuner, strict=True))
            medians = f"{statistics.median(plain):>12.3f} ms  {statistics.median(tuner):>11.3f} ms"
            print(f"{cols:>5} x {rows:>4}  {batch:>5}  {medians}  {100 * (ratio - 1):>+6.1f} %")


if __name__ == "__main__":
    main()
