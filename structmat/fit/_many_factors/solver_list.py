"""The list of solvers that take the matrix itself, of a single block and without weights, by their names in `fit_cdd`.

Each makes `descent.Steps`. The other two, which know only the error and its gradient, are parts of the search: `adam`
explores, `lbfgs` polishes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from structmat.fit._many_factors import als, levenberg_marquardt

if TYPE_CHECKING:
    from structmat.fit._many_factors.descent import Steps

__all__ = ["MATRIX_SOLVERS"]

MATRIX_SOLVERS: dict[str, Steps] = {
    "als": als.steps,
    "lm": levenberg_marquardt.steps,
}
"""By the name that the argument `solver` of `fit_cdd` has."""
