"""How products are computed: plans of convolutions, shifts, scalings and their compositions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from math import inf, prod
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias

import numpy as np
from array_api_compat import numpy as numpy_namespace

from structmat._array_tools import (
    Array,
    DType,
    Namespace,
    Parametrised,
    common_dtype,
    complex_partner,
    concat_last,
    contiguous,
    device_of,
    dtype_name,
    is_complex,
    is_eager_on_cpu,
    is_numpy,
    library_of,
    matmul,
    moved,
    padded,
    precision_of,
    reversed_cyclically,
)
from structmat._fourier import (
    DUCC_CONVOLUTION,
    PLAIN,
    STEPS,
    TORCH_CHUNK,
    TORCH_LARGE,
    FourStep,
    Settings,
    column_length,
    convolver,
    fast_length,
    from_spectrum,
    in_chunks,
    method_for,
    rows_in_chunk,
    spectrum,
    transforms,
)

__all__ = [
    "Bezoutian",
    "BlockConvolution",
    "ByParts",
    "ChunkedPlan",
    "Composition",
    "Convolution",
    "Plan",
    "Products",
    "Scaling",
    "ShiftAndAdd",
    "Step",
    "bezoutian",
    "by_frequency",
    "convolution",
    "handed_over",
    "products_of",
]

Step: TypeAlias = Callable[[Any, Any], Any]
"""Returns the products of one vector or of rows, in the second argument where that is possible and given."""


def handed_over(y: Any, out: Any) -> Any:
    """Return the result of a step, in `out` where that is given."""
    if out is None:
        return y
    out[...] = y
    return out


class Plan(Parametrised, ABC):
    """What computes the products of one matrix, or of a stack of them."""

    __slots__ = ()

    @abstractmethod
    def apply(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis."""

    @abstractmethod
    def transpose(self) -> Self:
        """Return the plan of the transpose."""

    @abstractmethod
    def conj(self) -> Self:
        """Return the plan of the complex conjugate."""

    def adjoint(self) -> Self:
        """Return the plan of the conjugate transpose."""
        return self.conj().transpose()


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class ByParts(Plan):
    """The plan of an operator made of prepared operators: its own hooks, which go through theirs."""

    _core_axes = {"operator": None}

    operator: Any
    is_adjoint: bool = False
    """Whether it is the plan of the adjoint, for which nothing is made of the parts."""

    def apply(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis."""
        y: Array = self.operator._rmatvec(x, xp) if self.is_adjoint else self.operator._matvec(x, xp)
        return y

    def transpose(self) -> ByParts:
        """Return the plan of the transpose."""
        return ByParts(self.operator._conj(), not self.is_adjoint)

    def conj(self) -> ByParts:
        """Return the plan of the complex conjugate."""
        return ByParts(self.operator._conj(), self.is_adjoint)

    def adjoint(self) -> ByParts:
        """Return the plan of the conjugate transpose."""
        return ByParts(self.operator, not self.is_adjoint)


class ChunkedPlan(Plan):
    """A plan that takes real vectors or complex ones, and those of NumPy chunk by chunk."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def shape(self) -> tuple[int, int]:
            """Rows and columns."""

        @property
        def is_real(self) -> bool:
            """Whether it takes real vectors, or complex ones."""

    @property
    @abstractmethod
    def is_stack(self) -> bool:
        """Whether its parameters have batch axes."""

    @property
    @abstractmethod
    def width(self) -> int:
        """How many numbers a product moves at a time for one vector."""

    @property
    @abstractmethod
    def cost(self) -> float:
        """How long the convolutions of one product are together."""

    @abstractmethod
    def step(self, dtype: str, *, batched: bool, once: bool = False) -> Step:
        """Return what computes NumPy's chunks of that dtype, of one vector or of a batch, `once` or again and again."""

    @abstractmethod
    def whole(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis, on any library, of vectors of the right kind."""

    def call(self, xp: Namespace, *, batched: bool) -> Callable[[Any], Any]:
        """Return the function that `whole` is for one vector or for a batch, with its look-ups done."""
        return partial(self.whole, xp=xp)

    def chunk_rows(self, dtype: Any) -> int | None:
        """Return how many vectors of that NumPy dtype to give to a step at a time, or None for all."""
        return rows_in_chunk(self.width, dtype.itemsize)

    def apply(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis, of any vectors."""
        if is_complex(x.dtype, xp) == self.is_real:
            if self.is_real:
                return self.apply(xp.real(x), xp) + 1j * self.apply(xp.imag(x), xp)
            x = xp.astype(x, complex_partner(x.dtype, xp))
        if not is_numpy(xp) or self.is_stack:
            return self.whole(x, xp)
        step = self.step(x.dtype.name, batched=x.ndim > 1, once=True)
        if x.ndim == 1:
            y: Array = step(x, None)
            return y
        return in_chunks(step, x, self.shape[0], self.chunk_rows(x.dtype))


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Convolution(ChunkedPlan):
    """The leading corner of a circulant matrix whose size is fast to transform."""

    _core_axes = {"kernel": 1, "spectrum": 1}

    kernel: Any
    """First column of the circulant, or None where only its spectrum is known."""
    spectrum: Any
    """Its half spectrum (`real`) or full spectrum, or None where that is left to the product."""
    length: int
    """Its size."""
    is_real: bool
    settings: Settings
    shape: Any
    """Rows and columns of the corner."""
    flips: tuple[bool, bool] = (False, False)
    """Whether the rows and the columns of the corner are in reverse order, as in a Hankel matrix."""

    @property
    def is_stack(self) -> bool:
        """Whether its parameters have batch axes."""
        return bool((self.spectrum if self.kernel is None else self.kernel).ndim > 1)

    @property
    def width(self) -> int:
        """How many numbers a product moves at a time for one vector."""
        return self.length

    @property
    def cost(self) -> float:
        """How long the convolutions of one product are together."""
        return self.length

    def _transformed(self, xp: Namespace) -> Array:
        s: Any = self.spectrum
        return spectrum(self.kernel, xp, real=self.is_real) if s is None else s

    def chunk_rows(self, dtype: Any) -> int | None:
        """Return how many vectors to give to a step at a time, or None for all."""
        method = method_for(self.settings.engine, dtype.name, self.length, batched=True)
        if method == DUCC_CONVOLUTION and self.kernel is not None and self.shape[1] == self.length:
            return None  # without a copy or a spectrum of the batch, nothing is gained from chunks
        return super(Convolution, self).chunk_rows(dtype)

    def step(self, dtype: str, *, batched: bool, once: bool = False) -> Step:
        """Return what computes NumPy's chunks."""
        length, rows = self.length, self.shape[0]
        convolved = convolver(
            method_for(self.settings.engine, dtype, length, batched=batched, once=once),
            self.kernel,
            lambda: self._transformed(numpy_namespace),
            length,
            real=self.is_real,
        )
        flipped_rows, flipped_cols = self.flips

        def step(x: Any, out: Any) -> Any:
            y = convolved(x[..., ::-1] if flipped_cols else x, None if flipped_rows else out)
            if out is not None and y is out:
                return y
            if rows != length:
                y = y[..., :rows]
            if flipped_rows:
                y = y[..., ::-1]
            if out is None:
                return y if rows == length else y.copy()  # which keeps no memory of the entries cut off
            out[...] = y
            return out

        return step

    def whole(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis."""
        rows, cols = self.flips
        x = xp.flip(x, axis=-1) if cols else x
        product = self._transformed(xp) * spectrum(x, xp, real=self.is_real, n=self.length)
        y = from_spectrum(product, self.length, xp, real=self.is_real)
        y = y if self.shape[0] == self.length else y[..., : self.shape[0]]
        return xp.flip(y, axis=-1) if rows else y

    def call(self, xp: Namespace, *, batched: bool) -> Callable[[Any], Any]:
        """Return the function that `whole` is, with its look-ups done."""
        if any(self.flips):
            return super(Convolution, self).call(xp, batched=batched)
        real, S, length, (rows, cols) = self.is_real, self._transformed(xp), self.length, self.shape
        forward, backward = (xp.fft.rfft, xp.fft.irfft) if real else (xp.fft.fft, xp.fft.ifft)
        dtype = dtype_name(precision_of(S.dtype, xp) if real else S.dtype)
        method = method_for(library_of(xp), dtype, length, batched=batched)
        height = column_length(length) if method in STEPS and is_eager_on_cpu(S, xp) else None
        if height:
            columns = (lambda x: forward(x, height, 0), lambda X: backward(X, height, 0))
            step = FourStep.of(S, length, height, columns, (xp.fft.fft, xp.fft.ifft), xp, real=real)
            if rows == cols == length:
                return step.convolve
            width = cols + -cols % step.cols
            return lambda x: step.convolve(padded(x, width, xp))[:rows]
        if not rows == cols == length:
            return lambda x: backward(S * forward(x, length), length)[..., :rows]
        if real and length % 2:
            return lambda x: backward(S * forward(x), length)
        return lambda x: backward(S * forward(x))

    def _with(self, kernel: Any, spectrum: Any, *, transposed: bool = False) -> Convolution:
        shape, (rows, cols) = self.shape, self.flips
        if transposed:
            shape, (rows, cols) = shape[::-1], (cols, rows)
        return Convolution(kernel, spectrum, self.length, self.is_real, self.settings, shape, (rows, cols))

    def transpose(self) -> Convolution:
        """Return the plan of the transpose."""
        xp = self._own_namespace()
        kernel = None if self.kernel is None else reversed_cyclically(self.kernel, xp)
        s = self.spectrum
        if s is not None:
            s = xp.conj(s) if self.is_real else reversed_cyclically(s, xp)
        return self._with(kernel, s, transposed=True)

    def conj(self) -> Convolution:
        """Return the plan of the complex conjugate."""
        if self.is_real:
            return self
        xp = self._own_namespace()
        kernel = None if self.kernel is None else xp.conj(self.kernel)
        s = None if self.spectrum is None else reversed_cyclically(xp.conj(self.spectrum), xp)
        return self._with(kernel, s)


def convolution(
    kernel: Array,
    shape: tuple[int, int],
    settings: Settings,
    xp: Namespace,
    *,
    flips: tuple[bool, bool] = (False, False),
) -> Convolution:
    """Return the plan of the leading corner, `shape`, of the circulant with first column `kernel`."""
    real, length = not is_complex(kernel.dtype, xp), kernel.shape[-1]
    if not is_numpy(xp):  # engines of NumPy alone take the first column itself
        return Convolution(None, spectrum(kernel, xp, real=real), length, real, settings, shape, flips)
    ready = spectrum(kernel, xp, real=real) if settings.ready else None
    return Convolution(kernel, ready, length, real, settings, shape, flips)


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class BlockConvolution(ChunkedPlan):
    """The product of a grid of circulants by its matrices per frequency, laid out as they are read."""

    _core_axes = {"spectrum": 3}

    spectrum: Any
    """The transposed matrices, shape ``(..., frequencies, q, p)``."""
    block_size: int
    length: int
    """The length of transforms, longer than `block_size` where that is not fast."""
    is_real: bool
    settings: Settings
    shape: Any
    """Rows and columns."""

    @property
    def is_stack(self) -> bool:
        """Whether its parameters have batch axes."""
        return self.spectrum.ndim > 3

    @property
    def width(self) -> int:
        """How many numbers a product moves at a time for one vector."""
        return int(max(self.spectrum.shape[-2:])) * self.length

    def chunk_rows(self, dtype: Any) -> int | None:
        """Return how many vectors to give to a step at a time: half of others', as it moves all blocks as well."""
        return rows_in_chunk(2 * self.width, dtype.itemsize)

    @property
    def cost(self) -> float:
        """How long the convolutions of one product are together.

        Measured: transforms cost half as much again as those of a circulant, and the complex products per frequency as
        much as a dense product of 2 b + 4 times as many entries as there are blocks.
        """
        q, p = self.spectrum.shape[-2:]
        rows, cols = self.shape
        gained = rows * cols - (2 * self.block_size + 4) * p * q
        return rows * cols * 0.75 * (p + q) * self.length / gained if gained > 0 else inf

    def step(self, dtype: str, *, batched: bool, once: bool = False) -> Step:
        """Return what computes NumPy's chunks."""
        method = method_for(self.settings.engine, dtype, self.length, batched=batched)
        method = PLAIN.get(method, method)
        forward, backward = transforms(method, self.length, real=self.is_real, axis=0)
        (q, p), b = self.spectrum.shape[-2:], self.block_size

        def step(x: Any, out: Any) -> Any:
            wide: Any = padded(x.reshape(-1, x.shape[-1]), q * b, numpy_namespace)
            blocks = wide.reshape(-1, q, b)
            # (frequencies, vectors, q) times (frequencies, q, p): contiguous matrix products
            y = backward(np.matmul(forward(blocks.transpose(2, 0, 1)), self.spectrum))
            y = y[:b].transpose(1, 2, 0).reshape(*x.shape[:-1], p * b)[..., : self.shape[0]]
            return handed_over(y, out)

        return step

    def whole(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis."""
        y = by_frequency(
            lambda X: xp.matmul(X, self.spectrum),
            x,
            self.block_size,
            self.length,
            xp,
            real=self.is_real,
            stack=self.is_stack,
        )
        return y[..., : self.shape[0]]

    def _with(self, spectrum: Array, shape: Any) -> BlockConvolution:
        return BlockConvolution(spectrum, self.block_size, self.length, self.is_real, self.settings, shape)

    def transpose(self) -> BlockConvolution:
        """Return the plan of the transpose."""
        xp = self._own_namespace()
        S = contiguous(xp.matrix_transpose(self.spectrum), xp)
        return self._with(xp.conj(S) if self.is_real else _mirrored(S, xp), self.shape[::-1])

    def conj(self) -> BlockConvolution:
        """Return the plan of the complex conjugate."""
        xp = self._own_namespace()
        return self if self.is_real else self._with(_mirrored(xp.conj(self.spectrum), xp), self.shape)


def _mirrored(S: Array, xp: Namespace) -> Array:
    """Return the matrices at the negative frequencies."""
    return moved(reversed_cyclically(moved(S, -3, -1, xp), xp), -1, -3, xp)


def by_frequency(
    product: Callable[[Array], Array], x: Array, b: int, length: int, xp: Namespace, *, real: bool, stack: bool
) -> Array:
    """Return the blocks of `x` with `product` applied at every frequency to the rows of a matrix, all as one vector.

    The rows are the vectors of the batch; for a `stack` of operators there is one row for each.
    """
    q = -(-x.shape[-1] // b)
    x = padded(x, q * b, xp)
    X = spectrum(xp.reshape(x, (*x.shape[:-1], q, b)), xp, real=real, n=length)
    batch = X.shape[:-2]
    if stack:
        Y = product(moved(X, -1, -2, xp)[..., None, :])[..., 0, :]
        Y = moved(Y, -2, -1, xp)
    else:
        X = xp.reshape(X, (prod(batch), *X.shape[-2:]))
        Y = xp.permute_dims(product(xp.permute_dims(X, (2, 0, 1))), (1, 2, 0))
        Y = xp.reshape(Y, (*batch, *Y.shape[-2:]))
    y = from_spectrum(Y, length, xp, real=real)
    y = y if length == b else y[..., :b]
    return xp.reshape(y, (*y.shape[:-2], y.shape[-2] * b))


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Bezoutian(ChunkedPlan):
    """The sum of two products, each of a lower and an upper triangular Toeplitz matrix, by their spectra."""

    _core_axes = {"lower_x": 1, "upper_x": 1, "lower_y": 1, "upper_y": 1}

    lower_x: Any
    upper_x: Any
    """Half spectra (`real`) or full spectra of the first product."""
    lower_y: Any
    upper_y: Any
    """Those of the second one."""
    n: int
    length: int
    """The length of transforms, at least 2 n - 1."""
    is_real: bool
    settings: Settings
    flips: tuple[bool, bool]
    """Whether the rows and the columns are in reverse order."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.n, self.n)

    @property
    def is_stack(self) -> bool:
        """Whether its parameters have batch axes."""
        return bool(self.lower_x.ndim > 1 or self.lower_y.ndim > 1)

    @property
    def width(self) -> int:
        """How many numbers a product moves at a time for one vector."""
        return self.length

    @property
    def cost(self) -> float:
        """How long the convolutions of one product are together: six transforms, where a convolution has two."""
        return 3.0 * self.length

    def step(self, dtype: str, *, batched: bool, once: bool = False) -> Step:
        """Return what computes NumPy's chunks."""
        method = method_for(self.settings.engine, dtype, self.length, batched=batched)
        forward, backward = transforms(PLAIN.get(method, method), self.length, real=self.is_real)
        flipped_rows, flipped_cols = self.flips

        def step(x: Any, out: Any) -> Any:
            X = forward(x[..., ::-1] if flipped_cols else x)
            total = forward(backward(X * self.upper_x)[..., : self.n])
            total *= self.lower_x
            X *= self.upper_y
            X = forward(backward(X)[..., : self.n])
            X *= self.lower_y
            total += X
            y = backward(total)[..., : self.n]
            y = y[..., ::-1] if flipped_rows else y
            if out is None:
                return y.copy()  # which keeps no memory of the entries cut off
            out[...] = y
            return out

        return step

    def whole(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis."""
        rows, cols = self.flips
        X = spectrum(xp.flip(x, axis=-1) if cols else x, xp, real=self.is_real, n=self.length)
        y = from_spectrum(
            self.lower_x * self._cut(self.upper_x * X, xp) + self.lower_y * self._cut(self.upper_y * X, xp),
            self.length,
            xp,
            real=self.is_real,
        )[..., : self.n]
        return xp.flip(y, axis=-1) if rows else y

    def _cut(self, product: Array, xp: Namespace) -> Array:
        """Return the spectrum of the first n entries."""
        head = from_spectrum(product, self.length, xp, real=self.is_real)[..., : self.n]
        return spectrum(head, xp, real=self.is_real, n=self.length)

    def transpose(self) -> Bezoutian:
        """Return the plan of the transpose: the matrix itself with rows and columns in reverse order."""
        rows, cols = self.flips
        return self._with(self._spectra(), (not cols, not rows))

    def conj(self) -> Bezoutian:
        """Return the plan of the complex conjugate."""
        if self.is_real:
            return self
        xp = self._own_namespace()
        return self._with([reversed_cyclically(xp.conj(s), xp) for s in self._spectra()], self.flips)

    def _spectra(self) -> list[Any]:
        return [self.lower_x, self.upper_x, self.lower_y, self.upper_y]

    def _with(self, spectra: list[Any], flips: tuple[bool, bool]) -> Bezoutian:
        a, b, c, d = spectra
        return Bezoutian(a, b, c, d, self.n, self.length, self.is_real, self.settings, flips)


def bezoutian(x: Array, y: Array, settings: Settings, xp: Namespace, *, flips: tuple[bool, bool]) -> Bezoutian:
    """Return the plan of the matrix ``L(x) U(1, -y[n-1], ..., -y[1]) + L(y) U(0, x[n-1], ..., x[1])``.

    L and U are the lower and upper triangular Toeplitz matrices with that first column and first row.
    """
    n, real = x.shape[-1], not is_complex(x.dtype, xp)
    length = fast_length(2 * n - 1)

    def upper(first: float, tail: Array) -> Array:
        """Return the first column of the circulant that has U in its corner."""
        one = xp.full(1, first, dtype=tail.dtype, device=device_of(tail))
        gap = xp.zeros(length - n, dtype=tail.dtype, device=device_of(tail))
        return concat_last([one, gap, tail], xp)

    vectors = (x, upper(1.0, -y[..., 1:]), y, upper(0.0, x[..., 1:]))
    a, b, c, d = (spectrum(v, xp, real=real, n=length) for v in vectors)
    return Bezoutian(a, b, c, d, n, length, real, settings, flips)


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class ShiftAndAdd(ChunkedPlan):
    """The product of a circulant matrix of few diagonals: the sum of ``entries[k] * x`` shifted by ``start + k``."""

    _core_axes = {"entries": 1}

    entries: Any
    n: int
    start: int
    is_real: bool

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.n, self.n)

    @property
    def is_stack(self) -> bool:
        """Whether its parameters have batch axes."""
        return bool(self.entries.ndim > 1)

    @property
    def width(self) -> int:
        """How many numbers a product moves at a time for one vector."""
        return self.n

    @property
    def cost(self) -> float:
        """How long the convolutions of one product are together: none is made."""
        return 1.0

    def step(self, dtype: str, *, batched: bool, once: bool = False) -> Step:
        """Return what computes NumPy's chunks."""
        n, shifts = self.n, [(self.start + k) % self.n for k in range(len(self.entries))]
        first = shifts.index(0) if 0 in shifts else 0
        main = self.entries[first]
        others = [
            (entry, shift) for k, (entry, shift) in enumerate(zip(self.entries, shifts, strict=True)) if k != first
        ]

        def step(x: Any, out: Any) -> Any:
            y = np.multiply(x, main, out=out)
            if shifts[first]:
                y[...] = np.roll(y, shifts[first], axis=-1)
            for entry, shift in others:
                shifted = x * entry
                y[..., shift:] += shifted[..., : n - shift]
                if shift:
                    y[..., :shift] += shifted[..., n - shift :]
            return y

        return step

    def whole(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis."""
        product: Array = self.entries[..., :1] * xp.roll(x, self.start, axis=-1)
        for k in range(1, self.entries.shape[-1]):
            product = product + self.entries[..., k : k + 1] * xp.roll(x, self.start + k, axis=-1)
        return product

    def transpose(self) -> ShiftAndAdd:
        """Return the plan of the transpose."""
        entries = self._own_namespace().flip(self.entries, axis=-1)
        return ShiftAndAdd(entries, self.n, 1 - self.start - self.entries.shape[-1], self.is_real)

    def conj(self) -> ShiftAndAdd:
        """Return the plan of the complex conjugate."""
        if self.is_real:
            return self
        return ShiftAndAdd(self._own_namespace().conj(self.entries), self.n, self.start, self.is_real)


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Scaling(ChunkedPlan):
    """The product of a diagonal matrix."""

    _core_axes = {"d": 1}

    d: Any
    """The diagonal."""
    is_real: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return (self.d.shape[-1], self.d.shape[-1])

    @property
    def is_stack(self) -> bool:
        """Whether its parameters have batch axes."""
        return bool(self.d.ndim > 1)

    @property
    def width(self) -> int:
        """How many numbers a product moves at a time for one vector."""
        return int(self.d.shape[-1])

    @property
    def cost(self) -> float:
        """How long the convolutions of one product are together: almost nothing."""
        return 1.0

    def step(self, dtype: str, *, batched: bool, once: bool = False) -> Step:
        """Return what computes NumPy's chunks."""
        return lambda x, out: np.multiply(x, self.d, out=out)

    def whole(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis."""
        product: Array = self.d * x
        return product

    def transpose(self) -> Scaling:
        """Return itself."""
        return self

    def conj(self) -> Scaling:
        """Return the plan of the complex conjugate."""
        return self if self.is_real else Scaling(self._own_namespace().conj(self.d), self.is_real)


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Composition(ChunkedPlan):
    """A product of plans, left to right, all of them real or all complex."""

    _core_axes = {"parts": None}

    parts: tuple[ChunkedPlan, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows of the first part and columns of the last."""
        return (self.parts[0].shape[0], self.parts[-1].shape[1])

    @property
    def is_real(self) -> bool:
        """Whether it takes real vectors."""
        return self.parts[0].is_real

    @property
    def is_stack(self) -> bool:
        """Whether its parameters have batch axes."""
        return any(part.is_stack for part in self.parts)

    @property
    def width(self) -> int:
        """How many numbers a product moves at a time for one vector."""
        return max(part.width for part in self.parts)

    @property
    def cost(self) -> float:
        """How long the convolutions of one product are together."""
        return sum(part.cost for part in self.parts)

    def step(self, dtype: str, *, batched: bool, once: bool = False) -> Step:
        """Return what computes NumPy's chunks: scalings work in place where that is scratch of our own."""
        steps: list[Any] = [
            part.d if isinstance(part, Scaling) else part.step(dtype, batched=batched, once=once)
            for part in reversed(self.parts)
        ]
        end = len(steps) - 1

        def step(x: Any, out: Any) -> Any:
            y = x
            for i, part in enumerate(steps):
                target = out if i == end else None
                if callable(part):
                    y = part(y, target)
                else:
                    y = np.multiply(y, part, out=y if target is None and y is not x else target)
            return y

        return step

    def whole(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis."""
        return reduce(lambda y, part: part.whole(y, xp), reversed(self.parts), x)

    def call(self, xp: Namespace, *, batched: bool) -> Callable[[Any], Any]:
        """Return the function that `whole` is, with its look-ups done."""
        calls = [part.call(xp, batched=batched) for part in reversed(self.parts)]

        def call(x: Any) -> Any:
            for part in calls:
                x = part(x)
            return x

        return call

    def transpose(self) -> Composition:
        """Return the plan of the transpose."""
        return Composition(tuple(part.transpose() for part in reversed(self.parts)))

    def conj(self) -> Composition:
        """Return the plan of the complex conjugate."""
        return self if self.is_real else Composition(tuple(part.conj() for part in self.parts))


class Products(NamedTuple):
    """Products of arrays of one type and dtype, without checks."""

    kind: Any
    dtype: DType
    vector: tuple[int]
    """The shape of one vector."""
    one: Step
    batched: Step

    def choose(self, x: Any) -> Step | None:
        """Return the product for `x`, or None where it needs checks first."""
        if type(x) is not self.kind or x.dtype != self.dtype:
            return None
        shape = x.shape
        return self.one if shape == self.vector else self.batched if shape[-1:] == self.vector else None

    def takes(self, x: Array) -> bool:
        """Tell whether they are for arrays such as `x`, of the right length."""
        return isinstance(x, self.kind) and bool(x.dtype == self.dtype)

    def __call__(self, x: Array) -> Array:
        product: Array = (self.one if x.ndim == 1 else self.batched)(x, None)
        return product


def products_of(plan: Plan, matrix: Any, direct: int) -> Products | None:
    """Return the products by a plan of NumPy or torch arrays, or for few vectors by a dense matrix; None for others."""
    if not isinstance(plan, ChunkedPlan) or plan.is_stack:
        return None
    xp = plan._own_namespace()
    if library_of(xp) not in {"numpy", "torch"}:  # others trace their arrays in types of their own
        return None
    dtype = common_dtype(xp, *(array.dtype for array in plan._arrays()))
    dtype = precision_of(dtype, xp) if plan.is_real else dtype
    make = _numpy_products if is_numpy(xp) else _torch_products
    return Products(type(xp.zeros(0)), dtype, (plan.shape[1],), *make(plan, matrix, direct, dtype))


def _numpy_products(plan: ChunkedPlan, matrix: Any, direct: int, dtype: Any) -> tuple[Step, Step]:
    """Return the product of one vector and that of a batch."""
    rows, cols = plan.shape
    dtype = np.dtype(dtype)
    batch, size = plan.step(dtype.name, batched=True), plan.chunk_rows(dtype)
    if not direct:
        return plan.step(dtype.name, batched=False), lambda x, out: in_chunks(batch, x, rows, size, out)

    def product(x: Any, out: Any) -> Any:
        if x.size > direct * cols:
            return in_chunks(batch, x, rows, size, out)
        flat = None if out is None else out.reshape(-1, rows)
        return np.matmul(x.reshape(-1, cols), matrix.T, flat).reshape(*x.shape[:-1], rows)

    return lambda x, out: np.dot(matrix, x, out), product


def _torch_products(plan: ChunkedPlan, matrix: Any, direct: int, dtype: Any) -> tuple[Step, Step]:
    """Return the product of one vector and that of a batch."""
    xp, (rows, cols) = plan._own_namespace(), plan.shape
    one, many = plan.call(xp, batched=False), plan.call(xp, batched=True)
    transposed: Any = None if matrix is None else matrix.mT
    tensors: list[Any] = plan._arrays()
    learned = any(tensor.requires_grad for tensor in tensors)
    kind, few = type(xp.zeros(0)), TORCH_LARGE // (cols * dtype.itemsize)
    size = max(64 // dtype.itemsize, TORCH_CHUNK // (plan.width * dtype.itemsize))

    def product(x: Any, out: Any) -> Any:  # noqa: ARG001
        count = x.numel() // cols
        if count <= direct or count == 0:
            if not direct:
                return plan.whole(x, xp)  # which can do with no vectors at all
            y = x @ transposed
            return y if y.dtype is dtype else matmul(x, transposed, xp)  # lowered by autocast
        traced = xp.is_grad_enabled() and (learned or x.requires_grad)
        if count <= few or traced or type(x) is not kind or not is_eager_on_cpu(x, xp):
            return many(x)
        parts = x.reshape(count, cols).split(size)
        first = many(parts[0])
        y = first.new_empty((count, rows))  # under vmap a batch of its own, where either factor is one
        y[:size] = first
        for start, part in enumerate(parts[1:], 1):
            y[start * size : (start + 1) * size] = many(part)
        return y.reshape(*x.shape[:-1], rows)

    def dense(x: Any, out: Any) -> Any:  # noqa: ARG001
        y = matrix @ x
        return y if y.dtype is dtype else matmul(matrix, x, xp)  # lowered by autocast

    return dense if direct else (lambda x, out: one(x)), product  # noqa: ARG005
