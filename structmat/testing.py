"""Checks for operators of your own."""

from __future__ import annotations

import numpy as np

from structmat._arrays.arrays import is_complex, precision_of
from structmat._arrays.typing import Array
from structmat.operators import LinearOperator

__all__ = ["adjoint_error"]


def adjoint_error(operator: LinearOperator, *, rng: np.random.Generator | int | None = None) -> float:
    """Return how far `rmatvec` is from the adjoint of `matvec`, on random vectors: the dot-product test.

    Parameters
    ----------
    operator : LinearOperator
        Any operator, of any array library; of a stack the largest discrepancy counts.
    rng : numpy.random.Generator or int, optional
        Source of the two vectors x and y.

    Returns
    -------
    float
        ``|<y, A x> - <A^H y, x>|`` relative to ``norm(y) * norm(A x) + norm(A^H y) * norm(x)``; of the order of the
        machine epsilon for a correct pair.

    Raises
    ------
    TypeError
        If `operator` is no structmat operator.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> sm.testing.adjoint_error(sm.Circulant(np.array([1.0, 2.0, 3.0])), rng=0) < 1e-15
    True
    """
    if not isinstance(operator, LinearOperator):
        raise TypeError(f"adjoint_error: operator must be a structmat operator, got {type(operator).__name__}")
    generator = np.random.default_rng(rng)
    xp = operator._own_namespace()
    dtype = xp.float64 if operator.dtype is None else precision_of(operator.dtype, xp)

    def drawn(size: int) -> Array:
        values = xp.asarray(generator.standard_normal((*operator.batch_shape, size)), device=operator.device)
        return xp.astype(values, dtype)

    rows, cols = operator.shape
    x, y = drawn(cols), drawn(rows)
    Ax, Ay = operator.matvec(x), operator.rmatvec(y)

    def inner(u: Array, v: Array) -> Array:
        return xp.sum((xp.conj(u) if is_complex(u.dtype, xp) else u) * v, axis=-1)

    def norm(u: Array) -> Array:
        return xp.sqrt(xp.sum(xp.abs(u) ** 2, axis=-1))

    scale = norm(y) * norm(Ax) + norm(Ay) * norm(x)
    return float(xp.max(xp.abs(inner(y, Ax) - inner(Ay, x)) / xp.where(scale > 0, scale, xp.ones_like(scale))))
