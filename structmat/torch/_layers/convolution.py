"""`CDDConv`: a frozen convolution with a change of its kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat.torch._adapters.adapter import CDDAdapter
from structmat.torch._changes.convolution import changed_convolution, takes_rows
from structmat.torch._changes.kernel_geometry import KernelGeometry
from structmat.torch._changes.operation import fuses
from structmat.torch._layers.adapted_layer import AdaptedLayer
from structmat.torch._long_convolutions.layers import FFTConv1d, FFTConv2d, FFTConv3d

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

    The layer keeps only its input for the backward pass, which computes the changed kernel again. Dropout sets single
    entries of the inputs of the change to zero, as that of LoRA.

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
        rows, columns = KernelGeometry.of(base).matrix_shape
        return columns, rows

    @classmethod
    def _outputs(cls, base: Any, adapter: CDDAdapter, x: Tensor, call: Callable[[Tensor], Tensor]) -> Tensor:
        # The sum with a weight of half precision would lose digits of the change.
        apart = adapter.drops or base.weight.element_size() < 4 or not fuses(call, x, _CLASSES)
        geometry = KernelGeometry.of(base)
        if apart or takes_rows(_batch(x, geometry), geometry, adapter.n_factors):
            return cls._add(base, adapter, call(x), x)
        return _changed(None, x, base.weight, base.bias, geometry, adapter)

    @classmethod
    def _add(cls, base: Any, adapter: CDDAdapter, y: Tensor, x: Tensor) -> Tensor:
        return _changed(y, adapter.dropped(x), None, None, KernelGeometry.of(base), adapter)

    @classmethod
    def _laid_out(cls, base: Any, change: Tensor) -> Tensor:
        return KernelGeometry.of(base).as_kernel(change)

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


def _batch(x: Tensor, geometry: KernelGeometry) -> Tensor:
    """Return inputs with an axis of samples, which a single one may lack."""
    axes = len(geometry.sizes)
    if x.ndim not in {axes + 1, axes + 2}:
        text = f"must have {axes + 1} axes, or {axes + 2} with one of samples, got shape {tuple(x.shape)}"
        raise ArgumentValueError("CDDConv", "x", text)
    return x.unsqueeze(0) if x.ndim == axes + 1 else x


def _changed(
    y: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    geometry: KernelGeometry,
    adapter: CDDAdapter,
) -> Tensor:
    """Return `y` plus the change of `x`, or the outputs of a layer with the weight and the bias."""
    several = _batch(x, geometry)
    y_several = y if y is None or several is x else y.unsqueeze(0)
    out = changed_convolution(y_several, several, weight, bias, geometry, adapter.vectors.forward(), adapter.gain)
    return out if several is x else out.squeeze(0)
