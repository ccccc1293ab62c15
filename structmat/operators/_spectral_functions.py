"""Functions of a matrix by its eigenvalues, and how large the rounding errors of these are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from structmat._arrays.arithmetic import require_nonzero
from structmat._arrays.dtypes import complex_partner, is_complex, precision_of
from structmat._arrays.typing import Array, DType, Namespace

_TRANSFORM = 4.0
"""The cut-off over ``eps * log2(2 n)``; see `spectral_rounding`."""


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


def spectral_rounding(dtype: DType, xp: Namespace, *, length: int = 1, order: int = 0) -> float:
    """Return the size, relative to the largest, up to which a computed singular value or eigenvalue may be rounding.

    Errors of transforms of that `length` are about evenly spread over the values, at most half of ``eps * log2(2 *
    length)`` times the largest, as measured for NumPy, torch and JAX up to a million, primes included. Eight times as
    much leaves room for what rounded the entries before. The larger side of matrices whose singular values were
    computed, the `order`, counts ``eps`` times, as in `numpy.linalg.matrix_rank`.
    """
    eps = float(xp.finfo(xp.float64 if dtype is None else precision_of(dtype, xp)).eps)
    return eps * (_TRANSFORM * math.log2(2 * length) + order)
