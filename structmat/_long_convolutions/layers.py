"""Convolution layers that compute long kernels by Fourier transforms, and the exchange of those of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils import parametrize

from structmat._arguments import integer
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._long_convolutions.operation import Method, checked_method, convolve, stays_direct

__all__ = ["FFTConv1d", "FFTConv2d", "FFTConv3d", "replace_convolutions"]

_ForAxes: TypeAlias = int | Sequence[int]


class _FFTConv:
    """What the convolution layers share: the step that is theirs, before one of PyTorch's classes."""

    method: Method = "auto"
    """How the layer computes: "auto", "direct" or "fft"."""
    weight: Any
    bias: Any
    stride: tuple[int, ...]
    padding: Any
    dilation: tuple[int, ...]
    groups: int
    padding_mode: str
    _reversed_padding_repeated_twice: list[int]
    kernel_size: tuple[int, ...]
    _plain: ClassVar[Callable[..., Tensor]]
    """The step of PyTorch's class; as an attribute, as `super` takes too long for short convolutions."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _ForAxes,
        stride: _ForAxes = 1,
        padding: str | _ForAxes = 0,
        dilation: _ForAxes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        method: Method = "auto",
    ) -> None:
        checked_method(method, type(self).__name__)
        given: Any = (in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode)
        super().__init__(*given, device, dtype)  # type: ignore[call-arg]
        if method != "auto":
            self.method = method

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if stays_direct(self.method, self.kernel_size, input):
            return self._plain(input, weight, bias)
        padding = self.padding
        if self.padding_mode != "zeros":
            input = pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = (0,) * len(self.stride)
        return convolve(input, weight, bias, self.stride, padding, self.dilation, self.groups, self.method)

    def extra_repr(self) -> str:
        """Return the arguments of the layer as text.

        Returns
        -------
        str
            What stands between the brackets where the layer is printed.
        """
        text: str = super().extra_repr()  # type: ignore[misc]
        return text if self.method == "auto" else f"{text}, method={self.method!r}"


class FFTConv1d(_FFTConv, nn.Conv1d):
    """`torch.nn.Conv1d` for long kernels: signals, computed by Fourier transforms where that is faster.

    Arguments, parameters, their initial values, state dict and outputs are those of `torch.nn.Conv1d`; so a state dict
    of one can be loaded into the other.

    Parameters
    ----------
    in_channels, out_channels : int
        Numbers of channels; multiples of `groups`.
    kernel_size : int or sequence of one int
        Number of entries of each kernel.
    stride : int or sequence of one int, default 1
        Distance of the places of two outputs.
    padding : int, sequence of one int, "valid" or "same", default 0
        Number of entries that are added before and behind the signal. "valid" adds none; "same" keeps the length, with
        one more behind than before if the kernel is even.
    dilation : int or sequence of one int, default 1
        Distance of the places that two entries of a kernel meet.
    groups : int, default 1
        Number of groups of channels that are convolved on their own.
    bias : bool, default True
        Whether each output channel has a number that is added.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}, default "zeros"
        What the added entries are.
    device, dtype : optional
        Of the parameters.
    method : {"auto", "direct", "fft"}, default "auto"
        "auto" takes what is faster by measured costs; "direct" is what `torch.nn.Conv1d` does. It is an attribute, too,
        and may be changed at any time.

    Raises
    ------
    ValueError
        If there is no such method, or where `torch.nn.Conv1d` raises one.

    See Also
    --------
    fft_conv : The same as a function; it says how the choice is made.
    replace_convolutions : Exchanges the convolutions of a model.

    Notes
    -----
    With the input x of shape (batch, in_channels, length), and zeros outside of it,

    ``y[n, o, i] = bias[o] + sum over c, k of weight[o, c, k] x[n, c, i stride + k dilation - padding]``

    for ``floor((length + 2 padding - dilation (kernel_size - 1) - 1) / stride) + 1`` places i. With several groups, c
    goes over the input channels of the group that o belongs to. The weight has the shape (out_channels, in_channels /
    groups, kernel_size). The input may lack the axis of the batch; the output does then, too.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import FFTConv1d
    >>> layer = FFTConv1d(32, 32, 1024)
    >>> plain = torch.nn.Conv1d(32, 32, 1024)
    >>> _ = plain.load_state_dict(layer.state_dict())
    >>> x = torch.randn(1, 32, 2500)
    >>> layer(x).shape, torch.allclose(layer(x), plain(x), atol=1e-5)
    (torch.Size([1, 32, 1477]), True)
    """

    _plain = nn.Conv1d._conv_forward


class FFTConv2d(_FFTConv, nn.Conv2d):
    """`torch.nn.Conv2d` for large kernels: images, computed by Fourier transforms where that is faster.

    Arguments, parameters, their initial values, state dict and outputs are those of `torch.nn.Conv2d`.

    Parameters
    ----------
    in_channels, out_channels : int
        Numbers of channels; multiples of `groups`.
    kernel_size : int or (int, int)
        Height and width of each kernel; one number stands for both, here and below.
    stride : int or (int, int), default 1
        Distance of two outputs down and across.
    padding : int, (int, int), "valid" or "same", default 0
        Numbers of rows that are added above and below the image, and of columns on the left and on the right. "valid"
        adds none; "same" keeps height and width, with one more at the end along axes on which the kernel is even.
    dilation : int or (int, int), default 1
        Distance of the places that two entries of a kernel meet, down and across.
    groups : int, default 1
        Number of groups of channels that are convolved on their own; `in_channels` for a depthwise convolution.
    bias : bool, default True
        Whether each output channel has a number that is added.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}, default "zeros"
        What the added pixels are.
    device, dtype : optional
        Of the parameters.
    method : {"auto", "direct", "fft"}, default "auto"
        "auto" takes what is faster by measured costs; "direct" is what `torch.nn.Conv2d` does. It is an attribute, too,
        and may be changed at any time.

    Raises
    ------
    ValueError
        If there is no such method, or where `torch.nn.Conv2d` raises one.

    See Also
    --------
    fft_conv : The same as a function; it says how the choice is made.
    replace_convolutions : Exchanges the convolutions of a model.

    Notes
    -----
    With the images x of shape (batch, in_channels, height, width), and zeros outside of them,

    ``y[n, o, i, j] = bias[o] + sum over c, k, l of weight[o, c, k, l] x[n, c, i' + k dilation[0], j' + l dilation[1]]``

    where ``i' = i stride[0] - padding[0]`` and ``j' = j stride[1] - padding[1]``. Along each axis there are
    ``floor((size + 2 padding - dilation (kernel_size - 1) - 1) / stride) + 1`` places. The weight has the shape
    (out_channels, in_channels / groups, height, width), with those of the kernel.

    Examples
    --------
    A depthwise convolution as in networks with large kernels, which keeps height and width:

    >>> import torch
    >>> from structmat.torch import FFTConv2d
    >>> layer = FFTConv2d(8, 8, 31, padding="same", groups=8, bias=False)
    >>> layer.weight.shape
    torch.Size([8, 1, 31, 31])
    >>> x = torch.randn(2, 8, 64, 48)
    >>> plain = torch.nn.functional.conv2d(x, layer.weight, padding="same", groups=8)
    >>> layer(x).shape, torch.allclose(layer(x), plain, atol=1e-5)
    (torch.Size([2, 8, 64, 48]), True)
    """

    _plain = nn.Conv2d._conv_forward


class FFTConv3d(_FFTConv, nn.Conv3d):
    """`torch.nn.Conv3d` for large kernels: volumes and videos, by Fourier transforms where that is faster.

    Arguments, parameters, their initial values, state dict and outputs are those of `torch.nn.Conv3d`.

    Parameters
    ----------
    in_channels, out_channels : int
        Numbers of channels; multiples of `groups`.
    kernel_size : int or (int, int, int)
        Depth, height and width of each kernel, where depth is time in a video; one number stands for all three, here
        and below.
    stride : int or (int, int, int), default 1
        Distance of two outputs along each axis.
    padding : int, (int, int, int), "valid" or "same", default 0
        Numbers of entries that are added at both ends of each axis. "valid" adds none; "same" keeps all three sizes,
        with one more at the end along axes on which the kernel is even.
    dilation : int or (int, int, int), default 1
        Distance of the places that two entries of a kernel meet along each axis.
    groups : int, default 1
        Number of groups of channels that are convolved on their own.
    bias : bool, default True
        Whether each output channel has a number that is added.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}, default "zeros"
        What the added entries are.
    device, dtype : optional
        Of the parameters.
    method : {"auto", "direct", "fft"}, default "auto"
        "auto" takes what is faster by measured costs; "direct" is what `torch.nn.Conv3d` does. It is an attribute, too,
        and may be changed at any time.

    Raises
    ------
    ValueError
        If there is no such method, or where `torch.nn.Conv3d` raises one.

    See Also
    --------
    fft_conv : The same as a function; it says how the choice is made.
    replace_convolutions : Exchanges the convolutions of a model.

    Notes
    -----
    With the volumes x of shape (batch, in_channels, depth, height, width), and zeros outside of them,

    ``y[n, o, i] = bias[o] + sum over c, k of weight[o, c, k] x[n, c, i stride + k dilation - padding]``

    where i and k are places in a volume and in a kernel, of three numbers each, and products and sums in the last
    brackets are taken axis by axis. Along each axis there are
    ``floor((size + 2 padding - dilation (kernel_size - 1) - 1) / stride) + 1`` places. The weight has the shape
    (out_channels, in_channels / groups, depth, height, width), with those of the kernel.

    Examples
    --------
    A video of 8 frames, of which each output sees 3, and every second row and column:

    >>> import torch
    >>> from structmat.torch import FFTConv3d
    >>> layer = FFTConv3d(2, 4, (3, 9, 9), stride=(1, 2, 2))
    >>> x = torch.randn(1, 2, 8, 20, 20)
    >>> plain = torch.nn.functional.conv3d(x, layer.weight, layer.bias, stride=(1, 2, 2))
    >>> layer(x).shape, torch.allclose(layer(x), plain, atol=1e-5)
    (torch.Size([1, 4, 6, 6, 6]), True)
    """

    _plain = nn.Conv3d._conv_forward


_REPLACEMENTS: dict[type, Any] = {nn.Conv1d: FFTConv1d, nn.Conv2d: FFTConv2d, nn.Conv3d: FFTConv3d}


def replace_convolutions(model: nn.Module, *, min_kernel: int = 16, method: Method = "auto") -> tuple[str, ...]:
    """Let the convolutions of a model use Fourier transforms where these are faster, in place.

    The layers stay the objects that they are, and change their class: parameters, optimizers that hold them, buffers,
    hooks, parametrisations and modes are kept.

    Parameters
    ----------
    model : Module
        The model; it may be a convolution itself.
    min_kernel : int, default 16
        The length of the longest side that kernels have at least where a layer is replaced.
    method : {"auto", "direct", "fft"}, default "auto"
        How the layers compute, as for `FFTConv1d`.

    Returns
    -------
    tuple of str
        The paths of the layers that were replaced; that of the model itself is empty.

    Raises
    ------
    ValueError
        If there is no such layer, or an argument is wrong; nothing has changed then.
    TypeError
        If the model is no module.

    See Also
    --------
    FFTConv1d, FFTConv2d, FFTConv3d : What the layers become.

    Notes
    -----
    Layers of `torch.nn.Conv1d`, `Conv2d` and `Conv3d` are replaced. Those of other classes are left alone, as these may
    compute something else: subclasses, lazy layers that have not seen an input, quantised and transposed ones.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import replace_convolutions
    >>> model = torch.nn.Sequential(torch.nn.Conv1d(4, 8, 512), torch.nn.ReLU(), torch.nn.Conv1d(8, 1, 3))
    >>> replace_convolutions(model, min_kernel=64)
    ('0',)
    >>> type(model[0]).__name__, type(model[2]).__name__
    ('FFTConv1d', 'Conv1d')
    """
    if not isinstance(model, nn.Module):
        text = f"must be a torch.nn.Module, got {type(model).__name__}"
        raise ArgumentTypeError("replace_convolutions", "model", text)
    least = integer(min_kernel, "replace_convolutions", "min_kernel")
    checked_method(method, "replace_convolutions")
    plain = {path: module for path, module in model.named_modules() if _plain_class(module)}
    found = {path: module for path, module in plain.items() if max(module.kernel_size) >= least}
    if not found:
        longest = max((max(module.kernel_size) for module in plain.values()), default=None)
        seen = "there is none at all" if longest is None else f"the longest one has {longest}"
        changed = sum(isinstance(module, _FFTConv) for module in model.modules())
        if changed:
            seen += f" beside the {changed} that compute by transforms already; set `method` of these"
        text = f"has no Conv1d, Conv2d or Conv3d with a kernel of at least min_kernel={least}: {seen}"
        raise ArgumentValueError("replace_convolutions", "model", text)
    for module in found.values():
        module.__class__ = _replacement(module)
        if method != "auto":
            module.method = method
    return tuple(found)


def _plain_class(module: nn.Module) -> type | None:
    """Return the class of convolutions of PyTorch that a module is of, parametrised or not; None for other modules."""
    cls = type(module)
    if parametrize.is_parametrized(module) and len(cls.__bases__) == 1:
        (cls,) = cls.__bases__
    return cls if cls in _REPLACEMENTS else None


def _replacement(module: nn.Module) -> type:
    """Return the class that a convolution changes to."""
    cls = type(module)
    new: type = _REPLACEMENTS[_plain_class(module)]  # type: ignore[index]
    if cls in _REPLACEMENTS:
        return new
    # PyTorch gave the module a class of its own, with a property for each parametrised tensor.
    own = {name: value for name, value in vars(cls).items() if name not in {"__dict__", "__weakref__", "__module__"}}
    return type(f"Parametrized{new.__name__}", (new,), own)
