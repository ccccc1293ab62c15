"""Products of interleaved circulant and diagonal matrices, their shapes and their rounding errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import InitVar, dataclass
from functools import reduce
from itertools import pairwise
from math import prod
from operator import or_
from typing import Any, Literal, TypeAlias

import numpy as np

from structmat._arguments import as_floating, integer, side_of_blocks, wrong_shape
from structmat._arrays.arithmetic import euclidean_norm, scale_array
from structmat._arrays.libraries import device_of, is_numpy, namespace_of
from structmat._arrays.linear_algebra import matmul
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.shapes import padded
from structmat._arrays.typing import Array, ArrayLike, Namespace, Scalar
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._fourier.plans import Plan
from structmat.operators._arithmetic import compose, scale
from structmat.operators._block_circulant import BlockCirculant
from structmat.operators._circulants import BandedCirculant, Circulant, SpectralCirculant
from structmat.operators._combined_plans import CombinedPlan
from structmat.operators._composite import Chain, combined
from structmat.operators._diagonal import Diagonal
from structmat.operators._linear_operator import Context, LinearOperator, NormOrder

# Factors whose products go through transforms.
_TRANSFORMED = (Circulant, SpectralCirculant, BlockCirculant)


def _errors(factor: Any, z: Any) -> Any:
    """Squared size of the error of an entry in each block of the product of a factor and `z`, over that of ``eps``."""
    energy = _mean_square(_blocks(z, factor, axis=1))
    if not isinstance(factor, BlockCirculant):
        return (factor._norm("fro", numpy_namespace) / factor.shape[0]) ** 2 * energy
    return np.sum(np.abs(factor.c) ** 2, axis=-1) @ energy / factor.c.shape[-1]


def _mean_square(x: Any) -> Any:
    """Squared norms along the last axis, the mean over the first."""
    return np.mean(np.sum(np.abs(x) ** 2, axis=-1), axis=0)


def _blocks(x: Any, factor: Any, axis: int) -> Any:
    """Return (k, n) as (k, blocks, side), the last block padded, for the rows or columns of a factor."""
    if not isinstance(factor, BlockCirculant):
        return x[:, None, :]
    count, side = factor.c.shape[axis - 3], factor.c.shape[-1]
    return np.reshape(padded(x, count * side, numpy_namespace), (-1, count, side))


def _normalised(x: Any, log: float) -> tuple[Any, float]:
    """Divide by the largest modulus, and return what the logarithm of the scale then is."""
    size = np.max(np.abs(x)) or 1.0
    return x / size, log + float(np.log(size))


FactorKind: TypeAlias = Literal["diagonal", "circulant"]
"""The kind of a factor; the kinds alternate."""

Factor: TypeAlias = Diagonal | Circulant | SpectralCirculant | BandedCirculant | BlockCirculant

_CIRCULANT_LIKE = (Circulant, SpectralCirculant, BandedCirculant, BlockCirculant)
"""The classes of factors of the kind "circulant"."""

# Up to this side `to_dense` multiplies dense matrices, which costs little and keeps every digit.
_DIRECT_SIDE = 512


def _kind_of(factor: LinearOperator) -> FactorKind:
    """Return the kind of a factor: all classes of factors but `Diagonal` are circulants or made of them."""
    return "diagonal" if isinstance(factor, Diagonal) else "circulant"


def _alternating_kinds(first: FactorKind, count: int) -> tuple[FactorKind, ...]:
    """Return the kinds of so many factors, left to right, of which the first one has this kind."""
    second: FactorKind = "circulant" if first == "diagonal" else "diagonal"
    return tuple(second if k % 2 else first for k in range(count))


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
    A product with a vector costs O(n log n) per factor. Every complex square matrix is a finite product of circulant
    and diagonal matrices [1]_, a generic one a product of at most 2n - 1 [2]_. Three factors, D C D, are the form used
    for fine-tuning [3]_. Products with a CDD product, a diagonal or a circulant are CDD products again: adjacent
    factors of the same kind are merged. `inv`, `solve`, `det` and `slogdet` use those of the factors if these are
    square; `diagonal`, `trace` and the Frobenius, 1 and infinity norms are known with at most one circulant-like
    factor; these norms are made of all entries, O(n^2).

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
            if _kind_of(left) == _kind_of(right):
                text = f"must be alternately diagonal and circulant, got {type(left).__name__} beside "
                raise ArgumentValueError("CDDProduct", "factors", text + type(right).__name__)
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
        owner = "CDDProduct.from_vectors"
        if first not in {"diagonal", "circulant"}:
            raise ArgumentValueError(owner, "first", f'must be "diagonal" or "circulant", got {first!r}')
        arrays = [as_floating(v, owner, f"vectors[{i}]") for i, v in enumerate(vectors)]
        for i, array in enumerate(arrays):
            if not array.ndim:
                raise ArgumentValueError(owner, f"vectors[{i}]", "must have shape (..., n), got a scalar")
        factors: list[Factor] = []
        for i, (kind, array) in enumerate(zip(_alternating_kinds(first, len(arrays)), arrays, strict=True)):
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
        """Return the logarithm of the spread of one product of NumPy arrays.

        A transform leaves rounding errors of the norm ``eps * norm(c) * norm(z)`` in the convolution of `c` and `z`,
        spread evenly over the entries of every block, which the factors to the left then carry on. With ``P = L_k C_k
        R_k`` for each circulant-like factor, the squared spread is the sum over k of ``norm(L_k)**2 * norm(c_k)**2 *
        norm(R_k)**2 / n`` (Frobenius norms), block by block: the expected squared norm of the errors of the products
        with the unit vectors, over that of ``eps``. Norms of partial products are estimated with random vectors:
        `right` (k, cols) and `left` (k, rows) are independent standard normal ones. In place of the first there may be
        products of such vectors and a matrix that the product is multiplied by.
        """
        xp, errors, terms = numpy_namespace, [], []
        z, log = _normalised(right, 0.0)
        for factor in reversed(self.factors):
            if isinstance(factor, _TRANSFORMED):
                errors.append((_errors(factor, z), log))
            z, log = _normalised(factor._matvec(z, xp), log)
        with np.errstate(divide="ignore"):
            if not errors:
                return float(0.5 * np.log(_mean_square(z)) + log)
            y, log = _normalised(left, 0.0)
            for factor in self.factors:
                if isinstance(factor, _TRANSFORMED):
                    made, at = errors.pop()
                    terms.append(np.log(np.sum(made * _mean_square(_blocks(y, factor, axis=0)))) + 2.0 * (at + log))
                y, log = _normalised(factor._rmatvec(y, xp), log)
        return float(0.5 * np.logaddexp.reduce(terms))

    def _solver(self, xp: Namespace) -> Plan | None:
        self._require_square_factors("solve")
        plans = [f._solver(xp) for f in reversed(self.factors)]
        known = tuple(plan for plan in plans if isinstance(plan, Plan))
        return CombinedPlan(known, is_sum=False) if len(known) == len(plans) else None

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        plan = self._plan(xp) if is_numpy(xp) and x.ndim > 1 else None  # in chunks, without which it would only cost
        return super()._matvec(x, xp) if plan is None else plan.apply(x, xp)

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
        if sum(_kind_of(factor) == "circulant" for factor in self.factors) > 1:
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
    if _kind_of(lefts[-1]) != _kind_of(rights[0]):
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


_MOST_FACTORS = 1000
"""Of products of small sides: those of large ones may have four factors for each row or column."""


@dataclass(frozen=True)
class CDDLayout:
    """The shape of a CDD product that begins with a diagonal: the shapes of its vectors, without any values.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the product.
    n_factors : int, default 3
        The number of factors, diagonal and circulant ones together.
    block_size : int, "min" or "toeplitz", default "min"
        The side b of the blocks of circulant factors; "min" is the smaller side. "toeplitz" is ``rows + cols - 1``, the
        largest: the leading corner of one circulant of that side is any Toeplitz matrix.
    owner : str, default "CDDLayout"
        The caller, for error messages. It is not stored.

    Raises
    ------
    ArgumentValueError
        If a number is out of range, or there is no such product: for a rectangle or several blocks `n_factors` is odd
        and at least 3. There are at most four times as many as the larger side has entries, or 1,000.
    ArgumentTypeError
        If an argument is of the wrong kind.

    See Also
    --------
    CDDProduct : The products themselves.

    Notes
    -----
    The vector of a diagonal factor has the shape ``(n,)``, that of a circulant one always ``(p, q, b)``: a p x q grid
    of b x b circulants by their first columns, cropped to the shape of the factor. A circulant of a single block is a
    1 x 1 grid. One grid has the shape of the whole product. All others are square with its smaller side: on the right
    of it if the product is tall or square, on the left if it is wide.

    Examples
    --------
    >>> import structmat as sm
    >>> layout = sm.CDDLayout((6, 4), n_factors=5)
    >>> layout.vector_shapes
    ((6,), (2, 1, 4), (4,), (1, 1, 4), (4,))
    >>> layout.n_parameters
    26
    >>> layout.kinds
    ('diagonal', 'circulant', 'diagonal', 'circulant', 'diagonal')
    """

    shape: tuple[int, int]
    """Rows and columns of the product."""
    n_factors: int = 3
    """The number of factors."""
    block_size: int | Any = "min"
    """The side of the blocks, an integer."""
    owner: InitVar[str] = "CDDLayout"

    def __post_init__(self, owner: str) -> None:
        try:
            rows, cols = self.shape
        except (TypeError, ValueError):
            raise ArgumentTypeError(owner, "shape", f"must be (rows, cols), got {self.shape!r}") from None
        shape = (integer(rows, owner, "shape"), integer(cols, owner, "shape"))
        object.__setattr__(self, "shape", shape)
        n_factors, most = integer(self.n_factors, owner, "n_factors"), self.most_factors(shape)
        if n_factors > most:
            text = f"must be at most {most:,} for a product of shape {shape}, got {n_factors}"
            raise ArgumentValueError(owner, "n_factors", text)
        object.__setattr__(self, "n_factors", n_factors)
        object.__setattr__(self, "block_size", _block_size(self.block_size, shape, owner))
        if not self.is_single_block and (self.n_factors < 3 or self.n_factors % 2 == 0):
            where = f"for a product of shape {shape} with blocks of {self.block_size}"
            raise ArgumentValueError(owner, "n_factors", f"must be odd and at least 3 {where}, got {self.n_factors}")

    # What follows from the shape alone

    @staticmethod
    def most_factors(shape: tuple[int, int]) -> int:
        """Return the largest number of factors that a layout may have.

        Parameters
        ----------
        shape : (int, int)
            Rows and columns of the product.

        Returns
        -------
        int
            Four times the larger side, or 1,000; ``2 n - 1`` factors already give almost every n x n matrix.

        Examples
        --------
        >>> import structmat as sm
        >>> sm.CDDLayout.most_factors((6, 4)), sm.CDDLayout.most_factors((768, 768))
        (1000, 3072)
        """
        return max(_MOST_FACTORS, 4 * max(shape))

    @property
    def is_single_block(self) -> bool:
        """Whether all factors are square, and the circulant ones of one block."""
        return self.shape == (self.block_size, self.block_size)

    @property
    def kinds(self) -> tuple[FactorKind, ...]:
        """The kind of each factor, left to right."""
        return _alternating_kinds("diagonal", self.n_factors)

    @property
    def factor_shapes(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of each factor, left to right."""
        if self.is_single_block:
            return (self.shape,) * self.n_factors
        rows, cols = self.shape
        side = min(rows, cols)
        squares = ((side, side),) * (self.n_factors - 3)
        whole = ((rows, rows), (rows, cols), (cols, cols))
        return squares + whole if cols > rows else whole + squares

    @property
    def vector_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of the vector of each factor, left to right: ``(n,)`` or ``(p, q, b)``."""
        b = self.block_size
        return tuple(
            (rows,) if kind == "diagonal" else (-(-rows // b), -(-cols // b), b)
            for kind, (rows, cols) in zip(self.kinds, self.factor_shapes, strict=True)
        )

    @property
    def n_parameters(self) -> int:
        """The number of entries of all vectors."""
        return sum(math.prod(shape) for shape in self.vector_shapes)

    # Vectors

    def _identities(self, like: Array | None = None) -> tuple[Array, ...]:
        """Return the vectors of factors with ones on the main diagonal, of the library, dtype and device of `like`."""
        xp: Namespace = numpy_namespace if like is None else namespace_of("CDDLayout", like)
        dtype, device = (xp.float64, None) if like is None else (like.dtype, device_of(like))

        def identity(kind: FactorKind, shape: tuple[int, ...]) -> Array:
            if kind == "diagonal":
                return xp.ones(shape, dtype=dtype, device=device)
            p, q, b = shape
            first = xp.astype(xp.arange(b, device=device) == 0, dtype)
            return xp.eye(p, q, dtype=dtype, device=device)[..., None] * first

        return tuple(map(identity, self.kinds, self.vector_shapes))

    def extended(self, vectors: Sequence[Array]) -> tuple[Array, ...]:
        """Return the vectors of the same product with as many factors as the layout has.

        Parameters
        ----------
        vectors : sequence of arrays
            Those of a product of the same shape and block size with fewer factors; leading axes make stacks.

        Returns
        -------
        tuple of arrays
            The vectors with those of identities beside them: on the side of the square factors, and for a single block
            on the right.

        Raises
        ------
        ArgumentValueError
            If there is no product of so many factors, or the shapes of vectors do not fit.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> layout = sm.CDDLayout((2, 2), n_factors=3)
        >>> [vector.ravel().tolist() for vector in layout.extended([np.array([5.0, 7.0])])]
        [[5.0, 7.0], [1.0, 0.0], [1.0, 1.0]]
        """
        shorter = CDDLayout(self.shape, len(vectors), self.block_size)
        shorter._checked(vectors, "CDDLayout")
        left = self.n_factors - len(vectors) if self.shape[1] > self.shape[0] else 0
        identities = self._identities(vectors[0])
        return (*identities[:left], *vectors, *identities[left + len(vectors) :])

    def balanced(self, vectors: Sequence[Array]) -> tuple[Array, ...]:
        """Return vectors of the same product, scaled so that all factors have the same size.

        Parameters
        ----------
        vectors : sequence of arrays
            In `vector_shapes`; leading axes make stacks.

        Returns
        -------
        tuple of arrays
            The scaled vectors; all of them zero where one factor is zero.

        Raises
        ------
        ArgumentValueError
            If the number or the shapes of vectors do not fit.

        Notes
        -----
        The size of a diagonal is the root mean square of its entries; that of a grid ``c`` of p x q circulants is
        ``norm(c) / sqrt(min(p, q))``, the root mean square of the singular values of its matrices per frequency.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> layout = sm.CDDLayout((2, 2), n_factors=2)
        >>> [vector.round(6).tolist() for vector in layout.balanced([np.full(2, 8.0), np.array([[[2.0, 0.0]]])])]
        [[4.0, 4.0], [[[4.0, 0.0]]]]
        """
        vectors, xp = self._checked(vectors, "CDDLayout")
        cores = [len(shape) for shape in self.vector_shapes]
        sizes: list[Any] = [_size(v, kind, xp) for v, kind in zip(vectors, self.kinds, strict=True)]
        lost = reduce(or_, (size == 0 for size in sizes))
        logs = [xp.log(xp.where(size > 0, size, xp.ones_like(size))) for size in sizes]
        mean = sum(logs[1:], start=logs[0]) / len(logs)
        shares = [xp.where(lost, xp.zeros_like(mean), xp.exp(mean - log)) for log in logs]
        return tuple(scale_array(v, share, core, xp) for v, share, core in zip(vectors, shares, cores, strict=True))

    # Products

    def product(self, vectors: Sequence[ArrayLike]) -> CDDProduct:
        """Return the product with these vectors.

        Parameters
        ----------
        vectors : sequence of arrays
            In `vector_shapes`; leading axes make stacks. They are not copied: gradients flow.

        Returns
        -------
        CDDProduct
            Of `Diagonal` and `Circulant` factors for a single block, else of `Diagonal` and `BlockCirculant` ones.

        Raises
        ------
        ArgumentValueError
            If the number or the shapes of vectors do not fit.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.CDDLayout((5, 4), block_size=2).product([np.ones(5), np.ones((3, 2, 2)), np.ones(4)])
        CDDProduct(n_factors=3, n_parameters=21, shape=(5, 4), dtype=float64, device=cpu)
        """
        arrays, _ = self._checked(vectors, "CDDLayout.product")

        def factor(kind: FactorKind, array: Array, shape: tuple[int, int]) -> Factor:
            if kind == "diagonal":
                return Diagonal(array)
            return Circulant(array[..., 0, 0, :]) if self.is_single_block else BlockCirculant(array, shape)

        return CDDProduct(tuple(map(factor, self.kinds, arrays, self.factor_shapes)))

    @classmethod
    def of(cls, product: CDDProduct) -> CDDLayout:
        """Return the layout of a product.

        Parameters
        ----------
        product : CDDProduct
            A product whose factors have the shapes of a layout.

        Returns
        -------
        CDDLayout
            Such that ``layout.product(layout.vectors_of(product))`` is the same product.

        Raises
        ------
        ArgumentTypeError
            If `product` is not a CDD product.
        ArgumentValueError
            If it begins with a circulant, or its factors have blocks of several sizes or other shapes.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.CDDLayout.of(sm.CDDProduct.from_vectors(np.ones(3), np.ones(3)))
        CDDLayout(shape=(3, 3), n_factors=2, block_size=3)
        """
        owner = "CDDLayout.of"
        if not isinstance(product, CDDProduct):
            raise ArgumentTypeError(owner, "product", f"must be a CDDProduct, got {type(product).__name__}")
        sizes = {
            f.block_size if isinstance(f, BlockCirculant) else f.shape[0]
            for f in product.factors
            if _kind_of(f) == "circulant"
        } or {product.shape[0]}
        if len(sizes) > 1:
            raise ArgumentValueError(owner, "product", f"must have blocks of one size, got {sorted(sizes)}")
        if _kind_of(product.factors[0]) != "diagonal":
            raise ArgumentValueError(owner, "product", "must begin with a diagonal, of ones if need be")
        layout = cls(product.shape, product.n_factors, sizes.pop(), owner)
        shapes = tuple(f.shape for f in product.factors)
        if shapes != layout.factor_shapes:
            text = f"must have factors of shapes {layout.factor_shapes}, got {shapes}"
            raise ArgumentValueError(owner, "product", text)
        return layout

    def vectors_of(self, product: CDDProduct) -> tuple[Array, ...]:
        """Return the vectors of a product with this layout, the inverse of `product`.

        Parameters
        ----------
        product : CDDProduct
            With this layout.

        Returns
        -------
        tuple of arrays
            In `vector_shapes`, after the batch axes of each; views where the library has them.

        Raises
        ------
        ArgumentTypeError
            If `product` is not a CDD product.
        ArgumentValueError
            If it has another layout.
        """
        if (layout := CDDLayout.of(product)) != self:
            raise ArgumentValueError("CDDLayout.vectors_of", "product", f"must have the layout {self}, got {layout}")

        def vector(factor: Factor) -> Array:
            if isinstance(factor, Diagonal):
                return factor.d
            if isinstance(factor, BlockCirculant):
                return factor.c
            c = factor.to_circulant().c if isinstance(factor, (SpectralCirculant, BandedCirculant)) else factor.c
            return c[..., None, None, :]

        return tuple(map(vector, product.factors))

    def _checked(self, vectors: Sequence[ArrayLike], owner: str) -> tuple[tuple[Array, ...], Namespace]:
        """Return the vectors as arrays, and their namespace, after the check of their number and shapes."""
        arrays = tuple(as_floating(v, owner, f"vectors[{i}]") for i, v in enumerate(vectors))
        if len(arrays) != self.n_factors:
            raise ArgumentValueError(owner, "vectors", f"must be {self.n_factors}, got {len(arrays)}")
        for i, (array, shape) in enumerate(zip(arrays, self.vector_shapes, strict=True)):
            if tuple(array.shape[max(0, array.ndim - len(shape)) :]) != shape:
                core = ", ".join(map(str, shape))
                raise wrong_shape(owner, f"vectors[{i}]", f"(..., {core})", array)
        return arrays, namespace_of(owner, *arrays)


def _block_size(value: Any, shape: tuple[int, int], owner: str) -> int:
    largest = sum(shape) - 1
    side = side_of_blocks(value, owner, "block_size")
    size = {"min": min(shape), "toeplitz": largest}[side] if isinstance(side, str) else side
    if size > largest:
        raise ArgumentValueError(owner, "block_size", f"must be at most rows + cols - 1 = {largest}, got {size}")
    return size


def _size(vector: Array, kind: FactorKind, xp: Namespace) -> Array:
    """Return the sizes of diagonals or grids, as `CDDLayout.balanced` defines them."""
    if kind == "diagonal":
        return euclidean_norm(vector, xp, axis=(-1,)) / math.sqrt(vector.shape[-1])
    return euclidean_norm(vector, xp, axis=(-3, -2, -1)) / math.sqrt(min(vector.shape[-3:-1]))
