"""What solvers return, and the error where they do not converge."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from structmat._arrays.typing import Array
from structmat._krylov import Count


class Attempt(NamedTuple):
    """A way to an answer that was tried, and what came of it; `SolveResult` and `SlogdetEstimate` list them.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> A = sm.Toeplitz(0.5 ** np.arange(100)) + sm.Diagonal(np.linspace(1.0, 2.0, 100))
    >>> [attempt.way for attempt in sm.solve(A, np.ones(100)).ways]
    ['closed form', 'elimination']
    """

    way: str
    """Its name, such as "elimination" or "GMRES"."""
    error: Array | None
    """The relative residuals of its solutions, or how far off its logarithms may be; None where it found none."""
    said: str = ""
    """Why it has no answer where it has none, or how it was found."""

    def __str__(self) -> str:
        reached = "" if self.error is None else f"error {float(self.error.max()):.2g}"
        return f"{self.way}: {', '.join(filter(None, (self.said, reached)))}"


Result = TypeVar("Result", bound=type)


def _with_attributes(cls: Result) -> Result:
    """Return a class of named tuples whose results may have attributes too, which are no items of the tuple.

    Pytrees take it for a named tuple, as a subclass is none to all releases of torch: what has gone through them has
    no such attributes.
    """
    without = {"__slots__", "__dict__", "__weakref__"}
    members = {name: value for name, value in vars(cls).items() if name not in without}
    return type(cls.__name__, (tuple,), members)  # type: ignore[return-value]


def with_ways(result: Any, ways: Iterable[Attempt]) -> Any:
    """Note in a result of one's own which ways were tried for it."""
    result.__dict__["ways"] = tuple(ways)
    return result


@_with_attributes
class SolveResult(NamedTuple):
    """The solution of a linear system or of a least-squares problem.

    Examples
    --------
    >>> import structmat as sm
    >>> found = sm.solve(sm.Circulant([2.0, -1.0, 0.0]), [1.0, 0.0, 3.0])
    >>> found.x.round(6), bool(found.residual < 1e-15), found.iterations
    (array([1.428571, 0.714286, 1.857143]), True, 0)

    Which ways were tried is an attribute, and no item of the tuple:

    >>> import numpy as np
    >>> n = 1000
    >>> A = sm.Toeplitz(0.5 ** np.arange(n)) + sm.Diagonal(np.linspace(1.0, 2.0, n))
    >>> [(attempt.way, attempt.said) for attempt in sm.solve(A, np.ones(n)).ways]
    [('closed form', 'there is none'), ('iteration', 'GMRES')]
    """

    x: Array
    """The solutions, shape ``(..., cols)``, or ``(..., cols, k)`` for right-hand sides in columns."""
    residual: Array
    """``norm(b - A x) / norm(b)``, computed from `x`; one number for each right-hand side."""
    iterations: int | Array
    """How many iterations it took, the most of any right-hand side; 0 by a closed form, an array in a trace of JAX."""

    @property
    def ways(self) -> tuple[Attempt, ...]:
        """The ways that were tried, from the first one to the one that was taken; none in what a pytree has rebuilt."""
        known: tuple[Attempt, ...] = self.__dict__.get("ways", ())
        return known


@_with_attributes
class SlogdetEstimate(NamedTuple):
    """Sign and logarithm of a determinant, and how far off the logarithm may be.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> found = sm.slogdet(sm.Diagonal(np.array([1.0, 1.0])))
    >>> float(found.logabsdet), bool(found.standard_error < 1e-15)
    (0.0, True)
    """

    sign: Array
    """Of the dtype of the matrix; 1 where the logarithm is an estimate."""
    logabsdet: Array
    """The logarithm of the absolute value, one for each matrix of a stack."""
    standard_error: Array
    """How far off `logabsdet` may be: the standard error of an estimate, else of a factor, measured, or of rounding.

    It is **estimated** from the spread of random vectors, where there are fewer of them than unknowns; **measured** by
    products with a factor, or with the inverse of a Toeplitz matrix or of a grid with few missing rows, to which
    rounding errors are added; **bounded** by the rounding errors of the eigenvalues of other closed forms, and where
    parameters are the factors of the determinant by that of the sum of their logarithms.
    """

    @property
    def ways(self) -> tuple[Attempt, ...]:
        """The ways that were tried, of which the one with the smallest error is taken; none in a rebuilt pytree."""
        known: tuple[Attempt, ...] = self.__dict__.get("ways", ())
        return known


class ConvergenceError(np.linalg.LinAlgError):
    """An iteration has not reached its tolerance.

    Parameters
    ----------
    text : str
        What was reached, and what to do.
    result : SolveResult
        The best solutions so far, which may be good enough.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> A = sm.Circulant(np.array([2.0, -1.0, 0.0, 0.0])) + sm.Diagonal(np.arange(4.0))
    >>> try:
    ...     sm.solve(A, np.ones(4), max_iter=1, preconditioner=None)
    ... except sm.ConvergenceError as error:
    ...     print(error.result.residual > 1e-10)
    True
    """

    __module__ = "structmat"  # where users find it, in tracebacks too

    def __init__(self, text: str, result: Any) -> None:
        super().__init__(text, result)
        self.text, self.result = text, result

    def __str__(self) -> str:
        return self.text


class Solutions(NamedTuple):
    """The results of an iteration."""

    x: Array
    residual: Array
    """The relative residuals, NaN where the system holds NaN or infinity."""
    done: Array
    """Which solutions are good enough."""
    iterations: Count
