"""The hooks: what a kind of operators tells, unchecked mathematics on arrays of one library.

Only ``_matvec`` and ``_transpose`` must be given, beside the property ``shape``. All others have a default here, which
is an error where nothing can be said in general. The public methods of `LinearOperator` check their arguments, bring
operator and operands to the precision of the computation, call the hooks, and cast the results back.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import wraps
from inspect import isfunction
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, TypeVar

from structmat._arrays.arithmetic import conjugate
from structmat._arrays.dtypes import complex_partner, is_complex
from structmat._arrays.libraries import device_of, rules_of
from structmat._arrays.typing import Array, Device, DType, Namespace
from structmat._fourier.plans import Plan
from structmat._fourier.products import Products
from structmat.operators._base.closed_forms import NoClosedFormError
from structmat.operators._base.determinants import product, sign_and_log
from structmat.operators._base.near import Near
from structmat.operators._base.spectral_functions import SpectralFunction, spectral_rounding
from structmat.operators._base.storage import Stored

Operator: TypeAlias = Any
"""A `LinearOperator`, which is made of these hooks and so stands in a file of its own."""

NormOrder: TypeAlias = Literal["fro", "nuc", 1, 2] | float
"""A matrix norm: Frobenius, nuclear, largest column sum, largest singular value; infinity is the largest row sum."""

_MOST_ROWS_WRITTEN_OUT = 4096
"""The most rows of a matrix that is written out for its entries."""


class Context(NamedTuple):
    """Library, dtype and device of a dense matrix, for operators without arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.operators import Context
    >>> Context(np, np.float32, "cpu").dtype is np.float32
    True
    """

    xp: Namespace
    dtype: DType
    device: Device


class Hooks(Stored):
    """The hooks of an operator, each with its default."""

    _prepares_matrix: ClassVar[bool] = True
    """Whether a prepared operator has its dense matrix too where products with that are faster, as those of small ones.

    Not so for sums: computing their matrices takes more time than it saves.
    """

    @abstractmethod
    def _matvec(self, x: Array, xp: Namespace) -> Array:
        """Return A x, along the last axis."""

    @abstractmethod
    def _transpose(self) -> Operator:
        """Return the transpose."""

    def _conj(self) -> Any:
        """Return the complex conjugate, by default that of all parameters and parts; of a real operator itself."""
        xp, dtype = self._own_namespace(), self.dtype
        if not (self._forces_complex or (dtype is not None and is_complex(dtype, xp))):
            return self

        def of_array(array: Array, _: int = 0) -> Array:
            return conjugate(array, xp)

        def of_part(part: Any) -> Any:
            return part._conj() if isinstance(part, Hooks) else part._map(of_array)

        return self._rebuilt(of_array, of_part)

    def _rmatvec(self, y: Array, xp: Namespace) -> Array:
        """Return A^H y, along the last axis, by default by the adjoint operator."""
        return self._conj()._transpose()._matvec(y, xp)

    def _matmat(self, X: Array, xp: Namespace) -> Array:
        """Return A X, for columns, by default by the products with vectors."""
        return self._in_columns(lambda op, x: op._matvec(x, xp), X, xp)

    def _to_dense(self, like: Context) -> Array:
        """Return the dense matrix, by default from the products with the unit vectors."""
        unit_vectors = like.xp.eye(self.shape[1], dtype=like.dtype, device=like.device)
        return self._matmat(unit_vectors, like.xp)

    def _row_sums(self, xp: Namespace) -> Array:
        """Return the sums of the entries of each row, by default by a product."""
        return self._matvec(xp.ones(self.shape[1], dtype=self.dtype, device=self.device), xp)

    def _block(self, rows: range, cols: range, xp: Namespace) -> Operator | Array | None:
        """Return neighbouring rows and columns, an operator or an array, where the parameters tell them; else None."""
        return None

    def _plan(self, xp: Namespace) -> Plan | None:
        """Return what computes the products; None where there is nothing to be computed before."""
        return None

    def _solver(self, xp: Namespace) -> Plan | Products | None:
        """Return what solves many systems of NumPy arrays, with what they share computed; None where there is none."""
        return None

    def _details(self) -> str:
        """Return the leading part of the repr, for what shape and dtype do not tell."""
        return ""

    def _described(self) -> str:
        """Return what of this operator has no closed form, in words."""
        return f"{type(self).__name__} operators"

    def _hint_for_shape(self, method: str, argument: str, shape: tuple[int, ...], length: int) -> str:
        """Return what an error adds of an operand of a wrong shape, which should have that length along an axis."""
        return ""

    def _near(self, like: Array, xp: Namespace) -> Near:
        """Return what is near this matrix, or another form of it, for those who solve systems; by default nothing.

        `like` is an array, for dtype and device where the operator holds no arrays.
        """
        return Near(self)

    # Closed forms: without them the methods that ask for them raise an error that names an alternative

    def _inv(self, xp: Namespace) -> Operator:
        """Return the inverse."""
        raise NoClosedFormError(self)

    def _solve(self, b: Array, xp: Namespace) -> Array:
        """Return the solutions along the last axis, by default by the inverse."""
        return self._inv(xp)._matvec(b, xp)

    def _determinant_factors(self, xp: Namespace) -> Array:
        """Return numbers along the last axis whose product is the determinant."""
        raise NoClosedFormError(self)

    def _det(self, xp: Namespace) -> Array:
        """Return the determinant, by default from its factors."""
        return product(self._determinant_factors(xp), xp)

    def _slogdet(self, xp: Namespace) -> tuple[Array, Array]:
        """Return sign and logarithm of the modulus of the determinant, by default from its factors."""
        return sign_and_log(self._determinant_factors(xp), xp)

    def _slogdet_and_error(self, xp: Namespace) -> tuple[Array, Array, Array]:
        """Return the same, and how far off the logarithm may be, without derivatives, beside the rounding of its sum.

        By default that is zero, as where the factors are parameters.
        """
        sign, log = self._slogdet(xp)
        return sign, log, xp.zeros_like(rules_of(xp).constant(log))

    def _pinv(self, rtol: float, xp: Namespace) -> Operator:
        """Return the pseudo-inverse, without singular values up to `rtol` times the largest."""
        raise NoClosedFormError(self)

    def _damped_pinv(self, damp: float, xp: Namespace) -> Operator:
        """Return ``(A^H A + damp^2)^-1 A^H``, for a `damp` above zero."""
        raise NoClosedFormError(self)

    def _rounding(self, xp: Namespace) -> float:
        """Return how large, relative to the largest, a singular value may be that is but a rounding error of zero.

        It is the default cut-off of pseudo-inverses and ranks.
        """
        return spectral_rounding(self.dtype, xp, length=max(self.shape))

    def _eig(self, xp: Namespace) -> tuple[Array, Operator]:
        """Return the eigenvalues, complex, and the operator of eigenvectors."""
        raise NoClosedFormError(self)

    def _eigvals(self, xp: Namespace) -> Array:
        """Return the eigenvalues, complex, by default those beside the eigenvectors."""
        return self._eig(xp)[0]

    def _orthonormal_eig(self, xp: Namespace) -> tuple[Array, Operator, bool]:
        """Return eigenvalues and the unitary operator of eigenvectors, and whether the matrix is real.

        Only normal matrices have it, such as circulants. Eigenvalues are real where they are known to be.
        """
        raise NoClosedFormError(self)

    def _squared_moduli_times(self, X: Array, xp: Namespace) -> Array:
        """Return the product of the matrix of all ``|A[i, j]|^2`` with real columns, by default of a small one."""
        if max(self.shape) > _MOST_ROWS_WRITTEN_OUT:
            raise NoClosedFormError(self)
        dtype = complex_partner(X.dtype, xp) if self._forces_complex else X.dtype
        dense = self._to_dense(Context(xp, dtype, device_of(X)))
        return xp.matmul(xp.astype(xp.abs(dense) ** 2, X.dtype), X)

    def _svdvals(self, xp: Namespace) -> Array:
        """Return the singular values, in any order."""
        raise NoClosedFormError(self)

    def _diagonal(self, xp: Namespace) -> Array:
        """Return the main diagonal."""
        raise NoClosedFormError(self)

    def _frobenius(self, xp: Namespace) -> Array:
        """Return the Frobenius norm."""
        raise NoClosedFormError(self)

    def _modulus(self, xp: Namespace) -> Operator:
        """Return the operator whose entries are ``|A[i, j]|``."""
        raise NoClosedFormError(self)

    def _norm(self, ord: NormOrder, xp: Namespace) -> Array:
        """Return a norm, by default from entries, singular values, or row and column sums of the moduli."""
        if ord == "fro":
            return self._frobenius(xp)
        if ord in {2, "nuc"}:
            values = self._svdvals(xp)
            return xp.max(values, axis=-1) if ord == 2 else xp.sum(values, axis=-1)
        moduli = self._modulus(xp)
        return xp.max((moduli._transpose() if ord == 1 else moduli)._row_sums(xp), axis=-1)

    def _spectral_function(self, function: SpectralFunction, xp: Namespace) -> Operator:
        """Return a function of the matrix."""
        raise NoClosedFormError(self)


HOOKS = tuple(name for name, default in vars(Hooks).items() if isfunction(default))
"""The names of all hooks."""

_Kind = TypeVar("_Kind", bound=type[Hooks])


def forwarding(forwarded: Callable[[str], Callable[..., Any]]) -> Callable[[_Kind], _Kind]:
    """Return a decorator for operators that stand for another one: of each hook that a class does not define itself.

    `forwarded` returns, by the name of a hook, the method that asks the other operator. So no hook is forgotten, which
    would silently take its default.
    """

    def decorated(kind: _Kind) -> _Kind:
        for name in HOOKS:
            default = getattr(Hooks, name)
            if getattr(kind, name) is default:
                setattr(kind, name, wraps(default)(forwarded(name)))
        return kind

    return decorated
