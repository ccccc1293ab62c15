"""What the tests of the command share."""

from __future__ import annotations

import json

import numpy as np

RNG = np.random.default_rng(0)
W = RNG.standard_normal((9, 6))
BASELINES = ["cdd-fit", "truncated-svd", "nearest-circulant", "nearest-diagonal"]


def snapshot(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def fitted(cli, *arguments):
    status, out, err = cli("fit", *arguments, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)
