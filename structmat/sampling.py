"""Samples of stationary Gaussian processes on a line or a grid, exact and in O(N log N), by circulant embedding.

The covariance matrix of such a process is a Toeplitz matrix (of several levels on a grid), a corner of a larger
circulant one. Where that has no negative eigenvalue, its square root times white noise, cropped, is a sample. Where all
have some, which is common on small grids, the square root of the covariance matrix itself is taken, or on longer lines
its Cholesky factor: with several variables it is a block Toeplitz matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from math import frexp, log2, prod
from operator import add
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from structmat._arguments import as_floating, integer, random_generator
from structmat._arguments import grid as checked_grid
from structmat._arrays.conversion import from_numpy, to_numpy
from structmat._arrays.dtypes import in_precision, is_complex, precision_of
from structmat._arrays.libraries import device_of, is_array, namespace, namespace_of
from structmat._arrays.linear_algebra import equals_adjoint
from structmat._arrays.typing import Array, ArrayLike
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._fourier.embedding import fast_length
from structmat._fourier.grids import multilevel_fft
from structmat.linear_systems import solve
from structmat.operators import BlockToeplitz, Diagonal, MultilevelCirculant, MultilevelToeplitz

__all__ = ["conditional_mean", "sample_conditional", "sample_stationary"]

_Covariance: TypeAlias = "Callable[..., ArrayLike] | ArrayLike"
"""A function of the distances or lags along every axis, or its values at the distances 0, 1, 2, ... on a grid."""

_NEGATIVE_BY_ROUNDING = 16.0
"""The largest modulus of a negative eigenvalue that counts as a rounding error of zero.

It is in units of ``eps * log2(N)`` times the largest modulus for eigenvalues that come from transforms of length N, and
in units of ``eps * n`` times it for those of a dense matrix with n rows.
"""

_ASYMMETRY = 1000.0
"""The largest asymmetry of covariances, in units of eps times the largest value, that counts as rounding errors.

It is larger than those of structmat, since it leaves room for the rounding errors of a user's own formula.
"""

_PADDING_GROWTH = 1.25
"""By this factor each padded grid that is tried is longer than the one before."""

_LARGEST_PADDING = 16
"""The longest padded grid that is tried, as a multiple of the grid."""

_MOST_DENSE_ROWS = 1024
"""The largest number of rows of a covariance matrix that is written out."""

_MOST_FACTORED_ROWS = 4096
"""The largest number of rows of a covariance matrix of points on a line that is factored, which takes half a second."""

_CHUNK = 2**18
"""How many complex numbers are transformed together."""


def sample_stationary(
    covariance: _Covariance,
    shape: int | tuple[int, ...] | None = None,
    n_samples: int = 1,
    *,
    n_variables: int | None = None,
    rng: np.random.Generator | int | None = None,
) -> Array:
    """Return samples of a stationary Gaussian process with mean zero on a line or a grid.

    Parameters
    ----------
    covariance : callable or array, shape (n_1, ..., n_d)
        The covariance of two points by their distance along every axis, in steps of the grid. It must be even in each
        distance. A function takes d NumPy arrays of distances that broadcast, and returns an array; it is evaluated at
        distances beyond the grid if necessary. An array holds the values at the distances 0, 1, ... along
        each axis. For `n_variables` see there.
    shape : int or tuple of int, optional
        The grid. By default that of the array; a function needs it.
    n_samples : int, default 1
        How many samples.
    n_variables : int, optional
        The number p of variables at each point, for a process with values in R^p. Then `covariance` must be a function
        of signed lags h, in d arrays that broadcast against each other, which returns an array of shape ``(..., p, p)``
        with ``C[a, b] = cov(X_a(t + h), X_b(t))``; so ``C(-h)`` is the transpose of ``C(h)``. With one variable this is
        the way to give a covariance that is not even in each distance. Default: one variable and distances.
    rng : numpy.random.Generator or int, optional
        The source of random numbers.

    Returns
    -------
    array, shape (n_samples, n_1, ..., n_d) or (n_samples, n_1, ..., n_d, p)
        Independent samples, of the library and device of the covariance, and of its dtype, but float32 for half
        precision and the default floating dtype for integers. The last axis is there where `n_variables` is given.

    Raises
    ------
    ValueError
        If the covariance matrix has negative eigenvalues, so that it is none. On more than 1,024 points, or 1,024 / p
        with p variables, if the embedding has some: for an array at once, for a function after it was padded to sixteen
        times the grid along every axis. Then it may also be that the range is far beyond the grid. On a line of up to
        four times as many points, if the matrix is not positive definite besides. Also if a value is not finite,
        `shape` does not fit, or ``C(-h)`` is not the transpose of ``C(h)``.
    TypeError
        If the covariance is complex, or an array where `n_variables` is given, or an argument is of the wrong kind.

    See Also
    --------
    sample_conditional : Samples given observations.
    structmat.MultilevelToeplitz : The covariance matrix on a grid.
    structmat.Toeplitz : That on a line, whose `solve` and `slogdet` give likelihoods.
    structmat.MultilevelCirculant : The matrix in which it is embedded.

    Notes
    -----
    The values at the lags ``0, ..., m, 1 - m, ..., -1`` along every axis are the first column of a circulant matrix of
    ``2 m`` rows a level, with eigenvalues ``s``. Let z be N complex standard normal numbers, with ``E[z z^T] = 0`` and
    ``E[z z^H] = 2 I``. Then the vector ``x = fftn(sqrt(s / N) * z)`` has ``E[x x^T] = 0`` and ``E[x x^H] = 2 C``, with
    the real matrix C of the circulant. So its real and its imaginary part are two independent vectors with the
    covariance C, and their parts on the grid have the covariance that was asked for [1]_ [2]_. Two samples cost one
    transform.

    For an array ``m = n - 1``. For a function ``m`` is n or a little more at first, and is enlarged by a quarter at a
    time until no eigenvalue is negative. The samples are then exact up to rounding. If no ``m`` serves and there are up
    to 1,024 points, the eigenvectors of the covariance matrix take the place of the transform. On a line of up to 4,096
    points its Cholesky factor does, by `structmat.BlockToeplitz`, if it is positive definite.

    With p variables there is a Hermitian p x p matrix in the place of each eigenvalue, the transform of the blocks. Its
    square root, by `eigh`, takes the place of ``sqrt(s)`` [3]_. Two samples cost p transforms and p^2 N products.

    References
    ----------
    .. [1] Dietrich, C. R., Newsam, G. N., Fast and exact simulation of stationary Gaussian processes through circulant
       embedding of the covariance matrix, SIAM J. Sci. Comput. 18, 1997.
    .. [2] Wood, A. T. A., Chan, G., Simulation of stationary Gaussian processes in [0, 1]^d, J. Comput. Graph. Stat. 3,
       1994.
    .. [3] Chan, G., Wood, A. T. A., Simulation of stationary Gaussian vector fields, Stat. Comput. 9, 1999.

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

    Two variables, of which the second follows the first by three steps:

    >>> def covariance(h):
    ...     c = lambda h: np.exp(-abs(h) / 10)
    ...     return np.stack([c(h), 0.8 * c(h + 3), 0.8 * c(h - 3), c(h)], axis=-1).reshape(*h.shape, 2, 2)
    >>> pairs = sm.sampling.sample_stationary(covariance, 100, 2_000, n_variables=2, rng=0)
    >>> pairs.shape
    (2000, 100, 2)
    >>> bool(abs(np.mean(pairs[:, 50, 0] * pairs[:, 53, 1]) - 0.8) < 0.1)
    True
    """
    owner = "sample_stationary"
    p = None if n_variables is None else integer(n_variables, owner, "n_variables")
    count, random = integer(n_samples, owner, "n_samples"), random_generator(rng, owner)
    samples = _Process.of(covariance, shape, p, owner).samples(count, random)
    return samples[:, 0, ...] if p is None else namespace(samples).moveaxis(samples, 1, -1)


def sample_conditional(
    covariance: _Covariance,
    shape: int | tuple[int, ...] | None,
    observed: ArrayLike,
    values: ArrayLike,
    *,
    noise: ArrayLike = 0.0,
    n_samples: int = 1,
    rng: np.random.Generator | int | None = None,
) -> Array:
    """Return samples of a stationary Gaussian process with mean zero on a whole grid, given observations of it.

    Parameters
    ----------
    covariance : callable or array, shape (n_1, ..., n_d)
        The covariance of two points by their distance along every axis, as for `sample_stationary`, of one variable.
    shape : int, tuple of int or None
        The grid. None for that of an array.
    observed : array of bool, shape (n_1, ..., n_d), or of int, shape (k,)
        Which points were observed: a mask, or indices into the grid flattened in row-major order, each at most once.
    values : array, shape (k,)
        The observations, in the order of the indices, for a mask in row-major order.
    noise : float or array, shape (k,), default 0
        The variance of the independent noise in each observation. Samples are without it.
    n_samples : int, default 1
        How many samples.
    rng : numpy.random.Generator or int, optional
        The source of random numbers.

    Returns
    -------
    array, shape (n_samples, n_1, ..., n_d)
        Samples, independent given the observations, of the library, device and dtype of those of `sample_stationary`.

    Raises
    ------
    structmat.ConvergenceError
        If the linear system is not solved, as where the covariance of the observations is nearly singular. A small
        `noise`, such as 1e-6 times the variance, helps.
    ValueError
        As for `sample_stationary`. Also if `observed` or `values` do not fit, or `noise` is negative.
    TypeError
        If an argument is of the wrong kind or of another library.

    See Also
    --------
    conditional_mean : The mean of all such samples, without any.
    sample_stationary : Samples without observations.
    structmat.solve : How the linear system is solved.

    Notes
    -----
    Let K be the covariance matrix on the grid, o the observed points, N the diagonal matrix of the noise, f a sample
    without observations and e one of the noise. Then ``f + K[:, o] (K[o, o] + N)^-1 (y - f[o] - e)`` is a sample given
    the observations y: Matheron's rule, or conditioning by kriging [1]_ [2]_. It is exact up to the tolerance of
    `structmat.solve`, by conjugate gradients preconditioned by a circulant matrix. Each sample costs one system, each
    iteration two transforms of twice the grid along every axis.

    References
    ----------
    .. [1] Journel, A. G., Huijbregts, C. J., Mining Geostatistics, Academic Press, 1978, chapter VII.
    .. [2] Wilson, J. T., Borovitskiy, V., Terenin, A., Mostowsky, P., Deisenroth, M. P., Efficiently sampling functions
       from Gaussian process posteriors, ICML 2020.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> covariance = lambda t: np.exp(-t / 20)
    >>> paths = sm.sampling.sample_conditional(covariance, 100, [10, 50], [1.0, -2.0], n_samples=500, rng=0)
    >>> bool(np.allclose(paths[:, [10, 50]], [1.0, -2.0]))
    True
    >>> mean = sm.sampling.conditional_mean(covariance, 100, [10, 50], [1.0, -2.0])
    >>> bool(np.max(np.abs(paths.mean(axis=0) - mean)) < 0.15)
    True
    """
    owner = "sample_conditional"
    count, random = integer(n_samples, owner, "n_samples"), random_generator(rng, owner)
    return _conditional(_Process.of(covariance, shape, None, owner), observed, values, noise, (count, random))


def conditional_mean(
    covariance: _Covariance,
    shape: int | tuple[int, ...] | None,
    observed: ArrayLike,
    values: ArrayLike,
    *,
    noise: ArrayLike = 0.0,
) -> Array:
    """Return the mean of a stationary Gaussian process on a whole grid, given observations of it.

    This is simple kriging with mean zero, or the posterior mean of Gaussian process regression. It costs one linear
    system and one product: ``K[:, o] (K[o, o] + N)^-1 y`` in the words of `sample_conditional`.

    Parameters
    ----------
    covariance, shape, observed, values, noise : callable, tuple and arrays
        As for `sample_conditional`.

    Returns
    -------
    array, shape (n_1, ..., n_d)
        The mean, of the library, device and dtype of the covariance.

    Raises
    ------
    structmat.ConvergenceError, ValueError, TypeError
        As for `sample_conditional`, but that negative eigenvalues are not noticed.

    Examples
    --------
    >>> import structmat as sm
    >>> sm.sampling.conditional_mean(lambda t: 0.5**t, 5, [0, 3], [4.0, 1.0]).round(4)
    array([4.    , 2.0952, 1.2381, 1.    , 0.5   ])
    """
    return _conditional(_Process.of(covariance, shape, None, "conditional_mean"), observed, values, noise)[0, ...]


class _Process(NamedTuple):
    """A stationary process on a grid."""

    grid: tuple[int, ...]
    offsets: Array
    """The covariances at all lags on the grid, shape ``(p, p, 2 n_1 - 1, ..., 2 n_d - 1)``."""
    at_lags: Callable[[list[int]], Array] | None
    """Returns those at the lags from ``-m`` to m along every axis; None for an array, which is known on the grid."""
    owner: str
    """The public function, for messages."""

    @classmethod
    def of(
        cls, covariance: _Covariance, shape: int | tuple[int, ...] | None, n_variables: int | None, owner: str
    ) -> _Process:
        """Return the process of a covariance, of which all is checked but its eigenvalues."""
        sizes = shape if shape is None or isinstance(shape, (list, tuple)) else (shape,)
        grid = None if sizes is None else checked_grid(sizes, owner, "shape")
        if callable(covariance):
            if grid is None:
                raise ArgumentValueError(owner, "shape", "must be given for a covariance that is a function")
            at_lags = partial(_at_lags, covariance, n_variables, owner)
            return cls(grid, at_lags([n - 1 for n in grid]), at_lags, owner)
        if n_variables is not None:
            raise ArgumentTypeError(owner, "covariance", "must be a function of signed lags where n_variables is given")
        values = _real(covariance, owner, "covariance")
        grid = tuple(int(n) for n in values.shape) if grid is None else grid
        if not values.ndim or tuple(values.shape) != grid or 0 in grid:
            text = f"must have the shape of the grid, {grid}, got {tuple(values.shape)}"
            raise ArgumentValueError(owner, "covariance", text)
        return cls(grid, _mirrored(values), None, owner)

    def samples(self, count: int, rng: np.random.Generator) -> Array:
        """Return samples, shape ``(count, p, n_1, ..., n_d)``."""
        grid, offsets, at_lags, owner = self
        xp = namespace(offsets)
        # Sums of covariances may overflow where samples do not. So covariances are divided by the square of a power of
        # two, and samples are multiplied by that.
        power_of_two = 2.0 ** ((frexp(float(xp.max(xp.abs(offsets))))[1] + 1) // 2)
        scaled = offsets / power_of_two / power_of_two
        if at_lags is None:
            roots = _embedded(scaled)
        else:
            roots = _padded(lambda m: at_lags(m) / power_of_two / power_of_two, grid)
        if roots is not None:
            return power_of_two * _samples(roots, grid, count, rng)
        if offsets.shape[0] * prod(grid) <= _MOST_DENSE_ROWS:
            root, least = _dense_root(scaled, grid)
            if least >= 0.0:
                noise = from_numpy(rng.standard_normal((count, root.shape[0])), root)
                return power_of_two * xp.reshape(noise @ root, (count, -1, *grid))
            unscaled = least * power_of_two * power_of_two
            text = f"must have no negative eigenvalue, got {unscaled:.3g} for its matrix on the grid"
        elif (factor := _factor_on_line(scaled, grid)) is not None:
            noise = from_numpy(rng.standard_normal((count, factor.shape[0])), factor)
            series = xp.reshape(noise @ xp.matrix_transpose(factor), (count, *grid, offsets.shape[0]))
            return power_of_two * xp.matrix_transpose(series)
        elif at_lags is None:
            text = "has no circulant embedding of this size without negative eigenvalues; give a function instead of "
            text += "an array, which can be evaluated beyond the grid, or values on a larger grid, and crop the samples"
        else:
            text = f"has no circulant embedding of up to {_LARGEST_PADDING} times the grid without negative "
            text += "eigenvalues: it is no covariance, or its range is far beyond the grid"
        raise ArgumentValueError(owner, "covariance", text)


def _real(values: ArrayLike, owner: str, argument: str, like: Array | None = None) -> Array:
    """Return finite real values, of the library and dtype of `like`, or else in at least single precision."""
    array = as_floating(values, owner, argument, like=None if like is None else (namespace(like), like.dtype))
    xp = namespace_of(owner, array, array if like is None else like)
    if is_complex(array.dtype, xp):
        raise ArgumentTypeError(owner, argument, f"must be real, got {array.dtype}")
    if not bool(xp.all(xp.isfinite(array))):
        raise ArgumentValueError(owner, argument, "must be finite, got NaN or infinity")
    return in_precision(array, precision_of(array.dtype, xp) if like is None else like.dtype, xp)


def _at_lags(covariance: Callable[..., ArrayLike], n_variables: int | None, owner: str, reach: list[int]) -> Array:
    """Return the covariances at the lags from ``-m`` to m along every axis, shape ``(p, p, 2 m_1 + 1, ...)``."""
    ranges = [np.arange(0.0 if n_variables is None else -m, m + 1.0) for m in reach]
    values = _real(covariance(*np.meshgrid(*ranges, indexing="ij", sparse=True)), owner, "covariance")
    expected = tuple(len(lags) for lags in ranges) + (() if n_variables is None else (n_variables, n_variables))
    if tuple(values.shape) != expected:
        text = f"must return an array of shape {expected} for arguments on such a grid, got {tuple(values.shape)}"
        raise ArgumentValueError(owner, "covariance", text)
    if n_variables is None:
        return _mirrored(values)
    xp = namespace(values)
    opposite = xp.matrix_transpose(xp.flip(values, axis=tuple(range(len(reach)))))
    if not bool(equals_adjoint(values, opposite, xp, core=values.ndim, units=_ASYMMETRY)):
        largest = float(xp.max(xp.abs(values - opposite)))
        text = f"must be the transpose of that at the opposite lag, C(-h) = C(h)^T, but differs by {largest:.3g}"
        raise ArgumentValueError(owner, "covariance", text)
    return xp.moveaxis(values, (-2, -1), (0, 1))


def _mirrored(values: Array) -> Array:
    """Return the covariances of one variable at all lags, from those at the distances 0, 1, 2, ... along every axis."""
    lags = MultilevelToeplitz.from_covariance(values).t
    return namespace(values).reshape(lags, (1, 1, *(2 * n - 1 for n in values.shape)))


def _padded(at_lags: Callable[[list[int]], Array], grid: tuple[int, ...]) -> Array | None:
    """Return the square roots of eigenvalues for the first padded grid without negative ones, or None.

    `at_lags` returns the covariances at the lags up to those along every axis.
    """
    padding = 1.0
    while padding <= _LARGEST_PADDING:
        # The largest lag m is at least n, as the circulant has the mean of the covariances at m and -m for both.
        roots = _embedded(at_lags([fast_length(int(padding * n)) if n > 1 else 0 for n in grid]))
        if roots is not None:
            return roots
        padding *= _PADDING_GROWTH
    return None


def _embedded(offsets: Array) -> Array | None:
    """Return the square roots of the matrices of eigenvalues over that of N, shape ``(p, p, 2 m_1, ...)``.

    They are those of the circulant embedding of the covariances `offsets`; None if an eigenvalue is negative.
    """
    xp = namespace(offsets)
    p = offsets.shape[0]
    sizes = tuple(max(1, n - 1) for n in offsets.shape[2:])
    values = offsets[(..., *(slice(n) for n in sizes))]
    values = xp.roll(values, tuple(-(n // 2) for n in sizes), axis=tuple(range(2, values.ndim)))
    spectra = MultilevelCirculant(xp.reshape(values, (p, p, -1)), sizes).eigvals() / prod(sizes)
    rounding = _NEGATIVE_BY_ROUNDING * log2(p * prod(sizes) + 1)
    # The Hermitian part is taken: it belongs to the matrix with the mean of the covariances at the lags m and -m.
    if p == 1:
        roots, least = _roots(xp.real(spectra), rounding)
    else:
        blocks = xp.permute_dims(spectra, (2, 1, 0))  # the transpose is the conjugate: samples have forward transforms
        eigenvalues, vectors = xp.linalg.eigh((blocks + xp.conj(xp.matrix_transpose(blocks))) / 2)
        roots, least = _roots(eigenvalues, rounding)
        roots = (vectors * roots[..., None, :]) @ xp.conj(xp.matrix_transpose(vectors))
        roots = xp.permute_dims(roots, (1, 2, 0))
    return xp.reshape(roots, (p, p, *sizes)) if least >= 0.0 else None


def _dense_root(offsets: Array, grid: tuple[int, ...]) -> tuple[Array, float]:
    """Return the square root of the covariance matrix, written out, and the smallest eigenvalue."""
    xp = namespace(offsets)
    n = offsets.shape[0] * prod(grid)
    blocks = MultilevelToeplitz.from_offsets(offsets, len(grid)).to_dense()
    eigenvalues, vectors = xp.linalg.eigh(xp.reshape(xp.permute_dims(blocks, (0, 2, 1, 3)), (n, n)))
    roots, least = _roots(eigenvalues, _NEGATIVE_BY_ROUNDING * n)
    # The symmetric root does not depend on the signs that a library gives to eigenvectors.
    return (vectors * roots) @ xp.matrix_transpose(vectors), least


def _factor_on_line(offsets: Array, grid: tuple[int, ...]) -> Array | None:
    """Return the Cholesky factor of the covariance matrix of points on a line, all variables of each together.

    It is None for grids of several axes, where it is too large, and where the matrix is not positive definite.
    """
    xp = namespace(offsets)
    if len(grid) > 1 or offsets.shape[0] * grid[0] > _MOST_FACTORED_ROWS:
        return None
    blocks = xp.permute_dims(offsets, (2, 0, 1))
    symmetric = blocks / 2 + xp.matrix_transpose(xp.flip(blocks, axis=0)) / 2
    try:
        factor = BlockToeplitz.from_offsets(symmetric).cholesky()
    except np.linalg.LinAlgError:
        return None
    return factor if bool(xp.all(xp.isfinite(factor))) else None


def _roots(eigenvalues: Array, rounding: float) -> tuple[Array, float]:
    """Return square roots, zero for negative numbers, and the least number, as zero where it is a rounding error."""
    xp = namespace(eigenvalues)
    least = float(xp.min(eigenvalues))
    largest = float(xp.max(xp.abs(eigenvalues)))
    if abs(least) <= rounding * float(xp.finfo(eigenvalues.dtype).eps) * largest:
        least = 0.0
    return xp.sqrt(xp.where(eigenvalues > 0.0, eigenvalues, xp.zeros_like(eigenvalues))), least


def _samples(roots: Array, grid: tuple[int, ...], count: int, rng: np.random.Generator) -> Array:
    """Return samples: white noise times the square roots, transformed, two samples from each transform."""
    xp = namespace(roots)
    p = roots.shape[0]
    sizes = tuple(roots.shape[2:])
    real = xp.real(roots) if p > 1 else roots
    roots = xp.reshape(roots, (p, p, -1))
    corner = (slice(None), slice(None), *(slice(n) for n in grid))
    samples: tuple[list[Array], list[Array]] = [], []
    remaining_pairs = -(-count // 2)
    most_pairs = max(1, _CHUNK // (p * prod(sizes)))
    while remaining_pairs:
        pairs = min(remaining_pairs, most_pairs)
        noise = rng.standard_normal((2, pairs, p * prod(sizes)))
        first, second = (from_numpy(part, real) for part in noise)
        white = xp.reshape(first + 1j * second, (pairs, p, -1))
        coloured = reduce(add, (roots[:, b, :] * white[:, b : b + 1, :] for b in range(p)))
        fields = xp.reshape(multilevel_fft(coloured, sizes, xp, real=False), (pairs, p, *sizes))
        for part, part_of in zip(samples, (xp.real, xp.imag), strict=True):
            part.append(xp.asarray(part_of(fields)[corner], copy=True))  # a view would keep all fields in memory
        remaining_pairs -= pairs
    return xp.concat((*samples[0], *samples[1]), axis=0)[:count, ...]


def _conditional(
    process: _Process, observed: Any, values: Any, noise: Any, draws: tuple[int, np.random.Generator] | None = None
) -> Array:
    """Return samples of a process given observations, or the conditional mean where `draws` is None.

    `draws` is the number of samples and the source of random numbers.
    """
    grid, offsets, _, owner = process
    points = _points(observed, grid, owner)
    values = _real(values, owner, "values", offsets)
    noise = _real(noise, owner, "noise", offsets)
    xp = namespace(values)
    if tuple(values.shape) != points.shape:
        text = f"must have shape {points.shape}, one for each observed point, got {tuple(values.shape)}"
        raise ArgumentValueError(owner, "values", text)
    if tuple(noise.shape) not in {(), points.shape} or bool(xp.any(noise < 0.0)):
        text = f"must be a variance, or one for each observed point, of shape {points.shape}, without negative numbers"
        raise ArgumentValueError(owner, "noise", text)
    prior = xp.zeros((1, *grid), dtype=values.dtype, device=device_of(values))
    residuals = values[None, :]
    if draws is not None:
        count, rng = draws
        prior = process.samples(count, rng)[:, 0, ...]
        errors = xp.sqrt(noise) * from_numpy(rng.standard_normal((count, len(points))), prior)
        index = xp.asarray(points, device=device_of(prior))
        residuals = residuals - errors - xp.take(xp.reshape(prior, (count, -1)), index, axis=1)
    K = MultilevelToeplitz.from_offsets(offsets[0, 0, ...])
    system = K[points][:, points] + Diagonal(noise + xp.zeros_like(values))
    weights = solve(system, xp.matrix_transpose(residuals), assume="positive definite").x
    return prior + xp.reshape(xp.matrix_transpose(K[:, points] @ weights), prior.shape)


def _points(observed: Any, grid: tuple[int, ...], owner: str) -> Any:
    """Return the flat indices of observed points, an array of NumPy."""
    points = to_numpy(observed) if is_array(observed) else np.asarray(observed)
    if points.dtype.kind == "b" and points.shape == grid:
        points = np.flatnonzero(points)
    if points.ndim != 1 or points.dtype.kind not in "iu" or not points.size:
        text = f"must be a mask of shape {grid} or flat indices, got {points.dtype} of shape {points.shape}"
        raise ArgumentTypeError(owner, "observed", text)
    if points.min() < 0 or points.max() >= prod(grid) or len(np.unique(points)) < len(points):
        text = f"must name each point at most once, by indices from 0 to {prod(grid) - 1}"
        raise ArgumentValueError(owner, "observed", text)
    return points.astype(np.int64)
