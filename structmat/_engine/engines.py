"""Which engine transforms arrays, and by which method.

For NumPy arrays `scipy.fft` is always there. With the extra ``fast`` ducc0 takes over where it measured faster. There
is no global switch: a size, a dtype and a number of vectors have one engine, unless an operator was prepared for a
given one.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Literal, NamedTuple, TypeAlias

from structmat._arrays.errors import ArgumentValueError
from structmat._engine.measured_choices import CHOICES, DUCC, PLAIN, SCIPY, SCIPY_CONVOLUTION, STEPS, TORCH

__all__ = ["Engine", "Settings", "choices", "ducc", "method_for", "require_engine"]

Engine: TypeAlias = Literal["auto", "scipy", "ducc0"]


class Settings(NamedTuple):
    """How products are to be computed."""

    engine: Engine = "auto"
    ready: bool = False
    """Whether for many products, so that what they share is to be computed once."""


@cache
def ducc() -> Any:
    """Return ``ducc0.fft`` where the extra ``fast`` is installed, else None."""
    try:
        import ducc0.fft  # noqa: PLC0415  # optional, and not needed before the first product
    except ImportError:
        return None
    return ducc0.fft


def require_engine(engine: str, owner: str) -> None:
    """Raise where `engine` is none, or not installed."""
    if engine not in {"auto", "scipy", "ducc0"}:
        raise ArgumentValueError(owner, "engine", f'must be "auto", "scipy" or "ducc0", got {engine!r}')
    if engine == "ducc0" and ducc() is None:
        raise ImportError(f'{owner}: engine="ducc0" needs the extra "fast": pip install "structmat[fast]"')


def choices(dtype: str, engine: str = "auto", *, batched: bool) -> tuple[tuple[float, str], ...]:
    """Return the methods for one vector or a batch, each up to its largest length."""
    if engine == "auto":
        engine = "ducc0" if ducc() else "scipy"
        return CHOICES[engine, dtype, batched]
    table = CHOICES.get((engine, dtype, batched), ((math.inf, TORCH),))
    return tuple((limit, DUCC if name == SCIPY else name) for limit, name in table) if engine == "ducc0" else table


def method_for(engine: str, dtype: str, length: int, *, batched: bool, once: bool = False) -> str:
    """Return the method for convolutions of that length, or for one to be done `once` the one without preparation.

    The four-step method stands for plain transforms where the length does not divide into columns.
    """
    method = next(method for limit, method in choices(dtype, engine, batched=batched) if length <= limit)
    return PLAIN[method] if once and method in {*STEPS, SCIPY_CONVOLUTION} else method
