"""Circulant matrices, and what their products, sums and multiples are.

- `circulant`: by the first column, and by the spectrum
- `pair_rules`: products, sums and multiples, which are circulants again
"""

from __future__ import annotations

import structmat.operators._circulant.pair_rules  # noqa: F401  # registers them
from structmat.operators._circulant.circulant import Circulant, SpectralCirculant

__all__ = ["Circulant", "SpectralCirculant"]
