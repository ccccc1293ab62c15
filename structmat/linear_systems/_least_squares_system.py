"""Least-squares problems as square systems, so that their derivatives are those of solutions."""

from __future__ import annotations

from dataclasses import dataclass

from structmat._arrays.shapes import concat_last
from structmat._arrays.typing import Array, Namespace
from structmat.operators import LinearOperator


@dataclass(frozen=True, eq=False, repr=False)
class LeastSquaresSystem(LinearOperator):
    """The Hermitian matrix ``[I, B; B^H, 0]`` of vectors ``(r, x)``, of a matrix B of full column rank.

    With right-hand sides ``(b, 0)`` the part x is the least-squares solution of ``B x = b`` and r its residual; with
    ``(0, b)`` the part r is the solution of least norm of ``B^H r = b``.
    """

    _core_axes = {"operator": None}

    operator: LinearOperator
    """The matrix B."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of B together, twice."""
        return (sum(self.operator.shape), sum(self.operator.shape))

    def parts(self, vectors: Array) -> tuple[Array, Array]:
        """Return r and x of vectors, or the two parts of right-hand sides."""
        rows = self.operator.shape[0]
        return vectors[..., :rows], vectors[..., rows:]

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        residual, solution = self.parts(x)
        first = residual + self.operator._matvec(solution, xp)
        return concat_last([first, self.operator._rmatvec(residual, xp)], xp)

    def _transpose(self) -> LinearOperator:
        return LeastSquaresSystem(self.operator._conj())

    def _conj(self) -> LinearOperator:
        return LeastSquaresSystem(self.operator._conj())
