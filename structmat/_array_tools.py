"""Arrays of any library of the array API standard: namespaces, dtypes, shapes, norms, errors."""

from __future__ import annotations

import importlib
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from types import ModuleType
from typing import Any, ClassVar, Self, TypeAlias, cast

import array_api_compat
import numpy as np
from array_api_compat import array_namespace, is_array_api_obj
from array_api_compat import device as compat_device

DType: TypeAlias = Any
"""A dtype object of some array library."""

Device: TypeAlias = Any
"""A device object of some array library."""

Namespace: TypeAlias = Any
"""An array API namespace: `numpy_namespace`, or what `array_api_compat.array_namespace` returns."""


class _NumPy(ModuleType):
    """NumPy as a namespace of the standard. That of array_api_compat takes longer to import than NumPy itself."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(np, name)
        setattr(self, name, value)  # so that it is looked up once
        return value

    @staticmethod
    def astype(x: Any, dtype: Any, *, copy: bool = True) -> Any:
        """Return an array or a scalar of another dtype; `numpy.astype` takes no scalars."""
        return x.astype(dtype, copy=copy)


numpy_namespace: Namespace = _NumPy("numpy")
"""The namespace of NumPy arrays."""


Array: TypeAlias = Any
"""An array of any library of the array API standard."""

ArrayLike: TypeAlias = Any
"""An array of any library, or nested lists of numbers (read by NumPy or by the operator's own library)."""

Scalar: TypeAlias = complex | Array
"""A Python number, or an array without the axes of the operator's vectors."""


class ArgumentError(Exception):
    """An argument that a function, a method or an operator cannot take.

    Raised as `ArgumentValueError`, which is a `ValueError`, for shapes and values, and as `ArgumentTypeError`, which is
    a `TypeError`, for kinds.

    Parameters
    ----------
    owner : str
        What was called: ``"fit_cdd"``, ``"Circulant.solve"``.
    argument : str or None
        The name of the argument; None where several are at fault together.
    text : str
        What is wrong: what was passed and what was expected.

    Examples
    --------
    >>> import structmat as sm
    >>> try:
    ...     sm.Diagonal([1.0, 2.0]).matvec([1.0])
    ... except sm.ArgumentError as error:
    ...     print(error.owner, error.argument)
    Diagonal.matvec x
    """

    __module__ = "structmat"  # where users find it, in tracebacks too

    def __init__(self, owner: str, argument: str | None, text: str) -> None:
        super().__init__(owner, argument, text)
        self.owner, self.argument, self.text = owner, argument, text

    def __str__(self) -> str:
        return f"{self.owner}: {self.text}" if self.argument is None else f"{self.owner}: {self.argument} {self.text}"


class ArgumentValueError(ArgumentError, ValueError):
    """An argument of a wrong shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> try:
    ...     sm.fit_cdd(np.ones((3, 3)), n_factors=0)
    ... except ValueError as error:
    ...     print(type(error).__name__, error.owner, error.argument)
    ArgumentValueError fit_cdd n_factors
    """

    __module__ = "structmat"


class ArgumentTypeError(ArgumentError, TypeError):
    """An argument of a wrong kind.

    Examples
    --------
    >>> import structmat as sm
    >>> try:
    ...     sm.Circulant(["one", "two"])
    ... except TypeError as error:
    ...     print(type(error).__name__, error.owner, error.argument)
    ArgumentTypeError Circulant c
    """

    __module__ = "structmat"


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Let errors of arguments say where: which of many layers, say."""
    try:
        yield
    except ArgumentError as error:
        raise type(error)(error.owner, error.argument, f"{error.text}, in {place}") from error


@contextmanager
def as_own(owner: str, of: str) -> Iterator[None]:
    """Let errors of arguments that a function `of` ours finds name `owner`, which was called and passed them on."""
    try:
        yield
    except ArgumentError as error:
        if error.owner != of:
            raise
        raise type(error)(owner, error.argument, error.text) from error


def warn_caller(text: str, category: type[Warning], *, through: tuple[str, ...] = ()) -> None:
    """Warn at the line that called structmat, also `through` other packages that call it."""
    packages = {"structmat", "functools", *through}  # as properties that are computed once stand between
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in packages:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, category, stacklevel=level)


def is_torch(value: Any) -> bool:
    module = type(value).__module__
    return (module == "torch" or module.startswith("torch.")) and hasattr(value, "requires_grad")


def namespace(*arrays: Array) -> Namespace:
    # Known without array_api_compat for NumPy, which is faster, and for torch: torch.compile cannot trace its look-up
    # in older versions, and remarks on its caches in newer ones.
    for array in arrays:
        if type(array) is not np.ndarray:
            break
    else:
        return numpy_namespace
    for array in arrays:
        if not is_torch(array):
            found = array_namespace(*arrays)
            library = library_of(found)
            if library == "jax":  # whose transformations take operators that are registered, as no other
                importlib.import_module("structmat.jax")
            return numpy_namespace if library == "numpy" else found
    known: Namespace | None = getattr(array_api_compat, "torch", None)
    if known is not None:  # which costs a sixth of an import
        return known
    from array_api_compat import torch as torch_namespace  # noqa: PLC0415  # torch is there already

    return torch_namespace


def is_array(value: Any) -> bool:
    """Tell whether `value` is an array of a library that follows the array API standard."""
    return type(value) is np.ndarray or is_torch(value) or is_array_api_obj(value)


def is_numpy(xp: Namespace) -> bool:
    """Tell whether `xp` is the namespace of NumPy arrays."""
    return xp is numpy_namespace


def library_of(xp: Namespace) -> str:
    """Return the name of the library of a namespace: ``numpy``, ``torch``, ``jax``, ..."""
    name: str = xp.__name__.removeprefix("array_api_compat.")
    return name.partition(".")[0]


def device_of(array: Array) -> Device:
    """Return the device of an array."""
    return array.device if is_torch(array) else compat_device(array)


def namespace_of(owner: str, *arrays: Array) -> Namespace:
    """Return the one array namespace of all `arrays`; `owner` names the caller in the error."""
    try:
        return namespace(*arrays)
    except TypeError as error:
        kinds = ", ".join(sorted({f"{type(a).__module__}.{type(a).__qualname__}" for a in arrays}))
        raise ArgumentTypeError(owner, None, f"all arrays must come from one array library, got {kinds}") from error


def is_eager_on_cpu(tensor: Array, xp: Namespace) -> bool:
    """Tell whether a tensor of torch lies in the memory of the CPU, and no compiler traces what is done with it."""
    return str(device_of(tensor)) == "cpu" and not xp.compiler.is_compiling()


_UNTRACED: dict[Callable[..., Any], Callable[..., Any]] = {}


def untraced(function: Callable[..., Any], torch: Namespace) -> Callable[..., Any]:
    """Return a function that works on the values of tensors, so that no compiler of torch traces what it calls.

    Kept in a dictionary, since a compiler knows functions by their identity and looks through caches of functools.
    What compiles is imported by torch when it is first asked for, which takes longer than all else.
    """
    if "torch._dynamo" not in sys.modules:
        return function
    if function not in _UNTRACED:
        _UNTRACED[function] = torch.compiler.disable(function)
    return _UNTRACED[function]


def is_complex(dtype: DType, xp: Namespace) -> bool:
    """Tell whether a dtype is complex.

    Parameters
    ----------
    dtype : dtype
        Of any library.
    xp : namespace
        That of the library.

    Returns
    -------
    bool
        True for complex numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import is_complex
    >>> is_complex(np.dtype("complex64"), np), is_complex(np.dtype("float64"), np)
    (True, False)
    """
    if isinstance(dtype, np.dtype):
        return dtype.kind == "c"
    if isinstance(known := getattr(dtype, "is_complex", None), bool):  # torch
        return known
    return bool(xp.isdtype(dtype, "complex floating"))


def is_half_precision(dtype: DType) -> bool:
    """Tell whether `dtype` is below single precision (float16, bfloat16, ...), so that no library transforms it."""
    size = getattr(dtype, "itemsize", None)  # a class such as numpy.float64 has a descriptor, array_api_strict nothing
    return isinstance(size, int) and size < 4


def precision_of(dtype: DType, xp: Namespace) -> DType:
    """Return the real dtype in which numbers of `dtype` are computed: float32 for half precision, else its own."""
    if is_half_precision(dtype) or dtype == xp.complex64:
        return xp.result_type(xp.float32, xp.float32)  # NumPy's own float32 is a class, not a dtype
    return xp.result_type(xp.float64, xp.float64) if is_complex(dtype, xp) else dtype


def complex_partner(dtype: DType, xp: Namespace) -> DType:
    """Return the complex dtype of the precision in which numbers of `dtype` are computed."""
    return xp.result_type(precision_of(dtype, xp), xp.complex64)


def common_dtype(xp: Namespace, *operands: Array | DType) -> DType:
    """Return the dtype of a result of arrays, or of operands of known dtypes; None stands for one that fits any dtype.

    Arrays tell more than their dtypes: in torch one without axes, and in JAX one of a weak type, counts for its kind
    only, real or complex.
    """
    known = [operand for operand in operands if operand is not None]
    dtypes = [getattr(operand, "dtype", operand) for operand in known]
    if not known:
        return None
    if dtypes.count(dtypes[0]) == len(dtypes):
        return dtypes[0]
    library = library_of(xp)
    if library == "torch":  # whose result_type in the array API standard looks at dtypes only
        full = [dtype for operand, dtype in zip(known, dtypes, strict=True) if getattr(operand, "ndim", 1)]
        common = xp.result_type(*(full or dtypes))
        return complex_partner(common, xp) if any(is_complex(dtype, xp) for dtype in dtypes) else common
    return xp.result_type(*(known if library == "jax" else dtypes))


def in_precision(array: Array, precision: DType, xp: Namespace) -> Array:
    """Return `array` in the given real dtype or its complex partner, whichever it needs; itself if it is so already."""
    if array.dtype == precision:
        return array
    target = complex_partner(precision, xp) if is_complex(array.dtype, xp) else precision
    return array if array.dtype == target else xp.astype(array, target)


def cast_back(value: Array, dtype: DType, xp: Namespace) -> Array:
    """Return a real result in the half precision `dtype` of its operands; any other result as it is."""
    if is_half_precision(dtype) and value.dtype != dtype and xp.isdtype(value.dtype, "real floating"):
        return xp.astype(value, dtype)
    return value


def matmul(A: Array, B: Array, xp: Namespace) -> Array:
    """Return the matrix product in the precision of the operands, under ``torch.autocast`` too."""
    product: Array = xp.matmul(A, B)
    if is_half_precision(product.dtype) and not is_half_precision(A.dtype):
        with xp.autocast(A.device.type, enabled=False):
            product = xp.matmul(A, B)
    return product


def dtype_name(dtype: DType) -> str:
    """Return the bare name of a dtype: ``float32`` for ``torch.float32`` and ``dtype('float32')`` alike."""
    return "any" if dtype is None else str(getattr(dtype, "name", dtype)).rsplit(".", 1)[-1]


def shared_dtype(leaves: Sequence[tuple[Array, int]]) -> DType:
    """Return the one dtype, full precision, of arrays of one library; None where there are several, or half ones."""
    dtype: Any = None
    for array, _ in leaves:
        if dtype is None:
            dtype = array.dtype
        elif array.dtype != dtype:
            return None
    return None if is_half_precision(dtype) else dtype


def is_complex_scalar(factor: Scalar, xp: Namespace) -> bool:
    """Tell whether a Python number or an array of scalars is complex."""
    if isinstance(factor, (int, float)):
        return False
    return True if isinstance(factor, complex) else is_complex(factor.dtype, xp)


def binary_exponents(sizes: Array, xp: Namespace) -> Array:
    """Return whole numbers e, as floats, with ``2.0 ** e`` close below each size. It is near zero for zeros and NaN.

    They carry no gradient, and ``2.0 ** e`` is always a normal number, so that a division by it is exact.
    """
    limits = xp.finfo(sizes.dtype)
    low, high = math.frexp(float(limits.smallest_normal))[1] - 1, math.frexp(float(limits.max))[1] - 1
    if is_numpy(xp):  # exact, and in a fifth of the time
        return np.maximum(np.frexp(cast("Any", sizes))[1] - 1, low).astype(sizes.dtype)
    regular = xp.where(xp.isfinite(sizes) & (sizes > 0), sizes, xp.ones_like(sizes))
    return xp.clip(xp.floor(xp.log2(regular)), low, high)


def binary_unit(x: Array, xp: Namespace, *, axis: int | tuple[int, ...] = -1) -> Array:
    """Return the power of two near the largest entry along `axis`, which keeps a length of one: near one for zeros."""
    return 2.0 ** binary_exponents(xp.max(xp.abs(x), axis=axis, keepdims=True), xp)


def quotient(x: Array, y: Scalar, xp: Namespace) -> Array:
    """Return ``x / y``, which overflows or underflows only where the result does.

    Libraries divide complex numbers by way of a reciprocal: both are first divided by a power of two, which is exact.
    Not in JAX, which has no subnormal numbers, and where a weak type has to stay one.
    """
    if library_of(xp) == "jax" or not (is_complex(x.dtype, xp) or is_complex_scalar(y, xp)):
        return x / y
    is_number = isinstance(y, (int, float, complex))
    dtype = complex_partner(x.dtype, xp) if is_number else common_dtype(xp, x, y)
    divisor: Any = xp.asarray(y, dtype=dtype, device=device_of(x)) if is_number else xp.astype(y, dtype)
    unit = 2.0 ** binary_exponents(xp.abs(divisor), xp)
    return (xp.astype(x, dtype) / unit) / (divisor / unit)


def euclidean_norm(x: Array, xp: Namespace, *, axis: int | tuple[int, ...] = -1, weights: Array | None = None) -> Array:
    """Return ``sqrt(sum(weights * abs(x) ** 2))`` along `axis`, whatever the size of the entries.

    The entries are divided by a power of two near the largest, which is exact. The gradient at zero is zero.
    """
    size = binary_unit(x, xp, axis=axis)
    parts = (xp.real(x), xp.imag(x)) if is_complex(x.dtype, xp) else (x,)
    squares = sum(((part / size) ** 2 for part in parts[1:]), start=(parts[0] / size) ** 2)
    total = xp.sum(squares if weights is None else squares * weights, axis=axis)
    zero = total == 0.0
    root = xp.where(zero, xp.zeros_like(total), xp.sqrt(xp.where(zero, xp.ones_like(total), total)))
    return xp.reshape(size, total.shape) * root


def broadcast_shapes(owner: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the broadcast of batch shapes; `owner` names the caller in the error."""
    result: tuple[int, ...] = ()
    for shape in shapes:  # plain Python, which torch.compile can trace in every version
        longer, shorter = (result, shape) if len(result) >= len(shape) else (shape, result)
        lead = len(longer) - len(shorter)
        if any(a != b and 1 not in {a, b} for a, b in zip(longer[lead:], shorter, strict=True)):
            text = " and ".join(str(shape) for shape in shapes)
            raise ArgumentValueError(owner, None, f"the batch axes {text} do not broadcast")
        result = longer[:lead] + tuple(b if a == 1 else a for a, b in zip(longer[lead:], shorter, strict=True))
    return result


@dataclass(frozen=True)
class Reciprocal:
    """The factor ``1 / divisor``, kept as its divisor: the number itself may overflow, or lose digits.

    Parameters
    ----------
    divisor : number or array
        What to divide by.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import Reciprocal, scale_array
    >>> scale_array(np.array([2e-310, 0.0]), Reciprocal(1e-310), 1, np)
    array([2., 0.])
    """

    divisor: Scalar
    """The number, or one for each member of a stack."""


def scale_array(array: Array, factor: Scalar | Reciprocal, core: int, xp: Namespace) -> Array:
    """Return `array` times a scalar, or times an array of scalars over the axes before its last `core` ones.

    Parameters
    ----------
    array : array, shape ``(..., *core)``
        What to multiply.
    factor : number, array or Reciprocal
        A Python number, or an array of scalars, one for each member of a stack. By what a `Reciprocal` holds the array
        is divided.
    core : int
        The number of axes of one member.
    xp : namespace
        That of `array`.

    Returns
    -------
    array
        The product, complex where the factor is.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import scale_array
    >>> scale_array(np.ones((2, 3)), np.array([1.0, 2.0]), 1, np)  # one factor for each vector of a stack of two
    array([[1., 1., 1.],
           [2., 2., 2.]])
    """
    number = factor.divisor if isinstance(factor, Reciprocal) else factor
    if isinstance(number, complex):
        if not is_complex(array.dtype, xp):
            array = xp.astype(array, complex_partner(array.dtype, xp))
    elif not isinstance(number, (int, float)) and number.ndim:
        # an array without axes keeps none: in torch it counts for less than one of axes of length one
        number = xp.reshape(number, (*number.shape, *(1,) * core))
    return quotient(array, number, xp) if isinstance(factor, Reciprocal) else array * number


def concat_last(arrays: Sequence[Array], xp: Namespace) -> Array:
    """Join arrays along the last axis after broadcasting the axes before it.

    Parameters
    ----------
    arrays : sequence of arrays, shape (..., n)
        The arrays to join; their leading axes must broadcast.
    xp : namespace
        Theirs.

    Returns
    -------
    array
        Of their common dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import concat_last
    >>> concat_last([np.zeros(2), np.ones((3, 1))], np).shape
    (3, 3)
    """
    if len(arrays) == 1:
        return arrays[0]
    if all([array.ndim == 1 and array.dtype == arrays[0].dtype for array in arrays]):  # noqa: C419  # faster
        return xp.concat(arrays, axis=-1)
    batch = np.broadcast_shapes(*(tuple(a.shape[:-1]) for a in arrays))
    dtype = common_dtype(xp, *arrays)
    same = [a if a.dtype == dtype else xp.astype(a, dtype) for a in arrays]  # in JAX `astype` ends a weak type
    full = [xp.broadcast_to(a, (*batch, a.shape[-1])) for a in same]
    return xp.concat(full, axis=-1)


def conjugate(x: Array, xp: Namespace) -> Array:
    """Return the complex conjugates, of real numbers themselves."""
    return xp.conj(x) if is_complex(x.dtype, xp) else x


def real_part(x: Array, xp: Namespace) -> Array:
    """Return the real parts, of real numbers themselves."""
    return xp.real(x) if is_complex(x.dtype, xp) else x


def contiguous(array: Array, xp: Namespace) -> Array:
    """Return the array with its last axis densest in memory, by way of a flat one."""
    return xp.reshape(xp.reshape(array, (-1,)), tuple(array.shape))


def moved(array: Array, source: int, destination: int, xp: Namespace) -> Array:
    """Return the array with one axis moved; `permute_dims`, since torch's `vmap` has no `moveaxis`."""
    axes = list(range(array.ndim))
    axis = axes.pop(source)
    axes.insert(destination % array.ndim, axis)
    return xp.permute_dims(array, tuple(axes))


def along_axes(x: Array, axes: int, function: Callable[[Array, int], Array], xp: Namespace) -> Array:
    """Return x after ``function(x, k)`` along each of its last `axes` axes, the k-th of them moved to the end."""
    for k in range(axes):
        x = function(moved(x, -axes, -1, xp), k)
    return x


def padded(x: Array, length: int, xp: Namespace) -> Array:
    """Return x with zeros appended along the last axis."""
    if x.shape[-1] == length:
        return x
    zeros = xp.zeros((*x.shape[:-1], length - x.shape[-1]), dtype=x.dtype, device=device_of(x))
    return xp.concat([x, zeros], axis=-1)


def windows(h: Array, length: int, xp: Namespace) -> Array:
    """Return W with ``W[..., i, j] = h[..., i + j]`` and rows of that length: in NumPy a read-only view."""
    if is_numpy(xp):
        return np.lib.stride_tricks.sliding_window_view(h, length, axis=-1)
    count = h.shape[-1] - length + 1
    i, j = xp.arange(count, device=device_of(h)), xp.arange(length, device=device_of(h))
    index = xp.reshape(i[:, None] + j[None, :], (count * length,))
    return xp.reshape(xp.take(h, index, axis=-1), (*h.shape[:-1], count, length))


def reversed_cyclically(c: Array, xp: Namespace) -> Array:
    """Return c at indices 0, -1, -2, ... along the last axis: the first column of the transpose of a circulant."""
    return xp.concat([c[..., :1], xp.flip(c[..., 1:], axis=-1)], axis=-1)


def is_vector(value: Any) -> bool:
    """Tell whether an array or nested lists have one axis; ragged lists count, so that the product refuses them."""
    try:
        return np.ndim(value) == 1
    except ValueError:
        return True


def inverses(matrices: Array, xp: Namespace) -> Array:
    """Return the inverses of matrices, infinite for a singular one; with NumPy that is an error."""
    return _or_infinite("inv", xp, matrices)


def solutions(matrices: Array, right: Array, xp: Namespace) -> Array:
    """Return the solutions of systems for the columns of `right`, infinite for a singular matrix, as `inverses`."""
    return _or_infinite("solve", xp, matrices, right)


def _or_infinite(function: str, xp: Namespace, *matrices: Array) -> Array:
    """Return what a function of linear algebra finds, infinite where torch, which is asked not to raise, finds none."""
    if library_of(xp) != "torch":
        return getattr(xp.linalg, function)(*matrices)
    found, failures = getattr(xp.linalg, f"{function}_ex")(*matrices)
    return xp.where((failures > 0)[..., None, None], xp.full_like(found, float("inf")), found)


def singular_values(matrices: Array, xp: Namespace) -> Array:
    """Return singular values, NaN for a matrix with NaN or infinity, which libraries refuse."""
    finite = xp.all(xp.isfinite(matrices), axis=(-2, -1))
    values = xp.linalg.svdvals(xp.where(finite[..., None, None], matrices, xp.zeros_like(matrices)))
    return xp.where(finite[..., None], values, xp.full_like(values, float("nan")))


def constant(value: Array, xp: Namespace) -> Array:
    """Return an array that has no derivative."""
    library = library_of(xp)
    if library == "torch":
        return value.detach()
    return sys.modules["jax"].lax.stop_gradient(value) if library == "jax" else value


def is_differentiated(arrays: Iterable[Array], xp: Namespace) -> bool:
    """Tell whether torch is to differentiate what is computed of arrays, in any mode, or to map it over an axis."""
    if library_of(xp) != "torch":
        return False
    torch: Any = sys.modules["torch"]
    if torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0:
        return True
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in arrays)


def is_plain(arrays: Iterable[Array]) -> bool:
    """Tell whether what is computed of arrays may be kept, as it belongs to no trace, graph or mode of a library."""
    values: list[Any] = list(arrays)
    if all(type(value) is np.ndarray or type(value).__name__ == "ArrayImpl" for value in values):
        return True  # of NumPy, or in JAX such as are no tracers
    torch: Any = sys.modules.get("torch")
    if torch is None or not all(type(value) is torch.Tensor and not value.requires_grad for value in values):
        return False
    special = torch.compiler.is_compiling() or torch.is_inference_mode_enabled()
    return not special and not is_differentiated(values, namespace(*values))


class Parametrised:
    """A frozen dataclass that says which of its fields are parameters."""

    _core_axes: ClassVar[dict[str, int | None]] = {}
    """Fields that hold parameters: the number of an array's own axes after the batch axes, None for inner objects.
    All other fields are static: plain hashable values. A parameter may be missing (None) or a Python number."""

    _static_numbers: ClassVar[frozenset[str]] = frozenset()
    """Fields that hold an array or a Python number; the number is static."""

    def _leaves(self) -> list[tuple[Array, int]]:
        """Return all parameter arrays, those of inner objects included, each with its number of core axes."""
        leaves: list[tuple[Array, int]] = []
        for name, axes in self._core_axes.items():
            value = getattr(self, name)
            if axes is None:
                for inner in value if isinstance(value, tuple) else (value,):
                    leaves.extend(inner._leaves())
            elif value is not None and not isinstance(value, (int, float, complex)):
                leaves.append((value, axes))
        return leaves

    def _arrays(self) -> list[Array]:
        """Return all parameter arrays, those of inner objects included."""
        return [*map(itemgetter(0), self._leaves())]

    def _map(self, function: Callable[[Array, int], Array]) -> Self:
        """Return the object with `function(array, core axes)` in place of each parameter array, unchecked."""
        return self._rebuilt(function, lambda inner: inner._map(function))

    def _rebuilt(self, array: Callable[[Array, int], Array], inner: Callable[[Any], Any]) -> Self:
        """Return the object with functions of its own parameter arrays and of its inner objects in place of them."""
        new = object.__new__(type(self))
        for name in self._field_names():
            value = getattr(self, name)
            if name in self._core_axes:
                axes = self._core_axes[name]
                if axes is None:
                    value = tuple(map(inner, value)) if isinstance(value, tuple) else inner(value)
                elif value is not None and not isinstance(value, (int, float, complex)):
                    value = array(value, axes)
            object.__setattr__(new, name, value)
        return new

    def _replaced(self, **fields: Any) -> Self:
        """Return the object with other values of some fields, unchecked."""
        new = object.__new__(type(self))
        for name in self._field_names():
            object.__setattr__(new, name, fields[name] if name in fields else getattr(self, name))
        return new

    @classmethod
    def _field_names(cls) -> tuple[str, ...]:
        return cls.__match_args__  # type: ignore[attr-defined]  # set by `dataclass`

    def _own_namespace(self) -> Namespace:
        arrays = self._arrays()
        return namespace_of(type(self).__name__, *arrays) if arrays else numpy_namespace
