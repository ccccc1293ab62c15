"""Vectors of adapters in four bits a number: how they are rounded.

The numbers of a vector become codes, whole numbers from -7 to 7, times a scale, which is that of the least sum of
squared errors. A grid of circulants has a vector, and so a scale, for each of these.

Scales have so few significant bits that their products with codes are exact in bfloat16, and so in every wider dtype.
Therefore rounded vectors are the same numbers in every model, and a second rounding does not change them. For trained
adapters of MiniLM's query and value, the relative errors of the dense changes are 0.182 on average by such scales as by
those of single precision, and 0.222 where the scale is a seventh of the largest number.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["rounded"]

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
        At least 2 and at most 4.

    Returns
    -------
    Tensor, shape (..., n)
        Of the same dtype.
    """
    codes, scales = _codes_and_scales(vectors, bits)
    return (codes * scales).to(vectors.dtype)


def _codes_and_scales(vectors: Tensor, bits: int = 4) -> tuple[Tensor, Tensor]:
    """Return the codes of vectors, of shape (..., n), and their scales, (..., 1), both in single precision.

    The scales that can be stored are numbered in order of size. The least one by which no number is cut off is tried,
    and those below it, down to a quarter. The best one is at least half of it for normal numbers, and at least 0.65 of
    it for trained vectors of 384, but less than half where a few numbers of thousands are large.
    """
    largest = 2 ** (bits - 1) - 1
    per_octave = 2 ** (_SIGNIFICANT_BITS - bits)
    wide = vectors.float()
    # The mantissa is at least 1/2 and less than 1.
    mantissa, exponent = torch.frexp((wide.abs().amax(-1, keepdim=True) / largest).clamp(min=_LEAST))
    first = (exponent - 2) * per_octave + torch.ceil(2 * per_octave * mantissa).to(exponent.dtype)

    def rounded_by(number: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scales = torch.ldexp(1 + number % per_octave / per_octave, number // per_octave)
        codes = torch.round(wide / scales).clamp(-largest, largest)
        return codes, scales, (codes * scales - wide).square().sum(-1, keepdim=True)

    codes, scales, least = rounded_by(first)
    for below in range(1, 2 * per_octave):
        other_codes, other_scales, errors = rounded_by(first - below)
        better = errors < least
        codes = torch.where(better, other_codes, codes)
        scales = torch.where(better, other_scales, scales)
        least = torch.where(better, errors, least)
    return codes, scales
