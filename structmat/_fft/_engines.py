"""Circular convolutions of NumPy arrays, and the choice of the engine that carries one out.

`scipy.fft` is always there. With the extra ``fast`` ducc0 takes over where `benchmarks/engine_table.py` measured it
faster. There is no global switch: a size, a dtype and a number of vectors have
one engine, unless an operator was prepared for a given one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import scipy

from structmat._fft._table import CHOICES, CHUNK, DUCC, DUCC_CONVOLUTION, SCIPY

__all__ = ["METHODS", "Engine", "Kernel", "Settings", "choices", "ducc", "in_chunks", "method_for", "require_engine"]

Engine: TypeAlias = Literal["auto", "scipy", "ducc0"]


class Settings(NamedTuple):
    """How products are to be computed."""

    engine: Engine = "auto"
    workers: int | None = None
    ready: bool = False
    """Whether for many products, so that spectra are to be computed once."""


class Kernel(Protocol):
    """What an engine has to know of a convolution of which the first ``shape[0]`` entries are wanted."""

    @property
    def kernel(self) -> Any: ...
    @property
    def spectrum(self) -> Any: ...
    @property
    def length(self) -> int: ...
    @property
    def shape(self) -> Any: ...
    @property
    def real(self) -> bool: ...
    @property
    def how(self) -> Settings: ...


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


def method_for(engine: Engine, dtype: str, length: int, *, many: bool, has_kernel: bool = True) -> str:
    """Return the method that carries out a convolution of that length."""
    method = next(name for limit, name in choices(dtype, engine, many=many) if length <= limit)
    return DUCC if method == DUCC_CONVOLUTION and not has_kernel else method


Method: TypeAlias = Callable[[Kernel, Any, Any], Any]
"""Returns the entries wanted of the convolution with one vector or the rows of a matrix, in the last argument if given."""


def _scipy(k: Kernel, x: Any, out: Any) -> Any:
    if k.real:
        X = scipy.fft.rfft(x, k.length, workers=k.how.workers)
        X *= k.spectrum
        y = scipy.fft.irfft(X, k.length, overwrite_x=True, workers=k.how.workers)
    else:
        X = scipy.fft.fft(x, k.length, workers=k.how.workers)
        X *= k.spectrum
        y = scipy.fft.ifft(X, overwrite_x=True, workers=k.how.workers)
    return _cropped(y, k, out)


def _ducc(k: Kernel, x: Any, out: Any) -> Any:
    fft, axes, threads = ducc(), (x.ndim - 1,), 1 if k.how.workers is None else k.how.workers
    x = _padded(x, k.length)
    whole = out if k.shape[0] == k.length else None
    if k.real:
        X = fft.r2c(x, axes, nthreads=threads)
        X *= k.spectrum
        y = fft.c2r(X, axes, k.length, False, 2, whole, threads, True)
    else:
        X = fft.c2c(x, axes, nthreads=threads)
        X *= k.spectrum
        y = fft.c2c(X, axes, False, 2, X, threads)
    return y if whole is not None and k.real else _cropped(y, k, out)


def _ducc_convolution(k: Kernel, x: Any, out: Any) -> Any:
    padded = _padded(x, k.length)
    if padded is not x:
        y = padded  # scratch of our own
    elif out is not None and k.shape[0] == k.length:
        y = out
    else:
        y = np.empty(x.shape, x.dtype)
    ducc().convolve_axis(padded, y, x.ndim - 1, k.kernel, 1 if k.how.workers is None else k.how.workers)
    return y if y is out else _cropped(y, k, out)


METHODS: dict[str, Method] = {SCIPY: _scipy, DUCC: _ducc, DUCC_CONVOLUTION: _ducc_convolution}


def _padded(x: Any, length: int) -> Any:
    if x.shape[-1] == length:
        return x
    wide = np.zeros((*x.shape[:-1], length), x.dtype)
    wide[..., : x.shape[-1]] = x
    return wide


def _cropped(y: Any, k: Kernel, out: Any) -> Any:
    """Return the entries that are wanted, without keeping the memory of the others."""
    rows = k.shape[0]
    if out is not None:
        out[...] = y[..., :rows]
        return out
    return y if rows == k.length else y[..., :rows].copy()


def in_chunks(step: Callable[[Any, Any], Any], x: Any, rows: int, width: int, out: Any = None) -> Any:
    """Return ``step(vectors, out)`` of all vectors along the last axis of `x`, chunk by chunk.

    `width` is the number of bytes that the step moves for one vector, `rows` the length of a vector of the result.
    """
    batch = x.shape[:-1]
    x = x.reshape(-1, x.shape[-1])
    size = max(1, CHUNK // width)
    if 0 < len(x) <= size and out is None:
        return step(x, None).reshape(*batch, rows)
    flat = np.empty((len(x), rows), x.dtype) if out is None else out.reshape(-1, rows)
    for start in range(0, len(x), size):
        step(x[start : start + size], flat[start : start + size])
    return flat.reshape(*batch, rows)
