"""Claim: long convolutions take a fraction of the time of PyTorch's, short ones as much.

Layers have the same number of input and output channels, and no padding. "auto" is what `structmat.torch.FFTConv1d` and
`FFTConv2d` do, "fft" what they do if they are told to. Times are of a forward pass without gradients, and of a forward
and a backward pass with those of input, weight and bias. julius convolves along one axis only, and transforms always.
--costs measures the choice instead: what it takes where convolutions are short, and for convolutions of random shapes
how their times compare with the costs by which "auto" chooses (`structmat/_long_convolutions/plan.py`). --quick
makes everything small; --out writes a section of ``convolutions.md``.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from statistics import median

import _one_thread  # noqa: F401
import fft_conv_pytorch
import julius
import numpy as np
import torch
from _common import begin, finish, in_turns, parser, ratio, shown, table

from structmat._long_convolutions import operation as convolutions
from structmat._long_convolutions import plan
from structmat.torch import FFTConv1d, FFTConv2d

ENGINE = "torch's own transforms and matrix products"
CHANNELS = (1, 8, 64)
LINES = (3, 16, 64, 256, 1024, 4096)
SQUARES = (3, 7, 15, 31, 63)
HEADER = (
    "axes",
    "channels",
    "kernel",
    "input",
    "pass",
    "torch.nn",
    "auto",
    "fft",
    "julius",
    "fft-conv-pytorch",
    "auto / torch.nn",
    "auto / julius",
)
REPEATS = 50
"""How many short convolutions are timed at once."""
MOST = 2e10
"""The most products that a case has where PyTorch's own convolution is measured."""


def cases(*, quick: bool) -> Iterator[tuple[int, int, int, int]]:
    """Yield axes, channels, length of the kernel and of the input along each axis."""
    if quick:
        yield from ((1, 2, 3, 40), (1, 2, 64, 200), (2, 2, 7, 20))
        return
    yield 1, 32, 1024, 16_000
    for channels in CHANNELS:
        yield from ((1, channels, kernel, max(4000, 3 * kernel)) for kernel in LINES)
    for channels in (1, 16):
        yield from ((2, channels, kernel, 96) for kernel in SQUARES)
    yield from ((1, channels, kernel, 64) for channels, kernel in ((1, 3), (8, 16), (8, 32)))


def layers(axes: int, channels: int, kernel: int) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Return what computes the same convolution, by name."""
    plain, ours = {1: (torch.nn.Conv1d, FFTConv1d), 2: (torch.nn.Conv2d, FFTConv2d)}[axes]
    reference = plain(channels, channels, kernel)
    made: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"torch.nn": reference}
    for method in ("auto", "fft"):
        made[method] = ours(channels, channels, kernel, method=method)
        made[method].load_state_dict(reference.state_dict())
    weight, bias = reference.weight, reference.bias
    if axes == 1:
        made["julius"] = lambda x: julius.fft_conv1d(x, weight, bias)
    made["fft-conv-pytorch"] = lambda x: fft_conv_pytorch.fft_conv(x, weight, bias)
    return made


def forward(layer: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return layer(x)


def both(layer: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> None:
    x = x.detach().requires_grad_()
    y = layer(x)
    y.backward(y.detach())


def rows(*, quick: bool, rounds: int) -> Iterator[list[object]]:
    """Yield the times of each case, forward and with the backward pass, in milliseconds."""
    for axes, channels, kernel, n in cases(quick=quick):
        work = channels**2 * kernel**axes * (n - kernel + 1) ** axes
        torch.manual_seed(0)
        made = layers(axes, channels, kernel)
        x = torch.randn(1, channels, *[n] * axes)
        expected = forward(made["torch.nn"], x) if work < MOST else forward(made["fft"], x)
        for name, layer in made.items():
            if name != "torch.nn" or work < MOST:
                error = float((forward(layer, x) - expected).norm() / expected.norm())
                if error > 1e-5:
                    raise SystemExit(f"{name} is wrong by {error:.0e} at {axes}, {channels}, {kernel}")
        for label, function in (("forward", forward), ("both", both)):
            some = dict(made)
            if work >= MOST:
                del some["torch.nn"]
            if channels**2 * n**axes > 2e7:  # spectra of all kernels in full length take gigabytes
                some.pop("fft-conv-pytorch", None)
            times = in_turns({name: partial(function, layer, x) for name, layer in some.items()}, rounds, limit=0.15)
            texts = [f"{1e3 * median(times[name]):.3g}" if name in times else "" for name in HEADER[5:10]]
            ratios = [f"{ratio(times, 'auto', name):.2f}" if name in times else "" for name in ("torch.nn", "julius")]
            yield [axes, channels, kernel, n, label, *texts, *ratios]


# ---- the choice, and its costs


def often(layer: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> None:
    for _ in range(REPEATS):
        forward(layer, x)


def calls() -> str:
    """Return a table of short convolutions, which are left to PyTorch: what the question takes."""
    lines = []
    for channels, kernel, n in ((1, 3, 16), (1, 3, 4000), (8, 3, 64), (1, 16, 4000), (1, 64, 4000), (8, 16, 4000)):
        made, x = layers(1, channels, kernel), torch.randn(1, channels, n)
        both_ways = {name: partial(often, made[name], x) for name in ("torch.nn", "auto")}
        times = in_turns(both_ways, 201)
        share = f"{ratio(times, 'auto', 'torch.nn'):.3f}"
        lines.append([channels, kernel, n, *(f"{1e6 / REPEATS * median(each):.1f}" for each in times.values()), share])
    head = ["channels", "kernel", "input", "torch.nn", "auto", "auto / torch.nn"]
    return table(head, lines, left=3)


def drawn(chooser: random.Random) -> plan.Convolution:
    """Return a convolution of random shape and options."""
    axes = chooser.choice((1, 1, 1, 2, 2, 3))
    rows, columns = (2 ** chooser.randint(0, 6) for _ in range(2))
    groups = 1
    if chooser.random() < 0.25:
        rows = groups = columns
    kernel = chooser.choice({1: (16, 32, 64, 128, 256, 512, 1024), 2: (5, 7, 11, 15, 31), 3: (3, 5, 9)}[axes])
    stride, dilation = chooser.choice((1, 1, 1, 1, 2)), chooser.choice((1, 1, 1, 2, 4))
    size = int(kernel * dilation * chooser.uniform(1.2, 12 if axes == 1 else 5))
    return plan.Convolution(
        (chooser.choice((1, 1, 2, 4)), columns, *[size] * axes),
        (rows, columns // groups, *[kernel] * axes),
        (stride,) * axes,
        (0,) * axes,
        (dilation,) * axes,
        groups,
    )


def costs(count: int) -> str:
    """Return a table of times over costs, and of what a choice by the costs would have lost, for random shapes."""
    chooser = random.Random(0)  # noqa: S311
    seen: dict[tuple[torch.dtype, plan.Role], list[tuple[float, float, float]]] = {}
    while count:
        which, dtype = drawn(chooser), chooser.choice((torch.float32, torch.float64))
        work = prod(which.output) * prod(which.weight[1:])
        if not 1e5 < work < 4e8:
            continue
        count -= 1
        tensors = {
            "input": torch.randn(which.input, dtype=dtype),
            "weight": torch.randn(which.weight, dtype=dtype),
            "output": torch.randn(which.output, dtype=dtype),
        }
        for wanted in tensors:
            a, b = (tensor for role, tensor in tensors.items() if role != wanted)
            ways = {
                "direct": partial(convolutions._directly, a, b, wanted, which),
                "fft": partial(convolutions.computed, a, b, wanted, which, forced=True),
            }
            times = {name: 1e9 * median(each) for name, each in in_turns(ways, 3, limit=0.1).items()}
            tile = plan.tile_for(which, wanted, dtype, forced=True)
            expected = plan._transform_cost(which, wanted, dtype, tile), plan._direct_cost(which, wanted, dtype)
            chosen = plan.tile_for(which, wanted, dtype, forced=False) is not None
            lost = times["fft"] / times["direct"] if chosen else 1.0
            seen.setdefault((dtype, wanted), []).append(
                (times["fft"] / expected[0], times["direct"] / expected[1], lost)
            )
    lines = []
    for (dtype, wanted), found in seen.items():
        columns = zip(*found, strict=True)
        texts = [", ".join(f"{value:.2f}" for value in np.quantile(each, (0, 0.1, 0.5, 0.9, 1))) for each in columns]
        lines.append([str(dtype).removeprefix("torch."), wanted, len(found), *texts])
    return table(
        ["dtype", "wanted", "shapes", "fft: time / cost", "direct: time / cost", "time of auto / direct"], lines, 2
    )


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--costs", type=int, metavar="SHAPES", help="compare times with costs, for so many random shapes")
    arguments: argparse.Namespace = begin(made)
    packages = ("structmat", "torch", "julius", "fft-conv-pytorch")
    if arguments.costs:
        parts = (
            "Short convolutions along one axis, in microseconds; medians of 201 rounds:",
            calls(),
            "Random shapes; least value, tenth, half and nine tenths of the shapes, and greatest value:",
            costs(arguments.costs),
        )
        finish(arguments.out, "convolutions", "The choice", *parts, packages=packages, engines=ENGINE)
        return
    found = shown(rows(quick=arguments.quick, rounds=3 if arguments.quick else 15))
    text = "In milliseconds; ratios are medians over rounds:"
    page = table(HEADER, found, left=5)
    finish(arguments.out, "convolutions", "Times", text, page, packages=packages, engines=ENGINE)


if __name__ == "__main__":
    main()
