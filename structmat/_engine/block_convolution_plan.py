"""Circular convolutions by blocks: one matrix product per frequency between the transforms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, prod
from typing import Any

import numpy as np
from array_api_compat import numpy as numpy_namespace

from structmat._arrays import contiguous, moved, padded, reversed_cyclically
from structmat._arrays.typing import Array, Namespace
from structmat._engine.engines import Settings, method_for
from structmat._engine.measured_choices import PLAIN
from structmat._engine.numpy_convolutions import transforms
from structmat._engine.plan import ChunkedPlan, Step, handed_over
from structmat._engine.transforms import from_spectrum, spectrum

__all__ = ["BlockConvolution", "by_frequency"]


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
