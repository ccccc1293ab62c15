"""From the smallest numbers of a precision to the largest the reported error is that of the products, or none is."""

import numpy as np
import pytest
import scipy.linalg

from structmat import factorize_cdd, fit_cdd
from structmat.fit import baseline_errors
from tests.cases import in_one_test
from tests.fit.matrices import matrix as normal_matrix

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]


def times_power_of_two(X, exponent):
    """Multiply without rounding, but for numbers below the smallest normal one."""
    return np.ldexp(np.ascontiguousarray(X).view(X.real.dtype), int(exponent)).view(X.dtype)


def of_size_one(X, dtype=None):
    """A matrix whose largest real or imaginary part is nearly one."""
    parts = np.abs(np.ascontiguousarray(X).view(X.real.dtype))
    return (X * (0.999 / parts.max())).astype(X.dtype if dtype is None else dtype)


def matrix(n, dtype=np.float64):
    return of_size_one(normal_matrix(n, real=not np.issubdtype(dtype, np.complexfloating)), dtype)


def check(W, fit, exponent):
    """The matrix is `exponent` binary orders away from a size of one."""
    product = np.asarray(fit.operator @ np.eye(len(W), dtype=W.dtype))
    double = np.result_type(product.dtype, np.float64)
    P, exact = (times_power_of_two(X.astype(double), -exponent) for X in (product, W))
    error = np.linalg.norm(P - exact) / np.linalg.norm(exact)
    assert fit.error == pytest.approx(error, rel=1e-3, abs=float(np.finfo(W.dtype).eps))
    assert fit.error < 1.0


def cases():
    rng = np.random.default_rng(0)
    a, b, c = rng.standard_normal((3, 9))
    circulant = scipy.linalg.circulant(c)
    yield pytest.param(circulant, {}, id="circulant")
    yield pytest.param(circulant * a @ scipy.linalg.circulant(b), {}, id="CDC")
    yield pytest.param(np.outer(a, b), {}, id="rank one")
    yield pytest.param(np.eye(9)[(2 * np.arange(9) + 3) % 9], {}, id="affine permutation")
    yield pytest.param(np.tri(20) - np.tri(20, k=-3), {}, id="band")
    yield pytest.param(scipy.linalg.qr(matrix(12))[0], {}, id="unitary")
    yield pytest.param(matrix(4), {}, id="search")
    yield pytest.param(matrix(4, np.complex128), {}, id="complex search")
    yield pytest.param(matrix(24), {}, id="construction")
    yield pytest.param(matrix(36), {"real": True}, id="rotations")


@pytest.mark.parametrize("exponent", [-1040, -1000, -600, 600, 1000, 1019])
@pytest.mark.parametrize(("W", "options"), [*cases()])
def test_errors_of_factorisations_are_those_of_their_products(W, options, exponent):
    """On their way through rotations products are larger than the matrix by 1e27."""
    W = of_size_one(W)
    scaled = times_power_of_two(W, exponent)
    fit = factorize_cdd(scaled, rng=0, **options)
    check(scaled, fit, exponent)
    if exponent >= -1000:
        assert fit.error == pytest.approx(factorize_cdd(W, rng=0, **options).error, rel=1e-3, abs=1e-16)


def test_factorisations_whose_products_overflow_are_refused():
    W = times_power_of_two(of_size_one(scipy.linalg.circulant(np.ones(9))), 1024)
    with pytest.raises(ValueError, match="factorize_cdd: W has a factorisation whose products overflow"):
        factorize_cdd(W)


@pytest.mark.parametrize(
    "options", [{"n_factors": 1}, {"n_factors": 2}, {"n_factors": 3}, {"n_factors": 5}], ids=["1", "2", "3", "5"]
)
@pytest.mark.parametrize("scale", ["smallest", "tiny", "huge", "largest"])
@in_one_test("dtype", DTYPES)
def test_errors_of_fits_are_those_of_their_products(dtype, scale, options):
    info = np.finfo(dtype)
    exponent = {
        "smallest": info.minexp - info.nmant // 2,
        "tiny": info.minexp + 30,
        "huge": info.maxexp - 30,
        "largest": info.maxexp - 4,  # transforms add up eight entries
    }[scale]
    W = times_power_of_two(matrix(8, dtype), exponent)
    check(W, fit_cdd(W, rng=0, max_iter=20, restarts=1, **options), exponent)


@pytest.mark.parametrize("dtype", DTYPES)
def test_fits_whose_products_overflow_are_refused(dtype):
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (8, 8))  # the fit has larger entries
    W = times_power_of_two((0.999 * signs).astype(dtype), np.finfo(dtype).maxexp)
    with pytest.raises(ValueError, match=f"fit_cdd: W has a fit whose products overflow {W.dtype}"):
        fit_cdd(W, rng=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_errors_of_baselines_do_not_depend_on_the_scale(dtype):
    W, info = matrix(8, dtype), np.finfo(dtype)
    want = baseline_errors(W, [20])
    for exponent in (info.minexp - info.nmant // 2, info.maxexp):
        scaled, digits = times_power_of_two(W, exponent), {"rel": 1e-2 if exponent < 0 else 1e-6}
        for name, (_, error) in baseline_errors(scaled, [20]).items():
            assert error == pytest.approx(want[name][1], **digits)
