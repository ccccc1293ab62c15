"""The search for a product that reproduces a matrix: joint second-order steps from one random start after the other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat.fit._control import seconds_left
from structmat.fit._exact.forms import Factorisation, Form
from structmat.fit._many_factors.descent import State
from structmat.fit._many_factors.diagonal_forms import DiagonalForms
from structmat.fit._many_factors.equalisation import equalise
from structmat.fit._many_factors.levenberg_marquardt import steps
from structmat.fit._result import FitProgress

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["search"]

# The search for matrices of full rank begins at the counting bound up to a side where an iteration takes well below a
# second. For larger ones it begins this share of the rest of the side higher, where far fewer iterations do.
_CHEAP_SIDE, _HIGHER = 40, 0.3
# Real factors are mostly found from so many above the bound on.
_HIGHER_REAL = 2

# The most iterations from one start, as a constant and a multiple of the side. At the counting bound a run takes some
# 10 n iterations, from three factors above it on a third of that.
_ITERATIONS, _ITERATIONS_PER_SIDE = 150, 12

# Matrices with singular values below this share of the largest one need the way in that equalises them, which takes up
# to as many iterations again; without, those of a condition of 1e8 end near 1e-7. It asks for as many factors as a
# generic matrix needs.
_EQUALISED = 1e-6

# A run that has not halved its error within this number of iterations, again with a multiple of the side, is given up.
_PATIENCE, _PATIENCE_PER_SIDE = 60, 4

# So is one with too few factors for a generic matrix, after this many iterations that took less than this share off. It
# either falls at once or never, and the more starts the better: planted products are found from one in 20 (n = 10) to
# one in hundreds to a thousand (n = 16).
_SHORT_PATIENCE, _SHORT_PROGRESS = 25, 0.01

# Starts for a given number of factors, unless a time limit sets how many; numbers of factors tried if that is free.
_RESTARTS, _LENGTHS = 6, 9

# An iteration costs the cube of the number of unknowns. Where it may take longer than a small part of a second, one on
# a problem of no more unknowns than this tells how long.
_TIMED_UNKNOWNS = 1100

# Steps converge quadratically in the end: once the tolerance is met, a few more take the error to this share of it.
_AIM, _LAST_STEPS = 1e-2, 3


def search(
    W: NDArray[Any],
    n_factors: int | None,
    target_error: float,
    rng: np.random.Generator,
    *,
    real: bool = False,
    deadline: float,
    callback: Callable[[FitProgress], object] | None,
) -> Factorisation:
    """Levenberg-Marquardt from one random start after the other, each with one more factor if their number is free.

    The factors are `real` or complex.
    """
    n = len(W)
    s = np.linalg.svd(W, compute_uv=False)
    name, lengths = _generic_form(W, s, target_error, higher=_HIGHER_REAL if real else 0)
    if n_factors is not None:
        lengths = [n_factors] * _RESTARTS if deadline == math.inf else repeat(n_factors)
    per_phase = _ITERATIONS + _ITERATIONS_PER_SIDE * n
    best, best_history = _random_chain(W, n_factors or n + 1, rng, real=real), [math.inf]
    runs, reason, stopped = 0, "no start met the tolerance", "completed"
    for length in lengths:
        runs += 1
        history: list[float] = []
        equalising = bool(s[-1] < _EQUALISED * s[0] and length > n)
        most, before = per_phase * (1 + equalising), 0
        seconds, begun = 0.0 if deadline == math.inf else _iteration_seconds(n, length, rng), time.monotonic()
        for state, preparing in _descent(W, _random_chain(W, length, rng, real=real), per_phase * equalising):
            if state.error < best_history[-1]:
                best, best_history = state.chain, history
            history.append(min([state.error, *history[-1:]]))
            if callback is not None and len(history) > 1:
                least = min(best_history[-1], history[-1])
                left = seconds_left(deadline)
                callback(FitProgress(name, len(history) - 1, most, history[-1], "search", length, least, left))
            before += preparing
            now = time.monotonic()
            seconds, begun = (seconds if len(history) == 1 else now - begun), now
            if (
                (not preparing and (state.stationary or _ended(history[before:], state.chain, target_error)))
                or len(history) > most
                or now + seconds >= deadline
            ):
                break
        if best_history[-1] <= target_error:
            reason = "it met the tolerance"
            break
        if time.monotonic() + seconds >= deadline:
            reason, stopped = "the time limit ended the search", "time limit"
            break
    message = f"{len(best.x)} {'real' if real else 'complex'} factors, start {runs}: {reason}"
    return Factorisation(
        Form(name, "diagonal", best.to_vectors()), best_history, "levenberg-marquardt", message, stopped
    )


def _iteration_seconds(n: int, length: int, rng: np.random.Generator) -> float:
    """Return about how long an iteration takes, measured on a problem of fewer unknowns; 0 for small ones."""
    part = 1
    while n * length > _TIMED_UNKNOWNS * part**2:
        part *= 2
    if part == 1:
        return 0.0
    side, count = n // part, max(length // part, 1)
    iterations = steps(rng.standard_normal((side, side)), _random_chain(np.eye(side), count, rng, real=False))
    next(iterations)
    begun = time.monotonic()
    next(iterations)
    return (time.monotonic() - begun) * (n * length / (side * count)) ** 3


def _descent(W: NDArray[Any], chain: DiagonalForms, equalising: int) -> Iterator[tuple[State, bool]]:
    """One iteration after the other, at most so many of them `equalising`, and whether it was one of these."""
    for state in islice(equalise(W, chain), equalising):
        chain = state.chain
        yield state, True
    for state in steps(W, chain):
        yield state, False


def _generic_form(W: NDArray[Any], s: NDArray[Any], target_error: float, *, higher: int) -> tuple[str, Iterable[int]]:
    """What `W` with the singular values `s` is called, and numbers of factors for one start after the other."""
    n = len(W)
    left = np.sqrt(np.cumsum(s[::-1] ** 2))[::-1]
    rank = int(np.count_nonzero(left > _AIM * target_error * left[0]))
    if 2 * rank < n:
        # The counting bound, where a second start is worth while, up to the bound that is proven.
        return f"rank {rank}", [2 * rank + 1, *range(2 * rank + 1, 4 * rank + 2)]
    name = "Toeplitz" if np.array_equal(W[1:, 1:], W[:-1, :-1]) else "generic"
    least = n + 1 + higher + max(0, int(_HIGHER * (n - _CHEAP_SIDE)))
    return name, range(least, least + _LENGTHS)


def _ended(history: list[float], chain: DiagonalForms, target_error: float) -> bool:
    """Whether a run has what it came for, or makes too little progress to get there."""
    if history[-1] <= _AIM * target_error or (len(history) > _LAST_STEPS and history[-1 - _LAST_STEPS] <= target_error):
        return True
    length, n = chain.x.shape
    patience, share = _PATIENCE + _PATIENCE_PER_SIDE * n, 0.5
    if length <= n:
        patience, share = _SHORT_PATIENCE, _SHORT_PROGRESS
    return len(history) > patience and history[-1] > (1.0 - share) * history[-1 - patience]


def _random_chain(W: NDArray[Any], length: int, rng: np.random.Generator, *, real: bool) -> DiagonalForms:
    """Factors of random phases; one of them has the singular values of `W` for moduli, so that the product has them.

    Real ones are signs and orthogonal circulants. The singular values bring matrices of low rank within a few
    iterations, and cost others nothing.
    """
    shape, middle = (length, len(W)), length // 2
    if real:
        x = np.fft.fft(rng.standard_normal(shape))
        x /= np.abs(x)
        x[::2] = rng.choice([-1.0, 1.0], x[::2].shape)
        middle -= middle % 2  # the spectrum of a real circulant has pairs
    else:
        x = np.exp(2j * np.pi * rng.random(shape))
    x[middle] *= np.linalg.svd(W, compute_uv=False)
    return DiagonalForms(x, "diagonal", real)
