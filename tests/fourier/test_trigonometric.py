"""Cosine and sine transforms: agreement with SciPy on all libraries, derivatives, and what is stored of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.fft
import torch
from array_api_compat import torch as torch_namespace

import structmat as sm
from structmat._arrays.libraries import namespace, rules_of
from structmat._arrays.namespaces import numpy_namespace
from structmat._fourier import chunks, trigonometric
from structmat._fourier.diagonals import diagonal_by_transform
from structmat._fourier.trigonometric import INVERSES, GridTransform, trigonometric_transform
from tests.backends import Backend, on
from tests.cases import in_one_test

LENGTHS = (1, 2, 3, 4, 7, 8, 9, 30, 31, 64, 305)
TO_COMPILE = (1, 5, 6)


def by_scipy(x: np.ndarray, kind: str, axis: int = -1) -> np.ndarray:
    if x.shape[axis] == 1:  # where SciPy has no cosine transform of type 1
        return x
    transform = scipy.fft.dct if kind[:3] == "dct" else scipy.fft.dst
    return transform(x, int(kind[3]), norm="ortho", axis=axis)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_transforms_are_those_of_scipy(backend: Backend, dtype: str) -> None:
    if backend.compiles and dtype != "float64":
        pytest.skip("compiles the same as much again")
    rng = np.random.default_rng(0)
    for n in TO_COMPILE if backend.compiles else LENGTHS:
        x = rng.standard_normal((2, n)) + (1j * rng.standard_normal((2, n)) if dtype == "complex128" else 0)
        x = x.astype(dtype)
        given = backend.asarray(x)
        rules = rules_of(namespace(given))
        for kind in INVERSES:
            found = backend.to_numpy(rules.compiled(GridTransform(kind, (n,), (0,), namespace(given)))(given))
            assert found.dtype == dtype
            tolerance = (2e-6 if dtype == "float32" else 4e-15) * np.linalg.norm(x)
            np.testing.assert_allclose(found, by_scipy(x, kind), rtol=0, atol=tolerance, err_msg=f"{kind}, {n}")


@on("numpy", "torch")
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_lengths_with_large_prime_factors_go_by_stored_matrices(
    backend: Backend, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: dict[Any, Any] = {}
    monkeypatch.setattr(trigonometric, "_tables", stored)
    rng = np.random.default_rng(0)
    for kind, n in (("dst1", 256), ("dct1", 74), ("dct2", 71), ("dst3", 142), ("dct4", 73), ("dst4", 146)):
        x = rng.standard_normal((2, n, 3)) + (1j * rng.standard_normal((2, n, 3)) if dtype == "complex128" else 0)
        x = x.astype(dtype)
        given = backend.asarray(x)
        for _ in range(2):
            found = backend.to_numpy(trigonometric_transform(given, kind, namespace(given), axis=-2))
        assert found.dtype == dtype
        tolerance = (2e-6 if dtype == "float32" else 4e-15) * np.linalg.norm(x)
        np.testing.assert_allclose(found, by_scipy(x, kind, -2), rtol=0, atol=tolerance)
    assert len(stored) == 6


@in_one_test("kind", INVERSES)
def test_any_axis_and_no_vectors(kind: str) -> None:
    x = np.random.default_rng(0).standard_normal((3, 4, 5))
    for axis in (-1, -2, -3):
        found = trigonometric_transform(torch.from_numpy(x), kind, torch_namespace, axis=axis)
        np.testing.assert_allclose(found, by_scipy(x, kind, axis), atol=1e-14)
    for shape in ((0, 4), (2, 0, 4)):
        for none, xp in ((np.zeros(shape), namespace(x)), (torch.zeros(shape), torch_namespace)):
            assert tuple(trigonometric_transform(none, kind, xp).shape) == shape


@pytest.mark.parametrize("n", [6, 7])
@pytest.mark.parametrize("kind", INVERSES)
def test_derivatives_of_torch(kind: str, n: int) -> None:
    def transform(x: Any) -> Any:
        return trigonometric_transform(x, kind, torch_namespace)

    x = torch.randn(2, n, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(transform, x)
    matrix = torch.from_numpy(by_scipy(np.eye(n), kind, 0))
    np.testing.assert_allclose(torch.func.jacrev(transform)(x[0].detach()), matrix, atol=1e-14)
    np.testing.assert_allclose(torch.func.jacfwd(transform)(x[0].detach()), matrix, atol=1e-14)
    np.testing.assert_allclose(
        torch.func.vmap(transform, in_dims=1)(torch.eye(n, dtype=torch.float64)).T, matrix, atol=1e-14
    )


@pytest.mark.parametrize("kind", ["dct2", "dst1", "dct4"])
def test_batches_in_chunks_are_those_of_their_vectors(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 1)
    x = np.random.default_rng(0).standard_normal((3, 5, 6))
    found = trigonometric_transform(torch.from_numpy(x), kind, torch_namespace)
    np.testing.assert_allclose(found, by_scipy(x, kind), atol=1e-14)


def test_transformations_of_jax() -> None:
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    for kind, n in (("dct2", 6), ("dst3", 5), ("dct4", 5)):
        matrix = by_scipy(np.eye(n), kind, 0)

        def transform(x: Any, kind: str = kind) -> Any:
            return trigonometric_transform(x, kind, jax.numpy)

        np.testing.assert_allclose(jax.jit(jax.jacrev(transform))(np.ones(n)), matrix, atol=1e-14)
        np.testing.assert_allclose(jax.jit(jax.vmap(transform, 1, 1))(np.eye(n)), matrix, atol=1e-14)


def test_factors_are_stored_where_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    stored: dict[Any, Any] = {}
    monkeypatch.setattr(trigonometric, "_tables", stored)
    x = torch.ones(6, dtype=torch.float64)
    with torch.inference_mode():
        trigonometric_transform(x, "dct2", torch_namespace)
    assert not stored
    trigonometric_transform(x.clone().requires_grad_(), "dct2", torch_namespace).sum().backward()
    (tables,) = stored.values()
    assert not any(table.requires_grad or table.is_inference() for table in tables)
    trigonometric_transform(x, "dst2", torch_namespace)  # whose factors are the same
    assert len(stored) == 1
    for n in range(2, 100):
        trigonometric_transform(torch.ones(n), "dct2", torch_namespace)
    assert len(stored) <= trigonometric._STORED


EIGENVECTORS = {
    "Fourier": lambda n, axes: sm.Fourier(n, axes=axes),
    "Fourier of blocks": lambda n, axes: sm.Fourier(n, 2, inverse=True, axes=axes),
    **{f"DCT of type {k}": lambda n, axes, k=k: sm.CosineTransform(n, k, axes) for k in range(1, 5)},
    **{f"DST of type {k}": lambda n, axes, k=k: sm.SineTransform(n, k, axes) for k in range(1, 5)},
}


@on("numpy", "torch")
@in_one_test("make", EIGENVECTORS.values())
def test_diagonals_of_matrices_with_such_eigenvectors(backend: Backend, make: Any) -> None:
    rng = np.random.default_rng(0)
    for n, axes in ((1, None), (2, None), (5, None), ((3, 4), None), ((3, 4), 1), ((2, 3, 2), (0, 2))):
        vectors = make(n, axes)
        values = rng.standard_normal((3, vectors.shape[0])) + 1j * rng.standard_normal((3, vectors.shape[0]))
        A = sm.Eigendecomposition(backend.asarray(values), vectors)
        expected = np.diagonal(backend.to_numpy(A.to_dense()), axis1=-2, axis2=-1)
        np.testing.assert_allclose(backend.to_numpy(A.diagonal()), expected, atol=1e-13)
    long = make(5000, None)  # which is not written out
    K = sm.Kronecker(sm.Eigendecomposition(np.ones(long.shape[0]), long), np.array([[2.0, 1.0], [1.0, 2.0]]))
    inverse = (K + sm.Identity(K.shape[0])).inv()
    np.testing.assert_allclose(inverse.diagonal(), 3 / 8, atol=1e-12)


@pytest.mark.parametrize("kind", [sm.CosineTransform, sm.SineTransform])
def test_transposes_are_inverses(kind: Any) -> None:
    for of_type, of_transpose in ((1, 1), (2, 3), (3, 2), (4, 4)):
        C = kind((3, 4), of_type, axes=-1)
        assert C.axes == (1,)
        assert C.T.type == C.H.type == C.inv().type == of_transpose
        np.testing.assert_allclose((C.T @ C).to_dense(), np.eye(12), atol=1e-15)
    assert kind((3, 4), axes=(1, 0)).axes is None


@pytest.mark.parametrize("n", [2, 3, 4, 7])
@in_one_test("kind", INVERSES)
def test_diagonals_are_sums_of_eigenvalues_with_the_squares_of_the_transform(kind, n):
    transform = trigonometric_transform(np.eye(n), kind, numpy_namespace).T
    values = np.random.default_rng(n).standard_normal((2, n))
    found = diagonal_by_transform(values, kind, numpy_namespace)
    np.testing.assert_allclose(found, values @ transform**2, atol=1e-14)
