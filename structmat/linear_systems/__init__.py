"""Linear systems, least squares and log-determinants of any operator: by its closed form, or by iteration."""

from __future__ import annotations

from structmat.linear_systems._logdet import SlogdetEstimate, slogdet
from structmat.linear_systems._solve import lstsq, solve
from structmat.linear_systems._systems import ConvergenceError, SolveResult

__all__ = ["ConvergenceError", "SlogdetEstimate", "SolveResult", "lstsq", "slogdet", "solve"]
