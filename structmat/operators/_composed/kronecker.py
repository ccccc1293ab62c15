"""Kronecker products of operators, computed axis by axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from operator import add, mul
from typing import Any, Self

import numpy as np

from structmat._arrays.arithmetic import Reciprocal
from structmat._arrays.libraries import device_of
from structmat._arrays.shapes import concat_last
from structmat._arrays.typing import Array, Namespace, Scalar
from structmat.operators._base.arithmetic import compose, scale
from structmat.operators._base.closed_forms import NoClosedFormError
from structmat.operators._base.hooks import Context, NormOrder
from structmat.operators._base.linear_operator import LinearOperator
from structmat.operators._base.near import Near, NearCirculant
from structmat.operators._base.parts import require_operators, values_of
from structmat.operators._base.spectral_functions import SpectralFunction
from structmat.operators._composed.eigendecomposition import ByEigenvalues, eig_of_part, function_of_part
from structmat.operators._families.dense import as_operators


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Kronecker(ByEigenvalues):
    """The Kronecker product of operators, ``kron(A, B)[i p + k, j q + l] = A[i, j] B[k, l]``.

    Parameters
    ----------
    *factors : LinearOperator or array, shape (..., m, n)
        The factors, of any shapes; arrays become `Dense`, and factors that are Kronecker products are replaced by
        their factors. Batch axes broadcast.

    Raises
    ------
    TypeError
        If a factor is neither an operator nor an array, or the factors come from different array libraries.
    ValueError
        If there is no factor, or batch axes do not broadcast.

    See Also
    --------
    KroneckerSum : ``kron(A, I) + kron(I, B)``.
    Eigendecomposition : Several functions of one product by one decomposition of its factors.

    Notes
    -----
    A vector is a grid with one axis for each factor, the last one fastest. A product multiplies by each factor along
    its axis: for d factors of n rows O(d n^(d + 1)) where these are dense, in place of n^(2 d).

    Inverses, determinants, norms and entries follow from those of the factors.

    Functions of the matrix are computed by orthonormal eigenvectors of the factors. The same holds for a multiple of
    the identity added to the product, such as a covariance matrix on a grid with noise. The eigenvectors of circulants
    and their like are known. Those of other Hermitian factors are computed from the dense factor, which may have up to
    2,048 rows. If the noise is uneven, or some rows and columns are chosen, `structmat.solve` and `structmat.slogdet`
    iterate, and use the eigenvectors in their preconditioner.

    `pinv` cuts off singular values relative to the largest one of the whole matrix where eigenvectors are known, and
    relative to the largest one of each factor otherwise.

    Whether a factor is Hermitian is read from its entries. Where these are not known, as under ``jax.jit``, give
    ``Eigendecomposition.of(matrix)`` in its place. Derivatives of `solve` are those of the system, not of the
    eigenvectors, which may have none.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> K = sm.Kronecker(np.array([[2.0, 1.0], [1.0, 2.0]]), sm.Toeplitz(np.array([2.0, 1.0, 0.0])))
    >>> K
    Kronecker(Dense(2, 2), Toeplitz(3, 3), shape=(6, 6), dtype=float64, device=cpu)
    >>> K @ np.ones(6)
    array([ 9., 12.,  9.,  9., 12.,  9.])
    >>> A = K + 0.5 * sm.Identity(6)
    >>> bool(np.allclose(A @ A.solve(np.ones(6)), 1)), round(float(A.slogdet().logabsdet), 6)
    (True, 7.423429)
    """

    _core_axes = {"factors": None}

    factors: tuple[LinearOperator, ...]
    """The factors."""

    def __init__(self, *factors: Any) -> None:
        operators = as_operators(factors, "Kronecker", "factors")
        require_operators("Kronecker", "factors", operators)
        inner = ((factor.factors if type(factor) is Kronecker else (factor,)) for factor in operators)
        object.__setattr__(self, "factors", tuple(part for parts in inner for part in parts))

    @classmethod
    def _of_fields(cls, fields: dict[str, Any]) -> Self:
        return cls(*fields["factors"])

    @property
    def shape(self) -> tuple[int, int]:
        """The products of the numbers of rows and of columns."""
        return (prod(factor.shape[0] for factor in self.factors), prod(factor.shape[1] for factor in self.factors))

    def _details(self) -> str:
        return ", ".join(f"{type(factor).__name__}{factor.shape}" for factor in self.factors) + ", "

    def _described(self) -> str:
        return "the Kronecker product of " + ", ".join(factor._described() for factor in self.factors)

    def cholesky(self) -> Kronecker:
        """Return the Cholesky factor of a product of Hermitian positive definite matrices, as an operator.

        Returns
        -------
        Kronecker
            The lower triangular L with ``L @ L^H = K``: the product of the Cholesky factors of the factors.

        Raises
        ------
        NotImplementedError
            If a factor is neither `Dense` nor a `Toeplitz` matrix.
        ValueError, numpy.linalg.LinAlgError
            As for these.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> L = sm.Kronecker(np.array([[4.0, 2.0], [2.0, 2.0]]), sm.Toeplitz(np.array([1.0, 0.6]))).cholesky()
        >>> L.to_dense()
        array([[2. , 0. , 0. , 0. ],
               [1.2, 1.6, 0. , 0. ],
               [1. , 0. , 1. , 0. ],
               [0.6, 0.8, 0.6, 0.8]])
        """
        op, xp = self._to_working_precision("cholesky", square=True)
        factors: tuple[Any, ...] = op.factors
        for factor in factors:
            if not hasattr(factor, "cholesky"):
                text = f"Kronecker.cholesky: no Cholesky factor of {factor._described()}"
                raise NotImplementedError(f"{text}; put Dense(op.to_dense()) in the place of a small factor")
        return self._from_working_precision(Kronecker(*(factor.cholesky() for factor in factors)), xp)

    # Products

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        return axis_by_axis(self.factors, lambda factor, X: factor._matmat(X, xp), x, xp)

    def _transpose(self) -> Kronecker:
        return Kronecker(*(factor._transpose() for factor in self.factors))

    def _to_dense(self, like: Context) -> Array:
        def kron(A: Array, B: Array) -> Array:
            entries = A[..., :, None, :, None] * B[..., None, :, None, :]
            *batch, m, p, n, q = entries.shape
            return like.xp.reshape(entries, (*batch, m * p, n * q))

        return reduce(kron, (factor._to_dense(like) for factor in self.factors))

    def _squared_moduli_times(self, X: Array, xp: Namespace) -> Array:
        def by_axes(A: Kronecker, rows: Array) -> Array:
            return axis_by_axis(A.factors, lambda factor, Y: factor._squared_moduli_times(Y, xp), rows, xp)

        return self._in_columns(by_axes, X, xp)

    def _block(self, rows: range, cols: range, xp: Namespace) -> Array | None:
        """Return a row or a column, from those of the factors."""
        if len(rows) == 1:
            return self._row(rows.start, xp)[..., None, cols.start : cols.stop]
        return self._transpose()._row(cols.start, xp)[..., rows.start : rows.stop, None] if len(cols) == 1 else None

    def _row(self, index: int, xp: Namespace) -> Array:
        indices = np.unravel_index(index, [factor.shape[0] for factor in self.factors])
        rows = iter([int(i) for i in indices])
        return self._of_all(xp, lambda factor, _: factor[next(rows)])

    # Closed forms of the factors

    def _require_square_factors(self) -> None:
        """Raise an error where a factor is not square: the rank of a square product is too small for an inverse."""
        if any(factor.shape[0] != factor.shape[1] for factor in self.factors):
            raise NoClosedFormError(self)

    def _each(self, xp: Namespace, hook: Callable[[LinearOperator, Namespace], Any]) -> list[Any]:
        return [values_of(factor, self, xp, hook) for factor in self.factors]

    def _of_all(self, xp: Namespace, hook: Callable[[LinearOperator, Namespace], Array]) -> Array:
        """Return the products of one value of each factor, in the order of the axes."""
        return _products_of_pairs(self._each(xp, hook), xp)

    def _inv(self, xp: Namespace) -> Kronecker:
        self._require_square_factors()
        return Kronecker(*(factor._inv(xp) for factor in self.factors))

    def _solve(self, b: Array, xp: Namespace) -> Array:
        self._require_square_factors()

        def solutions(factor: LinearOperator, columns: Array) -> Array:
            return factor._in_columns(lambda A, right: A._solve(right, xp), columns, xp)

        return axis_by_axis(self.factors, solutions, b, xp)

    def _determinant_factors(self, xp: Namespace) -> Array:
        self._require_square_factors()
        values = self._each(xp, lambda factor, own: factor._determinant_factors(own))
        times = [self.shape[0] // factor.shape[0] for factor in self.factors]
        return concat_last([part for each, count in zip(values, times, strict=True) for part in [each] * count], xp)

    def _slogdet(self, xp: Namespace) -> tuple[Array, Array]:
        self._require_square_factors()
        values = self._each(xp, lambda factor, own: factor._slogdet(own))
        times = [self.shape[0] // factor.shape[0] for factor in self.factors]
        signs = [sign**count for (sign, _), count in zip(values, times, strict=True)]
        logs = [count * log for (_, log), count in zip(values, times, strict=True)]
        return reduce(mul, signs), reduce(add, logs)

    def _slogdet_and_error(self, xp: Namespace) -> tuple[Array, Array, Array]:
        self._require_square_factors()
        values = self._each(xp, lambda factor, own: factor._slogdet_and_error(own))
        times = [self.shape[0] // factor.shape[0] for factor in self.factors]
        signs = [sign**count for (sign, _, _), count in zip(values, times, strict=True)]
        logs = [count * log for (_, log, _), count in zip(values, times, strict=True)]
        errors = [count * error for (_, _, error), count in zip(values, times, strict=True)]
        return reduce(mul, signs), reduce(add, logs), reduce(add, errors)

    def _pinv(self, rtol: float, xp: Namespace) -> LinearOperator:
        try:
            return super()._pinv(rtol, xp)
        except NoClosedFormError:
            return Kronecker(*(factor._pinv(rtol, xp) for factor in self.factors))

    def _orthonormal_eig(self, xp: Namespace) -> tuple[Array, LinearOperator, bool]:
        self._require_square_factors()
        values, vectors, real = zip(*(eig_of_part(factor, self, xp) for factor in self.factors), strict=True)
        return _products_of_pairs(values, xp), Kronecker(*vectors), all(real)

    def _eigvals(self, xp: Namespace) -> Array:
        self._require_square_factors()
        return self._of_all(xp, lambda factor, own: factor._eigvals(own))

    def _eig(self, xp: Namespace) -> tuple[Array, LinearOperator]:
        self._require_square_factors()
        own = (xp if factor._arrays() else factor._own_namespace() for factor in self.factors)
        vectors = [factor._eig(each)[1] for factor, each in zip(self.factors, own, strict=True)]
        return self._eigvals(xp), Kronecker(*vectors)

    def _svdvals(self, xp: Namespace) -> Array:
        values = self._of_all(xp, lambda factor, own: factor._svdvals(own))
        missing = min(self.shape) - values.shape[-1]
        zeros = xp.zeros((*values.shape[:-1], missing), dtype=values.dtype, device=device_of(values))
        return concat_last([values, zeros], xp) if missing else values

    def _rounding(self, xp: Namespace) -> float:
        return sum(factor._rounding(xp) for factor in self.factors)

    def _diagonal(self, xp: Namespace) -> Array:
        self._require_square_factors()
        return self._of_all(xp, lambda factor, own: factor._diagonal(own))

    def _norm(self, ord: NormOrder, xp: Namespace) -> Array:
        return reduce(lambda a, b: a * b, self._each(xp, lambda factor, own: factor._norm(ord, own)))

    def _modulus(self, xp: Namespace) -> Kronecker:
        return Kronecker(*(factor._modulus(xp) for factor in self.factors))

    def _spectral_function(self, function: SpectralFunction, xp: Namespace) -> LinearOperator:
        if function.is_multiplicative:
            return Kronecker(*(function_of_part(factor, self, function, xp) for factor in self.factors))
        return super()._spectral_function(function, xp)

    def _near(self, like: Array, xp: Namespace) -> Near:
        return Near(self, circulant=lambda: self._circulant_near(like, xp), eigenvectors=lambda: eig_or_none(self, xp))

    def _circulant_near(self, like: Array, xp: Namespace) -> NearCirculant | None:
        """Return the Kronecker product of the circulants near the factors, of all their levels."""
        columns: list[Array] = []
        sizes: tuple[int, ...] = ()
        for factor in self.factors:
            m, n = factor.shape
            found = factor._near(like, xp).circulant() if m == n else None
            if found is None:
                return None
            columns.append(found.c)
            sizes += found.sizes or (n,)
        return NearCirculant(_products_of_pairs(columns, xp), sizes)


def axis_by_axis(
    factors: tuple[LinearOperator, ...], function: Callable[[LinearOperator, Array], Array], x: Array, xp: Namespace
) -> Array:
    """Return vectors after a function of each factor and of columns was applied along its axis of their grids.

    The last axis of a grid comes first: as rows of columns, it is the first axis of the result. After a turn of all
    axes they are in their order again.
    """
    for factor in reversed(factors):
        n = factor.shape[1]
        rows = xp.reshape(x, (*x.shape[:-1], x.shape[-1] // n, n))
        columns = function(factor, xp.matrix_transpose(rows))
        x = xp.reshape(columns, (*columns.shape[:-2], prod(columns.shape[-2:])))
    return x


def _products_of_pairs(vectors: Sequence[Array], xp: Namespace) -> Array:
    """Return the products of one entry of each vector, in the order of the axes of a grid."""
    return reduce(lambda left, right: of_pairs(left[..., :, None] * right[..., None, :], xp), vectors)


def of_pairs(grid: Array, xp: Namespace) -> Array:
    """Return the values for each pair of two indices, the last two axes, as vectors."""
    return xp.reshape(grid, (*grid.shape[:-2], prod(grid.shape[-2:])))


def eig_or_none(operator: LinearOperator, xp: Namespace) -> tuple[Array, LinearOperator, bool] | None:
    """Return the orthonormal eigendecomposition of an operator, for a preconditioner, or None where there is none."""
    try:
        return operator._orthonormal_eig(xp)
    except NoClosedFormError:
        return None


@compose.rule(Kronecker, Kronecker)
def _multiply(left: Kronecker, right: Kronecker) -> Any:
    """Return the Kronecker product of the products of the factors, where their shapes agree."""
    if [factor.shape[1] for factor in left.factors] != [factor.shape[0] for factor in right.factors]:
        return NotImplemented
    return Kronecker(*(compose(A, B) for A, B in zip(left.factors, right.factors, strict=True)))


@scale.rule(Kronecker, object)
def _scale(operator: Kronecker, factor: Scalar | Reciprocal) -> Kronecker:
    first, *rest = operator.factors
    return Kronecker(scale(first, factor), *rest)
