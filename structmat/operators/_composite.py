"""What operators made of operators share: checks and dtype of the parts, products of chains, results of parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import pairwise
from operator import is_, mul
from typing import TYPE_CHECKING, Any, Self

from structmat._arrays.dtypes import common_dtype, complex_partner, in_precision, is_complex, precision_of, shared_dtype
from structmat._arrays.libraries import namespace_of
from structmat._arrays.shapes import broadcast_shapes, concat_last
from structmat._arrays.typing import Array, DType, Namespace
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._nearest_circulants import product_of_circulants
from structmat.operators._arithmetic import compose
from structmat.operators._closed_forms import NoClosedFormError
from structmat.operators._hooks import Context
from structmat.operators._linear_operator import LinearOperator
from structmat.operators._near import Near, NearCirculant, on_one_grid

_MOST_ARRAYS = 100_000
"""The largest number of arrays in a combination, each counted as often as it occurs.

A recurrence such as ``A = A @ A`` doubles that number in each step.
"""


class Wrapper(LinearOperator):
    """An operator made of one other, its field `operator`, which by default has the shape and dtype of that."""

    if TYPE_CHECKING:
        operator: LinearOperator

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the operator."""
        return self.operator.shape

    @property
    def dtype(self) -> DType:
        """The dtype of the operator."""
        return self.operator.dtype

    def _details(self) -> str:
        return f"{type(self.operator).__name__}, "


class Combination(LinearOperator):
    """An operator made of others, the parts, in its only field.

    The arrays of the parts are collected once, by the constructor, since parts are never replaced.
    """

    def _set_parts(self, parts: tuple[LinearOperator, ...], operands: Sequence[LinearOperator]) -> Self:
        """Set the parts, and collect their arrays from the operands, which together have the same parts.

        An operand is a part itself, or a combination of this kind whose parts are among the parts.
        """
        (name,) = self._core_axes
        leaves: list[tuple[Array, int]] = []
        is_complex = False
        for op in operands:
            leaves += op._leaves()
            is_complex = is_complex or op._forces_complex
        if len(leaves) > _MOST_ARRAYS:
            text = f"must not hold more than {_MOST_ARRAYS:,} arrays, each counted as often as it occurs"
            text += "; multiply out with to_dense(), or apply them one by one"
            raise ArgumentValueError(type(self).__name__, name, text)
        object.__setattr__(self, name, parts)
        object.__setattr__(self, "_collected", (leaves, is_complex))
        return self

    def _rebuilt(self, array: Callable[[Array, int], Array], inner: Callable[[Any], Any]) -> Self:
        parts = tuple(map(inner, _parts(self)))
        return object.__new__(type(self))._set_parts(parts, parts)

    def _leaves(self) -> list[tuple[Array, int]]:
        collected = getattr(self, "_collected", None)  # not set in operators that were made without a constructor
        return super()._leaves() if collected is None else collected[0]

    @property
    def _forces_complex(self) -> bool:
        collected = getattr(self, "_collected", None)
        return any(part._forces_complex for part in _parts(self)) if collected is None else collected[1]

    @property
    def dtype(self) -> DType:
        """The common dtype of the parts."""
        leaves = self._leaves()
        if not leaves:
            return None
        xp = namespace_of(type(self).__name__, leaves[0][0])
        dtype = shared_dtype(leaves)
        if dtype is None or is_complex(dtype, xp):  # a part with complex arrays may be real
            operands: list[Array | DType] = []
            for part in _parts(self):
                dtype_of_part = part.dtype
                if dtype_of_part is not None:
                    operands += part._counted_as(dtype_of_part)
            dtype = common_dtype(xp, *operands)
        return complex_partner(dtype, xp) if self._forces_complex else dtype


class Chain(Combination):
    """A product of operators, its field `factors`: products with vectors, inverses, solutions and determinants.

    A subclass is a frozen dataclass with this field. It checks it in its constructor and gives the factors that it
    keeps to ``_set_parts``.
    """

    _core_axes = {"factors": None}

    if TYPE_CHECKING:
        factors: tuple[LinearOperator, ...]

    def _checked_factors(self) -> tuple[LinearOperator, ...]:
        """Return the factors as a tuple after the checks that every product needs."""
        owner = type(self).__name__
        factors = tuple(self.factors)
        require_operators(owner, "factors", factors)
        for left, right in pairwise(factors):
            if left.shape[1] != right.shape[0]:
                text = f"must have inner sizes that agree, got {left.shape} @ {right.shape}"
                raise ArgumentValueError(owner, "factors", text)
        return factors

    @property
    def shape(self) -> tuple[int, int]:
        """Rows of the first factor and columns of the last."""
        first, *rest = self.factors
        return (first.shape[0], rest[-1].shape[1]) if rest else first.shape  # once for each: factors may be nested

    def _described(self) -> str:
        return "the product " + " @ ".join(f"{type(f).__name__}{f.shape}" for f in self.factors)

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        for factor in reversed(self.factors):
            x = factor._matvec(x, xp)
        return x

    def _rmatvec(self, y: Array, xp: Namespace) -> Array:
        return reduce(lambda x, factor: factor._rmatvec(x, xp), self.factors, y)

    def _transpose(self) -> LinearOperator:
        return type(self)(tuple(f._transpose() for f in reversed(self.factors)))  # type: ignore[call-arg]

    def _conj(self) -> LinearOperator:
        factors = tuple(f._conj() for f in self.factors)
        return self if all(map(is_, factors, self.factors)) else type(self)(factors)  # type: ignore[call-arg]

    def _to_dense(self, like: Context) -> Array:
        last = self.factors[-1]._to_dense(like)
        return reduce(lambda M, factor: factor._matmat(M, like.xp), reversed(self.factors[:-1]), last)

    def _require_square_factors(self) -> None:
        if any(f.shape[0] != f.shape[1] for f in self.factors):
            raise NoClosedFormError(self)

    def _inv(self, xp: Namespace) -> LinearOperator:
        self._require_square_factors()
        return reduce(compose, (f._inv(xp) for f in reversed(self.factors)))

    def _solve(self, b: Array, xp: Namespace) -> Array:
        self._require_square_factors()
        return reduce(lambda x, factor: factor._solve(x, xp), self.factors, b)

    def _determinant_factors(self, xp: Namespace) -> Array:
        self._require_square_factors()
        factors = [values_of(f, self, xp, lambda part, own_xp: part._determinant_factors(own_xp)) for f in self.factors]
        return concat_last(factors, xp)

    def _near(self, like: Array, xp: Namespace) -> Near:
        """Return the product of the circulants near the factors, which need not be the nearest to the product."""
        if any(factor.shape != self.shape for factor in self.factors):
            return Near(self)
        parts = [factor._near(like, xp) for factor in self.factors]

        def circulant() -> NearCirculant | None:
            found = on_one_grid(parts)
            if found is None:
                return None
            columns, sizes = found
            return NearCirculant(product_of_circulants(columns, sizes or self.shape[:1], xp), sizes)

        return Near(self, circulant=circulant)

    def _slogdet(self, xp: Namespace) -> tuple[Array, Array]:
        self._require_square_factors()
        pairs = (values_of(f, self, xp, lambda part, own_xp: part._slogdet(own_xp)) for f in self.factors)
        signs, logs = zip(*pairs, strict=True)
        return reduce(mul, signs), sum(logs[1:], start=logs[0])


def combined(kind: type[Any], parts: tuple[LinearOperator, ...], operands: Sequence[LinearOperator]) -> Any:
    """Return a product or a sum of parts that need no checks, without those of its constructor.

    Parameters
    ----------
    kind : type
        A class with one field, of operators, such as `structmat.Product`.
    parts : tuple of LinearOperator
        The operators that it holds.
    operands : sequence of LinearOperator
        The operators that it is made of: the parts, or combinations of them.

    Returns
    -------
    LinearOperator
        The combination. It takes the time of joining lists: in a long sum all checks in each step would take longer.

    Examples
    --------
    >>> import structmat as sm
    >>> from structmat.extend import combined
    >>> parts = (sm.Fourier(4), sm.Identity(4))
    >>> combined(sm.Product, parts, parts)
    Product(Fourier @ Identity, shape=(4, 4), dtype=any, device=any)
    """
    return object.__new__(kind)._set_parts(parts, operands)


def flat(operators: tuple[LinearOperator, ...], kind: type[Any]) -> tuple[LinearOperator, ...]:
    """Return operators, where those of one kind are replaced by their parts."""
    if not any(type(op) is kind for op in operators):
        return operators
    return tuple(part for op in operators for part in (_parts(op) if type(op) is kind else (op,)))


def require_operators(owner: str, argument: str, operators: tuple[Any, ...]) -> None:
    """Check the parts of an operator that is made of others.

    Parameters
    ----------
    owner, argument : str
        The class and the field, which errors name.
    operators : tuple
        The parts: operators of one array library, whose batch axes broadcast.

    Raises
    ------
    TypeError
        If a part is no operator, or belongs to another array library than the others.
    ValueError
        If there is none, or their batch axes do not broadcast.

    Examples
    --------
    >>> import structmat as sm
    >>> from structmat.extend import require_operators
    >>> require_operators("Mine", "parts", (sm.Identity(2), 3))
    Traceback (most recent call last):
        ...
    structmat._errors.ArgumentTypeError: Mine: parts must be structmat operators, got int
    """
    if not operators:
        raise ArgumentValueError(owner, argument, "must be at least one operator, got none")
    for op in operators:
        if not isinstance(op, LinearOperator):
            raise ArgumentTypeError(owner, argument, f"must be structmat operators, got {type(op).__name__}")
    arrays = [array for op in operators for array in op._arrays()]
    if arrays:
        namespace_of(owner, *arrays)
    broadcast_shapes(owner, *(op.batch_shape for op in operators))


def _parts(operator: Any) -> tuple[LinearOperator, ...]:
    """Return the parts of a combination."""
    (name,) = operator._core_axes
    return getattr(operator, name)


def values_of(
    part: LinearOperator, combination: LinearOperator, xp: Namespace, hook: Callable[[LinearOperator, Namespace], Any]
) -> Any:
    """Return what a hook has for a part of an operator, in the library of that operator.

    Parameters
    ----------
    part, combination : LinearOperator
        An operator, and the operator that it is a part of.
    xp : namespace
        That of the combination.
    hook : callable
        A function of an operator and a namespace, which returns an array or a tuple of arrays.

    Returns
    -------
    array or tuple of arrays
        Of the library, the device and the precision of the combination. A part without arrays has none of them: its
        values are computed in NumPy and converted.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> from structmat.extend import values_of
    >>> whole = sm.Circulant(np.ones(2, np.float32)) @ sm.Fourier(2) @ sm.Identity(2)
    >>> values_of(sm.Identity(2), whole, np, lambda part, xp: part._diagonal(xp)).dtype
    dtype('float32')
    """
    has_arrays = bool(part._arrays())
    values = hook(part, xp if has_arrays else part._own_namespace())
    if has_arrays or combination.dtype is None:
        return values

    def converted(array: Array) -> Array:
        precision = precision_of(combination.dtype, xp)
        return in_precision(xp.asarray(array, device=combination.device), precision, xp)

    return tuple(map(converted, values)) if isinstance(values, tuple) else converted(values)
