"""Polish: limited-memory BFGS on all parameters of one chain together."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._arguments import to_numpy
from structmat.fit._many_factors.parameters import balanced

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.fit._many_factors.objective import Objective

__all__ = ["polish"]

# Twice as many pairs as usual: a pair is as small as the parameters, while an evaluation goes through the matrix.
_MEMORY = 20
# Iterations over which progress is measured.
_WINDOW = 5


def polish(
    objective: Objective,
    parameters: NDArray[Any],
    *,
    max_iter: int,
    tol: float,
    deadline: float | None,
    report: Callable[[float, NDArray[Any]], object],
) -> bool:
    """Lower the error of a chain; return whether iterations lowered it by no more than `tol` times itself each.

    This is the mean of a few iterations, since the first one may lower it little. After every iteration
    ``report(error, parameters)`` is called; the last call holds the result.
    """
    from scipy.optimize import minimize  # noqa: PLC0415  # slow to import, so not before a fit needs it

    recent: deque[float] = deque(maxlen=_WINDOW + 1)
    converged = False
    begun = balanced(objective.layout, parameters.astype(objective.dtype))

    def parameters_of(x: NDArray[np.float64]) -> NDArray[Any]:
        return x.astype(begun.real.dtype).view(begun.dtype).reshape(begun.shape)

    def function(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        values, found = objective.value_and_gradient(objective.work.moved(parameters_of(x)[None]))
        gradient = to_numpy(found)
        return float(values[0]), gradient.view(begun.real.dtype).ravel().astype(np.float64)

    def after_iteration(intermediate_result: Any) -> None:
        nonlocal converged
        error = float(np.sqrt(intermediate_result.fun))
        report(error, parameters_of(intermediate_result.x))
        recent.append(error)
        converged = len(recent) > _WINDOW and recent[0] - error <= _WINDOW * tol * error
        if converged or (deadline is not None and time.monotonic() >= deadline):
            raise StopIteration

    result = minimize(
        function,
        begun.view(begun.real.dtype).ravel().astype(np.float64),
        jac=True,
        method="L-BFGS-B",
        callback=after_iteration,
        options={
            "maxiter": max_iter,
            "maxfun": 2 * max_iter + 10,
            "maxcor": _MEMORY,
            # SciPy's own tolerance is absolute for values below one.
            "ftol": 0.0,
            "gtol": 0.0,
        },
    )
    # Without tolerances SciPy succeeds only where no step lowers the error any more.
    return converged or bool(result.success)
