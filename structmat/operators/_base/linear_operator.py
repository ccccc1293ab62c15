"""The base class of all operators: linear algebra in closed form, on top of products and arithmetic.

Public methods check, bring half precision to single, and call one hook each. An operator that has a closed form
overrides the hook; for any other the hook raises an error that names the dense or iterative alternative. Nothing here
builds a dense matrix.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from structmat._arrays import binary_unit, can_raise_for_values, copied, filled, is_vector, negligible, restored
from structmat._arrays.typing import Array, ArrayLike
from structmat.operators._base.matrix_functions import MatrixFunctions
from structmat.operators._base.spectral_functions import (
    NormOrder,
    ratio,
)

__all__ = ["EigResult", "LinearOperator", "SlogdetResult"]


class EigResult(NamedTuple):
    """Eigenvalues and eigenvectors, ``A = V diag(w) V^-1``.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> w, V = sm.Circulant(np.array([2.0, 1.0, 0.0, 1.0])).eig()
    >>> w.real.round(12), V.shape
    (array([4., 2., 0., 2.]), (4, 4))
    """

    eigenvalues: Array
    """Complex eigenvalues, shape ``(..., n)``."""
    eigenvectors: LinearOperator
    """The operator V whose columns are the eigenvectors; ``V.to_dense()`` writes them out."""


class SlogdetResult(NamedTuple):
    """A determinant as ``sign * exp(logabsdet)``.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> sign, logabsdet = sm.Diagonal(np.array([1e-200, -1e-200])).slogdet()
    >>> float(sign), float(logabsdet.round(3))
    (-1.0, -921.034)
    """

    sign: Array
    """A number of modulus one, or zero for a singular matrix; shape of the batch."""
    logabsdet: Array
    """Natural logarithm of the absolute value, real; shape of the batch."""


class LinearOperator(MatrixFunctions["LinearOperator"]):
    """A matrix given by its products.

    The axis rule: `matvec` acts on the last axis of its argument; leading axes are batch axes and broadcast against
    those of the operator's parameters. ``op @ x`` follows `numpy.matmul`: one axis means a vector, otherwise the
    columns of the last two axes. dtype and device follow the inputs; half precision is computed in float32 and cast
    back.

    A method for which an operator has no closed form raises `NotImplementedError`, and the message names an
    alternative. Where a NumPy operator is singular to working precision, `inv`, `solve` and functions with a pole at
    zero raise `numpy.linalg.LinAlgError`; torch and JAX return infinities or NaN instead, since a check of values would
    wait for the device and break ``jit``.

    Subclasses are frozen, slotted dataclasses with ``eq=False``. They supply `shape` and the hooks ``_matvec``,
    ``_transpose`` and ``_conj``, and say in ``_core_axes`` which fields are parameters; the other hooks have a default.

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

    __slots__ = ()

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

    def solve(self, b: ArrayLike, /, *, out: Any = None) -> Array:
        """Return x with ``self @ x = b``.

        Parameters
        ----------
        b : array, shape (n,) or (..., n, k)
            One right-hand side, or right-hand sides in columns, as for ``@`` and `numpy.linalg.solve`.
        out : numpy.ndarray, optional
            Array for the result, of its shape and dtype; NumPy only.

        Returns
        -------
        array, shape (..., n) or (..., n, k)
            The solutions, of the common dtype of operator and right-hand side.

        Raises
        ------
        ValueError
            If the operator is not square, `b` has another length, or `out` does not fit.
        TypeError
            If `b` belongs to another array library than the operator, or `out` is no array of NumPy.

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
        return self._solution(b, "solve", -1 if is_vector(b) else -2, out)

    def inv_matvec(self, b: ArrayLike, /, *, out: Any = None) -> Array:
        """Return x with ``matvec(x) = b``, along the last axis.

        Parameters
        ----------
        b : array, shape (..., n)
            One right-hand side, or any batch of them along the last axis, as for `matvec`.
        out : numpy.ndarray, optional
            Array for the result, of its shape and dtype; NumPy only.

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
        return self._solution(b, "inv_matvec", -1, out)

    def _solution(self, b: ArrayLike, method: str, axis: int, out: Any) -> Array:
        self._to_working_precision(method, square=True)
        op, right, xp, dtype = self._operand(b, method, "b", self.shape[0], axis)
        x = op._solve(right, xp) if axis == -1 else op._in_columns(lambda A, v: A._solve(v, xp), right, xp)
        x = restored(x, dtype, xp)
        return x if out is None else filled(out, x, f"{type(self).__name__}.{method}")

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

    def lstsq(self, b: ArrayLike, /, *, rtol: float | None = None) -> Array:
        """Return the x of least norm among those that minimise ``norm(self @ x - b)``.

        Parameters
        ----------
        b : array, shape (rows,) or (..., rows, k)
            One right-hand side, or right-hand sides in columns, as for ``@`` and `numpy.linalg.lstsq`.
        rtol : float, optional
            Cut-off of singular values, as for `pinv`.

        Returns
        -------
        array, shape (..., cols) or (..., cols, k)
            The solutions.

        Raises
        ------
        ValueError
            If `b` has another length, or `rtol` is negative or not finite.

        See Also
        --------
        LinearOperator.pinv_matvec : For vectors along the last axis.
        """
        return self._least_squares(b, "lstsq", -1 if is_vector(b) else -2, rtol)

    def pinv_matvec(self, b: ArrayLike, /, *, rtol: float | None = None) -> Array:
        """Return the x of least norm among those that minimise ``norm(matvec(x) - b)``, along the last axis.

        Parameters
        ----------
        b : array, shape (..., rows)
            One right-hand side, or any batch of them along the last axis, as for `matvec`.
        rtol : float, optional
            Cut-off of singular values, as for `pinv`.

        Returns
        -------
        array, shape (..., cols)
            The solutions.

        Raises
        ------
        ValueError
            As for `lstsq`.
        """
        return self._least_squares(b, "pinv_matvec", -1, rtol)

    def _least_squares(self, b: ArrayLike, method: str, axis: int, rtol: float | None) -> Array:
        op, right, xp, dtype = self._operand(b, method, "b", self.shape[0], axis)
        if not op._has_pinv():
            raise self._no_closed_form(method)
        inverse = op._pinv(self._cutoff(rtol, method, xp), xp)
        return restored(inverse._matvec(right, xp) if axis == -1 else inverse._matmat(right, xp), dtype, xp)

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
        EigResult
            The eigenvalues in the order of `eigvals`, and the eigenvectors as an operator V (the unitary discrete
            Fourier transform for a circulant), so that nothing of size n^2 is stored.

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
        return self._from_working_precision(xp.sort(op._svdvals(xp), axis=-1, descending=True), xp)

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
        SlogdetResult
            ``sign`` of modulus one (zero if singular) and the real ``logabsdet``.

        Raises
        ------
        ValueError
            If the operator is not square.
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
        self._check_order(ord, "norm", "ord")
        op, xp = self._to_working_precision("norm")
        return self._from_working_precision(op._norm(ord, xp), xp)

    def cond(self, p: NormOrder = 2) -> Array:
        """Return the condition number ``norm(A, p) * norm(A^-1, p)``.

        Parameters
        ----------
        p : {2, "fro", "nuc", 1, inf}, default 2
            The norm. For 2 the ratio of the largest to the smallest singular value, so the matrix may be rectangular,
            and a singular matrix has an infinite condition number in every norm.

        Returns
        -------
        array, shape of the batch
            At least one.

        Raises
        ------
        ValueError
            If `p` is not a norm of `norm`, or the operator is not square for a norm other than 2.
        """
        self._check_order(p, "cond", "p")
        op, xp = self._to_working_precision("cond", square=p != 2)
        if p == 2:
            values = xp.sort(op._singular_values("cond", xp), axis=-1, descending=True)
            return ratio(self._from_working_precision(values, xp), xp)
        if p == "nuc":
            values = op._singular_values("cond", xp)
            values = values / binary_unit(values, xp)  # as reciprocals may overflow
            inverse = 1 / xp.where(values <= 0.0, xp.ones_like(values), values)
            value = xp.sum(values, axis=-1) * xp.sum(inverse, axis=-1)
            singular = xp.any(values <= 0.0, axis=-1) & ~xp.isnan(value)
            return self._from_working_precision(xp.where(singular, xp.inf * xp.ones_like(value), value), xp)
        try:
            size = self.norm(p)
            unit = binary_unit(size[..., None], xp)[..., 0]  # as the entries of the inverse may overflow
            value = size / unit * (self / unit).inv().norm(p)
        except NotImplementedError:
            raise self._no_closed_form("cond") from None
        except np.linalg.LinAlgError:  # of a NumPy array, whose other members have a number
            cutoff = op._rounding(xp)
            regular = self.cond() < 1 / cutoff
            return xp.where(regular, size * self.pinv(rtol=cutoff).norm(p), xp.where(xp.isnan(size), size, xp.inf))
        return xp.where(xp.isnan(value) & ~xp.isnan(size), xp.inf * xp.ones_like(value), value)

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
