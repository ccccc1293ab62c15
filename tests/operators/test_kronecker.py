"""Kronecker products and sums beside dense matrices: with noise and gaps, derivatives, functions, and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg

import structmat as sm
from tests import backends

ROWS, COLS = 6, 8
N = ROWS * COLS
FIRST = scipy.linalg.toeplitz(0.8 ** np.arange(ROWS))
LAST = np.exp(-0.5 * np.subtract.outer(np.arange(COLS), np.arange(COLS)) ** 2 / 4)
RIGHT = np.cos(np.arange(N) ** 2)


def product() -> sm.Kronecker:
    return sm.Kronecker(sm.Toeplitz(FIRST[0]), LAST)


def test_factors_are_flat_and_products_stay_products() -> None:
    A, B = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    K = sm.Kronecker(A, sm.Kronecker(B, sm.Identity(2)))
    dense = np.kron(np.kron(A, B), np.eye(2))
    assert [factor.shape for factor in K.factors] == [(2, 3), (3, 4), (2, 2)]
    P = 2 * K.T @ K
    assert [type(factor) for factor in P.factors] == [sm.Dense, sm.Dense, sm.Identity]
    np.testing.assert_allclose(P.to_dense(), 2 * dense.T @ dense)
    assert type(K.T @ sm.Kronecker(np.ones((3, 2)), np.ones((4, 2)))) is sm.Product  # of other grids
    assert type(sm.KroneckerSum(A[:, :2], np.eye(3)) - sm.KroneckerSum(np.eye(2), B[:, :3])) is sm.KroneckerSum


def test_what_is_no_part_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"Kronecker: factors must be structmat operators or arrays, got int"):
        sm.Kronecker(np.eye(2), 3)
    with pytest.raises(TypeError, match=r"KroneckerSum: terms must be .*, one by one, got them in a list"):
        sm.KroneckerSum([sm.Identity(2), np.eye(2)])
    with pytest.raises(ValueError, match=r"Kronecker: factors must be at least one operator, got none"):
        sm.Kronecker()
    with pytest.raises(ValueError, match=r"KroneckerSum: terms must be square, got shape \(2, 3\)"):
        sm.KroneckerSum(np.eye(2), np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"Dense: matrix must have shape \(..., m, n\), none of them 0, got \(3,\)"):
        sm.Dense(np.ones(3))
    with pytest.raises(ValueError, match=r"Eigendecomposition: vectors must have shape \(2, 2\), got \(3, 3\)"):
        sm.Eigendecomposition(np.ones(2), np.eye(3))
    with pytest.raises(TypeError, match=r"Eigendecomposition.of: A must be structmat operators or arrays, got str"):
        sm.Eigendecomposition.of("A")
    for method in ("inv", "solve"):
        with pytest.raises(np.linalg.LinAlgError, match=rf"Dense\.{method}: Singular matrix"):
            getattr(sm.Kronecker(np.ones((2, 2)), np.eye(2)), method)(*[np.ones(4)] * (method == "solve"))
    with pytest.raises(np.linalg.LinAlgError, match=r"Dense\.cholesky: Matrix is not positive definite"):
        sm.Kronecker(np.ones((2, 2)), -np.eye(2)).cholesky()
    lower = np.tril(np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"Dense\.cholesky: the matrix must be Hermitian"):
        sm.Kronecker(np.eye(2), lower).cholesky()
    with pytest.raises(NotImplementedError, match=r"Sum.inv: .*Dense operators, since this one is not Hermitian; use"):
        (sm.Kronecker(lower, lower) + sm.Identity(4)).inv()
    with pytest.raises(NotImplementedError, match=r"Eigendecomposition.of: .* since this one is not Hermitian; use"):
        sm.Eigendecomposition.of(sm.Toeplitz(np.ones(2), np.array([1.0, 2.0])))


NOT_HERMITIAN = {
    "this one is not Hermitian": ([[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0 + 1.0j], [2.0 + 1.0j, 4.0]]),
    "this one holds NaN or infinity": ([[1.0, np.nan], [np.nan, 4.0]], np.full((3, 3), np.inf)),
}


def test_eigenvectors_are_those_of_finite_hermitian_matrices_alone(backend: backends.Backend) -> None:
    """Also where one matrix of a stack is another one, or a part of an operator; rounding errors are no objection."""
    for reason, matrices in NOT_HERMITIAN.items():
        for matrix in map(np.asarray, matrices):
            given = backend.asarray(np.stack([np.eye(len(matrix)), matrix]))
            with pytest.raises(ValueError, match=rf"Eigendecomposition.of: A must be a finite Hermitian .*{reason}"):
                sm.Eigendecomposition.of(given)
            part = sm.Dense(given[1, ...])
            with pytest.raises(NotImplementedError, match=rf"Eigendecomposition.of: no closed .*, since {reason}; use"):
                sm.Eigendecomposition.of(part)
            with pytest.raises(NotImplementedError, match=rf"KroneckerSum.inv: no closed form .*, since {reason}; use"):
                sm.KroneckerSum(part, part).inv()
    rounded = LAST * (1 + np.finfo(float).eps * np.tri(COLS))
    assert (rounded != rounded.T).any()
    found = backend.to_numpy(sm.Eigendecomposition.of(backend.asarray(rounded)).to_dense())
    np.testing.assert_allclose(found, LAST, atol=1e-14)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of complex numbers in `torch.vmap`
@pytest.mark.parametrize("transform", ["jax.jit", "jax.vmap", "torch.vmap"])
def test_eigenvalues_of_other_matrices_are_nan_where_values_are_unknown(transform: str) -> None:
    library, _, name = transform.partition(".")
    backend = backends.get(library)
    transformed = getattr(pytest.importorskip(library), name)(lambda A: sm.Eigendecomposition.of(A).values)
    for matrix in (np.asarray(matrix) for matrices in NOT_HERMITIAN.values() for matrix in matrices):
        values = backend.to_numpy(transformed(backend.asarray(np.stack([2 * np.eye(len(matrix)), matrix]))))
        assert (values[0] == 2).all()
        assert np.isnan(values[1]).all()


@pytest.mark.parametrize("shape", [(3, 5), (2, 5, 3)])
def test_rectangular_dense_matrices_have_every_law(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    for matrix in (rng.standard_normal(shape), rng.standard_normal(shape) + 1j * rng.standard_normal(shape)):
        sm.testing.check_operator(sm.Dense(matrix), matrix, rng=rng)
        damped = sm.Dense(matrix).lstsq(matrix[..., :1], damp=0.5)
        H = np.swapaxes(matrix, -1, -2).conj()
        wanted = np.linalg.solve(H @ matrix + 0.25 * np.eye(shape[-1]), H @ matrix[..., :1])
        np.testing.assert_allclose(damped, wanted, atol=1e-12)


@backends.on("numpy", "torch", "array_api_strict")
def test_a_grid_with_noise_has_every_law(backend: backends.Backend) -> None:
    """Of a Toeplitz and a dense factor, which have no eigenvectors in closed form, but are small and Hermitian."""
    K = sm.Kronecker(sm.Toeplitz(backend.asarray(FIRST[0])), backend.asarray(LAST))
    dense = 2 * np.kron(FIRST, LAST) + 0.3 * np.eye(N)
    A = 2 * K + 0.3 * sm.Identity(N)
    sm.testing.check_operator(A, dense, rng=0)
    E = sm.Eigendecomposition.of(A)
    sm.testing.check_operator(E, dense, rng=0)
    for found in (A.logm(), E.logm(), sm.Eigendecomposition.of(backend.asarray(dense)).logm()):
        logarithm = backend.to_numpy(found.to_dense())
        np.testing.assert_allclose(logarithm, scipy.linalg.logm(dense), atol=1e-10)


def test_functions_of_kronecker_sums() -> None:
    L = -1.0 * sm.KroneckerSum(sm.Toeplitz(np.array([2.0, -1.0, 0.0])), sm.Circulant(np.array([2.0, -1.0, 0.0, -1.0])))
    dense = L.to_dense()
    heat = L.expm()
    assert [type(factor) for factor in heat.factors] == [sm.Eigendecomposition, sm.Circulant]
    np.testing.assert_allclose(heat.to_dense(), scipy.linalg.expm(dense), atol=1e-13)
    wave = L.funm(lambda z: np.cos(np.sqrt(-z)))
    assert wave.dtype == np.float64
    np.testing.assert_allclose(wave.to_dense(), scipy.linalg.cosm(scipy.linalg.sqrtm(-dense)), atol=1e-12)
    np.testing.assert_allclose((L**3).to_dense(), dense @ dense @ dense, atol=1e-11)


def test_small_products_of_singular_values_count_as_zero_beside_the_largest_one() -> None:
    """The cut-off is that of the product, not of each factor."""
    K = sm.Kronecker(np.diag([1.0, 1e-9]), np.diag([1.0, 1e-9]))
    np.testing.assert_allclose(K.pinv().diagonal(), [1.0, 1e9, 1e9, 0.0])


def test_cholesky_factors_are_those_of_the_factors() -> None:
    L = product().cholesky()
    np.testing.assert_allclose(L.to_dense(), np.linalg.cholesky(np.kron(FIRST, LAST)), atol=1e-13)
    half = product().astype("float16").cholesky()
    assert half.dtype == np.float16
    with pytest.raises(NotImplementedError, match=r"Kronecker.cholesky: no Cholesky factor of Circulant operators"):
        sm.Kronecker(sm.Circulant(np.array([2.0, 1.0])), FIRST).cholesky()


@pytest.mark.parametrize("gaps", [False, True])
def test_uneven_noise_and_gaps_take_few_steps(gaps: bool) -> None:
    noise = np.linspace(0.05, 0.2, N)
    A: Any = product() + sm.Diagonal(noise)
    dense, right = np.kron(FIRST, LAST) + np.diag(noise), RIGHT
    if gaps:
        seen = np.arange(N) % 7 != 3
        A, dense, right = product()[seen][:, seen] + sm.Diagonal(noise[seen]), dense[seen][:, seen], RIGHT[seen]
    steps = {}
    for preconditioner in (None, "nearest"):
        found = sm.solve(A, right, assume="positive definite", preconditioner=preconditioner, max_iter=1000)
        np.testing.assert_allclose(found.x, np.linalg.solve(dense, right), rtol=1e-6)
        steps[preconditioner] = found.iterations
    assert steps["nearest"] < steps[None] / (1.3 if gaps else 2), steps
    estimate = sm.slogdet(A, n_probes=40, rng=0)  # fewer than unknowns
    exact = np.linalg.slogdet(dense)[1]
    assert abs(estimate.logabsdet - exact) < 4 * estimate.standard_error
    assert estimate.standard_error < 0.02 * abs(exact)


def test_few_gaps_of_a_small_grid_have_the_determinant_of_the_dense_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a matrix that is too large to be written out."""
    monkeypatch.setattr("structmat.linear_systems._logdet.is_written_out", lambda op: False)
    K = sm.Kronecker(sm.Toeplitz(0.8 ** np.arange(6)), sm.Toeplitz(0.5 ** np.arange(6)))
    seen = np.arange(36) % 10 != 3
    A = (K + 0.1 * sm.Identity(36))[seen][:, seen]
    np.testing.assert_allclose(sm.slogdet(A).logabsdet, np.linalg.slogdet(A.to_dense())[1], rtol=1e-12)
    monkeypatch.setattr("structmat.linear_systems._logdet.rounding_of", lambda *_: 0.0)
    of_whole = sm.slogdet(K + 0.1 * sm.Identity(36)).standard_error
    assert sm.slogdet(A).standard_error > of_whole  # that of the rest is measured, and added


def test_few_gaps_have_an_exact_determinant() -> None:
    """By the closed forms of the whole grid with even noise, where the matrix is too large to be written out."""
    n = 46
    K = sm.Kronecker(sm.Toeplitz(0.8 ** np.arange(n)), sm.Toeplitz(0.5 ** np.arange(n)))
    seen = np.arange(n * n) % 100 != 3
    A = (K + 0.1 * sm.Identity(n * n))[seen][:, seen]
    found = sm.slogdet(A)
    assert 0 < found.standard_error <= 1e-12 * A.shape[0]  # of rounding alone
    np.testing.assert_allclose(found.logabsdet, np.linalg.slogdet(A.to_dense())[1], rtol=1e-12)


def test_gradients_of_a_likelihood_are_those_of_the_dense_matrix() -> None:
    """Also where eigenvalues are equal, whose eigenvectors have no derivatives."""
    torch = pytest.importorskip("torch")
    first = torch.tensor(np.eye(ROWS) + 0.1, requires_grad=True)  # all but one of its eigenvalues are equal
    last, noise = (torch.tensor(value, requires_grad=True) for value in (LAST, np.asarray(0.3)))
    y = torch.tensor(RIGHT)

    def likelihood(solve: Any, logdet: Any) -> Any:
        return torch.dot(y, solve(y)) + logdet

    A = sm.Kronecker(first, last) + noise * sm.Identity(N)
    dense = torch.kron(first, last) + noise * torch.eye(N, dtype=torch.float64)
    values = [likelihood(A.solve, A.slogdet().logabsdet)]
    values.append(likelihood(lambda b: torch.linalg.solve(dense, b), torch.logdet(dense)))
    found, wanted = (torch.autograd.grad(value, (first, last, noise)) for value in values)
    assert torch.allclose(*values)
    assert torch.allclose(found[2], wanted[2])
    for ours, theirs in zip(found[:2], wanted[:2], strict=True):  # of symmetric matrices, by symmetric changes
        assert torch.allclose(ours + ours.T, theirs + theirs.T, rtol=1e-9)


def test_eigenvectors_are_found_under_jit_where_factors_are_said_to_be_hermitian() -> None:
    jax = pytest.importorskip("jax")

    def logdet(first: Any, last: Any) -> Any:
        K = sm.Kronecker(sm.Eigendecomposition.of(first), sm.Eigendecomposition.of(last))
        return (K + 0.3 * sm.Identity(N)).slogdet().logabsdet

    found, gradient = jax.jit(jax.value_and_grad(logdet))(jax.numpy.asarray(FIRST), jax.numpy.asarray(LAST))
    dense = np.kron(FIRST, LAST) + 0.3 * np.eye(N)
    np.testing.assert_allclose(found, np.linalg.slogdet(dense)[1], rtol=1e-6)
    blocks = np.linalg.inv(dense).reshape(ROWS, COLS, ROWS, COLS)
    np.testing.assert_allclose(gradient, np.einsum("ikjl,kl->ij", blocks, LAST), rtol=1e-5, atol=1e-5)


def test_a_singular_sum_of_kronecker_products_names_itself() -> None:
    L = sm.Circulant(np.array([2.0, -1.0, 0.0, -1.0]))
    with pytest.raises(np.linalg.LinAlgError, match=r"KroneckerSum\.inv: the matrix is singular"):
        sm.KroneckerSum(L, L).inv()


def stack_of_products(dtype: str) -> tuple[sm.Kronecker, np.ndarray]:
    """Two products of positive definite matrices, as an operator of which one factor is a stack, and dense."""
    stack = np.stack([FIRST[:3, :3], 2 * LAST[:3, :3]]).astype(dtype)
    if dtype.startswith("complex"):
        stack = stack + 0.1j * np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0]], dtype)
    last = LAST[:4, :4].astype(dtype)
    return sm.Kronecker(stack, last), np.stack([np.kron(A, last) for A in stack])


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_laws_hold_for_stacks_of_products(dtype: str) -> None:
    K, dense = stack_of_products(dtype)
    sm.testing.check_operator(K, dense, rng=0)
    sm.testing.check_operator(sm.Kronecker(*reversed(K.factors)), rng=0)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_variances_of_a_stack_of_products_with_noise_are_those_of_each_matrix(dtype: str) -> None:
    """Diagonals of inverses are products of squared moduli of eigenvectors: those of all matrices were mixed."""
    K, dense = stack_of_products(dtype)
    found = (K + 0.5 * sm.Identity(12)).inv().diagonal()
    expected = [np.diagonal(np.linalg.inv(A + 0.5 * np.eye(12))) for A in dense]
    np.testing.assert_allclose(found, expected, atol=1e-13)
    np.testing.assert_allclose(sm.Eigendecomposition.of(K).diagonal(), np.diagonal(dense, axis1=1, axis2=2), atol=1e-13)
