"""Samples of stationary Gaussian processes on a line or a grid, exact and in O(N log N), by circulant embedding.

The covariance matrix of such a process is a Toeplitz matrix (of several levels on a grid), a corner of a larger
circulant one. Where that has no negative eigenvalue, its square root times white noise, cropped, is a sample. Where all
have some, which is common on small grids, the square root of the covariance matrix itself is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from math import frexp, log2, prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from structmat._arguments import as_floating, integer, random_generator
from structmat._arguments import grid as checked_grid
from structmat._array_tools import (
    ArgumentTypeError,
    ArgumentValueError,
    Array,
    ArrayLike,
    Namespace,
    device_of,
    in_precision,
    is_complex,
    namespace_of,
    precision_of,
)
from structmat._fourier import fast_length, multilevel_fft
from structmat.operators import MultilevelCirculant, MultilevelToeplitz

__all__ = ["sample_stationary"]

_Covariance: TypeAlias = "Callable[..., ArrayLike] | ArrayLike"
"""A function of the distances along every axis, or its values at the distances 0, 1, 2, ... on a grid."""

# A negative eigenvalue of this size, in units of eps * log2(N) times the largest, is rounding.
_ROUNDING = 16.0
# Each padding is this much longer than the one before, up to this multiple of the side.
_GROWTH, _LARGEST = 1.25, 16
# Up to so many points the covariance matrix may be written out.
_WRITTEN_OUT = 1024
# Complex numbers that are transformed together.
_CHUNK = 2**18


def sample_stationary(
    covariance: _Covariance,
    shape: int | tuple[int, ...] | None = None,
    n_samples: int = 1,
    *,
    rng: np.random.Generator | int | None = None,
) -> Array:
    """Return samples of a stationary Gaussian process with mean zero on a line or a grid.

    Parameters
    ----------
    covariance : callable or array, shape (n_1, ..., n_d)
        The covariance of two points by their distance along every axis, in steps of the grid. It must be even in each
        distance. A function takes d arrays of distances that broadcast against each other, and returns an array; it is
        evaluated at distances beyond the grid if necessary. An array holds the values at the distances 0, 1, ... along
        each axis.
    shape : int or tuple of int, optional
        The grid. By default that of the array; a function needs it.
    n_samples : int, default 1
        How many samples.
    rng : numpy.random.Generator or int, optional
        The source of random numbers.

    Returns
    -------
    array, shape (n_samples, n_1, ..., n_d)
        Independent samples, of the library and device of the covariance, and of its dtype, but float32 for half
        precision and the default floating dtype for integers.

    Raises
    ------
    ValueError
        If the covariance matrix has negative eigenvalues, so that it is none. On more than 1,024 points, if the
        embedding has some: for an array at once, for a function after it was padded to sixteen times the grid along
        every axis. Then it may also be that the range is far beyond the grid. Also if a value is not finite, or `shape`
        does not fit.
    TypeError
        If the covariance is complex, or an argument is of the wrong kind.

    See Also
    --------
    structmat.MultilevelToeplitz : The covariance matrix on a grid.
    structmat.Toeplitz : That on a line, whose `solve` and `slogdet` give likelihoods.
    structmat.MultilevelCirculant : The matrix in which it is embedded.

    Notes
    -----
    The values at distances ``0, ..., m, m - 1, ..., 1`` along every axis are the first column of a circulant matrix of
    ``2 m`` rows a level, with eigenvalues ``s``. Real and imaginary part of ``fftn(sqrt(s / N) * z)``, with N complex
    standard normal numbers z, are two independent vectors with that matrix for covariance, and so are their parts on
    the grid [1]_ [2]_. The smallest embedding has ``m = n - 1``; for a function it is enlarged, a quarter at a time,
    until no eigenvalue is negative. The samples are exact then, up to rounding. Two samples cost one transform. If that
    fails on up to 1,024 points, the eigenvectors of the covariance matrix take the place of the transform.

    References
    ----------
    .. [1] Dietrich, C. R., Newsam, G. N., Fast and exact simulation of stationary Gaussian processes through circulant
       embedding of the covariance matrix, SIAM J. Sci. Comput. 18, 1997.
    .. [2] Wood, A. T. A., Chan, G., Simulation of stationary Gaussian processes in [0, 1]^d, J. Comput. Graph. Stat. 3,
       1994.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> path = sm.sampling.sample_stationary(lambda t: np.exp(-t / 10), 1_000, rng=0)
    >>> path.shape
    (1, 1000)
    >>> field = sm.sampling.sample_stationary(lambda s, t: np.exp(-np.hypot(s, t) / 8), (32, 48), 2_000, rng=0)
    >>> bool(abs(np.mean(field[:, 0, 0] * field[:, 3, 4]) - np.exp(-5 / 8)) < 0.1)
    True
    """
    owner = "sample_stationary"
    count = integer(n_samples, owner, "n_samples")
    random = random_generator(rng, owner)
    if callable(covariance):
        if shape is None:
            raise ArgumentValueError(owner, "shape", "must be given for a covariance that is a function")
        grid = _grid(shape, owner)
        values, embedding = _padded(covariance, grid, owner)
    else:
        values = _real(covariance, owner)
        grid = tuple(int(n) for n in values.shape) if shape is None else _grid(shape, owner)
        if not values.ndim or tuple(values.shape) != grid or 0 in grid:
            raise ArgumentValueError(
                owner, "covariance", f"must have the shape of the grid, {grid}, got {tuple(values.shape)}"
            )
        embedding = _embedded(values)
    if embedding is not None:
        return _samples(embedding, grid, count, random)
    if prod(grid) <= _WRITTEN_OUT:
        return _samples_by_eigenvectors(values, count, random, owner)
    text = (
        f"has no circulant embedding of up to {_LARGEST} times the grid without negative eigenvalues: it is no "
        "covariance, or its range is far beyond the grid"
        if callable(covariance)
        else "has no circulant embedding of this size without negative eigenvalues; give a function instead of an "
        "array, which can be evaluated beyond the grid, or values on a larger grid, and crop the samples"
    )
    raise ArgumentValueError(owner, "covariance", text)


def _grid(shape: int | tuple[int, ...], owner: str) -> tuple[int, ...]:
    return checked_grid(shape if isinstance(shape, (tuple, list)) else (shape,), owner, "shape")


def _real(values: ArrayLike, owner: str) -> Array:
    """Return finite real values."""
    array = as_floating(values, owner, "covariance")
    xp = namespace_of(owner, array)
    if is_complex(array.dtype, xp):
        raise ArgumentTypeError(owner, "covariance", f"must be real, got {array.dtype}")
    if not bool(xp.all(xp.isfinite(array))):
        raise ArgumentValueError(owner, "covariance", "must be finite, got NaN or infinity")
    return array


class _Embedding(NamedTuple):
    """A circulant matrix without negative eigenvalues."""

    sizes: tuple[int, ...]
    eigenvalues: Array
    """Those of the matrix divided by `unit` squared, as sums of values may be out of range where samples are not."""
    unit: float
    """A power of two."""


def _padded(covariance: Callable[..., ArrayLike], grid: tuple[int, ...], owner: str) -> tuple[Array, _Embedding | None]:
    """Return the values on the grid, and the smallest embedding tried that has no negative eigenvalue."""
    room = 1.0
    first: Any = None
    while room <= _LARGEST:
        reach = [fast_length(max(1, int(room * (n - 1)))) + 1 if n > 1 else 1 for n in grid]
        lags = np.meshgrid(*(np.arange(float(m)) for m in reach), indexing="ij", sparse=True)
        values = _real(covariance(*lags), owner)
        if tuple(values.shape) != tuple(reach):
            raise ArgumentValueError(
                owner,
                "covariance",
                f"must return an array of shape {tuple(reach)} for such distances, got {tuple(values.shape)}",
            )
        first = values[tuple(slice(n) for n in grid)] if first is None else first
        if (embedding := _embedded(values)) is not None:
            break
        room *= _GROWTH
    return first, embedding


def _embedded(values: Array) -> _Embedding | None:
    """Return the matrix of the values at distances 0 to m and back along every axis."""
    xp = namespace_of("sample_stationary", values)
    unit = _unit(values, xp)
    values = values / unit / unit
    for axis, n in enumerate(values.shape):
        if n > 2:
            back = xp.flip(xp.take(values, xp.arange(1, n - 1, device=device_of(values)), axis=axis), axis=axis)
            values = xp.concat((values, back), axis=axis)
    matrix = MultilevelCirculant.from_kernel(values)
    eigenvalues = xp.real(matrix.eigvals())
    rounding = _ROUNDING * log2(eigenvalues.shape[0] + 1)
    return _Embedding(matrix.sizes, eigenvalues, unit) if _least(eigenvalues, rounding, xp) >= 0.0 else None


def _unit(values: Array, xp: Namespace) -> float:
    """Return the power of two whose square is near the largest value."""
    return 2.0 ** ((frexp(float(xp.max(xp.abs(values))))[1] + 1) // 2)


def _least(eigenvalues: Array, rounding: float, xp: Namespace) -> float:
    """Return the smallest eigenvalue, zero where it is negative by rounding, in units of eps times the largest."""
    least, largest = float(xp.min(eigenvalues)), float(xp.max(xp.abs(eigenvalues)))
    return 0.0 if abs(least) <= rounding * float(xp.finfo(eigenvalues.dtype).eps) * largest else least


def _samples(embedding: _Embedding, grid: tuple[int, ...], count: int, rng: np.random.Generator) -> Array:
    """Return white noise coloured by the square roots of the eigenvalues, two samples from each transform."""
    sizes, eigenvalues, unit = embedding
    xp = namespace_of("sample_stationary", eigenvalues)
    roots = xp.sqrt(xp.where(eigenvalues > 0.0, eigenvalues, xp.zeros_like(eigenvalues)) / prod(sizes))
    corner = (slice(None), *(slice(n) for n in grid))
    parts: tuple[list[Array], list[Array]] = [], []
    left, most = -(-count // 2), max(1, _CHUNK // prod(sizes))
    while left:
        pairs = min(left, most)
        noise = rng.standard_normal((2, pairs, prod(sizes)))
        first, second = (xp.astype(xp.asarray(part, device=device_of(roots)), roots.dtype) for part in noise)
        fields = xp.reshape(multilevel_fft(roots * (first + 1j * second), sizes, xp, real=False), (pairs, *sizes))
        for part, of in zip(parts, (xp.real, xp.imag), strict=True):
            part.append(xp.asarray(of(fields)[corner], copy=True))  # else all of the fields would be kept
        left -= pairs
    return unit * xp.concat((*parts[0], *parts[1]), axis=0)[:count, ...]


def _samples_by_eigenvectors(values: Array, count: int, rng: np.random.Generator, owner: str) -> Array:
    """Return white noise times the square root of the covariance matrix, written out."""
    xp = namespace_of(owner, values)
    values = in_precision(values, precision_of(values.dtype, xp), xp)
    unit = _unit(values, xp)
    eigenvalues, vectors = xp.linalg.eigh(MultilevelToeplitz.from_covariance(values / unit / unit).to_dense())
    if (least := _least(eigenvalues, _ROUNDING * eigenvalues.shape[0], xp)) < 0.0:
        text = f"must have no negative eigenvalue, got {least * unit * unit:.3g} for its matrix on the grid"
        raise ArgumentValueError(owner, "covariance", text)
    roots = xp.sqrt(xp.where(eigenvalues > 0.0, eigenvalues, xp.zeros_like(eigenvalues)))
    noise = xp.asarray(rng.standard_normal((count, prod(values.shape))), device=device_of(roots))
    # The symmetric root: that of the eigenvectors alone would depend on the signs that a library gives them.
    colour = (vectors * roots) @ xp.matrix_transpose(vectors)
    return unit * xp.reshape(xp.astype(noise, roots.dtype) @ colour, (count, *values.shape))
