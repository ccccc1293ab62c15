"""A grid of circulants as a dense matrix, some rows at a time: views without a copy, of pieces that stay in cache."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["LagSums", "circulant_rows", "room"]

# Entries that are computed at once: they stay in cache, and the cost of calls is small.
_PIECE = 2**17


def _rows_and_blocks(q: int, b: int) -> tuple[int, int]:
    """Return how many rows of a block, and how many blocks below each other, are computed at once."""
    return min(b, max(1, _PIECE // (q * b))), max(1, _PIECE // (q * b * b))


def circulant_rows(circulants: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Return rows of the matrix (p b, q b) of a grid of circulants (p, q, b), in order, as views (s, h, q, b).

    Each has all rows of s block rows, or h of one.
    """
    p, q, b = circulants.shape
    height, several = _rows_and_blocks(q, b)
    period = (height + 1) * b
    first_rows = circulants.flip(2).roll(1, 2)
    for i in range(0, p, several):
        # Vectors behind each other: one that starts b - 1 later is shifted by one, as the next row of a circulant is.
        repeated = first_rows[i : i + several].repeat(1, 1, height + 1)
        for top in range(0, b, height):
            shape = (len(repeated), min(height, b - top), q, b)
            here = slice(i * b + top, i * b + top + shape[0] * shape[1])
            yield here, repeated.as_strided(shape, (q * period, b - 1, period, 1), -top % b)


def room(circulants: Tensor, times: int = 1) -> Tensor:
    """Return memory for the most entries that `circulant_rows` returns at once: used again, it stays in cache."""
    p, q, b = circulants.shape
    height, several = _rows_and_blocks(q, b)
    return circulants.new_empty(times * min(p, several) * height * q * b)


class LagSums:
    """Sums of entries of the matrix of a grid of circulants, by the entry of a circulant whose place they have.

    Of gradients of the matrix they are those of the circulants.
    """

    def __init__(self, circulants: Tensor) -> None:
        self._sums = torch.zeros_like(circulants)  # [:, :, u]: of entries u places to the right of the diagonal
        self._twice = room(circulants, 2)

    def add(self, here: slice, entries: Tensor, scale: Tensor) -> None:
        """Add ``entries * scale`` (s, h, q, b) in these rows of the matrix."""
        s, h, q, b = entries.shape
        # Rows twice behind each other: read one place further on in each, their entries of one lag stand in a column.
        twice = self._twice[: 2 * entries.numel()].view(s, h, q, 2 * b)
        once = torch.mul(entries, scale, out=twice[..., :b])
        twice[..., b:] = once
        lags = twice.as_strided(entries.shape, (2 * h * q * b, 2 * q * b + 1, 2 * b, 1), here.start % b)
        self._sums[here.start // b : here.start // b + s] += lags.sum(1)

    def total(self) -> Tensor:
        """Return the sums, (p, q, b)."""
        return self._sums.flip(2).roll(1, 2)
