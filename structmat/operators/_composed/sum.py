"""Sums of operators that are of no one family: lists of their terms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import is_
from typing import Any

from structmat._arrays.arithmetic import scale_array
from structmat._arrays.dtypes import is_complex_scalar
from structmat._arrays.typing import Array, Namespace, Scalar
from structmat._errors import ArgumentValueError
from structmat.operators._base.arithmetic import add, scale
from structmat.operators._base.closed_forms import NoClosedFormError
from structmat.operators._base.combination import Combination, combined, flat
from structmat.operators._base.hooks import Context
from structmat.operators._base.linear_operator import LinearOperator
from structmat.operators._base.near import Eigenvectors, Near, NearCirculant, on_one_grid
from structmat.operators._base.parts import require_operators, sequence_of_parts, values_of
from structmat.operators._composed.eigendecomposition import ByEigenvalues, shifted
from structmat.operators._composed.prepared import Prepared, prepared_by
from structmat.operators._composed.scaled import identity_factor
from structmat.operators._families.diagonal import Diagonal, Identity


@dataclass(frozen=True, eq=False, repr=False)
class Sum(ByEigenvalues, Combination):
    """The sum of operators, ``terms[0] + terms[1] + ...``, kept as its terms.

    Parameters
    ----------
    terms : sequence of LinearOperator
        Operators of equal shape. Terms that are sums are replaced by their terms.

    Raises
    ------
    TypeError
        If a term is not an operator, or the terms come from different array libraries.
    ValueError
        If there is no term, shapes differ, batch axes do not broadcast, or they hold too many arrays.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> (sm.Circulant(np.array([0.0, 1.0])) + sm.Diagonal(np.array([2.0, 3.0]))).to_dense()
    array([[2., 1.],
           [1., 3.]])
    """

    _core_axes = {"terms": None}
    _prepares_matrix = False

    terms: tuple[LinearOperator, ...]
    """The terms."""

    def __post_init__(self) -> None:
        terms = sequence_of_parts("Sum", "terms", self.terms)
        require_operators("Sum", "terms", terms)
        if len({t.shape for t in terms}) > 1:
            text = " + ".join(str(t.shape) for t in terms)
            raise ArgumentValueError("Sum", "terms", f"must have one shape, got {text}")
        self._set_parts(flat(terms, Sum), terms)

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of every term."""
        return self.terms[0].shape

    def _details(self) -> str:
        return " + ".join(type(t).__name__ for t in self.terms) + ", "

    def _described(self) -> str:
        return "a sum of " + " + ".join(type(t).__name__ for t in self.terms)

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        y = self.terms[0]._matvec(x, xp)
        for term in self.terms[1:]:
            y = y + term._matvec(x, xp)
        return y

    def _rmatvec(self, y: Array, xp: Namespace) -> Array:
        return reduce(lambda x, term: x + term._rmatvec(y, xp), self.terms[1:], self.terms[0]._rmatvec(y, xp))

    def _transpose(self) -> LinearOperator:
        return Sum(tuple(t._transpose() for t in self.terms))

    def _conj(self) -> LinearOperator:
        terms = tuple(t._conj() for t in self.terms)
        return self if all(map(is_, terms, self.terms)) else Sum(terms)

    def _to_dense(self, like: Context) -> Array:
        return reduce(lambda M, term: M + term._to_dense(like), self.terms[1:], self.terms[0]._to_dense(like))

    def _orthonormal_eig(self, xp: Namespace) -> tuple[Array, LinearOperator, bool]:
        """Return that of the one other term beside a multiple of the identity."""
        shift: Scalar | None = None
        others = []
        for term in self.terms:
            factor = identity_factor(term)
            if factor is None:
                others.append(term)
            else:
                shift = factor
        if shift is None or len(self.terms) != 2 or len(others) != 1:
            raise NoClosedFormError(self)
        return shifted(others[0], shift, xp)

    def _diagonal(self, xp: Namespace) -> Array:
        diagonals = [values_of(t, self, xp, lambda part, own: part._diagonal(own)) for t in self.terms]
        return sum(diagonals[1:], start=diagonals[0])

    def _near(self, like: Array, xp: Namespace) -> Near:
        parts = []
        chosen = None
        for term in self.terms:
            part = term._near(like, xp)
            parts.append(part)
            if chosen is None:
                chosen = part.chosen
        if chosen is not None:
            return self._near_larger(parts, chosen, like, xp)
        return Near(
            self,
            circulant=lambda: _circulant_near_sum(parts),
            eigenvectors=lambda: self._eigenvectors_near(parts, xp),
            noisy_toeplitz=lambda: _noisy_toeplitz(parts),
        )

    def _near_larger(self, parts: list[Near], chosen: Any, like: Array, xp: Namespace) -> Near:
        """Return what is near a sum of larger matrices, of which this sum has the chosen rows and columns."""
        wider: list[Any] = [
            _with_more_rows(term, chosen) if part.chosen is None else part.whole
            for term, part in zip(self.terms, parts, strict=True)
        ]
        if None in wider or any(part.chosen not in {chosen, None} for part in parts):
            return Near(self)
        return reduce(add, wider)._near(like, xp)._replace(chosen=chosen)

    def _eigenvectors_near(self, parts: list[Near], xp: Namespace) -> Eigenvectors | None:
        """Return those near the one other term beside multiples of the identity and the means of diagonal terms."""
        multiples = [_near_multiple_of_identity(term, xp) for term in self.terms]
        others = [part for part, factor in zip(parts, multiples, strict=True) if factor is None]
        known = others[0].eigenvectors() if len(others) == 1 else None
        if known is None:
            return None
        values, vectors, real = known
        for factor in multiples:
            if factor is not None:
                values = values + scale_array(xp.ones_like(values), factor, 1, xp)
                real = real and not is_complex_scalar(factor, xp)
        return values, vectors, real


def _circulant_near_sum(parts: list[Near]) -> NearCirculant | None:
    """Return the sum of the circulants near the terms."""
    found = on_one_grid(parts)
    if found is None:
        return None
    columns, sizes = found
    return NearCirculant(sum(columns[1:], start=columns[0]), sizes)


def _noisy_toeplitz(parts: list[Near]) -> tuple[Any, Array | None] | None:
    """Return the sum of the Toeplitz matrices of the terms and that of their diagonals, where all have such.

    None too where Toeplitz matrices have blocks of different sizes, whose sum is no such matrix.
    """
    T: Any = None
    d: Any = None
    for part in parts:
        known = part.noisy_toeplitz()
        if known is None:
            return None
        matrix, diagonal = known
        if matrix is not None:
            T = matrix if T is None else add(T, matrix)
        if diagonal is not None:
            d = diagonal if d is None else d + diagonal
    return None if isinstance(T, Sum) else (T, d)


def _near_multiple_of_identity(operator: LinearOperator, xp: Namespace) -> Scalar | None:
    """Return s of the multiple ``s * Identity`` that is nearest to a diagonal matrix, else None."""
    factor = identity_factor(operator)
    return xp.mean(operator.d, axis=-1) if factor is None and isinstance(operator, Diagonal) else factor


def _with_more_rows(operator: LinearOperator, chosen: Any) -> LinearOperator | None:
    """Return a diagonal matrix of which `operator` has the chosen rows; all other entries are the mean of these.

    It is None where no rows are chosen, or the operator is of another kind.
    """
    if chosen is None:
        return None
    factor = identity_factor(operator)
    if factor is not None:
        return scale(Identity(chosen.size), factor)
    if not isinstance(operator, Diagonal):
        return None
    xp = operator._own_namespace()
    return Diagonal(chosen._scattered(operator.d, xp, fill=xp.mean(operator.d, axis=-1, keepdims=True)))


@add.rule(object, object)
def _lazy_sum(left: LinearOperator, right: LinearOperator) -> LinearOperator:
    return combined(Sum, (left, right), (left, right))  # they were checked where they were added


@add.rule(Sum, object)
def _extend_sum(left: Sum, right: LinearOperator) -> LinearOperator:
    terms = list(left.terms)
    new_terms = right.terms if isinstance(right, Sum) else (right,)
    for new_term in new_terms:
        _take_in(terms, new_term)
    if len(terms) == 1:
        return terms[0]
    if len(terms) < len(left.terms) + len(new_terms):
        return Sum(tuple(terms))
    return combined(Sum, tuple(terms), (left, right))


def _take_in(terms: list[LinearOperator], new: LinearOperator) -> None:
    """Put one more term among terms, in one with all those that a family holds together with it.

    Two terms that no family holds may both be held by that of a third.
    """
    for k, term in enumerate(terms):
        if (merged := add.merge(term, new)) is not NotImplemented:
            del terms[k]
            others = len(terms)
            _take_in(terms, merged)
            if len(terms) > others:  # it is joined with no other, and keeps its place
                terms.insert(k, terms.pop())
            return
    terms.append(new)


add.rule(Sum, Prepared)(prepared_by(add))


@scale.rule(Sum, object)
def _scale_terms(operator: Sum, factor: Scalar) -> LinearOperator:
    terms = tuple(scale(term, factor) for term in operator.terms)
    return combined(Sum, terms, terms)
