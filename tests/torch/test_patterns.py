"""Options of single layers."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from structmat.torch import adapt
from tests.torch.common import assert_same_state, state
from tests.torch.models import names


def options_of(model, summary, option):
    return [model.get_submodule(path).adapters["default"].options()[option] for path in names(summary)]


@pytest.mark.parametrize(("pattern", "expected"), [
    ({"query": 5}, [5, 3, 3]),
    ({"block.query": 5, "head": 7}, [5, 3, 7]),
    ({"uery": 5, "head": 7}, None),
    ({r"block\..*": 5}, [5, 5, 3]),
    ({"query|head": 5}, [5, 3, 5]),
    ({"query": 5, "block.*": 7}, [5, 7, 3]),
    ({"block.*": 7, "query|head": 5}, [7, 7, 5]),
    ({}, [3, 3, 3]),
])  # fmt: skip
def test_the_first_key_that_matches_counts(net, pattern, expected):
    if expected is None:
        with pytest.raises(ValueError, match="adapt: n_factors_pattern has 'uery', which matches no adapted layer"):
            adapt(net, n_factors_pattern=pattern)
        return
    summary = adapt(net, n_factors_pattern=pattern)
    assert names(summary) == ["block.query", "block.value", "head"]
    assert options_of(net, summary, "n_factors") == expected


def test_the_same_layers_as_in_peft():
    other = pytest.importorskip("peft.utils.other")
    pattern = {"query": 1, r"block\..*": 2, "x.he.d": 3, "head|value": 4}
    from structmat.torch._model.patterns import by_layer

    paths = ["block.query", "a.block.value", "x.head", "head", "key", "block.b"]
    expected = [pattern.get(other.get_pattern_key(pattern.keys(), path), 0) for path in paths]
    found = by_layer(paths, {"alpha": 0}, {"alpha": pattern})
    assert [found[path]["alpha"] for path in paths] == expected


def test_every_option_has_a_pattern(net):
    summary = adapt(net, block_size_pattern={"query": 2}, alpha_pattern={"value": 0.5}, n_factors_pattern={"head": 5})
    assert options_of(net, summary, "block_size") == [2, 6, 3]
    assert options_of(net, summary, "alpha") == [1.0, 0.5, 1.0]
    assert options_of(net, summary, "n_factors") == [3, 3, 5]


@pytest.mark.parametrize(("settings", "error", "message"), [
    (dict(alpha_pattern={"nowhere": 2.0}), ValueError, "alpha_pattern has 'nowhere', which matches no adapted layer"),
    (dict(alpha_pattern={"block.*": 2.0, "query": 1.0}), ValueError,
     "alpha_pattern has 'query', whose layers earlier keys match already"),
    (dict(alpha_pattern={"(": 2.0}), ValueError, r"alpha_pattern has '\(', no regular expression"),
    (dict(alpha_pattern={"head": "a"}), TypeError, "alpha must be a number, got 'a'"),
    (dict(alpha_pattern=["head"]), TypeError, "alpha_pattern must be a dict"),
    (dict(alpha_pattern={1: 2.0}), TypeError, "alpha_pattern must be a dict"),
    (dict(n_factors_pattern={"head": 4}), ValueError, "n_factors must be odd"),
    (dict(block_size_pattern={"head": 0}), ValueError, "block_size"),
])  # fmt: skip
def test_nothing_has_changed(net, settings, error, message):
    before = state(net)
    with pytest.raises(error, match=message):
        adapt(net, **settings)
    assert_same_state(before, net)
