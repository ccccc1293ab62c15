"""The command as a whole: help, and as a process."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

import structmat as sm
from structmat.fit import fit_cdd


def test_help_names_every_option_with_its_default(cli):
    status, out, err = cli("fit", "--help")
    assert (status, err) == (0, "")
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", out).split())
    for option in (
        "key",
        "n-factors",
        "block-size",
        "first",
        "max-iter",
        "time-limit",
        "tol",
        "seed",
        "out",
        "plot",
        "json",
        "force",
        "debug",
    ):
        assert f"--{option}" in text
    options = inspect.signature(fit_cdd).parameters
    for default in (*(options[name].default for name in ("n_factors", "first", "max_iter", "tol")), 0, False):
        assert f"[default: {default}]" in text
    assert "--plot fit.png" in text
    assert "--no-" not in text


def test_version_and_no_arguments(cli):
    assert cli("--version") == (0, f"structmat {sm.__version__}\n", "")
    status, out, _ = cli()
    assert status == 0
    assert all(name in out for name in ("fit", "curve", "info", "--help", "--version"))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_what_they_need_to_complete(cli, shell):
    status, out, err = cli("completion", shell)
    assert (status, err) == (0, "")
    assert all(word in out for word in ("structmat", "fit-checkpoint", "block-size"))
    status, out, err = cli("completion", "csh")
    assert (status, out) == (2, "")
    assert "SHELL" in err


# As a process


def process(*arguments):
    return subprocess.run([sys.executable, "-m", "structmat", *arguments], capture_output=True, text=True, check=False)


def test_as_a_module():
    done = process("fit", "W.npy", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["n_parameters"] == 27
    done = process("fit", "W.npy", "--nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("structmat fit: error: ")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")  # noqa: PTH110
@pytest.mark.parametrize("arguments", [("info", "W.npy"), ("sweep", "--example"), ("completion", "bash")])
def test_output_that_cannot_be_written(arguments):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "structmat", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "standard output: No space left" in done.stderr


def test_the_installed_script_and_a_light_import():
    if script := shutil.which("structmat", path=os.path.dirname(sys.executable)):  # noqa: PTH120
        done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"structmat {sm.__version__}\n"
    heavy = [name for name in ("torch", "jax", "matplotlib") if importlib.util.find_spec(name)]
    code = f"import sys, structmat.cli._app; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_while_the_command_is_imported_is_one_line(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("""
import signal, sys
class Interrupting:
    def find_spec(name, path=None, target=None):
        if name == "structmat.cli._app":
            signal.raise_signal(signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell runs in the background
sys.meta_path.insert(0, Interrupting)
""")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    run = [sys.executable, "-m", "structmat"]
    done = subprocess.run(run, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "structmat: interrupted\n")
