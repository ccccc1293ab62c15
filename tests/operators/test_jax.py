"""Operators as pytrees: jit, vmap, grad and scan, under JAX."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests import backends
from tests.operator_registry import FUNCTIONS, REGISTRY, Entry, Vectors

jax = pytest.importorskip("jax")
jnp = backends.get("jax").xp

import structmat as sm

entries = pytest.mark.parametrize("entry", REGISTRY, ids=lambda e: e.name)


def drawn(entry: Entry, dtype: str = "float64") -> tuple[Any, np.ndarray]:
    sample = entry.draw(Vectors(5, dtype, shapes=1))
    return sample.make(jnp.asarray), sample.dense


@entries
def test_flatten_and_unflatten(entry: Entry) -> None:
    op, dense = drawn(entry)
    leaves, structure = jax.tree.flatten(op)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    again = jax.tree.unflatten(structure, leaves)
    assert repr(again) == repr(op)
    doubled = jax.tree.map(lambda a: a, op)
    np.testing.assert_allclose(doubled.to_dense(), dense, atol=1e-12)
    jax.tree.unflatten(structure, [object()] * len(leaves))  # placeholders, as tracing libraries put in


@entries
def test_jit_takes_and_returns_operators(entry: Entry) -> None:
    op, dense = drawn(entry)
    x = np.random.default_rng(0).standard_normal((3, dense.shape[1]))
    np.testing.assert_allclose(jax.jit(lambda op, x: op.matvec(x))(op, x), x @ dense.T, atol=1e-12)
    np.testing.assert_allclose(jax.jit(lambda op: (2 * op).H)(op).to_dense(), 2 * dense.conj().T, atol=1e-12)


@entries
def test_grad_through_parameters(entry: Entry) -> None:
    op, dense = drawn(entry)
    if not jax.tree.leaves(op):
        pytest.skip("no parameters")
    x = jnp.asarray(np.random.default_rng(0).standard_normal(dense.shape[1]))

    def loss(op: Any) -> Any:
        return jnp.sum(jnp.abs(op.matvec(x)) ** 2)

    gradient = (
        jax.jit(jax.grad(loss))(op) if entry.name != "SpectralCirculant" else jax.grad(lambda o: loss(o).real)(op)
    )
    assert type(gradient) is type(op)
    step = 1e-6
    for i, (leaf, slope) in enumerate(zip(jax.tree.leaves(op), jax.tree.leaves(gradient), strict=True)):
        direction = jnp.asarray(np.random.default_rng(i).standard_normal(leaf.shape), dtype=leaf.dtype)
        leaves, structure = jax.tree.flatten(op)
        ends = [
            loss(jax.tree.unflatten(structure, [*leaves[:i], leaf + sign * step * direction, *leaves[i + 1 :]]))
            for sign in (1, -1)
        ]
        numeric = (ends[0] - ends[1]) / (2 * step)
        analytic = jnp.sum((slope * direction).real)
        assert abs(numeric - analytic) <= 1e-5 * (1 + abs(numeric))


@pytest.fixture
def default_precision() -> Iterator[None]:
    """JAX as it comes: without 64 bits, which it warns of where they are asked for."""
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


@entries
@pytest.mark.usefixtures("default_precision")
def test_nothing_asks_for_more_precision_than_there_is(entry: Entry) -> None:
    op, dense = drawn(entry, "float32")
    x = jnp.ones(dense.shape[1])

    def traced(op: Any) -> Any:
        for operator in (op, op.T, op.H, op.prepare(), 2 * op):
            cols = operator.shape[1]
            for result in (operator.to_dense(), operator.matvec(jnp.ones(cols)), operator.matmat(jnp.ones((cols, 2)))):
                assert result.dtype in (jnp.float32, jnp.complex64) or not isinstance(result, jax.Array)
        names = sorted(entry.closed_forms - FUNCTIONS - {"solve", "lstsq", "norm"})
        found = [getattr(op, name)() for name in names]
        found += [op.norm(order) for order in entry.norms if "norm" in entry.closed_forms]
        if "solve" in entry.closed_forms:
            found.append(op.solve(jnp.ones(op.shape[0])))
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in sorted(entry.closed_forms & FUNCTIONS - {"fractional_matrix_power"}):
            getattr(op, name)()
        jax.eval_shape(traced, op)  # which compiles nothing
    np.testing.assert_allclose(op.matvec(x), dense.sum(axis=-1), rtol=1e-3, atol=1e-4)


def test_vmap_over_operators_and_vectors() -> None:
    rng = np.random.default_rng(1)
    stack = sm.CDDProduct.from_vectors(*(jnp.asarray(rng.standard_normal((4, 6))) for _ in range(3)))
    x = jnp.asarray(rng.standard_normal((4, 6)))
    mapped = jax.vmap(lambda op, v: op.matvec(v))(stack, x)
    np.testing.assert_allclose(mapped, stack.matvec(x), atol=1e-12)
    shared = jax.vmap(lambda op, v: op.matvec(v), in_axes=(0, None))(stack, x[0])
    np.testing.assert_allclose(shared, stack.matvec(x[0]), atol=1e-12)
    made = jax.vmap(lambda c: sm.Circulant(c).inv())(x)
    assert made.batch_shape == (4,)


def test_scan_with_an_operator_as_carry() -> None:
    rng = np.random.default_rng(2)
    C = sm.Circulant(jnp.asarray(rng.standard_normal(5) / 5))
    x = jnp.asarray(rng.standard_normal(5))

    def step(carry: Any, _: Any) -> Any:
        op, v = carry
        v = op.matvec(v)
        return (op, v), v

    (last, v), history = jax.lax.scan(step, (C, x), None, length=4)
    assert isinstance(last, sm.Circulant)
    np.testing.assert_allclose(v, np.linalg.matrix_power(np.asarray(C.to_dense()), 4) @ x, atol=1e-12)
    np.testing.assert_allclose(history[-1], v)


def test_linear_algebra_under_jit() -> None:
    c = jnp.asarray([4.0, 1.0, 0.5, 0.3, 0.2])
    A = sm.Circulant(c).to_dense()
    b = jnp.arange(5.0)
    np.testing.assert_allclose(jax.jit(lambda c, b: sm.Circulant(c).solve(b))(c, b), np.linalg.solve(A, b), atol=1e-12)
    np.testing.assert_allclose(jax.jit(lambda c: sm.Circulant(c).slogdet().logabsdet)(c), np.linalg.slogdet(A)[1])
    np.testing.assert_allclose(jax.jit(lambda c: sm.Circulant(c).svdvals())(c), np.linalg.svdvals(A), atol=1e-12)
    np.testing.assert_allclose(
        jax.jit(lambda c: sm.Circulant(c).expm().c)(c), jax.scipy.linalg.expm(A)[:, 0], rtol=1e-10
    )
    complex_root = jax.jit(lambda c: sm.Circulant(c + 0j).sqrtm().c)(c)
    np.testing.assert_allclose(complex_root, sm.Circulant(c).sqrtm().c, atol=1e-12)


def test_singular_matrices_give_infinities_not_errors() -> None:
    assert not np.all(np.isfinite(sm.Circulant(jnp.ones(4)).inv().c))


def test_operators_of_ones_own_register_once() -> None:
    with pytest.raises(ValueError, match="Duplicate custom PyTreeDef"):
        sm.jax.register_operator(sm.Circulant)


def test_gradients_of_blocks_of_one_and_where_singular_values_coincide() -> None:
    """Both compiled: XLA fails on some transforms of length one."""
    for grid in ([[[4.0], [1.0]], [[2.0], [3.0]]], [[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]]):
        c = jnp.asarray(grid)
        b = jnp.arange(1.0, 1 + c.shape[1] * c.shape[2])
        dense = lambda c, b: jnp.sum(jnp.linalg.solve(sm.BlockCirculant(c).to_dense(), b) ** 2)
        for method in ("solve", "lstsq"):
            of = lambda c, b, method=method: jnp.sum(getattr(sm.BlockCirculant(c), method)(b) ** 2)
            np.testing.assert_allclose(jax.jit(jax.grad(of))(c, b), jax.grad(dense)(c, b), atol=1e-12)
