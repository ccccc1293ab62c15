"""Changes of some parts of fused layers, such as GPT-2's `c_attn`, in PEFT."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from peft import PeftConfig, PeftModel, get_peft_model

from structmat.peft import CDDConfig, hotswap_adapter
from structmat.torch import load_adapter
from tests.peft import tiny

pytestmark = tiny.QUIET

TARGETS, PARTS = ["c_attn", "mlp.c_fc"], {"c_attn": [True, False, True]}


def test_queries_and_values_train_are_saved_and_merged_and_keys_stay(tmp_path: Path) -> None:
    model = tiny.adapted("gpt2", target_modules=TARGETS, parts=PARTS)
    layer = model.base_model.model.transformer.h[0].attn.c_attn
    tiny.train("gpt2", model, 3)
    changed = layer.get_delta_weight("default")  # of Conv1D (in, out)
    assert changed.shape == layer.weight.shape == (16, 48)
    assert not changed[:, 16:32].any()
    assert changed[:, :16].any()
    assert changed[:, 32:].any()
    expected = tiny.logits("gpt2", model)
    model.save_pretrained(tmp_path)
    assert PeftConfig.from_pretrained(tmp_path).parts == PARTS
    theirs = PeftModel.from_pretrained(tiny.model("gpt2"), tmp_path)
    assert torch.equal(tiny.logits("gpt2", theirs), expected)
    ours = tiny.model("gpt2")
    load_adapter(ours, tmp_path)
    torch.testing.assert_close(tiny.logits("gpt2", ours), expected)
    before = layer.weight.detach().clone()
    model.merge_adapter(safe_merge=True)
    torch.testing.assert_close(layer.weight, before + changed)
    torch.testing.assert_close(tiny.logits("gpt2", model), expected)
    model.unmerge_adapter()
    assert torch.equal(layer.weight, before)


def test_adapters_with_other_parts_mix_and_are_not_taken_for_each_other(tmp_path: Path) -> None:
    settings = dict(target_modules=TARGETS, init_weights=False)
    model = get_peft_model(tiny.model("gpt2"), CDDConfig(**settings, parts=PARTS)).eval()
    other = CDDConfig(**settings, parts={"c_attn": [False, True, True]})
    model.add_adapter("other", other)
    alone = {}
    for name in ("default", "other"):
        model.set_adapter(name)
        alone[name] = tiny.logits("gpt2", model)
    mixed = model(**tiny.inputs("gpt2"), adapter_names=["other", "default", "other"]).logits
    expected = [alone["other"][0], alone["default"][1], alone["other"][2]]
    torch.testing.assert_close(mixed, torch.stack(expected))
    model.add_weighted_adapter(["default"], [-1.0], "negated")
    layer = model.base_model.model.transformer.h[1].attn.c_attn
    torch.testing.assert_close(layer.get_delta_weight("negated"), -layer.get_delta_weight("default"))
    model.add_weighted_adapter(["default", "negated"], [1.0, 3.0], "sum", combination_type="cat")
    torch.testing.assert_close(layer.get_delta_weight("sum"), -2 * layer.get_delta_weight("default"))
    with pytest.raises(ValueError, match='have other parts of the rows than others; combination_type="cat" adds'):
        model.add_weighted_adapter(["default", "other"], [1.0, 1.0], "more", combination_type="linear")
    model.add_weighted_adapter(["default", "other"], [2.0, -1.0], "more", combination_type="cat")
    first, second = (layer.get_delta_weight(name) for name in ("default", "other"))
    torch.testing.assert_close(layer.get_delta_weight("more"), 2 * first - second)
    model.add_weighted_adapter(["more", "default"], [1.0, -2.0], "rest", combination_type="cat")
    torch.testing.assert_close(layer.get_delta_weight("rest"), -second)
    model.set_adapter("more")
    expected = tiny.logits("gpt2", model)
    model.save_pretrained(tmp_path / "sums", selected_adapters=["more", "rest"])
    loaded = PeftModel.from_pretrained(tiny.model("gpt2"), tmp_path / "sums" / "more")
    assert torch.equal(tiny.logits("gpt2", loaded), expected)
    with pytest.raises(ValueError, match="is a sum of adapters of other settings"):
        hotswap_adapter(loaded, tmp_path / "sums" / "rest")
    torch.testing.assert_close(tiny.logits("gpt2", loaded.merge_and_unload()), expected, atol=1e-5, rtol=1e-4)
    model.set_adapter("default")
    model.save_pretrained(tmp_path, selected_adapters=["default", "other"])
    hotswap_adapter(model, tmp_path, "default")
    with pytest.raises(ValueError, match=r"has other parts of .*c_attn than the adapter in the model"):
        hotswap_adapter(model, tmp_path / "other", "default")


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="CDDConfig: parts must choose some of several parts"):
        CDDConfig(parts={"c_attn": [True]})
    with pytest.warns(RuntimeWarning, match="parts name c_proj, which no layer with the adapter default is called"):
        get_peft_model(tiny.model("gpt2"), CDDConfig(target_modules=TARGETS, parts={"c_proj": [1, 0]}))
    with pytest.raises(ValueError, match=r"parts are 5, which do not divide 48 rows .*, in transformer\.h\.0\.attn"):
        get_peft_model(tiny.model("gpt2"), CDDConfig(target_modules=TARGETS, parts={"c_attn": [1, 0, 0, 0, 0]}))
