"""Exploration: Adam with large annealed steps, on several chains at once.

Where many local minima lie within one per cent of each other, large steps decide how good the one is that a descent
ends in. Steps about as large as the parameters, a memory of a few gradients and a cosine to zero were chosen on six
Gaussian matrices, real and complex, of 48 to 88 rows with 5 to 11 factors and five chains each, for 150 to 900 steps.
Usual memories, 0.9 and 0.99, need about four times as many steps; below 0.5 for the squares steps explode.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._arguments import to_numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit._many_factors.array_work import WorkArray
    from structmat.fit._many_factors.objective import Objective

__all__ = ["anneal"]

_MEAN_DECAY, _SQUARE_DECAY = 0.8, 0.7


def anneal(
    objective: Objective,
    parameters: WorkArray,
    rates: NDArray[Any],
    steps: int,
    *,
    deadline: float | None,
    report: Callable[[int, NDArray[np.float64]], object],
) -> bool:
    """Move chains, in place, to low errors; return whether all steps were made.

    Parameters
    ----------
    objective : Objective
    parameters : (B, ...) array
        Starting points with entries of size one, of the library and dtype of the objective; they are overwritten.
    rates : (B,) ndarray
        First step of an entry in each chain. It falls to zero along a cosine.
    steps : int
    deadline : float or None
        Value of ``time.monotonic()`` after which no step begins. Chains are far from a minimum then.
    report : callable
        Called as ``report(step, errors)`` with the relative errors (B,) before each step. A device that is not the CPU
        is not waited for each time: several calls, and a look at the deadline, come after as many steps.
    """
    work, real = objective.work, np.empty(0, objective.dtype).real.dtype
    xp = work.xp
    tiny = float(np.finfo(real).tiny) ** 0.5
    x = work.real_view(parameters)
    mean, square = xp.zeros_like(x), xp.zeros_like(x)
    first = work.moved(rates.reshape(-1, *[1] * (x.ndim - 1)))
    unread: list[WorkArray] = []
    # A chain may be lost to an overflow; its error tells, and the others go on.
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(1, steps + 1):
            if not unread and deadline is not None and time.monotonic() >= deadline:
                return False
            values, complex_gradient = objective.value_and_gradient(parameters)
            unread.append(values)
            if len(unread) == work.steps_at_once or step == steps:
                for ago, errors in enumerate(np.sqrt(to_numpy(xp.stack(unread))), 1 - len(unread)):
                    report(step + ago, errors)
                unread.clear()
            gradient = work.real_view(complex_gradient)
            mean += (1 - _MEAN_DECAY) * (gradient - mean)
            square += (1 - _SQUARE_DECAY) * (gradient * gradient - square)
            bias = math.sqrt(1 - _SQUARE_DECAY**step) / (1 - _MEAN_DECAY**step)
            rate = first * (0.5 * (1 + math.cos(math.pi * (step - 1) / steps)) * bias)
            x -= xp.astype(rate, x.dtype) * mean / (xp.sqrt(square) + tiny)
    return True
