"""The bridge to SciPy's `LinearOperator`, for its iterative solvers and everything else that takes one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse.linalg

from structmat._arrays.libraries import is_numpy
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat.operators import LinearOperator

__all__ = ["as_linear_operator"]


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
