"""Arithmetic on the entries and the spectra of circulant matrices, on arrays."""

from __future__ import annotations

from structmat._arrays import device_of, is_numpy, negligible, windows
from structmat._arrays.typing import Array, Namespace
from structmat._engine import full_spectrum
from structmat.operators._base import Context

__all__ = ["circulant_entries", "cyclic_diagonals", "factors_of_half", "is_unpaired", "ready_for_roots"]


def circulant_entries(c: Array, like: Context) -> Array:
    """Return dense circulants with first columns `c`: in NumPy a read-only view of two periods."""
    xp, n = like.xp, c.shape[-1]
    if not is_numpy(xp):  # whose arrays know no negative strides: one gather
        i = xp.arange(n, device=like.device)
        index = xp.reshape((i[:, None] - i[None, :]) % n, (n * n,))
        return xp.reshape(xp.take(c, index, axis=-1), (*c.shape, n))
    return windows(xp.concat([c[..., 1:], c], axis=-1)[..., ::-1], n, xp)[..., ::-1, :]


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
    """Return n real numbers with the product of all eigenvalues of a real matrix, from its half spectrum."""
    single = xp.real(half[..., :: max(1, n // 2)] if n % 2 == 0 else half[..., :1])
    paired = xp.abs(half[..., 1 : (n + 1) // 2])
    return xp.concat([single, paired, paired], axis=-1)  # not their squares, which would underflow


def ready_for_roots(half: Array, n: int, rounding: float, xp: Namespace) -> tuple[Array, bool]:
    """Return a spectrum for functions that want no negative eigenvalues, and whether it is still a half one.

    Where an eigenvalue is real it must not be negative, but may be so by `rounding` times the largest: then it counts
    as zero. Else the matrix has no real function of that kind, and all eigenvalues are returned.
    """
    negative = is_unpaired(half, n, xp) & (xp.real(half) < 0)
    if bool(xp.any(negative & ~negligible(half, rounding, xp))):
        return full_spectrum(half, n, xp), False
    return xp.where(negative, xp.zeros_like(half), half), True
