"""Fixtures of several files."""

from __future__ import annotations

import pytest


@pytest.fixture
def net():
    torch = pytest.importorskip("torch")
    from tests.torch.models import Net

    torch.manual_seed(0)
    return Net()
