"""The engine: Fourier transforms along the last axis, and plans, which compute the products of operators by them.

The only folder that names an FFT. It takes arrays and returns arrays, and knows no operator. Map of the package:

- `products`: a product with everything looked up before, for vectors of one type and dtype
- `composition_plan`, `convolution_plan`, `block_convolution_plan`, `multilevel_plan`, `shift_plan`, `bezoutian_plan`:
  plans of chains of factors, of a circular convolution, of a grid of them, of one along several axes, of a circulant
  of two entries, and of the inverse of a Toeplitz matrix
- `plan`, `chunks`: the interface of plans, and batches of vectors that they take a part at a time
- `numpy_convolutions`, `four_step`: convolutions of NumPy vectors by each method, and of one long vector
- `engines`, `measured_choices`, `engine_report`: the libraries that transform, which is fastest where, and the report
- `transforms`, `lengths`: Fourier transforms on any array library, and lengths that suit them
"""

from __future__ import annotations

from structmat._engine.bezoutian_plan import Bezoutian, bezoutian
from structmat._engine.block_convolution_plan import BlockConvolution, by_frequency
from structmat._engine.composition_plan import Composition, Scaling
from structmat._engine.convolution_plan import Convolution, convolution
from structmat._engine.engines import Engine, Settings, ducc, require_engine
from structmat._engine.lengths import cyclic_kernel, fast_length, is_fast, kernel_of_diagonals
from structmat._engine.measured_choices import direct_up_to
from structmat._engine.multilevel_plan import (
    MultilevelConvolution,
    multilevel_convolution,
    multilevel_corner,
    multilevel_fft,
    multilevel_ifft,
    reversed_levels,
)
from structmat._engine.numpy_convolutions import transforms
from structmat._engine.plan import ByParts, ChunkedPlan, Plan, Step, handed_over
from structmat._engine.products import Products, products_of
from structmat._engine.shift_plan import ShiftAndAdd
from structmat._engine.transforms import fft, from_spectrum, full_spectrum, ifft, spectrum

__all__ = [
    "Bezoutian",
    "BlockConvolution",
    "ByParts",
    "ChunkedPlan",
    "Composition",
    "Convolution",
    "Engine",
    "MultilevelConvolution",
    "Plan",
    "Products",
    "Scaling",
    "Settings",
    "ShiftAndAdd",
    "Step",
    "bezoutian",
    "by_frequency",
    "convolution",
    "cyclic_kernel",
    "direct_up_to",
    "ducc",
    "fast_length",
    "fft",
    "from_spectrum",
    "full_spectrum",
    "handed_over",
    "ifft",
    "is_fast",
    "kernel_of_diagonals",
    "multilevel_convolution",
    "multilevel_corner",
    "multilevel_fft",
    "multilevel_ifft",
    "products_of",
    "require_engine",
    "reversed_levels",
    "spectrum",
    "transforms",
]
