"""Stacks of Toeplitz systems of any library, which are solved with NumPy, and what their derivatives need.

For arrays of other libraries values are computed on the host, by `ToeplitzSystem`. Derivatives are those of the rules
of torch and JAX (`structmat._rules`), which call `SolverOnHost` and `TraceOfInverse`.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from structmat._arrays.conversion import on_host
from structmat._arrays.dtypes import common_dtype, precision_of
from structmat._arrays.libraries import can_raise_for_values, is_numpy, rules_of
from structmat._arrays.shapes import broadcast_shapes
from structmat._arrays.typing import Array, Namespace
from structmat._rules import Solver
from structmat._toeplitz_systems import thresholds
from structmat._toeplitz_systems.inverse import diagonal_sums
from structmat._toeplitz_systems.system import ToeplitzSystem
from structmat._toeplitz_systems.triangular import SolverByNewton, triangle


class InverseVectors(NamedTuple):
    """What determines the inverse of a Toeplitz matrix T, or of each of a stack."""

    x: Array
    """``T x = e_0``, shape ``(..., n)``; NaN where T is singular, in torch and JAX."""
    y: Array
    """``T y = (s, t[1 - n], ..., t[-1])`` with some s."""


class LogDeterminants(NamedTuple):
    """The determinant of a Toeplitz matrix, or of each of a stack."""

    sign: Array
    """The sign of a real determinant, and one for a complex one; zero where T is singular. It has no derivative."""
    log: Array
    """The logarithm of the absolute value of a real determinant, or of a complex determinant itself.

    It is zero where the sign is zero, since complex infinities cannot be divided.
    """


# For arrays of any library


@dataclass(frozen=True)
class SolverOnHost(Solver):
    """Solves systems with Toeplitz operators by NumPy, for the implicit rule of a library.

    Where a matrix is singular, it raises an error if the library allows that, and else returns NaN.
    """

    owner: str | None
    """The method that warnings and errors name; None for no warnings."""

    def __call__(self, A: Any, M: None, b: Array, xp: Namespace) -> tuple[Array, tuple[()]]:
        solve = partial(solve_on_host, owner=self.owner, strict=can_raise_for_values(xp))
        c, r = (_with_axes(v, b.ndim, xp) for v in (A.c, A.r))
        (x,) = on_host(lambda c, r, b: (solve(c, r, b),), [(tuple(b.shape), b.dtype)], [c, r, b], xp)
        return x, ()


def solutions(T: Any, b: Array, xp: Namespace, owner: str | None) -> Array:
    """Return x with ``T x = b`` along the last axis for a Toeplitz operator T, on behalf of a method.

    A singular matrix gives NaN in torch and JAX, and is an error in other libraries.
    """
    if is_numpy(xp):
        return solve_on_host(T.c, T.r, b, owner, strict=True)
    shape = broadcast_shapes("Toeplitz", tuple(T.c.shape[:-1]), tuple(T.r.shape[:-1]), tuple(b.shape[:-1]))
    dtype = common_dtype(xp, T.c, b)
    b = b if b.dtype == dtype else xp.astype(b, dtype)
    b = xp.broadcast_to(b, (*shape, b.shape[-1]))
    rules = rules_of(xp)
    solver: Solver = SolverOnHost(owner)
    if T.c.shape[-1] > thresholds.DENSE and rules.untraced(triangle)(T.c, T.r, xp):
        solver = SolverByNewton(solver)
    x, _ = rules.solution(solver, T, None, b)
    return x


def inverse_vectors(c: Array, r: Array, xp: Namespace, owner: str | None) -> InverseVectors:
    """Return what determines the inverse, without derivatives; a singular matrix is treated as by `solutions`."""
    c, r = _of_one_shape(c, r, xp)
    compute = partial(vectors_on_host, owner=owner, strict=can_raise_for_values(xp))
    if is_numpy(xp):
        return compute(c, r)
    return InverseVectors(*on_host(compute, [(tuple(c.shape), c.dtype)] * 2, [c, r], xp))


def log_determinants(c: Array, r: Array, xp: Namespace, owner: str) -> LogDeterminants:
    """Return determinants, without derivatives."""
    c, r = _of_one_shape(c, r, xp)
    compute = partial(log_determinants_on_host, owner=owner, strict=can_raise_for_values(xp))
    if is_numpy(xp):
        return compute(c, r)
    batch = tuple(c.shape[:-1])
    return LogDeterminants(*on_host(compute, [(batch, precision_of(c.dtype, xp)), (batch, c.dtype)], [c, r], xp))


@dataclass(frozen=True)
class TraceOfInverse:
    """What the derivative of the determinant of a Toeplitz operator needs: sums along the diagonals of its inverse."""

    def inverse(self, A: Any, given: None, xp: Namespace) -> tuple[Array, Array]:
        """Return the two vectors that determine the inverse."""
        inverse = A._inverse_by_vectors(xp)
        return inverse.x, inverse.y

    def trace(self, A: Any, inverse: tuple[Array, Array], given: None, xp: Namespace) -> Array:
        """Return the trace of the inverse times A, by sums along the diagonals of the inverse."""
        upward, downward = diagonal_sums(*inverse, xp)
        return xp.sum(upward * A.c + downward * A.r, axis=-1)


def _of_one_shape(c: Array, r: Array, xp: Namespace) -> list[Array]:
    """Return first columns and first rows with the same batch axes."""
    batch = broadcast_shapes("Toeplitz", tuple(c.shape[:-1]), tuple(r.shape[:-1]))
    return [xp.broadcast_to(v, (*batch, v.shape[-1])) for v in (c, r)]


def _with_axes(v: Array, ndim: int, xp: Namespace) -> Array:
    """Return an array with axes of length one in front, as many as it lacks."""
    return v if v.ndim == ndim else xp.reshape(v, ((1,) * (ndim - v.ndim) + tuple(v.shape)))


# For NumPy arrays. If `strict`, a singular matrix is an error; if not, its results are NaN.


def solve_on_host(c: Any, r: Any, b: Any, owner: str | None = None, *, strict: bool = False) -> Any:
    """Return solutions along the last axis; all systems with the same matrix are solved together."""
    matrices = np.broadcast_shapes(c.shape[:-1], r.shape[:-1])
    shape = np.broadcast_shapes(matrices, b.shape[:-1])
    n = c.shape[-1]
    c, r = (np.broadcast_to(v, (*matrices, n)) for v in (c, r))
    b = np.broadcast_to(b, (*shape, n))
    x = np.full(b.shape, np.nan, np.result_type(c, b))
    lead = (1,) * (len(shape) - len(matrices)) + matrices
    for index in np.ndindex(lead):
        vectors = tuple(i if size > 1 else slice(None) for i, size in zip(index, lead, strict=True))
        matrix = index[len(lead) - len(matrices) :]
        with nullcontext() if strict else suppress(np.linalg.LinAlgError):
            x[vectors] = ToeplitzSystem(c[matrix], r[matrix], owner).solve(b[vectors])
    return x


def vectors_on_host(c: Any, r: Any, owner: str | None = None, *, strict: bool = False) -> InverseVectors:
    """Return what determines the inverse of each matrix."""
    c, r = np.broadcast_arrays(c, r)
    x, y = np.full((2, *c.shape), np.nan, c.dtype)
    for index in np.ndindex(c.shape[:-1]):
        with nullcontext() if strict else suppress(np.linalg.LinAlgError):
            x[index], y[index] = ToeplitzSystem(c[index], r[index], owner).inverse_vectors(c.dtype)
    return InverseVectors(x, y)


def log_determinants_on_host(c: Any, r: Any, owner: str | None = None, *, strict: bool = False) -> LogDeterminants:
    """Return the determinant of each matrix; a singular one has a sign of zero."""
    c, r = np.broadcast_arrays(c, r)
    sign = np.full(c.shape[:-1], np.nan, c.dtype)
    log = np.zeros(c.shape[:-1])
    for index in np.ndindex(c.shape[:-1]):
        with nullcontext() if strict else suppress(np.linalg.LinAlgError):
            sign[index], log[index] = ToeplitzSystem(c[index], r[index], owner).slogdet()
    return of_phases(sign, log)


def of_phases(phase: Any, log: Any) -> LogDeterminants:
    """Return determinants by their phases, in the dtype of the matrices, and the logarithms of their moduli."""
    log = np.where(phase == 0, 0, log)
    if not np.iscomplexobj(phase):
        return LogDeterminants(phase, log.astype(phase.dtype))
    regular = np.where(np.isnan(phase), np.nan, phase != 0).astype(phase.real.dtype)
    return LogDeterminants(regular, (log + 1j * np.angle(phase)).astype(phase.dtype))
