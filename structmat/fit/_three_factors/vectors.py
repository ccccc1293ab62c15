"""The three vectors of a Diagonal @ BlockCirculant @ Diagonal product, on a grid of square blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Factors", "largest_exponent", "largest_part", "scale_by_power_of_two", "shared_exponents"]


class Factors(NamedTuple):
    """Parameters of ``P[p, i, q, j] = a[p, i] * c[p, q, (i - j) % m] * b[q, j]``.

    Held in double precision whatever the matrix has: they are small, and sums over them are what rounding hurts first.
    """

    a: NDArray[Any]
    """Left diagonal, (p, m)."""
    c: NDArray[Any]
    """First columns of the circulant blocks, (p, q, m)."""
    b: NDArray[Any]
    """Right diagonal, (q, m)."""

    def scaled(self, exponent: int) -> Factors:
        """Multiply the product by ``2**exponent`` and share its scale evenly between the three vectors.

        Only powers of two are moved, so nothing is rounded.
        """
        own = [_exponent(x) for x in self]
        total = sum(own) + exponent
        shares = shared_exponents(total, 3)
        return Factors(*(scale_by_power_of_two(x, share - e) for x, share, e in zip(self, shares, own, strict=True)))


def shared_exponents(exponent: int, count: int) -> list[int]:
    """Return `count` integers that add up to `exponent` and differ by one at most."""
    shares: list[int] = np.diff(np.arange(count + 1) * exponent // count).tolist()
    return shares


def scale_by_power_of_two(x: NDArray[Any], exponent: int) -> NDArray[Any]:
    """``x * 2**exponent`` of a real or complex array, also where ``2**exponent`` itself would overflow."""
    parts = np.ascontiguousarray(x).view(x.real.dtype) if np.iscomplexobj(x) else x
    scaled: NDArray[Any] = np.ldexp(parts, exponent).view(x.dtype)
    return scaled


def largest_part(x: NDArray[Any]) -> float:
    """Return the largest absolute value of a real or imaginary part, NaN if any is; a modulus might overflow."""
    parts = (x.real, x.imag) if np.iscomplexobj(x) else (x,)
    return float(np.max([(part.max(), -part.min()) for part in parts]))


def largest_exponent(x: NDArray[Any]) -> int:
    """Return the binary exponent of the largest real or imaginary part; zero if `x` is zero.

    To divide by ``2**exponent``, by `scale_by_power_of_two`, brings any matrix to a size of one and rounds nothing,
    where a division by the largest entry turns complex numbers near the smallest one into NaN.
    """
    return int(np.frexp(largest_part(x))[1])


def _exponent(x: NDArray[Any]) -> int:
    """Binary exponent of the root mean square of `x`; zero if `x` is zero."""
    largest = np.abs(x).max(initial=0.0)
    if largest == 0.0:
        return 0
    return int(np.frexp(largest * np.sqrt(np.mean(np.square(np.abs(x / largest)))))[1])
