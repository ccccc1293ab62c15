"""Operators that are prepared for many products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from structmat._arrays import filled, is_complex, is_numpy, matmul, precision_of
from structmat._arrays.dispatch import prepare
from structmat._arrays.typing import Array, ArrayLike, DType, Namespace
from structmat._engine import (
    ByParts,
    Plan,
    Products,
    Settings,
    Step,
    products_of,
)
from structmat.operators._base import LinearOperator, NormOrder

__all__ = ["Prepared"]


def _forwarded(hook: str) -> Any:
    """Return the hook that asks the operator."""

    def forwarded(self: Any, *arguments: Any) -> Any:
        return getattr(self.operator, hook)(*arguments)

    return forwarded


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Prepared(LinearOperator):
    """An operator with precomputed values for its products, as returned by `LinearOperator.prepare`.

    Parameters
    ----------
    operator : LinearOperator
        The original operator.
    plan, adjoint : Plan
        The plans of products with it and with its adjoint.
    matrix : array, shape (..., rows, cols), optional
        Its dense matrix, if it is so small that a dense product is faster.
    direct : int
        The largest number of vectors for which it is faster.
    settings : Settings
        The engine.

    See Also
    --------
    LinearOperator.prepare : Makes one.

    Notes
    -----
    It is a snapshot, and has every method of its operator. Transposes, products, sums and multiples of it are prepared
    as well; inverses and functions are those of the operator. It is immutable and has no work arrays of its own, so any
    number of threads may use it at the same time. Vectors of a higher precision are multiplied by the operator itself.

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
    """The original operator."""
    plan: Plan
    """What computes its products."""
    adjoint: Plan
    """What computes those with its adjoint."""
    matrix: Any
    """Its dense matrix, or None."""
    direct: int
    """The largest number of vectors for which the dense matrix is used."""
    settings: Settings
    """The engine."""
    products: Products | None = field(init=False)
    adjoint_products: Products | None = field(init=False)
    solutions: Products | None = field(init=False)
    wide: Prepared = field(init=False)
    # Made from the fields above when they are first asked for; until then the slots are empty.

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what a slot holds, made first if it is empty. Hot paths look into the slot themselves."""
        try:
            return getattr(self, name)
        except AttributeError:
            made = make()
            object.__setattr__(self, name, made)
            return made

    def _products(self) -> Products | None:
        return self._once("products", lambda: products_of(self.plan, self.matrix, self.direct))

    def _adjoint_products(self) -> Products | None:
        def make() -> Products | None:
            matrix = None if self.matrix is None else _adjoint(self.matrix, self._own_namespace())
            return products_of(self.adjoint, matrix, self.direct)

        return self._once("adjoint_products", make)

    def _solutions(self) -> Products | None:
        """Solutions for NumPy vectors; what other libraries compute may belong to a trace or a graph."""

        def make() -> Products | None:
            op, xp = self.operator._to_working_precision("solve")
            solver = op._solver(self.settings, xp) if is_numpy(xp) and self.shape[0] == self.shape[1] else None
            return products_of(solver, None, 0) if isinstance(solver, Plan) else solver

        return self._once("solutions", make)

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
            Array for the result, of its shape and dtype; NumPy only. No copy is made if it is contiguous, apart from
            `x`, and both have the operator's dtype.

        Returns
        -------
        array, shape (..., rows)
            The products, of the common dtype of operator and `x`; `out` itself if given.

        Raises
        ------
        ValueError
            As for the method of `LinearOperator`.
        TypeError
            If `x` belongs to another array library than the operator.
        """
        try:
            products = self.products
        except AttributeError:
            products = self._products()
        product = None if products is None else products.choose(x)
        if product is None:
            return super(Prepared, self).matvec(x, out=out)  # slots make a new class
        return product(x, None) if out is None else _into(out, product, x, self.shape[0], "Prepared.matvec")

    def rmatvec(self, y: ArrayLike, /, *, out: Any = None) -> Array:
        """Return A^H y, the product with the adjoint, along the last axis.

        Parameters
        ----------
        y : array, shape (..., rows)
            One vector or any batch of them.
        out : numpy.ndarray, shape (..., cols), optional
            Array for the result, of its shape and dtype; NumPy only. No copy is made if it is contiguous, apart from
            `y`, and both have the operator's dtype.

        Returns
        -------
        array, shape (..., cols)
            The products, of the common dtype of operator and `y`; `out` itself if given.

        Raises
        ------
        ValueError
            As for the method of `LinearOperator`.
        TypeError
            If `y` belongs to another array library than the operator.
        """
        try:
            products = self.adjoint_products
        except AttributeError:
            products = self._adjoint_products()
        product = None if products is None else products.choose(y)
        if product is None:
            return super(Prepared, self).rmatvec(y, out=out)  # slots make a new class
        return product(y, None) if out is None else _into(out, product, y, self.shape[1], "Prepared.rmatvec")

    def solve(self, b: ArrayLike, /, *, out: Any = None) -> Array:
        """Return x with ``self @ x = b``.

        Parameters
        ----------
        b : array, shape (n,) or (..., n, k)
            One right-hand side, or right-hand sides in columns.
        out : numpy.ndarray, optional
            As for `inv_matvec`.

        Returns
        -------
        array, shape (..., n) or (..., n, k)
            The solutions; `out` itself if given.

        Raises
        ------
        ValueError, TypeError
            As for the method of `LinearOperator`.
        """
        product = self._solution_step(b) if getattr(b, "ndim", 0) == 1 else None
        if product is None:
            return super(Prepared, self).solve(b, out=out)  # slots make a new class
        return product(b, None) if out is None else _into(out, product, b, self.shape[0], "Prepared.solve")

    def inv_matvec(self, b: ArrayLike, /, *, out: Any = None) -> Array:
        """Return x with ``matvec(x) = b``.

        Parameters
        ----------
        b : array, shape (..., n)
            One vector or any batch of them.
        out : numpy.ndarray, shape (..., n), optional
            Array for the result, of its shape and dtype; NumPy only. No copy is made if it is contiguous, apart from
            `b`, and both have the operator's dtype.

        Returns
        -------
        array, shape (..., n)
            The solutions, of the common dtype of operator and `b`; `out` itself if given.

        Raises
        ------
        ValueError
            As for the method of `LinearOperator`.
        TypeError
            If `b` belongs to another array library than the operator.

        Notes
        -----
        For NumPy vectors the first call finds the reciprocal spectra of circulants and their products with diagonals;
        later ones cost as much as a product.
        """
        product = self._solution_step(b)
        if product is None:
            return super(Prepared, self).inv_matvec(b, out=out)  # slots make a new class
        return product(b, None) if out is None else _into(out, product, b, self.shape[0], "Prepared.inv_matvec")

    def _solution_step(self, b: Any) -> Step | None:
        """Return what solves for `b` without checks, or None where it needs some first."""
        known = type(b) is np.ndarray and b.shape[-1:] == self.shape[:1]
        products = self._solutions() if known else None
        return None if products is None else products.choose(b)

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        products = self._products()
        return products(x) if products is not None and products.takes(x) else self.plan.apply(x, xp)

    def _rmatvec(self, y: Array, xp: Namespace) -> Array:
        products = self._adjoint_products()
        return products(y) if products is not None and products.takes(y) else self.adjoint.apply(y, xp)

    def _matmat(self, X: Array, xp: Namespace) -> Array:
        matrix, count = self.matrix, prod(X.shape) // X.shape[-2]
        if matrix is None or count > self.direct or X.dtype != matrix.dtype:
            return super(Prepared, self)._matmat(X, xp)
        return matmul(matrix, X, xp)

    def _transpose(self) -> Prepared:
        matrix = None if self.matrix is None else self._own_namespace().matrix_transpose(self.matrix)
        return self._with(self.operator._transpose(), *_pair(self.adjoint, self.plan), matrix)

    def _conj(self) -> Prepared:
        matrix = self.matrix
        if matrix is not None and is_complex(matrix.dtype, xp := self._own_namespace()):
            matrix = xp.conj(matrix)
        return self._with(self.operator._conj(), *_pair(self.plan, self.adjoint), matrix)

    def _with(self, operator: LinearOperator, plan: Plan, adjoint: Plan, matrix: Any) -> Prepared:
        return Prepared(operator, plan, adjoint, matrix, self.direct, self.settings)

    def __reduce__(self) -> tuple[Any, ...]:
        return Prepared, (self.operator, self.plan, self.adjoint, self.matrix, self.direct, self.settings)

    # Parameters are those of the operator: what was computed from them follows.

    def _snapshot(self) -> Prepared:
        return self  # which is one

    def _is_filled(self) -> bool:
        operator: Any = self.operator
        return isinstance(operator, LinearOperator) and operator._is_filled()

    def _leaves(self) -> list[tuple[Array, int]]:
        return self.operator._leaves()

    def _in_precision(self, precision: DType, xp: Namespace) -> Any:
        operator = self.operator._in_precision(precision, xp)
        if operator is self.operator:
            return self
        if precision != precision_of(self.dtype, xp):
            return operator

        def make() -> Prepared:  # of a half precision, for which everything was computed in single precision
            wide = self._with(operator, self.plan, self.adjoint, self.matrix)
            object.__setattr__(wide, "products", self._products())
            return wide

        return self._once("wide", make)

    def _complex(self, dtype: DType, xp: Namespace) -> Any:
        return prepare(self.operator._complex(dtype, xp), self.settings)

    def astype(self, dtype: DType) -> Any:
        """Return the operator with parameters in another precision, prepared anew.

        Parameters
        ----------
        dtype : dtype or str
            As for `LinearOperator.astype`.

        Returns
        -------
        LinearOperator
            Prepared in the same way.

        Raises
        ------
        TypeError
            If `dtype` is not a floating dtype.
        """
        return prepare(self.operator.astype(dtype), self.settings)

    # Everything else is the operator's own.

    def cond(self, p: NormOrder = 2) -> Array:
        """Return the condition number, as the operator does.

        Parameters
        ----------
        p : {2, "fro", "nuc", 1, inf}, default 2
            As for the method of the operator.

        Returns
        -------
        array, shape of the batch
            At least one.
        """
        return self.operator.cond(p)

    def _solve(self, b: Array, xp: Namespace) -> Array:
        solutions = self._solutions()
        return solutions(b) if solutions is not None and solutions.takes(b) else self.operator._solve(b, xp)

    _to_dense = _forwarded("_to_dense")
    _row_sums = _forwarded("_row_sums")
    _inv = _forwarded("_inv")
    _pinv = _forwarded("_pinv")
    _has_pinv = _forwarded("_has_pinv")
    _eigvals = _forwarded("_eigvals")
    _eig = _forwarded("_eig")
    _svdvals = _forwarded("_svdvals")
    _determinant_factors = _forwarded("_determinant_factors")
    _det = _forwarded("_det")
    _slogdet = _forwarded("_slogdet")
    _diagonal = _forwarded("_diagonal")
    _rounding = _forwarded("_rounding")
    _modulus = _forwarded("_modulus")
    _frobenius = _forwarded("_frobenius")
    _norm = _forwarded("_norm")
    _spectral_function = _forwarded("_spectral_function")

    def __getattr__(self, name: str) -> Any:
        """Return what only some kinds of operators have, such as the entries of a circulant."""
        if name.startswith("_") or name in self.__slots__:
            raise AttributeError(name)
        return getattr(self.operator, name)

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *(name for name in dir(self.operator) if not name.startswith("_"))})


def _into(out: Any, product: Step, x: Any, length: int, owner: str) -> Any:
    """Return `out` filled with products of that length: directly where the engine can write there."""
    fits = type(out) is type(x) is np.ndarray and out.dtype == x.dtype and out.shape == (*x.shape[:-1], length)
    if fits and out.flags.carray and not np.may_share_memory(out, x):
        product(x, out)
        return out
    return filled(out, product(x, None), owner)


def _pair(plan: Plan, adjoint: Plan) -> tuple[Plan, Plan]:
    """Return the conjugates of a plan and its adjoint; plans of parts nest, and only one of the two goes through."""
    conjugate = plan.conj()
    return conjugate, conjugate.adjoint() if isinstance(conjugate, ByParts) else adjoint.conj()


def _adjoint(matrix: Array, xp: Namespace) -> Array:
    matrix = xp.matrix_transpose(matrix)
    return xp.conj(matrix) if is_complex(matrix.dtype, xp) else matrix
