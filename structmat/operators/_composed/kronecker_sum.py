"""Kronecker sums of square operators, computed axis by axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any, Self

from structmat._arrays.arithmetic import Reciprocal
from structmat._arrays.typing import Array, Namespace, Scalar
from structmat._errors import ArgumentValueError
from structmat.operators._base.arithmetic import add, scale
from structmat.operators._base.hooks import Context
from structmat.operators._base.linear_operator import LinearOperator
from structmat.operators._base.near import Near
from structmat.operators._base.parts import require_operators, values_of
from structmat.operators._base.spectral_functions import SpectralFunction
from structmat.operators._composed.eigendecomposition import ByEigenvalues, eig_of_part, function_of_part
from structmat.operators._composed.kronecker import Kronecker, eig_or_none, of_pairs
from structmat.operators._composed.scaled import Scaled, identity_factor
from structmat.operators._families.dense import as_operators
from structmat.operators._families.diagonal import Identity


@dataclass(frozen=True, eq=False, repr=False, init=False)
class KroneckerSum(ByEigenvalues):
    """The Kronecker sum of square operators, ``kron(A, I) + kron(I, B)``, and so on for more of them.

    Parameters
    ----------
    *terms : LinearOperator or array, shape (..., n, n)
        The terms, square; arrays become `Dense`, and terms that are Kronecker sums are replaced by their terms. Batch
        axes broadcast.

    Raises
    ------
    TypeError
        If a term is neither an operator nor an array, or the terms come from different array libraries.
    ValueError
        If there is no term, one is not square, or batch axes do not broadcast.

    See Also
    --------
    Kronecker : The product.

    Notes
    -----
    A vector is a grid with one axis for each term, the last one fastest; a product is the sum of those with the terms
    along their axes. So Laplacians on grids are Kronecker sums of those on lines.

    Systems, determinants and functions are by orthonormal eigenvectors of the terms, as of `Kronecker`: an eigenvalue
    is the sum of one of each term. The exponential is the Kronecker product of those of the terms. Sums of Kronecker
    sums of the same grid, and multiples of the identity added to them, are Kronecker sums.

    Examples
    --------
    The negative Laplacian on a grid of 3 x 4 points, and the solution of Poisson's equation:

    >>> import numpy as np
    >>> import structmat as sm
    >>> L = sm.KroneckerSum(sm.Toeplitz(np.array([2.0, -1.0, 0.0])), sm.Toeplitz(np.array([2.0, -1.0, 0.0, 0.0])))
    >>> L.to_dense()[0]
    array([ 4., -1.,  0.,  0., -1.,  0.,  0.,  0.,  0.,  0.,  0.,  0.])
    >>> x = L.solve(np.ones(12))
    >>> bool(np.allclose(L @ x, 1))
    True
    """

    _core_axes = {"terms": None}
    _prepares_matrix = False

    terms: tuple[LinearOperator, ...]
    """The terms."""

    def __init__(self, *terms: Any) -> None:
        operators = as_operators(terms, "KroneckerSum", "terms")
        require_operators("KroneckerSum", "terms", operators)
        for term in operators:
            if term.shape[0] != term.shape[1]:
                raise ArgumentValueError("KroneckerSum", "terms", f"must be square, got shape {term.shape}")
        inner = ((term.terms if type(term) is KroneckerSum else (term,)) for term in operators)
        object.__setattr__(self, "terms", tuple(part for parts in inner for part in parts))

    @classmethod
    def _of_fields(cls, fields: dict[str, Any]) -> Self:
        return cls(*fields["terms"])

    @property
    def shape(self) -> tuple[int, int]:
        """The product of the sizes, twice."""
        n = prod(self._sizes)
        return (n, n)

    @property
    def _sizes(self) -> tuple[int, ...]:
        return tuple(term.shape[0] for term in self.terms)

    def _details(self) -> str:
        return ", ".join(f"{type(term).__name__}{term.shape}" for term in self.terms) + ", "

    def _described(self) -> str:
        return "the Kronecker sum of " + ", ".join(term._described() for term in self.terms)

    def _along_axis(self, k: int) -> Kronecker:
        """Return the k-th term as a matrix of the whole grid."""
        return Kronecker(*(term if i == k else Identity(term.shape[0]) for i, term in enumerate(self.terms)))

    # Products

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        products = [self._product_along_axis(k, x, xp) for k in range(len(self.terms))]
        return reduce(lambda y, other: y + other, products)

    def _product_along_axis(self, k: int, x: Array, xp: Namespace) -> Array:
        """Return the products with one term: of the matrices that its axis and all those behind it make of a grid."""
        term, n = self.terms[k], self._sizes[k]
        before, after = prod(self._sizes[:k]), prod(self._sizes[k + 1 :])
        term = term._with_batch_axis(xp) if term.batch_shape else term
        if after == 1:
            y = term._matvec(xp.reshape(x, (*x.shape[:-1], before, n)), xp)
            return xp.reshape(y, (*y.shape[:-2], before * n))
        y = term._matmat(xp.reshape(x, (*x.shape[:-1], before, n, after)), xp)
        return xp.reshape(y, (*y.shape[:-3], before * n * after))

    def _transpose(self) -> KroneckerSum:
        return KroneckerSum(*(term._transpose() for term in self.terms))

    def _to_dense(self, like: Context) -> Array:
        return reduce(lambda M, N: M + N, (self._along_axis(k)._to_dense(like) for k in range(len(self.terms))))

    # Closed forms

    def _sums(self, values: Sequence[Array], xp: Namespace) -> Array:
        """Return the sums of one value of each term, in the order of the axes."""
        return reduce(lambda left, right: of_pairs(left[..., :, None] + right[..., None, :], xp), values)

    def _orthonormal_eig(self, xp: Namespace) -> tuple[Array, LinearOperator, bool]:
        values, vectors, real = zip(*(eig_of_part(term, self, xp) for term in self.terms), strict=True)
        return self._sums(values, xp), Kronecker(*vectors), all(real)

    def _near(self, like: Array, xp: Namespace) -> Near:
        return Near(self, eigenvectors=lambda: eig_or_none(self, xp))

    def _eigvals(self, xp: Namespace) -> Array:
        return self._sums([values_of(term, self, xp, lambda part, own: part._eigvals(own)) for term in self.terms], xp)

    def _eig(self, xp: Namespace) -> tuple[Array, LinearOperator]:
        own = (xp if term._arrays() else term._own_namespace() for term in self.terms)
        vectors = [term._eig(each)[1] for term, each in zip(self.terms, own, strict=True)]
        return self._eigvals(xp), Kronecker(*vectors)

    def _diagonal(self, xp: Namespace) -> Array:
        return self._sums([values_of(term, self, xp, lambda part, own: part._diagonal(own)) for term in self.terms], xp)

    def _rounding(self, xp: Namespace) -> float:
        return sum(term._rounding(xp) for term in self.terms)

    def _spectral_function(self, function: SpectralFunction, xp: Namespace) -> LinearOperator:
        if function.is_exponential:
            return Kronecker(*(function_of_part(term, self, function, xp) for term in self.terms))
        return super()._spectral_function(function, xp)


@add.rule(KroneckerSum, KroneckerSum)
def _add(left: KroneckerSum, right: KroneckerSum) -> Any:
    if left._sizes != right._sizes:
        return NotImplemented
    return KroneckerSum(*(add(A, B) for A, B in zip(left.terms, right.terms, strict=True)))


@add.rule(KroneckerSum, Identity)
@add.rule(KroneckerSum, Scaled)
def _shift(operator: KroneckerSum, shift: LinearOperator) -> Any:
    """Return the sum with a multiple of the identity, which is added to the first term."""
    factor = identity_factor(shift)
    if factor is None:
        return NotImplemented
    first, *rest = operator.terms
    return KroneckerSum(add(first, scale(Identity(first.shape[0]), factor)), *rest)


@scale.rule(KroneckerSum, object)
def _scale(operator: KroneckerSum, factor: Scalar | Reciprocal) -> KroneckerSum:
    return KroneckerSum(*(scale(term, factor) for term in operator.terms))
