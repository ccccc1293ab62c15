"""Large steps from random products, to choose the local minimum that a descent ends in: Adam with a falling step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit._objective import Objective

__all__ = ["annealing"]

_FIRST_STEP = 2.0
"""The first step at a rate of one, times the root of the number of factors: the changes of the product by steps of all
factors add up like this root. The steps of complex parameters are smaller by the root of two, for they have two parts
each."""

_MEAN_DECAY = 0.8
"""How much Adam remembers of its mean gradient from step to step. This number and the next one, and the cosine along
which steps fall, were chosen on Gaussian matrices of 48 to 88 rows with 5 to 11 factors: the usual 0.9 and 0.99 need
about four times as many steps."""

_SQUARE_DECAY = 0.7
"""How much Adam remembers of the squares of gradients. Below 0.5 steps explode."""


def annealing(objective: Objective, parameters: NDArray[Any], rate: float, steps: int) -> Iterator[NDArray[np.float64]]:
    """Yield the relative errors of products before each of the steps, which overwrite their parameters.

    Parameters
    ----------
    objective : Objective
    parameters : (n_products, N) ndarray
        The parameters of each product.
    rate : float
        The size of the steps.
    steps : int
        Steps fall along a cosine, to zero after this number.
    """
    real = objective.dtype.type(0).real.dtype
    parts = 1 + (objective.dtype.kind == "c")
    first = real.type(_FIRST_STEP * rate) / math.sqrt(objective.layout.n_factors * parts)
    tiny = float(np.finfo(real).tiny) ** 0.5
    x = parameters.view(real)
    mean, square = np.zeros_like(x), np.zeros_like(x)
    for step in range(steps):
        values, complex_gradient = objective.value_and_gradient(parameters)
        yield np.sqrt(values)
        gradient = complex_gradient.view(real)
        mean += (1 - _MEAN_DECAY) * (gradient - mean)
        square += (1 - _SQUARE_DECAY) * (gradient * gradient - square)
        bias = math.sqrt(1 - _SQUARE_DECAY ** (step + 1)) / (1 - _MEAN_DECAY ** (step + 1))
        decay = 0.5 * (1 + math.cos(math.pi * step / steps))
        x -= (first * decay * bias) * mean / (np.sqrt(square) + tiny)
