"""The four-step method: one long vector as the columns and rows of a matrix, whose transforms are short.

For a length r s the vector is read as an r x s matrix. Its columns are transformed, the entries multiplied by
``exp(-2 pi i k j / (r s))``, the twiddle factors, and the rows transformed: the spectrum of the vector, transposed. A
convolution need not transpose it, as it multiplies by a spectrum in the same order. Libraries transform many short
vectors several times faster than a long one: they take several at once, and each stays in the cache.

Bailey, D. H., FFTs in external or hierarchical memory, J. Supercomputing 4, 1990.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakValueDictionary

import numpy as np

from structmat._arrays import contiguous, dtype_name, is_numpy
from structmat._arrays.typing import Array, Namespace
from structmat._engine.measured_choices import COLUMNS
from structmat._engine.transforms import full_spectrum

__all__ = ["FourStep", "column_length"]

Transforms: TypeAlias = tuple[Callable[[Any], Any], Callable[[Any], Any]]
"""A transform and its inverse."""


def column_length(length: int) -> int | None:
    """Return the r of a length r s that the table asks for, or None where the length has a prime factor above 13."""
    rest, divisors = length, {1}
    for prime in (2, 3, 5, 7, 11, 13):
        while rest % prime == 0:
            rest //= prime
            divisors |= {prime * d for d in divisors}
    wanted = next(factor * length**power for limit, factor, power in COLUMNS if length <= limit)
    return min(divisors, key=lambda d: max(d / wanted, wanted / d)) if rest == 1 else None


class _Twiddles:
    """The twiddle factors of a size and their conjugates, as NumPy arrays."""

    __slots__ = ("__weakref__", "conjugates", "factors")

    def __init__(self, n: int, shape: tuple[int, int], dtype: str) -> None:
        k, j = np.arange(shape[0]), np.arange(shape[1])
        self.factors = np.exp(-2j * np.pi / n * (k[:, None] * j % n)).astype(dtype)
        self.conjugates = self.factors.conj()


# They depend on the size alone: operators in use share them.
_TWIDDLES: WeakValueDictionary[tuple[Any, ...], _Twiddles] = WeakValueDictionary()


class FourStep(NamedTuple):
    """Convolutions with one kernel."""

    columns: Transforms
    """Transform along the first axis, which appends zeros, and its inverse."""
    rows: Transforms
    """Complex transform along the last axis, which may overwrite, and its inverse."""
    shared: _Twiddles
    factors: Any
    conjugates: Any
    spectrum: Any
    times: Callable[[Any, Any], Any]
    """Product with the spectrum: in place, or where that may have a gradient apart."""

    @classmethod
    def of(
        cls, spectrum: Array, n: int, height: int, columns: Transforms, rows: Transforms, xp: Namespace, *, real: bool
    ) -> FourStep:
        """Return the convolutions of length `n` by a spectrum, half of it where vectors are `real`, on a CPU.

        `columns` transform to the length `height`, `rows` to ``n // height``.
        """
        shape, dtype = (height // 2 + 1 if real else height, n // height), dtype_name(spectrum.dtype)
        key = (n, shape, dtype)
        shared = _TWIDDLES.get(key)
        if shared is None:
            shared = _TWIDDLES.setdefault(key, _Twiddles(n, shape, dtype))
        # the same memory for torch, in tensors of the mode in which the operator is made
        factors, conjugates = xp.asarray(shared.factors), xp.asarray(shared.conjugates)
        full = full_spectrum(spectrum, n, xp) if real else spectrum
        ordered = contiguous(xp.matrix_transpose(xp.reshape(full, (-1, height)))[: shape[0]], xp)
        times = operator.imul if is_numpy(xp) else operator.mul
        return cls(columns, rows, shared, factors, conjugates, ordered, times)

    @property
    def cols(self) -> int:
        """The length of a row: that of a vector is to be a multiple of it."""
        return int(self.factors.shape[1])

    def convolve(self, x: Any) -> Any:
        """Return the circular convolution of a vector whose length is a multiple of `cols`."""
        (down, up), (along, back), factors = self.columns, self.rows, self.factors
        F = down(x.reshape(-1, factors.shape[1]))
        F *= factors
        F = back(self.times(along(F), self.spectrum))
        F *= self.conjugates
        return up(F).reshape(-1)
