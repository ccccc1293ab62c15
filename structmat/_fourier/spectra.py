"""Spectra of vectors, and vectors by their spectra, with the transforms of their own library."""

from __future__ import annotations

from typing import Any

import scipy  # its `fft` is imported on first use: it would double the import time of structmat

from structmat._arrays.dtypes import complex_partner, is_complex, precision_of
from structmat._arrays.libraries import device_of, rules_of
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.typing import Array, Namespace


def no_transforms(x: Array, shape: tuple[int, ...], xp: Namespace, *, real: bool) -> Array:
    """Return the transforms of no vectors at all: those of torch fail on an empty batch."""
    return xp.zeros(shape, dtype=(precision_of if real else complex_partner)(x.dtype, xp), device=device_of(x))


def as_complex(x: Array, xp: Namespace) -> Array:
    """Return the same numbers in a complex dtype."""
    return x if is_complex(x.dtype, xp) else xp.astype(x, complex_partner(x.dtype, xp))


def transforms_of(xp: Namespace) -> Any:
    """Return the module of transforms for arrays of that library."""
    return scipy.fft if xp is numpy_namespace else xp.fft


def spectrum(x: Array, xp: Namespace, *, real: bool, n: int | None = None) -> Array:
    """Return the spectra of vectors after zeros were appended up to the length `n`.

    If `real`, the vectors are real and the result is the half spectrum: the first ``n // 2 + 1`` values.
    """
    n = x.shape[-1] if n is None else n
    if 0 in x.shape:
        return no_transforms(x, (*x.shape[:-1], n // 2 + 1 if real else n), xp, real=False)
    trivial = n == x.shape[-1] == 1 and not rules_of(xp).transforms_single_points
    if not real or trivial:
        x = as_complex(x, xp)
    if trivial:
        return x
    return (transforms_of(xp).rfft if real else transforms_of(xp).fft)(x, n=n)


def from_spectrum(s: Array, n: int, xp: Namespace, *, real: bool) -> Array:
    """Return the signal of length `n` whose half spectrum (`real`) or full spectrum is `s`."""
    if 0 in s.shape:
        return no_transforms(s, (*s.shape[:-1], n), xp, real=real)
    if n == s.shape[-1] == 1 and not rules_of(xp).transforms_single_points:
        return xp.real(s) if real else s
    return transforms_of(xp).irfft(s, n=n) if real else transforms_of(xp).ifft(as_complex(s, xp))


def full_spectrum(half: Array, n: int, xp: Namespace) -> Array:
    """Return all `n` values of the spectrum of a real signal from its first ``n // 2 + 1``."""
    mirrored = xp.conj(xp.flip(half[..., 1 : (n + 1) // 2], axis=-1))
    return xp.concat([half, mirrored], axis=-1)
