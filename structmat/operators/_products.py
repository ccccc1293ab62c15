"""What operators do with arrays and with one another: products, transposes, precision, and Python's arithmetic."""

from __future__ import annotations

import operator
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from math import prod
from numbers import Rational
from typing import Any, Generic, NamedTuple, Self, TypeAlias, TypeVar

import numpy as np

from structmat._arguments import as_floating, integer, wrong_shape
from structmat._arrays.arithmetic import Reciprocal, conjugate
from structmat._arrays.conversion import copied, copied_into
from structmat._arrays.dtypes import (
    cast_back,
    common_dtype,
    complex_partner,
    dtype_name,
    in_precision,
    is_complex,
    is_half_precision,
    precision_of,
    shared_dtype,
)
from structmat._arrays.libraries import device_of, is_array, is_numpy, namespace_of
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.shapes import broadcast_shapes, is_vector
from structmat._arrays.typing import Array, ArrayLike, Device, DType, Namespace
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._fourier.plans import Plan, Products
from structmat._parametrised import Parametrised

Op = TypeVar("Op", bound="Operator[Any]")
"""The whole base class, `LinearOperator`, which is defined on top of this part."""

_WITH_COLUMNS = {
    "matvec": ", or write A @ x; what SciPy gives columns takes structmat.scipy.as_linear_operator(A)",
    "rmatvec": ", or write A.H @ y; what SciPy gives columns takes structmat.scipy.as_linear_operator(A)",
    "inv_matvec": ", or use solve",
}

_WITH_VECTORS = {"solve": "inv_matvec", "lstsq": "pinv().matvec", "matmat": "matvec"}
"""What does the same as a method that takes columns, for vectors along the last axis."""

_ANY_INDEX = "; op.to_dense()[...] takes any index"


def _for_grids(method: str, argument: str, shape: tuple[int, ...], length: int) -> str:
    """Return what the message of a wrong shape says where `length` is the number of points of a grid."""
    if method == "matvec":
        return "; for arrays on the grid use convolve"
    if prod(shape) == length:
        method = "matvec" if method == "matmat" else method
        return f"; an array on the grid is one vector, as is the result: {method}({argument}.reshape({length}))"
    if any(prod(shape[cut:]) == length for cut in range(len(shape) - 1)):
        method = _WITH_VECTORS.get(method, method)
        text = f"{method}({argument}.reshape(-1, {length}))"
        return f"; arrays on the grid are vectors along the last axis, as are the results: {text}"
    return ""


Rule: TypeAlias = Callable[[Any, Any], Any]


class PairRules:
    """Rules for pairs of types; a rule may return ``NotImplemented`` to leave the pair to the next rule.

    Parameters
    ----------
    commutative : bool
        Whether each rule also serves the swapped pair.

    Notes
    -----
    The order is: the exact pair, the exact left type with anything, anything with the exact right type. `object` stands
    for "anything" when a rule is registered.

    Examples
    --------
    >>> from structmat.extend import PairRules
    >>> join = PairRules(commutative=True)
    >>> @join.rule(int, str)
    ... def _(number, text):
    ...     return f"{number} {text}"
    >>> join.merge("apples", 3), join.merge(1.0, "pear")
    ('3 apples', NotImplemented)
    """

    __slots__ = ("_commutative", "_rules")

    def __init__(self, *, commutative: bool) -> None:
        self._commutative = commutative
        self._rules: dict[tuple[type, type], Rule] = {}

    def rule(self, left: type, right: type) -> Callable[[Rule], Rule]:
        """Register the decorated function for a pair of types.

        Parameters
        ----------
        left, right : type
            Of the two operands, exactly; `object` for any.

        Returns
        -------
        callable
            A decorator, which returns its function.
        """

        def register(function: Rule) -> Rule:
            self._rules[left, right] = function
            return function

        return register

    def merge(self, left: Any, right: Any) -> Any:
        """Return the result of the most specific rule for a pair.

        Parameters
        ----------
        left, right : object
            The operands.

        Returns
        -------
        object
            ``NotImplemented`` where no rule applies.
        """
        for pair in ((type(left), type(right)), (type(left), object), (object, type(right))):
            if (rule := self._rules.get(pair)) and (found := rule(left, right)) is not NotImplemented:
                return found
            rule = self._rules.get(pair[::-1]) if self._commutative else None
            if rule and (found := rule(right, left)) is not NotImplemented:
                return found
        return NotImplemented

    def __call__(self, left: Any, right: Any) -> Any:
        """Return what the best rule makes of the pair; the fall-back for any two types always answers."""
        found = self.merge(left, right)
        return self._rules[object, object](left, right) if found is NotImplemented else found


compose = PairRules(commutative=False)
"""What ``left @ right`` is."""

add = PairRules(commutative=True)
"""What ``left + right`` is."""

scale = PairRules(commutative=False)
"""What ``operator * number`` is."""

LATER: dict[str, Callable[..., Any]] = {}
"""What the base class reaches of modules that are built on it: "block", "power", "prepare", "submatrix"."""


class Context(NamedTuple):
    """Library, dtype and device of a dense matrix, for operators without arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.operators import Context
    >>> Context(np, np.float32, "cpu").dtype is np.float32
    True
    """

    xp: Namespace
    dtype: DType
    device: Device


class Operator(Parametrised, ABC, Generic[Op]):
    """Products, transposes and precision of `LinearOperator`; see there."""

    __array_ufunc__ = None  # so that `array @ op` and `array * op` reach the methods below

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        """Refuse what NumPy would make of an operator: an array of objects, or n^2 entries that nobody asked for."""
        text = "is no array: use op.to_dense() for its entries, op @ x for products"
        text += ", structmat.scipy.as_linear_operator(op) beside operators of SciPy"
        text += ", and for a sparse matrix S op @ S.toarray() or scipy.sparse.linalg.aslinearoperator(S) beside that"
        raise ArgumentTypeError(type(self).__name__, None, text)

    __iter__ = None  # `__getitem__` alone would make it a sequence of rows, each at the cost of a product

    # Description

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Rows and columns of one matrix, without the batch axes."""

    @property
    def ndim(self) -> int:
        """2, the length of `shape`, also of a stack, whose axes are in `batch_shape`."""
        return 2

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the parameters: the shape of a stack of matrices, ``()`` for a single one."""
        shapes = [tuple(array.shape[: array.ndim - axes]) for array, axes in self._leaves() if array.ndim > axes]
        return broadcast_shapes(type(self).__name__, *shapes) if shapes else ()

    def _made_of(self) -> list[Operator[Any]]:
        """Return the operators in the fields of this one, whose entries and products it takes its own from."""
        found: list[Operator[Any]] = []
        for name, axes in self._core_axes.items():
            if axes is None:
                value = getattr(self, name)
                inner = value if isinstance(value, tuple) else (value,)
                found += [part for part in inner if isinstance(part, Operator)]
        return found

    @property
    def dtype(self) -> DType:
        """The dtype of the entries, in the library of the parameters; None for an operator without parameters."""
        if not (arrays := self._arrays()):
            return None
        if None in self._core_axes.values() and (parts := self._made_of()):
            return self._dtype_with(parts)
        dtypes = [array.dtype for array in arrays]
        if dtypes.count(dtypes[0]) == len(dtypes):
            return dtypes[0]
        return common_dtype(namespace_of(type(self).__name__, *arrays), *arrays)

    def _dtype_with(self, parts: list[Operator[Any]]) -> DType:
        """Return the common dtype of the own arrays and of operators, of which a real one may hold complex arrays."""
        xp = self._own_namespace()
        known = [getattr(self, name) for name, axes in self._core_axes.items() if axes is not None]
        known = [value for value in known if value is not None and not isinstance(value, (int, float, complex))]
        for part in parts:
            if (dtype := part.dtype) is not None:
                known += part._counted_as(dtype)
        dtype = common_dtype(xp, *known)
        return complex_partner(dtype, xp) if self._forces_complex else dtype

    def _counted_as(self, dtype: DType) -> list[Array | DType]:
        """Return what tells `common_dtype` of the operator, whose dtype is given: its arrays, where they have it."""
        arrays = self._arrays()
        if [array.dtype for array in arrays].count(dtype) == len(arrays):
            return arrays
        return arrays if dtype == common_dtype(namespace_of(type(self).__name__, *arrays), *arrays) else [dtype]

    @property
    def device(self) -> Device:
        """The device of the parameters; None for an operator that has none."""
        arrays = self._arrays()
        return device_of(arrays[0]) if arrays else None

    @property
    def _forces_complex(self) -> bool:
        """Whether products are complex although no parameter says so, by default where those of a part are."""
        return any(part._forces_complex for part in self._made_of())

    def __repr__(self) -> str:
        try:
            batch = f", batch={self.batch_shape}" if self.batch_shape else ""
            device = "any" if self.device is None else self.device
            dtype = dtype_name(self.dtype)
            return f"{type(self).__name__}({self._details()}shape={self.shape}, dtype={dtype}{batch}, device={device})"
        except (
            AttributeError,
            IndexError,
            TypeError,
            ValueError,
        ):  # a tree of JAX may hold anything in place of arrays
            fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._field_names())
            return f"{type(self).__name__}({fields})"

    # Products with arrays

    def matvec(self, x: ArrayLike, /, *, out: Any = None) -> Array:
        """Return A x, along the last axis.

        Parameters
        ----------
        x : array, shape (..., cols)
            One vector or any batch of them.
        out : numpy.ndarray, optional
            Array for the result, of its shape and dtype; NumPy only.

        Returns
        -------
        array, shape (..., rows)
            The products, of the common dtype of operator and `x`.

        Raises
        ------
        ValueError
            If the last axis of `x` has another length, the batch axes do not broadcast, or `out` does not fit.
        TypeError
            If `x` belongs to another array library than the operator, or `out` is no array of NumPy.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.Circulant(np.array([0.0, 1.0, 0.0])).matvec(np.array([1.0, 2.0, 3.0])).round(12)
        array([3., 1., 2.])
        """
        op, operand, xp, dtype = self._operand(x, "matvec", "x", self.shape[1])
        y = op._matvec(operand, xp)
        y = y if y.dtype == dtype else cast_back(y, dtype, xp)
        return y if out is None else copied_into(out, y, f"{type(self).__name__}.matvec")

    def rmatvec(self, y: ArrayLike, /) -> Array:
        """Return A^H y, the product with the adjoint, along the last axis.

        Parameters
        ----------
        y : array, shape (..., rows)
            One vector or any batch of them.

        Returns
        -------
        array, shape (..., cols)
            The products, of the common dtype of operator and `y`.

        Raises
        ------
        ValueError, TypeError
            As for `matvec`.
        """
        op, operand, xp, dtype = self._operand(y, "rmatvec", "y", self.shape[0])
        return cast_back(op._rmatvec(operand, xp), dtype, xp)

    def matmat(self, X: ArrayLike, /) -> Array:
        """Return A X for columns, as `numpy.matmul` does.

        Parameters
        ----------
        X : array, shape (..., cols, k)
            Matrices; leading axes broadcast against the operator's batch.

        Returns
        -------
        array, shape (..., rows, k)
            The products.

        Raises
        ------
        ValueError, TypeError
            As for `matvec`, and if `X` has fewer than two axes.
        """
        op, operand, xp, dtype = self._operand(X, "matmat", "X", self.shape[1], axis=-2)
        return cast_back(op._matmat(operand, xp), dtype, xp)

    def to_dense(self) -> Array:
        """Return the matrix itself.

        Returns
        -------
        array, shape (..., rows, cols)
            A new array in the operator's dtype, O(rows * cols) memory.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.Circulant(np.array([1.0, 2.0, 3.0])).to_dense()
        array([[1., 3., 2.],
               [2., 1., 3.],
               [3., 2., 1.]])
        """
        op, xp = self._to_working_precision("to_dense")
        dtype = op.dtype
        if dtype is None:
            dtype = complex_partner(xp.float64, xp) if self._forces_complex else xp.float64
        dense = op._to_dense(Context(xp, dtype, self.device))
        return self._from_working_precision(dense, xp)

    def __getitem__(self, index: Any) -> Any:
        """Return an entry, a row, a column, or a block.

        Parameters
        ----------
        index : int, slice, array of int or bool, or tuple of two of them
            Of rows and columns, as in NumPy; of a stack those of every matrix. One array at a time: ``op[i][:, j]``.

        Returns
        -------
        array or LinearOperator
            ``op[i, j]`` is an entry, of the shape of the batch; ``op[i]`` a row and ``op[:, j]`` a column, or parts of
            them, with the batch before. ``op[a:b, c:d]`` is an operator: a `Toeplitz` of a Toeplitz or circulant
            matrix, a `Hankel` of a Hankel matrix, and of equal rows and columns a `Diagonal` or `Identity` of one.
            Other blocks, and rows or columns chosen by arrays, masks or slices with a step, are a `Submatrix`.

        Raises
        ------
        IndexError
            If an integer is out of range.
        TypeError
            If an index is of another kind or its values are not known, or both are arrays.
        ValueError
            If nothing is chosen, an array names an index twice, or a mask is of another length.

        Notes
        -----
        Entries, rows and columns of Toeplitz, Hankel, circulant and diagonal matrices are read from the parameters; of
        other operators each takes one product with a unit vector. Many entries are cheaper from `to_dense`.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> T = sm.Toeplitz(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 5.0]))
        >>> T[2, 0], T[-1], T[:, 1]
        (np.float64(3.0), array([3., 2., 1.]), array([4., 1., 2.]))
        >>> T[1:, :2]
        Toeplitz(shape=(2, 2), dtype=float64, device=cpu)
        """
        pair = index if isinstance(index, tuple) else (index, slice(None))
        owner = f"{type(self).__name__}[i, j]"
        if len(pair) != 2:
            raise ArgumentTypeError(owner, None, f"takes rows and columns, got {len(pair)} indices{_ANY_INDEX}")
        if any(map(is_choice, pair)):
            return LATER["submatrix"](self, *pair)
        rows = range_of(pair[0], self.shape[0], owner, "rows")
        cols = range_of(pair[1], self.shape[1], owner, "cols")
        both_slices = all(isinstance(part, slice) for part in pair)
        if both_slices and (len(rows), len(cols)) == self.shape:
            return self
        block = LATER["block"](self, rows, cols)
        if both_slices:
            return block if isinstance(block, Operator) else LATER["submatrix"](self, *pair)
        if block is NotImplemented:
            block = self._one_row_or_column(rows, cols)
        entries = block.to_dense() if isinstance(block, Operator) else block
        inner = (slice(None) if isinstance(part, slice) else 0 for part in pair)
        batch = (slice(None),) * (entries.ndim - 2)  # no ellipsis, after which NumPy would not return a scalar
        return entries[*batch, *inner]

    def _one_row_or_column(self, rows: range, cols: range) -> Array:
        """Return a block of one row or one column, by the product with one unit vector."""
        xp = self._own_namespace()

        def times_unit(op: Any, k: int) -> Any:
            dtype = xp.float64 if self.dtype is None else self.dtype
            return op.matvec(xp.eye(1, op.shape[1], k=k, dtype=dtype, device=self.device)[0, :])

        if len(cols) == 1:
            return times_unit(self, cols.start)[..., rows.start : rows.stop, None]
        return times_unit(self._transpose(), rows.start)[..., None, cols.start : cols.stop]

    def prepare(self) -> Op:
        """Return an equal operator that has precomputed what all its products need.

        Returns
        -------
        LinearOperator
            A `Prepared` operator, or one of the same type if there is nothing to prepare, as for a product of
            transforms. In either case it is a snapshot: it holds copies of the parameters (read-only in NumPy) and does
            not follow later changes of the original arrays. In torch gradients still reach these.

        Notes
        -----
        For a circulant or Toeplitz matrix the spectrum is computed, for a block-circulant one the matrices per
        frequency; for matrices so small that a dense product is faster the dense matrix is used. Single long vectors of
        NumPy and torch are transformed by the four-step method [1]_. Results agree with those of the operator itself up
        to rounding. Besides the copies of the parameters it takes the memory of four vectors of the transformed
        length, or of one copy of the matrices per frequency; as much again after the first product with the adjoint,
        and three vectors more after the first `solve`.

        References
        ----------
        .. [1] Bailey, D. H., FFTs in external or hierarchical memory, J. Supercomputing 4, 1990.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> P = sm.Circulant(np.array([1.0, 2.0, 3.0])).prepare()
        >>> P
        Prepared(Circulant, shape=(3, 3), dtype=float64, device=cpu)
        >>> P @ np.array([1.0, 0.0, 0.0])
        array([1., 2., 3.])
        """
        return LATER["prepare"](self._snapshot())

    # Transposes

    @property
    def T(self) -> Op:
        """The transpose."""
        return self._transpose()

    @property
    def H(self) -> Op:
        """The adjoint: the conjugate transpose."""
        return self._conj()._transpose()

    def conj(self) -> Op:
        """Return the operator with complex conjugate entries.

        Returns
        -------
        LinearOperator
            Itself where it is real.
        """
        return self._conj()

    # Precision

    def astype(self, dtype: DType) -> Self:
        """Return the operator with parameters in another precision.

        Parameters
        ----------
        dtype : dtype or str
            A floating dtype of the operator's library, or its name; for NumPy what `numpy.dtype` takes. Only its
            precision is used: real parameters stay real unless `dtype` is complex, and complex ones stay complex.

        Returns
        -------
        LinearOperator
            Of the same type.

        Raises
        ------
        TypeError
            If `dtype` is not a floating dtype.
        """
        xp, given = self._own_namespace(), dtype
        floating = False
        with suppress(TypeError, AttributeError):  # no dtype of the library
            if is_numpy(xp):
                dtype = np.dtype(dtype).newbyteorder("=")
            elif isinstance(dtype, str):
                dtype = getattr(xp, dtype, dtype)
            floating = given is not None and xp.isdtype(dtype, ("real floating", "complex floating"))
        if not floating:
            owner = f"{type(self).__name__}.astype"
            raise ArgumentTypeError(owner, "dtype", f"must be a floating dtype, got {given!r}")
        if not is_complex(dtype, xp):
            return self._in_precision(dtype, xp)
        return self._complex(dtype, xp)

    # Hooks: unchecked mathematics

    @abstractmethod
    def _matvec(self, x: Array, xp: Namespace) -> Array:
        """A x along the last axis."""

    @abstractmethod
    def _transpose(self) -> Op:
        """Transpose."""

    def _conj(self) -> Any:
        """Complex conjugate, by default that of all parameters and parts; `self` where the operator is real."""
        xp, dtype = self._own_namespace(), self.dtype
        if not (self._forces_complex or (dtype is not None and is_complex(dtype, xp))):
            return self

        def of_array(array: Array, _: int = 0) -> Array:
            return conjugate(array, xp)

        def of_part(part: Any) -> Any:
            return part._conj() if isinstance(part, Operator) else part._map(of_array)

        return self._rebuilt(of_array, of_part)

    def _rmatvec(self, y: Array, xp: Namespace) -> Array:
        """A^H y along the last axis."""
        return self._conj()._transpose()._matvec(y, xp)

    def _matmat(self, X: Array, xp: Namespace) -> Array:
        """A X for columns."""
        return self._in_columns(lambda op, x: op._matvec(x, xp), X, xp)

    def _plan(self, xp: Namespace) -> Plan | None:
        """What computes the products; None where there is nothing to be computed before."""
        return None

    def _solver(self, xp: Namespace) -> Plan | Products | None:
        """What solves systems with NumPy, with all that does not depend on them computed; None where there is none."""
        return None

    def _to_dense(self, like: Context) -> Array:
        """Dense matrix, by default from the products with the unit vectors."""
        unit = like.xp.eye(self.shape[1], dtype=like.dtype, device=like.device)
        return self._matmat(unit, like.xp)

    def _row_sums(self, xp: Namespace) -> Array:
        """Sums of the entries of each row."""
        return self._matvec(xp.ones(self.shape[1], dtype=self.dtype, device=self.device), xp)

    def _details(self) -> str:
        """Leading part of the repr, for what shape and dtype do not tell."""
        return ""

    # Shared steps of the public methods

    def _in_columns(self, function: Callable[[Self, Array], Array], X: Array, xp: Namespace) -> Array:
        """Return a function of the operator and vectors along the last axis, for columns."""
        op = self._with_batch_axis(xp) if self.batch_shape else self
        return xp.matrix_transpose(function(op, xp.matrix_transpose(X)))

    def _with_batch_axis(self, xp: Namespace) -> Self:
        """Return the operator with a batch axis of length one before the core axes, to act on rows of matrices."""

        def widen(array: Array, axes: int) -> Array:
            if array.ndim == axes:
                return array
            cut = array.ndim - axes
            return xp.reshape(array, (*array.shape[:cut], 1, *array.shape[cut:]))

        return self._map(widen)

    def _in_precision(self, precision: DType, xp: Namespace) -> Self:
        """Return the operator with parameters of that real dtype or its complex partner; itself if they are so."""
        one_of_each = {array.dtype: array for array in self._arrays()}  # as a sum may have many
        if all(in_precision(array, precision, xp) is array for array in one_of_each.values()):
            return self
        return self._rebuilt(
            lambda array, _: in_precision(array, precision, xp), lambda inner: inner._in_precision(precision, xp)
        )

    def _complex(self, dtype: DType, xp: Namespace) -> Any:
        """Return the operator with parameters of a complex dtype."""
        return self._rebuilt(
            lambda array, _: array if array.dtype == dtype else xp.astype(array, dtype),
            lambda inner: inner._complex(dtype, xp),
        )

    def _snapshot(self) -> Self:
        """Return the operator with parameters of its own, read-only ones in NumPy."""
        xp = self._own_namespace()

        def own(array: Array, _: int) -> Array:
            copy: Any = copied(array, xp)
            if is_numpy(xp):
                copy.flags.writeable = False
            return copy

        return self._map(own)

    def _to_working_precision(self, method: str, *, square: bool = False) -> tuple[Self, Namespace]:
        """Return the operator in the precision of computations, and its namespace, after the check of its shape."""
        if square and self.shape[0] != self.shape[1]:
            owner = f"{type(self).__name__}.{method}"
            raise ArgumentValueError(owner, None, f"the operator must be square, got shape {self.shape}")
        xp = self._own_namespace()
        if shared_dtype(self._leaves()) is not None or (dtype := self.dtype) is None:
            return self, xp
        # parts may be of several precisions: the widest is that of computations
        return self._in_precision(precision_of(dtype, xp), xp), xp

    def _from_working_precision(self, value: Any, xp: Namespace) -> Any:
        """Return a result of the precision of computations in the operator's own, where that is a half precision."""
        if isinstance(value, Operator):
            return value._in_precision(self.dtype, xp) if is_half_precision(self.dtype) else value
        return cast_back(value, self.dtype, xp)

    def _read(self, x: ArrayLike, owner: str, argument: str) -> tuple[Array, Namespace]:
        """Return an operand as a floating-point array of the operator's library, and their namespace."""
        arrays = self._arrays()
        if not arrays:
            x = as_floating(x, owner, argument)
            return x, namespace_of(owner, x)
        xp = namespace_of(owner, *arrays, *((x,) if is_array(x) else ()))
        return as_floating(x, owner, argument, like=(xp, self.dtype)), xp

    def _operand(
        self, x: ArrayLike, method: str, argument: str, length: int, axis: int = -1
    ) -> tuple[Self, Array, Namespace, DType]:
        """Return operator and operand in the dtype of the computation, their namespace, and the dtype of the result."""
        leaves = self._leaves()
        if len(leaves) == 1 and type(x) is np.ndarray:  # the usual case: one array of NumPy, and no stack
            array, axes = leaves[0]
            same = type(array) is np.ndarray and x.dtype == array.dtype and array.ndim == axes
            if same and x.dtype.char in "fdFD" and x.ndim >= -axis and x.shape[axis] == length:
                return self, x, numpy_namespace, x.dtype
        owner, mine = f"{type(self).__name__}.{method}", self.dtype
        x, xp = self._read(x, owner, argument)
        if x.ndim < -axis or x.shape[axis] != length:
            wanted = f"(..., {length})" if axis == -1 else f"(..., {length}, k)"
            text = f"must have shape {wanted}, got {tuple(x.shape)}"
            if method in {"solve", "lstsq"} and x.ndim > 1 and x.shape[-1] == length:
                text += "; right-hand sides are columns: transpose vectors along the last axis"
            if axis == -1 and x.ndim > 1 and x.shape[-2] == length:
                text += "; vectors lie along the last axis: transpose columns"
                text += _WITH_COLUMNS.get(method, "")
            if hasattr(self, "convolve"):
                text += _for_grids(method, argument, tuple(x.shape), length)
            raise ArgumentValueError(owner, argument, text)
        if batch := self.batch_shape:
            broadcast_shapes(owner, batch, tuple(x.shape[: x.ndim + axis]))
        arrays = self._arrays()
        uniform = len(arrays) == 1 or [array.dtype for array in arrays].count(mine) == len(arrays)
        if x.dtype == mine and uniform and not is_half_precision(mine):
            return self, x, xp, mine
        dtype = common_dtype(xp, *self._counted_as(mine), x)
        if mine is None and self._forces_complex:
            dtype = complex_partner(dtype, xp)
        precision = precision_of(dtype, xp)
        return self._in_precision(precision, xp), in_precision(x, precision, xp), xp, dtype

    # The operators of Python, by the tables of rules of `structmat.extend`

    def __matmul__(self, other: Any) -> Any:
        if type(other) is np.ndarray:
            return self.matvec(other) if other.ndim == 1 else self.matmat(other)
        if not isinstance(other, Operator):
            if not _is_array_like(other):
                return NotImplemented
            return self.matvec(other) if is_vector(other) else self.matmat(other)
        if self.shape[1] != other.shape[0]:
            owner = f"{type(self).__name__} @ {type(other).__name__}"
            raise ArgumentValueError(owner, None, f"inner sizes differ, {self.shape} @ {other.shape}")
        return self._combined(other, "@", compose)

    def __rmatmul__(self, other: Any) -> Any:
        if not _is_array_like(other):
            return NotImplemented
        if is_vector(other):
            return self._transpose().matvec(other)
        X, xp = self._read(other, f"X @ {type(self).__name__}", "X")
        if X.ndim < 2 or X.shape[-1] != self.shape[0]:
            raise wrong_shape(f"X @ {self!r}", "X", f"(..., {self.shape[0]})", X)
        return xp.matrix_transpose(self._transpose().matmat(xp.matrix_transpose(X)))

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, Operator):
            if type(other) is int and other == 0:  # the start of `sum`
                return self
            if _is_array_like(other):
                text = "add operators, or arrays to op.to_dense()"
                raise ArgumentTypeError(f"{type(self).__name__} + or - array", None, text)
            return NotImplemented
        if self.shape != other.shape:
            owner = f"{type(self).__name__} + {type(other).__name__}"
            raise ArgumentValueError(owner, None, f"shapes differ, {self.shape} + {other.shape}")
        return self._combined(other, "+", add)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self + (-other) if isinstance(other, Operator) else self.__add__(other)

    def __rsub__(self, other: Any) -> Any:
        return self.__add__(other) if _is_array_like(other) else other + (-self)  # which refuses arrays

    def __pos__(self) -> Self:
        return self

    def __neg__(self) -> Op:
        return scale(self, -1)

    def __mul__(self, factor: Any) -> Any:
        if isinstance(factor, Operator):
            owner = f"{type(self).__name__} * {type(factor).__name__}"
            raise ArgumentTypeError(owner, None, "use @ for the matrix product; * is for scalars")
        return self._multiple(factor, f"{type(self).__name__} * array", lambda number: number)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Any:
        if isinstance(divisor, Operator):
            return NotImplemented
        return self._multiple(divisor, f"{type(self).__name__} / array", Reciprocal)

    def _multiple(self, number: Any, owner: str, factor: Callable[[Any], Any]) -> Any:
        """Return the multiple by what `factor` makes of a number, or of an array of one for each member of a stack."""
        if isinstance(number, np.generic):
            return self._by_numpy_scalar(number, factor)
        if isinstance(number, (int, float, complex)):
            return scale(self, factor(number))
        if not _is_array_like(number):
            return scale(self, factor(float(number))) if isinstance(number, Rational) else NotImplemented
        shape = tuple(np.shape(number))
        if len(shape) > len(self.batch_shape):
            text = f"a scalar, or one scalar per batch member of {self.batch_shape}, is expected, got an array of shape"
            text += f" {shape}; use @ for the product of matrices, op.to_dense() * array for that of their entries"
            raise ArgumentValueError(owner, None, text)
        return scale(self, factor(self._read(number, owner, "factor")[0]))

    def _by_numpy_scalar(self, number: Any, factor: Callable[[Any], Any]) -> Any:
        """Return the multiple by a scalar of NumPy, whose dtype counts for NumPy's arrays, as in ``array * number``."""
        if self.dtype is None or not is_numpy(self._own_namespace()):
            return scale(self, factor(number.item()))
        dtype = np.result_type(self.dtype, number)
        wide = self._in_precision(precision_of(dtype, self._own_namespace()), self._own_namespace())
        array = np.asarray(number, np.result_type(number, np.float16))
        return scale(self if is_half_precision(dtype) else wide, factor(array))

    def __pow__(self, k: Any) -> Any:
        """Return the k-th power for an integer k: in closed form, or as a product of k factors."""
        owner = f"{type(self).__name__} ** k"
        try:
            exponent = integer(k, owner, "k", least=-sys.maxsize)
        except ArgumentTypeError as error:
            text = f"must be an integer, got {k!r}; use op.fractional_matrix_power(k)"
            raise ArgumentTypeError(error.owner, error.argument, text) from None
        if self.shape[0] != self.shape[1]:
            raise ArgumentValueError(owner, None, f"the operator must be square, got shape {self.shape}")
        return LATER["power"](self, exponent)

    def _combined(self, other: Operator[Any], sign: str, rules: PairRules) -> Op:
        """Apply a table of rules to both operators in their common precision (float32 for half)."""
        leaves = [*self._leaves(), *other._leaves()]
        if all([type(array) is np.ndarray and array.ndim == axes for array, axes in leaves]) and (  # noqa: C419  # faster
            not leaves or shared_dtype(leaves) is not None
        ):
            return rules(self, other)  # the usual case, in which there is nothing to be brought together
        owner = f"{type(self).__name__} {sign} {type(other).__name__}"
        broadcast_shapes(owner, self.batch_shape, other.batch_shape)
        arrays = [array for array, _ in leaves]
        xp = namespace_of(owner, *arrays)
        dtype = common_dtype(xp, *self._counted_as(self.dtype), *other._counted_as(other.dtype))
        precision = precision_of(dtype, xp)
        result = rules(self._in_precision(precision, xp), other._in_precision(precision, xp))
        return result._in_precision(dtype, xp) if is_half_precision(dtype) else result


def range_of(index: Any, size: int, owner: str, argument: str) -> range:
    """Return the rows or columns, of so many, that an integer or a slice means."""
    found: range | None = None
    is_bool = isinstance(index, bool) or dtype_name(getattr(index, "dtype", None)) == "bool"
    with suppress(TypeError):  # no integers
        if isinstance(index, slice) and index.step is not None and operator.index(index.step) == 0:
            raise ArgumentValueError(owner, argument, f"must have a step other than zero, got {index}")
        if not is_bool:
            found = range(size)[index if isinstance(index, slice) else slice(index, operator.index(index) + 1 or None)]
    if found is None:
        got = index if isinstance(index, slice) else type(index).__name__
        raise ArgumentTypeError(owner, None, f"takes integers, slices and arrays of them, got {got}{_ANY_INDEX}")
    if not found and isinstance(index, slice):
        raise nothing_chosen(owner, argument)
    if not found:
        raise IndexError(f"{owner}: {index!r} is none of the {size} rows or columns")
    return found


def nothing_chosen(owner: str, argument: str) -> ArgumentValueError:
    """Return the error for a slice, a mask or an array that chooses no row or column."""
    return ArgumentValueError(owner, argument, "must choose one index at least, got none")


def is_choice(index: Any) -> bool:
    """Tell whether an index chooses rows or columns that are no neighbours: an array, a list, a slice with a step."""
    if isinstance(index, slice):
        return index.step not in {None, 1}
    return isinstance(index, list) or (is_array(index) and index.ndim > 0)


def _is_array_like(value: Any) -> bool:
    """Tell arrays, lists, series of pandas and sparse matrices, which would take an operator for an array."""
    return (
        is_array(value) or isinstance(value, (list, tuple)) or hasattr(value, "__array__") or hasattr(value, "toarray")
    )
