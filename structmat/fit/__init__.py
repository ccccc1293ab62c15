"""Numerical fits of a given matrix by a product of diagonal and (block-)circulant factors.

Map of the package; each line imports only from lines below it:

- `_error_curve`: `error_curve`, fits with more and more factors
- `_curve_result`: what it returns, as a table, as text and as a figure
- `_curve_bounds`: how many factors an exact product takes
- `_factorize_cdd`: `factorize_cdd`, a product that reproduces a matrix
- `_exact_products`, `_linear_factors`: its constructions
- `_phase_masks`: `fit_phase_masks`, products of masks of modulus one
- `_phase_objective`: the error of such products by their phases, with gradient and Gram matrix
- `_phase_mask_fit`: what a fit by phase masks returns
- `_fit_cdd`: `fit_cdd`, which checks its arguments and chooses the search
- `_search`: the search for a product of any number of factors
- `_peeling_start`, `_low_rank_start`: products that are read off the matrix, to start from
- `_levenberg_marquardt`: steps of second order to a minimum of a sum of squares
- `_lbfgs`: small steps from a product to a minimum of an objective
- `_objective`: the error of products by their flat parameters, and its gradient
- `_low_rank_product`: products of five factors in closed form
- `_three_factor_search`: the search for three factors, on any grid of blocks
- `_synchronisation`: the phases of planted products of three factors, read off a matrix
- `_closed_forms`: products of three factors in closed form
- `_alternation`: alternating least squares for three factors
- `_block_grid`: a matrix in blocks, the three vectors of a product, sums over blocks
- `_control`: what ends a search early and what it reports on the way
- `_problem`: what a fit is asked for, and what a search has found
- `_result`: what fits return
- `_baselines`: the best members of other families, for comparison
- `_matrices`: what all of these ask of a matrix
"""

from __future__ import annotations

from structmat.fit._baselines import BASELINES, baseline_errors
from structmat.fit._control import FitProgress
from structmat.fit._curve_result import ErrorCurve
from structmat.fit._error_curve import CurveProgress, error_curve
from structmat.fit._factorize_cdd import factorize_cdd
from structmat.fit._fit_cdd import fit_cdd
from structmat.fit._phase_mask_fit import PhaseMaskFit
from structmat.fit._phase_masks import fit_phase_masks, phase_mask_product
from structmat.fit._result import FitResult

__all__ = [
    "BASELINES",
    "CurveProgress",
    "ErrorCurve",
    "FitProgress",
    "FitResult",
    "PhaseMaskFit",
    "baseline_errors",
    "error_curve",
    "factorize_cdd",
    "fit_cdd",
    "fit_phase_masks",
    "phase_mask_product",
]
