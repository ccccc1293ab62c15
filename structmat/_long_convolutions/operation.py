"""Convolutions as PyTorch defines them, computed directly or by Fourier transforms: one differentiable operation.

The outputs of a convolution are linear in its input and in its weight, and the gradient of each of these is linear in
the other and in the gradient of the outputs. So there are three operations of two arguments each, and the gradients of
one are the other two: gradients of every order are exact, and nothing is kept for them but the arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain
from math import prod
from typing import Any, Literal, TypeAlias, cast, get_args

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.functional import conv1d, conv2d, conv3d, pad

from structmat._arguments import one_of
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._long_convolutions.plan import Convolution, Role, tile_for
from structmat._long_convolutions.transforms import Sizes, correlation, kernel_correlation
from structmat._torch_modes import autocast_dtype, for_compilers, is_recorded, sees_operations
from structmat._torch_rules import in_batches

__all__ = ["LEAST_KERNEL", "LEAST_WORK", "Method", "checked_method", "convolve", "fft_conv", "stays_direct"]

Method: TypeAlias = Literal["auto", "direct", "fft"]
"""How convolutions are computed: as is faster, by PyTorch's own, or by Fourier transforms."""

_DIRECT: dict[int, Any] = {3: conv1d, 4: conv2d, 5: conv3d}
"""PyTorch's own convolutions by the number of axes of the weight."""

LEAST_KERNEL = 16
"""The least number of entries of one kernel for which the choice is made: transforms of shorter ones never won."""
LEAST_WORK = 2**20
"""The least product of the numbers of entries of the input and of one kernel for which the choice is made.

Below it PyTorch's own convolution takes less time than the calls of operations that transforms need.
"""
_DTYPES = {torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.complex128}
_NARROW = (torch.bfloat16, torch.float16)
"""Dtypes that have no transforms: the computation is in float32."""


def fft_conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    method: Method = "auto",
) -> Tensor:
    """Convolve as `torch.nn.functional.conv1d`, `conv2d` and `conv3d` do, by Fourier transforms where they are faster.

    Parameters
    ----------
    input : Tensor, shape (N, in_channels, ...) or (in_channels, ...)
        Inputs with one, two or three axes of space.
    weight : Tensor, shape (out_channels, in_channels / groups, ...)
        Kernels.
    bias : Tensor, shape (out_channels,), optional
        What is added to the outputs.
    stride : int or sequence of int, default 1
        As for `conv1d`, like the following ones.
    padding : int, sequence of int, "valid" or "same", default 0
        Zeros on both sides.
    dilation : int or sequence of int, default 1
        Distance of kernel entries.
    groups : int, default 1
        Number of groups of channels that are convolved on their own.
    method : {"auto", "direct", "fft"}, default "auto"
        "direct" is PyTorch's own convolution, "fft" uses transforms, and "auto" takes what is faster by measured costs,
        for outputs and for each gradient on its own.

    Returns
    -------
    Tensor, shape (N, out_channels, ...) or (out_channels, ...)
        Outputs, in the dtype that `conv1d` would return. Errors are those of rounding: transforms of half precision are
        computed in single precision.

    Raises
    ------
    ValueError
        If the weight has no or more than three axes of space, or there is no such method.
    RuntimeError
        Where `conv1d` raises one, such as for kernels longer than the input.

    See Also
    --------
    FFTConv1d, FFTConv2d, FFTConv3d : The same as modules.

    Notes
    -----
    Long inputs are cut into tiles (overlap-save) whose length is chosen by cost, and channels are mixed by one small
    matrix product for each frequency. Dilation costs nothing. The backward pass keeps input and weight alone, as that
    of `conv1d` does, and can be differentiated again.

    By transforms each output depends on all inputs of its tile: a NaN or an infinity spoils the outputs of a whole
    tile, and rounding errors are relative to the largest outputs of the tile.

    The costs were measured on one core of a processor; other devices are judged by the same numbers of operations, and
    were not measured. Where these mislead, `method` says what to do. Exported programs contain direct convolutions.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import fft_conv
    >>> x, weight = torch.randn(2, 3, 5000), torch.randn(4, 3, 1000)
    >>> y = fft_conv(x, weight, padding=10, method="fft")
    >>> torch.allclose(y, torch.nn.functional.conv1d(x, weight, padding=10), atol=1e-3)
    True
    """
    axes = weight.ndim - 2
    if weight.ndim not in _DIRECT:
        text = f"must have one, two or three axes of space, got shape {tuple(weight.shape)}"
        raise ArgumentValueError("fft_conv", "weight", text)
    checked_method(method, "fft_conv")
    stride, dilation = _for_each_axis(stride, axes, "stride"), _for_each_axis(dilation, axes, "dilation")
    if not isinstance(padding, str):
        padding = _for_each_axis(padding, axes, "padding")
    if stays_direct(method, weight.shape[2:], input):
        return _DIRECT[weight.ndim](input, weight, bias, stride, padding, dilation, groups)
    return convolve(input, weight, bias, stride, padding, dilation, groups, method)


def stays_direct(method: Method, kernel: Sequence[int], input: Tensor) -> bool:
    """Return whether PyTorch's own convolution computes the outputs without a choice by costs."""
    if method == "direct" or (method == "auto" and prod(kernel) < LEAST_KERNEL):
        return True
    if is_recorded() and not for_compilers():  # sizes may be symbols, by which nothing can be chosen
        return True
    return method == "auto" and prod(kernel) * input.numel() < LEAST_WORK


def checked_method(method: Any, owner: str) -> Method:
    """Return a method, or say that there is none of that name."""
    return cast("Method", one_of(method, owner, "method", get_args(Method)))


def _for_each_axis(given: Any, axes: int, name: str) -> Sizes:
    """Return one number for each axis, where one for all may be given."""
    if isinstance(given, int):
        return (given,) * axes
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ArgumentTypeError("fft_conv", name, f"must be a whole number or several, got {given!r}")
    if len(given) not in {1, axes}:
        raise ArgumentValueError("fft_conv", name, f"must be one number or {axes}, got {given!r}")
    return tuple(given) * (axes if len(given) == 1 else 1)


def convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: str | Sizes,
    dilation: Sizes,
    groups: int,
    method: Method,
) -> Tensor:
    """Return what `fft_conv` returns, by "auto" or "fft" and where there is enough work; numbers are for each axis.

    Whatever PyTorch's own convolution would not take is left to it, which says why.
    """
    direct = partial(_DIRECT[weight.ndim], input, weight, bias, stride, padding, dilation, groups)
    compiling = for_compilers()
    forced = method == "fft"
    sizes, more = padding, (0,) * len(stride)
    if isinstance(padding, str):
        sizes, more = _named_padding(padding, weight.shape[2:], stride, dilation)
    shape = (*input.shape,) if input.ndim == weight.ndim else (1, *input.shape)
    if any(more):
        shape = (*shape[:2], *(n + one for n, one in zip(shape[2:], more, strict=False)))
    which = Convolution(shape, (*weight.shape,), stride, cast("Sizes", sizes), dilation, groups)
    dtype = autocast_dtype(input) or input.dtype
    if any(map(_has_mapped_tangent, (input, weight))):
        return direct()
    # Compilers get one operation, which chooses when it runs.
    chosen = which.is_valid() if compiling else _is_transformed(which, input, weight, dtype, forced=forced)
    if not chosen or not _is_usual(input, weight, bias):
        return direct()
    x, w = (input if input.ndim == weight.ndim else input.unsqueeze(0)).to(dtype), weight.to(dtype)
    if any(more):
        x = pad(x, [*chain.from_iterable((0, one) for one in reversed(more))])
    if compiling:
        y = _compiled(x, w, "output", [*which.output], [*stride, *which.padding, *dilation, groups], forced)
    else:
        y = _applied(x, w, "output", which, forced=forced)
    if bias is not None:
        y = y + bias.to(dtype).reshape(-1, *(1 for _ in stride))
    return y if input.ndim == weight.ndim else y.squeeze(0)


def _has_mapped_tangent(tensor: Tensor) -> bool:
    """Return whether ``jacobian(strategy="forward-mode", vectorize=True)`` asks for derivatives in many directions.

    The `vmap` of torch that it uses lacks operations of transforms, and ends in an internal assertion.
    """
    if for_compilers() or forward_ad._current_level < 0 or torch._C._are_functorch_transforms_active():
        return False
    tangent = forward_ad.unpack_dual(tensor).tangent
    return tangent is not None and torch._C._functorch.is_legacy_batchedtensor(tangent)


def _is_usual(input: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Return whether tensors are of kinds and shapes that transforms are known to take."""
    given = [input, weight] if bias is None else [input, weight, bias]
    dtypes = {autocast_dtype(each) or each.dtype for each in given}
    return (
        all(type(each) in {Tensor, nn.Parameter} and each.layout == torch.strided for each in given)
        and all(each.device == input.device and not each.is_meta for each in given)
        and len(dtypes) == 1
        and dtypes <= _DTYPES
        and input.ndim in {weight.ndim - 1, weight.ndim}
        and (bias is None or bias.shape == weight.shape[:1])
    )


def _named_padding(padding: str, kernel: Sizes, stride: Sizes, dilation: Sizes) -> tuple[Sizes, Sizes]:
    """Return how many zeros on both sides a padding of some name means, and how many more at the end.

    "same" means one more for even kernels. What PyTorch refuses has negative numbers, which no convolution has.
    """
    if padding == "same" and max(stride) == 1:
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple(total // 2 for total in totals), tuple(total % 2 for total in totals)
    return (0 if padding == "valid" else -1,) * len(stride), (0,) * len(stride)


def _is_transformed(which: Convolution, x: Tensor, weight: Tensor, dtype: torch.dtype, *, forced: bool) -> bool:
    """Return whether anything that will be computed of a convolution is computed by transforms."""
    roles: list[Role] = ["output"]
    if torch.is_grad_enabled():
        if x.requires_grad:
            roles.append("input")
        if weight.requires_grad:
            roles.append("weight")
    return any(tile_for(which, role, dtype, forced=forced) for role in roles)


# ---- the three operations: each takes two of input, weight and gradient of the outputs, in this order


def computed(a: Tensor, b: Tensor, wanted: Role, which: Convolution, *, forced: bool) -> Tensor:
    """Return the outputs of a convolution, or the gradient of its input or weight; of no conjugates, if complex."""
    tile = tile_for(which, wanted, a.dtype, forced=forced)
    if tile is None:
        return _directly(a, b, wanted, which)
    dtype = a.dtype
    if dtype in _NARROW:
        a, b = a.float(), b.float()
    if wanted == "output":
        y = correlation(a, b, which.padding, which.n_outputs, which.dilation, which.groups, tile)
        if max(which.stride) > 1:
            # The transforms give the outputs of strides of one.
            y = y[(..., *(slice(None, None, s) for s in which.stride))].contiguous()
    elif wanted == "weight":
        y = kernel_correlation(a, _spread(b, which), which.padding, which.kernel, which.dilation, which.groups, tile)
    else:
        # A convolution of the gradient by the kernels turned around, with inputs and outputs exchanged in each group.
        axes = tuple(range(2, a.ndim))
        turned = a.flip(axes).unflatten(0, (which.groups, -1)).transpose(1, 2).flatten(0, 1)
        before = tuple(d * (k - 1) - p for d, k, p in zip(which.dilation, which.kernel, which.padding, strict=True))
        y = correlation(_spread(b, which), turned, before, which.input[2:], which.dilation, which.groups, tile)
    return y.to(dtype)


def _spread(gradient: Tensor, which: Convolution) -> Tensor:
    """Return the gradient of all outputs that a convolution with strides of one has: zeros where there are none."""
    if max(which.stride) == 1:
        return gradient
    spread = gradient.new_zeros(*gradient.shape[:2], *which.n_outputs)
    spread[(..., *(slice(None, None, s) for s in which.stride))] = gradient
    return spread


def _directly(a: Tensor, b: Tensor, wanted: Role, which: Convolution) -> Tensor:
    """Return what `computed` returns, by the operations of PyTorch."""
    stride, padding, dilation, groups = which[2:]
    if wanted == "output":
        return _DIRECT[b.ndim](a, b, None, stride, padding, dilation, groups)
    gradient = b
    nothing = gradient.new_empty(1)  # only the shape of the tensor is read whose gradient is computed
    x, weight = (nothing.expand(which.input), a) if wanted == "input" else (a, nothing.expand(which.weight))
    mask = [wanted == "input", wanted == "weight", False]
    unused = [0] * len(stride)
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, dilation, False, unused, groups, mask
    )[mask.index(True)]


_ROLES: tuple[Role, ...] = get_args(Role)


def _gradient_of(wanted: Role, a: Tensor, b: Tensor, gradient: Tensor, place: int) -> tuple[Tensor, Tensor, Role]:
    """Return the operation, with its arguments, that computes the gradient of the first or second argument of one."""
    first, second = (role for role in _ROLES if role != wanted)
    known = {wanted: gradient, (second, first)[place]: (b, a)[place].conj()}
    left, right = (known[role] for role in _ROLES if role in known)
    return left, right, (first, second)[place]


def _applied(a: Tensor, b: Tensor, wanted: Role, which: Convolution, *, forced: bool) -> Tensor:
    """Return what `computed` returns, as one operation where the tool at work takes one."""
    if sees_operations():
        return computed(a, b, wanted, which, forced=forced)
    return _Convolved.apply(a, b, wanted, which, forced)


class _Convolved(torch.autograd.Function):
    """One of the three operations, which keeps its two arguments alone."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, wanted: Role, which: Convolution, forced: bool) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.wanted, ctx.which, ctx.forced = wanted, which, forced
        return computed(a, b, wanted, which, forced=forced)

    @staticmethod
    @in_batches
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved_tensors
        found: list[Tensor | None] = [None, None]
        for place in (0, 1):
            if ctx.needs_input_grad[place]:
                operation = _gradient_of(ctx.wanted, a, b, gradient, place)
                found[place] = _applied(*operation, ctx.which, forced=ctx.forced)
        return (*found, None, None, None)


# ---- as compilers take them, who do not look inside


@torch.library.custom_op(
    "structmat::convolve",
    mutates_args=(),
    schema="(Tensor a, Tensor b, str wanted, SymInt[] shape, int[] options, bool forced) -> Tensor",
)
def _compiled(a: Tensor, b: Tensor, wanted: Role, shape: list[int], options: list[int], forced: bool) -> Tensor:
    """One of the three operations; `shape` is that of its result.

    `options` are strides, paddings and dilations, each for all axes, and the number of groups.
    """
    *each, groups = options
    n = len(each) // 3
    first, second = (role for role in _ROLES if role != wanted)
    shapes: dict[Role, Sizes] = {first: (*a.shape,), second: (*b.shape,), wanted: (*shape,)}
    which = Convolution(shapes["input"], shapes["weight"], (*each[:n],), (*each[n : 2 * n],), (*each[2 * n :],), groups)
    return computed(a, b, wanted, which, forced=forced)


@_compiled.register_fake
def _of_shape(a: Tensor, b: Tensor, wanted: Role, shape: list[int], *_: Any) -> Tensor:  # noqa: ARG001 - torch names it
    return a.new_empty(shape)


def _keep_arguments(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 - torch names it
    a, b, ctx.wanted, _, ctx.options, ctx.forced = inputs
    ctx.save_for_backward(a, b)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    a, b = ctx.saved_tensors
    found: list[Tensor | None] = [None, None]
    for place, argument in enumerate((a, b)):
        if ctx.needs_input_grad[place]:
            left, right, wanted = _gradient_of(ctx.wanted, a, b, gradient, place)
            found[place] = _compiled(left, right, wanted, [*argument.shape], ctx.options, ctx.forced)
    return (*found, None, None, None, None)


_compiled.register_autograd(_backward, setup_context=_keep_arguments)
