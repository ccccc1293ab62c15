"""SciPy's names: its functions of Toeplitz matrices and circulants, and the bridge to its `LinearOperator`.

A script that takes these functions from here in place of `scipy.linalg` needs no other change where it solves and
multiplies: signatures, shapes and errors are SciPy's. `toeplitz`, `circulant` and `hankel` return operators.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal

import numpy as np
import scipy.fft
import scipy.sparse.linalg

from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import is_array, is_numpy, namespace, namespace_of, rules_of
from structmat._arrays.typing import Array, ArrayLike
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat.operators import Circulant, Hankel, LinearOperator, SpectralCirculant, Toeplitz

__all__ = [
    "as_linear_operator",
    "circulant",
    "hankel",
    "matmul_toeplitz",
    "solve_circulant",
    "solve_toeplitz",
    "toeplitz",
]


def as_linear_operator(operator: LinearOperator) -> scipy.sparse.linalg.LinearOperator[Any]:
    """Return an operator as SciPy's `LinearOperator`, for ``svds`` and whatever else multiplies columns.

    Parameters
    ----------
    operator : LinearOperator
        One matrix whose parameters are NumPy arrays.

    Returns
    -------
    scipy.sparse.linalg.LinearOperator
        With `matvec`, `rmatvec`, `matmat` and `rmatmat`.

    Raises
    ------
    TypeError
        If `operator` is not a structmat operator, or holds arrays of another library than NumPy.
    ValueError
        If `operator` is a stack of matrices.

    See Also
    --------
    structmat.solve : Iterates by methods of its own, with a preconditioner.

    Notes
    -----
    SciPy's solvers of vectors take operators of structmat as they are: ``cg``, ``gmres``, ``minres``, ``lsqr``,
    ``lsmr``, ``eigs``, ``eigsh`` and others, as does ``aslinearoperator`` for products with vectors. For columns SciPy
    calls `matvec` with shape ``(n, 1)``, which here is a batch of another length; therefore ``svds``, ``onenormest``,
    ``expm_multiply`` and products with matrices need this conversion.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse.linalg import svds
    >>> import structmat as sm
    >>> A = sm.Circulant(np.array([4.0, 1.0, 0.0, 1.0])) + sm.Diagonal(np.array([1.0, 2.0, 3.0, 4.0]))
    >>> largest = svds(sm.scipy.as_linear_operator(A), k=1, return_singular_vectors=False)
    >>> bool(np.allclose(largest, np.linalg.norm(A.to_dense(), 2)))
    True
    """
    owner = "as_linear_operator"
    if not isinstance(operator, LinearOperator):
        raise ArgumentTypeError(owner, "operator", f"must be a structmat operator, got {type(operator).__name__}")
    if not is_numpy(operator._own_namespace()):
        raise ArgumentTypeError(owner, "operator", f"must hold NumPy arrays, got {operator!r}")
    if operator.batch_shape:
        text = f"must be one matrix, got a stack of shape {operator.batch_shape}"
        raise ArgumentValueError(owner, "operator", text)
    dtype = operator.dtype or np.dtype("complex128" if operator._forces_complex else "float64")
    matvec, rmatvec = (partial(_of_vector, function) for function in (operator.matvec, operator.rmatvec))
    make: Any = scipy.sparse.linalg.LinearOperator
    return make(operator.shape, matvec, rmatvec, operator.matmat, dtype, partial(_adjoint_columns, operator))


def _of_vector(function: Callable[[Any], Any], x: Any) -> Any:
    """Return the product with a vector, which SciPy may pass as a column."""
    return function(x.reshape(-1))


def _adjoint_columns(operator: LinearOperator, X: Any) -> Any:
    """Return the product of the adjoint and columns."""
    return operator.H.matmat(X)


def toeplitz(c: ArrayLike, r: ArrayLike | None = None) -> Toeplitz:
    """Return a Toeplitz matrix, as `scipy.linalg.toeplitz`, but as an operator.

    Parameters
    ----------
    c : array, shape (..., m)
        The first column, or a number for one row. Leading axes make a stack of matrices.
    r : array, shape (..., n), optional
        The first row, or a number for one column; its first entry is ignored. Default: the complex conjugate of `c`.

    Returns
    -------
    Toeplitz
        ``to_dense()`` gives what SciPy returns, with integers as floating-point numbers.

    Raises
    ------
    ValueError, TypeError
        As of `structmat.Toeplitz`; `c` and `r` must not be empty.

    Examples
    --------
    >>> import structmat as sm
    >>> sm.scipy.toeplitz([1, 2, 3], [1, 4]).to_dense()
    array([[1., 4.],
           [2., 1.],
           [3., 2.]])
    """
    return Toeplitz(_at_least_1d(c), None if r is None else _at_least_1d(r))


def circulant(c: ArrayLike) -> Circulant:
    """Return a circulant, as `scipy.linalg.circulant`, but as an operator.

    Parameters
    ----------
    c : array, shape (..., n)
        The first column. Leading axes make a stack of matrices.

    Returns
    -------
    Circulant
        ``to_dense()`` gives what SciPy returns, with integers as floating-point numbers.

    Raises
    ------
    ValueError, TypeError
        As of `structmat.Circulant`; `c` must not be empty.

    Examples
    --------
    >>> import structmat as sm
    >>> sm.scipy.circulant([1, 2, 3]).to_dense()
    array([[1., 3., 2.],
           [2., 1., 3.],
           [3., 2., 1.]])
    """
    return Circulant(_at_least_1d(c))


def hankel(c: ArrayLike, r: ArrayLike | None = None) -> Hankel:
    """Return a Hankel matrix, as `scipy.linalg.hankel`, but as an operator.

    Parameters
    ----------
    c : array, shape (..., m)
        The first column. Leading axes make a stack of matrices, as in SciPy from version 1.19 on.
    r : array, shape (..., n), optional
        The last row; its first entry is ignored. Default: zeros of the length of `c`.

    Returns
    -------
    Hankel
        ``to_dense()`` gives what SciPy returns, with integers as floating-point numbers.

    Raises
    ------
    ValueError, TypeError
        As of `structmat.Hankel`; `c` and `r` must not be empty.

    Examples
    --------
    >>> import structmat as sm
    >>> sm.scipy.hankel([1, 2, 3]).to_dense()
    array([[1., 2., 3.],
           [2., 3., 0.],
           [3., 0., 0.]])
    """
    return Hankel(_at_least_1d(c), None if r is None else _at_least_1d(r))


def matmul_toeplitz(
    c_or_cr: ArrayLike | tuple[ArrayLike, ArrayLike],
    x: ArrayLike,
    check_finite: bool = False,
    workers: int | None = None,
) -> Array:
    """Return the product of a Toeplitz matrix with a vector or columns, as `scipy.linalg.matmul_toeplitz`.

    Parameters
    ----------
    c_or_cr : array, shape (..., m), or tuple of two arrays, shapes (..., m) and (..., n)
        The first column, or first column and first row.
    x : array, shape (n,) or (..., n, k)
        One vector, or vectors in columns.
    check_finite : bool, default False
        Whether infinities and NaN are an error.
    workers : int, optional
        The threads of SciPy's transforms, as in `scipy.fft.set_workers`.

    Returns
    -------
    array, shape (..., m) or (..., m, k)
        The product, of NumPy arrays in double precision as in SciPy.

    Raises
    ------
    ValueError
        If the dimensions do not fit, or entries are not finite where that is checked.

    See Also
    --------
    structmat.Toeplitz : ``T @ x``, and `prepare` for many products.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> sm.scipy.matmul_toeplitz(([1, 2, 3], [1, 4]), [1, 1]).round(12)
    array([5., 3., 5.])
    """
    c, r, x = _toeplitz_operands(c_or_cr, x, "matmul_toeplitz", "x", check_finite=check_finite)
    rows, cols = c.shape[-1], r.shape[-1]
    if x.shape[-2 if x.ndim > 1 else 0] != cols:
        text = f"a matrix of shape {(rows, cols)} has no product with an array of shape {tuple(x.shape)}"
        raise ArgumentValueError("matmul_toeplitz", None, f"Incompatible dimensions: {text}")
    if not (rows and cols):
        return _zeros((rows, *x.shape[1:]), c, r, x)
    with nullcontext() if workers is None else scipy.fft.set_workers(workers):
        return Toeplitz(c, r) @ x


def solve_toeplitz(c_or_cr: ArrayLike | tuple[ArrayLike, ArrayLike], b: ArrayLike, check_finite: bool = True) -> Array:
    """Return the solutions of Toeplitz systems, as `scipy.linalg.solve_toeplitz`.

    Parameters
    ----------
    c_or_cr : array, shape (..., n), or tuple of two of them
        The first column, or first column and first row.
    b : array, shape (n,) or (..., n, k)
        One right-hand side, or right-hand sides in columns.
    check_finite : bool, default True
        Whether infinities and NaN are an error.

    Returns
    -------
    array, shape (..., n) or (..., n, k)
        The solutions, of NumPy arrays in double precision as in SciPy.

    Raises
    ------
    ValueError
        If the dimensions do not fit, or entries are not finite where that is checked.
    numpy.linalg.LinAlgError
        If the matrix is singular to working precision.

    Warns
    -----
    scipy.linalg.LinAlgWarning
        If the matrix is ill-conditioned.

    See Also
    --------
    structmat.Toeplitz : ``T.solve(b)``, and its `inv` for many right-hand sides.

    Notes
    -----
    SciPy's recursion raises an error too where a leading section of a regular matrix is singular, as where the diagonal
    is zero, and loses digits where one is ill-conditioned. Such systems are solved here.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> sm.scipy.solve_toeplitz(([1, 2], [1, 3]), [7, 4]).round(12)
    array([1., 2.])
    """
    owner = "solve_toeplitz"
    c, r, b = _toeplitz_operands(c_or_cr, b, owner, "b", check_finite=check_finite)
    n = c.shape[-1]
    if r.shape[-1] != n or b.shape[-2 if b.ndim > 1 else 0] != n:
        text = f"first column and row of lengths {n} and {r.shape[-1]}, right-hand sides of shape {tuple(b.shape)}"
        raise ArgumentValueError(owner, None, f"Incompatible dimensions: {text}")
    return Toeplitz(c, r).solve(b) if n else _zeros(tuple(b.shape), c, r, b)


def solve_circulant(
    c: ArrayLike,
    b: ArrayLike,
    singular: Literal["raise", "lstsq"] = "raise",
    tol: float | None = None,
    caxis: int = -1,
    baxis: int = 0,
    outaxis: int = 0,
) -> Array:
    """Return the solutions of circulant systems, as `scipy.linalg.solve_circulant`.

    Parameters
    ----------
    c : array
        First columns along one axis; the others make a stack of matrices.
    b : array
        Right-hand sides along one axis. Its other axes broadcast against those of `c`.
    singular : {"raise", "lstsq"}, default "raise"
        Whether a matrix that is near to a singular one is an error, or has a solution of least squares.
    tol : float, optional
        The modulus up to which an eigenvalue counts as zero. Default: the largest one times n times the machine epsilon
        of double precision.
    caxis, baxis : int, default -1 and 0
        The axis of `c` with the first columns, that of `b` with the right-hand sides.
    outaxis : int, default 0
        The axis of the result with the solutions.

    Returns
    -------
    array
        The solutions.

    Raises
    ------
    ValueError
        If the lengths differ, an axis is out of bounds, or `singular` is neither of the two.
    numpy.linalg.LinAlgError
        If a matrix is near to a singular one and `singular` is "raise".

    See Also
    --------
    structmat.Circulant : `solve`, `inv_matvec` and `lstsq`.

    Examples
    --------
    >>> import structmat as sm
    >>> sm.scipy.solve_circulant([2, 1, 0], [3, 3, 3]).round(12)
    array([1., 1., 1.])
    """
    owner = "solve_circulant"
    if singular not in {"raise", "lstsq"}:
        raise ArgumentValueError(owner, "singular", f'must be "raise" or "lstsq", got {singular!r}')
    c, b = _at_least_1d(c), _at_least_1d(b)
    xp = namespace_of(owner, c, b)
    c, b = (_with_axis_last(v, axis, name, xp) for v, axis, name in ((c, caxis, "c"), (b, baxis, "b")))
    n = c.shape[-1]
    if b.shape[-1] != n:
        text = f"the columns have length {n}, the right-hand sides {b.shape[-1]}"
        raise ArgumentValueError(owner, None, f"Shapes of c and b are incompatible: {text}")
    if 0 in b.shape:
        x = _zeros(np.broadcast_shapes(tuple(c.shape), tuple(b.shape)), c, b)
        return xp.moveaxis(x, -1, outaxis)
    C = Circulant(c)
    values = C.eigvals()
    sizes = xp.abs(values)
    allowed = xp.max(sizes, axis=-1, keepdims=True) * n * float(np.finfo(float).eps) if tol is None else tol
    vanish = sizes <= allowed
    if singular == "raise" and bool(xp.any(vanish)):
        raise np.linalg.LinAlgError(f"{owner}: near singular circulant matrix")
    reciprocals = xp.where(vanish, xp.zeros_like(values), 1 / xp.where(vanish, xp.ones_like(values), values))
    x = SpectralCirculant(reciprocals, n, real=False).matvec(b)
    if not (is_complex(C.dtype, xp) or is_complex(b.dtype, xp)):
        x = xp.real(x)
    return xp.moveaxis(x, -1, outaxis)


def _at_least_1d(value: ArrayLike) -> Any:
    """Return an array of any library with at least one axis; lists and numbers become NumPy arrays."""
    array: Any = value if is_array(value) else np.asarray(value)
    return array if array.ndim else namespace(array).reshape(array, (1,))


def _with_axis_last(array: Any, axis: int, name: str, xp: Any) -> Any:
    if not -array.ndim <= axis < array.ndim:
        text = f"'{name}axis' entry is out of bounds: {axis} for an array of {array.ndim} axes"
        raise ArgumentValueError("solve_circulant", None, text)
    return xp.moveaxis(array, axis, -1)


def _toeplitz_operands(c_or_cr: Any, b: Any, owner: str, argument: str, *, check_finite: bool) -> tuple[Any, Any, Any]:
    """Return first column, first row and vectors; those of NumPy in double precision, as SciPy computes."""
    if b is None:
        raise ArgumentValueError(owner, argument, "must be an array, not None")
    c, r = c_or_cr if isinstance(c_or_cr, tuple) else (c_or_cr, None)
    arrays = [_at_least_1d(v) for v in ((c, b) if r is None else (c, r, b))]
    xp = namespace_of(owner, *arrays)
    if is_numpy(xp):
        if any(v.dtype.kind == "O" for v in arrays):
            raise ArgumentValueError(owner, None, "object arrays are not supported; give arrays of numbers")
        arrays = [v.astype(np.result_type(v, np.float64), copy=False) for v in arrays]
    for each in arrays if check_finite else ():
        values = rules_of(xp).concrete(each)
        if values is not None and not bool(xp.all(xp.isfinite(values))):
            raise ArgumentValueError(owner, None, "array must not contain infs or NaNs")
    c, *given, b = arrays
    return c, given[0] if given else (xp.conj(c) if is_complex(c.dtype, xp) else c), b


def _zeros(shape: tuple[int, ...], *arrays: Any) -> Any:
    """Return zeros of the dtype that a result of these arrays has, whose integers count as the default precision."""
    xp = namespace(*arrays)
    default = xp.asarray(0.0).dtype
    dtypes = (v.dtype if xp.isdtype(v.dtype, ("real floating", "complex floating")) else default for v in arrays)
    return xp.zeros(shape, dtype=xp.result_type(*dtypes))
