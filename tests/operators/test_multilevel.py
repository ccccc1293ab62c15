"""Multilevel circulant and Toeplitz matrices against SciPy's convolutions and Kronecker products."""

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import scipy.signal

import structmat as sm
from structmat import ArgumentTypeError, ArgumentValueError
from tests.cases import in_one_test

GRID = sm.MultilevelCirculant(np.arange(6.0), (2, 3))


def test_a_product_is_the_convolution_of_an_image():
    rng = np.random.default_rng(0)
    image, kernel = rng.standard_normal((9, 8)), rng.standard_normal((3, 3))
    padded = np.zeros(image.shape)
    padded[:3, :3] = kernel
    C = sm.MultilevelCirculant.from_kernel(np.roll(padded, (-1, -1), axis=(0, 1)))
    want = scipy.ndimage.convolve(image, kernel, mode="wrap")
    np.testing.assert_allclose(C.convolve(image), want, atol=1e-12)
    np.testing.assert_allclose(C.inv().convolve(np.stack([want, 2 * want])), np.stack([image, 2 * image]), atol=1e-10)


def test_separable_kernels_are_kronecker_products(backend):
    rng = np.random.default_rng(1)
    a, b, c = (rng.standard_normal(n) for n in (3, 4, 2))
    C = sm.MultilevelCirculant.from_kernel(backend.asarray(np.einsum("i,j,k->ijk", a, b, c)))
    want = np.kron(np.kron(*(scipy.linalg.circulant(v) for v in (a, b))), scipy.linalg.circulant(c))
    np.testing.assert_allclose(backend.to_numpy(C.to_dense()), want, atol=1e-13)


@in_one_test(
    "make, error, message",
    [
        (lambda: sm.MultilevelCirculant(np.ones((2, 3)), (2, 3)), ArgumentValueError, "use .*from_kernel"),
        (lambda: sm.MultilevelToeplitz(np.ones((3, 5)), (2, 3)), ArgumentValueError, "use .*from_offsets"),
        (lambda: GRID.matvec(np.ones((3, 2))), ArgumentValueError, "for arrays on the grid use convolve"),
        (lambda: GRID.prepare().matvec(np.ones((3, 2))), ArgumentValueError, "for arrays on the grid use convolve"),
        (lambda: GRID.convolve(np.ones(3)), ArgumentValueError, r"got \(3,\)"),
        (lambda: GRID.convolve(np.ones((3, 2))), ArgumentValueError, r"convolve: x .* \(\.\.\., 2, 3\), got \(3, 2\)"),
        (lambda: sm.MultilevelCirculant(np.ones(6), 6), ArgumentTypeError, "sizes must be a tuple of integers"),
        (lambda: sm.MultilevelCirculant(np.ones(6), (2.0, 3)), ArgumentTypeError, "sizes must be an integer"),
        (lambda: sm.MultilevelCirculant(np.ones(1), ()), ArgumentValueError, "sizes must have one size at least"),
        (lambda: sm.MultilevelCirculant(np.ones(0), (0, 3)), ArgumentValueError, "sizes must be at least 1, got 0"),
        (lambda: sm.MultilevelCirculant.from_kernel(np.ones(3), 2), ArgumentValueError, "kernel must have 2 axes"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


@in_one_test("method", ["solve", "lstsq", "matmat", "rmatvec", "inv_matvec"])
@in_one_test("batch", [(), (4,), (2, 4)])
def test_an_image_is_told_how_to_become_a_vector(method, batch):
    """And what the error says gives the product with the image."""
    C = sm.MultilevelCirculant(np.array([5.0, 1.0, -1.0, 0.5, 0.0, 2.0]), (2, 3))
    operators = [C, C.prepare()] if method != "lstsq" else [C]
    images = np.random.default_rng(13).standard_normal((*batch, 2, 3))
    for op in operators:
        with pytest.raises(ArgumentValueError) as caught:
            getattr(op, method)(images)
        argument, advice = caught.value.argument, caught.value.text.rpartition(": ")[2]
        got = eval(f"op.{advice}", {"op": op, argument: images})  # noqa: S307
        dense = C.to_dense()
        matrix = {"matmat": dense, "rmatvec": dense.T}.get(method, np.linalg.inv(dense))
        np.testing.assert_allclose(got.reshape(images.shape), (images.reshape(-1, 6) @ matrix.T).reshape(images.shape))


@pytest.mark.parametrize(("mode", "rows"), [("full", (10, 9)), ("valid", (6, 7))])
def test_a_toeplitz_product_is_the_linear_convolution_of_an_image(mode, rows):
    rng, cols = np.random.default_rng(6), (8, 8)
    image, kernel = rng.standard_normal(cols), rng.standard_normal((3, 2))
    first = (0, 0) if mode == "full" else (2, 1)  # row i of "valid" is row i + 2 of "full"
    t = np.zeros([m + n - 1 for m, n in zip(rows, cols, strict=True)])
    start = [n - 1 - f for n, f in zip(cols, first, strict=True)]
    t[start[0] : start[0] + 3, start[1] : start[1] + 2] = kernel
    T = sm.MultilevelToeplitz(t.ravel(), rows, cols)
    want = scipy.signal.convolve2d(image, kernel, mode)
    for op in (T, T.prepare()):
        np.testing.assert_allclose((op @ image.ravel()).reshape(rows), want, atol=1e-12)
        np.testing.assert_allclose(op.convolve(image), want, atol=1e-12)
    X = rng.standard_normal((2, 3, 64))
    np.testing.assert_allclose(T.prepare().matvec(X, out=np.empty((2, 3, T.shape[0]))), X @ T.to_dense().T, atol=1e-12)


def test_separable_toeplitz_matrices_are_kronecker_products(backend):
    rng = np.random.default_rng(7)
    a, b, c = (rng.standard_normal(n) for n in (5, 3, 7))
    T = sm.MultilevelToeplitz.from_offsets(backend.asarray(np.einsum("i,j,k->ijk", a, b, c)))
    parts = [scipy.linalg.toeplitz(v[len(v) // 2 :], v[len(v) // 2 :: -1]) for v in (a, b, c)]
    np.testing.assert_allclose(backend.to_numpy(T.to_dense()), np.kron(np.kron(*parts[:2]), parts[2]), atol=1e-14)


def test_covariances_of_grids(backend):
    values = np.random.default_rng(8).standard_normal((2, 3, 4))
    T = sm.MultilevelToeplitz.from_covariance(backend.asarray(values), levels=2)
    assert T.batch_shape == (2,)
    points = np.array(list(np.ndindex(3, 4)))
    i, j = np.moveaxis(np.abs(points[:, None] - points[None, :]), -1, 0)
    np.testing.assert_array_equal(backend.to_numpy(T.to_dense()), values[:, i, j])


@pytest.mark.parametrize(("rows", "cols"), [((3, 4), (3, 4)), ((2, 6), (3, 4)), ((3, 4), (2, 6))])
def test_the_identity_is_one_of_them_on_equal_grids_alone(rows, cols):
    offsets = np.prod([m + n - 1 for m, n in zip(rows, cols, strict=True)])
    T = sm.MultilevelToeplitz(np.random.default_rng(12).standard_normal(offsets), rows, cols)
    total = T + 2 * sm.Identity(12)
    np.testing.assert_allclose(total.to_dense(), T.to_dense() + 2 * np.eye(12), atol=1e-14)
    assert isinstance(total, sm.MultilevelToeplitz) == (rows == cols)
