"""One adapter replaced in place by that of a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
safetensors = pytest.importorskip("safetensors.torch")

import peft
from peft import PeftModel, get_peft_model
from torch import nn

from structmat.peft import CDDConfig, hotswap_adapter
from structmat.torch import adapt, load_adapter, save_adapter
from tests.peft import tiny
from tests.torch.common import assert_same_state, compiler, state

pytestmark = tiny.QUIET

X = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))


def base() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4), nn.Linear(4, 2)).eval()


def small(name: str = "default", **settings: Any) -> PeftModel:
    config = CDDConfig(**{"target_modules": ["0", "2"], "init_weights": False, **settings})
    return get_peft_model(base(), config, name).eval()


def outputs(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(X)


@compiler
def test_compiled_models_are_not_compiled_again(tmp_path: Path) -> None:
    """Neither by other vectors nor by another alpha or dropout; the parameters are the same objects."""
    others = {
        "plain": small(),
        "alpha": small(alpha=0.3),
        "negative": small(alpha=-2.0, dropout=0.5),
    }
    for name, other in others.items():
        other.save_pretrained(tmp_path / name)
    model = small(alpha=1.5)
    parameters = list(model.parameters())
    compiled = torch.compile(model, backend="eager")
    before = outputs(compiled)
    with torch.compiler.set_stance("fail_on_recompile"):
        for name, other in others.items():
            hotswap_adapter(compiled, tmp_path / name)
            torch.testing.assert_close(outputs(compiled), outputs(other))
            assert not torch.allclose(outputs(compiled), before)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    # What is saved afterwards is what was swapped in.
    model.save_pretrained(tmp_path / "again")
    torch.testing.assert_close(outputs(PeftModel.from_pretrained(base(), tmp_path / "again")), outputs(model))


@pytest.mark.parametrize("alpha", [1.5, 0.3, -2.0])
def test_the_change_is_that_of_the_folder_with_its_alpha(alpha: float, tmp_path: Path) -> None:
    other = small(alpha=alpha)
    other.save_pretrained(tmp_path)
    model = small(alpha=1.5)
    hotswap_adapter(model, tmp_path)
    torch.testing.assert_close(outputs(model), outputs(other))


def test_one_of_several_with_what_was_trained_beside_it(tmp_path: Path) -> None:
    settings = {"modules_to_save": ["classifier"], "target_modules": ["query"], "task_type": "SEQ_CLS"}
    other = tiny.adapted("bert", **settings)
    tiny.train("bert", other)
    other.save_pretrained(tmp_path)
    model = tiny.adapted("bert", **settings)
    model.add_adapter("second", CDDConfig(**settings))
    first = tiny.logits("bert", model)
    hotswap_adapter(model, tmp_path, "second")
    assert torch.equal(tiny.logits("bert", model), first)
    model.set_adapter("second")
    assert torch.equal(tiny.logits("bert", model), tiny.logits("bert", other))


def test_folders_of_structmat_torch_are_taken(tmp_path: Path) -> None:
    plain = base()
    adapt(plain, ["0", "2"], init="normal")
    model = small()
    hotswap_adapter(model, save_adapter(plain, tmp_path))
    torch.testing.assert_close(outputs(model), outputs(plain))


def test_folders_with_few_bits_are_read_as_by_structmat_torch(tmp_path: Path) -> None:
    plain, fresh = base(), base()
    adapt(plain, ["0", "2"], init="normal", alpha=0.3)
    folder = save_adapter(plain, tmp_path, bits=4)
    load_adapter(fresh, folder)
    model = small(alpha=1.5)
    hotswap_adapter(model, folder)
    torch.testing.assert_close(outputs(model), outputs(fresh))
    assert peft.PeftConfig.from_pretrained(str(folder)).alpha == 0.3
    for low_cpu_mem_usage in (False, True):
        loaded = PeftModel.from_pretrained(base(), folder, low_cpu_mem_usage=low_cpu_mem_usage)
        assert torch.equal(outputs(loaded), outputs(fresh))


def test_buffers_may_be_infinite_as_masks_are(tmp_path: Path) -> None:
    def with_mask(value: float) -> PeftModel:
        plain = base()
        plain[3].register_buffer("mask", torch.tensor([0.0, value]))
        return get_peft_model(plain, CDDConfig(target_modules=["0"], modules_to_save=["3"]))

    with_mask(float("-inf")).save_pretrained(tmp_path)
    model = with_mask(0.0)
    hotswap_adapter(model, tmp_path)
    found = model.state_dict()["base_model.model.3.modules_to_save.default.mask"]
    assert torch.isneginf(found).tolist() == [False, True]


def change_first(folder: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Write another tensor in the place of the first diagonal of the first layer."""
    path = folder / "adapter_model.safetensors"
    tensors = safetensors.load_file(path)
    first = min(tensors)
    safetensors.save_file(tensors | {first: change(tensors[first])}, path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block_size": 3}, "holds vectors .* for 0, the model has .*: made for another model, or with other settings"),
        ({"n_factors": 5}, "holds vectors .* for 0, the model has .*: made for another model, or with other settings"),
        ({"target_modules": ["2"]}, r"has other layers than the model: \['0'\]"),
        ({"factor_scale": 7.0}, r"has factor_scale=7\.0, the model 30\.0"),
        ({"modules_to_save": ["3"]}, "holds 3.bias of shape .*, the model has none"),
        ({"first": torch.Tensor.long}, r"vectors\.0 has dtype torch.int64, and vectors torch.float64"),
        ({"first": torch.Tensor.cfloat}, r"vectors\.0 has dtype torch.complex64, and vectors torch.float64"),
        ({"first": lambda vector: vector / 0}, r"folder holds infinity in base_model.*vectors\.0"),
        ({"first": lambda vector: vector * float("nan")}, r"folder holds NaN in base_model.*vectors\.0"),
        ({"cut": True}, "holds weights that are cut off or damaged: .*; copy or download them again"),
        ({"lora": True}, "no complete adapter of this method: the method is .*LORA"),
    ],
)
def test_what_does_not_fit_changes_nothing(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    if "lora" in settings:
        get_peft_model(base(), peft.LoraConfig(target_modules=["0"])).save_pretrained(tmp_path)
    else:
        small(**{key: value for key, value in settings.items() if key not in {"first", "cut"}}).save_pretrained(
            tmp_path
        )
    if "first" in settings:
        change_first(tmp_path, settings["first"])
    if "cut" in settings:
        weights = tmp_path / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
    model = small()
    before = state(model)
    with pytest.raises(ValueError, match=message):
        hotswap_adapter(model, tmp_path)
    assert_same_state(before, model)


def test_models_and_adapters_that_cannot_be_swapped(tmp_path: Path) -> None:
    model = small()
    model.save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="model must be a model of PEFT, got Sequential"):
        hotswap_adapter(base(), tmp_path)
    with pytest.raises(ValueError, match="adapter_name must be one of this method, default, got 'nobody'"):
        hotswap_adapter(model, tmp_path, "nobody")
    with pytest.raises(ValueError, match=r"has alpha=1\.0, the adapter in the model 0"):
        hotswap_adapter(small(alpha=0.0), tmp_path)
    with pytest.raises(ValueError, match=r"folder lacks 3\.bias, 3\.weight, which the adapter has"):
        hotswap_adapter(small(modules_to_save=["3"]), tmp_path)
    model.merge_adapter()
    with pytest.raises(ValueError, match="'default' is merged into the weights now"):
        hotswap_adapter(model, tmp_path)
