"""Direct factors of series as ways to solutions and log-determinants: which factor takes less time than other ways."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from structmat._arrays.libraries import rules_of
from structmat._arrays.typing import Array, Namespace
from structmat._errors import ArgumentError, ArgumentValueError
from structmat._toeplitz_systems import RankError
from structmat.linear_systems import _thresholds
from structmat.linear_systems._problem import Candidate, LinearSystem
from structmat.linear_systems._results import Solutions
from structmat.linear_systems._stack_members import members, with_flat_batch
from structmat.linear_systems._stopping import judged
from structmat.linear_systems._superfast import (
    OperatorFactor,
    Series,
    Superfast,
    checked_series,
    explained,
    factor_by,
    series_of,
)
from structmat.linear_systems._written_out import is_written_out
from structmat.operators import LinearOperator, Prepared


@dataclass(frozen=True)
class ByFactor:
    """The way to solutions by a direct factor that takes no longer than iteration."""

    has_derivatives: ClassVar[bool] = True
    name: ClassVar[str] = "direct factor"

    after: float = 0
    """So many iterations have not sufficed, which took as long as the factor may; 0 for one that is faster than any."""
    most: float | None = None
    """As many as it may take as long as, where these are more."""

    def cost(self, system: LinearSystem) -> float | None:
        """Return the iterations before it; None where there is no factor, or other ways come first."""
        if self.after and system.iterations_made != self.after:
            return None
        if not system.may_have_factor:
            return None
        return system.most_iterations if self.after == math.inf else self.after

    def run(self, system: LinearSystem) -> Candidate:
        """Return solutions; those that are not accurate are not kept."""
        op, b, xp = system.operator, system.b, system.xp
        rules = rules_of(xp)
        most = self.after if self.most is None else self.most
        with rules.evaluated([*op._arrays(), b]):
            try:
                factor = rules.untraced(direct_factor)(
                    system.once(readable_series),
                    xp,
                    systems=None if most else math.prod(b.shape[:-1]),
                    positive=system.options.positive,
                    iterations=most or None,
                )
            except np.linalg.LinAlgError as error:
                system.has_no_factor()
                return Candidate(None, str(error))
            if factor is None:
                if most == math.inf:
                    system.has_no_factor()
                return Candidate(None, "no factor that takes less time than iteration")
            found = solutions_by_factor(factor, system)
            if bool(xp.all(found.done)):
                return Candidate(found)
            system.has_no_factor()
            return Candidate(None, "its solutions are not accurate", found.residual)


@dataclass(frozen=True)
class ByAskedFactor:
    """The way to solutions by the direct factor that a user asks for; it is an error where there is none."""

    has_derivatives: ClassVar[bool] = True
    name: ClassVar[str] = "direct factor"

    method: Superfast

    def cost(self, system: LinearSystem) -> float | None:
        """Return 0: nothing else is asked for."""
        return 0.0

    def run(self, system: LinearSystem) -> Candidate:
        """Return solutions."""
        op, xp = system.operator, system.xp
        rules = rules_of(xp)
        with rules.evaluated(op._arrays()):
            factor = rules.untraced(factor_by)(self.method, op, system.options.owner, xp)
        return Candidate(solutions_by_factor(factor, system))


def solutions_by_factor(factor: OperatorFactor, system: LinearSystem) -> Solutions:
    """Return solutions; good enough are those that leave `rtol`, or nothing but the rounding of their precision."""
    op, b, rtol, xp = system.operator, system.b, system.options.rtol, system.xp
    x = factor.solve(b, rtol, xp)
    return judged(op, x, b - op._matvec(x, xp), b, rtol, xp)


def readable_series(op: LinearOperator, xp: Namespace) -> Series | None:
    """Return an operator as a series of a kind that has a direct factor, which its values may still refuse."""
    try:
        return checked_series(op, "", xp)
    except ArgumentError:
        return None


def may_have_factor(op: LinearOperator, xp: Namespace) -> bool:
    """Tell whether an operator is of a kind that has a direct factor, which its values may still refuse."""
    return readable_series(op, xp) is not None


def direct_factor(
    series: Series | None,
    xp: Namespace,
    *,
    systems: int | None = None,
    positive: bool = True,
    iterations: float | None = None,
) -> OperatorFactor | None:
    """Return the factor of a series that has one, None where there is none, or none that is worth its making.

    A matrix that is not positive definite, as far as the factor can tell, is an error. In a trace all is NaN where
    there is no factor. For the solutions of some `systems` the values have to be known, and it has to be faster than
    iteration, which is by conjugate gradients for a matrix that is said to be `positive` definite. Where some
    `iterations` have not sufficed, it may take as long as they took.
    """
    if series is None or (series.traced and (systems is not None or series.is_alone)):
        return None
    most_alone = _thresholds.ALONE_COMPILED if rules_of(xp).compiles else _thresholds.ALONE
    if series.is_alone and series.op.shape[0] <= most_alone:
        return None
    most_work = math.inf
    if iterations is not None:
        most_work = _thresholds.WORK_OF_ONE_ITERATION * iterations
    elif systems is not None:
        most_work = _work_of_iteration(series, systems, positive=positive)
    if not most_work or (not series.traced and not bool(series.is_hermitian)):
        return None
    try:
        return series.factor(Superfast(), most_work)
    except RankError:
        return None


def direct_logdet(
    op: LinearOperator, xp: Namespace, method: Superfast | None, owner: str
) -> tuple[Array, Array] | None:
    """Return logarithms of determinants by direct factors, and how far off each may be; None as `direct_factor`.

    Those of a stack are computed one after the other. With a method that was asked for an error says why there is no
    factor. There is one too where values are not known yet, but will be in a transform of torch: nothing else is exact.
    """
    batch = op.batch_shape
    rules = rules_of(xp)
    if 0 in batch:
        return None
    hidden = rules.is_differentiated([]) or any(map(rules.is_traced, op._arrays()))
    if hidden or (method is None and batch and rules.compiles):
        results_on_host = _logdet_on_host(op, xp, method, owner)
        if hidden or results_on_host is None or bool(xp.all(xp.isfinite(results_on_host[0]))):
            return results_on_host
        return None
    flat = with_flat_batch(op, batch, xp)
    results = []
    for k in range(math.prod(batch)):
        member = members(flat, k)
        try:
            series = readable_series(member, xp) if method is None else None
            found = direct_factor(series, xp) if method is None else factor_by(method, member, owner, xp)
        except np.linalg.LinAlgError:
            if method is not None:
                raise
            found = None
        if found is None:
            return None
        results.append((xp.reshape(found.logdet, ()), found.error))
    logs, errors = (xp.stack(each) for each in zip(*results, strict=True))
    return xp.reshape(logs, batch), xp.reshape(errors, batch)


def _logdet_on_host(
    op: LinearOperator, xp: Namespace, method: Superfast | None, owner: str
) -> tuple[Array, Array] | None:
    """Return the same where values are not known yet, or for stacks that would be compiled one by one."""
    rules = rules_of(xp)
    if method is not None:
        series = series_of(op, owner, xp)
        with explained(method, owner):
            return series.logdet_on_host(method, strict=not rules.compiles)
    try:
        series = series_of(op, owner, xp)
    except ArgumentError:
        return None
    if series.is_alone:
        return None
    try:
        return series.logdet_on_host(Superfast(), strict=not rules.compiles)
    except RankError as error:
        if is_written_out(op):
            return None
        text = (
            f"has no direct factor, as {error}; under torch.func nothing else is exact: give n_probes for an estimate"
        )
        raise ArgumentValueError(owner, "A", text) from error
    except np.linalg.LinAlgError as error:
        raise np.linalg.LinAlgError(f"{owner}: {error}, or the matrix is not Hermitian") from error


def _work_of_iteration(series: Series, systems: int, *, positive: bool) -> float:
    """Return the work for each point that a factor may take to be faster than iteration for some systems.

    It is zero where none is, and infinite for many systems, or for a prepared operator, of which there may be many.
    """
    if systems >= _thresholds.MANY or isinstance(series.op, Prepared):
        return math.inf
    if series.chosen is None:
        return 0.0
    xp = series.xp
    p = series.c.shape[0] // series.noise.shape[0]
    sizes = xp.reshape(xp.abs(series.c), (-1, p, p))
    own = xp.linalg.diagonal(sizes)  # of each channel with itself
    apart = xp.min(own[0, :] - xp.max(own[1:, :], axis=0))  # at least the noise that is part of T
    constant = rules_of(xp).constant
    total = float(constant(xp.max(xp.sum(sizes, axis=(0, 2)))))
    least = float(constant(xp.min(series.noise) + apart))
    if not least > 0.0:
        return math.inf
    return (_thresholds.WORK_OF_CG if positive else _thresholds.WORK_OF_GMRES) * math.sqrt(total / least)
