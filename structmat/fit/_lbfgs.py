"""Small steps from a product to a minimum of its error: L-BFGS on the parameters of an objective."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Differentiable", "lbfgs"]

_MEMORY = 20
"""The pairs of vectors that L-BFGS keeps. These are twice as many as usual: a pair is as small as the parameters, while
an evaluation goes through the whole matrix."""


class Differentiable(Protocol):
    """Relative errors as a function of parameters, with their gradients."""

    dtype: np.dtype[Any]
    """The dtype of the parameters."""

    def value_and_gradient(self, parameters: NDArray[Any], /) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the squared relative errors, (k,), of k products, and their gradients, (k, N)."""


def lbfgs(
    objective: Differentiable,
    start: NDArray[Any],
    most: int,
    after_iteration: Callable[[NDArray[Any], float], None],
) -> bool:
    """Go down from a product in up to `most` iterations; return whether the last step found no lower error.

    Parameters
    ----------
    objective : Differentiable
    start : (N,) ndarray
        The parameters of the product.
    most : int
    after_iteration : callable
        Told the parameters and the relative error after every iteration. It ends the descent by `StopIteration`.
    """
    from scipy.optimize import minimize  # noqa: PLC0415  # It is slow to import.

    real = objective.dtype.type(0).real.dtype

    def parameters_of(x: NDArray[np.float64]) -> NDArray[Any]:
        return x.astype(real).view(objective.dtype)

    def function(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        values, gradient = objective.value_and_gradient(parameters_of(x)[None])
        return float(values[0]), gradient[0].view(real).astype(np.float64)

    def callback(intermediate_result: Any) -> None:
        after_iteration(parameters_of(intermediate_result.x), math.sqrt(intermediate_result.fun))

    with np.errstate(over="ignore", invalid="ignore"):
        result = minimize(
            function,
            start.view(real).astype(np.float64),
            jac=True,
            method="L-BFGS-B",
            callback=callback,
            # SciPy's own tolerance is absolute for values below one.
            options={"maxiter": most, "maxfun": 2 * most + 10, "maxcor": _MEMORY, "ftol": 0.0, "gtol": 0.0},
        )
    # Without tolerances SciPy succeeds only where no step lowers the error any more.
    return bool(result.success)
