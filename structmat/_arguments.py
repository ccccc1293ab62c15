"""Arguments read as numbers, words and arrays, and checked."""

from __future__ import annotations

import inspect
import math
import operator
import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeVar, cast

import numpy as np

from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import is_array, is_torch, namespace, rules_of
from structmat._arrays.typing import Array, ArrayLike, DType, Namespace
from structmat._errors import ArgumentTypeError, ArgumentValueError, did_you_mean

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_OTHER_NAMES = {"seed": "rng", "random_state": "rng", "generator": "rng", "weights": "entry_weights"}
"""What other libraries call arguments."""


def refuses_unknown(
    owner: str, advice: Callable[[str, Any, Sequence[str]], str]
) -> Callable[[Callable[_Arguments, _Result]], Callable[_Arguments, _Result]]:
    """Return a decorator for a function: arguments that it does not have are refused with what to write instead.

    Parameters
    ----------
    owner : str
        What users call, for the error.
    advice : callable
        Gets the name of such an argument, its value, and the names that the function knows, and returns the end of a
        sentence.

    Returns
    -------
    callable
        The decorator; the function keeps its signature.
    """

    def decorate(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
        known = tuple(inspect.signature(function).parameters)
        names = frozenset(known)

        @wraps(function)
        def checked(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
            if not kwargs.keys() <= names:
                unknown = {name: value for name, value in kwargs.items() if name not in names}
                lines = [f"{name!r}{advice(name, value, known)}" for name, value in unknown.items()]
                # Of settings in a file that are refused by the words "got an unexpected keyword argument", PEFT warns
                # alone, and goes on without them.
                raise ArgumentTypeError(owner, None, f"unexpected keyword argument {'; '.join(lines)}")
            return function(*args, **kwargs)

        return checked

    return decorate


def names_arguments(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Let a function with many arguments name the one that was meant, where it is given one that it does not have."""
    owner = function.__name__
    return refuses_unknown(owner, lambda name, _, known: nearest_argument(name, known, owner))(function)


def nearest_argument(name: str, known: Sequence[str], owner: str) -> str:
    """Return the end of an error for an argument that a function, `owner`, does not have."""
    other = _OTHER_NAMES.get(name)
    meant = f", did you mean {other!r}?" if other in known else did_you_mean(name, known)
    return f"{meant}; {owner} takes {', '.join(known)}"


def integer(value: Any, owner: str, argument: str, least: int = 1) -> int:
    """Return an integer that is at least `least`; true and false do not count as integers."""
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise ArgumentTypeError(owner, argument, f"must be an integer, got {value!r}")
    if number < least:
        raise ArgumentValueError(owner, argument, f"must be at least {least}, got {number}")
    return number


def odd_factors(value: Any, owner: str, argument: str) -> int:
    """Return the number of factors of a CDD product that begins and ends with a diagonal, and has a circulant."""
    number = integer(value, owner, argument)
    if number < 3 or number % 2 == 0:
        raise ArgumentValueError(owner, argument, f"must be odd and at least 3, got {number}")
    return number


def side_of_blocks(value: Any, owner: str, argument: str) -> int | Literal["min", "toeplitz"]:
    """Return the side of circulant blocks: an integer, or a word for a side that follows from the matrix's shape."""
    if isinstance(value, str) and value in {"min", "toeplitz"}:
        return cast('Literal["min", "toeplitz"]', value)
    if value is None or isinstance(value, str):
        raise ArgumentTypeError(owner, argument, f'must be an integer, "min" or "toeplitz", got {value!r}')
    return integer(value, owner, argument)


def grid(value: Any, owner: str, argument: str) -> tuple[int, ...]:
    """Return the sizes of a grid: at least one integer, each at least one."""
    if not isinstance(value, (tuple, list)):
        raise ArgumentTypeError(owner, argument, f"must be a tuple of integers, got {value!r}")
    if not value:
        raise ArgumentValueError(owner, argument, "must have one size at least, got none")
    return tuple(integer(n, owner, argument) for n in value)


def _number(value: Any, owner: str, argument: str) -> float:
    """Return a number; strings do not count as numbers, even where `float` reads them, nor do true and false."""
    try:
        number = None if isinstance(value, (str, bytes, bool, np.bool_)) else float(value)
    except OverflowError:  # an integer beyond all floats
        number = math.inf
    except (TypeError, ValueError):
        number = None
    if number is None:
        raise ArgumentTypeError(owner, argument, f"must be a number, got {value!r}")
    return number


def finite(value: Any, owner: str, argument: str) -> float:
    """Return a finite number."""
    number = _number(value, owner, argument)
    if not math.isfinite(number):
        raise ArgumentValueError(owner, argument, f"must be finite, got {value!r}")
    return number


def non_negative(value: Any, owner: str, argument: str) -> float:
    """Return a finite number that is not negative."""
    number = _number(value, owner, argument)
    if not (number >= 0.0 and math.isfinite(number)):
        raise ArgumentValueError(owner, argument, f"must be finite and not negative, got {value!r}")
    return number


def positive(value: Any, owner: str, argument: str) -> float:
    """Return a finite positive number."""
    number = finite(value, owner, argument)
    if number <= 0.0:
        raise ArgumentValueError(owner, argument, f"must be positive, got {value!r}")
    return number


def share(value: Any, owner: str, argument: str) -> float:
    """Return a number that is at least 0 and less than 1."""
    number = finite(value, owner, argument)
    if not 0.0 <= number < 1.0:
        raise ArgumentValueError(owner, argument, f"must be at least 0 and less than 1, got {value!r}")
    return number


def one_of(value: Any, owner: str, argument: str, choices: tuple[str, ...]) -> str:
    """Return a word that is one of the choices."""
    if not isinstance(value, str) or value not in choices:
        words = ", ".join(f'"{word}"' for word in choices)
        raise ArgumentValueError(owner, argument, f"must be one of {words}, got {value!r}")
    return value


def random_generator(rng: Any, owner: str) -> np.random.Generator:
    """Return the generator itself, or one seeded by an integer or by the system."""
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        kind = ArgumentTypeError if isinstance(error, TypeError) else ArgumentValueError
        raise kind(owner, "rng", f"must be a numpy.random.Generator, an integer or None, got {rng!r}") from error


def independent_generators(rng: np.random.Generator, count: int) -> list[np.random.Generator]:
    """Return generators for so many independent searches: the first is `rng` itself, and others are spawned from it.

    So the first of several searches is the one that is made alone.
    """
    return [rng, *(rng.spawn(count - 1) if count > 1 else [])]  # some generators cannot spawn others


def optional_function(value: Any, owner: str, argument: str) -> Callable[..., Any] | None:
    """Return a function, or None."""
    if value is not None and not callable(value):
        raise ArgumentTypeError(owner, argument, f"must be callable, got {value!r}")
    return value


def as_floating(value: ArrayLike, owner: str, argument: str, *, like: tuple[Namespace, DType] | None = None) -> Array:
    """Return `value` as a floating-point array; such arrays are returned as they are.

    Parameters
    ----------
    value : array or nested lists of numbers
        Lists are read by NumPy, or by the namespace of `like`. Integers and booleans are promoted to the default
        floating dtype of their library (the rule of its own FFT), never below the dtype of `like`.
    owner : str
        The function or class that was called, for error messages.
    argument : str
        The name of the argument.
    like : (namespace, dtype), optional
        Namespace and dtype of an operator with which the array is combined.

    Returns
    -------
    array
        Real or complex floating-point numbers.

    Raises
    ------
    ArgumentValueError
        If lists are not rectangular, or entries are masked.
    ArgumentTypeError
        If these are not numbers of a standard dtype, or a tensor or matrix is sparse.

    Examples
    --------
    >>> from structmat.extend import as_floating
    >>> as_floating([1, 2], "Mine", "c")
    array([1., 2.])
    """
    if type(value) is np.ndarray and value.dtype.char in "efdFD" and value.dtype.isnative:
        return value
    if is_torch(value):
        objection = rules_of(namespace(value)).objection(value)
        if objection is not None:
            raise ArgumentTypeError(owner, argument, objection)
        if value.dtype.is_floating_point or value.dtype.is_complex:
            return value
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        text = "has masked entries: fill them first, or give `fit_cdd` the weight zero for them (`entry_weights`)"
        raise ArgumentValueError(owner, argument, text)
    if not is_array(value):
        value = _read(value, owner, argument, like)
    xp = namespace(value)
    if isinstance(value, (np.ndarray, np.generic)):
        value = np.asarray(value)
        if value.dtype.kind not in "biufc" or value.dtype.itemsize // (2 if value.dtype.kind == "c" else 1) > 8:
            raise ArgumentTypeError(owner, argument, f"must hold numbers of a standard dtype, got dtype {value.dtype}")
        value = value.astype(value.dtype.newbyteorder("="), copy=False)
    if xp.isdtype(value.dtype, ("real floating", "complex floating")):
        return value
    default = xp.__array_namespace_info__().default_dtypes()["real floating"]
    target = default if like is None or like[1] is None else xp.result_type(default, like[1])
    return xp.astype(value, target)


def as_vectors(
    value: ArrayLike, owner: str, argument: str, n: str = "n", *, like: tuple[Namespace, DType] | None = None
) -> Array:
    """Return an argument as vectors along the last axis, none of them empty.

    Parameters
    ----------
    value : array or nested lists of numbers
        As for `as_floating`.
    owner : str
        The function or class that was called, for error messages.
    argument : str
        The name of the argument.
    n : str, default "n"
        What the length is called there.
    like : (namespace, dtype), optional
        As for `as_floating`.

    Returns
    -------
    array, shape (..., n)
        Real or complex floating-point numbers.

    Raises
    ------
    ArgumentValueError
        If it has no axis or no entry, and as `as_floating` does.
    ArgumentTypeError
        As `as_floating` does.

    Examples
    --------
    >>> from structmat.extend import as_vectors
    >>> as_vectors(3.0, "Mine", "c", "m")
    Traceback (most recent call last):
        ...
    structmat._errors.ArgumentValueError: Mine: c must have shape (..., m) with m >= 1, got ()
    """
    array = as_floating(value, owner, argument, like=like)
    if array.ndim < 1 or array.shape[-1] < 1:
        raise wrong_shape(owner, argument, f"(..., {n}) with {n} >= 1", array)
    return array


def as_matrices(value: ArrayLike, owner: str, *, square: bool = False, hint: str = "") -> tuple[Array, Namespace]:
    """Return the argument `A` as matrices of shape ``(..., m, n)``, m and n at least one, and its namespace."""
    A = as_floating(value, owner, "A")
    if A.ndim < 2 or 0 in A.shape[-2:] or (square and A.shape[-2] != A.shape[-1]):
        shape = "(..., n, n)" if square else "(..., m, n), none of them 0"
        raise wrong_shape(owner, "A", shape, A, hint)
    return A, namespace(A)


def wrong_shape(owner: str, argument: str, wanted: str, array: Array, hint: str = "") -> ArgumentValueError:
    """Return the error for an array that has not the shape `wanted`; a `hint` says what to do instead."""
    return ArgumentValueError(owner, argument, f"must have shape {wanted}, got {tuple(array.shape)}{hint}")


def _read(value: Any, owner: str, argument: str, like: tuple[Namespace, DType] | None) -> Array:
    """Return nested lists as an array of NumPy, or of the namespace of `like`, with the dtype of that."""
    if value is None:
        raise ArgumentTypeError(owner, argument, "must hold numbers, got None")
    if isinstance(value, (str, os.PathLike)):
        text = f"must hold numbers, got {value!r}: structmat.io.load_matrix reads files"
        raise ArgumentTypeError(owner, argument, text)
    sparse = sys.modules.get("scipy.sparse")  # it is imported already where the value is a sparse matrix
    if sparse is not None and sparse.issparse(value):
        raise ArgumentTypeError(owner, argument, "must be dense, got a sparse matrix of SciPy: use its toarray()")
    try:
        with np.errstate(all="ignore"):
            array: Any = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise ArgumentValueError(owner, argument, f"must be a rectangular array of numbers: {error}") from error
    if like is not None and array.dtype.kind in "biufc":
        xp, dtype = like
        target = dtype if array.dtype.kind != "c" or is_complex(dtype, xp) else None
        array = xp.asarray(array.tolist(), dtype=target)
    return array


def as_matrix(value: ArrayLike, owner: str, argument: str) -> Array:
    """Return an argument as one matrix: a 2-D array of its own library, not empty, of floating-point numbers.

    It has no gradient. Integers and booleans become float64 where the library has it.
    """
    if is_torch(value):
        value = value.detach()
        if value.is_meta:
            raise ArgumentValueError(owner, argument, "is on the device meta, where tensors have no values")
    xp = namespace(value) if is_array(value) else np
    default = (xp, xp.float64) if is_array(value) else None
    matrix = as_floating(value, owner, argument, like=default)
    if matrix.ndim != 2 or 0 in matrix.shape:
        text = f"must be a non-empty matrix (2-D array), got shape {tuple(matrix.shape)}"
        if matrix.ndim > 2:
            text += f"; of a stack pass one matrix after the other, such as {argument}{[0] * (matrix.ndim - 2)}"
        raise ArgumentValueError(owner, argument, text)
    return matrix
