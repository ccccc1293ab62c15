"""Linear systems, least squares and log-determinants of any operator: by its closed form, or by other ways.

The doors, each of which reads its arguments and takes its ways, the cheapest first, until its judge agrees
(`structmat._ways.settle`):

- `_solve`: `solve` and `lstsq`, with the tables of their ways;
- `_logdet`: `slogdet`, with the table of its ways;
- `_posterior`: `posterior_variances`;
- `_results`: what they return, and the error where nothing suffices.

The ways to solutions. A new one is a class with `name`, `cost` and `run` in a file, and a line in a table of `_solve`:

- `_bands`: narrow bands by LAPACK;
- `_direct_factor`: direct factors of series, where they take less than iteration; `_superfast` makes them;
- `_iteration`: the methods of `_cg`, `_gmres` and `_lsmr` (`_krylov_method`) in several passes, preconditioned by
  `_preconditioner`;
- `_elimination`: dense matrices; `_written_out` says which.

What they share:

- `_thresholds`: every number that decides which way is taken and what is good enough, with what set it;
- `_problem`: a system, of which all that ways ask is found once, and what was asked for (`Options`);
- `_stopping`: when a solution is good enough, by its residual or backward error;
- `_differentiable`: the same loop under the implicit rule of a library, of systems and of least squares;
- `_even_noise`: what a sum is that is a Toeplitz matrix;
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
from structmat.linear_systems._results import Attempt, ConvergenceError, SlogdetEstimate, SolveResult
from structmat.linear_systems._solve import lstsq, solve
from structmat.linear_systems._superfast import Superfast

__all__ = [
    "CG",
    "GMRES",
    "LSMR",
    "Attempt",
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
