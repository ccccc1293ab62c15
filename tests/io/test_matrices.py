"""`load_matrix`: matrices of every dtype and format, and no pickle is run."""

from __future__ import annotations

import pickle
import zipfile
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import structmat as sm
from structmat import io
from tests.io.common import attempt, once

DTYPES = ["float64", "float32", "float16", "complex64", "complex128", "int8", "uint16", "int64", "bool", ">f4", ">c16"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_matrices_of_every_dtype_and_format(tmp_path, dtype):
    W = (
        (10 * np.random.default_rng(0).standard_normal((3, 5)))
        .astype("float64" if "u" in dtype else dtype)
        .astype(dtype)
    )
    W = np.asfortranarray(W)
    np.save(tmp_path / "W.npy", W)
    np.savez_compressed(tmp_path / "W.npz", W=W, other=W[:0])
    reads = [io.load_matrix(tmp_path / "W.npy"), io.load_matrix(tmp_path / "W.npz", key="W")]
    if dtype not in {"complex128", ">f4", ">c16"}:
        save_file({"W": np.ascontiguousarray(W)}, tmp_path / "W.safetensors")
        reads.append(io.load_matrix(tmp_path / "W.safetensors"))
    for got in reads:
        assert got.dtype == W.dtype.newbyteorder("=")
        assert got.dtype.isnative
        assert np.array_equal(got, W)
        assert got.flags.writeable


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("member", [None, "W.npy", "W"])
def test_every_version_of_the_format_and_name_in_an_archive_is_read(tmp_path, version, member):
    """NumPy writes version 1.0 and names that end in .npy wherever it can, other programs what they like."""
    stream = BytesIO()
    np.lib.format.write_array(stream, W := np.arange(6.0).reshape(2, 3), version=version)
    path = tmp_path / ("W.npy" if member is None else "W.npz")
    if member is None:
        path.write_bytes(stream.getvalue())
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(member, stream.getvalue())
    np.testing.assert_array_equal(io.load_matrix(path), W)
    name = "array" if member is None else "W"
    assert io.describe(path)["tensors"] == {name: {"shape": [2, 3], "dtype": "float64"}}


def test_bfloat16_matrices_are_widened_exactly(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    W = torch.randn(4, 3).to(torch.bfloat16)
    save_torch({"a": W, "b": torch.ones(2)}, tmp_path / "W.safetensors")
    got = io.load_matrix(tmp_path / "W.safetensors", key="a")
    assert got.dtype == np.float32
    assert np.array_equal(got, W.float().numpy())
    assert io.describe(tmp_path / "W.safetensors")["tensors"]["a"] == {"shape": [4, 3], "dtype": "bfloat16"}


def test_dtypes_that_numpy_lacks_are_told(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    save_torch({"a": torch.ones(2).to(torch.float8_e4m3fn)}, tmp_path / "W.safetensors")
    with pytest.raises(ValueError, match="F8_E4M3"):
        io.load_matrix(tmp_path / "W.safetensors")


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@pytest.mark.parametrize("key", [None, "gamma"])
def test_the_keys_are_listed_where_one_is_needed(tmp_path, suffix, key):
    arrays = {"alpha": np.ones((2, 2)), "beta": np.zeros(3)}
    path = tmp_path / f"W.{suffix}"
    np.savez(path, **arrays) if suffix == "npz" else save_file(arrays, path)
    with pytest.raises(ValueError, match=rf"load_matrix: key must name one of 2 arrays in .*alpha.*{key}"):
        io.load_matrix(path, key=key)
    assert np.array_equal(io.load_matrix(path, key="beta"), arrays["beta"])


def test_operator_files_are_told_from_matrices(tmp_path):
    io.save(sm.Identity(2), tmp_path / "f.safetensors")
    with pytest.raises(ValueError, match="holds a structmat operator"):
        io.load_matrix(tmp_path / "f.safetensors")


class Bomb:
    exploded = False

    def __reduce__(self):
        return (setattr, (Bomb, "exploded", True))


def test_no_pickle_is_ever_run(tmp_path):
    bombs = np.array([Bomb()], dtype=object)
    np.save(tmp_path / "a.npy", bombs, allow_pickle=True)
    np.savez(tmp_path / "b.npz", allow_pickle=True, x=bombs)
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
        archive.writestr("x.npy", pickle.dumps(Bomb()))
    (tmp_path / "d.npy").write_bytes(pickle.dumps(Bomb()))
    np.savez(tmp_path / "e.npz", allow_pickle=True, x=np.full(1000, bombs[0]))  # in fewer bytes than of 1000 pointers
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ValueError, match=path.name) as caught:
            io.load_matrix(path)
        if path.name in {"a.npy", "b.npz", "e.npz"}:
            assert caught.match("Python objects, which are not read")
        assert not Bomb.exploded
        attempt(io.describe, path, path.name)
        assert not Bomb.exploded


@pytest.mark.parametrize("values", [np.array([["a"]]), np.array([(1, 2.0)], dtype=[("a", int), ("b", float)])])
def test_arrays_without_numbers(tmp_path, values):
    np.save(tmp_path / "W.npy", values)
    with pytest.raises(ValueError, match="holds no numbers"):
        io.load_matrix(tmp_path / "W.npy")


@pytest.mark.parametrize("suffix", ["npy", "npz"])
@given(data=st.data())
@settings(parent=once, max_examples=80)
def test_damaged_numpy_files(tmp_path, suffix, data):
    path = tmp_path / f"W.{suffix}"
    W = np.arange(12.0).reshape(3, 4)
    with path.open("wb") as file:
        np.save(file, W) if suffix == "npy" else np.savez(file, W=W)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        for read in (io.load_matrix, io.describe):
            with pytest.raises(ValueError, match=path.name):
                read(path)
        return
    content[data.draw(st.integers(0, min(len(content), 200) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    for read in (io.load_matrix, io.describe):
        attempt(read, path, path.name)


def test_of_many_keys_a_few_are_named_those_that_are_alike_first(tmp_path):
    names = [f"layers.{i}.{kind}.weight" for i in range(40) for kind in ("query", "value")]
    save_file({name: np.ones((2, 2)) for name in names}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"one of 80 arrays in .*model\.safetensors, such as") as caught:
        io.load_matrix(tmp_path / "model.safetensors")
    assert len(str(caught.value)) < 300 + len(str(tmp_path))
    with pytest.raises(ValueError, match=r"such as layers\.3\.query\.weight"):
        io.load_matrix(tmp_path / "model.safetensors", key="layers.3.qury.weight")


@pytest.mark.parametrize("shape", ["(4294967296, 4294967296), }", "(9999999999, 9999999999), }", "(-2, 3), }"])
def test_headers_that_claim_more_than_there_is_are_refused_by_name(tmp_path, shape):
    stream = BytesIO()
    np.save(stream, np.ones((2, 3)))
    content = stream.getvalue().replace(b"(2, 3), }".ljust(len(shape)), shape.encode())
    (tmp_path / "w.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "w.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", content)
    for name in ("w.npy", "w.npz"):
        with pytest.raises(ValueError, match=rf"{name} is no complete"):
            io.load_matrix(tmp_path / name)
