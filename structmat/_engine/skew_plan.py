"""Convolutions with a minus sign for what wraps around (negacyclic ones), by twisted transforms.

With ``w = exp(-i pi / n)`` the transform of ``w**k x[k]`` turns them into products, as the plain one does with circular
convolutions. Of real vectors half of it is enough: for odd n that of ``(-1)**k x[k]``; for even n that of
``w**k (x[k] - i x[k + n/2])``, which has n/2 values, the first of each conjugate pair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import numpy as numpy_namespace

from structmat._arrays import device_of, precision_of
from structmat._arrays.typing import Array, Namespace
from structmat._engine.plan import ChunkedPlan, Step, handed_over
from structmat._engine.transforms import fft, from_spectrum, ifft, spectrum

__all__ = ["SkewConvolution", "full_skew_spectrum", "skew_fft", "skew_ifft", "skew_twist"]


def skew_twist(n: int, like: Array, xp: Namespace, *, count: int | None = None) -> Array:
    """Return ``exp(-i pi k / n)`` for the first k, all n by default, in the precision of `like`."""
    real = precision_of(like.dtype, xp)
    angles = xp.arange(n if count is None else count, dtype=real, device=device_of(like)) * (-np.pi / n)
    return xp.cos(angles) + 1j * xp.sin(angles)


def _signs(n: int, like: Array, xp: Namespace) -> Array:
    return xp.astype(1 - 2 * (xp.arange(n, device=device_of(like)) % 2), precision_of(like.dtype, xp))


def _twist(n: int, like: Array, xp: Namespace, *, real: bool) -> Array:
    """Return what vectors are multiplied by before the transform."""
    if real and n % 2:
        return _signs(n, like, xp)
    return skew_twist(n, like, xp, count=n // 2 if real else n)


def skew_fft(x: Array, xp: Namespace, *, real: bool, twist: Array | None = None) -> Array:
    """Return the twisted transform of vectors, half of it if `real`."""
    n = x.shape[-1]
    twist = _twist(n, x, xp, real=real) if twist is None else twist
    if real and n % 2:
        return spectrum(x * twist, xp, real=True)
    return fft((x[..., : n // 2] - 1j * x[..., n // 2 :] if real else x) * twist, xp)


def skew_ifft(s: Array, n: int, xp: Namespace, *, real: bool, twist: Array | None = None) -> Array:
    """Return the vectors of length `n` with a given twisted transform, half or full."""
    twist = _twist(n, s, xp, real=real) if twist is None else twist
    if real and n % 2:
        return from_spectrum(s, n, xp, real=True) * twist
    x = ifft(s, xp) * xp.conj(twist)
    return xp.concat([xp.real(x), -xp.imag(x)], axis=-1) if real else x


def full_skew_spectrum(half: Array, n: int, xp: Namespace) -> Array:
    """Return all `n` values of the twisted transform of a real vector from half of them."""
    others = xp.conj(xp.flip(half, axis=-1))
    if n % 2:
        return xp.concat([others[..., :-1], half], axis=-1)
    return xp.reshape(xp.stack([half, others], axis=-1), (*half.shape[:-1], n))


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class SkewConvolution(ChunkedPlan):
    """The product of a skew-circulant matrix, by its twisted spectrum: the half one if it is real."""

    _core_axes = {"spectrum": 1}

    spectrum: Array
    n: int
    is_real: bool

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.n, self.n)

    @property
    def is_stack(self) -> bool:
        """Whether its parameters have batch axes."""
        return bool(self.spectrum.ndim > 1)

    @property
    def width(self) -> int:
        """How many numbers a product moves at a time for one vector."""
        return 2 * self.n

    @property
    def cost(self) -> float:
        """How long the convolutions of one product are together."""
        return float(self.n)

    def step(self, dtype: str, *, batched: bool, once: bool = False) -> Step:
        """Return what computes NumPy's chunks."""
        product = self.call(numpy_namespace, batched=batched)
        return lambda x, out: handed_over(product(x), out)

    def call(self, xp: Namespace, *, batched: bool) -> Callable[[Any], Any]:
        """Return the function that `whole` is, with its look-ups done."""
        twist = _twist(self.n, self.spectrum, xp, real=self.is_real)
        return lambda x: self._product(x, twist, xp)

    def whole(self, x: Array, xp: Namespace) -> Array:
        """Return the product along the last axis."""
        return self._product(x, _twist(self.n, self.spectrum, xp, real=self.is_real), xp)

    def _product(self, x: Array, twist: Array, xp: Namespace) -> Array:
        s = skew_fft(x, xp, real=self.is_real, twist=twist) * self.spectrum
        return skew_ifft(s, self.n, xp, real=self.is_real, twist=twist)

    def transpose(self) -> SkewConvolution:
        """Return the plan of the transpose."""
        xp = self._own_namespace()
        return self._with(xp.conj(self.spectrum) if self.is_real else xp.flip(self.spectrum, axis=-1))

    def conj(self) -> SkewConvolution:
        """Return the plan of the complex conjugate."""
        if self.is_real:
            return self
        xp = self._own_namespace()
        return self._with(xp.flip(xp.conj(self.spectrum), axis=-1))

    def adjoint(self) -> SkewConvolution:
        """Return the plan of the conjugate transpose."""
        return self._with(self._own_namespace().conj(self.spectrum))

    def _with(self, spectrum: Array) -> SkewConvolution:
        return SkewConvolution(spectrum, self.n, self.is_real)
