"""Steps of second order: their derivatives against differences, what they reach, and what ends them."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structmat.fit import FitProgress, fit_cdd
from structmat.fit._control import Control
from structmat.fit._levenberg_marquardt import levenberg_marquardt
from structmat.fit._objective import Objective
from structmat.fit._problem import Problem
from structmat.fit._product_derivatives import ProductDerivatives, second_order_steps
from structmat.fit._search import Search
from structmat.operators import CDDLayout
from tests.fit.matrices import dense_product, matrix, normal
from tests.fit.test_objective import layouts


@settings(max_examples=20, deadline=None)
@given(layout=layouts, real=st.booleans(), weighted=st.booleans(), seed=st.integers(0, 2**16))
def test_normal_equations_are_those_of_the_derivatives(layout, real, weighted, seed):
    rng = np.random.default_rng(seed)
    inputs = normal(rng, (layout.shape[1], 3), real=real) if weighted else None
    acting = np.eye(layout.shape[1]) if inputs is None else inputs
    target = normal(rng, (layout.shape[0], acting.shape[1]), real=real)
    vectors = [normal(rng, shape, real=real) for shape in layout.vector_shapes]
    sizes = [math.prod(shape) for shape in layout.vector_shapes]
    whole = np.concatenate([v.ravel() for v in vectors])

    def residual(entries):
        parts = np.split(entries, np.cumsum(sizes)[:-1])
        product = dense_product(layout, [p.reshape(s) for p, s in zip(parts, layout.vector_shapes, strict=True)])
        return (product @ acting - target).ravel() / np.linalg.norm(target)

    # A product is linear in each entry, so that a difference has no error but rounding.
    jacobian = np.stack([(residual(whole + e) - residual(whole - e)) / 2 for e in np.eye(len(whole))], axis=1)
    at = ProductDerivatives(layout, vectors, target, inputs)
    gram, with_residual = at.normal_equations()
    expected = jacobian.conj().T @ jacobian
    np.testing.assert_allclose(gram, expected, atol=1e-11 * max(np.abs(expected).max(), 1.0))
    right = jacobian.conj().T @ residual(whole)
    np.testing.assert_allclose(with_residual, right, atol=1e-11 * max(np.abs(right).max(), 1.0))
    assert at.error == pytest.approx(np.linalg.norm(residual(whole)))


class _Rosenbrock:
    """The residual of Rosenbrock's valley."""

    def __init__(self, x):
        self._residual = np.array([10 * (x[1] - x[0] ** 2), 1 - x[0]])
        self._jacobian = np.array([[-20 * x[0], 10.0], [-1.0, 0.0]])
        self.error = float(np.linalg.norm(self._residual))

    def normal_equations(self):
        return self._jacobian.T @ self._jacobian, self._jacobian.T @ self._residual


def test_steps_follow_a_curved_valley_to_its_end_and_never_go_up():
    seen = []
    ended = levenberg_marquardt(_Rosenbrock, np.array([-1.2, 1.0]), 200, lambda x, error: seen.append((x, error)))
    errors = [error for _, error in seen]
    assert ended
    assert (np.diff(errors) < 0.0).all()
    np.testing.assert_allclose(seen[-1][0], 1.0, rtol=1e-9)


@pytest.mark.parametrize("most", [1, 4])
def test_there_are_no_more_steps_than_allowed(most):
    seen = []
    assert not levenberg_marquardt(_Rosenbrock, np.array([-1.2, 1.0]), most, lambda x, error: seen.append(error))
    assert len(seen) == most


def test_the_caller_ends_the_steps():
    def after(parameters, error):
        seen.append(error)
        raise StopIteration

    seen = []
    W = matrix(4, real=False)
    objective = Objective(CDDLayout((4, 4), 5), W)
    start = objective.random(1, np.random.default_rng(0))[0]
    assert not second_order_steps(objective, start, 50, after)
    assert len(seen) == 1


def test_an_overflow_ends_the_steps():
    W = matrix(3)
    objective = Objective(CDDLayout((3, 3), 5), W)
    seen = []
    start = np.full(15, 1e120)
    assert second_order_steps(objective, start, 50, lambda parameters, error: seen.append(error))
    assert seen == []


@pytest.mark.parametrize("seed", range(3))
def test_complex_matrices_are_products_of_as_few_factors_as_a_count_allows(seed):
    fit = fit_cdd(matrix(6, real=False, seed=seed), 7, rng=seed)
    assert fit.error <= 1e-12
    assert fit.message == "the product is the matrix to rounding"


def test_real_matrices_are_products_of_few_real_factors():
    fit = fit_cdd(matrix(5), 7, rng=0)
    assert fit.error <= 1e-12
    assert fit.operator.dtype == np.float64


# Of 16 rows and more, with ten matrices each: benchmarks/exact_products.py --search.


@pytest.mark.parametrize(("n", "n_factors"), [(8, 9), (12, 14)])
def test_larger_real_matrices_are_exact_too(n, n_factors):
    for seed in range(2):
        assert fit_cdd(matrix(n, seed=seed), n_factors, rng=0).error <= 1e-10


@pytest.mark.parametrize(("n", "more", "draws"), [(8, 1, 4), (12, 2, 1)])
def test_larger_complex_matrices_are_exact_too(n, more, draws):
    for seed in range(draws):
        assert fit_cdd(matrix(n, real=False, seed=seed), n + more, rng=0).error <= 1e-10


@pytest.mark.parametrize(("shape", "n_factors", "block"), [((5, 4), 7, "min"), ((6, 6), 7, 3), ((4, 4), 5, 2)])
def test_rectangles_and_blocks_are_products_of_a_few_factors(shape, n_factors, block):
    fit = fit_cdd(matrix(shape, real=False), n_factors, block_size=block, rng=0)
    assert fit.error <= 1e-12


def test_inputs_count_with_their_columns():
    """Fewer inputs than columns ask for less than the whole matrix."""
    W = matrix(6, real=False)
    root = normal(np.random.default_rng(1), (6, 2), real=False)
    fit = fit_cdd(W, 5, input_second_moment=root @ root.conj().T, rng=0)
    assert fit.error <= 1e-7


@pytest.mark.parametrize("stop", [StopIteration, KeyboardInterrupt])
def test_the_callback_and_interrupts_end_them_with_the_best_so_far(stop):
    heard: list[FitProgress] = []

    def callback(state):
        if state.phase == "polish" and state.start == "random":
            heard.append(state)
            if len(heard) == 5:
                raise stop

    fit = fit_cdd(matrix(8, real=False), 9, rng=0, callback=callback, on_interrupt="return")
    assert fit.status == ("callback" if stop is StopIteration else "interrupted")
    assert fit.error <= heard[-1].error + 1e-12
    assert len(heard) == 5


def test_a_limit_of_time_ends_them():
    fit = fit_cdd(matrix(12, real=False), 13, rng=0, time_limit=0.05)
    assert fit.status == "time limit"


def test_a_polish_near_low_rank_ends_with_steps_of_second_order():
    """L-BFGS is slow in curved valleys; products stay accurate, and limits of iterations are kept."""
    rng = np.random.default_rng(2)
    W = rng.standard_normal((18, 3)) @ rng.standard_normal((3, 18)) / 18 + rng.standard_normal((18, 18)) / 100
    control = Control(max_iter=5000, tol=1e-7, restarts=1)
    search = Search(Problem(W, CDDLayout(W.shape, 7), W.dtype), control, np.random.default_rng(0))
    start = search._candidate("random", search.objective.random(1, np.random.default_rng(4))[0])
    polished = search._polished(start, 300)
    refined, further = search._refined(polished, 300), search._polished(polished, 300)
    assert refined.error < 0.99 * further.error < polished.error
    assert search.best.history[-1] == refined.history[-1]
    assert refined.slow
    assert search.best.slow  # which is said of the fit, and that it was completed
    allowed = search.objective.allowed_spread(polished.parameters, W.dtype)
    assert search.objective.spread(refined.parameters) <= allowed
    large = Search(Problem(W, CDDLayout(W.shape, 7), W.dtype), control, np.random.default_rng(0))
    large.layout = replace(large.layout, n_factors=57)
    assert large._refined(polished, 300) is polished  # a step would take too long
    control.max_iter = len(polished.history) + 4
    assert len(search._refined(polished, 300).history) == control.max_iter + 1
