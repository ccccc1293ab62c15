"""Rows and columns of an operator by their indices: what is observed of a series or a grid with gaps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from structmat._arguments import to_numpy
from structmat._array_tools import (
    ArgumentTypeError,
    ArgumentValueError,
    Array,
    DType,
    Namespace,
    Reciprocal,
    Scalar,
    concat_last,
    device_of,
    is_array,
    namespace_of,
)
from structmat._fourier import Step, written
from structmat.operators._linear_operator import LinearOperator
from structmat.operators._prepared import ByHooks, CombinedPlan, require_operators
from structmat.operators._products import LATER, is_choice, scale


@dataclass(frozen=True, eq=False)
class Indices:
    """Some of the rows or columns of a matrix, each at most once, in any order; they can be compared and hashed.

    Parameters
    ----------
    array : numpy.ndarray of int
        The indices, not negative.
    size : int
        The number of all rows or columns.

    Examples
    --------
    >>> import structmat as sm
    >>> A = sm.Fourier(4)[[3, 1]]
    >>> A.rows.array, A.rows.size, A.cols
    (array([3, 1]), 4, None)
    """

    array: Any
    """The indices, integers of NumPy."""
    size: int
    """The number of all rows or columns."""
    _places: Any = field(init=False, repr=False)
    """For each of these its place among the indices; for all others the number of indices."""
    _hash: int = field(init=False, repr=False)

    @classmethod
    def _of(cls, value: Any, size: int, owner: str, argument: str) -> Indices | None:
        """Return the indices that an array or a mask means; None for None, which stands for all."""
        if value is None or isinstance(value, cls):
            return value
        array = to_numpy(value) if is_array(value) else np.asarray(value)
        if array.ndim != 1 or array.dtype.kind not in "biu" or not array.size:
            got = f"{array.dtype} of shape {array.shape}"
            raise ArgumentTypeError(owner, argument, f"must be a mask or integers along one axis, got {got}")
        if array.dtype.kind == "b":
            if len(array) != size:
                raise ArgumentValueError(owner, argument, f"must be a mask of length {size}, got {len(array)}")
            array = np.flatnonzero(array)
            if not array.size:
                raise ArgumentValueError(owner, argument, "must keep one index at least, got a mask without any")
        if array.min() < -size or array.max() >= size:
            wrong = array[(array < -size) | (array >= size)][0]
            raise IndexError(f"{owner}: {argument} has {wrong}, which is none of the {size} indices")
        array = np.where(array < 0, array + size, array).astype(np.int64)
        if np.bincount(array, minlength=size).max() > 1:
            raise ArgumentValueError(
                owner, argument, "must name each index at most once: average what was measured again"
            )
        return cls(array, size)

    def __len__(self) -> int:
        return len(self.array)

    def __post_init__(self) -> None:
        # now, as no compiler traces a property that is kept when it is first asked for
        places = np.full(self.size, len(self.array))
        places[self.array] = np.arange(len(self.array))
        object.__setattr__(self, "_places", places)
        object.__setattr__(self, "_hash", hash((self.size, self.array.tobytes())))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Indices) and self.size == other.size and np.array_equal(self.array, other.array)

    def _gathered(self, y: Array, xp: Namespace) -> Array:
        """Return the entries along the last axis at these indices."""
        return xp.take(y, xp.asarray(self.array, device=device_of(y)), axis=-1)

    def _scattered(self, x: Array, xp: Namespace, fill: Array | None = None) -> Array:
        """Return vectors with the given entries at these indices, and zero elsewhere, or `fill`, one for a vector."""
        last = xp.zeros_like(x[..., :1]) if fill is None else fill
        return xp.take(concat_last([x, last], xp), xp.asarray(self._places, device=device_of(x)), axis=-1)

    def _others(self) -> Indices | None:
        """Return all other rows or columns, in order; None where there are none."""
        others = np.flatnonzero(self._places == len(self.array))
        return Indices(others, self.size) if len(others) else None

    def _within(self, inner: Indices | None) -> Indices:
        """Return what these mean among others that were chosen before."""
        return self if inner is None else Indices(inner.array[self.array], inner.size)


def _take(y: Array, indices: Indices | None, xp: Namespace) -> Array:
    return y if indices is None else indices._gathered(y, xp)


def _put(x: Array, indices: Indices | None, xp: Namespace) -> Array:
    return x if indices is None else indices._scattered(x, xp)


@dataclass(frozen=True, eq=False, repr=False)
class SubmatrixPlan(CombinedPlan):
    """The plan of the whole matrix, its one part, between zeros put in and entries left out."""

    rows: Indices | None
    cols: Indices | None

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows and columns were chosen."""
        return _shape(self.parts[0].shape, self.rows, self.cols)

    def step(self, xp: Namespace, dtype: str, *, batched: bool, once: bool = False) -> Step:
        step = self.parts[0].step(xp, dtype, batched=batched, once=once)
        return lambda x, out: written(_take(step(_put(x, self.cols, xp), None), self.rows, xp), out)

    def apply(self, x: Array, xp: Namespace) -> Array:
        return _take(self.parts[0].apply(_put(x, self.cols, xp), xp), self.rows, xp)


@dataclass(frozen=True, eq=False, repr=False)
class Submatrix(LinearOperator):
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
        If `operator` is not an operator, or an index array has another dtype or several axes.
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

    @property
    def dtype(self) -> DType:
        """The dtype of the whole matrix."""
        return self.operator.dtype

    @property
    def _forces_complex(self) -> bool:
        return self.operator._forces_complex

    def _details(self) -> str:
        return f"{type(self.operator).__name__}{self.operator.shape}, "

    def _described(self) -> str:
        return "rows and columns chosen by indices"

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        return _take(self.operator._matvec(_put(x, self.cols, xp), xp), self.rows, xp)

    def _rmatvec(self, y: Array, xp: Namespace) -> Array:
        return _take(self.operator._rmatvec(_put(y, self.rows, xp), xp), self.cols, xp)

    def _plan(self, xp: Namespace) -> SubmatrixPlan:
        return SubmatrixPlan((self.operator._plan(xp) or ByHooks(self.operator),), False, self.rows, self.cols)

    def _transpose(self) -> Submatrix:
        return Submatrix(self.operator._transpose(), self.cols, self.rows)

    def _conj(self) -> Submatrix:
        return Submatrix(self.operator._conj(), self.rows, self.cols)

    def _whole(self) -> tuple[LinearOperator, Any]:
        return (self, None) if self.rows is None or self.rows != self.cols else (self.operator, self.rows)

    def _diagonal(self, method: str, xp: Namespace) -> Array:
        if self.rows != self.cols:
            raise self._no_closed_form(method)
        return _take(self.operator._diagonal(method, xp), self.rows, xp)


def _shape(whole: tuple[int, int], rows: Indices | None, cols: Indices | None) -> tuple[int, int]:
    return (whole[0] if rows is None else len(rows), whole[1] if cols is None else len(cols))


@scale.rule(Submatrix, object)
def _scale(operator: Submatrix, factor: Scalar | Reciprocal) -> Submatrix:
    return Submatrix(scale(operator.operator, factor), operator.rows, operator.cols)


def submatrix(operator: Any, *index: Any) -> Any:
    """Return ``operator[index]``, rows and columns, where one of the two is an array or a slice with a step."""
    owner = f"{type(operator).__name__}[i, j]"
    if all(is_choice(part) and not isinstance(part, slice) for part in index):
        text = "takes one array of indices at a time: op[rows][:, cols], as NumPy would pair them"
        raise ArgumentTypeError(owner, None, text)
    names, found = ("rows", "cols"), []
    for part, size, name in zip(index, operator.shape, names, strict=True):
        chosen = np.arange(size)[part] if isinstance(part, slice) and part != slice(None) else part
        indices = Indices._of(chosen, size, owner, name) if is_choice(chosen) else None
        found.append(indices)
        if indices is None and not isinstance(part, slice):  # an integer: one row or column
            line, other = (operator[part], 1) if name == "rows" else (operator[:, part], 0)
            return _take(
                line, Indices._of(index[other], operator.shape[other], owner, names[other]), namespace_of(owner, line)
            )
    if type(operator) is not Submatrix:
        return Submatrix(operator, *found)
    before = (operator.rows, operator.cols)
    return Submatrix(operator.operator, *(b if f is None else f._within(b) for f, b in zip(found, before, strict=True)))


LATER["submatrix"] = submatrix
