"""Operators whose arrays were computed from operators without parameters, and that work with every library as these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

from structmat._arrays.dtypes import in_precision, is_complex, precision_of
from structmat._arrays.libraries import device_of
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.typing import Namespace
from structmat.operators._base.hooks import Context, Hooks, forwarding
from structmat.operators._base.linear_operator import LinearOperator


def _by_operator(hook: str) -> Callable[..., Any]:
    """Return a hook of `Constant` that calls the same hook of the operator.

    A hook that takes an array or a `Context` is computed in the library of that. What others return is of NumPy, and an
    operator among it is a constant again.
    """
    annotations = [parameter.annotation for parameter in signature(getattr(Hooks, hook)).parameters.values()][1:]
    given = [annotation in {"Array", "Context"} for annotation in annotations]
    of_numpy = [annotation == "Namespace" for annotation in annotations]

    def in_the_library(self: Constant, *arguments: Any) -> Any:
        like = arguments[given.index(True)]
        if not isinstance(like, Context):
            like = Context(arguments[of_numpy.index(True)], like.dtype, device_of(like))
        return getattr(self._in(like), hook)(*arguments)

    def in_numpy(self: Constant, *arguments: Any) -> Any:
        taken = (numpy_namespace if xp else argument for argument, xp in zip(arguments, of_numpy, strict=True))
        value = getattr(self.operator, hook)(*taken)
        return Constant(value) if isinstance(value, LinearOperator) else value

    return in_the_library if any(given) else in_numpy


@dataclass(frozen=True, eq=False, repr=False)
@forwarding(_by_operator)
class Constant(LinearOperator):
    """An operator of NumPy arrays that has no parameters itself, as those that it was computed from have none.

    What takes vectors is computed in their library, on their device and in their precision. All else is computed in
    NumPy, as everything is that operators without parameters return.

    Parameters
    ----------
    operator : LinearOperator
        The operator of NumPy arrays.
    is_complex : bool, default False
        Not to be given: it is read off the operator.
    """

    operator: LinearOperator
    """The operator of NumPy arrays, which count as static."""
    is_complex: bool = False
    """Whether that is complex. It is found once: the compiler of torch traces no questions about dtypes of NumPy."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_complex", is_complex(self.operator.dtype, numpy_namespace))

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the operator."""
        return self.operator.shape

    @property
    def _forces_complex(self) -> bool:
        return self.is_complex

    def _details(self) -> str:
        return f"{type(self.operator).__name__}, "

    def _in(self, like: Context) -> Any:
        """Return the operator with arrays of a library, on a device and in the precision of a dtype."""
        precision = precision_of(like.dtype, like.xp)
        return self.operator._map(
            lambda array, _: in_precision(like.xp.asarray(array, device=like.device), precision, like.xp)
        )

    _matvec = _by_operator("_matvec")  # abstract hooks must be in the body of the class
    _transpose = _by_operator("_transpose")

    def _plan(self, xp: Namespace) -> None:
        """Return None, since vectors may be of any library."""

    def _solver(self, xp: Namespace) -> None:
        """Return None, for the same reason."""
