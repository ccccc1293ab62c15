"""The base of all operators: products and arithmetic in `operator`, linear algebra on top in `linear_operator`.

Where a plan of the engine computes the products, `planned` is the base.
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
