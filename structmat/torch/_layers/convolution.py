"""`CDDConv`: a frozen convolution with a change of its kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._long_convolutions.layers import FFTConv1d, FFTConv2d, FFTConv3d
from structmat.torch._adapters.adapter import CDDAdapter
from structmat.torch._changes.dense import summed, wide_dtype
from structmat.torch._changes.operation import fuses, without_autocast
from structmat.torch._distributed import within_fsdp
from structmat.torch._layers.adapted_layer import AdaptedLayer

__all__ = ["CDDConv"]

_CLASSES = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_FORWARDS = {(each.forward, each._conv_forward) for each in (*_CLASSES, FFTConv1d, FFTConv2d, FFTConv3d)}
"""The passes of classes that convolve with their weight as it is."""


class CDDConv(AdaptedLayer):
    """A frozen convolution and a trainable change ``alpha D C D`` of its kernel.

    Parameters
    ----------
    base : torch.nn.Conv1d, torch.nn.Conv2d or torch.nn.Conv3d
        With any kernel, stride, padding, dilation and groups. It is frozen and shared, not copied.
    **options
        Arguments of `CDDAdapter`.

    Raises
    ------
    TypeError
        If the base is another module, or has a forward pass of its own and not kernel size and stride 1.
    ValueError
        If an option is wrong.

    See Also
    --------
    CDDLinear : The same for linear layers.

    Notes
    -----
    The change is a matrix. Each of its rows belongs to an output channel and a place of the kernel along the first axes
    of space, each of its columns to an input channel of a group and a place along the others. How many axes the rows
    have is chosen so that the matrix is as square as it can be. So a kernel of 3 x 3 for n channels gets 9 n
    parameters, where LoRA of rank r has 10 r n; a depthwise convolution with such a kernel gets about 2 n.

    The base convolves with the sum of its kernel and the change, which is kept for the backward pass. Where the kernel
    is of half precision, in which the sum would lose digits of the change, or is quantised, or inputs are dropped, the
    outputs of a second convolution with the change alone are added. Dropout sets single entries of the inputs of the
    change to zero, as that of LoRA.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import CDDConv
    >>> layer = CDDConv(torch.nn.Conv2d(6, 6, 3, padding=1))
    >>> layer(torch.ones(2, 6, 4, 4)).shape
    torch.Size([2, 6, 4, 4])
    >>> [tuple(p.shape) for p in layer.parameters() if p.requires_grad]
    [(18,), (1, 1, 18), (18,)]
    """

    _plural = "convolutions that are not transposed"
    _shown = frozenset(
        {
            *("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"),
            *("padding_mode", "bias"),
        }
    )

    def __init__(self, base: nn.Conv1d | nn.Conv2d | nn.Conv3d, **options: Any) -> None:
        super().__init__(base, *self._features(base), **options)

    @classmethod
    def _recognises(cls, module: nn.Module) -> bool:
        return isinstance(module, _CLASSES) and (_convolves_with_weight(module) or _is_pointwise(module))

    @classmethod
    def _features(cls, base: Any) -> tuple[int, int]:
        if not cls._recognises(base):
            text = (
                "must be a Conv1d, Conv2d or Conv3d, and its class may have a forward pass of its own with kernel size "
                f"and stride 1, one group and no padding only, got {base!r}"
            )
            raise ArgumentTypeError("CDDConv", "base", text)
        rows, columns = _matrix_shape(base)
        return columns, rows

    @classmethod
    def _outputs(cls, base: Any, adapter: CDDAdapter, x: Tensor, call: Callable[[Tensor], Tensor]) -> Tensor:
        _require_axes(base, x)
        # The sum with a weight of half precision would lose digits of the change.
        if adapter.drops or base.weight.element_size() < 4 or not fuses(call, x, _CLASSES):
            return cls._add(base, adapter, call(x), x)
        return _convolved(base, x, cls._changed_kernel(base, adapter), base.bias)

    @classmethod
    def _add(cls, base: Any, adapter: CDDAdapter, y: Tensor, x: Tensor) -> Tensor:
        _require_axes(base, x)
        vectors = adapter.vectors.forward()
        nothing = torch.zeros((), dtype=wide_dtype(*vectors), device=vectors[0].device).expand(_matrix_shape(base))
        with without_autocast(vectors[0]):
            kernel = _as_kernel(base, summed(nothing, vectors, adapter.gain))
        return (y + _convolved(base, adapter.dropped(x), kernel.to(x.dtype), None)).to(y.dtype)

    @classmethod
    def _summed(cls, base: Any, weights: Mapping[str, Tensor], plus: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        matrix = weights["weight"].movedim((0, 1), (_split(base), -1)).reshape(_matrix_shape(base))
        return {"weight": _as_kernel(base, plus(matrix))}

    @classmethod
    def _laid_out(cls, base: Any, change: Tensor) -> Tensor:
        return _as_kernel(base, change)

    @classmethod
    def _changed_kernel(cls, base: Any, adapter: CDDAdapter) -> Tensor:
        """Return the weight plus the change; differentiable."""
        vectors = adapter.vectors.forward()
        with without_autocast(vectors[0]):
            plus = partial(summed, vectors=vectors, gain=adapter.gain)
            kernel = cls._summed(base, {"weight": base.weight}, plus)["weight"]
        # Outputs are stored as the kernel is: with the channels last, say. Sums are stored as their first term, also
        # where `torch.vmap` maps over the vectors, and a copy into a tensor is refused. Strides of axes of length one
        # are those of the weight too: torch chooses by them among algorithms that round otherwise.
        nothing = torch.zeros_like(base.weight)
        return (nothing + kernel).as_strided(nothing.shape, nothing.stride())

    @classmethod
    def _multiplies_by_weight(cls, base: Any, features: tuple[int, int]) -> bool:
        return _convolves_with_weight(base) or super()._multiplies_by_weight(base, features)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of the layer.

        Parameters
        ----------
        x : Tensor, shape (N, in_channels, ...) or (in_channels, ...)
            Inputs, as for the base.

        Returns
        -------
        Tensor, shape (N, out_channels, ...) or (out_channels, ...)
            Outputs.

        Raises
        ------
        ValueError
            If `x` has another number of axes.
        """
        return self._outputs(self.base, self.adapter, x, self.base)


def _convolves_with_weight(base: Any) -> bool:
    """Return whether a layer is a convolution with its weight, as those of torch are, and no more."""
    return (type(base).forward, type(base)._conv_forward) in _FORWARDS


def _is_pointwise(base: Any) -> bool:
    """Return whether a convolution is a linear map of the channels at each place."""
    return (
        all(size == 1 for size in (*base.kernel_size, *base.stride, base.groups))
        # The paddings "valid" and "same" add nothing around a kernel of size 1.
        and (isinstance(base.padding, str) or not any(base.padding))
    )


def _require_axes(base: Any, x: Tensor) -> None:
    """Refuse inputs with other axes than channels and places, behind one of samples or none."""
    axes = len(base.kernel_size)
    if x.ndim not in {axes + 1, axes + 2}:
        text = f"must have {axes + 1} axes, or {axes + 2} with one of samples, got shape {tuple(x.shape)}"
        raise ArgumentValueError("CDDConv", "x", text)


def _convolved(base: Any, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """Return what a base makes of inputs with another kernel and another bias."""
    base = within_fsdp(base)
    # A class with a forward pass of its own is a product by the kernel at each place, as that of torch is.
    own = type(base) if _convolves_with_weight(base) else next(each for each in _CLASSES if isinstance(base, each))
    out: Tensor = own._conv_forward(base, x, kernel, bias)
    return out


# ---- the kernel as a matrix
#
# A kernel has the shape (out, in, k_1, ..., k_d), where "in" are the input channels of a group. As a matrix it has rows
# (k_1, ..., k_s, out) and columns (k_s+1, ..., k_d, in). The number s of axes that belong to the rows is chosen so that
# the matrix is as square as it can be, since the change has about as many parameters as rows and columns.


def _split(base: Any) -> int:
    """Return how many of the axes of a kernel belong to the rows of its matrix."""
    sizes, rows, columns = base.kernel_size, base.out_channels, base.in_channels // base.groups
    perimeters = [rows * prod(sizes[:s]) + columns * prod(sizes[s:]) for s in range(len(sizes) + 1)]
    return perimeters.index(min(perimeters))


def _matrix_shape(base: Any) -> tuple[int, int]:
    """Return the rows and columns of the matrix of a kernel."""
    s, sizes = _split(base), base.kernel_size
    return base.out_channels * prod(sizes[:s]), base.in_channels // base.groups * prod(sizes[s:])


def _as_kernel(base: Any, matrix: Tensor) -> Tensor:
    """Return a matrix as a kernel, a view of it."""
    s, sizes = _split(base), base.kernel_size
    apart = matrix.reshape(*sizes[:s], base.out_channels, *sizes[s:], base.in_channels // base.groups)
    return apart.movedim((s, -1), (0, 1))
