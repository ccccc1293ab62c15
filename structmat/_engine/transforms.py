"""Fourier transforms along the last axis, on any array library.

Real data takes the half spectrum of `rfft`, complex data the full one. NumPy arrays go through `scipy.fft`, which keeps
single precision and is faster than `numpy.fft`; every other library uses its own transforms.
"""

from __future__ import annotations

from typing import Any

import scipy  # its `fft` is imported on first use: it would double the import time of structmat

from structmat._arrays import complex_partner, device_of, is_complex, is_numpy, library_of, precision_of
from structmat._arrays.typing import Array, Namespace

__all__ = ["fft", "from_spectrum", "full_spectrum", "ifft", "spectrum", "transforms_of"]


def transforms_of(xp: Namespace) -> Any:
    """Return the module of transforms for arrays of that library."""
    return scipy.fft if is_numpy(xp) else xp.fft


def _nothing(x: Array, length: int, dtype: Any, xp: Namespace) -> Array:
    """Return the transforms of no vectors at all: those of torch fail on an empty batch."""
    return xp.zeros((*x.shape[:-1], length), dtype=dtype, device=device_of(x))


def _complex(x: Array, xp: Namespace) -> Array:
    return x if is_complex(x.dtype, xp) else xp.astype(x, complex_partner(x.dtype, xp))


def _is_trivial(x: Array, n: int | None, xp: Namespace) -> bool:
    """Tell whether a transform has length one and is left out: some of these XLA does not compile."""
    return library_of(xp) == "jax" and x.shape[-1] == (n or 1) == 1


def fft(x: Array, xp: Namespace, *, n: int | None = None, norm: str = "backward") -> Array:
    """Return the complex transform of `x`, real or complex, with zeros appended up to length `n`."""
    x = _complex(x, xp)
    if 0 in x.shape:
        return _nothing(x, n or x.shape[-1], x.dtype, xp)
    if _is_trivial(x, n, xp):
        return x
    result: Array = transforms_of(xp).fft(x, n=n, norm=norm)
    return result


def ifft(x: Array, xp: Namespace, *, norm: str = "backward") -> Array:
    """Return the inverse complex transform of `x`."""
    x = _complex(x, xp)
    if 0 in x.shape:
        return _nothing(x, x.shape[-1], x.dtype, xp)
    if _is_trivial(x, None, xp):
        return x
    result: Array = transforms_of(xp).ifft(x, norm=norm)
    return result


def spectrum(x: Array, xp: Namespace, *, real: bool, n: int | None = None) -> Array:
    """Return the half spectrum of real data when `real`, else the full one of any; zeros are added up to length `n`."""
    if not real:
        return fft(x, xp, n=n)
    if 0 in x.shape:
        return _nothing(x, (n or x.shape[-1]) // 2 + 1, complex_partner(x.dtype, xp), xp)
    if _is_trivial(x, n, xp):
        return _complex(x, xp)
    result: Array = transforms_of(xp).rfft(x, n=n)
    return result


def from_spectrum(s: Array, n: int, xp: Namespace, *, real: bool) -> Array:
    """Return the signal of length `n` whose half spectrum (`real`) or full spectrum is `s`."""
    if not real:
        return ifft(s, xp)
    if 0 in s.shape:
        return _nothing(s, n, precision_of(s.dtype, xp), xp)
    if _is_trivial(s, n, xp):
        return xp.real(s)
    result: Array = transforms_of(xp).irfft(s, n=n)
    return result


def full_spectrum(half: Array, n: int, xp: Namespace) -> Array:
    """Return all `n` values of the spectrum of a real signal from its first ``n // 2 + 1``."""
    mirrored = xp.conj(xp.flip(half[..., 1 : (n + 1) // 2], axis=-1))
    return xp.concat([half, mirrored], axis=-1)
