"""`CDDConv`: a frozen convolution with a change over its channels."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from structmat._errors import ArgumentTypeError
from structmat.torch._adapter import CDDAdapter
from structmat.torch._layers.adapted_layer import AdaptedLayer

__all__ = ["CDDConv"]


class CDDConv(AdaptedLayer):
    """A frozen convolution of kernel size 1 and a trainable change ``alpha D C D`` over its channels.

    Parameters
    ----------
    base : torch.nn.Conv1d or torch.nn.Conv2d
        With kernel size and stride 1, one group, no padding. It is frozen and shared, not copied.
    **options
        Arguments of `CDDAdapter`.

    Raises
    ------
    TypeError
        If the base is another module.
    ValueError
        If an option is wrong.

    See Also
    --------
    CDDLinear : The same for linear layers.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import CDDConv
    >>> layer = CDDConv(torch.nn.Conv2d(3, 5, 1))
    >>> layer(torch.ones(2, 3, 4, 4)).shape
    torch.Size([2, 5, 4, 4])
    """

    _plural = "convolutions of kernel size 1"

    def __init__(self, base: nn.Conv1d | nn.Conv2d, **options: Any) -> None:
        super().__init__(base, *self._features(base), **options)

    @classmethod
    def _recognises(cls, module: nn.Module) -> bool:
        return (
            isinstance(module, (nn.Conv1d, nn.Conv2d))
            and all(size == 1 for size in (*module.kernel_size, *module.stride, module.groups))
            # The paddings "valid" and "same" add nothing around a kernel of size 1.
            and (isinstance(module.padding, str) or not any(module.padding))
        )

    @classmethod
    def _features(cls, base: Any) -> tuple[int, int]:
        if not cls._recognises(base):
            text = f"must be a Conv1d or Conv2d with kernel size and stride 1, one group and no padding, got {base!r}"
            raise ArgumentTypeError("CDDConv", "base", text)
        return base.in_channels, base.out_channels

    @classmethod
    def _add(cls, base: Any, adapter: CDDAdapter, y: Tensor, x: Tensor) -> Tensor:
        channels = 0 if x.ndim == len(base.kernel_size) + 1 else 1
        # The last axis is not called -1, which the older exporter to ONNX writes into the file as it is.
        last = x.ndim - 1
        changed = adapter.add_to(y.movedim(channels, last), x.movedim(channels, last)).movedim(last, channels)
        return changed.contiguous() if y.is_contiguous() else changed

    @classmethod
    def _laid_out(cls, base: Any, change: Tensor) -> Tensor:
        return change.reshape(*change.shape, *base.kernel_size)

    @classmethod
    def _multiplies_by_weight(cls, base: Any, features: tuple[int, int]) -> bool:
        return type(base) in {nn.Conv1d, nn.Conv2d} or super()._multiplies_by_weight(base, features)

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
        """
        return self._outputs(self.base, self.adapter, x, self.base)
