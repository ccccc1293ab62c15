"""Derivatives of solutions by the implicit rule, of log-determinants by sums along the diagonals of the inverse.

``d log det K = tr(K^-1 dK)`` takes of the inverse its diagonal and the sums along its diagonals alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from structmat._arrays.arithmetic import real_part
from structmat._arrays.libraries import rules_of
from structmat._arrays.typing import Array, Namespace
from structmat._krylov import conjugate_gradients
from structmat._rules import Solver
from structmat._toeplitz_systems import thresholds
from structmat._toeplitz_systems.superfast.matrix import NoisyToeplitz


class SeriesFactor(Protocol):
    """The inverse and the determinant of a `NoisyToeplitz`, whichever way it was factored."""

    @property
    def tolerance(self) -> float:
        """What may have been left out of T, relative to its largest entry."""

    @property
    def logdet(self) -> Array:
        """The logarithm of the determinant."""

    @property
    def error(self) -> Array:
        """How far off the logarithm may be, as was measured."""

    @property
    def H(self) -> Self:
        """The factor itself."""

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        """Return the product with the inverse."""

    def inverse_sums(self, there: Array, xp: Namespace) -> tuple[Array, Array]:
        """Return the sums along the diagonals of ``M K^-1 M``, ``sum(i, Z[i, i + k])`` for each k, and its diagonal.

        Sums of the transposes of blocks are in the order of the first block column of K.
        """

    def variances(self, K: NoisyToeplitz, noise: Any) -> Any:
        """Return the posterior variances of all rows of NumPy, of which a part of the diagonal of K is the noise.

        The factor was made for that, by `SuperfastFactor`.
        """

    def _map(self, function: Callable[[Array, int], Array]) -> Self:
        """Return the factor with functions of its arrays in place of them."""

    def _arrays(self) -> list[Array]:
        """Return its arrays."""


@dataclass(frozen=True)
class FactorSolver(Solver):
    """Finds solutions by a factor, for the implicit rule of a library."""

    rtol: float
    """The relative residual at which conjugate gradients end."""

    def __call__(self, A: NoisyToeplitz, M: SeriesFactor, b: Array, xp: Namespace) -> tuple[Array, tuple[()]]:
        """Return solutions along the last axis.

        Those of a factor that is as exact as elimination are refined once, which leaves no more than rounding; a looser
        one preconditions conjugate gradients.
        """
        if M.tolerance <= thresholds.TIGHT_FACTOR:
            x = M._matvec(b, xp)
            return x + M._matvec(b - A._matvec(x, xp), xp), ()
        scale = xp.max(xp.abs(b), axis=-1, keepdims=True)  # since the method squares the entries of vectors
        scale = xp.where(scale > 0.0, scale, xp.ones_like(scale))
        found = conjugate_gradients(
            lambda v: A._matvec(v, xp),
            b / scale,
            lambda v: M._matvec(v, xp),
            rtol=self.rtol / 2,  # the residual that is computed from the solution is another than that of the method
            max_iter=thresholds.LOOSE_FACTOR_STEPS,
            xp=xp,
        )
        return scale * found.x, ()


@dataclass(frozen=True)
class _InverseSums:
    """A function of arrays that returns the sums along the diagonals of the inverse by a factor."""

    xp: Namespace

    def __call__(self, factor: SeriesFactor, there: Array) -> tuple[Array, Array]:
        return factor.inverse_sums(there, self.xp)


class TraceByDiagonals:
    """What all rules of the log-determinant of a `NoisyToeplitz` share: the trace of the inverse times K."""

    def trace(self, A: NoisyToeplitz, inverse: tuple[Array, Array], given: SeriesFactor | None, xp: Namespace) -> Array:
        """Return the trace of the inverse times A."""
        sums, diagonal = inverse
        products = sums * A.c
        diagonal_block = products[..., : A.channels**2]
        of_T = real_part(2 * xp.sum(products, axis=-1) - xp.sum(diagonal_block, axis=-1), xp)
        return of_T + xp.sum(diagonal * A.noise, axis=-1)


@dataclass(frozen=True)
class TraceByFactor(TraceByDiagonals):
    """What the derivative of the log-determinant takes: that of ``tr(K^-1 dK)`` by a factor."""

    def inverse(self, A: NoisyToeplitz, given: SeriesFactor, xp: Namespace) -> tuple[Array, Array]:
        """Return the sums along the diagonals of the inverse, and its diagonal, which have no derivatives in turn."""
        return without_second_derivatives(rules_of(xp).compiled(_InverseSums(xp))(given, A.there), A, xp)


def without_second_derivatives(found: Sequence[Array], A: NoisyToeplitz, xp: Namespace) -> tuple[Array, Array]:
    """Return the sums along the diagonals of the inverse of A, and its diagonal, of which a derivative is an error."""
    why = "second derivatives of a log-determinant by a direct factor are not known; give n_probes for an estimate"
    sums, diagonal = (rules_of(xp).without_derivative(value, A._arrays(), why) for value in found)
    return sums, diagonal
