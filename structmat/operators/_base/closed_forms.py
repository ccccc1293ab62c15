"""Closed forms: the methods that only some operators have, the hooks that supply them, and alternatives to them.

A hook without a closed form raises `NoClosedFormError`. It need not know which method was called: the method catches
it, and its error names the method and the alternative, which are declared once, by `closed_form` at the method.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class NoClosedFormError(NotImplementedError):
    """What a hook raises of an operator that has no closed form; users see it with the method that they called.

    Parameters
    ----------
    operator : LinearOperator
        The operator, or the part of another one.
    reason : str, optional
        Why this operator has none, where others of its class have one.

    Examples
    --------
    >>> import structmat as sm
    >>> from structmat.extend import NoClosedFormError
    >>> str(NoClosedFormError(sm.Fourier(4)))
    'no closed form for Fourier operators'
    >>> sm.Fourier(4).trace()
    Traceback (most recent call last):
        ...
    NotImplementedError: Fourier.trace: no closed form for Fourier operators; use numpy.trace(op.to_dense())
    """

    def __init__(self, operator: Any, reason: str = "") -> None:
        super().__init__(operator, reason)

    def __str__(self) -> str:  # made where it is read: most are caught, and another way is taken
        operator, reason = self.args
        return f"no closed form for {operator._described()}" + (f", since {reason}" if reason else "")


class ClosedForm(NamedTuple):
    """The declaration of a method that only some operators have.

    Examples
    --------
    >>> from structmat.extend import closed_forms
    >>> closed_forms()["det"].hooks, closed_forms()["det"].otherwise
    (('_determinant_factors', '_det'), 'structmat.slogdet(op), its logarithm')
    """

    hooks: tuple[str, ...]
    """The hooks that it asks: the first one suffices, others give parts of it or replace what follows from that."""
    otherwise: str
    """What to call of an operator that has none."""


def closed_form(
    *hooks: Callable[..., Any], otherwise: str
) -> Callable[[Callable[_Parameters, _Result]], Callable[_Parameters, _Result]]:
    """Declare that a method asks hooks, of which the first one suffices, and what serves `otherwise`."""

    def declared(method: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
        @wraps(method)
        def public(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
            try:
                return method(*args, **kwargs)
            except NoClosedFormError as error:
                owner = f"{type(args[0]).__name__}.{method.__name__}"
                raise NotImplementedError(f"{owner}: {error}; use {otherwise}") from None

        names = tuple(hook.__name__ for hook in hooks)
        public.closed_form = ClosedForm(names, otherwise)  # type: ignore[attr-defined]
        return public

    return declared


def declared_in(kind: type) -> dict[str, ClosedForm]:
    """Return the closed forms that a class declares, by the names of the methods, in their order."""
    found = ((name, getattr(value, "closed_form", None)) for name, value in vars(kind).items())
    return {name: form for name, form in found if form is not None}
