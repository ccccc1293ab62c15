"""The last factors of a product, which act on the identity: their rows, and their gradients, without transforms."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from structmat.fit._many_factors.array_work import Work, WorkArray

__all__ = ["TrailingFactors"]


class TrailingFactors:
    """Circulants of one block, or products of a circulant and a diagonal, held as rows: transposed.

    Parameters
    ----------
    c : (B, n) array
        First columns.
    d : (B, n) array, optional
        Diagonals.
    work : Work
    """

    def __init__(self, c: WorkArray, d: WorkArray | None, work: Work) -> None:
        self._d, self.n_factors, self._work = d, 1 if d is None else 2, work
        self._twice = work.xp.concat((c, c), axis=-1)
        self._shifted: dict[int, WorkArray] = {}
        """Rows of the circulant that were asked for, by the first, until their gradients are."""

    def rows(self, rows: slice) -> WorkArray:
        """Return some rows (B, r, n)."""
        shifted = self._work.shifted(self._twice, rows)
        if self._d is None:
            return self._work.xp.asarray(shifted, copy=True)
        self._shifted[rows.start] = shifted
        return shifted * self._d[:, rows, None]

    def gradients(self, rows: slice, residual: WorkArray) -> list[WorkArray]:
        """Return half the gradients, of the circulant as its spectrum (B, 1, 1, f), from those of some rows."""
        work, xp = self._work, self._work.xp
        back = work.shifted_back(xp.concat((residual, residual), axis=-1), rows.start)
        if self._d is None:
            return [work.transformed(back.sum(axis=1))[:, None, None]]
        of_c = (back * self._d[:, rows, None].conj()).sum(axis=1)
        of_d = xp.zeros_like(self._d)
        of_d[:, rows] = xp.linalg.vecdot(self._shifted.pop(rows.start), residual)
        return [work.transformed(of_c)[:, None, None], of_d]
