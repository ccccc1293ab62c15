"""Log-determinants of any operator: by its closed form, else of a positive definite matrix."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy  # its `linalg` is imported on first use

from structmat._arguments import integer, non_negative, random_generator
from structmat._arrays.arithmetic import real_part
from structmat._arrays.conversion import without_axes_as_scalar
from structmat._arrays.dtypes import cast_back, precision_of, rounding_of_cast
from structmat._arrays.libraries import device_of, is_numpy, rules_of
from structmat._arrays.linear_algebra import (
    cholesky_factors,
    hermitian_part,
    is_exactly_hermitian,
    is_hermitian,
)
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.typing import Array, DType, Namespace
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._ways import settle
from structmat.linear_systems import _thresholds
from structmat.linear_systems._bands import logdet_by_band
from structmat.linear_systems._direct_factor import direct_logdet, may_have_factor
from structmat.linear_systems._even_noise import as_toeplitz
from structmat.linear_systems._hermitian import require_hermitian, require_positive
from structmat.linear_systems._lanczos import Quadrature, estimates_of, mean_of, probes_of
from structmat.linear_systems._logdet_derivatives import with_derivatives
from structmat.linear_systems._logdet_errors import error_of_cholesky, error_of_few_gaps, rounding_of
from structmat.linear_systems._problem import Facts
from structmat.linear_systems._results import Attempt, ConvergenceError, SlogdetEstimate, with_ways
from structmat.linear_systems._solve import require_operator
from structmat.linear_systems._superfast import Superfast
from structmat.linear_systems._written_out import fits_as_last_resort, is_written_out
from structmat.operators import LinearOperator, Submatrix


def slogdet(
    A: LinearOperator,
    *,
    method: Superfast | None = None,
    n_probes: int | None = None,
    target_error: float | None = None,
    rng: np.random.Generator | int | None = None,
    max_iter: int | None = None,
) -> SlogdetEstimate:
    """Return sign and logarithm of the determinant: by a closed form, else for a positive definite operator.

    Parameters
    ----------
    A : LinearOperator
        A square matrix or a stack of them, on any array library. Where it has no closed form and is no narrow band, as
        the notes say, Hermitian and positive definite.
    method : Superfast, optional
        A direct factor with a tolerance or a rank of your own, whether there is a closed form or not. Default: what is
        fastest, as the notes say.
    n_probes : int, optional
        The number of random vectors of an estimate, at least 2. The standard error falls with its square root. With as
        many as there are unknowns, or more, nothing is estimated. Default: none up to 2,000 unknowns, where the matrix
        is written out, none for a Toeplitz matrix plus a diagonal that has a direct factor or is a narrow band, or
        where few are missing on a grid; else 32.
    target_error : float, optional
        The standard error that is wanted. Where that of a direct factor, as was measured, is larger, or `n_probes` asks
        for an estimate, more groups of `n_probes` vectors are added until it is reached. A direct factor is near enough
        at 1e-12 times the sum of the number of unknowns and the modulus of the logarithm. Not under ``jax.jit``.
    rng : numpy.random.Generator or int, optional
        The source of the vectors. In an optimisation give the same integer each time: the estimate is then a smooth
        function.
    max_iter : int, optional
        The most Lanczos steps. Default: 1,000; under ``jax.jit``, where all are made, 50. Up to 1,024 unknowns at most
        as many steps are made as there are unknowns: where an estimate has not converged by then, the matrix is written
        out.

    Returns
    -------
    SlogdetEstimate
        The sign, the logarithm and its standard error: by the spread of the random vectors, such that the truth is
        within two of them in 95 % of cases if that spread is normal. For a few dozen unknowns it is skewed where one
        eigenvalue is far from all others: with 8 vectors 1.6 % of the results were then beyond four.

    Raises
    ------
    numpy.linalg.LinAlgError
        If A has no closed form and is not positive definite. A closed form returns the sign, whatever it is, and so
        does the elimination of a narrow band that is not Hermitian; `method` does not.
    ConvergenceError
        If `max_iter` steps do not suffice, or 100 groups of vectors for `target_error`, and `n_probes` is given or the
        dense matrix takes more than 1.2 GB in double precision (12,247 unknowns), of which two are held.
    ValueError
        If A is not square or not Hermitian, an option is out of range, or `method` does not suffice.
    TypeError
        If A is no operator, or not one of those with the direct factor that is asked for.

    See Also
    --------
    LinearOperator.slogdet : The closed form alone.
    solve : Systems with the same operators.
    Superfast : The direct factor.

    Notes
    -----
    **Series.** The matrix of a series with gaps and uneven noise is a positive definite Toeplitz matrix plus a diagonal
    one, or a `Submatrix` of it with the same rows and columns. Its log-determinant is exact if its blocks beside the
    diagonal have a low rank r, as those of most covariances: 4 for Matérn covariances, and about 30 for a squared
    exponential. A factor in hierarchically semiseparable form then takes O(n r^2) operations for n points, with an
    error near that of elimination; where the covariance vanishes beyond some lag it is that of a band. Where ranks are
    higher, as of quasi-periodic covariances, more is left out of the blocks, up to 1e-6 of the largest entry. The same
    holds for a `BlockToeplitz` matrix in place of the Toeplitz one, as series of a few channels have it. A prepared
    operator keeps the factor for `solve`.

    A band of at most 64 diagonals on either side is factored by LAPACK, at every size and in O(n) memory, on the CPU in
    NumPy and torch where no derivative is asked for. Its error is measured too, or bounded by Gershgorin's circles
    where the diagonal outweighs the rest of each row. A band that is not Hermitian, as of a difference scheme with
    uneven coefficients, is eliminated with exchanges of rows, and its sign returned.

    A Toeplitz matrix plus a diagonal of equal entries is a Toeplitz matrix, with a closed form. Where the error of a
    result is above 1e-3, the next way is asked too, and the result is the one with the smallest error: a direct factor,
    the closed form, and up to 2,000 unknowns a dense factor. A series of more is written out as far as that fits where
    the error is above 1, and up to 4,096 points in place of an estimate where it has no direct factor. Any matrix is
    where a closed form or a direct factor fails, as they do at condition numbers near 1e13 before the dense one does.

    How far off a factor is, this one or a dense one, is measured: by products with A and with the inverse of the
    factor, for random vectors. This is the standard error. It grows with the condition number, as the true error does.
    Of a dense factor it holds the standard deviation of rounding errors as well, for which all columns of the inverse
    are looked at up to 32 unknowns: of 6,750 matrices of 2 to 30 rows with condition numbers up to 1e13 none was
    further off than 0.9 times what was returned, which was about 8 times the true error. That of a closed form, and of
    a grid with few missing rows, is the machine epsilon times the sum of the number of unknowns and the modulus of the
    logarithm, and nothing is measured there: rounding errors are about 1e-16 times the condition number.

    **Transforms.** ``jax.jit``, ``jax.vmap``, `torch.vmap` and ``torch.func.grad`` hide values. The factor is then made
    by NumPy when they become known; a gradient makes it again. Where there is none the result is NaN in JAX, and an
    error in torch: `n_probes` asks for an estimate, which is the same under transforms but for `torch.vmap`.
    `torch.compile` breaks its graph here, and ``fullgraph=True`` is an error. Torch has no forward mode of the factor.

    **Estimates.** Of a matrix without a closed form or such a factor it takes a dense Cholesky factor, in O(n^3)
    operations, or an estimate. With a random vector z of signs, ``log(det(A))`` is the mean of ``z^H log(A) z``, for
    which k steps of Lanczos' method give a quadrature rule of order 2 k [1]_.

    The estimate is made more accurate by a matrix M near A whose determinant is known. ``log(det(A))`` is then
    ``log(det(M))``, which is exact, plus that of ``M^(-1/2) A M^(-1/2)``. This matrix is near the identity, so that few
    steps suffice and the standard error is small. For sums and products of circulant, Toeplitz and diagonal parts M is
    the nearest circulant, of several levels on a grid, or diagonal matrix. For a Kronecker product or sum plus a
    diagonal matrix it is the same with even noise.

    If A is a principal `Submatrix`, as of a grid with gaps, also with a diagonal matrix added, M is the matrix of the
    whole grid. There ``z^H log(M) z`` is a control variate: it is subtracted for each z, and its exact mean is added.
    If the whole matrix has a closed form and few rows are missing, the result is exact: the determinant of the whole
    times that of the missing rows and columns of its inverse.

    Each step costs a product with A and two with roots of M. An estimate has converged if the last fifth of all steps
    shows that the error left is below a tenth of its standard error. Where it has not, and `n_probes` is not given, a
    dense factor is made up to 12,247 unknowns. Under ``jax.jit``, where values are not known, an estimate that has not
    converged is NaN.

    **Gradients.** Those of exact results are exact, in torch (reverse mode) and JAX. Those of estimates (reverse mode)
    are unbiased estimates by the same vectors, and take one solution by `solve` for each of these.

    References
    ----------
    .. [1] Ubaru, S., Chen, J., Saad, Y., Fast estimation of tr(f(A)) via stochastic Lanczos quadrature, SIAM J. Matrix
       Anal. Appl. 38, 2017.

    Examples
    --------
    A covariance matrix with noise of uneven size:

    >>> import numpy as np
    >>> import structmat as sm
    >>> n = 500
    >>> A = sm.Toeplitz(0.9 ** np.arange(n)) + sm.Diagonal(np.linspace(0.1, 0.2, n))
    >>> exact = sm.slogdet(A).logabsdet
    >>> sign, logdet, error = sm.slogdet(A, n_probes=32, rng=0)
    >>> bool(abs(logdet - exact) < 3 * error), bool(error < 2e-3 * abs(exact))
    (True, True)
    """
    owner = "slogdet"
    require_operator(A, owner)
    if A.shape[0] != A.shape[1]:
        raise ArgumentValueError(owner, "A", f"must be square, got shape {A.shape}")
    op, xp = A._to_working_precision(owner)
    return rules_of(xp).untraced(_slogdet)(op, method, n_probes, target_error, rng, max_iter, owner, A.dtype, xp)


def _slogdet(
    op: LinearOperator,
    method: Superfast | None,
    n_probes: int | None,
    target_error: float | None,
    rng: np.random.Generator | int | None,
    max_iter: int | None,
    owner: str,
    dtype: DType,
    xp: Namespace,
) -> SlogdetEstimate:
    """Return the result for an operator in the precision of computations, in the precision of another dtype."""
    count = _thresholds.PROBES if n_probes is None else integer(n_probes, owner, "n_probes", least=2)
    if rng is not None:
        rng = random_generator(rng, owner)
    wanted = None if target_error is None else non_negative(target_error, owner, "target_error")
    if max_iter is not None:
        max_iter = integer(max_iter, owner, "max_iter")
    if method is not None:
        _require_superfast(method, owner, alone=n_probes is None and wanted is None and max_iter is None)
    is_exact = n_probes is None or count >= op.shape[0]  # as many products are the matrix itself
    # What is infinite or NaN is so in the result, which says it better than a warning of NumPy's.
    with rules_of(xp).evaluated(op._arrays()), np.errstate(all="ignore"):
        if method is None and op.shape[0] > _thresholds.WITHOUT_FACTOR:
            op = rules_of(xp).untraced(as_toeplitz)(op, xp)
        problem = _LogDeterminant(op, method, owner, xp)
        found = problem.settled(_WAYS if is_exact else (ByClosedForm(),))
        if found is not None and wanted is not None and not _is_known_within(wanted, found, op.shape[0], xp):
            found = None
        if found is None:
            _require_values_for_estimate(op, owner, xp)
            try:
                found = _by_estimate(op, count, random_generator(rng, owner), wanted, max_iter, owner, xp)
                problem.ways.append(Attempt("estimate", found.standard_error))
            except ConvergenceError as failure:
                problem.ways.append(Attempt("estimate", None, str(failure)))
                if n_probes is not None or not fits_as_last_resort(op):
                    raise
                found = _by_dense_factor(op, xp)
                problem.ways.append(Attempt("dense factor", found.standard_error))
                if wanted is not None and not _is_known_within(wanted, found, op.shape[0], xp):
                    raise
    error = found.standard_error + rounding_of_cast(rules_of(xp).constant(found.logabsdet), dtype, xp)
    found = found._replace(standard_error=error)
    sign, log, error = (without_axes_as_scalar(cast_back(value, dtype, xp)) for value in found)
    result: SlogdetEstimate = with_ways(SlogdetEstimate(sign, log, error), problem.ways)
    return result


def _is_known_within(wanted: float, found: SlogdetEstimate, n: int, xp: Namespace) -> bool:
    """Tell whether all errors are known, and no more than what is wanted or the rounding of an exact method."""
    log = rules_of(xp).constant(found.logabsdet)
    rounding = max(_thresholds.EXACT_LOGARITHM, 4 * float(xp.finfo(log.dtype).eps)) * (n + xp.abs(log))
    is_within = (found.standard_error <= wanted) | (found.standard_error <= rounding)
    return bool(rules_of(xp).concrete(xp.all(is_within)))


def _require_values_for_estimate(op: LinearOperator, owner: str, xp: Namespace) -> None:
    """Raise an error under `torch.vmap`, in which an estimate cannot find out how many steps it takes."""
    rules = rules_of(xp)
    first = [xp.reshape(array, (-1,))[:1] for array in op._arrays()]
    if any(rules.concrete(entry) is None and not rules.is_traced(entry) for entry in first):
        text = "is estimated, for which torch.vmap hides the values: give a stack of operators, without vmap"
        raise ArgumentValueError(owner, "A", text)


class _LogDeterminant(Facts):
    """The log-determinant of a matrix, and the result with the smallest error so far."""

    def __init__(self, op: LinearOperator, method: Superfast | None, owner: str, xp: Namespace) -> None:
        super().__init__(op, xp)
        self.method = method
        """The direct factor that is asked for, of which each failure is an error."""
        self.owner = owner
        self.best: SlogdetEstimate | None = None
        self.failure: Exception | None = None
        """The first error of a way that another one may do without."""
        self.ways: list[Attempt] = []
        """What was tried."""

    @property
    def is_settled(self) -> bool:
        """Whether there is a result that is near enough."""
        return self.best is not None and not _exceeds(self.best, _thresholds.LARGE_ERROR, self.xp)

    def take(self, way: Any, others: list[Any]) -> None:
        """Run a way, and keep its result where that has a smaller error."""
        try:
            found = way.run(self)
        except (np.linalg.LinAlgError, ArgumentValueError) as error:
            # No other way takes what is refused, and under torch.func none can tell whether it has failed too.
            is_last = isinstance(error, ArgumentValueError) or rules_of(self.xp).is_differentiated([])
            if self.method is not None or (is_last and self.best is None):
                raise
            self.failure = self.failure or error  # maybe by rounding errors, which others have not
            self.ways.append(Attempt(way.name, None, str(error)))
            return
        if found is None:
            self.ways.append(Attempt(way.name, None, "there is none"))
            return
        self.ways.append(Attempt(way.name, found.standard_error))
        self.best = found if self.best is None else _of_smaller_error(self.best, found, self.xp)

    def settled(self, ways: Sequence[Any]) -> SlogdetEstimate | None:
        """Return the result by these ways; None where there is none, and no way failed."""
        settle(self, ways)
        if self.best is None and self.failure is not None:
            raise self.failure
        return self.best


def _of_smaller_error(one: SlogdetEstimate, other: SlogdetEstimate, xp: Namespace) -> SlogdetEstimate:
    """Return the result with the smaller error, for each matrix of a stack."""
    better = other.standard_error < one.standard_error  # false for NaN
    if rules_of(xp).concrete(xp.all(better)):
        return other
    return SlogdetEstimate(*(xp.where(better, new, old) for new, old in zip(other, one, strict=True)))


def _exceeds(found: SlogdetEstimate, error: float, xp: Namespace) -> bool:
    """Tell whether the error of some matrix exceeds a number; not where values are hidden."""
    return bool(rules_of(xp).concrete(xp.any(found.standard_error > error)))


def _by_band(op: LinearOperator, xp: Namespace) -> SlogdetEstimate | None:
    """Return the result of a narrow band; None for other matrices."""
    known = rules_of(xp).untraced(logdet_by_band)(op, xp)
    if known is None:
        return None
    precision, device = precision_of(op.dtype, xp), device_of(op._arrays()[0])
    sign = xp.asarray(known.sign, dtype=op.dtype, device=device)
    log, error = (xp.asarray(each, dtype=precision, device=device) for each in (known.log, known.error))
    return _with_rounding(sign, log, error, op, xp)


def _by_direct_factor(
    op: LinearOperator, method: Superfast | None, owner: str, xp: Namespace
) -> SlogdetEstimate | None:
    measured = rules_of(xp).untraced(direct_logdet)(op, xp, method, owner)
    if measured is None:
        return None
    log, error = (xp.astype(value, precision_of(op.dtype, xp)) for value in measured)
    return _of_positive(log, error + rounding_of(log, op.shape[0], xp), op, xp)


def _by_dense_factor(op: LinearOperator, xp: Namespace) -> SlogdetEstimate:
    """Return the result by the dense matrix."""
    log, error = _of_dense(op, xp)
    return _of_positive(log, error, op, xp)


def _of_positive(log: Array, error: Array, op: LinearOperator, xp: Namespace) -> SlogdetEstimate:
    """Return the result of a positive definite matrix, with a sign of the dtype of that matrix, as `numpy.linalg`."""
    return SlogdetEstimate(xp.ones_like(log, dtype=op.dtype), log, error)


def _in_closed_form(op: LinearOperator, xp: Namespace) -> SlogdetEstimate | None:
    with suppress(NotImplementedError):
        sign, log, error = op._slogdet_and_error(xp)
        return _with_rounding(sign, log, error, op, xp)
    return None


def _with_rounding(sign: Array, log: Array, error: Array, op: LinearOperator, xp: Namespace) -> SlogdetEstimate:
    """Return a result whose error holds the rounding of the sum of logarithms as well."""
    return SlogdetEstimate(sign, log, error + rounding_of(log, op.shape[0], xp))


def _by_estimate(
    op: LinearOperator,
    count: int,
    random: np.random.Generator,
    wanted: float | None,
    max_iter: int | None,
    owner: str,
    xp: Namespace,
) -> SlogdetEstimate:
    """Return an estimate by groups of `count` probes, of which there are as many as the wanted error takes."""
    traced = any(rules_of(xp).is_traced(array) for array in op._arrays())
    usual = _thresholds.STEPS_OF_TRACE if traced else _thresholds.STEPS
    steps = usual if max_iter is None else max_iter
    estimates, probes = [], []
    while True:
        probes.append(probes_of(op, count, random, xp))
        estimates.append(estimates_of(op, probes[-1], steps, traced, xp))
        estimate = mean_of(xp.concat(estimates, axis=0), xp)
        if wanted is None or traced or bool(xp.all(estimate.standard_error <= wanted)):
            break
        if len(estimates) == _thresholds.MOST_GROUPS:
            reached = f"{float(xp.max(estimate.standard_error)):.2g} with {_thresholds.MOST_GROUPS * count} vectors"
            raise ConvergenceError(f"{owner}: the standard error is {reached}, not {wanted:.2g}", estimate)
    log = estimate.logabsdet
    if traced or rules_of(xp).is_differentiated(op._arrays()):
        z = xp.concat(probes, axis=0)
        log = rules_of(xp).compiled(with_derivatives)(op, z, log)
    return _of_positive(log, estimate.standard_error, op, xp)


def _require_superfast(method: object, owner: str, *, alone: bool) -> None:
    """Raise an error unless a method is `Superfast`, and no estimate is asked for beside it."""
    if not isinstance(method, Superfast):
        got = "the class itself; call it: Superfast()" if method is Superfast else repr(method)
        raise ArgumentTypeError(owner, "method", f"must be Superfast() or None, got {got}")
    if not alone:
        text = "a direct factor takes no n_probes, target_error or max_iter, which are those of estimates"
        raise ArgumentValueError(owner, "method", text)


def _of_dense(op: LinearOperator, xp: Namespace) -> tuple[Array, Array]:
    """Return the logarithm of the determinant by a dense factor, and how far off it may be, as was measured."""
    dense = op.to_dense()
    if is_numpy(xp) and dense.ndim == 2 and is_exactly_hermitian(dense):
        log, factor = _by_lapack(dense)
        return log, error_of_cholesky(factor, dense, xp)
    hermitian = is_hermitian(dense, xp)
    known = rules_of(xp).concrete(xp.all(hermitian))
    if known is not None:
        require_hermitian(known)
    log, factor = _by_cholesky(dense, xp)
    return xp.where(hermitian, log, xp.full_like(log, float("nan"))), error_of_cholesky(factor, dense, xp)


def _by_few_missing(op: LinearOperator, xp: Namespace) -> SlogdetEstimate | None:
    """Return the result by that of a grid of which few rows are missing; None where there is none."""
    known = _by_few_gaps(op, xp)
    return None if known is None else _of_positive(*known, op, xp)


def _by_lapack(dense: Any) -> tuple[Any, Any]:
    """Return the same as `_by_cholesky` of a Hermitian matrix of NumPy, with one more array as large alone."""
    try:
        factor = scipy.linalg.cholesky(dense, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        factor = np.full((1, 1), np.nan)
    log = 2 * np.sum(np.log(np.diagonal(factor).real))
    require_positive(log, numpy_namespace)
    return log, factor


def _by_few_gaps(op: LinearOperator, xp: Namespace) -> tuple[Array, Array] | None:
    """Return the logarithm of the determinant of a matrix of which few rows are missing, by that of the whole.

    The second array is how far off it may be: the error of the whole, and what is measured of the rest.
    """
    near = op._near(next(iter(op._arrays()), xp.ones(1)), xp)
    whole, chosen = near.whole, near.chosen
    missing = None if chosen is None else chosen._others()
    if missing is None or len(missing) * missing.size > _thresholds.GAPS:
        return None
    try:
        sign, log, error = whole._slogdet_and_error(xp)
        inverse = whole._inv(xp)
        of_missing = Submatrix(inverse, missing, missing).to_dense()
        log_of_missing, factor = _by_cholesky(of_missing, xp)
    except (NotImplementedError, np.linalg.LinAlgError):
        return None
    log = log + log_of_missing
    error = error + error_of_cholesky(factor, of_missing, xp) + error_of_few_gaps(op, inverse, near, factor, xp)
    log = _checked(op, xp.where(real_part(sign, xp) > 0, log, xp.full_like(log, float("nan"))), xp)
    return log, error + rounding_of(log, whole.shape[0], xp)


def _checked(op: LinearOperator, log: Array, xp: Namespace) -> Array:
    """Return the logarithm of a matrix that is Hermitian, and positive definite as far as some Lanczos steps tell."""
    z = probes_of(op, 2, np.random.default_rng(0), xp)
    if rules_of(xp).is_traced(log):
        values, _, hermitian = rules_of(xp).compiled(Quadrature(_thresholds.STEPS_OF_TRACE))(op, z)
        return xp.where(hermitian & xp.all(xp.isfinite(values), axis=0), log, xp.full_like(log, float("nan")))
    with suppress(ConvergenceError):
        estimates_of(op, z, _thresholds.STEPS_OF_TRACE, False, xp)
    require_positive(log, xp)
    return log


def _by_cholesky(dense: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the logarithm of the determinant of the Hermitian part of a matrix, and its Cholesky factor.

    Both are NaN where nothing is known yet of a matrix that is not positive definite.
    """
    try:
        factor = cholesky_factors(hermitian_part(dense, xp), xp)
    except np.linalg.LinAlgError:  # of NumPy
        factor = xp.full_like(dense, float("nan"))
    diagonal = xp.linalg.diagonal(factor)
    log: Array = 2 * xp.sum(xp.log(real_part(diagonal, xp)), axis=-1)
    if rules_of(xp).concrete(log) is not None:
        require_positive(log, xp)
    return log, factor


@dataclass(frozen=True)
class ByClosedForm:
    """The way to a determinant by the closed form of an operator."""

    name: ClassVar[str] = "closed form"

    def cost(self, problem: _LogDeterminant) -> float | None:
        """Return 0 up to 1,024 rows, as nothing takes less; a recursion of more takes as many steps as rows."""
        rows = problem.operator.shape[0]
        return 0.0 if rows <= _thresholds.WITHOUT_FACTOR else rows

    def run(self, problem: _LogDeterminant) -> SlogdetEstimate | None:
        """Return the result; None where there is no closed form."""
        return _in_closed_form(problem.operator, problem.xp)


@dataclass(frozen=True)
class ByBand:
    """The way to a determinant by the factors of a narrow band."""

    name: ClassVar[str] = "band"

    def cost(self, problem: _LogDeterminant) -> float | None:
        """Return 1, as only a closed form of few rows takes less; whether it is a band is found out with its factor."""
        return 1.0 if problem.method is None else None

    def run(self, problem: _LogDeterminant) -> SlogdetEstimate | None:
        """Return the result; None where the matrix is no band."""
        return _by_band(problem.operator, problem.xp)


@dataclass(frozen=True)
class ByFactor:
    """The way to a determinant by a direct factor."""

    name: ClassVar[str] = "direct factor"

    def cost(self, problem: _LogDeterminant) -> float | None:
        """Return the rows from which on it takes less than other ways, 0 where it is asked for; None for fewer."""
        if problem.method is not None:
            return 0.0 if not problem.ways else None
        return _thresholds.WITHOUT_FACTOR if problem.operator.shape[0] > _thresholds.WITHOUT_FACTOR else None

    def run(self, problem: _LogDeterminant) -> SlogdetEstimate | None:
        """Return the result; None where there is no factor."""
        return _by_direct_factor(problem.operator, problem.method, problem.owner, problem.xp)


@dataclass(frozen=True)
class ByDenseFactor:
    """The way to a determinant by Cholesky's factor of the dense matrix."""

    name: ClassVar[str] = "dense factor"

    def cost(self, problem: _LogDeterminant) -> float | None:
        """Return the entries; None where these do not fit, or a large matrix has a result that is near enough.

        Up to 12,247 rows a matrix is written out where others fail, and a series where their results are far off.
        """
        op, best = problem.operator, problem.best
        if problem.method is not None:
            return None
        if not is_written_out(op):
            if not fits_as_last_resort(op):
                return None
            if not (best is None and problem.failure is not None):
                if not problem.once(may_have_factor):
                    return None
                if best is None:
                    is_worth_it = op.shape[0] <= _thresholds.DENSE_SERIES
                else:
                    is_worth_it = _exceeds(best, _thresholds.FAR_OFF, problem.xp)
                if not is_worth_it:
                    return None
        return op.shape[0] ** 2

    def run(self, problem: _LogDeterminant) -> SlogdetEstimate | None:
        """Return the result."""
        return _by_dense_factor(problem.operator, problem.xp)


@dataclass(frozen=True)
class ByFewMissing:
    """The way to a determinant by that of a whole grid of which few rows are missing, where there is no other."""

    name: ClassVar[str] = "grid with few missing"

    def cost(self, problem: _LogDeterminant) -> float | None:
        """Return the entries, as of a dense matrix, which comes first; None where there is a result, or a failure."""
        has_other = problem.method is not None or problem.best is not None or problem.failure is not None
        return None if has_other else problem.operator.shape[0] ** 2

    def run(self, problem: _LogDeterminant) -> SlogdetEstimate | None:
        """Return the result; None where the matrix is no such grid."""
        return _by_few_missing(problem.operator, problem.xp)


_WAYS: tuple[Any, ...] = (ByFactor(), ByClosedForm(), ByBand(), ByDenseFactor(), ByFewMissing())
"""The ways to an exact result. The cheapest that is near enough is taken, else the nearest."""
