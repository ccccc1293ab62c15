"""An operator made of one other operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structmat._arrays.typing import DType
from structmat.operators._base.linear_operator import LinearOperator


class Wrapper(LinearOperator):
    """An operator made of one other, its field `operator`, which by default has the shape and dtype of that."""

    if TYPE_CHECKING:
        operator: LinearOperator

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the operator."""
        return self.operator.shape

    @property
    def dtype(self) -> DType:
        """The dtype of the operator."""
        return self.operator.dtype

    def _details(self) -> str:
        return f"{type(self.operator).__name__}, "
