"""Numerical fits of a given matrix by a product of diagonal and (block-)circulant factors.

Map of the package, each file below importing only files further down:

- `_cdd`: `fit_cdd` itself, its checks and the choice among starting points
- `_result`: what it returns and reports
- `_starts`, `_shift_synchronisation`: starting points
- `_solvers`: from a starting point to a minimum
- `_sweep`: the closed-form alternating steps
- `_blocks`, `_factors`: the matrix and the vectors as they are laid out for the steps
- `_interchange`: to NumPy and back
"""

from __future__ import annotations

from structmat.fit._cdd import fit_cdd
from structmat.fit._result import FitProgress, FitResult

__all__ = ["FitProgress", "FitResult", "fit_cdd"]
