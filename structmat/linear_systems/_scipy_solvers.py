"""Iteration with NumPy arrays: SciPy's solvers, one right-hand side after the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse.linalg

from structmat.operators import LinearOperator
from structmat.scipy import as_linear_operator

__all__ = ["least_squares", "solutions"]

_RESTART = 50
"""Vectors that GMRES keeps."""


def solutions(
    operator: LinearOperator,
    b: Any,
    preconditioner: LinearOperator | None,
    assume: str,
    rtol: float,
    limit: int,
    report: Callable[[int], object],
) -> tuple[Any, int]:
    """Return solutions of square systems, and the largest number of iterations; `report` hears each."""
    one = {"positive definite": _cg, "hermitian": _gmres if np.iscomplexobj(b) else _minres}.get(assume, _gmres)
    return _each(partial(one, rtol=rtol, limit=limit, report=report), b, operator, preconditioner)


def least_squares(operator: LinearOperator, b: Any, rtol: float, limit: int) -> tuple[Any, int]:
    """Return least-squares solutions by LSMR, and the largest number of iterations.

    Its tolerance is relative to the Frobenius norm of the matrix, ours to the largest singular value.
    """
    rtol = max(rtol / min(operator.shape) ** 0.5, float(np.finfo(float).eps))

    def one(A: LinearOperator, v: Any) -> tuple[Any, int]:
        x, _, steps, *_ = scipy.sparse.linalg.lsmr(
            as_linear_operator(A), v, atol=rtol, btol=rtol, conlim=0, maxiter=limit
        )
        return x, int(steps)

    return _each(one, b, operator)


def _each(one: Any, b: Any, operator: LinearOperator, *others: LinearOperator | None) -> tuple[Any, int]:
    """Return what a solver finds for each right-hand side, with its member of stacks of operators."""
    lead, operators = b.shape[:-1], (operator, *others)
    x, most = np.zeros((*lead, operator.shape[1]), b.dtype), 0
    for index in np.ndindex(lead):
        if np.any(b[index]):
            with np.errstate(all="ignore"):  # whatever comes out is checked
                x[index], steps = one(*(_member(op, lead, index) for op in operators), b[index])
            most = max(most, steps)
    return x, most


def _member(operator: LinearOperator | None, lead: tuple[int, ...], index: tuple[int, ...]) -> LinearOperator | None:
    """Return one operator of a stack, whose batch axes broadcast to `lead`."""
    if operator is None or not operator.batch_shape:
        return operator

    def pick(array: Any, axes: int) -> Any:
        return np.broadcast_to(array, (*lead, *array.shape[array.ndim - axes :]))[index]

    return operator._map(pick)


class _Counter:
    """Counts the iterations of a solver."""

    def __init__(self, report: Callable[[int], object]) -> None:
        self.count, self._report = 0, report

    def __call__(self, _: Any) -> None:
        self.count += 1
        self._report(self.count)


def _cg(A: Any, M: Any, b: Any, *, rtol: float, limit: int, report: Callable[[int], object]) -> tuple[Any, int]:
    steps = _Counter(report)
    x, _ = scipy.sparse.linalg.cg(
        as_linear_operator(A),
        b,
        rtol=rtol,
        atol=0.0,
        maxiter=limit,
        M=M and as_linear_operator(M),
        callback=steps,
    )
    return x, steps.count


def _minres(A: Any, M: Any, b: Any, *, rtol: float, limit: int, report: Callable[[int], object]) -> tuple[Any, int]:
    steps = _Counter(report)
    x, _ = scipy.sparse.linalg.minres(
        as_linear_operator(A),
        b,
        rtol=rtol,
        maxiter=limit,
        M=M and as_linear_operator(M),
        callback=steps,
    )
    return x, steps.count


def _gmres(A: Any, M: Any, b: Any, *, rtol: float, limit: int, report: Callable[[int], object]) -> tuple[Any, int]:
    """Iterate with ``A M`` in place of A, so that the residual is that of the system itself."""
    steps = _Counter(report)
    product, y = as_linear_operator(A) @ as_linear_operator(M) if M else as_linear_operator(A), None
    restart = min(_RESTART, limit, len(b))
    for vectors, cycles in ((restart, limit // restart), (limit % restart, 1)):
        if vectors:  # the second time for what is left of the iterations
            y, unsolved = scipy.sparse.linalg.gmres(
                product,
                b,
                y,
                rtol=rtol,
                atol=0.0,
                restart=vectors,
                maxiter=cycles,
                callback=steps,
                callback_type="pr_norm",
            )
            if not unsolved:
                break
    return M.matvec(y) if M else y, steps.count
