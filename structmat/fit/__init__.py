"""Numerical fits of a given matrix by a product of diagonal and (block-)circulant factors.

Map of the package; each line imports only from lines below it:

- `_curve`: `error_curve`, fits with more and more factors
- `_factorize_cdd`: `factorize_cdd`, a product that reproduces a matrix
- `_exact`: closed forms that it recognises, constructions of any size, and its search
- `_fit_cdd`: `fit_cdd`
- `_strategies`: the ways that `fit_cdd` goes
- `_product_error`: the error of a fit through its products
- `_many_factors`: the search for a product of any number of factors
- `_baselines`: the best members of other families, for comparison
- `_three_factors`: steps in closed form for three factors on any grid of blocks
- `_warm_start`: the product that the user gives to start from
- `_arguments`, `_second_moment`: checks of arguments that go together, and the weights of errors
- `_control`: what ends a fit early, and who hears of its progress
- `_leading_triplets`: the largest singular values of a matrix and their vectors
- `_start_product`: products that are known before a search begins
- `_result`: what fits return and report

To add one, write a file with one function and put it into a list: a start for three factors into `STARTS` of
`_three_factors.start_list`, one for more factors into `MATRIX_STARTS` of `_many_factors.start_list`, a solver on the
matrix into `MATRIX_SOLVERS` of `_many_factors.solver_list` (and its name into the signature of `fit_cdd`), a closed
form into `RECOGNISERS` of `_exact.recognisers`, a baseline into `BASELINES` of `_baselines`.
"""

from __future__ import annotations

from structmat.fit._baselines.baseline_errors import (
    baseline_errors,
    baseline_names,
    closed_form_errors,
    truncated_svd_error,
    weighted_norm,
)
from structmat.fit._curve.error_curve import CurveProgress, error_curve
from structmat.fit._curve.result import ErrorCurve
from structmat.fit._factorize_cdd import factorize_cdd
from structmat.fit._fit_cdd import fit_cdd
from structmat.fit._result import FitProgress, FitResult

__all__ = [
    "CurveProgress",
    "ErrorCurve",
    "FitProgress",
    "FitResult",
    "baseline_errors",
    "baseline_names",
    "closed_form_errors",
    "error_curve",
    "factorize_cdd",
    "fit_cdd",
    "truncated_svd_error",
    "weighted_norm",
]
