"""The operator's vectors are of the library, dtype and device of the matrix."""

import numpy as np
import pytest
from array_api_compat import array_namespace, device

from structmat.fit import fit_cdd


def with_one_clear_minimum():
    """A product and a little noise: rounding must not decide between minima."""
    rng = np.random.default_rng(0)
    i, j = np.indices((6, 9))
    product = rng.uniform(1, 2, 6)[i] * rng.uniform(1, 2, (2, 6))[j // 6, (i - j) % 6] * rng.uniform(1, 2, 9)[j]
    return product + 0.1 * rng.standard_normal((6, 9))


VALUES = with_one_clear_minimum()


def check(matrix, dtype, tolerance=1e-6):
    fit = fit_cdd(matrix, rng=0)
    xp = array_namespace(matrix)
    for factor in fit.operator.factors:
        assert factor.dtype == dtype
    dense = fit.operator.to_dense()
    assert array_namespace(dense) is xp
    assert device(dense) == device(matrix)
    assert fit.error == pytest.approx(fit_cdd(VALUES, rng=0).error, abs=tolerance)


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_array_api_strict(name):
    xp = pytest.importorskip("array_api_strict")
    dtype = getattr(xp, name)
    check(xp.asarray(VALUES, dtype=dtype), dtype)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("float64", 1e-12), ("float32", 1e-6), ("float16", 1e-2), ("bfloat16", 5e-2), ("complex128", 1e-6)],
)
def test_torch(name, tolerance):
    torch = pytest.importorskip("torch")
    dtype = getattr(torch, name)
    check(torch.asarray(VALUES).to(dtype), dtype, tolerance)


def test_torch_gradients_and_lazy_conjugates():
    torch = pytest.importorskip("torch")
    leaf = torch.asarray(VALUES + 1j * VALUES[::-1].copy(), dtype=torch.complex128).requires_grad_()
    fit = fit_cdd(leaf.conj(), rng=0)
    assert leaf.grad is None
    assert not fit.operator.to_dense().requires_grad
    assert fit.error == pytest.approx(fit_cdd(leaf.detach().numpy().conj(), rng=0).error, rel=1e-9)


def test_lazy_negatives_of_torch():
    torch = pytest.importorskip("torch")
    matrix = torch.asarray(VALUES + 1j * VALUES[::-1].copy()).conj().imag
    assert matrix.is_neg()
    assert fit_cdd(matrix, rng=0).error == fit_cdd(-VALUES[::-1], rng=0).error


@pytest.mark.parametrize(("name", "tolerance"), [("float32", 1e-6), ("bfloat16", 5e-2)])
def test_jax(name, tolerance):
    jnp = pytest.importorskip("jax.numpy")
    dtype = jnp.dtype(name)
    check(jnp.asarray(VALUES, dtype=dtype), dtype, tolerance)


@pytest.mark.parametrize("library", ["array_api_strict", "torch", "jax.numpy"])
def test_integers(library):
    xp = pytest.importorskip(library)
    fit = fit_cdd(xp.asarray([[1, 2], [3, 5]]), rng=0)
    assert np.asarray(fit.operator.to_dense()) == pytest.approx(np.array([[1.0, 2.0], [3.0, 5.0]]), abs=1e-5)
