"""Tables that one test goes through, where their cases take the same way through the code."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pytest


def name_of(value: Any) -> str:
    """Return the name that a value has itself, such as that of an entry of a registry, or what Python shows of it."""
    name = getattr(value, "name", None)
    return name if isinstance(name, str) else repr(value)


def in_one_test(name: str, values: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test for each value of one argument, or of several with commas between their names, as one item.

    This is `pytest.mark.parametrize` for cases that take milliseconds: collecting, setting up and reporting an item
    takes as long. What fails says for which values. It skips where each case would.

    A fixture is one for all cases, so that it must not keep what a case has changed.
    """
    names = [part.strip() for part in name.split(",")]
    cases = [dict(zip(names, value if len(names) > 1 else (value,), strict=True)) for value in values]

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(*args: Any, **given: Any) -> None:
            skipped = []
            for case in cases:
                try:
                    test(*args, **given, **case)
                except pytest.skip.Exception as reason:
                    skipped.append(reason)
                except Exception as error:
                    error.add_note(", ".join(f"{name} = {name_of(value)}" for name, value in case.items()))
                    raise
            if len(skipped) == len(cases):
                raise skipped[0]

        signature = inspect.signature(test)
        others = [parameter for each, parameter in signature.parameters.items() if each not in names]
        run.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]
        return run

    return decorate
