"""What Toeplitz and Hankel matrices share: constant diagonals or anti-diagonals, and linear algebra from them."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import scipy  # its `linalg` is imported on first use
from array_api_compat import is_array_api_strict_namespace

from structmat._arrays import (
    as_floating,
    broadcast_shapes,
    common_dtype,
    concat_last,
    device_of,
    euclidean_norm,
    in_precision,
    is_complex,
    is_numpy,
    namespace_of,
    precision_of,
    restored,
)
from structmat._arrays.errors import ArgumentValueError
from structmat._arrays.typing import Array, ArrayLike, DType, Namespace
from structmat._arrays.warn import warn_caller
from structmat._engine import Refined, Settings
from structmat._toeplitz_solver import DENSE, eliminated, inverse_bound, inverse_vectors
from structmat.operators._base import Context, LinearOperator, NormOrder, Planned
from structmat.operators._norm_estimate import norm_estimate
from structmat.operators._toeplitz_inverse import ToeplitzInverse

__all__ = ["ConstantDiagonals", "antidiagonal_means", "diagonal_lengths"]

# The largest side of an ill-conditioned matrix that is written out to be solved.
_LARGEST_WRITTEN_OUT = 4096


class ConstantDiagonals(Planned):
    """What Toeplitz and Hankel matrices share: m + n - 1 constants, as two vectors `c` and `r` that meet in a corner.

    The first entry of `r` lies in the corner, where `c` decides, and is ignored.
    """

    __slots__ = ()
    _core_axes = {"c": 1, "r": 1}

    if TYPE_CHECKING:
        c: Array
        r: Array

    def _set_vectors(self, c: Array, r: ArrayLike) -> None:
        """Set both vectors in their common dtype, after the checks of shapes."""
        owner = type(self).__name__
        r = as_floating(r, owner, "r", like=(namespace_of(owner, c), c.dtype))
        xp = namespace_of(owner, c, r)
        for name, size, vector in (("c", "m", c), ("r", "n", r)):
            if vector.ndim < 1 or vector.shape[-1] < 1:
                raise ArgumentValueError(
                    owner, name, f"must have shape (..., {size}) with {size} >= 1, got {tuple(vector.shape)}"
                )
        broadcast_shapes(owner, tuple(c.shape[:-1]), tuple(r.shape[:-1]))
        dtype = common_dtype(xp, c, r)
        for name, vector in (("c", c), ("r", r)):
            object.__setattr__(self, name, vector if vector.dtype == dtype else xp.astype(vector, dtype))

    @property
    def shape(self) -> tuple[int, int]:
        """``(m, n)``, the lengths of `c` and `r`."""
        return (self.c.shape[-1], self.r.shape[-1])

    @property
    def dtype(self) -> DType:
        """The common dtype of `c` and `r`."""
        return self.c.dtype

    @abstractmethod
    def _constants(self, xp: Namespace) -> Array:
        """Return the m + n - 1 constants, from one corner to the opposite one."""

    def _conj(self) -> Self:
        xp = self._own_namespace()
        return self._map(lambda vector, _: xp.conj(vector)) if is_complex(self.dtype, xp) else self

    def _modulus(self, xp: Namespace) -> LinearOperator:
        return self._map(lambda vector, _: xp.abs(vector))

    def _frobenius(self, xp: Namespace) -> Array:
        constants = self._constants(xp)
        real = xp.real(constants) if is_complex(constants.dtype, xp) else constants
        return euclidean_norm(constants, xp, weights=diagonal_lengths(*self.shape, real, xp))

    # Linear algebra of square matrices, from the inverse of the Toeplitz matrix T: the operator itself, or for a Hankel
    # matrix the operator with its columns in reverse order.

    @abstractmethod
    def _as_toeplitz(self, xp: Namespace) -> tuple[Array, Array]:
        """Return first column and first row of T."""

    @property
    @abstractmethod
    def _flipped(self) -> bool:
        """Whether the columns of the operator are those of T in reverse order."""

    def _inverse(self, xp: Namespace) -> ToeplitzInverse:
        x, y = inverse_vectors(*self._as_toeplitz(xp), xp)[:2]
        return ToeplitzInverse(x, y, (self._flipped, False))

    def _inv(self, xp: Namespace) -> ToeplitzInverse:
        inverse = self._inverse(xp)
        self._require_regular(inverse, "inv", xp)
        return inverse

    def _solver(self, settings: Settings, xp: Namespace) -> Refined | None:
        solver, ill_conditioned = self._refined(settings, xp)
        return None if ill_conditioned else solver

    def _solve(self, b: Array, xp: Namespace) -> Array:
        on_host = is_numpy(xp) and not self.batch_shape
        if on_host and self.shape[0] <= DENSE:
            dense, right = cast("Any", self._to_dense(Context(xp, self.dtype, None))), cast("Any", b)
            solutions: Array | None = eliminated(dense, right)
            if solutions is not None:
                return solutions
        solver, ill_conditioned = self._refined(Settings(), xp)
        x = solver.apply(b, xp)
        return self._or_eliminated(x, b, xp) if ill_conditioned and on_host else x

    def _refined(self, settings: Settings, xp: Namespace) -> tuple[Refined, bool]:
        """Return what solves by the inverse and one step of refinement, and whether the matrix is ill-conditioned."""
        inverse = self._inverse(xp)
        ill_conditioned = self._require_regular(inverse, "solve", xp)
        return Refined(inverse._plan(settings, xp), self._plan(settings, xp)), ill_conditioned

    def _or_eliminated(self, x: Any, b: Any, xp: Namespace) -> Any:
        """Return solutions `x`, or those of an elimination with `b` in it where their residuals are smaller.

        The inverse of a matrix that is singular to working precision has no accurate formula, but systems with it may
        have solutions with a small residual: by the dense matrix, or by Levinson's recursion where that is too large.
        """
        rows = b.reshape(-1, b.shape[-1])
        try:
            if self.shape[0] <= _LARGEST_WRITTEN_OUT:
                dense: Any = self._to_dense(Context(xp, self.dtype, None))
                other: Any = np.linalg.solve(dense, rows.T).T
            else:
                c, r = (np.asarray(vector) for vector in self._as_toeplitz(xp))
                other = scipy.linalg.solve_toeplitz((c, r), rows.T).T
                other = other[:, ::-1] if self._flipped else other
        except np.linalg.LinAlgError:
            return x
        other = other.reshape(x.shape).astype(x.dtype)  # SciPy's recursion knows double precision only
        mine, others = (np.linalg.norm(self._matvec(z, xp) - b, axis=-1, keepdims=True) for z in (x, other))
        return np.where(others < mine, other, x)

    def _determinant_factors(self, method: str, xp: Namespace) -> Array:
        n = self.shape[0]
        x, y, sign, log = inverse_vectors(*self._as_toeplitz(xp), xp, determinant=True)
        if is_numpy(xp) and bool(xp.all(xp.isfinite(x))):
            self._require_regular(ToeplitzInverse(x, y, (self._flipped, False)), method, xp)
        odd = self._flipped and n * (n - 1) // 2 % 2
        first = xp.astype(-sign if odd else sign, log.dtype)[..., None]
        rest = xp.ones((*first.shape[:-1], n - 1), dtype=log.dtype, device=device_of(log))
        return xp.exp(log / n)[..., None] * concat_last([first, rest], xp)

    def _cond_bound(self, inverse: ToeplitzInverse, xp: Namespace) -> Array:
        """Return a bound of the condition number in the 1-norm, by the formula of the inverse, at no cost."""
        bound: Array = self._norm(1, xp) * inverse_bound(inverse.x, inverse.y, xp)
        return bound

    def _require_regular(self, inverse: ToeplitzInverse, method: str, xp: Namespace) -> bool:
        """Raise for a singular matrix, warn of an ill-conditioned one and tell which it is, where values are known."""
        if 0 in inverse.x.shape or not (is_numpy(xp) or is_array_api_strict_namespace(xp)):
            return False
        owner = f"{type(self).__name__}.{method}"
        if not bool(xp.all(xp.isfinite(inverse.x))):
            raise np.linalg.LinAlgError(f"{owner}: the matrix is singular to working precision")
        bound = xp.max(self._cond_bound(inverse, xp))
        largest = 1 / xp.finfo(bound.dtype).eps
        if not (bool(bound > largest) and bool((cond := xp.max(self._cond(1, inverse, xp))) > largest)):
            return False
        warn_caller(
            f"{owner}: the matrix is ill-conditioned (about {float(cond):.1g}); the result may be inaccurate",
            scipy.linalg.LinAlgWarning,
        )
        return True

    def cond(self, p: NormOrder = 2) -> Array:
        """Return an estimate of the condition number ``norm(A, p) * norm(A^-1, p)``.

        Parameters
        ----------
        p : {2, 1, inf}, default 2
            The norm.

        Returns
        -------
        array, shape of the batch
            A lower bound from a few products with the inverse, seldom below a third of the value, and the value itself
            for 1 and infinity and up to 24 rows; infinite for a singular matrix.

        Raises
        ------
        NotImplementedError
            For the Frobenius and nuclear norm, or if the operator is not square.
        ValueError
            If `p` is no norm.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> float(sm.Toeplitz(np.array([2.0, -1.0, 0.0])).cond(1).round(12))
        8.0
        """
        self._check_order(p, "cond", "p")
        if p not in (1, 2, math.inf) or self.shape[0] != self.shape[1]:
            raise self._no_closed_form("cond")
        op, xp = self._to_working_precision("cond")
        value = op._cond(p, op._inverse(xp), xp)
        infinite = xp.inf * xp.ones_like(value)
        return self._from_working_precision(xp.where(xp.isfinite(value), value, infinite), xp)

    def _cond(self, p: NormOrder, inverse: ToeplitzInverse, xp: Namespace) -> Array:
        """Return the estimate for a given inverse."""
        ready = Settings(ready=True)
        own = norm_estimate(self._plan(ready, xp), 2, inverse.x, xp) if p == 2 else self._norm(p, xp)
        return own * norm_estimate(inverse._plan(ready, xp), p, inverse.x, xp)


def diagonal_lengths(m: int, n: int, like: Array, xp: Namespace) -> Array:
    """Return how many entries each of the m + n - 1 diagonals of an m x n matrix has, in the dtype of `like`."""
    k = xp.arange(m + n - 1, device=device_of(like))
    longest = xp.full_like(k, min(m, n))
    return xp.astype(xp.minimum(longest, xp.minimum(k + 1, m + n - 1 - k)), like.dtype)


def antidiagonal_means(A: Array, xp: Namespace) -> Array:
    """Return the m + n - 1 means of the entries ``A[i, j]`` with one i + j."""
    dtype = A.dtype
    A = in_precision(A, precision_of(dtype, xp), xp)
    if A.shape[-2] > A.shape[-1]:
        A = xp.matrix_transpose(A)  # which has the same anti-diagonals, and fewer zeros to append
    m, n = A.shape[-2:]
    # With m zeros behind each row, the text of rows read as rows one entry shorter moves row i by i to the right.
    zeros = xp.zeros((*A.shape[:-1], m), dtype=A.dtype, device=device_of(A))
    text = xp.reshape(xp.concat([A, zeros], axis=-1), (*A.shape[:-2], m * (m + n)))
    sums = xp.sum(xp.reshape(text[..., : m * (m + n - 1)], (*A.shape[:-2], m, m + n - 1)), axis=-2)
    counts = diagonal_lengths(m, n, A if not is_complex(A.dtype, xp) else xp.real(A), xp)
    return restored(sums / counts, dtype, xp)
