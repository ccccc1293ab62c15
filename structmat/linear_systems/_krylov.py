"""Krylov methods for NumPy arrays, by SciPy, and for batches of vectors of any other library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy  # its `sparse` is imported on first use

from structmat._array_tools import Array, Namespace, device_of, is_complex, is_numpy
from structmat.linear_systems._systems import LEAST_SQUARES, IterationSettings
from structmat.operators import Identity, LinearOperator, Prepared

_RESTART = 50
"""Vectors that GMRES keeps."""


class Counter:
    """Counts the iterations for each right-hand side, and tells them."""

    def __init__(self, callback: Callable[[int], object] | None) -> None:
        self._callback = callback
        self.before = 0
        """Those of all passes that have ended: in each the most of any right-hand side."""
        self._count = self._most = 0

    def __call__(self, _: Any = None) -> None:
        self._count += 1
        if self._callback is not None:
            self._callback(self.before + self._count)

    def end(self, count: int | None = None) -> None:
        """Say that all iterations for a right-hand side are done, `count` of them if nobody has counted."""
        self._most, self._count = max(self._most, self._count if count is None else count), 0

    def end_pass(self) -> None:
        """Say that all right-hand sides are done."""
        self.end()
        self.before, self._most = self.before + self._most, 0


def iterate(
    A: LinearOperator,
    b: Array,
    M: LinearOperator | None,
    norm: Array,
    settings: IterationSettings,
    rtol: float,
    limit: int,
    count: Counter,
    xp: Namespace,
) -> Array:
    """Return solutions for right-hand sides with a preconditioner M, `norm` being that of A where it is needed."""
    if is_numpy(xp):
        if settings.assume == LEAST_SQUARES:
            return least_squares_by_scipy(A, b, rtol, limit, count)
        return by_scipy(A, b, M, settings.assume, rtol, limit, count)
    if settings.assume == "positive definite":
        return conjugate_gradients(A, b, M, rtol, limit, xp, count)
    return least_squares(A, b, norm, rtol, limit, xp, count, M)


def by_scipy(
    operator: LinearOperator, b: Any, M: LinearOperator | None, assume: str, rtol: float, limit: int, count: Counter
) -> Any:
    """Return solutions of square systems with a preconditioner M."""
    solvers = scipy.sparse.linalg

    def one(A: Any, M: Any, v: Any) -> Any:
        matrix, inner = _of_scipy(A), None if M is None else _of_scipy(M)
        if assume == "positive definite":
            return solvers.cg(matrix, v, rtol=rtol, atol=0.0, maxiter=limit, M=inner, callback=count)[0]
        if assume == "hermitian" and not np.iscomplexobj(v):
            return solvers.minres(matrix, v, rtol=rtol, maxiter=limit, M=inner, callback=count)[0]
        # with ``A M`` in place of A, so that the residual is that of the system itself
        product, y = matrix if inner is None else matrix @ inner, None
        restart = min(_RESTART, limit, len(v))
        options: dict[str, Any] = {"rtol": rtol, "atol": 0.0, "callback": count, "callback_type": "pr_norm"}
        for vectors, cycles in ((restart, limit // restart), (limit % restart, 1)):
            if vectors:  # the second time for what is left of the iterations
                y, unsolved = solvers.gmres(product, v, y, restart=vectors, maxiter=cycles, **options)
                if not unsolved:
                    break
        return y if inner is None else inner.matvec(y)

    return _each(one, b, count, operator, M)


def least_squares_by_scipy(operator: LinearOperator, b: Any, rtol: float, limit: int, count: Counter) -> Any:
    """Return least-squares solutions by LSMR.

    Its tolerance is relative to the Frobenius norm of the matrix, ours to the largest singular value.
    """
    rtol = max(rtol / min(operator.shape) ** 0.5, float(np.finfo(float).eps))

    def one(A: LinearOperator, v: Any) -> Any:
        x, _, steps, *_ = scipy.sparse.linalg.lsmr(_of_scipy(A), v, atol=rtol, btol=rtol, conlim=0, maxiter=limit)
        count.end(int(steps))
        return x

    return _each(one, b, count, operator)


def _of_scipy(operator: LinearOperator) -> Any:
    """Return an operator with products that are free of checks where they are ready."""
    products = operator._products() if isinstance(operator, Prepared) else None
    forward: Callable[[Any], Any] = operator.matvec
    if products is not None:
        one, dtype, shape = products.one, products.dtype, products.vector

        def forward(v: Any) -> Any:
            return one(v, None) if v.dtype == dtype and v.shape == shape else operator.matvec(v)

    make: Any = scipy.sparse.linalg.LinearOperator
    known = operator.dtype or np.dtype("complex128" if operator._forces_complex else "float64")
    return make(operator.shape, forward, operator.rmatvec, dtype=known)


def _each(one: Any, b: Any, count: Counter, operator: LinearOperator, *others: LinearOperator | None) -> Any:
    """Return what a solver finds for each right-hand side, with its member of stacks of operators."""
    lead, operators = b.shape[:-1], (operator, *others)
    x = np.zeros((*lead, operator.shape[1]), b.dtype)
    for index in np.ndindex(lead):
        if np.any(b[index]):
            with np.errstate(all="ignore"):  # whatever comes out is checked
                x[index] = one(*(_member(op, lead, index) for op in operators), b[index])
            count.end()
    return x


def _member(operator: LinearOperator | None, lead: tuple[int, ...], index: tuple[int, ...]) -> LinearOperator | None:
    """Return one operator of a stack, whose batch axes broadcast to `lead`."""
    if operator is None or not operator.batch_shape:
        return operator

    def pick(array: Any, axes: int) -> Any:
        return np.broadcast_to(array, (*lead, *array.shape[array.ndim - axes :]))[index]

    return operator._map(pick)


def conjugate_gradients(
    operator: LinearOperator,
    b: Array,
    M: LinearOperator | None,
    rtol: float,
    limit: int,
    xp: Namespace,
    count: Counter,
) -> Array:
    """Return x near ``A x = b`` for a Hermitian positive definite A, with a preconditioner M [1]_.

    One boolean is read in each step. A right-hand side that has converged stays as it is.

    References
    ----------
    .. [1] Golub, G. H., Van Loan, C. F., Matrix Computations, 4th edition, section 11.5, 2013.
    """
    target = rtol**2 * _squared(b, xp)
    x, r = xp.zeros_like(b), b
    z = r if M is None else M._matvec(r, xp)
    p, rho = z, _inner(r, z, xp)
    for _ in range(limit):
        active = _squared(r, xp) > target
        q = operator._matvec(p, xp)
        curvature = _inner(p, q, xp)
        if not bool(xp.any(active & (curvature > 0.0))):  # nor where A is not positive definite
            break
        alpha = _ratio(rho, curvature, active, xp)
        x, r = x + alpha * p, r - alpha * q
        z = r if M is None else M._matvec(r, xp)
        rho, before = _inner(r, z, xp), rho
        p = z + _ratio(rho, before, active, xp) * p
        count()
    return x


def least_squares(
    operator: LinearOperator,
    b: Array,
    norm: Array,
    rtol: float,
    limit: int,
    xp: Namespace,
    count: Counter,
    preconditioner: LinearOperator | None = None,
) -> Array:
    """Return the x of least norm that minimises ``norm(A x - b)``, by CGLS [1]_.

    It ends where the residual r has ``norm(r) <= rtol * norm(b)`` or ``norm(A^H r) <= rtol * norm(A) * norm(r)``, with
    `norm` for that of A. With a preconditioner M it iterates with ``A M`` in place of A, and returns M times the x of
    least norm.

    References
    ----------
    .. [1] Björck, Å., Numerical Methods for Least Squares Problems, section 7.4, 1996.
    """
    M = Identity(operator.shape[1]) if preconditioner is None else preconditioner
    y, r = xp.zeros((*b.shape[:-1], operator.shape[1]), dtype=b.dtype, device=device_of(b)), b
    s = M._rmatvec(operator._rmatvec(r, xp), xp)
    p, gamma, target = s, _squared(s, xp), rtol**2 * _squared(b, xp)
    for _ in range(limit):
        left = _squared(r, xp)
        active = (left > target) & (gamma > (rtol * norm) ** 2 * left)
        if not bool(xp.any(active)):
            break
        q = operator._matvec(M._matvec(p, xp), xp)
        alpha = _ratio(gamma, _squared(q, xp), active, xp)
        y, r = y + alpha * p, r - alpha * q
        s = M._rmatvec(operator._rmatvec(r, xp), xp)
        gamma, before = _squared(s, xp), gamma
        p = s + _ratio(gamma, before, active, xp) * p
        count()
    return M._matvec(y, xp)


def _inner(u: Array, v: Array, xp: Namespace) -> Array:
    """Return the real part of inner products, which have no other for a Hermitian matrix."""
    if not is_complex(u.dtype, xp):
        return xp.sum(u * v, axis=-1)
    return xp.sum(xp.real(u) * xp.real(v) + xp.imag(u) * xp.imag(v), axis=-1)


def _squared(u: Array, xp: Namespace) -> Array:
    return _inner(u, u, xp)


def _ratio(top: Array, bottom: Array, active: Array, xp: Namespace) -> Array:
    """Return quotients as a column, zero for what has converged."""
    use = active & (bottom > 0.0)
    return xp.where(use, top / xp.where(use, bottom, xp.ones_like(bottom)), xp.zeros_like(top))[..., None]
