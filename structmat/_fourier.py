"""Fourier transforms by the engine and method that measured fastest, and plans of products by them.

A plan computes the products of one matrix, or of a stack of them. Those of single families stand beside these.
"""

from __future__ import annotations

import math
import operator
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import scipy  # its `fft` is imported on first use: it would double the import time of structmat

from structmat._arrays.dtypes import complex_partner, dtype_name, is_complex, precision_of
from structmat._arrays.libraries import device_of, is_numpy, library_of
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.shapes import concat_last, contiguous, padded
from structmat._arrays.tracing import is_eager_on_cpu
from structmat._arrays.typing import Array, DType, Namespace
from structmat._parametrised import Parametrised

CHUNK = 2**19
"""Bytes of a batch that are transformed together, so that they stay in the cache of one core."""

FEWEST = 4
"""Number of vectors that engines take at a time: so many are transformed together however long they are."""

TORCH_LARGE, TORCH_CHUNK = 2**23, 2**21
"""Bytes of a batch above which torch's are computed in chunks, and of those; smaller ones it computes faster whole.

A chunk has a cache line of vectors at least: fewer are slow."""

ALIAS = 4096
"""Distance in bytes of addresses that share one place of the innermost cache."""

COLUMNS = ((2**18, 2.0, 0.5), (2**20, 256.0, 0.0), (math.inf, 1024.0, 0.0))
"""For the four-step method: up to each length n, columns of about ``a * n**p``, as ``(n, a, p)``."""

SCIPY, SCIPY_CONVOLUTION, SCIPY_STEPS = "scipy.fft", "scipy.fftpack.convolve", "scipy.fft in four steps"

DUCC, DUCC_CONVOLUTION, DUCC_STEPS = "ducc0.fft", "ducc0.fft.convolve_axis", "ducc0.fft in four steps"

TORCH, TORCH_STEPS = "torch.fft", "torch.fft in four steps"

ANY = "fft of any library"

STEPS = (SCIPY_STEPS, DUCC_STEPS, TORCH_STEPS)

PLAIN = {SCIPY_CONVOLUTION: SCIPY, SCIPY_STEPS: SCIPY, DUCC_CONVOLUTION: DUCC, DUCC_STEPS: DUCC, TORCH_STEPS: TORCH}
"""By method that convolves: the one that only transforms."""


CHOICES: dict[tuple[str, str, bool], tuple[tuple[float, str], ...]] = {
    ("numpy", "float32", False): ((4096, SCIPY_CONVOLUTION), (math.inf, SCIPY_STEPS)),
    ("numpy", "float64", False): ((16384, SCIPY_CONVOLUTION), (math.inf, SCIPY_STEPS)),
    ("numpy", "complex64", False): ((2047, SCIPY), (math.inf, SCIPY_STEPS)),
    ("numpy", "complex128", False): ((4095, SCIPY), (math.inf, SCIPY_STEPS)),
    ("ducc0", "float32", False): ((1024, DUCC_CONVOLUTION), (2**15, DUCC), (math.inf, DUCC_STEPS)),
    ("ducc0", "float32", True): ((math.inf, DUCC_CONVOLUTION),),
    ("ducc0", "float64", False): ((1024, DUCC_CONVOLUTION), (8191, DUCC), (math.inf, DUCC_STEPS)),
    ("ducc0", "float64", True): ((2**17, DUCC_CONVOLUTION), (math.inf, SCIPY)),
    ("ducc0", "complex64", False): ((800, DUCC_CONVOLUTION), (2**16, DUCC), (math.inf, DUCC_STEPS)),
    ("ducc0", "complex64", True): ((math.inf, DUCC_CONVOLUTION),),
    ("ducc0", "complex128", False): ((800, DUCC_CONVOLUTION), (2**16, DUCC), (math.inf, DUCC_STEPS)),
    ("ducc0", "complex128", True): ((2**13, DUCC_CONVOLUTION), (math.inf, DUCC)),
    ("torch", "float32", False): ((8191, TORCH), (math.inf, TORCH_STEPS)),
    ("torch", "float64", False): ((4096, TORCH), (math.inf, TORCH_STEPS)),
}
"""By engine, dtype and whether there is a batch: the fastest method up to each length, elsewhere plain transforms."""

_COUNTS = (1, 8, 64, 512)

DIRECT: dict[tuple[str, str], tuple[int, int, int, int]] = {
    ("numpy", "float32"): (320, 144, 132, 132),
    ("numpy", "float64"): (220, 168, 132, 124),
    ("numpy", "complex64"): (356, 108, 108, 108),
    ("numpy", "complex128"): (244, 124, 124, 92),
    ("ducc0", "float32"): (280, 132, 68, 68),
    ("ducc0", "float64"): (212, 124, 52, 52),
    ("ducc0", "complex64"): (180, 68, 20, 20),
    ("ducc0", "complex128"): (124, 60, 20, 20),
    ("torch", "float32"): (356, 244, 124, 124),
    ("torch", "float64"): (220, 132, 124, 124),
    ("torch", "complex64"): (124, 124, 68, 40),
    ("torch", "complex128"): (124, 92, 60, 40),
}
"""By engine and dtype: up to which size a dense product is faster, for at least as many vectors as `_COUNTS` says."""


def direct_up_to(size: float, library: str, dtype: str) -> int:
    """Return the largest number of vectors for which the dense product is faster than transforms at that size.

    `size` is the number of entries of the matrix over the length that is transformed: n for a circulant.
    """
    limits = DIRECT.get((library, dtype), (0, 0, 0, 0))
    beaten = [count for count, limit in zip(_COUNTS, limits, strict=True) if size > limit]
    return beaten[0] - 1 if beaten else sys.maxsize


@cache
def ducc() -> Any:
    """Return ``ducc0.fft`` where the extra ``fast`` is installed, else None."""
    try:
        import ducc0.fft  # noqa: PLC0415  # optional, and not needed before the first product
    except ImportError:
        return None
    return ducc0.fft


def engine_of(library: str) -> str:
    """Return what transforms the arrays of a library: the extra ``fast`` those of NumPy, where it is installed."""
    return "ducc0" if library == "numpy" and ducc() else library


def method_for(library: str, dtype: str, length: int, *, batched: bool, once: bool = False) -> str:
    """Return the method for convolutions of that length, or for one to be done `once` the one without preparation.

    `library` is that of the arrays, NumPy or torch. The four-step method stands for plain transforms where the length
    does not divide into columns.
    """
    engine = engine_of(library)
    table = CHOICES.get((engine, dtype, batched), ((math.inf, TORCH if engine == "torch" else SCIPY),))
    method, *_ = [method for limit, method in table if length <= limit]
    return PLAIN[method] if once and method in {*STEPS, SCIPY_CONVOLUTION} else method


_FAST = (
    (135, 256), (9, 16), (75, 128), (5, 8), (675, 1024), (45, 64), (3, 4), (25, 32), (3375, 4096), (27, 32), (225, 256),
    (15, 16),
)  # fmt: skip
"""Odd products of 3 and 5 as fractions of a power of two, ascending from 1/2 to 1 in steps of at most 1/15."""

_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67)
"""A length with a larger prime factor is embedded in a longer one without."""


def fast_length(n: int) -> int:
    """Return a length from `n` on that every library transforms fast: 2^k, or 2^k times a fraction of `_FAST`."""
    power = 1
    while power < n:
        power *= 2
    for odd, whole in _FAST:
        if power % whole == 0 and power // whole * odd >= n:
            return power // whole * odd
    return power


def is_fast(n: int) -> bool:
    """Tell whether libraries transform length `n` itself fast enough, as it has no large prime factor."""
    if n & (n - 1) == 0:
        return True
    for prime in _PRIMES:
        while n % prime == 0:
            n //= prime
        if n == 1:
            return True
    return False


def kernel_of_diagonals(below: Array, above: Array, xp: Namespace) -> Array:
    """Return the first column of a circulant of a fast length whose corner is the Toeplitz matrix of these diagonals.

    `below` holds the m diagonals from the main one downward, `above` the n - 1 from the one next to it upward.
    """
    length = fast_length(below.shape[-1] + above.shape[-1])
    gap = length - below.shape[-1] - above.shape[-1]
    zeros = xp.zeros(gap, dtype=below.dtype, device=device_of(below))
    return concat_last([below, zeros, xp.flip(above, axis=-1)], xp)


def cyclic_kernel(c: Array, xp: Namespace) -> Array:
    """Return `c`, or where its length is not fast the first column of a larger circulant with that of `c` as corner."""
    return c if is_fast(c.shape[-1]) else kernel_of_diagonals(c, xp.flip(c[..., 1:], axis=-1), xp)


def rows_in_chunk(numbers: int, itemsize: int) -> int:
    """Return how many vectors to transform together when each moves that many numbers."""
    fitting = CHUNK // (numbers * itemsize)
    return max(FEWEST, fitting - fitting % FEWEST)  # a rest would be transformed one by one


def in_chunks(step: Callable[[Any, Any], Any], x: Any, rows: int, size: int | None, out: Any = None) -> Any:
    """Return ``step(vectors, out)`` of all vectors along the last axis of `x`, at most `size` of them at a time.

    `rows` is the length of a vector of the result.
    """
    batch = x.shape[:-1]
    x = x.reshape(-1, x.shape[-1])
    size = len(x) if size is None else size
    if 0 < len(x) <= size and out is None:
        return step(x, None).reshape(*batch, rows)
    flat = np.empty((len(x), rows), x.dtype) if out is None else out.reshape(-1, rows)
    for start in range(0, len(x), size or 1):
        step(x[start : start + size], flat[start : start + size])
    return flat.reshape(*batch, rows)


def _nothing(x: Array, shape: tuple[int, ...], xp: Namespace, *, real: bool) -> Array:
    """Return the transforms of no vectors at all: those of torch fail on an empty batch."""
    return xp.zeros(shape, dtype=(precision_of if real else complex_partner)(x.dtype, xp), device=device_of(x))


def _complex(x: Array, xp: Namespace) -> Array:
    return x if is_complex(x.dtype, xp) else xp.astype(x, complex_partner(x.dtype, xp))


def transforms_of(xp: Namespace) -> Any:
    """Return the module of transforms for arrays of that library."""
    return scipy.fft if is_numpy(xp) else xp.fft


def spectrum(x: Array, xp: Namespace, *, real: bool, n: int | None = None) -> Array:
    """Return the half spectrum of real data when `real`, else the full one of any; zeros are added up to length `n`."""
    n = x.shape[-1] if n is None else n
    if 0 in x.shape:
        return _nothing(x, (*x.shape[:-1], n // 2 + 1 if real else n), xp, real=False)
    trivial = n == x.shape[-1] == 1 and library_of(xp) == "jax"  # some of these XLA does not compile
    if not real or trivial:
        x = _complex(x, xp)
    if trivial:
        return x
    return (transforms_of(xp).rfft if real else transforms_of(xp).fft)(x, n=n)


def from_spectrum(s: Array, n: int, xp: Namespace, *, real: bool) -> Array:
    """Return the signal of length `n` whose half spectrum (`real`) or full spectrum is `s`."""
    if 0 in s.shape:
        return _nothing(s, (*s.shape[:-1], n), xp, real=real)
    if n == s.shape[-1] == 1 and library_of(xp) == "jax":
        return xp.real(s) if real else s
    return transforms_of(xp).irfft(s, n=n) if real else transforms_of(xp).ifft(_complex(s, xp))


def full_spectrum(half: Array, n: int, xp: Namespace) -> Array:
    """Return all `n` values of the spectrum of a real signal from its first ``n // 2 + 1``."""
    mirrored = xp.conj(xp.flip(half[..., 1 : (n + 1) // 2], axis=-1))
    return xp.concat([half, mirrored], axis=-1)


# Of vectors (..., N) on grids, along all of their axes


def last_axes(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes of a grid."""
    return tuple(range(-len(sizes), 0))


def half_of_grid(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the sizes of the half spectrum on a grid."""
    return (*sizes[:-1], sizes[-1] // 2 + 1)


def as_grid(x: Array, sizes: tuple[int, ...], xp: Namespace) -> Array:
    """Return vectors (..., N) as arrays on a grid."""
    return xp.reshape(x, (*x.shape[:-1], *sizes))


def as_vectors(x: Array, sizes: tuple[int, ...], xp: Namespace) -> Array:
    """Return arrays on a grid, of as many axes as there are `sizes`, as vectors (..., N)."""
    cut = x.ndim - len(sizes)
    return xp.reshape(x, (*x.shape[:cut], prod(x.shape[cut:])))


def multilevel_fft(
    x: Array,
    sizes: tuple[int, ...],
    xp: Namespace,
    *,
    real: bool,
    n: tuple[int, ...] | None = None,
    norm: str = "backward",
) -> Array:
    """Return the transform of vectors (..., N) over the axes of their grids, the half along the last one if `real`.

    Zeros are added up to the sizes `n`.
    """
    n = sizes if n is None else n
    if 0 in x.shape:
        return _nothing(x, (*x.shape[:-1], prod(half_of_grid(n) if real else n)), xp, real=False)
    transform = transforms_of(xp).rfftn if real else transforms_of(xp).fftn
    x = as_grid(x if real else _complex(x, xp), sizes, xp)
    return as_vectors(transform(x, s=n, axes=last_axes(sizes), norm=norm), sizes, xp)


def multilevel_ifft(s: Array, n: tuple[int, ...], xp: Namespace, *, real: bool, norm: str = "backward") -> Array:
    """Return the vectors (..., N) on a grid of sizes `n` with a given transform, half (`real`) or full."""
    if 0 in s.shape:
        return _nothing(s, (*s.shape[:-1], prod(n)), xp, real=real)
    transform = transforms_of(xp).irfftn if real else transforms_of(xp).ifftn
    s = as_grid(_complex(s, xp), half_of_grid(n) if real else n, xp)
    return as_vectors(transform(s, s=n, axes=last_axes(n), norm=norm), n, xp)


def reversed_levels(x: Array, sizes: tuple[int, ...], xp: Namespace) -> Array:
    """Return y with ``y[k] = x[-k]``, indices modulo the size along every axis of the grid."""
    axes = last_axes(sizes)
    return as_vectors(xp.roll(xp.flip(as_grid(x, sizes, xp), axis=axes), (1,) * len(axes), axis=axes), sizes, xp)


# Convolutions, with all that does not depend on the vectors done before

Convolve: TypeAlias = Callable[[Any, Any], Any]
"""Returns a circular convolution along the last axis, in the second argument where that is possible and given."""

Transforms: TypeAlias = tuple[Callable[[Any], Any], Callable[[Any], Any]]
"""A transform, which appends zeros, and its inverse."""


def convolver(
    method: str, kernel: Any, spectrum: Callable[[], Any], length: int, xp: Namespace = numpy_namespace, *, real: bool
) -> Convolve:
    """Return the circular convolution with `kernel`, or where that is None with one of that length by its spectrum.

    Vectors may be shorter. Only some methods take batches: those that the table names for them.
    """
    if kernel is not None and method == DUCC_CONVOLUTION:
        return lambda x, out: convolve_axis(kernel, x, out)
    S = spectrum()
    if method in STEPS and (height := column_length(length)):
        return four_step(S, length, height, PLAIN[method], xp, real=real)
    if method == SCIPY_CONVOLUTION:
        return convolve_packed(S, length)
    if PLAIN.get(method, method) == TORCH:  # without a call of our own in between
        fft, ifft = (xp.fft.rfft, xp.fft.irfft) if real else (xp.fft.fft, xp.fft.ifft)
        return lambda x, out: ifft(S * fft(x, length), length)  # noqa: ARG005
    forward, backward = transforms(PLAIN.get(method, method), length, xp, real=real)
    if method == ANY or not is_numpy(xp):  # stacks broadcast, and other products may have a gradient
        return lambda x, out: backward(S * forward(x))  # noqa: ARG005

    def convolve(x: Any, out: Any) -> Any:  # noqa: ARG001
        X = forward(x)
        X *= S
        return backward(X)

    return convolve


def transforms(
    method: str, length: int, xp: Namespace = numpy_namespace, *, real: bool, axis: int = -1, overwrite: bool = False
) -> Transforms:
    """Return the transform along an axis, which appends zeros up to `length`, and its inverse, which may overwrite.

    With `overwrite` the complex transform may do so as well.
    """
    if method == ANY:
        return lambda x: spectrum(x, xp, real=real, n=length), lambda X: from_spectrum(X, length, xp, real=real)
    if method == TORCH:
        forward, backward = (xp.fft.rfft, xp.fft.irfft) if real else (xp.fft.fft, xp.fft.ifft)
        return lambda x: forward(x, length, axis), lambda X: backward(X, length, axis)
    if method == SCIPY:
        fft: Any = scipy.fft  # whose dispatch takes a microsecond more for arguments by name
        if real:
            return lambda x: fft.rfft(x, length, axis), lambda X: fft.irfft(X, length, axis, None, True)
        return (lambda x: fft.fft(x, length, axis, None, overwrite), lambda X: fft.ifft(X, length, axis, None, True))
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


def column_length(length: int) -> int | None:
    """Return the r of a length r s that the table asks for, or None where the length has a prime factor above 13."""
    rest, divisors = length, {1}
    for prime in (2, 3, 5, 7, 11, 13):
        while rest % prime == 0:
            rest //= prime
            divisors |= {prime * d for d in divisors}
    wanted = next(factor * length**power for limit, factor, power in COLUMNS if length <= limit)
    return min(divisors, key=lambda d: max(d / wanted, wanted / d)) if rest == 1 else None


def four_step(spectrum: Any, n: int, height: int, method: str, xp: Namespace, *, real: bool) -> Convolve:
    """Return the circular convolution of one vector of length `n` by the four-step method, in columns of that height.

    `spectrum` is the half one where vectors are `real`.
    """
    cols = n // height
    shape = (height // 2 + 1 if real else height, cols)
    k, j = np.arange(shape[0]), np.arange(shape[1])
    twiddles = np.exp(-2j * np.pi / n * (k[:, None] * j % n)).astype(dtype_name(spectrum.dtype))
    factors, conjugates = xp.asarray(twiddles), xp.asarray(twiddles.conj())
    full = full_spectrum(spectrum, n, xp) if real else spectrum
    ordered = contiguous(xp.matrix_transpose(xp.reshape(full, (-1, height)))[: shape[0]], xp)
    times: Any = operator.imul if is_numpy(xp) else operator.mul  # elsewhere the spectrum may have a gradient
    down, up = transforms(method, height, xp, real=real, axis=0)
    along, back = transforms(method, cols, xp, real=False, overwrite=True)

    def convolve(x: Any, out: Any) -> Any:  # noqa: ARG001
        short = x.shape[0] % cols
        wide: Any = padded(x, x.shape[0] + cols - short, xp) if short else x
        F = down(wide.reshape(-1, cols))
        F *= factors
        F = back(times(along(F), ordered))
        F *= conjugates
        return up(F).reshape(-1)

    return convolve


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


# Plans

Step: TypeAlias = Callable[[Any, Any], Any]
"""Returns the products of one vector or of rows, in the second argument where that is possible and given."""


def written(y: Any, out: Any) -> Any:
    """Return the result of a step, in `out` where that is given."""
    if out is None:
        return y
    out[...] = y
    return out


def reversal(xp: Namespace) -> Callable[[Any], Any]:
    """Return what reverses vectors: a view where arrays may have one."""
    return (lambda x: x[..., ::-1]) if xp is numpy_namespace else (lambda x: xp.flip(x, axis=-1))


class Plan(Parametrised, ABC):
    """What computes the products of one matrix, or of a stack of them, with real vectors or with complex ones."""

    if TYPE_CHECKING:

        @property
        def shape(self) -> tuple[int, int]:
            """Rows and columns."""

        @property
        def is_real(self) -> bool | None:
            """Whether it takes real vectors, or complex ones; None where it takes both."""

    @property
    def is_stack(self) -> bool:
        """Whether its parameters have batch axes."""
        for name, axes in self._core_axes.items():  # noqa: SIM110  # faster
            if getattr(self, name).ndim > axes:
                return True
        return False

    @property
    def width(self) -> int:
        """How many numbers a product moves at a time for one vector."""
        return self.shape[1]

    @property
    def cost(self) -> float:
        """How long the convolutions of one product are together: here none is made."""
        return 1.0

    @abstractmethod
    def step(self, xp: Namespace, dtype: str, *, batched: bool, once: bool = False) -> Step:
        """Return the product of one vector or of a batch, of that dtype, `once` or again and again.

        Of NumPy arrays it takes two axes at most, and as many vectors as fit into the cache, unless it is of a stack.
        """

    def apply(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis, of any vectors."""
        if is_complex(x.dtype, xp) == self.is_real:
            if self.is_real:
                return self.apply(xp.real(x), xp) + 1j * self.apply(xp.imag(x), xp)
            x = xp.astype(x, complex_partner(x.dtype, xp))
        step = self.step(xp, dtype_name(x.dtype), batched=x.ndim > 1, once=True)
        if x.ndim == 1 or xp is not numpy_namespace or self.is_stack:
            return step(x, None)
        return in_chunks(step, x, self.shape[0], self.chunk_rows(x.dtype))

    def chunk_rows(self, dtype: Any) -> int | None:
        """Return how many vectors of that NumPy dtype to give to a step at a time, or None for all."""
        return rows_in_chunk(self.width, dtype.itemsize)

    def _method(self, xp: Namespace, dtype: str, length: int, *, batched: bool, once: bool) -> str:
        """Return how to transform."""
        if self.is_stack:
            return ANY
        if xp is numpy_namespace:
            return method_for("numpy", dtype, length, batched=batched, once=once)
        if once or library_of(xp) != "torch":
            return ANY
        method = method_for("torch", dtype, length, batched=batched)
        return PLAIN[method] if method in STEPS and not is_eager_on_cpu(self._arrays()[0], xp) else method


@dataclass(frozen=True, eq=False, repr=False)
class Convolution(Plan):
    """The leading corner of a circulant matrix whose size is fast to transform."""

    _core_axes = {"kernel": 1, "spectrum": 1}

    kernel: Any
    """First column of the circulant, or None where only its spectrum is known."""
    spectrum: Any
    """Its half spectrum (`is_real`) or full spectrum, or None until a product needs it."""
    length: int
    """Its size."""
    is_real: bool
    shape: Any
    """Rows and columns of the corner."""
    flips: tuple[bool, bool] = (False, False)
    """Whether the rows and the columns of the corner are in reverse order, as in a Hankel matrix."""

    @property
    def is_stack(self) -> bool:
        return bool((self.spectrum if self.kernel is None else self.kernel).ndim > 1)

    @property
    def width(self) -> int:
        return self.length

    @property
    def cost(self) -> float:
        return self.length

    def chunk_rows(self, dtype: Any) -> int | None:
        method = method_for("numpy", dtype.name, self.length, batched=True)
        if method == DUCC_CONVOLUTION and self.kernel is not None and self.shape[1] == self.length:
            return None  # without a copy or a spectrum of the batch, nothing is gained from chunks
        return rows_in_chunk(self.length, dtype.itemsize)

    def step(self, xp: Namespace, dtype: str, *, batched: bool, once: bool = False) -> Step:
        length, rows = self.length, self.shape[0]

        def transformed() -> Any:
            if self.spectrum is None:
                object.__setattr__(self, "spectrum", spectrum(self.kernel, xp, real=self.is_real))
            return self.spectrum

        method = self._method(xp, dtype, length, batched=batched, once=once)
        convolve = convolver(method, self.kernel, transformed, length, xp, real=self.is_real)
        (flipped_rows, flipped_cols), keep, reverse = self.flips, xp is numpy_namespace, None
        if flipped_rows or flipped_cols:
            reverse = reversal(xp)
        elif not keep:
            return convolve if rows == length else lambda x, out: convolve(x, out)[..., :rows]

        def step(x: Any, out: Any) -> Any:
            y = convolve(reverse(x) if reverse and flipped_cols else x, None if flipped_rows else out)
            if out is not None and y is out:
                return y
            if rows != length:
                y = y[..., :rows]
            if reverse and flipped_rows:
                y = reverse(y)
            if out is None:
                return y.copy() if keep and rows != length else y  # which keeps no memory of the entries cut off
            out[...] = y
            return out

        return step


def convolution(
    kernel: Array, shape: tuple[int, int], xp: Namespace, *, flips: tuple[bool, bool] = (False, False)
) -> Convolution:
    """Return the plan of the leading corner, `shape`, of the circulant with first column `kernel`."""
    real, length = not is_complex(kernel.dtype, xp), kernel.shape[-1]
    if xp is numpy_namespace and ducc():  # which takes the first column itself
        return Convolution(kernel, None, length, real, shape, flips)
    return Convolution(None, spectrum(kernel, xp, real=real), length, real, shape, flips)


class Products(NamedTuple):
    """Products of arrays of one type and dtype, without checks."""

    kind: Any
    dtype: DType
    vector: tuple[int]
    """The shape of one vector."""
    one: Step
    batched: Step

    def takes(self, x: Array) -> bool:
        """Tell whether they are for arrays such as `x`, of the right length."""
        return isinstance(x, self.kind) and bool(x.dtype == self.dtype)

    def __call__(self, x: Array) -> Array:
        return (self.one if x.ndim == 1 else self.batched)(x, None)


def show_config() -> None:
    """Print versions, and which library transforms NumPy arrays.

    Examples
    --------
    >>> import structmat as sm
    >>> sm.show_config()  # doctest: +ELLIPSIS
    structmat ...
    NumPy arrays are transformed by scipy.fft...
    """
    from importlib import metadata  # noqa: PLC0415  # slow to import, and not needed before

    packages = ("structmat", "numpy", "scipy", "array-api-compat", "ducc0", "torch", "jax", "cupy")
    installed = {package.name for package in metadata.distributions()}
    print(", ".join(f"{name} {metadata.version(name)}" for name in packages if name in installed))  # noqa: T201
    engine = "scipy.fft and ducc0" if ducc() else "scipy.fft (the extra structmat[fast] brings ducc0, which is faster)"
    print(f"NumPy arrays are transformed by {engine}, other arrays by their own library.")  # noqa: T201
