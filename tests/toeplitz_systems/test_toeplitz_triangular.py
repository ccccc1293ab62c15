"""Triangular Toeplitz matrices: solutions, inverses and powers as power series, by Newton or one after the other."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import structmat as sm
from structmat._arrays.namespaces import numpy_namespace
from structmat._toeplitz_systems import thresholds, triangular
from tests.cases import in_one_test

LONG = 1100
"""A size of which Newton's iteration is tried by the tests."""


@pytest.fixture(autouse=True)
def newton_from_1000_on(monkeypatch):
    monkeypatch.setattr(thresholds, "BY_NEWTON", 1000)


def decaying(n: int, power: float = 1.5) -> np.ndarray:
    c = np.random.default_rng(n).standard_normal(n) / (1 + np.arange(n)) ** power
    c[0] = 2.0
    return c


def root_of_ones(n: int) -> np.ndarray:
    """The coefficients ``binom(2 k, k) / 4^k`` of ``(1 - z)^(-1/2)``."""
    k = np.arange(1.0, n)
    return np.cumprod(np.append(1.0, (2 * k - 1) / (2 * k)))


KINDS = {
    "ones": np.ones,
    "root of ones": root_of_ones,
    "decaying": decaying,
    "complex": lambda n: decaying(n) * np.exp(1j * np.arange(n)),
    "geometric": lambda n: 0.9 ** np.arange(n),
    "growing": lambda n: 1.01 ** np.minimum(np.arange(n), 2000),
    "cancelling": lambda n: (1.0 + np.arange(n)) ** 2,  # Newton's iteration loses all digits
    "tiny": lambda n: 1e-200 * decaying(n),
}


def error_in_sections(c: np.ndarray, x: np.ndarray, b: np.ndarray) -> float:
    """The residuals, relative to the row of the matrix and the largest entry of the solution in a section or before."""
    residual = np.abs(b - scipy.linalg.toeplitz(c, np.zeros_like(c)) @ x) / np.cumsum(np.abs(c))
    largest = [np.max(np.abs(x[:stop])) for _, stop in triangular.sections(len(c))]
    found = [np.max(residual[first:stop]) for first, stop in triangular.sections(len(c))]
    return max(error / size if error else 0.0 for error, size in zip(found, largest, strict=True))


@pytest.mark.filterwarnings("ignore:.*ill-conditioned:scipy.linalg.LinAlgWarning")  # as the solutions grow
@pytest.mark.parametrize("n", [150, LONG])
@in_one_test("kind", KINDS)
def test_each_leading_section_is_solved_as_accurately_as_by_substitution(kind: str, n: int) -> None:
    c, rng, k = KINDS[kind](n), np.random.default_rng(1), np.arange(n)
    B = np.array([rng.standard_normal(n), 1.0 * (k == n // 2), 10.0 ** (-100 * k / n)])
    T = sm.Toeplitz(c, np.zeros(n))
    for x, b in zip(T.inv_matvec(B), B, strict=True):
        assert error_in_sections(c, x, b) <= 1e-15 * n**0.5
    np.testing.assert_array_equal(T.T.inv_matvec(B[:, ::-1])[:, ::-1], T.inv_matvec(B))
    np.testing.assert_array_equal(T.prepare().inv_matvec(B), T.inv_matvec(B))


def test_newtons_iteration_is_what_is_accepted_of_long_ones_but_of_those_that_cancel() -> None:
    b = np.random.default_rng(0).standard_normal((1, LONG))
    for kind, make in KINDS.items():
        c = make(LONG)
        with np.errstate(all="ignore"):
            g = triangular.reciprocal(c, numpy_namespace)
            _, errors = triangular.solution_and_error(c, g, b, numpy_namespace)
        assert bool(errors[0] <= 0.1) == (kind != "cancelling")


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"tiny"}))
@in_one_test("n", [1, 5, 150])
def test_inverses_and_powers_are_those_of_dense_matrices_and_triangular(kind: str, n: int) -> None:
    c = KINDS[kind](n)
    zeros = np.zeros(n)
    stack = sm.Toeplitz(np.stack([c, c + (np.arange(n) == 0)]), zeros)
    for op in (sm.Toeplitz(c, zeros), sm.Toeplitz(c, zeros).T, stack):
        assert type(op) is type(op.inv()) is type(op.sqrtm()) is sm.Toeplitz
        dense = op.to_dense()
        unit = np.max(np.abs(op.inv().to_dense())) * np.sum(np.abs(c)) + 1
        np.testing.assert_allclose(op.inv().to_dense() @ dense, dense * 0 + np.eye(n), atol=1e-13 * unit)
        root = op.sqrtm()
        np.testing.assert_allclose(root.to_dense() @ root.to_dense(), dense, atol=1e-13 * np.sum(np.abs(c)))
        np.testing.assert_allclose(op.fractional_matrix_power(2).to_dense(), dense @ dense, rtol=1e-12, atol=1e-12)
        if n <= 5:
            for p in (0.3, -0.7, -0.5, -2, 1.5):
                expected = [scipy.linalg.fractional_matrix_power(A, p) for A in dense.reshape(-1, n, n)]
                power = op.fractional_matrix_power(p).to_dense().reshape(-1, n, n)
                np.testing.assert_allclose(power, expected, atol=1e-10 * np.max(np.abs(expected)))


def test_the_root_of_ones_has_known_coefficients_and_its_inverse_too() -> None:
    """The factors of the matrix of all sums up to a time, by which noise for private training is correlated."""
    ones = sm.Toeplitz(np.ones(LONG), np.zeros(LONG))
    root, k = root_of_ones(LONG), np.arange(LONG)
    np.testing.assert_allclose(ones.sqrtm().c, root, rtol=0, atol=1e-14)
    np.testing.assert_allclose(ones.sqrtm().inv().c, -root / (2 * k - 1), rtol=0, atol=1e-14)
    np.testing.assert_allclose(ones.fractional_matrix_power(-0.5).c, -root / (2 * k - 1), rtol=0, atol=1e-14)


@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.sampled_from([0.5, -0.5, 0.3, -1.7, -1]), st.booleans())
@settings(max_examples=25)
def test_powers_by_newton_are_those_of_the_recurrence(seed: int, n: int, p: float, is_complex: bool) -> None:
    rng = np.random.default_rng(seed)
    c = rng.standard_normal((2, n)) + (1j * rng.standard_normal((2, n)) if is_complex else 0)
    c /= (1 + np.arange(n)) ** 2
    c[:, 0] = 2 + np.abs(c[:, 0])
    corner = c[:, :1] ** p
    found = triangular.accepted_power(c, p, corner, numpy_namespace)
    by_recurrence = triangular.power_by_recurrence(c, p, corner)
    np.testing.assert_allclose(found, by_recurrence, atol=1e-12 * np.max(np.abs(by_recurrence)))


def test_roots_that_are_complex_or_do_not_exist() -> None:
    zeros = np.zeros(4)
    root = sm.Toeplitz(np.array([-4.0, 1.0, 2.0, 3.0]), zeros).sqrtm()
    assert root.dtype == np.complex128
    np.testing.assert_allclose((root @ root).to_dense()[:, 0], [-4, 1, 2, 3], atol=1e-14)
    nilpotent = sm.Toeplitz(np.array([0.0, 1.0, 2.0, 3.0]), zeros)
    np.testing.assert_allclose(nilpotent.fractional_matrix_power(2).c, [0, 0, 1, 4], atol=1e-15)
    with pytest.raises(np.linalg.LinAlgError, match=r"Toeplitz\.sqrtm: .* diagonal of zeros"):
        nilpotent.sqrtm()
    with pytest.raises(np.linalg.LinAlgError, match="singular"):
        nilpotent.inv()
    with pytest.raises(np.linalg.LinAlgError, match="singular"):
        sm.Toeplitz(np.append(0.0, np.ones(299)), np.zeros(300)).solve(np.ones(300))
    for method in ("sqrtm", "expm", "logm"):
        with pytest.raises(NotImplementedError, match=f"{method}: no closed form for Toeplitz operators"):
            getattr(sm.Toeplitz(np.ones(4)), method)()


def dense_in_torch(c, torch):
    i = torch.arange(len(c))
    return torch.where(i[:, None] >= i, c[(i[:, None] - i).clamp(min=0)], 0.0)


@pytest.mark.parametrize("upper", [False, True])
def test_derivatives_in_torch_are_those_of_dense_matrices(upper: bool) -> None:
    torch = pytest.importorskip("torch")
    n = 200
    c, b = torch.tensor(decaying(n), requires_grad=True), torch.linspace(0, 1, n, dtype=torch.float64)
    T, A = sm.Toeplitz(c, torch.zeros_like(b)), dense_in_torch(c, torch)
    T, A = (T.T, A.T) if upper else (T, A)
    assert type(T.inv()) is (sm.ToeplitzInverse if upper else sm.Toeplitz)  # c has entries below the diagonal
    solved, root = torch.linalg.solve(A, b), T.sqrtm()
    for found, expected in (
        (T.solve(b), solved),
        (T.inv() @ b, solved),
        (root @ (root @ b), A @ b),
        (T.fractional_matrix_power(-0.5) @ (T.fractional_matrix_power(-0.5) @ b), solved),
        (T.slogdet().logabsdet, torch.linalg.slogdet(A).logabsdet),
    ):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
        gradients = [torch.autograd.grad((y**2).sum(), c, retain_graph=True)[0] for y in (found, expected)]
        torch.testing.assert_close(*gradients, atol=1e-10, rtol=1e-10)


def test_solutions_in_torch_that_newton_does_not_find_are_those_of_the_host() -> None:
    torch = pytest.importorskip("torch")
    c = KINDS["cancelling"](150)
    b = np.random.default_rng(0).standard_normal(150)
    x = sm.Toeplitz(torch.tensor(c), torch.zeros(150, dtype=torch.float64)).solve(torch.tensor(b))
    assert error_in_sections(c, x.numpy(), b) < 1e-15
    assert error_in_sections(c, sm.Toeplitz(torch.tensor(c), torch.zeros(150)).inv().c.numpy(), np.eye(150)[0]) < 1e-15


@pytest.mark.parametrize("library", ["array_api_strict", "dask.array"])
def test_other_libraries_have_them_too(library: str, monkeypatch) -> None:
    monkeypatch.setattr(thresholds, "DENSE", 16)
    xp = pytest.importorskip(library)
    c, b = decaying(70), np.linspace(0, 1, 70)
    T = sm.Toeplitz(xp.asarray(c), xp.asarray(np.zeros(70)))
    reference = sm.Toeplitz(c, np.zeros(70))
    np.testing.assert_allclose(np.asarray(T.solve(xp.asarray(b))), reference.solve(b), atol=1e-13)
    np.testing.assert_allclose(np.asarray(T.sqrtm().c), reference.sqrtm().c, atol=1e-13)


def test_maps_of_torch_over_triangular_matrices() -> None:
    torch = pytest.importorskip("torch")
    zeros = torch.zeros(20, dtype=torch.float64)
    stack = torch.tensor(np.stack([decaying(20), 2 * decaying(20)]))
    roots = torch.func.vmap(lambda c: sm.Toeplitz(c, zeros).sqrtm().c)(stack)
    torch.testing.assert_close(roots, sm.Toeplitz(stack, zeros).sqrtm().c)


def test_jax_computes_on_its_device_where_the_first_row_is_a_constant_of_a_trace(monkeypatch) -> None:
    jax = pytest.importorskip("jax")
    monkeypatch.setattr(thresholds, "DENSE", 16)
    jnp = jax.numpy
    n, zeros = 40, jnp.zeros(40)
    c, b = jnp.asarray(decaying(n)), jnp.linspace(0.0, 1.0, n)

    def solution(c):
        return sm.Toeplitz(c, zeros).inv() @ b

    x, change = jax.jit(lambda c: jax.jvp(solution, (c,), (b,)))(c)
    dense = np.asarray(sm.Toeplitz(c, zeros).to_dense(), dtype=float)
    changes = np.asarray(sm.Toeplitz(b, zeros).to_dense(), dtype=float)
    tolerance = {"atol": 1e3 * float(jnp.finfo(c.dtype).eps)}
    np.testing.assert_allclose(dense @ x, b, **tolerance)
    np.testing.assert_allclose(change, -np.linalg.solve(dense, changes @ np.asarray(x)), **tolerance)


def test_jax_finds_out_in_a_trace_which_matrices_are_triangular() -> None:
    jax = pytest.importorskip("jax")
    c, zeros = jax.numpy.asarray(decaying(20)), jax.numpy.zeros(20)
    root = jax.jit(lambda T: T.sqrtm().to_dense())
    for T in (sm.Toeplitz(c, zeros), sm.Toeplitz(c, zeros).T):
        np.testing.assert_allclose(root(T) @ root(T), T.to_dense(), atol=1e3 * float(jax.numpy.finfo(c.dtype).eps))
    assert np.all(np.isnan(root(sm.Toeplitz(c))))


@pytest.mark.parametrize("upper", [False, True])
def test_what_no_substitution_finds_is_an_error(upper: bool) -> None:
    n = 1023  # the entries of the inverse would be beyond the range of numbers
    vector, zeros = np.random.default_rng(0).standard_normal(n), np.zeros(n)
    vector[0] = 1e-3
    T = sm.Toeplitz(zeros + vector * (np.arange(n) == 0), vector) if upper else sm.Toeplitz(vector, zeros)
    with pytest.raises(np.linalg.LinAlgError, match=r"Toeplitz\.inv: the matrix is singular to working precision"):
        T.inv()


@in_one_test("n", [4, 5, 200])  # by elimination, and from the diagonal alone
@in_one_test("corner", [-1.5, 1.2 * np.exp(0.4j)])
@in_one_test("upper", [False, True])
def test_the_sign_of_a_determinant_has_a_factor_for_each_row(n: int, corner: complex, upper: bool) -> None:
    vector = np.where(np.arange(n) == 0, corner, 0.1 / (1 + np.arange(n)))
    zeros = np.where(np.arange(n) == 0, corner, 0.0)
    T = sm.Toeplitz(zeros, vector) if upper else sm.Toeplitz(vector, zeros)
    sign, log = np.linalg.slogdet(T.to_dense())
    np.testing.assert_allclose(T.slogdet().sign, sign, rtol=1e-12)
    np.testing.assert_allclose(T.slogdet().logabsdet, log, rtol=1e-12)
