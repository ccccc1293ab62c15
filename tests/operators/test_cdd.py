"""CDD products: their layouts, and the condition of their products."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import structmat as sm
from tests.backends import Backend
from tests.cases import in_one_test


@st.composite
def layouts(draw: Any) -> sm.CDDLayout:
    rows, cols = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    if draw(st.booleans()):
        return sm.CDDLayout((rows, rows), draw(st.integers(1, 6)))
    size = draw(st.one_of(st.just("min"), st.integers(1, max(rows, cols))))
    return sm.CDDLayout((rows, cols), draw(st.sampled_from([3, 5, 7])), size)


def drawn(layout: sm.CDDLayout, seed: int, dtype: str = "float64") -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    vectors = [rng.standard_normal(shape) for shape in layout.vector_shapes]
    if dtype.startswith("complex"):
        vectors = [v + 1j * rng.standard_normal(v.shape) for v in vectors]
    return [v.astype(dtype) for v in vectors]


@given(layouts(), st.integers(0, 2**32 - 1))
def test_a_product_has_the_layout_that_made_it(layout: sm.CDDLayout, seed: int) -> None:
    vectors = drawn(layout, seed)
    product = layout.product(vectors)
    assert product.shape == layout.shape
    assert product.n_parameters == layout.n_parameters == sum(v.size for v in vectors)
    assert tuple(f.shape for f in product.factors) == layout.factor_shapes
    assert [isinstance(f, sm.Diagonal) for f in product.factors] == [kind == "diagonal" for kind in layout.kinds]
    if layout.n_factors > 1 or layout.is_single_block:
        assert sm.CDDLayout.of(product) == layout
        for v, w in zip(vectors, layout.vectors_of(product), strict=True):
            np.testing.assert_array_equal(v, w)
    dense = np.eye(layout.shape[0])
    for factor in product.factors:
        dense = dense @ factor.to_dense()
    np.testing.assert_allclose(product.to_dense(), dense, atol=1e-9 * np.max(np.abs(dense), initial=1))


@given(layouts())
def test_identities_are_identities(layout: sm.CDDLayout) -> None:
    product = layout.product(layout._identities())
    for factor in product.factors:
        np.testing.assert_array_equal(factor.to_dense(), np.eye(*factor.shape))


@given(layouts(), st.integers(0, 2**32 - 1), st.data())
def test_extension_keeps_the_product(layout: sm.CDDLayout, seed: int, data: Any) -> None:
    counts = range(1, layout.n_factors + 1) if layout.is_single_block else range(3, layout.n_factors + 1, 2)
    shorter = replace(layout, n_factors=data.draw(st.sampled_from(counts)))
    vectors = drawn(shorter, seed)
    extended = layout.extended(vectors)
    assert tuple(v.shape for v in extended) == layout.vector_shapes
    expected = shorter.product(vectors).to_dense()
    np.testing.assert_allclose(
        layout.product(extended).to_dense(), expected, atol=1e-12 * np.max(np.abs(expected), initial=1)
    )


@given(layouts(), st.integers(0, 2**32 - 1), st.sampled_from([1.0, 1e-160, 1e140]))
def test_balance_keeps_the_product_and_evens_the_sizes(layout: sm.CDDLayout, seed: int, scale: float) -> None:
    vectors = drawn(layout, seed)
    vectors[0] *= scale
    balanced = layout.balanced(vectors)
    expected = layout.product(vectors).to_dense() / scale
    actual = layout.product(balanced).to_dense() / scale
    np.testing.assert_allclose(actual, expected, atol=1e-9 * np.max(np.abs(expected), initial=0))
    sizes = [
        np.linalg.norm(v) / np.sqrt(v.shape[0] if v.ndim == 1 else min(v.shape[:2])) for v in balanced
    ]  # by the definition
    np.testing.assert_allclose(sizes, sizes[0])
    vectors[-1] *= 0
    assert not any(np.any(v) for v in layout.balanced(vectors))


@pytest.mark.parametrize("layout", [sm.CDDLayout((5, 5), 4), sm.CDDLayout((7, 4), 5, 3), sm.CDDLayout((3, 8))])
def test_vectors_follow_the_library_the_dtype_and_the_stack(backend: Backend, layout: sm.CDDLayout) -> None:
    if backend.compiles and layout.shape[0] != 7:
        pytest.skip("each operation would be compiled for each shape")
    vectors = [np.stack([v, 2 * v]) for v in drawn(layout, 1, "complex64")]
    arrays = [backend.asarray(v) for v in vectors]
    dense = layout.product(vectors).to_dense()
    np.testing.assert_allclose(backend.to_numpy(layout.product(arrays).to_dense()), dense, rtol=1e-4, atol=1e-4)
    for result in (layout.balanced(arrays), layout.vectors_of(layout.product(arrays)), layout._identities(arrays[0])):
        assert all(array.dtype == arrays[0].dtype for array in result)
    np.testing.assert_allclose(
        backend.to_numpy(layout.product(layout.balanced(arrays)).to_dense()), dense, rtol=1e-3, atol=1e-3
    )
    longer = replace(layout, n_factors=layout.n_factors + 2)
    extended = longer.product(longer.extended(arrays))
    np.testing.assert_allclose(backend.to_numpy(extended.to_dense()), dense, rtol=1e-4, atol=1e-4)


def test_a_product_of_spectra_or_small_grids_has_a_layout() -> None:
    c = np.arange(1.0, 5.0)
    layout = sm.CDDLayout((4, 4))
    for circulant in (sm.Circulant(c), sm.Circulant(c).to_spectral(), sm.BlockCirculant(c[None, None])):
        product = sm.CDDProduct((sm.Diagonal(c), circulant, sm.Diagonal(c)))
        assert sm.CDDLayout.of(product) == layout
        np.testing.assert_allclose(layout.vectors_of(product)[1], c[None, None])


@in_one_test(
    "arguments, error, argument, text",
    [
        (((3,),), TypeError, "shape", r"must be \(rows, cols\), got \(3,\)"),
        ((5,), TypeError, "shape", "got 5"),
        (((0, 3),), ValueError, "shape", "at least 1, got 0"),
        (((3, 3), 0), ValueError, "n_factors", "at least 1, got 0"),
        (((3, 3), 2.0), TypeError, "n_factors", "must be an integer"),
        (((3, 2), 4), ValueError, "n_factors", r"odd and at least 3 for a product of shape \(3, 2\) .* of 2, got 4"),
        (((4, 4), 1, 2), ValueError, "n_factors", "odd and at least 3 .* got 1"),
        (((4, 4), 3, None), TypeError, "block_size", 'must be an integer, "min" or "toeplitz", got None'),
        (((4, 4), 3, "max"), TypeError, "block_size", "got 'max'"),
        (((4, 3), 3, 7), ValueError, "block_size", r"at most rows \+ cols - 1 = 6, got 7"),
    ],
)
def test_impossible_layouts_are_refused(arguments: Any, error: type[Exception], argument: str, text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        sm.CDDLayout(*arguments, owner="owner")
    assert isinstance(caught.value, sm.ArgumentError)
    assert (caught.value.owner, caught.value.argument) == ("owner", argument)


def test_vectors_and_products_that_do_not_fit_are_refused() -> None:
    layout = sm.CDDLayout((3, 2))
    good = layout._identities()
    with pytest.raises(ValueError, match=r"CDDLayout\.product: vectors must be 3, got 2"):
        layout.product(good[:2])
    with pytest.raises(ValueError, match=r"vectors\[1\] must have shape \(\.\.\., 2, 1, 2\), got \(2,\)"):
        layout.product([good[0], np.ones(2), good[2]])
    with pytest.raises(ValueError, match=r"CDDLayout: n_factors must be odd"):
        layout.extended(good[:2])
    with pytest.raises(ValueError, match=r"CDDLayout\.of: product must begin with a diagonal"):
        sm.CDDLayout.of(sm.CDDProduct.from_vectors(np.ones(3), first="circulant"))
    with pytest.raises(TypeError, match=r"CDDLayout\.of: product must be a CDDProduct, got Diagonal"):
        sm.CDDLayout.of(sm.Diagonal(np.ones(3)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"CDDLayout\.vectors_of: product must have the layout"):
        layout.vectors_of(sm.CDDLayout((3, 3)).product(sm.CDDLayout((3, 3))._identities()))
    d, blocks = np.ones(4), np.ones((2, 2, 2))
    uneven = sm.CDDProduct.from_vectors(d, blocks, d, block=True) @ sm.CDDProduct.from_vectors(d, d, d)
    with pytest.raises(ValueError, match=r"blocks of one size, got \[2, 4\]"):
        sm.CDDLayout.of(uneven)
    widened = sm.CDDLayout((2, 4)).product(sm.CDDLayout((2, 4))._identities())
    with pytest.raises(ValueError, match="must have factors of shapes"):
        sm.CDDLayout.of(widened.T @ widened)


def test_a_layout_is_that_of_a_fit_by_default() -> None:
    W = np.random.default_rng(0).standard_normal((4, 6))
    assert sm.CDDLayout((4, 6)) == sm.CDDLayout.of(sm.fit_cdd(W, max_iter=1, restarts=0, rng=0).operator)


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


def spread(op: sm.CDDProduct) -> float:
    """What rounding errors of products grow with, relative to the norm."""
    rng = np.random.default_rng(0)
    right, left = (rng.standard_normal((32, side)) for side in reversed(op.shape))
    P = in_extended_precision(op)
    size = np.max(np.abs(P)) or np.longdouble(1.0)
    norm = float(np.linalg.norm((P / size).astype(complex))) or 1.0
    return float(np.exp(op._log_spread(right, left) - float(np.log(size)) - np.log(norm)))


@settings(max_examples=150, deadline=None)
@given(vectors())
def test_rounding_is_no_larger_than_the_condition_number_tells(drawn: Any) -> None:
    arrays, options = drawn
    op = sm.CDDProduct.from_vectors(*arrays, **options)
    P = in_extended_precision(op)
    n, eps, norm = max(op.shape), np.finfo(np.float64).eps, float(np.linalg.norm(P))
    bound = eps * np.log2(2 * n) * spread(op) * norm
    assert float(np.linalg.norm(op @ np.eye(op.shape[1]) - P)) <= 2 * bound + eps * norm
    X = np.random.default_rng(0).standard_normal((op.shape[1], 20))
    assert float(np.linalg.norm(op @ X - P @ X)) <= 10 * (2 * bound + eps * norm)


@settings(max_examples=60, deadline=None)
@given(vectors())
def test_dense_matrices_lose_no_small_entries(drawn: Any) -> None:
    arrays, options = drawn
    op = sm.CDDProduct.from_vectors(*arrays, **options)
    P = in_extended_precision(op)
    moduli = in_extended_precision(sm.CDDProduct.from_vectors(*map(np.abs, arrays), **options)).real
    error = np.abs(op.to_dense() - P)
    assert (error <= np.finfo(np.float64).eps * len(arrays) * 2 * max(op.shape) * moduli).all()


def test_it_tells_what_transforms_lose() -> None:
    rng, n = np.random.default_rng(2), 64
    for decades, lost in ((6, 1e4), (12, 1e8)):
        d = np.geomspace(1, 10.0**decades, n)
        op = sm.CDDProduct.from_vectors(d, np.eye(n)[0], 1 / d)
        x = rng.standard_normal(n)
        error = np.linalg.norm(op @ x - x) / np.linalg.norm(x) / np.finfo(float).eps
        assert lost < spread(op) < 1e3 * lost
        assert error > 0.01 * spread(op)
        assert np.allclose(op.to_dense() @ x, x, rtol=1e-15, atol=0)


@pytest.mark.parametrize("scale", [1e-90, 1.0, 1e90])
def test_scales_do_not_matter(scale: float) -> None:
    vs = np.random.default_rng(3).standard_normal((5, 12))
    plain, scaled = (spread(sm.CDDProduct.from_vectors(*(s * v for v in vs))) for s in (1.0, scale))
    assert scaled == pytest.approx(plain, rel=1e-6)


def test_one_for_what_transforms_keep() -> None:
    rng, n = np.random.default_rng(4), 50
    u, c, v = rng.standard_normal((3, n))
    one = np.ones(n)
    for vs in ((one, c, one), (u, one, v), (u, np.eye(n)[0], one), (u,)):
        assert spread(sm.CDDProduct.from_vectors(*vs)) == pytest.approx(1.0, rel=0.5)


def test_zero_factors() -> None:
    zero, one = np.zeros(4), np.ones(4)
    assert spread(sm.CDDProduct.from_vectors(zero, one, one)) == 0.0
    of_norm_zero = sm.CDDProduct.from_vectors(np.eye(4)[0], np.eye(4)[1], np.eye(4)[0])
    assert spread(of_norm_zero) > 0.1  # absolute, and of a product that is zero


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("n", [2, 9, 64])
def test_one_block_loses_what_a_circulant_loses(n: int, real: bool) -> None:
    rng = np.random.default_rng(n)
    a, c, b = (wide(rng, (n,), 3.0, real=real) for _ in range(3))
    circulant = sm.CDDProduct.from_vectors(a, c, b)
    block = sm.CDDProduct.from_vectors(a, c[None, None], b, block=True)
    assert spread(block) == pytest.approx(spread(circulant), rel=1e-9)
