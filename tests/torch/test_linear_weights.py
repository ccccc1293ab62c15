"""`linear_weights`: what adapters of a model can change, with the way in which each matrix is stored."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from structmat.torch import LinearWeight, linear_weights
from tests.peft import tiny


def test_layers_are_told_but_not_those_that_are_never_called():
    attention = torch.nn.MultiheadAttention(4, 2)
    model = torch.nn.ModuleDict(
        {"up": torch.nn.Linear(4, 6), "attention": attention, "table": torch.nn.Embedding(3, 4)}
    )
    assert linear_weights(model) == {"up": LinearWeight((6, 4), transposed=False)}
    with torch.device("meta"):
        assert linear_weights(torch.nn.Sequential(torch.nn.Linear(5, 3)))["0"].shape == (3, 5)
    with pytest.raises(TypeError, match="linear_weights: model must be a torch"):
        linear_weights("model")


@pytest.mark.parametrize(("kind", "transposed"), [("mixtral", False), ("gpt_oss", True)])
def test_stacks_of_experts_are_told_as_they_are_stored(kind, transposed):
    pytest.importorskip("transformers")
    model = tiny.model(kind)
    found = {path: held for path, held in linear_weights(model).items() if held.n_experts is not None}
    assert found
    for path, held in found.items():
        assert (held.n_experts, *held.shape) == tuple(model.get_parameter(path).shape)
        assert held.transposed == transposed


def test_gpt2_stores_weights_as_inputs_by_outputs():
    pytest.importorskip("transformers")
    model = tiny.model("gpt2")
    found = {path: held for path, held in linear_weights(model).items() if held.transposed}
    assert any(path.endswith("c_attn") for path in found)
    assert all(tuple(model.get_parameter(f"{path}.weight").shape) == held.shape for path, held in found.items())
