"""How products are computed: the interface of plans, which take arrays and return arrays.

A plan is made for one product, or kept by a prepared operator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from structmat._arrays import complex_partner, is_complex, is_numpy
from structmat._arrays.parameters import Parametrised
from structmat._arrays.typing import Array, Namespace
from structmat._engine.chunks import in_chunks, rows_in_chunk

__all__ = ["ByParts", "ChunkedPlan", "Plan", "Step", "handed_over"]

Step: TypeAlias = Callable[[Any, Any], Any]
"""Returns the products of one vector or of rows, in the second argument where that is possible and given."""


def handed_over(y: Any, out: Any) -> Any:
    """Return the result of a step, in `out` where that is given."""
    if out is None:
        return y
    out[...] = y
    return out


class Plan(Parametrised, ABC):
    """What computes the products of one matrix, or of a stack of them."""

    __slots__ = ()

    @abstractmethod
    def apply(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis."""

    @abstractmethod
    def transpose(self) -> Self:
        """Return the plan of the transpose."""

    @abstractmethod
    def conj(self) -> Self:
        """Return the plan of the complex conjugate."""

    def adjoint(self) -> Self:
        """Return the plan of the conjugate transpose."""
        return self.conj().transpose()


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class ByParts(Plan):
    """The plan of an operator made of prepared operators: its own hooks, which go through theirs."""

    _core_axes = {"operator": None}

    operator: Any
    is_adjoint: bool = False
    """Whether it is the plan of the adjoint, for which nothing is made of the parts."""

    def apply(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis."""
        y: Array = self.operator._rmatvec(x, xp) if self.is_adjoint else self.operator._matvec(x, xp)
        return y

    def transpose(self) -> ByParts:
        """Return the plan of the transpose."""
        return ByParts(self.operator._conj(), not self.is_adjoint)

    def conj(self) -> ByParts:
        """Return the plan of the complex conjugate."""
        return ByParts(self.operator._conj(), self.is_adjoint)

    def adjoint(self) -> ByParts:
        """Return the plan of the conjugate transpose."""
        return ByParts(self.operator, not self.is_adjoint)


class ChunkedPlan(Plan):
    """A plan that takes real vectors or complex ones, and those of NumPy chunk by chunk."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def shape(self) -> tuple[int, int]:
            """Rows and columns."""

        @property
        def is_real(self) -> bool:
            """Whether it takes real vectors, or complex ones."""

    @property
    @abstractmethod
    def is_stack(self) -> bool:
        """Whether its parameters have batch axes."""

    @property
    @abstractmethod
    def width(self) -> int:
        """How many numbers a product moves at a time for one vector."""

    @property
    @abstractmethod
    def cost(self) -> float:
        """How long the convolutions of one product are together."""

    @abstractmethod
    def step(self, dtype: str, *, batched: bool, once: bool = False) -> Step:
        """Return what computes NumPy's chunks of that dtype, of one vector or of a batch, `once` or again and again."""

    @abstractmethod
    def whole(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis, on any library, of vectors of the right kind."""

    def call(self, xp: Namespace, *, batched: bool) -> Callable[[Any], Any]:
        """Return the function that `whole` is for one vector or for a batch, with its look-ups done."""
        return partial(self.whole, xp=xp)

    def chunk_rows(self, dtype: Any) -> int | None:
        """Return how many vectors of that NumPy dtype to give to a step at a time, or None for all."""
        return rows_in_chunk(self.width, dtype.itemsize)

    def apply(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis, of any vectors."""
        if is_complex(x.dtype, xp) == self.is_real:
            if self.is_real:
                return self.apply(xp.real(x), xp) + 1j * self.apply(xp.imag(x), xp)
            x = xp.astype(x, complex_partner(x.dtype, xp))
        if not is_numpy(xp) or self.is_stack:
            return self.whole(x, xp)
        step = self.step(x.dtype.name, batched=x.ndim > 1, once=True)
        if x.ndim == 1:
            y: Array = step(x, None)
            return y
        return in_chunks(step, x, self.shape[0], self.chunk_rows(x.dtype))
