"""Products of circulant and diagonal matrices in every library, beside the transforms that they need."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.fft import irfft, rfft

import structmat as sm


@pytest.mark.parametrize("n_factors", [3, 5])
@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("n", [256, 1000, 1021, 4096, 16384])
class TestProduct:
    def case(self, n_factors: int, n: int, batch: int, dtype: str) -> tuple[np.ndarray, np.ndarray, str]:
        rng = np.random.default_rng(0)
        vectors = rng.standard_normal((n_factors, n)).astype(dtype)
        return vectors, rng.standard_normal((batch, n)).astype(dtype), f"{n_factors} factors, {n}, {batch}, {dtype}"

    def test_floor(self, check: Any, n_factors: int, n: int, batch: int, dtype: str) -> None:
        vectors, x, group = self.case(n_factors, n, batch, dtype)
        spectra = rfft(vectors[1::2])[::-1]

        def transforms() -> np.ndarray:
            y = x
            for S in spectra:
                y = irfft(S * rfft(y), n)
            return y

        check(group, transforms(), transforms)

    def test_prepared(self, check: Any, library: Any, n_factors: int, n: int, batch: int, dtype: str) -> None:
        vectors, x, group = self.case(n_factors, n, batch, dtype)
        expected = vectors[-1] * x
        for c, d in zip(vectors[-2::-2], vectors[-3::-2], strict=True):
            expected = d * irfft(rfft(c) * rfft(expected), n)
        op = sm.CDDProduct.from_vectors(*map(library.asarray, vectors)).prepare()
        check(group, expected, library.ready(op.matvec), library.asarray(x))
