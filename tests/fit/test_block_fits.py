"""Rectangles and several blocks, by any odd number of factors: what the fit holds."""

import numpy as np
import pytest

from structmat import BlockCirculant, Circulant, Diagonal
from structmat.fit import fit_cdd
from structmat.operators import CDDLayout, CDDProduct
from tests.cases import in_one_test
from tests.fit.matrices import closed_form_errors, matrix, planted_operator, relative

QUICK = {"max_iter": 40, "restarts": 1, "rng": 3}
# Shape and side of the blocks: tall, wide, square, cropped, a block beyond the smaller side, blocks of one.
GRIDS = [((8, 4), "min"), ((4, 8), "min"), ((6, 6), 3), ((7, 4), 3), ((4, 7), 3), ((6, 4), 5), ((3, 4), 1)]


def check(W, fit, n_factors, block_size):
    layout = CDDLayout(W.shape, n_factors, block_size)
    factors = fit.operator.factors
    assert [type(factor) for factor in factors] == [Diagonal, *[BlockCirculant, Diagonal] * (n_factors // 2)]
    assert [factor.shape for factor in factors] == list(layout.factor_shapes)
    assert fit.n_parameters == fit.operator.n_parameters == layout.n_parameters
    assert fit.operator.dtype == W.dtype
    assert fit.error == pytest.approx(relative(W, fit.operator.to_dense()), abs=1e-8)
    assert (np.diff(fit.history) <= 0.0).all()
    assert fit.history[-1] == pytest.approx(fit.error, abs=1e-8)
    assert len(fit.history) == fit.n_iter + 1


@pytest.mark.parametrize(("shape", "block_size"), GRIDS)
@pytest.mark.parametrize("real", [True, False])
def test_more_factors_are_never_worse_than_three_or_closed_forms(shape, block_size, real):
    W = matrix(shape, real=real)
    size = min(shape) if block_size == "min" else block_size
    errors = list(closed_form_errors(W, size).values())
    for n_factors in (3, 5, 7):
        fit = fit_cdd(W, n_factors, block_size=block_size, **QUICK)
        check(W, fit, n_factors, size)
        assert fit.error <= min(errors) + 1e-12
        if n_factors == 3:
            errors.append(fit.error)
    if block_size == 1:  # Blocks of one entry hold the matrix itself.
        assert errors[-1] < 1e-12
    else:
        assert fit.error < errors[-1] - 1e-3


def test_a_search_begins_with_alternating_least_squares():
    W = matrix((9, 5))
    fit = fit_cdd(W, 5, **QUICK)
    check(W, fit, 5, 5)
    assert fit.error <= fit_cdd(W, 3, **QUICK).error + 1e-12


@pytest.mark.parametrize(("shape", "block_size"), GRIDS)
@in_one_test("real", [True, False])
def test_a_member_given_as_the_start_is_returned(shape, block_size, real):
    for own, wanted in ((3, 3), (3, 5), (5, 5), (5, 7)):
        kind, rng = "signs" if real else "phases", np.random.default_rng(0)
        product = planted_operator(kind, rng, shape, block_size, own)
        W = np.asarray(product.to_dense())
        assert fit_cdd(W, wanted, block_size=block_size, start=product, **QUICK).error < 1e-12


def test_a_fit_or_a_product_with_a_plain_circulant_is_a_start():
    W = matrix((10, 5))
    fit = fit_cdd(W, 5, **QUICK)
    a, c, d, e, b = fit.operator.factors
    plain = CDDProduct((a, c, d, Circulant(e.c[0, 0]), b))
    for start in (fit, plain):
        assert fit_cdd(W, 7, start=start, time_limit=0, rng=0).error <= fit.error + 1e-12


@pytest.mark.parametrize(
    ("shape", "block_size", "kind"),
    [((8, 4), "min", "vector"), ((4, 8), "min", "full"), ((6, 6), 3, "full"), ((4, 7), 3, "singular")],
)
def test_a_weighted_fit_is_never_worse_than_without_weights(shape, block_size, kind):
    rng = np.random.default_rng(1)
    W, X = rng.standard_normal(shape), rng.standard_normal((shape[1], 3 if kind == "singular" else 20))
    X *= np.logspace(0, -1, shape[1])[:, None]
    S = X @ X.T
    if kind == "vector":
        S, X = np.diag(S), np.diag(np.sqrt(np.diag(S)))
    errors, start = [], None
    for n_factors in (3, 5):
        how = {"block_size": block_size, **QUICK}
        fit, plain = (fit_cdd(W, n_factors, input_second_moment=s, start=start, **how) for s in (S, None))
        of_fit, of_plain = (
            np.linalg.norm((W - np.asarray(found.operator.to_dense())) @ X) / np.linalg.norm(W @ X)
            for found in (fit, plain)
        )
        assert fit.error == pytest.approx(of_fit, rel=1e-5, abs=1e-6)
        assert of_fit < of_plain
        errors.append(fit.error)
        start = fit
    # Inputs of three dimensions are held exactly, and a longer product rounds a little more.
    assert errors[1] <= errors[0] + 1e-15


def test_zero_and_scales():
    zero = fit_cdd(np.zeros((6, 3)), 5)
    assert (zero.error, zero.operator.n_factors, zero.operator.shape) == (0.0, 5, (6, 3))
    errors = [fit_cdd(matrix((6, 3)).astype(np.float32) * np.float32(s), 5, **QUICK).error for s in (1, 1e-30, 1e30)]
    assert errors == pytest.approx([errors[0]] * 3, rel=1e-2)


@pytest.mark.parametrize(("shape", "block_size"), GRIDS)
def test_a_fit_needs_no_random_starts(shape, block_size):
    W = matrix(shape)
    fit = fit_cdd(W, 5, block_size=block_size, restarts=0, max_iter=20, rng=0)
    assert fit.start != "random"
    assert fit.error <= min(closed_form_errors(W, fit.block_size).values()) + 1e-12
