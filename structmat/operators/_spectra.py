"""Arithmetic on the entries and the spectra of circulant matrices, on arrays."""

from __future__ import annotations

from structmat._arrays import device_of
from structmat._arrays.typing import Array, Namespace
from structmat._engine import full_spectrum
from structmat.operators._base import Context

__all__ = ["circulant_entries", "cyclic_diagonals", "factors_of_half", "is_unpaired", "ready_for_roots"]


def circulant_entries(c: Array, like: Context) -> Array:
    """Return dense circulants with first columns `c`."""
    xp, n = like.xp, c.shape[-1]
    i = xp.arange(n, device=like.device)
    index = xp.reshape((i[:, None] - i[None, :]) % n, (n * n,))
    return xp.reshape(xp.take(c, index, axis=-1), (*c.shape, n))


def cyclic_diagonals(A: Array, xp: Namespace) -> Array:
    """Return V with ``V[..., i, k] = A[..., i, (i - k) % n]``: the cyclic diagonals of square matrices as columns."""
    n = A.shape[-1]
    i = xp.arange(n, device=device_of(A))
    index = xp.reshape(n * i[:, None] + (i[:, None] - i[None, :]) % n, (n * n,))
    return xp.reshape(xp.take(xp.reshape(A, (*A.shape[:-2], n * n)), index, axis=-1), A.shape)


def is_unpaired(half: Array, n: int, xp: Namespace) -> Array:
    """Tell which frequencies of a half spectrum have no conjugate partner, so that their eigenvalues are real."""
    k = xp.arange(half.shape[-1], device=device_of(half))
    return (k == 0) | (2 * k == n)


def factors_of_half(half: Array, n: int, xp: Namespace) -> Array:
    """Return real numbers with the product of all n eigenvalues of a real matrix, from its half spectrum."""
    single = xp.real(half[..., :: max(1, n // 2)] if n % 2 == 0 else half[..., :1])
    return xp.concat([single, xp.abs(half[..., 1 : (n + 1) // 2]) ** 2], axis=-1)


def ready_for_roots(half: Array, n: int, rounding: float, xp: Namespace) -> tuple[Array, bool]:
    """Return a spectrum for functions that want no negative eigenvalues, and whether it is still a half one.

    Where an eigenvalue is real it must not be negative, but may be so by `rounding` times the largest: then it counts
    as zero. Else the matrix has no real function of that kind, and all eigenvalues are returned.
    """
    alone = is_unpaired(half, n, xp)
    least = rounding * xp.max(xp.abs(half), axis=-1, keepdims=True)
    if bool(xp.any(alone & (xp.real(half) < -least))):
        return full_spectrum(half, n, xp), False
    clipped = xp.astype(xp.where(xp.real(half) > 0, xp.real(half), 0 * least), half.dtype)
    return xp.where(alone, clipped, half), True
