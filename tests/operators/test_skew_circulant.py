"""Skew-circulant matrices: polynomials modulo x^n + 1, real functions, and the splitting of Toeplitz matrices."""

import numpy as np
import pytest
import scipy.linalg

import structmat as sm


@pytest.mark.parametrize("n", [1, 2, 5, 8])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_products_are_those_of_polynomials_modulo_x_to_the_n_plus_one(n, dtype):
    rng = np.random.default_rng(n)
    a, b = (rng.standard_normal(n) + (1j * rng.standard_normal(n) if dtype == "complex128" else 0) for _ in range(2))
    full = np.append(np.convolve(a, b), 0)
    want = full[:n] - full[n:]
    S = sm.SkewCirculant(a)
    for found in (S @ b, S.prepare() @ b, (S @ sm.SkewCirculant(b)).c, S.prepare().matvec(b, out=np.empty(n, dtype))):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, want, atol=1e-13)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_eigenvalues_are_values_of_the_polynomial_and_vectors_are_unitary(n):
    c = np.random.default_rng(n).standard_normal(n)
    S = sm.SkewCirculant(c)
    values, V = S.eig()
    roots = np.exp(-1j * np.pi / n * (2 * np.arange(n) + 1))
    np.testing.assert_allclose(values, np.polynomial.polynomial.polyval(roots, c), atol=1e-13)
    V = V.to_dense()
    np.testing.assert_allclose(V.conj().T @ V, np.eye(n), atol=1e-14)
    np.testing.assert_allclose(S.to_dense() @ V, V * values, atol=1e-13)


def test_real_roots_exist_where_real_eigenvalues_come_in_pairs():
    even, odd = -1.0 * np.eye(4)[0], -1.0 * np.eye(5)[0]
    root = sm.SkewCirculant(even).sqrtm()
    assert root.dtype == np.float64
    np.testing.assert_allclose((root @ root).c, even, atol=1e-15)
    root = sm.SkewCirculant(odd).sqrtm()
    assert root.dtype == np.complex128
    np.testing.assert_allclose((root @ root).c, odd, atol=1e-15)
    np.testing.assert_allclose(
        sm.SkewCirculant(np.arange(5.0)).expm().to_dense(),
        scipy.linalg.expm(sm.SkewCirculant(np.arange(5.0)).to_dense()),
        rtol=1e-11,
    )


@pytest.mark.parametrize("n", [2, 3, 6, 7])
def test_determinants_and_singular_matrices(n):
    S = sm.SkewCirculant(np.random.default_rng(n).standard_normal(n))
    np.testing.assert_allclose(S.det(), np.linalg.det(S.to_dense()), rtol=1e-12)
    factor = np.ones(3)  # 1 + x + x^2 divides x^n + 1 for no n, 1 - x + x^2 for n = 3
    assert int(sm.SkewCirculant(factor).rank()) == 3
    singular = sm.SkewCirculant(factor * [1, -1, 1])
    assert int(singular.rank()) == 1
    np.testing.assert_allclose(singular.pinv().to_dense(), np.linalg.pinv(singular.to_dense()), atol=1e-15)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_nearest_is_a_projection(n):
    A = np.random.default_rng(n).standard_normal((2, n, n, 2)) @ [1, 1j]
    rest = A - sm.SkewCirculant.nearest(A).to_dense()
    for unit in np.eye(n):
        assert np.abs(np.sum(sm.SkewCirculant(unit).to_dense() * rest, axis=(-2, -1))).max() <= 1e-14


def test_a_toeplitz_matrix_is_a_circulant_plus_a_skew_circulant(backend):
    rng = np.random.default_rng(3)
    c, r = rng.standard_normal((2, 3, 6)), rng.standard_normal(6)
    T = sm.Toeplitz(backend.asarray(c), backend.asarray(r))
    C, S = T.split()
    assert (type(C), type(S), type(C + S)) == (sm.Circulant, sm.SkewCirculant, sm.Toeplitz)
    for both in (C.to_dense() + S.to_dense(), (C + S).to_dense()):
        np.testing.assert_allclose(backend.to_numpy(both), backend.to_numpy(T.to_dense()), atol=1e-14)
