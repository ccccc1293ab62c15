"""Every call of the system fails once, in all that writes a file: the error names it, and what was there stays."""

from __future__ import annotations

import os

import numpy as np
import pytest

import structmat as sm
from structmat import io
from structmat.fit import error_curve, fit_cdd
from tests.failing_calls import FailingCalls, files_of

W = np.diag([1.0, 2.0, 3.0])


def save_adapter(path):
    torch = pytest.importorskip("torch")
    from structmat.torch import adapt, save_adapter

    model = torch.nn.Sequential(torch.nn.Linear(3, 3))
    adapt(model, targets=["0"])
    save_adapter(model, path, force=True)


def save_study(path):
    studies = pytest.importorskip("structmat.studies")
    row = studies.StudyRow(**dict.fromkeys(studies.StudyRow._fields, 0))
    studies.Study((row,), 1).save(path, force=True)


WRITERS = {
    "operator.safetensors": lambda path: io.save(sm.Circulant([1.0, 2.0]), path, force=True),
    "fit.safetensors": lambda path: io.save(fit_cdd(W, max_iter=1), path, force=True),
    "curve.csv": lambda path: error_curve(W, n_factors=[3], max_iter=1).save(path, force=True),
    "study.csv": save_study,
    "study.sqlite": save_study,
    "adapter.safetensors": save_adapter,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_call_fails_once(name, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)
    (tmp_path / name).write_bytes(b"old")
    failing = 0
    while True:
        failing += 1
        with monkeypatch.context() as patched:
            calls = FailingCalls(tmp_path, patched, failing)
            try:
                WRITERS[name](tmp_path / name)
            except OSError as error:
                assert error.filename == str(tmp_path / name)  # noqa: PT017
                assert calls.failed
                failed = True
            else:
                failed = False
        if failed:
            assert files_of(tmp_path) == {name: b"old"}, calls.failed
        elif calls.failed:
            assert calls.failed in {"os.open", "os.fsync"}  # of the folder, once the file is there
            assert {*files_of(tmp_path)} == {name}
            (tmp_path / name).write_bytes(b"old")
        else:
            break
    assert failing > 5
