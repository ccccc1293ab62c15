"""Operators and fits as trees of JSON, whose leaves are numbers, texts and the names of arrays."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace, is_torch_array

from structmat import operators
from structmat._arrays import dtype_name, is_complex
from structmat._arrays.errors import ArgumentTypeError
from structmat._arrays.numpy_bridge import to_numpy
from structmat._files.safetensors import CODES, SafetensorsFile, Tensor, one_line
from structmat.fit import FitResult
from structmat.operators import LinearOperator, Prepared

if TYPE_CHECKING:
    from structmat._arrays.typing import Array

__all__ = ["CHECKSUM", "FIT", "TREE", "decoded", "encoded", "saved_tree", "tree_text"]

TREE, CHECKSUM = "structmat", "structmat_sha256"
"""The reserved keys of the metadata."""
FIT = "fit."
"""What the names of the arrays of a fit begin with that are not its operator's."""
_VERSION = 2
_KINDS: dict[str, Any] = {
    **dict.fromkeys(("error", "seconds"), (float, int)),
    **dict.fromkeys(("block_size", "n_parameters", "n_iter", "converged"), int),
    **dict.fromkeys(("start", "solver", "stopped", "message"), str),
}
"""Of the fields of a fit that are no arrays."""


def tree_text(tree: Any) -> str:
    """Return a tree as it stands in the metadata."""
    return json.dumps({"version": _VERSION, "saved": tree})


def saved_tree(file: SafetensorsFile) -> Any:
    """Return the tree of what is saved in a file."""
    if TREE not in file.metadata:
        names = ", ".join(file.tensors) or "none"
        raise ValueError(f"{file.path} holds no structmat operator but plain tensors ({names})")
    try:
        content = json.loads(file.metadata[TREE])
        version, tree = content["version"], content.get("saved")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{file.path}: its description is damaged: {one_line(error)}") from error
    if version != _VERSION:
        raise ValueError(f"{file.path} has format version {version!r}; this structmat reads version {_VERSION}")
    return tree


@cache
def _classes() -> dict[str, type[LinearOperator]]:
    """Return the operator classes that a file may name: all but what is prepared, whose operator is saved."""
    public = (getattr(operators, name) for name in operators.__all__)
    found = (c for c in public if isinstance(c, type) and issubclass(c, LinearOperator))
    return {c.__name__: c for c in found if not inspect.isabstract(c) and c is not Prepared}


def encoded(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return a field as JSON can hold it; its arrays are put into `tensors` under their names."""
    if isinstance(value, Prepared):
        value = value.operator
    if isinstance(value, FitResult):
        names = [field.name for field in fields(value) if field.name != "operator"]
        rest = {field: encoded(getattr(value, field), FIT + field, tensors) for field in names}
        return {"class": "FitResult", "operator": encoded(value.operator, "", tensors), **rest}
    if isinstance(value, LinearOperator):
        cls = type(value)
        if _classes().get(cls.__name__) is not cls:
            text = f"must be made of operators of structmat itself, got {cls.__name__}"
            raise ArgumentTypeError("save", "operator", text)
        prefix = f"{name}." if name else ""
        rest = {field: encoded(getattr(value, field), prefix + field, tensors) for field in cls._field_names()}
        return {"class": cls.__name__, **rest}
    if isinstance(value, tuple):
        return [encoded(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
    if value is None or isinstance(value, (int, float, str)):
        return value
    if isinstance(value, complex):
        return {"real": value.real, "imag": value.imag}
    tensors[name] = _stored(value)
    return {"tensor": name, "complex": is_complex(value.dtype, array_namespace(value))}


def decoded(
    tree: Any, array_of: Callable[[str, bool], Array], path: str | os.PathLike[str]
) -> LinearOperator | FitResult:
    """Return what a tree describes; `array_of` gives the array of a name, made of pairs or not.

    Any fault in the tree is a `ValueError` that names the file.
    """
    try:
        found = _decoded(tree, array_of)
    except KeyError as error:
        raise ValueError(f"{path} describes no valid operator: it lacks {error}") from error
    except (ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(f"{path} describes no valid operator: {one_line(error)}") from error
    if not isinstance(found, (LinearOperator, FitResult)):
        raise ValueError(f"{path} describes no valid operator: {found!r}")  # noqa: TRY004  # the file's fault
    return found


def _decoded(node: Any, array_of: Callable[[str, bool], Array]) -> Any:
    """Undo `encoded`."""
    if isinstance(node, list):
        return tuple(_decoded(item, array_of) for item in node)
    if not isinstance(node, dict):
        return node
    if "tensor" in node:
        return array_of(node["tensor"], node["complex"])
    if "class" not in node:
        return complex(node["real"], node["imag"])
    values = {field: _decoded(item, array_of) for field, item in node.items() if field != "class"}
    if node["class"] == "FitResult":
        if not isinstance(values["operator"], LinearOperator):
            raise ValueError(f"the operator of a fit is {values['operator']!r}")  # the file's fault
        for field, kind in _KINDS.items():
            if not isinstance(values[field], kind) or (field == "block_size" and values[field] < 1):
                raise ValueError(f"{field} of a fit is {values[field]!r}")
        return FitResult(**values)
    if (cls := _classes().get(node["class"])) is None:
        raise ValueError(f"{node['class']!r} is no operator class of structmat")
    return cls(**values)


def _stored(array: Array) -> Tensor:
    """Return an array as an entry of the file: half precision as its bits, complex values as pairs."""
    name = dtype_name(array.dtype)
    if name not in {*CODES, "complex64", "complex128"}:
        text = f"must have a dtype that the file format has, got {name}; use operator.astype(...)"
        raise ArgumentTypeError("save", "operator", text)
    values = to_numpy(array.detach() if is_torch_array(array) else array)  # type: ignore[attr-defined]
    if name == "bfloat16":
        bits = (values.view(np.uint32) >> 16).astype("<u2")
        return Tensor(CODES[name], bits.shape, bits.tobytes())
    if values.dtype.kind == "c":
        return Tensor.of(np.stack([values.real, values.imag], axis=-1))
    return Tensor.of(values.astype(name))  # which was widened if it is a half precision
