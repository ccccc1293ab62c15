"""Cholesky factors and reflection coefficients of Toeplitz matrices, on every library, and their derivatives."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import structmat as sm
from structmat._toeplitz_systems import thresholds
from tests import backends
from tests.backends import Backend
from tests.cases import in_one_test

DTYPES = ("float32", "float64", "complex64", "complex128")
LIBRARIES_THAT_RAISE = {"numpy", "array_api_strict"}


def covariances(shape: tuple[int, ...], dtype: str, seed: int, nugget: float = 0.1) -> np.ndarray:
    """First columns of positive definite matrices: of waves of random frequencies, and a multiple of the identity."""
    rng = np.random.default_rng(seed)
    weights, frequencies = rng.uniform(0, 1, (2, *shape[:-1], 1, 5))
    waves = weights * np.exp(1j * np.pi * frequencies * np.arange(shape[-1])[:, None])
    c = np.sum(waves, axis=-1) + nugget * np.eye(1, shape[-1])[0]
    return (c if "complex" in dtype else c.real).astype(dtype)


def dense(c: np.ndarray) -> np.ndarray:
    """The matrices, in double precision."""
    wide = c.astype(np.result_type(c, "float64"))
    rows = [scipy.linalg.toeplitz(one) for one in wide.reshape(-1, c.shape[-1])]
    return np.reshape(rows, (*c.shape, c.shape[-1]))


def test_factor_and_coefficients_are_those_of_the_dense_matrix(backend: Backend) -> None:
    sizes = [1, 7] if backend.compiles else [1, 2, 3, 7, 20, 41, 60]
    cases = st.tuples(st.sampled_from([(), (2,), (3, 1)]), st.sampled_from(sizes), st.sampled_from(DTYPES))

    @settings(max_examples=3 * backend.examples)
    @given(cases, st.integers(0, 2**32 - 1), st.floats(1e-3, 10), st.sampled_from([-1, 0, 1]))
    def law(case: tuple[tuple[int, ...], int, str], seed: int, nugget: float, size: int) -> None:
        batch, n, dtype = case
        c = covariances((*batch, n), dtype, seed, nugget)
        scale = 2.0 ** (size * (50 if np.finfo(dtype).bits == 32 else 500))
        A, T = dense(c), sm.Toeplitz(backend.asarray(c * np.asarray(scale**2, c.real.dtype)))
        L, k = (backend.to_numpy(v) for v in (T.cholesky() / scale, T.reflection_coefficients()))
        assert L.dtype == k.dtype == dtype
        expected = np.linalg.cholesky(A)
        rounding = 4 * n * np.finfo(dtype).eps * np.max(np.linalg.cond(A))
        np.testing.assert_allclose(L, expected, rtol=0, atol=rounding * np.max(np.abs(expected)))
        np.testing.assert_array_equal(np.triu(L, 1), 0)
        np.testing.assert_array_equal(np.diagonal(L, axis1=-2, axis2=-1).imag, 0)

        assert k.shape == (*batch, n - 1)
        wide = A[..., 0].reshape(-1, n)
        # by Levinson's recursion for each leading section
        last = [[scipy.linalg.solve_toeplitz(t[:m], t[1 : m + 1])[-1] for m in range(1, n)] for t in wide]
        np.testing.assert_allclose(k, np.reshape(last, k.shape), rtol=0, atol=rounding)
        shares = np.log1p(-(np.abs(k.astype(A.dtype)) ** 2)) * np.arange(n - 1, 0, -1)
        log = n * np.log(A[..., 0, 0].real) + np.sum(shares, axis=-1)
        np.testing.assert_allclose(log, np.linalg.slogdet(A)[1], rtol=0, atol=n * rounding)

    law()


@pytest.mark.quick
@backends.on("jax")
def test_complex_factors_of_compiled_steps_are_those_of_the_dense_matrix(backend: Backend) -> None:
    """One case of the law above, which compiles for each of its dtypes and sizes."""
    c = covariances((5,), "complex64", 0)
    L = backend.to_numpy(sm.Toeplitz(backend.asarray(c)).cholesky())
    np.testing.assert_allclose(L, np.linalg.cholesky(dense(c)), atol=1e-5)
    np.testing.assert_array_equal(np.triu(L, 1), 0)


@settings(max_examples=20)
@given(
    st.sampled_from([(), (2,)]), st.integers(1, 60), st.sampled_from(["float64", "complex128"]), st.integers(0, 2**16)
)
def test_schurs_algorithm_and_the_dense_factor_are_the_same(
    batch: tuple[int, ...], n: int, dtype: str, seed: int
) -> None:
    """Of larger matrices NumPy's factor is that of Schur's algorithm."""
    T = sm.Toeplitz(covariances((*batch, n), dtype, seed, nugget=0.1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thresholds, "DENSE_CHOLESKY", 0)
        L = T.cholesky()
    np.testing.assert_allclose(L, T.cholesky(), rtol=0, atol=1e-11 * np.max(np.abs(L)))


def test_half_precision_is_computed_in_single_precision(backend: Backend, half: Any) -> None:
    c = backend.xp.asarray(backend.asarray(covariances((7,), "float32", 3)), dtype=half)
    wide = sm.Toeplitz(backend.xp.asarray(c, dtype=backend.dtype("float32")))
    for method in ("cholesky", "reflection_coefficients"):
        found = getattr(sm.Toeplitz(c), method)()
        assert found.dtype == c.dtype
        assert bool((found == backend.xp.asarray(getattr(wide, method)(), dtype=c.dtype)).all())


@settings(max_examples=20)
@given(st.integers(1, 12), st.sampled_from(["float64", "complex128"]), st.integers(0, 2**32 - 1), st.floats(-0.5, 0.5))
def test_the_first_section_that_is_not_positive_definite_is_named(n: int, dtype: str, seed: int, shift: float) -> None:
    c = covariances((n,), dtype, seed, nugget=0.0)
    c[0] += shift
    least = np.array([np.linalg.eigvalsh(dense(c[:m]))[0] for m in range(1, n + 1)])
    if np.min(np.abs(least)) < 1e-9:
        return
    T = sm.Toeplitz(c)
    if least[-1] > 0:
        assert np.all(np.abs(T.reflection_coefficients()) < 1)
        return
    text = rf"leading section of order {np.argmax(least < 0) + 1} is not"
    for method in ("cholesky", "reflection_coefficients"):
        with pytest.raises(np.linalg.LinAlgError, match=rf"Toeplitz\.{method}: the matrix is not positive.*{text}"):
            getattr(T, method)()


@pytest.mark.parametrize("c", [[1.0, 0.5, 2.0, 0.1], [1.0, 1.0, 1.0], [0.0, 0.0], [-1.0], [np.nan, 0.0], [1.0, np.nan]])
def test_what_is_not_positive_definite_is_an_error_or_nan(backend: Backend, c: list[float]) -> None:
    T = sm.Toeplitz(backend.asarray(np.array([np.eye(1, len(c))[0], c])))
    if backend.name in LIBRARIES_THAT_RAISE:
        with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
            T.cholesky()
    else:
        L = backend.to_numpy(T.cholesky())
        np.testing.assert_array_equal(L[0], np.eye(len(c)))
        assert np.isnan(L[1, -1, -1])


def test_matrices_that_are_not_square_or_not_hermitian_are_refused(backend: Backend) -> None:
    c, r = (backend.asarray(np.array(v)) for v in ([2.0, 1.0, 0.5], [2.0, 0.0, 0.5]))
    for method in ("cholesky", "reflection_coefficients"):
        with pytest.raises(sm.ArgumentValueError, match=rf"Toeplitz\.{method}: the operator must be square"):
            getattr(sm.Toeplitz(c, r[:2]), method)()
    for T in (sm.Toeplitz(c, r), sm.Toeplitz(c + 0.1j)):
        if backend.name in LIBRARIES_THAT_RAISE:
            with pytest.raises(sm.ArgumentValueError, match=r"Toeplitz\.cholesky: the matrix must be Hermitian"):
                T.cholesky()
        else:
            L, A = backend.to_numpy(T.cholesky()), backend.to_numpy(T.to_dense())
            np.testing.assert_allclose(L @ L.conj().T, (A + A.conj().T) / 2, atol=1e-14)


def test_coefficients_take_memory_for_vectors_alone() -> None:
    T = sm.Toeplitz(0.9 ** np.arange(2000))
    T.reflection_coefficients()
    tracemalloc.start()
    T.reflection_coefficients()
    assert tracemalloc.get_traced_memory()[1] < 20 * 8 * 2000
    tracemalloc.stop()


# The second derivative at coefficients of zero is delicate where |k| is differentiated.
COLUMNS = [0.5 ** np.arange(4), covariances((5,), "float64", 1), covariances((2, 3), "complex128", 2)]


@pytest.mark.parametrize("c", COLUMNS, ids=["Markov", "real", "complex stack"])
def test_derivatives_in_torch(c: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    column, row = (torch.from_numpy(v).requires_grad_() for v in (c, c.conj().copy()))
    for method in ("cholesky", "reflection_coefficients"):
        function = lambda c, r, method=method: getattr(sm.Toeplitz(c, r), method)()
        assert torch.autograd.gradcheck(function, (column, row))
        assert torch.autograd.gradgradcheck(function, (column, row))
    stack = torch.from_numpy(np.stack([c.real, 2 * c.real]) + np.eye(1, c.shape[-1])[0])
    mapped = torch.func.vmap(lambda c: sm.Toeplitz(c).cholesky())(stack)
    torch.testing.assert_close(mapped, sm.Toeplitz(stack).cholesky())


def test_derivatives_in_jax() -> None:
    """By differences, and first and second ones by those of the dense factor."""
    backends.get("jax")
    jax, test_util = (pytest.importorskip(name) for name in ("jax", "jax.test_util"))
    jnp, i = jax.numpy, np.arange(4)
    ours = lambda c: sm.Toeplitz(c).cholesky()
    of_dense = lambda c: jnp.linalg.cholesky(jnp.concatenate([c[:0:-1].conj(), c])[i[:, None] - i + 3])
    loss = lambda factor: lambda c: jnp.sum(jnp.abs(factor(c) - 1j * i) ** 3)
    test_util.check_grads(jax.jit(ours), (jnp.asarray(COLUMNS[0]),), order=1)
    stack = jnp.asarray(covariances((3, 4), "complex128", 5))
    found, expected = (jax.jit(jax.vmap(jax.grad(loss(factor))))(stack) for factor in (ours, of_dense))
    np.testing.assert_allclose(found, expected, atol=1e-10)
    columns = jnp.stack([jnp.asarray(COLUMNS[0]), stack.real[0]])
    found, expected = (jax.jit(jax.vmap(jax.hessian(loss(factor))))(columns) for factor in (ours, of_dense))
    np.testing.assert_allclose(found, expected, atol=1e-9)
    gradient = jax.jit(jax.grad(lambda T: T.cholesky().sum()))(sm.Toeplitz(stack.real))
    np.testing.assert_allclose(gradient.c[:, 1:], gradient.r[:, 1:])  # so that a step keeps it symmetric


@in_one_test("where", [(0, 0, 0), (0, 1, 1), (2, 0, 1)])
@in_one_test("value", [np.nan, np.inf])
def test_factors_of_matrices_that_are_not_finite_are_errors(where, value):
    """LAPACK returns a factor of NaN for them, of which the user of one block or several shall hear."""
    blocks = np.zeros((3, 2, 2))
    blocks[0] = [[4.0, 1.0], [1.0, 5.0]]
    blocks[where] = value
    with pytest.raises(np.linalg.LinAlgError, match=r"leading section of . x . blocks is not, as it holds NaN"):
        sm.BlockToeplitz(blocks).cholesky()
    with pytest.raises(np.linalg.LinAlgError, match=r"leading section of order . is not, as it holds NaN"):
        sm.Toeplitz(np.where(np.arange(3) == where[0], value, [4.0, 1.0, 0.0])).cholesky()


@pytest.fixture
def jax_backend() -> Backend:
    """Return the backend, whose import takes seconds, outside of the time of a test."""
    return backends.get("jax")


@pytest.mark.parametrize(
    "T",
    [
        sm.Toeplitz(np.array([4.0, 2.0, 1.0])),
        pytest.param(
            sm.BlockToeplitz(
                np.array([[[5.0, 1.0], [1.0, 4.0]], [[1.0, 0.5], [0.25, 1.0]], [[0.5, 0.0], [0.25, 0.5]]])
            ),
        ),
    ],
    ids=["numbers", "blocks"],
)
def test_factors_under_jit_are_those_of_dense_matrices(jax_backend: Backend, T: Any) -> None:
    """A compiler takes steps of one size, whose rows are chosen by masks."""
    jax = pytest.importorskip("jax")
    L = jax.jit(lambda T: T.cholesky())(type(T)(jax_backend.asarray(T.c)))
    np.testing.assert_allclose(L, np.linalg.cholesky(T.to_dense()), atol=1e-14)
