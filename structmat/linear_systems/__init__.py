"""Linear systems and least squares with any operator: by its closed form, or by iteration where it has none.

Map of the package; each file imports only from lines below it:

- `_solve`: `solve` and `lstsq`: arguments, closed forms, and from an operator to a solution by iteration
- `_krylov`: iteration with NumPy arrays, by SciPy, and with arrays of any other library, such as torch
- `_jax_solvers`: JAX arrays, by the solvers of JAX
- `_gradients`: the implicit rule in torch
- `_systems`: systems of moderate size with their preconditioners, results, and when a solution is good enough
"""

from __future__ import annotations

from structmat.linear_systems._solve import lstsq, solve
from structmat.linear_systems._systems import ConvergenceError, SolveResult

__all__ = ["ConvergenceError", "SolveResult", "lstsq", "solve"]
