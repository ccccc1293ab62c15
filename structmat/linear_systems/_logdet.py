"""Log-determinants of positive definite operators: closed forms, small dense ones, and Lanczos quadrature."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from structmat._arguments import integer, non_negative, random_generator
from structmat._arrays.arithmetic import conjugate, real_part
from structmat._arrays.dtypes import cast_back, precision_of
from structmat._arrays.libraries import device_of, library_of, namespace_of
from structmat._arrays.tracing import constant, is_differentiated
from structmat._arrays.typing import Array, Namespace
from structmat._errors import ArgumentValueError
from structmat.linear_systems._solve import (
    arrays_of,
    iterations_before_elimination,
    require_operator,
    solution,
    with_arrays,
)
from structmat.linear_systems._systems import ConvergenceError, IterationSettings, Nearest, inner, nearest, probe
from structmat.operators import LinearOperator, Submatrix

_WRITTEN_OUT = 1024
"""Up to so many unknowns the matrix is written out, which takes no longer than an estimate."""

_GAPS = 1 << 22
"""The most missing rows of a grid times its points, for as many numbers are computed then."""

_PROBES = 32
"""The default number of probes."""

_CHUNK = 5
"""The fewest steps between two looks at the quadrature."""

_APART = 1.25
"""The least ratio of the numbers of steps of two looks.

Once Lanczos vectors are no longer orthogonal, values change little over a few steps and much over many. With looks 5
steps apart four of 40 matrices with gaps were 8 to 64 standard errors off, all of condition numbers above 1e9; with
these, none of 400.
"""

_STEPS = 1000
"""The default number of steps, at most."""

_TRACED = 50
"""That of JAX, which makes all steps, inside of a trace."""

_BIAS = 0.1
"""What the quadrature may still be off, in units of the standard error."""

_ROUNDING = 64.0
"""Values of this many units in the last place of the number of unknowns are rounding."""

_MOST_GROUPS = 100
"""Of probes, for a wanted error."""

_SOLUTIONS = {8: 1e-6, 4: 1e-4}
"""The relative residual of the systems that a gradient takes, by the bytes of a number: far below what probes miss."""


class SlogdetEstimate(NamedTuple):
    """Sign and logarithm of a determinant, and how far off the logarithm may be.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> sm.slogdet(sm.Diagonal(np.array([1.0, 1.0]))).standard_error
    array(0.)
    """

    sign: Array
    """1 where the logarithm is an estimate."""
    logabsdet: Array
    """The logarithm of the absolute value, one for each matrix of a stack."""
    standard_error: Array
    """The standard error of `logabsdet`; 0 for a closed form."""


def slogdet(
    A: LinearOperator,
    *,
    n_probes: int | None = None,
    target_error: float | None = None,
    rng: np.random.Generator | int | None = None,
    max_iter: int | None = None,
) -> SlogdetEstimate:
    """Return sign and logarithm of the determinant: by a closed form, else for a positive definite operator.

    Parameters
    ----------
    A : LinearOperator
        A square matrix or a stack of them, on any array library. Where it has no closed form, Hermitian and positive
        definite.
    n_probes : int, optional
        The number of random vectors of an estimate, at least 2. The standard error falls with its square root. Default:
        none up to 1,024 unknowns, where the matrix is written out, or where few are missing on a grid; else 32.
    target_error : float, optional
        The standard error that is wanted: more groups of `n_probes` vectors are added until it is reached. Not under
        ``jax.jit``.
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
        The sign, the logarithm and its standard error.

    Raises
    ------
    numpy.linalg.LinAlgError
        If A has no closed form and is not positive definite. A closed form returns the sign, whatever it is.
    ConvergenceError
        If `max_iter` steps do not suffice, or 100 groups of vectors for `target_error`.
    ValueError
        If A is not square or not Hermitian, or an option is out of range.
    TypeError
        If A is no operator.

    See Also
    --------
    LinearOperator.slogdet : The closed form alone.
    solve : Systems with the same operators.

    Notes
    -----
    Without a closed form it takes a dense Cholesky factor, O(n^3), or an estimate. With a random vector z of signs,
    ``log(det(A))`` is the mean of ``z^H log(A) z``, for which k steps of Lanczos' method give a quadrature rule
    of order 2 k [1]_. Where the nearest circulant (of several levels on a grid) or diagonal matrix M is known, as for
    sums and products of circulant, Toeplitz and diagonal parts, ``log(det(A))`` is ``log(det(M))``, which is exact,
    plus that of ``M^(-1/2) A M^(-1/2)``, which is near the identity: that takes few steps, and its standard error is
    small. Where A is a principal `Submatrix` (a grid with gaps), also with a diagonal matrix added, M is that of the
    whole grid, and ``z^H log(M) z`` is a control variate: it is subtracted for each z, and its exact mean added. If the
    whole matrix has a closed form and few rows are missing, the result is exact: the determinant of the whole times
    that of the missing rows and columns of its inverse.

    Each step costs a product with A and two with roots of M. An estimate has converged where the last fifth of all
    steps shows that what is left is below a tenth of its standard error. Under ``jax.jit`` no value can be looked at:
    an estimate that has not converged is NaN.

    Gradients in torch (reverse mode) and JAX (reverse mode) are unbiased estimates by the same vectors; they take one
    solution for each, by `solve`.

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
    >>> bool(abs(logdet - exact) < 3 * error), bool(error < 1e-3 * abs(exact))
    (True, True)
    """
    owner = "slogdet"
    require_operator(A, owner)
    count = _PROBES if n_probes is None else integer(n_probes, owner, "n_probes", least=2)
    random = random_generator(rng, owner)
    wanted = None if target_error is None else non_negative(target_error, owner, "target_error")
    if A.shape[0] != A.shape[1]:
        raise ArgumentValueError(owner, "A", f"must be square, got shape {A.shape}")
    op, xp = A._to_working_precision(owner)
    with suppress(NotImplementedError):
        sign, log = op._slogdet(xp)
        return _finished(A, sign, log, xp.zeros_like(log), xp)
    if n_probes is None and wanted is None and (known := _exact(op, xp)) is not None:
        return _finished(A, xp.ones_like(known), known, xp.zeros_like(known), xp)
    traced = any(_is_traced(array, xp) for array in op._arrays())
    usual = _TRACED if traced else _STEPS
    steps = usual if max_iter is None else integer(max_iter, owner, "max_iter")
    estimates, probes = [], []
    while True:
        probes.append(_probes(op, count, random, xp))
        estimates.append(_estimates(op, probes[-1], steps, traced, xp))
        estimate = _estimate(xp.concat(estimates, axis=0), xp)
        if wanted is None or traced or bool(xp.all(estimate.standard_error <= wanted)):
            break
        if len(estimates) == _MOST_GROUPS:
            reached = f"{float(xp.max(estimate.standard_error)):.2g} with {_MOST_GROUPS * count} vectors"
            raise ConvergenceError(f"{owner}: the standard error is {reached}, not {wanted:.2g}", estimate)
    log = estimate.logabsdet
    if traced or is_differentiated(op._arrays(), xp):
        z = xp.concat(probes, axis=0)
        in_jax = library_of(xp) == "jax"
        log = _differentiable_in_jax(op, z, log) if in_jax else with_derivatives(op, z, log, _trace_in_torch, xp)
    return _finished(A, estimate.sign, log, estimate.standard_error, xp)


def _exact(op: LinearOperator, xp: Namespace) -> Array | None:
    """Return the logarithm of the determinant where that takes no longer than an estimate: of few rows, or few gaps."""
    if op.shape[0] <= _WRITTEN_OUT:
        dense = op.to_dense()
        if not _is_traced(dense, xp):
            allowed = _ROUNDING * float(xp.finfo(dense.dtype).eps) * xp.max(xp.abs(dense), axis=(-2, -1), keepdims=True)
            _require_hermitian(xp.all(~(xp.abs(dense - _adjoint(dense, xp)) > allowed)))
        return _by_cholesky(dense, xp)
    whole, chosen = op._whole()
    missing = None if chosen is None else chosen._others()
    if missing is None or len(missing) * missing.size > _GAPS:
        return None
    try:
        (sign, log), inverse = whole._slogdet(xp), whole._inv(xp)
        log = log + _by_cholesky(Submatrix(inverse, missing, missing).to_dense(), xp)
    except (NotImplementedError, np.linalg.LinAlgError):
        return None
    return _checked(op, xp.where(real_part(sign, xp) > 0, log, xp.full_like(log, float("nan"))), xp)


def _checked(op: LinearOperator, log: Array, xp: Namespace) -> Array:
    """Return the logarithm of a matrix that is Hermitian, and positive definite as far as some Lanczos steps tell."""
    z = _probes(op, 2, np.random.default_rng(0), xp)
    if _is_traced(log, xp):
        values, _, hermitian = _of_jax().quadrature(op, z, _TRACED, quadrature_of_steps)
        return xp.where(hermitian & xp.all(xp.isfinite(values), axis=0), log, xp.full_like(log, float("nan")))
    with suppress(ConvergenceError):
        _estimates(op, z, _TRACED, False, xp)
    _require_positive(log, xp)
    return log


def _by_cholesky(dense: Array, xp: Namespace) -> Array:
    """Return the logarithm of the determinant of the Hermitian part of a matrix; NaN in a trace of what has none."""
    try:
        factor = xp.linalg.cholesky((dense + _adjoint(dense, xp)) / 2)
    except (np.linalg.LinAlgError, RuntimeError):  # the latter of torch
        factor = xp.full_like(dense, float("nan"))
    diagonal = xp.linalg.diagonal(factor)
    log: Array = 2 * xp.sum(xp.log(real_part(diagonal, xp)), axis=-1)
    if not _is_traced(dense, xp):
        _require_positive(log, xp)
    return log


def _adjoint(dense: Array, xp: Namespace) -> Array:
    return xp.matrix_transpose(conjugate(dense, xp))


def _is_traced(array: Array, xp: Namespace) -> bool:
    return library_of(xp) == "jax" and isinstance(array, sys.modules["jax"].core.Tracer)


def _of_jax() -> Any:
    from structmat.linear_systems import _jax_solvers  # noqa: PLC0415  # JAX is there already

    return _jax_solvers


def _finished(A: LinearOperator, sign: Array, log: Array, error: Array, xp: Namespace) -> SlogdetEstimate:
    return SlogdetEstimate(*(cast_back(value, A.dtype, xp) for value in (sign, log, error)))


# The quadrature


def _known_logdet(near: Nearest, values: Array, xp: Namespace) -> Array:
    """Return the trace of ``log(M)`` for a matrix M near A, over the rows that A has of it.

    That is the mean of ``z^H log(M) z`` with zeros where rows were left out.
    """
    logarithms = near.having(xp.log(values))._diagonal(xp)
    kept = logarithms if near.chosen is None else near.chosen._gathered(logarithms, xp)
    return xp.sum(real_part(kept, xp), axis=-1)


def _known_logs(near: Nearest, values: Array, z: Array, xp: Namespace) -> Array:
    """Return ``z^H log(M) z`` for a matrix M near A, zero put where rows were left out."""
    wide = z if near.chosen is None else near.chosen._scattered(z, xp)
    return inner(wide, near.having(xp.log(values))._matvec(wide, xp), xp)


def _probes(op: LinearOperator, count: int, random: np.random.Generator, xp: Namespace) -> Array:
    signs = 2.0 * random.integers(0, 2, (count, *op.batch_shape, op.shape[0])) - 1.0
    return xp.astype(xp.asarray(signs, device=op.device), op.dtype)


def _estimates(op: LinearOperator, z: Array, steps: int, traced: bool, xp: Namespace) -> Array:
    """Return an estimate of the logarithm of the determinant for each probe, without derivatives."""
    if library_of(xp) == "jax":
        return constant(_quadrature_in_jax(op, z, steps, traced, xp), xp)
    with sys.modules["torch"].no_grad() if library_of(xp) == "torch" else nullcontext():
        return _quadrature(op, z, steps, xp)


def _quadrature(op: LinearOperator, z: Array, steps: int, xp: Namespace) -> Array:
    """Return the estimates by as many steps as they need; JAX makes all steps."""
    _require_hermitian(is_nearly_hermitian(op, z, xp))
    shift, root = preconditioned(op, z, xp)
    op, root = op.prepare(), None if root is None else root.prepare()
    carry = _start(z, shift, xp)
    alphas: list[Array] = []
    betas: list[Array] = []
    found: list[Array] = []
    last, is_small = _last_step(op, steps)
    looks = _looks(last)
    while len(alphas) < last:
        carry, (alpha, beta) = lanczos_step(op, root, carry, xp)
        alphas.append(alpha)
        betas.append(beta)
        if len(alphas) not in looks:
            continue
        found = [*found[-2:], shift + op.shape[0] * gauss(xp.stack(alphas), xp.stack(betas), xp)]
        _require_positive(found[-1], xp)
        if len(found) > 2 and bool(xp.all(is_settled(found, op.shape[0], xp))):
            return found[-1]
    if is_small:
        return _without_quadrature(op, z, xp)
    raise _too_few(steps, found[-1], xp)


def _last_step(op: LinearOperator, steps: int) -> tuple[int, bool]:
    """Return how many steps are made at most, and whether the matrix is written out where these do not suffice.

    In exact arithmetic as many steps as there are unknowns are all. What has not settled by then comes from vectors
    that are no longer orthogonal, and may settle on a wrong value.
    """
    all_steps = max(op.shape[0], 3 * _CHUNK)
    is_small = op.shape[0] <= _WRITTEN_OUT and all_steps <= steps
    return (all_steps, True) if is_small else (steps, False)


def _looks(last: int) -> list[int]:
    """Return the numbers of steps after which the values are looked at, up to the last one."""
    looks = [last]
    while looks[0] > _CHUNK:
        looks.insert(0, max(1, min(looks[0] - _CHUNK, math.floor(looks[0] / _APART))))
    return looks


def _without_quadrature(op: LinearOperator, z: Array, xp: Namespace) -> Array:
    """Return the same estimates by the eigenvectors of the preconditioned matrix, which is written out."""
    shift, root = preconditioned(op, z, xp)
    dense = op.to_dense()
    if root is not None:
        both = root.to_dense()
        dense = xp.matmul(both, xp.matmul(dense, both))
    values, vectors = xp.linalg.eigh((dense + _adjoint(dense, xp)) / 2)
    positive = values > 0.0
    logs = xp.log(xp.where(positive, values, xp.ones_like(values)))
    logs = xp.where(positive, logs, xp.full_like(values, float("nan")))
    parts = xp.matmul(_adjoint(vectors, xp), z[..., None])[..., 0]
    estimates: Array = shift + xp.sum(logs * xp.abs(parts) ** 2, axis=-1)
    if not _is_traced(estimates, xp):
        _require_positive(estimates, xp)
    return estimates


def _quadrature_in_jax(op: LinearOperator, z: Array, steps: int, traced: bool, xp: Namespace) -> Array:
    """Return the same, NaN where a trace does not converge: without one, more and more steps are compiled."""
    last, is_small = _last_step(op, steps)
    if traced and is_small:
        values = _without_quadrature(op, z, xp)
        return xp.where(is_nearly_hermitian(op, z, xp), values, xp.full_like(values, float("nan")))
    count = last if traced else min(last, _TRACED)
    while True:
        values, settled, hermitian = _of_jax().quadrature(op, z, count, quadrature_of_steps)
        if traced:
            return xp.where(settled & hermitian, values, xp.full_like(values, float("nan")))
        _require_hermitian(hermitian)
        _require_positive(values, xp)
        if bool(xp.all(settled)):
            return values
        if count == last:
            break
        count = min(4 * count, last)
    if is_small:
        return _without_quadrature(op, z, xp)
    raise _too_few(steps, values, xp)


def _require_hermitian(found: Array) -> None:
    if not bool(found):
        raise ArgumentValueError("slogdet", "A", "must be Hermitian where it has no closed form")


def _require_positive(values: Array, xp: Namespace) -> None:
    if bool(xp.any(xp.isnan(values))):
        raise np.linalg.LinAlgError("slogdet: the matrix is not positive definite, or holds NaN or infinity")


def _too_few(steps: int, values: Array, xp: Namespace) -> ConvergenceError:
    text = f"slogdet: {steps} Lanczos steps do not suffice; raise max_iter"
    return ConvergenceError(f"{text}. The error's attribute `result` holds the estimate so far", _estimate(values, xp))


def _estimate(values: Array, xp: Namespace) -> SlogdetEstimate:
    """Return mean and standard error of what the probes give."""
    error = xp.std(values, axis=0, correction=1) / math.sqrt(values.shape[0])
    return SlogdetEstimate(xp.ones_like(error), xp.mean(values, axis=0), error)


def is_nearly_hermitian(op: LinearOperator, z: Array, xp: Namespace) -> Array:
    """Tell whether ``v^H A u`` is the conjugate of ``u^H A v`` for two vectors, up to rounding."""
    uneven = probe(op, z, xp)  # without it signs would hide much
    both = xp.stack((z[0, ...] * uneven, z[1, ...]))
    products = op._matvec(both, xp)
    one = xp.sum(both[1, ...] * products[0, ...], axis=-1)
    other = conjugate(xp.sum(both[0, ...] * products[1, ...], axis=-1), xp)  # both vectors are real
    size = xp.sum(xp.abs(products), axis=(0, -1))
    rounding = _ROUNDING * float(xp.finfo(z.dtype).eps) * math.log2(2 * op.shape[0])
    return xp.all(~(xp.abs(one - other) > rounding * size))  # NaN is found later


def preconditioned(op: LinearOperator, z: Array, xp: Namespace) -> tuple[Array, LinearOperator | None]:
    """Return what is known of the estimates, and the root of the inverse of M by which to multiply on both sides."""
    zero = xp.zeros_like(inner(z, z, xp))
    if (near := nearest(op, z, xp)) is None:
        return zero, None
    values = near.positive(xp)
    logdet = _known_logdet(near, values, xp)
    if near.chosen is None:
        return zero + logdet, near.having(values**-0.5)
    return logdet - _known_logs(near, values, z, xp), None


def _start(z: Array, zero: Array, xp: Namespace) -> tuple[Array, Array, Array]:
    return z / math.sqrt(z.shape[-1]), xp.zeros_like(z), xp.zeros_like(zero)


def quadrature_of_steps(op: LinearOperator, z: Array, steps: int, scan: Callable[..., Any], xp: Namespace) -> Any:
    """Return estimates after a number of steps made by `scan`, whether they are settled, and A Hermitian."""
    op = op.prepare()
    hermitian = is_nearly_hermitian(op, z, xp)
    shift, root = preconditioned(op, z, xp)
    root = None if root is None else root.prepare()
    _, (alphas, betas) = scan(
        lambda carry, _: lanczos_step(op, root, carry, xp), _start(z, shift, xp), None, length=steps
    )
    # in one call of eigh: in jaxlib 0.10 calls side by side wait for one another for ever
    place = xp.arange(steps, device=device_of(z))[:, None, *(None,) * (z.ndim - 1)]
    counts = _looks(steps)[-3:]
    count = xp.reshape(xp.asarray(counts, device=device_of(z)), (len(counts), *(1,) * (z.ndim - 1)))
    alphas = xp.where(place < count, alphas[:, None, ...], 1.0)
    betas = xp.where(place < count - 1, betas[:, None, ...], 0.0)
    found = shift + z.shape[-1] * gauss(alphas, betas, xp)
    settled = is_settled(found, z.shape[-1], xp) if len(counts) == 3 else xp.zeros_like(found[-1, ...], dtype=xp.bool)
    return found[-1, ...], settled, hermitian


def lanczos_step(op: LinearOperator, root: LinearOperator | None, carry: Any, xp: Namespace) -> Any:
    """Return the next unit vectors, and what they add to the tridiagonal matrices: 1 and 0 once nothing is left."""
    q, before, beta = carry
    w = op._matvec(q, xp) if root is None else root._matvec(op._matvec(root._matvec(q, xp), xp), xp)
    w = w - beta[..., None] * before
    alpha = inner(q, w, xp)
    w = w - alpha[..., None] * q
    size = xp.sqrt(inner(w, w, xp))
    over = inner(q, q, xp) < 0.5
    ended = over | (size <= 4 * float(xp.finfo(size.dtype).eps) * xp.abs(alpha))
    divisor = xp.where(ended, xp.ones_like(size), size)
    following = xp.where(ended[..., None], xp.zeros_like(w), w / divisor[..., None])
    beta = xp.where(ended, xp.zeros_like(size), size)
    return (following, q, beta), (xp.where(over, xp.ones_like(alpha), alpha), beta)


def gauss(alphas: Array, betas: Array, xp: Namespace) -> Array:
    """Return the first entries of the logarithms of tridiagonal matrices, NaN where one is not positive definite."""
    k = alphas.shape[0]
    a, b = (xp.moveaxis(part, 0, -1) for part in (alphas, betas))
    eye, above = (xp.eye(k, k=j, dtype=a.dtype, device=device_of(a)) for j in (0, 1))
    upper = above * b[..., None]
    matrices = eye * a[..., None] + upper + xp.matrix_transpose(upper)
    finite = xp.all(xp.isfinite(matrices), axis=(-2, -1))
    values, vectors = xp.linalg.eigh(xp.where(finite[..., None, None], matrices, eye))
    logs = xp.log(xp.where(values > 0.0, values, xp.ones_like(values)))
    total = xp.sum(vectors[..., 0, :] ** 2 * logs, axis=-1)
    return xp.where(finite & xp.all(values > 0.0, axis=-1), total, xp.full_like(total, float("nan")))


def is_settled(found: list[Array], n: int, xp: Namespace) -> Array:
    """Tell whether the mean is known to a tenth of its standard error, by the rate at which the last three changed."""
    first, second = (xp.mean(values, axis=0) for values in found[:2])
    _, last, error = _estimate(found[-1], xp)
    before, now = xp.abs(second - first), xp.abs(last - second)
    rounding = _ROUNDING * float(xp.finfo(error.dtype).eps) * (n + xp.abs(last))
    left = now * now / xp.where(before > now, before - now, xp.ones_like(before))
    return (now <= rounding) | ((before > now) & (left <= _BIAS * error) & (now <= error))


# Derivatives, by the same probes


def with_derivatives(op: LinearOperator, z: Array, value: Array, trace: Callable[..., Array], xp: Namespace) -> Array:
    """Return the value with derivatives: the mean of ``z^H A^-1 dA z``, and what the control variate adds to it."""
    estimate = trace(op, z, value)
    if (near := nearest(op, z, xp)) is None:
        return estimate
    values = near.positive(xp)
    known = _known_logdet(near, values, xp)
    known = known - xp.mean(_known_logs(near, values, z, xp), axis=0)  # with a mean of zero
    return estimate + (known - constant(known, xp))


def _differentiable_in_jax(op: LinearOperator, z: Array, value: Array) -> Array:
    return _of_jax().with_derivatives(op, z, value, with_derivatives, (solved, bilinear))


def _trace_in_torch(op: LinearOperator, z: Array, value: Array) -> Array:
    return _trace_of_logarithm(namespace_of("slogdet", z)).apply(op, z, value, *arrays_of(op))


def bilinear(op: LinearOperator, w: Array, z: Array, xp: Namespace) -> Array:
    """Return the mean of ``w^H A z`` over the probes."""
    return xp.mean(inner(w, op._matvec(z, xp), xp), axis=0)


def solved(op: LinearOperator, z: Array, xp: Namespace) -> Array:
    """Return ``A^-1 z`` for a positive definite A."""
    rtol = _SOLUTIONS[precision_of(z.dtype, xp).itemsize]
    is_small = op.shape[0] <= _WRITTEN_OUT
    limit = iterations_before_elimination(op.shape[0]) if is_small else 10_000
    settings = IterationSettings("slogdet", "positive definite", "nearest", rtol, limit, writes_out=is_small)
    return solution(op, z, settings, xp).x


@cache
def _trace_of_logarithm(torch: Namespace) -> Any:
    """Return the function of autograd."""

    class TraceOfLogarithm(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(op: Any, z: Any, value: Any, *arrays: Any) -> Any:  # noqa: ARG004
            return value.clone()

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
            ctx.operator, z, _, *arrays = inputs
            ctx.save_for_backward(z, *arrays)

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            z, *arrays = ctx.saved_tensors
            (op,) = with_arrays([ctx.operator], arrays)
            w = solved(op, z, torch)
            _, pull = torch.func.vjp(lambda *new: bilinear(with_arrays([op], new)[0], w, z, torch), *arrays)
            return (None, None, None, *pull(gradient))

    return TraceOfLogarithm
