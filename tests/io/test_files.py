"""Files of operators, fits and matrices: what is saved comes back bit for bit, and damage is told."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import pickle
import stat
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors import safe_open
from safetensors.numpy import load_file, save, save_file
from scipy.io import savemat

import structmat as sm
from structmat import _files, io
from structmat._arrays.dtypes import dtype_name
from structmat.fit import fit_cdd
from structmat.io import _operators
from tests.operator_registry import REGISTRY, every_entry_of_the_package, on_libraries

once = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
DAMAGE_MESSAGE = r"broken\.safetensors"


def same_bits(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def static_fields(op):
    """The tree of classes and of all fields that are no arrays."""
    fields = {}
    for name in op._field_names():
        value = getattr(op, name)
        if isinstance(value, sm.LinearOperator):
            value = static_fields(value)
        elif isinstance(value, tuple) and value and isinstance(value[0], sm.LinearOperator):
            value = [static_fields(v) for v in value]
        elif name in op._core_axes and not isinstance(value, (int, float, complex)):
            value = tuple(value.shape)
        fields[name] = value
    return type(op), fields


def assert_equal(got, want, to_numpy=np.asarray):
    assert static_fields(got) == static_fields(want)
    assert got.dtype == want.dtype
    assert len(got._arrays()) == len(want._arrays())
    for a, b in zip(got._arrays(), want._arrays(), strict=True):
        assert type(a) is type(b)
        assert a.dtype == b.dtype
        assert same_bits(to_numpy(a), to_numpy(b))
    if all(isinstance(a, np.ndarray) for a in want._arrays()):
        assert same_bits(got.to_dense(), want.to_dense())


def attempt(read, path, text):
    """What `read` returns, or None where it raises a ValueError of one line that holds `text`."""
    try:
        return read(path)
    except ValueError as error:
        message = str(error)
    assert text in message
    assert "\n" not in message
    return None


def nested_operator(dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    v = lambda *shape: rng.standard_normal(shape).astype(dtype)
    product = sm.Product([sm.Diagonal(v(6)), sm.BlockCirculant(v(2, 2, 4), (6, 5)), sm.Circulant(v(5)).to_spectral()])
    return sm.Scaled(sm.Sum([product, sm.BlockCirculant(v(2, 2, 3), (6, 5))]), -0.1)


# Round trips


@on_libraries([entry for entry in REGISTRY if not entry.is_own])
@given(data=st.data())
@settings(parent=once, max_examples=6)
def test_round_trip_of_every_operator_on_every_library(entry, backend, tmp_path, data):
    sample = entry.fixed_sample(0, 1) if backend.compiles else data.draw(entry.samples())
    op = sample.make(backend.asarray)
    io.save(op, tmp_path / "op.safetensors", force=True)
    op = op.operator if isinstance(op, sm.Prepared) else op
    assert_equal(io.load(tmp_path / "op.safetensors", xp=backend.xp), op, backend.to_numpy)
    in_numpy = io.load(tmp_path / "op.safetensors")
    for a, b in zip(in_numpy._arrays(), op._arrays(), strict=True):
        assert same_bits(a, backend.to_numpy(b))


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_parameters_in_any_order_of_memory(tmp_path, dtype):
    op = sm.BlockCirculant(np.asfortranarray(np.random.default_rng(0).standard_normal((2, 3, 4)).astype(dtype)))
    io.save(op, tmp_path / "op.safetensors")
    assert same_bits(io.load(tmp_path / "op.safetensors").c, op.c)


@given(seed=st.integers(0, 2**32 - 1), factor=st.one_of(st.integers(), st.floats(), st.complex_numbers()))
@once
def test_number_factors_and_static_fields_survive(tmp_path, seed, factor):
    op = sm.Scaled(sm.Sum([nested_operator(seed=seed), sm.BlockCirculant(np.ones((2, 2, 3)), (6, 5))]), factor)
    io.save(op, tmp_path / "op.safetensors", force=True)
    got = io.load(tmp_path / "op.safetensors")
    assert type(got.factor) is type(factor)
    assert repr(got.factor) == repr(factor)  # tells zeros of either sign apart, and holds for NaN
    assert_equal(got.operator, op.operator)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("library", ["torch", "jax.numpy"])
def test_half_precision_is_kept_or_widened_exactly(tmp_path, name, library):
    xp = pytest.importorskip(library)
    values = np.random.default_rng(0).standard_normal(33).astype(np.float32)
    c = sm.Circulant(xp.asarray(values)).astype(getattr(xp, name))
    io.save(c, tmp_path / "c.safetensors")
    again = io.load(tmp_path / "c.safetensors", xp=xp)
    assert again.dtype == c.dtype
    assert bool((again.c == c.c).all())
    wide = np.asarray(c.astype(xp.float32).c)
    plain = io.load(tmp_path / "c.safetensors")
    assert dtype_name(plain.dtype) == ("float16" if name == "float16" else "float32")
    assert np.array_equal(plain.c.astype(np.float32), wide)
    assert io.describe(tmp_path / "c.safetensors")["dtype"] == name
    strict = pytest.importorskip("array_api_strict")
    assert np.array_equal(np.asarray(io.load(tmp_path / "c.safetensors", xp=strict).c), wide)


def test_shared_transposed_and_differentiable_torch_vectors_are_saved(tmp_path):
    torch = pytest.importorskip("torch")
    d = torch.nn.Parameter(torch.randn(3, 4)).T[:, :3]
    op = sm.Product([sm.Diagonal(d), sm.Circulant(d.conj()), sm.Diagonal(d)])
    io.save(op, tmp_path / "op.safetensors")
    got = io.load(tmp_path / "op.safetensors", xp=torch)
    assert all(torch.equal(f, d) and not f.requires_grad for f in got._arrays())


def test_jax_without_double_precision_refuses_rather_than_truncates(tmp_path):
    jax = pytest.importorskip("jax")
    io.save(sm.Circulant(np.ones(3)), tmp_path / "c.safetensors")
    enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64  # as in older JAX
    with enable_x64(False), pytest.raises(ValueError, match="jax_enable_x64"):
        io.load(tmp_path / "c.safetensors", xp=jax.numpy)


def test_the_file_is_plain_safetensors_with_readable_names(tmp_path):
    d, c = np.arange(3.0), np.arange(3.0) + 1j
    io.save(sm.CDDProduct([sm.Diagonal(d), sm.Circulant(c)]), tmp_path / "f.safetensors", metadata={"step": 7})
    tensors = load_file(tmp_path / "f.safetensors")
    assert set(tensors) == {"factors.0.d", "factors.1.c"}
    assert np.array_equal(tensors["factors.0.d"], d)
    assert np.array_equal(tensors["factors.1.c"], np.stack([c.real, c.imag], axis=-1))
    with safe_open(tmp_path / "f.safetensors", "np") as file:
        assert file.metadata()["step"] == "7"
        assert json.loads(file.metadata()["structmat"])["saved"]["class"] == "CDDProduct"
    for name in "ab":
        io.save(nested_operator(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("options", [{}, {"block_size": 2}, {"n_factors": 5, "max_iter": 5}])
@pytest.mark.parametrize("shape", [(6, 4), (5, 5)])
def test_a_fit_comes_back_with_all_it_holds(tmp_path, backend, shape, options):
    W = np.random.default_rng(0).standard_normal(shape).astype("float32")
    result = fit_cdd(backend.asarray(W), rng=0, **options)
    io.save(result, tmp_path / "f.safetensors", metadata={"source": "W.npy"})
    got = io.load(tmp_path / "f.safetensors", xp=backend.xp)
    assert_equal(got.operator, result.operator, backend.to_numpy)
    for field in dataclasses.fields(result):
        want, have = getattr(result, field.name), getattr(got, field.name)
        if field.name == "history":
            assert type(have) is np.ndarray  # whatever the library of the operator
            assert same_bits(have, want)
        elif field.name != "operator":
            assert (have, type(have)) == (want, type(want))
    assert repr(got) == repr(result)
    description = io.describe(tmp_path / "f.safetensors")
    assert json.loads(json.dumps(description)) == description
    assert description["dtype"] == dtype_name(result.operator.dtype)  # not that of its history
    assert description["fit"]["error"] == result.error
    assert description["fit"]["start"] == result.start
    assert description["fit"]["converged"] is result.converged
    assert description["metadata"] == {"source": "W.npy"}
    assert (description["kind"], description["shape"]) == ("CDDProduct", list(shape))


def test_arrays_are_loaded_onto_the_device_asked_for(tmp_path):
    xp = pytest.importorskip("array_api_strict")
    io.save(sm.CDDProduct.from_vectors(*np.ones((3, 4), "float32")), tmp_path / "f.safetensors")
    for device in xp.__array_namespace_info__().devices():
        assert {a.device for a in io.load(tmp_path / "f.safetensors", xp=xp, device=device)._arrays()} == {device}


@pytest.mark.parametrize(
    ("operator", "metadata", "error", "text"),
    [
        (np.ones(3), None, TypeError, "operator must be"),
        (sm.Identity(2), {1: "a"}, TypeError, "strings as keys"),
        (sm.Identity(2), {"structmat": "a"}, ValueError, "reserved"),
        (sm.Identity(2), {"a": "\ud800"}, ValueError, "surrogates"),
        (type("Mine", (sm.Circulant,), {})(np.ones(2)), None, TypeError, "Mine"),
    ],
)
def test_what_cannot_be_saved(tmp_path, operator, metadata, error, text):
    with pytest.raises(error, match=text):
        io.save(operator, tmp_path / "f", metadata=metadata)
    assert not list(tmp_path.iterdir())


def test_a_path_before_the_operator_is_told():
    with pytest.raises(TypeError, match=r"got Identity; the operator comes first: save\(operator, path\)"):
        io.save("f", sm.Identity(2))


# Damage


@given(data=st.data())
@settings(parent=once, max_examples=100)
def test_truncated_files_are_told_and_never_read(tmp_path, data):
    path = tmp_path / "broken.safetensors"
    io.save(nested_operator(), path, force=True)
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    for read in (io.load, io.describe, io.load_matrix):
        with pytest.raises(ValueError, match=DAMAGE_MESSAGE):
            read(path)


def test_a_changed_number_is_told(tmp_path):
    path = tmp_path / "broken.safetensors"
    io.save(nested_operator(), path)
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")  # after the length of the header, and the header
    for place in (start, (start + len(content)) // 2, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=DAMAGE_MESSAGE):
            io.load(path)


@given(data=st.data())
@settings(parent=once, max_examples=200)
def test_a_changed_byte_gives_an_error_or_the_same_operator(tmp_path, data):
    path = tmp_path / "broken.safetensors"
    op = nested_operator()
    io.save(op, path, force=True, metadata={"note": "some text"})
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    if (got := attempt(io.load, path, "broken.safetensors")) is not None:
        assert_equal(got, op)
    attempt(io.describe, path, "broken.safetensors")


def rewritten(path, change):
    """Change the description of the operator in a file, and make its checksum fit again."""
    tensors = load_file(path)
    with safe_open(path, "np") as file:
        content = json.loads(file.metadata()["structmat"])
    change(content)
    content["sha256"] = _operators._checksum(content.get("saved"), tensors)
    Path(path).write_bytes(save(tensors, {"structmat": json.dumps(content)}))


def test_entries_that_were_changed_are_told_by_the_checksum(tmp_path):
    path = tmp_path / "d.safetensors"
    io.save(sm.Diagonal(np.array([1.0, 2.0])), path)
    with safe_open(path, "np") as file:
        notes = file.metadata()
    (name,) = load_file(path)
    path.write_bytes(save({name: np.array([1.0, 3.0])}, notes))
    with pytest.raises(ValueError, match="the checksum does not fit; the file is damaged or was edited"):
        io.load(path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: c.update(version=99), "version 99"),
        (lambda c: c.pop("version"), "damaged"),
        (lambda c: c["saved"].update({"class": "os.system"}), "'os.system' is no operator class"),
        (lambda c: c["saved"].update({"class": "LinearOperator"}), "'LinearOperator' is no operator class"),
        (lambda c: c["saved"].update({"class": "Prepared"}), "'Prepared' is no operator class"),
        (lambda c: c["saved"].update({"class": "SolveResult"}), "'SolveResult' is no operator class"),
        (lambda c: c["saved"].update({"class": ["x"]}), "unhashable"),
        (lambda c: c["saved"].update(shape=[7, 7]), "shape"),
        (lambda c: c["saved"].update(nonsense=1), "nonsense"),
        (lambda c: c["saved"].pop("c"), "c"),
        (lambda c: c["saved"]["c"].update(tensor="d"), "'d'"),
        (lambda c: c["saved"]["c"].pop("complex"), "'complex'"),
        (lambda c: c.update(saved=[1, 2]), r"\(1, 2\)"),
        (lambda c: c.update(saved={"class": "FitResult", "operator": 3}), "operator of a fit is 3"),
        (lambda c: c.update(saved={"class": "FitResult"}), "operator"),
        (lambda c: c.update(saved={"class": "FitResult", "operator": c["saved"]}), "error"),
        (lambda c: c.update(saved={"real": 1.0, "imag": 0.0}), "valid operator"),
    ],
)
def test_wrong_descriptions_are_told(tmp_path, change, text):
    path = tmp_path / "broken.safetensors"
    io.save(sm.BlockCirculant(np.ones((2, 1, 3))), path)
    rewritten(path, lambda _: None)
    io.load(path)
    rewritten(path, change)
    for read in (io.load, io.describe):
        with pytest.raises(ValueError, match=DAMAGE_MESSAGE) as caught:
            read(path)
        assert caught.match(text)


def test_foreign_and_missing_files(tmp_path):
    (tmp_path / "text.npy").write_text("no matrix at all")
    with zipfile.ZipFile(tmp_path / "tensors.pt", "w") as archive:
        archive.writestr("tensors/data.pkl", b"")
    for read in (io.load, io.describe, io.load_matrix):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "missing")
        with pytest.raises(IsADirectoryError):
            read(tmp_path)
        with pytest.raises(ValueError, match=r"text\.npy"):
            read(tmp_path / "text.npy")
        with pytest.raises(ValueError, match=r"tensors\.pt was written by torch\.save"):
            read(tmp_path / "tensors.pt")
    save_file({"x": np.ones(3)}, tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match=r"plain\.safetensors holds no structmat operator but plain tensors \(x\)"):
        io.load(tmp_path / "plain.safetensors")


def test_files_of_matrices_and_of_operators_are_told_apart(tmp_path):
    np.save(tmp_path / "w.npy", np.ones((2, 2)))
    np.savez(tmp_path / "w.npz", np.ones((2, 2)))
    io.save(sm.Identity(2), tmp_path / "f.safetensors")
    for name in ("w.npy", "w.npz"):
        with pytest.raises(ValueError, match=rf"{name} is a \.np. file .* read it by load_matrix"):
            io.load(tmp_path / name)
    with pytest.raises(ValueError, match="holds a structmat operator"):
        io.load_matrix(tmp_path / "f.safetensors")
    with pytest.raises(TypeError, match="xp must be an array namespace"):
        io.load(tmp_path / "f.safetensors", xp="torch")
    for owner in ("load", "load_matrix", "describe"):
        for path in (None, 3, b"w"):
            with pytest.raises(sm.ArgumentTypeError, match=rf"^{owner}: path must be a path, got"):
                getattr(io, owner)(path)
    for path in (None, 3, sm.Identity(2)):
        with pytest.raises(sm.ArgumentTypeError, match=r"^save: path must be a path, got"):
            io.save(sm.Identity(2), path)


# Descriptions


@every_entry_of_the_package
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


# Matrices


DTYPES = ["float64", "float32", "float16", "complex64", "complex128", "int8", "uint16", "int64", "bool", ">f4", ">c16"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_matrices_of_every_dtype_and_format(tmp_path, dtype):
    W = np.asfortranarray((10 * np.random.default_rng(0).standard_normal((3, 5))).astype(dtype))
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


def test_dtypes_that_numpy_lacks_are_widened_or_told(tmp_path):
    torch, safetensors = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    W = torch.randn(4, 3).to(torch.bfloat16)
    safetensors.save_file({"a": W, "b": torch.ones(2).to(torch.float8_e4m3fn)}, tmp_path / "W.safetensors")
    got = io.load_matrix(tmp_path / "W.safetensors", key="a")
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, W.float().numpy())
    assert io.describe(tmp_path / "W.safetensors")["tensors"]["a"] == {"shape": [4, 3], "dtype": "bfloat16"}
    with pytest.raises(ValueError, match="F8_E4M3"):
        io.load_matrix(tmp_path / "W.safetensors", key="b")


@pytest.mark.parametrize("dtype", ["float64", "float32", "complex128", "int16", "uint8", "bool"])
@pytest.mark.parametrize("version", ["5", "5 compressed", "4"])
def test_matrices_of_matlab(tmp_path, dtype, version):
    W = (10 * np.random.default_rng(0).standard_normal((3, 5))).astype(dtype)
    if version == "4":
        W = W.astype(np.result_type(W, np.float64))  # the format has not all dtypes
    path = tmp_path / "W.mat"
    savemat(path, {"W": W, "note": "text"}, format=version[0], do_compression="compressed" in version)
    got = io.load_matrix(path)
    np.testing.assert_array_equal(got, W)
    assert got.dtype == ("uint8" if dtype == "bool" and version != "4" else W.dtype)
    assert [*io.describe(path)["tensors"]] == ["W"]
    with pytest.raises(ValueError, match=r"key must name numbers, but note in .*W\.mat is char"):
        io.load_matrix(path, key="note")


def test_sparse_matrices_of_matlab_become_dense(tmp_path):
    savemat(tmp_path / "W.mat", {"W": scipy.sparse.eye_array(3).tocsc(), "cells": np.array([[1, "a"]], dtype=object)})
    np.testing.assert_array_equal(io.load_matrix(tmp_path / "W.mat"), np.eye(3))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"MATLAB 7.3 MAT-file, and what follows", "version 7.3 of MATLAB's files, which is not read: save it with"),
        (b"no file of MATLAB at all", "is no complete .mat file"),
        (b"", "is empty"),
    ],
)
def test_files_that_are_not_those_of_matlab(tmp_path, content, text):
    (tmp_path / "W.mat").write_bytes(content)
    for read in (io.load_matrix, io.describe):
        with pytest.raises(ValueError, match=rf"W\.mat.*{text}"):
            read(tmp_path / "W.mat")


@given(data=st.data())
@settings(parent=once, max_examples=40)
def test_files_of_matlab_that_are_cut_short(tmp_path, data):
    """Of other damage than this SciPy may not tell: the format has no checksums unless it is compressed."""
    path = tmp_path / "W.mat"
    savemat(path, {"W": np.arange(12.0).reshape(3, 4)}, do_compression=data.draw(st.booleans()))
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(ValueError, match=path.name):
        io.load_matrix(path)


@pytest.mark.parametrize(
    ("content", "want"),
    [
        (b"1,2,3\n4,5,6\n", [[1, 2, 3], [4, 5, 6]]),
        (b"\xef\xbb\xbf1, 2\r\n\r\n3,-4e-1", [[1, 2], [3, -0.4]]),
        (b'"1","2"\n"3","nan"\n', [[1, 2], [3, np.nan]]),
        (b"1+2j,3\n4,-5j\n", [[1 + 2j, 3], [4, -5j]]),
        (b"7", [[7]]),
    ],
)
def test_tables_of_numbers(tmp_path, content, want):
    path = tmp_path / "W.CSV"
    path.write_bytes(content)
    got = io.load_matrix(path)
    np.testing.assert_array_equal(got, want)
    assert io.describe(path)["tensors"] == {"array": {"shape": [*got.shape], "dtype": str(got.dtype)}}


@given(W=arrays(np.float64, array_shapes(min_dims=2, max_dims=2), elements=st.floats(width=64)))
@settings(parent=once, max_examples=40)
def test_tables_keep_every_digit(tmp_path, W):
    np.savetxt(tmp_path / "W.csv", W, fmt="%.17g", delimiter=",")
    np.testing.assert_array_equal(io.load_matrix(tmp_path / "W.csv"), W)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"a,b\n1,2\n", "line 1 holds 'a'; remove the line if it is a header"),
        (b"1,2\n3,x\n", "line 2 holds 'x'$"),
        (b"1,2\n\n3\n", "line 3 holds 1 number, others 2"),
        (b"1,\n2,\n", "line 1 holds ''$"),
        (b"1;2\n3;4\n", "with commas between: line 1 holds '1;2'$"),
        (b"1,2\n0x10,3\n", "line 2 holds '0x10'"),
        (b"1,2\n1_0,3\n", "line 2 holds '1_0'"),
        (b"\n \n", "empty"),
        (b"\xff\xfe1\x00,\x00", "no text in UTF-8"),
    ],
)
def test_tables_that_hold_something_else(tmp_path, content, text):
    path = tmp_path / "W.csv"
    path.write_bytes(content)
    for read in (io.load_matrix, io.describe):
        with pytest.raises(ValueError, match=rf"W\.csv is .*{text}"):
            read(path)


@pytest.mark.parametrize("suffix", ["npz", "mat", "safetensors"])
@pytest.mark.parametrize("key", [None, "gamma"])
def test_the_keys_are_listed_where_one_is_needed(tmp_path, suffix, key):
    arrays = {"alpha": np.ones((2, 2)), "beta": np.zeros(3)}
    path = tmp_path / f"W.{suffix}"
    write = {"npz": lambda: np.savez(path, **arrays), "mat": lambda: savemat(path, arrays)}
    write.get(suffix, lambda: save_file(arrays, path))()
    with pytest.raises(ValueError, match=rf"load_matrix: key must name one of 2 arrays in .*alpha.*{key}"):
        io.load_matrix(path, key=key)
    assert np.array_equal(io.load_matrix(path, key="alpha"), arrays["alpha"])


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


# Writing: nothing is ever half written


def test_existing_files_need_force_and_keep_their_mode(tmp_path):
    path = tmp_path / "f"
    io.save(sm.Identity(2), path)
    path.chmod(0o640)
    with pytest.raises(FileExistsError):
        io.save(sm.Identity(3), path)
    assert io.load(path).shape == (2, 2)
    io.save(sm.Identity(3), path, force=True)
    assert io.load(path).shape == (3, 3)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_new_files_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        io.save(sm.Identity(2), tmp_path / "f")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


def test_symbolic_links_are_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "f")
    io.save(sm.Identity(2), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert io.load(tmp_path / "real" / "f").shape == (2, 2)


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize("before", [None, b"old"])
@pytest.mark.parametrize("where", ["os.fsync", "os.replace", "write", "chmod"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_at_any_moment_leaves_everything_as_it_was(tmp_path, monkeypatch, before, where, error):
    path = tmp_path / "f"
    if before is not None:
        path.write_bytes(before)
    elif where == "chmod":
        pytest.skip("a new file has no mode to keep")
    if where.startswith("os."):
        monkeypatch.setattr(where, raising(error))
    if where == "chmod":
        monkeypatch.setattr(Path, "chmod", raising(error))
    with pytest.raises(type(error)) as caught, _files.atomic_write(path, force=True) as file:  # noqa: PT012
        file.write(b"half")
        file.flush()
        if where == "write":
            raise error
    if isinstance(error, OSError):
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == str(path)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ([] if before is None else ["f"])
    assert before is None or path.read_bytes() == before


def test_devices_and_folders_are_never_replaced(tmp_path, monkeypatch):
    with pytest.raises(OSError, match="not a regular file"):
        io.save(sm.Identity(3), os.devnull, force=True)
    assert not Path(os.devnull).is_file()
    with pytest.raises(IsADirectoryError):
        io.save(sm.Identity(3), tmp_path, force=True)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        io.save(sm.Identity(3), tmp_path / "no" / "f")
    for name in ("f.npy", "f.NPZ", "f.pt"):
        with pytest.raises(ValueError, match=r"save: path .* must not end in \.(npy|npz|pt)$"):
            io.save(sm.Identity(3), tmp_path / name)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="not writable"):
        io.save(sm.Identity(3), tmp_path / "f")
