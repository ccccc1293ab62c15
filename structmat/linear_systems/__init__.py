"""Linear systems, least squares and log-determinants of any operator: by its closed form, or by iteration."""

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
