"""Linear algebra where it is delicate: real functions, signs of determinants, singular matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft
import scipy.linalg

import structmat as sm
from tests import backends

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
    np.testing.assert_allclose(swap.logm().expm().to_dense(), swap.to_dense(), atol=1e-14)
    np.testing.assert_allclose(rotation.fractional_matrix_power(3).to_dense(), np.eye(3), atol=1e-14)
    np.testing.assert_allclose(rotation.expm().to_dense(), scipy.linalg.expm(rotation.to_dense()), atol=1e-14)
    np.testing.assert_allclose(rotation.logm().to_dense(), scipy.linalg.logm(rotation.to_dense()), atol=1e-12)


def test_negative_semidefinite_determinants_keep_their_sign() -> None:
    for n in (2, 3, 4, 5):
        for sign in (1.0, -1.0):
            c = sign * (np.arange(n) == 0) * 2.0
            assert math.isclose(sm.Circulant(c).det(), (2 * sign) ** n)
            assert sm.Circulant(c).slogdet().sign == sign**n
    singular = sm.Diagonal(np.array([1.0, 0.0])).slogdet()
    assert (singular.sign, singular.logabsdet) == (0, -np.inf)


def test_pseudo_inverse_of_singular_and_rectangular_operators() -> None:
    for op in (
        sm.Circulant(np.ones(4)),
        sm.Circulant([1.0, -1.0, 0.0]),
        sm.Diagonal([1.0, 0.0, 2.0]),
        sm.BlockCirculant(np.ones((2, 3, 2))),
        sm.BlockCirculant(rng.standard_normal((3, 1, 4))),
    ):
        dense = op.to_dense()
        np.testing.assert_allclose(op.pinv().to_dense(), np.linalg.pinv(dense), atol=1e-13)
        assert op.rank() == np.linalg.matrix_rank(dense)
        b = rng.standard_normal(dense.shape[0])
        np.testing.assert_allclose(op.lstsq(b), np.linalg.lstsq(dense, b)[0], atol=1e-13)
    assert sm.Circulant(np.ones(4)).cond() > 1e15


@pytest.mark.parametrize("library", ["numpy", "array_api_strict", "torch", "jax"])
@pytest.mark.parametrize("p", [1, math.inf, "fro", "nuc"])
def test_condition_numbers_of_singular_matrices_are_infinite(library, p) -> None:
    """In all norms, as in NumPy, and member by member; NaN stays NaN."""
    backend = backends.get(library)
    for make, of in (
        (sm.Circulant, [[2.0, -1.0, 0.0, -1.0], [3.0, 1.0, 0.0, 1.0]]),
        (sm.Circulant, [[2.0 + 1j, -1.0, -1j, -1.0], [3.0, 1.0, 0.0, 1j]]),
        (sm.Diagonal, [[1.0, 0.0], [2.0, 5.0]]),
        (sm.BlockCirculant, [np.ones((2, 2, 3)), np.arange(12.0).reshape(2, 2, 3) ** 2]),
    ):
        stack = np.asarray(of)
        expected = np.linalg.cond(make(stack[1]).to_dense(), p)
        found = make(backend.asarray(stack)).cond(p)
        np.testing.assert_allclose(backend.to_numpy(found), [np.inf, expected], rtol=1e-10)
        assert np.isinf(float(make(backend.asarray(stack[0])).cond(p)))
        assert np.isinf(float(make(backend.asarray(0 * stack[0])).cond(p)))
    entries = np.array([[np.nan, 1.0], [0.0, 1.0]])
    if p != "nuc":  # for which most libraries take no NaN
        found = backend.to_numpy(sm.Diagonal(backend.asarray(entries)).cond(p))
        assert np.isnan(found[0])
        assert np.isinf(found[1])


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("k", [1, 2, 101, 2**24 + 1, 2**53 + 1, 10**30 + 1, -1, -(10**30) - 1])
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
