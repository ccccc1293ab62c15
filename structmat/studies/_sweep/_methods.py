"""The methods of a sweep, each held to the parameters of the CDD product that it is compared with."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmat.fit import fit_cdd
from structmat.fit._arguments import check_for_blocks
from structmat.fit._baselines.families import RIVALS, truncated_svd
from structmat.fit._many_factors.block_objective import block_layout
from structmat.fit._many_factors.objective import Layout
from structmat.fit._second_moment import weighted_inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["METHODS", "WEIGHTED", "Outcome", "Setting", "apply", "budget"]

METHODS = ("cdd", *RIVALS)
WEIGHTED = ("cdd", "truncated-svd")
"""The methods whose best member is known in a weighted norm as well."""


class Setting(NamedTuple):
    """What a method is asked for."""

    method: str
    n_factors: int
    block_size: int
    seed: int | None
    """None for methods that use no random numbers."""


class Outcome(NamedTuple):
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

    Raises ValueError, saying why, where there is no such product.
    """
    if block_size > max(shape):
        raise ValueError(f"block_size {block_size} is more than the larger side, {max(shape)}")
    if shape[0] == shape[1] == block_size:
        vectors = Layout(block_size, n_factors).vector_shapes
    else:
        check_for_blocks(n_factors, "diagonal", "auto")
        vectors = block_layout(shape, block_size, n_factors).vector_shapes
    return sum(prod(vector) for vector in vectors)


def apply(
    matrix: NDArray[Any], setting: Setting, *, weights: NDArray[Any] | None = None, **fit_options: Any
) -> Outcome:
    """Approximate a matrix by the best, or the best that is found, with no more than the budget."""
    method, n_factors, block_size, seed = setting
    if method == "cdd":
        result = fit_cdd(matrix, n_factors, block_size=block_size, weights=weights, rng=seed, **fit_options)
        if result.stopped == "interrupted":  # such a result is not the one that the same seed gives
            raise KeyboardInterrupt
        return Outcome(
            n_parameters=result.n_parameters,
            error=result.error,
            status=result.stopped,
            start=result.start,
            solver=result.solver,
            n_iter=result.n_iter,
            converged=result.converged,
        )
    # Divided by its largest entry, so that no square over- or underflows.
    scaled = matrix / (float(np.max(np.abs(matrix))) or 1.0)
    allowed = [budget(matrix.shape, n_factors, block_size)]
    if weights is None:
        member = RIVALS[method](scaled, allowed)[0]
    else:
        inputs = weighted_inputs(weights, matrix.shape[1], real=not np.iscomplexobj(matrix))
        member = truncated_svd(scaled, allowed, inputs)[0]
    return Outcome(member.n_parameters, member.error)
