"""Every option of every command reaches what the command calls; none is missing here."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import numpy as np
import pytest

from structmat import studies
from structmat.cli import _app, _curve, _fit
from structmat.cli._options import option_names
from tests.cli.common import W

PRINTED = {"json", "debug"}
MOMENT, WEIGHTS = np.geomspace(1.0, 0.1, 9), np.abs(W.T) > 0.3
FIT = {"block_size": 3, "first": "circulant", "input_second_moment": "S.npy", "time_limit": 30.0, "seed": 5, "key": "b"}
RUN = {"input_second_moment": "S.npy", "time_limit": 30.0, "workers": 2, "scheduler": "local", "targets": "query"}


@pytest.fixture(autouse=True)
def inputs(folder):
    np.save("S.npy", MOMENT)
    np.save("M.npy", WEIGHTS)


@pytest.fixture
def given(cli, monkeypatch):
    """Run a command as far as a function, whose arguments come back."""

    def run(owner, name, command, *arguments, **options):
        signature, seen = inspect.signature(getattr(owner, name)), []

        def stopped(*positional, **named):
            seen.append(signature.bind(*positional, **named).arguments)
            raise RuntimeError("no further")

        monkeypatch.setattr(owner, name, stopped)
        for option, value in options.items():
            arguments += (f"--{option.replace('_', '-')}", *([] if value is True else [value]))
        _, _, err = cli(command, *arguments)
        assert "no further" in err
        return seen[0]

    return run


def agree(found, wanted):
    assert {name: found[name] for name in wanted} == wanted


def test_every_option_of_fit_reaches_fit_cdd(given):
    options = FIT | {"n_factors": 5, "max_iter": 7, "tol": 0.25, "entry_weights": "M.npy"}
    assert option_names(_app.fit) == {*options, "out", "plot", "force", *PRINTED}
    found = given(_fit, "fit_cdd", "fit", "two.npz", **options)
    np.testing.assert_array_equal(found["W"], W.T)
    np.testing.assert_array_equal(found["input_second_moment"], MOMENT)
    np.testing.assert_array_equal(found["entry_weights"], WEIGHTS)
    same = {name: options[name] for name in ("n_factors", "block_size", "first", "max_iter", "tol", "time_limit")}
    agree(found, {**same, "rng": 5})


@pytest.mark.parametrize(
    ("options", "wanted"),
    [({"max_factors": 17}, (17, None)), ({"n_factors": "3,5,9"}, (None, [3, 5, 9])), ({}, (9, None))],
)
def test_every_option_of_curve_reaches_error_curve(given, options, wanted):
    assert option_names(_app.curve) == {*FIT, "max_factors", "n_factors", "csv", "plot", "force", *PRINTED}
    found = given(_curve, "error_curve", "curve", "two.npz", **FIT, **options)
    np.testing.assert_array_equal(found["W"], W.T)
    np.testing.assert_array_equal(found["input_second_moment"], MOMENT)
    numbers = found["n_factors"] if found["n_factors"] is None else [*found["n_factors"]]
    assert (found["max_factors"], numbers) == wanted
    agree(found, {"block_size": 3, "first": "circulant", "time_limit": 30.0, "rng": 5})


SWEEP = {
    "n_factors": "3,5",
    "block_sizes": "min,4",
    "methods": "cdd,monarch",
    "seeds": "1,2",
    "max_iter": 7,
    "restarts": 4,
    "no_growth": True,
    "time_limit": 30.0,
}
SOURCES = {"base": "plain.safetensors", "tuned": "W.npy", "targets": "query", "input_second_moment": "S.npy"}


@pytest.mark.parametrize(("files", "sources"), [((), SOURCES), (("W.npy",), {}), (("study.toml",), {})])
def test_every_option_of_sweep_reaches_the_configuration(given, files, sources):
    assert option_names(_app.sweep) == {*SWEEP, *SOURCES, *RUN, "out", "example", "log_level", *PRINTED}
    Path("study.toml").write_text('[[sources]]\nfiles = ["W.npy"]\n')
    run = {"workers": 2, "scheduler": "local"}
    found = given(studies, "sweep", "sweep", *files, out="study", **SWEEP, **sources, **run)
    agree(found, {"out": Path("study"), **run})
    lists = {"n_factors": (3, 5), "block_sizes": ("min", 4), "methods": ("cdd", "monarch"), "seeds": (1, 2)}
    config = dataclasses.asdict(found["config"])
    agree(config, {**lists, "max_iter": 7, "restarts": 4, "growth": False, "time_limit": 30.0})
    (source,) = config["sources"]
    assert [Path(file).name for file in source["files"]] == ["W.npy"] * len(files)
    agree(source, sources)


@pytest.mark.parametrize(
    "sources", [{"base": "plain.safetensors", "tuned": "W.npy"}, {"delta": "W.npy"}, {"lora": "W.npy"}]
)
def test_every_option_of_fit_checkpoint_reaches_it(given, sources):
    options = {"n_factors": 5, "block_size": 3, "cast": True, "threads": 3, "skip_bad": True, "plot": True} | RUN
    every = {*options, "base", "tuned", "delta", "lora", "out", "seed", "log_level", *PRINTED}
    assert option_names(_app.fit_checkpoint) == every
    found = given(studies, "fit_checkpoint", "fit-checkpoint", out="adapter", seed=5, **sources, **options)
    paths = {name: Path(sources[name]) if name in sources else None for name in ("base", "tuned", "delta", "lora")}
    agree(found, {**options, **paths, "input_second_moment": Path("S.npy"), "rng": 5, "out": Path("adapter")})
