"""Operators: structured matrices that multiply a vector in O(n log n), on any array library.

A family of your own needs none of these files: see `structmat.extend`. `docs/guide/new_operator.md` says what one needs
that is to become a part of the package.
"""

from __future__ import annotations

from structmat.operators import _families  # noqa: F401  # which registers sums, products and multiples
from structmat.operators._block_circulant import BlockCirculant
from structmat.operators._cdd import CDDLayout, CDDProduct, FactorKind
from structmat.operators._circulants import BandedCirculant, Circulant, SpectralCirculant
from structmat.operators._combinations import Indices, Product, Scaled, Submatrix, Sum
from structmat.operators._diagonal import Diagonal, Fourier, Identity
from structmat.operators._linear_operator import LinearOperator, SpectralFunction
from structmat.operators._multilevel import MultilevelCirculant, MultilevelToeplitz
from structmat.operators._prepared import Prepared
from structmat.operators._products import Context, PairRules, add, compose, scale
from structmat.operators._toeplitz import Hankel, Toeplitz, ToeplitzInverse

__all__ = [
    "BandedCirculant",
    "BlockCirculant",
    "CDDLayout",
    "CDDProduct",
    "Circulant",
    "Context",
    "Diagonal",
    "FactorKind",
    "Fourier",
    "Hankel",
    "Identity",
    "Indices",
    "LinearOperator",
    "MultilevelCirculant",
    "MultilevelToeplitz",
    "PairRules",
    "Prepared",
    "Product",
    "Scaled",
    "SpectralCirculant",
    "SpectralFunction",
    "Submatrix",
    "Sum",
    "Toeplitz",
    "ToeplitzInverse",
    "add",
    "compose",
    "scale",
]
