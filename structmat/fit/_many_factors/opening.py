"""The last factors of a product, which act on the identity: their rows, and their gradients, without transforms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from structmat.fit._many_factors.spectra import transformed

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Opening"]


class Opening:
    """Circulants of one block, or products of a circulant and a diagonal, held as rows: transposed.

    Parameters
    ----------
    c : (B, n) ndarray
        First columns.
    d : (B, n) ndarray, optional
        Diagonals.
    """

    def __init__(self, c: NDArray[Any], d: NDArray[Any] | None) -> None:
        self._d, self.n_factors = d, 1 if d is None else 2
        twice = np.concatenate((c, c), axis=-1)
        count, n = c.shape
        apart, step = twice.strides
        # Row i is c, shifted by i.
        self._shifted = as_strided(twice[:, n:], (count, n, n), (apart, -step, step), writeable=False)

    def rows(self, rows: slice) -> NDArray[Any]:
        """Return some rows (B, r, n)."""
        shifted = self._shifted[:, rows]
        return shifted.copy() if self._d is None else shifted * self._d[:, rows, None]

    def gradients(self, rows: slice, residual: NDArray[Any]) -> list[NDArray[Any]]:
        """Return half the gradients, of the circulant as its spectrum (B, 1, 1, f), from those of some rows."""
        count, height, n = residual.shape
        start = rows.indices(n)[0]
        twice = np.concatenate((residual, residual), axis=-1)
        apart, down, step = twice.strides
        back = as_strided(twice[:, :, start:], (count, height, n), (apart, down + step, step), writeable=False)
        if self._d is None:
            return [transformed(back.sum(axis=1))[:, None, None]]
        of_c = np.einsum("bik,bi->bk", back, self._d[:, rows].conj())
        of_d = np.zeros_like(self._d)
        of_d[:, rows] = np.einsum("bik,bik->bi", self._shifted[:, rows].conj(), residual)
        return [transformed(of_c)[:, None, None], of_d]
