"""Bases whose weights are split among processes: by FSDP2, which gathers them, and by tensor parallelism."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from peft import get_peft_model
from torch import nn

from structmat.peft import CDDConfig
from structmat.torch import adapt
from tests.torch.common import VERSION, assert_same_state, state

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no torch.distributed here")


@pytest.fixture(autouse=True)
def _one_process() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def model() -> Any:
    return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))


def mesh(name: str | None) -> Any:
    return torch.distributed.init_device_mesh("cpu", (1,), mesh_dim_names=name and (name,))


@pytest.mark.parametrize("name", [None, "tp", "fsdp"])
@pytest.mark.parametrize("style", ["ColwiseParallel", "RowwiseParallel"])
def test_tensor_parallelism_is_refused(style: str, name: str | None) -> None:
    from torch.distributed.tensor import parallel

    base = parallel.parallelize_module(model(), mesh(name), {"1": getattr(parallel, style)()})
    before = state(base)
    with pytest.raises(TypeError, match="tensor parallelism"):
        adapt(base, ["0", "1"])
    assert_same_state(before, base)
    adapt(copy.deepcopy(base), ["0"])
    with pytest.raises(TypeError, match="tensor parallelism"):
        get_peft_model(copy.deepcopy(base), CDDConfig(target_modules=["1"]))
    get_peft_model(base, CDDConfig(target_modules=["0"]))


def test_older_tensor_parallelism_of_transformers_is_refused() -> None:
    """Its weights are plain tensors, the pieces of this process."""
    base = model()
    base[1]._hf_tp_plan = "colwise"
    with pytest.raises(TypeError, match="tensor parallelism"):
        get_peft_model(base, CDDConfig(target_modules=["1"]))


@pytest.mark.skipif(VERSION < (2, 7), reason="FSDP of 2.6 needs streams, which a CPU has not")
@pytest.mark.parametrize("name", [None, "fsdp"])
@pytest.mark.parametrize("first", ["adapter", "shards"])
def test_fsdp_works_before_and_after(first: str, name: str | None) -> None:
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    base = model()
    config = CDDConfig(target_modules=["0", "1"])
    if first == "adapter":
        adapted = get_peft_model(base, config)
        fully_shard(base, mesh=mesh(name))
    else:
        fully_shard(base, mesh=mesh(name))
        adapted = get_peft_model(base, config)
    adapted(torch.ones(2, 8)).square().sum().backward()
    gradients = [p.grad for p in adapted.parameters() if p.requires_grad]
    assert len(gradients) == 6
    assert all(gradient is not None for gradient in gradients)
