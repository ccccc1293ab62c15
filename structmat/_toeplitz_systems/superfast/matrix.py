"""The matrix ``K = M T M + D + (1 - M)`` itself, by its products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from structmat._arrays.arithmetic import conjugate, real_part
from structmat._arrays.shapes import concat_last
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.blocks import BlockToeplitzConvolution
from structmat._fourier.embedding import kernel_of_diagonals
from structmat._fourier.plans import Convolution
from structmat._parametrised import Parametrised


@dataclass(frozen=True, eq=False, repr=False)
class NoisyToeplitz(Parametrised):
    """The matrix ``K = M T M + D + (1 - M)``."""

    _core_axes = {"c": 1, "noise": 1, "there": 1}

    c: Array
    """The first block column of T, the entries of blocks one after the other, row by row. The first is Hermitian."""
    noise: Array
    """The diagonal of D, one number for each row."""
    there: Array
    """One for a row that is there, zero for one that is missing."""

    @property
    def H(self) -> Self:
        """The matrix itself."""
        return self

    @property
    def rows(self) -> int:
        """How many rows there are, of those that are missing as well."""
        return int(self.noise.shape[-1])

    @property
    def channels(self) -> int:
        """The rows of a block: one for a Toeplitz matrix."""
        return int(self.c.shape[-1]) // self.rows

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        plan = self._plan(xp)
        return self.there * plan.apply(self.there * x, xp) + self._diagonal(xp) * x

    def _plan(self, xp: Namespace) -> Convolution | BlockToeplitzConvolution:
        """Return the product with T."""
        n, p = self.rows, self.channels
        if p > 1:
            column = xp.reshape(self.c, (n // p, p, p))
            return BlockToeplitzConvolution.of(column, conjugate(xp.matrix_transpose(column), xp), xp)
        first = real_part(self.c[:1], xp)
        column = concat_last([first, self.c[1:]], xp) if n > 1 else first
        return Convolution.of(kernel_of_diagonals(column, conjugate(self.c[1:], xp), xp), (n, n), xp)

    def _diagonal(self, xp: Namespace) -> Array:
        return xp.where(self.there > 0.0, self.noise, xp.ones_like(self.noise))
