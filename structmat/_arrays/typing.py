"""Names for the types of arrays of any library, as the array API standard has no types of its own."""

from __future__ import annotations

from typing import Any, TypeAlias

DType: TypeAlias = Any
"""A dtype object of some array library."""

Device: TypeAlias = Any
"""A device object of some array library."""

Namespace: TypeAlias = Any
"""An array API namespace: `numpy_namespace`, or what `array_api_compat.array_namespace` returns."""

Array: TypeAlias = Any
"""An array of any library of the array API standard."""

ArrayLike: TypeAlias = Any
"""An array of any library, or nested lists of numbers (read by NumPy or by the operator's own library)."""

Scalar: TypeAlias = complex | Array
"""A Python number, or an array without the axes of the operator's vectors."""
