"""Which modules the settings of an adapter name."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from structmat._layer_fits.adapter_files import exact_targets

PATHS = st.lists(st.sampled_from(["fc", "block", "0"]), min_size=1, max_size=3).map(".".join)


def matches(targets, path):
    """Whether PEFT adapts a module: the rule of its `check_target_module_exists`."""
    if isinstance(targets, str):
        return re.fullmatch(targets, path) is not None
    return any(path == name or path.endswith(f".{name}") for name in targets)


@given(st.sets(PATHS, min_size=1), st.data())
def test_targets_match_the_modules_that_are_named_and_no_others(every, data):
    names = data.draw(st.lists(st.sampled_from(sorted(every)), min_size=1, unique=True))
    for targets in (exact_targets(names, every), exact_targets(names)):
        assert {path for path in every if matches(targets, path)} == set(names)


def test_names_stay_names_where_no_other_ends_alike():
    assert exact_targets(["a.fc", "b"], ["a.fc", "b", "c.other"]) == ["a.fc", "b"]
    assert exact_targets(["fc"], ["fc", "a.fc"]) == "fc"
    assert exact_targets(["a.fc"]) == r"a\.fc"
