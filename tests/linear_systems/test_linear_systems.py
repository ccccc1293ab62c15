"""Linear systems by closed forms and by iteration, and derivatives of solutions."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad, vmap

import structmat as sm
from structmat._arrays.libraries import namespace
from structmat._arrays.namespaces import numpy_namespace
from structmat._toeplitz_systems import thresholds
from structmat.extend import Near, NearCirculant
from structmat.linear_systems import _differentiable, _thresholds
from structmat.linear_systems._krylov_method import KrylovMethod
from structmat.linear_systems._results import Solutions
from structmat.linear_systems._stopping import ByGradient, is_as_small_as_rounding, judged
from structmat.testing._drawing import Vectors
from structmat.testing.strategies import DTYPES
from tests import backends
from tests.backends import along_last_axis, on
from tests.cases import in_one_test
from tests.operator_registry import REGISTRY


def solve(A: Any, b: Any, **options: Any) -> Any:
    return along_last_axis(sm.solve, A, b, **options)


def lstsq(A: Any, b: Any, **options: Any) -> Any:
    return along_last_axis(sm.lstsq, A, b, **options)


def iterated(A: Any, b: Any, *, assume: str = "general", **options: Any) -> Any:
    """Return what iteration finds, by the default method, also where the dense matrix is faster."""
    return solve(A, b, assume=assume, method=sm.GMRES() if assume == "general" else sm.CG(), **options)


ASSUME = ("general", "positive definite")
ITERATED = {"Sum", "Hankel, m x n", "Toeplitz, m x n", "BlockCirculant, cropped", "CDDProduct, rectangular"}
LIBRARIES = ["numpy", "torch", "array_api_strict"]


WAYS: tuple[dict[str, Any], ...] = ({}, {"max_iter": 1000}, {"max_iter": 1000, "preconditioner": None})
"""The dense matrix, and iteration with a preconditioner and without."""


def draws() -> Any:
    return st.integers(0, 2**32 - 1), st.sampled_from(DTYPES), st.sampled_from([(), (), (2,)])


def tolerance(dtype: np.dtype) -> float:
    return 1e-5 if dtype.name in {"float32", "complex64"} else 1e-10


@on(*LIBRARIES)
def test_solutions_are_those_of_the_dense_matrix(backend):
    @settings(max_examples=backend.examples // (1 if backend.name == "numpy" else 3))
    @given(*draws(), st.sampled_from(ASSUME), st.sampled_from(WAYS))
    def law(seed, dtype, batch, assume, options):
        v = Vectors(seed, dtype, batch)
        n = v.size()
        c, d, b = v(n), v(n), v(n)
        make = lambda a: sm.Circulant(a(c)) + sm.Diagonal(a(d))
        if assume != "general":
            plain, shift = make, 0.5 if assume == "positive definite" else -0.3
            make = lambda a: plain(a).H @ plain(a) + shift * sm.Identity(n)
        A, dense = make(backend.asarray), make(np.array).to_dense().astype("complex128")
        cond = np.max(np.linalg.cond(dense))
        if cond > 50:
            return
        found = solve(A, backend.asarray(b), assume=assume, **options)
        want = np.linalg.solve(dense, b[..., None].astype("complex128"))[..., 0]
        x = backend.to_numpy(found.x)
        assert x.dtype == dtype
        assert np.all(backend.to_numpy(found.residual) <= tolerance(b.dtype))
        assert found.iterations is not None
        size = np.linalg.norm(want, axis=-1)
        assert np.all(np.linalg.norm(x - want, axis=-1) <= 3 * cond * tolerance(b.dtype) * size)

    law()


@on(*LIBRARIES)
def test_least_squares_are_those_of_the_dense_matrix(backend):
    entries = [entry for entry in REGISTRY if entry.name in ITERATED]

    @settings(max_examples=backend.examples // 2)
    @given(*draws(), st.sampled_from(entries), st.sampled_from([None, 1000]))
    def law(seed, dtype, batch, entry, max_iter):
        v = Vectors(seed, dtype, batch)
        sample = entry.draw(v)
        values = np.linalg.svdvals(sample.dense)
        if np.min(values) * 100 < np.max(values):
            return
        b = v(sample.dense.shape[-2])
        found = lstsq(sample.make(backend.asarray), backend.asarray(b), max_iter=max_iter)
        want = (np.linalg.pinv(sample.dense) @ b[..., None])[..., 0]
        x = backend.to_numpy(found.x)
        assert x.dtype == dtype
        scale = np.max(np.linalg.norm(b, axis=-1)) / np.min(values)
        assert np.max(np.abs(x - want)) <= 1e4 * tolerance(b.dtype) * scale

    law()


@on(*LIBRARIES)
def test_least_squares_of_singular_matrices_have_the_least_norm(backend):
    rng = np.random.default_rng(2)
    c, d, b = rng.standard_normal(9), np.append(np.zeros(3), np.ones(5)), rng.standard_normal((2, 9))
    A = sm.Toeplitz(backend.asarray(c), backend.asarray(rng.standard_normal(8))) @ sm.Diagonal(backend.asarray(d))
    dense = backend.to_numpy(A.to_dense())
    b[1] = np.linalg.svd(dense)[0][:, -1]  # which is orthogonal to the range
    for max_iter in (None, 100):
        found = lstsq(A, backend.asarray(b), max_iter=max_iter)
        np.testing.assert_allclose(backend.to_numpy(found.x), b @ np.linalg.pinv(dense).T, atol=1e-8)
        np.testing.assert_allclose(backend.to_numpy(found.residual)[1], 1)


SCALES = {"float64": (1e-300, 1.6e-19, 1e300), "float32": (1e-30, 1e-12, 1e30)}


@on(*LIBRARIES, "jax")
@pytest.mark.parametrize(("dtype", "scale"), [(name, scale) for name in SCALES for scale in SCALES[name]])
def test_matrices_of_any_size(backend, dtype, scale):
    """The scale of a matrix is that of its solutions alone."""
    if backend.compiles and scale != 1e300:
        pytest.skip("each dtype is compiled anew")
    s = np.array(scale, dtype)
    b = np.array([1.0, 2.0, 0.5, -1.0], dtype)
    c, d = np.array([4.0, -1, 0, -1], dtype), np.arange(1, 5, dtype=dtype)
    asarray = backend.asarray
    general = lambda s: sm.Circulant(asarray(s * c)) + sm.Diagonal(asarray(s * d))
    tall = lambda s: sm.Toeplitz(asarray(s * d), asarray(s * c[:2]))
    given = sm.Diagonal(asarray(1 / (4 + d))) / scale
    calls = [(general, lambda A, b, kind=assume: iterated(A, b, assume=kind)) for assume in ASSUME]
    calls += [(general, lambda A, b, M=M: solve(A, b, preconditioner=M)) for M in (None, given)]
    calls += [(kind, lambda A, b: sm.lstsq(A, b, max_iter=100)) for kind in (general, tall)]
    calls += [(general, solve), (tall, sm.lstsq)]  # by the dense matrix
    if backend.compiles:  # conjugate gradients, GMRES with a preconditioner that is given, least squares
        calls = calls[1:6:2]
    for make, call in calls:
        want = np.linalg.pinv(backend.to_numpy(make(1).to_dense())) @ b
        for factor in (1, 1000):
            x = backend.to_numpy(call(make(s), asarray(factor * s * b)).x) / factor
            np.testing.assert_allclose(x, want, rtol=100 * tolerance(np.dtype(dtype)))
        x = backend.to_numpy(call(make(1), asarray(s * b)).x) / s
        np.testing.assert_allclose(x, want, rtol=100 * tolerance(np.dtype(dtype)))


@on(*LIBRARIES, "jax")
def test_stacks_of_several_sizes_with_one_preconditioner(backend):
    rng, scales = np.random.default_rng(4), np.array([1e-200, 1.0, 1e150])[:, None]
    c, d = rng.standard_normal(5) / 4, 3 + rng.random(5)
    A = sm.Circulant(backend.asarray(scales * c)) + sm.Diagonal(backend.asarray(scales * d))
    dense, b = backend.to_numpy(A.to_dense()), rng.standard_normal((2, 1, 5))
    want = np.linalg.solve(dense / scales[..., None], b[..., None])[..., 0]
    preconditioners = [None, sm.Identity(5), "nearest", sm.Diagonal(backend.asarray(1 / d))]
    for M in preconditioners[3:] if backend.compiles else preconditioners:
        x = backend.to_numpy(solve(A, backend.asarray(b), preconditioner=M).x)
        np.testing.assert_allclose(x * scales, want, rtol=1e-7)


@on(*LIBRARIES)
def test_the_largest_right_hand_sides(backend):
    A = sm.Circulant(backend.asarray(np.array([0.0, 1.0, 0.5]))) + sm.Diagonal(backend.asarray(np.full(3, 4.0)))
    b = np.array([1.0, -1.0, 1.0])
    x = solve(A, backend.asarray(1e308 * b)).x
    np.testing.assert_allclose(backend.to_numpy(x) / 1e308, np.linalg.solve(backend.to_numpy(A.to_dense()), b))


def test_least_squares_far_from_the_range_and_ill_conditioned():
    """Where the residual is nearly all of the right-hand side, and the Frobenius norm far above the largest value."""
    n = 200
    A = sm.Toeplitz(0.9 ** np.arange(n), 0.9 ** np.arange(n // 2))
    b = np.random.default_rng(3).standard_normal((2, n))
    x, dense = lstsq(A, b).x, A.to_dense()
    r = b - A.matvec(x)
    assert np.all(np.linalg.norm(A.rmatvec(r), axis=1) <= 1e-10 * np.linalg.norm(dense, 2) * np.linalg.norm(r, axis=1))
    np.testing.assert_allclose(x, np.linalg.lstsq(dense, b.T)[0].T, atol=1e-5)


def test_stacks_and_zeros():
    """Every member of a stack meets every right-hand side; zeros have the solution zero, no vectors none."""
    rng = np.random.default_rng(0)
    A = sm.Circulant(rng.standard_normal((3, 1, 6))) + sm.Diagonal(4 + rng.random((2, 6)))
    b = rng.standard_normal((2, 6))
    b[1] = 0
    for call in (solve, iterated):
        found = call(A, b)
        np.testing.assert_allclose(found.x, np.linalg.solve(A.to_dense(), b[..., None])[..., 0], atol=1e-9)
        assert found.residual.shape == (3, 2)
        assert not np.any(found.x[:, 1])
        assert (found.iterations > 0) == (call is iterated)
    assert iterated(A, 0 * b).iterations == lstsq(A, 0 * b, max_iter=10).iterations == 0
    none = sm.Circulant(np.empty((0, 6))) + sm.Diagonal(np.empty((0, 6)))
    for options in ({}, {"max_iter": 10}):
        assert solve(A, np.empty((0, 1, 1, 6)), **options).x.shape == (0, 3, 2, 6)
        assert lstsq(A, np.empty((0, 1, 1, 6)), **options).x.shape == (0, 3, 2, 6)
        assert solve(none, b[0], **options).x.shape == lstsq(none, b[0], **options).x.shape == (0, 6)


@on(*LIBRARIES)
def test_closed_forms_come_first(backend):
    rng = np.random.default_rng(1)
    c = backend.asarray(np.append(3, rng.random(4)))
    b = backend.asarray(rng.standard_normal(5))
    for op in (sm.Circulant(c), 2 * (sm.Circulant(c) @ sm.Diagonal(c))):
        x, residual, iterations = solve(op, b)
        assert iterations == 0
        assert float(residual) < 1e-12
        np.testing.assert_array_equal(backend.to_numpy(x), backend.to_numpy(op.solve(b)))
    assert lstsq(sm.Circulant(c), b).iterations == 0


def test_an_inverse_is_closed_form_enough():
    @dataclass(frozen=True, eq=False, repr=False, slots=True)
    class Reversal(sm.LinearOperator):
        n: int
        shape = property(lambda self: (self.n, self.n))
        _matvec = lambda self, x, xp: xp.flip(x, axis=-1)
        _transpose = _conj = lambda self: self
        _inv = lambda self, xp: self

    assert solve(Reversal(3), [1.0, 2.0, 3.0]).x.tolist() == [3.0, 2.0, 1.0]
    assert lstsq(Reversal(3), [1.0, 2.0, 3.0]).x.round(12).tolist() == [3.0, 2.0, 1.0]


@on("numpy", "torch")
def test_half_precision(backend):
    half = lambda values: backend.xp.asarray(values, dtype=backend.dtype(backend.half))
    A = sm.Circulant(half([4.0, 1.0, 0.0])) + sm.Diagonal(half([0.0, 1.0, 2.0]))
    x = solve(A, half([1.0, 2.0, 3.0])).x
    assert x.dtype == A.dtype
    want = np.linalg.solve([[4.0, 0, 1], [1, 5, 0], [0, 1, 6]], [1.0, 2, 3])
    np.testing.assert_allclose([float(value) for value in x], want, rtol=1e-2)


def test_the_nearest_circulant_or_diagonal_helps():
    n = 256
    smooth = sm.Toeplitz(0.98 ** np.arange(n)) + sm.Diagonal(np.linspace(1e-2, 2e-2, n))
    spread = sm.Toeplitz(0.1 ** np.arange(n)) + sm.Diagonal(np.geomspace(1, 1e6, n))
    at = np.arange(16)
    decay = np.exp(-np.minimum(at, 16 - at) / 4)
    grid = sm.MultilevelCirculant(np.outer(decay, decay).ravel(), (16, 16)) + sm.Diagonal(np.linspace(1e-2, 2e-2, n))
    factors = sm.Product([smooth, sm.Circulant(np.append(2.0, np.zeros(n - 1)))])
    s, t = np.ogrid[:16, :12]
    covariance = sm.MultilevelToeplitz.from_covariance(np.exp(-(s + t) / 8) + 0.01 * ((s == 0) & (t == 0)))
    noisy = covariance + sm.Diagonal(np.linspace(1e-2, 2e-2, 192))
    cases = [(A, 3) for A in (smooth, spread, smooth.prepare(), grid, 3 * factors)] + [(covariance, 2), (noisy, 2)]
    for A, least in cases:
        few, many = (
            solve(A, np.ones(A.shape[0]), assume="positive definite", preconditioner=M, max_iter=5000).iterations
            for M in ("nearest", None)
        )
        assert least * few < many, (few, many)


@dataclass(frozen=True, eq=False, repr=False)
class Decay(sm.LinearOperator):
    """An operator of one's own with entries ``rate ** abs(i - j)``, which tells a circulant near it."""

    _core_axes = {"column": 1}
    column: Any
    shape = property(lambda self: (self.column.shape[-1],) * 2)
    _matvec = lambda self, x, xp: sm.Toeplitz(self.column)._matvec(x, xp)
    _transpose = lambda self: self

    def _near(self, like, xp):
        c = sm.preconditioners.chan(sm.Toeplitz(self.column)).c
        return Near(self, circulant=lambda: NearCirculant(c, self.shape[:1]))


@on(*LIBRARIES)
def test_operators_of_ones_own_tell_a_circulant_near_them(backend):
    n = 256
    own = Decay(backend.asarray(0.98 ** np.arange(n)))
    noise = sm.Diagonal(backend.asarray(np.linspace(1e-2, 2e-2, n)))
    b = backend.asarray(np.ones(n))
    for A in (own + noise, (own + noise).prepare(), 3 * (own + noise)):
        few, many = (solve(A, b, preconditioner=M, max_iter=5000).iterations for M in ("nearest", None))
        assert 2 * few < many, (few, many)


@on("numpy", "torch")
@pytest.mark.parametrize("assume", ASSUME)
def test_a_preconditioner_of_ones_own_is_used(backend, assume):
    asarray, n = backend.asarray, 200
    c, d = 0.99 ** np.arange(n), np.linspace(0.01, 0.02, n)
    A = sm.Toeplitz(asarray(c)) + sm.Diagonal(asarray(d))
    M = sm.preconditioners.chan(sm.Toeplitz(asarray(c + 0.015 * (np.arange(n) == 0)))).inv()
    b = asarray(np.ones(n))
    few, many = (solve(A, b, assume=assume, preconditioner=P, max_iter=5000) for P in (M, None))
    assert 2 * few.iterations < many.iterations
    np.testing.assert_allclose(A @ few.x, 1, atol=1e-8)


@on(*LIBRARIES)
def test_stacks_of_submatrices_of_bands(backend):
    """The submatrix of the inverse of a circulant, their preconditioner, may be singular where they are not."""
    shapes = {"batch": st.sampled_from([(), (1,), (2, 3)]), "size": st.integers(2, 6), "gaps": st.integers(1, 6)}
    kinds = {"symmetric": st.booleans(), "principal": st.sampled_from([True, True, True, False])}

    @settings(max_examples=4 * backend.examples)
    @given(seed=st.integers(0, 2**32 - 1), **shapes, **kinds)
    def law(seed, batch, size, gaps, symmetric, principal):
        rng, n = np.random.default_rng(seed), size + gaps
        bands = rng.integers(-2, 3, (2, *batch, n)) * 1.0
        bands[..., 0] *= rng.integers(2)
        for band in bands:
            band[..., rng.integers(2, min(4, n)) :] = 0.0
        column, row = bands[0], bands[0] if symmetric else bands[1]
        rows = rng.permutation(n)[:size]
        cols = rows if principal else rng.permutation(n)[:size]
        A = sm.Toeplitz(backend.asarray(column), backend.asarray(row))[rows][:, cols]
        pairs = zip(column.reshape(-1, n), row.reshape(-1, n), strict=True)
        dense = np.stack([scipy.linalg.toeplitz(*pair)[np.ix_(rows, cols)] for pair in pairs])
        cond = np.max(np.linalg.cond(dense))
        if cond > 1e4:
            return
        b = rng.standard_normal((*batch, size, 1))
        expected = np.linalg.solve(dense.reshape(*batch, *dense.shape[1:]), b)
        found = backend.to_numpy(sm.solve(A, backend.asarray(b)).x)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * cond * (1 + np.max(np.abs(expected))))

    law()


GAP = [0, 1, 3, 4]
"""All rows but one of a matrix whose diagonal is zero: of no use is the inverse of the circulant near it."""


def beside_a_gap(c: Any, b: Any) -> Any:
    return sm.solve(sm.Toeplitz(c)[GAP][:, GAP], b, rtol=1e-12).x


@on("numpy", "torch")
def test_a_preconditioner_of_no_use_is_given_up(backend):
    """For each matrix of a stack, and in derivatives too."""
    c, b = np.array([[0.0, 1, 0, 0, 0], [3.0, 1, 0, 0, 0]]), np.array([1.0, 2, 3, 5])
    dense = np.stack([scipy.linalg.toeplitz(v)[np.ix_(GAP, GAP)] for v in c])
    column = b[:, None]
    x = backend.to_numpy(sm.solve(sm.Toeplitz(backend.asarray(c))[GAP][:, GAP], backend.asarray(column)).x)
    np.testing.assert_allclose(x, np.linalg.solve(dense, column), atol=1e-8)
    if backend.name == "numpy":
        return
    total = lambda c: beside_a_gap(c, backend.asarray(b)).sum()
    gradient = grad(total)
    found = backend.to_numpy(gradient(backend.asarray(c[0])))
    w = np.linalg.solve(dense[0].T, np.ones(4))
    each = np.stack([scipy.linalg.toeplitz(unit)[np.ix_(GAP, GAP)] for unit in np.eye(5)])
    np.testing.assert_allclose(found, -each @ np.linalg.solve(dense[0], b) @ w, atol=1e-8)


@on(*LIBRARIES)
def test_what_does_not_converge_is_an_error(backend):
    c = backend.asarray(np.array([2.0, -1, 0, 0, 0]))
    A = sm.Circulant(c) + sm.Diagonal(backend.asarray(np.arange(5.0)))
    b = backend.asarray(np.arange(5.0))
    with pytest.raises(sm.ConvergenceError, match=r"solve: the relative residual is .* after 1 iterations") as caught:
        solve(A, b, max_iter=1, preconditioner=None)
    result = caught.value.result
    expected = np.linalg.norm(backend.to_numpy(b - A @ result.x)) / np.sqrt(30)
    np.testing.assert_allclose(backend.to_numpy(result.residual), expected)
    with pytest.raises(np.linalg.LinAlgError, match="lstsq: the relative residual"):
        lstsq(A, b, max_iter=1)
    singular = sm.Circulant(c) - sm.Diagonal(backend.asarray(np.array([1.0, 1, 1, 1, 1])))
    singular = singular @ (sm.Circulant(0 * c) + sm.Diagonal(backend.asarray(np.array([1.0, 1, 1, 1, 0]))))
    for assume in ASSUME:
        for call in (solve, iterated):
            with pytest.raises(sm.ConvergenceError):
                call(singular, b, assume=assume)
    with pytest.raises(sm.ConvergenceError, match='assume="general"'):
        solve(A - 9 * (A + A), b, assume="positive definite", max_iter=100)
    for call in (solve, iterated):  # by elimination, which knows no sign
        found = call(A - 9 * (A + A), b, assume="positive definite")
        np.testing.assert_allclose(backend.to_numpy(-17 * (A @ found.x)), np.arange(5.0), atol=1e-8)
    with pytest.raises(sm.ConvergenceError, match="is nan"):
        solve(A, b * float("nan"))


def smooth_field(asarray: Any, noise: float) -> Any:
    """The covariance of 90 points of a smooth field on a grid of 20 x 20, of condition number 6 / noise."""
    s, t = np.ogrid[:20, :20]
    observed = np.sort(np.random.default_rng(0).choice(400, 90, replace=False))
    K = sm.MultilevelToeplitz.from_covariance(asarray(np.exp(-(s**2 + t**2) / 18.0)))
    return K[observed][:, observed] + sm.Diagonal(asarray(np.full(90, noise)))


UNSETTLED = {
    "smooth field": lambda asarray: smooth_field(asarray, 1e-5),
    "stack of fields": lambda asarray: (
        smooth_field(asarray, 1e-5) + sm.Diagonal(asarray(np.array([[1e-5], [1e-2]]) * np.ones(90)))
    ),
    "indefinite": lambda asarray: (
        sm.Toeplitz(asarray(np.cos(np.arange(90.0) ** 2))) + sm.Diagonal(asarray(np.sin(np.arange(90.0))))
    ),
    "not symmetric": lambda asarray: (
        sm.Toeplitz(asarray(np.cos(np.arange(90.0) ** 2)), asarray(np.sin(np.arange(90.0) ** 2)))
        + sm.Diagonal(asarray(10 * np.sin(np.arange(90.0))))
    ),
}
"""Systems that iteration does not solve, or not in fewer products than elimination costs."""


@on("numpy", "torch", "jax")
@pytest.mark.parametrize("name", UNSETTLED)
def test_moderate_systems_are_written_out_where_iteration_fails(backend, name):
    if backend.compiles and name != "not symmetric":
        pytest.skip("each system is compiled anew")
    A = UNSETTLED[name](backend.asarray)
    dense, b = backend.to_numpy(A.to_dense()), np.random.default_rng(1).standard_normal(90)
    assumptions = ASSUME if "field" in name else ["general"]
    for assume in assumptions[-1:] if backend.compiles else assumptions:
        found = iterated(A, backend.asarray(b), assume=assume)
        assert np.all(backend.to_numpy(found.residual) <= 1e-10)
        x = backend.to_numpy(found.x)
        assert np.max(np.linalg.norm((dense @ x[..., None])[..., 0] - b, axis=-1)) <= 1e-10 * np.linalg.norm(b)
        with pytest.raises(sm.ConvergenceError):
            solve(A, backend.asarray(b), assume=assume, max_iter=45)


def test_gradients_of_systems_that_are_written_out():
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    want = np.linalg.inv(smooth_field(np.asarray, 1e-6).to_dense())
    b = np.ones(90)
    expected = -np.sum((want @ b) ** 2)
    noise = torch.tensor(1e-6, dtype=torch.float64, requires_grad=True)
    A = smooth_field(torch.asarray, 0.0) + noise * sm.Identity(90)
    (torch.asarray(b) @ solve(A, torch.asarray(b), rtol=1e-7).x).backward()
    assert noise.grad.item() == pytest.approx(expected, rel=1e-4)

    jnp = backends.get("jax").xp

    @jax.jit
    @jax.grad
    def gradient(noise):
        A = smooth_field(jnp.asarray, 0.0) + noise * sm.Identity(90)
        return jnp.sum(solve(A, jnp.asarray(b), rtol=1e-7).x)

    assert float(gradient(1e-6)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("assume", ASSUME)
def test_systems_and_their_gradients_in_jax(assume):
    jnp, jax = backends.get("jax").xp, pytest.importorskip("jax")
    rng = np.random.default_rng(6)
    c, d, b = np.array([2.0, -1.0, 0.0, -1.0]), 1 + rng.random(4), rng.standard_normal((2, 4))
    dense = sm.Circulant(c).to_dense() + np.diag(d)
    want = np.linalg.solve(dense, b[..., None])[..., 0]

    @jax.jit
    @jax.value_and_grad
    def total(d, b):
        A = sm.Circulant(jnp.asarray(c)) + sm.Diagonal(d)
        return jnp.sum(solve(A, b, assume=assume).x)

    value, gradient = total(d, b)
    np.testing.assert_allclose(value, np.sum(want))
    np.testing.assert_allclose(gradient, -np.linalg.solve(dense.T, np.ones(4)) * want.sum(0), atol=1e-8)
    assert np.isnan(total(np.zeros(4), b)[0])  # a singular one


def test_least_squares_and_what_does_not_converge_in_jax():
    """Without a trace values are known, so that this is an error; both calls are compiled once."""
    jnp = backends.get("jax").xp
    rng = np.random.default_rng(7)
    c, r, b = rng.standard_normal(6), rng.standard_normal(3), rng.standard_normal(6)
    A = sm.Toeplitz(jnp.asarray(c), jnp.asarray(r))
    found = lstsq(A, jnp.asarray(b), max_iter=60)
    np.testing.assert_allclose(found.x, np.linalg.lstsq(sm.Toeplitz(c, r).to_dense(), b)[0], atol=1e-8)
    assert found.iterations == 3
    with pytest.raises(sm.ConvergenceError, match=r"lstsq: the relative residual is nan after 0 .*, not 1e-10"):
        lstsq(A, jnp.full(6, np.nan))


@in_one_test(
    "call, error, message",
    [
        (lambda A: solve(np.eye(3), np.ones(3)), TypeError, "solve: A must be a structmat operator, got ndarray"),
        (lambda A: solve(sm.Toeplitz([1.0], [1.0, 2.0]), [1.0]), ValueError, "A must be square, .*lstsq"),
        (lambda A: solve(A, np.ones(4)), ValueError, r"Sum.solve: b must have shape \(..., 3\)"),
        (lambda A: solve(A, np.ones(3), assume="spd"), ValueError, 'assume must be one of "general"'),
        (lambda A: solve(A, np.ones(3), preconditioner=3), TypeError, "preconditioner must be .*, got int"),
        (lambda A: solve(A, np.ones(3), preconditioner="ilu"), ValueError, "preconditioner must be one of"),
        (lambda A: solve(A, np.ones(3), preconditioner=sm.Identity(2)), ValueError, r"the shape of A, \(3, 3\)"),
        (lambda A: solve(A, np.ones(3), rtol=0), ValueError, "rtol must be above zero"),
        (lambda A: lstsq(A, np.ones(3), max_iter=0), ValueError, "lstsq: max_iter must be at least 1, got 0"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call(sm.Circulant([1.0, 2.0, 0.0]) + sm.Diagonal([1.0, 2.0, 3.0]))
    assert isinstance(caught.value, sm.ArgumentError)


def test_a_closed_form_that_leaves_a_large_residual_says_so() -> None:
    c = np.exp(-((np.arange(500) / 20.0) ** 2))
    c[0] += 1e-12
    b = np.random.default_rng(0).standard_normal(500)
    with pytest.warns(scipy.linalg.LinAlgWarning, match="a relative residual of .* is left, above rtol") as seen:
        result = sm.solve(sm.Toeplitz(c), b)
    assert result.residual > 1e-10
    assert [warning.filename for warning in seen if str(warning.message).startswith("solve: ")] == [__file__]


@pytest.mark.filterwarnings("always::scipy.linalg.LinAlgWarning")
def test_closed_forms_that_give_nan_say_so_beside_other_warnings() -> None:
    with pytest.warns(scipy.linalg.LinAlgWarning, match="solve: the solution is NaN: .*hold NaN or infinity"):
        solve(sm.Circulant([2.0, 1.0, 0.0]), [1.0, np.nan, 2.0])
    with pytest.warns(scipy.linalg.LinAlgWarning, match="lstsq: the solution is NaN"):
        lstsq(sm.Circulant([2.0, 1.0, 0.0]), [1.0, 0.0, np.nan])
    b = np.random.default_rng(0).standard_normal((2, 12))
    b[0, 0] = np.nan
    hilbert = sm.Hankel(1 / (1.0 + np.arange(12)), 1 / (12.0 + np.arange(12)))
    with pytest.warns(scipy.linalg.LinAlgWarning) as seen:
        solve(hilbert, b)
    texts = [str(each.message) for each in seen if str(each.message).startswith("solve: ")]
    assert ["is NaN" in text for text in texts] == [True, False]
    assert "A is ill-conditioned" in texts[1]


@on("numpy", "torch")
@pytest.mark.parametrize("place", ["b", "A"])
def test_nan_ends_iteration_before_it_begins(backend, place):
    d, b = np.array([1.0, 2.0, 3.0, 4.0]), np.ones((2, 4))
    (d if place == "A" else b[1])[1] = np.nan
    A = sm.Circulant(backend.asarray(np.array([9.0, 1.0, 0.0, 2.0]))) + sm.Diagonal(backend.asarray(d))
    calls = [lambda b, kind=assume: iterated(A, b, assume=kind) for assume in ASSUME]
    calls += [lambda b: lstsq(A, b, max_iter=40), lambda b: solve(A, b), lambda b: lstsq(A, b)]
    for call in calls:
        named = "b holds" if place == "b" else "the matrix holds"
        with pytest.raises(sm.ConvergenceError, match=rf"is nan after .*; {named} NaN or infinity") as caught:
            call(backend.asarray(b))
        result = caught.value.result
        residual = backend.to_numpy(result.residual)
        assert list(np.isnan(residual)) == ([True, True] if place == "A" else [False, True])
        if place == "A":
            assert result.iterations == 0
        else:  # the other right-hand side is solved
            np.testing.assert_allclose(backend.to_numpy(A @ result.x[0])[:, 0], b[0], atol=1e-8)


def test_right_hand_sides_are_columns_and_matvec_takes_rows():
    A, B = sm.Circulant([3.0, 1.0, 0.0]), np.ones((3, 2))
    for call in (A.inv_matvec, A.matvec, A.rmatvec):
        with pytest.raises(ValueError, match=r"got \(3, 2\); vectors lie along the last axis: transpose columns"):
            call(B)
    for call in (A.solve, A.lstsq, lambda b: sm.solve(A + sm.Diagonal(np.ones(3)), b), lambda b: sm.lstsq(A, b)):
        with pytest.raises(ValueError, match=r"got \(2, 3\); right-hand sides are columns: transpose vectors"):
            call(B.T)


@on("numpy", "torch")
def test_solutions_follow_the_product_with_columns(backend):
    """A square matrix of right-hand sides, of which a wrong axis would give another answer without a word."""
    rng = np.random.default_rng(0)
    c, d, B = rng.standard_normal((2, 5)), rng.standard_normal((2, 5)), rng.standard_normal((5, 5))
    c[:, 0] += 9
    a = backend.asarray
    operators = [sm.Circulant(a(c[0])) + sm.Diagonal(a(d)), sm.Circulant(a(c)), sm.Toeplitz(a(c[0]), a(c[1]))]
    for op in operators:
        for found in (sm.solve(op, a(B)), sm.lstsq(op, a(B))):
            assert found.residual.shape == (*op.batch_shape, 5)
            np.testing.assert_allclose(backend.to_numpy(op @ found.x), np.broadcast_to(B, found.x.shape), atol=1e-7)


def test_complex_right_hand_sides_of_real_operators_give_no_warning():
    """The nearest circulant to a real operator is real."""
    rng = np.random.default_rng(9)
    c, b = rng.standard_normal(12), rng.standard_normal(12) + 1j * rng.standard_normal(12)
    diagonal = sm.Diagonal(5 + rng.random(12))
    for kind in (sm.Circulant(c), sm.Circulant(c).to_spectral(), sm.BandedCirculant(c[:3], 12)):
        A = kind + diagonal
        for found in (solve(A, b), lstsq(A, b)):
            np.testing.assert_allclose(found.x, np.linalg.solve(A.to_dense(), b), rtol=0, atol=1e-9)


def test_each_pass_has_the_iterations_that_are_left_and_counts_on():
    """A solver that leaves a tenth of each right-hand side is asked again until the tolerance is met."""
    A, b = sm.Toeplitz([4.0, 1.0, 0.0]) + sm.Diagonal([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0])
    limits = []

    class Lazy(KrylovMethod):
        def _run(self, A, b, M, rtol, max_iter, norm, xp):
            limits.append(max_iter)
            return 0.9 * np.linalg.solve(A.to_dense(), b), 2

    found = solve(A, b, method=Lazy(), preconditioner=None, rtol=1e-3, max_iter=10)
    assert limits == [10, 8, 6, 4][: len(limits)]
    assert len(limits) >= 3
    assert found.iterations == 2 * len(limits)


@on(*LIBRARIES, "jax")
@pytest.mark.parametrize("assume", ASSUME)
def test_a_stack_of_preconditioners_solves_once_for_each(backend, assume):
    """Their batch axes broadcast against those of matrix and right-hand sides."""
    rng = np.random.default_rng(0)
    matrices, vectors = (backend.asarray(np.array([6.0, 1, 0, 1]) + k) for k in ([[0.0] * 4, [0.1] * 4], [0.0] * 4))
    near = np.array([[1.0, 0.1, 0, 0.1], [0.5, 0, 0, 0], [1.5, 0.2, 0.1, 0.2]])
    diagonal = sm.Diagonal(backend.asarray(np.array([1.0, 2, 3, 4])))
    cases = [(vectors, (4,)), (matrices, (4,)), (matrices, (3, 1, 4))]
    for c, b in cases[1:2] if backend.compiles else cases:
        A, right = sm.Circulant(c) + diagonal, backend.asarray(rng.standard_normal(b))
        for axes in ((3,),) * (c is vectors and b == (4,)) + ((3, 1),):
            M = sm.Circulant(backend.asarray(near.reshape(*axes, 4)))
            found = solve(A, right, assume=assume, preconditioner=M)
            want = np.linalg.solve(backend.to_numpy(A.to_dense()), backend.to_numpy(right)[..., None])[..., 0]
            batch = np.broadcast_shapes(axes, A.batch_shape, b[:-1])
            assert found.x.shape == (*batch, 4)
            assert found.residual.shape == batch
            np.testing.assert_allclose(backend.to_numpy(found.x), np.broadcast_to(want, (*batch, 4)), rtol=1e-8)


@on(*LIBRARIES)
def test_batch_axes_of_preconditioners_that_do_not_fit_are_an_error(backend):
    asarray = backend.asarray
    A = sm.Circulant(asarray(np.array([[6.0, 1, 0, 1]] * 2))) + sm.Diagonal(asarray(np.arange(1.0, 5)))
    with pytest.raises(ValueError, match=r"solve: the batch axes \(2,\) and \(\) and \(3,\) do not broadcast"):
        solve(A, asarray(np.ones(4)), preconditioner=sm.Circulant(asarray(np.ones((3, 4)))))


@on("numpy", "torch", "jax")
def test_a_preconditioner_that_gives_nan_is_named(backend):
    asarray = backend.asarray
    A = sm.Circulant(asarray(np.array([6.0, 1, 0, 1]))) + sm.Diagonal(asarray(np.arange(1.0, 5)))
    b = asarray(np.ones(4))
    for assume in ASSUME:
        for bad in (np.nan, np.inf):
            M = sm.Diagonal(asarray(np.array([1.0, bad, 1.0, 1.0])))
            with pytest.raises(sm.ConvergenceError, match="the preconditioner gives NaN or infinity"):
                solve(A, b, assume=assume, preconditioner=M)
    with pytest.raises(sm.ConvergenceError, match="b holds NaN or infinity"):
        solve(A, b * np.nan, preconditioner=sm.Identity(4))


N = 5


def circulant_plus_diagonal(c: Any, d: Any, b: Any, **options: Any) -> Any:
    return sm.solve(sm.Circulant(c) + sm.Diagonal(4 * d), b, rtol=1e-13, **options).x


def with_a_preconditioner(c: Any, d: Any, b: Any) -> Any:
    return circulant_plus_diagonal(c, d, b, preconditioner=sm.Diagonal(1 / d))


def prepared(c: Any, d: Any, b: Any) -> Any:
    M = (sm.Circulant(torch.zeros_like(c)) + sm.Diagonal(1 / d)).prepare()
    return sm.solve((sm.Circulant(c).prepare() + sm.Diagonal(4 * d)).prepare(), b, rtol=1e-13, preconditioner=M).x


def in_closed_form(c: Any, d: Any, b: Any) -> Any:
    return sm.solve(sm.Toeplitz(torch.cat([c[:1] + 6, c[1:]], -1), d), b).x


def dense(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same by dense matrices."""
    toeplitz = lambda c, d: sm.Toeplitz(torch.cat([c[:1] + 6, c[1:]], -1), d).to_dense()
    plus_diagonal = lambda c, d: sm.Circulant(c).to_dense() + torch.diag(4 * d)
    matrix = toeplitz if function is in_closed_form else plus_diagonal
    return lambda c, d, b: torch.linalg.solve(matrix(c, d), b)


FUNCTIONS = (circulant_plus_diagonal, with_a_preconditioner, prepared, in_closed_form)
TRANSFORMS: dict[str, Callable[..., Any]] = {
    "grad": lambda f, point: grad(lambda *at: f(*at).abs().square().sum(), (0, 1, 2))(*point),
    "twice": lambda f, point: grad(
        lambda c: grad(lambda d: f(c, d, point[2]).abs().square().sum())(point[1]).abs().sum()
    )(point[0]),
}


def drawn(dtype: Any = torch.float64) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(3)
    c, d, b = (torch.randn(N, dtype=dtype, generator=generator) for _ in range(3))
    return c, d + 3, b


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("transform", TRANSFORMS)
@in_one_test("dtype", [torch.float64, torch.complex128])
def test_transforms_are_those_of_the_dense_solution(function, transform, dtype):
    found, expected = (TRANSFORMS[transform](f, drawn(dtype)) for f in (function, dense(function)))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # what torch says of itself
def test_closed_forms_are_mapped():
    c, d, b = drawn()
    stack = torch.stack([b, 2 * b])
    found = vmap(grad(lambda b: in_closed_form(c, d, b).square().sum()))(stack)
    expected = vmap(grad(lambda b: dense(in_closed_form)(c, d, b).square().sum()))(stack)
    torch.testing.assert_close(found, expected)


def test_the_gradient_of_a_solution_is_as_exact_as_the_solution():
    """The derivative of an iteration that has converged need not have."""
    n = 200
    c, d = 0.9 ** torch.arange(n, dtype=torch.float64), torch.linspace(0.1, 2, n, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    b, w = (torch.randn(n, dtype=torch.float64, generator=generator) for _ in range(2))
    A = sm.Toeplitz(c) + sm.Diagonal(d)
    expected = torch.linalg.solve(A.to_dense().T, w)
    for options in ({"preconditioner": None}, {"assume": "positive definite"}):
        found = grad(lambda b, options=options: sm.solve(A, b, max_iter=5000, **options).x @ w)(b)
        assert (found - expected).norm() <= 1e-9 * expected.norm()


def test_operators_without_arrays():
    A = sm.Fourier(N) + 3 * sm.Identity(N)
    b, w = (v.to(torch.complex128) for v in drawn()[:2])
    found = grad(lambda b: (sm.solve(A, b, rtol=1e-13).x * w).sum().abs())(b)
    dense = torch.asarray(A.to_dense())
    torch.testing.assert_close(found, grad(lambda b: (torch.linalg.solve(dense, b) * w).sum().abs())(b))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (5, 5)])
@in_one_test("transform", TRANSFORMS)
@in_one_test("max_iter", [None, 1000])
def test_least_squares_have_derivatives(dtype, shape, transform, max_iter):
    """Of tall, wide and square matrices of full rank those of the pseudo-inverse."""
    rows, cols = shape
    c, d, b = drawn(dtype)
    c, d, b = c[:rows], torch.cat([c[:1], d[1:cols]]), b[:rows]

    def found_by(c, d, b):
        A = sm.Toeplitz(c, d) + sm.Toeplitz(c.square(), d.square())
        return sm.lstsq(A @ sm.Diagonal(torch.ones_like(d)), b, rtol=1e-13, max_iter=max_iter).x

    def dense(c, d, b):
        A = sm.Toeplitz(c, d).to_dense() + sm.Toeplitz(c.square(), d.square()).to_dense()
        return torch.linalg.pinv(A) @ b

    found, expected = (TRANSFORMS[transform](f, (c, d, b)) for f in (found_by, dense))
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


# The methods: the same for all libraries


def uneven(asarray: Any, c: Any, r: Any, d: Any) -> Any:
    return sm.Toeplitz(asarray(c), asarray(r)) + sm.Diagonal(asarray(d))


K = np.arange(60.0)
SYSTEMS: dict[str, tuple[Any, Any, Any, str]] = {
    "smooth, small diagonal": (0.98**K, 0.98**K, np.linspace(1e-2, 2e-2, 60), "positive definite"),
    "dominating diagonal": (0.1**K, 0.1**K, np.geomspace(1, 1e6, 60), "positive definite"),
    "uneven diagonal": (0.5**K, 0.5**K, np.geomspace(0.1, 1e2, 60), "positive definite"),
    "not symmetric": (0.9**K, 0.3**K, np.linspace(0.1, 0.5, 60), "general"),
    "not symmetric, dominating diagonal": (0.9**K, 0.3**K, np.geomspace(1, 1e4, 60), "general"),
    "slow decay": (1 / (1 + K), 1 / (1 + K) ** 2, np.linspace(0, 0.05, 60), "general"),
    "indefinite": (np.cos(K) / (1 + K), np.cos(K) / (1 + K), 4 * np.cos(K**2), "general"),
}
"""First columns, first rows and diagonals, all of one shape, so that a library compiles two programs for them."""


@on("torch", "array_api_strict", "jax")
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_library_takes_the_same_iterations(backend, name):
    *arrays, kind = SYSTEMS[name]
    b = np.random.default_rng(0).standard_normal((2, 60))
    A, right = uneven(backend.asarray, *arrays), backend.asarray(b)
    for assume in dict.fromkeys((kind, "general")):
        options = {"assume": assume, "max_iter": 400}
        want = solve(uneven(np.asarray, *arrays), b, **options)
        found = solve(A, right, **options)
        assert abs(found.iterations - want.iterations) <= 2
        assert 0 < found.iterations < 60
        residual = b - backend.to_numpy(A.matvec(found.x))
        assert np.all(np.linalg.norm(residual, axis=-1) <= 1e-10 * np.linalg.norm(b, axis=-1))


@on("numpy", "torch", "array_api_strict", "jax")
def test_no_step_squares_the_condition_number(backend):
    """Least squares of condition number 3e6, of which the square leaves no digit of the solution."""
    k = np.arange(12.0)
    c, d = 0.2**k, np.geomspace(1, 3e-7, 6)
    A = sm.Toeplitz(backend.asarray(c), backend.asarray(c[:6])) @ sm.Diagonal(backend.asarray(d))
    dense = backend.to_numpy(A.to_dense())
    assert np.linalg.cond(dense) > 1e6
    x = np.array([1.0, -2.0, 3.0, 1.0, 2.0, -1.0])
    for max_iter in (None, 100):
        found = lstsq(A, backend.asarray(dense @ x), rtol=1e-14, max_iter=max_iter)
        np.testing.assert_allclose(backend.to_numpy(found.x), x, rtol=1e-6)


METHODS = (sm.CG(), sm.GMRES(), sm.GMRES(restart=4), sm.LSMR())


@on("numpy", "torch", "array_api_strict", "jax")
def test_methods_solve_alone_and_preconditioned(backend):
    c, _, d, _ = SYSTEMS["uneven diagonal"]
    b = np.random.default_rng(1).standard_normal(60)
    A, dense = uneven(backend.asarray, c, c, d), uneven(np.asarray, c, c, d).to_dense()
    want = np.linalg.solve(dense, b)
    for method in METHODS[3:] if backend.compiles else METHODS:
        counts = []
        for M in ("nearest", None):
            found = solve(A, backend.asarray(b), method=method, preconditioner=M, max_iter=5000)
            np.testing.assert_allclose(backend.to_numpy(found.x), want, atol=1e-8)
            counts.append(found.iterations)
        assert counts[0] < counts[1]


def test_more_vectors_need_fewer_iterations():
    c, r, d, _ = SYSTEMS["not symmetric"]
    A, b = uneven(np.asarray, c, r, d), np.ones(60)
    few, more = (solve(A, b, method=sm.GMRES(restart=k), preconditioner=None, max_iter=3000) for k in (60, 5))
    assert few.iterations < more.iterations
    x, iterations = sm.GMRES(restart=5).run(A, b, rtol=1e-6, max_iter=7)
    assert iterations == 7
    assert np.linalg.norm(b - A @ x) < np.linalg.norm(b)


@on(*LIBRARIES)
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_right_hand_sides_that_have_converged_stay(backend, method):
    c, _, _, _ = SYSTEMS["smooth, small diagonal"]
    A = sm.Toeplitz(backend.asarray(c)) + sm.Diagonal(backend.asarray(np.full(60, 1e-2)))
    hard = np.random.default_rng(2).standard_normal(60)
    easy = np.linalg.eigh(backend.to_numpy(A.to_dense()))[1][:, -1]
    norm = backend.asarray(np.full(3, np.linalg.norm(backend.to_numpy(A.to_dense()), 2)))
    both = backend.asarray(np.stack([easy, hard, 0 * hard]))
    x, iterations = method.run(A, both, rtol=1e-8, max_iter=500, norm=norm)
    alone, few = method.run(A, both[0, :], rtol=1e-8, max_iter=500, norm=norm[0])
    assert few < 6 < iterations
    np.testing.assert_allclose(backend.to_numpy(x)[0], backend.to_numpy(alone), atol=1e-12)
    assert not np.any(backend.to_numpy(x)[2])


@on("numpy", "torch")
def test_gmres_takes_as_many_right_hand_sides_at_a_time_as_fit(backend, monkeypatch):
    rng = np.random.default_rng(3)
    c, d, near = rng.standard_normal((2, 1, 7)) / 4, 3 + rng.random((1, 3, 7)), 3 + rng.random((2, 3, 7))
    A = sm.Circulant(backend.asarray(c)) + sm.Diagonal(backend.asarray(d))
    b, M = backend.asarray(rng.standard_normal((2, 3, 7))), sm.Diagonal(backend.asarray(1 / near))
    together = [solve(A, b, preconditioner=P) for P in (None, M)]
    monkeypatch.setattr(_thresholds, "BASES_NUMBERS", 100)
    apart = [solve(A, b, preconditioner=P) for P in (None, M)]
    for one, other in zip(together, apart, strict=True):
        assert one.iterations == other.iterations
        np.testing.assert_allclose(backend.to_numpy(one.x), backend.to_numpy(other.x), atol=1e-12)


def test_iteration_is_mapped_in_torch():
    c, d, b = drawn()
    stack = torch.stack([b, 2 * b, b.flip(0)])
    found = vmap(lambda b: circulant_plus_diagonal(c, d, b))(stack)
    torch.testing.assert_close(found, dense(circulant_plus_diagonal)(c, d, stack.T).T)


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        ("cg", TypeError, r"solve: method must be CG\(\), GMRES\(\), LSMR\(\), Superfast\(\) or None, got 'cg'"),
        (sm.CG, TypeError, r"got the class itself; call it: CG\(\)"),
        (3, TypeError, "method must be .*, got int"),
    ],
)
def test_bad_methods(method, error, message):
    A = sm.Circulant([1.0, 2.0, 0.0]) + sm.Diagonal([1.0, 2.0, 3.0])
    with pytest.raises(error, match=message):
        sm.solve(A, np.ones(3), method=method)


def test_bad_restarts():
    with pytest.raises(ValueError, match="GMRES: restart must be at least 1, got 0"):
        sm.GMRES(restart=0)
    with pytest.raises(TypeError, match="GMRES: restart must be"):
        sm.GMRES(restart=2.5)


def test_conjugate_gradients_of_a_matrix_that_is_not_definite_name_another_method():
    A = sm.Toeplitz(np.cos(np.arange(90.0) ** 2)) + sm.Diagonal(np.sin(np.arange(90.0)))
    with pytest.raises(sm.ConvergenceError, match=r"not be positive definite, method=GMRES\(\)"):
        sm.solve(A, np.ones(90), method=sm.CG(), max_iter=50)


def test_conjugate_gradients_end_where_a_matrix_is_not_definite():
    """The first direction has a negative curvature, and a step along it would lead away from any solution."""
    x, iterations = sm.CG().run(sm.Diagonal(np.array([1.0, -3.0])), np.ones(2), rtol=1e-10, max_iter=10)
    assert iterations == 1
    assert not np.any(x)


def test_lsmr_knows_the_part_of_the_right_hand_side_that_no_solution_reaches():
    """It would end too early if its residual left that part out."""
    rng = np.random.default_rng(0)
    A, b = sm.Toeplitz(rng.standard_normal(40), rng.standard_normal(6)), rng.standard_normal(40)
    want = np.linalg.lstsq(A.to_dense(), b)[0]
    assert np.linalg.norm(b - A @ want) > 0.8 * np.linalg.norm(b)
    x, _ = sm.LSMR().run(A, b, rtol=0.5, max_iter=10)
    np.testing.assert_allclose(x, want, atol=1e-12)


# Ill-conditioned systems


def backward_error(dense: Any, x: Any, b: Any) -> float:
    """Return the smallest change of a matrix, relative to its norm, for which x is the exact solution."""
    return float(np.linalg.norm(b - dense @ x) / np.linalg.norm(dense, 2) / np.linalg.norm(x))


def noisy_series(asarray: Any, n: int, noise: Any, kind: str = "all") -> Any:
    """The covariance of n points of a smooth series, of condition number about n / noise."""
    size = n + n // 2 if kind == "gaps" else n
    t = np.arange(float(size))
    A = sm.Toeplitz(asarray(np.exp(-(t**2) / 800)))
    A = A + sm.Diagonal(asarray(noise * np.linspace(0.5, 1, size)))
    there = np.sort(np.random.default_rng(0).choice(size, n, replace=False))
    return A[there][:, there] if kind == "gaps" else A


NOISES = (1e-1, 1e-6, 1e-8, 1e-10, 1e-12, 1e-14)
"""Of condition numbers from 100 to 1e16."""

BY: dict[str, dict[str, Any]] = {
    "default": {},
    "definite": {"assume": "positive definite"},
    "factor": {"method": sm.Superfast()},
    "conjugate gradients": {"method": sm.CG()},
    "GMRES": {"method": sm.GMRES()},
}


@pytest.mark.parametrize("kind", ["all", "gaps"])
@in_one_test("n", [10, 90])
@in_one_test("way", BY)
def test_solutions_are_accepted_by_their_backward_errors(way, n, kind):
    """Where LAPACK's are at the level of rounding; a residual above `rtol` comes with a warning."""
    b = np.sin(np.arange(n) ** 2.0)
    for noise in NOISES:
        if way == "factor" and noise < 1e-12:  # below the tolerance of the factor
            continue
        A = noisy_series(np.asarray, n, noise, kind)
        dense = A.to_dense()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            found = sm.solve(A, b, **BY[way])
        lapack = backward_error(dense, np.linalg.solve(dense, b), b)
        assert lapack < 1e-15
        assert found.residual <= 1e-10 or backward_error(dense, found.x, b) < 4e-15
        warned = any(str(each.message).startswith("solve: a relative residual of") for each in seen)
        assert warned == (found.residual > 1e-10)


@pytest.mark.parametrize("noise", [1e-8, 1e-13])
def test_larger_systems_are_accepted_by_their_backward_errors(noise):
    """Of 900 unknowns, which are iterated first."""
    A, b = noisy_series(np.asarray, 900, noise), np.sin(np.arange(900) ** 2.0)
    with pytest.warns(scipy.linalg.LinAlgWarning, match="above rtol"):
        found = sm.solve(A, b, assume="positive definite")
    assert backward_error(A.to_dense(), found.x, b) < 1e-15


@on("torch", "jax")
def test_ill_conditioned_members_of_stacks_have_their_solutions(backend):
    noise, b = np.array([[1e-2], [1e-9], [1e-13]]), np.sin(np.arange(30) ** 2.0)
    A = noisy_series(backend.asarray, 30, noise)
    found = sm.solve(A, backend.asarray(b[:, None]))
    for dense, x in zip(backend.to_numpy(A.to_dense()), backend.to_numpy(found.x), strict=True):
        assert backward_error(dense, x[:, 0], b) < 1e-15
    assert backend.to_numpy(found.residual)[-1, 0] > 1e-10


def test_a_factor_solves_what_iteration_does_not(monkeypatch):
    """A series without gaps, which is iterated first."""
    n = 2100
    A, b = noisy_series(np.asarray, n, 1e-8), np.sin(np.arange(n) ** 2.0)
    monkeypatch.setattr(_thresholds, "MOST_ITERATIONS", 50)
    with pytest.warns(scipy.linalg.LinAlgWarning, match="above rtol"):
        found = sm.solve(A, b)
    assert found.iterations == 0
    assert np.linalg.norm(b - A @ found.x) < 1e-14 * np.linalg.norm(found.x)
    with pytest.raises(sm.ConvergenceError):
        sm.solve(A, b, method=sm.GMRES(), max_iter=50)


def test_iteration_alone_is_accepted_by_its_backward_error():
    A, b = noisy_series(np.asarray, 20, 1e-8), np.sin(np.arange(20) ** 2.0)
    with pytest.warns(scipy.linalg.LinAlgWarning, match="above rtol"):
        found = sm.solve(A, b, max_iter=300)
    assert found.iterations > 0
    assert backward_error(A.to_dense(), found.x, b) < 1e-15


@on("numpy", "torch")
@pytest.mark.parametrize("options", [{}, {"method": sm.CG(), "preconditioner": None}])
def test_elimination_keeps_the_better_solution_of_each_right_hand_side(backend, options):
    """Beside one that has none: what it improves is taken, with and without iteration before, and nothing else."""
    n, rng = 120, np.random.default_rng(0)
    series, noise = backend.asarray(0.9 ** np.arange(n)), backend.asarray(np.geomspace(1e-6, 1e6, n))
    A = sm.Toeplitz(series) + sm.Diagonal(noise)
    b = rng.standard_normal((n, 3))
    b[:, 2] = 0.0
    b[0, 1] = np.nan
    with pytest.raises(sm.ConvergenceError) as caught:
        sm.solve(A, backend.asarray(b), **options)
    found = caught.value.result
    x, residual = backend.to_numpy(found.x), backend.to_numpy(found.residual)
    assert backward_error(backend.to_numpy(A.to_dense()), x[:, 0], b[:, 0]) < 1e-15
    assert residual[0] < 1e-10
    assert not x[:, 2].any()
    assert residual[2] == 0
    assert np.isnan(residual[1])


def test_a_long_vector_that_solves_nothing_is_no_solution():
    """Beside it the residual is as small as a rounding error."""
    A, b = sm.Diagonal(np.array([1.0, 1e-30])), np.array([1.0, 0.0])
    long = np.array([0.0, 1e20])
    assert not is_as_small_as_rounding(A, long, b - A @ long, b, namespace(np.ones(1)))
    with pytest.raises(sm.ConvergenceError, match="A is singular to working precision, use lstsq"):
        sm.solve(sm.Toeplitz(np.ones(4)) + sm.Diagonal(np.zeros(4)), np.arange(4.0))


def test_solutions_of_direct_ways_are_judged_one_by_one():
    """Good enough are those that leave as little as was asked for, or nothing but rounding errors."""
    A, b = sm.Diagonal(np.array([1.0, 2.0])), np.ones((3, 2))
    x = np.array([[1.0, 0.5], [1.0, 0.5 + 1e-9], [0.5, 0.25]])
    found = judged(A, x, b - (A @ x.T).T, b, 1e-8, namespace(b))
    np.testing.assert_array_equal(found.done, [True, True, False])
    assert not judged(A, x, b - (A @ x.T).T, b, 1e-10, namespace(b)).done[1]
    ill = sm.Diagonal(np.array([1.0, 1e-20]))
    long = np.array([0.0, 1e20])
    assert judged(ill, long, np.array([1e-16, 0.0]), np.array([0.0, 1.0]), 1e-17, namespace(b)).done


@pytest.mark.parametrize("scale", [1e-290, 1e290])
def test_backward_errors_do_not_depend_on_scale(scale):
    """No square of an entry of the matrix may overflow on the way to its norm."""
    A, x = sm.Diagonal(np.array([1.0, 2.0]) * scale), np.ones(2)
    b = A @ x
    xp = namespace(b)
    assert is_as_small_as_rounding(A, x, 1e-16 * b, b, xp)
    assert not is_as_small_as_rounding(A, x, 1e-14 * b, b, xp)


@on("numpy", "torch")
def test_least_squares_that_iteration_does_not_reach_are_those_of_singular_vectors(backend):
    """Above the size that is written out first: of condition number 1e7, for which LSMR takes thousands of steps."""
    n = 220
    A = noisy_series(backend.asarray, n, 1e-6, "gaps")
    dense, b = backend.to_numpy(A.to_dense()), np.sin(np.arange(n) ** 2.0)
    found = sm.lstsq(A, backend.asarray(b))
    want = np.linalg.lstsq(dense, b)[0]
    assert found.iterations <= n // 2
    np.testing.assert_allclose(backend.to_numpy(found.x), want, rtol=0, atol=1e-6 * np.max(np.abs(want)))


def test_least_squares_of_low_rank_that_iteration_does_not_reach_have_the_least_norm():
    rng = np.random.default_rng(0)
    smooth = noisy_series(np.asarray, 220, 1e-4)
    A = smooth @ sm.Diagonal((np.arange(220) % 3 > 0) * 1.0)
    b = rng.standard_normal(220)
    found = sm.lstsq(A, b)
    want = np.linalg.lstsq(A.to_dense(), b)[0]
    assert found.iterations == 110
    np.testing.assert_allclose(found.x, want, rtol=0, atol=1e-8 * np.max(np.abs(want)))


# Damping


def damped_reference(dense, b, damp):
    """The least squares of the stacked system, by NumPy."""
    n = dense.shape[-1]
    wide = np.concatenate([dense, np.broadcast_to(damp * np.eye(n), (*dense.shape[:-2], n, n))], axis=-2)
    right = np.concatenate([b, np.zeros((*b.shape[:-1], n))], axis=-1)
    return (np.linalg.pinv(wide, rcond=1e-15) @ right[..., None])[..., 0]


@on(*LIBRARIES, "jax")
def test_damped_least_squares_are_those_of_the_dense_matrix(backend):
    @settings(max_examples=backend.examples)
    @given(*draws(), st.sampled_from(REGISTRY), st.sampled_from([0.1, 1.0, 30.0]))
    def law(seed, dtype, batch, entry, damp):
        v = Vectors(seed, dtype, batch)
        sample = entry.draw(v)
        dense = sample.dense.astype("complex128")
        b = v(dense.shape[-2])
        A, right = sample.make(backend.asarray), backend.asarray(b)
        found = lstsq(A, right, damp=damp)
        want = damped_reference(dense, b, damp)
        x = backend.to_numpy(found.x)
        size = np.max(np.linalg.norm(b, axis=-1)) / damp * max(1.0, np.max(np.linalg.svdvals(dense)) / damp)
        assert np.max(np.abs(x - want)) <= 30 * tolerance(b.dtype) * size
        left = np.linalg.norm((dense @ x[..., None])[..., 0] - b, axis=-1) / np.linalg.norm(b, axis=-1)
        np.testing.assert_allclose(backend.to_numpy(found.residual), left, atol=1e3 * np.finfo(b.dtype).eps)
        with suppress(NotImplementedError):
            again = backend.to_numpy(A.lstsq(right[..., None], damp=damp))[..., 0]
            np.testing.assert_allclose(again, x, atol=float(tolerance(b.dtype) * size))

    law()


@on(*LIBRARIES, "jax")
@pytest.mark.parametrize("damp", [1e-3, 1e-9])
def test_small_damping_keeps_the_digits_of_closed_forms(backend, damp):
    """Also where its square is lost beside the largest singular value."""
    c = np.fft.ifft(np.geomspace(1.0, 1e-6, 12)).real
    b = np.random.default_rng(3).standard_normal(12)
    kernel = sm.MultilevelCirculant(backend.asarray(c), (3, 4))
    for A in (sm.Circulant(backend.asarray(c)), kernel, 2.0 * sm.Circulant(backend.asarray(c / 2))):
        x = backend.to_numpy(A.lstsq(backend.asarray(b), damp=damp))
        want = damped_reference(backend.to_numpy(A.to_dense()), b, damp)
        np.testing.assert_allclose(x, want, rtol=1e-6, atol=1e-8 * np.max(np.abs(want)))


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_damping_at_any_scale(scale):
    rng = np.random.default_rng(4)
    c, r, b = rng.standard_normal(7), rng.standard_normal(5), rng.standard_normal(7)
    for make in (lambda s: sm.Circulant(s * c), lambda s: sm.Toeplitz(s * c, s * r)):
        want = sm.lstsq(make(1.0), b, damp=0.3).x
        np.testing.assert_allclose(sm.lstsq(make(scale), b, damp=0.3 * scale).x * scale, want, rtol=1e-8)


def test_damping_is_that_of_scipy():
    rng = np.random.default_rng(5)
    A, b = sm.Toeplitz(rng.standard_normal(20), rng.standard_normal(8)), rng.standard_normal(20)
    want = scipy.sparse.linalg.lsqr(A.to_dense(), b, damp=0.7, atol=1e-14, btol=1e-14)[0]
    np.testing.assert_allclose(sm.lstsq(A, b, damp=0.7).x, want, atol=1e-9)
    B = rng.standard_normal((20, 3))
    np.testing.assert_allclose(sm.lstsq(A, B, damp=0.7).x[:, 2], sm.lstsq(A, B[:, 2], damp=0.7).x, atol=1e-9)
    with pytest.raises(sm.ConvergenceError) as caught:
        sm.lstsq(A, b, damp=0.01, max_iter=1)
    x = caught.value.result.x
    left = np.linalg.norm(b - A @ x) / np.linalg.norm(b)
    assert caught.value.result.residual == pytest.approx(left, abs=1e-12)


def test_damped_solutions_have_derivatives_in_jax():
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        rng = np.random.default_rng(6)
        c, r, b = (jax.numpy.asarray(rng.standard_normal(n)) for n in (6, 4, 6))

        def dense(c, r, b):
            M = jax.numpy.stack([sm.Toeplitz(c, r) @ e for e in jax.numpy.eye(4)], axis=-1)
            return jax.numpy.linalg.solve(M.T @ M + 0.25 * jax.numpy.eye(4), M.T @ b)

        iterated = lambda c, r, b: sm.lstsq(sm.Toeplitz(c, r), b, damp=0.5).x
        found, expected = (jax.jit(jax.jacobian(f, (0, 1, 2)))(c, r, b) for f in (iterated, dense))
        for got, want in zip(found, expected, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-7)


@pytest.mark.parametrize("singular", [False, True])
def test_damped_closed_forms_have_derivatives_in_torch(singular):
    rng = np.random.default_rng(7)
    values = np.array([2.0, 1.0, 0.0 if singular else 0.5, 1.0])
    c = torch.tensor(np.fft.ifft(values).astype("complex128"), requires_grad=True)
    d = torch.tensor(values, requires_grad=True)
    blocks, b = torch.tensor(rng.standard_normal((2, 3, 2)), requires_grad=True), torch.tensor(rng.standard_normal(4))
    for make, array in ((sm.Circulant, c), (sm.Diagonal, d), (sm.BlockCirculant, blocks)):
        assert torch.autograd.gradcheck(lambda a, make=make: sm.lstsq(make(a), b, damp=0.3).x, array)
        assert torch.autograd.gradcheck(lambda a, make=make: make(a).lstsq(b, damp=0.3), array)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda A, b: sm.lstsq(A, b, damp=-1.0), ValueError, "lstsq: damp must be finite and not negative, got -1"),
        (lambda A, b: A.lstsq(b, damp=np.nan), ValueError, r"Circulant\.lstsq: damp must be finite and not negative"),
        (lambda A, b: A.lstsq(b, damp="much"), TypeError, r"Circulant\.lstsq: damp must be a number, got 'much'"),
        (lambda A, b: A.lstsq(b, damp=1.0, rtol=0.1), ValueError, "rtol must be None with damp"),
        (lambda A, b: (A @ sm.Diagonal(b)).lstsq(b, damp=1.0), NotImplementedError, r"use structmat\.lstsq"),
    ],
)
def test_bad_damping(call, error, text):
    A, b = sm.Circulant([2.0, 1.0, 0.0]), np.ones(3)
    with pytest.raises(error, match=text):
        call(A, b)
    np.testing.assert_array_equal(A.lstsq(b, damp=0.0), A.lstsq(b))
    np.testing.assert_array_equal(sm.lstsq(A, b, damp=0).x, sm.lstsq(A, b).x)


@in_one_test("turn", [0.0, 0.3j])
@in_one_test("method", [sm.CG(), sm.GMRES(), sm.LSMR()])
def test_a_method_ends_by_itself_where_it_has_what_is_asked_for(method, turn):
    """Solutions that are not good enough are improved by further passes, which hide how a method itself has ended."""
    n = 60
    phases = np.exp(turn * np.arange(n))
    A = sm.Toeplitz(0.5 ** np.arange(n) * phases) + sm.Diagonal(np.linspace(1.0, 3.0, n))
    b = np.random.default_rng(0).standard_normal(n) * phases[::-1] ** 2
    counts = []
    for rtol in (1e-3, 1e-6, 1e-9):
        x, count = method.run(A, b, rtol=rtol, max_iter=500)
        assert np.linalg.norm(b - A @ x) <= 1.1 * rtol * np.linalg.norm(b)
        counts.append(int(count))
    assert 0 < counts[0] < counts[1] < counts[2] < n


def test_lsmr_ends_by_itself_where_the_gradient_is_small():
    rng = np.random.default_rng(0)
    A, b = sm.Toeplitz(0.5 ** np.arange(60), 0.4 ** np.arange(40)), rng.standard_normal(60)
    norm = np.linalg.norm(A.to_dense(), 2)
    for rtol in (1e-3, 1e-6, 1e-9):
        x, count = sm.LSMR().run(A, b, rtol=rtol, max_iter=500, norm=norm)
        residual = b - A @ x
        assert np.linalg.norm(A.H @ residual) <= 1.1 * rtol * norm * np.linalg.norm(residual)
        assert 0 < count < 60


def test_gmres_ends_where_a_cycle_makes_no_residual_smaller():
    A = sm.Diagonal(np.array([1.0, 2.0, 0.0]))
    _, count = sm.GMRES().run(A, np.ones(3), rtol=1e-10, max_iter=1000)
    assert count <= 9


def test_how_small_a_gradient_must_be_does_not_depend_on_the_size_of_the_matrix():
    rng = np.random.default_rng(0)
    A, b = sm.Toeplitz(0.5 ** np.arange(60), 0.4 ** np.arange(40)), rng.standard_normal(60)
    dense = A.to_dense()
    norm, best = np.linalg.norm(dense, 2), np.linalg.lstsq(dense, b)[0]
    change = rng.standard_normal(40)
    change *= 1e-6 * np.linalg.norm(b - A @ best) * norm / np.linalg.norm(dense.T @ (dense @ change))
    for size in (2.0**-20, 1.0, 2.0**20):
        for factor, expected in ((0.5, True), (2.0, False)):
            x = (best + factor * change) / size
            measure = ByGradient(A * size, b, np.asarray(size * norm), 1e-6, numpy_namespace)
            assert measure(x, b - (A * size) @ x)[1] == expected


def test_conjugate_gradients_take_no_step_along_a_direction_of_negative_curvature():
    A = sm.Diagonal(np.array([[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0], [0.0, 0.0, 0.0]]))
    x, count = sm.CG().run(A, np.ones((3, 3)), rtol=1e-12, max_iter=50)
    np.testing.assert_allclose(x[0], [1.0, 1 / 2, 1 / 3], rtol=1e-12)
    assert not x[1:].any()
    assert count == 3


def test_a_solution_in_a_trace_that_is_not_good_enough_is_nan(monkeypatch):
    """Where no error can be raised."""
    monkeypatch.setattr(_differentiable, "rules_of", lambda _: SimpleNamespace(is_traced=lambda _: True))
    solutions = Solutions(np.ones((2, 3)), np.array([0.0, 0.5]), np.array([True, False]), 7)
    A, b = sm.Identity(3), np.ones((2, 3))
    found = _differentiable._read(solutions, A, None, b, None, numpy_namespace)
    np.testing.assert_array_equal(found.x, [[1.0] * 3, [np.nan] * 3])


PACKAGE = str(Path(sm.__file__).parent)


def functions_entered(function):
    """Return the names of the functions of the package that are entered once all is imported and kept."""
    for _ in range(3):
        function()
    entered = []

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            entered.append(frame.f_code.co_qualname)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(before)
    return entered


@pytest.mark.parametrize("n", [64, 256])
def test_elimination_enters_few_functions(n):
    """The door, the closed form that there is none of, the band that it is none of, elimination and its judge."""
    A = sm.Toeplitz(0.9 ** np.arange(n)) + sm.Diagonal(np.linspace(1, 2, n))
    entered = functions_entered(partial(sm.solve, A, np.ones(n)))
    assert "eliminated" in entered
    assert len(entered) < 150


def test_solutions_of_circulants_enter_few_functions():
    C = sm.Circulant(np.r_[3.0, np.sin(np.arange(999.0)) / 1000])
    assert len(functions_entered(partial(C.solve, np.ones(1000)))) < 40


def test_what_makes_no_progress_is_eliminated_after_a_trial():
    rng, n = np.random.default_rng(0), 600
    A = sm.Toeplitz(rng.standard_normal(n), rng.standard_normal(n)) + sm.Diagonal(rng.standard_normal(n))
    found = sm.solve(A, rng.standard_normal(n))
    assert found.iterations <= 50
    assert found.residual < 1e-10


@pytest.mark.parametrize("most", ["3", 1.5, 0])
def test_the_most_iterations_are_looked_at_where_there_is_a_closed_form_too(most: Any) -> None:
    A = sm.Toeplitz(0.5 ** np.arange(4.0))
    for function in (lambda: solve(A, np.ones(4), max_iter=most), lambda: lstsq(A, np.ones(4), max_iter=most)):
        with pytest.raises((TypeError, ValueError), match="max_iter must be"):
            function()
    with pytest.raises((TypeError, ValueError), match="slogdet: max_iter must be"):
        sm.slogdet(A, max_iter=most)


def test_the_table_of_ways_in_the_guide_has_the_sizes_of_the_code():
    guide = (Path(__file__).parents[2] / "docs/guide/conventions.md").read_text("utf-8")
    rows = guide.partition("| matrix | rows |")[2].partition("\n\n")[0].splitlines()[2:]
    sizes = [row.split("|")[2].strip() for row in rows]
    above = f"above {_thresholds.WITHOUT_FACTOR:,}"
    sizes_of_dense = (_thresholds.ELIMINATED_FIRST, _thresholds.WRITTEN_OUT, thresholds.LAST_RESORT)
    to = [f"to {most:,}" for most in sizes_of_dense]
    assert sizes == ["any", above, f"any, of stacks from {_thresholds.BANDS_OF_STACK}", above, *to, "above"]
    assert f"at most {_thresholds.WIDEST_BAND} lags" in rows[2]
