"""The public names of structmat: what ``__all__`` lists in every module without a leading underscore."""

import importlib
import inspect
import pkgutil
from typing import Any

import structmat

# The command owns its interface: docs/command.md documents it.
COMMANDS = ("structmat.cli",)


def modules() -> list[str]:
    """Return the names of all public modules, the shortest first."""
    found = [info.name for info in pkgutil.walk_packages(structmat.__path__, "structmat.")]
    public = [name for name in found if not any(part.startswith("_") for part in name.split("."))]
    outside = [name for name in public if not any(f"{name}.".startswith(f"{command}.") for command in COMMANDS)]
    return sorted(["structmat", *outside], key=lambda name: (name.count("."), name))


def names() -> dict[str, Any]:
    """Return every public object but modules once, by its shortest public name, as in ``structmat.Circulant``."""
    found: dict[str, Any] = {}
    for module_name in modules():
        module = importlib.import_module(module_name)
        for name in module.__all__:
            value = getattr(module, name)
            if not inspect.ismodule(value) and not any(value is other for other in found.values()):
                found[f"{module_name}.{name}"] = value
    return found


def own_members(value: Any) -> list[str]:
    """Return the full names of the public methods and properties of a class, under the class that defines each.

    One that has no docstring of its own has that of the method which it overrides.
    """
    if not inspect.isclass(value):
        return []
    return [
        f"{cls.__module__}.{cls.__qualname__}.{name}"
        for cls in value.__mro__
        if cls.__module__.partition(".")[0] == "structmat"
        for name, member in vars(cls).items()
        if not name.startswith("_")
        and (isinstance(member, (property, classmethod, staticmethod)) or inspect.isfunction(member))
        and (member.__doc__ or not inspect.getdoc(getattr(cls, name)))
    ]
