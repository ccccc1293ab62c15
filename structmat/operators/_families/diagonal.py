"""The identity and diagonal matrices."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from structmat._arguments import as_vectors, integer
from structmat._arrays.arithmetic import (
    are_normal,
    quotient,
    require_nonzero,
)
from structmat._arrays.conversion import copied
from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import device_of, is_numpy
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.plans import Plan
from structmat.operators._base.arithmetic import compose, scale
from structmat.operators._base.hooks import Context
from structmat.operators._base.linear_operator import LinearOperator
from structmat.operators._base.near import Near, NearCirculant
from structmat.operators._base.spectral_functions import SpectralFunction, function_of_entries, spectral_rounding
from structmat.operators._families.spectral import Spectral, SpectralForm


@dataclass(frozen=True, eq=False, repr=False)
class Identity(Spectral):
    """The identity matrix, without dtype and device, for operators and arrays of any library.

    Parameters
    ----------
    n : int
        The size.

    Raises
    ------
    ValueError
        If `n` is below one.
    TypeError
        If `n` is no integer.

    Notes
    -----
    ``A + s * Identity(n)`` has the type of A for circulant, diagonal and block-circulant A, so that regularised systems
    can be solved in closed form.

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> sm.Circulant(np.array([1.0, 2.0])) + 10 * sm.Identity(2)
    Circulant(shape=(2, 2), dtype=float64, device=cpu)
    """

    n: int
    """The size."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", integer(self.n, "Identity", "n"))

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.n, self.n)

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        return copied(x, xp)

    def _transpose(self) -> LinearOperator:
        return self

    def _inv(self, xp: Namespace) -> LinearOperator:
        return self

    def _pinv(self, rtol: float, xp: Namespace) -> LinearOperator:
        return self

    def _damped_pinv(self, damp: float, xp: Namespace) -> LinearOperator:
        return scale(self, 1.0 / (1.0 + damp * damp))

    def _spectral_form(self, xp: Namespace) -> SpectralForm:
        ones = xp.ones(self.n)
        return SpectralForm(ones, lambda: ones, lambda: self, Diagonal, xp)

    def _orthonormal_eig(self, xp: Namespace) -> tuple[Array, LinearOperator, bool]:
        return xp.ones(self.n), self, True

    def _squared_moduli_times(self, X: Array, xp: Namespace) -> Array:
        return X

    def _determinant_factors(self, xp: Namespace) -> Array:
        return xp.ones(1)

    def _frobenius(self, xp: Namespace) -> Array:
        return xp.asarray(math.sqrt(self.n))

    def _diagonal(self, xp: Namespace) -> Array:
        return xp.ones(self.n)

    def _near(self, like: Array, xp: Namespace) -> Near:
        return Near(
            self,
            circulant=lambda: NearCirculant(_first_unit_vector(self.n, like, xp), None),
            noisy_toeplitz=lambda: (None, xp.ones(self.n, dtype=like.dtype, device=device_of(like))),
        )

    def _modulus(self, xp: Namespace) -> LinearOperator:
        return self

    def _row_sums(self, xp: Namespace) -> Array:
        return xp.ones(self.n)

    def _block(self, rows: range, cols: range, xp: Namespace) -> LinearOperator | None:
        return Identity(len(rows)) if rows == cols else None

    def _spectral_function(self, function: SpectralFunction, xp: Namespace) -> LinearOperator:
        return scale(self, function_of_entries(function, xp.ones(1), "Identity", xp)[0].item())


def _first_unit_vector(n: int, like: Array, xp: Namespace) -> Array:
    """Return the first column of the identity, with the dtype and the device of an array."""
    return xp.astype(xp.arange(n, device=device_of(like)) == 0, like.dtype)


@compose.rule(Identity, object)
def _identity_times(left: Identity, right: LinearOperator) -> LinearOperator:  # noqa: ARG001
    return right


@compose.rule(object, Identity)
def times_identity(left: LinearOperator, right: Identity) -> LinearOperator:  # noqa: ARG001
    return left


@dataclass(frozen=True, eq=False, repr=False)
class Entrywise(Plan):
    """The product with a diagonal matrix."""

    _core_axes = {"d": 1}

    d: Any
    """The diagonal."""
    is_real: bool

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.d.shape[-1], self.d.shape[-1])

    def step(self, xp: Namespace, dtype: str, *, batched: bool) -> Callable[[Any], Any]:
        return partial(np.multiply if is_numpy(xp) else operator.mul, self.d)

    def chunk_rows(self, dtype: Any) -> None:
        """Return None: chunks gain nothing where nothing is kept between reading and writing."""

    def product(self, x: Array, xp: Namespace) -> Array:
        return self.d * x


@dataclass(frozen=True, eq=False, repr=False)
class Diagonal(Spectral):
    """A diagonal matrix, ``A[i, i] = d[i]``.

    Parameters
    ----------
    d : array, shape (..., n)
        The diagonal; leading axes make a stack of matrices. Integers are promoted to the library's floating dtype.

    Raises
    ------
    ValueError
        If `d` has no axis or no entry.
    TypeError
        If `d` does not hold numbers.

    Notes
    -----
    Products, inverses and functions are computed entry by entry, O(n).

    Examples
    --------
    >>> import numpy as np
    >>> import structmat as sm
    >>> D = sm.Diagonal(np.array([1.0, 2.0, 4.0]))
    >>> D.matvec(np.array([1.0, 1.0, 1.0]))
    array([1., 2., 4.])
    >>> D.sqrtm().inv().to_dense().diagonal().round(3)
    array([1.   , 0.707, 0.5  ])
    """

    _core_axes = {"d": 1}
    _prepares_matrix = False

    d: Array
    """The diagonal, shape ``(..., n)``."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "d", as_vectors(self.d, "Diagonal", "d"))

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.d.shape[-1], self.d.shape[-1])

    def _matvec(self, x: Array, xp: Namespace) -> Array:
        return self.d * x

    def _matmat(self, X: Array, xp: Namespace) -> Array:
        return self.d[..., None] * X

    def _transpose(self) -> LinearOperator:
        return self

    def _to_dense(self, like: Context) -> Array:
        if is_numpy(like.xp):
            dense, k = np.zeros((*self.d.shape, self.d.shape[-1]), self.d.dtype), np.arange(self.d.shape[-1])
            dense[..., k, k] = self.d
            return dense
        on_diagonal = like.xp.eye(self.shape[0], dtype=like.xp.bool, device=like.device)
        # Not by a product, in which infinity times the zeros beside it would be NaN.
        return like.xp.where(on_diagonal, self.d[..., None], like.xp.zeros_like(self.d[..., None]))

    def _spectral_form(self, xp: Namespace) -> SpectralForm:
        d = self.d
        return SpectralForm(d, lambda: d, lambda: Identity(d.shape[-1]), Diagonal, xp)

    def _require_regular(self, values: Array, method: str, xp: Namespace) -> None:
        """Raise an error if an entry is zero: no other one is a rounding error of zero, however small."""
        require_nonzero(values, 0, f"Diagonal.{method}", xp)

    def _solve(self, b: Array, xp: Namespace) -> Array:
        self._require_regular(self.d, "solve", xp)
        return quotient(b, self.d, xp)

    def _plan(self, xp: Namespace) -> Entrywise:
        return Entrywise(self.d, not is_complex(self.d.dtype, xp))

    def _solver(self, xp: Namespace) -> Entrywise | None:
        self._require_regular(self.d, "solve", xp)
        return Entrywise(1 / self.d, not is_complex(self.d.dtype, xp)) if are_normal(self.d, xp) else None

    def _diagonal(self, xp: Namespace) -> Array:
        return self.d

    def _near(self, like: Array, xp: Namespace) -> Near:
        def circulant() -> NearCirculant:
            mean = xp.mean(self.d, axis=-1, keepdims=True)
            return NearCirculant(mean * _first_unit_vector(self.shape[0], like, xp), None)

        return Near(self, circulant=circulant, noisy_toeplitz=lambda: (None, self.d))

    def _modulus(self, xp: Namespace) -> LinearOperator:
        return Diagonal(xp.abs(self.d))

    def _rounding(self, xp: Namespace) -> float:
        return spectral_rounding(self.dtype, xp)

    def _block(self, rows: range, cols: range, xp: Namespace) -> LinearOperator | Array | None:
        if rows == cols:
            return Diagonal(self.d[..., rows.start : rows.stop])
        if 1 not in {len(rows), len(cols)}:
            return None
        i, j = (xp.arange(part.start, part.stop, device=self.device) for part in (rows, cols))
        entries = self.d[..., rows.start : rows.stop, None]
        # Not by a product, in which infinity times the zeros beside it would be NaN.
        return xp.where(i[:, None] == j, entries, xp.zeros_like(entries))

    def _spectral_function(self, function: SpectralFunction, xp: Namespace) -> LinearOperator:
        return Diagonal(function_of_entries(function, self.d, "Diagonal", xp))
