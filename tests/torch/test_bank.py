"""`AdapterBank`: each sample of a batch has the change of its own adapter, as if it were computed alone."""

from __future__ import annotations

import copy
import json
import threading

import pytest

torch = pytest.importorskip("torch")

from torch.utils.checkpoint import checkpoint

from structmat.torch import (
    AdapterBank,
    CDDConv,
    CDDEmbedding,
    CDDMultiheadAttention,
    adapt,
    load_adapter,
    remove_adapters,
    save_adapter,
    using_adapter,
)
from tests.torch.common import adapted_mlp, compiler, conv1d, fill, mlp, quietly

SIZES = (6, 9, 4)
NAMES = ["b", None, "a", "b"]


def tenants(folder, sizes=SIZES, dtype=torch.float64, names="abc", filled=fill, **options):
    """Folders of adapters with other values of `alpha`, and the adapted models, which have one base."""
    torch.manual_seed(0)
    base = mlp(sizes, dtype)
    models = {}
    for i, name in enumerate(names):
        models[name] = mlp(sizes, dtype)
        models[name].load_state_dict(base.state_dict())
        adapt(models[name], alpha=0.5 + i / 3, **options)
        save_adapter(filled(models[name]), folder / name)
    return base, models


def bank_of(base, folder, names="abc", capacity=8):
    """A bank of all folders, around the base."""
    load_adapter(base, folder / names[0])
    bank = AdapterBank(base, capacity=capacity)
    for name in names:
        bank.add(name, folder / name)
    return bank


def alone(x, names, models, base):
    """Outputs of each sample from a model with its adapter alone."""
    return torch.stack([(base if name is None else models[name])(x[i]) for i, name in enumerate(names)])


def test_beams_and_packed_sequences_have_the_changes_of_their_samples(tmp_path):
    base, models = tenants(tmp_path, (5, 7), block_size=3, n_factors=5)
    plain = mlp((5, 7))
    plain.load_state_dict(base.state_dict())
    bank = bank_of(base, tmp_path)
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    repeated = x.repeat_interleave(3, 0)  # as beam search does
    with bank.use(NAMES, beams=3):
        expected = alone(repeated, [name for name in NAMES for _ in range(3)], models, plain)
        torch.testing.assert_close(base(repeated), expected)
    packed, lengths = x.reshape(1, 12, 5), [5, 1, 2, 4]
    of_tokens = [name for name, length in zip(NAMES, lengths, strict=True) for _ in range(length)]
    with bank.use(NAMES, lengths=lengths):
        got = base(packed)
    torch.testing.assert_close(got[0], alone(packed[0], of_tokens, models, plain))
    with bank.use(of_tokens):
        assert torch.equal(base(packed), got)


def test_adapters_come_go_and_change_places_without_a_new_model(tmp_path):
    base, models = tenants(tmp_path, names="abcde")
    plain = mlp(SIZES)
    plain.load_state_dict(base.state_dict())
    bank = bank_of(base, tmp_path, "ab", capacity=2)
    x = torch.randn(4, 3, 6, dtype=torch.float64)
    stacks = list(bank.parameters())

    def check(names):
        with torch.no_grad(), bank.use(names):
            torch.testing.assert_close(base(x), alone(x, names, models, plain))

    check(NAMES)
    bank.add("c", tmp_path / "c")
    assert (len(bank), bank.capacity) == (3, 4)
    assert all(a is b for a, b in zip(stacks, bank.parameters(), strict=True))
    assert bank.n_bytes == 5 * 8 * models["a"][0].adapter.n_parameters + 5 * 8 * models["a"][2].adapter.n_parameters
    check(["c", "a", None, "b"])
    place = bank.number("a")
    bank.evict("a")
    assert list(bank) == ["b", "c"]
    assert "a" not in bank
    assert not any(stack[place].any() for stack in bank.parameters())
    bank.add("d", tmp_path / "d")
    assert bank.number("d") == place
    check(["c", "d", None, "b"])
    bank.replace("b", tmp_path / "e")
    models["b"] = models["e"]
    check(["c", "d", None, "b"])
    with torch.no_grad(), bank.use(["c", "d", "b", "b"]):  # also while a batch is announced
        before = base(x)
        bank.replace("d", tmp_path / "c")
        after = base(x)
    assert torch.equal(after[2:], before[2:])
    torch.testing.assert_close(after[1], models["c"](x[1]))
    torch.testing.assert_close(base(x), plain(x))  # outside of a block
    bank.remove()
    torch.testing.assert_close(base(x), models["a"](x))


def test_folders_are_those_of_single_adapters(tmp_path):
    base, models = tenants(tmp_path)
    fresh = mlp(SIZES)
    fresh.load_state_dict(base.state_dict())
    bank = bank_of(base, tmp_path)
    bank.add("new")
    bank.save("c", tmp_path / "again")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()
    with pytest.raises(FileExistsError):
        bank.save("c", tmp_path / "again")
    load_adapter(fresh, bank.save("new", tmp_path / "new"))
    x = torch.randn(2, 6, dtype=torch.float64)
    torch.testing.assert_close(fresh(x), models["a"](x))  # what the model had when the bank was made


@pytest.mark.parametrize(("dtype", "steps", "tolerance"), [(torch.float64, 3, 1e-10), (torch.float32, 1, 1e-6)])
def test_gradients_are_those_of_separate_runs(dtype, steps, tolerance, tmp_path):
    names = ["a", "c", "b", None, "a", "c"]
    # With normal values, which keep the size of activations, single precision is as good as it can be.
    base, models = tenants(tmp_path, dtype=dtype, filled=lambda model: model, init="normal")
    bank = bank_of(base, tmp_path)
    base.train()
    optimizer = torch.optim.AdamW(bank.parameters(), lr=1e-2)
    others = {
        name: torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        for name, model in models.items()
    }
    x, y = torch.randn(6, 5, 6, dtype=dtype), torch.randn(6, 5, 4, dtype=dtype)
    for _ in range(steps):
        with bank.use(names):
            outputs = base(x)
        (outputs - y).square().mean((1, 2)).sum().backward()
        for name, model in models.items():
            own = [i for i, each in enumerate(names) if each == name]
            (model(x[own]) - y[own]).square().mean((1, 2)).sum().backward()
            for path in (0, 2):
                pairs = zip(base[path].adapter.stack.vectors, model[path].adapter.vectors, strict=True)
                for stack, vector in pairs:
                    difference = (stack.grad[bank.number(name)] - vector.grad).abs().max()
                    assert difference <= tolerance * vector.grad.abs().max()
            others[name].step()
            others[name].zero_grad()
        assert not any(stack.grad[0].any() for stack in bank.parameters())
        optimizer.step()
        optimizer.zero_grad()
    for name, model in models.items():
        with bank.use([name]):
            torch.testing.assert_close(base(x[:1]), model(x[:1]), rtol=1e-5, atol=1e-5)


def test_dropout_is_of_the_changes_alone(tmp_path):
    base, _ = tenants(tmp_path, dropout=0.5)
    bank = bank_of(base, tmp_path)
    x = torch.randn(4, 30, 6, dtype=torch.float64)
    with bank.use(NAMES):
        first, second = base.train()(x), base(x)
        assert not torch.allclose(first[0], second[0])
        torch.testing.assert_close(first[1], second[1])
        kept = base.eval()(x)
        assert torch.equal(kept, base(x))


def test_bases_of_every_kind_and_autocast(tmp_path):
    class Doubled(torch.nn.Module):
        """A layer that computes its weight, as quantised ones do."""

        def __init__(self):
            super().__init__()
            self.in_features, self.out_features = 6, 9
            self.register_buffer("integers", torch.arange(54).view(9, 6) % 7)

        def forward(self, x):
            return x @ self.integers.T.to(x.dtype)

    class DoubledLinear(Doubled):
        pass

    for base in (DoubledLinear(), conv1d(9, 6, torch.float32), torch.nn.Linear(6, 9, bias=False)):
        model = torch.nn.Sequential(base)
        adapt(model, ["0"], init="normal")
        x = torch.randn(3, 4, 6)
        plain, single = base(x), model(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(x)
        bank = AdapterBank(model)
        bank.add("a")
        with bank.use(["a", None, "a"]):
            mixed = model(x)
            with torch.autocast("cpu", torch.bfloat16):
                mixed_half = model(x)
        torch.testing.assert_close(mixed, torch.stack([single[0], plain[1], single[2]]))
        assert mixed_half.dtype == half.dtype
        torch.testing.assert_close(mixed_half[0], half[0], rtol=2e-2, atol=2e-2)
        bank.remove()


@compiler
def test_compiled_models_stay_compiled_when_adapters_change(tmp_path):
    base, models = tenants(tmp_path, dtype=torch.float32)
    plain = mlp(SIZES, torch.float32)
    plain.load_state_dict(base.state_dict())
    bank = bank_of(base, tmp_path, "ab")
    x = torch.randn(4, 3, 6)
    compiled = torch.compile(base, fullgraph=True, backend="aot_eager")
    graphs = torch._dynamo.utils.counters["stats"]
    with quietly(), torch.no_grad():
        with bank.use(NAMES):
            torch.testing.assert_close(compiled(x), alone(x, NAMES, models, plain))
        before = graphs["unique_graphs"]
        bank.add("c", tmp_path / "c")
        bank.evict("b")
        for names in (["c", "c", None, "a"], ["a", "a", "a", "c"]):
            with bank.use(names):
                torch.testing.assert_close(compiled(x), alone(x, names, models, plain))
        assert graphs["unique_graphs"] == before


@compiler
def test_compiled_models_train_as_others_do(tmp_path):
    base, _ = tenants(tmp_path, dtype=torch.float32)
    bank, x = bank_of(base, tmp_path), torch.randn(4, 3, 6)
    compiled = torch.compile(base, fullgraph=True, backend="aot_eager")
    with quietly(), bank.use(NAMES[1:3] * 2):
        outputs = compiled(x)
    outputs.square().sum().backward()
    found = [stack.grad.clone() for stack in bank.parameters()]
    with bank.use(NAMES[1:3] * 2):
        for stack in bank.parameters():
            stack.grad = None
        base(x).square().sum().backward()
    for stack, gradient in zip(bank.parameters(), found, strict=True):
        torch.testing.assert_close(stack.grad, gradient, rtol=1e-4, atol=1e-5 * gradient.abs().max().item())


def test_what_does_not_fit_is_refused_and_changes_nothing(tmp_path):
    base, _ = tenants(tmp_path)
    tenants(tmp_path / "blocks", block_size=2)
    save_adapter(adapted_mlp((6, 9, 4), exclude=["2"]), tmp_path / "layers")
    bank = bank_of(base, tmp_path)
    x = torch.randn(4, 3, 6, dtype=torch.float64)
    for call, message in (
        (lambda: bank.add("a"), "'a' is there already; replace it"),
        (lambda: bank.add("d", tmp_path / "layers"), r"other layers than the model: \['2'\]"),
        (lambda: bank.add("d", tmp_path / "blocks" / "a"), "made for another model, or with other settings"),
        (lambda: bank.replace("a", tmp_path / "layers"), "other layers"),
        (lambda: bank.replace("d", tmp_path / "a"), "AdapterBank.replace: name 'd' is no adapter of the bank, .* a, b"),
        (lambda: bank.evict("d"), "AdapterBank.evict: name 'd'"),
        (lambda: bank.save("d", tmp_path / "d"), "AdapterBank.save: name 'd'"),
        (lambda: bank.use(["d"]).__enter__(), "AdapterBank.use: name 'd'"),
        (lambda: bank.use([]).__enter__(), r"names must be one for each sample, got \[\]"),
        (lambda: bank.use("ab").__enter__(), "must be one for each sample, got 'ab'"),
        (lambda: bank.use(["a"], lengths=[1, 2]).__enter__(), "lengths must be one for each of 1 names, got shape"),
        (lambda: AdapterBank(base), "has a bank already, in 0"),
        (lambda: AdapterBank(mlp()), "has no adapted layer: call adapt"),
        (lambda: save_adapter(base, tmp_path / "d"), "has the adapters of an AdapterBank"),
        (lambda: load_adapter(base, tmp_path / "a"), "has the adapters of an AdapterBank"),
        (lambda: using_adapter(base, tmp_path / "a").__enter__(), "has the adapters of an AdapterBank"),
        (lambda: remove_adapters(base, merge=True), "has the adapters of an AdapterBank"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert list(bank) == ["a", "b", "c"]
    for count in (2, 3):  # of four samples: two names would be an answer by the wrong adapter
        text = rf"or for each token, got {count} for inputs of shape \(4, 3, 6\); .* say how often by beams"
        with bank.use(NAMES[:count]), pytest.raises(ValueError, match=text):
            base(x)
    with bank.use(NAMES[:2]), quietly(), pytest.raises(ValueError, match="must not be a nested tensor"):
        base(torch.nested.nested_tensor([x[0], x[1, :2]]))
    with pytest.raises(TypeError, match=r"AdapterBank.add: name must be a str, got int"):
        bank.add(3)
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got list"):
        AdapterBank([])


def test_folders_with_more_than_an_adapter_and_other_kinds_of_layers_are_refused(tmp_path):
    model = mlp()
    adapt(model, ["0"], train=["2"])
    save_adapter(model, tmp_path / "head")
    with_head = AdapterBank(model)
    model = mlp()
    adapt(model, ["0"])
    save_adapter(model, tmp_path / "none")
    with pytest.raises(ValueError, match=r"lacks 2\.bias, of which each adapter has its own"):
        with_head.add("none", tmp_path / "none")
    bank = AdapterBank(model)
    with pytest.raises(ValueError, match=r"holds 2\.(weight|bias) beside the adapter, .* serve it by using_adapter"):
        bank.add("a", tmp_path / "head")
    bank.add("a")
    settings = json.loads((bank.save("a", tmp_path / "a") / "adapter_config.json").read_text())
    assert settings["target_modules"] == ["0"]
    settings["factor_scale"] = 7.0
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"has factor_scale=7\.0, the model 30\.0"):
        bank.add("b", tmp_path / "a")
    for layer in (
        CDDConv(torch.nn.Conv1d(4, 4, 3)),
        CDDEmbedding(torch.nn.Embedding(5, 4)),
        CDDMultiheadAttention(torch.nn.MultiheadAttention(4, 2)),
    ):
        with pytest.raises(ValueError, match=f"has 0, a {type(layer).__name__} with a CDDAdapter: adapters of whole"):
            AdapterBank(torch.nn.Sequential(layer))


# ---- what may never happen between two calls


def small_bank(tmp_path, sizes=(6, 6), names="abc"):
    """A bank, its model, and functions of the model alone for each name."""
    base, models = tenants(tmp_path, sizes, names=names)
    plain = mlp(sizes)
    plain.load_state_dict(base.state_dict())
    return base, models, plain, bank_of(base, tmp_path, names)


def test_other_vectors_count_at_once_in_one_block(tmp_path):
    """However they came in: what is kept for a batch may not outlive the values that it is made of."""
    base, models, plain, bank = small_bank(tmp_path)
    x = torch.randn(4, 3, 6, dtype=torch.float64)
    vectors = {name: p for name, p in base.named_parameters() if "adapter" in name}
    nothing = {name: torch.zeros_like(p) for name, p in vectors.items()}
    with torch.no_grad(), bank.use(NAMES):
        expected = alone(x, NAMES, models, plain)
        for _ in range(2):
            torch.testing.assert_close(base(x), expected)
            torch.testing.assert_close(torch.func.functional_call(base, nothing, (x,)), plain(x))
        other = {name: torch.randn_like(p) for name, p in vectors.items()}
        foreign = torch.func.functional_call(base, other, (x,))
        torch.testing.assert_close(base(x), expected)
        state = {**base.state_dict(), **other}
        base.load_state_dict(state, assign=True)
        torch.testing.assert_close(base(x), foreign)
        for p in base[0].adapter.stack.vectors:
            p.data.mul_(0.0)
        torch.testing.assert_close(base(x), plain(x))


def test_gradients_of_functions_after_a_plain_call(tmp_path):
    base, _, _, bank = small_bank(tmp_path)
    x = torch.randn(4, 3, 6, dtype=torch.float64)
    vectors = {name: p.detach() for name, p in base.named_parameters() if "adapter" in name}
    with bank.use(NAMES):
        base(x).square().sum().backward()
        gradients = torch.func.grad(lambda own: torch.func.functional_call(base, own, (x,)).square().sum())(vectors)
    for name, p in base.named_parameters():
        if "adapter" in name:
            torch.testing.assert_close(gradients[name], p.grad)
            assert p.grad.any()


def test_functions_of_all_parameters_take_those_of_heads_as_well():
    """Parameters that are given are tensors, in the base of a head as in its stacks."""
    torch.manual_seed(0)
    base = mlp((6, 8, 3))
    adapt(base, ["0"], init="normal", train=[str(len(base) - 1)])
    bank = AdapterBank(base)
    bank.add("a")
    x = torch.randn(2, 6, dtype=torch.float64)
    given = {name: torch.randn_like(p) for name, p in base.named_parameters()}
    with torch.no_grad(), bank.use(["a", None]):
        found = torch.func.functional_call(base, given, (x,))
        base.load_state_dict({**base.state_dict(), **given})
        torch.testing.assert_close(found, base(x))


class Mixture(torch.nn.Module):
    """Two layers in a list, each of which gets the tokens that a mask chooses."""

    def __init__(self):
        super().__init__()
        self.parts = torch.nn.ModuleList(torch.nn.Linear(6, 6).double() for _ in range(2))

    def forward(self, x, chosen):
        y = torch.zeros_like(x)
        for i, part in enumerate(self.parts):
            if (chosen == i).any():
                y[chosen == i] = part(x[chosen == i])
        return y


@pytest.mark.filterwarnings("ignore:adapted layers that the forward pass did not call")
@pytest.mark.filterwarnings("ignore:adapted layers that the forward pass did not call")
def test_rows_that_are_not_known_are_refused(tmp_path):
    """A layer may never guess whose rows it has: each answer is right, or there is none."""
    torch.manual_seed(0)
    model, models = Mixture(), {}
    for name in "ab":
        models[name] = Mixture()
        models[name].load_state_dict(model.state_dict())
        adapt(models[name], init="normal")
        save_adapter(models[name], tmp_path / name)
    load_adapter(model, tmp_path / "a")
    bank = AdapterBank(model)
    for name in "ab":
        bank.add(name, tmp_path / name)
    answers = 0
    for _ in range(60):
        x, chosen = torch.randn(2, 3, 6, dtype=torch.float64), torch.randint(0, 2, (2, 3))
        with bank.use(["a", "b"]):
            try:
                got = model(x, chosen)
            except ValueError as error:
                assert "is not known" in str(error)  # noqa: PT017
                continue
        answers += 1
        expected = [models[name](x[i : i + 1], chosen[i : i + 1]) for i, name in enumerate("ab")]
        torch.testing.assert_close(got, torch.cat(expected))
    assert answers < 30

    class TokensFirst(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(6, 6).double()

        def forward(self, x):
            return self.layer(x.transpose(0, 1)).transpose(0, 1)

    first = TokensFirst()
    adapt(first, init="normal")
    bank = AdapterBank(first)
    bank.add("a")
    with bank.use(["a", None]), pytest.raises(ValueError, match="tokens on the first axis"):
        first(torch.randn(2, 4, 6, dtype=torch.float64))


def test_flattened_rows_are_those_of_the_samples_in_order():
    class Flattened(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layers = torch.nn.ModuleList([layer])

        def forward(self, x):
            return self.layers[0](x.reshape(-1, 6)).reshape(x.shape)

    model = Flattened(torch.nn.Linear(6, 6).double())
    adapt(model, init="normal")
    bank = AdapterBank(model)
    bank.add("a")
    for tokens in (3, 1, 2):
        x = torch.randn(2, tokens, 6, dtype=torch.float64)
        with bank.use(["a", None]):
            mixed = model(x)
        with bank.use(["a"] * 2):
            torch.testing.assert_close(mixed[0], model(x)[0])
        torch.testing.assert_close(mixed[1], model(x)[1])


def test_experts_are_refused_when_the_bank_is_made():
    model = torch.nn.ModuleDict({"experts": torch.nn.ModuleList([torch.nn.Linear(6, 6)])})
    adapt(model)
    with pytest.raises(ValueError, match=r"has experts\.0, which is of an expert"):
        AdapterBank(model)


def test_an_abandoned_pass_does_not_forbid_later_ones(tmp_path):
    """Whatever is noted for checkpointing goes with the outputs."""
    base, _, _, bank = small_bank(tmp_path)
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    for use_reentrant in (True, False):
        with bank.use(["a", "b"]):
            abandoned = checkpoint(base.train(), x, use_reentrant=use_reentrant)
            with torch.no_grad():
                base(x)
        del abandoned
        with bank.use(["c", "b"]):
            checkpoint(base, x, use_reentrant=use_reentrant).sum().backward()


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointed_layers_are_computed_with_the_names_of_their_forward_pass(use_reentrant, tmp_path):
    base, _, _, bank = small_bank(tmp_path)
    base.train()
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)

    def loss(scale):
        return scale * checkpoint(base, x, use_reentrant=use_reentrant).square().sum()

    for names in (["a", "b"], ["b", "b"], ["c", None]):  # each step in a block of its own
        with bank.use(names):
            loss(1.0).backward()
            found = [p.grad.clone() for p in bank.parameters()]
            for p in bank.parameters():
                p.grad = None
            base(x).square().sum().backward()
            for p, gradient in zip(bank.parameters(), found, strict=True):
                torch.testing.assert_close(p.grad, gradient)
                p.grad = None
    with bank.use(["a", "b"]):
        first = loss(1.0)
    with bank.use(["b", "c"]):
        second = loss(2.0)
        with pytest.raises(ValueError, match="inside of the block of use"):
            (first + second).backward()
    del first, second
    with bank.use(["a", "b"]):
        outside = loss(1.0)
    with pytest.raises(ValueError, match="inside of the block of use"):
        outside.backward()


def test_the_base_can_be_called_in_a_hook_of_the_backward_pass(tmp_path):
    base, _, plain, bank = small_bank(tmp_path)
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    seen = []
    with bank.use(["a", None]):
        y = base(x)
    y.register_hook(lambda _: seen.append(base(x).detach()))
    y.sum().backward()
    torch.testing.assert_close(seen[0], plain(x))


def test_a_second_thread_gets_an_error(tmp_path):
    base, _, plain, bank = small_bank(tmp_path)
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    errors = []

    def elsewhere():
        for call in (lambda: base(x), lambda: bank.use(["b", "b"]).__enter__()):
            try:
                call()
            except ValueError as error:
                errors.append(str(error))

    with bank.use(["a", "a"]):
        before = base(x)
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        torch.testing.assert_close(base(x), before)
    assert len(errors) == 2
    assert all("another thread" in each for each in errors)
    torch.testing.assert_close(base(x), plain(x))


def test_places_copies_states_and_casts(tmp_path):
    base, models, plain, bank = small_bank(tmp_path)
    x = torch.randn(4, 3, 6, dtype=torch.float64)
    with bank.use(NAMES):
        expected = base(x)
        with pytest.raises(ValueError, match="is used by a batch"):
            bank.evict("b")
        bank.evict("c")
        bank.add("d", tmp_path / "c")
        torch.testing.assert_close(base(x), expected)
        copied = copy.deepcopy(bank)
    torch.testing.assert_close(copied.model(x), plain(x))
    with copied.use(NAMES):
        torch.testing.assert_close(copied.model(x), expected)
    # A new bank of the same names is the same after `load_state_dict`, alphas included.
    fresh = mlp((6, 6))
    load_adapter(fresh, tmp_path / "a")
    other = AdapterBank(fresh)
    for name in ("a", "b", "d"):
        other.add(name)
    fresh.load_state_dict(base.state_dict())
    with other.use(["b", None, "a", "b"]):
        torch.testing.assert_close(fresh(x), expected)
    load_adapter(plain, other.save("b", tmp_path / "again"))
    torch.testing.assert_close(plain(x), models["b"](x))
    base.bfloat16()
    bank.remove()
    assert {p.dtype for p in base.parameters()} == {torch.bfloat16}
    for call in (lambda: bank.add("e"), lambda: bank.use(["a"]), lambda: bank.evict("a")):
        with pytest.raises(ValueError, match=r"taken out of its model by remove\(\)"):
            call()


def test_a_bank_that_grows_within_a_block(tmp_path):
    _, models, plain, _ = small_bank(tmp_path)
    model = mlp((6, 6))
    model.load_state_dict(plain.state_dict())
    load_adapter(model, tmp_path / "a")
    bank = AdapterBank(model, capacity=1)
    bank.add("a", tmp_path / "a")
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    with torch.no_grad(), bank.use(["a", None]):
        expected = model(x)
        bank.add("b", tmp_path / "b")
        torch.testing.assert_close(model(x), expected)
        bank.replace("a", tmp_path / "c")
        torch.testing.assert_close(model(x), alone(x, ["c", None], models, plain))
        with bank.use(["b", "a"]):
            torch.testing.assert_close(model(x), alone(x, ["b", "c"], models, plain))
        torch.testing.assert_close(model(x), alone(x, ["c", None], models, plain))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bank_that_has_grown_trains_while_the_last_loss_is_held(dtype):
    """The graph of that loss holds the node that takes the gradients of the former shapes."""
    torch.manual_seed(0)
    base = mlp((6, 8, 3), dtype)
    adapt(base, ["0"], init="normal", train=[str(len(base) - 1)])
    bank = AdapterBank(base, capacity=1)
    bank.add("a")
    x = torch.randn(2, 6, dtype=dtype)
    losses = []
    for name in ("b", "c"):
        with bank.use(["a", "a"]):
            losses.append(base(x).sum())
        losses[-1].backward()
        before = [own.clone() for own in bank.parameters()]
        grown = list(bank.parameters())
        bank.add(name)
        for own, former, same in zip(bank.parameters(), before, grown, strict=True):
            assert own is same
            assert own.grad is None
            torch.testing.assert_close(own[: len(former)], former)
    with bank.use(["a", "c"]):
        base(x).sum().backward()
    assert all(own.grad.shape == own.shape for own in bank.parameters())


def test_another_alpha_counts_at_once_in_a_bank_that_has_grown(tmp_path):
    """The alphas are another tensor then, and those of the batch that runs must not be the old ones."""
    _, models, plain, bank = small_bank(tmp_path, names="ab")
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    with torch.no_grad(), bank.use(["a", None]):
        bank.model(x)
        bank.add("c", tmp_path / "b")
        while bank.capacity < 8:
            bank.add(f"more {len(bank)}", tmp_path / "b")
        bank.model(x)
        for layer in bank._layers.values():
            layer.adapter.alphas[bank._numbers["a"]] *= 3
        change = models["a"](x)[:1] - plain(x)[:1]
        torch.testing.assert_close(bank.model(x)[:1], plain(x)[:1] + 3 * change)


def test_wrong_arguments_of_a_batch_are_named(tmp_path):
    _, _, _, bank = small_bank(tmp_path)
    for call, kind, text in (
        (lambda: bank.use(torch.tensor([1])), TypeError, "names must be a sequence of names"),
        (lambda: bank.use([["a"]]), TypeError, r"must be texts or None, one for each sample, got \['a'\]"),
        (lambda: bank.use(["a"], lengths=[1.5]), TypeError, "lengths must be integers"),
        (lambda: bank.use(["a"], lengths="3"), TypeError, "lengths must be a sequence of numbers of tokens, got '3'"),
        (lambda: bank.use(["a"], lengths=[None]), TypeError, r"lengths must be integers, .* got \[None\]"),
        (lambda: bank.use(["a"], lengths=["a"]), TypeError, r"lengths must be integers, .* got \['a'\]"),
        (lambda: bank.use(["a"], lengths=torch.ones(1, 1, dtype=int)), ValueError, r"got shape \(1, 1\)"),
        (lambda: bank.save("a", tmp_path / "new", bits=4.0), TypeError, "bits must be an integer, got 4.0"),
        (lambda: bank.use(["a"], lengths=[-1]), ValueError, "lengths must not be negative, got -1"),
        (lambda: bank.use(["nobody"]), ValueError, "'nobody' is no adapter"),  # without `with`, too
        (lambda: bank.add(""), ValueError, "name must not be empty"),
    ):
        with pytest.raises(kind, match=text):
            call()
    with pytest.warns(RuntimeWarning, match=r"use: has no effect by itself: call the model inside of `with"):
        bank.use(["a"])


# ---- heads


def test_each_adapter_has_its_own_head(tmp_path):
    """Outputs and gradients are those of each adapter alone with its head, and folders hold both."""
    base, models = mlp((6, 8, 3)), {}
    plain = mlp((6, 8, 3))
    plain.load_state_dict(base.state_dict())
    head = str(len(base) - 1)
    for seed, name in enumerate("ab"):
        model = models[name] = mlp((6, 8, 3))
        model.load_state_dict(base.state_dict())
        torch.manual_seed(seed)
        adapt(model, ["0"], init="normal", train=[head])
        torch.nn.init.normal_(model[-1].weight)
        torch.nn.init.normal_(model[-1].bias)
        save_adapter(model, tmp_path / name)
    adapt(base, ["0"], train=[head])
    bank = AdapterBank(base, capacity=1)
    for name in "ab":
        bank.add(name, tmp_path / name)
    names = ["b", None, "a", "b"]
    x = torch.randn(4, 3, 6, dtype=torch.float64)
    with bank.use(names):
        y = base(x)
    torch.testing.assert_close(y, alone(x, names, models, plain))
    y.square().sum().backward()
    for name, model in models.items():
        rows = [i for i, own in enumerate(names) if own == name]
        model(x[rows]).square().sum().backward()
        for kind in ("weight", "bias"):
            found = base[-1].stacks[kind].grad[bank.number(name)]
            torch.testing.assert_close(found, getattr(model[-1], kind).grad)
    assert not base[-1].stacks["weight"].grad[0].any()
    fresh = mlp((6, 8, 3))
    fresh.load_state_dict(plain.state_dict())
    load_adapter(fresh, bank.save("b", tmp_path / "again"))
    torch.testing.assert_close(fresh(x), models["b"](x))
    bank.add("new")
    with bank.use(["new"] * 4):
        torch.testing.assert_close(base(x), plain(x))
    bank.remove()
    assert type(base[-1]) is torch.nn.Linear
    torch.testing.assert_close(base(x), plain(x))
