"""Operators as trees whose leaves are anything: what JAX, Equinox and Optax put in place of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests import backends
from tests.operator_registry import REGISTRY, Entry, Vectors

jax = pytest.importorskip("jax")
check_grads = pytest.importorskip("jax.test_util").check_grads
jnp = backends.get("jax").xp

import structmat as sm

entries = pytest.mark.parametrize("entry", REGISTRY, ids=lambda e: e.name)
SOME = [entry for entry in REGISTRY if entry.name in {"Circulant", "CDDProduct, D C D", "Scaled", "Toeplitz"}]
PLACEHOLDERS = (0, 1.5, 2j, True, np.float64(3.0), np.int32(4), "name", (), object())


def drawn(entry: Entry, dtype: str = "float64") -> Any:
    return entry.draw(Vectors(5, dtype, shapes=1)).make(jnp.asarray)


def numbers(op: Any, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(rng.standard_normal(a.shape)), op)


@entries
@pytest.mark.parametrize("leaf", PLACEHOLDERS, ids=lambda v: type(v).__name__)
def test_leaves_may_become_anything(entry: Entry, leaf: Any) -> None:
    op = drawn(entry)
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


@entries
def test_parameters_are_counted(entry: Entry) -> None:
    op = drawn(entry)
    sizes = jax.tree.leaves(jax.tree.map(lambda a: a.size, op))
    assert sum(sizes) == sum(a.size for a in jax.tree.leaves(op))


def test_vmap_along_a_tree_of_axes() -> None:
    rng = np.random.default_rng(1)
    product = sm.Circulant(jnp.asarray(rng.standard_normal((3, 4)))) @ sm.BlockCirculant(jnp.ones((3, 2, 2, 2)))
    x = jnp.asarray(rng.standard_normal(4))
    for stack in (product, sm.Scaled(product, jnp.arange(1.0, 4.0)), sm.Scaled(product, 3.0)):
        axes = jax.tree.map(lambda _: 0, stack)
        mapped = jax.vmap(lambda op, v: op.matvec(v), in_axes=(axes, None))(stack, x)
        np.testing.assert_allclose(mapped, stack.matvec(x), atol=1e-12)


@pytest.mark.parametrize("entry", SOME, ids=lambda e: e.name)
def test_derivatives_are_those_of_differences(entry: Entry) -> None:
    op = drawn(entry)
    x = jnp.asarray(np.random.default_rng(0).standard_normal(op.shape[1]))
    # which hands over NumPy arrays and tracers, but never both
    check_grads(lambda op, x: op.matvec(x), (op, x), order=1, modes=("rev",), rtol=1e-4, atol=1e-4)


def test_the_gradient_of_a_prepared_operator_lies_where_its_products_read() -> None:
    c, x = (jnp.asarray(v) for v in np.random.default_rng(0).standard_normal((2, 300)))
    P = sm.Circulant(c).prepare()
    gradient = jax.grad(lambda P: jnp.sum(P.matvec(x) ** 2))(P)
    assert not np.any(gradient.operator.c)
    assert np.any(gradient.plan.spectrum != 0)
    inside = jax.grad(lambda C: jnp.sum(C.prepare().matvec(x) ** 2))(sm.Circulant(c))
    plain = jax.grad(lambda C: jnp.sum(C.matvec(x) ** 2))(sm.Circulant(c))
    np.testing.assert_allclose(inside.c, plain.c, rtol=1e-10)


@pytest.mark.parametrize("entry", SOME, ids=lambda e: e.name)
def test_equinox_takes_operators_as_modules(entry: Entry) -> None:
    eqx: Any = pytest.importorskip("equinox")
    op = drawn(entry)
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


@pytest.mark.parametrize("entry", SOME, ids=lambda e: e.name)
def test_optax_masks_and_trains_operators(entry: Entry) -> None:
    optax: Any = pytest.importorskip("optax")
    op, target = drawn(entry), numbers(drawn(entry))
    kept = jax.tree.map(lambda _: False, op)
    first, *others = jax.tree.leaves(op)
    mask = jax.tree.unflatten(jax.tree.structure(op), [True, *(False for _ in others)])
    optimiser = optax.chain(optax.adam(1e-2), optax.masked(optax.set_to_zero(), jax.tree.map(lambda m: not m, mask)))
    state = optimiser.init(op)

    def loss(op: Any) -> Any:
        return sum(jnp.sum((a - b) ** 2) for a, b in zip(jax.tree.leaves(op), jax.tree.leaves(target), strict=True))

    for _ in range(3):
        updates, state = optimiser.update(jax.grad(loss)(op), state, op)
        op = optax.apply_updates(op, updates)
    now, *rest = jax.tree.leaves(op)
    assert np.all(now != first)
    for a, b in zip(rest, others, strict=True):
        np.testing.assert_array_equal(a, b)
    assert jax.tree.leaves(kept) == [False] * (1 + len(others))
