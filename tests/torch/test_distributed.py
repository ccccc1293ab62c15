"""torch's own engines for several processes: DDP, FSDP1 and FSDP2, two processes on a CPU."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
dist = pytest.importorskip("torch.distributed")
if not dist.is_available() or not dist.is_gloo_available():
    pytest.skip("needs gloo", allow_module_level=True)

from structmat.torch import load_adapter, save_adapter
from tests.torch import workers
from tests.torch.common import VERSION

# FSDP of torch 2.6 needs streams, which a CPU has not.
ENGINES = ["ddp", "first_fsdp", "fsdp"] if VERSION >= (2, 7) else ["ddp"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes have written, one engine after the other."""
    folder = tmp_path_factory.mktemp("distributed")
    context = torch.multiprocessing.spawn(workers.run, (ENGINES, str(folder)), nprocs=2, join=False)
    try:
        while not context.join(timeout=60):
            pass
    except torch.multiprocessing.ProcessRaisedException:
        errors = [file.read_text() for file in sorted(folder.glob("*.error"))]
        pytest.fail("\n".join(errors))
    return folder


@pytest.mark.parametrize("name", ENGINES)
def test_two_processes_do_what_one_does(name, folder):
    model, x, y = workers.model_and_data()
    fresh = copy.deepcopy(model)
    losses = workers.train(model, x, y)
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
