"""What is found: a product as plain vectors, how it was found, and the operator that it makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmat.operators import BandedCirculant, CDDProduct, Circulant, Diagonal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.operators import FactorKind

__all__ = ["Factorisation", "Form", "to_product"]

# Up to so many diagonals circulants are applied by shifts.
_SHIFTED = 3


class Form(NamedTuple):
    """A candidate: diagonals and first columns, and what they are called."""

    name: str
    first: FactorKind
    vectors: list[NDArray[Any]]
    shifts: bool = False
    """Whether circulants of two diagonals are to be applied by shifts."""


class Factorisation(NamedTuple):
    """A product and how it was found."""

    form: Form
    history: list[float]
    solver: str
    message: str
    stopped: str = "completed"


def to_product(form: Form) -> CDDProduct:
    """Return the product of a form; its circulants of few diagonals shift if the form says so."""
    if not form.shifts:
        return CDDProduct.from_vectors(*form.vectors, first=form.first)
    factors: list[Diagonal | Circulant | BandedCirculant] = []
    for place, vector in enumerate(form.vectors):
        if (place % 2 == 0) == (form.first == "diagonal"):
            factors.append(Diagonal(vector))
        elif (span := _span(vector)) is not None:
            start, entries = span
            factors.append(BandedCirculant(entries, len(vector), start))
        else:
            factors.append(Circulant(vector))
    return CDDProduct(tuple(factors))


def _span(vector: NDArray[Any]) -> tuple[int, NDArray[Any]] | None:
    """Return where the nonzero entries of a first column begin and what they are, if few beside the first one."""
    n = len(vector)
    used = np.flatnonzero(vector[1:]) + 1
    used = np.sort(np.append(np.where(used > n // 2, used - n, used), 0))
    start, last = int(used[0]), int(used[-1])
    few = last - start < min(n, _SHIFTED)
    return (start, vector[np.arange(start, last + 1)]) if few else None
