"""The bridge to SciPy's iterative solvers; the only file that knows `scipy.sparse`."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse.linalg

from structmat._arrays import is_numpy
from structmat._arrays.errors import ArgumentTypeError, ArgumentValueError
from structmat.operators import LinearOperator

__all__ = ["as_linear_operator"]


def as_linear_operator(operator: LinearOperator) -> scipy.sparse.linalg.LinearOperator[Any]:
    """Return a NumPy operator as SciPy's `LinearOperator`, for ``cg``, ``gmres``, ``lsqr``, ``svds``, ``eigs`` ...

    Parameters
    ----------
    operator : LinearOperator
        One matrix, without batch axes, whose parameters are NumPy arrays.

    Returns
    -------
    scipy.sparse.linalg.LinearOperator
        With `matvec`, `rmatvec`, `matmat` and `rmatmat`.

    Raises
    ------
    TypeError
        If `operator` is not a structmat operator, or holds arrays of another library.
    ValueError
        If `operator` is a stack of matrices.

    Notes
    -----
    SciPy passes columns of shape ``(n, 1)`` to duck-typed operators, which the axis rule of structmat would treat as a
    batch; therefore this conversion is needed.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse.linalg import cg
    >>> import structmat as sm
    >>> A = sm.Circulant(np.array([4.0, 1.0, 0.0, 1.0])) + sm.Diagonal(np.array([1.0, 2.0, 3.0, 4.0]))
    >>> x, info = cg(sm.scipy.as_linear_operator(A), np.ones(4), rtol=1e-12)
    >>> info, bool(np.allclose(A @ x, 1))
    (0, True)
    """
    if not isinstance(operator, LinearOperator):
        raise ArgumentTypeError(
            "as_linear_operator", "operator", f"must be a structmat operator, got {type(operator).__name__}"
        )
    if not is_numpy(operator._own_namespace()):
        raise ArgumentTypeError("as_linear_operator", "operator", f"must hold NumPy arrays, got {operator!r}")
    if operator.batch_shape:
        raise ArgumentValueError(
            "as_linear_operator", "operator", f"must be one matrix, got a stack of shape {operator.batch_shape}"
        )
    return _Bridge(operator)


class _Bridge(scipy.sparse.linalg.LinearOperator[Any]):
    """An operator of structmat in the place of one of SciPy; a class of its own, so that it can be pickled."""

    def __init__(self, operator: Any) -> None:
        self.operator, self.adjoint_operator = operator, operator.H
        dtype = operator.dtype or np.dtype("complex128" if operator._forces_complex else "float64")
        super().__init__(dtype, operator.shape)  # type: ignore[call-arg]  # which its stubs lack

    def _matvec(self, x: Any) -> Any:
        return self.operator.matvec(x.reshape(-1))

    def _rmatvec(self, x: Any) -> Any:
        return self.operator.rmatvec(x.reshape(-1))

    def _matmat(self, X: Any) -> Any:
        return self.operator.matmat(X)

    def _rmatmat(self, X: Any) -> Any:
        return self.adjoint_operator.matmat(X)
