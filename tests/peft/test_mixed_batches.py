"""Batches in which samples have adapters of their own: by `adapter_names`, and by a bank, in models of transformers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("transformers")

from peft import PeftModel, get_peft_model
from torch import nn
from torch.utils.checkpoint import checkpoint

from structmat.peft import CDDConfig
from structmat.torch import AdapterBank, adapt, load_adapter
from tests.peft import tiny

pytestmark = tiny.QUIET
NAMES = ["one", "__base__", "two", "one"]


def several(names: str = "one two", dtype: Any = torch.float64, **settings: Any) -> PeftModel:
    """Return a model of two layers with several adapters, of which no two are alike."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 4)).to(dtype)
    config = CDDConfig(target_modules=["0", "2"], init_weights=False, **settings)
    first, *others = names.split()
    model = get_peft_model(base, config, first)
    for i, name in enumerate(others):
        model.add_adapter(name, CDDConfig(**{**config.to_dict(), "alpha": 0.5 + i}))
    return model.eval()


def alone(model: PeftModel, x: torch.Tensor, names: list[str]) -> torch.Tensor:
    """Return the outputs of each sample with its adapter alone."""
    found = []
    for i, name in enumerate(names):
        if name == "__base__":
            with model.disable_adapter():
                found.append(model(x[i]))
        else:
            model.base_model.set_adapter(name)
            found.append(model(x[i]))
    return torch.stack(found)


def test_samples_get_their_adapters_by_as_many_transforms_as_one_adapter_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = several("one two three four")
    x = torch.randn(6, 3, 6, dtype=torch.float64)
    calls, rfft = [], torch.fft.rfft
    monkeypatch.setattr(torch.fft, "rfft", lambda *args, **kwargs: calls.append(args) or rfft(*args, **kwargs))
    counts = []
    for names in (["one", "two"] * 3, ["one", "two", "three", "four", "__base__", "one"]):
        expected = alone(model, x, names)
        calls.clear()
        torch.testing.assert_close(model(x, adapter_names=names), expected)
        counts.append(len(calls))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("by_data", [False, True])
def test_tokens_of_one_generation_follow_the_adapters(by_data: bool) -> None:
    """Writing through `data` does not count in the versions of torch, and is seen all the same."""
    model = several()
    x = torch.randn(4, 6, dtype=torch.float64)
    layer = model.base_model.model[0]
    with torch.no_grad(), model.base_model._enable_peft_forward_hooks(adapter_names=NAMES):
        first = layer(x)
        assert torch.equal(layer(x), first)
        vector = layer.cdd_adapters["two"].vectors[1]
        (vector.data if by_data else vector).mul_(2)
        second = layer(x)
        layer.set_scale("one", 3.0)
        third = layer(x)
    assert [torch.equal(a, b) for a, b in zip(first, second, strict=True)] == [True, True, False, True]
    assert [torch.equal(a, b) for a, b in zip(second, third, strict=True)] == [False, True, True, False]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-6)])
def test_training_is_that_of_separate_runs_with_learning_rates_of_their_own(dtype: Any, tolerance: float) -> None:
    rates = {"one": 1e-3, "two": 1e-2}
    mixed, apart = several(dtype=dtype), several(dtype=dtype)
    mixed.train().base_model.set_adapter(list(rates))
    groups = [
        {"params": [p for key, p in mixed.named_parameters() if f".{name}." in key], "lr": rate}
        for name, rate in rates.items()
    ]
    optimizer = torch.optim.AdamW(groups)
    others = {}
    for name, rate in rates.items():
        apart.base_model.set_adapter(name)
        others[name] = torch.optim.AdamW([p for key, p in apart.named_parameters() if f".{name}." in key], lr=rate)
    x, y = torch.randn(4, 5, 6, dtype=dtype), torch.randn(4, 5, 4, dtype=dtype)
    for _ in range(3 if dtype == torch.float64 else 1):
        optimizer.zero_grad()
        (mixed(x, adapter_names=NAMES) - y).square().mean((1, 2)).sum().backward()
        for name, other in others.items():
            own = [i for i, each in enumerate(NAMES) if each == name]
            apart.base_model.set_adapter(name)
            other.zero_grad()
            (apart(x[own]) - y[own]).square().mean((1, 2)).sum().backward()
        gradients = dict(apart.named_parameters())
        for key, parameter in mixed.named_parameters():
            if "cdd_" in key:
                wanted = gradients[key].grad
                assert (parameter.grad - wanted).abs().max() <= tolerance * wanted.abs().max()
        optimizer.step()
        for other in others.values():
            other.step()


@pytest.mark.parametrize(("kind", "beams"), [("gpt2", 3), ("llama", 1), ("t5", 3)])
def test_generation_is_that_of_each_sample_alone(kind: str, beams: int, tmp_path: Path) -> None:
    names = ["first", "__base__", "second"]
    config = CDDConfig(target_modules=tiny.TARGETS[kind], init_weights=False)
    torch.manual_seed(0)
    model = get_peft_model(tiny.model(kind), config, "first").eval()
    model.add_adapter("second", config)
    model.save_pretrained(tmp_path)
    ids = tiny.inputs(kind)["input_ids"]
    options: Any = dict(max_new_tokens=4, min_new_tokens=4, num_beams=beams, do_sample=False)
    expected = []
    for i, name in enumerate(names):
        if name == "__base__":
            with model.disable_adapter():
                expected.append(model.generate(input_ids=ids[i : i + 1], **options))
        else:
            model.set_adapter(name)
            expected.append(model.generate(input_ids=ids[i : i + 1], **options))
    whole = torch.cat(expected)
    assert len(set(map(tuple, whole[:, -4:].tolist()))) > 1  # adapters differ
    assert torch.equal(model.generate(input_ids=ids, adapter_names=names, **options), whole)
    plain = tiny.model(kind)
    load_adapter(plain, tmp_path / "first")
    bank = AdapterBank(plain, capacity=2)
    for name in ("first", "second"):
        bank.add(name, tmp_path / name)
    with bank.use([None if name == "__base__" else name for name in names], beams=beams):
        assert torch.equal(plain.generate(input_ids=ids, **options), whole)


@pytest.mark.parametrize("reentrant", [False, True])
def test_layers_that_are_computed_again_are_told_which_adapters_samples_have(reentrant: bool) -> None:
    model, x = several(), torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    checkpointed = partial(checkpoint, use_reentrant=reentrant)
    inner = model.base_model.model
    inner.forward = lambda x: checkpointed(nn.Sequential.forward, inner, x)
    outputs = model.train()(x, adapter_names=NAMES)
    with pytest.raises(ValueError, match="adapter_names gradient checkpointing computes layers again when the names"):
        outputs.sum().backward()
    model(x).sum().backward()  # without names nothing is in the way

    plain = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 4))
    adapt(plain, init="normal")
    bank = AdapterBank(plain)
    bank.add("one")
    x = torch.randn(2, 6, requires_grad=True)
    with bank.use(["one", None]):
        outputs = checkpointed(plain, x)
        outputs.sum().backward()
        found = [stack.grad.clone() for stack in bank.parameters()]
        for stack in bank.parameters():
            stack.grad = None
        plain(x).sum().backward()
        outputs = checkpointed(plain, x)
    for gradient, stack in zip(found, bank.parameters(), strict=True):
        torch.testing.assert_close(gradient, stack.grad)
    with pytest.raises(ValueError, match=r"call backward\(\) inside of the block of use\(\)"):
        outputs.sum().backward()
