"""Settings of the whole suite, and the `backend` fixture."""

from __future__ import annotations

import os
import pkgutil

import pytest
from _pytest.doctest import DoctestItem
from hypothesis import HealthCheck, settings

from tests import backends

os.environ["HF_HUB_OFFLINE"] = "1"  # no test needs a model of the Hub, and some look for one

settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
settings.register_profile("dev", deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile("ci" if os.environ.get("CI") else "dev")

SCIPY_MARKERS = (
    "array_api_backends", "fail_slow", "iterations", "parallel_threads", "parallel_threads_limit", "skip_xp_backends",
    "slow", "thread_unsafe", "timeout", "uses_xp_capabilities", "xfail_on_32bit", "xfail_xp_backends", "xslow",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    for name in SCIPY_MARKERS:  # some tests of SciPy are run on our operators, and import with its markers
        config.addinivalue_line("markers", f"{name}: a marker of SciPy's test suite")


def inherited(item: pytest.Item) -> bool:
    """Whether a doctest is of a method that a class of ours has from another library, such as `torch.nn.Module.to`."""
    if not isinstance(item, DoctestItem):
        return False
    owner = getattr(pkgutil.resolve_name(item.name), "__module__", None)
    return owner is not None and owner.partition(".")[0] != "structmat"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep our own doctests, in a fixed order: scipy-doctest collects from sets, and parallel workers must agree."""
    items[:] = [item for item in items if not inherited(item)]
    items.sort(key=lambda item: (str(item.path), item.nodeid if isinstance(item, DoctestItem) else ""))


@pytest.fixture(params=list(backends.FACTORIES))
def backend(request: pytest.FixtureRequest) -> backends.Backend:
    return backends.get(request.param)
