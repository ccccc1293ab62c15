"""Operators that are prepared for many products, and the checks of operators made of operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from operator import is_
from typing import Any, Self

import numpy as np

from structmat._arguments import filled
from structmat._array_tools import (
    ArgumentTypeError,
    ArgumentValueError,
    Array,
    ArrayLike,
    DType,
    Namespace,
    Scalar,
    broadcast_shapes,
    common_dtype,
    complex_partner,
    dtype_name,
    in_precision,
    is_complex,
    is_numpy,
    library_of,
    matmul,
    namespace_of,
    precision_of,
)
from structmat._fourier import Settings, direct_up_to, ducc
from structmat._pair_rules import add, compose, prepare, scale, submatrix
from structmat._plans import ByParts, ChunkedPlan, Plan, Products, Scaling, Step, products_of
from structmat.operators._diagonal import Identity
from structmat.operators._linear_operator import LinearOperator, NormOrder

__all__ = [
    "Combination",
    "Prepared",
    "combined",
    "extent",
    "flat",
    "plan_by_parts",
    "require_operators",
    "require_room",
    "values_of",
]


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


_DEEPEST = 64
"""Levels of operators within operators: each takes up to nine frames of Python's stack of a thousand, in a pickle."""

_MOST = 100_000
"""Operators within operators, as often as each occurs: a recurrence may double them in each step."""


@dataclass(frozen=True, slots=True)
class Held:
    """What an operator holds."""

    leaves: list[tuple[Array, int]]
    """As `_leaves` returns them."""
    depth: int
    """Levels of operators within operators, its own included."""
    count: int
    """Operators, itself included, each as often as it occurs."""
    forces_complex: bool


class Combination(LinearOperator):
    """An operator made of others, its one field, which finds what these hold once, as none can be exchanged."""

    __slots__ = ("_held",)

    def _hold(self, parts: tuple[LinearOperator, ...], made_of: Sequence[LinearOperator]) -> Self:
        """Set the parts, which are those of `made_of`, or of others of this kind in there."""
        (name,) = self._core_axes
        object.__setattr__(self, name, parts)
        object.__setattr__(self, "_held", _joined(type(self), made_of, name))
        return self

    def _leaves(self) -> list[tuple[Array, int]]:
        held: Held | None = getattr(self, "_held", None)  # not set where no constructor made the operator
        return super()._leaves() if held is None else held.leaves

    @property
    def _forces_complex(self) -> bool:
        held: Held | None = getattr(self, "_held", None)
        return any(part._forces_complex for part in _parts(self)) if held is None else held.forces_complex

    @property
    def dtype(self) -> DType:
        """The common dtype of the parts."""
        if leaves := self._leaves():
            dtype, xp = leaves[0][0].dtype, namespace_of(type(self).__name__, leaves[0][0])
            if not is_complex(dtype, xp) and all(array.dtype == dtype for array, _ in leaves):
                return complex_partner(dtype, xp) if self._forces_complex else dtype
        return _common_dtype(_parts(self))


def combined(kind: type[Any], parts: tuple[LinearOperator, ...], made_of: Sequence[LinearOperator]) -> Any:
    """Return a combination of parts that are known to fit; `made_of` as for `_hold`.

    Its cost is that of joining lists. All checks of the constructor in each step of a long sum would add up.
    """
    return object.__new__(kind)._hold(parts, made_of)


def flat(operators: tuple[LinearOperator, ...], kind: type[Any]) -> tuple[LinearOperator, ...]:
    """Return operators with the parts of those of one kind in their place."""
    if not any(type(op) is kind for op in operators):
        return operators
    return tuple(part for op in operators for part in (_parts(op) if type(op) is kind else (op,)))


def require_operators(owner: str, argument: str, operators: tuple[Any, ...]) -> None:
    """Check the parts of a combination, but how deep they are nested, and how many they are."""
    if not operators:
        raise ArgumentValueError(owner, argument, "must be at least one operator, got none")
    for op in operators:
        if not isinstance(op, LinearOperator):
            raise ArgumentTypeError(owner, argument, f"must be structmat operators, got {type(op).__name__}")
    if arrays := [array for op in operators for array in op._arrays()]:
        namespace_of(owner, *arrays)
    broadcast_shapes(owner, *(op.batch_shape for op in operators))


def require_room(owner: str, argument: str, depth: int, count: int) -> None:
    """Refuse operators that are nested too deep, or are too many."""
    if depth > _DEEPEST:
        limit = f"be nested more than {_DEEPEST} deep"
    elif count > _MOST:
        limit = f"hold more than {_MOST:,} operators, each counted as often as it occurs"
    else:
        return
    text = f"must not {limit}; multiply out with to_dense(), or apply them one by one"
    raise ArgumentValueError(owner, argument, text)


def _joined(kind: type[Any], made_of: Sequence[LinearOperator], argument: str) -> Held:
    """Return what a combination holds that is made of operators, and of the parts of those of its kind."""
    leaves: list[tuple[Array, int]] = []
    depth = count = 0
    for op in made_of:
        leaves += op._leaves()
        below, more = extent(op)
        replaced = type(op) is kind
        depth, count = max(depth, below - replaced), count + more - replaced
    require_room(kind.__name__, argument, depth, count)
    return Held(leaves, depth + 1, count + 1, any(op._forces_complex for op in made_of))


def extent(operator: LinearOperator) -> tuple[int, int]:
    """Return the depth and the number of operators that one is, as `Held` counts them."""
    held: Held | None = getattr(operator, "_held", None)
    if held is not None:
        return held.depth, held.count
    depth = count = 0
    for part in _parts(operator):
        below, more = extent(part)
        depth, count = max(depth, below), count + more
    return depth + 1, count + 1


def _parts(operator: LinearOperator) -> tuple[LinearOperator, ...]:
    """Return the operators that one holds."""
    parts: list[LinearOperator] = []
    for name, axes in operator._core_axes.items():
        if axes is None and not isinstance(operator, Prepared):
            inner = getattr(operator, name)
            parts.extend(inner if isinstance(inner, tuple) else (inner,))
    return tuple(parts)


def _common_dtype(operators: tuple[LinearOperator, ...]) -> DType:
    """Return the dtype of a combination; None while every part fits any dtype."""
    dtypes = [op.dtype for op in operators]
    forced = any(op._forces_complex for op in operators)
    known = [dtype for dtype in dtypes if dtype is not None]
    if not known:
        return None
    if not forced and all(dtype == known[0] for dtype in known):
        return known[0]
    xp = next(op for op in operators if op.dtype is not None)._own_namespace()
    counted = [part for op, dtype in zip(operators, dtypes, strict=True) for part in op._counted_as(dtype)]
    dtype = common_dtype(xp, *counted)
    return complex_partner(dtype, xp) if forced else dtype


def values_of(part: LinearOperator, whole: LinearOperator, xp: Namespace, hook: str, *arguments: str) -> Any:
    """Return what a hook has for a part; one without arrays is asked in NumPy, as it knows no device and no dtype."""
    known = bool(part._arrays())
    values = getattr(part, hook)(*arguments, xp if known else part._own_namespace())
    if known or whole.dtype is None:
        return values

    def moved(array: Array) -> Array:
        return in_precision(xp.asarray(array, device=whole.device), precision_of(whole.dtype, xp), xp)

    return tuple(map(moved, values)) if isinstance(values, tuple) else moved(values)


def plan_by_parts(
    parts: tuple[LinearOperator, ...], make: Callable[[tuple[LinearOperator, ...]], LinearOperator], settings: Settings
) -> ByParts | None:
    """Return the plan of what `make` makes of the parts when they are prepared; None where nothing of them can be."""
    prepared = tuple(_part(part, settings) for part in parts)
    return None if all(map(is_, prepared, parts)) else ByParts(make(prepared))


def _part(operator: LinearOperator, settings: Settings) -> LinearOperator:
    """Return a part prepared, itself where that would only add a step."""
    prepared: LinearOperator = prepare(operator, settings)
    return operator if isinstance(prepared, Prepared) and isinstance(prepared.plan, Scaling) else prepared


@prepare.rule(object, object)
def prepared(operator: LinearOperator, settings: Settings) -> LinearOperator:
    """Return the operator with its plan, or itself where it has none; the caller sees to it that this is a snapshot."""
    if isinstance(operator, Prepared):
        operator = operator.operator
    wide, xp = operator._to_working_precision("prepare")
    plan = wide._plan(settings, xp)
    if plan is None:
        return operator
    direct = 0
    if isinstance(plan, ChunkedPlan) and not plan.is_stack and not isinstance(plan, Scaling):
        rows, cols = wide.shape
        library = "ducc0" if is_numpy(xp) and settings.engine != "scipy" and ducc() else library_of(xp)
        direct = direct_up_to(rows * cols / plan.cost, library, dtype_name(wide.dtype))
    made = Prepared(operator, plan, plan.adjoint(), wide.to_dense() if direct else None, direct, settings)
    made._products()  # now, not in the first product
    return made


def _source(operator: LinearOperator) -> LinearOperator:
    """Return what an operator was prepared from, or a copy of it, as prepared ones share no array with others."""
    return operator.operator if isinstance(operator, Prepared) else operator._snapshot()


@compose.rule(Prepared, Identity)
def _times_identity(left: Prepared, right: Identity) -> Prepared:  # noqa: ARG001
    return left


@compose.rule(Prepared, object)
def _times(left: Prepared, right: LinearOperator) -> LinearOperator:
    return prepared(compose(left.operator, _source(right)), left.settings)


@compose.rule(object, Prepared)
def _times_prepared(left: LinearOperator, right: Prepared) -> LinearOperator:
    return prepared(compose(_source(left), right.operator), right.settings)


@add.rule(Prepared, object)
def _plus(left: Prepared, right: LinearOperator) -> LinearOperator:
    return prepared(add(left.operator, _source(right)), left.settings)


@scale.rule(Prepared, object)
def _multiple(operator: Prepared, factor: Scalar) -> LinearOperator:
    return prepared(scale(operator.operator, factor)._snapshot(), operator.settings)


@submatrix.rule(Prepared, object)
def _block(operator: Prepared, block: tuple[range, range]) -> LinearOperator:
    return submatrix.merge(operator.operator, block)
