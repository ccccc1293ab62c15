"""Two processes on one machine: the gradients of an adapted model wrapped by DDP or by FSDP are those of one process.

``torchrun --nproc-per-node 2 -m tests.peft.distributed_script``
"""

from __future__ import annotations

import os

import torch
from peft import get_peft_model
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from structmat.peft import CDDConfig
from tests.peft import tiny
from tests.torch.common import VERSION


def trained(wrap: str | None, samples: slice) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = get_peft_model(tiny.model("llama"), CDDConfig(target_modules=["q_proj"], init_weights=False)).train()
    wrapped: nn.Module = model
    if wrap == "DDP":
        wrapped = DistributedDataParallel(model)
    elif wrap == "FSDP":
        mesh = torch.distributed.init_device_mesh("cpu", (2,))
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


def main() -> None:
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    alone = trained(None, slice(0, 4))
    for wrap in ("DDP", "FSDP") if VERSION >= (2, 7) else ("DDP",):  # FSDP of 2.6 needs streams, which a CPU has not
        together = trained(wrap, slice(2 * rank, 2 * rank + 2))
        for a, b in zip(alone, together, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4, msg=wrap)
    torch.distributed.barrier()  # nobody leaves before the others are done
    os._exit(0)  # now and then threads of gloo abort a process that takes itself down


if __name__ == "__main__":
    main()
