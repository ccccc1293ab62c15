"""`factorize_cdd`: every closed form is found, other matrices are reproduced, arguments and limits are honoured."""

import itertools
import time
import types

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from structmat import factorize_cdd
from structmat.fit import FitProgress, _factorize_cdd
from structmat.fit._exact import exact_search
from structmat.fit._many_factors.diagonal_forms import DiagonalForms
from structmat.fit._many_factors.equalisation import equalise
from structmat.operators._cdd import CDDProduct

# Name, number of factors, and the matrix from a source of entries.
FORMS = {
    "zero": 1,
    "diagonal": 1,
    "circulant": 1,
    "diagonal times shift": 2,
    "diagonal times circulant": 2,
    "circulant times diagonal": 2,
    "rank one": 3,
    "diagonal, circulant, diagonal": 3,
    "circulant, diagonal, circulant": 3,
    "affine permutation": 5,
}


def gaussian(rng, shape, real):
    x = rng.standard_normal(shape)
    return x if real else x + 1j * rng.standard_normal(shape)


def circulant(c):
    i = np.arange(len(c))
    return c[(i[:, None] - i) % len(c)]


def affine_permutation(n, rate, shift):
    j = np.arange(n)
    P = np.zeros((n, n))
    P[(rate * j + shift) % n, j] = 1.0
    return P


def matrix_of(form, n, rng, *, real):
    a, b, c, d = gaussian(rng, (4, n), real)
    shift = int(rng.integers(1, n))
    rates = [rate for rate in range(2, n) if np.gcd(rate, n) == 1]
    return {
        "zero": np.zeros((n, n)),
        "diagonal": np.diag(a),
        "circulant": circulant(a),
        "diagonal times shift": a[:, None] * np.roll(np.eye(n), shift, axis=0),
        "diagonal times circulant": a[:, None] * circulant(c),
        "circulant times diagonal": circulant(c) * b,
        "rank one": np.outer(a, b),
        "diagonal, circulant, diagonal": a[:, None] * circulant(c) * b,
        "circulant, diagonal, circulant": circulant(a) * b @ circulant(c),
        "affine permutation": d[:, None] * affine_permutation(n, rng.choice(rates), shift),
    }[form]


def check(W, result, tol=1e-10):
    P = np.asarray(result.operator.to_dense())
    size = np.linalg.norm(W) or 1.0
    assert result.operator.shape == W.shape
    # The error is measured through products, whose rounding the condition of the product tells.
    rounding = max(1e-13, 10 * np.finfo(float).eps * float(result.operator.product_cond()))
    assert np.linalg.norm(P - W) == pytest.approx(result.error * size, abs=rounding * size)
    assert result.converged == (result.error <= tol)
    assert len(result.history) == result.n_iter + 1
    assert (np.diff(result.history) <= 0).all()
    assert result.n_parameters == result.operator.n_factors * len(W)
    assert result.message
    assert result.seconds > 0.0


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=5, deadline=None)
@given(n=st.integers(3, 20), seed=st.integers(0, 2**16), real=st.booleans(), exponent=st.sampled_from([-300, 0, 300]))
def test_closed_forms(form, n, seed, real, exponent):
    W = matrix_of(form, n, np.random.default_rng(seed), real=real) * 10.0**exponent
    result = factorize_cdd(W, rng=0)
    size = np.linalg.norm(W / 10.0**exponent) or 1.0
    error = np.linalg.norm((np.asarray(result.operator.to_dense()) - W) / 10.0**exponent) / size
    assert error <= 1e-12
    assert result.converged
    # Signs, sizes and zeros may make a matrix a member of a smaller set.
    assert result.operator.n_factors <= FORMS[form]
    if result.operator.n_factors == FORMS[form]:
        assert result.solver == "closed form"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("real", [True, False])
def test_closed_forms_are_named(form, real):
    W = matrix_of(form, 11, np.random.default_rng(7), real=real)
    result = factorize_cdd(W, rng=0)
    check(W, result)
    assert (result.start, result.operator.n_factors) == (form, FORMS[form])
    if real and FORMS[form] < 3:
        assert result.operator.dtype == np.float64


@pytest.mark.parametrize("n", [2, 5, 8, 13])
def test_fourier_matrix_is_three_factors(n):
    W = np.fft.fft(np.eye(n), norm="ortho")
    result = factorize_cdd(W, rng=0)
    assert result.operator.n_factors <= 3
    assert result.error < 1e-13


@pytest.mark.parametrize("n_factors", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("form", ["diagonal", "circulant"])
def test_closed_forms_are_lengthened_by_identities(n_factors, form):
    W = matrix_of(form, 6, np.random.default_rng(0), real=True)
    result = factorize_cdd(W, n_factors, rng=0)
    check(W, result)
    assert result.error < 1e-15
    assert result.operator.n_factors == n_factors
    assert result.operator.dtype == np.float64
    if n_factors > 1:
        assert result.message.endswith(f"of 1 factors; identities make it {n_factors} factors")


def test_constructions_are_lengthened_by_identities():
    W = gaussian(np.random.default_rng(0), (6, 6), real=True)
    result = factorize_cdd(W, 20, method="constructive", rng=0)
    np.testing.assert_allclose(result.operator.to_dense(), W, atol=1e-11)
    assert (result.operator.n_factors, result.converged) == (20, True)
    assert result.message.startswith("11 complex factors by construction")
    assert result.message.endswith("identities make it 20 factors")


@pytest.mark.parametrize("n", [3, 4, 5, 6, 8, 12])
@pytest.mark.parametrize("seed", range(3))
def test_generic_matrices_reach_the_counting_bound(n, seed):
    W = gaussian(np.random.default_rng(seed), (n, n), real=False)
    result = factorize_cdd(W, rng=seed)
    check(W, result)
    assert result.error <= 1e-10
    assert result.operator.n_factors == n + 1
    assert result.start == "generic"


@pytest.mark.parametrize("n", [16, 24])
def test_larger_generic_matrices(n):
    W = gaussian(np.random.default_rng(n), (n, n), real=False)
    result = factorize_cdd(W, n + 3, rng=0)
    check(W, result)
    assert result.error <= 1e-10
    assert result.operator.n_factors == n + 3


@pytest.mark.parametrize("kind", ["real", "orthogonal", "Toeplitz", "permutation", "triangular"])
def test_matrices_with_other_structure(kind):
    n, rng = 10, np.random.default_rng(3)
    G = rng.standard_normal((n, n))
    i = np.arange(n)
    W = {
        "real": G,
        "orthogonal": np.linalg.qr(G)[0],
        "Toeplitz": rng.standard_normal(2 * n)[i[:, None] - i + n],
        "permutation": np.eye(n)[rng.permutation(n)],
        "triangular": np.triu(G),
    }[kind]
    result = factorize_cdd(W, rng=0)
    check(W, result)
    assert result.error <= 1e-10
    assert result.operator.n_factors <= n + 3
    assert result.start == ("Toeplitz" if kind == "Toeplitz" else "generic")


def of_condition(n, power, seed):
    """Singular values from 1 to ``10**-power``, with orthogonal matrices on both sides."""
    left, right = (np.linalg.qr(G)[0] for G in np.random.default_rng(seed).standard_normal((2, n, n)))
    return left * np.logspace(0, -power, n) @ right


@pytest.mark.parametrize(
    "W",
    [scipy.linalg.hilbert(8), scipy.linalg.hilbert(12), *(of_condition(12, power, 0) for power in (4, 6, 8))],
    ids=["hilbert-8", "hilbert-12", "1e4", "1e6", "1e8"],
)
def test_ill_conditioned_matrices(W):
    result = factorize_cdd(W, method="search", rng=0)
    check(W, result)
    assert result.error <= 1e-10
    assert result.operator.n_factors <= len(W) + 8


def test_what_is_too_ill_conditioned_is_not_searched_but_constructed(monkeypatch):
    monkeypatch.setattr(
        _factorize_cdd, "search", lambda *_, **__: pytest.fail("a search, which would take long in vain")
    )
    assert factorize_cdd(of_condition(12, 12, 0), rng=0).solver == "construction"


@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 9), seed=st.integers(0, 2**16), power=st.sampled_from([0, 4, 10, 300]))
def test_equalisation_reports_the_error_of_the_matrix_itself(n, seed, power):
    W = of_condition(n, power, seed)
    chain = DiagonalForms(np.exp(2j * np.pi * np.random.default_rng(seed).random((n + 4, n))), "diagonal", real=False)
    size = np.linalg.norm(W)
    for state in itertools.islice(equalise(W, chain), 60):
        assert np.isfinite(state.chain.x).all()
        assert state.error == pytest.approx(np.linalg.norm(W - state.chain.dense()) / size, rel=1e-6, abs=1e-14)


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize(("n", "rank"), [(12, 2), (12, 3), (24, 2)])
def test_low_rank_needs_no_more_than_the_proven_bound(real, n, rank):
    rng = np.random.default_rng(rank)
    W = gaussian(rng, (n, rank), real) @ gaussian(rng, (rank, n), real)
    result = factorize_cdd(W, rng=0)
    check(W, result)
    assert result.error <= 1e-10
    assert result.operator.n_factors <= 4 * rank + 1
    assert result.start == f"rank {rank}"


def test_too_few_factors_return_the_best():
    W = gaussian(np.random.default_rng(0), (8, 8), real=False)
    result = factorize_cdd(W, 4, rng=0)
    check(W, result)
    assert not result.converged
    assert 1e-3 < result.error < 1.0
    assert "no start met the tolerance" in result.message


@pytest.mark.parametrize("n", [4, 8])
def test_random_phases_are_not_tried_against_mere_rounding(n):
    """They help where the structure of a matrix spoils a construction, not where an error of zero is asked for."""
    seen = []
    W = np.random.default_rng(0).standard_normal((n, n))
    result = factorize_cdd(W, method="constructive", target_error=0.0, rng=0, callback=seen.append)
    assert [state.start for state in seen] == ["generic", "generic", "rotations"]
    assert "random phases" not in result.message


@pytest.mark.parametrize("n_factors", [1, 2])
def test_closed_forms_with_more_factors_than_wanted_are_not_taken(n_factors):
    W = np.outer([1.0, 2.0, 3.0], [4.0, 5.0, 7.0])
    assert factorize_cdd(W, n_factors, rng=0).operator.n_factors == n_factors
    assert factorize_cdd(W, rng=0).operator.n_factors == FORMS["rank one"]


@pytest.mark.parametrize(
    ("target_error", "options", "converged"),
    [(0.0, {"method": "constructive"}, False), (0.999, {"n_factors": 2}, True), (1e-10, {"n_factors": 2}, False)],
)
def test_converged_is_what_meets_the_error_aimed_at(target_error, options, converged):
    result = factorize_cdd(
        gaussian(np.random.default_rng(0), (6, 6), True), rng=0, target_error=target_error, **options
    )
    assert (result.error <= target_error, result.converged) == (converged, converged)


@pytest.mark.parametrize(("n", "seed"), [(6, 0), (8, 1)])
def test_planted_products_of_five_real_factors_are_found(n, seed):
    vectors = np.random.default_rng(seed).standard_normal((5, n))
    W = np.asarray(CDDProduct.from_vectors(*vectors).to_dense())
    result = factorize_cdd(W, 5, rng=0, time_limit=60)
    check(W, result)
    assert result.error <= 1e-10
    assert result.operator.dtype == np.float64


@pytest.mark.parametrize("time_limit", [0, 0.5])
def test_time_limit_returns_the_best_so_far(time_limit):
    W = gaussian(np.random.default_rng(0), (40, 40), real=False)
    result = factorize_cdd(W, method="search", rng=0, time_limit=time_limit)
    check(W, result)
    assert not result.converged
    assert result.stopped == "time limit"
    assert "time limit" in result.message
    if time_limit == 0:
        assert result.n_iter <= 1
    assert result.error < 1.0


@pytest.mark.parametrize("options", [{"n_factors": 49}, {"n_factors": 9}, {"method": "search"}])
def test_a_time_limit_shorter_than_an_iteration_is_kept_and_better_than_nothing(options):
    W = gaussian(np.random.default_rng(0), (48, 48), real=True)
    begun = time.process_time()  # not of others on the machine
    result = factorize_cdd(W, rng=0, time_limit=0.2, **options)
    assert time.process_time() - begun < 1.2
    check(W, result)
    assert result.stopped == "time limit"
    assert result.error < 1.0
    assert result.operator.n_factors == options.get("n_factors", 51)


def test_same_seed_same_factors():
    W = gaussian(np.random.default_rng(0), (7, 7), real=False)
    reports = []
    first, again = (factorize_cdd(W, rng=3, callback=reports.append) for _ in range(2))
    assert all(
        (f._leaves()[0][0] == g._leaves()[0][0]).all()
        for f, g in zip(first.operator.factors, again.operator.factors, strict=True)
    )
    assert len(reports) == 2 * first.n_iter
    assert all(isinstance(report, FitProgress) and report.start == "generic" for report in reports)
    assert reports[-1].error == first.history[-1]


def test_tensors_in_tensors_out():
    W = torch.randn(5, 5, dtype=torch.float32, generator=torch.Generator().manual_seed(0))
    result = factorize_cdd(W, rng=0)
    dense = result.operator.to_dense()
    assert dense.dtype == torch.complex128
    assert torch.linalg.norm(dense - W) <= 1e-10 * torch.linalg.norm(W)


@pytest.mark.parametrize(
    ("W", "options", "error", "message"),
    [
        (np.ones((2, 3)), {}, ValueError, r"W must be square, got shape \(2, 3\)"),
        (np.ones(3), {}, ValueError, r"W must be a non-empty matrix"),
        (np.full((2, 2), np.nan), {}, ValueError, r"W must be finite, got NaN or infinity"),
        (np.eye(2), {"n_factors": 0}, ValueError, r"n_factors must be at least 1, got 0"),
        (np.eye(2), {"n_factors": 2.0}, TypeError, r"n_factors must be an integer, got 2\.0"),
        (np.eye(2), {"target_error": -1}, ValueError, r"target_error must be finite and not negative, got -1"),
        (np.eye(2), {"target_error": "small"}, TypeError, r"target_error must be a number, got 'small'"),
        (np.eye(2), {"time_limit": -1.0}, ValueError, r"time_limit must be finite and not negative, got -1\.0"),
        (np.eye(2), {"callback": 3}, TypeError, r"callback must be callable, got 3"),
        (np.eye(2), {"rng": "seed"}, TypeError, r"rng must be .*, got 'seed'"),
    ],
)
def test_bad_arguments(W, options, error, message):
    with pytest.raises(error, match="factorize_cdd: " + message):
        factorize_cdd(W, **options)


def test_the_time_of_an_iteration_is_what_passes_whatever_the_clock_shows(monkeypatch):
    def measured(shows, passes):
        clock = types.SimpleNamespace(monotonic=itertools.count(shows, passes).__next__)
        monkeypatch.setattr(exact_search, "time", clock)
        return exact_search._iteration_seconds(40, 41, np.random.default_rng(0))

    assert 0 < measured(100.0, 2.0) == 2 * measured(5.0, 1.0)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_searches_for_low_rank_begin_at_the_counting_bound_and_end_at_the_proven_one(rank):
    W = np.random.default_rng(0).standard_normal((2, 12, rank))
    W = W[0] @ W[1].T
    name, lengths = exact_search._generic_form(W, np.linalg.svdvals(W), 1e-10, higher=0)
    assert (name, min(lengths), max(lengths)) == (f"rank {rank}", 2 * rank + 1, 4 * rank + 1)
