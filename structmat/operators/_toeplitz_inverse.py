"""Inverses of Toeplitz and Hankel matrices, by two vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from structmat._arrays import (
    as_floating,
    broadcast_shapes,
    common_dtype,
    concat_last,
    is_complex,
    namespace_of,
    scale_array,
)
from structmat._arrays.dispatch import scale
from structmat._arrays.errors import ArgumentValueError
from structmat._arrays.typing import Array, DType, Namespace, Scalar
from structmat._engine import Bezoutian, Settings, bezoutian
from structmat.operators._base import Planned

__all__ = ["ToeplitzInverse"]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class ToeplitzInverse(Planned):
    """The inverse of a Toeplitz or Hankel matrix, given by two vectors, as returned by `inv` of these.

    Parameters
    ----------
    x : array, shape (..., n)
        The first column of the inverse of the Toeplitz matrix T: ``T x = e_0``. Leading axes make a stack.
    y : array, shape (..., n)
        The solution of ``T y = (s, t[1 - n], ..., t[-1])``, whose right-hand side is the first row of T without its
        first entry, in reverse order, and any number s: all give the same matrix.
    flips : (bool, bool), default (False, False)
        Whether the rows and the columns of the inverse are in reverse order: the rows for the inverse of a Hankel
        matrix, both for a transpose.

    Raises
    ------
    ValueError
        If `x` or `y` has no axis or no entry, their lengths differ, or their batch axes do not broadcast.
    TypeError
        If `x` or `y` does not hold numbers, or they belong to different array libraries.

    See Also
    --------
    Toeplitz : ``inv`` finds the two vectors.

    Notes
    -----
    It is ``L(x) U(1, -y[n-1], ..., -y[1]) + L(y) U(0, x[n-1], ..., x[1])`` with L and U the lower and upper triangular
    Toeplitz matrices of that first column and first row [1]_, so that a product takes six transforms and O(n) memory.
    Unlike the formula of Gohberg and Semencul, which it becomes for another choice of y, it does not require
    nonsingular leading sections of T. `Toeplitz.solve` multiplies by it twice, the second time to refine.

    References
    ----------
    .. [1] Heinig, G., Rost, K., Algebraic Methods for Toeplitz-like Matrices and Operators, Birkhäuser, 1984.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> T = sm.Toeplitz(np.array([0.0, 2.0, 1.0]), np.array([0.0, 1.0, 3.0]))  # with zero as its leading section
    >>> B = T.inv()
    >>> B
    ToeplitzInverse(shape=(3, 3), dtype=float64, device=cpu)
    >>> (B @ T.to_dense()).round(12) + 0.0
    array([[1., 0., 0.],
           [0., 1., 0.],
           [0., 0., 1.]])
    """

    _core_axes = {"x": 1, "y": 1}

    x: Any
    """The first column of the inverse of the Toeplitz matrix, shape ``(..., n)``."""
    y: Any
    """The solution for its first row, shape ``(..., n)``."""
    flips: tuple[bool, bool] = (False, False)
    """Whether rows and columns are in reverse order."""

    def __post_init__(self) -> None:
        owner = "ToeplitzInverse"
        x = as_floating(self.x, owner, "x")
        y = as_floating(self.y, owner, "y", like=(namespace_of(owner, x), x.dtype))
        xp = namespace_of(owner, x, y)
        if x.ndim < 1 or x.shape[-1] < 1:
            raise ArgumentValueError(owner, "x", f"must have shape (..., n) with n >= 1, got {tuple(x.shape)}")
        if y.ndim < 1 or y.shape[-1] != x.shape[-1]:
            raise ArgumentValueError(owner, "y", f"must have shape (..., {x.shape[-1]}), got {tuple(y.shape)}")
        broadcast_shapes(owner, tuple(x.shape[:-1]), tuple(y.shape[:-1]))
        dtype = common_dtype(xp, x, y)
        for name, vector in (("x", x), ("y", y)):
            object.__setattr__(self, name, vector if vector.dtype == dtype else xp.astype(vector, dtype))
        rows, cols = self.flips
        object.__setattr__(self, "flips", (bool(rows), bool(cols)))

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.x.shape[-1], self.x.shape[-1])

    @property
    def dtype(self) -> DType:
        """The common dtype of `x` and `y`."""
        return self.x.dtype

    def _described(self) -> str:
        return "the inverse of a Toeplitz or Hankel matrix, whose own methods serve instead"

    def _plan(self, settings: Settings, xp: Namespace) -> Bezoutian:
        return bezoutian(self.x, self.y, settings, xp, flips=self.flips)

    def _transpose(self) -> ToeplitzInverse:
        rows, cols = self.flips
        return ToeplitzInverse(self.x, self.y, (not cols, not rows))

    def _conj(self) -> ToeplitzInverse:
        xp = self._own_namespace()
        return self._map(lambda v, _: xp.conj(v)) if is_complex(self.dtype, xp) else self

    def _diagonal(self, method: str, xp: Namespace) -> Array:
        rows, cols = self.flips
        if rows != cols:
            raise self._no_closed_form(method)
        x, y = self.x, self.y
        later = y[..., 1:] * xp.flip(x[..., 1:], axis=-1) - x[..., 1:] * xp.flip(y[..., 1:], axis=-1)
        diagonal = xp.cumulative_sum(concat_last([x[..., :1], later], xp), axis=-1)
        return xp.flip(diagonal, axis=-1) if rows else diagonal


@scale.rule(ToeplitzInverse, object)
def _scale(operator: ToeplitzInverse, factor: Scalar) -> ToeplitzInverse:
    xp = operator._own_namespace()
    scaled = scale_array(operator.x, factor, 1, xp)
    return ToeplitzInverse(scaled, operator.y, operator.flips)
