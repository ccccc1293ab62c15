"""Exploration: Adam with large annealed steps, on several chains at once.

Where many local minima lie within one per cent of each other, large steps decide how good the one is that a descent
ends in. Steps about as large as the parameters, a memory of a few gradients and a cosine to zero were chosen on six
Gaussian matrices, real and complex, of 48 to 88 rows with 5 to 11 factors and five chains each, for 150 to 900 steps.
Usual memories, 0.9 and 0.99, need about four times as many steps; below 0.5 for the squares steps explode.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit._many_factors.objective import Objective

__all__ = ["anneal"]

_MEAN_DECAY, _SQUARE_DECAY = 0.8, 0.7


def anneal(
    objective: Objective,
    parameters: NDArray[Any],
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
    parameters : (B, ...) ndarray
        Starting points with entries of size one, of the dtype of the objective; they are overwritten.
    rates : (B,) ndarray
        First step of an entry in each chain. It falls to zero along a cosine.
    steps : int
    deadline : float or None
        Value of ``time.monotonic()`` after which no step begins. Chains are far from a minimum then.
    report : callable
        Called as ``report(step, errors)`` with the relative errors (B,) before each step.
    """
    tiny = float(np.finfo(parameters.dtype).tiny) ** 0.5
    x = parameters.view(parameters.real.dtype)
    mean, square = np.zeros_like(x), np.zeros_like(x)
    # A chain may be lost to an overflow; its error tells, and the others go on.
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(1, steps + 1):
            if deadline is not None and time.monotonic() >= deadline:
                return False
            values, complex_gradient = objective.value_and_gradient(parameters)
            report(step, np.sqrt(values))
            gradient = complex_gradient.view(x.dtype)
            mean += (1 - _MEAN_DECAY) * (gradient - mean)
            square += (1 - _SQUARE_DECAY) * (gradient * gradient - square)
            bias = np.sqrt(1 - _SQUARE_DECAY**step) / (1 - _MEAN_DECAY**step)
            rate = rates * (0.5 * (1 + np.cos(np.pi * (step - 1) / steps)) * bias)
            rate = rate.astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
            x -= rate * mean / (np.sqrt(square) + x.dtype.type(tiny))
    return True
