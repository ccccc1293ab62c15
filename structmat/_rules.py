"""What a library makes of a computation beside its values: derivatives, traces, compiled code.

`Rules` are those of a library that only computes. The files ``_torch_rules`` and ``_jax_rules`` have those of torch and
JAX, each with two rules of derivatives for what is found by other means than the operations of the library:

- the implicit rule for systems ``A x = b``: ``dx = A^-1 (db - dA x)``, whatever finds the solution;
- the rule for logarithms of determinants: ``d log det A = tr(A^-1 dA)``, whatever finds the logarithm.

`structmat._arrays.libraries.rules_of` returns the rules of a namespace. A matrix is any object with parameters that can
be multiplied by, such as an operator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, Self


class Matrix(Protocol):
    """What the rules ask of a matrix or a stack of them."""

    @property
    def H(self) -> Any:
        """The adjoint."""

    def _matvec(self, x: Any, xp: Any) -> Any:
        """Return the product, which the library can differentiate by x and by the arrays of the matrix."""

    def _map(self, function: Callable[[Any, int], Any]) -> Self:
        """Return the matrix with ``function(array, core axes)`` in place of each of its arrays."""


class Solver(ABC):
    """What finds solutions; two that are equal find the same, and have the same hash."""

    @property
    def for_changes(self) -> Solver:
        """What solves the systems of which changes of the solutions are solutions: the same, or what is faster."""
        return self

    @abstractmethod
    def __call__(self, A: Any, M: Any, b: Any, xp: Any) -> tuple[Any, tuple[Any, ...]]:
        """Return solutions of ``A x = b``, of the shape of b, and what else of them is of interest, if anything.

        The latter are arrays or numbers, which have no derivatives: arrays with the batch axes of b, or without axes.
        M is a matrix that helps to find the solutions, such as a preconditioner, or None. The rules call this with the
        adjoints of both, too.
        """


class LogDeterminant(Protocol):
    """What the derivatives of a logarithm of a determinant take; two that are equal do the same, and have one hash."""

    def inverse(self, A: Any, given: Any, xp: Any) -> Any:
        """Return what `trace` needs of the inverse of A, with derivatives. It is asked for where it is needed.

        `given` is an object with parameters that it takes beside A, or None.
        """

    def trace(self, A: Any, inverse: Any, given: Any, xp: Any) -> Any:
        """Return the trace of the inverse times A.

        It is linear in the arrays of A, by which it is differentiated.
        """


class Rules:
    """The rules of a library that only computes, such as NumPy."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    compiles = False
    """Whether operations are compiled anew for each shape, so that a loop had better have steps of one shape."""

    def objection(self, array: Any) -> str | None:
        """Return why an array is not taken, as the end of an error, or None where it is."""
        return None

    def constant(self, value: Any) -> Any:
        """Return an array that has no derivative."""
        return value

    def concrete(self, array: Any) -> Any:
        """Return an array with the same values that can be read now, of NumPy where none of the library can be.

        It is None where an array has no values yet.
        """
        return array

    def unrecorded(self) -> AbstractContextManager[Any]:
        """Return a context in which no derivatives are prepared."""
        return nullcontext()

    def is_differentiated(self, arrays: Iterable[Any]) -> bool:
        """Tell whether what is computed of arrays may be differentiated, in any mode, or mapped over an axis."""
        return False

    def is_traced(self, array: Any) -> bool:
        """Tell whether an array has no values yet, as in a function that is being compiled."""
        return False

    def is_plain(self, arrays: Sequence[Any]) -> bool:
        """Tell whether what is computed of arrays may be kept, as it belongs to no trace, graph or mode.

        That is not known of a library without rules of its own.
        """
        return False

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of arrays, compiled as a whole where the library does that."""
        return function

    def scan(self, step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, elements: Any) -> tuple[Any, Any]:
        """Return what a loop makes of `carry`, and the results of its steps, for one of the elements each.

        A step returns the next carry and a tuple of arrays, of which each result is stacked along a new first axis.
        """
        results = []
        for k in range(elements.shape[0]):
            carry, result = step(carry, elements[k, ...])
            results.append(result)
        return carry, tuple(self.xp.stack(each) for each in zip(*results, strict=True))

    def loop(
        self, goes_on: Callable[[Any], Any], step: Callable[[Any], tuple[Any, ...]], state: tuple[Any, ...]
    ) -> Any:
        """Return the state after as many steps as `goes_on` says, of which one boolean is read before each.

        A state holds arrays and numbers, each of the same shape and dtype in every step.
        """
        while bool(goes_on(state)):
            state = step(state)
        return state

    def branch(self, condition: Any, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
        """Return what one of two functions gives, whose results have the same shapes."""
        return yes() if bool(condition) else no()

    def least(self, first: Any, second: Any) -> Any:
        """Return the smaller of two whole numbers."""
        return min(first, second)

    def first(self, count: Any) -> slice:
        """Return the index of the first `count` entries of an axis, or of all where those behind are zero."""
        return slice(0, count)

    def put(self, array: Any, index: tuple[Any, ...], value: Any) -> Any:
        """Return an array with other values at an index of its last axes; the array itself may be written to."""
        array[(..., *index)] = value
        return array

    def add(self, array: Any, other: Any) -> Any:
        """Return the sum of two arrays of one shape and dtype; the first one may be written to."""
        array += other
        return array

    def on_host(
        self,
        function: Callable[..., Sequence[Any]],
        results: Sequence[tuple[tuple[int, ...], Any]],
        arrays: Sequence[Any],
        device: Any,
    ) -> tuple[Any, ...]:
        """Return the results of a function that returns NumPy arrays, as arrays of the library without derivatives.

        The function takes arrays of the library that have values. `results` holds the shape and the dtype of each. The
        arrays are on one device, and have equal numbers of axes; an axis that is mapped stands in front, with length
        one in those that have no such axis.
        """
        return tuple(self.xp.asarray(value, device=device) for value in function(*arrays))

    def solution(self, solver: Solver, A: Matrix, M: Matrix | None, b: Any) -> tuple[Any, tuple[Any, ...]]:
        """Return what a solver finds for ``A x = b``: the solutions with derivatives by the implicit rule.

        b has all batch axes and the dtype of the solutions. M has no derivatives.
        """
        return solver(A, M, b, self.xp)

    def log_determinant(self, rule: LogDeterminant, A: Matrix, given: Any, value: Any) -> Any:
        """Return the logarithm of a determinant, which is known, with derivatives."""
        return value


_classes: list[type] = []
_listeners: list[Callable[[type], None]] = []


def announce(cls: type) -> None:
    """Tell a new class of objects with parameters to the libraries that have asked for them."""
    _classes.append(cls)
    for listener in _listeners:
        listener(cls)


def for_each_class(listener: Callable[[type], None]) -> None:
    """Call `listener` with each class of objects with parameters, those that are defined later on included."""
    _listeners.append(listener)
    for cls in _classes:
        listener(cls)
