"""Adapters in folders, by both parts."""

from __future__ import annotations

import contextlib
import copy
import json
import sys
import types
from importlib.machinery import ModuleSpec

import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from structmat.torch import CDDLinear, adapt, load_adapter, remove_adapters, save_adapter, using_adapter
from tests.torch.common import adapted_by_peft, adapted_mlp, assert_same_state, fill, mlp, state

X, W0 = torch.randn(5, 6, dtype=torch.float64), torch.zeros(8, 6, dtype=torch.float64)
FIRST = "base_model.model.0.cdd_adapters.vectors.0"
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture
def plain():
    return mlp()


@pytest.fixture
def trained(plain):
    """A copy of `plain` with an adapter of random vectors."""
    model = copy.deepcopy(plain)
    adapt(model, block_size=3, alpha=0.5)
    return fill(model)


@pytest.fixture
def folder(trained, tmp_path):
    return save_adapter(trained, tmp_path / "adapter")


def rewrite(folder, **settings):
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | settings))


def rewrite_tensors(folder, change):
    safetensors.save_file(change(safetensors.load_file(folder / WEIGHTS)), folder / WEIGHTS)


class Engine(nn.Module):
    """A wrapper of a whole model as ``module``, like DeepSpeed's engine and Fabric's module."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


class DeepSpeedEngine(Engine):
    """Whose optimiser has copies of the parameters."""


Engine.__module__, DeepSpeedEngine.__module__ = "lightning_fabric.wrappers", "deepspeed.runtime.engine"


def by_fabric(model):
    fabric = pytest.importorskip("lightning_fabric")
    return fabric.Fabric(accelerator="cpu", devices=1).setup(model)


class TestRoundTrips:
    def test_into_a_plain_model(self, plain, trained, folder):
        assert load_adapter(plain, folder) == ["0", "2"]
        assert torch.equal(plain(X), trained(X))
        assert plain[0].adapter.options() == trained[0].adapter.options()
        assert all(p.requires_grad == ("vectors" in name) for name, p in plain.named_parameters())

    def test_into_an_adapted_model(self, plain, trained, folder):
        adapt(plain, block_size=3, dropout=0.25)
        load_adapter(plain, folder)
        assert torch.equal(plain.eval()(X), trained(X))
        assert (plain[0].adapter.dropout, plain[0].adapter.alpha) == (0.25, 0.5)

    @pytest.mark.parametrize(
        "wrap",
        [
            nn.DataParallel,
            torch.optim.swa_utils.AveragedModel,
            lambda m: torch.compile(m, backend="eager"),
            Engine,
            lambda m: Engine(torch.compile(m, backend="eager")),
            by_fabric,
        ],
    )
    def test_wrappers_are_not_in_the_keys(self, plain, trained, folder, tmp_path, wrap):
        path = save_adapter(wrap(trained), tmp_path / "wrapped")
        assert (path / CONFIG).read_bytes() == (folder / CONFIG).read_bytes()
        assert safetensors.load_file(path / WEIGHTS).keys() == safetensors.load_file(folder / WEIGHTS).keys()
        for again in range(2):  # wrapped and adapted by the file, then adapted already
            wrapped = wrap(plain)
            assert load_adapter(wrapped, path) == ["0", "2"], again
            assert torch.equal(wrapped(X), trained(X))

    def test_blocks_may_be_wrapped_one_by_one(self, plain, trained, tmp_path):
        wrap = checkpoint_wrapper
        model, fresh = nn.Sequential(wrap(trained)), nn.Sequential(wrap(plain))
        path = save_adapter(model, tmp_path / "folder")
        for _ in range(2):
            assert load_adapter(fresh, path) == ["0.0", "0.2"]
            assert torch.equal(fresh(X), model(X))


class TestDeepSpeed:
    """Stand-ins for its third stage, which leaves parameters empty, and for its optimiser; test_distributed has both.

    All that is known of the third stage here are the attributes that its documentation and its own helpers use.
    """

    @pytest.fixture
    def split(self, monkeypatch):
        """A function that splits the parameters of a model, as ``deepspeed.initialize`` does."""

        class GatheredParameters(contextlib.AbstractContextManager):
            def __init__(self, params):
                self.params = list(params)

            def __enter__(self):
                for p in self.params:
                    p.data, p.ds_status = p.ds_tensor.view(p.ds_shape), "AVAILABLE"

            def __exit__(self, *_):
                for p in self.params:
                    p.data, p.ds_status = p.data.new_empty(0), "NOT_AVAILABLE"

        deepspeed = types.ModuleType("deepspeed")
        deepspeed.__spec__ = ModuleSpec("deepspeed", None)  # which transformers asks for
        deepspeed.zero = types.SimpleNamespace(GatheredParameters=GatheredParameters)
        monkeypatch.setitem(sys.modules, "deepspeed", deepspeed)

        def split(model):
            for i, p in enumerate(model.parameters()):
                p.ds_id, p.ds_shape, p.ds_numel, p.ds_tensor = i, p.shape, p.numel(), p.data.flatten()
            with GatheredParameters(model.parameters()):
                pass
            return model

        return split

    @pytest.mark.parametrize("wrap", [DeepSpeedEngine, lambda model: model])
    def test_files_of_the_third_stage_are_whole(self, tmp_path, split, wrap):
        model = WithHead()
        adapt(model, ["body"], train=["head"], init="normal")
        whole = save_adapter(model, tmp_path / "whole")
        path = save_adapter(wrap(split(model)), tmp_path / "split")
        for file in (WEIGHTS, CONFIG):
            assert (path / file).read_bytes() == (whole / file).read_bytes()
        assert {p.numel() for p in model.parameters()} == {0}

    def test_a_summary_counts_whole_parameters(self, split):
        model = mlp()
        n_total = sum(p.numel() for p in model.parameters())
        summary = adapt(split(model))
        assert summary.n_total == n_total + summary.n_parameters

    def test_loading_is_refused_where_it_would_be_undone(self, plain, folder, split):
        of_the_first_stage = adapted_mlp(block_size=3)
        for p in of_the_first_stage.parameters():
            p._hp_mapping = None
        for model in (DeepSpeedEngine(plain), split(adapted_mlp(block_size=3)), of_the_first_stage):
            before = state(model)
            with pytest.raises(ValueError, match=r"written anew from copies: load the adapter before deepspeed\.init"):
                load_adapter(model, folder)
            assert_same_state(before, model)

    def test_merging_is_refused(self, split):
        model = split(adapted_mlp())
        before = state(model)
        with pytest.raises(TypeError, match=r"split among processes by DeepSpeed ZeRO-3.*save the adapter.*, in 0"):
            remove_adapters(model, merge=True)
        assert_same_state(before, model)
        model = split(adapted_by_peft(mlp()))
        with pytest.raises(TypeError, match=r"split among processes by DeepSpeed ZeRO-3.*save the adapter.*, in 0"):
            model.merge_adapter()
        with sys.modules["deepspeed"].zero.GatheredParameters(model.parameters()):
            for p in model.parameters():  # as the real one has it, for who writes within
                p._ds_z3_gathered_param_context_depth = 1
            model.merge_adapter()


class WithHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6)
        self.head = nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7, affine=False), nn.Linear(7, 7))
        self.head.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
        self.other = nn.Linear(7, 2)

    def forward(self, x):
        return self.other(self.head(self.norm(self.body(x))))


class TestTrainedBeside:
    """What a folder brings into the model as it was before `adapt`: all that training changed."""

    def train(self, model):
        """A few steps with every parameter changed that may be, and statistics collected."""
        torch.manual_seed(0)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            model.train()(torch.randn(8, 6)).square().sum().backward()
            optimizer.step()
        return model.eval()

    @pytest.mark.parametrize("targets", [["body"], ["body", "head.0"]], ids=str)
    @pytest.mark.parametrize("train", [(), ["head"], ["norm", "other"], ["head.2"]], ids=str)
    def test_outputs_and_trainable_parameters_are_the_same(self, tmp_path, train, targets):
        fresh = WithHead()
        model, x = copy.deepcopy(fresh), torch.randn(4, 6)
        for target in reversed(targets):  # the second time within what is trained
            adapt(model, [target], train=train if target == "body" else (), init="normal")
        self.train(model)
        load_adapter(fresh, save_adapter(model, tmp_path / "folder"))
        assert torch.equal(fresh.eval()(x), model(x))
        flags = [{n for n, p in each.named_parameters() if p.requires_grad} for each in (fresh, model)]
        assert flags[0] == flags[1]
        again = save_adapter(model.requires_grad_(False), tmp_path / "again")  # frozen, for inference, say
        assert (again / WEIGHTS).read_bytes() == (tmp_path / "folder" / WEIGHTS).read_bytes()

    @pytest.mark.parametrize(("part", "text"), [
        ("other", r"trains other\.bias beside the adapter.*name the module in train"),
        ("body.base", r"trains body\.bias, of which an adapter holds the change alone"),
    ])  # fmt: skip
    def test_parts_of_modules_are_refused(self, tmp_path, part, text):
        model = WithHead()
        adapt(model, ["body"])
        model.get_submodule(part).bias.requires_grad_()
        with pytest.raises(ValueError, match=text):
            save_adapter(model, tmp_path / "folder")
        assert not (tmp_path / "folder").exists()

    def test_weights_shared_with_a_trained_layer_are_written(self, tmp_path):
        tied = lambda a, b: setattr(b, "weight", a.weight)
        model, fresh = (nn.ModuleDict({"a": nn.Embedding(5, 4), "b": nn.Linear(4, 5)}) for _ in range(2))
        for each in (model, fresh):
            tied(each["a"], each["b"])
        adapt(model, ["a"], train=["b"])
        model["b"].weight.data.add_(1)
        load_adapter(fresh, save_adapter(model, tmp_path / "folder"))
        assert torch.equal(fresh["a"].base.weight, model["a"].base.weight)

    def test_frozen_modules_of_the_same_end_stay_frozen(self, tmp_path):
        layers = {"a": nn.Linear(3, 3), "head": nn.Linear(3, 2), "aux": nn.ModuleDict({"head": nn.Linear(3, 2)})}
        model, fresh = nn.ModuleDict(layers), copy.deepcopy(nn.ModuleDict(layers))
        adapt(model, ["a"], train="head")
        load_adapter(fresh, save_adapter(model, tmp_path / "folder"))
        assert [p.requires_grad for p in fresh.parameters()] == [p.requires_grad for p in model.parameters()]


class TestBothParts:
    """A folder of one part is read by the other."""

    def models(self, bias="none", **options):
        peft = pytest.importorskip("peft")
        from structmat.peft import CDDConfig

        torch.manual_seed(0)
        fresh = WithHead().eval()
        model = copy.deepcopy(fresh)
        adapt(model, ["body", "other"], train=["head"], **options)
        config = CDDConfig(target_modules=["body", "other"], modules_to_save=["head"], bias=bias, **options)
        by_peft = peft.get_peft_model(copy.deepcopy(fresh), config)
        return peft, fresh, fill(model).eval(), fill(by_peft).eval()

    @pytest.mark.parametrize("options", [{}, {"bias": "all"}, {"n_factors": 5, "block_size": 4, "alpha": 0.5}])
    def test_there_and_back(self, tmp_path, options):
        peft, fresh, model, by_peft = self.models(**options)
        x = torch.randn(4, 6)
        loaded = peft.PeftModel.from_pretrained(copy.deepcopy(fresh), save_adapter(model, tmp_path / "own"))
        torch.testing.assert_close(loaded.eval()(x), model(x))
        by_peft.save_pretrained(tmp_path / "peft")
        assert load_adapter(fresh, tmp_path / "peft") == ["body", "other"]
        torch.testing.assert_close(fresh.eval()(x), by_peft(x))
        load_adapter(fresh, tmp_path / "own")
        torch.testing.assert_close(fresh(x), model(x))

    def test_what_this_part_does_not_know(self, tmp_path):
        peft, fresh, _, _ = self.models()
        lora = peft.get_peft_model(copy.deepcopy(fresh), peft.LoraConfig(target_modules=["body"]))
        lora.save_pretrained(tmp_path / "lora")
        with pytest.raises(ValueError, match="no complete adapter of this method: the method is 'LORA'"):
            load_adapter(fresh, tmp_path / "lora")


class TestRefusals:
    def test_folders_of_another_model_say_what_it_lacks(self, tmp_path):
        """A part of the model and what is around it have other paths."""
        model = nn.Sequential(nn.Sequential(nn.Linear(4, 4)))
        adapt(model)
        save_adapter(model, tmp_path)
        remove_adapters(model)
        for other in (nn.ModuleDict({"body": model}), nn.Sequential(nn.ReLU())):
            with pytest.raises(
                ValueError, match=r"has no module '0\.0', which the folder adapts.*another model, or of"
            ):
                load_adapter(other, tmp_path)

    @pytest.mark.parametrize(("change", "text"), [
        (lambda f: rewrite(f, peft_type="LORA"), "no complete adapter of this method: the method is 'LORA'"),
        (lambda f: rewrite(f, n_factors=5), "no complete adapter of this method: it lacks vectors"),
        (lambda f: rewrite(f, block_size=2), "made for another model, or with other settings"),
        (lambda f: rewrite(f, terms=[{"alpha": 1.0}]), "it has terms, unknown here: read it by the revision of"),
        (lambda f: rewrite(f, alpha="a"), "alpha must be a number"),
        (lambda f: rewrite(f, n_factors=4), "adapter_config.json: n_factors must be odd and at least 3, got 4"),
        (lambda f: rewrite(f, n_factors="3"), "adapter_config.json: n_factors must be an integer, got '3'"),
        (lambda f: rewrite(f, block_size=[3]), "adapter_config.json: block_size must be an integer"),
        (lambda f: rewrite(f, block_size=99), r"block_size must be at most rows \+ cols - 1 = 13, got 99"),
        (lambda f: rewrite(f, dropout=1), "adapter_config.json: dropout must be at least 0 and less than 1, got 1"),
        (lambda f: rewrite(f, factor_scale=-1), "adapter_config.json: factor_scale must be positive, got -1"),
        (lambda f: rewrite(f, modules_to_save=5), "json: modules_to_save must be a list of names, got 5"),
        (lambda f: rewrite(f, modules_to_save="0"), "json: modules_to_save must be a list of names, got '0'"),
        (lambda f: (f / CONFIG).write_text("[" * 10**5 + "]" * 10**5), "no complete adapter .*recursion depth"),
        (lambda f: rewrite_tensors(f, lambda t: {k: t[k] for k in t if k != FIRST}), r"those of 0 are \[1, 2\], for"),
        (lambda f: rewrite_tensors(f, lambda t: t | {f"{FIRST}9": X}), r"those of 0 are \[0, 1, 2, 9\], for n_fa"),
        (lambda f: rewrite_tensors(f, lambda t: t | {FIRST[17:]: X}), "it holds .*0 twice, under two names"),
        *[
            (lambda f, d=d: rewrite_tensors(f, lambda t: t | {FIRST: t[FIRST].to(d)}), f"{FIRST} has dtype {d}, and ")
            for d in (torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn)
        ],
        *[
            (lambda f, k=k: rewrite_tensors(f, lambda t: t | {f"base_model.model.0.{k}": W0}), "holds 0.weight, which")
            for k in ("weight", "base_layer.weight")
        ],
        (lambda f: (f / CONFIG).write_text("{}"), "no complete adapter of this method: 'peft_type'"),
        (lambda f: (f / CONFIG).write_text("{"), "no complete adapter of this method: Expecting"),
        *[
            (lambda f, n=n: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:n]), "holds weights that are cut off")
            for n in (99, -1)
        ],
        (lambda f: rewrite_tensors(f, lambda t: {k: v / 0 for k, v in t.items()}), "holds (NaN|infinity) in base"),
        (lambda f: rewrite_tensors(f, lambda t: {**t, "base_model.model.9.bias": X}), "holds 9.bias of shape"),
        (lambda f: rewrite_tensors(f, lambda t: {k.replace(".0.c", ".1.c"): v for k, v in t.items()}), "no layer '1'"),
        (lambda f: rewrite_tensors(f, lambda t: {k.replace(".0.c", ".x.c"): v for k, v in t.items()}), "no module 'x'"),
    ])  # fmt: skip
    @pytest.mark.parametrize("adapted", [False, True])
    def test_of_folders_change_nothing(self, plain, folder, change, text, adapted):
        change(folder)
        if adapted:
            adapt(plain, block_size=3)
            text = "has other layers than the model" if "no layer" in text or "no module" in text else text
        before = state(plain)
        with pytest.raises((ValueError, TypeError), match=text):
            load_adapter(plain, folder)
        assert_same_state(before, plain)

    def test_what_stands_beside_the_vectors_keeps_its_kind(self, tmp_path):
        model = WithHead()
        fresh = copy.deepcopy(model)
        adapt(model, ["body"], train=["head"])
        folder = save_adapter(model, tmp_path / "folder")
        key = "base_model.model.head.1.num_batches_tracked"
        rewrite_tensors(folder, lambda t: t | {key: t[key] + 0.5})
        before = state(fresh)
        with pytest.raises(ValueError, match=r"tracked of dtype torch.float32, the model has torch.int64"):
            load_adapter(fresh, folder)
        assert_same_state(before, fresh)

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # which PEFT reads
    def test_embeddings_that_peft_writes_as_a_whole_are_read(self, tmp_path):
        """PEFT does so where a target is one, here the last layer."""
        pytest.importorskip("peft")
        from tests.peft import tiny

        model, fresh = tiny.adapted("llama", target_modules=["q_proj", "lm_head"]), tiny.model("llama")
        fill(model)
        model.save_pretrained(tmp_path, save_embedding_layers=True)
        assert "base_model.model.lm_head.base_layer.weight" in safetensors.load_file(tmp_path / WEIGHTS)
        assert "lm_head" in load_adapter(fresh, tmp_path)
        assert torch.equal(tiny.logits("llama", fresh), tiny.logits("llama", model))

    @pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int64, torch.complex64])
    def test_vectors_have_16_bits_at_least(self, plain, dtype):
        before = state(plain)
        with pytest.raises(ValueError, match=f"dtype must be a floating dtype of at least 16 bits, got {dtype}"):
            adapt(plain, dtype=dtype)
        assert_same_state(before, plain)

    @pytest.mark.parametrize(("model", "text"), [
        (lambda: adapted_mlp(block_size=2), "made for another model, or with other settings"),
        (lambda: adapted_mlp(block_size=3, factor_scale=1.0), r"has factor_scale=30\.0, the model 1\.0"),
        (lambda: adapted_mlp(targets=["0"], block_size=3), r"has other layers than the model: \['2'\]"),
        (lambda: mlp((6, 9, 4)), "made for another model"),
        (lambda: mlp().to("meta"), "device meta: load its weights first"),
        (lambda: adapted_mlp(block_size=3).to("meta"), "device meta: load before offloading"),
        (lambda: nn.Sequential(nn.LazyLinear(3)), "lazy parameter"),
        (lambda: adapted_by_peft(mlp()), "has no module '0'"),
    ])  # fmt: skip
    def test_of_models_change_nothing(self, folder, model, text):
        model = model()
        before = str(model)
        with pytest.raises(ValueError, match=text):
            load_adapter(model, folder)
        assert str(model) == before

    @pytest.mark.parametrize(("change", "text"), [
        (lambda model: model[0].adapter.vectors[0].data.fill_(torch.nan), "holds NaN in"),
        (lambda model: model[0].adapter.vectors[0].data.fill_(torch.inf), "holds infinity in"),
        (lambda model: model.to("meta"), "on the device meta: save before offloading"),
        (lambda model: setattr(model[0].adapter, "alpha", 2.0), "layers with other values of alpha than others"),
        (lambda model: model.append(CDDLinear(4, 4)), "without a model or a base around"),
    ])  # fmt: skip
    def test_nothing_is_written(self, trained, tmp_path, change, text):
        change(trained)
        with pytest.raises(ValueError, match=text):
            save_adapter(trained, tmp_path / "folder")
        assert not (tmp_path / "folder").exists()

    def test_existing_files_are_kept(self, trained, folder):
        with pytest.raises(FileExistsError):
            save_adapter(trained, folder)
        save_adapter(trained, folder, force=True)
        for model in (mlp(), nn.Linear(3, 3)):
            with pytest.raises(ValueError, match="has no adapted layer"):
                save_adapter(model, folder, force=True)
        with pytest.raises(ValueError, match="without a model or a base around"):
            save_adapter(CDDLinear.from_linear(nn.Linear(3, 3)), folder, force=True)
        with pytest.raises(FileNotFoundError):
            load_adapter(mlp(), folder / "nothing")


class TestUsingAnother:
    def test_it_serves_inside_and_all_is_as_before_afterwards(self, plain, folder, tmp_path):
        other = copy.deepcopy(plain)
        adapt(other, ["0"], block_size=3, alpha=-2.0, train=["2"])
        model = fill(copy.deepcopy(other)).requires_grad_(requires_grad=False)
        save_adapter(fill(other), tmp_path / "other")
        model[0].adapter.alpha = 0.25
        before = state(model)
        x = torch.randn(3, 6, dtype=model[0].weight.dtype)
        first = model(x)
        with using_adapter(model, tmp_path / "other") as layers:
            assert layers == ["0"]
            assert torch.equal(model(x), other(x))
            assert not torch.equal(model(x), first)
        assert torch.equal(model(x), first)
        with pytest.raises(ZeroDivisionError), using_adapter(model, tmp_path / "other"):
            1 / 0  # noqa: B018
        assert_same_state(before, model)
        assert model[0].adapter.alpha == 0.25
        for bad, text in ((plain, "using_adapter: model has no adapter that could give way"), (model, "other layers")):
            kept = state(bad)
            with pytest.raises(ValueError, match=text), using_adapter(bad, folder):
                pass
            assert_same_state(kept, bad)
