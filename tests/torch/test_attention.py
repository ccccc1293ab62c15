"""Attention modules of torch: their projections are changed as if their weights were others."""

from __future__ import annotations

import copy

import pytest

from tests.cases import in_one_test

torch = pytest.importorskip("torch")

from torch import nn

from structmat.torch import CDDMultiheadAttention, adapt, load_adapter, remove_adapters, save_adapter
from tests.torch.common import compiler, dense, factors_of, fill, quietly, state

E, HEADS, BATCH, QUERIES, SOURCES = 8, 2, 3, 4, 5

BASES = {
    "of torch": {},
    "batch first": dict(batch_first=True),
    "no bias": dict(bias=False, batch_first=True),
    "more keys": dict(add_bias_kv=True, add_zero_attn=True),
    "other features": dict(kdim=5, vdim=11, batch_first=True),
    "other features, more keys": dict(kdim=9, vdim=3, add_bias_kv=True, bias=False),
}
CALLS = {
    "weights": {},
    "of each head": dict(average_attn_weights=False),
    "padding": dict(key_padding_mask=torch.arange(SOURCES) >= torch.tensor([[3], [5], [4]])),
    "mask": dict(attn_mask=torch.arange(QUERIES)[:, None] < torch.arange(SOURCES), need_weights=False),
    "both": dict(
        attn_mask=torch.randn(BATCH * HEADS, QUERIES, SOURCES, dtype=torch.float64),
        key_padding_mask=torch.tensor([[0.0] * 4 + [-1.0]] * BATCH, dtype=torch.float64),
        need_weights=False,
    ),
}


def base_of(name="batch first", dtype=torch.float64):
    torch.manual_seed(0)
    made = nn.MultiheadAttention(E, HEADS, **BASES[name], dtype=dtype)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.5)
    return made


def with_change(base, change):
    """A copy of a base with the rows of a change in its four weights."""
    other = copy.deepcopy(base)
    inside = [other.in_proj_weight] if other.in_proj_weight is not None else []
    inside = inside or [other.q_proj_weight, other.k_proj_weight, other.v_proj_weight]
    start = 0
    with torch.no_grad():
        for weight in (*inside, other.out_proj.weight):
            weight.add_(change[start : start + len(weight), : weight.shape[1]])
            start += len(weight)
    assert start == len(change)
    return other


def pair(name="batch first", **options):
    """A layer with a random change, and a module with the changed weights."""
    layer = fill(CDDMultiheadAttention(base_of(name), **options))
    columns = max(E, layer.base.kdim, layer.base.vdim)
    return layer, with_change(layer.base, dense(factors_of(layer.adapter), 4 * E, columns, layer.adapter.alpha))


def inputs_of(base, *, same=""):
    """Queries, keys and values; all of them, or keys and values, may be the same tensor."""
    sizes = ((QUERIES, E), (SOURCES, base.kdim), (SOURCES, base.vdim))
    given = [torch.randn(BATCH, *size, dtype=torch.float64, requires_grad=True) for size in sizes]
    query, key, value = (x if base.batch_first else x.transpose(0, 1) for x in given)
    if same == "all":
        return query, query, query
    return (query, key, key) if same == "keys and values" else (query, key, value)


@in_one_test("name", BASES)
def test_outputs_and_gradients_are_those_of_changed_weights(name):
    layer, changed = pair(name, alpha=-0.5)
    alike = layer.base.kdim == layer.base.vdim == E
    for same in ("", "keys and values", "all") if alike else ("",):
        given = inputs_of(layer.base, same=same)
        for call, settings in CALLS.items():
            if same == "all" and set(settings) & {"attn_mask", "key_padding_mask"}:
                continue  # of another size
            found, expected = layer(*given, **settings), changed(*given, **settings)
            torch.testing.assert_close(found, expected, msg=f"{same} {call}")
        wanted = list(dict.fromkeys(given))
        dy = torch.randn_like(found[0])
        gradients = [torch.autograd.grad(y, wanted, dy, retain_graph=True) for y in (found[0], expected[0])]
        torch.testing.assert_close(*gradients)
    vectors = list(layer.adapter.vectors)
    assert {p for p in layer.parameters() if p.requires_grad} == set(vectors)
    assert torch.autograd.gradcheck(lambda *_: layer(*given)[0], vectors, fast_mode=True)


def test_second_derivatives_samples_alone_and_causal_attention():
    layer, changed = pair()
    x, *_ = inputs_of(layer.base, same="all")
    first = layer.adapter.vectors[0]
    assert torch.autograd.gradgradcheck(lambda x, _: layer(x, x, x)[0], (x, first), fast_mode=True)
    causal = nn.Transformer.generate_square_subsequent_mask(QUERIES, dtype=torch.float64)
    for weights in (False, True):
        settings = dict(attn_mask=causal, is_causal=True, need_weights=weights)
        torch.testing.assert_close(layer(x, x, x, **settings), changed(x, x, x, **settings))
    alone = x[0]
    torch.testing.assert_close(layer(alone, alone, alone), changed(alone, alone, alone))


def test_those_who_watch_the_base_see_it_and_trained_bases_are_heeded():
    layer, _ = pair()
    given, seen = inputs_of(layer.base), []
    expected = layer(*given)
    with layer.base.register_forward_hook(lambda module, *_: seen.append(module)):
        found = layer(*given)
    assert seen == [layer.base]
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(y.square().sum(), list(layer.adapter.vectors)) for y, _ in (found, expected)]
    torch.testing.assert_close(*gradients)
    layer.base.requires_grad_()
    layer(*given)[0].sum().backward()
    assert all(parameter.grad is not None for parameter in layer.base.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_dtypes_are_those_of_the_base(dtype, autocast):
    layer, changed = pair(dropout=0.0)
    x, *_ = inputs_of(layer.base, same="all")
    expected = changed(x, x, x)[0]
    layer, x = layer.to(dtype), x.detach().to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y, _ = layer(x, x, x)
        assert y.dtype == layer.base(x, x, x)[0].dtype
    eps = torch.finfo(y.dtype if autocast else dtype).eps
    assert (y.double() - expected).norm() <= 16 * eps * expected.norm()
    y.float().sum().backward()
    assert all(vector.grad is not None and vector.grad.dtype == dtype for vector in layer.adapter.vectors)


def test_dropout_is_that_of_the_change_and_of_the_base():
    layer, _ = pair(dropout=0.5)
    given = inputs_of(layer.base)
    assert not torch.equal(layer(*given)[0], layer(*given)[0])
    assert torch.equal(layer.eval()(*given)[0], layer(*given)[0])
    base = nn.MultiheadAttention(E, HEADS, dropout=0.5, dtype=torch.float64, batch_first=True)
    layer = CDDMultiheadAttention(base)
    for settings in ({}, dict(need_weights=False)):
        torch.manual_seed(0)
        found = layer(*given, **settings)[0]
        torch.manual_seed(0)
        assert found.shape == base(*given, **settings)[0].shape
        assert not torch.equal(found, layer(*given, **settings)[0])


@compiler
def test_compilers_take_a_layer_whole():
    layer, _ = pair()
    x, *_ = inputs_of(layer.base, same="all")
    expected = layer(x, x, x, need_weights=False)[0]
    with quietly():
        y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x, x, x, need_weights=False)[0]
        torch.testing.assert_close(y, expected)
        gradients = [torch.autograd.grad(each.sum(), list(layer.adapter.vectors)) for each in (y, expected)]
    torch.testing.assert_close(*gradients)


class Itself(nn.Module):
    """Attends of its input to itself."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, padding, mask):
        return self.layer(x, x, x, key_padding_mask=padding, attn_mask=mask)


@compiler
@pytest.mark.parametrize("name", ["batch first", "of torch"])
def test_exported_programs_take_any_number_of_samples(name):
    layer, _ = pair(name)
    axis = 0 if layer.base.batch_first else 1

    def given(samples):
        x = torch.randn(samples, QUERIES, E, dtype=torch.float64)
        padding = torch.zeros(samples, QUERIES, dtype=torch.float64)
        return x.transpose(0, axis), padding, torch.randn(samples * HEADS, QUERIES, QUERIES, dtype=torch.float64)

    samples = torch.export.Dim("samples", min=2, max=64)
    shapes = ({axis: samples}, {0: samples}, {0: HEADS * samples})
    with quietly():
        program = torch.export.export(Itself(layer), given(3), dynamic_shapes=shapes).module()
    other = given(5)
    torch.testing.assert_close(program(*other), Itself(layer)(*other))


@in_one_test("name", list(BASES))
def test_no_samples_have_no_outputs(name):
    layer, _ = pair(name)
    query, key, value = (x[:0] if layer.base.batch_first else x[:, :0] for x in inputs_of(layer.base))
    no_mask = torch.zeros(0, QUERIES, SOURCES, dtype=torch.float64)
    for mask in (None, no_mask):
        outputs, weights = layer(query, key, value, attn_mask=mask)
        assert outputs.shape == query.shape
        assert weights.shape[:2] == (0, QUERIES)
    outputs.sum().backward()
    assert all(vector.grad is not None for vector in layer.adapter.vectors)


def test_samples_of_a_nested_tensor_attend_by_the_kernels_of_torch():
    layer, changed = pair()
    samples = [torch.randn(length, E, dtype=torch.float64) for length in (2, 5, 3)]
    layer, changed = layer.eval(), changed.eval()
    with torch.no_grad(), quietly():
        nested = torch.nested.as_nested_tensor(samples)
        found = layer(nested, nested, nested, need_weights=False)[0].unbind()
        expected = [changed(x[None], x[None], x[None])[0][0] for x in samples]
    torch.testing.assert_close(found, tuple(expected))


# ---- whole models


def encoder():
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(E, HEADS, 16, dropout=0.0, batch_first=True, dtype=torch.float64)
    with quietly():
        return nn.TransformerEncoder(layer, 2)


def test_encoders_are_adapted_saved_loaded_and_merged(tmp_path):
    model, fresh = encoder(), encoder()
    x, padding = torch.randn(3, 6, E, dtype=torch.float64), torch.arange(6) >= torch.tensor([[4], [6], [5]])
    before = state(model)[0]
    assert adapt(model, ["self_attn"]).n_parameters == 2 * 9 * E
    plain = fresh(x, src_key_padding_mask=padding)
    torch.testing.assert_close(model(x, src_key_padding_mask=padding), plain)
    fill(model)
    expected = {training: model.train(training)(x, src_key_padding_mask=padding) for training in (True, False)}
    torch.testing.assert_close(expected[False], expected[True])  # not those of the fast path
    assert not torch.allclose(expected[True], plain)
    with torch.no_grad():
        torch.testing.assert_close(model(x, src_key_padding_mask=padding), expected[True])
    folder = save_adapter(model, tmp_path / "adapter")
    assert load_adapter(fresh, folder) == ["layers.0.self_attn", "layers.1.self_attn"]
    assert torch.equal(fresh(x, src_key_padding_mask=padding), expected[True])
    remove_adapters(fresh)
    assert all(torch.equal(value, before[key]) for key, value in fresh.state_dict().items())
    remove_adapters(model, merge=True)
    assert type(model.layers[0].self_attn) is nn.MultiheadAttention
    for training in (True, False):
        with torch.set_grad_enabled(training), quietly():  # torch warns of its nested tensors
            y = model.train(training)(x, src_key_padding_mask=padding)
        torch.testing.assert_close(y[~padding], expected[True][~padding])


def test_decoders_attend_to_themselves_and_to_sources():
    torch.manual_seed(1)
    with quietly():
        model = nn.Transformer(E, HEADS, 1, 1, 16, dropout=0.0, dtype=torch.float64)  # with the batch second
    source, target = (torch.randn(n, 2, E, dtype=torch.float64) for n in (5, 4))
    causal = nn.Transformer.generate_square_subsequent_mask(4, dtype=torch.float64)
    assert len(adapt(model, ["self_attn", "multihead_attn"]).layers) == 3
    fill(model)
    expected = model(source, target, tgt_mask=causal, tgt_is_causal=True)
    assert torch.autograd.grad(expected.sum(), [p for p in model.parameters() if p.requires_grad])
    remove_adapters(model, merge=True)
    torch.testing.assert_close(model(source, target, tgt_mask=causal, tgt_is_causal=True), expected)


class OfAnotherClass(nn.MultiheadAttention):
    def forward(self, x):
        return super().forward(x, x, x)


def test_what_is_refused():
    with pytest.raises(TypeError, match=r"base must be a torch.nn.MultiheadAttention .*, got OfAnotherClass"):
        CDDMultiheadAttention(OfAnotherClass(E, HEADS))
    with pytest.raises(TypeError, match=r"match layers\.0\.self_attn\.out_proj.*: name the whole module"):
        adapt(encoder(), ["out_proj"])
    with pytest.raises(ValueError, match=r"train match .*out_proj, a part of the adapted layer layers\.0\.self_attn"):
        adapt(encoder(), ["self_attn"], train=["out_proj"])
    layer, _ = pair()
    nn.utils.parametrizations.weight_norm(layer.base, "in_proj_weight")
    with pytest.raises(TypeError, match=r"weight of .* is no parameter, as after weight_norm"):
        layer.merge_into_base()
    layer, _ = pair()
    before = copy.deepcopy(layer.base)
    layer.adapter.vectors[0].data.fill_(torch.inf)
    with pytest.raises(ValueError, match="NaN or infinity"):
        layer.merge_into_base()
    assert torch.equal(layer.base.in_proj_weight, before.in_proj_weight)
    assert torch.equal(layer.base.out_proj.weight, before.out_proj.weight)
