"""Functions of a matrix by its eigenvalues, and how large the rounding errors of eigenvalues are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from structmat._arguments import as_floating
from structmat._arrays.arithmetic import require_nonzero
from structmat._arrays.dtypes import complex_partner, is_complex, precision_of
from structmat._arrays.libraries import namespace_of
from structmat._arrays.typing import Array, DType, Namespace
from structmat._errors import ArgumentValueError

_IMAGINARY = 1e3
"""The imaginary part, in units of eps times the largest modulus, up to which a value counts as real.

It is that of `scipy.linalg.funm`.
"""

_TRANSFORM = 4.0
"""The largest rounding error of an eigenvalue, in units of ``eps * log2(2 n)``; see `spectral_rounding`."""


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
    stays_real: bool | None = True
    """Whether its values at conjugate eigenvalues are conjugate, so that the function of a real matrix is real.

    Where negative eigenvalues matter, that is meant for matrices without them. None if it has to be found from values.
    """
    is_exponential: bool = False
    """Whether the value at a sum is the product of the values."""
    power: float | None = None
    """The exponent, where the function is a power: families that are closed under these need no eigenvalues."""

    @property
    def is_multiplicative(self) -> bool:
        """Whether the value at a product is the product of the values, as of a power with an integer exponent."""
        return self.power is not None and float(self.power).is_integer()


def function_of_entries(function: SpectralFunction, values: Array, owner: str, xp: Namespace) -> Array:
    """Return a function of eigenvalues that stand in the matrix as they are, as in a diagonal one.

    Parameters
    ----------
    function : SpectralFunction
        The function.
    values : array, shape (..., n)
        The eigenvalues.
    owner : str
        The class of the operator, which errors name.
    xp : namespace
        Of the array.

    Returns
    -------
    array, shape (..., n)
        Complex where one of the values needs that.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a value is zero where the function has a pole there, of NumPy arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import SpectralFunction, function_of_entries
    >>> root = SpectralFunction("sqrtm", np.sqrt, needs_nonnegative=True)
    >>> function_of_entries(root, np.array([4.0, 9.0]), "Mine", np)
    array([2., 3.])
    >>> function_of_entries(root, np.array([4.0, -9.0]), "Mine", np)
    array([2.+0.j, 0.+3.j])
    """
    if function.needs_nonzero:
        require_nonzero(values, 0, f"{owner}.{function.name}", xp)
    if is_complex(values.dtype, xp):
        return function.evaluate(values)
    if function.needs_nonnegative and bool(xp.any(values < 0)):
        return function.evaluate(xp.astype(values, complex_partner(values.dtype, xp)))
    results = function.evaluate(values)
    return xp.real(results) if is_complex(results.dtype, xp) and is_real_at(function, values, None, xp) else results


def is_real_at(function: SpectralFunction, values: Array, is_unpaired: Array | None, xp: Namespace) -> bool:
    """Tell whether a function of a real matrix is real: by what it says, or else by its values at the eigenvalues.

    Parameters
    ----------
    function : SpectralFunction
        The function.
    values : array, shape (..., n)
        The eigenvalues.
    is_unpaired : array of bool, shape (n,), or None
        Which of the eigenvalues have no conjugate partner; None for all. There the function has to be real. Of other
        eigenvalues one of each conjugate pair is given, and the value at the other one has to be the conjugate.
    xp : namespace
        Of the arrays.

    Returns
    -------
    bool
        What ``stays_real`` of the function says, if it does.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import SpectralFunction, is_real_at
    >>> turn = SpectralFunction("funm", lambda values: 1j * values, stays_real=None)
    >>> is_real_at(turn, np.array([1.0 + 0j, 2.0]), None, np)
    False
    """
    if function.stays_real is not None:
        return function.stays_real
    results = function.evaluate(values)
    deviations = xp.abs(xp.imag(results))
    if is_unpaired is not None:
        differences = xp.abs(function.evaluate(xp.conj(values)) - xp.conj(results))
        deviations = xp.where(is_unpaired, deviations, differences)
    moduli = xp.abs(results)
    moduli, deviations = (xp.where(xp.isfinite(v), v, xp.zeros_like(v)) for v in (moduli, deviations))
    allowed = _IMAGINARY * float(xp.finfo(moduli.dtype).eps) * xp.max(moduli, axis=-1, keepdims=True)
    return bool(xp.all(deviations <= allowed))


def on_eigenvalues(func: Callable[[Array], Any], owner: str, xp: Namespace) -> Callable[[Array], Array]:
    """Return a function of users with its arguments converted to complex numbers and its results checked."""

    def evaluate(values: Array) -> Array:
        dtype = complex_partner(values.dtype, xp)
        values = values if values.dtype == dtype else xp.astype(values, dtype)
        results = as_floating(func(values), owner, "func", like=(xp, dtype))
        namespace_of(owner, values, results)
        if tuple(results.shape) != tuple(values.shape):
            text = f"must return one value for each number of an array of shape {tuple(values.shape)}"
            raise ArgumentValueError(owner, "func", f"{text}, got shape {tuple(results.shape)}")
        return results if results.dtype == dtype else xp.astype(results, dtype)

    return evaluate


def integer_power(values: Array, exponent: int, xp: Namespace) -> Array:
    """Return powers by repeated squaring, by which powers of 1, -1, i and -i are exact."""
    if exponent == 0:
        return xp.ones_like(values)
    square = values if exponent > 0 else 1 / values
    result = square
    remaining = abs(exponent) - 1
    while remaining:
        if remaining % 2:
            result = result * square
        remaining //= 2
        if remaining:
            square = square * square
    return result


def spectral_rounding(dtype: DType, xp: Namespace, *, length: int = 1, order: int = 0) -> float:
    """Return how large a computed eigenvalue or singular value of zero may be, relative to the largest one.

    Parameters
    ----------
    dtype : dtype
        That of the operator, or None.
    xp : namespace
        Of its arrays.
    length : int, default 1
        The length of the transforms that the values were computed by.
    order : int, default 0
        The larger side of matrices whose singular values were computed.

    Returns
    -------
    float
        For the hook ``_rounding``.

    Notes
    -----
    Errors of transforms of that `length` are about evenly spread over the values. They are at most half of
    ``eps * log2(2 * length)`` times the largest value, as measured for NumPy, torch and JAX up to a length of a
    million, primes included. Eight times as much leaves room for rounding of the entries before the transform. To that
    ``eps`` times the `order` is added, as in `numpy.linalg.matrix_rank`.

    Examples
    --------
    >>> import numpy as np
    >>> from structmat.extend import spectral_rounding
    >>> spectral_rounding(np.float32, np, length=8) / float(np.finfo(np.float32).eps)
    16.0
    """
    eps = float(xp.finfo(xp.float64 if dtype is None else precision_of(dtype, xp)).eps)
    return eps * (_TRANSFORM * math.log2(2 * length) + order)
