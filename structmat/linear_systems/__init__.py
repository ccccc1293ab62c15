"""Linear systems and least squares with any operator: by its closed form, or by iteration where it has none.

Map of the package; each file imports only from lines below it:

- `_solve`: `solve` and `lstsq`: arguments, closed forms, and from an operator to a solution by iteration
- `_scipy_solvers`: NumPy arrays, by the solvers of SciPy
- `_jax_solvers`: JAX arrays, by the solvers of JAX
- `_conjugate_gradients`: arrays of any other library, such as torch
- `_gradients`: the implicit rule in torch
- `_preconditioning`: the nearest circulant or diagonal matrix, and systems divided by powers of two
- `_result`: what comes back, how to iterate, and when a solution is good enough
"""

from __future__ import annotations

from structmat.linear_systems._result import ConvergenceError, SolveResult
from structmat.linear_systems._solve import lstsq, solve

__all__ = ["ConvergenceError", "SolveResult", "lstsq", "solve"]
