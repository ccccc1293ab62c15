"""Stacks of small dense systems, without the errors that torch alone raises for singular ones."""

from __future__ import annotations

from typing import Any

from structmat._arrays.namespaces import library_of
from structmat._arrays.typing import Array, Namespace

__all__ = ["inverses", "solutions"]


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


def _or_infinite(found: Array, failures: Any, xp: Namespace) -> Array:
    return xp.where((failures > 0)[..., None, None], xp.full_like(found, float("inf")), found)
