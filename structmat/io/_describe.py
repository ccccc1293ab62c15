"""What a file holds, without its entries."""

from __future__ import annotations

import math
import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._arrays import dtype_name
from structmat._files.kinds import file_kind, require_path
from structmat._files.safetensors import SafetensorsFile
from structmat.fit import FitResult
from structmat.io._matrices import numpy_specs
from structmat.io._tree import CHECKSUM, FIT, TREE, decoded, saved_tree

if TYPE_CHECKING:
    from structmat._arrays.typing import Array

__all__ = ["describe"]


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a file contains, without reading the entries.

    Parameters
    ----------
    path : path-like
        A saved operator, or matrices in ``.npy``, ``.npz`` or ``.safetensors``; the content decides, not the suffix.

    Returns
    -------
    dict
        Ready for JSON: "path", "format" ("structmat", "safetensors", "npz" or "npy"), "bytes", "tensors" (name to
        "shape" and "dtype") and "metadata". For an operator also "kind", "shape", "dtype", "batch_shape", "n_factors",
        "block_size" and "n_parameters", where these exist; for a fit also "fit", with its error, start and so on.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If `path` is not a path.
    ValueError
        If the file is damaged or of another kind.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import structmat as sm
    >>> import structmat.io
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sm.io.save(sm.Circulant(np.ones(5)), f"{folder}/c.safetensors", metadata={"task": "demo"})
    ...     held = sm.io.describe(f"{folder}/c.safetensors")
    >>> held["kind"], held["shape"], held["tensors"], held["metadata"]
    ('Circulant', [5, 5], {'c': {'shape': [5], 'dtype': 'float64'}}, {'task': 'demo'})
    """
    require_path(path, "describe")
    kind = file_kind(path)
    head: dict[str, Any] = {"path": os.fspath(path), "format": kind, "bytes": Path(path).stat().st_size}
    if kind != "safetensors":
        arrays = numpy_specs(path, kind)
        return head | {
            "tensors": {n: {"shape": list(s), "dtype": str(d)} for n, (s, d) in arrays.items()},
            "metadata": {},
        }
    file = SafetensorsFile.open(path)
    body: dict[str, Any] = {
        "tensors": {name: {"shape": list(t.shape), "dtype": t.dtype} for name, t in file.tensors.items()},
        "metadata": {k: v for k, v in sorted(file.metadata.items()) if k not in {TREE, CHECKSUM}},
    }
    if TREE not in file.metadata:
        return head | body

    def blank(name: str, paired: bool) -> Array:
        """The constructors look at shapes only: one zero, broadcast, stands for a whole array."""
        tensor = file.tensors[name]
        dtype = np.result_type(tensor.numpy_dtype, np.complex64) if paired else tensor.numpy_dtype
        return np.broadcast_to(np.zeros((), dtype), tensor.shape[:-1] if paired else tensor.shape)

    operator = decoded(saved_tree(file), blank, path)
    if isinstance(operator, FitResult):
        values = {field.name: getattr(operator, field.name) for field in fields(operator)}
        body["fit"] = {name: value for name, value in values.items() if isinstance(value, (bool, int, float, str))}
        operator = operator.operator
    kinds = {tensor.dtype for name, tensor in file.tensors.items() if not name.startswith(FIT)}
    factors = getattr(operator, "factors", (operator,))
    leaves = sum(math.prod(array.shape[array.ndim - axes :]) for array, axes in operator._leaves())
    return {
        **head,
        "format": "structmat",
        "kind": type(operator).__name__,
        "shape": list(operator.shape),
        "dtype": "bfloat16" if kinds == {"bfloat16"} else dtype_name(operator.dtype),
        "batch_shape": list(operator.batch_shape),
        "n_factors": len(factors),
        "block_size": next((f.block_size for f in factors if hasattr(f, "block_size")), None),
        "n_parameters": getattr(operator, "n_parameters", leaves),
        **body,
    }
