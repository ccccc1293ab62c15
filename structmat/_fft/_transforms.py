"""Fourier transforms along the last axis, on any array library.

Real data takes the half spectrum of `rfft`, complex data the full one. NumPy arrays go through `scipy.fft`, which keeps
single precision and is faster than `numpy.fft`; every other library uses its own transforms.
"""

from __future__ import annotations

from typing import Any

import scipy  # its `fft` is imported on first use: it would double the import time of structmat

from structmat._arrays import complex_partner, device_of, is_complex, is_numpy
from structmat._typing import Array, Namespace

__all__ = ["fft", "from_spectrum", "full_spectrum", "ifft", "spectrum"]


def _transform(name: str, x: Array, length: int, xp: Namespace, **options: Any) -> Array:
    """Apply one of a library's transforms; `length` is that of its result."""
    if 0 in x.shape:  # no vector at all: torch's transforms fail on an empty batch
        dtype = xp.real(x).dtype if name == "irfft" else complex_partner(x.dtype, xp)
        return xp.zeros((*x.shape[:-1], length), dtype=dtype, device=device_of(x))
    engine = scipy.fft if is_numpy(xp) else xp.fft
    return getattr(engine, name)(x, **options)


def _complex(x: Array, xp: Namespace) -> Array:
    return x if is_complex(x.dtype, xp) else xp.astype(x, complex_partner(x.dtype, xp))


def fft(x: Array, xp: Namespace, *, n: int | None = None, norm: str = "backward") -> Array:
    """Return the complex transform of `x`, real or complex, with zeros appended up to length `n`."""
    return _transform("fft", _complex(x, xp), n or x.shape[-1], xp, n=n, norm=norm)


def ifft(x: Array, xp: Namespace, *, norm: str = "backward") -> Array:
    """Return the inverse complex transform of `x`."""
    return _transform("ifft", _complex(x, xp), x.shape[-1], xp, norm=norm)


def spectrum(x: Array, xp: Namespace, *, real: bool, n: int | None = None) -> Array:
    """Return the half spectrum of real data when `real`, else the full one of any; zeros are added up to length `n`."""
    return _transform("rfft", x, (n or x.shape[-1]) // 2 + 1, xp, n=n) if real else fft(x, xp, n=n)


def from_spectrum(s: Array, n: int, xp: Namespace, *, real: bool) -> Array:
    """Return the signal of length `n` whose half spectrum (`real`) or full spectrum is `s`."""
    return _transform("irfft", s, n, xp, n=n) if real else ifft(s, xp)


def full_spectrum(half: Array, n: int, xp: Namespace) -> Array:
    """Return all `n` values of the spectrum of a real signal from its first ``n // 2 + 1``."""
    mirrored = xp.conj(xp.flip(half[..., 1 : (n + 1) // 2], axis=-1))
    return xp.concat([half, mirrored], axis=-1)
