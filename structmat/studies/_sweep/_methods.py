"""The methods of a sweep, each held to the parameters of the CDD product that it is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from structmat.fit import baseline_errors, baseline_names, fit_cdd
from structmat.operators import CDDLayout

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["METHODS", "WEIGHTED", "MethodOutcome", "Setting", "apply", "budget"]

METHODS = ("cdd", *baseline_names())
WEIGHTED = ("cdd", *baseline_names(weighted=True))
"""The methods whose best member is known in a weighted norm as well."""


class Setting(NamedTuple):
    """What a method is asked for."""

    method: str
    n_factors: int
    block_size: int
    seed: int | None
    """None for methods that use no random numbers."""


class MethodOutcome(NamedTuple):
    """What it answered."""

    n_parameters: int
    error: float
    status: str = "completed"
    """What ended it: "completed" or "time limit"."""
    start: str = ""
    solver: str = "closed form"
    n_iter: int = 0
    converged: bool = True


def budget(shape: tuple[int, int], n_factors: int, block_size: int) -> int:
    """Return the parameters of a CDD product: what every method may use at most.

    Raises ArgumentValueError where there is no such product.
    """
    return CDDLayout(shape, n_factors, block_size).n_parameters


def apply(
    matrix: NDArray[Any], setting: Setting, *, input_second_moment: NDArray[Any] | None = None, **fit_options: Any
) -> MethodOutcome:
    """Approximate a matrix by the best, or the best that is found, with no more than the budget."""
    method, n_factors, block_size, seed = setting
    if method == "cdd":
        result = fit_cdd(
            matrix,
            n_factors,
            block_size=block_size,
            input_second_moment=input_second_moment,
            rng=seed,
            **fit_options,
        )
        return MethodOutcome(
            n_parameters=result.n_parameters,
            error=result.error,
            status=result.stopped,
            start=result.start,
            solver=result.solver,
            n_iter=result.n_iter,
            converged=result.converged,
        )
    allowed = [budget(matrix.shape, n_factors, block_size)]
    best = baseline_errors(matrix, allowed, names=[method], input_second_moment=input_second_moment)
    ((used, error),) = best.values()
    return MethodOutcome(int(used[0]), float(error[0]))
