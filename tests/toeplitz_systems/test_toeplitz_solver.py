"""Inverses, solutions and determinants of Toeplitz and Hankel matrices, by each algorithm, and their derivatives."""

from __future__ import annotations

import math
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from hypothesis import example, given, settings
from hypothesis import strategies as st

import structmat as sm
from structmat._arrays.namespaces import numpy_namespace
from structmat._toeplitz_systems import ToeplitzSystem, thresholds
from structmat._toeplitz_systems import levinson as levinson_module
from structmat._toeplitz_systems.levinson import levinson, solve_by_recursion
from structmat._toeplitz_systems.recursion_by_blocks import vectors_by_blocks
from structmat._toeplitz_systems.refinement import corrected_by_itself, refined_while_it_helps
from structmat._toeplitz_systems.small import SmallSystems
from structmat._toeplitz_systems.strang_preconditioner import central_diagonals
from structmat.testing._drawing import Vectors
from tests import backends
from tests.cases import in_one_test

KINDS = ("real", "complex", "symmetric", "Hermitian", "singular sections", "complex symmetric")


def vectors(n: int, kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """First column and first row."""
    rng = np.random.default_rng(seed)
    c, r = rng.standard_normal((2, n)) + (
        1j * rng.standard_normal((2, n)) if "complex" in kind or kind == "Hermitian" else 0
    )
    if kind in {"symmetric", "Hermitian"}:
        c[0], r = c[0].real, c.conj()
    if kind == "complex symmetric":
        r = c.copy()
    if kind == "singular sections":
        c[0] = 0
    r[0] = c[0]
    return c, r


def check_vectors(c: np.ndarray, r: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    T = scipy.linalg.toeplitz(c, r)
    first = np.eye(len(c))[0]
    assert np.max(np.abs(T @ x - first)) <= 1e-11 * np.linalg.cond(T)
    assert np.max(np.abs((T @ y)[1:] - r[:0:-1]), initial=0) <= 1e-11 * np.linalg.cond(T) * np.max(np.abs(r))
    dense = sm.ToeplitzInverse(x, y).to_dense()
    inverse = np.linalg.inv(T)
    assert np.max(np.abs(dense - inverse)) <= 1e-11 * np.linalg.cond(T) * np.max(np.abs(inverse))


@pytest.mark.parametrize("kind", KINDS[:4])
@in_one_test("n", [1, 2, 3, 30])
def test_levinsons_recursion_solves_matrices_with_regular_sections(kind: str, n: int) -> None:
    c, r = vectors(n, kind)
    c[0] = r[0] = 2 * n
    x, y, sign, log, _ = levinson(c, r)
    check_vectors(c, r, x, y)
    np.testing.assert_allclose((sign, log), np.linalg.slogdet(scipy.linalg.toeplitz(c, r)), atol=1e-12)


def test_levinsons_recursion_stops_at_a_singular_section() -> None:
    x, _, sign, *_ = levinson(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    assert np.all(np.isnan(x))
    assert sign == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [40, 100, 301])
def test_the_recursion_by_blocks_finds_the_vectors_of_inverses(
    kind: str, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the first sections are singular, and with corrections on the way."""
    monkeypatch.setattr(thresholds, "CORRECTED_FROM", 100)
    c, r = vectors(n, kind, seed=n)
    check_vectors(c, r, *vectors_by_blocks(np.append(r[:0:-1], c)))


def test_the_recursion_by_blocks_has_nan_where_a_section_is_singular() -> None:
    assert np.all(np.isnan(vectors_by_blocks(np.eye(1, 2 * 200 - 1)[0])))  # but for a corner, no diagonal


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_compiled_recursion_is_that_of_scipy(dtype: str) -> None:
    (c, r), b = Vectors(0, dtype)(2, 9), Vectors(1, dtype)(2, 9)
    r[0] = c[0]
    expected = scipy.linalg.solve_toeplitz((c, r), b.T).T
    np.testing.assert_array_equal(solve_by_recursion(np.append(r[:0:-1], c), b), expected)
    assert np.all(np.isnan(solve_by_recursion(np.zeros(17), b.real)))


def test_the_compiled_recursion_is_where_it_was_in_scipy() -> None:
    """Where it has moved, each system pays for SciPy's checks, which take longer than 64 rows: import it from there."""
    from scipy.linalg import _solve_toeplitz

    assert callable(_solve_toeplitz.levinson)


def test_without_the_compiled_recursion_that_of_scipy_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    (c, r), b = Vectors(0, "complex128")(2, 9), Vectors(1, "complex128")(2, 9)
    constants = np.append(r[:0:-1], np.append(r[:1], c[1:]))
    expected = solve_by_recursion(constants, b)
    monkeypatch.setitem(sys.modules, "scipy.linalg._solve_toeplitz", None)
    monkeypatch.setattr(levinson_module, "_compiled_recursion", levinson_module._compiled_recursion.__wrapped__)
    np.testing.assert_array_equal(solve_by_recursion(constants, b), expected)
    np.testing.assert_array_equal(solve_by_recursion(constants, b[0]), expected[0])
    assert np.all(np.isnan(solve_by_recursion(np.zeros(17), b.real)))


KERNELS = {
    "Gaussian": lambda k, _: np.exp(-((k / 50.0) ** 2)) + 1e-8 * (k == 0),
    "Markov": lambda k, _: 0.99**k,
    "random, symmetric": lambda k, rng: rng.standard_normal(len(k)),
    "random": lambda k, rng: rng.standard_normal((2, len(k))),
}


@pytest.mark.parametrize("n", [17, 64, 65, 200, 600, 1100, 2100])
@in_one_test("kernel", KERNELS)
def test_solutions_by_every_way_are_as_accurate_as_those_of_lapack(kernel: str, n: int) -> None:
    """By elimination, recursions, blocks, iteration and the inverse; 1e-13 beside LAPACK's own error."""
    rng = np.random.default_rng(n)
    c, r = np.broadcast_to(KERNELS[kernel](np.arange(n), rng), (2, n))
    r = np.append(c[:1], r[1:])
    x = rng.standard_normal(n)
    dense = scipy.linalg.toeplitz(c, r)
    b = dense @ x
    scale = np.linalg.norm(x) * (1e-13 * np.linalg.cond(dense) if n <= 200 else 1e-5 if kernel == "Gaussian" else 1e-10)
    for found in (sm.Toeplitz(c, r).solve(b), sm.Toeplitz(c, r).solve(np.stack([b] * 3, -1))[:, 1]):
        assert np.linalg.norm(found - x) <= scale


@pytest.mark.parametrize("n", [4, 30, 200, 1100])
def test_matrices_of_zeros_are_refused_without_other_warnings(n: int) -> None:
    upper = np.append(0.0, np.ones(n - 1))
    for T in (sm.Toeplitz(np.zeros(n)), sm.Toeplitz(np.zeros(n), upper)):
        with pytest.raises(np.linalg.LinAlgError, match="singular"):
            T.solve(np.ones(n))


def test_a_singular_matrix_has_determinant_zero_and_no_inverse() -> None:
    for T in (sm.Toeplitz(np.ones(4)), sm.Hankel(np.zeros(200)), sm.Toeplitz(np.zeros(200) + 0j)):
        assert T.slogdet().sign == 0
        assert T.det() == 0
        with pytest.raises(np.linalg.LinAlgError, match="singular"):
            T.inv()


@pytest.mark.parametrize("kind", ["real", "Hermitian"])
def test_iteration_solves_matrices_of_smooth_symbols_or_gives_up(kind: str) -> None:
    c, r = vectors(500, kind)
    b = np.random.default_rng(0).standard_normal((2, 500)).astype(c.dtype)
    assert np.all(np.isnan(ToeplitzSystem(c, r)._solve_by_iteration(b)))
    decay = 1 / (1 + np.arange(500.0)) ** 2
    c, r = c * decay, r * decay
    c[0] = r[0] = 5
    system = ToeplitzSystem(c, r)
    x = system._solve_by_iteration(b) * 2.0**-system.exponent
    assert np.max(np.abs(x @ scipy.linalg.toeplitz(c, r).T - b)) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
@in_one_test("n", [100, 129, 300])
def test_solve_and_determinant_of_larger_matrices(kind: str, n: int) -> None:
    c, r = vectors(n, kind, seed=n)
    b = np.random.default_rng(1).standard_normal((3, n))
    for op, dense in (
        (sm.Toeplitz(c, r), scipy.linalg.toeplitz(c, r)),
        (sm.Hankel(c, np.append(c[-1:], r[1:])), scipy.linalg.hankel(c, np.append(c[-1:], r[1:]))),
    ):
        x = op.inv_matvec(b)
        residual = np.abs(dense @ x.T - b.T)
        assert np.max(residual) <= 1e-13 * np.linalg.norm(dense, np.inf) * np.max(np.abs(x))
        np.testing.assert_allclose(op.prepare().inv_matvec(b), x, rtol=1e-9, atol=1e-9 * np.max(np.abs(x)))
        np.testing.assert_allclose(op.inv() @ b.T, x.T, atol=1e-10 * np.linalg.cond(dense) * np.max(np.abs(x)))
        np.testing.assert_allclose(op.slogdet(), np.linalg.slogdet(dense), atol=1e-14 * n, rtol=1e-14)


@pytest.mark.parametrize("left", ["float32", "float64", "complex64", "complex128"])
@in_one_test("right", ["float32", "complex128"])
@in_one_test("kind", [sm.Toeplitz, sm.Hankel])
def test_small_systems_of_mixed_dtypes_are_solved_as_dense_ones(kind: Any, left: str, right: str) -> None:
    (c, r), b = Vectors(0, left)(2, 9), Vectors(1, right)(2, 3, 9)
    op = kind(c, r)
    x = op.inv_matvec(b)
    assert x.dtype == np.result_type(left, right)
    expected = np.linalg.solve(op.to_dense().astype("complex128"), b[..., None])[..., 0]
    np.testing.assert_allclose(x, expected, atol=1e-4 if x.dtype.itemsize < 16 and x.dtype != "float64" else 1e-12)
    assert op.inv_matvec(b[:0]).shape == (0, 3, 9)


@pytest.mark.parametrize("seed", [0, 2])
def test_solutions_are_refined_as_long_as_that_helps(seed: int) -> None:
    """Of leading sections that are singular; without refinement the error is 7 of these units, with it 0.16."""
    rng = np.random.default_rng(seed)
    c, r = rng.standard_normal((2, 1100))
    c[:3] = r[:3] = 0
    b = rng.standard_normal((1100, 3))
    x = sm.Toeplitz(c, r).solve(b)
    dense = scipy.linalg.toeplitz(c, r)
    errors = np.max(np.abs(b - dense @ x), axis=0) / np.max(np.abs(x), axis=0) / np.max(np.sum(np.abs(dense), axis=1))
    assert np.max(errors) <= np.finfo(float).eps


def test_an_ill_conditioned_matrix_is_solved_with_a_warning() -> None:
    gaussian = np.exp(-0.02 * np.arange(60.0) ** 2)
    T = sm.Toeplitz(gaussian)
    with pytest.warns(scipy.linalg.LinAlgWarning, match=r"Toeplitz\.solve: the matrix is ill-conditioned") as seen:
        T.solve(np.ones(60))
    assert [warning.filename for warning in seen] == [__file__]  # of the caller
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (T + 1e-6 * sm.Identity(60)).solve(np.ones(60))


@pytest.mark.parametrize("n", [17, 65, 100, 128, 129, 300, 1100])
@in_one_test("family", ["Gaussian kernel", "prolate"])
@in_one_test("kind", [sm.Toeplitz, sm.Hankel])
def test_smooth_solutions_do_not_hide_the_condition(kind: Any, family: str, n: int) -> None:
    """Their right-hand sides are so long that a small residual beside them tells nothing."""
    k = np.arange(n)
    c = np.exp(-0.5 * (k / (3.0 if n > 17 else 1e3)) ** 2) if family == "Gaussian kernel" else np.sinc(0.3 * k)
    T = kind(c[::-1], c) if kind is sm.Hankel else kind(c)
    dense, expected = T.to_dense(), np.cos(k / n)
    with pytest.warns(scipy.linalg.LinAlgWarning, match=r"\.solve: the matrix is ill-conditioned"):
        x = T.solve(dense @ expected)
    error_of_lapack = np.max(np.abs(np.linalg.solve(dense, dense @ expected) - expected))
    assert np.max(np.abs(x - expected)) <= 100 * error_of_lapack


def test_large_matrices_that_are_singular_but_for_rounding_come_with_a_warning() -> None:
    n = 5000
    T = sm.Toeplitz(np.exp(-0.5 * (np.arange(n) / 3.0) ** 2))
    with pytest.warns(scipy.linalg.LinAlgWarning, match=r"Toeplitz\.solve: the matrix is ill-conditioned"):
        T.solve(T @ np.ones(n))


@in_one_test("kernel", ["exponential", "Matern", "Gaussian", "nugget", "noise", "complex"])
def test_regular_kernels_come_without_a_warning(kernel: str) -> None:
    """Of conditions up to 1e14."""
    n = 200
    k = np.arange(n)
    c = {
        "exponential": 0.999**k,
        "Matern": (1 + k / 20) * np.exp(-k / 20),
        "Gaussian": np.exp(-0.5 * (k / 2) ** 2),
        "nugget": np.exp(-0.5 * (k / 50) ** 2) + 2e-12 * (k == 0),
        "noise": np.cos(k / 3) + 1e-10 * (k == 0),
        "complex": np.exp(1j * k - 0.5 * (k / 2) ** 2),
    }[kernel]
    T = sm.Toeplitz(c)
    assert np.linalg.cond(T.to_dense()) < 1e14
    for b in (np.ones(n), np.random.default_rng(0).standard_normal((n, 5))):
        T.solve(b)  # any warning is an error


@in_one_test("n", [2, 30, 129, 300])
@in_one_test("corner", [0.5, 100.0])
def test_determinants_of_hermitian_matrices_have_signs_without_rounding_errors(n: int, corner: float) -> None:
    """Those of stacks and of matrices that libraries eliminate themselves too, and of blocks."""
    torch = pytest.importorskip("torch")
    c, _ = vectors(n, "Hermitian", seed=1)
    c[0] = corner
    dense = scipy.linalg.toeplitz(c)
    expected = np.sign(np.linalg.slogdet(dense).sign.real)
    found = [op.slogdet().sign for op in (sm.Toeplitz(c), sm.Toeplitz(np.stack([c, c])), sm.Toeplitz(torch.tensor(c)))]
    blocks = sm.BlockToeplitz(c[:, None, None] * np.eye(2))
    assert all(np.all(np.asarray(sign) == expected) for sign in found), found
    assert blocks.slogdet().sign == 1
    assert sm.Toeplitz(c[:30]).det().imag == 0


@pytest.mark.parametrize("n", [150, 500])
def test_determinants_of_ill_conditioned_covariances_are_those_of_cholesky(n: int) -> None:
    c = np.exp(-((np.arange(n) / 20.0) ** 2))
    c[0] += 1e-12
    expected = 2 * np.sum(np.log(np.diag(np.linalg.cholesky(scipy.linalg.toeplitz(c)))))
    found = sm.Toeplitz(c).slogdet()
    assert found.sign == 1
    assert found.logabsdet == pytest.approx(expected, abs=0.05)


BANDS = {"one-sided": ([1.0], [1.0, 1e4]), "uneven": ([1.0, 1e-8], [1.0, 1e8]), "singular": ([1.0, 1 + 3e-16],) * 2}
"""First columns and rows of bands of condition above 1 / eps."""


@pytest.mark.filterwarnings("ignore:Toeplitz.solve. the solution is NaN")  # of the one that overflows, too
@pytest.mark.parametrize("band", BANDS)
def test_ill_conditioned_bands_come_with_a_warning(band: str) -> None:
    T = sm.Toeplitz(*(np.append(v, np.zeros(152 - len(v))) for v in BANDS[band]))
    with pytest.warns(scipy.linalg.LinAlgWarning, match="is ill-conditioned"):
        T.solve(np.ones(152))
    if band == "singular":
        with pytest.warns(scipy.linalg.LinAlgWarning, match="is ill-conditioned"):
            T.slogdet()


@in_one_test("n", [65, 130])
@in_one_test(
    "below, above",
    [([3.0, -1], [-1.0]), ([0.5, -1], [-1.0]), ([3, 1j], [-1j]), ([0.1, 2], [-3.0]), ([2.0, 1], []), ([2], [1.0, 1])],
)
def test_narrow_bands_are_solved_as_dense_matrices(n: int, below: list[complex], above: list[complex]) -> None:
    """Tridiagonal ones too, which LAPACK treats in two other ways."""
    c, r = (np.append(v, np.zeros(n - len(v))) for v in (below, below[:1] + above))
    T, dense = sm.Toeplitz(c, r), scipy.linalg.toeplitz(c, r)
    b = np.random.default_rng(0).standard_normal((n, 2))
    expected = np.linalg.solve(dense, b)
    tolerance = 1e-15 * np.linalg.cond(dense)
    np.testing.assert_allclose(T.solve(b), expected, atol=tolerance * np.max(np.abs(expected)))
    np.testing.assert_allclose(T.solve(b[:, 0]), expected[:, 0], atol=tolerance * np.max(np.abs(expected)))
    np.testing.assert_allclose(T.slogdet(), np.linalg.slogdet(dense), atol=1e-14 * n)


def test_large_bands_have_an_inverse() -> None:
    """Also one that is singular to working precision, with a warning."""
    T, b = sm.Toeplitz(np.r_[6.0, -4, 1, np.zeros(19997)]), np.random.default_rng(0).standard_normal(20000)
    with pytest.warns(scipy.linalg.LinAlgWarning, match="is ill-conditioned"):
        inverse, x = T.inv(), T.solve(b)
    assert np.linalg.norm(inverse @ b - x) < 0.01 * np.linalg.norm(x)


def decaying(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    c, r = rng.standard_normal((2, n)) / (1 + np.arange(n)) ** 2
    c[0] = r[0] = 3
    return c, r


WAYS: dict[str, Any] = {
    "eliminated": lambda: sm.Toeplitz(*decaying(40, 0)),
    "a recursion": lambda: sm.Toeplitz(*decaying(200, 0)),
    "a recursion by blocks": lambda: sm.Toeplitz(*vectors(1100, "real")),
    "iteration": lambda: sm.Toeplitz(*decaying(2100, 0)),
    "a band": lambda: sm.Toeplitz(np.r_[3.0, 1, np.zeros(98)], np.r_[3.0, -1, 2, np.zeros(97)]),
    "a triangle": lambda: sm.Toeplitz(decaying(300, 0)[0], np.r_[3.0, np.zeros(299)]),
    "complex": lambda: sm.Toeplitz(*vectors(300, "complex")),
    "a Hankel matrix": lambda: sm.Hankel(vectors(150, "real")[0], vectors(150, "real")[0][::-1]),
    "a stack": lambda: sm.Toeplitz(*np.swapaxes([decaying(20, seed) for seed in range(3)], 0, 1)),
    "blocks": lambda: sm.BlockToeplitz(decaying(30, 0)[0][:, None, None] * np.array([[2.0, 1], [0, 3]])),
    "a recursion of blocks": lambda: sm.BlockToeplitz(decaying(90, 0)[0][:, None, None] * np.array([[2.0, 1], [0, 3]])),
}
"""One matrix for each way in which Toeplitz systems are solved."""


def times_power(v: np.ndarray, exponent: int) -> np.ndarray:
    return np.ldexp(np.ascontiguousarray(v).view(float), exponent).view(v.dtype)


@in_one_test("way", WAYS)
def test_solutions_for_zeros_are_zeros(way: str) -> None:
    T = WAYS[way]()
    n = T.shape[0]
    assert not np.any(T.inv_matvec(np.zeros(n)))
    b = np.zeros((3, *T.batch_shape, n))
    b[1] = 1
    x = T.inv_matvec(b)
    assert not np.any(x[::2])
    np.testing.assert_allclose(x[1], T.inv_matvec(b[1]), atol=1e-9 * np.max(np.abs(x)))


@pytest.mark.parametrize("exponent", [-900, 900])
@pytest.mark.parametrize("way", WAYS)
def test_powers_of_two_of_extreme_size_change_no_digit(way: str, exponent: int) -> None:
    """Of the matrix, of right-hand sides, and of both."""
    T = WAYS[way]()
    n = T.shape[0]
    scaled = type(T)(times_power(T.c, exponent), times_power(T.r, exponent))
    for shape in ((n,), (5, *T.batch_shape, n)):
        b = np.random.default_rng(0).standard_normal(shape)
        x = T.inv_matvec(b)
        np.testing.assert_array_equal(scaled.inv_matvec(times_power(b, exponent)), x)
        np.testing.assert_array_equal(scaled.inv_matvec(b), times_power(x, -exponent))
        np.testing.assert_array_equal(T.inv_matvec(times_power(b, exponent)), times_power(x, exponent))
    sign, log = T.slogdet()
    np.testing.assert_array_equal(scaled.slogdet().sign, sign)
    np.testing.assert_allclose(scaled.slogdet().logabsdet, log + n * exponent * np.log(2), rtol=1e-14)
    b = np.random.default_rng(0).standard_normal(n)
    product = T.inv().matvec(b)
    np.testing.assert_array_equal(scaled.inv().matvec(b), times_power(product, -exponent))


@settings(max_examples=20)
@given(
    kind=st.sampled_from(KINDS[:4] + KINDS[5:]),
    n=st.integers(129, 300),
    exponent=st.floats(-10, 0),
    decay=st.sampled_from([1.0, 0.99, 0.9]),
    seed=st.integers(0, 999),
)
def test_determinants_of_matrices_with_ill_conditioned_sections_are_those_of_lapack(
    kind: str, n: int, exponent: float, decay: float, seed: int
) -> None:
    """A small corner makes the first leading section as ill-conditioned as it is small, the matrix is not so."""
    c, r = (v * decay ** np.arange(n) / n**0.5 for v in vectors(n, kind, seed))
    c[0] = r[0] = 10.0**exponent
    dense = scipy.linalg.toeplitz(c, r)
    expected, found = np.linalg.slogdet(dense), sm.Toeplitz(c, r).slogdet()
    condition = np.linalg.cond(dense)
    assert abs(found.logabsdet - expected.logabsdet) <= 1e-15 * n * (100 + condition)
    assert abs(found.sign - expected.sign) <= 1e-15 * n * (100 + condition)


def _write_out_at_most(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LARGEST", "LAST_RESORT"):
        monkeypatch.setattr(f"structmat._toeplitz_systems.thresholds.{name}", n)


def test_large_determinants_that_may_be_off_come_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    _write_out_at_most(100, monkeypatch)
    outcomes = []
    for seed in range(10):
        c, r = vectors(257, "real", seed)
        c[0] = r[0] = 1e-7  # about half of them are refused then, by the rounding of every processor
        exact = np.linalg.slogdet(scipy.linalg.toeplitz(c, r)).logabsdet
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            try:
                error = abs(sm.Toeplitz(c, r).slogdet().logabsdet - exact)
            except np.linalg.LinAlgError as refusal:
                outcomes.append(str(refusal))
                continue
        outcomes += [str(warning.message) for warning in seen] or ["no warning"]
        allowed = float(outcomes[-1].split("about ")[1].split(",")[0]) if seen else 1e-9
        assert error <= 10 * allowed
    warned = [text for text in outcomes if text.startswith("Toeplitz.slogdet: the logarithm may be off by about")]
    assert len(warned) >= 2
    assert any("too ill-conditioned" in text for text in outcomes)


def test_triangular_matrices_have_the_determinant_of_their_diagonal() -> None:
    for below in ([1.0, 2.0], [0.1, 1.0, 1.0, 1.0], [-2.0, 7.0]):
        c, r = np.zeros((2, 999))
        c[: len(below)], r[0] = below, below[0]
        for T in (sm.Toeplitz(c, r), sm.Toeplitz(c, r).T):
            assert T.slogdet() == (np.sign(r[0]), pytest.approx(999 * np.log(abs(r[0]))))


def test_determinants_of_numerically_singular_matrices_come_with_a_warning() -> None:
    with pytest.warns(scipy.linalg.LinAlgWarning, match=r"Toeplitz\.slogdet: the matrix is ill-conditioned") as seen:
        sm.Toeplitz(np.exp(-((np.arange(300) / 20.0) ** 2))).slogdet()
    assert [warning.filename for warning in seen] == [__file__]


@in_one_test("n, count", [(60, 3), (512, 1), (512, 3)])
@in_one_test("family", ["Gaussian kernel", "prolate"])
@in_one_test("kind", [sm.Toeplitz, sm.Hankel])
def test_numerically_singular_systems_have_small_residuals(family: str, n: int, count: int, kind: Any) -> None:
    k = np.arange(n)
    wave = np.sin(0.5 * np.pi * k) / np.pi / np.maximum(k, 1)
    c = np.exp(-(k**2) / 32.0) if family == "Gaussian kernel" else np.where(k == 0, 0.5, wave)
    op = sm.Toeplitz(c) if kind is sm.Toeplitz else sm.Hankel(c[::-1].copy(), c)
    dense = op.to_dense()
    b = np.random.default_rng(0).standard_normal((count, n)) @ dense.T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # right-hand sides that show it are warned of
        x, again = op.inv_matvec(b), op.prepare().inv_matvec(b)
    assert np.linalg.norm(x @ dense.T - b) <= 1e-8 * np.linalg.norm(b)
    np.testing.assert_array_equal(again, x)
    with pytest.warns(scipy.linalg.LinAlgWarning, match="ill-conditioned"):
        op.solve(np.random.default_rng(0).standard_normal(n))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("kind", [sm.Toeplitz, sm.Hankel])
def test_singular_systems_beyond_dense_matrices(monkeypatch: pytest.MonkeyPatch, dtype: str, kind: Any) -> None:
    """An error, whatever the rounding of the machine; numbers of single precision make a regular matrix of it."""
    _write_out_at_most(100, monkeypatch)
    c = np.exp(-(np.arange(300) ** 2) / 32.0).astype(dtype)
    op = kind(c) if kind is sm.Toeplitz else kind(c[::-1].copy(), c)
    b = op.matvec(np.random.default_rng(0).standard_normal((3, 300)).astype(dtype))
    if dtype in {"float64", "complex128"}:
        with pytest.raises(np.linalg.LinAlgError, match=r"ill-conditioned; a relative residual of .* is left"):
            op.inv_matvec(b)
        return
    with pytest.warns(scipy.linalg.LinAlgWarning, match="ill-conditioned"):  # for numbers of single precision
        x = op.inv_matvec(b)
    assert x.dtype == dtype
    assert np.linalg.norm(op.matvec(x) - b) <= 1e-4 * np.linalg.norm(b)


HARD = {
    "offset": lambda k, _, size: (size + 0.9**k, size + 0.7**k),
    "symmetric offset": lambda k, _, size: (size + 0.9**k,) * 2,
    "offset and nugget": lambda k, unit, size: (size + 0.9**k + 0.1 * unit,) * 2,
    "waves": lambda k, _, size: (size * np.cos(0.7 * k) + 0.5**k, size * np.cos(0.7 * k) + 0.3**k),
    "tridiagonal": lambda k, unit, size: (unit + (k == 1), unit + (1 + 1 / size) * (k == 1)),
    "biharmonic": lambda k, _, size: (np.select([k == 0, k == 1, k == 2], [6 + 1 / size, -4, 1], 0.0),) * 2,
    "Gaussian": lambda k, unit, size: (np.exp(-((k / 3.0) ** 2)) + unit / size,) * 2,
    "far": lambda k, unit, size: (unit + size * (k == k[-1]), unit + 0.3 * (k == 1) + size / 2 * (k == k[-1])),
    "Markov": lambda k, _, size: ((1 - 1 / size) ** k,) * 2,
}
"""First column and first row of a matrix whose condition number grows with the size."""


def exact_solution(T: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The solution to double precision: by residuals in extended precision, which NumPy has here."""
    factors, wide = scipy.linalg.lu_factor(T), T.astype(np.longdouble)
    x = scipy.linalg.lu_solve(factors, b).astype(np.longdouble)
    for _ in range(10):
        x += scipy.linalg.lu_solve(factors, (b - wide @ x).astype(float))
    return x


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="no extended precision on this machine")
@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("family", HARD)
@settings(max_examples=10)
@given(n=st.sampled_from([3, 5, 16, 50, 128, 129, 150, 200]), size=st.floats(1, 12), seed=st.integers(0, 99))
@example(n=16, size=3.0, seed=90)  # of "far": the vector that is tried loses an eighth of what others lose
def test_solutions_are_never_far_worse_than_those_of_lapack(
    family: str, dtype: str, library: str, n: int, size: float, seed: int
) -> None:
    """At most a thousand times the error of elimination; for products with the inverse, at least with a warning."""
    xp = pytest.importorskip(library)
    k = np.arange(n)
    c, r = (v.astype(dtype) for v in HARD[family](k, (k == 0).astype(float), 10**size))
    T, eps = scipy.linalg.toeplitz(c, r), np.finfo(dtype).eps
    if np.linalg.cond(T.astype(float)) * eps > 0.1:
        return
    rng = np.random.default_rng(seed)

    def error(x: Any, b: np.ndarray) -> float:
        expected = exact_solution(T.astype(float), b.astype(float))
        return float(np.linalg.norm(np.asarray(x) - expected) / np.linalg.norm(expected))

    some = [(T.astype(float) @ rng.standard_normal(n)).astype(dtype) for _ in range(4)]
    b = some[0]
    found = [np.linalg.solve(T, each) for each in some], np.linalg.solve(T, np.transpose(some)).T
    # One of them may be lucky.
    best = 1000 * max(
        eps / 2, *(error(x, each) for solutions in found for x, each in zip(solutions, some, strict=True))
    )
    op, right = sm.Toeplitz(xp.asarray(c), xp.asarray(r)), xp.asarray(b)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none is due
        assert error(op.solve(right), b) <= best
        assert error(op.prepare().solve(right), b) <= best
        assert error(op.solve(xp.stack([right] * 3, -1))[:, 1], b) <= best
        reverse = sm.Hankel(xp.asarray(T[:, -1].copy()), xp.asarray(T[-1, ::-1].copy()))
        assert error(xp.flip(reverse.solve(right), (0,)), b) <= best
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        x = op.inv() @ right
    assert seen or error(x, b) <= max(best, 1000 * error(np.linalg.inv(T) @ b, b))


@in_one_test("factor", [1.0, 1j, 1e300])
@in_one_test("n", [129, 100_000])
def test_second_differences_are_solved_to_the_last_digits(n: int, factor: complex) -> None:
    k, rounding = np.arange(1.0, n + 1), 100 * n * np.finfo(float).eps
    c = factor * np.select([k == 1, k == 2], [2, -1], 0.0)
    T = sm.Toeplitz(c, c)
    for x in (T.solve(np.ones(n)), T.prepare().solve(np.ones((n, 5)))[:, 4]):
        np.testing.assert_allclose(factor * x, k * (n + 1 - k) / 2, rtol=rounding)
    sign, log = T.slogdet()
    assert sign == pytest.approx((factor / abs(factor)) ** n, abs=1e-9)
    assert log == pytest.approx(np.log(n + 1) + n * np.log(abs(factor)), rel=1e-12, abs=rounding)


@in_one_test("exponent", [307, 0, -310])
@in_one_test("n", [5, 129, 200])
def test_systems_of_any_scale_are_solved(n: int, exponent: int) -> None:
    c = 0.5 ** np.arange(float(n))
    b = np.random.default_rng(0).standard_normal(n)
    expected = np.linalg.solve(scipy.linalg.toeplitz(c), b)
    scale = float(f"1e{exponent}")
    T, right = sm.Toeplitz(c * scale), b * scale
    tolerance = 1e-3 if exponent < -300 else 1e-12  # subnormal numbers have few digits
    for x in (T.solve(right), T.prepare().solve(right), sm.Hankel(c[::-1] * scale, c * scale).solve(right)[::-1]):
        np.testing.assert_allclose(x, expected, atol=tolerance)
    assert T.slogdet().logabsdet == pytest.approx(
        sm.Toeplitz(c).slogdet().logabsdet + n * np.log(10) * exponent, rel=1e-3
    )


@pytest.mark.parametrize("n", [5, 200, 1500])
def test_no_right_hand_side_and_zeros_are_solved(n: int) -> None:
    T = sm.Toeplitz(0.5 ** np.arange(float(n)))
    for op in (T, T.prepare(), sm.Hankel(T.c[::-1], T.c)):
        assert op.inv_matvec(np.zeros((3, 0, n))).shape == (3, 0, n)
        assert op.solve(np.zeros((n, 0))).shape == (n, 0)
        np.testing.assert_array_equal(op.solve(np.zeros((n, 2))), np.zeros((n, 2)))


@pytest.mark.filterwarnings("ignore:.*the solution is NaN")
@pytest.mark.parametrize("n", [5, 200])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_what_is_not_a_number_stays_so(library: str, n: int) -> None:
    """As in NumPy: a right-hand side spoils its own solution, a matrix all of them."""
    xp = pytest.importorskip(library)
    c, b = 0.5 ** np.arange(float(n)), np.ones((3, n))
    b[1, 2] = np.nan
    x = np.asarray(sm.Toeplitz(xp.asarray(c)).inv_matvec(xp.asarray(b)))
    np.testing.assert_array_equal(np.isnan(x), [[False] * n, [True] * n, [False] * n])
    c[1] = np.nan
    for T in (sm.Toeplitz(xp.asarray(c)), sm.Hankel(xp.asarray(c))):
        for value in (T.solve(xp.asarray(b[0])), T.inv().to_dense(), T.slogdet().logabsdet, T.det()):
            assert np.all(np.isnan(np.asarray(value)))


@backends.on("numpy", "torch", "jax")
@pytest.mark.parametrize("n", [30, 300])
def test_determinants_in_single_precision_are_those_in_double(n: int, backend: backends.Backend) -> None:
    """The logarithm is rounded once, also in products, multiples and blocks."""
    c = (0.3 ** np.arange(n)).astype("float32")
    T = sm.Toeplitz(backend.asarray(c))
    blocks = sm.BlockCirculant(backend.asarray(np.eye(n, dtype="float32")[..., None] * c[:, None, None] * [1, 0.5]))
    for op in (T, T @ T, 0.5 * (T @ T), T.prepare(), blocks):
        expected = np.linalg.slogdet(backend.to_numpy(op.to_dense()).astype(float))
        assert float(op.slogdet().logabsdet) == pytest.approx(expected[1], rel=1e-5, abs=1e-6)


def test_large_matrices_are_written_out_before_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those are for which no recursion is accurate."""
    monkeypatch.setattr("structmat._toeplitz_systems.thresholds.LARGEST", 100)
    T = sm.Toeplitz(*vectors(300, "singular sections"))
    dense, b = T.to_dense(), np.random.default_rng(0).standard_normal(300)
    np.testing.assert_allclose(T.slogdet(), np.linalg.slogdet(dense), rtol=1e-12)
    np.testing.assert_allclose(T.solve(b), np.linalg.solve(dense, b), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(T.inv().to_dense(), np.linalg.inv(dense), rtol=1e-9, atol=1e-12)
    T = covariance_of_little_noise(300)
    sign, log = np.linalg.slogdet(T.to_dense())
    found = sm.slogdet(T)
    for each in (T.slogdet(), found):
        assert each.sign == sign
        assert abs(each.logabsdet - log) <= 4 * found.standard_error


def covariance_of_little_noise(n: int) -> sm.Toeplitz:
    """Return a squared exponential of length 20 and an echo of it at three tenths of the series."""
    lag = np.arange(n, dtype=float)
    c = np.exp(-((lag / 20) ** 2) / 2) + 0.4 * np.exp(-(((lag - 3 * n // 10) / 20) ** 2) / 2)
    c[0] += 1e-12
    return sm.Toeplitz(c)


def test_determinants_above_the_size_that_is_written_out_at_once() -> None:
    """Recursions are refused there."""
    T = covariance_of_little_noise(4500)
    found = sm.slogdet(T)
    assert abs(found.logabsdet - np.linalg.slogdet(T.to_dense()).logabsdet) <= 4 * found.standard_error


def test_large_matrices_without_an_answer_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    _write_out_at_most(100, monkeypatch)
    b = np.random.default_rng(0).standard_normal(300)
    for T in (sm.Toeplitz(*vectors(300, "singular sections")), sm.Toeplitz(np.ones(300))):
        with pytest.raises(np.linalg.LinAlgError, match=r"Toeplitz\.solve: the matrix is (singular|ill-conditioned)"):
            T.solve(b)
        for method in ("inv", "slogdet"):
            text = (
                rf"Toeplitz\.{method}: the matrix is too ill-conditioned, .* too large to be written out .*; use numpy"
            )
            with pytest.raises(np.linalg.LinAlgError, match=text):
                getattr(T, method)()


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("kind", ["Toeplitz", "Hankel"])
def test_gradients_and_second_gradients_in_torch(kind: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    c, r, b = (torch.randn(3, dtype=getattr(torch, dtype), generator=generator) for _ in range(3))
    (c if kind == "Toeplitz" else r)[0 if kind == "Toeplitz" else 1] += 4
    c, r, b = (v.requires_grad_() for v in (c, r, b))

    def make(c: Any, r: Any) -> Any:
        return getattr(sm, kind)(c, r)

    for function, inputs in (
        (lambda c, r, b: make(c, r).solve(b), (c, r, b)),
        (lambda c, r, b: make(c, r).inv().matvec(b), (c, r, b)),
        (lambda c, r: make(c, r).slogdet().logabsdet, (c, r)),
        (lambda c, r: make(c, r).det(), (c, r)),
    ):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


def test_torch_maps_solutions_and_determinants_over_matrices() -> None:
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    c, r, b = (torch.randn(3, 4, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(3))
    c = (c + torch.tensor([5.0, 0, 0, 0])).detach().requires_grad_()

    def solution(c: Any, r: Any, b: Any) -> Any:
        return sm.Toeplitz(c, r).inv_matvec(b)

    def total(c: Any, r: Any, b: Any) -> Any:
        return solution(c, r, b).sum() + sm.Toeplitz(c, r).slogdet().logabsdet.sum()

    torch.testing.assert_close(torch.func.vmap(solution)(c, r, b), solution(c, r, b))
    torch.testing.assert_close(
        torch.func.vmap(solution, (0, None, None))(c, r[0], b[0]), solution(c, r[0], b[0].expand(3, 4))
    )
    mapped = torch.func.vmap(torch.func.grad(total, (0, 1, 2)))(c, r, b)
    torch.testing.assert_close(mapped, torch.autograd.grad(total(c, r, b), (c, r, b)))
    alone = torch.autograd.grad(sum(total(*one) for one in zip(c, r, b, strict=True)), (c, r, b))
    torch.testing.assert_close(mapped, alone)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_derivatives_in_jax(dtype: str) -> None:
    jax = pytest.importorskip("jax")
    jnp = backends.get("jax").xp
    rng = np.random.default_rng(0)
    parts = rng.standard_normal((2, 3, 4)) if dtype == "complex128" else rng.standard_normal((1, 3, 4))
    c, r, b = jnp.asarray(parts[0] + (1j * parts[1] if dtype == "complex128" else 0)).at[0, 0].add(5)

    def dense(c: Any, r: Any, b: Any) -> Any:
        i = jnp.arange(4)
        T = jnp.concatenate([r[:0:-1], c])[i[:, None] - i + 3]
        return jnp.linalg.solve(T, b), jnp.linalg.slogdet(T)[1]

    def ours(c: Any, r: Any, b: Any) -> Any:
        return sm.Toeplitz(c, r).solve(b), sm.Toeplitz(c, r).slogdet().logabsdet

    def loss(function: Any) -> Any:
        def value(*v: Any) -> Any:
            x, log = function(*v)
            return jnp.sum(jnp.abs(x) ** 2) + log

        return value

    gradients = [jax.jit(jax.grad(loss(f), (0, 1, 2)))(c, r, b) for f in (ours, dense)]
    for got, expected in zip(*gradients, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-11)
    mapped = jax.jit(jax.vmap(lambda c: ours(c, r, b)[0]))(stack := jnp.stack([c, 2 * c]))
    np.testing.assert_allclose(mapped[1], dense(stack[1], r, b)[0], atol=1e-12)


def test_second_derivatives_in_jax() -> None:
    jax = pytest.importorskip("jax")
    jnp = backends.get("jax").xp
    c = jnp.asarray([5.0, 1.0, -0.5])

    def logdet(c: Any) -> Any:
        return sm.Toeplitz(c).slogdet().logabsdet

    def dense(c: Any) -> Any:
        i = jnp.arange(3)
        return jnp.linalg.slogdet(c[jnp.abs(i[:, None] - i)])[1]

    np.testing.assert_allclose(jax.jit(jax.hessian(logdet))(c), jax.hessian(dense)(c), atol=1e-12)


@pytest.mark.parametrize("kind", [sm.Toeplitz, sm.Hankel])
def test_the_sign_of_determinants_of_matrices_with_singular_sections(kind: Any) -> None:
    """Random ones, of which about half are negative."""
    found = []
    for seed in range(9, 20):
        c, r = np.random.default_rng(seed).standard_normal((2, 130))
        c[0] = r[0] = 0.0
        op = kind(c, r) if kind is sm.Toeplitz else kind(c, np.append(c[-1], r[1:]))
        found.append(int(op.slogdet().sign))
        assert found[-1] == np.linalg.slogdet(op.to_dense())[0]
    assert {*found} == {-1, 1}


@pytest.mark.parametrize("n", [12, 40, 100, 300, 700, 3000])
def test_the_condition_is_held_against_the_precision_of_the_numbers_that_were_given(n: int) -> None:
    c = np.exp(-0.5 * (np.arange(n) / 3) ** 2) + np.where(np.arange(n) == 0, 1e-10, 0)  # of condition 1e9 and more
    b = np.random.default_rng(0).standard_normal(n)
    with pytest.warns(scipy.linalg.LinAlgWarning, match=r"Toeplitz.solve: the matrix is ill-conditioned"):
        sm.Toeplitz(c.astype("float32")).solve(b.astype("float32"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sm.Toeplitz(c).solve(b)


@pytest.mark.parametrize("n", [300, 2100])  # by the recursion of few right-hand sides, and by the accepted solvers
def test_solutions_that_grow_beyond_single_precision_give_a_warning(n):
    """The system is solved in double precision; but the entries of the matrix have seven digits only."""
    spectrum = np.exp(2j * np.pi * np.random.default_rng(0).random(n // 2 + 1))
    spectrum[[0, -1]] = 1e-9, -1
    c = np.fft.irfft(spectrum, n=n).astype(np.float32)
    T = sm.Toeplitz(c, np.r_[c[:1], c[:0:-1]])
    with pytest.warns(scipy.linalg.LinAlgWarning, match=r"Toeplitz\.solve: the matrix is ill-conditioned \(about"):
        T.solve(np.ones(n, np.float32))


def test_refinement_makes_rough_solutions_exact():
    """A rough solver finds nine tenths of each solution, so that every step of refinement gains one digit."""
    n = 200
    rng = np.random.default_rng(0)
    c, b = 0.5 ** np.arange(n) * rng.standard_normal(n), rng.standard_normal((3, n))
    c[0] = 3.0
    dense = scipy.linalg.toeplitz(c)
    system = ToeplitzSystem(c, c)
    x, errors = system._solve_with_refinement(lambda rows: 0.9 * np.linalg.solve(dense, rows.T).T, b, 1e-12)
    assert np.all(errors <= thresholds.EXACT * np.finfo(float).eps * np.sqrt(n))
    np.testing.assert_allclose(x, np.linalg.solve(dense, b.T).T, rtol=0, atol=1e-14)


def test_refinement_keeps_what_it_does_not_make_better():
    """The first solution is exact, the second one gets worse, and the third one is refined; axes may be of columns."""
    exact = np.ones((3, 5))
    errors_of_steps = np.array([[0.0, 1.0, 1.0], [0.0, 0.9, 1e-3], [5.0, 5.0, 1e-9], [5.0, 5.0, 5.0]])
    for transposed in (False, True):
        steps = iter(errors_of_steps)

        def measured(x, steps=steps, transposed=transposed):
            errors = next(steps)[:, None]
            return np.ones_like(x), errors.T if transposed else errors

        x, residuals, errors = refined_while_it_helps(
            lambda residuals: residuals, measured, exact.T if transposed else exact, 1e-6, numpy_namespace
        )
        x = x.T if transposed else x
        np.testing.assert_array_equal(x, np.array([1.0, 1, 3])[:, None] * exact)
        np.testing.assert_array_equal(errors.ravel(), [0.0, 1.0, 1e-9])
        assert residuals.shape == (exact.T if transposed else exact).shape


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_solutions_of_stacks_are_refined_as_long_as_that_helps(library: str) -> None:
    """Elimination that finds nine tenths of each solution gains one digit by each step."""
    xp = numpy_namespace if library == "numpy" else pytest.importorskip("array_api_compat.torch")
    c, r = np.swapaxes([decaying(20, seed) for seed in range(3)], 0, 1)
    b = np.random.default_rng(0).standard_normal((3, 20, 2))
    systems = SmallSystems(*(xp.asarray(v) for v in (c, r)), xp, np.finfo(float).eps)
    rough = systems.elimination
    systems.elimination = rough._replace(solve=lambda b: 0.9 * rough.solve(b))
    expected = np.linalg.solve([scipy.linalg.toeplitz(*pair) for pair in zip(c, r, strict=True)], b)
    np.testing.assert_allclose(systems.solve(xp.asarray(b)), expected, atol=1e-14)


def test_corrections_end_where_they_are_small_or_do_not_converge() -> None:
    for sizes, count in (([1e-9], 1), ([1e-2, 1e-9], 2), ([1e-2, 1.0], 2), ([math.inf], 1), ([0.1, 0.1, 0.1], 3)):
        found, first, last = corrected_by_itself(lambda made, sizes=sizes: (made + 1, sizes[made]), 0)
        assert (found, first, last) == (count, sizes[0], sizes[-1])


def test_the_circulant_of_the_iteration_has_the_diagonals_next_to_the_main_one():
    for n, expected in ((4, [0.0, 1.0, 7.0, 13.0]), (5, [0.0, 1.0, 2.0, 13.0, 14.0])):
        lower, wrapped = np.arange(n, dtype=float), 10.0 + np.arange(n)  # diagonals below, and above by their distance
        np.testing.assert_array_equal(central_diagonals(lower, wrapped, numpy_namespace), expected)


def test_backward_errors_are_those_of_each_row():
    """Rows of 4e10 do not hide an error of 1e-6 in a row of 13, and refinement mends it."""
    n = 40
    c, r = np.r_[1.0, np.full(n - 1, 0.3)], np.r_[1.0, np.full(n - 1, 1e9)]
    c[1:] += 0.01 * np.cos(np.arange(1, n) ** 2)
    r[1:] += 1e8 * np.cos(np.arange(1, n) ** 2)
    system, dense = ToeplitzSystem(c, r), scipy.linalg.toeplitz(c, r)
    exact = np.ones(n)
    b = dense @ exact
    wrong = b.copy()
    wrong[-1] *= 1 + 1e-6
    assert system._residuals_and_errors(wrong[None], exact[None])[1] > 5e-7
    x = np.linalg.solve(dense, wrong)
    assert system._becomes_exact(x, b, lambda residual: np.linalg.solve(dense, residual), system._product_by_sums)
    assert abs(b - dense @ x)[-1] < 1e-12 * b[-1]


@pytest.mark.parametrize("change", [1e-4, 0.05])
def test_long_solution_is_refused_if_a_correction_changes_it_by_more_than_a_hundredth(change):
    """Its residual is at the level of rounding, as that of any solution of such a length."""
    system = ToeplitzSystem(np.array([1.0, 1 - 1e-8]), np.array([1.0, 1 - 1.1e-8]))
    b = np.array([[1.0, -1.0]])
    x = np.linalg.solve(scipy.linalg.toeplitz(system.c, system.r), b[0])[None] * (1 + 1e-9)
    error = float(system._residuals_and_errors(b, x)[1][0, 0])
    answers = iter([x])
    _, (found,) = system._solve_with_refinement(lambda _: next(answers, change * x), b, 1e-13)
    assert 0 < error < 1e-15
    assert (found > 10 * error) == (change > 0.01)
    quickly = system._becomes_exact(x[0].copy(), b[0], lambda residual: change * x[0], system._product_by_sums)
    assert quickly == (change < 0.01)


def test_corrections_are_bounded_by_the_least_eigenvalue():
    """The bound is at least what a solution is off by, and there is none where no least eigenvalue is known."""
    n = 150
    c = 0.9 ** np.arange(n)
    system = ToeplitzSystem(c, c)
    exact = np.random.default_rng(0).standard_normal(n)
    wrong = exact * (1 + 1e-6 * np.cos(np.arange(n)))
    errors = system._residuals_and_errors((scipy.linalg.toeplitz(c) @ exact)[None], wrong[None])[1][:, 0]
    assert abs(wrong - exact).max() <= system._largest_correction(errors)[0] * abs(wrong).max() < 1e-2
    assert np.isinf(ToeplitzSystem(c, c / 2 + np.eye(1, n)[0] / 2)._largest_correction(errors))


@settings(max_examples=60)
@given(st.integers(129, 400), st.integers(0, 2**32 - 1), st.integers(0, 5), st.floats(-16, 0))
def test_what_is_accepted_as_one_vector_is_accepted_among_rows(n, seed, kind, digits):
    """The two forms of the judge agree: the faster one accepts nothing that the other would not."""
    rng, t = np.random.default_rng(seed), np.arange(n)
    series = [0.9**t, np.exp(-((t / 5) ** 2)), np.cos(t / 3), 1 / (1.0 + t), rng.standard_normal(n), np.exp(-t / 30.0)]
    c, r = series[kind].copy(), series[kind if seed % 2 else seed % 6].copy()
    c[0] = r[0] = c[0] * (1 + 10**digits)
    system, b = ToeplitzSystem(c, r), rng.standard_normal(n)

    def solver(v):
        return solve_by_recursion(system.constants, v)

    with np.errstate(all="ignore"):
        x = solver(b)
        is_accepted = system._becomes_exact(x, b, solver, system._product_by_sums)
        _, errors = system._residuals_and_errors(b[None], x[None])
    if is_accepted:
        allowed = thresholds.ROUNDING * np.finfo(float).eps * math.sqrt(n)
        assert errors[0, 0] <= allowed
        _, refined = system._solve_with_refinement(solver, b[None], allowed)
        assert refined[0] <= allowed
