"""Operators: structured matrices that multiply a vector in O(n log n), on any array library."""

from __future__ import annotations

from structmat.operators._base import Context, EigResult, LinearOperator, SlogdetResult, SpectralFunction
from structmat.operators._block_circulant import BlockCirculant
from structmat.operators._cdd_layout import CDDLayout
from structmat.operators._cdd_product import CDDProduct, FactorKind
from structmat.operators._circulant import Circulant, SpectralCirculant
from structmat.operators._combinations import Prepared, Product, Scaled, Sum
from structmat.operators._cyclic_bidiagonal import CyclicBidiagonal
from structmat.operators._diagonal import Diagonal
from structmat.operators._identity import Fourier, Identity
from structmat.operators._toeplitz import Hankel, Toeplitz

__all__ = [
    "BlockCirculant",
    "CDDLayout",
    "CDDProduct",
    "Circulant",
    "Context",
    "CyclicBidiagonal",
    "Diagonal",
    "EigResult",
    "FactorKind",
    "Fourier",
    "Hankel",
    "Identity",
    "LinearOperator",
    "Prepared",
    "Product",
    "Scaled",
    "SlogdetResult",
    "SpectralCirculant",
    "SpectralFunction",
    "Sum",
    "Toeplitz",
]
