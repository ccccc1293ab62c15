"""torch's own engines for several processes: DDP, FSDP1 and FSDP2, two processes on a CPU."""

from __future__ import annotations

import copy
import os
import pathlib
import traceback
from importlib.util import find_spec

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
dist = pytest.importorskip("torch.distributed")
if not dist.is_available() or not dist.is_gloo_available():
    pytest.skip("needs gloo", allow_module_level=True)

from torch import nn

from structmat.torch import adapt, load_adapter, save_adapter
from tests.torch.common import VERSION

FSDP = VERSION >= (2, 7)
"""That of torch 2.6 needs streams, which a CPU has not."""
ENGINES = ["ddp", "first_fsdp", "fsdp"] if FSDP else ["ddp"]
STEPS = 4


def model_and_data():
    """The model of every process, adapted, and a batch of 16."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    adapt(model, ["0", "2"], train=["4"], block_size=5)
    x, y = torch.randn(16, 12, dtype=torch.float64), torch.randn(16, 3, dtype=torch.float64)
    return model, x, y


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
    for layer in (model[0], model[2]):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert all(hasattr(p, "full_tensor") for p in model.parameters())
    losses = train(model, x[rank::2], y[rank::2], average)
    save_adapter(model, folder / "fsdp")
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
    with FullyShardedDataParallel.summon_full_params(wrapped):
        if rank == 0:
            save_adapter(wrapped.module, folder / "first_fsdp")
        torch.save(losses, folder / f"first_fsdp{rank}")


def by_peft(rank, folder):
    """The gradients of an adapted model wrapped by DDP or by FSDP are those of one process."""
    from peft import get_peft_model
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from structmat.peft import CDDConfig
    from tests.peft import tiny

    def trained(wrap, samples):
        torch.manual_seed(0)
        config = CDDConfig(target_modules=["q_proj"], init_weights=False)
        model = wrapped = get_peft_model(tiny.model("llama"), config).train()
        if wrap == "DDP":
            wrapped = nn.parallel.DistributedDataParallel(model)
        elif wrap == "FSDP":
            mesh = init_device_mesh("cpu", (2,))
            for layer in model.base_model.model.model.layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(model, mesh=mesh)
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=1e-4)
        for _ in range(2):
            optimizer.zero_grad()
            wrapped(input_ids=tiny.inputs("llama", samples=4)["input_ids"][samples]).logits.square().mean().backward()
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
            {"ddp": ddp, "first_fsdp": first_fsdp, "fsdp": fsdp, "by_peft": by_peft}[name](rank, folder)
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
    context = torch.multiprocessing.spawn(
        run, ([*ENGINES, *(["by_peft"] if find_spec("peft") else [])], str(folder)), nprocs=2, join=False
    )
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


def test_two_processes_do_what_one_does_by_peft(folder):
    pytest.importorskip("peft")
    assert (folder / "by_peft0").exists()
    assert (folder / "by_peft1").exists()
