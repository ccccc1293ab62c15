"""Transforms along one axis by a given method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import scipy  # its `fft` is imported on first use: it would double the import time of structmat

from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.typing import Namespace
from structmat._fourier import engines
from structmat._fourier.engines import ANY, SCIPY, TORCH
from structmat._fourier.spectra import from_spectrum, spectrum

Transforms: TypeAlias = tuple[Callable[[Any], Any], Callable[[Any], Any]]
"""A transform that appends zeros up to a length, and its inverse."""


def transforms(
    method: str, length: int, xp: Namespace = numpy_namespace, *, real: bool, axis: int = -1, overwrite: bool = False
) -> Transforms:
    """Return the transform along an axis, which appends zeros up to `length`, and its inverse.

    The inverse may overwrite its argument. With `overwrite` the complex transform may do so as well.
    """
    if method == ANY:
        return lambda x: spectrum(x, xp, real=real, n=length), lambda X: from_spectrum(X, length, xp, real=real)
    if method == TORCH:
        torch_fft, torch_ifft = (xp.fft.rfft, xp.fft.irfft) if real else (xp.fft.fft, xp.fft.ifft)
        return lambda x: torch_fft(x, length, axis), lambda X: torch_ifft(X, length, axis)
    if method == SCIPY:
        fft: Any = scipy.fft  # called with positional arguments, as keyword arguments take a microsecond more
        if real:
            return lambda x: fft.rfft(x, length, axis), lambda X: fft.irfft(X, length, axis, None, True)
        return lambda x: fft.fft(x, length, axis, None, overwrite), lambda X: fft.ifft(X, length, axis, None, True)
    fft = engines.ducc()
    if real:
        return (
            lambda x: fft.r2c(widened(x, length, axis), (axis,)),
            lambda X: fft.c2r(X, (axis,), length, False, 2, None, 1, True),
        )

    def forward(x: Any) -> Any:
        wide = widened(x, length, axis)
        return fft.c2c(wide, (axis,), True, 0, wide if overwrite else None)

    return forward, lambda X: fft.c2c(X, (axis,), False, 2, X)


def widened(x: Any, length: int, axis: int) -> Any:
    """Return a copy with zeros appended along the first or last axis up to `length`; `x` itself if it has that length.

    `axis` is 0 for the first axis, any other number for the last one.
    """
    if x.shape[axis] == length:
        return x
    wide = np.zeros((*x.shape[:-1], length) if axis else (length, *x.shape[1:]), x.dtype)
    wide[(..., slice(x.shape[-1])) if axis else slice(len(x))] = x
    return wide
