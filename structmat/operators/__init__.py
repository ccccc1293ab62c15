"""Operators: structured matrices that multiply a vector in O(n log n), on any array library."""

from __future__ import annotations

from structmat.operators._algebra import Product, Scaled, Sum
from structmat.operators._base import LinearOperator
from structmat.operators._block_circulant import BlockCirculant
from structmat.operators._cdd_product import CDDProduct
from structmat.operators._circulant import Circulant, SpectralCirculant
from structmat.operators._closed_forms import EigResult, SlogdetResult
from structmat.operators._diagonal import Diagonal
from structmat.operators._identity import Fourier, Identity
from structmat.operators._prepared import Prepared
from structmat.operators._toeplitz import Hankel, Toeplitz

__all__ = [
    "BlockCirculant",
    "CDDProduct",
    "Circulant",
    "Diagonal",
    "EigResult",
    "Fourier",
    "Hankel",
    "Identity",
    "LinearOperator",
    "Prepared",
    "Product",
    "Scaled",
    "SlogdetResult",
    "SpectralCirculant",
    "Sum",
    "Toeplitz",
]
