"""The kernel of a convolution as a matrix, and where the convolution puts it.

A kernel has the shape (out, in, k_1, ..., k_d), where "in" are the input channels of a group. As a matrix it has rows
(k_1, ..., k_s, out) and columns (k_s+1, ..., k_d, in). The number s of axes that belong to the rows, `split`, is chosen
so that the matrix is as square as it can be, since the change of a square has the fewest parameters.

With one group, the convolution is a product by this matrix. Its rows x, `windows`, are what the kernel sees along the
axes of the columns, one for each place along these axes and for each sample along the others. Along the others, an
output is the sum of parts of several products: `folded`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["KernelGeometry"]


class KernelGeometry(NamedTuple):
    """The sizes of a kernel and the settings of its convolution, those of `torch.nn.Conv1d` and its relatives."""

    channels: tuple[int, int]
    """Of the outputs, and of the inputs of one group."""
    sizes: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    margins: tuple[int, ...]
    """What the inputs get before and behind each axis, the last axis first, as `torch.nn.functional.pad` takes it."""
    mode: str
    """What the margins are filled with, likewise."""
    split: int

    @classmethod
    def of(cls, base: Any) -> KernelGeometry:
        """Return the geometry of a layer."""
        sizes, (rows, columns) = tuple(base.kernel_size), (base.out_channels, base.in_channels // base.groups)
        margins = (0,) * (2 * len(sizes)) if base.padding == "valid" else tuple(base._reversed_padding_repeated_twice)
        mode = "constant" if base.padding_mode == "zeros" else base.padding_mode
        # The change has about as many parameters as its matrix has rows and columns.
        perimeters = [rows * prod(sizes[:s]) + columns * prod(sizes[s:]) for s in range(len(sizes) + 1)]
        split = perimeters.index(min(perimeters))
        return cls((rows, columns), sizes, base.stride, base.dilation, base.groups, margins, mode, split)

    # ---- the kernel

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """The rows and columns of the matrix."""
        rows, columns = self.channels
        return rows * prod(self.sizes[: self.split]), columns * prod(self.sizes[self.split :])

    def as_kernel(self, matrix: Tensor) -> Tensor:
        """Return a matrix as a kernel, a view of it."""
        (rows, columns), s = self.channels, self.split
        apart = matrix.reshape(*self.sizes[:s], rows, *self.sizes[s:], columns)
        return apart.movedim((s, -1), (0, 1))

    def as_matrix(self, kernel: Tensor) -> Tensor:
        """Return a kernel as a matrix."""
        return kernel.movedim((0, 1), (self.split, -1)).reshape(self.matrix_shape)

    # ---- dense convolutions

    def padded(self, x: Tensor) -> Tensor:
        """Return inputs with their margins."""
        return pad(x, self.margins, mode=self.mode) if any(self.margins) else x

    def _without_margins(self, gradient: Tensor, x: Tensor) -> Tensor:
        """Return the gradient of inputs from that of the inputs with their margins."""
        if not any(self.margins):
            return gradient
        # Margins may repeat entries of the inputs, to which the gradients of all copies belong.
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            wide = self.padded(leaf)
        return torch.autograd.grad(wide, leaf, gradient)[0]

    @property
    def _pads_itself(self) -> bool:
        """Whether torch's convolution can add the margins."""
        return self.mode == "constant" and self.margins[::2] == self.margins[1::2]

    @property
    def _settings(self) -> tuple[Any, ...]:
        nothing = (0,) * len(self.sizes)
        padding = self.margins[::-2] if self._pads_itself else nothing
        return self.stride, padding, self.dilation, False, nothing, self.groups

    def convolve(self, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        """Return the convolution of inputs (N, channels, ...)."""
        return torch.convolution(x if self._pads_itself else self.padded(x), kernel, bias, *self._settings)

    def gradients(
        self, dy: Tensor, x: Tensor, kernel: Tensor, *, needs_x: bool, needs_kernel: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of the inputs and of the kernel of `convolve`."""
        wide, wanted = x if self._pads_itself else self.padded(x), (needs_x, needs_kernel, False)
        dx, dkernel, _ = torch.ops.aten.convolution_backward(dy, wide, kernel, None, *self._settings, wanted)
        return dx if self._pads_itself or dx is None else self._without_margins(dx, x), dkernel

    # ---- products by the matrix, with one group

    def places(self, x: Tensor) -> tuple[int, ...]:
        """Return how many places the kernel has along each axis of inputs."""
        several = zip(self._lengths(x), self.sizes, self.stride, self.dilation, strict=True)
        return tuple((length - dilation * (size - 1) - 1) // stride + 1 for length, size, stride, dilation in several)

    def _lengths(self, x: Tensor) -> tuple[int, ...]:
        """Return the lengths of inputs along the axes of space, margins included."""
        first_axis_first = self.margins[::-1]
        margins = zip(first_axis_first[::2], first_axis_first[1::2], strict=True)
        return tuple(length + sum(each) for length, each in zip(x.shape[2:], margins, strict=True))

    def n_rows(self, x: Tensor) -> int:
        """Return the number of the windows of inputs."""
        return x.shape[0] * prod(self._lengths(x)[: self.split]) * prod(self.places(x)[self.split :])

    def windows(self, x: Tensor) -> Tensor:
        """Return the rows that the matrix is applied to, (rows, columns of the matrix)."""
        wide, s, places = self.padded(x).movedim(1, -1), self.split, self.places(x)
        samples, *strides, channels = wide.stride()
        steps = [stride * step for stride, step in zip(strides, self.stride, strict=True)]
        inside = [stride * step for stride, step in zip(strides, self.dilation, strict=True)]
        shape = (*wide.shape[: 1 + s], *places[s:], *self.sizes[s:], wide.shape[-1])
        # A view: each window begins a stride later, and its entries lie a dilation apart. Channels are last, as in the
        # columns of the matrix.
        seen = wide.as_strided(shape, (samples, *strides[:s], *steps[s:], *inside[s:], channels))
        return seen.reshape(-1, self.matrix_shape[1])

    def gradient_of_windows(self, gradient: Tensor, x: Tensor) -> Tensor:
        """Return the gradient of the inputs from that of their windows."""
        s, places, lengths = self.split, self.places(x), self._lengths(x)
        parts = gradient.reshape(x.shape[0], *lengths[:s], *places[s:], *self.sizes[s:], x.shape[1])
        wide = gradient.new_zeros(x.shape[0], *lengths, x.shape[1])
        # An entry of the inputs is in several windows, whose gradients add up.
        for entry, seen in self._entries(range(s, len(lengths)), places):
            wide[(..., *seen, slice(None))] += parts[(..., *entry, slice(None))]
        return self._without_margins(wide.movedim(-1, 1), x)

    def folded(self, products: Tensor, x: Tensor) -> Tensor:
        """Return the outputs for inputs `x`, from the products of the matrix with their windows."""
        s, places, lengths = self.split, self.places(x), self._lengths(x)
        parts = products.reshape(x.shape[0], *lengths[:s], *places[s:], *self.sizes[:s], -1)
        # Products are there for all places along the axes of the rows; an entry of the kernel takes those that it
        # meets.
        several = [
            parts[(slice(None), *seen, *(slice(None),) * len(places[s:]), *entry)]
            for entry, seen in self._entries(range(s), places)
        ]
        return sum(several[1:], several[0]).movedim(-1, 1)

    def gradient_of_products(self, dy: Tensor, x: Tensor) -> Tensor:
        """Return the gradient of the products from that of the outputs."""
        s, places, lengths = self.split, self.places(x), self._lengths(x)
        found = dy.new_zeros(x.shape[0], *lengths[:s], *places[s:], *self.sizes[:s], dy.shape[1])
        for entry, seen in self._entries(range(s), places):
            found[(slice(None), *seen, *(slice(None),) * len(places[s:]), *entry)] = dy.movedim(1, -1)
        return found.reshape(-1, self.matrix_shape[0])

    def _entries(self, axes: range, places: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """Yield the entries of a kernel along some axes, each with what it meets there, of all places."""
        for entry in product(*(range(self.sizes[axis]) for axis in axes)):
            seen = []
            for axis, place in zip(axes, entry, strict=True):
                start, step = self.dilation[axis] * place, self.stride[axis]
                seen.append(slice(start, start + (places[axis] - 1) * step + 1, step))
            yield entry, tuple(seen)
