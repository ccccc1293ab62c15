"""The matrix ``K = M T M + D + (1 - M)`` itself, by its products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from structmat._arrays.arithmetic import conjugate, real_part
from structmat._arrays.shapes import concat_last
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.embedding import kernel_of_diagonals
from structmat._fourier.plans import Convolution
from structmat._parametrised import Parametrised


@dataclass(frozen=True, eq=False, repr=False)
class NoisyToeplitz(Parametrised):
    """The matrix ``K = M T M + D + (1 - M)``."""

    _core_axes = {"c": 1, "noise": 1, "there": 1}

    c: Array
    """The first column of T, of which the first entry is real."""
    noise: Array
    """The diagonal of D, one number for each row."""
    there: Array
    """One for a row that is there, zero for one that is missing."""

    @property
    def H(self) -> Self:
        """The matrix itself."""
        return self

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        n = self.c.shape[-1]
        first = real_part(self.c[:1], xp)
        column = concat_last([first, self.c[1:]], xp) if n > 1 else first
        plan = Convolution.of(kernel_of_diagonals(column, conjugate(self.c[1:], xp), xp), (n, n), xp)
        return self.there * plan.apply(self.there * x, xp) + self._diagonal(xp) * x

    def _diagonal(self, xp: Namespace) -> Array:
        return xp.where(self.there > 0.0, self.noise, xp.ones_like(self.noise))
