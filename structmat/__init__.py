"""Circulant, diagonal, block-circulant and Toeplitz matrices and their products, on NumPy, PyTorch and JAX arrays.

Beside operators there are least-squares fits of a given matrix by such products, and layers that fine-tune a network
with 3 n numbers a matrix, as in *Parameter-Efficient Fine-Tuning with Circulant and Diagonal Vectors*.

Operators (any array library: NumPy, PyTorch, JAX, CuPy, MLX, Dask)
    Circulant matrices: `Circulant`, `SpectralCirculant`, `MultilevelCirculant`, `BandedCirculant`, `BlockCirculant`;
    diagonal ones: `Diagonal`, `Identity`; products of both: `CDDProduct`;
    matrices with constant diagonals: `Toeplitz`, `MultilevelToeplitz`, `BlockToeplitz`, `Hankel`, `ToeplitzInverse`;
    unitary transforms: `Fourier`, `CosineTransform`, `SineTransform`; matrices that they make diagonal, with edges that
    reflect or vanish: `SpectralMultiplier`, `laplacian`; `GridConvolution`, of any kernel with such edges;
    `Kronecker` products and `KroneckerSum`, of any operators and of small `Dense` matrices; `Eigendecomposition`;
    lazy combinations: `Product`, `Sum`, `Scaled`; `Submatrix` for some rows and columns; `Prepared`, returned by
    `prepare`, for many products by one operator;
    `LinearOperator`, the base class; `CDDLayout`, the shape of a CDD product. `show_config` prints which engine is
    used.
Fits
    `fit_cdd` approximates a matrix by alternating diagonal and circulant factors, and returns a `FitResult`;
    `factorize_cdd` returns an exact product; `fit_phase_masks` takes factors of modulus one alone, as optics builds
    them, and returns a `PhaseMaskFit`. `error_curve` compares fits of more and more factors with other families:
    an `ErrorCurve`.
Linear systems
    `solve` and `lstsq` take any operator: they use its closed form, or iterate where it has none, by the methods `CG`,
    `GMRES` or `LSMR`, and return a `SolveResult`; `slogdet` estimates log-determinants, with a standard error;
    `posterior_variances` returns how uncertain a measured process is, `PosteriorVariances`. Series have a direct
    factor, `Superfast`. What does not converge is a `ConvergenceError`.
Modules
    `structmat.operators`, `structmat.fit`, `structmat.linear_systems` (all of the above), `structmat.preconditioners`
    (circulants for Toeplitz systems), `structmat.sampling` (stationary Gaussian processes), `structmat.extend` (for
    operators of your own), `structmat.testing` (the laws they obey), `structmat.io` (files), `structmat.plot`
    (figures), `structmat.scipy` (bridge to SciPy's solvers), `structmat.jax` (pytrees), `structmat.torch` (layers),
    `structmat.peft` (the method of Hugging Face PEFT), `structmat.studies` (whole checkpoints, parallel and resumable),
    `structmat.cli` (the `structmat` command). All are imported on first use.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # not that of `typing`, which takes as long as all the rest
if TYPE_CHECKING:
    from typing import Any

    from structmat import extend, linear_systems, preconditioners, sampling, testing
    from structmat._errors import ArgumentError, ArgumentTypeError, ArgumentValueError
    from structmat._show_config import show_config
    from structmat.fit import (
        ErrorCurve,
        FitResult,
        PhaseMaskFit,
        error_curve,
        factorize_cdd,
        fit_cdd,
        fit_phase_masks,
    )
    from structmat.linear_systems import (
        CG,
        GMRES,
        LSMR,
        Attempt,
        ConvergenceError,
        PosteriorVariances,
        SlogdetEstimate,
        SolveResult,
        Superfast,
        lstsq,
        posterior_variances,
        slogdet,
        solve,
    )
    from structmat.operators import (
        BandedCirculant,
        BlockCirculant,
        BlockToeplitz,
        CDDLayout,
        CDDProduct,
        Circulant,
        CosineTransform,
        Dense,
        Diagonal,
        Eigendecomposition,
        Fourier,
        GridConvolution,
        Hankel,
        Identity,
        Kronecker,
        KroneckerSum,
        LinearOperator,
        MultilevelCirculant,
        MultilevelToeplitz,
        Prepared,
        Product,
        Scaled,
        SineTransform,
        SpectralCirculant,
        SpectralMultiplier,
        Submatrix,
        Sum,
        Toeplitz,
        ToeplitzInverse,
        laplacian,
    )

__version__ = "0.1.0"

__all__ = [
    "CG",
    "GMRES",
    "LSMR",
    "ArgumentError",
    "ArgumentTypeError",
    "ArgumentValueError",
    "Attempt",
    "BandedCirculant",
    "BlockCirculant",
    "BlockToeplitz",
    "CDDLayout",
    "CDDProduct",
    "Circulant",
    "ConvergenceError",
    "CosineTransform",
    "Dense",
    "Diagonal",
    "Eigendecomposition",
    "ErrorCurve",
    "FitResult",
    "Fourier",
    "GridConvolution",
    "Hankel",
    "Identity",
    "Kronecker",
    "KroneckerSum",
    "LinearOperator",
    "MultilevelCirculant",
    "MultilevelToeplitz",
    "PhaseMaskFit",
    "PosteriorVariances",
    "Prepared",
    "Product",
    "Scaled",
    "SineTransform",
    "SlogdetEstimate",
    "SolveResult",
    "SpectralCirculant",
    "SpectralMultiplier",
    "Submatrix",
    "Sum",
    "Superfast",
    "Toeplitz",
    "ToeplitzInverse",
    "error_curve",
    "extend",
    "factorize_cdd",
    "fit_cdd",
    "fit_phase_masks",
    "laplacian",
    "linear_systems",
    "lstsq",
    "posterior_variances",
    "preconditioners",
    "sampling",
    "show_config",
    "slogdet",
    "solve",
    "testing",
]


_MODULES = frozenset(
    [
        *("cli", "extend", "fit", "io", "jax", "linear_systems", "operators", "peft", "plot", "preconditioners"),
        *("sampling", "scipy", "studies", "testing", "torch"),
    ]
)
"""Modules that are imported when they are first asked for: some bring a framework, all together take a while."""

_MODULES_OF_NAMES = dict.fromkeys(
    (
        *("ErrorCurve", "FitResult", "PhaseMaskFit"),
        *("error_curve", "factorize_cdd", "fit_cdd", "fit_phase_masks"),
    ),
    "fit",
)
_MODULES_OF_NAMES |= dict.fromkeys(
    (
        *("CG", "GMRES", "LSMR", "Attempt", "ConvergenceError", "PosteriorVariances", "SlogdetEstimate"),
        *("SolveResult", "Superfast"),
        *("lstsq", "posterior_variances", "slogdet", "solve"),
    ),
    "linear_systems",
)
_MODULES_OF_NAMES |= dict.fromkeys(("ArgumentError", "ArgumentTypeError", "ArgumentValueError"), "_errors")
_MODULES_OF_NAMES |= {"show_config": "_show_config"}
_MODULES_OF_NAMES |= {name: "operators" for name in __all__ if name not in {*_MODULES_OF_NAMES, *_MODULES}}
"""Where the names of the package are, which are imported on first use too: the command answers Ctrl-C before that."""


def __getattr__(name: str) -> Any:
    """Import a module such as ``sm.io``, or a function of one such as ``sm.fit_cdd``, on first use."""
    if name in _MODULES:
        return importlib.import_module(f"structmat.{name}")
    if (module := _MODULES_OF_NAMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"structmat.{module}"), name)
    globals()[name] = value  # so that it is asked for once
    return value


def __dir__() -> list[str]:
    """Return what the package offers, what is not imported yet included."""
    return sorted({*__all__, "__version__", *_MODULES})
