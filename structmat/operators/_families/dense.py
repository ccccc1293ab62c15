"""A matrix without structure, given by all of its entries: a small part of an operator that has structure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from structmat._arguments import as_floating, wrong_shape
from structmat._arrays.arithmetic import euclidean_norm, power_of_two_near
from structmat._arrays.conversion import copied
from structmat._arrays.dtypes import common_dtype, complex_partner
from structmat._arrays.libraries import can_raise_for_values, device_of, is_array, rules_of
from structmat._arrays.linear_algebra import (
    VECTORS,
    dense_inverses,
    dense_solutions,
    even_factors,
    hermitian_part,
    is_hermitian,
    matmul,
    singular_values,
)
from structmat._arrays.typing import Array, Namespace
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat.operators._base.arithmetic import compose
from structmat.operators._base.hooks import Context
from structmat.operators._base.linear_operator import LinearOperator
from structmat.operators._base.spectral_functions import spectral_rounding


@dataclass(frozen=True, eq=False, repr=False)
class Dense(LinearOperator):
    """A matrix without structure, given by all of its entries.

    Parameters
    ----------
    matrix : array, shape (..., m, n)
        The matrix; leading axes make a stack. Integers are promoted to the library's floating dtype.

    Raises
    ------
    ValueError
        If `matrix` has fewer than two axes, or no entries.
    TypeError
        If `matrix` does not hold numbers.

    See Also
    --------
    Kronecker, KroneckerSum : Of which small matrices are parts; they take arrays as well.
    Eigendecomposition : Functions of Hermitian matrices.

    Notes
    -----
    All is computed by the library's own linear algebra, in its time: O(n^2) for a product, O(n^3) for a system. Nothing
    is gained over an array where the whole matrix is one of these; it is meant for parts of other operators.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> A = sm.Dense(np.array([[2.0, 1.0], [1.0, 3.0]]))
    >>> A @ sm.Circulant(np.array([0.0, 1.0]))
    Product(Dense @ Circulant, shape=(2, 2), dtype=float64, device=cpu)
    >>> A.solve(np.array([3.0, 4.0]))
    array([1., 1.])
    """

    _core_axes = {"matrix": 2}

    matrix: Array
    """The entries, shape ``(..., m, n)``."""

    def __post_init__(self) -> None:
        matrix = as_floating(self.matrix, "Dense", "matrix")
        if matrix.ndim < 2 or 0 in matrix.shape[-2:]:
            raise wrong_shape("Dense", "matrix", "(..., m, n), none of them 0", matrix)
        object.__setattr__(self, "matrix", matrix)

    @property
    def shape(self) -> tuple[int, int]:
        """``(m, n)``."""
        return (self.matrix.shape[-2], self.matrix.shape[-1])

    def cholesky(self) -> Array:
        """Return the Cholesky factor of a Hermitian positive definite matrix.

        Returns
        -------
        array, shape (..., n, n)
            The lower triangular L with ``L @ L^H = A`` and a positive diagonal, by the library's own function, with its
            errors. torch and JAX take the Hermitian part of A, as of a `Toeplitz` matrix.

        Raises
        ------
        ValueError
            If the matrix is not square or, with NumPy, not Hermitian.
        """
        op, xp = self._to_working_precision("cholesky", square=True)
        if can_raise_for_values(xp) and not bool(xp.all(is_hermitian(op.matrix, xp))):
            raise ArgumentValueError("Dense.cholesky", None, "the matrix must be Hermitian")
        with _named("cholesky"):
            factor = xp.linalg.cholesky(hermitian_part(op.matrix, xp))
        return self._from_working_precision(factor, xp)

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        matrix = self.matrix
        if matrix.ndim > 2 and matrix.shape[-3] == 1 and x.ndim > 1:  # vectors in rows, as of `_with_batch_axis`
            matrix = matrix[..., 0, :, :]
        elif matrix.ndim > 2:
            return _product(matrix, x[..., None], xp)[..., 0]
        return _product(x, xp.matrix_transpose(matrix), xp)

    def _matmat(self, X: Array, xp: Namespace) -> Array:
        return _product(self.matrix, X, xp)

    def _transpose(self) -> Dense:
        return Dense(self._own_namespace().matrix_transpose(self.matrix))

    def _to_dense(self, like: Context) -> Array:
        return copied(self.matrix, like.xp)

    def _inv(self, xp: Namespace) -> LinearOperator:
        with _named("inv"):
            return Dense(dense_inverses(self.matrix, xp))

    def _solve(self, b: Array, xp: Namespace) -> Array:
        with _named("solve"):
            return self._solutions(b, xp)

    def _solutions(self, b: Array, xp: Namespace) -> Array:
        """Return the solutions along the last axis."""
        power_of_two = power_of_two_near(self.matrix, xp, axis=(-2, -1))  # LAPACK loses digits of subnormal numbers
        matrix = self.matrix / power_of_two
        b = b / power_of_two[..., 0]
        if matrix.ndim > 2 and matrix.shape[-3] == 1 and b.ndim > 1:  # the same matrix for all rows, factored once
            rows = dense_solutions(*_alike(matrix[..., 0, :, :], xp.matrix_transpose(b), xp), xp)
            return xp.matrix_transpose(rows)
        if matrix.ndim == 2 and b.ndim > 1:
            columns = xp.matrix_transpose(xp.reshape(b, (prod(b.shape[:-1]), b.shape[-1])))
            solutions = dense_solutions(*_alike(matrix, columns, xp), xp)
            return xp.reshape(xp.matrix_transpose(solutions), b.shape)
        return dense_solutions(*_alike(matrix, b[..., None], xp), xp)[..., 0]

    def _det(self, xp: Namespace) -> Array:
        return xp.linalg.det(self.matrix)

    def _slogdet(self, xp: Namespace) -> tuple[Array, Array]:
        sign, log = xp.linalg.slogdet(self.matrix)
        return sign, log

    def _slogdet_and_error(self, xp: Namespace) -> tuple[Array, Array, Array]:
        """The error is that of rounding each entry, in units of the largest ones of its row and its column."""
        n = self.shape[0]
        matrices = xp.reshape(rules_of(xp).constant(self.matrix), (prod(self.batch_shape), n, n))
        tiny = float(xp.finfo(matrices.dtype).smallest_normal)
        moduli = xp.abs(matrices)
        of_columns = xp.clip(xp.max(moduli, axis=-2, keepdims=True), min=tiny)
        of_rows = xp.max(moduli / of_columns, axis=-1, keepdims=True)
        z = xp.asarray(np.random.default_rng(0).standard_normal((n, VECTORS)), device=device_of(matrices))
        right = of_rows * xp.astype(z, of_rows.dtype)
        x = xp.matrix_transpose(of_columns) * rules_of(xp).elimination(matrices).solve(xp.astype(right, matrices.dtype))
        norm = xp.sqrt(xp.sum(xp.abs(x) ** 2, axis=(-2, -1)) / VECTORS)
        error = 2 * float(xp.finfo(norm.dtype).eps) * norm  # of 160 random ones up to 4.3 times eps times the norm
        return *self._slogdet(xp), xp.reshape(error, self.batch_shape)

    def _determinant_factors(self, xp: Namespace) -> Array:
        return even_factors(*self._slogdet(xp), self.shape[0], xp)

    def _pinv(self, rtol: float, xp: Namespace) -> LinearOperator:
        with _named("pinv"):
            return Dense(xp.linalg.pinv(self.matrix, rtol=rtol))

    def _damped_pinv(self, damp: float, xp: Namespace) -> LinearOperator:
        m, n = self.shape
        damping = damp * xp.eye(n, dtype=self.matrix.dtype, device=device_of(self.matrix))
        damping = xp.broadcast_to(damping, (*self.batch_shape, n, n))
        return Dense(xp.linalg.pinv(xp.concat([self.matrix, damping], axis=-2), rtol=0.0)[..., :, :m])

    def _rounding(self, xp: Namespace) -> float:
        return spectral_rounding(self.dtype, xp, order=max(self.shape))

    def _eig(self, xp: Namespace) -> tuple[Array, LinearOperator]:
        dtype = complex_partner(self.matrix.dtype, xp)
        with _named("eig"):
            values, vectors = xp.linalg.eig(xp.astype(self.matrix, dtype))
        return values, Dense(vectors)

    def _eigvals(self, xp: Namespace) -> Array:
        return self._eig(xp)[0]

    def _svdvals(self, xp: Namespace) -> Array:
        return singular_values(self.matrix, xp)

    def _diagonal(self, xp: Namespace) -> Array:
        return xp.linalg.diagonal(self.matrix)

    def _frobenius(self, xp: Namespace) -> Array:
        return euclidean_norm(self.matrix, xp, axis=(-2, -1))

    def _modulus(self, xp: Namespace) -> LinearOperator:
        return Dense(xp.abs(self.matrix))

    def _row_sums(self, xp: Namespace) -> Array:
        return xp.sum(self.matrix, axis=-1)

    def _block(self, rows: range, cols: range, xp: Namespace) -> Dense:
        return Dense(self.matrix[..., rows.start : rows.stop, cols.start : cols.stop])


@contextmanager
def _named(method: str) -> Iterator[None]:
    """Let errors of NumPy's linear algebra, such as "Singular matrix", say which method had them."""
    try:
        yield
    except np.linalg.LinAlgError as error:
        raise np.linalg.LinAlgError(f"Dense.{method}: {error}") from error


def _alike(A: Array, B: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return two arrays in their common dtype, which some libraries do not find by themselves."""
    if A.dtype == B.dtype:
        return A, B
    dtype = common_dtype(xp, A, B)
    return xp.astype(A, dtype), xp.astype(B, dtype)


def _product(A: Array, B: Array, xp: Namespace) -> Array:
    return matmul(*_alike(A, B, xp), xp)


def as_operators(parts: tuple[Any, ...], owner: str, argument: str) -> tuple[Any, ...]:
    """Return parts of an operator, with a `Dense` in place of each array; errors name the owner and the argument."""
    return tuple(_as_operator(part, owner, argument) for part in parts)


def _as_operator(part: Any, owner: str, argument: str) -> LinearOperator:
    if isinstance(part, LinearOperator):
        return part
    if isinstance(part, list | tuple) and any(isinstance(each, LinearOperator) for each in part):
        text = f"must be structmat operators or arrays, one by one, got them in a {type(part).__name__}"
        raise ArgumentTypeError(owner, argument, text)
    if is_array(part) or isinstance(part, list):
        return Dense(part)
    raise ArgumentTypeError(owner, argument, f"must be structmat operators or arrays, got {type(part).__name__}")


@compose.rule(Dense, Dense)
def _multiply(left: Dense, right: Dense) -> Dense:
    return Dense(_product(left.matrix, right.matrix, left._own_namespace()))
