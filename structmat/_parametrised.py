"""The base of operators and plans: a frozen dataclass that says which of its fields are parameters."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any, ClassVar, Self

from structmat._arrays.libraries import namespace_of
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.typing import Array, Namespace
from structmat._rules import announce


class Parametrised:
    """A frozen dataclass that says which of its fields are parameters."""

    _core_axes: ClassVar[dict[str, int | None]] = {}
    """Fields that hold parameters, each with the number of axes that its array has after the batch axes.

    None in place of a number stands for a field that holds an inner object, or a tuple of them. All other fields are
    static: plain hashable values. A parameter may be missing (None) or a Python number.
    """

    _static_numbers: ClassVar[frozenset[str]] = frozenset()
    """Fields that hold an array or a Python number. A number counts as a static value, not as a parameter."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        announce(cls)

    def _leaves(self) -> list[tuple[Array, int]]:
        """Return all parameter arrays, those of inner objects included, each with its number of core axes."""
        leaves: list[tuple[Array, int]] = []
        for name, axes in self._core_axes.items():
            value = getattr(self, name)
            if axes is None:
                for inner in value if isinstance(value, tuple) else (value,):
                    leaves.extend(inner._leaves())
            elif value is not None and not isinstance(value, (int, float, complex)):
                leaves.append((value, axes))
        return leaves

    def _arrays(self) -> list[Array]:
        """Return all parameter arrays, those of inner objects included."""
        return [*map(itemgetter(0), self._leaves())]

    def _map(self, function: Callable[[Array, int], Array]) -> Self:
        """Return the object with `function(array, core axes)` in place of each parameter array, unchecked."""
        return self._rebuilt(function, lambda inner: inner._map(function))

    def _rebuilt(self, array: Callable[[Array, int], Array], inner: Callable[[Any], Any]) -> Self:
        """Return the object with functions of its own parameter arrays and of its inner objects in place of them."""
        new = object.__new__(type(self))
        for name in self._field_names():
            value = getattr(self, name)
            if name in self._core_axes:
                axes = self._core_axes[name]
                if axes is None:
                    value = tuple(map(inner, value)) if isinstance(value, tuple) else inner(value)
                elif value is not None and not isinstance(value, (int, float, complex)):
                    value = array(value, axes)
            object.__setattr__(new, name, value)
        return new

    def _replaced(self, **fields: Any) -> Self:
        """Return the object with other values of some fields, unchecked."""
        new = object.__new__(type(self))
        for name in self._field_names():
            object.__setattr__(new, name, fields[name] if name in fields else getattr(self, name))
        return new

    @classmethod
    def _of_fields(cls, fields: dict[str, Any]) -> Self:
        """Return the object with these values of its fields, after the checks of the constructor."""
        return cls(**fields)

    @classmethod
    def _field_names(cls) -> tuple[str, ...]:
        return cls.__match_args__  # type: ignore[attr-defined]  # set by `dataclass`

    def _own_namespace(self) -> Namespace:
        leaves = self._leaves()
        return namespace_of(type(self).__name__, *map(itemgetter(0), leaves)) if leaves else numpy_namespace
