"""Standard output and error lead anywhere: nothing is lost, and the exit status is right."""

from __future__ import annotations

import errno
import io
import os
import sys

import numpy as np
import pytest

from structmat.cli import main

FIT = ["fit", "W.npy", "--max-iter", "1", "--out", "o.safetensors"]
CURVE = ["curve", "W.npy", "--max-factors", "3", "--time-limit", "0", "--csv", "o.csv"]


class Failing(io.StringIO):
    """A stream that nothing can be written to."""

    def __init__(self, number):
        super().__init__()
        self.error = OSError(number, os.strerror(number))

    def write(self, _):
        raise self.error


@pytest.mark.parametrize("json", [[], ["--json"]], ids=["", "json"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE], ids=errno.errorcode.get)
@pytest.mark.parametrize("arguments", [FIT, CURVE], ids=lambda a: a[0])
def test_what_cannot_be_printed_is_written_all_the_same(folder, monkeypatch, capsys, arguments, number, json):
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", Failing(number))
        assert main([*arguments, *json]) == 1
    assert (folder / arguments[-1]).stat().st_size > 100
    line = f"structmat {arguments[0]}: error: standard output: No space left on device\n"
    assert capsys.readouterr().err == ("" if number == errno.EPIPE else line)


@pytest.mark.parametrize(("arguments", "status"), [(["info", "W.npy"], 0), (["info", "no"], 1), (["fit", "--no"], 2)])
def test_closed_streams_lead_nowhere(monkeypatch, arguments, status):
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", None)
        patched.setattr(sys, "stderr", None)
        assert main(arguments) == status
        sys.stdout.close()
        sys.stderr.close()


def test_letters_that_the_terminal_lacks_are_escaped(folder, monkeypatch):
    np.save("\xe9\u6f22.npy", np.eye(2))
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
        assert main(["info", "\xe9\u6f22.npy"]) == 0
        assert rb"\xe9\u6f22.npy" in sys.stdout.buffer.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_no_text_are_kept_readable(folder, cli):
    name = os.fsdecode(b"\xff W.npy")
    np.save(name, np.eye(3))
    assert cli("fit", name, "--max-iter", "1", "--out", "o.safetensors")[0] == 0
    assert r"source: \udcff W.npy" in cli("info", "o.safetensors")[1]
    status, out, err = cli("sweep", name, "--methods", "truncated-svd", "--out", "study")
    assert (status, err) == (0, "")
    assert r"\udcff W" in out
