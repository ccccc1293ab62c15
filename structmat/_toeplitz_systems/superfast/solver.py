"""The factor for its users: made of a first column, noise and a mask, checked, and with derivatives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from structmat._arrays.conversion import to_numpy
from structmat._arrays.dtypes import is_complex, precision_of
from structmat._arrays.libraries import device_of, rules_of
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.typing import Array, Namespace
from structmat._toeplitz_systems import thresholds
from structmat._toeplitz_systems.superfast.band import Band, band_factor
from structmat._toeplitz_systems.superfast.bases import (
    Level,
    OverlookedError,
    RankError,
    found_bases,
    interpolation_on_host,
    moved,
    of_round_ranks,
)
from structmat._toeplitz_systems.superfast.derivatives import FactorSolver, SeriesFactor, TraceByFactor
from structmat._toeplitz_systems.superfast.factor import Factor
from structmat._toeplitz_systems.superfast.factorisation import Factorisation, leaves_are_definite
from structmat._toeplitz_systems.superfast.matrix import NoisyToeplitz
from structmat._toeplitz_systems.superfast.tree import Tree


class SuperfastFactor:
    """A direct factor of ``K = M T M + D + (1 - M)``, with derivatives in torch and JAX by the first column and noise.

    Parameters
    ----------
    c : array, shape (n * p,)
        The first block column of T with blocks of p x p, the entries of each one after the other, row by row; of any
        library. All is computed in double precision.
    noise : array, shape (n,)
        The diagonal of D.
    there : array of bool, shape (n,), optional
        The mask of the rows that are there; the others are those of the identity. Default: all.
    tolerance : float, optional
        What may be left out of a block of T, relative to its largest entry. Default: the tightest of
        `thresholds.TOLERANCES` that pays.
    rank : int, optional
        The largest rank that is allowed for, without a look at bands. By default it depends on the work that it makes.
    factor : Factor, optional
        One that was made of equal values before, in place of a new one.
    with_derivatives : bool, optional
        Whether derivatives of the log-determinant will be asked for, of which a band takes longer than a tree of small
        rank. Default: whether the library differentiates the matrix now.
    most_work : float, optional
        What it may take for each point, in units of `work_of`. Default: what it is worth where nothing else serves.
    with_variances : bool, default False
        Whether `variances` will be asked for; of NumPy alone.

    Raises
    ------
    RankError
        If T has no blocks of low rank, or not up to `rank`.
    numpy.linalg.LinAlgError
        If K is not positive definite, or holds NaN or infinity.
    """

    def __init__(
        self,
        c: Array,
        noise: Array,
        there: Array | None,
        xp: Namespace,
        *,
        tolerance: float | None = None,
        rank: int | None = None,
        factor: SeriesFactor | None = None,
        with_derivatives: bool | None = None,
        most_work: float = math.inf,
        with_variances: bool = False,
    ) -> None:
        self._xp = xp
        self._rules = rules_of(xp)
        wide = xp.complex128 if is_complex(c.dtype, xp) else xp.float64
        noise = xp.astype(noise, xp.float64)
        there = xp.ones_like(noise) if there is None else xp.astype(there, xp.float64)
        self.matrix = NoisyToeplitz(xp.astype(c, wide), noise, there)
        if factor is None:
            rounded = thresholds.ROUNDED * float(xp.finfo(precision_of(c.dtype, xp)).eps)
            tried = thresholds.TOLERANCES if tolerance is None else (tolerance,)
            if with_derivatives is None:
                with_derivatives = self._rules.is_differentiated(self.matrix._arrays())
            tolerances = sorted({max(each, rounded) for each in tried})
            purpose = _Purpose(with_derivatives, most_work, with_variances)
            factor = _factor_of(self.matrix, tolerances, rank, purpose, xp)
        self.factor: SeriesFactor = factor
        """The factor itself, without derivatives."""

    @property
    def logdet(self) -> Array:
        """The logarithm of the determinant of K."""
        return self._rules.log_determinant(TraceByFactor(), self.matrix, self.factor, self.factor.logdet)

    @property
    def error(self) -> Array:
        """How far off `logdet` may be, as was measured by products with K."""
        return self.factor.error

    def variances(self, noise: Array) -> Array:
        """Return the posterior variances of all rows, of NumPy, where they were to be asked for.

        Parameters
        ----------
        noise : array, shape (n,)
            The part of the diagonal that is noise, zero for rows that are missing; the rest belongs to the process.
        """
        return self.factor.variances(self.matrix, noise)

    def solve(self, b: Array, rtol: float = 1e-13) -> Array:
        """Return x with ``K x = b`` along the last axis, in double precision, with a relative residual up to `rtol`.

        Where rounding errors, or 100 steps of conjugate gradients, leave more than that, so does the result.
        """
        xp = self._xp
        is_real = not (is_complex(b.dtype, xp) or is_complex(self.matrix.c.dtype, xp))
        b = xp.astype(b, xp.float64 if is_real else xp.complex128)
        if self._rules.compiles and self._rules.is_plain([b, *self.matrix._arrays()]):
            # To compile the products of a factor takes seconds, for each set of ranks.
            K = self.matrix._map(lambda array, _: to_numpy(array))
            factor = self.factor._map(lambda array, _: to_numpy(array))
            return xp.asarray(_Solutions(rtol, numpy_namespace)(K, factor, to_numpy(b)), device=device_of(b))
        return self._rules.compiled(_Solutions(rtol, xp))(self.matrix, self.factor, b)


class _Purpose(NamedTuple):
    """What a factor is for."""

    with_derivatives: bool
    """Whether derivatives of the log-determinant will be asked for."""
    most_work: float
    """What it may take for each point."""
    with_variances: bool
    """Whether posterior variances will be asked for."""


def _factor_of(
    K: NoisyToeplitz, tolerances: Sequence[float], rank: int | None, purpose: _Purpose, xp: Namespace
) -> SeriesFactor:
    """Return the factor of a matrix, without derivatives, at the first of some tolerances that pays."""
    rules = rules_of(xp)
    constant = K._map(lambda array, _: rules.constant(array))
    tree = Tree.over(K.rows, K.channels)
    with rules.unrecorded():
        return _untraced(constant, tree, tolerances, rank, purpose, xp)


def _untraced(
    K: NoisyToeplitz, tree: Tree, tolerances: Sequence[float], rank: int | None, purpose: _Purpose, xp: Namespace
) -> SeriesFactor:
    """Return the factor of a matrix whose values are known, at the first of some tolerances that pays."""
    if not all(bool(xp.all(xp.isfinite(array))) for array in K._arrays()):
        raise _not_definite("it holds NaN or infinity")
    band = None if rank is not None else _Banded.of(K, tolerances[0], with_derivatives=purpose.with_derivatives)
    best: SeriesFactor | None = None
    refusals: list[Exception] = []
    for work, some in _stages(tolerances, rank, purpose):
        if best is not None and work == thresholds.MOST_WORK and tree.n > thresholds.MOST_WORK_ROWS:
            return best
        tighter = [each for each in some if best is None or each < best.tolerance]
        bounds = [_Bounds(each, tolerances[-1], rank, work * tree.n, purpose.with_variances) for each in tighter]
        found: SeriesFactor | None = None
        if band is not None and bounds and tolerances[0] in some and band.pays(work):
            found = _tree_or_band(band, bounds[0], K, tree, xp, refusals)
            band = None
        try:
            best = found or _first_that_pays(bounds, K, tree, xp, refusals) or best
        except OverlookedError:
            if best is None:
                raise
        if best is not None and bool(best.error <= thresholds.ACCURATE):
            return best
    if best is None:
        raise refusals[-1]
    return best


def _stages(tolerances: Sequence[float], rank: int | None, purpose: _Purpose) -> list[tuple[float, Sequence[float]]]:
    """Return the work for each point that is allowed for some tolerances, in the order in which they are tried."""
    if rank is not None:
        return [(math.inf, tolerances)]
    if purpose.most_work < math.inf:
        first = (min(thresholds.WORK_PER_POINT, purpose.most_work), tolerances[:1])
        looser = (thresholds.LITTLE_WORK, tolerances[1:])
        return [first, looser] if purpose.most_work >= thresholds.MORE_OF_LOOSER * thresholds.LITTLE_WORK else [first]
    return [
        (thresholds.WORK_PER_POINT, tolerances[:1]),
        (thresholds.LITTLE_WORK, tolerances[1:]),
        (thresholds.WORK_PER_POINT, tolerances[1:]),
        (thresholds.MOST_WORK, tolerances),
    ]


class _Banded(NamedTuple):
    """A matrix as a band."""

    matrix: NoisyToeplitz
    """The matrix on the host."""
    band: Band
    worth: float
    """The work for each point of a tree that takes as long, with derivatives where they are asked for."""

    @classmethod
    def of(cls, K: NoisyToeplitz, tolerance: float, *, with_derivatives: bool) -> _Banded | None:
        """Return a matrix as its narrowest band; None where no row is there, or the band needs too much memory."""
        on_host = K._map(lambda array, _: to_numpy(array))
        if not np.any(on_host.there):
            return None
        band = Band.of(on_host, tolerance)
        diagonals = band.lag if with_derivatives else band.width
        most = thresholds.BAND_NUMBERS_OF_DERIVATIVES if with_derivatives else thresholds.BAND_NUMBERS
        if K.rows * diagonals > most:
            return None
        return cls(on_host, band, band.work + (band.work_of_derivatives if with_derivatives else 0.0))

    def pays(self, work: float) -> bool:
        """Tell whether it takes no more than some work, and no more than the most with derivatives.

        The latter counts where a looser tree may still take less.
        """
        return self.band.work <= work and (work >= thresholds.MOST_WORK or self.worth <= thresholds.MOST_WORK)


def _tree_or_band(
    band: _Banded, bounds: _Bounds, K: NoisyToeplitz, tree: Tree, xp: Namespace, refusals: list[Exception]
) -> SeriesFactor | None:
    """Return the factor by a tree where it takes less than the band, else that as a band.

    It is None where the matrix may not be positive definite because of what was cut off.
    """
    equal = _are_equal(K, xp)
    is_definite = True
    if equal or band.worth > thresholds.LEAST_TREE:
        less = bounds if equal else bounds._replace(work=min(bounds.work, band.worth * tree.n))
        try:
            found = _within(less, K, to_numpy(K.c), tree, xp)
        except RankError:
            pass
        except np.linalg.LinAlgError:
            is_definite = False
        else:
            if bool(found.error <= thresholds.ACCURATE):
                return found
    try:
        banded = band_factor(band.matrix, band.band)
    except np.linalg.LinAlgError as error:
        if not (is_definite and band.band.tolerance):
            raise
        refusals.append(error)
        return None
    return banded._map(lambda array, _: xp.asarray(array, device=device_of(K.c)))


def _are_equal(K: NoisyToeplitz, xp: Namespace) -> bool:
    """Tell whether all nodes of a tree but its tail are equal, which takes little work then."""
    noise = xp.reshape(K.noise, (-1, K.channels))
    return bool(xp.all(K.there > 0.0)) and bool(xp.all(noise == noise[0, :]))


def _first_that_pays(
    bounds: Sequence[_Bounds], K: NoisyToeplitz, tree: Tree, xp: Namespace, refusals: list[Exception]
) -> Factor | None:
    """Return the factor within the first of some bounds that have one; `refusals` grows by the errors of others."""
    c = to_numpy(K.c)
    for each in bounds:
        try:
            return _within(each, K, c, tree, xp)
        except OverlookedError:  # at any tolerance
            raise
        except RankError as error:
            refusals.append(error)
        except np.linalg.LinAlgError as error:
            if not refusals:  # else it may not be positive definite because of what was left out
                raise
            refusals.append(error)
            return None
    return None


class _Bounds(NamedTuple):
    """What a factor may leave out, and what it may take."""

    tolerance: float
    """What is left out of a block of T, relative to its largest entry."""
    loosest: float
    """As much may be overlooked as by a factor of this tolerance."""
    rank: int | None
    """The largest rank."""
    work: float
    """The most work, as `work_of` counts it."""
    with_variances: bool
    """Whether the factor keeps what posterior variances take."""


def _within(bounds: _Bounds, K: NoisyToeplitz, c: Any, tree: Tree, xp: Namespace) -> Factor:
    """Return the factor within some bounds; `c` is the first column as an array of NumPy."""
    if bounds.work < thresholds.LEAST_TREE * tree.n and bounds.rank is None:
        raise RankError("a factor by a tree takes more work than is allowed")
    near = _shown_by(thresholds.NEAR_COLUMNS, bounds, c, tree)
    try:
        return _by_bases(near, bounds._replace(loosest=bounds.tolerance), K, tree, xp)
    except OverlookedError:
        shown = _shown_by(thresholds.NEAR_COLUMNS_IN_FULL, bounds, c, tree)
    except np.linalg.LinAlgError:  # which may be because of what was overlooked
        shown = _shown_by(thresholds.NEAR_COLUMNS_IN_FULL, bounds, c, tree)
        if _ranks_of(shown) == _ranks_of(near) or not leaves_are_definite(K._map(lambda v, _: to_numpy(v)), tree):
            raise
    return _by_bases(shown, bounds, K, tree, xp)


def _shown_by(all_near: int, bounds: _Bounds, c: Any, tree: Tree) -> list[Level]:
    """Return the bases that are shown by so many columns near a node and some of the others."""
    interpolation = interpolation_on_host(bounds.tolerance * (float(np.max(np.abs(c))) or 1.0), bounds.rank)
    return found_bases(c, tree, interpolation, numpy_namespace, all_near=all_near, most_work=bounds.work)


def _ranks_of(levels: list[Level]) -> list[int]:
    """Return the ranks of all bases."""
    return [basis.matrix.shape[1] for level in levels for basis in level if basis is not None]


def _by_bases(found: list[Level], bounds: _Bounds, K: NoisyToeplitz, tree: Tree, xp: Namespace) -> Factor:
    """Return the factor by some bases of NumPy."""
    tolerance, loosest = bounds.tolerance, bounds.loosest
    rules = rules_of(xp)
    is_equal, like = _are_equal(K, xp), K.c
    if rules.compiles:  # for each set of ranks, which takes far longer than the factor on the host
        found, K, xp = of_round_ranks(found), K._map(lambda array, _: to_numpy(array)), numpy_namespace
    try:
        factor, overlooked = Factorisation(tree, tolerance, xp, is_equal, bounds.with_variances)(
            K, moved(found, K.c, xp)
        )
    except (np.linalg.LinAlgError, RuntimeError) as error:  # the latter of torch
        raise _not_definite("a leading section is not") from error
    if not bool(xp.isfinite(factor.logdet)):
        raise _not_definite("a leading section is not")
    if not bool(overlooked <= thresholds.OVERLOOKED * loosest):
        raise OverlookedError("the rank of blocks beside the diagonal is not shown by the columns that were looked at")
    is_as_tight = bool(overlooked <= thresholds.OVERLOOKED * tolerance)
    if rules.compiles:
        factor = factor._map(lambda array, _: rules.xp.asarray(array, device=device_of(like)))
    return factor if is_as_tight else factor._replaced(tolerance=loosest)


@dataclass(frozen=True)
class _Solutions:
    """A function of arrays that returns solutions, with derivatives by the implicit rule."""

    rtol: float
    xp: Namespace

    def __call__(self, K: NoisyToeplitz, factor: SeriesFactor, b: Array) -> Array:
        return rules_of(self.xp).solution(FactorSolver(self.rtol), K, factor, b)[0]


def _not_definite(why: str) -> np.linalg.LinAlgError:
    return np.linalg.LinAlgError(f"the matrix is not positive definite: {why}")
