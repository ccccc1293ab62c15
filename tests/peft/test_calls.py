"""An adapter is thin: what is done for every layer and every token calls few functions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from peft import get_peft_model
from torch import nn

from structmat.peft import CDDConfig
from structmat.torch import CDDLinear
from tests.peft import tiny

pytestmark = tiny.QUIET


def calls(function: Callable[[], Any]) -> int:
    """Return how many functions of this package and of PEFT a second call of a function calls."""
    count = 0

    def note(frame: FrameType, event: str, _: Any) -> None:
        nonlocal count
        name = frame.f_globals.get("__name__", "")
        count += event == "call" and name.partition(".")[0] in {"structmat", "peft"}

    function()
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def adapted() -> Any:
    """Return a model of PEFT with four adapted layers."""
    torch.manual_seed(0)
    base = nn.Sequential(*[nn.Linear(16, 16) for _ in range(4)])
    return get_peft_model(base, CDDConfig(target_modules=["0", "1", "2", "3"], init_weights=False))


def test_a_forward_pass_calls_fifteen_functions() -> None:
    layer, x = CDDLinear.from_linear(nn.Linear(16, 16), init="normal"), torch.randn(5, 16)
    assert calls(lambda: layer(x)) <= 15


def test_a_forward_pass_of_four_layers_in_peft_calls_ninety() -> None:
    model, x = adapted(), torch.randn(5, 16)
    assert calls(lambda: model(x)) < 90


def test_adapting_four_layers_in_peft_calls_seven_hundred() -> None:
    assert calls(adapted) < 700


def test_merging_and_unmerging_four_layers_in_peft_calls_two_hundred() -> None:
    model = adapted()

    def merge_and_unmerge() -> None:
        model.merge_adapter()
        model.unmerge_adapter()

    assert calls(merge_and_unmerge) < 200
