"""Products of interleaved circulant and diagonal matrices (CDD products)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Literal, TypeAlias

from structmat._arrays.arrays import as_floating, is_complex, is_numpy
from structmat._arrays.dispatch import compose, scale
from structmat._arrays.typing import Array, ArrayLike, Namespace, Scalar
from structmat._engine import Settings
from structmat.operators._algebra import Chain, Product
from structmat.operators._base import Context, LinearOperator
from structmat.operators._block_circulant import BlockCirculant
from structmat.operators._chain import ChainPlan
from structmat.operators._circulant import Circulant, SpectralCirculant
from structmat.operators._diagonal import Diagonal

__all__ = ["CDDProduct"]

Factor: TypeAlias = Diagonal | Circulant | SpectralCirculant | BlockCirculant
# Up to this side `to_dense` multiplies dense matrices, which costs little and keeps every digit.
_DIRECT_SIDE = 512
CIRCULANT_LIKE = (Circulant, SpectralCirculant, BlockCirculant)


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class CDDProduct(Chain):
    """A product of interleaved circulant-like and diagonal matrices.

    Parameters
    ----------
    factors : sequence of Diagonal, Circulant, SpectralCirculant or BlockCirculant
        In the order of the matrix product; diagonal and circulant-like factors must alternate, inner sizes must agree.

    Raises
    ------
    TypeError
        If a factor is of another type, or the factors come from different array libraries.
    ValueError
        If there is no factor, two neighbours are of one kind, inner sizes differ, or batch axes do not broadcast.

    See Also
    --------
    CDDProduct.from_vectors : Makes one from plain vectors.
    structmat.fit_cdd : Fits one to a given matrix.

    Notes
    -----
    A product with a vector costs O(n log n) a factor. Every complex square matrix is a finite product of circulant and
    diagonal matrices [1]_, a generic one of at most 2n - 1 [2]_. Three factors, D C D, are the form used for
    fine-tuning [3]_. Products with a CDD product, a diagonal or a circulant stay in the family: neighbours of one kind
    merge. `inv`, `solve`, `det` and `slogdet` go through square factors; `diagonal`, `trace` and the Frobenius, 1 and
    infinity norms are known with at most one circulant-like factor.

    References
    ----------
    .. [1] Schmid, M., Steinwandt, R., Müller-Quade, J., Rötteler, M., Beth, T., Decomposing a matrix into circulant
       and diagonal factors, Linear Algebra Appl. 306, 2000.
    .. [2] Huhtanen, M., Perämäki, A., Factoring matrices into the product of circulant and diagonal matrices,
       J. Fourier Anal. Appl. 21, 2015.
    .. [3] Parameter-efficient fine-tuning with circulant and diagonal vectors, IJCAI 2025, arXiv:2505.00580.

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
            if not isinstance(f, (Diagonal, *CIRCULANT_LIKE)):
                raise TypeError(
                    "CDDProduct: factors must be Diagonal, Circulant, SpectralCirculant or BlockCirculant, "
                    f"got {type(f).__name__}"
                )
        for left, right in pairwise(factors):
            if isinstance(left, Diagonal) == isinstance(right, Diagonal):
                raise ValueError(
                    "CDDProduct: diagonal and circulant factors must alternate, "
                    f"got {type(left).__name__} beside {type(right).__name__}"
                )
        object.__setattr__(self, "factors", factors)

    @classmethod
    def from_vectors(
        cls, *vectors: ArrayLike, first: Literal["diagonal", "circulant"] = "diagonal", block: bool = False
    ) -> CDDProduct:
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
            raise ValueError(f'CDDProduct.from_vectors: first must be "diagonal" or "circulant", got {first!r}')
        arrays = [as_floating(v, f"CDDProduct.from_vectors: vectors[{i}]") for i, v in enumerate(vectors)]
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

    def _plan(self, how: Settings, xp: Namespace) -> LinearOperator:
        return self._chained(tuple(f._plan(how, xp) for f in self.factors), xp)

    def _solver(self, how: Settings, xp: Namespace) -> LinearOperator | None:
        self._require_square_factors("solve")
        solvers = [f._solver(how, xp) for f in reversed(self.factors)]
        known = tuple(solver for solver in solvers if solver is not None)
        return self._chained(known, xp) if len(known) == len(solvers) else None

    def _chained(self, plans: tuple[LinearOperator, ...], xp: Namespace) -> LinearOperator:
        kinds = {is_complex(f.dtype, xp) for f in self.factors}
        if len(kinds) > 1:
            return Product(plans)
        return ChainPlan(plans, not kinds.pop(), bool(self.batch_shape))

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        if is_numpy(xp):
            return self._plan(Settings(), xp)._matvec(x, xp)
        for factor in reversed(self.factors):  # no chunks, so a plan would only cost its making
            x = factor._matvec(x, xp)
        return x

    def _rmatvec(self, y: Array, xp: Namespace) -> Array:
        if is_numpy(xp):
            return self._plan(Settings(), xp).H._matvec(y, xp)
        for factor in self.factors:
            y = factor._rmatvec(y, xp)
        return y

    def _details(self) -> str:
        return f"n_factors={self.n_factors}, n_parameters={self.n_parameters}, "

    def _to_dense(self, like: Context) -> Array:
        *rest, last = self.factors
        dense = last._to_dense(like)
        if isinstance(last, Diagonal) and rest:  # scale the columns of the factor before it: exact and cheaper
            dense = rest.pop()._to_dense(like) * last.d[..., None, :]
        for factor in reversed(rest):
            if isinstance(factor, Diagonal) or max(factor.shape) > _DIRECT_SIDE:
                dense = factor._matmat(dense, like.xp)
            else:  # transforms would lose small entries beside large ones, which other factors may bring back
                dense = like.xp.matmul(factor._to_dense(like), dense)
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

    def _modulus(self, power: int, xp: Namespace) -> LinearOperator:
        self._require_one_circulant("norm")
        return CDDProduct(tuple(f._modulus(power, xp) for f in self.factors))  # type: ignore[misc]


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


for _kind in CIRCULANT_LIKE:
    compose.rule(Diagonal, _kind)(_chain)
    compose.rule(_kind, Diagonal)(_chain)
for _factor in (CDDProduct, Diagonal, *CIRCULANT_LIKE):
    compose.rule(CDDProduct, _factor)(_chain)
    compose.rule(_factor, CDDProduct)(_chain)


@scale.rule(CDDProduct, object)
def _scale(operator: CDDProduct, factor: Scalar) -> CDDProduct:
    first, *rest = operator.factors
    return CDDProduct((scale(first, factor), *rest))
