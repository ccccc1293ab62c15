"""Operators and fits in safetensors files.

The vectors have readable names (``c``, ``factors.0.d``); complex ones are pairs of real numbers along one more axis.
The tree of operators is JSON text in the metadata, with a checksum of it and of the vectors, so that a damaged file is
never read as another operator.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace

from structmat._arrays import dtype_name
from structmat._arrays.errors import ArgumentTypeError, ArgumentValueError
from structmat._files.atomic import atomic_write
from structmat._files.kinds import file_kind, require_path
from structmat._files.safetensors import SafetensorsFile, Tensor, checksum, to_bytes
from structmat.fit import FitResult
from structmat.io._tree import CHECKSUM, FIT, TREE, decoded, encoded, saved_tree, tree_text
from structmat.operators import LinearOperator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from structmat._arrays.typing import Array, Device, Namespace

__all__ = ["load", "save"]

_OTHER_FORMATS = {".bin", ".csv", ".json", ".npy", ".npz", ".pt", ".pth"}


def save(
    operator: LinearOperator | FitResult,
    path: str | os.PathLike[str],
    *,
    metadata: Mapping[str, object] | None = None,
    force: bool = False,
) -> None:
    """Write an operator or a fit to a safetensors file.

    Parameters
    ----------
    operator : LinearOperator or FitResult
        Any operator of structmat, of any array library and device. For a `Prepared` one the original operator is
        written, since the precomputed values depend on the machine. A `FitResult` is written with all its fields.
    path : path-like
        The file. It appears complete or not at all; see `atomic_write`.
    metadata : mapping of str to object, optional
        Notes to keep with the operator, written as text.
    force : bool, default False
        Whether to replace an existing file.

    Raises
    ------
    TypeError
        If `operator` is not an operator of structmat, or a metadata key is not a string.
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
    if (suffix := Path(path).suffix.lower()) in _OTHER_FORMATS:
        raise ArgumentValueError("save", "path", f"names a file of safetensors, which must not end in {suffix}")
    notes: dict[str, str] = {}
    kind: type = type(operator)
    if not issubclass(kind, (LinearOperator, FitResult)):
        text = f"must be a structmat operator or a FitResult, got {kind.__name__}"
        raise ArgumentTypeError("save", "operator", text)
    for key, value in (metadata or {}).items():
        if not isinstance(key, str):
            raise ArgumentTypeError("save", "metadata", f"must have strings as keys, got {key!r}")
        if key in {TREE, CHECKSUM}:
            raise ArgumentValueError("save", "metadata", f"must not have the key {key!r}, which is reserved")
        notes[key] = str(value)
    tensors: dict[str, Tensor] = {}
    tree = tree_text(encoded(operator, "", tensors))
    notes |= {TREE: tree, CHECKSUM: checksum(tree, tensors)}
    with atomic_write(path, force=force) as file:
        file.write(to_bytes(tensors, notes))


def load(
    path: str | os.PathLike[str], *, xp: Namespace | None = None, device: Device | None = None
) -> LinearOperator | FitResult:
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
    LinearOperator or FitResult
        Equal to the saved one, with the same dtype. The history of a fit is always a NumPy array. Half precision that
        the library lacks (``bfloat16`` in NumPy) becomes float32, which is exact.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or holds no structmat operator, or the library cannot hold the saved dtype.
    TypeError
        If `path` is not a path, or `xp` no array namespace.

    See Also
    --------
    save : Writes the file.
    load_matrix : Reads plain matrices.
    structmat.torch.load_adapter : Reads adapters of a torch model.

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
    require_path(path, "load")
    if (kind := file_kind(path)) != "safetensors":
        raise ValueError(
            f"{path} is a .{kind} file and holds no structmat operator; read it by structmat.io.load_matrix"
        )
    file = SafetensorsFile.open(path)
    tree = saved_tree(file)
    tensors = {name: spec._replace(data=file.data(name)) for name, spec in file.tensors.items()}
    if file.metadata.get(CHECKSUM) != checksum(file.metadata[TREE], tensors):
        raise ValueError(f"{path}: the checksum does not fit; the file is damaged or was edited")

    for dtype in {tensor.dtype for name, tensor in tensors.items() if not name.startswith(FIT)}:
        zero = np.zeros(1, "float32" if dtype == "bfloat16" else dtype)
        _moved(zero, dtype, namespace, device)  # raises where it must

    def array_of(name: str, paired: bool) -> Array:
        values = tensors[name].values(f"{path}: {name}")
        if name.startswith(FIT):
            return values
        if paired:
            values = np.ascontiguousarray(values).view(np.result_type(values, np.complex64))[..., 0]
        return _moved(values, tensors[name].dtype, namespace, device)

    return decoded(tree, array_of, path)


def _namespace(xp: Namespace | None) -> Namespace:
    """Return the array API namespace of a library; None is NumPy."""
    try:
        return array_namespace((np if xp is None else xp).asarray([0.0]))
    except (AttributeError, TypeError) as error:
        text = f"must be an array namespace such as torch or jax.numpy, got {xp!r}"
        raise ArgumentTypeError("load", "xp", text) from error


def _moved(values: NDArray[Any], dtype: str, xp: Namespace, device: Device | None) -> Array:
    """Return values in a library and in the dtype they were saved in; half precision that it lacks stays wider."""
    if dtype == "float16" and not hasattr(xp, "float16"):
        values = values.astype(np.float32)
    array = xp.asarray(values) if device is None else xp.asarray(values, device=device)
    if (got := dtype_name(array.dtype)) != values.dtype.name:
        text = f"makes {got} of the saved {values.dtype}; in JAX set jax_enable_x64, or save operator.astype(...)"
        raise ArgumentValueError("load", "xp", text)
    if dtype == "bfloat16" and hasattr(xp, "bfloat16"):
        array = xp.astype(array, xp.bfloat16)
    return array
