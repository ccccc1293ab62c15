"""Errors and gradients against dense products and finite differences, the parameters, and the random starts."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structmat.fit import _objective as module
from structmat.fit import fit_cdd
from structmat.fit._matrices import truncated_svd
from structmat.fit._objective import Objective
from structmat.operators import CDDLayout
from tests.cases import in_one_test
from tests.fit.matrices import dense_product, normal


def of(layout, dtype=np.float64):
    """The products of a layout for a matrix that does not matter."""
    return Objective(layout, np.ones(layout.shape, dtype=dtype))


def dense(layout, parameters):
    return dense_product(layout, of(layout).vectors(parameters))


@st.composite
def single_blocks(draw):
    n = draw(st.integers(1, 9))
    return CDDLayout((n, n), draw(st.integers(1, 6)))


@st.composite
def grids(draw):
    shape = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    return CDDLayout(shape, draw(st.sampled_from([3, 5, 7])), draw(st.integers(1, max(shape))))


layouts = st.one_of(single_blocks(), grids())


objectives = {
    "layout": layouts,
    "real": st.booleans(),
    "weighted": st.booleans(),
    "chunked": st.booleans(),
    "seed": st.integers(0, 2**16),
}


@settings(max_examples=12, deadline=None)
@given(**objectives)
def test_error_and_gradient(**options):
    check_error_and_gradient(**options)


@settings(max_examples=120, deadline=None)
@given(**objectives)
def test_error_and_gradient_of_many(**options):
    check_error_and_gradient(**options)


def check_error_and_gradient(layout, real, weighted, chunked, seed):
    rng = np.random.default_rng(seed)
    rows, cols = layout.shape
    target = normal(rng, (rows, 4 if weighted else cols), real=real)
    inputs = normal(rng, (cols, 4), real=real) if weighted else None
    products, direction = normal(rng, (2, 2, layout.n_parameters), real=real)
    with pytest.MonkeyPatch.context() as patch:
        if chunked:
            patch.setattr(module, "_LEAST_ROWS", 1)
            patch.setattr(module, "_CHUNK_BYTES", 1)
        objective = Objective(layout, target, inputs)
        values, gradient = objective.value_and_gradient(products)
        step = 1e-6
        (ahead, _), (behind, _) = (objective.value_and_gradient(products + s * direction) for s in (step, -step))
        for parameters, value in zip(products, values, strict=True):
            product = dense(layout, parameters)
            residual = target - (product if inputs is None else product @ inputs)
            expected = np.linalg.norm(residual) / np.linalg.norm(target)
            assert np.sqrt(value) == pytest.approx(expected, rel=1e-9)
            assert objective.error(parameters) == pytest.approx(expected, rel=1e-9)
    slopes = np.sum((direction.conj() * gradient).real, axis=1)
    # Central differences of a polynomial of high degree: rounding of the values counts by their size.
    assert (ahead - behind) / (2 * step) == pytest.approx(slopes, rel=1e-4, abs=1e-5 * float(np.max(np.abs(values))))


def test_the_parameters_are_left_as_they_are():
    rng = np.random.default_rng(0)
    for layout in (CDDLayout((6, 6), 4), CDDLayout((5, 7), 5, 3)):
        products = normal(rng, (2, layout.n_parameters), real=False)
        before = products.copy()
        Objective(layout, normal(rng, layout.shape, real=False)).value_and_gradient(products)
        assert np.array_equal(products, before)


@settings(max_examples=40, deadline=None)
@given(layout=layouts, real=st.booleans(), seed=st.integers(0, 2**16))
def test_vectors_and_parameters_are_one_another(layout, real, seed):
    parameters = normal(np.random.default_rng(seed), layout.n_parameters, real=real)
    products = of(layout, parameters.dtype)
    vectors = products.vectors(parameters)
    assert [vector.shape for vector in vectors] == [*layout.vector_shapes]
    product = np.asarray(layout.product(vectors).to_dense())
    assert dense(layout, parameters) == pytest.approx(product, rel=1e-9, abs=1e-9 * np.abs(product).max())


@settings(max_examples=60, deadline=None)
@given(layout=layouts, more=st.sampled_from([0, 1, 2, 4]), real=st.booleans(), seed=st.integers(0, 2**16))
def test_identities_and_balancing_leave_the_product(layout, more, real, seed):
    rng = np.random.default_rng(seed)
    vectors = [10.0 ** rng.integers(-5, 5) * normal(rng, shape, real=real) for shape in layout.vector_shapes]
    more = more if layout.is_single_block else 2 * more
    longer = CDDLayout(layout.shape, layout.n_factors + more, layout.block_size)
    products = of(longer, vectors[0].dtype)
    extension = products.parameters(vectors)
    product = np.asarray(layout.product(vectors).to_dense())
    assert dense(longer, extension) == pytest.approx(product, rel=1e-9, abs=1e-9 * np.abs(product).max())
    if not more:
        sizes = [np.sqrt(np.mean(np.abs(extension[factor.place]) ** 2)) for factor in products._factors]
        assert sizes == pytest.approx([sizes[0]] * len(sizes))


def test_a_zero_factor_makes_all_zero():
    layout = CDDLayout((4, 4))
    assert not of(layout).parameters([np.ones(4), np.zeros((1, 1, 4)), np.ones(4)]).any()


@pytest.mark.parametrize("real", [True, False])
@in_one_test(
    "layout",
    [
        CDDLayout((1, 1), 1),
        CDDLayout((8, 8), 5),
        CDDLayout((7, 7), 4),
        CDDLayout((6, 3), 5, 3),
        CDDLayout((4, 8), 5, 2),
        CDDLayout((6, 6), 5, 2),
        CDDLayout((4, 2), 5, 1),
    ],
)
def test_random_starts_are_isometries_of_entries_of_one_size(layout, real):
    dtype = np.dtype(np.float32 if real else np.complex64)
    own = of(layout, dtype)
    products = own.random(2, np.random.default_rng(0))
    assert products.dtype == dtype
    for parameters in products:
        values = np.linalg.svd(dense(layout, parameters), compute_uv=False)
        assert values == pytest.approx(np.ones(min(layout.shape)), abs=1e-5)
        for factor in own._factors:
            assert np.mean(np.abs(parameters[factor.place]) ** 2) == pytest.approx(1.0, rel=1e-4)
    values, gradient = own.value_and_gradient(products)
    assert (values.dtype, gradient.dtype) == (np.float64, dtype)


def test_weighted_rank_one_is_least_squares():
    rng = np.random.default_rng(0)
    W, M = rng.standard_normal((6, 5)), rng.standard_normal((5, 5))
    u, v = truncated_svd(W @ M, 1, rng, M)
    s = np.linalg.svd(W @ M, compute_uv=False)
    assert np.linalg.norm((W - np.outer(u, v)) @ M) == pytest.approx(np.linalg.norm(s[1:]))


@settings(max_examples=30, deadline=None)
@given(layout=layouts, real=st.booleans(), weighted=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_spread_of_parameters_in_another_precision(layout, real, weighted, seed):
    rng = np.random.default_rng(seed)
    target = normal(rng, layout.shape, real=real)
    inputs = normal(rng, (layout.shape[1], 3), real=real) if weighted else None
    vectors = [normal(rng, shape, real=real) for shape in layout.vector_shapes]
    objective = Objective(layout, target, inputs)
    parameters = objective.parameters(vectors)
    narrow = parameters.astype(np.result_type(np.float32, 1j) if not real else np.float32)
    assert objective.spread(narrow) == pytest.approx(objective.spread(parameters), rel=1e-3)


def test_no_fit_starts_threads(monkeypatch):
    """The caller decides how many there are: by workers of a study, limits of BLAS, and `scipy.fft.set_workers`."""

    def refuse(_):
        raise AssertionError("a thread was started")

    W = np.random.default_rng(0).standard_normal((300, 300))  # several chunks of rows
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert fit_cdd(W, 5, rng=0, max_iter=5, restarts=1).error < 1.0
