"""The array libraries that every law runs on."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from structmat._fourier import engines
from tests.operators.outsiders import OUTSIDERS

COMPILE = {"jax"}
"""The libraries that compile each operation for each shape, and whose arrays cannot be changed."""

SLOW = {*COMPILE, "array_api_strict"}
"""The libraries on which laws keep to one entry of each class.

Array_api_strict compares each call with the standard, which takes longer than the operations themselves.
"""


@dataclass(frozen=True)
class Backend:
    """One array library: conversions from and to NumPy, and what it is able to do."""

    name: str
    xp: Any
    asarray: Callable[[np.ndarray], Any]
    to_numpy: Callable[[Any], np.ndarray]
    examples: int
    half: Any = None

    @property
    def compiles(self) -> bool:
        """Whether it compiles each operation anew for each shape, so that a law keeps to few of them."""
        return self.name in COMPILE

    def dtype(self, name: str) -> Any:
        return getattr(self.xp, name)

    def cast(self, array: Any, dtype: Any) -> Any:
        return array.to(dtype) if self.name == "torch" else array.astype(dtype)


def _numpy() -> Backend:
    return Backend("numpy", np, np.array, np.asarray, examples=16, half="float16")


def _torch() -> Backend:
    torch = importlib.import_module("torch")
    return Backend("torch", torch, lambda a: torch.from_numpy(np.array(a)), lambda t: t.numpy(), 6, half="bfloat16")


def _jax() -> Backend:
    jax = importlib.import_module("jax")
    jax.config.update("jax_enable_x64", True)
    register = importlib.import_module("structmat.jax").register_operator
    for kind in OUTSIDERS:
        register(kind)
    return Backend("jax", jax.numpy, jax.numpy.asarray, np.asarray, examples=1, half="bfloat16")


def _strict() -> Backend:
    strict = importlib.import_module("array_api_strict")
    return Backend(
        "array_api_strict",
        strict,
        lambda a: strict.asarray(np.array(a)),
        lambda a: np.asarray(a._array),
        examples=4,
    )


def _cupy() -> Backend:
    cupy = importlib.import_module("cupy")
    return Backend("cupy", cupy, cupy.asarray, cupy.asnumpy, examples=10, half="float16")


FACTORIES = {"numpy": _numpy, "torch": _torch, "jax": _jax, "array_api_strict": _strict, "cupy": _cupy}


def has_gpu() -> bool:
    """Whether CuPy is installed and has a device."""
    if importlib.util.find_spec("cupy") is None:
        return False
    runtime = importlib.import_module("cupy").cuda.runtime
    try:
        return runtime.getDeviceCount() > 0
    except runtime.CUDARuntimeError:  # no driver
        return False


TESTED = [name for name in FACTORIES if name != "cupy" or has_gpu()]
"""The libraries that tests of every library run on: without a GPU CuPy is none."""


@cache
def get(name: str) -> Backend:
    """Return a backend, or skip the test where its library is missing."""
    try:
        return FACTORIES[name]()
    except Exception as error:
        if name == "numpy":
            raise
        pytest.skip(f"{name}: {error}")


def on(*libraries: str) -> pytest.MarkDecorator:
    """Run a test with the backends of some libraries alone."""
    return pytest.mark.parametrize("backend", libraries, indirect=True)


ENGINES = ("scipy", "ducc0") if engines.ducc() else ("scipy",)


@contextmanager
def by_engine(name: str) -> Iterator[None]:
    """Let what is prepared meanwhile transform NumPy arrays by one engine: "scipy" as where ducc0 is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        if name == "scipy":
            patch.setattr(engines, "ducc", lambda: None)
        yield


def along_last_axis(function: Any, A: Any, b: Any, **options: Any) -> Any:
    """Return ``sm.solve`` or ``sm.lstsq`` of vectors along the last axis, each the one column of a matrix."""
    if np.ndim(b) == 1:
        return function(A, b, **options)
    found = function(A, b[..., None], **options)
    return found._replace(x=found.x[..., 0], residual=found.residual[..., 0])
