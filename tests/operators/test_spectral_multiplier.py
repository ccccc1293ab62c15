"""Matrices that transforms make diagonal: boundaries against padded arrays, Laplacians, families, derivatives."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.signal
import scipy.sparse.linalg
import torch

import structmat as sm
from structmat._arrays.namespaces import numpy_namespace
from tests.backends import Backend, on
from tests.cases import in_one_test

BOUNDARIES = ("reflect", "zero", "odd", "wrap")


def beyond(x: np.ndarray, reach: int, boundary: str, axis: int) -> np.ndarray:
    """An array with what lies beyond the two edges of an axis."""
    x = np.moveaxis(x, axis, -1)
    if boundary == "zero":
        zero = np.zeros_like(x[..., :1])
        parts = [-x[..., ::-1], zero, x, zero, -x[..., ::-1]]
    elif boundary == "wrap":
        parts = [x, x, x]
    else:
        mirrored = x[..., ::-1] * (1 if boundary == "reflect" else -1)
        parts = [mirrored, x, mirrored]
    first = sum(part.shape[-1] for part in parts[: len(parts) // 2])
    joined = np.concatenate(parts, axis=-1)[..., first - reach : first + x.shape[-1] + reach]
    return np.moveaxis(joined, -1, axis)


@on("numpy", "torch", "array_api_strict")
@pytest.mark.parametrize("boundary", [*product(BOUNDARIES, repeat=2)])
def test_kernels_act_on_what_lies_beyond_the_edges(backend: Backend, boundary: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 5))
    kernel = rng.standard_normal((5, 3))
    even = kernel + kernel[::-1]
    even = even + even[:, ::-1]
    padded = beyond(beyond(x, 2, boundary[0], 0), 1, boundary[1], 1)
    convolution = sm.GridConvolution.from_kernel(backend.asarray(kernel), (4, 5), boundary)
    multiplier = sm.SpectralMultiplier.from_kernel(backend.asarray(even), (4, 5), boundary)
    for op, own in ((convolution, kernel), (multiplier, even)):
        wanted = scipy.signal.convolve2d(padded, own, mode="valid")
        np.testing.assert_allclose(backend.to_numpy(op.convolve(backend.asarray(x))), wanted, atol=1e-13)
    # The nearest matrix of the family is the orthogonal projection: that of the symmetric part.
    near = sm.SpectralMultiplier.from_kernel(symmetrised(kernel, boundary), (4, 5), boundary)
    A, V = (
        np.asarray(op.to_dense()) for op in (sm.GridConvolution.from_kernel(kernel, (4, 5), boundary), near.eig()[1])
    )
    np.testing.assert_allclose(np.diagonal(V.conj().T @ A @ V), near.eigvals(), atol=1e-12)


@in_one_test("boundary", [*product(BOUNDARIES, repeat=2)])
@in_one_test("sizes, own", [((4, 5), (3, 3)), ((3, 2), (5, 3)), ((1, 6), (1, 11))])
def test_sums_over_windows_are_the_products_by_transforms(sizes: Any, own: Any, boundary: Any) -> None:
    rng = np.random.default_rng(0)
    count, side = int(np.prod(own)), int(np.prod(sizes))
    kernels = rng.standard_normal(count), rng.standard_normal((2, count)) + 1j * rng.standard_normal((2, count))
    for kernel in kernels:
        A = sm.GridConvolution(kernel, own, sizes, boundary)
        for x in (rng.standard_normal(side), rng.standard_normal((3, 2, side)) * (1 + 2j)):
            for op in (A, A.T):
                wanted = op._plan_by_transforms(numpy_namespace).apply(x, numpy_namespace)
                np.testing.assert_allclose(op.matvec(x), wanted, atol=1e-12)


@on("numpy", "torch")
def test_prepared_products(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    A = sm.GridConvolution.from_kernel(backend.asarray(rng.standard_normal((2, 3, 3))), (4, 5), ("zero", "reflect"))
    L = sm.laplacian((4, 5), ("wrap", "odd"), like=A.kernel)
    for op in (A, sm.GridConvolution(A.kernel[0], (3, 3), (4, 5), A.boundary), A.T, L):
        for lead in ((2,), (3, 2)):
            x = backend.asarray(rng.standard_normal((*lead, 20)))
            np.testing.assert_allclose(op.prepare().matvec(x), op.matvec(x), atol=1e-13)


def symmetrised(kernel: np.ndarray, boundary: Any) -> np.ndarray:
    for axis, name in enumerate(boundary):
        kernel = kernel if name == "wrap" else (kernel + np.flip(kernel, axis)) / 2
    return kernel


@in_one_test("boundary, name", [("reflect", "neumann"), ("zero", "dirichlet"), ("wrap", "periodic")])
@in_one_test("shape", [(5,), (4, 3), (3, 4, 5)])
def test_laplacians_are_those_of_scipy(shape: tuple[int, ...], boundary: Any, name: str) -> None:
    theirs = scipy.sparse.linalg.LaplacianNd(shape, boundary_conditions=name).toarray()
    L = sm.laplacian(shape, boundary)
    np.testing.assert_allclose(L.to_dense(), theirs, atol=1e-14)
    assert L.rank() == np.linalg.matrix_rank(theirs)
    np.testing.assert_allclose(L.pinv().to_dense(), np.linalg.pinv(theirs), atol=1e-13)
    half = sm.laplacian(shape, boundary, spacing=0.5, like=torch.ones(1))
    assert half.dtype == torch.float32
    np.testing.assert_allclose(half.to_dense(), 4 * theirs, atol=1e-4)


def test_steps_and_edges_by_axis() -> None:
    L = sm.laplacian((3, 4), ("odd", "zero"), spacing=(0.5, 2.0))
    for steps in ([0.5, 2], np.array([0.5, 2.0]), np.float32([0.5, 2]), (np.float32(0.5), np.int64(2))):
        again = sm.laplacian((3, 4), ("odd", "zero"), spacing=steps)
        np.testing.assert_array_equal(again.spectrum, L.spectrum)
    odd = np.array([[-3.0, 1.0, 0.0], [1.0, -2.0, 1.0], [0.0, 1.0, -3.0]])
    zero = -2 * np.eye(4) + np.eye(4, k=1) + np.eye(4, k=-1)
    np.testing.assert_allclose(L.to_dense(), 4 * np.kron(odd, np.eye(4)) + np.kron(np.eye(3), zero) / 4, atol=1e-14)
    assert sm.laplacian(4).sizes == (4,)


def test_circulants_are_the_case_of_fourier_transforms() -> None:
    c = np.random.default_rng(0).standard_normal(6)
    for C, sizes in ((sm.Circulant(c), (6,)), (sm.MultilevelCirculant(c, (2, 3)), (2, 3))):
        L = sm.laplacian(sizes, "wrap")
        for found, wanted in ((L + C, L.to_dense() + C.to_dense()), (C @ L, C.to_dense() @ L.to_dense())):
            assert type(found) is sm.SpectralMultiplier
            np.testing.assert_allclose(found.to_dense(), wanted, atol=1e-13)
    reflecting = sm.laplacian(6)
    assert type(reflecting + sm.Circulant(c)) is sm.Sum
    assert type(reflecting + sm.laplacian(6, "odd")) is sm.Sum
    assert type(reflecting @ reflecting.expm() @ (2j * reflecting)) is sm.SpectralMultiplier


def test_kronecker_products_and_sums_of_laplacians_have_closed_forms() -> None:
    one, other = sm.laplacian(3, "reflect"), sm.laplacian(4, "zero")
    whole = sm.KroneckerSum(one, other)
    both = sm.laplacian((3, 4), ("reflect", "zero"))
    np.testing.assert_allclose(whole.expm().to_dense(), both.expm().to_dense(), atol=1e-14)
    np.testing.assert_allclose(whole.slogdet().logabsdet, both.slogdet().logabsdet)


def test_precision_matrices_with_uneven_noise_are_solved_with_the_mean() -> None:
    rng = np.random.default_rng(0)
    Q = sm.Identity(400) - 20 * sm.laplacian((20, 20)) + sm.Diagonal(rng.uniform(0.5, 1.5, 400))
    b = rng.standard_normal(400)
    found = sm.solve(Q, b, method=sm.CG())
    np.testing.assert_allclose(Q @ found.x, b, atol=1e-8)
    assert 0 < found.iterations < 12


def value(kernel: Any, x: Any) -> Any:
    A = sm.SpectralMultiplier.from_kernel(kernel, (4, 3)) + 9 * sm.Identity(12)
    return A.inv_matvec(x).sum() + A.slogdet().logabsdet + A.sqrtm().trace()


def test_derivatives_of_torch() -> None:
    kernel = torch.rand(3, 3, dtype=torch.float64)
    x = torch.rand(12, dtype=torch.float64)
    torch.autograd.gradcheck(value, (kernel.requires_grad_(), x.requires_grad_()))
    kernel, x = kernel.detach(), x.detach()
    gradient = torch.func.grad(value)(kernel, x)
    centre = torch.zeros_like(kernel)
    centre[1, 1] = 1e-6
    np.testing.assert_allclose(
        gradient[1, 1], (value(kernel + centre, x) - value(kernel - centre, x)) / 2e-6, rtol=1e-6
    )


def test_torch_compiles_products() -> None:
    kernel, x = torch.rand(3, 3, dtype=torch.float64), torch.rand(12, dtype=torch.float64)

    def blurred(kernel: Any, x: Any) -> Any:
        return sm.SpectralMultiplier.from_kernel(kernel, (4, 3)).matvec(x)

    compiled = torch.compile(blurred, backend="eager", fullgraph=True)
    np.testing.assert_allclose(compiled(kernel, x), blurred(kernel, x), atol=1e-14)


def test_transformations_of_jax() -> None:
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    kernel, x = rng.random((3, 3)), rng.random((2, 12))

    def solved(kernel: Any, x: Any) -> Any:
        A = sm.SpectralMultiplier.from_kernel(kernel, (4, 3), ("reflect", "wrap")) + 9 * sm.Identity(12)
        return A.inv_matvec(x).sum() + A.slogdet().logabsdet

    mapped = jax.jit(jax.vmap(jax.value_and_grad(solved), in_axes=(None, 0)))
    values, gradients = mapped(jax.numpy.asarray(kernel), jax.numpy.asarray(x))
    given = torch.tensor(kernel, requires_grad=True)
    wanted = solved(given, torch.tensor(x[1]))
    wanted.backward()
    np.testing.assert_allclose(values[1], wanted.item())
    np.testing.assert_allclose(gradients[1], given.grad, atol=1e-12)
