"""`structmat info`."""

from __future__ import annotations

import json
import re

import pytest

from structmat import io


def test_info_describes_a_saved_fit(cli):
    cli("fit", "W.npy", "--out", "fit.safetensors", "--block-size", 3)
    status, out, err = cli("info", "fit.safetensors")
    assert (status, err) == (0, "")
    for pattern in (
        r"operator +CDDProduct",
        r"shape +9 x 6",
        r"dtype +float64",
        r"block size +3",
        r"parameters +33 \(61\.111% of dense\)",
    ):
        assert re.search(pattern, out)
    for pattern in (
        r"factors\.0\.d │ 9 ",
        r"factors\.1\.c │ 3 x 2 x 3 ",
        r"factors\.2\.d │ 6 ",
        r"source: W\.npy",
        r"fit +error \d\.\d+ from the start ",
    ):
        assert re.search(pattern, out)


@pytest.mark.parametrize("name", ["W.npy", "two.npz", "plain.safetensors", "operator.safetensors"])
def test_info_in_json_is_the_description(cli, name):
    status, out, err = cli("info", name, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == io.describe(name)
    status, out, _ = cli("info", name)
    assert status == 0
    assert all(array in out for array in io.describe(name)["tensors"])
