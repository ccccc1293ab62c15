"""Toeplitz and Hankel matrices of any rectangular shape, and the inverses of square ones."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._arguments import as_vectors, wrong_shape
from structmat._arrays.arithmetic import conjugate, euclidean_norm, real_part, scale_array
from structmat._arrays.conversion import copied
from structmat._arrays.dtypes import common_dtype, is_complex
from structmat._arrays.libraries import can_raise_for_values, device_of, is_numpy, namespace_of, rules_of
from structmat._arrays.linear_algebra import even_factors
from structmat._arrays.shapes import broadcast_shapes, concat_last, windows
from structmat._arrays.typing import Array, ArrayLike, Namespace, Scalar
from structmat._fourier.embedding import kernel_of_diagonals
from structmat._fourier.plans import Convolution
from structmat._fourier.products import Products
from structmat._fourier.small_products import are_few, product_by_sums
from structmat._nearest_circulants import mean_of_diagonals, wrapped_diagonals
from structmat._rules import Solver
from structmat._toeplitz_systems import (
    Bezoutian,
    ToeplitzSystem,
    TraceOfInverse,
    accepted_power,
    as_lower,
    bezoutian,
    inverse_vectors,
    log_determinants,
    reflection_coefficients,
    solutions,
    toeplitz_cholesky,
    toeplitz_view,
    triangle,
)
from structmat.operators._base.arithmetic import scale
from structmat.operators._base.closed_forms import NoClosedFormError
from structmat.operators._base.hooks import Context
from structmat.operators._base.linear_operator import LinearOperator, Planned, SlogdetResult
from structmat.operators._base.near import Near, NearCirculant
from structmat.operators._base.spectral_functions import SpectralFunction, function_of_entries


@dataclass(frozen=True, eq=False, repr=False)
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
        x, y = _both(as_vectors(self.x, owner, "x"), self.y, owner, "y")
        if y.shape[-1] != x.shape[-1]:
            raise wrong_shape(owner, "y", f"(..., {x.shape[-1]})", y)
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)
        rows, cols = self.flips
        object.__setattr__(self, "flips", (bool(rows), bool(cols)))

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.x.shape[-1], self.x.shape[-1])

    def _described(self) -> str:
        return "the inverse of a Toeplitz or Hankel matrix, whose own methods serve instead"

    def _plan(self, xp: Namespace) -> Bezoutian:
        return bezoutian(self.x, self.y, xp, flips=self.flips)

    def _transpose(self) -> ToeplitzInverse:
        rows, cols = self.flips
        return self._replaced(flips=(not cols, not rows))

    def _diagonal(self, xp: Namespace) -> Array:
        rows, cols = self.flips
        if rows != cols:
            raise NoClosedFormError(self)
        x, y = self.x, self.y
        later = y[..., 1:] * xp.flip(x[..., 1:], axis=-1) - x[..., 1:] * xp.flip(y[..., 1:], axis=-1)
        diagonal = xp.cumulative_sum(concat_last([x[..., :1], later], xp), axis=-1)
        return xp.flip(diagonal, axis=-1) if rows else diagonal


def _both(first: Array, second: ArrayLike, owner: str, argument: str) -> tuple[Array, Array]:
    """Return two arrays of vectors in their common dtype, after the second one has been checked."""
    second = as_vectors(second, owner, argument, like=(namespace_of(owner, first), first.dtype))
    xp = namespace_of(owner, first, second)
    broadcast_shapes(owner, tuple(first.shape[:-1]), tuple(second.shape[:-1]))
    dtype = common_dtype(xp, first, second)
    first, second = (v if v.dtype == dtype else xp.astype(v, dtype) for v in (first, second))
    return first, second


@scale.rule(ToeplitzInverse, object)
def _scale(operator: ToeplitzInverse, factor: Scalar) -> ToeplitzInverse:
    xp = operator._own_namespace()
    scaled = scale_array(operator.x, factor, 1, xp)
    return ToeplitzInverse(scaled, operator.y, operator.flips)


class ConstantDiagonals(Planned):
    """What Toeplitz and Hankel matrices share: m + n - 1 constants, as two vectors `c` and `r` that meet in a corner.

    The first entry of `r` lies in the corner, where `c` decides, and is ignored.
    """

    _core_axes = {"c": 1, "r": 1}
    _flipped = False
    """Whether the columns of the operator are those of the Toeplitz matrix T, see below, in reverse order."""

    if TYPE_CHECKING:
        c: Array
        r: Array

    def _set_vectors(self, c: Array, r: ArrayLike) -> None:
        for name, vector in zip(("c", "r"), _both(c, r, type(self).__name__, "r"), strict=True):
            object.__setattr__(self, name, vector)

    @property
    def shape(self) -> tuple[int, int]:
        """``(m, n)``, the lengths of `c` and `r`."""
        return (self.c.shape[-1], self.r.shape[-1])

    @abstractmethod
    def _constants(self, xp: Namespace) -> Array:
        """Return the m + n - 1 constants, from one corner to the opposite one."""

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        if x.ndim == self.c.ndim == self.r.ndim == 1 and is_numpy(xp) and are_few(*self.shape):
            return product_by_sums(self._constants(xp), x[::-1] if self._flipped else x)
        return super()._matvec(x, xp)

    def _modulus(self, xp: Namespace) -> LinearOperator:
        return self._map(lambda vector, _: xp.abs(vector))

    def _frobenius(self, xp: Namespace) -> Array:
        constants = self._constants(xp)
        return euclidean_norm(constants, xp, weights=diagonal_lengths(*self.shape, real_part(constants, xp), xp))

    # The linear algebra of square matrices is that of a Toeplitz matrix T: the operator itself, or for a Hankel matrix
    # the operator with its columns in reverse order.

    @abstractmethod
    def _as_toeplitz(self, xp: Namespace) -> Toeplitz:
        """Return T."""

    def _inv(self, xp: Namespace) -> LinearOperator:
        return self._inverse_by_vectors(xp)

    def _inverse_by_vectors(self, xp: Namespace) -> ToeplitzInverse:
        T = self._as_toeplitz(xp)
        x, y = inverse_vectors(T.c, T.r, xp, f"{type(self).__name__}.inv")
        if rules_of(xp).is_differentiated([T.c, T.r]):
            x, y = _with_derivatives(x, y, T, xp)
        return ToeplitzInverse(x, y, (self._flipped, False))

    def _solve(self, b: Array, xp: Namespace) -> Array:
        T = self._as_toeplitz(xp)
        if is_numpy(xp) and T.c.ndim == T.r.ndim == 1:
            x = ToeplitzSystem(T.c, T.r, f"{type(self).__name__}.solve").solve(b)
            x = x.astype(np.result_type(T.c, b), copy=False)
        else:
            x = solutions(T, b, xp, f"{type(self).__name__}.solve")
        return xp.flip(x, axis=-1) if self._flipped else x

    def _solver(self, xp: Namespace) -> Products | None:
        if self.batch_shape:
            return None
        T = self._as_toeplitz(xp)
        system = ToeplitzSystem(np.asarray(T.c), np.asarray(T.r), f"{type(self).__name__}.solve", ready=True)
        dtype = np.dtype(self.dtype)
        order = slice(None, None, -1 if self._flipped else 1)

        def solved(b: Any) -> Any:
            return system.solve(b)[..., order].astype(dtype)

        return Products(np.ndarray, dtype, (self.shape[0],), solved, solved)

    def _slogdet(self, xp: Namespace) -> tuple[Array, Array]:
        sign, log, _ = self._determinant(xp, with_error=False)
        return sign, log

    def _slogdet_and_error(self, xp: Namespace) -> tuple[Array, Array, Array]:
        return self._determinant(xp, with_error=True)

    def _determinant(self, xp: Namespace, *, with_error: bool) -> tuple[Array, Array, Array]:
        """Return sign and logarithm, and how far off that may be; zero where it is not asked for."""
        n = self.shape[0]
        T = self._as_toeplitz(xp)
        owner = f"{type(self).__name__}.slogdet"
        regular, log, error = log_determinants(T.c, T.r, xp, owner, with_error=with_error)
        rules = rules_of(xp)
        if rules.is_differentiated([T.c, T.r]):
            log = rules.log_determinant(TraceOfInverse(), T, None, log)
        reversal_is_odd = self._flipped and n * (n - 1) // 2 % 2
        return *sign_and_modulus(-regular if reversal_is_odd else regular, log, xp), error

    def _det(self, xp: Namespace) -> Array:
        sign, log = self._slogdet(xp)
        return sign * xp.astype(xp.exp(log), sign.dtype)

    def _determinant_factors(self, xp: Namespace) -> Array:
        return even_factors(*self._slogdet(xp), self.shape[0], xp)


def sign_and_modulus(sign: Array, log: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the sign of determinants and the logarithm of their modulus, minus infinity where they are zero.

    `log` is the logarithm of determinants over their own `sign`: of the modulus, and of a phase where they are complex.
    """
    if is_complex(log.dtype, xp):
        log_modulus = xp.real(log)
        phase = xp.exp(1j * xp.imag(log))
    else:
        log_modulus = log
        phase = 1.0
    sign = xp.astype(sign, log.dtype) * phase
    is_singular = ~(xp.abs(sign) > 0.0) & ~xp.isnan(log_modulus)
    return sign, xp.where(is_singular, -xp.inf * xp.ones_like(log_modulus), log_modulus)


@dataclass(frozen=True)
class _ByInverse(Solver):
    """Solves systems with a Toeplitz matrix by its inverse, M, for the implicit rule of a library."""

    def __call__(self, A: Any, M: Any, b: Array, xp: Namespace) -> tuple[Array, tuple[()]]:
        return M._matvec(b, xp), ()


@dataclass(frozen=True)
class _VectorsOfInverse(Solver):
    """Returns the two vectors of an inverse M that is given, for the implicit rule; that solves with M too."""

    @property
    def for_changes(self) -> Solver:
        return _ByInverse()

    def __call__(self, A: Any, M: Any, b: Array, xp: Namespace) -> tuple[Array, tuple[()]]:
        return xp.concat([M.x, M.y], axis=-2), ()


def _with_derivatives(x: Array, y: Array, T: Toeplitz, xp: Namespace) -> tuple[Array, Array]:
    """Return the two vectors of an inverse with derivatives, by the implicit rule: they solve two systems.

    The entry s of the right-hand side for y is free, and zero here.
    """
    zero = xp.zeros_like(x[..., :1])
    r = xp.broadcast_to(T.r, x.shape)
    for_x = concat_last([xp.ones_like(zero), xp.zeros_like(x[..., 1:])], xp)
    for_y = concat_last([zero, xp.flip(r[..., 1:], axis=-1)], xp)
    inverse = ToeplitzInverse(x[..., None, :], y[..., None, :])
    right_hand_sides = xp.stack([for_x, for_y], axis=-2)
    vectors, _ = rules_of(xp).solution(_VectorsOfInverse(), T._with_batch_axis(xp), inverse, right_hand_sides)
    return vectors[..., 0, :], vectors[..., 1, :]


def diagonal_lengths(m: int, n: int, like: Array, xp: Namespace) -> Array:
    """Return how many entries each of the m + n - 1 diagonals of an m x n matrix has, in the dtype of `like`."""
    k = xp.arange(m + n - 1, device=device_of(like))
    longest = xp.full_like(k, min(m, n))
    return xp.astype(xp.minimum(longest, xp.minimum(k + 1, m + n - 1 - k)), like.dtype)


def toeplitz_entries(constants: Array, n: int, xp: Namespace) -> Array:
    """Return the entries of Toeplitz matrices of n columns with these constants, of the upper right corner first."""
    if is_numpy(xp):
        return toeplitz_view(constants, n).copy()
    return copied(xp.flip(windows(xp.flip(constants, axis=-1), n, xp), axis=-2), xp)


@dataclass(frozen=True, eq=False, repr=False)
class Toeplitz(ConstantDiagonals):
    """A Toeplitz matrix given by its first column and first row, ``T[i, j] = c[i - j]`` or ``r[j - i]``.

    Parameters
    ----------
    c : array, shape (..., m)
        The first column; leading axes make a stack of matrices, so that an n x n array gives n
        matrices and not one. Integers are promoted to the library's floating dtype.
    r : array, shape (..., n), optional
        The first row. Its first entry is ignored, as in `scipy.linalg.toeplitz`: ``c[0]`` is the corner entry. Default:
        the complex conjugate of `c`, so that the matrix is Hermitian where ``c[0]`` is real.

    Raises
    ------
    ValueError
        If `c` or `r` has no axis or no entry, or their batch axes do not broadcast.
    TypeError
        If `c` or `r` does not hold numbers, or they belong to different array libraries.

    See Also
    --------
    Circulant : Toeplitz matrices whose diagonals wrap around; they have closed-form linear algebra.
    Hankel : Constant anti-diagonals.
    structmat.preconditioners : Circulants that are close to a Toeplitz matrix.

    Notes
    -----
    A product with a vector is a convolution of the vector with the m + n - 1 constants of the diagonals, of which m
    entries are kept. It takes three Fourier transforms of a fast length not below m + n - 1, which are real ones for
    real data.

    The inverse of a square Toeplitz matrix is not a Toeplitz matrix in general, but two vectors determine it
    (`ToeplitzInverse`). The notes of `solve` say how systems are solved, and which solutions are accepted.

    **Libraries and devices.** `solve`, `inv`, `slogdet` and their derivatives compute in double precision, whatever the
    dtype of the arrays. For matrices of up to 512 rows, one or a stack of them, torch and JAX do this themselves, on
    the device of the arrays and inside of ``jax.jit``. Matrices with more rows, and those of other libraries, are
    brought to the host and computed with NumPy. The same holds for devices without double precision (MPS, TPU, and JAX
    before 0.8 without ``jax_enable_x64``). `torch.compile` makes one graph of solutions of up to 512 rows with their
    derivatives; of programs with larger ones it compiles what stands around them.

    **Triangular matrices.** If the first row or the first column is zero except for the corner, the matrix acts as a
    power series. Its inverse, its square root and its other powers are then triangular Toeplitz matrices too, and
    `inv`, `sqrtm` and `fractional_matrix_power` return a `Toeplitz`. Newton's iteration finds them in O(n log n)
    operations [1]_. They are accepted by their residuals, and computed by substitution where these are too large. torch
    and JAX compute on the device of the arrays. In derivatives the zeros count as constants.

    A function that JAX traces has no values to look at. It takes a matrix as triangular if the row of zeros is a
    constant that was made outside of the function. Otherwise systems are solved as for any Toeplitz matrix, `inv`
    returns a `ToeplitzInverse`, and the roots of a matrix that is not triangular are NaN.

    **Warnings.** A `scipy.linalg.LinAlgWarning` says that results are inaccurate: because the condition number is above
    the inverse of the machine epsilon, or because products with the inverse are far less accurate than solutions. There
    are no warnings in JAX, and in what torch compiles.

    References
    ----------
    .. [1] Brent, R. P., Kung, H. T., Fast algorithms for manipulating formal power series, J. ACM 25, 1978.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> T = sm.Toeplitz(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0]))
    >>> T.to_dense()
    array([[1., 4.],
           [2., 1.],
           [3., 2.]])
    >>> (T @ np.array([1.0, 1.0])).round(12)
    array([5., 3., 5.])

    >>> T = sm.Toeplitz(0.9 ** np.arange(1000))
    >>> bool(np.allclose(T @ T.solve(np.ones(1000)), 1))
    True
    >>> float(T.slogdet().logabsdet.round(3))
    -1659.07

    The sums of all entries up to each one, as a triangular matrix, and its square root:

    >>> sums = sm.Toeplitz(np.ones(5), np.zeros(5))
    >>> sums.sqrtm()
    Toeplitz(shape=(5, 5), dtype=float64, device=cpu)
    >>> sums.sqrtm().c
    array([1.       , 0.5      , 0.375    , 0.3125   , 0.2734375])
    >>> sums.inv().c.round(12) + 0.0
    array([ 1., -1.,  0.,  0.,  0.])
    """

    c: Array
    """The first column, shape ``(..., m)``."""
    r: Any = None
    """The first row, shape ``(..., n)``; its first entry counts for nothing."""

    def __post_init__(self) -> None:
        c = as_vectors(self.c, "Toeplitz", "c", "m")
        r = self.r
        if r is None:
            r = conjugate(c, namespace_of("Toeplitz", c))
        self._set_vectors(c, r)

    def solve(self, b: ArrayLike, /) -> Array:
        """Return the solution x of the Toeplitz system ``T @ x = b``.

        Parameters
        ----------
        b : array, shape (n,) or (..., n, k)
            One right-hand side, or right-hand sides in columns, as for ``@`` and `scipy.linalg.solve_toeplitz`.

        Returns
        -------
        array, shape (..., n) or (..., n, k)
            The solutions, of the common dtype of matrix and right-hand side.

        Raises
        ------
        ValueError
            If the matrix is not square, or `b` has another length.
        TypeError
            If `b` belongs to another array library than the matrix.
        numpy.linalg.LinAlgError
            If a NumPy matrix is singular, or too ill-conditioned and too large for an accurate solution. Other
            libraries return infinities or NaN for a singular one.

        Warns
        -----
        scipy.linalg.LinAlgWarning
            If the matrix is so ill-conditioned that the solution is inaccurate.

        See Also
        --------
        Toeplitz.inv : The inverse, for many right-hand sides that come one after the other.
        LinearOperator.inv_matvec : For vectors along the last axis.
        structmat.solve : For sums with a diagonal, chosen rows and columns, and other methods.

        Notes
        -----
        How one right-hand side is solved depends on the matrix:

        - Up to 64 rows the dense matrix is eliminated. Stacks of NumPy matrices are eliminated all at once up to 128
          rows, and those of torch and JAX up to 512 rows.
        - A matrix with at most 32 diagonals beside the main one is eliminated as a band, in O(n) operations. For
          100,000 second differences that takes as long as a few products.
        - A triangular matrix is inverted as a power series, as the notes of `Toeplitz` describe.
        - For all other matrices Levinson's recursion takes O(n^2) operations. It goes by blocks from 1,024 rows on.
        - From 2,048 rows on some steps of GMRES are tried first, with Strang's circulant as preconditioner [1]_. Where
          they converge, the solution takes O(n log n) operations. Where they do not, they are given up soon.

        With three or more right-hand sides the inverse is computed once. Each of them then costs O(n log n) operations.

        A solution is accepted if its residual is at the level of rounding in every row, and a further correction would
        hardly change it. One that is not is refined. If that does not help, the dense matrix is eliminated, which is
        possible up to 4,096 rows. For larger matrices a solution with a small residual above that level comes with a
        warning. One with a large residual is eliminated up to 12,247 rows, which take 1.2 GB, and an error above.

        References
        ----------
        .. [1] Chan, R. H., Ng, M. K., Conjugate gradient methods for Toeplitz systems, SIAM Rev. 38, 1996.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> T = sm.Toeplitz(np.array([3.0, 1.0, 0.0]), np.array([3.0, 2.0, 1.0]))
        >>> T.solve(T @ np.array([1.0, 2.0, 3.0])).round(12)
        array([1., 2., 3.])
        >>> B = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])  # two right-hand sides
        >>> bool(np.allclose(T @ T.solve(B), B))
        True
        """
        return super().solve(b)

    def inv(self) -> LinearOperator:
        """Return the inverse of a square Toeplitz matrix as an operator.

        Returns
        -------
        ToeplitzInverse or Toeplitz
            The inverse, determined by two vectors, with products in O(n log n) operations. That of a triangular matrix
            is a triangular `Toeplitz`.

        Raises
        ------
        ValueError
            If the matrix is not square.
        numpy.linalg.LinAlgError
            If a NumPy matrix is singular, or too large and too ill-conditioned for an accurate inverse.

        Warns
        -----
        scipy.linalg.LinAlgWarning
            If products with the inverse are far less accurate than `solve`.

        See Also
        --------
        Toeplitz.solve : More accurate for an ill-conditioned matrix, and faster for one or two right-hand sides.
        ToeplitzInverse : The formula.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> T = sm.Toeplitz(np.array([3.0, 1.0, 0.0]))
        >>> T.inv()
        ToeplitzInverse(shape=(3, 3), dtype=float64, device=cpu)
        >>> (T.inv() @ (T @ np.array([1.0, 2.0, 3.0]))).round(12)
        array([1., 2., 3.])
        """
        return super().inv()

    def slogdet(self) -> SlogdetResult:
        """Return sign and logarithm of the determinant of a square Toeplitz matrix.

        Returns
        -------
        sign : array, shape (...)
            Of modulus one, or zero for a singular matrix.
        logabsdet : array, shape (...)
            Natural logarithm of the absolute value, real.

        Raises
        ------
        ValueError
            If the matrix is not square.
        numpy.linalg.LinAlgError
            If a NumPy matrix is too large and too ill-conditioned for an accurate determinant.

        See Also
        --------
        structmat.slogdet : For sums with a diagonal, and chosen rows and columns.

        Notes
        -----
        The determinant is the product of the pivots, which the elimination or the recursion of `solve` finds. It takes
        O(n^2) operations, or O(n) for a band or a triangular matrix. In torch and JAX the derivatives are those of the
        exact determinant, and are computed from the inverse.

        Examples
        --------
        The log-determinant of a covariance matrix, as in the likelihood of a Gaussian process:

        >>> import numpy as np
        >>> import structmat as sm
        >>> sign, logabsdet = sm.Toeplitz(0.9 ** np.arange(1000)).slogdet()
        >>> float(sign), float(logabsdet.round(3))
        (1.0, -1659.07)
        """
        return super().slogdet()

    def cholesky(self) -> Array:
        """Return the Cholesky factor of a Hermitian positive definite matrix.

        Returns
        -------
        array, shape (..., n, n)
            The lower triangular L with ``L @ L^H = T`` and a positive diagonal, dense. torch and JAX take the Hermitian
            part of T, and there are NaN in L where T is not positive definite.

        Raises
        ------
        ValueError
            If the matrix is not square or, with NumPy, not Hermitian.
        numpy.linalg.LinAlgError
            If a NumPy matrix is not positive definite; the text names the first leading section that is not.

        Notes
        -----
        Schur's algorithm [1]_: each column follows from the one before, shifted down by one, and one more vector, in
        O(n^2) operations. It is backward stable [2]_. Up to 500 rows NumPy's dense factor is faster, and is taken.
        Derivatives in torch and JAX are those of the steps.

        References
        ----------
        .. [1] Golub, G. H., Van Loan, C. F., Matrix Computations, 4th edition, section 4.7, 2013.
        .. [2] Bojanczyk, A. W., Brent, R. P., de Hoog, F. R., Sweet, D. R., On the stability of the Bareiss and related
           Toeplitz factorization algorithms, SIAM J. Matrix Anal. Appl. 16, 1995.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.Toeplitz(np.array([4.0, 2.0, 1.0])).cholesky().round(3)
        array([[2.   , 0.   , 0.   ],
               [1.   , 1.732, 0.   ],
               [0.5  , 0.866, 1.732]])
        """
        op, xp = self._to_working_precision("cholesky", square=True)
        factor = toeplitz_cholesky(op.c, op.r, xp, f"{type(self).__name__}.cholesky")
        return self._from_working_precision(factor, xp)

    def reflection_coefficients(self) -> Array:
        """Return the reflection coefficients of a Hermitian positive definite matrix: its partial autocorrelations.

        Returns
        -------
        array, shape (..., n - 1)
            The numbers k_1, ..., k_{n-1}: ``k_1 = c[1] / c[0]``, and k_m is the last entry of the solution a of
            ``T_m a = (c[1], ..., c[m])`` with the leading section T_m. Some texts have the opposite sign.

        Raises
        ------
        ValueError, numpy.linalg.LinAlgError
            As for `cholesky`.

        Notes
        -----
        T is positive definite if and only if ``c[0] > 0`` and all ``|k_m| < 1``. Its determinant is then ``c[0]^n``
        times the product of all ``(1 - |k_m|^2)^(n - m)``. Schur's algorithm finds them in O(n^2) operations, and with
        NumPy in O(n) memory.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.Toeplitz(0.5 ** np.arange(4)).reflection_coefficients()  # of a process that looks back one step
        array([0.5, 0. , 0. ])
        """
        op, xp = self._to_working_precision("reflection_coefficients", square=True)
        coefficients = reflection_coefficients(op.c, op.r, xp, f"{type(self).__name__}.reflection_coefficients")
        return self._from_working_precision(coefficients, xp)

    def _constants(self, xp: Namespace) -> Array:
        return concat_last([xp.flip(self.r[..., 1:], axis=-1), self.c], xp)

    def _plan(self, xp: Namespace) -> Convolution:
        return Convolution.of(kernel_of_diagonals(self.c, self.r[..., 1:], xp), self.shape, xp)

    def _transpose(self) -> Toeplitz:
        return self._replaced(c=concat_last([self.c[..., :1], self.r[..., 1:]], self._own_namespace()), r=self.c)

    def _near(self, like: Array, xp: Namespace) -> Near:
        def circulant() -> NearCirculant | None:
            m, n = self.shape
            if m != n:
                return None
            return NearCirculant(wrapped_diagonals(self._constants(xp), (n,), mean_of_diagonals, xp), (n,))

        return Near(self, circulant=circulant, noisy_toeplitz=lambda: (self, None))

    def _to_dense(self, like: Context) -> Array:
        return toeplitz_entries(self._constants(like.xp), self.shape[1], like.xp)

    def _as_toeplitz(self, xp: Namespace) -> Toeplitz:
        return self

    def _block(self, rows: range, cols: range, xp: Namespace) -> Toeplitz:
        corner = self.shape[1] - 1 - cols.start + rows.start  # the index of the constant in the corner of the block
        constants = self._constants(xp)
        first_row = xp.flip(constants[..., corner + 1 - len(cols) : corner + 1], axis=-1)
        return Toeplitz(constants[..., corner : corner + len(rows)], first_row)

    def _diagonal(self, xp: Namespace) -> Array:
        return xp.broadcast_to(self.c[..., :1], (*self.batch_shape, min(self.shape)))

    # Triangular matrices, whose inverses and powers are triangular Toeplitz matrices again

    def _inv(self, xp: Namespace) -> LinearOperator:
        rules = rules_of(xp)
        side = rules.untraced(triangle)(self.c, self.r, xp)
        if side is None or rules.is_differentiated([self.r if side == "lower" else self.c]):
            return self._inverse_by_vectors(xp)  # as derivatives by entries beyond the triangle are wanted too
        entries = xp.arange(self.shape[0], device=device_of(self.c))
        unit = xp.astype(entries == (0 if side == "lower" else self.shape[0] - 1), self.c.dtype)
        x = solutions(self, xp.broadcast_to(unit, (*self.batch_shape, *unit.shape)), xp, f"{type(self).__name__}.inv")
        return self._triangular(x if side == "lower" else xp.flip(x, axis=-1), side, xp)

    def _spectral_function(self, function: SpectralFunction, xp: Namespace) -> LinearOperator:
        rules = rules_of(xp)
        side = rules.untraced(triangle)(self.c, self.r, xp)
        is_traced = any(map(rules.is_traced, self._arrays()))
        if function.power is None or (side is None and not is_traced):
            raise NoClosedFormError(self)
        vector, is_lower = as_lower(self.c, self.r, xp)
        corner = vector[..., :1]
        owner = type(self).__name__
        is_whole = function.power >= 0 and float(function.power).is_integer()
        if rules.concrete(corner) is None:
            corner = function.evaluate(corner)
        else:
            if can_raise_for_values(xp) and bool(xp.any(corner == 0.0)) and not is_whole:
                text = "a triangular Toeplitz matrix with a diagonal of zeros has no such power"
                raise np.linalg.LinAlgError(f"{owner}.{function.name}: {text}")
            corner = function_of_entries(function, corner, owner, xp)
        vector = xp.astype(vector, corner.dtype)
        power = accepted_power(vector, function.power, corner, xp)
        if side:
            return self._triangular(power, side, xp)
        is_triangular = is_lower | xp.all(self.c[..., 1:] == 0.0, axis=-1, keepdims=True)
        power = xp.where(is_triangular, power, xp.full_like(power, float("nan")))
        zeros = xp.where(xp.isnan(power), power, xp.zeros_like(power))
        c = concat_last([power[..., :1], zeros[..., 1:]], xp)
        return Toeplitz(xp.where(is_lower, power, c), xp.where(is_lower, zeros, power))

    def _triangular(self, vector: Array, side: str, xp: Namespace) -> Toeplitz:
        """Return the triangular matrix of that first column or row, on the same side as this one.

        A first row of zeros stays as it is: if it is a constant in a trace, that the result is triangular is known too.
        """
        if side == "lower":
            return Toeplitz(vector, self.r)
        return Toeplitz(concat_last([vector[..., :1], self.c[..., 1:]], xp), vector)


@dataclass(frozen=True, eq=False, repr=False)
class Hankel(ConstantDiagonals):
    """A Hankel matrix given by its first column and last row, ``H[i, j] = h[i + j]`` with h = `c`, then ``r[1:]``.

    Parameters
    ----------
    c : array, shape (..., m)
        The first column; leading axes make a stack of matrices. Integers are promoted to the library's floating dtype.
    r : array, shape (..., n), optional
        The last row. Its first entry is ignored, as in `scipy.linalg.hankel`: ``c[-1]`` is the corner entry. Default:
        zeros of the length of `c`.

    Raises
    ------
    ValueError
        If `c` or `r` has no axis or no entry, or their batch axes do not broadcast.
    TypeError
        If `c` or `r` does not hold numbers, or they belong to different array libraries.

    See Also
    --------
    Toeplitz : Constant diagonals: a Hankel matrix with its columns in reverse order.

    Notes
    -----
    A product costs as much as that of a `Toeplitz`: three transforms of a fast length not below m + n - 1. The
    transpose has the same anti-diagonals.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> H = sm.Hankel(np.array([1.0, 2.0, 3.0]), np.array([3.0, 4.0]))
    >>> H.to_dense()
    array([[1., 2.],
           [2., 3.],
           [3., 4.]])
    >>> (H @ np.array([1.0, 1.0])).round(12)
    array([3., 5., 7.])
    """

    _flipped = True

    c: Array
    """The first column, shape ``(..., m)``."""
    r: Any = None
    """The last row, shape ``(..., n)``; its first entry counts for nothing."""

    def __post_init__(self) -> None:
        c = as_vectors(self.c, "Hankel", "c", "m")
        self._set_vectors(c, namespace_of("Hankel", c).zeros_like(c) if self.r is None else self.r)

    def _constants(self, xp: Namespace) -> Array:
        return concat_last([self.c, self.r[..., 1:]], xp)

    def _plan(self, xp: Namespace) -> Convolution:
        m, n = self.shape
        h = self._constants(xp)
        kernel = kernel_of_diagonals(h[..., n - 1 :], xp.flip(h[..., : n - 1], axis=-1), xp)
        return Convolution.of(kernel, (m, n), xp, flips=(False, True))

    def _transpose(self) -> Hankel:
        return hankel_of(self._constants(self._own_namespace()), self.shape[1])

    def _to_dense(self, like: Context) -> Array:
        return copied(windows(self._constants(like.xp), self.shape[1], like.xp), like.xp)

    def _as_toeplitz(self, xp: Namespace) -> Toeplitz:
        h = self._constants(xp)
        n = self.shape[1]
        T = object.__new__(Toeplitz)  # without the constructor, as these vectors need no checks
        object.__setattr__(T, "c", h[..., n - 1 :])
        object.__setattr__(T, "r", xp.flip(h[..., :n], axis=-1))
        return T

    def _block(self, rows: range, cols: range, xp: Namespace) -> Hankel:
        constants = self._constants(xp)[..., rows.start + cols.start : rows.stop + cols.stop - 1]
        return hankel_of(constants, len(rows))

    def _diagonal(self, xp: Namespace) -> Array:
        return self._constants(xp)[..., : 2 * min(self.shape) - 1 : 2]


def hankel_of(constants: Array, rows: int) -> Hankel:
    """Return the Hankel matrix of that many rows with given anti-diagonals."""
    return Hankel(constants[..., :rows], constants[..., rows - 1 :])
