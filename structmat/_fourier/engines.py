"""Which engine and which method transform and convolve arrays, by tables of what measured fastest."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

SCIPY = "scipy.fft"
SCIPY_CONVOLUTION = "scipy.fftpack.convolve"
SCIPY_FOUR_STEP = "scipy.fft in four steps"
DUCC = "ducc0.fft"
DUCC_CONVOLUTION = "ducc0.fft.convolve_axis"
DUCC_FOUR_STEP = "ducc0.fft in four steps"
TORCH = "torch.fft"
TORCH_FOUR_STEP = "torch.fft in four steps"
ANY = "fft of any library"

FOUR_STEP = (SCIPY_FOUR_STEP, DUCC_FOUR_STEP, TORCH_FOUR_STEP)
"""The methods that transform a long vector by the four-step algorithm: as a matrix, its columns and then its rows."""

PLAIN = {
    SCIPY_CONVOLUTION: SCIPY,
    SCIPY_FOUR_STEP: SCIPY,
    DUCC_CONVOLUTION: DUCC,
    DUCC_FOUR_STEP: DUCC,
    TORCH_FOUR_STEP: TORCH,
}
"""For each method that computes a convolution as a whole, the method of the same engine for one transform."""

CHOICES: dict[tuple[str, str, bool], tuple[tuple[float, str], ...]] = {
    ("numpy", "float32", False): ((4096, SCIPY_CONVOLUTION), (math.inf, SCIPY_FOUR_STEP)),
    ("numpy", "float64", False): ((16384, SCIPY_CONVOLUTION), (math.inf, SCIPY_FOUR_STEP)),
    ("numpy", "complex64", False): ((2047, SCIPY), (math.inf, SCIPY_FOUR_STEP)),
    ("numpy", "complex128", False): ((4095, SCIPY), (math.inf, SCIPY_FOUR_STEP)),
    ("ducc0", "float32", False): ((1024, DUCC_CONVOLUTION), (2**15, DUCC), (math.inf, DUCC_FOUR_STEP)),
    ("ducc0", "float32", True): ((math.inf, DUCC_CONVOLUTION),),
    ("ducc0", "float64", False): ((1024, DUCC_CONVOLUTION), (8191, DUCC), (math.inf, DUCC_FOUR_STEP)),
    ("ducc0", "float64", True): ((2**17, DUCC_CONVOLUTION), (math.inf, SCIPY)),
    ("ducc0", "complex64", False): ((800, DUCC_CONVOLUTION), (2**16, DUCC), (math.inf, DUCC_FOUR_STEP)),
    ("ducc0", "complex64", True): ((math.inf, DUCC_CONVOLUTION),),
    ("ducc0", "complex128", False): ((800, DUCC_CONVOLUTION), (2**16, DUCC), (math.inf, DUCC_FOUR_STEP)),
    ("ducc0", "complex128", True): ((2**13, DUCC_CONVOLUTION), (math.inf, DUCC)),
    ("torch", "float32", False): ((8191, TORCH), (math.inf, TORCH_FOUR_STEP)),
    ("torch", "float64", False): ((4096, TORCH), (math.inf, TORCH_FOUR_STEP)),
}
"""For each engine, dtype and whether there is a batch, the method that measured fastest up to each length.

Where there is no entry, transforms of the engine's own are the fastest.
"""


@cache
def ducc() -> Any:
    """Return ``ducc0.fft`` where the extra ``fast`` is installed, else None."""
    try:
        import ducc0.fft  # noqa: PLC0415  # optional, and not needed before the first product
    except ImportError:
        return None
    return ducc0.fft


def engine_of(name: str) -> str:
    """Return the engine that transforms arrays, by its name in their rules; for NumPy ducc0 where it is installed."""
    return "ducc0" if name == "numpy" and ducc() else name


def method_for(name: str, dtype: str, length: int, *, batched: bool) -> str:
    """Return the method for many convolutions of that length, of one vector each or of a batch.

    `name` is that of the engine in the rules of the library. A length that does not divide into columns is transformed
    by plain transforms although the method may be a four-step one.
    """
    engine = engine_of(name)
    table = CHOICES.get((engine, dtype, batched), ((math.inf, TORCH if engine == "torch" else SCIPY),))
    row = 0
    while table[row][0] < length:  # the limit of the last row is infinite
        row += 1
    return table[row][1]


ONE_CALL = 2**16
"""The length up to which ducc0 convolves a single vector fastest by its one call, which takes no spectrum.

For 1,500 to 65,536 numbers, real and complex, it takes 0.43 to 0.79 of the time of the plan and its three transforms;
for 131,072 complex ones 0.95 to 1.1, for a million up to 1.5.
"""


def method_for_one(length: int) -> str:
    """Return the method for a single convolution of a NumPy vector, for which nothing is prepared."""
    if not ducc():
        return SCIPY
    return DUCC_CONVOLUTION if length <= ONE_CALL else DUCC
