"""Engines for several processes: torch's own, DDP, FSDP1 and FSDP2, and DeepSpeed, two processes on a CPU."""

from __future__ import annotations

import copy
import os
import pathlib
import traceback
from functools import partial
from importlib.util import find_spec

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
dist = pytest.importorskip("torch.distributed")
if not dist.is_available() or not dist.is_gloo_available():
    pytest.skip("needs gloo", allow_module_level=True)

from torch import nn

from structmat.torch import adapt, load_adapter, remove_adapters, save_adapter
from tests.torch.common import VERSION

FSDP = VERSION >= (2, 7)
"""That of torch 2.6 needs streams, which a CPU has not."""
ENGINES = ["ddp", "first_fsdp", "fsdp"] if FSDP else ["ddp"]
PARTS = ["around_parts"] if FSDP else []
STAGES = ["zero_2", "zero_3"] if find_spec("deepspeed") else []
STEPS = 4
pytestmark = pytest.mark.slow


def model_and_data(dtype=torch.float64):
    """The model of every process, adapted, and a batch of 16."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 7), nn.Tanh(), nn.Linear(7, 3)).to(dtype)
    adapt(model, ["0", "2"], train=["4"], block_size=5)
    x, y = torch.randn(16, 12, dtype=torch.float64), torch.randn(16, 3, dtype=torch.float64)
    return model, x.to(dtype), y.to(dtype)


def train(model, x, y, average=lambda loss: loss):
    """Losses over the whole batch."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(average(loss.detach().clone()).item())
    return losses


def average(loss):
    dist.all_reduce(loss)
    return loss / dist.get_world_size()


def ddp(rank, folder):
    model, x, y = model_and_data()
    wrapped = nn.parallel.DistributedDataParallel(model)
    losses = train(wrapped, x[rank::2], y[rank::2], average)
    save_adapter(wrapped, folder / "ddp")
    own = save_adapter(wrapped, folder / f"ddp written by {rank}")
    assert own.exists() == (rank == 0)  # the first process writes alone
    torch.save(losses, folder / f"ddp{rank}")


def fsdp(rank, folder):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model, x, y = model_and_data()
    mesh = init_device_mesh("cpu", (2,))
    fully_shard(model[0], mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert all(hasattr(p, "full_tensor") for p in model.parameters())
    losses = train(model, x[rank::2], y[rank::2], average)
    save_adapter(model, folder / "fsdp")
    after_evaluation(model, x)
    assert not any(hasattr(p, "full_tensor") for p in model[2].parameters())  # whole, until somebody asks for the state
    merge_is_refused(model, x)
    save_adapter(model, folder / "fsdp after evaluation")
    dist.barrier()
    torch.save(losses, folder / f"fsdp{rank}")
    trained = {key: p.full_tensor().clone() for key, p in model.named_parameters()}
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.zero_()
    load_adapter(model, folder / "fsdp")  # whole tensors into shards
    assert all(torch.equal(p.full_tensor(), trained[key]) for key, p in model.named_parameters())


def first_fsdp(rank, folder):
    from torch.distributed.fsdp import FullyShardedDataParallel

    model, x, y = model_and_data()
    wrapped = FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))
    assert {p.ndim for p in wrapped.parameters()} == {1}
    losses = train(wrapped, x[rank::2], y[rank::2], average)
    with pytest.raises(ValueError, match="holds pieces of its parameters: give the FullyShardedDataParallel around it"):
        save_adapter(wrapped.module, folder / "pieces")
    assert not (folder / "pieces").exists()
    with FullyShardedDataParallel.summon_full_params(wrapped):
        if rank == 0:
            save_adapter(wrapped.module, folder / "first_fsdp")
        torch.save(losses, folder / f"first_fsdp{rank}")
        merge_is_refused(wrapped, x)
    after_evaluation(wrapped, x)
    save_adapter(wrapped, folder / "first_fsdp after evaluation")
    dist.barrier()
    with pytest.raises(ValueError, match="load the adapter before FullyShardedDataParallel"):
        load_adapter(wrapped, folder / "first_fsdp")


class Experts(nn.Module):
    """The outputs of all experts, added up."""

    def __init__(self):
        super().__init__()
        self.stack = nn.Parameter(torch.randn(2, 4, 4, dtype=torch.float64))

    def forward(self, x):
        return torch.einsum("emn,...n->...m", self.stack, x)


class Part(nn.Module):
    """A model with a layer of some kind, and another one."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.layer = {
            "linear": lambda: nn.Linear(4, 4),
            "convolution": lambda: nn.Conv1d(4, 4, 3, padding=1),
            "embedding": lambda: nn.Embedding(5, 4),
            "attention": lambda: nn.MultiheadAttention(4, 2),
            "experts": Experts,
        }[kind]().double()
        self.head = nn.Linear(4, 3).double()

    def forward(self, x):
        y = self.layer(x, x, x)[0] if self.kind == "attention" else self.layer(x)
        return self.head(y)


def around_parts(rank, folder):
    """Engines that stand around a whole model, an adapted layer, or its base alone, and gather no more for the call."""
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    def first(module):
        return FullyShardedDataParallel(module, use_orig_params=True, device_id=torch.device("cpu"))

    for kind in ("linear", "embedding", "attention", "experts", "convolution"):
        torch.manual_seed(0)
        model = Part(kind)
        targets = {"targets": [], "parameters": ["stack"]} if kind == "experts" else {"targets": ["layer"]}
        adapt(model, **targets, init="normal", factor_scale=1.0)
        x = torch.randint(5, (4, 3)) if kind == "embedding" else torch.randn(5, 4, 4, dtype=torch.float64)
        expected = two_steps(copy.deepcopy(model), x)
        for engine in (first, fully_shard):
            for part in ("", "layer", "layer.base"):
                wrapped = copy.deepcopy(model)
                if part == "":
                    wrapped = engine(wrapped)
                else:
                    parent, _, name = part.rpartition(".")
                    setattr(wrapped.get_submodule(parent), name, engine(wrapped.get_submodule(part)))
                found = two_steps(wrapped, x)
                torch.testing.assert_close(found, expected, msg=lambda text: f"{kind}, {engine}, {part}: {text}")  # noqa: B023
    torch.save(None, folder / f"around_parts{rank}")


def two_steps(model, x):
    """Outputs before and after a step."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    y = model(x)
    y.square().sum().backward()
    optimizer.step()
    return y.detach(), model(x).detach()


def zero(stage, rank, folder):
    import deepspeed

    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    deepspeed.init_distributed("gloo")
    model, x, y = model_and_data(torch.float32 if stage == 3 else torch.float64)  # its third stage knows no more digits
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    settings = {
        "train_micro_batch_size_per_gpu": 8,
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
    losses = []
    for _ in range(STEPS):
        loss = nn.functional.mse_loss(engine(x[rank::2]), y[rank::2])
        engine.backward(loss)
        engine.step()
        losses.append(average(loss.detach().clone()).item())
    assert ({p.numel() for p in model.parameters()} == {0}) == (stage == 3)
    name = f"zero_{stage}"
    save_adapter(engine, folder / name)
    after_evaluation(engine, x)
    save_adapter(engine, folder / f"{name} after evaluation")
    if stage == 3:
        merge_is_refused(engine, x)
    dist.barrier()
    for each in (engine, model):
        with pytest.raises(ValueError, match=r"load the adapter before deepspeed\.initialize"):
            load_adapter(each, folder / name)
    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        trained = {key: p.detach().clone() for key, p in model.named_parameters()}
    torch.save((losses, trained), folder / f"{name}{rank}")


def after_evaluation(model, x):
    model.eval()
    with torch.no_grad():
        model(x)


def merge_is_refused(model, x):
    """Not in part either: engines put tensors of their own in the places of parameters afterwards."""
    before = str(model)
    with pytest.raises(TypeError, match=r"is split among processes by (FSDP|DeepSpeed ZeRO-3).*, in .*0"):
        remove_adapters(model, merge=True)
    assert str(model) == before


def by_peft(rank, folder):
    """The gradients of a model with adapted layers and experts, wrapped by DDP or by FSDP, are those of one process."""
    from peft import get_peft_model
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from structmat.peft import CDDConfig
    from tests.peft import tiny

    def trained(wrap, samples):
        torch.manual_seed(0)
        experts = ["experts.gate_up_proj", "experts.down_proj"]
        config = CDDConfig(target_modules=["q_proj"], target_parameters=experts, init_weights=False)
        model = wrapped = get_peft_model(tiny.model("mixtral"), config).train()
        if wrap == "DDP":
            wrapped = nn.parallel.DistributedDataParallel(model)
        elif wrap == "FSDP":
            mesh = init_device_mesh("cpu", (2,))
            for layer in model.base_model.model.model.layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(model, mesh=mesh)
        parameters = [p for p in model.parameters() if p.requires_grad]
        if wrap == "FSDP":
            with pytest.raises(TypeError, match=r"is split among processes by FSDP.*q_proj"):
                model.merge_adapter()
            with pytest.raises(TypeError, match=r"the gate_up_proj of .* is split among processes by FSDP"):
                model.base_model.model.model.layers[0].mlp.experts.merge()
        optimizer = torch.optim.SGD(parameters, lr=1e-4)
        for _ in range(2):
            optimizer.zero_grad()
            ids = tiny.inputs("mixtral", samples=4)["input_ids"][samples]
            wrapped(input_ids=ids).logits.square().mean().backward()
            optimizer.step()
        return [p.detach().full_tensor() if hasattr(p, "full_tensor") else p.detach() for p in parameters]

    alone = trained(None, slice(0, 4))
    for wrap in ("DDP", "FSDP") if FSDP else ("DDP",):
        together = trained(wrap, slice(2 * rank, 2 * rank + 2))
        for a, b in zip(alone, together, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4, msg=wrap)
    (folder / f"by_peft{rank}").touch()


def run(rank, names, folder):
    """Run some of the above in a group of two processes; what went wrong goes to a file."""
    folder = pathlib.Path(folder)
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
        for name in names:
            {
                "ddp": ddp,
                "first_fsdp": first_fsdp,
                "fsdp": fsdp,
                "around_parts": around_parts,
                "zero_2": partial(zero, 2),
                "zero_3": partial(zero, 3),
                "by_peft": by_peft,
            }[name](rank, folder)
            dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        (folder / f"{rank}.error").write_text(traceback.format_exc())
        raise
    os._exit(0)  # all is written; threads of torch abort the exit of the interpreter now and then


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes have written, one engine after the other."""
    folder = tmp_path_factory.mktemp("distributed")
    names = [*ENGINES, *PARTS, *STAGES, *(["by_peft"] if find_spec("peft") else [])]
    context = torch.multiprocessing.spawn(run, (names, str(folder)), nprocs=2, join=False)
    try:
        while not context.join(timeout=60):
            pass
    except torch.multiprocessing.ProcessRaisedException:
        errors = [file.read_text() for file in sorted(folder.glob("*.error"))]
        pytest.fail("\n".join(errors))
    return folder


@pytest.mark.parametrize("name", ENGINES)
def test_two_processes_do_what_one_does(name, folder):
    model, x, y = model_and_data()
    fresh = copy.deepcopy(model)
    losses = train(model, x, y)
    assert losses[-1] < losses[0]
    trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
    for rank in (0, 1):
        assert torch.load(folder / f"{name}{rank}") == pytest.approx(losses, rel=1e-9)
    load_adapter(fresh, folder / name)  # files are interchangeable
    for key, value in fresh.named_parameters():
        if key in trained:
            torch.testing.assert_close(value, trained[key], rtol=1e-6, atol=1e-9)
    one = save_adapter(fresh, folder / f"alone {name}")
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (one / file).stat().st_size == (folder / name / file).stat().st_size
        if name != "ddp":
            assert (folder / f"{name} after evaluation" / file).read_bytes() == (folder / name / file).read_bytes()


@pytest.mark.parametrize("name", STAGES)
def test_files_hold_what_deepspeed_has_trained(name, folder):
    """Whole, under the names of the plain model, whether a forward pass has just gathered it or not."""
    for file in (name, f"{name} after evaluation"):
        model, x, y = model_and_data(torch.float32 if name == "zero_3" else torch.float64)
        losses, trained = torch.load(folder / f"{name}1")
        assert losses == pytest.approx(train(copy.deepcopy(model), x, y), rel=1e-4)  # its gradients are of float32
        load_adapter(model, folder / file)
        assert all(torch.equal(p, trained[key]) for key, p in model.named_parameters())


@pytest.mark.skipif(not FSDP, reason="needs FSDP on a CPU")
def test_engines_may_stand_around_any_part(folder):
    assert (folder / "around_parts0").exists()
    assert (folder / "around_parts1").exists()


def test_two_processes_do_what_one_does_by_peft(folder):
    pytest.importorskip("peft")
    assert (folder / "by_peft0").exists()
    assert (folder / "by_peft1").exists()
