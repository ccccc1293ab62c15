"""The constructions that reproduce a matrix of any size, and which of them is taken.

A construction is one entry of what `constructions` returns: a name, its number of factors and what makes them. They are
tried in that order until one is as accurate as such a product can be; otherwise the most accurate is taken.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from structmat.fit._exact.cyclic_band import cyclic_band, factor_cyclic_band, factor_real_cyclic_band
from structmat.fit._exact.deflation import has_extended_precision
from structmat.fit._exact.exact_search import Factorisation
from structmat.fit._exact.low_rank import Triplets, factor_low_rank, factor_real_low_rank, singular_triplets
from structmat.fit._exact.mixing import Mixing
from structmat.fit._exact.pencil import factor_matrix, factor_real_matrix
from structmat.fit._exact.recognisers import Form
from structmat.fit._result import FitProgress
from structmat.operators import BandedCirculant, CDDProduct, Circulant, Diagonal

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Construction", "construct", "constructions", "to_product"]

# The rank up to which a matrix has low rank, as a share of its side, and the error that its singular vectors or its
# cyclic diagonals may leave.
_LOW_RANK, _STRUCTURE_ERROR = 4, 1e-14

# Random phases that are tried before the most accurate product is taken.
_MIXINGS = 3

# Up to this side long double costs about a second, and is used whatever the tolerance.
_EXTENDED_SIDE = 256

# Random vectors that tell the error of a product up to a tenth or two.
_PROBES = 16

# Up to so many diagonals circulants are applied by shifts.
_SHIFTED = 3

_EPS = float(np.finfo(np.float64).eps)


_Vectors: TypeAlias = "list[NDArray[Any]] | None"


class Construction(NamedTuple):
    """One way to construct a product."""

    name: str
    n_factors: int
    """The most factors that it takes."""
    fewest: int
    """The number of factors that may be found by a search."""
    make: Callable[[np.random.Generator, bool], _Vectors]
    """Returns the vectors, computed in long double or not, or nothing where structure of W would spoil their digits."""


def constructions(W: NDArray[Any], *, real: bool = False) -> list[Construction]:
    """Return the constructions for `W`, of `real` factors or any, those of fewest factors first."""
    n = len(W)
    whole, of_rank, of_band = _REAL_WAYS if real else _WAYS
    count = 3 * n + 1 if real else 2 * n + 1
    choices = [
        Construction("generic", count, n + 1, lambda _, extended: whole(W, extended=extended)),
        *[Construction("generic, random phases", count + 4, n + 1, partial(_mixed, whole, W, real))] * _MIXINGS,
    ]
    if (triplets := singular_triplets(W, n // _LOW_RANK, _STRUCTURE_ERROR)) is not None:
        rank = len(triplets[1])
        name, few = f"rank {rank}", 2 * rank + 1
        count = 6 * rank + 3 if real else 4 * rank + 3
        mixed = partial(_mixed_low_rank, of_rank, triplets, real)
        choices += [
            Construction(name, count, few, lambda _, extended: of_rank(triplets, extended=extended)),
            *[Construction(f"{name}, random phases", count + 4, few, mixed)] * _MIXINGS,
        ]
    if (band := cyclic_band(W, _STRUCTURE_ERROR)) is not None:
        degree = len(band.coefficients) - 1
        count = 3 * degree + 1 if real else 2 * degree + 1
        name = f"{degree + 1} cyclic diagonals"
        choices.append(Construction(name, count, count, lambda _, extended: of_band(band, extended=extended)))
    return sorted(choices, key=lambda choice: choice.n_factors)


_WAYS = (factor_matrix, factor_low_rank, factor_cyclic_band)
_REAL_WAYS = (factor_real_matrix, factor_real_low_rank, factor_real_cyclic_band)


def _mixed(
    whole: Callable[..., _Vectors], W: NDArray[Any], real: bool, rng: np.random.Generator, extended: bool
) -> _Vectors:
    mixing = Mixing.draw(len(W), rng, real=real)
    return mixing.around(whole(mixing.mixed(W), extended=extended))


def _mixed_low_rank(
    of_rank: Callable[..., _Vectors], triplets: Triplets, real: bool, rng: np.random.Generator, extended: bool
) -> _Vectors:
    u, s, v = triplets
    mixing = Mixing.draw(len(u), rng, real=real)
    return mixing.around(of_rank((mixing.left(u), s, mixing.right(v)), extended=extended))


def construct(
    W: NDArray[Any],
    choices: list[Construction],
    n_factors: int | None,
    target_error: float,
    rng: np.random.Generator,
    *,
    real: bool = False,
    deadline: float,
    callback: Callable[[FitProgress], object] | None,
) -> Factorisation | None:
    """Return a product by one of the `choices`, of at most `n_factors` factors, or nothing where none has so few.

    The error is compared with what rounding leaves for a matrix without structure, whatever is aimed at: more of it
    means that structure spoilt digits, and another construction, with random phases, will not. Up to n factors need no
    more than what is aimed at.
    """
    n = len(W)
    precise = n <= _EXTENDED_SIDE or (not real and target_error < _usual_error(n, extended=False))
    extended = precise and has_extended_precision()
    usual = _usual_real_error(n) if real else _usual_error(n, extended=extended)
    probes = rng.standard_normal((n, _PROBES))
    target = W @ probes
    choices = [c for c in choices if n_factors is None or c.n_factors <= n_factors]
    best: tuple[float, Form] | None = None
    notes, stopped = [], "completed"
    try:
        for tried, construction in enumerate(choices, start=1):
            vectors = construction.make(rng, extended)
            if vectors is None:
                notes.append(f"{construction.name} not used: structure of W would spoil its digits")
                continue
            form = Form(construction.name, "diagonal", vectors, shifts=True)
            with np.errstate(all="ignore"):
                error = float(np.linalg.norm(to_product(form) @ probes - target) / np.linalg.norm(target))
            error = error if np.isfinite(error) else np.inf
            if best is None or error < best[0]:
                best = (error, form)
            if callback is not None:
                left = None if deadline == math.inf else max(deadline - time.monotonic(), 0.0)
                state = ("construction", construction.n_factors, best[0], left)
                callback(FitProgress(construction.name, tried, len(choices), error, *state))
            # Few factors that reproduce W are worth more than digits beyond.
            if error <= (max(usual, target_error) if construction.n_factors <= n else usual):
                break
            notes.append(f"{construction.name} left an error of {error:.1e}")
            if time.monotonic() >= deadline:
                stopped = "time limit"
                notes.append("the time limit ended the trials")
                break
    except KeyboardInterrupt:
        if best is None:
            raise
        stopped = "interrupted"
        notes.append("an interrupt ended the trials")
    if best is None:
        return None
    precision = "long double" if extended else "double"
    message = "; ".join(
        [
            f"{len(best[1].vectors)} {'real' if real else 'complex'} factors by construction, in {precision} precision",
            *notes,
        ]
    )
    return Factorisation(best[1], [best[0]], "construction", message, stopped)


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


def _usual_error(n: int, *, extended: bool) -> float:
    """Return an error that matrices without structure stay below, with a margin of about two.

    Products of that many factors lose n digits of the last place by themselves; the division by null sequences loses
    a tenth of n**2, unless it is done in long double.
    """
    return _EPS * (100 + 15 * n + (0.0 if extended else 0.13 * n**2))


def _usual_real_error(n: int) -> float:
    """Return the same for real factors, each of which has entries of a size of 1 / n beside those of a size of one."""
    return _EPS * (2000 + 2.0 * n**3)
