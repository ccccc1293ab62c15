"""Vectors of adapters in four or eight bits a number, for small files: how they are rounded, and how a file holds them.

The numbers of a vector become codes, whole numbers from -7 to 7 or from -127 to 127, times a scale, which is that of
the least sum of squared errors. A grid of circulants has a vector, and so a scale, for each of these.

Scales have so few significant bits that their products with codes are exact in bfloat16, and so in every wider dtype.
Therefore rounded vectors are the same numbers in every model, and a second rounding does not change them. For trained
adapters of MiniLM's query and value the relative errors of the dense changes are 0.182 with four bits, as with scales
of single precision, and 0.222 where the scale is a seventh of the largest number. With eight bits they are 0.017, and
0.012 with scales of single precision.

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
from structmat._errors import ArgumentValueError

__all__ = ["packed_state", "require_known_bits", "rounded", "unpacked_state"]

_BITS_OF_DTYPES = {torch.uint8: 4, torch.int8: 8}
"""The numbers of bits that files have, by the dtype of their tensors."""
_SIGNIFICANT_BITS = 8
"""Of numbers in bfloat16."""
_LEAST = 2.0**-100
"""What the first scale that is tried is at least, so that vectors of zeros have one and no scale is subnormal."""


def rounded(vectors: Tensor, bits: int = 4) -> Tensor:
    """Return vectors with their numbers rounded to so many bits, and a scale for each vector.

    Parameters
    ----------
    vectors : Tensor, shape (..., n)
        Finite numbers, of a floating dtype; vectors lie along the last axis.
    bits : int, default 4
        2, 3, 4 or 8: with 5 to 7 a second rounding may change the numbers.

    Returns
    -------
    Tensor, shape (..., n)
        Of the same dtype.
    """
    codes, scales = _codes_and_scales(vectors, bits)
    return (codes * scales).to(vectors.dtype)


def require_known_bits(bits: Any, owner: str) -> None:
    """Refuse a number of bits that vectors cannot have in files; None stands for numbers of a floating dtype."""
    if bits is not None and bits not in _BITS_OF_DTYPES.values():
        raise ArgumentValueError(owner, "bits", f"must be 4, 8, or None for numbers that are not rounded, got {bits!r}")


def packed_state(state: Mapping[str, Tensor], bits: int, owner: str) -> dict[str, Tensor]:
    """Return the tensors of a file by their keys, with the vectors of factors as codes of so many bits and scales.

    Raises
    ------
    ValueError
        If numbers are so large that bfloat16 does not hold what they are rounded to.
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
    """Return the codes of vectors, of shape (..., n), and their scales, (..., 1), both in single precision.

    The scales that can be stored are numbered in order of size. The least one by which no number is cut off is tried,
    and those below it, down to a quarter. The best one is at least half of it for normal numbers, and at least 0.65 of
    it for trained vectors of 384, but less than half where a few numbers of thousands are large.
    """
    largest = _largest_code(bits)
    per_octave = 2 ** (_SIGNIFICANT_BITS - bits)
    wide = vectors.float()
    # The mantissa is at least 1/2 and less than 1.
    mantissa, exponent = torch.frexp((wide.abs().amax(-1, keepdim=True) / largest).clamp(min=_LEAST))
    first = (exponent - 2) * per_octave + torch.ceil(2 * per_octave * mantissa).to(exponent.dtype)

    def rounded_by(number: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scales = torch.ldexp(1 + number % per_octave / per_octave, number // per_octave)
        codes = torch.round(wide / scales).clamp(-largest, largest) + 0.0  # integers in files have no negative zero
        return codes, scales, (codes * scales - wide).square().sum(-1, keepdim=True)

    codes, scales, least = rounded_by(first)
    for below in range(1, 2 * per_octave):
        other_codes, other_scales, errors = rounded_by(first - below)
        better = errors < least
        codes = torch.where(better, other_codes, codes)
        scales = torch.where(better, other_scales, scales)
        least = torch.where(better, errors, least)
    return codes, scales


def _largest_code(bits: int) -> int:
    return 2 ** (bits - 1) - 1


def _packed(vectors: Tensor, bits: int, key: str, owner: str) -> Tensor:
    """Return vectors of shape (..., n) as bytes."""
    codes, scales = _codes_and_scales(vectors.cpu(), bits)
    in_file = scales.bfloat16()
    if not torch.isfinite(_largest_code(bits) * in_file).all():
        raise ArgumentValueError(owner, "bits", f"must be None for the large numbers in {key}, got {bits}")
    codes = codes.to(torch.int8)
    if bits == 4:
        filled = pad(codes, (0, codes.shape[-1] % 2), value=-_largest_code(bits) - 1)
        halves = filled.bitwise_and(15).view(torch.uint8)
        codes = halves[..., ::2] + 16 * halves[..., 1::2]
    return torch.cat((in_file.view(codes.dtype), codes), -1)


def _unpacked(packed: Tensor, key: str, owner: str) -> Tensor:
    """Return the vectors that bytes hold, in bfloat16."""
    bits = _BITS_OF_DTYPES[packed.dtype]
    largest = _largest_code(bits)
    if packed.ndim and packed.shape[-1] > 2:
        codes = packed[..., 2:]
        # A copy, since bytes can be viewed as wider numbers only where strides and places in memory are even.
        scales = packed[..., :2].clone(memory_format=torch.contiguous_format).view(torch.bfloat16)
        if bits == 4:
            halves = torch.stack((codes % 16, codes // 16), -1).flatten(-2).view(torch.int8)
            codes = torch.where(halves > largest, halves - 16, halves)
            if (codes[..., -1] < -largest).all():
                codes = codes[..., :-1]
        if (codes >= -largest).all() and (scales > 0).all() and torch.isfinite(largest * scales).all():
            return codes * scales
    text = f"holds {tuple(packed.shape)} bytes as {key} that are no numbers of {bits} bits with scales: it is damaged"
    raise ArgumentValueError(owner, "folder", text)
