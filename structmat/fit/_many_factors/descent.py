"""From a start to a minimum by steps on the matrix itself: what Levenberg-Marquardt and alternating solvers share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from structmat.fit._many_factors.diagonal_forms import DiagonalForms
from structmat.fit._three_factors.vectors import scale_by_power_of_two, shared_exponents

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat.operators import FactorKind

__all__ = ["State", "Steps", "descend"]

_ROUNDING = float(np.finfo(np.float64).eps)


class State(NamedTuple):
    """What an iteration leaves."""

    chain: DiagonalForms
    error: float
    """Relative Frobenius error."""
    stationary: bool
    """Whether no step lowers the error any more."""


Steps: TypeAlias = "Callable[[NDArray[Any], DiagonalForms, float | None], Iterator[State]]"
"""``steps(W, chain, deadline)`` yields the start and then the state after every iteration, without end; the error never
rises. The deadline, a value of ``time.monotonic()``, may cut an iteration short."""


def descend(
    steps: Steps,
    W: NDArray[Any],
    vectors: Sequence[NDArray[Any]],
    first: FactorKind,
    *,
    max_iter: int,
    tol: float,
    deadline: float | None = None,
    report: Callable[[int, float], object] | None = None,
) -> tuple[list[NDArray[Any]], list[float], bool]:
    """Lower the error of a square product.

    Parameters
    ----------
    steps : Steps
        The solver.
    W : (n, n) ndarray
        Finite float64 or complex128 entries.
    vectors : sequence of (n,) ndarray
        Alternately diagonals and first columns of circulants, in the order of the matrix product; real if `W` is.
    first : {"diagonal", "circulant"}
        The kind of the first factor.
    max_iter : int
        The most iterations.
    tol : float
        Converged when an iteration lowers the error by no more than `tol` times itself.
    deadline : float, optional
        Value of ``time.monotonic()`` after which no iteration begins.
    report : callable, optional
        Called as ``report(iteration, error)`` after every iteration.

    Returns
    -------
    vectors : list of (n,) ndarray
        The best factors, of equal norm in their diagonal forms.
    history : list of float
        Relative error of the start and after every iteration; never rises.
    converged : bool
        Whether `tol` was met, or no step lowers the error any more.
    """
    exponent = int(np.frexp(np.abs(W).max())[1])
    real = not (np.iscomplexobj(W) or any(np.iscomplexobj(v) for v in vectors))
    begun = [scale_by_power_of_two(vectors[0], -exponent), *vectors[1:]]
    history: list[float] = []
    converged = False
    chain = DiagonalForms.from_vectors(begun, first, real=real)
    for state in steps(scale_by_power_of_two(W, -exponent), chain, deadline):
        late = deadline is not None and time.monotonic() >= deadline
        if history and not late:
            # A step that was refused lowers nothing, and the next one may lower much.
            converged = state.stationary or 0.0 < history[-1] - state.error <= tol * state.error
        history.append(state.error)
        iteration = len(history) - 1
        if report is not None and iteration:
            report(iteration, state.error)
        converged = converged or state.error <= _ROUNDING
        if converged or late or iteration >= max_iter:
            break
    shares = shared_exponents(exponent, len(vectors))
    fitted = [scale_by_power_of_two(v, s) for v, s in zip(state.chain.to_vectors(), shares, strict=True)]
    return fitted, history, converged
