"""The factor as a band, by LAPACK's Cholesky factor of a banded matrix: T is zero beyond some lag, or is cut there.

Rows that are missing are left out, so that the band is as wide as there are rows within that lag. All is computed on
the host, in which the arrays of other libraries are NumPy's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import scipy  # its `linalg` is imported on first use

from structmat._arrays.arithmetic import real_part
from structmat._arrays.conversion import on_host
from structmat._arrays.linear_algebra import measured_error_of_logdet, signs_for_error
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.typing import Array, Namespace
from structmat._parametrised import Parametrised
from structmat._toeplitz_systems import thresholds
from structmat._toeplitz_systems.superfast.band_inverse import band_inverse_sums
from structmat._toeplitz_systems.superfast.conditional import by_band
from structmat._toeplitz_systems.superfast.matrix import NoisyToeplitz

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers: TypeAlias = NDArray[Any]


class Band(NamedTuple):
    """What a band holds of a matrix ``K = M T M + D + (1 - M)``."""

    lag: int
    """No entry of T is farther from the diagonal."""
    tolerance: float
    """What is cut off, relative to the largest entry of T: zero where nothing is."""
    places: Numbers
    """The rows that are there."""
    width: int
    """How many diagonals there are beside the main one, once rows that are missing are left out."""

    @property
    def work(self) -> float:
        """What the factor takes for each point, in units of `work_of`, of which 1,000 take a microsecond.

        For 1,500 to 100,000 points it takes 0.5 microseconds a point with a width of 19, 1.0 with 59, 1.5 with 97, 3.7
        with 190, 5.6 with 300, 8.5 with 378.
        """
        return 200.0 + 12.0 * self.width + 0.03 * self.width**2

    @property
    def work_of_derivatives(self) -> float:
        """What the derivatives of the log-determinant take beside that, in the same units.

        They take 10 microseconds a point with 20 lags, 10 with 60, 15 with 100, 45 with 200, 156 with 300.
        """
        return 6000.0 + 1.2 * self.lag**2

    @classmethod
    def of(cls, K: NoisyToeplitz, tolerance: float) -> Band:
        """Return the narrowest band of a matrix of NumPy that leaves out no more of a row than the tolerance."""
        sizes = np.abs(K.c)
        of_blocks = np.sum(np.reshape(sizes, (-1, K.channels**2)), axis=1)
        from_block = np.cumsum(of_blocks[::-1])[::-1]  # the sum of all entries from a block on
        blocks = max(int(np.count_nonzero(from_block > tolerance * np.max(sizes))), 1)
        is_cut = bool(np.any(of_blocks[blocks:]))
        lag = blocks * K.channels - 1
        places = np.flatnonzero(K.there > 0.0)
        after = np.searchsorted(places, places + lag, side="right")
        width = int(np.max(after - 1 - np.arange(len(places)), initial=0))
        return cls(lag, tolerance if is_cut else 0.0, places, width)


@dataclass(frozen=True, eq=False, repr=False)
class BandFactor(Parametrised):
    """The inverse and the determinant of a `NoisyToeplitz` by the Cholesky factor of a band."""

    _core_axes = {"lower": 2, "places": 1, "logdet": 0, "error": 0}

    n: int
    """The number of all rows."""
    channels: int
    """The rows of each point in time."""
    lag: int
    """As in `Band`."""
    tolerance: float
    lower: Array
    """The lower triangular factor of the rows that are there, ``L[j + k, j]`` at ``[j, k]``."""
    places: Array
    """As in `Band`."""
    logdet: Array
    """The logarithm of the determinant of K."""
    error: Array
    """How far off the logarithm may be, as was measured."""

    @property
    def H(self) -> BandFactor:
        """The factor itself."""
        return self

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        """Return the product with the inverse of K."""
        rows = xp.reshape(x, (-1, self.n))
        (found,) = on_host(_solutions, [(tuple(rows.shape), x.dtype)], [self.lower, self._places(xp), rows], xp)
        return xp.reshape(found, x.shape)

    def inverse_sums(self, there: Array, xp: Namespace) -> tuple[Array, Array]:
        """Return the sums along the diagonals of ``M K^-1 M``, ``sum(i, Z[i, i + k])`` for each k, and its diagonal."""
        n, channels, lag = self.n, self.channels, self.lag

        def found(lower: Numbers, places: Numbers) -> tuple[Numbers, Numbers]:
            return band_inverse_sums(_core(lower, 2), _core(places, 1), n, channels, lag)

        results = [((n * channels,), self.lower.dtype), ((n,), there.dtype)]
        sums, diagonal = on_host(found, results, [self.lower, self._places(xp)], xp)
        return sums, diagonal

    def variances(self, K: NoisyToeplitz, noise: Numbers) -> Numbers:
        """Return the posterior variances of all rows."""
        return by_band(K, self.lag, noise)

    def _places(self, xp: Namespace) -> Array:
        """Return the places with as many axes as the factor, as `on_host` takes arrays."""
        return xp.reshape(self.places, (1, -1))


def band_factor(K: NoisyToeplitz, band: Band) -> BandFactor:
    """Return the factor of a matrix of NumPy; one that is not positive definite is an error."""
    lower = _rows_of(K, band)
    pbtrf: Any = scipy.linalg.get_lapack_funcs("pbtrf", (lower,))
    columns, info = pbtrf(lower.T, lower=1, overwrite_ab=1)
    if info:
        raise np.linalg.LinAlgError("the matrix is not positive definite: a leading section is not")
    lower = columns.T
    logdet = np.asarray(2 * np.sum(np.log(real_part(lower[:, 0], numpy_namespace))))
    sizes = (K.rows, K.channels, band.lag)
    factor = BandFactor(*sizes, band.tolerance, lower, band.places, logdet, np.zeros(()))
    z = signs_for_error(factor.n, K.c, numpy_namespace)
    left = K._matvec(factor._matvec(z, numpy_namespace), numpy_namespace) - z
    return factor._replaced(error=np.asarray(measured_error_of_logdet(z, left, numpy_namespace)))


def _rows_of(K: NoisyToeplitz, band: Band) -> Numbers:
    """Return the entries ``K[j + k, j]`` of the rows that are there at ``[j, k]``."""
    lag, _, places, width = band
    p = K.channels
    by_place = np.append(K.c[: (lag + 1) * p], np.zeros(p**2))
    by_lag = by_place[p * np.arange(lag + 2) + (p + 1) * np.arange(p)[:, None]]  # for each channel, as in `entries`
    first = places % p * (lag + 2)
    outside = np.full(width, K.rows + lag)  # rows that are nowhere
    places_behind = np.lib.stride_tricks.sliding_window_view(np.concatenate([places, outside]), width + 1)
    rows = np.empty((len(places), width + 1), K.c.dtype)
    step = max(1, thresholds.CHUNK // (width + 1))
    for start in range(0, len(places), step):
        some = slice(start, start + step)
        lags = places_behind[some] - places[some, None]
        np.minimum(lags, lag + 1, out=lags)
        np.take(by_lag, np.add(lags, first[some, None], out=lags), out=rows[some])
    rows[:, 0] = real_part(rows[:, 0], numpy_namespace) + K.noise[places]
    return rows


def _solutions(lower: Numbers, places: Numbers, x: Numbers) -> tuple[Numbers]:
    """Return the products of the inverse with vectors along the last axis."""
    lower, places = _core(lower, 2), _core(places, 1)
    pbtrs: Any = scipy.linalg.get_lapack_funcs("pbtrs", (lower,))
    there = x[..., places].reshape(-1, len(places))
    in_parts = np.iscomplexobj(x) and not np.iscomplexobj(lower)
    right = np.concatenate([there.real, there.imag]) if in_parts else there.astype(lower.dtype, copy=False)
    found = pbtrs(lower.T, right.T, lower=1, overwrite_b=1)[0].T
    if in_parts:
        half = len(there)
        found = found[:half] + 1j * found[half:]
    result = np.array(x)
    result[..., places] = found.reshape(*x.shape[:-1], -1)
    return (result,)


def _core(array: Numbers, axes: int) -> Numbers:
    """Return an array without the axes of length one before the last ones, as of a map over other arrays."""
    return array.reshape(array.shape[array.ndim - axes :])
