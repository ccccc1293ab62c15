"""Stacks of small Toeplitz and Hankel matrices, and systems that torch and JAX solve themselves on their device."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import structmat as sm
from structmat._toeplitz_systems import stacks
from tests import backends

KINDS = {
    "random": lambda k, rng: rng.standard_normal((2, len(k))),
    "complex": lambda k, rng: rng.standard_normal((2, len(k))) + 1j * rng.standard_normal((2, len(k))),
    "Markov": lambda k, _: (0.9**k, 0.9**k),
    "singular sections": lambda k, rng: np.where(k == 0, 0.0, rng.standard_normal((2, len(k)))),
    "offset": lambda k, _: (1e8 + 0.9**k, 1e8 + 0.7**k),
    "uneven": lambda k, _: ((k == 0) + 1e9 * (k == k[-1]), (k == 0) + 0.3 * (k == 1)),
    "biharmonic": lambda k, _: (np.select([k == 0, k == 1, k == 2], [6.0, -4.0, 1.0], 0.0),) * 2,
    "large": lambda k, rng: 1e300 * rng.standard_normal((2, len(k))),
    "small": lambda k, rng: 1e-300 * rng.standard_normal((2, len(k))),
    "triangular": lambda k, _: (2.0 - 1.0 * (k == 0), 1.0 * (k == 0)),
}
"""First column and first row of a matrix of each kind."""


def stack(kinds: list[str], n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """First columns and first rows of one matrix of each kind."""
    rng, k = np.random.default_rng(seed), np.arange(n)
    c, r = (np.array(v) for v in zip(*(KINDS[kind](k, rng) for kind in kinds), strict=True))
    r[:, 0] = c[:, 0]
    return c, r


def dense(c: np.ndarray, r: np.ndarray) -> np.ndarray:
    return np.array([scipy.linalg.toeplitz(*pair) for pair in zip(c, r, strict=True)])


@pytest.mark.parametrize("library", ["numpy", "torch"])
@settings(max_examples=10)
@given(
    n=st.sampled_from([1, 2, 3, 8, 16, 17, 40, 129]),
    chosen=st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=6),
    seed=st.integers(0, 99),
    columns=st.integers(1, 3),
)
def test_each_matrix_of_a_stack_has_the_results_of_lapack(
    library: str, n: int, chosen: list[str], seed: int, columns: int
) -> None:
    """In the library, with its neighbours, as alone: with a small backward error in every row, and its determinant."""
    xp = pytest.importorskip(library)
    unfit = {1: "singular sections", 129: "triangular"}.get(n)  # which is singular, and of condition 3^129
    chosen = [kind for kind in chosen if kind != unfit] or ["random"]
    c, r = stack(chosen, n, seed)
    T = dense(c, r)
    b = T @ np.random.default_rng(seed).standard_normal((len(T), n, columns))
    for op, of_columns in (
        (sm.Toeplitz(xp.asarray(c), xp.asarray(r)), slice(None)),
        (sm.Hankel(xp.asarray(T[:, :, -1].copy()), xp.asarray(T[:, -1, ::-1].copy())), slice(None, None, -1)),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of single matrices that are ill-conditioned
            x = np.asarray(op.solve(xp.asarray(b)))[:, of_columns]
            sign, log = map(np.asarray, op.slogdet())
        for one, right, found in zip(T, b, x, strict=True):
            scale = np.max(np.abs(one))
            residual = np.abs(one / scale @ found - right / scale)
            row_sums = np.sum(np.abs(one / scale), axis=-1, keepdims=True)
            assert np.all(residual <= 1e-14 * n * row_sums * np.max(np.abs(found), axis=0))
        for one, phase, logarithm in zip(np.asarray(op.to_dense()), sign, log, strict=True):
            scale = np.max(np.abs(one))
            expected = np.linalg.slogdet(one / scale)
            tolerance = 1e-15 * n * (100 + np.linalg.cond(one / scale))
            assert abs(logarithm - expected.logabsdet - n * np.log(scale)) <= tolerance + 1e-14 * abs(logarithm)
            assert abs(phase - expected.sign) <= tolerance


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_batch_axes_of_matrices_and_vectors_broadcast(library: str, dtype: str) -> None:
    xp, rng = pytest.importorskip(library), np.random.default_rng(0)
    c, r, b = (rng.standard_normal((*batch, 5)) for batch in ((2, 1), (3,), (4, 1, 3)))
    c[..., 0] += 6
    c, r = (v.astype("float32") for v in (c, r))
    b = (b * (1 - 1j)).astype(dtype) if dtype == "complex128" else b.astype(dtype)
    T = sm.Toeplitz(xp.asarray(c), xp.asarray(r))
    x = np.asarray(T.inv_matvec(xp.asarray(b)))
    expected = np.linalg.solve(np.asarray(T.to_dense()).astype("float64"), b[..., None])[..., 0]
    assert x.shape == (4, 2, 3, 5)
    np.testing.assert_allclose(x, expected, rtol=1e-6, atol=1e-7)
    assert np.asarray(T.inv_matvec(xp.asarray(b[:0]))).shape == (0, 2, 3, 5)
    identity = np.asarray(T.inv().to_dense() @ T.to_dense())
    np.testing.assert_allclose(identity, np.broadcast_to(np.eye(5), (2, 3, 5, 5)), atol=1e-5)


def test_a_member_that_has_no_solution_leaves_the_others_alone() -> None:
    c, r = stack(["random", "Markov", "random"], 6)
    c[0], r[0], c[2, 1] = 1, 1, np.nan
    b = np.ones((3, 6, 1))
    torch = pytest.importorskip("torch")
    T, alone = sm.Toeplitz(c, r), sm.Toeplitz(c[1], r[1])
    of_torch = sm.Toeplitz(torch.from_numpy(c), torch.from_numpy(r))
    x = np.asarray(of_torch.solve(torch.from_numpy(b)))
    assert np.all(np.isnan(x[[0, 2]]))
    np.testing.assert_allclose(x[1], alone.solve(b[1]), rtol=1e-12)
    for found in (T, of_torch):
        sign, log = map(np.asarray, found.slogdet())
        np.testing.assert_array_equal(sign, [0, 1, np.nan])
        np.testing.assert_allclose(log, [-np.inf, alone.slogdet()[1], np.nan], rtol=1e-12)
    assert np.all(np.isnan(np.asarray(of_torch.inv().x)[[0, 2]]))
    np.testing.assert_allclose(np.asarray(of_torch.inv().x)[1], alone.inv().x, atol=1e-13)
    zeros = sm.Toeplitz(np.zeros((2, 6)))
    for method, call in (("solve", lambda: T.solve(b)), ("inv", T.inv), ("inv", zeros.inv)):
        with pytest.raises(np.linalg.LinAlgError, match=rf"Toeplitz\.{method}: the matrix is singular"):
            call()


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_ill_conditioned_member_comes_with_a_warning(library: str, dtype: str) -> None:
    """Also where right-hand sides hide it; none comes for matrices of a condition far from the inverse of epsilon."""
    xp, k = pytest.importorskip(library), np.arange(40.0)
    nugget = {"float32": 1e-4, "float64": 1e-10}[dtype]
    gaussian = np.exp(-0.02 * k**2)
    c = np.array([0.5**k, gaussian + nugget * (k == 0), gaussian]).astype(dtype)
    b = (dense(c, c).astype(float) @ np.ones((3, 40, 1))).astype(dtype)
    T, right = sm.Toeplitz(xp.asarray(c)), xp.asarray(b)
    for method, call in (("solve", lambda: T.solve(right)), ("slogdet", T.slogdet), ("inv", T.inv)):
        with pytest.warns(scipy.linalg.LinAlgWarning, match=rf"Toeplitz\.{method}: "):
            call()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        T = sm.Toeplitz(xp.asarray(c[:2]))
        T.solve(xp.asarray(b[:2]))
        T.slogdet()


def no_host(*_: Any) -> None:
    raise AssertionError("this is computed on the host")


def test_torch_solves_systems_of_up_to_512_rows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(stacks, "on_host", no_host)
    c = torch.from_numpy(0.9 ** np.arange(512.0)).float().requires_grad_()
    T, b = sm.Toeplitz(c), torch.ones(512)
    (T.solve(b).sum() + T.slogdet()[1] + T.inv().matvec(b).sum()).backward()
    assert torch.isfinite(c.grad).all()
    assert torch.func.vmap(torch.func.grad(lambda c: sm.Toeplitz(c).solve(b[:6]).sum()))(c[None, :6].detach()).ndim == 2
    larger = sm.Toeplitz(torch.cat([c.detach(), c[:1].detach() * 0]))
    for call in (lambda: larger.solve(torch.ones(513)), larger.slogdet, larger.inv):
        with pytest.raises(AssertionError, match="on the host"):
            call()


@pytest.mark.parametrize("double", [False, True])
def test_jax_solves_systems_of_up_to_512_rows_itself(double: bool) -> None:
    """In double precision, also where its arrays cannot have it: no digit of float32 is lost."""
    jax = pytest.importorskip("jax")
    if not hasattr(jax, "enable_x64"):
        pytest.skip("this version of JAX has double precision for all or nothing")
    jnp = backends.get("jax").xp
    c = np.array([1.0, 1.0 + 2.0**-12, 0.9], "float32")  # of a condition of about 1e5
    exact = scipy.linalg.toeplitz(c.astype(float))

    def compute(c: Any) -> Any:
        T = sm.Toeplitz(c)
        x, log = T.solve(jnp.ones(len(c), "float32")), T.slogdet()[1]
        return x.sum() + log, (x, log, T.inv().x)

    with jax.enable_x64(double):
        gradient = jax.grad(compute, has_aux=True)
        assert "pure_callback" not in str(jax.make_jaxpr(gradient)(jnp.ones(512, "float32")))
        if double:  # it is compiled by other tests
            assert "pure_callback" in str(jax.make_jaxpr(compute)(jnp.ones(513, "float32")))
            return
        found, (x, log, first) = jax.jit(jax.vmap(gradient))(jnp.asarray([c, 2 * c]))
    assert x.dtype == log.dtype == first.dtype == found.dtype == "float32"
    np.testing.assert_allclose(x[1], np.linalg.solve(exact, np.ones(3)) / 2, rtol=2e-7)
    np.testing.assert_allclose(log[0], np.linalg.slogdet(exact)[1], rtol=2e-7)
    np.testing.assert_allclose(first[0], np.linalg.inv(exact)[0], rtol=2e-7)
