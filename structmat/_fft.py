"""Fourier transforms along the last axis; the only file that names an FFT.

Real data takes the half spectrum of `rfft`, complex data the full one. NumPy arrays go through `scipy.fft`, which keeps
single precision and is faster than `numpy.fft`; every other library uses its own transforms.
"""

from __future__ import annotations

from typing import Any

import scipy  # its `fft` is imported on first use: it would double the import time of structmat

from structmat._arrays import complex_partner, device_of, is_complex, is_numpy
from structmat._typing import Array, Namespace

__all__ = ["convolve_valid", "fast_length", "fft", "from_spectrum", "full_spectrum", "ifft", "spectrum"]

_FAST = (
    (135, 256), (9, 16), (75, 128), (5, 8), (675, 1024), (45, 64), (3, 4), (25, 32), (3375, 4096), (27, 32), (225, 256),
    (15, 16),
)  # fmt: skip
"""Odd products of 3 and 5 as fractions of a power of two, ascending from 1/2 to 1 in steps of at most 1/15."""


def _transform(name: str, x: Array, length: int, xp: Namespace, **options: Any) -> Array:
    """Apply one of a library's transforms; `length` is that of its result."""
    if 0 in x.shape:  # no vector at all: torch's transforms fail on an empty batch
        dtype = xp.real(x).dtype if name == "irfft" else complex_partner(x.dtype, xp)
        return xp.zeros((*x.shape[:-1], length), dtype=dtype, device=device_of(x))
    engine = scipy.fft if is_numpy(xp) else xp.fft
    return getattr(engine, name)(x, **options)


def _complex(x: Array, xp: Namespace) -> Array:
    return x if is_complex(x.dtype, xp) else xp.astype(x, complex_partner(x.dtype, xp))


def fast_length(n: int) -> int:
    """Return a length from `n` on that every library transforms fast: 2^k, or 2^k times a fraction of `_FAST`.

    Plain arithmetic, without a cache or a library's own choice, so that torch.compile can trace it.
    """
    power = 1
    while power < n:
        power *= 2
    for odd, whole in _FAST:
        if power % whole == 0 and power // whole * odd >= n:
            return power // whole * odd
    return power


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


def convolve_valid(t: Array, x: Array, xp: Namespace) -> Array:
    """Return what the convolution of `t` with an `x` that is not longer holds without zeros beyond the ends of `t`.

    It is ``numpy.convolve(t, x, "valid")``, or ``y[i] = sum over j of t[i + n - 1 - j] x[j]`` for n = len(x). In a
    circular convolution of a length from len(t) on, what wraps around falls on the first n - 1 entries: they are cut.
    """
    real = not (is_complex(t.dtype, xp) or is_complex(x.dtype, xp))
    length = fast_length(t.shape[-1])
    product = spectrum(t, xp, real=real, n=length) * spectrum(x, xp, real=real, n=length)
    return from_spectrum(product, length, xp, real=real)[..., x.shape[-1] - 1 : t.shape[-1]]
