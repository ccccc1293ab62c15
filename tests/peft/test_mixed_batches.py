"""Batches whose samples have adapters of their own."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")


from structmat.peft import CDDConfig
from tests.peft import tiny
from tests.peft.tiny import adapted, logits

pytestmark = tiny.QUIET


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_mixed_batches(kind: str) -> None:
    model = adapted(kind, init_weights=False).eval()
    model.add_adapter("other", CDDConfig(target_modules=tiny.TARGETS[kind][:1], init_weights=False))
    hooks = [len(m._forward_pre_hooks) for m in model.modules()]
    with torch.no_grad():
        mixed = model(**tiny.inputs(kind), adapter_names=["other", "__base__", "default"]).logits
    for index, name in enumerate(["other", "__base__", "default"]):
        if name == "__base__":
            with model.disable_adapter():
                alone = logits(kind, model)
        else:
            model.set_adapter(name)
            alone = logits(kind, model)
        torch.testing.assert_close(mixed[index], alone[index])
    with pytest.raises(ValueError, match="non-existing adapter"):
        model(**tiny.inputs(kind), adapter_names=["other", "__base__", "nobody"])
    with pytest.raises(ValueError, match="Length of `adapter_names`"):
        model(**tiny.inputs(kind), adapter_names=["other"])
    assert [len(m._forward_pre_hooks) for m in model.modules()] == hooks


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_mixed_batches_with_beam_search(kind: str) -> None:
    model = adapted(kind, init_weights=False, alpha=3.0).eval()
    model.add_adapter("other", CDDConfig(target_modules=tiny.TARGETS[kind], init_weights=False, alpha=3.0))
    inputs = {"input_ids": tiny.inputs(kind)["input_ids"]}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    settings = dict(num_beams=3, max_new_tokens=6, min_new_tokens=6, do_sample=False)
    names = ["default", "__base__", "other"]
    mixed = model.generate(**inputs, **settings, adapter_names=names)
    outputs = []
    for index, name in enumerate(names):
        if name == "__base__":
            with model.disable_adapter():
                outputs.append(model.generate(**inputs, **settings)[index])
        else:
            model.set_adapter(name)
            outputs.append(model.generate(**inputs, **settings)[index])
    assert torch.equal(mixed, torch.stack(outputs))
    assert not torch.equal(outputs[0], outputs[1])
