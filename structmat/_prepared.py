"""Operators that are prepared for many products."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from structmat._arrays import dtype_name, is_complex, is_numpy, library_of, namespace_of, precision_of
from structmat._base import Context, LinearOperator
from structmat._convolution import Plan
from structmat._dispatch import add, compose, scale
from structmat._fft import Settings, direct_up_to, ducc
from structmat._functions import SpectralFunction
from structmat._linalg import NormOrder
from structmat._neutral import Identity
from structmat._typing import Array, ArrayLike, DType, Namespace, Scalar

__all__ = ["Prepared", "prepared"]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Prepared(LinearOperator):
    """An operator beside what its products need, computed once: what `LinearOperator.prepare` returns.

    Parameters
    ----------
    operator : LinearOperator
        The operator as it was.
    plan, adjoint : LinearOperator
        What computes the products with it and with its adjoint.
    matrix : array, shape (..., rows, cols), optional
        Its dense matrix, where that is small enough for a direct product to be faster.
    direct : int
        The largest number of vectors for which it is.
    how : Settings
        The engine and the number of threads.
    native : (type, dtype)
        Vectors of this type and dtype go straight to the plan.

    See Also
    --------
    LinearOperator.prepare : Makes one.

    Notes
    -----
    It has every method of its operator. Transposes, products, sums and multiples of it are prepared as well; inverses
    and functions are those of the operator. It is immutable and has no scratch memory of its own, so any number of
    threads may use it at once. Vectors of another precision are multiplied by the operator itself, at its speed.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> P = sm.Toeplitz(np.array([1.0, 2.0, 3.0])).prepare()
    >>> x, y = np.ones(3), np.empty(3)
    >>> P.matvec(x, out=y)
    array([6., 5., 6.])
    >>> P.T
    Prepared(Toeplitz, shape=(3, 3), dtype=float64, device=cpu)
    """

    _core_axes = {"operator": None, "plan": None, "adjoint": None, "matrix": 2}

    operator: LinearOperator
    """The operator as it was."""
    plan: LinearOperator
    """What computes its products."""
    adjoint: LinearOperator
    """What computes those with its adjoint."""
    matrix: Any
    """Its dense matrix, or None."""
    direct: int
    """The largest number of vectors for which the dense matrix is used."""
    how: Settings
    """Engine and number of threads."""
    native: tuple[type, DType]
    """Type and dtype of the vectors that it was prepared for."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.operator.shape

    @property
    def dtype(self) -> DType:
        """The dtype of the operator."""
        return self.operator.dtype

    @property
    def _forces_complex(self) -> bool:
        return self.operator._forces_complex

    def _details(self) -> str:
        return f"{type(self.operator).__name__}, "

    def _described(self) -> str:
        return self.operator._described()

    # Products

    def matvec(self, x: ArrayLike, /, *, out: Any = None) -> Array:
        """Return A x, along the last axis.

        Parameters
        ----------
        x : array, shape (..., cols)
            One vector or any batch of them.
        out : numpy.ndarray, shape (..., rows), optional
            Where to put the products of NumPy vectors of the operator's dtype: contiguous, of that dtype too, and apart
            from `x`.

        Returns
        -------
        array, shape (..., rows)
            The products, of the common dtype of operator and `x`; `out` itself if given.

        Raises
        ------
        ValueError
            If the last axis of `x` has another length, the batch axes do not broadcast, or `out` does not fit.
        TypeError
            If `x` belongs to another array library than the operator.
        """
        if type(x) is self.native[0] and x.dtype == self.native[1] and x.shape[-1:] == self.operator.shape[1:]:
            if out is not None:
                self._require_fitting(out, x)
            product = self._product(x, namespace_of("Prepared.matvec: x", x), out)
            return product if out is None else out
        if out is not None:
            raise ValueError(
                f"Prepared.matvec: out is for NumPy vectors of shape (..., {self.shape[1]}) and dtype {self.native[1]}"
            )
        return super(Prepared, self).matvec(x)  # slots make a new class, which the short form would not find

    def rmatvec(self, y: ArrayLike, /) -> Array:
        """Return A^H y, the product with the adjoint, along the last axis; see `LinearOperator.rmatvec`."""
        if type(y) is self.native[0] and y.dtype == self.native[1] and y.shape[-1:] == self.operator.shape[:1]:
            return self._rmatvec(y, namespace_of("Prepared.rmatvec: y", y))
        return super(Prepared, self).rmatvec(y)

    def _require_fitting(self, out: Any, x: Any) -> None:
        shape = (*x.shape[:-1], self.shape[0])
        if type(out) is not np.ndarray or type(x) is not np.ndarray or out.dtype != x.dtype or out.shape != shape:
            raise ValueError(f"Prepared.matvec: out must be a NumPy array of shape {shape} and dtype {x.dtype}")
        if not out.flags.c_contiguous or not out.flags.writeable or np.may_share_memory(out, x):
            raise ValueError("Prepared.matvec: out must be contiguous, writeable and apart from x")

    def _product(self, x: Any, xp: Namespace, out: Any = None) -> Array:
        if self.direct and x.dtype == self.matrix.dtype and prod(x.shape[:-1]) <= self.direct:
            return _direct(self.matrix, x, xp, out)
        if isinstance(self.plan, Plan):
            return self.plan._matvec(x, xp, out)
        y = self.plan._matvec(x, xp)
        if out is None:
            return y
        out[...] = y
        return y

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        return self._product(x, xp)

    def _rmatvec(self, y: Array, xp: Namespace) -> Array:
        if self.direct and y.dtype == self.matrix.dtype and prod(y.shape[:-1]) <= self.direct:
            matrix = self.matrix if not is_complex(y.dtype, xp) else xp.conj(self.matrix)
            return _direct(xp.matrix_transpose(matrix), y, xp)
        return self.adjoint._matvec(y, xp)

    def _matmat(self, X: Array, xp: Namespace) -> Array:
        if self.direct and X.dtype == self.matrix.dtype and prod(X.shape) <= self.direct * X.shape[-2]:
            return xp.matmul(self.matrix, X)
        return super(Prepared, self)._matmat(X, xp)

    def _transpose(self) -> Prepared:
        matrix = None if self.matrix is None else self._own_namespace().matrix_transpose(self.matrix)
        return self._with(self.operator._transpose(), self.adjoint._conj(), self.plan._conj(), matrix)

    def _conj(self) -> Prepared:
        matrix = self.matrix
        if matrix is not None and is_complex(matrix.dtype, xp := self._own_namespace()):
            matrix = xp.conj(matrix)
        return self._with(self.operator._conj(), self.plan._conj(), self.adjoint._conj(), matrix)

    def _with(self, operator: LinearOperator, plan: LinearOperator, adjoint: LinearOperator, matrix: Any) -> Prepared:
        return Prepared(operator, plan, adjoint, matrix, self.direct, self.how, self.native)

    # Parameters are those of the operator: what was computed from them follows.

    def _leaves(self) -> list[tuple[Array, int]]:
        return self.operator._leaves()

    def _in_precision(self, precision: DType, xp: Namespace) -> Any:
        operator = self.operator._in_precision(precision, xp)
        if operator is self.operator:
            return self
        if precision == precision_of(self.dtype, xp):  # a half precision widened: what was computed is so already
            return self._with(operator, self.plan, self.adjoint, self.matrix)
        return operator

    def astype(self, dtype: DType) -> Any:
        """Return the operator with parameters in another precision, prepared anew; see `LinearOperator.astype`."""
        return prepared(self.operator.astype(dtype), self.how)

    # Everything else is the operator's own.

    def _to_dense(self, like: Context) -> Array:
        return self.operator._to_dense(like)

    def _row_sums(self, xp: Namespace) -> Array:
        return self.operator._row_sums(xp)

    def _inv(self, xp: Namespace) -> LinearOperator:
        return self.operator._inv(xp)

    def _solve(self, b: Array, xp: Namespace) -> Array:
        return self.operator._solve(b, xp)

    def _pinv(self, rtol: float, xp: Namespace) -> LinearOperator:
        return self.operator._pinv(rtol, xp)

    def _has_pinv(self) -> bool:
        return self.operator._has_pinv()

    def _eigvals(self, xp: Namespace) -> Array:
        return self.operator._eigvals(xp)

    def _eig(self, xp: Namespace) -> tuple[Array, LinearOperator]:
        return self.operator._eig(xp)

    def _svdvals(self, xp: Namespace) -> Array:
        return self.operator._svdvals(xp)

    def _determinant_factors(self, method: str, xp: Namespace) -> Array:
        return self.operator._determinant_factors(method, xp)

    def _diagonal(self, method: str, xp: Namespace) -> Array:
        return self.operator._diagonal(method, xp)

    def _modulus(self, power: int, xp: Namespace) -> LinearOperator:
        return self.operator._modulus(power, xp)

    def _norm(self, ord: NormOrder, xp: Namespace) -> Array:
        return self.operator._norm(ord, xp)

    def _spectral_function(self, function: SpectralFunction, xp: Namespace) -> LinearOperator:
        return self.operator._spectral_function(function, xp)


def prepared(operator: LinearOperator, how: Settings) -> LinearOperator:
    """Return the operator with its plan, or itself where it is its own plan."""
    if isinstance(operator, Prepared):
        operator = operator.operator
    wide, xp = operator._opened("prepare")
    plan = wide._plan(how, xp)
    if plan is wide:
        return operator
    direct, matrix, native = 0, None, (object, None)
    if not wide.batch_shape:
        native = (type(xp.zeros(0)), wide.dtype)
        if isinstance(plan, Plan):
            rows, cols = wide.shape
            library = "ducc0" if is_numpy(xp) and how.engine != "scipy" and ducc() else library_of(xp)
            direct = direct_up_to(rows * cols / plan.cost, library, dtype_name(wide.dtype))
            matrix = wide.to_dense() if direct else None
    return Prepared(operator, plan, plan.H, matrix, direct, how, native)


def _direct(matrix: Any, x: Any, xp: Namespace, out: Any = None) -> Array:
    """Return the dense product along the last axis."""
    if not is_numpy(xp):
        return xp.matmul(matrix, x) if x.ndim == 1 else xp.matmul(x, xp.matrix_transpose(matrix))
    if x.ndim == 1:
        return np.dot(matrix, x, out)
    rows, cols = matrix.shape
    flat = None if out is None else out.reshape(-1, rows)
    return np.matmul(x.reshape(-1, cols), matrix.T, out=flat).reshape(*x.shape[:-1], rows)


def _source(operator: LinearOperator) -> LinearOperator:
    return operator.operator if isinstance(operator, Prepared) else operator


@compose.rule(Prepared, Identity)
def _times_identity(left: Prepared, right: Identity) -> Prepared:  # noqa: ARG001
    return left


@compose.rule(Prepared, object)
def _times(left: Prepared, right: LinearOperator) -> LinearOperator:
    return prepared(compose(left.operator, _source(right)), left.how)


@compose.rule(object, Prepared)
def _times_prepared(left: LinearOperator, right: Prepared) -> LinearOperator:
    return prepared(compose(left, right.operator), right.how)


@add.rule(Prepared, object)
def _plus(left: Prepared, right: LinearOperator) -> LinearOperator:
    return prepared(add(left.operator, _source(right)), left.how)


@scale.rule(Prepared, object)
def _multiple(operator: Prepared, factor: Scalar) -> LinearOperator:
    return prepared(scale(operator.operator, factor), operator.how)
