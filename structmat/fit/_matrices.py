"""What all fits ask of a matrix: its scale, leading singular triplets, weights of errors, the error of a product.

Scales are powers of two, so that nothing is rounded and no square over- or underflows. With second moments ``S = M @
M^H`` of the inputs the weighted error ``norm((W - P) S^(1/2))`` is ``norm(W @ M - P @ M)``: a fit of the products with
the columns of `M`, of which a singular `S` needs no more than its rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._arguments import as_floating, as_matrix
from structmat._arrays.arithmetic import times_power_of_two
from structmat._arrays.conversion import from_numpy, to_numpy
from structmat._arrays.linear_algebra import is_hermitian
from structmat._arrays.namespaces import numpy_namespace
from structmat._errors import ArgumentValueError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from structmat._arrays.typing import Array, ArrayLike
    from structmat.operators import CDDProduct

__all__ = [
    "absolute_square",
    "by_cyclic_diagonals",
    "column_roots",
    "finite_matrix",
    "largest_exponent",
    "leading_triplets",
    "most_spread",
    "product_error",
    "rounding_error",
    "scale_by_power_of_two",
    "second_moment",
    "transposed_circulants",
    "transposed_vectors",
    "truncated_svd",
    "weighted_inputs",
]

_MOMENT = "input_second_moment"

_DENSE_SVD_SIDE = 256
"""Up to this smaller side a full singular value decomposition costs less than iterations."""

_CHUNK_ENTRIES = 1 << 16
"""An error is computed from products with so many entries at a time."""

_SINGLE_ACCURACY = 1e-5
"""The error that rounding may make in products of single precision, relative to the norm of the matrix: see
`most_spread`."""

_DOUBLE_ACCURACY = 1e-12
"""The same for double precision."""


def finite_matrix(W: ArrayLike, owner: str) -> NDArray[Any]:
    """Return a matrix of finite floating-point numbers in NumPy."""
    values = to_numpy(as_matrix(W, owner, "W"))
    if not np.isfinite(values).all():
        raise ArgumentValueError(owner, "W", "must be finite, got NaN or infinity")
    return values


def largest_exponent(x: NDArray[Any]) -> int:
    """Return the binary exponent of the largest real or imaginary part; zero if `x` is zero.

    To divide by ``2**exponent``, by `scale_by_power_of_two`, brings any matrix to a size of one and rounds nothing,
    where a division by the largest entry turns complex numbers near the smallest one into NaN.
    """
    parts = (x.real, x.imag) if np.iscomplexobj(x) else (x,)
    return int(np.frexp(max(max(float(part.max()), -float(part.min())) for part in parts))[1])


def scale_by_power_of_two(x: NDArray[Any], exponent: int) -> NDArray[Any]:
    """Return ``x * 2**exponent``, and for an exponent of zero the array itself, which may be large."""
    return times_power_of_two(x, exponent, numpy_namespace) if exponent else x


def absolute_square(x: NDArray[Any]) -> NDArray[Any]:
    """Return ``abs(x)**2`` without the square root."""
    squares: NDArray[Any] = np.square(x.real) + np.square(x.imag) if np.iscomplexobj(x) else np.square(x)
    return squares


def by_cyclic_diagonals(blocks: NDArray[Any]) -> NDArray[Any]:
    """Return ``out[p, i, q, k] = blocks[p, i, q, (i - k) % m]`` of blocks of m columns."""
    out = np.empty_like(blocks)
    for i in range(blocks.shape[1]):
        out[:, i, :, : i + 1] = blocks[:, i, :, i::-1]
        out[:, i, :, i + 1 :] = blocks[:, i, :, :i:-1]
    return out


def transposed_circulants(c: NDArray[Any]) -> NDArray[Any]:
    """Return the first columns of the transposes of circulants."""
    return np.concatenate((c[..., :1], c[..., :0:-1]), axis=-1)


def transposed_vectors(vectors: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the vectors of the transposed product."""
    return [
        np.ascontiguousarray(transposed_circulants(v).swapaxes(0, 1)) if v.ndim == 3 else v for v in reversed(vectors)
    ]


def rounding_error(dtype: DTypeLike) -> float:
    """Return the relative error up to which a product in closed form is the matrix: there is nothing to search for."""
    return 4.0 * float(np.finfo(dtype).eps)


def most_spread(dtype: DTypeLike) -> float:
    """Return how many times the norm of the matrix the spread of a fit may be, for products of this dtype.

    The *spread* is what rounding errors of products through transforms grow with (see `_alternation`). The bounds, 84
    and 4,500, are never met on matrices that are such products, noisy or not, and on changes of trained weights, which
    have at most 3; elsewhere they cost up to some per cent of the error.
    """
    eps = float(np.finfo(dtype).eps)
    return (_SINGLE_ACCURACY if eps > _DOUBLE_ACCURACY else _DOUBLE_ACCURACY) / eps


def leading_triplets(
    matrix: NDArray[Any], k: int, rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None:
    """Return the `k` largest singular triplets in any order, by Lanczos iterations from a random vector.

    None where these do not converge: a full decomposition always has an answer. Errors of the vectors count in second
    order only.
    """
    from scipy.sparse import linalg  # noqa: PLC0415  # It is slow to import.

    def product(x: NDArray[Any]) -> NDArray[Any]:
        return matrix @ x

    def adjoint(y: NDArray[Any]) -> NDArray[Any]:
        return (matrix.T @ y.conj()).conj()

    dtype = matrix.dtype
    # Given an array, SciPy from 1.18 on would keep a copy of its adjoint.
    operator = linalg.LinearOperator(
        matrix.shape, matvec=product, rmatvec=adjoint, matmat=product, rmatmat=adjoint, dtype=dtype
    )
    v0 = rng.standard_normal(min(matrix.shape)).astype(dtype)
    try:
        u, s, vh = linalg.svds(operator, k=k, tol=float(np.finfo(dtype).eps) ** 0.75, v0=v0)
    except linalg.ArpackError:
        return None
    return u, s, vh


def truncated_svd(
    target: NDArray[Any], rank: int, rng: np.random.Generator, inputs: NDArray[Any] | None = None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return `A` and `B` of `rank` columns with ``A @ B.T``, or ``A @ B.T @ inputs``, nearest to a matrix.

    Columns beyond the rank of the matrix are zero.
    """
    triplets = None
    if min(target.shape) > max(_DENSE_SVD_SIDE, 8 * rank):
        triplets = leading_triplets(target, rank, rng)
    u, s, wh = triplets or np.linalg.svd(target, full_matrices=False)
    order = np.argsort(-s)[:rank]
    roots = np.sqrt(np.where(s[order] > np.finfo(s.dtype).eps * s[order[0]], s[order], 0.0))
    # The right singular vectors are combinations of the rows of the inputs.
    right = wh[order].T if inputs is None else np.linalg.lstsq(inputs.T, wh[order].T, rcond=None)[0]
    A, B = np.zeros((len(u), rank), target.dtype), np.zeros((len(right), rank), target.dtype)
    A[:, : len(order)], B[:, : len(order)] = u[:, order] * roots, right * roots
    return A, B


def product_error(
    operator: CDDProduct,
    matrix: Array,
    target: NDArray[Any],
    *,
    exponent: int = 0,
    inputs: NDArray[Any] | None = None,
    entry_weights: NDArray[Any] | None = None,
) -> float:
    """Return the error of a fit as its users meet it: through its products, in their library and precision.

    This is ``norm(target - 2**-exponent * (operator @ inputs)) / norm(target)``, 0.0 for a target of zeros.

    Parameters
    ----------
    operator : CDDProduct
        Of shape (rows, cols).
    matrix : array
        Tells the library, dtype and device of the products.
    target : (rows, k) ndarray
    exponent : int, default 0
    inputs : (cols, k) or (cols,) ndarray, optional
        A vector stands for the matrix with this diagonal; the identity by default.
    entry_weights : (rows, k) ndarray, optional
        Weights of the squared entries in both norms.
    """
    rows, cols = operator.shape
    width = max(1, _CHUNK_ENTRIES // max(rows, cols))
    lost = norm2 = 0.0
    for start in range(0, target.shape[1], width):
        part = slice(start, min(start + width, target.shape[1]))
        if inputs is None or inputs.ndim == 1:
            x = np.eye(cols, part.stop - start, -start)
            x = x if inputs is None else x * inputs[:, None]
        else:
            x = inputs[:, part]
        wanted = target[:, part]
        weights: Any = 1.0 if entry_weights is None else entry_weights[:, part]
        with np.errstate(over="ignore", invalid="ignore"):
            y = to_numpy(operator @ from_numpy(x, matrix))
            # Complex factors of a real matrix leave imaginary parts.
            residual = wanted - scale_by_power_of_two(y.astype(np.result_type(y, np.float64)), -exponent)
            if entry_weights is not None:  # A missing entry does not count, also where the product is out of range.
                residual = np.where(weights > 0, residual, 0.0)
            lost += float(np.sum(absolute_square(residual) * weights))
        norm2 += float(np.sum(absolute_square(wanted.astype(np.result_type(wanted, np.float64))) * weights))
    if norm2 == 0.0:
        return 0.0
    return float(np.sqrt(lost / norm2)) if np.isfinite(lost) else np.inf


def second_moment(value: ArrayLike, cols: int, owner: str) -> NDArray[Any]:
    """Return second moments, or the diagonal of them, in NumPy."""
    moment = to_numpy(as_floating(value, owner, _MOMENT))
    if moment.shape not in {(cols,), (cols, cols)}:
        text = f"must have shape ({cols},) or ({cols}, {cols}), got {moment.shape}"
        raise ArgumentValueError(owner, _MOMENT, text)
    if not np.isfinite(moment).all():
        raise ArgumentValueError(owner, _MOMENT, "must be finite, got NaN or infinity")
    if not moment.any():
        raise ArgumentValueError(owner, _MOMENT, "must not be zero")
    return moment


def column_roots(moment: NDArray[Any], owner: str) -> NDArray[Any]:
    """Return the square roots of the diagonal of second moments, in double precision and scaled to a largest of one."""
    scaled, _ = _scaled(moment)
    if np.iscomplexobj(scaled) or scaled.min() < 0.0:
        raise ArgumentValueError(owner, _MOMENT, "must be real and not negative where it is a vector")
    roots: NDArray[Any] = np.sqrt(scaled)
    return roots


def weighted_inputs(moment: NDArray[Any], owner: str, *, real: bool) -> NDArray[Any]:
    """Return `M`, in double precision, scaled to a largest entry of order one; real if the matrix is to be `real`.

    Parameters
    ----------
    moment : (cols,) or (cols, cols) ndarray
        As `second_moment` returns it.
    owner : str
        Whose argument that is.
    real : bool
        Whether the matrix to be fitted is real.
    """
    if moment.ndim == 1:
        roots = column_roots(moment, owner)
        return np.diag(roots)[:, roots > 0]
    scaled, largest = _scaled(moment)
    rounding = 10.0 * len(moment) * float(np.finfo(moment.dtype).eps)
    if not is_hermitian(moment, numpy_namespace, units=10.0 * len(moment)):
        raise ArgumentValueError(owner, _MOMENT, "must be a symmetric (Hermitian) matrix")
    if real and np.iscomplexobj(scaled):
        # Of a real residual only the real part of S, symmetric and positive semi-definite too, matters.
        scaled = np.ascontiguousarray(scaled.real)
    values, vectors = np.linalg.eigh(scaled)
    if values[0] < -rounding * values[-1]:
        text = f"must be positive semi-definite, got the eigenvalue {values[0] * largest:.6g}"
        raise ArgumentValueError(owner, _MOMENT, text)
    # A higher threshold would lose more than noise: a product may do anything in the directions that are left out.
    kept = values > float(np.finfo(moment.dtype).eps) * values[-1]
    root: NDArray[Any] = vectors[:, kept] * np.sqrt(values[kept])
    return root


def _scaled(moment: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """Return second moments, in double precision, divided by the largest modulus of them, and that modulus."""
    largest = float(np.abs(moment).max())
    return moment.astype(np.result_type(moment.dtype, np.float64)) / largest, largest
