"""Sums along block diagonals of products of matrices: by products for small ones, by correlations for large ones.

A sum of blocks is the sum of their transposes here, so that the sums are in the order of the first block column of a
Hermitian block Toeplitz matrix: the trace of the product of both is the sum of products of numbers.
"""

from __future__ import annotations

from typing import Any

from structmat._arrays.arithmetic import conjugate
from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import device_of
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.embedding import fast_length
from structmat._toeplitz_systems import thresholds
from structmat._toeplitz_systems.superfast.batches import adjoint, parts_of


def placed(values: Array, first: int, n: int, xp: Namespace) -> Array:
    """Return a vector of n numbers with these from the first place on, and zeros elsewhere."""
    before, after = (
        xp.zeros(count, dtype=values.dtype, device=device_of(values)) for count in (first, n - first - values.shape[0])
    )
    return xp.concat([before, values, after])


def sums_between(left: Array, right: Array, coupling: Array | None, channels: int, xp: Namespace) -> Array:
    """Return the sums along the diagonals of ``left^H coupling right``, from the lower left corner on, over a batch.

    Without a coupling they are those of ``left^H right``. They are found by a product of matrices for small nodes, and
    by correlations for large ones.
    """
    p, q = left.shape[-1], right.shape[-1]
    by_products = p <= thresholds.SUMS_BY_PRODUCTS
    total: Any = 0.0
    for some in parts_of(left.shape[0], left.shape[-2] * (p + q), left, xp):
        rows = xp.reshape(left[some, ...], (-1, p))
        other = right[some, ...]
        other = other if coupling is None else xp.matmul(coupling[some, ...], other)
        others = xp.reshape(other, (-1, q))
        if by_products:
            total = total + xp.matmul(adjoint(rows, xp), others)
        else:
            total = total + _spectra(rows, others, channels, xp)
    if by_products:
        return sums_of(total, channels, xp)
    lags = (p + q) // channels - 1
    length = fast_length(lags)
    found = xp.fft.ifft(total, n=length) if is_complex(left.dtype, xp) else xp.fft.irfft(total, n=length)
    return xp.reshape(xp.matrix_transpose(found[:, :lags]), (-1,))


def _spectra(left: Array, right: Array, channels: int, xp: Namespace) -> Array:
    """Return the spectra of the correlations of rows with rows, summed over all, for each pair of channels."""
    length = fast_length((left.shape[-1] + right.shape[-1]) // channels - 1)
    forward = xp.fft.fft if is_complex(left.dtype, xp) else xp.fft.rfft
    total: Any = 0.0
    for some in parts_of(left.shape[0], channels * length, left, xp):
        reversed_rows = conjugate(xp.flip(left[some, :], axis=-1), xp)
        of_left = [forward(reversed_rows[:, a::channels], n=length) for a in reversed(range(channels))]
        of_right = [forward(right[some, b::channels], n=length) for b in range(channels)]
        total = total + xp.stack([xp.sum(of_a * of_b, axis=0) for of_b in of_right for of_a in of_left])
    return total


def sums_of(block: Array, channels: int, xp: Namespace) -> Array:
    """Return the sums along the block diagonals of a matrix from the lower left corner to the upper right one."""
    p, q = (size // channels for size in block.shape)
    of_channels = xp.permute_dims(xp.reshape(block, (p, channels, q, channels)), (3, 1, 0, 2))
    zeros = xp.zeros((channels, channels, p, p), dtype=block.dtype, device=device_of(block))
    wide = xp.concat([xp.flip(of_channels, axis=-2), zeros], axis=-1)
    rows = xp.reshape(wide, (channels**2, -1))[:, : p * (p + q - 1)]
    sums = xp.sum(xp.reshape(rows, (channels**2, p, p + q - 1)), axis=-2)
    return xp.reshape(xp.matrix_transpose(sums), (-1,))
