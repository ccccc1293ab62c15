"""Names of two checkpoints that mean the same weight: never two of one, and nothing that is in doubt."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from structmat._checkpoint import Checkpoint


def checkpoint(names):
    return Checkpoint.in_memory({name: np.zeros(1) for name in names}, "memory")


def pair_names(names, stored):
    return checkpoint(stored).partners(names)


def fitting_name(name, stored):
    return checkpoint(stored).find(name)


NAMES = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join), unique=True, max_size=12)


@given(names=NAMES, stored=NAMES)
def test_partners_are_one_to_one_and_equal_names_go_together(names, stored):
    found = pair_names(names, stored)
    assert set(found) <= set(names)
    assert set(found.values()) <= set(stored)
    assert len({*found.values()}) == len(found)
    for name in {*names} & {*stored}:
        assert found[name] == name
    for name, key in found.items():
        assert name == key or name.endswith(f".{key}") or key.endswith(f".{name}")
    assert pair_names(names[::-1], stored[::-1]) == found


@given(names=NAMES)
def test_a_common_prefix_changes_nothing(names):
    wrapped = [f"model.{name}" for name in names]
    alone = [name for name in names if sum(fitting_name(f"model.{other}", [name]) is not None for other in names) == 1]
    assert pair_names(wrapped, names).items() >= {f"model.{name}": name for name in alone if len(names) == 1}.items()
    for name, key in pair_names(wrapped, names).items():
        assert name.endswith(key)


def test_a_new_name_never_takes_the_partner_of_another():
    assert pair_names(["head", "aux.head"], ["head"]) == {"head": "head"}
    assert pair_names(["aux.head"], ["head"]) == {"aux.head": "head"}
    assert pair_names(["model.head", "model.aux.head"], ["head"]) == {}
    assert pair_names(["model.head", "model.aux.head"], ["head", "aux.head"]) == {
        "model.head": "head",
        "model.aux.head": "aux.head",
    }
    assert pair_names(["head"], ["a.head", "b.head"]) == {}


def test_wrappers_inside_of_names_do_not_count():
    assert fitting_name("0.up", ["0._orig_mod.up", "1.up"]) == "0._orig_mod.up"
    assert pair_names(["0.up", "_orig_mod.0.down"], ["0._orig_mod.up", "m.0.down"]) == {
        "0.up": "0._orig_mod.up",
        "_orig_mod.0.down": "m.0.down",
    }


def test_equal_names_go_together_and_what_wrappers_make_alike_is_in_doubt():
    both = ["_orig_mod.a", "a"]
    assert pair_names(both, both[::-1]) == {name: name for name in both}
    assert pair_names(["m.a"], both) == {}
    assert pair_names(both, ["m.a"]) == {}
