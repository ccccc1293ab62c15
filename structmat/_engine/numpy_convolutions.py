"""Circular convolutions of NumPy vectors, by each method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import scipy
from array_api_compat import numpy as numpy_namespace

from structmat._engine.engines import ducc
from structmat._engine.four_step import FourStep, column_length
from structmat._engine.measured_choices import ALIAS, DUCC_CONVOLUTION, PLAIN, SCIPY, SCIPY_CONVOLUTION, STEPS

__all__ = ["convolver", "transforms"]

Transform: TypeAlias = Callable[[Any], Any]
Convolve: TypeAlias = Callable[[Any, Any], Any]
"""Returns a circular convolution along the last axis, in the second argument where that is possible and given."""


def convolver(method: str, kernel: Any, spectrum: Callable[[], Any], length: int, *, real: bool) -> Convolve:
    """Return the circular convolution with `kernel`, or where that is None with one of that length by its spectrum.

    Vectors may be shorter. Only some methods take batches: those that the table names for them.
    """
    if kernel is not None and method == DUCC_CONVOLUTION:
        return lambda x, out: convolve_axis(kernel, x, out)
    S = spectrum()
    if method in STEPS and (height := column_length(length)):
        return four_step(S, length, height, PLAIN[method], real=real)
    if method == SCIPY_CONVOLUTION:
        return convolve_packed(S, length)
    forward, backward = transforms(PLAIN.get(method, method), length, real=real)

    def convolve(x: Any, out: Any) -> Any:  # noqa: ARG001
        X = forward(x)
        X *= S
        return backward(X)

    return convolve


def transforms(
    method: str, length: int, *, real: bool, axis: int = -1, overwrite: bool = False
) -> tuple[Transform, Transform]:
    """Return the transform along an axis, which appends zeros up to `length`, and its inverse, which may overwrite.

    With `overwrite` the complex transform may do so as well.
    """
    if method == SCIPY:
        fft: Any = scipy.fft  # whose dispatch takes a microsecond more for arguments by name
        if real:
            return (
                lambda x: fft.rfft(x, length, axis),
                lambda X: fft.irfft(X, length, axis, None, True),
            )
        return (
            lambda x: fft.fft(x, length, axis, None, overwrite),
            lambda X: fft.ifft(X, length, axis, None, True),
        )
    fft = ducc()
    if real:
        return (
            lambda x: fft.r2c(widened(x, length, axis), (axis,)),
            lambda X: fft.c2r(X, (axis,), length, False, 2, None, 1, True),
        )
    return (
        lambda x: fft.c2c(wide := widened(x, length, axis), (axis,), True, 0, wide if overwrite else None),
        lambda X: fft.c2c(X, (axis,), False, 2, X),
    )


def four_step(spectrum: Any, length: int, height: int, method: str, *, real: bool) -> Convolve:
    """Return the circular convolution of one vector by the four-step method, in columns of that height."""
    step = FourStep.of(
        spectrum,
        length,
        height,
        transforms(method, height, real=real, axis=0),
        transforms(method, length // height, real=False, overwrite=True),
        numpy_namespace,
        real=real,
    )
    cols = step.cols
    return lambda x, out: step.convolve(widened(x, -(-x.shape[0] // cols) * cols, -1))  # noqa: ARG005


def convolve_packed(spectrum: Any, length: int) -> Convolve:
    """Return the circular convolution of one real vector by the one call that SciPy has for it, in double precision.

    It multiplies the transform of float64, real and imaginary parts in turns, in place: each by its entry of `own`,
    plus its partner by the partner's entry of `cross`.
    """
    from scipy.fftpack.convolve import convolve_z  # noqa: PLC0415  # slow to import, and not needed before

    S = spectrum / length
    own, cross = np.zeros(length), np.zeros(length)
    own[0] = S[0].real
    if length % 2 == 0:
        own[-1] = S[-1].real
    pairs = (length - 1) // 2
    real, imaginary = slice(1, 2 * pairs, 2), slice(2, 2 * pairs + 1, 2)
    own[real] = own[imaginary] = S[1 : pairs + 1].real
    cross[real] = S[1 : pairs + 1].imag
    cross[imaginary] = -cross[real]

    def convolve(x: Any, out: Any) -> Any:
        if x.shape[0] != length:
            wide = np.zeros(length)
            wide[: x.shape[0]] = x
            y = convolve_z(wide, own, cross, True)
        elif out is not None and out.dtype == np.float64 and out.shape[0] == length:
            out[...] = x
            return convolve_z(out, own, cross, True)
        else:
            y = convolve_z(x, own, cross)
        return y.astype(x.dtype, copy=False)

    return convolve


def convolve_axis(kernel: Any, x: Any, out: Any = None) -> Any:
    """Return the circular convolution along the last axis, in `out` if it is given and as long as the kernel."""
    length, convolve = kernel.shape[-1], ducc().convolve_axis
    y = wide = widened(x, length, -1)
    if wide is x:
        y = np.empty_like(x, order="C") if out is None or out.shape[-1] != length else out
    if x.ndim == 1 or x.dtype != np.float32 or length * 4 % ALIAS:
        return convolve(wide, y, x.ndim - 1, kernel)
    for start in range(0, len(x), 8):  # 16 rows at a time, as wide as its registers, would evict one another
        convolve(wide[start : start + 8], y[start : start + 8], 1, kernel)
    return y


def widened(x: Any, length: int, axis: int) -> Any:
    """Return a copy with zeros appended along the first or last axis, or `x` where it has that length."""
    if x.shape[axis] == length:
        return x
    wide = np.zeros((*x.shape[:-1], length) if axis else (length, *x.shape[1:]), x.dtype)
    wide[(..., slice(x.shape[-1])) if axis else slice(len(x))] = x
    return wide
