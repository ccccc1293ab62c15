"""Objects whose parameters are arrays or other such objects: operators, and the plans that compute their products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from operator import itemgetter
from typing import Any, ClassVar, Self

from array_api_compat import numpy as numpy_namespace

from structmat._arrays.namespaces import is_array, namespace_of
from structmat._arrays.typing import Array, Namespace

__all__ = ["Parametrised"]


class Parametrised:
    """A frozen, slotted dataclass that says which of its fields are parameters."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # `dataclass` writes these for the class before it has slots; afterwards they fail on names that are no fields
        for name in ("__setattr__", "__delattr__"):
            if name in cls.__dict__:
                setattr(cls, name, getattr(Parametrised, name))

    def __setattr__(self, name: str, value: Any) -> None:
        raise FrozenInstanceError(
            f"{type(self).__name__} cannot be changed: make a new one instead of setting {name!r}"
        )

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"{type(self).__name__} cannot be changed: {name!r} cannot be deleted")

    _core_axes: ClassVar[dict[str, int | None]] = {}
    """Fields that hold parameters: the number of an array's own axes after the batch axes, None for inner objects.
    All other fields are static: plain hashable values. A parameter may be missing (None) or a Python number."""

    _static_numbers: ClassVar[frozenset[str]] = frozenset()
    """Fields that hold an array or a Python number; the number is static."""

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

    def _is_filled(self) -> bool:
        """Tell whether all parameters are arrays, and not what a tree of JAX may hold in their place."""
        for name, axes in self._core_axes.items():
            value = getattr(self, name)
            if axes is None:
                inner = value if isinstance(value, tuple) else (value,)
                filled = all(isinstance(part, Parametrised) and part._is_filled() for part in inner)
            else:
                number = name in self._static_numbers and isinstance(value, (int, float, complex))
                filled = number or (is_array(value) and value.ndim >= axes)
            if not filled:
                return False
        return True

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

    @classmethod
    def _field_names(cls) -> tuple[str, ...]:
        return cls.__match_args__  # type: ignore[attr-defined]  # set by `dataclass`

    def _own_namespace(self) -> Namespace:
        arrays = self._arrays()
        return namespace_of(type(self).__name__, *arrays) if arrays else numpy_namespace
