"""Options that do not exist: who comes from LoRA is told what stands in their place."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from structmat.torch import CDDLinear, adapt
from tests.torch.common import assert_same_state, state


@pytest.mark.parametrize(("option", "text"), [
    ("r", r"r \(there is no rank: n_factors and block_size set"),
    ("lora_dropout", r"lora_dropout \(here dropout\)"),
    ("use_rslora", r"use_rslora \(not needed"),
    ("modules_to_save", r"modules_to_save \(here train, of adapt\)"),
    ("init_weights", r"init_weights \(here init\)"),
    ("n_factor", r"n_factor \(did you mean n_factors\?\)"),
    ("xyz", "xyz; there are n_factors, block_size, alpha, init, gradient, mode, dropout, dtype, device"),
])  # fmt: skip
def test_an_option_that_does_not_exist(net, option, text):
    before = state(net)
    with pytest.raises(TypeError, match=f"CDDLinear: got an unexpected keyword argument: {text}"):
        adapt(net, **{option: 1})
    assert_same_state(before, net)
    with pytest.raises(TypeError, match=text):
        CDDLinear(4, 4, **{option: 1})
    with pytest.raises(TypeError, match=text):
        CDDLinear(4, 4).add_adapter("second", **{option: 1})
