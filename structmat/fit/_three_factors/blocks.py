"""The matrix to be fitted, laid out for the solvers: padded blocks, cyclic diagonals, chunks that fit the cache."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat.fit._three_factors.vectors import largest_exponent, scale_by_power_of_two

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = [
    "BlockGrid",
    "absolute_square",
    "by_diagonals",
    "conjugate_column_sums",
    "conjugate_row_sums",
    "cyclic_windows",
    "ratio",
    "transposed_circulants",
]

# A chunk and its product with a vector should stay in the second-level cache together.
_CHUNK_BYTES = 1 << 19


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
    overwrite : bool, default False
        Whether the matrix may become the blocks, where there is no padding.
    """

    def __init__(self, matrix: NDArray[Any], block_size: int, *, overwrite: bool = False) -> None:
        rows, cols = matrix.shape
        m = block_size
        self.m, self.p, self.q = m, -(-rows // m), -(-cols // m)
        self.dtype: np.dtype[Any] = matrix.dtype
        self.products = self.dtype
        """The dtype of the products that the fit is made for."""
        self.double: np.dtype[Any] = np.result_type(matrix.dtype, np.float64)
        """The dtype of factors and of sums over the matrix."""
        self.exponent = largest_exponent(matrix)
        """The matrix is ``2**exponent`` times the blocks."""
        if overwrite and matrix.shape == (self.p * m, self.q * m) and _is_plain(matrix):
            padded = np.ldexp(matrix, -self.exponent, out=matrix)
        else:
            padded = np.zeros((self.p * m, self.q * m), dtype=matrix.dtype)
            padded[:rows, :cols] = scale_by_power_of_two(matrix, -self.exponent)
        self.blocks = padded.reshape(self.p, m, self.q, m)
        """``blocks[p, i, q, j]``: entry (i, j) of block (p, q)."""
        self.weighted = self.blocks
        """The blocks times the weights of their entries, if these have any."""
        self.rows_present = _present(rows, self.p, m).astype(self.double)
        """(p, m): one on rows of the matrix, zero on padding."""
        self.cols_present = _present(cols, self.q, m).astype(self.double)
        """(q, m): one on columns of the matrix, zero on padding."""
        self.norm2 = sum(
            float(np.sum(absolute_square(self.blocks[chunk]), dtype=np.float64)) for chunk in self.chunks()
        )
        """Squared Frobenius norm of the blocks."""
        self.mean_norm2 = self.norm2
        """The squared norm of a matrix whose entries are all of the mean energy of those that count."""

    @cached_property
    def diagonals(self) -> NDArray[Any]:
        """``diagonals[p, i, q, k] = blocks[p, i, q, (i - k) % m]``: cyclic diagonal `k` of a block is column `k`."""
        return by_diagonals(self.blocks)

    def release_diagonals(self) -> None:
        """Give back the memory of `diagonals`, until they are needed again."""
        self.__dict__.pop("diagonals", None)

    def diagonal_energy(self, ps: slice, rows: slice) -> NDArray[Any]:
        """Squared moduli of a chunk of `diagonals`."""
        return absolute_square(self.diagonals[ps, rows])

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[slice, slice]]:
        """Slices (block rows, rows inside the block) that cover rows `start` to `stop` of every block once.

        A chunk is part of one block row, or several whole block rows if these are small.
        """
        stop = self.m if stop is None else stop
        height = stop - start
        if height <= 0:
            return
        rows = max(1, _CHUNK_BYTES // (self.q * self.m * self.dtype.itemsize))
        block_rows = max(1, rows // height)
        for p in range(0, self.p, block_rows):
            for i in range(start, stop, rows):
                yield slice(p, min(p + block_rows, self.p)), slice(i, min(i + rows, stop))


def by_diagonals(blocks: NDArray[Any]) -> NDArray[Any]:
    """``out[p, i, q, k] = blocks[p, i, q, (i - k) % m]``."""
    out = np.empty_like(blocks)
    for i in range(blocks.shape[-1]):
        out[:, i, :, : i + 1] = blocks[:, i, :, i::-1]
        out[:, i, :, i + 1 :] = blocks[:, i, :, :i:-1]
    return out


def transposed_circulants(c: NDArray[Any]) -> NDArray[Any]:
    """Return the first columns of the transposes of circulants."""
    return np.concatenate((c[..., :1], c[..., :0:-1]), axis=-1)


def cyclic_windows(x: NDArray[Any]) -> NDArray[Any]:
    """Read-only view ``y[..., i, q, k] = x[..., q, (i - k) % m]`` of a (..., q, m) array; it owns 2 x.size numbers."""
    m = x.shape[-1]
    once = transposed_circulants(x)
    twice = np.concatenate((once, once), axis=-1)
    *lead, q_stride, step = twice.strides
    return np.lib.stride_tricks.as_strided(
        twice[..., m:],
        shape=(*x.shape[:-2], m, x.shape[-2], m),
        strides=(*lead, -step, q_stride, step),
        writeable=False,
    )


def absolute_square(x: NDArray[Any]) -> NDArray[Any]:
    """``abs(x)**2`` without the square root."""
    squares: NDArray[Any] = np.square(x.real) + np.square(x.imag) if np.iscomplexobj(x) else np.square(x)
    return squares


def ratio(dtype: np.dtype[Any], numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[Any]:
    """Elementwise quotient of sums over a matrix of `dtype`.

    Zero where the denominator vanishes, and with it the numerator, or is near underflow.
    """
    floor = float(np.finfo(dtype).tiny) ** 0.8
    quotient: NDArray[Any] = np.divide(
        numerator,
        denominator,
        out=np.zeros_like(numerator),
        where=denominator > floor,
    )
    return quotient


# The two sums below avoid matrix-vector products of BLAS: at this size its threads save little, and where the cores
# are busy every call may stall for milliseconds.


def conjugate_row_sums(rows: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    """``sum_(q,k) rows[p, i, q, k] * conj(weights[..., q, k])``, with or without a leading p on the weights."""
    flat = weights.reshape(*weights.shape[:-2], 1, -1)
    sums: NDArray[Any] = np.vecdot(flat, rows.reshape(*rows.shape[:2], -1))
    return sums


def conjugate_column_sums(rows: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    """``sum_i rows[p, i, q, k] * conj(weights[p, i])``; complex sums are made of real ones, which vectorise."""
    flat = rows.reshape(*rows.shape[:2], -1)
    if np.iscomplexobj(flat):
        parts = flat.view(flat.real.dtype)
        real, imaginary = (np.einsum("pi,pik->pk", w, parts).view(flat.dtype) for w in (weights.real, weights.imag))
        sums: NDArray[Any] = real - 1j * imaginary
    else:
        sums = np.einsum("pi,pik->pk", weights, flat)
    return sums.reshape(rows.shape[0], *rows.shape[2:])


def _present(count: int, blocks: int, m: int) -> NDArray[np.bool_]:
    return (np.arange(blocks * m) < count).reshape(blocks, m)


def _is_plain(matrix: NDArray[Any]) -> bool:
    """Tell whether a matrix can be scaled where it is: real, and in the order that the blocks need."""
    return matrix.flags.c_contiguous and matrix.flags.writeable and not np.iscomplexobj(matrix)
