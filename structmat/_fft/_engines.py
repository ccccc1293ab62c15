"""Which engine transforms NumPy arrays, and its transforms.

`scipy.fft` is always there. With the extra ``fast`` ducc0 takes over where it measured faster. There is no global
switch: a size, a dtype and a number of vectors have one engine, unless an operator was prepared for a given one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import scipy

from structmat._fft._table import ALIAS, CHOICES, CHUNK, DUCC, FEWEST, SCIPY

__all__ = [
    "Engine",
    "Settings",
    "choices",
    "convolve_axis",
    "ducc",
    "in_chunks",
    "method_for",
    "require_engine",
    "rows_in_chunk",
    "transforms",
]

Engine: TypeAlias = Literal["auto", "scipy", "ducc0"]
Transform: TypeAlias = Callable[[Any], Any]


class Settings(NamedTuple):
    """How products are to be computed."""

    engine: Engine = "auto"
    workers: int | None = None
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
        raise ValueError(f'{owner}: engine must be "auto", "scipy" or "ducc0", got {engine!r}')
    if engine == "ducc0" and ducc() is None:
        raise ImportError(f"{owner}: ducc0 is not installed; install structmat[fast]")


def choices(dtype: str, engine: Engine = "auto", *, many: bool) -> tuple[tuple[float, str], ...]:
    """Return the methods for one vector or many, each up to its largest length."""
    if engine == "scipy" or ducc() is None:
        return ((math.inf, SCIPY),)
    table = CHOICES[dtype, many]
    return table if engine == "auto" else tuple((limit, DUCC if name == SCIPY else name) for limit, name in table)


def method_for(engine: Engine, dtype: str, length: int, *, many: bool) -> str:
    """Return the method that carries out a convolution of that length."""
    return next(method for limit, method in choices(dtype, engine, many=many) if length <= limit)


def transforms(
    method: str, length: int, workers: int | None, *, real: bool, axis: int = -1
) -> tuple[Transform, Transform]:
    """Return the transform along an axis, which appends zeros up to `length`, and its inverse, which may overwrite."""
    if method == SCIPY:
        fft: Any = scipy.fft  # whose dispatch takes a microsecond more for arguments by name
        if real:
            return (
                lambda x: fft.rfft(x, length, axis, None, False, workers),
                lambda X: fft.irfft(X, length, axis, None, True, workers),
            )
        return (
            lambda x: fft.fft(x, length, axis, None, False, workers),
            lambda X: fft.ifft(X, length, axis, None, True, workers),
        )
    fft, threads = ducc(), workers or 1
    if real:
        return (
            lambda x: fft.r2c(widened(x, length, axis), (axis,), nthreads=threads),
            lambda X: fft.c2r(X, (axis,), length, False, 2, None, threads, True),
        )
    return (
        lambda x: fft.c2c(widened(x, length, axis), (axis,), nthreads=threads),
        lambda X: fft.c2c(X, (axis,), False, 2, X, threads),
    )


def convolve_axis(kernel: Any, x: Any, workers: int | None, out: Any = None) -> Any:
    """Return the circular convolution along the last axis, in `out` if it is given and as long as the kernel."""
    length, convolve, threads = kernel.shape[-1], ducc().convolve_axis, workers or 1
    y = wide = widened(x, length, -1)
    if wide is x:
        y = np.empty_like(x, order="C") if out is None or out.shape[-1] != length else out
    if x.ndim == 1 or x.dtype != np.float32 or length * 4 % ALIAS:
        return convolve(wide, y, x.ndim - 1, kernel, threads)
    for start in range(0, len(x), 8):  # 16 rows at a time, as wide as its registers, would evict one another
        convolve(wide[start : start + 8], y[start : start + 8], 1, kernel, threads)
    return y


def widened(x: Any, length: int, axis: int) -> Any:
    """Return a copy with zeros appended along the first or last axis, or `x` where it has that length."""
    if x.shape[axis] == length:
        return x
    wide = np.zeros((*x.shape[:-1], length) if axis else (length, *x.shape[1:]), x.dtype)
    wide[(..., slice(x.shape[-1])) if axis else slice(len(x))] = x
    return wide


def rows_in_chunk(numbers: int, itemsize: int) -> int:
    """Return how many vectors to transform together when each moves that many numbers."""
    return max(FEWEST, CHUNK // (numbers * itemsize))


def in_chunks(step: Callable[[Any, Any], Any], x: Any, rows: int, size: int, out: Any = None) -> Any:
    """Return ``step(vectors, out)`` of all vectors along the last axis of `x`, `size` of them at a time.

    `rows` is the length of a vector of the result.
    """
    batch = x.shape[:-1]
    x = x.reshape(-1, x.shape[-1])
    if 0 < len(x) <= size and out is None:
        return step(x, None).reshape(*batch, rows)
    flat = np.empty((len(x), rows), x.dtype) if out is None else out.reshape(-1, rows)
    for start in range(0, len(x), size):
        step(x[start : start + size], flat[start : start + size])
    return flat.reshape(*batch, rows)
