"""Block Toeplitz matrices, whose blocks depend on their offset: convolutions of series with several components."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from structmat._arguments import as_floating, integer, wrong_shape
from structmat._arrays.arithmetic import conjugate, euclidean_norm, real_part
from structmat._arrays.dtypes import common_dtype, is_complex
from structmat._arrays.libraries import device_of, namespace_of, rules_of
from structmat._arrays.linear_algebra import even_factors
from structmat._arrays.shapes import broadcast_shapes, move_axis
from structmat._arrays.typing import Array, ArrayLike, Namespace
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._fourier.blocks import BlockToeplitzConvolution
from structmat._fourier.products import Products
from structmat._fourier.spectra import from_spectrum, spectrum
from structmat._nearest_circulants import mean_of_diagonals, wrapped_diagonals
from structmat._toeplitz_systems import (
    BlockToeplitzSystem,
    BlockTraceOfInverse,
    block_cholesky,
    block_log_determinants,
    block_solutions,
    blocks_of_inverse,
)
from structmat.operators._base.arithmetic import compose
from structmat.operators._base.closed_forms import NoClosedFormError
from structmat.operators._base.hooks import Context
from structmat.operators._base.linear_operator import LinearOperator, Planned
from structmat.operators._base.near import Eigenvectors, Near
from structmat.operators._blocks.block_circulant import BlockCirculant
from structmat.operators._composed.kronecker import Kronecker
from structmat.operators._families.diagonal import Identity
from structmat.operators._families.toeplitz import diagonal_lengths, sign_and_modulus
from structmat.operators._families.transforms import Fourier


@dataclass(frozen=True, eq=False, repr=False)
class BlockToeplitz(Planned):
    """A block Toeplitz matrix given by its first block column and first block row, with blocks of any p x q.

    The block in block row i and block column j is ``c[i - j]``, or ``r[j - i]`` above the diagonal. Vectors are in the
    order of block rows: all components at the first time, then those at the second one, as a contiguous array of shape
    ``(n, q)`` holds them.

    Parameters
    ----------
    c : array, shape (..., m, p, q)
        The blocks of the first block column; leading axes make a stack of matrices. Integers are promoted to the
        library's floating dtype.
    r : array, shape (..., n, p, q), optional
        Those of the first block row. The first one is ignored: ``c[0]`` is the block in the corner. Default: the
        conjugate transposes of those of `c`, so that the matrix is Hermitian where ``c[0]`` is.

    Raises
    ------
    ValueError
        If `c` or `r` has fewer than three axes or an empty one, their blocks have different shapes, their batch axes do
        not broadcast, or `r` is missing although blocks are not square.
    TypeError
        If `c` or `r` does not hold numbers, or they belong to different array libraries.

    See Also
    --------
    Toeplitz : Blocks of one entry.
    BlockCirculant : Blocks that are circulants themselves, in another order; see `from_block_circulant`.
    MultilevelToeplitz : Blocks that are Toeplitz matrices.
    Kronecker : Of an identity and a block, it is block diagonal; sums and products of both are block Toeplitz.
    Superfast : The direct factor of a series of several channels, with gaps and uneven noise.

    Notes
    -----
    A product transforms each of the q components once, multiplies by one p x q matrix per frequency, and transforms
    each of the p components of the result back: p + q transforms of a fast length not below m + n - 1.

    **Inverses.** The inverse of a square matrix of square blocks is the product of two block Toeplitz matrices [1]_:
    block triangular ones, the first of p x 2p blocks and the second of 2p x p blocks. `inv` returns them. They come
    from Whittle's recursion [2]_, which takes O(p^3 n^2) operations and finds the determinant as well.

    **Systems.** How `solve` computes depends on the number of rows:

    - Up to 128 rows the dense matrix is eliminated.
    - Larger systems are solved by the inverse.
    - If there are at least 4,096 rows for each right-hand side, iteration is tried first, with T. Chan's block
      circulant as preconditioner [3]_. The method is that of conjugate gradients if the matrix is Hermitian positive
      definite, and GMRES otherwise.

    A solution is accepted if its residual is at the level of rounding in every row, and a further correction would
    hardly change it. One that is not is refined. If that does not help, the dense matrix is eliminated, which is
    possible up to 4,096 rows. For larger matrices a solution with a larger residual comes with a warning. Where the
    recursion finds no accurate inverse or determinant, or would take minutes, the matrix is eliminated up to 12,247
    rows, which take 1.2 GB, and above it is an error. Components of different
    units may differ in size by any factor.

    Sums with a `Diagonal`, and chosen rows and columns of these, have a direct factor if they are positive definite and
    blocks are small, by `structmat.solve` and `structmat.slogdet`: see `Superfast`. For others the same block circulant
    is the preconditioner.

    **Libraries.** All this is computed with NumPy in double precision, also for other libraries, with derivatives in
    torch and JAX. Where results are inaccurate there is a `scipy.linalg.LinAlgWarning`, as for `Toeplitz`, but not in
    JAX.

    References
    ----------
    .. [1] Gohberg, I., Heinig, G., Inversion of finite Toeplitz matrices with entries from a noncommutative algebra,
       Rev. Roumaine Math. Pures Appl. 19, 1974.
    .. [2] Whittle, P., On the fitting of multivariate autoregressions, and the approximate canonical factorization of a
       spectral density matrix, Biometrika 50, 1963.
    .. [3] Chan, T. F., Olkin, J. A., Circulant preconditioners for Toeplitz-block matrices, Numer. Algorithms 6, 1994.

    Examples
    --------
    An autoregression of two variables, whose impulse responses are 2 x 2 matrices, as a filter:

    >>> import numpy as np
    >>> import structmat as sm
    >>> A = np.array([[0.5, 0.25], [0.0, 0.5]])
    >>> responses = np.array([np.linalg.matrix_power(A, k) for k in range(3)])
    >>> T = sm.BlockToeplitz(responses, np.zeros((3, 2, 2)))
    >>> T
    BlockToeplitz(blocks=(2, 2), shape=(6, 6), dtype=float64, device=cpu)
    >>> T.to_dense()
    array([[1.  , 0.  , 0.  , 0.  , 0.  , 0.  ],
           [0.  , 1.  , 0.  , 0.  , 0.  , 0.  ],
           [0.5 , 0.25, 1.  , 0.  , 0.  , 0.  ],
           [0.  , 0.5 , 0.  , 1.  , 0.  , 0.  ],
           [0.25, 0.25, 0.5 , 0.25, 1.  , 0.  ],
           [0.  , 0.25, 0.  , 0.5 , 0.  , 1.  ]])
    >>> shocks = np.array([[0.0, 1.0], [0.0, 0.0], [2.0, 0.0]])
    >>> (T @ shocks.ravel()).reshape(3, 2).round(12) + 0.0
    array([[0.  , 1.  ],
           [0.25, 0.5 ],
           [2.25, 0.25]])

    The likelihood of a series of two variables, by the covariances of an autoregression at all lags:

    >>> covariances = np.array([4 / 3 * np.linalg.matrix_power(np.diag([0.5, 0.5]), k) for k in range(1000)])
    >>> T = sm.BlockToeplitz(covariances)
    >>> x = np.ones(2000)
    >>> round(float(x @ T.solve(x) + T.slogdet().logabsdet), 6)
    501.575364
    >>> T.inv()
    Product(BlockToeplitz @ BlockToeplitz, shape=(2000, 2000), dtype=float64, device=cpu)
    """

    _core_axes = {"c": 3, "r": 3}

    c: Array
    """The blocks of the first block column, shape ``(..., m, p, q)``."""
    r: Any = None
    """Those of the first block row, shape ``(..., n, p, q)``; the first one counts for nothing."""

    def __post_init__(self) -> None:
        owner = "BlockToeplitz"
        c = _as_blocks(self.c, owner, "c", "m, p, q")
        p, q = c.shape[-2:]
        xp = namespace_of(owner, c)
        if self.r is not None:
            r = _as_blocks(self.r, owner, "r", f"n, {p}, {q}", like=c)
        elif p == q:
            r = conjugate(xp.matrix_transpose(c), xp)
        else:
            text = f"must be given where blocks are not square: those of `c` are {p} x {q}"
            raise ArgumentValueError(owner, "r", text)
        if tuple(r.shape[-2:]) != (p, q):
            raise wrong_shape(owner, "r", f"(..., n, {p}, {q})", r)
        xp = namespace_of(owner, c, r)
        broadcast_shapes(owner, tuple(c.shape[:-3]), tuple(r.shape[:-3]))
        dtype = common_dtype(xp, c, r)
        for name, blocks in (("c", c), ("r", r)):
            object.__setattr__(self, name, blocks if blocks.dtype == dtype else xp.astype(blocks, dtype))

    @classmethod
    def from_offsets(cls, blocks: ArrayLike, rows: int | None = None) -> BlockToeplitz:
        """Return the matrix with given blocks at all offsets.

        Parameters
        ----------
        blocks : array, shape (..., m + n - 1, p, q)
            The blocks at the offsets ``1 - n, ..., m - 1`` of block row less block column, from the upper right corner
            to the lower left one.
        rows : int, optional
            The number m of block rows. By default as many as block columns.

        Returns
        -------
        BlockToeplitz
            Of m block rows and n block columns.

        Raises
        ------
        ValueError
            If `rows` is larger than the number of offsets, or that is even and `rows` is not given.

        Examples
        --------
        Covariances of two variables at the lags -1, 0 and 1:

        >>> import numpy as np
        >>> import structmat as sm
        >>> at_one = np.array([[0.5, 0.25], [0.0, 0.5]])
        >>> sm.BlockToeplitz.from_offsets(np.array([at_one.T, np.eye(2), at_one])).to_dense()
        array([[1.  , 0.  , 0.5 , 0.  ],
               [0.  , 1.  , 0.25, 0.5 ],
               [0.5 , 0.25, 1.  , 0.  ],
               [0.  , 0.5 , 0.  , 1.  ]])
        """
        owner = "BlockToeplitz.from_offsets"
        blocks = _as_blocks(blocks, owner, "blocks", "m + n - 1, p, q")
        count = int(blocks.shape[-3])
        if rows is None and count % 2 == 0:
            text = f"must be an odd number, 2 n - 1, or `rows` must be given; got {count}"
            raise ArgumentValueError(owner, "blocks", text)
        m = (count + 1) // 2 if rows is None else integer(rows, owner, "rows")
        if m > count:
            raise ArgumentValueError(owner, "rows", f"must be at most the number of offsets, {count}, got {m}")
        n = count + 1 - m
        return cls(blocks[..., n - 1 :, :, :], namespace_of(owner, blocks).flip(blocks[..., :n, :, :], axis=-3))

    @classmethod
    def block_diagonal(cls, block: ArrayLike, n: int) -> BlockToeplitz:
        """Return the matrix with the same block n times on its diagonal: each vector of a series times one matrix.

        Parameters
        ----------
        block : array, shape (..., p, q)
            The block.
        n : int
            How many times.

        Returns
        -------
        BlockToeplitz
            Of n block rows and n block columns.

        Raises
        ------
        ValueError
            If `block` has fewer than two axes or an empty one, or n is below one.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.BlockToeplitz.block_diagonal(np.array([[1.0, 2.0]]), 2).to_dense()
        array([[1., 2., 0., 0.],
               [0., 0., 1., 2.]])
        """
        owner = "BlockToeplitz.block_diagonal"
        block = as_floating(block, owner, "block")
        if block.ndim < 2 or 0 in block.shape[-2:]:
            raise wrong_shape(owner, "block", "(..., p, q), none of them 0", block)
        n = integer(n, owner, "n")
        xp = namespace_of(owner, block)
        none = xp.zeros((*block.shape[:-2], n - 1, *block.shape[-2:]), dtype=block.dtype, device=device_of(block))
        blocks = xp.concat([block[..., None, :, :], none], axis=-3)
        return cls(blocks, xp.zeros_like(blocks))

    @classmethod
    def from_block_circulant(cls, operator: BlockCirculant) -> BlockToeplitz:
        """Return a grid of circulants with its rows and columns in the order of block rows of a block Toeplitz matrix.

        Parameters
        ----------
        operator : BlockCirculant
            A grid of p x q circulants of size b, which is not cropped.

        Returns
        -------
        BlockToeplitz
            Of b x b blocks of p x q, that are cyclic: entry ``(i, s)`` of a vector, with i the time and s the
            component, is in place ``i * q + s``, and in place ``s * b + i`` for the grid of circulants.

        Raises
        ------
        ValueError
            If the grid is cropped.
        TypeError
            If `operator` is no BlockCirculant.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> B = sm.BlockCirculant(np.array([[[1.0, 2.0]], [[3.0, 4.0]]]))
        >>> sm.BlockToeplitz.from_block_circulant(B).to_dense()
        array([[1., 2.],
               [3., 4.],
               [2., 1.],
               [4., 3.]])
        """
        owner = "BlockToeplitz.from_block_circulant"
        if not isinstance(operator, BlockCirculant):
            raise ArgumentTypeError(owner, "operator", f"must be a BlockCirculant, got {type(operator).__name__}")
        if operator.is_cropped:
            raise ArgumentValueError(owner, "operator", "must not be cropped: all blocks have the same size")
        xp = operator._own_namespace()
        c = move_axis(operator.c, -1, -3, xp)
        return cls(c, xp.concat([c[..., :1, :, :], xp.flip(c[..., 1:, :, :], axis=-3)], axis=-3))

    @property
    def grid(self) -> tuple[int, int]:
        """The numbers (m, n) of block rows and block columns."""
        return (int(self.c.shape[-3]), int(self.r.shape[-3]))

    @property
    def block_shape(self) -> tuple[int, int]:
        """The rows and columns (p, q) of one block."""
        return (int(self.c.shape[-2]), int(self.c.shape[-1]))

    @property
    def shape(self) -> tuple[int, int]:
        """``(m * p, n * q)``."""
        m, p, q = self.c.shape[-3:]
        return (m * p, self.r.shape[-3] * q)

    def multiply_blocks(self, left: ArrayLike | None = None, right: ArrayLike | None = None) -> BlockToeplitz:
        """Return the product with block diagonal matrices of equal blocks, which is a block Toeplitz matrix.

        Parameters
        ----------
        left : array, shape (..., s, p), optional
            The block of the matrix from the left: the components of all results are mixed by it. Default: none.
        right : array, shape (..., q, t), optional
            That of the matrix from the right: the components of all vectors are mixed by it first. Default: none.

        Returns
        -------
        BlockToeplitz
            With the blocks ``left @ block @ right``.

        Raises
        ------
        ValueError
            If `left` or `right` does not fit the blocks, or batch axes do not broadcast.
        TypeError
            If they do not hold numbers, or belong to another array library.

        Examples
        --------
        The covariance of the differences of two variables:

        >>> import numpy as np
        >>> import structmat as sm
        >>> T = sm.BlockToeplitz(np.array([[[2.0, 1.0], [1.0, 2.0]], [[0.5, 0.25], [0.0, 0.5]]]))
        >>> difference = np.array([[1.0, -1.0]])
        >>> T.multiply_blocks(difference, difference.T).to_dense()
        array([[2.  , 0.75],
               [0.75, 2.  ]])
        """
        owner = "BlockToeplitz.multiply_blocks"
        p, q = self.block_shape
        c, r = self.c, self.r
        if left is not None:
            left, xp = self._read(left, owner, "left")
            if left.ndim < 2 or left.shape[-1] != p:
                raise wrong_shape(owner, "left", f"(..., s, {p})", left)
            c, r = (_of_each(left, blocks, owner, xp) for blocks in (c, r))
        if right is not None:
            right, xp = self._read(right, owner, "right")
            if right.ndim < 2 or right.shape[-2] != q:
                raise wrong_shape(owner, "right", f"(..., {q}, t)", right)
            turned = xp.matrix_transpose(right)
            c, r = (xp.matrix_transpose(_of_each(turned, xp.matrix_transpose(blocks), owner, xp)) for blocks in (c, r))
        return BlockToeplitz(c, r)

    def cholesky(self) -> Array:
        """Return the Cholesky factor of a Hermitian positive definite matrix.

        Returns
        -------
        array, shape (..., n * p, n * p)
            The lower triangular L with ``L @ L^H = T`` and a positive diagonal, dense. torch and JAX take the Hermitian
            part of T, and there are NaN in L where T is not positive definite.

        Raises
        ------
        ValueError
            If the matrix or its blocks are not square or, with NumPy, it is not Hermitian.
        numpy.linalg.LinAlgError
            If a NumPy matrix is not positive definite; the text names the first leading section that is not.

        Notes
        -----
        Schur's algorithm with blocks in place of numbers: each block column follows from the one before, shifted down
        by one block, and one more, in O(p^3 n^2) operations. Derivatives in torch and JAX are those of the steps.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> T = sm.BlockToeplitz(np.array([[[4.0, 2.0], [2.0, 5.0]], [[2.0, 0.0], [0.0, 1.0]]]))
        >>> L = T.cholesky()
        >>> L.round(3)
        array([[ 2.   ,  0.   ,  0.   ,  0.   ],
               [ 1.   ,  2.   ,  0.   ,  0.   ],
               [ 1.   , -0.5  ,  1.658,  0.   ],
               [ 0.   ,  0.5  ,  1.357,  1.706]])
        >>> bool(np.allclose(L @ L.T, T.to_dense()))
        True
        """
        op, xp = self._to_working_precision("cholesky", square=True)
        p, q = op.block_shape
        if p != q:
            owner = f"{type(self).__name__}.cholesky"
            raise ArgumentValueError(owner, None, f"the blocks must be square, got {p} x {q}")
        factor = block_cholesky(op.c, op.r, xp, f"{type(self).__name__}.cholesky")
        return self._from_working_precision(factor, xp)

    def _details(self) -> str:
        return f"blocks={self.block_shape}, "

    def _hint_for_shape(self, method: str, argument: str, shape: tuple[int, ...], length: int) -> str:
        columns = shape[2:] if method in ("solve", "lstsq", "matmat") else ()
        if len(shape) != 2 + len(columns) or len(columns) > 1 or prod(shape[:2]) != length:
            return ""
        method = "matvec" if method == "matmat" and not columns else method
        sizes = ", ".join(map(str, (length, *columns)))
        return (
            f"; a series is one vector, all components of its first step first: {method}({argument}.reshape({sizes}))"
        )

    def _offsets(self, xp: Namespace) -> Array:
        """Return the blocks at all offsets, from the upper right corner to the lower left one."""
        above = xp.flip(self.r[..., 1:, :, :], axis=-3)
        batch = self.batch_shape
        parts = [xp.broadcast_to(blocks, (*batch, *blocks.shape[-3:])) for blocks in (above, self.c)]
        return xp.concat(parts, axis=-3)

    def _plan(self, xp: Namespace) -> BlockToeplitzConvolution:
        return BlockToeplitzConvolution.of(self.c, self.r, xp)

    def _transpose(self) -> BlockToeplitz:
        xp = self._own_namespace()
        offsets = xp.matrix_transpose(self._offsets(xp))
        n = self.grid[1]
        return self._replaced(c=xp.flip(offsets[..., :n, :, :], axis=-3), r=offsets[..., n - 1 :, :, :])

    def _to_dense(self, like: Context) -> Array:
        xp = like.xp
        (m, n), (p, q) = self.grid, self.block_shape
        i = xp.arange(m, device=self.device)
        j = xp.arange(n, device=self.device)
        index = xp.reshape(i[:, None] - j[None, :] + n - 1, (m * n,))
        blocks = xp.reshape(xp.take(self._offsets(xp), index, axis=-3), (*self.batch_shape, m, n, p, q))
        return xp.reshape(move_axis(blocks, -2, -3, xp), (*self.batch_shape, m * p, n * q))

    def _block(self, rows: range, cols: range, xp: Namespace) -> LinearOperator | None:
        """Return whole blocks as a block Toeplitz matrix."""
        p, q = self.block_shape
        if rows.start % p or len(rows) % p or cols.start % q or len(cols) % q:
            return None
        offsets = self._offsets(xp)
        m, n = len(rows) // p, len(cols) // q
        corner = self.grid[1] - 1 - cols.start // q + rows.start // p  # the index of the block in the corner
        first_row = xp.flip(offsets[..., corner + 1 - n : corner + 1, :, :], axis=-3)
        return BlockToeplitz(offsets[..., corner : corner + m, :, :], first_row)

    def _diagonal(self, xp: Namespace) -> Array:
        p, q = self.block_shape
        n = self.grid[1]
        k = xp.arange(min(self.shape), device=self.device)
        index = ((k // p - k // q + n - 1) * p + k % p) * q + k % q
        offsets = self._offsets(xp)
        return xp.take(xp.reshape(offsets, (*self.batch_shape, offsets.shape[-3] * p * q)), index, axis=-1)

    def _modulus(self, xp: Namespace) -> LinearOperator:
        return self._map(lambda blocks, _: xp.abs(blocks))

    def _frobenius(self, xp: Namespace) -> Array:
        offsets = self._offsets(xp)
        weights = diagonal_lengths(*self.grid, real_part(offsets, xp), xp)[:, None, None]
        return euclidean_norm(offsets, xp, axis=(-3, -2, -1), weights=weights)

    def _near(self, like: Array, xp: Namespace) -> Near:
        is_square = self.grid[0] == self.grid[1] and self.block_shape[0] == self.block_shape[1]
        if not is_square:
            return Near(self)
        return Near(self, eigenvectors=lambda: self._eigenvectors_near(xp), noisy_toeplitz=lambda: (self, None))

    def _eigenvectors_near(self, xp: Namespace) -> Eigenvectors:
        """Return those of T. Chan's block circulant, by the eigenvectors of the Hermitian part of each frequency.

        With the Fourier matrix F of n frequencies the eigenvectors are those of all frequencies, as the spectrum of a
        block circulant matrix, times the Kronecker product of the adjoint of F and the identity.
        """
        n, p = self.grid[0], self.block_shape[0]
        offsets = move_axis(self._offsets(xp), -3, -1, xp)
        finite = xp.all(xp.isfinite(offsets), axis=(-3, -2, -1), keepdims=True)
        offsets = xp.where(finite, offsets, xp.zeros_like(offsets))  # what libraries refuse has no near matrix
        near = wrapped_diagonals(offsets, (n,), mean_of_diagonals, xp)
        S = move_axis(spectrum(near, xp, real=False), -1, -3, xp)
        values, vectors = xp.linalg.eigh((S + xp.conj(xp.matrix_transpose(S))) / 2)
        cyclic = BlockCirculant(from_spectrum(move_axis(vectors, -3, -1, xp), n, xp, real=False))
        of_frequencies = Kronecker(Fourier(n, inverse=True), Identity(p))
        eigenvectors = compose(BlockToeplitz.from_block_circulant(cyclic), of_frequencies)
        flat = xp.reshape(values, (*values.shape[:-2], n * p))
        return flat, eigenvectors, not is_complex(self.dtype, xp)

    # The linear algebra of square matrices of square blocks

    def _inv(self, xp: Namespace) -> LinearOperator:
        self._require_square_blocks()
        lower, upper = blocks_of_inverse(self, xp, f"{type(self).__name__}.inv").factors(xp)
        below = xp.zeros_like(upper[..., 1:, :, :])
        left = BlockToeplitz(lower, xp.zeros_like(lower))
        return compose(left, BlockToeplitz(xp.concat([upper[..., :1, :, :], below], axis=-3), upper))

    def _solve(self, b: Array, xp: Namespace) -> Array:
        self._require_square_blocks()
        return block_solutions(self, b, xp, f"{type(self).__name__}.solve")

    def _solver(self, xp: Namespace) -> Products | None:
        if self.batch_shape or self.block_shape[0] != self.block_shape[1]:
            return None
        c, r = np.asarray(self.c), np.asarray(self.r)
        system = BlockToeplitzSystem(c, r, f"{type(self).__name__}.solve", ready=True)
        dtype = np.dtype(self.dtype)

        def solved(b: Any) -> Any:
            return system.solve(b).astype(dtype)

        return Products(np.ndarray, dtype, (self.shape[0],), solved, solved)

    def _slogdet(self, xp: Namespace) -> tuple[Array, Array]:
        sign, log, _ = self._determinant(xp, with_error=False)
        return sign, log

    def _slogdet_and_error(self, xp: Namespace) -> tuple[Array, Array, Array]:
        return self._determinant(xp, with_error=True)

    def _determinant(self, xp: Namespace, *, with_error: bool) -> tuple[Array, Array, Array]:
        """Return sign and logarithm, and how far off that may be; zero where it is not asked for."""
        self._require_square_blocks()
        owner = f"{type(self).__name__}.slogdet"
        sign, log, error = block_log_determinants(self, xp, owner, with_error=with_error)
        rules = rules_of(xp)
        if rules.is_differentiated([self.c, self.r]):
            log = rules.log_determinant(BlockTraceOfInverse(), self, None, log)
        return *sign_and_modulus(sign, log, xp), error

    def _det(self, xp: Namespace) -> Array:
        sign, log = self._slogdet(xp)
        return sign * xp.astype(xp.exp(log), sign.dtype)

    def _determinant_factors(self, xp: Namespace) -> Array:
        return even_factors(*self._slogdet(xp), self.shape[0], xp)

    def _require_square_blocks(self) -> None:
        """Raise the error for blocks that are not square, of which no leading section is."""
        if self.block_shape[0] != self.block_shape[1]:
            raise NoClosedFormError(self)


def _block_of(operator: Kronecker, n: int) -> Array | None:
    """Return the block of a block diagonal matrix of n equal blocks, given as a Kronecker product; else None."""
    outer, *inner = operator.factors
    if not isinstance(outer, Identity) or outer.shape[0] != n or len(inner) != 1:
        return None
    xp = operator._own_namespace()
    return inner[0]._to_dense(Context(xp, operator.dtype, operator.device))


@compose.rule(BlockToeplitz, Kronecker)
def _with_blocks_from_the_right(left: BlockToeplitz, right: Kronecker) -> Any:
    block = _block_of(right, left.grid[1])
    return NotImplemented if block is None else left.multiply_blocks(None, block)


@compose.rule(Kronecker, BlockToeplitz)
def _with_blocks_from_the_left(left: Kronecker, right: BlockToeplitz) -> Any:
    block = _block_of(left, right.grid[0])
    return NotImplemented if block is None else right.multiply_blocks(block)


def _as_blocks(value: ArrayLike, owner: str, argument: str, sizes: str, like: Array | None = None) -> Array:
    """Return blocks along one axis, none of them empty, after the check of their axes."""
    blocks = as_floating(value, owner, argument, like=None if like is None else (namespace_of(owner, like), like.dtype))
    if blocks.ndim < 3 or 0 in blocks.shape[-3:]:
        raise wrong_shape(owner, argument, f"(..., {sizes}), none of them 0", blocks)
    return blocks


def _of_each(matrix: Array, blocks: Array, owner: str, xp: Namespace) -> Array:
    """Return the products of a matrix and each of the blocks, in their common dtype."""
    broadcast_shapes(owner, tuple(matrix.shape[:-2]), tuple(blocks.shape[:-3]))
    dtype = common_dtype(xp, matrix, blocks)
    return xp.matmul(xp.astype(matrix, dtype)[..., None, :, :], xp.astype(blocks, dtype))
