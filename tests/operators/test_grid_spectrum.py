"""Eigenvalues and conjugate pairs of circulant matrices of any number of levels, against full transforms."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

import structmat as sm
from structmat._arrays.namespaces import numpy_namespace
from structmat.operators._families.grid_spectrum import GridSpectrum
from tests.backends import Backend
from tests.cases import in_one_test

xp = numpy_namespace

SIZES = [(1,), (2,), (5,), (6,), (1, 1), (1, 4), (4, 1), (2, 2), (3, 3), (2, 5), (5, 2), (4, 6), (3, 2, 4), (2, 3, 3)]


def negatives(sizes: tuple[int, ...]) -> np.ndarray:
    """For each frequency the place of its negative, modulo the sizes."""
    k = np.arange(prod(sizes)).reshape(sizes)
    axes = tuple(range(len(sizes)))
    return np.roll(np.flip(k, axes), (1,) * len(sizes), axes).ravel()


def held(values: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """Those of all eigenvalues that stand in the half."""
    return values.reshape(sizes)[..., : sizes[-1] // 2 + 1].ravel()


@given(st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple), st.booleans(), st.integers(0, 9))
def test_half_of_the_eigenvalues_determines_all(sizes: tuple[int, ...], real: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    c = rng.standard_normal((2, prod(sizes))) + (0 if real else 1j) * rng.standard_normal((2, prod(sizes)))
    full = np.fft.fftn(c.reshape(2, *sizes), axes=range(1, len(sizes) + 1)).reshape(2, -1)
    found = GridSpectrum.of(c, sizes, xp)
    size = np.max(np.abs(full))
    np.testing.assert_allclose(found.all_values(xp), full, atol=1e-13 * size)
    np.testing.assert_allclose(found.first_column(xp), c, atol=1e-14 * size)
    assert found.first_column(xp).dtype == c.dtype
    whole = found.as_complex(xp)
    assert not whole.real
    np.testing.assert_allclose(whole.first_column(xp), c, atol=1e-14 * size)
    np.testing.assert_allclose(np.prod(found.factors(xp), axis=-1), np.prod(full, axis=-1), rtol=1e-9)
    assert found.factors(xp).shape == full.shape
    assert np.isrealobj(found.factors(xp)) == real
    for count in (1, 9):
        x = rng.standard_normal((count, 1, prod(sizes)))
        product = np.fft.ifftn(
            full.reshape(2, *sizes) * np.fft.fftn(x.reshape(count, 1, *sizes), axes=range(2, len(sizes) + 2)),
            axes=range(2, len(sizes) + 2),
        )
        np.testing.assert_allclose(found.product(x, xp), product.reshape(count, 2, -1), atol=1e-13 * size)


@in_one_test("sizes", SIZES)
def test_pairs_are_told(sizes: tuple[int, ...]) -> None:
    rng, partner = np.random.default_rng(0), negatives(sizes)
    k = np.arange(len(partner))
    anything = rng.standard_normal(held(k, sizes).shape) + 1j * rng.standard_normal(held(k, sizes).shape)
    found = GridSpectrum(anything, sizes, real=True, kinds=("dft",) * len(sizes))
    np.testing.assert_array_equal(found.unpaired(xp), held(partner == k, sizes))
    values = found.with_real_values(found.unpaired(xp), xp).with_conjugates(xp).all_values(xp)
    np.testing.assert_array_equal(values[partner], values.conj())
    first = held(k < partner, sizes)
    np.testing.assert_array_equal(held(values, sizes)[first], anything[first])


@pytest.mark.parametrize("sizes", SIZES)
@in_one_test("function", ["sqrtm", "logm", "expm"])
def test_functions_of_a_real_matrix_are_real_where_they_can_be(sizes: tuple[int, ...], function: str) -> None:
    """Negative eigenvalues in pairs get conjugate values, although both are on the branch cut."""
    rng, partner = np.random.default_rng(1), negatives(sizes)
    k = np.arange(len(partner))
    values = rng.uniform(0.5, 2.0, len(k))
    values[k != partner] *= -1
    values = np.where(k < partner, values, values[partner])
    for signs in (1.0, -1.0):  # those without a partner are positive, then negative
        shifted = np.where(k == partner, signs * values, values)
        c = np.fft.ifftn(shifted.reshape(sizes)).ravel()
        op: Any = sm.MultilevelCirculant(c.real, sizes)
        result = getattr(op, function)()
        assert np.isrealobj(result.c) == (signs > 0 or function == "expm")
        wanted = {"sqrtm": shifted, "logm": np.abs(shifted), "expm": np.exp(shifted)}[function]
        eigenvalues = result.eigvals()
        back = {"sqrtm": eigenvalues**2, "logm": np.abs(np.exp(eigenvalues)), "expm": eigenvalues}[function]
        np.testing.assert_allclose(back, wanted, atol=1e-12)


def test_real_matrices_need_real_transforms_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("a complex transform of real data")

    for name in ("fft", "ifft", "fftn", "ifftn"):
        monkeypatch.setattr(scipy.fft, name, refused)
    c = np.eye(1, 12)[0] * 9 + np.random.default_rng(2).standard_normal(12)
    for op in (sm.Circulant(c), sm.Circulant(c).to_spectral(), sm.MultilevelCirculant(c, (3, 4))):
        for result in (op.inv(), op.pinv(), op.expm(), op.sqrtm()):
            assert result.dtype == np.float64
        op.det(), op.slogdet()


def test_one_level_and_several_agree(backend: Backend) -> None:
    """A grid of one axis that is longer than one has the results of a circulant."""
    c = np.eye(1, 10)[0] * 9 + np.random.default_rng(3).standard_normal((2, 10))
    for other in (0,) if backend.compiles else (0, 1j):
        array = backend.asarray(c + other * c[:, ::-1])
        one = sm.Circulant(array)
        for sizes in ((1, 10),) if backend.compiles else ((10,), (1, 10), (10, 1)):
            several = sm.MultilevelCirculant(array, sizes)
            for method in ("inv", "pinv", "sqrtm", "expm"):
                found, wanted = (backend.to_numpy(getattr(op, method)().c) for op in (several, one))
                np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10 * np.max(np.abs(wanted)))
            for method in ("det", "eigvals", "svdvals"):
                found, wanted = (backend.to_numpy(getattr(op, method)()) for op in (several, one))
                np.testing.assert_allclose(found, wanted, rtol=1e-10)
