"""The constructions that reproduce a matrix of any size, and which of them is taken.

A construction is one entry of what `constructions` returns: a name, its number of factors and what makes them. They are
tried in that order until one is accurate; otherwise the most accurate is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from structmat.fit._control import seconds_left
from structmat.fit._exact.cyclic_band import cyclic_band, factor_cyclic_band, factor_real_cyclic_band, whole_matrix
from structmat.fit._exact.deflation import has_extended_precision
from structmat.fit._exact.forms import Factorisation, Form, to_product
from structmat.fit._exact.low_rank import Triplets, factor_low_rank, factor_real_low_rank, singular_triplets
from structmat.fit._exact.mixing import Mixing
from structmat.fit._exact.pencil import factor_matrix, factor_real_matrix
from structmat.fit._exact.plain_band import bandwidths, factor_plain_band
from structmat.fit._exact.real_rotations import factor_real_by_rotations
from structmat.fit._exact.unitary import factor_by_singular_vectors, factor_unitary, is_unitary
from structmat.fit._result import FitProgress

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Construction", "construct", "constructions"]

# The rank up to which a matrix has low rank, as a share of its side, and the error that its singular vectors or its
# cyclic diagonals may leave.
_LOW_RANK, _STRUCTURE_ERROR = 4, 1e-14

# Up to this side all null sequences of the polynomial of least degree are found, in a third of a second.
_LEAST_DEGREE_SIDE = 64

# Random phases that are tried before the most accurate product is taken, and what their names end with.
_MIXINGS, _RANDOM_PHASES = 3, ", random phases"

# Constructions that have no use for long double.
_IN_DOUBLE = {"rotations", "unitary"}

# The error on random vectors at which real factors are accepted, so that theirs is below 1e-12.
_REAL_ERROR = 7e-13

# Beyond this side ``3n + 1`` real factors are never as accurate, and come last.
_FEW_REAL_SIDE = 32

# Up to this side long double costs about a second, and is used whatever the tolerance.
_EXTENDED_SIDE = 256

# Random vectors that tell the error of a product up to a tenth or two.
_PROBES = 16

_EPS = float(np.finfo(np.float64).eps)


_Vectors: TypeAlias = "list[NDArray[Any]] | None"


class Construction(NamedTuple):
    """One way to construct a product."""

    name: str
    n_factors: int
    """The most factors that it takes."""
    fewest: int
    """The number of factors that may be found by a search."""
    usual: float
    """An error up to which structure of `W` is not to blame, and other random phases are no remedy."""
    make: Callable[[np.random.Generator, bool], _Vectors]
    """Returns the vectors, computed in long double or not, or nothing where structure of W would spoil their digits."""


def constructions(W: NDArray[Any], *, real: bool = False) -> list[Construction]:
    """Return the constructions for `W`, of `real` factors or any: a unitary one, then those of fewest factors first.

    Those of random phases come next to what they are the remedy of.
    """
    n = len(W)
    whole, of_rank, of_band = _REAL_WAYS if real else _WAYS
    count = 3 * n + 1 if real else 2 * n + 1
    usual = _usual_real_error(n) if real else 0.0
    choices = _with_random_phases(
        Construction("generic", count, n + 1, usual, lambda _, extended: whole(W, extended=extended)),
        partial(_mixed, whole, W, real),
    )
    if (triplets := singular_triplets(W, n // _LOW_RANK, _STRUCTURE_ERROR)) is not None:
        rank = len(triplets[1])
        count, few = 6 * rank + 3 if real else 4 * rank + 3, 2 * rank + 1
        choices += _with_random_phases(
            Construction(f"rank {rank}", count, few, usual, lambda _, extended: of_rank(triplets, extended=extended)),
            partial(_mixed_low_rank, of_rank, triplets, real),
        )
    if (widths := bandwidths(W)) is not None:
        name, count = f"{sum(widths) + 1} cyclic diagonals", 2 * sum(widths) + 1
        eliminate = partial(factor_plain_band, W, *widths)
        choices.append(Construction(name, count, count, 0.0, lambda _, extended: eliminate(extended=extended)))
    if (band := cyclic_band(W, _STRUCTURE_ERROR)) is not None:
        degree = len(band.coefficients) - 1
        name, count = f"{degree + 1} cyclic diagonals", 3 * degree + 1 if real else 2 * degree + 1
        choices.append(Construction(name, count, count, usual, lambda _, extended: of_band(band, extended=extended)))
    if not real and 1 < n <= _LEAST_DEGREE_SIDE:
        least = whole_matrix(W)
        choices.append(
            Construction(
                "generic", 2 * n - 1, n + 1, 0.0, lambda _, extended: factor_cyclic_band(least, extended=extended)
            )
        )
    if real:
        choices += _with_random_phases(
            Construction("rotations", 8 * n + 5, n + 1, 0.0, lambda _rng, _: factor_real_by_rotations(W)),
            partial(_mixed, lambda M, **_: factor_real_by_rotations(M), W, real),
        )
    elif n % 2 == 0:
        choices.append(Construction("rotations", 4 * n + 9, n + 1, 0.0, lambda _rng, _: factor_by_singular_vectors(W)))
    hopeless = real and n > _FEW_REAL_SIDE
    choices.sort(key=lambda choice: (hopeless and choice.name.startswith("generic"), choice.n_factors))
    if not real and n % 2 == 0 and is_unitary(W):
        choices.insert(0, Construction("unitary", 2 * n + 5, n + 1, 0.0, lambda _rng, _: factor_unitary(W)))
    return choices


def _with_random_phases(construction: Construction, make: Callable[..., _Vectors]) -> list[Construction]:
    name, count = f"{construction.name}{_RANDOM_PHASES}", construction.n_factors + 4
    return [construction, *[construction._replace(name=name, n_factors=count, make=make)] * _MIXINGS]


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

    The error is compared with what rounding leaves for a matrix without structure, and with what is aimed at if that is
    less: then a longer product may be more accurate. Up to n factors need no more than what is aimed at.
    """
    n = len(W)
    usual = _usual_error(n, extended=False)
    # Long double is of use where it reaches what is aimed at, or where there is nothing else.
    reached = n % 2 == 1 or 2 * target_error >= _usual_error(n, extended=True)
    precise = n <= _EXTENDED_SIDE or (not real and target_error < usual and reached)
    extended = precise and has_extended_precision()
    usual = _usual_error(n, extended=extended)
    accepted = max(usual, _REAL_ERROR) if real else usual
    probes = rng.standard_normal((n, _PROBES))
    target = W @ probes
    choices = [c for c in choices if n_factors is None or c.n_factors <= n_factors]
    found: list[tuple[float, Form]] = []
    notes, stopped = [], "completed"
    no_remedy = ""
    for tried, construction in enumerate(choices, start=1):
        if construction.name == no_remedy:
            continue
        vectors = construction.make(rng, extended)
        if vectors is None:
            notes.append(f"{construction.name} not used: structure of W would spoil its digits")
            continue
        form = Form(construction.name, "diagonal", vectors, shifts=True)
        error = _error_on(probes, target, form)
        found.append((error, form))
        if callback is not None:
            _report(callback, construction, tried, len(choices), [error for error, _ in found], deadline)
        # Few factors that reproduce W are worth more than digits beyond.
        if error <= (max(accepted, target_error) if construction.n_factors <= n else min(accepted, target_error)):
            break
        if error <= max(accepted, construction.usual):
            no_remedy = construction.name.removesuffix(_RANDOM_PHASES) + _RANDOM_PHASES
        notes.append(f"{construction.name} left an error of {error:.1e}")
        if time.monotonic() >= deadline:
            stopped = "time limit"
            notes.append("the time limit ended the trials")
            break
    return _most_accurate(found, notes, stopped, real=real, extended=extended)


def _most_accurate(
    found: list[tuple[float, Form]], notes: list[str], stopped: str, *, real: bool, extended: bool
) -> Factorisation | None:
    if not found:
        return None
    error, form = min(found, key=lambda one: one[0])
    precision = "long double" if extended and form.name.split(",")[0] not in _IN_DOUBLE else "double"
    field = "real" if real else "complex"
    factors = f"{len(form.vectors)} {field} factors by construction, in {precision} precision"
    return Factorisation(form, [error], "construction", "; ".join([factors, *notes]), stopped)


def _error_on(probes: NDArray[Any], target: NDArray[Any], form: Form) -> float:
    with np.errstate(all="ignore"):
        error = float(np.linalg.norm(to_product(form) @ probes - target) / np.linalg.norm(target))
    return error if np.isfinite(error) else np.inf


def _report(
    callback: Callable[[FitProgress], object],
    construction: Construction,
    tried: int,
    total: int,
    errors: list[float],
    deadline: float,
) -> None:
    state = ("construction", construction.n_factors, min(errors), seconds_left(deadline))
    callback(FitProgress(construction.name, tried, total, errors[-1], *state))


def _usual_error(n: int, *, extended: bool) -> float:
    """Return an error that matrices without structure stay below, with a margin of about two.

    Products of that many factors lose n digits of the last place by themselves; the division by null sequences loses
    a tenth of n**2, unless it is done in long double.
    """
    return _EPS * (100 + 15 * n + (0.0 if extended else 0.13 * n**2))


def _usual_real_error(n: int) -> float:
    """Return the same for real factors, each of which has entries of a size of 1 / n beside those of a size of one."""
    return _EPS * (2000 + 2.0 * n**3)
