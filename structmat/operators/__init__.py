"""Operators: structured matrices that multiply a vector in O(n log n), on any array library.

A family of your own needs none of these files: see `structmat.extend`. `docs/guide/new_operator.md` says what one needs
that is to become a part of the package.
"""

from __future__ import annotations

from structmat.operators._arithmetic import PairRules, add, compose, scale
from structmat.operators._block_circulant import BlockCirculant
from structmat.operators._block_toeplitz import BlockToeplitz
from structmat.operators._cdd_layout import CDDLayout
from structmat.operators._cdd_product import CDDProduct, FactorKind
from structmat.operators._chain import Chain
from structmat.operators._circulants import BandedCirculant, Circulant, SpectralCirculant
from structmat.operators._closed_forms import ClosedForm, NoClosedFormError
from structmat.operators._combination import combined
from structmat.operators._constant import Constant
from structmat.operators._dense import Dense
from structmat.operators._determinants import sign_and_log
from structmat.operators._diagonal import Diagonal, Identity
from structmat.operators._eigendecomposition import Eigendecomposition
from structmat.operators._families import register_family
from structmat.operators._grid_convolution import GridConvolution
from structmat.operators._hooks import Context, NormOrder
from structmat.operators._indices import Indices
from structmat.operators._kronecker import Kronecker
from structmat.operators._kronecker_sum import KroneckerSum
from structmat.operators._linear_operator import (
    LinearOperator,
    Planned,
    SlogdetResult,
    closed_forms,
)
from structmat.operators._multilevel import MultilevelCirculant, MultilevelToeplitz
from structmat.operators._near import Near, NearCirculant
from structmat.operators._parts import require_operators, values_of
from structmat.operators._prepared import Prepared, plan_of_parts
from structmat.operators._product import Product
from structmat.operators._scaled import Scaled, identity_factor
from structmat.operators._spectral_functions import SpectralFunction, function_of_entries, is_real_at, spectral_rounding
from structmat.operators._spectral_multiplier import SpectralMultiplier, laplacian
from structmat.operators._submatrix import Submatrix
from structmat.operators._sum import Sum
from structmat.operators._toeplitz import Hankel, Toeplitz, ToeplitzInverse
from structmat.operators._transforms import CosineTransform, Fourier, SineTransform
from structmat.operators._wrapper import Wrapper

__all__ = [
    "BandedCirculant",
    "BlockCirculant",
    "BlockToeplitz",
    "CDDLayout",
    "CDDProduct",
    "Chain",
    "Circulant",
    "ClosedForm",
    "Constant",
    "Context",
    "CosineTransform",
    "Dense",
    "Diagonal",
    "Eigendecomposition",
    "FactorKind",
    "Fourier",
    "GridConvolution",
    "Hankel",
    "Identity",
    "Indices",
    "Kronecker",
    "KroneckerSum",
    "LinearOperator",
    "MultilevelCirculant",
    "MultilevelToeplitz",
    "Near",
    "NearCirculant",
    "NoClosedFormError",
    "NormOrder",
    "PairRules",
    "Planned",
    "Prepared",
    "Product",
    "Scaled",
    "SineTransform",
    "SlogdetResult",
    "SpectralCirculant",
    "SpectralFunction",
    "SpectralMultiplier",
    "Submatrix",
    "Sum",
    "Toeplitz",
    "ToeplitzInverse",
    "Wrapper",
    "add",
    "closed_forms",
    "combined",
    "compose",
    "function_of_entries",
    "identity_factor",
    "is_real_at",
    "laplacian",
    "plan_of_parts",
    "register_family",
    "require_operators",
    "scale",
    "sign_and_log",
    "spectral_rounding",
    "values_of",
]
