"""Which numbers are so large or small that systems with them are scaled by powers of two, which is exact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from structmat._toeplitz_systems import thresholds

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SMALLEST = 2.0**-thresholds.ORDINARY_EXPONENT
_LARGEST = 2.0**thresholds.ORDINARY_EXPONENT


def is_ordinary(modulus: Any) -> bool:
    """Tell whether a number is finite, and neither very large nor very small."""
    return bool(_SMALLEST <= modulus < _LARGEST)


def extreme_exponents(moduli: Any) -> NDArray[Any]:
    """Return the exponents of two of very large and very small moduli, by which they are scaled; zero for others."""
    exponents = np.frexp(moduli)[1]  # zero for what is not finite
    return exponents * (np.abs(exponents) > thresholds.ORDINARY_EXPONENT)
