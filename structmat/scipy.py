"""The bridge to SciPy's `LinearOperator`, for its iterative solvers and everything else that takes one."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse.linalg

from structmat._array_tools import ArgumentTypeError, ArgumentValueError, Namespace, is_numpy
from structmat.operators import LinearOperator

__all__ = ["as_linear_operator"]

_BATCHES = "xp" in inspect.signature(scipy.sparse.linalg.LinearOperator.__init__).parameters
"""Whether SciPy's operators have batch axes and arrays of other libraries: from 1.18 on."""


def as_linear_operator(operator: LinearOperator) -> scipy.sparse.linalg.LinearOperator[Any]:
    """Return an operator as SciPy's `LinearOperator`, for ``svds`` and whatever else multiplies columns.

    Parameters
    ----------
    operator : LinearOperator
        One matrix whose parameters are NumPy arrays. With SciPy 1.18 and later a stack of matrices as well, and with
        the environment variable ``SCIPY_ARRAY_API=1`` arrays of other libraries.

    Returns
    -------
    scipy.sparse.linalg.LinearOperator
        With `matvec`, `rmatvec`, `matmat` and `rmatmat`, of shape ``(..., rows, cols)``.

    Raises
    ------
    TypeError
        If `operator` is not a structmat operator, or holds arrays of a library that SciPy does not take.
    ValueError
        If `operator` is a stack of matrices, before SciPy 1.18.

    See Also
    --------
    structmat.solve : Chooses a solver of SciPy, and a preconditioner.

    Notes
    -----
    SciPy's solvers themselves take one matrix of NumPy arrays. Those of vectors take operators of structmat as they
    are: ``cg``, ``gmres``, ``minres``, ``lsqr``, ``lsmr``, ``eigs``, ``eigsh`` and others, as does
    ``aslinearoperator`` for products with vectors. Before SciPy 1.18 that passes columns of shape ``(n, 1)`` to
    `matvec`, for which they are a batch of another length; therefore ``svds``, ``onenormest``, ``expm_multiply``,
    products with matrices, and stacks need this conversion.

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
    xp = operator._own_namespace()
    if not is_numpy(xp):
        return _Bridge(operator, _namespace_in_scipy(operator, xp, owner))
    if operator.batch_shape and not _BATCHES:
        text = f"must be one matrix before SciPy 1.18, got a stack of shape {operator.batch_shape}"
        raise ArgumentValueError(owner, "operator", text)
    return _Bridge(operator, None)


def _namespace_in_scipy(operator: LinearOperator, xp: Namespace, owner: str) -> Namespace:
    """Return SciPy's own namespace of a library, which is not that of `array_api_compat` although of the same kind."""
    if not _BATCHES:
        raise ArgumentTypeError(owner, "operator", f"must hold NumPy arrays before SciPy 1.18, got {operator!r}")
    known: Any = scipy.sparse.linalg.aslinearoperator(xp.ones((1, 1), dtype=operator.dtype, device=operator.device))
    if known._xp.__name__.endswith(".numpy"):  # to which it has converted the array
        text = f"must hold NumPy arrays unless SCIPY_ARRAY_API=1 is set before SciPy is imported, got {operator!r}"
        raise ArgumentTypeError(owner, "operator", text)
    return known._xp


def _without_column(x: Any, length: int) -> Any:
    """Return a vector that SciPy has handed over as a column."""
    return x.reshape(-1) if length > 1 and x.shape == (length, 1) else x


if TYPE_CHECKING:
    _Base = scipy.sparse.linalg.LinearOperator[Any]
else:  # no generic class in SciPy 1.15
    _Base = scipy.sparse.linalg.LinearOperator


class _Bridge(_Base):
    """An operator of structmat in the place of one of SciPy; a class of its own, so that it can be pickled."""

    def __init__(self, operator: Any, xp: Namespace | None) -> None:
        self.operator, self.adjoint_operator = operator, operator.H
        dtype = operator.dtype or np.dtype("complex128" if operator._forces_complex else "float64")
        of_library = {} if xp is None else {"xp": xp}
        super().__init__(dtype, (*operator.batch_shape, *operator.shape), **of_library)  # type: ignore[call-arg]  # which its stubs lack

    def _matvec(self, x: Any) -> Any:
        return self.operator.matvec(_without_column(x, self.operator.shape[1]))

    def _rmatvec(self, x: Any) -> Any:
        return self.operator.rmatvec(_without_column(x, self.operator.shape[0]))

    def _matmat(self, X: Any) -> Any:
        return self.operator.matmat(X)

    def _rmatmat(self, X: Any) -> Any:
        return self.adjoint_operator.matmat(X)
