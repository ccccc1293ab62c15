"""Operators in safetensors files.

The vectors have readable names (``c``, ``factors.0.d``); complex ones are pairs of real numbers along one more axis.
The tree of operators is JSON text in the metadata, with a checksum of it and of the vectors, so that a damaged file is
never read as another operator.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace, is_torch_array

import structmat
from structmat._arrays.arrays import dtype_name, is_complex
from structmat.fit import FitResult
from structmat.fit._numpy_bridge import to_numpy
from structmat.io._atomic import atomic_write
from structmat.io._safetensors import CODES, SafetensorsFile, Tensor, checksum, one_line, to_bytes
from structmat.operators import LinearOperator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat._arrays.typing import Array, Device, Namespace

__all__ = ["CHECKSUM", "TREE", "decoded_operator", "load", "operator_tree", "save"]

TREE, CHECKSUM = "structmat", "structmat_sha256"
"""The reserved keys of the metadata."""
_VERSION = 1


def save(
    operator: LinearOperator | FitResult,
    path: str | os.PathLike[str],
    *,
    metadata: Mapping[str, object] | None = None,
    force: bool = False,
) -> None:
    """Write an operator to a safetensors file.

    Parameters
    ----------
    operator : LinearOperator or FitResult
        Any operator of structmat, of any array library and device. Of a `Prepared` one the operator that it was
        prepared from is written, as what was computed from it suits one machine. Of a `FitResult` the operator is
        written, and its error, start and other single values become metadata.
    path : path-like
        The file. It appears complete or not at all; see `atomic_write`.
    metadata : mapping of str to object, optional
        Notes to keep with the operator, written as text.
    force : bool, default False
        Whether to replace an existing file.

    Raises
    ------
    TypeError
        If `operator` is no operator of structmat, or a metadata key is no string.
    ValueError
        If a metadata key is reserved.
    FileExistsError
        If the file exists and not `force`.
    OSError
        If the file cannot be written.

    See Also
    --------
    load : Reads it back.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import structmat as sm
    >>> import structmat.io
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sm.io.save(sm.Circulant(np.array([1.0, 2.0, 3.0])), f"{folder}/c.safetensors")
    ...     sm.io.load(f"{folder}/c.safetensors")
    Circulant(shape=(3, 3), dtype=float64, device=cpu)
    """
    notes: dict[str, str] = {}
    if isinstance(operator, FitResult):
        single = {k: v for k, v in operator.to_dict().items() if not isinstance(v, (list, dict))}
        notes, operator = {k: str(v) for k, v in single.items()}, operator.operator
    if not isinstance(operator, LinearOperator):
        raise TypeError(f"save: operator must be a structmat operator or a FitResult, got {type(operator).__name__}")
    for key, value in (metadata or {}).items():
        if not isinstance(key, str):
            raise TypeError(f"save: metadata keys must be strings, got {key!r}")
        if key in {TREE, CHECKSUM}:
            raise ValueError(f"save: metadata key {key!r} is reserved")
        notes[key] = str(value)
    arrays: dict[str, tuple[str, NDArray[Any]]] = {}
    tree = json.dumps({"version": _VERSION, "operator": _encoded(operator, "", arrays)})
    tensors = {name: Tensor(code, raw.shape, raw.tobytes()) for name, (code, raw) in arrays.items()}
    notes |= {TREE: tree, CHECKSUM: checksum(tree, tensors)}
    with atomic_write(path, force=force) as file:
        file.write(to_bytes(tensors, notes))


def load(path: str | os.PathLike[str], *, xp: Namespace | None = None, device: Device | None = None) -> LinearOperator:
    """Read an operator that `save` wrote.

    Parameters
    ----------
    path : path-like
        The file.
    xp : array namespace, optional
        The library of its vectors: ``torch``, ``jax.numpy``, ``cupy``, ... By default NumPy.
    device : device, optional
        A device of that library. By default its own default.

    Returns
    -------
    LinearOperator
        Equal to the one saved, with the same dtype. Half precision that the library lacks (``bfloat16`` in NumPy)
        becomes float32, which is exact.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or holds no structmat operator, or the library cannot hold the saved dtype.
    TypeError
        If `xp` is no array namespace.
    """
    namespace = _namespace(xp)
    file = SafetensorsFile.open(path)
    tree = operator_tree(file)
    tensors = {name: spec._replace(data=file.data(name)) for name, spec in file.tensors.items()}
    if file.metadata.get(CHECKSUM) != checksum(file.metadata[TREE], tensors):
        raise ValueError(f"{path}: the checksum does not fit; the file is damaged or was edited")

    for dtype in {tensor.dtype for tensor in tensors.values()}:
        _moved(
            np.zeros(1, "float32" if dtype == "bfloat16" else dtype), dtype, namespace, device
        )  # raises where it must

    def array_of(name: str, paired: bool) -> Array:
        values = tensors[name].values(f"{path}: {name}")
        if paired:
            values = np.ascontiguousarray(values).view(np.result_type(values, np.complex64))[..., 0]
        return _moved(values, tensors[name].dtype, namespace, device)

    return decoded_operator(tree, array_of, path)


def _classes() -> dict[str, type[LinearOperator]]:
    """Return the operator classes that a file may name: the public ones of the package."""
    public = (getattr(structmat, name) for name in structmat.__all__)
    operators = (
        c for c in public if isinstance(c, type) and issubclass(c, LinearOperator) and c is not structmat.Prepared
    )
    return {c.__name__: c for c in operators if not inspect.isabstract(c) and c is not structmat.Prepared}


def _encoded(value: Any, name: str, arrays: dict[str, tuple[str, NDArray[Any]]]) -> Any:
    """Return a field as JSON can hold it; its arrays are put into `arrays` under their names."""
    if isinstance(value, structmat.Prepared):
        value = value.operator
    if isinstance(value, LinearOperator):
        cls = type(value)
        if _classes().get(cls.__name__) is not cls:
            raise TypeError(f"save: only operators of structmat itself can be saved, got {cls.__name__}")
        prefix = f"{name}." if name else ""
        fields = {field: _encoded(getattr(value, field), prefix + field, arrays) for field in cls._field_names()}
        return {"class": cls.__name__, **fields}
    if isinstance(value, tuple):
        return [_encoded(item, f"{name}.{i}", arrays) for i, item in enumerate(value)]
    if isinstance(value, (int, float, str)):
        return value
    if isinstance(value, complex):
        return {"real": value.real, "imag": value.imag}
    arrays[name] = _stored(value)
    return {"tensor": name, "complex": is_complex(value.dtype, array_namespace(value))}


def _decoded(node: Any, array_of: Callable[[str, bool], Array]) -> Any:
    """Undo `_encoded`; `array_of` gives the array of a name, made of pairs or not."""
    if isinstance(node, list):
        return tuple(_decoded(item, array_of) for item in node)
    if not isinstance(node, dict):
        return node
    if "tensor" in node:
        return array_of(node["tensor"], node["complex"])
    if "class" not in node:
        return complex(node["real"], node["imag"])
    if (cls := _classes().get(node["class"])) is None:
        raise ValueError(f"{node['class']!r} is no operator class of structmat")
    return cls(**{field: _decoded(item, array_of) for field, item in node.items() if field != "class"})


def decoded_operator(tree: Any, array_of: Callable[[str, bool], Array], path: str | os.PathLike[str]) -> LinearOperator:
    """Return the operator that a tree describes; any fault in it is a `ValueError` that names the file."""
    try:
        operator = _decoded(tree, array_of)
    except KeyError as error:
        raise ValueError(f"{path} describes no valid operator: it lacks {error}") from error
    except (ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(f"{path} describes no valid operator: {one_line(error)}") from error
    if not isinstance(operator, LinearOperator):
        raise ValueError(f"{path} describes no valid operator: {operator!r}")  # noqa: TRY004  # the file's fault
    return operator


def _stored(array: Array) -> tuple[str, NDArray[Any]]:
    """Return safetensors' code of the dtype, and the bits as a little-endian NumPy array; complex values as pairs."""
    name = dtype_name(array.dtype)
    if name not in {*CODES, "complex64", "complex128"}:
        raise TypeError(f"save: dtype {name} has no place in the file format; use operator.astype(...)")
    values = to_numpy(array.detach() if is_torch_array(array) else array)  # type: ignore[attr-defined]
    if name == "bfloat16":
        return CODES[name], (values.view(np.uint32) >> 16).astype("<u2")
    if values.dtype.kind == "c":
        values = np.stack([values.real, values.imag], axis=-1)
        name = values.dtype.name
    return CODES[name], values.astype(np.dtype(name).newbyteorder("<"))


def _namespace(xp: Namespace | None) -> Namespace:
    """Return the array API namespace of a library; None is NumPy."""
    try:
        return array_namespace((np if xp is None else xp).asarray([0.0]))
    except (AttributeError, TypeError) as error:
        raise TypeError(f"load: xp must be an array namespace such as torch or jax.numpy, got {xp!r}") from error


def _moved(values: NDArray[Any], dtype: str, xp: Namespace, device: Device | None) -> Array:
    """Return values in a library and in the dtype they were saved in; half precision that it lacks stays wider."""
    if dtype == "float16" and not hasattr(xp, "float16"):
        values = values.astype(np.float32)
    array = xp.asarray(values) if device is None else xp.asarray(values, device=device)
    if (got := dtype_name(array.dtype)) != values.dtype.name:
        raise ValueError(
            f"load: xp makes {got} of the saved {values.dtype}; in JAX set jax_enable_x64, or save operator.astype(...)"
        )
    if dtype == "bfloat16" and hasattr(xp, "bfloat16"):
        array = xp.astype(array, xp.bfloat16)
    return array


def operator_tree(file: SafetensorsFile) -> Any:
    """Return the tree of a saved operator."""
    if TREE not in file.metadata:
        names = ", ".join(file.tensors) or "none"
        raise ValueError(f"{file.path} holds no structmat operator but plain tensors ({names})")
    try:
        content = json.loads(file.metadata[TREE])
        version, tree = content["version"], content["operator"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{file.path}: its description of the operator is damaged: {one_line(error)}") from error
    if version != _VERSION:
        raise ValueError(f"{file.path} has format version {version!r}; this structmat reads version {_VERSION}")
    return tree
