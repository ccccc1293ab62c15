"""Diagonals of matrices that a transform makes diagonal: products with the squares of the entries of the transform."""

from __future__ import annotations

import math
from typing import NamedTuple

from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import device_of
from structmat._arrays.shapes import padded
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.multipliers import FOURIER
from structmat._fourier.spectra import as_complex, from_spectrum
from structmat._fourier.trigonometric import phases


class _Angles(NamedTuple):
    """The entries of a transform of n points: multiples of the cosine or the sine of ``pi (i + a) (j + b) / (n + c)``.

    Their squares are ``w_i v_j (1 + cos(2 pi (i + a) (j + b) / (n + c))) / (n + c)``, for sines with a minus. The
    weights w and v are ones, but one half at the ends where the transform has entries over the root of two.
    """

    a: float
    """The shift of the points i."""
    b: float
    """The shift of the frequencies j."""
    c: int
    """What the period has more than n."""
    halved_points: tuple[int, ...] = ()
    """The points with a weight of one half."""
    halved_frequencies: tuple[int, ...] = ()
    """The frequencies with a weight of one half."""


_ANGLES = {
    "dct1": _Angles(0.0, 0.0, -1, halved_points=(0, -1), halved_frequencies=(0, -1)),
    "dct2": _Angles(0.5, 0.0, 0, halved_frequencies=(0,)),
    "dct3": _Angles(0.0, 0.5, 0, halved_points=(0,)),
    "dct4": _Angles(0.5, 0.5, 0),
    "dst1": _Angles(1.0, 1.0, 1),
    "dst2": _Angles(0.5, 1.0, 0, halved_frequencies=(-1,)),
    "dst3": _Angles(1.0, 0.5, 0, halved_points=(-1,)),
    "dst4": _Angles(0.5, 0.5, 0),
}


def diagonal_by_transform(values: Array, kind: str, xp: Namespace) -> Array:
    """Return the diagonals of matrices with these eigenvalues: sums of these with the squares of the transform."""
    n = values.shape[-1]
    if kind == FOURIER:
        return xp.broadcast_to(xp.mean(values, axis=-1, keepdims=True), values.shape)
    if n == 1 or 0 in values.shape:
        return values
    if is_complex(values.dtype, xp):
        real, imag = (diagonal_by_transform(part, kind, xp) for part in (xp.real(values), xp.imag(values)))
        return as_complex(real, xp) + 1j * as_complex(imag, xp)
    angles = _ANGLES[kind]
    k = xp.astype(xp.arange(n, device=device_of(values)), values.dtype)
    weighted = values * _halved_at(angles.halved_frequencies, k, xp)
    total = xp.sum(weighted, axis=-1, keepdims=True)
    cosines = _sums_of_cosines(weighted, angles, k, xp)
    sums = total + cosines if kind.startswith("dct") else total - cosines
    return sums * (_halved_at(angles.halved_points, k, xp) / (n + angles.c))


def _sums_of_cosines(weighted: Array, angles: _Angles, k: Array, xp: Namespace) -> Array:
    """Return the sums of ``weighted[j] cos(2 pi (i + a) (j + b) / P)`` over j for all i, with the period P.

    As ``(i + a) (j + b) = i j + a j + (i + a) b``, they are the real parts of an inverse Fourier transform of length P,
    of what is turned by the phases of ``a j``, turned by those of ``(i + a) b``. `k` holds 0, ..., n - 1.
    """
    n = weighted.shape[-1]
    period = n + angles.c
    turn = 2 * math.pi / period
    turned = weighted * phases(k * (turn * angles.a), xp)
    if period < n:  # the last frequency is the first one again
        turned = xp.concat([turned[..., :1] + turned[..., -1:], turned[..., 1:-1]], axis=-1)
    sums = from_spectrum(padded(turned, period, xp), period, xp, real=False)[..., : min(n, period)] * period
    if period < n:  # the last point as well
        sums = xp.concat([sums, sums[..., :1]], axis=-1)
    return xp.real(sums * phases((k + angles.a) * (turn * angles.b), xp))


def _halved_at(places: tuple[int, ...], k: Array, xp: Namespace) -> Array:
    """Return one half at some places, given as indices, and ones elsewhere."""
    weights = xp.ones_like(k)
    for place in places:
        weights = xp.where(k == float(place % k.shape[0]), 0.5 * weights, weights)
    return weights
