"""`Checkpoint`: files of weights of all kinds, whole and damaged, and the names in them."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import in_one_test

torch = pytest.importorskip("torch")

from safetensors.torch import save_file

from structmat.studies import _checkpoint_files
from structmat.studies._checkpoint_files import Checkpoint, CheckpointError
from structmat.studies._checkpoint_files import partner_names as pair_names

GENERATOR = torch.Generator().manual_seed(0)
WEIGHTS = {
    "a.weight": torch.randn(50, 30, generator=GENERATOR).half(),
    "b.weight": torch.randn(5, 6, 2, generator=GENERATOR).bfloat16(),
    "b.bias": torch.randn(7, generator=GENERATOR),
    "d": torch.randn(3, 4, generator=GENERATOR, dtype=torch.float64),
    "empty": torch.zeros(0, 4),
    "single": torch.tensor(3.0),
    "number": torch.arange(4),
}
READ_AS = dict.fromkeys(["a.weight", "b.weight", "b.bias", "empty", "single"], "float32") | {"d": "float64"}
"""The dtype of each weight that is read; "number" is not."""


def write(folder, kind):
    """Write the weights in one of the ways in which models are stored; return what to open."""
    folder.mkdir(parents=True, exist_ok=True)
    halves = [dict(list(WEIGHTS.items())[:3]), dict(list(WEIGHTS.items())[3:])]
    if kind == "file":
        save_file(WEIGHTS, folder / "any.name")
        return folder / "any.name"
    if kind == "pt":
        torch.save(WEIGHTS, folder / "w.pt")
        return folder / "w.pt"
    if kind == "nested":
        torch.save({"step": 3, "state_dict": WEIGHTS}, folder / "w.pth")
    elif kind == "folder":
        save_file(WEIGHTS, folder / "model.safetensors")
        torch.save({}, folder / "training_args.bin")
    elif kind == "bin":
        torch.save(WEIGHTS, folder / "pytorch_model.bin")
        torch.save({"x": torch.ones(1)}, folder / "optimizer.bin")
    else:
        suffix, save = ("safetensors", save_file) if "safetensors" in kind else ("bin", torch.save)
        index = {}
        for k, part in enumerate(halves):
            save(part, folder / f"model-{k}.{suffix}")
            index |= dict.fromkeys(part, f"model-{k}.{suffix}")
        if "index" in kind:
            (folder / f"model.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder


KINDS = ["file", "folder", "safetensors shards", "safetensors index", "pt", "nested", "bin", "bin index"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_checkpoint_gives_the_same_weights(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(_checkpoint_files, "_CHUNK_BYTES", 1000)
    checkpoint = Checkpoint(write(tmp_path, kind))
    assert sorted(WEIGHTS) == list(checkpoint)
    assert len(checkpoint) == len(WEIGHTS)
    for name, want in WEIGHTS.items():
        entry = checkpoint.entry(name)
        assert (entry.dtype, entry.shape) == (str(want.dtype)[6:], tuple(want.shape))
        assert entry.equals(entry)
    for name, dtype in READ_AS.items():
        got = checkpoint.entry(name).read()
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, WEIGHTS[name].to(torch.float64).numpy())
    with pytest.raises(CheckpointError, match="number has dtype int64, but only float64, float32"):
        checkpoint.entry("number").read()
    pieces = [rows for rows, _ in checkpoint.entry("a.weight").chunks()]
    assert len(pieces) == 7
    assert checkpoint.checksum() == Checkpoint(checkpoint.path).checksum()


def test_names_may_differ_in_what_wrapping_classes_add(tmp_path):
    checkpoint = Checkpoint(write(tmp_path, "folder"))
    assert checkpoint.partners(["model.a.weight", "bias"]) == {"model.a.weight": "a.weight", "bias": "b.bias"}
    assert not checkpoint.partners(["weight"])  # two end so
    with pytest.raises(CheckpointError, match=f"{tmp_path} has no weight nothing"):
        checkpoint.entry("nothing")


def header_of(path):
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def with_header(path, change):
    header, data = header_of(path)
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


LIES = {
    "shape": lambda h: h["b.bias"].update(shape=[8]),
    "huge": lambda h: h["b.bias"].update(shape=[1 << 60]),
    "negative": lambda h: h["b.bias"].update(shape=[-7]),
    "end": lambda h: h["b.bias"].update(shape=[1 << 38], data_offsets=[0, 1 << 40]),
    "overlap": lambda h: h["b.bias"].update(data_offsets=h["a.weight"]["data_offsets"], dtype="F16", shape=[50, 30]),
    "number": lambda h: h.update({"a.weight": 3}),
    "no shape": lambda h: h["a.weight"].pop("shape"),
}


@pytest.mark.parametrize("lie", [*LIES, "cut short"])
def test_a_damaged_file_is_refused_by_name(tmp_path, lie):
    file = write(tmp_path, "folder") / "model.safetensors"
    if lie == "cut short":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        with_header(file, LIES[lie])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is no complete safetensors file"):
        Checkpoint(file)
    with pytest.raises(CheckpointError, match=r"has no weight a\.weight \(.*model\.safetensors is no complete"):
        Checkpoint(tmp_path).entry("a.weight")


@pytest.mark.parametrize("kind", ["safetensors index", "bin index"])
@pytest.mark.parametrize("damage", ["missing", "folder", "garbage", "key"])
def test_damaged_shards_are_told_with_every_weight_in_them(tmp_path, kind, damage):
    write(tmp_path, kind)
    (first,) = tmp_path.glob("model-0.*")
    if damage in {"missing", "folder"}:
        first.unlink()
        if damage == "folder":
            first.mkdir()
    elif damage == "garbage":
        first.write_bytes(b"\x07" * 100)
    else:
        save = save_file if "safetensors" in kind else torch.save
        save({name: WEIGHTS[name] for name in ("b.weight", "b.bias")}, first)
    lost = ["a.weight"] if damage == "key" else ["a.weight", "b.bias", "b.weight"]
    checkpoint = Checkpoint(tmp_path)
    assert sorted(checkpoint.faults) == lost
    for name in lost:
        with pytest.raises(CheckpointError) as caught:
            checkpoint.entry(name)
        assert str(caught.value).startswith(f"{first}: {name}: ")
    assert sorted({*checkpoint.entries, *lost}) == sorted(WEIGHTS)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_that_would_run_code_is_not_read(tmp_path):
    torch.save({"a": Evil(str(tmp_path / "made"))}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"w\.pt holds more than tensors, and is not read: it could run code"):
        Checkpoint(tmp_path / "w.pt")
    assert not (tmp_path / "made").exists()


def test_torch_files_that_are_not_complete(tmp_path):
    file = write(tmp_path, "pt")
    content = file.read_bytes()
    for part in (content[:-100], content[:300]):
        file.write_bytes(part)
        with pytest.raises(CheckpointError, match=r"w\.pt is no complete file of torch\.save"):
            Checkpoint(file)
    torch.save(WEIGHTS, file, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"w\.pt is no file of torch\.save since torch 1\.6"):
        Checkpoint(file)
    for other in ([1], {"a": 3}):
        torch.save(other, file)
        with pytest.raises(CheckpointError, match="holds no tensors by name"):
            Checkpoint(file)
    torch.save({"a": torch.arange(1000.0)}, file)
    lying = file.read_bytes().replace(b"M\xe8\x03", b"M\xff\xff")  # 1000 as the pickle has it
    file.write_bytes(lying)
    with pytest.raises(CheckpointError, match=r"w\.pt is no complete file of torch\.save"):
        Checkpoint(file)


def test_eight_bits_are_refused(tmp_path):
    save_file({"q.weight": torch.ones(2, 2).to(torch.float8_e4m3fn)}, tmp_path / "model.safetensors")
    entry = Checkpoint(tmp_path).entry("q.weight")
    with pytest.raises(CheckpointError, match=r"model.safetensors: q.weight has dtype F8_E4M3.*must be dequantised"):
        entry.check_floats()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        Checkpoint(tmp_path / "pipe")


def test_files_of_numpy_are_known(tmp_path):
    np.save(tmp_path / "w.npy", np.eye(2))
    np.savez(tmp_path / "w.npz", w=np.eye(2))
    for name in ("w.npy", "w.npz"):
        with pytest.raises(CheckpointError, match=rf"{name} has arrays of NumPy: save them by safetensors"):
            Checkpoint(tmp_path / name)


def test_folders_that_are_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError):
        Checkpoint(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="holds no safetensors or PyTorch files"):
        Checkpoint(tmp_path)
    for text, what in (
        ("{", "is no index of a checkpoint"),
        ('{"weight_map": []}', "is no index of a checkpoint"),
        ('{"weight_map": {"a": "../b"}}', "a: '../b' is no name of a file beside the index"),
    ):
        (tmp_path / "model.safetensors.index.json").write_text(text)
        with pytest.raises(CheckpointError, match=what):
            Checkpoint(tmp_path)
    (tmp_path / "other.safetensors.index.json").touch()
    with pytest.raises(CheckpointError, match="has several indices"):
        Checkpoint(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    for name in "ab":
        save_file({"x": torch.ones(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match=r"b\.safetensors: x: .*a\.safetensors has a weight of this name too"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("kind", ["file", "pt"])
def test_a_file_that_changes_meanwhile(tmp_path, kind):
    path = write(tmp_path, kind)
    entry = Checkpoint(path).entry("a.weight")
    save = save_file if kind == "file" else torch.save
    save({"a.weight": torch.ones(2, 2)}, path)
    with pytest.raises(CheckpointError, match="the file has changed meanwhile"):
        entry.read()
    Path(path).write_bytes(b"PK\x03\x04" if kind == "pt" else b"")
    with pytest.raises(CheckpointError, match=r"a\.weight: .* is no complete"):
        entry.read()


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("kind", ["file", "pt"])
def test_values_are_those_of_the_file_as_it_is_now(tmp_path, kind, replaced):
    """What is kept of a file counts no longer once that is written again, or replaced by one of equal size and time."""
    path = tmp_path / f"w.{kind}"
    save = save_file if kind == "file" else torch.save
    save({"w": torch.zeros(2, 2)}, path)
    entry, before = Checkpoint(path).entry("w"), path.stat()
    assert (entry.read() == 0).all()
    new = tmp_path / "new" / path.name if replaced else path
    new.parent.mkdir(exist_ok=True)
    save({"w": torch.ones(2, 2)}, new)
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns + (0 if replaced else 1_000_000)))
    new.replace(path)
    assert path.stat().st_size == before.st_size
    assert (entry.read() == 1).all()


@pytest.mark.parametrize("inside", ["state_dict", "model_state_dict", "model", "module"])
def test_weights_are_found_inside_of_what_training_scripts_save(tmp_path, inside):
    torch.save({inside: {"w": torch.ones(2)}, "step": torch.tensor(3)}, tmp_path / "w.pt")
    assert [*Checkpoint(tmp_path / "w.pt")] == ["w"]


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")  # since torch 2.15
def test_tensors_of_torch_without_plain_values_spoil_no_others(tmp_path):
    odd = {"sparse": torch.eye(2).to_sparse(), "meta": torch.ones(2, 2, device="meta")}
    torch.save({"good": torch.ones(2, 2), **odd}, tmp_path / "w.pt")
    checkpoint = Checkpoint(tmp_path / "w.pt")
    assert checkpoint.entry("good").read().sum() == 4
    assert [*checkpoint] == sorted({"good", *odd})
    for name in odd:
        with pytest.raises(CheckpointError, match=rf"w\.pt: {name}: (is stored as|was saved without values)"):
            checkpoint.entry(name)


# Names of two checkpoints that mean the same weight: never two of one, and nothing that is in doubt


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


@in_one_test(
    "names, stored, found",
    [
        (["head", "aux.head"], ["head"], {"head": "head"}),  # a new name never takes the partner of another
        (["aux.head"], ["head"], {"aux.head": "head"}),
        (["model.head", "model.aux.head"], ["head"], {}),
        (["m.head", "m.aux.head"], ["head", "aux.head"], {"m.head": "head", "m.aux.head": "aux.head"}),
        (["head"], ["a.head", "b.head"], {}),
        (["0.up"], ["0._orig_mod.up", "1.up"], {"0.up": "0._orig_mod.up"}),  # wrappers do not count
        (["_orig_mod.0.down"], ["0._orig_mod.up", "m.0.down"], {"_orig_mod.0.down": "m.0.down"}),
        (["_orig_mod.a", "a"], ["a", "_orig_mod.a"], {"_orig_mod.a": "_orig_mod.a", "a": "a"}),
        (["m.a"], ["_orig_mod.a", "a"], {}),  # what they make alike is in doubt
        (["_orig_mod.a", "a"], ["m.a"], {}),
    ],
)
def test_partners_of_names_that_are_alike(names, stored, found):
    assert pair_names(names, stored) == found


@pytest.mark.parametrize("kind", KINDS)
def test_the_checksum_is_of_the_content_of_every_file(tmp_path, kind):
    path = write(tmp_path, kind)
    whole = Checkpoint(path).checksum()
    files = [path] if path.is_file() else [file for file in sorted(path.iterdir()) if file.suffix != ".json"]
    weights = [file for file in files if file.name not in {"training_args.bin", "optimizer.bin"}]
    assert len(weights) == (2 if "shards" in kind or "index" in kind else 1)
    for file in weights:
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert Checkpoint(path).checksum() != whole
        file.write_bytes(content)
    assert Checkpoint(path).checksum() == whole
