"""The list of faults fits the package: each can be put in, and the tests of its subject are there."""

from __future__ import annotations

import ast
from collections import Counter

import pytest

from tests.faults import run

FAULTS = run.faults()


@pytest.mark.parametrize("file", sorted({fault.file for fault in FAULTS}))
def test_the_faults_of_a_file_can_be_put_in(file):
    text = (run.ROOT / file).read_text("utf-8")
    unchanged = ast.dump(ast.parse(text))
    for fault in FAULTS:
        if fault.file == file:
            assert ast.dump(ast.parse(fault.applied(text))) != unchanged, fault.title
    assert run.related(file)


def test_faults_have_titles_of_their_own_and_are_spread_over_the_package():
    assert len({fault.title for fault in FAULTS}) == len(FAULTS) >= 60
    places = Counter(fault.file.removeprefix("structmat/").partition("/")[0] for fault in FAULTS)
    subjects = ("_fourier", "_toeplitz_systems", "linear_systems", "operators", "fit", "torch", "peft", "io", "studies")
    assert min(places[subject] for subject in subjects) >= 3


def test_a_text_that_has_gone_is_an_error():
    fault = run.Fault("gone", "structmat/io/__init__.py", "no such text", "")
    with pytest.raises(ValueError, match="must hold 'no such text' once, and holds it 0 times"):
        fault.applied("x = 1")
    with pytest.raises(ValueError, match="2 times"):
        fault.applied("no such text, no such text")


def test_every_entry_of_related_tests_names_files():
    for place, patterns in run.RELATED.items():
        assert (run.ROOT / place).exists(), place
        for pattern in patterns:
            assert list((run.ROOT / "tests").glob(pattern)), pattern
