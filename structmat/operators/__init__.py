"""Operators: structured matrices that multiply a vector in O(n log n), on any array library.

Map of the package; a family of matrices is a file or a folder, and imports only from lines below it:

- `_families`: which family of matrices holds which, and the sums and products that follow
- `_cdd_layout`: the shape of a CDD product
- `_cdd_product`: interleaved circulant and diagonal factors
- `_rounding`: how rounding errors grow in a chain of factors
- `_multilevel_toeplitz`: Toeplitz matrices of several levels, for grids
- `_block_circulant`: grids of circulants
- `_toeplitz`: Toeplitz and Hankel matrices
- `_constant_diagonals`: what the two share
- `_toeplitz_inverse`: the inverses of both, by two vectors
- `_banded_circulant`: circulants of few diagonals, by shifts
- `_multilevel_circulant`: circulants of several levels, for grids
- `_circulant`: circulants, held by their first column or by their spectrum
- `_diagonal`: diagonal matrices
- `_combinations`: products, sums, multiples, and prepared operators
- `_grid`: points of grids and the offsets between them
- `_entry_norms`, `_norm_estimate`: norms of scaled grids of circulants by their entries, and norms from few products
- `_spectra`: arithmetic on spectra, on arrays
- `_identity`: the identity and the Fourier matrix
- `_base`: what every operator does, `LinearOperator`

A family of your own needs none of these files: see `structmat.extend`. `docs/guide/new_operator.md` says what one needs
that is to become a part of the package.
"""

from __future__ import annotations

from structmat.operators import _families  # noqa: F401  # which registers sums, products and multiples
from structmat.operators._banded_circulant import BandedCirculant
from structmat.operators._base import Context, EigResult, LinearOperator, SlogdetResult, SpectralFunction
from structmat.operators._block_circulant import BlockCirculant
from structmat.operators._cdd_layout import CDDLayout
from structmat.operators._cdd_product import CDDProduct, FactorKind
from structmat.operators._circulant import Circulant, SpectralCirculant
from structmat.operators._combinations import Prepared, Product, Scaled, Sum
from structmat.operators._diagonal import Diagonal
from structmat.operators._identity import Fourier, Identity
from structmat.operators._multilevel_circulant import MultilevelCirculant
from structmat.operators._multilevel_toeplitz import MultilevelToeplitz
from structmat.operators._toeplitz import Hankel, Toeplitz
from structmat.operators._toeplitz_inverse import ToeplitzInverse

__all__ = [
    "BandedCirculant",
    "BlockCirculant",
    "CDDLayout",
    "CDDProduct",
    "Circulant",
    "Context",
    "Diagonal",
    "EigResult",
    "FactorKind",
    "Fourier",
    "Hankel",
    "Identity",
    "LinearOperator",
    "MultilevelCirculant",
    "MultilevelToeplitz",
    "Prepared",
    "Product",
    "Scaled",
    "SlogdetResult",
    "SpectralCirculant",
    "SpectralFunction",
    "Sum",
    "Toeplitz",
    "ToeplitzInverse",
]
