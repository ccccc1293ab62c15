"""Exploration: Adam with large annealed steps, on several chains at once.

Where many local minima lie within one per cent of each other, large steps decide how good the one is that a descent
ends in. Steps about as large as the parameters, a short memory of the gradient's size and a cosine to zero were chosen
on three Gaussian matrices, real ones of 48 and 64 rows and a complex one of 48, with 5 and 9 factors and six chains
each. Rates from 0.6 to 2 do about equally well there, smaller ones and an exponential decay worse.
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

_MEAN_DECAY, _SQUARE_DECAY = 0.9, 0.9


def anneal(
    objective: Objective,
    parameters: NDArray[Any],
    rates: NDArray[Any],
    steps: int,
    *,
    deadline: float | None,
    report: Callable[[int, NDArray[np.float64]], object],
) -> None:
    """Move chains, in place, to low errors.

    Parameters
    ----------
    objective : Objective
    parameters : (B, ...) ndarray
        Starting points with entries of size one, of the dtype of the objective; they are overwritten.
    rates : (B,) ndarray
        First step of an entry in each chain. It falls to zero along a cosine.
    steps : int
    deadline : float or None
        Value of ``time.monotonic()`` by which the steps are to end. If there is no time for all of them the rate falls
        with time instead, so that it always ends at zero.
    report : callable
        Called as ``report(step, errors)`` with the relative errors (B,) before each step.
    """
    tiny = float(np.finfo(parameters.dtype).tiny) ** 0.5
    x = parameters.view(parameters.real.dtype)
    mean, square = np.zeros_like(x), np.zeros_like(x)
    begun = time.monotonic()
    # A chain may be lost to an overflow; its error tells, and the others go on.
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(1, steps + 1):
            progress = (step - 1) / steps
            if deadline is not None:
                now = time.monotonic()
                if now >= deadline:
                    return
                progress = max(progress, (now - begun) / (deadline - begun))
            values, complex_gradient = objective.value_and_gradient(parameters)
            report(step, np.sqrt(values))
            gradient = complex_gradient.view(x.dtype)
            mean += (1 - _MEAN_DECAY) * (gradient - mean)
            square += (1 - _SQUARE_DECAY) * (gradient * gradient - square)
            bias = np.sqrt(1 - _SQUARE_DECAY**step) / (1 - _MEAN_DECAY**step)
            rate = rates * (0.5 * (1 + np.cos(np.pi * progress)) * bias)
            rate = rate.astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
            x -= rate * mean / (np.sqrt(square) + x.dtype.type(tiny))
