"""The shapes of products of interleaved circulant and diagonal matrices, without any values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import InitVar, dataclass
from functools import cached_property, reduce
from operator import or_
from typing import Any

from structmat._arguments import as_floating, integer, side_of_blocks, wrong_shape
from structmat._arrays.arithmetic import euclidean_norm, scale_array
from structmat._arrays.libraries import device_of, namespace_of
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.typing import Array, ArrayLike, Namespace
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat.operators._blocks.block_circulant import BlockCirculant
from structmat.operators._cdd.product import CDDProduct, Factor, FactorKind, alternating_kinds, kind_of
from structmat.operators._families.circulants import BandedCirculant, Circulant, SpectralCirculant
from structmat.operators._families.diagonal import Diagonal

_MOST_FACTORS = 1000
"""The largest number of factors of a small product: a large one may have four for each row of its larger side."""


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
        n_factors = integer(self.n_factors, owner, "n_factors")
        most = self.most_factors(shape)
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

    @cached_property
    def kinds(self) -> tuple[FactorKind, ...]:
        """The kind of each factor, left to right."""
        return alternating_kinds("diagonal", self.n_factors)

    @cached_property
    def factor_shapes(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of each factor, left to right."""
        if self.is_single_block:
            return (self.shape,) * self.n_factors
        rows, cols = self.shape
        side = min(rows, cols)
        squares = ((side, side),) * (self.n_factors - 3)
        whole = ((rows, rows), (rows, cols), (cols, cols))
        return squares + whole if cols > rows else whole + squares

    @cached_property
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
            if kind_of(f) == "circulant"
        } or {product.shape[0]}
        if len(sizes) > 1:
            raise ArgumentValueError(owner, "product", f"must have blocks of one size, got {sorted(sizes)}")
        if kind_of(product.factors[0]) != "diagonal":
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
