"""The patch for PEFT in contrib/peft: it holds what the package says, and its layers are those of the package."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from peft import PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import PeftType
from torch import nn
from transformers.pytorch_utils import Conv1D

from structmat.peft import CDDConfig
from tests.docs.test_docs import load
from tests.peft.upstream_source import ROOT, SOURCE

make = load(ROOT / "contrib" / "peft" / "make.py")
TUNER = make.FILES / "src" / "peft" / "tuners" / "cdd"
MAPPING = "TRANSFORMERS_MODELS_TO_CDD_TARGET_MODULES_MAPPING"


@pytest.fixture(scope="module")
def patch() -> Iterator[Any]:
    """The tuner of the patch as a package; `register_peft_method` in its __init__.py would find the name taken."""
    name = "tuner_of_the_patch"
    package: Any = ModuleType(name)
    package.__path__ = [str(TUNER)]
    sys.modules[name] = package
    setattr(peft.utils, MAPPING, peft.utils.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING)
    try:
        for module in ("config", "layer", "model"):
            setattr(package, module, importlib.import_module(f"{name}.{module}"))
        yield package
    finally:
        delattr(peft.utils, MAPPING)
        for module in [each for each in sys.modules if each.partition(".")[0] == name]:
            del sys.modules[module]


def adapted(base: nn.Module, config: Any, patch: Any = None) -> PeftModel:
    """Adapt the only layer of a model, by the patch or else by the package, with the same random numbers."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as context:
        if patch is not None:
            context.setitem(PEFT_TYPE_TO_CONFIG_MAPPING, PeftType.CDD, patch.config.CDDConfig)
            context.setitem(PEFT_TYPE_TO_TUNER_MAPPING, PeftType.CDD, patch.model.CDDModel)
        return get_peft_model(nn.Sequential(base), config)


def test_the_folder_holds_what_the_package_says() -> None:
    assert not make.changes(), "run python contrib/peft/make.py"


# For each option a value that is not its default: it changes nothing where the layer of the patch does not know it.
CHOSEN = {"n_factors": 5, "block_size": 3, "alpha": 0.3, "dropout": 0.4, "factor_scale": 2.0}
SHAPES = [(6, 6), (12, 4), (4, 12), (7, 11)]  # features of inputs and outputs


@pytest.mark.parametrize("shape", SHAPES)
def test_layers_are_those_of_the_package(patch: Any, shape: tuple[int, int]) -> None:
    assert CHOSEN.keys() == {option.name for option in make.options()}
    for options in ({}, {"block_size": "toeplitz"}, CHOSEN):
        for base in (nn.Linear(*shape).double(), Conv1D(shape[1], shape[0]).double(), nn.Linear(*shape).bfloat16()):
            settings = {"target_modules": ["0"], "init_weights": False, **options}
            ours = adapted(base, CDDConfig(**settings))
            theirs = adapted(base, patch.config.CDDConfig(**settings), patch)
            compare(ours.base_model.model[0], theirs.base_model.model[0], shape, base.weight.dtype)


def compare(ours: Any, theirs: Any, shape: tuple[int, int], dtype: Any) -> None:
    """Compare outputs, gradients, the dense change and merged weights of two layers, and what they hold."""
    vectors, others = ours.cdd_adapters["default"].vectors, theirs.cdd_adapters["default"].vectors
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(map(torch.equal, vectors, others))  # the same initial values

    x = torch.randn(2, 3, shape[0], dtype=dtype)
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {"rtol": 1e-10, "atol": 1e-10}
    results = []
    for layer, own in ((ours, vectors), (theirs, others)):
        inputs = x.clone().requires_grad_()
        torch.manual_seed(1)  # of dropout
        outputs = layer(inputs)
        outputs.square().sum().backward()
        results.append((outputs, inputs.grad, *(vector.grad for vector in own)))
    for our, their in zip(*results, strict=True):
        torch.testing.assert_close(their, our, **tolerance)
    torch.testing.assert_close(theirs.get_delta_weight("default"), ours.get_delta_weight("default"), **tolerance)

    weight = ours.get_base_layer().weight.detach().clone()
    merged = []
    for layer in (ours, theirs):
        layer.merge(safe_merge=True)
        merged.append(layer.get_base_layer().weight.detach().clone())
        layer.unmerge()
        torch.testing.assert_close(layer.get_base_layer().weight, nn.Parameter(weight), **tolerance)
        layer.get_base_layer().weight.data.copy_(weight)
    torch.testing.assert_close(*merged, **tolerance)


def test_files_can_be_exchanged(patch: Any, tmp_path: Path) -> None:
    base, x = nn.Linear(12, 4), torch.randn(3, 12)
    settings = {"target_modules": ["0"], "init_weights": False, "block_size": 5, "alpha": 0.5}
    with pytest.MonkeyPatch.context() as context:
        theirs = adapted(base, patch.config.CDDConfig(**settings), patch)
        context.setitem(PEFT_TYPE_TO_CONFIG_MAPPING, PeftType.CDD, patch.config.CDDConfig)
        context.setitem(PEFT_TYPE_TO_TUNER_MAPPING, PeftType.CDD, patch.model.CDDModel)
        theirs.save_pretrained(tmp_path)
    ours = PeftModel.from_pretrained(nn.Sequential(base), tmp_path)
    assert type(ours.peft_config["default"]) is CDDConfig
    torch.testing.assert_close(ours(x), theirs(x))

    ours.save_pretrained(tmp_path / "ours")
    with pytest.MonkeyPatch.context() as context:
        context.setitem(PEFT_TYPE_TO_CONFIG_MAPPING, PeftType.CDD, patch.config.CDDConfig)
        context.setitem(PEFT_TYPE_TO_TUNER_MAPPING, PeftType.CDD, patch.model.CDDModel)
        with pytest.warns(UserWarning, match="Unexpected keyword arguments"):  # options that the patch leaves out
            read = PeftModel.from_pretrained(nn.Sequential(base), tmp_path / "ours")
    assert type(read.base_model) is patch.model.CDDModel
    torch.testing.assert_close(read(x), ours(x))


WRONG = [
    {"n_factors": 4}, {"n_factors": 1}, {"block_size": 0}, {"alpha": float("inf")}, {"dropout": 1.0}, {"dropout": -0.1},
    {"factor_scale": 0.0}, {"factor_scale": float("inf")}, {"bias": "lora_only"}, {"layers_pattern": "layers"},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_the_same_options_are_refused(patch: Any, wrong: dict[str, Any]) -> None:
    for config in (CDDConfig, patch.config.CDDConfig):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            config(**wrong)


def test_the_experiment_has_the_parameters_that_the_page_says(patch: Any) -> None:
    config = patch.config.CDDConfig.from_pretrained(make.FILES / make.EXPERIMENT)
    sizes = dict(hidden_size=3072, num_attention_heads=24, num_key_value_heads=8, head_dim=128)
    with torch.device("meta"):  # one layer of 28
        settings = transformers.LlamaConfig(**sizes, intermediate_size=8192, num_hidden_layers=1, vocab_size=128256)
        model = patch.model.CDDModel(transformers.LlamaForCausalLM(settings), config, "default")
    count = 28 * sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert count == 458_752
    assert f" {count:,} parameters" in (make.FILES / make.PAGE).read_text("utf-8")


INSERTIONS = tomllib.loads((make.HERE / "insertions.toml").read_text("utf-8"))["insertion"]
INSTALLED = Path(peft.__file__).parent


def checkout(folder: Path) -> None:
    """Make a folder with the files of PEFT that the patch changes: those of the installed version.

    Its documentation is not installed, and its tests are not everywhere: there the places of the insertions stand in.
    """
    for insertion in INSERTIONS:
        name = insertion["file"]
        path, source = folder / name, INSTALLED / name.removeprefix("src/peft/")
        if name.startswith("tests/"):
            source = SOURCE / name.removeprefix("tests/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if source.exists():
            shutil.copyfile(source, path)
        else:
            (place,) = insertion.keys() & {"after", "before", "replace"}
            path.write_text((path.read_text("utf-8") if path.exists() else "") + insertion[place], "utf-8")


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_insertions_find_their_places(tmp_path: Path) -> None:
    checkout(tmp_path)
    make.put_into(tmp_path)
    assert (tmp_path / make.CONFIG).exists()
    for insertion in INSERTIONS:
        assert insertion["text"] in (tmp_path / insertion["file"]).read_text("utf-8")
    after = files_of(tmp_path)
    with pytest.raises(ValueError, match="has the method already"):
        make.put_into(tmp_path)
    assert files_of(tmp_path) == after


def test_without_a_place_nothing_changes(tmp_path: Path) -> None:
    checkout(tmp_path)
    toctree = tmp_path / "docs/source/_toctree.yml"
    toctree.write_text(toctree.read_text("utf-8").replace("title: C3A", "title: another"), "utf-8")
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match=r"_toctree.yml: found 0 times, not once, the lines\n.*c3a"):
        make.put_into(tmp_path)
    assert files_of(tmp_path) == before


@pytest.mark.slow
def test_pefts_own_tests_pass_with_the_patch(tmp_path: Path) -> None:
    """Those that the patch adds, in a process that imports the patched PEFT: all of test_cdd.py, and a few others."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(INSTALLED, tmp_path / "src" / "peft", ignore=ignored)
    tests = ["tests/test_cdd.py"]
    if SOURCE.is_dir():
        shutil.copytree(SOURCE, tmp_path / "tests", ignore=ignored)
        tests.append("tests/test_custom_models.py")
    checkout(tmp_path)
    make.put_into(tmp_path)
    (tmp_path / "tests" / "__init__.py").touch()
    stubs = tmp_path / "stubs"  # PEFT's tests import this package, and no test here uses it
    stubs.mkdir()
    (stubs / "datasets.py").write_text("load_dataset = None\n", "utf-8")

    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    own |= {"PYTHONPATH": f"{tmp_path / 'src'}{os.pathsep}{stubs}", "HF_HUB_OFFLINE": "1"}
    chosen = "test_cdd or CDD and (Same or Conv1D)"
    command = [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider", "-k", chosen, *tests]
    run = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, env=own)
    assert run.returncode == 0, run.stdout[-5000:]
