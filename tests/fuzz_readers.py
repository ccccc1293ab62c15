"""Readers of files meet damaged ones for minutes: `nox -s fuzz`. Not part of the test run, which has a few thousand.

A reader returns, or raises what its docstring says, in one line; it neither hangs nor takes more memory than its limit.
What this finds becomes a test beside the reader's own.
"""

from __future__ import annotations

import contextlib
import io as streams
import json
import os
import struct
import time
import zipfile
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from safetensors.numpy import save

import structmat as sm
from structmat import io
from structmat._files.safetensors import SafetensorsFile, checksum
from structmat._layer_fits.plans import plan_delta, plan_lora
from structmat.fit import error_curve, fit_cdd
from structmat.io._tree import CHECKSUM, TREE
from structmat.studies import example_config, load_study, read_config, sweep
from structmat.studies._sweep._config import SweepConfig

SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
MEMORY = 16 << 30
VALID = Path("valid")
EXTREME = [0, -1, 1, 2.5, 1e308, 1 << 31, 1 << 62, 1 << 64, 10**30, "", "x", None, True, [], {}, [[]], "\x1b[31m", "é"]
TEXTS = [b"", b"9" * 20, b"-1", b"[" * 99_999]
W = np.diag([1.0, 2.0, 3.0])


@pytest.fixture(autouse=True, scope="module")
def limited_memory():
    """Let what is too large be an error."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


# Damage


@st.composite
def damaged_bytes(draw, content):
    """Return content after a few edits that know nothing of its format."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.sampled_from([0, 1, 1, 2, 8, 64, 1 << 20])))
        data[start:stop] = draw(
            st.one_of(st.binary(max_size=9), st.sampled_from([bytes(data[start:stop]) * 2, *TEXTS]))
        )
    return bytes(data)


@st.composite
def damaged_tree(draw, tree):
    """Return JSON with one or two of its values, keys or items replaced, removed or repeated."""
    for _ in range(draw(st.integers(1, 2))):
        tree = _edited(draw, tree)
    return tree


def _edited(draw, node):
    if isinstance(node, (dict, list)) and node and draw(st.integers(0, 4)):
        keys = sorted(node) if isinstance(node, dict) else range(len(node))
        key = draw(st.sampled_from(list(keys)))
        node = node.copy()
        match draw(st.sampled_from(["inside", "inside", "inside", "remove", "repeat"])):
            case "inside":
                node[key] = _edited(draw, node[key])
            case "remove":
                del node[key]
            case "repeat" if isinstance(node, list):
                node.append(node[key])
            case _:
                node[f"{key}x"] = node[key]
        return node
    return draw(st.sampled_from(EXTREME))


@st.composite
def damaged_safetensors(draw, content):
    """Return a file with a damaged header, a damaged tree with the right checksum, or damaged bytes."""
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    kind = draw(st.sampled_from(["bytes", "header", "header", "tree", "tree"]))
    if kind == "bytes":
        return draw(damaged_bytes(content))
    metadata = header.get("__metadata__", {})
    if kind == "tree" and CHECKSUM in metadata:
        text = json.dumps(draw(damaged_tree(json.loads(metadata[TREE]))))
        spans = {name: item["data_offsets"] for name, item in header.items() if name != "__metadata__"}
        tensors = _tensors(content)
        tensors = {name: tensors[name]._replace(data=data[slice(*span)]) for name, span in spans.items()}
        header["__metadata__"] = {**metadata, TREE: text, CHECKSUM: checksum(text, tensors)}
    else:
        header = draw(damaged_tree(header))
    packed = json.dumps(header).encode()
    return struct.pack("<Q", len(packed)) + packed + data


def _tensors(content):
    Path("whole.safetensors").write_bytes(content)
    return SafetensorsFile.open("whole.safetensors").tensors


@st.composite
def damaged_zip(draw, content):
    """Return an archive with a damaged member, or a damaged archive."""
    if draw(st.booleans()):
        return draw(damaged_bytes(content))
    with zipfile.ZipFile(streams.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draw(st.sampled_from(sorted(members)))
    members[name] = draw(damaged_bytes(members[name]))
    packed = streams.BytesIO()
    with zipfile.ZipFile(packed, "w", draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return packed.getvalue()


def damaged_json(content):
    """Return damaged JSON, or bytes that are none."""
    return st.one_of(damaged_bytes(content), damaged_tree(json.loads(content)).map(lambda t: json.dumps(t).encode()))


# Readers


def read_operator(path):
    found = io.load(path)
    operator = getattr(found, "operator", found)
    repr(found)
    if max(operator.shape) < 100:
        operator.to_dense()


def read_checkpoint(path):
    checkpoint = io.Checkpoint(path)
    for name in checkpoint:
        with contextlib.suppress(ValueError):
            checkpoint.entry(name).read()
    checkpoint.checksum()


def read_delta(path):
    plan_delta(path, None)
    plan_delta(path, "a")


def read_torch_adapter(path):
    torch = pytest.importorskip("torch")
    from structmat.torch import load_adapter

    load_adapter(torch.nn.Sequential(torch.nn.Linear(3, 3)), path)


def read_lora(path):
    plan_lora(path, None)


def of_folder(read):
    """Read the folder that a file is in, or a folder of which it is a part."""
    return lambda _: read(Path("folder"))


# Valid files


def operator_file():
    product = sm.Sum([sm.Circulant([1.0, 2.0, 3.0]), 2j * sm.Diagonal([1.0, 0.0, 1.0])])
    io.save(product, "valid")


def fit_file():
    io.save(fit_cdd(W, max_iter=2, rng=0), "valid")


def weights_file():
    VALID.write_bytes(save({"a.weight": W, "b": np.ones((2, 0), "float16"), "c": np.ones((), "int8")}))


def torch_weights():
    torch = pytest.importorskip("torch")
    torch.save({"a.weight": torch.ones(2, 3), "b": torch.ones(2).half()}, "valid")


def torch_adapter():
    torch = pytest.importorskip("torch")
    from structmat.torch import adapt, save_adapter

    model = torch.nn.Sequential(torch.nn.Linear(3, 3))
    adapt(model, targets=["0"])
    save_adapter(model, "valid")


def npz_file():
    with VALID.open("wb") as file:
        np.savez(file, a=W, b=np.ones(2, "int8"))


def npy_file():
    with VALID.open("wb") as file:
        np.save(file, W)


def index_file():
    Path("folder").mkdir()
    Path("folder/one.safetensors").write_bytes(save({"a.weight": W, "b": W}))
    VALID.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(["a.weight", "b"], "one.safetensors")}))


def lora_file():
    Path("folder").mkdir()
    prefix = "base_model.model.layer.lora_"
    weights = {f"{prefix}A.weight": np.ones((1, 3)), f"{prefix}B.weight": np.ones((2, 1))}
    Path("folder/adapter_model.safetensors").write_bytes(save(weights))
    config = {"peft_type": "LORA", "lora_alpha": 8, "r": 1, "alpha_pattern": {"layer": 4}, "use_rslora": False}
    VALID.write_text(json.dumps(config))


def settings_file():
    sweep(SweepConfig({"a": W}, methods=["truncated-svd"]), "folder")
    VALID.write_bytes(Path("folder/work/settings.json").read_bytes())


def config_file():
    VALID.write_text(example_config())


def curve_file(suffix):
    return lambda: error_curve(W, n_factors=[3], max_iter=2, rng=0).save(f"valid{suffix}")


READERS = {
    # name: (makes a valid file, damage, where it is put, how it is read)
    "load an operator": (operator_file, damaged_safetensors, "x.safetensors", read_operator),
    "load a fit": (fit_file, damaged_safetensors, "x.safetensors", read_operator),
    "describe": (fit_file, damaged_safetensors, "x.safetensors", io.describe),
    "load_matrix": (weights_file, damaged_safetensors, "x.safetensors", lambda path: io.load_matrix(path, key="b")),
    "load_matrix npy": (npy_file, damaged_bytes, "x.npy", io.load_matrix),
    "load_matrix npz": (npz_file, damaged_zip, "x.npz", lambda path: io.load_matrix(path, key="a")),
    "describe npz": (npz_file, damaged_zip, "x.npz", io.describe),
    "Checkpoint safetensors": (weights_file, damaged_safetensors, "x.safetensors", read_checkpoint),
    "Checkpoint torch": (torch_weights, damaged_zip, "x.pt", read_checkpoint),
    "Checkpoint index": (index_file, damaged_json, "folder/m.safetensors.index.json", of_folder(read_checkpoint)),
    "plan of changes": (weights_file, damaged_safetensors, "x.safetensors", read_delta),
    "plan of a LoRA": (lora_file, damaged_json, "folder/adapter_config.json", of_folder(read_lora)),
    "load_adapter": (torch_adapter, damaged_safetensors, "x.safetensors", read_torch_adapter),
    "read_config": (config_file, damaged_bytes, "x.toml", read_config),
    "ErrorCurve csv": (curve_file(".csv"), damaged_bytes, "x.csv", sm.ErrorCurve.load),
    "ErrorCurve json": (curve_file(".json"), damaged_json, "x.json", sm.ErrorCurve.load),
    "load_study": (settings_file, damaged_json, "folder/work/settings.json", of_folder(load_study)),
}


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, damage, put, read = READERS[name]
    make()
    valid = next(path for path in tmp_path.iterdir() if path.name.startswith("valid")).read_bytes()
    (tmp_path / put).write_bytes(valid)
    read(tmp_path / put)
    end, total = time.monotonic() + SECONDS / len(READERS), 0

    def check(content):
        nonlocal total
        total += 1
        (tmp_path / put).write_bytes(content)
        try:
            read(tmp_path / put)
        except (ValueError, OSError) as error:
            if "\n" in str(error):
                pytest.fail(f"several lines: {error!r}")

    options = settings(max_examples=200, deadline=5000, database=None, suppress_health_check=list(HealthCheck))
    for number in count(SEED):
        options(seed(number)(given(damage(valid))(check)))()
        if time.monotonic() > end:
            break
    print(f"{name}: {total} files")  # noqa: T201
