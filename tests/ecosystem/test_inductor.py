"""torch's compilers: Inductor in training; export and AOTInductor, whose files need no structmat."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from structmat.torch import adapt
from tests.ecosystem.programs import run
from tests.torch.common import compiler

TOOLS = ("torch",)
pytestmark = compiler
ROWS = "torch.linspace(-2, 2, {n} * 24).reshape({n}, 24)"
LOADED = f"([model(x) for x in ({ROWS.format(n=3)}, {ROWS.format(n=5)})], 'structmat' in __import__('sys').modules)"
LOAD = {
    "export": 'model = torch.export.load("model.pt2").module()',
    "AOTInductor": 'model = torch._inductor.aoti_load_package("model.pt2")',
}


@pytest.fixture(scope="module")
def trained() -> torch.nn.Module:
    """Train a model compiled by Inductor, and one that is not: they do the same."""
    torch.manual_seed(0)
    eager = torch.nn.Sequential(torch.nn.Linear(24, 32), torch.nn.GELU(), torch.nn.Linear(32, 32), torch.nn.ReLU())
    adapt(eager, block_size=16)
    inner = copy.deepcopy(eager)
    compiled = torch.compile(inner, fullgraph=True)
    x, y = torch.randn(16, 24), torch.randn(16, 32)
    losses: dict[str, list[float]] = {"eager": [], "compiled": []}
    for name, model in (("eager", eager), ("compiled", compiled)):
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        for _ in range(10):
            loss = torch.nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[name].append(loss.item())
    assert losses["compiled"] == pytest.approx(losses["eager"], rel=1e-4)
    assert losses["eager"][-1] < losses["eager"][0]
    return inner.eval()


@pytest.mark.parametrize("form", LOAD)
def test_a_file_needs_no_structmat(form: str, trained: torch.nn.Module, tmp_path: Path) -> None:
    first, second = (eval(ROWS.format(n=n), {"torch": torch}) for n in (3, 5))  # noqa: S307 - our own
    exported = torch.export.export(trained, (first,), dynamic_shapes=({0: torch.export.Dim("rows", max=100)},))
    file = str(tmp_path / "model.pt2")
    if form == "export":
        torch.export.save(exported, file)
    else:
        torch._inductor.aoti_compile_and_package(exported, package_path=file)
    found, imported = run(f"import torch\nwith torch.no_grad():\n    {LOAD[form]}", tmp_path, LOADED)
    assert not imported
    for y, x in zip(found, (first, second), strict=True):
        torch.testing.assert_close(y.detach(), trained(x).detach(), atol=1e-5, rtol=1e-5)
