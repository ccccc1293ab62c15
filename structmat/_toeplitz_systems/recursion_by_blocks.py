"""Levinson's recursion by blocks of rows, for the first and the last column of the inverse of a Toeplitz matrix.

With the leading section T_m, ``T_m f = e_0`` and ``T_m g = e_{m-1}``. The product of T_{m+k} with f or g, shifted down
by j rows between zeros, is zero but for k rows at the top and k at the bottom: there are 1, and rows of the infinite
Toeplitz matrix times f or g. Therefore the two columns for m + k are combinations of f shifted by 0, ..., k - 1 and of
g shifted by 1, ..., k, with the 2k coefficients that solve a system of these 2k rows, which has four triangular
Toeplitz blocks. LAPACK solves it with pivots, and all else is convolutions, so that most operations are those of
compiled loops, and only one leading section in k has to be regular.

Where T is symmetric, g is f in reverse order. The sum and the difference of the two new columns are as symmetric and
as antisymmetric, so that two systems of k rows take the place of the one of 2k.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._arrays.namespaces import numpy_namespace
from structmat._fourier.embedding import kernel_of_diagonals
from structmat._fourier.plans import Convolution
from structmat._toeplitz_systems import thresholds
from structmat._toeplitz_systems.elimination import dense_matrix, lapack, toeplitz_view
from structmat._toeplitz_systems.inverse import bezoutian, with_shortest_y

if TYPE_CHECKING:
    from numpy.typing import NDArray


def vectors_by_blocks(constants: NDArray[Any]) -> NDArray[Any]:
    """Return ``T x = e_0`` and ``T y = (s, t[1 - n], ..., t[-1])`` with some s, as rows; NaN where they are not found.

    `constants` are the diagonals from the upper right corner to the lower left one.
    """
    with np.errstate(all="ignore"):
        f, g = _first_and_last_column(constants)
        return _vectors(f, g)


def _vectors(f: NDArray[Any], g: NDArray[Any]) -> NDArray[Any]:
    """Return the two vectors that determine the inverse with the first column f and the last column g."""
    y = np.append(np.zeros(1, g.dtype), -g[:-1] / g[-1])
    return with_shortest_y(np.array([f, y]))


def _first_and_last_column(constants: NDArray[Any]) -> NDArray[Any]:
    """Return the first and the last column of the inverse, as rows."""
    n, size = len(constants) // 2 + 1, thresholds.STEP
    middle = n - 1
    m = min(n, size + n % size)
    columns = _of_dense_matrix(constants[n - m : n - 1 + m])
    is_symmetric = np.array_equal(constants, constants[::-1])
    step = (_SymmetricStep if is_symmetric else _GeneralStep)(size, constants.dtype)
    next_correction = thresholds.CORRECTED_FROM
    while m < n and np.all(np.isfinite(columns[:, 0])):
        if m >= next_correction:
            columns = _corrected(columns, constants[n - m : n - 1 + m])
            next_correction *= 2
        above = constants[middle - size - m + 1 : middle]
        below = constants[middle + 1 : middle + size + m]
        columns = step(columns, above, below)
        m += size
    return columns if m == n else np.full((2, n), np.nan, constants.dtype)


def _of_dense_matrix(constants: NDArray[Any]) -> NDArray[Any]:
    """Return both columns for a small matrix by elimination."""
    n = len(constants) // 2 + 1
    right_hand_sides = np.zeros((n, 2), constants.dtype, order="F")
    right_hand_sides[0, 0] = right_hand_sides[-1, 1] = 1
    return _solution(dense_matrix(constants), right_hand_sides).T


def _solution(matrix: NDArray[Any], right_hand_sides: NDArray[Any]) -> NDArray[Any]:
    """Return solutions in columns by elimination, which overwrites the matrix; NaN where it is singular."""
    _, _, x, failed = lapack(matrix.dtype).gesv(matrix, right_hand_sides, overwrite_a=True)
    return np.full_like(x, np.nan) if failed else x


def _corrected(columns: NDArray[Any], constants: NDArray[Any]) -> NDArray[Any]:
    """Return both columns after one correction by the inverse that they determine."""
    n = columns.shape[1]
    kernel = kernel_of_diagonals(constants[n - 1 :], constants[: n - 1][::-1], numpy_namespace)
    residuals: Any = -Convolution.of(kernel, (n, n), numpy_namespace).apply(columns, numpy_namespace)
    residuals[0, 0] += 1
    residuals[1, -1] += 1
    x, y = _vectors(*columns)
    corrections: Any = bezoutian(x, y, numpy_namespace).apply(residuals, numpy_namespace)
    return columns + corrections


def _combination(a: NDArray[Any], f: NDArray[Any], b: NDArray[Any], g: NDArray[Any]) -> NDArray[Any]:
    """Return f shifted by 0, ..., k - 1 with coefficients a, plus g shifted by 1, ..., k with coefficients b."""
    total = np.zeros(len(f) + len(a), f.dtype)
    total[:-1] = np.convolve(a, f)
    total[1:] += np.convolve(b, g)
    return total


class _GeneralStep:
    """The step from m to m + k rows; its matrix and what it is filled from are kept from step to step."""

    def __init__(self, k: int, dtype: Any) -> None:
        self.k = k
        self.matrix = np.empty((2 * k, 2 * k), dtype, order="F")
        self.right_hand_sides = np.zeros((2 * k, 2), dtype, order="F")
        self.right_hand_sides[0, 0] = self.right_hand_sides[-1, 1] = 1
        self.diagonals = np.zeros((4, 2 * k - 1), dtype)
        """Those of the blocks: products with f in the rows above and below, then products with g."""
        self.diagonals[0, k - 1] = self.diagonals[3, k - 1] = 1
        first, last = slice(0, k), slice(k, 2 * k)
        places = [(first, first), (last, first), (first, last), (last, last)]
        self.blocks = [
            (self.matrix[place], toeplitz_view(diagonals))
            for place, diagonals in zip(places, self.diagonals, strict=True)
        ]

    def __call__(self, columns: NDArray[Any], above: NDArray[Any], below: NDArray[Any]) -> NDArray[Any]:
        k = self.k
        f, g = columns
        self.diagonals[0, : k - 1] = np.convolve(above, f, "valid")[1:]
        self.diagonals[1, k - 1 :] = np.convolve(below, f, "valid")
        self.diagonals[2, :k] = np.convolve(above, g, "valid")
        self.diagonals[3, k:] = np.convolve(below, g, "valid")[:-1]
        for block, entries in self.blocks:
            block[...] = entries
        coefficients = _solution(self.matrix, self.right_hand_sides).T
        return np.array([_combination(each[:k], f, each[k:], g) for each in coefficients])


class _SymmetricStep:
    """The same for a symmetric matrix, with two matrices of k rows: for the sum and the difference of the columns."""

    def __init__(self, k: int, dtype: Any) -> None:
        self.k = k
        self.right_hand_side = np.zeros(k, dtype)
        self.right_hand_side[0] = 1
        self.diagonals = np.zeros(2 * k - 1, dtype)
        """Those of the block for f."""
        self.diagonals[k - 1] = 1
        self.antidiagonals = np.zeros(2 * k - 1, dtype)
        """Those of the block for g, whose columns are taken in reverse order."""
        self.block = toeplitz_view(self.diagonals)
        self.mirrored = toeplitz_view(self.antidiagonals)[:, ::-1]
        self.matrix = np.empty((k, k), dtype, order="F")

    def __call__(self, columns: NDArray[Any], above: NDArray[Any], below: NDArray[Any]) -> NDArray[Any]:
        k = self.k
        f, g = columns
        self.diagonals[: k - 1] = np.convolve(above, f, "valid")[1:]
        self.antidiagonals[:k] = np.convolve(below, f, "valid")[::-1]
        sums, differences = (
            _solution(combined(self.block, self.mirrored, out=self.matrix), self.right_hand_side)
            for combined in (np.add, np.subtract)
        )
        new = _combination((sums + differences) / 2, f, (sums - differences)[::-1] / 2, g)
        return np.array([new, new[::-1]])
