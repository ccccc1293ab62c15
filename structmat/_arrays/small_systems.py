"""Stacks of small dense systems, without the errors that some libraries raise for singular ones, or for NaN."""

from __future__ import annotations

from typing import Any

from structmat._arrays.namespaces import library_of
from structmat._arrays.typing import Array, Namespace

__all__ = ["inverses", "singular_values", "solutions"]


def inverses(matrices: Array, xp: Namespace) -> Array:
    """Return the inverses of matrices, infinite for a singular one; with NumPy that is an error."""
    if library_of(xp) != "torch":
        return xp.linalg.inv(matrices)
    torch: Any = xp.linalg
    found, failures = torch.inv_ex(matrices)
    return _or_infinite(found, failures, xp)


def solutions(matrices: Array, right: Array, xp: Namespace) -> Array:
    """Return the solutions of systems for the columns of `right`, infinite for a singular matrix, as `inverses`."""
    if library_of(xp) != "torch":
        return xp.linalg.solve(matrices, right)
    torch: Any = xp.linalg
    found, failures = torch.solve_ex(matrices, right)
    return _or_infinite(found, failures, xp)


def singular_values(matrices: Array, xp: Namespace) -> Array:
    """Return singular values, NaN for a matrix with NaN or infinity, which libraries refuse."""
    finite = xp.all(xp.isfinite(matrices), axis=(-2, -1))
    values = xp.linalg.svdvals(xp.where(finite[..., None, None], matrices, xp.zeros_like(matrices)))
    return xp.where(finite[..., None], values, xp.full_like(values, float("nan")))


def _or_infinite(found: Array, failures: Any, xp: Namespace) -> Array:
    return xp.where((failures > 0)[..., None, None], xp.full_like(found, float("inf")), found)
