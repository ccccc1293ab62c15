"""Direct factors for the operators that have one: Toeplitz matrices plus diagonals, with rows and columns left out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from structmat._arrays.arithmetic import conjugate, real_part
from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import device_of, library_of, rules_of
from structmat._arrays.shapes import concat_last
from structmat._arrays.typing import Array, Namespace
from structmat._toeplitz_systems import NotWorthwhile, SuperfastFactor
from structmat.operators import LinearOperator

_LIBRARIES = {"numpy", "torch", "jax", "cupy", "array_api_strict"}
"""Libraries with batches of Cholesky and QR factors, in double precision."""

_ALONE = 8192
"""The largest Toeplitz matrix alone for which Levinson's recursion is faster: 65 ms, the factor 45."""

_HERMITIAN = 8.0
"""How far a matrix may be from its adjoint, in units of eps times its largest entry."""


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


def direct_factor(op: LinearOperator, xp: Namespace) -> DirectFactor | None:
    """Return the factor of an operator that has one, None where there is none, or none that is worth its making.

    That is so where T has no blocks of low rank, and where the matrix is not positive definite, as far as the factor
    can tell. In a trace all is NaN then.
    """
    rules = rules_of(xp)
    arrays = op._arrays()
    if op.batch_shape or not arrays or library_of(xp) not in _LIBRARIES or rules.is_differentiated([]):
        return None  # the latter under torch.func, whose tensors have no values to look at
    if xp.result_type(xp.float32, xp.float64) != xp.float64 or str(device_of(arrays[0])).startswith("mps"):
        return None  # JAX without double precision, and devices without it
    whole, chosen = op._whole()
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
    allowed = _HERMITIAN * float(xp.finfo(c.dtype).eps) * xp.max(xp.abs(c))
    hermitian = xp.max(xp.abs(T.c - adjoint)) <= allowed
    if is_complex(noise.dtype, xp):
        hermitian = hermitian & xp.all(xp.imag(noise) == 0.0)
        noise = xp.real(noise)
    if traced:
        noise = xp.where(hermitian, noise, xp.full_like(noise, float("nan")))
    elif not bool(hermitian):
        return None
    there = None if chosen is None else xp.asarray(np.isin(np.arange(chosen.size), chosen.array), device=device_of(c))
    try:
        return DirectFactor(SuperfastFactor(c, noise, there, xp), chosen)
    except (NotWorthwhile, np.linalg.LinAlgError):
        return None
