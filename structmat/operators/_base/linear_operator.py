"""The base class of all operators: what people call.

The public methods read and check their arguments, bring operator and operands to the precision of the computation, call
the hooks of `structmat.operators._base.hooks`, and cast the results back.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Hashable
from contextlib import suppress
from numbers import Integral
from typing import Any, NamedTuple, Self

import numpy as np

from structmat._arguments import non_negative, wrong_shape
from structmat._arrays.arithmetic import Reciprocal, negligible
from structmat._arrays.conversion import copied, copied_into
from structmat._arrays.dtypes import (
    cast_back,
    complex_partner,
    dtype_name,
    is_complex,
)
from structmat._arrays.libraries import can_raise_for_values, is_numpy
from structmat._arrays.shapes import is_vector
from structmat._arrays.typing import Array, ArrayLike, DType, Namespace
from structmat._errors import ArgumentTypeError, ArgumentValueError, warn_of_nan
from structmat._fourier.plans import Plan
from structmat.operators._base.arithmetic import (
    add,
    combine,
    compose,
    exponent_of_power,
    multiple,
    power,
    prepare,
    scale,
    submatrix,
)
from structmat.operators._base.closed_forms import ClosedForm, closed_form, declared_in
from structmat.operators._base.hooks import Context, Hooks, NormOrder
from structmat.operators._base.indices import ANY_INDEX, is_choice, range_of
from structmat.operators._base.operands import is_array_like, operand, read
from structmat.operators._base.spectral_functions import SpectralFunction, integer_power, on_eigenvalues

_ITERATIVE = "scipy.sparse.linalg.{} on structmat.scipy.as_linear_operator(op), or {}(op.to_dense())"
"""What serves in place of eigenvalues and singular values in closed form."""


class EigResult(NamedTuple):
    """Eigenvalues and eigenvectors, named as those that `numpy.linalg.eig` returns."""

    eigenvalues: Array
    eigenvectors: LinearOperator


class SlogdetResult(NamedTuple):
    """Sign and logarithm of a determinant, named as those that `numpy.linalg.slogdet` returns.

    Attributes
    ----------
    sign : array, shape (...)
        Of modulus one, or zero for a singular matrix.
    logabsdet : array, shape (...)
        Natural logarithm of the absolute value, real.

    See Also
    --------
    LinearOperator.slogdet : Returns one.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> sign, logabsdet = sm.Diagonal(np.array([1.0, -2.0])).slogdet()
    >>> float(sign), float(np.exp(logabsdet).round(12))
    (-1.0, 2.0)
    """

    sign: Array
    logabsdet: Array


class LinearOperator(Hooks):
    """A matrix given by its products.

    The axis rule: `matvec` acts on the last axis of its argument; leading axes are batch axes and broadcast against
    those of the operator's parameters. ``op @ x`` follows `numpy.matmul`: one axis means a vector, otherwise the
    columns of the last two axes. dtype and device follow the inputs; half precision is computed in float32 and cast
    back.

    A method for which an operator has no closed form raises `NotImplementedError`, and the message names an
    alternative. Where a NumPy operator is singular to working precision, `inv`, `solve` and functions with a pole at
    zero raise `numpy.linalg.LinAlgError`; torch and JAX return infinities or NaN instead, since a check of values would
    wait for the device and break ``jit``.

    Subclasses are frozen dataclasses with ``eq=False``. They supply `shape`, the hooks ``_matvec`` and
    ``_transpose``, and say in ``_core_axes`` which fields are parameters; the other hooks have a default.

    See Also
    --------
    structmat.extend : For operators of your own.
    structmat.scipy.as_linear_operator : For solvers of SciPy.

    Examples
    --------
    What every operator has, here a circulant:

    >>> import numpy as np
    >>> import structmat as sm
    >>> op = sm.Circulant(np.array([2.0, 1.0, 0.0]))
    >>> isinstance(op, sm.LinearOperator)
    True
    >>> op @ np.ones(3), op.matvec(np.ones((5, 3))).shape
    (array([3., 3., 3.]), (5, 3))
    >>> op.T.to_dense()
    array([[2., 1., 0.],
           [0., 2., 1.],
           [1., 0., 2.]])
    """

    __array_ufunc__ = None  # so that `array @ op` and `array * op` reach the methods below

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        """Refuse what NumPy would make of an operator: an array of objects, or n^2 entries that nobody asked for."""
        text = "is no array: use op.to_dense() for its entries, op @ x for products"
        text += ", structmat.scipy.as_linear_operator(op) beside operators of SciPy"
        text += ", and for a sparse matrix S op @ S.toarray() or scipy.sparse.linalg.aslinearoperator(S) beside that"
        raise ArgumentTypeError(type(self).__name__, None, text)

    __iter__ = None  # `__getitem__` alone would make it a sequence of rows, each at the cost of a product

    # What it looks like

    @property
    def ndim(self) -> int:
        """2, the length of `shape`, also of a stack, whose axes are in `batch_shape`."""
        return 2

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
            Array that the result is copied to, of its shape and dtype; NumPy only.

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
        if out is not None:
            return copied_into(out, self.matvec(x), f"{type(self).__name__}.matvec")
        op, operand, xp, dtype = self._operand(x, "matvec", "x", self.shape[1])
        y = op._matvec(operand, xp)
        return y if y.dtype == dtype else cast_back(y, dtype, xp)

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
            matrix, a `Hankel` of a Hankel matrix, a `BlockToeplitz` of whole blocks of one, and of equal rows and
            columns a `Diagonal` or `Identity` of one.
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
            raise ArgumentTypeError(owner, None, f"takes rows and columns, got {len(pair)} indices{ANY_INDEX}")
        if any(map(is_choice, pair)):
            return submatrix(self, pair)
        rows = range_of(pair[0], self.shape[0], owner, "rows")
        cols = range_of(pair[1], self.shape[1], owner, "cols")
        both_slices = all(isinstance(part, slice) for part in pair)
        if both_slices and (len(rows), len(cols)) == self.shape:
            return self
        block = self._block(rows, cols, self._own_namespace())
        if both_slices:
            return block if isinstance(block, LinearOperator) else submatrix(self, pair)
        if block is None:
            block = self._one_row_or_column(rows, cols)
        entries = block.to_dense() if isinstance(block, LinearOperator) else block
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

    def prepare(self) -> LinearOperator:
        """Return an equal operator that has precomputed what all its products need.

        Returns
        -------
        LinearOperator
            A `Prepared` operator, or one of the same type if there is nothing to prepare, as for a product of
            transforms. In either case it is a snapshot: it holds copies of the parameters (read-only in NumPy) and does
            not follow later changes of the original arrays. In torch gradients still reach these.

        Notes
        -----
        What is computed depends on the matrix: the spectrum of a circulant or Toeplitz matrix, and the matrices for
        each frequency of a block circulant one. If the matrix is so small that a dense product is faster, it is the
        dense matrix. Single long vectors of NumPy and torch are transformed by the four-step method [1]_. Results agree
        with those of the operator itself up to rounding.

        Besides the copies of the parameters the result takes the memory of four vectors of the transformed length, or
        of one copy of the matrices for each frequency. It takes as much again after the first product with the adjoint,
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
        return self._snapshot()._prepared()

    def _prepared(self) -> LinearOperator:
        """Return the operator with its plan or with prepared parts, or itself where there is nothing to prepare.

        The caller calls this of a snapshot.
        """
        working, _ = self._to_working_precision("prepare")
        return prepare(self, working)

    def _kept(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return what a function returns; a prepared operator keeps it for the next time it is asked for by this key.

        It is an object with parameters that depends on the values of the operator alone, and has no derivatives.
        """
        return make()

    # Transposes

    @property
    def T(self) -> LinearOperator:
        """The transpose."""
        return self._transpose()

    @property
    def H(self) -> LinearOperator:
        """The adjoint: the conjugate transpose."""
        return self._conj()._transpose()

    def conj(self) -> LinearOperator:
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

    # Linear algebra in closed form

    @closed_form(Hooks._inv, otherwise="structmat.solve(op, b) for products with it")
    def inv(self) -> LinearOperator:
        """Return the inverse as an operator.

        Returns
        -------
        LinearOperator
            Of the same kind where the inverses of such matrices are of this kind again, as those of circulants and
            diagonals are. The inverse of a `Toeplitz` is a `ToeplitzInverse`, and that of a product is the product of
            the inverses in reverse order.

        Raises
        ------
        ValueError
            If the operator is not square.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> C = sm.Circulant(np.array([4.0, 1.0, 0.0, 1.0]))
        >>> (C @ C.inv()).to_dense().round(12) + 0.0
        array([[1., 0., 0., 0.],
               [0., 1., 0., 0.],
               [0., 0., 1., 0.],
               [0., 0., 0., 1.]])
        """
        op, xp = self._to_working_precision("inv", square=True)
        return self._from_working_precision(op._inv(xp), xp)

    @closed_form(Hooks._inv, Hooks._solve, otherwise="structmat.solve(op, b), which iterates")
    def solve(self, b: ArrayLike, /) -> Array:
        """Return x with ``self @ x = b``.

        Parameters
        ----------
        b : array, shape (n,) or (..., n, k)
            One right-hand side, or right-hand sides in columns, as for ``@`` and `numpy.linalg.solve`.

        Returns
        -------
        array, shape (..., n) or (..., n, k)
            The solutions, of the common dtype of operator and right-hand side.

        Raises
        ------
        ValueError
            If the operator is not square, or `b` has another length.
        TypeError
            If `b` belongs to another array library than the operator.
        numpy.linalg.LinAlgError
            If the operator is singular, of NumPy arrays; infinities or NaN for others.

        Warns
        -----
        scipy.linalg.LinAlgWarning
            If the solution holds NaN in NumPy, as where `b` does, which `structmat.solve` warns of too. A prepared
            operator, which is to be fast, does not look.

        See Also
        --------
        LinearOperator.inv_matvec : For vectors along the last axis.
        structmat.solve : By iteration, where there is no closed form.

        Notes
        -----
        Each kind of operator has a method of its own, and none forms the dense inverse:

        - Systems with Toeplitz and Hankel matrices are solved by elimination, recursion or iteration, as the notes of
          `Toeplitz.solve` say. `BlockToeplitz` describes its own methods.
        - A system with a circulant, a diagonal or a product of both takes O(n log n) operations: Fourier transforms,
          and divisions by the eigenvalues or the diagonal entries.
        - A system with a `Kronecker` product is one for each of its factors.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> T = sm.Toeplitz(np.array([3.0, 1.0, 0.0]))
        >>> T.solve(T @ np.array([1.0, 2.0, 3.0])).round(12)
        array([1., 2., 3.])
        >>> B = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])  # two right-hand sides
        >>> bool(np.allclose(T @ T.solve(B), B))
        True
        >>> C = sm.Circulant(np.array([3.0, 1.0, 0.0]))
        >>> bool(np.allclose(C @ C.solve(B), B))
        True
        """
        is_one = b.ndim == 1 if type(b) is np.ndarray else is_vector(b)
        return self._checked_solve(b, "solve", -1 if is_one else -2)

    @closed_form(Hooks._inv, Hooks._solve, otherwise="structmat.solve(op, B), which iterates, for columns")
    def inv_matvec(self, b: ArrayLike, /) -> Array:
        """Return x with ``matvec(x) = b``, along the last axis.

        Parameters
        ----------
        b : array, shape (..., n)
            One right-hand side, or any batch of them along the last axis, as for `matvec`.

        Returns
        -------
        array, shape (..., n)
            The solutions, of the common dtype of operator and right-hand side.

        Raises
        ------
        ValueError, TypeError
            As for `solve`.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.Diagonal(np.array([1.0, 2.0])).inv_matvec(np.ones((3, 2))).shape
        (3, 2)
        """
        return self._checked_solve(b, "inv_matvec", -1)

    def _checked_solve(self, b: ArrayLike, method: str, axis: int) -> Array:
        rows, cols = self.shape
        if rows != cols:
            self._to_working_precision(method, square=True)
        op, right, xp, dtype = self._operand(b, method, "b", rows, axis)
        x = op._solve(right, xp) if axis == -1 else op._in_columns(lambda A, v: A._solve(v, xp), right, xp)
        return self._warned_of_nan(x if x.dtype == dtype else cast_back(x, dtype, xp), method)

    def _warned_of_nan(self, x: Array, method: str) -> Array:
        """Return a solution, after a warning where it holds NaN; of NumPy alone."""
        if type(x) is np.ndarray and np.isnan(x).any():
            warn_of_nan(f"{type(self).__name__}.{method}")
        return x

    @closed_form(Hooks._determinant_factors, Hooks._det, otherwise="structmat.slogdet(op), its logarithm")
    def det(self) -> Array:
        """Return the determinant.

        Returns
        -------
        array, shape of the batch
            Real for a real operator. It overflows or underflows easily: prefer `slogdet` for large n.

        Raises
        ------
        ValueError
            If the operator is not square.

        Notes
        -----
        At a singular matrix the gradient is made of its minors; for `Toeplitz` and `Hankel` it is NaN there, as their
        derivatives come from the inverse.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> float(sm.Circulant(np.array([2.0, 1.0])).det())
        3.0
        """
        op, xp = self._to_working_precision("det", square=True)
        return self._from_working_precision(op._det(xp), xp)

    @closed_form(Hooks._determinant_factors, Hooks._slogdet, otherwise="structmat.slogdet(op)")
    def slogdet(self) -> SlogdetResult:
        """Return sign and logarithm of the determinant.

        Returns
        -------
        sign : array, shape (...)
            Of modulus one, or zero for a singular matrix.
        logabsdet : array, shape (...)
            Natural logarithm of the absolute value, real.

        Raises
        ------
        ValueError
            If the operator is not square.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sign, logabsdet = sm.Diagonal(np.array([1e-200, -1e-200])).slogdet()
        >>> float(sign), float(logabsdet.round(3))
        (-1.0, -921.034)
        """
        op, xp = self._to_working_precision("slogdet", square=True)
        sign, log = op._slogdet(xp)
        return SlogdetResult(self._from_working_precision(sign, xp), self._from_working_precision(log, xp))

    @closed_form(
        Hooks._pinv,
        Hooks._rounding,
        otherwise="structmat.lstsq(op, b) for products with it",
    )
    def pinv(self, *, rtol: float | None = None) -> LinearOperator:
        """Return the Moore-Penrose pseudo-inverse as an operator.

        Parameters
        ----------
        rtol : float, optional
            Singular values at or below `rtol` times the largest finite one count as zero. Default: what rounding may
            leave of a zero, ``4 * eps * log2(2 n)`` for a circulant of size n.

        Returns
        -------
        LinearOperator
            Of shape ``(cols, rows)``. NaN stays NaN, where the library's singular value decomposition does not refuse
            it.

        Raises
        ------
        ValueError
            If `rtol` is negative or not finite.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.Diagonal(np.array([2.0, 0.0])).pinv().to_dense()
        array([[0.5, 0. ],
               [0. , 0. ]])
        """
        op, xp = self._to_working_precision("pinv")
        return self._from_working_precision(op._pinv(self._cutoff(rtol, "pinv", xp), xp), xp)

    @closed_form(
        Hooks._pinv,
        Hooks._damped_pinv,
        Hooks._rounding,
        otherwise="structmat.lstsq(op, b), which iterates",
    )
    def lstsq(self, b: ArrayLike, /, *, rtol: float | None = None, damp: float = 0.0) -> Array:
        """Return the x of least norm among those that minimise ``norm(self @ x - b)``.

        With `damp` it minimises ``norm(self @ x - b)^2 + damp^2 norm(x)^2``, as Tikhonov regularisation and SciPy's
        `lsqr` do.

        Parameters
        ----------
        b : array, shape (rows,) or (..., rows, k)
            One right-hand side, or right-hand sides in columns, as for ``@`` and `numpy.linalg.lstsq`.
        rtol : float, optional
            Cut-off of singular values, as for `pinv`. With `damp` none is cut off.
        damp : float, default 0.0
            Weight of the norm of the solution, in units of the singular values.

        Returns
        -------
        array, shape (..., cols) or (..., cols, k)
            The solutions.

        Raises
        ------
        ValueError
            If `b` has another length, `rtol` or `damp` is negative or not finite, or both are given.

        See Also
        --------
        structmat.lstsq : By iteration, where there is no closed form.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> D = sm.Diagonal(np.array([1.0, 0.1, 0.0]))
        >>> D.lstsq(np.ones(3), damp=0.1).round(2)
        array([0.99, 5.  , 0.  ])
        """
        axis = -1 if is_vector(b) else -2
        op, right, xp, dtype = self._operand(b, "lstsq", "b", self.shape[0], axis)
        owner = f"{type(self).__name__}.lstsq"
        damp = non_negative(damp, owner, "damp")
        if damp:
            if rtol is not None:
                raise ArgumentValueError(owner, "rtol", "must be None with damp, which cuts no singular value off")
            inverse = op._damped_pinv(damp, xp)
        else:
            inverse = op._pinv(self._cutoff(rtol, "lstsq", xp), xp)
        x = inverse._matvec(right, xp) if axis == -1 else inverse._matmat(right, xp)
        return self._warned_of_nan(cast_back(x, dtype, xp), "lstsq")

    @closed_form(Hooks._eig, Hooks._eigvals, otherwise=_ITERATIVE.format("eigs", "numpy.linalg.eigvals"))
    def eigvals(self) -> Array:
        """Return the eigenvalues.

        Returns
        -------
        array, shape (..., n)
            Always complex. Those of a circulant are in the order of the discrete Fourier transform, those of a diagonal
            matrix in the order of its entries, and those of a block circulant have the frequency as the fastest index.

        Raises
        ------
        ValueError
            If the operator is not square.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.Circulant(np.array([2.0, 1.0])).eigvals()
        array([3.+0.j, 1.+0.j])
        """
        op, xp = self._to_working_precision("eigvals", square=True)
        return copied(op._eigvals(xp), xp)

    @closed_form(Hooks._eig, otherwise=_ITERATIVE.format("eigs", "numpy.linalg.eig"))
    def eig(self) -> EigResult:
        """Return eigenvalues and eigenvectors, ``A = V diag(w) V^-1``.

        Returns
        -------
        eigenvalues : array, shape (..., n)
            Complex, in the order of `eigvals`.
        eigenvectors : LinearOperator
            The operator V, whose columns they are. For a circulant it is the unitary discrete Fourier transform. So
            nothing of size n^2 is stored; ``V.to_dense()`` writes the vectors out.

        Raises
        ------
        ValueError
            If the operator is not square.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> C = sm.Circulant(np.array([1.0, 2.0, 3.0]))
        >>> w, V = C.eig()
        >>> bool(np.allclose(C.to_dense() @ V.to_dense(), V.to_dense() * w))
        True
        """
        op, xp = self._to_working_precision("eig", square=True)
        values, vectors = op._eig(xp)
        return EigResult(copied(values, xp), vectors)

    @closed_form(Hooks._svdvals, otherwise=_ITERATIVE.format("svds", "numpy.linalg.svdvals"))
    def svdvals(self) -> Array:
        """Return the singular values, largest first.

        Returns
        -------
        array, shape (..., min(rows, cols))
            Real and non-negative.
        """
        op, xp = self._to_working_precision("svdvals")
        return self._from_working_precision(xp.flip(xp.sort(op._svdvals(xp), axis=-1), axis=-1), xp)

    @closed_form(Hooks._svdvals, Hooks._rounding, otherwise="numpy.linalg.matrix_rank(op.to_dense())")
    def rank(self, *, rtol: float | None = None) -> Array:
        """Return the numerical rank: how many singular values exceed `rtol` times the largest.

        Parameters
        ----------
        rtol : float, optional
            Relative cut-off, as for `pinv`.

        Returns
        -------
        array of integers, shape of the batch
            The rank; -1 for a matrix with NaN, except in NumPy.

        Raises
        ------
        numpy.linalg.LinAlgError
            If a NumPy operator holds NaN.
        ValueError
            If `rtol` is negative or not finite.
        """
        op, xp = self._to_working_precision("rank")
        values = op._svdvals(xp)
        unknown = xp.any(xp.isnan(values), axis=-1)
        if can_raise_for_values(xp) and bool(xp.any(unknown)):
            raise np.linalg.LinAlgError(f"{type(self).__name__}.rank: the matrix holds NaN")
        above = ~negligible(values, self._cutoff(rtol, "rank", xp), xp)
        count = xp.sum(xp.astype(above, xp.int32), axis=-1)
        return xp.where(unknown, xp.full_like(count, -1), count)

    @closed_form(Hooks._svdvals, otherwise="numpy.linalg.cond(op.to_dense())")
    def cond(self) -> Array:
        """Return the condition number in the 2-norm: the largest singular value over the smallest.

        Returns
        -------
        array, shape of the batch
            At least one; infinite for a singular matrix, which may be rectangular.
        """
        op, xp = self._to_working_precision("cond")
        values = op._svdvals(xp)
        largest, smallest = xp.max(values, axis=-1), xp.min(values, axis=-1)
        singular = (smallest == 0.0) & ~xp.isnan(largest)
        found = largest / xp.where(singular, xp.ones_like(smallest), smallest)
        return self._from_working_precision(xp.where(singular, xp.inf * xp.ones_like(found), found), xp)

    @closed_form(Hooks._diagonal, otherwise="numpy.trace(op.to_dense())")
    def trace(self) -> Array:
        """Return the sum of the diagonal.

        Returns
        -------
        array, shape of the batch
            A scalar array for one matrix.
        """
        op, xp = self._to_working_precision("trace")
        return self._from_working_precision(xp.sum(op._diagonal(xp), axis=-1), xp)

    @closed_form(Hooks._diagonal, otherwise="numpy.diagonal(op.to_dense())")
    def diagonal(self) -> Array:
        """Return the main diagonal.

        Returns
        -------
        array, shape (..., min(rows, cols))
            The entries ``A[i, i]``.
        """
        op, xp = self._to_working_precision("diagonal")
        return copied(self._from_working_precision(op._diagonal(xp), xp), xp)

    @closed_form(
        Hooks._norm,
        Hooks._frobenius,
        Hooks._svdvals,
        Hooks._modulus,
        Hooks._row_sums,
        otherwise="numpy.linalg.norm(op.to_dense())",
    )
    def norm(self, ord: NormOrder = "fro") -> Array:
        """Return a matrix norm.

        Parameters
        ----------
        ord : {"fro", "nuc", 1, 2, inf}, default "fro"
            Frobenius norm, nuclear norm (sum of singular values), largest absolute column sum, largest singular value,
            largest absolute row sum.

        Returns
        -------
        array, shape of the batch
            Real and non-negative.

        Raises
        ------
        ValueError
            If `ord` is none of these.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> C = sm.Circulant(np.array([3.0, 0.0, 4.0]))
        >>> [round(float(C.norm(p)), 12) for p in (1, 2, np.inf)]
        [7.0, 7.0, 7.0]
        """
        if ord not in ("fro", "nuc", 1, 2, math.inf):  # a tuple: it may have no hash
            text = f'must be "fro", "nuc", 1, 2 or inf, got {ord!r}'
            raise ArgumentValueError(f"{type(self).__name__}.norm", "ord", text)
        op, xp = self._to_working_precision("norm")
        return self._from_working_precision(op._norm(ord, xp), xp)

    # Functions of the eigenvalues, where the hook `_spectral_function` has them

    @closed_form(Hooks._spectral_function, otherwise="scipy.linalg.sqrtm(op.to_dense())")
    def sqrtm(self) -> LinearOperator:
        """Return the principal square root, an operator R with ``R @ R = A``.

        Returns
        -------
        LinearOperator
            Real whenever a real square root in the family exists: a negative eigenvalue on which a real circulant's
            spectrum folds back on itself (frequency zero, and n/2 for even n) makes the root complex; other negative
            eigenvalues come in pairs and get conjugate roots. Eigenvalues negative only by rounding count as zero.

        Raises
        ------
        ValueError
            If the operator is not square.
        numpy.linalg.LinAlgError
            If the operator is a triangular `Toeplitz` with a diagonal of zeros, of NumPy arrays; NaN for others.

        Notes
        -----
        Whether the root of a real operator is real depends on values, which ``jit`` does not know. So make the operator
        complex first there. The root of a real triangular `Toeplitz` is real under ``jit``, and NaN if the diagonal is
        negative. `logm` and `fractional_matrix_power` follow the same rule.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> C = sm.Circulant(np.array([2.0, -1.0, 0.0, -1.0]))  # periodic second difference, singular
        >>> R = C.sqrtm()
        >>> bool(np.allclose((R @ R).to_dense(), C.to_dense())), R.dtype
        (True, dtype('float64'))
        """
        op, xp = self._to_working_precision("sqrtm", square=True)
        function = SpectralFunction("sqrtm", xp.sqrt, needs_nonnegative=True, power=0.5)
        return self._from_working_precision(op._spectral_function(function, xp), xp)

    @closed_form(Hooks._spectral_function, otherwise="scipy.linalg.expm(op.to_dense())")
    def expm(self) -> LinearOperator:
        """Return the matrix exponential.

        Returns
        -------
        LinearOperator
            Real for a real operator.

        Raises
        ------
        ValueError
            If the operator is not square.
        """
        op, xp = self._to_working_precision("expm", square=True)
        function = SpectralFunction("expm", xp.exp, is_exponential=True)
        return self._from_working_precision(op._spectral_function(function, xp), xp)

    @closed_form(Hooks._spectral_function, otherwise="scipy.linalg.logm(op.to_dense())")
    def logm(self) -> LinearOperator:
        """Return the principal matrix logarithm, an operator L with ``L.expm() = A``.

        Returns
        -------
        LinearOperator
            Real by the rule of `sqrtm`.

        Raises
        ------
        ValueError
            If the operator is not square.
        numpy.linalg.LinAlgError
            If an eigenvalue is zero, of NumPy arrays; infinities or NaN for others.
        """
        op, xp = self._to_working_precision("logm", square=True)
        function = SpectralFunction("logm", xp.log, needs_nonnegative=True, needs_nonzero=True)
        return self._from_working_precision(op._spectral_function(function, xp), xp)

    @closed_form(Hooks._spectral_function, otherwise="scipy.linalg.fractional_matrix_power(op.to_dense(), p)")
    def fractional_matrix_power(self, p: float) -> LinearOperator:
        """Return the matrix power ``A^p`` for any real exponent.

        Parameters
        ----------
        p : float
            The exponent, of any real type; an integer, however large, gives the repeated product, other exponents the
            principal power.

        Returns
        -------
        LinearOperator
            Real for an integer `p`, else by the rule of `sqrtm`.

        Raises
        ------
        TypeError
            If `p` is not a finite real number.
        ValueError
            If the operator is not square.
        numpy.linalg.LinAlgError
            If `p` is negative and an eigenvalue is zero, of NumPy arrays; infinities or NaN for others.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> shift = sm.Circulant(np.array([0.0, 1.0, 0.0, 0.0]))
        >>> shift.fractional_matrix_power(3).to_dense()[:, 0].round(12) + 0.0
        array([0., 0., 0., 1.])
        """
        number = _exponent(p)
        if number is None:
            owner = f"{type(self).__name__}.fractional_matrix_power"
            raise ArgumentTypeError(owner, "p", f"must be a finite real number, got {p!r}")
        op, xp = self._to_working_precision("fractional_matrix_power", square=True)
        is_integer = isinstance(number, int) or number.is_integer()
        function = SpectralFunction(
            "fractional_matrix_power",
            lambda values: integer_power(values, int(number), xp) if is_integer else values**number,
            needs_nonnegative=not is_integer,
            needs_nonzero=number < 0,
            power=number,
        )
        return self._from_working_precision(op._spectral_function(function, xp), xp)

    @closed_form(Hooks._spectral_function, otherwise="scipy.linalg.funm(op.to_dense(), func)")
    def funm(self, func: Callable[[Array], Array], *, real: bool | None = None) -> LinearOperator:
        """Return a function of the matrix by its eigenvalues, ``V diag(func(w)) V^-1``, as `scipy.linalg.funm` does.

        Parameters
        ----------
        func : callable
            The function, entry by entry, of an array of eigenvalues: complex, of the operator's library. It may be
            called several times.
        real : bool, optional
            Whether the function of a real operator is real, as it is where ``func(conj(z)) = conj(func(z))``: for every
            power series with real coefficients. By default that is found out from the values of `func`; under ``jit``
            and ``vmap``, which do not let them be read, say it. A given one is not checked, and for a complex operator
            it does not count.

        Returns
        -------
        LinearOperator
            Of the same family. Real of a real operator where `real`, else complex.

        Raises
        ------
        ValueError
            If the operator is not square, or `func` does not return one value for each eigenvalue.
        TypeError
            If `func` is not callable, or returns what is no number or belongs to another array library.

        See Also
        --------
        LinearOperator.eig : Eigenvalues and eigenvectors.

        Examples
        --------
        Heat and waves on a circle of four points, after the time 1:

        >>> import numpy as np
        >>> import structmat as sm
        >>> L = sm.Circulant(np.array([-2.0, 1.0, 0.0, 1.0]))  # periodic second difference
        >>> bool(np.allclose(L.funm(np.exp).to_dense(), L.expm().to_dense()))
        True
        >>> wave = L.funm(lambda z: np.cos(np.sqrt(-z)))
        >>> wave.dtype, wave.c.round(3)
        (dtype('float64'), array([0.224, 0.354, 0.068, 0.354]))
        >>> L.funm(lambda z: np.exp(1j * z)).dtype
        dtype('complex128')
        """
        owner = f"{type(self).__name__}.funm"
        if not callable(func):
            raise ArgumentTypeError(owner, "func", f"must be callable, got {func!r}")
        op, xp = self._to_working_precision("funm", square=True)
        function = SpectralFunction("funm", on_eigenvalues(func, owner, xp), stays_real=real)
        return self._from_working_precision(op._spectral_function(function, xp), xp)

    # The operators of Python, by the tables of rules of `structmat.extend`

    def __matmul__(self, other: Any) -> Any:
        if type(other) is np.ndarray:
            return self.matvec(other) if other.ndim == 1 else self.matmat(other)
        if not isinstance(other, LinearOperator):
            if not is_array_like(other):
                return NotImplemented
            return self.matvec(other) if is_vector(other) else self.matmat(other)
        if self.shape[1] != other.shape[0]:
            owner = f"{type(self).__name__} @ {type(other).__name__}"
            raise ArgumentValueError(owner, None, f"inner sizes differ, {self.shape} @ {other.shape}")
        return combine(compose, self, other, "@")

    def __rmatmul__(self, other: Any) -> Any:
        if not is_array_like(other):
            return NotImplemented
        if is_vector(other):
            return self._transpose().matvec(other)
        X, xp = self._read(other, f"X @ {type(self).__name__}", "X")
        if X.ndim < 2 or X.shape[-1] != self.shape[0]:
            raise wrong_shape(f"X @ {self!r}", "X", f"(..., {self.shape[0]})", X)
        return xp.matrix_transpose(self._transpose().matmat(xp.matrix_transpose(X)))

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, LinearOperator):
            if type(other) is int and other == 0:  # the start of `sum`
                return self
            if is_array_like(other):
                text = "add operators, or arrays to op.to_dense()"
                raise ArgumentTypeError(f"{type(self).__name__} + or - array", None, text)
            if isinstance(other, (int, float, complex)):
                text = "add a number times the identity, structmat.Identity(n), or numbers to op.to_dense()"
                raise ArgumentTypeError(f"{type(self).__name__} + or - number", None, text)
            return NotImplemented
        if self.shape != other.shape:
            owner = f"{type(self).__name__} + {type(other).__name__}"
            raise ArgumentValueError(owner, None, f"shapes differ, {self.shape} + {other.shape}")
        return combine(add, self, other, "+")

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self + (-other) if isinstance(other, LinearOperator) else self.__add__(other)

    def __rsub__(self, other: Any) -> Any:
        return self.__add__(other) if is_array_like(other) else other + (-self)  # which refuses arrays

    def __pos__(self) -> Self:
        return self

    def __neg__(self) -> LinearOperator:
        return scale(self, -1)

    def __mul__(self, factor: Any) -> Any:
        if isinstance(factor, LinearOperator):
            owner = f"{type(self).__name__} * {type(factor).__name__}"
            raise ArgumentTypeError(owner, None, "use @ for the matrix product; * is for scalars")
        return multiple(self, factor, f"{type(self).__name__} * array", lambda number: number)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Any:
        if isinstance(divisor, LinearOperator):
            return NotImplemented
        return multiple(self, divisor, f"{type(self).__name__} / array", Reciprocal)

    def __pow__(self, k: Any) -> Any:
        """Return the k-th power for an integer k: in closed form, or as a product of k factors."""
        return power(self, exponent_of_power(self, k))

    # Shared steps of the public methods

    _read = read
    _operand = operand

    def _cutoff(self, rtol: float | None, method: str, xp: Namespace) -> float:
        """Return the relative cut-off of singular values: `rtol` after its check, or the default for None."""
        if rtol is None:
            return self._to_working_precision(method)[0]._rounding(xp)
        return non_negative(rtol, f"{type(self).__name__}.{method}", "rtol")


def _exponent(p: Any) -> int | float | None:
    """Return a real number of any type as a Python number; None if it is not a finite real number."""
    try:
        return int(p) if isinstance(p, Integral) else float(p) if math.isfinite(p) else None
    except (TypeError, OverflowError):
        return None


def closed_forms() -> dict[str, ClosedForm]:
    """Return the methods that only some operators have, with the hooks that they ask and what serves otherwise.

    Returns
    -------
    dict of str to ClosedForm
        By the names of the methods. Those whose first hook is the same come together.

    Examples
    --------
    >>> from structmat.extend import closed_forms
    >>> [name for name, form in closed_forms().items() if form.hooks[0] == "_svdvals"]
    ['svdvals', 'rank', 'cond']
    """
    return declared_in(LinearOperator)


class Planned(LinearOperator):
    """An operator with the hook ``_plan`` in place of ``_matvec``: a plan computes its products.

    See Also
    --------
    structmat.extend.plan_of_parts : A plan by other operators.
    """

    @abstractmethod
    def _plan(self, xp: Namespace) -> Plan:
        """Return what computes the products."""

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        return self._plan(xp).apply(x, xp)
