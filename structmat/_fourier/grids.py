"""Spectra of vectors whose entries are the points of a grid, along all of its axes."""

from __future__ import annotations

from math import prod

from structmat._arrays.libraries import device_of
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.spectra import as_complex, from_spectrum, full_spectrum, no_transforms, spectrum, transforms_of


def last_axes(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes of a grid of these sizes: the last ones of an array, as negative numbers."""
    return tuple(range(-len(sizes), 0))


def half_of_grid(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the sizes of the half spectrum on a grid."""
    return (*sizes[:-1], sizes[-1] // 2 + 1)


def as_grid(x: Array, sizes: tuple[int, ...], xp: Namespace) -> Array:
    """Return vectors (..., N) as arrays on a grid."""
    return xp.reshape(x, (*x.shape[:-1], *sizes))


def from_grid(x: Array, sizes: tuple[int, ...], xp: Namespace) -> Array:
    """Return arrays on a grid, of as many axes as there are `sizes`, as vectors (..., N)."""
    cut = x.ndim - len(sizes)
    return xp.reshape(x, (*x.shape[:cut], prod(x.shape[cut:])))


def multilevel_fft(
    x: Array,
    sizes: tuple[int, ...],
    xp: Namespace,
    *,
    real: bool,
    n: tuple[int, ...] | None = None,
    norm: str = "backward",
) -> Array:
    """Return the transform of vectors (..., N) over the axes of their grids of these `sizes`.

    If `real`, it is the half spectrum, with half of the frequencies along the last axis. Zeros are appended along each
    axis up to the sizes `n`.
    """
    n = sizes if n is None else n
    if len(n) == 1 and norm == "backward":
        return spectrum(x, xp, real=real, n=n[0])
    if 0 in x.shape:
        return no_transforms(x, (*x.shape[:-1], prod(half_of_grid(n) if real else n)), xp, real=False)
    transform = transforms_of(xp).rfftn if real else transforms_of(xp).fftn
    x = as_grid(x if real else as_complex(x, xp), sizes, xp)
    return from_grid(transform(x, s=n, axes=last_axes(sizes), norm=norm), sizes, xp)


def multilevel_ifft(s: Array, n: tuple[int, ...], xp: Namespace, *, real: bool, norm: str = "backward") -> Array:
    """Return the vectors (..., N) on a grid of sizes `n` whose half spectrum (`real`) or full spectrum is `s`."""
    if len(n) == 1 and norm == "backward":
        return from_spectrum(as_complex(s, xp), n[0], xp, real=real)
    if 0 in s.shape:
        return no_transforms(s, (*s.shape[:-1], prod(n)), xp, real=real)
    transform = transforms_of(xp).irfftn if real else transforms_of(xp).ifftn
    s = as_grid(as_complex(s, xp), half_of_grid(n) if real else n, xp)
    return from_grid(transform(s, s=n, axes=last_axes(n), norm=norm), n, xp)


def reversed_levels(x: Array, sizes: tuple[int, ...], xp: Namespace) -> Array:
    """Return y with ``y[k] = x[-k]``, indices modulo the size along every axis of the grid."""
    axes = last_axes(sizes)
    return from_grid(xp.roll(xp.flip(as_grid(x, sizes, xp), axis=axes), (1,) * len(axes), axis=axes), sizes, xp)


def mirrored_levels(half: Array, sizes: tuple[int, ...], xp: Namespace) -> Array:
    """Return the full spectra of real vectors on grids from the half ones."""
    missing = slice(1, (sizes[-1] + 1) // 2)
    if len(sizes) == 1:
        return full_spectrum(half, sizes[0], xp)
    if missing.start >= missing.stop:
        return half
    S = as_grid(half, half_of_grid(sizes), xp)
    others = xp.conj(xp.flip(S[..., missing], axis=-1))
    others = with_negative_frequencies(others, last_axes(sizes)[:-1], xp)
    return from_grid(xp.concat([S, others], axis=-1), sizes, xp)


def with_negative_frequencies(S: Array, axes: tuple[int, ...], xp: Namespace) -> Array:
    """Return y with ``y[k] = S[-k]``, indices modulo the size along these axes of an array on a grid."""
    for axis in axes:
        n = S.shape[axis]
        S = xp.take(S, -xp.arange(n, device=device_of(S)) % n, axis=axis)
    return S
