"""Products of interleaved circulant and diagonal matrices (CDD products)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Literal, TypeAlias

import numpy as np

from structmat._arrays import as_floating, device_of, is_numpy, matmul, restored
from structmat._arrays.dispatch import compose, scale
from structmat._arrays.errors import ArgumentTypeError, ArgumentValueError
from structmat._arrays.typing import Array, ArrayLike, Namespace, Scalar
from structmat._engine import ChunkedPlan, Composition, Plan, Settings
from structmat.operators._banded_circulant import BandedCirculant
from structmat.operators._base import Context, LinearOperator, NormOrder
from structmat.operators._block_circulant import BlockCirculant
from structmat.operators._circulant import Circulant, SpectralCirculant
from structmat.operators._combinations import Chain, Product
from structmat.operators._combinations.parts import plan_by_parts
from structmat.operators._diagonal import Diagonal
from structmat.operators._entry_norms import ScaledGrid
from structmat.operators._rounding import log_spread_and_norm

__all__ = ["CDDProduct", "Factor", "FactorKind"]

FactorKind: TypeAlias = Literal["diagonal", "circulant"]
"""The kind of a factor; the kinds alternate."""

Factor: TypeAlias = Diagonal | Circulant | SpectralCirculant | BandedCirculant | BlockCirculant
# Up to this side `to_dense` multiplies dense matrices, which costs little and keeps every digit.
_DIRECT_SIDE = 512
# Random vectors that norms of partial products are estimated with.
_PROBES = 32
_CIRCULANT_LIKE = (Circulant, SpectralCirculant, BandedCirculant, BlockCirculant)


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class CDDProduct(Chain):
    """A product of interleaved circulant-like and diagonal matrices.

    Parameters
    ----------
    factors : sequence of Diagonal, Circulant, SpectralCirculant, BandedCirculant or BlockCirculant
        In the order of the matrix product; diagonal and circulant-like factors must alternate, inner sizes must agree.

    Raises
    ------
    TypeError
        If a factor is of another type, or the factors come from different array libraries.
    ValueError
        If there is no factor, two adjacent factors are of the same kind, inner sizes differ, or batch axes do not
        broadcast.

    See Also
    --------
    CDDProduct.from_vectors : Makes one from plain vectors.
    structmat.fit_cdd : Fits one to a given matrix.

    Notes
    -----
    A product with a vector costs O(n log n) per factor. Every complex square matrix is a finite product of circulant
    and diagonal matrices [1]_, a generic one a product of at most 2n - 1 [2]_. Three factors, D C D, are the form used
    for fine-tuning [3]_. Products with a CDD product, a diagonal or a circulant are CDD products again: adjacent
    factors of the same kind are merged. `inv`, `solve`, `det` and `slogdet` use those of the factors if these are
    square; `diagonal`, `trace` and the Frobenius, 1 and infinity norms are known with at most one circulant-like
    factor. These norms are accurate: they cost O(n log n), but O(n^2) if the range of the factors makes transforms of
    the moduli inaccurate, and always with JAX and on a GPU, where values are not inspected.

    References
    ----------
    .. [1] Schmid, M., Steinwandt, R., Müller-Quade, J., Rötteler, M., Beth, T., Decomposing a matrix into circulant
       and diagonal factors, Linear Algebra Appl. 306, 2000.
    .. [2] Huhtanen, M., Perämäki, A., Factoring matrices into the product of circulant and diagonal matrices,
       J. Fourier Anal. Appl. 21, 2015.
    .. [3] X. Ding, L. Chen, S. Liao, Z. Wang, Parameter-efficient fine-tuning with circulant and diagonal vectors,
       IJCAI 2025, pp. 9185-9193, arXiv:2505.00580.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> P = sm.Diagonal(np.array([1.0, 2.0])) @ sm.Circulant(np.array([1.0, 3.0])) @ sm.Diagonal(np.array([1.0, 10.0]))
    >>> P
    CDDProduct(n_factors=3, n_parameters=6, shape=(2, 2), dtype=float64, device=cpu)
    >>> P.to_dense()
    array([[ 1., 30.],
           [ 6., 20.]])
    """

    factors: tuple[Factor, ...]
    """The factors, left to right."""

    def __post_init__(self) -> None:
        factors = self._checked_factors()
        for f in factors:
            if not isinstance(f, (Diagonal, *_CIRCULANT_LIKE)):
                raise ArgumentTypeError(
                    "CDDProduct",
                    "factors",
                    "must be Diagonal, Circulant, SpectralCirculant, BandedCirculant or BlockCirculant, "
                    f"got {type(f).__name__}",
                )
        for left, right in pairwise(factors):
            if isinstance(left, Diagonal) == isinstance(right, Diagonal):
                raise ArgumentValueError(
                    "CDDProduct",
                    "factors",
                    "must be alternately diagonal and circulant, "
                    f"got {type(left).__name__} beside {type(right).__name__}",
                )
        self._hold(factors, factors)

    @classmethod
    def from_vectors(cls, *vectors: ArrayLike, first: FactorKind = "diagonal", block: bool = False) -> CDDProduct:
        """Return the CDD product whose factors are given by plain vectors, left to right.

        Parameters
        ----------
        *vectors : array, shape (..., n)
            Alternately diagonals and first columns of circulants; leading axes make stacks.
        first : {"diagonal", "circulant"}, default "diagonal"
            The kind of the first factor.
        block : bool, default False
            Whether the circulant-like factors are grids of blocks, each of shape ``(..., p, q, b)``. The lengths of the
            diagonals beside a grid then crop it.

        Returns
        -------
        CDDProduct
            With as many factors as vectors.

        Raises
        ------
        ValueError
            If there is no vector, `first` is neither kind, or sizes do not fit.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.CDDProduct.from_vectors(np.ones(4), np.ones(4), np.ones(4)).n_factors
        3
        >>> sm.CDDProduct.from_vectors(np.ones(5), np.ones((3, 2, 2)), np.ones(4), block=True).shape
        (5, 4)
        """
        if first not in {"diagonal", "circulant"}:
            raise ArgumentValueError(
                "CDDProduct.from_vectors", "first", f'must be "diagonal" or "circulant", got {first!r}'
            )
        arrays = [as_floating(v, "CDDProduct.from_vectors", f"vectors[{i}]") for i, v in enumerate(vectors)]
        for i, array in enumerate(arrays):
            if not array.ndim:
                text = "must have shape (..., n), got a scalar"
                raise ArgumentValueError("CDDProduct.from_vectors", f"vectors[{i}]", text)
        offset = 0 if first == "diagonal" else 1
        factors: list[Factor] = []
        for i, array in enumerate(arrays):
            if (i + offset) % 2 == 0:
                factors.append(Diagonal(array))
            elif not block:
                factors.append(Circulant(array))
            else:
                whole = BlockCirculant(array)
                rows = arrays[i - 1].shape[-1] if i else whole.shape[0]
                cols = arrays[i + 1].shape[-1] if i + 1 < len(arrays) else whole.shape[1]
                factors.append(BlockCirculant(array, (rows, cols)))
        return cls(tuple(factors))

    @property
    def n_factors(self) -> int:
        """The number of factors, diagonal and circulant-like ones together."""
        return len(self.factors)

    @property
    def n_parameters(self) -> int:
        """The number of entries of all vectors of one matrix of the stack."""
        return sum(
            f.n if isinstance(f, SpectralCirculant) else prod(array.shape[array.ndim - axes :])
            for f in self.factors
            for array, axes in f._leaves()
        )

    def product_cond(self) -> Array:
        """Return a condition number of products: their rounding errors relative to those of an isometry.

        Returns
        -------
        array, shape of the batch
            About one for a circulant, a diagonal, a matrix of rank one, or random factors; infinite for a product that
            is zero although no factor is. Beyond ``1 / eps`` it only says that no digit is left.

        See Also
        --------
        CDDProduct.direct_matvec : Products that do not lose small entries.

        Notes
        -----
        Transforms are accurate relative to the norm of a vector, not to each entry. If a diagonal with large entries
        follows, errors in small entries grow. With ``P = L_k C_k R_k`` for every circulant-like factor ``C_k`` of first
        column ``c_k``, the condition number is ``sqrt(sum_k norm(L_k)^2 norm(c_k)^2 norm(R_k)^2 / n) / norm(P)``, in
        Frobenius norms, grids of blocks taken block by block. The computed product with the identity differs from `P`
        by about ``eps * log2(n) * product_cond() * norm(P)`` at most, and one with a random vector by as much relative
        to the size of such products. This assumes that rounding errors are independent and evenly spread; for a single
        unit vector errors may be smaller or larger. Norms are estimated to about ten per cent with a few random
        vectors, the same in each call, at the cost of as many products.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> d = np.geomspace(1.0, 1e8, 64)
        >>> shift = np.eye(64)[0]
        >>> similar = sm.CDDProduct.from_vectors(d, shift, 1 / d)  # the identity, the hard way
        >>> bool(similar.product_cond() > 1e6)
        True
        >>> bool(np.abs(similar @ np.ones(64) - 1.0).max() > 1e-10)
        True
        >>> bool(np.abs(similar.direct_matvec(np.ones(64)) - 1.0).max() < 1e-15)
        True
        """
        op, xp = self._to_working_precision("product_cond")
        spread, norm = op._log_spread_and_norm(*self._probes(op, xp), xp)
        return xp.exp(spread - xp.where(xp.isfinite(spread), norm, xp.zeros_like(norm)))

    def _log_spread_and_norm(self, right: Array, left: Array, xp: Namespace) -> tuple[Array, Array]:
        """Logarithms of what rounding errors of products grow with, and of the norm, by random vectors."""
        return log_spread_and_norm(self.factors, right, left, xp)

    @staticmethod
    def _probes(op: CDDProduct, xp: Namespace) -> tuple[Array, Array]:
        rng = np.random.default_rng(0)
        like = op._arrays()[0]
        ones = (1,) * len(op.batch_shape)
        right, left = (
            xp.astype(xp.asarray(rng.standard_normal((_PROBES, *ones, side)), device=device_of(like)), op.dtype)
            for side in reversed(op.shape)
        )
        return right, left

    def direct_matvec(self, x: ArrayLike, /) -> Array:
        """Return A x, along the last axis, by direct sums instead of transforms.

        Parameters
        ----------
        x : array, shape (..., cols)
            One vector or any batch of them.

        Returns
        -------
        array, shape (..., rows)
            The products, of the common dtype of operator and `x`.

        Raises
        ------
        ValueError
            If the last axis of `x` has another length, or the batch axes do not broadcast.
        TypeError
            If `x` belongs to another array library than the operator.

        See Also
        --------
        CDDProduct.product_cond : Whether products by transforms, ``A @ x``, have lost digits.

        Notes
        -----
        The error of each entry is at most about ``eps * n * F`` times the entry of the product of the moduli of the F
        factors, ``|A_1| ... |A_F| |x|``, whatever their range. The cost is O(n^2) per factor and vector, with the
        memory of one dense factor.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> P = sm.CDDProduct.from_vectors(np.array([1.0, 2.0]), np.array([1.0, 3.0]), np.array([1.0, 10.0]))
        >>> P.direct_matvec(np.array([1.0, 1.0]))
        array([31., 26.])
        """
        op, operand, xp, dtype = self._operand(x, "direct_matvec", "x", self.shape[1])
        for factor in reversed(op.factors):
            if isinstance(factor, Diagonal):
                operand = factor._matvec(operand, xp)
            else:
                dense = factor._to_dense(Context(xp, operand.dtype, device_of(operand)))
                operand = matmul(dense, operand[..., None], xp)[..., 0]
        return restored(operand, dtype, xp)

    def _plan(self, settings: Settings, xp: Namespace) -> Plan | None:
        if (plan := self._composed([f._plan(settings, xp) for f in self.factors])) is not None:
            return plan
        return plan_by_parts(self.factors, Product, settings)

    def _solver(self, settings: Settings, xp: Namespace) -> Plan | None:
        self._require_square_factors("solve")
        return self._composed([f._solver(settings, xp) for f in reversed(self.factors)])

    def _composed(self, plans: Sequence[object]) -> Composition | None:
        """Return the product of plans; None where one is missing, or some are real and some complex."""
        known = tuple(plan for plan in plans if isinstance(plan, ChunkedPlan))
        uniform = len(known) == len(plans) and len({plan.is_real for plan in known}) == 1
        return Composition(known) if uniform else None

    def _once(self, xp: Namespace) -> Composition | None:
        """Return the plan of one product, by NumPy in chunks; without chunks it would only cost its making."""
        return self._composed([f._plan(Settings(), xp) for f in self.factors]) if is_numpy(xp) else None

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        plan = self._once(xp)
        return super(CDDProduct, self)._matvec(x, xp) if plan is None else plan.apply(x, xp)

    def _rmatvec(self, y: Array, xp: Namespace) -> Array:
        plan = self._once(xp)
        return super(CDDProduct, self)._rmatvec(y, xp) if plan is None else plan.adjoint().apply(y, xp)

    def _details(self) -> str:
        return f"n_factors={self.n_factors}, n_parameters={self.n_parameters}, "

    def _to_dense(self, like: Context) -> Array:
        *rest, last = self.factors
        dense = last._to_dense(like)
        if isinstance(last, Diagonal) and rest:  # scale the columns of the factor before it: exact and cheaper
            dense = rest.pop()._to_dense(like) * last.d[..., None, :]
        for factor in reversed(rest):
            if isinstance(factor, (Diagonal, BandedCirculant)) or max(factor.shape) > _DIRECT_SIDE:
                dense = factor._matmat(dense, like.xp)
            else:  # transforms would lose small entries beside large ones, which other factors may bring back
                dense = matmul(factor._to_dense(like), dense, like.xp)
        return dense

    def _require_one_circulant(self, method: str) -> None:
        if sum(not isinstance(f, Diagonal) for f in self.factors) > 1:
            raise self._no_closed_form(method)

    def _diagonal(self, method: str, xp: Namespace) -> Array:
        self._require_one_circulant(method)
        size = min(self.shape)
        first, *rest = (f._diagonal(method, xp)[..., :size] for f in self.factors)
        for other in rest:
            first = first * other
        return first

    def _norm(self, ord: NormOrder, xp: Namespace) -> Array:
        if ord in {2, "nuc"}:
            raise self._no_closed_form("norm")
        self._require_one_circulant("norm")
        left = right = grid = None
        for factor in self.factors:
            if isinstance(factor, BlockCirculant):
                grid = factor.c
            elif not isinstance(factor, Diagonal):
                grid = (factor if isinstance(factor, Circulant) else factor.to_circulant()).c[..., None, None, :]
            elif grid is None:
                left = factor.d
            else:
                right = factor.d
        if grid is None:
            return self.factors[0]._norm(ord, xp)
        return ScaledGrid.of(left, grid, right, self.shape, xp).norm(ord, xp)


def _join(left: tuple[Factor, ...], right: tuple[Factor, ...]) -> LinearOperator:
    """Return the product of two alternating chains; neighbours of one kind merge where their family allows it."""
    if isinstance(left[-1], Diagonal) != isinstance(right[0], Diagonal):
        return CDDProduct(left + right)
    merged = compose.merge(left[-1], right[0])
    return NotImplemented if merged is NotImplemented else CDDProduct((*left[:-1], merged, *right[1:]))


def _factors(operator: LinearOperator) -> tuple[Factor, ...]:
    return operator.factors if isinstance(operator, CDDProduct) else (operator,)  # type: ignore[return-value]


def _chain(left: LinearOperator, right: LinearOperator) -> LinearOperator:
    return _join(_factors(left), _factors(right))


for _kind in _CIRCULANT_LIKE:
    compose.rule(Diagonal, _kind)(_chain)
    compose.rule(_kind, Diagonal)(_chain)
for _factor in (CDDProduct, Diagonal, *_CIRCULANT_LIKE):
    compose.rule(CDDProduct, _factor)(_chain)
    compose.rule(_factor, CDDProduct)(_chain)


@scale.rule(CDDProduct, object)
def _scale(operator: CDDProduct, factor: Scalar) -> CDDProduct:
    first, *rest = operator.factors
    return CDDProduct((scale(first, factor), *rest))
