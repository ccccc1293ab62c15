"""Circulant products, systems and gradients in every library, beside the floor: two transforms by `scipy.fft`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.fft import irfft, rfft

import structmat as sm

SIZES = (256, 4096, 65536, 1000, 10000, 1021, 16381, 1023, 1025, 4095, 4097)  # 2^k, smooth, prime, 2^k +- 1
FEW = (256, 1000, 1021, 4096)
BATCHES = (1, 64)


def data(n: int, batch: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    c, x = rng.standard_normal(n), rng.standard_normal((n,) if batch == 1 else (batch, n))
    c[0] += 5 * n**0.5  # far from singular
    return c.astype(dtype), x.astype(dtype)


def group(what: str, n: int, batch: int, dtype: str) -> str:
    return f"{what}, n = {n}, {batch} vector{'s' * (batch > 1)}, {dtype}"


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("n", SIZES)
class TestProduct:
    def test_floor(self, check: Any, n: int, batch: int, dtype: str) -> None:
        c, x = data(n, batch, dtype)
        S = rfft(c)
        check(group("product", n, batch, dtype), irfft(S * rfft(x), n), lambda: irfft(S * rfft(x), n))

    def test_prepared(self, check: Any, library: Any, n: int, batch: int, dtype: str) -> None:
        c, x = data(n, batch, dtype)
        op = sm.Circulant(library.asarray(c)).prepare()
        product = library.ready(op.matvec)
        check(group("product", n, batch, dtype), irfft(rfft(c) * rfft(x), n), product, library.asarray(x))


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("n", FEW)
class TestOthers:
    def test_unprepared(self, check: Any, library: Any, n: int, batch: int, dtype: str) -> None:
        c, x = data(n, batch, dtype)
        product = library.ready(lambda c, x: sm.Circulant(c).matvec(x))
        arrays = map(library.asarray, (c, x))
        check(group("unprepared product", n, batch, dtype), irfft(rfft(c) * rfft(x), n), product, *arrays)

    def test_adjoint(self, check: Any, library: Any, n: int, batch: int, dtype: str) -> None:
        c, x = data(n, batch, dtype)
        op = sm.Circulant(library.asarray(c)).prepare()
        expected = irfft(rfft(c).conj() * rfft(x), n)
        check(group("adjoint product", n, batch, dtype), expected, library.ready(op.rmatvec), library.asarray(x))

    def test_solve(self, check: Any, library: Any, n: int, batch: int, dtype: str) -> None:
        c, x = data(n, batch, dtype)
        op = sm.Circulant(library.asarray(c)).prepare()
        expected = irfft(rfft(x) / rfft(c), n)
        check(group("solve", n, batch, dtype), expected, op.inv_matvec, library.asarray(x))

    def test_gradient(self, check: Any, differentiable: Any, n: int, batch: int, dtype: str) -> None:
        """Forward and backward pass, with the gradients of the first column and of the vectors."""
        c, x = data(n, batch, dtype)
        gradients = differentiable.ready(differentiable.gradient(lambda c, x: sm.Circulant(c).matvec(x)))
        arrays = map(differentiable.asarray, (x, c, x))  # the vectors are the cotangent too
        expected = irfft(rfft(c).conj() * rfft(x), n)
        check(group("gradient", n, batch, dtype), expected, lambda *a: gradients(*a)[1], *arrays)
