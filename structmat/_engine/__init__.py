"""Fourier transforms and convolutions along the last axis; the only folder that names an FFT."""

from __future__ import annotations

from structmat._engine.chunks import in_chunks, rows_in_chunk
from structmat._engine.convolve import convolver, transforms
from structmat._engine.engines import Engine, Settings, choices, ducc, method_for, require_engine
from structmat._engine.four_step import FourStep, column_length
from structmat._engine.lengths import cyclic_kernel, fast_length, is_fast, kernel_of_diagonals
from structmat._engine.table import (
    CHUNK,
    DUCC_CONVOLUTION,
    LARGEST_PRIME,
    PLAIN,
    STEPS,
    TORCH_CHUNK,
    TORCH_LARGE,
    direct_sizes,
    direct_up_to,
)
from structmat._engine.transforms import fft, from_spectrum, full_spectrum, ifft, spectrum

__all__ = [
    "CHUNK",
    "DUCC_CONVOLUTION",
    "LARGEST_PRIME",
    "PLAIN",
    "STEPS",
    "TORCH_CHUNK",
    "TORCH_LARGE",
    "Engine",
    "FourStep",
    "Settings",
    "choices",
    "column_length",
    "convolver",
    "cyclic_kernel",
    "direct_sizes",
    "direct_up_to",
    "ducc",
    "fast_length",
    "fft",
    "from_spectrum",
    "full_spectrum",
    "ifft",
    "in_chunks",
    "is_fast",
    "kernel_of_diagonals",
    "method_for",
    "require_engine",
    "rows_in_chunk",
    "spectrum",
    "transforms",
]
