"""Direct factors for the operators that have one: Toeplitz matrices plus diagonals, with rows and columns left out."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from structmat._arrays.arithmetic import conjugate, real_part
from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import device_of, library_of, rules_of
from structmat._arrays.shapes import concat_last
from structmat._arrays.typing import Array, Namespace
from structmat._toeplitz_systems import RankError, SuperfastFactor
from structmat._toeplitz_systems.thresholds import HERMITIAN
from structmat.linear_systems._stacks import members, with_flat_batch
from structmat.operators import LinearOperator

_LIBRARIES = {"numpy", "torch", "jax", "cupy", "array_api_strict"}
"""Libraries with batches of Cholesky and QR factors, in double precision."""

_ALONE = 8192
"""The largest Toeplitz matrix alone for which Levinson's recursion is faster: 65 ms, the factor 45."""

_MANY = 4
"""Right-hand sides from which on the factor of a matrix without gaps pays: for 100,000 points it takes 0.65 s, and
conjugate gradients, which a circulant preconditions well there, 0.25 s each."""

_HARD = 500.0
"""The sum of the first column, in units of the least noise, from which on the factor of a matrix with gaps pays.

What sets the first entry of the column apart from all others counts as noise. For 2,000 to 100,000 points conjugate
gradients took 1.2 to 4 times as long at 2,500, and 6 to 18 times at 250,000; for the squared exponential of 100,000
points both take 0.7 s near 500.
"""


class DirectFactor(NamedTuple):
    """A factor of the whole grid, and the rows and columns of it that the operator has."""

    factor: SuperfastFactor
    chosen: Any

    @property
    def logdet(self) -> Array:
        """The logarithm of the determinant."""
        return self.factor.logdet

    def solve(self, b: Array, xp: Namespace) -> Array:
        """Return solutions along the last axis, in double precision."""
        if self.chosen is None:
            return self.factor.solve(b)
        return self.chosen._gathered(self.factor.solve(self.chosen._scattered(b, xp)), xp)


def direct_factor(op: LinearOperator, xp: Namespace, *, systems: int | None = None) -> DirectFactor | None:
    """Return the factor of an operator that has one, None where there is none, or none that is worth its making.

    That is so where T has no blocks of low rank, and where the matrix is not positive definite, as far as the factor
    can tell. In a trace all is NaN then. For the solutions of some `systems` it has to be faster than iteration too,
    and the values have to be known.
    """
    rules = rules_of(xp)
    arrays = op._arrays()
    if op.batch_shape or not arrays or library_of(xp) not in _LIBRARIES or rules.is_differentiated([]):
        return None  # the latter under torch.func, whose tensors have no values to look at
    if xp.result_type(xp.float32, xp.float64) != xp.float64 or str(device_of(arrays[0])).startswith("mps"):
        return None  # JAX without double precision, and devices without it
    whole, chosen = op._as_principal_submatrix()
    parts = whole._noisy_toeplitz(arrays[0], xp)
    if parts is None or parts[0] is None:
        return None
    T, d = parts
    traced = any(map(rules.is_traced, arrays))
    if d is None and chosen is None and (traced or op.shape[0] <= _ALONE):
        return None
    adjoint = conjugate(concat_last([T.c[:1], T.r[1:]], xp), xp)  # its first column
    c = (T.c + adjoint) / 2
    noise = xp.zeros_like(real_part(c, xp)) if d is None else d
    allowed = HERMITIAN * float(xp.finfo(c.dtype).eps) * xp.max(xp.abs(c))
    hermitian = xp.max(xp.abs(T.c - adjoint)) <= allowed
    if is_complex(noise.dtype, xp):
        hermitian = hermitian & xp.all(xp.imag(noise) == 0.0)
        noise = xp.real(noise)
    if systems is not None and (traced or not _pays(c, noise, systems, chosen, xp)):
        return None
    if traced:
        noise = xp.where(hermitian, noise, xp.full_like(noise, float("nan")))
    elif not bool(hermitian):
        return None
    there = None if chosen is None else xp.asarray(np.isin(np.arange(chosen.size), chosen.array), device=device_of(c))
    try:
        return DirectFactor(SuperfastFactor(c, noise, there, xp), chosen)
    except (RankError, np.linalg.LinAlgError):
        return None


def direct_logdet(op: LinearOperator, xp: Namespace) -> Array | None:
    """Return logarithms of determinants by direct factors, one after the other for a stack; None as `direct_factor`."""
    batch = op.batch_shape
    if 0 in batch or (batch and rules_of(xp).compiles):
        return None
    flat = with_flat_batch(op, batch, xp)
    logs = []
    for k in range(prod(batch)):
        found = direct_factor(members(flat, k), xp)
        if found is None:
            return None
        logs.append(xp.reshape(found.logdet, ()))
    return xp.reshape(xp.stack(logs), batch) if batch else logs[0]


def _pays(c: Array, noise: Array, systems: int, chosen: Any, xp: Namespace) -> bool:
    """Tell whether a factor is faster than conjugate gradients for some systems."""
    if systems >= _MANY:
        return True
    if chosen is None:
        return False
    sizes = xp.abs(c)
    apart = sizes[0] - xp.max(sizes[1:])  # at least the noise that is part of T
    return bool(xp.sum(sizes) >= _HARD * (xp.min(noise) + apart))
