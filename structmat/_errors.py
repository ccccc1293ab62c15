"""Errors of arguments, which say what was called and with what, and warnings at the line of the caller."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

import scipy  # its `linalg` is imported on first use


class ArgumentError(Exception):
    """An argument that a function, a method or an operator cannot take.

    Raised as `ArgumentValueError`, which is a `ValueError`, for shapes and values, and as `ArgumentTypeError`, which is
    a `TypeError`, for kinds.

    Parameters
    ----------
    owner : str
        What was called: ``"fit_cdd"``, ``"Circulant.solve"``.
    argument : str or None
        The name of the argument; None where several are at fault together.
    text : str
        What is wrong: what was passed and what was expected.

    Examples
    --------
    >>> import structmat as sm
    >>> try:
    ...     sm.Diagonal([1.0, 2.0]).matvec([1.0])
    ... except sm.ArgumentError as error:
    ...     print(error.owner, error.argument)
    Diagonal.matvec x
    """

    __module__ = "structmat"  # where users find it, in tracebacks too

    def __init__(self, owner: str, argument: str | None, text: str) -> None:
        super().__init__(owner, argument, text)
        self.owner, self.argument, self.text = owner, argument, text

    def __str__(self) -> str:
        return f"{self.owner}: {self.text}" if self.argument is None else f"{self.owner}: {self.argument} {self.text}"


class ArgumentValueError(ArgumentError, ValueError):
    """An argument of a wrong shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> try:
    ...     sm.fit_cdd(np.ones((3, 3)), n_factors=0)
    ... except ValueError as error:
    ...     print(type(error).__name__, error.owner, error.argument)
    ArgumentValueError fit_cdd n_factors
    """

    __module__ = "structmat"


class ArgumentTypeError(ArgumentError, TypeError):
    """An argument of a wrong kind.

    Examples
    --------
    >>> import structmat as sm
    >>> try:
    ...     sm.Circulant(["one", "two"])
    ... except TypeError as error:
    ...     print(type(error).__name__, error.owner, error.argument)
    ArgumentTypeError Circulant c
    """

    __module__ = "structmat"


@contextmanager
def naming(place: str | Callable[[], str]) -> Iterator[None]:
    """Add to errors of arguments the place where they arise, for example which of many layers.

    Around a loop over the places it is a function that returns the one of the moment.
    """
    try:
        yield
    except ArgumentError as error:
        place = place() if callable(place) else place
        raise type(error)(error.owner, error.argument, f"{error.text}, in {place}") from error


@contextmanager
def as_own(owner: str, of: str) -> Iterator[None]:
    """Let errors of arguments name `owner`, which users called, in place of the function `of` that it calls."""
    try:
        yield
    except ArgumentError as error:
        if error.owner != of:
            raise
        raise type(error)(owner, error.argument, error.text) from error


def warn_caller(text: str, category: type[Warning], *, through: tuple[str, ...] = ()) -> None:
    """Warn at the line of the user that called structmat, directly or `through` other packages."""
    packages = {"structmat", "functools", *through}  # functools calls properties that are computed once
    level = 1
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in packages:
        level += 1
        frame = frame.f_back
    warnings.warn(text, category, stacklevel=level)


def warn_of_nan(owner: str) -> None:
    """Warn of a solution that is NaN, on behalf of whatever has found it."""
    text = "the solution is NaN: A or b hold NaN or infinity, or it overflows"
    warn_caller(f"{owner}: {text}", scipy.linalg.LinAlgWarning)


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return a question for the end of an error whether a similar name was meant; nothing if none is similar."""
    return "".join(f", did you mean {each!r}?" for each in get_close_matches(name, known, 1))
