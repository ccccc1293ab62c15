"""What the fuzzing of readers found: text nested too deeply for a parser, and other values than are meant."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import structmat as sm
from structmat import io
from structmat._layer_fits.plans import plan_lora

studies = pytest.importorskip("structmat.studies")

DEEP = "[" * 99_999
READERS = {
    "curve.json": sm.ErrorCurve.load,
    "adapter_config.json": lambda path: plan_lora(path.parent, None),
    "model.safetensors.index.json": lambda path: io.Checkpoint(path.parent),
    "study.toml": studies.read_config,
    "work/settings.json": lambda path: studies.load_study(path.parent.parent),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("text", [DEEP, "0"])
def test_text_that_is_no_table_is_refused_in_one_line(name, text, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"x = {text}" if path.suffix == ".toml" else text)
    with pytest.raises(ValueError) as caught:
        READERS[name](path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_run_does_not_go_on_from_settings_that_cannot_be_read(tmp_path):
    config = studies.SweepConfig({"a": np.eye(2)}, methods=["truncated-svd"])
    studies.sweep(config, tmp_path)
    (tmp_path / "work/settings.json").write_text(DEEP)
    with pytest.raises(ValueError, match=r"settings\.json is damaged, so the settings of .* are unknown"):
        studies.sweep(config, tmp_path)


def test_a_fit_with_an_impossible_error_is_shown(tmp_path):
    result = sm.fit_cdd(np.eye(2))
    io.save(replace(result, error=1e308), Path(tmp_path, "fit"))
    assert "1e+308" in repr(io.load(tmp_path / "fit"))


@pytest.mark.parametrize(("field", "value"), [("block_size", 0), ("block_size", ""), ("error", None), ("start", 3)])
def test_a_fit_with_fields_of_other_kinds_is_refused(tmp_path, field, value):
    io.save(replace(sm.fit_cdd(np.eye(2)), **{field: value}), tmp_path / "fit")
    with pytest.raises(ValueError, match=f"describes no valid operator: {field} of a fit is"):
        io.load(tmp_path / "fit")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("alpha_pattern", -1, "alpha_pattern must be a table, got -1"),
        ("alpha_pattern", {"a": "x"}, "the alpha a must be a number, got 'x'"),
        ("alpha_pattern", {"(": 1}, r"alpha_pattern must have regular expressions, got '\('"),
        ("alpha_pattern", {"(?i)x": 1}, r"alpha_pattern must have regular expressions, got '\(\?i\)x'"),
        pytest.param("lora_alpha", 10**400, "the alpha lora_alpha must be a number, got 1000", id="lora_alpha-huge"),
        ("lora_alpha", None, "the alpha lora_alpha must be a number, got None"),
    ],
)
def test_scales_of_a_lora_that_are_no_numbers_are_refused(tmp_path, key, value, text):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", key: value}))
    with pytest.raises(ValueError, match=text):
        plan_lora(tmp_path, None)
