"""Sums along the diagonals of products of matrices: by products for small ones, by correlations for large ones."""

from __future__ import annotations

from typing import Any

from structmat._arrays.arithmetic import conjugate
from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import device_of
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.embedding import fast_length
from structmat._toeplitz_systems.superfast.batches import adjoint, parts_of

BY_PRODUCTS = 512
"""Up to so many points of a node the sums along diagonals are made by products of matrices."""


def placed(values: Array, first: int, n: int, xp: Namespace) -> Array:
    """Return a vector of n numbers with these from the first place on, and zeros elsewhere."""
    before, after = (
        xp.zeros(count, dtype=values.dtype, device=device_of(values)) for count in (first, n - first - values.shape[0])
    )
    return xp.concat([before, values, after])


def sums_between(left: Array, right: Array, coupling: Array | None, xp: Namespace) -> Array:
    """Return the sums along the diagonals of ``left^H coupling right``, from the lower left corner on, over a batch.

    Without a coupling they are those of ``left^H right``. They are found by a product of matrices for small nodes, and
    by correlations for large ones.
    """
    p, q = left.shape[-1], right.shape[-1]
    by_products = p <= BY_PRODUCTS
    of_rows = _product if by_products else _spectrum
    total: Any = 0.0
    for some in parts_of(left.shape[0], left.shape[-2] * (p + q), left, xp):
        rows = xp.reshape(left[some, ...], (-1, p))
        other = right[some, ...]
        other = other if coupling is None else xp.matmul(coupling[some, ...], other)
        others = xp.reshape(other, (-1, q))
        total = total + of_rows(rows, others, xp)
    if by_products:
        return sums_of(total, xp)
    length = fast_length(p + q - 1)
    found = xp.fft.ifft(total, n=length) if is_complex(left.dtype, xp) else xp.fft.irfft(total, n=length)
    return found[: p + q - 1]


def _product(left: Array, right: Array, xp: Namespace) -> Array:
    return xp.matmul(adjoint(left, xp), right)


def _spectrum(left: Array, right: Array, xp: Namespace) -> Array:
    """Return the spectrum of the correlations of rows with rows, summed over all."""
    length = fast_length(left.shape[-1] + right.shape[-1] - 1)
    forward = xp.fft.fft if is_complex(left.dtype, xp) else xp.fft.rfft
    total: Any = 0.0
    for some in parts_of(left.shape[0], length, left, xp):
        reversed_rows = conjugate(xp.flip(left[some, :], axis=-1), xp)
        total = total + xp.sum(forward(reversed_rows, n=length) * forward(right[some, :], n=length), axis=0)
    return total


def sums_of(block: Array, xp: Namespace) -> Array:
    """Return the sums along the diagonals of a matrix from the lower left corner to the upper right one."""
    p, q = block.shape
    wide = xp.concat([xp.flip(block, axis=0), xp.zeros((p, p), dtype=block.dtype, device=device_of(block))], axis=1)
    return xp.sum(xp.reshape(xp.reshape(wide, (-1,))[: p * (p + q - 1)], (p, p + q - 1)), axis=0)
