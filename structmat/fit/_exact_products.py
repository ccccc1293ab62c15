"""Products that reproduce a matrix of few cyclic diagonals, and what removes structure from any matrix.

**d + 1 neighbouring cyclic diagonals** take ``2d + 1``, or at most ``3d + 1`` real ones. Such a matrix is ``Q P^a``
with a polynomial Q in P of degree d, which has d null sequences and splits into d linear factors. Its leading
coefficient is a diagonal, the leftmost factor. Multipliers of null sequences are growths of a recursion of order d over
n steps and may range over hundreds of decades, so that they are looked for on circles: of ``Q`` with P replaced by ``r
P`` those are near 1 whose n-th roots were near r.

**Random phases**: ``W = D1 C1 M C2 D2`` with unitary diagonals `D` and circulants `C` leaves `M`, which looks like any
matrix, to be factored.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmat.fit._linear_factors import SHIFT, eigen_sequences, factor_real_sequences, linear_factors, periodic_parts
from structmat.fit._matrices import by_cyclic_diagonals

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CyclicBand", "Mixing", "cyclic_band", "factor_cyclic_band", "factor_real_cyclic_band"]

_ZERO = 1e-15
"""The entries of the outermost diagonals are divided by. Those below this share of their root mean square count as
zeros, and are filled."""

_FILLED = 1e-17
"""Zeros become this share of the root mean square, which is below rounding. The factors then range over as many
decades, which costs products by shifts no digits."""

_NEAR = np.log(1e4)
"""On a circle those multipliers are accurate whose logarithms differ from that of the circle by no more than this."""

_CIRCLES = 60
"""For each multiplier so many circles are tried at most."""

_REAL_TURNS = 1e-9
"""A multiplier counts as real if it is fewer than so many half turns away from the positive axis."""

_NARROWEST = 1e-3
"""An interval that is narrower than this, in units of what is accurate on a circle, holds nothing but contradictions of
rounding."""


class _Interval(NamedTuple):
    """An interval of the logarithms of the moduli of nu, and how many of these are below its ends."""

    low: float
    high: float
    up_to_low: int
    up_to_high: int


class CyclicBand(NamedTuple):
    """``sum over m of diag(coefficients[m]) P^(m + start)``."""

    coefficients: NDArray[np.complex128]
    """An array (d + 1, n)."""
    start: int
    """From -d to 0 if the main diagonal is one of them."""
    filled: list[tuple[int, int]]
    """An entry of each outermost diagonal that was zero, if there is one."""


def cyclic_band(W: NDArray[Any], tol: float) -> CyclicBand | None:
    """Return the neighbouring cyclic diagonals that hold `W` up to `tol` relative to its norm.

    Nothing where they are more than half of all. Zeros of the first and the last one, such as the corners that a band
    matrix lacks, are filled with what is below rounding.
    """
    n = len(W)
    diagonals = by_cyclic_diagonals(W[None, :, None])[0, :, 0].T
    sizes = np.linalg.norm(diagonals, axis=1)
    used = np.flatnonzero(sizes > tol * np.linalg.norm(sizes) / np.sqrt(n))
    gaps = np.diff(np.append(used, used[0] + n))
    last = int(gaps.argmax())
    start, degree = int(used[(last + 1) % len(used)]), n - int(gaps[last])
    if not 0 < degree <= n // 2:
        return None
    coefficients = diagonals[(start + np.arange(degree + 1)) % n].astype(np.complex128)
    filled: list[tuple[int, int]] = []
    for row in (0, -1):
        entries = np.abs(coefficients[row])
        scale = np.linalg.norm(entries) / np.sqrt(n)
        zeros = np.flatnonzero(entries < _ZERO * scale)
        coefficients[row, zeros] = _FILLED * scale
        filled += [(row, int(zero)) for zero in zeros[:1]]
    return CyclicBand(coefficients, start - n if start + degree >= n else start, filled)


def factor_cyclic_band(band: CyclicBand, extended: bool) -> list[NDArray[np.complex128]] | None:
    """Return ``2d + 1`` diagonals and first columns, or nothing where not all null sequences are found."""
    sequences = _all_null_sequences(band.coefficients)
    if sequences is None:
        return None
    with np.errstate(all="ignore"):  # The caller sees what becomes of zeros.
        vectors = linear_factors(*sequences, 1.0, extended=extended)
    return _with_ends(vectors, band.coefficients[-1], band.start)


def factor_real_cyclic_band(band: CyclicBand, extended: bool) -> list[NDArray[np.float64]] | None:
    """Return at most ``3d + 1`` real diagonals and first columns of a real band, or nothing where none are found."""
    # The sign of an entry that is as good as zero changes that of a multiplier, which must not be negative for n even.
    for signs in product((1.0, -1.0), repeat=len(band.filled)):
        coefficients = band.coefficients.copy()
        for place, sign in zip(band.filled, signs, strict=True):
            coefficients[place] *= sign
        sequences = _all_null_sequences(coefficients)
        if sequences is None:
            continue
        with np.errstate(all="ignore"):
            vectors = factor_real_sequences(*sequences, extended=extended, real_turns=_REAL_TURNS)
        if vectors is not None:
            return _with_ends(vectors, coefficients[-1].real, band.start)
    return None


def _with_ends(vectors: list[NDArray[Any]], lead: NDArray[Any], start: int) -> list[NDArray[Any]]:
    """Return the factors with the diagonal `lead` on their left and `start` shifts on their right."""
    vectors = [lead * vectors[0], *vectors[1:]]
    # The shift passes diagonals, which it rolls, and goes into the circulants beside them: one step backwards into
    # each, which leaves two diagonals, the main one and the one above, or as a whole into the rightmost.
    steps = [-1] * -start if start < 0 else [start]
    for place, step in enumerate(steps):
        vectors[-1 - 2 * place] = np.roll(vectors[-1 - 2 * place], -sum(steps[place:]))
        vectors[-2 - 2 * place] = np.roll(vectors[-2 - 2 * place], step)
    return vectors


def _all_null_sequences(
    coefficients: NDArray[np.complex128],
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]] | None:
    """Return w and nu of all null sequences, by bisection over the logarithm of the circle's radius."""
    degree, n = len(coefficients) - 1, coefficients.shape[1]
    if not coefficients[[0, -1]].all():
        return None
    # The product of all multipliers, up to its sign, is that of the entries of the last coefficient over the first.
    first, last = np.log(np.abs(coefficients[[0, -1]])).mean(axis=1)
    middle = float(first - last) / degree
    width = _NEAR / n
    found: list[tuple[NDArray[np.complex128], NDArray[np.complex128]]] = []
    # Cauchy's bound for roots, for |nu| and 1 / |nu|, in the row where w is largest; the middle lies between the two.
    bounds = (np.abs(coefficients[:-1] / coefficients[-1]).max(), np.abs(coefficients[1:] / coefficients[0]).max())
    reach = float(np.log1p(bounds).sum())
    intervals = [_Interval(middle - reach, middle + reach, 0, degree)]
    for _ in range(_CIRCLES * degree):
        if not intervals:
            break
        low, high, before, through = intervals.pop()
        at = 0.5 * (low + high)
        on_circle = _null_sequences_near(coefficients, at)
        if on_circle is None or high - low < _NARROWEST * width:
            return None
        nu = on_circle[1]
        with np.errstate(divide="ignore"):
            logs = np.log(np.abs(nu))
        near = (np.abs(logs - at) <= width) & (low < logs) & (logs <= high)
        refined = [_refined(coefficients, one) for one in nu[near]]
        found += [sequence for sequence in refined if sequence is not None]
        below, above = max(low, at - width), min(high, at + width)
        left, right = (int(np.count_nonzero(logs <= edge)) for edge in (at - width, at + width))
        if left > before:
            intervals.append(_Interval(low, below, before, left))
        if through > right:
            intervals.append(_Interval(above, high, right, through))
    if len(found) != degree:
        return None
    return np.stack([w for w, _ in found]), np.array([nu for _, nu in found])


def _refined(
    coefficients: NDArray[np.complex128], nu: NDArray[np.complex128]
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]] | None:
    """Return the sequence of `nu` from the circle through it, where it is accurate to the last digits."""
    on_circle = _null_sequences_near(coefficients, float(np.log(np.abs(nu))))
    if on_circle is None:
        return None
    w, others = on_circle
    with np.errstate(all="ignore"):
        # Any n-th root of the same multiplier will do.
        k = int(np.nanargmin(np.abs((others / nu) ** len(w[0]) - 1)))
    return w[k], others[k]


def _null_sequences_near(
    coefficients: NDArray[np.complex128], log_radius: float
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]] | None:
    """Return w and nu, accurate where the modulus of nu is near the radius, and else of the right side of it."""
    from scipy.sparse import csc_array  # noqa: PLC0415  # It is slow to import, and of use here alone.
    from scipy.sparse.linalg import splu  # noqa: PLC0415

    degree, n = len(coefficients) - 1, coefficients.shape[1]
    i = np.arange(n)
    cols = (i - np.arange(degree + 1)[:, None]) % n
    wraps = i < np.arange(degree + 1)[:, None]
    with np.errstate(all="ignore"):  # A pencil that overflows has NaN for solutions.
        scaled = coefficients * np.exp(log_radius * np.arange(degree + 1))[:, None]
        entries = np.where(wraps, SHIFT, 1.0) * scaled
    pencil = csc_array((entries.ravel(), (np.tile(i, degree + 1), cols.ravel())), shape=(n, n))
    try:
        inverse = splu(pencil).solve(np.eye(n, degree, dtype=np.complex128))
    except RuntimeError:  # The pencil is exactly singular.
        return None
    corner = np.zeros((degree, n), dtype=np.complex128)
    m, row = np.nonzero(wraps)
    corner[row, cols[m, row]] = scaled[m, row]
    with np.errstate(all="ignore"):  # A multiplier of no accuracy may be zero or infinite.
        w, log_nu = periodic_parts(*eigen_sequences(corner, inverse))
        w = w.astype(np.complex128)
        return w / np.linalg.norm(w, axis=1, keepdims=True), np.exp(log_nu + log_radius).astype(np.complex128)


class Mixing(NamedTuple):
    """``W = D1 C1 M C2 D2``: diagonals `D` and circulants `C` of random phases, and `M` that looks like any matrix."""

    phases: NDArray[np.complex128]
    """An array (4, n): the diagonal and the spectrum of the circulant on the left, then of those on the right."""
    real: bool
    """Whether all of them are real matrices, signs and orthogonal circulants."""

    @classmethod
    def draw(cls, n: int, rng: np.random.Generator, *, real: bool = False) -> Mixing:
        """Return random phases for matrices of side `n`."""
        phases = np.exp(2j * np.pi * rng.random((4, n)))
        if real:
            phases[::2] = rng.choice([-1.0, 1.0], (2, n))
            spectra = np.fft.fft(rng.standard_normal((2, n)))
            phases[1::2] = spectra / np.abs(spectra)
        return cls(phases, real)

    def mixed(self, W: NDArray[Any]) -> NDArray[Any]:
        """Return `M` for a matrix `W`."""
        for d, s in (self.phases[:2].conj(), self.phases[2:]):
            W = np.fft.ifft(s[:, None] * np.fft.fft(d[:, None] * W, axis=0), axis=0).conj().T
        return self._of_field(W)

    def around(self, vectors: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the factors of `W`, four more than those of `M`."""
        d1, s1, d2, s2 = self.phases
        first, second, last, last_but_one = map(self._of_field, (d1, np.fft.ifft(s1), d2, np.fft.ifft(s2)))
        return [first, second, *vectors, last_but_one, last]

    def _of_field(self, x: NDArray[Any]) -> NDArray[Any]:
        return x.real if self.real else x
