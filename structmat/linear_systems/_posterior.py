"""Posterior variances of a process that was measured with noise: by a direct factor, a closed form, or a dense one."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from structmat._arguments import as_floating
from structmat._arrays.arithmetic import real_part
from structmat._arrays.conversion import on_host, to_numpy, without_axes_as_scalar
from structmat._arrays.dtypes import cast_back, dtype_name, is_complex, precision_of, rounding_of_cast
from structmat._arrays.libraries import device_of, namespace_of, rules_of
from structmat._arrays.linear_algebra import (
    cholesky_factors,
    error_of_variances,
    hermitian_part,
    is_hermitian,
    rows_for_error,
    solutions_by_cholesky,
)
from structmat._arrays.typing import Array, ArrayLike, Namespace
from structmat._errors import ArgumentError, ArgumentTypeError, ArgumentValueError
from structmat._toeplitz_systems import RankError, series_variances
from structmat.linear_systems import _thresholds
from structmat.linear_systems._superfast import Series, series_of
from structmat.linear_systems._written_out import fits_in_memory
from structmat.operators import Identity, Indices, LinearOperator

_OWNER = "posterior_variances"

_NOT_DEFINITE = f"{_OWNER}: the matrix with its noise is not positive definite, or holds NaN or infinity"


class PosteriorVariances(NamedTuple):
    """Posterior variances, and how far off they may be.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> found = sm.posterior_variances(sm.Toeplitz(np.array([1.0, 0.5])), 1.0, np.array([True, False]))
    >>> found.variances, bool(found.error < 1e-15)
    (array([0.5  , 0.875]), True)
    """

    variances: Array
    """One for each row of the covariance matrix, in its units: of the process, without the noise."""
    error: Array
    """How far off they may be: the largest difference from a solution for one row, of up to four rows that were
    measured and four others."""


def posterior_variances(K: LinearOperator, noise: ArrayLike, seen: ArrayLike | None = None) -> PosteriorVariances:
    """Return how uncertain a process is everywhere once some of it was measured: the diagonal of its posterior.

    Of a process with covariance matrix K, of which the rows `seen` were measured with noise, it is the diagonal of
    ``K - K[:, seen] A^-1 K[seen, :]`` with ``A = K[seen][:, seen] + Diagonal(noise[seen])``. The mean there is ``K[:,
    seen] @ solve(A, y).x``, so that ``mean +- 2 sqrt(variances)`` is a confidence band of the process, of missing data
    and of a forecast too; a band for new measurements has the noise added to the variances.

    Parameters
    ----------
    K : LinearOperator
        The covariance matrix of all points, those to be foreseen included: Hermitian and positive semidefinite, of any
        array library.
    noise : float or array, shape (n,)
        The variance of the noise of each point, in the units of K. Those of points that were not seen count for nothing
        and may be NaN.
    seen : array of bool or int, optional
        Which points were measured: a mask, or indices in any order, as in ``K[seen]``. Default: all.

    Returns
    -------
    PosteriorVariances
        The variances of all n points, those that were not seen included, and how far off they may be, as was measured
        at a few of them.

    Raises
    ------
    numpy.linalg.LinAlgError
        If A is not positive definite, as far as its factor can tell.
    ValueError
        If K is a stack, or neither square nor Hermitian, has no direct factor and more than 8,192 rows; if `noise` has
        another shape, or is negative, NaN or infinite at a point that was seen; if `seen` chooses nothing or a point
        twice.
    TypeError
        If K is no operator, or `noise` and `seen` do not hold real numbers and indices.
    IndexError
        If an index is out of range.

    See Also
    --------
    solve : For the posterior mean.
    slogdet : For the likelihood.
    Superfast : The direct factor.

    Notes
    -----
    **Series.** Where K is a `Toeplitz` or `BlockToeplitz` matrix, to which a diagonal may be added, or the same rows
    and columns of one, all variances come from one pass down the tree of its direct factor, or along its band [1]_, in
    O(n r^2) operations for blocks of rank r: with the factor 0.5 to 1.2 s for 100,000 points. The pass hands down to
    each leaf of the tree what all points outside of it explain of its own. That is computed in double precision by
    NumPy, whatever library K belongs to, under ``jax.jit`` as well; there it is NaN where there is no factor.

    **Others.** Where all points were seen with even noise, the diagonal of the closed form of ``A^-1`` is taken, if
    there is one, as of circulants and Kronecker products. All else is a dense Cholesky factor, in O(n^3), up to 8,192
    points. Beyond, ask for some of the points: ``posterior_variances(K[some][:, some], ...)``.

    **Accuracy.** Of a point that was seen with noise d the variance is ``d - d^2 (A^-1)_ii``, which is the same by
    ``K - K (K + D)^-1 K = K (K + D)^-1 D = D - D (K + D)^-1 D``, and has more digits where the noise is small: of 84
    cases, seven covariances of 1,500 points with noise from 1e-8 to 10, the largest difference from dense elimination
    was 7e-15 of the largest entry of K. Of the others the error grows as that of any elimination: in the middle of a
    gap of 250 points, of a squared exponential of length 100, it was 8e-14 with noise of 0.1, and 1e-8 with 1e-8.

    **Derivatives.** Up to 512 points, and for all but series, torch and JAX differentiate the result. That of a longer
    series has no derivative, and says so.

    References
    ----------
    .. [1] Takahashi, K., Fagan, J., Chen, M.-S., Formation of a sparse bus impedance matrix and its application to
       short circuit study, Proc. 8th PICA Conference, 1973.

    Examples
    --------
    A series of 2,000 points with a gap, and a forecast of the last hundred:

    >>> import numpy as np
    >>> import structmat as sm
    >>> n = 2000
    >>> K = sm.Toeplitz(np.exp(-np.arange(n) / 50))
    >>> seen = np.ones(n, bool)
    >>> seen[700:800] = seen[1900:] = False
    >>> variances, error = sm.posterior_variances(K, 0.1, seen)
    >>> variances[[300, 710, 750, 1999]].round(3), bool(error < 1e-13)
    (array([0.03 , 0.381, 0.775, 0.983]), True)
    """
    op, xp = _read_covariance(K)
    chosen = Indices._of(seen, op.shape[0], _OWNER, "seen")
    there = np.ones(op.shape[0], bool)
    if chosen is not None:
        there[:] = False
        there[chosen.array] = True
    values = _read_noise(noise, op, there, xp)
    variances, error = rules_of(xp).untraced(_variances)(op, values, there, xp)
    error = error + xp.max(rounding_of_cast(rules_of(xp).constant(variances), K.dtype, xp))
    found = (cast_back(each, K.dtype, xp) for each in (variances, error))
    return PosteriorVariances(*map(without_axes_as_scalar, found))


def _read_covariance(K: Any) -> tuple[LinearOperator, Namespace]:
    """Return a covariance matrix in the precision of computations, after the check that it may be one."""
    if not isinstance(K, LinearOperator):
        text = f"must be a structmat operator, got {type(K).__name__}; Dense(K) makes one of an array"
        raise ArgumentTypeError(_OWNER, "K", text)
    if K.shape[0] != K.shape[1]:
        raise ArgumentValueError(_OWNER, "K", f"must be square, got shape {K.shape}")
    if K.batch_shape:
        text = f"must be one matrix, got a stack of batch shape {K.batch_shape}: call it for each"
        raise ArgumentValueError(_OWNER, "K", text)
    return K._to_working_precision(_OWNER)


def _read_noise(noise: Any, op: LinearOperator, there: Any, xp: Namespace) -> Array:
    """Return the variances of the noise of all rows: zero for those that were not seen."""
    arrays = op._arrays()
    dtype = xp.float64 if op.dtype is None else precision_of(op.dtype, xp)
    if isinstance(noise, LinearOperator):
        text = f"must be a number or an array, got {noise!r}: give the entries of its diagonal"
        raise ArgumentTypeError(_OWNER, "noise", text)
    values = as_floating(noise, _OWNER, "noise", like=(xp, dtype))
    namespace_of(_OWNER, arrays[0] if arrays else xp.ones(1), values)
    n = op.shape[0]
    if tuple(values.shape) not in {(), (n,)}:
        text = f"must be a number or have shape ({n},), one for each row of K, got {tuple(values.shape)}"
        raise ArgumentValueError(_OWNER, "noise", text)
    if is_complex(values.dtype, xp):
        raise ArgumentTypeError(_OWNER, "noise", f"must be real, got dtype {values.dtype}")
    device = device_of(values)
    mask = xp.asarray(there, device=device)
    values = xp.where(mask, xp.broadcast_to(values, (n,)), xp.zeros(n, dtype=values.dtype, device=device))
    known = rules_of(xp).concrete(values)
    if known is not None:
        wrong = np.flatnonzero(~(np.isfinite(to_numpy(known)) & (to_numpy(known) >= 0)))
        if len(wrong):
            text = f"must be finite and not negative at points that were seen, got {to_numpy(known)[wrong[0]]}"
            raise ArgumentValueError(_OWNER, "noise", f"{text} at {wrong[0]}")
    return xp.astype(values, dtype)


def _variances(op: LinearOperator, noise: Array, there: Any, xp: Namespace) -> tuple[Array, Array]:
    """Return the variances and their error by the way that is fastest."""
    series: Series | None = None
    if op.shape[0] > _thresholds.DENSE_POSTERIOR:
        with suppress(ArgumentError):
            series = series_of(op, _OWNER, xp)
    if series is not None:
        with suppress(RankError):
            return _of_series(series, noise, there, xp)
    elif op.shape[0] > _thresholds.DENSE_POSTERIOR and np.all(there):
        with suppress(NotImplementedError):
            return _in_closed_form(op, noise, xp)
    if not fits_in_memory(op):
        size = 8 * op.shape[0] ** 2 / 2**30
        text = f"has no direct factor, and its dense matrix of {size:.2g} GiB is above 0.5"
        raise ArgumentValueError(_OWNER, "K", f"{text}: choose fewer points, K[i][:, i]")
    return _by_dense_factor(op, noise, there, xp)


def _of_series(series: Series, noise: Array, there: Any, xp: Namespace) -> tuple[Array, Array]:
    """Return the variances of a series, of which no derivative is known."""
    rules = rules_of(xp)
    _require_hermitian(series.is_hermitian, xp)
    c, own = series.c, series.noise
    places, grid = np.arange(len(there)), len(there)
    if series.chosen is not None:
        places, grid = series.chosen.array, series.chosen.size
        noise = series.chosen._scattered(noise, xp)
    seen = np.zeros(grid, bool)
    seen[places] = there
    arrays = [c, own, noise]
    results = [((len(places),), noise.dtype), ((), noise.dtype)]
    known = [rules.concrete(each) for each in arrays]
    if any(each is None for each in known):
        found = _OnHost(seen, places, dtype_name(noise.dtype), strict=not rules.compiles)
        values = on_host(found, results, arrays, xp)
    else:
        found = _OnHost(seen, places, dtype_name(noise.dtype), strict=True)
        values = tuple(xp.asarray(each, device=device_of(c)) for each in found(*map(to_numpy, known)))
    most = _thresholds.DENSE_POSTERIOR
    why = f"{_OWNER} of a series of more than {most} points has no derivatives, that of Dense(K.to_dense()) has"
    return rules.without_derivative(values[0], arrays, why), values[1]


@dataclass(frozen=True)
class _OnHost:
    """A function of the arrays of a series, or of several, which are mapped over axes before the last one."""

    seen: Any
    """Which rows of the grid were measured."""
    places: Any
    """Which rows of the grid the covariance matrix has."""
    dtype: str
    """That of the results."""
    strict: bool
    """Whether a series without a factor is an error; its results are NaN otherwise."""

    def __call__(self, *arrays: Any) -> tuple[Any, Any]:
        batch = np.broadcast_shapes(*(each.shape[:-1] for each in arrays))
        arrays = tuple(np.broadcast_to(each, (*batch, each.shape[-1])) for each in arrays)
        variances = np.full((*batch, len(self.places)), np.nan, self.dtype)
        errors = np.full(batch, np.nan, self.dtype)
        for index in np.ndindex(batch):
            try:
                c, own, noise = (each[index] for each in arrays)
                found, errors[index] = series_variances(c, own, noise, self.seen)
            except np.linalg.LinAlgError as error:
                if self.strict:
                    raise np.linalg.LinAlgError(_NOT_DEFINITE) from error
            except RankError:
                if self.strict:
                    raise
            else:
                variances[index] = found[self.places]
        return variances, errors


def _require_hermitian(found: Array, xp: Namespace) -> None:
    """Raise an error where a matrix is known not to be Hermitian."""
    known = rules_of(xp).concrete(found)
    if known is not None and not bool(known):
        raise ArgumentValueError(_OWNER, "K", "must be Hermitian, as a covariance matrix is")


def _in_closed_form(op: LinearOperator, noise: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the variances where all was seen with even noise, by the closed form of the inverse."""
    known = rules_of(xp).concrete(noise)
    if known is None or not bool(xp.all(known == known[0])):
        raise NotImplementedError
    A = op + noise[0] * Identity(op.shape[0])
    inverse = A._inv(xp)
    variances = noise - noise**2 * real_part(inverse._diagonal(xp), xp)
    rows = rows_for_error(np.ones(op.shape[0], bool))
    b = np.zeros((len(rows), op.shape[0]))
    b[np.arange(len(rows)), rows] = float(known[0])
    b = xp.asarray(b, dtype=noise.dtype, device=device_of(noise))
    with rules_of(xp).unrecorded():
        x = inverse._matvec(b, xp)
        left = b - A._matvec(x, xp)
        index = xp.asarray(rows, device=device_of(noise))
        found, whole = (xp.take(each, index) for each in (variances, noise))
        return variances, error_of_variances(found, whole, b, x, left, xp)


def _by_dense_factor(op: LinearOperator, noise: Array, there: Any, xp: Namespace) -> tuple[Array, Array]:
    """Return the variances by a dense factor."""
    rules = rules_of(xp)
    dense = op.to_dense()
    _require_hermitian(is_hermitian(dense, xp), xp)
    device = device_of(dense)
    seen = xp.asarray(np.flatnonzero(there), device=device)
    dense = hermitian_part(dense, xp)
    diagonal = real_part(xp.linalg.diagonal(dense), xp)
    eye = xp.eye(len(there), dtype=dense.dtype, device=device)
    with_noise = dense + xp.astype(noise, dense.dtype) * eye
    A = xp.take(xp.take(with_noise, seen, axis=0), seen, axis=1)
    try:
        L = cholesky_factors(A, xp)
    except np.linalg.LinAlgError as error:  # of NumPy
        raise np.linalg.LinAlgError(_NOT_DEFINITE) from error
    by_noise = xp.asarray(there, device=device) & (noise < diagonal)
    whole = xp.where(by_noise, noise, diagonal)
    b = xp.take(xp.where(by_noise, xp.astype(noise, dense.dtype) * eye, dense), seen, axis=0)
    root = rules.triangular_solutions(L, b)
    variances = whole - xp.sum(xp.abs(root) ** 2, axis=0)
    known = rules.concrete(variances)
    if known is not None and not np.all(np.isfinite(to_numpy(known))):
        raise np.linalg.LinAlgError(_NOT_DEFINITE)
    rows = xp.asarray(rows_for_error(there), device=device)
    with rules.unrecorded():
        some = xp.take(rules.constant(b), rows, axis=1)
        x = solutions_by_cholesky(rules.constant(L), some, xp)
        left = some - xp.matmul(rules.constant(A), x)
        found, of_found = (xp.take(rules.constant(each), rows) for each in (variances, whole))
        some, x, left = (xp.matrix_transpose(each) for each in (some, x, left))
        return variances, error_of_variances(found, of_found, some, x, left, xp)
