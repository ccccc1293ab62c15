"""What Toeplitz and Hankel matrices share: constant diagonals or anti-diagonals, and linear algebra from them."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from structmat._arrays import (
    as_floating,
    broadcast_shapes,
    common_dtype,
    concat_last,
    device_of,
    euclidean_norm,
    in_precision,
    is_complex,
    namespace_of,
    precision_of,
    restored,
)
from structmat._arrays.errors import ArgumentValueError
from structmat._arrays.typing import Array, ArrayLike, DType, Namespace
from structmat._engine import Products, Settings, handed_over
from structmat._toeplitz_solver import DENSE, InverseVectors, ToeplitzSystem, inverse_vectors, solutions
from structmat.operators._base import Context, LinearOperator, NormOrder, Planned
from structmat.operators._base.spectral_functions import ratio
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

    def _vectors(self, method: str | None, xp: Namespace, *, determinant: bool = False) -> InverseVectors:
        owner = f"{type(self).__name__}.{method}" if method else None
        return inverse_vectors(*self._as_toeplitz(xp), xp, owner, determinant=determinant)

    def _inv(self, xp: Namespace) -> ToeplitzInverse:
        x, y = self._vectors("inv", xp)[:2]
        return ToeplitzInverse(x, y, (self._flipped, False))

    def _solve(self, b: Array, xp: Namespace) -> Array:
        x = solutions(*self._as_toeplitz(xp), b, xp, f"{type(self).__name__}.solve")
        return xp.flip(x, axis=-1) if self._flipped else x

    def _solver(self, settings: Settings, xp: Namespace) -> Products | None:
        if self.batch_shape:
            return None
        c, r = map(np.asarray, self._as_toeplitz(xp))
        system = ToeplitzSystem(c, r, f"{type(self).__name__}.solve", ready=True)
        dtype, turn = np.dtype(self.dtype), slice(None, None, -1 if self._flipped else 1)

        def solve(b: Any, out: Any) -> Any:
            return handed_over(system.solve(b)[..., turn].astype(dtype), out)

        return Products(np.ndarray, dtype, (self.shape[0],), solve, solve)

    def _slogdet(self, xp: Namespace) -> tuple[Array, Array]:
        n, (_, _, regular, log) = self.shape[0], self._vectors("slogdet", xp, determinant=True)
        size, sign = (xp.real(log), xp.exp(1j * xp.imag(log))) if is_complex(log.dtype, xp) else (log, 1.0)
        odd = self._flipped and n * (n - 1) // 2 % 2
        sign = xp.astype(-regular if odd else regular, log.dtype) * sign
        return sign, xp.where(~(xp.abs(sign) > 0.0) & ~xp.isnan(size), -xp.inf * xp.ones_like(size), size)

    def _det(self, xp: Namespace) -> Array:
        sign, log = self._slogdet(xp)
        return sign * xp.astype(xp.exp(log), sign.dtype)

    def _determinant_factors(self, method: str, xp: Namespace) -> Array:
        n, (sign, log) = self.shape[0], self._slogdet(xp)
        rest = xp.ones((*log.shape, n - 1), dtype=sign.dtype, device=device_of(log))
        return xp.astype(xp.exp(log / n), sign.dtype)[..., None] * concat_last([sign[..., None], rest], xp)

    def cond(self, p: NormOrder = 2) -> Array:
        """Return the condition number ``norm(A, p) * norm(A^-1, p)``, beyond 128 rows an estimate of it.

        Parameters
        ----------
        p : {2, 1, inf}, default 2
            The norm.

        Returns
        -------
        array, shape of the batch
            Up to 128 rows the value, beyond a lower bound by some solutions, seldom below a third of it; infinite for a
            singular matrix.

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
        return self._from_working_precision(op._cond(p, xp), xp)

    def _cond(self, p: NormOrder, xp: Namespace) -> Array:
        """Return the condition number by the dense matrix where that is small, else by estimates of both norms."""
        n = self.shape[0]
        if p == 2 and n <= DENSE:
            dense = self._to_dense(Context(xp, self.dtype, self.device))
            known = xp.all(xp.isfinite(dense), axis=(-2, -1))  # other entries are an error in some libraries
            value = ratio(xp.linalg.svdvals(xp.where(known[..., None, None], dense, xp.ones_like(dense))), xp)
            return xp.where(known, value, xp.nan * xp.ones_like(value))
        ready = Settings(ready=True)
        like = self.c[..., :1] * xp.zeros_like(self.r)  # with all batch axes
        own = norm_estimate(self._plan(ready, xp), 2, like, xp) if p == 2 else self._norm(p, xp)
        try:
            if n > DENSE:
                x, y = self._vectors(None, xp)[:2]
                inverse = ToeplitzInverse(x, y, (self._flipped, False))
                value = own * norm_estimate(inverse._plan(ready, xp), p, like, xp)
            else:
                unit = xp.eye(n, dtype=self.dtype, device=self.device)
                unit = xp.reshape(unit, (n, *(1,) * len(self.batch_shape), n))
                columns = xp.abs(solutions(*self._as_toeplitz(xp), unit, xp, None))
                sums = xp.sum(columns, axis=-1 if p == 1 else 0)  # the order of rows counts for nothing
                value = own * xp.max(sums, axis=0 if p == 1 else -1)
        except np.linalg.LinAlgError:
            value = xp.inf + own
        infinite = xp.inf * xp.ones_like(value)
        return xp.where(xp.isfinite(value) | xp.isnan(own), value, infinite)


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
