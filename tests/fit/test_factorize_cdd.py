"""`factorize_cdd`: every closed form is found, every other matrix is reproduced by as many factors as are promised."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import structmat as sm
from structmat import factorize_cdd
from structmat.fit._exact_products import Mixing, cyclic_band
from structmat.fit._linear_factors import _null_sequences, factor_real_sequences, linear_factors
from tests.cases import in_one_test


def gaussian(rng, *shape, real=False):
    x = rng.standard_normal(shape)
    return x if real else x + 1j * rng.standard_normal(shape)


def unitary(rng, n, *, real=False):
    return np.linalg.qr(gaussian(rng, n, n, real=real))[0]


FORMS = {
    "zero": ("diagonal", lambda a, b, c: np.zeros((len(a), len(a)))),
    "diagonal": ("diagonal", lambda a, b, c: np.diag(a)),
    "circulant": ("circulant", lambda a, b, c: scipy.linalg.circulant(c)),
    "diagonal times circulant": ("three factors", lambda a, b, c: a[:, None] * scipy.linalg.circulant(c)),
    "circulant times diagonal": ("three factors", lambda a, b, c: scipy.linalg.circulant(c) * b),
    "rank one": ("three factors", lambda a, b, c: np.outer(a, b)),
    "circulant between diagonals": ("three factors", lambda a, b, c: a[:, None] * scipy.linalg.circulant(c) * b),
}

KINDS = {
    "generic": lambda rng, n, real: gaussian(rng, n, n, real=real),
    "symmetric": lambda rng, n, real: np.cov(rng.standard_normal((n, 2 * n))).reshape(n, n),
    "unitary": lambda rng, n, real: unitary(rng, n, real=real),
    "permutation": lambda rng, n, real: np.eye(n)[rng.permutation(n)],
    "singular": lambda rng, n, real: gaussian(rng, n, n - 1, real=real) @ gaussian(rng, n - 1, n, real=real),
    "condition 1e8": lambda rng, n, real: (
        unitary(rng, n, real=real) * np.logspace(0, -8, n) @ unitary(rng, n, real=real)
    ),
    "half rank": lambda rng, n, real: gaussian(rng, n, n // 2, real=real) @ gaussian(rng, n // 2, n, real=real),
    "triangular": lambda rng, n, real: np.triu(gaussian(rng, n, n, real=real)),
    "Jordan block": lambda rng, n, real: np.eye(n) + np.eye(n, k=1),
    "nilpotent": lambda rng, n, real: np.eye(n, k=1),
    "Toeplitz": lambda rng, n, real: scipy.linalg.toeplitz(gaussian(rng, n, real=real), gaussian(rng, n, real=real)),
    "tridiagonal": lambda rng, n, real: 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1),
    "zero row": lambda rng, n, real: gaussian(rng, n, n, real=real) * (np.arange(n) != 0)[:, None],
    "DFT": lambda rng, n, real: scipy.linalg.hadamard(4) if real else scipy.linalg.dft(n, scale="sqrtn"),
}


def error_of(W, P):
    return np.linalg.norm(np.asarray(P) - W) / (np.linalg.norm(W) or 1.0)


def cyclic_band_of(rng, n, degree, start, *, real):
    c = gaussian(rng, degree + 1, n, real=real)
    return sum(d[:, None] * np.roll(np.eye(n), m + start, axis=0) for m, d in enumerate(c))


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=8, deadline=None)
@given(n=st.integers(3, 20), seed=st.integers(0, 2**16), real=st.booleans(), exponent=st.sampled_from([-300, 0, 300]))
def test_few_factors_are_found(form, n, seed, real, exponent):
    start, make = FORMS[form]
    W = make(*gaussian(np.random.default_rng(seed), 3, n, real=real)) * 10.0**exponent
    result = factorize_cdd(W)
    assert (result.start, result.operator.n_factors) == (start, 3 if start == "three factors" else 1)
    assert result.operator.dtype == W.dtype
    assert result.converged
    assert error_of(W / 10.0**exponent, np.asarray(result.operator.to_dense()) / 10.0**exponent) <= 1e-12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("real", [True, False])
@settings(max_examples=6, deadline=None)
@given(n=st.integers(4, 40), seed=st.integers(0, 2**16), exponent=st.sampled_from([-200, 0, 200]))
def test_every_matrix_is_reproduced_by_as_many_factors_as_are_promised(kind, real, n, seed, exponent):
    W = KINDS[kind](np.random.default_rng(seed), n, real)
    n = len(W)
    result = factorize_cdd(W * 10.0**exponent, real=real, rng=seed)
    most = (3 if real else 2) * n + 1
    assert result.operator.n_factors <= most + 4 * ("random phases" in result.start)
    assert result.operator.n_factors % 2 == 1
    assert result.converged
    assert result.error <= (1e-10 if real else 1e-12)
    assert np.isrealobj(result.operator.to_dense()) or not real
    assert result.history.tolist() == [result.error]
    assert result.n_parameters == result.operator.n_parameters
    assert result.message
    for P in (result.operator @ np.eye(n), result.operator.to_dense()):
        assert error_of(W, np.asarray(P) / 10.0**exponent) == pytest.approx(result.error, abs=1e-11 if real else 1e-12)


@pytest.mark.parametrize("kind", ["generic", "unitary", "permutation", "condition 1e8"])
def test_larger_sides(kind):
    n = 128
    W = KINDS[kind](np.random.default_rng(n), n, False)
    result = factorize_cdd(W, rng=0)
    assert error_of(W, result.operator @ np.eye(n)) <= 1e-12
    assert error_of(W, result.operator.to_dense()) <= 1e-12


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(12, 80),
    rank=st.integers(2, 8),
    real=st.booleans(),
    seed=st.integers(0, 2**16),
    e=st.sampled_from([0, 200]),
)
def test_low_rank_is_five_factors_in_blocks(n, rank, real, seed, e):
    rng, rank = np.random.default_rng(seed), min(rank, n // 4)
    W = gaussian(rng, n, rank, real=real) @ gaussian(rng, rank, n, real=real)
    result = factorize_cdd(W * 10.0**e, real=real, rng=seed)
    assert (result.start, result.operator.n_factors, result.block_size) == (f"rank {rank}", 5, n // rank)
    assert result.n_parameters <= 3 * n + (n // rank) * 2 * (-(-n // (n // rank))) ** 2
    assert result.error <= 1e-13
    assert result.operator.dtype == W.dtype


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
    result = factorize_cdd(W, real=real, rng=seed)
    assert error_of(W, result.operator @ np.eye(n)) <= 1e-9
    # Entries near zero at an end leave the construction fewer digits.
    most = (3 if real else 2) * degree + 1
    assert result.operator.n_factors <= most or "cyclic diagonals" in result.message


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("n", [5, 16, 41, 200])
def test_tridiagonal_matrices_are_few_factors_with_and_without_corners(n, real):
    W = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    corners = W - np.eye(n, k=n - 1) * 0.5 - np.eye(n, k=1 - n) * 0.3
    for T in (W, W + np.diag(np.random.default_rng(n).random(n)), corners, np.tril(W)):
        result = factorize_cdd(T, real=real, rng=0)
        assert result.operator.n_factors <= (7 if real else 5)
        assert error_of(T, result.operator @ np.eye(n)) <= 1e-12


@pytest.mark.parametrize(("n", "degree"), [(31, 2), (31, 5), (101, 5), (300, 2)])
def test_multipliers_of_hundreds_of_decades(n, degree):
    """Periodic recursions whose solutions grow and decay by exp(n)."""
    i = np.arange(n)
    c = 1 + 0.3 * np.sin(2 * np.pi * i / n + np.arange(degree + 1)[:, None])
    c[degree // 2] += 3
    W = sum(d[:, None] * np.roll(np.eye(n), m, axis=0) for m, d in enumerate(c))
    result = factorize_cdd(W, rng=0)
    assert (result.start, result.operator.n_factors) == (f"{degree + 1} cyclic diagonals", 2 * degree + 1)
    assert error_of(W, result.operator @ np.eye(n)) <= 1e-13


def test_corners_that_are_zero_are_filled_below_rounding():
    n = 12
    W = np.triu(np.tril(np.random.default_rng(0).standard_normal((n, n)) + 2, 1), -1)
    band = cyclic_band(W, 1e-15)
    assert (band.start, len(band.coefficients), {row for row, _ in band.filled}) == (-1, 3, {0, -1})
    for row, entry in band.filled:
        assert 0 < abs(band.coefficients[row, entry]) < 1e-16 * np.linalg.norm(W)
    assert np.abs(band.coefficients[[0, -1]]).min() > 0


@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 30), seed=st.integers(0, 2**16))
def test_null_sequences_are_divided_out(n, seed):
    """Null sequences solve the pencil, and the product of the linear factors is the matrix."""
    W = gaussian(np.random.default_rng(seed), n, n)
    lead = 3 * np.linalg.norm(W) / np.sqrt(n)
    below, above = np.tril(W) - lead * np.eye(n), np.triu(W, 1) + lead * np.eye(n)
    u, z = _null_sequences(below, above)
    for sequence, multiplier in zip(u, z, strict=True):
        residual = (below + multiplier * above) @ sequence
        assert np.linalg.norm(residual) <= 1e-11 * np.linalg.norm(sequence) * np.linalg.norm(W)
    log_nu = np.log(z) / n
    vectors = linear_factors(u * np.exp(log_nu[:, None] * np.arange(n)), np.exp(log_nu), lead, extended=False)
    assert len(vectors) == 2 * n + 1
    assert error_of(W, sm.CDDProduct.from_vectors(*vectors).to_dense()) <= 1e-10


@settings(max_examples=10, deadline=None)
@given(n=st.integers(4, 40), seed=st.integers(0, 2**16))
def test_a_complex_pair_is_seven_real_factors(n, seed):
    """The quadratic polynomial with a given pair of null sequences."""
    rng = np.random.default_rng(seed)
    w = np.exp(2j * np.pi * rng.random(n)) * rng.uniform(0.5, 1.5, n)
    nu = rng.uniform(0.9, 1.1) * np.exp(1j * np.pi * rng.uniform(0.1, 0.9) / n)
    vectors = factor_real_sequences(np.stack([w, w.conj()]), np.array([nu, nu.conj()]), extended=True)
    assert len(vectors) == 7
    Q = np.asarray(sm.CDDProduct.from_vectors(*vectors).to_dense())
    # On sequences that grow by z over n steps the polynomial has the entries of Q, those that wrap around times z.
    i = np.arange(n)
    lag = (i[:, None] - i) % n
    assert np.abs(Q[lag > 2]).max() <= 1e-6 * np.abs(Q).max()
    assert np.allclose(Q[lag == 2], 1.0, rtol=1e-6)
    wraps = (lag <= 2) & (i[:, None] < i)
    M = np.where(lag <= 2, Q, 0) * np.where(wraps, nu**n, 1.0)
    residual = M @ (w * nu ** -i.astype(float))
    assert np.linalg.norm(residual) <= 1e-6 * np.linalg.norm(M) * np.linalg.norm(w)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 20), seed=st.integers(0, 2**16), real=st.booleans())
def test_mixing_is_a_unitary_change_that_is_undone(n, seed, real):
    rng = np.random.default_rng(seed)
    W, mixing = gaussian(rng, n, n, real=real), Mixing.draw(n, rng, real=real)
    M = mixing.mixed(W)
    assert np.linalg.norm(M) == pytest.approx(np.linalg.norm(W))
    d1, c1, _, c2, d2 = mixing.around([np.ones(n)])
    left, right = np.diag(d1) @ scipy.linalg.circulant(c1), scipy.linalg.circulant(c2) @ np.diag(d2)
    assert np.allclose(left @ M @ right, W)


def test_circulants_of_constructions_are_applied_by_shifts():
    product = factorize_cdd(gaussian(np.random.default_rng(0), 18, 18), rng=0).operator
    assert {type(factor) for factor in product.factors} == {sm.Diagonal, sm.BandedCirculant}
    np.testing.assert_allclose(product.rmatvec(np.eye(18)).conj(), product.to_dense(), atol=1e-11)


@pytest.mark.parametrize(("target_error", "converged"), [(1e-10, True), (1e-18, False)])
def test_converged_is_what_meets_the_error_aimed_at(target_error, converged):
    W = np.random.default_rng(0).standard_normal((12, 12))
    assert factorize_cdd(W, target_error=target_error, rng=0).converged == converged


def test_the_same_seed_gives_the_same_factors():
    W = np.eye(30)[np.random.default_rng(0).permutation(30)]
    first, again = (factorize_cdd(W, rng=3) for _ in range(2))
    assert first.to_dict() == again.to_dict()
    assert "random phases" in first.start
    assert np.array_equal(first.operator.to_dense(), again.operator.to_dense())


def test_tensors_in_tensors_out():
    torch = pytest.importorskip("torch")
    W = torch.from_numpy(np.random.default_rng(0).standard_normal((14, 14)))
    dense = factorize_cdd(W, rng=0).operator.to_dense()
    assert isinstance(dense, torch.Tensor)
    assert torch.linalg.norm(dense - W) <= 1e-10 * torch.linalg.norm(W)


@in_one_test(
    "W, options, error, message",
    [
        (np.ones((2, 3)), {}, ValueError, r"W must be square, got shape \(2, 3\)"),
        (np.ones(3), {}, ValueError, r"W must be a non-empty matrix"),
        (np.full((2, 2), np.nan), {}, ValueError, r"W must be finite, got NaN or infinity"),
        (np.eye(2) * 1j, {"real": True}, ValueError, r"real must be False for a complex W"),
        (np.eye(2), {"target_error": -1}, ValueError, r"target_error must be finite and not negative, got -1"),
        (np.eye(2), {"target_error": "small"}, TypeError, r"target_error must be a number, got 'small'"),
        (np.eye(2), {"rng": "seed"}, TypeError, r"rng must be .*, got 'seed'"),
    ],
)
def test_bad_arguments(W, options, error, message):
    with pytest.raises(error, match="factorize_cdd: " + message):
        factorize_cdd(W, **options)


@pytest.mark.parametrize("real", [False, True])
def test_fewer_factors_than_a_construction_are_searched_for(real):
    W = np.random.default_rng(3).standard_normal((4, 4))
    result = factorize_cdd(W, n_factors=6, real=real, rng=0)
    assert (result.operator.n_factors, result.start, result.converged) == (6, "search", True)
    assert np.isrealobj(np.asarray(result.operator.to_dense())) == real
    assert np.linalg.norm(result.operator.to_dense() - W) <= 1e-12 * np.linalg.norm(W)


def test_a_number_of_factors_is_an_upper_limit():
    W = np.random.default_rng(3).standard_normal((4, 4))
    assert factorize_cdd(np.diag(W[0]), n_factors=9, rng=0).operator.n_factors == 1
    assert factorize_cdd(W, n_factors=40, rng=0).start == "generic"
    short = factorize_cdd(W, n_factors=3, rng=0)
    assert (short.operator.n_factors, short.converged) == (3, False)
    assert "search" in short.message
