"""What PEFT's wrapper costs on top of structmat.torch: the same layer, forward and backward, with the same vectors.

    python benchmarks/peft_overhead.py [--repeats 41] [--quick]

CPU time of one thread, both taking turns, so that other work on the machine counts little. Prints the median
milliseconds of a step and the median of the ratios of neighbouring steps, also for a batch of one row, where the Python
code counts most.
"""

# ruff: noqa: E402  # threads are limited before libraries start them
from __future__ import annotations

from _common import in_turns, one_thread, ratio

one_thread()

import argparse
from collections.abc import Callable
from statistics import median

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
    plain.adapter = tuner.cdd_adapters["default"]
    return plain, tuner


def step(layer: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """Return a function that runs forward and backward once."""

    def run() -> None:
        layer(x).sum().backward()

    return run


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=41)
    parser.add_argument("--quick", action="store_true", help="one small layer, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.repeats = 3
    torch.set_num_threads(1)
    print(f"{'layer':>12}  {'rows':>5}  {'structmat.torch':>15}  {'structmat.peft':>14}  {'overhead':>8}")
    for cols, rows in ((64, 64),) if options.quick else SHAPES:
        for batch in (1024, 1):
            x = torch.randn(batch, cols, requires_grad=True)
            steps = dict(zip(("plain", "tuner"), (step(layer, x) for layer in pair(cols, rows)), strict=True))
            times = in_turns(steps, options.repeats, sample=0.02, limit=60.0)
            medians = "  ".join(f"{1e3 * median(values):>11.3f} ms" for values in times.values())
            print(
                f"{cols:>5} x {rows:>4}  {batch:>5}  {medians}  {100 * ratio(times, 'tuner', 'plain') - 100:>+6.1f} %"
            )


if __name__ == "__main__":
    main()
