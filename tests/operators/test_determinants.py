"""Determinants whose factors leave the range of their dtype, on the way or for good."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import structmat as sm
from tests.backends import Backend
from tests.operator_registry import REGISTRY, Entry, Sample, Vectors
from tests.operators.test_laws import check, skip_most_where_each_shape_compiles

WITH_DET = [entry for entry in REGISTRY if "slogdet" in entry.closed_forms and entry.name != "Identity"]


@pytest.mark.parametrize("entry", WITH_DET, ids=lambda e: e.name)
def test_slogdet_of_extreme_multiples(backend: Backend, entry: Entry) -> None:
    skip_most_where_each_shape_compiles(backend, entry)

    def law(op: Any, dense: np.ndarray, sample: Sample, v: Vectors) -> None:
        if not np.all(np.linalg.cond(dense) < 1e3):
            return
        single = sample.dtype.name in {"float32", "complex64"}
        to_numpy = np.asarray if op.dtype is None else backend.to_numpy
        sign, log = np.linalg.slogdet(dense)
        for scale in (1e-25, 1e25) if single else (1e-200, 1e200):
            found = (op * scale).slogdet()
            expected = log + dense.shape[-1] * math.log(scale)
            tolerance = (1e-3 if single else 1e-11) * (1 + np.max(np.abs(expected)))
            np.testing.assert_allclose(to_numpy(found.logabsdet), expected, atol=tolerance)
            np.testing.assert_allclose(to_numpy(found.sign), sign, atol=2e-3 if single else 1e-11)

    check(backend, entry, law)


@settings(max_examples=50)
@given(exponents=st.lists(st.floats(-300, 300), min_size=1, max_size=8), signed=st.booleans())
def test_det_of_a_diagonal_is_right_wherever_it_is_representable(exponents: list[float], *, signed: bool) -> None:
    assume(-307 < sum(exponents) < 308)
    d = 10.0 ** np.array(exponents)
    d[::2] *= -1 if signed else 1
    expected = float(np.prod(d.astype(np.longdouble)))
    with np.errstate(over="raise"):
        for op in (sm.Diagonal(d), sm.Diagonal(d).prepare(), sm.Product((sm.Diagonal(d), sm.Identity(len(d))))):
            assert math.isclose(float(op.det()), expected, rel_tol=1e-11)
        assert math.isclose(abs(complex(sm.Diagonal(d * 1j).det())), abs(expected), rel_tol=1e-11)


def test_zeros_and_nan_keep_their_meaning(backend: Backend) -> None:
    def det(*values: float) -> tuple[float, float, float]:
        op = sm.Diagonal(backend.asarray(np.array(values)))
        found = op.slogdet()
        return float(op.det()), float(found.sign), float(found.logabsdet)

    assert det(1e200, 1e200, 0.0) == (0.0, 0.0, -math.inf)
    assert det(1e200, 1e-200, 1e-200, -1e200)[:2] == pytest.approx((-1.0, -1.0), rel=1e-12)
    assert np.all(np.isnan(det(1.0, math.nan)))
    assert np.all(np.isnan(det(0.0, math.nan)))
    assert det(2.0, 3.0, 4.0)[0] == 24.0  # with every digit where nothing leaves the range


def test_signs_of_subnormal_complex_numbers() -> None:
    d = np.array([3e-310 + 4e-310j, -2e-310j])
    found = sm.Diagonal(d).slogdet()
    assert complex(found.sign) == pytest.approx((0.6 + 0.8j) * -1j, rel=1e-10)
    assert float(found.logabsdet) == pytest.approx(float(np.sum(np.log(np.abs(d)))))


def test_large_blocks_have_the_determinant_of_their_dense_matrix(backend: Backend) -> None:
    c = np.random.default_rng(0).standard_normal((2, 150, 150, 2))
    op = sm.BlockCirculant(backend.asarray(c))
    expected = np.linalg.slogdet(sm.BlockCirculant(c).to_dense())
    found = op.slogdet()
    np.testing.assert_allclose(backend.to_numpy(found.logabsdet), expected.logabsdet, rtol=1e-12)
    np.testing.assert_allclose(backend.to_numpy(found.sign), expected.sign)
    unit = sm.BlockCirculant(backend.asarray(c * np.exp(-expected.logabsdet / 300)[:, None, None, None]))
    np.testing.assert_allclose(backend.to_numpy(unit.det()), expected.sign, rtol=1e-9)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("b", [1, 2, 3, 4])
def test_singular_blocks(backend: Backend, b: int, dtype: str) -> None:
    if backend.compiles and b != 3:
        pytest.skip("compiles for each size")
    c = np.ones((2, 2, b), dtype)
    found = sm.BlockCirculant(backend.asarray(c)).slogdet()
    assert complex(found.sign) == 0
    assert float(found.logabsdet) == -math.inf
    assert complex(sm.BlockCirculant(backend.asarray(c)).det()) == 0


def test_gradients_of_det_at_singular_matrices() -> None:
    torch = pytest.importorskip("torch")
    d = torch.tensor([0.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    sm.Diagonal(d).det().backward()
    np.testing.assert_array_equal(d.grad, [6.0, 0.0, 0.0])
    c = torch.ones(2, 2, 1, dtype=torch.float64, requires_grad=True)
    sm.BlockCirculant(c).det().backward()
    assert bool(torch.all(torch.isfinite(c.grad)))  # zero, as that of torch.linalg.det
    regular = torch.randn(2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda c: sm.BlockCirculant(c).det(), (regular,))
    assert torch.autograd.gradcheck(lambda c: sm.BlockCirculant(c).slogdet().logabsdet, (regular,))


def test_blocks_of_subnormal_numbers(backend: Backend) -> None:
    if backend.name == "jax":
        pytest.skip("its CPU takes subnormal numbers for zero")
    c = np.random.default_rng(0).standard_normal((2, 2, 3))
    found = sm.BlockCirculant(backend.asarray(c * 1e-309)).slogdet()
    expected = sm.BlockCirculant(c).slogdet()
    assert float(found.sign) == float(expected.sign)
    assert float(found.logabsdet) == pytest.approx(float(expected.logabsdet) + 6 * math.log(1e-309), rel=1e-10)
