"""Circulant matrices, and what their products, sums and multiples are.

- `circulant`: by the first column, and by the spectrum
"""

from __future__ import annotations

from structmat.operators._circulant.circulant import Circulant, SpectralCirculant

__all__ = ["Circulant", "SpectralCirculant"]
