"""Changes of some parts of the rows of fused layers."""

from __future__ import annotations

import copy
import json

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from structmat.torch import (
    CDDEmbedding,
    CDDLinear,
    CDDMultiheadAttention,
    PartialCDDAdapter,
    adapt,
    load_adapter,
    remove_adapters,
    save_adapter,
    using_adapter,
)
from tests.torch.common import compiler, dense, factors_of, fill, kept_bytes, quietly
from tests.torch.test_attention import E, base_of, inputs_of, with_change

ROWS, COLS = 24, 5
PARTS = {
    "queries and values": [True, False, True],
    "head by head": [True, False, True] * 4,
    "more queries": [1, 1, 1, 0, 1, 0],
    "the last": [False, True],
}


def spread(change, parts, rows=ROWS):
    """The rows of a change in the places of the chosen ones, one by one."""
    found = torch.zeros(rows, change.shape[1], dtype=change.dtype)
    size = rows // len(parts)
    places = [i for i in range(rows) if parts[i // size]]
    assert len(places) == len(change)
    for place, row in zip(places, change, strict=True):
        found[place] = row
    return found


@pytest.mark.parametrize("parts", PARTS.values(), ids=list(PARTS))
@pytest.mark.parametrize("options", [{}, dict(block_size=3, alpha=-0.5), dict(n_factors=5)], ids=str)
def test_chosen_rows_are_changed_and_all_others_are_not(parts, options):
    torch.manual_seed(0)
    base = nn.Linear(COLS, ROWS, dtype=torch.float64)
    layer = fill(CDDLinear.from_linear(base, parts=parts, **options))
    rows = ROWS // len(parts) * sum(parts)
    change = spread(dense(factors_of(layer.adapter), rows, COLS, layer.adapter.alpha), parts)
    changed = copy.deepcopy(base)
    changed.weight.data += change
    x = torch.randn(2, 3, COLS, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(layer(x), changed(x))
    torch.testing.assert_close(layer.delta().to_dense().detach(), change)
    torch.testing.assert_close(layer.adapter.dense(), change)
    torch.testing.assert_close(layer.adapter(x), x @ change.T)
    dy = torch.randn(2, 3, ROWS, dtype=torch.float64)
    torch.testing.assert_close(*(torch.autograd.grad(each(x), x, dy) for each in (layer, changed)))
    assert torch.autograd.gradcheck(lambda *_: layer(x), list(layer.adapter.vectors), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x, _: layer(x), (x, layer.adapter.vectors[0]), fast_mode=True)
    torch.testing.assert_close(layer.merge_into_base()(x), changed(x))
    other = PartialCDDAdapter(**layer.adapter.options(), dtype=torch.float64)
    other.load_state_dict(layer.adapter.state_dict())
    torch.testing.assert_close(other(x), layer.adapter(x))


def test_fits_take_the_chosen_rows():
    delta = spread(torch.randn(16, 1) * torch.randn(1, COLS), PARTS["queries and values"])
    layer = CDDLinear.from_delta(nn.Linear(COLS, ROWS), delta, parts=PARTS["queries and values"])
    assert layer.adapter.fit.error < 1e-5
    torch.testing.assert_close(layer.delta().to_dense().detach(), delta, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="delta changes rows of parts that are not chosen"):
        layer.adapter.fit_(delta + 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_dtypes_autocast_dropout_and_what_is_kept(dtype):
    layer = fill(CDDLinear.from_linear(nn.Linear(COLS, ROWS, dtype=dtype), parts=[1, 0, 1]))
    x = torch.randn(9, COLS, dtype=dtype)
    y = layer(x)
    assert y.dtype == dtype
    assert kept_bytes(lambda: layer(x), x, *layer.parameters())[0] == 0
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(x).float(), y.float(), rtol=0.05, atol=0.3)
    layer.adapter.dropout = 0.5
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer(x)[:, 8:16], layer.base(x)[:, 8:16])
    assert layer(x[:0]).shape == (0, ROWS)


@pytest.mark.slow
@compiler
def test_compilers_take_a_layer_whole():
    layer = fill(CDDLinear.from_linear(nn.Linear(COLS, ROWS), parts=PARTS["head by head"]))
    x = torch.randn(9, COLS)
    with quietly():
        y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(y, layer(x))


@pytest.mark.parametrize("name", ["batch first", "other features"])
@pytest.mark.parametrize("parts", [[1, 0, 1, 0], [0, 1, 1, 1], [0, 0, 0, 1]], ids=str)
def test_attention_has_four_parts(name, parts):
    layer = fill(CDDMultiheadAttention(base_of(name), parts=parts))
    columns = max(E, layer.base.kdim, layer.base.vdim)
    change = spread(dense(factors_of(layer.adapter), sum(parts) * E, columns), parts, 4 * E)
    changed = with_change(layer.base, change)
    for same in ("", "all") if name == "batch first" else ("",):
        given = inputs_of(layer.base, same=same)
        torch.testing.assert_close(layer(*given), changed(*given))
    layer.base.register_forward_hook(lambda *_: None)
    torch.testing.assert_close(layer(*given), changed(*given))
    torch.testing.assert_close(layer.merge_into_base()(*given), changed(*given))


def model():
    torch.manual_seed(0)
    return nn.ModuleDict({
        f"{i}": nn.ModuleDict({"qkv": nn.Linear(4, 12), "proj": nn.Linear(4, 4), "attn": nn.MultiheadAttention(4, 2)})
        for i in range(2)
    })  # fmt: skip


def test_models_are_adapted_saved_loaded_and_merged(tmp_path):
    ours, fresh, x = model(), model(), torch.randn(3, 4)
    parts = {"qkv": [True, False, True], "1.attn": [True, False, True, False]}
    summary = adapt(ours, ["qkv", "proj", "attn"], parts=parts)
    assert summary.n_parameters == 2 * (5 * 4 + 3 * 4) + 9 * 4 + 5 * 4
    assert summary.dense_flops_per_token == 2 * 2 * 16 * (3 + 1 + 4)
    folder = save_adapter(fill(ours), tmp_path / "a")
    stored = json.loads((folder / "adapter_config.json").read_text())["parts"]
    assert stored == {"0.qkv": parts["qkv"], "1.qkv": parts["qkv"], "1.attn": parts["1.attn"]}
    load_adapter(fresh, folder)
    for path in ("0.qkv", "1.qkv", "1.attn"):
        mine, theirs = (each.get_submodule(path).adapter for each in (ours, fresh))
        assert mine.parts == theirs.parts
        assert torch.equal(mine.dense(), theirs.dense())
    other = model()
    adapt(other, ["qkv", "proj", "attn"], parts={**parts, "qkv": [False, True, True]})
    for load in (load_adapter, lambda *given: using_adapter(*given).__enter__()):
        with pytest.raises(ValueError, match=r"has other parts of 0\.qkv than the model: \[True, False, True\]"):
            load(other, folder)
    y = ours["0"]["qkv"](x)
    remove_adapters(ours, merge=True)
    torch.testing.assert_close(ours["0"]["qkv"](x), y)
    assert torch.equal(ours["0"]["qkv"].weight[4:8], model()["0"]["qkv"].weight[4:8])


def test_the_path_of_a_layer_may_be_the_end_of_another(tmp_path):
    ours, fresh = (nn.ModuleDict({"qkv": nn.Linear(4, 12), "0": model()["0"]}) for _ in range(2))
    adapt(ours, ["qkv"], parts={"qkv": [1, 0, 1], "0.qkv": None}, init="normal")
    assert ours["0"]["qkv"].adapter.parts is None
    load_adapter(fresh, save_adapter(ours, tmp_path / "a"))
    for path in ("qkv", "0.qkv"):
        mine, theirs = (each.get_submodule(path).adapter for each in (ours, fresh))
        assert torch.equal(mine.dense(), theirs.dense())


@pytest.mark.parametrize(("make", "error", "text"), [
    (lambda: adapt(model(), ["qkv"], parts={"proj": [1, 0]}), ValueError, r"parts \['proj'\] matches no module"),
    (lambda: adapt(model(), ["qkv"], parts=[1, 0]), TypeError, "parts must be a dict of lists by name"),
    (lambda: adapt(model(), ["qkv"], parts={"qkv": "10"}), TypeError, "must be a list with True for each part"),
    (lambda: adapt(model(), ["qkv"], parts={"qkv": [1, 1]}), ValueError, "must choose some of several parts"),
    (lambda: adapt(model(), ["qkv"], parts={"qkv": [1, 0] * 4}), ValueError, "are 8, which do not divide 12 rows"),
    (lambda: adapt(model(), ["attn"], parts={"attn": [1, 0]}), ValueError, "must be 4, of queries, keys, values"),
    (lambda: CDDEmbedding(nn.Embedding(4, 3), parts=[1, 0]), ValueError, "parts are for linear layers and attention"),
    (lambda: PartialCDDAdapter(4, 6, [1, 0])(torch.ones(5)), ValueError, "x must have shape"),
    (lambda: PartialCDDAdapter(4, 6, [1, 0]).fit_(torch.ones(3, 4)), ValueError, r"must have shape \(6, 4\)"),
])  # fmt: skip
def test_what_is_refused(make, error, text):
    with pytest.raises(error, match=text):
        make()
