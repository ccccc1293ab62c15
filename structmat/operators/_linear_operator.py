"""The base class of all operators: linear algebra in closed form, on top of products and arithmetic."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from numbers import Integral
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from structmat._arguments import non_negative
from structmat._arrays.arithmetic import binary_exponents, negligible, require_nonzero
from structmat._arrays.conversion import copied
from structmat._arrays.dtypes import cast_back, complex_partner, is_complex, precision_of
from structmat._arrays.libraries import can_raise_for_values
from structmat._arrays.shapes import is_vector
from structmat._arrays.typing import Array, ArrayLike, DType, Namespace
from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat._fourier.plans import Plan
from structmat.operators._products import Operator

NormOrder: TypeAlias = Literal["fro", "nuc", 1, 2] | float
"""A matrix norm: Frobenius, nuclear, largest column sum, largest singular value; infinity is the largest row sum."""

_TRANSFORM = 4.0
"""The cut-off over ``eps * log2(2 n)``; see `spectral_rounding`."""

_ITERATIVE = "scipy.sparse.linalg.{} on structmat.scipy.as_linear_operator(op), or {}(op.to_dense())"


ALTERNATIVES = {
    **{name: f"numpy.linalg.{name}(op.to_dense())" for name in ("det", "slogdet", "cond", "norm")},
    **{name: f"numpy.{name}(op.to_dense())" for name in ("trace", "diagonal")},
    **{name: f"scipy.linalg.{name}(op.to_dense())" for name in ("sqrtm", "expm", "logm")},
    "inv": "structmat.solve(op, b) for products with it, or numpy.linalg.inv(op.to_dense())",
    "solve": "structmat.solve(op, b), which iterates, or numpy.linalg.solve(op.to_dense(), b)",
    "inv_matvec": "structmat.solve(op, B), which iterates, for columns",
    "pinv": "structmat.lstsq(op, b) for products with it, or numpy.linalg.pinv(op.to_dense())",
    "lstsq": "structmat.lstsq(op, b), which iterates, or numpy.linalg.lstsq(op.to_dense(), b)",
    "eigvals": _ITERATIVE.format("eigs", "numpy.linalg.eigvals"),
    "eig": _ITERATIVE.format("eigs", "numpy.linalg.eig"),
    "svdvals": _ITERATIVE.format("svds", "numpy.linalg.svdvals"),
    "rank": "numpy.linalg.matrix_rank(op.to_dense())",
    "fractional_matrix_power": "scipy.linalg.fractional_matrix_power(op.to_dense(), p)",
}
"""What to call instead of a method that has no closed form."""


class SpectralFunction(NamedTuple):
    """A scalar function to be applied to eigenvalues.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import SpectralFunction
    >>> cosine = SpectralFunction("cosm", np.cos)
    >>> cosine.evaluate(np.zeros(2)), cosine.needs_nonzero
    (array([1., 1.]), False)
    """

    name: str
    """The public method that asks for it."""
    evaluate: Callable[[Array], Array]
    """The function, on an array of eigenvalues."""
    needs_nonnegative: bool = False
    """Whether a real eigenvalue must not be negative for the value to be real."""
    needs_nonzero: bool = False
    """Whether the function has a pole or a logarithmic singularity at zero."""


def function_of_entries(function: SpectralFunction, values: Array, owner: str, xp: Namespace) -> Array:
    """Return the function of eigenvalues that stand in the matrix as they are, complex where one needs that."""
    if function.needs_nonzero:
        require_nonzero(values, 0, f"{owner}.{function.name}", xp)
    if function.needs_nonnegative and not is_complex(values.dtype, xp) and bool(xp.any(values < 0)):
        values = xp.astype(values, complex_partner(values.dtype, xp))
    return function.evaluate(values)


def integer_power(values: Array, exponent: int, xp: Namespace) -> Array:
    """Return powers by repeated squaring, so that roots of unity that are held without rounding stay so."""
    square = values if exponent > 0 else 1 / values if exponent else xp.ones_like(values)
    result, left = square, max(abs(exponent) - 1, 0)
    while left:
        if left % 2:
            result = result * square
        left //= 2
        if left:
            square = square * square
    return result


def sign_and_log(factors: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return sign and logarithm of the absolute value of products along the last axis."""
    size = xp.abs(factors)
    if is_complex(factors.dtype, xp):
        unit = 2.0 ** binary_exponents(size, xp)  # a division by a subnormal number would overflow
        signs = (factors / unit) / xp.where(size == 0.0, xp.ones_like(size), size / unit)
    else:
        one = xp.ones_like(size)  # `xp.sign` cannot be mapped in torch, and is zero for NaN there
        signs = xp.where(xp.isnan(factors), factors, xp.where(factors > 0.0, one, xp.where(factors < 0.0, -one, 0.0)))
    return xp.prod(signs, axis=-1), xp.sum(_logs(size, -float("inf"), xp), axis=-1)


def product(factors: Array, xp: Namespace) -> Array:
    """Return products along the last axis that over- or underflow only where the result does.

    Where no product of some of the factors can leave the range of normal numbers that is the plain product, with every
    digit and all derivatives; elsewhere it goes through logarithms.
    """
    logs = _logs(xp.abs(factors), 0.0, xp)
    limits = xp.finfo(factors.dtype)
    growth, decay = (xp.sum(xp.clip(signed, min=0.0), axis=-1) for signed in (logs, -logs))
    safe = (growth < math.log(float(limits.max))) & (decay < -math.log(float(limits.smallest_normal)))
    plain = xp.prod(xp.where(safe[..., None], factors, xp.ones_like(factors)), axis=-1)
    sign, log = sign_and_log(factors, xp)
    return xp.where(safe, plain, sign * xp.astype(xp.exp(log), sign.dtype))


def _logs(size: Array, of_zero: float, xp: Namespace) -> Array:
    """Logarithms, without a warning for zeros and with a finite derivative there."""
    zero = ~((size > 0.0) | xp.isnan(size))
    return xp.where(zero, xp.full_like(size, of_zero), xp.log(xp.where(zero, xp.ones_like(size), size)))


def spectral_rounding(dtype: DType, xp: Namespace, *, length: int = 1, order: int = 0) -> float:
    """Return the size, relative to the largest, up to which a computed singular value or eigenvalue may be rounding.

    Errors of transforms of that `length` are about evenly spread over the values, at most half of ``eps * log2(2 *
    length)`` times the largest, as measured for NumPy, torch and JAX up to a million, primes included. Eight times as
    much leaves room for what rounded the entries before. The larger side of matrices whose singular values were
    computed, the `order`, counts ``eps`` times, as in `numpy.linalg.matrix_rank`.
    """
    eps = float(xp.finfo(xp.float64 if dtype is None else precision_of(dtype, xp)).eps)
    return eps * (_TRANSFORM * math.log2(2 * length) + order)


def _exponent(p: Any) -> int | float | None:
    """Return a real number of any type as one of Python; None where it is none, or not finite."""
    try:
        return int(p) if isinstance(p, Integral) else float(p) if math.isfinite(p) else None
    except (TypeError, OverflowError):
        return None


class EigResult(NamedTuple):
    """Named as those of `numpy.linalg.eig`."""

    eigenvalues: Array
    eigenvectors: LinearOperator


class SlogdetResult(NamedTuple):
    """Named as those of `numpy.linalg.slogdet`."""

    sign: Array
    logabsdet: Array


class LinearOperator(Operator["LinearOperator"]):
    """A matrix given by its products.

    The axis rule: `matvec` acts on the last axis of its argument; leading axes are batch axes and broadcast against
    those of the operator's parameters. ``op @ x`` follows `numpy.matmul`: one axis means a vector, otherwise the
    columns of the last two axes. dtype and device follow the inputs; half precision is computed in float32 and cast
    back.

    A method for which an operator has no closed form raises `NotImplementedError`, and the message names an
    alternative. Where a NumPy operator is singular to working precision, `inv`, `solve` and functions with a pole at
    zero raise `numpy.linalg.LinAlgError`; torch and JAX return infinities or NaN instead, since a check of values would
    wait for the device and break ``jit``.

    Subclasses are frozen dataclasses with ``eq=False``. They supply `shape`, the hooks ``_matvec`` and
    ``_transpose``, and say in ``_core_axes`` which fields are parameters; the other hooks have a default.

    See Also
    --------
    structmat.extend : For operators of your own.
    structmat.scipy.as_linear_operator : For solvers of SciPy.

    Examples
    --------
    What every operator has, here a circulant:

    >>> import numpy as np
    >>> import structmat as sm
    >>> op = sm.Circulant(np.array([2.0, 1.0, 0.0]))
    >>> isinstance(op, sm.LinearOperator)
    True
    >>> op @ np.ones(3), op.matvec(np.ones((5, 3))).shape
    (array([3., 3., 3.]), (5, 3))
    >>> op.T.to_dense()
    array([[2., 1., 0.],
           [0., 2., 1.],
           [1., 0., 2.]])
    """

    # Hooks that raise an error which names the alternative, until an operator has the closed form

    def _inv(self, xp: Namespace) -> LinearOperator:
        """Inverse."""
        raise self._no_closed_form("inv")

    def _solve(self, b: Array, xp: Namespace) -> Array:
        """Solution along the last axis, by default by the inverse."""
        try:
            inverse: Any = self._inv(xp)
        except NotImplementedError:
            raise self._no_closed_form("solve") from None
        return inverse._matvec(b, xp)

    def _pinv(self, rtol: float, xp: Namespace) -> LinearOperator:
        """Pseudo-inverse."""
        raise self._no_closed_form("pinv")

    def _damped_pinv(self, damp: float, xp: Namespace) -> LinearOperator:
        """``(A^H A + damp^2)^-1 A^H``, for a `damp` above zero."""
        raise self._no_closed_form("lstsq")

    def _has_pinv(self) -> bool:
        """Tell whether `_pinv` has a closed form."""
        return type(self)._pinv is not LinearOperator._pinv

    def _eigvals(self, xp: Namespace) -> Array:
        """Eigenvalues, complex."""
        raise self._no_closed_form("eigvals")

    def _eig(self, xp: Namespace) -> tuple[Array, LinearOperator]:
        """Eigenvalues and the operator of eigenvectors."""
        raise self._no_closed_form("eig")

    def _svdvals(self, xp: Namespace) -> Array:
        """Singular values in any order."""
        raise self._no_closed_form("svdvals")

    def _rounding(self, xp: Namespace) -> float:
        """Size, relative to the largest, up to which a singular value may be rounding: the default cut-off."""
        return spectral_rounding(self.dtype, xp, length=max(self.shape))

    def _singular_values(self, method: str, xp: Namespace) -> Array:
        """Singular values in any order, on behalf of another method."""
        try:
            return self._svdvals(xp)
        except NotImplementedError:
            raise self._no_closed_form(method) from None

    def _determinant_factors(self, method: str, xp: Namespace) -> Array:
        """Numbers along the last axis whose product is the determinant."""
        raise self._no_closed_form(method)

    def _det(self, xp: Namespace) -> Array:
        """Determinant."""
        return product(self._determinant_factors("det", xp), xp)

    def _slogdet(self, xp: Namespace) -> tuple[Array, Array]:
        """Sign and logarithm of the absolute value of the determinant."""
        return sign_and_log(self._determinant_factors("slogdet", xp), xp)

    def _diagonal(self, method: str, xp: Namespace) -> Array:
        """Main diagonal."""
        raise self._no_closed_form(method)

    def _modulus(self, xp: Namespace) -> LinearOperator:
        """Operator whose entries are ``|A[i, j]|``."""
        raise self._no_closed_form("norm")

    def _frobenius(self, xp: Namespace) -> Array:
        """Frobenius norm."""
        raise self._no_closed_form("norm")

    def _norm(self, ord: NormOrder, xp: Namespace) -> Array:
        """Norm, from entries, from singular values, or from row and column sums of the moduli."""
        if ord == "fro":
            return self._frobenius(xp)
        if ord in {2, "nuc"}:
            values = self._singular_values("norm", xp)
            return xp.max(values, axis=-1) if ord == 2 else xp.sum(values, axis=-1)
        moduli = self._modulus(xp)
        return xp.max((moduli._transpose() if ord == 1 else moduli)._row_sums(xp), axis=-1)

    def _spectral_function(self, function: SpectralFunction, xp: Namespace) -> LinearOperator:
        """Function of the matrix."""
        raise self._no_closed_form(function.name)

    def _whole(self) -> tuple[LinearOperator, Any]:
        """Matrix of which this one has some rows and the same columns, and their `Indices`; itself and None for all."""
        return self, None

    # Shared steps of the public methods

    def _cutoff(self, rtol: float | None, method: str, xp: Namespace) -> float:
        """Return the relative cut-off of singular values after the check of a given one."""
        if rtol is None:
            return self._to_working_precision(method)[0]._rounding(xp)
        return non_negative(rtol, f"{type(self).__name__}.{method}", "rtol")

    def _no_closed_form(self, method: str) -> NotImplementedError:
        """Return the error that says so and names the alternative."""
        owner, instead = f"{type(self).__name__}.{method}", ALTERNATIVES[method]
        return NotImplementedError(f"{owner}: no closed form for {self._described()}; use {instead}")

    def _described(self) -> str:
        """Return what of this operator has no closed form, in words."""
        return "this kind of operator"

    # Functions of the eigenvalues, where the hook `_spectral_function` has them

    def sqrtm(self) -> LinearOperator:
        """Return the principal square root, an operator R with ``R @ R = A``.

        Returns
        -------
        LinearOperator
            Real whenever a real square root in the family exists: a negative eigenvalue on which a real circulant's
            spectrum folds back on itself (frequency zero, and n/2 for even n) makes the root complex; other negative
            eigenvalues come in pairs and get conjugate roots. Eigenvalues negative only by rounding count as zero.

        Raises
        ------
        ValueError
            If the operator is not square.

        Notes
        -----
        Whether the root of a real operator is real depends on values, so under ``jit`` make the operator complex first.
        `logm` and `fractional_matrix_power` follow the same rule.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> C = sm.Circulant(np.array([2.0, -1.0, 0.0, -1.0]))  # periodic second difference, singular
        >>> R = C.sqrtm()
        >>> bool(np.allclose((R @ R).to_dense(), C.to_dense())), R.dtype
        (True, dtype('float64'))
        """
        op, xp = self._to_working_precision("sqrtm", square=True)
        function = SpectralFunction("sqrtm", xp.sqrt, needs_nonnegative=True)
        return self._from_working_precision(op._spectral_function(function, xp), xp)

    def expm(self) -> LinearOperator:
        """Return the matrix exponential.

        Returns
        -------
        LinearOperator
            Real for a real operator.

        Raises
        ------
        ValueError
            If the operator is not square.
        """
        op, xp = self._to_working_precision("expm", square=True)
        function = SpectralFunction("expm", xp.exp)
        return self._from_working_precision(op._spectral_function(function, xp), xp)

    def logm(self) -> LinearOperator:
        """Return the principal matrix logarithm, an operator L with ``L.expm() = A``.

        Returns
        -------
        LinearOperator
            Real by the rule of `sqrtm`.

        Raises
        ------
        ValueError
            If the operator is not square.
        numpy.linalg.LinAlgError
            If an eigenvalue is zero, of NumPy arrays; infinities or NaN for others.
        """
        op, xp = self._to_working_precision("logm", square=True)
        function = SpectralFunction("logm", xp.log, needs_nonnegative=True, needs_nonzero=True)
        return self._from_working_precision(op._spectral_function(function, xp), xp)

    def fractional_matrix_power(self, p: float) -> LinearOperator:
        """Return the matrix power ``A^p`` for any real exponent.

        Parameters
        ----------
        p : float
            The exponent, of any real type; an integer, however large, gives the repeated product, other exponents the
            principal power.

        Returns
        -------
        LinearOperator
            Real for an integer `p`, else by the rule of `sqrtm`.

        Raises
        ------
        TypeError
            If `p` is not a finite real number.
        ValueError
            If the operator is not square.
        numpy.linalg.LinAlgError
            If `p` is negative and an eigenvalue is zero, of NumPy arrays; infinities or NaN for others.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> shift = sm.Circulant(np.array([0.0, 1.0, 0.0, 0.0]))
        >>> shift.fractional_matrix_power(3).to_dense()[:, 0].round(12) + 0.0
        array([0., 0., 0., 1.])
        """
        if (number := _exponent(p)) is None:
            owner = f"{type(self).__name__}.fractional_matrix_power"
            raise ArgumentTypeError(owner, "p", f"must be a finite real number, got {p!r}")
        op, xp = self._to_working_precision("fractional_matrix_power", square=True)
        whole = isinstance(number, int) or number.is_integer()
        function = SpectralFunction(
            "fractional_matrix_power",
            lambda values: integer_power(values, int(number), xp) if whole else values**number,
            needs_nonnegative=not whole,
            needs_nonzero=number < 0,
        )
        return self._from_working_precision(op._spectral_function(function, xp), xp)

    def inv(self) -> LinearOperator:
        """Return the inverse as an operator.

        Returns
        -------
        LinearOperator
            Of the same family wherever that is closed under inversion: ``1 / spectrum`` for a circulant, the inverse of
            one small matrix per frequency for a square block circulant, the inverses of the factors in reverse order
            for a product.

        Raises
        ------
        ValueError
            If the operator is not square.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> C = sm.Circulant(np.array([4.0, 1.0, 0.0, 1.0]))
        >>> (C @ C.inv()).to_dense().round(12) + 0.0
        array([[1., 0., 0., 0.],
               [0., 1., 0., 0.],
               [0., 0., 1., 0.],
               [0., 0., 0., 1.]])
        """
        op, xp = self._to_working_precision("inv", square=True)
        return self._from_working_precision(op._inv(xp), xp)

    def solve(self, b: ArrayLike, /) -> Array:
        """Return x with ``self @ x = b``.

        Parameters
        ----------
        b : array, shape (n,) or (..., n, k)
            One right-hand side, or right-hand sides in columns, as for ``@`` and `numpy.linalg.solve`.

        Returns
        -------
        array, shape (..., n) or (..., n, k)
            The solutions, of the common dtype of operator and right-hand side.

        Raises
        ------
        ValueError
            If the operator is not square, or `b` has another length.
        TypeError
            If `b` belongs to another array library than the operator.
        numpy.linalg.LinAlgError
            If the operator is singular, of NumPy arrays; infinities or NaN for others.

        See Also
        --------
        LinearOperator.inv_matvec : For vectors along the last axis.
        structmat.solve : By iteration, where there is no closed form.

        Notes
        -----
        O(n log n) for a circulant: two transforms and a division when the spectrum is known. No inverse is formed.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> C = sm.Circulant(np.array([3.0, 1.0, 0.0]))
        >>> C.solve(C @ np.array([1.0, 2.0, 3.0])).round(12)
        array([1., 2., 3.])
        >>> B = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])  # two right-hand sides
        >>> bool(np.allclose(C @ C.solve(B), B))
        True
        """
        is_one = b.ndim == 1 if type(b) is np.ndarray else is_vector(b)
        return self._solution(b, "solve", -1 if is_one else -2)

    def inv_matvec(self, b: ArrayLike, /) -> Array:
        """Return x with ``matvec(x) = b``, along the last axis.

        Parameters
        ----------
        b : array, shape (..., n)
            One right-hand side, or any batch of them along the last axis, as for `matvec`.

        Returns
        -------
        array, shape (..., n)
            The solutions, of the common dtype of operator and right-hand side.

        Raises
        ------
        ValueError, TypeError
            As for `solve`.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.Diagonal(np.array([1.0, 2.0])).inv_matvec(np.ones((3, 2))).shape
        (3, 2)
        """
        return self._solution(b, "inv_matvec", -1)

    def _solution(self, b: ArrayLike, method: str, axis: int) -> Array:
        rows, cols = self.shape
        if rows != cols:
            self._to_working_precision(method, square=True)
        op, right, xp, dtype = self._operand(b, method, "b", rows, axis)
        x = op._solve(right, xp) if axis == -1 else op._in_columns(lambda A, v: A._solve(v, xp), right, xp)
        return x if x.dtype == dtype else cast_back(x, dtype, xp)

    def pinv(self, *, rtol: float | None = None) -> LinearOperator:
        """Return the Moore-Penrose pseudo-inverse as an operator.

        Parameters
        ----------
        rtol : float, optional
            Singular values at or below `rtol` times the largest finite one count as zero. Default: what rounding may
            leave of a zero, ``4 * eps * log2(2 n)`` for a circulant of size n.

        Returns
        -------
        LinearOperator
            Of shape ``(cols, rows)``. NaN stays NaN, where the library's singular value decomposition does not refuse
            it.

        Raises
        ------
        ValueError
            If `rtol` is negative or not finite.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.Diagonal(np.array([2.0, 0.0])).pinv().to_dense()
        array([[0.5, 0. ],
               [0. , 0. ]])
        """
        op, xp = self._to_working_precision("pinv")
        return self._from_working_precision(op._pinv(self._cutoff(rtol, "pinv", xp), xp), xp)

    def lstsq(self, b: ArrayLike, /, *, rtol: float | None = None, damp: float = 0.0) -> Array:
        """Return the x of least norm among those that minimise ``norm(self @ x - b)``.

        With `damp` it minimises ``norm(self @ x - b)^2 + damp^2 norm(x)^2``, as Tikhonov regularisation and SciPy's
        `lsqr` do.

        Parameters
        ----------
        b : array, shape (rows,) or (..., rows, k)
            One right-hand side, or right-hand sides in columns, as for ``@`` and `numpy.linalg.lstsq`.
        rtol : float, optional
            Cut-off of singular values, as for `pinv`. With `damp` none is cut off.
        damp : float, default 0.0
            Weight of the norm of the solution, in units of the singular values.

        Returns
        -------
        array, shape (..., cols) or (..., cols, k)
            The solutions.

        Raises
        ------
        ValueError
            If `b` has another length, `rtol` or `damp` is negative or not finite, or both are given.

        See Also
        --------
        structmat.lstsq : By iteration, where there is no closed form.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> D = sm.Diagonal(np.array([1.0, 0.1, 0.0]))
        >>> D.lstsq(np.ones(3), damp=0.1).round(2)
        array([0.99, 5.  , 0.  ])
        """
        axis = -1 if is_vector(b) else -2
        op, right, xp, dtype = self._operand(b, "lstsq", "b", self.shape[0], axis)
        if not op._has_pinv():
            raise self._no_closed_form("lstsq")
        if damp := non_negative(damp, owner := f"{type(self).__name__}.lstsq", "damp"):
            if rtol is not None:
                raise ArgumentValueError(owner, "rtol", "must be None with damp, which cuts no singular value off")
            inverse = op._damped_pinv(damp, xp)
        else:
            inverse = op._pinv(self._cutoff(rtol, "lstsq", xp), xp)
        return cast_back(inverse._matvec(right, xp) if axis == -1 else inverse._matmat(right, xp), dtype, xp)

    def eigvals(self) -> Array:
        """Return the eigenvalues.

        Returns
        -------
        array, shape (..., n)
            Always complex. Those of a circulant are in the order of the discrete Fourier transform, those of a diagonal
            matrix in the order of its entries, and those of a block circulant have the frequency as the fastest index.

        Raises
        ------
        ValueError
            If the operator is not square.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.Circulant(np.array([2.0, 1.0])).eigvals()
        array([3.+0.j, 1.+0.j])
        """
        op, xp = self._to_working_precision("eigvals", square=True)
        return copied(op._eigvals(xp), xp)

    def eig(self) -> EigResult:
        """Return eigenvalues and eigenvectors, ``A = V diag(w) V^-1``.

        Returns
        -------
        eigenvalues : array, shape (..., n)
            Complex, in the order of `eigvals`.
        eigenvectors : LinearOperator
            V, whose columns they are (the unitary discrete Fourier transform for a circulant), so that nothing of size
            n^2 is stored; ``V.to_dense()`` writes them out.

        Raises
        ------
        ValueError
            If the operator is not square.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> C = sm.Circulant(np.array([1.0, 2.0, 3.0]))
        >>> w, V = C.eig()
        >>> bool(np.allclose(C.to_dense() @ V.to_dense(), V.to_dense() * w))
        True
        """
        op, xp = self._to_working_precision("eig", square=True)
        values, vectors = op._eig(xp)
        return EigResult(copied(values, xp), vectors)

    def svdvals(self) -> Array:
        """Return the singular values, largest first.

        Returns
        -------
        array, shape (..., min(rows, cols))
            Real and non-negative.
        """
        op, xp = self._to_working_precision("svdvals")
        return self._from_working_precision(xp.flip(xp.sort(op._svdvals(xp), axis=-1), axis=-1), xp)

    def det(self) -> Array:
        """Return the determinant.

        Returns
        -------
        array, shape of the batch
            Real for a real operator. It overflows or underflows easily: prefer `slogdet` for large n.

        Raises
        ------
        ValueError
            If the operator is not square.

        Notes
        -----
        At a singular matrix the gradient is made of its minors; for `Toeplitz` and `Hankel` it is NaN there, as their
        derivatives come from the inverse.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> float(sm.Circulant(np.array([2.0, 1.0])).det())
        3.0
        """
        op, xp = self._to_working_precision("det", square=True)
        return self._from_working_precision(op._det(xp), xp)

    def slogdet(self) -> SlogdetResult:
        """Return sign and logarithm of the determinant.

        Returns
        -------
        sign : array, shape (...)
            Of modulus one, or zero for a singular matrix.
        logabsdet : array, shape (...)
            Natural logarithm of the absolute value, real.

        Raises
        ------
        ValueError
            If the operator is not square.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sign, logabsdet = sm.Diagonal(np.array([1e-200, -1e-200])).slogdet()
        >>> float(sign), float(logabsdet.round(3))
        (-1.0, -921.034)
        """
        op, xp = self._to_working_precision("slogdet", square=True)
        sign, log = op._slogdet(xp)
        return SlogdetResult(self._from_working_precision(sign, xp), self._from_working_precision(log, xp))

    def trace(self) -> Array:
        """Return the sum of the diagonal.

        Returns
        -------
        array, shape of the batch
            A scalar array for one matrix.
        """
        op, xp = self._to_working_precision("trace")
        return self._from_working_precision(xp.sum(op._diagonal("trace", xp), axis=-1), xp)

    def diagonal(self) -> Array:
        """Return the main diagonal.

        Returns
        -------
        array, shape (..., min(rows, cols))
            The entries ``A[i, i]``.
        """
        op, xp = self._to_working_precision("diagonal")
        return copied(self._from_working_precision(op._diagonal("diagonal", xp), xp), xp)

    def norm(self, ord: NormOrder = "fro") -> Array:
        """Return a matrix norm.

        Parameters
        ----------
        ord : {"fro", "nuc", 1, 2, inf}, default "fro"
            Frobenius norm, nuclear norm (sum of singular values), largest absolute column sum, largest singular value,
            largest absolute row sum.

        Returns
        -------
        array, shape of the batch
            Real and non-negative.

        Raises
        ------
        ValueError
            If `ord` is none of these.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> C = sm.Circulant(np.array([3.0, 0.0, 4.0]))
        >>> [round(float(C.norm(p)), 12) for p in (1, 2, np.inf)]
        [7.0, 7.0, 7.0]
        """
        if ord not in ("fro", "nuc", 1, 2, math.inf):  # a tuple: it may have no hash
            text = f'must be "fro", "nuc", 1, 2 or inf, got {ord!r}'
            raise ArgumentValueError(f"{type(self).__name__}.norm", "ord", text)
        op, xp = self._to_working_precision("norm")
        return self._from_working_precision(op._norm(ord, xp), xp)

    def cond(self) -> Array:
        """Return the condition number in the 2-norm: the largest singular value over the smallest.

        Returns
        -------
        array, shape of the batch
            At least one; infinite for a singular matrix, which may be rectangular.
        """
        op, xp = self._to_working_precision("cond")
        values = op._singular_values("cond", xp)
        largest, smallest = xp.max(values, axis=-1), xp.min(values, axis=-1)
        singular = (smallest == 0.0) & ~xp.isnan(largest)
        found = largest / xp.where(singular, xp.ones_like(smallest), smallest)
        return self._from_working_precision(xp.where(singular, xp.inf * xp.ones_like(found), found), xp)

    def rank(self, *, rtol: float | None = None) -> Array:
        """Return the numerical rank: how many singular values exceed `rtol` times the largest.

        Parameters
        ----------
        rtol : float, optional
            Relative cut-off, as for `pinv`.

        Returns
        -------
        array of integers, shape of the batch
            The rank; -1 for a matrix with NaN, except in NumPy.

        Raises
        ------
        numpy.linalg.LinAlgError
            If a NumPy operator holds NaN.
        ValueError
            If `rtol` is negative or not finite.
        """
        op, xp = self._to_working_precision("rank")
        values = op._singular_values("rank", xp)
        unknown = xp.any(xp.isnan(values), axis=-1)
        if can_raise_for_values(xp) and bool(xp.any(unknown)):
            raise np.linalg.LinAlgError(f"{type(self).__name__}.rank: the matrix holds NaN")
        above = ~negligible(values, self._cutoff(rtol, "rank", xp), xp)
        count = xp.sum(xp.astype(above, xp.int32), axis=-1)
        return xp.where(unknown, xp.full_like(count, -1), count)


class Planned(LinearOperator):
    """An operator with the hook `_plan` in place of `_matvec`."""

    @abstractmethod
    def _plan(self, xp: Namespace) -> Plan:
        """What computes the products."""

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        return self._plan(xp).apply(x, xp)
