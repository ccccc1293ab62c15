"""Circulant, diagonal and block-circulant matrices, their products, and the fit of a matrix by such a product.

Operators (any array library: NumPy, PyTorch, JAX, CuPy)
    `Circulant`, `SpectralCirculant`, `Diagonal`, `BlockCirculant`, `CDDProduct`, `Toeplitz`, `Hankel`; `Identity` and
    `Fourier`; `Product`, `Sum` and `Scaled` for what stays lazy; `Prepared` for many products by one operator, which
    `prepare` makes; `LinearOperator`, the base of all. `show_config` tells which engine computes them.
Fits
    `fit_cdd` approximates a matrix by interleaved diagonal and circulant factors, and returns a `FitResult`.
    `error_curve` does so with more and more factors, beside other families of the same size: an `ErrorCurve`.
Modules
    `structmat.preconditioners` (circulants for Toeplitz systems), `structmat.scipy` (bridge to SciPy's solvers),
    `structmat.io` (files), `structmat.plot` (figures), `structmat.studies` (whole checkpoints, parallel and resumable),
    `structmat.jax` (pytrees), `structmat.testing` (checks for operators of your own), `structmat.cli` (the `structmat`
    command).
"""

from __future__ import annotations

import importlib
from types import ModuleType

from structmat import preconditioners, testing
from structmat._algebra import Product, Scaled, Sum
from structmat._base import LinearOperator
from structmat._config import show_config
from structmat._linalg import EigResult, SlogdetResult
from structmat._neutral import Fourier, Identity
from structmat._prepared import Prepared
from structmat.block_circulant import BlockCirculant
from structmat.cdd import CDDProduct
from structmat.circulant import Circulant, SpectralCirculant
from structmat.diagonal import Diagonal
from structmat.fit import ErrorCurve, FitResult, error_curve, factorize_cdd, fit_cdd
from structmat.toeplitz import Hankel, Toeplitz

__version__ = "0.1.0"

__all__ = [
    "BlockCirculant",
    "CDDProduct",
    "Circulant",
    "Diagonal",
    "EigResult",
    "ErrorCurve",
    "FitResult",
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
    "error_curve",
    "factorize_cdd",
    "fit_cdd",
    "preconditioners",
    "show_config",
    "testing",
]


def __getattr__(name: str) -> ModuleType:
    """Import ``sm.io``, ``sm.plot`` and ``sm.scipy`` on first use: they would more than double the import time."""
    if name in {"io", "plot", "scipy"}:
        return importlib.import_module(f"structmat.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
