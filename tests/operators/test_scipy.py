"""SciPy beside structmat: its solvers on our operators, and its own test cases on what it calls otherwise."""

from __future__ import annotations

import warnings
from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.linalg as spla

import structmat as sm
from tests.cases import in_one_test

rng = np.random.default_rng(7)


def positive(n: int) -> Any:
    c = np.exp(-np.arange(n, dtype=float))
    return sm.Circulant((c + np.roll(c[::-1], 1)) / 2) + sm.Diagonal(1 + rng.random(n))


@in_one_test(
    "solver", ["cg", "cgs", "bicg", "bicgstab", "gmres", "lgmres", "gcrotmk", "minres", "qmr", "tfqmr", "lsqr", "lsmr"]
)
def test_solvers_take_operators_as_they_are(solver: str) -> None:
    A = sm.Toeplitz(0.5 ** np.arange(40.0))
    accuracy = {"lsqr": {"atol": 1e-13, "btol": 1e-13}, "lsmr": {"atol": 1e-13, "btol": 1e-13}}
    b = rng.standard_normal(40)
    for op in (A, A.prepare(), A + positive(40)):
        for given in (op, sm.scipy.as_linear_operator(op)):
            x, info = getattr(spla, solver)(given, b, **accuracy.get(solver, {"rtol": 1e-12}))[:2]
            assert solver in accuracy or info == 0
            np.testing.assert_allclose(op @ x, b, atol=1e-8)


def test_preconditioners_and_eigenvalues_of_operators_as_they_are() -> None:
    A, b = sm.Toeplitz(0.9 ** np.arange(60.0)), rng.standard_normal(60)
    x, info = spla.cg(A, b, rtol=1e-12, M=sm.preconditioners.chan(A).inv())
    assert info == 0
    np.testing.assert_allclose(A @ x, b, atol=1e-9)
    values = np.linalg.eigvalsh(A.to_dense())
    np.testing.assert_allclose(spla.eigsh(A, k=2, return_eigenvectors=False), values[-2:])
    np.testing.assert_allclose(np.sort(spla.eigs(A, k=2, return_eigenvectors=False).real), values[-2:])
    op, y = spla.aslinearoperator(A), A @ b
    for found, want in ((op @ b, y), (op.H @ b, y), (op.rmatvec(b), y), ((op @ op + 2 * op) @ b, A @ y + 2 * y)):
        np.testing.assert_allclose(found, want, atol=1e-10)


def test_svds_and_eigs_and_lsqr() -> None:
    A = sm.BlockCirculant(rng.standard_normal((2, 3, 10)), (18, 27)) @ sm.Diagonal(rng.standard_normal(27))
    op = sm.scipy.as_linear_operator(A)
    dense = A.to_dense()
    np.testing.assert_allclose(
        np.sort(spla.svds(op, k=3, return_singular_vectors=False))[::-1], np.linalg.svdvals(dense)[:3]
    )
    b = rng.standard_normal(18)
    np.testing.assert_allclose(spla.lsqr(op, b, atol=1e-14, btol=1e-14)[0], np.linalg.lstsq(dense, b)[0], atol=1e-8)
    square = positive(30) @ sm.Circulant(rng.standard_normal(30))
    top = spla.eigs(sm.scipy.as_linear_operator(square), k=1, return_eigenvectors=False)
    assert np.min(np.abs(np.linalg.eigvals(square.to_dense()) - top)) < 1e-8


def test_refusals() -> None:
    with pytest.raises(TypeError, match="must be a structmat operator, got ndarray"):
        sm.scipy.as_linear_operator(np.eye(3))
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="must hold NumPy arrays"):
        sm.scipy.as_linear_operator(sm.Diagonal(torch.ones(3)))
    with pytest.raises(ValueError, match=r"must be one matrix, got a stack of shape \(2,\)"):
        sm.scipy.as_linear_operator(sm.Diagonal(np.ones((2, 3))))


def test_columns_without_the_bridge_are_refused_by_its_name() -> None:
    A = sm.Toeplitz(np.arange(1.0, 6.0))
    for call in (lambda: spla.aslinearoperator(A) @ np.ones((5, 2)), lambda: spla.svds(A, k=1)):
        with pytest.raises(ValueError, match=r"what SciPy gives columns takes structmat\.scipy\.as_linear_operator"):
            call()


def module(name: str) -> Any:
    """A module of SciPy's tests, which not every package of it brings."""
    return pytest.importorskip(f"scipy.linalg.tests.{name}")


@pytest.fixture
def ours(monkeypatch):
    """A module of SciPy's tests with our functions in place of its own; operators are written out for comparisons."""

    def replaced(name: str) -> Any:
        tests = module(name)
        for function in ("solve_toeplitz", "matmul_toeplitz", "solve_circulant"):
            monkeypatch.setattr(tests, function, getattr(sm.scipy, function), raising=False)
            monkeypatch.setattr(scipy.linalg, function, getattr(sm.scipy, function))
        if name == "test_special_matrices":
            for function in ("toeplitz", "circulant", "hankel"):
                made = getattr(sm.scipy, function)
                monkeypatch.setattr(tests, function, lambda *given, made=made: made(*given).to_dense())
        return tests

    return replaced


DTYPES = (int, float, np.float32, complex, np.complex64)


@pytest.mark.parametrize(
    "name", ["test_solve_equivalence", "test_multiple_rhs", "test_native_list_arguments", "test_reflection_coeffs"]
)
def test_cases_of_solve_toeplitz(name, ours):
    """All but two, which want an error where SciPy's recursion fails and one that it expects to fail; see below."""
    getattr(ours("test_solve_toeplitz"), name)()


def test_cases_of_empty_systems(ours):
    circulants = ours("test_basic").TestSolveCirculant()
    for dtypes in product(DTYPES, DTYPES):
        ours("test_solve_toeplitz").test_empty(*dtypes)
        circulants.test_empty(*dtypes)


@pytest.mark.parametrize("separate_r", [False, True])
@pytest.mark.parametrize("shape", [(5,), (5, 4), (2, 3, 5, 4)])
def test_cases_of_stacks(separate_r, shape, ours):
    tests = ours("test_batch").TestBatch()
    if not hasattr(tests, "test_matmul_toeplitz"):
        pytest.skip("this version of SciPy has no stacks of Toeplitz matrices")
    for dtype in (np.float32, float, np.complex64, complex):
        tests.test_solve_toeplitz(separate_r, shape, dtype)
        tests.test_matmul_toeplitz(separate_r, shape, dtype)


@pytest.mark.parametrize("vectors", [([0.0, 2.0, -1.0, 0.5], [0.0, 1.0, 3.0, -2.0]), ([2.0, 2.0, 1.0],)])
def test_what_stops_the_recursion_of_solve_toeplitz_is_solved(vectors):
    """A zero diagonal, and a regular matrix with a singular leading section."""
    b = np.array([1.0, -2.0, 3.0, 0.5])[: len(vectors[0])]
    with pytest.raises(np.linalg.LinAlgError):
        scipy.linalg.solve_toeplitz(vectors if len(vectors) > 1 else vectors[0], b)
    np.testing.assert_allclose(
        scipy.linalg.toeplitz(*vectors) @ sm.scipy.solve_toeplitz(vectors if len(vectors) > 1 else vectors[0], b),
        b,
        atol=1e-14,
    )


def test_what_makes_the_recursion_of_solve_toeplitz_unstable_is_solved():
    """A Gaussian kernel, which SciPy's tests expect to fail; the error of a solution is that of a stable one."""
    c = 0.9 ** (np.arange(100) ** 2)
    b = np.random.default_rng(0).standard_normal(100)
    T = scipy.linalg.toeplitz(c)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)
        x = sm.Toeplitz(c).solve(b)
    assert np.linalg.norm(T @ x - b) <= 1e-14 * np.linalg.norm(T, 2) * np.linalg.norm(x)


@pytest.mark.parametrize("name", ["real", "complex", "empty", "exceptions"])
def test_cases_of_matmul_toeplitz(name, ours):
    case = ours("test_matmul_toeplitz").TestMatmulToeplitz()
    case.setup_method()
    getattr(case, f"test_{name}")()


@pytest.mark.parametrize(
    "name",
    ["basic1", "basic2", "basic3", "complex", "random_b_and_c", "singular", "axis_args", "native_list_arguments"],
)
def test_cases_of_solve_circulant(name, ours):
    getattr(ours("test_basic").TestSolveCirculant(), f"test_{name}")()


@pytest.mark.parametrize("family", ["Toeplitz", "Hankel", "Circulant"])
def test_cases_of_special_matrices(family, ours):
    cases = getattr(ours("test_special_matrices"), f"Test{family}")()
    for name in dir(cases):
        if name.startswith("test_"):
            getattr(cases, name)()


def test_what_scipy_refuses_is_refused_with_its_kinds_of_errors():
    c, bad = np.ones(3), np.array([1.0, np.nan, 0.0])
    for call, kind, text in (
        (lambda: sm.scipy.solve_toeplitz(c.astype(object), c), ValueError, "object arrays are not supported"),
        (lambda: sm.scipy.solve_toeplitz(bad, c), ValueError, "infs or NaNs"),
        (lambda: sm.scipy.matmul_toeplitz(bad, c, check_finite=True), ValueError, "infs or NaNs"),
        (lambda: sm.scipy.solve_toeplitz((c, c[:2]), c), ValueError, "Incompatible dimensions: first column"),
        (lambda: sm.scipy.solve_toeplitz(c, c[:2]), ValueError, r"Incompatible dimensions: .* shape \(2,\)"),
        (lambda: sm.scipy.solve_toeplitz(c, None), ValueError, "must be an array, not None"),
        (lambda: sm.scipy.solve_toeplitz(np.ones(3), c), np.linalg.LinAlgError, "singular"),
        (lambda: sm.scipy.solve_circulant(c, c), np.linalg.LinAlgError, "near singular"),
        (lambda: sm.scipy.solve_circulant(c, c[:2]), ValueError, "incompatible: the columns have length 3"),
        (lambda: sm.scipy.solve_circulant(c, c, caxis=1), ValueError, "'caxis' entry is out of bounds"),
        (lambda: sm.scipy.solve_circulant(c, c, "other"), ValueError, 'must be "raise" or "lstsq"'),
    ):
        with pytest.raises(kind, match=text):
            call()
    assert np.isnan(sm.scipy.matmul_toeplitz(bad, c)).all()


def test_circulants_near_to_singular_ones_by_a_given_tolerance():
    c, b = np.array([[1.0, 1.0, 0.0, 0.0], [8.0, 1.0, 0.0, 1.0]]), np.array([1.0, 2.0, 3.0, 4.0])
    for tol in (None, 1e-3, 7.0):
        expected = scipy.linalg.solve_circulant(c, b, singular="lstsq", tol=tol)
        np.testing.assert_allclose(sm.scipy.solve_circulant(c, b, "lstsq", tol), expected, atol=1e-12)


def test_other_libraries_and_threads():
    torch = pytest.importorskip("torch")
    c, b = torch.tensor([4.0, 1.0, 0.5]), torch.ones(3, 2)
    T = sm.scipy.toeplitz(c)
    assert sm.scipy.solve_toeplitz(c, b).dtype == torch.float32
    torch.testing.assert_close(sm.scipy.matmul_toeplitz(c, sm.scipy.solve_toeplitz(c, b)), b)
    torch.testing.assert_close(T @ sm.scipy.solve_toeplitz((c, c), b), b)
    torch.testing.assert_close(sm.scipy.circulant(c) @ sm.scipy.solve_circulant(c, b), b)
    x = np.arange(3.0)
    np.testing.assert_array_equal(sm.scipy.matmul_toeplitz(x, x, workers=2), sm.scipy.matmul_toeplitz(x, x))


@in_one_test("n", [1, 3, 4, 7])
@in_one_test("mode", ["full", "same", "valid"])
def test_convolution_matrix(n, mode):
    """The recipe of the page: constants of the diagonals, and the rows that are kept."""
    a = np.array([1.0, 2.0, -1.0, 0.5])
    first = {"full": 0, "same": (min(n, a.size) - 1) // 2, "valid": min(n, a.size) - 1}[mode]
    want = scipy.linalg.convolution_matrix(a, n, mode)
    d = np.pad(a, n - 1)
    T = sm.Toeplitz(d[n - 1 + first :][: want.shape[0]], d[first : first + n][::-1])
    np.testing.assert_array_equal(T.to_dense(), want)


def test_dft_and_fiedler_and_hankel():
    np.testing.assert_allclose(sm.Fourier(5).to_dense(), scipy.linalg.dft(5, scale="sqrtn"), atol=1e-15)
    np.testing.assert_allclose((5**0.5 * sm.Fourier(5)).to_dense(), scipy.linalg.dft(5), atol=1e-14)
    np.testing.assert_allclose((5**-0.5 * sm.Fourier(5)).to_dense(), scipy.linalg.dft(5, scale="n"), atol=1e-15)
    np.testing.assert_array_equal(sm.Toeplitz(3.0 * np.arange(4)).to_dense(), scipy.linalg.fiedler(3.0 * np.arange(4)))
    np.testing.assert_array_equal(sm.Hankel([1.0, 2.0, 3.0]).to_dense(), scipy.linalg.hankel([1.0, 2.0, 3.0]))
