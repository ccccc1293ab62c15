"""The programs of the guide, one or more for each tool: a small training, a file and a fresh process."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from structmat.torch import adapt
from tests.ecosystem.programs import LOGGED, causal_outputs, check, check_programs, programs, run, write_base
from tests.torch.common import compiler

pytestmark = pytest.mark.slow

# transformers


def test_transformers(base: Path) -> None:
    check("transformers", base, **causal_outputs(base), losses=LOGGED)


# TRL


def test_trl(base: Path) -> None:
    check("TRL", base, **causal_outputs(base), losses=LOGGED)


# accelerate


def test_accelerate(base: Path) -> None:
    check("accelerate", base, **causal_outputs(base), losses="losses")


# Lightning


def test_lightning(base: Path) -> None:
    check("Lightning", base, **causal_outputs(base), losses="tuning.losses")


# sentence-transformers


def test_sentence_transformers(encoder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    plain = torch.tensor(SentenceTransformer(str(encoder / "encoder"), device="cpu").encode(["a fox"]))
    outputs = "torch.tensor(model.encode(['a fox']))"
    check("sentence-transformers", encoder, outputs, LOGGED, plain)


# diffusers


def test_diffusers(tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    settings = {
        "sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "cross_attention_dim": 8,
        "attention_head_dim": 4, "norm_num_groups": 4, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }  # fmt: skip
    unet = UNet2DConditionModel(**settings).eval()
    unet.save_pretrained(tmp_path / "unet")
    outputs = "model(torch.ones(1, 4, 8, 8), 3, torch.ones(1, 3, 8)).sample.detach()"
    plain = unet(torch.ones(1, 4, 8, 8), 3, torch.ones(1, 3, 8)).sample.detach()
    check("diffusers", tmp_path, outputs, "losses", plain)


# torchao


def test_torchao(base: Path) -> None:
    kinds = "{type(p).__name__ for p in model.parameters()}"
    losses = f"losses if 'Int8Tensor' in {kinds} else {kinds}"
    check("Quantised bases", base, **causal_outputs(base), losses=losses)


# bitsandbytes


@pytest.mark.parametrize(("bits", "kind"), [(8, "Linear8bitLt"), (4, "Linear4bit")])
def test_bitsandbytes_by_the_program_for_torchao(bits: int, kind: str, tmp_path: Path) -> None:
    write_base(tmp_path, hidden_size=128, intermediate_size=128, num_key_value_heads=2)  # as 4 bits on a CPU ask for
    train, load = (
        program.replace("TorchAoConfig(Int8WeightOnlyConfig())", f"BitsAndBytesConfig(load_in_{bits}bit=True)")
        .replace("TorchAoConfig", "BitsAndBytesConfig")
        .replace("from torchao.quantization import Int8WeightOnlyConfig\n", "")
        for program in programs("Quantised bases")
    )
    kinds = "{type(m).__name__ for m in model.modules()}"
    losses = f"losses if {kind!r} in {kinds} else {kinds}"
    # On a CPU activations are rounded too, to 8 bits or bfloat16, which enlarges rounding errors of another process.
    check_programs(train, load, tmp_path, **causal_outputs(tmp_path), losses=losses, atol=0.01)


# Serving as LoRA


def test_serving_as_lora(base: Path) -> None:
    outputs, plain = causal_outputs(base).values()
    first, second = programs("Serving as LoRA")
    losses, expected = run(first, base, f"(losses, {outputs})")
    assert losses[-1] < losses[0]
    loaded, names = run(second, base, f"({outputs}, __import__('sys').modules.keys() & {{'structmat'}})")
    assert not names
    torch.testing.assert_close(loaded, expected, atol=1e-2, rtol=1e-2)
    assert not torch.allclose(loaded, plain, atol=1e-2)


# ONNX Runtime


def test_onnxruntime(tmp_path: Path) -> None:
    first, second = programs("ONNX Runtime")
    x = "torch.linspace(-2, 2, 48).reshape(3, 16)"
    losses, expected = run(first, tmp_path, f"(losses, model({x}).detach())")
    assert losses[-1] < losses[0]
    found = run(second, tmp_path, f"torch.tensor(session.run(None, {{session.get_inputs()[0].name: {x}.numpy()}})[0])")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


# The compilers of torch

ROWS = "torch.linspace(-2, 2, {n} * 24).reshape({n}, 24)"
LOADED = f"([model(x) for x in ({ROWS.format(n=3)}, {ROWS.format(n=5)})], 'structmat' in __import__('sys').modules)"
EXPORTED = {
    "export": 'model = torch.export.load("model.pt2").module()',
    "AOTInductor": 'model = torch._inductor.aoti_load_package("model.pt2")',
}


@pytest.fixture(scope="module")
def compiled() -> torch.nn.Module:
    """Train a model compiled by Inductor, and one that is not: they do the same."""
    torch.manual_seed(0)
    eager = torch.nn.Sequential(torch.nn.Linear(24, 32), torch.nn.GELU(), torch.nn.Linear(32, 32), torch.nn.ReLU())
    adapt(eager, block_size=16)
    inner = copy.deepcopy(eager)
    x, y = torch.randn(16, 24), torch.randn(16, 32)
    losses: dict[str, list[float]] = {"eager": [], "compiled": []}
    for name, model in (("eager", eager), ("compiled", torch.compile(inner, fullgraph=True))):
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


@compiler
@pytest.mark.parametrize("form", EXPORTED)
def test_exported_files_need_no_structmat(form: str, compiled: torch.nn.Module, tmp_path: Path) -> None:
    first, second = (eval(ROWS.format(n=n), {"torch": torch}) for n in (3, 5))  # noqa: S307 - our own
    exported = torch.export.export(compiled, (first,), dynamic_shapes=({0: torch.export.Dim("rows", max=100)},))
    file = str(tmp_path / "model.pt2")
    if form == "export":
        torch.export.save(exported, file)
    else:
        torch._inductor.aoti_compile_and_package(exported, package_path=file)
    found, imported = run(f"import torch\nwith torch.no_grad():\n    {EXPORTED[form]}", tmp_path, LOADED)
    assert not imported
    for y, x in zip(found, (first, second), strict=True):
        torch.testing.assert_close(y.detach(), compiled(x).detach(), atol=1e-5, rtol=1e-5)
