"""How products are computed: plans, and the circular convolution by which circulant and Toeplitz matrices do it.

A `Plan` is an operator that is all computation: it is made for one product, or kept by a prepared operator.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from array_api_compat import numpy as numpy_namespace

from structmat._arrays.arrays import (
    complex_partner,
    dtype_name,
    is_complex,
    is_eager_on_cpu,
    is_numpy,
    library_of,
    padded,
    precision_of,
    reversed_cyclically,
)
from structmat._arrays.typing import Array, Namespace
from structmat._engine import (
    DUCC_CONVOLUTION,
    STEPS,
    FourStep,
    Settings,
    column_length,
    convolver,
    from_spectrum,
    in_chunks,
    method_for,
    rows_in_chunk,
    spectrum,
)
from structmat.operators._base import LinearOperator

__all__ = ["Convolution", "Plan", "Planned", "Step", "convolution"]

Step: TypeAlias = Callable[[Any, Any], Any]
"""Returns the products of one vector or the rows of a NumPy matrix, in the second argument if given."""


class Plan(LinearOperator):
    """An operator that computes real vectors or complex ones, and NumPy's chunk by chunk."""

    __slots__ = ()

    @property
    @abstractmethod
    def is_real(self) -> bool:
        """Whether it takes real vectors."""

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
    def _step(self, dtype: str, *, many: bool, once: bool = False) -> Step:
        """Return the function that computes NumPy's chunks of that dtype, one vector or `many`, `once` or again."""

    def _together(self, dtype: Any) -> int | None:
        """Return how many vectors of that NumPy dtype a step for many is to be given at a time, or None for all."""
        return rows_in_chunk(self.width, dtype.itemsize)

    @abstractmethod
    def _whole(self, x: Array, xp: Namespace) -> Array:
        """Product along the last axis, on any library."""

    def _call(self, xp: Namespace, *, many: bool) -> Callable[[Any], Any]:
        """Return the function that `_whole` is for one vector, or for `many`, with its look-ups done."""
        return lambda x: self._whole(x, xp)

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        if is_complex(x.dtype, xp) == self.is_real:
            if self.is_real:
                return self._matvec(xp.real(x), xp) + 1j * self._matvec(xp.imag(x), xp)
            x = xp.astype(x, complex_partner(x.dtype, xp))
        if self.is_stack or not is_numpy(xp):
            return self._whole(x, xp)
        step = self._step(x.dtype.name, many=x.ndim > 1, once=True)
        if x.ndim == 1:
            y: Array = step(x, None)
            return y
        return in_chunks(step, x, self.shape[0], self._together(x.dtype))


class Planned(LinearOperator):
    """An operator whose products are those of a plan made for each."""

    __slots__ = ()

    @abstractmethod
    def _plan(self, how: Settings, xp: Namespace) -> LinearOperator:
        """Operator that computes the products."""

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        return self._plan(Settings(), xp)._matvec(x, xp)

    def _rmatvec(self, y: Array, xp: Namespace) -> Array:
        return self._plan(Settings(), xp).H._matvec(y, xp)


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Convolution(Plan):
    """The leading corner of a circulant matrix whose size is fast to transform."""

    _core_axes = {"kernel": 1, "spectrum": 1}

    kernel: Any
    """First column of the circulant, or None where only its spectrum is known."""
    spectrum: Any
    """Its half spectrum (`real`) or full spectrum, or None where that is left to the product."""
    length: int
    """Its size."""
    real: bool
    how: Settings
    shape: Any = None
    """Rows and columns of the corner."""
    flips: tuple[bool, bool] = (False, False)
    """Whether the rows and the columns of the corner are in reverse order, as in a Hankel matrix."""

    @property
    def is_real(self) -> bool:
        """Whether it takes real vectors."""
        return self.real

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

    def _leaves(self) -> list[tuple[Array, int]]:
        return [(array, 1) for array in (self.kernel, self.spectrum) if array is not None]

    def _transformed(self, xp: Namespace) -> Array:
        s: Any = self.spectrum
        return spectrum(self.kernel, xp, real=self.real) if s is None else s

    def _together(self, dtype: Any) -> int | None:
        method = method_for(self.how.engine, dtype.name, self.length, many=True)
        if method == DUCC_CONVOLUTION and self.kernel is not None and self.shape[1] == self.length:
            return None  # without a copy or a spectrum of the batch, nothing is gained from chunks
        return super(Convolution, self)._together(dtype)

    def _step(self, dtype: str, *, many: bool, once: bool = False) -> Step:
        length, rows = self.length, self.shape[0]
        convolved = convolver(
            method_for(self.how.engine, dtype, length, many=many, once=once),
            self.kernel,
            lambda: self._transformed(numpy_namespace),
            length,
            self.how.threads_inside(many=many),
            real=self.real,
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

    def _whole(self, x: Array, xp: Namespace) -> Array:
        rows, cols = self.flips
        x = xp.flip(x, axis=-1) if cols else x
        product = self._transformed(xp) * spectrum(x, xp, real=self.real, n=self.length)
        y = from_spectrum(product, self.length, xp, real=self.real)
        y = y if self.shape[0] == self.length else y[..., : self.shape[0]]
        return xp.flip(y, axis=-1) if rows else y

    def _call(self, xp: Namespace, *, many: bool) -> Callable[[Any], Any]:
        if any(self.flips):
            return super(Convolution, self)._call(xp, many=many)
        real, S, length, (rows, cols) = self.real, self._transformed(xp), self.length, self.shape
        forward, backward = (xp.fft.rfft, xp.fft.irfft) if real else (xp.fft.fft, xp.fft.ifft)
        dtype = dtype_name(precision_of(S.dtype, xp) if real else S.dtype)
        method = method_for(library_of(xp), dtype, length, many=many)
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
        return Convolution(kernel, spectrum, self.length, self.real, self.how, shape, (rows, cols))

    def _transpose(self) -> Convolution:
        xp = self._own_namespace()
        kernel = None if self.kernel is None else reversed_cyclically(self.kernel, xp)
        s = self.spectrum
        if s is not None:
            s = xp.conj(s) if self.real else reversed_cyclically(s, xp)
        return self._with(kernel, s, transposed=True)

    def _conj(self) -> Convolution:
        if self.real:
            return self
        xp = self._own_namespace()
        kernel = None if self.kernel is None else xp.conj(self.kernel)
        s = None if self.spectrum is None else reversed_cyclically(xp.conj(self.spectrum), xp)
        return self._with(kernel, s)


def convolution(
    kernel: Array, shape: tuple[int, int], how: Settings, xp: Namespace, *, flips: tuple[bool, bool] = (False, False)
) -> Convolution:
    """Return the plan of the leading corner, `shape`, of the circulant with first column `kernel`."""
    real, length = not is_complex(kernel.dtype, xp), kernel.shape[-1]
    if not is_numpy(xp):  # engines of NumPy alone take the first column itself
        return Convolution(None, spectrum(kernel, xp, real=real), length, real, how, shape, flips)
    return Convolution(kernel, spectrum(kernel, xp, real=real) if how.ready else None, length, real, how, shape, flips)
