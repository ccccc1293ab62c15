"""`describe`: what a file holds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import structmat as sm
from structmat import io
from structmat._array_tools import dtype_name
from structmat.fit import fit_cdd
from tests.io.common import once
from tests.operator_registry import REGISTRY


@pytest.mark.parametrize("entry", REGISTRY, ids=lambda e: e.name)
@given(data=st.data())
@settings(parent=once, max_examples=10)
def test_descriptions_agree_with_the_operator(entry, tmp_path, data):
    op = data.draw(entry.samples()).make(np.asarray)
    path = tmp_path / "f"
    io.save(op, path, force=True, metadata={"b": 1, "a": "x"})
    op = op.operator if isinstance(op, sm.Prepared) else op
    got = io.describe(path)
    assert json.loads(json.dumps(got)) == got
    assert got["format"] == "structmat"
    assert got["kind"] == type(op).__name__
    assert tuple(got["shape"]) == op.shape
    assert tuple(got["batch_shape"]) == op.batch_shape
    assert got["dtype"] == dtype_name(op.dtype)
    assert got["bytes"] == path.stat().st_size
    assert got["metadata"] == {"a": "x", "b": "1"}
    assert list(got["metadata"]) == ["a", "b"]
    if isinstance(op, sm.CDDProduct):
        assert got["n_factors"] == op.n_factors
        assert got["n_parameters"] == op.n_parameters
    if isinstance(op, (sm.Circulant, sm.Diagonal)):
        assert got["n_parameters"] == op.shape[0]
    if isinstance(op, sm.BlockCirculant):
        assert got["block_size"] == op.block_size


def test_descriptions_of_matrices(tmp_path):
    W = np.ones((2, 3), np.float32)
    np.save(tmp_path / "W.npy", W)
    np.savez(tmp_path / "W.npz", a=W, b=W[0])
    save_file({"a": W, "b": W[0]}, tmp_path / "W.safetensors", metadata={"who": "me"})
    both = {"a": {"shape": [2, 3], "dtype": "float32"}, "b": {"shape": [3], "dtype": "float32"}}
    assert io.describe(tmp_path / "W.npy")["tensors"] == {"array": both["a"]}
    assert io.describe(tmp_path / "W.npz")["tensors"] == both
    plain = io.describe(tmp_path / "W.safetensors")
    assert plain["tensors"] == both
    assert plain["metadata"] == {"who": "me"}
    assert [io.describe(p)["format"] for p in sorted(tmp_path.iterdir())] == ["npy", "npz", "safetensors"]


def test_the_dtype_of_a_fit_is_that_of_its_operator(tmp_path):
    """Its history, in double precision, does not count."""
    torch = pytest.importorskip("torch")
    for dtype in ("bfloat16", "float16", "float32", "float64"):
        io.save(fit_cdd(torch.eye(3, dtype=getattr(torch, dtype)), rng=0), tmp_path / dtype)
        assert io.describe(tmp_path / dtype)["dtype"] == dtype
