"""Exact products by construction: any side, any structure, to the errors that are promised, and through every call."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import structmat as sm
from structmat import factorize_cdd
from structmat._array_tools import ArgumentValueError
from structmat.fit import FitProgress
from structmat.fit._exact.constructions import _MIXINGS, _usual_error, construct, constructions
from structmat.fit._exact.cyclic_band import cyclic_band
from structmat.fit._exact.deflation import deflate, has_extended_precision
from structmat.fit._exact.forms import to_product
from structmat.fit._exact.low_rank import factor_low_rank, singular_triplets
from structmat.fit._exact.mixing import Mixing
from structmat.fit._exact.pencil import factor_polynomial, null_sequences
from structmat.fit._exact.plain_band import factor_plain_band
from structmat.operators._cdd import CDDProduct
from structmat.operators._circulants import BandedCirculant
from structmat.operators._diagonal import Diagonal


def gaussian(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def unitary(rng, n):
    return np.linalg.qr(gaussian(rng, n, n))[0]


def shift(n):
    return np.roll(np.eye(n), 1, axis=0)


KINDS = {
    "complex": lambda rng, n: gaussian(rng, n, n),
    "real": lambda rng, n: rng.standard_normal((n, n)),
    "symmetric": lambda rng, n: np.cov(rng.standard_normal((n, 2 * n))).reshape(n, n),
    "unitary": unitary,
    "permutation": lambda rng, n: np.eye(n)[rng.permutation(n)],
    "identity": lambda rng, n: np.eye(n),
    "DFT": lambda rng, n: scipy.linalg.dft(n, scale="sqrtn"),
    "singular": lambda rng, n: unitary(rng, n) * np.append(np.ones(n - 1), n == 1) @ unitary(rng, n),
    "condition 1e8": lambda rng, n: unitary(rng, n) * np.logspace(0, -8, n) @ unitary(rng, n),
    "half rank": lambda rng, n: gaussian(rng, n, (n + 1) // 2) @ gaussian(rng, (n + 1) // 2, n),
    "triangular": lambda rng, n: np.triu(gaussian(rng, n, n)),
    "Jordan block": lambda rng, n: np.eye(n) + np.eye(n, k=1),
    "nilpotent": lambda rng, n: np.eye(n, k=1) if n > 1 else np.ones((1, 1)),
    "circulant": lambda rng, n: scipy.linalg.circulant(gaussian(rng, n)),
    "Toeplitz": lambda rng, n: scipy.linalg.toeplitz(gaussian(rng, n), gaussian(rng, n)),
    "tridiagonal": lambda rng, n: 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1),
    "zero row": lambda rng, n: gaussian(rng, n, n) * (np.arange(n) != 0)[:, None] if n > 1 else np.ones((1, 1)),
    "one entry": lambda rng, n: np.eye(n, 1) @ np.eye(1, n, n - 1),
}


def error_of(W, P):
    return np.linalg.norm(P - W) / np.linalg.norm(W)


def constructed(W, n_factors=None, target_error=1e-10, seed=0):
    return construct(
        W, constructions(W), n_factors, target_error, np.random.default_rng(seed), deadline=math.inf, callback=None
    )


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, deadline=None)
@given(n=st.integers(1, 40), seed=st.integers(0, 2**16))
def test_every_matrix_is_constructed(kind, n, seed):
    W = KINDS[kind](np.random.default_rng(seed), n)
    product = to_product(constructed(W).form)
    assert product.n_factors <= 2 * n + 5
    assert product.n_factors % 2 == 1
    assert error_of(W, product @ np.eye(n)) <= 1e-12
    assert error_of(W, np.asarray(product.to_dense())) <= 1e-12
    dense = np.linalg.multi_dot([np.eye(n), *(np.asarray(f.to_dense()) for f in product.factors)])
    assert error_of(W, dense) <= 1e-12


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=5, deadline=None)
@given(n=st.integers(18, 40), seed=st.integers(0, 2**16), exponent=st.sampled_from([-200, 0, 200]))
def test_factorize_cdd_meets_the_promised_error(kind, n, seed, exponent):
    W = KINDS[kind](np.random.default_rng(seed), n) * 10.0**exponent
    result = factorize_cdd(W, rng=seed, method="constructive")
    assert result.converged
    assert result.error <= 1e-12
    P = result.operator @ np.eye(n) / 10.0**exponent
    assert error_of(W / 10.0**exponent, P) == pytest.approx(result.error, abs=1e-12)
    assert result.history[-1] == result.error
    if result.solver == "construction":
        assert result.operator.n_factors in {2 * n - 1, 2 * n + 1, 2 * n + 5} or "generic" not in result.start
        assert "by construction" in result.message


@pytest.mark.parametrize("kind", ["complex", "unitary", "permutation", "condition 1e8", "real"])
@pytest.mark.parametrize("n", [127, 256])
def test_larger_sides(kind, n):
    if not has_extended_precision() and n > 128:
        pytest.skip("double precision leaves 1.5e-12 at this side")
    W = KINDS[kind](np.random.default_rng(n), n)
    result = factorize_cdd(W, rng=0)
    assert error_of(W, result.operator @ np.eye(n)) <= 1e-12
    assert error_of(W, np.asarray(result.operator.to_dense())) <= 1e-12


@pytest.mark.parametrize("real", [True, False])
@settings(max_examples=15, deadline=None)
@given(n=st.integers(9, 80), rank=st.integers(1, 8), seed=st.integers(0, 2**16))
def test_low_rank_takes_four_factors_for_each_rank(real, n, rank, seed):
    rng, rank = np.random.default_rng(seed), min(rank, n // 4)
    W = gaussian(rng, n, rank) @ gaussian(rng, rank, n)
    if real:
        W = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, n))
    found = constructed(W)
    assert found.form.name.startswith(f"rank {rank}")
    assert len(found.form.vectors) in {4 * rank + 3, 4 * rank + 7}
    assert error_of(W, to_product(found.form) @ np.eye(n)) <= 1e-12


@settings(max_examples=20, deadline=None)
@given(n=st.integers(4, 40), rank=st.integers(1, 10), seed=st.integers(0, 2**16))
def test_singular_triplets_find_the_rank(n, rank, seed):
    rng, rank = np.random.default_rng(seed), min(rank, n)
    W = gaussian(rng, n, rank) @ gaussian(rng, rank, n)
    assert singular_triplets(W, rank - 1, 1e-13) is None
    u, s, v = singular_triplets(W, rank, 1e-13)
    assert u.shape == v.shape == (n, rank)
    assert error_of(W, u * s @ v.conj().T) <= 1e-12
    vectors = factor_low_rank((u, s, v), extended=True)
    assert vectors is None or len(vectors) == 4 * rank + 3


@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 30), seed=st.integers(0, 2**16))
def test_null_sequences_are_divided_out(n, seed):
    """Null sequences solve the pencil, and the first linear factor annihilates its own."""
    W = gaussian(np.random.default_rng(seed), n, n)
    lead = 3 * np.linalg.norm(W) / np.sqrt(n)
    below, above = np.tril(W) - lead * np.eye(n), np.triu(W, 1) + lead * np.eye(n)
    u, z = null_sequences(below, above)
    for sequence, multiplier in zip(u, z, strict=True):
        residual = (below + multiplier * above) @ sequence
        assert np.linalg.norm(residual) <= 1e-11 * np.linalg.norm(sequence) * np.linalg.norm(W)
    log_nu = np.log(z) / n
    factors = deflate(u * np.exp(log_nu[:, None] * np.arange(n)), np.exp(log_nu), extended=False)
    w, nu = factors.w[0], factors.nu[0]
    k = np.abs(nu**n - z).argmin()
    assert np.allclose(w / w[0], u[k] / u[k, 0] * nu ** np.arange(n))
    assert len(factors.vectors(lead)) == 2 * n + 1
    P = np.asarray(CDDProduct.from_vectors(*factors.vectors(lead)).to_dense())
    assert error_of(W, P) <= 1e-10


@settings(max_examples=20, deadline=None)
@given(n=st.integers(3, 30), degree=st.integers(1, 6), seed=st.integers(0, 2**16))
def test_polynomials_in_the_shift(n, degree, seed):
    """A polynomial with a large scalar leading coefficient has two factors a degree, and one more."""
    rng, degree = np.random.default_rng(seed), min(degree, n - 1)
    coefficients = np.concatenate([gaussian(rng, degree, n) / 4, np.full((1, n), 6.0)])
    W = sum(d[:, None] * np.linalg.matrix_power(shift(n), m) for m, d in enumerate(coefficients))
    vectors = factor_polynomial(coefficients, extended=True)
    if vectors is not None:
        assert len(vectors) == 2 * degree + 1
        assert error_of(W, np.asarray(CDDProduct.from_vectors(*vectors).to_dense())) <= 1e-8


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 20), seed=st.integers(0, 2**16))
def test_mixing_is_a_unitary_change_that_is_undone(n, seed):
    rng = np.random.default_rng(seed)
    W, mixing = gaussian(rng, n, n), Mixing.draw(n, rng)
    M = mixing.mixed(W)
    assert np.linalg.norm(M) == pytest.approx(np.linalg.norm(W))
    d1, c1, _, c2, d2 = mixing.around([np.ones(n)])
    left, right = np.diag(d1) @ scipy.linalg.circulant(c1), scipy.linalg.circulant(c2) @ np.diag(d2)
    assert np.allclose(left @ M @ right, W)


@settings(max_examples=15, deadline=None)
@given(n=st.integers(18, 48), real=st.booleans(), seed=st.integers(0, 2**16))
def test_two_factors_less_where_they_are_as_accurate(n, real, seed):
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((n, n)) if real else gaussian(rng, n, n)
    result = factorize_cdd(W, rng=0)
    assert result.start in {"generic", "generic, random phases"}  # the latter for one matrix in some hundreds
    assert result.operator.n_factors == 2 * n - 1 or "; generic" in result.message
    assert result.error <= 1e-12


def test_circulants_of_constructions_shift():
    W = gaussian(np.random.default_rng(0), 30, 30)
    factors = factorize_cdd(W, rng=0).operator.factors
    assert all(isinstance(f, Diagonal) for f in factors[::2])
    assert all(isinstance(f, BandedCirculant) for f in factors[1::2])


def test_methods():
    W = gaussian(np.random.default_rng(0), 20, 20)
    assert factorize_cdd(W, rng=0).solver == "construction"
    assert factorize_cdd(W[:8, :8], rng=0).solver == "levenberg-marquardt"
    assert factorize_cdd(W[:8, :8], rng=0, method="constructive").operator.n_factors in {15, 17, 21}
    assert factorize_cdd(W, 41).operator.n_factors == 41
    assert factorize_cdd(W, 50).operator.n_factors == 50
    assert factorize_cdd(W, 23, rng=0, time_limit=0).stopped == "time limit"
    with pytest.raises(ArgumentValueError, match=r"n_factors must be at least 39 to construct W, got 38"):
        factorize_cdd(W, 38, method="constructive")
    with pytest.raises(ArgumentValueError, match=r'method must be one of "auto", "search", "constructive", got .x.'):
        factorize_cdd(W, method="x")


def test_a_search_that_fails_is_followed_by_a_construction(monkeypatch):
    monkeypatch.setattr("structmat.fit._exact.exact_search._LENGTHS", 1)
    monkeypatch.setattr("structmat.fit._exact.exact_search._ITERATIONS", 1)
    monkeypatch.setattr("structmat.fit._exact.exact_search._ITERATIONS_PER_SIDE", 0)
    result = factorize_cdd(gaussian(np.random.default_rng(0), 10, 10), rng=0)
    assert result.solver == "construction"
    assert result.error <= 1e-12


def test_ill_conditioned_matrices_are_constructed():
    W = KINDS["unitary"](np.random.default_rng(0), 12) * np.logspace(0, -12, 12)
    W = W @ KINDS["unitary"](np.random.default_rng(1), 12)
    result = factorize_cdd(W, rng=0)
    assert result.solver == "construction"
    assert result.error <= 1e-12


def test_the_target_error_chooses_the_precision():
    W = gaussian(np.random.default_rng(0), 300, 300)
    double = factorize_cdd(W, rng=0)
    assert "double precision" in double.message
    assert "long" not in double.message
    assert double.error <= 1e-11
    if has_extended_precision():
        precise = factorize_cdd(W, rng=0, target_error=1e-12)
        assert "long double" in precise.message
        assert precise.error <= 1e-12


def test_progress_limits_and_seeds():
    W, reports = np.triu(gaussian(np.random.default_rng(0), 24, 24)), []
    first = factorize_cdd(W, rng=3, callback=reports.append)
    assert reports
    assert all(isinstance(report, FitProgress) for report in reports)
    assert first.start == "generic, random phases"
    assert "generic not used: structure" in first.message
    again = factorize_cdd(W, rng=3, time_limit=0)
    assert (first.operator @ np.eye(24) == again.operator @ np.eye(24)).all()


def test_tensors_in_tensors_out():
    W = torch.randn(30, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    operator = factorize_cdd(W, rng=0).operator
    product = operator @ torch.eye(30, dtype=torch.complex128)
    assert product.dtype == torch.complex128
    assert torch.linalg.norm(product - W) <= 1e-12 * torch.linalg.norm(W)
    assert sm.testing.adjoint_error(operator, rng=0) < 1e-11


def cyclic_band_of(rng, n, degree, start, *, real):
    c = rng.standard_normal((degree + 1, n)) if real else gaussian(rng, degree + 1, n)
    return sum(d[:, None] * np.roll(np.eye(n), m + start, axis=0) for m, d in enumerate(c))


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(4, 60),
    degree=st.integers(1, 6),
    start=st.integers(0, 100),
    real=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_neighbouring_cyclic_diagonals_take_two_factors_for_each_but_one(n, degree, start, real, seed):
    degree = min(degree, n // 2)
    W = cyclic_band_of(np.random.default_rng(seed), n, degree, start, real=real)
    found = constructed(W)
    assert error_of(W, to_product(found.form) @ np.eye(n)) <= 1e-10
    # Entries near zero at an end leave the construction fewer digits.
    assert len(found.form.vectors) <= 2 * degree + 1 or "cyclic diagonals" in found.message


@pytest.mark.parametrize(("n", "degree"), [(31, 2), (31, 5), (101, 5), (300, 2)])
def test_multipliers_of_hundreds_of_decades(n, degree):
    """Periodic recursions whose solutions grow and decay by exp(n)."""
    i = np.arange(n)
    c = 1 + 0.3 * np.sin(2 * np.pi * i / n + np.arange(degree + 1)[:, None])
    c[degree // 2] += 3
    W = sum(d[:, None] * np.roll(np.eye(n), m, axis=0) for m, d in enumerate(c))
    form = constructed(W).form
    assert form.name == f"{degree + 1} cyclic diagonals"
    assert len(form.vectors) == 2 * degree + 1
    assert error_of(W, to_product(form) @ np.eye(n)) <= 1e-13


@pytest.mark.parametrize("exponent", [-200, 0, 200])
def test_a_periodic_tridiagonal_matrix_is_five_factors(exponent):
    W = cyclic_band_of(np.random.default_rng(1), 20, 2, -1, real=True)
    result = factorize_cdd(W * 10.0**exponent, rng=0)
    assert (result.operator.n_factors, result.start) == (5, "3 cyclic diagonals")
    assert error_of(W, (result.operator @ np.eye(20)) / 10.0**exponent) <= 1e-13


@pytest.mark.parametrize("between", [0.0, 1e-9])
def test_diagonals_between_the_outermost_may_be_small(between):
    n = 13
    c = np.random.default_rng(0).uniform(1, 2, (3, n)) * np.array([1, between, 1])[:, None]
    W = sum(d[:, None] * np.roll(np.eye(n), m, axis=0) for m, d in enumerate(c))
    form = constructed(W).form
    assert (form.name, len(form.vectors)) == ("3 cyclic diagonals", 5)
    assert error_of(W, to_product(form) @ np.eye(n)) <= 1e-13


def test_corners_that_are_zero_are_filled_below_rounding():
    n = 12
    W = np.triu(np.tril(np.random.default_rng(0).standard_normal((n, n)) + 2, 1), -1)
    band = cyclic_band(W, 1e-15)
    assert (band.start, len(band.coefficients), {row for row, _ in band.filled}) == (-1, 3, {0, -1})
    for row, entry in band.filled:
        assert 0 < abs(band.coefficients[row, entry]) < 1e-16 * np.linalg.norm(W)
    assert np.abs(band.coefficients[[0, -1]]).min() > 0


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(12, 60),
    below=st.integers(0, 3),
    above=st.integers(0, 3),
    real=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_bands_without_corners_take_as_few_factors(n, below, above, real, seed):
    rng, degree = np.random.default_rng(seed), below + above
    if not degree:
        return
    W = np.triu(np.tril(rng.standard_normal((n, n)) if real else gaussian(rng, n, n), above), -below)
    vectors = factor_plain_band(W, below, above, extended=True)
    assert len(vectors) == 2 * degree + 1
    assert np.isrealobj(vectors[0]) == real
    P = to_product(constructed(W).form) @ np.eye(n)
    assert error_of(W, P) <= 1e-10
    dominant = W / 4 + np.diag(2 + rng.random(n))
    found = constructed(dominant)
    assert len(found.form.vectors) == 2 * degree + 1
    assert error_of(dominant, to_product(found.form) @ np.eye(n)) <= 1e-13


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("corners", [True, False])
def test_wide_gaussian_bands_keep_their_digits(real, corners):
    n, degree = 200, 6
    W = cyclic_band_of(np.random.default_rng(6), n, degree, -3, real=real)
    if not corners:
        W = np.triu(np.tril(W, 3), -3)
    form = constructed(W).form
    assert len(form.vectors) == 2 * degree + 1
    assert error_of(W, to_product(form) @ np.eye(n)) <= 1e-12


@pytest.mark.parametrize("n", [5, 40, 300])
def test_tridiagonal_matrices_are_five_factors_and_bidiagonal_ones_three(n):
    rng = np.random.default_rng(n)
    second = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    random = np.diag(rng.standard_normal(n)) + sum(np.diag(rng.standard_normal(n - 1), k) for k in (-1, 1))
    for W, count in ((second, 5), (random, 5), (np.eye(n) + np.eye(n, k=1), 3), (np.tril(second), 3)):
        operator = factorize_cdd(W, rng=0).operator
        assert operator.n_factors == count
        assert all(isinstance(f, BandedCirculant) for f in operator.factors[1::2])
        assert error_of(W, operator @ np.eye(n)) <= 1e-13
        assert error_of(W, np.asarray(operator.to_dense())) <= 1e-13


@pytest.mark.parametrize("seed", range(4))
def test_random_phases_are_drawn_again_until_one_is_as_accurate_as_rounding_allows(seed):
    n = 33
    W = KINDS["triangular"](np.random.default_rng(n), n)
    found = constructed(W, seed=seed)
    accurate = found.history[-1] <= _usual_error(n, extended=has_extended_precision())
    assert accurate or found.message.count("random phases left an error") == _MIXINGS


@pytest.mark.parametrize("rank", [2, 3, 16])
def test_constructions_take_no_more_factors_than_they_say(rank):
    rng = np.random.default_rng(0)
    W = gaussian(rng, 16, rank) @ gaussian(rng, rank, 16)
    for construction in constructions(W):
        vectors = construction.make(rng, False)
        assert vectors is None or len(vectors) <= construction.n_factors
