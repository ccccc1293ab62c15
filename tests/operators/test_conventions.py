"""The conventions are those of SciPy and NumPy: columns, axes, odd lengths, dense matrices; and no state is hidden."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
from array_api_compat import numpy as numpy_namespace

import structmat as sm
from structmat._array_tools import moved

rng = np.random.default_rng(11)


def test_the_column_convention_is_scipys() -> None:
    c = rng.standard_normal(6)
    np.testing.assert_array_equal(sm.Circulant(c).to_dense(), scipy.linalg.circulant(c))
    np.testing.assert_array_equal(sm.Circulant.from_row(c).to_dense()[0], c)
    np.testing.assert_array_equal(sm.Circulant.from_row(c).to_dense(), scipy.linalg.circulant(c).T)
    np.testing.assert_allclose(sm.Circulant(c).matvec(c), np.fft.ifft(np.fft.fft(c) ** 2).real, atol=1e-14)


def test_toeplitz_and_hankel_are_scipys() -> None:
    c, r = rng.standard_normal((2, 5)) + 1j * rng.standard_normal((2, 5))
    for ours, scipys in ((sm.Toeplitz, scipy.linalg.toeplitz), (sm.Hankel, scipy.linalg.hankel)):
        for vectors in ((c,), (c, r), (c, r[:3]), (c[:2], r), (c.real, r), (c, r.imag), (c[:1],), (c, r[:1])):
            np.testing.assert_array_equal(ours(*vectors).to_dense(), scipys(*vectors))
        real, single = ours(c.real, r.real), ours(c.real.astype("float32"), r.real.astype("float32"))
        assert real.matvec(c.real).dtype == "float64"
        assert single.matvec(single.r).dtype == single.T.norm().dtype == single.to_dense().dtype == "float32"
        assert ours.nearest(single.to_dense()).dtype == "float32"
        assert ours(c.real, r.astype("complex64")).dtype == "complex128"
        assert ours([1, 2], [3, 4, 5]).dtype == "float64"
        ignored = r.copy()
        ignored[0] = np.nan
        assert np.all(np.isfinite(2 * (ours(c, ignored) + ours(c, ignored)).H @ c))
    np.testing.assert_array_equal(sm.Toeplitz(c).H.to_dense()[1:, 0], sm.Toeplitz(c).to_dense()[1:, 0])


def test_a_spectrum_is_never_stale() -> None:
    c = rng.standard_normal(5)
    C = sm.Circulant(c)
    C.matvec(c)
    c[0] += 1
    np.testing.assert_allclose(C.matvec(np.eye(5)[0]), c, atol=1e-14)


def test_axes_move_as_those_of_numpy() -> None:
    x = rng.standard_normal((2, 3, 4))
    for source in range(-3, 3):
        for destination in range(-3, 3):
            found = moved(x, source, destination, numpy_namespace)
            np.testing.assert_array_equal(found, np.moveaxis(x, source, destination))


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
