"""Grids of circulants, cropped to any number of rows and columns."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._arguments import as_floating, as_matrices, integer, wrong_shape
from structmat._arrays.arithmetic import (
    binary_exponents,
    damped_reciprocal,
    euclidean_norm,
    power_of_two_near,
    reciprocal_above,
    require_nonzero,
)
from structmat._arrays.conversion import copied
from structmat._arrays.dtypes import cast_back, in_precision, is_complex, precision_of
from structmat._arrays.libraries import can_raise_for_values, device_of, is_numpy, namespace_of, rules_of
from structmat._arrays.linear_algebra import dense_inverses, dense_solutions, singular_values
from structmat._arrays.namespaces import numpy_namespace
from structmat._arrays.shapes import contiguous, move_axis, padded, reversed_cyclically
from structmat._arrays.typing import Array, ArrayLike, Namespace
from structmat._errors import ArgumentValueError
from structmat._fourier.blocks import convolved_by_frequency
from structmat._fourier.chunks import rows_in_chunk
from structmat._fourier.embedding import cyclic_kernel
from structmat._fourier.engines import PLAIN
from structmat._fourier.plans import PlanByMethod
from structmat._fourier.spectra import from_spectrum, spectrum
from structmat._fourier.transforms import transforms
from structmat.operators._base.arithmetic import compose
from structmat.operators._base.closed_forms import NoClosedFormError
from structmat.operators._base.determinants import error_of_eigenvalues
from structmat.operators._base.hooks import Context
from structmat.operators._base.linear_operator import LinearOperator, Planned
from structmat.operators._base.spectral_functions import spectral_rounding
from structmat.operators._composed.product import Product
from structmat.operators._families.circulants import circulant_entries, cyclic_diagonals
from structmat.operators._families.grid_spectrum import GridSpectrum, unpaired
from structmat.operators._families.transforms import Fourier

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, eq=False, repr=False)
class BlockConvolution(PlanByMethod):
    """The product with a grid of circulants, by one matrix for each frequency."""

    _core_axes = {"spectrum": 3}

    spectrum: Any
    """The transposes of these matrices, shape ``(..., frequencies, q, p)``, in the order in which they are read."""
    block_size: int
    length: int
    """The length of transforms, longer than `block_size` where that is not fast."""
    is_real: bool
    shape: Any
    """Rows and columns."""

    @property
    def width(self) -> int:
        return int(max(self.spectrum.shape[-2:])) * self.length

    def chunk_rows(self, dtype: Any) -> int | None:
        return rows_in_chunk(2 * self.width, dtype.itemsize)  # half as many as other plans, as blocks are copied too

    @property
    def cost(self) -> float:
        """The sum of the lengths of the convolutions of one product, which includes the products for each frequency.

        By measurements the transforms cost half as much again as those of a circulant, and the complex products for
        each frequency as much as a dense product with ``2 b + 4`` times as many entries as there are blocks.
        """
        q, p = self.spectrum.shape[-2:]
        rows, cols = self.shape
        gained = rows * cols - (2 * self.block_size + 4) * p * q
        return rows * cols * 0.75 * (p + q) * self.length / gained if gained > 0 else inf

    def step(self, xp: Namespace, dtype: str, *, batched: bool) -> Callable[[Any], Any]:
        if not is_numpy(xp):  # this copy takes more time than it saves in one product
            object.__setattr__(self, "spectrum", contiguous(self.spectrum, xp))
        return super().step(xp, dtype, batched=batched)

    def _by(self, method: str, xp: Namespace) -> Callable[[Any], Any]:
        S = self.spectrum
        length = self.length
        rows = self.shape[0]
        b = self.block_size
        if not is_numpy(xp) or self.is_stack:
            options = {"real": self.is_real, "stack": self.is_stack}

            def general_product(x: Any) -> Any:
                return by_frequency(lambda X: xp.matmul(X, S), x, b, length, xp, **options)[..., :rows]

            return general_product
        forward, backward = transforms(PLAIN.get(method, method), length, real=self.is_real, axis=0)
        q, p = S.shape[-2:]

        def product(x: Any) -> Any:
            padded_x: Any = padded(x.reshape(-1, x.shape[-1]), q * b, numpy_namespace)
            blocks = padded_x.reshape(-1, q, b)
            # Matrix products of contiguous arrays: (frequencies, vectors, q) times (frequencies, q, p).
            y = backward(np.matmul(forward(blocks.transpose(2, 0, 1)), S))
            return y[:b].transpose(1, 2, 0).reshape(*x.shape[:-1], p * b)[..., :rows]

        return product


def by_frequency(
    product: Callable[[Array], Array], x: Array, b: int, length: int, xp: Namespace, *, real: bool, stack: bool
) -> Array:
    """Return the product of a grid of circulants and vectors `x`, by the `product` for one frequency.

    The vectors are cut into blocks of length `b`, padded to `length` and transformed. `product` takes an array of shape
    ``(frequencies, vectors, q)``, or for a `stack` of operators ``(..., frequencies, 1, q)``, and returns its products
    for all frequencies. The blocks of the result are joined to vectors again.
    """
    q = -(-x.shape[-1] // b)
    x = padded(x, q * b, xp)
    components = xp.reshape(x, (*x.shape[:-1], q, b))
    y = convolved_by_frequency(product, components, length, xp, real=real, stack=stack)
    y = y if length == b else y[..., :b]
    return xp.reshape(y, (*y.shape[:-2], y.shape[-2] * b))


@dataclass(frozen=True, eq=False, repr=False)
class BlockCirculant(Planned):
    """A p x q grid of b x b circulants, each given by its first column, cropped to `shape`.

    Parameters
    ----------
    c : array, shape (..., p, q, b)
        ``c[r, s]`` is the first column of the block in block row r and block column s; leading axes make a stack of
        matrices. Integers are promoted to the library's floating dtype.
    shape : (int, int), optional
        Rows and columns, with ``p = ceil(rows / b)`` and ``q = ceil(cols / b)``: the last block row and the last block
        column are cropped. Default: ``(p * b, q * b)``, nothing cropped.

    Raises
    ------
    ValueError
        If `c` has fewer than three axes or an empty one, or `shape` does not fit the grid.
    TypeError
        If `c` does not hold numbers.

    See Also
    --------
    Circulant : A single circulant.

    Notes
    -----
    A product transforms each of the q input blocks once, multiplies one p x q matrix per frequency, and transforms each
    of the p output blocks back: q + p transforms of length b, not p * q, besides those of `c`. Square grids that are
    not cropped have inverses, determinants and eigenvalues per frequency; any grid that is not cropped has singular
    values and a pseudo-inverse.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> B = sm.BlockCirculant(np.array([[[1.0, 2.0]], [[3.0, 4.0]]]), shape=(3, 2))
    >>> B.to_dense()
    array([[1., 2.],
           [2., 1.],
           [3., 4.]])
    """

    _core_axes = {"c": 3}

    c: Array
    """First columns of the blocks, shape ``(..., p, q, b)``."""
    shape: Any = None
    """Rows and columns, a tuple of two."""

    def __post_init__(self) -> None:
        c = as_floating(self.c, "BlockCirculant", "c")
        if c.ndim < 3 or 0 in c.shape[-3:]:
            raise wrong_shape("BlockCirculant", "c", "(..., p, q, b), none of them 0", c)
        p, q, b = c.shape[-3:]
        shape = (p * b, q * b) if self.shape is None else self.shape
        with suppress(TypeError):
            shape = tuple(shape)
        if not isinstance(shape, tuple) or len(shape) != 2:
            raise ArgumentValueError("BlockCirculant", "shape", f"must be (rows, cols), got {shape}")
        rows, cols = (integer(size, "BlockCirculant", "shape") for size in shape)
        if (-(-rows // b), -(-cols // b)) != (p, q):
            text = f"{shape} needs {-(-rows // b)} x {-(-cols // b)} blocks of {b}, c has {p} x {q}"
            raise ArgumentValueError("BlockCirculant", "shape", text)
        object.__setattr__(self, "c", c)
        object.__setattr__(self, "shape", (rows, cols))

    @classmethod
    def nearest(cls, A: ArrayLike, block_size: int) -> BlockCirculant:
        """Return the block-circulant matrix nearest to any rectangle in the Frobenius norm.

        Parameters
        ----------
        A : array, shape (..., rows, cols)
            The matrix.
        block_size : int
            The size b of the blocks; where it does not divide a side, the last blocks are cropped.

        Returns
        -------
        BlockCirculant
            Each block holds the means of the cyclic diagonals of that block of `A`, taken over the entries that exist.

        Raises
        ------
        ValueError
            If `A` has fewer than two axes, or `block_size` is below one.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.BlockCirculant.nearest(np.array([[1.0, 2.0, 5.0], [4.0, 3.0, 6.0]]), 2).to_dense()
        array([[2., 3., 5.],
               [3., 2., 6.]])
        """
        A, xp = as_matrices(A, "BlockCirculant.nearest")
        b = integer(block_size, "BlockCirculant.nearest", "block_size")
        dtype = A.dtype
        rows, cols = A.shape[-2:]
        A = in_precision(A, precision_of(dtype, xp), xp)  # sums in half precision would overflow
        sums = xp.sum(cyclic_diagonals(_as_blocks(A, b, xp), xp), axis=-2)
        ones = xp.ones((rows, cols), dtype=A.dtype, device=device_of(A))
        counts = xp.sum(cyclic_diagonals(_as_blocks(ones, b, xp), xp), axis=-2)
        return cls(cast_back(sums / xp.where(counts == 0, xp.ones_like(counts), counts), dtype, xp), (rows, cols))

    @property
    def block_size(self) -> int:
        """The size b of one block."""
        return int(self.c.shape[-1])

    @property
    def grid(self) -> tuple[int, int]:
        """The numbers (p, q) of block rows and block columns."""
        return (int(self.c.shape[-3]), int(self.c.shape[-2]))

    @property
    def is_cropped(self) -> bool:
        """Whether the last block row or block column is cut."""
        p, q = self.grid
        return self.shape != (p * self.block_size, q * self.block_size)

    def _details(self) -> str:
        return f"block_size={self.block_size}, grid={self.grid}, "

    def _described(self) -> str:
        cropped = "cropped " if self.is_cropped else ""
        return f"a {cropped}{self.shape[0]} x {self.shape[1]} grid of blocks of {self.block_size}"

    def _spectrum(self, xp: Namespace, *, real: bool) -> Array:
        """Return one p x q matrix for each frequency, shape ``(..., frequencies, p, q)``."""
        return move_axis(spectrum(self.c, xp, real=real), -1, -3, xp)

    def _from_spectrum(self, values: Array, xp: Namespace, *, real: bool) -> BlockCirculant:
        """Return the uncropped operator with these matrices for each frequency."""
        return BlockCirculant(from_spectrum(move_axis(values, -3, -1, xp), self.block_size, xp, real=real))

    def _plan(self, xp: Namespace) -> BlockConvolution:
        real = not is_complex(self.c.dtype, xp)
        kernel = cyclic_kernel(self.c, xp)
        S = xp.matrix_transpose(move_axis(spectrum(kernel, xp, real=real), -1, -3, xp))
        S = contiguous(S, xp) if is_numpy(xp) else S
        return BlockConvolution(S, self.block_size, kernel.shape[-1], real, self.shape)

    def _transpose(self) -> BlockCirculant:
        xp = self._own_namespace()
        return BlockCirculant(reversed_cyclically(move_axis(self.c, -3, -2, xp), xp), self.shape[::-1])

    def _to_dense(self, like: Context) -> Array:
        p, q = self.grid
        b = self.block_size
        entries = move_axis(circulant_entries(self.c, like), -3, -2, like.xp)
        dense: Any = like.xp.reshape(entries, (*self.batch_shape, p * b, q * b))
        if is_numpy(like.xp) and not dense.flags.writeable:  # the reshape may be a read-only view
            dense = copied(dense, like.xp)
        return dense[..., : self.shape[0], : self.shape[1]]

    def _require_uncropped(self) -> None:
        if self.is_cropped:
            raise NoClosedFormError(self)

    def _own_spectrum(self, xp: Namespace) -> tuple[Array, bool]:
        """Return the matrices for each frequency, and whether they are those of the half spectrum."""
        self._require_uncropped()
        real = not is_complex(self.c.dtype, xp)
        return self._spectrum(xp, real=real), real

    def _inv(self, xp: Namespace) -> LinearOperator:
        S, real = self._own_spectrum(xp)
        self._require_invertible(S, "inv", xp)
        return self._from_spectrum(dense_inverses(S, xp), xp, real=real)

    def _solve(self, b: Array, xp: Namespace) -> Array:
        self._require_uncropped()
        real = not (is_complex(self.c.dtype, xp) or is_complex(b.dtype, xp))
        power_of_two = power_of_two_near(self.c, xp, axis=(-3, -2, -1))  # without it sums and reciprocals may overflow
        S = BlockCirculant(self.c / power_of_two, self.shape)._spectrum(xp, real=real)
        self._require_invertible(S, "solve", xp)

        def solve_rows(B: Array) -> Array:
            return xp.matrix_transpose(dense_solutions(S, xp.matrix_transpose(B), xp))

        b = b / power_of_two[..., 0, 0]
        return by_frequency(solve_rows, b, self.block_size, self.block_size, xp, real=real, stack=S.ndim > 3)

    def _pinv(self, rtol: float, xp: Namespace) -> LinearOperator:
        S, real = self._own_spectrum(xp)
        if rules_of(xp).must_be_differentiable([S]):
            # Singular vectors have no derivatives where singular values coincide.
            values = xp.linalg.svdvals(rules_of(xp).constant(S))
            largest = xp.max(values, axis=-1)
            cutoff = rtol * xp.max(largest, axis=-1, keepdims=True)
            divisor = xp.where(largest > 0, largest, xp.ones_like(largest))
            relative_cutoffs = xp.where(largest > 0, cutoff / divisor, cutoff)
            return self._from_spectrum(xp.linalg.pinv(S, rtol=relative_cutoffs), xp, real=real)
        U, values, Vh = xp.linalg.svd(S, full_matrices=False)
        flat = xp.reshape(values, (*self.batch_shape, values.shape[-2] * values.shape[-1]))
        inverse = xp.reshape(reciprocal_above(flat, rtol, xp), values.shape)
        V, Uh = (xp.conj(xp.matrix_transpose(M)) for M in (Vh, U))
        return self._from_spectrum(xp.matmul(V * inverse[..., None, :], Uh), xp, real=real)

    def _damped_pinv(self, damp: float, xp: Namespace) -> LinearOperator:
        S, real = self._own_spectrum(xp)
        if rules_of(xp).must_be_differentiable([S]):
            # Singular vectors have no derivatives where singular values coincide.
            H = xp.conj(xp.matrix_transpose(S))
            normal = xp.matmul(H, S) + damp**2 * xp.eye(S.shape[-1], dtype=S.dtype, device=device_of(S))
            return self._from_spectrum(xp.linalg.solve(normal, H), xp, real=real)
        U, values, Vh = xp.linalg.svd(S, full_matrices=False)
        V, Uh = (xp.conj(xp.matrix_transpose(M)) for M in (Vh, U))
        inverse = damped_reciprocal(values, damp, xp)
        return self._from_spectrum(xp.matmul(V * inverse[..., None, :], Uh), xp, real=real)

    def _eig(self, xp: Namespace) -> tuple[Array, LinearOperator]:
        self._require_uncropped()
        values, vectors = xp.linalg.eig(self._spectrum(xp, real=False))
        p, _ = self.grid
        b = self.block_size
        flat = xp.reshape(move_axis(values, -2, -1, xp), (*self.batch_shape, p * b))
        # The eigenvectors of the matrices of all frequencies are the spectrum of a block-circulant matrix.
        return flat, Product((self._from_spectrum(vectors, xp, real=False), Fourier(b, p, inverse=True)))

    def _svdvals(self, xp: Namespace) -> Array:
        self._require_uncropped()
        values = singular_values(self._spectrum(xp, real=False), xp)
        return xp.reshape(values, (*self.batch_shape, self.block_size * min(self.grid)))

    def _rounding(self, xp: Namespace) -> float:
        return spectral_rounding(self.dtype, xp, length=self.block_size, order=max(self.grid))

    def _determinant_factors(self, xp: Namespace) -> Array:
        S, real = self._own_spectrum(xp)
        p = self.grid[0]
        b = self.block_size
        exponents, scaled = _scaled_to_one(S, xp)
        determinants = xp.linalg.det(scaled)  # its derivatives are finite at singular matrices too
        powers_of_two = xp.astype(2.0**exponents, determinants.dtype)[..., None, :]
        powers_of_two = xp.broadcast_to(powers_of_two, (*powers_of_two.shape[:-2], p, powers_of_two.shape[-1]))
        factors = xp.concat([determinants[..., None, :], powers_of_two], axis=-2)
        factors_of_all = GridSpectrum(factors, (b,), real, ("dft",)).factors(xp)
        return xp.reshape(factors_of_all, (*self.batch_shape, (p + 1) * b))

    def _slogdet(self, xp: Namespace) -> tuple[Array, Array]:
        return self._slogdet_of(*self._own_spectrum(xp), xp)

    def _slogdet_of(self, S: Array, real: bool, xp: Namespace) -> tuple[Array, Array]:
        """Return sign and logarithm by the spectrum, which is half of it for a `real` matrix."""
        exponents, scaled = _scaled_to_one(S, xp)
        signs, logs = xp.linalg.slogdet(scaled)
        logs = logs + S.shape[-1] * math.log(2) * exponents
        if real:
            # The signs of paired frequencies are conjugate, so that their product is one.
            is_unpaired = unpaired((self.block_size,), device_of(logs), xp)
            signs = xp.where(is_unpaired, xp.round(xp.real(signs)), xp.ones_like(logs))
            logs = xp.where(is_unpaired, logs, 2 * logs)
        return xp.prod(signs, axis=-1), xp.sum(logs, axis=-1)

    def _slogdet_and_error(self, xp: Namespace) -> tuple[Array, Array, Array]:
        S, real = self._own_spectrum(xp)
        values = singular_values(rules_of(xp).constant(S), xp)
        error = error_of_eigenvalues(xp.reshape(values, (*self.batch_shape, -1)), xp, by_transforms=True)
        return *self._slogdet_of(S, real, xp), math.sqrt(2) * error  # since half of the spectrum may stand for all

    def _diagonal(self, xp: Namespace) -> Array:
        p, q = self.grid
        b = self.block_size
        index = xp.arange(min(p, q), device=self.device)
        flat = xp.reshape(self.c[..., 0], (*self.batch_shape, p * q))
        blocks = xp.take(flat, index * (q + 1), axis=-1)[..., None]
        entries = xp.reshape(xp.broadcast_to(blocks, (*blocks.shape[:-1], b)), (*self.batch_shape, min(p, q) * b))
        return entries[..., : min(self.shape)]

    def _frobenius(self, xp: Namespace) -> Array:
        return euclidean_norm(self.c, xp, axis=(-3, -2, -1), weights=self._counts(xp))

    def _modulus(self, xp: Namespace) -> LinearOperator:
        return BlockCirculant(xp.abs(self.c), self.shape)

    def _row_sums(self, xp: Namespace) -> Array:
        """Return the sums of rows: those of `c`, unless blocks are cropped, as these would count what is cut off."""
        if self.is_cropped:
            return xp.sum(self._to_dense(Context(xp, self.dtype, self.device)), axis=-1)
        sums = xp.sum(xp.sum(self.c, axis=-1), axis=-1)[..., None]
        return xp.reshape(
            xp.broadcast_to(sums, (*sums.shape[:-1], self.block_size)), (*self.batch_shape, self.shape[0])
        )

    def _counts(self, xp: Namespace) -> Array:
        """Return how often each entry of `c` stands in the matrix, shape ``(p, q, b)``."""
        p, q = self.grid
        b = self.block_size
        k, r, s = (xp.arange(size, device=self.device) for size in (b, p, q))
        height = xp.clip(self.shape[0] - b * r, max=b)[:, None, None]
        width = xp.clip(self.shape[1] - b * s, max=b)[:, None]
        below = xp.clip(xp.minimum(height - k, width), min=0)  # entries on and below the main diagonal of the block
        above = xp.clip(xp.minimum(xp.minimum(height, k), width - (b - k)), min=0)
        return xp.astype(below + above, precision_of(self.dtype, xp))

    def _require_invertible(self, S: Array, method: str, xp: Namespace) -> None:
        if can_raise_for_values(xp):
            values = singular_values(S, xp)
            flat = xp.reshape(values, (*self.batch_shape, values.shape[-2] * values.shape[-1]))
            require_nonzero(flat, self._rounding(xp), f"BlockCirculant.{method}", xp)


def _as_blocks(A: Array, b: int, xp: Namespace) -> Array:
    """Return the b x b blocks of matrices, padded with zeros, shape ``(..., p, q, b, b)``."""
    rows, cols = A.shape[-2:]
    p, q = -(-rows // b), -(-cols // b)
    A = padded(A, q * b, xp)
    A = xp.matrix_transpose(padded(xp.matrix_transpose(A), p * b, xp))
    return move_axis(xp.reshape(A, (*A.shape[:-2], p, b, q, b)), -3, -2, xp)


@compose.rule(BlockCirculant, BlockCirculant)
def _multiply(left: BlockCirculant, right: BlockCirculant) -> LinearOperator:
    b = left.block_size
    if right.block_size != b or left.shape[1] % b:
        return NotImplemented  # the blocks do not meet, or entries are cut off between the two operators
    xp = namespace_of("BlockCirculant @ BlockCirculant", left.c, right.c)
    real = not (is_complex(left.c.dtype, xp) or is_complex(right.c.dtype, xp))
    S = xp.matmul(left._spectrum(xp, real=real), right._spectrum(xp, real=real))
    c = from_spectrum(move_axis(S, -3, -1, xp), b, xp, real=real)
    return BlockCirculant(c, (left.shape[0], right.shape[1]))


def _scaled_to_one(S: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return exponents e for the matrices of all frequencies, and these divided by ``2 ** e``.

    The exponents are such that the determinants of most matrices are near one.
    """
    typical = euclidean_norm(S, xp, axis=(-2, -1)) / math.sqrt(S.shape[-1] * math.sqrt(math.e))
    exponents = binary_exponents(typical, xp)
    return exponents, S / (2.0**exponents)[..., None, None]
