"""Operators: structured matrices that multiply a vector in O(n log n), on any array library.

Each folder imports only from those below it:

- `_family_rules`: which family holds which, and the sums, products and multiples that follow
- `_cdd`: products of interleaved circulant and diagonal matrices
- `_blocks`: grids of circulants, block Toeplitz matrices
- `_composed`: sums, products, multiples, Kronecker products, submatrices, prepared operators
- `_families`: diagonal, circulant, Toeplitz and Hankel matrices, transforms, and their relatives on grids
- `_base`: the base class, its hooks, storage, indices and arithmetic

A family of your own needs none of these files: see `structmat.extend`. `docs/guide/new_operator.md` says what one needs
that is to become a part of the package.
"""

from __future__ import annotations

from structmat.operators._base.arithmetic import PairRules, add, compose, scale
from structmat.operators._base.closed_forms import ClosedForm, NoClosedFormError
from structmat.operators._base.combination import combined
from structmat.operators._base.constant import Constant
from structmat.operators._base.determinants import error_of_eigenvalues, sign_and_log
from structmat.operators._base.hooks import Context, NormOrder
from structmat.operators._base.indices import Indices
from structmat.operators._base.linear_operator import (
    LinearOperator,
    Planned,
    SlogdetResult,
    closed_forms,
)
from structmat.operators._base.near import Near, NearCirculant
from structmat.operators._base.parts import require_operators, values_of
from structmat.operators._base.spectral_functions import (
    SpectralFunction,
    function_of_entries,
    is_real_at,
    spectral_rounding,
)
from structmat.operators._base.wrapper import Wrapper
from structmat.operators._blocks.block_circulant import BlockCirculant
from structmat.operators._blocks.block_toeplitz import BlockToeplitz
from structmat.operators._cdd.layout import CDDLayout
from structmat.operators._cdd.product import CDDProduct, FactorKind
from structmat.operators._composed.chain import Chain
from structmat.operators._composed.eigendecomposition import Eigendecomposition
from structmat.operators._composed.kronecker import Kronecker
from structmat.operators._composed.kronecker_sum import KroneckerSum
from structmat.operators._composed.prepared import Prepared, plan_of_parts
from structmat.operators._composed.product import Product
from structmat.operators._composed.scaled import Scaled, identity_factor
from structmat.operators._composed.submatrix import Submatrix
from structmat.operators._composed.sum import Sum
from structmat.operators._families.circulants import BandedCirculant, Circulant, SpectralCirculant
from structmat.operators._families.dense import Dense
from structmat.operators._families.diagonal import Diagonal, Identity
from structmat.operators._families.grid_convolution import GridConvolution
from structmat.operators._families.multilevel import MultilevelCirculant, MultilevelToeplitz
from structmat.operators._families.spectral_multiplier import SpectralMultiplier, laplacian
from structmat.operators._families.toeplitz import Hankel, Toeplitz, ToeplitzInverse
from structmat.operators._families.transforms import CosineTransform, Fourier, SineTransform
from structmat.operators._family_rules import register_family

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
    "error_of_eigenvalues",
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
