"""Estimates of log-determinants by random vectors and the quadrature rules of Lanczos' method."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # its `special` is imported on first use

from structmat._arrays.libraries import device_of, namespace_of, rules_of
from structmat._arrays.linear_algebra import adjoint, hermitian_part
from structmat._arrays.typing import Array, Namespace
from structmat._krylov import inner
from structmat.linear_systems import _thresholds
from structmat.linear_systems._control_variate import preconditioned
from structmat.linear_systems._hermitian import is_nearly_hermitian, require_hermitian, require_positive
from structmat.linear_systems._results import ConvergenceError, SlogdetEstimate
from structmat.operators import LinearOperator

_WITHIN_TWO = 0.9772498680518208
"""How often a normal variable is less than two standard deviations above its mean."""


def probes_of(op: LinearOperator, count: int, random: np.random.Generator, xp: Namespace) -> Array:
    signs = 2.0 * random.integers(0, 2, (count, *op.batch_shape, op.shape[0])) - 1.0
    return xp.astype(xp.asarray(signs, device=op.device), op.dtype)


def estimates_of(op: LinearOperator, z: Array, steps: int, traced: bool, xp: Namespace) -> Array:
    """Return an estimate of the logarithm of the determinant for each probe, without derivatives."""
    rules = rules_of(xp)
    if rules.compiles:
        return rules.constant(_quadrature_in_jax(op, z, steps, traced, xp))
    with rules.unrecorded():
        return _quadrature(op, z, steps, xp)


def _quadrature(op: LinearOperator, z: Array, steps: int, xp: Namespace) -> Array:
    """Return the estimates by as many steps as they need; JAX makes all steps."""
    require_hermitian(is_nearly_hermitian(op, z, xp))
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
        require_positive(found[-1], xp)
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
    all_steps = max(op.shape[0], 3 * _thresholds.STEPS_APART)
    is_small = op.shape[0] <= _thresholds.WITH_EIGENVECTORS and all_steps <= steps
    return (all_steps, True) if is_small else (steps, False)


def _looks(last: int) -> list[int]:
    """Return the numbers of steps after which the values are looked at, up to the last one."""
    looks = [last]
    while looks[0] > _thresholds.STEPS_APART:
        looks.insert(
            0, max(1, min(looks[0] - _thresholds.STEPS_APART, math.floor(looks[0] / _thresholds.RATIO_OF_LOOKS)))
        )
    return looks


def _without_quadrature(op: LinearOperator, z: Array, xp: Namespace) -> Array:
    """Return the same estimates by the eigenvectors of the preconditioned matrix, which is written out."""
    shift, root = preconditioned(op, z, xp)
    dense = op.to_dense()
    if root is not None:
        both = root.to_dense()
        dense = xp.matmul(both, xp.matmul(dense, both))
    values, vectors = xp.linalg.eigh(hermitian_part(dense, xp))
    positive = values > 0.0
    logs = xp.log(xp.where(positive, values, xp.ones_like(values)))
    logs = xp.where(positive, logs, xp.full_like(values, float("nan")))
    parts = xp.matmul(adjoint(vectors, xp), z[..., None])[..., 0]
    estimates: Array = shift + xp.sum(logs * xp.abs(parts) ** 2, axis=-1)
    if not rules_of(xp).is_traced(estimates):
        require_positive(estimates, xp)
    return estimates


def _quadrature_in_jax(op: LinearOperator, z: Array, steps: int, traced: bool, xp: Namespace) -> Array:
    """Return the same, NaN where a trace does not converge: without one, more and more steps are compiled."""
    last, is_small = _last_step(op, steps)
    if traced and is_small:
        values = _without_quadrature(op, z, xp)
        return xp.where(is_nearly_hermitian(op, z, xp), values, xp.full_like(values, float("nan")))
    count = last if traced else min(last, _thresholds.STEPS_OF_TRACE)
    while True:
        values, settled, hermitian = rules_of(xp).compiled(Quadrature(count))(op, z)
        if traced:
            return xp.where(settled & hermitian, values, xp.full_like(values, float("nan")))
        require_hermitian(hermitian)
        require_positive(values, xp)
        if bool(xp.all(settled)):
            return values
        if count == last:
            break
        count = min(4 * count, last)
    if is_small:
        return _without_quadrature(op, z, xp)
    raise _too_few(steps, values, xp)


def _too_few(steps: int, values: Array, xp: Namespace) -> ConvergenceError:
    text = f"slogdet: {steps} Lanczos steps do not suffice; raise max_iter, or factor A.to_dense()"
    return ConvergenceError(f"{text}. The error's attribute `result` holds the estimate so far", mean_of(values, xp))


def mean_of(values: Array, xp: Namespace) -> SlogdetEstimate:
    """Return the mean and the standard error of the estimates of all probes.

    The spread of few values is itself uncertain: it is multiplied so that, by Student's distribution, the truth is as
    often within two standard errors as for a known spread. For 12 unknowns and 8 probes 5.6 % were beyond two, and
    9.1 % without the factor.
    """
    count = values.shape[0]
    error = float(scipy.special.stdtrit(count - 1, _WITHIN_TWO)) / 2 * _standard_error(values, xp)
    return SlogdetEstimate(xp.ones_like(error), xp.mean(values, axis=0), error)


def _standard_error(values: Array, xp: Namespace) -> Array:
    error: Array = xp.std(values, axis=0, correction=1) / math.sqrt(values.shape[0])
    return error


def _start(z: Array, zero: Array, xp: Namespace) -> tuple[Array, Array, Array]:
    return z / math.sqrt(z.shape[-1]), xp.zeros_like(z), xp.zeros_like(zero)


@dataclass(frozen=True)
class Quadrature:
    """Returns estimates after a number of steps, whether they are settled, and A Hermitian."""

    steps: int

    def __call__(self, op: LinearOperator, z: Array) -> tuple[Array, Array, Array]:
        xp = namespace_of("slogdet", z)
        return _quadrature_of_steps(op, z, self.steps, xp)


def _quadrature_of_steps(op: LinearOperator, z: Array, steps: int, xp: Namespace) -> tuple[Array, Array, Array]:
    op = op.prepare()
    hermitian = is_nearly_hermitian(op, z, xp)
    shift, root = preconditioned(op, z, xp)
    root = None if root is None else root.prepare()
    _, (alphas, betas) = rules_of(xp).scan(
        lambda carry, _: lanczos_step(op, root, carry, xp), _start(z, shift, xp), xp.arange(steps, device=device_of(z))
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
    """Return the next Lanczos vectors, and the next entries of the tridiagonal matrices.

    Once the Krylov space is complete, the vectors are zero and the entries 1 and 0.
    """
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
    last, error = xp.mean(found[-1], axis=0), _standard_error(found[-1], xp)
    before, now = xp.abs(second - first), xp.abs(last - second)
    rounding = _thresholds.ROUNDING_OF_LOGARITHM * float(xp.finfo(error.dtype).eps) * (n + xp.abs(last))
    left = now * now / xp.where(before > now, before - now, xp.ones_like(before))
    return (now <= rounding) | ((before > now) & (left <= _thresholds.BIAS * error) & (now <= error))
