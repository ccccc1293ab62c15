"""A matrix as a grid of blocks, the three vectors of a product Diagonal @ BlockCirculant @ Diagonal, sums over blocks.

The product is ``P[p, i, q, j] = a[p, i] * c[p, q, (i - j) % m] * b[q, j]`` on p x q blocks of side m.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmat.fit._matrices import (
    absolute_square,
    by_cyclic_diagonals,
    largest_exponent,
    scale_by_power_of_two,
    transposed_circulants,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "BlockGrid",
    "Factors",
    "conjugate_column_sums",
    "conjugate_row_sums",
    "cyclic_windows",
    "residual_norm2",
]

_CHUNK_BYTES = 1 << 19
"""The bytes of a chunk of the matrix. It stays in the second-level cache, together with its product with a vector."""

_UNIT_WEIGHTS = 1 << 14
"""For matrices of no more entries than this, sums with weights of one take less time than transforms."""


class Factors(NamedTuple):
    """The three vectors of a product, padded to whole blocks.

    They are in double precision whatever that of the matrix is, since rounding hurts sums over them first.
    """

    a: NDArray[Any]
    """Left diagonal, (p, m)."""
    c: NDArray[Any]
    """First columns of the circulant blocks, (p, q, m)."""
    b: NDArray[Any]
    """Right diagonal, (q, m)."""

    def scaled(self, exponent: int) -> Factors:
        """Multiply the product by ``2**exponent`` and share its scale evenly between the three vectors.

        Only powers of two are moved, so nothing is rounded.
        """
        own = [_exponent(x) for x in self]
        shares = np.diff(np.arange(4) * (sum(own) + exponent) // 3).tolist()
        return Factors(*(scale_by_power_of_two(x, share - e) for x, share, e in zip(self, shares, own, strict=True)))


class BlockGrid:
    """A matrix as a p x q grid of m x m blocks, scaled by a power of two to a largest entry near one.

    The padding is zero. With zeros in `a` and `b` on padded rows and columns every weighted sum is that of the cropped
    matrix, so nothing else needs to know about the padding.

    Parameters
    ----------
    matrix : (rows, cols) ndarray
        Finite float32, float64, complex64 or complex128 entries; only read.
    block_size : int
        Side `m` of the blocks.
    entry_weights : (rows, cols) ndarray, optional
        Finite real weights of squared residuals, not negative and not all zero; the matrix is zero where they are.
    products : dtype, optional
        That of the products that the fit is made for, by default of the matrix.
    """

    def __init__(
        self,
        matrix: NDArray[Any],
        block_size: int,
        entry_weights: NDArray[Any] | None = None,
        products: np.dtype[Any] | None = None,
    ) -> None:
        self.shape: tuple[int, int] = matrix.shape
        rows, cols = matrix.shape
        self.m, self.p, self.q = block_size, -(-rows // block_size), -(-cols // block_size)
        self.dtype: np.dtype[Any] = matrix.dtype
        self.products: np.dtype[Any] = products or matrix.dtype
        self.double: np.dtype[Any] = np.result_type(matrix.dtype, np.float64)
        """The dtype of factors and of sums over the matrix."""
        self.exponent = largest_exponent(matrix)
        """The matrix is ``2**exponent`` times the blocks."""
        self.blocks = self._in_blocks(scale_by_power_of_two(matrix, -self.exponent))
        """``blocks[p, i, q, j]`` is entry (i, j) of block (p, q)."""
        if entry_weights is None and matrix.size <= _UNIT_WEIGHTS:
            entry_weights = np.ones(matrix.shape)
        self.weights = (
            None
            if entry_weights is None
            else self._in_blocks((entry_weights / entry_weights.max()).astype(matrix.real.dtype))
        )
        """The weights, scaled to a largest one of one and laid out as the blocks, or None if all are one.

        They are zero on the padding.
        """
        self.weighted = self.blocks if self.weights is None else self.weights * self.blocks
        self.rows_present = (np.arange(self.p * self.m) < rows).reshape(self.p, -1).astype(self.double)
        """An array (p, m) with ones for the rows of the matrix and zeros for the padding."""
        self.cols_present = (np.arange(self.q * self.m) < cols).reshape(self.q, -1).astype(self.double)
        """An array (q, m) with ones for the columns of the matrix and zeros for the padding."""
        self.norm2 = sum(float(np.sum(self._energy(chunk), dtype=np.float64)) for chunk in self.chunks())
        """The squared Frobenius norm of the blocks, with the weights."""
        counted = rows * cols if self.weights is None else float(np.sum(self.weights, dtype=np.float64))
        self.mean_norm2 = self.norm2 * rows * cols / counted
        """The squared norm of a matrix whose entries are all of the mean energy of those that count."""

    def _in_blocks(self, matrix: NDArray[Any]) -> NDArray[Any]:
        rows, cols = matrix.shape
        whole = self.p * self.m, self.q * self.m
        padded = np.ascontiguousarray(matrix)
        if whole != matrix.shape:
            padded = np.zeros(whole, dtype=matrix.dtype)
            padded[:rows, :cols] = matrix
        return padded.reshape(self.p, self.m, self.q, self.m)

    def _energy(self, chunk: tuple[slice, slice]) -> NDArray[Any]:
        squares = absolute_square(self.blocks[chunk])
        return squares if self.weights is None else squares * self.weights[chunk]

    @cached_property
    def weighted_diagonals(self) -> NDArray[Any]:
        """``[p, i, q, k]`` is ``weighted[p, i, q, (i - k) % m]``: cyclic diagonal `k` of a block is column `k`."""
        return by_cyclic_diagonals(self.weighted)

    @cached_property
    def weight_diagonals(self) -> NDArray[Any] | None:
        """The weights, laid out like `weighted_diagonals`; None if all are one."""
        return None if self.weights is None else by_cyclic_diagonals(self.weights)

    def factors(self, vectors: Sequence[NDArray[Any]]) -> Factors:
        """Return the factors, for the scaled matrix and padded, of the product with these vectors."""
        a, c, b = (vector.astype(self.double) for vector in vectors)  # Real ones may start a complex fit.
        return Factors(self._padded(a, self.p), c, self._padded(b, self.q)).scaled(-self.exponent)

    def vectors(self, factors: Factors) -> list[NDArray[Any]]:
        """Return the vectors, for the matrix itself and without the padding, of the product of these factors."""
        rows, cols = self.shape
        a, c, b = factors.scaled(self.exponent)
        return [a.reshape(-1)[:rows], c, b.reshape(-1)[:cols]]

    def _padded(self, diagonal: NDArray[Any], blocks: int) -> NDArray[Any]:
        whole = np.zeros(blocks * self.m, dtype=diagonal.dtype)
        whole[: len(diagonal)] = diagonal
        return whole.reshape(blocks, self.m)

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[slice, slice]]:
        """Yield slices (block rows, rows inside of a block) that cover the rows `start` to `stop` of every block once.

        A chunk is part of one block row, or several whole block rows if these are small.
        """
        stop = self.m if stop is None else stop
        if stop <= start:
            return
        rows = max(1, _CHUNK_BYTES // (self.q * self.m * self.dtype.itemsize))
        block_rows = max(1, rows // (stop - start))
        for p in range(0, self.p, block_rows):
            for i in range(start, stop, rows):
                yield slice(p, min(p + block_rows, self.p)), slice(i, min(i + rows, stop))


def residual_norm2(grid: BlockGrid, factors: Factors) -> float:
    """Return the squared norm of the blocks minus the product, with the weights, entry by entry in double precision."""
    c = cyclic_windows(factors.c)
    total = 0.0
    for ps, rows in grid.chunks():
        part = c[ps, rows] * factors.b
        part *= factors.a[ps, rows, None, None]
        part -= grid.blocks[ps, rows]
        if grid.weights is None:
            total += float(np.vecdot(part, part).real.sum())
        else:
            total += float(np.sum(absolute_square(part) * grid.weights[ps, rows]))
    return total


def cyclic_windows(x: NDArray[Any]) -> NDArray[Any]:
    """Return a view ``y[..., i, q, k] = x[..., q, (i - k) % m]`` of an array (..., q, m), on twice its numbers."""
    m = x.shape[-1]
    once = transposed_circulants(x)
    twice = np.concatenate((once, once), axis=-1)
    *lead, q_stride, step = twice.strides
    # `as_strided` does the same, but takes longer than small sums do.
    shape, strides = (*x.shape[:-2], m, x.shape[-2], m), (*lead, -step, q_stride, step)
    return np.ndarray(shape, x.dtype, buffer=twice, offset=m * step, strides=strides)


# The two sums below do without the matrix-vector products of BLAS. At this size its threads save little, and on a busy
# machine every call may wait for them for milliseconds.


def conjugate_row_sums(rows: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    """Return ``sum_(q,k) rows[p, i, q, k] * conj(weights[..., q, k])``, with or without a leading p on the weights."""
    flat = weights.reshape(*weights.shape[:-2], 1, -1)
    sums: NDArray[Any] = np.vecdot(flat, rows.reshape(*rows.shape[:2], -1))
    return sums


def conjugate_column_sums(rows: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    """Return ``sum_i rows[p, i, q, k] * conj(weights[p, i])``; complex sums are made of real ones, which vectorise."""
    flat = rows.reshape(*rows.shape[:2], -1)
    if np.iscomplexobj(flat):
        parts = flat.view(flat.real.dtype)
        real, imaginary = (np.einsum("pi,pik->pk", w, parts).view(flat.dtype) for w in (weights.real, weights.imag))
        sums: NDArray[Any] = real - 1j * imaginary
    else:
        sums = np.einsum("pi,pik->pk", weights, flat)
    return sums.reshape(rows.shape[0], *rows.shape[2:])


def _exponent(x: NDArray[Any]) -> int:
    """Return the binary exponent of the root mean square of `x`, or zero if `x` is zero."""
    largest = np.abs(x).max(initial=0.0)
    if largest == 0.0:
        return 0
    return int(np.frexp(largest * np.sqrt(np.mean(np.square(np.abs(x / largest)))))[1])
