"""What draws operators: whole numbers for sizes, from Hypothesis or a generator, and vectors from one seed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np

from structmat.operators import LinearOperator
from structmat.testing._references import Values

_Choice = TypeVar("_Choice")

Integers: TypeAlias = Callable[[int, int], int]
"""A function that draws a whole number from the first argument on, below the second."""

AsArray: TypeAlias = Callable[[Values], Any]
"""A function that returns an array of a library of an array of NumPy."""

SIZES = (1, 2, 3, 4, 5, 7, 8, 9)
"""The sides of matrices, where no shape is asked for."""
COMPOSITE_SIZES = (1, 2, 3, 4, 6, 8, 9, 12)
"""The sides of those that are made of blocks, or of grids."""


@dataclass(frozen=True)
class Sample:
    """An operator, on any library, its dense matrix in double precision, and the dtype of its vectors."""

    make: Callable[[AsArray], LinearOperator]
    dense: Values
    dtype: np.dtype[Any]


class Vectors:
    """Draws vectors of one dtype and batch shape from one seed; now and then it leaves the batch axes of one out.

    The first vector always has the batch axes. Simple numbers are whole, from 1 to 9. Sizes and choices come from
    `integers`, by default from the seed too; they are smallest, and first, where the least numbers are drawn. With a
    `shape` the matrix has that one.
    """

    def __init__(
        self,
        seed: int,
        dtype: str,
        batch: tuple[int, ...] = (),
        *,
        integers: Integers | None = None,
        shape: tuple[int, int] | None = None,
        is_simple: bool = False,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.is_simple = is_simple
        self.integers: Any = self.rng.integers if integers is None else integers
        self.dtype = np.dtype(dtype)
        self.batch = batch
        self.shape = shape
        self._has_batch: list[bool] = []

    def of_shape(self, shape: tuple[int, int]) -> Vectors:
        """Return what draws from the same source, for a part of a given shape."""
        part = copy.copy(self)
        part.shape = shape
        return part

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high)."""
        return int(self.integers(low, high))

    def choice(self, choices: Sequence[_Choice]) -> _Choice:
        """One of several, the first one where the least numbers are drawn."""
        return choices[self.integer(0, len(choices))]

    def chance(self, share: float) -> bool:
        """Whether something is to be done that is done in a share of all cases."""
        return self.integer(0, 100) >= 100 - round(100 * share)

    def permutation(self, size: int) -> Values:
        """The numbers below `size` in any order."""
        order = np.arange(size)
        for k in range(size - 1):
            other = self.integer(k, size)
            order[[k, other]] = order[[other, k]]
        return order

    def size(self) -> int:
        """The side of a square matrix."""
        return self.choice(SIZES) if self.shape is None else self.shape[0]

    def composite(self) -> int:
        """The side of a square matrix that is a product of other numbers."""
        return self.choice(COMPOSITE_SIZES) if self.shape is None else self.shape[0]

    def sides(self) -> tuple[int, int]:
        """The sides of a matrix that is not square, unless a square shape was asked for."""
        if self.shape is not None:
            return self.shape
        least = self.size()
        other = least + self.integer(1, 5)
        return (other, least) if self.chance(0.5) else (least, other)

    def factors(self, n: int, count: int) -> tuple[int, ...]:
        """Numbers whose product is n."""
        found = []
        for _ in range(count - 1):
            divisor = self.choice([k for k in range(n, 0, -1) if n % k == 0])
            found.append(divisor)
            n //= divisor
        return (*found, n)

    def __call__(self, *core: int) -> Values:
        """An array of the dtype, with these axes behind those of the batch."""
        has_batch = not self._has_batch or not self.chance(0.3)
        self._has_batch.append(has_batch)
        shape = (*(self.batch if has_batch else ()), *core)
        values = self._numbers(shape)
        if self.dtype.kind == "c":
            values = values + 1j * self._numbers(shape)
        return values.astype(self.dtype)

    def _numbers(self, shape: tuple[int, ...]) -> Values:
        if self.is_simple:
            return self.rng.integers(1, 10, shape).astype(float)
        return self.rng.standard_normal(shape)
