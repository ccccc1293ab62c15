"""The inverse of a Toeplitz matrix, which two vectors determine: its products, and the sums along its diagonals.

With ``T x = e_0`` and ``T y = (s, t[1 - n], ..., t[-1])`` for any number s the inverse is
``L(x) U(1, -y[n-1], ..., -y[1]) + L(y) U(0, x[n-1], ..., x[1])`` [1]_, where L and U are the lower and upper triangular
Toeplitz matrices with that first column and first row. Such a sum is called the Bezoutian of two polynomials, those
with the coefficients x and y. Unlike the formula of Gohberg and Semencul it requires no regular leading sections.

References
----------
.. [1] Heinig, G., Rost, K., Algebraic Methods for Toeplitz-like Matrices and Operators, Birkhäuser, 1984.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from structmat._arrays.dtypes import is_complex
from structmat._arrays.libraries import device_of, is_numpy
from structmat._arrays.shapes import broadcast_shapes, concat_last, reversed_cyclically
from structmat._arrays.typing import Array, Namespace
from structmat._fourier.embedding import fast_length
from structmat._fourier.engines import PLAIN
from structmat._fourier.plans import PlanByMethod, reversal
from structmat._fourier.spectra import from_spectrum, spectrum
from structmat._fourier.transforms import transforms


@dataclass(frozen=True, eq=False, repr=False)
class Bezoutian(PlanByMethod):
    """The sum of two products, each of a lower and an upper triangular Toeplitz matrix, by their spectra."""

    _core_axes = {"lower_x": 1, "upper_x": 1, "lower_y": 1, "upper_y": 1}

    lower_x: Any
    """The half spectrum (`is_real`) or full spectrum of the lower factor of the first product."""
    upper_x: Any
    """That of its upper factor."""
    lower_y: Any
    """That of the lower factor of the second product."""
    upper_y: Any
    """That of its upper factor."""
    n: int
    length: int
    """The length of transforms, at least 2 n - 1."""
    is_real: bool
    flips: tuple[bool, bool]
    """Whether the rows and the columns are in reverse order."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.n, self.n)

    @property
    def cost(self) -> float:
        return 3.0 * self.length  # six transforms, where a convolution has two

    def _by(self, method: str, xp: Namespace) -> Callable[[Any], Any]:
        forward, backward = transforms(PLAIN.get(method, method), self.length, xp, real=self.is_real)
        in_place = is_numpy(xp) and not self.is_stack
        times: Any = operator.imul if in_place else operator.mul
        plus: Any = operator.iadd if in_place else operator.add
        n, reverse = self.n, reversal(xp)
        flipped_rows, flipped_cols = self.flips

        def product(x: Any) -> Any:
            X = forward(reverse(x) if flipped_cols else x)
            total = times(forward(backward(X * self.upper_x)[..., :n]), self.lower_x)
            X = times(forward(backward(times(X, self.upper_y))[..., :n]), self.lower_y)
            y = backward(plus(total, X))[..., :n]
            y = reverse(y) if flipped_rows else y
            return y.copy() if in_place else y  # the entries that a view leaves out would stay in memory

        return product


def bezoutian(x: Array, y: Array, xp: Namespace, *, flips: tuple[bool, bool] = (False, False)) -> Bezoutian:
    """Return the plan of the products with the inverse that x and y determine."""
    n, real = x.shape[-1], not is_complex(x.dtype, xp)
    length = fast_length(2 * n - 1)

    if x.shape != y.shape:
        shape = broadcast_shapes("ToeplitzInverse", tuple(x.shape), tuple(y.shape))
        x, y = xp.broadcast_to(x, shape), xp.broadcast_to(y, shape)
    gap = xp.zeros(length - n, dtype=x.dtype, device=device_of(x))
    one = xp.ones(1, dtype=x.dtype, device=device_of(x))
    columns = (  # the first columns of circulants that have the triangular matrices in their corners
        [x, gap],
        [one, gap, -y[..., 1:]],
        [y, gap],
        [0 * one, gap, x[..., 1:]],
    )
    stacked = xp.stack([concat_last(parts, xp) for parts in columns])
    spectra = spectrum(stacked, xp, real=real, n=length)
    lower_x, upper_x, lower_y, upper_y = (spectra[i, ...] for i in range(4))
    return Bezoutian(lower_x, upper_x, lower_y, upper_y, n, length, real, flips)


def with_shortest_y(v: Any) -> Any:
    """Return x, and y less the multiple of x for which its norm is least, of NumPy. Of T y that changes only s."""
    x, y = v
    return np.array([x, y - np.vdot(x, y) / np.vdot(x, x) * x])


def diagonal_sums(x: Array, y: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the sums of the inverse along its diagonals, from the main one upward and from the one below downward.

    The second ones begin with a zero, so that the main diagonal counts once. The sum of ``L(v) U(p)`` along diagonal s
    is that of ``(n - max(m, m - s)) v[m] p[m - s]`` over m.
    """
    n = x.shape[-1]
    weights = xp.astype(n - xp.arange(n, device=device_of(x)), x.dtype)
    one, zero = xp.ones_like(x[..., :1]), xp.zeros_like(x[..., :1])
    upward = downward = xp.zeros_like(x)
    for v, first, tail in ((x, one, -y), (y, zero, x)):
        p = concat_last([first, xp.flip(tail[..., 1:], axis=-1)], xp)
        upward = upward + _sums_over_lags(v, weights * p, xp)[1]
        downward = downward + _sums_over_lags(weights * v, p, xp)[0]
    return upward, concat_last([zero, downward[..., 1:]], xp)


def _sums_over_lags(u: Array, v: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the sums of ``u[i] v[j]`` over ``i - j = s`` and over ``j - i = s``, for s = 0, ..., n - 1."""
    n, real = u.shape[-1], not is_complex(u.dtype, xp)
    length = fast_length(2 * n - 1)
    gap = xp.zeros(length - n, dtype=v.dtype, device=device_of(v))
    backwards = concat_last([v[..., :1], gap, xp.flip(v[..., 1:], axis=-1)], xp)
    U, V = (spectrum(a, xp, real=real, n=length) for a in (u, backwards))
    sums = from_spectrum(U * V, length, xp, real=real)
    return sums[..., :n], reversed_cyclically(sums, xp)[..., :n]
