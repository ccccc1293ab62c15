"""Operators that are prepared for many products."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial, wraps
from math import prod
from typing import Any, Literal, TypeAlias

import numpy as np

from structmat._arrays.dtypes import (
    common_dtype,
    dtype_name,
    is_complex,
    precision_of,
)
from structmat._arrays.libraries import is_numpy, rules_of
from structmat._arrays.linear_algebra import matmul
from structmat._arrays.tracing import is_plain
from structmat._arrays.typing import Array, DType, Namespace, Scalar
from structmat._fourier.chunks import TORCH_CHUNK, TORCH_LARGE, in_chunks
from structmat._fourier.engines import engine_of
from structmat._fourier.plans import Plan
from structmat._fourier.products import Products
from structmat._fourier.small_products import dense_up_to
from structmat.operators._base.arithmetic import PairRules, add, compose, prepare, scale
from structmat.operators._base.hooks import forwarding
from structmat.operators._base.linear_operator import LinearOperator
from structmat.operators._base.wrapper import Wrapper
from structmat.operators._families.diagonal import Diagonal, Identity, times_identity

OneAndBatched: TypeAlias = tuple[Callable[[Any], Any], Callable[[Any], Any]]
"""The product of one vector, and that of a batch."""


def products_of(plan: Plan, matrix: Any, most_dense: int) -> Products | None:
    """Return the products of arrays of NumPy or torch by a plan; None for plans of other libraries and of stacks.

    Products of at most `most_dense` vectors are computed by the dense matrix.
    """
    if plan.is_real is None or plan.is_stack:
        return None
    xp = plan._own_namespace()
    if not rules_of(xp).keeps_products:
        return None
    dtype = common_dtype(xp, *(array.dtype for array in plan._arrays()))
    dtype = precision_of(dtype, xp) if plan.is_real else dtype
    make = _numpy_products if is_numpy(xp) else _torch_products
    return Products(type(xp.zeros(0)), dtype, (plan.shape[1],), *make(plan, matrix, most_dense, dtype, xp))


def _numpy_products(plan: Plan, matrix: Any, most_dense: int, dtype: Any, xp: Namespace) -> OneAndBatched:
    """Return the product of one vector, and that of a batch, for arrays of NumPy."""
    rows, cols = plan.shape
    dtype = np.dtype(dtype)
    one = plan.step(xp, dtype.name, batched=False)
    many = plan.step(xp, dtype.name, batched=True)
    size = plan.chunk_rows(dtype)
    if not most_dense:
        return one, lambda x: in_chunks(many, x, rows, size)

    def product(x: Any) -> Any:
        if x.size > most_dense * cols:
            return in_chunks(many, x, rows, size)
        return np.matmul(x.reshape(-1, cols), matrix.T).reshape(*x.shape[:-1], rows)

    return partial(np.dot, matrix), product


def _torch_products(plan: Plan, matrix: Any, most_dense: int, dtype: Any, xp: Namespace) -> OneAndBatched:
    """Return the product of one vector, and that of a batch, for tensors of torch."""
    rows, cols = plan.shape
    one = plan.step(xp, dtype_name(dtype), batched=False)
    many = plan.step(xp, dtype_name(dtype), batched=True)
    transposed: Any = None if matrix is None else matrix.mT
    has_gradient = any(tensor.requires_grad for tensor in plan._arrays())
    kind = type(xp.zeros(0))
    rules = rules_of(xp)
    most_at_once = TORCH_LARGE // (cols * dtype.itemsize)
    size = max(64, TORCH_CHUNK // plan.width) // dtype.itemsize

    def product(x: Any) -> Any:
        count = x.numel() // cols
        if count == 0 and not most_dense:  # transforms of no vectors at all fail
            return x.new_empty((*x.shape[:-1], rows))
        if count <= most_dense:
            y = x @ transposed
            return y if y.dtype is dtype else matmul(x, transposed, xp)  # autocast has lowered the precision
        recorded = xp.is_grad_enabled() and (has_gradient or x.requires_grad)
        if count <= most_at_once or recorded or type(x) is not kind or not rules.is_eager_on_cpu(x):
            return many(x)
        parts = x.reshape(count, cols).split(size)
        first = many(parts[0])
        y = first.new_empty((count, rows))  # made from a result, so that under vmap it has the mapped axis too
        y[:size] = first
        for start, part in enumerate(parts[1:], 1):
            y[start * size : (start + 1) * size] = many(part)
        return y.reshape(*x.shape[:-1], rows)

    def dense(x: Any) -> Any:
        y = matrix @ x
        return y if y.dtype is dtype else matmul(matrix, x, xp)  # autocast has lowered the precision

    return dense if most_dense else one, product


def _by_prepared_products(method: str, products: str, make: Callable[[Any, Any], Any], *, one: bool = False) -> Any:
    """Return a method of `Prepared` that uses the products in a field; `make` fills the field when it is first needed.

    Arguments that need checks, or are of another type or dtype, and those beside an array `out` go to the method of the
    base class. So do arrays of several axes if only `one` vector at a time can be used.
    """
    general = getattr(LinearOperator, method)

    @wraps(general)
    def product(self: Any, x: Any, /, **out: Any) -> Any:  # only `matvec` has the argument `out`
        prepared = getattr(self, products)
        if prepared is None:
            prepared = make(self, x)
        if not out and prepared is not False and type(x) is prepared.kind and x.dtype == prepared.dtype:
            shape, vector = x.shape, prepared.vector
            if shape == vector or (shape[-1:] == vector and not one):
                return prepared.one(x) if shape == vector else prepared.batched(x)
        return general(self, x, **out)

    return product


def _by_operator(hook: str) -> Callable[..., Any]:
    """Return a hook of `Prepared` that calls the same hook of the operator."""

    def forwarded(self: Prepared, *arguments: Any) -> Any:
        return getattr(self.operator, hook)(*arguments)

    return forwarded


@dataclass(frozen=True, eq=False, repr=False)
@forwarding(_by_operator)
class Prepared(Wrapper):
    """An operator with precomputed values for its products, as returned by `LinearOperator.prepare`.

    Parameters
    ----------
    operator : LinearOperator
        The original operator.
    plan : Plan
        The plan of its products.
    matrix : array, shape (..., rows, cols), optional
        Its dense matrix, if it is so small that a dense product is faster.
    most_dense : int
        The largest number of vectors for which it is faster.

    See Also
    --------
    LinearOperator.prepare : Makes one.

    Notes
    -----
    It is a snapshot, and has every method of its operator. Transposes, products, sums and multiples of it are prepared
    as well; inverses and functions are those of the operator. It is immutable and has no work arrays of its own, so any
    number of threads may use it at the same time. Vectors of a higher precision are multiplied by the operator itself.

    Some values are computed when they are first needed, and kept from then on. These are what `rmatvec` needs; for
    NumPy vectors what `solve` needs, such as the reciprocal spectra of circulants and of their products with diagonals;
    and the direct factor of a series, `structmat.Superfast`, which `structmat.solve` and `structmat.slogdet` use. So
    the second `solve` with circulants costs as much as a product.

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

    _core_axes = {"operator": None, "plan": None, "matrix": 2}

    operator: LinearOperator
    """The original operator."""
    plan: Plan
    """What computes its products."""
    matrix: Any
    """Its dense matrix, or None."""
    most_dense: int
    """The largest number of vectors for which the dense matrix is used."""

    # Computed from the fields above when they are first needed: None before that, False where there are no products.
    products: Products | Literal[False] | None = field(init=False, default=None)
    adjoint: LinearOperator | None = field(init=False, default=None)
    adjoint_products: Products | Literal[False] | None = field(init=False, default=None)
    prepared_solver: Products | Literal[False] | None = field(init=False, default=None)
    in_single_precision: Prepared | None = field(init=False, default=None)
    kept: dict[Hashable, Any] | None = field(init=False, default=None)

    def _stored(self, name: str, value: Any) -> Any:
        """Store a value in a field, and return it."""
        object.__setattr__(self, name, value)
        return value

    def _products(self, _: Any = None) -> Products | Literal[False]:
        """Return the products of this operator."""
        if self.products is not None:
            return self.products
        return self._stored("products", products_of(self.plan, self.matrix, self.most_dense) or False)

    def _adjoint(self) -> LinearOperator:
        """Return the adjoint, prepared; it is stored unless its arrays may belong to a trace or a graph."""
        if self.adjoint is not None:
            return self.adjoint
        adjoint = self.operator._conj()._transpose()._prepared()
        plan_or_operator = adjoint.plan if isinstance(adjoint, Prepared) else adjoint
        plain = is_plain([*self._arrays(), *plan_or_operator._arrays()])
        return self._stored("adjoint", adjoint) if plain else adjoint

    def _adjoint_products(self, _: Any) -> Products | Literal[False]:
        """Return the products of the adjoint, which are stored where the adjoint is."""
        adjoint = self._adjoint()
        products = adjoint._products() if isinstance(adjoint, Prepared) else False
        return products if self.adjoint is None else self._stored("adjoint_products", products)

    def _prepared_solver(self, b: Any) -> Products | Literal[False]:
        """Return the prepared solver for vectors of NumPy, in the form of products, which are those with the inverse.

        Nothing is prepared for other libraries, whose arrays may belong to a trace or a graph.
        """
        if type(b) is not np.ndarray or b.shape[-1:] != self.shape[:1]:
            return False
        if self.prepared_solver is not None:
            return self.prepared_solver
        op, xp = self.operator._to_working_precision("solve")
        solver = op._solver(xp) if is_numpy(xp) and self.shape[0] == self.shape[1] else None
        products = products_of(solver, None, 0) if isinstance(solver, Plan) else solver
        return self._stored("prepared_solver", products or False)

    def _kept(self, key: Hashable, make: Callable[[], Any]) -> Any:
        kept = self._stored("kept", {}) if self.kept is None else self.kept
        if key in kept:
            return kept[key]
        value = make()
        if is_plain(value._arrays()):
            kept[key] = value
        return value

    matvec = _by_prepared_products("matvec", "products", _products)
    rmatvec = _by_prepared_products("rmatvec", "adjoint_products", _adjoint_products)
    solve = _by_prepared_products(
        "solve", "prepared_solver", _prepared_solver, one=True
    )  # of several axes the last two are columns
    inv_matvec = _by_prepared_products("inv_matvec", "prepared_solver", _prepared_solver)

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        products = self.products or self._products()
        if products and type(x) is products.kind and x.dtype == products.dtype:
            return products.one(x) if x.ndim == 1 else products.batched(x)
        return self.plan.apply(x, xp)

    def _rmatvec(self, y: Array, xp: Namespace) -> Array:
        return self._adjoint()._matvec(y, xp)

    def _matmat(self, X: Array, xp: Namespace) -> Array:
        matrix = self.matrix
        count = prod(X.shape) // X.shape[-2]
        if matrix is None or count > self.most_dense or X.dtype != matrix.dtype:
            return super()._matmat(X, xp)
        return matmul(matrix, X, xp)

    def _transpose(self) -> LinearOperator:
        return self.operator._transpose()._prepared()

    def _conj(self) -> LinearOperator:
        conjugate = self.operator._conj()
        return self if conjugate is self.operator else conjugate._prepared()

    def __reduce__(self) -> tuple[Any, ...]:
        return Prepared, (self.operator, self.plan, self.matrix, self.most_dense)

    # The parameters are those of the operator. What was computed from them is computed anew where they change.

    def _snapshot(self) -> Prepared:
        return self  # it is a snapshot already

    def _prepared(self) -> Prepared:
        return self

    def _leaves(self) -> list[tuple[Array, int]]:
        return self.operator._leaves()

    def _in_precision(self, precision: DType, xp: Namespace) -> Any:
        operator = self.operator._in_precision(precision, xp)
        if operator is self.operator:
            return self
        if precision != precision_of(self.dtype, xp):
            return operator
        # The operator has a half precision: its plan and its dense matrix are in single precision already.
        if self.in_single_precision is not None:
            return self.in_single_precision
        prepared = Prepared(operator, self.plan, self.matrix, self.most_dense)
        prepared._stored("products", self._products())
        return self._stored("in_single_precision", prepared)

    def _complex(self, dtype: DType, xp: Namespace) -> Any:
        return self.operator._complex(dtype, xp)._prepared()

    # All other hooks are those of the operator.

    def _solve(self, b: Array, xp: Namespace) -> Array:
        if isinstance(self.plan, ByParts):
            return self.plan.operator._solve(b, xp)
        solver = self._prepared_solver(b)
        return solver(b) if solver and solver.takes(b) else self.operator._solve(b, xp)

    def __getattr__(self, name: str) -> Any:
        """Return what only some kinds of operators have, such as the entries of a circulant."""
        if name.startswith("_") or hasattr(Prepared, name) or name in Prepared.__dataclass_fields__:
            return object.__getattribute__(self, name)  # raises again the error that led here, such as a property's
        return getattr(self.operator, name)

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *(name for name in dir(self.operator) if not name.startswith("_"))})


@dataclass(frozen=True, eq=False, repr=False)
class ByParts(Plan):
    """The plan of an operator that is made of operators: its own products, with its parts prepared."""

    _core_axes = {"operator": None}

    operator: Any
    """The operator with prepared parts."""
    is_real: bool | None
    """Whether the operator is real; None where it is complex although no array says so."""

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the operator."""
        return self.operator.shape

    @property
    def is_stack(self) -> bool:
        return bool(self.operator.batch_shape)

    @property
    def _plans(self) -> list[tuple[Plan, int]]:
        """The plans of the parts, each with the number of vectors that it gets for one of the operator.

        A factor of a Kronecker product, or a term of a Kronecker sum, gets all those that a grid has along its axis.
        """
        parts = [part for part in self.operator._made_of() if isinstance(part, Prepared)]
        return [(part.plan, max(1, self.shape[1] // part.shape[1])) for part in parts]

    @property
    def width(self) -> int:
        return max((plan.width * count for plan, count in self._plans), default=max(self.shape))

    @property
    def cost(self) -> float:
        """That of the parts. Diagonals count only where nothing else does."""
        return sum(plan.cost * count for plan, count in self._plans) or float(max(self.shape))

    def step(self, xp: Namespace, dtype: str, *, batched: bool) -> Callable[[Any], Any]:
        return lambda x: self.operator._matvec(x, xp)

    def apply(self, x: Array, xp: Namespace) -> Array:
        return self.operator._matvec(x, xp)


def plan_of_parts(operator: LinearOperator) -> ByParts | None:
    """Return the plan of an operator that is made of operators: its products with these prepared.

    Parameters
    ----------
    operator : LinearOperator
        An operator with operators in its fields. Those without a plan of their own are prepared in this way: so this is
        for the hook ``_plan`` of one whose parts are made of its parameters.

    Returns
    -------
    Plan or None
        None where no part has anything to be prepared.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> from structmat.extend import plan_of_parts
    >>> plan = plan_of_parts(sm.Circulant(np.array([1.0, 2.0])) + sm.Diagonal(np.ones(2)))
    >>> plan.apply(np.array([1.0, 0.0]), np)
    array([2., 2.])
    """

    def of_part(part: Any) -> Any:
        if not isinstance(part, LinearOperator) or isinstance(part, (Prepared, Diagonal)):
            return part  # a diagonal is multiplied by at once
        # Of a part as large as the whole no dense matrix is needed: the whole has one where that is faster.
        return _prepare(part, part, matrix=prod(part.shape) < prod(operator.shape))

    if not operator._made_of():
        return None
    with_parts = operator._rebuilt(lambda array, _: array, of_part)
    if not any(isinstance(part, (Prepared, Diagonal)) for part in with_parts._made_of()):
        return None  # all parts are such as `Fourier`, which has nothing to be computed before
    is_real = None if operator._forces_complex else not is_complex(operator.dtype, operator._own_namespace())
    return ByParts(with_parts, is_real)


def _prepare(operator: LinearOperator, working: LinearOperator, *, matrix: bool = True) -> LinearOperator:
    """Return the operator prepared, by its plan or by its parts, itself where there is nothing to be prepared.

    `working` is the operator in the precision of computations. It gets its dense `matrix` where that is faster for a
    few vectors.
    """
    xp = working._own_namespace()
    plan = working._plan(xp) or plan_of_parts(working)
    if plan is None:
        return operator
    most_dense = 0
    if matrix and working._prepares_matrix and plan.is_real is not None and not plan.is_stack:
        rows, cols = working.shape
        most_dense = dense_up_to(rows * cols / plan.cost, engine_of(rules_of(xp).engine), dtype_name(working.dtype))
    result = Prepared(operator, plan, working.to_dense() if most_dense else None, most_dense)
    result._products()  # computed here, so that the first product does not take longer than later ones
    return result


prepare.rule(object, object)(_prepare)


def _source(operator: LinearOperator) -> LinearOperator:
    """Return the operator from which a prepared one was made, or a copy of another operator.

    The copy is what is prepared, as a prepared operator shares no arrays with others.
    """
    return operator.operator if isinstance(operator, Prepared) else operator._snapshot()


def prepared_by(rules: PairRules) -> Callable[[LinearOperator, LinearOperator], LinearOperator]:
    """Return the rule that prepares what other rules make of the operators themselves.

    A combination with a prepared operand is prepared however it is bracketed, so this rule goes before those that join
    terms or factors: a kind whose own rule answers for any operand registers it for that kind and `Prepared`.
    """
    return lambda left, right: rules(_source(left), _source(right))._prepared()


compose.rule(Prepared, Identity)(times_identity)
compose.rule(Prepared, object)(prepared_by(compose))
compose.rule(object, Prepared)(prepared_by(compose))
add.rule(Prepared, object)(prepared_by(add))


@scale.rule(Prepared, object)
def _multiple(operator: Prepared, factor: Scalar) -> LinearOperator:
    return scale(operator.operator, factor)._snapshot()._prepared()
