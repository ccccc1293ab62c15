"""Numerical fits of a given matrix by a product of diagonal and (block-)circulant factors.

Map of the package, each file below importing only files further down:

- `_curve`, `_error_curve`: `error_curve`, fits with more and more factors, and what it returns
- `_rivals`, `_low_rank`: the best members of other families, for comparison
- `_cdd`, `_arguments`, `_given`: `fit_cdd` itself and its checks
- `_exact`, `_exact_search`: `factorize_cdd`, and its search for a product that reproduces a matrix
- `_short_forms`: matrices that are products of a few factors in closed form
- `_routes`: the two ways `fit_cdd` goes
- `_result`: what they return and report
- `_control`: what ends a fit early
- `_weights`: from second moments to a matrix whose columns are fitted

Chains of any number of factors:

- `_square`, `_rectangle`: the problem on one block, and on a rectangle or several
- `_search`: its search from starts through exploration, polish and growth
- `_chain_starts`: starting points
- `_adam`, `_lbfgs`: exploration and polish, first order
- `_block_objective`, `_objective`: the error and its gradient by transforms, on several blocks and on one
- `_levelling`: a way in to matrices of widely spread singular values
- `_levenberg_marquardt`: polish, second order: joint steps on all factors
- `_als`: from a start to a minimum by solving for one factor after the other
- `_chain`: a chain by its diagonal forms, its products and derivatives

Three factors on any grid of blocks:

- `_three_factors`: the choice among starting points
- `_starts`, `_shift_synchronisation`: starting points
- `_solvers`: from a starting point to a minimum
- `_sweep`: the closed-form alternating steps
- `_masked`: the same with a weight for every entry
- `_blocks`, `_factors`: the matrix and the vectors as they are laid out for the steps

- `_interchange`: to NumPy and back
"""

from __future__ import annotations

from structmat.fit._curve_result import ErrorCurve
from structmat.fit._error_curve import CurveProgress, error_curve
from structmat.fit._factorize_cdd import factorize_cdd
from structmat.fit._fit_cdd import fit_cdd
from structmat.fit._result import FitProgress, FitResult

__all__ = ["CurveProgress", "ErrorCurve", "FitProgress", "FitResult", "error_curve", "factorize_cdd", "fit_cdd"]
