"""Direct factors for the operators that have one: (block) Toeplitz matrices plus diagonals, and parts of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from structmat._arguments import integer, positive
from structmat._arrays.arithmetic import binary_exponents, conjugate, real_part
from structmat._arrays.libraries import device_of, library_of, rules_of
from structmat._arrays.linear_algebra import equals_adjoint
from structmat._arrays.shapes import concat_last
from structmat._arrays.typing import Array, Namespace
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._parametrised import Parametrised
from structmat._toeplitz_systems import (
    FactorOnHost,
    LogDeterminantOnHost,
    NoisyToeplitz,
    RankError,
    SeriesFactor,
    SuperfastFactor,
)
from structmat.operators import BlockToeplitz, LinearOperator, Toeplitz


@dataclass(frozen=True)
class Superfast:
    """A direct factor of a positive definite Toeplitz matrix plus a diagonal, with any rows missing, in O(n r^2).

    Block Toeplitz matrices with small blocks have it too: series of several channels, each with gaps of its own.

    Parameters
    ----------
    rtol : float, optional
        What may be left out of a block beside the diagonal, relative to the largest entry of the Toeplitz matrix. A
        larger one makes ranks smaller; for operators of single precision it is at least 1e-6. Default: the smallest
        from 1e-13 to 1e-6 that is worth its cost.
    rank : int, optional
        The largest rank r of such a block, with which no band is tried. Default: whatever is worth its cost.

    Raises
    ------
    ValueError
        If `rtol` or `rank` is not positive.
    TypeError
        If `rank` is not a whole number, or `rtol` no number.

    See Also
    --------
    solve, slogdet : Take it as their `method`, and where it is fastest by themselves.
    LinearOperator.prepare : Keeps a factor for further solutions.

    Notes
    -----
    The blocks of most covariance matrices beside their diagonal have a low rank: 4 for a Matérn covariance 3/2, about
    30 for a squared exponential. The factor is in hierarchically semiseparable (HSS) form [1]_; gaps and noise change
    no rank. Ranks of others are higher, as of quasi-periodic covariances, or are made so by rounding errors, as
    of fractional Gaussian noise: the factor is then made with a larger `rtol`. With blocks of p x p ranks are up to p
    times as high, or the sum of those of fewer latent series. Where a covariance is zero beyond some lag, or falls
    below `rtol`, the matrix is factored as a band by LAPACK on the host, if that takes less time: 0.2 s for 100,000
    points and 100 lags. All is computed in double precision. How far off a log-determinant may be is measured. A
    solution is refined once, or where `rtol` is above 1e-12 by conjugate gradients with the factor as a preconditioner,
    so that it is as accurate as any other. Derivatives in torch (reverse mode) and JAX are those of the exact value, as
    accurate as the factor.

    Where it does not serve, as the rank does not suffice or the matrix is of another kind, `solve` and `slogdet` raise
    an error. Under ``jax.jit``, where no value can be looked at, the factor is made on the host when values become
    known, for each solution anew; the result is NaN where there is none. Under ``torch.func`` and `torch.vmap` it
    serves for `slogdet` alone.

    References
    ----------
    .. [1] Chandrasekaran, S., Gu, M., Sun, X., Xia, J., Zhu, J., A superfast algorithm for Toeplitz systems of linear
       equations, SIAM J. Matrix Anal. Appl. 29, 2007.

    Examples
    --------
    A series with a tenth of its points missing, and uneven noise:

    >>> import numpy as np
    >>> import structmat as sm
    >>> n, rng = 2000, np.random.default_rng(0)
    >>> seen = rng.random(n) < 0.9
    >>> T = sm.Toeplitz(np.exp(-0.5 * (np.arange(n) / 10) ** 2))
    >>> A = (T + sm.Diagonal(rng.uniform(0.01, 0.1, n)))[seen][:, seen]
    >>> b = rng.standard_normal(A.shape[0])
    >>> bool(sm.solve(A, b, method=sm.Superfast()).residual < 1e-12)
    True
    >>> sm.solve(A, b, method=sm.Superfast(rank=5))
    Traceback (most recent call last):
    ...
    structmat.ArgumentValueError: solve: method Superfast(rtol=None, rank=5) does not suffice for A: blocks ...

    Two channels that follow one latent series, the second one three steps behind, with gaps of their own:

    >>> lags = np.arange(n)[:, None, None] + np.array([[0, -3], [3, 0]])
    >>> A = sm.BlockToeplitz(np.exp(-0.5 * (lags / 10) ** 2)) + sm.Diagonal(rng.uniform(0.01, 0.1, 2 * n))
    >>> seen = (rng.random((n, 2)) < 0.9).ravel()
    >>> A = A[seen][:, seen]
    >>> bool(sm.slogdet(A, method=sm.Superfast()).standard_error < 1e-8)
    True
    >>> bool(sm.solve(A, np.ones(A.shape[0]), method=sm.Superfast()).residual < 1e-12)
    True
    """

    rtol: float | None = None
    """What may be left out of a block, relative to the largest entry of the Toeplitz matrix."""
    rank: int | None = None
    """The largest rank of a block."""

    def __post_init__(self) -> None:
        if self.rtol is not None:
            object.__setattr__(self, "rtol", positive(self.rtol, "Superfast", "rtol"))
        if self.rank is not None:
            object.__setattr__(self, "rank", integer(self.rank, "Superfast", "rank"))


class OperatorFactor(NamedTuple):
    """The direct factor of an operator: that of its whole grid, and which rows and columns of it the operator has."""

    factor: Any
    """A `SuperfastFactor`, or in a trace a `FactorOnHost`."""
    chosen: Any
    unit: Array
    """The power of two that the matrix was divided by, so that no square of an entry overflows or underflows."""
    rows: int
    """How many rows the operator has."""
    xp: Namespace

    @property
    def logdet(self) -> Array:
        """The logarithm of the determinant."""
        log: Array = self.factor.logdet + self.rows * self.xp.log(self.unit)
        return log

    @property
    def error(self) -> Array:
        """How far off `logdet` may be, as was measured."""
        error: Array = self.factor.error
        return error

    def solve(self, b: Array, rtol: float, xp: Namespace) -> Array:
        """Return solutions along the last axis, found in double precision, of the dtype of b, up to a residual."""
        if self.chosen is None:
            x = self.factor.solve(b, rtol)
        else:
            x = self.chosen._gathered(self.factor.solve(self.chosen._scattered(b, xp), rtol), xp)
        x = x / self.unit
        return x if x.dtype == b.dtype else xp.astype(x, b.dtype)


@dataclass(frozen=True, eq=False, repr=False)
class _Refusal(Parametrised):
    """What a prepared operator keeps where there is no factor: the error that says why."""

    kind: type[Exception]
    text: str


class Series(NamedTuple):
    """An operator read as the chosen rows and columns of a Toeplitz matrix plus a diagonal."""

    op: LinearOperator
    c: Array
    """The first block column of the Hermitian part of the (block) Toeplitz matrix, as `NoisyToeplitz` has it."""
    noise: Array
    """The diagonal."""
    is_alone: bool
    """Whether it is a (block) Toeplitz matrix and nothing else."""
    chosen: Any
    """The `Indices` of the rows and columns; None for all."""
    is_hermitian: Array
    xp: Namespace

    @property
    def traced(self) -> bool:
        """Whether values are not known."""
        return any(map(rules_of(self.xp).is_traced, self.op._arrays()))

    @property
    def hermitian_noise(self) -> Array:
        """The diagonal, NaN for a matrix that is not Hermitian."""
        return self.xp.where(self.is_hermitian[..., None], self.noise, self.xp.full_like(self.noise, float("nan")))

    @property
    def there(self) -> Array | None:
        """The mask of the rows and columns that are there; None for all."""
        if self.chosen is None:
            return None
        return self.xp.asarray(np.isin(np.arange(self.chosen.size), self.chosen.array), device=device_of(self.c))

    def factor(self, method: Superfast, most_work: float = math.inf) -> OperatorFactor:
        """Return the factor, which a prepared operator keeps for the next time; of others it may be limited in work."""
        if self.traced:
            return self._factor_on_host(method)
        there, xp = self.there, self.xp
        unit, c, noise = self._scaled(self.noise)

        def new() -> SeriesFactor | _Refusal:
            try:
                return SuperfastFactor(
                    c, noise, there, xp, tolerance=method.rtol, rank=method.rank, most_work=most_work
                ).factor
            except (RankError, np.linalg.LinAlgError) as error:
                return _Refusal(type(error), str(error))

        known = self.op._kept(method, new)
        if isinstance(known, _Refusal):
            raise known.kind(known.text)
        factor = SuperfastFactor(c, noise, there, xp, factor=known)
        return OperatorFactor(factor, self.chosen, xp.astype(unit, xp.float64), self.op.shape[0], xp)

    def _factor_on_host(self, method: Superfast) -> OperatorFactor:
        """Return the factor of a matrix whose values are not known yet, which has solutions alone."""
        xp = self.xp
        unit, K = self._hidden()
        factor = FactorOnHost(K, xp, tolerance=method.rtol, rank=method.rank)
        return OperatorFactor(factor, self.chosen, xp.astype(unit, xp.float64), self.op.shape[0], xp)

    def _hidden(self) -> tuple[Array, NoisyToeplitz]:
        """Return a power of two for each matrix, and these divided by it, with NaN where one is not Hermitian."""
        xp = self.xp
        unit, c, noise = self._scaled(self.hermitian_noise)
        there = xp.ones_like(noise) if self.there is None else xp.astype(self.there, noise.dtype)
        return unit, NoisyToeplitz(c, noise, there)

    def logdet_on_host(self, method: Superfast, *, strict: bool) -> tuple[Array, Array]:
        """Return logarithms of determinants, and how far off they may be, where values are not known yet."""
        xp = self.xp
        unit, K = self._hidden()
        rule = LogDeterminantOnHost(method.rtol, method.rank, strict)
        log, error = rule.value(K, xp)
        return log + self.op.shape[0] * xp.log(unit), error

    def _scaled(self, noise: Array) -> tuple[Array, Array, Array]:
        """Return a power of two for each matrix, and first column and diagonal divided by it.

        It is near the smallest entry of the diagonal, or near T where that is larger.
        """
        xp = self.xp
        size = xp.max(xp.abs(self.c), axis=-1) + xp.min(xp.abs(self.noise), axis=-1)
        unit = 2.0 ** binary_exponents(rules_of(xp).constant(size), xp)
        return unit, self.c / unit[..., None], noise / unit[..., None]


def factor_by(method: Superfast, op: LinearOperator, owner: str, xp: Namespace) -> OperatorFactor:
    """Return the factor by a method that was asked for, or raise an error that says why there is none.

    In a trace all is NaN where the method does not suffice.
    """
    series = checked_series(op, owner, xp)
    if not series.traced and not bool(series.is_hermitian):
        raise ArgumentValueError(owner, "A", f"must be Hermitian for method {method}")
    with explained(method, owner):
        return series.factor(method)


@contextmanager
def explained(method: Superfast, owner: str) -> Iterator[None]:
    """Raise the errors of a factor by a method that was asked for as those of the function that was called."""
    try:
        yield
    except RankError as error:
        larger = "a larger rtol" if method.rank is None else "a larger rank or rtol"
        text = f"{method} does not suffice for A: {error}; give {larger}, or another method"
        raise ArgumentValueError(owner, "method", text) from error
    except np.linalg.LinAlgError as error:
        raise np.linalg.LinAlgError(f"{owner}: {error}, up to the rtol of {method}") from error


def checked_series(op: LinearOperator, owner: str, xp: Namespace) -> Series:
    """Return an operator as a series whose factor its library makes, or raise an error that says why it does not."""
    series = series_of(op, owner, xp)
    like = series.c
    if op.batch_shape:
        raise ArgumentTypeError(owner, "A", f"must be one matrix for method Superfast, got {op!r}")
    rules = rules_of(xp)
    if not (rules.has_batched_factors and rules.has_double_precision(device_of(like))):
        text = f"must be of a library with factors in double precision, got {library_of(xp)}, device {device_of(like)}"
        raise ArgumentTypeError(owner, "A", f"{text}; in JAX set jax_enable_x64")
    if rules.is_differentiated([]):  # under torch.func, whose tensors have no values to look at
        raise ArgumentTypeError(owner, "A", "must not be transformed by torch.func for method Superfast; leave it out")
    return series


def series_of(op: LinearOperator, owner: str, xp: Namespace) -> Series:
    """Return an operator as a series, or each of a stack, or raise an error that says why it is none."""
    arrays = op._arrays()
    parts: Any = None
    chosen = None
    if arrays:
        near = op._near(arrays[0], xp)
        chosen = near.chosen
        parts = near.noisy_toeplitz()
    if parts is None or parts[0] is None:
        kind = "a (block) Toeplitz matrix plus a diagonal, or the same rows and columns of such a sum"
        raise ArgumentTypeError(owner, "A", f"must be {kind}, for method Superfast, got {op!r}")
    T, d = parts
    column, adjoint = _first_columns(T, xp)
    c = column / 2 + adjoint / 2
    noise = xp.zeros_like(real_part(c[..., : T.shape[0]], xp)) if d is None else real_part(d, xp)
    diagonal = column[..., :1] if d is None else T._diagonal(xp) + d
    entries = concat_last([diagonal, column[..., 1:]], xp)
    of_adjoint = concat_last([conjugate(diagonal, xp), adjoint[..., 1:]], xp)
    is_hermitian = equals_adjoint(entries, of_adjoint, xp, core=1)
    return Series(op, c, noise, d is None and chosen is None, chosen, is_hermitian, xp)


def _first_columns(T: Toeplitz | BlockToeplitz, xp: Namespace) -> tuple[Array, Array]:
    """Return the first block columns of a matrix and of its adjoint, as `NoisyToeplitz` has them."""
    if isinstance(T, Toeplitz):
        return T.c, conjugate(concat_last([T.c[..., :1], T.r[..., 1:]], xp), xp)
    row = xp.concat([T.c[..., :1, :, :], T.r[..., 1:, :, :]], axis=-3)
    adjoint = conjugate(xp.matrix_transpose(row), xp)
    column, adjoint = (xp.reshape(blocks, (*blocks.shape[:-3], -1)) for blocks in (T.c, adjoint))
    return column, adjoint
