"""Linear systems, least squares and log-determinants of any operator: by its closed form, or by other ways.

The doors:

- `_solve`: `solve` and `lstsq`, which read their arguments and choose the ways;
- `_logdet`: `slogdet`, with the table of its ways;
- `_posterior`: `posterior_variances`;
- `_results`: what they return, the error where nothing suffices, and what a way is (`Way`).

The ways, each of which says which of its solutions are good enough:

- `_bands`: narrow bands by LAPACK;
- `_elimination`: dense matrices, with the sizes up to which they are written out;
- `_iteration`: the methods of `_cg`, `_gmres` and `_lsmr` (`_krylov_method`) in several passes, preconditioned by
  `_preconditioner`;
- `_superfast`: direct factors of series;
- `_even_noise`: what a sum is that is a Toeplitz matrix.

What they share:

- `_stopping`: when a solution is good enough, by its residual or backward error;
- `_differentiable`: ways one after the other, with derivatives, of systems and of least squares;
- `_scaling`: powers of two against overflow, and norms; `_stack_members`: members of stacks.

Log-determinants: `_logdet_errors` says how far off they may be; `_lanczos` estimates them, with `_control_variate`, and
`_logdet_derivatives` differentiates estimates; `_hermitian` checks their matrices.
"""

from __future__ import annotations

from structmat.linear_systems._cg import CG
from structmat.linear_systems._gmres import GMRES
from structmat.linear_systems._logdet import slogdet
from structmat.linear_systems._lsmr import LSMR
from structmat.linear_systems._posterior import PosteriorVariances, posterior_variances
from structmat.linear_systems._results import ConvergenceError, SlogdetEstimate, SolveResult
from structmat.linear_systems._solve import lstsq, solve
from structmat.linear_systems._superfast import Superfast

__all__ = [
    "CG",
    "GMRES",
    "LSMR",
    "ConvergenceError",
    "PosteriorVariances",
    "SlogdetEstimate",
    "SolveResult",
    "Superfast",
    "lstsq",
    "posterior_variances",
    "slogdet",
    "solve",
]
