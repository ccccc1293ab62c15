"""Fetching PEFT's own tests where they are not kept yet, and running them then: nothing is fetched while collecting."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("transformers")

from tests.peft import upstream_source
from tests.peft.upstream_source import KEPT, ROOT, SOURCE, fetch


@pytest.mark.skipif(SOURCE.is_dir(), reason="PEFT's tests are here: test_upstream.py has run them one by one")
def test_pefts_own_tests_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SOURCE == KEPT, f"PEFT_TESTS names {SOURCE}, which is no folder"
    fetch()
    monkeypatch.chdir(ROOT)
    # A run of its own in this process, which has imported what PEFT's tests need; what was skipped is imported anew.
    monkeypatch.delitem(sys.modules, "tests.peft.test_upstream", raising=False)
    monkeypatch.setattr(upstream_source, "SOURCE", KEPT)
    options = ["-q", "--slow", "-p", "no:xdist", "-p", "no:cacheprovider"]
    assert pytest.main([*options, "tests/peft/test_upstream.py"]) == pytest.ExitCode.OK
