"""Which singular values count as zero: cut-offs follow the errors of transforms, and NaN is never one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st

import structmat as sm
from tests.backends import Backend
from tests.operator_registry import REGISTRY, Entry, Vectors
from tests.operators.test_laws import skip_most_where_each_shape_compiles

LARGE = 200_000
WITH_PINV = [entry for entry in REGISTRY if "pinv" in entry.closed_forms and entry.name not in {"Identity", "Fourier"}]


def well_conditioned(n: int) -> tuple[np.ndarray, np.ndarray]:
    """A half spectrum between 1 and 10, and its first column in single precision."""
    values = np.random.default_rng(n).uniform(1.0, 10.0, n // 2 + 1)
    return values, scipy.fft.irfft(values, n).astype("float32")


def test_a_large_well_conditioned_circulant_is_regular(backend: Backend) -> None:
    if backend.name == "array_api_strict":
        pytest.skip("computes as NumPy does")
    values, c = well_conditioned(LARGE)
    C, b = sm.Circulant(backend.asarray(c)), np.random.default_rng(0).standard_normal(LARGE).astype("float32")
    exact = scipy.fft.irfft(scipy.fft.rfft(b.astype("float64")) / values, LARGE)
    assert int(C.rank()) == LARGE
    for x in (C.solve(backend.asarray(b)), C.lstsq(backend.asarray(b)), C.prepare().solve(backend.asarray(b))):
        np.testing.assert_allclose(backend.to_numpy(x), exact, atol=1e-4)
    expected = scipy.fft.irfft(1 / values, LARGE)
    np.testing.assert_allclose(backend.to_numpy(C.pinv().c), expected, atol=1e-6)


def test_blocks_and_bidiagonals_of_large_size_are_regular() -> None:
    _, c = well_conditioned(LARGE)
    grid = sm.BlockCirculant(c[None, None])
    assert int(grid.rank()) == LARGE
    np.testing.assert_allclose(grid.solve(c)[:3], sm.Circulant(c).solve(c)[:3], atol=1e-4)
    difference = sm.BandedCirculant(np.array([1.0, -1.0], "float32"), 100_000)
    assert int(difference.rank()) == 99_999
    shifted = difference + np.float32(1e-3) * sm.Identity(100_000)
    assert int(shifted.rank()) == 100_000


def test_a_root_of_a_clearly_negative_eigenvalue_is_complex() -> None:
    values, _ = well_conditioned(LARGE)
    values[0] = -1.0
    C = sm.Circulant(scipy.fft.irfft(values, LARGE).astype("float32"))
    root = C.sqrtm()
    assert root.dtype == "complex64"
    np.testing.assert_allclose(root.eigvals()[0], 1j, atol=1e-4)


@pytest.mark.parametrize("n", [1, 2, 3, 64, 97, 1000, 10_007, 65_536, 100_003])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_zeros_of_the_spectrum_are_found_behind_their_rounding(backend: Backend, n: int, dtype: str) -> None:
    """The entries are rounded, transformed back, and rounded again, as in any computed matrix."""
    if backend.compiles and n not in {97, 100_003}:
        pytest.skip("compiles too much")
    values = np.random.default_rng(n).uniform(0.1, 10.0, n // 2 + 1)
    values[1::3] = 0.0
    c = scipy.fft.irfft(values, n).astype(dtype)
    C = sm.Circulant(backend.asarray(c))
    full = np.concatenate([values, values[1 : (n + 1) // 2]])
    assert int(C.rank()) == np.count_nonzero(full)
    inverse = np.where(values > 0, 1 / np.where(values > 0, values, 1), 0)
    tolerance = 1e-3 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(backend.to_numpy(C.pinv().c), scipy.fft.irfft(inverse, n), atol=tolerance)
    if backend.name in {"numpy", "array_api_strict"} and n > 2:
        with pytest.raises(np.linalg.LinAlgError, match="singular"):
            C.inv()


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["float32", "float64", "complex64", "complex128"]))
def test_rank_of_blocks_is_that_of_their_dense_matrix(seed: int, dtype: str) -> None:
    v = Vectors(seed, dtype)
    p, q, r, b = (v.integer(1, 5) for _ in range(4))
    product = sm.BlockCirculant(v(p, r, b)) @ sm.BlockCirculant(v(r, q, b))
    assert int(product.rank()) == b * min(p, q, r)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # as NumPy does
@pytest.mark.parametrize("entry", WITH_PINV, ids=lambda e: e.name)
def test_nan_is_not_hidden(backend: Backend, entry: Entry) -> None:
    skip_most_where_each_shape_compiles(backend, entry)
    samples = (entry.draw(Vectors(seed, "float64")) for seed in range(5, 50))
    sample = next(sample for sample in samples if sample.make(np.array).dtype is not None)

    def spoilt(values: np.ndarray) -> Any:
        values = np.array(values)
        values[(0,) * values.ndim] = np.nan
        return backend.asarray(values)

    op = sample.make(spoilt)
    b = backend.asarray(np.ones(op.shape[0]))
    for result in (lambda: op.pinv().to_dense(), lambda: op.lstsq(b), op.cond, lambda: op.norm(2)):
        try:
            value = result()
            found = value if isinstance(value, np.ndarray | np.generic) else backend.to_numpy(value)
        except (np.linalg.LinAlgError, RuntimeError) as error:  # a singular value decomposition refuses NaN
            assert "svd" in str(error).lower()  # noqa: PT017
        else:
            assert np.any(np.isnan(found))
    if backend.name in {"numpy", "array_api_strict"}:
        with pytest.raises(np.linalg.LinAlgError):
            op.rank()
    elif "Block" not in entry.name:
        assert int(op.rank()) == -1


def test_infinities_leave_the_cut_off_alone(backend: Backend) -> None:
    D = sm.Diagonal(backend.asarray(np.array([[np.inf, 2.0, 0.0], [1.0, 2.0, 1e-20]])))
    np.testing.assert_array_equal(backend.to_numpy(D.pinv().d), [[0, 0.5, 0], [1, 0.5, 0]])
    np.testing.assert_array_equal(backend.to_numpy(D.rank()), [2, 2])
    np.testing.assert_array_equal(backend.to_numpy(D.cond())[0], np.inf)
    if backend.name in {"numpy", "array_api_strict"}:
        with pytest.raises(np.linalg.LinAlgError, match="singular"):
            sm.Diagonal(backend.asarray(np.array([np.inf, 0.0]))).inv()
        with pytest.raises(np.linalg.LinAlgError, match="singular"):
            sm.Diagonal(backend.asarray(np.array([np.nan, 0.0]))).solve(backend.asarray(np.ones(2)))


@pytest.mark.parametrize("rtol", [-1e-3, float("nan"), float("inf")])
@pytest.mark.parametrize("op", [sm.Diagonal([1.0, 0.0]), sm.Circulant([1.0, 2.0]).prepare(), 2 * sm.Identity(2)])
def test_cut_offs_are_finite_and_not_negative(op: sm.LinearOperator, rtol: float) -> None:
    name = type(op).__name__
    for method in (op.pinv, op.rank, lambda **given: op.lstsq(np.ones(2), **given)):
        with pytest.raises(ValueError, match=rf"{name}\.\w+: rtol must be finite and not negative"):
            method(rtol=rtol)
