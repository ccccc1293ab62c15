"""The default preconditioner: a matrix near an operator that transforms or known eigenvectors diagonalise."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

from structmat._arrays.arithmetic import conjugate, euclidean_norm
from structmat._arrays.libraries import rules_of
from structmat._arrays.typing import Array, Namespace
from structmat.linear_systems import _thresholds
from structmat.linear_systems._scaling import power_near_norm
from structmat.operators import (
    Circulant,
    Diagonal,
    Eigendecomposition,
    Indices,
    LinearOperator,
    MultilevelCirculant,
    Near,
    Submatrix,
    add,
)


def iterations_on_trial(max_iter: int, operator: LinearOperator) -> int:
    """Return how many iterations are made with the default preconditioner before it is left out.

    A submatrix of the inverse of a circulant may be singular although that of the circulant is not, unless the
    circulant is positive definite. So half of the iterations are reserved for the matrix without preconditioner, but
    with it at least as many are made as there are unknowns.
    """
    return max(max_iter // 2, min(max_iter, operator.shape[0]))


def of_moderate_size(given: LinearOperator, like: Array, xp: Namespace) -> LinearOperator:
    """Return a preconditioner divided by a power of two near its norm; it takes one product."""
    return given / power_near_norm(given, like, xp)


class Nearest(NamedTuple):
    """A matrix near a square operator, given by eigenvalues: the nearest circulant or diagonal one, or another."""

    eigenvalues: Array
    """Its eigenvalues; for a real circulant half of them, as the other half is conjugate."""
    having: Callable[[Array], LinearOperator]
    """Returns the matrix of the same kind that has other eigenvalues."""
    chosen: Indices | None
    """The rows and columns of a principal submatrix, of which all else here is the whole matrix; else None."""
    square: Array
    """The square of the Frobenius norm of the whole matrix."""

    def positive(self, xp: Namespace) -> Array:
        """Return the moduli of the eigenvalues, bounded from below."""
        return 1 / _reciprocals(self.eigenvalues, xp, positive=True)

    def inverse(self, xp: Namespace, *, positive: bool) -> LinearOperator:
        """Return the inverse, with eigenvalues that are bounded, and positive if `positive`.

        In place of the inverse of a principal submatrix it is that submatrix of the inverse.
        """
        inverse = self.having(_reciprocals(self.eigenvalues, xp, positive=positive))
        return inverse if self.chosen is None else Submatrix(inverse, self.chosen, self.chosen)


def inverse_of_nearest(
    operator: LinearOperator, like: Array, xp: Namespace, *, positive: bool
) -> LinearOperator | None:
    """Return the inverse of the matrix that `nearest` chooses, or None if none is known."""
    inverses = [where_used(near.inverse(xp, positive=positive), use, xp) for near, use in nearest(operator, like, xp)]
    return reduce(add, inverses) if inverses else None


def where_used(operator: LinearOperator, use: Array | None, xp: Namespace) -> LinearOperator:
    """Return a matrix, or zero where `use`, a traced boolean, is false; None for `use` means true."""
    if use is None:
        return operator
    return operator._map(lambda array, _: xp.where(use, array, xp.zeros_like(array)))


def nearest(operator: LinearOperator, like: Array, xp: Namespace) -> list[tuple[Nearest, Array | None]]:
    """Return the matrix near a square operator that has its own eigenvectors, or is circulant, or diagonal.

    `like` is a right-hand side, which has the dtype and device. All these matrices are orthogonal projections, so that
    the nearer one is the one of the larger norm; it is chosen for all members of a stack together. A circulant is
    looked for where no eigenvectors are known. For JAX, where values may be traced, the diagonal matrix and the other
    one are both returned, each with a boolean that says whether it is the nearer one. Otherwise there is None in place
    of the boolean.
    """
    known = operator._near(like, xp)
    near = _by_own_eigenvectors(known, xp) or _circulant(known, xp)
    diagonal = _diagonal(known, xp)
    if near is None or diagonal is None:
        return [(one, None) for one in (near, diagonal) if one is not None]
    gain = near.square - diagonal.square
    is_nearer = xp.sum(rules_of(xp).constant(gain)) >= 0.0
    if rules_of(xp).compiles:
        return [(near, is_nearer), (diagonal, ~is_nearer)]
    return [(near if bool(is_nearer) else diagonal, None)]


def _by_own_eigenvectors(known: Near, xp: Namespace) -> Nearest | None:
    """Return the matrix near an operator whose eigenvectors are known, as of a Kronecker product with noise."""
    found = known.eigenvectors()
    if found is None:
        return None
    form = Eigendecomposition(*found)._spectral_form(xp)
    return Nearest(form.values, form.having, known.chosen, euclidean_norm(form.values, xp) ** 2)


def _circulant(known: Near, xp: Namespace) -> Nearest | None:
    """Return the circulant near an operator, of as many levels as that has."""
    m, n = known.whole.shape
    found = known.circulant() if m == n else None
    if found is None:
        return None
    column, sizes = found.c, found.sizes or (n,)
    kind: Any = Circulant(column).to_spectral() if len(sizes) == 1 else MultilevelCirculant(column, sizes)
    form = kind._spectral_form(xp)
    return Nearest(form.values, form.having, known.chosen, n * euclidean_norm(column, xp) ** 2)


def _diagonal(known: Near, xp: Namespace) -> Nearest | None:
    """Return the diagonal of an operator; for a submatrix it is its own diagonal, which needs no larger matrix."""
    try:
        diagonal = known.whole._diagonal(xp)
    except NotImplementedError:
        return None
    square = euclidean_norm(diagonal, xp) ** 2
    own = diagonal if known.chosen is None else known.chosen._gathered(diagonal, xp)
    return Nearest(own, Diagonal, None, square)


def _reciprocals(values: Array, xp: Namespace, *, positive: bool) -> Array:
    """Return reciprocals of values, or if `positive` of their moduli, after small moduli were raised to a bound."""
    moduli = xp.abs(values)
    least = _thresholds.LEAST_EIGENVALUE * xp.max(moduli, axis=-1, keepdims=True)
    least = xp.where(least > 0.0, least, xp.ones_like(least))
    bounded = xp.where(moduli > least, moduli, least)
    inverse = 1 / bounded
    if positive:
        return inverse
    nonzero = moduli > 0.0
    phase = xp.where(nonzero, values / xp.where(nonzero, moduli, xp.ones_like(moduli)), xp.ones_like(values))
    return conjugate(phase, xp) * inverse
