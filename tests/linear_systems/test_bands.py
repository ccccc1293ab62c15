"""Systems with banded matrices: Toeplitz matrices of few lags plus diagonals, and some of their rows and columns."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

import structmat as sm
from structmat._arrays.libraries import namespace
from structmat.linear_systems._bands import Band, BandedParts, _solutions_by_cholesky, logdet_by_band, parts_of_all
from tests import backends
from tests.cases import in_one_test


@st.composite
def banded(draw):
    """Return a banded operator, one right-hand side or several, and whether LAPACK finds it positive definite."""
    n = draw(st.integers(2, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    below, above = draw(st.integers(0, min(n - 1, 6))), draw(st.integers(0, min(n - 1, 6)))
    scale = draw(st.sampled_from([1.0, 1e-200, 1e200]))
    is_complex = draw(st.booleans())

    def numbers(count):
        values = rng.standard_normal(count)
        return values + 1j * rng.standard_normal(count) if is_complex else values

    c, r = np.zeros(n, numbers(1).dtype), np.zeros(n, numbers(1).dtype)
    c[: below + 1], r[: above + 1] = numbers(below + 1), numbers(above + 1)
    r[0] = c[0] = draw(st.sampled_from([0.0, 12.0]))
    if draw(st.booleans()):
        r = c.conj()
    A = sm.Toeplitz(c * scale, r * scale) + sm.Diagonal(rng.uniform(1, 5, n) * scale)
    if draw(st.booleans()):
        seen = rng.random(n) < draw(st.sampled_from([0.8, 0.3]))
        seen[0] = True
        A = A[seen][:, seen]
    shape = (A.shape[0], 3) if draw(st.booleans()) else A.shape[0]
    return A, rng.standard_normal(shape)


@given(banded())
def test_solutions_have_the_backward_error_of_dense_ones(system):
    A, b = system
    K = A.to_dense()
    if np.linalg.cond(K) > 1e10:
        return
    found = sm.solve(A, b)
    assert found.iterations == 0
    left = np.abs(b - K @ found.x).max()
    assert left <= 1e-13 * (np.abs(K).sum(axis=1).max() * np.abs(found.x).max() + np.abs(b).max())


@given(banded())
def test_bands_have_the_products_and_entries_of_the_matrix(system):
    A, _ = system
    K = A.to_dense()
    parts = BandedParts.of(A, namespace(K))
    if parts is None:
        rows, cols = np.nonzero(K)
        assert np.ptp(np.append(rows - cols, 0)) >= len(K) - 1  # it has as many diagonals as rows
        return
    band = Band.of(parts, K.dtype)
    eye = np.eye(len(K), dtype=K.dtype)
    # The entries of a submatrix that is written out are products by transforms, with rounding errors of their own.
    assert np.allclose(band.product(eye).T, K, rtol=0, atol=4e-15 * np.abs(K).max())


@in_one_test("n", [10, 100, 2000, 5000])
@in_one_test("lags", [1, 3])
def test_bands_are_solved_without_iteration_at_every_size(n, lags):
    c = np.where(np.arange(n) <= lags, 0.5 ** np.arange(n), 0.0)
    A = sm.Toeplitz(c) + sm.Diagonal(np.linspace(1, 2, n))
    found = sm.solve(A, np.ones(n))
    assert found.iterations == 0
    assert found.residual < 1e-14


@pytest.mark.parametrize("function", [sm.solve, lambda A, b: sm.slogdet(A)], ids=["solve", "slogdet"])
def test_memory_is_that_of_the_band(function):
    n = 200_000
    A = sm.Toeplitz(np.r_[4.0, 1.0, np.zeros(n - 2)]) + sm.Diagonal(np.linspace(1, 2, n))
    b = np.ones(n)
    tracemalloc.start()
    function(A, b)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * b.nbytes


@st.composite
def definite_bands(draw):
    """Return a positive definite band, of which some rows and columns may be left out."""
    n = draw(st.integers(2, 50))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lags = draw(st.integers(0, min(n - 1, 6)))
    weights = rng.standard_normal(lags + 1) + draw(st.sampled_from([0.0, 1j])) * rng.standard_normal(lags + 1)
    if draw(st.booleans()):
        weights = np.ones(lags + 1)  # with eigenvalues near zero
    c = np.zeros(n, weights.dtype)
    c[: lags + 1] = [np.vdot(weights[: len(weights) - k], weights[k:]) for k in range(lags + 1)]
    c[0] = c[0].real
    A = sm.Toeplitz(c) + sm.Diagonal(10.0 ** draw(st.integers(-10, 1)) * rng.uniform(1, 2, n))
    if draw(st.booleans()):
        seen = rng.random(n) < 0.8
        seen[0] = True
        A = A[seen][:, seen]
    return A


def logdet_in_long_double(A):
    """Return the logarithm of the determinant by elimination, of the numbers that the operator holds.

    No rows are exchanged: the matrix is positive definite, or its diagonal dominates.
    """
    T, d = (A.operator if isinstance(A, sm.Submatrix) else A).terms
    c, r, n = T.c.astype(np.clongdouble), T.r.astype(np.clongdouble), T.shape[0]
    lags = np.arange(n)[:, None] - np.arange(n)
    K = np.where(lags >= 0, c[np.abs(lags)], r[np.abs(lags)])
    K[np.arange(n), np.arange(n)] = c[0] + d.d.astype(np.clongdouble)
    if isinstance(A, sm.Submatrix):
        K = K[A.rows.array][:, A.rows.array]
    log = np.longdouble(0)
    for k in range(len(K)):
        log += np.log(np.abs(K[k, k]))
        K[k + 1 :, k + 1 :] -= np.outer(K[k + 1 :, k] / K[k, k], K[k, k + 1 :])
    return log


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 2e-19, reason="long double is double here")
@given(definite_bands())
def test_determinants_are_as_far_off_as_they_say(A):
    found = sm.slogdet(A)
    assert found.sign == 1
    assert abs(found.logabsdet - logdet_in_long_double(A)) <= 4 * found.standard_error
    assert logdet_by_band(A, namespace(A.to_dense())) is not None or A.shape[0] <= 12 or isinstance(A, sm.Submatrix)


def test_determinants_of_bands_take_no_dense_matrix(monkeypatch):
    monkeypatch.setattr(sm.Toeplitz, "_to_dense", None)
    n = 1000
    A = sm.Toeplitz(np.r_[2.0, 1.0, np.zeros(n - 2)]) + sm.Diagonal(np.linspace(1, 2, n))
    exact = np.sum(
        np.log(scipy.linalg.cholesky_banded(np.stack([3 + np.linspace(0, 1, n), np.ones(n)]), lower=True)[0])
    )
    assert sm.slogdet(A).logabsdet == pytest.approx(2 * exact, rel=1e-14)


def test_a_band_that_is_not_definite_has_no_logarithm():
    A = sm.Toeplitz(np.r_[1.0, 1.0, np.zeros(98)]) + sm.Diagonal(np.linspace(0.0, 0.1, 100))
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        sm.slogdet(A)


@pytest.mark.parametrize("n", [20, 150])
def test_stacks_of_bands_have_the_results_of_each(n):
    rng = np.random.default_rng(0)
    c = np.zeros((2, 1, n))
    c[..., :3] = [[[4.0, 1.0, 0.5]], [[5.0, -1.0, 1.0]]]
    A = sm.Toeplitz(c) + sm.Diagonal(rng.uniform(1, 2, (3, n)))
    b = rng.standard_normal((2, 3, n, 2))
    found, logs = sm.solve(A, b), sm.slogdet(A)
    assert (parts_of_all(A, namespace(b)) is not None) == (n == 150)
    assert found.iterations == 0
    for k in np.ndindex(2, 3):
        K = A.to_dense()[k]
        assert np.allclose(found.x[k], np.linalg.solve(K, b[k]), rtol=1e-12)
        assert np.isclose(logs.logabsdet[k], np.linalg.slogdet(K)[1], rtol=1e-13)


@pytest.mark.parametrize("hermitian", [True, False])
def test_singular_band_is_an_error(hermitian):
    A = sm.Toeplitz([0.0, 1.0, 0.0], [0.0, 1.0 if hermitian else 0.0, 0.0]) + sm.Diagonal(np.zeros(3))
    with pytest.raises(sm.ConvergenceError, match="singular"):
        sm.solve(A, np.array([1.0, 0.0, 0.5]))


def test_gradients_of_a_band_are_those_of_the_dense_matrix():
    torch = pytest.importorskip("torch")
    n = 12
    c = torch.tensor(np.r_[4.0, 1.0, 0.5, np.zeros(n - 3)], requires_grad=True)
    d = torch.linspace(1, 2, n, dtype=torch.float64, requires_grad=True)
    b = torch.linspace(-1, 1, n, dtype=torch.float64, requires_grad=True)
    results = []
    for solve in (lambda A: sm.solve(A, b).x, lambda A: torch.linalg.solve(A.to_dense(), b)):
        x = solve(sm.Toeplitz(c) + sm.Diagonal(d))
        results.append((x, *torch.autograd.grad((x * torch.arange(n)).sum(), (c, d, b))))
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("library", backends.TESTED)
def test_every_library_has_the_same_solutions(library):
    n, backend = 30, backends.get(library)
    c, d = np.r_[4.0, 1.0, np.zeros(n - 2)], np.linspace(1, 2, n)
    A = sm.Toeplitz(backend.asarray(c)) + sm.Diagonal(backend.asarray(d))
    x = sm.solve(A, backend.asarray(np.ones(n))).x
    expected = scipy.linalg.solve(scipy.linalg.toeplitz(c) + np.diag(d), np.ones(n))
    assert np.allclose(backend.to_numpy(x), expected, rtol=1e-5)


def test_a_complex_diagonal_makes_a_band_not_hermitian():
    """Cholesky's factor would take the real part."""
    A = sm.Toeplitz(np.r_[4.0, 1.0, np.zeros(28)]) + sm.Diagonal(np.linspace(1, 2, 30) * (1 + 0.1j))
    assert not Band.of(BandedParts.of(A, namespace(np.ones(1))), np.complex128).is_hermitian
    sign, log = np.linalg.slogdet(A.to_dense())
    found = sm.slogdet(A)
    assert abs(found.sign - sign) < 1e-13
    assert abs(found.logabsdet - log) < 1e-12


@given(banded())
def test_determinants_of_bands_that_are_not_hermitian_are_those_of_elimination(system):
    A, _ = system
    K = A.to_dense()
    parts = BandedParts.of(A, namespace(K))
    if parts is None or Band.of(parts, K.dtype).is_hermitian or np.linalg.cond(K) > 1e10:
        return
    found, (sign, log) = sm.slogdet(A), np.linalg.slogdet(K)
    assert abs(found.sign - sign) < 1e-5
    assert abs(found.logabsdet - log) <= 4 * found.standard_error + 1e-13 * np.linalg.cond(K)


@st.composite
def dominant_bands(draw):
    """Return a band, not Hermitian, with a diagonal larger than the sum of what is beside it, by little or much."""
    n = draw(st.integers(2, 50))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    phase = draw(st.sampled_from([0.0, 1j]))
    c, r = np.zeros((2, n), np.result_type(phase))
    for array in (c, r):
        lags = draw(st.integers(0, min(n - 1, 4)))
        array[1 : lags + 1] = rng.standard_normal(lags) + phase * rng.standard_normal(lags)
    r[1] += 0.1j if phase else 0.1  # so that it is not Hermitian
    least = (np.abs(c).sum() + np.abs(r).sum()) * (1 + 10.0 ** draw(st.integers(-3, 1)))
    c[0] = r[0] = least * draw(st.sampled_from([1.0, -1.0]))
    A = sm.Toeplitz(c, r) + sm.Diagonal(np.sign(c[0]) * rng.uniform(0, draw(st.sampled_from([1e-3, 10.0])), n))
    if draw(st.booleans()):
        seen = rng.random(n) < 0.8
        seen[0] = True
        A = A[seen][:, seen]
    return A


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 2e-19, reason="long double is double here")
@given(dominant_bands())
def test_determinants_of_dominant_bands_are_as_far_off_as_they_say(A):
    parts = BandedParts.of(A, namespace(A.to_dense()))
    if parts is None:  # wider than half of its rows
        return
    found = Band.of(parts, parts.double_precision).logdet()
    eps = np.finfo(np.float64).eps
    assert abs(found.log - logdet_in_long_double(A)) <= 4 * found.error + eps * A.shape[0]  # of a sum of so many terms


def test_the_error_of_elimination_grows_as_the_diagonal_dominates_less():
    """Below a hundredth of the diagonal it is measured; a row that dominates less than the others counts."""
    errors = []
    for excess in (1.0, 0.2, 0.06):
        A = sm.Toeplitz(np.r_[1.5 + excess, 1.0, np.zeros(298)], np.r_[1.5 + excess, 0.5, np.zeros(298)])
        A = A + sm.Diagonal(np.where(np.arange(300) == 150, 0.0, 1.0))
        errors.append(Band.of(BandedParts.of(A, namespace(np.ones(1))), np.float64).logdet().error)
    assert errors[1] > 2 * errors[0]
    assert errors[2] > 2 * errors[1]


def test_the_error_of_a_determinant_grows_as_the_diagonal_dominates_less():
    """As the norm of the inverse, which is at most one over what the circles of Gershgorin leave of the diagonal."""
    errors = []
    for dominance in (0.5, 0.02, 0.0):  # of the rows inside: the first and the last one have half as much beside it
        A = sm.Toeplitz(np.r_[2.0 / (1 - dominance), 1.0, np.zeros(298)])
        errors.append(Band.of(BandedParts.of(A, namespace(np.ones(1))), np.float64).logdet().error)
    assert errors[1] > 2 * errors[0]
    assert errors[2] > 2 * errors[1]


def test_one_part_that_is_not_dominant_makes_a_determinant_measured():
    d = np.where(np.arange(300) < 150, 0.0, 100.0)
    found = [
        Band.of(BandedParts.of(A, namespace(d)), np.float64).logdet().error
        for A in (sm.Toeplitz(np.r_[2.0, 1.0, np.zeros(298)]) + sm.Diagonal(each) for each in (d, d + 100))
    ]
    assert found[0] > 2 * found[1]


@in_one_test("is_complex", [False, True])
@in_one_test("width", [0, 1, 3])
@in_one_test("n", [2, 9])
def test_solutions_by_a_cholesky_factor_are_those_of_the_matrix(n: int, width: int, is_complex: bool) -> None:
    rng = np.random.default_rng(0)
    width = min(width, n - 1)
    phase = 0.6 + 0.8j if is_complex else 1.0
    factor = rng.standard_normal((width + 1, n)) * phase
    factor[0] = 1 + rng.random(n)
    L = sum(np.diag(factor[k, : n - k], -k) for k in range(width + 1))
    columns = rng.standard_normal((n, 4)) * phase
    found = _solutions_by_cholesky(factor, columns)
    np.testing.assert_allclose(found, np.linalg.solve(L @ L.conj().T, columns), rtol=1e-8)


@in_one_test("beside", [1.0, -1.0, 0.6 + 0.8j])
@in_one_test("nugget", [1e-8, 1e-4, 1e-2, 1.0])
def test_errors_of_determinants_of_tridiagonal_matrices_are_bounds(beside: complex, nugget: float) -> None:
    rng = np.random.default_rng(0)
    for n in (2, 3, 20, 300):
        diagonal = 2 + nugget * rng.random(n)
        column = np.zeros(n, np.result_type(beside, float))
        column[1] = beside
        found = sm.slogdet(sm.Toeplitz(column, column.conj()) + sm.Diagonal(diagonal))
        pivot, wanted = np.inf, np.longdouble(0)
        for entry in diagonal.astype(np.longdouble):
            pivot = entry - abs(beside) ** 2 / pivot
            wanted += np.log(pivot)
        assert abs(float(wanted - found.logabsdet)) <= found.standard_error <= 1e-7
