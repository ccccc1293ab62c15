"""Laws of layers of every kind, for any sizes, options, dtypes and batches: they compute what torch's own would."""

from __future__ import annotations

import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from structmat.torch import load_adapter, remove_adapters, save_adapter
from tests.torch.common import dense, factors_of
from tests.torch.layer_strategies import KINDS, LINEAR, ROWS, SUMS, adapter_of, banked, cases

pytestmark = pytest.mark.quick
many = settings(max_examples=30, deadline=None)


def gradients(y, x, dy, adapter):
    inputs = [x, *adapter.vectors] if x.is_floating_point() else list(adapter.vectors)
    return torch.autograd.grad(y, inputs, dy)


@pytest.mark.parametrize("kind", KINDS)
@many
@given(data=st.data())
def test_outputs_and_all_gradients_are_those_of_the_dense_change(kind, data):
    case = data.draw(cases([kind]))
    model, x = case.adapted(), case.x()
    adapter = adapter_of(model)
    wide = torch.promote_types(case.dtype, torch.float32)
    assert adapter.vectors[0].dtype == (case.of_vectors or wide)
    assert {p for p in model.parameters() if p.requires_grad} == set(adapter.vectors)
    begun, plain = case.begun()(x), case.model()(x)
    assert torch.equal(begun, plain) or kind in SUMS
    torch.testing.assert_close(begun, plain)
    y = model(x)
    assert y.dtype == case.dtype
    dy = torch.randn_like(y)
    reference = case.reference(model, x, dy)
    found = gradients(y, x, dy, adapter)
    assert [each.dtype for each in found[-len(adapter.vectors) :]] == [each.dtype for each in adapter.vectors]
    reference.assert_close([y, *found], case.dtype, adapter.vectors[0].dtype)


@many
@given(case=cases(LINEAR, dtypes=[torch.float64], vectors=[None]))
def test_the_reference_of_these_laws_is_that_of_scipy(case):
    model = case.adapted()
    adapter = adapter_of(model)
    expected = dense(factors_of(adapter), *case.shape(), adapter.alpha)
    torch.testing.assert_close(model.layer.delta().to_dense().detach(), expected)
    torch.testing.assert_close(adapter.dense(), expected)


@many
@given(case=cases())
def test_merged_layers_do_what_they_did_and_removed_ones_what_the_base_does(case):
    model, x = case.adapted(), case.x()
    reference = case.reference(model, x)
    remove_adapters(model, merge=True)
    assert {p.dtype for p in model.parameters()} == {case.dtype}
    reference.assert_close([model(x)], case.dtype)
    model, plain = case.adapted(), case.model()
    remove_adapters(model)
    assert type(model.layer) is type(plain.layer)
    assert all(map(torch.equal, model.state_dict().values(), plain.state_dict().values()))


@many
@given(case=cases(), dropout=st.sampled_from([0.0, 0.25]))
def test_saved_and_loaded_layers_are_the_same(case, dropout):
    options = {} if "embedding" in case.kind else {"dropout": dropout}
    model, x = case.adapted(**options).eval(), case.x()
    expected = model(x)
    fresh, other = case.model().eval(), case.adapted(1, alpha=3.0, **options).eval()
    with tempfile.TemporaryDirectory() as folder:
        save_adapter(model, folder)
        for target in (fresh, other):
            load_adapter(target, folder)
            own = adapter_of(target)
            assert own.options() == adapter_of(model).options()
            wide = torch.promote_types(case.dtype, torch.float32) if target is fresh else None
            for found, given in zip(own.vectors, adapter_of(model).vectors, strict=True):
                assert torch.equal(found, given.to(wide or given.dtype))
                assert found.requires_grad
    assert torch.equal(other(x), expected)
    if case.of_vectors is None:
        assert torch.equal(fresh(x), expected)


@many
@given(
    case=cases([*ROWS, "attention"], dtypes=[torch.float32, torch.float64], vectors=[None, torch.float32]),
    dtype=st.sampled_from([torch.bfloat16, torch.float16]),
)
def test_autocast_stays_within_its_dtype(case, dtype):
    case.options["factor_scale"] = 1.0
    model, x = case.adapted(), case.x()
    adapter = adapter_of(model)
    with torch.autocast("cpu", dtype):
        y, plain = model(x), case.model()(x)
    assert y.dtype == plain.dtype
    dy = torch.randn_like(y)
    reference = case.reference(model, x, dy)
    found = gradients(y, x, dy, adapter)
    assert [each.dtype for each in found[-3:]] == [each.dtype for each in adapter.vectors[-3:]]
    # Autocast leaves float64 as it is.
    reference.assert_close([y, *found], y.dtype if case.dtype == torch.float64 else dtype, adapter.vectors[0].dtype)


@settings(max_examples=20, deadline=None)
@given(data=st.data(), case=cases(LINEAR, least=1))
def test_samples_of_a_bank_are_those_computed_alone(data, case):
    case.lead = case.lead or (3,)
    model, bank, alone = banked(case, 3)
    names = data.draw(st.lists(st.sampled_from([None, "0", "1", "2"]), min_size=case.lead[0], max_size=case.lead[0]))
    x = case.x()
    with tempfile.TemporaryDirectory() as folder:
        for name, own in zip("012", alone, strict=True):
            bank.add(name, save_adapter(own, f"{folder}/{name}"))
    with bank.use(names):
        y = model(x)
        with torch.no_grad():
            again = [model(x), model(x)]
    dy = torch.randn_like(y)
    dx, *of_stacks = torch.autograd.grad(y, [x, *bank.parameters()], dy)
    eps_of = (case.dtype, adapter_of(alone[0]).vectors[0].dtype)
    totals = [torch.zeros_like(each) for each in of_stacks]
    for i, name in enumerate(names):
        rows = slice(i, i + 1)
        if name is None:
            torch.testing.assert_close(y[rows], case.model()(x[rows]))
            continue
        reference = case.reference(alone[int(name)], x.detach()[rows], dy[rows])
        reference.assert_close([y[rows], dx[rows]], *eps_of, count=2)
        for each in again:
            reference.assert_close([each[rows]], *eps_of, count=1)
        for total, value in zip(totals, reference.values[2:], strict=True):
            total[bank.number(name)] += value.to(total.dtype)
    assert not any(stack[0].any() for stack in of_stacks)
    if case.dtype == torch.float64 and case.of_vectors in (None, torch.float64):
        torch.testing.assert_close(of_stacks, totals)
