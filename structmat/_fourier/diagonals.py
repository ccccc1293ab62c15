"""Diagonals of matrices that a transform makes diagonal: products with the squares of the entries of the transform."""

from __future__ import annotations

import math

from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import device_of
from structmat._arrays.shapes import padded
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.multipliers import FOURIER
from structmat._fourier.spectra import as_complex, from_spectrum
from structmat._fourier.trigonometric import phases

_SHIFTS = {
    "dct1": (0.0, 0.0, -1), "dct2": (0.5, 0.0, 0), "dct3": (0.0, 0.5, 0), "dct4": (0.5, 0.5, 0),
    "dst1": (1.0, 1.0, 1), "dst2": (0.5, 1.0, 0), "dst3": (1.0, 0.5, 0), "dst4": (0.5, 0.5, 0),
}  # fmt: skip
"""For each transform the shifts a of the points and b of the frequencies, and what is added to the length n for the
period P: its entries are multiples of the cosine or the sine of ``pi (i + a) (j + b) / P``."""

_HALVED = {
    "dct1": ((0, -1), (0, -1)), "dct2": ((), (0,)), "dct3": ((0,), ()), "dst2": ((), (-1,)), "dst3": ((-1,), ()),
}  # fmt: skip
"""The points and the frequencies whose entries have only half of the square of the others."""


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
    # The square of the cosine is that of the double angle plus one, halved; its sum is a Fourier transform.
    of_points, of_frequencies, added = _SHIFTS[kind]
    period = n + added
    k = xp.astype(xp.arange(n, device=device_of(values)), values.dtype)
    points, frequencies = _HALVED.get(kind, ((), ()))
    weighted = values * _halved_at(frequencies, k, xp)
    turn = 2 * math.pi / period
    g = weighted * phases(k * (turn * of_points), xp)
    if added < 0:
        g = xp.concat([g[..., :1] + g[..., -1:], g[..., 1:-1]], axis=-1)
    sums = from_spectrum(padded(g, period, xp), period, xp, real=False)[..., : min(n, period)] * period
    if added < 0:
        sums = xp.concat([sums, sums[..., :1]], axis=-1)
    sums = xp.real(sums * phases((k + of_points) * (turn * of_frequencies), xp))
    total = xp.sum(weighted, axis=-1, keepdims=True)
    return (total + sums if kind[:3] == "dct" else total - sums) * (_halved_at(points, k, xp) / period)


def _halved_at(places: tuple[int, ...], k: Array, xp: Namespace) -> Array:
    """Return one half at some places, given as indices, and ones elsewhere."""
    weights = xp.ones_like(k)
    for place in places:
        weights = xp.where(k == float(place % k.shape[0]), 0.5 * weights, weights)
    return weights
