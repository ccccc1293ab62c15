"""Linear algebra in closed form: checked public methods over one hook each.

An operator that has a closed form overrides the hook; for any other the hook raises an error that names the dense or
iterative alternative. Nothing here builds a dense matrix.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from structmat._arrays.arrays import precision_of, restored
from structmat.operators._functions import MatrixFunctions

if TYPE_CHECKING:
    from structmat._arrays.typing import Array, ArrayLike, Namespace
    from structmat.operators._base import LinearOperator

__all__ = ["ClosedForms", "EigResult", "NormOrder", "SlogdetResult"]

NormOrder: TypeAlias = Literal["fro", "nuc", 1, 2] | float
"""A matrix norm: Frobenius, nuclear, largest column sum, largest singular value; infinity is the largest row sum."""


class EigResult(NamedTuple):
    """Eigenvalues and eigenvectors, ``A = V diag(w) V^-1``."""

    eigenvalues: Array
    """Complex eigenvalues, shape ``(..., n)``."""
    eigenvectors: LinearOperator
    """The operator V whose columns are the eigenvectors; ``V.to_dense()`` writes them out."""


class SlogdetResult(NamedTuple):
    """A determinant as ``sign * exp(logabsdet)``."""

    sign: Array
    """A number of modulus one, or zero for a singular matrix; shape of the batch."""
    logabsdet: Array
    """Natural logarithm of the absolute value, real; shape of the batch."""


class ClosedForms(MatrixFunctions):
    """The linear algebra of `structmat.LinearOperator`; see there."""

    __slots__ = ()

    # Public methods: check, widen half precision, call the hook, cast back.

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
        numpy.linalg.LinAlgError
            If a NumPy operator is singular to working precision. torch and JAX return infinities or NaN instead, since
            a check of values would wait for the device and break ``jit``.
        NotImplementedError
            If there is no closed form; the message names the alternative.

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
        op, xp = self._opened("inv", square=True)
        return self._closed(op._inv(xp), xp)

    def solve(self, b: ArrayLike) -> Array:
        """Return x with ``matvec(x) = b``.

        Parameters
        ----------
        b : array, shape (..., n)
            Right-hand sides along the last axis, leading axes are batch: the axis rule of `matvec`. For right-hand
            sides in columns write ``op.inv() @ B``.

        Returns
        -------
        array, shape (..., n)
            The solutions, of the common dtype of operator and right-hand side.

        Raises
        ------
        ValueError
            If the operator is not square, or `b` has another length.
        numpy.linalg.LinAlgError
            As for `inv`.
        NotImplementedError
            If there is no closed form; the message names the alternative.

        Notes
        -----
        O(n log n) for a circulant: two transforms and a division when the spectrum is known. No inverse is formed.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> C = sm.Circulant(np.array([3.0, 1.0, 0.0]))
        >>> C.solve(C.matvec(np.array([1.0, 2.0, 3.0]))).round(12)
        array([1., 2., 3.])
        """
        self._opened("solve", square=True)
        op, operand, xp, dtype = self._operand(b, "solve: b", self.shape[0])
        x = op._solve(operand, xp)
        return restored(x, dtype, xp)

    def pinv(self, *, rtol: float | None = None) -> LinearOperator:
        """Return the Moore-Penrose pseudo-inverse as an operator.

        Parameters
        ----------
        rtol : float, optional
            Singular values at or below `rtol` times the largest count as zero. Default: the larger side times the
            machine epsilon of the dtype.

        Returns
        -------
        LinearOperator
            Of shape ``(cols, rows)``.

        Raises
        ------
        NotImplementedError
            If there is no closed form (products, sums, cropped block circulants); the message names the alternative.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.Diagonal(np.array([2.0, 0.0])).pinv().to_dense()
        array([[0.5, 0. ],
               [0. , 0. ]])
        """
        op, xp = self._opened("pinv")
        return self._closed(op._pinv(op._rtol(rtol, xp), xp), xp)

    def lstsq(self, b: ArrayLike, *, rtol: float | None = None) -> Array:
        """Return the x of least norm among those that minimise ``norm(matvec(x) - b)``.

        Parameters
        ----------
        b : array, shape (..., rows)
            Right-hand sides along the last axis.
        rtol : float, optional
            Cut-off of singular values, as for `pinv`.

        Returns
        -------
        array, shape (..., cols)
            The solutions.

        Raises
        ------
        ValueError
            If `b` has another length.
        NotImplementedError
            If there is no closed form; the message names the alternative.
        """
        op, operand, xp, dtype = self._operand(b, "lstsq: b", self.shape[0])
        if not op._has_pinv():
            raise self._no_closed_form("lstsq")
        x = op._pinv(op._rtol(rtol, xp), xp)._matvec(operand, xp)
        return restored(x, dtype, xp)

    def eigvals(self) -> Array:
        """Return the eigenvalues.

        Returns
        -------
        array, shape (..., n)
            Always complex, as they are in general for real matrices too. A circulant's stand in the order of the
            discrete Fourier transform, a diagonal matrix's in the order of its entries, a block circulant's with the
            frequency running fastest.

        Raises
        ------
        ValueError
            If the operator is not square.
        NotImplementedError
            If there is no closed form; the message names the alternative.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.Circulant(np.array([2.0, 1.0])).eigvals()
        array([3.+0.j, 1.+0.j])
        """
        op, xp = self._opened("eigvals", square=True)
        return op._eigvals(xp)

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
        NotImplementedError
            If there is no closed form; the message names the alternative.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> C = sm.Circulant(np.array([1.0, 2.0, 3.0]))
        >>> w, V = C.eig()
        >>> bool(np.allclose(C.to_dense() @ V.to_dense(), V.to_dense() * w))
        True
        """
        op, xp = self._opened("eig", square=True)
        return EigResult(*op._eig(xp))

    def svdvals(self) -> Array:
        """Return the singular values, largest first.

        Returns
        -------
        array, shape (..., min(rows, cols))
            Real and non-negative.

        Raises
        ------
        NotImplementedError
            If there is no closed form; the message names the alternative.
        """
        op, xp = self._opened("svdvals")
        return self._closed(xp.sort(op._svdvals(xp), axis=-1, descending=True), xp)

    def det(self) -> Array:
        """Return the determinant.

        Returns
        -------
        array, shape of the batch
            Real for a real operator. It over- or underflows easily: prefer `slogdet` for large n.

        Raises
        ------
        ValueError
            If the operator is not square.
        NotImplementedError
            If there is no closed form; the message names the alternative.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> float(sm.Circulant(np.array([2.0, 1.0])).det())
        3.0
        """
        op, xp = self._opened("det", square=True)
        return self._closed(xp.prod(op._determinant_factors("det", xp), axis=-1), xp)

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
        NotImplementedError
            If there is no closed form; the message names the alternative.
        """
        op, xp = self._opened("slogdet", square=True)
        factors = op._determinant_factors("slogdet", xp)
        sign = xp.prod(xp.sign(factors), axis=-1)
        size = xp.abs(factors)
        # log(0) = -inf is the right answer; NumPy would also warn.
        log = xp.where(size > 0, xp.log(xp.where(size > 0, size, xp.ones_like(size))), -xp.inf * xp.ones_like(size))
        return SlogdetResult(self._closed(sign, xp), self._closed(xp.sum(log, axis=-1), xp))

    def trace(self) -> Array:
        """Return the sum of the diagonal.

        Returns
        -------
        array, shape of the batch
            A scalar array for one matrix.

        Raises
        ------
        NotImplementedError
            If there is no closed form; the message names the alternative.
        """
        op, xp = self._opened("trace")
        return self._closed(xp.sum(op._diagonal("trace", xp), axis=-1), xp)

    def diagonal(self) -> Array:
        """Return the main diagonal.

        Returns
        -------
        array, shape (..., min(rows, cols))
            The entries ``A[i, i]``.

        Raises
        ------
        NotImplementedError
            If there is no closed form; the message names the alternative.
        """
        op, xp = self._opened("diagonal")
        return self._closed(op._diagonal("diagonal", xp), xp)

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
        NotImplementedError
            If there is no closed form; the message names the alternative.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> C = sm.Circulant(np.array([3.0, 0.0, 4.0]))
        >>> [round(float(C.norm(p)), 12) for p in (1, 2, np.inf)]
        [7.0, 7.0, 7.0]
        """
        if ord not in {"fro", "nuc", 1, 2, math.inf}:
            raise ValueError(f'{type(self).__name__}.norm: ord must be "fro", "nuc", 1, 2 or inf, got {ord!r}')
        op, xp = self._opened("norm")
        return self._closed(op._norm(ord, xp), xp)

    def cond(self, p: NormOrder = 2) -> Array:
        """Return the condition number ``norm(A, p) * norm(A^-1, p)``.

        Parameters
        ----------
        p : {2, "fro", "nuc", 1, inf}, default 2
            The norm. For 2 the ratio of the largest to the smallest singular value, so a rectangle is welcome and a
            singular matrix has an infinite condition number.

        Returns
        -------
        array, shape of the batch
            At least one.

        Raises
        ------
        ValueError
            If `p` is no norm of `norm`, or the operator is not square for a norm other than 2.
        NotImplementedError
            If there is no closed form; the message names the alternative.
        """
        if p != 2:
            return self.norm(p) * self.inv().norm(p)
        values = self.svdvals()
        xp = self._own_namespace()
        smallest = values[..., -1]
        safe = xp.where(smallest > 0, smallest, xp.ones_like(smallest))
        return xp.where(smallest > 0, values[..., 0] / safe, xp.inf * xp.ones_like(smallest))

    def rank(self, *, rtol: float | None = None) -> Array:
        """Return the numerical rank: how many singular values exceed `rtol` times the largest.

        Parameters
        ----------
        rtol : float, optional
            Relative cut-off. Default: the larger side times the machine epsilon of the dtype.

        Returns
        -------
        array of integers, shape of the batch
            The rank.

        Raises
        ------
        NotImplementedError
            If there is no closed form; the message names the alternative.
        """
        op, xp = self._opened("rank")
        values = op._svdvals(xp)
        above = values > op._rtol(rtol, xp) * xp.max(values, axis=-1, keepdims=True)
        return xp.sum(xp.astype(above, xp.int32), axis=-1)

    # Hooks: unchecked mathematics in working precision, overridden by operators that have the closed form.

    def _inv(self, xp: Namespace) -> LinearOperator:
        """Inverse."""
        raise self._no_closed_form("inv")

    def _solve(self, b: Array, xp: Namespace) -> Array:
        """Solution along the last axis."""
        raise self._no_closed_form("solve")

    def _pinv(self, rtol: float, xp: Namespace) -> LinearOperator:
        """Pseudo-inverse."""
        raise self._no_closed_form("pinv")

    def _has_pinv(self) -> bool:
        """Tell whether `_pinv` has a closed form."""
        return type(self)._pinv is not ClosedForms._pinv

    def _eigvals(self, xp: Namespace) -> Array:
        """Eigenvalues, complex."""
        raise self._no_closed_form("eigvals")

    def _eig(self, xp: Namespace) -> tuple[Array, LinearOperator]:
        """Eigenvalues and the operator of eigenvectors."""
        raise self._no_closed_form("eig")

    def _svdvals(self, xp: Namespace) -> Array:
        """Singular values in any order."""
        raise self._no_closed_form("svdvals")

    def _determinant_factors(self, method: str, xp: Namespace) -> Array:
        """Numbers along the last axis whose product is the determinant."""
        raise self._no_closed_form(method)

    def _diagonal(self, method: str, xp: Namespace) -> Array:
        """Main diagonal."""
        raise self._no_closed_form(method)

    def _modulus(self, power: int, xp: Namespace) -> LinearOperator:
        """Operator whose entries are ``|A[i, j]| ** power``."""
        raise self._no_closed_form("norm")

    def _norm(self, ord: NormOrder, xp: Namespace) -> Array:
        """Norm, from singular values or from row and column sums of the moduli."""
        if ord in {2, "nuc"}:
            values = self._svdvals(xp)
            return xp.max(values, axis=-1) if ord == 2 else xp.sum(values, axis=-1)
        moduli = self._modulus(2 if ord == "fro" else 1, xp)
        if ord == 1:
            moduli = moduli._transpose()
        sums = moduli._row_sums(xp)
        return xp.sqrt(xp.sum(sums, axis=-1)) if ord == "fro" else xp.max(sums, axis=-1)

    def _rtol(self, rtol: float | None, xp: Namespace) -> float:
        """Return the relative cut-off of singular values."""
        if rtol is not None:
            return rtol
        return max(self.shape) * float(xp.finfo(xp.float64 if self.dtype is None else precision_of(self.dtype, xp)).eps)
