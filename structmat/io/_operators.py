"""Operators and fits in safetensors files, and what any file holds.

The vectors have readable names (``c``, ``factors.0.d``); complex ones are pairs of real numbers along one more axis.
The tree of operators is JSON text in the metadata, with a checksum of it and of the vectors, so that a damaged file is
never read as another operator.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from structmat import operators
from structmat._arrays.conversion import to_numpy
from structmat._arrays.dtypes import dtype_name, is_complex
from structmat._arrays.libraries import is_torch, namespace
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._files import (
    DTYPES,
    atomic_write,
    first_names,
    one_line,
    open_safetensors,
    require_regular,
    require_safetensors,
)
from structmat.fit import FitResult, PhaseMaskFit
from structmat.io._matrices import TREE, array_specs, file_kind
from structmat.operators import Constant, Indices, LinearOperator, Prepared

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat._arrays.typing import Array, Device, Namespace

__all__ = ["describe", "load", "save"]

Fit: TypeAlias = FitResult | PhaseMaskFit
"""What fits return; files hold it with all its fields."""

_FITS: dict[str, type[Fit]] = {"FitResult": FitResult, "PhaseMaskFit": PhaseMaskFit}
"""The kinds of fits by the names that they have in files."""

_FIT = "fit."
"""The names of the arrays of a fit begin with this, apart from those of its operator."""

_VERSION = 3
"""The version of the format, in every file: what is written by another one is refused."""

_OTHER_FORMATS = {".bin", ".csv", ".json", ".mat", ".npy", ".npz", ".pt", ".pth"}
"""A file of safetensors must not end so, since other programs would take it for one of theirs."""

_KINDS: dict[str, Any] = {"float": (float, int), "int": int, "bool": bool, "str": str}
"""The types that fields of a fit may have in a file, by their annotations; of arrays nothing is asked."""


def save(
    operator: LinearOperator | Fit,
    path: str | os.PathLike[str],
    *,
    metadata: Mapping[str, object] | None = None,
    force: bool = False,
) -> None:
    """Write an operator or a fit to a safetensors file.

    Parameters
    ----------
    operator : LinearOperator, FitResult or PhaseMaskFit
        Any operator of structmat, of any array library and device. For a `Prepared` one the original operator is
        written, since the precomputed values depend on the machine. What was computed of operators without parameters
        is read back as one with arrays. A fit is written with all its fields.
    path : path-like
        The file. It appears complete or not at all; see `atomic_write`.
    metadata : mapping of str to object, optional
        Notes to keep with the operator, written as text.
    force : bool, default False
        Whether to replace an existing file.

    Raises
    ------
    TypeError
        If `operator` is not an operator of structmat, `path` is one, or a metadata key is not a string.
    ValueError
        If a metadata key is reserved, or the name ends as one of another format does, such as ``.npy``.
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
    require_safetensors()
    from safetensors.numpy import save as as_bytes  # noqa: PLC0415  # an extra

    given: Any = path
    if not isinstance(given, str | os.PathLike):
        order = "; the operator comes first: save(operator, path)" if isinstance(given, LinearOperator | Fit) else ""
        raise ArgumentTypeError("save", "path", f"must be a path, got {type(given).__name__}{order}")
    if (suffix := Path(path).suffix.lower()) in _OTHER_FORMATS:
        raise ArgumentValueError("save", "path", f"names a file of safetensors, which must not end in {suffix}")
    kind: type = type(operator)
    if not issubclass(kind, LinearOperator | Fit):
        text = f"must be a structmat operator or a fit, got {kind.__name__}"
        raise ArgumentTypeError("save", "operator", text)
    notes: dict[str, str] = {}
    for key, value in (metadata or {}).items():
        if not isinstance(key, str):
            raise ArgumentTypeError("save", "metadata", f"must have strings as keys, got {key!r}")
        if key == TREE:
            raise ArgumentValueError("save", "metadata", f"must not have the key {key!r}, which is reserved")
        notes[key] = str(value)
    arrays: dict[str, NDArray[Any]] = {}
    tree = _encoded(operator, "", arrays)
    notes[TREE] = json.dumps({"version": _VERSION, "saved": tree, "sha256": _checksum(tree, arrays)})
    with atomic_write(path, force=force) as file:
        file.write(as_bytes(arrays, notes))


def load(
    path: str | os.PathLike[str], *, xp: Namespace | None = None, device: Device | None = None
) -> LinearOperator | Fit:
    """Read the operator or the fit that `save` wrote.

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
    LinearOperator, FitResult or PhaseMaskFit
        Equal to the saved one, with the same dtype. The history of a fit is always a NumPy array. Half precision that
        the library lacks (``bfloat16`` in NumPy) becomes float32, which is exact.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or holds no structmat operator, or the library cannot hold the saved dtype.
    TypeError
        If `path` is not a path, or `xp` is not an array namespace.

    See Also
    --------
    save : Writes the file.
    load_matrix : Reads plain matrices.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import structmat as sm
    >>> import structmat.io
    >>> D = sm.Diagonal(np.array([1.0, 2.0]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sm.io.save(D, f"{folder}/d.safetensors")
    ...     sm.io.load(f"{folder}/d.safetensors").d
    array([1., 2.])
    """
    namespace = _namespace(xp)
    require_regular(path, "load")
    with Path(path).open("rb") as file:
        kind = file_kind(file, path)
    if kind != "safetensors":
        raise ValueError(f"{path} is a .{kind} file and holds no structmat operator; read it by load_matrix")
    with open_safetensors(path) as file:
        content = _content(file, path)
        arrays = {name: _read(file, name, path) for name in file.keys()}  # noqa: SIM118  # no mapping
    if content.get("sha256") != _checksum(content["saved"], arrays):
        raise ValueError(f"{path}: the checksum does not fit; the file is damaged or was edited")
    for array in arrays.values():
        _moved(array.reshape(-1)[:0], namespace, device)  # raises where it must, before anything is made

    def array_of(name: str, paired: bool) -> Array:
        values = arrays[name]
        if paired:
            values = np.ascontiguousarray(values).view(np.result_type(values, np.complex64))[..., 0]
        return values if name.startswith(_FIT) or values.dtype.kind == "i" else _moved(values, namespace, device)

    return _decoded_file(content["saved"], array_of, path)


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a file contains, without reading the entries.

    Parameters
    ----------
    path : path-like
        A saved operator, or matrices in a file that `load_matrix` reads.

    Returns
    -------
    dict
        Ready for JSON: "path", "format" ("structmat", "safetensors", "npz", "npy", "mat" or "csv"), "bytes", "tensors"
        (name to "shape" and "dtype", for a file of MATLAB its class) and "metadata". For an operator also "kind",
        "shape", "dtype", "batch_shape", "n_factors", "block_size" and "n_parameters", where these exist; for a fit also
        "fit", with its error, start and so on.

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
    held = _held_in(path)
    body = {
        "tensors": {name: {"shape": list(shape), "dtype": dtype} for name, (shape, dtype) in held.specs.items()},
        "metadata": {key: text for key, text in held.metadata.items() if key != TREE},
    }
    head = {"path": os.fspath(path), "format": held.kind, "bytes": held.size}
    if TREE not in held.metadata:
        return head | body
    operator = _without_entries(held, path)
    if isinstance(operator, Fit):
        values = {field.name: getattr(operator, field.name) for field in fields(operator)}
        body["fit"] = {name: value for name, value in values.items() if isinstance(value, (bool, int, float, str))}
        operator = operator.operator
    return {**head, "format": "structmat", **_operator_facts(operator, held.specs), **body}


class _Held(NamedTuple):
    """What the headers of a file tell."""

    kind: str
    """The kind of the file, as `file_kind` names it."""
    size: int
    """The size of the file in bytes."""
    specs: dict[str, tuple[tuple[int, ...], str]]
    """The shape and the dtype of each array, by name."""
    metadata: dict[str, str]
    """The notes of a safetensors file, with the tree of a saved operator among them; none of other files."""
    saved: Any
    """The tree of a saved operator, decoded from its JSON text."""


def _held_in(path: str | os.PathLike[str]) -> _Held:
    """Collect what the headers of a file tell."""
    require_regular(path, "describe")
    with Path(path).open("rb") as file:
        kind, size = file_kind(file, path), os.fstat(file.fileno()).st_size
        if kind != "safetensors":
            return _Held(kind, size, array_specs(file, path, kind), {}, None)
    specs: dict[str, tuple[tuple[int, ...], str]] = {}
    with open_safetensors(path) as tensors:
        metadata = dict(sorted((tensors.metadata() or {}).items()))
        for name in sorted(tensors.keys()):
            part = tensors.get_slice(name)
            specs[name] = tuple(part.get_shape()), DTYPES.get(part.get_dtype(), part.get_dtype())
        saved = _content(tensors, path)["saved"] if TREE in metadata else None
    return _Held(kind, size, specs, metadata, saved)


def _without_entries(held: _Held, path: str | os.PathLike[str]) -> LinearOperator | Fit:
    """Check a saved operator by making it without its entries: its classes refuse shapes that do not go together."""

    def blank(name: str, paired: bool) -> Array:
        """Return one zero, broadcast to the shape of an array, which takes no memory."""
        shape, dtype = held.specs[name]
        if dtype == "int64":  # these are indices, which must differ from each other
            return np.arange(shape[0])
        number = np.dtype("float32" if dtype == "bfloat16" else dtype)
        number = np.result_type(number, np.complex64) if paired else number
        return np.broadcast_to(np.zeros((), number), shape[:-1] if paired else shape)

    return _decoded_file(held.saved, blank, path)


def _operator_facts(operator: LinearOperator, specs: Mapping[str, tuple[tuple[int, ...], str]]) -> dict[str, Any]:
    """Return what `describe` says of a saved operator."""
    kinds = {dtype for name, (_, dtype) in specs.items() if not name.startswith(_FIT) and dtype != "int64"}
    factors = getattr(operator, "factors", (operator,))
    leaves = sum(math.prod(array.shape[array.ndim - axes :]) for array, axes in operator._leaves())
    return {
        "kind": type(operator).__name__,
        "shape": list(operator.shape),
        "dtype": "bfloat16" if kinds == {"bfloat16"} else dtype_name(operator.dtype),
        "batch_shape": list(operator.batch_shape),
        "n_factors": len(factors),
        "block_size": next((f.block_size for f in factors if hasattr(f, "block_size")), None),
        "n_parameters": getattr(operator, "n_parameters", leaves),
    }


def _content(file: Any, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the description of what is saved in an opened file."""
    metadata = file.metadata() or {}
    if TREE not in metadata:
        names = first_names(sorted(file.keys())) or "none"
        raise ValueError(f"{path} holds no structmat operator but plain tensors ({names})")
    try:
        content = json.loads(metadata[TREE])
        version, _ = content["version"], content["saved"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path}: its description is damaged: {one_line(error)}") from error
    if version != _VERSION:
        raise ValueError(f"{path} has format version {version!r}; this structmat reads version {_VERSION}")
    return content


def _read(file: Any, name: str, path: str | os.PathLike[str]) -> NDArray[Any]:
    """Return an array of an opened file."""
    try:
        return file.get_tensor(name)
    except (AttributeError, TypeError) as error:  # the library raises these for a dtype that NumPy does not have
        raise ValueError(f"{path} describes no valid operator: {name} has dtype {one_line(error)}") from error


def _checksum(tree: Any, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of a tree and of every array's name, dtype, shape and bytes."""
    digest = hashlib.sha256(json.dumps(tree).encode())
    for name, array in sorted(arrays.items()):
        digest.update(json.dumps([name, array.dtype.name, array.shape]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


@cache
def _classes() -> dict[str, type[LinearOperator]]:
    """Return the operator classes that a file may name: all but `Prepared`, of which the original operator is saved."""
    public = (getattr(operators, name) for name in operators.__all__)
    found = (c for c in public if isinstance(c, type) and issubclass(c, LinearOperator))
    return {c.__name__: c for c in found if hasattr(c, "__dataclass_fields__") and c is not Prepared}


def _encoded(value: Any, name: str, arrays: dict[str, NDArray[Any]]) -> Any:
    """Return a field as JSON can hold it; its arrays are put into `arrays` under their names."""
    if isinstance(value, (Prepared, Constant)):
        value = value.operator
    if isinstance(value, Indices):
        value = value.array
    if isinstance(value, Fit):
        names = [field.name for field in fields(value) if field.name != "operator"]
        rest = {field: _encoded(getattr(value, field), _FIT + field, arrays) for field in names}
        return {"class": type(value).__name__, "operator": _encoded(value.operator, "", arrays), **rest}
    if isinstance(value, LinearOperator):
        cls = type(value)
        if _classes().get(cls.__name__) is not cls:
            text = f"must be made of operators of structmat itself, got {cls.__name__}"
            raise ArgumentTypeError("save", "operator", text)
        prefix = f"{name}." if name else ""
        rest = {field: _encoded(getattr(value, field), prefix + field, arrays) for field in cls._field_names()}
        return {"class": cls.__name__, **rest}
    if isinstance(value, (tuple, list)):
        return [_encoded(item, f"{name}.{i}", arrays) for i, item in enumerate(value)]
    if value is None or isinstance(value, (int, float, str)):
        return value
    if isinstance(value, complex):
        return {"real": value.real, "imag": value.imag}
    arrays[name] = _stored(value)
    return {"tensor": name, "complex": is_complex(value.dtype, namespace(value))}


def _stored(array: Array) -> NDArray[Any]:
    """Return an array as the file holds it: in its own dtype, and complex values as pairs of real ones."""
    name = dtype_name(array.dtype)
    values = to_numpy(array.detach() if is_torch(array) else array)
    if values.dtype.kind not in "fcbiu" or values.dtype.itemsize > 8 * (1 + (values.dtype.kind == "c")):
        text = f"must have a dtype that the file format has, got {name}; use operator.astype(...)"
        raise ArgumentTypeError("save", "operator", text)
    if values.dtype.kind == "c":
        values = np.stack([values.real, values.imag], axis=-1)
        return np.asarray(values, order="C")  # which NumPy keeps only where both parts have it
    return np.asarray(values.astype(name), order="C")  # half precision was widened to be read, and is narrowed again


def _decoded_file(
    tree: Any, array_of: Callable[[str, bool], Array], path: str | os.PathLike[str]
) -> LinearOperator | Fit:
    """Return what a tree describes; `array_of` gives the array of a name, made of pairs or not.

    Any fault in the tree is a `ValueError` that names the file.
    """
    try:
        found = _decoded(tree, array_of)
    except KeyError as error:
        raise ValueError(f"{path} describes no valid operator: it lacks {error}") from error
    except (ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(f"{path} describes no valid operator: {one_line(error)}") from error
    if not isinstance(found, LinearOperator | Fit):
        raise ValueError(f"{path} describes no valid operator: {found!r}")  # noqa: TRY004  # the file's fault
    return found


def _decoded(node: Any, array_of: Callable[[str, bool], Array]) -> Any:
    """Undo `_encoded`."""
    if isinstance(node, list):
        return tuple(_decoded(item, array_of) for item in node)
    if not isinstance(node, dict):
        return node
    if "tensor" in node:
        return array_of(node["tensor"], node["complex"])
    if "class" not in node:
        return complex(node["real"], node["imag"])
    values = {field: _decoded(item, array_of) for field, item in node.items() if field != "class"}
    if (fit := _FITS.get(node["class"])) is not None:
        for field in fields(fit):
            value = values.get(field.name, field.default)
            kind = LinearOperator if field.name == "operator" else _KINDS.get(str(field.type), object)
            if not isinstance(value, kind):
                raise ValueError(f"{field.name} of a fit is {value!r}")  # noqa: TRY004  # the file's fault
        return fit(**values)
    if (cls := _classes().get(node["class"])) is None:
        raise ValueError(f"{node['class']!r} is no operator class of structmat")
    return cls._of_fields(values)


def _namespace(xp: Namespace | None) -> Namespace:
    """Return the array API namespace of a library; None is NumPy."""
    try:
        return namespace((np if xp is None else xp).asarray([0.0]))
    except (AttributeError, TypeError) as error:
        text = f"must be an array namespace such as torch or jax.numpy, got {xp!r}"
        raise ArgumentTypeError("load", "xp", text) from error


def _moved(values: NDArray[Any], xp: Namespace, device: Device | None) -> Array:
    """Return values in a library and in the dtype they were saved in; half precision that it lacks stays wider."""
    dtype = values.dtype.name
    if dtype == "bfloat16" or (dtype == "float16" and not hasattr(xp, "float16")):
        values = values.astype(np.float32)
    array = xp.asarray(values) if device is None else xp.asarray(values, device=device)
    if (got := dtype_name(array.dtype)) != values.dtype.name:
        text = f"makes {got} of the saved {values.dtype}; in JAX set jax_enable_x64, or save operator.astype(...)"
        raise ArgumentValueError("load", "xp", text)
    if dtype == "bfloat16" and hasattr(xp, "bfloat16"):
        array = xp.astype(array, xp.bfloat16)
    return array
