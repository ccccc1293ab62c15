"""Operators of any library, read as what the laws ask of them: a shape, a dtype, and functions of vectors.

structmat's own operators, those of SciPy and PyLops, lineax and linear_operator, and plain functions become one `View`.
Arrays and sparse matrices are operators by SciPy's ``aslinearoperator``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import aslinearoperator

from structmat._arrays.conversion import to_numpy
from structmat._arrays.dtypes import dtype_name
from structmat._arrays.libraries import is_array, is_torch, namespace
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.typing import Array, Device, Namespace
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat.operators import LinearOperator

_Product = Callable[[Any], Any]


class Functions(NamedTuple):
    """An operator that is given by functions, for `check_operator`.

    Parameters
    ----------
    matvec : callable
        Returns A x of an array x of shape ``(cols,)``.
    rmatvec : callable or None
        Returns A^H y of an array y of shape ``(rows,)``. None where there is none: the laws that need it are left out.
    shape : tuple of two integers
        Rows and columns.
    dtype : dtype
        Of the entries: that of NumPy, or of the library of `like`.
    like : array, optional
        An array of the library that the functions take, on their device. Default: NumPy.

    See Also
    --------
    check_operator : Takes it.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.testing import Functions, check_operator
    >>> def difference(x):
    ...     return np.diff(x)
    >>> def adjoint(y):
    ...     return -np.diff(y, prepend=0, append=0)
    >>> check_operator(Functions(difference, adjoint, (4, 5), np.dtype("float64")), rng=0)
    """

    matvec: _Product
    rmatvec: _Product | None
    shape: tuple[int, int]
    dtype: Any
    like: Any = None


@dataclass(frozen=True, kw_only=True)
class View:
    """What the laws ask of an operator. Functions that the operator does not have are None."""

    name: str
    """The class of the operator, for errors."""
    shape: tuple[int, int]
    dtype: str | None
    """The name of the dtype of the entries; None for an operator of structmat without parameters."""
    xp: Namespace
    device: Device
    matvec: _Product
    rmatvec: _Product | None = None
    matmat: _Product | None = None
    rmatmat: _Product | None = None
    batch_shape: tuple[int, ...] = ()
    related: dict[str, Callable[[], Any]] = field(default_factory=dict)
    """The operators ``T``, ``H`` and ``conj``, of the same library."""
    entries: dict[str, Callable[[], Any]] = field(default_factory=dict)
    """Functions that return the matrix, its diagonal, its trace or the logarithm of its determinant."""
    solve: _Product | None = None
    takes_any_dtype: bool = True
    """Whether it multiplies complex vectors too where it is real."""
    is_complex_linear: bool = True
    """False where it is linear over the real numbers alone, as one that returns the real part."""
    forces_complex: bool = False
    operator: LinearOperator | None = None
    """The operator itself, where it is one of structmat."""

    def array(self, values: Any) -> Array:
        """Return NumPy values as an array of the library of the operator, a copy that may be written to."""
        return self.xp.asarray(np.array(values), device=self.device)


def view_of(operator: Any, owner: str) -> View:
    """Return an operator of any library as the laws see it."""
    modules = {kind.__module__.partition(".")[0] for kind in type(operator).__mro__}
    if isinstance(operator, LinearOperator):
        return _of_structmat(operator)
    if isinstance(operator, Functions):
        return _of_functions(operator, owner)
    if "lineax" in modules:
        return _of_lineax(operator, owner)
    if "linear_operator" in modules:
        return _of_linear_operator(operator)
    if scipy.sparse.issparse(operator) or (isinstance(operator, np.ndarray) and operator.ndim == 2):
        convert: Any = aslinearoperator
        operator = convert(operator)
    if hasattr(operator, "matvec") and hasattr(operator, "shape"):
        return _with_methods(operator, owner)
    text = "must be an operator of structmat, SciPy, PyLops, lineax or linear_operator, a matrix of NumPy or SciPy, or "
    raise ArgumentTypeError(owner, "operator", f"{text}structmat.testing.Functions, got {type(operator).__name__}")


def _of_structmat(op: LinearOperator) -> View:
    dtype = op.dtype
    return View(
        name=type(op).__name__,
        shape=op.shape,
        dtype=None if dtype is None else dtype_name(dtype),
        xp=op._own_namespace(),
        device=op.device,
        matvec=op.matvec,
        rmatvec=op.rmatvec,
        matmat=op.matmat,
        rmatmat=lambda Y: op._conj()._transpose().matmat(Y),
        batch_shape=op.batch_shape,
        related={"T": lambda: op.T, "H": lambda: op.H, "conj": op.conj},
        forces_complex=op._forces_complex,
        operator=op,
    )


def _sizes(shape: Any, owner: str) -> tuple[int, int]:
    sizes = tuple(shape)
    if len(sizes) != 2 or not all(isinstance(size, (int, np.integer)) and size >= 0 for size in sizes):
        raise ArgumentValueError(owner, "operator", f"must have a shape of two integers, got {shape!r}")
    return int(sizes[0]), int(sizes[1])


def _of_functions(functions: Functions, owner: str) -> View:
    like = functions.like
    if like is not None and not is_array(like):
        raise ArgumentTypeError(owner, "operator", f"must have an array `like`, got {type(like).__name__}")
    return View(
        name=getattr(functions.matvec, "__name__", "Functions"),
        shape=_sizes(functions.shape, owner),
        dtype=dtype_name(np.dtype(functions.dtype) if like is None else functions.dtype),
        xp=numpy_namespace if like is None else namespace(like),
        device="cpu" if like is None else like.device,
        matvec=functions.matvec,
        rmatvec=functions.rmatvec,
        takes_any_dtype=like is None or not is_torch(like),
    )


def _with_methods(op: Any, owner: str) -> View:
    """Return an operator of SciPy, or one with its names, as those of PyLops."""
    dtype = getattr(op, "dtype", None)
    complex_linear = bool(getattr(op, "clinear", True))
    related = {name: partial(getattr, op, name) for name in ("T", "H") if hasattr(op, name)}
    entries = {"the matrix": op.todense} if hasattr(op, "todense") else {}
    return View(
        name=type(op).__name__,
        shape=_sizes(op.shape, owner),
        dtype=np.dtype(float if dtype is None else dtype).name,
        xp=numpy_namespace,
        device="cpu",
        matvec=op.matvec,
        rmatvec=_adjoint_of(op, dtype),
        matmat=getattr(op, "matmat", None),
        rmatmat=getattr(op, "rmatmat", None),
        related=related | ({"conj": op.conj} if hasattr(op, "conj") else {}),
        entries=entries,
        is_complex_linear=complex_linear,
        takes_any_dtype=complex_linear,
    )


def _adjoint_of(op: Any, dtype: Any) -> _Product | None:
    """Return `rmatvec`, or None where the operator says by an error that it has none, as those of SciPy do."""
    if not hasattr(op, "rmatvec"):
        return None
    try:
        op.rmatvec(np.zeros(op.shape[0], dtype))
    except NotImplementedError:
        return None
    except Exception:  # noqa: BLE001  # a fault, which the laws tell
        return op.rmatvec
    return op.rmatvec


def _of_lineax(op: Any, owner: str) -> View:
    from jax import numpy as jnp  # noqa: PLC0415  # which is imported already where an operator of lineax is

    into, out = op.in_structure(), op.out_structure()
    if not all(len(getattr(structure, "shape", ())) == 1 for structure in (into, out)):
        text = f"must take and return vectors, not trees of arrays as this one of lineax, got {into} and {out}"
        raise ArgumentValueError(owner, "operator", text)
    xp = namespace(jnp.zeros(0, into.dtype))
    return View(
        name=type(op).__name__,
        shape=(op.out_size(), op.in_size()),
        dtype=dtype_name(into.dtype),
        xp=xp,
        device=None,
        matvec=op.mv,
        rmatvec=lambda y: xp.conj(op.transpose().mv(xp.conj(y))),
        related={"T": op.transpose},
        entries={"the matrix": op.as_matrix},
        takes_any_dtype=False,
    )


def _of_linear_operator(op: Any) -> View:
    import torch  # noqa: PLC0415  # which is imported already where an operator of linear_operator is

    *batch, rows, cols = op.shape
    transposed = op.mT
    square = rows == cols
    return View(
        name=type(op).__name__,
        shape=(int(rows), int(cols)),
        dtype=dtype_name(op.dtype),
        xp=namespace(torch.zeros(0)),  # not by its tensors: one of zeros has none
        device=op.device,
        matvec=lambda x: op.matmul(x[..., None])[..., 0],
        rmatvec=lambda y: transposed.matmul(y[..., None])[..., 0],
        matmat=op.matmul,
        rmatmat=transposed.matmul,
        batch_shape=tuple(map(int, batch)),
        related={"T": lambda: op.mT},
        entries={"the matrix": op.to_dense} | ({"the diagonal": op.diagonal} if square else {}),
        solve=op.solve if square else None,
        takes_any_dtype=False,
    )


def values_of(result: Any) -> np.ndarray[Any, Any]:
    """Return a result as an array of NumPy, without its gradient."""
    if not is_array(result):
        if hasattr(result, "to_dense"):
            result = result.to_dense()
        return np.asarray(result)
    return to_numpy(result.detach() if is_torch(result) else result)
