"""Operators as trees of JAX: jit, vmap, grad and scan, and what libraries put in place of arrays."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.linalg

import structmat as sm
from structmat.testing._drawing import Vectors
from tests import backends
from tests.cases import in_one_test
from tests.operator_registry import (
    FUNCTIONS,
    REGISTRY,
    Entry,
    arguments_of,
    each,
    every_class,
)

jax = pytest.importorskip("jax")
jnp = backends.get("jax").xp
check_grads = pytest.importorskip("jax.test_util").check_grads

SOME = [entry for entry in REGISTRY if entry.name in {"Circulant", "CDDProduct, D C D", "Scaled", "Toeplitz"}]
PLACEHOLDERS = (0, 1.5, 2j, True, np.float64(3.0), np.int32(4), "name", (), object())


def drawn(entry: Entry, dtype: str = "float64") -> tuple[Any, np.ndarray]:
    sample = entry.draw(Vectors(5, dtype, integers=np.random.default_rng(1).integers))
    return sample.make(jnp.asarray), sample.dense


@every_class
def test_jit_takes_and_returns_operators(entry: Entry) -> None:
    op, dense = drawn(entry)
    x = np.random.default_rng(0).standard_normal((3, dense.shape[1]))
    np.testing.assert_allclose(jax.jit(lambda op, x: op.matvec(x))(op, x), x @ dense.T, atol=1e-12)
    returned = jax.jit(lambda op: (2 * op).H)(op)
    np.testing.assert_allclose(jax.jit(lambda op: op.to_dense())(returned), 2 * dense.conj().T, atol=1e-12)


@pytest.fixture
def default_precision() -> Iterator[None]:
    """JAX as it comes: without 64 bits, which it warns of where they are asked for."""
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


@every_class
@pytest.mark.usefixtures("default_precision")
def test_nothing_asks_for_more_precision_than_there_is(entry: Entry) -> None:
    op, dense = drawn(entry, "float32")
    x = jnp.ones(dense.shape[1])

    def traced(op: Any) -> Any:
        for operator in (op, op.T, op.H, op.prepare(), 2 * op):
            cols = operator.shape[1]
            for result in (operator.to_dense(), operator.matvec(jnp.ones(cols)), operator.matmat(jnp.ones((cols, 2)))):
                assert result.dtype in (jnp.float32, jnp.complex64) or not isinstance(result, jax.Array)
        names = sorted(entry.closed_forms - FUNCTIONS - {"norm"})
        found = [getattr(op, name)(*arguments_of(name, jnp.ones(op.shape[0]))) for name in names]
        return found + [op.norm(order) for order in entry.norms if "norm" in entry.closed_forms]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in sorted(entry.closed_forms & FUNCTIONS):
            getattr(op, name)(*arguments_of(name, x))
        jax.eval_shape(traced, op)  # which compiles nothing
    product = jax.jit(lambda op, x: op.matvec(x))(op, x)
    np.testing.assert_allclose(product, dense.sum(axis=-1), rtol=1e-3, atol=1e-4)


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


@pytest.mark.parametrize("count", [2, 5])
def test_vmap_over_toeplitz_systems(count: int) -> None:
    rng = np.random.default_rng(1)
    c, b = rng.standard_normal((2, 6)), rng.standard_normal((2, 6, count))
    c[:, 0] = 9
    expected = np.linalg.solve(np.stack([scipy.linalg.toeplitz(v) for v in c]), b)
    solve = lambda v, w: sm.Toeplitz(v).solve(w)
    np.testing.assert_allclose(jax.jit(jax.vmap(solve))(c, b), expected, atol=1e-12)
    nested = jax.jit(jax.vmap(lambda v, w: jax.vmap(lambda u: solve(v, u), in_axes=1, out_axes=1)(w)))
    np.testing.assert_allclose(nested(c, b), expected, atol=1e-12)
    gradient = jax.grad(lambda v, w: solve(v, w).sum())
    mapped, single = jax.jit(jax.vmap(gradient))(c, b), jax.jit(gradient)
    np.testing.assert_allclose(mapped, [single(*pair) for pair in zip(c, b, strict=True)], atol=1e-12)


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


@pytest.mark.parametrize("name", ["sqrtm", "expm", "logm"])
def test_matrix_functions_are_traced(name: str) -> None:
    c = jnp.asarray([4.0, 1.0, 0.5, 0.3, 0.2]) + 0j
    function = lambda c: getattr(sm.Circulant(c), name)().c
    np.testing.assert_allclose(jax.jit(function)(c), function(c), atol=1e-12)


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
            np.testing.assert_allclose(jax.jit(jax.grad(of))(c, b), jax.jit(jax.grad(dense))(c, b), atol=1e-12)


@each(REGISTRY)
@in_one_test("leaf", PLACEHOLDERS)
def test_leaves_may_become_anything(entry: Entry, leaf: Any) -> None:
    op, _ = drawn(entry)
    leaves, structure = jax.tree.flatten(op)
    tree = jax.tree.map(lambda _: leaf, op)
    assert jax.tree.structure(tree, is_leaf=lambda v: v is leaf) == structure
    again = jax.tree.leaves(tree, is_leaf=lambda v: v is leaf)
    assert len(again) == len(leaves)
    assert all(type(value) is type(leaf) for value in again)
    back = jax.tree.map(lambda _, a: a, tree, op, is_leaf=lambda v: v is leaf)
    assert repr(back) == repr(op)
    text = repr(tree)
    assert text.startswith(type(op).__name__)
    assert not leaves or text != repr(op)
    assert repr(jax.eval_shape(lambda: op)).startswith(type(op).__name__)


def test_a_number_that_scales_is_no_leaf() -> None:
    blocks = sm.Circulant(jnp.ones(4)) @ sm.BlockCirculant(jnp.ones((2, 2, 2)))
    scaled = sm.Scaled(blocks, jnp.asarray(2.5))
    assert len(jax.tree.leaves(sm.Scaled(blocks, 2.5))) == 2
    assert len(jax.tree.leaves(scaled)) == 3
    assert jax.jit(lambda op: op)(sm.Scaled(blocks, 2.5)).factor == 2.5
    tree = jax.tree.map(lambda _: 3, scaled)
    assert jax.tree.leaves(jax.tree.map(lambda a: a + 1, tree)) == [4, 4, 4]
    assert isinstance(tree.factor, int)


def test_vmap_along_a_tree_of_axes() -> None:
    rng = np.random.default_rng(1)
    product = sm.Circulant(jnp.asarray(rng.standard_normal((3, 4)))) @ sm.BlockCirculant(jnp.ones((3, 2, 2, 2)))
    x = jnp.asarray(rng.standard_normal(4))
    for stack in (product, sm.Scaled(product, jnp.arange(1.0, 4.0)), sm.Scaled(product, 3.0)):
        axes = jax.tree.map(lambda _: 0, stack)
        mapped = jax.vmap(lambda op, v: op.matvec(v), in_axes=(axes, None))(stack, x)
        np.testing.assert_allclose(mapped, stack.matvec(x), atol=1e-12)


@every_class
def test_derivatives_are_those_of_differences(entry: Entry) -> None:
    op, _ = drawn(entry)
    x = jnp.asarray(np.random.default_rng(0).standard_normal(op.shape[1]))
    # which hands over NumPy arrays and tracers, but never both
    check_grads(jax.jit(lambda op, x: op.matvec(x)), (op, x), order=1, modes=("rev",), rtol=1e-4, atol=1e-4)


def test_the_gradient_of_a_prepared_operator_lies_where_its_products_read() -> None:
    c, x = (jnp.asarray(v) for v in np.random.default_rng(0).standard_normal((2, 300)))
    P = sm.Circulant(c).prepare()
    gradient = jax.grad(lambda P: jnp.sum(P.matvec(x) ** 2))(P)
    assert not np.any(gradient.operator.c)
    assert np.any(gradient.plan.spectrum != 0)
    inside = jax.grad(lambda C: jnp.sum(C.prepare().matvec(x) ** 2))(sm.Circulant(c))
    plain = jax.grad(lambda C: jnp.sum(C.matvec(x) ** 2))(sm.Circulant(c))
    np.testing.assert_allclose(inside.c, plain.c, rtol=1e-10)


@each(SOME)
def test_equinox_takes_operators_as_modules(entry: Entry) -> None:
    eqx: Any = pytest.importorskip("equinox")
    op, _ = drawn(entry)
    x = jnp.asarray(np.random.default_rng(0).standard_normal(op.shape[1]))
    arrays, rest = eqx.partition(op, eqx.is_inexact_array)
    assert len(jax.tree.leaves(arrays)) == len(jax.tree.leaves(op))
    assert jax.tree.leaves(rest) == []
    assert repr(rest).startswith(type(op).__name__)
    np.testing.assert_array_equal(eqx.combine(arrays, rest).matvec(x), op.matvec(x))
    nothing, everything = eqx.partition(op, jax.tree.map(lambda _: False, op))
    assert jax.tree.leaves(nothing) == []
    np.testing.assert_array_equal(everything.matvec(x), op.matvec(x))
    gradient = eqx.filter_grad(lambda op: jnp.sum(op.matvec(x) ** 2))(op)
    plain = jax.grad(lambda op: jnp.sum(op.matvec(x) ** 2))(op)
    for got, expected in zip(jax.tree.leaves(gradient), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-12)
    stack = eqx.filter_vmap(lambda a: jax.tree.map(lambda leaf: a * leaf, op))(jnp.arange(1.0, 4.0))
    mapped = eqx.filter_vmap(lambda op: op.matvec(x))(stack)
    assert mapped.shape == (3, op.shape[0])
    np.testing.assert_allclose(mapped[0], op.matvec(x), atol=1e-12)


@each(SOME)
def test_optax_masks_and_trains_operators(entry: Entry) -> None:
    optax: Any = pytest.importorskip("optax")
    op, _ = drawn(entry)
    first, *others = jax.tree.leaves(op)
    frozen = jax.tree.unflatten(jax.tree.structure(op), [False, *(True for _ in others)])
    optimiser = optax.chain(optax.adam(1e-2), optax.masked(optax.set_to_zero(), frozen))
    state = optimiser.init(op)
    for _ in range(3):
        updates, state = optimiser.update(jax.tree.map(jnp.ones_like, op), state, op)
        op = optax.apply_updates(op, updates)
    now, *rest = jax.tree.leaves(op)
    assert np.all(now != first)
    for a, b in zip(rest, others, strict=True):
        np.testing.assert_array_equal(a, b)


@every_class
def test_lineax_multiplies_and_transposes(entry: Entry) -> None:
    pytest.importorskip("lineax")
    op, dense = drawn(entry)
    y = jnp.arange(1, dense.shape[0] + 1, dtype=dense.dtype)

    def multiplied(op: Any, y: Any) -> Any:
        A = sm.jax.as_lineax(op)
        return A.as_matrix(), A.T.mv(y)

    matrix, product = jax.jit(multiplied)(op, y)
    np.testing.assert_allclose(matrix, dense, atol=1e-12)
    np.testing.assert_allclose(product, dense.T @ y, atol=1e-11)


def test_lineax_solves_and_differentiates() -> None:
    lx = pytest.importorskip("lineax")
    c, b = 0.5 ** np.arange(6), np.random.default_rng(0).standard_normal(6)

    def iterated(c: Any) -> Any:
        A = sm.jax.as_lineax(sm.Toeplitz(c), lx.positive_semidefinite_tag)
        return lx.linear_solve(A, jnp.asarray(b), lx.CG(rtol=1e-12, atol=1e-12)).value

    x = scipy.linalg.solve_toeplitz(c, b)
    lags = [scipy.linalg.toeplitz(lag) for lag in np.eye(6)]
    expected = np.stack([-scipy.linalg.solve_toeplitz(c, lag @ x) for lag in lags], axis=-1)
    np.testing.assert_allclose(jax.jit(iterated)(jnp.asarray(c)), x, atol=1e-10)
    np.testing.assert_allclose(jax.jit(jax.jacrev(iterated))(jnp.asarray(c)), expected, atol=1e-9)
    for wrong in (sm.Toeplitz(np.ones(3)), np.ones((3, 3)), sm.Toeplitz(jnp.ones((2, 3)))):
        with pytest.raises(sm.ArgumentError, match="as_lineax: operator must"):
            sm.jax.as_lineax(wrong)
