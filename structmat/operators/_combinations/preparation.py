"""How an operator is prepared, and what products, sums and multiples of prepared ones are: prepared again."""

from __future__ import annotations

from structmat._arrays import dtype_name, is_numpy, library_of
from structmat._arrays.dispatch import add, compose, prepare, scale, submatrix
from structmat._arrays.typing import Scalar
from structmat._engine import ChunkedPlan, Scaling, Settings, direct_up_to, ducc
from structmat.operators._base import LinearOperator
from structmat.operators._combinations.prepared import Prepared
from structmat.operators._identity import Identity

__all__: list[str] = []


@prepare.rule(object, object)
def prepared(operator: LinearOperator, settings: Settings) -> LinearOperator:
    """Return the operator with its plan, or itself where it has none; the caller sees to it that this is a snapshot."""
    if isinstance(operator, Prepared):
        operator = operator.operator
    wide, xp = operator._to_working_precision("prepare")
    plan = wide._plan(settings, xp)
    if plan is None:
        return operator
    direct = 0
    if isinstance(plan, ChunkedPlan) and not plan.is_stack and not isinstance(plan, Scaling):
        rows, cols = wide.shape
        library = "ducc0" if is_numpy(xp) and settings.engine != "scipy" and ducc() else library_of(xp)
        direct = direct_up_to(rows * cols / plan.cost, library, dtype_name(wide.dtype))
    made = Prepared(operator, plan, plan.adjoint(), wide.to_dense() if direct else None, direct, settings)
    made._products()  # now, not in the first product
    return made


def _source(operator: LinearOperator) -> LinearOperator:
    """Return what an operator was prepared from, or a copy of it, as prepared ones share no array with others."""
    return operator.operator if isinstance(operator, Prepared) else operator._snapshot()


@compose.rule(Prepared, Identity)
def _times_identity(left: Prepared, right: Identity) -> Prepared:  # noqa: ARG001
    return left


@compose.rule(Prepared, object)
def _times(left: Prepared, right: LinearOperator) -> LinearOperator:
    return prepared(compose(left.operator, _source(right)), left.settings)


@compose.rule(object, Prepared)
def _times_prepared(left: LinearOperator, right: Prepared) -> LinearOperator:
    return prepared(compose(_source(left), right.operator), right.settings)


@add.rule(Prepared, object)
def _plus(left: Prepared, right: LinearOperator) -> LinearOperator:
    return prepared(add(left.operator, _source(right)), left.settings)


@scale.rule(Prepared, object)
def _multiple(operator: Prepared, factor: Scalar) -> LinearOperator:
    return prepared(scale(operator.operator, factor)._snapshot(), operator.settings)


@submatrix.rule(Prepared, object)
def _block(operator: Prepared, block: tuple[range, range]) -> LinearOperator:
    return submatrix.merge(operator.operator, block)
