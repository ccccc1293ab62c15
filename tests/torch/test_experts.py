"""Matrices of experts that one parameter holds, and a change for each of them."""

import copy
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest

from structmat.torch import CDDExperts, StackedCDDAdapter, adapt, load_adapter, remove_adapters, save_adapter
from structmat.torch._stacked_weight import call_changed, laid_out, stack_of
from tests.torch.common import assert_same_state, compiler, fill, kept_bytes, quietly, state, torch

pytest.importorskip("transformers", minversion="5")

EXPERTS, HIDDEN, INNER = 4, 16, 24
NAMES = ("gate_up_proj", "down_proj")
LOOPS = ("eager", "grouped_mm", "batched_mm")


def experts(kind, dtype=torch.float64, loop="eager"):
    """The experts of a block, with random frozen matrices."""
    if kind == "GPT-OSS":  # transposed, and with biases
        from transformers.models.gpt_oss import GptOssConfig as Config
        from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts as Experts
    else:
        from transformers.models.mixtral import MixtralConfig as Config
        from transformers.models.mixtral.modeling_mixtral import MixtralExperts as Experts
    config = Config(hidden_size=HIDDEN, intermediate_size=INNER, num_local_experts=EXPERTS)
    config._experts_implementation = loop
    module = Experts(config)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.to(dtype).requires_grad_(requires_grad=False)


def routed(dtype=torch.float64, tokens=9):
    """Tokens, two experts for each, the last of which gets none, and their weights."""
    x = torch.randn(tokens, HIDDEN, dtype=dtype, requires_grad=True)
    chosen = torch.stack([torch.randperm(EXPERTS - 1)[:2] for _ in range(tokens)])
    return x, chosen, torch.rand(tokens, 2, dtype=dtype)


def changes_of(module, count=1, **options):
    """So many random changes of each parameter."""
    found = {}
    for name in NAMES:
        stack = stack_of(module, name, "test")
        sizes = stack.n_experts, stack.in_features, stack.out_features
        options = {"dtype": torch.float64, "init": "normal", "alpha": 0.7, **options}
        found[name] = [StackedCDDAdapter(*sizes, **options) for _ in range(count)]
    return found


def written_out(module, changes, *given):
    """The outputs of a module in which dense sums stand, by its loop over the experts."""
    plain = copy.deepcopy(module)
    plain.config._experts_implementation = "eager"
    sums = {}
    for name, adapters in changes.items():
        dense = sum(laid_out(stack_of(plain, name, "test"), each.operator().to_dense()) for each in adapters)
        sums[name] = getattr(plain, name) + dense
    return torch.func.functional_call(plain, sums, given)


def trained(changes):
    return [vector for adapters in changes.values() for each in adapters for vector in each.parameters()]


@pytest.mark.parametrize("kind", ["Mixtral", "GPT-OSS"])
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("tokens", "options"), [(9, {"count": 2, "n_factors": 5}), (70, {}), (1, {"block_size": 5})])
def test_outputs_and_gradients_are_those_of_dense_sums(kind, loop, tokens, options):
    module = experts(kind, loop=loop)
    changes = changes_of(module, **options)
    given = routed(tokens=tokens)
    outputs, wanted = call_changed(module, changes, *given), written_out(module, changes, *given)
    torch.testing.assert_close(outputs, wanted, rtol=1e-11, atol=1e-11)
    weights = torch.randn_like(outputs)
    inputs = [given[0], *trained(changes)]
    found = torch.autograd.grad(outputs, inputs, weights)
    for one, other in zip(found, torch.autograd.grad(wanted, inputs, weights), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    assert not vars(module).keys() & changes.keys()  # nothing stands in for a parameter any more


def test_rows_with_vectors_of_their_own_give_the_same(monkeypatch):  # as on other devices
    from structmat.torch import _stacked_product, _stacked_weight

    for each in (_stacked_product, _stacked_weight):
        monkeypatch.setattr(each, "loops_over_experts", lambda x: False)
    monkeypatch.setattr(_stacked_product, "_ROWS", 100)  # several pieces
    test_outputs_and_gradients_are_those_of_dense_sums("GPT-OSS", "batched_mm", 9, {"block_size": 5})
    test_outputs_and_gradients_are_those_of_dense_sums("Mixtral", "batched_mm", 9, {"count": 2, "n_factors": 5})


@pytest.mark.parametrize("kind", ["Mixtral", "GPT-OSS"])
@pytest.mark.parametrize("entries", [0.0, float("inf")])
def test_sums_of_matrices_and_the_chunks_of_rows_give_the_same(monkeypatch, kind, entries):
    from structmat.torch import _stacked_product

    monkeypatch.setattr(_stacked_product, "_OF_ENTRIES", entries)
    seen = mock.Mock(wraps=_stacked_product._gradients_of_sums)
    monkeypatch.setattr(_stacked_product, "_gradients_of_sums", seen)
    for tokens, options in ((9, {}), (70, {"block_size": 5}), (1, {"block_size": "toeplitz"})):
        test_outputs_and_gradients_are_those_of_dense_sums(kind, "grouped_mm", tokens, options)
    assert bool(seen.called) == (entries == 0)


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_gradients_are_those_of_differences_twice(loop):
    module = experts("GPT-OSS", loop=loop)
    changes = changes_of(module)
    x, *routes = routed(tokens=3)
    inputs = x, *trained(changes)

    def function(x, *_):
        return call_changed(module, changes, x, *routes)

    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("kind", ["Mixtral", "GPT-OSS"])
def test_other_functions_get_the_dense_sum(kind):
    module = experts(kind)
    changes = changes_of(module)
    stack = stack_of(module, "down_proj", "test")
    (adapter,) = changes["down_proj"]
    wanted = module.down_proj + laid_out(stack, adapter.dense())

    class Reader(torch.nn.Module):
        is_transposed = stack.transposed

        def __init__(self):
            super().__init__()
            self.down_proj = module.down_proj

        def forward(self, function):
            return function(self.down_proj)

    x = torch.randn(EXPERTS, 3, wanted.shape[1], dtype=torch.float64)
    for function in (
        lambda w: w * 1,
        lambda w: 2 * w.sum(0) - w.sum(0),
        lambda w: w[1:3].flatten(1),
        lambda w: w[..., 0],
        lambda w: torch.einsum("etk,ekn->etn", x, w),
        lambda w: x @ w,  # of all experts, as in Llama 4
        lambda w: torch.bmm(w.transpose(1, 2), x.mT).mT,
        lambda w: torch.stack([x[e] @ each for e, each in enumerate(w)]),
        lambda w: torch.stack([torch.nn.functional.linear(x[e], w[e].T) for e in range(len(w))]),
        lambda w: w[torch.tensor([2, 0])].mT.contiguous(),
        lambda w: torch.bmm(x[:3], w[torch.tensor([2, -1, 0])]),
        lambda w: torch.bmm(x[:3], w[torch.tensor([-1, 1, -EXPERTS])]),
        lambda w: torch.matmul(input=x, other=w),
        lambda w: torch.bmm(x, mat2=w),
        lambda w: torch.nn.functional.linear(input=x[0], weight=w[1].T),
        lambda w: torch.mm(x[0], w[1].detach(), out=x.new_empty(3, w.shape[2])),
        lambda w: (w > 0) & (w != 1) | (w >= 1),
    ):
        found = call_changed(Reader(), {"down_proj": [adapter]}, function)
        torch.testing.assert_close(found, function(wanted), rtol=1e-11, atol=1e-11)


class Mapped(torch.nn.Module):
    """Maps over its matrices, which it takes for tensors, by functions of torch that take arguments apart."""

    def __init__(self):
        super().__init__()
        self.up = torch.nn.Parameter(torch.randn(4, 3, 5, dtype=torch.float64), requires_grad=False)

    def forward(self, x):
        assert isinstance(self.up, torch.Tensor)
        assert torch.is_tensor(self.up[0])
        assert not isinstance(self.up, torch.nn.Parameter)
        return torch.vmap(lambda matrix, rows: rows @ matrix.T, in_dims=(0, None))(self.up, x)


def test_modules_may_map_over_matrices_and_take_them_for_tensors():
    module = Mapped()
    changes = {"up": [StackedCDDAdapter(4, 5, 3, dtype=torch.float64, init="normal")]}
    x = torch.randn(2, 5, dtype=torch.float64)
    plain = torch.func.functional_call(module, {"up": module.up + changes["up"][0].operator().to_dense()}, x)
    outputs = call_changed(module, changes, x)
    torch.testing.assert_close(outputs, plain)
    found, wanted = (torch.autograd.grad(y.square().sum(), trained(changes)) for y in (outputs, plain))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("loop", LOOPS)
def test_nothing_but_inputs_is_kept(loop):
    module = experts("Mixtral", torch.float32, loop)
    changed = fill(CDDExperts(module, NAMES))
    given = routed(torch.float32, tokens=40)
    known = [*given, *changed.parameters()]
    kept, _ = kept_bytes(lambda: changed(*given), *known)
    rows, size = 80, 4
    inputs = rows * (HIDDEN + INNER) * size
    # What activations, routing weights and gathers keep on their own, and integers of the routes.
    others = rows * (4 * INNER + 2 * HIDDEN + 20) * size
    assert kept <= inputs + others
    assert module.gate_up_proj.nbytes > 0.25 * kept  # so that one stack more would be noticed


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_rounds_outputs_alone(loop, autocast):
    module = experts("Mixtral", torch.float32 if autocast else torch.bfloat16, loop)
    changes = changes_of(module, dtype=torch.float32)
    given = routed(torch.float32 if autocast else torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        outputs = call_changed(module, changes, *given)
    wide = [each.detach().double() if each.is_floating_point() else each for each in given]
    wanted = written_out(copy.deepcopy(module).double(), changes, *wide)
    assert outputs.dtype == given[0].dtype
    assert (outputs.double() - wanted).norm() <= 0.02 * wanted.norm()
    outputs.sum().backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in (given[0], *trained(changes)))


def test_dropout_is_of_the_inputs_of_changes_alone():
    module = experts("Mixtral")
    (adapter,) = changes_of(module, dropout=0.5)["down_proj"]
    x = torch.randn(EXPERTS, 3, INNER, dtype=torch.float64)

    class Reader(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.down_proj = module.down_proj

        def forward(self, x):
            products = [torch.nn.functional.linear(rows, each) for rows, each in zip(x, self.down_proj, strict=True)]
            return torch.stack(products), torch.bmm(x, self.down_proj.mT)

    torch.manual_seed(1)
    looped, together = call_changed(Reader(), {"down_proj": [adapter]}, x)
    torch.manual_seed(1)
    dropped = torch.stack([torch.nn.functional.dropout(rows, 0.5) for rows in x])
    base, dense = torch.bmm(x, module.down_proj.mT), adapter.dense().mT
    torch.testing.assert_close(looped, base + torch.bmm(dropped, dense))
    dropped = torch.nn.functional.dropout(x.flatten(0, 1), 0.5).view_as(x)
    torch.testing.assert_close(together, base + torch.bmm(dropped, dense))


def test_experts_without_tokens_get_no_gradient_and_no_time(monkeypatch):
    from structmat.torch import _stacked_product

    calls = []
    for name in ("chunked_change", "chunked_gradients"):
        function = getattr(_stacked_product, name)
        monkeypatch.setattr(
            _stacked_product, name, lambda *a, name=name, f=function, **k: (calls.append(name), f(*a, **k))[1]
        )
    monkeypatch.setattr(_stacked_product, "_OF_ENTRIES", float("inf"))
    changed = fill(CDDExperts(experts("Mixtral", loop="grouped_mm"), NAMES))
    x, chosen, weights = routed()
    changed(x, torch.zeros_like(chosen), weights).sum().backward()
    assert len(calls) == 4  # of one expert, two parameters and two directions
    for vector in (vector for adapter in changed.adapters.values() for vector in adapter.vectors):
        assert vector.grad[0].any()
        assert not vector.grad[1:].any()
    x = x.detach().requires_grad_()
    changed(x[:0], chosen[:0], weights[:0]).sum().backward()


@pytest.mark.slow
@compiler
def test_compiled_and_exported_modules_have_the_same_outputs():
    changed = fill(CDDExperts(experts("GPT-OSS", torch.float32, "batched_mm"), NAMES))
    given = routed(torch.float32)
    with quietly():
        compiled = torch.compile(changed, backend="aot_eager", fullgraph=True)
        exported = torch.export.export(changed, given).module()
    outputs = changed(*given)
    inputs = [given[0], *changed.adapters.parameters()]
    wanted = torch.autograd.grad(outputs.sum(), inputs)
    for each in (compiled, exported):
        found = each(*given)
        torch.testing.assert_close(found, outputs, rtol=1e-4, atol=1e-4)
    found = torch.autograd.grad(compiled(*given).sum(), inputs)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def model_of(name):
    pytest.importorskip("peft")
    from tests.peft import tiny

    torch.manual_seed(0)
    return tiny.model(name).eval()


IDS = torch.tensor([[3, 7, 1, 12, 5], [4, 4, 9, 2, 30]])
MODELS = ["mixtral", "qwen3_moe", "olmoe", "deepseek_v3"]


class TestModels:
    @pytest.mark.parametrize("name", MODELS)
    def test_from_adapting_to_merging(self, name, tmp_path):
        model, plain = model_of(name), model_of(name)
        before, base = model(IDS).logits, state(model)
        summary = adapt(model, ["o_proj"], parameters=["experts.gate_up_proj", "experts.down_proj"])
        stacks = [path for path in summary.layers if "experts." in path]
        assert len(stacks) == 2 * sum("gate_up_proj" in key for key, _ in plain.named_parameters())
        assert torch.equal(model(IDS).logits, before)
        model.train()(IDS, labels=IDS).loss.backward()
        assert {key for key, p in model.named_parameters() if p.grad is not None} == {
            key for key, p in model.named_parameters() if p.requires_grad
        }
        outputs = fill(model).eval()(IDS).logits
        assert not torch.allclose(outputs, before, atol=1e-3)
        folder = save_adapter(model, tmp_path / "adapter")
        assert load_adapter(plain, folder) == sorted(summary.layers)
        assert torch.equal(plain(IDS).logits, outputs)
        fill(plain)
        load_adapter(plain, folder)  # into an adapted model
        assert torch.equal(plain(IDS).logits, outputs)
        remove_adapters(plain, merge=True)
        torch.testing.assert_close(plain(IDS).logits, outputs, rtol=1e-4, atol=1e-5)
        remove_adapters(model)
        for key, value in model.state_dict().items():
            assert torch.equal(value, base[0][key])
        assert str(model) == base[2] == str(plain)

    @pytest.mark.parametrize("names", [
        ["w1", "w3", "w2"],
        ["gate_proj", "up_proj", "experts.0.down_proj"],
        ["experts.gate_up_proj", "down_proj"],
        r".*\.experts\.(gate_up|down)_proj",
        r".*\.experts\.0\.w[123]",
    ])  # fmt: skip
    def test_names_of_parameters(self, names):
        layers = adapt(model_of("mixtral"), [], parameters=names).layers
        assert layers == tuple(f"model.layers.{i}.mlp.experts.{name}" for i in range(2) for name in NAMES)

    def test_wrong_names_leave_the_model_as_it_is(self):
        model = model_of("mixtral")
        before = state(model)
        for parameters, text in {
            ("w1",): r"mean .*experts\.w1, fused with .*experts\.w3 in .*gate_up_proj",
            ("up",): r"\['up'\] matches no parameter; could be adapted: .*gate_up_proj",
            ("down_proj", "w4"): r"\['w4'\] matches no parameter",
            (): r"match no layer",
        }.items():
            with pytest.raises(ValueError, match=text):
                adapt(model, [], parameters=list(parameters))
        with pytest.raises(ValueError, match="n_factors"):
            adapt(model, [], parameters=["down_proj"], n_factors=2)
        with pytest.raises(TypeError, match="parameters must be a regular expression or a list"):
            adapt(model, [], parameters=3)
        assert_same_state(before, model)
        adapt(model, [], parameters=["down_proj"])
        with pytest.raises(ValueError, match="adapted already"):
            adapt(model, [], parameters=["down_proj"])
        assert len(adapt(model, [], parameters=["gate_up_proj"]).layers) == 4

    def test_a_router_is_one_matrix(self, tmp_path):
        model, plain = model_of("mixtral"), model_of("mixtral")
        adapt(model, [], parameters=["gate.weight"], init="normal")
        outputs = model(IDS).logits
        load_adapter(plain, save_adapter(model, tmp_path / "adapter"))
        assert torch.equal(plain(IDS).logits, outputs)
        remove_adapters(plain, merge=True)
        torch.testing.assert_close(plain(IDS).logits, outputs, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(outputs, model_of("mixtral")(IDS).logits, atol=1e-3)

    def test_checkpoints_of_activations_change_no_gradient(self):
        model = model_of("mixtral").train()
        adapt(model, [], parameters=NAMES)
        fill(model)
        found = []
        for enabled in (False, True):
            if enabled:
                with quietly():  # its name changes from version to version
                    model.gradient_checkpointing_enable({"use_reentrant": False})
            loss = model(IDS, labels=IDS).loss
            found.append(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other)


class Block(torch.nn.Module):
    """A module that holds a stack of matrices and a layer."""

    def __init__(self):
        super().__init__()
        self.stack = torch.nn.Parameter(torch.randn(2, 4, 4))
        self.out = torch.nn.Linear(4, 4)

    def forward(self, x):
        return self.out(x @ self.stack[0] + x @ self.stack[1])


def test_layers_inside_of_modules_of_experts_are_refused():
    model = torch.nn.ModuleDict({"block": Block(), "head": torch.nn.Linear(4, 4)})
    before = state(model)
    for targets, more in ((["out", "head"], {}), (["head"], {"train": ["out"]})):
        with pytest.raises(ValueError, match=r"adapt: parameters mean .* holds block\.out: leave out"):
            adapt(model, targets, parameters=["stack"], **more)
        assert_same_state(before, model)
    adapt(model, ["out"])
    with pytest.raises(ValueError, match=r"holds block\.out: leave out"):
        adapt(model, [], parameters=["stack"])
    assert len(adapt(model, ["head"]).layers) == 2


def test_attributes_of_experts_are_those_of_their_module():
    changed = CDDExperts(experts("Mixtral"), NAMES)
    assert changed.num_experts == EXPERTS
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        _ = changed.other
    assert copy.deepcopy(changed).num_experts == EXPERTS


def test_threads_do_not_see_what_another_one_changes():
    changed = fill(CDDExperts(experts("Mixtral"), NAMES))
    given = [each.detach() for each in routed()]
    wanted = changed(*given)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: changed(*given), range(60)))
    assert all(torch.equal(each, wanted) for each in found)
    assert not vars(changed.base).keys() & set(NAMES)


def test_changes_are_fitted_one_by_one():
    planted = StackedCDDAdapter(3, 5, 4, init="normal", alpha=2.0)
    changes = StackedCDDAdapter(3, 5, 4, alpha=0.5)
    assert changes.fit_(planted.dense()).error < 1e-3
    torch.testing.assert_close(changes.dense(), planted.dense(), rtol=1e-2, atol=1e-2)
    with pytest.raises(ValueError, match=r"delta must have shape \(3, 4, 5\), got \(3, 5, 4\)"):
        changes.fit_(planted.dense().mT)
