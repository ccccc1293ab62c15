"""Linear systems and least squares with any operator: by its closed form, or by iteration where it has none."""

from __future__ import annotations

from structmat.linear_systems._solve import lstsq, solve
from structmat.linear_systems._systems import ConvergenceError, SolveResult

__all__ = ["ConvergenceError", "SolveResult", "lstsq", "solve"]
