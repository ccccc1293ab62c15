"""Multilevel circulants against SciPy's convolutions and Kronecker products, and their arguments."""

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage

import structmat as sm
from structmat import ArgumentTypeError, ArgumentValueError


def test_a_product_is_the_convolution_of_an_image():
    rng = np.random.default_rng(0)
    image, kernel = rng.standard_normal((9, 8)), rng.standard_normal((3, 3))
    padded = np.zeros(image.shape)
    padded[:3, :3] = kernel
    C = sm.MultilevelCirculant.from_kernel(np.roll(padded, (-1, -1), axis=(0, 1)))
    want = scipy.ndimage.convolve(image, kernel, mode="wrap")
    np.testing.assert_allclose((C @ image.ravel()).reshape(image.shape), want, atol=1e-12)


def test_separable_kernels_are_kronecker_products(backend):
    rng = np.random.default_rng(1)
    a, b, c = (rng.standard_normal(n) for n in (3, 4, 2))
    C = sm.MultilevelCirculant.from_kernel(backend.asarray(np.einsum("i,j,k->ijk", a, b, c)))
    want = np.kron(np.kron(*(scipy.linalg.circulant(v) for v in (a, b))), scipy.linalg.circulant(c))
    np.testing.assert_allclose(backend.to_numpy(C.to_dense()), want, atol=1e-13)


def test_one_level_is_a_circulant():
    c = np.random.default_rng(2).standard_normal(7)
    C, M = sm.Circulant(c), sm.MultilevelCirculant(c, (7,))
    for name in ("inv", "expm"):
        np.testing.assert_allclose(getattr(M, name)().c, getattr(C, name)().c, atol=1e-12)
    np.testing.assert_allclose(M.eigvals(), C.eigvals(), atol=1e-13)


def test_products_of_the_same_grid_stay_and_others_are_lazy():
    rng = np.random.default_rng(3)
    A, B, C = (sm.MultilevelCirculant(rng.standard_normal(12), sizes) for sizes in ((3, 4), (3, 4), (4, 3)))
    assert isinstance(A @ B, sm.MultilevelCirculant)
    assert isinstance(A + B, sm.MultilevelCirculant)
    assert isinstance(A @ C, sm.Product)
    assert isinstance(A + C, sm.Sum)
    for op, dense in ((A @ C, A.to_dense() @ C.to_dense()), (A + C, A.to_dense() + C.to_dense())):
        np.testing.assert_allclose(op.to_dense(), dense, atol=1e-12)


@pytest.mark.parametrize("sizes", [(2, 3), (4, 4), (1, 5), (2, 2, 3)])
def test_nearest_is_a_projection(backend, sizes):
    rng, count = np.random.default_rng(4), int(np.prod(sizes))
    A = rng.standard_normal((2, count, count)) + 1j * rng.standard_normal((2, count, count))
    near = sm.MultilevelCirculant.nearest(backend.asarray(A), sizes)
    dense = backend.to_numpy(near.to_dense())
    direction = sm.MultilevelCirculant(rng.standard_normal(count), sizes).to_dense()
    assert np.abs(np.sum(direction * (A - dense), axis=(-2, -1))).max() <= 1e-12 * count
    again = sm.MultilevelCirculant.nearest(near.to_dense(), sizes)
    np.testing.assert_allclose(backend.to_numpy(again.c), backend.to_numpy(near.c), atol=1e-14)


def test_real_roots_of_conjugate_pairs_on_the_branch_cut_are_real():
    """Two equal negative eigenvalues have a real square root of the matrix, a single one has none."""
    values = np.ones((3, 3))
    values[1, 2] = values[2, 1] = -4.0
    C = sm.MultilevelCirculant.from_kernel(np.fft.ifft2(values).real)
    root = C.sqrtm()
    assert root.dtype == np.float64
    np.testing.assert_allclose((root @ root).c, C.c, atol=1e-14)
    values[0, 0] = -1.0
    assert sm.MultilevelCirculant.from_kernel(np.fft.ifft2(values).real).sqrtm().dtype == np.complex128


def test_singular_matrices_are_refused_and_have_a_pseudoinverse():
    C = sm.MultilevelCirculant(np.ones(6), (2, 3))
    with pytest.raises(np.linalg.LinAlgError, match=r"MultilevelCirculant\.solve"):
        C.solve(np.ones(6))
    np.testing.assert_allclose(C.pinv().to_dense(), np.linalg.pinv(C.to_dense()), atol=1e-14)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: sm.MultilevelCirculant(np.ones(6), (2, 2)), ArgumentValueError, r"shape \(\.\.\., 4\)"),
        (lambda: sm.MultilevelCirculant(np.ones(6), 6), ArgumentTypeError, "sizes must be a tuple of integers, got 6"),
        (lambda: sm.MultilevelCirculant(np.ones(6), (2.0, 3)), ArgumentTypeError, "sizes must be an integer"),
        (lambda: sm.MultilevelCirculant(np.ones(1), ()), ArgumentValueError, "sizes must have one size at least"),
        (lambda: sm.MultilevelCirculant(np.ones(0), (0, 3)), ArgumentValueError, "sizes must be at least 1, got 0"),
        (lambda: sm.MultilevelCirculant.from_kernel(np.ones(3), 2), ArgumentValueError, "kernel must have 2 axes"),
        (lambda: sm.MultilevelCirculant.from_kernel(np.float64(3)), ArgumentValueError, "kernel must have 1 axes"),
        (lambda: sm.MultilevelCirculant.nearest(np.ones((4, 4)), (2, 3)), ArgumentValueError, r"\(\.\.\., 6, 6\)"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
