"""Calls of a module while its forward pass or its parameters are replaced, where engines have made parameters whole.

Hooks of a module, and what FSDP, DeepSpeed and accelerate put around its forward pass, gather its parameters for the
time of the call, or bring them from elsewhere. What is to be read or replaced is read and replaced inside of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from structmat.torch._layers.base_weight import owner_of

__all__ = ["forward_replaced", "replaced"]

_LOCKS: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
"""A lock for each module that was called: what one thread puts into it is not for others, which wait."""


@contextmanager
def forward_replaced(module: nn.Module, changed: Callable[..., Any]) -> Iterator[None]:
    """Let `changed` take the place of the innermost forward pass of a module, which it gets as its first argument."""
    # That of accelerate calls the one that it has replaced itself.
    name = "_old_forward" if "_old_forward" in vars(module) else "forward"
    with replaced(module, {name: partial(changed, getattr(module, name))}):
        yield


@contextmanager
def replaced(module: nn.Module, values: Mapping[str, Any]) -> Iterator[None]:
    """Let attributes of a module, or of its parts by their paths, have other values than its methods and parameters.

    The module keeps these: attributes that an object has itself are not looked up among them.
    """
    with _LOCKS.setdefault(module, RLock()):
        places = {path: owner_of(module, path) for path in values}
        before = {path: vars(owner)[name] for path, (owner, name) in places.items() if name in vars(owner)}
        for path, (owner, name) in places.items():
            vars(owner)[name] = values[path]
        try:
            yield
        finally:
            for path, (owner, name) in places.items():
                if path in before:
                    vars(owner)[name] = before[path]
                else:
                    vars(owner).pop(name, None)
