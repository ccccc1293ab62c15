"""Matrices of experts that one parameter holds, and a change for each of them."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structmat.torch import CDDAdapter, CDDExperts, adapt, load_adapter, remove_adapters, save_adapter
from structmat.torch._changes import dense as dense_changes
from structmat.torch._changes import experts as expert_changes
from structmat.torch._layers import changed_experts
from structmat.torch._layers.changed_experts import call_changed, laid_out, stack_of
from tests.cases import in_one_test
from tests.torch.common import assert_same_state, compiler, fill, kept_bytes, quietly, state, torch

pytest.importorskip("transformers", minversion="5")

EXPERTS, HIDDEN, INNER = 4, 16, 24
NAMES = ("gate_up_proj", "down_proj")
WAYS = ("eager", "grouped_mm", "batched_mm", "one by one", "by rows")
"""With dense sums in each of the ways of transformers; one expert after the other; and with vectors for each row."""


@pytest.fixture
def way(request, monkeypatch):
    """How products are computed, and what transformers calls its own way then."""
    by_sums = request.param in WAYS[:3]
    monkeypatch.setattr(dense_changes, "_OF_ENTRIES", 0.0 if by_sums else float("inf"))
    if request.param == "by rows":  # as on other devices
        monkeypatch.setattr(expert_changes, "_ROWS", 100)  # several pieces
        for module in (changed_experts, expert_changes):
            monkeypatch.setattr(module, "loops_over_experts", lambda x: False)
    return request.param if by_sums else "eager"


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
        sizes = {"in_features": stack.in_features, "out_features": stack.out_features, "n_matrices": stack.n_experts}
        options = {"dtype": torch.float64, "init": "normal", "alpha": 0.7, **options}
        found[name] = [CDDAdapter(**sizes, **options) for _ in range(count)]
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


@pytest.mark.parametrize("way", WAYS, indirect=True)
@settings(max_examples=20)
@given(
    kind=st.sampled_from(["Mixtral", "GPT-OSS"]),
    tokens=st.sampled_from([1, 70]) | st.integers(2, 20),
    options=st.fixed_dictionaries(
        {"count": st.integers(1, 2), "n_factors": st.sampled_from([3, 5])},
        optional={"block_size": st.just("toeplitz") | st.integers(1, HIDDEN)},
    ),
)
def test_outputs_and_gradients_are_those_of_dense_sums(kind, way, tokens, options):
    dtype = torch.float32 if way == "grouped_mm" else torch.float64  # torch has no grouped products of the latter
    module = experts(kind, dtype, way)
    changes = changes_of(module, dtype=dtype, **options)
    given = routed(dtype, tokens=tokens)
    before = dict(vars(module))
    outputs, wanted = call_changed(module, changes, *given), written_out(module, changes, *given)
    error = 1e-5 if way == "grouped_mm" else 1e-10
    assert (outputs - wanted).norm() <= error * wanted.norm()
    weights = torch.randn_like(outputs)
    inputs = [given[0], *trained(changes)]
    found = torch.autograd.grad(outputs, inputs, weights)
    for one, other in zip(found, torch.autograd.grad(wanted, inputs, weights), strict=True):
        assert (one - other).norm() <= error * other.norm()
    assert vars(module) == before  # nothing is in the place of anything any more


@pytest.mark.parametrize("way", ["batched_mm", "one by one", "by rows"], indirect=True)
def test_gradients_are_those_of_differences_twice(way):
    module = experts("GPT-OSS", loop=way)
    changes = changes_of(module)
    x, *routes = routed(tokens=3)
    inputs = x, *trained(changes)

    def function(x, *_):
        return call_changed(module, changes, x, *routes)

    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


def test_matrices_that_are_trained_have_their_gradients(monkeypatch):
    monkeypatch.setattr(dense_changes, "_OF_ENTRIES", float("inf"))
    module = experts("Mixtral")
    changes, given = changes_of(module), routed()
    module.down_proj.requires_grad_()
    wanted = torch.func.functional_call(
        module, {name: getattr(module, name) + each.operator().to_dense() for name, (each,) in changes.items()}, given
    )
    inputs = [module.down_proj, *trained(changes)]
    found = torch.autograd.grad(call_changed(module, changes, *given).square().sum(), inputs)
    torch.testing.assert_close(found, torch.autograd.grad(wanted.square().sum(), inputs))


@pytest.mark.parametrize("is_own", [True, False])
def test_other_modules_have_dense_sums_in_the_place_of_parameters(is_own):
    """Those of one's own, and experts of transformers with a forward pass that asks nobody for a function."""
    module = experts("Mixtral")
    changes = changes_of(module)

    def own(self, x, *_):
        hidden = torch.nn.functional.silu(torch.einsum("tk,enk->etn", x, self.gate_up_proj))[..., :INNER]
        return torch.einsum("etn,ekn->tk", hidden, self.down_proj)

    module.__class__ = type("Own", (torch.nn.Module if is_own else type(module),), {"forward": own})
    given = routed()
    torch.testing.assert_close(call_changed(module, changes, *given), written_out(module, changes, *given))


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
    changes = {"up": [CDDAdapter(5, 3, n_matrices=4, dtype=torch.float64, init="normal")]}
    x = torch.randn(2, 5, dtype=torch.float64)
    plain = torch.func.functional_call(module, {"up": module.up + changes["up"][0].operator().to_dense()}, x)
    outputs = call_changed(module, changes, x)
    torch.testing.assert_close(outputs, plain)
    found, wanted = (torch.autograd.grad(y.square().sum(), trained(changes)) for y in (outputs, plain))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("way", ["one by one"], indirect=True)
def test_nothing_but_inputs_is_kept(way):
    module = experts("Mixtral", torch.float32, way)
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


@pytest.mark.parametrize("way", WAYS, indirect=True)
@in_one_test("autocast", [False, True])
def test_half_precision_rounds_outputs_alone(way, autocast):
    module = experts("Mixtral", torch.float32 if autocast else torch.bfloat16, way)
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
    module = experts("Mixtral", torch.float32)
    adapters = changes_of(module, dropout=0.5, dtype=torch.float32)["down_proj"]
    x, chosen, weights = routed(torch.float32)
    weights = torch.ones_like(weights)
    module._apply_gate = lambda y: y[:, :INNER].contiguous()  # so that what goes into the second product is known
    hidden = torch.stack([x @ matrix[:INNER].T for matrix in module.gate_up_proj])
    torch.manual_seed(1)
    outputs = call_changed(module, {"down_proj": adapters}, x, chosen, weights)
    torch.manual_seed(1)
    wanted = torch.zeros_like(x)
    for expert, (matrix, change) in enumerate(zip(module.down_proj, adapters[0].dense(), strict=True)):
        tokens = torch.where(chosen.reshape(-1) == expert)[0] // 2
        rows = hidden[expert, tokens]
        if len(rows):
            wanted = wanted.index_add(0, tokens, rows @ matrix.T + torch.nn.functional.dropout(rows) @ change.T)
    torch.testing.assert_close(outputs, wanted)


def test_dropout_of_dense_sums_is_the_same_for_all_rows():
    class Reader(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.up = torch.nn.Parameter(torch.zeros(2, 6, 40))

        def forward(self, x):
            return x @ self.up[0].T, x @ self.up[1].T

    changed = fill(CDDExperts(Reader(), ["up"], dropout=0.5))
    x = torch.eye(40)
    first, second = changed(x)
    dense = changed.adapters["up"].dense()
    for outputs, change in zip((first, second), dense, strict=True):
        dropped = outputs.eq(0).all(1)  # by input features
        assert 5 < dropped.sum() < 35
        torch.testing.assert_close(outputs[~dropped], 2 * change.T[~dropped])
    torch.testing.assert_close(changed.eval()(x), tuple(x @ change.T for change in dense))


def test_experts_without_tokens_get_no_gradient_and_no_time(monkeypatch):
    calls = []
    apply = changed_experts.apply_change
    monkeypatch.setattr(changed_experts, "apply_change", lambda *given: (calls.append(1), apply(*given))[1])
    monkeypatch.setattr(dense_changes, "_OF_ENTRIES", float("inf"))
    changed = fill(CDDExperts(experts("Mixtral", loop="grouped_mm"), NAMES))
    x, chosen, weights = routed()
    changed(x, torch.zeros_like(chosen), weights).sum().backward()
    assert len(calls) == 2  # of one expert and two parameters
    for vector in (vector for adapter in changed.adapters.values() for vector in adapter.vectors):
        assert vector.grad[0].any()
        assert not vector.grad[1:].any()
    changed.zero_grad()
    x = x.detach().requires_grad_()
    changed(x[:0], chosen[:0], weights[:0]).sum().backward()
    assert not any(p.grad.any() for p in changed.parameters() if p.requires_grad)


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
    planted = CDDAdapter(5, 4, n_matrices=3, init="normal", alpha=2.0)
    changes = CDDAdapter(5, 4, n_matrices=3, alpha=0.5)
    assert changes.fit_(planted.dense()).error < 1e-3
    torch.testing.assert_close(changes.dense(), planted.dense(), rtol=1e-2, atol=1e-2)
    with pytest.raises(ValueError, match=r"delta must have shape \(3, 4, 5\), got \(3, 5, 4\)"):
        changes.fit_(planted.dense().mT)
