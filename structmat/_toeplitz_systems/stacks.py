"""Stacks of Toeplitz systems of any library: who computes what, and what their derivatives need.

Up to `thresholds.IN_LIBRARY` rows torch and JAX compute their own systems, on the device of their arrays. All others
are computed with NumPy, on the host: stacks of small matrices all at once, as long as what is found is accepted, and
the rest by `ToeplitzSystem`, one by one. Derivatives are those of the rules of torch and JAX (`structmat._rules`),
which call `SolverOnHost`, `SolverInLibrary` and `TraceOfInverse`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from structmat._arrays.conversion import on_host
from structmat._arrays.dtypes import common_dtype, is_complex, precision_of
from structmat._arrays.libraries import can_raise_for_values, device_of, is_numpy, rules_of
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.shapes import broadcast_shapes
from structmat._arrays.typing import Array, DType, Namespace
from structmat._rules import Solver
from structmat._toeplitz_systems import thresholds
from structmat._toeplitz_systems.accuracy_warnings import warn_of_condition, warn_of_lost_digits
from structmat._toeplitz_systems.inverse import diagonal_sums
from structmat._toeplitz_systems.numpy_stacks import solve_stack
from structmat._toeplitz_systems.small import SmallSystems
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
    """The sign of a real determinant, and one for another one; zero where T is singular. It has no derivative.

    That of a Hermitian matrix is real, and so is this sign: the phase of a negative number would have rounding errors.
    """
    log: Array
    """The logarithm of the determinant over its sign, complex where the matrix is.

    It is zero where the sign is zero, since complex infinities cannot be divided.
    """
    error: Array
    """How far off the logarithm may be beside the rounding of its last sum; zero where it is not asked for."""


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


@dataclass(frozen=True)
class SolverInLibrary(Solver):
    """Solves small systems with Toeplitz operators by elimination of the library, on the device of their arrays.

    Where a matrix is singular, it returns NaN.
    """

    owner: str | None
    """The method that warnings name; None for no warnings."""

    is_traceable = True

    def __call__(self, A: Any, M: None, b: Array, xp: Namespace) -> tuple[Array, tuple[()]]:
        solve = partial(_solve_in_library, eps=_eps(A.c.dtype, xp), xp=xp, owner=self.owner)
        arrays = [*(_with_axes(v, b.ndim, xp) for v in (A.c, A.r)), b]
        (x,) = rules_of(xp).in_double_precision(solve, [(tuple(b.shape), b.dtype)], arrays)
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
    rules, n = rules_of(xp), T.c.shape[-1]
    is_in_library = _is_in_library(T.c, xp)
    solver: Solver = SolverInLibrary(owner) if is_in_library else SolverOnHost(owner)
    looks = rules.has_values(T.c) or not is_in_library  # elimination needs no look, which would cut a graph in two
    if n > thresholds.DENSE and looks and rules.untraced(triangle)(T.c, T.r, xp):
        solver = SolverByNewton(solver)
    x, _ = rules.solution(solver, T, None, b)
    return x


def inverse_vectors(c: Array, r: Array, xp: Namespace, owner: str | None) -> InverseVectors:
    """Return what determines the inverse, without derivatives; a singular matrix is treated as by `solutions`."""
    c, r = _of_one_shape(c, r, xp)
    if is_numpy(xp):
        return vectors_on_host(c, r, owner, strict=True)
    results = [(tuple(c.shape), c.dtype)] * 2
    if _is_in_library(c, xp):
        compute = partial(_vectors_in_library, dtype=c.dtype, xp=xp, owner=owner)
        computed = rules_of(xp).untraced(rules_of(xp).in_double_precision)  # as it looks at values
        return InverseVectors(*computed(compute, results, [c, r]))
    on_numpy = partial(vectors_on_host, owner=owner, strict=can_raise_for_values(xp))
    return InverseVectors(*on_host(on_numpy, results, [c, r], xp))


def log_determinants(c: Array, r: Array, xp: Namespace, owner: str, *, with_error: bool = False) -> LogDeterminants:
    """Return determinants, without derivatives."""
    c, r = _of_one_shape(c, r, xp)
    if is_numpy(xp):
        return log_determinants_on_host(c, r, owner, strict=True, with_error=with_error)
    batch = tuple(c.shape[:-1])
    precision = precision_of(c.dtype, xp)
    results = [(batch, precision), (batch, c.dtype), (batch, precision)]
    if _is_in_library(c, xp):
        eps = _eps(c.dtype, xp)
        compute = partial(_log_determinants_in_library, eps=eps, xp=xp, owner=owner, with_error=with_error)
        return LogDeterminants(*rules_of(xp).in_double_precision(compute, results, [c, r]))
    strict = can_raise_for_values(xp)
    on_numpy = partial(log_determinants_on_host, owner=owner, strict=strict, with_error=with_error)
    return LogDeterminants(*on_host(on_numpy, results, [c, r], xp))


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


def _is_in_library(c: Array, xp: Namespace) -> bool:
    """Tell whether a library computes systems with matrices of these first columns itself."""
    return c.shape[-1] <= thresholds.IN_LIBRARY and rules_of(xp).computes_in_double_precision(device_of(c))


def _eps(dtype: DType, xp: Namespace) -> float:
    """Return the machine epsilon of numbers of a dtype."""
    return float(xp.finfo(precision_of(dtype, xp)).eps)


class _Grouping:
    """How right-hand sides b are grouped by their matrices: those of one matrix become columns."""

    def __init__(self, c: Array, r: Array, b: Array) -> None:
        self.matrices = np.broadcast_shapes(tuple(c.shape[:-1]), tuple(r.shape[:-1]))
        """The batch axes of the matrices."""
        self.shape = np.broadcast_shapes(self.matrices, tuple(b.shape[:-1]))
        """The batch axes of the right-hand sides."""
        axes = len(self.shape)
        lead = (1,) * (axes - len(self.matrices)) + self.matrices
        differ = [axis for axis, size in enumerate(lead) if size != 1]
        shared = [axis for axis, size in enumerate(lead) if size == 1]
        self.order = (*differ, axes, *shared)
        """The axes of vectors, those along which matrices differ first, then the entries."""
        self.count = math.prod(self.matrices)
        self.columns = math.prod([self.shape[axis] for axis in shared])

    def of_matrices(self, v: Array, xp: Namespace) -> Array:
        """Return first columns or first rows in the shape ``(s, n)``."""
        n = v.shape[-1]
        return xp.reshape(_broadcast(v, (*self.matrices, n), xp), (self.count, n))

    def of_columns(self, b: Array, xp: Namespace) -> Array:
        """Return right-hand sides in the shape ``(s, n, k)``."""
        n = b.shape[-1]
        in_order = xp.permute_dims(_broadcast(b, (*self.shape, n), xp), self.order)
        return xp.reshape(in_order, (self.count, n, self.columns))

    def undone(self, x: Array, xp: Namespace) -> Array:
        """Return such columns in the shape that they came in."""
        sizes = (*self.shape, x.shape[1])
        x = xp.reshape(x, tuple([sizes[axis] for axis in self.order]))
        return xp.permute_dims(x, tuple([self.order.index(axis) for axis in range(len(sizes))]))


def _broadcast(v: Array, shape: tuple[int, ...], xp: Namespace) -> Array:
    """Return an array of that shape; itself where it has it, which NumPy would take long to find out."""
    return v if tuple(v.shape) == shape else xp.broadcast_to(v, shape)


# In torch and JAX, for arrays in double precision. A singular matrix has results that are NaN.


def _solve_in_library(c: Array, r: Array, b: Array, eps: float, xp: Namespace, owner: str | None) -> tuple[Array]:
    """Return solutions along the last axis."""
    if is_complex(b.dtype, xp) and not is_complex(c.dtype, xp):
        parts = xp.stack([xp.real(b), xp.imag(b)])
        c, r = (v[None] for v in (c, r))
        (x,) = _solve_in_library(c, r, parts, eps, xp, owner)
        return (x[0, ...] + 1j * x[1, ...],)
    grouping = _Grouping(c, r, b)
    if 0 in grouping.shape:
        return (xp.zeros((*grouping.shape, b.shape[-1]), dtype=b.dtype, device=device_of(b)),)
    systems = SmallSystems(grouping.of_matrices(c, xp), grouping.of_matrices(r, xp), xp, eps)
    x = systems.solve(grouping.of_columns(b, xp))
    if owner and rules_of(xp).has_values(c):
        _warn_of_conditions(systems.condition(), systems.eps, xp, owner)
    return (grouping.undone(x, xp),)


def _vectors_in_library(c: Array, r: Array, dtype: DType, xp: Namespace, owner: str | None) -> tuple[Array, Array]:
    """Return what determines the inverse of each matrix."""
    batch = tuple(c.shape[:-1])
    if 0 in batch:
        return xp.zeros_like(c), xp.zeros_like(c)
    c, r = (xp.reshape(v, (math.prod(batch), v.shape[-1])) for v in (c, r))
    systems = SmallSystems(c, r, xp, _eps(dtype, xp))
    x, y = systems.vectors()
    if owner and rules_of(xp).has_values(c):
        _warn_of_conditions(systems.condition(), systems.eps, xp, owner)
        lost = float(xp.max(systems.lost_digits(x, y, dtype)))
        if lost:
            warn_of_lost_digits(lost, owner)
    return tuple(xp.reshape(v, (*batch, v.shape[-1])) for v in (x, y))


def _log_determinants_in_library(
    c: Array, r: Array, eps: float, xp: Namespace, owner: str | None, *, with_error: bool
) -> tuple[Array, Array, Array]:
    """Return the sign, the logarithm and its error of each determinant, as `LogDeterminants` has them."""
    batch = tuple(c.shape[:-1])
    n = c.shape[-1]
    c, r = (xp.reshape(v, (math.prod(batch), n)) for v in (c, r))
    systems = SmallSystems(c, r, xp, eps)
    sign, log = systems.slogdet()
    error = systems.error_of_slogdet() if with_error else xp.zeros_like(log)
    if owner and rules_of(xp).has_values(c) and 0 not in batch:
        _warn_of_conditions(systems.condition(), systems.eps, xp, owner)
    log = xp.where(sign == 0, xp.zeros_like(log), log)
    if is_complex(sign.dtype, xp):
        real, imaginary = xp.real(sign), xp.imag(sign)
        is_real = imaginary == 0
        angle = xp.atan2(imaginary, real)
        log = log + 1j * xp.where(is_real, xp.zeros_like(angle), angle)
        signs = xp.where(is_real, xp.sign(real), xp.ones_like(real))
        sign = xp.where(xp.isnan(real), real, signs)  # as the sign of NaN is zero in torch
    return tuple(xp.reshape(v, batch) for v in (sign, log, error))


def _warn_of_conditions(condition: Array, eps: float, xp: Namespace, owner: str | None) -> None:
    """Warn of matrices with a condition number above the inverse of the machine epsilon; NaN stands for no solution."""
    found = float(xp.max(xp.where(xp.isnan(condition), xp.zeros_like(condition), condition)))
    if owner and found > 1 / eps:
        warn_of_condition(found, owner)


# For NumPy arrays. If `strict`, a singular matrix is an error; if not, its results are NaN.


def solve_on_host(c: Any, r: Any, b: Any, owner: str | None = None, *, strict: bool = False) -> Any:
    """Return solutions along the last axis; all systems with the same matrix are solved together."""
    dtype = np.result_type(c, b)
    if c.ndim == r.ndim == 1:
        x = np.full(b.shape, np.nan, dtype)
        with nullcontext() if strict else suppress(np.linalg.LinAlgError):
            x[...] = ToeplitzSystem(c, r, owner).solve(b)
        return x
    grouping = _Grouping(c, r, b)
    c, r = (grouping.of_matrices(v, numpy_namespace) for v in (c, r))
    b = grouping.of_columns(b, numpy_namespace)
    if _is_small_stack(c) and b.size:
        wide = np.complex128 if np.iscomplexobj(c) else np.float64
        is_split = np.iscomplexobj(b) and not np.iscomplexobj(c)
        columns = np.concatenate([b.real, b.imag], axis=-1) if is_split else b
        c_wide, r_wide, columns = (v.astype(wide, copy=False) for v in (c, r, columns))
        eps = float(np.finfo(c.dtype).eps)
        x, condition = solve_stack(c_wide, r_wide, columns, eps)
        rest = _rest(condition, eps, owner)
        if is_split:
            real, imaginary = np.split(x, 2, axis=-1)
            x = real + 1j * imaginary
        x = x.astype(dtype, copy=False)
    else:
        x = np.full(b.shape, np.nan, dtype)
        rest = np.arange(len(c))
    for k in rest:
        with nullcontext() if strict else suppress(np.linalg.LinAlgError):
            x[k] = ToeplitzSystem(c[k], r[k], owner).solve(b[k].T).T
    return grouping.undone(x, numpy_namespace)


def vectors_on_host(c: Any, r: Any, owner: str | None = None, *, strict: bool = False) -> InverseVectors:
    """Return what determines the inverse of each matrix."""
    batch, n = c.shape[:-1], c.shape[-1]
    c, r = (np.reshape(v, (-1, n)) for v in (c, r))
    x, y = np.full((2, *c.shape), np.nan, c.dtype)

    def compute(systems: SmallSystems) -> Any:
        vectors = systems.vectors()
        x[...], y[...] = vectors
        return systems.lost_digits(*vectors, c.dtype) == 0

    for k in _one_by_one(c, r, compute, owner):
        with nullcontext() if strict else suppress(np.linalg.LinAlgError):
            x[k], y[k] = ToeplitzSystem(c[k], r[k], owner).inverse_vectors(c.dtype)
    return InverseVectors(np.reshape(x, (*batch, n)), np.reshape(y, (*batch, n)))


def log_determinants_on_host(
    c: Any, r: Any, owner: str | None = None, *, strict: bool = False, with_error: bool = False
) -> LogDeterminants:
    """Return the determinant of each matrix; a singular one has a sign of zero."""
    batch, n = c.shape[:-1], c.shape[-1]
    c, r = (np.reshape(v, (-1, n)) for v in (c, r))
    sign = np.full(len(c), np.nan, c.dtype)
    log, error = np.zeros(len(c)), np.zeros(len(c))

    def compute(systems: SmallSystems) -> bool:
        sign[...], log[...] = systems.slogdet()
        if with_error:
            error[...] = systems.error_of_slogdet()
        return True

    for k in _one_by_one(c, r, compute, owner):
        with nullcontext() if strict else suppress(np.linalg.LinAlgError):
            sign[k], log[k], error[k] = ToeplitzSystem(c[k], r[k], owner).slogdet(with_error=with_error)
    return of_phases(*(np.reshape(each, batch) for each in (sign, log, error)))


def of_phases(phase: Any, log: Any, error: Any) -> LogDeterminants:
    """Return determinants by their phases, of the dtype of the matrices, and the logarithms of their moduli."""
    log = np.where(phase == 0, 0, log)
    error = error.astype(phase.real.dtype)
    if not np.iscomplexobj(phase):
        return LogDeterminants(phase, log.astype(phase.dtype), error)
    is_real = phase.imag == 0
    sign = np.where(np.isnan(phase), np.nan, np.where(is_real, np.sign(phase.real), 1)).astype(phase.real.dtype)
    angle = np.where(is_real, 0, np.angle(phase))
    return LogDeterminants(sign, (log + 1j * angle).astype(phase.dtype), error)


def _is_small_stack(c: Any) -> bool:
    """Tell whether there are several matrices, which are small."""
    return c.shape[0] > 1 and c.shape[1] <= thresholds.DENSE


def _rest(condition: Any, eps: float, owner: str | None) -> Any:
    """Return the indices of the matrices of a stack that are left to `ToeplitzSystem`, and warn of others.

    They are left to it where their condition numbers, of which there are lower bounds, may be above the inverse of the
    machine epsilon of double precision, in which everything is computed.
    """
    is_good = condition * thresholds.NEAR <= 1 / float(np.finfo(float).eps)
    _warn_of_conditions(np.where(is_good, condition, 0), eps, numpy_namespace, owner)
    return np.flatnonzero(~is_good)


def _one_by_one(c: Any, r: Any, compute: Callable[[SmallSystems], Any], owner: str | None) -> Any:
    """Return the indices of the matrices of a stack that are left to `ToeplitzSystem`.

    Of a stack of small matrices, which `compute` treats all at once, these are the ones that may be ill-conditioned, or
    for which it returns False.
    """
    if not _is_small_stack(c):
        return range(len(c))
    wide = np.complex128 if np.iscomplexobj(c) else np.float64
    eps = float(np.finfo(c.dtype).eps)
    with np.errstate(all="ignore"):
        systems = SmallSystems(c.astype(wide), r.astype(wide), numpy_namespace, eps)
        condition = np.where(compute(systems), systems.condition(), np.nan)
    return _rest(condition, eps, owner)


def _of_one_shape(c: Array, r: Array, xp: Namespace) -> list[Array]:
    """Return first columns and first rows with the same batch axes."""
    batch = broadcast_shapes("Toeplitz", tuple(c.shape[:-1]), tuple(r.shape[:-1]))
    return [xp.broadcast_to(v, (*batch, v.shape[-1])) for v in (c, r)]


def _with_axes(v: Array, ndim: int, xp: Namespace) -> Array:
    """Return an array with axes of length one in front, as many as it lacks."""
    return v if v.ndim == ndim else xp.reshape(v, ((1,) * (ndim - v.ndim) + tuple(v.shape)))
