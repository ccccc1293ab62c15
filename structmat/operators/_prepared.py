"""Operators that are prepared for many products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from structmat._arrays.arrays import dtype_name, is_complex, is_eager_on_cpu, is_numpy, library_of, precision_of
from structmat._arrays.dispatch import add, compose, scale
from structmat._arrays.typing import Array, ArrayLike, DType, Namespace, Scalar
from structmat._engine import TORCH_CHUNK, TORCH_LARGE, Settings, direct_up_to, ducc, in_chunks
from structmat.operators._base import Context, LinearOperator
from structmat.operators._closed_forms import NormOrder
from structmat.operators._convolution import Plan
from structmat.operators._functions import SpectralFunction
from structmat.operators._identity import Identity

__all__ = ["Prepared", "prepared"]

Product: TypeAlias = Callable[[Any, Any], Any]
"""Returns the products of vectors along the last axis, in the second argument if given."""


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

    See Also
    --------
    LinearOperator.prepare : Makes one.

    Notes
    -----
    It has every method of its operator. Transposes, products, sums and multiples of it are prepared as well; inverses
    and functions are those of the operator. It is immutable and has no scratch memory of its own, so any number of
    threads may use it at once. Vectors of a higher precision are multiplied by the operator itself, at its speed.

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
    products: _Products | None = field(init=False)
    adjoint_products: _Products | None = field(init=False)
    solutions: _Products | None = field(init=False)
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

    def _products(self) -> _Products | None:
        return self._once("products", lambda: _products_of(self.plan, self.matrix, self.direct, self.how))

    def _adjoint_products(self) -> _Products | None:
        def make() -> _Products | None:
            matrix = None if self.matrix is None else _adjoint(self.matrix, self._own_namespace())
            return _products_of(self.adjoint, matrix, self.direct, self.how)

        return self._once("adjoint_products", make)

    def _solutions(self) -> _Products | None:
        """Solutions for NumPy vectors; what other libraries compute may belong to a trace or a graph."""

        def make() -> _Products | None:
            op, xp = self.operator._opened("solve")
            solver = op._solver(self.how, xp) if is_numpy(xp) and self.shape[0] == self.shape[1] else None
            return None if solver is None else _products_of(solver, None, 0, self.how)

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
        try:
            products = self.products
        except AttributeError:
            products = self._products()
        product = None if products is None else products.choose(x)
        if product is not None:
            if out is None:
                return product(x, None)
            self._require_fitting(out, x)
            product(x, out)
            return out
        if out is not None:
            raise ValueError(f"Prepared.matvec: out is for NumPy vectors of shape (..., {self.shape[1]}), one operator")
        return super(Prepared, self).matvec(x)  # slots make a new class, which the short form would not find

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
        ValueError
            If the last axis of `y` has another length, or the batch axes do not broadcast.
        TypeError
            If `y` belongs to another array library than the operator.
        """
        try:
            products = self.adjoint_products
        except AttributeError:
            products = self._adjoint_products()
        product = None if products is None else products.choose(y)
        if product is not None:
            return product(y, None)
        return super(Prepared, self).rmatvec(y)

    def solve(self, b: ArrayLike, /) -> Array:
        """Return x with ``matvec(x) = b``.

        Parameters
        ----------
        b : array, shape (..., n)
            Right-hand sides along the last axis: one, or any batch of them.

        Returns
        -------
        array, shape (..., n)
            The solutions, of the common dtype of operator and right-hand side.

        Raises
        ------
        ValueError
            If the operator is not square, or `b` has another length.
        numpy.linalg.LinAlgError
            As for `inv`.
        NotImplementedError
            If there is no closed form; the message names the alternative.

        Notes
        -----
        For NumPy vectors the first call finds the reciprocal spectra of circulants and their products with diagonals;
        later ones cost as much as a product.
        """
        if type(b) is np.ndarray and b.shape[-1:] == self.shape[:1]:
            solutions = self._solutions()
            product = None if solutions is None else solutions.choose(b)
            if product is not None:
                return product(b, None)
        return super(Prepared, self).solve(b)

    def _require_fitting(self, out: Any, x: Any) -> None:
        shape = (*x.shape[:-1], self.shape[0])
        if type(out) is not np.ndarray or type(x) is not np.ndarray or out.dtype != x.dtype or out.shape != shape:
            raise ValueError(f"Prepared.matvec: out must be a NumPy array of shape {shape} and dtype {x.dtype}")
        flags = out.flags
        if not (flags.c_contiguous and flags.writeable and flags.aligned) or np.may_share_memory(out, x):
            raise ValueError("Prepared.matvec: out must be contiguous, aligned, writeable and apart from x")

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        products = self._products()
        return products(x) if products is not None and products.takes(x) else self.plan._matvec(x, xp)

    def _rmatvec(self, y: Array, xp: Namespace) -> Array:
        products = self._adjoint_products()
        return products(y) if products is not None and products.takes(y) else self.adjoint._matvec(y, xp)

    def _matmat(self, X: Array, xp: Namespace) -> Array:
        matrix, count = self.matrix, prod(X.shape) // X.shape[-2]
        if matrix is None or count > self.direct or X.dtype != matrix.dtype:
            return super(Prepared, self)._matmat(X, xp)
        return xp.matmul(matrix, X)

    def _transpose(self) -> Prepared:
        matrix = None if self.matrix is None else self._own_namespace().matrix_transpose(self.matrix)
        return self._with(self.operator._transpose(), self.adjoint._conj(), self.plan._conj(), matrix)

    def _conj(self) -> Prepared:
        matrix = self.matrix
        if matrix is not None and is_complex(matrix.dtype, xp := self._own_namespace()):
            matrix = xp.conj(matrix)
        return self._with(self.operator._conj(), self.plan._conj(), self.adjoint._conj(), matrix)

    def _with(self, operator: LinearOperator, plan: LinearOperator, adjoint: LinearOperator, matrix: Any) -> Prepared:
        return Prepared(operator, plan, adjoint, matrix, self.direct, self.how)

    def __reduce__(self) -> tuple[Any, ...]:
        return Prepared, (self.operator, self.plan, self.adjoint, self.matrix, self.direct, self.how)

    # Parameters are those of the operator: what was computed from them follows.

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
        return prepared(self.operator.astype(dtype), self.how)

    # Everything else is the operator's own.

    def _to_dense(self, like: Context) -> Array:
        return self.operator._to_dense(like)

    def _row_sums(self, xp: Namespace) -> Array:
        return self.operator._row_sums(xp)

    def _inv(self, xp: Namespace) -> LinearOperator:
        return self.operator._inv(xp)

    def _solve(self, b: Array, xp: Namespace) -> Array:
        solutions = self._solutions()
        return solutions(b) if solutions is not None and solutions.takes(b) else self.operator._solve(b, xp)

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
    direct = 0
    if isinstance(plan, Plan) and not plan.is_stack:
        rows, cols = wide.shape
        library = "ducc0" if is_numpy(xp) and how.engine != "scipy" and ducc() else library_of(xp)
        direct = direct_up_to(rows * cols / plan.cost, library, dtype_name(wide.dtype))
    made = Prepared(operator, plan, plan.H, wide.to_dense() if direct else None, direct, how)
    made._products()  # now, not in the first product
    return made


class _Products(NamedTuple):
    """Products of arrays of one type and dtype, without checks."""

    kind: Any
    dtype: DType
    vector: tuple[int]
    """The shape of one vector."""
    one: Product
    many: Product

    def choose(self, x: Any) -> Product | None:
        """Return the product for `x`, or None where it needs checks first."""
        if type(x) is not self.kind or x.dtype != self.dtype:
            return None
        shape = x.shape
        return self.one if shape == self.vector else self.many if shape[-1:] == self.vector else None

    def takes(self, x: Array) -> bool:
        """Tell whether they are for arrays such as `x`, of the right length."""
        return isinstance(x, self.kind) and bool(x.dtype == self.dtype)

    def __call__(self, x: Array) -> Array:
        product: Array = (self.one if x.ndim == 1 else self.many)(x, None)
        return product


def _products_of(plan: LinearOperator, matrix: Any, direct: int, how: Settings) -> _Products | None:
    """Return the products by a plan of NumPy or torch arrays, or for few vectors by a dense matrix; None for others."""
    if not isinstance(plan, Plan) or plan.is_stack:
        return None
    xp = plan._own_namespace()
    if library_of(xp) not in {"numpy", "torch"}:  # others trace their arrays in types of their own
        return None
    dtype = precision_of(plan.dtype, xp) if plan.is_real else plan.dtype
    make = _numpy_products if is_numpy(xp) else _torch_products
    return _Products(type(xp.zeros(0)), dtype, (plan.shape[1],), *make(plan, matrix, direct, dtype, how))


def _adjoint(matrix: Array, xp: Namespace) -> Array:
    matrix = xp.matrix_transpose(matrix)
    return xp.conj(matrix) if is_complex(matrix.dtype, xp) else matrix


def _numpy_products(plan: Any, matrix: Any, direct: int, dtype: Any, how: Settings) -> tuple[Product, Product]:
    """Return the product of one vector and that of a batch."""
    rows, cols = plan.shape
    dtype = np.dtype(dtype)
    many, size, workers = plan._step(dtype.name, many=True), plan._together(dtype), how.threads_of_chunks
    if not direct:
        return plan._step(dtype.name, many=False), lambda x, out: in_chunks(many, x, rows, size, out, workers)

    def product(x: Any, out: Any) -> Any:
        if x.size > direct * cols:
            return in_chunks(many, x, rows, size, out, workers)
        flat = None if out is None else out.reshape(-1, rows)
        return np.matmul(x.reshape(-1, cols), matrix.T, flat).reshape(*x.shape[:-1], rows)

    return lambda x, out: np.dot(matrix, x, out), product


def _torch_products(plan: Any, matrix: Any, direct: int, dtype: Any, _: Settings) -> tuple[Product, Product]:
    """Return the product of one vector and that of a batch."""
    xp, (rows, cols) = plan._own_namespace(), plan.shape
    one, many = plan._call(xp, many=False), plan._call(xp, many=True)
    transposed = None if matrix is None else matrix.mT
    learned = any(array.requires_grad for array in plan._arrays())
    kind, few = type(xp.zeros(0)), TORCH_LARGE // (cols * dtype.itemsize)
    size = max(64 // dtype.itemsize, TORCH_CHUNK // (plan.width * dtype.itemsize))

    def product(x: Any, out: Any) -> Any:  # noqa: ARG001
        count = x.numel() // cols
        if count <= direct or count == 0:
            return x @ transposed if direct else plan._whole(x, xp)  # which can do with no vectors at all
        traced = xp.is_grad_enabled() and (learned or x.requires_grad)
        if count <= few or traced or type(x) is not kind or not is_eager_on_cpu(x, xp):
            return many(x)
        parts = x.reshape(count, cols).split(size)
        first = many(parts[0])
        y = first.new_empty((count, rows))  # under vmap a batch of its own, where either factor is one
        y[:size] = first
        for start, part in enumerate(parts[1:], 1):
            y[start * size : (start + 1) * size] = many(part)
        return y.reshape(*x.shape[:-1], rows)

    return (lambda x, out: matrix @ x) if direct else (lambda x, out: one(x)), product  # noqa: ARG005


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
