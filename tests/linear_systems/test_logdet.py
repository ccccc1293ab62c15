"""`slogdet`: estimates are within their standard errors of LAPACK's values, and so are their derivatives."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import scipy

import structmat as sm
from structmat._arrays.linear_algebra import measured_error_of_logdet
from structmat._arrays.namespaces import numpy_namespace
from structmat.linear_systems._lanczos import is_settled
from tests import backends
from tests.cases import in_one_test

RNG = np.random.default_rng(0)
OBSERVED = RNG.random(60) < 0.85
GRID = np.exp(-np.hypot(*np.meshgrid(np.arange(6.0), np.arange(10.0), indexing="ij")) / 3)
NOISE = RNG.uniform(0.05, 0.5, 60)
UNEVEN_NOISE = np.where(np.arange(60) % 2 == 0, 1.0, 1e3) * RNG.uniform(0.5, 2.0, 60)
C = np.array([2.0, 0.5 + 0.3j, 0.1, -0.2j]) @ (np.arange(60) == np.arange(4)[:, None])


def toeplitz(a: Any) -> Any:
    return sm.Toeplitz(a(0.9 ** np.arange(60)))


MATRICES = {
    "noise": lambda a: toeplitz(a) + sm.Diagonal(a(NOISE)),
    "complex": lambda a: sm.Toeplitz(a(C + 2 * (np.arange(60) == 0))) + sm.Diagonal(a(NOISE)),
    "grid": lambda a: sm.MultilevelToeplitz.from_covariance(a(GRID)) + 0.1 * sm.Identity(60),
    "grid between diagonals": lambda a: (
        sm.Diagonal(a(NOISE)) @ sm.MultilevelToeplitz.from_covariance(a(GRID)) @ sm.Diagonal(a(NOISE)) + sm.Identity(60)
    ),
    "stack": lambda a: toeplitz(a) + sm.Diagonal(a(np.stack([NOISE, 10 * NOISE]))),
    "gaps": lambda a: (toeplitz(a) + 0.1 * sm.Identity(60))[OBSERVED][:, OBSERVED],
    "gaps and noise": lambda a: toeplitz(a)[OBSERVED][:, OBSERVED] + 2 * sm.Diagonal(a(NOISE[OBSERVED])),
    "gaps of a stack": lambda a: (toeplitz(a) + sm.Diagonal(a(np.stack([NOISE, 2 * NOISE]))))[::2][:, ::2],
    "uneven gaps": lambda a: (toeplitz(a) + sm.Diagonal(a(UNEVEN_NOISE)))[::2][:, ::2],
    "gaps and uneven noise": lambda a: toeplitz(a)[OBSERVED][:, OBSERVED] + sm.Diagonal(a(UNEVEN_NOISE[OBSERVED])),
    "gaps of a product": lambda a: (
        sm.Diagonal(a(UNEVEN_NOISE)) @ toeplitz(a) @ sm.Diagonal(a(UNEVEN_NOISE)) + sm.Identity(60)
    )[::2][:, ::2],
    "some of a diagonal": lambda a: sm.Diagonal(a(UNEVEN_NOISE))[::-2][:, ::-2],
    "no matrix near it": lambda a: (
        sm.CDDProduct.from_vectors(a(NOISE), a(NOISE), a(NOISE)).T @ sm.CDDProduct.from_vectors(*map(a, [NOISE] * 3))
        + 0.1 * sm.Identity(60)
    ),
}
"""Hermitian positive definite, without closed forms of their determinants."""


def assert_is_exact(log: Any, error: Any, exact: Any) -> None:
    """Require a logarithm with an error of rounding alone, which is not zero, and is true."""
    assert np.all(error > 0)
    assert np.all(error <= 1e-12 * (1 + np.abs(exact)))
    assert np.all(np.abs(log - exact) <= 4 * error)


@pytest.mark.parametrize("name", MATRICES)
def test_estimates_are_within_their_errors(backend: Any, name: str) -> None:
    if backend.compiles and name not in {"complex", "stack", "gaps and uneven noise"}:
        pytest.skip("each operation would be compiled for each shape")
    op = MATRICES[name](backend.asarray)
    exact = np.linalg.slogdet(MATRICES[name](np.asarray).to_dense()).logabsdet
    sign, log, error = map(backend.to_numpy, sm.slogdet(op, n_probes=32, rng=1))
    assert (sign == 1).all()
    assert (np.abs(log - exact) <= 4 * error + 1e-12 * np.abs(exact)).all()  # which may be without error
    assert (error < 2.0).all()


@pytest.mark.parametrize("name", ["complex", "gaps of a stack"])
def test_small_matrices_are_written_out(backend: Any, name: str) -> None:
    op = MATRICES[name](backend.asarray)
    exact = np.linalg.slogdet(MATRICES[name](np.asarray).to_dense()).logabsdet
    sign, log, error = map(backend.to_numpy, sm.slogdet(op))
    assert (sign == 1).all()
    assert_is_exact(log, error, exact)


def recursion_in_long_double(c: Any) -> float:
    """Return the log-determinant of a positive definite Toeplitz matrix by the recursion of Levinson and Durbin."""
    c = np.asarray(c, np.longdouble)
    a, rho, log = c[:0], c[0], np.log(c[0])
    for m in range(1, len(c)):
        reflection = (c[m] - a @ c[m - 1 : 0 : -1]) / rho
        a = np.append(a - reflection * a[::-1], reflection)
        rho *= (1 - reflection) * (1 + reflection)
        log += np.log(rho)
    return float(log)


LAGS = np.arange(300.0)
COVARIANCES = {
    "squared exponential": np.exp(-0.5 * (LAGS / 4) ** 2),
    "exponential": np.exp(-LAGS / 20),
    "quasi-periodic": np.exp(-LAGS / 200 - 2 * np.sin(np.pi * LAGS / 25) ** 2),
}


@in_one_test("n", [3, 40, 300])
@in_one_test("name", COVARIANCES)
def test_errors_of_closed_forms_are_true(name: str, n: int) -> None:
    """They are never zero, at most four times too small, and not much larger than the true ones of like matrices."""
    ratios = []
    for nugget in 10.0 ** np.arange(-13, 1):
        c = COVARIANCES[name][:n] + np.append(nugget, np.zeros(n - 1))
        found = sm.slogdet(sm.Toeplitz(c))
        off = abs(found.logabsdet - recursion_in_long_double(c))
        assert found.standard_error > 0
        assert off <= 4 * found.standard_error, nugget
        ratios.append(found.standard_error / max(off, 1e-11 * (1 + abs(found.logabsdet))))
    assert np.median(ratios) < 100


def test_few_gaps_of_a_series_leave_rounding_errors_alone() -> None:
    torch, n = pytest.importorskip("torch"), 1100
    seen = np.arange(n) % 100 != 7
    lags = torch.arange(n, dtype=torch.float64)

    def series(length: Any) -> Any:
        return (sm.Toeplitz(torch.exp(-lags / length)) + 0.1 * sm.Identity(n))[seen][:, seen]

    first, second = (torch.tensor(8.0, dtype=torch.float64, requires_grad=True) for _ in range(2))
    _, log, error = sm.slogdet(series(first))
    expected = torch.linalg.slogdet(series(second).to_dense())[1]
    assert_is_exact(log.item(), error.item(), expected.item())
    log.backward()
    expected.backward()
    torch.testing.assert_close(first.grad, second.grad, rtol=1e-9, atol=0)


@pytest.mark.parametrize("gaps", [4, 5])
def test_few_gaps_of_other_matrices_are_refused(backend: Any, gaps: int) -> None:
    """Of one with negative eigenvalues, in an odd and an even number, and of one that is not Hermitian."""
    if backend.compiles and gaps == 5:
        pytest.skip("each shape is compiled anew")
    n = 2100
    for last, error, text in ((-1.2, np.linalg.LinAlgError, "not positive definite"), (0.0, ValueError, "Hermitian")):
        c = np.append([2.0, -1.2], np.zeros(n - 2))
        c[-1] = last
        kept = np.arange(n) % 300 >= gaps - 3  # seven or fourteen are missing
        A = sm.Circulant(backend.asarray(c))[kept][:, kept]
        with pytest.raises(error, match=text):
            sm.slogdet(A)


@pytest.mark.parametrize("name", ["noise", "gaps and noise", "uneven gaps", "no matrix near it"])
def test_standard_errors_are_true(name: str) -> None:
    op = MATRICES[name](np.asarray)
    exact = np.linalg.slogdet(op.to_dense()).logabsdet
    n_probes = min(32, op.shape[0] - 6)  # with as many as rows it would be exact but for rounding, and no estimate
    found = [sm.slogdet(op, n_probes=n_probes, rng=seed) for seed in range(200)]
    assert sum(abs(log - exact) <= 2.5 * error for _, log, error in found) >= 190
    spread = np.std([log for _, log, _ in found])
    assert spread == pytest.approx(np.sqrt(np.mean([error**2 for *_, error in found])), rel=0.25)


def copies(n: int, count: int) -> tuple[sm.LinearOperator, float]:
    """Return a stack of equal matrices of n unknowns, of which each has probes of its own, and the exact value."""
    T, noise = sm.Toeplitz(0.5 ** np.arange(n)), np.geomspace(0.1, 10.0, n)
    exact = np.linalg.slogdet((T + sm.Diagonal(noise)).to_dense()).logabsdet
    return T + sm.Diagonal(np.tile(noise, (count, 1))), float(exact)


def test_few_probes_have_standard_errors_that_are_large_enough() -> None:
    stack, exact = copies(12, 1500)
    for count in (3, 8):  # by the spread of the probes alone they are too small for 19 and 9 %
        _, log, error = sm.slogdet(stack, n_probes=count, rng=0)
        assert np.mean(np.abs(log - exact) > 2 * error) == pytest.approx(0.0455, abs=0.025)


@pytest.mark.parametrize("count", [2, 3])
def test_the_spread_of_few_probes_is_not_underestimated(count: int) -> None:
    """Its expected square is that of the estimates, but for the factor by Student's distribution."""
    stack, _ = copies(12, 1500)
    _, log, error = sm.slogdet(stack, n_probes=count, rng=0)
    student = scipy.stats.t(count - 1).ppf(scipy.stats.norm.cdf(2)) / 2
    assert np.sqrt(np.mean(error**2)) / student == pytest.approx(np.std(log), rel=0.08)


def test_as_many_probes_as_unknowns_leave_rounding_errors_alone() -> None:
    stack, exact = copies(8, 3)
    _, log, error = sm.slogdet(stack, n_probes=8)
    assert_is_exact(log, error, exact)


def logdet_in_long_double(K: Any) -> Any:
    """Return the logarithm of the determinant by elimination, with 11 bits more than double precision."""
    K = np.array(K, np.longdouble)
    log = np.longdouble(0)
    for k in range(len(K)):
        log += np.log(K[k, k])
        K[k + 1 :, k + 1 :] -= np.outer(K[k + 1 :, k] / K[k, k], K[k, k + 1 :])
    return log


def random_conditions(count: int, seed: int) -> Any:
    """Return positive definite matrices of 2 to 30 rows with condition numbers from 1 to 1e13, some badly scaled."""
    rng = np.random.default_rng(seed)
    for k in range(count):
        n = int(rng.integers(2, 31))
        Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
        K = (Q * np.geomspace(1.0, 10 ** -rng.uniform(0.0, 13.0), n)) @ Q.T
        scales = 10 ** rng.uniform(-4.0, 4.0, n) if k % 2 else np.ones(n)
        yield (K + K.T) / 2 * scales * scales[:, None]


def pairs_of_errors(matrices: Any) -> Any:
    """Return true errors, what is returned, and the size of values, of matrices that are written out."""
    found = []
    for K in matrices:
        kept = np.arange(len(K))
        A = sm.Submatrix(sm.Dense(np.pad(K, (0, 1))), kept, kept)  # without a closed form
        exact = logdet_in_long_double(K)
        _, log, error = sm.slogdet(A, n_probes=len(K) + 1)  # nothing is estimated
        found.append((abs(log - exact), error, abs(exact)))
    return np.array(found, float).T


LONG_DOUBLE = pytest.mark.skipif(np.finfo(np.longdouble).eps > 2e-19, reason="long double is double here")


@LONG_DOUBLE
@pytest.mark.parametrize("count", [30, 1000])
def test_errors_of_written_out_matrices_are_true_and_not_too_large(count: int) -> None:
    true, returned, size = pairs_of_errors(random_conditions(count, seed=count))
    assert np.all(true <= 4 * returned)
    assert np.mean((returned <= 100 * true) | (returned <= 1e-10 * size)) >= 0.9


@LONG_DOUBLE
def test_errors_of_two_nearly_equal_unknowns_are_true() -> None:
    """Vectors of signs may all be orthogonal to their difference, on which the whole error depends."""
    n = 40
    matrices = []
    for k in range(1, n):
        points = np.arange(float(n))
        points[k] = points[k - 1] + 1e-9
        matrices.append(np.exp(-np.abs(points[:, None] - points)))
    true, returned, _ = pairs_of_errors(matrices)
    assert np.all(true <= 4 * returned)


HERMITIAN = np.array([3.0, 1 + 0.5j, 0.2, 0.2, 1 - 0.5j])
ONE_MATRIX_EACH = {
    "closed form": sm.Circulant(HERMITIAN),
    "closed form, real": sm.Circulant(np.array([3.0, 1.0, 1.0])),
    "recursion": sm.Toeplitz(HERMITIAN[:3]),
    "single precision": sm.Toeplitz(np.array([3.0, 1.0, 0.5], "f4")),
    "written out": sm.Toeplitz(HERMITIAN[:3]) + sm.Diagonal(np.array([1.0, 2.0, 3.0])),
    "blocks": sm.BlockToeplitz(np.stack([3 * np.eye(2), 0.1j * np.eye(2)])),
    "many": sm.Toeplitz(C[:5]) + sm.Diagonal(NOISE[:5]),
}


@pytest.mark.parametrize("options", [{}, {"n_probes": 2, "rng": 0}, {"method": sm.Superfast()}])
@in_one_test("name", ONE_MATRIX_EACH)
def test_results_are_scalars_as_of_numpy_and_signs_have_the_dtype_of_the_matrix(name: str, options: Any) -> None:
    A = ONE_MATRIX_EACH[name]
    if "method" in options and name in {"closed form", "closed form, real", "blocks"}:
        pytest.skip("no direct factor")
    found = [*sm.slogdet(A, **options)]
    if options == {} and name not in {"written out", "many"}:
        found += A.slogdet()
    expected = np.linalg.slogdet(A.to_dense())
    for k, value in enumerate(found):
        assert type(value) is type(expected[min(k % 3, 1)])


@in_one_test("name", ["spectrum", "diagonal", "sum", "grid"])
def test_infinite_entries_give_infinite_results_or_nan_without_a_warning(name: str) -> None:
    d = np.array([1.0, np.inf, 2.0])
    matrices = {
        "spectrum": sm.Circulant(d),
        "diagonal": sm.Diagonal(d),
        "sum": sm.Toeplitz(np.array([1.0, 0.5, 0.2])) + sm.Diagonal(d),
        "grid": sm.Kronecker(sm.Diagonal(d), np.eye(2)) + sm.Diagonal(np.ones(6)),
    }
    found = sm.slogdet(matrices[name])
    assert not np.isfinite(found.logabsdet)
    assert not np.isfinite(found.standard_error)


def test_residuals_are_scalars() -> None:
    A = ONE_MATRIX_EACH["written out"]
    for found in (sm.solve(A, np.ones(3)), sm.lstsq(A, np.ones(3)), sm.solve(A, np.ones(3), method=sm.Superfast())):
        assert isinstance(found.residual, np.float64)


SMOOTH = {
    "squared exponential": lambda lags: np.exp(-(lags**2) / 50.0),
    "rational quadratic": lambda lags: 1 / (1 + (lags / 10.0) ** 2),
    "Matern 3/2": lambda lags: (1 + lags / 50.0) * np.exp(-lags / 50.0),
}
"""Covariances whose matrices are ill-conditioned, so that Lanczos vectors do not stay orthogonal."""


@backends.on("numpy", "torch")
@pytest.mark.parametrize("name", SMOOTH)
def test_estimates_of_ill_conditioned_matrices_are_within_their_errors(backend: backends.Backend, name: str) -> None:
    """Without JAX, which would compile the same loop anew for each number of steps."""
    for n, noise in ((75, 1e-9), (200, 1e-8)):
        lags = np.arange(2.0 * n)
        A = (sm.Toeplitz(backend.asarray(SMOOTH[name](lags))) + noise * sm.Identity(2 * n))[::2][:, ::2]
        exact = np.linalg.slogdet(backend.to_numpy(A.to_dense())).logabsdet
        _, log, error = map(backend.to_numpy, sm.slogdet(A, n_probes=32, rng=0))
        assert abs(log - exact) <= 4 * error


def test_what_does_not_converge_is_written_out_as_a_last_resort() -> None:
    n = 2001  # more than are written out at first
    c = np.random.default_rng(0).standard_normal(n) / n
    C = sm.Circulant(c + np.roll(c[::-1], 1))
    A = C @ sm.Diagonal(np.geomspace(1e-6, 1.0, n)) @ C + sm.Diagonal(np.geomspace(1e-3, 1e-7, n))
    found = sm.slogdet(A, max_iter=20)
    assert abs(found.logabsdet - np.linalg.slogdet(A.to_dense()).logabsdet) <= 1e-8 + 4 * found.standard_error
    with pytest.raises(sm.ConvergenceError):  # an estimate is asked for
        sm.slogdet(A, max_iter=20, n_probes=4, rng=0)


def test_what_has_not_settled_is_no_estimate() -> None:
    n = 1100
    A = (sm.Toeplitz(SMOOTH["rational quadratic"](np.arange(2.0 * n))) + 1e-9 * sm.Identity(2 * n))[::2][:, ::2]
    with pytest.raises(sm.ConvergenceError, match=r"300 Lanczos steps .* A\.to_dense\(\)"):
        sm.slogdet(A, n_probes=4, rng=0, max_iter=300)


def test_closed_forms_have_an_error_of_rounding(backend: Any) -> None:
    for op in (sm.Circulant(backend.asarray(np.array([3.0, 1.0, 0.5]))), toeplitz(backend.asarray)):
        sign, log, error = map(backend.to_numpy, sm.slogdet(op))
        expected = np.linalg.slogdet(backend.to_numpy(op.to_dense()))
        assert float(sign) == pytest.approx(expected.sign)
        assert_is_exact(float(log), float(error), expected.logabsdet)


@pytest.mark.parametrize("scales", [[1.0], [1.0, 1e11]])  # the direct factor is exact for the second member
def test_of_two_factors_the_one_with_the_smaller_error_is_returned(scales: list[float]) -> None:
    """A squared exponential with noise of 1e-12: the direct factor leaves out more than the least eigenvalues."""
    n = 1030
    noise = 1e-12 * np.array(scales)[:, None] * np.linspace(1.0, 1.5, n)
    A = sm.Toeplitz(np.exp(-0.5 * (np.arange(n) / 8) ** 2)) + sm.Diagonal(noise)
    found = sm.slogdet(A)
    (direct,) = (attempt.error for attempt in found.ways if attempt.way == "direct factor")
    assert np.max(direct) > 0.1
    assert np.all(found.standard_error <= direct)
    assert np.all(np.abs(found.logabsdet - np.linalg.slogdet(A.to_dense()).logabsdet) < 0.05)


class _Failing(sm.Circulant):
    """A matrix whose closed form rounding errors defeat."""

    def _slogdet_and_error(self, xp: Any) -> Any:
        raise np.linalg.LinAlgError("the closed form has failed")


@pytest.mark.quick  # alone it asks for the dense matrix above 2,000 rows, up to which any is written out at once
@pytest.mark.parametrize("n", [50, 2100])
def test_where_a_closed_form_fails_the_dense_matrix_has_the_result(n: int) -> None:
    c = np.r_[4.0, 1.0, np.zeros(n - 3), 1.0]
    found = sm.slogdet(_Failing(c))
    assert abs(found.logabsdet - sm.Circulant(c).slogdet().logabsdet) <= 1e-12 * n
    with pytest.raises(np.linalg.LinAlgError, match="the closed form has failed"):  # the dense factor fails too
        sm.slogdet(_Failing(np.ones(n)))


def test_long_series_of_hardly_any_noise_have_the_result_of_the_dense_matrix() -> None:
    """The recursion of the closed form refuses this matrix, whose condition number is about 1e13."""
    n = 5500
    lags = np.arange(float(n))
    c = np.exp(-0.5 * (lags / 3) ** 2) + 0.5 * np.exp(-0.5 * ((lags - 5 * n // 6) / 3) ** 2)
    c[0] += 1e-12
    found = sm.slogdet(sm.Toeplitz(c))
    factor = scipy.linalg.cholesky(scipy.linalg.toeplitz(c), lower=True, overwrite_a=True, check_finite=False)
    assert abs(found.logabsdet - 2 * np.sum(np.log(np.diagonal(factor)))) <= 4 * found.standard_error
    assert found.standard_error < 1.0


def test_what_is_near_enough_has_no_error() -> None:
    first, second = sm.Circulant(np.array([3.0, 1.0, 0.5, 1.0])), sm.Circulant(np.array([2.0, -1.0, 0.0, -1.0]))
    _, log, error = sm.slogdet(sm.Sum([first, second]), n_probes=32)
    assert error < 1e-14
    assert log == pytest.approx((first + second).slogdet().logabsdet)


def test_a_wanted_error_is_reached() -> None:
    op = MATRICES["noise"](np.asarray)
    first = sm.slogdet(op, rng=0, n_probes=8)
    more = sm.slogdet(op, rng=0, n_probes=8, target_error=first.standard_error / 3)
    assert more.standard_error <= first.standard_error / 3
    with pytest.raises(sm.ConvergenceError, match=r"the standard error is .* with 200 vectors, not 1e-09") as caught:
        sm.slogdet(op, rng=0, n_probes=2, target_error=1e-9)
    assert caught.value.result.standard_error > 1e-9


def test_half_precision_is_computed_in_single(backend: Any) -> None:
    if not hasattr(backend.xp, "float16"):
        pytest.skip("no half precision")
    op = MATRICES["noise"](backend.asarray)
    half = op.astype(backend.xp.float16)
    _, log, error = sm.slogdet(half, n_probes=32, rng=0)
    assert log.dtype == error.dtype == backend.xp.float16
    assert float(log) == pytest.approx(float(sm.slogdet(op, n_probes=32, rng=0).logabsdet), rel=0.02)


T = sm.Toeplitz(0.9 ** np.arange(30))
UNEVEN = sm.Toeplitz(np.arange(4.0), np.arange(4.0) ** 2) + sm.Diagonal(np.arange(4.0))


@in_one_test(
    "op, options, error, message",
    [
        (np.eye(3), {}, TypeError, r"slogdet: A must be a structmat operator, got ndarray"),
        (T[:, :20], {}, ValueError, r"slogdet: A must be square, got shape \(30, 20\)"),
        (UNEVEN, {}, ValueError, "slogdet: A must be Hermitian .*; use numpy.linalg.slogdet"),
        (UNEVEN, {"n_probes": 9}, ValueError, "slogdet: A must be Hermitian"),
        (T - sm.Diagonal(np.linspace(0.5, 2.0, 30)), {}, np.linalg.LinAlgError, "not positive definite"),
        (T - sm.Diagonal(np.linspace(0.5, 2.0, 30)), {"n_probes": 9}, np.linalg.LinAlgError, "not positive definite"),
        (T + sm.Diagonal(np.full(30, np.nan)), {}, np.linalg.LinAlgError, "NaN"),
        (T + sm.Diagonal(np.full(30, np.nan)), {"n_probes": 9}, np.linalg.LinAlgError, "NaN"),
        (
            T + sm.Diagonal(np.geomspace(1e-6, 1e6, 30)),
            {"n_probes": 9, "max_iter": 6},
            sm.ConvergenceError,
            "6 Lanczos steps",
        ),
        (T, {"n_probes": 1}, ValueError, "n_probes must be at least 2, got 1"),
        (T, {"target_error": -1.0}, ValueError, "target_error must be finite and not negative"),
        (T, {"rng": "x"}, (TypeError, ValueError), "rng must be"),
    ],
)
def test_what_has_no_estimate_is_an_error(op: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        sm.slogdet(op, **options)


# Derivatives by a length and the size of the noise, beside traces of dense matrices


LAGS = np.arange(60.0)


def covariance(xp: Any, asarray: Any, length: Any, size: Any, *, gaps: bool, noise: Any = NOISE) -> Any:
    A = sm.Toeplitz(xp.exp(-asarray(LAGS) / length)) + sm.Diagonal(size * asarray(noise))
    return A[OBSERVED][:, OBSERVED] if gaps else A


def traces(*, gaps: bool, noise: Any = NOISE) -> list[float]:
    lags = np.abs(LAGS[:, None] - LAGS)
    K = np.exp(-lags / 8.0)
    kept = np.ix_(OBSERVED, OBSERVED) if gaps else ...
    inverse = np.linalg.inv((K + 1.5 * np.diag(noise))[kept])
    return [float(np.trace(inverse @ D[kept])) for D in (K * lags / 64.0, np.diag(noise))]


def in_torch(seed: int, **options: Any) -> list[float]:
    torch = pytest.importorskip("torch")
    values = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (8.0, 1.5)]
    sm.slogdet(covariance(torch, torch.asarray, *values, **options), n_probes=32, rng=seed).logabsdet.backward()
    return [value.grad.item() for value in values]


@pytest.mark.parametrize("noise", [NOISE, UNEVEN_NOISE], ids=["noise", "uneven noise"])
@pytest.mark.parametrize("gaps", [False, True])
def test_gradients_are_unbiased_in_torch(gaps: bool, noise: Any) -> None:
    found = np.array([in_torch(seed, gaps=gaps, noise=noise) for seed in range(20)])
    expected = traces(gaps=gaps, noise=noise)
    error = np.std(found, axis=0, ddof=1) / np.sqrt(20)
    assert (np.abs(np.mean(found, axis=0) - expected) < 4 * error).all()
    assert (20 * error < np.abs(expected)).all()


@pytest.mark.parametrize("gaps", [False, True])
def test_jax_has_the_gradients_of_torch_and_traces_estimates(gaps: bool) -> None:
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)

    def log(length: Any, size: Any) -> Any:
        return sm.slogdet(
            covariance(jax.numpy, jax.numpy.asarray, length, size, gaps=gaps), n_probes=32, rng=3
        ).logabsdet

    value, gradient = jax.jit(jax.value_and_grad(log, (0, 1)))(8.0, 1.5)
    expected = sm.slogdet(covariance(np, np.asarray, 8.0, 1.5, gaps=gaps), n_probes=32, rng=3).logabsdet
    assert float(value) == pytest.approx(expected, abs=1e-3)
    assert list(map(float, gradient)) == pytest.approx(in_torch(3, gaps=gaps), rel=1e-5)


MANY_TIMES = """
import jax, structmat as sm
jax.config.update("jax_enable_x64", True)
lags = jax.numpy.arange(300.0)
def log(length, size):
    A = sm.Toeplitz(jax.numpy.exp(-lags / length)) + sm.Diagonal(size + lags)
    return sm.slogdet(A, n_probes=32, rng=0).logabsdet
gradient = jax.jit(jax.value_and_grad(log, (0, 1)))
for _ in range(200):
    jax.block_until_ready(gradient(8.0, 1.5))
"""


def test_jax_comes_to_an_end_on_two_threads() -> None:
    # calls of LAPACK side by side, on batches, wait for one another in jaxlib 0.10 where the threads are few
    pytest.importorskip("jax")
    environment = os.environ | {"NPROC": "2", "JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    subprocess.run([sys.executable, "-c", MANY_TIMES], check=True, env=environment, timeout=240)


def test_what_does_not_converge_in_a_trace_is_nan() -> None:
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)

    def log(d: Any, steps: int) -> Any:
        return sm.slogdet(
            sm.Toeplitz(jax.numpy.asarray(0.9**LAGS)) + sm.Diagonal(d), n_probes=32, rng=0, max_iter=steps
        ).logabsdet

    noise = jax.numpy.geomspace(1e-6, 1e6, 60)
    assert np.isnan(jax.jit(log, static_argnums=1)(noise, 6))
    expected = sm.slogdet(sm.Toeplitz(0.9**LAGS) + sm.Diagonal(np.asarray(noise)), n_probes=32, rng=0)
    assert float(jax.jit(log, static_argnums=1)(noise, 60)) == pytest.approx(
        expected.logabsdet,
        abs=0.1 * expected.standard_error,  # what the quadrature may be off
    )


@pytest.mark.parametrize("hide", ["jax.jit", "torch.vmap"])
def test_what_is_not_hermitian_is_nan_where_values_are_hidden(hide: str) -> None:
    library, name = hide.split(".")
    transform = getattr(pytest.importorskip(library), name)
    column = np.array([[2.0, 0.5, 0.1]])
    given = backends.get(library).asarray(column)

    def log(c: Any) -> Any:
        T = sm.Toeplitz(c, c * backends.get(library).asarray(np.array([1.0, 2.0, 1.0])))
        return sm.slogdet(T + sm.Diagonal(c)).logabsdet

    found = transform(log)(given[0] if library == "jax" else given)
    assert np.isnan(np.asarray(found)).all()


def test_second_derivatives_in_torch_are_those_of_the_same_vectors() -> None:
    torch = pytest.importorskip("torch")

    def gradient(size: Any) -> Any:
        log = sm.slogdet(covariance(torch, torch.asarray, 8.0, size, gaps=True), n_probes=32, rng=2).logabsdet
        (found,) = torch.autograd.grad(log, size, create_graph=True)
        return found

    size = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    (second,) = torch.autograd.grad(gradient(size), size)
    step = 1e-4
    shifted = [gradient(torch.tensor(1.5 + h, dtype=torch.float64, requires_grad=True)).item() for h in (-step, step)]
    assert second.item() == pytest.approx((shifted[1] - shifted[0]) / (2 * step), rel=1e-4)


# Systems with gaps


@pytest.mark.parametrize("name", ["gaps", "gaps and noise", "gaps of a stack"])
def test_systems_with_gaps_are_solved_and_preconditioned(backend: Any, name: str) -> None:
    if backend.compiles and name != "gaps of a stack":
        pytest.skip("each system is compiled anew")
    op, dense = MATRICES[name](backend.asarray), MATRICES[name](np.asarray).to_dense()
    b = np.random.default_rng(1).standard_normal(dense.shape[-1])
    x = backend.to_numpy(sm.solve(op, backend.asarray(b), assume="positive definite").x)
    np.testing.assert_allclose(x, np.linalg.solve(dense, np.broadcast_to(b, x.shape)[..., None])[..., 0], rtol=1e-7)


@pytest.mark.parametrize("noise", ["constant", "uneven"])
def test_the_whole_grid_saves_most_iterations(noise: str) -> None:
    n = 2000
    kept, T = np.random.default_rng(0).random(n) < 0.9, sm.Toeplitz(0.99 ** np.arange(n))
    uneven = sm.Diagonal(np.linspace(0.01, 0.02, int(kept.sum())))
    A = (T + 0.01 * sm.Identity(n))[kept][:, kept] if noise == "constant" else T[kept][:, kept] + uneven
    counts = [
        sm.solve(A, np.ones(A.shape[0]), assume="positive definite", preconditioner=M).iterations
        for M in ("nearest", None)
    ]
    assert counts[0] < counts[1] / 2


@pytest.mark.parametrize("n", [12, 64])
def test_gradients_of_estimates_near_a_circulant_need_few_probes(n: int) -> None:
    """The derivative of the circulant part is exact, so that probes find the difference alone."""
    torch = pytest.importorskip("torch")
    column = 0.5 ** np.minimum(np.arange(n), n - np.arange(n))
    noise = 1 + 0.02 * np.random.default_rng(0).random(n)

    def gradient(logdet):
        c = torch.from_numpy(column).requires_grad_()
        logdet(sm.Circulant(c) + sm.Diagonal(torch.from_numpy(noise))).backward()
        return c.grad.numpy()

    exact = gradient(lambda A: torch.linalg.slogdet(A.to_dense()).logabsdet)
    found = gradient(lambda A: sm.slogdet(A, n_probes=2, rng=0).logabsdet)
    assert np.linalg.norm(found - exact) < 0.01 * np.linalg.norm(exact)


def test_an_estimate_is_settled_where_the_last_change_is_below_its_error() -> None:
    """The changes fall fast in both cases, and the last one is three or a third of the standard error of 1."""
    spread = np.array([-1.0, 1.0])
    for change, settled in ((3.0, False), (1 / 3, True)):
        found = [mean + spread for mean in (0.0, 1000.0, 1000.0 + change)]
        assert bool(is_settled(found, 2, numpy_namespace)) == settled


def test_the_measured_error_of_a_factor_has_mean_spread_and_square() -> None:
    """Each of the three alone: the traces of E, how far they are apart, and the norms of E z."""
    signs = np.array([[1.0, 1.0], [1.0, 1.0]])
    for left, expected in (
        ([[1e-4, 1e-4], [1e-4, 1e-4]], 2e-4 + 1e-8),  # traces of 2e-4
        ([[1e-4, 0.0], [-1e-4, 0.0]], 1e-4 + 0.5e-8),  # traces of 1e-4 and -1e-4
        ([[3.0, -3.0], [3.0, -3.0]], 9.0),  # traces of zero
    ):
        assert measured_error_of_logdet(signs, np.array(left), numpy_namespace) == pytest.approx(expected, rel=1e-12)
