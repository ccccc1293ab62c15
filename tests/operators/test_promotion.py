"""The dtype of a result is that which the library of the arrays gives to dense ones, of scalars and weak types too."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import structmat as sm
from tests.backends import Backend, get

MAKERS: dict[str, Callable[[Any], sm.LinearOperator]] = {
    "Circulant": sm.Circulant,
    "MultilevelCirculant": lambda c: sm.MultilevelCirculant(c, (2, 2)),
    "BandedCirculant": lambda c: sm.BandedCirculant(c[:2], 4),
    "Diagonal": sm.Diagonal,
    "BlockCirculant": lambda c: sm.BlockCirculant(c[None, None, :]),
    "Toeplitz": sm.Toeplitz,
    "Hankel": sm.Hankel,
    "CDDProduct": lambda c: sm.CDDProduct.from_vectors(c, c, c),
    "Product": lambda c: sm.Toeplitz(c) @ sm.Hankel(c),
    "Sum": lambda c: sm.Toeplitz(c) + sm.Diagonal(c),
    "Scaled": lambda c: sm.Scaled(sm.Toeplitz(c), 3),
    "Prepared": lambda c: sm.Toeplitz(c).prepare(),
}
kinds = pytest.mark.parametrize("name", MAKERS)


def scalars(backend: Backend) -> list[Any]:
    """Scalars of all precisions, real and complex, and in JAX those of weak types."""
    strong = [backend.asarray(np.asarray(2, dtype)) for dtype in ("float32", "float64", "complex64", "complex128")]
    return strong + [backend.xp.full((), value) for value in (2.0, 2j)] * (backend.name == "jax")


def vectors(backend: Backend) -> list[Any]:
    dtypes = [backend.dtype(name) for name in filter(None, ("float32", backend.half, "complex64"))]
    return [backend.xp.full((4,), 2.0, dtype=dtype) for dtype in dtypes]


@kinds
def test_multiples_of_the_identity_count_for_what_their_scalars_do(backend: Backend, name: str) -> None:
    if backend.name == "array_api_strict":
        pytest.skip("mixes no precisions")

    def dtypes_agree(c: Any, e: Any) -> None:
        try:
            wanted = (c * e).dtype
        except NotImplementedError:  # torch 2.15 has a dtype for bfloat16 and complex numbers, and no products
            return
        op, multiple = MAKERS[name](c), e * sm.Identity(4)
        sums = {"K + eI": op + multiple, "eI + K": multiple + op, "K @ eI": op @ multiple, "eI @ K": multiple @ op}
        sums |= {"Sum": sm.Sum((op, multiple)), "-": op - multiple, "K / e": op / e}
        sums |= {"I / e": op + multiple / e, "Product": sm.Product((multiple, op))}
        sums |= {"Scaled": sm.Scaled(sm.Toeplitz(c), e)}
        got = {label: {total.dtype, total.matvec(c).dtype, total.to_dense().dtype} for label, total in sums.items()}
        assert got == {label: {wanted} for label in sums}, (c.dtype, e)
        assert (multiple @ c).dtype == (multiple @ c[:, None]).dtype == (c @ multiple).dtype == wanted, (c.dtype, e)

    for c in vectors(backend):
        for e in scalars(backend):
            if backend.compiles:
                importlib.import_module("jax").eval_shape(dtypes_agree, c, e)  # which compiles nothing
            else:
                dtypes_agree(c, e)


def test_a_sum_with_a_traced_multiple_of_the_identity_can_be_carried() -> None:
    """In JAX a loop takes nothing that changes its dtype."""
    jax: Any = pytest.importorskip("jax")
    c = get("jax").xp.arange(4.0, dtype="bfloat16")

    def shifted(_: int, state: tuple[Any, Any]) -> tuple[Any, Any]:
        op, e = state
        return op + e * sm.Identity(4), e / 2

    for make in MAKERS.values():
        op = make(c)
        if type(op + sm.Identity(4)) is type(op) and not isinstance(op, sm.Sum):  # else each step adds a term
            last, _ = jax.jit(lambda op, e: jax.lax.fori_loop(0, 3, shifted, (op, e)))(op, 0.5)
            np.testing.assert_allclose(last.to_dense(), op.to_dense() + 0.875 * np.eye(4), rtol=2e-2)
            assert last.dtype == "bfloat16"


@kinds
def test_weak_types_of_jax_count_for_their_kind_only(name: str) -> None:
    backend = get("jax")
    jnp = backend.xp
    weak = [jnp.full(4, value) for value in (2.0, 2j)]
    assert all(vector.weak_type for vector in weak)

    def dtypes_agree(strong: Any, light: Any) -> None:
        wanted = (strong * light).dtype
        for op, x in ((MAKERS[name](strong), light), (MAKERS[name](light), strong)):
            got = {(op @ x).dtype, (op @ x[:, None]).dtype, (x @ op).dtype, op.rmatvec(x).dtype}
            assert got == {wanted}, (op, x)
        for total in (MAKERS[name](strong) + MAKERS[name](light), MAKERS[name](strong) @ MAKERS[name](light)):
            assert (total.dtype, total.to_dense().dtype, (total @ strong).dtype) == (wanted,) * 3, total

    for strong in vectors(backend):
        for light in weak:
            importlib.import_module("jax").eval_shape(dtypes_agree, strong, light)  # which compiles nothing
    assert (MAKERS[name](weak[0]) @ weak[0]).dtype == weak[0].dtype


def test_parameters_of_weak_types_take_the_dtype_of_the_others() -> None:
    jnp = get("jax").xp
    strong, light = jnp.ones(4, "float32"), jnp.full(4, 2.0)
    for op in (
        sm.Toeplitz(strong, light),
        sm.Toeplitz(light, strong),
        sm.CDDProduct.from_vectors(strong, light, strong),
        sm.ToeplitzInverse(strong, light),
    ):
        assert (op.dtype, (op @ strong).dtype) == ("float32", "float32"), op
