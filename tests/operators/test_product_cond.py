"""What a CDD product says of the accuracy of its products, and products by direct sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import structmat as sm
from tests.backends import Backend

DECADES = [0.0, 1.0, 3.0, 5.0]


def wide(rng: np.random.Generator, shape: tuple[int, ...], decades: float, *, real: bool) -> np.ndarray:
    x = rng.standard_normal(shape) * 10.0 ** rng.uniform(-decades, decades, shape)
    return x if real else x * np.exp(2j * np.pi * rng.random(shape))


@st.composite
def vectors(draw: Any) -> tuple[list[np.ndarray], dict[str, Any]]:
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    decades, real = draw(st.sampled_from(DECADES)), draw(st.booleans())
    if draw(st.booleans()):
        n, count = draw(st.integers(2, 70)), draw(st.integers(1, 7))
        first = draw(st.sampled_from(["diagonal", "circulant"]))
        return [wide(rng, (n,), decades, real=real) for _ in range(count)], {"first": first}
    b, p, q = draw(st.integers(2, 9)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    rows, cols = p * b - draw(st.integers(0, b - 1)), q * b - draw(st.integers(0, b - 1))
    shapes: list[tuple[int, ...]] = [(rows,), (p, q, b), (cols,)]
    if draw(st.booleans()):
        shapes += [(q, q, b), (cols,)]
    return [wide(rng, shape, decades, real=real) for shape in shapes], {"block": True}


def in_extended_precision(op: sm.CDDProduct) -> np.ndarray:
    P = np.eye(op.shape[1], dtype=np.clongdouble)
    for factor in reversed(op.factors):
        P = np.asarray(factor.to_dense()).astype(np.clongdouble) @ P
    return P


@settings(max_examples=150, deadline=None)
@given(vectors())
def test_rounding_is_no_larger_than_the_condition_number_tells(drawn: Any) -> None:
    arrays, options = drawn
    op = sm.CDDProduct.from_vectors(*arrays, **options)
    P = in_extended_precision(op)
    n, eps, norm = max(op.shape), np.finfo(np.float64).eps, float(np.linalg.norm(P))
    bound = eps * np.log2(2 * n) * float(op.product_cond()) * norm
    assert float(np.linalg.norm(op @ np.eye(op.shape[1]) - P)) <= 2 * bound + eps * norm
    X = np.random.default_rng(0).standard_normal((op.shape[1], 20))
    assert float(np.linalg.norm(op @ X - P @ X)) <= 10 * (2 * bound + eps * norm)


@settings(max_examples=60, deadline=None)
@given(vectors())
def test_direct_sums_lose_no_small_entries(drawn: Any) -> None:
    arrays, options = drawn
    op = sm.CDDProduct.from_vectors(*arrays, **options)
    P = in_extended_precision(op)
    moduli = in_extended_precision(sm.CDDProduct.from_vectors(*map(np.abs, arrays), **options)).real
    x = np.random.default_rng(1).standard_normal((3, op.shape[1]))
    error = np.abs(op.direct_matvec(x) - x @ P.T)
    assert (error <= np.finfo(np.float64).eps * len(arrays) * 2 * max(op.shape) * (np.abs(x) @ moduli.T)).all()


def test_it_tells_what_transforms_lose() -> None:
    rng, n = np.random.default_rng(2), 64
    for decades, lost in ((6, 1e4), (12, 1e8)):
        d = np.geomspace(1, 10.0**decades, n)
        op = sm.CDDProduct.from_vectors(d, np.eye(n)[0], 1 / d)
        x = rng.standard_normal(n)
        error = np.linalg.norm(op @ x - x) / np.linalg.norm(x) / np.finfo(float).eps
        assert lost < op.product_cond() < 1e3 * lost
        assert error > 0.01 * op.product_cond()
        assert np.allclose(op.direct_matvec(x), x, rtol=1e-15, atol=0)


@pytest.mark.parametrize("scale", [1e-90, 1.0, 1e90])
def test_scales_do_not_matter(scale: float) -> None:
    vs = np.random.default_rng(3).standard_normal((5, 12))
    plain, scaled = (sm.CDDProduct.from_vectors(*(s * v for v in vs)).product_cond() for s in (1.0, scale))
    assert scaled == pytest.approx(plain, rel=1e-6)


def test_one_for_what_transforms_keep() -> None:
    rng, n = np.random.default_rng(4), 50
    u, c, v = rng.standard_normal((3, n))
    one = np.ones(n)
    for vs in ((one, c, one), (u, one, v), (u, np.eye(n)[0], one), (u,)):
        assert sm.CDDProduct.from_vectors(*vs).product_cond() == pytest.approx(1.0, rel=0.5)


def test_zero_factors() -> None:
    zero, one = np.zeros(4), np.ones(4)
    assert sm.CDDProduct.from_vectors(zero, one, one).product_cond() == 0.0
    assert sm.CDDProduct.from_vectors(np.eye(4)[0], np.eye(4)[1], np.eye(4)[0]).product_cond() > 1e10


def test_every_library_and_stacks(backend: Backend) -> None:
    rng = np.random.default_rng(5)
    a, c, b = rng.standard_normal((3, 2, 6)).astype("float32")
    op = sm.CDDProduct.from_vectors(*(backend.asarray(v) for v in (a, c, b)))
    cond = backend.to_numpy(op.product_cond())
    assert cond.shape == (2,)
    assert cond.dtype == np.float32
    for i in range(2):
        single = sm.CDDProduct.from_vectors(a[i], c[i], b[i])
        assert cond[i] == pytest.approx(float(single.product_cond()), rel=1e-4)
    x = rng.standard_normal((3, 2, 6)).astype("float32")
    direct = backend.to_numpy(op.direct_matvec(backend.asarray(x)))
    assert direct == pytest.approx(backend.to_numpy(op.matvec(backend.asarray(x))), rel=1e-4, abs=1e-4)


def test_mixed_factors_and_half_precision() -> None:
    rng = np.random.default_rng(6)
    c, d = rng.standard_normal((2, 8))
    mixed = sm.CDDProduct((sm.Diagonal(d), sm.Circulant(c).to_spectral(), sm.Diagonal(d + 1j)))
    same = sm.CDDProduct.from_vectors(d, c, d + 1j)
    assert mixed.product_cond() == pytest.approx(same.product_cond(), rel=1e-9)
    half = sm.CDDProduct.from_vectors(*(v.astype("float16") for v in (d, c, d)))
    assert half.product_cond() == pytest.approx(sm.CDDProduct.from_vectors(d, c, d).product_cond(), rel=1e-2)
    assert half.direct_matvec(np.ones(8, "float16")).dtype == np.float16


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("n", [2, 9, 64])
def test_one_block_loses_what_a_circulant_loses(n: int, real: bool) -> None:
    rng = np.random.default_rng(n)
    a, c, b = (wide(rng, (n,), 3.0, real=real) for _ in range(3))
    circulant = sm.CDDProduct.from_vectors(a, c, b)
    block = sm.CDDProduct.from_vectors(a, c[None, None], b, block=True)
    assert block.product_cond() == pytest.approx(circulant.product_cond(), rel=1e-9)
