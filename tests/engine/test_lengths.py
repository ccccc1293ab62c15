"""Lengths that transform fast, and the kernels embedded in them."""

from __future__ import annotations

import array_api_strict
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from structmat import _fourier
from structmat import _fourier as measured_choices
from structmat._fourier import fast_length


def test_embedded_lengths_are_fast() -> None:
    for n in [*range(1, 5000), 99991, 2**20 - 1, 2**20 + 1]:
        length = fast_length(n)
        assert n <= length <= n * (1.08 if n > 1000 else 1.16)
        assert 30**25 % length == 0  # no prime factor but 2, 3 and 5


@given(n=st.integers(1, 5000))
def test_embedded_lengths(n: int) -> None:
    c = np.arange(1.0, n + 1)
    kernel = _fourier.cyclic_kernel(c, np)
    largest = max(
        (p for p in range(2, n + 1) if n % p == 0 and all(p % d for d in range(2, int(p**0.5) + 1))), default=1
    )
    assert _fourier.is_fast(n, np) == (largest <= measured_choices.LARGEST_PRIME["numpy"])
    assert _fourier.is_fast(n, array_api_strict) == (largest <= measured_choices.LARGEST_PRIME_ELSEWHERE)
    if _fourier.is_fast(n, np):
        assert kernel is c
    else:
        assert _fourier.is_fast(len(kernel), np)
        assert len(kernel) >= 2 * n - 1
        np.testing.assert_array_equal(kernel[:n], c)
        np.testing.assert_array_equal(kernel[len(kernel) - n + 1 :], c[1:])
