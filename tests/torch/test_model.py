"""Whole models: which layers are adapted, what trains, layers that are never called, plain models again."""

from __future__ import annotations

import contextlib
import copy
import pickle
import warnings

import pytest

from tests.cases import in_one_test

torch = pytest.importorskip("torch")

from torch import nn

from structmat.torch import AdapterBank, CDDLinear, adapt, load_adapter, remove_adapters, save_adapter, using_adapter
from tests.torch.common import adapted_by_peft, adapted_mlp, assert_same_state, compiler, fill, mlp, quietly, state

TOKENS = torch.tensor([[1, 2, 3, 4], [0, 9, 10, 3]])


class Net(nn.Module):
    """One layer of every kind, and some that cannot be adapted."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 6)
        self.block = nn.ModuleDict({"query": nn.Linear(6, 6), "value": nn.Linear(6, 6, bias=False)})
        self.mix, self.wide = nn.Conv1d(6, 4, 1), nn.Conv1d(4, 4, 3, padding=1)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, tokens):
        x = self.table(tokens)
        x = torch.tanh(self.block["query"](x)) * self.block["value"](x)
        x = self.wide(self.mix(x.transpose(1, 2))).transpose(1, 2)
        return self.head(self.norm(x))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


class TestAdapt:
    @pytest.mark.parametrize(("targets", "options", "found"), [
        ("all-linear", {}, ["block.query", "block.value", "head"]),
        (["query", "head"], {}, ["block.query", "head"]),
        (["block.query"], {}, ["block.query"]),
        (r"block\..*", {}, ["block.query", "block.value"]),
        (["table", "mix"], {}, ["table", "mix"]),
        ("all-linear", {"exclude": ["block"]}, ["head"]),
        ("all-linear", {"train": ["head"]}, ["block.query", "block.value"]),
    ])  # fmt: skip
    def test_targets(self, net, targets, options, found):
        before = net(TOKENS)
        assert list(adapt(net, targets, **options).layers) == found
        assert torch.equal(net(TOKENS), before)
        net(TOKENS).square().sum().backward()
        first = {f"{path}.adapter.vectors.0" for path in found}
        assert {name for name, p in net.named_parameters() if p.grad is not None and p.grad.any()} - first == (
            {"head.weight", "head.bias"} if "train" in options else set()
        )
        remove_adapters(net)
        assert torch.equal(net(TOKENS), before)

    @pytest.mark.parametrize(("targets", "options", "error", "text"), [
        (["nothing"], {}, ValueError, r"\['nothing'\] match no layer; could be adapted: table, block.query"),
        (["query", "nothing"], {}, ValueError, r"targets \['nothing'\] matches no module"),
        ("(", {}, ValueError, "no regular expression"),
        (7, {}, TypeError, "targets must be a regular expression or a list of names, got 7"),
        (["norm"], {}, TypeError, r"match norm, a LayerNorm; linear layers, .* and attention modules of torch can be"),
        (["query"], {"exclude": ["block"]}, ValueError, "match no layer"),
        (["query"], {"train": ["typo"]}, ValueError, r"train \['typo'\] matches no module"),
        (["query", "head"], {"block_size": 9}, ValueError, "block_size .*, in head"),
        (["query"], {"modules_to_save": 1}, TypeError, "keyword argument 'modules_to_save' of LoRA: write train"),
        (["query"], {"r": 8}, TypeError, "'r' of LoRA: leave it out, n_factors and block_size set .*, in block.query"),
        (["query"], {"alfa": 8}, TypeError, "unexpected keyword argument 'alfa', did you mean 'alpha'?"),
        (["query"], {"bias": "lora_only"}, TypeError, "bias says whether a layer without a base has one"),
        (["querry", "valu"], {}, ValueError, "match no layer; could be adapted: .*; did you mean 'query', 'value'?"),
        (["query", "valu"], {}, ValueError, r"targets \['valu'\] matches no module; did you mean 'value'?"),
        ("query", {}, ValueError, r"a string is a regular expression for whole paths, write \['query'\] for ends"),
    ])  # fmt: skip
    def test_what_is_refused_changes_nothing(self, net, targets, options, error, text):
        before = state(net)
        with pytest.raises(error, match=text):
            adapt(net, targets, **options)
        assert_same_state(before, net)

    def test_many_layers_are_named_by_the_ends_of_their_paths(self):
        block = nn.ModuleDict({"query": nn.Linear(2, 2), "out": nn.Sequential(nn.Linear(2, 2), nn.Dropout())})
        model = nn.Sequential(*(copy.deepcopy(block) for _ in range(5)))
        with pytest.raises(ValueError, match=r"could be adapted: query \(5\), out\.0 \(5\); did you mean 'out\.0'\?"):
            adapt(model, ["out.1.0"])

    def test_further_calls_extend_the_adapter(self, net):
        adapt(net, ["query"], train=["norm"])
        vectors = trained(net)
        with pytest.raises(ValueError, match=r"match block\.query, which is adapted already"):
            adapt(net, ["query"])
        assert adapt(net, n_factors=5).layers == ("block.query", "block.value", "head")
        assert vectors < trained(net)
        assert net.block["value"].adapter.n_factors == 5

    def test_shared_modules_are_wrapped_once_everywhere(self):
        shared = nn.Linear(5, 5)
        model = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared, nn.Linear(5, 5))})
        for targets in ("all-linear", ["a"], ["b.0"], ["a", "0"]):
            twin = copy.deepcopy(model)
            adapt(twin, targets)
            assert twin["a"] is twin["b"][0]
            assert type(twin["a"].base) is nn.Linear
            remove_adapters(twin)
            assert str(twin) == str(model)

    def test_the_summary_counts(self):
        model = mlp((6, 8, 5), torch.float32)
        summary = adapt(model, block_size=3)
        count = sum(m + -(-m // 3) * -(-n // 3) * 3 + n for m, n in [(8, 6), (5, 8)])
        assert summary.n_parameters == summary.n_trainable == count == summary.n_bytes // 4
        assert summary.n_total == 6 * 8 + 8 + 8 * 5 + 5 + count
        assert summary.dense_flops_per_token == 2 * (48 + 40)
        assert adapt(nn.Sequential(nn.Linear(16, 16))).flops_per_token == 2 * 16 + 2 * 2.5 * 16 * 4 + 6 * 9
        assert f"2 layers, {count:,} parameters" in str(summary)

    def test_lazy_models_and_other_things(self):
        with pytest.raises(ValueError, match=r"has the lazy parameter 0\.weight: run a batch"):
            adapt(nn.Sequential(nn.LazyLinear(3)))
        with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got list"):
            adapt([])
        model = nn.Module()
        model.experts = nn.ParameterDict({"down_proj": torch.ones(4, 2, 3)})
        model.out = nn.Linear(3, 3)
        with pytest.warns(RuntimeWarning, match=r"not adapted: experts\.down_proj"):
            adapt(model)

    @pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "olmoe", "deepseek_v3"])
    @in_one_test("targets, options, meant", [
        ("seven", {}, ["gate_up_proj", "down_proj"]),
        ("all-linear", {}, ["gate_up_proj", "down_proj"]),
        (["o_proj", "w1", "w2", "w3"], {}, ["gate_up_proj", "down_proj"]),
        (["o_proj", "w3"], {}, ["gate_up_proj"]),
        (["o_proj", "experts.0.up_proj"], {}, ["gate_up_proj"]),
        (r".*\.(o_proj|down_proj)", {}, ["down_proj"]),
        ("all-linear", {"exclude": ["experts"]}, []),
        ("all-linear", {"train": ["experts"]}, []),
        (["o_proj"], {}, []),
    ])  # fmt: skip
    def test_all_weights_of_experts_that_are_meant_are_named(self, kind, targets, options, meant):
        pytest.importorskip("peft")
        from tests.peft import tiny

        model, first = tiny.model(kind), int(kind == "deepseek_v3")  # whose first layer is dense
        if targets == "seven":
            targets = tiny.SEVEN[3 * first :]  # it has other projections in its attention
        names = [f"model.layers.{i}.mlp.experts.{name}" for i in range(first, 2) for name in meant]
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            adapt(model, targets, **options)
        texts = [str(each.message) for each in found]
        wanted = f"adapt: weights of experts that are stacked in one parameter are not adapted: {', '.join(names)}"
        ends = [f"experts.{name}" for name in meant]
        assert texts == ([f"{wanted}; parameters={ends} would adapt them"] if names else [])

    def test_experts_are_named_where_nothing_else_is_meant(self):
        pytest.importorskip("peft")
        from tests.peft import tiny

        with pytest.raises(ValueError, match=r"match no layer.*not adapted: model\.layers\.0\.mlp\.experts\.gate_up"):
            adapt(tiny.model("mixtral"), ["w1", "w2", "w3"])

    def test_adapters_of_routers_are_no_experts(self):
        model = nn.Module()
        model.experts = nn.ModuleDict({"router": nn.Linear(3, 3)})
        model.experts["up"] = nn.ParameterDict({"weight": torch.ones(4, 2, 3)})
        for targets in (["router"], "all-linear"):  # the second time with vectors of three axes
            model.last = nn.Linear(3, 3)
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                adapt(model, targets)
            texts = [str(each.message).partition(": weights")[2].split(": ")[1].split(";")[0] for each in found]
            assert texts == (["experts.up.weight"] if targets == "all-linear" else [])

    def test_the_head_of_a_language_model_is_left_out_unless_it_is_named(self):
        transformers = pytest.importorskip("transformers")
        sizes = dict(vocab_size=9, hidden_size=4, intermediate_size=6, num_hidden_layers=1, num_attention_heads=2)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
        assert "lm_head" not in adapt(model).layers
        assert "lm_head" in adapt(model, ["lm_head"]).layers


class TestHalfPrecision:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("batch", [None, ["a", "b"]], ids=["alone", "bank"])
    def test_training_stays_finite_and_lowers_the_loss(self, dtype, batch):
        model = mlp((32, 32, 8)).to(dtype)
        frozen = copy.deepcopy(model.state_dict())
        adapt(model)
        bank = None if batch is None else AdapterBank(model, capacity=2)
        for name in batch or ():
            bank.add(name)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        assert {parameter.dtype for parameter in trained} == {torch.float32}
        optimiser = torch.optim.AdamW(trained, 1e-3)
        x, target = torch.randn(64, 32, dtype=dtype), torch.randn(64, 8, dtype=dtype)
        losses = []
        for _ in range(150):
            with contextlib.nullcontext() if bank is None else bank.use(batch * 32):
                y = model(x)
            loss = (y - target).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert y.dtype == dtype
        assert losses[-1] < 0.6 * losses[0]  # NaN is not
        for name, value in model.state_dict().items():
            if ".adapter." not in name:
                assert torch.equal(value, frozen[name.replace(".base.", ".")])

    def test_modules_that_are_trained_in_float16_are_warned_of(self):
        with pytest.warns(RuntimeWarning, match="2 is trained in float16, .* eps=1e-4"):
            adapt(mlp().half(), train=["2"])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            adapt(mlp().half())
            adapt(mlp().bfloat16(), train=["2"])


class TestInferenceMode:
    """What is made there has tensors that nobody may write into or train elsewhere; vectors are none of these."""

    @pytest.mark.parametrize(("made", "used"), [(False, True), (True, False), (True, True)], ids=str)
    def test_adapters_are_made_loaded_and_exchanged(self, tmp_path, made, used):
        one = save_adapter(adapted_mlp(), tmp_path / "one")
        two = save_adapter(adapted_mlp(), tmp_path / "two")
        x = torch.randn(3, 6, dtype=torch.float64)
        torch.manual_seed(0)
        expected = mlp()
        state = copy.deepcopy(expected.state_dict())
        load_adapter(expected, two)
        with torch.inference_mode(made):
            model = mlp()
            model.load_state_dict(state)
        with torch.inference_mode(used), torch.no_grad():
            load_adapter(model, one)
            with using_adapter(model, two):
                assert torch.equal(model(x), expected(x))
            load_adapter(model, two)
            assert torch.equal(model(x), expected(x))
            bank = AdapterBank(model)
            bank.add("one", one)
            bank.add("two", two)
            with bank.use(["two"] * 3):
                torch.testing.assert_close(model(x), expected(x))
        with torch.no_grad():
            bank.replace("one", two)
            bank.evict("two")
            with bank.use(["one"] * 3):
                torch.testing.assert_close(model(x), expected(x))
            bank.remove()
            assert torch.equal(model(x), expected(x))
        if not made:
            model(x).sum().backward()

    def test_parts_that_would_be_written_or_trained_are_refused(self, tmp_path):
        trained = mlp()
        adapt(trained, ["0"], train=["2"])
        folder = save_adapter(trained, tmp_path / "folder")
        with torch.inference_mode():
            model = mlp()
        before = state(model)
        text = r"model has 2\.(weight|bias), which was made in torch\.inference_mode\(\): make and load the model"
        with pytest.raises(ValueError, match=f"adapt: {text}"):
            adapt(model, ["0"], train=["2"])
        with pytest.raises(ValueError, match=f"load_adapter: {text}"):
            load_adapter(model, folder)
        assert_same_state(before, model)


class TestRemove:
    @pytest.mark.parametrize("merge", [False, True])
    def test_a_plain_model_again(self, net, merge):
        before, plain, text = net(TOKENS), copy.deepcopy(net), str(net)
        adapt(net, ["table", "query", "value", "mix", "head"])
        expected = fill(net)(TOKENS)
        remove_adapters(net, merge=merge)
        assert str(net) == text
        if merge:
            torch.testing.assert_close(net(TOKENS), expected, atol=1e-4, rtol=1e-4)
        else:
            assert torch.equal(net(TOKENS), before)
            assert all(torch.equal(v, plain.state_dict()[k]) for k, v in net.state_dict().items())
        pickle.dumps(net)
        assert not net._forward_hooks

    def test_nothing_is_remembered(self, net):
        adapt(net, ["query"], train=["norm"])
        remove_adapters(net)
        adapt(net, ["value"])
        assert not any("norm" in name for name in trained(net))

    def test_tied_weights_merge_apart(self):
        table, head = nn.Embedding(7, 5), nn.Linear(5, 7, bias=False)
        head.weight = table.weight
        model = nn.ModuleDict({"table": table, "head": head})
        adapt(model)
        assert model["head"].weight is table.weight
        y = fill(model)["head"](torch.ones(5))
        rows = table(torch.arange(7))
        remove_adapters(model, merge=True)
        assert torch.equal(table(torch.arange(7)), rows)
        torch.testing.assert_close(model["head"](torch.ones(5)), y)

    @pytest.mark.parametrize(("change", "error", "text"), [
        (lambda model: model[2].adapter.vectors[0].data.fill_(torch.nan), ValueError, "NaN or infinity .*, in 2"),
        (lambda model: nn.utils.parametrizations.weight_norm(model[2].base), TypeError, "is no parameter.*, in 2"),
        (lambda model: setattr(model[2], "base", None), ValueError, r"no base layer .* at 2, .* by its to_linear"),
    ])  # fmt: skip
    def test_all_or_nothing(self, change, error, text):
        model = adapted_mlp()
        change(model)
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(error, match=text):
            remove_adapters(model, merge=True)
        torch.testing.assert_close(model.state_dict(), before, equal_nan=True)

    def test_a_second_call_says_what_is_adapted_already(self):
        model = adapted_mlp()
        with pytest.raises(ValueError, match="match no layer; could be adapted: none; adapted already: 0, 2"):
            adapt(model)

    def test_there_is_nothing_to_remove(self):
        with pytest.raises(ValueError, match="has no adapted layer"):
            remove_adapters(mlp())
        with pytest.raises(ValueError, match="is itself the layer"):
            remove_adapters(CDDLinear.from_linear(nn.Linear(3, 3)))


class Reader(nn.Module):
    """Calls one layer, and reads the weight of the other."""

    def __init__(self):
        super().__init__()
        self.called, self.read, self.use = nn.Linear(4, 4), nn.Linear(4, 4), False

    def forward(self, x):
        x = self.called(x)
        return self.read(x) if self.use else nn.functional.linear(x, self.read.weight)


class TestNeverCalled:
    def test_the_first_forward_pass_in_training_tells(self):
        model = nn.Sequential(Reader())
        adapt(model, init="normal")
        x = torch.randn(2, 4)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.eval()(x)
        with pytest.warns(RuntimeWarning, match=r"did not call.*: 0\.read\. Modules that read") as found:
            model.train()(x)
        assert found[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model(x)
        with pytest.raises(ValueError, match=r"never called.*, in 0\.read"):
            remove_adapters(model, merge=True)
        model[0].use = True
        expected = fill(model)(x)  # it was, after all
        remove_adapters(model, merge=True)
        torch.testing.assert_close(model(x), expected)

    def test_changes_of_zero_are_merged_all_the_same(self):
        model = nn.Sequential(Reader())
        adapt(model)
        with pytest.warns(RuntimeWarning, match="did not call"):
            model(torch.ones(2, 4))
        remove_adapters(model, merge=True)

    @pytest.mark.parametrize("compiled", ["module", "wrapper", "forward"])
    def test_compiled_parts_are_called_and_merged(self, compiled):
        model = nn.Sequential(mlp(dtype=torch.float32), nn.Tanh())
        adapt(model, init="normal")
        if compiled == "module":
            model[0].compile(backend="eager")
        elif compiled == "wrapper":
            model[0] = torch.compile(model[0], backend="eager")
        else:
            model[0].forward = torch.compile(model[0].forward, backend="eager")
        x = torch.randn(2, 6)
        with quietly():  # torch warns of its own compiler
            warnings.filterwarnings("error", "adapted layers that")
            expected = model(x)
        remove_adapters(model, merge=True)
        torch.testing.assert_close(model(x), expected)

    def test_nothing_is_left_where_all_are_called(self):
        model = adapted_mlp()
        model(torch.ones(2, 6, dtype=torch.float64))
        assert not any(module._forward_pre_hooks for module in model.modules() if isinstance(module, CDDLinear))
        assert not model._forward_hooks

    @compiler
    def test_compiled_models_are_one_graph_before_and_after(self):
        model = adapted_mlp(dtype=torch.float32)
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        x = torch.randn(2, 6)
        torch.testing.assert_close(compiled(x), model(x))
        torch.testing.assert_close(compiled(x), model(x))


class TestReadersOfWeights:
    """Models of torch and transformers that look into their layers."""

    @pytest.mark.parametrize("by_peft", [False, True])
    @pytest.mark.parametrize("targets", [["linear1", "linear2"], ["0.linear2"]])
    def test_transformer_encoders_in_evaluation(self, targets, by_peft):
        """There torch reads weights without calling layers, and makes nested tensors of padded batches."""
        torch.manual_seed(0)
        encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), 2)
        plain = copy.deepcopy(encoder).eval()
        model = encoder
        if by_peft:
            model = adapted_by_peft(encoder, targets, init_weights=False)
        else:
            adapt(encoder, targets)
        fill(model)
        x, mask = torch.randn(3, 5, 8), torch.zeros(3, 5, dtype=torch.bool)
        mask[0, 3:] = True
        outputs, gradients = [], []
        for each in (model.train(), copy.deepcopy(model).eval()):
            y = each(x, src_key_padding_mask=mask)
            y[~mask].square().sum().backward()
            outputs.append(y[~mask])
            gradients.append([p.grad for p in each.parameters() if p.requires_grad])
        torch.testing.assert_close(*outputs)
        torch.testing.assert_close(*gradients)
        with torch.no_grad():
            torch.testing.assert_close(model.eval()(x, src_key_padding_mask=mask)[~mask], outputs[0])
            model.unload() if by_peft else remove_adapters(encoder)
            assert encoder.use_nested_tensor
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                assert torch.equal(encoder(x, src_key_padding_mask=mask), plain(x, src_key_padding_mask=mask))

    @pytest.mark.parametrize("name", ["dt_proj", "out_proj", "conv1d"])
    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # which PEFT reads
    def test_projections_of_mamba(self, name):
        transformers = pytest.importorskip("transformers")
        config = transformers.MambaConfig(vocab_size=8, hidden_size=4, state_size=2, num_hidden_layers=1)
        model = transformers.MambaModel(config)
        with pytest.raises(TypeError, match=f"{name}, whose weight MambaMixer reads without calling it"):
            adapt(model, [name])
        assert [path.rpartition(".")[2] for path in adapt(model).layers] == ["in_proj", "x_proj"]

    def test_projections_of_attention(self):
        model = nn.TransformerEncoderLayer(8, 2, 16)
        before = state(model)
        with pytest.raises(TypeError, match=r"self_attn\.out_proj, whose weight MultiheadAttention reads"):
            adapt(model, ["linear1", "out_proj"])
        assert_same_state(before, model)
        assert adapt(model).layers == ("linear1", "linear2")
