"""Settings of the whole suite, and the `backend` fixture."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import backends

os.environ["HF_HUB_OFFLINE"] = "1"  # no test needs a model of the Hub, and some look for one

settings.register_profile(
    "ci", max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
# Each run draws other examples, so that a few are enough between two edits.
settings.register_profile("dev", max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile("ci" if os.environ.get("CI") else "dev")

SCIPY_MARKERS = (
    "array_api_backends", "fail_slow", "iterations", "parallel_threads", "parallel_threads_limit", "skip_xp_backends",
    "thread_unsafe", "timeout", "uses_xp_capabilities", "xfail_on_32bit", "xfail_xp_backends", "xslow",
)  # fmt: skip


XLA_FLAGS = ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")


def knows_xla_flags(jaxlib: str) -> bool:
    """Whether that version was seen to have these flags: at one that it does not know XLA ends the process."""
    return (0, 7) <= tuple(map(int, jaxlib.split(".")[:2])) <= (0, 10)


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in what a shell runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.pluginmanager.hasplugin("cacheprovider"):  # keeps what JAX compiles, for both workers and the next run
        assert config.cache is not None
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("jax")))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    # Most of the time of tests of JAX is the compiler's, for code that runs once. It optimises less here, and makes the
    # code of fusions as earlier versions did, all kernels of a program together: that takes half of the time.
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    if importlib.util.find_spec("jaxlib") and knows_xla_flags(version("jaxlib")):
        os.environ.setdefault("XLA_FLAGS", " ".join(XLA_FLAGS))
    for name in SCIPY_MARKERS:  # some tests of SciPy are run on our operators, and import with its markers
        config.addinivalue_line("markers", f"{name}: a marker of SciPy's test suite")


def pytest_sessionstart() -> None:
    """Collect no garbage while modules are imported, of which a quarter of the time would go there."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave out of collections of garbage what imports have allocated: going through it takes seconds."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def _compiled_functions() -> Iterator[None]:
    """Forget after each file what JAX compiled: gigabytes in the whole suite."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


@pytest.fixture(autouse=True)
def _compiled_graphs() -> Iterator[None]:
    """Forget after each test what torch compiled: eight graphs of one function at most, and layers share theirs."""
    yield
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()


@pytest.fixture(params=backends.ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[None]:
    with backends.by_engine(request.param):
        yield


@pytest.fixture(params=backends.TESTED)
def backend(request: pytest.FixtureRequest) -> backends.Backend:
    return backends.get(request.param)


@pytest.fixture
def half(backend: backends.Backend) -> Any:
    """The half precision that a library computes in."""
    if backend.half is None:
        pytest.skip("the library has no half precision")
    return backend.dtype(backend.half)
