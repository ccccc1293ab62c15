"""Closed forms where they are delicate: real functions, singular matrices, cut-offs, norms and determinants."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import structmat as sm
from structmat.testing._drawing import Sample, Vectors
from tests.backends import Backend, along_last_axis, on
from tests.cases import in_one_test
from tests.operator_registry import REGISTRY, Entry, each, every_entry_where_nothing_compiles, on_libraries
from tests.operators.test_laws import check

rng = np.random.default_rng(11)


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_imaginary_parts_without_a_partner_count_as_zero(n: int) -> None:
    values = rng.standard_normal(n // 2 + 1) + 1j * rng.standard_normal(n // 2 + 1) + 3
    S, b = sm.SpectralCirculant(values, n), rng.standard_normal(n)
    C, A = S.to_circulant(), S.to_dense()
    for op in (S, S.prepare()):
        np.testing.assert_allclose(A @ op.solve(b), b)
        np.testing.assert_allclose(A @ op.inv().matvec(b), b)
        np.testing.assert_allclose(A @ op.pinv().matvec(b), b)
        np.testing.assert_allclose(np.sort_complex(op.eigvals()), np.sort_complex(C.eigvals()))
        np.testing.assert_allclose(op.svdvals(), C.svdvals())
        np.testing.assert_allclose(op.expm().to_dense(), scipy.linalg.expm(A))
        np.testing.assert_allclose((op @ op).to_dense(), A @ A)
        np.testing.assert_allclose((op + op).to_dense(), 2 * A)
        np.testing.assert_allclose(op.det(), np.linalg.det(A))


def test_real_functions_of_real_circulants() -> None:
    """Negative eigenvalues in pairs have a real root; one alone, at frequency 0 or n / 2, has not."""
    rotation = sm.Circulant([0.0, 1.0, 0.0])  # eigenvalues 1 and a conjugate pair
    assert rotation.sqrtm().dtype == "float64"
    assert rotation.fractional_matrix_power(0.3).dtype == "float64"
    pair = sm.SpectralCirculant(np.array([1.0, -1.0]), 3)  # eigenvalues 1, -1, -1
    root = pair.sqrtm()
    assert root.dtype == "float64"
    np.testing.assert_allclose((root @ root).to_dense(), pair.to_dense(), atol=1e-14)
    swap = sm.Circulant([0.0, 1.0])  # eigenvalues 1 and -1
    assert swap.sqrtm().dtype == "complex128"
    np.testing.assert_allclose((swap.sqrtm() @ swap.sqrtm()).to_dense(), swap.to_dense(), atol=1e-14)


def test_pseudo_inverse_of_singular_and_rectangular_operators() -> None:
    for op in (
        sm.Circulant(np.ones(4)),
        sm.Circulant([1.0, -1.0, 0.0]),
        sm.Diagonal([1.0, 0.0, 2.0]),
        sm.MultilevelCirculant(np.ones(6), (2, 3)),
        sm.BlockCirculant(np.ones((2, 3, 2))),
        sm.BlockCirculant(rng.standard_normal((3, 1, 4))),
    ):
        dense = op.to_dense()
        np.testing.assert_allclose(op.pinv().to_dense(), np.linalg.pinv(dense), atol=1e-13)
        assert op.rank() == np.linalg.matrix_rank(dense)
        b = rng.standard_normal(dense.shape[0])
        np.testing.assert_allclose(op.lstsq(b), np.linalg.lstsq(dense, b)[0], atol=1e-13)
    assert sm.Circulant(np.ones(4)).cond() > 1e15


@on("numpy", "array_api_strict", "torch", "jax")
def test_condition_numbers_of_singular_matrices_are_infinite(backend: Backend) -> None:
    """Member by member; NaN stays NaN."""
    D = sm.Diagonal(backend.asarray(np.array([[2.0, 0.0], [0.0, 0.0], [2.0, 5.0], [np.nan, 1.0]])))
    np.testing.assert_array_equal(backend.to_numpy(D.cond()), [np.inf, np.inf, 2.5, np.nan])


@in_one_test("dtype", ["float32", "float64", "complex64", "complex128"])
@in_one_test("k", [1, 2, 101, 2**24 + 1, 2**53 + 1, 10**30 + 1, -1, -(10**30) - 1])
def test_integer_powers_of_roots_of_unity_are_exact(backend, dtype, k):
    """They are what a float cannot hold the exponent of, and what most rounding errors of powers show in."""
    shift = backend.asarray(np.array([0.0, 1.0, 0.0, 0.0], dtype))
    power = backend.to_numpy(sm.Circulant(shift).fractional_matrix_power(k).c)
    np.testing.assert_allclose(power, np.roll(np.eye(4)[0], k % 4), rtol=0, atol=1e-6)
    signs = backend.asarray(np.array([-1.0, 1.0, 0.5, 3.0], dtype))
    with np.errstate(over="ignore", invalid="ignore"):
        powers = backend.to_numpy(sm.Diagonal(signs).fractional_matrix_power(k).d)
    assert powers[0] == (-1 if k % 2 else 1)
    assert powers[1] == 1
    if 0 < k < 3:
        np.testing.assert_allclose(powers, backend.to_numpy(signs) ** k, rtol=1e-6)


@pytest.mark.parametrize("function", ["sqrtm", "logm"])
def test_grids_of_one_axis_have_the_functions_of_circulants(function):
    """Also where an eigenvalue without a partner is negative: the others still come in pairs."""
    for spectrum in ([-1.0, -2, 3, 3, 3, -2], [2.0, -2, 3, -1, 3, -2], [-1.0, -2, -2], [4.0, -2, -2]):
        c = np.fft.ifft(spectrum).real
        found = getattr(sm.MultilevelCirculant(c, (len(c),)), function)()
        np.testing.assert_allclose(found.c, getattr(sm.Circulant(c), function)().c, rtol=0, atol=1e-14)
    grid = sm.MultilevelCirculant(-np.eye(9)[0], (3, 3)).sqrtm()
    roots = np.fft.fftn(grid.c.reshape(3, 3)).round(12)
    turned = np.roll(np.flip(roots, (0, 1)), 1, (0, 1))
    assert (roots[0, 0], (roots + turned == 0).sum()) == (1j, 8)


NORMAL: dict[str, Any] = {
    "Circulant": lambda v: sm.Circulant(v(7)),
    "Circulant, even": lambda v: sm.Circulant(v(8)),
    "SpectralCirculant": lambda v: sm.Circulant(v(6)).to_spectral(),
    "BandedCirculant": lambda v: sm.BandedCirculant(v(3), 6),
    "MultilevelCirculant": lambda v: sm.MultilevelCirculant(v(12), (4, 3)),
    "Diagonal": lambda v: sm.Diagonal(v(5)),
    "multiple of the identity": lambda v: sm.Scaled(sm.Identity(3), np.asarray(v())),
    "prepared": lambda v: sm.Circulant(v(5)).prepare(),
}
"""Operators with functions of their eigenvalues, which are distinct, as those of SciPy lose digits elsewhere."""


@pytest.mark.parametrize("kind", NORMAL)
@in_one_test("dtype", ["float64", "complex128"])
@in_one_test("function", [np.cos, np.sqrt, np.log, np.abs, np.reciprocal])
def test_functions_of_eigenvalues_are_those_of_scipy(kind: str, function: Any, dtype: str) -> None:
    op = NORMAL[kind](Vectors(3, dtype))
    found, expected = op.funm(function), scipy.linalg.funm(op.to_dense(), function)
    np.testing.assert_allclose(found.to_dense(), expected, atol=1e-10)
    is_real = dtype == "float64" and not np.iscomplexobj(expected)
    assert found.dtype == ("float64" if is_real else "complex128")
    assert type(found) is type(op.expm())


@pytest.mark.parametrize("kind", NORMAL)
def test_a_function_of_a_real_matrix_is_real_where_conjugates_have_conjugate_values(kind: str) -> None:
    op = NORMAL[kind](Vectors(3, "float64"))
    np.testing.assert_allclose(op.funm(lambda z: 1j * z).to_dense(), 1j * op.to_dense(), atol=1e-14)
    squares = [op.funm(lambda z: z * z, real=real) for real in (None, True, False)]
    assert [square.dtype for square in squares] == ["float64", "float64", "complex128"]
    for square in squares:
        np.testing.assert_allclose(square.to_dense(), op.to_dense() @ op.to_dense(), atol=1e-13)


def test_functions_of_the_identity_and_of_singular_matrices() -> None:
    np.testing.assert_array_equal(sm.Identity(2).funm(np.cos).to_dense(), math.cos(1.0) * np.eye(2))
    np.testing.assert_array_equal(sm.Identity(2).funm(lambda z: 1j * z).to_dense(), 1j * np.eye(2))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = sm.Diagonal([2.0, 0.0]).funm(np.reciprocal)
    assert found.d[0] == 0.5
    assert not np.isfinite(found.d[1])


def test_functions_are_compiled_and_mapped_where_it_is_said_whether_they_are_real(backend: Backend) -> None:
    c = np.array([1.0, 0.5, 0.25, 0.125])
    cosine, given = backend.xp.cos, backend.asarray(c)

    def column(c: Any) -> Any:
        return sm.Circulant(c).funm(cosine, real=True).c

    if backend.name == "jax":
        column = pytest.importorskip("jax").jit(column)
    found = pytest.importorskip("torch").func.vmap(column)(given[None])[0] if backend.name == "torch" else column(given)
    np.testing.assert_allclose(backend.to_numpy(found), sm.Circulant(c).funm(np.cos).c, atol=1e-13)


SUBNORMAL, TINY, HUGE = 2.0**-1030, 2.0**-1010, 2.0**1015
SOLVED = [entry for entry in REGISTRY if "solve" in entry.closed_forms]


def skip_flushed(backend: Backend) -> None:
    if backend.name == "jax":
        pytest.skip("XLA flushes subnormal numbers to zero")


@every_entry_where_nothing_compiles  # XLA flushes subnormal numbers to zero
@in_one_test("dtype", ["float64", "complex128"])
def test_quotients_are_not_made_by_reciprocals(backend: Backend, entry: Entry, dtype: str) -> None:
    def law(op: Any, dense: np.ndarray, sample: Sample, v: Vectors) -> None:
        for factor in (SUBNORMAL, 3.0):
            divisors = [factor, factor + 0j, np.float64(factor)]
            if op.dtype is not None:  # else the library divides a number by its array
                divisors.append(backend.asarray(np.asarray(factor)))
            for divisor in divisors:
                again = (op * factor / divisor).to_dense()
                actual = np.asarray(again) if op.dtype is None and isinstance(again, np.ndarray) else again
                actual = actual if isinstance(actual, np.ndarray) else backend.to_numpy(actual)
                np.testing.assert_allclose(actual, dense, rtol=0, atol=1e-11 * max(1, np.max(np.abs(dense))))

    check(backend, entry, law, dtype=dtype)


@in_one_test("kind", [sm.Circulant, sm.Diagonal, sm.Toeplitz])
@in_one_test("divisor", [3, 3.0, np.float32(0.1), 1e-310, 2 - 1j])
def test_quotients_are_those_of_the_entries(kind: Any, divisor: Any) -> None:
    entries = np.array([2e-310, 1.0, -0.7, 0.3])
    entries = entries * 1e-300 if divisor == 1e-310 else entries
    rounding = 1e-12 if isinstance(divisor, complex) else 0
    np.testing.assert_allclose((kind(entries) / divisor)._arrays()[0], entries / divisor, rtol=rounding)


@on_libraries(SOLVED, compiled=())  # XLA flushes subnormal numbers to zero
@in_one_test("scale", [SUBNORMAL, TINY, HUGE])
def test_solutions_do_not_depend_on_the_scale(backend: Backend, entry: Entry, scale: float) -> None:
    def law(op: Any, dense: np.ndarray, sample: Sample, v: Vectors) -> None:
        if op.dtype is None or np.max(np.linalg.cond(dense)) > 100:
            return
        if scale > 1 and np.max(np.abs(dense)) > np.finfo(float).max / scale / 100:  # scaled entries are out of range
            return
        x = v(*dense.shape[:-1])
        product = scale * np.einsum("...ij,...j->...i", dense, x)
        b, scaled = backend.asarray(product), op * scale
        held = [backend.to_numpy(array) for array in scaled._arrays()]
        least = min(np.min(np.abs(array[array != 0]), initial=1) for array in [*held, np.max(np.abs(product), axis=-1)])
        if np.finfo(float).smallest_subnormal > 1e-11 * least:  # so few digits are not those of the scaled problem
            return
        found = along_last_axis(sm.solve, scaled, b)
        for solution in (scaled.inv_matvec(b), scaled.prepare().inv_matvec(b), found.x):
            np.testing.assert_allclose(backend.to_numpy(solution), x, atol=1e-9 * np.max(np.abs(x)))

    check(backend, entry, law, dtype="float64")


@on("numpy")
@each(SOLVED)
def test_real_matrices_are_solved_for_complex_right_hand_sides(backend: Backend, entry: Entry) -> None:
    def law(op: Any, dense: np.ndarray, sample: Sample, v: Vectors) -> None:
        if np.max(np.linalg.cond(dense)) > 100:
            return
        x = v(*dense.shape[:-1]) + 1j * v(*dense.shape[:-1])
        b = np.einsum("...ij,...j->...i", dense, x)
        for solution in (op.inv_matvec(b), op.prepare().inv_matvec(b)):
            np.testing.assert_allclose(solution, x, atol=1e-9 * np.max(np.abs(x)))

    check(backend, entry, law, dtype="float64")


@in_one_test("complex_", [False, True])
@in_one_test("scale", [5e-310, 2.0**1022])
@in_one_test("n", [4, 200, 251])
def test_sums_beyond_the_range_do_not_spoil_solutions(n: int, scale: float, complex_: bool) -> None:
    rng = np.random.default_rng(n)
    c, b = rng.uniform(-1, 1, (2, n)) + (1j * rng.uniform(-0.5, 0.5, (2, n)) if complex_ else 0)
    c[0] = 1.5
    for make in (sm.Circulant, lambda c: sm.MultilevelCirculant(c, (1, n)), lambda c: sm.BlockCirculant(c[None, None])):
        expected = make(c).solve(b)
        np.testing.assert_allclose(make(c * scale).solve(b * scale), expected, atol=1e-9 * np.max(np.abs(expected)))


WITH_NORM = [entry for entry in REGISTRY if "norm" in entry.closed_forms]


@on_libraries(WITH_NORM, compiled=["Circulant"])
def test_norms_of_extreme_multiples(backend: Backend, entry: Entry) -> None:
    def law(op: Any, dense: np.ndarray, sample: Sample, v: Vectors) -> None:
        single = sample.dtype.name in {"float32", "complex64"}
        for scale in (1e-25, 1e25) if single else (1e-200, 1e200):
            scaled = op * scale
            for ord in entry.norms:
                expected = scale * np.linalg.norm(dense, ord, axis=(-2, -1))
                found = np.asarray(scaled.norm(ord)) if scaled.dtype is None else backend.to_numpy(scaled.norm(ord))
                np.testing.assert_allclose(found, expected, rtol=2e-3 if single else 1e-11, atol=0)

    check(backend, entry, law)


@pytest.mark.parametrize("ord", ["fro", 1, np.inf])
def test_norms_of_products_of_one_factor(ord: Any) -> None:
    for factor in (sm.Diagonal(rng.standard_normal((3, 6))), sm.Circulant(rng.standard_normal(6)).to_spectral()):
        expected = np.linalg.norm(factor.to_dense(), ord, axis=(-2, -1))
        np.testing.assert_allclose(sm.CDDProduct((factor,)).norm(ord), expected)


def test_what_is_cropped_away_does_not_count(backend: Backend) -> None:
    c = np.array([[[1.0, 1e20, 1e20, 2.0]]])  # of which a matrix of one row and two columns shows the outer ones
    B = sm.BlockCirculant(backend.asarray(c), (1, 2))
    assert float(B.norm()) == pytest.approx(5**0.5, rel=1e-14)
    assert float(B.norm(1)) == 2.0
    assert float(B.norm(np.inf)) == 3.0


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_nan_and_infinities_reach_the_norm(backend: Backend) -> None:
    if backend.compiles:
        pytest.skip("compiles too much")
    for bad in (np.nan, np.inf):
        for make in (sm.Circulant, sm.Diagonal, sm.Toeplitz, lambda c: sm.BlockCirculant(c[None, None, :])):
            op = make(backend.asarray(np.array([1.0, bad, 2.0])))
            for ord in ("fro", 1):
                assert not np.isfinite(float(op.norm(ord)))
        v = np.array([1.0, bad, 2.0])
        assert not np.isfinite(float(sm.CDDProduct.from_vectors(*map(backend.asarray, (v, v, v))).norm()))


@pytest.mark.parametrize("ord", ["fro", "nuc", 1, 2, np.inf])
def test_the_gradient_of_the_norm_of_zeros_is_zero(ord: Any) -> None:
    torch = pytest.importorskip("torch")
    z = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    makers = [sm.Circulant, sm.Diagonal, sm.Toeplitz, lambda c: sm.BlockCirculant(c.reshape(2, 1, 2))]
    if ord in {"fro", 1, np.inf}:
        makers.append(lambda c: sm.CDDProduct.from_vectors(c, c, c))
    for make in makers:
        op = make(z)
        if ord in {"nuc", 2} and isinstance(op, sm.Toeplitz):
            continue
        (gradient,) = torch.autograd.grad(op.norm(ord), z)
        assert bool(torch.all(torch.isfinite(gradient)))
        if ord == "fro":
            assert not gradient.any()


def test_gradients_of_norms_of_products() -> None:
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    d, c, e = (torch.randn(k, dtype=torch.float64, generator=generator, requires_grad=True) for k in (3, 4, 2))

    def norms(d: Any, c: Any, e: Any) -> Any:
        P = sm.CDDProduct.from_vectors(d, c.reshape(1, 1, 4), e, block=True)
        return torch.stack([P.norm(ord) for ord in ("fro", 1, np.inf)])

    assert torch.autograd.gradcheck(norms, (d, c, e))


@in_one_test("dtype", ["float32", "float64", "complex64", "complex128"])
@in_one_test("make", [sm.Diagonal, sm.Circulant])
@in_one_test("end", ["max", "smallest_normal", "smallest_subnormal"])
def test_norms_at_the_ends_of_the_range(make: Any, dtype: str, end: str) -> None:
    value = getattr(np.finfo(dtype), end)
    assert make(np.array([value], dtype)).norm() == value
    assert sm.Diagonal(np.array([value, 0], dtype)).norm() == value


WITH_DET = [entry for entry in REGISTRY if "slogdet" in entry.closed_forms and entry.name != "Identity"]


@on_libraries(WITH_DET, compiled=["Circulant"])
def test_slogdet_of_extreme_multiples(backend: Backend, entry: Entry) -> None:
    def law(op: Any, dense: np.ndarray, sample: Sample, v: Vectors) -> None:
        if not np.all(np.linalg.cond(dense) < 1e3):
            return
        single = sample.dtype.name in {"float32", "complex64"}
        to_numpy = np.asarray if op.dtype is None else backend.to_numpy
        sign, log = np.linalg.slogdet(dense)
        for scale in (1e-25, 1e25) if single else (1e-200, 1e200):
            found = (op * scale).slogdet()
            expected = log + dense.shape[-1] * math.log(scale)
            tolerance = (1e-3 if single else 1e-11) * (1 + np.max(np.abs(expected)))
            np.testing.assert_allclose(to_numpy(found.logabsdet), expected, atol=tolerance)
            np.testing.assert_allclose(to_numpy(found.sign), sign, atol=2e-3 if single else 1e-11)

    check(backend, entry, law)


@settings(max_examples=50)
@given(exponents=st.lists(st.floats(-300, 300), min_size=1, max_size=8), signed=st.booleans())
def test_det_of_a_diagonal_is_right_wherever_it_is_representable(exponents: list[float], *, signed: bool) -> None:
    assume(-307 < sum(exponents) < 308)
    d = 10.0 ** np.array(exponents)
    d[::2] *= -1 if signed else 1
    expected = float(np.prod(d.astype(np.longdouble)))
    with np.errstate(over="raise"):
        for op in (sm.Diagonal(d), sm.Diagonal(d).prepare(), sm.Product((sm.Diagonal(d), sm.Identity(len(d))))):
            assert math.isclose(float(op.det()), expected, rel_tol=1e-11)
        assert math.isclose(abs(complex(sm.Diagonal(d * 1j).det())), abs(expected), rel_tol=1e-11)


def test_zeros_and_nan_keep_their_meaning(backend: Backend) -> None:
    def det(*values: float) -> tuple[float, float, float]:
        op = sm.Diagonal(backend.asarray(np.array(values)))
        found = op.slogdet()
        return float(op.det()), float(found.sign), float(found.logabsdet)

    assert det(1e200, 1e200, 0.0) == (0.0, 0.0, -math.inf)
    assert det(1e200, 1e-200, 1e-200, -1e200)[:2] == pytest.approx((-1.0, -1.0), rel=1e-12)
    assert np.all(np.isnan(det(1.0, math.nan)))
    assert np.all(np.isnan(det(0.0, math.nan)))
    assert det(2.0, 3.0, 4.0)[0] == 24.0  # with every digit where nothing leaves the range


def test_signs_of_subnormal_complex_numbers() -> None:
    d = np.array([3e-310 + 4e-310j, -2e-310j])
    found = sm.Diagonal(d).slogdet()
    assert complex(found.sign) == pytest.approx((0.6 + 0.8j) * -1j, rel=1e-10)
    assert float(found.logabsdet) == pytest.approx(float(np.sum(np.log(np.abs(d)))))


def test_large_blocks_have_the_determinant_of_their_dense_matrix(backend: Backend) -> None:
    c = np.random.default_rng(0).standard_normal((2, 150, 150, 2))
    op = sm.BlockCirculant(backend.asarray(c))
    expected = np.linalg.slogdet(sm.BlockCirculant(c).to_dense())
    found = op.slogdet()
    np.testing.assert_allclose(backend.to_numpy(found.logabsdet), expected.logabsdet, rtol=1e-12)
    np.testing.assert_allclose(backend.to_numpy(found.sign), expected.sign)
    unit = sm.BlockCirculant(backend.asarray(c * np.exp(-expected.logabsdet / 300)[:, None, None, None]))
    np.testing.assert_allclose(backend.to_numpy(unit.det()), expected.sign, rtol=1e-9)


@in_one_test("dtype", ["float64", "complex128"])
@in_one_test("b", [1, 2, 3, 4])
def test_singular_blocks(backend: Backend, b: int, dtype: str) -> None:
    if backend.compiles and b != 3:
        pytest.skip("compiles for each size")
    c = np.ones((2, 2, b), dtype)
    found = sm.BlockCirculant(backend.asarray(c)).slogdet()
    assert complex(found.sign) == 0
    assert float(found.logabsdet) == -math.inf
    assert complex(sm.BlockCirculant(backend.asarray(c)).det()) == 0


def test_gradients_of_det_at_singular_matrices() -> None:
    torch = pytest.importorskip("torch")
    d = torch.tensor([0.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    sm.Diagonal(d).det().backward()
    np.testing.assert_array_equal(d.grad, [6.0, 0.0, 0.0])
    c = torch.ones(2, 2, 1, dtype=torch.float64, requires_grad=True)
    sm.BlockCirculant(c).det().backward()
    assert bool(torch.all(torch.isfinite(c.grad)))  # zero, as that of torch.linalg.det
    regular = torch.randn(2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda c: sm.BlockCirculant(c).det(), (regular,))
    assert torch.autograd.gradcheck(lambda c: sm.BlockCirculant(c).slogdet().logabsdet, (regular,))


def test_blocks_of_subnormal_numbers(backend: Backend) -> None:
    skip_flushed(backend)
    c = np.random.default_rng(0).standard_normal((2, 2, 3))
    found = sm.BlockCirculant(backend.asarray(c * 1e-309)).slogdet()
    expected = sm.BlockCirculant(c).slogdet()
    assert float(found.sign) == float(expected.sign)
    assert float(found.logabsdet) == pytest.approx(float(expected.logabsdet) + 6 * math.log(1e-309), rel=1e-10)


LARGE = 200_000
NEUTRAL = {"Identity", "Fourier", "CosineTransform, SineTransform"}
WITH_PINV = [entry for entry in REGISTRY if "pinv" in entry.closed_forms and entry.name not in NEUTRAL]


def well_conditioned(n: int) -> tuple[np.ndarray, np.ndarray]:
    """A half spectrum between 1 and 10, and its first column in single precision."""
    values = np.random.default_rng(n).uniform(1.0, 10.0, n // 2 + 1)
    return values, scipy.fft.irfft(values, n).astype("float32")


def test_a_large_well_conditioned_circulant_is_regular(backend: Backend) -> None:
    if backend.name == "array_api_strict":
        pytest.skip("computes as NumPy does")
    values, c = well_conditioned(LARGE)
    C, b = sm.Circulant(backend.asarray(c)), np.random.default_rng(0).standard_normal(LARGE).astype("float32")
    exact = scipy.fft.irfft(scipy.fft.rfft(b.astype("float64")) / values, LARGE)
    assert int(C.rank()) == LARGE
    for x in (C.solve(backend.asarray(b)), C.lstsq(backend.asarray(b)), C.prepare().solve(backend.asarray(b))):
        np.testing.assert_allclose(backend.to_numpy(x), exact, atol=1e-4)
    expected = scipy.fft.irfft(1 / values, LARGE)
    np.testing.assert_allclose(backend.to_numpy(C.pinv().c), expected, atol=1e-6)


def test_blocks_and_bidiagonals_of_large_size_are_regular() -> None:
    _, c = well_conditioned(LARGE)
    grid = sm.BlockCirculant(c[None, None])
    assert int(grid.rank()) == LARGE
    np.testing.assert_allclose(grid.solve(c)[:3], sm.Circulant(c).solve(c)[:3], atol=1e-4)
    difference = sm.BandedCirculant(np.array([1.0, -1.0], "float32"), 100_000)
    assert int(difference.rank()) == 99_999
    shifted = difference + np.float32(1e-3) * sm.Identity(100_000)
    assert int(shifted.rank()) == 100_000


def test_a_small_entry_of_a_diagonal_is_no_rounding_error_of_zero() -> None:
    """Unlike a small eigenvalue of a circulant, which the transform may have made of a zero."""
    d = np.array([1.0, 1e-30])
    D: Any = sm.Diagonal(d)
    np.testing.assert_array_equal(D.inv().d, 1 / d)
    for op in (D, D.prepare()):
        np.testing.assert_allclose(op.solve(np.ones(2)), 1 / d, rtol=1e-15)
    with pytest.raises(np.linalg.LinAlgError, match=r"Diagonal\.inv"):
        sm.Diagonal(np.array([1.0, 0.0])).inv()


def test_a_root_of_a_clearly_negative_eigenvalue_is_complex() -> None:
    values, _ = well_conditioned(LARGE)
    values[0] = -1.0
    C = sm.Circulant(scipy.fft.irfft(values, LARGE).astype("float32"))
    root = C.sqrtm()
    assert root.dtype == "complex64"
    np.testing.assert_allclose(root.eigvals()[0], 1j, atol=1e-4)


@pytest.mark.parametrize("n", [1, 2, 3, 64, 97, 1000, 10_007, 65_536, 100_003])
@in_one_test("dtype", ["float32", "float64"])
def test_zeros_of_the_spectrum_are_found_behind_their_rounding(backend: Backend, n: int, dtype: str) -> None:
    """The entries are rounded, transformed back, and rounded again, as in any computed matrix."""
    if backend.compiles and n not in {97, 100_003}:
        pytest.skip("compiles too much")
    values = np.random.default_rng(n).uniform(0.1, 10.0, n // 2 + 1)
    values[1::3] = 0.0
    c = scipy.fft.irfft(values, n).astype(dtype)
    C = sm.Circulant(backend.asarray(c))
    full = np.concatenate([values, values[1 : (n + 1) // 2]])
    assert int(C.rank()) == np.count_nonzero(full)
    inverse = np.where(values > 0, 1 / np.where(values > 0, values, 1), 0)
    tolerance = 1e-3 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(backend.to_numpy(C.pinv().c), scipy.fft.irfft(inverse, n), atol=tolerance)
    if backend.name in {"numpy", "array_api_strict"} and n > 2:
        with pytest.raises(np.linalg.LinAlgError, match="singular"):
            C.inv()


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["float32", "float64", "complex64", "complex128"]))
def test_rank_of_blocks_is_that_of_their_dense_matrix(seed: int, dtype: str) -> None:
    v = Vectors(seed, dtype)
    p, q, r, b = (v.integer(1, 5) for _ in range(4))
    product = sm.BlockCirculant(v(p, r, b)) @ sm.BlockCirculant(v(r, q, b))
    assert int(product.rank()) == b * min(p, q, r)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # as NumPy does
@pytest.mark.filterwarnings("ignore:.*the solution is NaN:scipy.linalg.LinAlgWarning")
@on_libraries(WITH_PINV, compiled=["Circulant"])
def test_nan_is_not_hidden(backend: Backend, entry: Entry) -> None:
    samples = (entry.draw(Vectors(seed, "float64")) for seed in range(5, 50))
    sample = next(sample for sample in samples if sample.make(np.array).dtype is not None)

    def spoilt(values: np.ndarray) -> Any:
        values = np.array(values)
        values[(0,) * values.ndim] = np.nan
        return backend.asarray(values)

    op = sample.make(spoilt)
    b = backend.asarray(np.ones(op.shape[0]))
    for result in (lambda: op.pinv().to_dense(), lambda: op.lstsq(b), op.cond, lambda: op.norm(2)):
        try:
            value = result()
            found = value if isinstance(value, np.ndarray | np.generic) else backend.to_numpy(value)
        except (np.linalg.LinAlgError, RuntimeError) as error:  # a singular value decomposition refuses NaN
            assert "svd" in str(error).lower()  # noqa: PT017
        else:
            assert np.any(np.isnan(found))
    if backend.name in {"numpy", "array_api_strict"}:
        with pytest.raises(np.linalg.LinAlgError):
            op.rank()
    elif "Block" not in entry.name:
        assert int(op.rank()) == -1


def test_infinities_leave_the_cut_off_alone(backend: Backend) -> None:
    D = sm.Diagonal(backend.asarray(np.array([[np.inf, 2.0, 0.0], [1.0, 2.0, 1e-20]])))
    np.testing.assert_array_equal(backend.to_numpy(D.pinv().d), [[0, 0.5, 0], [1, 0.5, 0]])
    np.testing.assert_array_equal(backend.to_numpy(D.rank()), [2, 2])
    np.testing.assert_array_equal(backend.to_numpy(D.cond())[0], np.inf)
    if backend.name in {"numpy", "array_api_strict"}:
        with pytest.raises(np.linalg.LinAlgError, match="singular"):
            sm.Diagonal(backend.asarray(np.array([np.inf, 0.0]))).inv()
        with pytest.raises(np.linalg.LinAlgError, match="singular"):
            sm.Diagonal(backend.asarray(np.array([np.nan, 0.0]))).solve(backend.asarray(np.ones(2)))


@in_one_test("rtol", [-1e-3, float("nan"), float("inf")])
@in_one_test("op", [sm.Diagonal([1.0, 0.0]), sm.Circulant([1.0, 2.0]).prepare(), 2 * sm.Identity(2)])
def test_cut_offs_are_finite_and_not_negative(op: sm.LinearOperator, rtol: float) -> None:
    name = type(op).__name__
    for method in (op.pinv, op.rank, lambda **given: op.lstsq(np.ones(2), **given)):
        with pytest.raises(ValueError, match=rf"{name}\.\w+: rtol must be finite and not negative"):
            method(rtol=rtol)


def test_the_determinant_of_a_block_circulant_matrix_and_its_error_take_one_transform(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []
    spectrum = sm.BlockCirculant._spectrum
    monkeypatch.setattr(
        sm.BlockCirculant, "_spectrum", lambda op, xp, real: made.append(real) or spectrum(op, xp, real=real)
    )
    sm.slogdet(sm.BlockCirculant(np.random.default_rng(0).standard_normal((2, 2, 4))))
    assert len(made) == 1


@pytest.mark.parametrize(("shape", "b"), [((7, 5), 3), ((6, 9), 3), ((5, 8), 4)])
def test_the_nearest_block_circulant_matrix_is_its_own_nearest_one(shape: tuple[int, int], b: int) -> None:
    A = np.random.default_rng(0).standard_normal(shape)
    there = sm.BlockCirculant.nearest(A, b).to_dense()
    np.testing.assert_allclose(sm.BlockCirculant.nearest(there, b).to_dense(), there, atol=1e-14)
    assert abs(np.sum((A - there) * there)) < 1e-12  # as what is left is orthogonal to all of them
