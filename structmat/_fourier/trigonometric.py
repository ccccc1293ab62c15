"""Discrete cosine and sine transforms of the types 1 to 4, orthonormal, along one axis.

For NumPy they are SciPy's. For other libraries each is one transform of their own: of the types 2 and 3 a real one of
the same length [1]_, of type 4 a complex one of half the length, or for odd lengths a real one of the same length [2]_,
of type 1 a real one of the periodic extension. The factors before and after it are computed once and stored.

References
----------
.. [1] Makhoul, J., A fast cosine transform in one and two dimensions, IEEE Trans. Acoust. Speech Signal Process. 28,
   1980.
.. [2] Chan, S. C., Ho, K. L., Fast algorithms for computing the discrete cosine transform, IEEE Trans. Circuits Syst.
   II 39, 1992.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import scipy  # its `fft` is imported on first use: it would double the import time of structmat

from structmat._arrays.conversion import copied
from structmat._arrays.dtypes import dtype_name, is_complex
from structmat._arrays.libraries import device_of, is_numpy, library_of, rules_of
from structmat._arrays.shapes import move_axis
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.chunks import rows_in_chunk
from structmat._fourier.embedding import is_fast
from structmat._fourier.spectra import from_spectrum, spectrum

INVERSES = {
    "dct1": "dct1", "dct2": "dct3", "dct3": "dct2", "dct4": "dct4",
    "dst1": "dst1", "dst2": "dst3", "dst3": "dst2", "dst4": "dst4",
}  # fmt: skip
"""The transforms, each with its inverse, which is its transpose."""

_MOST_BY_MATRIX = 300
"""The most points for which a product with the matrix takes less time than a transform of a length that is not fast.

256 vectors of 256 numbers take 4.4 ms by SciPy's DST of type 1, whose length is 2 * 257, and 0.5 ms by the matrix; one
vector 0.04 and 0.01 ms. With 520 numbers one vector takes as long, with 1,030 also 256 vectors.
"""

_STORED = 64
"""How many tables of factors are stored."""

_tables: dict[tuple[Any, ...], tuple[Array, ...]] = {}
"""The factors by library, kind of transform, length, dtype and device."""


def trigonometric_transform(x: Array, kind: str, xp: Namespace, *, axis: int = -1) -> Array:
    """Return the orthonormal cosine or sine transform along an axis, of complex numbers that of both parts.

    `kind` is a key of `INVERSES`. The first type of the cosine transform has for one point, where it is not defined
    elsewhere, the matrix of one.
    """
    n = x.shape[axis]
    if n == 1 or 0 in x.shape:  # of one point every type is the identity
        return copied(x, xp)
    by_matrix = n <= _MOST_BY_MATRIX and not is_fast(_transformed_length(kind, n)) and _multiplies_well(xp)
    if is_numpy(xp) and not by_matrix:
        return _by_scipy(x, kind, axis)
    if axis != -1:
        return move_axis(trigonometric_transform(move_axis(x, axis, -1, xp), kind, xp), -1, axis, xp)
    if is_complex(x.dtype, xp):
        return rules_of(xp).complex_of(*(trigonometric_transform(part, kind, xp) for part in (xp.real(x), xp.imag(x))))
    if by_matrix:
        (matrix,) = _stored(_MATRICES[kind], x, xp)
        return xp.matmul(x, matrix)
    transform = _TRANSFORMS[kind]
    rows = 2 * rows_in_chunk(n, x.itemsize) if rules_of(xp).is_eager_on_cpu(x) else 0
    if rows == 0 or x.ndim == 1 or prod(x.shape[:-1]) < 2 * rows:
        return transform(x, kind, xp)
    # New memory for each step of a large batch takes longer than the steps themselves.
    flat = xp.reshape(x, (-1, n))
    starts = range(0, flat.shape[0], rows)
    return xp.reshape(xp.concat([transform(flat[k : k + rows, :], kind, xp) for k in starts], axis=0), x.shape)


def _by_scipy(x: Any, kind: str, axis: int) -> Any:
    fft: Any = scipy.fft
    return (fft.dct if kind[:3] == "dct" else fft.dst)(x, int(kind[3]), axis=axis, norm="ortho")


def _transformed_length(kind: str, n: int) -> int:
    """Return the length of the Fourier transform by which vectors of n numbers are transformed."""
    if kind[3] == "1":
        return 2 * n - 2 if kind == "dct1" else 2 * n + 2
    return n // 2 if kind[3] == "4" and n % 2 == 0 else n


def _multiplies_well(xp: Namespace) -> bool:
    """Tell whether products with matrices have all digits, and a matrix can be stored: JAX may round on GPUs."""
    rules = rules_of(xp)
    return rules.multiplies_exactly and rules.is_plain(())


@dataclass(frozen=True)
class GridTransform:
    """The transform of vectors along axes of their grid, compiled as a whole where the library does that."""

    kind: str
    sizes: tuple[int, ...]
    axes: tuple[int, ...]
    xp: Namespace

    def __call__(self, x: Array) -> Array:
        y = self.xp.reshape(x, (*x.shape[:-1], *self.sizes))
        for axis in self.axes:
            y = trigonometric_transform(y, self.kind, self.xp, axis=axis - len(self.sizes))
        return self.xp.reshape(y, x.shape)


def _interleaved(even: Array, odd: Array, xp: Namespace) -> Array:
    """Return vectors by their entries at even places, and by those at odd places, of which there may be one less."""
    count = odd.shape[-1]
    pairs = xp.stack([even[..., :count], odd], axis=-1)
    joined = xp.reshape(pairs, (*odd.shape[:-1], 2 * count))
    return joined if even.shape[-1] == count else xp.concat([joined, even[..., count:]], axis=-1)


def _stored(build: Callable[..., tuple[Array, ...]], x: Array, xp: Namespace) -> tuple[Array, ...]:
    """Return ``build(n, x, xp)`` for vectors x of length n, from what is stored unless a compiler or tracer records."""
    n = x.shape[-1]
    rules = rules_of(xp)
    if not rules.is_plain(()):
        return build(n, x, xp)
    key = (library_of(xp), build, n, dtype_name(x.dtype), str(device_of(x)))
    tables = _tables.get(key)
    if tables is None:
        tables = build(n, x, xp)
        if rules.is_plain(tables):
            if len(_tables) >= _STORED:
                _tables.clear()
            _tables[key] = tables
    return tables


def _numbers(count: int, x: Array, xp: Namespace) -> Array:
    """Return 0, 1, 2, ... in the dtype and on the device of x."""
    return xp.astype(xp.arange(count, device=device_of(x)), x.dtype)


def phases(angles: Array, xp: Namespace) -> Array:
    """Return complex numbers of modulus one by their angles."""
    return rules_of(xp).complex_of(xp.cos(angles), xp.sin(angles))


# Types 2 and 3


def _factors_of_type_2(n: int, x: Array, xp: Namespace) -> tuple[Array, ...]:
    k = _numbers(n // 2 + 1, x, xp)
    sizes = xp.where(k == 0.0, math.sqrt(1 / n), math.sqrt(2 / n) * xp.ones_like(k))
    return (phases(k * (math.pi / (2 * n)), xp) * sizes,)


def _factors_of_type_3(n: int, x: Array, xp: Namespace) -> tuple[Array, ...]:
    k = _numbers(n // 2 + 1, x, xp)
    sizes = xp.where(k == 0.0, math.sqrt(n), math.sqrt(n / 2) * xp.ones_like(k))
    return (phases(k * (-math.pi / (2 * n)), xp) * sizes,)


def _of_type_2(x: Array, kind: str, xp: Namespace) -> Array:
    """Return the real and the imaginary parts of the spectra of vectors in another order, times the factors.

    A sine transform is the cosine transform, backwards, of vectors with every other sign changed.
    """
    n = x.shape[-1]
    (factors,) = _stored(_factors_of_type_2, x, xp)
    W = spectrum(_ordered(x, kind, xp), xp, real=True)
    W *= factors  # in place, if the library does that: memory that is new takes longer than the multiplication
    real, imag = xp.real(W), xp.imag(W)[..., 1 : (n + 1) // 2]
    if kind == "dct2":
        return xp.concat([real, xp.flip(imag, axis=-1)], axis=-1)
    return xp.concat([imag, xp.flip(real, axis=-1)], axis=-1)


def _ordered(x: Array, kind: str, xp: Namespace) -> Array:
    """Return the first entries, those at odd places, and the others backwards."""
    odd = x[..., 1::2]
    return xp.concat([x[..., :1], odd if kind == "dct2" else -odd, xp.flip(x[..., 2::2], axis=-1)], axis=-1)


def _of_type_3(x: Array, kind: str, xp: Namespace) -> Array:
    """Undo the steps of `_of_type_2`, the last one first."""
    n = x.shape[-1]
    (factors,) = _stored(_factors_of_type_3, x, xp)
    half = n // 2
    zero = xp.zeros_like(x[..., :1])
    if kind == "dct3":
        real, imag = x[..., : half + 1], xp.concat([zero, xp.flip(x[..., n - half :], axis=-1)], axis=-1)
    else:
        real, imag = xp.flip(x[..., n - 1 - half :], axis=-1), xp.concat([zero, x[..., :half]], axis=-1)
    W = rules_of(xp).complex_of(real, imag)
    W *= factors
    v = from_spectrum(W, n, xp, real=True)
    odd = v[..., 1 : half + 1]
    even = xp.concat([v[..., :1], xp.flip(v[..., half + 1 :], axis=-1)], axis=-1)
    return _interleaved(even, odd if kind == "dct3" else -odd, xp)


# Type 1


def _factors_of_type_1(n: int, x: Array, xp: Namespace) -> tuple[Array, ...]:
    k = _numbers(n, x, xp)
    is_end = (k == 0.0) | (k == n - 1.0)
    ones = xp.ones_like(k)
    size = 1 / math.sqrt(2 * (n - 1))
    return xp.where(is_end, math.sqrt(2), ones), xp.where(is_end, size / math.sqrt(2), size * ones)


def _cosine_of_type_1(x: Array, kind: str, xp: Namespace) -> Array:  # noqa: ARG001
    before, after = _stored(_factors_of_type_1, x, xp)
    y = x * before
    extended = xp.concat([y, xp.flip(y[..., 1:-1], axis=-1)], axis=-1)
    return xp.real(spectrum(extended, xp, real=True)) * after


def _sine_of_type_1(x: Array, kind: str, xp: Namespace) -> Array:  # noqa: ARG001
    n = x.shape[-1]
    zero = xp.zeros_like(x[..., :1])
    extended = xp.concat([zero, -x, zero, xp.flip(x, axis=-1)], axis=-1)
    return xp.imag(spectrum(extended, xp, real=True))[..., 1 : n + 1] * (1 / math.sqrt(2 * (n + 1)))


# Type 4


def _factors_of_type_4(n: int, x: Array, xp: Namespace) -> tuple[Array, ...]:
    """Return the factors before and after the transform, for odd n also the places and signs of either side."""
    if n % 2 == 0:
        k = _numbers(n // 2, x, xp)
        before = phases((4 * k + 1) * (-math.pi / (4 * n)), xp)
        return before, phases(k * (-math.pi / n), xp) * math.sqrt(2 / n)
    k = xp.arange(n, device=device_of(x))
    # The vectors continue evenly to the left, oddly to the right, and so have a period of 4 n.
    place = ((n - 1) // 2 + 4 * k) % (4 * n)
    left = xp.where(place < 2 * n, place, 4 * n - 1 - place)
    place_before = xp.where(left < n, left, 2 * n - 1 - left)
    sign_before = xp.where(left < n, 1.0, xp.astype(-xp.ones_like(k), x.dtype))
    frequency = (2 * k + 1) % n
    is_held = frequency <= n // 2
    place_after = xp.where(is_held, frequency, n - frequency)
    angle = xp.astype((2 * k + 1) % 8, x.dtype) * (math.pi / 4)
    size = math.sqrt(2 / n)
    of_imag = xp.sin(angle) * size
    return place_before, sign_before, place_after, xp.cos(angle) * size, xp.where(is_held, of_imag, -of_imag)


def _of_type_4(x: Array, kind: str, xp: Namespace) -> Array:
    """Return the cosine transform; the sine transform is that of the reversed vectors with every other sign changed."""
    n = x.shape[-1]
    if n % 2 == 0:
        before, after = _stored(_factors_of_type_4, x, xp)
        even, odd = x[..., ::2], xp.flip(x[..., 1::2], axis=-1)
        z = rules_of(xp).complex_of(*((even, odd) if kind == "dct4" else (odd, even)))
        z *= before
        y = spectrum(z, xp, real=False)
        y *= after
        imag = xp.flip(xp.imag(y), axis=-1)
        return _interleaved(xp.real(y), -imag if kind == "dct4" else imag, xp)
    place_before, sign_before, place_after, of_real, of_imag = _stored(_factors_of_type_4, x, xp)
    if kind == "dst4":
        x = xp.flip(x, axis=-1)
    B = spectrum(xp.take(x, place_before, axis=-1) * sign_before, xp, real=True)
    real, imag = (xp.take(part, place_after, axis=-1) for part in (xp.real(B), xp.imag(B)))
    y = real * of_real + imag * of_imag
    return y if kind == "dct4" else _interleaved(y[..., ::2], -y[..., 1::2], xp)


_TRANSFORMS: dict[str, Callable[[Array, str, Namespace], Array]] = {
    "dct1": _cosine_of_type_1, "dct2": _of_type_2, "dct3": _of_type_3, "dct4": _of_type_4,
    "dst1": _sine_of_type_1, "dst2": _of_type_2, "dst3": _of_type_3, "dst4": _of_type_4,
}  # fmt: skip
"""The transforms of vectors along the last axis, of two points at least."""


def _builder_of_matrix(kind: str) -> Callable[..., tuple[Array, ...]]:
    """Return the function that builds the transposed matrix of a transform, for `_stored`."""

    def build(n: int, x: Array, xp: Namespace) -> tuple[Array, ...]:
        matrix = _by_scipy(np.eye(n), kind, -1).astype(dtype_name(x.dtype))
        return (xp.asarray(matrix, device=device_of(x)),)

    return build


_MATRICES = {kind: _builder_of_matrix(kind) for kind in INVERSES}
