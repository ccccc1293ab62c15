"""The list of starts of a fit of three factors."""

from __future__ import annotations

from structmat.fit._three_factors.basic_starts import Start, circulant_start, diagonal_start, rank_one_start
from structmat.fit._three_factors.shift_synchronisation_start import shift_synchronisation_start

__all__ = ["CLOSED_FORMS", "STARTS"]

# All of these run on every matrix: they are what the fit must never be worse than.
CLOSED_FORMS: tuple[tuple[str, Start], ...] = (
    ("circulant", circulant_start),
    ("diagonal", diagonal_start),
    ("rank-one", rank_one_start),
)

# These come next, while the best is not exact.
STARTS: tuple[tuple[str, Start], ...] = (("shift-synchronisation", shift_synchronisation_start),)
