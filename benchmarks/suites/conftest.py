"""One thread, and the array libraries that every suite runs on."""

# ruff: noqa: E402  # threads are limited before libraries start them

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))  # for _common

from _common import one_thread

one_thread()

import numpy as np
import pytest
from threadpoolctl import threadpool_limits


class Library(NamedTuple):
    """An array library: how it takes an array of NumPy, and how it runs a function."""

    name: str
    asarray: Callable[[np.ndarray], Any] = np.asarray
    ready: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda function: function
    """Compiles a function where the library does that, and waits for its result."""
    gradient: Callable[[Callable[..., Any], int], Callable[..., Any]] | None = None
    """Makes a function of arrays and the cotangent of its result return its gradients."""


def torch_library() -> Library:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)

    def gradient(function: Callable[..., Any]) -> Callable[..., Any]:
        def gradients(cotangent: Any, *arrays: Any) -> Any:
            leaves = [array.detach().requires_grad_() for array in arrays]
            return torch.autograd.grad(function(*leaves), leaves, cotangent)

        return gradients

    return Library("torch", torch.from_numpy, gradient=gradient)


def jax_library() -> Library:
    jax = pytest.importorskip("jax")
    importlib.import_module("structmat.jax")
    jax.config.update("jax_enable_x64", True)

    def ready(function: Callable[..., Any]) -> Callable[..., Any]:
        compiled = jax.jit(function)
        return lambda *arrays: jax.block_until_ready(compiled(*arrays))

    def gradient(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda cotangent, *arrays: jax.vjp(function, *arrays)[1](cotangent)

    return Library("jax", jax.numpy.asarray, ready, gradient)


MAKERS: dict[str, Callable[[], Library]] = {
    "numpy": lambda: Library("numpy"),
    "torch": torch_library,
    "jax": jax_library,
}


@pytest.fixture(autouse=True, scope="session")
def threads() -> Iterator[None]:
    """Limit the libraries that pytest's plugins had started before this file was read."""
    with threadpool_limits(1):
        yield


@pytest.fixture(params=MAKERS)
def library(request: pytest.FixtureRequest) -> Library:
    return MAKERS[request.param]()


@pytest.fixture(params=["torch", "jax"])
def differentiable(request: pytest.FixtureRequest) -> Library:
    return MAKERS[request.param]()


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> str:
    return request.param


class Check:
    """Times a function in a group, and compares its result with the right one."""

    def __init__(self, benchmark: Any) -> None:
        self.benchmark = benchmark

    def __call__(self, group: str, expected: np.ndarray, function: Callable[..., Any], *arrays: Any) -> None:
        self.benchmark.group = group
        result = np.asarray(self.benchmark(function, *arrays))
        assert result.dtype == expected.dtype
        error = np.linalg.norm(result - expected) / np.linalg.norm(expected)
        assert error < 1e3 * np.finfo(expected.dtype).eps


@pytest.fixture
def check(benchmark: Any) -> Check:
    return Check(benchmark)
