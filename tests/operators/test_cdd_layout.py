"""The shape of a CDD product: laws of its vectors against dense matrices, on every library, and the refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import structmat as sm
from tests.backends import Backend


@st.composite
def layouts(draw: Any) -> sm.CDDLayout:
    rows, cols = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    if draw(st.booleans()):
        first = draw(st.sampled_from(["diagonal", "circulant"]))
        return sm.CDDLayout((rows, rows), draw(st.integers(1, 6)), "min", first)
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
    if layout.n_factors > 1 or layout.first == "circulant" or layout.is_single_block:
        assert sm.CDDLayout.of(product) == layout
        for v, w in zip(vectors, layout.vectors_of(product), strict=True):
            np.testing.assert_array_equal(v, w)
    dense = np.eye(layout.shape[0])
    for factor in product.factors:
        dense = dense @ factor.to_dense()
    np.testing.assert_allclose(product.to_dense(), dense, atol=1e-9 * np.max(np.abs(dense), initial=1))


@given(layouts())
def test_identities_are_identities(layout: sm.CDDLayout) -> None:
    product = layout.product(layout.identities())
    for factor in product.factors:
        np.testing.assert_array_equal(factor.to_dense(), np.eye(*factor.shape))


@given(layouts(), st.integers(0, 2**32 - 1), st.data())
def test_extension_keeps_the_product(layout: sm.CDDLayout, seed: int, data: Any) -> None:
    if layout.is_single_block:
        first = data.draw(st.sampled_from(["diagonal", "circulant"]))
        fewer = data.draw(st.integers(1, layout.n_factors))
        if fewer + (first != layout.first) > layout.n_factors:
            with pytest.raises(sm.ArgumentValueError, match="vectors must fit into"):
                layout.extended(drawn(replace(layout, n_factors=fewer, first=first), seed), first)
            return
    else:
        first, fewer = "diagonal", data.draw(st.sampled_from(range(3, layout.n_factors + 1, 2)))
    shorter = replace(layout, n_factors=fewer, first=first)
    vectors = drawn(shorter, seed)
    extended = layout.extended(vectors, first)
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


def test_orthonormal_factors_have_size_one() -> None:
    layout = sm.CDDLayout((6, 4), 3, 2)
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 2)))[0]  # one real matrix for every frequency
    grid = q[..., None] * np.array([1.0, 0.0])
    vectors = [np.array([1.0, -1, 1, 1, -1, 1]), grid, np.ones(4)]
    for v, w in zip(vectors, layout.balanced(vectors), strict=True):
        np.testing.assert_allclose(v, w)


@pytest.mark.parametrize("layout", [sm.CDDLayout((5, 5), 4), sm.CDDLayout((7, 4), 5, 3), sm.CDDLayout((3, 8))])
def test_vectors_follow_the_library_the_dtype_and_the_stack(backend: Backend, layout: sm.CDDLayout) -> None:
    if backend.compiles and layout.shape[0] != 7:
        pytest.skip("each operation would be compiled for each shape")
    vectors = [np.stack([v, 2 * v]) for v in drawn(layout, 1, "complex64")]
    arrays = [backend.asarray(v) for v in vectors]
    dense = layout.product(vectors).to_dense()
    np.testing.assert_allclose(backend.to_numpy(layout.product(arrays).to_dense()), dense, rtol=1e-4, atol=1e-4)
    for result in (layout.balanced(arrays), layout.vectors_of(layout.product(arrays)), layout.identities(arrays[0])):
        assert all(array.dtype == arrays[0].dtype for array in result)
    np.testing.assert_allclose(
        backend.to_numpy(layout.product(layout.balanced(arrays)).to_dense()), dense, rtol=1e-3, atol=1e-3
    )
    longer = replace(layout, n_factors=layout.n_factors + 2)
    extended = longer.product(longer.extended(arrays))
    np.testing.assert_allclose(backend.to_numpy(extended.to_dense()), dense, rtol=1e-4, atol=1e-4)
    if backend.half is not None and backend.name != "array_api_strict":
        half = [backend.asarray(v.real.astype("float32")) for v in vectors]
        half = [v.to(backend.dtype(backend.half)) if backend.name == "torch" else v.astype(backend.half) for v in half]
        assert all(v.dtype == half[0].dtype for v in layout.balanced(half))


def test_a_product_of_spectra_or_small_grids_has_a_layout() -> None:
    c = np.arange(1.0, 5.0)
    layout = sm.CDDLayout((4, 4))
    for circulant in (sm.Circulant(c), sm.Circulant(c).to_spectral(), sm.BlockCirculant(c[None, None])):
        product = sm.CDDProduct((sm.Diagonal(c), circulant, sm.Diagonal(c)))
        assert sm.CDDLayout.of(product) == layout
        np.testing.assert_allclose(layout.vectors_of(product)[1], c[None, None])


@pytest.mark.parametrize(
    ("arguments", "error", "argument", "text"),
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
        (((4, 4), 3, "min", "c"), ValueError, "first", 'must be "diagonal" or "circulant"'),
        (((4, 2), 3, "min", "circulant"), ValueError, "first", 'must be "diagonal" for a product of shape'),
    ],
)
def test_impossible_layouts_are_refused(arguments: Any, error: type[Exception], argument: str, text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        sm.CDDLayout(*arguments, owner="owner")
    assert isinstance(caught.value, sm.ArgumentError)
    assert (caught.value.owner, caught.value.argument) == ("owner", argument)


def test_vectors_and_products_that_do_not_fit_are_refused() -> None:
    layout = sm.CDDLayout((3, 2))
    good = layout.identities()
    with pytest.raises(ValueError, match=r"CDDLayout\.product: vectors must be 3, got 2"):
        layout.product(good[:2])
    with pytest.raises(ValueError, match=r"vectors\[1\] must have shape \(\.\.\., 2, 1, 2\), got \(2,\)"):
        layout.product([good[0], np.ones(2), good[2]])
    with pytest.raises(ValueError, match=r"CDDLayout\.extended: n_factors must be odd"):
        layout.extended(good[:2])
    with pytest.raises(TypeError, match=r"CDDLayout\.of: product must be a CDDProduct, got Diagonal"):
        sm.CDDLayout.of(sm.Diagonal(np.ones(3)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"CDDLayout\.vectors_of: product must have the layout"):
        layout.vectors_of(sm.CDDLayout((3, 3)).product(sm.CDDLayout((3, 3)).identities()))
    d, blocks = np.ones(4), np.ones((2, 2, 2))
    uneven = sm.CDDProduct.from_vectors(d, blocks, d, block=True) @ sm.CDDProduct.from_vectors(d, d, d)
    with pytest.raises(ValueError, match=r"blocks of one size, got \[2, 4\]"):
        sm.CDDLayout.of(uneven)
    widened = sm.CDDLayout((2, 4)).product(sm.CDDLayout((2, 4)).identities())
    with pytest.raises(ValueError, match="must have factors of shapes"):
        sm.CDDLayout.of(widened.T @ widened)


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_gradients_flow_through_the_product(seed: int) -> None:
    torch: Any = pytest.importorskip("torch")
    layout = sm.CDDLayout((4, 4), 3)
    vectors = [torch.from_numpy(v).requires_grad_() for v in drawn(layout, seed)]
    layout.product(vectors).matvec(torch.ones(4, dtype=torch.float64)).sum().backward()
    assert all(v.grad is not None and v.grad.shape == v.shape for v in vectors)


def test_a_layout_is_that_of_a_fit_by_default() -> None:
    W = np.random.default_rng(0).standard_normal((4, 6))
    assert sm.CDDLayout((4, 6)) == sm.CDDLayout.of(sm.fit_cdd(W, max_iter=1, restarts=0, rng=0).operator)
