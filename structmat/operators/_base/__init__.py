"""The base of all operators, in parts; each class is derived from that in the line below.

- `planned`: an operator whose products are those of a plan of the engine
- `linear_operator`: `LinearOperator`, systems of equations, eigenvalues, determinants and norms
- `matrix_functions`: square roots, exponentials, logarithms, powers
- `hooks`: the hooks that an operator overrides where it has a closed form
- `arithmetic`: products, sums, multiples and powers of operators
- `operator`: products with arrays, transposes, precision
- `spectral_functions`: what the closed forms share, on arrays
"""

from __future__ import annotations

from structmat.operators._base.linear_operator import EigResult, LinearOperator, SlogdetResult
from structmat.operators._base.operator import Context
from structmat.operators._base.planned import Planned
from structmat.operators._base.spectral_functions import NormOrder, SpectralFunction, spectral_rounding

__all__ = [
    "Context",
    "EigResult",
    "LinearOperator",
    "NormOrder",
    "Planned",
    "SlogdetResult",
    "SpectralFunction",
    "spectral_rounding",
]
