"""Circular convolutions, by which circulant, Toeplitz and Hankel matrices are multiplied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from array_api_compat import numpy as numpy_namespace

from structmat._arrays import (
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
from structmat._engine.engines import Settings, method_for
from structmat._engine.four_step import FourStep, column_length
from structmat._engine.measured_choices import DUCC_CONVOLUTION, STEPS
from structmat._engine.numpy_convolutions import convolver
from structmat._engine.plan import ChunkedPlan, Step
from structmat._engine.transforms import from_spectrum, spectrum

__all__ = ["Convolution", "convolution"]


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
