"""Dense matrices of operators that repeat their entries: at the memory and the speed of SciPy's."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import scipy.linalg

import structmat as sm

OPERATORS = {
    "Circulant": (sm.Circulant, scipy.linalg.circulant),
    "SpectralCirculant": (lambda c: sm.Circulant(c).to_spectral(), scipy.linalg.circulant),
    "Toeplitz": (sm.Toeplitz, scipy.linalg.toeplitz),
    "Hankel": (lambda c: sm.Hankel(c, c[::-1]), lambda c: scipy.linalg.hankel(c, c[::-1])),
    "BlockCirculant": (lambda c: sm.BlockCirculant(c[None, None]), scipy.linalg.circulant),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_a_dense_matrix_takes_the_memory_of_one(name: str, dtype: str) -> None:
    make, reference = OPERATORS[name]
    c = np.random.default_rng(0).standard_normal(700).astype(dtype)
    op = make(c)
    op.to_dense()
    tracemalloc.start()
    dense = op.to_dense()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 1.1 * dense.nbytes
    assert dense.flags.writeable
    assert dense.flags.c_contiguous
    np.testing.assert_allclose(dense, reference(c), rtol=1e-4, atol=1e-5)
