"""Whether a convolution and its gradients are computed directly or by Fourier transforms, by what measured faster.

Both ways have a cost, the numbers of their operations times constants that were measured. PyTorch's own convolutions
are taken to run as fast as the fastest ones did, so that transforms are used where they are surely faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from math import log2, prod
from typing import Literal, NamedTuple, TypeAlias

import scipy  # its `fft` is imported on first use: it would double the import time of structmat
import torch

from structmat._long_convolutions.transforms import Sizes, tiles_along

__all__ = ["Convolution", "Role", "tile_for"]

Role: TypeAlias = Literal["input", "weight", "output"]
"""What of a convolution is computed: its outputs, or the gradient of its input or weight from that of the outputs."""


class Convolution(NamedTuple):
    """Shapes and options of a convolution, as `torch.nn.functional.conv1d` and its relatives have them."""

    input: Sizes
    weight: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes
    groups: int

    @property
    def kernel(self) -> Sizes:
        """The sizes of the kernel."""
        return self.weight[2:]

    @property
    def n_outputs(self) -> Sizes:
        """The sizes of the outputs, had the convolution strides of one."""
        given = zip(self.input[2:], self.padding, self.dilation, self.kernel, strict=True)
        return tuple(n + 2 * p - d * (k - 1) for n, p, d, k in given)

    @property
    def output(self) -> Sizes:
        """The shape of the outputs."""
        sizes = (1 + (n - 1) // s for n, s in zip(self.n_outputs, self.stride, strict=True))
        return (self.input[0], self.weight[0], *sizes)

    def is_valid(self) -> bool:
        """Return whether there are outputs, and channels, strides and so on are those of a convolution."""
        rows, columns = self.weight[:2]
        return (
            len(self.input) == len(self.weight)
            and min(*self.input, *self.weight, *self.stride, *self.dilation, self.groups) > 0
            and min(self.padding) >= 0
            and self.input[1] == columns * self.groups
            and rows % self.groups == 0
            and min(self.n_outputs) > 0
        )


# ---- costs in nanoseconds of one core, as measured (AVX-512, MKL and oneDNN of PyTorch 2.13)


class TransformCosts(NamedTuple):
    """What the parts of a convolution by transforms take, fitted to 530 of random shapes."""

    calls: float
    """All calls of operations, whatever the sizes are."""
    axis_calls: float
    """Those for each axis after the first."""
    butterfly: float
    """One value transformed, for each bit of the length of its tile."""
    axis: float
    """One value transformed, more for each axis after the first."""
    transposed: float
    """One value of what is transposed, so that matrices of channels are multiplied."""
    product: float
    """One product of complex numbers in a product of matrices."""
    single_product: float
    """One product of complex numbers where no channels are mixed, which needs no transposed copies."""


class DirectRates(NamedTuple):
    """The most products and additions a nanosecond that were seen in PyTorch's own convolutions of 216 random shapes.

    The fastest ones count, as a convolution must not become slower by transforms.
    """

    each: float
    """For each channel, as processors treat several at once."""
    line: float
    """However many channels there are, along one axis."""
    grid: float
    """However many channels there are, along two or three axes."""
    depthwise: float
    """The most where every channel is convolved on its own."""


_TRANSFORMS = {
    torch.float32: TransformCosts(200_000, 60_000, 0.15, 2.5, 3.0, 0.3, 3.3),
    torch.float64: TransformCosts(200_000, 60_000, 0.45, 2.5, 4.6, 0.6, 8.0),
}
_RATES: dict[tuple[torch.dtype, Role], DirectRates] = {
    (torch.float32, "output"): DirectRates(5.6, 73, 90, 40),
    (torch.float32, "input"): DirectRates(3.3, 46, 42, 33),
    (torch.float32, "weight"): DirectRates(4.1, 42, 75, 1.0),
    (torch.float64, "output"): DirectRates(1.8, 34, 34, 1.7),
    (torch.float64, "input"): DirectRates(1.5, 29, 29, 1.7),
    (torch.float64, "weight"): DirectRates(1.5, 32, 32, 1.7),
    (torch.bfloat16, "output"): DirectRates(43, 680, 680, 10),
    (torch.bfloat16, "input"): DirectRates(40, 480, 480, 9),
    (torch.bfloat16, "weight"): DirectRates(40, 210, 210, 1.6),
}
_LIKE = {torch.float16: torch.bfloat16, torch.complex64: torch.float32, torch.complex128: torch.float64}
"""Dtypes whose two ways are compared as those of another dtype."""
_MARGIN = 1.1
"""How many times more direct convolutions must cost by these numbers, so that transforms are surely faster."""


@lru_cache(4096)
def tile_for(which: Convolution, wanted: Role, dtype: torch.dtype, *, forced: bool) -> Sizes | None:
    """Return the lengths of the transforms by which a convolution or a gradient is computed; None: not by transforms.

    If it is `forced`, transforms are used whatever they cost, unless PyTorch would refuse the convolution.
    """
    dtype = _LIKE.get(dtype, dtype)
    if (dtype, wanted) not in _RATES or not which.is_valid():
        return None
    cost, tile = min((_transform_cost(which, wanted, dtype, tile), tile) for tile in _tiles(which, wanted))
    return tile if forced or cost * _MARGIN < _direct_cost(which, wanted, dtype) else None


def _convolved(which: Convolution, wanted: Role) -> Sizes:
    """Return the number of outputs along each axis of the convolution without strides that computes what is wanted."""
    return which.input[2:] if wanted == "input" else which.n_outputs


def _tiles(which: Convolution, wanted: Role) -> Iterator[Sizes]:
    """Yield the lengths of tiles among which the cheapest ones are chosen."""
    choices = []
    for n, k, d in zip(_convolved(which, wanted), which.kernel, which.dilation, strict=True):
        whole = scipy.fft.next_fast_len(-(-n // d) + k - 1, real=True)
        lengths = {whole}
        length = 1 << (k - 1).bit_length()
        while length < whole:
            lengths |= {length, length * 3 // 2 if 2 < length * 3 // 2 < whole else length}
            length *= 2
        choices.append(sorted(lengths))
    yield from product(*choices)


def _transform_cost(which: Convolution, wanted: Role, dtype: torch.dtype, tile: Sizes) -> float:
    costs = _TRANSFORMS.get(dtype, _TRANSFORMS[torch.float32])
    rows, columns = which.weight[:2]
    groups, more_axes = which.groups, len(tile) - 1
    step = (length - k + 1 for length, k in zip(tile, which.kernel, strict=True))
    tiles = which.input[0] * prod(map(tiles_along, _convolved(which, wanted), which.dilation, step))
    frequencies = prod(tile[:-1]) * (tile[-1] // 2 + 1)
    values = prod(tile) * ((rows + columns * groups) * tiles + rows * columns)
    products = frequencies * rows * columns * tiles
    mixed = {"output": columns, "input": rows // groups, "weight": rows // groups * columns}[wanted]
    cost = costs.calls + more_axes * costs.axis_calls
    cost += values * (costs.butterfly * log2(prod(tile)) + more_axes * costs.axis)
    if mixed == 1:
        return cost + products * costs.single_product
    return cost + values * costs.transposed + products * costs.product


def _direct_cost(which: Convolution, wanted: Role, dtype: torch.dtype) -> float:
    rates = _RATES[dtype, wanted]
    rows, columns = which.weight[0] // which.groups, which.weight[1]
    if rows == columns == 1 < which.groups:
        rate = min(rates.each * which.groups, rates.depthwise)
    else:
        most = rates.line if len(which.kernel) == 1 else rates.grid
        rate = min(rates.each * (rows if wanted == "output" else max(rows, columns)), most)
    return prod(which.output) * prod(which.weight[1:]) / rate
