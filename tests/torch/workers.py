"""What each of two processes does in `test_distributed`; a module of its own, for `spawn` to import."""

from __future__ import annotations

import os
import pathlib
import traceback

import torch
import torch.distributed as dist
from torch import nn

from structmat.torch import adapt, load_adapter, save_adapter

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


def run(rank, names, folder):
    """Run some of the above in a group of two processes; what went wrong goes to a file."""
    folder = pathlib.Path(folder)
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
        for name in names:
            {"ddp": ddp, "first_fsdp": first_fsdp, "fsdp": fsdp}[name](rank, folder)
            dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        (folder / f"{rank}.error").write_text(traceback.format_exc())
        raise
    os._exit(0)  # all is written; threads of torch abort the exit of the interpreter now and then
