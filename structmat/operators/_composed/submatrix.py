"""Submatrices of operators: rows and columns chosen by their indices."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from structmat._arrays.arithmetic import Reciprocal
from structmat._arrays.libraries import namespace_of
from structmat._arrays.typing import Array, Namespace, Scalar
from structmat._errors import ArgumentTypeError
from structmat.operators._base.arithmetic import scale, submatrix
from structmat.operators._base.closed_forms import NoClosedFormError
from structmat.operators._base.hooks import Context
from structmat.operators._base.indices import Indices, is_choice, range_of
from structmat.operators._base.linear_operator import LinearOperator
from structmat.operators._base.near import Near
from structmat.operators._base.parts import require_operators
from structmat.operators._base.wrapper import Wrapper


def _take(y: Array, indices: Indices | None, xp: Namespace) -> Array:
    return y if indices is None else indices._gathered(y, xp)


def _put(x: Array, indices: Indices | None, xp: Namespace) -> Array:
    return x if indices is None else indices._scattered(x, xp)


_MOST_LEFT_OUT = 4
"""Of a block of up to so many times as many entries, which are read from the parameters, a dense matrix is gathered."""


@dataclass(frozen=True, eq=False, repr=False)
class Submatrix(Wrapper):
    """Some rows and columns of an operator, ``A[rows[:, None], cols]``, as returned by ``op[rows][:, cols]``.

    Parameters
    ----------
    operator : LinearOperator
        The whole matrix, or a stack of them.
    rows, cols : array of bool or int, optional
        A mask, or indices in any order, each at most once. Values, not traced ones, of any library. Default: all.

    Raises
    ------
    TypeError
        If `operator` is not an operator, or an index array has another dtype or several axes, or no known values.
    ValueError
        If a mask has another length, or nothing is chosen, or an index twice.
    IndexError
        If an index is out of range.

    See Also
    --------
    structmat.solve, structmat.slogdet : For the same rows and columns they use the structure of the whole matrix.

    Notes
    -----
    A product puts zeros in the place of the columns that were left out, multiplies by the whole matrix, and leaves out
    rows. So it costs as much as a product with the whole matrix.

    Examples
    --------
    The covariance matrix of a series with two gaps:

    >>> import numpy as np
    >>> import structmat as sm
    >>> T = sm.Toeplitz(0.5 ** np.arange(6))
    >>> observed = np.array([True, False, True, True, False, True])
    >>> A = T[observed][:, observed]
    >>> A
    Submatrix(Toeplitz(6, 6), shape=(4, 4), dtype=float64, device=cpu)
    >>> A.to_dense().round(5)
    array([[1.     , 0.25   , 0.125  , 0.03125],
           [0.25   , 1.     , 0.5    , 0.125  ],
           [0.125  , 0.5    , 1.     , 0.25   ],
           [0.03125, 0.125  , 0.25   , 1.     ]])
    """

    _core_axes = {"operator": None}

    operator: LinearOperator
    """The whole matrix."""
    rows: Any = None
    """The chosen rows, as `Indices`; None for all."""
    cols: Any = None
    """The chosen columns."""

    def __post_init__(self) -> None:
        require_operators("Submatrix", "operator", (self.operator,))
        for name, size in zip(("rows", "cols"), self.operator.shape, strict=True):
            object.__setattr__(self, name, Indices._of(getattr(self, name), size, "Submatrix", name))

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows and columns were chosen."""
        return _shape(self.operator.shape, self.rows, self.cols)

    def _details(self) -> str:
        return f"{type(self.operator).__name__}{self.operator.shape}, "

    def _described(self) -> str:
        return "rows and columns chosen by indices"

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        return _take(self.operator._matvec(_put(x, self.cols, xp), xp), self.rows, xp)

    def _rmatvec(self, y: Array, xp: Namespace) -> Array:
        return _take(self.operator._rmatvec(_put(y, self.rows, xp), xp), self.cols, xp)

    def _to_dense(self, like: Context) -> Array:
        """Dense matrix, from the entries of the smallest block around it where they are known and few are left out.

        So they are exact: products round relative to the largest entry of the whole matrix.
        """
        rows, cols = (_between(*pair) for pair in zip((self.rows, self.cols), self.operator.shape, strict=True))
        if len(rows) * len(cols) > _MOST_LEFT_OUT * prod(self.shape):
            return self._by_products(like)
        is_whole = (len(rows), len(cols)) == self.operator.shape
        block = self.operator if is_whole else self.operator._block(rows, cols, like.xp)
        if not isinstance(block, LinearOperator):
            return self._by_products(like)
        xp, dense = like.xp, block._to_dense(like)
        if self.rows is not None:
            dense = self.rows._from(rows)._gathered(dense, xp, axis=-2)
        return dense if self.cols is None else self.cols._from(cols)._gathered(dense, xp)

    def _by_products(self, like: Context) -> Array:
        """Return the dense matrix from products with unit vectors: of the rows where these are fewer."""
        rows, cols = self.shape
        if rows < cols:
            with suppress(NotImplementedError):  # not every operator has a transpose
                return like.xp.matrix_transpose(LinearOperator._to_dense(self._transpose(), like))
        return super()._to_dense(like)

    def _transpose(self) -> Submatrix:
        return Submatrix(self.operator._transpose(), self.cols, self.rows)

    def _near(self, like: Array, xp: Namespace) -> Near:
        if self.rows is None or self.rows != self.cols:
            return Near(self)
        near = self.operator._near(like, xp)
        return near._replace(chosen=self.rows._within(near.chosen))

    def _diagonal(self, xp: Namespace) -> Array:
        if self.rows != self.cols:
            raise NoClosedFormError(self)
        return _take(self.operator._diagonal(xp), self.rows, xp)


def _between(indices: Indices | None, size: int) -> range:
    """Return the range from the least of the indices to the largest."""
    return range(size) if indices is None else range(int(indices.array.min()), int(indices.array.max()) + 1)


def _shape(whole: tuple[int, int], rows: Indices | None, cols: Indices | None) -> tuple[int, int]:
    return (whole[0] if rows is None else len(rows), whole[1] if cols is None else len(cols))


@scale.rule(Submatrix, object)
def _scale(operator: Submatrix, factor: Scalar | Reciprocal) -> Submatrix:
    return Submatrix(scale(operator.operator, factor), operator.rows, operator.cols)


@submatrix.rule(object, object)
def _submatrix(operator: LinearOperator, index: tuple[Any, Any]) -> Any:
    """Return ``operator[index]``, of rows and columns: arrays, slices, and one integer at most."""
    owner = f"{type(operator).__name__}[i, j]"
    if all(is_choice(part) and not isinstance(part, slice) for part in index):
        text = "takes one array of indices at a time: write op[rows][:, cols]; of two arrays NumPy makes pairs"
        raise ArgumentTypeError(owner, None, text)
    found: list[Indices | None] = []
    for part, size, name in zip(index, operator.shape, ("rows", "cols"), strict=True):
        chosen: Any = part if is_choice(part) else None
        if isinstance(part, slice) and part != slice(None):
            chosen = np.asarray(range_of(part, size, owner, name))
        found.append(Indices._of(chosen, size, owner, name))
    for k, part in enumerate(index):
        if not (is_choice(part) or isinstance(part, slice)):  # an integer: one row or column
            line = operator[:, part] if k else operator[part]
            return _take(line, found[1 - k], namespace_of(owner, line))
    if not isinstance(operator, Submatrix):
        return Submatrix(operator, *found)
    before = (operator.rows, operator.cols)
    return Submatrix(operator.operator, *(b if f is None else f._within(b) for f, b in zip(found, before, strict=True)))
