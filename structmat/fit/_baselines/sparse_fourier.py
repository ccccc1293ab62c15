"""Sparse matrices in the Fourier basis: the best case of FourierFT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy  # its `fft` is imported on first use

from structmat.fit._baselines.member import Member, tails

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["sparse_fourier"]


def sparse_fourier(matrix: NDArray[Any], budgets: Sequence[int]) -> list[Member]:
    """The largest coefficients in the two-dimensional Fourier basis: the best case of FourierFT.

    A complex matrix has one coefficient a frequency. The coefficients of a real matrix come in conjugate pairs; a pair
    counts once for its cosine and once for its sine, so that as many parameters as entries give the matrix itself.
    """
    rows, cols = matrix.shape
    transform = scipy.fft.fft2(matrix, norm="ortho")
    sizes = np.abs(transform)
    if not np.iscomplexobj(matrix):
        # Energy of the cosine and of the sine of each frequency, halved between the two of a pair: each pair appears
        # twice, so the halves of its cosine are put on one of them and those of its sine on the other.
        mirror = transform[np.ix_(-np.arange(rows), -np.arange(cols))]
        position = np.arange(rows * cols).reshape(rows, cols)
        opposite = position[np.ix_(-np.arange(rows), -np.arange(cols))]
        cosine, sine = np.abs(transform + mirror), np.abs(transform - mirror)
        sizes = np.where(position < opposite, cosine, sine) / np.sqrt(2.0)
        sizes = np.where(position == opposite, np.abs(transform), sizes)
    errors = tails(np.sort(sizes, axis=None)[::-1])
    used = [min(budget, rows * cols) for budget in budgets]
    return [Member(count, float(errors[count])) for count in used]
