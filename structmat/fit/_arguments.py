"""The checks of the arguments of `fit_cdd` that go together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._arguments import as_floating, integer, to_numpy
from structmat._array_tools import ArgumentValueError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.operators import CDDLayout

__all__ = ["check_for_entry_weights", "check_matrix_solver", "check_restarts", "is_three_factors", "with_entry_weights"]

_OWNER = "fit_cdd"

# A step of "als" on many factors factorises a matrix of this side.
_ALS_SIDE = 512

# Entries of the vectors of all random starts together, which are held at once.
_MOST_STARTED = 1 << 27


def is_three_factors(layout: CDDLayout) -> bool:
    """Return whether a product is diagonal, circulant, diagonal, which has steps in closed form."""
    return layout.n_factors == 3 and layout.first == "diagonal"


def with_entry_weights(values: NDArray[Any], entry_weights: Any) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return a matrix with zeros for the entries of no weight, and the weights of all."""
    if entry_weights is None:
        return values, None
    argument = "entry_weights"
    weights = to_numpy(as_floating(entry_weights, _OWNER, argument))
    if weights.shape != values.shape:
        raise ArgumentValueError(_OWNER, argument, f"must have the shape of W, {values.shape}, got {weights.shape}")
    if np.iscomplexobj(weights):
        raise ArgumentValueError(_OWNER, argument, "must be bool or real, got complex numbers")
    if not (np.isfinite(weights).all() and weights.min() >= 0.0):
        raise ArgumentValueError(_OWNER, argument, "must be finite and not negative")
    if not weights.any():
        raise ArgumentValueError(_OWNER, argument, "must not be all zero")
    return np.where(weights > 0.0, values, values.dtype.type(0)), weights


def check_for_entry_weights(layout: CDDLayout, solver: str, *, weighted: bool) -> None:
    """Say what is not available with weights of the entries."""

    def refuse(text: str) -> ArgumentValueError:
        return ArgumentValueError(_OWNER, "entry_weights", f"must be None {text}")

    if weighted:
        raise refuse("with input_second_moment")
    if layout.n_factors != 3:
        raise refuse(f"but for three factors, got n_factors={layout.n_factors}")
    if layout.first != "diagonal":
        raise refuse(f"unless the first factor is diagonal, got first={layout.first!r}")
    if solver not in {"auto", "als"}:
        raise refuse(f'unless solver is "auto" or "als", got solver={solver!r}')


def check_restarts(value: Any, layout: CDDLayout) -> int | None:
    """Return a number of random starts that memory can hold, or None."""
    if value is None:
        return None
    restarts, most = integer(value, _OWNER, "restarts", least=0), _MOST_STARTED // layout.n_parameters
    if restarts > most:
        text = f"must be at most {most:,} for products of {layout.n_parameters:,} parameters, got {restarts}"
        raise ArgumentValueError(_OWNER, "restarts", text)
    return restarts


def check_matrix_solver(solver: str, layout: CDDLayout, *, weighted: bool) -> None:
    """Say what solvers that take the matrix itself are not for."""

    def refuse(text: str) -> ArgumentValueError:
        return ArgumentValueError(_OWNER, "solver", text)

    if weighted:
        raise refuse(f'must not be "{solver}" with input_second_moment')
    if solver == "als" and is_three_factors(layout):
        return
    if not layout.is_single_block:
        raise refuse(
            f'must not be "{solver}" for a W that is not square, or several blocks, with {layout.n_factors} factors'
        )
    if solver == "als" and layout.block_size > _ALS_SIDE:
        raise refuse(
            f'must not be "als" beyond a side of {_ALS_SIDE} but for three factors, the first diagonal, '
            f"got {layout.block_size}"
        )
