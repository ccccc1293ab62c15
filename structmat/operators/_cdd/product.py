"""Products of interleaved circulant and diagonal matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from math import prod
from typing import Any, Literal, TypeAlias

from structmat._arguments import as_floating
from structmat._arrays.arithmetic import euclidean_norm
from structmat._arrays.libraries import is_numpy
from structmat._arrays.linear_algebra import matmul
from structmat._arrays.typing import Array, ArrayLike, Namespace, Scalar
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._fourier.plans import Plan
from structmat.operators._base.arithmetic import compose, scale
from structmat.operators._base.closed_forms import NoClosedFormError
from structmat.operators._base.combination import combined
from structmat.operators._base.hooks import Context, NormOrder
from structmat.operators._base.linear_operator import LinearOperator
from structmat.operators._blocks.block_circulant import BlockCirculant
from structmat.operators._cdd.rounding import log_spread
from structmat.operators._composed.chain import Chain
from structmat.operators._families.circulants import BandedCirculant, Circulant, SpectralCirculant
from structmat.operators._families.diagonal import Diagonal, Entrywise

FactorKind: TypeAlias = Literal["diagonal", "circulant"]
"""The kind of a factor; the kinds alternate."""

Factor: TypeAlias = Diagonal | Circulant | SpectralCirculant | BandedCirculant | BlockCirculant

_CIRCULANT_LIKE = (Circulant, SpectralCirculant, BandedCirculant, BlockCirculant)
"""The classes of factors of the kind "circulant"."""

_DENSE_SIDE = 512
"""Up to this side `to_dense` multiplies dense matrices, which costs little and keeps every digit."""


def kind_of(factor: LinearOperator) -> FactorKind:
    """Return the kind of a factor: all classes of factors but `Diagonal` are circulants or made of them."""
    return "diagonal" if isinstance(factor, Diagonal) else "circulant"


def alternating_kinds(first: FactorKind, count: int) -> tuple[FactorKind, ...]:
    """Return the kinds of so many factors, left to right, of which the first one has this kind."""
    second: FactorKind = "circulant" if first == "diagonal" else "diagonal"
    return tuple(second if k % 2 else first for k in range(count))


@dataclass(frozen=True, eq=False, repr=False)
class FactorsInTurn(Plan):
    """The plans of the factors, applied from right to left to each chunk of vectors.

    By operators in turn, each with its own checks and chunks, a product of one vector takes up to 1.4 times as long.
    """

    _core_axes = {"factors": None}

    factors: tuple[Any, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows of the first factor and columns of the last."""
        return (self.factors[0].shape[0], self.factors[-1].shape[1])

    @property
    def is_stack(self) -> bool:
        return any(factor.is_stack for factor in self.factors)

    @property
    def is_real(self) -> bool | None:
        """Whether all factors take real vectors, or all complex ones; None where some do and others do not."""
        kinds = {factor.is_real for factor in self.factors}
        return kinds.pop() if len(kinds) == 1 else None

    @property
    def width(self) -> int:
        return max(factor.width for factor in self.factors)

    @property
    def cost(self) -> float:
        return sum(factor.cost for factor in self.factors)

    def step(self, xp: Namespace, dtype: str, *, batched: bool) -> Callable[[Any], Any]:
        if self.is_real is None or self.is_stack:
            return lambda x: self.product(x, xp)
        first, *rest = [factor.step(xp, dtype, batched=batched) for factor in reversed(self.factors)]
        if not rest:
            return first
        in_place = [is_numpy(xp) and isinstance(factor, Entrywise) for factor in self.factors[-2::-1]]
        steps = list(zip(rest, in_place, strict=True))

        def product(x: Any) -> Any:
            y = first(x)
            for step, overwrites in steps:  # what the step before returned
                y = step(y, y) if overwrites else step(y)
            return y

        return product

    def product(self, x: Array, xp: Namespace) -> Array:
        return reduce(lambda y, factor: factor.apply(y, xp), reversed(self.factors), x)

    def apply(self, x: Array, xp: Namespace) -> Array:
        return self.product(x, xp) if self.is_real is None else super().apply(x, xp)


@dataclass(frozen=True, eq=False, repr=False)
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
    A product with a vector costs O(n log n) operations for each factor. Every complex square matrix is a finite product
    of circulant and diagonal matrices [1]_, and a generic one is a product of at most 2n - 1 of them [2]_. Three
    factors, D C D, are the form used for fine-tuning [3]_.

    The product with a CDD product, a diagonal or a circulant is a CDD product again, in which adjacent factors of the
    same kind are merged. `inv`, `solve`, `det` and `slogdet` follow from those of the factors if these are square.
    `diagonal`, `trace` and the Frobenius, 1 and infinity norms are known if at most one factor is a circulant or made
    of circulants. These norms are computed from all entries, in O(n^2) operations.

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
                text = "must be Diagonal, Circulant, SpectralCirculant, BandedCirculant or BlockCirculant, got "
                raise ArgumentTypeError("CDDProduct", "factors", text + type(f).__name__)
        for left, right in pairwise(factors):
            if kind_of(left) == kind_of(right):
                text = f"must be alternately diagonal and circulant, got {type(left).__name__} beside "
                raise ArgumentValueError("CDDProduct", "factors", text + type(right).__name__)
        self._set_parts(factors, factors)

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
        owner = "CDDProduct.from_vectors"
        if first not in {"diagonal", "circulant"}:
            raise ArgumentValueError(owner, "first", f'must be "diagonal" or "circulant", got {first!r}')
        arrays = [as_floating(v, owner, f"vectors[{i}]") for i, v in enumerate(vectors)]
        for i, array in enumerate(arrays):
            if not array.ndim:
                raise ArgumentValueError(owner, f"vectors[{i}]", "must have shape (..., n), got a scalar")
        factors: list[Factor] = []
        for i, (kind, array) in enumerate(zip(alternating_kinds(first, len(arrays)), arrays, strict=True)):
            if kind == "diagonal":
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

    def _log_spread(self, right: Any, left: Any) -> float:
        """Return the logarithm of the spread of rounding errors of one product of NumPy arrays; see `log_spread`."""
        return log_spread(self.factors, right, left)

    def _solver(self, xp: Namespace) -> Plan | None:
        self._require_square_factors()
        plans = [f._solver(xp) for f in reversed(self.factors)]
        known = tuple(plan for plan in plans if isinstance(plan, Plan))
        return FactorsInTurn(known) if len(known) == len(plans) else None

    def _plan(self, xp: Namespace) -> FactorsInTurn:
        return FactorsInTurn(tuple(factor._plan(xp) for factor in self.factors))

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        in_chunks = is_numpy(xp) and x.ndim > 1  # else a plan would only cost
        return self._plan(xp).apply(x, xp) if in_chunks else super()._matvec(x, xp)

    def _details(self) -> str:
        return f"n_factors={self.n_factors}, n_parameters={self.n_parameters}, "

    def _to_dense(self, like: Context) -> Array:
        *rest, last = self.factors
        dense = last._to_dense(like)
        if isinstance(last, Diagonal) and rest:  # scale the columns of the factor before it: exact and cheaper
            dense = rest.pop()._to_dense(like) * last.d[..., None, :]
        for factor in reversed(rest):
            if isinstance(factor, (Diagonal, BandedCirculant)) or max(factor.shape) > _DENSE_SIDE:
                dense = factor._matmat(dense, like.xp)
            else:  # transforms would lose small entries beside large ones, which other factors may bring back
                dense = matmul(factor._to_dense(like), dense, like.xp)
        return dense

    def _require_one_circulant(self) -> None:
        if sum(kind_of(factor) == "circulant" for factor in self.factors) > 1:
            raise NoClosedFormError(self)

    def _diagonal(self, xp: Namespace) -> Array:
        self._require_one_circulant()
        size = min(self.shape)
        first, *rest = (f._diagonal(xp)[..., :size] for f in self.factors)
        for other in rest:
            first = first * other
        return first

    def _norm(self, ord: NormOrder, xp: Namespace) -> Array:
        if ord in {2, "nuc"}:
            raise NoClosedFormError(self)
        self._require_one_circulant()
        if len(self.factors) == 1:
            return self.factors[0]._norm(ord, xp)
        dense = self._to_dense(Context(xp, self.dtype, self.device))
        if ord == "fro":
            return euclidean_norm(dense, xp, axis=(-2, -1))
        return xp.max(xp.sum(xp.abs(dense), axis=-2 if ord == 1 else -1), axis=-1)


def _factors(operator: LinearOperator) -> tuple[LinearOperator, ...]:
    return operator.factors if isinstance(operator, CDDProduct) else (operator,)


def _chain(left: LinearOperator, right: LinearOperator) -> LinearOperator:
    """Return the product of two alternating chains; neighbours of one kind merge where their family allows it."""
    lefts, rights = _factors(left), _factors(right)
    if kind_of(lefts[-1]) != kind_of(rights[0]):
        return combined(CDDProduct, lefts + rights, (left, right))
    merged = compose.merge(lefts[-1], rights[0])
    if merged is NotImplemented:
        return NotImplemented
    factors = (*lefts[:-1], merged, *rights[1:])
    return combined(CDDProduct, factors, factors)


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
