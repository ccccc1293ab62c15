"""`CDDConv`: a convolution of kernel size 1, which is a linear layer over channels."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from structmat._array_tools import ArgumentTypeError
from structmat.torch._layers.adapted_layer import AdaptedLayer

__all__ = ["CDDConv", "is_pointwise"]


def is_pointwise(module: nn.Module) -> bool:
    """Whether a module is a convolution that mixes channels at each place alone."""
    return (
        isinstance(module, (nn.Conv1d, nn.Conv2d))
        and all(size == 1 for size in (*module.kernel_size, *module.stride, module.groups))
        and (isinstance(module.padding, str) or not any(module.padding))  # "valid" and "same" add nothing then
    )


class CDDConv(AdaptedLayer):
    """A frozen convolution of kernel size 1 and a trainable change ``alpha D C D`` over its channels.

    Parameters
    ----------
    base : torch.nn.Conv1d or torch.nn.Conv2d
        With kernel size and stride 1, one group, no padding. It is frozen and shared, not copied.
    name : str, default "default"
        Of the adapter.
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

    def __init__(self, base: nn.Conv1d | nn.Conv2d, *, name: str = "default", **options: Any) -> None:
        if not is_pointwise(base):
            raise ArgumentTypeError(
                "CDDConv",
                "base",
                f"must be a Conv1d or Conv2d with kernel size and stride 1, one group and no padding, got {base!r}",
            )
        super().__init__(base, base.in_channels, base.out_channels, name=name, **options)

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
        y = base = self.base(x)
        added = self._added()
        if not added and not self._selects:
            return y
        channels = 0 if x.ndim == len(self.base.kernel_size) + 1 else 1
        last = x.ndim - 1  # and not -1, which the older exporter to ONNX writes into the file as it is
        x, y = x.movedim(channels, last), y.movedim(channels, last)
        if self._selects:
            y = self._selected(y, x)
        else:
            for adapter in added:
                y = adapter.add_to(y, x)
        y = y.movedim(last, channels)
        return y.contiguous() if base.is_contiguous() else y
