"""The parts of an operator made of others: their check, and their values in the library of the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from structmat._arrays.dtypes import in_precision, precision_of
from structmat._arrays.libraries import namespace_of
from structmat._arrays.shapes import broadcast_shapes
from structmat._arrays.typing import Array, Namespace
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat.operators._base.linear_operator import LinearOperator


def sequence_of_parts(owner: str, argument: str, value: Any) -> tuple[Any, ...]:
    """Return the parts of an operator that is made of others as a tuple, after the check that there is a sequence."""
    if not isinstance(value, Iterable):
        raise ArgumentTypeError(owner, argument, f"must be a sequence of operators, got {type(value).__name__}")
    return tuple(value)


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
