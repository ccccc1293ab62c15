"""What a library is able to do, and how it differentiates, traces and compiles computations on its arrays.

`Rules` are those of a library that follows the array API standard and only computes. Each file such as
``_torch_rules`` has those of one library in one class, so that nothing else in the package asks which library it is
that computes. Those of torch and JAX have two rules of derivatives for results that are computed by other means than
the operations of the library:

- the implicit rule for systems ``A x = b``: ``dx = A^-1 (db - dA x)``, whatever computes x;
- the rule for logarithms of determinants: ``d log det A = tr(A^-1 dA)``, whatever computes the logarithm.

`structmat._arrays.libraries.rules_of` returns the rules of a namespace. A matrix is any object with parameters that has
a product with vectors, such as an operator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np

_SOLVED_AT_ONCE = 64
"""The most rows of a triangular system that is solved as any other is."""


class Matrix(Protocol):
    """The methods that the rules call of a matrix, or of a stack of them."""

    @property
    def H(self) -> Any:
        """The adjoint."""

    def _matvec(self, x: Any, xp: Any) -> Any:
        """Return the product with vectors. The library can differentiate it by x and by the arrays of the matrix."""

    def _map(self, function: Callable[[Any, int], Any]) -> Self:
        """Return the matrix with ``function(array, core axes)`` in place of each of its arrays."""


class Solver(ABC):
    """A function that solves systems. Two solvers that are equal return the same, and have the same hash."""

    is_traceable: ClassVar[bool] = False
    """Whether a compiler can trace what the solver does, as it looks at no values, or marks what does."""

    @property
    def for_changes(self) -> Solver:
        """The solver for the systems of the implicit rule, whose solutions are derivatives: itself, or a faster one."""
        return self

    @abstractmethod
    def __call__(self, A: Any, M: Any, b: Any, xp: Any) -> tuple[Any, tuple[Any, ...]]:
        """Return x with ``A x = b``, of the shape of b, and a tuple of further information, such as residuals.

        That information has no derivatives. It holds numbers, and arrays that have the batch axes of b or no axes. M is
        a matrix that helps to solve the systems, such as a preconditioner, or None. The rules call the solver with the
        adjoints of both matrices, too.
        """


class Elimination(NamedTuple):
    """What elimination makes of a stack of dense matrices, without derivatives."""

    solve: Callable[[Any], Any]
    """Returns the solutions for right-hand sides in columns; they are not finite where the matrix is singular."""
    slogdet: Callable[[], tuple[Any, Any]]
    """Returns the signs of the determinants, or their phases, and the logarithms of their absolute values."""


class LogDeterminant(Protocol):
    """What the derivatives of the logarithm of a determinant need.

    Two objects that are equal compute the same, and have the same hash.
    """

    def inverse(self, A: Any, given: Any, xp: Any) -> Any:
        """Return what `trace` needs of the inverse of A, with derivatives.

        It is called only where derivatives are computed. `given` is a further object with parameters that it needs
        beside A, or None.
        """

    def trace(self, A: Any, inverse: Any, given: Any, xp: Any) -> Any:
        """Return the trace of the inverse times A.

        It is linear in the arrays of A, by which it is differentiated.
        """


class Rules:
    """The rules of a library that follows the array API standard and only computes."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    compiles = False
    """Whether each shape of arrays is compiled anew, so that loops are faster whose steps have arrays of one shape."""

    engine: ClassVar[str] = ""
    """The name of its transforms in the tables of what measured fastest; empty where nothing was measured."""

    keeps_products = False
    """Whether products of a prepared operator are kept as functions of arrays of one type. Those of other libraries may
    be traced, as arrays of other types."""

    multiplies_exactly = False
    """Whether products of matrices have all digits of their dtype; JAX may round their entries on GPUs."""

    transforms_single_points = True
    """Whether there are Fourier transforms of vectors of one entry."""

    scales_quotients = True
    """Whether quotients of complex numbers are taken of numbers divided by powers of two, so that they do not overflow
    before the result does. That needs subnormal numbers, and an array that keeps its dtype."""

    @property
    def has_batched_factors(self) -> bool:
        """Whether there are Cholesky and QR factors of stacks of matrices."""
        return hasattr(self.xp, "linalg")

    def objection(self, array: Any) -> str | None:
        """Return why an array cannot be an argument, as the end of an error message; None where it can."""
        return None

    def constant(self, value: Any) -> Any:
        """Return an array that has no derivative."""
        return value

    def concrete(self, array: Any) -> Any:
        """Return an array whose values can be read now: of the library if possible, else of NumPy.

        It is None where the array has no values yet.
        """
        return array

    def unrecorded(self) -> AbstractContextManager[Any]:
        """Return a context in which the library records nothing for derivatives."""
        return nullcontext()

    def evaluated(self, arrays: Iterable[Any]) -> AbstractContextManager[Any]:
        """Return a context in which results have values where all arrays have, in a function that is traced too."""
        return nullcontext()

    def is_differentiated(self, arrays: Iterable[Any]) -> bool:
        """Tell whether results computed from arrays may be differentiated, in any mode, or mapped over an axis."""
        return False

    def must_be_differentiable(self, arrays: Iterable[Any]) -> bool:
        """Tell whether to compute results by what has derivatives, where something else is faster or more accurate."""
        return self.is_differentiated(arrays)

    def is_traced(self, array: Any) -> bool:
        """Tell whether an array has no values yet, as in a function that is being compiled."""
        return False

    def is_plain(self, arrays: Sequence[Any]) -> bool:
        """Tell whether results computed from arrays may be stored, since they belong to no trace, graph or mode.

        For a library without rules of its own that is not known, and the answer is no.
        """
        return False

    def is_eager_on_cpu(self, array: Any) -> bool:
        """Tell whether an array lies in the memory of the CPU, and each operation on it is done at once, uncompiled.

        Where that is not known, the answer is no.
        """
        return False

    def result_type(self, arrays: Sequence[Any], dtypes: Sequence[Any]) -> Any:
        """Return the dtype of a result of arrays, or of operands of known dtypes; `dtypes` holds that of each."""
        return self.xp.result_type(*dtypes)

    def copied(self, array: Any) -> Any:
        """Return a copy of an array, with its gradient; or the array itself where no array can be written to."""
        return self.xp.asarray(array, copy=True)

    def complex_of(self, real: Any, imag: Any) -> Any:
        """Return complex numbers by their real and imaginary parts."""
        dtype = self.xp.result_type(real.dtype, self.xp.complex64)
        return self.xp.astype(real, dtype) + 1j * self.xp.astype(imag, dtype)

    def without_derivative(self, value: Any, arrays: Sequence[Any], why: str) -> Any:
        """Return an array that depends on others, of which a derivative is an error that says why."""
        return value

    def untraced(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that looks at values, so that a compiler that can leaves it alone."""
        return function

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of arrays, compiled as a whole where the library does that."""
        return function

    def scan(self, step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, elements: Any) -> tuple[Any, Any]:
        """Return the last carry of a loop over the elements, and the results of all of its steps.

        ``step(carry, element)`` returns the next carry and a tuple of arrays. For each array of the tuple, those of all
        steps are stacked along a new first axis.
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

        The function takes arrays of the library that have values. `results` holds the shape and the dtype of each
        result. The arrays are on one device, and have equal numbers of axes. An axis that is mapped is the first one;
        it has length one in arrays that are not mapped.
        """
        return tuple(self.xp.asarray(value, device=device) for value in function(*arrays))

    def has_double_precision(self, device: Any) -> bool:
        """Tell whether arrays on this device may be in double precision, real and complex."""
        xp = self.xp
        return hasattr(xp, "complex128") and bool(xp.result_type(xp.float32, xp.float64) == xp.float64)

    def computes_in_double_precision(self, device: Any) -> bool:
        """Tell whether `in_double_precision` serves on this device, so that small systems need not move to the host.

        That may be so where arrays have single precision alone.
        """
        return False

    def has_values(self, array: Any) -> bool:
        """Tell whether the values of an array can be read here, to warn of them or to end a loop early."""
        return True

    def in_double_precision(
        self, function: Callable[..., Sequence[Any]], results: Sequence[tuple[tuple[int, ...], Any]], arrays: Any
    ) -> tuple[Any, ...]:
        """Return the results of a function that the library computes in double precision, without derivatives.

        The function takes the arrays in double precision, and its results are brought to the dtypes in `results`, which
        holds the shape and the dtype of each. For the axes of the arrays see `on_host`.
        """
        raise NotImplementedError

    def elimination(self, matrices: Any) -> Elimination:
        """Return the elimination of a stack of matrices, of shape ``(count, n, n)``."""
        return Elimination(partial(_solutions, self.xp, matrices), partial(self.xp.linalg.slogdet, matrices))

    def inverses(self, matrices: Any) -> Any:
        """Return the inverses of a stack of matrices; a singular one is an error where the library raises one."""
        return self.xp.linalg.inv(matrices)

    def solutions(self, matrices: Any, right: Any) -> Any:
        """Return the solutions of systems for columns; a singular matrix is an error where the library raises one."""
        return self.xp.linalg.solve(matrices, right)

    def cholesky_factors(self, matrices: Any) -> Any:
        """Return lower triangular factors; a matrix that is not definite is an error where the library raises one."""
        return self.xp.linalg.cholesky(matrices)

    def triangular_solutions(self, L: Any, b: Any) -> Any:
        """Return the solutions of systems with lower triangular matrices, of columns, by those of their two halves."""
        n = L.shape[-1]
        if n <= _SOLVED_AT_ONCE:
            return self.xp.linalg.solve(L, b)
        half = n // 2
        first = self.triangular_solutions(L[..., :half, :half], b[..., :half, :])
        rest = b[..., half:, :] - self.xp.matmul(L[..., half:, :half], first)
        return self.xp.concat([first, self.triangular_solutions(L[..., half:, half:], rest)], axis=-2)

    def solution(self, solver: Solver, A: Matrix, M: Matrix | None, b: Any) -> tuple[Any, tuple[Any, ...]]:
        """Return what a solver returns for ``A x = b``, where x has derivatives by the implicit rule.

        `b` has all batch axes and the dtype of x. M has no derivatives.
        """
        return solver(A, M, b, self.xp)

    def log_determinant(self, rule: LogDeterminant, A: Matrix, given: Any, value: Any) -> Any:
        """Return `value`, which is the logarithm of the determinant of A, with derivatives."""
        return value


def _solutions(xp: Any, matrices: Any, b: Any) -> Any:
    """Return solutions by a library that raises an error where one of the matrices is singular: NaN for that one."""
    try:
        return xp.linalg.solve(matrices, b)
    except np.linalg.LinAlgError:
        count = matrices.shape[0]
        if count == 1:
            return xp.full_like(b, xp.nan)
        halves = (slice(None, count // 2), slice(count // 2, None))
        return xp.concat([_solutions(xp, matrices[half], b[half]) for half in halves])


_classes: list[type] = []
_listeners: list[Callable[[type], None]] = []


def announce(cls: type) -> None:
    """Call all functions that `for_each_class` was given with a new class of objects with parameters."""
    _classes.append(cls)
    for listener in _listeners:
        listener(cls)


def for_each_class(listener: Callable[[type], None]) -> None:
    """Call `listener` with each class of objects with parameters, those that are defined later on included."""
    _listeners.append(listener)
    for cls in _classes:
        listener(cls)
