"""The change of one layer, read or computed when it is needed: tuned minus base, itself, of a LoRA, of any method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from structmat.io import CheckpointError, Entry

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Change", "Computed", "Difference", "LowRank", "Stored", "equal"]


@dataclass(frozen=True)
class Difference:
    """A tuned weight minus its base."""

    tuned: Entry
    base: Entry

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tuned.shape

    @property
    def dtype(self) -> str:
        return self.tuned.dtype

    def check(self, *, cast: bool) -> None:
        """Refuse weights that do not go together; `cast` lets their dtypes differ."""
        for entry in (self.base, self.tuned):
            entry.check_floats()
        if self.tuned.shape != self.base.shape:
            raise CheckpointError(f"{self.tuned} has shape {self.tuned.shape}, but {self.base} has {self.base.shape}")
        if self.tuned.dtype != self.base.dtype and not cast:
            raise CheckpointError(
                f"{self.tuned} has dtype {self.tuned.dtype}, but {self.base} has {self.base.dtype}; the option cast "
                "takes them so"
            )

    @np.errstate(over="ignore", invalid="ignore")  # infinity and NaN are refused by whoever asks
    def matrix(self) -> NDArray[Any]:
        """Return the change; one whole matrix is held, and a few rows of the other."""
        wide = "float64" if "float64" in {self.tuned.dtype, self.base.dtype} else "float32"
        change = np.empty(self.shape, wide)
        for rows, part in self.tuned.chunks():
            change[rows] = part
        for rows, part in self.base.chunks():
            change[rows] -= part
        return change

    def __str__(self) -> str:
        return str(self.tuned)


@dataclass(frozen=True)
class Stored:
    """A change that stands in a file."""

    entry: Entry

    @property
    def shape(self) -> tuple[int, ...]:
        return self.entry.shape

    @property
    def dtype(self) -> str:
        return self.entry.dtype

    def check(self) -> None:
        """Refuse what cannot be read."""
        self.entry.check_floats()

    def matrix(self) -> NDArray[Any]:
        """Return the change."""
        return self.entry.read()

    def __str__(self) -> str:
        return str(self.entry)


@dataclass(frozen=True)
class LowRank:
    """The change of a LoRA adapter, ``scale * left @ right``."""

    left: Entry
    right: Entry
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.left.shape[0], self.right.shape[1])

    @property
    def dtype(self) -> str:
        return self.left.dtype

    def check(self) -> None:
        """Refuse factors that do not go together."""
        for entry in (self.left, self.right):
            entry.check_floats()
            if len(entry.shape) != 2:
                raise CheckpointError(f"{entry} has shape {entry.shape}, but only changes of linear layers are fitted")
        if self.left.shape[1] != self.right.shape[0]:
            raise CheckpointError(f"{self.left} has shape {self.left.shape}, but {self.right} has {self.right.shape}")

    @np.errstate(over="ignore", invalid="ignore")
    def matrix(self) -> NDArray[Any]:
        """Return the change."""
        left = self.left.read()
        left *= self.scale
        return left @ self.right.read()

    def __str__(self) -> str:
        return str(self.left)


@dataclass(frozen=True)
class Computed:
    """A change that a method in memory computes."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    matrix: Callable[[], NDArray[Any]]
    """Returns a new array."""

    def check(self) -> None:
        """Refuse nothing: whoever computes it vouches for it."""

    def __str__(self) -> str:
        return self.name


Change: TypeAlias = Difference | Stored | LowRank | Computed


def equal(left: Entry, right: Entry) -> bool:
    """Return whether two weights are the same, bit for bit; of different dtypes, by their values."""
    if left.shape != right.shape:
        return False
    # The steps in which they are read depend on the shape alone.
    if left.dtype == right.dtype:
        return all(a.data == b.data for (_, a), (_, b) in zip(left.pieces(), right.pieces(), strict=True))
    return all(np.array_equal(a, b) for (_, a), (_, b) in zip(left.chunks(), right.chunks(), strict=True))
