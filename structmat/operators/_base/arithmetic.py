"""What the operators of Python mean for operators: tables of rules for pairs of types.

The base class asks the tables. The modules that stand on top of it register their rules there, of which one for any
pair is what applies without others. So no module imports one that is built on it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from numbers import Rational
from typing import Any, TypeAlias

import numpy as np

from structmat._arguments import integer
from structmat._arrays.dtypes import common_dtype, is_half_precision, precision_of, shared_dtype
from structmat._arrays.libraries import is_array, is_numpy, library_of, namespace, namespace_of
from structmat._arrays.shapes import broadcast_shapes
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat.operators._base.operands import is_array_like, read

Rule: TypeAlias = Callable[[Any, Any], Any]


class PairRules:
    """Rules for pairs of types; a rule may return ``NotImplemented`` to leave the pair to the next rule.

    Parameters
    ----------
    commutative : bool
        Whether each rule also serves the swapped pair.

    Notes
    -----
    The order is: the exact pair, the exact left type with anything, anything with the exact right type. `object` stands
    for "anything" when a rule is registered.

    Examples
    --------
    >>> from structmat.extend import PairRules
    >>> join = PairRules(commutative=True)
    >>> @join.rule(int, str)
    ... def _(number, text):
    ...     return f"{number} {text}"
    >>> join.merge("apples", 3), join.merge(1.0, "pear")
    ('3 apples', NotImplemented)
    """

    __slots__ = ("_commutative", "_rules")

    def __init__(self, *, commutative: bool) -> None:
        self._commutative = commutative
        self._rules: dict[tuple[type, type], Rule] = {}

    def rule(self, left: type, right: type) -> Callable[[Rule], Rule]:
        """Register the decorated function for a pair of types.

        Parameters
        ----------
        left, right : type
            Of the two operands, exactly; `object` for any.

        Returns
        -------
        callable
            A decorator, which returns its function.
        """

        def register(function: Rule) -> Rule:
            self._rules[left, right] = function
            return function

        return register

    def merge(self, left: Any, right: Any) -> Any:
        """Return the result of the most specific rule for a pair.

        Parameters
        ----------
        left, right : object
            The operands.

        Returns
        -------
        object
            ``NotImplemented`` where no rule applies.
        """
        for pair in ((type(left), type(right)), (type(left), object), (object, type(right))):
            rule = self._rules.get(pair)
            if rule:
                result = rule(left, right)
                if result is not NotImplemented:
                    return result
            rule = self._rules.get(pair[::-1]) if self._commutative else None
            if rule:
                result = rule(right, left)
                if result is not NotImplemented:
                    return result
        return NotImplemented

    def __call__(self, left: Any, right: Any) -> Any:
        """Return the result of the most specific rule for a pair; the rule for any two types always has one."""
        result = self.merge(left, right)
        return self._rules[object, object](left, right) if result is NotImplemented else result


compose = PairRules(commutative=False)
"""The rules of ``left @ right``."""

add = PairRules(commutative=True)
"""The rules of ``left + right``."""

scale = PairRules(commutative=False)
"""The rules of ``operator * number``."""

power = PairRules(commutative=False)
"""The rules of ``operator ** k``, for a square operator and an integer."""

submatrix = PairRules(commutative=False)
"""The rules of ``operator[rows, cols]``, for an operator and a pair of indices, where the hook `_block` gives none."""

prepare = PairRules(commutative=False)
"""The rules for an operator and the same one in the precision of computations, which make a prepared operator."""


def combine(rules: PairRules, left: Any, right: Any, sign: str) -> Any:
    """Return the result of a table of rules for two operators, which are first brought to their common precision.

    For half precision that is float32, and the result is brought back to half precision.
    """
    leaves = [*left._leaves(), *right._leaves()]
    if all([type(array) is np.ndarray and array.ndim == axes for array, axes in leaves]) and (  # noqa: C419  # faster
        not leaves or shared_dtype(leaves) is not None
    ):
        return rules(left, right)  # the usual case, in which there is nothing to be brought together
    owner = f"{type(left).__name__} {sign} {type(right).__name__}"
    broadcast_shapes(owner, left.batch_shape, right.batch_shape)
    arrays = [array for array, _ in leaves]
    xp = namespace_of(owner, *arrays)
    dtype = common_dtype(xp, *left._counted_as(left.dtype), *right._counted_as(right.dtype))
    precision = precision_of(dtype, xp)
    result = rules(left._in_precision(precision, xp), right._in_precision(precision, xp))
    return result._in_precision(dtype, xp) if is_half_precision(dtype) else result


def multiple(operator: Any, number: Any, owner: str, factor: Callable[[Any], Any]) -> Any:
    """Return the multiple of an operator by ``factor(number)``.

    `number` is a number, or an array with one for each member of a stack; `factor` makes of it a factor or divisor.
    """
    if isinstance(number, np.generic):
        return _multiple_by_numpy_scalar(operator, number, factor)
    if isinstance(number, (int, float, complex)):
        return scale(operator, factor(number))
    if not is_array_like(number):
        return scale(operator, factor(float(number))) if isinstance(number, Rational) else NotImplemented
    shape = tuple(np.shape(number))
    if len(shape) > len(operator.batch_shape):
        text = f"a scalar, or one scalar per batch member of {operator.batch_shape}, is expected, got an array of shape"
        text += f" {shape}; use @ for the product of matrices, op.to_dense() * array for that of their entries"
        raise ArgumentValueError(owner, None, text)
    arrays = operator._arrays()
    if arrays and is_array(number):
        own, other = (library_of(namespace(array)) for array in (arrays[0], number))
        if own != other:
            text = f"must be a number, or of the operator's library, {own}, got an array of {other}; make the operator"
            text += f" of arrays of {other}, as laplacian(sizes, like=factor) does, or take float(factor)"
            raise ArgumentTypeError(owner, "factor", text)
    return scale(operator, factor(read(operator, number, owner, "factor")[0]))


def _multiple_by_numpy_scalar(operator: Any, number: Any, factor: Callable[[Any], Any]) -> Any:
    """Return the multiple by a scalar of NumPy. For operators of NumPy its dtype counts, as in ``array * number``."""
    xp = operator._own_namespace()
    own = operator.dtype
    if own is None or not is_numpy(xp):
        return scale(operator, factor(number.item()))
    dtype = np.result_type(own, number)
    array = np.asarray(number, np.result_type(number, np.float16))
    if dtype == own:
        return scale(operator, factor(array))
    return scale(operator._in_precision(precision_of(dtype, xp), xp), factor(array))


def exponent_of_power(operator: Any, k: Any) -> int:
    """Return the exponent of ``operator ** k`` after the checks of both."""
    owner = f"{type(operator).__name__} ** k"
    try:
        exponent = integer(k, owner, "k", least=-sys.maxsize)
    except ArgumentTypeError as error:
        text = f"must be an integer, got {k!r}; use op.fractional_matrix_power(k)"
        raise ArgumentTypeError(error.owner, error.argument, text) from None
    if operator.shape[0] != operator.shape[1]:
        raise ArgumentValueError(owner, None, f"the operator must be square, got shape {operator.shape}")
    return exponent
