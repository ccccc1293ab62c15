"""Corners of circulant matrices of any shape, batches that are their vectors, and transforms of no vectors."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from array_api_compat import numpy as numpy_namespace
from array_api_compat import torch as torch_namespace

import structmat as sm
from structmat import _fourier
from structmat._fourier import Settings, convolve_axis, from_spectrum, multilevel_fft, multilevel_ifft, spectrum
from structmat._plans import convolution

ENGINES = ["scipy", *(["ducc0"] if _fourier.ducc() else [])]


@pytest.mark.parametrize(("length", "real"), [(4, True), (5, False)])
def test_corners_of_every_shape(length: int, real: bool) -> None:
    rng, xp = np.random.default_rng(length), numpy_namespace
    kernels = rng.standard_normal((2, length)) + (0 if real else 1j) * rng.standard_normal((2, length))
    whole = [scipy.linalg.circulant(kernel) for kernel in kernels]
    for rows, cols in product(range(1, length + 1), repeat=2):
        x = rng.standard_normal((2, cols)) * kernels[0, 0]
        for flips in product((False, True), repeat=2):
            down, along = (-1 if flip else 1 for flip in flips)
            wanted = [matrix[:rows, :cols][::down, ::along] @ v for matrix, v in zip(whole, x, strict=True)]
            stack = convolution(kernels, (rows, cols), Settings(), xp, flips=flips)
            np.testing.assert_allclose(stack.apply(x, xp), wanted, atol=1e-14)
            one = convolution(kernels[0], (rows, cols), Settings(), xp, flips=flips)
            for found in (one.apply(x[0], xp), one.apply(x[:1], xp)[0], stack.apply(x, xp)[0]):
                np.testing.assert_allclose(found, wanted[0], atol=1e-14)


@pytest.mark.skipif(not _fourier.ducc(), reason="needs ducc0")
@pytest.mark.parametrize("length", [1024, 1000])
def test_batches_are_convolved_as_their_vectors(length: int) -> None:
    rng = np.random.default_rng(0)
    kernel, x = rng.standard_normal(length).astype("float32"), rng.standard_normal((17, length)).astype("float32")
    wanted = np.fft.irfft(np.fft.rfft(kernel) * np.fft.rfft(x), length)
    for count in (1, 8, 17):
        np.testing.assert_allclose(convolve_axis(kernel, x[:count], None), wanted[:count], atol=1e-3)


@pytest.mark.parametrize(("xp", "zeros"), [(numpy_namespace, np.zeros), (torch_namespace, torch.zeros)])
@pytest.mark.parametrize("shape", [(0, 4), (0, 3, 4), (3, 0, 4)])
def test_transforms_of_no_vectors_have_the_shape_and_dtype_of_others(xp: Any, zeros: Any, shape: Any) -> None:
    none, some = zeros(shape), zeros(tuple(max(n, 1) for n in shape))
    for transform in (
        lambda x: spectrum(x, xp, real=False, n=6),
        lambda x: from_spectrum(x, 4, xp, real=False),
        lambda x: spectrum(x, xp, real=True),
        lambda x: spectrum(x, xp, real=True, n=7),
        lambda x: from_spectrum(spectrum(x, xp, real=True), 4, xp, real=True),
        lambda x: multilevel_fft(x, (2, 2), xp, real=True),
        lambda x: multilevel_fft(x, (2, 2), xp, real=False, n=(3, 4)),
        lambda x: multilevel_ifft(multilevel_fft(x, (2, 2), xp, real=True), (2, 2), xp, real=True),
    ):
        found, other = transform(none), transform(some)
        assert (*shape[:-1], other.shape[-1]) == tuple(found.shape)
        assert found.dtype == other.dtype


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("make", [sm.Toeplitz, sm.Hankel])
def test_products_keep_no_memory_of_the_entries_cut_off(engine: str, make: Any) -> None:
    """Rows of a long kernel that are not wanted would be kept for as long as the product."""
    rng = np.random.default_rng(0)
    m, n = 500, 5000
    P = make(rng.standard_normal(m), rng.standard_normal(n)).prepare(engine=engine)
    for shape in ((n,), (1, n), (3, n)):
        y = P.matvec(rng.standard_normal(shape))
        held = y if y.base is None else y.base
        assert held.nbytes <= 2 * y.nbytes
