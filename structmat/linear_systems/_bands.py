"""Banded matrices: Toeplitz matrices of few lags plus diagonals, and rows of them, solved by LAPACK in O(n) memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import scipy  # its `linalg` is imported on first use

from structmat._arrays.conversion import to_numpy
from structmat._arrays.libraries import device_of, rules_of
from structmat._arrays.typing import Array, Namespace
from structmat.linear_systems._results import Solutions
from structmat.linear_systems._stopping import is_as_small_as_rounding, relative_residual
from structmat.operators import LinearOperator, Toeplitz

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers: TypeAlias = NDArray[Any]

_WIDEST = 64
"""The most diagonals on either side of the main one for which a matrix counts as banded at every size.

The band is then as fast as dense elimination from 64 rows on, and faster than iteration that ends after 20 steps.
"""


class BandedParts(NamedTuple):
    """A banded matrix as the chosen rows and columns of a Toeplitz matrix of few lags plus a diagonal."""

    column: Numbers
    """The numbers on the main diagonal of the Toeplitz matrix and below it, as far as they are not zero."""
    row: Numbers
    """The same above it, without the main diagonal."""
    diagonal: Numbers | None
    places: Numbers | None
    """Which rows and columns are chosen, in increasing order; None for all."""
    n: int

    @property
    def widths(self) -> tuple[int, int]:
        """How many diagonals there are below and above the main one."""
        below, above = len(self.column) - 1, len(self.row)
        places = self.places
        if places is None:
            return below, above
        order = np.arange(self.n)

        def width(lag: int) -> int:
            return int(np.max(np.searchsorted(places, places + lag, side="right") - 1 - order))

        return width(below), width(above)

    @classmethod
    def of(cls, op: LinearOperator, xp: Namespace) -> BandedParts | None:
        """Return the parts of a matrix whose values can be read in the memory of the host; None where it has none."""
        rules = rules_of(xp)
        leaves = op._leaves()
        if not leaves or rules.compiles or rules.is_differentiated([]):
            return None
        for array, axes in leaves:
            if array.ndim > axes or not rules.is_eager_on_cpu(array):
                return None
        near = op._near(leaves[0][0], xp)
        found = near.noisy_toeplitz()
        if found is None or not isinstance(found[0], Toeplitz):
            return None
        T, d = found
        if T.c.shape[0] > 1 and bool(T.c[-1] != 0) and bool(T.r[-1] != 0):
            return None  # at once: most matrices have both corners, and what follows takes a tenth of a small solution
        column, row = (_without_last_zeros(_values(each, xp)) for each in (T.c, T.r))
        if column is None or row is None:
            return None
        places = None if near.chosen is None else near.chosen.array
        if places is not None and not np.all(places[1:] > places[:-1]):
            return None
        n = op.shape[0]
        column = column if len(column) else np.zeros(1, column.dtype)
        diagonal = None if d is None else _values(d, xp)
        parts = cls(column, row[1:], diagonal, places, n)
        return parts if sum(parts.widths) < max(n, 2) else None


def _values(array: Array, xp: Namespace) -> Numbers:
    return to_numpy(rules_of(xp).constant(array))


def _without_last_zeros(values: Numbers) -> Numbers | None:
    """Return the numbers up to the last one that is not zero; None where these are more than a band has."""
    most = _WIDEST + 1
    if len(values) > most and (values[most : 2 * most].any() or values[2 * most :].any()):
        return None
    nonzero = np.flatnonzero(values[:most])
    return values[: nonzero[-1] + 1] if len(nonzero) else values[:0]


class Band(NamedTuple):
    """A banded matrix of NumPy."""

    rows: Numbers
    """Its diagonals, as LAPACK has them: ``A[i, j]`` at ``[above + i - j, j]``."""
    below: int
    """How many diagonals there are below the main one."""
    above: int
    is_hermitian: bool

    @classmethod
    def of(cls, parts: BandedParts, dtype: Any) -> Band:
        """Return the band of a matrix by its parts, in a dtype of NumPy."""
        below, above = parts.widths
        n, places = parts.n, parts.places
        rows = np.zeros((below + above + 1, n), dtype)
        if places is None:  # the entries outside of the matrix are not looked at
            rows[:] = np.concatenate([parts.row[::-1], parts.column])[:, None]
        else:
            for k in range(below + 1):
                rows[above + k, : n - k] = _at_lags(parts.column, places, k, 0)
            for k in range(1, above + 1):
                rows[above - k, k:] = _at_lags(parts.row, places, k, 1)
        if parts.diagonal is not None:
            rows[above] += parts.diagonal if places is None else parts.diagonal[places]
        symmetric = np.array_equal(parts.column[1:], np.conj(parts.row))
        return cls(rows, below, above, bool(symmetric and not np.any(np.imag(rows[above]))))

    def product(self, x: Numbers) -> Numbers:
        """Return the products with vectors along the last axis."""
        n = x.shape[-1]
        rows = np.asfortranarray(self.rows)
        gbmv: Any = scipy.linalg.get_blas_funcs("gbmv", (rows,))
        vectors = x.reshape(-1, n)
        y = np.empty_like(vectors)
        for given, product in zip(vectors, y, strict=True):
            product[:] = gbmv(n, n, self.below, self.above, 1.0, rows, given)
        return y.reshape(x.shape)

    def solve(self, b: Numbers) -> Numbers:
        """Return the solutions for vectors along the last axis: NaN for a singular matrix.

        A Hermitian matrix is taken for positive definite first, which takes half the time.
        """
        right = b.reshape(-1, b.shape[-1]).T
        x: Numbers | None = None
        if self.is_hermitian:
            x = self._by_cholesky(right)
        if x is None:
            x = self._by_elimination(right)
        return np.full_like(b, np.nan) if x is None else x.T.reshape(b.shape)

    def _by_cholesky(self, right: Numbers) -> Numbers | None:
        try:
            return scipy.linalg.solveh_banded(self.rows[self.above :], right, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            return None

    def _by_elimination(self, right: Numbers) -> Numbers | None:
        try:
            return scipy.linalg.solve_banded((self.below, self.above), self.rows, right, check_finite=False)
        except np.linalg.LinAlgError:
            return None


class ByBand(NamedTuple):
    """The way to solutions of square systems by LAPACK's elimination of a narrow band."""

    rtol: float

    def __call__(
        self, A: LinearOperator, M: LinearOperator | None, b: Array, before: Solutions | None, xp: Namespace
    ) -> Solutions | None:
        """Return solutions as every `Way` does; None where the matrix is no band, or a solution is not good enough."""
        parts = None if rules_of(xp).is_traced(b) else BandedParts.of(A, xp)
        if parts is None:
            return None
        right = _values(b, xp)
        band = Band.of(parts, right.dtype)
        with np.errstate(all="ignore"):
            found = band.solve(right)
            left = right - band.product(found)
        x, residual = (xp.asarray(each, device=device_of(b)) for each in (found, left))
        relative = relative_residual(residual, b, xp)
        done = relative <= self.rtol
        if not bool(xp.all(done)):
            done = done | is_as_small_as_rounding(A, x, residual, b, xp)
        return Solutions(x, relative, done, 0) if bool(xp.all(done)) else None


def _at_lags(values: Numbers, places: Numbers, k: int, first: int) -> Any:
    """Return the entries of the k-th diagonal beside the main one; `values` holds those of lags from `first` on."""
    if not len(values):
        return 0
    lags = places[k:] - places[: len(places) - k] - first
    return np.where(lags < len(values), values[np.minimum(lags, len(values) - 1)], 0)
