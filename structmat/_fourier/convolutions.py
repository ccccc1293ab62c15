"""Circular convolutions with one kernel by each method; what does not depend on the vectors is computed once."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from structmat._arrays.dtypes import dtype_name
from structmat._arrays.libraries import is_numpy
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.shapes import contiguous, padded
from structmat._arrays.typing import Namespace
from structmat._fourier import engines
from structmat._fourier.engines import ANY, FOUR_STEP, PLAIN, SCIPY_CONVOLUTION, TORCH
from structmat._fourier.spectra import full_spectrum
from structmat._fourier.transforms import transforms, widened

ALIAS = 4096
"""The distance in bytes at which addresses share one place in the innermost cache of the processor."""

COLUMNS = ((2**18, 2.0, 0.5), (2**20, 256.0, 0.0), (math.inf, 1024.0, 0.0))
"""How long the columns of the four-step method are to be: up to each length n about ``a * n**p``, as ``(n, a, p)``."""


def circular_convolution(
    method: str, S: Any, length: int, xp: Namespace = numpy_namespace, *, real: bool
) -> Callable[[Any], Any]:
    """Return the circular convolution of that length with the kernel of spectrum `S`: the half one where `real`.

    Vectors may be shorter than `length`. Batches are taken by those methods only that the table names for them.
    """
    if method in FOUR_STEP and (height := column_length(length)):
        return four_step_convolution(S, length, height, PLAIN[method], xp, real=real)
    if method == SCIPY_CONVOLUTION:
        return packed_convolution(S, length)
    if PLAIN.get(method, method) == TORCH:  # without a further function call, which would take longer
        fft, ifft = (xp.fft.rfft, xp.fft.irfft) if real else (xp.fft.fft, xp.fft.ifft)
        return lambda x: ifft(S * fft(x, length), length)
    forward, backward = transforms(PLAIN.get(method, method), length, xp, real=real)
    if method == ANY or not is_numpy(xp):  # stacks broadcast, and other products may have a gradient
        return lambda x: backward(S * forward(x))

    def product(x: Any) -> Any:
        X = forward(x)
        X *= S
        return backward(X)

    return product


def column_length(length: int) -> int | None:
    """Return the divisor of `length` that is nearest to the length of columns in the table.

    It is None where `length` has a prime factor above 13.
    """
    cofactor = length
    divisors = {1}
    for prime in (2, 3, 5, 7, 11, 13):
        while cofactor % prime == 0:
            cofactor //= prime
            divisors |= {prime * d for d in divisors}
    if cofactor > 1:
        return None
    wanted = next(factor * length**power for limit, factor, power in COLUMNS if length <= limit)
    return min(divisors, key=lambda d: max(d / wanted, wanted / d))


def four_step_convolution(
    S: Any, n: int, height: int, method: str, xp: Namespace, *, real: bool
) -> Callable[[Any], Any]:
    """Return the circular convolution of one vector of length `n` by the four-step method, in columns of that height.

    `S` is the spectrum of the kernel, the half one where `real`.
    """
    cols = n // height
    shape = (height // 2 + 1 if real else height, cols)
    k, j = np.arange(shape[0]), np.arange(shape[1])
    twiddles = np.exp(-2j * np.pi / n * (k[:, None] * j % n)).astype(dtype_name(S.dtype))
    factors = xp.asarray(twiddles)
    conjugates = xp.asarray(twiddles.conj())
    full = full_spectrum(S, n, xp) if real else S
    ordered = contiguous(xp.matrix_transpose(xp.reshape(full, (-1, height)))[: shape[0]], xp)
    times: Any = operator.imul if is_numpy(xp) else operator.mul  # in place only where there are no gradients
    down, up = transforms(method, height, xp, real=real, axis=0)
    along, back = transforms(method, cols, xp, real=False, overwrite=True)

    def product(x: Any) -> Any:
        short = x.shape[0] % cols
        wide: Any = padded(x, x.shape[0] + cols - short, xp) if short else x
        F = down(wide.reshape(-1, cols))
        F *= factors
        F = back(times(along(F), ordered))
        F *= conjugates
        return up(F).reshape(-1)

    return product


def packed_convolution(S: Any, length: int) -> Callable[[Any], Any]:
    """Return the circular convolution of one real vector by the one call that SciPy has for it, in double precision.

    The call takes the half spectrum `S` in the packed form of FFTPACK: real and imaginary parts in turns. It multiplies
    the packed transform of a vector in place, each number by its entry of `own`, plus the other part of the same
    complex number by that part's entry of `cross`.
    """
    from scipy.fftpack.convolve import convolve_z  # noqa: PLC0415  # slow to import, and not needed before

    S = S / length
    own, cross = np.zeros(length), np.zeros(length)
    own[0] = S[0].real
    if length % 2 == 0:
        own[-1] = S[-1].real
    pairs = (length - 1) // 2
    real, imaginary = slice(1, 2 * pairs, 2), slice(2, 2 * pairs + 1, 2)
    own[real] = own[imaginary] = S[1 : pairs + 1].real
    cross[real] = S[1 : pairs + 1].imag
    cross[imaginary] = -cross[real]

    def in_double(x: Any) -> Any:
        n = x.shape[0]
        if n == length:
            return convolve_z(x, own, cross)
        wide = np.zeros(length)
        wide[:n] = x
        return convolve_z(wide, own, cross, True)

    if S.dtype == np.complex64:
        return lambda x: in_double(x).astype(np.float32)
    return in_double


def ducc_convolution(kernel: Any, x: Any) -> Any:
    """Return the circular convolution with `kernel` along the last axis."""
    length = kernel.shape[-1]
    convolve_axis = engines.ducc().convolve_axis
    wide = widened(x, length, -1)
    out = np.empty_like(x, order="C") if wide is x else wide
    if x.ndim == 1 or x.dtype != np.float32 or length * 4 % ALIAS:
        return convolve_axis(wide, out, x.ndim - 1, kernel)
    for start in range(0, len(x), 8):  # 16 rows, which fill its registers, would evict each other from cache
        convolve_axis(wide[start : start + 8], out[start : start + 8], 1, kernel)
    return out
