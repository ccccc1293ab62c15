"""Linear algebra of small dense matrices, alike in all libraries."""

from __future__ import annotations

from structmat._arrays.dtypes import is_half_precision
from structmat._arrays.libraries import library_of
from structmat._arrays.typing import Array, Namespace


def matmul(A: Array, B: Array, xp: Namespace) -> Array:
    """Return the matrix product in the precision of the operands, under ``torch.autocast`` too."""
    product: Array = xp.matmul(A, B)
    if is_half_precision(product.dtype) and not is_half_precision(A.dtype):
        with xp.autocast(A.device.type, enabled=False):
            product = xp.matmul(A, B)
    return product


def dense_inverses(matrices: Array, xp: Namespace) -> Array:
    """Return the inverses of matrices, infinite for a singular one; with NumPy that is an error."""
    return _or_infinite("inv", xp, matrices)


def dense_solutions(matrices: Array, right: Array, xp: Namespace) -> Array:
    """Return the solutions of systems for the columns of `right`, infinite for a singular matrix, as `inverses`."""
    return _or_infinite("solve", xp, matrices, right)


def _or_infinite(function: str, xp: Namespace, *matrices: Array) -> Array:
    """Return what a function of linear algebra finds, infinite where torch, which is asked not to raise, finds none."""
    if library_of(xp) != "torch":
        return getattr(xp.linalg, function)(*matrices)
    found, failures = getattr(xp.linalg, f"{function}_ex")(*matrices)
    return xp.where((failures > 0)[..., None, None], xp.full_like(found, float("inf")), found)


def singular_values(matrices: Array, xp: Namespace) -> Array:
    """Return singular values, NaN for a matrix with NaN or infinity, which libraries refuse."""
    finite = xp.all(xp.isfinite(matrices), axis=(-2, -1))
    values = xp.linalg.svdvals(xp.where(finite[..., None, None], matrices, xp.zeros_like(matrices)))
    return xp.where(finite[..., None], values, xp.full_like(values, float("nan")))
