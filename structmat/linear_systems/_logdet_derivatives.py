"""Derivatives of estimates of log-determinants, by the same random vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from structmat._arrays.dtypes import precision_of
from structmat._arrays.libraries import namespace_of, rules_of
from structmat._arrays.typing import Array, Namespace
from structmat._krylov import inner
from structmat._parametrised import Parametrised
from structmat.linear_systems import _thresholds
from structmat.linear_systems._cg import CG
from structmat.linear_systems._control_variate import exact_logdet, exact_quadratic_forms
from structmat.linear_systems._differentiable import Ways, solve_with_derivatives
from structmat.linear_systems._elimination import ByElimination
from structmat.linear_systems._iteration import ByIteration
from structmat.linear_systems._preconditioner import nearest
from structmat.linear_systems._problem import Options
from structmat.operators import LinearOperator


@dataclass(frozen=True, eq=False)
class _Probes(Parametrised):
    """Random vectors, as a rule of derivatives takes them beside the matrix."""

    _core_axes = {"z": 1}

    z: Array


@dataclass(frozen=True)
class _ByProbes:
    """The rule ``d log det A = tr(A^-1 dA)`` with the mean of ``z^H A^-1 dA z`` for the trace."""

    def inverse(self, A: Any, given: Any, xp: Namespace) -> Array:
        """Return ``A^-1 z``."""
        return solve_for_probes(A, given.z, xp)

    def trace(self, A: Any, inverse: Any, given: Any, xp: Namespace) -> Array:
        """Return the mean over the probes."""
        return xp.mean(inner(inverse, A._matvec(given.z, xp), xp), axis=0)


def with_derivatives(op: LinearOperator, z: Array, value: Array) -> Array:
    """Return the value with derivatives by the same probes, and what the control variate adds to them."""
    xp = namespace_of("slogdet", z)
    estimate = rules_of(xp).log_determinant(_ByProbes(), op, _Probes(z), value)
    for near, use in nearest(op, z, xp):
        values = near.positive(xp)
        known = exact_logdet(near, values, xp)
        known = known - xp.mean(exact_quadratic_forms(near, values, z, xp), axis=0)  # with a mean of zero
        part = known - rules_of(xp).constant(known)
        estimate = estimate + (part if use is None else xp.where(use, part, xp.zeros_like(part)))
    return estimate


def solve_for_probes(op: LinearOperator, z: Array, xp: Namespace) -> Array:
    """Return ``A^-1 z`` for a positive definite A, with derivatives."""
    rtol = _thresholds.SYSTEMS_OF_GRADIENTS[precision_of(z.dtype, xp).itemsize]
    options = Options("slogdet", CG(), rtol, 10_000, by_default=True, positive=True, nearest=True)
    return solve_with_derivatives(op, None, z, Ways((ByIteration(), ByElimination()), options), xp).x
