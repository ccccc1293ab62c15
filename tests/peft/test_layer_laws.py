"""Laws of layers of every kind in PEFT, for any sizes, options, dtypes and batches, as in `structmat.torch`."""

from __future__ import annotations

import tempfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("transformers")

from peft import PeftModel, get_peft_model
from torch import Tensor

from structmat.peft import CDDConfig
from structmat.torch import CDDExperts, load_adapter, save_adapter
from structmat.torch._layers import KINDS as CLASSES
from tests.peft import tiny
from tests.torch.layer_strategies import KINDS, ROWS, Case, adapter_of, cases

pytestmark = [*tiny.QUIET, pytest.mark.quick]
many = settings(max_examples=25, deadline=None)
MODULES = [kind for kind in KINDS if kind != "experts"]


def test_the_strategy_draws_all_kinds() -> None:
    kinds = (Case(kind, 2, 3, {}, torch.float32, None, (), 1) for kind in KINDS if kind != "Conv1D")
    assert {type(case.adapted().layer) for case in kinds} == {*CLASSES, CDDExperts}


def gradients(y: Tensor, x: Tensor, adapter: Any) -> tuple[Tensor, ...]:
    inputs = [x, *adapter.vectors] if x.is_floating_point() else list(adapter.vectors)
    return torch.autograd.grad(y.square().sum(), inputs)


@many
@given(case=cases(vectors=[None]))
def test_peft_loads_the_folder_and_computes_trains_and_writes_the_same(case: Case) -> None:
    ours, fresh, x = case.adapted(), case.model(), case.x()
    with tempfile.TemporaryDirectory() as folder:
        theirs = PeftModel.from_pretrained(case.model(), save_adapter(ours, f"{folder}/ours"), is_trainable=True)
        theirs.save_pretrained(f"{folder}/theirs")
        load_adapter(fresh, f"{folder}/theirs")
    y = ours(x)
    assert torch.equal(theirs(x), y)
    assert torch.equal(fresh(x), y)
    expected = gradients(y, x, adapter_of(ours))
    assert all(map(torch.equal, gradients(theirs(x), x, adapter_of(theirs)), expected))


@many
@given(data=st.data(), case=cases(MODULES, vectors=[None], least=1), autocast=st.booleans())
def test_adapters_add_up_merge_and_leave_again(data: Any, case: Case, autocast: bool) -> None:
    case.lead = case.lead or (3,)
    config = CDDConfig(target_modules=["layer"], init_weights=False, **case.options)
    torch.manual_seed(case.seed)
    model: Any = get_peft_model(case.model(), config, "one", autocast_adapter_dtype=autocast)
    model.add_adapter("two", config, autocast_adapter_dtype=autocast)
    layer, x = model.base_model.model.layer, case.x()
    wide = torch.promote_types(case.dtype, torch.float32)
    vectors = [vector for adapter in layer.cdd_adapters.values() for vector in adapter.vectors]
    assert {vector.dtype for vector in vectors} == {wide if autocast else case.dtype}
    weights = [parameter.detach().clone() for parameter in layer.base_layer.parameters()]
    with model.disable_adapter():
        outputs = {"__base__": model(x)}
    for name in ("one", "two"):
        model.set_adapter(name)
        outputs[name] = model(x)
    assert {y.dtype for y in outputs.values()} == {case.dtype}
    names = data.draw(st.lists(st.sampled_from([*outputs]), min_size=len(x), max_size=len(x)))
    mixed = model.eval()(x, adapter_names=names)
    model.base_model.set_adapter(["one", "two"])
    both = model(x)
    model.merge_adapter(safe_merge=True)
    merged = model(x)
    assert merged.dtype == case.dtype
    model.unmerge_adapter()
    assert all(map(torch.equal, layer.base_layer.parameters(), weights))
    if case.dtype == torch.float64:
        torch.testing.assert_close(mixed, torch.stack([outputs[name][i] for i, name in enumerate(names)]))
        torch.testing.assert_close(merged, both)
        if case.kind in ROWS:
            torch.testing.assert_close(both, outputs["one"] + outputs["two"] - outputs["__base__"])
