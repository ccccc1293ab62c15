"""Linear algebra of small dense matrices, alike in all libraries."""

from __future__ import annotations

from typing import Any

import numpy as np

from structmat._arrays.arithmetic import conjugate, real_part
from structmat._arrays.dtypes import is_complex, is_half_precision
from structmat._arrays.libraries import device_of, rules_of
from structmat._arrays.shapes import concat_last
from structmat._arrays.typing import Array, Namespace

ROUNDING_OF_ADJOINT = 64.0
"""How far entries of a matrix may be from those of its adjoint, in units of eps times its largest modulus.

A few operations on the diagonals of a Toeplitz matrix leave up to 8. The inverse of a Gram matrix of 300 random vectors
with 300 entries leaves 33.
"""


def matmul(A: Array, B: Array, xp: Namespace) -> Array:
    """Return the matrix product in the precision of the operands, even where ``torch.autocast`` would lower it."""
    product: Array = xp.matmul(A, B)
    if product.dtype != A.dtype and is_half_precision(product.dtype) and not is_half_precision(A.dtype):
        with xp.autocast(A.device.type, enabled=False):
            product = xp.matmul(A, B)
    return product


def adjoint(matrices: Array, xp: Namespace) -> Array:
    """Return the adjoints of matrices."""
    return xp.matrix_transpose(conjugate(matrices, xp))


def is_hermitian(matrices: Array, xp: Namespace, *, units: float = ROUNDING_OF_ADJOINT) -> Array:
    """Tell which matrices of a stack are Hermitian up to rounding, as `equals_adjoint` does."""
    return equals_adjoint(matrices, adjoint(matrices, xp), xp, core=2, units=units)


def equals_adjoint(
    entries: Array, of_adjoint: Array, xp: Namespace, *, core: int, units: float = ROUNDING_OF_ADJOINT
) -> Array:
    """Tell which matrices of a stack are Hermitian up to rounding, by their entries and those of their adjoints.

    A matrix with NaN or infinity counts as Hermitian: what these make of a result is left to others to report.

    Parameters
    ----------
    entries, of_adjoint : array, shape (..., *core axes)
        What determines a matrix, such as the first column of a Toeplitz matrix, and the same of its adjoint.
    xp : namespace
        Theirs.
    core : int
        The number of axes of one matrix. None of them has length zero.
    units : float
        How far two entries may be apart, in units of eps times the largest modulus.

    Returns
    -------
    array of bool, shape (...)
        No value is looked at, so that arrays may be traced.
    """
    axes = tuple(range(-core, 0))
    if is_complex(entries.dtype, xp) or is_complex(of_adjoint.dtype, xp):  # whose moduli may overflow
        entries, of_adjoint = entries / 2, of_adjoint / 2
    with np.errstate(invalid="ignore", over="ignore"):  # of infinities, and of large entries of opposite signs
        distances = xp.abs(entries - of_adjoint)
    largest = xp.maximum(*(xp.max(xp.abs(each), axis=axes, keepdims=True) for each in (entries, of_adjoint)))
    return xp.all(~(distances > units * float(xp.finfo(entries.dtype).eps) * largest), axis=axes)


def is_exactly_hermitian(matrix: Any) -> bool:
    """Tell whether a matrix of NumPy equals its adjoint, without another array as large; false where it holds NaN."""
    starts = range(0, len(matrix), _ROWS)
    return all(np.array_equal(matrix[k : k + _ROWS], matrix[:, k : k + _ROWS].conj().T) for k in starts)


def hermitian_part(matrices: Array, xp: Namespace) -> Array:
    """Return the Hermitian parts of matrices, whose entries may be as large as numbers are."""
    return matrices / 2 + adjoint(matrices, xp) / 2


def dense_inverses(matrices: Array, xp: Namespace) -> Array:
    """Return the inverses of matrices. For a singular one NumPy raises an error, and torch and JAX give infinities."""
    return rules_of(xp).inverses(matrices)


def dense_solutions(matrices: Array, right: Array, xp: Namespace) -> Array:
    """Return the solutions of systems for the columns of `right`; a singular matrix is treated as by `dense_inverses`.

    `matrices` has shape ``(..., n, n)`` and `right` has shape ``(..., n, k)``.
    """
    return rules_of(xp).solutions(matrices, right)


def cholesky_factors(matrices: Array, xp: Namespace) -> Array:
    """Return lower triangular Cholesky factors.

    For a matrix that is not positive definite NumPy raises an error, and torch and JAX give NaN.
    """
    return rules_of(xp).cholesky_factors(matrices)


def solutions_by_cholesky(L: Array, columns: Array, xp: Namespace) -> Array:
    """Return the solutions of systems with the matrices of lower triangular Cholesky factors."""
    rules = rules_of(xp)
    first = rules.triangular_solutions(L, columns)
    upper = xp.flip(adjoint(L, xp), axis=(-2, -1))  # which is lower triangular
    return xp.flip(rules.triangular_solutions(upper, xp.flip(first, axis=-2)), axis=-2)


_ROWS = 256
"""The rows of a matrix that are compared with its columns at a time."""

VECTORS = 4
"""The random vectors by which errors of factors, and norms of inverses, are measured.

With one, which finds what was overlooked, a direct factor of 4,000 points and uneven noise takes 20.4 ms, with four
22.0; of 100,000 points 0.39 s and 0.43 s.
"""


def signs_for_error(n: int, like: Array, xp: Namespace) -> Array:
    """Return random signs, the same in every call, as vectors of n entries for `measured_error_of_logdet`."""
    signs = np.random.default_rng(0).integers(0, 2, (VECTORS, n)) * 2.0 - 1.0
    return xp.astype(xp.asarray(signs, device=device_of(like)), like.dtype)


def measured_error_of_logdet(z: Array, left: Array, xp: Namespace) -> Array:
    """Return how far off the logarithm of the determinant of K by a factor F may be.

    ``E = K F^-1 - 1`` is the error of the factor, and ``log det K - log det F`` the trace of it, up to half of the
    square of its norm. With vectors z of random signs the mean of ``z^H E z`` is an estimate of the trace, and that of
    ``norm(E z)^2`` one of the square of the norm. Both hold the rounding errors of the products as well, which grow
    with the condition as those of any factor do. For nine covariances of 600 points with noise from 1e-12 to 1 the
    result was 0.2 to 1,500 times the true error, and never below it where that was above 1e-13 of the logarithm.

    Parameters
    ----------
    z : array, shape (..., k, n)
        Vectors of random signs.
    left : array, shape (..., k, n)
        The products E z.
    """
    traces = real_part(xp.sum(z * left, axis=-1), xp)
    spread = xp.var(traces, axis=-1, correction=1) / z.shape[-2]
    square = xp.mean(xp.linalg.vector_norm(left, axis=-1) ** 2, axis=-1)
    return xp.sqrt(xp.mean(traces, axis=-1) ** 2 + spread) + square / 2


def rows_for_error(there: Any) -> Any:
    """Return some rows of a mask of NumPy for `error_of_variances`, the same in every call: of either kind a few."""
    random = np.random.default_rng(0)
    kinds = (np.flatnonzero(there), np.flatnonzero(~there))
    return np.concatenate([random.permutation(rows)[:VECTORS] for rows in kinds])


def error_of_variances(found: Array, whole: Array, b: Array, x: Array, left: Array, xp: Namespace) -> Array:
    """Return how far off some posterior variances are: the largest difference from ``whole - b^H K^-1 b``.

    With the residual r of a solution x of ``K x = b`` that is ``whole - b^H x - x^H r``, up to the square of the error
    of x. Its own rounding error, that of the whole, is added.

    Parameters
    ----------
    found : array, shape (k,)
        The variances.
    whole : array, shape (k,)
        What b explains a part of.
    b, x, left : array, shape (k, n)
        As above, `left` being r.
    """
    explained = real_part(xp.sum(xp.conj(b) * x + xp.conj(x) * left, axis=-1), xp)
    error = xp.abs(found - (whole - explained)) + float(xp.finfo(found.dtype).eps) * whole
    return xp.max(error, axis=-1)


def singular_values(matrices: Array, xp: Namespace) -> Array:
    """Return singular values. They are NaN for a matrix that holds NaN or infinity, which libraries refuse."""
    finite = xp.all(xp.isfinite(matrices), axis=(-2, -1))
    values = xp.linalg.svdvals(xp.where(finite[..., None, None], matrices, xp.zeros_like(matrices)))
    return xp.where(finite[..., None], values, xp.full_like(values, float("nan")))


def even_factors(sign: Array, log: Array, count: int, xp: Namespace) -> Array:
    """Return `count` numbers of equal modulus along a new last axis, whose product is a determinant.

    It is given by its sign and the logarithm of its modulus, as it may be out of range.
    """
    ones = xp.ones((*log.shape, count - 1), dtype=sign.dtype, device=device_of(log))
    return xp.astype(xp.exp(log / count), sign.dtype)[..., None] * concat_last([sign[..., None], ones], xp)
