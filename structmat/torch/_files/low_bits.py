"""Vectors of adapters in four or eight bits a number, for small files: how they are rounded, and how a file holds them.

The numbers of a vector become codes, whole numbers from -7 to 7 or from -127 to 127, times a scale, which is that of
the least sum of squared errors. A grid of circulants has a vector, and so a scale, for each of these.

Scales are numbers of bfloat16. With four bits only those are taken whose products with codes are exact in bfloat16, and
so in every wider dtype: rounded vectors are the same numbers in every model, at no loss, since the relative errors of
the dense changes of trained adapters of MiniLM's query and value are 0.182, as with scales of single precision (0.222
where the scale is a seventh of the largest number). With eight bits such scales would be powers of two, and those
errors 0.017 in place of the 0.012 of scales of single precision: every scale is taken, and products are exact in
float32, which vectors have at least unless a dtype was asked for. A second rounding does not change them.

In a file a tensor of vectors, of shape (..., n), has the same key, and its last axis holds two bytes of the scale in
bfloat16, the low byte first, and the codes in two's complement. Those of eight bits are a tensor of int8, of shape
(..., 2 + n). Those of four bits are one of uint8, of shape (..., 2 + ceil(n / 2)), each byte with two codes, the first
one in its lower half; where n is odd, the last half is filled by -8, which is no number's code. An own tensor for the
scale would take more bytes in the header of the file than the scale has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from structmat._adapter_format import FACTOR_KEY
from structmat._arguments import integer
from structmat._errors import ArgumentValueError

__all__ = ["packed_state", "require_known_bits", "rounded", "unpacked_state"]

_BITS_OF_DTYPES = {torch.uint8: 4, torch.int8: 8}
"""The numbers of bits that files have, by the dtype of their tensors."""
_LEAST = 0x0080
"""The bits of the smallest normal number of bfloat16, which scales are at least: vectors of zeros have it."""


def rounded(vectors: Tensor, bits: int = 4) -> Tensor:
    """Return vectors with their numbers rounded to so many bits, and a scale for each vector.

    Parameters
    ----------
    vectors : Tensor, shape (..., n)
        Finite numbers, of a floating dtype; vectors lie along the last axis.
    bits : int, default 4
        From 2 to 8.

    Returns
    -------
    Tensor, shape (..., n)
        Of the same dtype.
    """
    codes, scales = _codes_and_scales(vectors, bits)
    return (codes * scales).to(vectors.dtype)


def require_known_bits(bits: Any, owner: str) -> None:
    """Refuse a number of bits that vectors cannot have in files; None stands for numbers of a floating dtype."""
    if bits is not None and integer(bits, owner, "bits") not in _BITS_OF_DTYPES.values():
        raise ArgumentValueError(owner, "bits", f"must be 4, 8, or None for numbers that are not rounded, got {bits!r}")


def packed_state(state: Mapping[str, Tensor], bits: int, owner: str) -> dict[str, Tensor]:
    """Return the tensors of a file by their keys, with the vectors of factors as codes of so many bits and scales.

    Raises
    ------
    ValueError
        If a number is larger than those of bfloat16.
    """
    return {
        key: _packed(tensor, bits, key, owner) if FACTOR_KEY.match(key) else tensor for key, tensor in state.items()
    }


def unpacked_state(state: Mapping[str, Tensor], owner: str) -> dict[str, Tensor]:
    """Return the tensors of a file by their keys, with the vectors of factors that are codes and scales in bfloat16.

    Raises
    ------
    ValueError
        If these are none that `packed_state` returns.
    """
    return {
        key: _unpacked(tensor, key, owner) if tensor.dtype in _BITS_OF_DTYPES and FACTOR_KEY.match(key) else tensor
        for key, tensor in state.items()
    }


def _codes_and_scales(vectors: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return the codes of vectors, of shape (..., n), and their scales, (..., 1), both in double precision.

    All scales are tried by which the largest number gets the largest code, from the largest one downward, until the
    numbers that are cut off have larger errors alone. So a second rounding finds the scale again: no other one has
    the largest of the rounded numbers. Larger scales, which leave codes unused, are better by chance alone: for 384
    normal numbers in eight bits by at most 10 %, in most vectors not at all. Errors are squared in double precision,
    where the squares of the smallest numbers are no zeros.
    """
    largest = _largest_code(bits)
    step = 1 if bits > 4 else 2 ** (bits - 1)  # of the bits of a scale, which are in order of size
    wide = vectors.double()
    sizes = wide.abs()
    # A little less, since a half would be rounded to the code below.
    most = sizes.amax(-1, keepdim=True) / (largest - 0.5) * (1 - torch.finfo(torch.float32).eps)
    most = most.clamp(max=torch.finfo(torch.bfloat16).max / largest)
    number = (most.float().view(torch.int32) >> 16).clamp(min=_LEAST) // step * step
    scales = _scale_of(number)
    codes = _codes(wide, scales, largest)
    least = (codes * scales - wide).square().sum(-1, keepdim=True)
    while True:
        number = number - step
        tried = _scale_of(number)
        cut_off = (sizes - largest * tried).clamp(min=0).square().sum(-1, keepdim=True)
        if not ((cut_off < least) & (number >= _LEAST)).any():
            return codes, scales
        own = _codes(wide, tried, largest)
        errors = (own * tried - wide).square().sum(-1, keepdim=True)
        better = (errors < least) & (number >= _LEAST)
        codes = torch.where(better, own, codes)
        scales = torch.where(better, tried, scales)
        least = torch.where(better, errors, least)


def _scale_of(number: Tensor) -> Tensor:
    """Return the numbers of bfloat16 that have some bits."""
    return (number.clamp(min=_LEAST) << 16).view(torch.float32).double()


def _codes(vectors: Tensor, scales: Tensor, largest: int) -> Tensor:
    """Return the codes of the multiples of scales that are nearest to numbers."""
    return torch.round(vectors / scales).clamp(-largest, largest) + 0.0  # integers in files have no negative zero


def _largest_code(bits: int) -> int:
    return 2 ** (bits - 1) - 1


def _packed(vectors: Tensor, bits: int, key: str, owner: str) -> Tensor:
    """Return vectors of shape (..., n) as bytes."""
    if (vectors.abs() > torch.finfo(torch.bfloat16).max).any():
        raise ArgumentValueError(owner, "bits", f"must be None for the large numbers in {key}, got {bits}")
    codes, scales = _codes_and_scales(vectors.cpu(), bits)
    codes = codes.to(torch.int8)
    if bits == 4:
        filled = pad(codes, (0, codes.shape[-1] % 2), value=-_largest_code(bits) - 1)
        halves = filled.bitwise_and(15).view(torch.uint8)
        codes = halves[..., ::2] + 16 * halves[..., 1::2]
    return torch.cat((scales.bfloat16().view(codes.dtype), codes), -1)


def _unpacked(packed: Tensor, key: str, owner: str) -> Tensor:
    """Return the vectors that bytes hold, in float32."""
    bits = _BITS_OF_DTYPES[packed.dtype]
    largest = _largest_code(bits)
    if packed.ndim and packed.shape[-1] > 2:
        codes = packed[..., 2:]
        # A copy, since bytes can be viewed as wider numbers only where strides and places in memory are even.
        scales = packed[..., :2].clone(memory_format=torch.contiguous_format).view(torch.bfloat16).float()
        if bits == 4:
            halves = torch.stack((codes % 16, codes // 16), -1).flatten(-2).view(torch.int8)
            codes = torch.where(halves > largest, halves - 16, halves)
            if (codes[..., -1] < -largest).all():
                codes = codes[..., :-1]
        if (codes >= -largest).all() and (scales > 0).all() and torch.isfinite(largest * scales).all():
            return codes * scales
    text = f"holds {tuple(packed.shape)} bytes as {key} that are no numbers of {bits} bits with scales: it is damaged"
    raise ArgumentValueError(owner, "folder", text)
