"""A look at an adapter's file before a model is touched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from structmat._arrays.errors import ArgumentValueError
from structmat._checkpoint_fit.adapter_files import FACTOR_KEY

__all__ = ["mismatches", "stored_shapes"]


def stored_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the vectors in an adapter's file by key.

    Raises
    ------
    ValueError
        If it is no safetensors file, is cut short, or holds no vectors of this method.
    """
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys() if FACTOR_KEY.match(key)}  # noqa: SIM118
    except SafetensorError as error:
        raise ArgumentValueError(
            "CDDConfig.from_pretrained", None, f"the adapter file {path} is cut short or no safetensors file: {error}"
        ) from error
    if not shapes:
        raise ArgumentValueError(
            "CDDConfig.from_pretrained",
            None,
            f"the adapter file {path} holds no weights of a CDD adapter; was it made by another method?",
        )
    return shapes


def mismatches(stored: Mapping[str, tuple[int, ...]], expected: Mapping[str, list[tuple[int, ...]]]) -> list[str]:
    """Tell why vectors in a file do not fit those that a model takes, by path of the module.

    Vectors that the file lacks are left to PEFT, which warns about them, and so are files whose modules were all
    renamed, as happens between versions of transformers.
    """
    found: dict[str, dict[int, tuple[int, ...]]] = {}
    for key, shape in stored.items():
        if match := FACTOR_KEY.match(key):
            found.setdefault(match["path"], {})[int(match["index"])] = shape
    shapes = {path: [shape for _, shape in sorted(indexed.items())] for path, indexed in found.items()}
    if not shapes.keys() & expected.keys() and sorted(shapes.values()) == sorted(expected.values()):
        return []
    problems = [f"{path} is not adapted in this model" for path in shapes if path not in expected]
    problems += [
        f"{path} takes vectors of shapes {expected[path]}, the file has {shape}"
        for path, shape in shapes.items()
        if path in expected and shape != expected[path]
    ]
    return problems
