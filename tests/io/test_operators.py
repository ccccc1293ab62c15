"""Operators and fits in files: what is saved comes back bit for bit, and damage is told."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save, save_file

import structmat as sm
from structmat import io
from structmat._array_tools import dtype_name
from structmat._checkpoint import Checkpoint, CheckpointError
from structmat.fit import fit_cdd
from structmat.io import _operators
from tests.io.common import DAMAGE_MESSAGE, assert_equal, attempt, nested_operator, once, same_bits
from tests.operator_registry import REGISTRY

# Round trips


@pytest.mark.parametrize("entry", REGISTRY, ids=lambda e: e.name)
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


@given(seed=st.integers(0, 2**32 - 1), factor=st.one_of(st.integers(), st.floats(), st.complex_numbers()))
@once
def test_number_factors_and_static_fields_survive(tmp_path, seed, factor):
    op = sm.Scaled(sm.Sum([nested_operator(seed=seed), sm.BlockCirculant(np.ones((2, 2, 3)), (6, 5))]), factor)
    io.save(op, tmp_path / "op.safetensors", force=True)
    got = io.load(tmp_path / "op.safetensors")
    assert type(got.factor) is type(factor)
    assert repr(got.factor) == repr(factor)  # tells zeros of either sign apart, and holds for NaN
    assert_equal(got.operator, op.operator)


def test_numpy_scalar_factor_becomes_an_array_of_equal_value_and_dtype(tmp_path):
    op = sm.Scaled(sm.Identity(3), np.float32(0.1))
    io.save(op, tmp_path / "op.safetensors")
    got = io.load(tmp_path / "op.safetensors")
    assert same_bits(got.to_dense(), op.to_dense())


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


def test_equal_operators_give_equal_files(tmp_path):
    for name in "ab":
        io.save(nested_operator(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("options", [{}, {"block_size": 2}, {"n_factors": 5, "max_iter": 5}])
@pytest.mark.parametrize("shape", [(6, 4), (5, 5)])
def test_a_fit_comes_back_with_all_it_holds(tmp_path, backend, shape, options):
    W = np.random.default_rng(0).standard_normal(shape)
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
    ],
)
def test_what_cannot_be_saved(tmp_path, operator, metadata, error, text):
    with pytest.raises(error, match=text):
        io.save(operator, tmp_path / "f", metadata=metadata)
    assert not list(tmp_path.iterdir())


def test_operators_of_others_are_refused_by_name(tmp_path):
    class Mine(sm.Circulant):
        pass

    with pytest.raises(TypeError, match="Mine"):
        io.save(Mine(np.ones(2)), tmp_path / "f")


def test_xp_must_be_a_namespace(tmp_path):
    io.save(sm.Identity(2), tmp_path / "f")
    with pytest.raises(TypeError, match="xp must be an array namespace"):
        io.load(tmp_path / "f", xp="torch")


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


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: c.update(version=99), "version 99"),
        (lambda c: c.pop("version"), "damaged"),
        (lambda c: c["saved"].update({"class": "os.system"}), "'os.system' is no operator class"),
        (lambda c: c["saved"].update({"class": "LinearOperator"}), "'LinearOperator' is no operator class"),
        (
            lambda c: c["saved"].update({"class": "Prepared", "operator": {"class": "Identity", "n": 3}}),
            "'Prepared' is no operator class",
        ),
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
    for read in (io.load, io.describe, io.load_matrix):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "missing")
        with pytest.raises(IsADirectoryError):
            read(tmp_path)
        with pytest.raises(ValueError, match=r"text\.npy"):
            read(tmp_path / "text.npy")
    save_file({"x": np.ones(3)}, tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match=r"plain\.safetensors holds no structmat operator but plain tensors \(x\)"):
        io.load(tmp_path / "plain.safetensors")


def test_files_that_hold_a_plain_matrix_are_for_load_matrix(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.ones((2, 2)))
    np.savez(tmp_path / "w.npz", np.ones((2, 2)))
    for name in ("w.npy", "w.npz"):
        with pytest.raises(ValueError, match=rf"{name} is a \.np. file .* read it by load_matrix"):
            sm.io.load(tmp_path / name)
    for owner in ("load", "load_matrix", "describe"):
        for path in (None, 3, b"w"):
            with pytest.raises(sm.ArgumentTypeError, match=rf"^{owner}: path must be a path, got"):
                getattr(sm.io, owner)(path)


@pytest.mark.parametrize("kind", ["operator", "safetensors", "npy", "npz", "pt"])
def test_a_file_that_is_replaced_while_it_is_read_is_one_of_both(tmp_path, kind):  # noqa: C901
    """Each file is opened once: what is read is the file before, or the file after."""
    path, stop = tmp_path / f"w.{kind}", threading.Event()
    if kind == "pt":
        torch = pytest.importorskip("torch")

    def write(value, name):
        array = np.full((2 + value, 2 + value), float(value))
        if kind == "operator":
            io.save(sm.Circulant(array[0]), name, force=True)
        elif kind == "safetensors":
            save_file({f"w{value}": array}, name)
        elif kind == "pt":
            torch.save({"w": torch.as_tensor(array)}, name)
        else:
            with name.open("wb") as file:
                np.save(file, array) if kind == "npy" else np.savez(file, **{f"w{value}": array})

    def replace():
        while not stop.is_set():
            for value in (1, 20):
                write(value, tmp_path / "new")
                (tmp_path / "new").replace(path)

    def read():
        if kind == "operator":
            return io.load(path).c
        return Checkpoint(path).entry("w").read() if kind == "pt" else io.load_matrix(path)

    write(1, path)
    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(60 if kind == "pt" else 300):
            try:
                found = read()
            except CheckpointError as error:  # the header and the values of a checkpoint are read at two times
                assert "the file has changed meanwhile" in str(error)  # noqa: PT017
            else:
                assert len({*found.ravel()}) == 1
                assert len(found) == 2 + found.ravel()[0]
    finally:
        stop.set()
        thread.join()
