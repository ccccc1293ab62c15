"""Operators of structmat as a class of the package linear_operator, which this module imports."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Self

import linear_operator
import torch

from structmat._errors import ArgumentError
from structmat.operators import LinearOperator, Toeplitz


class StructuredLinearOperator(linear_operator.LinearOperator):
    """An operator of structmat, `structure`, whose parameters are replaced by given tensors.

    Every tensor has all batch axes of the operator in front, as linear_operator expects of its arguments.
    """

    def __init__(self, *tensors: Any, structure: LinearOperator) -> None:
        super().__init__(*tensors, structure=structure)
        left = iter(tensors)
        self.operator = structure._map(lambda *_: next(left))

    @classmethod
    def of(cls, operator: LinearOperator) -> Self:
        """Return an operator of structmat as one of this class."""
        batch = operator.batch_shape
        tensors = []

        def collect(tensor: Any, axes: int) -> Any:
            tensors.append(torch.broadcast_to(tensor, (*batch, *tensor.shape[tensor.ndim - axes :])))
            return tensors[-1]

        structure = operator._map(collect)
        return cls(*tensors, structure=structure)

    def _matmul(self, rhs: Any) -> Any:
        return self.operator @ rhs

    def _size(self) -> Any:
        return torch.Size((*self.operator.batch_shape, *self.operator.shape))

    def _transpose_nonbatch(self) -> Self:
        return self.of(self.operator.T)

    def _diagonal(self) -> Any:
        try:
            return self.operator.diagonal()
        except NotImplementedError:
            return super()._diagonal()

    def _getitem(self, row_index: Any, col_index: Any, *batch_indices: Any) -> Any:
        everything = slice(None)
        if everything == row_index == col_index:
            return super()._getitem(row_index, col_index, *batch_indices)
        # A block without structure, which these errors tell, is left to linear_operator.
        with suppress(ArgumentError, IndexError):
            block = self.of(self.operator[row_index, col_index])
            return block._getitem(everything, everything, *batch_indices)
        return super()._getitem(row_index, col_index, *batch_indices)

    def _get_indices(self, row_index: Any, col_index: Any, *batch_indices: Any) -> Any:
        op = self.operator
        if not isinstance(op, Toeplitz):
            return op.to_dense()[(*batch_indices, row_index, col_index)]
        constants = op._constants(op._own_namespace())
        return constants[(*batch_indices, row_index - col_index + op.shape[1] - 1)]
