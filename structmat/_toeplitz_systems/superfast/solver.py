"""The factor for its users: made of a first column, noise and a mask, checked, and with derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from structmat._arrays.conversion import to_numpy
from structmat._arrays.dtypes import is_complex, precision_of
from structmat._arrays.libraries import rules_of
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.typing import Array, Namespace
from structmat._toeplitz_systems.superfast.bases import (
    RankError,
    TracedInterpolation,
    found_bases,
    interpolation_on_host,
    moved,
    of_round_ranks,
    work_of,
)
from structmat._toeplitz_systems.superfast.batches import largest_modulus
from structmat._toeplitz_systems.superfast.derivatives import FactorSolver, TraceByFactor
from structmat._toeplitz_systems.superfast.factor import Factor
from structmat._toeplitz_systems.superfast.factorisation import Factorisation
from structmat._toeplitz_systems.superfast.matrix import NoisyToeplitz
from structmat._toeplitz_systems.superfast.tree import Tree

TOLERANCE = 1e-13
"""What is left out of a block of T, relative to the largest entry of T.

The rounding errors of elimination are no smaller; with 1e-14 the rounding errors of a covariance itself count as rank:
that of a damped cosine of 60,000 points rises from 9 to 398.
"""

ROUNDED = 8.0
"""The least tolerance in units of eps of the numbers T was given in: less is rounding, which has full rank."""

TRACED_RANK = 64
"""The rank that is allowed for in a trace, where ranks cannot depend on values. Matérn covariances have 4 to 6, the
squared exponential 32, the slowest of six kernels 71 at a million points."""

WORK_PER_POINT = 1e5
"""The cubes of the sizes of all nodes for each point from which on nothing is gained: 7,000 for a squared exponential,
which takes 6 microseconds a point."""

OVERLOOKED = 100.0
"""The largest product with what was left out of T, in units of the tolerance, with a vector of norm one.

For six kernels, 3,001 and 60,000 points, and two sizes of noise it was at most 4.
"""


class SuperfastFactor:
    """A direct factor of ``K = M T M + D + (1 - M)``, with derivatives in torch and JAX by the first column and noise.

    Parameters
    ----------
    c : array, shape (n,)
        The first column of T, of any library; all is computed in double precision.
    noise : array, shape (n,)
        The diagonal of D.
    there : array of bool, shape (n,), optional
        The mask of the rows that are there; the others are those of the identity. Default: all.
    tolerance : float
        What may be left out of a block of T, relative to its largest entry.
    rank : int, optional
        The largest rank that is allowed for; of JAX in a trace the one that is computed with. By default it depends on
        the work that it makes, or is 64 in a trace.
    factor : Factor, optional
        One that was made of equal values before, in place of a new one.

    Raises
    ------
    RankError
        If T has no blocks of low rank, or not up to `rank`. In a trace all is NaN then.
    numpy.linalg.LinAlgError
        If K is not positive definite, or holds NaN or infinity. In a trace all is NaN then.
    """

    def __init__(
        self,
        c: Array,
        noise: Array,
        there: Array | None,
        xp: Namespace,
        *,
        tolerance: float = TOLERANCE,
        rank: int | None = None,
        factor: Factor | None = None,
    ) -> None:
        self._xp = xp
        self._rules = rules_of(xp)
        wide = xp.complex128 if is_complex(c.dtype, xp) else xp.float64
        noise = xp.astype(noise, xp.float64)
        there = xp.ones_like(noise) if there is None else xp.astype(there, xp.float64)
        self.matrix = NoisyToeplitz(xp.astype(c, wide), noise, there)
        if factor is None:
            tolerance = max(tolerance, ROUNDED * float(xp.finfo(precision_of(c.dtype, xp)).eps))
            factor = _factor_of(self.matrix, tolerance, rank, xp)
        self.factor = factor
        """The factor itself, without derivatives."""

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks of the levels from the leaves on."""
        return self.factor.ranks

    @property
    def logdet(self) -> Array:
        """The logarithm of the determinant of K."""
        return self._rules.log_determinant(TraceByFactor(), self.matrix, self.factor, self.factor.logdet)

    @property
    def error(self) -> Array:
        """How far off `logdet` may be, as was measured by products with K."""
        return self.factor.error

    def solve(self, b: Array) -> Array:
        """Return x with ``K x = b`` along the last axis, in double precision."""
        xp = self._xp
        is_real = not (is_complex(b.dtype, xp) or is_complex(self.matrix.c.dtype, xp))
        b = xp.astype(b, xp.float64 if is_real else xp.complex128)
        return self._rules.compiled(_Solutions(xp))(self.matrix, self.factor, b)


def _factor_of(K: NoisyToeplitz, tolerance: float, rank: int | None, xp: Namespace) -> Factor:
    """Return the factor of a matrix, without derivatives."""
    rules = rules_of(xp)
    constant = K._map(lambda array, _: rules.constant(array))
    tree = Tree.over(K.c.shape[0])
    with rules.unrecorded():
        if any(map(rules.is_traced, constant._arrays())):
            return rules.compiled(_TracedFactorisation(tree, tolerance, rank or TRACED_RANK, xp))(constant)
        return _untraced(constant, tree, tolerance, rank, xp)


def _untraced(K: NoisyToeplitz, tree: Tree, tolerance: float, rank: int | None, xp: Namespace) -> Factor:
    """Return the factor of a matrix whose values are known."""
    c = to_numpy(K.c)
    if not all(bool(xp.all(xp.isfinite(array))) for array in K._arrays()):
        raise _not_definite("it holds NaN or infinity")
    size = float(np.max(np.abs(c))) or 1.0
    found = found_bases(c, tree, interpolation_on_host(tolerance * size, rank), numpy_namespace)
    if rank is None and work_of(tree, found) > WORK_PER_POINT * tree.n:
        raise RankError("blocks beside the diagonal have so high a rank that nothing is gained")
    rules = rules_of(xp)
    if rules.compiles:
        found = of_round_ranks(found)
    try:
        equal = bool(xp.all(K.there > 0.0)) and bool(xp.all(K.noise == K.noise[0]))
        factor, overlooked = rules.compiled(Factorisation(tree, xp, equal))(K, moved(found, K.c, xp))
    except (np.linalg.LinAlgError, RuntimeError) as error:  # the latter of torch
        raise _not_definite("a leading section is not") from error
    if not bool(xp.isfinite(factor.logdet)):
        raise _not_definite("a leading section is not")
    if not bool(overlooked <= OVERLOOKED * tolerance):
        raise RankError("the rank of blocks beside the diagonal is not shown by the columns that were looked at")
    return factor


@dataclass(frozen=True)
class _TracedFactorisation:
    """A function of a matrix whose values are not known that returns its factor, NaN where it is none."""

    tree: Tree
    tolerance: float
    rank: int
    xp: Namespace

    def __call__(self, K: NoisyToeplitz) -> Factor:
        xp, tolerance = self.xp, self.tolerance
        allowed = tolerance * largest_modulus(K.c, xp)
        interpolation = TracedInterpolation(allowed, self.rank, xp)
        factor, overlooked = Factorisation(self.tree, xp)(K, found_bases(K.c, self.tree, interpolation, xp))
        is_one = overlooked <= OVERLOOKED * tolerance
        for left in interpolation.left:
            is_one = is_one & (left <= allowed)
        nan = xp.full_like(factor.unit, xp.nan)
        return factor._replaced(
            units=xp.where(is_one, factor.units, nan),
            unit=xp.where(is_one, factor.unit, nan),
            logdet=xp.where(is_one, factor.logdet, nan),
        )


@dataclass(frozen=True)
class _Solutions:
    """A function of arrays that returns solutions, with derivatives by the implicit rule."""

    xp: Namespace

    def __call__(self, K: NoisyToeplitz, factor: Factor, b: Array) -> Array:
        return rules_of(self.xp).solution(FactorSolver(), K, factor, b)[0]


def _not_definite(why: str) -> np.linalg.LinAlgError:
    return np.linalg.LinAlgError(f"the matrix is not positive definite: {why}")
