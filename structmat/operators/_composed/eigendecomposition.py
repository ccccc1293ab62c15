"""Normal matrices given by their eigenvalues and orthonormal eigenvectors, and the closed forms that follow."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from structmat._arguments import as_vectors
from structmat._arrays.arithmetic import (
    Reciprocal,
    conjugate,
    is_rounding_error,
    negligible,
    quotient,
    scale_array,
)
from structmat._arrays.dtypes import complex_partner, is_complex, is_complex_scalar, precision_of
from structmat._arrays.libraries import namespace_of, rules_of
from structmat._arrays.linear_algebra import even_factors, hermitian_part, is_hermitian
from structmat._arrays.shapes import broadcast_shapes
from structmat._arrays.typing import Array, DType, Namespace, Scalar
from structmat._errors import ArgumentValueError
from structmat._rules import Solver
from structmat.operators._base.arithmetic import add, scale
from structmat.operators._base.closed_forms import NoClosedFormError
from structmat.operators._base.constant import Constant
from structmat.operators._base.determinants import error_of_eigenvalues, sign_and_log
from structmat.operators._base.linear_operator import LinearOperator
from structmat.operators._base.near import Near
from structmat.operators._base.parts import require_operators, values_of
from structmat.operators._base.spectral_functions import SpectralFunction, function_of_entries, is_real_at
from structmat.operators._composed.scaled import Scaled, identity_factor
from structmat.operators._families.dense import Dense, as_operators
from structmat.operators._families.diagonal import Identity
from structmat.operators._families.spectral import Spectral, SpectralForm

_MOST_ROWS = 2048
"""The most rows of a matrix that is written out for its eigenvectors.

That takes 0.3 s of 1,024 rows and 1.7 s of 2,048, with the third power. A system of 32,768 unknowns with a Toeplitz
factor of 2,048 rows takes 0.1 s by iteration with circulants, which serve where a factor is larger.
"""

_UNKNOWN = "its values are not known in a trace; give Eigendecomposition.of(matrix) if it is Hermitian"
"""Why nothing can be said of a matrix without values."""


@dataclass(frozen=True, eq=False, repr=False)
class Eigendecomposition(Spectral):
    """A normal matrix by its eigenvalues and orthonormal eigenvectors, ``A = V diag(w) V^H``.

    Parameters
    ----------
    values : array, shape (..., n)
        The eigenvalues w; leading axes make a stack of matrices.
    vectors : LinearOperator or array
        The matrix V, whose columns are the eigenvectors. It must be unitary, which is not checked.
    real : bool, default False
        Whether the matrix is real although its eigenvalues or eigenvectors are complex, as those of a real circulant.

    Raises
    ------
    ValueError
        If `values` has no axis or no entry, or `vectors` is not square or of another size.
    TypeError
        If `values` does not hold numbers, or `vectors` is no operator.

    See Also
    --------
    Circulant : Normal matrices with the eigenvectors of the Fourier transform.

    Notes
    -----
    A product costs one with V and one with its adjoint. Everything that follows from eigenvalues is computed from them
    at once, so that many functions of one matrix take one decomposition. A function of it is one as well.

    Derivatives are those of the two arrays. Where they are computed from a matrix, those of eigenvectors that belong to
    equal or nearly equal eigenvalues do not exist: differentiate `solve` and `slogdet` of the operator itself.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> K = sm.Eigendecomposition.of(np.array([[2.0, 1.0], [1.0, 2.0]]))
    >>> K.values
    array([1., 3.])
    >>> R = K.sqrtm()
    >>> (R @ R).to_dense().round(12)
    array([[2., 1.],
           [1., 2.]])
    """

    _core_axes = {"values": 1, "vectors": None}

    values: Array
    """The eigenvalues, shape ``(..., n)``."""
    vectors: LinearOperator
    """The operator of eigenvectors."""
    real: bool = False
    """Whether the matrix is real."""

    def __post_init__(self) -> None:
        owner = "Eigendecomposition"
        values = as_vectors(self.values, owner, "values")
        (vectors,) = as_operators((self.vectors,), owner, "vectors")
        require_operators(owner, "vectors", (vectors,))
        if vectors.shape != (values.shape[-1], values.shape[-1]):
            n = values.shape[-1]
            raise ArgumentValueError(owner, "vectors", f"must have shape ({n}, {n}), got {vectors.shape}")
        arrays = [values, *vectors._arrays()]
        xp = namespace_of(owner, *arrays)
        broadcast_shapes(owner, tuple(values.shape[:-1]), vectors.batch_shape)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "vectors", vectors)
        is_made_of_real = not (vectors._forces_complex or any(is_complex(array.dtype, xp) for array in arrays))
        object.__setattr__(self, "real", bool(self.real) or is_made_of_real)

    @classmethod
    def of(cls, A: Any) -> Eigendecomposition:
        """Return the eigendecomposition of an operator, or of a Hermitian matrix.

        Parameters
        ----------
        A : LinearOperator or array, shape (..., n, n)
            An operator with orthonormal eigenvectors that are known, such as a circulant, a `Kronecker` product or sum
            of Hermitian parts, or a multiple of the identity added to these; or a matrix that is Hermitian up to
            rounding, of which the Hermitian part is taken.

        Returns
        -------
        Eigendecomposition
            The same matrix. For an array O(n^3). That works under ``jax.jit`` and ``torch.vmap`` as well, where values
            cannot be looked at: there the result is NaN for a matrix that is not Hermitian or not finite.

        Raises
        ------
        NotImplementedError
            If no such eigenvectors are known of the operator.
        ValueError
            If A is not square, or an array that is not Hermitian, or holds NaN or infinity.

        Examples
        --------
        >>> import numpy as np
        >>> import structmat as sm
        >>> sm.Eigendecomposition.of(sm.Circulant(np.array([2.0, 1.0, 1.0])))
        Eigendecomposition(shape=(3, 3), dtype=float64, device=cpu)
        """
        owner = "Eigendecomposition.of"
        (operator,) = as_operators((A,), owner, "A")
        if operator.shape[0] != operator.shape[1]:
            raise ArgumentValueError(owner, "A", f"must be square, got shape {operator.shape}")
        operator, xp = operator._to_working_precision(owner)
        if isinstance(operator, Dense) and not isinstance(A, LinearOperator):
            objection = rules_of(xp).untraced(_objection)(operator.matrix, xp)
            if objection not in {None, _UNKNOWN}:
                raise ArgumentValueError(owner, "A", f"must be a finite Hermitian matrix, but {objection}")
            return cls(*_eig_of_hermitian(operator.matrix, xp))
        try:
            return cls(*orthonormal_eig_of(operator, xp))
        except NoClosedFormError as error:
            alternative = "Eigendecomposition.of(op.to_dense()) if Hermitian, else numpy.linalg.eig(op.to_dense())"
            raise NotImplementedError(f"{owner}: {error}; use {alternative}") from None

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.values.shape[-1], self.values.shape[-1])

    @property
    def dtype(self) -> DType:
        """The dtype of the entries: real where the matrix is."""
        dtype, xp = super().dtype, self._own_namespace()
        return precision_of(dtype, xp) if self.real and is_complex(dtype, xp) else dtype

    @property
    def _forces_complex(self) -> bool:
        return not self.real and super()._forces_complex

    def _spectral_form(self, xp: Namespace) -> SpectralForm:
        return SpectralForm(
            self.values,
            lambda: self._of_all(xp),
            lambda: self.vectors,
            lambda values: self._replaced(values=values),
            xp,
        )

    def _of_all(self, xp: Namespace) -> Array:
        """Return the eigenvalues of all matrices of a stack, which may share them."""
        return xp.broadcast_to(self.values, (*self.batch_shape, self.values.shape[-1]))

    def _complex(self, dtype: DType, xp: Namespace) -> Any:
        return super()._complex(dtype, xp)._replaced(real=False)

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        return self._by_eigenvectors(lambda parts: self.values * parts, x, xp)

    def _transpose(self) -> Eigendecomposition:
        return self._replaced(vectors=self.vectors._conj())

    def _conj(self) -> Any:
        if self.real:
            return self
        values = conjugate(self.values, self._own_namespace())
        return self._replaced(values=values, vectors=self.vectors._conj())

    def _solve(self, b: Array, xp: Namespace) -> Array:
        """Solutions by quotients: reciprocals of small eigenvalues may overflow where solutions do not."""
        self._require_regular(self.values, "solve", xp)
        return self._by_eigenvectors(lambda parts: quotient(parts, self.values, xp), b, xp)

    def _by_eigenvectors(self, function: Callable[[Array], Array], x: Array, xp: Namespace) -> Array:
        """Return vectors after a function of their components along the eigenvectors."""
        y = self.vectors._matvec(function(self.vectors._rmatvec(x, xp)), xp)
        return xp.real(y) if self.real and is_complex(y.dtype, xp) and not is_complex(x.dtype, xp) else y

    def _orthonormal_eig(self, xp: Namespace) -> tuple[Array, LinearOperator, bool]:
        return self.values, self.vectors, self.real  # values that a stack shares are not repeated

    def _near(self, like: Array, xp: Namespace) -> Near:
        return Near(self, eigenvectors=lambda: self._orthonormal_eig(xp))

    def _slogdet(self, xp: Namespace) -> tuple[Array, Array]:
        sign, log = sign_and_log(self._of_all(xp), xp)
        return xp.round(xp.real(sign)) if self.real and is_complex(sign.dtype, xp) else sign, log

    def _slogdet_and_error(self, xp: Namespace) -> tuple[Array, Array, Array]:
        return *self._slogdet(xp), error_of_eigenvalues(self._of_all(xp), xp)

    def _determinant_factors(self, xp: Namespace) -> Array:
        if self.real and is_complex(self.values.dtype, xp):
            return even_factors(*self._slogdet(xp), self.shape[0], xp)
        return self._of_all(xp)

    def _diagonal(self, xp: Namespace) -> Array:
        parts = (xp.real(self.values), xp.imag(self.values)) if is_complex(self.values.dtype, xp) else (self.values,)
        real, *imaginary = [self.vectors._squared_moduli_times(part[..., None], xp)[..., 0] for part in parts]
        return real if self.real or not imaginary else real + 1j * imaginary[0]

    def _spectral_function(self, function: SpectralFunction, xp: Namespace) -> Eigendecomposition:
        owner, values, real = "Eigendecomposition", self.values, self.real
        if function.needs_nonzero:
            self._require_regular(values, function.name, xp)
        if function.needs_nonnegative:
            values = _without_negative_zeros(values, self._rounding(xp), xp)
        if not is_complex(values.dtype, xp):
            results = function_of_entries(function, values, owner, xp)
            return self._replaced(values=results, real=real and not is_complex(results.dtype, xp))
        if real and function.needs_nonnegative:
            real = not bool(xp.any((xp.real(values) < 0) & is_rounding_error(xp.imag(values), values, xp)))
        if real and not function.stays_real:
            real = is_real_at(function, values, xp.zeros_like(values, dtype=xp.bool), xp)
        return self._replaced(values=function.evaluate(values), real=real)


def _without_negative_zeros(values: Array, rounding: float, xp: Namespace) -> Array:
    """Return eigenvalues with zeros in place of those that are negative by rounding alone."""
    real = xp.real(values) if is_complex(values.dtype, xp) else values
    return xp.where((real < 0) & negligible(values, rounding, xp), xp.zeros_like(values), values)


@scale.rule(Eigendecomposition, object)
def _scale(operator: Eigendecomposition, factor: Scalar | Reciprocal) -> Eigendecomposition:
    xp = operator._own_namespace()
    number = factor.divisor if isinstance(factor, Reciprocal) else factor
    values = scale_array(operator.values, factor, 1, xp)
    return operator._replaced(values=values, real=operator.real and not is_complex_scalar(number, xp))


@add.rule(Eigendecomposition, Identity)
@add.rule(Eigendecomposition, Scaled)
def _shift(operator: Eigendecomposition, shift: LinearOperator) -> Any:
    factor = identity_factor(shift)
    if factor is None:
        return NotImplemented
    return Eigendecomposition(*shifted(operator, factor, operator._own_namespace()))


def shifted(operator: LinearOperator, factor: Scalar, xp: Namespace) -> tuple[Array, LinearOperator, bool]:
    """Return the orthonormal eigendecomposition of an operator that has one plus a multiple of the identity.

    No matrix is written out for it: that of a series with gaps and even noise takes far longer than any iteration.
    """
    values, vectors, real = operator._orthonormal_eig(xp)
    ones = xp.ones_like(values)
    return values + scale_array(ones, factor, 1, xp), vectors, real and not is_complex_scalar(factor, xp)


def orthonormal_eig_of(operator: LinearOperator, xp: Namespace) -> tuple[Array, LinearOperator, bool]:
    """Return eigenvalues and eigenvectors of an operator, those of its dense matrix where it is small and Hermitian.

    Whether it is Hermitian is found from its entries, so that in a trace it is not known.
    """
    try:
        return operator._orthonormal_eig(xp)
    except NoClosedFormError:
        m, n = operator.shape
        if m != n:
            raise
        if n > _MOST_ROWS:
            reason = f"this one has {n} rows, and eigenvectors are computed of up to {_MOST_ROWS}"
            raise NoClosedFormError(operator, reason) from None
        dense = operator.to_dense()
        objection = rules_of(xp).untraced(_objection)(dense, xp)
        if objection is not None:
            raise NoClosedFormError(operator, objection) from None
    values, vectors = _eig_of_hermitian(dense, xp)
    return values, vectors if operator._arrays() else Constant(vectors), not is_complex(dense.dtype, xp)


def eig_of_part(part: LinearOperator, whole: LinearOperator, xp: Namespace) -> tuple[Array, LinearOperator, bool]:
    """Return the eigenvalues and eigenvectors of a part of an operator, values in the library of that."""
    values, vectors, real = orthonormal_eig_of(part, xp if part._arrays() else part._own_namespace())
    return values_of(part, whole, xp, lambda *_: values), vectors, real


def function_of_part(
    part: LinearOperator, whole: LinearOperator, function: SpectralFunction, xp: Namespace
) -> LinearOperator:
    """Return a function of a part of an operator: in its family, else by its orthonormal eigenvectors."""
    if part._arrays():
        with suppress(NoClosedFormError):
            return part._spectral_function(function, xp)
    normal = Eigendecomposition(*eig_of_part(part, whole, xp))
    return (normal if whole._arrays() else Constant(normal))._spectral_function(function, xp)


def _objection(dense: Array, xp: Namespace) -> str | None:
    """Return why not all matrices are known to be finite and Hermitian up to rounding; None where they are."""
    entries = rules_of(xp).concrete(dense)
    if entries is None:
        return _UNKNOWN
    own = namespace_of("Eigendecomposition", entries)
    if not bool(own.all(own.isfinite(entries))):
        return "this one holds NaN or infinity"
    return None if bool(own.all(is_hermitian(entries, own))) else "this one is not Hermitian"


def _eig_of_hermitian(dense: Array, xp: Namespace) -> tuple[Array, Dense]:
    """Return eigenvalues and eigenvectors of Hermitian matrices; those of any other matrix are NaN.

    Of such a matrix zeros are decomposed in its place: libraries raise an error for some matrices with NaN.
    """
    part = hermitian_part(dense, xp)
    known = is_hermitian(dense, xp) & xp.all(xp.isfinite(dense), axis=(-2, -1))
    values, vectors = xp.linalg.eigh(xp.where(known[..., None, None], part, xp.zeros_like(part)))
    return xp.where(known[..., None], values, xp.full_like(values, float("nan"))), Dense(vectors)


@dataclass(frozen=True)
class _ByEigenvectors(Solver):
    """Solves systems by the eigendecomposition M of their matrix, for the implicit rule of a library."""

    def __call__(self, A: Any, M: Any, b: Array, xp: Namespace) -> tuple[Array, tuple[()]]:
        return M._solve(b, xp), ()


class ByEigenvalues(Spectral):
    """An operator whose closed forms are those of its eigenvalues, by the hook ``_orthonormal_eig``."""

    @abstractmethod
    def _orthonormal_eig(self, xp: Namespace) -> tuple[Array, LinearOperator, bool]:
        """Return the eigenvalues and eigenvectors, and whether the matrix is real."""

    def _normal(self, xp: Namespace) -> Eigendecomposition | Constant:
        """Return the same matrix by its eigenvalues, which come from NumPy where no part has parameters."""
        if self._arrays():
            return Eigendecomposition(*self._orthonormal_eig(xp))
        return Constant(Eigendecomposition(*self._orthonormal_eig(self._own_namespace())))

    def _spectral_form(self, xp: Namespace) -> SpectralForm:
        if self._arrays():
            return Eigendecomposition(*self._orthonormal_eig(xp))._spectral_form(xp)
        own = self._own_namespace()
        form = Eigendecomposition(*self._orthonormal_eig(own))._spectral_form(own)
        return form._replace(having=lambda values: Constant(form.having(values)))

    def _solve(self, b: Array, xp: Namespace) -> Array:
        """Solutions by the eigenvalues, with the derivatives of the system itself, where eigenvectors may have none."""
        rules = rules_of(xp)
        arrays = self._arrays()
        if not arrays or not rules.is_differentiated([b, *arrays]):
            return self._normal(xp)._solve(b, xp)
        constant: Any = self._map(lambda array, _: rules.constant(array))
        given = constant._normal(xp)
        batch = broadcast_shapes(type(self).__name__, self.batch_shape, tuple(b.shape[:-1]))
        b = xp.broadcast_to(b, (*batch, b.shape[-1]))
        if given._forces_complex or is_complex(given.dtype, xp):
            b = xp.astype(b, complex_partner(b.dtype, xp))
        return rules.solution(_ByEigenvectors(), self, given, b)[0]

    def _determinant_factors(self, xp: Namespace) -> Array:
        return self._normal(xp)._determinant_factors(xp)

    def _slogdet(self, xp: Namespace) -> tuple[Array, Array]:
        return self._normal(xp)._slogdet(xp)

    def _slogdet_and_error(self, xp: Namespace) -> tuple[Array, Array, Array]:
        return self._normal(xp)._slogdet_and_error(xp)

    def _spectral_function(self, function: SpectralFunction, xp: Namespace) -> LinearOperator:
        return self._normal(xp)._spectral_function(function, xp)
