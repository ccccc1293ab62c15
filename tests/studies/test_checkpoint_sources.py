"""`fit_checkpoint` and its command: which weights belong together, of what names and magnitudes, in which folders."""

from __future__ import annotations

import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file

from structmat._layer_fits import layers as _layers
from structmat.cli import main
from structmat.io import CheckpointError
from structmat.studies import MatrixSource, SweepConfig, fit_checkpoint, sweep
from tests.studies import checkpoints


@pytest.fixture
def cli(capfd, monkeypatch):
    """Run the command; give its exit status, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments):
        capfd.readouterr()
        status = main([str(a) for a in arguments])
        return status, *capfd.readouterr()

    return run


def test_the_same_files_in_another_place_are_gone_on_with(tmp_path, monkeypatch):
    sources = checkpoints.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    fit = fit_checkpoint("out", base="base", tuned="tuned", targets="attn")
    before = (fit.folder / "adapter_model.safetensors").read_bytes()
    monkeypatch.setattr(_layers, "fit_cdd", None)  # nothing is to be fitted again
    for path in sources["tuned"].iterdir():
        os.utime(path, (1, 1))
    (tmp_path / "base").rename(tmp_path / "moved")
    for base in ("moved", tmp_path / "moved"):
        again = fit_checkpoint("out", base=base, tuned="tuned", targets="attn")
        assert (again.folder / "adapter_model.safetensors").read_bytes() == before


def delta(folder, **changes):
    save_file({name: torch.from_numpy(change) for name, change in changes.items()}, folder / "delta.safetensors")
    return folder / "delta.safetensors"


def test_a_new_layer_is_not_paired_with_the_base_of_another(tmp_path):
    base, tuned = checkpoints.weights()
    name = next(iter(checkpoints.names()))
    tuned[f"aux.{name}.weight"] = torch.ones(checkpoints.N, checkpoints.N)
    sources = {"base": checkpoints.write(tmp_path / "base", base), "tuned": checkpoints.write(tmp_path / "t", tuned)}
    with pytest.raises(CheckpointError, match=rf"aux\.{name}\.weight: .*base has no such weight"):
        fit_checkpoint(tmp_path / "out", **sources, targets=name)
    fit = fit_checkpoint(tmp_path / "out", **sources, targets=name, skip_bad=True)
    assert [layer.name for layer in fit.layers] == [name]
    assert fit.error < 1e-4
    source = MatrixSource(base=str(sources["base"]), tuned=str(sources["tuned"]), targets=name)
    with pytest.raises(CheckpointError, match=r"aux.*base has no such weight"):
        sweep(SweepConfig([source]), tmp_path / "study")


def test_two_changes_of_one_layer_are_told(tmp_path):
    file = delta(tmp_path, **{"x": np.ones((4, 4)), "x.weight": np.eye(4), "y": np.eye(4)})
    with pytest.raises(CheckpointError, match=r"x\.weight and .*x are both the change of x"):
        fit_checkpoint(tmp_path / "out", delta=file)
    fit = fit_checkpoint(tmp_path / "out", delta=file, skip_bad=True)
    assert [layer.name for layer in fit.layers] == ["y"]
    assert [*fit.skipped] == ["x"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("power", [-35, -24, 30, 36])
def test_layers_of_any_magnitude_are_fitted(tmp_path, dtype, power):
    change = np.random.default_rng(0).standard_normal((4, 6)).astype(dtype)
    scale = change.dtype.type(10.0**power) if dtype == "float32" else 10.0 ** (8 * power)
    fit = fit_checkpoint(tmp_path / "out", delta=delta(tmp_path, x=change, y=change * scale))
    one, other = fit.layers
    assert other.norm == pytest.approx(one.norm * float(scale), rel=1e-5)
    assert other.error == pytest.approx(one.error, rel=1e-3)
    assert fit.error == pytest.approx(one.error, rel=1e-3)
    assert "nan" not in str(fit)


def test_names_of_any_letters(tmp_path, cli):
    names = ["a$\\frac$\x1b[31m", "\u5c42" * 80, "br[1]"]
    file = delta(tmp_path, **{name: np.eye(4, 6) for name in names}, empty=np.ones((0, 4)))
    status, out, err = cli("fit-checkpoint", "--delta", file, "--out", tmp_path / "out", "--plot", "--debug")
    assert (status, err) == (0, ""), err
    assert "\x1b" not in out
    assert "\x1b" not in (tmp_path / "out/report.html").read_text()
    assert "$\\frac$\\x1b[31m" in out
    assert "1 layer without a change" in out


def test_the_folder_of_a_source_is_no_place_for_an_adapter(tmp_path, cli):
    sources = checkpoints.make(tmp_path)
    before = sorted(sources["base"].iterdir())
    command = ("fit-checkpoint", "--base", sources["base"], "--tuned", sources["tuned"])
    status, out, err = cli(*command, "--out", sources["base"])
    assert (status, out) == (2, "")
    assert "--out: must be another folder than base" in err
    assert sorted(sources["base"].iterdir()) == before
    (tmp_path / "old").mkdir()
    (tmp_path / "old/layers.csv").touch()
    status, out, err = cli(*command, "--out", tmp_path / "old")
    assert (status, out) == (2, "")
    assert "layers.csv: the file exists and is not of an earlier run; choose another folder" in err
    assert "--force" not in err


def test_a_layer_never_takes_the_second_moment_of_another(tmp_path):
    file = delta(tmp_path, **{"head.weight": np.eye(4), "aux.head.weight": np.eye(4)})
    moments = tmp_path / "moments.safetensors"
    save_file({"aux.head": torch.ones(4)}, moments)
    with pytest.raises(CheckpointError, match=r"moments\.safetensors has no weight head$"):
        fit_checkpoint(tmp_path / "out", delta=file, input_second_moment=moments)


def lora(folder, **tensors):
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file(tensors, folder / "a.safetensors")
    return folder


def test_a_side_of_a_lora_is_never_that_of_another_module(tmp_path):
    left, right = torch.ones(4, 1), torch.ones(1, 4)
    whole = {"aux.head.lora_A.weight": right, "aux.head.lora_B.weight": left}
    folder = lora(tmp_path / "lora", **whole, **{"head.lora_B.weight": 2 * left})
    with pytest.raises(CheckpointError, match=r"lora has no weight head\.lora_A\.weight"):
        fit_checkpoint(tmp_path / "out", lora=folder)


def test_a_lora_of_rank_zero_changes_nothing(tmp_path):
    sides = {"x.lora_A.weight": torch.ones(0, 4), "x.lora_B.weight": torch.ones(4, 0)}
    with pytest.raises(CheckpointError, match="no weight that matches has changed"):
        fit_checkpoint(tmp_path / "out", lora=lora(tmp_path / "lora", **sides))


def test_changes_beyond_the_largest_number_are_refused_without_a_warning(tmp_path):
    folder = lora(tmp_path / "lora", **{f"x.lora_{side}.weight": torch.full((2, 2), 1e30) for side in "AB"})
    with pytest.raises(CheckpointError, match=r"x\.lora_B\.weight: the change holds NaN or infinity"):
        fit_checkpoint(tmp_path / "out", lora=folder)
    for name, sign in (("base", -1), ("tuned", 1)):
        save_file({"x.weight": torch.full((2, 2), sign * 3e38)}, tmp_path / f"{name}.safetensors")
    sources = {name: tmp_path / f"{name}.safetensors" for name in ("base", "tuned")}
    with pytest.raises(CheckpointError, match=r"x\.weight: the change holds NaN or infinity"):
        fit_checkpoint(tmp_path / "out2", **sources)


def test_where_all_layers_are_bad_the_files_are_to_blame_and_not_targets(tmp_path):
    sides = {"x.lora_A.weight": torch.ones(2, 4), "x.lora_B.weight": torch.ones(4, 3)}
    with pytest.raises(CheckpointError, match=r"nothing to put into an adapter: .*x\.lora_B\.weight has shape"):
        fit_checkpoint(tmp_path / "out", lora=lora(tmp_path / "lora", **sides), skip_bad=True)


def test_the_folder_of_second_moments_is_no_place_for_an_adapter(tmp_path):
    file = delta(tmp_path, x=np.eye(4))
    with pytest.raises(ValueError, match="out must be another folder than input_second_moment"):
        fit_checkpoint(tmp_path, delta=file, input_second_moment=tmp_path)


def test_sources_without_a_matrix_are_to_blame_and_empty_ones_change_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="there is no weight of a linear layer"):
        fit_checkpoint(tmp_path / "out", delta=delta(tmp_path, x=np.ones(3)))
    with pytest.raises(CheckpointError, match="no weight that matches has changed"):
        fit_checkpoint(tmp_path / "out", delta=delta(tmp_path, x=np.ones((0, 3))), callback=str)
