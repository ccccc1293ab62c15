"""Linear systems and least squares with any operator: by its closed form, or by iteration where it has none.

Map of the package; each file imports only from lines below it:

- `_solve`: the public functions `solve` and `lstsq`
- `_iterate`: from an operator to a solution, whatever the library: refinement, checks, gradients in torch
- `_scipy_solvers`: NumPy arrays, by the solvers of SciPy
- `_jax_solvers`: JAX arrays, by the solvers of JAX
- `_conjugate_gradients`: arrays of any other library, such as torch
- `_gradients`: the implicit rule in torch
- `_nearest`: preconditioners, the nearest circulant or diagonal matrix
- `_scaling`: systems divided by powers of two, so that no square overflows or underflows
- `_measures`: how to iterate, and when a solution is good enough
- `_result`: what comes back
"""

from __future__ import annotations

from structmat.linear_systems._result import ConvergenceError, SolveResult
from structmat.linear_systems._solve import lstsq, solve

__all__ = ["ConvergenceError", "SolveResult", "lstsq", "solve"]
