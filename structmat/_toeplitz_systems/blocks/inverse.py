"""The inverse of a block Toeplitz matrix, which two block columns and two block rows determine.

Let x be the first block column of the inverse and v its last block row, ``T x = (1, 0, ..., 0)`` and
``v T = (0, ..., 0, 1)``, and for any p x p matrix s

    T y = (s, R[1 - n], ..., R[-1])   and   w T = (R[-1], ..., R[1 - n], s).

With Z, the shift down by one block,

    T^-1 - Z T^-1 Z^T = x (1, -w[0], ..., -w[n-2]) + y (0, v[0], ..., v[n-2]),

as both sides show when they are multiplied by T. So the inverse is ``L(x) U(1, -w) + L(y) U(0, v)`` with the block
triangular Toeplitz matrices L and U of that first block column and first block row, the formula of Gohberg and Heinig
[1]_. It is one product of two block Toeplitz matrices,

    T^-1 = L([x y]) U([1 -w; 0 v]),   with blocks of p x 2p and of 2p x p.

Nothing is divided by, so that no leading section need be regular. With the predictors of Whittle's recursion for y and
w, ``y = -Z B`` and ``(1, -w) = G``, it is the formula of Gohberg and Semencul.

References
----------
.. [1] Gohberg, I., Heinig, G., Inversion of finite Toeplitz matrices with entries from a noncommutative algebra, Rev.
   Roumaine Math. Pures Appl. 19, 1974.
"""

from __future__ import annotations

from typing import NamedTuple, Self

from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import device_of, namespace
from structmat._arrays.shapes import move_axis, padded, reversed_cyclically
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.embedding import fast_length
from structmat._fourier.spectra import from_spectrum, spectrum


class InverseBlocks(NamedTuple):
    """What determines the inverse of a block Toeplitz matrix, or of each of a stack, of shapes ``(..., n, p, p)``."""

    x: Array
    """The first block column of the inverse."""
    y: Array
    """``T y = (s, R[1 - n], ..., R[-1])``."""
    v: Array
    """The last block row of the inverse."""
    w: Array
    """``w T = (R[-1], ..., R[1 - n], s)``, with the same s."""

    @classmethod
    def of_predictors(cls, x: Array, backward: Array, v: Array, forward_row: Array) -> Self:
        """Return it for the backward predictor B and the row G of Whittle's recursion."""
        xp = namespace(x)
        zero = xp.zeros_like(x[..., :1, :, :])
        y = xp.concat([zero, -backward[..., :-1, :, :]], axis=-3)
        w = xp.concat([-forward_row[..., 1:, :, :], zero], axis=-3)
        return cls(x, y, v, w)

    @classmethod
    def from_rows(cls, columns: Array, rows: Array, p: int) -> Self:
        """Return it for the columns of x and y, and for the rows of v and w, all in the form of `as_rows`."""
        xp = namespace(columns)
        n = columns.shape[-1] // p
        columns, rows = (xp.reshape(part, (*part.shape[:-1], n, p)) for part in (columns, rows))
        of_columns = [move_axis(part, -3, -1, xp) for part in (columns[..., :p, :, :], columns[..., p:, :, :])]
        of_rows = [move_axis(part, -3, -2, xp) for part in (rows[..., :p, :, :], rows[..., p:, :, :])]
        return cls(*of_columns, *of_rows)

    def as_rows(self) -> tuple[Array, Array]:
        """Return the columns of x and those of y, and the rows of v and those of w, as rows, shape ``(..., 2 p, n p)``.

        The second ones are what the systems of the transpose are solved by.
        """
        xp = namespace(self.x)
        columns = [move_axis(blocks, -1, -3, xp) for blocks in (self.x, self.y)]
        rows = [move_axis(blocks, -2, -3, xp) for blocks in (self.v, self.w)]
        first, second = (xp.concat(pair, axis=-3) for pair in (columns, rows))
        flat = (*first.shape[:-2], first.shape[-2] * first.shape[-1])
        return xp.reshape(first, flat), xp.reshape(second, flat)

    def factors(self, xp: Namespace) -> tuple[Array, Array]:
        """Return the first block column of L, with blocks of p x 2p, and the first block row of U, of 2p x p."""
        x, y, v, w = self
        p = x.shape[-1]
        zero = xp.zeros_like(x[..., :1, :, :])
        one = zero + xp.eye(p, dtype=x.dtype, device=device_of(x))
        above = xp.concat([one, -w[..., :-1, :, :]], axis=-3)
        below = xp.concat([zero, v[..., :-1, :, :]], axis=-3)
        return xp.concat([x, y], axis=-1), xp.concat([above, below], axis=-2)


def block_diagonal_sums(lower: Array, upper: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the sums of the blocks of ``L(lower) U(upper)`` along its block diagonals, from the main one on.

    The first result goes upward, the second one downward, and begins with a zero, so that the main diagonal counts
    once. The sum along the diagonal of blocks (i, i + s) is that of ``(n - max(m, m + s)) lower[m] upper[m + s]``.
    """
    n = lower.shape[-3]
    weights = xp.astype(n - xp.arange(n, device=device_of(lower)), lower.dtype)[:, None, None]
    upward = _sums_over_lags(lower, weights * upper, xp)[1]
    downward = _sums_over_lags(weights * lower, upper, xp)[0]
    return upward, xp.concat([xp.zeros_like(downward[..., :1, :, :]), downward[..., 1:, :, :]], axis=-3)


def _sums_over_lags(u: Array, v: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the sums of ``u[i] v[j]`` over ``i - j = s`` and over ``j - i = s``, for s = 0, ..., n - 1."""
    n = u.shape[-3]
    real = not is_complex(u.dtype, xp)
    length = fast_length(2 * n - 1)
    u, v = (move_axis(blocks, -3, -1, xp) for blocks in (u, v))
    backwards = reversed_cyclically(padded(v, length, xp), xp)
    U, V = (move_axis(spectrum(blocks, xp, real=real, n=length), -1, -3, xp) for blocks in (u, backwards))
    sums = from_spectrum(move_axis(xp.matmul(U, V), -3, -1, xp), length, xp, real=real)
    both = (sums[..., :n], reversed_cyclically(sums, xp)[..., :n])
    first, second = (move_axis(blocks, -1, -3, xp) for blocks in both)
    return first, second
