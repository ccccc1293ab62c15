"""Namespaces of libraries that differ from the standard, each as one class: NumPy, MLX and Dask.

A namespace has the functions of its library, and in place of those that are missing, or that take other arguments than
the standard has, its own. Libraries that follow the standard, by themselves or by array_api_compat, need none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial, wraps
from types import ModuleType
from typing import Any

import numpy as np

from structmat._arrays.typing import Array, Namespace


class _Extended(ModuleType):
    """The functions of a module, some of which a subclass replaces."""

    def __init__(self, name: str, module: Any) -> None:
        super().__init__(name)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        setattr(self, name, value)  # so that it is looked up only once
        return value


class _NumPy(_Extended):
    """NumPy as a namespace of the standard. That of array_api_compat takes longer to import than NumPy itself."""

    @staticmethod
    def astype(x: Any, dtype: Any, *, copy: bool = True) -> Any:
        """Return an array or a scalar of another dtype; `numpy.astype` takes no scalars."""
        return x.astype(dtype, copy=copy)

    @staticmethod
    def any(x: Any, /, **options: Any) -> Any:
        """Return whether some entries are true; `numpy.any` takes five times as long for a scalar."""
        return x.any(**options)

    @staticmethod
    def all(x: Any, /, **options: Any) -> Any:
        """Return whether all entries are true; `numpy.all` takes five times as long for a scalar."""
        return x.all(**options)


numpy_namespace: Namespace = _NumPy("numpy", np)
"""The namespace of NumPy arrays."""


class _MLX(_Extended):
    """MLX: its arrays belong to no device, its GPU has no double precision, its linear algebra is on the CPU only."""

    def __init__(self, mlx: Any) -> None:
        super().__init__("mlx", mlx)
        self.bool = mlx.bool_
        self.linalg = _LinearAlgebraOfMLX("mlx.linalg", mlx)
        for name in ("arange", "asarray", "eye", "full", "full_like", "ones", "ones_like", "zeros", "zeros_like"):
            setattr(self, name, _without_device(getattr(mlx, name)))

    def clip(self, x: Array, min: Any = None, max: Any = None) -> Array:
        """Return the numbers of `x`, those below `min` replaced by it and those above `max` by that."""
        return self._module.clip(x, min, max)


def _without_device(function: Callable[..., Array]) -> Callable[..., Array]:
    """Return a function that makes arrays, which takes the argument `device` of the standard and ignores it."""

    @wraps(function)
    def without_device(*arguments: Any, device: Any = None, **options: Any) -> Array:  # noqa: ARG001
        return function(*arguments, **options)

    return without_device


class _LinearAlgebraOfMLX(_Extended):
    """Functions of small dense matrices, by NumPy: MLX too has them on the CPU only, and for real matrices."""

    def __init__(self, name: str, mlx: Any) -> None:
        super().__init__(name, mlx.linalg)
        self._mlx = mlx
        for function in _OF_MATRICES:
            setattr(self, function, self._by_numpy(getattr(np.linalg, function)))

    def _by_numpy(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def computed(*matrices: Array, **options: Any) -> Any:
            result = function(*map(np.asarray, matrices), **options)
            if isinstance(result, tuple):
                return type(result)(*map(self._mlx.array, result))
            return self._mlx.array(result)

        return computed

    def diagonal(self, matrices: Array, /, *, offset: int = 0) -> Array:
        """Return a diagonal of each matrix."""
        return self._mlx.diagonal(matrices, offset, axis1=-2, axis2=-1)


class _Dask(_Extended):
    """Dask: transforms and functions of matrices need the axes that they act on in one chunk."""

    def __init__(self, dask: Any) -> None:
        super().__init__("dask", dask)
        self.fft = _TransformsOfDask("dask.fft", dask.fft)
        self.linalg = _LinearAlgebraOfDask("dask.linalg", dask)

    def eye(self, rows: int, cols: int | None = None, *, k: int = 0, dtype: Any = None, device: Any = None) -> Array:
        """Return a matrix with ones on a diagonal; those of Dask that are wider than high have wrong shapes."""
        return self._module.from_array(np.eye(rows, cols, k=k, dtype=dtype))

    def take(self, x: Array, indices: Array, /, *, axis: int = -1) -> Array:
        """Return the entries at some indices along an axis.

        The indices are computed at once, since for indices that are not computed Dask warns of complex numbers. The
        result has the axis in one chunk, since by itself Dask would make a chunk for each few entries.
        """
        taken = x[(*[slice(None)] * (axis % x.ndim), np.asarray(indices))]
        return _in_one_chunk(taken, [axis])


def _in_one_chunk(x: Array, axes: Sequence[int]) -> Array:
    """Return an array of Dask that is not cut along these axes."""
    return x.rechunk(dict.fromkeys((axis % x.ndim for axis in axes), -1))


class _TransformsOfDask(_Extended):
    """Fourier transforms of Dask, each of an array that is brought into one chunk along the axes of the transform."""

    def __getattr__(self, name: str) -> Any:
        transform = getattr(self._module, name)

        @wraps(transform)
        def transformed(x: Array, *arguments: Any, axis: int = -1, **options: Any) -> Array:
            return transform(_in_one_chunk(x, [axis]), *arguments, axis=axis, **options)

        @wraps(transform)
        def transformed_axes(x: Array, *arguments: Any, axes: Any = None, **options: Any) -> Array:
            along = range(x.ndim) if axes is None else axes
            return transform(_in_one_chunk(x, along), *arguments, axes=axes, **options)

        value = transformed_axes if name.endswith("n") else transformed
        setattr(self, name, value)
        return value


class _LinearAlgebraOfDask(_Extended):
    """Functions of small dense matrices and of stacks of them: NumPy's functions, applied to each chunk."""

    def __init__(self, name: str, dask: Any) -> None:
        super().__init__(name, dask.linalg)
        self._dask = dask
        for function, signature in _OF_MATRICES.items():
            setattr(self, function, self._by_chunks(getattr(np.linalg, function), signature))

    def _by_chunks(self, function: Callable[..., Any], signature: str) -> Callable[..., Any]:
        @wraps(function)
        def computed(*matrices: Array, **options: Any) -> Any:
            example = function(*(np.eye(1, dtype=each.dtype) for each in matrices), **options)
            return self._dask.apply_gufunc(
                partial(function, **options),
                signature,
                *matrices,
                meta=example,
                output_sizes={"k": min(matrices[0].shape[-2:])} if "k" in signature.split("->")[1] else None,
                allow_rechunk=True,
            )

        return computed


_OF_MATRICES = {
    "inv": "(m,m)->(m,m)",
    "pinv": "(m,n)->(n,m)",
    "solve": "(m,m),(m,r)->(m,r)",
    "svd": "(m,n)->(m,k),(k),(k,n)",
    "svdvals": "(m,n)->(k)",
    "det": "(m,m)->()",
    "slogdet": "(m,m)->(),()",
    "eigh": "(m,m)->(m),(m,m)",
    "eig": "(m,m)->(m),(m,m)",
    "eigvals": "(m,m)->(m)",
}
"""Functions of small dense matrices that a library may lack, with the axes of their arguments and results."""


_CLASSES: dict[str, Callable[[Any], Namespace]] = {"mlx": _MLX, "dask": _Dask}
"""For each library that differs from the standard, by name, the class of its namespace."""


@cache
def extended(library: str, xp: Namespace) -> Namespace:
    """Return the namespace `xp` of a library, together with the functions of the standard that it lacks."""
    return _CLASSES[library](xp) if library in _CLASSES else xp
